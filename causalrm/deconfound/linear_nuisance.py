"""Cross-fitted linear nuisances, in one pass over the rows.

The pass sums the Gram matrix of controls, confounders, instruments and outcome within each fold.
The nuisances that a fold needs come from the Gram matrix of the other folds, which is the total
less the fold's own, and estimates follow from the same matrices. Rows are read in blocks, so that
no more than a block is copied, from memory, parquet files or a Dask collection.

What an estimator calls, in this order: `folds.with_folds`, `partial_out`,
`linear_effect.linear_effect`; `residuals` where it needs numbers per row; `linear_effect.combine`
after repeated splits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import linalg

from causalrm.core.blocks import Block, Rows, length
from causalrm.core.errors import IdentificationError
from causalrm.core.linear import dependent_columns
from causalrm.deconfound import _kernels as k
from causalrm.deconfound.folds import FOLD, Regressors, matrix_of, pieces_of, terms_of

_FEW = 48  # columns up to which tiles beat BLAS


@dataclass(frozen=True)
class Nuisance:
    """Cross-fitted linear regressions of outcome, confounders and instruments on the controls.

    Columns are ordered: intercept, p controls, q confounders, m instruments (none for the
    partially linear model), outcome. The r = q + m + 1 after the controls are the targets.

    Attributes
    ----------
    outcome : str
    controls, confounders : Design or Columns
    instruments : Design, Columns or None
    weights : str or None
    n_obs : int
    n_folds : int
    terms : tuple of str
        Names of all s = 1 + p + r columns.
    gram : ndarray of shape (K, s, s)
        Weighted cross products within each fold, in units in which column j is
        ``(column - shift[j]) * scale[j]``. Their sum gives every linear regression among the
        columns, such as the reward model, without another pass.
    shift, scale : ndarray of shape (s,)
    coef : ndarray of shape (K, r, 1 + p)
        Nuisance coefficients for the rows of each fold, from the rows of all others, in the units
        of the data.
    products : ndarray of shape (K, r, r)
        Weighted cross products of the out-of-fold residuals within each fold.
    mean : ndarray of shape (r,)
        Weighted means of the targets.
    centred : ndarray of shape (r, r)
        Weighted cross products of the targets about their means.
    weight_sum : ndarray of shape (K,)
    """

    outcome: str
    controls: Regressors
    confounders: Regressors
    instruments: Regressors | None
    weights: str | None
    n_obs: int
    n_folds: int
    terms: tuple[str, ...]
    gram: np.ndarray
    shift: np.ndarray
    scale: np.ndarray
    coef: np.ndarray
    products: np.ndarray
    mean: np.ndarray
    centred: np.ndarray
    weight_sum: np.ndarray

    @property
    def p(self) -> int:
        """Number of controls, without the intercept."""
        return len(terms_of(self.controls))

    @property
    def q(self) -> int:
        """Number of confounder columns."""
        return len(terms_of(self.confounders))

    @property
    def m(self) -> int:
        """Number of instruments; 0 in the partially linear model."""
        return 0 if self.instruments is None else len(terms_of(self.instruments))

    @property
    def d(self) -> slice:
        """The confounders among the targets."""
        return slice(0, self.q)

    @property
    def z(self) -> slice:
        """The instruments among the targets; the confounders in the partially linear model."""
        return slice(self.q, self.q + self.m) if self.m else self.d

    @property
    def r2(self) -> np.ndarray:
        """Out-of-fold R2 of each target on the controls, shape (r,); below 0 for none.

        That of the confounders is the entanglement of confounder and text.
        """
        total = np.diag(self.centred)
        left = np.diag(self.products.sum(axis=0))
        return np.asarray(1.0 - left / np.where(total > 0, total, np.nan))


def to_raw(shift: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Matrix from coefficients of shifted and scaled columns to those of the data."""
    out = np.diag(scale)
    out[0, 1:] = -shift[1:] * scale[1:]
    return out


@dataclass(frozen=True)
class _Layout:
    """What a block needs to know to be laid out; travels to Dask's workers."""

    inputs: tuple[Regressors, ...]
    outcome: str
    weights: str | None
    n_folds: int
    shift: np.ndarray
    scale: np.ndarray

    def allpieces_of(self, block: Block, n: int) -> list[np.ndarray]:
        out = [piece for inputs in self.inputs for piece in pieces_of(inputs, block, n)]
        return [*out, np.asarray(block[self.outcome], dtype=float)[None, :]]


def _gram(block: Block, layout: _Layout) -> tuple[np.ndarray, ...]:
    n, s = length(block), len(layout.shift)
    place, starts = k.fold_order(block[FOLD], layout.n_folds)
    x = np.empty((s, n))
    x[0] = 1.0
    a = 1
    for piece in layout.allpieces_of(block, n):
        b = a + len(piece)
        k.gather(piece, layout.shift[a:b], layout.scale[a:b], place, x[a:b])
        a = b
    w = np.empty(0)
    if layout.weights is not None:
        w = np.empty(n)
        w[place] = block[layout.weights]
    out = np.zeros((layout.n_folds, s, s))
    if s <= _FEW:
        k.gram_by_fold(x, w, starts, out)
    else:
        for f, (a, b) in enumerate(zip(starts[:-1], starts[1:], strict=True)):
            part = x[:, a:b]
            out[f] = (part * w[a:b] if w.size else part) @ part.T
    return out, np.diff(starts)


def partial_out(
    rows: Rows,
    *,
    outcome: str,
    confounders: Regressors,
    controls: Regressors,
    n_folds: int,
    instruments: Regressors | None = None,
    weights: str | None = None,
    ridge: float = 0.0,
) -> Nuisance:
    """Regress outcome, confounders and instruments on the controls, cross-fitted, in one pass.

    Parameters
    ----------
    rows : Rows
        From `with_folds`.
    outcome : str
    confounders : Design or Columns
        One or several columns. An intercept is ignored: the controls have one always.
    controls : Design or Columns
        Text features and whatever else is held fixed.
    n_folds : int
        As in `with_folds`.
    instruments : Design or Columns, optional
        At least as many columns as there are confounder columns.
    weights : str, optional
        Column of sampling weights; only their ratios matter.
    ridge : float
        Penalty ``ridge / 2 * sum(b**2)`` on half the mean squared error, for controls in units of
        their standard deviation. The intercept is not penalised.

    Returns
    -------
    Nuisance

    Raises
    ------
    IdentificationError
        When controls are linearly dependent, overall or without the rows of one fold, and there is
        no ridge; when a fold is empty; when there are fewer instruments than confounders.
    """
    groups = [controls, confounders, *([] if instruments is None else [instruments])]
    terms = ("Intercept", *(t for g in groups for t in terms_of(g)), outcome)
    q = len(terms_of(confounders))
    if instruments is not None and len(terms_of(instruments)) < q:
        raise IdentificationError(
            f"Expected at least as many instruments as confounder columns, but saw "
            f"{list(terms_of(instruments))} for {list(terms_of(confounders))}. Give more "
            "instruments, or fewer confounders."
        )
    shift, scale = np.zeros(len(terms)), np.ones(len(terms))
    layout = _Layout(tuple(groups), outcome, weights, n_folds, shift, scale)
    _standardise(rows, layout)
    lower, sizes = rows.total(_gram, layout)
    if (sizes == 0).any():
        raise IdentificationError(
            f"Expected rows in each of {n_folds} folds, but the folds have {sizes.tolist()} rows. "
            "Take fewer folds, or smaller clusters."
        )
    gram = np.tril(lower) + np.tril(lower, -1).transpose(0, 2, 1)
    empty = np.empty(0)
    plain = Nuisance(
        outcome, controls, confounders, instruments, weights, rows.n_obs, n_folds, terms, gram,
        shift, scale, empty, empty, empty, empty, empty,
    )  # fmt: skip
    return cross_fitted(plain, gram, ridge)


def cross_fitted(nuisance: Nuisance, gram: np.ndarray, ridge: float) -> Nuisance:
    """The nuisances that follow from other Gram matrices (K, s, s) of the same columns."""
    terms, p, n_folds = nuisance.terms, nuisance.p, len(gram)
    shift, scale = nuisance.shift, nuisance.scale
    total = gram.sum(axis=0)
    _check_controls(total, terms, p, ridge, "")
    r = len(terms) - 1 - p
    coef = np.empty((n_folds, r, 1 + p))
    products = np.empty((n_folds, r, r))
    x, v = slice(0, 1 + p), slice(1 + p, None)
    for f in range(n_folds):
        rest = total - gram[f]
        where = f" of the rows outside fold {f + 1} of {n_folds}"
        b = _solve(rest, total, terms, p, ridge, where)
        coef[f] = b
        g = gram[f]
        cross = b @ g[x, v]
        products[f] = g[v, v] - cross - cross.T + b @ g[x, x] @ b.T
    # Back to the units of the data.
    unit = 1.0 / scale[v]
    coef = (coef * unit[None, :, None]) @ to_raw(shift[x], scale[x]).T
    coef[:, :, 0] += shift[v]
    products = products * unit[:, None] * unit[None, :]
    products = 0.5 * (products + products.transpose(0, 2, 1))
    means = total[0, v] / total[0, 0]
    centred = (total[v, v] - total[0, 0] * np.outer(means, means)) * np.outer(unit, unit)
    return replace(
        nuisance, gram=gram, coef=coef, products=products, mean=shift[v] + unit * means,
        centred=centred, weight_sum=gram[:, 0, 0].copy(),
    )  # fmt: skip


def gram_by(rows: Rows, nuisance: Nuisance, n_groups: int) -> np.ndarray:
    """Gram matrices (G, s, s) of other folds of the rows, in the units of a nuisance."""
    groups = [nuisance.controls, nuisance.confounders]
    groups += [] if nuisance.instruments is None else [nuisance.instruments]
    layout = _Layout(
        tuple(groups), nuisance.outcome, nuisance.weights, n_groups, nuisance.shift, nuisance.scale
    )
    lower = rows.total(_gram, layout)[0]
    return np.asarray(np.tril(lower) + np.tril(lower, -1).transpose(0, 2, 1))


def _standardise(rows: Rows, layout: _Layout) -> None:
    """Choose an origin and a unit for every column from some rows, so that sums stay exact."""
    some = rows.sample(1000) if rows.in_memory else rows
    block = next(part for _, part in some.parts())
    n = min(length(block), 8192)
    block = {name: c[:n] for name, c in block.items()}
    a = 1
    for piece in layout.allpieces_of(block, n):
        b = a + len(piece)
        mean, sd = piece.mean(axis=1), piece.std(axis=1)
        layout.shift[a:b] = mean
        # a constant column has a sd of rounding errors
        layout.scale[a:b] = 1.0 / np.where(sd > 1e-12 * np.abs(mean), sd, 1.0)
        a = b


def _centred(gram: np.ndarray, p: int) -> np.ndarray:
    x = slice(1, 1 + p)
    return np.asarray(gram[x, x] - np.outer(gram[0, x], gram[0, x]) / gram[0, 0])


def _check_controls(
    gram: np.ndarray, terms: Sequence[str], p: int, ridge: float, where: str
) -> None:
    if ridge > 0:
        return
    dependent = dependent_columns(_centred(gram, p), np.diag(gram)[1 : 1 + p])
    if dependent is None:
        return
    names = [terms[1 + i] for i in dependent]
    what = f"{names[0]!r} is constant" if len(names) == 1 else f"{names} are linearly dependent"
    raise IdentificationError(
        f"Expected linearly independent controls, but {what}{where} ({len(names)} of {p} columns "
        "involved; an intercept is among the controls always). Remove one of them, merge rare "
        "levels, or give a ridge penalty."
    )


def _solve(
    rest: np.ndarray, total: np.ndarray, terms: Sequence[str], p: int, ridge: float, where: str
) -> np.ndarray:
    """Coefficients (r, 1 + p) of the targets on intercept and controls."""
    v = slice(1 + p, None)
    weight, mean = rest[0, 0], rest[0] / rest[0, 0]
    inner = _centred(rest, p)
    if ridge > 0:
        spread = np.diag(_centred(total, p)) / total[0, 0]
        inner[np.diag_indices(p)] += ridge * weight * np.where(spread > 0, spread, 1.0)
    out = np.empty((rest.shape[0] - 1 - p, 1 + p))
    if p:
        diagonal = np.diag(inner)
        unit = 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
        moment = rest[1 : 1 + p, v] - weight * np.outer(mean[1 : 1 + p], mean[v])
        try:
            factor = linalg.cho_factor(inner * unit[:, None] * unit[None, :])
            weak = np.diag(factor[0]).min() < 1e-3
        except linalg.LinAlgError:
            weak = True
        if weak:
            _check_controls(rest, terms, p, ridge, where)
        out[:, 1:] = (unit[:, None] * linalg.cho_solve(factor, moment * unit[:, None])).T
    out[:, 0] = mean[v] - out[:, 1:] @ mean[1 : 1 + p]
    return out


# --------------------------------------------------------------------------- residuals


def targets_of(block: Block, fit: Nuisance) -> np.ndarray:
    """Confounders, instruments and outcome of a block, shape (r, n)."""
    n = length(block)
    parts = [*pieces_of(fit.confounders, block, n)]
    if fit.instruments is not None:
        parts += pieces_of(fit.instruments, block, n)
    return np.concatenate([*parts, np.asarray(block[fit.outcome], dtype=float)[None, :]])


def residuals_of(block: Block, fit: Nuisance) -> tuple[np.ndarray, np.ndarray]:
    """Out-of-fold residuals (r, n) of the targets, and the weights."""
    n = length(block)
    out = targets_of(block, fit)
    r = len(out)
    flat = fit.coef.reshape(-1, fit.coef.shape[2])
    fitted = flat[:, 1:] @ matrix_of(fit.controls, block, n) if fit.p else np.zeros((len(flat), n))
    fitted += flat[:, :1]
    k.subtract_own(fitted.reshape(fit.n_folds, r, n), block[FOLD], out)
    w = np.ones(1) if fit.weights is None else np.asarray(block[fit.weights], dtype=float)
    return out, w


def residuals(rows: Rows, nuisance: Nuisance) -> np.ndarray:
    """Out-of-fold residuals (r, n) of the targets in every row, held in memory."""
    r = nuisance.coef.shape[1]
    out = np.empty((r, nuisance.n_obs))
    for first, part in rows.parts():
        n = length(part)
        for a in range(0, n, 8192):
            block = {name: c[a : a + 8192] for name, c in part.items()}
            size = length(block)
            out[:, first + a : first + a + size] = residuals_of(block, nuisance)[0]
    return out
