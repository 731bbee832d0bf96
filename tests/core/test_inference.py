from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from causalrm import DataError, IdentificationError
from causalrm.core.inference import (
    by_cluster,
    condition_number,
    delta_std_error,
    gradient_of,
    invert_information,
    quantile,
    sandwich,
    two_sided_p,
    wald,
)

RNG = np.random.default_rng(21)
N, K = 300, 4
X = np.column_stack([np.ones(N), RNG.normal(size=(N, K - 1)) * [1.0, 5.0, 0.1]])
GROUPS = RNG.integers(0, 25, N)
Y = X @ [1.0, 0.5, -0.2, 2.0] + RNG.normal(size=N) * (1 + np.abs(X[:, 1])) + GROUPS / 10
PEER = sm.OLS(Y, X).fit()
SCORES = (X * PEER.resid[:, None]).T  # of the coefficients, one column per row


# ---------------------------------------------------------------- covariances


@given(st.integers(1, 6), st.integers(0, 1000))
def test_inverse_at_any_scale(k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(k, 3 * k + 2)) * 10.0 ** rng.uniform(-60, 60, (k, 1))
    information = root @ root.T
    inverse = invert_information(information, [f"b{i}" for i in range(k)])
    d = np.sqrt(np.diag(information))
    unit = (information / d[:, None] / d) @ (inverse * d[:, None] * d)
    np.testing.assert_allclose(unit, np.eye(k), atol=1e-9)
    np.testing.assert_array_equal(inverse, inverse.T)
    assert (np.diag(inverse) > 0).all()


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda a: a.__setitem__(np.ix_([1], [0, 1, 2, 3]), 0.0), r"none on \['b'\]\. Remove"),
        (lambda a: a.__setitem__((2, 2), -1.0), r"none on \['c'\]"),
        (lambda a: a.__setitem__((2, 2), np.nan), r"none on \['c'\]"),
        (lambda a: a.__setitem__((0, 0), np.inf), r"none on \['a'\]"),
        (lambda a: a.__setitem__((0, 3), np.nan), r"none on \['a', 'b', 'c', 'd'\]"),
    ],
)
def test_parameters_without_information_are_named(change: object, names: str) -> None:
    information = X.T @ X
    change(information)  # type: ignore[operator]
    with pytest.raises(IdentificationError, match=names):
        invert_information(information, list("abcd"))


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_parameters_that_cannot_be_told_apart_are_named(scale: float) -> None:
    x = X.copy()
    x[:, 3] = scale * (x[:, 1] - 2 * x[:, 0])
    with pytest.raises(IdentificationError, match=r"separate \['a', 'b', 'd'\] .*Remove one of"):
        invert_information(x.T @ x, list("abcd"))
    number, weights = condition_number(x.T @ x)
    assert number > 1e12 and weights[2] < 1e-6 < weights[[0, 1, 3]].min()


def test_indefinite_information_is_no_maximum() -> None:
    with pytest.raises(IdentificationError, match=r"separate \['a', 'b'\] .*-1"):
        invert_information(np.array([[1.0, 2.0], [2.0, 1.0]]), ["a", "b"])
    assert condition_number(np.array([[1.0, 2.0], [2.0, 1.0]]))[0] == np.inf


def test_condition_number() -> None:
    a = X.T @ X
    d = np.sqrt(np.diag(a))
    number, weights = condition_number(a)
    assert number == pytest.approx(np.linalg.cond(a / d[:, None] / d))
    np.testing.assert_allclose(np.linalg.norm(weights), 1.0)
    t = np.diag([1e-9, 1.0, 1e9, 5.0])
    assert condition_number(t @ a @ t)[0] == pytest.approx(number, rel=1e-9)
    assert condition_number(np.diag([1.0, 0.0]))[0] == np.inf


def test_sandwich_against_statsmodels() -> None:
    bread = invert_information(X.T @ X, list("abcd"))
    robust = sandwich(bread, SCORES @ SCORES.T, N / (N - K))
    np.testing.assert_allclose(robust, PEER.get_robustcov_results("HC1").cov_params(), rtol=1e-9)
    np.testing.assert_allclose(
        sandwich(bread, SCORES @ SCORES.T), PEER.get_robustcov_results("HC0").cov_params(),
        rtol=1e-9,
    )  # fmt: skip
    sums = by_cluster(GROUPS, SCORES, 25)
    assert sums.shape == (25, K)
    np.testing.assert_allclose(sums[7], SCORES[:, GROUPS == 7].sum(axis=1))
    clustered = sandwich(bread, sums.T @ sums, 25 / 24)
    peer = PEER.get_robustcov_results("cluster", groups=GROUPS, use_correction=False)
    np.testing.assert_allclose(clustered, peer.cov_params() * 25 / 24, rtol=1e-9)
    np.testing.assert_array_equal(robust, robust.T)


def test_clusters_that_do_not_occur() -> None:
    sums = by_cluster(np.array([2, 2], dtype=np.int32), np.ones((3, 2)), 4)
    assert sums.tolist() == [[0, 0, 0], [0, 0, 0], [2, 2, 2], [0, 0, 0]]


# ---------------------------------------------------------------- tests and intervals


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
def test_quantiles(level: float) -> None:
    assert quantile(level) == pytest.approx(stats.norm.ppf(0.5 + level / 2), rel=1e-13)
    for df in (1.0, 3.0, 29.5, 1e6):
        assert quantile(level, df) == pytest.approx(stats.t.ppf(0.5 + level / 2, df), rel=1e-10)


@pytest.mark.parametrize("level", [0.0, 1.0, 95, -0.1, np.nan])
def test_levels_that_are_none(level: float) -> None:
    with pytest.raises(DataError, match="between 0 and 1"):
        quantile(level)


def test_p_values() -> None:
    z = np.array([0.0, -1.5, 3.0, 30.0, np.nan, np.inf])
    np.testing.assert_allclose(two_sided_p(z), 2 * stats.norm.sf(np.abs(z)), rtol=1e-12)
    np.testing.assert_allclose(two_sided_p(z, 7), 2 * stats.t.sf(np.abs(z), 7), rtol=1e-10)


def test_wald_against_statsmodels() -> None:
    covariance = np.asarray(PEER.cov_params())
    which = np.array([1, 2, 3])
    values, part = PEER.params[which], covariance[np.ix_(which, which)]
    restriction = np.eye(K)[which]
    peer = PEER.wald_test(restriction, use_f=False, scalar=True)
    statistic, df, p = wald(values, part)
    assert df == 3
    assert (statistic, p) == (pytest.approx(peer.statistic, rel=1e-9), pytest.approx(peer.pvalue))
    peer = PEER.f_test(restriction)
    statistic, df, p = wald(values, part, N - K)
    assert statistic / df == pytest.approx(float(peer.fvalue), rel=1e-9)
    assert p == pytest.approx(float(peer.pvalue), rel=1e-9)
    scale = np.array([1e-8, 1.0, 1e8])
    again, _, _ = wald(values * scale, part * np.outer(scale, scale))
    assert again == pytest.approx(statistic, rel=1e-8)


def test_wald_of_one_value_is_the_square() -> None:
    statistic, df, p = wald(np.array([3.0]), np.array([[4.0]]))
    assert (statistic, df) == (2.25, 1) and p == pytest.approx(two_sided_p(np.array(1.5)))


@pytest.mark.parametrize(
    "covariance", [np.ones((2, 2)), np.diag([1.0, 0.0]), np.diag([1.0, np.nan]), -np.eye(2)]
)
def test_wald_of_values_that_follow_from_each_other(covariance: np.ndarray) -> None:
    with pytest.raises(IdentificationError, match="2 values that are tested together.* Drop it"):
        wald(np.array([1.0, 2.0]), covariance)


def test_delta_method_against_the_formula() -> None:
    covariance = np.asarray(PEER.cov_params())
    jacobian = RNG.normal(size=(7, 2, K))
    found = delta_std_error(jacobian, covariance)
    assert found.shape == (7, 2)
    expected = np.sqrt(np.einsum("abi,ij,abj->ab", jacobian, covariance, jacobian))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    prediction = PEER.get_prediction(X[:5])
    np.testing.assert_allclose(delta_std_error(X[:5], covariance), prediction.se_mean, rtol=1e-9)
    assert delta_std_error(np.array([1.0, -1.0]), np.ones((2, 2))) == 0.0


def test_gradients() -> None:
    theta = np.array([0.5, -2.0, 1e6, 0.0])
    scale = np.array([0.1, 1.0, 1e3, 0.0])  # one of them unknown

    def function(t: np.ndarray) -> np.ndarray:
        return np.array([[np.exp(t[0]) * t[1], t[2] ** 2], [t[3], np.sin(t[1])]])

    expected = np.zeros((2, 2, 4))
    expected[0, 0, :2] = -2 * np.exp(0.5), np.exp(0.5)
    expected[0, 1, 2], expected[1, 0, 3], expected[1, 1, 1] = 2e6, 1.0, np.cos(-2.0)
    found = gradient_of(function, theta, scale)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-8)
    assert theta.tolist() == [0.5, -2.0, 1e6, 0.0]
