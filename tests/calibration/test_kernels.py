"""Moments, bins and their variances against plain numpy, and the identities of the measures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats

from causalrm.calibration import _kernels as k
from causalrm.calibration import _kernels_rank as rank
from causalrm.core.errors import DataError


@st.composite
def scored(draw, weights=False):
    """Outcomes and scores with ties, exact edges, zeros and ones."""
    n = draw(st.integers(2, 60))
    score = st.one_of(
        st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0, 1e-300, 1 - 1e-16]),
        st.floats(0.0, 1.0),
    )
    p = np.array(draw(st.lists(score, min_size=n, max_size=n)))
    y = np.array(draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=n, max_size=n)))
    if not weights:
        return y, p
    count = st.sampled_from([0.0, 1.0, 2.0, 3.0])
    w = np.array(draw(st.lists(count, min_size=n, max_size=n)))
    w[0] = 1.0
    return y, p, w


def test_bad_rows_counts_what_is_no_outcome_or_score():
    y = np.array([0.0, 1.0, 2.0, np.nan, 0.5])
    p = np.array([-1e-9, 1.0 + 1e-9, np.nan, 0.0, 1.0])
    assert k.bad_rows(y, p) == (3, 3)


@given(scored(), st.integers(1, 40))
@settings(max_examples=60)
def test_bins_match_a_loop_over_bins(data, n_bins):
    y, p = data
    edges = k.equal_edges(n_bins)
    b = k.bins(y, p, edges)
    index = np.clip(np.searchsorted(edges, p, side="right") - 1, 0, n_bins - 1)
    for j in range(n_bins):
        rows = index == j
        r = y[rows] - p[rows]
        expected = [rows.sum(), p[rows].sum(), y[rows].sum(), (r**2).sum(), r.sum()]
        seen = [b.count[j], b.p[j], b.y[j], b.square2[j], b.residual2[j]]
        assert_allclose(seen, expected, atol=1e-12)
    gap = sum(
        abs(y[index == j].mean() - p[index == j].mean()) * (index == j).mean()
        for j in range(n_bins)
        if (index == j).any()
    )
    assert k.ece(b) == pytest.approx(gap, abs=1e-12)
    assert k.ece_equal(y, p, n_bins) == pytest.approx(gap, abs=1e-12)
    assert k.ece(b) >= abs(y.mean() - p.mean()) - 1e-12


@given(scored(weights=True), st.integers(1, 12))
@settings(max_examples=60)
def test_a_weight_is_a_repeated_row(data, n_bins):
    y, p, w = data
    times = w.astype(int)
    y2, p2 = np.repeat(y, times), np.repeat(p, times)
    edges = k.equal_edges(n_bins)
    b, b2 = k.bins(y, p, edges, w), k.bins(y2, p2, edges)
    assert_allclose([b.weight, b.p, b.y], [b2.weight, b2.p, b2.y], atol=1e-9)
    assert k.ece(b) == pytest.approx(k.ece(b2), abs=1e-12)
    assert_allclose(k.moments(y, p, w).mean, k.moments(y2, p2).mean, rtol=1e-12, atol=1e-300)
    order = np.argsort(p)
    assert_allclose(
        k.quantile_edges(p[order], n_bins, w[order]), k.quantile_edges(np.sort(p2), n_bins)
    )


@given(scored(), st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_order_of_rows_and_naming_of_the_classes_do_not_matter(data, seed):
    y, p = data[0], np.round(data[1] * 64) / 64  # 1 - p is then exact
    o = np.random.default_rng(seed).permutation(y.size)
    edges = np.array([0.0, 0.2, 0.45, 0.8, 1.0])
    b = k.bins(y, p, edges)
    assert k.ece(k.bins(y[o], p[o], edges)) == pytest.approx(k.ece(b), abs=1e-12)
    z, flipped = k.spiegelhalter(y, p), k.spiegelhalter(1 - y, 1 - p)
    assert flipped == pytest.approx(z, rel=1e-6, abs=1e-9, nan_ok=True)


def test_scores_written_as_tenths_start_their_bins():
    p = np.arange(11) / 10
    b = k.bins(np.zeros(11), p, k.equal_edges(10))
    assert b.count.tolist() == [1.0] * 9 + [2.0]


def test_quantile_bins_have_equal_counts_and_keep_ties_together():
    p = np.sort(np.random.default_rng(0).uniform(size=100))
    b = k.bins(np.zeros(100), p, k.quantile_edges(p, 10))
    assert b.count.tolist() == [10.0] * 10
    p = np.repeat([0.1, 0.5, 0.9], [70, 20, 10])
    assert k.quantile_edges(p, 10).tolist() == [0.0, 0.1, 0.5, 0.9, 1.0]


def test_bad_edges_are_refused():
    with pytest.raises(DataError, match="increase from 0 to 1"):
        k.bins(np.zeros(2), np.zeros(2), np.array([0.0, 0.5, 0.5, 1.0]))


def test_constant_score_has_the_closed_forms():
    y = np.zeros(1000)
    y[:368] = 1.0
    p = np.full(1000, 0.25)
    assert k.ece(k.bins(y, p, k.equal_edges(10))) == pytest.approx(0.118)
    assert k.moments(y, p).mean[2] == pytest.approx(0.368 * 0.632 + 0.118**2)


def test_moments_and_their_covariance():
    rng = np.random.default_rng(1)
    p = rng.uniform(size=500)
    y = (rng.uniform(size=500) < p).astype(float)
    u = np.column_stack([y, p, (y - p) ** 2, -np.log(np.where(y > 0.5, p, 1 - p))])
    m = k.moments(y, p)
    assert_allclose(m.mean, u.mean(axis=0))
    assert_allclose(m.cov, np.cov(u.T) / 500)
    w = rng.exponential(size=500)
    m = k.moments(y, p, w)
    centred = w[:, None] * (u - np.average(u, axis=0, weights=w)) / w.sum()
    size = w.sum() ** 2 / (w**2).sum()
    assert_allclose(m.cov, centred.T @ centred * size / (size - 1))
    cluster = rng.integers(0, 40, 500)
    m = k.moments(y, p, w, cluster, 40)
    assert_allclose(m.cov, k.covariance(centred, cluster, 40))
    sums = np.array([centred[cluster == g].sum(axis=0) for g in range(40)])
    assert_allclose(m.cov, sums.T @ sums * 40 / 39)


def test_clusters_of_one_row_are_independent_rows():
    rng = np.random.default_rng(2)
    p = rng.uniform(size=70_000)  # more than one block
    y = (rng.uniform(size=p.size) < p).astype(float)
    one = k.moments(y, p, None, np.arange(p.size), p.size)
    assert_allclose(one.cov, k.moments(y, p).cov, rtol=1e-9, atol=1e-18)


def test_infinite_log_losses_are_counted_not_dropped():
    y = np.array([0.0, 1.0, 1.0, 0.0])
    p = np.array([1.0, 0.0, 1.0, 0.0])
    m = k.moments(y, p)
    assert m.n_infinite == 2
    assert m.mean[2] == 0.5
    assert k.moments(y, p, np.array([0.0, 1.0, 1.0, 1.0])).n_infinite == 1
    assert np.isinf(k.log_loss(y, p)).tolist() == [True, True, False, False]
    assert_allclose(k.log_loss(np.ones(1), np.array([1e-300])), 300 * np.log(10))


def test_spiegelhalter_formula_and_missing_value():
    rng = np.random.default_rng(3)
    p = rng.uniform(size=300)
    y = (rng.uniform(size=300) < p).astype(float)
    expected = ((y - p) * (1 - 2 * p)).sum() / np.sqrt(((1 - 2 * p) ** 2 * p * (1 - p)).sum())
    assert k.spiegelhalter(y, p) == pytest.approx(expected)
    assert np.isnan(k.spiegelhalter(np.array([0.0, 1.0, 1.0]), np.array([0.0, 0.5, 1.0])))


def test_debiased_squared_error_is_unbiased_on_fixed_bins():
    rng = np.random.default_rng(4)
    p = rng.uniform(size=60)
    q = np.clip(p + 0.1 * (p < 0.5), 0, 1)
    edges = k.equal_edges(4)
    index = k.bin_index(p, edges)
    truth = sum((index == j).mean() * (q - p)[index == j].mean() ** 2 for j in range(4))
    y = (rng.uniform(size=(4000, 60)) < q).astype(float)
    ours = np.array([k.squared_error(k.bins(v, p, edges)).value for v in y])
    plain = np.array([k.squared_error(k.bins(v, p, edges)).plain for v in y])
    se = ours.std() / np.sqrt(4000)
    # Rows are fixed here, so the variance within a bin overstates that of the mean a little:
    # the spread of p - q. Over drawn rows it is unbiased (next assertion).
    spread = sum(
        (index == j).mean() * (q - p)[index == j].var(ddof=1) / (index == j).sum() for j in range(4)
    )
    assert abs(ours.mean() - truth + spread) < 4 * se
    assert plain.mean() > truth + 10 * se


def test_bins_of_one_row_are_left_out_and_counted():
    y, p = np.array([1.0, 0.0, 1.0]), np.array([0.05, 0.55, 0.56])
    s = k.squared_error(k.bins(y, p, k.equal_edges(10)))
    assert s.n_left_out == 1
    assert s.plain == pytest.approx(2 / 3 * (0.5 - 0.555) ** 2)


@pytest.mark.parametrize("n", [150, 4000])
def test_noise_floor_is_the_distribution_under_perfect_calibration(n):
    rng = np.random.default_rng(5)
    p = rng.choice(np.linspace(0, 1, 41), n) if n == 150 else rng.uniform(size=n)
    edges = k.equal_edges(10)
    t = rank.ties(np.zeros(n), p)
    floor = k.null_ece(t.value, t.weight, t.weight, edges, 4000, rng)
    direct = [k.ece(k.bins((rng.uniform(size=n) < p).astype(float), p, edges)) for _ in range(2000)]
    assert stats.ks_2samp(floor, direct).pvalue > 1e-3
