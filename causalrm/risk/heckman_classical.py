"""The estimates that users of selection models know: two steps, and maximum likelihood."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from causalrm.core.blocks import Block
from causalrm.core.errors import ConvergenceError, IdentificationError
from causalrm.core.inference import delta_std_error, invert_information
from causalrm.core.linear import least_squares
from causalrm.core.optimize import maximize
from causalrm.risk import _kernels_heckman as ker
from causalrm.risk.heckman_problem import HeckmanLikelihood

_EDGE = 6.0  # atanh rho beyond which the likelihood has run to the end of its range
_STEEP = 1e-6  # share of the log-likelihood of selection left where a covariate separates it


@dataclass(frozen=True, eq=False)
class Classical:
    """Estimates in the raw coefficients: outcome, selection, then sigma, rho and lambda.

    Attributes
    ----------
    estimates, std_errors : ndarray of shape (k + 1,)
        NaN where there are none.
    theta : ndarray of shape (k,)
        The same with log sigma and atanh rho, from which a search can start.
    covariance : ndarray of shape (k, k), optional
        Of `theta`.
    loglik : float
    note : str
        What went wrong; empty where nothing did.
    """

    estimates: np.ndarray
    std_errors: np.ndarray
    theta: np.ndarray
    covariance: np.ndarray | None = None
    loglik: float = math.nan
    note: str = ""


def _moments(block: Block, model: HeckmanLikelihood, gamma: np.ndarray) -> tuple[np.ndarray, ...]:
    """Sums over the selected rows for the second step and its covariance."""
    y, seen, weight = model.columns(block)
    p = model.predictors
    xs = p.matrices(block, len(y))
    x, z = np.asarray(p.part(xs, 0)), np.asarray(p.part(xs, 1))
    w = gamma @ z
    mills = ker.mills_rows(w)
    a = np.vstack([x, mills])
    delta = mills * (mills + w)
    keep = weight * (seen != 0)
    return (
        (a * keep) @ a.T,
        (a * keep) @ y,
        keep @ y**2,
        keep.sum(),
        keep @ delta,
        ((a * keep * delta) @ a.T),
        (a * keep * delta) @ z.T,
    )


def first_step(model: HeckmanLikelihood) -> tuple[np.ndarray, np.ndarray, float]:
    """Probit of selection and least squares of the outcome, which are the model at rho = 0.

    Returns
    -------
    theta, information : ndarray of shape (k,), (k, k)
        Of the internal coefficients, atanh rho being 0.
    loglik : float

    Raises
    ------
    IdentificationError
        When covariates separate the selected from the others.
    """
    k = model.n_params
    p = model.predictors
    start = np.zeros(k)
    gram, moment, total, n, *_ = model.rows.total(_moments, model, start[p.slices[1]])
    start[p.slices[0]] = least_squares(gram[:-1, :-1], moment[:-1], model.terms[0])
    rss = total - float(start[p.slices[0]] @ moment[:-1])
    start[-2] = 0.5 * math.log(max(rss / n, 1e-300))
    found = maximize(model.sums, start, hold=(k - 1,), max_iter=60)
    gaussian = -n * (0.5 * math.log(2 * math.pi) + 0.5 + found.theta[-2])
    if abs(found.value - gaussian) < _STEEP * model.rows.n_obs or not found.converged:
        raise IdentificationError(
            "Expected selected and other rows that overlap in the covariates of the selection "
            f"formula, but {model.terms[1][1:]} tell them apart exactly, so that no probability "
            "of selection can be estimated. Remove the covariate that decides selection."
        )
    return found.theta, -found.hessian, found.value


def two_step(model: HeckmanLikelihood, theta: np.ndarray, information: np.ndarray) -> Classical:
    """Heckman's two-step estimate with his standard errors (Heckman 1979)."""
    p = model.predictors
    a, b = p.slices[0], p.slices[1]
    t = p.transform()
    gram, moment, total, n, delta, bent, cross = model.rows.total(_moments, model, theta[b])
    nothing = np.full(model.n_params + 1, math.nan)
    try:
        beta = least_squares(gram, moment)
    except IdentificationError:
        note = "the inverse Mills ratio is a combination of the outcome's columns"
        return Classical(nothing, nothing, t @ theta, note=note)
    lam = float(beta[-1])
    rss = total - float(beta @ moment)
    sigma = math.sqrt(rss / n + lam**2 * delta / n)
    rho = lam / sigma
    probit = invert_information(information[b, b], model.terms[1])
    inverse = linalg.inv(gram)
    r2 = min(rho**2, 1.0)
    middle = gram - r2 * bent + r2 * cross @ probit @ cross.T
    cov = sigma**2 * inverse @ middle @ inverse
    scale = np.eye(len(beta))
    scale[:-1, :-1] = t[a, a]
    beta, cov = scale @ beta, scale @ cov @ scale.T
    gamma, probit = t[b, b] @ theta[b], t[b, b] @ probit @ t[b, b].T
    bounded = float(np.clip(rho, -0.95, 0.95))
    raw = np.concatenate([beta[:-1], gamma, [math.log(sigma), math.atanh(bounded)]])
    se = np.sqrt(
        np.concatenate([np.diag(cov)[:-1], np.diag(probit), [math.nan] * 2, [cov[-1, -1]]])
    )
    note = "" if abs(rho) < 1 else f"the implied rho is {rho:.2f}, outside (-1, 1)"
    return Classical(np.concatenate([raw[:-2], [sigma, rho, lam]]), se, raw, note=note)


def maximum_likelihood(model: HeckmanLikelihood, starts: list[np.ndarray]) -> Classical:
    """Maximum likelihood from the best of several raw starting values."""
    t, inner = model.predictors.transform(), model.inverse
    nothing = np.full(model.n_params + 1, math.nan)
    best = None
    for start in starts:
        try:
            found = maximize(model.sums, inner @ start, max_iter=200, max_step=2.0)
        except ConvergenceError:
            continue
        if best is None or found.value > best.value:
            best = found
    if best is None:
        return Classical(nothing, nothing, starts[0], note="it was not found")
    raw = t @ best.theta
    if not best.converged or abs(raw[-1]) > _EDGE:
        note = "rho runs to the end of its range"
        return Classical(nothing, nothing, raw, loglik=best.value, note=note)
    names = [*model.terms[0], *model.terms[1], "sigma", "rho"]
    try:
        cov = t @ invert_information(-best.hessian, names) @ t.T
    except IdentificationError:
        return Classical(nothing, nothing, raw, loglik=best.value, note="it is not unique")
    sigma, rho = math.exp(raw[-2]), math.tanh(raw[-1])
    jacobian = np.vstack([np.eye(len(raw)), np.zeros(len(raw))])
    jacobian[-3, -2], jacobian[-2, -1] = sigma, 1 - rho**2
    jacobian[-1, -2:] = rho * sigma, sigma * (1 - rho**2)
    estimates = np.concatenate([raw[:-2], [sigma, rho, rho * sigma]])
    return Classical(estimates, delta_std_error(jacobian, cov), raw, cov, best.value)
