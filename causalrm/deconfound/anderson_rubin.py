"""Tests and sets that hold however weak the instruments are, for one or several confounders."""

from __future__ import annotations

import numpy as np
from scipy import optimize, special

from causalrm.core.result import check_level
from causalrm.deconfound import _kernels as k

Moments = tuple[np.ndarray, np.ndarray, np.ndarray]
_STEPS = np.tan(np.linspace(0.0, 0.5 * np.pi - 2e-4, 40))[1:]  # in standard errors, to 5,000


def critical_value(m: int, level: float, df: float | None) -> float:
    """Quantile of chi-squared, or of m times F with the degrees of freedom of clusters."""
    level = check_level(level)
    if df is None:
        return float(special.chdtri(m, 1 - level))
    return m * float(special.fdtri(m, df, level))


def statistic(moments: Moments, theta: np.ndarray) -> float:
    """``g' S^-1 g`` with ``g = zy - zd theta`` and S its covariance; chi-squared at the truth."""
    zy, zd, meat = moments
    g = zy - zd @ theta
    return float(g @ np.linalg.solve(_spread(moments, theta), g))


def _spread(moments: Moments, theta: np.ndarray) -> np.ndarray:
    m = len(moments[0])
    lift = np.hstack([np.eye(m), *(-t * np.eye(m) for t in theta)])
    return np.asarray(lift @ moments[2] @ lift.T)


def confidence_set(
    moments: Moments, critical: float, j: int, centre: np.ndarray, scale: np.ndarray
) -> list[tuple[float, float]]:
    """Values of effect j for which some values of the others pass the joint test.

    With one confounder it is the Anderson-Rubin set itself, in closed form; with several its
    projection, which covers at least as often as its level says.

    Parameters
    ----------
    moments : tuple of ndarray of shape (m,), (m, q) and (m + m q, m + m q)
        Sums ``zy`` and ``zd``, and the covariance of ``zy`` and the columns of ``zd``.
    critical : float
    j : int
    centre, scale : ndarray of shape (q,)
        Estimates and standard errors, from which the search starts. Effects further than 5,000
        standard errors away count as infinite.

    Returns
    -------
    list of (low, high)
        Disjoint intervals in increasing order; infinite ends where the set is unbounded, and an
        empty list where instruments contradict one another.
    """
    zy, zd, meat = moments
    q = zd.shape[1]
    if q == 1:
        return k.anderson_rubin(zy, zd[:, 0], meat, critical)
    rest = np.delete(np.arange(q), j)

    def full(t: float, others: np.ndarray) -> np.ndarray:
        theta = np.empty(q)
        theta[j], theta[rest] = t, others
        return theta

    def least(t: float, start: np.ndarray) -> tuple[float, np.ndarray]:
        """Least statistic over the other effects, from the last place and from two-stage fits."""
        own = zy - zd[:, j] * t
        best, place = np.inf, start
        for others in (start, centre[rest]):
            for _ in range(5):  # with the weights held, the least is a regression
                s = np.linalg.solve(_spread(moments, full(t, others)), zd[:, rest])
                others = np.linalg.solve(zd[:, rest].T @ s, s.T @ own)
            found = optimize.minimize(
                lambda u, o=others: statistic(moments, full(t, o + scale[rest] * u)),
                np.zeros(len(rest)), method="BFGS",
            )  # fmt: skip
            if found.fun < best:
                best, place = float(found.fun), others + scale[rest] * found.x
        return best, place

    grid, inside = [], []
    for sign in (-1.0, 1.0):
        place, values, kept = centre[rest], [], []
        for step in _STEPS if sign > 0 else np.r_[0.0, _STEPS]:
            t = float(centre[j] + sign * step * scale[j])
            value, place = least(t, place)
            values.append(t)
            kept.append(value <= critical)
        order = slice(None, None, int(sign))
        grid += values[order]
        inside += kept[order]

    def edge(a: float, b: float) -> float:
        return float(optimize.brentq(
            lambda t: least(t, centre[rest])[0] - critical, a, b, xtol=1e-8 * scale[j]
        ))  # fmt: skip

    out: list[tuple[float, float]] = []
    low = -np.inf if inside[0] else None
    for a, b, was, is_ in zip(grid[:-1], grid[1:], inside[:-1], inside[1:], strict=True):
        if was == is_:
            continue
        if is_:
            low = edge(a, b)
        else:
            out.append((float(low), edge(a, b)))  # type: ignore[arg-type]
            low = None
    if low is not None:
        out.append((float(low), np.inf))
    return out
