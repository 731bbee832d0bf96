"""The Heckman selection model, row by row.

A row is selected when ``w + u > 0``; its outcome ``y = m + Z`` is then seen. Z and u are normal
with variances ``sigma^2`` and 1 and correlation ``rho``. In ``l = log sigma`` and
``z = atanh rho``, with ``e = (y - m) / sigma`` and ``q = w cosh z + e sinh z``, a selected row
contributes

    log phi(e) - l + log Phi(q),

and any other ``log Phi(-w)``: the latent pair is integrated out exactly.
"""

from __future__ import annotations

import math

import numpy as np

from causalrm.core.kernel import kernel

_ROOT_HALF = math.sqrt(0.5)
_LOG_ROOT_2PI = 0.5 * math.log(2.0 * math.pi)
_FAR = -30.0  # below it the series of the tail is exact to rounding


@kernel(inline=True)
def _tail(q: float) -> float:
    """Phi(q) |q| / phi(q) for q far below 0."""
    s = 1.0 / (q * q)
    return 1.0 - s * (1.0 - 3.0 * s * (1.0 - 5.0 * s * (1.0 - 7.0 * s)))


@kernel(inline=True)
def log_ndtr(q: float) -> float:
    """Logarithm of Phi(q)."""
    if q < _FAR:
        return -0.5 * q * q - _LOG_ROOT_2PI - math.log(-q) + math.log(_tail(q))
    if q > 0.0:
        return math.log1p(-0.5 * math.erfc(q * _ROOT_HALF))
    return math.log(0.5 * math.erfc(-q * _ROOT_HALF))


@kernel(inline=True)
def mills(q: float) -> float:
    """phi(q) / Phi(q), the derivative of log Phi."""
    if q < _FAR:
        return -q / _tail(q)
    return math.exp(-0.5 * q * q - _LOG_ROOT_2PI) / (0.5 * math.erfc(-q * _ROOT_HALF))


@kernel
def mills_rows(w: np.ndarray) -> np.ndarray:
    """phi(w) / Phi(w) of each row."""
    out = np.empty(w.size)
    for i in range(w.size):
        out[i] = mills(w[i])
    return out


@kernel
def derivatives(
    y: np.ndarray,
    seen: np.ndarray,
    weight: np.ndarray,
    m: np.ndarray,
    w: np.ndarray,
    l: float,  # noqa: E741
    z: float,
    g: np.ndarray,
    h: np.ndarray,
) -> float:
    """Log-likelihood of rows, with derivatives in (m, w, l, z).

    Parameters
    ----------
    y, seen, weight : ndarray of shape (n,)
        `y` is read where `seen` is not 0.
    m, w : ndarray of shape (n,)
        Mean of the outcome and index of selection.
    l, z : float
        log sigma and atanh rho.
    g : ndarray of shape (4, n)
        Takes the gradient of each row.
    h : ndarray of shape (10, n)
        Takes the second derivatives: mm, mw, ml, mz, ww, wl, wz, ll, lz, zz.
    """
    ch, sh, inv = math.cosh(z), math.sinh(z), math.exp(-l)
    value = 0.0
    for i in range(m.size):
        a = weight[i]
        if seen[i] == 0:
            r = mills(-w[i])
            value += a * log_ndtr(-w[i])
            for j in range(4):
                g[j, i] = 0.0
            for j in range(10):
                h[j, i] = 0.0
            g[1, i] = -a * r
            h[4, i] = -a * r * (r - w[i])
            continue
        e = (y[i] - m[i]) * inv
        q = w[i] * ch + e * sh
        r = mills(q)
        d = r * (q + r)
        qm, ql, qz = -sh * inv, -e * sh, w[i] * sh + e * ch
        value += a * (log_ndtr(q) - 0.5 * e * e - _LOG_ROOT_2PI - l)
        g[0, i] = a * (e * inv + r * qm)
        g[1, i] = a * r * ch
        g[2, i] = a * (e * e - 1.0 + r * ql)
        g[3, i] = a * r * qz
        h[0, i] = a * (-inv * inv - d * qm * qm)
        h[1, i] = -a * d * qm * ch
        h[2, i] = a * (-2.0 * e * inv - d * qm * ql + r * sh * inv)
        h[3, i] = a * (-d * qm * qz - r * ch * inv)
        h[4, i] = -a * d * ch * ch
        h[5, i] = -a * d * ch * ql
        h[6, i] = a * (-d * ch * qz + r * sh)
        h[7, i] = a * (-2.0 * e * e - d * ql * ql + r * e * sh)
        h[8, i] = a * (-d * ql * qz - r * e * ch)
        h[9, i] = a * (-d * qz * qz + r * q)
    return value


@kernel
def values(
    y: np.ndarray,
    seen: np.ndarray,
    weight: np.ndarray,
    m: np.ndarray,
    w: np.ndarray,
    l: np.ndarray,  # noqa: E741
    z: np.ndarray,
) -> np.ndarray:
    """Log-likelihood of all rows at each of S draws; `m` and `w` have shape (S, n)."""
    out = np.zeros(l.size)
    for s in range(l.size):
        ch, sh, inv = math.cosh(z[s]), math.sinh(z[s]), math.exp(-l[s])
        total = 0.0
        for i in range(y.size):
            if seen[i] == 0:
                total += weight[i] * log_ndtr(-w[s, i])
            else:
                e = (y[i] - m[s, i]) * inv
                q = w[s, i] * ch + e * sh
                total += weight[i] * (log_ndtr(q) - 0.5 * e * e - _LOG_ROOT_2PI - l[s])
        out[s] = total
    return out
