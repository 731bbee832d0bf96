"""Interactions: exact with reply noise from a full table, else FSII by weighted regression."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb

import numpy as np
import pandas as pd

from causalrm.attribution import _kernels
from causalrm.attribution.template import Component
from causalrm.core.errors import IdentificationError

_TABLE_UP_TO = 14  # players whose table of all coalitions is transformed


def n_terms(n: int, order: int) -> int:
    """Sets of one to `order` players."""
    return sum(comb(n, s) for s in range(1, min(order, n) + 1))


def least_coalitions(n: int, order: int) -> int:
    """Coalitions below which interactions are refused."""
    return int(min(2**n, 2 * n_terms(n, order) + 2))


def interactions(
    Z: np.ndarray, mean: np.ndarray, var: np.ndarray, players: Sequence[Component], order: int
) -> pd.DataFrame:
    """Interaction values with standard errors.

    From all coalitions every index is exact, and the standard error is that of the replies.
    Otherwise only the faithful index can be estimated: it is by definition a regression with
    Shapley weights, and its standard error (HC3 by pairs of
    complements) covers both sampling and replies.
    """
    m, n = Z.shape
    names = [c.name for c in players]
    sets = [s for k in range(1, min(order, n) + 1) for s in combinations(range(n), k)]
    parts: list[tuple[str, np.ndarray, np.ndarray]] = []
    if n <= _TABLE_UP_TO and m == 2**n:
        table, noise = np.empty(m), np.empty(m)
        where = Z @ (1 << np.arange(n))
        table[where], noise[where] = mean, var
        for index in _kernels.INDICES:
            values = _kernels.interactions(table, index, order)
            se = _reply_errors(noise, n, index, order, sets)
            parts.append((index, np.array([values[s] for s in sets]), se))
        source = "exact"
    else:
        if m < least_coalitions(n, order):
            raise IdentificationError(
                f"Interactions up to order {order} of {n} players are {len(sets)} numbers, which "
                f"{m} coalitions cannot tell apart. Ask {least_coalitions(n, order)} or more, or "
                "fewer players or orders."
            )
        parts.append(("FSII", *_faithful(Z, mean, var, sets)))
        source = "regression"
    frames = [
        pd.DataFrame(
            {
                "index": index,
                "order": [len(s) for s in sets],
                "term": [" x ".join(names[i] for i in s) for s in sets],
                "players": [",".join(map(str, s)) for s in sets],
                "estimate": values,
                "std_error": se,
                "source": source,
            }
        )
        for index, values, se in parts
    ]
    return pd.concat(frames, ignore_index=True)


def _reply_errors(
    noise: np.ndarray, n: int, index: str, order: int, sets: list[tuple[int, ...]]
) -> np.ndarray:
    """Propagate reply noise: an index is linear in the table.

    The weight of v(T) in the value of S depends only on how many of S, and how many others, are
    in T, so that a few unit tables show all weights.
    """
    if not noise.any():
        return np.zeros(len(sets))
    bits = np.arange(noise.size)
    out = np.empty(len(sets))
    weight: dict[int, np.ndarray] = {}
    for s in range(1, min(order, n) + 1):
        first = tuple(range(s))
        weight[s] = np.empty((s + 1, n - s + 1))
        for a in range(s + 1):
            for b in range(n - s + 1):
                unit = np.zeros(noise.size)
                unit[((1 << a) - 1) | (((1 << b) - 1) << s)] = 1.0
                weight[s][a, b] = _kernels.interactions(unit, index, order)[first]
    on = (bits[:, None] >> np.arange(n) & 1).astype(int)
    size = on.sum(axis=1)
    for k, players in enumerate(sets):
        inside = on[:, list(players)].sum(axis=1)
        out[k] = np.sqrt(noise @ weight[len(players)][inside, size - inside] ** 2)
    return out


def _faithful(
    Z: np.ndarray, mean: np.ndarray, var: np.ndarray, sets: list[tuple[int, ...]]
) -> tuple[np.ndarray, np.ndarray]:
    """FSII by least squares with Shapley weights, passing through both ends.

    Coalitions are drawn unevenly over sizes; each stands for C(n, s) / drawn(s) of its size.
    """
    n = Z.shape[1]
    size = Z.sum(axis=1)
    inner = (size > 0) & (size < n)
    none, whole = float(mean[size == 0][0]), float(mean[size == n][0])
    X = np.column_stack([Z[:, list(s)].all(axis=1) for s in sets])[inner].astype(float)
    y = mean[inner] - none
    drawn = np.bincount(size[inner], minlength=n + 1)[size[inner]]
    w = (n - 1) / (size[inner] * (n - size[inner]) * drawn)
    w /= w.mean()
    # All coefficients add up to v(all) - v(none): take the last as the rest
    last = X[:, -1:]
    A, b = X[:, :-1] - last, y - last[:, 0] * (whole - none)
    root = np.sqrt(w)[:, None]
    q, r = np.linalg.qr(A * root)
    if np.abs(np.diag(r)).min() < 1e-9 * np.abs(np.diag(r)).max():
        raise IdentificationError(
            f"The {len(A)} coalitions asked cannot tell all interactions apart. Ask more, or set a "
            "lower order."
        )
    beta = np.linalg.solve(r, q.T @ (b * root[:, 0]))
    gain = np.linalg.solve(r, q.T)
    # Complements are drawn together, and none twice: what all coalitions of a size would show
    # is certain but for the replies
    present = size[inner]
    share = np.minimum(drawn / np.array([comb(n, int(k)) for k in present]), 1.0)
    pair = np.where((Z[inner][:, 0])[:, None], Z[inner], ~Z[inner])
    group = np.unique(np.packbits(pair, axis=1), axis=0, return_inverse=True)[1].ravel()
    leverage = np.bincount(group, (q**2).sum(axis=1))[group]
    error = (b - A @ beta) * root[:, 0] / (1.0 - np.minimum(leverage, 0.9))
    together = np.zeros((group.max() + 1, gain.shape[0]))
    np.add.at(together, group, (gain * error * np.sqrt(1.0 - share)).T)
    covariance = together.T @ together
    covariance += (gain * (root[:, 0] ** 2 * var[inner] * share)) @ gain.T
    se = np.sqrt(np.append(np.diag(covariance), covariance.sum()))
    return np.append(beta, whole - none - beta.sum()), se
