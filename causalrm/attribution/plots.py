"""Plots of an attribution; they read only the result."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D

from causalrm.core import plotting
from causalrm.core.errors import DataError
from causalrm.core.format import percent

if TYPE_CHECKING:
    from causalrm.attribution.result import AttributionResult

_MOST = 25  # rows of a bar plot or waterfall; the smallest beyond are added up


class AttributionPlots:
    """Plots of an attribution: ``result.plot()`` and ``result.plot.<kind>()``.

    Each takes `ax`, a matplotlib Axes to draw on (a new figure by default), and returns it;
    nothing is shown.

    Parameters
    ----------
    result : AttributionResult
    """

    def __init__(self, result: AttributionResult) -> None:
        self._result = result

    def __call__(self, ax: Axes | None = None, level: float = 0.95) -> Axes:
        """Draw the values with intervals; the same as `bar`."""
        return self.bar(ax, level)

    def bar(self, ax: Axes | None = None, level: float = 0.95) -> Axes:
        """Draw each component's value as a bar with its interval, the largest on top.

        Neutral components are grey where both roles are there. Of more than 25 components the
        largest are drawn.

        Returns
        -------
        matplotlib.axes.Axes
        """
        r = self._result
        frame = r.to_frame(level)
        order = np.argsort(-np.abs(r.phi), kind="stable")[:_MOST]
        ax = plotting.axes(ax, height=max(1.9, 1.0 + 0.3 * len(order)))
        both = len(set(r.roles)) == 2
        y = np.arange(len(order))
        rows = frame.iloc[order]
        colours = [
            plotting.GREY if both and r.roles[i] == "neutral" else plotting.color(0) for i in order
        ]
        ax.barh(y, rows["estimate"], color=colours, height=0.62, alpha=0.85)
        for i, (low, high) in enumerate(zip(rows["conf_low"], rows["conf_high"], strict=True)):
            ax.plot([low, high], [i, i], color="#222222", linewidth=1.4)
        plotting.reference(ax, x=0.0)
        self._rows(ax, [r.names[i] for i in order])
        ax.set_xlabel(f"Shapley value ({percent(level)} interval)")
        if both:
            handles = [
                Line2D([], [], color=c, linewidth=6, alpha=0.85)
                for c in (plotting.color(0), plotting.GREY)
            ]
            ax.legend(handles, ["informative", "neutral"], frameon=False, fontsize="small",
                      loc="lower right")  # fmt: skip
        if len(order) < len(r.names):
            ax.set_title(f"The largest {len(order)} of {len(r.names)}", fontsize="medium")
        return ax

    @staticmethod
    def _rows(ax: Axes, names: list[str]) -> None:
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.grid(False, axis="y")
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)

    def waterfall(self, ax: Axes | None = None) -> Axes:
        """Draw the way from the value without components to that with all of them.

        Components follow in the order of the size of their values; those beyond 25 are one
        step.

        Returns
        -------
        matplotlib.axes.Axes
        """
        r = self._result
        order = np.argsort(-np.abs(r.phi), kind="stable")
        steps = [(r.names[i], float(r.phi[i])) for i in order[:_MOST]]
        if len(order) > _MOST:
            steps.append((f"{len(order) - _MOST} others", float(r.phi[order[_MOST:]].sum())))
        ax = plotting.axes(ax, height=max(2.2, 1.2 + 0.3 * (len(steps) + 2)))
        at = r.value_none
        names = [f"none: {r.value_none:.3g}"]
        ax.plot(at, 0, "o", color="#222222", markersize=5)
        for y, (name, step) in enumerate(steps, 1):
            ax.plot([at, at], [y - 1, y + 0.31], color=plotting.GREY, linewidth=0.8)
            colour = plotting.color(0 if step >= 0 else 1)
            ax.barh(y, step, left=at, color=colour, height=0.62, alpha=0.85)
            at += step
            names.append(f"{name}: {step:+.3g}")
        last = len(steps) + 1
        ax.plot([at, at], [last - 1, last], color=plotting.GREY, linewidth=0.8)
        ax.plot(at, last, "o", color="#222222", markersize=5)
        ax.use_sticky_edges = False
        ax.margins(x=0.05)
        self._rows(ax, [*names, f"all: {r.value_all:.3g}"])
        ax.set_xlabel("Value")
        return ax

    def text(self, ax: Axes | None = None, level: float = 0.95) -> Axes:
        """Draw the prompt with each component shaded by its value.

        Bold where the interval excludes zero.

        Returns
        -------
        matplotlib.axes.Axes
        """
        r = self._result
        words = _words(r, level)
        per_line = 74
        lines: list[list[tuple[str, int, bool]]] = [[]]
        used = 0
        for text, i, sure in words:
            if text == "\n" or used + len(text) > per_line:
                lines.append([])
                used = 0
            if text != "\n" and (text.strip() or used):
                lines[-1].append((text, i, sure))
                used += len(text)
        height = 0.32 * len(lines) + 0.9
        ax = plotting.axes(ax, height=height)
        ax.set_axis_off()
        ax.grid(False)
        top = max(float(np.abs(r.phi).max()), 1e-300)
        ax.set(xlim=(0, per_line), ylim=(len(lines) + 0.9, -0.8))
        for y, line in enumerate(lines):
            x = 0
            for text, i, sure in line:
                look: dict[str, Any] = {"fontweight": "bold" if sure else "normal"}
                if i >= 0:
                    ax.add_patch(_box(x, y, len(text), _colour(r.phi[i] / top)))
                look["color"] = _ink(r.phi[i] / top if i >= 0 else 0.0)
                for k, letter in enumerate(text):  # one by one, so that boxes fit any font
                    ax.text(
                        x + k + 0.5, y, letter, family="monospace", fontsize=8.5, va="center",
                        ha="center", **look,
                    )  # fmt: skip
                x += len(text)
        at = len(lines) + 0.35
        for k in range(30):
            ax.add_patch(_box(22 + k, at, 1, _colour(2 * k / 29 - 1)))
        ax.text(21, at, f"{-top:.2g}", ha="right", va="center", fontsize="small")
        ax.text(53, at, f"{top:+.2g}", ha="left", va="center", fontsize="small")
        return ax

    def network(
        self, ax: Axes | None = None, index: str = "FSII", most: int = 40, level: float = 0.95
    ) -> Axes:
        """Draw components on a circle, joined by their interactions of order two.

        Discs have the area of a component's value and lines the width of an interaction;
        lines are dashed where the interval holds zero.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        index : {"FSII", "SII", "k-SII", "STII"}
        most : int
            Interactions drawn, the largest.
        level : float

        Returns
        -------
        matplotlib.axes.Axes
        """
        r = self._result
        n = len(r.names)
        if n > 60:
            raise DataError(f"A network of {n} components cannot be read; 60 are the most.")
        frame = r.interaction(index, level)
        pairs = frame[frame["group"] == "order 2"].copy()
        assert r.interactions is not None
        table = r.interactions[r.interactions["index"] == index].reset_index(drop=True)
        pairs["players"] = table.loc[pairs.index, "players"]
        size = pairs["estimate"].abs()
        pairs = pairs[size > 0].loc[size[size > 0].sort_values(ascending=False).index[:most]]
        ax = plotting.axes(ax, height=5.8)
        ax.set_axis_off()
        ax.grid(False)
        angle = np.pi / 2 - 2 * np.pi * np.arange(n) / n
        x, y = np.cos(angle), np.sin(angle)
        top = max(float(pairs["estimate"].abs().max()) if len(pairs) else 0.0, 1e-300)
        pairs["unsure"] = (pairs["conf_low"] <= 0.0) & (pairs["conf_high"] >= 0.0)
        for _, row in pairs.iloc[::-1].iterrows():
            i, j = map(int, row["players"].split(","))
            ax.plot(
                x[[i, j]], y[[i, j]], zorder=1,
                color=plotting.color(0 if row["estimate"] > 0 else 1),
                linewidth=0.4 + 5.0 * abs(row["estimate"]) / top,
                linestyle=(0, (2, 2)) if row["unsure"] else "-", alpha=0.75,
            )  # fmt: skip
        area = 40.0 + 500.0 * np.abs(r.phi) / max(float(np.abs(r.phi).max()), 1e-300)
        fill = [plotting.color(0 if p > 0 else 1) for p in r.phi]
        ax.scatter(x, y, s=area, c=fill, edgecolors="white", linewidths=1.2, zorder=2)
        for i, name in enumerate(r.names):
            side = "center" if abs(x[i]) < 0.2 else "left" if x[i] > 0 else "right"
            ax.text(1.18 * x[i], 1.2 * y[i], name, ha=side, va="center", fontsize="small")
        ax.set(xlim=(-2.1, 2.1), ylim=(-1.6, 1.45), aspect="equal")
        handles = [
            Line2D([], [], color=plotting.color(k), linewidth=3, label=label)
            for k, label in enumerate(("positive", "negative"))
        ]
        if pairs["unsure"].any():
            label = f"{percent(level)} interval holds zero"
            handles.append(Line2D([], [], color=plotting.GREY, linestyle=(0, (2, 2)), label=label))
        ax.legend(handles=handles, frameon=False, fontsize="small", ncols=3, loc="lower center")
        return ax

    def convergence(self, ax: Axes | None = None, level: float = 0.95, most: int = 6) -> Axes:
        """Draw the largest values by calls, with bands that hold at all checkpoints at once.

        Returns
        -------
        matplotlib.axes.Axes
        """
        r = self._result
        trace = r.convergence(level)
        ax = plotting.axes(ax)
        for k, i in enumerate(np.argsort(-np.abs(r.phi), kind="stable")[:most]):
            part = trace[trace["term"] == r.names[i]]
            ax.plot(part["calls"], part["estimate"], "o-", markersize=3.5, linewidth=1.5,
                    color=plotting.color(k), label=r.names[i])  # fmt: skip
            plotting.band(ax, part["calls"], part["conf_low"], part["conf_high"],
                          color=plotting.color(k))  # fmt: skip
        plotting.reference(ax, y=0.0)
        if trace["look"].max() > 1:
            ax.set_xscale("log", base=2)
            ticks = sorted(trace["calls"].unique())
            ticks = [t for t in ticks if t == ticks[-1] or 1.6 * t < ticks[-1]]
            ax.set_xticks(ticks, [f"{t:,}" for t in ticks])
            ax.minorticks_off()
            # Early bands can be far wider than anything of interest
            late = trace[trace["look"] > 1]
            low, high = float(late["conf_low"].min()), float(late["conf_high"].max())
            if high > low:
                pad = 0.05 * (high - low)
                ax.set_ylim(low - pad, high + pad)
        ax.set_xlabel("Calls")
        ax.set_ylabel("Shapley value")
        ax.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
        return ax


def _words(r: AttributionResult, level: float) -> list[tuple[str, int, bool]]:
    """Cut the prompt into words and line breaks, each with its component and certainty."""
    frame = r.to_frame(level)
    sure = ((frame["conf_low"] > 0) | (frame["conf_high"] < 0)).to_numpy()
    out: list[tuple[str, int, bool]] = []
    segments: list[tuple[str, int]] = list(r.segments)
    shown = {i for _, i in segments}
    extra = [i for i in range(len(r.names)) if i not in shown]
    if extra:  # components of the options, or the order of options
        segments.append(("\n", -1))
        for i in extra:
            segments += [(f"[{r.names[i]}]", i), (" ", -1)]
    spaced = all(i >= 0 for _, i in segments)  # players of a plain game
    for text, i in segments:
        for k, line in enumerate(text.split("\n")):
            if k:
                out.append(("\n", -1, False))
            word = ""
            for letter in line:
                word += letter
                if letter == " ":
                    out.append((word, i, i >= 0 and bool(sure[i])))
                    word = ""
            if word:
                out.append((word, i, i >= 0 and bool(sure[i])))
        if spaced:
            out.append((" ", -1, False))
    return out


def _colour(x: float) -> str:
    """Purple for values that raise, orange for values that lower, white for none."""
    shades = colormaps["PuOr"]
    return str(to_hex(shades(0.5 + 0.38 * x)))


def _ink(x: float) -> str:
    return "#FFFFFF" if abs(x) > 0.85 else "#1A1A1A"


def _box(x: float, y: float, width: float, colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y - 0.42), width, 0.84, facecolor=colour, linewidth=0)


def heat_map_html(r: AttributionResult, level: float = 0.95) -> str:
    """Write the prompt with each component shaded by its value; a tooltip has the interval."""
    frame = r.to_frame(level)
    top = max(float(np.abs(r.phi).max()), 1e-300)
    parts = []
    for text, i, sure in _words(r, level):
        safe = html.escape(text)
        if text == "\n":
            parts.append("<br>")
        elif i < 0:
            parts.append(safe)
        else:
            row = frame.iloc[i]
            tip = (
                f"{r.names[i]}: {row['estimate']:.3g}, {percent(level)} interval "
                f"[{row['conf_low']:.3g}, {row['conf_high']:.3g}]"
            )
            style = f"background:{_colour(r.phi[i] / top)};color:{_ink(r.phi[i] / top)}"
            style += ";font-weight:600" if sure else ""
            parts.append(f'<span style="{style}" title="{html.escape(tip)}">{safe}</span>')
    scale = "".join(
        f'<span style="background:{_colour(k / 6 - 1)};padding:0 .5em">&nbsp;</span>'
        for k in range(13)
    )
    return (
        '<div style="line-height:1.8;max-width:46em">' + "".join(parts) + "</div>"
        f'<div style="font-size:.85em;margin-top:.5em">{-top:.2g} {scale} {top:+.2g}</div>'
    )
