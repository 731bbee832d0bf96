"""A linear reward on pairs, and what each of its estimates owes to each of the pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import linalg, sparse
from scipy.special import expit

from causalrm.augment._pairs import FOREIGN, Matrix, Pairs
from causalrm.augment.result import cluster_se
from causalrm.core.optimize import maximize
from causalrm.preference.differences import Differences, fit_differences

_LARGE = 2_000  # features from which on systems are solved by conjugate gradients


@dataclass(frozen=True)
class Data:
    """Differences of all pairs without fault: preferences first, then augmented ones."""

    d: Matrix
    pairs: Pairs  # of the same rows
    n_preferences: int
    names: tuple[str, ...]

    def weight(self, tie_weight: float) -> np.ndarray:
        """Weight of each row in the fit."""
        return np.where(self.pairs.used, np.where(self.pairs.tie, tie_weight, 1.0), 0.0)


class Score:
    """A fitted linear reward on these rows, and what its estimates owe to each of them."""

    def __init__(
        self,
        data: Data,
        weight: np.ndarray,
        beta: np.ndarray,
        penalty: float | np.ndarray | str | None,
    ):
        self.data = data
        self.beta = beta
        self.gap = np.asarray(data.d @ beta)
        p = expit(self.gap)
        self.residual = weight * (data.pairs.target - p)
        self.curvature = weight * p * (1.0 - p)
        self.ridge = _ridge(penalty, len(beta))
        self._factor: Any = None

    def solve(self, right: np.ndarray) -> np.ndarray:
        d, h = self.data.d, self.curvature
        if len(right) > _LARGE:
            operator = sparse.linalg.LinearOperator(
                (len(right), len(right)), lambda v: d.T @ (h * (d @ v)) + self.ridge * v
            )
            return np.asarray(sparse.linalg.cg(operator, right, rtol=1e-10)[0])
        if self._factor is None:
            if sparse.issparse(d):
                information = (d.T @ sparse.diags_array(h) @ d).toarray()
            else:
                information = (d.T * h) @ d
            self._factor = linalg.cho_factor(information + np.diag(self.ridge))
        return np.asarray(linalg.cho_solve(self._factor, right))

    def mean_gap(self, rows: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean gap of some rows, and the influence of every row on it."""
        share = rows / rows.sum()
        value = float(share @ self.gap)
        influence = self.residual * (self.data.d @ self.solve(self.data.d.T @ share))
        return value, influence + share * (self.gap - value)

    def typical_gap(self, rows: np.ndarray) -> tuple[float, np.ndarray]:
        """Root mean square gap of some rows, and the influence of every row on it."""
        share = rows / rows.sum()
        square = float(share @ self.gap**2)
        value = float(np.sqrt(square))
        if value == 0.0:
            return 0.0, np.zeros(len(rows))
        gradient = self.data.d.T @ (share * self.gap) / value
        influence = self.residual * (self.data.d @ self.solve(gradient))
        return value, influence + share * (self.gap**2 - square) / (2.0 * value)


def _ridge(penalty: float | np.ndarray | str | None, p: int) -> np.ndarray:
    ridge = 0.0 if penalty is None or isinstance(penalty, str) else penalty
    return np.asarray(np.broadcast_to(np.asarray(ridge, dtype=float), p))


def refit(
    data: Data,
    weight: np.ndarray,
    penalty: float | np.ndarray | str | None,
    start: np.ndarray,
) -> Score:
    """Fit with other weights, from the coefficients of a fit nearby."""
    used = weight > 0
    d, y, w = data.d[used], data.pairs.target[used], weight[used]
    ridge = _ridge(penalty, len(start))
    if (ridge > 0).all() and len(start) <= _LARGE:
        rows = Differences(d, y, np.zeros(len(y)), w, False)
        beta = maximize(rows.sums, start, ridge=ridge).theta
    else:
        beta = fit_differences(d, y, weights=w, penalty=penalty, names=data.names).beta
    return Score(data, weight, beta, penalty)


def half_ties(gap: np.ndarray) -> np.ndarray:
    """Whether a is ranked above b; a tie counts half."""
    return 0.5 * (np.sign(gap) + 1.0)


def attributes(pairs: Pairs) -> dict[str, np.ndarray]:
    """Rows of the ordered augmented pairs, by attribute, or by kind where they have none."""
    ordered = ~pairs.tie & (pairs.kind != "preference")
    names = np.where(pairs.attribute == "", pairs.kind, pairs.attribute)
    return {str(v): ordered & (names == v) for v in dict.fromkeys(names[ordered])}


def neutrals(pairs: Pairs) -> dict[str, np.ndarray]:
    """Rows of the neutral pairs, by kind."""
    return {str(v): pairs.tie & (pairs.kind == v) for v in dict.fromkeys(pairs.kind[pairs.tie])}


def frame_of(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    columns = ["group", "term", "estimate", "std_error", "n", "share"]
    return pd.DataFrame(rows, columns=columns).astype(
        {"estimate": float, "std_error": float, "n": int, "share": bool}
    )


def estimates(score: Score, n: int) -> pd.DataFrame:
    """Sensitivities, typical gaps and invariances, with clustered standard errors."""
    pairs = score.data.pairs
    cluster = pairs.cluster
    rows = []
    for name, mask in sorted(attributes(pairs).items()):
        value, influence = score.mean_gap(mask)
        error = cluster_se(influence, cluster)
        rows.append(("sensitivity", name, value, error, int(mask.sum()), False))
    base, own = score.typical_gap(np.arange(len(pairs)) < n)
    rows.append(("typical gap", "preferences", base, cluster_se(own, cluster), n, True))
    invariance = []
    for name, mask in sorted(neutrals(pairs).items()):
        value, influence = score.typical_gap(mask)
        count = int(mask.sum())
        rows.append(("typical gap", name, value, cluster_se(influence, cluster), count, True))
        if base > 0:
            error = cluster_se(influence / base - own * value / base**2, cluster)
            invariance.append(("invariance", name, 1.0 - value / base, error, count, True))
    return frame_of(rows + invariance)


def ratio_of_norms(
    score: Score, spurious: list[int], causal: list[int]
) -> tuple[float, np.ndarray]:
    """Norm of some coefficients over that of others, and the influence of every row on it."""
    beta = score.beta
    top, bottom = (float(np.linalg.norm(beta[i])) for i in (spurious, causal))
    gradient = np.zeros_like(beta)
    gradient[spurious] = beta[spurious] / (top * bottom)
    gradient[causal] = -beta[causal] * top / bottom**3
    return top / bottom, score.residual * (score.data.d @ score.solve(gradient))


def causal_signal_left(rows: Data) -> pd.DataFrame:
    """How much of the direction of each attribute is left when the query is exchanged.

    Mean square of the neutral pairs along the mean difference of the attribute's pairs, over that
    of the preferences: near 1 when features do not depend on the query.
    """
    pairs, n = rows.pairs, rows.n_preferences
    foreign = pairs.kind == FOREIGN
    out = []
    if foreign.any():
        for name, mask in sorted(attributes(pairs).items()):
            direction = rows.d.T @ (mask / mask.sum())
            along = np.asarray(rows.d @ direction) ** 2
            own = float(along[:n].mean())
            out.append((name, float(along[foreign].mean()) / own if own > 0 else np.nan))
    return pd.DataFrame(out, columns=["attribute", "remaining"])
