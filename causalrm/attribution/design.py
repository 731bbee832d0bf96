"""Which coalitions to ask: paired, without replacement, balanced over sizes and players."""

from __future__ import annotations

from math import comb

import numpy as np


def keys(Z: np.ndarray) -> list[bytes]:
    """One hashable name per coalition."""
    return [row.tobytes() for row in np.packbits(Z, axis=1)]


def all_coalitions(n: int) -> np.ndarray:
    """Every coalition, in the order of a set function's table; shape (2^n, n)."""
    return (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(bool)


def _allocate(capacity: np.ndarray, total: int, rng: np.random.Generator) -> np.ndarray:
    """Spread `total` draws evenly over sizes, up to what each size has."""
    counts = np.zeros(len(capacity), dtype=int)
    while total > 0 and (counts < capacity).any():
        open_sizes = np.flatnonzero(counts < capacity)
        if total < len(open_sizes):  # one more each for a random part, evenly spaced
            step = len(open_sizes) / total
            chosen = open_sizes[((np.arange(total) + rng.uniform()) * step).astype(int)]
            counts[chosen] += 1
            break
        share = total // len(open_sizes)
        new = np.minimum(share, capacity[open_sizes] - counts[open_sizes])
        counts[open_sizes] += new
        total -= int(new.sum())
    return counts


def paired(
    n: int, n_pairs: int, rng: np.random.Generator, seen: set[bytes] | None = None
) -> np.ndarray:
    """Draw coalitions together with their complements.

    Sizes are drawn in equal shares, which are the leverage scores of the Shapley regression, and
    within a size every player is drawn equally often as far as possible. No pair comes twice.

    Parameters
    ----------
    n : int
        Players, at least 2.
    n_pairs : int
        Fewer are given where no more exist.
    rng : Generator
    seen : set of bytes, optional
        Coalitions (`keys`) that were drawn before.

    Returns
    -------
    ndarray of shape (2 m, n), bool
        Row m + j is the complement of row j. The empty and the full coalition are not among them.

    References
    ----------
    Musco and Witter (2025), Provably accurate Shapley value estimation via leverage score
    sampling, arXiv 2410.01917.
    """
    seen = set() if seen is None else set(seen)
    sizes = np.arange(1, n // 2 + 1)
    capacity = np.array([comb(n, int(s)) // (2 if 2 * s == n else 1) for s in sizes], dtype=object)
    small = np.array([min(c, 2**40) for c in capacity], dtype=np.int64)
    for key in seen:
        row = np.unpackbits(np.frombuffer(key, dtype=np.uint8), count=n)
        present = int(row.sum())
        if 0 < present < n and (2 * present < n or (2 * present == n and row[0])):
            small[present - 1] -= 1
    rows: list[np.ndarray] = []
    for i, count in enumerate(_allocate(np.maximum(small, 0), n_pairs, rng)):
        rows += _of_size(n, i + 1, int(count), int(small[i]), rng, seen)
    half = np.array(rows, dtype=bool).reshape(-1, n)
    half = half[rng.permutation(len(half))]
    return np.concatenate([half, ~half])


def _of_size(
    n: int, size: int, count: int, left: int, rng: np.random.Generator, seen: set[bytes]
) -> list[np.ndarray]:
    """`count` new coalitions of one size, one of each complementary pair."""
    if count > left // 2 and left < 50_000:  # most of them: list and choose
        from itertools import combinations

        fresh = []
        for players in combinations(range(n), size):
            if 2 * size == n and players[0] != 0:
                break
            row = np.zeros(n, dtype=bool)
            row[list(players)] = True
            if keys(row[None])[0] not in seen:
                fresh.append(row)
        return [fresh[i] for i in rng.permutation(len(fresh))[:count]]
    rows: list[np.ndarray] = []
    while len(rows) < count:
        order = rng.permutation(n)  # blocks of a permutation share no player
        for start in range(0, n - size + 1, size):
            row = np.zeros(n, dtype=bool)
            row[order[start : start + size]] = True
            if 2 * size == n and not row[0]:
                row = ~row
            name = keys(row[None])[0]
            if name not in seen and len(rows) < count:
                seen.add(name)
                rows.append(row)
    return rows


def random_orders(
    n: int,
    n_orders: int,
    rng: np.random.Generator,
    *,
    groups: np.ndarray | None = None,
    stages: np.ndarray | None = None,
) -> np.ndarray:
    """Draw orders of the players, each followed by its reverse.

    Parameters
    ----------
    n : int
    n_orders : int
        Rounded up to an even number.
    rng : Generator
    groups : ndarray of shape (levels, n), int, optional
        Numbers of the groups, outermost level first. Members of a group stay together, so that the
        mean change as players join is the Owen value of nested unions.
    stages : ndarray of shape (n,), int, optional
        Players of a lower stage come before those of a higher one: asymmetric Shapley values. Only
        the order within stages is drawn, and reversed.

    Returns
    -------
    ndarray of shape (2 ceil(n_orders / 2), n)

    References
    ----------
    Owen (1977), doi 10.1007/978-3-642-45494-3_7; Frye, Rowat and Feige (2020), arXiv 1910.06358.
    """
    half = -(-n_orders // 2)
    levels = np.empty((0, n), dtype=int) if groups is None else np.atleast_2d(groups)
    out = np.empty((2 * half, n), dtype=np.int64)
    for k in range(half):
        # Sort by a random rank of each group, outermost first, then of each player
        ranks = [rng.permutation(n)]
        for level in levels[::-1]:
            numbers, code = np.unique(level, return_inverse=True)
            ranks.append(rng.permutation(len(numbers))[code])
        for reverse in (0, 1):
            keys_of = [-rank if reverse else rank for rank in ranks]
            if stages is not None:
                keys_of.append(np.asarray(stages))
            out[2 * k + reverse] = np.lexsort(keys_of)
    return out


def prefixes(orders: np.ndarray) -> np.ndarray:
    """The coalitions met on the way through some orders, each once, the empty one first."""
    k, n = orders.shape
    out = np.zeros((k, n + 1, n), dtype=bool)
    for step in range(n):
        out[np.arange(k)[:, None], np.arange(step + 1, n + 1), orders[:, step, None]] = True
    rows = out.reshape(-1, n)
    first = np.unique(np.packbits(rows, axis=1), axis=0, return_index=True)[1]
    return rows[np.sort(first)]


def next_coalitions(
    n: int,
    calls: int,
    rng: np.random.Generator,
    seen: np.ndarray | None = None,
    *,
    noisy: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """What to ask next, for every method that reads pairs.

    Parameters
    ----------
    n : int
    calls : int
        Replies that may be asked for.
    rng : Generator
    seen : ndarray of shape (m, n), bool, optional
        Coalitions that were asked before.
    noisy : bool
        Whether asking again tells more. Replies beyond one for each of the 2^n coalitions then go
        where the Shapley weights are largest.

    Returns
    -------
    Z : ndarray of shape (m, n), bool
    replies : ndarray of shape (m,), int
        How often to ask each; the sum is at most `calls`, and below it where nothing is left.
    """
    old = set() if seen is None else set(keys(seen))
    ends = np.array([[False] * n, [True] * n])
    ends = ends[[key not in old for key in keys(ends)]]
    if n <= 20 and 2**n - len(old) <= calls:
        table = all_coalitions(n)
        new = table[[key not in old for key in keys(table)]]
        if not noisy:
            return new, np.ones(len(new), dtype=int)
        weight = 1.0 / np.array([comb(n, s) for s in range(n + 1)])
        share = weight[table.sum(axis=1)]
        fresh = np.array([key not in old for key in keys(table)], dtype=int)
        extra = calls - int(fresh.sum())
        replies = fresh + _rounded(share / share.sum() * extra, extra)
        return table[replies > 0], replies[replies > 0]
    pairs = paired(n, max((calls - len(ends)) // 2, 0), rng, old)
    Z = np.concatenate([ends, pairs])[:calls]
    return Z, np.ones(len(Z), dtype=int)


def _rounded(share: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers near `share` that add up to `total`."""
    out = np.floor(share).astype(int)
    rest = np.argsort(-(share - out), kind="stable")[: total - out.sum()]
    out[rest] += 1
    return out
