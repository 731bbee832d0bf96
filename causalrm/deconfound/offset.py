"""Rewards on the scale of log-odds or log-means, with the confounders' effect as an offset."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from causalrm.core.blocks import Block, length
from causalrm.core.design import encode_new, formula_text, prepare
from causalrm.core.encoding import Design
from causalrm.core.errors import ConvergenceError, DataError
from causalrm.core.frame import check, check_weights
from causalrm.core.inference import (
    by_cluster,
    clustered,
    delta_std_error,
    invert_information,
    sandwich,
)
from causalrm.core.linear import logistic_rows
from causalrm.core.optimize import maximize
from causalrm.core.random import RNG
from causalrm.core.result import Assumption, LikelihoodResult, call_of, quantile
from causalrm.deconfound.few_clusters import Sums, cluster_sums, wild_bootstrap
from causalrm.deconfound.learners import check_clusters

FAMILIES = {"logit": "log-odds", "poisson": "log-mean"}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class OffsetResult(LikelihoodResult):
    """What `offset_reward` returns.

    Parameters
    ----------
    family : str
    centre : ndarray of shape (q,)
        Means of the confounder columns, at which the offset is 0.
    text : tuple of str
    design : dict
        Of the confounders.
    cluster_sums : tuple of ndarray or None
        What `wild_bootstrap` needs of each cluster, where clusters are few.
    """

    family: str
    centre: np.ndarray
    text: tuple[str, ...]
    design: Mapping[str, Any]
    cluster_sums: Sums | None = None

    def offset(self, data: Any) -> pd.Series:
        """What the confounders add to the log-odds or log-mean of each row, 0 at their means.

        As an offset in any other model of the outcome it takes their effect out.
        """
        design = Design.from_dict(self.design)
        source, rows = encode_new(data, [design])
        c = design.slopes(rows.columns, rows.n_obs) - self.centre[:, None]
        value = self.estimates[: len(c)] @ c
        return pd.Series(value, index=source.index, name="offset")

    def predict_reward(self, data: Any, level: float = 0.95) -> pd.DataFrame:
        """Reward of new texts on the scale of the family, and the mean outcome at the centre.

        Returns
        -------
        pandas.DataFrame
            `reward, std_error, conf_low, conf_high`, and `mean`: a probability, or a mean count.
        """
        source, rows = encode_new(data, [], numbers=self.text)
        x = np.stack([np.ones(rows.n_obs), *(rows.columns[name] for name in self.text)])
        q = len(self.centre)
        reward = self.estimates[q:] @ x
        se = delta_std_error(x.T, self._covariance()[q:, q:])
        z = quantile(level, self._df)
        mean = special.expit(reward) if self.family == "logit" else np.exp(reward)
        columns = {
            "reward": reward, "std_error": se, "conf_low": reward - z * se,
            "conf_high": reward + z * se, "mean": mean,
        }  # fmt: skip
        return pd.DataFrame(columns, index=source.index)

    def wild_bootstrap(self, level: float = 0.95, draws: int = 9999, rng: RNG = 0) -> pd.DataFrame:
        """Tests and intervals that hold with few clusters; see `DeconfoundedResult`."""
        q = len(self.centre)
        return wild_bootstrap(
            self.term[:q], self.estimates[:q], self.cluster_sums, level, draws, rng
        )


def offset_reward(
    data: Any,
    *,
    outcome: str,
    text: Sequence[str],
    confounders: str | Sequence[str],
    family: str = "logit",
    cluster: str | None = None,
    weights: str | None = None,
) -> OffsetResult:
    r"""Reward of text from 0/1 outcomes or counts, without the known confounders.

    Differences of probabilities leave their range; here text and confounders add up on the scale
    of log-odds, :math:`\operatorname{logit} P(Y = 1) = f(X) + \gamma'(C - \bar C)`, or of
    log-means. Features and confounders are fitted at once by (quasi-)maximum likelihood.

    Parameters
    ----------
    data : data frame
    outcome : str
        0/1 for "logit", at least 0 for "poisson".
    text : list of str
        Numeric feature columns.
    confounders : list of str or formula
    family : {"logit", "poisson"}
    cluster, weights : str, optional
        Column of labels of dependent rows; of sampling weights of at least 0.

    Returns
    -------
    OffsetResult
        Effects of the confounders under the parameter "confounder" and the linear reward under
        "reward", with robust or clustered errors; `predict_reward`, `offset`, `wild_bootstrap`.

    Raises
    ------
    DataError
    IdentificationError
        When columns are dependent.
    ConvergenceError
        When text and confounders tell outcomes 0 and 1 apart without error.

    Notes
    -----
    The effect of a confounder on log-odds is one given the features that are in the model: it
    changes with them even without confounding. Means with "poisson" need no law of the counts.

    References
    ----------
    McCullagh, Nelder (1989), Generalized linear models, second edition, Chapman and Hall,
    doi 10.1007/978-1-4899-3242-6.

    Examples
    --------
    >>> import numpy as np
    >>> import causalrm as crm
    >>> df, _ = crm.datasets.make_logged_rewards(4000, rng=1)
    >>> rng = np.random.default_rng(0)
    >>> odds = np.exp(df["quality"] + 0.5 * df["popularity"])
    >>> df["clicked"] = (rng.random(4000) < odds / (1 + odds)).astype(int)
    >>> fit = crm.deconfound.offset_reward(
    ...     df, outcome="clicked", text=["quality", "style"], confounders=["popularity"]
    ... )
    >>> fit.to_frame().round(2)[["parameter", "term", "estimate", "std_error"]]
        parameter        term  estimate  std_error
    0  confounder  popularity      0.39       0.07
    1      reward   Intercept      0.02       0.04
    2      reward     quality      1.09       0.06
    3      reward       style      0.09       0.05
    """
    if family not in FAMILIES or isinstance(text, str):
        raise DataError(
            f"Expected family 'logit' or 'poisson' and a list of feature columns as text, but saw "
            f"{family!r} and {text!r}. Encode texts first."
        )
    log: list[str] = []
    source, rows, designs, reader = prepare(
        data, {"confounders": formula_text(confounders, "confounders")},
        numbers=[outcome, *text, *([weights] if weights else [])],
        categories=[cluster] if cluster else [],
    )  # fmt: skip
    check(
        rows, [outcome], lambda y: (y != 0) & (y != 1) if family == "logit" else y < 0,
        "outcomes 0 or 1" if family == "logit" else "counts of at least 0",
        "Code it so, or use DeconfoundedReward.", source.index,
    )  # fmt: skip
    if weights:
        check_weights(rows, weights, source.index)
    design = designs["confounders"]

    def read(block: Block) -> np.ndarray:
        n = length(block)
        c = design.slopes(block, n)
        w = np.ones(n) if weights is None else np.asarray(block[weights], dtype=float)
        return np.vstack([w, block[outcome], c, np.ones(n), *(block[name] for name in text)])

    held = np.concatenate([read(part) for _, part in rows.parts()], axis=1)
    w, y, x = held[0] / held[0].mean(), held[1], held[2:]
    terms = (*design.slope_terms, "Intercept", *text)
    q = len(terms) - 1 - len(text)
    centre = np.average(x[:q], axis=1, weights=w)
    x[:q] -= centre[:, None]
    scale = np.maximum(np.sqrt(np.average(x**2, axis=1, weights=w)), 1e-300)
    x /= scale[:, None]

    def derivatives(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        eta = theta @ x
        if family == "logit":
            return logistic_rows(y, eta, w)
        mean = np.exp(np.minimum(eta, 700.0))
        return w * (y * eta - mean - special.gammaln(y + 1)), w * (y - mean), -w * mean

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        value, slope, curve = derivatives(theta)
        return float(value.sum()), x @ slope, (x * curve) @ x.T, (x * slope**2) @ x.T

    start = np.zeros(len(terms))
    level = float(np.average(y, weights=w))
    if 0 < level and family == "poisson":
        start[q] = math.log(level)
    invert_information((x * w) @ x.T, terms)  # names columns that are dependent
    found = maximize(objective, start)
    if not found.converged or np.abs(found.theta @ x).max() > 30 and family == "logit":
        raise ConvergenceError(
            f"Expected outcomes {outcome!r} that text and confounders do not determine, but some "
            "fitted probabilities are 0 or 1. Leave out the column that separates them."
        )
    bread = invert_information(-found.hessian, terms)
    back = np.outer(1 / scale, 1 / scale)
    covariances = {
        "model": bread * back, "robust": sandwich(bread, found.meat) * back,
    }  # fmt: skip
    df_resid = kept = None
    if cluster:
        n_clusters = check_clusters(reader, cluster, log)
        _, slope, curve = derivatives(found.theta)
        u = (bread @ x) / scale[:, None]
        slopes = -(u[:, None] * (x * scale[:, None] * curve)).reshape(-1, len(y))
        by = by_cluster(rows.collect()[cluster], np.concatenate([u * slope, slopes]), n_clusters)
        covariances["cluster"] = clustered(by[:, : len(terms)])
        kept, df_resid = cluster_sums(by, covariances["model"]), n_clusters - 1.0
    roles: dict[str, Any] = {"outcome": outcome, "text": list(text), "confounders": confounders}
    roles |= {"cluster": cluster, "weights": weights}
    return OffsetResult(
        call=call_of("offset_reward", {"family": family}, roles),
        n_obs=rows.n_obs,
        assumptions=_assumptions(outcome, family),
        warnings=tuple(log),
        parameter=("confounder",) * q + ("reward",) * (len(terms) - q),
        term=terms,
        estimates=found.theta / scale,
        covariances=covariances,
        covariance="cluster" if cluster else "robust",
        loglik=found.value,
        n_params=len(terms),
        df_resid=df_resid,
        family=family,
        centre=centre,
        text=tuple(text),
        design=design.to_dict(),
        cluster_sums=kept,
    )


def _assumptions(outcome: str, family: str) -> tuple[Assumption, ...]:
    return (
        Assumption(
            "no hidden confounding",
            f"nothing beside the features moves both confounders and {outcome}",
            "not tested; see the sensitivity() of a DeconfoundedReward",
        ),
        Assumption(
            "shape", f"features and confounders add up in the {FAMILIES[family]} of {outcome}",
            "not tested; add products to the formula, or compare a difference of means",
        ),
    )  # fmt: skip
