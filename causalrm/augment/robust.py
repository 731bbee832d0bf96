"""Reward models fitted to preferences and to causal and neutral pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.base import clone

from causalrm.augment import evidence
from causalrm.augment._pairs import (
    Matrix,
    Pairs,
    column_values,
    dense_enough,
    read,
    read_augmented,
    stack,
)
from causalrm.augment._score import (
    Data,
    Score,
    attributes,
    causal_signal_left,
    estimates,
    frame_of,
    half_ties,
    neutrals,
    ratio_of_norms,
    refit,
)
from causalrm.augment.result import EstimatesResult, RobustResult, cluster_se, degrees
from causalrm.core.errors import DataError
from causalrm.core.estimator import Estimator
from causalrm.core.inference import quantile
from causalrm.core.parallel import blas_limit
from causalrm.core.result import Estimate
from causalrm.preference.differences import fit_differences
from causalrm.text import Features, HashedText


class RobustRewardModel(Estimator):
    r"""Linear reward fitted to preferences, causal pairs and neutral pairs.

    With D the reward of one answer less that of the other, and s the logistic function, the loss
    is

    .. math:: -\sum_{\text{ordered}} \log s(D) - \lambda \sum_{\text{neutral}}
              \tfrac12 \left[\log s(D) + \log s(-D)\right]
              + \tfrac12 \sum_j \rho_j \beta_j^2 ,

    the sum over ordered pairs being over the preferences and the causal pairs. Neutral pairs are
    ties: near D = 0 each costs :math:`\log 2 + D^2/8`, so that they shrink the reward along the
    directions in which neutral answers differ.

    Parameters
    ----------
    encoder : encoder of causalrm.text, optional
        Turns (query, answer) into features; `HashedText` by default, `Features` for vectors. It is
        fitted to the answers of all ordered pairs.
    tie_weight : float, default 1
        Weight :math:`\lambda` of neutral pairs. 0 leaves them out.
    penalty : float, ndarray of shape (p,), "firth" or None, default 1
        Ridge :math:`\rho` on the scale of the summed loss. Without it, rewards of upgraded answers
        run to infinity where features tell them from the originals without error.
    drop_attributes : bool, default True
        Fit once more without the pairs of each attribute.

    Attributes
    ----------
    result_ : RobustResult
    encoder_ : encoder
        Fitted.

    See Also
    --------
    ConfidenceFilter : Keep the pairs that say something new.
    CausalAugmenter : Makes the pairs.

    References
    ----------
    Srivastava et al. (2025), Robust reward modeling via causal rubrics, arXiv 2506.16507.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> import causalrm as crm
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.normal(size=(2, 300, 2))  # cause, style
    >>> wins = rng.random(300) < 1 / (1 + np.exp(-(a - b) @ [1.0, 1.0]))  # biased on style
    >>> better, worse = np.where(wins[:, None], a, b), np.where(wins[:, None], b, a)
    >>> df = pd.DataFrame({"q": np.arange(300), "x": list(better), "y": list(worse)})
    >>> up = df["y"] + pd.Series([np.array([1.0, 0.0])] * 300)
    >>> off = [v * [0, 1] for v in better], [v * [0, 1] for v in worse]  # on another query
    >>> common = dict(parent=df.index, cluster=df["q"], status="ok")
    >>> made = pd.concat([
    ...     pd.DataFrame(dict(query=df["q"], answer_a=up, answer_b=df["y"], target=1.0,
    ...                       kind="causal", attribute="cause", **common)),
    ...     pd.DataFrame(dict(query=df["q"] + 1, answer_a=off[0], answer_b=off[1], target=0.5,
    ...                       kind="irrelevant_query", attribute="", **common)),
    ... ])
    >>> model = crm.RobustRewardModel(crm.text.Features(["cause", "style"]))
    >>> alone = model.fit(df, query="q", chosen="x", rejected="y").result_.weights
    >>> robust = model.fit(df, made, query="q", chosen="x", rejected="y").result_.weights
    >>> bool(robust[1] / robust[0] < 0.3 * alone[1] / alone[0])
    True
    """

    result_: RobustResult

    def __init__(
        self,
        encoder: Any = None,
        *,
        tie_weight: float = 1.0,
        penalty: float | np.ndarray | str | None = 1.0,
        drop_attributes: bool = True,
    ):
        self.encoder = encoder
        self.tie_weight = tie_weight
        self.penalty = penalty
        self.drop_attributes = drop_attributes

    def fit(
        self, data: Any, augmented: Any = None, *, query: str, chosen: str, rejected: str
    ) -> Self:
        """Fit to preferences and augmented pairs.

        Parameters
        ----------
        data : data frame
            Preferences, one row per pair of answers.
        augmented : data frame, optional
            Pairs as `CausalAugmenter.generate` gives them. Rows whose status is not "ok" are
            counted and not used, nor are those that a `ConfidenceFilter` marked ``keep=False``.
            Without them the model is fitted to the preferences alone.
        query, chosen, rejected : str
            Columns of `data`. Answers are texts, or vectors with the encoder `Features`.

        Returns
        -------
        RobustRewardModel
            Itself, with `result_`.

        Raises
        ------
        DataError
            When columns are missing, incomplete, empty or of the wrong kind.
        IdentificationError
            When features are dependent or separate the pairs, and there is no penalty.

        Warns
        -----
        IdentificationWarning
            When what tells upgraded from original answers stays when the query is exchanged: the
            neutral pairs then shrink causes along with style.
        """
        roles = {"query": query, "chosen": chosen, "rejected": rejected}
        log: list[str] = []
        tie_weight = self._checked_tie_weight(self.tie_weight)
        rows, counts = self._prepare(data, augmented, roles, log)
        pairs, n = rows.pairs, rows.n_preferences
        with blas_limit(1):
            weight = rows.weight(tie_weight)
            used = weight > 0
            found = fit_differences(
                rows.d[used], pairs.target[used], weights=weight[used], penalty=self.penalty,
                cluster=pairs.cluster[used], names=rows.names, log=log,
            )  # fmt: skip
            score = Score(rows, weight, found.beta, self.penalty)
            table = estimates(score, n)
            dropped, dropping = self._dropping(score, weight)
        vanishing = causal_signal_left(rows)
        evidence.warn_where_causes_stay(vanishing, log)
        n_clusters = int(np.count_nonzero(np.bincount(pairs.cluster)))
        cov = found.covariances.get("cluster")
        se = np.full(len(rows.names), np.nan) if cov is None else np.sqrt(np.diag(cov))
        table = pd.concat([table, dropped], ignore_index=True)
        self.result_ = RobustResult(
            call=self._call(roles),
            n_obs=n,
            assumptions=evidence.assumptions(table, vanishing, roles["query"], n_clusters),
            diagnostics={
                "condition": found.condition,
                "converged": found.converged,
                "iterations": found.iterations,
                "accuracy": float(half_ties(score.gap[:n]).mean()),
                "causal_signal_on_irrelevant_queries": vanishing,
            },
            warnings=tuple(log),
            table=table,
            df_resid=degrees(n_clusters),
            names=rows.names,
            weights=score.beta,
            weights_se=se,
            counts=counts,
            dropping=dropping,
            n_clusters=n_clusters,
            loglik=found.value,
        )
        return self

    @staticmethod
    def _checked_tie_weight(value: Any) -> float:
        if not (isinstance(value, int | float | np.number) and 0 <= value < np.inf):
            raise DataError(
                f"Expected tie_weight to be a number of at least 0, but saw {value!r}. Give such "
                "a number."
            )
        return float(value)

    def _prepare(
        self, data: Any, augmented: Any, roles: dict[str, str], log: list[str]
    ) -> tuple[Data, pd.DataFrame]:
        """Read, encode and stack all pairs without fault; and count them all."""
        encoder = HashedText() if self.encoder is None else clone(self.encoder)
        preferences, made = read(data, augmented, roles, encoder, log)
        parts, counts = [preferences], pd.DataFrame(columns=["kind", "rows", "ok", "used"])
        if made is not None:
            counts = made.counts()
            parts.append(made.take(made.good))
        ordered = [part.take(part.used & ~part.tie) for part in parts]
        encoder.fit(
            [answer for part in ordered for answer in (*part.a, *part.b)],
            [asked for part in ordered for asked in (*part.queries, *part.queries)],
        )
        self.encoder_ = encoder
        d = dense_enough(stack([part.differences(encoder) for part in parts]))
        names = tuple(str(name) for name in encoder.get_feature_names_out())
        return Data(d, Pairs.joined(parts), len(preferences), names), counts

    def _dropping(self, score: Score, weight: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Refit without each attribute's pairs: rows for the table, and a frame of details."""
        data, n = score.data, score.data.n_preferences
        rows, details = [], []
        accuracy = float(half_ties(score.gap[:n]).mean())
        for name, mask in sorted(attributes(data.pairs).items()):
            if not self.drop_attributes:
                break
            own = mask & data.pairs.used
            other = refit(data, np.where(own, 0.0, weight), self.penalty, score.beta)
            full, part = score.mean_gap(mask), other.mean_gap(mask)
            rows.append(
                ("change when dropped", name, part[0] - full[0],
                 cluster_se(part[1] - full[1], data.pairs.cluster), int(own.sum()), False)
            )  # fmt: skip
            details.append(
                (name, int(own.sum()), full[0], part[0],
                 float(np.mean(np.sign(score.gap[:n]) == np.sign(other.gap[:n]))), accuracy,
                 float(half_ties(other.gap[:n]).mean()))
            )  # fmt: skip
        columns = ["attribute", "pairs", "sensitivity", "without", "same_ranking", "accuracy",
                   "accuracy_without"]  # fmt: skip
        return frame_of(rows), pd.DataFrame(details, columns=columns)

    def path(
        self,
        data: Any,
        augmented: Any,
        tie_weights: Sequence[float] = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0),
        *,
        spurious: Sequence[str] = (),
        causal: Sequence[str] = (),
        level: float = 0.95,
    ) -> pd.DataFrame:
        """Fit once for every weight of the neutral pairs.

        Parameters
        ----------
        data, augmented : data frame
            As in `fit`, whose columns are used.
        tie_weights : sequence of float
        spurious, causal : sequence of str
            Names of features that are known to be spurious and causal, as in a simulation: adds
            the ratio of the norms of their coefficients.
        level : float

        Returns
        -------
        pandas.DataFrame
            The rows of `to_frame` for each `tie_weight`, which is the first column, without
            "change when dropped". Draw it with ``result_.plot.path(frame)``.
        """
        rows, _ = self._prepare(data, augmented, dict(self.result_.call["roles"]), [])
        q = quantile(level, self.result_.df_resid)
        frames = []
        sets = [[rows.names.index(name) for name in names] for names in (spurious, causal)]
        start = np.zeros(len(rows.names))
        for value in tie_weights:
            weight = rows.weight(self._checked_tie_weight(value))
            with blas_limit(1):
                score = refit(rows, weight, self.penalty, start)
                start = score.beta
                table = estimates(score, rows.n_preferences)
                if all(sets):
                    ratio, influence = ratio_of_norms(score, *sets)
                    extra = ("coefficients", "spurious / causal", ratio,
                             cluster_se(influence, rows.pairs.cluster), 0, False)  # fmt: skip
                    table = pd.concat([table, frame_of([extra])], ignore_index=True)
            half = q * table["std_error"]
            table = table.assign(
                conf_low=table["estimate"] - half, conf_high=table["estimate"] + half
            )
            frames.append(table.drop(columns="share").assign(tie_weight=float(value)))
        out = pd.concat(frames, ignore_index=True)
        return out[["tie_weight", *out.columns.drop("tie_weight")]]

    # ------------------------------------------------------------------ predictions

    def _features(self, answers: Sequence[Any], queries: Sequence[Any] | None) -> Matrix:
        self._check_native()
        names = self.result_.names  # raises where there is no fit
        if not hasattr(self, "encoder_"):  # restored from JSON; the default encoder learns nothing
            self.encoder_ = HashedText().fit([""], [""])
        x: Matrix = self.encoder_.transform(answers, queries)
        if x.shape[1] != len(names):
            raise DataError(
                f"Expected {len(names)} features, as in the fit, but the encoder gives "
                f"{x.shape[1]}. Use the encoder of the fit."
            )
        return x

    def reward(
        self, data: Any, queries: Any = None, *, answer: str | None = None, query: str | None = None
    ) -> pd.Series | np.ndarray:
        """Reward of answers, in log odds; only differences within a query mean something.

        Parameters
        ----------
        data : data frame or sequence
            With `answer`, a data frame; else the answers.
        queries : sequence, optional
            Of the answers, where they are a sequence.
        answer, query : str, optional
            Columns of a data frame; `query` is that of the fit by default.

        Returns
        -------
        pandas.Series or ndarray of shape (n,)
            A series with the index of a data frame, an array for a sequence.
        """
        if answer is None:
            return np.asarray(self._features(data, queries) @ self.result_.weights)
        asked, given, index = self._read(data, query or self.result_.call["roles"]["query"], answer)
        values = self._features(given, asked) @ self.result_.weights
        return pd.Series(values, index=index, name="reward")

    def predict_proba(
        self, data: Any, *, a: str | None = None, b: str | None = None, query: str | None = None
    ) -> pd.Series:
        """Probability that answer a is preferred to answer b.

        Parameters
        ----------
        data : data frame
        a, b, query : str, optional
            Columns; those of chosen, rejected and query in the fit by default.

        Returns
        -------
        pandas.Series
            With the index of `data`.
        """
        return pd.Series(expit(self.gap(data, a=a, b=b, query=query)), name="probability")

    def gap(
        self, data: Any, *, a: str | None = None, b: str | None = None, query: str | None = None
    ) -> pd.Series:
        """Reward of answer a less that of answer b; columns as in `predict_proba`."""
        roles = self.result_.call["roles"]
        asked = query or roles["query"]
        one = self.reward(data, answer=a or roles["chosen"], query=asked)
        other = self.reward(data, answer=b or roles["rejected"], query=asked)
        return (one - other).rename("gap")

    def _read(self, data: Any, query: str, answer: str) -> tuple[list[Any], list[Any], pd.Index]:
        self._check_native()
        text = not isinstance(self.encoder, Features)
        return column_values(data, query, answer, text)

    def check(self, augmented: Any) -> EstimatesResult:
        """Look at the reward of other augmented pairs: sensitivity and gaps, at these weights.

        Parameters
        ----------
        augmented : data frame
            Pairs as `CausalAugmenter.generate` gives them, such as those of held-out preferences.

        Returns
        -------
        EstimatesResult
            Groups "sensitivity" and "typical gap". Standard errors are for other pairs of other
            queries, and take the weights of the fit as given.
        """
        text = not isinstance(self.encoder, Features)
        pairs = read_augmented(augmented, text)
        pairs = pairs.take(pairs.good)
        n = len(pairs)
        x = self._features([*pairs.a, *pairs.b], [*pairs.queries, *pairs.queries])
        scores = np.asarray(x @ self.result_.weights)
        gap = scores[:n] - scores[n:]
        rows = []
        for name, mask in attributes(pairs).items():
            share = mask / mask.sum()
            value = float(share @ gap)
            error = cluster_se(share * (gap - value), pairs.cluster)
            rows.append(("sensitivity", name, value, error, int(mask.sum()), False))
        for name, mask in neutrals(pairs).items():
            share = mask / mask.sum()
            value = float(np.sqrt(share @ gap**2))
            influence = share * (gap**2 - value**2) / (2.0 * max(value, 1e-300))
            error = cluster_se(influence, pairs.cluster)
            rows.append(("typical gap", name, value, error, int(mask.sum()), True))
        clusters = int(np.count_nonzero(np.bincount(pairs.cluster)))
        return EstimatesResult(
            call={"estimator": type(self).__name__, "options": {}, "roles": {}},
            n_obs=n,
            assumptions=(evidence.INDEPENDENT,),
            table=frame_of(rows),
            df_resid=degrees(clusters),
        )

    def temperature(self, data: Any, level: float = 0.95) -> Estimate:
        """Temperature by which gaps must be divided to be log odds on held-out preferences.

        Many neutral pairs flatten rewards: a temperature below 1 says so.

        Parameters
        ----------
        data : data frame
            Preferences that the fit has not seen, with the columns of the fit.
        level : float

        Returns
        -------
        Estimate
            With a standard error clustered by query.
        """
        gap = self.gap(data).to_numpy()
        asked = self._read(data, *(self.result_.call["roles"][r] for r in ("query", "chosen")))[0]
        codes = pd.factorize(pd.Series(asked))[0]
        found = fit_differences(gap[:, None], np.ones(len(gap)), cluster=codes)
        value = 1.0 / float(found.beta[0])
        error = value**2 * float(np.sqrt(found.covariances["cluster"][0, 0]))
        half = quantile(level, degrees(int(codes.max()) + 1)) * error
        return Estimate(value, error, value - half, value + half, level, "temperature")
