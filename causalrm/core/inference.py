"""Covariances, tests and the delta method, from arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import linalg, special

from causalrm.core.errors import DataError, IdentificationError, IdentificationWarning, warn

FEW = 30  # clusters below which clustered standard errors are too small on average
_SINGULAR = 1e-13  # least eigenvalue per row, of a matrix scaled to unit diagonal


def _spectrum(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eigenvalues and vectors of a matrix scaled to unit diagonal, and the scale of each row."""
    diagonal = np.abs(np.diag(matrix))
    d = 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    values, vectors = linalg.eigh(matrix * d[:, None] * d[None, :])
    return values, vectors, d


def invert_information(information: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Inverse of a positive definite information matrix.

    Parameters
    ----------
    information : ndarray of shape (k, k)
    names : sequence of str
        Names of the parameters, for the message.

    Returns
    -------
    ndarray of shape (k, k)
        Symmetric and positive definite.

    Raises
    ------
    IdentificationError
        When a combination of parameters has no information; names those involved.
    """
    diagonal = np.diag(information)
    if not (diagonal > 0).all() or not np.isfinite(information).all():
        bad = [n for n, v in zip(names, diagonal, strict=True) if not 0 < v < np.inf]
        raise IdentificationError(
            f"Expected information on every parameter, but there is none on {bad or list(names)}. "
            "Remove the terms concerned, or fix the parameter."
        )
    values, vectors, d = _spectrum(information)
    if values[0] < _SINGULAR * len(values):
        weight = np.abs(vectors[:, 0])
        bad = [n for n, v in zip(names, weight, strict=True) if v > 0.05 * weight.max()]
        raise IdentificationError(
            f"Expected a regular information matrix, but the data cannot separate {bad} "
            f"(least scaled eigenvalue {values[0]:.1e}). Remove one of these terms, or fix a "
            "parameter."
        )
    half = vectors * d[:, None] / np.sqrt(values)
    return np.asarray(half @ half.T)


def condition_number(information: np.ndarray) -> tuple[float, np.ndarray]:
    """Condition number of an information matrix scaled to unit diagonal.

    Returns
    -------
    float
        Infinite where the matrix is not positive definite.
    ndarray of shape (k,)
        Weights of the parameters in the worst determined direction.
    """
    values, vectors, _ = _spectrum(information)
    number = float(values[-1] / values[0]) if values[0] > 0 else np.inf
    return number, np.abs(vectors[:, 0])


def sandwich(bread: np.ndarray, meat: np.ndarray, factor: float = 1.0) -> np.ndarray:
    """Robust covariance ``factor * bread @ meat @ bread``."""
    out = factor * bread @ meat @ bread
    return np.asarray(0.5 * (out + out.T))


def check_level(level: float) -> float:
    """Return the level of an interval, or raise a DataError."""
    if not 0 < level < 1:
        raise DataError(f"level must lie between 0 and 1, such as 0.95; got {level!r}.")
    return float(level)


def quantile(level: float, df: float | None = None) -> float:
    """Half-width, in standard errors, of a two-sided interval: t with `df`, else normal."""
    p = 0.5 + 0.5 * check_level(level)
    return float(special.ndtri(p) if df is None else special.stdtrit(df, p))


def two_sided_p(statistic: np.ndarray, df: float | None = None) -> np.ndarray:
    """Two-sided p-value of a standardised statistic, normal or Student with `df`."""
    low = -np.abs(statistic)
    return np.asarray(2 * (special.ndtr(low) if df is None else special.stdtr(df, low)))


def wald(
    values: np.ndarray, covariance: np.ndarray, df_denominator: float | None = None
) -> tuple[float, int, float]:
    """Joint Wald test that `values` are zero: statistic, degrees of freedom, p-value.

    With `df_denominator` the statistic divided by its degrees of freedom is referred to F.

    Raises
    ------
    IdentificationError
        When the covariance is singular: one of the values follows from the others.
    """
    r = len(values)
    if not np.isfinite(covariance).all() or not (np.diag(covariance) > 0).all():
        least = np.nan
    else:
        eigenvalues, vectors, d = _spectrum(covariance)
        least = float(eigenvalues[0])
    if not least > _SINGULAR * r:
        raise IdentificationError(
            f"Expected a regular covariance of the {r} values that are tested together, but its "
            f"least scaled eigenvalue is {least:.1e}: one of them follows from the others, or is "
            "not estimated. Drop it from the test."
        )
    z = vectors.T @ (d * values) / np.sqrt(eigenvalues)
    statistic = float(z @ z)
    if df_denominator is None:
        return statistic, r, float(special.chdtrc(r, statistic))
    return statistic, r, float(special.fdtrc(r, df_denominator, statistic / r))


def delta_std_error(jacobian: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Standard errors of functions with Jacobian of shape (..., k)."""
    variance = ((jacobian @ covariance) * jacobian).sum(axis=-1)
    return np.asarray(np.sqrt(np.clip(variance, 0.0, None)))


def gradient_of(
    function: Callable[[np.ndarray], np.ndarray], theta: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """Central differences of a vector function, steps in units of `scale`; shape (..., k).

    Parameters
    ----------
    function : callable
        ``theta -> array``.
    theta : ndarray of shape (k,)
    scale : ndarray of shape (k,)
        Natural size of each coordinate, such as its standard error.
    """
    columns = []
    for j in range(len(theta)):
        h = max(1e-4 * scale[j], 1e-9 * abs(theta[j])) or 1e-6
        ends = np.tile(theta, (2, 1))
        ends[:, j] += (h, -h)
        columns.append((function(ends[0]) - function(ends[1])) / (ends[0, j] - ends[1, j]))
    return np.stack(columns, axis=-1)


def by_cluster(codes: np.ndarray, scores: np.ndarray, n_clusters: int) -> np.ndarray:
    """Sum scores of shape (k, n) by cluster; shape (n_clusters, k)."""
    return np.stack([np.bincount(codes, weights=s, minlength=n_clusters) for s in scores], axis=1)


def warn_of_few(
    n_clusters: int, log: list[str] | None, *, unit: str = "clusters", remedy: str = ""
) -> None:
    """Warn where clusters are too few for clustered standard errors."""
    if n_clusters < FEW:
        warn(
            f"Only {n_clusters} {unit}: clustered standard errors are too small on "
            f"average with fewer than about {FEW}. Intervals use t with {n_clusters - 1} degrees "
            "of freedom." + f" {remedy}".rstrip(),
            IdentificationWarning,
            log,
        )


def clustered(sums: np.ndarray) -> np.ndarray:
    """Covariance (k, k) of estimates from the influence (G, k) of each cluster, G/(G - 1)."""
    return np.asarray(sums.T @ sums * len(sums) / (len(sums) - 1))
