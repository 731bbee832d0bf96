"""Smooth ECE and loess against slow versions of their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import brentq
from scipy.stats import norm

from causalrm.calibration import _kernels_cells as cells
from causalrm.calibration import _kernels_curve as curve
from causalrm.calibration import _kernels_rank as rank


def brute_smooth_ece(y, p, w=None, points=6_001):
    """Quadrature of the kernel sum over all rows and points, bisected in sigma."""
    w = np.ones_like(p) if w is None else w
    grid = np.linspace(0, 1, points)

    def at(sigma):
        total = np.zeros(points)
        for score, r in zip(p, w * (y - p), strict=True):
            for m in range(-2, 3):  # images of the reflected kernel
                centres = (2 * m + score, 2 * m - score)
                total += r * sum(norm.pdf(grid, c, sigma) for c in centres)
        return np.trapezoid(np.abs(total), grid) / w.sum()

    return brentq(lambda s: at(s) - s, 1e-3, 1.0, xtol=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_smooth_ece_is_the_quadrature(seed):
    rng = np.random.default_rng(seed)
    n = 40
    p = rng.uniform(size=n) if seed else rng.choice([0.0, 0.1, 0.5, 0.9, 1.0], n)
    y = (rng.uniform(size=n) < 0.7 * p).astype(float)
    w = rng.integers(1, 4, n).astype(float) if seed == 2 else None
    ours = curve.smooth_ece(curve.spectrum(y, p, w))
    assert ours > 0.03
    assert ours == pytest.approx(brute_smooth_ece(y, p, w), rel=2e-6)


def test_grid_blur_is_taken_off():
    rng = np.random.default_rng(3)
    p = rng.uniform(size=200_000)
    y = (rng.uniform(size=p.size) < p).astype(float)
    fine = curve.smooth_ece(curve.spectrum(y, p, nodes=1 << 16))
    ours = curve.spectrum(y, p)
    assert fine < 0.012
    assert curve.smooth_ece(ours) == pytest.approx(fine, rel=5e-6)
    blurred = curve.Spectrum(ours.coef, 0.0, ours.reach)
    assert abs(curve.smooth_ece(blurred) / fine - 1) > 1e-5


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30))
@settings(max_examples=60)
def test_smooth_ece_limits_and_symmetry(rows):
    p = np.array([r[0] for r in rows])
    y = np.array([float(r[1]) for r in rows])
    value = curve.smooth_ece(curve.spectrum(y, p))
    assert abs((y - p).mean()) - 1e-9 <= value <= np.abs(y - p).mean() + 1e-9
    assert curve.smooth_ece(curve.spectrum(1 - y, 1 - p)) == pytest.approx(value, abs=1e-6)
    assert curve.smooth_ece(curve.spectrum(np.tile(y, 2), np.tile(p, 2))) == pytest.approx(
        value, abs=1e-9
    )


def test_perfect_certain_scores_have_no_error():
    y = np.array([0.0, 1.0, 1.0, 0.0])
    assert curve.smooth_ece(curve.spectrum(y, y)) == 0.0
    assert curve.smooth_ece(curve.spectrum(1 - y, y)) == pytest.approx(0.5, abs=0.1)


def slow_loess(p, y, at, span, degree):
    """Weighted least squares at each point on the nearest rows that fill the span."""
    out = []
    for x in at:
        distance = np.abs(p - x)
        reach = np.sort(distance)[int(np.ceil(span * p.size - 1e-9)) - 1]
        weight = np.clip(1 - (distance / reach) ** 3, 0, None) ** 3
        basis = np.vander(p - x, degree + 1, increasing=True)
        root = np.sqrt(weight)
        out.append(np.linalg.lstsq(basis * root[:, None], y * root, rcond=None)[0][0])
    return np.array(out)


@pytest.mark.parametrize("degree", [0, 1, 2])
@pytest.mark.parametrize("span", [0.3, 0.75, 1.0])
def test_loess_is_local_least_squares(degree, span):
    rng = np.random.default_rng(4)
    p = np.sort(rng.uniform(size=120) ** 3)
    y = (rng.uniform(size=120) < p).astype(float)
    s = curve.loess_matrix(p, np.ones(120), p[::7], span, degree)
    assert_allclose(s @ y, slow_loess(p, y, p[::7], span, degree), atol=1e-9)


def test_loess_weights_are_repeated_rows_and_lines_pass_through():
    p = np.array([0.0, 0.1, 0.3, 0.4, 0.8, 1.0])
    times = np.array([1, 4, 2, 5, 1, 3])
    y = np.array([0.0, 1.0, 0.0, 1.0, 1.0, 0.0])
    s = curve.loess_matrix(p, times.astype(float), p)
    slow = slow_loess(np.repeat(p, times), np.repeat(y, times), p, 0.75, 2)
    assert_allclose(s @ y, slow, atol=1e-9)
    assert_allclose(s @ np.ones(6), 1, atol=1e-12)
    assert_allclose(s @ p, p, atol=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_loess_on_few_distinct_scores_is_their_mean(k):
    p = np.array([0.0, 0.5, 1.0])[:k]
    s = curve.loess_matrix(p, np.full(k, 100.0), p)
    assert np.isfinite(s).all()
    assert_allclose(s.sum(axis=1), 1.0)
    heavy = curve.loess_matrix(p, np.array([1000.0, 1.0, 1.0])[:k], p[:1])
    assert_allclose(heavy[0], np.eye(k)[0], atol=1e-12)


def test_cells_keep_the_curve_of_all_rows():
    rng = np.random.default_rng(5)
    p = rng.beta(0.7, 1.5, 6000)
    y = (rng.uniform(size=6000) < p**1.3).astype(float)
    c = cells.cells(rank.ties(y, p))
    gap = curve.loess_matrix(c.p, c.weight, c.p) @ (c.residual / c.weight)
    direct = slow_loess(p, y, c.p[::16], 0.75, 2) - c.p[::16]
    assert_allclose(gap[::16], direct, atol=5e-4)
    every = np.interp(p, c.p, gap)
    assert curve.curve_errors(gap, c.weight).ici == pytest.approx(np.abs(every).mean(), abs=5e-5)


def test_curve_errors_are_weighted_quantiles():
    gap = np.array([0.3, -0.1, 0.2, -0.4])
    e = curve.curve_errors(gap, np.array([1.0, 5.0, 3.0, 0.0]))
    assert (e.e50, e.e90, e.emax) == (0.1, 0.3, 0.3)
    assert e.ici == pytest.approx((0.3 + 0.5 + 0.6) / 9)
