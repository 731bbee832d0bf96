"""Maximise a sum over rows by damped Newton steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import linalg

from causalrm.core.errors import ConvergenceError

_MOST = 1e12  # damping from which on a step is no longer worth an evaluation

Objective = Callable[[np.ndarray], tuple[float, np.ndarray, np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Optimum:
    """Where a maximisation ended.

    Attributes
    ----------
    theta : ndarray of shape (k,)
    value : float
        Objective without penalties.
    score : ndarray of shape (k,)
    hessian : ndarray of shape (k, k)
        Of the objective without penalties, at `theta`.
    meat : ndarray of shape (k, k)
        Sum of outer products of the rows' scores, at `theta`.
    decrement : float
        Half the squared Newton decrement: what a further quadratic step would gain.
    iterations, evaluations : int
    converged : bool
    """

    theta: np.ndarray
    value: float
    score: np.ndarray
    hessian: np.ndarray
    meat: np.ndarray
    decrement: float
    iterations: int
    evaluations: int
    converged: bool


def _finite(found: tuple[Any, ...]) -> bool:
    """Whether value, score and Hessian are all numbers."""
    return all(bool(np.isfinite(x).all()) for x in found[:3])


def _scaled(information: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The matrix in units in which its diagonal is 1, and these units."""
    diagonal = np.abs(np.diag(information))
    d = 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    with np.errstate(over="ignore", invalid="ignore"):
        return information * d[:, None] * d[None, :], d


def _solve(information: np.ndarray, score: np.ndarray, damping: float) -> np.ndarray | None:
    """Step of a scaled, damped Newton method; None where the matrix is not positive definite."""
    scaled, d = _scaled(information)
    scaled[np.diag_indices_from(scaled)] += damping
    try:
        factor = linalg.cho_factor(scaled)
    except (linalg.LinAlgError, ValueError):  # not positive definite, or beyond a double
        return None
    if np.diag(factor[0]).min() < 1e-9:
        return None
    return np.asarray(d * linalg.cho_solve(factor, d * score))


def maximize(
    objective: Objective,
    start: np.ndarray,
    *,
    ridge: np.ndarray | None = None,
    lasso: np.ndarray | None = None,
    tol: float = 1e-10,
    max_iter: int = 200,
    max_step: float | None = None,
    hold: tuple[int, ...] = (),
) -> Optimum:
    """Maximise a smooth function, minus an elastic-net penalty where one is given.

    Parameters
    ----------
    objective : callable
        ``theta -> value, score, Hessian, meat``; a value of -inf or NaN shortens the step.
    start : ndarray of shape (k,)
    ridge, lasso : ndarray of shape (k,), optional
        Penalties ``ridge/2 * theta**2 + lasso * abs(theta)``.
    tol : float
        Gain in log-likelihood under which a further step is not worth it.
    max_iter : int
    max_step : float, optional
        Largest change of a coordinate in one step.
    hold : tuple of int
        Coordinates that stay where they start.

    Returns
    -------
    Optimum
        With ``converged=False`` where the steps ran out; the caller decides what that means.

    Raises
    ------
    ConvergenceError
        When the objective is not finite at `start`.
    """
    k = len(start)
    l2 = np.zeros(k) if ridge is None else np.asarray(ridge, dtype=float)
    l1 = None if lasso is None or not np.any(lasso) else np.array(lasso, dtype=float)
    if l1 is not None:
        l1[list(hold)] = 0.0
    theta = np.asarray(start, dtype=float).copy()
    value, score, hessian, meat = objective(theta)
    evaluations = 1
    if not _finite((value, score, hessian)):
        raise ConvergenceError(
            "Expected a finite log-likelihood at the starting values, but it is not. Rescale the "
            "columns, or give other starting values."
        )

    def penalty(t: np.ndarray) -> float:
        out = 0.5 * float(l2 @ t**2)
        return out if l1 is None else out + float(l1 @ np.abs(t))

    damping, iteration, gain, converged = 0.0, 0, np.inf, False
    for iteration in range(max_iter + 1):
        information = np.diag(l2) - hessian
        gradient = score - l2 * theta
        for i in hold:
            gradient[i] = information[i, :] = information[:, i] = 0.0
            information[i, i] = 1.0
        step = None
        while step is None and damping < _MOST:
            if l1 is None:
                step = _solve(information, gradient, damping)
            else:
                step = _lasso_step(information, gradient, theta, l1, damping)
            if step is None:
                damping = max(4.0 * damping, 1e-3)
        if step is None:
            break
        if l1 is None:
            gain = 0.5 * float(gradient @ step)
        else:
            change = float(l1 @ (np.abs(theta + step) - np.abs(theta)))
            gain = float(gradient @ step) - 0.5 * float(step @ information @ step) - change
        floor = 64 * np.finfo(float).eps * (1.0 + abs(value))
        if damping == 0.0 and gain <= max(tol, floor):
            converged = True
            break
        if iteration == max_iter:
            break
        if max_step is not None:
            step = step * min(1.0, max_step / max(np.abs(step).max(), 1e-300))
        current = value - penalty(theta)
        for _ in range(40):
            trial = objective(theta + step)
            evaluations += 1
            if _finite(trial) and trial[0] - penalty(theta + step) >= current - floor:
                break
            step = 0.25 * step
            damping = max(4.0 * damping, 1e-3)
        else:
            break
        moved = trial[0] - penalty(theta + step) - current
        theta = theta + step
        value, score, hessian, meat = trial
        damping = 0.0 if damping < 1e-3 or moved > 0.5 * gain else damping / 8.0
    return Optimum(theta, value, score, hessian, meat, gain, iteration, evaluations, converged)


def _lasso_step(
    information: np.ndarray,
    gradient: np.ndarray,
    theta: np.ndarray,
    l1: np.ndarray,
    damping: float,
) -> np.ndarray | None:
    """Maximise the quadratic model minus the absolute penalty by coordinate descent."""
    q = information + damping * np.diag(_scaled(information)[1] ** -2)
    try:
        linalg.cho_factor(q)
    except linalg.LinAlgError:
        return None
    new = theta.copy()
    rest = gradient.copy()  # gradient of the quadratic model at `new`
    scale = np.sqrt(np.diag(q))
    for _ in range(2000):
        largest = 0.0
        for j in range(len(theta)):
            centre = rest[j] + q[j, j] * new[j]
            best = np.sign(centre) * max(abs(centre) - l1[j], 0.0) / q[j, j]
            change = best - new[j]
            if change != 0.0:
                rest -= q[:, j] * change
                new[j] = best
                largest = max(largest, abs(change) * scale[j])
        if largest < 1e-12:
            break
    return np.asarray(new - theta)
