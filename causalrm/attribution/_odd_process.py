r"""A Gaussian process for the odd part of a set function, and the Shapley values it implies.

Kernel: sum over odd k of s_k e_k(r x x') / e_k(r), with e_k the elementary symmetric polynomials:
s_k is the variance of the terms of order k, r_i the relevance of player i. Shapley values are a
linear map of d, so their posterior is normal in closed form; a noise-free pair (empty, full) makes
them add up to v(full) - v(empty) exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import linalg, optimize

from causalrm.attribution._kernels_surrogate import symmetric, symmetric_products, without

ORDERS = (1, 3, 5)
_MOST = 4000  # pairs, beyond which only terms of order one are modelled (the work grows as m^3)
_LEARN = 350  # pairs from which variances and relevances are learnt
_JITTER = 1e-10
_FEW = 64  # exact pairs up to which variances are averaged over instead of learnt
_SIZES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)  # of the signal, over the mean square of all
_SIGNAL = (np.log(0.5), 0.8)  # prior of the logarithm of the size of the terms of order one
_SHARES = (  # of the variance, by order
    (0.99, 0.007, 0.003),
    (0.97, 0.02, 0.01),
    (0.90, 0.07, 0.03),
    (0.80, 0.14, 0.06),
    (0.65, 0.23, 0.12),
    (0.50, 0.33, 0.17),
    (0.30, 0.45, 0.25),
    (0.10, 0.60, 0.30),
)


@dataclass(frozen=True)
class Posterior:
    """Shapley values given the odd part at some pairs.

    Attributes
    ----------
    phi : ndarray of shape (n,)
    cov, cov_reply : ndarray of shape (n, n)
        Of the posterior, and the part of it that comes from noise in the replies.
    held_out : ndarray of shape (m,)
        Errors when each pair is predicted from the others.
    gain : ndarray of shape (n, m)
        `phi` is this times the odd part.
    """

    phi: np.ndarray
    cov: np.ndarray
    cov_reply: np.ndarray
    held_out: np.ndarray
    gain: np.ndarray


def posterior(
    X: np.ndarray,
    d: np.ndarray,
    noise: np.ndarray,
    *,
    relevance: bool,
    residual: bool = False,
    rng: np.random.Generator,
) -> Posterior:
    """Learn the variances and condition on the pairs.

    Parameters
    ----------
    X : ndarray of shape (m, n)
        +1 for present, -1 for absent. A row of ones is the pair (empty, full).
    d : ndarray of shape (m,)
        Half the difference within each pair.
    noise : ndarray of shape (m,)
        Variance of `d` from noise in the replies.
    relevance : bool
        Whether each player has its own relevance, or all the same.
    residual : bool
        Whether `d` is what a surrogate left, which may be nothing but noise.
    rng : Generator
        For the pairs from which the variances are learnt.
    """
    m, n = X.shape
    scale = float(np.mean(d**2))
    if scale == 0.0:
        zero = np.zeros((n, n))
        return Posterior(np.zeros(n), zero, zero, np.zeros(m), np.zeros((n, m)))
    orders = tuple(k for k in ORDERS if k <= n) if m <= _MOST else (1,)
    if m <= (_LEARN if noise.any() else _FEW) and not (relevance or residual):
        return _averaged(X, d, noise, orders)
    chosen = np.arange(m) if m <= _LEARN else np.sort(rng.permutation(m)[:_LEARN])
    s, extra, r = _learn(X[chosen], d[chosen], noise[chosen], scale, orders, relevance, residual)
    corner = (X == 1).all(axis=1)  # the terms of higher order are not noise at (empty, full)
    noise_all = noise + extra * ~corner
    if orders == (1,):
        return _linear(X, d, noise, noise_all, s[0])
    found, missed = _condition(X, d, noise, noise_all + _JITTER * scale, s, r, orders)
    # where pairs left out are missed by more than foreseen, so are the values
    cov = found.cov_reply + max(missed, 1.0) * (found.cov - found.cov_reply)
    return replace(found, cov=cov)


def _averaged(
    X: np.ndarray, d: np.ndarray, noise: np.ndarray, orders: tuple[int, ...]
) -> Posterior:
    """Average over shares of the orders, and the size of the signal, by how likely the pairs are.

    Few pairs leave these open; the best single one would claim too much.
    """
    m, n = X.shape
    r, scale, exact = np.ones(n), float(np.mean(d**2)), not noise.any()
    e, products = symmetric(r, max(orders)), symmetric_products(X, X, r, max(orders))
    diagonal = np.full(m, 1e-8) if exact else noise + _JITTER * scale
    settings, evidence = [], []
    for shares in np.array(_SHARES)[:, : len(orders)]:
        for size in (1.0,) if exact else scale * np.array(_SIZES):
            s = size * shares / shares.sum()
            C = sum((s[i] / e[k] * products[k] for i, k in enumerate(orders)), np.diag(diagonal))
            L = linalg.cholesky(C, lower=True, overwrite_a=True, check_finite=False)
            quadratic = float(np.sum(linalg.solve_triangular(L, d, lower=True) ** 2))
            log_det = 2.0 * float(np.log(np.diag(L)).sum())
            variance = quadratic / m if exact else 1.0  # the most likely one
            away = 0.0 if exact else (np.log(s[0] / scale) - _SIGNAL[0]) / _SIGNAL[1]
            settings.append((s, variance))
            evidence.append(
                -0.5 * (m * np.log(variance) + quadratic / variance + log_det + away**2)
            )
    weight = np.exp(np.array(evidence) - max(evidence))
    kept = np.flatnonzero(weight > 1e-3 * weight.sum())
    second, reply = np.zeros((n, n)), np.zeros((n, n))
    held_out, gain = np.zeros(m), np.zeros((n, m))
    for j in kept:
        w, (s, variance) = weight[j] / weight[kept].sum(), settings[j]
        unit, missed = _condition(X, d, noise, diagonal, s, r, orders)
        own = max(variance, missed) * (unit.cov - unit.cov_reply) + unit.cov_reply
        gain += w * unit.gain
        second += w * (own + np.outer(unit.phi, unit.phi))
        reply += w * unit.cov_reply
        held_out += w * unit.held_out
    phi = gain @ d
    return Posterior(phi, second - np.outer(phi, phi), reply, held_out, gain)


def _condition(
    X: np.ndarray,
    d: np.ndarray,
    noise: np.ndarray,
    diagonal: np.ndarray,
    s: np.ndarray,
    r: np.ndarray,
    orders: tuple[int, ...],
) -> tuple[Posterior, float]:
    """Condition on the pairs.

    Gives also the mean squared error at pairs left out, each over its foreseen variance.
    """
    m, n = X.shape
    e, top = symmetric(r, max(orders)), max(orders)
    products = symmetric_products(X, X, r, top)
    C = sum((s[i] / e[k] * products[k] for i, k in enumerate(orders)), np.zeros((m, m)))
    del products
    C[np.diag_indices(m)] += diagonal
    factor = linalg.cho_factor(C, lower=True, overwrite_a=True, check_finite=False)
    rx = (X * r).T
    alone, at_rows = without(r, e), without(rx, symmetric(rx, top))
    cross, prior = np.zeros((n, m)), np.zeros((n, n))
    for i, k in enumerate(orders):
        cross += s[i] / e[k] * (2 / k) * rx * at_rows[k - 1]
        prior += s[i] / e[k] * (4 / k**2) * _both(r, alone, k)
    A = linalg.cho_solve(factor, cross.T, check_finite=False)
    inverse = linalg.cho_solve(factor, np.eye(m), check_finite=False)
    solved = inverse @ d
    held_out = solved / np.diag(inverse)
    corner = (X == 1).all(axis=1)
    missed = float(np.mean(held_out[~corner] ** 2 * np.diag(inverse)[~corner]))
    reply = (A * noise[:, None]).T @ A
    found = Posterior(
        phi=A.T @ d,
        cov=prior - cross @ A,
        cov_reply=reply,
        held_out=held_out,
        gain=A.T,
    )
    return found, missed


def _linear(
    X: np.ndarray, d: np.ndarray, noise: np.ndarray, noise_all: np.ndarray, s: float
) -> Posterior:
    """The same with terms of order one only, in the space of the players."""
    n = X.shape[1]
    w = 1.0 / np.maximum(noise_all, _JITTER * float(np.mean(d**2)))
    H = (X * w[:, None]).T @ X + np.eye(n) * n / max(s, 1e-300)
    inverse = linalg.cho_solve(linalg.cho_factor(H), np.eye(n))
    gain = 2.0 * inverse @ (X * w[:, None]).T
    leverage = np.einsum("ij,ij->i", X @ inverse, X) * w
    phi = gain @ d
    held_out = (d - X @ phi / 2.0) / (1.0 - leverage)
    return Posterior(phi, 4.0 * inverse, (gain * noise) @ gain.T, held_out, gain)


def _both(r: np.ndarray, alone: list[np.ndarray], k: int) -> np.ndarray:
    """Sum over sets of k players with i and j of the products of r, for all i and j."""
    n = len(r)
    out = np.zeros((n, n))
    if k >= 2:
        pair = np.ones((n, n))  # e_{k-2} without i and j
        for j in range(1, k - 1):
            pair = alone[j][:, None] - r * pair
        out = np.outer(r, r) * pair
    out[np.diag_indices(n)] = r * alone[k - 1]
    return out


def _learn(
    X: np.ndarray,
    d: np.ndarray,
    noise: np.ndarray,
    scale: float,
    orders: tuple[int, ...],
    relevance: bool,
    residual: bool,
) -> tuple[np.ndarray, float, np.ndarray]:
    """Variances per order, further variance and relevances that make the pairs most likely."""
    m, n = X.shape
    K, top = len(orders), max(orders)
    y, known = d / np.sqrt(scale), noise / scale
    equal = symmetric_products(X, X, np.ones(n), top)

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        s, extra, r = np.exp(theta[:K]), np.exp(theta[K]), np.exp(theta[K + 1 :])
        e = symmetric(r, top)
        E = symmetric_products(X, X, r, top) if relevance else equal
        C = sum((s[i] / e[k] * E[k] for i, k in enumerate(orders)), np.zeros((m, m)))
        C[np.diag_indices(m)] += known + extra + _JITTER
        try:
            L = linalg.cholesky(C, lower=True, overwrite_a=True, check_finite=False)
        except linalg.LinAlgError:
            return 1e10, np.zeros_like(theta)
        a = linalg.cho_solve((L, True), y, check_finite=False)
        inverse = linalg.lapack.dpotri(L, lower=1)[0]
        W = np.tril(inverse) + np.tril(inverse, -1).T - np.outer(a, a)
        value = 0.5 * y @ a + np.log(np.diag(L)).sum()
        gradient = np.zeros_like(theta)
        for i, k in enumerate(orders):
            gradient[i] = 0.5 * s[i] / e[k] * np.vdot(W, E[k])
        gradient[K] = 0.5 * extra * np.trace(W)
        if not residual:  # or noise could make a game look constant, and its values certain
            away = (theta[0] - _SIGNAL[0]) / _SIGNAL[1]
            value += 0.5 * away**2
            gradient[0] += away / _SIGNAL[1]
        if relevance:
            log_r = theta[K + 1 :]
            value += 0.5 * float(log_r @ log_r)
            gradient[K + 1 :] = log_r + r * slope(W, E, s / 2.0, e, r)
        return float(value), gradient

    def slope(
        W: np.ndarray, E: list[np.ndarray], s: np.ndarray, e: np.ndarray, r: np.ndarray
    ) -> np.ndarray:
        # de_k/dr_i = x_i x_i' e_{k-1} without i = sum_j (-r_i)^j (x_i x_i')^{j+1} e_{k-1-j}
        total = [float(np.vdot(W, e_j)) for e_j in E[:top]]
        signed = [((X.T @ (W * e_j)) * X.T).sum(axis=1) for e_j in E[:top]]
        alone = without(r, e)
        out = np.zeros(n)
        for i, k in enumerate(orders):
            inner = sum(
                ((-r) ** j * (total if j % 2 else signed)[k - 1 - j] for j in range(k)),
                np.zeros(n),
            )
            out += s[i] * (inner / e[k] - np.vdot(W, E[k]) / e[k] ** 2 * alone[k - 1])
        return out

    start = np.concatenate([np.log([0.5, 0.1, 0.05][:K]), [np.log(1e-3)], np.zeros(n)])
    bounds = [(-18.0, 4.0)] * K + [(-23.0, 2.0)] + [(-7.0, 4.0) if relevance else (0.0, 0.0)] * n
    found = optimize.minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 40}
    ).x
    return np.exp(found[:K]) * scale, float(np.exp(found[K]) * scale), np.exp(found[K + 1 :])
