"""What the plots of a Bradley-Terry fit show."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import causalrm as crm


@pytest.fixture
def result() -> crm.BradleyTerryResult:
    rng = np.random.default_rng(2)
    a = rng.integers(0, 7, 1500)
    b = (a + rng.integers(1, 7, 1500)) % 7
    y = (rng.random(1500) < 1 / (1 + np.exp(-0.4 * (a - b)))).astype(float)
    df = pd.DataFrame({"a": [f"model {i}" for i in a], "b": [f"model {i}" for i in b], "y": y})
    return crm.BradleyTerry().fit(df, a="a", b="b", outcome="y").result_


def test_strengths_are_drawn_best_first(result: crm.BradleyTerryResult) -> None:
    ax = result.plot()
    board = result.ranking()
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert names == board["term"].tolist()
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    np.testing.assert_allclose([d.get_xdata()[0] for d in dots], board["estimate"])
    bars = [line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_marker() != "o"]
    ends = [b.get_xdata() for b in bars if np.ptp(b.get_ydata()) == 0]
    np.testing.assert_allclose(ends, board[["conf_low", "conf_high"]])
    assert "model 0" in ax.get_xlabel() and "95%" in ax.get_xlabel()


def test_only_the_top_is_drawn_where_asked(result: crm.BradleyTerryResult) -> None:
    assert len(result.plot(top=3).get_yticklabels()) == 3


def test_ranks_are_intervals_of_whole_numbers(result: crm.BradleyTerryResult) -> None:
    ax = result.plot.ranks(level=0.9)
    board = result.ranking(0.9)
    (bars,) = ax.collections
    ends = np.array([segment[:, 0] for segment in bars.get_segments()])
    np.testing.assert_array_equal(ends, board[["rank_low", "rank_high"]])
    assert "90%" in ax.get_xlabel()


def test_the_win_matrix_is_drawn_as_it_is(result: crm.BradleyTerryResult) -> None:
    _, ax = plt.subplots()
    assert result.plot.win_matrix(ax=ax) is ax
    (image,) = ax.images
    np.testing.assert_array_equal(
        np.ma.getdata(image.get_array())[0, 1], result.win_matrix().to_numpy()[0, 1]
    )
    assert len(ax.texts) == 42
    assert image.get_clim() == (0.0, 1.0)
