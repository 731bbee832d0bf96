"""Skew-symmetric scores of low rank: vectors, their normal form, and derivatives."""

from __future__ import annotations

import math

import numpy as np
from scipy import linalg

from causalrm.preference.pair_table import PairTable, Prior


def scores_of(v: np.ndarray) -> np.ndarray:
    """Skew-symmetric scores of vectors of shape (k, rank): x y' - y x', summed over planes."""
    x, y = v[:, 0::2], v[:, 1::2]
    half = x @ y.T
    return np.asarray(half - half.T)


def canonical(v: np.ndarray, anchors: tuple[int, ...] | None = None) -> np.ndarray:
    """Vectors with the same scores in their normal form.

    Planes come by falling singular value; in each, x and y are orthogonal and equally long, and
    turned so that x sums to zero and y to a positive number. Where both sums nearly vanish, an
    item far from the origin gets x = 0 and y > 0 instead.

    Parameters
    ----------
    v : ndarray of shape (k, rank)
    anchors : tuple of int, optional
        As `anchors_of` gives them, for a normal form that varies smoothly with `v`.
    """
    out = _planes(v)
    for plane, anchor in enumerate(anchors_of(out) if anchors is None else anchors):
        x, y = out[:, 2 * plane].copy(), out[:, 2 * plane + 1].copy()
        sx, sy = (x.sum(), y.sum()) if anchor < 0 else (x[anchor], y[anchor])
        length = math.hypot(sx, sy) or 1.0
        c, s = sy / length, sx / length
        out[:, 2 * plane], out[:, 2 * plane + 1] = c * x - s * y, s * x + c * y
    return out


def _planes(v: np.ndarray) -> np.ndarray:
    """Planes of the scores, turned at random."""
    values, vectors = linalg.eigh(1j * scores_of(v))
    out = np.empty_like(v)
    for plane in range(v.shape[1] // 2):
        at = len(v) - 1 - plane
        size = math.sqrt(2.0 * max(values[at], 0.0))
        out[:, 2 * plane] = size * vectors[:, at].imag
        out[:, 2 * plane + 1] = size * vectors[:, at].real
    return out


def anchors_of(v: np.ndarray) -> tuple[int, ...]:
    """What turns each plane: an item, or -1 for the sum of all."""
    found = []
    for plane in range(v.shape[1] // 2):
        x, y = v[:, 2 * plane], v[:, 2 * plane + 1]
        radius = np.hypot(x, y)
        centred = math.hypot(x.sum(), y.sum()) < 0.05 * radius.sum()
        found.append(int(np.argmax(radius > 0.5 * radius.max())) if centred else -1)
    return tuple(found)


class Vectors:
    """Scores of pairs of vectors ``base + basis @ theta``."""

    def __init__(
        self, table: PairTable, rank: int, base: np.ndarray, basis: np.ndarray | None = None
    ):
        self.first, self.second = table.first, table.second
        self.shape = (len(table.items), rank)
        self.base = base
        self.basis = np.eye(base.size) if basis is None else basis

    def vectors(self, theta: np.ndarray) -> np.ndarray:
        """Vectors of the items at `theta`."""
        return np.asarray(self.base + (self.basis @ theta).reshape(self.shape))

    def prior(self, penalty: float) -> Prior:
        """Penalty on the vectors themselves, not on the moves."""

        def prior(theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
            v = self.vectors(theta).ravel()
            value = -0.5 * penalty * float(v @ v)
            return value, -penalty * self.basis.T @ v, -penalty * np.eye(len(theta))

        return prior

    def eta(self, theta: np.ndarray) -> np.ndarray:
        """Score of every pair."""
        v = self.vectors(theta)
        return pair_scores(v, self.first, self.second)[0]

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        """Derivative of the scores."""
        v = self.vectors(theta)
        return np.asarray(pair_scores(v, self.first, self.second)[1] @ self.basis)

    def curvature(self, theta: np.ndarray, g: np.ndarray) -> np.ndarray:
        """Sum over pairs of `g` times the second derivative."""
        k, rank = self.shape
        skew = np.zeros((k, k))
        skew[self.first, self.second], skew[self.second, self.first] = g, -g
        out = np.zeros((k, rank, k, rank))
        for c in range(0, rank, 2):
            out[:, c, :, c + 1] = skew
            out[:, c + 1, :, c] = -skew
        whole = out.reshape(k * rank, k * rank)
        return np.asarray(self.basis.T @ whole @ self.basis)


def pair_scores(v: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores of items `a` against `b`, and their Jacobian in the vectors, row by row."""
    k, rank = v.shape
    x, y = v[:, 0::2], v[:, 1::2]
    eta = (x[a] * y[b] - y[a] * x[b]).sum(axis=1)
    j = np.zeros((len(a), k, rank))
    rows = np.arange(len(a))
    j[rows, a, 0::2], j[rows, a, 1::2] = y[b], -x[b]
    j[rows, b, 0::2], j[rows, b, 1::2] = -y[a], x[a]
    return eta, j.reshape(len(a), k * rank)


def across(v: np.ndarray) -> np.ndarray:
    """Orthonormal basis of the moves that change the scores, at `v`, shape (k * rank, d).

    Scores stay the same under ``v @ m`` for symplectic m: k (2 k + 1) directions for rank 2 k.
    """
    rank = v.shape[1]
    form = np.kron(np.eye(rank // 2), [[0.0, 1.0], [-1.0, 0.0]])
    moves = []
    for i in range(rank):
        for j in range(i + 1):
            q = np.zeros((rank, rank))
            q[i, j] = q[j, i] = 1.0
            moves.append((v @ q @ form).ravel())
    full, _ = linalg.qr(np.array(moves).T)
    return np.asarray(full[:, len(moves) :])
