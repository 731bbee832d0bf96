"""From checked columns to the numbers of a deconfounded reward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from causalrm.core.blocks import Rows, length
from causalrm.core.errors import IdentificationError, IdentificationWarning, warn
from causalrm.core.inference import delta_std_error, wald
from causalrm.core.linear import dependent_columns
from causalrm.deconfound import stages, strengths
from causalrm.deconfound.few_clusters import MOST, cluster_sums
from causalrm.deconfound.folds import FOLD, Columns, Folds, Regressors, pieces_of, with_folds
from causalrm.deconfound.jackknife import left_out
from causalrm.deconfound.linear_effect import LinearEffect, combine, linear_effect
from causalrm.deconfound.linear_nuisance import Nuisance, partial_out, residuals_of, targets_of
from causalrm.deconfound.task import Fitted, Kept, Task, TextModel

FEATURES = "(features)"
DETERMINED = 0.95  # R2 of a confounder on the text above which nothing is left to learn from


@dataclass(frozen=True)
class _Split:
    """What one random split gave."""

    rows: Rows
    fit: Nuisance
    effect: LinearEffect | None
    instrumental: LinearEffect | None
    gamma: stages.Gamma | None
    line: stages.Line | None
    estimates: np.ndarray
    covariances: dict[str, np.ndarray]
    deconfounded: np.ndarray
    reward: np.ndarray
    model: TextModel | None
    names: tuple[str, ...]
    sums: np.ndarray | None = None
    jackknife: bool = False


def fit_method(task: Task, generators: Sequence[np.random.Generator], log: list[str]) -> Fitted:
    """Fit every method but "fixed_effects", over one or several random splits."""
    splits = [_split(task, generator) for generator in generators]
    s = splits[0]
    q = 0 if s.gamma is None else len(s.gamma.theta)
    estimates, covariances = s.estimates, s.covariances
    if len(splits) > 1 and len(estimates):
        stack = np.stack([x.estimates for x in splits])
        for kind in covariances:
            estimates, covariances[kind] = combine(
                stack, np.stack([x.covariances[kind] for x in splits])
            )
    y = stages.stacked_columns(s.rows, lambda b: np.asarray(b[task.outcome], dtype=float))
    c = stages.stacked_columns(s.rows, lambda b: targets_of(b, s.fit)[s.fit.d])
    c = c - s.fit.mean[s.fit.d, None]
    theta = estimates[:q]
    v_gamma = covariances["cluster" if "cluster" in covariances else "robust"]
    if s.gamma is None:
        deconfounded = np.mean([x.deconfounded for x in splits], axis=0)
        se = np.full(len(y), np.nan)
    else:
        deconfounded = y - theta @ c
        se = delta_std_error(c.T, v_gamma[:q, :q])
    reward = np.mean([x.reward for x in splits], axis=0)
    reward_se = np.full(len(y), np.nan)
    in_line = task.in_blocks and s.line is not None
    if s.line is not None:
        v = v_gamma[q:, q:]

        def spread(block: Any) -> np.ndarray:
            n = length(block)
            x = np.concatenate([np.ones((1, n)), *pieces_of(s.line.controls, block, n)])  # type: ignore[union-attr]
            return delta_std_error(x.T, v)

        reward_se = stages.stacked_columns(s.rows, spread)
    model = s.model
    if s.line is not None and not in_line:
        assert model is not None
        model = TextModel(model.encoder, None, estimates[q:], v_gamma[q:, q:])
    diagnostics = _diagnose(task, s, y, c, deconfounded, reward, log)
    if s.line is not None and not in_line:
        diagnostics["reward_terms"] = _largest(s.names, estimates[q:], v_gamma[q:, q:])
    n_kept = len(estimates) if in_line else q
    terms = task.designs["confounders"].slope_terms
    frame = {
        "outcome": y, "deconfounded": deconfounded, "std_error": se, "reward": reward,
        "reward_std_error": reward_se,
    }  # fmt: skip
    psi, codes, by_cluster, sums = np.zeros((0, len(y))), None, None, None
    if s.gamma is not None:
        psi = stages.stacked_columns(s.rows, s.gamma.influence)
    if task.cluster is not None:
        codes = stages.stacked_columns(s.rows, lambda b: b[str(task.cluster)])
        by_cluster = np.zeros((task.n_clusters or 0, 0)) if s.sums is None else s.sums[:, :q]
        few = s.sums is not None and len(s.sums) <= MOST[0]
        if s.gamma is not None and s.sums is not None and few and task.method != "ignore":
            by = s.rows.grouped(s.gamma.with_slopes, task.cluster, len(s.sums))
            by[:, :q] = s.sums[:, :q]
            sums = cluster_sums(by, covariances["robust"][:q, :q])
    hidden = task.method == "ignore"  # gamma is 0 by decree, and no estimate
    first = q if hidden else 0
    shown = slice(first, n_kept)
    centred = deconfounded - reward
    return Fitted(
        parameter=(("confounder",) * q + ("reward",) * (n_kept - q))[shown],
        term=((*terms, "Intercept", *s.names) if q else ())[shown],
        estimates=estimates[shown],
        covariances={kind: m[shown, shown] for kind, m in covariances.items()},
        rewards=pd.DataFrame(frame),
        kept=Kept(theta, c if q else c[:0], psi, codes, by_cluster),
        centre=s.fit.mean[s.fit.d],
        sigma=float(np.sqrt(np.mean(centred**2))),
        diagnostics=diagnostics,
        model=model,
        ar_moments=None if s.instrumental is None else s.instrumental.ar_moments,
        cluster_sums=sums,
        gammas=_gammas(task, s, v_gamma[:q, :q]),
        overlap=_overlap(terms, s, c),
    )  # fmt: skip


def _split(task: Task, generator: np.random.Generator) -> _Split:
    folds = Folds(task.n_folds, int(generator.integers(2**63 - 1)), task.unit)
    rows = with_folds(task.rows, folds)
    n = rows.n_obs
    names: tuple[str, ...] = () if task.is_text else tuple(task.text)
    controls: Regressors = Columns(names, names)
    cross: stages.CrossFit | None = None
    w = None if task.weights is None or task.in_blocks else rows.columns[task.weights]
    if task.in_blocks:
        fit = partial_out(rows, controls=controls, ridge=task.ridge, **task.roles)
    else:
        cross = stages.CrossFit(
            task.features_by_fold(), task.learner, task.grid, rows.columns[FOLD], w
        )
        learn = cross
        rows, fit = stages.from_predictions(
            rows, lambda targets: learn.predict(targets, generator), **task.roles
        )
    _check_confounders(task, fit)
    effect = None
    if np.nanmax(fit.r2[fit.d]) < 1 - 1e-6:
        effect = linear_effect(rows, fit, cluster=task.cluster, n_clusters=task.n_clusters)
    instrumental, source = None, fit
    start = fit if cross is None or task.method == "plr" else stages.without_controls(fit)
    if task.method == "iv":
        both = partial_out(
            rows, controls=stages.NONE, ridge=1.0, instruments=task.designs["instruments"],
            **task.roles,
        )  # fmt: skip
        start, source = both, stages.without_controls(both)
        instrumental = linear_effect(rows, source, cluster=task.cluster, n_clusters=task.n_clusters)
    encoder, x = None, np.empty((0, 0))
    if cross is not None:
        encoder, x = task.encoded(np.ones(n, dtype=bool))
        if encoder is not None:
            names = tuple(str(v) for v in encoder.get_feature_names_out())
    if task.method == "input" and task.learner is not None:
        assert cross is not None
        return _as_input(task, rows, fit, effect, cross, generator, encoder, x, names)
    y = stages.stacked_columns(rows, lambda b: targets_of(b, fit))

    def final(target: np.ndarray, beside: np.ndarray) -> tuple[Nuisance, float]:
        """Regression on the features of all rows, with a penalty for the target."""
        gram = stages.grams(np.hstack([x, beside.T]), target[None, :], rows.columns[FOLD], w)
        ridge = float(stages.chosen_ridge(gram, len(gram[0]) - 2, task.grid)[0])
        return partial_out(
            rows, controls=Columns((FEATURES,), names), ridge=ridge, **task.roles
        ), ridge  # fmt: skip

    ridge = task.ridge
    if cross is not None and task.learner is None:
        x[:, np.ptp(x, axis=0) == 0] = 0.0  # to the last bit, so that it is seen to be constant
        rows = Rows({**rows.columns, FEATURES: x}, n)
        if task.method == "input":
            source, ridge = final(y[-1], y[:-1])
    gamma = stages.gamma_of(task.method, rows, source, instrumental or effect, ridge)
    line: stages.Line | None = None
    model: TextModel | None = None
    deconfounded = y[-1] - gamma.theta @ (y[:-1] - fit.mean[fit.d, None])
    if cross is None:
        line = stages.reward_line(fit, gamma, task.ridge)
        reward = stages.own_rewards(rows, fit, gamma.theta)
    else:
        reward = cross.predict(deconfounded[None, :], generator)[0]
        if task.learner is None:
            regression, ridge = final(deconfounded, y[:0])
            line = stages.reward_line(regression, gamma, ridge)
            model = TextModel(encoder)
        else:
            learner = stages.seeded(task.nuisance, generator)
            model = TextModel(encoder, stages.fit_learner(learner, x, deconfounded, w))
    influence = gamma.influence if line is None else line.influence
    estimates = gamma.theta if line is None else np.concatenate([gamma.theta, line.coef])
    sums = left = None
    if task.cluster is not None:
        sums = rows.grouped(influence, task.cluster, task.n_clusters or 0)
        left = left_out(task, rows, fit, start, gamma, cross, _fold_of(task, rows, folds))
    if sums is not None and left is not None:
        q = left.shape[1]
        if line is not None and q == fit.q:
            sums[:, q:] += (sums[:, :q] - left) @ line.through.T
        sums[:, :q] = left
    covariances = stages.covariances(rows, influence, sums)
    return _Split(rows, fit, effect, instrumental, gamma, line, estimates, covariances,
                  deconfounded, reward, model, names, sums, left is not None)  # fmt: skip


def _fold_of(task: Task, rows: Rows, folds: Folds) -> np.ndarray:
    """Fold of every cluster."""
    codes = np.arange(task.n_clusters or 0)
    if task.unit == task.cluster:
        return folds.codes({str(task.unit): codes}, 0)
    codes[rows.columns[str(task.cluster)]] = rows.columns[FOLD]
    return codes


def _as_input(
    task: Task, rows: Rows, fit: Nuisance, effect: LinearEffect | None, cross: stages.CrossFit,
    generator: np.random.Generator, encoder: Any, x: np.ndarray, names: tuple[str, ...],
) -> _Split:  # fmt: skip
    """The confounder as one more input of the learner, averaged over at use."""
    y = stages.stacked_columns(rows, lambda b: targets_of(b, fit))
    c = y[:-1]
    whole, averaged = cross.with_input(y[-1], c, generator)
    learner = stages.fit_learner(
        stages.seeded(task.learner, generator), np.column_stack([x, c.T]), y[-1], cross.weights
    )
    draws = stages.draws_of(c, cross.weights, generator)
    none = {"robust": np.empty((0, 0))}
    if task.cluster is not None:
        none["cluster"] = np.empty((0, 0))
    return _Split(
        rows, fit, effect, None, None, None, np.empty(0), none, y[-1] - whole + averaged, averaged,
        TextModel(encoder, learner, draws=draws), names,
    )  # fmt: skip


def _check_confounders(task: Task, fit: Nuisance) -> None:
    names = fit.terms[1 + fit.p :][fit.d]
    total = fit.centred[fit.d, fit.d]
    raw = np.diag(total) + fit.weight_sum.sum() * fit.mean[fit.d] ** 2
    dependent = dependent_columns(total, raw)
    if dependent is not None:
        involved = [names[i] for i in dependent]
        raise IdentificationError(
            f"Expected confounders that vary and do not determine one another, but {involved} "
            f"({len(involved)} of {len(names)} columns involved) do not. Remove one of them."
        )
    r2 = fit.r2[fit.d]
    worst = int(np.argmax(r2))
    if task.method in ("plr", "joint", "input") and r2[worst] > DETERMINED:
        raise IdentificationError(
            f"Expected a confounder that varies beyond the text, but the text predicts "
            f"{names[worst]!r} with an out-of-fold R2 of {r2[worst]:.3f} (above {DETERMINED}) over "
            f"{fit.n_obs} rows: their effects cannot be told apart. Use method='iv' with an "
            "instrument that moves the confounder, or a design that varies it at random."
        )


def _diagnose(
    task: Task, s: _Split, y: np.ndarray, c: np.ndarray, deconfounded: np.ndarray,
    reward: np.ndarray, log: list[str],
) -> dict[str, Any]:  # fmt: skip
    fit = s.fit
    terms = task.designs["confounders"].slope_terms
    v = stages.stacked_columns(s.rows, lambda b: residuals_of(b, fit)[0])[fit.d]
    squares = v**2
    ess = float((squares.sum(axis=1) ** 2 / (squares**2).sum(axis=1)).min())
    share = np.quantile(np.abs(v), [0.1, 0.5, 0.9], axis=1) / c.std(axis=1)
    error = deconfounded - reward
    out: dict[str, Any] = {
        "entanglement": dict(zip(terms, fit.r2[fit.d].tolist(), strict=True)),
        "ess": ess,
        "residual_share": dict(zip(terms, share.T.tolist(), strict=True)),
        "trimmed": 0,
        "dropped": {},
        "folds": fit.n_folds,
        "n_clusters": task.n_clusters,
        "cluster_errors": None if s.sums is None else "jackknife" if s.jackknife else "scores",
        "n_features": len(s.names),
        "r2": float(1 - np.mean(error**2) / np.var(deconfounded)),
        "r2_outcome": float(fit.r2[-1]),
    }
    test = s.instrumental or s.effect
    out["hausman"] = _hausman(test, task.n_clusters)
    if task.fold_groups is not None and s.gamma is not None and task.method == "plr":
        out["fold_groups"] = task.fold_groups
        if out["cluster_errors"] == "scores" and 2 * task.fold_groups < (task.n_clusters or 0):
            warn(
                f"Texts that occur in several of the {task.n_clusters} clusters of "
                f"{task.cluster!r} tie them together in {task.fold_groups} groups, which folds "
                "cannot split: nuisances must extrapolate from group to group, and standard errors "
                "are too small (by a fifth in simulations with 24 groups of 60 clusters). Drop "
                "repeated texts, cluster by what shares texts (such as the story), or leave out "
                "nuisance= with up to 100 clusters, whose errors then leave each cluster out.",
                IdentificationWarning,
                log,
            )
    if task.method == "iv":
        out["reduced_form"] = strengths.reduced_form(task, s.rows)
    elif task.method in ("plr", "joint") and s.effect is not None:
        scale = strengths.scales(fit, s.effect).tolist()
        out["scale"] = dict(zip(terms, scale, strict=True))
        out["benchmarks"] = strengths.benchmarks(fit, task.ridge)
    # Does the confounder's effect change with the reward? A score test of the product.
    inside = v * (reward - reward.mean())
    slope = (v * inside).sum(axis=1) / squares.sum(axis=1)
    moment = (inside - slope[:, None] * v) * error
    with np.errstate(invalid="ignore", divide="ignore"):
        z = moment.sum(axis=1) / np.sqrt((moment**2).sum(axis=1))
    out["additivity_z"] = dict(zip(terms, z.tolist(), strict=True))
    if s.instrumental is not None and s.instrumental.first_stage is not None:
        stage = s.instrumental.first_stage
        out["first_stage"] = {
            "coef": stage.coef, "f": stage.f, "effective_f": stage.effective_f,
            "critical": stage.critical,
        }  # fmt: skip
        if (stage.effective_f < stage.critical).any():
            warn(
                f"Weak instruments: effective first-stage F {stage.effective_f.min():.1f}, below "
                f"{stage.critical.max():.1f}. Standard errors are not to be trusted; read the "
                "Anderson-Rubin set, result_.anderson_rubin().",
                IdentificationWarning,
                log,
            )
    if np.max(fit.r2[fit.d]) > DETERMINED and task.method != "iv":
        warn(
            f"The text predicts a confounder with R2 {np.max(fit.r2[fit.d]):.3f}: no method "
            "without an instrument can tell their effects apart.",
            IdentificationWarning,
            log,
        )
    return out


def _hausman(effect: LinearEffect | None, n_clusters: int | None) -> dict[str, float]:
    """Test that the outcome's slope on the confounder alone is that given the text."""
    none = {"statistic": math.nan, "df": 0, "p_value": math.nan}
    if effect is None:
        return none
    q = len(effect.theta)
    joint = effect.joint.get("cluster", effect.joint["robust"])
    apart = np.hstack([np.eye(q), -np.eye(q)])
    try:
        statistic, df, p = wald(
            effect.naive - effect.theta, apart @ joint @ apart.T,
            None if n_clusters is None else n_clusters - 1.0,
        )  # fmt: skip
    except IdentificationError:  # text that predicts nothing: no difference to test
        return none
    return {"statistic": statistic, "df": df, "p_value": p}


def _gammas(task: Task, s: _Split, used: np.ndarray) -> pd.DataFrame:
    terms = task.designs["confounders"].slope_terms
    q = len(terms)
    rows: list[tuple[Any, ...]] = []
    ways = ((s.effect, "given the text", "plr"), (s.instrumental, "by instrument", "iv"))
    for effect, way, method in ways:
        if effect is None:
            continue
        joint = effect.joint.get("cluster", effect.joint["robust"])
        se = np.sqrt(np.diag(joint))
        if not rows:
            rows += [("alone", *v) for v in zip(terms, effect.naive, se[q:], strict=True)]
        own = np.sqrt(np.diag(used)) if task.method == method else se[:q]
        rows += [(way, *v) for v in zip(terms, effect.theta, own, strict=True)]
    return pd.DataFrame(rows, columns=["way", "term", "estimate", "std_error"])


def _overlap(terms: tuple[str, ...], s: _Split, c: np.ndarray) -> pd.DataFrame:
    fit = s.fit
    rows: list[tuple[Any, ...]] = []
    v = stages.stacked_columns(s.rows, lambda b: residuals_of(b, fit)[0])[fit.d]
    c = c + fit.mean[fit.d, None]
    for term, actual, left in zip(terms, c, v, strict=True):
        order = np.argsort(actual - left, kind="stable")
        for part in np.array_split(order, min(20, max(len(order) // 20, 1))):
            low, high = np.quantile(actual[part], [0.1, 0.9])
            rows.append((term, float((actual - left)[part].mean()), float(actual[part].mean()),
                         float(low), float(high)))  # fmt: skip
    return pd.DataFrame(rows, columns=["term", "predicted", "mean", "low", "high"])


def _largest(names: tuple[str, ...], coef: np.ndarray, covariance: np.ndarray) -> pd.DataFrame:
    se = np.sqrt(np.diag(covariance))[1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        order = np.argsort(-np.nan_to_num(np.abs(coef[1:]) / se), kind="stable")[:20]
    columns = {
        "term": [names[i] for i in order], "estimate": coef[1:][order], "std_error": se[order],
    }  # fmt: skip
    return pd.DataFrame(columns)
