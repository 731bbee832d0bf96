r"""Rows of the selective-labels model: risk r = a + Z, test with log odds alpha r + d.

Over Z ~ U(0, s), with b = a + d, sigma the logistic function, alpha = 1 and
F(v) = softplus(v + s) - softplus(v) = log1p(expm1(s) sigma(v)):

    P(T=0) = F(-b - s) / s
    P(T=1, Y=0) = q [F(b) - F(a)] / s,               q = 1 / (1 - e^{-d}),
    P(T=1, Y=1) = [q F(a) - (q - 1) F(b)] / s.

Where these cancel, are 0/0 or overflow, and for alpha != 1, Gauss-Legendre takes over, on panels
short enough for the poles of the logistic function; a normal Z has equally spaced nodes. Terms are
positive, so that sums of probabilities keep their relative precision; the extremes, which would
underflow, are summed in log space. Source: Balachandar, Garg and Pierson (2024), arXiv 2312.03878,
for the model.

Row derivatives are stored as an array of shape (8, n): the log-likelihood, its derivatives in
a, d, s, alpha, and the second derivatives aa, ad, dd.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from causalrm.core.kernel import kernel

UNTESTED, POSITIVE, NEGATIVE = 0, 1, 2
PANEL = 8.0  # longest panel of 16 Gauss-Legendre nodes, in units of log odds
_SAFE = 300.0  # log odds up to which products of probabilities stay far from underflow


def codes(tested: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Code each row UNTESTED, POSITIVE or NEGATIVE; y of the untested is not read."""
    positive = np.where(tested, y, 0.0) == 1.0
    return np.where(tested, np.where(positive, POSITIVE, NEGATIVE), UNTESTED).astype(np.int8)


# --- identical rows -------------------------------------------------------------------------------


@kernel
def _hash(keys: np.ndarray, out: np.ndarray) -> None:
    for i in range(keys.shape[0]):
        h = np.uint64(1469598103934665603)
        for j in range(keys.shape[1]):
            h = (h ^ keys[i, j]) * np.uint64(1099511628211)
            h ^= h >> np.uint64(29)
        out[i] = h


def collapse(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find identical rows of a matrix of numbers.

    Parameters
    ----------
    keys : ndarray of shape (n, m)

    Returns
    -------
    first : ndarray of int, shape (u,)
        One row of each kind, in the order of the data.
    inverse : ndarray of int, shape (n,)
        Which of the kinds each row is.
    """
    keys = np.ascontiguousarray(keys, dtype=float) + 0.0  # -0.0 becomes 0.0
    hashes = np.empty(len(keys), dtype=np.uint64)
    _hash(keys.view(np.uint64), hashes)
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    if not np.array_equal(keys[first][inverse], keys):  # two kinds share a hash
        _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return first[order], rank[inverse.ravel()]


# --- quadrature -----------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _legendre(panels: int) -> tuple[np.ndarray, np.ndarray]:
    t, w = np.polynomial.legendre.leggauss(16)
    nodes = (np.arange(panels)[:, None] + 0.5 * (1.0 + t)).ravel() / panels
    return nodes, np.tile(0.5 * w, panels) / panels


def _trapezoid(s: float, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Equally spaced nodes, whose error falls like exp(-2 pi^2 / (h reach)) for a normal law.

    Gauss-Hermite needs several times as many once sigma is above 1. The range is wide enough for
    rows whose probability lies in a tail of Z, up to log odds of about 30.
    """
    h = min(0.6, 0.72 / (s * max(1.0, alpha) + 1e-300))
    limit = 6.5 + min(s * (1.0 + alpha), 30.0 / (s + 1e-300) + 0.5)
    t = h * np.arange(-math.ceil(limit / h), math.ceil(limit / h) + 1)
    w = np.exp(-0.5 * t * t)
    return t, w / w.sum()


def rule(s: float, alpha: float, law: str) -> tuple[np.ndarray, np.ndarray]:
    """Nodes t and weights such that E f(Z) = sum of w f(s t).

    The integrand has poles at a distance of pi / (s max(1, alpha)) from the real line, which sets
    how many nodes are needed.
    """
    if law == "normal":
        return _trapezoid(s, alpha)
    return _legendre(max(1, math.ceil(s * max(1.0, alpha) / PANEL)))


@kernel(inline=True)
def _node(code: int, x: float, e: float, alpha: float) -> tuple[float, ...]:
    """One node from x = e^{-r} and e = e^{-eta}: probability and first and second log derivatives.

    In the order r, eta, rr, eta eta; eta is alpha r + d.
    """
    pe = 1.0 / (1.0 + e)
    qe = e * pe
    if code == 0:
        return qe, 0.0, -pe, 0.0, -pe * qe
    pr = 1.0 / (1.0 + x)
    qr = x * pr
    if code == 1:
        return pe * pr, qr, qe, -pr * qr, -pe * qe
    return pe * qr, -pr, qe, -pr * qr, -pe * qe


@kernel(reassociate=True)
def _quadrature(
    code: int,
    a: float,
    d: float,
    alpha: float,
    z: np.ndarray,
    w: np.ndarray,
    ex: np.ndarray,
    ee: np.ndarray,
    t: np.ndarray,
) -> tuple[float, ...]:
    """Probability of a row and its derivatives; `ex` and `ee` are exp(-z) and exp(-alpha z)."""
    xa = math.exp(-a)
    ea = math.exp(-alpha * a - d)
    p = pa = pd = ps = pl = paa = pad = pdd = 0.0
    for j in range(z.size):
        h, lr, le, lrr, lee = _node(code, xa * ex[j], ea * ee[j], alpha)
        h *= w[j]
        la = lr + alpha * le
        p += h
        pa += h * la
        pd += h * le
        ps += h * la * t[j]
        pl += h * le * (a + z[j])
        paa += h * (la * la + lrr + alpha * alpha * lee)
        pad += h * (la * le + alpha * lee)
        pdd += h * (le * le + lee)
    return p, pa, pd, ps, pl, paa, pad, pdd


@kernel(reassociate=True)
def _quadrature_value(
    code: int, xa: float, ea: float, w: np.ndarray, ex: np.ndarray, ee: np.ndarray
) -> float:
    p = 0.0
    if code == 0:
        for j in range(w.size):
            e = ea * ee[j]
            p += w[j] * e / (1.0 + e)
    elif code == 1:
        for j in range(w.size):
            p += w[j] / ((1.0 + ea * ee[j]) * (1.0 + xa * ex[j]))
    else:
        for j in range(w.size):
            x = xa * ex[j]
            p += w[j] * x / ((1.0 + ea * ee[j]) * (1.0 + x))
    return p


@kernel(inline=True)
def _softplus(v: float) -> float:
    return max(v, 0.0) + math.log1p(math.exp(-abs(v)))


@kernel(inline=True)
def _logistic(v: float) -> float:
    e = math.exp(-abs(v))
    return (1.0 if v >= 0.0 else e) / (1.0 + e)


@kernel
def _log_space(
    code: int, a: float, d: float, alpha: float, z: np.ndarray, w: np.ndarray, t: np.ndarray
) -> tuple[float, ...]:
    """As `_quadrature`, with the log of the largest term taken out: shift and scaled sums."""
    top = -math.inf
    terms = np.empty(z.size)
    for j in range(z.size):
        r = a + z[j]
        eta = alpha * r + d
        if code == 0:
            f = -_softplus(eta)
        else:
            f = -_softplus(-eta) - _softplus(-r if code == 1 else r)
        terms[j] = f + math.log(w[j])
        top = max(top, terms[j])
    p = pa = pd = ps = pl = paa = pad = pdd = 0.0
    for j in range(z.size):
        r = a + z[j]
        eta = alpha * r + d
        pe, qe = _logistic(eta), _logistic(-eta)
        pr, qr = _logistic(r), _logistic(-r)
        le = -pe if code == 0 else qe
        lr = 0.0 if code == 0 else (qr if code == 1 else -pr)
        lrr = 0.0 if code == 0 else -pr * qr
        lee = -pe * qe
        h = math.exp(terms[j] - top)
        la = lr + alpha * le
        p += h
        pa += h * la
        pd += h * le
        ps += h * la * t[j]
        pl += h * le * r
        paa += h * (la * la + lrr + alpha * alpha * lee)
        pad += h * (la * le + alpha * lee)
        pdd += h * (le * le + lee)
    return top, p, pa, pd, ps, pl, paa, pad, pdd


# --- closed form, alpha = 1 -----------------------------------------------------------------------


@kernel(inline=True)
def _middle(a: float, d: float, s: float) -> bool:
    """Whether the closed form neither cancels nor overflows."""
    corner = abs(d) < 0.02 or abs(d) > 20.0 or s < 0.02 or s > _SAFE
    return not (corner or a > 12.0 or a + s < -8.0 or a + d > 15.0)


@kernel(inline=True)
def _closed_value(code: int, a: float, d: float, s: float, es: float) -> float:
    """Probability of a row; `es` is e^s."""
    if code == 0:
        return math.log1p((es - 1.0) / (1.0 + math.exp(a + d) * es)) / s
    x = math.exp(a)
    ed = math.exp(d)
    y = x * ed
    c0 = 1.0 / (1.0 + y)
    q = ed / (ed - 1.0)
    n = q * math.log1p((es - 1.0) * x * (ed - 1.0) * c0 / (1.0 + x * es))
    return (n if code == 2 else math.log1p((es - 1.0) * y * c0) - n) / s


@kernel(inline=True)
def _closed(code: int, a: float, d: float, s: float, es: float) -> tuple[float, ...]:
    """Probability of a row and its derivatives."""
    per = 1.0 / s
    if code == 0:
        y = math.exp(a + d)
        c0, c1 = 1.0 / (1.0 + y), 1.0 / (1.0 + y * es)  # chances of no test at Z = 0 and Z = s
        p = math.log1p((es - 1.0) * c1) * per
        pb = -y * (es - 1.0) * c0 * c1 * per  # a product, where c1 - c0 would cancel
        pbb = y * (c0 * c0 - es * c1 * c1) * per
        return p, pb, pb, (c1 - p) * per, 0.0, pbb, pbb, pbb
    x = math.exp(a)
    ed = math.exp(d)
    y = x * ed
    a0, c0 = 1.0 / (1.0 + x), 1.0 / (1.0 + y)
    a1, c1 = 1.0 / (1.0 + x * es), 1.0 / (1.0 + y * es)
    fa, fb = x * (es - 1.0) * a0 * a1, y * (es - 1.0) * c0 * c1
    ga, gb = x * (es * a1 * a1 - a0 * a0), y * (es * c1 * c1 - c0 * c0)
    q = ed / (ed - 1.0)
    q1 = -q / (ed - 1.0)
    q2 = -q1 * (2.0 * q - 1.0)
    gap = math.log1p((es - 1.0) * x * (ed - 1.0) * c0 * a1)  # F(b) - F(a), without cancellation
    # P(T=1, Y=0) s = q gap; P(T=1, Y=1) s = F(b) - q gap
    n, na, nd, ns = q * gap, q * (fb - fa), q1 * gap + q * fb, q * x * es * (ed - 1.0) * a1 * c1
    naa, nad, ndd = q * (gb - ga), q1 * (fb - fa) + q * gb, q2 * gap + 2.0 * q1 * fb + q * gb
    if code == 1:
        n, na, nd, ns = math.log1p((es - 1.0) * y * c0) - n, fb - na, fb - nd, y * es * c1 - ns
        naa, nad, ndd = gb - naa, gb - nad, gb - ndd
    p = n * per
    return p, na * per, nd * per, (ns - p) * per, 0.0, naa * per, nad * per, ndd * per


# --- rows -----------------------------------------------------------------------------------------


@kernel
def _rows(
    code: np.ndarray,
    a: np.ndarray,
    d: np.ndarray,
    s: float,
    alpha: float,
    closed: bool,
    t: np.ndarray,
    w: np.ndarray,
    out: np.ndarray,
) -> None:
    z = s * t
    ex = np.exp(-z)
    ee = np.exp(-alpha * z)
    es = math.exp(min(s, 2.0 * _SAFE))
    reach = max(abs(z[0]), abs(z[-1])) * (1.0 + alpha)
    n_second = out.shape[0] - 5
    for i in range(code.size):
        ai, di = a[i], d[i]
        top = 0.0
        if closed and _middle(ai, di, s):
            p, pa, pd, ps, pl, paa, pad, pdd = _closed(code[i], ai, di, s, es)
        elif abs(ai) * (1.0 + alpha) + abs(di) + reach < 2.0 * _SAFE:
            p, pa, pd, ps, pl, paa, pad, pdd = _quadrature(code[i], ai, di, alpha, z, w, ex, ee, t)
        else:
            top, p, pa, pd, ps, pl, paa, pad, pdd = _log_space(code[i], ai, di, alpha, z, w, t)
        per = 1.0 / p
        ga, gd = pa * per, pd * per
        out[0, i] = top + math.log(p)
        out[1, i] = ga
        out[2, i] = gd
        out[3, i] = ps * per
        out[4, i] = pl * per
        if n_second:
            out[5, i] = paa * per - ga * ga
            out[6, i] = pad * per - ga * gd
            out[7, i] = pdd * per - gd * gd


@kernel
def _values(
    code: np.ndarray,
    a: np.ndarray,
    d: np.ndarray,
    s: float,
    alpha: float,
    closed: bool,
    t: np.ndarray,
    w: np.ndarray,
    out: np.ndarray,
) -> None:
    z = s * t
    ex = np.exp(-z)
    ee = np.exp(-alpha * z)
    es = math.exp(min(s, 2.0 * _SAFE))
    reach = max(abs(z[0]), abs(z[-1])) * (1.0 + alpha)
    for i in range(code.size):
        ai, di = a[i], d[i]
        if closed and _middle(ai, di, s):
            out[i] = math.log(_closed_value(code[i], ai, di, s, es))
        elif abs(ai) * (1.0 + alpha) + abs(di) + reach < 2.0 * _SAFE:
            xa = math.exp(-ai)
            ea = math.exp(-alpha * ai - di)
            out[i] = math.log(_quadrature_value(code[i], xa, ea, w, ex, ee))
        else:
            found = _log_space(code[i], ai, di, alpha, z, w, t)
            out[i] = found[0] + math.log(found[1])


@kernel(reassociate=True)
def _mean_risk(
    x: float, w: np.ndarray, ex: np.ndarray, t: np.ndarray
) -> tuple[float, float, float, float, float]:
    """Mean of the logistic function over nodes and its derivatives; x is e^{-a}."""
    m = m_a = m_s = m_aa = m_as = 0.0
    for j in range(t.size):
        e = x * ex[j]
        p = 1.0 / (1.0 + e)
        h = w[j] * p
        m += h
        h *= e * p
        m_a += h
        m_s += h * t[j]
        h *= (e - 1.0) * p
        m_aa += h
        m_as += h * t[j]
    return m, m_a, m_s, m_aa, m_as


@kernel
def _risks(
    a: np.ndarray, s: float, closed: bool, t: np.ndarray, w: np.ndarray, out: np.ndarray
) -> None:
    es = math.expm1(min(s, 2.0 * _SAFE))
    ex = np.exp(-s * t)
    for i in range(a.size):
        ai = a[i]
        if closed and 0.02 <= s <= _SAFE:
            # F(a) / s; its derivatives do not cancel for s away from 0
            x, y = _logistic(ai), _logistic(ai + s)
            m = (math.log1p(es * x) if ai < 0.0 else s - math.log1p(es * _logistic(-ai - s))) / s
            m_a = (y - x) / s
            out[0, i] = m
            out[1, i] = m_a
            out[2, i] = (y - m) / s
            out[3, i] = (y * (1.0 - y) - x * (1.0 - x)) / s
            out[4, i] = (y * (1.0 - y) - m_a) / s
        else:
            x = math.exp(-min(max(ai, -_SAFE), _SAFE))
            out[0, i], out[1, i], out[2, i], out[3, i], out[4, i] = _mean_risk(x, w, ex, t)


@kernel
def _levels(
    a: np.ndarray, weights: np.ndarray, s: float, closed: bool, t: np.ndarray, w: np.ndarray,
    out: np.ndarray,
) -> None:  # fmt: skip
    es = math.exp(min(s, 2.0 * _SAFE))
    ex = np.exp(-s * t)
    for i in range(a.size):
        x = math.exp(-min(max(a[i], -_SAFE), _SAFE))
        if closed and 0.02 <= s <= _SAFE:
            if x > 1.0:
                m = math.log1p((es - 1.0) / (1.0 + x)) / s
            else:
                m = 1.0 - math.log1p((es - 1.0) * x / (es + x)) / s
            m_a = x * (es - 1.0) / ((1.0 + x) * (es + x) * s)
        else:
            m, m_a, _, _, _ = _mean_risk(x, w, ex, t)
        for j in range(weights.shape[1]):
            out[0, j] += weights[i, j] * m
            out[1, j] += weights[i, j] * m_a


def derivatives(
    code: np.ndarray, a: np.ndarray, d: np.ndarray, s: float, alpha: float, law: str,
    *, second: bool = True, alpha_moves: bool = False,
) -> np.ndarray:  # fmt: skip
    """Log-likelihood of rows and its derivatives.

    Parameters
    ----------
    code : ndarray of int8, shape (n,)
        See `codes`.
    a, d : ndarray of shape (n,)
        Linear predictors of risk and of testing.
    s, alpha : float
    law : {"uniform", "normal"}
        Of the unobservable.
    second : bool
        Also fill the second derivatives.
    alpha_moves : bool
        The derivative in alpha is wanted; it is 0 otherwise when alpha is 1.

    Returns
    -------
    ndarray of shape (8, n) or (5, n)
    """
    out = np.empty((8 if second else 5, len(code)))
    closed = law == "uniform" and alpha == 1.0 and not alpha_moves
    _rows(code, a, d, s, alpha, closed, *rule(s, alpha, law), out)
    return out


def values(
    code: np.ndarray, a: np.ndarray, d: np.ndarray, s: float, alpha: float, law: str
) -> np.ndarray:
    """Log-likelihood of rows; see `derivatives`."""
    out = np.empty(len(code))
    closed = law == "uniform" and alpha == 1.0
    _values(code, a, d, s, alpha, closed, *rule(s, alpha, law), out)
    return out


def risk(a: np.ndarray, s: float, law: str) -> np.ndarray:
    """Risk of rows, marginal over the unobservable, and its derivatives.

    Returns
    -------
    ndarray of shape (5, n)
        Risk, its derivatives in a and s, and the second derivatives aa and as.
    """
    out = np.empty((5, len(a)))
    _risks(a, s, law == "uniform", *rule(s, 1.0, law), out)
    return out


def levels(a: np.ndarray, weights: np.ndarray, s: float, law: str) -> np.ndarray:
    """Weighted sums of the risk of rows and of its derivative in a.

    Parameters
    ----------
    a : ndarray of shape (n,)
    weights : ndarray of shape (n, t)
    s : float
    law : {"uniform", "normal"}

    Returns
    -------
    ndarray of shape (2, t)
    """
    out = np.zeros((2, weights.shape[1]))
    _levels(a, weights, s, law == "uniform", *rule(s, 1.0, law), out)
    return out
