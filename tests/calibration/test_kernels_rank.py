"""One sort: ties, AUC, isotonic regression, CORP, ECCE and net benefit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import brier_score_loss, roc_auc_score

from causalrm.calibration import _kernels as k
from causalrm.calibration import _kernels_rank as rank


@st.composite
def scored(draw):
    n = draw(st.integers(2, 50))
    score = st.one_of(st.sampled_from([-0.0, 0.0, 0.1, 0.3, 0.5, 1.0, 5e-324]), st.floats(0.0, 1.0))
    p = np.array(draw(st.lists(score, min_size=n, max_size=n)))
    y = np.array(draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=n, max_size=n)))
    w = np.array(draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)), float)
    w[0] = 1.0
    return y, p, w


def naive_pav(weight, total):
    """Pool the first violating pair of neighbours until none is left."""
    blocks = [[w, t, 1] for w, t in zip(weight, total, strict=True)]
    while True:
        for i in range(len(blocks) - 1):
            if blocks[i][1] / blocks[i][0] >= blocks[i + 1][1] / blocks[i + 1][0]:
                blocks[i] = [a + b for a, b in zip(blocks[i], blocks.pop(i + 1), strict=True)]
                break
        else:
            return np.concatenate([[t / w] * m for w, t, m in blocks])


def expand(t, fit):
    return np.repeat(fit.value, np.diff(np.append(fit.start, t.value.size)))


@given(scored())
@settings(max_examples=100)
def test_ties_gather_equal_scores(data):
    y, p, w = data
    t = rank.ties(y, p)
    value, inverse = np.unique(p + 0.0, return_inverse=True)
    assert np.array_equal(t.value, value)
    assert_allclose(t.positive, np.bincount(inverse, y))
    assert_allclose(t.negative, np.bincount(inverse, 1 - y))
    u = rank.ties(y, p, w)
    keep = w > 0
    assert np.array_equal(u.value, np.unique(p[keep] + 0.0))
    assert u.positive.sum() == (w * y).sum()
    assert u.negative2.sum() == (w**2 * (1 - y)).sum()


@given(scored())
@settings(max_examples=100)
def test_isotonic_regression_is_the_naive_one_and_scikit_learns(data):
    y, p, w = data
    p = np.round(p * 64) / 64  # scikit-learn takes scores closer than its tolerance for ties
    t = rank.ties(y, p, w)
    fitted = expand(t, rank.isotonic(t.weight, t.positive))
    assert_allclose(fitted, naive_pav(t.weight, t.positive), atol=1e-12)
    reference = IsotonicRegression().fit(p, y, sample_weight=w + 1e-300)
    assert_allclose(fitted, reference.predict(t.value), atol=1e-9)


@given(scored())
@settings(max_examples=100)
def test_corp_adds_up_and_is_never_negative(data):
    y, p, w = data
    t = rank.ties(y, p, w)
    fit = rank.isotonic(t.weight, t.positive)
    for log_score in (False, True):
        c = rank.corp(t, fit, log_score)
        assert c.mcb >= -1e-12 and c.dsc >= -1e-12
        assert c.mcb - c.dsc + c.unc == pytest.approx(c.score, abs=1e-12)
    c = rank.corp(t, fit)
    assert c.score == pytest.approx(brier_score_loss(y, p, sample_weight=w, pos_label=1))
    both = rank.corp(rank.ties(1 - y, 1 - p, w), rank.isotonic(*_flipped(t)))
    assert both.dsc == pytest.approx(c.dsc, abs=1e-9)


def _flipped(t):
    return t.weight[::-1].copy(), t.negative[::-1].copy()


def test_log_score_of_a_certain_miss_is_infinite():
    t = rank.ties(np.array([1.0, 0.0, 1.0]), np.array([0.0, 0.5, 1.0]))
    c = rank.corp(t, rank.isotonic(t.weight, t.positive), log_score=True)
    assert c.score == np.inf and c.mcb == np.inf and np.isfinite(c.dsc)


@given(scored())
@settings(max_examples=100)
def test_auc_is_scikit_learns(data):
    y, p, w = data
    a = rank.auc(rank.ties(y, p, w))
    if len(set(y[w > 0])) < 2:
        assert np.isnan(a.value)
        return
    assert a.value == pytest.approx(roc_auc_score(y, p, sample_weight=w), abs=1e-12)
    value, psi = rank.auc_influence(y, p, w)
    assert value == pytest.approx(a.value, abs=1e-12)
    if np.isfinite(a.std_error):
        assert a.std_error**2 == pytest.approx(k.covariance(psi)[0, 0], abs=1e-12)


def test_delong_standard_error_by_its_definition():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 80).astype(float)
    p = np.round(rng.uniform(size=80) * 0.7 + 0.3 * y, 1)
    x1, x0 = p[y == 1], p[y == 0]
    win = (x1[:, None] > x0) + 0.5 * (x1[:, None] == x0)
    var = win.mean(axis=1).var(ddof=1) / x1.size + win.mean(axis=0).var(ddof=1) / x0.size
    a = rank.auc(rank.ties(y, p))
    assert a.value == pytest.approx(win.mean())
    assert a.std_error == pytest.approx(np.sqrt(var))


def test_delong_covariance_of_two_scores():
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 60).astype(float)
    p = rng.uniform(size=(2, 60)) * 0.6 + 0.4 * y
    win = [(v[y == 1][:, None] > v[y == 0]) + 0.0 for v in p]
    v10, v01 = np.array([w.mean(axis=1) for w in win]), np.array([w.mean(axis=0) for w in win])
    expected = np.cov(v10) / (y == 1).sum() + np.cov(v01) / (y == 0).sum()
    psi = np.column_stack([rank.auc_influence(y, v)[1] for v in p])
    assert_allclose(k.covariance(psi), expected)


def test_perfect_separation_has_no_standard_error_below_zero():
    y = np.repeat([0.0, 1.0], 50)
    a = rank.auc(rank.ties(y, np.linspace(0, 1, 100)))
    assert a.value == 1.0 and a.std_error == 0.0
    one_case = rank.auc(rank.ties(np.array([1.0, 0.0, 0.0]), np.array([0.9, 0.1, 0.2])))
    assert one_case.value == 1.0 and np.isnan(one_case.std_error)


@given(scored())
@settings(max_examples=60)
def test_cumulative_range_by_its_definition(data):
    y, p, w = data
    t = rank.ties(y, p, w)
    c = rank.cumulative(t)
    curve = [0.0] + [(w * (y - p))[p <= v].sum() / w.sum() for v in t.value]
    assert c.range == pytest.approx(max(curve) - min(curve), abs=1e-12)
    assert c.sigma == pytest.approx(np.sqrt((w**2 * p * (1 - p)).sum()) / w.sum(), abs=1e-12)


def test_brownian_range_probability_against_simulation():
    rng = np.random.default_rng(2)
    steps = 4000
    walk = np.cumsum(rng.standard_normal((4000, steps)) / np.sqrt(steps), axis=1)
    width = np.maximum(walk.max(axis=1), 0) - np.minimum(walk.min(axis=1), 0)
    for x in (1.2, 1.6, 2.2, 2.5):
        # A walk misses the extremes between its steps; 0.0186 corrects both ends.
        share = (width + 2 * 0.5826 / np.sqrt(steps) > x).mean()
        assert rank.brownian_range_sf(x) == pytest.approx(share, abs=0.025)
    assert rank.brownian_range_sf(0.01) == 1.0
    assert rank.brownian_range_sf(1.5964) == pytest.approx(0.46, abs=0.03)
    assert rank.brownian_range_sf(40.0) == 0.0
    assert np.isnan(rank.brownian_range_sf(np.nan))
    values = [rank.brownian_range_sf(x) for x in np.linspace(0.3, 6, 60)]
    assert np.all(np.diff(values) <= 1e-12)


@given(scored())
@settings(max_examples=60)
def test_net_benefit_and_its_errors_row_by_row(data):
    y, p, w = data
    thresholds = np.array([0.05, 0.1, 0.3, 0.5, 0.95])
    nb = rank.net_benefit(rank.ties(y, p, w), thresholds)
    cluster = np.arange(y.size)
    var, gain_var = rank.net_benefit_variances(y, p, w, thresholds, cluster, y.size)
    size = w.sum() ** 2 / (w**2).sum()
    scale = size / max(size - 1, 1.0) / (y.size / (y.size - 1))
    for j, t in enumerate(thresholds):
        g = (p >= t) * np.where(y == 1, 1.0, -t / (1 - t))
        assert nb.value[j] == pytest.approx(np.average(g, weights=w), abs=1e-12)
        every = np.average(np.where(y == 1, 1.0, -t / (1 - t)), weights=w)
        assert nb.treat_all[j] == pytest.approx(every, abs=1e-12)
        assert nb.gain[j] == pytest.approx(nb.value[j] - max(every, 0), abs=1e-12)
    assert_allclose(nb.std_error**2, var * scale, atol=1e-12)
    assert_allclose(nb.gain_std_error**2, gain_var * scale, atol=1e-12)
