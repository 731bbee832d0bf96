"""Value of a policy from logged actions and rewards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from causalrm.core.design import formula_text, prepare
from causalrm.core.errors import DataError, IdentificationError, IdentificationWarning, warn
from causalrm.core.frame import Source, check
from causalrm.core.random import RNG, resolve, seed_int, spawn
from causalrm.core.result import COLUMNS, Assumption, Estimate, Result
from causalrm.deconfound.folds import Folds
from causalrm.deconfound.learners import (
    LINEAR,
    LOGISTIC,
    check_clusters,
    ess,
    estimate_of,
    fitted,
    learners_of,
    variances,
)
from causalrm.deconfound.linear_effect import combine
from causalrm.deconfound.stages import fit_learner, seeded

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
    """

    method: str
    estimates: np.ndarray
    covariance: np.ndarray
    n_clusters: int | None

    def effect(self, level: float = 0.95, term: str = "policy") -> Estimate:
        """One of the rows of `to_frame` as a number with its interval."""
        i = TERMS.index(term)
        df = None if self.n_clusters is None else self.n_clusters - 1.0
        se = float(np.sqrt(self.covariance[i, i]))
        return estimate_of(float(self.estimates[i]), se, level, term, df)

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return the values of the policy and of the log, and their difference."""
        rows = [self.effect(level, term).to_frame() for term in TERMS]
        return pd.concat(rows, ignore_index=True)[COLUMNS]

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
        Its rows stay in one fold.
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
    if method not in METHODS:
        raise DataError(f"Expected method in {METHODS}, but saw {method!r}.")
    if method == "direct" and nuisance is not None:
        raise DataError(
            f"Expected no nuisance= with method 'direct', but saw {nuisance!r}: the error of a "
            "flexible regression enters a direct value in full, and no interval would hold. Use "
            "method 'dr' with it, or leave it out for least squares."
        )
    for name, bound in (("clip", clip), ("switch", switch)):
        if bound is not None and not bound > 0:
            raise DataError(f"Expected a positive weight for {name}, but saw {bound!r}.")
    log: list[str] = []
    _, entropy = resolve(rng)
    policy = policy(data) if callable(policy) else policy
    used = [v for v in policy.values() if isinstance(v, str)] if isinstance(policy, Mapping) else []
    text = formula_text(covariates, "covariates")
    source, rows, designs, reader = prepare(
        data, {"covariates": text}, numbers=[reward, *used, *([propensity] if propensity else [])],
        categories=[action, *([cluster] if cluster else [])],
    )  # fmt: skip
    index = source.index if source.kind == "memory" else None
    if propensity:
        check(
            rows, [propensity], lambda p: (p <= 0) | (p > 1), "propensities above 0, at most 1",
            "Give the probability with which the logged action was taken.", index,
        )  # fmt: skip
    columns = rows.sample(rows.n_obs).columns
    levels = {c.name: list(c.levels or ()) for c in reader.columns}
    n_clusters = len(levels[cluster]) if cluster else None
    if cluster and n_clusters is not None:
        check_clusters(n_clusters, cluster, log)
    n, actions = rows.n_obs, levels[action]
    a, r = np.asarray(columns[action], dtype=np.intp), np.asarray(columns[reward], dtype=float)
    pi = _probabilities(policy, actions, columns, source, n)
    codes = None if cluster is None else np.asarray(columns[cluster])
    task = _Task(
        a, r, pi, designs["covariates"].encode(columns, n)[1:].T,
        None if propensity is None else np.asarray(columns[propensity], dtype=float),
        method, learners_of(nuisance, {"reward": LINEAR, "action": LOGISTIC}),
        nuisance is not None, switch, clip, codes, n_clusters,
    )  # fmt: skip
    unit = np.arange(n) if codes is None else codes
    found = []
    for g in spawn(rng, repeats):
        fold = Folds(folds, seed_int(g), "unit").codes({"unit": unit}, 0)
        found.append(_evaluate(task, fold, g))
    logged = float(r.mean())
    thetas, squares = [], []
    for f in found:
        influence = np.stack([f.influence, (r - logged) / n, f.influence - (r - logged) / n])
        thetas.append([f.value, logged, f.value - logged])
        kinds = variances(influence, codes, n_clusters)
        squares.append(kinds["cluster" if cluster else "robust"])
    estimates, covariance = combine(np.array(thetas), np.array(squares))
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
        call={
            "estimator": "policy_value",
            "options": options,
            "roles": {role: value for role, value in roles.items() if value},
        },
        n_obs=n,
        entropy=entropy,
        assumptions=_assumptions(action, reward, propensity, covariates, method, d),
        diagnostics={**d, "policy_share": support, "logged_rows": counts},
        warnings=tuple(log),
        method=method,
        estimates=estimates,
        covariance=covariance,
        n_clusters=n_clusters,
    )


# --------------------------------------------------------------------------- one split


@dataclass(frozen=True)
class _Task:
    a: np.ndarray
    r: np.ndarray
    pi: np.ndarray  # (n, actions)
    x: np.ndarray
    p: np.ndarray | None
    method: str
    learners: Mapping[str, Any]
    custom: bool
    switch: float | None
    clip: float | None
    codes: np.ndarray | None
    n_clusters: int | None


@dataclass(frozen=True)
class _Found:
    value: float
    influence: np.ndarray
    diagnostics: dict[str, Any]


def _evaluate(task: _Task, fold: np.ndarray, g: np.random.Generator) -> _Found:
    a, r, pi, n = task.a, task.r, task.pi, len(task.r)
    once = task.method == "direct" or task.method in ("ips", "snips") and not task.custom
    if once:
        fold = np.zeros(n, dtype=np.int8)
    of_policy = pi[np.arange(n), a]
    if task.method == "direct":
        q, shift = _rewards(task, fold, g, True)
        value = (pi * q).sum(axis=1)
        theta = float(value.mean())
        return _Found(theta, (value - theta) / n + shift, {})
    p, score = (task.p, None) if task.p is not None else _propensities(task, fold, g, once)
    assert p is not None
    if (p[of_policy > 0] <= 0).any():
        raise IdentificationError(
            f"Expected a chance of every action that the policy takes, but in "
            f"{int(((p <= 0) & (of_policy > 0)).sum())} of {n} rows the propensity is 0. Log with "
            "exploration, or use method 'direct'."
        )
    w = np.divide(of_policy, p, out=np.zeros(n), where=of_policy > 0)
    spread = list(variances((w - w.mean())[None, :] / n, task.codes, task.n_clusters).values())
    z = (w.mean() - 1) / max(math.sqrt(spread[-1][0, 0]), 1e-300)
    d: dict[str, Any] = {
        "ess": ess(w), "largest": float(w.max()), "mean_weight": float(w.mean()),
        "mean_weight_z": float(z), "matched_rows": int((of_policy > 0).sum()),
    }  # fmt: skip
    if task.clip is not None:
        d["n_clipped"] = int((w > task.clip).sum())
        w = np.minimum(w, task.clip)
    if task.method in ("ips", "snips"):
        if not w.any():
            raise IdentificationError(
                "Expected logged actions that the policy could have taken, but no row has one. "
                "Use method 'direct', or another policy."
            )
        total = float(w.mean()) if task.method == "snips" else 1.0
        theta = float((w * r).mean()) / total
        influence = (w * r - theta if task.method == "ips" else w * (r - theta) / total) / n
        if score is not None:  # what estimating the propensities takes away
            influence = influence - score @ np.linalg.lstsq(score, influence, rcond=None)[0]
        return _Found(theta, influence, d)
    q, _ = _rewards(task, fold, g, False)
    base, error = (pi * q).sum(axis=1), r - q[np.arange(n), a]
    if task.method == "switch":
        limit, beyond = _threshold(w, base, error, r, task.switch)
        d |= {"switch": limit, "mass_beyond_switch": beyond}
        w = np.where(w <= limit, w, 0.0)
    value = base + w * error
    theta = float(value.mean())
    return _Found(theta, (value - theta) / n, d)


def _threshold(
    w: np.ndarray, base: np.ndarray, error: np.ndarray, r: np.ndarray, given: float | None
) -> tuple[float, float]:
    """Largest weight in use, and the policy's mass beyond it.

    The bound adds the variance to the squared bias if the regression were off by the rewards' range
    wherever it is used alone.
    """
    reach = float(np.ptp(r))
    best, choice = math.inf, math.inf
    for limit in np.unique(np.quantile(w, np.linspace(0.5, 1.0, 26))) if given is None else [given]:
        beyond = float((w * (w > limit)).mean())
        bound = float((base + w * (w <= limit) * error).var()) / len(w) + (reach * beyond) ** 2
        if bound < best:
            best, choice = bound, float(limit)
    return choice, float((w * (w > choice)).mean())


def _propensities(
    task: _Task, fold: np.ndarray, g: np.random.Generator, once: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Probability of the action taken; where the model is fitted once, its scores (n, k)."""
    n, size = len(task.a), task.pi.shape[1]
    p = np.zeros((n, size))
    for f in np.unique(fold):
        own = fold == f
        learn = own if once else ~own
        seen, counts = np.unique(task.a[learn], return_counts=True)
        if len(seen) == 1 or not task.x.shape[1]:
            p[np.ix_(own, seen)] = counts / counts.sum()
            continue
        model = fit_learner(seeded(task.learners["action"], g), task.x[learn], task.a[learn], None)
        p[np.ix_(own, model.classes_)] = model.predict_proba(task.x[own])
    score = None
    if once:
        x = np.column_stack([np.ones(n), task.x])
        left = (task.a[:, None] == np.arange(1, size)) - p[:, 1:]
        score = (left[:, :, None] * x[:, None, :]).reshape(n, -1)
        score = score / np.maximum(np.abs(score).max(axis=0), 1e-300)
    return p[np.arange(n), task.a], score


def _rewards(
    task: _Task, fold: np.ndarray, g: np.random.Generator, once: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Regression of the reward for all actions (n, actions), and its influence on the value."""
    n, size = task.pi.shape
    q, shift = np.zeros((n, size)), np.zeros(n)
    x = np.column_stack([np.ones(n), task.x])
    for j in range(size):
        of_j, mass = task.a == j, task.pi[:, j]
        if not mass.any():
            continue
        for f in np.unique(fold):
            own = fold == f
            learn = of_j & (own if once else ~own)
            if not learn.any():
                raise IdentificationError(
                    f"Expected logged rows of every action outside each fold, but action number "
                    f"{j + 1} of {size} has none. Take fewer folds, or merge rare actions."
                )
            model = fitted(task.learners["reward"], task.x, task.r, learn, g, None)
            q[own, j] = model(task.x[own])
        if once:
            gram = x[of_j].T @ x[of_j]
            row = np.linalg.lstsq(gram, x.T @ mass / n, rcond=None)[0]
            shift[of_j] = (x[of_j] @ row) * (task.r - q[:, j])[of_j]
    return q, shift


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
