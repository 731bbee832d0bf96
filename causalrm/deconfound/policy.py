"""Value of a policy from logged actions and rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from causalrm.core.design import formula_text, prepare
from causalrm.core.errors import (
    DataError,
    IdentificationError,
    IdentificationWarning,
    check_choice,
    warn,
)
from causalrm.core.frame import Source, check
from causalrm.core.inference import by_cluster
from causalrm.core.random import RNG, resolve, seed_int, spawn
from causalrm.core.result import COLUMNS, Assumption, Estimate, Result, call_of
from causalrm.deconfound.few_clusters import Sums, cluster_sums, wild_bootstrap
from causalrm.deconfound.folds import Folds
from causalrm.deconfound.learners import (
    LINEAR,
    LOGISTIC,
    check_clusters,
    learners_of,
    variances,
)
from causalrm.deconfound.linear_effect import combine
from causalrm.deconfound.policy_scores import Task, evaluate
from causalrm.deconfound.stages import near_singular

METHODS = ("dr", "ips", "snips", "direct", "switch")
TERMS = ("policy", "logged", "difference")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PolicyResult(Result):
    """What `policy_value` returns.

    Parameters
    ----------
    method : str
    estimates : ndarray of shape (3,)
        Value of the policy, mean logged reward, and the difference.
    covariance : ndarray of shape (3, 3)
    n_clusters : int or None
    cluster_sums : tuple of ndarray or None
        What `wild_bootstrap` needs of each cluster, where clusters are few.
    """

    method: str
    estimates: np.ndarray
    covariance: np.ndarray
    n_clusters: int | None
    cluster_sums: Sums | None = None

    def effect(self, level: float = 0.95, term: str = "policy") -> Estimate:
        """One of the rows of `to_frame` as a number with its interval."""
        if term not in TERMS:
            raise DataError(f"Expected one of {list(TERMS)}, but saw {term!r}.")
        i = TERMS.index(term)
        df = None if self.n_clusters is None else self.n_clusters - 1.0
        se = float(np.sqrt(self.covariance[i, i]))
        return Estimate.wald(float(self.estimates[i]), se, level, term, df)

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return the values of the policy and of the log, and their difference."""
        rows = [self.effect(level, term).to_frame() for term in TERMS]
        return pd.concat(rows, ignore_index=True)[COLUMNS]

    def wild_bootstrap(self, level: float = 0.95, draws: int = 9999, rng: RNG = 0) -> pd.DataFrame:
        """Tests and intervals that hold with few clusters; see `DeconfoundedResult`."""
        return wild_bootstrap(TERMS, self.estimates, self.cluster_sums, level, draws, rng)

    def _fit_lines(self, level: float) -> list[tuple[str, str]]:
        d = self.diagnostics
        lines = [("Method", self.method)]
        if "ess" in d:
            lines.append(("Weights", f"effective rows {d['ess']:.1f}, largest {d['largest']:.4g}"))
        return lines


def policy_value(
    data: Any,
    *,
    action: str,
    reward: str,
    policy: Any,
    propensity: str | None = None,
    covariates: str | Sequence[str] = (),
    method: str = "dr",
    nuisance: Any = None,
    switch: float | None = None,
    clip: float | None = None,
    folds: int = 5,
    repeats: int = 1,
    cluster: str | None = None,
    rng: RNG = 0,
) -> PolicyResult:
    r"""Mean reward if actions had been chosen by another policy.

    Parameters
    ----------
    data : data frame
        One row per logged decision.
    action : str
        Column of the action taken; its distinct values are the actions.
    reward : str
    policy : str, mapping, array or callable
        A column that names the action the policy takes; a mapping from actions to probabilities,
        numbers or columns (actions left out have 0); an array of actions (n,), or a data frame
        of probabilities with a column per action; or a function of the data that gives one of
        these.
    propensity : str, optional
        Column with the logged probability of the action taken. Estimated from the covariates by
        default.
    covariates : str or list of str
        Formula or columns on which actions and rewards may depend.
    method : {"dr", "ips", "snips", "direct", "switch"}
        Doubly robust; inverse propensity weighting, plain or normalised; the regression of the
        reward alone; doubly robust below a largest weight, and the regression above.
    nuisance : scikit-learn estimator or mapping, optional
        ``{"reward": a regressor, "action": a classifier}``; least squares and a multinomial
        logistic regression by default. The reward is regressed within each action. Not for
        "direct": the error of a flexible regression is of first order there, and no interval would
        hold; "dr" takes any learner.
    switch : float, optional
        Largest weight for "switch"; by default the one with the least bound of its mean squared
        error (reported).
    clip : float, optional
        Weights above are set to it, which biases the value; counted and warned about.
    folds, repeats : int
    cluster : str, optional
        Its rows stay in one fold. With fewer than 30 clusters read ``wild_bootstrap()``.
    rng : None, int, SeedSequence or Generator

    Returns
    -------
    PolicyResult
        With effective sample size, largest weight, and what supports the policy in `diagnostics`.

    Raises
    ------
    DataError
    IdentificationError
        When the policy takes actions that were never logged, or with propensity 0.

    Notes
    -----
    With the policy's probabilities pi, rewards' regression q and weight w, "dr" is
    ``mean[sum_a pi(a|x) q(x, a) + w (r - q(x, a))]``. Nuisances are cross-fitted, but for "ips",
    "snips" and "direct" with the default learners: these are fitted once, and their estimation
    counts in the standard error. The bias of "switch" and of clipping is not part of an interval.

    References
    ----------
    Dudik, Erhan, Langford, Li (2014), Doubly robust policy evaluation and optimization,
    Statistical Science 29(4), 485-511, doi 10.1214/14-STS500. Wang, Agarwal, Dudik (2017), Optimal
    and adaptive off-policy evaluation in contextual bandits, arXiv 1612.01205. Swaminathan,
    Joachims (2015), The self-normalized estimator for counterfactual learning, NeurIPS.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from causalrm.deconfound import policy_value
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=2000)
    >>> p = 1 / (1 + np.exp(-x))
    >>> shown = np.where(rng.random(2000) < p, "long", "short")
    >>> clicks = x + 0.5 * (shown == "long") + rng.normal(size=2000)
    >>> log = pd.DataFrame({"x": x, "shown": shown, "clicks": clicks})
    >>> value = policy_value(
    ...     log, action="shown", reward="clicks", policy={"long": 1.0}, covariates=["x"]
    ... )
    >>> value.to_frame().round(2)[["term", "estimate", "conf_low", "conf_high"]]
             term  estimate  conf_low  conf_high
    0      policy      0.49      0.41       0.58
    1      logged      0.24      0.17       0.31
    2  difference      0.25      0.20       0.31
    """
    check_choice("method", method, METHODS)
    if method == "direct" and nuisance is not None:
        raise DataError(
            f"Expected no nuisance= with method 'direct', but saw {nuisance!r}: the error of a "
            "flexible regression enters a direct value in full, and no interval would hold. Use "
            "method 'dr' with it, or leave it out for least squares."
        )
    for name, bound, fits in (
        ("clip", clip, method != "direct"), ("switch", switch, method == "switch")
    ):  # fmt: skip
        if bound is not None and not (bound > 0 and fits):
            raise DataError(
                f"Expected a positive weight for {name}, with a method that has such a bound, but "
                f"saw {bound!r} with {method!r}. Leave it out, or correct it."
            )
    log: list[str] = []
    _, entropy = resolve(rng)
    policy = policy(data) if callable(policy) else policy
    used = [v for v in policy.values() if isinstance(v, str)] if isinstance(policy, Mapping) else []
    text = formula_text(covariates, "covariates")
    source, rows, designs, reader = prepare(
        data, {"covariates": text}, numbers=[reward, *used, *([propensity] if propensity else [])],
        categories=[action, *([cluster] if cluster else [])],
    )  # fmt: skip
    if propensity:
        check(
            rows, [propensity], lambda p: (p <= 0) | (p > 1), "propensities above 0, at most 1",
            "Give the probability with which the logged action was taken.", source.index,
        )  # fmt: skip
    columns, n_clusters = rows.collect(), None
    if cluster:
        n_clusters = check_clusters(reader, cluster, log)
    n, actions = rows.n_obs, list(reader.levels[action])
    a, r = np.asarray(columns[action], dtype=np.intp), np.asarray(columns[reward], dtype=float)
    pi = _probabilities(policy, actions, columns, source, n)
    codes = None if cluster is None else np.asarray(columns[cluster])
    task = Task(
        a, r, pi, designs["covariates"].slopes(columns, n).T,
        None if propensity is None else np.asarray(columns[propensity], dtype=float),
        method, learners_of(nuisance, {"reward": LINEAR, "action": LOGISTIC}),
        nuisance is not None, switch, clip, codes, n_clusters,
    )  # fmt: skip
    unit = np.arange(n) if codes is None else codes
    found = []
    with near_singular(log):
        for g in spawn(rng, repeats):
            fold = Folds(folds, seed_int(g), "unit").codes({"unit": unit}, 0)
            found.append(evaluate(task, fold, g))
    logged = float(r.mean())
    thetas = [[f.value, logged, f.value - logged] for f in found]
    own = (r - logged) / n
    influences = [np.stack([f.influence, own, f.influence - own]) for f in found]
    kind = "cluster" if cluster else "robust"
    squares = [variances(influence, codes, n_clusters)[kind] for influence in influences]
    estimates, covariance = combine(np.array(thetas), np.array(squares))
    sums = None
    if codes is not None and n_clusters is not None:
        at = int(np.argsort([f.value for f in found])[(len(found) - 1) // 2])
        slopes = np.zeros((3, 3, n))
        slopes[0, 0], slopes[1, 1], slopes[2, 2] = found[at].slope, 1 / n, 1 / n
        slopes[2, 0] = found[at].slope - 1 / n
        both = np.concatenate([influences[at], slopes.reshape(9, n)])
        sums = cluster_sums(by_cluster(codes, both, n_clusters), covariance)
    d = found[0].diagnostics
    _judge(d, n, log)
    support = {str(v): float(p) for v, p in zip(actions, pi.mean(axis=0), strict=True)}
    counts = {str(v): int(c) for v, c in zip(actions, np.bincount(a), strict=True)}
    options = {
        "method": method, "policy": _describe(policy), "switch": switch, "clip": clip,
        "folds": folds, "repeats": repeats, "rng": entropy,
        "nuisance": None if nuisance is None else str(nuisance),
    }  # fmt: skip
    roles = {"action": action, "reward": reward, "propensity": propensity}
    roles |= {"covariates": text if covariates else None, "cluster": cluster}
    return PolicyResult(
        call=call_of("policy_value", options, roles),
        n_obs=n,
        entropy=entropy,
        assumptions=_assumptions(action, reward, propensity, covariates, method, d),
        diagnostics={**d, "policy_share": support, "logged_rows": counts},
        warnings=tuple(log),
        method=method,
        estimates=estimates,
        covariance=covariance,
        n_clusters=n_clusters,
        cluster_sums=sums,
    )


# --------------------------------------------------------------------------- input and words


def _probabilities(
    policy: Any, actions: list[Any], columns: Mapping[str, np.ndarray], source: Source, n: int
) -> np.ndarray:
    """The policy as probabilities of shape (n, actions)."""
    if isinstance(policy, str):
        source.want([policy], "policy")
        policy = source.frame[policy].to_numpy() if source.kind == "memory" else policy
    if isinstance(policy, Mapping):
        table = {k: columns[v] if isinstance(v, str) else v for k, v in policy.items()}
        chosen = list(table)
    elif isinstance(policy, pd.DataFrame):
        table = {k: policy[k].to_numpy() for k in policy.columns}
        chosen = list(table)
    else:
        taken = np.asarray(policy, dtype=object)
        if taken.shape != (n,):
            raise DataError(
                f"Expected one action for each of {n} rows from the policy, but saw shape "
                f"{taken.shape}. In batches or Dask, give probabilities instead."
            )
        chosen = list(dict.fromkeys(taken.tolist()))
        table = {k: (taken == k).astype(float) for k in chosen}
    unknown = [k for k in chosen if k not in actions and np.any(np.asarray(table[k]) != 0)]
    if unknown:
        raise IdentificationError(
            f"Expected a policy over the logged actions {actions[:20]}, but it takes {unknown[:6]} "
            f"({len(unknown)} actions), which were never logged. Nothing is known of their reward."
        )
    parts = [np.broadcast_to(np.asarray(table.get(k, 0.0), dtype=float), (n,)) for k in actions]
    pi = np.stack(parts, axis=1)
    bad = (pi < 0).any(axis=1) | ~(np.abs(pi.sum(axis=1) - 1) < 1e-6)
    if bad.any():
        raise DataError(
            f"Expected probabilities of the policy that are at least 0 and add up to 1, but "
            f"{int(bad.sum())} of {n} rows differ (first rows: {np.flatnonzero(bad)[:6].tolist()})."
        )
    return pi


def _describe(policy: Any) -> Any:
    if isinstance(policy, Mapping):
        return {str(k): v if isinstance(v, str | int | float) else "..." for k, v in policy.items()}
    return policy if isinstance(policy, str) else type(policy).__name__


def _judge(d: Mapping[str, Any], n: int, log: list[str]) -> None:
    if d.get("n_clipped"):
        warn(f"{d['n_clipped']} of {n} weights were clipped.", IdentificationWarning, log)
    if "ess" in d and d["ess"] < max(10.0, 0.01 * n):
        warn(
            f"The weights of {n} rows are worth only {d['ess']:.1f} rows: the policy does what the "
            "log seldom did. Prefer 'dr' or 'switch', or a policy nearer to the log.",
            IdentificationWarning,
            log,
        )
    if abs(d.get("mean_weight_z", 0.0)) > 4:
        warn(
            f"Weights should have mean 1, but have {d['mean_weight']:.3f}, "
            f"{abs(d['mean_weight_z']):.1f} standard errors away: the propensities are not those "
            "with which actions were taken.",
            IdentificationWarning,
            log,
        )


def _assumptions(
    action: str, reward: str, propensity: str | None, covariates: Any, method: str,
    d: Mapping[str, Any],
) -> tuple[Assumption, ...]:  # fmt: skip
    given = covariates if isinstance(covariates, str) else ", ".join(covariates)
    source = f"logged in {propensity}" if propensity else f"estimated from {given or 'nothing'}"
    out = [
        Assumption(
            "no unobserved confounding",
            f"{action} depends on nothing but "
            + ("what its logged propensity says" if propensity else f"{given or 'chance'}"),
            "not testable without an experiment",
        ),
    ]
    if "ess" in d:
        z = abs(d["mean_weight_z"])
        out.append(
            Assumption(
                "propensities",
                f"the probabilities of {action} are right ({source})",
                f"mean weight {d['mean_weight']:.3f}, {z:.1f} standard errors from 1",
                "doubtful" if z > 4 else "supported" if propensity else "untested",
            )
        )
        out.append(
            Assumption(
                "support",
                "every action that the policy takes could have been logged",
                f"effective rows {d['ess']:.1f}, largest weight {d['largest']:.4g}",
                "doubtful" if d["ess"] < 50 else "supported",
            )
        )
    if method in ("direct", "switch"):
        where = "" if method == "direct" else f" where weights exceed {d['switch']:.4g}"
        out.append(
            Assumption(
                "reward model", f"the regression of {reward} is right{where}", "compare with 'dr'"
            )
        )
    out.append(
        Assumption("no interference", f"an {action} changes the {reward} of its row only", "none")
    )
    return tuple(out)
