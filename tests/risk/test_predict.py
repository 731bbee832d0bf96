"""Predictions against sums over the unobservable, and against one another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import causalrm as crm
from causalrm.risk.predict import Block, Draws, mean_of, new_rows, simulate
from tests.risk.simulated import ROLES, selective

QUANTITIES = ("risk", "testing", "found", "risk_tested", "risk_untested")


def by_sums(a: float, d: float, s: float, alpha: float, law: str) -> dict[str, float]:
    """The quantities of one row, by dense sums over the unobservable in log space."""
    if law == "uniform":
        t, w = np.polynomial.legendre.leggauss(40)
        z, log_w = s * ((np.arange(50)[:, None] + 0.5 * (1 + t)) / 50).ravel(), np.log(w / 100)
        log_w = np.tile(log_w, 50)
    else:
        t = np.linspace(-20, 20, 40_001)
        z, log_w = s * t, -0.5 * t**2
        log_w -= np.logaddexp.reduce(log_w)
    r = a + z
    yes, no = -np.logaddexp(0, -r), -np.logaddexp(0, r)
    test, none = -np.logaddexp(0, -alpha * r - d), -np.logaddexp(0, alpha * r + d)

    def mean(*logs: np.ndarray) -> float:
        return float(np.exp(np.logaddexp.reduce(log_w + sum(logs))))

    found = mean(yes, test)
    return {
        "risk": mean(yes), "testing": mean(test), "found": found,
        "risk_tested": found / (found + mean(no, test)),
        "risk_untested": mean(yes, none) / mean(none),
    }  # fmt: skip


@pytest.mark.parametrize("law", ["uniform", "normal"])
@pytest.mark.parametrize("alpha", [1.0, 0.4, 2.5])
def test_quantities_are_means_over_the_unobservable(law: str, alpha: float) -> None:
    sigma = np.array([0.3, 2.0, 5.0])
    draws = Draws(
        np.array([[-2.0, 1.0], [-1.0, 0.5], [-4.0, 2.0]]), np.array([[1.0], [-2.0], [30.0]]),
        sigma, np.full(3, alpha), np.empty((3, 0)), None, law,
    )  # fmt: skip
    x = np.array([[1.0, -1.0], [1.0, 0.4], [1.0, 2.0]])
    block = Block(x, x[:, :1], None)
    found = {name: getattr(block, name)(draws) for name in QUANTITIES}
    for i in range(3):
        for j in range(3):
            a, d = float(draws.risk[j] @ x[i]), float(draws.testing[j, 0])
            expected = by_sums(a, d, sigma[j], alpha, law)
            for name in QUANTITIES:
                assert found[name][i, j] == pytest.approx(expected[name], rel=2e-10), (name, i, j)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return selective(500, 2)


@pytest.fixture(scope="module")
def fit(frame: pd.DataFrame) -> crm.SelectiveLabelsModel:
    known = [crm.Prevalence(0.32, se=0.03), crm.Expertise(free=["x"])]
    return crm.SelectiveLabelsModel("x + z", constraints=known, draws=256).fit(frame, **ROLES)


def test_risk_is_that_of_the_tested_and_the_untested(fit: Any, frame: pd.DataFrame) -> None:
    draws = Draws.of(fit.result_)
    x = fit.result_.risk_design
    assert len(x) == draws.risk.shape[1]
    rows = np.column_stack([np.ones(len(frame)), frame[["x", "z"]]])
    block = Block(rows, rows[:, :2], None)
    p = block.testing(draws)
    total = p * block.risk_tested(draws) + (1 - p) * block.risk_untested(draws)
    np.testing.assert_allclose(total, block.risk(draws), rtol=1e-9)
    assert (block.risk_tested(draws) > block.risk_untested(draws)).all()  # a test is a sign


def test_frames(fit: Any, frame: pd.DataFrame) -> None:
    marginal = fit.predict_risk(frame)
    yes, no = (fit.predict_risk(frame, given=g) for g in ("tested", "untested"))
    own = fit.predict_risk(frame, given="status")
    for table in (marginal, yes, no, own, fit.predict_testing(frame)):
        assert table.columns.tolist() == ["estimate", "std_error", "conf_low", "conf_high"]
        assert table.index.equals(frame.index)
        assert (
            (table["conf_low"] < table["estimate"]) & (table["estimate"] < table["conf_high"])
        ).all()
        assert table.to_numpy().min() > 0 and table["conf_high"].max() < 1
    tested = frame["tested"] == 1
    pd.testing.assert_frame_equal(own[tested], yes[tested])
    pd.testing.assert_frame_equal(own[~tested], no[~tested])
    assert (
        (no["estimate"] < marginal["estimate"]) & (marginal["estimate"] < yes["estimate"])
    ).all()
    wide = fit.predict_risk(frame, level=0.99)
    assert (wide["conf_low"] < marginal["conf_low"]).all()
    with pytest.raises(crm.DataError, match="'status', but saw 'sick'"):
        fit.predict_risk(frame, given="sick")
    with pytest.raises(crm.DataError, match="tested"):
        fit.predict_risk(frame.drop(columns="tested"), given="status")


def test_shares_match_the_data(fit: Any, frame: pd.DataFrame) -> None:
    tested = frame["tested"] == 1
    assert fit.predict_testing(frame)["estimate"].mean() == pytest.approx(tested.mean(), abs=0.02)
    positive = fit.predict_risk(frame[tested], given="tested")["estimate"].mean()
    assert positive == pytest.approx(frame.loc[tested, "sick"].mean(), abs=0.02)


def test_replicates_follow_the_probabilities(fit: Any, frame: pd.DataFrame) -> None:
    draws = Draws.of(fit.result_).thin(1)
    many = Draws(*(np.repeat(v, 4000, axis=0) for v in (draws.risk, draws.testing, draws.sigma,
                 draws.alpha, draws.decider)), None, draws.law)  # fmt: skip
    rows = np.column_stack([np.ones(3), frame[["x", "z"]].head(3)])
    block = Block(rows, rows[:, :2], None)
    pairs = list(simulate(block, many, np.random.default_rng(1)))  # type: ignore[arg-type]
    tested, outcome = (np.mean([p[i] for p in pairs], axis=0) for i in (0, 1))
    both = np.mean([p[0] & p[1] for p in pairs], axis=0)
    for seen, name in ((tested, "testing"), (outcome, "risk"), (both, "found")):
        np.testing.assert_allclose(seen, getattr(block, name)(draws)[:, 0], atol=4 * 0.5 / 63)


@pytest.mark.parametrize("most", [64, 100, 128])
def test_thinned_draws_of_a_grid_have_the_same_posterior(
    fit: Any, frame: pd.DataFrame, most: int
) -> None:
    assert fit.result_.method == "grid"
    draws, (_, rows, _) = Draws.of(fit.result_), new_rows(fit.result_, frame)
    every = mean_of(rows, draws, "testing").mean()
    assert mean_of(rows, draws.thin(most), "testing").mean() == pytest.approx(every, abs=0.001)


def test_thinning_keeps_the_spread() -> None:
    one = np.arange(1000.0)
    draws = Draws(one[:, None], one[:, None], one, one, one[:, None], None, "uniform")
    few = draws.thin(11)
    assert len(few) == 11 and few.sigma[0] == 0 and few.sigma[-1] == 999
    weighted = replace(draws, weights=one).thin(11)
    np.testing.assert_array_equal(weighted.sigma, one[:11])
    np.testing.assert_array_equal(weighted.sigma, weighted.weights)
    assert draws.thin(2000) is draws
    assert draws.normalised.sum() == pytest.approx(1.0)
