"""Net benefit: what acting on a score is worth."""

from __future__ import annotations

from typing import Unpack

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from causalrm.calibration import _kernels_rank as rank
from causalrm.calibration.options import Options, documented, rows_and_level
from causalrm.calibration.scored import Scored
from causalrm.core.errors import DataError
from causalrm.core.inference import quantile
from causalrm.core.result import Estimate


def decision_frame(s: Scored, thresholds: ArrayLike, level: float) -> pd.DataFrame:
    """Net benefit by threshold, with intervals."""
    t = np.atleast_1d(np.asarray(thresholds, dtype=np.float64))
    if t.ndim != 1 or not ((t > 0.0) & (t < 1.0)).all() or not (np.diff(t) > 0.0).all():
        raise DataError("Thresholds must increase and lie strictly between 0 and 1.")
    variances = None
    if s.cluster is not None:
        variances = rank.net_benefit_variances(s.y, s.p, s.w, t, s.cluster, s.n_clusters)
    found = rank.net_benefit(s.ties, t, variances)
    error, gain_error = found.std_error, found.gain_std_error
    if s.replicates is not None:
        everyone = np.ones(s.n, dtype=bool)
        changes = [rank.net_benefit(s.subset(everyone, w).ties, t) for w in s.replicates.T]
        scale = 4.0 / len(changes)
        error = np.sqrt(scale * sum((c.value - found.value) ** 2 for c in changes))
        gain_error = np.sqrt(scale * sum((c.gain - found.gain) ** 2 for c in changes))
    half = quantile(level, s.df)
    return pd.DataFrame(
        {
            "threshold": t,
            "estimate": found.value,
            "std_error": error,
            "conf_low": found.value - half * error,
            "conf_high": found.value + half * error,
            "treat_all": found.treat_all,
            "gain": found.gain,
            "gain_low": found.gain - half * gain_error,
            "gain_high": found.gain + half * gain_error,
        }
    )


@documented
def decision_curve(
    y: ArrayLike,
    p: ArrayLike,
    thresholds: ArrayLike | None = None,
    **options: Unpack[Options],
) -> pd.DataFrame:
    """Net benefit TP/n - FP/n * t/(1-t) of treating rows with p >= t, by threshold t.

    {parameters}
    thresholds : array-like, optional
        Increasing, strictly between 0 and 1; 0.01 to 0.99 by default.

    Returns
    -------
    pandas.DataFrame
        `threshold, estimate, std_error, conf_low, conf_high`, the net benefit of treating all
        (`treat_all`; treating none has zero), and the `gain` over the better of the two with
        `gain_low, gain_high`.

    {raises}

    References
    ----------
    Vickers, A. J., and Elkin, E. B. (2006). Decision curve analysis. Medical Decision Making
    26, 565-574. doi:10.1177/0272989X06295361.
    """
    s, level = rows_and_level(y, p, options)
    return decision_frame(s, np.arange(1, 100) / 100 if thresholds is None else thresholds, level)


@documented
def net_benefit(
    y: ArrayLike, p: ArrayLike, threshold: float, **options: Unpack[Options]
) -> Estimate:
    """Net benefit of treating rows with p >= threshold; see `decision_curve`.

    {parameters}
    threshold : float
        Strictly between 0 and 1.

    {returns}
    {raises}

    Examples
    --------
    >>> print(net_benefit([0, 1, 1, 0], [0.2, 0.8, 0.4, 0.6], 0.5))
    net benefit at 0.5: 0.00, std. error 0.41, 95% interval [-0.80, 0.80]
    """
    row = decision_curve(y, p, [threshold], **options).iloc[0]
    value, error, low, high = (
        float(row[c]) for c in ("estimate", "std_error", "conf_low", "conf_high")
    )
    level = options.get("level", 0.95)
    return Estimate(value, error, low, high, level, f"net benefit at {threshold:g}")
