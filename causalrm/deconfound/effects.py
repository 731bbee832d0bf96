"""Average effect of a treatment: partially linear, doubly robust, weighted, or by regression."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import linalg
from sklearn.base import is_classifier, is_regressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from causalrm.core import inference
from causalrm.core.blocks import Rows
from causalrm.core.design import formula_text, prepare
from causalrm.core.encoding import Design
from causalrm.core.errors import DataError, IdentificationError, IdentificationWarning, warn
from causalrm.core.frame import check
from causalrm.core.linear import least_squares
from causalrm.core.random import RNG, resolve, seed_int, spawn
from causalrm.core.result import Assumption, Estimate, Result
from causalrm.deconfound.folds import FOLD, Columns, Folds, with_folds
from causalrm.deconfound.linear_effect import combine
from causalrm.deconfound.linear_nuisance import partial_out, residuals
from causalrm.deconfound.sensitivity import SensitivityResult, benchmark, sensitivity
from causalrm.deconfound.stages import fit_learner, seeded

METHODS = ("difference", "regression", "ipw", "plr", "aipw")
_LINEAR = LinearRegression()
_LOGISTIC = make_pipeline(
    StandardScaler(),
    LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10, max_iter=200),
)


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

    @property
    def std_error(self) -> float:
        """Standard error under the covariance in use."""
        return self.std_errors[self.covariance]

    def effect(self, level: float = 0.95) -> Estimate:
        """The effect as a single number with its interval; t(G - 1) under clusters."""
        df = self.n_clusters - 1.0 if self.covariance == "cluster" and self.n_clusters else None
        return estimate_of(self.estimate, self.std_error, level, self.treatment, df)

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return one row, with the columns of every result frame."""
        return self.effect(level).to_frame()

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


def estimate_of(
    value: float, std_error: float, level: float, name: str, df: float | None = None
) -> Estimate:
    """A number with its Wald interval and test."""
    z = inference.quantile(level, df)
    p = float(inference.two_sided_p(np.array(value / std_error if std_error else math.nan), df))
    return Estimate(
        float(value), float(std_error), float(value - z * std_error),
        float(value + z * std_error), level, name, p,
    )  # fmt: skip


# --------------------------------------------------------------------------- pieces


def cross_fit(
    learner: Any, x: np.ndarray, y: np.ndarray, fold: np.ndarray, generator: np.random.Generator,
    w: np.ndarray | None = None, among: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Out-of-fold predictions (n,): the mean of y, or the probability of 1 from a classifier.

    Parameters
    ----------
    learner : scikit-learn estimator
    x : ndarray of shape (n, p)
    y : ndarray of shape (n,)
    fold : ndarray of int of shape (n,)
    generator : numpy.random.Generator
        Seeds the learner, once for each fold.
    w : ndarray of shape (n,), optional
    among : ndarray of bool of shape (n,), optional
        Rows to learn from.
    """
    out = np.empty(len(y))
    for f in np.unique(fold):
        own = fold == f
        learn = ~own if among is None else ~own & among
        out[own] = fitted(learner, x, y, learn, generator, w)(x[own])
    return out


def fitted(
    learner: Any, x: np.ndarray, y: np.ndarray, learn: np.ndarray,
    generator: np.random.Generator, w: np.ndarray | None,
) -> Callable[[np.ndarray], np.ndarray]:  # fmt: skip
    """Learn from some rows, and give the function that predicts."""
    target, values = y[learn], np.unique(y[learn])
    if x.shape[1] == 0 or len(values) == 1:
        if len(values) == 0:
            raise IdentificationError(
                "Expected rows of both treatments outside every fold, but one has none. Take "
                "fewer folds, or larger clusters apart."
            )
        mean = float(np.average(target, weights=None if w is None else w[learn]))
        return lambda new: np.full(len(new), mean)
    model = seeded(learner, generator)
    if is_classifier(model) and len(values) > 2:
        raise DataError(
            f"Expected a regressor for a target with {len(values)} values, but saw the classifier "
            f"{type(learner).__name__}. Give a regressor."
        )
    fit_learner(model, x[learn], target, None if w is None else w[learn])
    if not is_classifier(model):
        return lambda new: np.asarray(model.predict(new), dtype=float)
    low, high = (float(v) for v in values)
    return lambda new: low + (high - low) * model.predict_proba(new)[:, 1]


def variances(
    influence: np.ndarray, cluster: np.ndarray | None, n_clusters: int | None
) -> dict[str, np.ndarray]:
    """Covariances (r, r) of estimates with influences (r, n), by kind."""
    out = {"robust": influence @ influence.T}
    if cluster is not None and n_clusters is not None:
        sums = inference.by_cluster(cluster, influence, n_clusters)
        out["cluster"] = sums.T @ sums * n_clusters / (n_clusters - 1)
    return out


def ess(w: np.ndarray) -> float:
    """Effective sample size of weights."""
    return float(w.sum() ** 2 / (w**2).sum()) if w.any() else 0.0


def check_clusters(n_clusters: int, name: str, log: list[str]) -> None:
    """Refuse one cluster, and warn of few."""
    if n_clusters < 2:
        raise IdentificationError(
            f"Expected at least two clusters in column {name!r}, but saw {n_clusters}. Leave "
            "cluster out, or take a finer column."
        )
    if n_clusters < 30:
        warn(
            f"Only {n_clusters} clusters in {name!r}: clustered standard errors are often too "
            "small with fewer than 30. Prefer a wild cluster bootstrap.",
            IdentificationWarning,
            log,
        )


def learners_of(nuisance: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    """Learner of every nuisance: one for all, a mapping for some, the defaults else."""
    if nuisance is None:
        return dict(parts)
    if not isinstance(nuisance, Mapping):
        probability = [p for p in parts if is_classifier(parts[p])]
        if probability and is_regressor(nuisance):
            raise DataError(
                f"Expected a classifier for {probability}, but nuisance={nuisance!r} is a "
                "regressor. Give a mapping, such as nuisance={'outcome': ..., "
                f"{probability[0]!r}: a classifier}}."
            )
        return dict.fromkeys(parts, nuisance)
    unknown = sorted(set(nuisance) - set(parts))
    if unknown:
        raise DataError(
            f"Expected nuisances among {sorted(parts)}, but saw {unknown}. Rename or drop them."
        )
    for part, learner in nuisance.items():
        if is_classifier(parts[part]) and not is_classifier(learner):
            raise DataError(
                f"Expected a classifier for the nuisance {part!r}, but saw {learner!r}. Give one "
                "with predict_proba."
            )
    return {**parts, **nuisance}


@dataclass(frozen=True)
class _Found:
    """One split: the estimate, influences on it and on S, and what describes overlap."""

    theta: float
    influence: np.ndarray
    moments: dict[str, Any]
    overlap: dict[str, Any]
    std_errors: dict[str, float]


@dataclass(frozen=True)
class _Task:
    """The columns of one analysis as arrays."""

    y: np.ndarray
    d: np.ndarray
    x: np.ndarray  # (n, p), without an intercept
    terms: tuple[str, ...]
    w: np.ndarray  # mean one
    weighted: bool
    att: bool
    learners: Mapping[str, Any]
    clip: float | None
    trim: float | None
    interact: tuple[str, ...]

    def scale(self, sigma: np.ndarray, nu: np.ndarray) -> dict[str, Any]:
        """Moments of S from the rows' contributions to sigma2 and nu2, with its influence."""
        w, n = self.w, len(self.w)
        sigma2, nu2 = float(np.mean(w * sigma)), float(np.mean(w * nu))
        s = math.sqrt(sigma2 * nu2)
        influence = w * (nu2 * (sigma - sigma2) + sigma2 * (nu - nu2)) / (2 * s * n)
        mean = float(np.mean(w * self.y))
        spread = float(np.mean(w * (self.y - mean) ** 2))
        return {"sigma2": sigma2, "nu2": nu2, "outcome_variance": spread, "influence": influence}


def _regression(task: _Task) -> _Found:
    d, x, w = task.d, task.x, task.w
    n, k = len(d), 2 + x.shape[1]
    places = [task.terms.index(name) for name in task.interact]
    inner = x[:, places]
    base = w * d if task.att else w
    about = inner - (base @ inner) / base.sum()
    design = np.column_stack([d, np.ones(n), x, about * d[:, None]])
    k += len(places)
    if n <= k:
        raise IdentificationError(
            f"Expected more rows than coefficients, but saw {n} rows for {k}. Use fewer covariates."
        )
    names = ["treatment", "Intercept", *task.terms, *(f"treatment:{t}" for t in task.interact)]
    gram = design.T @ (design * w[:, None])
    beta = least_squares(gram, design.T @ (w * task.y), names)
    e = task.y - design @ beta
    row = linalg.inv(gram)[0]
    v = design @ row  # residual treatment over its sum of squares
    leverage = w * np.einsum("ij,jk,ik->i", design, linalg.inv(gram), design)
    means = base / base.sum() * (about @ beta[k - len(places) :])  # of the interactions
    influence = w * v * e + means
    hc2 = w * v * e / np.sqrt(np.clip(1 - leverage, 1e-12, None)) + means
    errors = {"HC2": float(np.sqrt(hc2 @ hc2)), "robust": math.sqrt(n / (n - k)) * float(
        np.sqrt(influence @ influence)
    )}  # fmt: skip
    if not task.weighted and not places:
        errors["model"] = math.sqrt(float(e @ e) / (n - k) * row[0])
    nu2 = n * float(w @ v**2)
    moments = task.scale(e**2, 2 * nu2 - (n * v) ** 2)
    spread = float(w @ (d - np.average(d, weights=w)) ** 2)
    overlap = {"r2_treatment": 1 - 1 / (row[0] * spread), "ess": ess(w * v**2)}
    return _Found(float(beta[0]), influence, moments, overlap, errors)


def _r2(d: np.ndarray, left: np.ndarray, w: np.ndarray) -> float:
    return 1 - float(w @ left**2) / float(w @ (d - np.average(d, weights=w)) ** 2)


def _plr(task: _Task, y: np.ndarray, v: np.ndarray) -> _Found:
    """From out-of-fold residuals of outcome and treatment."""
    w, n = task.w, len(v)
    size = float(w @ v**2)
    theta = float(w @ (v * y)) / size
    e = y - theta * v
    nu2 = n / size
    moments = task.scale(e**2, 2 * nu2 - v**2 * nu2**2)
    quantiles = np.quantile(v**2, [0.05, 0.5, 0.95]).tolist()
    overlap = {
        "r2_treatment": _r2(task.d, v, w), "ess": ess(w * v**2),
        "residual_variance_quantiles": dict(zip(("5%", "50%", "95%"), quantiles, strict=True)),
    }  # fmt: skip
    return _Found(theta, w * v * e / size, moments, overlap, {})


def _bounded(task: _Task, e: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Propensities, the weights of rows that stay, and overlap; refuses 0 and 1."""
    w = task.w
    seen = {
        arm: np.quantile(e[task.d == a], [0.0, 0.01, 0.5, 0.99, 1.0]).tolist()
        for a, arm in enumerate(("control", "treated"))
    }
    kept = np.ones(len(e), dtype=bool)
    if task.trim is not None:
        kept = (e >= task.trim) & (e <= 1 - task.trim)
        w = w * kept
        w = w / w.mean()
    bound = task.clip or 0.0
    clipped = (e < bound) | (e > 1 - bound)
    e = np.clip(e, bound, 1 - bound)
    bad = kept & ((e >= 1) | ((e <= 0) & (not task.att or task.d == 1)))
    if bad.any():
        raise IdentificationError(
            f"Expected propensities between 0 and 1, but {int(bad.sum())} of {len(e)} rows have 0 "
            f"or 1 (first rows: {np.flatnonzero(bad)[:6].tolist()}). Give trim= or clip=, such as "
            "0.01, a smoother learner, or fewer covariates."
        )
    if not all((w * (task.d == a)).any() for a in (0, 1)):
        raise IdentificationError(
            f"Expected rows of both treatments with propensities within {task.trim} of the ends, "
            "but trimming leaves one only. Lower trim."
        )
    odds = e / np.where(e < 1, 1 - e, 1.0)
    to_one = task.d if task.att else task.d / np.where(e > 0, e, 1.0)
    to_none = (1 - task.d) * (odds if task.att else 1 / np.where(e < 1, 1 - e, 1.0))
    overlap = {
        "propensity": seen, "ess_treated": ess(w * to_one), "ess_control": ess(w * to_none),
        "n_treated": int(task.d.sum()), "n_control": int((1 - task.d).sum()),
        "n_clipped": int((clipped & kept).sum()), "n_trimmed": int((~kept).sum()),
    }  # fmt: skip
    return e, w, overlap


def _ipw(task: _Task, generator: np.random.Generator) -> _Found:
    """Normalised weights from a logistic propensity, whose estimation counts in the influence."""
    n, d = len(task.d), task.d
    learn = np.ones(n, dtype=bool)
    e = fitted(_LOGISTIC, task.x, d, learn, generator, task.w if task.weighted else None)(task.x)
    raw = e
    e, w, overlap = _bounded(task, e)
    odds = e / (1 - e)
    # Weights of both arms and their derivatives in the log-odds.
    arms = (
        [(d, 0 * d), ((1 - d) * odds, (1 - d) * odds)]
        if task.att
        else [(d / e, -d * (1 - e) / e), ((1 - d) / (1 - e), (1 - d) * odds)]
    )
    x = np.column_stack([np.ones(n), (task.x - task.x.mean(axis=0)) / _sd(task.x)])
    inside = raw == e  # clipped rows do not move
    score = x * (task.w * (d - raw))[:, None]
    information = x.T @ (x * (task.w * raw * (1 - raw))[:, None])
    theta, influence = 0.0, np.zeros(n)
    for sign, (a, slope) in zip((1.0, -1.0), arms, strict=True):
        size = float(w @ a)
        mean = float(w @ (a * task.y)) / size
        gradient = x.T @ (w * slope * inside * (task.y - mean)) / size
        own = w * a * (task.y - mean) / size
        influence += sign * (own + score @ linalg.solve(information, gradient, assume_a="pos"))
        theta += sign * mean
    return _Found(theta, influence, {}, overlap, {})


def _sd(x: np.ndarray) -> np.ndarray:
    sd = x.std(axis=0)
    return np.asarray(np.where(sd > 0, sd, 1.0))


def _aipw(task: _Task, fold: np.ndarray, generator: np.random.Generator) -> _Found:
    y, d, x = task.y, task.d, task.x
    given = task.w if task.weighted else None
    outcome = task.learners["outcome"]
    m0, m1 = (cross_fit(outcome, x, y, fold, generator, given, d == a) for a in (0, 1))
    e = cross_fit(task.learners["treatment"], x, d, fold, generator, given)
    e, w, overlap = _bounded(task, e)
    odds = e / np.where(e < 1, 1 - e, 1.0)
    if task.att:
        p = float(np.average(d, weights=w))
        a = d / p
        b = (d - (1 - d) * odds) * (y - m0) / p
        alpha = (d - (1 - d) * odds) / p
        m_alpha = d / p * (1 + odds) / p
    else:
        a = np.ones(len(y))
        alpha = d / e - (1 - d) / (1 - e)
        b = m1 - m0 + alpha * (y - np.where(d == 1, m1, m0))
        m_alpha = 1 / e + 1 / (1 - e)
    size = float(w @ a)
    theta = float(w @ b) / size
    error = (y - np.where(d == 1, m1, m0)) ** 2
    nu = 2 * m_alpha - alpha**2
    if float(w @ nu) <= 0:
        nu = alpha**2
    moments = task.scale(error, nu)
    return _Found(theta, w * (b - theta * a) / size, moments, overlap, {})


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
    under clusters). Over repeated splits the estimate is the median and the squared error
    ``median(se_r**2 + (theta_r - theta)**2)``.

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
    if method not in METHODS or estimand not in ("ate", "att"):
        raise DataError(
            f"Expected method in {METHODS} and estimand 'ate' or 'att', but saw {method!r} and "
            f"{estimand!r}."
        )
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
    index = source.index if source.kind == "memory" else None
    if method not in ("plr", "regression"):
        check(
            rows, [treatment], lambda d: (d != 0) & (d != 1), f"0 or 1 for method {method!r}",
            "Code the treatment as 0/1, or use method 'plr' for a continuous one.", index,
        )  # fmt: skip
    if weights:
        check(rows, [weights], lambda w: w < 0, "weights of at least 0", "Correct them.", index)
    n_clusters = None
    if cluster:
        n_clusters = next(len(c.levels or ()) for c in reader.columns if c.name == cluster)
        check_clusters(n_clusters, cluster, log)
    generators = spawn(rng, repeats) if method in ("plr", "aipw") else [np.random.default_rng(0)]
    defaults = {"outcome": _LINEAR, "treatment": _LOGISTIC if method == "aipw" else _LINEAR}
    learners = learners_of(nuisance, defaults)
    columns = rows.sample(rows.n_obs).columns
    w = np.ones(rows.n_obs) if not weights else np.asarray(columns[weights], dtype=float)
    d = np.asarray(columns[treatment], dtype=float)
    if not np.ptp(d[w > 0]):
        raise IdentificationError(
            f"Expected a treatment that varies, but column {treatment!r} is constant. Give rows of "
            "both treatments."
        )
    design = designs["covariates"]
    fast = method == "plr" and nuisance is None
    task = _Task(
        np.asarray(columns[outcome], dtype=float), d,
        np.empty((rows.n_obs, 0)) if fast else design.encode(columns, rows.n_obs)[1:].T,
        design.terms[1:], w / w.mean(), bool(weights), estimand == "att", learners, clip, trim,
        _interactions(interact, design),
    )  # fmt: skip
    names = (outcome, treatment, cluster, weights)
    results = [_split(method, task, rows, design, names, folds, g, fast) for g in generators]
    codes = None if cluster is None else np.asarray(columns[cluster])
    kinds = [_kinds(found, codes, n_clusters) for found in results]
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
    middle = results[int(np.argsort(thetas[:, 0])[(len(results) - 1) // 2])]
    _judge(middle.overlap, task, treatment, log)
    moments: dict[str, float] = {}
    if middle.moments:
        for name in ("sigma2", "nu2", "outcome_variance"):
            moments[name] = float(np.median([found.moments[name] for found in results]))
        cross = kinds[results.index(middle)][1]["cluster" if kind == "cluster" else "robust"]
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
        call={
            "estimator": "average_effect",
            "options": options,
            "roles": {role: value for role, value in roles.items() if value},
        },
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
    )


def _interactions(interact: Sequence[str], design: Design) -> tuple[str, ...]:
    unknown = [t for t in interact if t not in design.terms[1:]]
    if unknown:
        raise DataError(
            f"Expected interact among the terms {list(design.terms[1:])}, but saw {unknown}."
        )
    return tuple(interact)


def _split(
    method: str, task: _Task, rows: Rows, design: Design, names: tuple[Any, ...], folds: int,
    generator: np.random.Generator, fast: bool,
) -> _Found:  # fmt: skip
    """Estimate once, from one random split where the method needs one."""
    outcome, treatment, cluster, weights = names
    if method in ("difference", "regression"):
        return _regression(task)
    if method == "ipw":
        return _ipw(task, generator)
    split = with_folds(rows, Folds(folds, seed_int(generator), cluster))
    if fast:
        confounder = Columns((treatment,), (treatment,))
        fit = partial_out(
            split, outcome=outcome, confounders=confounder, controls=design, n_folds=folds,
            weights=weights,
        )  # fmt: skip
        left = residuals(split, fit)
        found = _plr(task, left.outcome, left.confounders[0])
    else:
        fold = np.asarray(split.sample(rows.n_obs).columns[FOLD])
        if method == "aipw":
            return _aipw(task, fold, generator)
        w = task.w if task.weighted else None
        y = cross_fit(task.learners["outcome"], task.x, task.y, fold, generator, w)
        d = cross_fit(task.learners["treatment"], task.x, task.d, fold, generator, w)
        found = _plr(task, task.y - y, task.d - d)
    if not found.overlap["r2_treatment"] < 1 - 1e-9:
        raise IdentificationError(
            f"Expected a treatment {treatment!r} that varies beyond the covariates, but they "
            "determine it. Leave out the covariate that does."
        )
    return found


def _kinds(
    found: _Found, codes: np.ndarray | None, n_clusters: int | None
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Standard errors by kind, and covariances of the estimate and S by kind."""
    second = found.moments.get("influence", np.zeros_like(found.influence))
    joint = variances(np.stack([found.influence, second]), codes, n_clusters)
    errors = {kind: math.sqrt(v[0, 0]) for kind, v in joint.items()} | found.std_errors
    return errors, joint


def _judge(overlap: dict[str, Any], task: _Task, treatment: str, log: list[str]) -> None:
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
