"""Flexible parametric survival regression."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd

from causalrm.core.design import check, formula_text, prepare
from causalrm.core.errors import (
    ConvergenceError,
    ConvergenceWarning,
    DataError,
    IdentificationError,
    IdentificationWarning,
    warn,
)
from causalrm.core.estimator import Estimator
from causalrm.core.inference import condition_number, invert_information, sandwich
from causalrm.core.linear import dependent_columns
from causalrm.core.optimize import Optimum, maximize
from causalrm.survival import _support as support
from causalrm.survival.model import Family, Model, Roles, resolve_kappa
from causalrm.survival.predict import check_times, predict
from causalrm.survival.result import SurvivalResult

if TYPE_CHECKING:
    from causalrm.core.blocks import Rows

Formula = str | Sequence[str] | None

STARTS = (-2.0, -1.0, -0.5, 0.0, 0.4, 0.7, 1.3, 2.5)
_SAMPLE, _SECOND = 2_000, 32_768
_ILL = 1e5  # condition number of the information, scaled to unit diagonal
_BOUNDARY = 8.0  # |nu| beyond which kappa is at the end of its range to three digits


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
        Starting values of log(kappa + 1).
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
    >>> fit = crm.SurvivalRegression(phi="hormone_therapy", gamma="hormone_therapy")
    >>> fit = fit.fit(df, time="time", event="event")
    >>> fit.result_.hazard_shape
    'increasing, then decreasing'
    """

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
        _check_roles(roles)
        source, rows, designs, reader = prepare(
            data,
            formulas,
            numbers=roles.numbers,
            categories=[] if cluster is None else [cluster],
            infinite=[] if upper is None else [upper],
        )
        index = source.index if source.kind == "memory" else None
        _check_values(rows, roles, index)
        model = Model(
            {name: designs.get(name) for name in ("phi", "lam", "gamma")},
            lam_intercept, family.kappa, roles,
        )  # fmt: skip
        counts = support.count(rows, model)
        model.mean_weight = counts.weight_sum / rows.n_obs
        _check_counts(counts, rows.n_obs, model, roles)
        model.predictors.standardise(rows, model.names)
        self._check_redundant(model, rows)

        optimum, tried = self._search(model, rows, counts, reader)
        fields = self._covariances(model, rows, optimum, counts, reader, log)
        transform = model.predictors.transform()
        theta = transform @ optimum.theta
        parameter, term = model.labels()
        self._warn_about(optimum, model, theta, parameter, log)

        raw = Model(
            {name: designs.get(name) for name in ("phi", "lam", "gamma")},
            lam_intercept, family.kappa, roles, model.mean_weight,
        )  # fmt: skip
        summary = support.summarise(rows, raw, theta, counts)
        diagnostics = {
            "converged": optimum.converged,
            "iterations": optimum.iterations,
            "evaluations": optimum.evaluations,
            "condition_number": fields["condition"],
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
            covariances=fields["covariances"],
            covariance=fields["covariance"],
            loglik=optimum.value,
            n_params=fields["n_params"],
            df_resid=fields["df_resid"],
            designs={
                name: designs[name].to_dict() if name in designs else None
                for name in ("phi", "lam", "gamma")
            },
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
                    f"Expected no formula for gamma in the family {self.kappa!r}, which fixes it at "
                    f"1, but saw {gamma!r}. Leave gamma out, or give kappa as a number."
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
        if self.penalty < 0 or not 0 <= self.l1_ratio <= 1:
            raise DataError(
                f"Expected penalty of at least 0 and l1_ratio in [0, 1], but saw {self.penalty!r} "
                f"and {self.l1_ratio!r}."
            )
        if self.covariance not in ("auto", "model", "robust", "cluster"):
            raise DataError(
                "Expected covariance to be 'auto', 'model', 'robust' or 'cluster', but saw "
                f"{self.covariance!r}."
            )
        if not formulas and family.kappa is not None:
            raise DataError("Expected at least one free parameter, but all are fixed.")
        return family, formulas, intercept

    def _check_redundant(self, model: Model, rows: Rows) -> None:
        """Two free scales are one parameter too many at kappa = 1 with constant gamma."""
        phi, lam, gamma = (model.position(name) for name in ("phi", "lam", "gamma"))
        constant = gamma is None or model.predictors.constant(gamma)
        if model.kappa != 1.0 or phi is None or lam is None or not constant:
            return
        block = next(iter(rows.sample(_SAMPLE).parts()))[1]
        n = len(next(iter(block.values())))
        xs = model.predictors.matrices(block, n)
        first, second = model.predictors.part(xs, phi), model.predictors.part(xs, lam)
        assert first is not None and second is not None
        both = np.concatenate([first, second])
        names = [
            f"{p}: {t}"
            for p, t in zip(*model.labels(), strict=True)
            if p in ("phi", "lam")
        ]
        dependent = dependent_columns(both @ both.T)
        if dependent is not None:
            raise IdentificationError(
                "Expected one scale at kappa = 1 with constant gamma, where phi and lam are the "
                f"same up to the factor gamma, but both use {[names[i] for i in dependent]}. Put "
                "each covariate in one of them, and drop one intercept (phi=None or no '1 +' in "
                "lam)."
            )

    def _search(
        self, model: Model, rows: Rows, counts: support.Counts, reader: Any
    ) -> tuple[Optimum, dict[str, Any]]:
        """Start from several kappas on a sample of rows, then climb on all of them."""
        k = model.predictors.n_params
        share = counts.informative / rows.n_obs
        size = max(_SAMPLE, math.ceil(25 * k / share))
        ridge, lasso = self._penalties(model, rows.n_obs)
        weak = _sizes(model) ** 2  # a standard normal prior per standard deviation

        def climb(part: Rows, theta: np.ndarray, **how: Any) -> Optimum:
            if part is rows:
                l2, l1 = ridge, lasso
            else:  # a sample may lack a level or separate the events
                shrink = part.n_obs / rows.n_obs
                l2 = weak if ridge is None else weak + shrink * ridge
                l1 = None if lasso is None else shrink * lasso
            return maximize(lambda t: _total(part, model, t), theta, ridge=l2, lasso=l1, **how)

        first = rows.sample(size) if 4 * size < rows.n_obs else rows
        nus = (math.nan,) if model.kappa is not None else tuple(self.starts or STARTS)
        largest = max(
            c.high for c in reader.columns if c.name in (model.roles.time, model.roles.lower)
        )
        found: list[Optimum] = []
        reached = []
        for nu in nus:
            start = support.start(model, counts, nu, largest)
            try:
                found.append(climb(first, start, tol=1e-3, max_iter=60, max_step=3.0))
                reached.append(found[-1].value)
            except ConvergenceError:
                reached.append(-math.inf)
        if not found:
            raise ConvergenceError(
                "Expected a maximum from at least one starting value, but the likelihood was not "
                f"finite at any of {len(nus)}. Rescale the time column, or simplify the formulas."
            )
        theta = max(found, key=lambda o: o.value).theta
        if first is not rows and 8 * _SECOND < rows.n_obs and size < _SECOND:
            theta = climb(rows.sample(_SECOND), theta, tol=1e-2, max_iter=30).theta
        optimum = climb(rows, theta, max_iter=self.max_iter)
        tried = {"nu": [float(v) for v in nus], "loglik": reached, "rows": first.n_obs}
        return optimum, tried

    def _penalties(
        self, model: Model, n: int
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Ridge and lasso weights per internal coefficient."""
        if not self.penalty:
            return None, None
        size = _sizes(model)
        ridge = n * self.penalty * (1 - self.l1_ratio) * size**2
        lasso = n * self.penalty * self.l1_ratio * size
        return ridge, lasso if self.l1_ratio else None

    def _covariances(
        self,
        model: Model,
        rows: Rows,
        optimum: Optimum,
        counts: support.Counts,
        reader: Any,
        log: list[str],
    ) -> dict[str, Any]:
        """Every covariance that the data allow, on the reported scale."""
        names = [f"{p}: {t}" for p, t in zip(*model.labels(), strict=True)]
        ridge, lasso = self._penalties(model, rows.n_obs)
        information = -optimum.hessian
        k = len(names)
        transform = model.predictors.transform()
        roles = model.roles
        out: dict[str, Any] = {"df_resid": None, "n_params": k}
        covariances: dict[str, np.ndarray] = {}
        if lasso is not None:
            nan = np.full((k, k), np.nan)
            covariances = {"model": nan, "robust": nan}
            out["n_params"] = int(np.count_nonzero(optimum.theta))
            bread = nan
            warn(
                "A lasso penalty leaves no valid standard errors; they are missing. Use "
                "l1_ratio=0, or refit the chosen terms without a penalty.",
                IdentificationWarning,
                log,
            )
            out["condition"], _ = condition_number(information)
        else:
            penalised = information if ridge is None else information + np.diag(ridge)
            bread = invert_information(penalised, names)
            out["condition"], weak = condition_number(penalised)
            if out["condition"] > _ILL:
                involved = [n for n, v in zip(names, weak, strict=True) if v > 0.1 * weak.max()]
                warn(
                    f"The data hardly separate {involved}: the condition number of the scaled "
                    f"information is {out['condition']:.1e}. A parameter may be running to the end "
                    "of its range, or two scales may share a covariate while kappa is near 1. Fix "
                    "or remove one of them.",
                    IdentificationWarning,
                    log,
                )
            model_based = bread if ridge is None else sandwich(bread, information)
            covariances["model"] = model_based
            covariances["robust"] = sandwich(bread, optimum.meat)
        if roles.cluster is not None:
            column = next(c for c in reader.columns if c.name == roles.cluster)
            n_clusters = len(column.levels or ())
            if n_clusters < 2:
                raise DataError(
                    f"Expected at least two clusters in column {roles.cluster!r}, but saw "
                    f"{n_clusters}. Leave cluster out."
                )
            sums = rows.total(model.cluster_scores, optimum.theta, n_clusters)[0]
            factor = n_clusters / (n_clusters - 1)
            covariances["cluster"] = sandwich(bread, sums.T @ sums, factor)
            out["df_resid"] = float(n_clusters - 1)
            if n_clusters < 30:
                warn(
                    f"Only {n_clusters} clusters: cluster-robust standard errors are too small on "
                    f"average below about 30. Intervals use t with {n_clusters - 1} degrees of "
                    "freedom.",
                    IdentificationWarning,
                    log,
                )
        kind = self.covariance
        if kind == "auto":
            kind = (
                "cluster" if roles.cluster is not None
                else "robust" if roles.weights is not None
                else "model"
            )  # fmt: skip
        if kind not in covariances:
            raise DataError(
                f"Expected a cluster column for covariance={kind!r}, but fit was called without "
                "one. Give fit(..., cluster=...)."
            )
        out["covariances"] = {
            name: transform @ c @ transform.T for name, c in covariances.items()
        }
        out["covariance"] = kind
        return out

    def _warn_about(
        self,
        optimum: Optimum,
        model: Model,
        theta: np.ndarray,
        parameter: tuple[str, ...],
        log: list[str],
    ) -> None:
        if not optimum.converged:
            warn(
                f"The likelihood was still rising after {optimum.iterations} steps (expected gain "
                f"of the next: {optimum.decrement:.1e}). Raise max_iter, or simplify the model.",
                ConvergenceWarning,
                log,
            )
        if model.kappa is None:
            nu = float(theta[parameter.index("kappa")])
            if abs(nu) > _BOUNDARY:
                end = "infinity" if nu > 0 else "-1"
                fix = "Fit kappa='gompertz' or kappa='exponential_power'" if nu > 0 else (
                    "Fix kappa, or move covariates from one parameter to another"
                )
                warn(
                    f"kappa runs to the end of its range ({end}), where its interval means "
                    f"nothing. {fix}.",
                    IdentificationWarning,
                    log,
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
        """Hazard, per unit of time, at each time; as `predict_survival`, intervals on the log scale."""
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
            One column "cure"; with `ci` as `predict_survival`. Zero, without uncertainty, when
            kappa is not below 0.
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


# ---------------------------------------------------------------------------- checks


def _total(
    rows: Rows, model: Model, theta: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    value, score, hessian, meat = rows.total(model.sums, theta)
    return float(value), score, hessian, meat


def _sizes(model: Model) -> np.ndarray:
    """Standard deviation of each internal column; 0 for intercepts and kappa."""
    p = model.predictors
    out = np.zeros(p.n_params)
    for w, f, s in zip(p.which, p.first, p.slices, strict=True):
        if w >= 0:
            out[s] = (p.sd[w] * p.scale[w])[f:]
            terms = p.unique[w].terms[f:]
            out[s][[i for i, t in enumerate(terms) if t == "Intercept"]] = 0.0
    return out


def _plus(ridge: np.ndarray | None, weak: np.ndarray, shrink: float) -> np.ndarray:
    return weak if ridge is None else weak + shrink * ridge


def _check_roles(roles: Roles) -> None:
    if (roles.lower is None) != (roles.upper is None):
        raise DataError("Expected both lower and upper, or neither, but saw one of them.")
    if (roles.time is None) == (roles.lower is None):
        raise DataError(
            "Expected either time= (with event=) or lower= and upper=, but saw "
            + ("both" if roles.time is not None else "neither")
            + ". Interval-censored data take lower and upper; exact times have equal ends."
        )
    if roles.lower is not None and roles.event is not None:
        raise DataError(
            "Expected no event column beside lower and upper, which say it already: equal ends are "
            "an event, an infinite upper end is right censoring."
        )
    for name, column in vars(roles).items():
        if column is not None and not isinstance(column, str):
            raise DataError(f"Expected a column name for {name}, but saw {column!r}.")


def _check_values(rows: Rows, roles: Roles, index: pd.Index | None) -> None:
    r = roles
    if r.time is not None:
        check(
            rows, [r.time], lambda t: t <= 0, "times above 0",
            "Drop these rows, or add half of the smallest unit if 0 stands for a rounded time.",
            index,
        )  # fmt: skip
    if r.event is not None:
        check(
            rows, [r.event], lambda d: (d != 0) & (d != 1), "0 (censored) or 1 (event)",
            "Recode the column, for example with df[column] == value.", index,
        )  # fmt: skip
    if r.lower is not None and r.upper is not None:
        check(rows, [r.lower], lambda t: t < 0, "times of at least 0", "Correct these rows.", index)
        check(
            rows, [r.upper], lambda t: ~(t > 0), "times above 0 (infinity for right censoring)",
            "Correct these rows.", index,
        )  # fmt: skip
        check(
            rows, [r.lower, r.upper], lambda a, b: a > b, "lower ends up to the upper ends",
            "Swap or correct these rows.", index,
        )  # fmt: skip
    if r.entry is not None:
        check(rows, [r.entry], lambda e: e < 0, "times of at least 0", "Correct these rows.", index)
        late = (
            [r.entry, r.time] if r.time is not None else [r.entry, str(r.upper)]
        )
        check(
            rows, late, lambda e, t: e >= t, "entry before the end of observation",
            "Drop rows that were never under observation.", index,
        )  # fmt: skip
        if r.lower is not None:
            check(
                rows, [r.entry, r.lower], lambda e, a: (a < e) & (a > 0),
                "lower ends at or after entry (or 0)", "Correct these rows.", index,
            )  # fmt: skip
    if r.weights is not None:
        check(
            rows, [r.weights], lambda w: w < 0, "weights of at least 0",
            "Drop these rows or correct the weights.", index,
        )  # fmt: skip


def _check_counts(counts: support.Counts, n: int, model: Model, roles: Roles) -> None:
    k = model.predictors.n_params
    if counts.weight_sum <= 0:
        raise DataError(
            f"Expected positive weights in column {roles.weights!r}, but all {n} are 0. Give at "
            "least some rows a weight."
        )
    if counts.informative <= 0:
        column = roles.event if roles.event is not None else roles.upper
        raise IdentificationError(
            f"Expected at least one event in column {column!r}, but all {n} rows are censored. "
            "Check how events are coded (1 is an event); without events nothing can be estimated."
        )
    if n < k:
        raise IdentificationError(
            f"Expected at least as many rows as parameters, but there are {n} rows and {k} "
            f"parameters in {model.names}. Simplify the formulas or fix kappa."
        )

