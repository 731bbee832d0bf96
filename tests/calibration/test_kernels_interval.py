"""Cells, simulated samples and the inversion of tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import expit, logit

from causalrm.calibration import _kernels as k
from causalrm.calibration import _kernels_cells as cells
from causalrm.calibration import _kernels_curve as curve
from causalrm.calibration import _kernels_interval as interval
from causalrm.calibration import _kernels_rank as rank

EDGES = k.equal_edges(10)


def sample(n, slope=1.0, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.beta(1.5, 2, n)
    return (rng.uniform(size=n) < expit(slope * logit(p))).astype(float), p


def prepared(y, p, w=None, n_draws=400, seed=1, n_cells=200):
    t = rank.ties(y, p, w)
    c = cells.cells(t, n_cells, EDGES)
    smoother = curve.loess_matrix(c.p, c.weight, c.p)
    gap = cells.direction(c, smoother)
    s = cells.samples(c, gap, n_draws, np.random.default_rng(seed))
    return t, c, smoother, s


@pytest.mark.parametrize("n", [3, 150, 5000])
@pytest.mark.parametrize("weighted", [False, True])
def test_cells_add_up_and_respect_edges(n, weighted):
    y, p = sample(n)
    p = np.where(p < 0.2, 0.15, p)  # one heavy tie
    w = np.random.default_rng(2).exponential(size=n) if weighted else None
    weight = np.ones(n) if w is None else w
    c = cells.cells(rank.ties(y, p, w), 64, EDGES)
    assert c.weight.sum() == pytest.approx(weight.sum())
    assert c.weight2.sum() == pytest.approx((weight**2).sum())
    assert c.residual.sum() == pytest.approx((weight * (y - p)).sum())
    assert (np.diff(c.p) > 0).all()
    cell = np.searchsorted(c.lower, p[weight > 0], side="right") - 1
    pairs = set(zip(cell, k.bin_index(p[weight > 0], EDGES), strict=True))
    assert len(pairs) == c.p.size
    nodes = cells.node_cells(rank.ties(y, p, w), 64)
    assert nodes.weight.sum() == pytest.approx(weight.sum())
    assert nodes.p.size == 65


@pytest.mark.parametrize("n", [80, 3000])
def test_statistics_on_cells_are_the_measures(n):
    y, p = sample(n, 0.6)
    t, c, smoother, s = prepared(y, p)
    b = k.bins(y, p, EDGES)
    assert interval.binned_statistic(s, EDGES).observed == pytest.approx(k.ece(b))
    plain = k.squared_error(b)
    if plain.n_left_out == 0:
        seen = interval.binned_statistic(s, EDGES, squared=True).observed
        assert seen == pytest.approx(plain.plain)
    curves = interval.curve_statistics(s, smoother)
    e = curve.curve_errors(smoother @ (c.residual / c.weight), c.weight)
    assert [curves[name].observed for name in ("ici", "e50", "e90", "emax")] == pytest.approx(
        [e.ici, e.e50, e.e90, e.emax]
    )
    tolerance = 1e-12 if n == 80 else 5e-4  # beyond 200 rows a cell holds several
    wide = interval.cumulative_statistic(s).observed
    assert wide == pytest.approx(rank.cumulative(t).range, abs=tolerance)
    corp = rank.corp(t, rank.isotonic(t.weight, t.positive))
    if n == 3000:
        assert interval.corp_statistic(s, 5).observed == pytest.approx(corp.dsc, abs=2e-3)


def test_isotonic_statistics_are_those_of_blocks_of_five_rows():
    y, p = (np.repeat(x, 8) for x in sample(60, 0.6))
    y[::3] = 1.0  # scores of eight rows each, so that every score is a block
    t, _, _, s = prepared(y, p)
    corp = rank.corp(t, rank.isotonic(t.weight, t.positive))
    log = rank.corp(t, rank.isotonic(t.weight, t.positive), True)
    for kind, value in ((5, corp.dsc), (6, log.mcb), (7, log.dsc)):
        assert interval.corp_statistic(s, kind).observed == pytest.approx(value)
    single = prepared(*sample(80, 0.6))[3]
    assert interval.corp_statistic(single, 4).weight.shape[1] == 16


def test_direction_follows_a_jump_but_not_noise():
    rng = np.random.default_rng(9)
    p = rng.uniform(size=20_000)
    for size in (0.0, 0.2):
        y = (rng.uniform(size=p.size) < p - size * ((p > 0.4) & (p < 0.7))).astype(float)
        _, c, _, s = prepared(y, p)
        member = np.equal.outer(k.bin_index(c.p, EDGES), np.arange(10)) / p.size
        moved = interval._refined(s, member, s.noise1 @ member)
        path = (c.weight * s.gap) @ member + moved
        expected = np.where((np.arange(10) > 3) & (np.arange(10) < 7), -0.1 * size, 0.0)
        assert_allclose(path, expected, atol=0.004)


def test_the_doubt_about_an_extreme_widens_but_keeps_the_test():
    for slope in (1.0, 0.6):
        y, p = sample(400, slope, 12)
        statistic = interval.cumulative_statistic(prepared(y, p)[3])
        plain = interval.invert(replace(statistic, extreme=False))
        wide = interval.invert(statistic)
        assert wide.high > plain.high and wide.median_unbiased == plain.median_unbiased
        assert wide.low <= plain.low and (wide.low > 0.0) == (plain.low > 0.0)
    assert interval.doubt(0.2, 0.95) == pytest.approx(0.1 * 1.959964)


def test_simulated_samples_have_the_moments_of_real_ones():
    p = np.repeat([0.02, 0.3, 0.6], [10, 15, 400])
    y = np.zeros(425)
    y[[3, 12, 14, 20, 40, 60, 90]] = 1.0
    c = cells.cells(rank.ties(y, p), 8)
    gap = np.array([0.1, -0.1, 0.05])
    assert c.p.size == 3
    s = cells.samples(c, gap, 20_000, np.random.default_rng(3))
    assert_allclose(s.weight.mean(axis=0), c.weight, rtol=0.02)
    assert_allclose(s.weight.var(axis=0), c.weight, rtol=0.05)
    for noise, q in ((s.noise0, c.p), (s.noise1, c.p + gap)):
        assert (np.abs(noise.mean(axis=0)) < 5 * np.sqrt(c.weight / 20_000)).all()
        assert_allclose(noise.var(axis=0), c.weight * q * (1 - q), rtol=0.05)


def test_cluster_noise_has_the_covariance_of_cluster_sums():
    rng = np.random.default_rng(4)
    y, p = sample(600, 1.0, 5)
    cluster = np.repeat(np.arange(60), 10)
    c = cells.cells(rank.ties(y, p), 6)
    gap = np.zeros(c.p.size)
    factor = cells.cluster_factor(c, gap, y, p, None, cluster, 60, rng)
    cell = np.searchsorted(c.lower, p, side="right") - 1
    sums = np.zeros((60, c.p.size))
    np.add.at(sums, (cluster, cell), y - p)
    assert_allclose(factor.residual, sums / (1 - 3 / 60))  # equal clusters, three parameters
    assert_allclose(factor.weight.sum(axis=1), 0, atol=1e-9)
    s = cells.samples(c, gap, 20_000, rng, factor)
    expected = factor.residual.T @ factor.residual * (59 / 57)  # variance of t(59)
    assert_allclose(np.cov(s.noise0.T), expected, atol=0.05 * np.diag(expected).max())
    few = cells.cluster_factor(c, gap, y, p, None, np.arange(600), 600, rng, at_most=50)
    assert few.residual.shape == (50, c.p.size) and few.df == 49.0


def test_direction_is_the_logistic_gap_when_that_is_the_truth():
    y, p = sample(100_000, 0.5, 6)
    _, c, _, s = prepared(y, p, n_draws=2)
    assert_allclose(s.gap, expit(0.5 * logit(c.p)) - c.p, atol=0.02)
    assert ((c.p + s.gap >= 0) & (c.p + s.gap <= 1)).all()


def test_unified_split_goes_from_one_side_to_both():
    grid, below = interval._unified(0.95)
    assert below[0] == 0.0 and below[-1] == pytest.approx(0.025)
    assert (np.diff(below) >= -1e-12).all()


def all_statistics(y, p, w=None, n_draws=300):
    t, c, smoother, s = prepared(y, p, w, n_draws)
    value = curve.smooth_ece(curve.spectrum(y, p, w))
    nodes = cells.node_cells(t, 128)
    gap = np.interp(nodes.p, c.p, s.gap)
    draws = cells.samples(nodes, gap, n_draws, np.random.default_rng(7))
    return {
        "ece": interval.binned_statistic(s, EDGES),
        "squared": interval.binned_statistic(s, EDGES, squared=True),
        "cumulative": interval.cumulative_statistic(s),
        "mcb": interval.corp_statistic(s, 4),
        "smooth": interval.smooth_statistic(draws, value),
        **interval.curve_statistics(s, smoother),
    }


def test_intervals_are_ordered_and_separate_good_from_bad():
    good = {n: interval.invert(t) for n, t in all_statistics(*sample(1500, 1.0, 8)).items()}
    bad = {n: interval.invert(t) for n, t in all_statistics(*sample(1500, 0.4, 8)).items()}
    for name in good:
        for x in (good[name], bad[name]):
            assert 0.0 <= x.low <= x.median_unbiased <= x.high < 1.0
        assert good[name].low == 0.0 and good[name].p_value > 0.01
        assert bad[name].low > 0.0 and bad[name].p_value < 0.01
        assert good[name].high < bad[name].high


@pytest.mark.parametrize(
    "y, p",
    [
        (np.zeros(30), np.full(30, 0.2)),  # one class, one score
        (np.ones(30), np.linspace(0, 1, 30)),
        (np.array([0.0, 1.0]), np.array([0.0, 1.0])),  # certain and right
        (np.array([0.0, 1.0, 1.0]), np.array([1.0, 0.0, 1.0])),  # certain and wrong
        (np.tile([0.0, 1.0, 1.0], 50), np.tile([0.1, 0.5, 0.9], 50)),
    ],
)
def test_extreme_inputs_give_numbers(y, p):
    for name, statistic in all_statistics(y, p, n_draws=100).items():
        x = interval.invert(statistic)
        assert np.isfinite([x.low, x.median_unbiased, x.p_value]).all(), name
        assert x.low <= x.high, name


def test_intervals_cover_at_and_off_perfect_calibration():
    # Simulated data, known truth; 120 samples of 200 rows. The full version is marked slow.
    truth = {}
    grid = (np.arange(200_000) + 0.5) / 200_000
    for slope in (1.0, 0.6):
        q = expit(slope * logit(grid))
        gap = np.bincount((grid * 10).astype(int), q - grid) / grid.size
        run = np.cumsum(q - grid) / grid.size
        truth[slope] = {
            "ece": np.abs(gap).sum(),
            "ici": np.abs(q - grid).mean(),
            "mcb": ((q - grid) ** 2).mean(),
            "cumulative": max(run.max(), 0) - min(run.min(), 0),
        }
    for slope, expected in truth.items():
        hits = dict.fromkeys(expected, 0)
        for i in range(120):
            rng = np.random.default_rng(100 + i)
            p = rng.uniform(size=200)
            y = (rng.uniform(size=200) < expit(slope * logit(p))).astype(float)
            _, _, smoother, s = prepared(y, p, None, 200, i, 64)
            found = {
                "ece": interval.binned_statistic(s, EDGES),
                "ici": interval.curve_statistics(s, smoother)["ici"],
                "mcb": interval.corp_statistic(s, 4),
                "cumulative": interval.cumulative_statistic(s),
            }
            for name, statistic in found.items():
                x = interval.invert(statistic)
                hits[name] += x.low <= expected[name] + 1e-12 <= x.high + 2e-12
        for name, count in hits.items():
            assert 0.86 <= count / 120, (slope, name)
