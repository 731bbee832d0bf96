"""Scores gathered in cells, and samples simulated in them.

Everything that needs resampling works on sums over K cells of neighbouring scores: a simulated
sample is one vector of residual sums and one of cell weights, so that it costs O(K) whatever n.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from causalrm.calibration._kernels_fit import EPS, logistic, logit
from causalrm.calibration._kernels_rank import Ties, segment_sums
from causalrm.core.kernel import kernel

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_FEW = 20.0  # cells of fewer rows are simulated row by row
_FITTED = 3.0  # parameters of the direction: two of a logistic curve, and what is added to it


# --- cells -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cells:
    """Rows gathered in K cells of neighbouring scores, in increasing order."""

    lower: Floats  # (K,), lowest score of the cell
    p: Floats  # (K,), mean score
    weight: Floats  # (K,), sum w
    weight2: Floats  # (K,), sum w^2
    residual: Floats  # (K,), sum w (y - p)


def cells(t: Ties, n_cells: int = 200, edges: Floats | None = None) -> Cells:
    """Cells of about equal weight that respect `edges`; equal scores share a cell."""
    k = t.value.shape[0]
    if k <= n_cells:
        at = np.arange(k + 1)
    elif t.positive2 is t.positive and float(segment_sums(np.array([0, k]), t.weight)[0]) == k:
        at = np.arange(n_cells) * k // n_cells  # every score stands alone
    else:
        middle = np.cumsum(t.weight)
        total = middle[-1]
        middle -= 0.5 * t.weight  # so that a heavy score has a cell of its own
        at = np.searchsorted(middle, np.arange(1, n_cells) / n_cells * total)
    if edges is not None:
        at = np.concatenate((at, np.searchsorted(t.value, edges[1:-1])))
    at = np.unique(np.concatenate((at, [0, k]))).astype(np.int64)
    weight = segment_sums(at, t.weight)
    mean = segment_sums(at, t.weight * t.value) / weight
    positive = segment_sums(at, t.positive)
    weight2 = segment_sums(at, t.weight2)
    return Cells(t.value[at[:-1]], mean, weight, weight2, positive - weight * mean)


def node_cells(t: Ties, nodes: int) -> Cells:
    """Cells around the nodes 0, 1/nodes, ..., 1, empty ones included, for smooth ECE."""
    at = np.searchsorted(t.value, (np.arange(nodes) + 0.5) / nodes)
    at = np.concatenate(([0], at, [t.value.shape[0]]))
    residual = segment_sums(at, t.positive) - segment_sums(at, t.weight * t.value)
    p = np.arange(nodes + 1) / nodes
    lower = np.maximum(p - 0.5 / nodes, 0.0)
    return Cells(lower, p, segment_sums(at, t.weight), segment_sums(at, t.weight2), residual)


def direction(c: Cells, smoother: Floats | None = None) -> Floats:
    """Estimated gap in each cell: logistic recalibration, and what it misses, shrunk.

    The remainder is that of loess (or of the cells themselves when there are few); its share is
    James and Stein's positive part over ten groups of equal weight. A noisy direction would
    spread the gap over all scores, and the intervals would be too high.
    """
    z = logit(c.p, EPS)[0]
    positive = np.clip(c.residual + c.weight * c.p, 0.0, c.weight)
    negative = c.weight - positive
    fitted = c.p
    # the mean alone where a slope is not identified
    curves: tuple[tuple[Floats | None, ...], ...] = ((None, z), (None,))
    for columns in curves:
        fit = logistic(columns, negative, positive, inference=False)
        if fit.status == "ok":
            slope = fit.coef[1] * z if len(columns) == 2 else 0.0
            fitted = np.asarray(np.broadcast_to(expit(fit.coef[0] + slope), c.p.shape))
            break
    gap = fitted - c.p
    rest = c.residual - c.weight * gap
    var = c.weight2 * np.maximum(fitted * (1.0 - fitted), 1e-9)
    total = np.cumsum(c.weight)
    group = np.minimum(((total - c.weight / 2) / total[-1] * 10).astype(np.int64), 9)
    r, v = np.bincount(group, rest, 10), np.bincount(group, var, 10)
    used = v > 0.0
    chi2 = float((r[used] ** 2 / v[used]).sum())
    share = max(0.0, 1.0 - (np.count_nonzero(used) - 2) / chi2) if chi2 > 0.0 else 0.0
    if share > 0.0:
        mean = np.divide(rest, c.weight, out=np.zeros_like(rest), where=c.weight > 0.0)
        gap = gap + share * (mean if smoother is None else smoother @ mean)
    # An assumed curve of 0 or 1 would have no noise: as many rows could not have shown that.
    least = 0.5 * float(c.weight2.sum() / total[-1] ** 2)
    return np.asarray(np.clip(c.p + gap, least, 1.0 - least) - c.p)


# --- simulated samples -------------------------------------------------------------------------


@dataclass(frozen=True)
class Samples:
    """Simulated cell sums: weights (B, K), and residual noise at c = 0 and c = 1 (B, K)."""

    cells: Cells
    gap: Floats  # (K,), the direction m
    weight: Floats
    noise0: Floats
    noise1: Floats

    @property
    def shift(self) -> Floats:
        """What the gap adds to the residual sums at c = 1, (B, K)."""
        return np.asarray(self.weight * self.gap)


@dataclass(frozen=True)
class Factor:
    """Noise as independent normal multiples of G rows: clusters, or replicates of a design."""

    residual: Floats  # (G, K), residual sums y - p - m within cells
    weight: Floats  # (G, K), weights within cells, less their expected share
    df: float  # degrees of freedom of the scale


def cluster_factor(
    c: Cells,
    gap: Floats,
    y: Floats,
    p: Floats,
    w: Floats | None,
    cluster: Ints,
    n_clusters: int,
    rng: np.random.Generator,
    at_most: int = 1000,
) -> Factor:
    """Sums by cluster and cell; very many clusters are first added up in random groups.

    Sums of independent clusters are independent, so the covariance stays unbiased.
    """
    if n_clusters > at_most:
        cluster = rng.permutation(n_clusters)[cluster] % at_most
        n_clusters = at_most
    k = c.p.shape[0]
    cell = np.searchsorted(c.lower, p, side="right") - 1
    flat = cluster * k + np.maximum(cell, 0)
    weight = np.ones_like(p) if w is None else w
    residual = np.bincount(flat, weight * (y - p - gap[cell]), n_clusters * k)
    mass = np.bincount(flat, weight, n_clusters * k).reshape(n_clusters, k)
    mass = mass - mass.sum(axis=1, keepdims=True) * (c.weight / c.weight.sum())
    # The gap was fitted to the same rows: residuals of a cluster are what leaving it out would
    # leave (CR3), a cluster's leverage being its share of the weight for each parameter.
    share = np.bincount(cluster, weight, n_clusters) / weight.sum()
    residual = residual.reshape(n_clusters, k) / np.maximum(1.0 - _FITTED * share, 0.5)[:, None]
    scale = np.sqrt(n_clusters / max(n_clusters - 1, 1))
    return Factor(residual, mass * scale, float(max(n_clusters - 1, 1)))


def samples(
    c: Cells,
    gap: Floats,
    n_draws: int,
    rng: np.random.Generator,
    factor: Factor | None = None,
) -> Samples:
    """Draw cell weights and residual noise.

    Independent rows: the rows of a cell are Poisson and their outcomes Bernoulli at the assumed
    curve; in cells of many rows both are replaced by their normal limits. Nothing is estimated
    from the spread inside a cell, which may hold a single row.
    """
    shape = (n_draws, c.p.shape[0])
    if factor is not None:
        z = rng.standard_normal((n_draws, factor.residual.shape[0]))
        z *= np.sqrt(factor.df / rng.chisquare(factor.df, (n_draws, 1)))
        noise = z @ factor.residual
        return Samples(c, gap, np.maximum(c.weight + z @ factor.weight, 0.0), noise, noise)
    used = c.weight > 0.0
    size = np.divide(c.weight2, c.weight, out=np.zeros_like(c.weight), where=used)
    rows = np.divide(c.weight, size, out=np.zeros_like(size), where=used)
    q = np.clip(c.p + gap, 0.0, 1.0)
    noise0, noise1 = np.empty(shape), np.empty(shape)
    few = rows < _FEW
    weight = rows + rng.standard_normal(shape) * np.sqrt(rows)
    weight[:, few] = rng.poisson(rows[few], (n_draws, int(few.sum())))
    z = rng.standard_normal((n_draws, int((~few).sum())))
    z *= np.sqrt(np.maximum(weight[:, ~few], 0.0))
    noise0[:, ~few] = z * np.sqrt(c.p * (1.0 - c.p))[~few]
    noise1[:, ~few] = z * np.sqrt(q * (1.0 - q))[~few]
    _draw_rows(np.flatnonzero(few), weight, c.p, q, noise0, noise1, rng)
    for x in (weight, noise0, noise1):
        x *= size
    return Samples(c, gap, np.maximum(weight, 0.0), noise0, noise1)


@kernel
def _draw_rows(
    few: Ints,
    weight: Floats,
    p: Floats,
    q: Floats,
    noise0: Floats,
    noise1: Floats,
    rng: np.random.Generator,
) -> None:
    # Outcomes of single rows; one uniform number serves both ends of the path.
    for d in range(weight.shape[0]):
        for k in few:
            n = int(weight[d, k])
            a = 0
            b = 0
            for _ in range(n):
                u = rng.random()
                a += u < p[k]
                b += u < q[k]
            noise0[d, k] = a - n * p[k]
            noise1[d, k] = b - n * q[k]


# --- the isotonic curve of a sample ---------------------------------------------------------------


@kernel
def _isotonic_draws(noise: Floats, weight: Floats, p: Floats) -> Floats:
    n_draws, k = noise.shape
    out = np.empty((n_draws, k))
    first = np.empty(k, np.int64)
    stack = np.empty((2, k))
    for d in range(n_draws):
        top = -1
        for j in range(k):
            a = weight[d, j]
            b = noise[d, j] + p[j] * a
            start = j
            # A cell that a sample left empty takes the value of the block before it.
            while top >= 0 and (a <= 0.0 or stack[1, top] * a >= b * stack[0, top]):
                a += stack[0, top]
                b += stack[1, top]
                start = first[top]
                top -= 1
            top += 1
            first[top] = start
            stack[0, top] = a
            stack[1, top] = b
        end = k
        for m in range(top, -1, -1):
            value = stack[1, m] / stack[0, m] if stack[0, m] > 0.0 else p[first[m]]
            out[d, first[m] : end] = min(max(value, 0.0), 1.0)
            end = first[m]
    return out


def consistency_band(s: Samples, level: float) -> tuple[Floats, Floats]:
    """Pointwise quantiles of the isotonic curve under perfect calibration, on the cells."""
    draws = _isotonic_draws(s.noise0, s.weight, s.cells.p)
    tail = 0.5 - 0.5 * level
    low, high = np.quantile(draws, [tail, 1.0 - tail], axis=0)
    return np.asarray(low), np.asarray(high)
