"""Density of a `Problem`: sums over rows, priors, constraints, and all of it in coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, log_expit

from causalrm.core.blocks import Block
from causalrm.risk import _kernels as ker
from causalrm.risk.problem import Problem

_LOG_SQRT_2PI = 0.5 * np.log(2 * np.pi)


def _predictors(block: Block, parts: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    d = block["W"] @ parts["testing"]
    if parts["decider"] is not None:
        d += parts["decider"][block["decider"]]
    return block["X"] @ parts["risk"], d


def _gradient_block(
    block: Block, parts: dict[str, Any], law: str, n_deciders: int, moves: bool
) -> Any:
    a, d = _predictors(block, parts)
    out = ker.derivatives(
        block["code"], a, d, parts["sigma"], parts["alpha"], law, second=False, alpha_moves=moves
    )
    out *= block["counts"]
    pieces = [block["X"].T @ out[1], block["W"].T @ out[2], [out[3].sum(), out[4].sum()]]
    if n_deciders:
        pieces.append(np.bincount(block["decider"], out[2], n_deciders))
    return out[0].sum(), np.concatenate(pieces)


def log_likelihood(problem: Problem, theta: np.ndarray) -> tuple[float, np.ndarray]:
    """Log-likelihood of all rows and its gradient in theta; constraints are not part of it."""
    value, found = problem.rows.total(
        _gradient_block, problem.split(theta), problem.unobservable, problem.n_deciders,
        problem.alpha is None,
    )  # fmt: skip
    n = problem.p + problem.q
    gradient = np.zeros(problem.n_theta)
    gradient[: n + 1] = found[: n + 1]
    if problem.alpha is None:
        gradient[n + 1] = found[n + 1]
    if problem.n_deciders:
        gradient[-problem.n_deciders :] = found[n + 2 :]
    return float(value), gradient


def _prevalence_block(block: Block, parts: dict[str, Any], law: str) -> Any:
    m = ker.risk(block["X"] @ parts["risk"], parts["sigma"], law)  # m, m_a, m_s, m_aa, m_as
    w = block["prevalence"]
    return tuple(m[i] @ w for i in (0, 1, 2, 4)) + tuple(
        (w * m[i][:, None]).T @ block["X"] for i in (1, 3)
    )


@dataclass(frozen=True, eq=False)
class Implied:
    """Implied prevalence of each term and its derivatives.

    Attributes
    ----------
    value : ndarray of shape (t,)
    gradient : ndarray of shape (t, n_theta)
    slope : ndarray of shape (t,)
        Derivative in the intercept.
    slope_gradient : ndarray of shape (t, n_theta)
    """

    value: np.ndarray
    gradient: np.ndarray
    slope: np.ndarray
    slope_gradient: np.ndarray


def implied_prevalence(problem: Problem, theta: np.ndarray) -> Implied:
    """Implied prevalence of each of the problem's terms, with derivatives in theta."""
    m, m_a, m_s, m_as, g, h = problem.rows.total(
        _prevalence_block, problem.split(theta), problem.unobservable
    )
    gradient = np.zeros((2, len(m), problem.n_theta))
    gradient[0, :, : problem.p], gradient[1, :, : problem.p] = g, h
    place = problem.p + problem.q
    gradient[0, :, place], gradient[1, :, place] = m_s, m_as
    return Implied(m, gradient[0], m_a, gradient[1])


def log_constraint(problem: Problem, theta: np.ndarray) -> tuple[float, np.ndarray]:
    """Log density of the soft prevalence terms and its gradient in theta."""
    value, gradient = 0.0, np.zeros(problem.n_theta)
    if problem.soft:
        implied = implied_prevalence(problem, theta)
        for i, term in enumerate(problem.prevalence):
            if not term.hard:
                f, f1, _ = term.density(float(implied.value[i]))
                value += f
                gradient += f1 * implied.gradient[i]
    return value, gradient


def log_prior(problem: Problem, theta: np.ndarray) -> tuple[float, np.ndarray]:
    """Log prior density on the original scale and its gradient in theta."""
    n = problem.p + problem.q
    sd = np.empty(problem.n_theta)
    sd[:n] = np.concatenate([problem.risk_sd, problem.testing_sd])
    sd[n] = problem.sigma_sd
    halves = [n]
    if problem.alpha is None:
        sd[n + 1] = problem.alpha_sd
        halves.append(n + 1)
    value, gradient = 0.0, np.zeros(problem.n_theta)
    if problem.n_deciders:
        tau_at = problem.n_theta - problem.n_deciders - 1
        tau, effects = theta[tau_at], theta[tau_at + 1 :]
        sd[tau_at], sd[tau_at + 1 :] = problem.decider_sd, tau
        halves.append(tau_at)
        gradient[tau_at] = float(effects @ effects) / tau**3 - problem.n_deciders / tau
    z = theta / sd
    value = float(-0.5 * z @ z - np.log(sd).sum()) - len(z) * _LOG_SQRT_2PI
    return value + len(halves) * np.log(2.0), gradient - z / sd


def log_posterior(problem: Problem, u: np.ndarray) -> tuple[float, np.ndarray]:
    """Log posterior density of the unconstrained coordinates, up to a constant, and its gradient.

    With a hard prevalence it is the density of what is left, given that the implied prevalence
    equals its target: the intercept is solved, and the Jacobian 1 / (d implied / d intercept)
    goes with the intercept's prior.
    """
    theta = problem.to_theta(u)
    value, gradient = 0.0, np.zeros(problem.n_theta)
    for part in (log_likelihood, log_prior, log_constraint):
        f, g = part(problem, theta)
        value, gradient = value + f, gradient + g
    n, h = problem.p + problem.q, int(problem.hard is not None)
    if problem.hard is not None:
        at = problem.prevalence.index(problem.hard)
        implied = implied_prevalence(problem, theta)
        slope = implied.slope[at]
        value -= float(np.log(slope))
        gradient -= implied.slope_gradient[at] / slope
        gradient -= gradient[0] / slope * implied.gradient[at]
    s = theta[n]
    k, dk = problem.scale(s)
    centred = theta[:n].copy()
    centred[0] += problem.centre * s
    g_s = gradient[n] + dk * float(centred[h:] @ gradient[h:n]) + (n - h) * dk
    if not h:
        g_s -= problem.centre * gradient[0]
    out: list[Any] = [k * gradient[h:n]]
    value += (n - h) * float(np.log(k))
    v = u[n - h]
    value += float(log_expit(v))
    out.append([g_s * expit(v) + expit(-v)])
    if problem.alpha is None:
        w = u[n - h + 1]
        value += float(log_expit(w))
        out.append([gradient[n + 1] * expit(w) + expit(-w)])
    if problem.n_deciders:
        sd, w = theta[-problem.n_deciders - 1], u[-problem.n_deciders - 1]
        scale = problem.decider_scale(sd, s)
        pull = gradient[-problem.n_deciders :] * theta[-problem.n_deciders :] + 1.0
        value += float(log_expit(w) + np.log(scale).sum())
        total = gradient[-problem.n_deciders - 1] + float((1 - problem.centring) @ pull) / sd
        at = n - h  # the effects grow with sigma too
        out[1][0] += dk * float(problem.centring @ pull) * expit(u[at])
        out += [[total * expit(w) + expit(-w)], scale * gradient[-problem.n_deciders :]]
    return value, np.concatenate(out)


def row_log_likelihood(problem: Problem, theta: np.ndarray) -> np.ndarray:
    """Log-likelihood of each row, without its count; shape (n,)."""
    parts = problem.split(theta)
    columns = problem.rows.columns
    a, d = _predictors(columns, parts)
    law = problem.unobservable
    return ker.values(columns["code"], a, d, parts["sigma"], parts["alpha"], law)


def row_risk(problem: Problem, theta: np.ndarray) -> np.ndarray:
    """Risk of each row, marginal over the unobservable; shape (n,)."""
    parts = problem.split(theta)
    out = ker.risk(problem.X @ parts["risk"], parts["sigma"], problem.unobservable)[0]
    return np.asarray(out)
