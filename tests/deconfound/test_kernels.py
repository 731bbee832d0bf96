"""Folds, Gram matrices by fold, confidence sets, graphs: against plain definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg

from causalrm.deconfound import _kernels as k
from causalrm.deconfound import _kernels_absorb as a
from causalrm.deconfound import _kernels_graph as g

# --------------------------------------------------------------------------- folds


@given(n=st.integers(1, 500), n_folds=st.integers(2, 12), seed=st.integers(0, 2**62))
@settings(deadline=None)
def test_folds_are_balanced_and_can_be_read_in_parts(n: int, n_folds: int, seed: int) -> None:
    whole = k.fold_codes(np.arange(n), n_folds, seed)
    counts = np.bincount(whole, minlength=n_folds)
    assert counts.max() - counts.min() <= 1
    cut = n // 3
    parts = [k.fold_codes(np.arange(*ends), n_folds, seed) for ends in ((0, cut), (cut, n))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_folds_of_two_seeds_are_unrelated() -> None:
    n = 50_000
    one, two = (k.fold_codes(np.arange(n), 5, seed) for seed in (3, 4))
    table = np.zeros((5, 5))
    np.add.at(table, (one, two), 1)
    # Chi-squared of independence with 16 degrees of freedom: 39.3 is its 99.9 % quantile.
    assert ((table - n / 25) ** 2 / (n / 25)).sum() < 39.3


def test_gram_by_fold_is_that_of_each_folds_rows() -> None:
    rng = np.random.default_rng(1)
    x, codes, w = rng.normal(size=(7, 1500)), rng.integers(0, 4, 1500), rng.random(1500)
    place, starts = k.fold_order(codes, 4)
    sorted_x, sorted_w = np.empty_like(x), np.empty(1500)
    shift, scale = rng.normal(size=7), rng.random(7)
    k.gather(x, shift, scale, place, sorted_x)
    sorted_w[place] = w
    for weights, full in ((sorted_w, w), (np.empty(0), np.ones(1500))):
        out = np.zeros((4, 7, 7))
        k.gram_by_fold(sorted_x, weights, starts, out)
        for fold in range(4):
            own = ((x - shift[:, None]) * scale[:, None])[:, codes == fold]
            expected = (own * full[codes == fold]) @ own.T
            np.testing.assert_allclose(out[fold], np.tril(expected), rtol=1e-12, atol=1e-12)


# --------------------------------------------------------------------------- instruments


def test_critical_value_of_the_effective_f() -> None:
    """23.1 with one instrument: Montiel Olea and Pflueger (2013), table 1."""
    f, critical = k.effective_f(np.array([0.5]), np.array([[100.0]]), np.array([[0.01]]))
    assert f == pytest.approx(0.25 / 0.01)
    assert critical == pytest.approx(23.1, abs=0.05)


def test_effective_f_is_the_classical_f_under_equal_variances() -> None:
    rng = np.random.default_rng(2)
    z = rng.normal(size=(200, 3))
    zz, first, s2 = z.T @ z, np.array([0.3, -0.2, 0.1]), 1.7
    f, critical = k.effective_f(first, zz, s2 * linalg.inv(zz))
    assert f == pytest.approx(first @ zz @ first / (3 * s2))
    assert 5 < critical < 23.1  # three instruments tolerate more than one


def test_conditional_f_of_one_confounder_is_the_classical_one() -> None:
    rng = np.random.default_rng(3)
    z = rng.normal(size=(120, 2))
    d = z @ [[0.2], [0.5]] + rng.normal(size=(120, 1))
    f = k.conditional_f(z.T @ z, z.T @ d, d.T @ d, 118)
    fit, ssr, *_ = np.linalg.lstsq(z, d[:, 0])
    assert f[0] == pytest.approx(((d**2).sum() - ssr[0]) / 2 / (ssr[0] / 118))


def statistic(theta: float, zy: np.ndarray, zd: np.ndarray, rows: np.ndarray) -> float:
    """Anderson-Rubin statistic from its definition, from the moments of all rows."""
    m = len(zy)
    own = rows[:, :m] - theta * rows[:, m:]
    g = zy - theta * zd
    return float(g @ np.linalg.solve(own.T @ own, g))


@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("strength", [0.0, 0.05, 0.2, 2.0])
@pytest.mark.parametrize("conflict", [0.0, 1.5])
@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_anderson_rubin_set_is_where_the_statistic_is_small(
    m: int, strength: float, conflict: float, scale: float
) -> None:
    rng = np.random.default_rng(int(10 * m + 100 * strength))
    n, critical = 120, 3.84 * m
    z = rng.normal(size=(n, m))
    d = z.sum(axis=1) * strength + rng.normal(size=n)
    y = scale * (0.7 * d + conflict * z[:, 0] + rng.normal(size=n))
    rows = np.hstack([z * y[:, None], z * d[:, None]])
    zy, zd = rows[:, :m].sum(axis=0), rows[:, m:].sum(axis=0)
    found = k.anderson_rubin(zy, zd, rows.T @ rows, critical)
    assert all(low < high for low, high in found)
    assert all(one[1] < two[0] for one, two in zip(found[:-1], found[1:], strict=True))
    grid = scale * np.concatenate([np.linspace(-8, 8, 401), [-1e4, -200, 200, 1e4]])
    for theta in grid:
        value = statistic(theta, zy, zd, rows)
        if abs(value / critical - 1) > 1e-6:
            assert (value < critical) == any(low <= theta <= high for low, high in found)


def test_anderson_rubin_sets_of_every_shape() -> None:
    one = np.array([1.0])
    var = np.diag([1.0, 1.0])
    # (zy - t zd)^2 <= c (1 + t^2)
    assert k.anderson_rubin(0 * one, 0.5 * one, var, 1.0) == [(-np.inf, np.inf)]
    ((low, high),) = k.anderson_rubin(0 * one, 2 * one, var, 1.0)  # 3 t^2 <= 1
    assert (low, high) == pytest.approx((-(3**-0.5), 3**-0.5))
    left, right = k.anderson_rubin(2 * one, 0.5 * one, var, 1.0)  # .75 t^2 + 2 t - 3 >= 0
    roots = np.roots([0.75, 2, -3])
    assert left == pytest.approx((-np.inf, roots.min()))
    assert right == pytest.approx((roots.max(), np.inf))
    zy, zd = np.array([30.0, -30.0]), np.array([30.0, 30.0])  # they want 1 and -1
    assert k.anderson_rubin(zy, zd, np.eye(4), 6.0) == []


# --------------------------------------------------------------------------- graphs


def test_singletons_go_again_and_again() -> None:
    # Row 0 is alone in level 3 of the first factor; without it row 1 is alone in the second.
    codes = np.array([[3, 0, 0, 0, 1, 1, 2, 2], [0, 0, 1, 2, 1, 2, 1, 2]])
    np.testing.assert_array_equal(
        a.drop_singletons(codes, np.array([4, 3])), [False, False] + [True] * 6
    )


@given(seed=st.integers(0, 10**6))
@settings(deadline=None, max_examples=40)
def test_singletons_and_components_against_plain_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, sizes = 40, np.array([25, 14, 9])
    codes = np.stack([rng.integers(0, s, n) for s in sizes])
    keep = np.ones(n, bool)
    while True:
        counts = [np.bincount(c[keep], minlength=s) for c, s in zip(codes, sizes, strict=True)]
        alone = keep & np.any([x[c] == 1 for x, c in zip(counts, codes, strict=True)], axis=0)
        if not alone.any():
            break
        keep &= ~alone
    np.testing.assert_array_equal(a.drop_singletons(codes, sizes), keep)

    label = a.components(codes[0], codes[1], 25, 14)
    dummies = np.zeros((n, 39))
    dummies[np.arange(n), codes[0]] = dummies[np.arange(n), 25 + codes[1]] = 1
    reach = np.linalg.matrix_power(np.eye(39) + dummies.T @ dummies, 39) > 0
    np.testing.assert_array_equal(label[:, None] == label[None, :], reach)
    assert set(label) == set(range(label.max() + 1))


def test_approximate_factor_of_a_tree_is_exact() -> None:
    """Eliminating leaves creates no edges, so that nothing is left to chance."""
    rng = np.random.default_rng(5)
    n = 300
    parent = np.array([rng.integers(0, v) for v in range(1, n)], dtype=np.int32)
    value = rng.random(n - 1) + 0.1
    factor = g.factor(n, np.arange(1, n, dtype=np.int32), parent, value, 7)
    laplacian = np.zeros((n, n))
    for v, (u, x) in enumerate(zip(parent, value, strict=True), start=1):
        laplacian[[u, v], [u, v]] += x
        laplacian[[u, v], [v, u]] -= x
    b = rng.normal(size=(n, 2))
    b -= b.mean(axis=0)
    x = b.copy()
    g.precondition(*factor, x)
    np.testing.assert_allclose(laplacian @ x, b, atol=1e-9)


def test_approximate_factor_is_a_good_preconditioner() -> None:
    rng = np.random.default_rng(6)
    side = 30
    grid = np.arange(side * side).reshape(side, side)
    left = np.concatenate([grid[:-1].ravel(), grid[:, :-1].ravel()]).astype(np.int32)
    right = np.concatenate([grid[1:].ravel(), grid[:, 1:].ravel()]).astype(np.int32)
    value = np.exp(2 * rng.normal(size=len(left)))
    n = side * side
    laplacian = np.zeros((n, n))
    np.add.at(laplacian, (left, left), value)
    np.add.at(laplacian, (right, right), value)
    np.add.at(laplacian, (left, right), -value)
    np.add.at(laplacian, (right, left), -value)
    x = laplacian.copy()
    g.precondition(*g.factor(n, left, right, value, 7), x)
    eigenvalues = np.sort(linalg.eigvals(x).real)[1:]  # one is 0: constants
    assert eigenvalues[-1] / eigenvalues[0] < 40
    plain = np.sort(linalg.eigvals(laplacian / np.diag(laplacian)[:, None]).real)[1:]
    assert plain[-1] / plain[0] > 1000
