"""What estimators with nuisance learners share: cross-fitting, variances, single numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from sklearn.base import is_classifier, is_regressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from causalrm.core import inference
from causalrm.core.errors import DataError, IdentificationError
from causalrm.core.frame import Reader
from causalrm.deconfound.few_clusters import BOOTSTRAP
from causalrm.deconfound.stages import fit_learner, seeded

# Standardised: scikit-learn takes directions for dependent that are 1e-6 of the largest, and a
# column in large units would take all others away.
LINEAR = make_pipeline(StandardScaler(), LinearRegression())
LOGISTIC = make_pipeline(
    StandardScaler(),
    LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10, max_iter=200),
)


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
    if x.shape[1] == 0 or len(values) < 2:
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
        out["cluster"] = inference.clustered(inference.by_cluster(cluster, influence, n_clusters))
    return out


def units(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and spreads of columns (n, k); solve in these, or large columns take small ones away.

    The spread of a constant column is 1.
    """
    spread = x.std(axis=0)
    return x.mean(axis=0), np.where(spread > 0, spread, 1.0)


def ess(w: np.ndarray) -> float:
    """Effective sample size of weights."""
    return float(w.sum() ** 2 / (w**2).sum()) if w.any() else 0.0


def check_clusters(reader: Reader, name: str, log: list[str]) -> int:
    """Number of clusters; refuses one, and warns of few."""
    n_clusters = len(reader.levels[name])
    if n_clusters < 2:
        raise IdentificationError(
            f"Expected at least two clusters in column {name!r}, but saw {n_clusters}. Leave "
            "cluster out, or take a finer column."
        )
    inference.warn_of_few(n_clusters, log, unit=f"clusters in column {name!r}", remedy=BOOTSTRAP)
    return n_clusters


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
