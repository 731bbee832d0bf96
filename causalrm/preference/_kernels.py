"""Paired comparisons: log-likelihoods, sums over votes, and histograms of coded votes.

A vote has a linear predictor z = strength of a - strength of b + position effect + x'beta and an
outcome y: 1 (a wins), 0 (b wins), 1/2 (tie), or a share of a win in between where ties are halves.
Some models have a tie parameter tau: log(nu) of Davidson, log(theta) of Rao and Kupper.
"""

from __future__ import annotations

import math

import numpy as np

from causalrm.core.kernel import kernel

HALF_LOGIT, HALF_PROBIT, DAVIDSON, RAO_KUPPER_LOGIT, RAO_KUPPER_PROBIT = range(5)
_ROOT = math.sqrt(2.0)
_LOG_ROOT_2PI = 0.5 * math.log(2.0 * math.pi)


# ---------------------------------------------------------------- one vote


@kernel(inline=True)
def _logistic(u: float) -> tuple[float, float, float]:
    """Log of the logistic function, its derivative, and minus its second derivative."""
    e = math.exp(-abs(u))
    q = (e if u > 0 else 1.0) / (1.0 + e)
    return min(u, 0.0) - math.log1p(e), q, q * (1.0 - q)


@kernel(inline=True)
def _normal(u: float) -> tuple[float, float, float]:
    """Log of the normal distribution function, its derivative, and minus its second one."""
    if u > -5.0:
        p = 0.5 * math.erfc(-u / _ROOT)
        r = math.exp(-0.5 * u * u - _LOG_ROOT_2PI) / p
        return math.log(p), r, r * (r + u)
    x, rest = -u, 0.0  # continued fraction of the Mills ratio, without cancellation in the tail
    for m in range(60, 0, -1):
        rest = m / (x + rest)
    r = x + rest
    return -0.5 * u * u - _LOG_ROOT_2PI - math.log(r), r, r * rest


@kernel(inline=True)
def vote(
    model: int, z: float, tau: float, y: float
) -> tuple[float, float, float, float, float, float]:
    """Log-likelihood of one vote, its score in (z, tau), and minus its second derivatives.

    Returns value, s_z, s_tau, h_zz, h_ztau, h_tautau; minus infinity for tau <= 0 where it is a
    threshold.
    """
    if model == HALF_LOGIT:
        e = math.exp(-abs(z))
        p = (1.0 if z > 0 else e) / (1.0 + e)
        return y * z - max(z, 0.0) - math.log1p(e), y - p, 0.0, p * (1.0 - p), 0.0, 0.0
    if model == HALF_PROBIT:
        la, sa, ha = _normal(z)
        lb, sb, hb = _normal(-z)
        m = 1.0 - y
        return y * la + m * lb, y * sa - m * sb, 0.0, y * ha + m * hb, 0.0, 0.0
    if model == DAVIDSON:
        top = max(0.5 * abs(z), tau)
        a, b, t = math.exp(0.5 * z - top), math.exp(-0.5 * z - top), math.exp(tau - top)
        total = a + b + t
        a, b, t = a / total, b / total, t / total
        tie = 1.0 if y == 0.5 else 0.0
        won = y - 0.5
        mean = 0.5 * (a - b)
        value = won * z + tie * tau - top - math.log(total)
        curve = 0.25 * (a + b) - mean * mean
        return value, won - mean, tie - t, curve, -mean * t, t * (1.0 - t)
    if tau <= 0.0:
        return -np.inf, 0.0, 0.0, 0.0, 0.0, 0.0
    if y != 0.5:
        sign = 1.0 if y > 0.5 else -1.0
        if model == RAO_KUPPER_LOGIT:
            value, s, h = _logistic(sign * z - tau)
        else:
            value, s, h = _normal(sign * z - tau)
        return value, sign * s, -s, h, -sign * h, h
    if model == RAO_KUPPER_LOGIT:
        la, sa, ha = _logistic(z + tau)
        lb, sb, hb = _logistic(tau - z)
        e = math.expm1(2.0 * tau)
        value = la + lb + math.log(-math.expm1(-2.0 * tau))
        return value, sa - sb, sa + sb + 2.0 / e, ha + hb, ha - hb, ha + hb + 4.0 * (e + 1) / e**2
    u = -abs(z)  # the tie is symmetric in z; in the lower tail nothing cancels
    la, sa, _ = _normal(u + tau)
    lb, sb, _ = _normal(u - tau)
    rest = -math.expm1(lb - la)  # of the probability below u + tau, the part above u - tau
    da, db = sa / rest, sb * math.exp(lb - la) / rest  # densities over the tie's probability
    ca, cb = (u + tau) * da, (u - tau) * db
    s, s_tau = da - db, da + db
    sign = -1.0 if z > 0 else 1.0
    h = s * s + ca - cb
    cross = sign * (s * s_tau + ca + cb)
    return la + math.log(rest), sign * s, s_tau, h, cross, s_tau * s_tau + ca - cb


@kernel
def votes(
    model: int, z: np.ndarray, tau: float, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-likelihoods of votes and their scores in z and tau."""
    value, s_z, s_tau = np.empty(z.size), np.empty(z.size), np.empty(z.size)
    for r in range(z.size):
        value[r], s_z[r], s_tau[r], _, _, _ = vote(model, z[r], tau, y[r])
    return value, s_z, s_tau


# ---------------------------------------------------------------- sums over votes


@kernel
def accumulate(
    model: int,
    i: np.ndarray,
    j: np.ndarray,
    y: np.ndarray,
    w: np.ndarray,
    pair: np.ndarray,
    x: np.ndarray,
    strength: np.ndarray,
    common: np.ndarray,
    has_tau: int,
    meat: bool,
    laplacian: np.ndarray,
    border: np.ndarray,
    corner: np.ndarray,
    score: np.ndarray,
    score_common: np.ndarray,
) -> float:
    """Add weighted log-likelihoods, scores and information (or outer products of scores).

    The matrix over (strengths, common parameters) is a weighted graph Laplacian, bordered:
    `laplacian` (pairs,) takes the weight of each pair, `border` (items, q) and `corner` (q, q) the
    rest. With `meat` the products of scores take the place of the information.

    Parameters
    ----------
    i, j, y, w, pair : ndarray of shape (n,)
        Items, outcome, weight and number of the pair of each vote, or of a heap of equal votes.
    x : ndarray of shape (q - has_tau, n)
    strength : ndarray of shape (items,)
    common : ndarray of shape (q,)
        tau, where there is one, then the coefficients of `x`.
    """
    q = common.size
    tau = common[0] if has_tau else 0.0
    total = 0.0
    d = np.zeros(q)
    for r in range(i.size):
        if w[r] == 0.0:
            continue
        z = strength[i[r]] - strength[j[r]]
        for c in range(has_tau, q):
            d[c] = x[c - has_tau, r]
            z += common[c] * d[c]
        value, s, s_tau, h, h_cross, h_tau = vote(model, z, tau, y[r])
        total += w[r] * value
        if meat:
            h, h_cross, h_tau = s * s, s * s_tau, s_tau * s_tau
        else:
            score[i[r]] += w[r] * s
            score[j[r]] -= w[r] * s
            for c in range(has_tau, q):
                score_common[c] += w[r] * s * d[c]
        h *= w[r]
        laplacian[pair[r]] += h
        if has_tau:
            score_common[0] += w[r] * s_tau
            border[i[r], 0] += w[r] * h_cross
            border[j[r], 0] -= w[r] * h_cross
            corner[0, 0] += w[r] * h_tau
            for c in range(1, q):
                corner[0, c] += w[r] * h_cross * d[c]
        for c in range(has_tau, q):
            hd = h * d[c]
            border[i[r], c] += hd
            border[j[r], c] -= hd
            for e in range(c, q):
                corner[c, e] += hd * d[e]
    return total


@kernel
def add_scores(
    model: int,
    rows: np.ndarray,
    a: np.ndarray,
    table_a: np.ndarray,
    b: np.ndarray,
    table_b: np.ndarray,
    y: np.ndarray,
    w: np.ndarray,
    x: np.ndarray,
    position: int,
    cluster: np.ndarray,
    table: np.ndarray,
    first: int,
    strength: np.ndarray,
    common: np.ndarray,
    has_tau: int,
    known: np.ndarray,
    out: np.ndarray,
) -> None:
    """Add the scores of some rows to those of their clusters, `first` being the first in `out`.

    `w` and `x` may be empty: unit weights, no covariates. The code of a cluster or item is
    ``table[value]``. `known`, unless empty, has the scores by (a, b, outcome), which saves
    computing them for every row; shape (2, k * k * 3).
    """
    k, q = strength.size, common.size
    tau = common[0] if has_tau else 0.0
    for n in range(rows.size):
        r = rows[n]
        i, j = table_a[a[r]], table_b[b[r]]
        if known.size:
            cell = (np.int64(i) * k + j) * 3 + int(2.0 * y[r])
            s, s_tau = known[0, cell], known[1, cell]
        else:
            z = strength[i] - strength[j]
            if position:
                z += common[has_tau]
            for c in range(has_tau + position, q):
                z += common[c] * x[c - has_tau - position, r]
            _, s, s_tau, _, _, _ = vote(model, z, tau, float(y[r]))
        if w.size:
            s, s_tau = w[r] * s, w[r] * s_tau
        g = table[cluster[r]] - first
        out[g, i] += s
        out[g, j] -= s
        if has_tau:
            out[g, k] += s_tau
        if position:
            out[g, k + has_tau] += s
        for c in range(has_tau + position, q):
            out[g, k + c] += s * x[c - has_tau - position, r]


@kernel
def outer_products(sums: np.ndarray, out: np.ndarray) -> None:
    """Add the outer product of every row to `out` (upper triangle), skipping zeros."""
    used = np.empty(sums.shape[1], np.int64)
    for g in range(sums.shape[0]):
        m = 0
        for c in range(sums.shape[1]):
            if sums[g, c] != 0.0:
                used[m] = c
                m += 1
        for u in range(m):
            value = sums[g, used[u]]
            for v in range(u, m):
                out[used[u], used[v]] += value * sums[g, used[v]]


# ---------------------------------------------------------------- coded votes


@kernel
def histogram(
    a: np.ndarray,
    table_a: np.ndarray,
    b: np.ndarray,
    table_b: np.ndarray,
    y: np.ndarray,
    k: int,
    out: np.ndarray,
) -> int:
    """Count votes by (a, b, outcome) in `out` (k * k * 3); the number of outcomes that are others.

    The outcomes 0, 1/2, 1 have the codes 0, 1, 2.
    """
    odd = 0
    three = np.uint64(3)
    first = table_a.astype(np.uint64) * np.uint64(3 * k)
    second = table_b.astype(np.uint64) * three
    for r in range(y.size):
        twice = 2.0 * y[r]
        c = np.uint64(twice)  # unsigned places need no check for counting from the end
        if twice != c or c >= three:
            odd += 1
            continue
        out[first[np.uint64(a[r])] + second[np.uint64(b[r])] + c] += 1
    return odd


@kernel
def weighted_histogram(
    a: np.ndarray,
    table_a: np.ndarray,
    b: np.ndarray,
    table_b: np.ndarray,
    y: np.ndarray,
    w: np.ndarray,
    square: np.ndarray,
    k: int,
    out: np.ndarray,
) -> None:
    """Sums of weights and of their squares by (a, b, outcome); `out` has shape (2, k * k * 3)."""
    for r in range(y.size):
        cell = (np.int64(table_a[a[r]]) * k + table_b[b[r]]) * 3 + int(2.0 * y[r])
        out[0, cell] += w[r]
        out[1, cell] += square[r]


@kernel
def bucket(cluster: np.ndarray, table: np.ndarray, width: int, starts: np.ndarray) -> np.ndarray:
    """Row numbers ordered by bucket of `width` clusters; `starts` takes where buckets begin."""
    for r in range(cluster.size):
        starts[table[cluster[r]] // width + 1] += 1
    for g in range(1, starts.size):
        starts[g] += starts[g - 1]
    place = starts[:-1].copy()
    order = np.empty(cluster.size, np.uint32)
    for r in range(cluster.size):
        g = table[cluster[r]] // width
        order[place[g]] = r
        place[g] += 1
    return order


# ---------------------------------------------------------------- ranks


@kernel
def largest(draws: np.ndarray, scale: np.ndarray, open_: np.ndarray, out: np.ndarray) -> None:
    """Per draw the largest of (z_i - z_j) / se_ij over the ordered pairs that are still open."""
    for r in range(draws.shape[0]):
        top = 0.0
        for i in range(draws.shape[1]):
            for j in range(draws.shape[1]):
                if open_[i, j]:
                    top = max(top, (draws[r, i] - draws[r, j]) * scale[i, j])
        out[r] = top
