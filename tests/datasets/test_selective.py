"""Simulated selective labels follow their model."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from causalrm.core.errors import DataError
from causalrm.datasets import make_selective_labels


@pytest.mark.parametrize("law", ["uniform", "normal"])
def test_rates_are_those_of_the_model(law: str) -> None:
    data, truth = make_selective_labels(
        200_000, features=1, sigma=2.0, alpha=0.5, risk=[-1.0, 0.5], testing=[0.3, -0.4],
        unobservable=law, rng=0,
    )  # fmt: skip
    r = -1.0 + 0.5 * data["x1"] + truth.hidden
    assert truth.hidden.mean() == pytest.approx(1.0 if law == "uniform" else 0.0, abs=0.01)
    assert truth.hidden.std() == pytest.approx(2 / 12**0.5 if law == "uniform" else 2.0, abs=0.01)
    eta = 0.5 * r + 0.3 - 0.4 * data["x1"]
    for found, log_odds in ((truth.outcome, r), (data["tested"], eta)):
        expected = 1 / (1 + np.exp(-log_odds))
        for part in (data["x1"] > 0.5, data["x1"] < -0.5):
            assert found[part].mean() == pytest.approx(expected[part].mean(), abs=0.01)


def test_only_the_tested_have_an_outcome() -> None:
    data, truth = make_selective_labels(500, rng=1)
    tested = data["tested"] == 1
    assert data.loc[~tested, "outcome"].isna().all()
    np.testing.assert_array_equal(data.loc[tested, "outcome"], truth.outcome[tested])
    assert truth.prevalence == truth.outcome.mean()
    assert [v != 0 for v in truth.testing.values()] == [True, True, False, False, False]
    x = data[["x1", "x2", "x3", "x4"]]
    np.testing.assert_allclose(x.mean(), 0, atol=1e-12)
    np.testing.assert_allclose(x.std(ddof=0), 1)


def test_the_experiment_has_its_parameters() -> None:
    truths = [make_selective_labels(5, rng=i).truth for i in range(300)]
    at = np.array([[t.risk["Intercept"], t.testing["Intercept"], t.sigma] for t in truths])
    np.testing.assert_allclose(at.mean(axis=0), [-2, 2, 2], atol=0.03)
    np.testing.assert_allclose(at.std(axis=0), 0.1, atol=0.02)
    slopes = np.array([t.risk["x1"] for t in truths])
    assert abs(slopes.mean()) < 0.2 and slopes.std() == pytest.approx(1, abs=0.12)


def test_the_same_seed_gives_the_same_rows() -> None:
    data, truth = make_selective_labels(50, rng=3)
    again, _ = make_selective_labels(50, rng=truth.entropy)
    pd.testing.assert_frame_equal(data, again)
    other, given = make_selective_labels(50, sigma=1.0, risk=[0.0], rng=3)
    pd.testing.assert_frame_equal(data.filter(like="x"), other.filter(like="x"))
    assert list(given.risk.values()) == [0.0] * 5


@pytest.mark.parametrize(
    "bad",
    [
        {"n": 1},
        {"expertise": 9},
        {"sigma": -1.0},
        {"unobservable": "cauchy"},
        {"risk": [1.0] * 9},
    ],
)
def test_arguments_out_of_range(bad: dict[str, object]) -> None:
    with pytest.raises(DataError):
        make_selective_labels(**bad)  # type: ignore[arg-type]
