"""Marginal survival and restricted means under each level of a treatment, and their contrasts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from causalrm.core.errors import DataError, IdentificationWarning, warn
from causalrm.core.inference import two_sided_p
from causalrm.core.random import RNG, resolve
from causalrm.core.result import COLUMNS, Estimate, Result, quantile
from causalrm.core.store import encodable
from causalrm.survival._contrast_data import (
    Curves,
    formula_columns,
    open_population,
    open_treatment,
)
from causalrm.survival._contrast_estimate import Found, Plan, assumptions
from causalrm.survival.predict import check_times
from causalrm.survival.regression import SurvivalRegression
from causalrm.survival.result import SurvivalResult

if TYPE_CHECKING:
    from causalrm.survival.plots import ContrastPlots

_GRID = 20


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ContrastResult(Result):
    """Result of `standardized_contrast`.

    Besides the fields of every result:

    Parameters
    ----------
    treatment : str
    arms : tuple of str
        Levels of the treatment, the reference first.
    method : {"gformula", "aipw"}
    times, horizons : ndarray
        Where survival, and up to where the restricted mean, is estimated.
    estimates : ndarray of shape (arms, times + horizons)
        Marginal survival at each time, then restricted mean up to each horizon.
    covariance : ndarray of shape (m, m)
        Of `estimates.ravel()`.
    df_resid : float or None
        Degrees of freedom of t quantiles (clusters minus one), or None for normal quantiles.
    population : {"fit", "other"}
        Whether the average is over the rows of the fit or over other rows.
    """

    treatment: str
    arms: tuple[str, ...]
    method: str
    times: np.ndarray
    horizons: np.ndarray
    estimates: np.ndarray
    covariance: np.ndarray
    df_resid: float | None
    population: str

    def _quantity(self, arm: int, q: int, base: int | None = None) -> tuple[float, float]:
        """An arm's estimate, or its difference from another's, with the standard error."""
        size = self.estimates.shape[1]
        weight = np.zeros(self.estimates.size)
        weight[arm * size + q] = 1.0
        if base is not None:
            weight[base * size + q] -= 1.0
        variance = float(weight @ self.covariance @ weight)
        return float(weight @ self.estimates.ravel()), math.sqrt(max(variance, 0.0))

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return marginal survival and restricted means by arm, and their differences.

        Parameters
        ----------
        level : float

        Returns
        -------
        pandas.DataFrame
            With the columns `parameter` ("survival", "survival difference", "rmst", "rmst
            difference"), `term` (the arm, or "arm - reference"), `time` (or the horizon), and
            those of every result. Intervals of survival are symmetric on the log(-log) scale,
            those of restricted means on the logit scale of their share of the horizon, those of
            differences (and of estimates outside their range) on their own scale; only differences
            have a test.
        """
        z = quantile(level, self.df_resid)
        rows: list[tuple[Any, ...]] = []
        first = len(self.times)
        blocks = (
            ("survival", range(first), self.times),
            ("rmst", range(first, first + len(self.horizons)), self.horizons),
        )
        for name, quantities, at in blocks:
            for a, arm in enumerate(self.arms):
                for q, t in zip(quantities, at, strict=True):
                    x, se = self._quantity(a, q)
                    ends = _interval(x, se, z, 1.0 if name == "survival" else t, name)
                    rows.append((name, arm, t, x, se, math.nan, math.nan, *ends))
            for a, arm in enumerate(self.arms[1:], start=1):
                for q, t in zip(quantities, at, strict=True):
                    d, se = self._quantity(a, q, 0)
                    statistic = d / se if se > 0 else math.nan
                    p = float(two_sided_p(np.array(statistic), self.df_resid))
                    label = f"{arm} - {self.arms[0]}"
                    ends = d - z * se, d + z * se
                    rows.append((f"{name} difference", label, t, d, se, statistic, p, *ends))
        return pd.DataFrame(rows, columns=["parameter", "term", "time", *COLUMNS[1:]])

    def contrast(
        self,
        *,
        time: float | None = None,
        rmst: float | None = None,
        arm: Any = None,
        scale: str = "difference",
        level: float = 0.95,
    ) -> Estimate:
        """Return one contrast with the reference as a single number.

        Parameters
        ----------
        time, rmst : float
            One of the times, or one of the horizons, of the result.
        arm : optional
            Level that is compared; the only other one by default.
        scale : {"difference", "ratio"}
            The interval of a ratio is symmetric on the log scale.
        level : float

        Returns
        -------
        Estimate
        """
        if (time is None) == (rmst is None):
            raise DataError("Expected one of time= and rmst=, but saw both or neither.")
        name, at, known = (
            ("rmst", rmst, self.horizons) if time is None else ("survival", time, self.times)
        )
        at = float(check_times(at, "one time")[0])
        found = np.flatnonzero(np.isclose(known, at, rtol=1e-12, atol=0.0))
        if not found.size:
            raise DataError(f"Expected one of {known.tolist()} for {name}, but saw {at!r}.")
        others = self.arms[1:]
        wanted = others[0] if arm is None and len(others) == 1 else _label(arm)
        if wanted not in others:
            raise DataError(f"Expected arm to be one of {list(others)}, but saw {arm!r}.")
        if scale not in ("difference", "ratio"):
            raise DataError(f"Expected scale 'difference' or 'ratio', but saw {scale!r}.")
        q = int(found[0]) + (0 if rmst is None else len(self.times))
        i, z = self.arms.index(wanted), quantile(level, self.df_resid)
        if scale == "difference":
            d, se = self._quantity(i, q, 0)
            ends, statistic = (d - z * se, d + z * se), d / se if se > 0 else math.nan
        else:
            (x, _), (base, _) = self._quantity(i, q), self._quantity(0, q)
            if not (x > 0 and base > 0):
                raise DataError(f"Expected positive estimates for a ratio, but saw {x} and {base}.")
            size = self.estimates.shape[1]
            weight = np.zeros(self.estimates.size)
            weight[i * size + q], weight[q] = 1.0 / x, -1.0 / base
            d, log_se = x / base, math.sqrt(max(float(weight @ self.covariance @ weight), 0.0))
            se, ends = d * log_se, (d * math.exp(-z * log_se), d * math.exp(z * log_se))
            statistic = math.log(d) / log_se if log_se > 0 else math.nan
        p = float(two_sided_p(np.array(statistic), self.df_resid))
        sign = "-" if scale == "difference" else "/"
        text = f"{name} at {at:g}, {wanted} {sign} {self.arms[0]}"
        return Estimate(d, se, *ends, level, text, p)

    def _fit_lines(self, level: float) -> list[tuple[str, str]]:
        law = "normal" if self.df_resid is None else f"t({self.df_resid:g})"
        kinds = {"gformula": "g-formula", "aipw": "augmented inverse probability weighting"}
        rows = "the rows of the fit" if self.population == "fit" else "other rows than the fit's"
        folds = self.call["options"].get("folds")
        how = f"cross-fitted in {folds} folds" if folds else "covariates and models as estimated"
        return [
            ("Method", f"{kinds[self.method]}, averaged over {rows}"),
            ("Intervals", f"{law} quantiles; {how}"),
        ]

    @property
    def plot(self) -> ContrastPlots:
        """Plots: ``plot()`` shows the contrast over time with its band."""
        from causalrm.survival.plots import ContrastPlots

        return ContrastPlots(self)


def _label(arm: Any) -> str:
    number = isinstance(arm, (bool, int, float, np.number))
    return f"{float(arm):g}" if number else str(arm)


def _interval(x: float, se: float, z: float, top: float, name: str) -> tuple[float, float]:
    """Interval of a value between 0 and `top`, or the plain one where the estimate is outside."""
    share = x / top
    if not 0.0 < share < 1.0 or not se > 0:
        return x - z * se, x + z * se
    if name == "survival":
        half = z * se / (x * -math.log(x))
        return x ** math.exp(half), x ** math.exp(-half)
    half, centre = z * se / (top * share * (1.0 - share)), math.log(share / (1.0 - share))
    low, high = (top / (1.0 + math.exp(-centre + s * half)) for s in (1.0, -1.0))
    return low, high


# ---------------------------------------------------------------------------- estimation


def standardized_contrast(
    fit: SurvivalRegression | SurvivalResult,
    data: Any,
    *,
    treatment: str,
    times: Any = None,
    rmst: Any = None,
    method: str = "gformula",
    reference: Any = None,
    propensity: Any = None,
    censoring: Any = None,
    folds: int = 0,
    clip: float | None = None,
    rng: RNG = 0,
) -> ContrastResult:
    r"""Marginal survival and restricted mean under each level of a treatment, and differences.

    The survival that the population of `data` would have if everybody had level :math:`a`,

    .. math:: S_a(t) = E\{S(t \mid a, X)\},

    is estimated by the g-formula, the mean of the fit's predictions with the treatment set to
    :math:`a`, or by augmented inverse probability weighting (AIPW), the mean of

    .. math:: S(t \mid a, X)\Bigl[1 - \frac{1(A = a)}{\pi_a(X)}\Bigl\{\frac{D\,1(Y \le t)}
              {S(Y)G(Y)} - \int_0^{\min(Y, t)} \frac{dH(u)}{S(u)G(u)}\Bigr\}\Bigr]

    with propensity :math:`\pi`, survival :math:`S` and cumulative hazard :math:`H` of the fit, and
    survivor function :math:`G` of censoring, all given :math:`(a, X)`. It is consistent when
    the fit is right, or when propensity and censoring model both are. The restricted mean up to
    :math:`\tau` is the integral of :math:`S_a` over :math:`[0, \tau]`.

    Standard errors come from the stacked estimating equations: the covariates count as sampled,
    and every model as estimated, so that AIPW intervals hold when one of the models is wrong.

    Parameters
    ----------
    fit : SurvivalRegression or SurvivalResult
        Fitted, with the treatment in at least one formula, products with covariates included.
    data : data frame
        The rows of the fit; for the g-formula also other rows (a target population), which need
        the covariates only. They are taken for those of the fit when their number, their outcomes
        and the fit's score equations agree. For other rows the variance adds two independent
        parts, the sampling of covariates and the covariance of the fit that is in use, and
        columns of weights and clusters are used where `data` have them.
    treatment : str
        Column of 0/1, booleans, categories or few numbers.
    times : float or sequence of float, optional
        Where survival is compared. Without `times` and `rmst` 20 times up to the 95 % quantile of
        the observed event times.
    rmst : float or sequence of float, optional
        Horizons of restricted means.
    method : {"gformula", "aipw"}
    reference : optional
        Level that the others are compared with; the first by default.
    propensity : str or list of str, optional
        Formula of the treatment's (multinomial) logistic regression; by default the terms of the
        fit without the treatment. The g-formula uses it only to judge the overlap.
    censoring : SurvivalRegression, str or list of str, optional
        For AIPW the model of the time to censoring, unfitted, or its formula for phi with a
        Weibull distribution. By default a Weibull regression on the treatment and the terms of the
        fit, with a shape per arm; without covariates where fewer than 10 rows per term or arm are
        censored. It is fitted to follow-up before the latest of `times` and `rmst`.
    folds : int, default 0
        For AIPW: at least 2 fits all models to the other folds (cross-fitting), with the plain
        variance of the influence function. Clusters stay together. Splines need bounds written
        out, as in ``bs(age, df=4, lower_bound=20, upper_bound=90)``.
    clip : float, optional
        For AIPW: smaller propensities are set to it. By default nothing is clipped.
    rng : None, int, SeedSequence or Generator
        Draws the folds.

    Returns
    -------
    ContrastResult

    Raises
    ------
    DataError
        When an argument or a column is not as described; for AIPW also with delayed entry,
        interval-censored times, or other rows than the fit's.
    IdentificationError
        When there is one level only, or covariates determine the treatment.

    Warns
    -----
    IdentificationWarning
        For times beyond the follow-up of an arm, propensities below 0.02, probabilities to be
        uncensored below 0.05, and estimates outside [0, 1].

    Notes
    -----
    Under clusters influence functions are summed by cluster, with the factor G/(G-1) and t(G-1)
    quantiles; sampling weights weight rows and scores. With a lasso penalty there are no standard
    errors except by cross-fitting.

    References
    ----------
    Stefanski, Boos (2002), The calculus of M-estimation, doi 10.1198/000313002753631330; Zhang,
    Schaubel (2012), Contrasting treatment-specific survival using double-robust estimators, doi
    10.1002/sim.5511; Bai, Tsiatis, O'Brien (2013), doi 10.1111/biom.12076.

    Examples
    --------
    >>> import causalrm as crm
    >>> from causalrm import datasets
    >>> data, truth = datasets.make_survival(1000, treatment={"x1": 0.7}, rng=1)
    >>> fit = crm.SurvivalRegression(phi="trt + x1 + x2").fit(data, time="time", event="event")
    >>> result = crm.survival.standardized_contrast(
    ...     fit, data, treatment="trt", times=[1, 2], rmst=3, method="aipw"
    ... )
    >>> print(result.contrast(rmst=3))
    rmst at 3, 1 - 0: 0.387, std. error 0.067, 95% interval [0.256, 0.518], p <0.001
    >>> round(truth.marginal_rmst(3, 1) - truth.marginal_rmst(3, 0), 3)
    0.464
    """
    result = fit if isinstance(fit, SurvivalResult) else fit.result_
    curves = _curves(result, times, rmst)
    _check_options(result, method, curves, censoring, folds, clip)
    log: list[str] = []
    extra = [*formula_columns(propensity, "propensity")]
    if isinstance(censoring, SurvivalRegression):
        for formula in (censoring.phi, censoring.lam, censoring.gamma):
            extra += formula_columns(formula, "censoring")
    else:
        extra += formula_columns(censoring, "censoring")
    population = open_population(result, data, treatment, extra)
    seen = population.rows.columns[treatment] if population.treated else None
    levels = open_treatment(result, seen, treatment, reference)
    plan = Plan(result, population, levels, curves, propensity, censoring, clip, log)
    entropy = None
    if method == "gformula":
        found = plan.gformula()
    elif not population.fitted:
        raise DataError(
            f"Expected the {result.n_obs} rows of the fit for method='aipw', but saw "
            f"{population.rows.n_obs} rows with other outcomes or without them. Use "
            "method='gformula' for a target population."
        )
    elif folds < 2:
        found = plan.aipw()
    else:
        generator, entropy = resolve(rng)
        if isinstance(fit, SurvivalResult):
            fit = SurvivalRegression.from_result(fit)
        found = plan.cross_fit(fit, folds, generator)
    follow_up = plan.follow_up(found.fitted)
    _warn_about(curves, follow_up, found, log)
    options = {
        "method": method, "reference": levels.labels[0], "propensity": propensity,
        "censoring": censoring if encodable(censoring) else repr(censoring),
        "folds": folds or None, "clip": clip,
    }  # fmt: skip
    return ContrastResult(
        call={
            "estimator": "standardized_contrast",
            "options": {k: v for k, v in options.items() if v is not None},
            "roles": {"treatment": treatment, **result.call["roles"]},
        },
        n_obs=population.rows.n_obs,
        entropy=entropy,
        assumptions=assumptions(result, levels, method, found.diagnostics),
        diagnostics={**found.diagnostics, "follow_up": follow_up},
        warnings=tuple(log),
        treatment=treatment,
        arms=levels.labels,
        method=method,
        times=curves.times,
        horizons=curves.horizons,
        estimates=found.estimates,
        covariance=found.covariance,
        df_resid=found.df_resid,
        population="fit" if found.fitted else "other",
    )


# ---------------------------------------------------------------------------- arguments


def _curves(result: SurvivalResult, times: Any, rmst: Any) -> Curves:
    none = np.empty(0)
    if times is None and rmst is None:
        events = np.asarray(result.curves["events"])
        end = float(np.quantile(events, 0.95) if events.size else result.curves["grid"][-1])
        return Curves(np.linspace(end / _GRID, end, _GRID), none)
    at = none if times is None else np.unique(check_times(times, "times"))
    to = none if rmst is None else np.unique(check_times(rmst, "rmst", open_end=True))
    return Curves(at, to)


def _check_options(
    result: SurvivalResult, method: str, curves: Curves, censoring: Any, folds: Any, clip: Any
) -> None:
    if method not in ("gformula", "aipw"):
        raise DataError(f"Expected method 'gformula' or 'aipw', but saw {method!r}.")
    whole = isinstance(folds, (int, np.integer)) and not isinstance(folds, bool)
    if not whole or folds < 0 or folds == 1 or folds > result.n_obs // 2:
        raise DataError(
            f"Expected folds to be 0, or from 2 to half the {result.n_obs} rows, but saw {folds!r}."
        )
    if clip is not None and not (isinstance(clip, (int, float)) and 0 < clip < 0.5):
        raise DataError(f"Expected clip to be None or between 0 and 0.5, but saw {clip!r}.")
    if method == "gformula":
        given = {"censoring": censoring is not None, "folds": folds > 0, "clip": clip is not None}
        if any(given.values()):
            names = [name for name, is_given in given.items() if is_given]
            raise DataError(
                f"Expected no {', '.join(names)} with method='gformula', which has no such part. "
                "Leave it out, or use method='aipw'."
            )
        return
    roles = result.model.roles
    if roles.entry is not None or roles.lower is not None:
        what = "delayed entry" if roles.entry is not None else "interval-censored times"
        raise DataError(
            f"Expected right-censored times for method='aipw', but the fit has {what}. Use "
            "method='gformula'."
        )
    if curves.end == 0:
        raise DataError("Expected a time above 0 for method='aipw', but saw 0 only.")


def _warn_about(curves: Curves, follow_up: dict[str, float], found: Found, log: list[str]) -> None:
    arm, last = min(follow_up.items(), key=lambda item: item[1])
    if curves.end > last:
        late = np.concatenate([curves.times, curves.horizons])
        where = "in the fit" if arm == "all" else f"in arm {arm}"
        warn(
            f"{int((late > last).sum())} of {len(late)} times and horizons (latest {curves.end:g}) "
            f"lie beyond the follow-up {where}, which ends at {last:g}: there the estimate is the "
            "extrapolation of the model. Ask for earlier times.",
            IdentificationWarning,
            log,
        )
    survival = found.estimates[:, : len(curves.times)]
    share = found.estimates[:, len(curves.times) :] / curves.horizons
    outside = int(((survival < 0) | (survival > 1)).sum() + ((share < 0) | (share > 1)).sum())
    if outside:
        warn(
            f"{outside} of {found.estimates.size} estimates lie outside their range, as AIPW "
            "estimates can where weights are large. Look at the overlap of the arms, or ask for "
            "earlier times.",
            IdentificationWarning,
            log,
        )
