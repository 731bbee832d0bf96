from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import ElasticNet, LogisticRegression

from causalrm import ConvergenceError
from causalrm.core.linear import logistic_rows
from causalrm.core.optimize import Optimum, maximize

RNG = np.random.default_rng(8)


class Counted:
    """An objective that counts its calls."""

    def __init__(self, function: Any):
        self.function, self.calls = function, 0

    def __call__(self, theta: np.ndarray) -> Any:
        self.calls += 1
        return self.function(theta)


def quadratic(a: np.ndarray, b: np.ndarray) -> Counted:
    k = len(b)
    return Counted(lambda t: (b @ t - 0.5 * t @ a @ t, b - a @ t, -a, np.eye(k)))


def logistic(x: np.ndarray, y: np.ndarray) -> Counted:
    def objective(theta: np.ndarray) -> Any:
        value, first, second = logistic_rows(y, x @ theta)
        scores = x * first[:, None]
        return value.sum(), scores.sum(axis=0), (x.T * second) @ x, scores.T @ scores

    return Counted(objective)


def rosenbrock(t: np.ndarray) -> Any:
    x, y = t
    value = -((1 - x) ** 2) - 100 * (y - x**2) ** 2
    score = np.array([2 * (1 - x) + 400 * x * (y - x**2), -200 * (y - x**2)])
    hessian = np.array([[-2 + 400 * (y - 3 * x**2), 400 * x], [400 * x, -200.0]])
    return value, score, hessian, np.eye(2)


@given(st.integers(1, 8), st.integers(0, 10_000))
def test_a_quadratic_takes_one_step(k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(k, 2 * k)) * 10.0 ** rng.uniform(-4, 4, (k, 1))
    a, b = root @ root.T, root @ rng.normal(size=2 * k)
    objective = quadratic(a, b)
    found = maximize(objective, np.zeros(k))
    assert found.converged and found.iterations <= 2
    assert found.evaluations == objective.calls <= 3
    solution = np.linalg.solve(a, b)
    np.testing.assert_allclose(found.theta, solution, rtol=1e-5, atol=1e-9 * abs(solution).max())
    assert found.decrement <= max(1e-10, 64 * np.finfo(float).eps * (1 + abs(found.value)))


@pytest.mark.parametrize("start", [(-1.2, 1.0), (3.0, -5.0), (0.0, 0.0), (-8.0, 20.0)])
def test_rosenbrock(start: tuple[float, float]) -> None:
    found = maximize(rosenbrock, np.array(start))
    assert found.converged and found.decrement <= 1e-10
    np.testing.assert_allclose(found.theta, 1.0, atol=1e-6)
    np.testing.assert_array_equal(found.hessian, rosenbrock(found.theta)[2])


def test_every_step_goes_up() -> None:
    accepted: list[float] = []

    def objective(t: np.ndarray) -> Any:
        out = rosenbrock(t)
        accepted.append(out[0])
        return out

    found = maximize(objective, np.array([-1.2, 1.0]))
    assert found.value == max(accepted) == accepted[-1]


def test_scales_of_parameters_do_not_matter() -> None:
    x = np.column_stack([np.ones(200), RNG.normal(size=(200, 2))])
    y = (RNG.random(200) < 0.4).astype(float)
    plain = maximize(logistic(x, y), np.zeros(3))
    scale = np.array([1.0, 1e-7, 1e7])
    scaled = maximize(logistic(x * scale, y), np.zeros(3))
    assert plain.converged and scaled.converged
    np.testing.assert_allclose(scaled.theta * scale, plain.theta, rtol=1e-5)
    assert scaled.value == pytest.approx(plain.value, rel=1e-12)
    np.testing.assert_allclose(plain.score, 0.0, atol=1e-4)


@pytest.mark.parametrize("bad", [-np.inf, np.nan])
@pytest.mark.parametrize("where", ["value", "score", "hessian"])
def test_regions_without_a_likelihood_are_left(bad: float, where: str) -> None:
    def objective(t: np.ndarray) -> Any:  # log t - t, with its maximum at 1, for t > 0
        x = t[0]
        if x <= 0:
            out = {"value": 5.0, "score": np.ones(1), "hessian": -np.eye(1)}
            out[where] = bad * np.ones_like(out[where])
            return float(out["value"]), out["score"], out["hessian"], np.eye(1)
        return np.log(x) - x, np.array([1 / x - 1]), np.array([[-1 / x**2]]), np.eye(1)

    for start in (1e-3, 1.9, 2.5, 40.0):  # the first Newton step from 2 on leads below 0
        found = maximize(objective, np.array([start]))
        assert found.converged
        assert found.theta[0] == pytest.approx(1.0, abs=1e-4)


def test_starting_values_without_a_likelihood() -> None:
    for out in (
        (np.nan, np.ones(1), -np.eye(1), np.eye(1)),
        (1.0, np.full(1, np.inf), -np.eye(1), np.eye(1)),
        (1.0, np.ones(1), np.full((1, 1), np.nan), np.eye(1)),
    ):
        with pytest.raises(ConvergenceError, match="starting values.* Rescale"):
            maximize(lambda _, out=out: out, np.zeros(1))


def test_no_maximum_is_flagged() -> None:
    def line(t: np.ndarray) -> Any:
        return t[0], np.ones(1), np.zeros((1, 1)), np.eye(1)

    found = maximize(line, np.zeros(1), max_iter=20)
    assert not found.converged and found.iterations == 20 and found.theta[0] > 0

    def saddle(t: np.ndarray) -> Any:
        hessian = np.diag([-2.0, 2.0])
        return -(t[0] ** 2) + t[1] ** 2, hessian @ t, hessian, np.eye(2)

    assert not maximize(saddle, np.array([1.0, 0.0]), max_iter=15).converged

    def wrong(t: np.ndarray) -> Any:  # a score that points down
        return -(t[0] ** 2), 2 * t, -2 * np.eye(1), np.eye(1)

    found = maximize(wrong, np.ones(1), max_iter=10)
    assert not found.converged and found.theta[0] == pytest.approx(1.0, abs=1e-9)


def test_steps_that_run_out_are_flagged() -> None:
    for most in (0, 1, 5):
        found = maximize(rosenbrock, np.array([-1.2, 1.0]), max_iter=most)
        assert not found.converged and found.iterations == most and found.decrement > 1e-10
    assert maximize(rosenbrock, np.ones(2), max_iter=0).converged


def test_steps_are_no_longer_than_allowed() -> None:
    seen: list[float] = []

    def objective(t: np.ndarray) -> Any:
        seen.append(float(t[0]))
        return -0.5 * (t[0] - 10) ** 2, 10 - t, -np.eye(1), np.eye(1)

    found = maximize(objective, np.zeros(1), max_step=1.5)
    assert found.converged and np.abs(np.diff(seen)).max() <= 1.5 + 1e-12


def test_hopeless_information_ends() -> None:
    def objective(t: np.ndarray) -> Any:
        hessian = np.array([[-1e-300, 1e300], [1e300, -1e-300]])
        return -float(t @ t), -2 * t, hessian, np.eye(2)

    for lasso in (None, np.ones(2)):
        found = maximize(objective, np.ones(2), lasso=lasso)
        assert isinstance(found, Optimum) and not found.converged


# ---------------------------------------------------------------- penalties


X = RNG.normal(size=(300, 6)) @ (np.eye(6) + 0.4) * np.array([1.0, 3.0, 0.2, 1.0, 1.0, 10.0])
Y = X @ np.array([1.0, 0.0, -2.0, 0.0, 0.3, 0.0]) + RNG.normal(size=300)


def gaussian() -> Counted:
    return quadratic(X.T @ X, X.T @ Y)


def test_ridge_is_the_closed_form() -> None:
    ridge = np.array([0.0, 1.0, 10.0, 3.0, 5.0, 100.0])
    found = maximize(gaussian(), np.zeros(6), ridge=ridge)
    expected = np.linalg.solve(X.T @ X + np.diag(ridge), X.T @ Y)
    assert found.converged
    np.testing.assert_allclose(found.theta, expected, rtol=1e-9)
    # value, score and Hessian are those without the penalty
    np.testing.assert_allclose(found.score, ridge * found.theta, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(found.hessian, -(X.T @ X))


@pytest.mark.parametrize("alpha", [0.01, 0.3, 2.0, 100.0])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_elastic_net_against_scikit_learn(alpha: float, share: float) -> None:
    n = len(Y)
    peer = ElasticNet(alpha=alpha, l1_ratio=share, fit_intercept=False, tol=1e-10, max_iter=100_000)
    expected = peer.fit(X, Y).coef_
    found = maximize(
        gaussian(), np.zeros(6), ridge=np.full(6, n * alpha * (1 - share)),
        lasso=np.full(6, n * alpha * share),
    )  # fmt: skip
    assert found.converged
    np.testing.assert_allclose(found.theta, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(found.theta == 0, expected == 0)


@pytest.mark.parametrize("strength", [0.5, 5.0, 30.0])
def test_lasso_logistic_satisfies_its_conditions(strength: float) -> None:
    x = np.column_stack([np.ones(len(X)), X / X.std(axis=0)])
    y = (Y > 0.3).astype(float)
    lasso = np.r_[0.0, np.full(6, strength)]
    found = maximize(logistic(x, y), np.zeros(7), lasso=lasso)
    assert found.converged
    zero = found.theta == 0
    np.testing.assert_allclose(
        found.score[~zero], (lasso * np.sign(found.theta))[~zero], atol=1e-3 * strength
    )
    assert (np.abs(found.score[zero]) <= lasso[zero]).all()
    with np.errstate(all="ignore"):
        peer = LogisticRegression(
            l1_ratio=1.0, C=1 / strength, solver="saga", tol=1e-9, max_iter=50_000
        ).fit(x[:, 1:], y)
    np.testing.assert_allclose(found.theta[1:], peer.coef_[0], atol=2e-3)


def test_lasso_without_strength_is_none() -> None:
    plain = maximize(gaussian(), np.zeros(6))
    same = maximize(gaussian(), np.zeros(6), lasso=np.zeros(6), ridge=np.zeros(6))
    np.testing.assert_array_equal(plain.theta, same.theta)


def test_lasso_on_what_has_no_information() -> None:
    a = np.diag([2.0, 0.0])
    found = maximize(quadratic(a, np.array([3.0, 0.5])), np.array([1.0, 1.0]), lasso=np.ones(2))
    assert found.theta[0] == pytest.approx(1.0)
    assert found.theta[1] == pytest.approx(0.0, abs=1e-6)


# ---------------------------------------------------------------- fixed coordinates


@pytest.mark.parametrize("lasso", [None, np.full(6, 20.0)])
def test_coordinates_that_are_held(lasso: np.ndarray | None) -> None:
    start = np.array([0.5, 0.0, 0.0, -3.0, 0.0, 0.0])
    found = maximize(gaussian(), start, lasso=lasso, hold=(0, 3))
    assert found.converged and found.theta[[0, 3]].tolist() == [0.5, -3.0]
    free = [1, 2, 4, 5]
    a, b = X.T @ X, X.T @ Y
    rest = b[free] - a[np.ix_(free, [0, 3])] @ [0.5, -3.0]
    expected = maximize(
        quadratic(a[np.ix_(free, free)], rest), np.zeros(4),
        lasso=None if lasso is None else lasso[free],
    )  # fmt: skip
    np.testing.assert_allclose(found.theta[free], expected.theta, atol=1e-8)
