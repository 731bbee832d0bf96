"""Simulated games whose Shapley values are known without enumeration."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
from scipy.special import expit, gammaln


def security_council(Z):
    """UN Security Council: 9 of 15 votes with all 5 permanent members, who come first."""
    Z = np.asarray(Z, bool)
    return (Z[:, :5].all(axis=1) & (Z.sum(axis=1) >= 9)).astype(float)


def airport(costs):
    """A coalition pays for its most demanding member."""
    costs = np.asarray(costs, float)
    return lambda Z: np.max(np.where(Z, costs, 0.0), axis=1)


def glove(Z):
    """Two players own a left glove, the third a right one; a pair is worth one."""
    Z = np.asarray(Z, bool)
    return (Z[:, :2].any(axis=1) & Z[:, 2]).astype(float)


def unanimity(n, rng, n_terms=None, largest=None):
    """Sum of unanimity games with random sets and signs."""
    largest = max(1, n // 2) if largest is None else largest
    terms = [
        (rng.choice(n, int(rng.integers(1, largest + 1)), replace=False), rng.normal())
        for _ in range(2 * n if n_terms is None else n_terms)
    ]
    phi = np.zeros(n)
    for players, a in terms:
        phi[players] += a / len(players)
    return lambda Z: sum(a * np.asarray(Z, bool)[:, t].all(axis=1) for t, a in terms), phi


def sparse(n, rng):
    """n products of one to three +-1 coded players."""
    terms = [
        (rng.choice(n, min(int(rng.integers(1, 4)), n), replace=False), rng.normal())
        for _ in range(n)
    ]
    phi = np.zeros(n)
    for players, b in terms:
        if len(players) % 2:
            phi[players] += 2.0 * b / len(players)
    return (
        lambda Z: sum(b * np.where(Z, 1.0, -1.0)[:, t].prod(axis=1) for t, b in terms),
        phi,
    )


def sigmoid_pairs(n, rng):
    """Which players `sigmoid` pairs, given a generator in the same state."""
    rng.integers(-6, 7, n)
    return rng.permutation(n)[: 2 * (n // 4)].reshape(-1, 2)


def sigmoid(n, rng, pairs=True):
    """Sigmoid of a score with integer main effects and disjoint integer pairs.

    Exact Shapley values come from counting coalitions by size and score.
    """
    main = rng.integers(-6, 7, n)
    order = rng.permutation(n)
    joint = [
        (order[2 * i], order[2 * i + 1], int(rng.integers(-6, 7)))
        for i in range(n // 4 if pairs else 0)
    ]
    level = -int(main.sum() + sum(c for *_, c in joint)) // 2
    scale = 4.0 / np.sqrt(max((main**2).sum() + sum(c * c for *_, c in joint), 1))

    def value(Z):
        Z = np.asarray(Z, int)
        score = level + Z @ main
        for i, j, c in joint:
            score = score + c * Z[:, i] * Z[:, j]
        return expit(scale * score)

    units = [([i, j], c) for i, j, c in joint]
    units += [([i], 0) for i in range(n) if i not in {p for u, _ in units for p in u}]
    low = sum(min(0, x) for x in main) + sum(min(0, c) for *_, c in joint)
    high = sum(max(0, x) for x in main) + sum(max(0, c) for *_, c in joint)
    scores = np.arange(low, high + 1)

    def moved(counts, players, by):
        out = np.zeros_like(counts)
        shifted = np.roll(counts, by, axis=1)  # no mass is near the edge that it could cross
        out[players:] = shifted[: len(counts) - players]
        return out

    def with_unit(counts, unit):
        players, c = unit
        out = counts.copy()
        for i in players:
            out += moved(counts, 1, main[i])
        if len(players) == 2:
            out += moved(counts, 2, main[players[0]] + main[players[1]] + c)
        return out

    sizes = np.arange(n)
    weight = np.exp(gammaln(sizes + 1) + gammaln(n - sizes) - gammaln(n + 1))
    phi = np.zeros(n)

    def descend(counts, units):
        if len(units) == 1:
            players, c = units[0]
            for i in players:
                for mate in [None, *[j for j in players if j != i]]:
                    base = 0 if mate is None else main[mate]
                    gain = main[i] + (0 if mate is None else c)
                    shift = 0 if mate is None else 1
                    step = expit(scale * (level + scores + base + gain)) - expit(
                        scale * (level + scores + base)
                    )
                    phi[i] += weight[shift:] @ counts[: n - shift] @ step
            return
        half = len(units) // 2
        for own, others in ((units[:half], units[half:]), (units[half:], units[:half])):
            inner = counts
            for unit in others:
                inner = with_unit(inner, unit)
            descend(inner, own)

    counts = np.zeros((n + 1, len(scores)))
    counts[0, -low] = 1.0
    descend(counts, units)
    return value, phi


def faithful(table, order):
    """FSII by its definition: the weighted least squares fit that is exact at the two ends."""
    n = int(table.size).bit_length() - 1
    sets = [p for s in range(order + 1) for p in combinations(range(n), s)]
    rows = np.array([[all(m >> i & 1 for i in p) for p in sets] for m in range(table.size)], float)
    inner = np.arange(1, table.size - 1)
    size = np.array([int(m).bit_count() for m in inner])
    w = np.sqrt([1.0 / comb(n - 2, s - 1) for s in size])
    ends = rows[[0, -1]]
    particular = np.linalg.lstsq(ends, table[[0, -1]], rcond=None)[0]
    free = np.linalg.svd(ends)[2][2:].T
    c = np.linalg.lstsq(
        w[:, None] * (rows[inner] @ free), w * (table[inner] - rows[inner] @ particular), rcond=None
    )[0]
    return dict(zip(sets, particular + free @ c, strict=True))
