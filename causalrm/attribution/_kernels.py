r"""Set functions as arrays: exact values, interactions, and walks over surrogates.

A set function of n players is a table of length 2^n whose index has bit i set when player i is
present. Sampled coalitions are boolean matrices, one row per coalition.

The Moebius transform m(T) = sum_{L in T} (-1)^(|T| - |L|) v(L) gives every index as a sum over
supersets of a set S (s = |S|):

    Shapley value   sum m(T) / |T|
    SII             sum m(T) / (|T| - s + 1)
    STII, order k   m(S) below k,  sum m(T) / C(|T|, k) at k
    FSII, order k   m(S) + (-1)^(k-s) s/(k+s) C(k, s) sum_{|T|>k} C(|T|-1, k) / C(|T|+k-1, k+s) m(T)
    k-SII           SII aggregated upwards with Bernoulli numbers

Sources: Grabisch and Roubens (1999), doi 10.1007/s001820050125; Sundararajan, Dhamdhere and Agarwal
(2020), arXiv 1902.05622; Tsai, Yeh and Ravikumar (2023), arXiv 2203.00870; Bordt and von Luxburg
(2023), arXiv 2209.04012.
"""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
from scipy.special import bernoulli

from causalrm.core.kernel import kernel

INDICES = ("SII", "k-SII", "STII", "FSII")


@kernel
def _moebius(table: np.ndarray) -> None:
    """Replace a set function by its Moebius transform."""
    h = 1
    while h < table.size:
        for start in range(0, table.size, 2 * h):
            for i in range(start, start + h):
                table[i + h] -= table[i]
        h *= 2


@kernel
def _supersets(table: np.ndarray) -> None:
    """Replace each entry by the sum over the supersets of its index."""
    h = 1
    while h < table.size:
        for start in range(0, table.size, 2 * h):
            for i in range(start, start + h):
                table[i] += table[i + h]
        h *= 2


@kernel
def _weigh_by_size(table: np.ndarray, weight: np.ndarray, out: np.ndarray) -> None:
    """Multiply each entry by the weight of its number of players."""
    for i in range(table.size):
        bits = i
        size = 0
        while bits:
            bits &= bits - 1
            size += 1
        out[i] = table[i] * weight[size]


def moebius(table: np.ndarray) -> np.ndarray:
    """Moebius transform of a set function, shape (2^n,)."""
    out = np.array(table, dtype=float)
    _moebius(out)
    return out


def shapley(table: np.ndarray) -> np.ndarray:
    """Shapley values of a set function given in full.

    Parameters
    ----------
    table : ndarray of shape (2^n,)

    Returns
    -------
    ndarray of shape (n,)
    """
    n = int(table.size).bit_length() - 1
    # phi_i = sum_{T with i} v(T) w(t - 1) - sum_{T without i} v(T) w(t): with c the sum of both
    # weights this is sum_{T with i} c(t) v(T) less a constant, and folding the table in halves
    # gives the sums for all players in one pass
    w = np.array([1.0 / (n * comb(n - 1, s)) for s in range(n)])
    before, after = np.append(0.0, w), np.append(w, 0.0)
    part = np.empty(table.size)
    centred = table - 0.5 * (table[0] + table[-1])  # no cancellation of a large level
    _weigh_by_size(centred, after, part)
    constant = part.sum()
    _weigh_by_size(centred, before + after, part)
    phi = np.empty(n)
    for i in range(n - 1, -1, -1):
        half = part.size // 2
        phi[i] = part[half:].sum()
        part = part[:half] + part[half:]
    return phi - constant


def interactions(table: np.ndarray, index: str, order: int) -> dict[tuple[int, ...], float]:
    """Interaction values of all sets of 1 to `order` players of a set function given in full.

    Parameters
    ----------
    table : ndarray of shape (2^n,)
    index : {"SII", "k-SII", "STII", "FSII"}
    order : int

    Returns
    -------
    dict
        Players, in increasing order, to value.
    """
    n = int(table.size).bit_length() - 1
    m = moebius(table)
    sizes = np.arange(n + 1)

    def over_supersets(weight: np.ndarray) -> np.ndarray:
        out = np.empty(table.size)
        _weigh_by_size(m, weight, out)
        _supersets(out)
        return out

    values: dict[tuple[int, ...], float] = {}
    for s in range(1, min(order, n) + 1):
        if index in ("SII", "k-SII"):
            sums = over_supersets(1.0 / np.maximum(sizes - s + 1, 1))
        elif index == "STII" and s < order:
            sums = m
        elif index == "STII":
            sums = over_supersets(np.array([1.0 / max(comb(t, s), 1) for t in sizes]))
        else:
            k = order
            weight = np.array(
                [comb(t - 1, k) / comb(t + k - 1, k + s) if t > k else 0.0 for t in sizes]
            )
            sums = m + (-1) ** (k - s) * s / (k + s) * comb(k, s) * over_supersets(weight)
        for players in combinations(range(n), s):
            values[players] = float(sums[sum(1 << i for i in players)])
    return _aggregate(values, order) if index == "k-SII" else values


def _aggregate(sii: dict[tuple[int, ...], float], order: int) -> dict[tuple[int, ...], float]:
    """k-SII from SII: each larger set gives its share to its subsets."""
    share = bernoulli(order)  # B_1 = -1/2
    out = dict.fromkeys(sii, 0.0)
    for players, value in sii.items():
        for s in range(1, len(players) + 1):
            for part in combinations(players, s):
                out[part] += share[len(players) - s] * value
    return out


def owen(table: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Owen values of a set function given in full, for one level of groups.

    Parameters
    ----------
    table : ndarray of shape (2^n,)
    groups : ndarray of shape (n,), int
        Number of each player's group.

    Returns
    -------
    ndarray of shape (n,)

    References
    ----------
    Owen (1977), doi 10.1007/978-3-642-45494-3_7.
    """
    n = int(table.size).bit_length() - 1
    names = np.unique(groups)
    masks = [int(np.sum(1 << np.flatnonzero(groups == g))) for g in names]
    phi = np.zeros(n)
    for k, g in enumerate(names):
        # The group plays a game of its own, whose value is a mean over coalitions of the others:
        # folding the table over each other group leaves a table of the group's subsets
        members = np.flatnonzero(groups == g)
        subsets = np.array(
            [
                sum(1 << int(members[b]) for b in range(len(members)) if s >> b & 1)
                for s in range(2 ** len(members))
            ]
        )
        others = [mask for j, mask in enumerate(masks) if j != k]
        own = np.zeros(len(subsets))
        for chosen in range(2 ** len(others)):
            outside = sum(mask for b, mask in enumerate(others) if chosen >> b & 1)
            size = chosen.bit_count()
            own += table[outside + subsets] / ((len(others) + 1) * comb(len(others), size))
        phi[members] = shapley(own)
    return phi
