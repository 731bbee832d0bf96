r"""Losses of linear reward heads on differences of features, summed in one pass over the rows.

With score difference eta of a row, outcome y in [0, 1], margin m and weight w:

- logistic: w [y log s(eta - m) + (1 - y) log s(-eta - m)], s the logistic function;
- squared: -w (y - eta)^2 / 2.

Ties (y = 1/2, m = 0), scaled losses (w times the strength) and plain preferences are choices of
y, m and w. "Matrix" below is the Hessian, or the sum of outer products of the rows' scores.
"""

from __future__ import annotations

import math

import numpy as np

from causalrm.core.kernel import kernel


@kernel(inline=True)
def _side(z: float) -> tuple[float, float, float]:
    """Log s(z), s(-z) and s(z) s(-z), without overflow."""
    e = math.exp(-abs(z))
    low = 1.0 / (1.0 + e)
    value = min(z, 0.0) - math.log1p(e)
    return value, e * low if z > 0.0 else low, e * low * low


@kernel(inline=True)
def _row(eta: float, y: float, m: float, w: float, squared: bool) -> tuple[float, float, float]:
    """Value of a row, and its first and second derivative in eta."""
    if squared:
        return -0.5 * w * (y - eta) ** 2, w * (y - eta), -w
    if m == 0.0:
        value, up, curve = _side(eta)
        return w * (value - (1.0 - y) * eta), w * (y - 1.0 + up), -w * curve
    v1, g1, h1 = _side(eta - m)
    v2, g2, h2 = _side(-eta - m)
    value = y * v1 + (1.0 - y) * v2
    return w * value, w * (y * g1 - (1.0 - y) * g2), -w * (y * h1 + (1.0 - y) * h2)


@kernel
def loss_rows(
    eta: np.ndarray, y: np.ndarray, m: np.ndarray, w: np.ndarray, squared: bool
) -> tuple[float, np.ndarray, np.ndarray]:
    """Sum of the values, and each row's first and second derivative in eta."""
    total = 0.0
    g = np.empty_like(eta)
    h = np.empty_like(eta)
    for i in range(eta.size):
        value, g[i], h[i] = _row(eta[i], y[i], m[i], w[i], squared)
        total += value
    return total, g, h


@kernel
def dense_pass(
    x: np.ndarray,
    y: np.ndarray,
    m: np.ndarray,
    w: np.ndarray,
    beta: np.ndarray,
    squared: bool,
    outer: bool,
) -> tuple[float, np.ndarray, np.ndarray]:
    """Value, score and matrix of differences `x` of shape (n, p), rows contiguous."""
    n, p = x.shape
    total = 0.0
    score = np.zeros(p)
    matrix = np.zeros((p, p))
    for i in range(n):
        row = x[i]
        eta = 0.0
        for j in range(p):
            eta += row[j] * beta[j]
        value, g, h = _row(eta, y[i], m[i], w[i], squared)
        total += value
        c = g * g if outer else h
        for j in range(p):
            score[j] += g * row[j]
            cx = c * row[j]
            line = matrix[j]
            for k in range(j + 1):
                line[k] += cx * row[k]
    for j in range(p):
        for k in range(j):
            matrix[k, j] = matrix[j, k]
    return total, score, matrix


@kernel
def sparse_pass(
    data: np.ndarray,
    indices: np.ndarray,
    start: np.ndarray,
    stop: np.ndarray,
    y: np.ndarray,
    m: np.ndarray,
    w: np.ndarray,
    beta: np.ndarray,
    squared: bool,
    outer: bool,
) -> tuple[float, np.ndarray, np.ndarray]:
    """As `dense_pass`, of rows stored by their entries from `start` to `stop`."""
    p = beta.size
    total = 0.0
    score = np.zeros(p)
    matrix = np.zeros((p, p))
    for i in range(y.size):
        eta = 0.0
        for s in range(start[i], stop[i]):
            eta += data[s] * beta[indices[s]]
        value, g, h = _row(eta, y[i], m[i], w[i], squared)
        total += value
        c = g * g if outer else h
        for s in range(start[i], stop[i]):
            score[indices[s]] += g * data[s]
            cx = c * data[s]
            line = matrix[indices[s]]
            for t in range(start[i], stop[i]):
                line[indices[t]] += cx * data[t]
    return total, score, matrix
