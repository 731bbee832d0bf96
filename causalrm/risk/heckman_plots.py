"""Plots of a Heckman model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from causalrm.core import plotting

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from causalrm.risk.heckman_result import HeckmanResult

_NAMES = {"posterior": "posterior", "ml": "maximum likelihood", "two-step": "two-step"}


class HeckmanPlots:
    """Plots of a `HeckmanResult`; calling it draws `estimates`."""

    def __init__(self, result: HeckmanResult):
        self._result = result

    def __call__(self, ax: Axes | None = None) -> Axes:
        """Draw `estimates`."""
        return self.estimates(ax)

    def estimates(
        self, ax: Axes | None = None, *, parameter: str = "outcome", level: float = 0.95
    ) -> Axes:
        """Coefficients by three methods: posterior, maximum likelihood, two steps.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        parameter : {"outcome", "selection", "rho"}
            Intercepts are left out.
        level : float
        """
        frame = self._result.comparison(level)
        frame = frame[(frame["parameter"] == parameter) & (frame["term"] != "Intercept")]
        terms = list(dict.fromkeys(frame["term"]))
        if ax is None:
            ax = plotting.axes(None, height=1.3 + 0.5 * len(terms))
        plotting.style(ax)
        for g, (group, name) in enumerate(_NAMES.items()):
            own = frame[frame["group"] == group].reset_index(drop=True)
            at = np.arange(len(own)) + 0.22 * (g - 1)
            ax.hlines(at, own["conf_low"], own["conf_high"], color=plotting.color(g), lw=1.8)
            ax.plot(own["estimate"], at, "o", color=plotting.color(g), ms=5, label=name)
        plotting.reference(ax, x=0.0)
        plotting.list_rows(ax, [plotting.label(t) for t in terms])
        ax.set_xlabel("Coefficient")
        ax.set_title(f"{parameter.capitalize()} by three methods", fontsize=10, pad=24)
        ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
        return ax

    def ridge(self, ax: Axes | None = None) -> Axes:
        """Draws of rho against the implied mean outcome of everybody.

        Where the cloud is long and tilted, the answer to "what would the unseen earn" is an answer
        about rho.
        """
        r = self._result
        ax = plotting.axes(ax)
        row = np.asarray(r.diagnostics["mean_row"])
        mean = r.draws[:, : len(row)] @ row
        ax.plot(r.draws[:, -1], mean, ".", color=plotting.color(0), ms=3, alpha=0.35, mew=0)
        plotting.reference(ax, x=0.0)
        plotting.reference(ax, y=r.seen_mean)
        ax.set_xlabel("Correlation of outcome and selection errors, rho")
        ax.set_ylabel("Mean outcome of all rows")
        ax.annotate(
            "mean of the selected", (1, r.seen_mean), xycoords=("axes fraction", "data"),
            xytext=(-2, 3), textcoords="offset points", ha="right", color=plotting.GREY, size=9,
        )  # fmt: skip
        return ax

    def shape(self, ax: Axes | None = None) -> Axes:
        """Seen outcomes against the distribution that the fit gives them: a straight line if right.

        The band holds 95 % of samples of this size at each point.
        """
        r = self._result
        ax = plotting.axes(ax)
        expected, found = r.pit.T
        half = 1.96 * np.sqrt(expected * (1 - expected) / r.counts["selected"])
        plotting.band(ax, expected, expected - half, expected + half, color=plotting.GREY)
        plotting.diagonal(ax)
        ax.plot(expected, found, color=plotting.color(0), lw=1.6)
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1)
        ax.set_xlabel("Share of seen outcomes below")
        ax.set_ylabel("Probability under the fit")
        return ax
