"""Flexible parametric survival regression."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd

from causalrm.core.design import formula_text, prepare
from causalrm.core.errors import DataError, IdentificationWarning, check_choice, warn
from causalrm.core.estimator import Estimator
from causalrm.survival import _support as support
from causalrm.survival.fitting import (
    Penalty,
    check_redundant,
    covariances,
    search,
    warn_about,
)
from causalrm.survival.model import Family, Model, resolve_kappa
from causalrm.survival.predict import check_times, predict
from causalrm.survival.result import SurvivalResult
from causalrm.survival.roles import Roles, check_counts, check_roles, check_values

Formula = str | Sequence[str] | None


class SurvivalRegression(Estimator):
    r"""Survival regression with covariates in scale, hazard level and shape.

    The cumulative hazard is that of the adapted power generalised Weibull distribution,

    .. math:: H(t) = \lambda\,\frac{\kappa+1}{\kappa}
              \left[\left(1 + \frac{(\phi t)^\gamma}{\kappa+1}\right)^\kappa - 1\right],

    with log-linear regressions for :math:`\phi` (accelerated failure time), :math:`\lambda`
    (proportional hazards) and :math:`\gamma` (shape), and a shape :math:`\kappa > -1` that
    contains the Weibull (1), log-logistic (0) and Gompertz (infinity) distributions and, below 0,
    populations of whom a part never has the event.

    Parameters
    ----------
    phi : str, list of str or None, default "1"
        Formula of log phi. A positive coefficient shortens times. None fixes phi at 1.
    lam : str, list of str or None, default None
        Formula of log lambda. It has an intercept only when the formula is ``"1"`` or starts with
        ``1 +``. None fixes lambda at 1, unless the family has a free lambda.
    gamma : str, list of str or None, default "1"
        Formula of log gamma. None fixes gamma at 1.
    kappa : str or float, default "free"
        "free", a number above -1, or a family: "weibull" (1), "exponential" (1 with gamma = 1),
        "loglogistic" (0), "burr" (0 with free lambda), "linear_hazard" (2 with gamma = 1 and free
        lambda), "gompertz" (infinity with gamma = 1 and free lambda), "exponential_power"
        (infinity).
    covariance : {"auto", "model", "robust", "cluster"}, default "auto"
        "auto" takes "cluster" when `cluster` is given to `fit`, "robust" with weights, else
        "model" (observed information). `result_.with_covariance` changes it after the fit.
    penalty : float, default 0
        Strength of an elastic-net penalty on the coefficients of all covariates, on the scale of
        the mean log-likelihood, for columns in units of their standard deviation. Intercepts and
        kappa are not penalised.
    l1_ratio : float, default 0
        Share of the absolute penalty: 0 is ridge, 1 lasso. With a lasso part there are no standard
        errors.
    starts : sequence of float, optional
        Values of log(kappa + 1) at which the likelihood is profiled for starting values.
    max_iter : int, default 100
        Most Newton steps over all rows.

    Attributes
    ----------
    result_ : SurvivalResult
        Estimates, covariances and everything that tables and plots need; no rows.

    See Also
    --------
    causalrm.survival.select : Compare families and regression structures.
    causalrm.survival.standardized_contrast : Marginal effects of a treatment.

    References
    ----------
    Burke, Jones, Noufaily (2020), A flexible parametric modelling framework for survival analysis,
    JRSS-C 69(2), 429-457, doi 10.1111/rssc.12398, arXiv 1901.03212.

    Examples
    --------
    >>> import causalrm as crm
    >>> from causalrm import datasets
    >>> df = datasets.load_gbsg2()
    >>> fit = crm.SurvivalRegression(phi="hormone", gamma="hormone")
    >>> fit = fit.fit(df, time="time", event="event")
    >>> fit.result_.hazard_shape
    'increasing, then decreasing'
    """

    result_: SurvivalResult

    def __init__(
        self,
        phi: Formula = "1",
        lam: Formula = None,
        gamma: Formula = "1",
        kappa: str | float = "free",
        *,
        covariance: str = "auto",
        penalty: float = 0.0,
        l1_ratio: float = 0.0,
        starts: Sequence[float] | None = None,
        max_iter: int = 100,
    ):
        self.phi = phi
        self.lam = lam
        self.gamma = gamma
        self.kappa = kappa
        self.covariance = covariance
        self.penalty = penalty
        self.l1_ratio = l1_ratio
        self.starts = starts
        self.max_iter = max_iter

    # ------------------------------------------------------------------ fitting

    def fit(
        self,
        data: Any,
        *,
        time: str | None = None,
        event: str | None = None,
        entry: str | None = None,
        lower: str | None = None,
        upper: str | None = None,
        weights: str | None = None,
        cluster: str | None = None,
    ) -> Self:
        """Fit by maximum likelihood.

        Parameters
        ----------
        data : data frame, path of parquet files, pyarrow data set, or Dask data frame
            One row per observation; every column that is used must be complete.
        time : str
            Column of times above 0, of an event or of right censoring.
        event : str, optional
            Column of 1 (event) and 0 (right-censored); without it every time is an event.
        entry : str, optional
            Column of the times from which rows are under observation (left truncation); 0 for
            rows seen from the start.
        lower, upper : str, optional
            Instead of `time` and `event`: the ends of the interval that holds the event. Equal
            ends are an exact time, ``upper`` infinite is right censoring, ``lower`` 0 left
            censoring.
        weights : str, optional
            Column of sampling weights of at least 0; only their ratios matter.
        cluster : str, optional
            Column that labels clusters of dependent rows.

        Returns
        -------
        SurvivalRegression
            Itself, with `result_`.

        Raises
        ------
        DataError
            When a column is missing, incomplete or of the wrong kind.
        IdentificationError
            When the data or the specification cannot determine the parameters.
        ConvergenceError
            When no starting value led to a maximum.
        """
        roles = Roles(time, event, entry, lower, upper, weights, cluster)
        log: list[str] = []
        family, formulas, lam_intercept = self._specification(log)
        check_roles(roles)
        source, rows, designs, reader = prepare(
            data,
            formulas,
            numbers=roles.numbers,
            categories=[] if cluster is None else [cluster],
            infinite=[] if upper is None else [upper],
        )
        index = source.index
        check_values(rows, roles, index)
        own = {name: designs.get(name) for name in ("phi", "lam", "gamma")}
        model = Model(own, lam_intercept, family.kappa, roles)
        counts = support.count(rows, model)
        model.mean_weight = counts.weight_sum / rows.n_obs
        check_counts(counts, rows.n_obs, model)
        model.predictors.standardise(rows, model.names)
        check_redundant(model, rows)

        penalty = Penalty(float(self.penalty), float(self.l1_ratio))
        largest = max(c.high for c in reader.columns if c.name in (time, lower, upper))
        optimum, tried = search(model, rows, counts, largest, penalty, self.starts, self.max_iter)
        n_clusters = None if cluster is None else len(reader.levels[cluster])
        warn_about(optimum, model, log)  # first: it says why the information may be singular
        cov = covariances(model, rows, optimum, n_clusters, penalty, self.covariance, log)
        theta = model.predictors.transform() @ optimum.theta
        parameter, term = model.labels()

        # without the scaling of columns, as a result read from JSON has it
        raw = Model(own, lam_intercept, family.kappa, roles, model.mean_weight)
        summary = support.summarise(rows, raw, theta, model.predictors.mean)
        diagnostics = {
            "converged": optimum.converged,
            "iterations": optimum.iterations,
            "evaluations": optimum.evaluations,
            "condition_number": cov.condition,
            "starts": tried,
            "mean_weight": model.mean_weight,
            **summary["diagnostics"],
        }
        self.result_ = SurvivalResult(
            call=self._call({k: v for k, v in vars(roles).items() if v is not None}),
            n_obs=rows.n_obs,
            assumptions=support.assumptions(roles, summary, model),
            diagnostics=diagnostics,
            warnings=tuple(log),
            parameter=parameter,
            term=term,
            estimates=theta,
            covariances=cov.matrices,
            covariance=cov.used,
            loglik=optimum.value,
            n_params=cov.n_params,
            df_resid=cov.df_resid,
            designs={k: None if d is None else d.to_dict() for k, d in own.items()},
            lam_intercept=lam_intercept,
            fixed_kappa=family.kappa,
            n_events=counts.events,
            counts=counts.kinds(rows.n_obs),
            cure=summary["cure"],
            centre=summary["centre"],
            curves=summary["curves"],
            fingerprint=counts.fingerprint,
        )
        return self

    def _specification(self, log: list[str]) -> tuple[Family, dict[str, str], bool]:
        """Family, formula per free parameter, and whether lambda has an intercept."""
        family = resolve_kappa(self.kappa)
        gamma = self.gamma
        if not family.gamma:
            if gamma not in ("1", None):
                raise DataError(
                    f"Expected no formula for gamma in the family {self.kappa!r}, which fixes it "
                    f"at 1, but saw {gamma!r}. Leave gamma out, or give kappa as a number."
                )
            gamma = None
        lam = "1" if self.lam is None and family.lam else self.lam
        formulas = {
            name: formula_text(value, name)
            for name, value in (("phi", self.phi), ("lam", lam), ("gamma", gamma))
            if value is not None
        }
        intercept = isinstance(lam, str) and bool(re.match(r"\s*1\s*(\+|$)", lam))
        if family.lam and not intercept:
            raise DataError(
                f"Expected a formula for lam that starts with '1 +' in the family {self.kappa!r}, "
                f"which has a free lambda, but saw {lam!r}."
            )
        if self.phi is None and family.kappa != 1.0:
            warn(
                "With phi fixed at 1 the model changes with the unit of time. Keep the intercept "
                "(phi='1') unless kappa is 1.",
                IdentificationWarning,
                log,
            )
        self._check_numbers()
        check_choice("covariance", self.covariance, ("auto", "model", "robust", "cluster"))
        if not formulas and family.kappa is not None:
            raise DataError("Expected at least one free parameter, but all are fixed.")
        return family, formulas, intercept

    def _check_numbers(self) -> None:
        """Refuse options that are no numbers, or out of their range."""
        checks: list[tuple[str, str, Callable[[Any], bool]]] = [
            ("penalty", "a number of at least 0", lambda x: 0 <= x < math.inf),
            ("l1_ratio", "a number in [0, 1]", lambda x: 0 <= x <= 1),
            ("max_iter", "a whole number above 0", lambda x: x >= 1 and operator.index(x) == x),
            (
                "starts", "None or numbers between -30 and 30",
                lambda x: x is None or (len(x) > 0 and all(-30 < v < 30 for v in x)),
            ),
        ]  # fmt: skip
        for name, expected, fine in checks:
            value = getattr(self, name)
            try:
                good = fine(value)
            except (TypeError, ValueError):
                good = False
            if not good:
                raise DataError(
                    f"Expected {name} to be {expected}, but saw {value!r}. Give such a value."
                )

    # ------------------------------------------------------------------ predictions

    def _predict(
        self, data: Any, what: str, at: np.ndarray, label: str, ci: bool, level: float
    ) -> pd.DataFrame:
        self._check_native()
        r = self.result_
        return predict(
            r.model, r.estimates, r.covariances[r.covariance], r._df, data, what, at, label, ci,
            level,
        )  # fmt: skip

    def predict_survival(
        self, data: Any, times: Any, ci: bool = False, level: float = 0.95
    ) -> pd.DataFrame:
        """Probability to be free of the event at each time.

        Parameters
        ----------
        data : data frame
            New rows with the columns of the formulas.
        times : float or sequence of float
            In the unit of the time column.
        ci : bool
            Add standard errors and intervals.
        level : float

        Returns
        -------
        pandas.DataFrame
            One row per row of `data` and one column per time; with `ci` a long frame indexed by
            (row, time) with estimate, std_error, conf_low and conf_high. Intervals are symmetric
            on the log(-log) scale.
        """
        return self._predict(data, "survival", check_times(times, "times"), "time", ci, level)

    def predict_cumulative_hazard(
        self, data: Any, times: Any, ci: bool = False, level: float = 0.95
    ) -> pd.DataFrame:
        """Cumulative hazard at each time; as `predict_survival`, intervals on the log scale."""
        at = check_times(times, "times")
        return self._predict(data, "cumulative_hazard", at, "time", ci, level)

    def predict_hazard(
        self, data: Any, times: Any, ci: bool = False, level: float = 0.95
    ) -> pd.DataFrame:
        """Hazard per unit of time; as `predict_survival`, with intervals on the log scale."""
        return self._predict(data, "hazard", check_times(times, "times"), "time", ci, level)

    def predict_quantile(
        self, data: Any, p: Any = 0.5, ci: bool = False, level: float = 0.95
    ) -> pd.DataFrame:
        """Time by which a share `p` has had the event; infinite where more than 1 - p are cured.

        Parameters
        ----------
        data : data frame
        p : float or sequence of float
            In (0, 1); 0.5 is the median.
        ci : bool
        level : float

        Returns
        -------
        pandas.DataFrame
            As `predict_survival`, with a column per `p`; intervals on the log scale.
        """
        at = check_times(p, "p", open_end=True)
        if (at >= 1).any():
            raise DataError(f"Expected p below 1, but saw {at[at >= 1][0]:g}.")
        return self._predict(data, "quantile", at, "p", ci, level)

    def predict_rmst(
        self, data: Any, horizon: Any, ci: bool = False, level: float = 0.95
    ) -> pd.DataFrame:
        """Restricted mean survival time: the expected time free of the event up to a horizon.

        Parameters
        ----------
        data : data frame
        horizon : float or sequence of float
            Above 0, in the unit of the time column.
        ci : bool
        level : float

        Returns
        -------
        pandas.DataFrame
            As `predict_survival`, with a column per horizon; intervals on the logit scale of the
            share of the horizon.
        """
        at = check_times(horizon, "horizon", open_end=True)
        return self._predict(data, "rmst", at, "horizon", ci, level)

    def predict_cure(self, data: Any, ci: bool = False, level: float = 0.95) -> pd.DataFrame:
        """Probability never to have the event.

        Parameters
        ----------
        data : data frame
        ci : bool
        level : float

        Returns
        -------
        pandas.DataFrame
            One column "cure"; with `ci` as `predict_survival`.

        Raises
        ------
        DataError
            When kappa is not below 0, so that everybody has the event in the end.
        """
        kappa = self.result_.kappa
        if kappa >= 0:
            raise DataError(
                f"Expected kappa below 0 for a cure fraction, but it is {kappa:.4g}: under this "
                "fit everybody has the event in the end."
            )
        out = self._predict(data, "cure", np.array([math.inf]), "time", ci, level)
        if ci:
            return out.droplevel("time")
        return out.set_axis(["cure"], axis=1)

    def residuals(self, data: Any, kind: str = "cox-snell") -> pd.Series:
        """Residuals of rows with outcomes, the roles being those of the fit.

        Parameters
        ----------
        data : data frame
            With the columns of the formulas and the roles.
        kind : {"cox-snell", "martingale", "deviance"}
            Cox-Snell residuals are cumulative hazards accumulated under observation, unit
            exponential (censored) when the model holds; martingale residuals are events minus
            them; deviance residuals are these made symmetric. For interval-censored rows the
            Cox-Snell residual is its expectation given the interval.

        Returns
        -------
        pandas.Series
            One value per row of `data`, same index.

        References
        ----------
        Cox, Snell (1968), doi 10.1111/j.2517-6161.1968.tb00724.x; Therneau, Grambsch, Fleming
        (1990), doi 10.1093/biomet/77.1.147.
        """
        return support.residuals(self.result_, data, kind)
