r"""Surrogates of a set function as arrays: walks, boosted trees, symmetric polynomials.

Only the odd part d(S) = (v(S) - v(S^c)) / 2 enters a Shapley value. With x = +1 for players in S
and -1 for the others, d = sum over odd |T| of b_T prod_{i in T} x_i, and
phi_i = 2 sum_{T with i} b_T / |T|.

A path of a tree that asks for players P to be present and for A to be absent is the game
1[P in S, A and S disjoint]; its Shapley value is (p-1)! a! / (p+a)! for a player in P and
-p! (a-1)! / (p+a)! for one in A.
"""

from __future__ import annotations

import numpy as np

from causalrm.core.kernel import kernel


@kernel
def logistic_walk(
    level: float,
    main: np.ndarray,
    start: np.ndarray,
    other: np.ndarray,
    joint: np.ndarray,
    n_orders: int,
    seed: int,
    out: np.ndarray,
) -> None:
    """Mean change of sigmoid(level + sum main + sum joint) as players join in random orders.

    Parameters
    ----------
    level : float
    main : ndarray of shape (n,)
    start, other, joint : ndarray
        Pairs of player i are `other[start[i]:start[i + 1]]`, with coefficients `joint`.
    n_orders : int
        Each order is walked forwards and backwards.
    seed : int
    out : ndarray of shape (batches, n)
        Filled with the means over equal batches of orders.
    """
    n = main.size
    np.random.seed(seed)
    present = np.zeros(n)
    order = np.arange(n)
    out[:] = 0.0
    for walk in range(n_orders):
        batch = walk % out.shape[0]
        for i in range(n - 1, 0, -1):
            j = np.random.randint(0, i + 1)
            order[i], order[j] = order[j], order[i]
        for backwards in range(2):
            present[:] = 0.0
            score = level
            before = 1.0 / (1.0 + np.exp(-score))
            for step in range(n):
                i = order[n - 1 - step] if backwards else order[step]
                score += main[i]
                for e in range(start[i], start[i + 1]):
                    score += joint[e] * present[other[e]]
                present[i] = 1.0
                after = 1.0 / (1.0 + np.exp(-score))
                out[batch, i] += after - before
                before = after
    out *= out.shape[0] / (2.0 * n_orders)


@kernel
def boost(
    Z: np.ndarray,
    y: np.ndarray,
    rate: float,
    shrink: float,
    feature: np.ndarray,
    value: np.ndarray,
) -> None:
    """Fit trees one after the other to what is left of `y`.

    Parameters
    ----------
    Z : ndarray of shape (m, n), uint8
    y : ndarray of shape (m,)
    rate, shrink : float
        Step size, and pseudo-count of a zero in each leaf.
    feature, value : ndarray of shape (rounds, 2^(depth + 1) - 1)
        Filled. Node i has children 2i + 1 (absent) and 2i + 2 (present); a leaf's feature is -1.
    """
    m, n = Z.shape
    inner = feature.shape[1] // 2
    fitted = np.zeros(m)
    node = np.zeros(m, np.int64)
    for t in range(feature.shape[0]):
        node[:] = 0
        first, width = 0, 1
        while first < feature.shape[1]:
            total, count = np.zeros(width), np.zeros(width)
            with_sum, with_count = np.zeros((width, n)), np.zeros((width, n))
            for a in range(m):
                k = node[a] - first
                if k < 0:
                    continue
                r = y[a] - fitted[a]
                total[k] += r
                count[k] += 1
                if first < inner:
                    for j in range(n):
                        with_sum[k, j] += r * Z[a, j]
                        with_count[k, j] += Z[a, j]
            for k in range(width):
                i = first + k
                feature[t, i] = -1
                value[t, i] = rate * total[k] / (count[k] + shrink)
                if first >= inner:
                    continue
                parent = total[k] ** 2 / (count[k] + shrink)
                best = 1e-12 * parent + 1e-300
                for j in range(n):
                    c1 = with_count[k, j]
                    c0 = count[k] - c1
                    if c1 == 0 or c0 == 0:
                        continue
                    s1 = with_sum[k, j]
                    s0 = total[k] - s1
                    gain = s1 * s1 / (c1 + shrink) + s0 * s0 / (c0 + shrink) - parent
                    if gain > best:
                        best = gain
                        feature[t, i] = j
            for a in range(m):
                i = node[a]
                if i >= first and feature[t, i] >= 0:
                    node[a] = 2 * i + 1 + Z[a, feature[t, i]]
            first, width = 2 * first + 1, 2 * width
        for a in range(m):
            fitted[a] += value[t, node[a]]


@kernel
def trees_at(Z: np.ndarray, feature: np.ndarray, value: np.ndarray, out: np.ndarray) -> None:
    """Add the trees' values at the rows of Z to `out`."""
    for t in range(feature.shape[0]):
        for a in range(Z.shape[0]):
            i = 0
            while feature[t, i] >= 0:
                i = 2 * i + 1 + Z[a, feature[t, i]]
            out[a] += value[t, i]


@kernel
def trees_shapley(feature: np.ndarray, value: np.ndarray, phi: np.ndarray) -> None:
    """Add the Shapley values of a sum of trees to `phi`."""
    factorial = np.ones(40)
    for i in range(1, 40):
        factorial[i] = factorial[i - 1] * i
    player, side = np.zeros(40, np.int64), np.zeros(40, np.int64)
    for t in range(feature.shape[0]):
        for leaf in range(feature.shape[1]):
            if feature[t, leaf] >= 0:
                continue
            i, depth, present = leaf, 0, 0
            reached = True
            while i > 0:
                parent = (i - 1) // 2
                if feature[t, parent] < 0:  # below a leaf: never reached
                    reached = False
                    break
                player[depth] = feature[t, parent]
                side[depth] = i - 2 * parent - 1
                present += side[depth]
                depth += 1
                i = parent
            if not reached:
                continue
            absent = depth - present
            for k in range(depth):
                if side[k] == 1:
                    part = factorial[present - 1] * factorial[absent]
                else:
                    part = -factorial[present] * factorial[absent - 1]
                phi[player[k]] += value[t, leaf] * part / factorial[depth]


def symmetric(r: np.ndarray, order: int) -> np.ndarray:
    """Elementary symmetric polynomials e_0, ..., e_order of the first axis of `r`."""
    e = np.zeros((order + 1, *r.shape[1:]))
    e[0] = 1.0
    for x in r:
        e[1:] += x * e[:-1].copy()
    return e


def without(r: np.ndarray, e: np.ndarray) -> list[np.ndarray]:
    """Elementary symmetric polynomials without player i, for every i: e_0, e_1, ..."""
    out = [np.ones_like(r)]
    for k in range(1, len(e) - 1):
        out.append(e[k] - r * out[-1])
    return out


def symmetric_products(X: np.ndarray, Y: np.ndarray, r: np.ndarray, order: int) -> list[np.ndarray]:
    """e_0, ..., e_order of (r_1 x_1 y_1, ..., r_n x_n y_n) for all rows x of X and y of Y.

    By Newton's identities; even power sums do not depend on x and y, since x^2 = 1.
    """
    power = [(X * r**j) @ Y.T if j % 2 else float((r**j).sum()) for j in range(1, order + 1)]
    e = [np.ones((len(X), len(Y)))]
    for k in range(1, order + 1):
        terms = [(-1.0) ** (j - 1) * e[k - j] * power[j - 1] for j in range(1, k + 1)]
        e.append(sum(terms[1:], terms[0]) / k)
    return e
