"""Intervals for measures that cannot be negative (ECE, ICI, smooth ECE, MCB, ...).

Such a measure is a norm of the gap d(p) = P(y = 1 | p) - p. Its estimate is biased upwards, most
of all where the gap is zero, so that neither the bootstrap nor the delta method gives intervals
that cover. Here tests are inverted along a path of gaps c * m(p), c >= 0, which leads from
perfect calibration through the estimated gap m and beyond: a value T(c m) belongs to the
interval unless the observed statistic is extreme among statistics simulated at c.

The samples are those of `_kernels_cells`; the same draws serve every c. The split of the error
between the two sides follows Feldman and Cousins (1998): at c = 0 all of it lies above, so that
the interval keeps its level at the boundary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from causalrm.calibration._kernels_cells import Samples
from causalrm.calibration._kernels_curve import node_spectrum, smooth_ece, smoothed
from causalrm.core.kernel import kernel

Floats = NDArray[np.float64]


# --- statistics of a simulated sample ----------------------------------------------------------
# At c the residuals of draw d are c * shift[d] + (1-c)+ * noise0[d] + min(c, 1) * noise1[d].
# Kinds: 0 sum of weight * abs(v); 1 sum of weight * v^2; 2 range of the running sums; 3 share of
# weight with abs(v) > extra (to test a quantile); 4 and 5 MCB and DSC of the Brier score; 6 and
# 7 of the log score. For 4 to 7 `extra` holds the scores p.


@kernel
def _entropy(q: float) -> float:
    if q <= 0.0 or q >= 1.0:
        return 0.0
    h: float = -q * np.log(q) - (1.0 - q) * np.log1p(-q)
    return h


@kernel
def _corp(kind: int, v: Floats, weight: Floats, p: Floats, stack: Floats) -> float:
    # `stack` (2, K): weight of a block, its sum of outcomes.
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
    dsc: float = _entropy(rate) - fitted / total
    return dsc


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
    extreme: bool = False  # the value is that of one place, which noise may move

    def draws(self, c: float) -> Floats:
        """Simulated statistics at c, (B,)."""
        return np.asarray(
            _simulated(self.kind, c, self.shift, self.noise0, self.noise1, self.weight, self.extra)
        )

    def shares(self, draws: Floats) -> tuple[float, float]:
        """Shares of simulated statistics below the observed one, and not above it."""
        if self.limit is not None:
            share = float((draws <= self.limit + 1e-12).mean())
            return share, share
        slack = 1e-12 * (1.0 + abs(self.observed))
        less = float((draws < self.observed - slack).mean())
        return less, float((draws <= self.observed + slack).mean())


def _row(x: Floats) -> Floats:
    return np.ascontiguousarray(x).reshape(1, -1)


def _refined(s: Samples, linear: Floats, noise: Floats) -> Floats:
    # How linear functions of the residuals (K, J) should differ from those of the gap. Where
    # the gap fits them no worse than noise would, not at all; the worse it fits, the more the
    # direction follows the functions themselves, each shrunk towards zero by its own noise.
    seen, fitted = s.cells.residual @ linear, (s.cells.weight * s.gap) @ linear
    var = np.maximum(noise.var(axis=0), 1e-300)
    share = min(max(float(((seen - fitted) ** 2 / var).mean()) - 1.0, 0.0), 1.0)
    own = seen * np.maximum(1.0 - 2.0 * var / np.maximum(seen**2, 1e-300), 0.0)
    return np.asarray(share * (own - fitted))


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
    noise1 = s.noise1 @ member
    refined = _refined(s, member, noise1)
    once = (c.weight * s.gap) @ member + refined
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
        s.shift @ member + refined,
        s.noise0 @ member,
        noise1,
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
    once = smoother @ s.gap + _refined(s, smoother.T / c.weight[:, None], noise1)
    shift, total = _row(once), float(c.weight.sum())
    order = np.argsort(np.abs(once))
    below = np.cumsum(c.weight[order]) / total
    seen = np.argsort(np.abs(gap))
    below_seen = np.cumsum(c.weight[seen]) / total
    size = float((np.abs(once) * c.weight).sum()) / total
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
        at = float(np.abs(once[order[np.searchsorted(below, goal)]]))
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
            extreme=True,
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
        extreme=True,
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
    # Blocks of at least five rows: resampled single rows would be empty or tied, and ties leave
    # the isotonic fit less to bend. Where cells hold many rows two make half the work.
    rows = float(c.weight.sum() ** 2 / c.weight2.sum()) / c.p.shape[0]
    step = 2 if rows > 40.0 else int(np.ceil(5.0 / max(rows, 5.0 / c.p.shape[0])))
    start = np.arange(0, c.p.shape[0], step)

    def join(x: Floats) -> Floats:
        return np.asarray(np.add.reduceat(x, start, axis=-1))

    weight = join(c.weight)
    p = join(c.weight * c.p) / weight
    gap = join(c.weight * s.gap) / weight
    if kind >= 6:
        p = np.clip(p, 1e-15, 1 - 1e-15)
    stack = np.empty((2, p.shape[0]))

    def at(residual: Floats) -> float:
        return float(_statistic(kind, residual, weight, p, stack))

    return Statistic(
        kind,
        at(join(c.residual)),
        join(s.shift),
        join(s.noise0),
        join(s.noise1),
        join(s.weight),
        p,
        lambda x: at(weight * (np.clip(p + x * gap, 0.0, 1.0) - p)),
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


def doubt(bias: float, level: float) -> float:
    """What the error of a bias correction, a normal one of half the bias, adds in quadrature."""
    return 0.5 * abs(bias) * float(ndtri(0.5 + 0.5 * level))


def invert(t: Statistic, level: float = 0.95) -> Inverted:
    """All values of the measure that a test at 1 - level does not reject."""
    alpha = 1.0 - level
    grid, table = _unified(level)
    seen: dict[float, tuple[float, float, Floats]] = {}

    def at_point(c: float) -> tuple[float, float, Floats]:
        if c not in seen:
            draws = t.draws(c)
            seen[c] = (*t.shares(draws), draws)
        return seen[c]

    def shares(c: float) -> tuple[float, float]:
        return at_point(c)[:2]

    less, null = shares(0.0)
    least = 0.5 / t.noise0.shape[0]

    def score(share: float) -> float:
        return float(ndtri(min(max(share, least), 1.0 - least)))

    def below(share: float) -> float:
        # Error left on the lower side: it depends on how far the path has come, in normal units.
        if null >= 1.0 or share <= 0.0:
            return 0.5 * alpha
        return float(np.interp(ndtri(null) - ndtri(share), grid, table)) if share < null else 0.0

    def solve(f: Callable[[float], float]) -> float:
        # f falls from positive to negative, about linearly: false position, with halving of
        # the end that stays (Illinois), inside a bracket that doubling has found.
        low, high = 0.0, 1.0
        f_low, f_high = f(low), f(high)
        if f_low <= 0.0:
            return low
        while f_high > 0.0:
            low, high, f_low = high, 2.0 * high, f_high
            if high > 1e6:
                return float("inf")
            f_high = f(high)
        side = 0
        while high - low > 4e-3 * high and high > 1e-9:
            c = (low * f_high - high * f_low) / (f_high - f_low)
            c = min(max(c, low + 0.02 * (high - low)), high - 0.02 * (high - low))
            at = f(c)
            if abs(at) < 0.02:  # within the error of a thousand draws
                return c
            if at > 0.0:
                low, f_low = c, at
                f_high *= 0.5 if side > 0 else 1.0
                side = 1
            else:
                high, f_high = c, at
                f_low *= 0.5 if side < 0 else 1.0
                side = -1
        return 0.5 * (low + high)

    def value(c: float) -> float:
        # None of the measures exceeds one; nothing less can be said where a path has no end.
        return min(t.truth(c), 1.0) if np.isfinite(c) else 1.0

    def lower(c: float) -> float:
        strictly, share = shares(c)
        return score(strictly) - score(level + below(share))

    def upper(c: float) -> float:
        share = shares(c)[1]
        return score(share) - score(max(below(share), 2.0 * least))

    c_low = solve(lower) if less > level else 0.0
    c_high = solve(upper)
    centre = 0.0
    if less + null > 1.0:
        centre = solve(lambda c: score(0.5 * sum(shares(c))))
    spread = null_mean = float("nan")
    if t.limit is None:
        null_mean = float(at_point(0.0)[2].mean())
        if np.isfinite(centre):
            spread = float(at_point(centre)[2].std())
    low, middle, high = value(c_low), value(centre), value(max(c_low, c_high))
    if t.extreme and np.isfinite(centre):
        # One path cannot vary the shape of the curve, on which the bias of an extreme depends. A
        # lower limit above zero stays there: the test of perfect calibration needs no shape.
        unsure = doubt(t.observed - middle, level)
        high = min(middle + float(np.hypot(high - middle, unsure)), 1.0)
        if low > 0.0:
            low *= float(np.exp((middle - low - np.hypot(middle - low, unsure)) / low))
    return Inverted(low, high, middle, spread, 1.0 - less, null_mean, centre)
