"""Everything ranked, from one sort: ties, AUC, pool-adjacent-violators, ECCE, net benefit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from causalrm.core.kernel import kernel

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Ties:
    """The distinct scores in increasing order, with the weight of either outcome at each.

    Without weights `negative2` and `positive2` are the same arrays as `negative`, `positive`.
    """

    value: Floats  # (K,)
    negative: Floats  # sum w (1 - y)
    positive: Floats  # sum w y
    negative2: Floats  # sum w^2 (1 - y)
    positive2: Floats  # sum w^2 y

    @property
    def weight(self) -> Floats:
        """Weight at each score."""
        return np.asarray(self.negative + self.positive)

    @property
    def weight2(self) -> Floats:
        """Squared weight at each score."""
        return np.asarray(self.negative2 + self.positive2)


@kernel
def _ties_packed(key: Ints, negative: Floats, positive: Floats) -> int:
    # Sums so far are written at every row, without a branch that could be predicted wrongly.
    last = k = -1
    ones = zeros = 0.0
    for i in range(key.shape[0]):
        bits, one = key[i] >> 1, float(key[i] & 1)
        new = bits != last
        k += new
        ones = one if new else ones + one
        zeros = 1.0 - one if new else zeros + (1.0 - one)
        key[k], negative[k], positive[k] = bits, zeros, ones
        last = bits
    return k + 1


@kernel
def _ties_weighted(y: Floats, p: Floats, w: Floats, order: Ints) -> tuple[int, Floats]:
    n = p.shape[0]
    out = np.zeros((5, n))
    k = -1
    for j in range(n):
        i = order[j]
        v = w[i]
        if v == 0.0:
            continue
        if k < 0 or p[i] != out[0, k]:
            k += 1
            out[0, k] = p[i]
        side = 2 if y[i] > 0.5 else 1
        out[side, k] += v
        out[side + 2, k] += v * v
    return k + 1, out


def ties(y: Floats, p: Floats, w: Floats | None = None) -> Ties:
    """Sort once and gather equal scores.

    Without weights the bits of p, which order numbers in [0, 1] as integers do, are shifted by
    one to make room for y and sorted as they are: no index, no second pass through memory.
    """
    if w is None:
        key = p.view(np.int64) << 1  # which turns -0.0 into 0.0
        key |= y > 0.5
        key.sort()
        negative, positive = np.empty_like(p), np.empty_like(p)
        k = _ties_packed(key, negative, positive)
        value, negative, positive = key[:k].view(np.float64), negative[:k], positive[:k]
        return Ties(value, negative, positive, negative, positive)
    k, out = _ties_weighted(y, p, w, np.argsort(p))
    return Ties(*(row[:k] for row in out))


@kernel(reassociate=True)
def segment_sums(start: Ints, x: Floats) -> Floats:
    """Sums of x[start[j]:start[j+1]], shape (len(start) - 1,); empty segments have sum zero."""
    out = np.zeros(start.shape[0] - 1)
    for j in range(out.shape[0]):
        total = 0.0
        for i in range(start[j], start[j + 1]):
            total += x[i]
        out[j] = total
    return out


def tail(t: Ties, thresholds: Floats) -> Floats:
    """Sums (w y, w (1-y), w^2 y, w^2 (1-y)) at or above increasing thresholds, (4, T)."""
    at = np.append(np.searchsorted(t.value, thresholds, side="left"), t.value.shape[0])
    parts = [t.positive, t.negative]
    if t.positive2 is not t.positive:
        parts += [t.positive2, t.negative2]
    out = np.array([np.cumsum(segment_sums(at, x)[::-1])[::-1] for x in parts])
    return out if len(parts) == 4 else np.concatenate((out, out))


# --- discrimination ----------------------------------------------------------------------------


@kernel
def _auc(negative: Floats, positive: Floats, negative2: Floats, positive2: Floats) -> Floats:
    # Outcomes 0 meet the outcomes 1 below them, from the bottom; outcomes 1 the outcomes 0 above
    # them, from the top. Near AUC = 1 these misplacements keep the digits that ranks would lose.
    # A row per class: its weight, its squared weight, and the misplacements of the other class:
    # their sum, and their sum and square by squared weight.
    last = negative.shape[0] - 1
    ones = ones2 = miss = linear0 = square0 = 0.0
    zeros = zeros2 = linear1 = square1 = 0.0
    for k in range(last + 1):
        below = ones + 0.5 * positive[k]
        part = negative2[k] * below
        miss += negative[k] * below
        linear0 += part
        square0 += part * below
        ones += positive[k]
        ones2 += positive2[k]
        above = zeros + 0.5 * negative[last - k]
        part = positive2[last - k] * above
        linear1 += part
        square1 += part * above
        zeros += negative[last - k]
        zeros2 += negative2[last - k]
    return np.array(
        [[ones, ones2, miss, linear0, square0], [zeros, zeros2, miss, linear1, square1]]
    )


@dataclass(frozen=True)
class Auc:
    """Area under the ROC curve, NaN when one class is missing, with DeLong's standard error."""

    value: float
    std_error: float


def auc(t: Ties) -> Auc:
    """AUC (ties count one half) and DeLong's standard error, weighted if the ties are.

    With weights the variance is linearised: squared weights on the squared deviations of the
    placements, and w^2-effective sizes in place of the two class sizes.
    """
    one, zero = _auc(t.negative, t.positive, t.negative2, t.positive2)
    if not (one[0] > 0.0 and zero[0] > 0.0):
        return Auc(float("nan"), float("nan"))
    miss = float(one[2] / (one[0] * zero[0]))
    var = 0.0
    for (total, w2, _, _, _), (other, _, _, linear, square) in ((one, zero), (zero, one)):
        size = total**2 / w2
        if size <= 1.0:
            return Auc(1.0 - miss, float("nan"))
        spread = square / other**2 - 2.0 * miss * linear / other + miss**2 * w2
        var += max(spread, 0.0) / total**2 * size / (size - 1.0)
    return Auc(1.0 - miss, float(np.sqrt(var)))


@kernel
def _placements(y: Floats, p: Floats, w: Floats, order: Ints) -> Floats:
    n = p.shape[0]
    total0 = 0.0
    total1 = 0.0
    for i in range(n):
        if y[i] > 0.5:
            total1 += w[i]
        else:
            total0 += w[i]
    out = np.empty(n)
    below = 0.0
    passed = 0.0
    j = 0
    while j < n:
        start = j
        ones = 0.0
        zeros = 0.0
        while j < n and p[order[j]] == p[order[start]]:
            if y[order[j]] > 0.5:
                ones += w[order[j]]
            else:
                zeros += w[order[j]]
            j += 1
        for m in range(start, j):
            if y[order[m]] > 0.5:
                out[order[m]] = (below + 0.5 * zeros) / total0
            else:
                out[order[m]] = (total1 - passed - 0.5 * ones) / total1
        below += zeros
        passed += ones
    return out


def auc_influence(y: Floats, p: Floats, w: Floats | None = None) -> tuple[float, Floats]:
    """AUC and its influence values (n,); their squares add up to DeLong's variance.

    Values of two scores on the same rows give DeLong's covariance, and sums within clusters
    that of Obuchowski (1997).
    """
    weight = np.ones_like(p) if w is None else w
    placement = _placements(y, p, weight, np.argsort(p))
    case = y > 0.5
    total1, total0 = float(weight[case].sum()), float(weight[~case].sum())
    if total1 <= 0.0 or total0 <= 0.0:
        return float("nan"), np.full_like(p, np.nan)
    area = float((weight * placement)[case].sum() / total1)
    psi = weight * (placement - area)
    for members, total in ((case, total1), (~case, total0)):
        size = total**2 / float((weight[members] ** 2).sum())
        correction = np.sqrt(size / (size - 1.0)) if size > 1.0 else np.nan
        psi[members] *= correction / total
    return area, psi


# --- isotonic regression and CORP --------------------------------------------------------------


@kernel
def _pool(weight: Floats, total: Floats, start: Ints, w: Floats, s: Floats) -> int:
    # Joins every run of means that do not rise: no block of the solution ends inside it. Sums so
    # far are written at every value, without a branch that could be predicted wrongly.
    k = -1
    first = 0
    last_a = last_b = sum_a = sum_b = 0.0
    for i in range(weight.shape[0]):
        a, b = weight[i], total[i]
        rise = (last_b * a < b * last_a) | (i == 0)
        k += rise
        sum_a = a if rise else sum_a + a
        sum_b = b if rise else sum_b + b
        first = i if rise else first
        start[k], w[k], s[k] = first, sum_a, sum_b
        last_a, last_b = a, b
    return k + 1


@kernel
def _pav(start: Ints, weight: Floats, total: Floats) -> int:
    # A stack of blocks at the head of the arrays; each new value joins the blocks on top while
    # they violate the order.
    top = -1
    for i in range(weight.shape[0]):
        first, a, b = start[i], weight[i], total[i]
        while top >= 0 and total[top] * a >= b * weight[top]:
            a += weight[top]
            b += total[top]
            first = start[top]
            top -= 1
        top += 1
        start[top], weight[top], total[top] = first, a, b
    return top + 1


@dataclass(frozen=True)
class Isotonic:
    """Blocks of an isotonic regression: rows start[j] to start[j+1]-1 share value[j]."""

    start: Ints  # (J,)
    weight: Floats  # (J,)
    value: Floats  # (J,), strictly increasing


def isotonic(weight: Floats, total: Floats) -> Isotonic:
    """Non-decreasing weighted least squares of total/weight, weights positive, in order."""
    start, w, s = np.empty(weight.size, np.int64), np.empty_like(weight), np.empty_like(weight)
    k = _pool(weight, total, start, w, s)
    k = _pav(start[:k], w[:k], s[:k])
    return Isotonic(start[:k].copy(), w[:k].copy(), s[:k] / w[:k])


@dataclass(frozen=True)
class Corp:
    """Score decomposition S = MCB - DSC + UNC (Dimitriadis, Gneiting and Jordan 2021)."""

    score: float
    mcb: float
    dsc: float
    unc: float


def _entropy(weight: Floats, q: Floats) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        h = q * np.log(q) + (1.0 - q) * np.log1p(-q)
    return -float((weight * np.where((q > 0.0) & (q < 1.0), h, 0.0)).sum())


@kernel(reassociate=True)
def _brier(value: Floats, negative: Floats, positive: Floats) -> float:
    total = 0.0
    for k in range(value.shape[0]):
        v = value[k]
        total += positive[k] * (1.0 - v) * (1.0 - v) + negative[k] * v * v
    return total


def corp(t: Ties, fit: Isotonic, log_score: bool = False) -> Corp:
    """MCB, DSC and UNC of the Brier score, or of the log score (MCB may be infinite)."""
    weight = float(fit.weight.sum())
    rate = float((fit.weight * fit.value).sum()) / weight
    if log_score:
        with np.errstate(divide="ignore", invalid="ignore"):
            hit = np.where(t.positive > 0.0, t.positive * np.log(t.value), 0.0)
            miss = np.where(t.negative > 0.0, t.negative * np.log1p(-t.value), 0.0)
        score = -float(hit.sum() + miss.sum()) / weight
        fitted = _entropy(fit.weight, fit.value) / weight
        unc = _entropy(np.ones(1), np.array([rate]))
    else:
        score = _brier(t.value, t.negative, t.positive) / weight
        fitted = float((fit.weight * fit.value * (1.0 - fit.value)).sum()) / weight
        unc = rate * (1.0 - rate)
    # DSC is zero for a single block and never negative, which rounding would not know.
    dsc = max(unc - fitted, 0.0) if fit.value.size > 1 else 0.0
    return Corp(score, score - fitted, dsc, unc)


# --- the cumulative curve ----------------------------------------------------------------------


@dataclass(frozen=True)
class Cumulative:
    """Range of the cumulative differences (Kuiper), on the scale of probabilities.

    `sigma` is the standard deviation that the end of the curve has under perfect calibration.
    """

    range: float
    sigma: float


@kernel
def _cumulative(
    value: Floats, negative: Floats, positive: Floats, negative2: Floats, positive2: Floats
) -> tuple[float, float]:
    high, low, curve, var, total = 0.0, 0.0, 0.0, 0.0, 0.0
    for k in range(value.shape[0]):
        v = value[k]
        curve += positive[k] * (1.0 - v) - negative[k] * v
        high = max(high, curve)
        low = min(low, curve)
        var += (negative2[k] + positive2[k]) * v * (1.0 - v)
        total += negative[k] + positive[k]
    return high / total - low / total, np.sqrt(var) / total


def cumulative(t: Ties) -> Cumulative:
    """Cumulative sum of w (y-p) over the sorted scores, read between ties, start included."""
    return Cumulative(*_cumulative(t.value, t.negative, t.positive, t.negative2, t.positive2))


def brownian_range_sf(x: float) -> float:
    """P(range of a Brownian motion on [0, 1] > x) (Feller 1951)."""
    if not x > 0.4:  # below it the probability differs from one by less than 1e-12
        return 1.0 if x == x else float("nan")
    k = np.arange(1.0, 4.0 + np.ceil(40.0 / x))
    terms = k * ndtr(-k * x)
    return float(np.clip(8.0 * (terms[::2].sum() - terms[1::2].sum()), 0.0, 1.0))


# --- net benefit -------------------------------------------------------------------------------


@dataclass(frozen=True)
class NetBenefit:
    """Net benefit by threshold, of the score and of treating all; treating none has zero."""

    threshold: Floats  # (T,)
    value: Floats
    std_error: Floats
    treat_all: Floats
    gain: Floats  # value - max(treat_all, 0)
    gain_std_error: Floats


def net_benefit(
    t: Ties,
    thresholds: Floats,
    psi: tuple[Floats, Floats] | None = None,
) -> NetBenefit:
    """TP/n - FP/n * t/(1-t), rows with p >= t being treated.

    Standard errors treat rows as independent draws; `psi` replaces the variances of the value
    and of the gain where rows are clustered (see `net_benefit_variances`).
    """
    odds = thresholds / (1.0 - thresholds)
    ones, zeros = float(t.positive.sum()), float(t.negative.sum())
    total = ones + zeros
    ones2, zeros2 = float(t.positive2.sum()), float(t.negative2.sum())
    tp, fp, tp2, fp2 = tail(t, thresholds)
    value = (tp - fp * odds) / total
    every = (ones - zeros * odds) / total
    best_all = every > 0.0
    gain = value - np.where(best_all, every, 0.0)
    if psi is None:
        size = total**2 / (ones2 + zeros2)
        factor = size / max(size - 1.0, 1.0) / total**2
        whole = ones2 + zeros2
        var = tp2 + fp2 * odds**2 - 2 * value * (tp2 - fp2 * odds) + value**2 * whole
        # Against treating all, a row counts where it is left untreated, with the other sign.
        un1, un0 = ones2 - tp2, zeros2 - fp2
        against = un1 + un0 * odds**2 - 2 * gain * (un0 * odds - un1) + gain**2 * whole
        gain_var = np.where(best_all, against, var) * factor
        var = var * factor
    else:
        var, gain_var = psi
    return NetBenefit(
        thresholds,
        value,
        np.sqrt(np.maximum(var, 0.0)),
        every,
        gain,
        np.sqrt(np.maximum(gain_var, 0.0)),
    )


def net_benefit_variances(
    y: Floats,
    p: Floats,
    w: Floats | None,
    thresholds: Floats,
    cluster: Ints,
    n_clusters: int,
) -> tuple[Floats, Floats]:
    """Variances of the net benefit and of its gain, rows summed within clusters first."""
    weight = np.ones_like(p) if w is None else w
    total = weight.sum()
    factor = n_clusters / max(n_clusters - 1, 1)
    out = np.empty((2, thresholds.shape[0]))
    for j, threshold in enumerate(thresholds):
        odds = threshold / (1.0 - threshold)
        worth = np.where(y > 0.5, 1.0, -odds)
        every = float((weight * worth).sum() / total)
        for i, g in enumerate((worth * (p >= threshold), worth * (p < threshold))):
            if i == 1 and every <= 0.0:
                out[1, j] = out[0, j]
                continue
            psi = weight * (g - (weight * g).sum() / total) / total
            sums = np.bincount(cluster, psi, n_clusters)
            out[i, j] = float(sums @ sums) * factor
    return out[0], out[1]
