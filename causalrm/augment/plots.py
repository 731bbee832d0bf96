"""Plots of the results of augmentation; they read only the result."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from causalrm.core import plotting
from causalrm.core.errors import DataError

if TYPE_CHECKING:
    from causalrm.augment.result import EstimatesResult, RobustResult

_LABELS = {
    "sensitivity": "Reward gap of causal pairs (log odds)",
    "typical gap": "Typical reward gap (root mean square, log odds)",
    "invariance": "Invariance (1: neutral changes do not move the reward)",
    "change when dropped": "Change of sensitivity without the attribute's own pairs",
    "keep rate": "Share of pairs kept",
    "accuracy": "Accuracy",
    "drop": "Drop in accuracy",
}


_ROWS = {
    "sensitivity": "Attribute",
    "change when dropped": "Attribute",
    "typical gap": "Pairs",
    "invariance": "Neutral pairs",
    "keep rate": "Augmented pairs",
    "accuracy": "Category",
    "difference": "Category",
    "drop": "Change of style",
}


class EstimatesPlots:
    """Plots of estimates: ``result.plot()`` and ``result.plot(group)``.

    Parameters
    ----------
    result : EstimatesResult
    """

    def __init__(self, result: EstimatesResult):
        self._result = result

    def __call__(
        self, group: str | None = None, ax: Axes | None = None, *, level: float = 0.95
    ) -> Axes:
        """Draw the estimates of one group with their intervals.

        Parameters
        ----------
        group : str, optional
            All groups by default.
        ax : matplotlib Axes, optional
        level : float

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        DataError
            When there is no such group.
        """
        frame = self._result.to_frame(level)
        groups = list(dict.fromkeys(frame["group"]))
        if group is not None:
            if group not in groups:
                raise DataError(f"The result has no group {group!r}. Give one of {groups}.")
            frame = frame[frame["group"] == group]
            groups = [group]
        label = _LABELS.get(groups[0], groups[0]) if len(groups) == 1 else "Estimate"
        if len(groups) == 1:
            frame = frame.drop(columns="group")
        tested = bool(frame["statistic"].notna().any())
        names = [str(term).replace("_", " ") for term in frame["term"]]
        ax = plotting.forest(
            ax, frame, labels=names, xlabel=label, reference_at=0.0 if tested else None
        )
        ax.set_ylabel(_ROWS.get(groups[0], "") if len(groups) == 1 else "Group")
        return ax


class RobustPlots(EstimatesPlots):
    """Plots of a robust reward model: ``result.plot()`` and ``result.plot.<kind>()``.

    Parameters
    ----------
    result : RobustResult
    """

    _result: RobustResult

    def __call__(
        self, group: str | None = None, ax: Axes | None = None, *, level: float = 0.95
    ) -> Axes:
        """Draw the sensitivity to each attribute, or another group of estimates.

        Without causal pairs the typical gaps are drawn.

        Parameters
        ----------
        group : str, optional
        ax : matplotlib Axes, optional
        level : float

        Returns
        -------
        matplotlib.axes.Axes
        """
        there = set(self._result.table["group"])
        default = "sensitivity" if "sensitivity" in there else "typical gap"
        ax = super().__call__(group or default, ax, level=level)
        if (group or default) == "typical gap":
            ax.set_xlim(left=0)
        return ax

    def invariance(self, ax: Axes | None = None, *, level: float = 0.95) -> Axes:
        """Draw how little each kind of neutral change moves the reward."""
        ax = self("invariance", ax, level=level)
        ax.set_xlim(right=1.0)
        return ax

    def dropping(self, ax: Axes | None = None) -> Axes:
        """Draw the sensitivity to each attribute with and without its own pairs.

        Parameters
        ----------
        ax : matplotlib Axes, optional

        Returns
        -------
        matplotlib.axes.Axes
        """
        frame = self._result.dropping
        ax = plotting.axes(ax, height=max(1.8, 1.2 + 0.35 * len(frame)))
        place = np.arange(len(frame))
        ax.hlines(place, frame["without"], frame["sensitivity"], color=plotting.GREY, linewidth=1.2)
        ax.plot(frame["without"], place, "o", color=plotting.color(1), label="without its pairs")
        ax.plot(frame["sensitivity"], place, "o", color=plotting.color(0), label="with all pairs")
        plotting.reference(ax, x=0.0)
        ax.set_yticks(place, [str(name).replace("_", " ") for name in frame["attribute"]])
        ax.set_ylim(len(frame) - 0.5, -0.5)
        ax.grid(False, axis="y")
        ax.set_xlabel(_LABELS["sensitivity"])
        ax.legend(frameon=False, fontsize="small", loc="lower center", ncols=2,
                  bbox_to_anchor=(0.5, 1.0))  # fmt: skip
        return ax

    def path(self, frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
        """Draw spurious weight against the weight of neutral pairs.

        Parameters
        ----------
        frame : pandas.DataFrame
            As `RobustRewardModel.path` gives it. Where it has the ratio of known spurious and
            causal coefficients, that is drawn; else 1 less the invariance of each kind of neutral
            pair, which is the size of what should not matter relative to what was labelled.
        ax : matplotlib Axes, optional

        Returns
        -------
        matplotlib.axes.Axes
        """
        known = frame["group"] == "coefficients"
        if known.any():
            drawn, label = frame[known], "Spurious / causal weight"
        else:
            drawn = frame[frame["group"] == "invariance"].copy()
            columns = ["estimate", "conf_low", "conf_high"]
            drawn[columns] = 1.0 - drawn[["estimate", "conf_high", "conf_low"]].to_numpy()
            label = "Gap of neutral pairs / gap of preferences"
        ax = plotting.axes(ax)
        positive = drawn.loc[drawn["tie_weight"] > 0, "tie_weight"]
        smallest = float(positive.min()) if len(positive) else 1.0
        ax.set_xscale("symlog", linthresh=smallest, linscale=0.6)
        for i, (term, part) in enumerate(drawn.groupby("term", sort=False)):
            part = part.sort_values("tie_weight")
            x, hue, shown = part["tie_weight"], plotting.color(i), str(term).replace("_", " ")
            ax.plot(x, part["estimate"], "o-", color=hue, label=shown, markersize=4.5)
            plotting.band(ax, x, part["conf_low"], part["conf_high"], color=hue)
        ticks = sorted(drawn["tie_weight"].unique())
        ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
        ax.minorticks_off()
        ax.set_xlim(-0.15 * smallest, 1.15 * max(ticks))
        ax.set_ylim(bottom=0.0)
        ax.set_xlabel("Weight of neutral pairs")
        ax.set_ylabel(label)
        if drawn["term"].nunique() > 1:
            ax.legend(frameon=False)
        return ax
