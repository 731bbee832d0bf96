r"""The adapted power generalised Weibull distribution, row by row.

With y = log t, a = log phi, b = log lambda, c = log gamma, k = kappa, nu = log(k + 1):

    z = e^c (y + a),  A = log(1 + e^(z - nu)),  s = 1 / (1 + e^(nu - z)),
    H = e^b M(z, nu),  M = (k + 1) (e^(k A) - 1) / k,
    log h = b + c + z - y + L(z, nu),  L = (k - 1) A.

Derivatives in k go through f(x) = expm1(x) / x, so k = 0 needs no branch; k = infinity is the
limit M = expm1(e^z), L = e^z. Source: Burke, Jones and Noufaily (2020), doi 10.1111/rssc.12398.

Row derivatives are stored as an array of shape (15, n): the value, the gradient in (a, b, c, nu),
and the ten second derivatives in the order of `PAIRS`.
"""

from __future__ import annotations

import math

import numpy as np

from causalrm.core.kernel import kernel

PAIRS = [(i, j) for i in range(4) for j in range(i, 4)]
SLOT = {pair: 5 + m for m, pair in enumerate(PAIRS)}
_TILE = 256


def standard(z: np.ndarray, kappa: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A, s and expm1(k A) of standardised log times; for k = infinity e^z, 0, expm1(e^z).

    numpy's vectorised exp and log1p are several times faster than those of a scalar loop.
    """
    with np.errstate(over="ignore"):
        if np.isinf(kappa):
            u = np.exp(z)
            return u, np.zeros_like(u), np.expm1(u)
        w = z - math.log1p(kappa)
        e = np.exp(-np.abs(w))
        big_a = np.maximum(w, 0.0) + np.log1p(e)
        s = np.where(w >= 0.0, 1.0, e) / (1.0 + e)
        return big_a, s, np.expm1(kappa * big_a)


@kernel(inline=True)
def _cumulative(big_a: float, s: float, em: float, k: float) -> tuple[float, ...]:
    """M and its derivatives: M, M_z, M_nu, M_zz, M_znu, M_nunu."""
    if k == math.inf:
        mz = big_a * (em + 1.0)
        return em, mz, 0.0, mz * (1.0 + big_a), 0.0, 0.0
    k1 = k + 1.0
    x = k * big_a
    e = em + 1.0
    # f(x) = expm1(x)/x and its first two derivatives; both forms are computed and one is chosen,
    # because a branch would keep the loop from being vectorised
    f0 = 1 + x * (1 / 2 + x * (1 / 6 + x * (1 / 24 + x * (1 / 120 + x * (1 / 720 + x / 5040)))))
    f1 = 1 / 144 + x * (1 / 840 + x / 5760)
    f1 = 1 / 2 + x * (1 / 3 + x * (1 / 8 + x * (1 / 30 + x * f1)))
    f2 = 1 / 168 + x * (1 / 960 + x / 6480)
    f2 = 1 / 3 + x * (1 / 4 + x * (1 / 10 + x * (1 / 36 + x * f2)))
    large = abs(x) >= 0.05
    per_x = 1.0 / x
    closed0 = em * per_x
    closed1 = (e - closed0) * per_x
    closed2 = (e - 2.0 * closed1) * per_x
    f0 = closed0 if large else f0
    f1 = closed1 if large else f1
    f2 = closed2 if large else f2
    q = k1 * big_a
    g0 = q * f0
    g1 = q * q * f1
    g2 = q * q * q * f2
    mz = k1 * s * e
    return (
        g0,
        mz,
        g0 + g1 - mz,
        mz * (1.0 + (k - 1.0) * s),
        mz * (q - (k - 1.0) * s),
        g0 + 3.0 * g1 + g2 - mz * (1.0 + 2.0 * q + (1.0 - k) * s),
    )


@kernel(inline=True)
def _hazard(big_a: float, s: float, k: float) -> tuple[float, ...]:
    """L and its derivatives: L, L_z, L_nu, L_zz, L_znu, L_nunu."""
    if k == math.inf:
        return big_a, big_a, 0.0, big_a, 0.0, 0.0
    k1 = k + 1.0
    ss = (k - 1.0) * s * (1.0 - s)
    ln = k1 * big_a - (k - 1.0) * s
    return (k - 1.0) * big_a, (k - 1.0) * s, ln, ss, k1 * s - ss, k1 * big_a - 2.0 * k1 * s + ss


@kernel
def exact_rows(
    time: np.ndarray,
    event: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    k: float,
    out: np.ndarray,
) -> None:
    """Log-likelihood of rows with an observed or right-censored time, with its derivatives.

    All of it in one call: many short numpy calls would make threads wait for the interpreter.

    Parameters
    ----------
    time : ndarray of shape (n,)
    event : ndarray of shape (n,)
        1 for an event, 0 for a censored time.
    a, b, c : ndarray of shape (n,)
        log phi, log lambda, log gamma.
    k : float
    out : ndarray of shape (15, n)
        Filled.
    """
    # One buffer with fixed offsets: LLVM then knows that stores do not touch the inputs, and
    # vectorises the second loop, which is three times faster.
    buffer = np.empty(23 * _TILE)
    limit = k == math.inf
    nu = 0.0 if limit else math.log1p(k)
    last_b, last_c, li, gi = 0.0, 0.0, 1.0, 1.0
    for start in range(0, time.size, _TILE):
        m = min(_TILE, time.size - start)
        for i in range(m):
            r = start + i
            if b[r] != last_b:
                last_b = b[r]
                li = math.exp(last_b)
            if c[r] != last_c:
                last_c = c[r]
                gi = math.exp(last_c)
            y = math.log(time[r])
            z = gi * (y + a[r])
            if limit:
                ai = math.exp(z)
                si = 0.0
                ei = math.expm1(ai)
            else:
                u = z - nu
                e = math.exp(-abs(u))
                ai = max(u, 0.0) + math.log1p(e)
                si = (1.0 if u >= 0.0 else e) / (1.0 + e)
                ei = math.expm1(k * ai)
            buffer[i] = z
            buffer[_TILE + i] = ai
            buffer[2 * _TILE + i] = si
            buffer[3 * _TILE + i] = ei
            buffer[4 * _TILE + i] = gi
            buffer[5 * _TILE + i] = li
            buffer[6 * _TILE + i] = b[r] + c[r] - y
            buffer[7 * _TILE + i] = event[r]
        for i in range(m):
            zi, ai = buffer[i], buffer[_TILE + i]
            si, ei = buffer[2 * _TILE + i], buffer[3 * _TILE + i]
            gi, li = buffer[4 * _TILE + i], buffer[5 * _TILE + i]
            level, d = buffer[6 * _TILE + i], buffer[7 * _TILE + i]
            c0, cz, cn, czz, czn, cnn = _cumulative(ai, si, ei, k)
            h, hz, hn, hzz, hzn, hnn = _hazard(ai, si, k)
            lz = d * (1.0 + hz) - li * cz
            lzz = d * hzz - li * czz
            lzn = d * hzn - li * czn
            buffer[8 * _TILE + i] = d * (level + zi + h) - li * c0
            buffer[9 * _TILE + i] = gi * lz
            buffer[10 * _TILE + i] = d - li * c0
            buffer[11 * _TILE + i] = d + zi * lz
            buffer[12 * _TILE + i] = d * hn - li * cn
            buffer[13 * _TILE + i] = gi * gi * lzz
            buffer[14 * _TILE + i] = -li * gi * cz
            buffer[15 * _TILE + i] = gi * lz + gi * zi * lzz
            buffer[16 * _TILE + i] = gi * lzn
            buffer[17 * _TILE + i] = -li * c0
            buffer[18 * _TILE + i] = -li * zi * cz
            buffer[19 * _TILE + i] = -li * cn
            buffer[20 * _TILE + i] = zi * lz + zi * zi * lzz
            buffer[21 * _TILE + i] = zi * lzn
            buffer[22 * _TILE + i] = d * hnn - li * cnn
        for r in range(15):
            first = (8 + r) * _TILE
            for i in range(m):
                out[r, start + i] = buffer[first + i]


@kernel
def weigh(
    rows: np.ndarray, active: np.ndarray, w: np.ndarray, g: np.ndarray, out: np.ndarray
) -> float:
    """Weighted gradients and Hessian weights of the active parameters; returns the log-likelihood.

    Parameters
    ----------
    rows : ndarray of shape (15, n)
        From `row_derivatives`.
    active : ndarray of shape (m,)
        Numbers of the parameters, increasing.
    w : ndarray of shape (n,) or (1,)
        Weights, or one for all.
    g : ndarray of shape (m, n)
        Filled with the gradients.
    out : ndarray of shape (2, m (m + 1) / 2, n)
        Filled with second derivatives and with products of gradients, by pair.
    """
    m, n = g.shape
    step = 1 if w.size > 1 else 0
    value = 0.0
    for i in range(n):
        value += w[step * i] * rows[0, i]
    for p in range(m):
        for i in range(n):
            g[p, i] = w[step * i] * rows[1 + active[p], i]
    slot = 0
    for p in range(m):
        for q in range(p, m):
            first = active[p]
            row = 5 + 4 * first - first * (first - 1) // 2 + active[q] - first
            for i in range(n):
                out[0, slot, i] = w[step * i] * rows[row, i]
                out[1, slot, i] = g[p, i] * g[q, i]
            slot += 1
    return value


@kernel
def add_entry(
    z: np.ndarray,
    big_a: np.ndarray,
    s: np.ndarray,
    em: np.ndarray,
    g: np.ndarray,
    lam: np.ndarray,
    k: float,
    out: np.ndarray,
) -> None:
    """Add H(entry) of rows seen only from `entry` on, z and what follows from it being of entry."""
    for i in range(z.size):
        if z[i] == -math.inf:  # under observation from the start
            continue
        m, mz, mn, mzz, mzn, mnn = _cumulative(big_a[i], s[i], em[i], k)
        zi, gi, li = z[i], g[i], lam[i]
        out[0, i] += li * m
        out[1, i] += li * gi * mz
        out[2, i] += li * m
        out[3, i] += li * zi * mz
        out[4, i] += li * mn
        out[5, i] += li * gi * gi * mzz
        out[6, i] += li * gi * mz
        out[7, i] += li * (gi * mz + gi * zi * mzz)
        out[8, i] += li * gi * mzn
        out[9, i] += li * m
        out[10, i] += li * zi * mz
        out[11, i] += li * mn
        out[12, i] += li * (zi * mz + zi * zi * mzz)
        out[13, i] += li * zi * mzn
        out[14, i] += li * mnn


@kernel(inline=True)
def _fill(
    first: np.ndarray,
    second: np.ndarray,
    z: float,
    big_a: float,
    s: float,
    em: float,
    g: float,
    lam: float,
    k: float,
) -> float:
    """H with gradient (4,) and second derivatives (10,) in (a, b, c, nu)."""
    if z == -math.inf:
        first[:] = 0.0
        second[:] = 0.0
        return 0.0
    m, mz, mn, mzz, mzn, mnn = _cumulative(big_a, s, em, k)
    first[0] = lam * g * mz
    first[1] = lam * m
    first[2] = lam * z * mz
    first[3] = lam * mn
    second[0] = lam * g * g * mzz
    second[1] = lam * g * mz
    second[2] = lam * (g * mz + g * z * mzz)
    second[3] = lam * g * mzn
    second[4] = lam * m
    second[5] = lam * z * mz
    second[6] = lam * mn
    second[7] = lam * (z * mz + z * z * mzz)
    second[8] = lam * z * mzn
    second[9] = lam * mnn
    return lam * m


@kernel
def interval_rows(
    rows: np.ndarray,
    z0: np.ndarray,
    a0: np.ndarray,
    s0: np.ndarray,
    em0: np.ndarray,
    z1: np.ndarray,
    a1: np.ndarray,
    s1: np.ndarray,
    em1: np.ndarray,
    g: np.ndarray,
    lam: np.ndarray,
    k: float,
    out: np.ndarray,
) -> None:
    """Overwrite `out` at `rows` by log[S(lower) - S(upper)] and its derivatives.

    Suffix 0 belongs to the lower end, 1 to the upper end; both ends have one entry per row.
    """
    f0, f1 = np.empty(4), np.empty(4)
    h0, h1 = np.empty(10), np.empty(10)
    for i in rows:
        lower = _fill(f0, h0, z0[i], a0[i], s0[i], em0[i], g[i], lam[i], k)
        upper = _fill(f1, h1, z1[i], a1[i], s1[i], em1[i], g[i], lam[i], k)
        diff = upper - lower
        # d log(1 - e^-diff) = q d(diff); q -> 1/diff for narrow intervals
        q = 1.0 / math.expm1(diff)
        out[0, i] = -lower + math.log(-math.expm1(-diff))
        m = 0
        for p in range(4):
            dp = f1[p] - f0[p]
            out[1 + p, i] = q * dp - f0[p]
            for r in range(p, 4):
                dr = f1[r] - f0[r]
                out[5 + m, i] = q * (h1[m] - h0[m]) - q * (1.0 + q) * dp * dr - h0[m]
                m += 1
        if not (diff < 700.0):  # S(upper) is zero to machine precision
            out[0, i] = -lower
            for p in range(4):
                out[1 + p, i] = -f0[p]
            for p in range(10):
                out[5 + p, i] = -h0[p]


@kernel
def curve_rows(
    z: np.ndarray,
    big_a: np.ndarray,
    s: np.ndarray,
    em: np.ndarray,
    g: np.ndarray,
    lam: np.ndarray,
    log_level: np.ndarray,
    k: float,
    out: np.ndarray,
) -> None:
    """H, its gradient, log h and its gradient in (a, b, c, nu); `out` has shape (10, n)."""
    for i in range(z.size):
        if z[i] == -math.inf:
            out[:, i] = 0.0
            out[5, i] = math.nan  # the hazard at zero is reported by its limit elsewhere
            continue
        m, mz, mn, _, _, _ = _cumulative(big_a[i], s[i], em[i], k)
        h, hz, hn, _, _, _ = _hazard(big_a[i], s[i], k)
        zi, gi, li = z[i], g[i], lam[i]
        out[0, i] = li * m
        out[1, i] = li * gi * mz
        out[2, i] = li * m
        out[3, i] = li * zi * mz
        out[4, i] = li * mn
        out[5, i] = log_level[i] + zi + h
        out[6, i] = gi * (1.0 + hz)
        out[7, i] = 1.0
        out[8, i] = 1.0 + zi * (1.0 + hz)
        out[9, i] = hn


def row_derivatives(
    time: np.ndarray,
    event: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    kappa: float,
    entry: np.ndarray | None = None,
    upper: np.ndarray | None = None,
) -> np.ndarray:
    """Log-likelihood contributions with gradient and second derivatives.

    Parameters
    ----------
    time : ndarray of shape (n,)
        Observed or right-censored time; the lower end of an interval (0 for left censoring).
    event : ndarray of shape (n,)
        1 for an event at `time`, 0 for censoring.
    a, b, c : ndarray of shape (n,)
        log phi, log lambda, log gamma.
    kappa : float
        Above -1; infinity for the Gompertz limit.
    entry : ndarray of shape (n,), optional
        Start of observation.
    upper : ndarray of shape (n,), optional
        Upper end of an interval in which the event lies; infinity where the row is exact or
        right-censored.

    Returns
    -------
    ndarray of shape (15, n)
    """
    n = len(time)
    out = np.empty((15, n))
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        exact_rows(time, event, a, b, c, kappa, out)
        if upper is not None or entry is not None:
            g, lam = np.exp(c), np.exp(b)
        if upper is not None:
            rows = np.flatnonzero(np.isfinite(upper))
            if rows.size:
                z, zu = g * (np.log(time) + a), g * (np.log(upper) + a)
                interval_rows(
                    rows, z, *standard(z, kappa), zu, *standard(zu, kappa), g, lam, kappa, out
                )
            right = np.flatnonzero(~np.isfinite(upper) & (time == 0))
            out[:, right] = 0.0  # censored at zero: nothing was seen
        if entry is not None:
            ze = g * (np.log(entry) + a)
            add_entry(ze, *standard(ze, kappa), g, lam, kappa, out)
    return out


def curves(
    time: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray, kappa: float
) -> np.ndarray:
    """H, its gradient in (a, b, c, nu), log h and its gradient; shape (10, n).

    Parameters are as in `row_derivatives`, broadcast to one shape (n,).
    """
    out = np.empty((10, len(time)))
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        g = np.exp(c)
        y = np.log(time)
        z = g * (y + a)
        curve_rows(z, *standard(z, kappa), g, np.exp(b), b + c - y, kappa, out)
    return out


def quantile(
    p: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray, kappa: float
) -> np.ndarray:
    """Time by which a share `p` has had the event; infinity for those who are cured.

    Parameters are as in `curves`, with `p` in [0, 1).
    """
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        e = -np.log1p(-p) * np.exp(-b)
        if np.isinf(kappa):
            log_u = np.log(np.log1p(e))
        else:
            x = kappa * e / (kappa + 1.0)
            # log1p(x)/kappa tends to e as kappa tends to 0
            v = e if kappa == 0.0 else np.where(x > -1.0, np.log1p(x) / kappa, np.inf)
            log_u = math.log1p(kappa) + np.log(np.expm1(v))
        return np.asarray(np.exp(log_u * np.exp(-c) - a))


def turning_point(a: np.ndarray, c: np.ndarray, kappa: float) -> np.ndarray:
    """Time at which the hazard turns; NaN where it is monotone."""
    g = np.exp(c)
    with np.errstate(divide="ignore", invalid="ignore"):
        if math.isinf(kappa):
            u = (1.0 - g) / g
        else:
            u = (g - 1.0) * (kappa + 1.0) / (1.0 - g * kappa)
        return np.where(u > 0, np.exp(np.log(np.where(u > 0, u, 1.0)) / g - a), np.nan)
