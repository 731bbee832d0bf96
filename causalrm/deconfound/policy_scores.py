"""Values of a policy and their influence functions, from one random split."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalrm.core.errors import IdentificationError
from causalrm.deconfound.learners import ess, fitted, units, variances
from causalrm.deconfound.stages import fit_learner, seeded

_NO_CHANCE = 1e-100  # propensities below it leave no weight that could be computed with


@dataclass(frozen=True)
class Task:
    """The columns of one analysis as arrays."""

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
class Found:
    """One split: the value of the policy, its influence, and what describes the weights."""

    value: float
    influence: np.ndarray
    slope: np.ndarray  # by how much the influence falls when the value rises; sums to 1
    diagnostics: dict[str, Any]


def evaluate(task: Task, fold: np.ndarray, g: np.random.Generator) -> Found:
    """Value the policy once, from one random split where the method needs one."""
    a, r, pi, n = task.a, task.r, task.pi, len(task.r)
    even = np.full(n, 1 / n)
    once = task.method == "direct" or task.method in ("ips", "snips") and not task.custom
    if once:
        fold = np.zeros(n, dtype=np.int8)
    of_policy = pi[np.arange(n), a]
    if task.method == "direct":
        q, shift = _rewards(task, fold, g, True)
        value = (pi * q).sum(axis=1)
        theta = float(value.mean())
        return Found(theta, (value - theta) / n + shift, even, {})
    p, score = (task.p, None) if task.p is not None else _propensities(task, fold, g, once)
    assert p is not None
    if (p[of_policy > 0] <= _NO_CHANCE).any():
        raise IdentificationError(
            f"Expected a chance of every action that the policy takes, but in "
            f"{int(((p <= _NO_CHANCE) & (of_policy > 0)).sum())} of {n} rows the propensity is 0. "
            "Log with exploration, or use method 'direct'."
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
        slope = even if task.method == "ips" else w / total / n
        influence = w * r / total / n - theta * slope
        if score is not None:  # what estimating the propensities takes away
            both = np.stack([influence, slope], axis=1)
            influence, slope = (both - score @ np.linalg.lstsq(score, both, rcond=None)[0]).T
        return Found(theta, influence, slope, d)
    q, _ = _rewards(task, fold, g, False)
    base, error = (pi * q).sum(axis=1), r - q[np.arange(n), a]
    if task.method == "switch":
        limit, beyond = _threshold(w, base, error, r, task.switch)
        d |= {"switch": limit, "mass_beyond_switch": beyond}
        w = np.where(w <= limit, w, 0.0)
    value = base + w * error
    theta = float(value.mean())
    return Found(theta, (value - theta) / n, even, d)


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
    task: Task, fold: np.ndarray, g: np.random.Generator, once: bool
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
    task: Task, fold: np.ndarray, g: np.random.Generator, once: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Regression of the reward for all actions (n, actions), and its influence on the value."""
    n, size = task.pi.shape
    q, shift = np.zeros((n, size)), np.zeros(n)
    middle, unit = units(task.x)
    x = np.column_stack([np.ones(n), (task.x - middle) / unit])
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
