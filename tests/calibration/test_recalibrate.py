"""Recalibrators against scikit-learn and their own definitions."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

import causalrm.calibration as cal
from causalrm.core.errors import CausalRMError, DataError, IdentificationError

ALL = [
    cal.TemperatureScaling(),
    cal.PlattScaling(),
    cal.BetaCalibration(),
    cal.IsotonicCalibration(),
    cal.HistogramBinning(),
    cal.VennAbers(),
]


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    p = rng.uniform(size=800)
    return p, (rng.uniform(size=800) < 1 / (1 + np.exp(0.3 - 0.5 * np.log(p / (1 - p))))).astype(
        int
    )


@pytest.mark.parametrize("recalibrator", ALL, ids=lambda r: type(r).__name__)
def test_api(data, recalibrator):
    p, y = data
    fitted = clone(recalibrator).fit(p, y)
    q = fitted.predict(p)
    assert q.shape == p.shape and ((q >= 0) & (q <= 1)).all()
    assert_allclose(fitted.predict_proba(p)[:, 1], q)
    assert_allclose(fitted.predict(p[:, None]), q)
    assert_allclose(pickle.loads(pickle.dumps(fitted)).predict(p), q)
    assert np.mean((q - y) ** 2) < np.mean((p - y) ** 2)
    extremes = fitted.predict([0.0, 1.0])
    assert np.isfinite(extremes).all()
    with pytest.raises(CausalRMError, match="call fit"):
        clone(recalibrator).predict(p)
    with pytest.raises(DataError):
        fitted.predict([np.nan])


@pytest.mark.parametrize("recalibrator", ALL[:5], ids=lambda r: type(r).__name__)
def test_weights_are_repeated_rows(data, recalibrator):
    p, y = data
    times = np.random.default_rng(1).integers(0, 3, p.size)
    grid = np.linspace(0.01, 0.99, 50)
    one = clone(recalibrator).fit(p, y, sample_weight=times).predict(grid)
    two = clone(recalibrator).fit(np.repeat(p, times), np.repeat(y, times)).predict(grid)
    assert_allclose(one, two, atol=1e-8)


def test_platt_and_temperature_are_logistic_regressions(data):
    p, y = data
    z = np.log(p / (1 - p))[:, None]
    platt = cal.PlattScaling().fit(p, y)
    sk = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(z, y)
    assert_allclose([platt.intercept_, platt.slope_], [sk.intercept_[0], sk.coef_[0, 0]], rtol=1e-5)
    sk = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000, fit_intercept=False).fit(z, y)
    assert cal.TemperatureScaling().fit(p, y).temperature_ == pytest.approx(1 / sk.coef_[0, 0])


def test_heavily_tied_scores_are_fitted_by_value():
    rng = np.random.default_rng(2)
    p = rng.choice([0.1, 0.3, 0.5, 0.8], 20_000)
    y = rng.uniform(size=20_000) < p**1.5
    # Only the first rows are looked at for ties: many other scores may follow.
    more = np.append(p, np.linspace(0.4, 0.6, 5000)), np.append(y, rng.uniform(size=5000) < 0.5)
    for score, outcome in ((p, y), more):
        residual = outcome - cal.PlattScaling().fit(score, outcome).predict(score)
        z = np.log(score / (1 - score))
        assert abs(residual.sum()) < 1e-6 and abs((z * residual).sum()) < 1e-6


def test_isotonic_is_scikit_learns(data):
    p, y = data
    grid = np.linspace(0, 1, 301)
    reference = IsotonicRegression(out_of_bounds="clip").fit(p, y).predict(grid)
    assert_allclose(cal.IsotonicCalibration().fit(p, y).predict(grid), reference, atol=1e-9)


def test_histogram_binning_keeps_scores_of_empty_bins():
    h = cal.HistogramBinning(bins=5, strategy="width").fit([0.1, 0.1, 0.9], [0, 1, 1])
    assert h.n_empty_ == 3
    assert_allclose(h.predict([0.05, 0.5, 0.95]), [0.5, 0.5, 1.0])
    with pytest.raises(DataError, match="strategy"):
        cal.HistogramBinning(strategy="x").fit([0.1, 0.2], [0, 1])


def test_venn_abers_interval_holds_its_prediction(data):
    p, y = data
    va = cal.VennAbers().fit(p, y)
    low, high = va.predict_interval(p)
    q = va.predict(p)
    assert (low <= q + 1e-12).all() and (q <= high + 1e-12).all()
    with pytest.raises(DataError, match="no weights"):
        cal.VennAbers().fit(p, y, sample_weight=np.arange(p.size) + 1)


@pytest.mark.parametrize("recalibrator", ALL[:3], ids=lambda r: type(r).__name__)
def test_what_cannot_be_fitted_says_why(recalibrator):
    with pytest.raises(IdentificationError, match="cannot be fitted"):
        clone(recalibrator).fit([0.1, 0.2, 0.9], [1, 1, 1])


def test_crossfit_never_uses_a_row_for_itself(data):
    p, y = data
    # Isotonic regression in sample always beats itself out of sample.
    inside = cal.IsotonicCalibration().fit(p, y).predict(p)
    outside = cal.crossfit(cal.IsotonicCalibration(), p, y)
    assert np.mean((outside - y) ** 2) > np.mean((inside - y) ** 2)
    again = cal.crossfit(cal.IsotonicCalibration(), p, y, rng=0)
    assert_allclose(outside, again)
    pairs = np.repeat(np.arange(400), 2)
    whole = cal.crossfit(cal.HistogramBinning(bins=3), p, y, cluster=pairs, folds=4)
    assert np.isfinite(whole).all()
    with pytest.raises(DataError, match="folds must lie between"):
        cal.crossfit(cal.PlattScaling(), p, y, folds=1)
