"""Approximate Cholesky factors of the Laplacians of graphs.

References
----------
Kyng, Sachdeva (2016), Approximate Gaussian elimination for Laplacians, FOCS 2016, 573-582,
doi 10.1109/FOCS.2016.68. Gao, Kyng, Spielman (2023), Robust and practical solution of Laplacian
equations by approximate elimination, arXiv 2303.00709.
"""

from __future__ import annotations

import numpy as np

from causalrm.core.kernel import kernel


@kernel(inline=True)
def _next(state: np.uint64) -> np.uint64:
    """One step of a 64-bit xorshift generator."""
    state ^= state << np.uint64(13)
    state ^= state >> np.uint64(7)
    return state ^ (state << np.uint64(17))


@kernel
def cliques(
    codes: np.ndarray, weight: np.ndarray, begin: np.ndarray, exact: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges that eliminating the largest factor leaves between the levels of another.

    A level with few neighbours leaves its clique; one with many leaves a random tree, whose
    expectation is the clique.
    """
    room = 0
    largest = 1
    for level in range(begin.size - 1):
        k = begin[level + 1] - begin[level]
        largest = max(largest, k)
        room += k * (k - 1) // 2 if k <= exact else 2 * (k - 1)
    left = np.empty(room, np.int32)
    right = np.empty(room, np.int32)
    value = np.empty(room)
    cum = np.empty(largest + 1)
    size = 0
    state = np.uint64(seed) | np.uint64(1)
    for level in range(begin.size - 1):
        a, b = begin[level], begin[level + 1]
        k = b - a
        if k < 2:
            continue
        cum[0] = 0.0
        for t in range(k):
            cum[t + 1] = cum[t] + weight[a + t]
        total = cum[k]
        if total <= 0:
            continue
        if k <= exact:
            for s in range(a, b):
                for t in range(a, s):
                    left[size], right[size] = codes[s], codes[t]
                    value[size] = weight[s] * weight[t] / total
                    size += 1
            continue
        for _ in range(2):
            for s in range(k - 1):
                rest = total - cum[s + 1]
                state = _next(state)
                at = cum[s + 1] + rest * (np.float64(state >> np.uint64(11)) * 2.0**-53)
                t = min(max(np.searchsorted(cum[: k + 1], at, side="right") - 1, s + 1), k - 1)
                left[size], right[size] = codes[a + s], codes[a + t]
                value[size] = 0.5 * weight[a + s] * rest / total
                size += 1
    return left[:size], right[:size], value[:size]


@kernel(inline=True)
def _unlink(v: int, head: np.ndarray, after: np.ndarray, before: np.ndarray, d: int) -> None:
    if before[v] >= 0:
        after[before[v]] = after[v]
    else:
        head[d] = after[v]
    if after[v] >= 0:
        before[after[v]] = before[v]


@kernel(inline=True)
def _link(v: int, head: np.ndarray, after: np.ndarray, before: np.ndarray, d: int) -> None:
    after[v] = head[d]
    before[v] = -1
    if head[d] >= 0:
        before[head[d]] = v
    head[d] = v


@kernel
def factor(
    n: int, left: np.ndarray, right: np.ndarray, value: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Approximate Cholesky factor of a graph's Laplacian.

    Vertices go in order of their current degree. The clique among the k neighbours of one that
    goes is replaced by k - 1 random edges, of the same expectation. Half-edges h and h ^ 1 point
    at each other's vertex; those of a vertex that goes are used again for the new edges, so that
    memory never grows.

    Returns
    -------
    order : ndarray of shape (n,)
        Vertices as they went.
    start : ndarray of shape (n + 1,)
        Where the entries of each step lie.
    row, entry : ndarray
        Neighbours at the step, and their share of the vertex' weight.
    pivot : ndarray of shape (n,)
        Weight of the vertex at its step; 0 for the last one of a component.
    """
    m = left.size
    to = np.empty(2 * m, np.int32)
    follow = np.empty(2 * m, np.int64)
    w = np.empty(2 * m)
    first = np.full(n, -1, np.int64)
    degree = np.zeros(n, np.int64)
    for e in range(m):
        for h, a, b in ((2 * e, left[e], right[e]), (2 * e + 1, right[e], left[e])):
            to[h] = b
            w[h] = value[e]
            follow[h] = first[a]
            first[a] = h
            degree[a] += 1
    top = 2 * n  # vertices of a larger degree share the last list
    head = np.full(top + 1, -1, np.int64)
    after = np.full(n, -1, np.int64)
    before = np.full(n, -1, np.int64)
    for v in range(n):
        _link(v, head, after, before, min(degree[v], top))
    order = np.empty(n, np.int64)
    start = np.zeros(n + 1, np.int64)
    pivot = np.zeros(n)
    row = np.empty(2 * m, np.int32)
    entry = np.empty(2 * m)
    size = 0
    slot = np.full(n, -1, np.int64)  # of a neighbour in the step's list
    near = np.empty(n, np.int64)  # half-edges of the step, one per neighbour
    weights = np.empty(n)
    cum = np.empty(n + 1)
    state = np.uint64(seed) | np.uint64(1)
    low = 0
    for step in range(n):
        low = max(low - 1, 0)
        while head[low] < 0:
            low += 1
        v = head[low]
        _unlink(v, head, after, before, low)
        order[step] = v
        k = 0
        h = first[v]
        while h >= 0:
            following = follow[h]
            if w[h] > 0:
                u = to[h]
                if slot[u] < 0:
                    slot[u] = k
                    near[k] = h
                    weights[k] = w[h]
                    k += 1
                else:  # a second edge to the same neighbour
                    weights[slot[u]] += w[h]
                    w[h ^ 1] = 0.0
                    d = min(degree[u], top)
                    _unlink(u, head, after, before, d)
                    degree[u] -= 1
                    d = min(degree[u], top)
                    _link(u, head, after, before, d)
                    low = min(low, d)
            h = following
        total = 0.0
        for t in range(k):
            slot[to[near[t]]] = -1
            total += weights[t]
        pivot[step] = total
        sort = np.argsort(weights[:k])
        cum[0] = 0.0
        for t in range(k):
            cum[t + 1] = cum[t] + weights[sort[t]]
        if size + k > row.size:
            row = np.concatenate((row, np.empty(row.size + k, np.int32)))
            entry = np.concatenate((entry, np.empty(entry.size + k)))
        for t in range(k):
            h = near[sort[t]]
            u = to[h]
            x = weights[sort[t]]
            row[size] = u
            entry[size] = x / total
            size += 1
            if t == k - 1:
                w[h ^ 1] = 0.0
                _unlink(u, head, after, before, min(degree[u], top))
                degree[u] -= 1
                d = min(degree[u], top)
                _link(u, head, after, before, d)
                low = min(low, d)
                continue
            rest = cum[k] - cum[t + 1]
            state = _next(state)
            at = cum[t + 1] + rest * (np.float64(state >> np.uint64(11)) * 2.0**-53)
            s = min(max(np.searchsorted(cum[: k + 1], at, side="right") - 1, t + 1), k - 1)
            other = to[near[sort[s]]]
            # The neighbour's half-edge now points at the other, and ours becomes the other's.
            to[h ^ 1] = other
            w[h ^ 1] = w[h] = x * rest / total
            follow[h] = first[other]
            first[other] = h
            _unlink(other, head, after, before, min(degree[other], top))
            degree[other] += 1
            _link(other, head, after, before, min(degree[other], top))
        start[step + 1] = size
    return order, start, row[:size].copy(), entry[:size].copy(), pivot


@kernel
def precondition(
    order: np.ndarray, start: np.ndarray, row: np.ndarray, entry: np.ndarray, pivot: np.ndarray,
    x: np.ndarray,
) -> None:  # fmt: skip
    """Solve with the factor, in place, for several columns."""
    n, r = x.shape
    for step in range(n):
        v = order[step]
        for t in range(start[step], start[step + 1]):
            for c in range(r):
                x[row[t], c] += entry[t] * x[v, c]
        for c in range(r):
            x[v, c] = x[v, c] / pivot[step] if pivot[step] > 0 else 0.0
    for step in range(n - 1, -1, -1):
        v = order[step]
        if pivot[step] > 0:
            for t in range(start[step], start[step + 1]):
                for c in range(r):
                    x[v, c] += entry[t] * x[row[t], c]
