"""Fit of a linear score to differences of features, with the covariances of its coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import linalg, sparse, special
from scipy.sparse.linalg import LinearOperator, cg

from causalrm.core.blocks import Block, Rows
from causalrm.core.errors import (
    ConvergenceWarning,
    DataError,
    IdentificationError,
    warn,
)
from causalrm.core.inference import condition_number, invert_information, sandwich
from causalrm.core.linear import dependent_columns
from causalrm.core.optimize import maximize
from causalrm.core.parallel import blas_limit
from causalrm.preference import _kernels_reward as k
from causalrm.preference.base import check_clusters

Matrix = Any  # an array, or a CSR array, of rows of features
LOSSES = ("bt", "margin", "scaled", "regression")

_NARROW = 64  # columns up to which a plain loop beats BLAS
_WIDE = 2_000  # penalised columns from which on no Hessian is formed
_SEPARATED = 1e-5  # curvature that is left along a direction, as a share of that at zero


@dataclass(frozen=True)
class DifferenceFit:
    """Where a fit on differences ended.

    Attributes
    ----------
    beta : ndarray of shape (p,)
    covariances : dict of str to ndarray of shape (p, p)
        "model", "robust", and "cluster" where clusters were given; empty where there are too
        many columns for them.
    value : float
        Minus the loss, without the penalty; for the squared loss the Gaussian log-likelihood.
    n_obs, n_ties : int
        Rows with a weight above zero, and the ties among them.
    n_clusters : int or None
    condition : float
        Condition number of the penalised information, scaled to unit diagonal.
    effective : float
        Effective number of parameters: p, less what a penalty takes.
    converged : bool
    iterations : int
    """

    beta: np.ndarray
    covariances: dict[str, np.ndarray]
    value: float
    n_obs: int
    n_ties: int
    n_clusters: int | None
    condition: float
    effective: float
    converged: bool
    iterations: int


class Differences:
    """Rows of differences, ready for sums: the losses come down to y, margin and weight.

    Parameters
    ----------
    d : ndarray or CSR array of shape (n, p)
    y : ndarray of shape (n,)
        Outcomes in [0, 1]; for the squared loss any target.
    margin, w : ndarray of shape (n,)
    squared : bool
    """

    def __init__(self, d: Matrix, y: np.ndarray, margin: np.ndarray, w: np.ndarray, squared: bool):
        self.d, self.y, self.margin, self.w, self.squared = d, y, margin, w, squared
        columns: dict[str, Any] = {"y": y, "m": margin, "w": w}
        if sparse.issparse(d):
            columns |= {"start": d.indptr[:-1], "stop": d.indptr[1:]}
        else:
            columns["x"] = d
        self._rows = Rows(columns, len(y))

    @property
    def p(self) -> int:
        """Number of columns."""
        return int(self.d.shape[1])

    def _sums(self, block: Block, beta: np.ndarray, squared: bool, outer: bool) -> tuple[Any, ...]:
        row = (block["y"], block["m"], block["w"])
        if sparse.issparse(self.d):
            return k.sparse_pass(
                self.d.data, self.d.indices, block["start"], block["stop"], *row, beta, squared,
                outer,
            )  # fmt: skip
        x = block["x"]
        if self.p <= _NARROW:
            return k.dense_pass(x, *row, beta, squared, outer)
        value, g, h = k.loss_rows(x @ beta, *row, squared)
        z = x * (np.abs(g) if outer else np.sqrt(-h))[:, None]
        return value, g @ x, z.T @ z if outer else -(z.T @ z)  # of one array: half the work

    def sums(self, beta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """Value, score and Hessian; the fourth is what `maximize` keeps and is not needed."""
        return *self._rows.total(self._sums, beta, self.squared, False), np.empty(0)

    def meat(self, beta: np.ndarray) -> np.ndarray:
        """Sum of the outer products of the rows' scores."""
        return np.asarray(self._rows.total(self._sums, beta, self.squared, True)[2])

    def gram(self) -> np.ndarray:
        """Weighted Gram matrix of the differences."""
        return -np.asarray(self._rows.total(self._sums, np.zeros(self.p), True, False)[2])

    def rows(self, beta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Value, and per row the first and second derivative in the score difference."""
        return k.loss_rows(self.d @ beta, self.y, self.margin, self.w, self.squared)

    def cluster_meat(self, beta: np.ndarray, codes: np.ndarray, n_clusters: int) -> np.ndarray:
        """Sum over clusters of the outer product of their summed scores."""
        g = self.rows(beta)[1]
        place = (codes, np.arange(len(codes)))
        sums = sparse.csr_array((g, place), shape=(n_clusters, len(codes))) @ self.d
        product = sums.T @ sums
        return product.toarray() if sparse.issparse(product) else np.asarray(product)

    def firth(self, beta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """As `sums`, plus half the log determinant of the information (Jeffreys' prior).

        The Hessian leaves the prior out, which costs steps but not accuracy.
        """
        value, score, hessian, none = self.sums(beta)
        try:
            factor = linalg.cholesky(-hessian, lower=True)
        except linalg.LinAlgError:
            return -np.inf, score, hessian, none

        def part(block: Block) -> tuple[np.ndarray]:
            x = block["x"]
            eta = x @ beta
            leverage = (linalg.solve_triangular(factor, x.T, lower=True) ** 2).sum(axis=0)
            z1, z2 = eta - block["m"], -eta - block["m"]
            q1, q2 = special.expit(z1) * special.expit(-z1), special.expit(z2) * special.expit(-z2)
            y = block["y"]  # the curvature is w (y q1 + (1 - y) q2); this is its derivative
            slope = (1.0 - y) * q2 * np.tanh(0.5 * z2) - y * q1 * np.tanh(0.5 * z1)
            return ((0.5 * block["w"] * leverage * slope) @ x,)

        (extra,) = self._rows.total(part)
        return value + float(np.log(np.diag(factor)).sum()), score + extra, hessian, none


def fit_differences(
    d: Matrix,
    outcome: np.ndarray,
    *,
    loss: str = "bt",
    strength: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    cluster: np.ndarray | None = None,
    penalty: float | np.ndarray | str | None = None,
    tie_weight: float = 1.0,
    names: Sequence[str] | None = None,
    log: list[str] | None = None,
) -> DifferenceFit:
    """Fit a linear score to differences of features by a convex Newton method.

    Parameters
    ----------
    d : ndarray or CSR array of shape (n, p)
        Features of a minus features of b.
    outcome : ndarray of shape (n,)
        In [0, 1]: 1 where a is better, 0 where b is, 0.5 for a tie.
    loss : {"bt", "margin", "scaled", "regression"}
    strength : ndarray of shape (n,), optional
        Strength of the preference, at least 0; not used on ties.
    weights : ndarray of shape (n,), optional
        At least 0.
    cluster : ndarray of shape (n,), optional
        Integer codes of clusters.
    penalty : float, ndarray of shape (p,), "firth" or None
        Ridge ``penalty/2 * beta**2`` on the scale of the summed log-likelihood, or half the log
        determinant of the information.
    tie_weight : float
        Weight of ties, in addition to `weights`.
    names : sequence of str, optional
        Names of the columns, for messages.
    log : list of str, optional
        Takes the warnings.

    Returns
    -------
    DifferenceFit

    Raises
    ------
    IdentificationError
        When columns are dependent, or the outcomes are separated, without a penalty.
    """
    names = [f"x{j}" for j in range(d.shape[1])] if names is None else list(names)
    y, margin, w, squared = reduced(outcome, loss, strength, weights, tie_weight)
    used = w > 0
    if not used.any():
        raise DataError(
            f"Expected a pair with a weight above 0, but all {len(w)} have none. Check weights, "
            "strength and tie_weight."
        )
    if not used.all():
        d, y, margin, w = d[used], y[used], margin[used], w[used]
    firth = isinstance(penalty, str)
    if firth and sparse.issparse(d):
        d = d.toarray()
    rows = Differences(d if sparse.issparse(d) else np.ascontiguousarray(d), y, margin, w, squared)
    ridge = np.asarray(0.0 if firth or penalty is None else penalty, dtype=float)
    if ridge.ndim and len(ridge) != rows.p:
        raise DataError(
            f"Expected a penalty for each of the {rows.p} features, or one for all, but saw "
            f"{len(ridge)}."
        )
    ridge = np.broadcast_to(ridge, rows.p)
    ties = int(np.count_nonzero(outcome[used] == 0.5))
    codes, n_clusters = None, None
    if cluster is not None:
        levels, codes = np.unique(cluster[used], return_inverse=True)
        n_clusters = len(levels)
        check_clusters(n_clusters, log)
    if rows.p > _WIDE and (ridge > 0).all():
        with blas_limit(1):
            beta, value, converged, steps = _wide(rows, ridge)
        found = DifferenceFit(
            beta, {}, value, len(y), ties, n_clusters, np.nan, np.nan, converged, steps
        )
        _warn_unless_converged(found, log)
        return found

    free = ridge == 0
    if free.any():
        gram = rows.gram()[np.ix_(free, free)]
        _check_rank(gram, [n for n, f in zip(names, free, strict=True) if f], len(y))
    optimum = maximize(rows.firth if firth else rows.sums, np.zeros(rows.p), ridge=ridge)
    beta = optimum.theta
    if free.any() and not squared and not firth:
        _check_separation(rows, optimum.hessian, free, gram, beta, names)
    information = -optimum.hessian
    if squared:
        scale = max(-2.0 * optimum.value / w.sum(), np.finfo(float).tiny)  # residual variance
        value = -0.5 * w.sum() * (np.log(2 * np.pi * scale) + 1.0)
    else:
        scale, value = 1.0, rows.rows(beta)[0]
    bread = invert_information(information + np.diag(ridge), names)
    effective = float((bread * information).sum())
    factor = len(y) / max(len(y) - effective, 1.0) if squared else 1.0
    covariances = {
        "model": sandwich(bread, information, factor * scale),
        "robust": sandwich(bread, rows.meat(beta), factor),
    }
    if codes is not None and n_clusters is not None:
        meat = rows.cluster_meat(beta, codes, n_clusters)
        covariances["cluster"] = sandwich(bread, meat, n_clusters / (n_clusters - 1))
    found = DifferenceFit(
        beta, covariances, float(value), len(y), ties, n_clusters,
        condition_number(information + np.diag(ridge))[0], effective, optimum.converged,
        optimum.iterations,
    )  # fmt: skip
    _warn_unless_converged(found, log)
    return found


def reduced(
    outcome: np.ndarray,
    loss: str,
    strength: np.ndarray | None,
    weights: np.ndarray | None,
    tie_weight: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Outcome, margin and weight of every row, and whether the loss is squared."""
    tie = outcome == 0.5
    w = np.ones(len(outcome)) if weights is None else np.array(weights, dtype=float)
    w[tie] *= tie_weight
    margin = np.zeros(len(outcome))
    if loss == "regression":
        size = np.ones(len(outcome)) if strength is None else strength
        return (2.0 * outcome - 1.0) * size, margin, w, True
    if loss != "bt" and strength is not None:
        if loss == "margin":
            margin = np.where(tie, 0.0, strength)
        else:
            w = w * np.where(tie, 1.0, strength)
    return np.asarray(outcome, dtype=float), margin, w, False


def _warn_unless_converged(found: DifferenceFit, log: list[str] | None) -> None:
    if not found.converged:
        warn(
            f"The loss was still falling after {found.iterations} steps. Rescale the features, or "
            "raise the penalty.",
            ConvergenceWarning,
            log,
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _check_rank(gram: np.ndarray, names: Sequence[str], n: int) -> None:
    """Refuse columns whose differences are dependent."""
    dependent = dependent_columns(gram)
    if dependent is None:
        return
    involved = [names[j] for j in dependent]
    if len(involved) == 1:
        what = f"{involved[0]} is the same in both answers of every pair"
    else:
        what = f"these are dependent: {_some(involved)}"
    raise IdentificationError(
        f"Expected features whose differences are linearly independent, but of {len(names)} "
        f"features and {n} pairs {what}. Remove features, or give a penalty (such as penalty=1.0)."
    )


def _check_separation(
    rows: Differences,
    hessian: np.ndarray,
    free: np.ndarray,
    gram: np.ndarray,
    beta: np.ndarray,
    names: Sequence[str],
) -> None:
    """Refuse a maximum at infinity: a direction along which no row has any curvature left."""
    h = -rows.rows(beta)[2]
    if (4.0 * h / rows.w).min() > _SEPARATED:
        return
    d = 1.0 / np.sqrt(np.diag(gram))
    unit = d[:, None] * d[None, :]
    least, direction = linalg.eigh(
        -4.0 * hessian[np.ix_(free, free)] * unit, gram * unit, subset_by_index=[0, 0]
    )
    if least[0] > _SEPARATED:
        return
    weight = np.abs(direction[:, 0])
    open_names = [n for n, f in zip(names, free, strict=True) if f]
    involved = [n for n, v in zip(open_names, weight, strict=True) if v > 0.1 * weight.max()]
    raise IdentificationError(
        "Expected outcomes that the features do not predict without error, but a combination of "
        f"{_some(involved)} separates better from worse answers in all pairs in which it varies, "
        "so that its coefficient is infinite. Give a penalty (such as penalty=1.0; "
        'PreferenceRewardModel also takes penalty="firth", which has little bias).'
    )


def _wide(rows: Differences, ridge: np.ndarray) -> tuple[np.ndarray, float, bool, int]:
    """Newton steps by conjugate gradients, for more columns than a Hessian is formed for."""
    d = rows.d
    d2 = d.power(2) if sparse.issparse(d) else d**2
    beta = np.zeros(rows.p)
    value, g, h = rows.rows(beta)

    def penalised(b: np.ndarray, v: float) -> float:
        return v - 0.5 * float(ridge @ b**2)

    for step in range(1, 101):
        score = d.T @ g - ridge * beta
        diagonal = d2.T @ -h + ridge

        def product(v: np.ndarray, h: np.ndarray = h) -> np.ndarray:
            return np.asarray(d.T @ (-h * (d @ v)) + ridge * v)

        hessian = LinearOperator((rows.p, rows.p), matvec=product, dtype=float)
        direction, _ = cg(
            hessian, score, rtol=1e-6, maxiter=1000, M=sparse.diags_array(1.0 / diagonal)
        )
        gain = 0.5 * float(score @ direction)
        if gain <= max(1e-10, 64 * np.finfo(float).eps * (1.0 + abs(value))):
            return beta, value, True, step
        current, size = penalised(beta, value), 1.0
        for _ in range(40):
            trial = beta + size * direction
            value, g, h = rows.rows(trial)
            if penalised(trial, value) >= current:
                break
            size *= 0.25
        beta = trial
    return beta, value, False, step
