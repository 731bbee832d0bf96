"""Cheap models of a set function whose Shapley values are known or free.

Each is fitted to pairs of a coalition and its complement, predicts the odd part, and gives its own
Shapley values with the Monte Carlo variance of these where they are not exact.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from scipy import linalg
from scipy.special import expit, logit, xlogy

from causalrm.attribution import _kernels, design
from causalrm.attribution._kernels_surrogate import (
    boost,
    logistic_walk,
    trees_at,
    trees_shapley,
)

_BATCHES = 50


class Surrogate(Protocol):
    """A fitted model of a set function."""

    @property
    def covariance(self) -> np.ndarray:
        """Of the Shapley values, from the noise in the fit; shape (n, n), zero if not known."""

    def odd(self, Z: np.ndarray) -> np.ndarray:
        """Odd part at coalitions, shape (m,)."""

    def shapley(self, seed: int, orders: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
        """Shapley values (n,) and their Monte Carlo variances (n,) where orders are drawn."""


class Link:
    """A logistic regression with main effects and pairs, for values between 0 and 1.

    Pairs enter in batches by the size of their scores while an information criterion falls; main
    effects and pairs have a normal prior each, whose variance is learnt.

    Parameters
    ----------
    Z : ndarray of shape (m, n), bool
    value : ndarray of shape (m,)
        In [0, 1].
    count : ndarray of shape (m,)
        Replies behind each value.
    bernoulli : bool
        Whether values are means of replies that are 0 or 1, rather than exact.
    pairs : ndarray of shape (k, 2), optional
        The pairs, where they are known and need not be found.
    """

    def __init__(
        self,
        Z: np.ndarray,
        value: np.ndarray,
        count: np.ndarray,
        bernoulli: bool,
        *,
        pairs: np.ndarray | None = None,
    ) -> None:
        X = 2.0 * Z - 1.0
        m, self.n = X.shape
        w = count.astype(float) if bernoulli else np.ones(m)
        left, right = np.triu_indices(self.n, 1)
        beta = np.zeros(self.n + 1)
        beta[0] = logit(np.clip(np.average(value, weights=w), 0.01, 0.99))
        first = np.empty((0, 2), dtype=np.int64) if pairs is None else pairs
        self.left: np.ndarray = first[:, 0]
        self.right: np.ndarray = first[:, 1]
        beta = np.concatenate([beta, np.zeros(len(first))])
        beta, df, fitted, spread = _penalised(
            self._columns(X, *first.T), value, w, beta, self.n, bernoulli
        )

        def criterion(df: float, fitted: np.ndarray, pairs: int) -> float:
            deviance = 2.0 * np.sum(
                w
                * (
                    xlogy(value, value)
                    - xlogy(value, fitted)
                    + xlogy(1 - value, 1 - value)
                    - xlogy(1 - value, 1 - fitted)
                )
            )
            lack = deviance if bernoulli else m * np.log(max(deviance, 1e-13))
            return float(lack + df * np.log(m) + 2.0 * pairs * np.log(len(left) + 1.0))

        self.beta, chosen = beta, np.empty(0, dtype=np.int64)
        best, worse = criterion(df, fitted, 0), 0
        while pairs is None and worse < 2:
            r = w * (value - fitted)
            score = np.abs(((X * r[:, None]).T @ X)[left, right])
            score[chosen] = -1.0
            batch = min(max(1, self.n // 8, len(chosen) // 2), len(left) - len(chosen))
            if batch == 0 or 1 + self.n + len(chosen) + batch > 0.6 * m:
                break
            chosen = np.concatenate([chosen, np.argsort(-score, kind="stable")[:batch]])
            columns = self._columns(X, left[chosen], right[chosen])
            beta = np.concatenate([beta, np.zeros(batch)])
            beta, df, fitted, found_spread = _penalised(columns, value, w, beta, self.n, bernoulli)
            found = criterion(df, fitted, len(chosen))
            worse = 0 if found < best else worse + 1
            if found < best:
                best, spread = found, found_spread
                self.beta, self.left, self.right = beta, left[chosen], right[chosen]
        self._spread = spread

    @property
    def covariance(self) -> np.ndarray:
        """Of the Shapley values, from the noise in the fit; shape (n, n)."""
        jacobian = self._slopes()
        return np.asarray(jacobian @ self._spread @ jacobian.T)

    def _columns(self, X: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return np.column_stack([np.ones(len(X)), X, X[:, left] * X[:, right]])

    def probability(self, Z: np.ndarray) -> np.ndarray:
        """Fitted values, shape (m,)."""
        return np.asarray(expit(self._columns(2.0 * Z - 1.0, self.left, self.right) @ self.beta))

    def odd(self, Z: np.ndarray) -> np.ndarray:
        """Odd part at coalitions, shape (m,)."""
        return np.asarray(0.5 * (self.probability(Z) - self.probability(~Z)))

    def shapley(self, seed: int, orders: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
        """Shapley values (n,), exact up to 12 players, and their Monte Carlo variances (n,)."""
        if self.n <= 12:
            values = self.probability(design.all_coalitions(self.n))
            return _kernels.shapley(values), np.zeros(self.n)
        batches = self._walk(self.beta, orders, seed, _BATCHES)
        return batches.mean(axis=0), batches.var(axis=0, ddof=1) / _BATCHES

    def _walk(self, beta: np.ndarray, n_orders: int, seed: int, batches: int) -> np.ndarray:
        """Shapley values by random orders, with coefficients turned from +-1 to 0/1 coding."""
        n, pair = self.n, beta[self.n + 1 :]
        level = beta[0] - beta[1 : n + 1].sum() + pair.sum()
        main = 2.0 * beta[1 : n + 1]
        np.subtract.at(main, self.left, 2.0 * pair)
        np.subtract.at(main, self.right, 2.0 * pair)
        one, two = np.r_[self.left, self.right], np.r_[self.right, self.left]
        order = np.argsort(one, kind="stable")
        start = np.searchsorted(one[order], np.arange(n + 1))
        out = np.empty((batches, n))
        joint = 4.0 * np.r_[pair, pair][order]
        logistic_walk(level, main, start, two[order], joint, n_orders, seed, out)
        return out

    def _slopes(self) -> np.ndarray:
        """Derivatives of the Shapley values in the coefficients, shape (n, p)."""
        p = len(self.beta)
        if self.n <= 12:
            Z = design.all_coalitions(self.n)
            F, q = self._columns(2.0 * Z - 1.0, self.left, self.right), self.probability(Z)
            return np.column_stack([_kernels.shapley(q * (1.0 - q) * F[:, j]) for j in range(p)])
        steps = 1e-5 * np.eye(p)
        return np.column_stack(
            [
                (self._walk(self.beta + h, 200, 0, 1) - self._walk(self.beta - h, 200, 0, 1))[0]
                / 2e-5
                for h in steps
            ]
        )


def _penalised(
    F: np.ndarray, y: np.ndarray, w: np.ndarray, beta: np.ndarray, n: int, bernoulli: bool
) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
    """Logistic fit with a prior variance each for main effects and pairs, updated on the way.

    Gives coefficients, effective parameters, fitted values, covariance of the coefficients.

    The update is MacKay's (1992), doi 10.1162/neco.1992.4.3.415.
    """
    m, p = F.shape
    group = np.zeros(p, dtype=int)
    group[1 : n + 1], group[n + 1 :] = 1, 2
    precision, dispersion = np.array([1e-8, 1e-3, 1e-3]), 1.0
    for iteration in range(40):
        fitted = expit(np.clip(F @ beta, -35, 35))
        spread = np.maximum(fitted * (1.0 - fitted), 1e-12)
        penalty = dispersion * precision[group]
        H = (F * (w * spread)[:, None]).T @ F
        H[np.diag_indices(p)] += penalty
        factor = linalg.cho_factor(H, check_finite=False)
        step = linalg.cho_solve(factor, F.T @ (w * (y - fitted)) - penalty * beta)
        step *= min(1.0, 4.0 / max(np.abs(F @ step).max(), 1e-12))  # at most 4 on the logit scale
        beta = beta + step
        inverse = linalg.cho_solve(factor, np.eye(p))
        used = 1.0 - penalty * np.diag(inverse)
        fitted = expit(np.clip(F @ beta, -35, 35))
        if not bernoulli:
            chi2 = np.sum(w * (y - fitted) ** 2 / np.maximum(fitted * (1.0 - fitted), 1e-9))
            dispersion = max(chi2 / max(m - used.sum(), 0.2 * m), 1e-14)
        for g in (1, 2):
            here = group == g
            if here.any():
                # a prior worth two coefficients of sd 1/2 keeps few replies from shrinking all to 0
                precision[g] = (used[here].sum() + 2.0) / (np.sum(beta[here] ** 2) + 0.5)
        if iteration > 4 and np.abs(step).max() < 1e-6 * (1.0 + np.abs(beta).max()):
            break
    return beta, float(used.sum()), fitted, dispersion * inverse


class Sparse:
    """A polynomial of order one and few terms of order three, for the odd part.

    All triples are screened for their correlation with what is left; they enter in batches while
    an information criterion falls.

    Parameters
    ----------
    X : ndarray of shape (m, n)
        +1 for present, -1 for absent.
    d : ndarray of shape (m,)
    noise : ndarray of shape (m,)
        Variance of `d` from noise in the replies.
    """

    def __init__(self, X: np.ndarray, d: np.ndarray, noise: np.ndarray) -> None:
        m, self.n = X.shape
        n = self.n
        noisy = bool(noise.any())
        w = 1.0 / np.maximum(noise, 1e-3 * noise.mean()) if noisy else np.ones(m)
        screened = slice(0, 3000)  # enough to rank the triples
        n_triples = n * (n - 1) * (n - 2) // 6
        scale = float(np.sum(w * d * d)) or 1.0

        def fit(F: np.ndarray, triples: int) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
            Fw = F * w[:, None]
            H = Fw.T @ F
            H[np.diag_indices(len(H))] += 1e-8 * w.sum()
            inverse = linalg.cho_solve(linalg.cho_factor(H), np.eye(len(H)))
            b = inverse @ (Fw.T @ d)
            b += inverse @ (Fw.T @ (d - F @ b))  # the ridge only keeps H invertible
            left = d - F @ b
            rss = float(np.sum(w * left * left))
            lack = rss if noisy else m * np.log(max(rss / scale, 1e-22))
            spread = inverse * (1.0 if noisy else rss / max(m - F.shape[1], 0.2 * m))
            penalty = F.shape[1] * np.log(m) + 2 * triples * np.log(n_triples + 1)
            return lack + penalty, b, left, spread

        triples = np.empty((0, 3), dtype=np.int64)
        F = X
        best, b, left, spread = fit(F, 0)
        self.triples, self.b, worse = triples, b, 0
        while n >= 3 and worse < 4:
            size = len(triples)
            batch = min(max(1, size // 3, n // 20), n_triples - size)
            if batch == 0 or n + size + batch > m // 2:
                break
            new = _best_triples(X[screened], (w * left)[screened], batch, triples)
            triples = np.concatenate([triples, new])
            F = np.column_stack([F, X[:, new].prod(axis=2)])
            found, b, left, found_spread = fit(F, len(triples))
            worse = 0 if found < best else worse + 1
            if found < best:
                best, self.triples, self.b, spread = found, triples, b, found_spread
        self._spread = spread

    @property
    def covariance(self) -> np.ndarray:
        """Of the Shapley values, from the noise in the fit; shape (n, n)."""
        L = self._to_shapley()
        return np.asarray(L @ self._spread @ L.T)

    def odd(self, Z: np.ndarray) -> np.ndarray:
        """Odd part at coalitions, shape (m,)."""
        X = 2.0 * Z - 1.0
        return np.asarray(np.column_stack([X, X[:, self.triples].prod(axis=2)]) @ self.b)

    def shapley(self, seed: int, orders: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
        """Shapley values (n,), which are exact."""
        return self._to_shapley() @ self.b, np.zeros(self.n)

    def _to_shapley(self) -> np.ndarray:
        """The linear map from coefficients to Shapley values."""
        L = np.zeros((self.n, len(self.b)))
        L[:, : self.n] = 2.0 * np.eye(self.n)
        for j, triple in enumerate(self.triples):
            L[triple, self.n + j] = 2.0 / 3.0
        return L


def _best_triples(X: np.ndarray, r: np.ndarray, count: int, have: np.ndarray) -> np.ndarray:
    """Triples of players whose product is most correlated with `r`, shape (count, 3)."""
    n = X.shape[1]
    known = {tuple(t) for t in have.tolist()}
    best: list[tuple[float, tuple[int, int, int]]] = []
    for i in range(n - 2):
        rest = X[:, i + 1 :]
        sums = np.abs((rest * (r * X[:, i])[:, None]).T @ rest)
        a, b = np.triu_indices(n - i - 1, 1)
        flat = sums[a, b]
        keep = min(count + len(known), len(flat))
        for t in np.argpartition(-flat, keep - 1)[:keep]:
            triple = (i, int(a[t]) + i + 1, int(b[t]) + i + 1)
            if triple not in known:
                best.append((float(flat[t]), triple))
        best = sorted(best, key=lambda found: -found[0])[:count]
    return np.array([triple for _, triple in best], dtype=np.int64).reshape(-1, 3)


class Trees:
    """Boosted trees for games of high order; deeper ones where there is more to learn from.

    Parameters
    ----------
    Z : ndarray of shape (m, n), bool
    value : ndarray of shape (m,)
    """

    def __init__(self, Z: np.ndarray, value: np.ndarray) -> None:
        self.n = Z.shape[1]
        depth, rounds, rate = (3, 300, 0.1) if len(Z) < 1500 else (6, 1000, 0.2)
        self.covariance = np.zeros((self.n, self.n))
        self.feature = np.full((rounds, 2 ** (depth + 1) - 1), -1, dtype=np.int64)
        self.value = np.zeros(self.feature.shape)
        boost(Z.astype(np.uint8), value - value.mean(), rate, 1.0, self.feature, self.value)

    def odd(self, Z: np.ndarray) -> np.ndarray:
        """Odd part at coalitions, shape (m,)."""
        here, there = np.zeros(len(Z)), np.zeros(len(Z))
        trees_at(Z.astype(np.uint8), self.feature, self.value, here)
        trees_at((~Z).astype(np.uint8), self.feature, self.value, there)
        return np.asarray(0.5 * (here - there))

    def shapley(self, seed: int, orders: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
        """Shapley values (n,), which are exact."""
        phi = np.zeros(self.n)
        trees_shapley(self.feature, self.value, phi)
        return phi, np.zeros(self.n)
