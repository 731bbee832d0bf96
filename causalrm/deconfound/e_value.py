"""E-values: what a hidden confounder must do to a risk ratio, to explain it away."""

from __future__ import annotations

import math
from dataclasses import dataclass

from causalrm.core.errors import DataError


@dataclass(frozen=True)
class EValue:
    """E-values of a risk ratio: of the estimate, and of the interval's end nearest to 1.

    Attributes
    ----------
    estimate, interval : float
        1 where the interval holds 1; NaN where no interval was given.
    """

    estimate: float
    interval: float


def e_value(
    risk_ratio: float, conf_low: float | None = None, conf_high: float | None = None
) -> EValue:
    """Least risk ratio that an unobserved confounder needs with both treatment and outcome.

    Parameters
    ----------
    risk_ratio : float
    conf_low, conf_high : float, optional
        Ends of its confidence interval.

    Returns
    -------
    EValue

    Raises
    ------
    DataError
        When a ratio is not above 0.

    References
    ----------
    VanderWeele, Ding (2017), Sensitivity analysis in observational research: introducing the
    E-value, Annals of Internal Medicine 167(4), 268-274, doi 10.7326/M16-2607.

    Examples
    --------
    >>> found = e_value(3.9, 1.8, 8.7)
    >>> round(found.estimate, 2), round(found.interval, 2)
    (7.26, 3.0)
    """
    given = [v for v in (risk_ratio, conf_low, conf_high) if v is not None]
    if not all(0 < v < math.inf for v in given):
        raise DataError(
            f"Expected risk ratios above 0, but saw {given}. Exponentiate log ratios first."
        )

    def of(ratio: float) -> float:
        ratio = 1 / ratio if ratio < 1 else ratio
        return ratio + math.sqrt(ratio * (ratio - 1))

    end = conf_low if risk_ratio >= 1 else conf_high
    if end is None:
        return EValue(of(risk_ratio), math.nan)
    crossed = (end - 1) * (risk_ratio - 1) <= 0
    return EValue(of(risk_ratio), 1.0 if crossed else of(end))
