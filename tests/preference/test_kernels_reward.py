"""Losses of reward heads: derivatives, limits, and one pass against plain arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse, special

from causalrm.preference import _kernels_reward as k
from causalrm.preference.differences import Differences

REAL = st.floats(-50, 50)
UNIT = st.floats(0, 1)


def one(eta: float, y: float, m: float, squared: bool = False) -> tuple[float, float, float]:
    value, g, h = k.loss_rows(*(np.array([v]) for v in (eta, y, m, 1.0)), squared)
    return value, float(g[0]), float(h[0])


@given(REAL, UNIT, st.floats(0, 5), st.booleans())
def test_derivatives(eta, y, m, squared):
    step = 1e-5
    low, high = one(eta - step, y, m, squared), one(eta + step, y, m, squared)
    _, g, h = one(eta, y, m, squared)
    assert (high[0] - low[0]) / (2 * step) == pytest.approx(g, abs=2e-7 * (1 + abs(eta)))
    assert (high[1] - low[1]) / (2 * step) == pytest.approx(h, abs=1e-7)


@given(REAL, UNIT, st.floats(0, 5))
def test_the_two_answers_may_change_places(eta, y, m):
    a, b = one(eta, y, m), one(-eta, 1 - y, m)
    assert a[0] == pytest.approx(b[0], abs=1e-12)
    assert a[1] == pytest.approx(-b[1], abs=1e-12) and a[2] == pytest.approx(b[2], abs=1e-12)


@given(REAL)
def test_loss_of_a_tie(eta):
    # The paper that introduced neutral pairs prints this with the other sign.
    tie = -0.5 * (special.log_expit(eta) + special.log_expit(-eta))
    value, g, _ = one(eta, 0.5, 0.0)
    assert -value == pytest.approx(tie, abs=1e-12) and -value >= np.log(2) - 1e-12
    assert g == pytest.approx(-0.5 * np.tanh(eta / 2), abs=1e-12)


def test_extremes_are_finite():
    for eta in (-800.0, 800.0):
        for m in (0.0, 3.0):
            assert np.isfinite(one(eta, 1.0, m)).all()
    assert one(800.0, 1.0, 0.0)[0] == 0.0 and one(-800.0, 1.0, 3.0)[0] == -803.0


@pytest.mark.parametrize("p", [3, 80])
@pytest.mark.parametrize("squared", [False, True])
def test_sums_of_dense_and_sparse_rows_are_those_of_arrays(p, squared):
    rng = np.random.default_rng(p)
    n = 20_000  # several blocks
    d = rng.normal(size=(n, p)) * (rng.uniform(size=(n, p)) < 0.3)
    y, m, w = rng.choice([0, 0.5, 1], n), rng.choice([0.0, 1.5], n), rng.uniform(0.5, 2, n)
    beta = 0.3 * rng.normal(size=p)
    value, g, h = k.loss_rows(d @ beta, y, m, w, squared)
    for rows in (d, sparse.csr_array(d)):
        sums = Differences(rows, y, m, w, squared)
        found = sums.sums(beta)
        assert found[0] == pytest.approx(value, rel=1e-12)
        np.testing.assert_allclose(found[1], d.T @ g, atol=1e-8)
        np.testing.assert_allclose(found[2], (d.T * h) @ d, atol=1e-8)
        np.testing.assert_allclose(sums.meat(beta), (d.T * g**2) @ d, atol=1e-8)
        np.testing.assert_allclose(sums.gram(), (d.T * w) @ d, atol=1e-8)
        codes = np.arange(n) // 7
        scores = np.stack([np.bincount(codes, g * column) for column in d.T])
        meat = sums.cluster_meat(beta, codes, codes[-1] + 1)
        np.testing.assert_allclose(meat, scores @ scores.T, atol=1e-8)


def test_score_of_jeffreys_prior_is_the_derivative_of_its_value():
    rng = np.random.default_rng(4)
    n = 60
    y, m = rng.choice([0, 0.5, 1, 0.3], n), rng.choice([0.0, 0.7], n)
    rows = Differences(rng.normal(size=(n, 3)), y, m, rng.uniform(0.5, 2, n), False)
    beta, step = np.array([0.4, -0.2, 0.1]), 1e-6
    _, score, _, _ = rows.firth(beta)
    for j, e in enumerate(np.eye(3)):
        slope = (rows.firth(beta + step * e)[0] - rows.firth(beta - step * e)[0]) / (2 * step)
        assert slope == pytest.approx(score[j], rel=1e-6)
