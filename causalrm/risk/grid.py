"""The sigma grid: importance draws from the posterior, without a Markov chain.

Given sigma, the posterior of the coefficients is close to normal; over sigma it is not. So the
mode and the curvature of the coefficients are found on a grid of sigmas, in the coordinates
k(sigma) in which they barely move; splines between the points give a proposal, sigma by its
inverse CDF and the coefficients from a t with 30 degrees of freedom; and Pareto-smoothed weights
correct it. What could go wrong is checked, and said in `GridDraws.reason`.

References
----------
.. [1] Rue, H., Martino, S. and Chopin, N. (2009). doi:10.1111/j.1467-9868.2008.00700.x
.. [2] Vehtari, A. et al. (2024). Pareto smoothed importance sampling. arXiv:1507.02646
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy import linalg
from scipy.interpolate import CubicSpline
from scipy.special import gammaln, ndtri
from scipy.stats import chi2, qmc

from causalrm.core.blocks import BLOCK, Block, each
from causalrm.core.errors import ConvergenceError, DataError
from causalrm.core.optimize import maximize
from causalrm.core.parallel import blas_limit
from causalrm.risk import _kernels as ker
from causalrm.risk.density import implied_prevalence, log_prior
from causalrm.risk.problem import Problem, solve_intercept

STEP, DROP, FARTHEST = 0.5, 13.0, 60.0  # of sigma; log marginal below its peak; largest sigma
NARROW = 2.0  # change of the log marginal above which an interval is halved
MOST_POINTS = 400
DF = 30.0
K_HAT, ESS_SHARE = 0.5, 0.5
_CHUNK = 16  # draws that share one pass over the rows


@dataclass(frozen=True, eq=False)
class GridDraws:
    """Weighted draws from the posterior, and whether they can be believed.

    Attributes
    ----------
    theta : ndarray of shape (S, n_theta)
        Draws on the original scale, each with its weight.
    log_weights : ndarray of shape (S,)
        Pareto-smoothed, normalised.
    khat : float
        Shape of the tail of the weights; above .5 the draws are not used.
    ess : float
        Importance effective sample size of the smoothed weights.
    checks : dict
        Numbers behind `ok`: grid points, evaluations, largest sigma, share of the weight at it.
    ok : bool
    reason : str
        Why not, in words; empty when `ok`.
    """

    theta: np.ndarray
    log_weights: np.ndarray
    khat: float
    ess: float
    checks: dict[str, Any] = field(default_factory=dict)
    ok: bool = True
    reason: str = ""

    def resample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw `n` rows of `theta` with equal weights, stratified; in random order."""
        edges = np.cumsum(np.exp(self.log_weights))
        places = (np.arange(n) + rng.random(n)) / n * edges[-1]
        picks = np.minimum(np.searchsorted(edges, places), len(edges) - 1)
        return np.asarray(self.theta[rng.permutation(picks)])

    def mean(self) -> np.ndarray:
        """Posterior means, shape (n_theta,), from the weights."""
        return np.asarray(np.exp(self.log_weights) @ self.theta)

    def sd(self) -> np.ndarray:
        """Posterior standard deviations, shape (n_theta,), from the weights."""
        square = np.exp(self.log_weights) @ (self.theta - self.mean()) ** 2
        return np.asarray(np.sqrt(square))


@dataclass(frozen=True, eq=False)
class _Point:
    """Conditional posterior of the coefficients at one sigma."""

    s: float
    log_marginal: float
    mode: np.ndarray  # g: centred, over k(s)
    factor: np.ndarray  # upper triangular, factor @ factor.T is the covariance of g
    intercept: float  # the solved intercept under a hard prevalence
    tilt: np.ndarray  # and its slopes in g
    evaluations: int


# --- the conditional posterior at one sigma -------------------------------------------------------


def _curvature_block(
    block: Block, beta: np.ndarray, p: int, s: float, alpha: float, law: str
) -> Any:
    X, W = block["X"], block["W"]
    out = ker.derivatives(block["code"], X @ beta[:p], W @ beta[p:], s, alpha, law)
    out *= block["counts"]
    H = np.empty((len(beta), len(beta)))
    H[:p, :p] = (X * out[5][:, None]).T @ X
    H[:p, p:] = (X * out[6][:, None]).T @ W
    H[p:, :p] = H[:p, p:].T
    H[p:, p:] = (W * out[7][:, None]).T @ W
    return out[0].sum(), np.concatenate([out[1] @ X, out[2] @ W]), H


def _implied_block(block: Block, beta: np.ndarray, p: int, s: float, law: str) -> Any:
    X, w = block["X"], block["prevalence"]
    m = ker.risk(X @ beta[:p], s, law)
    second = np.stack([(X * (c * m[3])[:, None]).T @ X for c in w.T])
    return m[0] @ w, (w * m[1][:, None]).T @ X, second


def _theta(problem: Problem, x: np.ndarray, s: float) -> np.ndarray:
    """Theta of the free coefficients; a hard prevalence's intercept is solved."""
    if problem.hard is None:
        return np.append(x, s)
    theta = np.concatenate([[-problem.centre * s], x, [s]])
    theta[0] = solve_intercept(problem, theta)
    return theta


def _conditional(problem: Problem, s: float) -> Callable[[np.ndarray], Any]:
    """Log posterior of the free coefficients at `s`, with gradient and Hessian."""
    p, n, law = problem.p, problem.p + problem.q, problem.unobservable
    precision = np.concatenate([problem.risk_sd, problem.testing_sd]) ** -2.0
    assert problem.alpha is not None
    alpha = problem.alpha

    def objective(x: np.ndarray) -> Any:
        theta = _theta(problem, x, s)
        beta = theta[:n]
        value, g, H = problem.rows.total(_curvature_block, beta, p, s, alpha, law)
        value += log_prior(problem, theta)[0]
        g = g - precision * beta
        H = H - np.diag(precision)
        if problem.prevalence:
            m, first, second = problem.rows.total(_implied_block, beta, p, s, law)
            for i, term in enumerate(problem.prevalence):
                if term.hard:
                    continue
                f, f1, f2 = term.density(float(m[i]))
                value += f
                g[:p] += f1 * first[i]
                H[:p, :p] += f2 * np.outer(first[i], first[i]) + f1 * second[i]
            if problem.hard is not None:
                # the intercept is a function of the others: b_j = -m_j / m_0, and so on
                i = problem.prevalence.index(problem.hard)
                J = np.eye(n)[:, 1:]
                J[0, : p - 1] = -first[i, 1:] / first[i, 0]
                bent = -(J[:p].T @ second[i] @ J[:p]) / first[i, 0]
                H = J.T @ H @ J + g[0] * bent
                g = J.T @ g
        return value, g, H, np.zeros_like(H)

    return objective


def _centre(problem: Problem, s: Any, x: np.ndarray, sign: float = 1.0) -> np.ndarray:
    """Free coefficients, the mean of the unobservable added to the intercept (or taken off)."""
    out = np.array(x)
    if problem.hard is None and problem.unobservable == "uniform":
        out[..., 0] += sign * 0.5 * s
    return out


def _solve_point(problem: Problem, s: float, start: np.ndarray) -> _Point:
    """Mode and curvature at `s`, from a start in the coordinates g.

    Raises
    ------
    ConvergenceError
        When Newton does not converge or the curvature is not that of a maximum.
    """
    k = problem.scale(s)[0]
    objective = _conditional(problem, s)
    found = maximize(objective, _centre(problem, s, k * start, -1.0), tol=1e-6, max_iter=60)
    if not found.converged:
        raise ConvergenceError(f"the mode of the coefficients was not found at sigma = {s:g}")
    try:
        lower = linalg.cholesky(-found.hessian, lower=True)
    except linalg.LinAlgError:
        raise ConvergenceError(
            f"the curvature at the mode is not positive definite at sigma = {s:g}"
        ) from None
    factor = linalg.solve_triangular(lower, np.eye(len(lower)), lower=True, trans="T") / k
    volume = 0.5 * len(lower) * np.log(2 * np.pi) - np.log(np.diag(lower)).sum()
    mode = _centre(problem, s, found.theta) / k
    tilt = np.zeros(len(mode))
    theta = _theta(problem, found.theta, s)
    if problem.hard is not None:
        at, p = problem.prevalence.index(problem.hard), problem.p
        implied = implied_prevalence(problem, theta)
        tilt[: p - 1] = -k * implied.gradient[at, 1:p] / implied.slope[at]
    value, intercept = float(found.value + volume), float(theta[0])
    return _Point(s, value, mode, factor, intercept, tilt, found.evaluations)


# --- the grid -------------------------------------------------------------------------------------


def _guess(points: dict[float, _Point], s: float) -> np.ndarray:
    """Mode at `s` by the line through the two nearest points."""
    near = sorted(points, key=lambda other: abs(other - s))[:2]
    if len(near) == 1:
        return points[near[0]].mode
    a, b = near
    share = (s - a) / (b - a)
    return np.asarray((1 - share) * points[a].mode + share * points[b].mode)


def _build(problem: Problem) -> list[_Point]:
    """Points from sigma = 0 upward until the log marginal is far below its peak, then halved."""
    points: dict[float, _Point] = {}

    def add(s: float, start: np.ndarray) -> float:
        points[s] = _solve_point(problem, s, start)
        return points[s].log_marginal

    peak = add(0.0, np.zeros(problem.p + problem.q - (problem.hard is not None)))
    s = 0.0
    while points[s].log_marginal > peak - DROP or len(points) < 3:
        s += STEP if s < 10 else 2 * STEP
        if s > FARTHEST:
            raise ConvergenceError(
                f"the marginal posterior of sigma does not end below {FARTHEST:g}"
            )
        peak = max(peak, add(s, _guess(points, s)))
    while True:
        grid = sorted(points)
        peak = max(point.log_marginal for point in points.values())
        wide = []
        for a, b in zip(grid[:-1], grid[1:], strict=True):
            low, high = sorted((points[a].log_marginal, points[b].log_marginal))
            if high > peak - DROP and high - low > NARROW and b - a > 1e-6:
                wide.append(0.5 * (a + b))
        if not wide:
            return [points[s] for s in grid]
        if len(points) + len(wide) > MOST_POINTS:
            raise ConvergenceError(f"the grid of sigmas needs more than {MOST_POINTS} points")
        for s in wide:
            add(s, _guess(points, s))


@dataclass(frozen=True, eq=False)
class _Proposal:
    """Splines in sigma through the points of the grid."""

    sigmas: np.ndarray  # a fine mesh
    density: np.ndarray  # at its points, linear between them, integrates to 1
    mode: CubicSpline
    factor: CubicSpline
    intercept: CubicSpline
    tilt: CubicSpline

    @classmethod
    def of(cls, points: list[_Point]) -> _Proposal:
        grid = np.array([p.s for p in points])
        log_marginal = np.array([p.log_marginal for p in points])
        peak = log_marginal.max()
        # far below the peak the spline would swing; there a floor is enough
        keep = log_marginal > peak - 4 * DROP
        keep[:-1] |= keep[1:]
        keep[1:] |= keep[:-1]
        points = [p for p, k in zip(points, keep, strict=True) if k]
        grid, log_marginal = grid[keep], log_marginal[keep]
        fine = np.unique(np.concatenate(
            [np.linspace(a, b, 65) for a, b in zip(grid[:-1], grid[1:], strict=True)]
        ))  # fmt: skip
        log_density = CubicSpline(grid, np.maximum(log_marginal - peak, -4 * DROP))(fine)
        density = np.exp(np.minimum(log_density, 2.0))
        density /= np.trapezoid(density, fine)
        parts = (
            np.stack([getattr(p, name) for p in points])
            for name in ("mode", "factor", "intercept", "tilt")
        )
        return cls(fine, density, *(CubicSpline(grid, part) for part in parts))

    def draw(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """Sigma, g and log density of 2^m >= n draws, and the solved intercepts to start from."""
        k = self.mode(0.0).size
        sobol = qmc.Sobol(k + 2, scramble=True, rng=rng)
        u = sobol.random_base2(max(int(np.ceil(np.log2(n))), 6))
        u = np.clip(u, 1e-12, 1 - 1e-12)
        width = np.diff(self.sigmas)
        left, right = self.density[:-1], self.density[1:]
        edges = np.append(0.0, np.cumsum(0.5 * (left + right) * width))
        edges /= edges[-1]
        i = np.clip(np.searchsorted(edges, u[:, 0], side="right") - 1, 0, len(width) - 1)
        # solve the quadratic of a linear density inside the interval
        rest = np.maximum(u[:, 0] - edges[i], 0.0)
        slope = (right[i] - left[i]) / width[i]
        root = np.sqrt(left[i] ** 2 + 2 * slope * rest)
        s = self.sigmas[i] + np.minimum(2 * rest / np.maximum(left[i] + root, 1e-300), width[i])
        log_q = np.log(np.interp(s, self.sigmas, self.density))
        z = ndtri(u[:, 1 : k + 1])
        chi = chi2.ppf(u[:, k + 1], DF) / DF
        z /= np.sqrt(chi)[:, None]
        factor = self.factor(s)
        move = np.einsum("ijk,ik->ij", factor, z)
        log_q += (
            gammaln((DF + k) / 2) - gammaln(DF / 2) - 0.5 * k * np.log(DF * np.pi)
            - 0.5 * (DF + k) * np.log1p((z**2).sum(axis=1) / DF)
            - np.log(np.abs(np.einsum("ijj->ij", factor))).sum(axis=1)
        )  # fmt: skip
        intercept = self.intercept(s) + (self.tilt(s) * move).sum(axis=1)
        return s, self.mode(s) + move, log_q, intercept


# --- weights --------------------------------------------------------------------------------------


def _log_target(problem: Problem, thetas: np.ndarray) -> np.ndarray:
    """Log posterior density, in the free coefficients and sigma, of draws on the original scale."""
    columns, n = problem.rows.columns, problem.rows.n_obs
    p, q, law = problem.p, problem.q, problem.unobservable
    assert problem.alpha is not None
    alpha = problem.alpha

    def chunk(start: int) -> np.ndarray:
        some = thetas[start : start + _CHUNK]
        sums = np.zeros(len(some))
        implied = np.zeros((2, len(some), len(problem.prevalence)))
        for first in range(0, n, BLOCK):
            block = {name: c[first : first + BLOCK] for name, c in columns.items()}
            a = some[:, :p] @ block["X"].T
            d = some[:, p : p + q] @ block["W"].T
            for i, s in enumerate(some[:, p + q]):
                sums[i] += ker.values(block["code"], a[i], d[i], s, alpha, law) @ block["counts"]
                if problem.prevalence:
                    implied[:, i] += ker.levels(a[i], block["prevalence"], s, law)
        for i, theta in enumerate(some):
            sums[i] += log_prior(problem, theta)[0]
            for j, term in enumerate(problem.prevalence):
                m, slope = implied[:, i, j]
                sums[i] += -np.log(slope) if term.hard else term.density(m)[0]
        return sums

    return np.concatenate(list(each(chunk, range(0, len(thetas), _CHUNK))))


def smooth_weights(log_ratios: np.ndarray) -> tuple[np.ndarray, float]:
    """Pareto-smoothed, normalised log weights and k-hat of log importance ratios, shape (S,)."""
    from arviz_stats.base import array_stats

    # psislw takes minus the log ratios, as its other callers have log likelihoods
    log_weights, khat = array_stats.psislw(-np.asarray(log_ratios, dtype=float))
    log_weights = np.asarray(log_weights) - np.logaddexp.reduce(log_weights)
    return log_weights, float(khat)


def fit_grid(problem: Problem, n_draws: int, rng: np.random.Generator) -> GridDraws:
    """Sample the posterior on a grid of sigmas.

    Parameters
    ----------
    problem : Problem
        With alpha given and without deciders.
    n_draws : int
        Rounded up to a power of 2, which Sobol points need, and at least 64.
    rng : numpy.random.Generator

    Returns
    -------
    GridDraws
        `ok` is False, and `reason` says why, when the draws must not be used.

    Raises
    ------
    DataError
        When alpha is to be inferred or there are deciders.
    """
    if problem.alpha is None or problem.deciders is not None:
        what = "alpha is to be inferred" if problem.alpha is None else "there are deciders"
        raise DataError(
            f"Expected a model with alpha given and without deciders for the sigma grid, but "
            f'{what}. Use method="nuts".'
        )
    with blas_limit(1):  # many small matrices
        return _fit(problem, n_draws, rng)


def _fit(problem: Problem, n_draws: int, rng: np.random.Generator) -> GridDraws:
    empty = np.empty((0, problem.n_theta)), np.empty(0)
    try:
        points = _build(problem)
    except ConvergenceError as error:
        return GridDraws(*empty, np.inf, 0.0, ok=False, reason=str(error))
    checks: dict[str, Any] = {
        "n_points": len(points), "n_evaluations": sum(p.evaluations for p in points),
        "sigma_peak": max(points, key=lambda p: p.log_marginal).s, "sigma_end": points[-1].s,
        "n_rows": len(problem.X),
    }  # fmt: skip
    s, g, log_q, intercepts = _Proposal.of(points).draw(n_draws, rng)
    k = np.array([problem.scale(one)[0] for one in s])
    x = _centre(problem, s, k[:, None] * g, -1.0)
    if problem.hard is not None:
        theta = np.column_stack([intercepts, x, s])
        try:
            theta[:, 0] = list(each(lambda row: solve_intercept(problem, row), list(theta)))
        except ConvergenceError as error:
            return GridDraws(*empty, np.inf, 0.0, checks, False, str(error))
    else:
        theta = np.column_stack([x, s])
    log_ratios = _log_target(problem, theta) - log_q + x.shape[1] * np.log(k)
    draws = GridDraws(theta, log_ratios, np.inf, 0.0, checks)
    return _judge(draws, log_ratios)


def _judge(draws: GridDraws, log_ratios: np.ndarray) -> GridDraws:
    """Smooth the weights and say whether they can be used."""
    finite = np.isfinite(log_ratios)
    if not finite.all():
        return replace(
            draws, ok=False,
            reason=f"{int((~finite).sum())} of {len(finite)} importance weights are not finite",
        )  # fmt: skip
    log_weights, khat = smooth_weights(log_ratios)
    ess = float(1.0 / np.exp(2 * log_weights).sum())
    reason = ""
    if khat > K_HAT:
        reason = f"k-hat of the importance weights is {khat:.2f}, above {K_HAT:g}"
    elif ess < ESS_SHARE * len(log_weights):
        reason = f"the effective sample size is {ess:.0f} of {len(log_weights)} draws, below half"
    return replace(draws, log_weights=log_weights, khat=khat, ess=ess, ok=not reason, reason=reason)
