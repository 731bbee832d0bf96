"""Intervals for measures that cannot be negative (ECE, ICI, smooth ECE, MCB, ...).

Such a measure is a norm of the gap d(p) = P(y = 1 | p) - p. Its estimate is biased upwards, most
of all where the gap is zero, so that neither the bootstrap nor the delta method gives intervals
that cover. Here tests are inverted along a path of gaps c * m(p), c >= 0, which leads from
perfect calibration through the estimated gap m and beyond: a value T(c m) belongs to the
interval unless the observed statistic is extreme among statistics simulated at c.

The data enter through sums over K cells of neighbouring scores; a simulated sample is one
normal vector of residual sums with their covariance and one of cell weights. A draw costs O(K)
whatever n, and the same draws serve every c. The split of the error between the two sides
follows Feldman and Cousins (1998): at c = 0 all of it lies above, so that the interval keeps
its level at the boundary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, ndtr, ndtri

from causalrm.calibration._kernels_curve import (
    loess_matrix,
    node_spectrum,
    smooth_ece,
    smoothed,
)
from causalrm.calibration._kernels_fit import logistic
from causalrm.calibration._kernels_rank import Ties, segment_sums
from causalrm.core.kernel import kernel

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_FEW = 20.0  # cells of fewer rows are simulated row by row
_EPS = 1e-6  # scores are clipped to it where the direction of the path needs a logit


# --- cells -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cells:
    """Rows gathered in K cells of neighbouring scores, in increasing order."""

    lower: Floats  # (K,), lowest score of the cell
    p: Floats  # (K,), mean score
    weight: Floats  # (K,), sum w
    weight2: Floats  # (K,), sum w^2
    residual: Floats  # (K,), sum w (y - p)


def cells(t: Ties, n_cells: int = 256, edges: Floats | None = None) -> Cells:
    """Cells of about equal weight that respect `edges`; equal scores share a cell."""
    k = t.value.shape[0]
    if k <= n_cells:
        at = np.arange(k + 1)
    else:
        each = t.negative + t.positive
        middle = np.cumsum(each)
        total = middle[-1]
        middle -= 0.5 * each  # so that a heavy score has a cell of its own
        at = np.searchsorted(middle, np.arange(1, n_cells) / n_cells * total)
    if edges is not None:
        at = np.concatenate((at, np.searchsorted(t.value, edges[1:-1])))
    at = np.unique(np.concatenate((at, [0, k]))).astype(np.int64)
    weight = segment_sums(at, t.negative + t.positive)
    mean = segment_sums(at, (t.negative + t.positive) * t.value) / weight
    positive = segment_sums(at, t.positive)
    weight2 = weight
    if t.positive2 is not t.positive:
        weight2 = segment_sums(at, t.negative2 + t.positive2)
    return Cells(t.value[at[:-1]], mean, weight, weight2, positive - weight * mean)


def node_cells(t: Ties, nodes: int) -> Cells:
    """Cells around the nodes 0, 1/nodes, ..., 1, empty ones included, for smooth ECE."""
    at = np.rint(t.value * nodes).astype(np.int64)
    size = nodes + 1
    weight = np.bincount(at, t.negative + t.positive, size)
    weight2 = weight
    if t.positive2 is not t.positive:
        weight2 = np.bincount(at, t.negative2 + t.positive2, size)
    residual = np.bincount(at, t.residual, size)
    p = np.arange(size) / nodes
    return Cells(np.maximum(p - 0.5 / nodes, 0.0), p, weight, weight2, residual)


def direction(c: Cells, smoother: Floats | None = None) -> Floats:
    """Estimated gap in each cell: logistic recalibration, and what it misses, shrunk.

    The remainder is that of loess (or of the cells themselves when there are few); its share is
    James and Stein's positive part over ten groups of equal weight. A noisy direction would
    spread the gap over all scores, and the intervals would be too high.
    """
    z = np.log(np.clip(c.p, _EPS, 1 - _EPS) / (1 - np.clip(c.p, _EPS, 1 - _EPS)))
    positive = np.clip(c.residual + c.weight * c.p, 0.0, c.weight)
    negative = c.weight - positive
    columns: tuple[tuple[Floats | None, ...], ...] = ((None, z), (None,))
    fitted = c.p
    for choice in columns:
        fit = logistic(choice, negative, positive, inference=False)
        if fit.status == "ok":
            slope = fit.coef[1] * z if len(choice) == 2 else 0.0
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
    return np.asarray(np.clip(c.p + gap, 0.0, 1.0) - c.p)


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
    scale = np.sqrt(n_clusters / max(n_clusters - 1, 1))
    return Factor(
        residual.reshape(n_clusters, k) * scale, mass * scale, float(max(n_clusters - 1, 1))
    )


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


# --- statistics of a simulated sample ----------------------------------------------------------
# At c the residuals of draw d are c * shift[d] + (1-c)+ * noise0[d] + min(c, 1) * noise1[d].
# Kinds: 0 sum of weight * abs(v); 1 sum of weight * v^2; 2 range of the running sums; 3 share of
# weight with abs(v) > extra (to test a quantile); 4 and 5 MCB and DSC of the Brier score; 6 and
# 7 of the log score. For 4 to 7 `extra` holds the scores p.


@kernel
def _entropy(q: float) -> float:
    if q <= 0.0 or q >= 1.0:
        return 0.0
    return -q * np.log(q) - (1.0 - q) * np.log1p(-q)


@kernel
def _corp(kind: int, v: Floats, weight: Floats, p: Floats, stack: Floats) -> float:
    # `stack` (3, K): end of block, its weight, its sum of outcomes.
    top = -1
    total = 0.0
    ones = 0.0
    score = 0.0
    for k in range(v.shape[0]):
        a = weight[k]
        if a <= 0.0:
            continue
        b = v[k] + p[k] * a
        total += a
        ones += b
        if kind == 4:
            # Within a cell y is not spread out: S(p) up to a constant that MCB does not need.
            score += a * p[k] * p[k] - 2.0 * p[k] * b
        elif kind == 6:
            score -= b * np.log(p[k]) + (a - b) * np.log1p(-p[k])
        while top >= 0 and stack[1, top] * a >= b * stack[0, top]:
            a += stack[0, top]
            b += stack[1, top]
            top -= 1
        top += 1
        stack[0, top] = a
        stack[1, top] = b
    if total <= 0.0:
        return 0.0
    fitted = 0.0
    for j in range(top + 1):
        a, b = stack[0, j], stack[1, j]
        fitted += a * _entropy(b / a) if kind >= 6 else -b * b / a
    rate = ones / total
    if kind == 4 or kind == 6:
        return (score - fitted) / total
    if kind == 5:
        return -fitted / total - rate * rate
    return _entropy(rate) - fitted / total


@kernel
def _statistic(kind: int, v: Floats, weight: Floats, extra: Floats, stack: Floats) -> float:
    if kind >= 4:
        return _corp(kind, v, weight, extra, stack)
    total = 0.0
    if kind == 0:
        for k in range(v.shape[0]):
            total += weight[k] * abs(v[k])
    elif kind == 1:
        for k in range(v.shape[0]):
            total += weight[k] * v[k] * v[k]
    elif kind == 2:
        high = 0.0
        low = 0.0
        for k in range(v.shape[0]):
            total += v[k]
            high = max(high, total)
            low = min(low, total)
        return high - low
    else:
        over = 0.0
        for k in range(v.shape[0]):
            total += weight[k]
            if abs(v[k]) > extra[0]:
                over += weight[k]
        return over / total
    return total


@kernel
def _simulated(
    kind: int,
    c: float,
    shift: Floats,
    noise0: Floats,
    noise1: Floats,
    weight: Floats,
    extra: Floats,
) -> Floats:
    n_draws, k = noise0.shape
    out = np.empty(n_draws)
    v = np.empty(k)
    stack = np.empty((2, k))
    b = min(c, 1.0)
    a = 1.0 - b
    for d in range(n_draws):
        # Shift and weight have one row where they are the same in every draw.
        s = shift[d if shift.shape[0] > 1 else 0]
        w = weight[d if weight.shape[0] > 1 else 0]
        for j in range(k):
            v[j] = c * s[j] + a * noise0[d, j] + b * noise1[d, j]
        out[d] = _statistic(kind, v, w, extra, stack)
    return out


@dataclass(frozen=True)
class Statistic:
    """One measure on simulated samples, and its value along the path."""

    kind: int
    observed: float
    shift: Floats  # (B or 1, J)
    noise0: Floats  # (B, J)
    noise1: Floats
    weight: Floats  # (B or 1, J)
    extra: Floats
    truth: Callable[[float], float]  # value of the measure at gap c * m
    limit: float | None = None  # for a quantile: the share of weight allowed above `extra`

    def draws(self, c: float) -> Floats:
        """Simulated statistics at c, (B,)."""
        return np.asarray(
            _simulated(
                self.kind, c, self.shift, self.noise0, self.noise1, self.weight, self.extra
            )
        )

    def shares(self, c: float) -> tuple[float, float]:
        """Shares of simulated statistics at c below the observed one, and not above it."""
        draws = self.draws(c)
        if self.limit is not None:
            share = float((draws <= self.limit + 1e-12).mean())
            return share, share
        slack = 1e-12 * (1.0 + abs(self.observed))
        less = float((draws < self.observed - slack).mean())
        return less, float((draws <= self.observed + slack).mean())


def _row(x: Floats) -> Floats:
    return np.ascontiguousarray(x).reshape(1, -1)


def binned_statistic(s: Samples, edges: Floats, squared: bool = False) -> Statistic:
    """ECE, or the squared calibration error before its correction, on bins."""
    c = s.cells
    total = float(c.weight.sum())
    k = edges.shape[0] - 1
    member = np.zeros((c.p.shape[0], k))
    member[np.arange(c.p.shape[0]), np.searchsorted(edges[1:-1], c.p, side="right")] = 1.0
    member = member[:, (member * c.weight[:, None]).sum(axis=0) > 0.0]
    weight = total / (c.weight @ member) if squared else np.ones(member.shape[1])
    member /= total
    once = (c.weight * s.gap) @ member
    if squared:
        observed = float((weight * (c.residual @ member) ** 2).sum())
        size = float((weight * once**2).sum())
    else:
        observed = float(np.abs(c.residual @ member).sum())
        size = float(np.abs(once).sum())
    power = 2 if squared else 1
    return Statistic(
        1 if squared else 0,
        observed,
        s.shift @ member,
        s.noise0 @ member,
        s.noise1 @ member,
        _row(weight),
        np.empty(0),
        lambda x: size * x**power,
    )


def curve_statistics(s: Samples, smoother: Floats) -> dict[str, Statistic]:
    """ICI, E50, E90 and Emax of the loess curve."""
    c = s.cells
    gap = smoother @ (c.residual / c.weight)
    noise0 = (s.noise0 / c.weight) @ smoother.T
    noise1 = noise0 if s.noise1 is s.noise0 else (s.noise1 / c.weight) @ smoother.T
    shift, total = _row(smoother @ s.gap), float(c.weight.sum())
    order = np.argsort(np.abs(s.gap))
    below = np.cumsum(c.weight[order]) / total
    seen = np.argsort(np.abs(gap))
    below_seen = np.cumsum(c.weight[seen]) / total
    size = float((np.abs(s.gap) * c.weight).sum()) / total
    out = {
        "ici": Statistic(
            0,
            float((np.abs(gap) * c.weight).sum()) / total,
            shift,
            noise0,
            noise1,
            s.weight / total,
            np.empty(0),
            lambda x: size * x,
        )
    }
    for name, level in (("e50", 0.5), ("e90", 0.9), ("emax", 1.0)):
        goal = level * (1.0 - 1e-12)
        observed = float(np.abs(gap[seen[np.searchsorted(below_seen, goal)]]))
        at = float(np.abs(s.gap[order[np.searchsorted(below, goal)]]))
        out[name] = Statistic(
            3,
            observed,
            shift,
            noise0,
            noise1,
            s.weight,
            np.array([observed * (1.0 + 1e-12)]),
            lambda x, at=at: at * x,  # type: ignore[misc]
            limit=1.0 - level,
        )
    return out


def cumulative_statistic(s: Samples) -> Statistic:
    """Range of the cumulative differences (ECCE, Kuiper)."""
    c = s.cells
    total = float(c.weight.sum())

    def width(x: Floats) -> float:
        curve = np.concatenate(([0.0], np.cumsum(x)))
        return float(curve.max() - curve.min()) / total

    size = width(c.weight * s.gap)
    one = np.ones((1, 1))
    return Statistic(
        2,
        width(c.residual),
        s.shift / total,
        s.noise0 / total,
        s.noise1 / total,
        one,
        np.empty(0),
        lambda x: size * x,
    )


def smooth_statistic(s: Samples, observed: float) -> Statistic:
    """Smooth ECE, on samples drawn for `node_cells`.

    sigma* exceeds a value exactly when smECE at this sigma does, so that one fixed sigma, the
    observed one, decides every comparison.
    """
    nodes = s.cells.p.shape[0] - 1
    total = float(s.cells.weight.sum())
    edge = np.full((1, nodes + 1), 1.0 / nodes)
    edge[0, [0, -1]] *= 0.5

    def smooth(mass: Floats) -> Floats:
        spec = replace(node_spectrum(mass / total), blur=1.0 / (12.0 * nodes**2))
        return smoothed(spec, observed)

    once = node_spectrum(s.cells.weight * s.gap / total)
    noise0 = smooth(s.noise0)
    return Statistic(
        0,
        observed,
        smooth(s.shift),
        noise0,
        noise0 if s.noise1 is s.noise0 else smooth(s.noise1),
        edge,
        np.empty(0),
        lambda x: smooth_ece(replace(once, coef=once.coef * x)),
    )


def corp_statistic(s: Samples, kind: int) -> Statistic:
    """MCB (4) or DSC (5) of the Brier score, or of the log score (6, 7)."""
    c = s.cells
    p = np.clip(c.p, 1e-15, 1 - 1e-15) if kind >= 6 else c.p
    stack = np.empty((2, c.p.shape[0]))

    def at(residual: Floats) -> float:
        return float(_statistic(kind, residual, c.weight, p, stack))

    return Statistic(
        kind,
        at(c.residual),
        s.shift,
        s.noise0,
        s.noise1,
        s.weight,
        p,
        lambda x: at(c.weight * (np.clip(c.p + x * s.gap, 0.0, 1.0) - c.p)),
    )


# --- inversion ---------------------------------------------------------------------------------


@cache
def _unified(level: float) -> tuple[Floats, Floats]:
    # Feldman and Cousins for a normal mean mu >= 0: probability left below the acceptance
    # region as a function of mu; it grows from 0 to (1 - level) / 2.
    grid = np.linspace(0.0, 4.0, 81)
    out = np.zeros_like(grid)
    for j, mu in enumerate(grid[1:], start=1):

        def lower(x2: float, mu: float = mu) -> float:
            mirrored = 2.0 * mu - x2
            return mirrored if mirrored >= 0.0 else mu / 2.0 - (x2 - mu) ** 2 / (2.0 * mu)

        def excess(x2: float, mu: float = mu) -> float:
            return float(ndtr(x2 - mu) - ndtr(lower(x2) - mu)) - level

        out[j] = ndtr(lower(brentq(excess, mu, mu + 12.0)) - mu)
    return grid, out


@dataclass(frozen=True)
class Inverted:
    """Interval for a non-negative measure, and what its simulation tells besides."""

    low: float
    high: float
    median_unbiased: float
    std_error: float  # of the statistic, at the median-unbiased point of the path
    p_value: float  # of perfect calibration
    null_mean: float  # of the statistic under perfect calibration; NaN for a quantile
    centre: float  # the median-unbiased point c


def invert(t: Statistic, level: float = 0.95) -> Inverted:
    """All values of the measure that a test at 1 - level does not reject."""
    alpha = 1.0 - level
    grid, table = _unified(level)
    seen: dict[float, tuple[float, float]] = {}

    def shares(c: float) -> tuple[float, float]:
        if c not in seen:
            seen[c] = t.shares(c)
        return seen[c]

    less, null = shares(0.0)

    def below(f: float) -> float:
        # Error left on the lower side: it depends on how far the path has come, in normal units.
        if null >= 1.0 or f <= 0.0:
            return 0.5 * alpha
        return float(np.interp(ndtri(null) - ndtri(f), grid, table)) if f < null else 0.0

    def solve(f: Callable[[float], float]) -> float:
        # f falls from positive to negative.
        low, high = 0.0, 1.0
        while f(high) > 0.0:
            low, high = high, 2.0 * high
            if high > 1e6:
                return float("inf")
        while high - low > 4e-3 * high and high > 1e-9:
            middle = 0.5 * (low + high)
            low, high = (middle, high) if f(middle) > 0.0 else (low, middle)
        return 0.5 * (low + high)

    def value(c: float) -> float:
        # None of the measures exceeds one; nothing less can be said where a path has no end.
        return min(t.truth(c), 1.0) if np.isfinite(c) else 1.0

    c_low = 0.0
    if less > level:
        c_low = solve(lambda c: shares(c)[0] - (level + below(shares(c)[1])))
    least = 0.5 / t.noise0.shape[0]
    c_high = solve(lambda c: shares(c)[1] - max(below(shares(c)[1]), least))
    centre = solve(lambda c: sum(shares(c)) - 1.0) if less + null > 1.0 else 0.0
    spread = null_mean = float("nan")
    if t.limit is None:
        null_mean = float(t.draws(0.0).mean())
        if np.isfinite(centre):
            spread = float(t.draws(centre).std())
    return Inverted(
        value(c_low), value(c_high), value(centre), spread, 1.0 - less, null_mean, centre
    )
