"""Designs of choice experiments."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def choice_design(
    attributes: Mapping[str, Sequence[Any]],
    n_sets: int,
    n_alternatives: int,
    prior: Mapping[str, float],
    kind: str,
    rng: np.random.Generator,
) -> np.ndarray:
    """Codes of levels, shape (sets, alternatives, attributes)."""
    levels = [len(v) for v in attributes.values()]
    tables: list[np.ndarray] = []
    beta: list[float] = []
    for name, values in attributes.items():
        if all(isinstance(x, int | float) for x in values):
            x = np.array(values, dtype=float)
            tables.append(((x - x.mean()) / x.std())[:, None])
            beta.append(prior.get(name, 0.0) * float(x.std()))
        else:
            tables.append(np.eye(len(values))[:, 1:])
            beta.extend(0.0 for _ in values[1:])
    b = np.array(beta)

    def draw() -> np.ndarray:
        codes = np.stack([rng.integers(k, size=(n_sets, n_alternatives)) for k in levels], axis=2)
        for s in range(n_sets):
            while len({tuple(row) for row in codes[s]}) < min(n_alternatives, math.prod(levels)):
                codes[s] = np.stack([rng.integers(k, size=n_alternatives) for k in levels], axis=1)
        return codes

    def information(codes: np.ndarray) -> np.ndarray:
        X = np.concatenate([t[codes[..., k]] for k, t in enumerate(tables)], axis=-1)
        u = X @ b
        p = np.exp(u - u.max(axis=-1, keepdims=True))
        p /= p.sum(axis=-1, keepdims=True)
        mean = np.einsum("sa,sak->sk", p, X)
        return np.asarray(np.einsum("sa,sak,sal->kl", p, X, X) - mean.T @ mean)

    def quality(codes: np.ndarray) -> float:
        return float(np.linalg.slogdet(information(codes) + 1e-9 * np.eye(len(b)))[1])

    if kind == "random":
        return draw()
    best, best_quality = draw(), -np.inf
    for _ in range(3):
        codes = draw()
        now, moved = quality(codes), True
        while moved:
            moved = False
            for place in np.ndindex(codes.shape):
                old = codes[place]
                for code in range(levels[place[2]]):
                    kept, codes[place] = codes[place], code
                    new = quality(codes)
                    if new > now + 1e-9:
                        now, moved = new, moved or code != old
                    else:
                        codes[place] = kept
        if now > best_quality:
            best, best_quality = codes, now
    return best
