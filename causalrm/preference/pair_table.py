"""Votes summed by pair of items, for models whose score of a pair bends in its parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from scipy import linalg, sparse, special

from causalrm.core.errors import IdentificationError
from causalrm.core.inference import invert_information, quantile, sandwich
from causalrm.core.optimize import Objective
from causalrm.core.result import Assumption
from causalrm.preference.fitting import Setup, newton
from causalrm.preference.votes import Heaps, Votes, heap, locate_labels

_STEPS = 200


@dataclass(frozen=True)
class PairTable:
    """Votes by unordered pair of items.

    Attributes
    ----------
    items : tuple
        Labels of the k items.
    first, second : ndarray of shape (p,)
        Items of each pair, first before second.
    n, s : ndarray of shape (p,)
        Sum of weights, and of weights times the outcome of the first item.
    squares : ndarray of shape (3, p)
        Sums of squared weights times 1, outcome and squared outcome.
    by_cluster : tuple of two CSR arrays of shape (clusters, p), or None
        `n` and `s` by cluster.
    n_votes : int
    ties : float
        Share of the weight in outcomes of one half.
    """

    items: tuple[Any, ...]
    first: np.ndarray
    second: np.ndarray
    n: np.ndarray
    s: np.ndarray
    squares: np.ndarray
    by_cluster: tuple[sparse.csr_array, sparse.csr_array] | None
    n_votes: int
    ties: float

    def bradley_terry(self, model: int, ridge: float = 0.0) -> tuple[np.ndarray, float]:
        """Strengths that sum to zero, of a model with ties as half wins, and the likelihood."""
        none = np.empty((0, len(self.n)))
        pair = np.arange(len(self.n))
        h = Heaps(
            self.first.astype(np.int32), self.second.astype(np.int32), self.s / self.n, self.n,
            self.n, pair, self.first, self.second, none,
        )  # fmt: skip
        found, _ = newton(h, Setup(model, False, ridge, ()), len(self.items))
        return found.strength - found.strength.mean(), found.value

    @property
    def incidence(self) -> np.ndarray:
        """1 for the first item of a pair and -1 for the second, shape (p, k)."""
        out = np.zeros((len(self.n), len(self.items)))
        rows = np.arange(len(self.n))
        out[rows, self.first], out[rows, self.second] = 1.0, -1.0
        return out


def pair_table(votes: Votes) -> PairTable:
    """Sum votes by pair."""
    h = heap(votes, position=False)
    y = np.where(h.i < h.j, h.y, 1.0 - h.y)  # outcome of the first item of the pair
    size = len(h.first)
    squares = np.stack([np.bincount(h.pair, h.square * y**e, size) for e in range(3)])
    clusters = None
    if votes.cluster is not None:
        a, b = votes.a.codes.astype(np.int64), votes.b.codes.astype(np.int64)
        k = len(votes.items)
        place = np.empty(k * k, dtype=np.int64)
        place[h.first * k + h.second] = np.arange(size)
        pair = place[np.minimum(a, b) * k + np.maximum(a, b)]
        w = votes.w if votes.w.size else np.ones(len(a))
        wins = w * np.where(a < b, votes.y, 1.0 - votes.y)
        at, shape = (votes.cluster.codes, pair), (votes.n_clusters, size)
        clusters = tuple(sparse.csr_array((v, at), shape=shape) for v in (w, wins))
    return PairTable(
        votes.items, h.first, h.second, np.bincount(h.pair, h.w, size),
        np.bincount(h.pair, h.w * y, size), squares, clusters, votes.n_votes,
        float(h.w[h.y == 0.5].sum() / h.w.sum()),
    )  # fmt: skip


class Score(Protocol):
    """Scores of the pairs as a function of the parameters."""

    def eta(self, theta: np.ndarray) -> np.ndarray:
        """Score of every pair, shape (p,)."""

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        """Its derivative, shape (p, d)."""

    def curvature(self, theta: np.ndarray, g: np.ndarray) -> np.ndarray:
        """Sum over pairs of `g` times the second derivative, shape (d, d)."""


def _logit(eta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return special.log_expit(eta), special.expit(-eta), special.expit(eta) * special.expit(-eta)


def _probit(eta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    value = special.log_ndtr(eta)
    ratio = np.exp(-0.5 * eta**2 - 0.5 * np.log(2 * np.pi) - value)
    return value, ratio, ratio * (ratio + eta)


Prior = Callable[[np.ndarray], tuple[float, np.ndarray, np.ndarray]]
LINKS = {"logit": _logit, "probit": _probit}


def rows(
    table: PairTable, eta: np.ndarray, link: str
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Log-likelihood, its two derivatives by pair, and the score of one vote.

    The score of a vote with outcome y is ``alpha * y - gamma``.
    """
    up, down = LINKS[link](eta), LINKS[link](-eta)
    lost = table.n - table.s
    value = float(
        np.where(table.s > 0, table.s * up[0], 0.0).sum()
        + np.where(lost > 0, lost * down[0], 0.0).sum()
    )
    alpha, gamma = up[1] + down[1], down[1]
    curve = -(table.s * up[2] + lost * down[2])
    return value, alpha * table.s - gamma * table.n, curve, alpha, gamma


def objective(table: PairTable, score: Score, link: str, prior: Prior | None = None) -> Objective:
    """Penalised log-likelihood with its score and Hessian.

    `prior` gives the (negative) penalty at some parameters, with its two derivatives.
    """

    def function(theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        with np.errstate(over="ignore", invalid="ignore"):
            value, g, h, _, _ = rows(table, score.eta(theta), link)
            j = score.jacobian(theta)
            slope, hessian = j.T @ g, (j.T * h) @ j + score.curvature(theta, g)
        if prior is not None:
            less, by, twice = prior(theta)
            value, slope, hessian = value + less, slope + by, hessian + twice
        return value, slope, hessian, np.empty(0)

    return function


def climb(
    function: Objective, start: np.ndarray, max_step: float = 5.0
) -> tuple[np.ndarray, bool, int]:
    """Maximise a function that may have saddles and long, nearly flat ridges.

    Newton steps in the eigenvectors of the scaled Hessian, each as long as the size of its
    curvature says: damping, which `maximize` uses, would creep along a ridge. The last step is
    taken in full, so that rounding in the start leaves no trace.

    Returns
    -------
    theta : ndarray of shape (d,)
    converged : bool
    steps : int
    """
    theta, value, steps = start, -np.inf, 0
    if not len(start):
        return theta, True, steps
    value, score, hessian, _ = function(theta)
    for steps in range(1, _STEPS + 1):
        size = np.sqrt(np.maximum(np.abs(np.diag(hessian)), 1e-300))
        curve, vectors = linalg.eigh(-hessian / size[:, None] / size[None, :])
        along = vectors.T @ (score / size)
        step = vectors @ (along / np.maximum(np.abs(curve), 1e-12)) / size
        gain = 0.5 * float(score @ step)
        small = gain <= max(1e-10, 64 * np.finfo(float).eps * (1.0 + abs(value)))
        if small and curve[0] > 0:
            return theta + step, True, steps
        if small:  # on a saddle: leave it along the ridge
            step = vectors[:, 0] / size * np.sign(along[0] or 1.0)
        step = step * min(1.0, max_step / max(np.abs(step).max(), 1e-300))
        for _ in range(50):
            trial = function(theta + step)
            if np.isfinite(trial[0]) and trial[0] > value:
                break
            step = 0.5 * step
        else:
            return theta, bool(small), steps
        theta = theta + step
        value, score, hessian, _ = trial
    return theta, False, steps


def covariances(
    table: PairTable,
    eta: np.ndarray,
    j: np.ndarray,
    information: np.ndarray,
    penalised: np.ndarray,
    link: str,
    names: Sequence[str],
) -> tuple[dict[str, np.ndarray], float | None]:
    """Model, robust and cluster covariance, and the degrees of freedom of the last."""
    bread = invert_information(penalised, names)
    _, _, _, alpha, gamma = rows(table, eta, link)
    q0, q1, q2 = table.squares
    meat = (j.T * (alpha**2 * q2 - 2 * alpha * gamma * q1 + gamma**2 * q0)) @ j
    out = {"model": sandwich(bread, information), "robust": sandwich(bread, meat)}
    if table.by_cluster is None:
        return out, None
    n, s = table.by_cluster
    g = n.shape[0]
    sums = (s.multiply(alpha[None, :]) - n.multiply(gamma[None, :])) @ j
    out["cluster"] = sandwich(bread, np.asarray(sums.T @ sums), g / (g - 1))
    return out, g - 1.0


def refuse_infinite(table: PairTable, eta: np.ndarray, most: float, remedy: str) -> None:
    """Refuse scores that run to infinity."""
    far = np.flatnonzero(np.abs(eta) > most)
    if far.size:
        pairs = [f"{table.items[table.first[p]]} / {table.items[table.second[p]]}" for p in far[:5]]
        raise IdentificationError(
            f"Expected finite scores, but those of {far.size} of {len(eta)} pairs run to infinity "
            f"({', '.join(pairs)}): one of the two always wins. {remedy}"
        )


def independence(cluster: str | None) -> Assumption:
    """What standard errors take for granted of votes."""
    if cluster is None:
        return Assumption(
            "Independent votes", "Votes are independent",
            "Votes of one rater or prompt are dependent; give them as cluster.",
        )  # fmt: skip
    return Assumption(
        "Independent clusters", f"Votes of different values of {cluster} are independent",
        "Standard errors and tests allow any dependence within a cluster.",
    )  # fmt: skip


def predictions(
    data: Any,
    roles: Any,
    items: tuple[Any, ...],
    score: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    covariance: np.ndarray,
    df: float | None,
    link: str,
    level: float,
) -> pd.DataFrame:
    """Probability that a wins for new rows, with intervals symmetric on the scale of the link."""
    source, a, b = locate_labels(data, roles, items)
    eta, j = score(a, b)
    error = np.sqrt(np.clip(((j @ covariance) * j).sum(axis=1), 0.0, None))
    z = quantile(level, df)
    inverse = special.expit if link == "logit" else special.ndtr
    p = inverse(eta)
    density = p * (1 - p) if link == "logit" else np.exp(-0.5 * eta**2) / np.sqrt(2 * np.pi)
    return pd.DataFrame(
        {
            "estimate": p,
            "std_error": density * error,
            "conf_low": inverse(eta - z * error),
            "conf_high": inverse(eta + z * error),
        },
        index=source.index,
    )
