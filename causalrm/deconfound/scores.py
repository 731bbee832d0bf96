"""Average effects and their influence functions: one random split, and one function per method."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from scipy import linalg

from causalrm.core.blocks import Rows
from causalrm.core.encoding import Design
from causalrm.core.errors import IdentificationError
from causalrm.core.inference import FEW, by_cluster, clustered
from causalrm.core.linear import least_squares
from causalrm.core.random import seed_int
from causalrm.deconfound.few_clusters import MOST
from causalrm.deconfound.folds import FOLD, Columns, Folds, with_folds
from causalrm.deconfound.jackknife import each_left_out, theta_of
from causalrm.deconfound.learners import LOGISTIC, cross_fit, ess, fitted
from causalrm.deconfound.linear_nuisance import partial_out, residuals


@dataclass(frozen=True)
class Found:
    """One split: the estimate, influences on it and on S, and what describes overlap.

    The influence of a row falls by its `slope` when theta rises; slopes sum to 1. Influences of
    whole clusters, where they were left out, are in `left`.
    """

    theta: float
    influence: np.ndarray
    slope: np.ndarray
    moments: dict[str, Any]
    overlap: dict[str, Any]
    std_errors: dict[str, float]
    left: np.ndarray | None = None

    def without(self, thetas: list[float]) -> Found:
        """The same with the influence of G clusters from the estimates without each."""
        g = len(thetas)
        return replace(self, left=(1 - 1 / g) * (self.theta - np.array(thetas)))

    def by_cluster(self, task: Task, beside: np.ndarray) -> np.ndarray:
        """Influence of the clusters on theta, and sums of what stands `beside` it; (G, 2)."""
        assert task.codes is not None and task.n_clusters is not None
        sums = by_cluster(task.codes, np.stack([self.influence, beside]), task.n_clusters)
        if self.left is not None:
            sums[:, 0] = self.left
        return sums

    def covariances(self, task: Task) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Standard errors by kind, and covariances of the estimate and S by kind."""
        second = self.moments.get("influence", np.zeros_like(self.influence))
        rows = np.stack([self.influence, second])
        joint = {"robust": rows @ rows.T}
        if task.codes is not None:
            joint["cluster"] = clustered(self.by_cluster(task, second))
        errors = {kind: math.sqrt(v[0, 0]) for kind, v in joint.items()} | self.std_errors
        return errors, joint


@dataclass(frozen=True)
class Task:
    """The columns of one analysis as arrays."""

    y: np.ndarray
    d: np.ndarray
    x: np.ndarray  # (n, p), without an intercept
    terms: tuple[str, ...]
    w: np.ndarray  # mean one
    weighted: bool
    att: bool
    learners: Mapping[str, Any]
    clip: float | None
    trim: float | None
    interact: tuple[str, ...]
    codes: np.ndarray | None = None  # of clusters
    n_clusters: int | None = None

    def scale(self, sigma: np.ndarray, nu: np.ndarray) -> dict[str, Any]:
        """Moments of S from the rows' contributions to sigma2 and nu2, with its influence."""
        w, n = self.w, len(self.w)
        sigma2, nu2 = float(np.mean(w * sigma)), float(np.mean(w * nu))
        s = math.sqrt(sigma2 * nu2)
        influence = w * (nu2 * (sigma - sigma2) + sigma2 * (nu - nu2)) / (2 * s * n)
        mean = float(np.mean(w * self.y))
        spread = float(np.mean(w * (self.y - mean) ** 2))
        return {"sigma2": sigma2, "nu2": nu2, "outcome_variance": spread, "influence": influence}


class Names(NamedTuple):
    """The columns of one analysis by name."""

    outcome: str
    treatment: str
    cluster: str | None
    weights: str | None


def one_split(
    method: str, task: Task, rows: Rows, design: Design, names: Names, folds: int,
    generator: np.random.Generator, linear: bool,
) -> Found:  # fmt: skip
    """Estimate once, from one random split where the method needs one."""
    if method in ("difference", "regression"):
        return regression(task)
    if method == "ipw":
        return _left_out(ipw(task, generator), lambda t, _: ipw(t, generator), task)
    cut = Folds(folds, seed_int(generator), names.cluster)
    split = with_folds(rows, cut)
    if method == "aipw":
        fold = split.collect()[FOLD]
        found = aipw(task, fold, generator)
        if not linear:
            return found
        return _left_out(found, lambda t, keep: aipw(t, fold[keep], generator), task)
    if linear:
        confounder = Columns((names.treatment,), (names.treatment,))
        fit = partial_out(
            split, outcome=names.outcome, confounders=confounder, controls=design, n_folds=folds,
            weights=names.weights,
        )  # fmt: skip
        left = residuals(split, fit)
        found = plr(task, left[-1], left[0])
        if names.cluster and task.n_clusters is not None and task.n_clusters <= MOST[0]:
            fold_of = cut.codes({names.cluster: np.arange(task.n_clusters)}, 0)
            each = each_left_out(split, fit, names.cluster, fold_of, 0.0)
            thetas = [float(theta_of("plr", one, 0.0)[0]) for one in each]
            found = found.without(thetas) if len(thetas) == task.n_clusters else found
    else:
        fold, w = split.collect()[FOLD], task.w if task.weighted else None
        y = cross_fit(task.learners["outcome"], task.x, task.y, fold, generator, w)
        d = cross_fit(task.learners["treatment"], task.x, task.d, fold, generator, w)
        found = plr(task, task.y - y, task.d - d)
    if not found.overlap["r2_treatment"] < 1 - 1e-9:
        raise IdentificationError(
            f"Expected a treatment {names.treatment!r} that varies beyond the covariates, but they "
            "determine it. Leave out the covariate that does."
        )
    return found


def _left_out(found: Found, again: Callable[[Task, np.ndarray], Found], task: Task) -> Found:
    """Influence of few clusters by estimating without each."""
    if task.codes is None or task.n_clusters is None or task.n_clusters >= FEW:
        return found
    thetas = []
    for g in range(task.n_clusters):
        keep = task.codes != g
        w = task.w[keep]
        part = replace(task, y=task.y[keep], d=task.d[keep], x=task.x[keep], w=w / w.mean())
        try:
            thetas.append(again(part, keep).theta)
        except IdentificationError:  # the estimate needs every cluster
            return found
    return found.without(thetas)


# --------------------------------------------------------------------------- methods


def regression(task: Task) -> Found:
    """Least squares of the outcome on treatment and covariates."""
    d, w = task.d, task.w
    x = task.x - task.x.mean(axis=0)  # or a large mean looks like an intercept
    n, k = len(d), 2 + x.shape[1]
    places = [task.terms.index(name) for name in task.interact]
    inner = x[:, places]
    base = w * d if task.att else w
    about = inner - (base @ inner) / base.sum()
    design = np.column_stack([d, np.ones(n), x, about * d[:, None]])
    k += len(places)
    if n <= k:
        raise IdentificationError(
            f"Expected more rows than coefficients, but saw {n} rows for {k}. Use fewer covariates."
        )
    names = ["treatment", "Intercept", *task.terms, *(f"treatment:{t}" for t in task.interact)]
    gram = design.T @ (design * w[:, None])
    beta = least_squares(gram, design.T @ (w * task.y), names)
    e = task.y - design @ beta
    bread = least_squares(gram, np.eye(len(names)))
    row = bread[0]
    v = design @ row  # residual treatment over its sum of squares
    leverage = w * np.einsum("ij,jk,ik->i", design, bread, design)
    means = base / base.sum() * (about @ beta[k - len(places) :])  # of the interactions
    influence = w * v * e + means
    hc2 = w * v * e / np.sqrt(np.clip(1 - leverage, 1e-12, None)) + means
    errors = {"HC2": float(np.sqrt(hc2 @ hc2)), "robust": math.sqrt(n / (n - k)) * float(
        np.sqrt(influence @ influence)
    )}  # fmt: skip
    if not task.weighted and not places:
        errors["model"] = math.sqrt(float(e @ e) / (n - k) * row[0])
    nu2 = n * float(w @ v**2)
    moments = task.scale(e**2, 2 * nu2 - (n * v) ** 2)
    spread = float(w @ (d - np.average(d, weights=w)) ** 2)
    overlap = {"r2_treatment": 1 - 1 / (row[0] * spread), "ess": ess(w * v**2)}
    return Found(float(beta[0]), influence, w * v**2 / row[0], moments, overlap, errors)


def _r2(d: np.ndarray, left: np.ndarray, w: np.ndarray) -> float:
    return 1 - float(w @ left**2) / float(w @ (d - np.average(d, weights=w)) ** 2)


def plr(task: Task, y: np.ndarray, v: np.ndarray) -> Found:
    """From out-of-fold residuals of outcome and treatment."""
    w, n = task.w, len(v)
    size = float(w @ v**2)
    theta = float(w @ (v * y)) / size
    e = y - theta * v
    nu2 = n / size
    moments = task.scale(e**2, 2 * nu2 - v**2 * nu2**2)
    quantiles = np.quantile(v**2, [0.05, 0.5, 0.95]).tolist()
    overlap = {
        "r2_treatment": _r2(task.d, v, w), "ess": ess(w * v**2),
        "residual_variance_quantiles": dict(zip(("5%", "50%", "95%"), quantiles, strict=True)),
    }  # fmt: skip
    return Found(theta, w * v * e / size, w * v**2 / size, moments, overlap, {})


def _bounded(task: Task, e: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Propensities, the weights of rows that stay, and overlap; refuses 0 and 1."""
    w = task.w
    seen = {
        arm: np.quantile(e[task.d == a], [0.0, 0.01, 0.5, 0.99, 1.0]).tolist()
        for a, arm in enumerate(("control", "treated"))
    }
    kept = np.ones(len(e), dtype=bool)
    if task.trim is not None:
        kept = (e >= task.trim) & (e <= 1 - task.trim)
        w = w * kept
        w = w / w.mean()
    bound = task.clip or 0.0
    clipped = (e < bound) | (e > 1 - bound)
    e = np.clip(e, bound, 1 - bound)
    bad = kept & ((e >= 1) | ((e <= 0) & (not task.att or task.d == 1)))
    if bad.any():
        raise IdentificationError(
            f"Expected propensities between 0 and 1, but {int(bad.sum())} of {len(e)} rows have 0 "
            f"or 1 (first rows: {np.flatnonzero(bad)[:6].tolist()}). Give trim= or clip=, such as "
            "0.01, a smoother learner, or fewer covariates."
        )
    if not all((w * (task.d == a)).any() for a in (0, 1)):
        raise IdentificationError(
            f"Expected rows of both treatments with propensities within {task.trim} of the ends, "
            "but trimming leaves one only. Lower trim."
        )
    odds = e / np.where(e < 1, 1 - e, 1.0)
    to_one = task.d if task.att else task.d / np.where(e > 0, e, 1.0)
    to_none = (1 - task.d) * (odds if task.att else 1 / np.where(e < 1, 1 - e, 1.0))
    overlap = {
        "propensity": seen, "ess_treated": ess(w * to_one), "ess_control": ess(w * to_none),
        "n_treated": int(task.d.sum()), "n_control": int((1 - task.d).sum()),
        "n_clipped": int((clipped & kept).sum()), "n_trimmed": int((~kept).sum()),
    }  # fmt: skip
    return e, w, overlap


def ipw(task: Task, generator: np.random.Generator) -> Found:
    """Normalised weights from a logistic propensity, whose estimation counts in the influence."""
    n, d = len(task.d), task.d
    learn = np.ones(n, dtype=bool)
    e = fitted(LOGISTIC, task.x, d, learn, generator, task.w if task.weighted else None)(task.x)
    raw = e
    e, w, overlap = _bounded(task, e)
    odds = e / (1 - e)
    # Weights of both arms and their derivatives in the log-odds.
    arms = (
        [(d, 0 * d), ((1 - d) * odds, (1 - d) * odds)]
        if task.att
        else [(d / e, -d * (1 - e) / e), ((1 - d) / (1 - e), (1 - d) * odds)]
    )
    x = np.column_stack([np.ones(n), (task.x - task.x.mean(axis=0)) / _sd(task.x)])
    inside = raw == e  # clipped rows do not move
    score = x * (task.w * (d - raw))[:, None]
    information = x.T @ (x * (task.w * raw * (1 - raw))[:, None])
    theta, influence = 0.0, np.zeros(n)
    for sign, (a, slope) in zip((1.0, -1.0), arms, strict=True):
        size = float(w @ a)
        mean = float(w @ (a * task.y)) / size
        gradient = x.T @ (w * slope * inside * (task.y - mean)) / size
        own = w * a * (task.y - mean) / size
        influence += sign * (own + score @ linalg.solve(information, gradient, assume_a="pos"))
        theta += sign * mean
    return Found(theta, influence, w / n, {}, overlap, {})


def _sd(x: np.ndarray) -> np.ndarray:
    sd = x.std(axis=0)
    return np.asarray(np.where(sd > 0, sd, 1.0))


def aipw(task: Task, fold: np.ndarray, generator: np.random.Generator) -> Found:
    """Augmented inverse probability weighting, with both nuisances cross-fitted."""
    y, d, x = task.y, task.d, task.x
    given = task.w if task.weighted else None
    outcome = task.learners["outcome"]
    m0, m1 = (cross_fit(outcome, x, y, fold, generator, given, d == a) for a in (0, 1))
    e = cross_fit(task.learners["treatment"], x, d, fold, generator, given)
    e, w, overlap = _bounded(task, e)
    odds = e / np.where(e < 1, 1 - e, 1.0)
    if task.att:
        p = float(np.average(d, weights=w))
        a = d / p
        b = (d - (1 - d) * odds) * (y - m0) / p
        alpha = (d - (1 - d) * odds) / p
        m_alpha = d / p * (1 + odds) / p
    else:
        a = np.ones(len(y))
        alpha = d / e - (1 - d) / (1 - e)
        b = m1 - m0 + alpha * (y - np.where(d == 1, m1, m0))
        m_alpha = 1 / e + 1 / (1 - e)
    size = float(w @ a)
    theta = float(w @ b) / size
    error = (y - np.where(d == 1, m1, m0)) ** 2
    nu = 2 * m_alpha - alpha**2
    if float(w @ nu) <= 0:
        nu = alpha**2
    moments = task.scale(error, nu)
    return Found(theta, w * (b - theta * a) / size, w * a / size, moments, overlap, {})
