"""Sums behind the measures: moments of the scores, bins, and their variances.

Conventions of all kernels of this package: `y` holds 0.0 or 1.0, `p` scores in [0, 1], `w`
weights (None where all are one), all float64 of shape (n,). An influence array `psi` holds one
row per observation, weights and divisors included, so that an estimate minus its limit is close
to `psi.sum(axis=0)` and its covariance is `covariance(psi, cluster)`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalrm.core.errors import DataError
from causalrm.core.kernel import kernel

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_BLOCK = 1 << 15
_EXACT = 200  # rows of a bin from which a simulated sum is drawn from its normal limit


@kernel
def bad_rows(y: Floats, p: Floats) -> tuple[int, int]:
    """Count outcomes other than 0 and 1, and scores outside [0, 1], NaN included."""
    bad_y = 0
    bad_p = 0
    for i in range(p.shape[0]):
        bad_y += not (y[i] == 0.0 or y[i] == 1.0)
        bad_p += not (p[i] >= 0.0 and p[i] <= 1.0)
    return bad_y, bad_p


# --- means of the outcome, the score and the proper scores -------------------------------------


def log_loss(y: Floats, p: Floats) -> Floats:
    """Minus log probability of the outcome; infinite for a certain miss."""
    q = 1.0 - y
    q -= p
    np.abs(q, out=q)  # p where y = 1, else 1 - p
    with np.errstate(divide="ignore"):
        np.log(q, out=q)
    return np.negative(q, out=q)


@kernel(reassociate=True)
def _gram(y: Floats, p: Floats, loss: Floats, w: Floats, power: int) -> Floats:
    # Sum of w^power u u', u = (1, y, p, (y-p)^2, loss); sums in scalars stay in registers.
    unit = w.shape[0] == 0
    n = y1 = p1 = s1 = l1 = yp = ys = yl = pp = ps = pl = ss = sl = ll = 0.0
    for i in range(p.shape[0]):
        v = 1.0 if unit else w[i] ** power
        a, b, c = y[i], p[i], loss[i]
        r = (a - b) * (a - b)
        va, vb, vr, vc = v * a, v * b, v * r, v * c
        n += v
        y1 += va
        p1 += vb
        s1 += vr
        l1 += vc
        yp += va * b
        ys += va * r
        yl += va * c
        pp += vb * b
        ps += vb * r
        pl += vb * c
        ss += vr * r
        sl += vr * c
        ll += vc * c
    return np.array(
        [
            [n, y1, p1, s1, l1],
            [y1, y1, yp, ys, yl],
            [p1, yp, pp, ps, pl],
            [s1, ys, ps, ss, sl],
            [l1, yl, pl, sl, ll],
        ]
    )


@dataclass(frozen=True)
class Moments:
    """Weighted means of (y, p, Brier score, log loss), and the covariance of these means.

    Rows with an infinite log loss are counted in `n_infinite` and enter the last mean as zero.
    """

    mean: Floats  # (4,)
    cov: Floats  # (4, 4)
    weight: float
    weight2: float
    n_infinite: int


def moments(
    y: Floats,
    p: Floats,
    w: Floats | None = None,
    cluster: Ints | None = None,
    n_clusters: int = 0,
) -> Moments:
    """Means and their covariance, in blocks of rows.

    Parameters
    ----------
    cluster : ndarray of int, optional
        Codes 0..n_clusters-1; the covariance then sums within clusters, times G/(G-1).
        Otherwise rows are independent, times m/(m-1) with m = (sum w)^2 / sum w^2.
    """
    first, second = np.zeros((5, 5)), np.zeros((5, 5))
    sums = np.zeros((n_clusters, 5))
    n, n_infinite = p.shape[0], 0
    for start in range(0, n, _BLOCK):
        rows = slice(start, min(start + _BLOCK, n))
        yb, pb, wb = y[rows], p[rows], np.empty(0) if w is None else w[rows]
        loss = log_loss(yb, pb)
        if not np.isfinite(loss.sum()):
            infinite = np.isinf(loss)
            n_infinite += int(np.count_nonzero(infinite if w is None else infinite & (wb > 0)))
            loss[infinite] = 0.0
        first += _gram(yb, pb, loss, wb, 1)
        if w is not None:
            second += _gram(yb, pb, loss, wb, 2)
        if cluster is not None:
            r = yb - pb
            for j, column in enumerate((np.ones_like(r), yb, pb, r * r, loss)):
                weighted = column if w is None else column * wb
                sums[:, j] += np.bincount(cluster[rows], weighted, n_clusters)
    if w is None:
        second = first
    total, weight2 = first[0, 0], second[0, 0]
    mean = first[0] / total
    if cluster is None:
        spread = (
            second
            - np.outer(mean, second[0])
            - np.outer(second[0], mean)
            + np.outer(mean, mean) * weight2
        )
        size = total**2 / weight2
        cov = spread * (size / max(size - 1.0, 1.0) / total**2)
    else:
        centred = (sums - np.outer(sums[:, 0], mean)) / total
        cov = centred.T @ centred * (n_clusters / max(n_clusters - 1, 1))
    return Moments(mean[1:], cov[1:, 1:], float(total), float(weight2), n_infinite)


def covariance(psi: Floats, cluster: Ints | None = None, n_clusters: int = 0) -> Floats:
    """Covariance from influence values (n, k): summed within clusters first, times G/(G-1)."""
    psi = psi.reshape(psi.shape[0], -1)
    if cluster is None:
        return np.asarray(psi.T @ psi)
    sums = np.column_stack([np.bincount(cluster, c, n_clusters) for c in psi.T])
    return np.asarray(sums.T @ sums * (n_clusters / max(n_clusters - 1, 1)))


@kernel(reassociate=True)
def _spiegelhalter(y: Floats, p: Floats, w: Floats) -> tuple[float, float]:
    unit = w.shape[0] == 0
    top, var = 0.0, 0.0
    for i in range(p.shape[0]):
        v = 1.0 if unit else w[i]
        a = v * (1.0 - 2.0 * p[i])
        top += a * (y[i] - p[i])
        var += a * a * p[i] * (1.0 - p[i])
    return top, var


def spiegelhalter(y: Floats, p: Floats, w: Floats | None = None) -> float:
    """The z statistic of Spiegelhalter (1986); NaN where no row can carry evidence.

    Sum w (y-p)(1-2p) over the root of its variance under perfect calibration.
    """
    top, var = _spiegelhalter(y, p, np.empty(0) if w is None else w)
    return float(top / np.sqrt(var)) if var > 0.0 else float("nan")


# --- bins --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bins:
    """Sums by bin, bins [edge_b, edge_(b+1)), the last one closed.

    Residuals are r = y - p. `count` counts rows with a positive weight.
    """

    edges: Floats  # (B + 1,)
    count: Floats  # (B,)
    weight: Floats  # sum w
    p: Floats  # sum w p
    y: Floats  # sum w y
    weight2: Floats  # sum w^2
    residual2: Floats  # sum w^2 r
    square2: Floats  # sum w^2 r^2


# Four sets of sums, taken in turn: consecutive rows often fall into one bin, and each sum would
# wait for the last. The set's last bin is for scores of exactly 1.


@kernel(inline=True)
def _equal_bin(x: float, edges: Floats) -> np.uint64:
    # The product is never too low, even by rounding; unsigned indices spare the wrap-around.
    b = np.uint64(np.int64(x * ((edges.shape[0] - 1) * (1.0 + 4e-16))))
    return b - np.uint64(x < edges[b])


@kernel
def _bin_equal(y: Floats, p: Floats, edges: Floats) -> Floats:
    k = edges.shape[0] - 1
    out = np.zeros((4, k + 1, 4))
    for i in range(p.shape[0]):
        x = p[i]
        cell = out[np.uint64(i & 3), _equal_bin(x, edges)]
        r = y[i] - x
        cell[0] += 1.0
        cell[1] += x
        cell[2] += y[i]
        cell[3] += r * r
    total = out.sum(axis=0)
    total[k - 1] += total[k]
    return total[:k]


@kernel
def _bin_residual(y: Floats, p: Floats, edges: Floats) -> Floats:
    n, k = p.shape[0], edges.shape[0] - 1
    a, b, c, d = np.zeros(k + 1), np.zeros(k + 1), np.zeros(k + 1), np.zeros(k + 1)
    last = n - n % 4
    for i in range(0, last, 4):
        a[_equal_bin(p[i], edges)] += y[i] - p[i]
        b[_equal_bin(p[i + 1], edges)] += y[i + 1] - p[i + 1]
        c[_equal_bin(p[i + 2], edges)] += y[i + 2] - p[i + 2]
        d[_equal_bin(p[i + 3], edges)] += y[i + 3] - p[i + 3]
    for i in range(last, n):
        a[_equal_bin(p[i], edges)] += y[i] - p[i]
    total = a + b + c + d
    total[k - 1] += total[k]
    return total[:k]


@kernel
def _bin_weighted(y: Floats, p: Floats, w: Floats, b: Ints, k: int) -> Floats:
    out = np.zeros((k, 7))
    for i in range(p.shape[0]):
        v = w[i]
        if v == 0.0:
            continue
        r = y[i] - p[i]
        cell = out[b[i]]
        cell[0] += 1.0
        cell[1] += v
        cell[2] += v * p[i]
        cell[3] += v * y[i]
        cell[4] += v * v
        cell[5] += v * v * r
        cell[6] += v * v * r * r
    return out


def equal_edges(n_bins: int) -> Floats:
    """k/n_bins, each the nearest float, so that a score written 0.3 starts its bin."""
    return np.asarray(np.arange(n_bins + 1) / n_bins)


def quantile_edges(p_sorted: Floats, n_bins: int, w_sorted: Floats | None = None) -> Floats:
    """Edges of bins of equal weight, between 0 and 1; equal scores share a bin.

    An inner edge is the first score whose cumulative weight passes k/n_bins of the whole, so
    that a row of weight two counts as two rows.
    """
    if w_sorted is None:
        n = p_sorted.shape[0]
        at = np.arange(1, n_bins) * n // n_bins
    else:
        total = np.cumsum(w_sorted)
        target = np.arange(1, n_bins) / n_bins * total[-1]
        at = np.searchsorted(total, target * (1 + 4e-16 * n_bins), side="right")
        at = np.minimum(at, p_sorted.shape[0] - 1)
    inner = np.unique(p_sorted[at])
    return np.concatenate(([0.0], inner[(inner > 0.0) & (inner < 1.0)], [1.0]))


def bin_index(p: Floats, edges: Floats) -> Ints:
    """Bin of each score."""
    return np.asarray(np.searchsorted(edges[1:-1], p, side="right"), dtype=np.int64)


def bins(y: Floats, p: Floats, edges: Floats, w: Floats | None = None) -> Bins:
    """Sums by bin; one pass without weights on equal-width bins."""
    k = edges.shape[0] - 1
    if k < 1 or edges[0] != 0.0 or edges[-1] != 1.0 or not (np.diff(edges) > 0).all():
        raise DataError(f"Bin edges must increase from 0 to 1; got {edges.tolist()[:6]} ...")
    if w is None and np.array_equal(edges, equal_edges(k)):
        s = _bin_equal(y, p, edges)
        r = s[:, 2] - s[:, 1]
        return Bins(edges, s[:, 0], s[:, 0], s[:, 1], s[:, 2], s[:, 0], r, s[:, 3])
    s = _bin_weighted(y, p, np.ones_like(p) if w is None else w, bin_index(p, edges), k)
    return Bins(edges, *s.T)


def ece(b: Bins) -> float:
    """Expected calibration error: sum of abs(sum of w (y-p)) over bins, by the whole weight."""
    return float(np.abs(b.y - b.p).sum() / b.weight.sum())


def ece_equal(y: Floats, p: Floats, n_bins: int) -> float:
    """ECE on equal-width bins, unweighted, without the other sums."""
    return float(np.abs(_bin_residual(y, p, equal_edges(n_bins))).sum() / p.size)


@dataclass(frozen=True)
class SquaredError:
    """Squared calibration error on bins, less its bias; bins of one row are left out."""

    value: float
    plain: float  # without the correction, over the same bins
    n_left_out: int  # bins with exactly one row


def squared_error(b: Bins) -> SquaredError:
    """Squared calibration error, debiased by the variance of each bin's mean residual.

    The variance is the sample variance of y - p in the bin, unbiased for any scores on fixed
    bins; that of y alone (Kumar et al. 2019) is too low unless all scores of the bin are equal.
    """
    use = b.count >= 2.0
    n, weight = b.count[use], b.weight[use]
    gap = (b.y[use] - b.p[use]) / weight
    spread = b.square2[use] - 2.0 * gap * b.residual2[use] + gap**2 * b.weight2[use]
    var = spread / weight**2 * n / (n - 1.0)
    share = weight / b.weight.sum()
    plain = float((share * gap**2).sum())
    left_out = int(np.count_nonzero(b.count == 1.0))
    return SquaredError(plain - float((share * var).sum()), plain, left_out)


@kernel
def _add_rows(
    out: Floats, value: Floats, size: Ints, step: Floats, rng: np.random.Generator
) -> None:
    # One bin: sum of step * (Binomial(size, value) - size * value) over its distinct scores.
    for d in range(out.shape[0]):
        r = 0.0
        for k in range(value.shape[0]):
            hits = 0
            for _ in range(size[k]):
                hits += rng.random() < value[k]
            r += step[k] * (hits - size[k] * value[k])
        out[d] += abs(r)


@kernel(reassociate=True)
def _spread(value: Floats, weight2: Floats) -> float:
    total = 0.0
    for k in range(value.shape[0]):
        total += weight2[k] * value[k] * (1.0 - value[k])
    return total


def null_ece(
    value: Floats,
    weight: Floats,
    weight2: Floats,
    edges: Floats,
    n_draws: int,
    rng: np.random.Generator,
) -> Floats:
    """ECE of `n_draws` simulated outcomes y* ~ Bernoulli(p): the noise floor.

    Bins of fewer than 200 rows are simulated row by row, the others by the normal limit of
    their sum, so that the cost of a draw does not depend on n.

    Parameters
    ----------
    value, weight, weight2 : ndarray
        Distinct scores in increasing order with their sums of w and w^2. A score of several
        rows with unequal weights counts as (sum w)^2 / sum w^2 equal ones.
    """
    out = np.zeros(n_draws)
    at = np.concatenate(([0], np.searchsorted(value, edges[1:-1]), [value.size]))
    for first, last in zip(at[:-1], at[1:], strict=True):
        rows = slice(first, last)
        v = value[rows]
        if last - first < _EXACT:
            size = np.maximum(np.rint(weight[rows] ** 2 / weight2[rows]), 1.0).astype(np.int64)
            if size.sum() < _EXACT:
                _add_rows(out, v, size, weight[rows] / size, rng)
                continue
        out += np.abs(rng.standard_normal(n_draws)) * np.sqrt(_spread(v, weight2[rows]))
    return np.asarray(out / weight.sum())
