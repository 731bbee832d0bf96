"""How an effect differs across rows, through EconML."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import linalg
from sklearn.preprocessing import StandardScaler

from causalrm.core import inference
from causalrm.core.design import encode_new, formula_text, prepare
from causalrm.core.encoding import Design
from causalrm.core.errors import DataError, IdentificationError, check_choice
from causalrm.core.frame import check
from causalrm.core.inference import by_cluster, clustered
from causalrm.core.linear import least_squares
from causalrm.core.random import RNG, resolve, seed_int
from causalrm.core.result import COLUMNS, Assumption, Estimate, Result, Test, call_of
from causalrm.deconfound.few_clusters import Sums, cluster_sums, wild_bootstrap
from causalrm.deconfound.folds import Folds
from causalrm.deconfound.learners import (
    LINEAR,
    LOGISTIC,
    check_clusters,
    learners_of,
    units,
)
from causalrm.deconfound.stages import near_singular, seeded

METHODS = ("linear", "forest", "dr")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class HeterogeneityResult(Result):
    """What `heterogeneity` returns.

    Parameters
    ----------
    method : str
    treatment : str
    term : tuple of str
        "Intercept", the effect where all modifiers are 0, and the modifiers.
    estimates : ndarray of shape (k,)
        Linear projection of the effect on the modifiers.
    covariance : ndarray of shape (k, k)
    means : ndarray of shape (k,)
        Means of the terms, at which the projection is the average effect.
    design : dict
        Of the modifiers.
    n_clusters : int or None
    cluster_sums : tuple of ndarray or None
        What `wild_bootstrap` needs of each cluster, where clusters are few.
    """

    method: str
    treatment: str
    term: tuple[str, ...]
    estimates: np.ndarray
    covariance: np.ndarray
    means: np.ndarray
    design: Mapping[str, Any]
    n_clusters: int | None
    cluster_sums: Sums | None = None

    @property
    def _df(self) -> float | None:
        return None if self.n_clusters is None else self.n_clusters - 1.0

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return the average effect, and how it changes with each modifier."""
        weights = np.vstack([self.means, np.eye(len(self.term))])
        values = weights @ self.estimates
        errors = inference.delta_std_error(weights, self.covariance)
        names = [self.treatment, *self.term]
        rows = [
            Estimate.wald(v, s, level, name, self._df).to_frame()
            for v, s, name in zip(values, errors, names, strict=True)
        ]
        frame = pd.concat(rows, ignore_index=True)[COLUMNS]
        frame.insert(0, "parameter", ["average effect", *["effect"] * len(self.term)])
        return frame

    def wild_bootstrap(self, level: float = 0.95, draws: int = 9999, rng: RNG = 0) -> pd.DataFrame:
        """Tests and intervals that hold with few clusters, for the rows of `to_frame`."""
        sums, lift = self.cluster_sums, np.eye(len(self.term))
        found = [wild_bootstrap(self.term, self.estimates, sums, level, draws, rng)]
        lift[0] = self.means  # the average effect takes the place of the intercept
        if sums is not None:
            influence, slopes, covariance = sums
            sums = (
                influence @ lift.T, lift @ slopes @ linalg.inv(lift), lift @ covariance @ lift.T
            )  # fmt: skip
        average = np.array([self.means @ self.estimates])
        found.insert(0, wild_bootstrap((self.treatment,), average, sums, level, draws, rng))
        frame = pd.concat(found, ignore_index=True)
        frame.insert(0, "parameter", ["average effect", *["effect"] * len(self.term)])
        return frame

    def test(self) -> Test:
        """Test that the effect changes with none of the modifiers, by the linear projection."""
        b, v, df = self.estimates[1:], self.covariance[1:, 1:], self._df
        statistic, q, p = inference.wald(b, v, df)
        return Test("heterogeneity", statistic if df is None else statistic / q, q, p, df)

    def predict(self, data: Any, level: float = 0.95) -> pd.DataFrame:
        """Effect in every row of `data`.

        Returns
        -------
        pandas.DataFrame
            With the index of `data` and `estimate, std_error, conf_low, conf_high`.

        Raises
        ------
        DataError
            For a forest that was read from JSON.
        """
        design = Design.from_dict(self.design)
        source, rows = encode_new(data, [design])
        x = design.slopes(rows.columns, rows.n_obs)
        model = getattr(self, "_model", None)
        if self.method == "forest":
            if model is None:
                raise DataError(
                    "Expected the forest itself for a prediction, but a result read from JSON has "
                    "only its tables. Keep the result by pickle, or fit again."
                )
            found = model.effect_inference(x.T)
            value, error = np.ravel(found.point_estimate), np.ravel(found.stderr)
        else:
            x = np.concatenate([np.ones((1, rows.n_obs)), x])
            value = self.estimates @ x
            error = inference.delta_std_error(x.T, self.covariance)
        z = inference.quantile(level, None if self.method == "forest" else self._df)
        return pd.DataFrame(
            {
                "estimate": value,
                "std_error": error,
                "conf_low": value - z * error,
                "conf_high": value + z * error,
            },
            index=source.index,
        )

    def _fit_lines(self, level: float) -> list[tuple[str, str]]:
        return [("Method", self.method), ("Test", str(self.test()))]


def heterogeneity(
    data: Any,
    *,
    outcome: str,
    treatment: str,
    modifiers: str | Sequence[str],
    covariates: str | Sequence[str] = (),
    method: str = "linear",
    nuisance: Any = None,
    folds: int = 5,
    cluster: str | None = None,
    n_estimators: int = 500,
    rng: RNG = 0,
) -> HeterogeneityResult:
    """How the effect of a treatment changes with features of a row.

    Parameters
    ----------
    data : data frame
    outcome, treatment : str
        Numeric columns; the treatment is 0/1 for "dr".
    modifiers : str or list of str
        Formula or columns with which the effect may change; they are held fixed too.
    covariates : str or list of str
        What else is held fixed.
    method : {"linear", "forest", "dr"}
        EconML's `LinearDML`, an effect linear in the modifiers; `CausalForestDML`, any effect;
        `LinearDRLearner`, a `DRLearner` whose doubly robust pseudo-outcomes are regressed on the
        modifiers.
    nuisance : scikit-learn estimator or mapping, optional
        ``{"outcome": ..., "treatment": ...}``; linear, and logistic for a 0/1 treatment, by
        default. They are given to EconML with seeds of their own.
    folds : int
    cluster : str, optional
        Its rows stay in one fold, and the projection's covariance is clustered; not for "dr". With
        fewer than 30 clusters read ``wild_bootstrap()``; it takes the nuisances as they are, and
        with about ten its intervals are still too short.
    n_estimators : int
        Trees of the forest, a multiple of 4.
    rng : None, int, SeedSequence or Generator

    Returns
    -------
    HeterogeneityResult
        ``to_frame()`` holds the linear projection of the effect, for a forest too; ``predict()``
        the effect of every row; ``test()`` a test that there is no difference.

    Raises
    ------
    DataError, IdentificationError, MissingDependencyError

    References
    ----------
    Athey, Tibshirani, Wager (2019), Generalized random forests, Annals of Statistics 47(2),
    1148-1178, doi 10.1214/18-AOS1709. Semenova, Chernozhukov (2021), Debiased machine learning of
    conditional average treatment effects, Econometrics Journal 24(2), 264-289,
    doi 10.1093/ectj/utaa027. Kennedy (2023), Towards optimal doubly robust estimation of
    heterogeneous causal effects, Electronic Journal of Statistics 17(2), 3008-3049,
    doi 10.1214/23-EJS2157.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from causalrm.deconfound.heterogeneity import heterogeneity
    >>> rng = np.random.default_rng(0)
    >>> df = pd.DataFrame(rng.normal(size=(2000, 2)), columns=["quality", "hour"])
    >>> df["shown_first"] = (df["hour"] + rng.logistic(size=2000) > 0).astype(int)
    >>> df["clicks"] = df["shown_first"] * (1 + 0.5 * df["quality"]) + df["hour"]
    >>> df["clicks"] += rng.normal(size=2000)
    >>> found = heterogeneity(
    ...     df, outcome="clicks", treatment="shown_first", modifiers=["quality"],
    ...     covariates=["hour"],
    ... )
    >>> found.to_frame().round(2)[["parameter", "term", "estimate", "std_error"]]
            parameter         term  estimate  std_error
    0  average effect  shown_first      0.90       0.05
    1          effect    Intercept      0.91       0.05
    2          effect      quality      0.52       0.05
    """
    check_choice("method", method, METHODS)
    if cluster and method == "dr":
        raise DataError(
            "Expected no cluster with method 'dr', for which EconML has no clustered errors, but "
            f"saw cluster={cluster!r}. Use 'linear', or leave it out."
        )
    log: list[str] = []
    generator, entropy = resolve(rng)
    generator = np.random.default_rng(entropy)
    texts = {
        "modifiers": formula_text(modifiers, "modifiers"),
        "covariates": formula_text(covariates, "covariates"),
    }
    source, rows, designs, reader = prepare(
        data, texts, numbers=[outcome, treatment], categories=[cluster] if cluster else []
    )
    columns, n = rows.collect(), rows.n_obs
    d, y = (np.asarray(columns[c], dtype=float) for c in (treatment, outcome))
    binary = bool(np.isin(d, (0, 1)).all())
    if method == "dr":
        check(
            rows, [treatment], lambda d: (d != 0) & (d != 1), "0 or 1 for method 'dr'",
            "Code the treatment as 0/1, or use 'linear'.", source.index,
        )  # fmt: skip
    if not np.ptp(d) or not designs["modifiers"].slope_terms:
        raise IdentificationError(
            f"Expected a treatment that varies and at least one modifier, but saw {treatment!r} "
            f"with {len(np.unique(d))} values and modifiers={modifiers!r}."
        )
    n_clusters = codes = None
    if cluster:
        n_clusters = check_clusters(reader, cluster, log)
        codes = np.asarray(columns[cluster])
    modifier = designs["modifiers"]
    x, w = (designs[role].slopes(columns, n).T for role in ("modifiers", "covariates"))
    defaults = {"outcome": LINEAR, "treatment": LOGISTIC if binary else LINEAR}
    learners = learners_of(nuisance, defaults)
    unit = np.arange(n) if codes is None else codes
    fold = Folds(folds, seed_int(generator), "unit").codes({"unit": unit}, 0)
    model = _model(method, learners, fold, binary, n_estimators, generator)
    try:
        with near_singular(log), warnings.catch_warnings():
            warnings.filterwarnings("error", "Co-variance matrix is underdetermined")
            model.fit(y, d, X=x, W=w if w.shape[1] else None, cache_values=True)
    except (UserWarning, AttributeError) as error:  # econml's, for folds and for its last stage
        if not re.search("crossfit folds|Co-variance matrix", str(error)):
            raise
        raise IdentificationError(
            f"Expected a treatment and modifiers that vary in every fold, but econml says: {error} "
            "Remove modifiers that are constant or determine one another, or take fewer folds."
        ) from error
    one = np.column_stack([np.ones(n), x])
    sums = None
    if method == "dr":
        estimates, covariance = _of_learner(model, x)
    else:
        estimates, covariance, sums = _projection(
            model, one, ["Intercept", *modifier.slope_terms], codes, n_clusters
        )
    diagnostics: dict[str, Any] = {}
    if method == "forest":
        shares = np.ravel(model.feature_importances_).tolist()
        diagnostics["importance"] = dict(zip(modifier.slope_terms, shares, strict=True))
    roles = {"outcome": outcome, "treatment": treatment, **texts, "cluster": cluster}
    options = {
        "method": method, "folds": folds, "n_estimators": n_estimators, "rng": entropy,
        "nuisance": None if nuisance is None else str(nuisance),
    }  # fmt: skip
    result = HeterogeneityResult(
        call=call_of("heterogeneity", options, roles),
        n_obs=n,
        entropy=entropy,
        assumptions=_assumptions(outcome, treatment, method),
        diagnostics=diagnostics,
        warnings=tuple(log),
        method=method,
        treatment=treatment,
        term=("Intercept", *modifier.slope_terms),
        estimates=estimates,
        covariance=covariance,
        means=one.mean(axis=0),
        design=designs["modifiers"].to_dict(),
        n_clusters=n_clusters,
        cluster_sums=sums,
    )
    if method == "forest":  # not a field: JSON cannot describe it
        object.__setattr__(result, "_model", model)
    return result


def _model(
    method: str, learners: Mapping[str, Any], fold: np.ndarray, binary: bool, n_estimators: int,
    generator: np.random.Generator,
) -> Any:  # fmt: skip
    """An unfitted EconML estimator with our folds and seeds."""
    fresh = {part: seeded(learner, generator) for part, learner in learners.items()}
    rows = [(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in np.unique(fold)]
    shared: dict[str, Any] = {"cv": rows, "random_state": seed_int(generator)}
    if method != "forest":  # or modifiers in large units, or about a large mean, are lost
        shared["featurizer"] = StandardScaler()
    if method == "dr":
        from econml.dr import LinearDRLearner

        return LinearDRLearner(
            model_regression=fresh["outcome"], model_propensity=fresh["treatment"], **shared
        )
    from econml.dml import CausalForestDML, LinearDML

    shared |= {"model_y": fresh["outcome"], "model_t": fresh["treatment"]}
    shared["discrete_treatment"] = binary
    if method == "linear":
        return LinearDML(**shared)
    return CausalForestDML(n_estimators=n_estimators, n_jobs=1, **shared)


def _projection(
    model: Any,
    one: np.ndarray,
    names: Sequence[str],
    codes: np.ndarray | None,
    n_clusters: int | None,
) -> tuple[np.ndarray, np.ndarray, Sums | None]:
    """Least squares of the residual outcome on residual treatment times the modifiers."""
    y, d = (np.ravel(r) for r in model.residuals_[:2])
    to_raw, x = _about_means(one[:, 1:])
    u = np.column_stack([one[:, 0], x]) * d[:, None]
    inverse = least_squares(u.T @ u, np.eye(u.shape[1]), names)
    b = inverse @ (u.T @ y)
    influence = to_raw @ inverse @ (u * (y - u @ b)[:, None]).T
    n, k = one.shape
    if codes is None or n_clusters is None:
        return to_raw @ b, influence @ influence.T * n / (n - k), None
    slopes = ((u @ (to_raw @ inverse).T).T[:, None] * (one * d[:, None]).T).reshape(k * k, n)
    by = by_cluster(codes, np.concatenate([influence, slopes]), n_clusters)
    bread = to_raw @ inverse @ to_raw.T
    return to_raw @ b, clustered(by[:, :k]), cluster_sums(by, bread)


def _about_means(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns about their means in units of their spread, and what takes coefficients back."""
    mean, sd = units(x)
    to_raw = np.diag(np.concatenate([[1.0], 1 / sd]))
    to_raw[0, 1:] = -mean / sd
    return to_raw, (x - mean) / sd


def _of_learner(model: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients, and the covariance that standard errors of enough predictions determine."""
    k = x.shape[1]
    unit = np.eye(k)
    pairs = [unit[i] + unit[j] for i in range(k) for j in range(i)]
    t = np.stack([np.zeros(k), *unit, *-unit, *pairs])
    mean, sd = units(x)
    found = model.effect_inference(mean + sd * t)
    value, error = np.ravel(found.point_estimate), np.ravel(found.stderr)
    u = np.column_stack([np.ones(len(t)), t])
    i, j = np.tril_indices(k + 1)
    products = u[:, i] * u[:, j] * np.where(i == j, 1.0, 2.0)
    scaled = np.zeros((k + 1, k + 1))
    scaled[i, j] = scaled[j, i] = np.linalg.lstsq(products, error**2, rcond=None)[0]
    to_raw, _ = _about_means(x)
    b = to_raw @ np.linalg.lstsq(u, value, rcond=None)[0]
    return b, to_raw @ scaled @ to_raw.T


def _assumptions(outcome: str, treatment: str, method: str) -> tuple[Assumption, ...]:
    return (
        Assumption(
            "no unobserved confounding",
            f"given modifiers and covariates, {treatment} is as good as random for {outcome}",
            "not testable; see the sensitivity of average_effect",
        ),
        Assumption(
            "overlap",
            f"{treatment} varies at all values of the modifiers",
            "see the diagnostics of average_effect",
        ),
        Assumption(
            "shape of the effect",
            "the effect is linear in the modifiers" if method != "forest" else
            "the forest is fine enough; the linear projection needs no shape",
            "compare 'linear' with 'forest'",
        ),
    )  # fmt: skip
