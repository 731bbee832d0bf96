"""Plots of strengths and of rewards; they read only the result."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from causalrm.core import plotting
from causalrm.core.errors import DataError
from causalrm.core.format import percent

if TYPE_CHECKING:
    from causalrm.preference.result import BradleyTerryResult
    from causalrm.preference.reward_model import RewardResult


class BradleyTerryPlots:
    """Plots of a fit: ``result.plot()`` and ``result.plot.<kind>()``.

    Each takes `ax`, a matplotlib Axes to draw on (a new figure by default), and returns it;
    nothing is shown.

    Parameters
    ----------
    result : BradleyTerryResult
    """

    def __init__(self, result: BradleyTerryResult):
        self._result = result

    def __call__(self, ax: Axes | None = None, level: float = 0.95, top: int = 60) -> Axes:
        """Draw the strengths; the same as `strengths`."""
        return self.strengths(ax, level, top)

    def strengths(self, ax: Axes | None = None, level: float = 0.95, top: int = 60) -> Axes:
        """Draw the strengths, best on top, with intervals from quasi standard errors.

        Two items whose intervals do not overlap differ. The reference stands at zero.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        level : float
        top : int
            Draw at most so many items.

        Returns
        -------
        matplotlib.axes.Axes
        """
        frame = self._result.ranking(level).head(top)
        if ax is None:
            ax = plotting.axes(None, height=max(1.6, 0.9 + 0.2 * len(frame)))
        plotting.forest(ax, frame[["term", "estimate", "conf_low", "conf_high"]],
                        labels=[str(t) for t in frame["term"]],
                        xlabel=f"Strength against {self._result.reference}\n"
            f"({percent(level)} intervals by quasi standard errors)")  # fmt: skip
        ax.set_ylabel("Item")
        _small_labels(ax, len(frame))
        return ax

    def ranks(self, ax: Axes | None = None, level: float = 0.95, top: int = 60) -> Axes:
        """Draw the ranks that each item may have; the intervals hold for all items at once.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        level : float
        top : int
            Draw at most so many items.

        Returns
        -------
        matplotlib.axes.Axes
        """
        frame = self._result.ranking(level).head(top)
        n = len(frame)
        if ax is None:
            ax = plotting.axes(None, height=max(1.6, 0.9 + 0.2 * n))
        else:
            plotting.style(ax)
        place = np.arange(n)
        ax.hlines(place, frame["rank_low"], frame["rank_high"], color=plotting.color(0), lw=3.5,
                  alpha=0.35)  # fmt: skip
        ax.plot(frame["rank"], place, "o", color=plotting.color(0), markersize=4)
        ax.set_yticks(place, [str(t) for t in frame["term"]])
        ax.set_ylim(n - 0.4, -0.6)
        ax.grid(False, axis="y")
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlim(0, len(self._result.items) + 1)
        ax.set_xlabel(f"Rank (simultaneous {percent(level)} intervals)")
        ax.set_ylabel("Item")
        _small_labels(ax, n)
        return ax

    def win_matrix(self, ax: Axes | None = None, top: int = 60) -> Axes:
        """Draw the probabilities that the item of the row beats that of the column.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        top : int
            Draw at most so many items.

        Returns
        -------
        matplotlib.axes.Axes
        """
        frame = self._result.win_matrix().iloc[:top, :top]
        n = len(frame)
        if ax is None:
            ax = plotting.axes(None, height=min(2.4 + 0.28 * n, 9.5))
        ax.grid(False)
        image = ax.imshow(frame.to_numpy(), cmap="RdBu", vmin=0.0, vmax=1.0, aspect="auto")
        names = [str(item) for item in frame.index]
        ax.set_xticks(range(n), names, rotation=90)
        ax.set_yticks(range(n), names)
        ax.tick_params(length=0)
        for side in ("left", "bottom"):
            ax.spines[side].set_visible(False)
        if n <= 12:
            for (r, c), p in np.ndenumerate(frame.to_numpy()):
                if r != c:
                    dark = abs(p - 0.5) > 0.3
                    ax.text(c, r, f"{p:.2f}", ha="center", va="center", fontsize="small",
                            color="white" if dark else "black")  # fmt: skip
        _small_labels(ax, n)
        ax.set_xlabel("Loses")
        ax.set_ylabel("Wins")
        figure = ax.get_figure(root=True)
        assert figure is not None
        figure.colorbar(image, ax=ax, label="Win probability of the row")
        return ax


class RewardPlots:
    """Plots of a reward model: ``result.plot()``.

    Parameters
    ----------
    result : RewardResult
    """

    def __init__(self, result: RewardResult):
        self._result = result

    def __call__(self, ax: Axes | None = None, level: float = 0.95, top: int = 60) -> Axes:
        """Draw the coefficients with their intervals, in the order of the features.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        level : float
        top : int
            Draw at most so many features, those with the largest coefficients.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        DataError
            When the reward is a network, which has no coefficients.
        """
        r = self._result
        if r.network:
            raise DataError("Expected a linear reward to draw coefficients of, but saw a network.")
        largest = np.sort(np.argsort(-np.abs(r.estimates), kind="stable")[:top])
        frame = r.to_frame(level).drop(columns="parameter").iloc[largest]
        return plotting.forest(ax, frame, xlabel=f"Reward per unit ({percent(level)} intervals)")


def _small_labels(ax: Axes, n: int) -> None:
    if n > 25:
        ax.tick_params(axis="both", labelsize=7)
