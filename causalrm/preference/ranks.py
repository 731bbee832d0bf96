"""Quasi standard errors, simultaneous comparisons, ranks and groups, from a covariance."""

from __future__ import annotations

import numpy as np
from scipy import linalg

from causalrm.core import random
from causalrm.core.inference import quantile
from causalrm.preference import _kernels as K

_WORK = 1 << 28  # comparisons of drawn pairs per round
_DRAWS = (500, 5_000)


def contrast_variances(covariance: np.ndarray) -> np.ndarray:
    """Variances of all pairwise differences, shape (k, k)."""
    variance = np.diag(covariance)
    return np.asarray(variance[:, None] + variance[None, :] - 2 * covariance)


def quasi_variances(covariance: np.ndarray) -> tuple[np.ndarray, float]:
    """Variances q such that ``q[i] + q[j]`` is nearly the variance of each difference.

    They minimise the sum of squared log ratios of the two (Firth and de Menezes 2004), by damped
    Gauss-Newton steps.

    Parameters
    ----------
    covariance : ndarray of shape (k, k)
        Of the strengths, a fixed one having zeros.

    Returns
    -------
    ndarray of shape (k,)
        Some may be below zero where no q of their own serve all differences.
    float
        Largest relative error of a standard error of a difference.

    References
    ----------
    Firth, de Menezes (2004), Quasi-variances, Biometrika 91, 65-80, doi 10.1093/biomet/91.1.65.
    """
    k = len(covariance)
    v = contrast_variances(covariance)
    if k == 2:
        return np.full(2, v[0, 1] / 2), 0.0
    off = ~np.eye(k, dtype=bool)
    if not (v[off] > 0).all():  # items whose difference has no variance, such as only ties
        return np.full(k, np.nan), np.nan
    total = v.sum() / (2 * (k - 1))  # least squares on the variances themselves
    q = (v.sum(axis=1) - total) / (k - 2)
    q = np.maximum(q, 1e-3 * q.max())

    def residuals(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        both = np.where(off, x[:, None] + x[None, :], 1.0)
        if (both <= 0).any():
            return both, np.full_like(both, np.inf)
        return both, np.where(off, np.log(both / np.where(off, v, 1.0)), 0.0)

    both, r = residuals(q)
    for _ in range(200):
        weight = np.where(off, both**-2.0, 0.0)
        gradient = (np.where(off, r, 0.0) / both).sum(axis=1)
        step = -linalg.solve(weight + np.diag(weight.sum(axis=1)), gradient, assume_a="pos")
        size = 1.0
        for _ in range(40):
            ahead, r_ahead = residuals(q + size * step)
            if (r_ahead**2).sum() <= (r**2).sum() * (1 + 1e-12):
                break
            size *= 0.5
        else:
            break
        q, both, r = q + size * step, ahead, r_ahead
        if np.abs(step).max() < 1e-10 * np.abs(q).max():
            break
    return q, float(np.abs(np.expm1(0.5 * r)).max())


def compare_all(
    strength: np.ndarray,
    covariance: np.ndarray,
    level: float,
    df: float | None,
) -> tuple[np.ndarray, float]:
    """Which items are above which others, with one error probability for all statements.

    The critical value is a quantile of the largest standardised difference of draws from the
    estimates' normal (or t) distribution. It is stepped down: pairs that are told apart leave, and
    those that remain are compared again.

    Returns
    -------
    ndarray of shape (k, k), bool
        Whether the item of the row is above that of the column beyond doubt.
    float
        Standard errors by which a pair must differ; of the last round.

    References
    ----------
    Mogstad, Romano, Shaikh, Wilhelm (2024), Inference for ranks with applications to mobility
    across neighbourhoods and academic achievement across countries, Review of Economic Studies 91,
    476-518, doi 10.1093/restud/rdad006; Romano, Wolf (2005), doi 10.1198/016214504000000539.
    """
    k = len(strength)
    v = contrast_variances(covariance)
    off = ~np.eye(k, dtype=bool)
    scale = np.divide(1.0, np.sqrt(v, where=v > 0, out=np.ones_like(v)), out=np.zeros_like(v),
                      where=v > 0)  # fmt: skip
    t = (strength[:, None] - strength[None, :]) * scale
    open_ = off & (v > 0)
    if k == 2:
        critical = quantile(level, df)
        return open_ & (t > critical), critical
    draws = _draws(covariance, df, int(np.clip(_WORK // k**2, *_DRAWS)))
    top = np.empty(len(draws))
    better = np.zeros((k, k), bool)
    while True:
        K.largest(draws, scale, open_, top)
        critical = float(np.quantile(top, level))
        new = open_ & (t > critical)
        if not new.any():
            return better, critical
        better |= new
        open_ &= ~new


def _draws(covariance: np.ndarray, df: float | None, n: int) -> np.ndarray:
    """Draws of the estimates' error; always the same ones."""
    generator, _ = random.resolve(20240224)
    values, vectors = linalg.eigh(covariance)
    half = vectors * np.sqrt(np.clip(values, 0.0, None))
    z = generator.standard_normal((n, len(covariance))) @ half.T
    if df is not None:
        z /= np.sqrt(generator.chisquare(df, n) / df)[:, None]
    return np.asarray(z)


def rank_bounds(better: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest rank that each item may have, 1 being the best."""
    k = len(better)
    return 1 + better.sum(axis=0), k - better.sum(axis=1)


def groups(order: np.ndarray, better: np.ndarray) -> list[list[int]]:
    """Runs of neighbours in the ranking of whom no two are told apart, as long as they can be.

    Parameters
    ----------
    order : ndarray of shape (k,)
        Items from the best on.
    better : ndarray of shape (k, k), bool

    Returns
    -------
    list of list of int
        From the best on; they overlap where A and B, and B and C, but not A and C are alike.
    """
    apart = (better | better.T)[np.ix_(order, order)]
    out: list[list[int]] = []
    end = 0
    for start in range(len(order)):
        stop = max(end, start + 1)
        while stop < len(order) and not apart[start:stop, stop].any():
            stop += 1
        if stop > end:
            out.append([int(i) for i in order[start:stop]])
            end = stop
    return out
