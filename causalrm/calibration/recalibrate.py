"""Recalibrators: scores in, calibrated probabilities out, in scikit-learn's API."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from sklearn.base import BaseEstimator, clone

from causalrm.calibration import _kernels as k
from causalrm.calibration import _kernels_fit as fit
from causalrm.calibration import _kernels_rank as rank
from causalrm.calibration.scored import EPS, check_labels, check_scores, check_weights
from causalrm.core.errors import DataError, IdentificationError
from causalrm.core.estimator import NotFittedError
from causalrm.core.random import RNG, resolve

Floats = NDArray[np.float64]

_WHY = {
    "separated": "the outcomes are all alike, or the score separates them",
    "singular": "the score has too few distinct values",
}


def _check_new(p: ArrayLike) -> Floats:
    score = np.asarray(p, dtype=np.float64)
    if score.ndim == 2 and score.shape[1] == 1:
        score = score[:, 0]
    if score.ndim != 1:
        raise DataError(f"p must be one-dimensional; got shape {score.shape}.")
    if not ((score >= 0.0) & (score <= 1.0)).all():
        raise DataError("p must hold probabilities in [0, 1], complete.")
    return score


class Recalibrator(BaseEstimator):  # type: ignore[misc]
    """What all recalibrators share; use one of its subclasses.

    Methods `fit(p, y, sample_weight=None)`, `predict(p)` (the recalibrated probability) and
    `predict_proba(p)` (both classes).
    """

    def fit(self, p: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Learn the map from scores to probabilities.

        Parameters
        ----------
        p : array-like of shape (n,)
            Scores in [0, 1].
        y : array-like of shape (n,)
            Outcomes, 0/1 or bool.
        sample_weight : array-like of shape (n,), optional

        Raises
        ------
        DataError
            When scores, outcomes or weights are incomplete or out of range.
        IdentificationError
            When the rows do not determine the map.
        """
        outcome, score = check_scores(y, _check_new(p))
        w = check_weights(sample_weight, score.size, "sample_weight")
        self.classes_ = np.array([0, 1])
        self.n_features_in_ = 1
        self._learn(outcome, score, w)
        return self

    def predict(self, p: ArrayLike) -> Floats:
        """Return the recalibrated probability of outcome 1, shape (n,)."""
        return self._map(self._scores(p))

    def predict_proba(self, p: ArrayLike) -> Floats:
        """Return the probabilities of both outcomes, shape (n, 2)."""
        one = self.predict(p)
        return np.column_stack([1.0 - one, one])

    def __sklearn_tags__(self) -> Any:
        """Scores are one column."""
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.target_tags.required = True
        return tags

    @abstractmethod
    def _learn(self, y: Floats, p: Floats, w: Floats | None) -> None: ...

    @abstractmethod
    def _map(self, p: Floats) -> Floats: ...

    def _scores(self, p: ArrayLike) -> Floats:
        """Check new scores, and that there is a map for them."""
        if not hasattr(self, "classes_"):
            raise NotFittedError(f"This {type(self).__name__} is not fitted; call fit first.")
        return _check_new(p)

    def _require(self, status: str) -> None:
        if status != "ok":
            raise IdentificationError(
                f"{type(self).__name__} cannot be fitted: {_WHY[status]}. Use more rows, or "
                "another recalibrator such as HistogramBinning."
            )


def _compact(y: Floats, p: Floats, w: Floats | None) -> tuple[Floats, Floats, Floats]:
    # Verbalised scores have few distinct values: then these are fitted in place of the rows.
    head = p[:4096]
    if p.size > head.size and np.unique(head).size < head.size // 8:
        t = rank.ties(y, p, w)
        return t.value, t.negative, t.positive
    return (p, 1.0 - y, y) if w is None else (p, w * (1.0 - y), w * y)


class TemperatureScaling(Recalibrator):
    """logit q = logit p / temperature.

    Parameters
    ----------
    eps : float
        Scores are clipped to [eps, 1 - eps] for their logits.

    Attributes
    ----------
    temperature_ : float
    n_clipped_ : int

    References
    ----------
    Guo, C., Pleiss, G., Sun, Y., and Weinberger, K. Q. (2017). On calibration of modern neural
    networks. ICML. arXiv:1706.04599.

    Examples
    --------
    >>> recalibrator = TemperatureScaling().fit([0.1, 0.2, 0.8, 0.9, 0.9], [0, 1, 1, 0, 1])
    >>> round(recalibrator.temperature_, 2)
    4.08
    """

    def __init__(self, eps: float = EPS):
        self.eps = eps

    def _learn(self, y: Floats, p: Floats, w: Floats | None) -> None:
        value, negative, positive = _compact(y, p, w)
        z, self.n_clipped_ = fit.logit(value, self.eps)
        found = fit.logistic((z,), negative, positive, inference=False)
        self._require(found.status)
        self.slope_ = float(found.coef[0])
        self.temperature_ = 1.0 / self.slope_ if self.slope_ else np.inf

    def _map(self, p: Floats) -> Floats:
        return np.asarray(expit(self.slope_ * fit.logit(p, self.eps)[0]))


class PlattScaling(Recalibrator):
    """logit q = intercept + slope * logit p.

    Parameters
    ----------
    eps : float
        Scores are clipped to [eps, 1 - eps] for their logits.

    Attributes
    ----------
    intercept_, slope_ : float
    n_clipped_ : int

    References
    ----------
    Platt, J. (1999). Probabilistic outputs for support vector machines. In Advances in Large
    Margin Classifiers, MIT Press, 61-74; here on the logit of the score.

    Examples
    --------
    >>> p, y = [0.1, 0.2, 0.3, 0.8, 0.9, 0.9], [0, 1, 0, 1, 0, 1]
    >>> PlattScaling().fit(p, y).predict([0.5]).round(3)
    array([0.481])
    """

    def __init__(self, eps: float = EPS):
        self.eps = eps

    def _learn(self, y: Floats, p: Floats, w: Floats | None) -> None:
        value, negative, positive = _compact(y, p, w)
        z, self.n_clipped_ = fit.logit(value, self.eps)
        found = fit.logistic((None, z), negative, positive, inference=False)
        self._require(found.status)
        self.intercept_, self.slope_ = (float(c) for c in found.coef)

    def _map(self, p: Floats) -> Floats:
        return np.asarray(expit(self.intercept_ + self.slope_ * fit.logit(p, self.eps)[0]))


class BetaCalibration(Recalibrator):
    """logit q = c + a log p - b log(1 - p), with a and b not negative.

    Parameters
    ----------
    eps : float
        Scores are clipped to [eps, 1 - eps] for their logarithms.

    Attributes
    ----------
    a_, b_, c_ : float
    n_clipped_ : int

    References
    ----------
    Kull, M., Silva Filho, T., and Flach, P. (2017). Beta calibration. AISTATS, PMLR 54.
    """

    def __init__(self, eps: float = EPS):
        self.eps = eps

    def _learn(self, y: Floats, p: Floats, w: Floats | None) -> None:
        value, negative, positive = _compact(y, p, w)
        self.n_clipped_ = fit.beta_columns(p, self.eps)[2]
        coef, status = fit.beta_fit(value, negative, positive, self.eps)
        self._require(status)
        self.a_, self.b_, self.c_ = (float(c) for c in coef)

    def _map(self, p: Floats) -> Floats:
        first, second, _ = fit.beta_columns(p, self.eps)
        return np.asarray(expit(self.c_ + self.a_ * first + self.b_ * second))


class IsotonicCalibration(Recalibrator):
    """Isotonic regression, joined by straight lines between its blocks.

    Attributes
    ----------
    x_, y_ : ndarray
        Knots of the map; it is constant outside them.

    References
    ----------
    Zadrozny, B., and Elkan, C. (2002). Transforming classifier scores into accurate multiclass
    probability estimates. KDD. doi:10.1145/775047.775151.

    Examples
    --------
    >>> p, y = [0.1, 0.2, 0.3, 0.6, 0.8], [0, 1, 0, 1, 1]
    >>> IsotonicCalibration().fit(p, y).predict([0.05, 0.25, 0.45]).round(3)
    array([0.  , 0.5 , 0.75])
    """

    def _learn(self, y: Floats, p: Floats, w: Floats | None) -> None:
        t = rank.ties(y, p, w)
        iso = rank.isotonic(t.weight, t.positive)
        self.x_, self.y_ = fit.isotonic_knots(t.value, iso.start, iso.value)

    def _map(self, p: Floats) -> Floats:
        return np.asarray(np.interp(p, self.x_, self.y_))


class HistogramBinning(Recalibrator):
    """Share of outcomes in the score's bin; a bin without rows leaves its scores as they are.

    Parameters
    ----------
    bins : int
    strategy : {"quantile", "width"}
        Bins of equal weight or of equal width.

    Attributes
    ----------
    edges_, rates_ : ndarray
        The rate of an empty bin is NaN.
    n_empty_ : int

    References
    ----------
    Zadrozny, B., and Elkan, C. (2001). Obtaining calibrated probability estimates from decision
    trees and naive Bayesian classifiers. ICML.
    """

    def __init__(self, bins: int = 10, strategy: str = "quantile"):
        self.bins = bins
        self.strategy = strategy

    def _learn(self, y: Floats, p: Floats, w: Floats | None) -> None:
        if self.strategy not in ("quantile", "width") or self.bins < 1:
            raise DataError(
                "HistogramBinning needs strategy 'quantile' or 'width' and bins of at least 1; "
                f"got {self.strategy!r} and {self.bins!r}."
            )
        if self.strategy == "width":
            self.edges_ = k.equal_edges(self.bins)
        else:
            order = np.argsort(p)
            self.edges_ = k.quantile_edges(p[order], self.bins, None if w is None else w[order])
        b = k.bins(y, p, self.edges_, w)
        self.rates_ = np.divide(b.y, b.weight, out=np.full_like(b.y, np.nan), where=b.weight > 0)
        self.n_empty_ = int(np.count_nonzero(b.weight == 0.0))

    def _map(self, p: Floats) -> Floats:
        rate = self.rates_[k.bin_index(p, self.edges_)]
        return np.asarray(np.where(np.isnan(rate), p, rate))


class VennAbers(Recalibrator):
    """Inductive Venn-Abers predictor: two isotonic fits per score, one with either outcome.

    `predict` merges the two probabilities as p1 / (1 - p0 + p1), which is optimal for log loss;
    `predict_interval` returns them.

    References
    ----------
    Vovk, V., Petej, I., and Fedorova, V. (2015). Large-scale probabilistic predictors with and
    without guarantees of validity. NeurIPS. arXiv:1511.00213.

    Examples
    --------
    >>> p, y = [0.1, 0.2, 0.3, 0.6, 0.8], [0, 1, 0, 1, 1]
    >>> low, high = VennAbers().fit(p, y).predict_interval([0.3, 0.7])
    >>> low.round(2), high.round(2)
    (array([0.33, 0.5 ]), array([0.67, 1.  ]))
    """

    def _learn(self, y: Floats, p: Floats, w: Floats | None) -> None:
        if w is not None and not (w == w[0]).all():
            raise DataError(
                "VennAbers takes no weights: its guarantee is for exchangeable rows. Repeat rows "
                "or use IsotonicCalibration."
            )
        t = rank.ties(y, p)
        self._fitted = fit.venn_abers(t.value, t.negative, t.positive)

    def _map(self, p: Floats) -> Floats:
        low, high = fit.venn_abers_predict(self._fitted, p)
        return np.asarray(high / (1.0 - low + high))

    def predict_interval(self, p: ArrayLike) -> tuple[Floats, Floats]:
        """Return the lower and the upper probability, each of shape (n,)."""
        score = self._scores(p)
        return fit.venn_abers_predict(self._fitted, score)


def crossfit(
    recalibrator: Recalibrator,
    p: ArrayLike,
    y: ArrayLike,
    *,
    folds: int = 5,
    sample_weight: ArrayLike | None = None,
    cluster: ArrayLike | None = None,
    rng: RNG = 0,
) -> Floats:
    """Recalibrate every row by a map that was learnt without it.

    Parameters
    ----------
    recalibrator : Recalibrator
        Cloned for each fold, itself left unfitted.
    p, y : array-like of shape (n,)
        Scores and outcomes.
    folds : int
    sample_weight : array-like of shape (n,), optional
    cluster : array-like of shape (n,), optional
        Rows of one label stay in one fold.
    rng : int, SeedSequence, Generator or None
        Of the random split.

    Returns
    -------
    ndarray of shape (n,)

    Raises
    ------
    DataError
        When there are fewer rows or clusters than folds.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> p = rng.uniform(size=400)  # simulated scores
    >>> y = rng.uniform(size=400) < p**2
    >>> q = crossfit(PlattScaling(), p, y)
    >>> bool(np.mean((q - y) ** 2) < np.mean((p - y) ** 2))
    True
    """
    outcome, score = check_scores(y, p)
    w = check_weights(sample_weight, score.size, "sample_weight")
    units = np.arange(score.size)
    if cluster is not None:
        units = check_labels(cluster, score.size, "cluster")[0]
    size = int(units.max()) + 1
    if not 2 <= folds <= size:
        raise DataError(f"folds must lie between 2 and {size}, the independent units; got {folds}.")
    fold = (resolve(rng)[0].permutation(size) % folds)[units]
    out = np.empty(score.size)
    for f in range(folds):
        test = fold == f
        learner = clone(recalibrator)
        learner.fit(score[~test], outcome[~test], None if w is None else w[~test])
        out[test] = learner.predict(score[test])
    return out
