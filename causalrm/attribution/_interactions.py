"""Interactions: exact from a full table, else by weighted regression and what it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb

import numpy as np
import pandas as pd
from scipy.special import bernoulli

from causalrm.attribution import _kernels
from causalrm.attribution.template import Component
from causalrm.core.errors import IdentificationError

_TABLE_UP_TO = 14  # players whose table of all coalitions is transformed


def least_coalitions(n: int, order: int) -> int:
    """Coalitions below which interactions are refused."""
    n_sets = sum(comb(n, s) for s in range(1, min(order, n) + 1))
    return int(min(2**n, 2 * n_sets + 2))


def interactions(
    Z: np.ndarray, mean: np.ndarray, var: np.ndarray, players: Sequence[Component], order: int
) -> pd.DataFrame:
    """Interaction values with standard errors.

    From all coalitions every index is exact, and the standard error is that of the replies.
    Otherwise the faithful index is by definition a regression with Shapley weights. The others are
    those of its polynomial, and of what the polynomial leaves at the coalitions asked: every index
    is a sum of values with weights that depend only on how many players, and how many of the set,
    are present, so that means of the residuals by these two numbers are unbiased. Standard errors
    are of sampling and replies together.
    """
    m, n = Z.shape
    order = min(order, n)
    sets = [s for k in range(1, order + 1) for s in combinations(range(n), k)]
    if n <= _TABLE_UP_TO and m == 2**n:
        source, parts = "exact", _exact(Z, mean, var, sets, order)
    elif m < least_coalitions(n, order):
        raise IdentificationError(
            f"Interactions up to order {order} of {n} players are {len(sets)} numbers, which "
            f"{m} coalitions cannot tell apart. Ask {least_coalitions(n, order)} or more, or "
            "fewer players or orders."
        )
    else:
        source, parts = "regression", _estimated(Z, mean, var, sets, order)
    columns = {
        "order": [len(s) for s in sets],
        "term": [" x ".join(players[i].name for i in s) for s in sets],
        "players": [",".join(map(str, s)) for s in sets],
    }
    frames = [
        pd.DataFrame(
            {"index": index} | columns | {"estimate": values, "std_error": se, "source": source}
        )
        for index, (values, se) in parts.items()
    ]
    return pd.concat(frames, ignore_index=True)


type _Found = dict[str, tuple[np.ndarray, np.ndarray]]
"""Estimates and standard errors of all sets, per index."""


def _exact(
    Z: np.ndarray, mean: np.ndarray, var: np.ndarray, sets: list[tuple[int, ...]], order: int
) -> _Found:
    """Transform the table; reply noise goes through the weights, one for each kind of coalition."""
    n = Z.shape[1]
    table = np.empty(len(Z))
    table[Z @ (1 << np.arange(n))] = mean
    found: _Found = {}
    size = Z.sum(axis=1)
    for index in _kernels.INDICES:
        values = _kernels.interactions(table, index, order)
        se = np.zeros(len(sets))
        if var.any():
            weights = [_table_weights(n, s, index, order) for s in range(1, order + 1)]
            for k, players in enumerate(sets):
                w = weights[len(players) - 1][size, Z[:, players].sum(axis=1)]
                se[k] = np.sqrt(var @ w**2)
        found[index] = np.array([values[s] for s in sets]), se
    return found


def _table_weights(n: int, s: int, index: str, order: int) -> np.ndarray:
    """Weight of v(U) in the value of s players, by size of U and how many of them are in it."""
    if index != "FSII":
        return _weights(n, s, index, order)
    out = np.zeros((n + 1, s + 1))
    for a in range(s + 1):
        for b in range(n - s + 1):
            unit = np.zeros(2**n)
            unit[((1 << a) - 1) | (((1 << b) - 1) << s)] = 1.0
            out[a + b, a] = _kernels.interactions(unit, index, order)[tuple(range(s))]
    return out


def _weights(n: int, s: int, index: str, order: int) -> np.ndarray:
    """The same in closed form, shape (n + 1, s + 1).

    Grabisch and Roubens (1999), doi 10.1007/s001820050125; k-SII: Lundberg et al. (2020) and
    Bord and von Luxburg (2023), arXiv 2209.04012; STII: Sundararajan et al., arXiv 1902.05622.
    """
    out = np.zeros((n + 1, s + 1))
    for a in range(s + 1):
        for others in range(n - s + 1):
            sign = -1.0 if (s - a) % 2 else 1.0
            if index == "SII":
                w = sign / ((n - s + 1) * comb(n - s, others))
            elif index == "STII":
                top = order / (n * comb(n - 1, others))
                w = sign * (top if s == order else float(others == 0))
            else:
                w = 0.0
                for r, b in enumerate(bernoulli(order - s)):  # aggregates the SII of larger sets
                    for q in range(max(0, r - (n - s - others)), min(r, others) + 1):
                        more = -1.0 if (s + r - a - q) % 2 else 1.0
                        more /= (n - s - r + 1) * comb(n - s - r, others - q)
                        w += b * comb(others, q) * comb(n - s - others, r - q) * more
            out[a + others, a] = w
    return out


def _estimated(
    Z: np.ndarray, mean: np.ndarray, var: np.ndarray, sets: list[tuple[int, ...]], order: int
) -> _Found:
    """FSII, and the other indices by adjusting its polynomial for what it leaves."""
    n = Z.shape[1]
    size = Z.sum(axis=1)
    beta, se, left, unseen, pair = _faithful(Z, mean, var, sets)
    found: _Found = {"FSII": (beta, se)}
    where = {players: k for k, players in enumerate(sets)}
    integral = beta.copy()  # SII of the polynomial
    for players, k in where.items():
        for s in range(1, len(players)):
            for part in combinations(players, s):
                integral[where[part]] += beta[k] / (len(players) - s + 1)
    squares = np.bincount(size, unseen**2, n + 1) / np.maximum(
        np.bincount(size, minlength=n + 1), 1
    )
    squares[squares == 0.0] = np.mean(unseen**2)  # sizes that were not asked
    squares[[0, n]] = 0.0
    for index in ("SII", "k-SII", "STII"):
        base = integral if index == "SII" else beta  # a polynomial is its own k-SII and STII
        values, errors = base.copy(), np.zeros(len(sets))
        for s in range(1, order + 1):
            weights = _weights(n, s, index, order)
            there = np.array(
                [
                    [comb(s, a) * comb(n - s, u - a) if u >= a else 0 for a in range(s + 1)]
                    for u in range(n + 1)
                ]
            )
            for players in (p for p in sets if len(p) == s):
                k = where[players]
                inside = Z[:, players].sum(axis=1)
                asked = np.zeros((n + 1, s + 1), dtype=int)
                np.add.at(asked, (size, inside), 1)
                gain = (weights * there / np.maximum(asked, 1))[size, inside]
                share = (asked / np.maximum(there, 1))[size, inside]
                values[k] += gain @ left
                spread = np.bincount(pair, gain * unseen * np.sqrt(1.0 - share))
                blind = ((weights * there) ** 2 * (asked == 0)).sum(axis=1)
                errors[k] = spread @ spread + gain**2 * share @ var + blind @ squares
        found[index] = values, np.sqrt(errors)
    return found


def _faithful(
    Z: np.ndarray, mean: np.ndarray, var: np.ndarray, sets: list[tuple[int, ...]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """FSII by least squares with Shapley weights, passing through both ends.

    Coalitions are drawn unevenly over sizes; each stands for C(n, s) / drawn(s) of its size.
    Gives also the residual of each coalition, that of a fit without its pair, and numbers of the
    pairs of complements.
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
    share = np.minimum(drawn / np.array([comb(n, int(k)) for k in size[inner]]), 1.0)
    half = np.where(Z[:, :1], Z, ~Z)
    pair = np.unique(np.packbits(half, axis=1), axis=0, return_inverse=True)[1].ravel()
    left, unseen = np.zeros(len(Z)), np.zeros(len(Z))
    left[inner] = b - A @ beta
    unseen[inner] = _without_pair(left[inner], q, root[:, 0], pair[inner])
    together = np.zeros((pair.max() + 1, gain.shape[0]))
    np.add.at(together, pair[inner], (gain * (root[:, 0] * unseen[inner]) * np.sqrt(1 - share)).T)
    covariance = together.T @ together
    covariance += (gain * (root[:, 0] ** 2 * var[inner] * share)) @ gain.T
    at_none = gain @ (root[:, 0] * (last[:, 0] - 1.0))
    at_all = -gain @ (root[:, 0] * last[:, 0])
    covariance += var[size == 0][0] * np.outer(at_none, at_none)
    covariance += var[size == n][0] * np.outer(at_all, at_all)
    rest = covariance.sum() + var[size == 0][0] * (1.0 + 2.0 * at_none.sum())
    rest += var[size == n][0] * (1.0 - 2.0 * at_all.sum())
    se = np.sqrt(np.append(np.diag(covariance), max(rest, 0.0)))
    return np.append(beta, whole - none - beta.sum()), se, left, unseen, pair


def _without_pair(
    left: np.ndarray, q: np.ndarray, root: np.ndarray, pair: np.ndarray
) -> np.ndarray:
    """Residuals from fits without the coalition and its complement, by their leverages."""
    order = np.argsort(pair, kind="stable")
    twin = np.flatnonzero(np.diff(pair[order]) == 0)
    other = np.arange(len(pair))
    other[order[twin]], other[order[twin + 1]] = order[twin + 1], order[twin]
    own = 1.0 - (q**2).sum(axis=1)
    both = np.where(other == np.arange(len(pair)), 0.0, (q * q[other]).sum(axis=1))
    weighted = root * left
    whole = np.maximum(own * own[other] - both**2, 0.01)
    return np.asarray((own[other] * weighted + both * weighted[other]) / whole / root)
