"""How many rows an evaluation needs."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import expit

from causalrm.calibration import _kernels_fit as fit
from causalrm.calibration.scored import EPS, check_scores
from causalrm.core.errors import DataError
from causalrm.core.inference import quantile


def sample_size(
    p: ArrayLike | None = None,
    *,
    prevalence: float | None = None,
    auc: float | None = None,
    oe_width: float = 0.2,
    slope_width: float = 0.3,
    auc_width: float = 0.1,
    level: float = 0.95,
) -> pd.DataFrame:
    """Rows needed to estimate calibration and discrimination with intervals of given widths.

    Parameters
    ----------
    p : array-like, optional
        Scores as expected in the population, for the calibration slope; they are taken to be
        calibrated, and give prevalence and AUC where these are not stated.
    prevalence, auc : float, optional
    oe_width, slope_width, auc_width : float
        Widths of the intervals for the ratio O:E (about one), the slope and the AUC.
    level : float

    Returns
    -------
    pandas.DataFrame
        `criterion, width, n, events`; the last row is the largest.

    Raises
    ------
    DataError
        When neither scores nor a prevalence are given, or a number is out of range.

    References
    ----------
    Riley, R. D., et al. (2021). Minimum sample size for external validation of a clinical
    prediction model with a binary outcome. Statistics in Medicine 40, 4230-4251.
    doi:10.1002/sim.9025.

    Examples
    --------
    >>> sample_size(prevalence=0.2, auc=0.75).values.tolist()
    [['O:E', 0.2, 1542, 309], ['AUC', 0.1, 568, 114], ['all', nan, 1542, 309]]
    """
    z = quantile(level)
    scores = None
    if p is not None:
        scores = check_scores(np.zeros(np.asarray(p).size), p)[1]
        prevalence = float(scores.mean()) if prevalence is None else prevalence
        if auc is None and scores.min() < scores.max():
            order = np.sort(scores)
            below = np.concatenate(([0.0], np.cumsum(1.0 - order)))
            start = np.searchsorted(order, order, side="left")
            end = np.searchsorted(order, order, side="right")
            wins = 0.5 * (below[start] + below[end])
            auc = float((order * wins).sum() / (order.sum() * (1.0 - order).sum()))
    if prevalence is None:
        raise DataError("sample_size needs scores p or a prevalence.")
    if not 0.0 < prevalence < 1.0 or not (auc is None or 0.5 <= auc < 1.0):
        raise DataError(
            f"prevalence must lie in (0, 1) and auc in [0.5, 1); got {prevalence} and {auc}."
        )
    if min(oe_width, slope_width, auc_width) <= 0.0:
        raise DataError("Widths must be positive.")
    rows: list[tuple[str, float, int]] = []
    # Interval exp(+-z se) about one: its width is 2 sinh(z se).
    se = math.asinh(oe_width / 2.0) / z
    rows.append(("O:E", oe_width, math.ceil((1.0 - prevalence) / (prevalence * se**2))))
    if scores is not None and scores.min() < scores.max():
        eta = fit.logit(scores, EPS)[0]
        v = expit(eta) * (1.0 - expit(eta))
        a, b, c = float(v.mean()), float((v * eta).mean()), float((v * eta**2).mean())
        se = slope_width / (2.0 * z)
        rows.append(("slope", slope_width, math.ceil(a / (se**2 * (a * c - b * b)))))
    if auc is not None:
        se = auc_width / (2.0 * z)
        rows.append(("AUC", auc_width, _auc_rows(auc, prevalence, se)))
    rows.append(("all", math.nan, max(n for *_, n in rows)))
    frame = pd.DataFrame(rows, columns=["criterion", "width", "n"])
    frame["events"] = np.ceil(frame["n"] * prevalence).astype(int)
    return frame


def _auc_rows(auc: float, prevalence: float, se: float) -> int:
    # Hanley and McNeil's variance with Newcombe's terms, as in the reference.
    def variance(n: float) -> float:
        half = n / 2.0 - 1.0
        first = half * (1.0 - auc) / (2.0 - auc)
        second = half * auc / (1.0 + auc)
        return (
            auc * (1.0 - auc) * (1.0 + first + second) / (n * n * prevalence * (1.0 - prevalence))
        )

    low, high = 4, 8
    while variance(high) > se**2:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if variance(middle) > se**2 else (low, middle)
    return high
