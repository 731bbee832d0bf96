"""Average effect of a treatment: partially linear, doubly robust, weighted, or by regression."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from causalrm.core.design import formula_text, prepare
from causalrm.core.encoding import Design
from causalrm.core.errors import (
    DataError,
    IdentificationError,
    IdentificationWarning,
    check_choice,
    warn,
)
from causalrm.core.frame import check, check_weights
from causalrm.core.random import RNG, resolve, spawn
from causalrm.core.result import Assumption, Estimate, Result, call_of
from causalrm.deconfound.few_clusters import (
    Sums,
    cluster_sums,
    wild_bootstrap,
)
from causalrm.deconfound.learners import (
    LINEAR,
    LOGISTIC,
    check_clusters,
    learners_of,
)
from causalrm.deconfound.linear_effect import combine
from causalrm.deconfound.scores import Names, Task, one_split
from causalrm.deconfound.sensitivity import SensitivityResult, benchmark, sensitivity
from causalrm.deconfound.stages import near_singular

METHODS = ("difference", "regression", "ipw", "plr", "aipw")


# --------------------------------------------------------------------------- result


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class EffectResult(Result):
    """What `average_effect` returns.

    Parameters
    ----------
    treatment : str
    estimand : str
    estimate : float
    std_errors : dict of str to float
        By kind of covariance: "robust", "cluster" where clusters were given, and for least
        squares "HC2" and "model".
    covariance : str
        The kind in use.
    n_clusters : int or None
    splits : pandas.DataFrame
        `estimate` and `std_error` of every repeated split.
    moments : dict of str to float
        What a sensitivity analysis needs: `sigma2`, `nu2`, `outcome_variance`, the covariance of
        estimate and S, and the variance of S.
    benchmarks : pandas.DataFrame
        Strength of observed covariates: `cf_y`, `cf_d`, and the estimate `without` them.
    cluster_sums : tuple of ndarray or None
        What `wild_bootstrap` needs of each cluster, where clusters are few.
    """

    treatment: str
    estimand: str
    estimate: float
    std_errors: Mapping[str, float]
    covariance: str
    n_clusters: int | None
    splits: pd.DataFrame
    moments: Mapping[str, float]
    benchmarks: pd.DataFrame
    cluster_sums: Sums | None = None

    @property
    def std_error(self) -> float:
        """Standard error under the covariance in use."""
        return self.std_errors[self.covariance]

    def effect(self, level: float = 0.95) -> Estimate:
        """The effect as a single number with its interval; t(G - 1) under clusters."""
        df = self.n_clusters - 1.0 if self.covariance == "cluster" and self.n_clusters else None
        return Estimate.wald(self.estimate, self.std_error, level, self.treatment, df)

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return one row, with the columns of every result frame."""
        return self.effect(level).to_frame()

    def wild_bootstrap(self, level: float = 0.95, draws: int = 9999, rng: RNG = 0) -> pd.DataFrame:
        """Test and interval that hold with few clusters; see `DeconfoundedResult`."""
        theta = np.array([self.estimate])
        return wild_bootstrap((self.treatment,), theta, self.cluster_sums, level, draws, rng)

    def sensitivity(self, null: float = 0.0) -> SensitivityResult:
        """How strong an unobserved confounder must be to explain the effect away.

        Returns
        -------
        SensitivityResult
            With the benchmarks that were asked for in `average_effect`.

        Raises
        ------
        DataError
            For "ipw", which has no outcome model.
        """
        m = self.moments
        if not m:
            raise DataError(
                "Expected an estimate with an outcome model, but 'ipw' has none. Use method "
                "'aipw' or 'plr'."
            )
        scale = {"scale": math.sqrt(m["sigma2"] * m["nu2"])}
        return sensitivity(
            self.estimate, self.std_error, **scale, null=null, name=self.treatment,
            scale_covariance=(m["shared"], m["own"]), benchmarks=self.benchmarks,
            outcome_sd=math.sqrt(m["outcome_variance"]), n_obs=self.n_obs,
        )  # fmt: skip

    def _fit_lines(self, level: float) -> list[tuple[str, str]]:
        lines = [("Estimand", self.estimand), ("Covariance", self.covariance)]
        if len(self.splits) > 1:
            low, high = self.splits["estimate"].min(), self.splits["estimate"].max()
            lines.append(("Splits", f"{len(self.splits)}, estimates {low:.5g} to {high:.5g}"))
        return lines


# --------------------------------------------------------------------------- the function


def average_effect(
    data: Any,
    *,
    outcome: str,
    treatment: str,
    covariates: str | Sequence[str] = (),
    method: str = "aipw",
    estimand: str = "ate",
    nuisance: Any = None,
    interact: Sequence[str] = (),
    folds: int = 5,
    repeats: int = 1,
    cluster: str | None = None,
    weights: str | None = None,
    covariance: str = "auto",
    clip: float | None = None,
    trim: float | None = None,
    benchmarks: Sequence[str | tuple[str, ...]] = (),
    rng: RNG = 0,
) -> EffectResult:
    r"""Average effect of a treatment on an outcome, given covariates.

    Parameters
    ----------
    data : data frame, path of parquet files, pyarrow data set, or Dask data frame
    outcome, treatment : str
        Numeric columns. The treatment is 0/1; any number for "plr" and "regression".
    covariates : str or list of str
        Formula or columns that are held fixed: known before the treatment.
    method : {"aipw", "plr", "ipw", "regression", "difference"}
        "aipw", doubly robust, and "plr", partially linear, with cross-fitted nuisances;
        "ipw" with normalised weights from a logistic propensity; "regression" by least squares;
        "difference" in means.
    estimand : {"ate", "att"}
        Average over all rows, or over the treated. In "plr", and "regression" without `interact`,
        the effect is the same for all rows, or averaged with weights of the method's own.
    nuisance : scikit-learn estimator or mapping, optional
        For "plr" and "aipw": ``{"outcome": ..., "treatment": ...}``, or one for both. Least squares
        by default, and for "aipw" a logistic regression of the treatment. Seeds are set from `rng`.
    interact : list of str
        For "regression", terms of the covariates whose interaction with the treatment is averaged
        out (standardisation).
    folds, repeats : int
        Repeated splits are summarised by the median, their spread counts in the standard error.
    cluster : str, optional
        Its rows stay in one fold.
    weights : str, optional
        Sampling weights of at least 0.
    covariance : {"auto", "robust", "cluster", "HC2", "model"}
        "HC2" and "model" for least squares.
    clip, trim : float, optional
        Move propensities to this distance from 0 and 1, or leave such rows out, which changes the
        estimand. Both are counted and warned about; neither happens unless asked for.
    benchmarks : list of str or tuple
        Columns among `covariates` (tuples are taken together) whose strength a sensitivity
        analysis compares with; each costs another fit.
    rng : None, int, SeedSequence or Generator

    Returns
    -------
    EffectResult
        ``to_frame()``, ``sensitivity()``, and overlap in ``diagnostics``.

    Raises
    ------
    DataError
    IdentificationError
        When covariates determine the treatment, or propensities are 0 or 1.

    Notes
    -----
    The standard error comes from the influence of every row (n/(n - k) for least squares, G/(G - 1)
    under clusters), or with linear nuisances and few clusters from leaving each cluster out: up to
    100 with "plr", fewer than 30 with "aipw" and "ipw". Over repeated splits the estimate is the
    median and the squared error ``median(se_r**2 + (theta_r - theta)**2)``.

    References
    ----------
    Robins, Rotnitzky, Zhao (1994), Estimation of regression coefficients when some regressors are
    not always observed, JASA 89(427), 846-866, doi 10.1080/01621459.1994.10476818. Chernozhukov,
    Chetverikov, Demirer, Duflo, Hansen, Newey, Robins (2018), Double/debiased machine learning for
    treatment and structural parameters, Econometrics Journal 21(1), C1-C68, doi 10.1111/ectj.12097.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from causalrm.deconfound import average_effect
    >>> rng = np.random.default_rng(0)
    >>> df = pd.DataFrame({"hour": rng.normal(size=2000)})
    >>> df["promoted"] = (df["hour"] + rng.logistic(size=2000) > 0).astype(int)
    >>> df["clicks"] = df["promoted"] + 2 * df["hour"] + rng.normal(size=2000)
    >>> roles = {"outcome": "clicks", "treatment": "promoted"}
    >>> print(average_effect(df, **roles, method="difference").effect())
    promoted: 2.716, std. error 0.095, 95% interval [2.531, 2.901], p <0.001
    >>> print(average_effect(df, **roles, covariates=["hour"]).effect())
    promoted: 0.996, std. error 0.052, 95% interval [0.894, 1.097], p <0.001
    """
    check_choice("method", method, METHODS)
    check_choice("estimand", estimand, ("ate", "att"))
    for name, bound in (("clip", clip), ("trim", trim)):
        if bound is not None and not (0 < bound < 0.5 and method in ("ipw", "aipw")):
            raise DataError(
                f"Expected {name} between 0 and 0.5, with method 'ipw' or 'aipw', but saw {bound!r}"
                f" with {method!r}. Leave it out, or correct it."
            )
    if method == "difference":
        covariates, interact, benchmarks = (), (), ()
    log: list[str] = []
    _, entropy = resolve(rng)
    text = formula_text(covariates, "covariates")
    numbers = [outcome, treatment, *([weights] if weights else [])]
    source, rows, designs, reader = prepare(
        data, {"covariates": text}, numbers=numbers, categories=[cluster] if cluster else []
    )
    if method not in ("plr", "regression"):
        check(
            rows, [treatment], lambda d: (d != 0) & (d != 1), f"0 or 1 for method {method!r}",
            "Code the treatment as 0/1, or use method 'plr' for a continuous one.",
            source.index,
        )  # fmt: skip
    if weights:
        check_weights(rows, weights, source.index)
    n_clusters = None
    if cluster:
        n_clusters = check_clusters(reader, cluster, log)
    generators = spawn(rng, repeats) if method in ("plr", "aipw") else [np.random.default_rng(0)]
    defaults = {"outcome": LINEAR, "treatment": LOGISTIC if method == "aipw" else LINEAR}
    learners = learners_of(nuisance, defaults)
    columns = rows.collect()
    w = np.ones(rows.n_obs) if not weights else np.asarray(columns[weights], dtype=float)
    d = np.asarray(columns[treatment], dtype=float)
    if not np.ptp(d[w > 0]):
        raise IdentificationError(
            f"Expected a treatment that varies, but column {treatment!r} is constant. Give rows of "
            "both treatments."
        )
    design = designs["covariates"]
    names = Names(outcome, treatment, cluster, weights)
    in_rows = method == "plr" and nuisance is None  # which reads the rows in blocks
    task = Task(
        np.asarray(columns[outcome], dtype=float), d,
        np.empty((rows.n_obs, 0)) if in_rows else design.slopes(columns, rows.n_obs).T,
        design.slope_terms, w / w.mean(), bool(weights), estimand == "att", learners, clip, trim,
        _interactions(interact, design), None if cluster is None else columns[cluster], n_clusters,
    )  # fmt: skip
    with near_singular(log):
        results = [
            one_split(method, task, rows, design, names, folds, g, nuisance is None)
            for g in generators
        ]
    kinds = [found.covariances(task) for found in results]
    kind = covariance if covariance != "auto" else "cluster" if cluster else "robust"
    if kind not in kinds[0][0]:
        raise DataError(
            f"Expected a covariance among {sorted(kinds[0][0])}, but saw {covariance!r}. 'cluster' "
            "needs cluster=; 'HC2' and 'model' are for least squares."
        )
    thetas = np.array([[found.theta] for found in results])
    errors = {}
    for name in kinds[0][0]:
        squares = np.array([[[k[0][name] ** 2]] for k in kinds])
        theta, total = combine(thetas, squares)
        errors[name] = float(np.sqrt(total[0, 0]))
    at = int(np.argsort(thetas[:, 0])[(len(results) - 1) // 2])
    middle = results[at]
    _judge(middle.overlap, task, treatment, log)
    sums = None
    if cluster:
        sums = cluster_sums(middle.by_cluster(task, middle.slope), np.eye(1))
    moments: dict[str, float] = {}
    if middle.moments:
        for name in ("sigma2", "nu2", "outcome_variance"):
            moments[name] = float(np.median([found.moments[name] for found in results]))
        cross = kinds[at][1]["cluster" if kind == "cluster" else "robust"]
        moments |= {"shared": float(cross[0, 1]), "own": float(cross[1, 1])}
    options = {
        "method": method, "estimand": estimand, "interact": list(interact), "folds": folds,
        "repeats": repeats, "covariance": covariance, "clip": clip, "trim": trim,
        "nuisance": None if nuisance is None else str(nuisance), "rng": entropy,
    }  # fmt: skip
    roles: dict[str, Any] = {
        "outcome": outcome, "treatment": treatment, "covariates": covariates
    }  # fmt: skip
    roles |= {"cluster": cluster, "weights": weights}
    shorter = _benchmarks(
        benchmarks, covariates, moments, data, method=method, outcome=outcome, treatment=treatment,
        estimand=estimand, nuisance=nuisance, folds=folds, repeats=repeats, cluster=cluster,
        weights=weights, clip=clip, trim=trim, rng=entropy,
    )  # fmt: skip
    return EffectResult(
        call=call_of("average_effect", options, roles),
        n_obs=rows.n_obs,
        entropy=entropy,
        assumptions=_assumptions(method, outcome, treatment, covariates, middle.overlap),
        diagnostics=middle.overlap,
        warnings=tuple(log),
        treatment=treatment,
        estimand=_estimand(method, estimand, bool(interact)),
        estimate=float(theta[0]),
        std_errors=errors,
        covariance=kind,
        n_clusters=n_clusters,
        splits=pd.DataFrame({"estimate": thetas[:, 0], "std_error": [k[0][kind] for k in kinds]}),
        moments=moments,
        benchmarks=shorter,
        cluster_sums=sums,
    )


def _interactions(interact: Sequence[str], design: Design) -> tuple[str, ...]:
    unknown = [t for t in interact if t not in design.slope_terms]
    if unknown:
        raise DataError(
            f"Expected interact among the terms {list(design.slope_terms)}, but saw {unknown}."
        )
    return tuple(interact)


def _judge(overlap: dict[str, Any], task: Task, treatment: str, log: list[str]) -> None:
    """Say what overlap leaves to be desired."""
    if overlap.get("r2_treatment", 0.0) > 0.95:
        warn(
            f"Covariates explain {overlap['r2_treatment']:.1%} of the treatment {treatment!r}: its "
            "effect is hardly identified. Look for an instrument, or hold less fixed.",
            IdentificationWarning, log,
        )  # fmt: skip
    for what in ("clipped", "trimmed"):
        if count := overlap.get(f"n_{what}", 0):
            warn(
                f"{count} of {len(task.d)} rows were {what}: their propensities lie beyond the "
                "bound that was asked for.", IdentificationWarning, log,
            )  # fmt: skip
    for arm in ("treated", "control"):
        size = overlap.get(f"ess_{arm}", math.inf)
        fewest = min(overlap.get("n_treated", 0), overlap.get("n_control", 0))
        if size < max(0.02 * fewest, 10):
            warn(
                f"The weights of the {overlap[f'n_{arm}']} rows of the {arm} are worth only "
                f"{size:.1f} rows: overlap is poor. Trim, or narrow the population.",
                IdentificationWarning, log,
            )  # fmt: skip


def _benchmarks(
    benchmarks: Sequence[str | tuple[str, ...]], covariates: str | Sequence[str],
    moments: Mapping[str, float], data: Any, **options: Any,
) -> pd.DataFrame:  # fmt: skip
    found: dict[str, list[float]] = {}
    for item in benchmarks:
        group = (item,) if isinstance(item, str) else tuple(item)
        if isinstance(covariates, str) or not set(group) <= set(covariates) or not moments:
            raise DataError(
                f"Expected benchmarks among a list of covariates, but saw {item!r} with covariates="
                f"{covariates!r} and method {options['method']!r}. Write the covariates as a list "
                "of columns, and use a method with an outcome model."
            )
        rest = [c for c in covariates if c not in group]
        short = average_effect(data, covariates=rest, **options)
        m = short.moments
        strength = benchmark(
            moments["sigma2"], moments["nu2"], m["sigma2"], m["nu2"], moments["outcome_variance"]
        )
        found[", ".join(group)] = [*strength, short.estimate]
    frame = pd.DataFrame.from_dict(found, orient="index", columns=["cf_y", "cf_d", "without"])
    return frame.astype(float)


def _estimand(method: str, estimand: str, interact: bool) -> str:
    if method == "difference":
        return "difference in means"
    if method == "plr" or (method == "regression" and not interact):
        return "effect, if the same for all rows (else weighted by the treatment's variance)"
    return "average effect over " + ("the treated" if estimand == "att" else "all rows")


def _assumptions(
    method: str, outcome: str, treatment: str, covariates: str | Sequence[str],
    overlap: Mapping[str, Any],
) -> tuple[Assumption, ...]:  # fmt: skip
    given = covariates if isinstance(covariates, str) else ", ".join(covariates)
    sizes = [
        f"{overlap[key]:.0f} ({key.replace('_', ' ')})"
        for key in ("ess", "ess_treated", "ess_control")
        if key in overlap
    ]
    shape = {
        "aipw": "the outcome or the propensity model is right, and both are learnt fast enough",
        "plr": f"the effect of {treatment} adds to that of the covariates",
        "ipw": "the logistic propensity model is right",
        "regression": "the linear outcome model is right",
        "difference": "the groups are comparable",
    }
    return (
        Assumption(
            "no unobserved confounding",
            f"given {given or 'nothing'}, {treatment} is as good as random for {outcome}",
            "not testable; sensitivity() says how strong a hidden confounder must be",
        ),
        Assumption(
            "overlap",
            "every row could have had either treatment",
            f"effective sample size {', '.join(sizes)}; see diagnostics",
        ),
        Assumption("model", shape[method], "compare with another method or learner"),
        Assumption(
            "no interference",
            f"the {treatment} of one row does not change the {outcome} of another",
            "not tested",
        ),
    )
