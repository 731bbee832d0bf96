"""A deconfounded reward beside absorbed fixed effects."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import linalg

from causalrm.core.blocks import length
from causalrm.core.errors import DataError, IdentificationWarning, warn
from causalrm.core.frame import Source, scan
from causalrm.core.inference import delta_std_error
from causalrm.deconfound import _kernels_absorb as k
from causalrm.deconfound import stages
from causalrm.deconfound.absorb import absorbed_regression
from causalrm.deconfound.demean import absorb_columns
from causalrm.deconfound.pairs import labels_of
from causalrm.deconfound.task import Fitted, Kept, Task, TextModel

_VARIES = 1e-6  # share of a feature's variance that absorbed effects and other features must leave


def _varying(data: Any, task: Task, x: np.ndarray) -> np.ndarray:
    """Which features (n, p) vary beyond absorbed effects and one another."""
    reader, rows = scan(Source(data), categories=list(task.absorb))
    columns = rows.collect()
    codes = np.stack([columns[a] for a in task.absorb])
    sizes = np.array([len(reader.levels[a]) for a in task.absorb])
    fine = np.asarray(k.drop_singletons(codes, sizes), dtype=bool)
    weights = None
    if task.weights is not None:
        weights = task.rows.columns[task.weights]
        fine &= weights > 0
        weights = weights[fine]
    values = np.ascontiguousarray(x[fine].T)
    before = ((values - values.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    compact = [np.unique(c, return_inverse=True)[1] for c in codes[:, fine]]
    absorb_columns(values, compact, [int(c.max()) + 1 for c in compact], weights)
    constant = before <= 1e-12 * (x[fine] ** 2).sum(axis=0)
    scaled = values / np.sqrt(np.where(constant, np.inf, before))[:, None]
    _, r, order = linalg.qr(scaled.T, mode="economic", pivoting=True)
    diagonal = np.zeros(len(order))
    diagonal[: min(r.shape)] = np.abs(np.diag(r))
    varies = np.zeros(len(order), dtype=bool)
    varies[order] = diagonal**2 > _VARIES
    return varies


def effects_of(effects: Mapping[str, pd.Series], data: Any) -> np.ndarray:
    """Sum of the absorbed effects of rows, (n,); refuses levels that the fit had not."""
    total: Any = 0.0
    for name, effect in effects.items():
        labels = labels_of(data, name)
        value = effect.reindex(labels).to_numpy(float)
        unseen = np.isnan(value)
        if unseen.any():
            raise DataError(
                f"Expected levels of the fit in column {name!r}, but {int(unseen.sum())} of "
                f"{len(value)} rows have others: {sorted({str(v) for v in labels[unseen]})[:5]}. "
                "Drop these rows, or fit again with them."
            )
        total = total + value
    return np.asarray(total)


def _with_features(data: Any, task: Task) -> tuple[Any, tuple[str, ...], np.ndarray, Any]:
    """The data with a column for each feature of the text; names, which are used, the encoder."""
    if not task.is_text:
        return data, tuple(task.text), np.ones(len(task.text), dtype=bool), None
    source = Source(data)
    if source.kind != "memory":
        raise DataError(
            "Expected a data frame in memory for texts beside absorbed effects, but saw parts of "
            "one. Read it, or encode the texts and give the columns."
        )
    encoder, x = task.encoded(np.ones(task.rows.n_obs, dtype=bool))
    used = _varying(data, task, x)
    names = tuple(f"(text) {j}" for j in np.flatnonzero(used))
    columns = {name: source.frame[name].to_numpy() for name in source.frame.columns}
    table = pd.DataFrame(columns | dict(zip(names, x[:, used].T, strict=True)))
    return table, names, used, encoder


def fit_absorbed(data: Any, task: Task, formula: str | None, log: list[str]) -> Fitted:
    """Least squares of the outcome on confounders and features beside absorbed effects."""
    data, names, used_features, encoder = _with_features(data, task)
    for name in names:
        if "`" in name:
            raise DataError(f"Expected no backtick in the name of column {name!r}. Rename it.")
    x = " + ".join([*([formula] if formula else ["1"]), *(f"`{name}`" for name in names)])
    found = absorbed_regression(
        data, y=task.outcome, x=x, absorb=task.absorb, weights=task.weights, cluster=task.cluster,
        covariance="cluster" if task.cluster else "robust",
    )  # fmt: skip
    log += [w for w in found.warnings if w not in log]
    rows = task.rows
    place = {term: i for i, term in enumerate(found.term)}
    design = task.designs.get("confounders")
    terms = () if design is None else design.slope_terms
    q, p = len(terms), len(names)
    order = [place[t] for t in (*terms, *names)]
    estimates = found.estimates[order]
    v = {
        kind: found.covariances[kind][np.ix_(order, order)]
        for kind in ("robust", "cluster") if kind in found.covariances
    }  # fmt: skip
    scale = np.sqrt(np.diag(found.cov("model"))[order[:q]] * found.n_obs)
    fixed = found.predict_effects(data).to_numpy()
    fine = np.isfinite(fixed).all(axis=1)
    w = np.ones(rows.n_obs)
    if task.weights is not None:
        w = stages.stacked_columns(rows, lambda b: np.asarray(b[str(task.weights)], float))
        fine &= w > 0
    w = np.where(fine, w, 0.0) / w[fine].sum()
    y = stages.stacked_columns(rows, lambda b: np.asarray(b[task.outcome], dtype=float))
    if encoder is None:
        features = stages.stacked_columns(rows, lambda b: np.stack([b[m] for m in names]))
    else:
        features = data[list(names)].to_numpy().T
    c = np.zeros((0, len(y)))
    if design is not None:
        c = stages.stacked_columns(rows, lambda b: design.slopes(b, length(b)))
    centre = c @ w
    c = c - centre[:, None]
    means = np.nan_to_num(fixed).T @ w
    removed = estimates[:q] @ c + (fixed - means).sum(axis=1)
    deconfounded = y - removed
    mean_x, level = features @ w, float(y @ w)
    beta = np.concatenate([[level - estimates[q:] @ mean_x], estimates[q:]])
    # The intercept is the mean outcome less that of the features, nearly independent of beta.
    lift = np.vstack([np.hstack([np.eye(q), np.zeros((q, p))]),
                      np.r_[np.zeros(q), -mean_x][None, :],
                      np.hstack([np.zeros((p, q)), np.eye(p)])])  # fmt: skip
    codes = none = None
    if task.cluster is not None:
        none = np.zeros((task.n_clusters or 0, q))
        codes = stages.stacked_columns(rows, lambda b: b[str(task.cluster)])
    direct = w * (y - level)
    sums = direct if codes is None else np.bincount(codes, weights=direct)
    covariances = {kind: lift @ m @ lift.T for kind, m in v.items()}
    for m in covariances.values():
        m[q, q] += sums @ sums
    used = covariances["cluster" if "cluster" in covariances else "robust"]
    ones = np.concatenate([np.ones((1, len(y))), features])
    reward = beta @ ones
    error = deconfounded - reward
    sigma2 = float(w @ np.nan_to_num(error) ** 2)
    variance = ((used[:q, :q] @ c) * c).sum(axis=0)
    effects = {}
    for j, (name, effect) in enumerate(found.effects.items()):
        effects[name] = effect - means[j]
        same = pd.factorize(fixed[:, j])[0]
        variance = variance + sigma2 / np.bincount(same[same >= 0], minlength=1)[same]
    frame = {
        "outcome": y, "deconfounded": deconfounded,
        "std_error": np.where(fine, np.sqrt(variance), np.nan), "reward": reward,
        "reward_std_error": delta_std_error(ones.T, used[q:, q:]),
    }  # fmt: skip
    dropped = int(np.count_nonzero(~fine))
    if dropped:
        warn(
            f"{dropped} of {rows.n_obs} rows are alone in a level of {list(task.absorb)} (or have "
            "weight 0) and were dropped; their deconfounded outcome is missing.",
            IdentificationWarning,
            log,
        )
    total = float(w @ (np.nan_to_num(deconfounded) - level) ** 2)
    missing = int(np.count_nonzero(~used_features))
    shown, model = 1 + p, None
    if encoder is not None:  # coefficients of text features stay in the model
        place = np.r_[0, 1 + np.flatnonzero(used_features)]
        size = 1 + len(used_features)
        coef, covariance = np.zeros(size), np.zeros((size, size))
        coef[place], covariance[np.ix_(place, place)] = beta, used[q:, q:]
        shown, model = 0, TextModel(encoder, None, coef, covariance)
    return Fitted(
        parameter=("confounder",) * q + ("reward",) * shown,
        term=(*terms, "Intercept", *names)[: q + shown],
        estimates=np.concatenate([estimates[:q], beta])[: q + shown],
        covariances={kind: m[: q + shown, : q + shown] for kind, m in covariances.items()},
        model=model,
        rewards=pd.DataFrame(frame),
        kept=Kept(estimates[:q], c, np.zeros((q, len(y))), codes, none, used[:q, :q]),
        centre=centre,
        sigma=math.sqrt(sigma2),
        diagnostics={
            "dropped": {
                "alone in a level, or of weight 0": dropped,
                "features that absorbed effects or others determine": missing,
            },
            "components": found.n_components,
            "n_clusters": task.n_clusters,
            "n_features": p,
            "scale": dict(zip(terms, scale.tolist(), strict=True)),
            "r2": 1 - sigma2 / total if total > 0 else math.nan,
            "r2_within": found.r2_within,
        },
        dropped=dropped,
        effects=effects,
        gammas=pd.DataFrame(columns=["way", "term", "estimate", "std_error"]),
    )  # fmt: skip
