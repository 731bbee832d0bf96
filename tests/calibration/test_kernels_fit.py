"""Logistic recalibration, beta calibration, isotonic knots and Venn-Abers predictors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from causalrm.calibration import _kernels as k
from causalrm.calibration import _kernels_fit as fit
from causalrm.calibration import _kernels_rank as rank


def sample(n, seed=0, power=1.3):
    rng = np.random.default_rng(seed)
    p = rng.beta(1, 2, n)
    return (rng.uniform(size=n) < p**power).astype(float), p


@pytest.mark.parametrize("n", [400, 60_000])  # the second one takes the way over cells
def test_slope_and_intercept_are_the_maximum(n):
    y, p = sample(n)
    z, clipped = fit.logit(p, 1e-12)
    assert clipped == 0
    t = rank.ties(y, p)
    ours = fit.logistic((None, fit.logit(t.value)[0]), t.negative, t.positive)
    sk = LogisticRegression(C=np.inf, tol=1e-10, max_iter=500).fit(z[:, None], y)
    assert_allclose(ours.coef, [sk.intercept_[0], sk.coef_[0, 0]], rtol=1e-5, atol=1e-7)
    # The score vanishes at the maximum, to the precision asked for.
    x = np.column_stack([np.ones(n), z])
    pi = 1 / (1 + np.exp(-x @ ours.coef))
    score = x.T @ (y - pi)
    assert_allclose(ours.cov @ score, 0, atol=1e-9)
    info = (x * (pi * (1 - pi))[:, None]).T @ x
    assert_allclose(ours.cov, np.linalg.inv(info), rtol=2e-5)
    psi = fit.logistic_influence((None, z), y, None, None, ours)
    assert_allclose(ours.cov_robust, k.covariance(psi), rtol=2e-5)


@pytest.mark.parametrize("n", [300, 50_000])
def test_offset_and_slope_without_intercept(n):
    y, p = sample(n, 1)
    z = fit.logit(p)[0]
    large = fit.logistic((None,), 1 - y, y, z)
    pi = 1 / (1 + np.exp(-z - large.coef[0]))
    assert abs((y - pi).sum()) < 1e-6
    slope = fit.logistic((z,), 1 - y, y, inference=False)
    pi = 1 / (1 + np.exp(-z * slope.coef[0]))
    assert abs((z * (y - pi)).sum()) < 1e-5
    assert np.isnan(slope.cov_robust).all()


def test_weights_are_repeated_rows_and_enter_the_sandwich_squared():
    y, p = sample(200, 2)
    times = np.random.default_rng(0).integers(0, 4, 200)
    z = fit.logit(p)[0]
    w = times.astype(float)
    one = fit.logistic((None, z), w * (1 - y), w * y, squares=(w**2 * (1 - y), w**2 * y))
    y2, z2 = np.repeat(y, times), np.repeat(z, times)
    two = fit.logistic((None, z2), 1 - y2, y2)
    assert_allclose(one.coef, two.coef, atol=1e-9)
    psi = fit.logistic_influence((None, z), y, w, None, one)
    assert_allclose(one.cov_robust, k.covariance(psi), rtol=1e-6)
    groups = np.repeat(np.arange(200), times)
    psi2 = fit.logistic_influence((None, z2), y2, None, None, two)
    sums = np.column_stack([np.bincount(groups, c, 200) for c in psi2.T])
    assert_allclose(one.cov_robust, sums.T @ sums, rtol=1e-6)


def test_what_cannot_be_estimated_is_said_so():
    z = np.linspace(-2, 2, 20)
    y = (z > 0).astype(float)
    assert fit.logistic((None, z), 1 - y, y).status == "separated"
    assert fit.logistic((None, z), np.ones(20), np.zeros(20)).status == "separated"
    y[:10:2] = 1.0
    for column in (np.full(20, 0.3), 0.3 + 1e-5 * z):
        flat = fit.logistic((None, column), 1 - y, y)
        assert flat.status == "singular" and np.isnan(flat.coef).all()
    # Without an intercept a constant can carry a coefficient, unless it is zero.
    assert fit.logistic((np.full(20, 0.3),), 1 - y, y).status == "ok"
    assert fit.logistic((np.zeros(20),), 1 - y, y).status == "singular"


def test_newton_survives_extreme_scores():
    p = np.array([0.0, 0.0, 1.0, 1.0, 1e-12, 1 - 1e-12, 0.5, 0.5])
    y = np.array([0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0])
    z, clipped = fit.logit(p, 1e-6)
    assert clipped == 6
    ours = fit.logistic((None, z), 1 - y, y)
    assert ours.status == "ok" and np.isfinite(ours.coef).all()


def test_beta_calibration_is_the_constrained_maximum():
    for seed, sign in ((3, 1), (4, -1)):
        y, p = sample(600, seed)
        if sign < 0:  # decreasing in log p beyond the bound
            y = (np.random.default_rng(seed).uniform(size=600) < 0.6 - 0.3 * p).astype(float)
        abc, status = fit.beta_fit(p, 1 - y, y, 1e-9)
        assert status == "ok"

        def loss(v, p=p, y=y):
            eta = v[2] + v[0] * np.log(p) - v[1] * np.log1p(-p)
            return (np.logaddexp(0, eta) - y * eta).sum()

        bounds = [(0, None), (0, None), (None, None)]
        best = minimize(loss, [1.0, 1.0, 0.0], bounds=bounds, options={"ftol": 1e-13})
        assert loss(abc) <= best.fun + 1e-6
        assert (abc[:2] >= 0).all()


@st.composite
def calibration_rows(draw):
    n = draw(st.integers(1, 25))
    value = st.sampled_from(np.arange(11) / 10)
    p = np.array(draw(st.lists(value, min_size=n, max_size=n)))
    y = np.array(draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=n, max_size=n)))
    return y, p


@given(calibration_rows())
@settings(max_examples=40)
def test_venn_abers_is_two_isotonic_fits_per_score(data):
    y, p = data
    t = rank.ties(y, p)
    va = fit.venn_abers(t.value, t.negative, t.positive)
    new = np.arange(-1, 22) / 20
    new = new[(new >= 0) & (new <= 1)]
    low, high = fit.venn_abers_predict(va, new)
    for x, a, b in zip(new, low, high, strict=True):
        for label, seen in ((0.0, a), (1.0, b)):
            iso = IsotonicRegression().fit(np.append(p, x), np.append(y, label))
            assert seen == pytest.approx(iso.predict([x])[0], abs=1e-9)


@given(calibration_rows(), st.integers(1, 3))
@settings(max_examples=50)
def test_isotonic_knots_interpolate_as_scikit_learn(data, m):
    y, p = data
    t = rank.ties(y, p)
    iso = rank.isotonic(t.weight, t.positive)
    x, level = fit.isotonic_knots(t.value, iso.start, iso.value)
    new = np.linspace(0, 1, 37 * m)
    reference = IsotonicRegression(out_of_bounds="clip").fit(p, y)
    assert_allclose(np.interp(new, x, level), reference.predict(new), atol=1e-9)
