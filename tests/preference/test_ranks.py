"""Quasi variances, simultaneous comparisons, ranks and groups."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from causalrm.preference import ranks


def some_covariance(k: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    half = rng.normal(size=(k, 3 * k)) * rng.uniform(0.3, 1.5, k)[:, None]
    full = half @ half.T / (3 * k)
    full -= full[0]  # differences from the first item
    full -= full[:, :1]
    return full


def test_quasi_variances_of_independent_estimates_are_their_variances() -> None:
    variance = np.array([0.4, 0.1, 0.2, 0.9, 0.3])
    full = np.diag(variance)
    against_first = full - full[0]
    against_first = against_first - against_first[:, :1]
    q, error = ranks.quasi_variances(against_first)
    np.testing.assert_allclose(q, variance, rtol=1e-8)
    assert error < 1e-8


def test_three_items_have_exact_quasi_variances() -> None:
    covariance = some_covariance(3)
    q, error = ranks.quasi_variances(covariance)
    v = ranks.contrast_variances(covariance)
    np.testing.assert_allclose(q[:, None] + q[None, :] - 2 * np.diag(q), v, rtol=1e-7)
    assert error < 1e-7


def test_quasi_variances_minimise_the_criterion_of_the_paper() -> None:
    covariance = some_covariance(7, 3)
    v = ranks.contrast_variances(covariance)
    i, j = np.triu_indices(7, 1)

    def loss(log_q: np.ndarray) -> float:
        q = np.exp(log_q)
        return float((np.log((q[i] + q[j]) / v[i, j]) ** 2).sum())

    best = optimize.minimize(loss, np.zeros(7), method="BFGS", options={"gtol": 1e-10})
    q, _ = ranks.quasi_variances(covariance)
    np.testing.assert_allclose(q, np.exp(best.x), rtol=1e-5)


def test_two_items_share_the_variance() -> None:
    q, error = ranks.quasi_variances(np.array([[0.0, 0.0], [0.0, 0.6]]))
    np.testing.assert_allclose(q, [0.3, 0.3])
    assert error == 0.0


def test_the_critical_value_is_tukeys_for_independent_estimates() -> None:
    # Studentised range / sqrt(2): q(.95; 5, inf) = 3.8577 (tables of Harter 1960).
    better, critical = ranks.compare_all(np.zeros(5), np.eye(5), 0.95, None)
    assert not better.any()
    assert critical == pytest.approx(3.8577 / np.sqrt(2), rel=0.02)


def test_t_quantiles_are_wider_and_stepping_down_is_narrower() -> None:
    _, normal = ranks.compare_all(np.zeros(5), np.eye(5), 0.95, None)
    assert ranks.compare_all(np.zeros(5), np.eye(5), 0.95, 8.0)[1] > normal + 0.3
    better, apart = ranks.compare_all(np.array([0.0, 0.0, 50.0, 50.0]), np.eye(4), 0.95, None)
    _, all_open = ranks.compare_all(np.zeros(4), np.eye(4), 0.95, None)
    assert better.sum() == 4 and apart < all_open


def test_ranks_and_groups() -> None:
    # 0 > 2, 0 > 3, 1 > 3: runs of neighbours overlap
    better = np.zeros((4, 4), bool)
    better[0, [2, 3]] = better[1, 3] = True
    low, high = ranks.rank_bounds(better)
    assert low.tolist() == [1, 1, 2, 3] and high.tolist() == [2, 3, 4, 4]
    assert ranks.groups(np.arange(4), better) == [[0, 1], [1, 2], [2, 3]]
    assert ranks.groups(np.arange(4), np.zeros((4, 4), bool)) == [[0, 1, 2, 3]]
    everyone = np.triu(np.ones((3, 3), bool), 1)
    assert ranks.groups(np.arange(3), everyone) == [[0], [1], [2]]


def test_items_without_any_variance_are_not_told_apart() -> None:
    assert not ranks.compare_all(np.zeros(3), np.zeros((3, 3)), 0.95, None)[0].any()
    q, _ = ranks.quasi_variances(np.zeros((3, 3)))
    assert np.isnan(q).all()
