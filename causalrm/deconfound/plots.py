"""Plots of a deconfounded reward; they read only the result."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.axes import Axes

from causalrm.core import plotting
from causalrm.core.errors import DataError
from causalrm.core.format import percent
from causalrm.core.result import quantile

if TYPE_CHECKING:
    from causalrm.deconfound.result import DeconfoundedResult


class DeconfoundedPlots:
    """Plots of a fit: ``result.plot()`` and ``result.plot.<kind>()``.

    Each takes `ax`, a matplotlib Axes to draw on (a new figure by default), and returns it;
    nothing is shown.

    Parameters
    ----------
    result : DeconfoundedResult
    """

    def __init__(self, result: DeconfoundedResult):
        self._result = result

    def __call__(self, ax: Axes | None = None, level: float = 0.95) -> Axes:
        """Draw the effects of the confounders; the same as `confounders`."""
        return self.confounders(ax, level)

    def confounders(self, ax: Axes | None = None, level: float = 0.95) -> Axes:
        """Draw what is subtracted per unit of each confounder, beside what other ways would give.

        Where "alone" differs from "given the text" or "by instrument", confounder and text quality
        are entangled, and residualising the outcome takes quality away.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        level : float

        Returns
        -------
        matplotlib.axes.Axes
        """
        r = self._result
        z = quantile(level, r._df)
        used = r.to_frame(level).query("parameter == 'confounder'")
        used = used.assign(way=f"used: {r.method}")[
            ["way", "term", "estimate", "conf_low", "conf_high"]
        ]
        frames = [used]
        if len(r.gammas):
            half = z * r.gammas["std_error"]
            frames.insert(0, r.gammas.assign(
                conf_low=r.gammas["estimate"] - half, conf_high=r.gammas["estimate"] + half
            )[list(used)])  # fmt: skip
        frame = pd.concat(frames).reset_index(drop=True)
        if not len(frame):
            return self.rewards(ax, level)
        order = {term: i for i, term in enumerate(dict.fromkeys(frame["term"]))}
        frame = frame.iloc[frame["term"].map(order).argsort(kind="stable")]
        frame = frame.rename(columns={"term": "group", "way": "term"}).head(60)
        ax = plotting.forest(
            ax, frame, labels=frame["term"].tolist(),
            xlabel=f"Effect on {r.outcome} per unit ({percent(level)} intervals)",
        )  # fmt: skip
        ax.set_ylabel("Confounder")
        return ax

    def rewards(self, ax: Axes | None = None, level: float = 0.95) -> Axes:
        """Draw the coefficients of the reward model.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        level : float

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        DataError
            When the reward model has no coefficients to show.
        """
        r = self._result
        frame = r.to_frame(level).query("parameter == 'reward' and term != 'Intercept'")
        if not len(frame) and "reward_terms" in r.diagnostics:
            frame = r.diagnostics["reward_terms"]
            half = quantile(level, r._df) * frame["std_error"]
            frame = frame.assign(
                conf_low=frame["estimate"] - half, conf_high=frame["estimate"] + half
            )
        if not len(frame):
            raise DataError(
                "Expected a linear reward model, but this one has no coefficients. Leave nuisance "
                "out for a linear one."
            )
        frame = frame[["term", "estimate", "conf_low", "conf_high"]].head(60)
        ax = plotting.forest(
            ax, frame, labels=[str(t) for t in frame["term"]],
            xlabel=f"Reward per unit of the feature ({percent(level)} intervals)",
        )  # fmt: skip
        ax.set_ylabel("Feature")
        return ax

    def entanglement(self, ax: Axes | None = None, term: str | None = None) -> Axes:
        """Draw the confounder against what the text predicts of it, out of fold.

        A flat line: not entangled. A steep line with a wide band: entangled, and enough is left of
        the confounder to learn its effect. A steep line with a narrow band: the text determines
        the confounder, and only an instrument helps.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        term : str, optional
            A confounder column; the first by default.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        DataError
            When the fit has no such confounder.
        """
        frame = self._result.overlap
        terms = list(dict.fromkeys(frame["term"])) if len(frame) else []
        term = term or (terms[0] if terms else "")
        if term not in terms:
            raise DataError(
                f"Expected a confounder that the fit compared with the text, but saw {term!r}. "
                f"Give one of {terms}."
            )
        part = frame[frame["term"] == term]
        ax = plotting.axes(ax)
        x = part["predicted"]
        plotting.band(ax, x, part["low"], part["high"], label="10 % to 90 % of rows")
        ax.plot(x, part["mean"], "o-", color=plotting.color(0), markersize=4, label="Mean")
        ax.axline(
            (float(x.mean()), float(x.mean())), slope=1, color=plotting.GREY, linewidth=1.0,
            linestyle=(0, (4, 3)), zorder=1, label="As predicted",
        )  # fmt: skip
        ax.set_ylim(float(part["low"].min()), float(part["high"].max()))
        name = plotting.label(term)
        ax.set_xlabel(f"{name}, predicted from the text (out of fold)")
        ax.set_ylabel(name)
        r2 = self._result.diagnostics["entanglement"][term]
        ax.set_title(f"Out-of-fold R2 {r2:.2f}", loc="left", fontsize="medium")
        ax.legend(frameon=False, fontsize="small")
        return ax
