"""Least squares on fixed effects: the largest factor is eliminated, the rest solved by CG.

Rows are held as cells, sorted by the levels of the largest factor. Eliminating it leaves the
normal equations ``S u = b`` of the other factors, whose product with a vector takes one pass over
the cells. With two factors, conjugate gradients on S scaled by its diagonal are alternating
projections, accelerated. S (or, with more factors, each of its diagonal blocks) is the Laplacian of
a graph, so that an approximate Cholesky factor makes a preconditioner where levels are weakly
connected.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from causalrm.core.kernel import kernel
from causalrm.deconfound._kernels_graph import cliques, factor, precondition

_CLIQUE = 6  # levels of up to so many neighbours leave their whole clique
_PILOT = 30  # iterations of projections before the choice
_DELAY = 6  # iterations over which the remaining error is estimated


# --------------------------------------------------------------------------- preparation


@kernel
def drop_singletons(codes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Rows to keep, after those whose level has no other row are dropped, again and again.

    Parameters
    ----------
    codes : ndarray of int of shape (F, n)
    sizes : ndarray of int of shape (F,)
        Numbers of levels.

    Returns
    -------
    ndarray of bool of shape (n,)
    """
    factors, n = codes.shape
    first = np.zeros(factors + 1, np.int64)
    for f in range(factors):
        first[f + 1] = first[f] + sizes[f]
    count = np.zeros(first[-1], np.int64)
    last = np.zeros(first[-1], np.int64)  # of one row, its number: the others cancelled
    for f in range(factors):
        for i in range(n):
            level = first[f] + codes[f, i]
            count[level] += 1
            last[level] ^= i
    keep = np.ones(n, np.bool_)
    stack = np.empty(first[-1], np.int64)
    size = 0
    for level in range(first[-1]):
        if count[level] == 1:
            stack[size] = level
            size += 1
    while size:
        size -= 1
        if count[stack[size]] != 1:
            continue
        i = last[stack[size]]
        keep[i] = False
        for f in range(factors):
            level = first[f] + codes[f, i]
            count[level] -= 1
            last[level] ^= i
            if count[level] == 1:
                stack[size] = level
                size += 1
    return keep


@kernel
def components(left: np.ndarray, right: np.ndarray, n_left: int, n_right: int) -> np.ndarray:
    """Component of each level, shape (n_left + n_right,), numbered from 0.

    Two levels are connected when a row has both.
    """
    n = n_left + n_right
    parent = np.arange(n)
    for i in range(left.size):
        a, b = left[i], n_left + right[i]
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        while parent[b] != b:
            parent[b] = parent[parent[b]]
            b = parent[b]
        if a < b:
            parent[b] = a
        else:
            parent[a] = b
    out = np.empty(n, np.int64)
    found = 0
    for v in range(n):  # a root comes before its members
        a = v
        while parent[a] != a:
            a = parent[a]
        if a == v:
            out[v] = found
            found += 1
        else:
            out[v] = out[a]
    return out


@kernel
def sort_rows(codes: np.ndarray, n_levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers sorted by level, and where each level starts (and the end)."""
    start = np.zeros(n_levels + 1, np.int64)
    for i in range(codes.size):
        start[codes[i] + 1] += 1
    for level in range(n_levels):
        start[level + 1] += start[level]
    free = start[:-1].copy()
    order = np.empty(codes.size, np.int64)
    for i in range(codes.size):
        order[free[codes[i]]] = i
        free[codes[i]] += 1
    return order, start


@kernel
def merge_cells(
    codes: np.ndarray, order: np.ndarray, start: np.ndarray, n_other: int, w: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct pairs of levels with their total weight: other level (c, 1), weight, start."""
    n = order.size
    cell = np.empty((n, 1), np.int32)
    weight = np.empty(n)
    begin = np.zeros_like(start)
    seen = np.full(n_other, -1, np.int64)
    size = 0
    for level in range(start.size - 1):
        for t in range(start[level], start[level + 1]):
            i = order[t]
            v = w[i] if w.size else 1.0
            code = codes[i]
            if seen[code] >= begin[level]:
                weight[seen[code]] += v
            else:
                seen[code] = size
                cell[size, 0] = code
                weight[size] = v
                size += 1
        begin[level + 1] = size
    return cell[:size].copy(), weight[:size].copy(), begin


@dataclass(frozen=True)
class Cells:
    """Rows sorted by the largest factor; with two factors, rows of one pair of levels are one cell.

    Attributes
    ----------
    order, start : ndarray
        Rows sorted by the largest factor, and where its levels start.
    row_codes : ndarray of int32 of shape (n, F - 1)
        Levels of the other factors of each row, numbered through all of them.
    codes : ndarray of int32 of shape (c, F - 1)
        The same of each cell.
    weight : ndarray of shape (c,)
    begin : ndarray of shape (L + 1,)
        Where the cells of each level start.
    offsets : ndarray of shape (F,)
        Where the levels of each other factor start (and the end).
    diagonal : ndarray of shape (offsets[-1],)
        Total weight of each level of the other factors.
    """

    order: np.ndarray
    start: np.ndarray
    row_codes: np.ndarray
    codes: np.ndarray
    weight: np.ndarray
    begin: np.ndarray
    offsets: np.ndarray
    diagonal: np.ndarray


def cells(codes: list[np.ndarray], sizes: list[int], w: np.ndarray) -> Cells:
    """Sort rows to cells; the first factor is the largest, `w` has no entries for unit weights."""
    order, start = sort_rows(codes[0], sizes[0])
    offsets = np.cumsum([0, *sizes[1:]])
    rest = np.empty((len(order), len(codes) - 1), np.int32)
    for f, code in enumerate(codes[1:]):
        np.add(code, offsets[f], out=rest[:, f], casting="unsafe")
    if len(codes) == 2:
        cell, weight, begin = merge_cells(rest[:, 0], order, start, sizes[1], w)
    else:
        cell, begin = rest[order], start
        weight = w[order] if w.size else np.ones(len(order))
    diagonal = np.zeros(offsets[-1])
    for f in range(cell.shape[1]):
        diagonal += np.bincount(cell[:, f], weights=weight, minlength=offsets[-1])
    return Cells(order, start, rest, cell, weight, begin, offsets, diagonal)


# --------------------------------------------------------------------------- passes over rows


@kernel
def right_side(
    v: np.ndarray, order: np.ndarray, start: np.ndarray, codes: np.ndarray, w: np.ndarray,
    out: np.ndarray,
) -> float:  # fmt: skip
    """Add ``D' W (v - mean of v in the level)`` to `out`; the sum of squares of the bracket."""
    total = 0.0
    for level in range(start.size - 1):
        a, b = start[level], start[level + 1]
        s = 0.0
        weight = 0.0
        for t in range(a, b):
            wi = w[order[t]] if w.size else 1.0
            s += wi * v[order[t]]
            weight += wi
        mean = s / weight if weight > 0 else 0.0
        for t in range(a, b):
            i = order[t]
            e = v[i] - mean
            we = (w[i] if w.size else 1.0) * e
            total += we * e
            for f in range(codes.shape[1]):
                out[codes[i, f]] += we
    return total


@kernel
def residual(
    v: np.ndarray, order: np.ndarray, start: np.ndarray, codes: np.ndarray, w: np.ndarray,
    u: np.ndarray, effects: np.ndarray, out: np.ndarray,
) -> None:  # fmt: skip
    """Write v less all effects to `out`, and the effects of the largest factor to `effects`."""
    for level in range(start.size - 1):
        a, b = start[level], start[level + 1]
        s = 0.0
        weight = 0.0
        for t in range(a, b):
            i = order[t]
            e = v[i]
            for f in range(codes.shape[1]):
                e -= u[codes[i, f]]
            out[i] = e
            wi = w[i] if w.size else 1.0
            s += wi * e
            weight += wi
        mean = s / weight if weight > 0 else 0.0
        effects[level] = mean
        for t in range(a, b):
            out[order[t]] -= mean


@kernel
def _apply(
    u: np.ndarray, codes: np.ndarray, weight: np.ndarray, begin: np.ndarray, e: np.ndarray,
    out: np.ndarray,
) -> None:  # fmt: skip
    """``out = S u`` for several columns at once; `e` is room for the cells of one level."""
    r = u.shape[1]
    out[:] = 0.0
    mean = np.empty(r)
    for level in range(begin.size - 1):
        a, b = begin[level], begin[level + 1]
        if b - a < 2:  # one cell differs from its mean by nothing
            continue
        mean[:] = 0.0
        total = 0.0
        for t in range(a, b):
            wt = weight[t]
            total += wt
            for c in range(r):
                x = u[codes[t, 0], c]
                for f in range(1, codes.shape[1]):
                    x += u[codes[t, f], c]
                e[t - a, c] = x
                mean[c] += wt * x
        if total <= 0:
            continue
        for c in range(r):
            mean[c] /= total
        for t in range(a, b):
            for c in range(r):
                x = weight[t] * (e[t - a, c] - mean[c])
                for f in range(codes.shape[1]):
                    out[codes[t, f], c] += x


# --------------------------------------------------------------------------- conjugate gradients


class Factor:
    """Approximate Cholesky factors of the diagonal blocks of S, one per factor but the largest."""

    def __init__(self, c: Cells, seed: int = 20200301):
        self.blocks = []
        for f, (a, b) in enumerate(zip(c.offsets[:-1], c.offsets[1:], strict=True)):
            n = int(b - a)
            codes, weight, begin = c.codes[:, f] - a, c.weight, c.begin
            if c.codes.shape[1] > 1:  # cells are rows: bring those of one pair together
                merged, weight, begin = merge_cells(codes, np.arange(len(codes)), begin, n, weight)
                codes = merged[:, 0]
            codes = np.ascontiguousarray(codes)
            left, right, value = cliques(codes, weight, begin, _CLIQUE, seed)
            low, high = np.minimum(left, right), np.maximum(left, right)
            edges = sparse.coo_array((value, (low, high)), shape=(n, n)).tocsr().tocoo()
            edges.eliminate_zeros()
            i, j = (np.ascontiguousarray(e, dtype=np.int32) for e in edges.coords)
            self.blocks.append((slice(int(a), int(b)), factor(n, i, j, edges.data, seed)))

    def __call__(self, residuals: np.ndarray) -> np.ndarray:
        """Approximate ``S^-1 residuals``."""
        out = residuals.copy()
        for part, found in self.blocks:
            precondition(*found, out[part])
        return out


@dataclass(frozen=True)
class Solution:
    """Coefficients of all factors but the largest.

    Attributes
    ----------
    u : ndarray of shape (offsets[-1], r)
    iterations : int
    method : {"projections", "cholesky"}
    error : float
        Estimated distance to the least-squares residuals, relative to what is left of a column
        without the largest factor's means; the largest over the columns.
    """

    u: np.ndarray
    iterations: int
    method: str
    error: float


def solve(c: Cells, b: np.ndarray, size: np.ndarray, tol: float, max_iter: int) -> Solution:
    """Solve ``S u = b`` for several columns.

    Parameters
    ----------
    c : Cells
    b : ndarray of shape (l, r)
    size : ndarray of shape (r,)
        Sums of squares to which the squared errors are compared.
    tol : float
    max_iter : int
    """
    u = np.zeros_like(b)
    unit = 1.0 / np.where(c.diagonal > 0, c.diagonal, 1.0)[:, None]

    def scale(r: np.ndarray) -> np.ndarray:
        return np.asarray(unit * r)

    steps, error, rate = _descend(c, b, size, u, tol, _PILOT, scale)
    if error <= tol:
        return Solution(u, steps, "projections", error)
    with np.errstate(divide="ignore"):
        more = np.log(tol / error) / np.log(rate) if rate < 1 else np.inf
    cheap = more < 2 * _PILOT
    method = "projections" if cheap else "cholesky"
    extra, error, _ = _descend(c, b, size, u, tol, max_iter, scale if cheap else Factor(c))
    return Solution(u, steps + extra, method, error)


def _descend(
    c: Cells, b: np.ndarray, size: np.ndarray, u: np.ndarray, tol: float, max_iter: int,
    invert: Callable[[np.ndarray], np.ndarray],
) -> tuple[int, float, float]:  # fmt: skip
    """Conjugate gradients from `u`, in place: iterations, relative error, and its rate."""
    room = np.empty((int(np.diff(c.begin).max()), b.shape[1]))
    product = np.empty_like(b)
    _apply(u, c.codes, c.weight, c.begin, room, product)
    r = b - product
    z = invert(r)
    p = z.copy()
    rz = (r * z).sum(axis=0)
    gains: list[np.ndarray] = []
    scale = np.where(size > 0, size, 1.0)
    error = np.inf
    for step in range(max_iter):
        _apply(p, c.codes, c.weight, c.begin, room, product)
        curvature = (p * product).sum(axis=0)
        alpha = np.where(curvature > 0, rz / np.where(curvature > 0, curvature, 1.0), 0.0)
        u += alpha * p
        r -= alpha * product
        # What a step gains in squared distance; later gains add up to the distance that is left.
        gains.append(alpha * rz / scale)
        if step + 1 >= _DELAY:
            error = float(np.sqrt(np.sum(gains[-_DELAY:], axis=0).max()))
            if error <= tol:
                break
        if not alpha.any():
            error = 0.0
            break
        z = invert(r)
        new = (r * z).sum(axis=0)
        p *= np.where(rz > 0, new / np.where(rz > 0, rz, 1.0), 0.0)
        p += z
        rz = new
    rate = 1.0
    if len(gains) >= 2 * _DELAY:
        late = np.sum(gains[-_DELAY:], axis=0).max()
        early = np.sum(gains[-2 * _DELAY : -_DELAY], axis=0).max()
        rate = float(np.sqrt(late / early) ** (1 / _DELAY)) if early > 0 else 0.0
    return len(gains), error, rate
