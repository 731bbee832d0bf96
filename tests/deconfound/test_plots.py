"""Plots of deconfounded rewards show the numbers of the result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

import causalrm as crm
from causalrm.core.errors import DataError
from causalrm.datasets import make_headlines, make_logged_rewards


@pytest.fixture(scope="module")
def fit() -> Any:
    df, _ = make_logged_rewards(1000, rng=4)
    return crm.DeconfoundedReward().fit(
        df, outcome="outcome", text=["quality", "style"], confounders=["popularity"]
    )


def points(ax: Axes) -> list[float]:
    return [float(line.get_xdata()[0]) for line in ax.lines if line.get_marker() == "o"]


def test_confounders(fit: Any) -> None:
    ax = fit.plot()
    gammas = fit.result_.gammas["estimate"].tolist()
    np.testing.assert_allclose(points(ax), [*gammas, fit.result_.gamma[0]])
    labels = [tick.get_text() for tick in ax.get_yticklabels()]
    assert labels == ["popularity", "alone", "given the text", "used: plr"]
    assert "outcome" in ax.get_xlabel()


def test_rewards(fit: Any) -> None:
    np.testing.assert_allclose(points(fit.plot.rewards()), fit.result_.estimates[2:])


def test_rewards_of_texts_show_the_largest_terms() -> None:
    df, _ = make_headlines(400, rng=1)
    found = crm.DeconfoundedReward().fit(
        df, outcome="clicks", text="headline", confounders=["readers"]
    )
    terms = found.result_.diagnostics["reward_terms"]
    np.testing.assert_allclose(points(found.plot.rewards()), terms["estimate"])


def test_entanglement(fit: Any) -> None:
    ax = fit.plot.entanglement()
    frame = fit.result_.overlap
    np.testing.assert_allclose(ax.lines[0].get_ydata(), frame["mean"])
    assert "R2" in ax.get_title(loc="left") and ax.get_ylabel() == "popularity"
    assert fit.plot.entanglement(term="popularity") is not ax
    with pytest.raises(DataError, match="Give one of"):
        fit.plot.entanglement(term="hour")


def test_ignoring_has_nothing_to_subtract(fit: Any) -> None:
    df, _ = make_logged_rewards(300, rng=4)
    found = crm.DeconfoundedReward("ignore").fit(
        df, outcome="outcome", text=["quality", "style"], confounders=["popularity"]
    )
    assert len(points(found.plot())) == 2  # alone, and given the text
