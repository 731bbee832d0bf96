"""Plots of a deconfounded reward, and of its sensitivity; they read only the result."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy import special

from causalrm.core import plotting
from causalrm.core.errors import DataError
from causalrm.core.format import percent
from causalrm.core.result import check_level, quantile

if TYPE_CHECKING:
    from causalrm.deconfound.result import DeconfoundedResult
    from causalrm.deconfound.sensitivity import SensitivityResult


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
        plotting.diagonal(ax, float(x.max()), float(x.min()), label="As predicted", zorder=1)
        ax.set_ylim(float(part["low"].min()), float(part["high"].max()))
        name = plotting.label(term)
        ax.set_xlabel(f"{name}, predicted from the text (out of fold)")
        ax.set_ylabel(name)
        r2 = self._result.diagnostics["entanglement"][term]
        ax.set_title(f"Out-of-fold R2 {r2:.2f}", loc="left", fontsize="medium")
        ax.legend(frameon=False, fontsize="small")
        return ax


class SensitivityPlots:
    """Plots of a sensitivity analysis.

    Parameters
    ----------
    result : SensitivityResult
    """

    def __init__(self, result: SensitivityResult):
        self._result = result

    def __call__(self, ax: Axes | None = None, **options: Any) -> Axes:
        """Contours; the same as `contour`."""
        return self.contour(ax, **options)

    def contour(
        self, ax: Axes | None = None, limit: float | None = None, level: float | None = None
    ) -> Axes:
        """Draw what is left of the estimate under confounders of all strengths.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        limit : float, optional
            Largest strength on both axes; by default each shows the robustness value and the
            benchmarks near it, and those far beyond are named.
        level : float, optional
            Draw the confidence bound of this level instead of the estimate.

        Returns
        -------
        matplotlib.axes.Axes
        """
        r = self._result
        ax = plotting.axes(ax, height=5.0)
        rv = r.robustness_value()
        marks = r.benchmarks
        reach = {c: limit or 0.0 for c in ("cf_d", "cf_y")}
        if limit is None:  # near benchmarks decide; those far beyond are named below the title
            for c in reach:
                near = marks.loc[marks[c] <= max(12 * rv, 0.1), c]
                reach[c] = min(max([1.6 * rv, 0.02, *(1.25 * near)]), 0.95)
        sides = [np.linspace(0.0, reach[c], 121) for c in ("cf_d", "cf_y")]
        d, y = np.meshgrid(*sides)
        b = np.sqrt(y * d / (1 - d))
        sign = 1.0 if r.estimate >= r.null else -1.0
        left = r.estimate - sign * b * r.scale
        if level is not None:
            z = float(special.ndtri(check_level(level)))
            left = left - sign * z * np.vectorize(r._error)(b)
        lines = ax.contour(
            d, y, left, levels=9, colors=plotting.GREY, linewidths=0.8, linestyles="solid"
        )
        levels = np.asarray(lines.levels, dtype=float)
        step = float(levels[1] - levels[0])
        places = max(0, 1 - math.floor(math.log10(step))) if step < 10 else 0
        shown = [float(v) for v in levels if abs(v - r.null) > 0.25 * step]
        ax.clabel(lines, shown, fmt=f"%.{places}f", fontsize=8)
        if left.min() < r.null < left.max():
            ax.contour(d, y, left, levels=[r.null], colors=plotting.color(1), linewidths=2.0)
            ax.plot([], [], color=plotting.color(1), linewidth=2.0, label=f"{r.null:g}: no effect")
            ax.legend(loc="upper right", framealpha=1.0, edgecolor="none", fontsize=9)
        edge = r.robustness_value(level=level)
        if 0 < edge <= min(reach.values()):
            what = "RV" if level is None else "RVa"
            ax.plot(edge, edge, "D", color=plotting.color(1), markersize=6, zorder=3)
            ax.annotate(
                f"{what} = {edge:.3f}", (edge, edge), (7, 5), textcoords="offset points",
                color=plotting.color(1), fontsize=9, weight="bold", zorder=4,
            )  # fmt: skip
        beyond: list[str] = []
        placed: list[tuple[float, float]] = []
        for name, row in marks.iterrows():
            if row["cf_d"] > reach["cf_d"] or row["cf_y"] > reach["cf_y"]:
                beyond.append(str(name))
                continue
            ax.plot(row["cf_d"], row["cf_y"], "o", color=plotting.color(0), clip_on=False)
            right = row["cf_d"] > 0.75 * reach["cf_d"]
            at = (row["cf_d"] / reach["cf_d"], row["cf_y"] / reach["cf_y"])
            near_by = sum(abs(at[0] - a) < 0.15 and abs(at[1] - b) < 0.05 for a, b in placed)
            placed.append(at)
            ax.annotate(
                str(name), (row["cf_d"], row["cf_y"]), (-6 if right else 6, 4 + 11 * near_by),
                textcoords="offset points", ha="right" if right else "left",
                color=plotting.color(0), fontsize=9, zorder=4,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
            )  # fmt: skip
        ax.set_xlim(0, reach["cf_d"])
        ax.set_ylim(0, reach["cf_y"])
        note = f"\nbeyond the axes: {'; '.join(beyond)}" if beyond else ""
        ax.set_xlabel(f"Confounding of the treatment (cf_d){note}")
        ax.set_ylabel("Confounding of the outcome (cf_y)")
        what = "Estimate" if level is None else f"{percent(level)} bound"
        ax.set_title(f"{what} of {r.name} at worst", fontsize=10)
        ax.grid(False)
        return ax

    def benchmarks(self, ax: Axes | None = None) -> Axes:
        """Draw the bounds under a confounder as strong as each observed covariate.

        Raises
        ------
        DataError
            When there are no benchmarks.
        """
        r = self._result
        if r.benchmarks.empty:
            raise DataError("Expected benchmarks to draw, but there are none. Give benchmarks=.")
        frame = pd.DataFrame(
            {
                "term": ["no confounder", *(f"as strong as {n}" for n in r.benchmarks.index)],
                "estimate": r.estimate,
                "conf_low": [r.estimate, *r.benchmarks["low"]],
                "conf_high": [r.estimate, *r.benchmarks["high"]],
            }
        )
        return plotting.forest(ax, frame, reference_at=r.null, xlabel=f"Bounds of {r.name}")
