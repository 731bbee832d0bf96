"""The few matplotlib helpers that all plots share. Import this module where it is used."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import FillBetweenPolyCollection
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours that the colour-blind can tell apart: Okabe and Ito's set (Color Universal Design,
2008; Wong, Nature Methods 2011, doi 10.1038/nmeth.1618), without its yellow, which is too pale
for lines, and with the most distinct first."""

GREY = "#767676"
"""For reference lines and what stands in the background."""


def axes(ax: Axes | None = None, *, height: float = 4.2) -> Axes:
    """Return `ax` in the house style, or a new figure's Axes (6.4 inches wide).

    The figure uses matplotlib's constrained layout; nothing is shown.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(6.4, height), layout="constrained")
    return style(ax)


def style(ax: Axes) -> Axes:
    """Thin spines left and bottom, and a light grid behind the data."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_linewidth(0.8)
    ax.tick_params(width=0.8)
    ax.grid(True, color="#E3E3E3", linewidth=0.6)
    ax.set_axisbelow(True)
    return ax


def color(i: int) -> str:
    """Colour of the i-th group."""
    return PALETTE[i % len(PALETTE)]


def band(
    ax: Axes,
    x: Any,
    low: Any,
    high: Any,
    *,
    color: str = PALETTE[0],
    step: bool = False,
    **options: Any,
) -> FillBetweenPolyCollection:
    """Shade an interval around a curve; with `step`, around a step function."""
    look: dict[str, Any] = {"alpha": 0.18, "linewidth": 0.0, "color": color} | options
    x, low, high = (np.asarray(v, dtype=float) for v in (x, low, high))
    return ax.fill_between(x, low, high, step="post" if step else None, **look)


def steps(
    ax: Axes,
    x: Any,
    y: Any,
    *,
    color: str = PALETTE[0],
    low: Any = None,
    high: Any = None,
    **options: Any,
) -> Line2D:
    """Draw a right-continuous step function, with a band where `low` and `high` are given."""
    look: dict[str, Any] = {"linewidth": 1.5, "color": color} | options
    (line,) = ax.step(np.asarray(x, float), np.asarray(y, float), where="post", **look)
    if low is not None and high is not None:
        band(ax, x, low, high, color=color, step=True)
    return line


_DASHED: dict[str, Any] = {"color": GREY, "linewidth": 1.0, "linestyle": (0, (4, 3))}


def reference(ax: Axes, *, x: float | None = None, y: float | None = None) -> None:
    """Draw a dashed line at a value that means 'no effect'."""
    if x is not None:
        ax.axvline(x, zorder=1, **_DASHED)
    if y is not None:
        ax.axhline(y, zorder=1, **_DASHED)


def diagonal(ax: Axes, end: float = 1.0, start: float = 0.0, **options: Any) -> Line2D:
    """Draw the dashed line from `start` to `end` on which what is shown would be right."""
    (line,) = ax.plot([start, end], [start, end], **_DASHED | options)
    return line


def label(term: str) -> str:
    """Write a formula's term as words: ``C(arm)[T.b]`` as ``arm: b``.

    Examples
    --------
    >>> [label(t) for t in ("C(arm)[T.b]", "age", "bs(x, df=4)[1]", "age:C(arm)[T.b]")]
    ['arm: b', 'age', 'bs(x, df=4): 1', 'age x arm: b']
    """
    parts = []
    for part in re.split(r":(?![^\[(]*[\])])", term):
        part = re.sub(r"^C\(\s*([^,()]+?)\s*(?:,.*)?\)(?=\[|$)", r"\1", part)
        parts.append(re.sub(r"^(.+)\[(?:T\.)?(.+)\]$", r"\1: \2", part))
    return " x ".join(parts)


def list_rows(ax: Axes, names: Sequence[str], heading: Sequence[bool] | None = None) -> None:
    """Turn the vertical axis into a list of names, first on top, headings in bold."""
    ax.set_yticks(range(len(names)), names)
    for tick, bold in zip(ax.get_yticklabels(), heading or [False] * len(names), strict=True):
        tick.set_fontweight("bold" if bold else "normal")
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.grid(False, axis="y")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def forest(
    ax: Axes | None,
    frame: pd.DataFrame,
    *,
    reference_at: float | None = 0.0,
    xlabel: str = "Estimate",
    labels: Sequence[str] | None = None,
) -> Axes:
    """Draw estimates with their intervals, first row on top.

    Parameters
    ----------
    ax : matplotlib Axes, optional
        A new one, as high as the rows need, by default.
    frame : pandas.DataFrame
        With `term, estimate, conf_low, conf_high`; the rows of one `parameter` or `group` get a
        heading and a colour. Without a finite interval only the point is drawn; rows without
        an estimate keep their label.
    reference_at : float, optional
        Where the line of no effect stands; None draws none.
    xlabel : str
    labels : sequence of str, optional
        In place of the terms.

    Returns
    -------
    matplotlib.axes.Axes
    """
    key = next((name for name in ("parameter", "group") if name in frame), None)
    groups = [""] * len(frame) if key is None else frame[key].astype(str).tolist()
    names = [label(str(t)) for t in frame["term"]] if labels is None else list(labels)
    rows: list[tuple[str, int | None]] = []  # label, and the row that is drawn there
    for i, (group, name) in enumerate(zip(groups, names, strict=True)):
        alone = groups.count(group) == 1 and group == name
        if group and not alone and (i == 0 or group != groups[i - 1]):
            rows.append((group, None))
        rows.append((name, i))
    if ax is None:
        ax = axes(None, height=max(1.4, 0.9 + 0.3 * len(rows)))
    else:
        style(ax)
    colors = {group: color(i) for i, group in enumerate(dict.fromkeys(groups))}
    estimate, low, high = (
        frame[c].to_numpy(dtype=float, na_value=math.nan)
        for c in ("estimate", "conf_low", "conf_high")
    )
    place = {row: y for y, (_, row) in enumerate(rows)}
    for i, group in enumerate(groups):
        if np.isfinite(low[i]) and np.isfinite(high[i]):
            ax.plot([low[i], high[i]], [place[i]] * 2, color=colors[group], linewidth=1.8)
        if np.isfinite(estimate[i]):
            ax.plot(estimate[i], place[i], "o", color=colors[group], markersize=5)
    if reference_at is not None:
        reference(ax, x=reference_at)
    list_rows(ax, [text for text, _ in rows], [row is None for _, row in rows])
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.set_xlabel(xlabel)
    return ax
