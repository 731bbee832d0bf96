"""The filter that keeps augmented pairs which say something new."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import narwhals as nw
import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.base import clone

from causalrm.augment._pairs import dense_enough, read
from causalrm.augment.result import EstimatesResult, cluster_se, degrees
from causalrm.core.errors import DataError, warn
from causalrm.core.estimator import Estimator
from causalrm.core.parallel import blas_limit
from causalrm.core.random import RNG, resolve
from causalrm.core.result import Assumption
from causalrm.preference.differences import fit_differences
from causalrm.text import HashedText


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FilterResult(EstimatesResult):
    """Result of `ConfidenceFilter`: group "keep rate", one row per kind and attribute.

    Besides the fields of an `EstimatesResult`:

    Parameters
    ----------
    counts : dict of str to int
        Augmented pairs: rows, not_ok (never used, whatever the filter says), confident (left out
        by the filter) and kept.
    """

    counts: dict[str, int]

    def _fit_lines(self, level: float) -> list[tuple[str, str]]:
        c = self.counts
        text = f"{c['rows']:,} in all; {c['kept']:,} kept, {c['confident']:,} left out because "
        text += f"the baseline is confident, {c['not_ok']:,} not usable (failed, identical, ...)"
        return [("Augmented pairs", text)]


class ConfidenceFilter(Estimator):
    """Keep the augmented pairs of which a baseline model is not already sure.

    The baseline is a linear reward fitted to the preferences alone. With p its probability that
    answer a is better, and t the target of the pair (1, or 1/2 for ties), the pair is kept when
    ``abs(p - t) > tau``. The baseline that judges a pair has not seen the query of its parent:
    queries are split into `cross_fit` parts, and each part is judged by a fit to the others.

    Parameters
    ----------
    tau : float, default 0.2
        Within 0 to 1.
    cross_fit : int, default 5
        Number of parts, at least 2.
    encoder : encoder of causalrm.text, optional
        `HashedText` by default, `Features` for vectors.
    penalty : float, ndarray of shape (p,) or None, default 1
        Ridge of the baseline, on the scale of the summed loss.
    rng : None, int, numpy.random.SeedSequence or numpy.random.Generator, default 0
        Draws the parts.

    Attributes
    ----------
    result_ : FilterResult
    pairs_ : pandas.DataFrame
        The augmented pairs with the columns ``p`` (NaN where the status is not "ok") and
        ``keep``; no row is left out. `RobustRewardModel` uses those with ``keep``.

    References
    ----------
    Srivastava et al. (2025), Robust reward modeling via causal rubrics, arXiv 2506.16507.

    Examples
    --------
    >>> import causalrm as crm
    >>> df, _ = crm.datasets.make_preferences(60, n_topics=6, rng=0)
    >>> made = crm.CausalAugmenter(crm.augment.RuleOracle(), n_attributes=2).generate(df)
    >>> roles = dict(query="query", chosen="chosen", rejected="rejected")
    >>> encoder = crm.text.HashedText(32, 16)
    >>> kept = crm.ConfidenceFilter(encoder=encoder).fit(df, made, **roles)
    >>> len(kept.pairs_) == len(made), bool(kept.pairs_["keep"].all())
    (True, False)
    """

    result_: FilterResult

    def __init__(
        self,
        tau: float = 0.2,
        cross_fit: int = 5,
        *,
        encoder: Any = None,
        penalty: float | np.ndarray | None = 1.0,
        rng: RNG = 0,
    ):
        self.tau = tau
        self.cross_fit = cross_fit
        self.encoder = encoder
        self.penalty = penalty
        self.rng = rng

    def fit(self, data: Any, augmented: Any, *, query: str, chosen: str, rejected: str) -> Self:
        """Judge every augmented pair by a baseline that has not seen its query.

        Parameters
        ----------
        data : data frame
            Preferences, one row per pair of answers.
        augmented : data frame
            Pairs as `CausalAugmenter.generate` gives them.
        query, chosen, rejected : str
            Columns of `data`.

        Returns
        -------
        ConfidenceFilter
            Itself, with `pairs_` and `result_`.

        Raises
        ------
        DataError
            When options are out of their range, columns are missing or of the wrong kind, or there
            are fewer queries than parts.
        """
        if not (isinstance(self.tau, int | float | np.number) and 0 <= self.tau < 1):
            raise DataError(f"Expected tau from 0 to 1, but saw {self.tau!r}. Give such a number.")
        if not (isinstance(self.cross_fit, int) and self.cross_fit >= 2):
            raise DataError(
                f"Expected cross_fit to be a whole number of at least 2, but saw "
                f"{self.cross_fit!r}. Give such a number."
            )
        roles = {"query": query, "chosen": chosen, "rejected": rejected}
        log: list[str] = []
        encoder = HashedText() if self.encoder is None else clone(self.encoder)
        # A filter that ran before does not count.
        if isinstance(augmented, pd.DataFrame):
            augmented = augmented.drop(columns=["p", "keep"], errors="ignore")
        preferences, made = read(data, augmented, roles, encoder, log)
        if made is None:
            raise DataError("Expected augmented pairs, but saw None. Give those to be filtered.")
        n_queries = int(preferences.cluster.max()) + 1
        if n_queries < self.cross_fit:
            raise DataError(
                f"Expected at least {self.cross_fit} queries, one per part, but saw {n_queries}. "
                "Lower cross_fit, or add preferences on other queries."
            )
        generator, entropy = resolve(self.rng)
        part = generator.permutation(n_queries) % self.cross_fit
        good = made.take(made.good)
        encoder.fit([*preferences.a, *preferences.b], [*preferences.queries, *preferences.queries])
        d = dense_enough(preferences.differences(encoder))
        x = good.differences(encoder)
        names = [str(name) for name in encoder.get_feature_names_out()]
        p = np.full(len(good), math.nan)
        with blas_limit(1):
            for k in range(self.cross_fit):
                seen = part[preferences.cluster] != k
                found = fit_differences(
                    d[seen], np.ones(int(seen.sum())), penalty=self.penalty, names=names
                )
                judged = part[good.cluster] == k
                p[judged] = expit(np.asarray(x[judged] @ found.beta))
        kept = np.abs(p - good.target) > self.tau
        if not kept.any():
            warn(
                f"The baseline is confident of all {len(good)} pairs: none is kept. Lower tau.",
                log=log,
            )
        self.pairs_ = self._marked(augmented, made.good, p, kept)
        rows = _keep_rates(good.kind, good.attribute, kept, good.cluster)
        clusters = int(np.count_nonzero(np.bincount(good.cluster)))
        self.result_ = FilterResult(
            call=self._call(roles),
            n_obs=len(preferences),
            entropy=entropy,
            assumptions=(
                Assumption(
                    "Independent queries",
                    "Pairs of different queries are independent; those of one query need not be",
                    f"cross-fitted and clustered by the query of the parent; there are {n_queries}",
                ),
            ),
            diagnostics={"parts": np.bincount(part[preferences.cluster]).tolist()},
            warnings=tuple(log),
            table=rows,
            df_resid=degrees(clusters),
            counts={
                "rows": len(made),
                "not_ok": int((~made.good).sum()),
                "confident": int((~kept).sum()),
                "kept": int(kept.sum()),
            },
        )
        return self

    @staticmethod
    def _marked(augmented: Any, good: np.ndarray, p: np.ndarray, kept: np.ndarray) -> pd.DataFrame:
        """The augmented pairs with p and keep."""
        frame: pd.DataFrame = augmented
        if not isinstance(frame, pd.DataFrame):
            frame = pd.DataFrame(
                nw.from_native(augmented, eager_only=True).to_dict(as_series=False)
            )
        probability = np.full(len(good), math.nan)
        probability[good] = p
        keep = np.zeros(len(good), dtype=bool)
        keep[good] = kept
        return frame.assign(p=probability, keep=keep)


def _keep_rates(
    kind: np.ndarray, attribute: np.ndarray, kept: np.ndarray, cluster: np.ndarray
) -> pd.DataFrame:
    """Share kept by kind, and by attribute of the causal pairs, with clustered errors."""
    rows = []
    for name in dict.fromkeys(kind):
        of_kind = kind == name
        parts = {str(name): of_kind}
        for other in sorted({str(v) for v in attribute[of_kind] if v}):
            parts[f"{name}: {other}"] = of_kind & (attribute == other)
        for label, mask in parts.items():
            share = mask / mask.sum()
            rate = float(share @ kept)
            error = cluster_se(share * (kept - rate), cluster)
            rows.append(("keep rate", label, rate, error, int(mask.sum()), True))
    columns = ["group", "term", "estimate", "std_error", "n", "share"]
    return pd.DataFrame(rows, columns=columns)
