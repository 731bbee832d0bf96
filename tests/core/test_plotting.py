from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from causalrm.core import plotting

FRAME = pd.DataFrame(
    {
        "parameter": ["phi", "phi", "gamma", "kappa"],
        "term": ["Intercept", "C(arm)[T.b]", "Intercept", "kappa"],
        "estimate": [0.5, -0.2, math.nan, 0.1],
        "conf_low": [0.1, math.nan, math.nan, -0.1],
        "conf_high": [0.9, math.nan, math.nan, 0.3],
    }
)


def test_axes_makes_one_figure_or_none() -> None:
    ax = plotting.axes()
    assert tuple(ax.figure.get_size_inches()) == (6.4, 4.2)
    assert ax.figure.get_layout_engine() is not None
    assert plotting.axes(ax) is ax and len(plt.get_fignums()) == 1
    assert not ax.spines["top"].get_visible() and not ax.spines["right"].get_visible()


def test_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plt, "show", lambda *a, **k: pytest.fail("show was called"))
    plotting.forest(None, FRAME)


def test_palette_can_be_told_apart() -> None:
    assert len(set(plotting.PALETTE)) == len(plotting.PALETTE)
    assert plotting.color(len(plotting.PALETTE)) == plotting.PALETTE[0]

    # On white every colour of a line has a contrast of at least 2 (WCAG relative luminance).
    def luminance(color: str) -> float:
        c = np.array(to_rgb(color))
        linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    assert all(1.05 / (luminance(c) + 0.05) > 2 for c in plotting.PALETTE)


def test_steps_hold_until_the_next_point() -> None:
    ax = plotting.axes()
    line = plotting.steps(ax, [0, 1, 2], [1.0, 0.5, 0.2], low=[1, 0.4, 0.1], high=[1, 0.6, 0.3])
    assert line.get_drawstyle() == "steps-post"
    (band,) = ax.collections
    corners = {(round(x, 6), round(y, 6)) for x, y in band.get_paths()[0].vertices}
    assert {(1.0, 0.4), (1.0, 0.6), (2.0, 0.4), (2.0, 0.6)} <= corners


def test_band_and_reference() -> None:
    ax = plotting.axes()
    plotting.band(ax, [0, 1], [0, 1], [1, 2], color="red", alpha=0.5)
    plotting.reference(ax, x=0.0, y=1.0)
    assert plotting.diagonal(ax, 3.0).get_ydata().tolist() == [0.0, 3.0]
    assert len(ax.collections) == 1 and len(ax.lines) == 3


@pytest.mark.parametrize(
    ("term", "text"),
    [
        ("C(arm, contr.treatment)[T.new drug]", "arm: new drug"),
        ("g[T.b]", "g: b"),
        ("x", "x"),
        ("np.log(x)", "np.log(x)"),
        ("a[T.x:y]", "a: x:y"),
        ("C(a)[T.1]:C(b)[T.2]:z", "a: 1 x b: 2 x z"),
        ("x[0]", "x: 0"),
    ],
)
def test_label(term: str, text: str) -> None:
    assert plotting.label(term) == text


def test_forest() -> None:
    ax = plotting.forest(None, FRAME, xlabel="Effect")
    labels = [tick.get_text() for tick in ax.get_yticklabels()]
    assert labels == ["phi", "Intercept", "arm: b", "gamma", "Intercept", "kappa"]
    bold = [tick.get_fontweight() == "bold" for tick in ax.get_yticklabels()]
    assert bold == [True, False, False, True, False, False]
    assert ax.yaxis_inverted() and ax.get_xlabel() == "Effect"
    drawn = {(tuple(line.get_xdata()), tuple(line.get_ydata())) for line in ax.lines}
    assert ((0.1, 0.9), (1, 1)) in drawn and ((0.5,), (1,)) in drawn
    assert ((-0.2,), (2,)) in drawn and ((-0.1, 0.3), (5, 5)) in drawn
    assert len(drawn) == 6  # two intervals, three points and the reference line
    ax.figure.canvas.draw()


def test_forest_of_terms_alone() -> None:
    frame = FRAME.drop(columns="parameter")
    ax = plotting.forest(plotting.axes(), frame, reference_at=None, labels=list("abcd"))
    assert [tick.get_text() for tick in ax.get_yticklabels()] == list("abcd")
