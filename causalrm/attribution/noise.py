"""Token noise: how much of a decision is moved by components that carry no information."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from causalrm.core.errors import DataError
from causalrm.core.inference import quantile
from causalrm.core.result import COLUMNS, Estimate, check_level


@dataclass(frozen=True)
class TokenNoise:
    """Share of neutral components in what moves a decision.

    Attributes
    ----------
    share : Estimate
        Sum of phi^2 - se^2 over neutral components, by that over all. Both sums are unbiased,
        and the ratio is not clipped: it can leave [0, 1] where there is little to share.
    ratio : float
        Mean of phi^2 - se^2 over neutral components, by that over informative ones.
    uncorrected : float
        Share of sums of absolute values, which noise inflates.
    uncorrected_null : float
        What it would be on average if all neutral components had no effect.
    marks_p_value : float
        Share of ways to mark as many components neutral for which the corrected share is as
        small or smaller: small where the neutral ones move decisions less than others.
    """

    share: Estimate
    ratio: float
    uncorrected: float
    uncorrected_null: float
    marks_p_value: float

    def to_frame(self) -> pd.DataFrame:
        """Return one row per number, with the columns of every result frame."""
        rows = [self.share.to_frame().iloc[0].tolist()]
        for name in ("ratio", "uncorrected", "uncorrected_null", "marks_p_value"):
            rows.append([name, getattr(self, name), *[math.nan] * 5])
        return pd.DataFrame(rows, columns=COLUMNS)


def token_noise(
    phi: np.ndarray,
    covariance: np.ndarray,
    neutral: Sequence[bool] | np.ndarray,
    *,
    level: float = 0.95,
    draws: int = 2000,
    rng: int | np.random.Generator = 0,
) -> TokenNoise:
    r"""Share of neutral components, corrected for the noise of estimates, with its interval.

    With M = diag(1[neutral] - r), Q = phi'M phi - tr(M Sigma) estimates how far the share is
    from r. The interval holds all r with Q^2 <= z^2 V, V = max(4 phi'M Sigma M phi - c, c),
    c = 2 tr(M Sigma M Sigma).

    Parameters
    ----------
    phi : ndarray of shape (n,)
    covariance : ndarray of shape (n, n)
    neutral : sequence of bool, shape (n,)
    level : float
    draws : int
        For the null value and the permuted marks.
    rng : int or Generator

    Returns
    -------
    TokenNoise

    Examples
    --------
    >>> found = token_noise(np.array([0.3, 0.2, 0.1]), 1e-4 * np.eye(3), [False, False, True])
    >>> print(found.share)
    share: 0.071, 95% interval [0.044, 0.098]
    """
    z = quantile(check_level(level))
    neutral = np.asarray(neutral, dtype=bool)
    if not (np.isfinite(phi).all() and np.isfinite(covariance).all()):
        raise DataError(
            "Expected finite values and covariances of the components, but some are not. Check "
            "the fit that they come from."
        )
    if not neutral.any() or neutral.all():
        raise DataError(
            "Token noise compares neutral with informative components: mark some as "
            "role='neutral' and leave others."
        )
    generator = np.random.default_rng(rng)
    squares = phi**2 - np.diag(covariance)
    total = float(squares.sum())
    share = float(squares[neutral].sum() / total) if total else math.nan
    grid = np.linspace(0.0, 1.0, 4001)
    inside = _accepted(grid, phi, covariance, neutral, z)
    if inside.any():
        low, high = float(grid[inside][0]), float(grid[inside][-1])
    else:  # an estimate outside [0, 1], and precise
        low = high = float(np.clip(share, 0.0, 1.0))
    informative = float(squares[~neutral].mean())
    ratio = float(squares[neutral].mean() / informative) if informative else math.nan
    size = np.abs(phi)
    spread = np.linalg.cholesky(_nudged(covariance[np.ix_(neutral, neutral)]))
    null = np.abs(generator.standard_normal((draws, neutral.sum())) @ spread.T).sum(axis=1)
    expected = float(np.mean(null / np.maximum(null + size[~neutral].sum(), 1e-300)))
    k = int(neutral.sum())
    others = np.array([squares[generator.permutation(len(phi))[:k]].sum() for _ in range(draws)])
    p = float((1 + np.sum(others <= squares[neutral].sum() + 1e-15)) / (1 + draws))
    return TokenNoise(
        Estimate(share, math.nan, low, high, level, "share"),
        ratio,
        float(size[neutral].sum() / size.sum()) if size.sum() else math.nan,
        expected,
        p,
    )


def _nudged(matrix: np.ndarray) -> np.ndarray:
    scale = max(float(np.trace(matrix)), 1e-300)
    return np.asarray(matrix + 1e-10 * scale * np.eye(len(matrix)))


def _accepted(
    r: np.ndarray, phi: np.ndarray, covariance: np.ndarray, neutral: np.ndarray, z: float
) -> np.ndarray:
    d = neutral - r[:, None]
    q = d @ (phi**2 - np.diag(covariance))
    c = 2.0 * ((d @ covariance**2) * d).sum(axis=1)
    v = np.maximum(4.0 * (((d * phi) @ covariance) * d * phi).sum(axis=1) - c, c)
    # Half a step of the grid, where nothing is uncertain
    rounding = np.where(v <= 0.0, (1.3e-4 * float(phi @ phi)) ** 2, 0.0)
    return np.asarray(q * q <= z * z * v + rounding)
