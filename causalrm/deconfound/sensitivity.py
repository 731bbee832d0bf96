"""How strong an unobserved confounder must be to explain an estimate away."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import optimize, special

from causalrm.core import inference
from causalrm.core.errors import DataError
from causalrm.core.format import percent
from causalrm.core.result import COLUMNS, Assumption, Estimate, Result, check_level
from causalrm.deconfound.e_value import EValue, e_value

if TYPE_CHECKING:
    from causalrm.deconfound.plots import SensitivityPlots


def _value(f: float) -> float:
    """Share r of residual variance, of outcome and treatment alike, with r / sqrt(1 - r) = f."""
    return 0.5 * f * (math.sqrt(f * f + 4) - f)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SensitivityResult(Result):
    """What `sensitivity` returns.

    Parameters
    ----------
    name : str
    estimate, std_error : float
    scale : float
        S: the bias is at most ``abs(rho) * S * sqrt(cf_y * cf_d / (1 - cf_d))``.
    scale_covariance : tuple of float
        Covariance of estimate and S, and variance of S.
    dof : float or None
        Residual degrees of freedom, where the estimate is a coefficient of least squares.
    null : float
        The value of no effect.
    benchmarks : pandas.DataFrame
        One row per observed covariate: `cf_y`, `cf_d` and the bounds that they give.
    outcome_sd : float
        Standard deviation of the outcome, for the E-value of a difference in means, or NaN.
    """

    name: str
    estimate: float
    std_error: float
    scale: float
    scale_covariance: tuple[float, float] = (0.0, 0.0)
    dof: float | None = None
    null: float = 0.0
    benchmarks: pd.DataFrame
    outcome_sd: float = math.nan

    def robustness_value(self, q: float = 1.0, level: float | None = None) -> float:
        """RV: equal strength, on outcome and treatment, that explains the share `q` away.

        Parameters
        ----------
        q : float
            Share of the distance from the null by which the estimate is to be moved.
        level : float, optional
            RVa: the strength from which the interval of this level holds the value. Two-sided
            with `dof` (as usual for least squares), one-sided otherwise.

        Returns
        -------
        float
            Share of the residual variance, between 0 and 1.
        """
        f = q * abs(self.estimate - self.null) / self.scale
        if level is None:
            return _value(f)
        check_level(level)
        if self.dof is not None:
            t = float(special.stdtrit(self.dof - 1, 0.5 + level / 2))
            critical = t / math.sqrt(self.dof - 1)
            if f <= critical:
                return 0.0
            if f > 1 / critical:  # the least strength has no room left for the outcome
                return (f * f - critical**2) / (1 + f * f)
            return _value(f - critical)
        z = float(special.ndtri(level))

        def excess(b: float) -> float:
            return q * abs(self.estimate - self.null) - b * self.scale - z * self._error(b)

        if excess(0.0) <= 0:
            return 0.0
        root = optimize.brentq(excess, 0.0, f, xtol=1e-12)
        return _value(float(root))

    def _error(self, b: float, sign: float | None = None) -> float:
        """Standard error of an end, the estimate less ``sign * b`` times S."""
        if sign is None:
            sign = 1.0 if self.estimate >= self.null else -1.0
        shared, own = self.scale_covariance
        variance = self.std_error**2 - 2 * sign * b * shared + b * b * own
        return math.sqrt(max(variance, 0.0))

    def bounds(
        self, cf_y: float, cf_d: float, rho: float = 1.0, level: float = 0.95
    ) -> pd.DataFrame:
        """Smallest and largest effect under a confounder of given strength.

        Parameters
        ----------
        cf_y : float
            Share of the outcome's residual variance that the confounder explains.
        cf_d : float
            Share of the variance of the treatment's weight (its Riesz representer) that the
            confounder adds; with a partially linear model, of the treatment's residual variance.
        rho : float
            Correlation of the two errors; 1 is the worst case.
        level : float
            Of each of the two one-sided confidence bounds.

        Returns
        -------
        pandas.DataFrame
            One row: `low, high` and their confidence bounds `conf_low, conf_high`.

        Raises
        ------
        DataError
            When a strength is not a share.
        """
        if not (0 <= cf_y <= 1 and 0 <= cf_d < 1 and -1 <= rho <= 1):
            raise DataError(
                f"Expected cf_y in [0, 1], cf_d in [0, 1) and rho in [-1, 1], but saw {cf_y}, "
                f"{cf_d} and {rho}. They are shares of variance, and a correlation."
            )
        b = abs(rho) * math.sqrt(cf_y * cf_d / (1 - cf_d))
        z = float(special.ndtri(check_level(level)))
        ends = [self.estimate - s * b * self.scale for s in (1, -1)]
        limits = [ends[i] - s * z * self._error(b, s) for i, s in enumerate((1, -1))]
        row = {"cf_y": cf_y, "cf_d": cf_d, "rho": rho, "low": ends[0], "high": ends[1]}
        return pd.DataFrame([row | {"conf_low": limits[0], "conf_high": limits[1]}])

    def e_value(self, level: float = 0.95) -> EValue:
        """E-value of a difference in means, by its approximate risk ratio exp(0.91 d).

        Raises
        ------
        DataError
            Without the standard deviation of the outcome.
        """
        if not self.outcome_sd > 0:
            raise DataError(
                "Expected the standard deviation of the outcome, to turn a difference into a risk "
                "ratio. Give outcome_sd=, or risk ratios to e_value()."
            )
        z = inference.quantile(level)
        d = [(self.estimate - self.null + k * self.std_error) / self.outcome_sd for k in (0, -z, z)]
        return e_value(*(math.exp(0.91 * v) for v in d))

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return the estimate and its robustness values, with the columns of every result."""
        z = inference.quantile(level, self.dof)
        t = (self.estimate - self.null) / self.std_error
        p = float(inference.two_sided_p(np.array(t), self.dof))
        ends = [self.estimate - z * self.std_error, self.estimate + z * self.std_error]
        nan = [math.nan] * 5
        rows = [
            [self.name, self.estimate, self.std_error, t, p, *ends],
            ["robustness value", self.robustness_value(), *nan],
            [f"robustness value, {percent(level)}", self.robustness_value(level=level), *nan],
        ]
        if self.outcome_sd > 0:
            found = self.e_value(level)
            rows.append(["E-value", found.estimate, *nan])
            rows.append([f"E-value, {percent(level)} interval", found.interval, *nan])
        return pd.DataFrame(rows, columns=COLUMNS)

    @property
    def plot(self) -> SensitivityPlots:
        """Plots: ``plot()`` draws the contours, ``plot.benchmarks()`` the bounds."""
        from causalrm.deconfound.plots import SensitivityPlots

        return SensitivityPlots(self)


def sensitivity(
    estimate: float | Estimate,
    std_error: float | None = None,
    *,
    scale: float | None = None,
    scale_covariance: tuple[float, float] = (0.0, 0.0),
    dof: float | None = None,
    null: float = 0.0,
    benchmarks: Mapping[str, tuple[float, float]] | pd.DataFrame | None = None,
    outcome_sd: float | None = None,
    name: str = "effect",
    n_obs: int = 0,
) -> SensitivityResult:
    r"""Ask how strong an unobserved confounder must be to change a conclusion.

    A confounder that explains the share `cf_y` of the outcome's residual variance, and adds `cf_d`
    to that of the treatment's weight, moves an estimate by at most

    .. math:: |\rho| S \sqrt{cf_y \, cf_d / (1 - cf_d)}, \qquad
        S^2 = E[(Y - g)^2] \, E[\alpha^2].

    Parameters
    ----------
    estimate : float or Estimate
        Any estimate that adjusts for observed covariates.
    std_error : float, optional
        Taken from an `Estimate`; to be given with a number.
    scale : float, optional
        S, with g the regression of the outcome and alpha the Riesz representer:
        ``(D - E[D|X]) / E[(D - E[D|X])^2]`` in a partially linear model.
    scale_covariance : tuple of float
        Covariance of estimate and S, and variance of S, which count in confidence bounds.
    dof : float, optional
        Instead of `scale`, residual degrees of freedom of a least-squares coefficient with its
        classical standard error: S is then ``std_error * sqrt(dof)``, and cf_y, cf_d are partial
        R2.
    null : float
    benchmarks : mapping of str to (cf_y, cf_d), or data frame, optional
        Strengths of observed covariates, as `benchmark` gives them.
    outcome_sd : float, optional
        Standard deviation of the outcome: adds an E-value.
    name : str
    n_obs : int
        Rows behind the estimate.

    Returns
    -------
    SensitivityResult
        ``robustness_value()``, ``bounds()``, ``e_value()``, ``to_frame()``, ``plot()``.

    Raises
    ------
    DataError
        When neither or both of `scale` and `dof` are given, or a number cannot be used.

    References
    ----------
    Cinelli, Hazlett (2020), Making sense of sensitivity: extending omitted variable bias, Journal
    of the Royal Statistical Society B 82(1), 39-67, doi 10.1111/rssb.12348. Chernozhukov, Cinelli,
    Newey, Sharma, Syrgkanis (2022), Long story short: omitted variable bias in causal machine
    learning, arXiv 2112.13398.

    Examples
    --------
    >>> found = sensitivity(0.097, 0.097 / 4.184, dof=783)
    >>> round(found.robustness_value(), 4), round(found.robustness_value(level=0.95), 4)
    (0.1388, 0.0762)
    >>> found.bounds(cf_y=0.12, cf_d=0.01).round(3)[["low", "high"]]
         low   high
    0  0.074   0.12
    """
    if isinstance(estimate, Estimate):
        std_error = estimate.std_error if std_error is None else std_error
        name = estimate.name if name == "effect" else name
    if std_error is None or not 0 < std_error < math.inf:
        raise DataError(f"Expected a standard error above 0, but saw {std_error!r}.")
    if (scale is None) == (dof is None):
        raise DataError(
            "Expected either scale= (S, for any estimator) or dof= (for least squares), but saw "
            f"scale={scale!r} and dof={dof!r}. Give one of them."
        )
    if scale is None:
        assert dof is not None
        if not dof > 1:
            raise DataError(f"Expected more than 1 degree of freedom, but saw dof={dof!r}.")
        scale = std_error * math.sqrt(dof)
    if not 0 < scale < math.inf:
        raise DataError(f"Expected a scale S above 0, but saw {scale!r}.")
    if isinstance(benchmarks, pd.DataFrame):
        frame = benchmarks[["cf_y", "cf_d"]].astype(float)
    else:
        given = benchmarks or {}
        frame = pd.DataFrame(
            list(given.values()), index=list(given), columns=["cf_y", "cf_d"], dtype=float
        )
    options = {"null": null, "dof": dof}
    result = SensitivityResult(
        call={"estimator": "sensitivity", "options": options, "roles": {}},
        n_obs=n_obs,
        name=name,
        estimate=float(estimate),
        std_error=float(std_error),
        scale=float(scale),
        scale_covariance=(float(scale_covariance[0]), float(scale_covariance[1])),
        dof=dof,
        null=float(null),
        benchmarks=frame,
        outcome_sd=math.nan if outcome_sd is None else float(outcome_sd),
        assumptions=(
            Assumption(
                "one direction",
                "what is left out can be summarised by its strength with outcome and treatment",
                "holds for any number of confounders taken together; the bounds take the worst "
                "correlation",
                "supported",
            ),
        ),
    )
    if frame.empty:
        return result
    rows = pd.concat([result.bounds(float(y), float(d)) for y, d in frame.to_numpy()])
    ends = rows[["low", "high"]].set_index(frame.index)
    return dataclasses.replace(result, benchmarks=frame.join(ends))


def benchmark(
    sigma2: float, nu2: float, sigma2_short: float, nu2_short: float, outcome_variance: float
) -> tuple[float, float]:
    """Strength of a covariate from fits with and without it.

    Parameters
    ----------
    sigma2, nu2 : float
        ``E[(Y - g)^2]`` and ``E[alpha^2]`` of the fit with all covariates.
    sigma2_short, nu2_short : float
        The same without the covariate.
    outcome_variance : float

    Returns
    -------
    cf_y, cf_d : float
        What an unobserved confounder would add if it were as strong as the covariate; 0 where the
        covariate does not help, and at most 1 and .99.

    Examples
    --------
    >>> cf_y, cf_d = benchmark(1.0, 1.0, 1.1, 0.8, 2.0)
    >>> round(cf_y, 2), round(cf_d, 2)
    (0.1, 0.25)
    """
    r2, short = 1 - sigma2 / outcome_variance, 1 - sigma2_short / outcome_variance
    cf_y = (r2 - short) / (1 - r2)
    kept = nu2_short / nu2
    cf_d = (1 - kept) / kept
    return min(max(cf_y, 0.0), 1.0), min(max(cf_d, 0.0), 0.99)
