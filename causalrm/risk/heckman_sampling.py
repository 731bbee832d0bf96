"""Draws from the posterior of a Heckman model: a grid over rho, or PyMC."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from scipy import linalg, stats
from scipy.interpolate import CubicSpline, PchipInterpolator
from scipy.special import ndtri

from causalrm.core.errors import ConvergenceError
from causalrm.core.optimize import maximize
from causalrm.core.random import seed_int
from causalrm.risk.heckman_problem import HeckmanProblem

_DROP = 13.0  # the grid ends where the marginal density is so much below its peak, in logs
_FAR = 8.0  # atanh rho at which rho is 1 - 2e-7
_DF = 30.0
_STEPS = 60


@dataclass(frozen=True, eq=False)
class HeckmanDraws:
    """Equally weighted draws of the coordinates, and what speaks for them.

    Attributes
    ----------
    u : ndarray of shape (chains, draws, n_u)
    stats : dict
        Arrays of shape (chains, draws).
    checks : dict
    reason : str
        Why the draws cannot be used; empty where they can.
    """

    u: np.ndarray
    stats: dict[str, np.ndarray] = field(default_factory=dict)
    checks: dict[str, Any] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True, eq=False)
class _Node:
    z: float
    mode: np.ndarray  # of the other coordinates
    factor: np.ndarray  # lower Cholesky factor of their precision
    height: float  # Laplace's log marginal density


def _node(problem: HeckmanProblem, start: np.ndarray, z: float) -> _Node:
    u = np.append(start, z)
    found = maximize(problem.derivatives, u, hold=(len(u) - 1,), max_iter=80, tol=1e-8)
    if not found.converged:
        raise ConvergenceError(f"no conditional mode at atanh rho = {z:.3g}")
    factor = linalg.cholesky(-found.hessian[:-1, :-1], lower=True)
    return _Node(z, found.theta[:-1], factor, found.value - float(np.log(np.diag(factor)).sum()))


def _walk(problem: HeckmanProblem, first: _Node, step: float, end: float) -> list[_Node]:
    """Nodes from `first` on, until the density has fallen far enough."""
    out, peak = [first], first.height
    while out[-1].height > peak - _DROP and len(out) < _STEPS:
        if abs(out[-1].z - end) < 1e-9:
            break
        z = out[-1].z + step
        z = end if (z - end) * step > 0 else z
        start = out[-1].mode
        if len(out) > 1:  # along the curve of modes
            start = start + (start - out[-2].mode) * (z - out[-1].z) / (out[-1].z - out[-2].z)
        try:
            out.append(_node(problem, start, z))
        except (ConvergenceError, linalg.LinAlgError):
            out.append(_node(problem, out[-1].mode, z))
        peak = max(peak, out[-1].height)
    return out


def _nodes(problem: HeckmanProblem, start: np.ndarray) -> list[_Node]:
    """Nodes over all of atanh rho where the posterior has mass, close where it bends."""
    low, high = (0.0 if problem.sign > 0 else -_FAR), (0.0 if problem.sign < 0 else _FAR)
    z = float(np.clip(start[-1], low + 0.05 * (low == 0), high - 0.05 * (high == 0)))
    # where selection depends on covariates through the outcome, each sign of rho has its own mode
    found: dict[float, _Node] = {}
    for at in {z, -z} if problem.sign == 0 and problem.through.any() else {z}:
        first = _node(problem, start[:-1], at)
        for end, step in ((low, -0.25), (high, 0.25)):
            found |= {node.z: node for node in _walk(problem, first, step, end)}
    nodes: list[_Node] = []
    for at in sorted(found):
        if not nodes or at - nodes[-1].z > 0.02 or at == high:
            nodes.append(found[at])
    peak = max(node.height for node in nodes)
    tall = [n.height > peak - 3 * _DROP for n in nodes]
    nodes = [n for i, n in enumerate(nodes) if any(tall[max(i - 1, 0) : i + 2])]
    i = 0
    while i < len(nodes) - 1 and len(nodes) < 4 * _STEPS:
        a, b = nodes[i], nodes[i + 1]
        shift = float(np.abs(b.factor.T @ (b.mode - a.mode)).max())
        near = max(a.height, b.height) > peak - _DROP
        if near and b.z - a.z > 0.02 and (abs(a.height - b.height) > 2.0 or shift > 2.0):
            nodes.insert(i + 1, _node(problem, 0.5 * (a.mode + b.mode), 0.5 * (a.z + b.z)))
        else:
            i += 1
    return nodes


def sample_grid(
    problem: HeckmanProblem, start: np.ndarray, n_draws: int, rng: np.random.Generator
) -> HeckmanDraws:
    """Draw rho from its marginal density on a grid, the rest given rho, and correct by weights.

    For values of rho Newton's method gives the mode and curvature of the other coordinates; splines
    carry these from value to value. Draws of a Sobol sequence get importance weights from the exact
    density, and Pareto smoothing judges these (Vehtari et al. 2024).

    Parameters
    ----------
    problem : HeckmanProblem
    start : ndarray of shape (n_u,)
    n_draws : int
    rng : numpy.random.Generator
    """
    k = problem.n_u
    try:
        nodes = _nodes(problem, start)
    except (ConvergenceError, linalg.LinAlgError) as error:
        return HeckmanDraws(np.empty((1, 0, k)), reason=f"{error}".split(".")[0])
    at = np.array([node.z for node in nodes])
    modes = CubicSpline(at, np.array([node.mode for node in nodes]))
    factors = CubicSpline(at, np.array([node.factor for node in nodes]))
    fine = np.linspace(at[0], at[-1], 2001)
    height = PchipInterpolator(at, [node.height for node in nodes])(fine)  # never above its nodes
    density = np.exp(height - height.max())
    cumulative = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))])

    points = stats.qmc.Sobol(k + 1, rng=rng).random(n_draws)
    points = np.clip(points, 1e-12, 1 - 1e-12)
    place = points[:, 0] * cumulative[-1]
    i = np.clip(np.searchsorted(cumulative, place, side="right") - 1, 0, len(fine) - 2)
    a, slope, rest = density[i], density[i + 1] - density[i], place - cumulative[i]
    t = 2 * rest / (a + np.sqrt(np.clip(a * a + 2 * slope * rest, 0.0, None)))
    z = fine[i] + np.clip(t, 0.0, 1.0) * (fine[1] - fine[0])
    normal = ndtri(points[:, 2:])
    spread = stats.chi2.ppf(points[:, 1], _DF) / _DF
    x = normal / np.sqrt(spread)[:, None]
    factor = factors(z)
    u = np.empty((n_draws, k))
    log_q = np.log(np.clip(a + t * slope, 1e-300, None))
    log_q += np.log(np.abs(np.diagonal(factor, axis1=1, axis2=2))).sum(axis=1)
    log_q -= 0.5 * (_DF + k - 1) * np.log1p((x * x).sum(axis=1) / _DF)
    for j in range(n_draws):
        u[j, :-1] = linalg.solve_triangular(factor[j], x[j], lower=True, trans="T")
    u[:, :-1] += modes(z)
    u[:, -1] = z

    log_w = problem.values(u) - log_q
    log_w -= log_w.max()
    smooth, khat = pareto_smooth(log_w)
    w = np.exp(smooth - smooth.max())
    w /= w.sum()
    ess = 1.0 / float(w @ w)
    pick = np.searchsorted(np.cumsum(w), (np.arange(n_draws) + rng.random()) / n_draws)
    pick = rng.permutation(np.clip(pick, 0, n_draws - 1))
    ends = {"low": at[0], "high": at[-1]}
    reached = [
        nodes[i].height < height.max() - 0.9 * _DROP or problem.sign * s > 0 or abs(at[i]) == _FAR
        for i, s in ((0, 1), (-1, -1))
    ]
    reason = ""
    if not np.isfinite(log_w).all():
        reason = "an importance weight is not finite"
    elif not all(reached):
        reason = "the grid over rho did not reach the tails"
    elif khat > 0.5:
        reason = f"the Pareto k-hat of the importance weights is {khat:.2f}, above 0.5"
    elif ess < 0.5 * n_draws:
        reason = f"the effective number of draws is {ess:.0f} of {n_draws}"
    return HeckmanDraws(
        u[pick][None],
        {"log_weight": np.log(w[pick])[None]},
        {"khat": khat, "importance_ess": ess, "nodes": len(nodes), "atanh_rho_range": ends},
        reason,
    )


def pareto_smooth(log_weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Pareto-smoothed log weights and their k-hat."""
    from arviz_stats.base import array_stats

    smooth, khat = array_stats.psislw(-log_weights)  # it takes minus the log weights
    return np.asarray(smooth), float(khat)


class Whitening(NamedTuple):
    """The normal approximation as coordinates in which NUTS needs to learn little.

    The last coordinate, z = atanh rho, is a number a, or with a known sign its softplus; the
    others move with z itself, in a line, and are white around it:

        a = start + spread w_last,    u = centre + tilt (z - centre_last) + factor w.
    """

    centre: np.ndarray
    tilt: np.ndarray
    factor: np.ndarray
    start: float
    spread: float
    sign: int

    def place(self, white: Any, softplus: Any, concatenate: Any) -> tuple[Any, Any]:
        """Coordinates of a vector, or of rows of vectors with ``.T``, and a; numpy or PyTensor."""
        a = self.start + self.spread * white[-1]
        z = self.sign * softplus(a) if self.sign else a
        outer = np.multiply.outer if isinstance(white, np.ndarray) else lambda x, y: x * y
        centre = self.centre.reshape(-1, *[1] * (white.ndim - 1))
        own = centre[:-1] + outer(self.tilt, z - self.centre[-1]) + self.factor @ white[:-1]
        return concatenate([own, z[None]]), a


def whitening(problem: HeckmanProblem, start: np.ndarray) -> Whitening:
    """Coordinates at the mode, or near it where that has the wrong sign."""
    hold: tuple[int, ...] = ()
    u = np.array(start)
    found = maximize(problem.derivatives, u, max_iter=100)
    if problem.sign * found.theta[-1] < 0.1 * abs(problem.sign):
        u[-1], hold = 0.25 * problem.sign, (len(u) - 1,)
        found = maximize(problem.derivatives, u, hold=hold, max_iter=100)
    values, vectors = linalg.eigh(-found.hessian)
    half = vectors / np.sqrt(np.maximum(values, 1e-6 * values[-1]))
    cov, z = half @ half.T, float(found.theta[-1])
    tilt = cov[:-1, -1] / cov[-1, -1]
    factor = linalg.cholesky(cov[:-1, :-1] - np.outer(tilt, cov[-1, :-1]), lower=True)
    at, spread = z, math.sqrt(cov[-1, -1])
    if problem.sign:
        size = abs(z)
        at, spread = size + math.log(-math.expm1(-size)), spread / -math.expm1(-size)
    return Whitening(found.theta.copy(), tilt, factor, at, spread, problem.sign)


def pymc_model(problem: HeckmanProblem, terms: dict[str, list[str]], coordinates: Whitening) -> Any:
    """The same posterior as a PyMC model: one white vector, and the parameters made from it."""
    import pymc as pm
    import pytensor.tensor as pt

    like, p = problem.likelihood, problem.p
    first = next(iter(like.rows.parts()))[1]
    y, seen, weight = like.columns(first)
    xs = like.predictors.matrices(first, len(y))
    x, w = (np.asarray(like.predictors.part(xs, i)).T for i in (0, 1))
    inside, outside = np.flatnonzero(seen), np.flatnonzero(seen == 0)

    def log_ndtr(q: Any) -> Any:
        # the branch that is not taken must be finite too, or its gradient is not
        low, high = pt.minimum(q, -1.0), pt.maximum(q, -1.0)
        tail = pt.log(0.5 * pt.erfcx(-low / math.sqrt(2))) - 0.5 * low * low
        return pt.switch(q < -1.0, tail, pt.log1p(-0.5 * pt.erfc(high / math.sqrt(2))))

    with pm.Model(coords=terms) as model:
        white = pm.Flat("white", shape=problem.n_u)
        u, a = coordinates.place(white, pt.softplus, pt.concatenate)
        z, jacobian = u[-1], -pt.softplus(-a) if problem.sign else 0.0
        v = problem.base + pt.dot(problem.basis, u)
        beta, log_sigma = v[:p], v[-2]
        sigma = pm.Deterministic("sigma", pt.exp(log_sigma))
        rho = pm.Deterministic("rho", pt.tanh(z))
        beta = pm.Deterministic("outcome", beta, dims="outcome_term")
        gamma = v[p:-2] + rho / sigma * pt.dot(problem.through, beta)
        gamma = pm.Deterministic("selection", gamma, dims="selection_term")
        internal = pt.dot(like.inverse, pt.concatenate([beta, gamma, pt.stack([log_sigma, z])]))
        e = (y[inside] - pt.dot(x[inside], internal[:p])) / sigma
        index = pt.dot(w, internal[p:-2])
        q = index[inside] * pt.cosh(z) + e * pt.sinh(z)
        rows = pt.sum(weight[inside] * (log_ndtr(q) - 0.5 * e * e - log_sigma))
        pm.Potential("rows", rows + pt.sum(weight[outside] * log_ndtr(-index[outside])))
        known = (pt.dot(problem.directions, v) - problem.centers) / problem.sds
        prior = -0.5 * pt.sum(known * known) - 0.5 * (sigma / problem.sigma_sd) ** 2
        prior += -0.5 * (sigma * rho / problem.covariance_sd) ** 2
        jacobian += 2 * log_sigma - 2 * pt.log(pt.cosh(z))
        pm.Potential("prior", prior + jacobian)
    return model


def sample_nuts(
    problem: HeckmanProblem,
    terms: dict[str, list[str]],
    start: np.ndarray,
    rng: np.random.Generator,
    *,
    draws: int = 1000,
    tune: int = 1000,
    chains: int = 4,
) -> HeckmanDraws:
    """Draw by PyMC's No-U-Turn sampler in the coordinates of the normal approximation."""
    import logging

    import arviz as az
    import pymc as pm

    coordinates = whitening(problem, start)
    model = pymc_model(problem, terms, coordinates)
    quiet = logging.getLogger("pymc")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        found = pm.sample(
            draws, tune=tune, chains=chains, cores=1, model=model, random_seed=seed_int(rng),
            init="jitter+adapt_diag", target_accept=0.95, progressbar=False,
            initvals={"white": np.zeros(problem.n_u)}, compute_convergence_checks=False,
        )  # fmt: skip
    finally:
        quiet.setLevel(level)
    white = found["posterior"]["white"].to_numpy()
    flat, _ = coordinates.place(
        white.reshape(-1, problem.n_u).T, lambda x: np.logaddexp(0.0, x), np.concatenate
    )
    u = flat.T.reshape(white.shape)
    own = found["sample_stats"]
    facts = az.summary(found, var_names=["white"], kind="diagnostics", round_to="none")
    checks = {
        "max_r_hat": float(facts["r_hat"].max()),
        "min_ess_bulk": float(facts["ess_bulk"].min()),
        "min_ess_tail": float(facts["ess_tail"].min()),
        "divergences": int(own["diverging"].to_numpy().sum()),
        "sampler": "PyMC",
    }
    kept = {name: own[name].to_numpy() for name in ("lp", "diverging", "energy")}
    return HeckmanDraws(u, kept, checks)
