"""Tests and intervals where clusters are few: the wild bootstrap of their scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from causalrm.core.errors import DataError
from causalrm.core.random import RNG, resolve
from causalrm.core.result import COLUMNS, check_level

MOST = (100, 30)  # clusters and estimates up to which a result keeps what the bootstrap needs
_SIX = np.sqrt([0.5, 1.0, 1.5])
WEBB = np.concatenate([_SIX, -_SIX])


BOOTSTRAP = "Read wild_bootstrap() of the result, or take a finer cluster."

Sums = tuple[np.ndarray, np.ndarray, np.ndarray]


def cluster_sums(sums: np.ndarray, covariance: np.ndarray) -> Sums | None:
    """What the bootstrap needs, from sums by cluster (G, k + k * k) of influences and slopes.

    None where there are many. The covariance (k, k) of the estimates says how the others move when
    one is held at its null.
    """
    n, k = len(sums), len(covariance)
    if n > MOST[0] or k > MOST[1]:
        return None
    return sums[:, :k], sums[:, k:].reshape(n, k, k), covariance


def wild_bootstrap(
    terms: Sequence[str], estimates: np.ndarray, sums: Sums | None, level: float = 0.95,
    draws: int = 9999, rng: RNG = 0,
) -> pd.DataFrame:  # fmt: skip
    """Studentised wild cluster bootstrap of scores, with the null imposed.

    Parameters
    ----------
    terms : sequence of str
    estimates : ndarray of shape (q,)
        The first q of the k estimates; the others are free under every null.
    sums : tuple of ndarray of shape (G, k), (G, k, k) and (k, k), or None
        For each cluster its influence on the estimates (they sum to 0) and by how much this falls
        when the estimates rise (to the identity); and a covariance of the estimates.
    level : float
    draws : int
    rng : None, int, SeedSequence or Generator

    Returns
    -------
    pandas.DataFrame
        Columns of a result frame, where the interval holds the values that a test at the level
        does not reject. It need not be symmetric, and is infinite where no value is rejected.

    Raises
    ------
    DataError
        When the sums are missing, or `draws` is too small for the level.

    Notes
    -----
    Cluster scores under the null are multiplied by random signs, or below 12 clusters by Webb's six
    weights; for each draw the estimate and its clustered standard error are computed anew. For a
    regression this is the wild cluster bootstrap itself; nuisances are as they are.

    References
    ----------
    Cameron, Gelbach, Miller (2008), Bootstrap-based improvements for inference with clustered
    errors, Review of Economics and Statistics 90(3), 414-427, doi 10.1162/rest.90.3.414. Kline,
    Santos (2012), A score based approach to wild bootstrap inference, Journal of Econometric
    Methods 1(1), 23-41, doi 10.1515/2156-6674.1006. Webb (2023), Reworking wild bootstrap-based
    inference for clustered errors, Canadian Journal of Economics 56(3), 839-858,
    doi 10.1111/caje.12661.
    """
    if sums is None:
        raise DataError(
            f"Expected a fit with at most {MOST[0]} clusters and {MOST[1]} coefficients for a wild "
            "bootstrap, but this one kept none. Give cluster=; clustered standard errors serve "
            "where clusters are many."
        )
    influence, slopes, covariance = sums
    alpha = 1 - check_level(level)
    if not draws >= 2 / alpha:
        raise DataError(
            f"Expected at least {2 / alpha:.0f} draws for level {level}, but saw {draws!r}."
        )
    generator, _ = resolve(rng)
    n = len(influence)
    weights = generator.choice(WEBB if n < 12 else np.array([-1.0, 1.0]), size=(draws, n))
    rows = []
    for j, term in enumerate(terms):
        own = influence[:, j]
        se = float(np.sqrt(own @ own))
        centre = float(estimates[j])
        if se == 0:  # such as a policy less the log where the policy is that of the log
            rows.append([term, centre, se, np.nan, np.nan, centre, centre])
            continue

        def p_value(null: float, j: int = j, centre: float = centre, se: float = se) -> float:
            away = covariance[:, j] / covariance[j, j] * (centre - null)
            scores = influence + slopes @ away
            moved = weights @ scores
            again = weights * scores[:, j] - moved @ slopes[:, j].T
            drawn = moved[:, j] ** 2 / (again**2).sum(axis=1)
            # A draw of equal signs gives the statistic itself; rounding must not tell them apart.
            return float(np.mean(drawn * (1 + 1e-9) >= ((centre - null) / se) ** 2))

        ends = []
        for sign in (-1.0, 1.0):
            inside, step = 0.0, 2.0
            while p_value(centre + sign * step * se) >= alpha and step < 1e4:
                inside, step = step, 2 * step
            if step >= 1e4:
                ends.append(sign * np.inf)
                continue
            for _ in range(30):
                middle = 0.5 * (inside + step)
                if p_value(centre + sign * middle * se) >= alpha:
                    inside = middle
                else:
                    step = middle
            ends.append(centre + sign * step * se)
        rows.append([term, centre, se, centre / se, p_value(0.0), *ends])
    return pd.DataFrame(rows, columns=COLUMNS)
