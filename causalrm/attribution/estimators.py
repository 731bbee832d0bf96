"""From evaluated coalitions to Shapley values with their uncertainty.

An estimator never asks for a value: it reads what was evaluated, so that the same archive can be
analysed by another method without a new call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import comb

import numpy as np
from scipy import linalg

from causalrm.attribution import _kernels
from causalrm.attribution._odd_process import Posterior, posterior
from causalrm.attribution.design import all_coalitions, keys
from causalrm.attribution.surrogates import Link, Sparse, Surrogate, Trees
from causalrm.core.errors import IdentificationError

METHODS = ("auto", "exact", "permutation", "kernel", "leverage", "odd_gp", "link", "sparse", "tree")
_EXACT_UP_TO = 24


@dataclass(frozen=True)
class Attribution:
    """Shapley values of n players.

    Attributes
    ----------
    phi : ndarray of shape (n,)
    cov_sampling, cov_reply : ndarray of shape (n, n)
        Because not all coalitions were asked, and because replies are noisy.
    method : str
        The one used; `auto` gives the one it chose.
    efficiency_gap : float
        Sum of the values less v(all) - v(none).
    held_out : dict
        Per candidate of `auto`, mean squared error of the odd part at pairs left out.
    exact : bool
        Whether every coalition was known.
    df : float or None
        Degrees of freedom of the t distribution for intervals; None is the normal.
    """

    phi: np.ndarray
    cov_sampling: np.ndarray
    cov_reply: np.ndarray
    method: str
    efficiency_gap: float
    held_out: dict[str, float] = field(default_factory=dict)
    exact: bool = False
    df: float | None = None

    @property
    def std_error(self) -> np.ndarray:
        """Standard errors from both sources, shape (n,)."""
        return np.sqrt(np.maximum(np.diag(self.cov_sampling + self.cov_reply), 0.0))


@dataclass(frozen=True)
class _Pairs:
    """Coalitions with their complements; the first is (all, none)."""

    Z: np.ndarray  # (m, n)
    here: np.ndarray  # rows of the archive
    there: np.ndarray
    d: np.ndarray
    noise: np.ndarray

    @property
    def X(self) -> np.ndarray:
        return np.where(self.Z, 1.0, -1.0)


def estimate(
    Z: np.ndarray,
    mean: np.ndarray,
    var: np.ndarray,
    count: np.ndarray,
    *,
    method: str = "auto",
    bernoulli: bool = False,
    orders: np.ndarray | None = None,
    rng: np.random.Generator | None = None,
) -> Attribution:
    """Estimate Shapley values from evaluated coalitions.

    Parameters
    ----------
    Z : ndarray of shape (m, n), bool
        Coalitions, each once; the empty and the full one are among them.
    mean : ndarray of shape (m,)
        Mean of the replies.
    var : ndarray of shape (m,)
        Variance of that mean; zero where values are exact.
    count : ndarray of shape (m,)
        Replies.
    method : {"auto", "exact", "permutation", "kernel", "leverage", "odd_gp", "link", "sparse", \
"tree"}
    bernoulli : bool
        Whether replies are 0 or 1. Variances are then taken from a fitted model, since a single
        reply shows none.
    orders : ndarray of shape (k, n), optional
        For "permutation": the orders whose prefixes were evaluated, an even number, each odd one
        the reverse of the one before.
    rng : Generator, optional
        For folds and walks.

    Returns
    -------
    Attribution

    Raises
    ------
    IdentificationError
        When the method needs coalitions that were not evaluated.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    index = {key: i for i, key in enumerate(keys(Z))}
    n = Z.shape[1]
    ends = [index.get(keys(np.full((1, n), on))[0]) for on in (False, True)]
    if ends[0] is None or ends[1] is None:
        raise IdentificationError(
            "The empty and the full coalition must be among those evaluated; "
            f"{'the empty' if ends[0] is None else 'the full'} one is missing."
        )
    whole = float(mean[ends[1]] - mean[ends[0]])
    if n == 1:
        reply = np.array([[float(var[ends[0]] + var[ends[1]])]])
        return Attribution(np.array([whole]), np.zeros((1, 1)), reply, "exact", 0.0, {}, True)
    weigh = var
    if bernoulli:
        none = np.empty((0, 2), dtype=np.int64)
        q = Link(Z, mean, count, True, pairs=none).probability(Z)
        # A variance that follows the reply which it weighs would trust the expected replies more
        # than the others: the first reply has no part in this one
        overall = (float(count @ mean) + 0.5) / (float(count.sum()) + 1.0)
        p = ((count - 1.0) * mean + 3.0 * q + overall) / (count + 3.0)
        weigh = p * (1.0 - p) / count
        smooth = (count * mean + 2.0 * q) / (count + 2.0)
        # of a mean that is itself drawn, p (1 - p) is too small by this factor on average
        var = smooth * (1.0 - smooth) / count / (1.0 - count / (count + 2.0) ** 2)
    complete = n <= _EXACT_UP_TO and len(index) == 2**n
    if method == "exact" or (method == "auto" and complete):
        return _exact(Z, mean, var, index, whole)
    if method == "permutation":
        return _permutation(mean, var, index, orders, whole)
    if method in ("kernel", "leverage"):
        return _regression(_pair(Z, mean, var, index), method, whole)
    pairs = _pair(Z, mean, weigh, index)
    return _model(Z, mean, count, pairs, method, bernoulli, whole, rng)


def _exact(
    Z: np.ndarray, mean: np.ndarray, var: np.ndarray, index: dict[bytes, int], whole: float
) -> Attribution:
    n = Z.shape[1]
    if n > _EXACT_UP_TO or len(index) < 2**n:
        raise IdentificationError(
            f"method='exact' needs all 2^{n} coalitions (n up to {_EXACT_UP_TO}); {len(index)} "
            "were evaluated. Raise the budget, or use method='auto'."
        )
    order = np.empty(2**n, dtype=np.int64)
    order[(Z @ (1 << np.arange(n))).astype(np.int64)] = np.arange(len(Z))
    phi = _kernels.shapley(mean[order])
    reply = np.zeros((n, n))
    if np.any(var > 0):  # phi is linear in the table
        size = np.arange(n + 1)
        joins = np.array([0.0] + [1.0 / (n * comb(n - 1, s - 1)) for s in size[1:]])
        stays = np.array([1.0 / (n * comb(n - 1, s)) for s in size[:-1]] + [0.0])
        table, of = all_coalitions(n), Z[order].sum(axis=1)
        gain = np.where(table, joins[of][:, None], -stays[of][:, None])
        reply = (gain * var[order][:, None]).T @ gain
    return Attribution(phi, np.zeros((n, n)), reply, "exact", float(phi.sum() - whole), {}, True)


def _permutation(
    mean: np.ndarray,
    var: np.ndarray,
    index: dict[bytes, int],
    orders: np.ndarray | None,
    whole: float,
) -> Attribution:
    if orders is None or len(orders) < 4:
        raise IdentificationError(
            "method='permutation' needs at least two orders of the players with their reverses; "
            f"{0 if orders is None else len(orders)} orders were given. Evaluate coalitions drawn "
            "for this method, or use method='auto'."
        )
    n = orders.shape[1]
    rows = np.empty((len(orders), n + 1), dtype=np.int64)
    for k, order in enumerate(orders):
        prefix = np.zeros((n + 1, n), dtype=bool)
        for step in range(n):
            prefix[step + 1 :, order[step]] = True
        found = [index.get(key) for key in keys(prefix)]
        if any(row is None for row in found):
            raise IdentificationError(
                f"Order {k} has coalitions that were not evaluated. Evaluate all its prefixes."
            )
        rows[k] = found
    gains = np.empty((len(orders), n))
    weights = np.zeros((len(mean), n))  # phi = weights' mean
    own = np.zeros((n, n))  # reply noise of each pair of orders, summed
    for k, order in enumerate(orders):
        gains[k, order] = np.diff(mean[rows[k]])
        if k % 2 == 0:
            half = np.zeros((len(mean), n))
        np.add.at(half, (rows[k, 1:], order), 0.5)
        np.add.at(half, (rows[k, :-1], order), -0.5)
        if k % 2:
            own += (half * var[:, None]).T @ half
            weights += half / (len(orders) // 2)
    halves = 0.5 * (gains[0::2] + gains[1::2])
    phi = halves.mean(axis=0)
    reply = (weights * var[:, None]).T @ weights
    # Pairs share coalitions, each asked once: noise that they have in common does not spread them
    m = len(halves)
    shared = (m * m * reply - own) / (m * (m - 1))
    total = np.atleast_2d(np.cov(halves.T)) / m + shared
    gap = float(phi.sum() - whole)
    return Attribution(phi, total - reply, reply, "permutation", gap, df=float(len(halves) - 1))


def _pair(Z: np.ndarray, mean: np.ndarray, var: np.ndarray, index: dict[bytes, int]) -> _Pairs:
    """The coalitions whose complement was evaluated too."""
    m, n = Z.shape
    other = np.array([index.get(key, -1) for key in keys(~Z)])
    size = Z.sum(axis=1)
    half = (other >= 0) & ((2 * size > n) | ((2 * size == n) & Z[:, 0]))
    here = np.flatnonzero(half)
    here = here[np.argsort(size[here] != n, kind="stable")]
    if len(here) < 4 and len(here) < 2 ** (n - 1):
        raise IdentificationError(
            f"Pairs of a coalition and its complement are needed; {len(here)} of the {m} "
            "coalitions have theirs. Evaluate paired coalitions, or use method='permutation' with "
            "the orders."
        )
    there = other[here]
    return _Pairs(
        Z[here], here, there, 0.5 * (mean[here] - mean[there]), 0.25 * (var[here] + var[there])
    )


def _regression(pairs: _Pairs, method: str, whole: float) -> Attribution:
    """Weighted least squares under the constraint that the values add up.

    Covington and Lee (2021), arXiv 2012.01536, for pairs; Musco and Witter, arXiv 2410.01917.
    """
    X, d, noise = pairs.X[1:], pairs.d[1:], pairs.noise[1:]
    m, n = X.shape
    size = np.minimum(pairs.Z[1:].sum(axis=1), n - pairs.Z[1:].sum(axis=1))
    drawn = np.bincount(size, minlength=n + 1)
    there_are = np.array([comb(n, s) / (2 if 2 * s == n else 1) for s in range(n + 1)])
    share = np.minimum(drawn / there_are, 1.0)[size]
    w = there_are[size] / drawn[size] / (np.array([comb(n, s) for s in size]) * size * (n - size))
    w /= w.sum()
    H = (X * w[:, None]).T @ X
    H[np.diag_indices(n)] += max(1e-9, 0.2 * (1.0 - m / (2.0 * n)))  # near m = n H is singular
    inverse = linalg.cho_solve(linalg.cho_factor(H), np.eye(n))
    one = inverse.sum(axis=1)
    pull = one / one.sum()
    gain = (np.eye(n) - np.outer(pull, np.ones(n))) @ inverse @ (X * w[:, None]).T
    b = gain @ d + pull * pairs.d[0]
    leverage = np.einsum("ij,ji->i", X, gain)
    error = (d - X @ b) / np.maximum(1.0 - leverage, 0.05)
    sampling = 4.0 * (gain * ((1.0 - share) * (error**2 - noise))) @ gain.T
    reply = 4.0 * ((gain * noise) @ gain.T + np.outer(pull, pull) * pairs.noise[0])
    phi = 2.0 * b
    return Attribution(phi, sampling, reply, method, float(phi.sum() - whole))


def _model(
    Z: np.ndarray,
    mean: np.ndarray,
    count: np.ndarray,
    pairs: _Pairs,
    method: str,
    bernoulli: bool,
    whole: float,
    rng: np.random.Generator,
) -> Attribution:
    """A surrogate, and a Gaussian process on what it leaves.

    Cross-fitting tells how much a candidate leaves of pairs that it has not seen, by which it is
    judged and the process learns its variances; the values are those of a fit to all pairs.
    """
    n = Z.shape[1]
    fits: dict[str, Callable[[np.ndarray], Surrogate]] = {}
    rows = np.concatenate([pairs.here, pairs.there])

    def both(kept: np.ndarray) -> np.ndarray:
        return np.asarray(rows[np.concatenate([kept, kept])])

    if mean.min() >= 0.0 and mean.max() <= 1.0:
        fits["link"] = lambda kept: Link(
            Z[both(kept)], mean[both(kept)], count[both(kept)], bernoulli
        )
    if n >= 3 and (method != "auto" or len(pairs.d) >= 2 * n):  # with fewer they overfit
        fits["sparse"] = lambda kept: Sparse(pairs.X[kept], pairs.d[kept], pairs.noise[kept])
        fits["tree"] = lambda kept: Trees(Z[both(kept)], mean[both(kept)])
    if method == "link" and "link" not in fits:
        raise IdentificationError(
            "method='link' models probabilities; values lie in "
            f"[{mean.min():.4g}, {mean.max():.4g}]. Use scale='probability' or method='auto'."
        )
    chosen = [method] if method != "auto" else ["odd_gp", *fits]
    found: dict[str, tuple[np.ndarray, Callable[[], Attribution]]] = {}
    for name in chosen:
        if name == "odd_gp":
            found[name] = _process_alone(pairs, rng, whole)
        elif name in fits:
            found[name] = _cross_fitted(name, fits[name], pairs, rng, whole)
    held_out = {name: float(error.mean()) for name, (error, _) in found.items()}
    least = min(held_out, key=lambda name: held_out[name])
    if "link" in found:  # it keeps to the range of the values: taken where the others are no better
        worse = found["link"][0] - found[least][0]
        doubt = float(worse.std()) / np.sqrt(len(worse))
        if worse.mean() < (0.02 * held_out[least] if bernoulli else doubt):
            least = "link"
    return replace(found[least][1](), held_out=held_out)


def _errors(post: Posterior) -> np.ndarray:
    """Squared errors at pairs left out; (all, none) is not one of them."""
    return np.asarray(post.held_out[1:] ** 2)


def _process_alone(
    pairs: _Pairs, rng: np.random.Generator, whole: float
) -> tuple[np.ndarray, Callable[[], Attribution]]:
    post = posterior(pairs.X, pairs.d, pairs.noise, relevance=False, rng=rng)
    if len(pairs.d) >= 2 * pairs.Z.shape[1] and not pairs.noise.any():
        own = posterior(pairs.X, pairs.d, pairs.noise, relevance=True, rng=rng)
        if _errors(own).mean() < 0.9 * _errors(post).mean():
            post = own
    sampling = post.cov - post.cov_reply
    gap = float(post.phi.sum() - whole)
    found = Attribution(post.phi, sampling, post.cov_reply, "odd_gp", gap)
    return _errors(post), lambda: found


def _cross_fitted(
    name: str,
    fit: Callable[[np.ndarray], Surrogate],
    pairs: _Pairs,
    rng: np.random.Generator,
    whole: float,
) -> tuple[np.ndarray, Callable[[], Attribution]]:
    """Errors at pairs left out, and what gives the values if they are wanted."""
    m, n = pairs.Z.shape
    folds = 10 if m < 200 else 5 if m < 1500 else 3
    fold = rng.permutation(m) % folds
    fold[0] = -1  # (all, none) is always known
    predicted, parts = np.zeros(m), []
    for k in range(folds):
        part = fit(fold != k)
        predicted[fold == k] = part.odd(pairs.Z[fold == k])
        predicted[0] += part.odd(pairs.Z[:1])[0] / folds
        parts.append(part)
    left, zero = pairs.d - predicted, np.zeros((n, n))
    if np.mean(left**2) < 1e-24 * np.mean(pairs.d**2):  # nothing is left to model
        post = Posterior(np.zeros(n), zero, zero, left, np.zeros((n, m)))
    else:
        post = posterior(pairs.X, left, pairs.noise, relevance=False, residual=True, rng=rng)

    def finish() -> Attribution:
        surrogate = fit(np.ones(m, dtype=bool))
        phi, spread = surrogate.shapley(int(rng.integers(2**31)))
        covariance, noisy = surrogate.covariance, bool(pairs.noise.any())
        own = float(np.trace(covariance))
        if own == 0.0 or (not noisy and m < 2 * n):  # by the jackknife over folds
            # few exact values leave next to nothing of a fit with as many terms: no measure
            each = np.array([part.shapley(0, 2000)[0] for part in parts])
            jackknife = (folds - 1) ** 2 / folds * np.cov(each.T)
            covariance = covariance * float(np.trace(jackknife)) / own if own else jackknife
        phi = phi + post.gain @ (pairs.d - surrogate.odd(pairs.Z))
        reply = post.cov_reply + (covariance if noisy else zero)
        sampling = post.cov - post.cov_reply + np.diag(spread) + (zero if noisy else covariance)
        return Attribution(phi, sampling, reply, name, float(phi.sum() - whole))

    return _errors(post), finish
