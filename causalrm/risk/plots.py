"""Plots of risk fits and audits; they read only the result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from causalrm.core import plotting
from causalrm.core.errors import DataError
from causalrm.core.format import percent
from causalrm.core.result import position_of
from causalrm.risk.result import summarise, thinned, weighted_quantile

if TYPE_CHECKING:
    from causalrm.risk.audit import RiskAudit
    from causalrm.risk.result import RiskResult

_PAIRS = 1500  # points of a pair plot
_WORDS = {"risk": "Risk", "testing": "Testing beyond risk", "decider": "Deciders"}


class RiskPlots:
    """Plots of a fit: ``result.plot()`` and ``result.plot.<kind>()``.

    Each takes `ax`, a matplotlib Axes to draw on (a new figure by default); each returns the Axes
    and shows nothing.

    Parameters
    ----------
    result : RiskResult
    """

    def __init__(self, result: RiskResult):
        self._result = result

    def __call__(self, ax: Axes | None = None, level: float = 0.95) -> Axes:
        """Coefficients with their intervals; the same as `forest`."""
        return self.forest(ax=ax, level=level)

    def forest(
        self,
        others: Mapping[str, Any] | None = None,
        ax: Axes | None = None,
        level: float = 0.95,
        name: str = "this fit",
    ) -> Axes:
        """Draw the coefficients with their intervals, beside those of other fits.

        Parameters
        ----------
        others : dict, optional
            Name to fit or result, for example of the same model without constraints.
        ax : matplotlib Axes, optional
        level : float
        name : str
            Of this fit in the legend.

        Returns
        -------
        matplotlib.axes.Axes
        """
        fits = {name: self._result, **(others or {})}
        frames = {key: getattr(fit, "result_", fit).to_frame(level) for key, fit in fits.items()}
        main = frames[name]
        main = main[main["parameter"] != "decider"]
        labels: list[tuple[str, tuple[str, str] | None]] = []
        for parameter, own in main.groupby("parameter", sort=False):
            if len(own) > 1 or own["term"].iloc[0] != parameter:
                labels.append((_WORDS.get(str(parameter), str(parameter)), None))
            labels += [(plotting.label(t), (str(parameter), t)) for t in own["term"]]
        if ax is None:
            ax = plotting.axes(None, height=max(1.8, 1.0 + 0.36 * len(labels)))
        else:
            plotting.style(ax)
        shift = np.linspace(-0.18, 0.18, len(frames)) if len(frames) > 1 else np.zeros(1)
        for i, (key, frame) in enumerate(frames.items()):
            own = frame.set_index(["parameter", "term"])
            for at, (_, label) in enumerate(labels):
                if label is None or label not in own.index:
                    continue
                row, y = own.loc[label], at + shift[i]
                ax.plot(
                    [row["conf_low"], row["conf_high"]], [y, y], color=plotting.color(i), lw=1.8
                )
                ax.plot(row["estimate"], y, "o", color=plotting.color(i), markersize=4.5,
                        label=key if at == len(labels) - 1 else None)  # fmt: skip
        plotting.reference(ax, x=0.0)
        plotting.list_rows(ax, [text for text, _ in labels], [key is None for _, key in labels])
        ax.xaxis.set_major_locator(MaxNLocator(6))
        ax.set_xlabel(f"Posterior mean and {percent(level)} interval (log odds; sigma)")
        if len(frames) == 1:
            ax.set_title("Coefficients of risk and of testing", fontsize=10)
        else:
            handles = [
                Line2D([], [], color=plotting.color(i), marker="o", markersize=4.5, label=key)
                for i, key in enumerate(frames)
            ]
            _legend_above(ax, handles)
        return ax

    def prevalence(self, ax: Axes | None = None, level: float = 0.95) -> Axes:
        """Draw the implied prevalence against its target, as a density.

        With several targets each is a row: the interval of the implied prevalence, and the target
        as a diamond with two standard errors to either side. The dotted line is the share
        positive among the tested.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        level : float
            Of the intervals.
        """
        result = self._result
        count = len(result.prevalence)
        ax = plotting.axes(ax, height=3.2 if count == 1 else 1.5 + 0.45 * count)
        draw = self._one_prevalence if count == 1 else self._prevalences
        draw(ax, result.implied[:, -count:], level)
        ax.axvline(result.diagnostics["tested_prevalence"], color=plotting.GREY, ls=":", lw=1.5,
                   label="positive among the tested")  # fmt: skip
        ax.set_xlabel("Prevalence")
        ax.xaxis.set_major_locator(MaxNLocator(6))
        ax.xaxis.set_major_formatter(PercentFormatter(1.0))
        _legend_above(ax)
        return ax

    def _one_prevalence(self, ax: Axes, draws: np.ndarray, level: float) -> None:
        row, x, color = self._result.prevalence.iloc[0], draws[:, 0], plotting.color(0)
        if np.ptp(x) > 1e-9:
            grid, density = _density(x, self._result.weights)
            ax.plot(grid, density, color=color, label="implied")
            ax.fill_between(grid, density, color=color, alpha=0.18, lw=0)
        else:
            ax.axvline(x[0], color=color, lw=2.5, label="implied")
        if np.isfinite(row["target"]):
            ax.axvline(row["target"], color=plotting.color(1), lw=1.5, ls="--", label="target")
            if row["se"] > 0:
                ends = row["target"] - 2 * row["se"], row["target"] + 2 * row["se"]
                ax.axvspan(*ends, color=plotting.color(1), alpha=0.08, lw=0)
        ax.set_ylabel("Posterior density")
        ax.set_yticks([])
        ax.set_ylim(bottom=0)

    def _prevalences(self, ax: Axes, draws: np.ndarray, level: float) -> None:
        frame = self._result.prevalence
        at = np.arange(len(frame))
        mean, _, low, high = summarise(draws.T, self._result.weights, level)
        ax.hlines(at - 0.1, low, high, color=plotting.color(0), lw=1.8)
        ax.plot(mean, at - 0.1, "o", color=plotting.color(0), markersize=4.5, label="implied")
        ends = frame["target"] - 2 * frame["se"], frame["target"] + 2 * frame["se"]
        ax.hlines(at + 0.12, *ends, color=plotting.color(1), lw=1.2)
        ax.plot(frame["target"], at + 0.12, "D", color=plotting.color(1), markersize=4.5,
                label="target, two std. errors")  # fmt: skip
        plotting.list_rows(ax, [t.strip(" ()") or "all rows" for t in frame["label"]])

    def testing(self, ax: Axes | None = None) -> Axes:
        """Draw the probability of testing against risk, a point per row (at most 400)."""
        frame = self._result.testing_curve
        ax = plotting.axes(ax)
        for i, (name, own) in enumerate(frame.groupby("group", sort=True)):
            ax.plot(own["risk"], own["testing"], "o", markersize=3.5, alpha=0.6,
                    color=plotting.color(i), mec="none", label=str(name))  # fmt: skip
        ax.set_xlabel("Risk, posterior mean")
        ax.set_ylabel("Probability to be tested")
        ax.set_ylim(-0.02, 1.02)
        if frame["group"].nunique() > 1:
            _legend_above(ax)
        return ax

    def check(self, ax: Axes | None = None, frame: pd.DataFrame | None = None) -> Axes:
        """Draw observed shares by decile of risk against those of replicated data.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        frame : pandas.DataFrame, optional
            As `predictive_check` gives it; that of the fit by default.
        """
        frame = self._result.check if frame is None else frame
        ax = plotting.axes(ax)
        words = {"tested": "tested", "positive": "positive among the tested"}
        for i, (name, own) in enumerate(frame.groupby("quantity", sort=False)):
            own = own.dropna(subset=["conf_low"])
            plotting.band(
                ax, own["bin"], own["conf_low"], own["conf_high"], color=plotting.color(i)
            )
            ax.plot(own["bin"], own["predicted"], color=plotting.color(i), lw=1.2)
            ax.plot(own["bin"], own["observed"], "o", color=plotting.color(i), markersize=4.5,
                    label=words[str(name)])  # fmt: skip
        ax.set_xlabel("Bin of risk, from lowest to highest")
        ax.set_ylabel("Share: observed (points), replicated (bands)")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_ylim(bottom=0)
        _legend_above(ax)
        return ax

    def fan(
        self,
        parameter: str = "risk",
        ax: Axes | None = None,
        frame: pd.DataFrame | None = None,
    ) -> Axes:
        """Draw the coefficients of one parameter under other prevalences, a panel per term.

        Parameters
        ----------
        parameter : str
        ax : matplotlib Axes, optional
            For the first term alone.
        frame : pandas.DataFrame, optional
            As `sensitivity` gives it; that of the fit by default.

        Raises
        ------
        DataError
            When the fit has no fan.
        """
        frame = self._result.fan if frame is None else frame
        own = frame[frame["parameter"] == parameter] if len(frame) else frame
        if not len(own):
            raise DataError(
                f"Expected a fan of {parameter!r}, but this fit has none: it needs a prevalence "
                "constraint and the grid. Give the frame of fit.sensitivity([...])."
            )
        labels = list(dict.fromkeys(own["prevalence"]))
        terms = list(dict.fromkeys(own["term"])) if ax is None else [own["term"].iloc[0]]
        panels = [ax] if ax is not None else _panels(len(terms))
        for panel, term in zip(panels, terms, strict=True):
            part = own[own["term"] == term]
            at = [labels.index(p) for p in part["prevalence"]]
            plotting.style(panel)
            plotting.band(panel, at, part["conf_low"], part["conf_high"])
            panel.plot(at, part["estimate"], "o-", color=plotting.color(0), markersize=4.0)
            panel.set_xticks(range(len(labels)), labels, fontsize=8)
            panel.set_title(plotting.label(str(term)), fontsize=10)
            panel.set_xlabel("Prevalence, if it were")
        panels[0].set_ylabel(f"Coefficient of {parameter}")
        return panels[0]

    def ridge(self, ax: Axes | None = None) -> Axes:
        """Draw sigma against the intercepts, which move together, in pairs of draws.

        Returns
        -------
        matplotlib.axes.Axes
            The first of three; without `ax` the others stand beside it in the figure.
        """
        result = self._result
        names = [("risk", result.risk_design.terms[0]), ("testing", result.testing_design.terms[0])]
        x, y = (result.draws[:, position_of(result.parameter, result.term, n)] for n in names)
        s = result.part("sigma")[:, 0]
        w = result.weights
        keep = thinned(len(s), _PAIRS, w)
        size = 7.0 if w is None else 7.0 * np.sqrt(w[keep] / w.mean())
        pairs = [(s, x, "sigma", "Intercept of risk"), (s, y, "sigma", "Intercept of testing"),
                 (x, y, "Intercept of risk", "Intercept of testing")]  # fmt: skip
        all_axes = [ax] if ax is not None else _panels(3)
        for each, (u, v, xlabel, ylabel) in zip(all_axes, pairs, strict=False):
            plotting.style(each)
            each.scatter(u[keep], v[keep], s=size, color=plotting.color(0), alpha=0.35, lw=0)
            each.set_xlabel(xlabel)
            each.set_ylabel(ylabel)
            each.xaxis.set_major_locator(MaxNLocator(5))
        return all_axes[0]


class AuditPlots:
    """Plots of an audit: ``audit.plot()`` and ``audit.plot.<kind>()``.

    Parameters
    ----------
    result : RiskAudit
    """

    def __init__(self, result: RiskAudit):
        self._result = result

    def __call__(self, ax: Axes | None = None, level: float = 0.95) -> Axes:
        """How much more or less each group is tested than others at equal risk."""
        frame = self._result.to_frame(level)
        own = frame[(frame["term"] == "difference") & (frame["group"] != "all")]
        names = own["group"].tolist()
        own = own.assign(term=names).drop(columns="group")
        ax = plotting.forest(
            ax, own, xlabel="Rate of testing less that at equal risk, "
            f"{percent(level)} interval", labels=names,
        )  # fmt: skip
        ax.set_title(f"Testing at equal risk by {self._result.by}", loc="left", fontsize=10)
        ax.xaxis.set_major_formatter(PercentFormatter(1.0))
        return ax

    def rates(self, ax: Axes | None = None, level: float = 0.95) -> Axes:
        """Rate of testing of each group beside that at equal risk."""
        frame = self._result.to_frame(level)
        names = self._result.groups["group"].tolist()
        ax = plotting.axes(ax, height=max(2.2, 1.3 + 0.45 * len(names)))
        for i, term in enumerate(("test rate", "rate at equal risk")):
            own = frame[frame["term"] == term]
            y = np.arange(len(names)) + (i - 0.5) * 0.24
            ax.hlines(y, own["conf_low"], own["conf_high"], color=plotting.color(i), lw=1.8)
            ax.plot(own["estimate"], y, "o", color=plotting.color(i), markersize=4.5, label=term)
        plotting.list_rows(ax, names)
        ax.xaxis.set_major_formatter(PercentFormatter(1.0))
        ax.set_xlabel(f"Share tested, posterior mean and {percent(level)} interval")
        ax.set_ylabel(self._result.by)
        _legend_above(ax)
        return ax


def _panels(count: int) -> list[Axes]:
    """Axes of a new figure, at most three in a row."""
    columns = min(count, 3)
    rows = -(-count // columns)
    size = (max(3.1 * columns, 4.0), 2.7 * rows)
    figure, grid = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for spare in grid.ravel()[count:]:
        figure.delaxes(spare)
    return list(grid.ravel()[:count])


def _legend_above(ax: Axes, handles: Any = None) -> None:
    options: dict[str, Any] = {} if handles is None else {"handles": handles}
    count = len(handles) if handles is not None else len(ax.get_legend_handles_labels()[0])
    ax.legend(
        loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=min(count, 3), frameon=False,
        borderaxespad=0.2, handletextpad=0.5, columnspacing=1.4, fontsize=9, **options,
    )  # fmt: skip


def _density(x: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Kernel density of draws; bandwidth by Silverman's rule."""
    mean, sd, _, _ = (float(v) for v in summarise(x, weights, 0.95))
    low, high = (float(v) for v in weighted_quantile(x, weights, [0.25, 0.75]))
    width = 0.9 * min(sd, (high - low) / 1.349) * len(x) ** -0.2
    grid = np.linspace(mean - 4 * sd, mean + 4 * sd, 200)
    w = np.full(len(x), 1 / len(x)) if weights is None else weights / weights.sum()
    z = (grid[:, None] - x[None, :]) / width
    return grid, np.exp(-0.5 * z**2) @ w / (width * np.sqrt(2 * np.pi))
