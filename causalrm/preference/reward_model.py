"""Reward models on features or embeddings, learnt from comparisons of two answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from causalrm.core.errors import (
    CausalRMWarning,
    DataError,
    IdentificationError,
    IdentificationWarning,
    check_choice,
    warn,
)
from causalrm.core.estimator import Estimator
from causalrm.core.random import RNG, resolve
from causalrm.core.result import Assumption, LikelihoodResult
from causalrm.preference import _network
from causalrm.preference.differences import LOSSES, Matrix, fit_differences, reduced
from causalrm.preference.features import (
    dense,
    features,
    features_of_pairs,
    labels,
    lengths,
    numbers,
)

if TYPE_CHECKING:
    from causalrm.preference.plots import RewardPlots

_NEEDS_STRENGTH = ("margin", "scaled")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RewardResult(LikelihoodResult):
    """What `PreferenceRewardModel.fit` found; coefficients have the parameter "reward".

    Parameters
    ----------
    loss : str
    features : tuple of str
    temperature, temperature_std_error : float
        Score differences are divided by it for probabilities; the standard error is NaN where
        it was not estimated.
    network : tuple of ndarray
        Centre, scale and layers of a network; empty for a linear head.
    """

    loss: str
    features: tuple[str, ...]
    temperature: float = 1.0
    temperature_std_error: float = math.nan
    network: tuple[np.ndarray, ...] = ()

    def _covariance(self, kind: str | None = None) -> np.ndarray:
        if (kind or self.covariance) == "none":  # NaN throughout, and no memory
            return np.broadcast_to(np.nan, (len(self.estimates), len(self.estimates)))
        return super()._covariance(kind)

    @property
    def plot(self) -> RewardPlots:
        """Plots of the fit: ``plot()`` draws the coefficients."""
        from causalrm.preference.plots import RewardPlots

        return RewardPlots(self)

    def rewards(self, x: Matrix) -> np.ndarray:
        """Rewards of rows of features, shape (n,), up to an additive constant."""
        if self.network:
            return _network.apply(self.network, dense(x))
        return np.asarray(x @ self.estimates)

    def _fit_lines(self, level: float) -> list[tuple[str, str]]:
        found = self.diagnostics
        lines = [] if self.network else super()._fit_lines(level)
        if self.covariance == "none" and lines:
            lines[-1] = ("Covariance", "not kept: too many features")
        temperature = f"{self.temperature:.4g}"
        if not math.isnan(self.temperature_std_error):
            temperature += f" (std. error {self.temperature_std_error:.2g})"
        return [
            *lines,
            ("Pairs", f"{found['n_ordered']:,} ordered, {found['n_ties']:,} ties"),
            ("Order reproduced", f"{found['accuracy']:.1%} of the ordered pairs of the fit"),
            ("Temperature", temperature),
        ]


class PreferenceRewardModel(Estimator):
    r"""Reward model on features of answers, learnt from comparisons.

    The score of an answer with features x is :math:`r(x) = x'\beta`, or a small network, and
    :math:`D = r(x_a) - r(x_b)` is the score difference of a pair. A reward has no intercept: only
    differences are identified.

    Parameters
    ----------
    loss : {"bt", "margin", "scaled", "regression"}, default "bt"
        With outcome y, strength m of the preference and the logistic function s, the loss of a
        pair with y = 1 is ``-log s(D)`` ("bt"), ``-log s(D - m)`` ("margin"), ``-m log s(D)``
        ("scaled"); the sides change places where y = 0, and values between are averages. A tie
        (y = 0.5) has the loss ``-(log s(D) + log s(-D)) / 2`` in all three. "regression" is
        least squares of D on (2 y - 1) m.
    penalty : float, array of shape (p,), "firth" or None, default None
        Ridge ``penalty / 2 * beta**2`` on the scale of the summed log-likelihood. "firth" is half
        the log determinant of the information (Jeffreys' prior), finite where outcomes are
        separated, for linear heads with a few hundred features at most.
    tie_weight : float, default 1.0
        Weight of ties in the loss; 0 leaves them out.
    head : {"linear", "mlp"}, default "linear"
        "mlp" is a network with rectified hidden layers, trained by torch (extra ``torch``).
    hidden : sequence of int, default (64,)
    epochs, batch_size : int, default 200 and 256
    learning_rate : float, default 0.003
        These four are for "mlp".
    covariance : {"auto", "model", "robust", "cluster"}, default "auto"
        "auto" is "cluster" when `cluster` is given to `fit`, else "robust": with ties the loss is
        no likelihood, and "model" standard errors are too wide. CR1 for clusters.
    rng : int, SeedSequence, Generator or None, default 0
        Of a network's start and batches.

    Attributes
    ----------
    result_ : RewardResult
        Coefficients with covariances, counts and diagnostics. Above 2,000 penalised features
        no covariance is kept.

    See Also
    --------
    causalrm.preference.controlled_win_rate : One model against a baseline, given length or style.

    References
    ----------
    Wang, Z. et al. (2024). HelpSteer2-Preference: complementing ratings with preferences.
    arXiv:2410.01257.

    Firth, D. (1993). Bias reduction of maximum likelihood estimates. Biometrika 80(1), 27-38.
    doi:10.1093/biomet/80.1.27

    Examples
    --------
    >>> import numpy as np
    >>> import causalrm as crm
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.normal(size=(2, 400, 2))  # simulated features
    >>> outcome = rng.uniform(size=400) < 1 / (1 + np.exp(-(a - b) @ [1.0, -0.5]))
    >>> model = crm.PreferenceRewardModel().fit(a, b, outcome, feature_names=["fact", "length"])
    >>> model.to_frame().round(2)[["term", "estimate", "std_error"]]
         term  estimate  std_error
    0    fact      0.88       0.12
    1  length     -0.49       0.10
    """

    result_: RewardResult

    def __init__(
        self,
        loss: str = "bt",
        penalty: float | ArrayLike | str | None = None,
        tie_weight: float = 1.0,
        *,
        head: str = "linear",
        hidden: Sequence[int] = (64,),
        epochs: int = 200,
        batch_size: int = 256,
        learning_rate: float = 0.003,
        covariance: str = "auto",
        rng: RNG = 0,
    ):
        self.loss = loss
        self.penalty = penalty
        self.tie_weight = tie_weight
        self.head = head
        self.hidden = hidden
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.covariance = covariance
        self.rng = rng

    def fit(
        self,
        X_a: Any,
        X_b: Any,
        outcome: ArrayLike,
        strength: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        cluster: ArrayLike | None = None,
        feature_names: Sequence[str] | None = None,
    ) -> Self:
        """Fit by minimising the loss over pairs.

        Parameters
        ----------
        X_a, X_b : array, sparse array or numeric data frame of shape (n, p)
            Features of the two answers of each pair.
        outcome : array-like of shape (n,)
            In [0, 1]: 1 where a is better, 0 where b is, 0.5 for a tie.
        strength : array-like of shape (n,), optional
            Strength of the preference, at least 0, needed by "margin" and "scaled"; not used on
            ties.
        weights : array-like of shape (n,), optional
            Multiply a pair's loss: a pair of weight 2 counts as two. Standard errors take them
            as sampling weights, except those of kind "model".
        cluster : array-like of shape (n,), optional
            Labels of clusters of dependent pairs, such as the query.
        feature_names : sequence of str, optional
            Names of the columns of arrays; a frame has its own.

        Returns
        -------
        PreferenceRewardModel
            Itself, with `result_`.

        Raises
        ------
        DataError
            When features, outcomes, strengths or weights are incomplete, out of range or of
            different lengths.
        IdentificationError
            When the differences of features are dependent, or separate the outcomes, and there
            is no penalty.
        MissingDependencyError
            When a network is asked for and torch is not installed.
        """
        self._check_options()
        log: list[str] = []
        x_a, x_b, names = features_of_pairs(X_a, X_b, feature_names)
        n = len(lengths(x_a))
        y = numbers(outcome, "outcome", n, 0.0, 1.0)
        m = None if strength is None else numbers(strength, "strength", n, 0.0)
        if m is None and self.loss in _NEEDS_STRENGTH:
            raise DataError(f"Expected strength= in fit for loss={self.loss!r}, but saw none.")
        if m is not None and self.loss == "bt":
            raise DataError(
                'Expected no strength for loss="bt", which does not use it. Leave it out, or take '
                'loss="margin", "scaled" or "regression".'
            )
        w = None if weights is None else numbers(weights, "weights", n, 0.0)
        codes = None if cluster is None else labels(cluster, n)
        used = self.covariance if self.covariance != "auto" else ("robust", "cluster")[
            codes is not None
        ]  # fmt: skip
        if used == "cluster" and codes is None:
            raise DataError("Expected cluster= in fit for covariance='cluster', but saw none.")
        d = x_a - x_b
        tie = y == 0.5
        if tie.all():
            warn(
                f"All {n} pairs are ties: the coefficients are zero, and so are their standard "
                "errors, as outcomes that do not vary say nothing of how much they might.",
                IdentificationWarning,
                log,
            )
        identical = int(np.count_nonzero(~tie & (lengths(d) == 0)))
        if identical:
            warn(
                f"{identical} of {n} pairs are ordered although their features are identical: they "
                "cannot teach a score anything. Drop them, or take features that tell them apart.",
                CausalRMWarning,
                log,
            )
        common: dict[str, Any] = {
            "call": self._call({}), "loss": self.loss, "features": names, "warnings": (),
        }  # fmt: skip
        if self.head == "mlp":
            fitted = self._network(x_a, x_b, y, m, w, common)
        else:
            fit = fit_differences(
                d, y, loss=self.loss, strength=m, weights=w, cluster=codes, names=names,
                penalty=self.penalty, tie_weight=self.tie_weight, log=log,  # type: ignore[arg-type]
            )  # fmt: skip
            fitted = RewardResult(
                **common,
                n_obs=fit.n_obs,
                entropy=None,
                parameter=("reward",) * len(names),
                term=names,
                estimates=fit.beta,
                covariances=fit.covariances,
                covariance=used if fit.covariances else "none",
                loglik=fit.value,
                n_params=len(names),
                df_resid=None if fit.n_clusters is None else fit.n_clusters - 1.0,
                diagnostics={
                    "converged": fit.converged,
                    "iterations": fit.iterations,
                    "condition_number": fit.condition,
                    "effective_parameters": fit.effective,
                    "n_clusters": fit.n_clusters,
                },
            )
        eta = fitted.rewards(x_a) - fitted.rewards(x_b)
        ties = int(np.count_nonzero(tie)) if self.tie_weight > 0 else 0
        right = ((eta > 0) & (y > 0.5)) | ((eta < 0) & (y < 0.5))
        ordered = int(np.count_nonzero(~tie))
        counts = {
            "n_pairs": n,
            "n_ordered": ordered,
            "n_ties": ties,
            "n_without_weight": n - fitted.n_obs,
            "n_identical": identical,
            "accuracy": float(right[~tie].mean()) if ordered else math.nan,
        }
        self.result_ = replace(
            fitted,
            diagnostics={**fitted.diagnostics, **counts},
            assumptions=_assumptions(self.head, codes is not None, ties, counts),
            warnings=tuple(log),
        )
        if self.loss == "regression":  # its scores are no log-odds
            self._set_temperature(eta, y, w, codes)
        return self

    def _check_options(self) -> None:
        check_choice("loss", self.loss, LOSSES)
        check_choice("head", self.head, ("linear", "mlp"))
        check_choice("covariance", self.covariance, ("auto", "model", "robust", "cluster"))
        if not 0 <= self.tie_weight < math.inf:
            raise DataError(f"Expected tie_weight of at least 0, but saw {self.tie_weight!r}.")
        if isinstance(self.penalty, str):
            if self.penalty != "firth" or self.loss == "regression" or self.head == "mlp":
                raise DataError(
                    f"Expected penalty to be a number, an array, None or 'firth' (linear heads "
                    f"with a logistic loss only), but saw {self.penalty!r} with "
                    f"loss={self.loss!r} and head={self.head!r}."
                )
        elif self.penalty is not None:
            value = np.asarray(self.penalty, dtype=float)
            if not ((value >= 0) & (value < np.inf)).all() or (self.head == "mlp" and value.ndim):
                raise DataError(f"Expected penalty of at least 0, but saw {self.penalty!r}.")

    def _network(
        self,
        x_a: Matrix,
        x_b: Matrix,
        y: np.ndarray,
        m: np.ndarray | None,
        w: np.ndarray | None,
        common: dict[str, Any],
    ) -> RewardResult:
        target, margin, weight, squared = reduced(y, self.loss, m, w, self.tie_weight)
        used = weight > 0
        if not used.any():
            raise DataError("Expected a pair with a weight above 0, but saw none.")
        generator, entropy = resolve(self.rng)
        network, losses = _network.train(
            dense(x_a)[used], dense(x_b)[used], target[used], margin[used], weight[used],
            squared=squared,
            hidden=self.hidden,
            penalty=float(self.penalty or 0.0),  # type: ignore[arg-type]
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            rng=generator,
        )  # fmt: skip
        return RewardResult(
            **common,
            n_obs=int(used.sum()),
            entropy=entropy,
            parameter=(),
            term=(),
            estimates=np.empty(0),
            covariances={},
            covariance="none",
            loglik=-float(losses[-1] * weight[used].sum()),
            n_params=sum(layer.size for layer in network[2:]),
            network=network,
            diagnostics={"losses": losses},
        )

    # ------------------------------------------------------------------ predictions

    def reward(self, X: Any) -> np.ndarray:
        """Reward of each row of features.

        Parameters
        ----------
        X : array, sparse array or numeric data frame of shape (n, p)

        Returns
        -------
        ndarray of shape (n,)
            Up to an additive constant; differences of 1 are log-odds of 1 at temperature 1.
        """
        result = self.result_
        x, _ = features(X, "X", result.features)
        return result.rewards(x)

    def predict_proba(self, X_a: Any, X_b: Any) -> np.ndarray:
        """Probability that a is better than b, at the temperature of the result.

        Parameters
        ----------
        X_a, X_b : array, sparse array or numeric data frame of shape (n, p)

        Returns
        -------
        ndarray of shape (n,)
            For "regression" the temperature was fitted to the pairs of the fit; else it is 1
            until `refit_temperature` is called.
        """
        difference = self._difference(X_a, X_b)
        return np.asarray(special.expit(difference / self.result_.temperature))

    def refit_temperature(
        self,
        X_a: Any,
        X_b: Any,
        outcome: ArrayLike,
        weights: ArrayLike | None = None,
        cluster: ArrayLike | None = None,
    ) -> Self:
        """Fit the temperature of `predict_proba` to held-out pairs.

        Many ties, margins and penalties flatten or stretch scores without changing their order;
        the temperature puts probabilities right again. Coefficients stay as they are.

        Parameters
        ----------
        X_a, X_b, outcome, weights, cluster
            As in `fit`; pairs that the fit has not seen.

        Returns
        -------
        PreferenceRewardModel
            Itself; `result_.temperature` and `result_.temperature_std_error` are new.

        Raises
        ------
        IdentificationError
            When the scores order these pairs no better than chance, or without error.
        """
        eta = self._difference(X_a, X_b)
        y = numbers(outcome, "outcome", len(eta), 0.0, 1.0)
        w = None if weights is None else numbers(weights, "weights", len(eta), 0.0)
        self._set_temperature(eta, y, w, None if cluster is None else labels(cluster, len(eta)))
        return self

    def _difference(self, X_a: Any, X_b: Any) -> np.ndarray:
        result = self.result_
        x_a, x_b, _ = features_of_pairs(X_a, X_b, result.features)
        return np.asarray(result.rewards(x_a) - result.rewards(x_b))

    def _set_temperature(
        self, eta: np.ndarray, y: np.ndarray, w: np.ndarray | None, codes: np.ndarray | None
    ) -> None:
        log: list[str] = []
        size = float(np.abs(eta).mean()) or 1.0
        names = ["the score difference"]
        fit = fit_differences(
            eta[:, None] / size, y, weights=w, cluster=codes, names=names, log=log
        )
        slope = float(fit.beta[0]) / size
        if slope <= 0:
            raise IdentificationError(
                f"Expected scores that order these {len(eta)} pairs better than chance, but the "
                f"slope of the outcome on the score difference is {slope:.3g}. No temperature "
                "mends that."
            )
        covariance = fit.covariances["robust" if codes is None else "cluster"]
        error = math.sqrt(covariance[0, 0]) / size / slope**2
        self.result_ = replace(
            self.result_,
            temperature=1.0 / slope,
            temperature_std_error=error,
            warnings=(*self.result_.warnings, *log),
        )


def _assumptions(
    head: str, clustered: bool, ties: int, counts: dict[str, Any]
) -> tuple[Assumption, ...]:
    shape = "a linear function" if head == "linear" else "a network"
    return (
        Assumption(
            "One reward",
            f"A single score, {shape} of the features, explains all comparisons; whoever judges "
            "and whatever else is on offer",
            f"It reproduces the order of {counts['accuracy']:.1%} of the ordered pairs of the "
            "fit; GeneralPreference tests for cycles.",
        ),
        Assumption(
            "Independent " + ("clusters" if clustered else "pairs"),
            "What one "
            + ("cluster" if clustered else "pair")
            + " shows says nothing of another given the features",
            "Pairs of one query, rater or parent are dependent: "
            + ("clusters were given." if clustered else "no clusters were given."),
        ),
        Assumption(
            "Ties",
            "A tie says that both answers are equally good",
            f"{ties:,} ties carry the weight of the option tie_weight; robust standard errors "
            "hold although ties are no draws of a coin.",
        ),
    )
