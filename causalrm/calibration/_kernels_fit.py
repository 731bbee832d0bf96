"""Logistic recalibration by Newton's method, and the recalibration maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalrm.core.kernel import kernel

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_BLOCK = 1 << 13
_REACH = 1e-3  # a column of a smaller range says nothing about a coefficient
_CELLS = 8192

EPS = 1e-6
"""Scores are clipped to [EPS, 1 - EPS] where a measure needs their logit; the count is told."""


def logit(p: Floats, eps: float = 0.0) -> tuple[Floats, int]:
    """log(p/(1-p)) of scores clipped to [eps, 1-eps], and how many rows were clipped."""
    clipped = 0
    if eps > 0.0 and p.size and (p.min() < eps or p.max() > 1.0 - eps):
        clipped = int(np.count_nonzero((p < eps) | (p > 1.0 - eps)))
        p = np.clip(p, eps, 1.0 - eps)
    with np.errstate(divide="ignore"):
        out = p / (1.0 - p)
        return np.log(out, out=out), clipped


@dataclass(frozen=True)
class Logistic:
    """Maximum of a binomial likelihood with few columns.

    `status` is "ok", "separated" (the likelihood has no maximum) or "singular" (the columns are
    not identified, or one hardly varies); the numbers are NaN unless it is "ok".
    """

    coef: Floats  # (k,)
    cov: Floats  # (k, k), inverse information
    cov_robust: Floats  # (k, k), sandwich
    status: str


@kernel
def _predictor(x: Floats, offset: Floats, coef: Floats, eta: Floats, small: Floats) -> None:
    # The linear predictor and -|eta|.
    known = offset.shape[0] > 0
    for i in range(eta.shape[0]):
        eta[i] = offset[i] if known else 0.0
    for j in range(coef.shape[0]):
        for i in range(eta.shape[0]):
            eta[i] += coef[j] * x[j, i]
    for i in range(eta.shape[0]):
        small[i] = -abs(eta[i])


@kernel
def _pieces(
    eta: Floats,
    small: Floats,
    negative: Floats,
    positive: Floats,
    negative2: Floats,
    positive2: Floats,
    out: Floats,
) -> None:
    # Per row what multiplies x in the score, and x x' in the information and in the sandwich's
    # middle; `small` is exp(-|eta|).
    first, second, third = out[0], out[1], out[2]
    for i in range(eta.shape[0]):
        other = 1.0 / (1.0 + small[i])
        tail = small[i] * other  # the smaller of pi and 1 - pi; `other` is the larger
        pi = other if eta[i] > 0.0 else tail
        rest = tail if eta[i] > 0.0 else other
        first[i] = positive[i] * rest - negative[i] * pi
        second[i] = (negative[i] + positive[i]) * tail * other
        third[i] = positive2[i] * rest * rest + negative2[i] * pi * pi


@kernel(reassociate=True)
def _products(x: Floats, piece: Floats, n: int, out: Floats) -> None:
    # Adds the score to out[0], the lower triangle of the information to out[1:k+1] and that of
    # the sandwich's middle below it.
    k = x.shape[0]
    for j in range(k):
        total = 0.0
        for i in range(n):
            total += piece[0, i] * x[j, i]
        out[0, j] += total
        for m in range(j + 1):
            for part in range(1, 3):
                total = 0.0
                for i in range(n):
                    total += piece[part, i] * x[j, i] * x[m, i]
                out[1 + (part - 1) * k + j, m] += total


def _sums(
    columns: tuple[Floats | None, ...],
    negative: Floats,
    positive: Floats,
    offset: Floats | None,
    coef: Floats,
    squares: tuple[Floats, Floats] | None,
    with_value: bool,
) -> tuple[float, Floats, Floats, Floats]:
    # Log-likelihood (NaN unless asked for), score, information and, with `squares`, the
    # sandwich's middle. A column that is None is a column of ones. Blocks stay in the
    # processor's cache.
    k, n = len(columns), negative.shape[0]
    value, none = 0.0, np.empty(0)
    out = np.zeros((1 + 2 * k, k))
    x, work = np.ones((k, min(n, _BLOCK))), np.empty((5, min(n, _BLOCK)))
    for start in range(0, n, _BLOCK):
        rows = slice(start, min(start + _BLOCK, n))
        n0, n1 = negative[rows], positive[rows]
        eta, small = work[3:, : n1.size]
        for j, column in enumerate(columns):
            if column is not None:
                x[j, : n1.size] = column[rows]
        _predictor(x, none if offset is None else offset[rows], coef, eta, small)
        np.exp(small, out=small)
        q0, q1 = (n0, n1) if squares is None else (squares[0][rows], squares[1][rows])
        _pieces(eta, small, n0, n1, q0, q1, work)
        _products(x, work, n1.size, out)
        if with_value:
            # log(1 + exp(eta)) = max(eta, 0) + log1p(exp(-|eta|))
            np.log1p(small, out=small)
            small += np.maximum(eta, 0.0)
            value += float((n1 * eta - (n0 + n1) * small).sum())
    lower, middle = out[1 : 1 + k], out[1 + k :]
    return (
        value if with_value else float("nan"),
        out[0],
        np.asarray(lower + np.tril(lower, -1).T),
        np.asarray(middle + np.tril(middle, -1).T),
    )


@kernel
def _cell_sums(
    key: Floats, more: Floats, negative: Floats, positive: Floats, low: float, scale: float
) -> Floats:
    out = np.zeros((_CELLS, 3 + more.shape[0]))
    for i in range(key.shape[0]):
        cell = out[int((key[i] - low) * scale)]
        w = negative[i] + positive[i]
        cell[0] += negative[i]
        cell[1] += positive[i]
        cell[2] += w * key[i]
        for j in range(more.shape[0]):
            cell[3 + j] += w * more[j, i]
    return out


def _aggregate(
    columns: tuple[Floats | None, ...],
    negative: Floats,
    positive: Floats,
    offset: Floats | None,
) -> tuple[tuple[Floats | None, ...], Floats, Floats, Floats | None]:
    # Means over narrow cells of the first proper column (or the offset): a small problem whose
    # maximum is close to that of the large one.
    proper = [c for c in (*columns, offset) if c is not None]
    if not proper:
        n0, n1 = negative.sum(keepdims=True), positive.sum(keepdims=True)
        return columns, n0, n1, None
    key = proper[0]
    low, high = float(key.min()), float(key.max())
    if not high > low:
        return columns, negative, positive, offset
    scale = (_CELLS - 1e-6) / (high - low)
    more = np.array(proper[1:]).reshape(len(proper) - 1, key.size)
    sums = _cell_sums(key, more, negative, positive, low, scale)
    sums = sums[sums[:, 0] + sums[:, 1] > 0.0]
    means = iter((sums[:, 2:] / (sums[:, :1] + sums[:, 1:2])).T)
    gathered = tuple(None if c is None else next(means) for c in columns)
    return gathered, sums[:, 0], sums[:, 1], None if offset is None else next(means)


def _newton(
    columns: tuple[Floats | None, ...],
    negative: Floats,
    positive: Floats,
    offset: Floats | None,
    coef: Floats,
    squares: tuple[Floats, Floats] | None,
) -> tuple[Floats, Floats, Floats, str]:
    data = (columns, negative, positive, offset)
    value, score, info, meat = _sums(*data, coef, squares, False)
    weight = float(negative.sum() + positive.sum())
    for _ in range(60):
        scale = np.sqrt(np.diag(info))
        if not (scale > 0.0).all():
            return coef, info, meat, "separated"
        scaled = info / np.outer(scale, scale)
        if np.linalg.eigvalsh(scaled)[0] < 1e-11:
            return coef, info, meat, "singular"
        step = np.linalg.solve(scaled, score / scale) / scale
        gain = float(score @ step)  # twice the log-likelihood still to be had
        if gain <= 1e-12 * weight:
            # A step that moves linear predictors by 1e-6 or less leaves an error of its square;
            # the sums at its start serve for the covariance.
            return coef + step, info, meat, "ok"
        if np.isnan(value):
            value = _sums(*data, coef, None, True)[0]
        length = 1.0
        while True:
            trial = coef + length * step
            new = _sums(*data, trial, squares, True)
            if new[0] >= value - 1e-13 * abs(value) or length < 1e-8:
                break
            length *= 0.5
        coef, (value, score, info, meat) = trial, new
    return coef, info, meat, "separated"


def logistic(
    columns: tuple[Floats | None, ...],
    negative: Floats,
    positive: Floats,
    offset: Floats | None = None,
    squares: tuple[Floats, Floats] | None = None,
    inference: bool = True,
) -> Logistic:
    """Fit logit pi = offset + sum_j coef_j column_j to weights of either outcome per row.

    Newton starts from zero. Large inputs are first gathered into cells; from that maximum one
    or two exact steps remain.

    Parameters
    ----------
    columns : tuple of ndarray or None
        The design's columns; None stands for a column of ones.
    negative, positive : ndarray
        Weight of outcome 0 and 1 in each row.
    squares : tuple of ndarray, optional
        Squared weights of outcome 0 and 1, for the sandwich; default: the weights.
    inference : bool
        False leaves out the sandwich.
    """
    k = len(columns)
    if not inference:
        squares = None
    elif squares is None:
        squares = (negative, positive)
    nothing = np.full((k, k), np.nan)
    n0, n1 = float(negative.sum()), float(positive.sum())
    if n0 <= 0.0 or n1 <= 0.0:
        return Logistic(nothing[0], nothing, nothing, "separated")
    ends = [(float(c.min()), float(c.max())) for c in columns if c is not None]
    if len(ends) == k:  # no intercept: the distance from 0 counts
        ends = [(min(low, 0.0), max(high, 0.0)) for low, high in ends]
    if any(high - low < _REACH for low, high in ends):
        return Logistic(nothing[0], nothing, nothing, "singular")
    start = np.zeros(k)
    if negative.shape[0] > 4 * _CELLS:
        small = _aggregate(columns, negative, positive, offset)
        start, *_, status = _newton(*small, start, None)
        if status != "ok":
            start = np.zeros(k)
    coef, info, meat, status = _newton(columns, negative, positive, offset, start, squares)
    if status == "ok" and _separated(columns, negative, positive, offset, coef):
        status = "separated"
    if status != "ok":
        return Logistic(nothing[0], nothing, nothing, status)
    bread = np.linalg.inv(info)
    robust = bread @ meat @ bread if inference else nothing
    return Logistic(coef, bread, robust, status)


def _separated(
    columns: tuple[Floats | None, ...],
    negative: Floats,
    positive: Floats,
    offset: Floats | None,
    coef: Floats,
) -> bool:
    # Under separation the predictions approach the outcomes; only then look closer.
    if np.abs(coef).max() < 15.0:
        return False
    eta = np.zeros_like(negative) if offset is None else offset.copy()
    for c, column in zip(coef, columns, strict=True):
        eta += c if column is None else c * column
    ones, zeros = eta[positive > 0.0], eta[negative > 0.0]
    return bool(ones.min() >= zeros.max())


def logistic_influence(
    columns: tuple[Floats | None, ...],
    y: Floats,
    w: Floats | None,
    offset: Floats | None,
    fit: Logistic,
) -> Floats:
    """Influence values (n, k) of the coefficients, for clusters and comparisons."""
    x = np.column_stack([np.ones_like(y) if c is None else c for c in columns])
    eta = x @ fit.coef + (0.0 if offset is None else offset)
    r = y - 1.0 / (1.0 + np.exp(-np.clip(eta, -700.0, 700.0)))
    if w is not None:
        r = r * w
    return np.asarray((x * r[:, None]) @ fit.cov)


def beta_columns(p: Floats, eps: float) -> tuple[Floats, Floats, int]:
    """Log p and -log(1-p) of clipped scores, the columns of beta calibration."""
    clipped = int(np.count_nonzero((p < eps) | (p > 1.0 - eps)))
    q = np.clip(p, eps, 1.0 - eps)
    return np.log(q), -np.log1p(-q), clipped


def beta_fit(p: Floats, negative: Floats, positive: Floats, eps: float) -> tuple[Floats, str]:
    """Beta calibration (Kull et al. 2017): (a, b, c) of logit q = c + a log p - b log(1-p).

    a and b must not be negative: the worse one is set to zero and the rest fitted again.
    """
    first, second, _ = beta_columns(p, eps)
    fit = logistic((first, second, None), negative, positive, inference=False)
    if fit.status != "ok":
        return np.full(3, np.nan), fit.status
    a, b, c = fit.coef
    if a < 0.0 or b < 0.0:
        keep = second if a < b else first
        fit = logistic((keep, None), negative, positive, inference=False)
        if fit.status != "ok":
            return np.full(3, np.nan), fit.status
        slope, c = fit.coef
        if slope < 0.0:
            n1, n0 = positive.sum(), negative.sum()
            a, b, c = 0.0, 0.0, float(np.log(n1 / n0))
        else:
            a, b = (0.0, slope) if keep is second else (slope, 0.0)
    return np.array([a, b, c]), "ok"


def isotonic_knots(value: Floats, start: Ints, level: Floats) -> tuple[Floats, Floats]:
    """Ends of the blocks of an isotonic fit and their levels, to be joined by straight lines.

    Parameters
    ----------
    value : ndarray
        Distinct scores in increasing order.
    start, level : ndarray
        First index and fitted value of each block.
    """
    last = np.append(start[1:], value.shape[0]) - 1
    x = np.column_stack((value[start], value[last])).ravel()
    keep = np.append(True, np.diff(x) > 0.0)
    return x[keep], np.repeat(level, 2)[keep]


# --- Venn-Abers --------------------------------------------------------------------------------


@kernel
def _left_turn(ax: float, ay: float, bx: float, by: float, cx: float, cy: float) -> bool:
    return (bx - ax) * (cy - by) - (cx - bx) * (by - ay) > 0.0


@kernel
def _venn_abers_one(weight: Floats, total: Floats) -> Floats:
    # Isotonic value at each distinct score after one row with outcome 1 is added there: slopes
    # of the greatest convex minorant of the cumulative sum diagram, kept on a stack while the
    # added row moves from left to right (Vovk, Petej and Fedorova 2015).
    n = weight.shape[0]
    x = np.empty(n + 2)
    y = np.empty(n + 2)
    x[0], y[0] = -1.0, -1.0
    x[1], y[1] = 0.0, 0.0
    for i in range(n):
        x[i + 2] = x[i + 1] + weight[i]
        y[i + 2] = y[i + 1] + total[i]
    sx = np.empty(n + 2)
    sy = np.empty(n + 2)
    size = 0
    for i in range(n + 1, -1, -1):
        while size > 1 and not _left_turn(
            x[i], y[i], sx[size - 1], sy[size - 1], sx[size - 2], sy[size - 2]
        ):
            size -= 1
        sx[size], sy[size] = x[i], y[i]
        size += 1
    out = np.empty(n)
    for i in range(n):
        ax, ay, bx, by = sx[size - 1], sy[size - 1], sx[size - 2], sy[size - 2]
        out[i] = (by - ay) / (bx - ax)
        # The added row moves past score i: the corner before it shifts by that score's sums.
        cx = x[i] + weight[i]
        cy = y[i] + total[i]
        x[i + 1], y[i + 1] = cx, cy
        if (cy - ay) * (bx - ax) >= (by - ay) * (cx - ax):
            continue
        size -= 1
        while size > 1 and not _left_turn(
            cx, cy, sx[size - 1], sy[size - 1], sx[size - 2], sy[size - 2]
        ):
            size -= 1
        sx[size], sy[size] = cx, cy
        size += 1
    return out


@dataclass(frozen=True)
class VennAbers:
    """Lower and upper probability at each distinct score of the calibration rows."""

    value: Floats  # (K,)
    low: Floats  # (K,), the added row having outcome 0
    high: Floats  # (K,), the added row having outcome 1


def venn_abers(value: Floats, negative: Floats, positive: Floats) -> VennAbers:
    """Inductive Venn-Abers predictor, for all possible scores at once, in linear time."""
    weight = negative + positive
    high = _venn_abers_one(weight, positive)
    # Mirror image: scores reversed and outcomes flipped.
    low = 1.0 - _venn_abers_one(weight[::-1].copy(), negative[::-1].copy())[::-1]
    return VennAbers(value, low, high)


def venn_abers_predict(fit: VennAbers, p: Floats) -> tuple[Floats, Floats]:
    """Lower and upper probability for new scores."""
    k = fit.value.shape[0]
    up = np.searchsorted(fit.value, p, side="left")
    down = np.searchsorted(fit.value, p, side="right") - 1
    high = np.where(up < k, fit.high[np.minimum(up, k - 1)], 1.0)
    low = np.where(down >= 0, fit.low[np.maximum(down, 0)], 0.0)
    return low, high
