r"""The stages of a deconfounded reward: nuisances, what is subtracted, the reward model, and noise.

Every method subtracts ``gamma * (C - mean C)`` from the outcome and regresses what is left on the
text; methods differ in gamma alone. Ignoring the confounder is gamma = 0; residualising the outcome
is its slope on C; a score forced to be uncorrelated with C is two-stage least squares of the
outcome on C with the text as instrument.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import linalg
from sklearn.base import clone

from causalrm.core.blocks import Block, Rows, length
from causalrm.core.errors import IdentificationWarning, warn
from causalrm.core.inference import clustered
from causalrm.core.random import seed_int
from causalrm.deconfound._kernels import solve
from causalrm.deconfound.folds import FOLD, Columns, Regressors, matrix_of
from causalrm.deconfound.linear_effect import LinearEffect
from causalrm.deconfound.linear_nuisance import (
    Nuisance,
    partial_out,
    residuals_of,
    targets_of,
    to_raw,
)

NONE = Columns((), ())


# --------------------------------------------------------------------------- nuisances


def without_controls(nuisance: Nuisance) -> Nuisance:
    """The same with nothing but the mean taken from the targets, for plain two-stage regression."""
    r = len(nuisance.mean)
    empty = replace(nuisance, controls=NONE, terms=("Intercept", *nuisance.terms[-r:]))
    coef = np.broadcast_to(nuisance.mean[None, :, None], (nuisance.n_folds, r, 1))
    share = (nuisance.weight_sum / nuisance.weight_sum.sum())[:, None, None]
    return replace(empty, coef=coef, products=share * nuisance.centred)


def seeded(learner: Any, generator: np.random.Generator) -> Any:
    """An unfitted copy of a scikit-learn estimator, with a seed wherever it takes one."""
    fresh = clone(learner)
    names = [k for k in fresh.get_params() if k == "random_state" or k.endswith("__random_state")]
    return fresh.set_params(**{name: seed_int(generator) for name in names})


def fit_learner(learner: Any, x: np.ndarray, y: np.ndarray, w: np.ndarray | None) -> Any:
    """Fit, with weights where there are some; a pipeline passes them to its last step."""
    steps = getattr(learner, "steps", None)
    name = f"{steps[-1][0]}__sample_weight" if steps else "sample_weight"
    return learner.fit(x, y, **({} if w is None else {name: w}))


class near_singular:
    """Say once, in the package's own words, that learners met systems that are nearly singular.

    A class, because a warning out of a generator would be issued in contextlib's file.
    """

    def __init__(self, log: list[str]) -> None:
        self._log, self._caught = log, warnings.catch_warnings(record=True)

    def __enter__(self) -> None:
        self._seen = self._caught.__enter__()
        warnings.simplefilter("always", linalg.LinAlgWarning)

    def __exit__(self, *error: Any) -> None:
        self._caught.__exit__(*error)
        about = [w for w in self._seen or () if issubclass(w.category, linalg.LinAlgWarning)]
        for other in self._seen or ():
            if other not in about:
                warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
        if about:
            warn(
                "A nuisance model is barely identified: covariates nearly determine one another or "
                "the treatment, or a rare level is absent from a fold. Its predictions were taken "
                "as they are; combine rare levels, rescale outliers, or give a penalised nuisance.",
                IdentificationWarning,
                self._log,
            )


def grams(x: np.ndarray, targets: np.ndarray, fold: np.ndarray, w: np.ndarray | None) -> np.ndarray:
    """Cross products (K, s, s) within each fold of intercept, features (n, p), targets (r, n)."""
    columns = np.vstack([np.ones(len(x)), x.T, targets])
    weighted = columns if w is None else columns * w
    return np.stack(
        [weighted[:, fold == f] @ columns[:, fold == f].T for f in range(int(fold.max()) + 1)]
    )


def _path(gram: np.ndarray, p: int, grid: np.ndarray) -> np.ndarray:
    """Ridge coefficients (L, 1 + p, r) for every penalty of the grid, in the units of the data."""
    mean = gram[0] / gram[0, 0]
    x, v = slice(1, 1 + p), slice(1 + p, None)
    centred = gram / gram[0, 0] - np.outer(mean, mean)
    variance = np.diag(centred)[x]
    constant = variance <= 1e-12 * np.diag(gram)[x] / gram[0, 0]
    unit = np.where(constant, 0.0, 1.0 / np.sqrt(np.where(constant, 1.0, variance)))
    values, vectors = linalg.eigh(centred[x, x] * np.outer(unit, unit))
    along = vectors.T @ (centred[x, v] * unit[:, None])
    # Directions in which features do not vary take no part, even without a penalty.
    size = np.maximum(values, 0.0)[None, :] + grid[:, None]
    size = np.where(values > 1e-10 * max(values[-1], 1e-300), size, np.inf)
    out = np.empty((len(grid), 1 + p, along.shape[1]))
    out[:, 1:] = unit[:, None] * (vectors @ (along[None] / size[:, :, None]))
    out[:, 0] = mean[v] - np.einsum("p,lpr->lr", mean[x], out[:, 1:])
    return out


def chosen_ridge(gram: np.ndarray, p: int, grid: np.ndarray) -> np.ndarray:
    """The penalty of least squared error over held-out folds, for each target; shape (r,).

    As whole folds are held out, rows of one cluster never speak for one another.
    """
    if len(grid) == 1:
        return np.full(gram.shape[1] - 1 - p, grid[0])
    total, x, v = gram.sum(axis=0), slice(0, 1 + p), slice(1 + p, None)
    loss = np.zeros((len(grid), gram.shape[1] - 1 - p))
    for g in gram:
        b = _path(total - g, p, grid)
        loss += np.diag(g[v, v]) - 2 * np.einsum("lpr,pr->lr", b, g[x, v])
        loss += np.einsum("lpr,pq,lqr->lr", b, g[x, x], b, optimize=True)
    return np.asarray(grid[loss.argmin(axis=0)])


@dataclass(frozen=True)
class CrossFit:
    """Out-of-fold predictions by any learner, from features that each fold computes for itself.

    Attributes
    ----------
    features : callable
        (rows to learn from, a boolean array) -> features of all rows (n, p).
    learner : scikit-learn regressor or None
        None is ridge regression.
    grid : ndarray
        Penalties among which ridge regression chooses by folds inside the fold.
    fold : ndarray of int of shape (n,)
    weights : ndarray of shape (n,) or None
    """

    features: Callable[[np.ndarray], np.ndarray]
    learner: Any
    grid: np.ndarray
    fold: np.ndarray
    weights: np.ndarray | None

    def predict(self, targets: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Out-of-fold predictions (r, n) of targets (r, n)."""
        out = np.empty(targets.shape)
        for f in range(int(self.fold.max()) + 1):
            own = self.fold == f
            x = self.features(~own)
            if self.learner is None:
                gram = np.delete(grams(x, targets, self.fold, self.weights), f, axis=0)
                ridge = chosen_ridge(gram, x.shape[1], self.grid)
                total = gram.sum(axis=0)
                for j, value in enumerate(ridge):
                    b = _path(total, x.shape[1], np.array([value]))[0, :, j]
                    out[j, own] = x[own] @ b[1:] + b[0]
                continue
            w = None if self.weights is None else self.weights[~own]
            for j, y in enumerate(targets):
                model = fit_learner(seeded(self.learner, generator), x[~own], y[~own], w)
                out[j, own] = model.predict(x[own])
        return out

    def without(self, targets: np.ndarray, codes: np.ndarray, n_groups: int) -> np.ndarray:
        """Cross products (G, r, r) of out-of-fold residuals, were each group of rows left out.

        Both of the residuals that are summed and of the rows that ridge regressions learn from;
        encoders and penalties stay as they are.
        """
        r = len(targets)
        out = np.zeros((n_groups, r, r))
        weights = np.ones(targets.shape[1]) if self.weights is None else self.weights
        for f in range(int(self.fold.max()) + 1):
            own = self.fold == f
            x = self.features(~own)
            gram = np.delete(grams(x, targets, self.fold, self.weights), f, axis=0)
            ridge = chosen_ridge(gram, x.shape[1], self.grid)
            w, groups = weights[~own], codes[~own]
            share = w / w.sum()
            x = x - share @ x[~own]
            sd = np.sqrt(share @ x[~own] ** 2)
            x = np.column_stack([np.ones(len(x)), x / np.where(sd > 1e-9, sd, np.inf)])
            rest, mine = x[~own], x[own]
            inner = rest.T @ (rest * w[:, None])
            left = np.empty((n_groups, r, len(mine)))
            for value in np.unique(ridge):
                same = ridge == value
                factor = linalg.cho_factor(
                    inner + np.diag(np.r_[0.0, np.full(x.shape[1] - 1, value * w.sum() + 1e-9)])
                )
                inverse = linalg.cho_solve(factor, rest.T)  # (1 + p, rows)
                b = inverse @ (targets[same][:, ~own] * w).T
                error = targets[same][:, ~own].T - rest @ b
                left[:, same] = targets[same][:, own] - (mine @ b).T
                for g in np.unique(groups):
                    i = np.flatnonzero(groups == g)
                    hat = np.eye(len(i)) - rest[i] @ inverse[:, i] * w[i]
                    gone = linalg.solve(hat, error[i])
                    left[g][same] += (mine @ (inverse[:, i] @ (w[i, None] * gone))).T
            for g in range(n_groups):
                v = left[g][:, codes[own] != g]
                out[g] += (v * weights[own][codes[own] != g]) @ v.T
        return out

    def with_input(
        self, y: np.ndarray, c: np.ndarray, generator: np.random.Generator
    ) -> np.ndarray:
        """Predictions of y from features and columns c (q, n), and these averaged over c; (2, n).

        The average is over a hundred of the rows that the learner learnt from.
        """
        out = np.empty((2, len(y)))
        for f in range(int(self.fold.max()) + 1):
            own = self.fold == f
            x = self.features(~own)
            w = None if self.weights is None else self.weights[~own]
            model = seeded(self.learner, generator)
            fit_learner(model, np.column_stack([x, c.T])[~own], y[~own], w)
            out[0, own] = model.predict(np.column_stack([x[own], c[:, own].T]))
            out[1, own] = marginal(model, x[own], draws_of(c[:, ~own], w, generator))
        return out


def draws_of(c: np.ndarray, w: np.ndarray | None, generator: np.random.Generator) -> np.ndarray:
    """A hundred rows of columns (q, n)."""
    p = None if w is None else w / w.sum()
    return np.asarray(c[:, generator.choice(c.shape[1], 100, p=p)])


def marginal(model: Any, x: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Predictions at features x, averaged over draws (q, m) of the columns beside them."""
    total = np.zeros(len(x))
    for draw in draws.T:
        total += model.predict(np.column_stack([x, np.tile(draw, (len(x), 1))]))
    return np.asarray(total / draws.shape[1])


def stacked_columns(rows: Rows, read: Callable[[Block], np.ndarray]) -> np.ndarray:
    """What `read` gives for all rows held in memory, (k, n)."""
    return np.concatenate([read(part) for _, part in rows.parts()], axis=-1)


def from_predictions(
    rows: Rows, fit: Callable[[np.ndarray], np.ndarray], **roles: Any
) -> tuple[Rows, Nuisance]:
    """Nuisances of any learner in the form of linear ones: a prediction is its target's control.

    Parameters
    ----------
    rows : Rows
        In memory, from `with_folds`.
    fit : callable
        Targets (r, n) to out-of-fold predictions (r, n).
    **roles
        As `partial_out` takes them, without `controls`.
    """
    plain = partial_out(rows, controls=NONE, ridge=1.0, **roles)
    targets = stacked_columns(rows, lambda block: targets_of(block, plain))
    r = len(targets)
    names = tuple(f"(prediction {j})" for j in range(r))
    predictions = fit(targets)
    rows = Rows({**rows.columns, **dict(zip(names, predictions, strict=True))}, rows.n_obs)
    coef = np.tile(np.column_stack([np.zeros(r), np.eye(r)]), (plain.n_folds, 1, 1))
    left = targets - predictions
    w = 1.0 if plain.weights is None else rows.columns[plain.weights]
    products = np.stack(
        [(left * w * (rows.columns[FOLD] == f)) @ left.T for f in range(plain.n_folds)]
    )
    terms = ("Intercept", *names, *plain.terms[1:])
    nuisance = replace(
        plain, controls=Columns(names, names), terms=terms, coef=coef, products=products
    )
    return rows, nuisance


# --------------------------------------------------------------------------- gamma


@dataclass(frozen=True)
class Gamma:
    """What is subtracted per unit of the confounders, and each row's influence on it.

    The influence of a row with instruments z and error e is ``bread @ (z * w * e)``. For `kind`
    "residuals" they are those of `nuisance`; for "raw" z is the confounders about their means; for
    "fitted" what the text predicts of them; for "all" z is intercept, controls and confounders.
    """

    kind: str
    nuisance: Nuisance
    theta: np.ndarray
    bread: np.ndarray
    beta: np.ndarray | None = None

    def influence(self, block: Block) -> np.ndarray:
        """Influence of each row of a block, (q, n)."""
        u, _, e = self._moments(block)
        return np.asarray(u * e)

    def with_slopes(self, block: Block) -> np.ndarray:
        """Influence, and below it by how much it falls when gamma rises, (q + q * q, n)."""
        u, d, e = self._moments(block)
        slopes = (u[:, None] * d).reshape(-1, u.shape[1])
        return np.concatenate([u * e, slopes])

    def _moments(self, block: Block) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Instruments times bread, and weighted: confounders as the error has them, and errors."""
        fit = self.nuisance
        v, w = residuals_of(block, fit)
        d, z, y = v[fit.d], v[fit.z], v[-1]
        if self.kind != "residuals":
            raw = targets_of(block, fit) - fit.mean[:, None]
            z = raw[fit.d] - d if self.kind == "fitted" else raw[fit.d]
            d, y = raw[fit.d], raw[-1]
        e = y - self.theta @ d
        if self.kind == "all":
            assert self.beta is not None
            x = matrix_of(fit.controls, block, length(block))
            z = np.concatenate([np.ones((1, len(e))), x, z])
            e = e - self.beta[1:] @ x - self.beta[0]
        u = self.bread @ z
        if self.kind == "all":  # what intercept and controls leave of the confounders
            d = solve(self.bread[:, -fit.q :], u)
        return u, w * d, w * e


def _fitted_products(block: Block, fit: Nuisance) -> tuple[np.ndarray, np.ndarray]:
    v, w = residuals_of(block, fit)
    raw = targets_of(block, fit) - fit.mean[:, None]
    m = (raw[fit.d] - v[fit.d]) * w
    return m @ raw[fit.d].T, m @ raw[-1]


def gamma_of(
    method: str, rows: Rows, fit: Nuisance, effect: LinearEffect | None, ridge: float
) -> Gamma:
    """Gamma of a method.

    Parameters
    ----------
    method : str
    rows : Rows
    fit : Nuisance
        That of "iv" and "plr" for these, else the one with the text.
    effect : LinearEffect or None
        Of `fit`, for "iv" and "plr".
    ridge : float
        Penalty of "input", as in `partial_out`.
    """
    q = fit.q
    if method == "ignore":
        return Gamma("raw", fit, np.zeros(q), np.zeros((q, q)))
    if method == "residualise":
        bread = _inverse(fit.centred[fit.d, fit.d], fit)
        return Gamma("raw", fit, bread @ fit.centred[fit.d, -1], bread)
    if method == "invariance":
        mc, my = rows.total(_fitted_products, fit)
        bread = _inverse(mc, fit)
        return Gamma("fitted", fit, bread @ my, bread)
    if method in ("joint", "input"):
        return jointly(fit, ridge)
    assert effect is not None
    return Gamma("residuals", fit, effect.theta, effect.bread)


def _inverse(matrix: np.ndarray, fit: Nuisance) -> np.ndarray:
    """Inverse of cross products of confounders, in units of their standard deviations."""
    unit = 1.0 / np.sqrt(np.diag(fit.centred)[fit.d])
    inner = solve(matrix * np.outer(unit, unit), np.eye(fit.q))
    return np.asarray(inner * np.outer(unit, unit))


def jointly(fit: Nuisance, ridge: float) -> Gamma:
    """Least squares on intercept, controls and confounders at once."""
    p, q = fit.p, fit.q
    x = slice(0, 1 + p + q)
    total = fit.gram.sum(axis=0)
    inner = penalised(total[x, x], ridge)
    both = linalg.solve(inner, total[x, -1], assume_a="pos")
    unit = fit.scale[x] / fit.scale[-1]
    raw = both * unit
    d = slice(1 + p, 1 + p + q)
    # Raw coefficients are T times those in units; confounders are taken about their means here.
    t = to_raw(fit.shift[x], fit.scale[x])
    t[0, d] += fit.mean[fit.d] * fit.scale[d]
    bread = (t @ linalg.inv(inner) @ t.T)[d]
    beta = raw[: 1 + p].copy()
    beta[0] = (
        both[0] / fit.scale[-1] + fit.shift[-1] - fit.mean[-1]
        - raw[1:] @ fit.shift[x][1:] + raw[d] @ fit.mean[fit.d]
    )  # fmt: skip
    return Gamma("all", fit, raw[d], bread, beta)


def penalised(gram: np.ndarray, ridge: float) -> np.ndarray:
    """Cross products of intercept and columns, with the penalty of `partial_out` on the latter."""
    weight = gram[0, 0]
    spread = np.diag(gram)[1:] / weight - (gram[0, 1:] / weight) ** 2
    out = gram.copy()
    constant = spread <= 1e-12 * np.diag(gram)[1:] / weight
    out[np.diag_indices(len(out))] += ridge * weight * np.r_[0.0, np.where(constant, 1.0, spread)]
    return out


# --------------------------------------------------------------------------- reward model


@dataclass(frozen=True)
class Line:
    """A linear reward model, and its covariance with gamma by stacked moments.

    Attributes
    ----------
    controls : Columns
    gamma : Gamma
    coef : ndarray of shape (1 + p,)
    bread : ndarray of shape (1 + p, 1 + p)
    through : ndarray of shape (1 + p, q)
        How much the coefficients fall when gamma rises.
    total_weight : float
    """

    controls: Regressors
    gamma: Gamma
    coef: np.ndarray
    bread: np.ndarray
    through: np.ndarray
    total_weight: float

    def influence(self, block: Block) -> np.ndarray:
        """Influence of each row on gamma and the coefficients, (q + 1 + p, n)."""
        fit, theta = self.gamma.nuisance, self.gamma.theta
        own = self.gamma.influence(block)
        raw = targets_of(block, fit)
        n = raw.shape[1]
        w = np.ones(1) if fit.weights is None else np.asarray(block[fit.weights], dtype=float)
        x = np.concatenate([np.ones((1, n)), matrix_of(self.controls, block, n)])
        moved = theta @ (raw[fit.d] - fit.mean[fit.d, None])
        e = raw[-1] - moved - self.coef @ x
        beta = self.bread @ (x * (w * e)) - self.through @ own
        beta[0] += moved * w / self.total_weight  # the mean of the confounders is estimated too
        return np.concatenate([own, beta])


def covariances(
    rows: Rows,
    influence: Callable[[Block], np.ndarray],
    sums: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """Covariances: "robust" from the influence of rows, "cluster" from sums (G, k) of clusters."""
    out = {"robust": rows.total(_squared, influence)[0]}
    if sums is not None:
        out["cluster"] = clustered(sums)
    return out


def _squared(block: Block, influence: Callable[[Block], np.ndarray]) -> tuple[np.ndarray]:
    found = influence(block)
    return (found @ found.T,)


def reward_line(fit: Nuisance, gamma: Gamma, ridge: float) -> Line:
    """Regress the outcome less ``gamma * (C - mean C)`` on intercept and controls of `fit`."""
    p = fit.p
    x, d = slice(0, 1 + p), slice(1 + p, 1 + p + fit.q)
    total = fit.gram.sum(axis=0)
    unit = to_raw(fit.shift[x], fit.scale[x])
    inner = unit @ linalg.inv(penalised(total[x, x], ridge))
    # Regressions of the outcome and of the confounders about their means.
    on_y = inner @ (total[x, -1] / fit.scale[-1])
    on_y[0] += fit.shift[-1]
    on_c = inner @ (total[x, d] / fit.scale[d])
    on_c[0] += fit.shift[d] - fit.mean[fit.d]
    coef = on_y - on_c @ gamma.theta
    return Line(fit.controls, gamma, coef, inner @ unit.T, on_c, float(fit.weight_sum.sum()))


def own_rewards(rows: Rows, fit: Nuisance, theta: np.ndarray) -> np.ndarray:
    """Out-of-fold values of the reward model, (n,): what the nuisances say of outcome and C."""

    def read(block: Block) -> np.ndarray:
        out = targets_of(block, fit) - residuals_of(block, fit)[0]
        return np.asarray(out[-1] - theta @ (out[fit.d] - fit.mean[fit.d, None]))

    return stacked_columns(rows, read)
