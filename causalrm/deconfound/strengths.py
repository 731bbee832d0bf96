"""What a sensitivity analysis needs of a deconfounded reward, from Gram matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from causalrm.core.blocks import Rows
from causalrm.core.errors import DataError
from causalrm.deconfound import _kernels as k
from causalrm.deconfound import stages
from causalrm.deconfound.folds import Columns, terms_of
from causalrm.deconfound.linear_effect import LinearEffect, linear_effect
from causalrm.deconfound.linear_nuisance import Nuisance, cross_fitted, partial_out
from causalrm.deconfound.result import DeconfoundedResult
from causalrm.deconfound.sensitivity import benchmark
from causalrm.deconfound.task import Task

_MOST = 50  # features up to which each is left out


def scales(fit: Nuisance, effect: LinearEffect) -> np.ndarray:
    """S of every confounder column, shape (q,): root of error variance times E[alpha^2]."""
    total = float(fit.weight_sum.sum())
    inverse = k.solve(effect.residual_products, np.eye(fit.q))
    return np.sqrt(effect.sigma2 * total * np.diag(inverse))


def reduced_form(task: Task, rows: Rows) -> pd.DataFrame:
    """Effects of the instruments on the outcome: what a hidden cause of both would move."""
    roles = task.roles | {"confounders": task.designs["instruments"]}
    fit = stages.without_controls(partial_out(rows, controls=stages.NONE, ridge=1.0, **roles))
    effect = linear_effect(rows, fit, cluster=task.cluster, n_clusters=task.n_clusters)
    frame = {
        "term": terms_of(task.designs["instruments"]), "estimate": effect.theta,
        "std_error": np.sqrt(np.diag(effect.covariance)), "scale": scales(fit, effect),
    }  # fmt: skip
    return pd.DataFrame(frame)


def examined(result: DeconfoundedResult, term: str | None) -> pd.Series:
    """Estimate, standard error and scale of the effect that a sensitivity analysis is about."""
    d = result.diagnostics
    if "reduced_form" in d:
        frame = d["reduced_form"].set_index("term")
    elif "scale" in d:
        q = len(result.gamma)
        columns = {
            "estimate": result.gamma, "std_error": result.std_error[:q], "scale": d["scale"]
        }  # fmt: skip
        frame = pd.DataFrame(columns, index=list(result.term[:q]))
    else:
        raise DataError(
            f"Expected a fit by 'plr', 'joint', 'iv' or 'fixed_effects', but {result.method!r} is "
            "right under assumptions of another kind. Fit one of these."
        )
    name = frame.index[0] if term is None else term
    if name not in frame.index:
        raise DataError(f"Expected one of {list(frame.index)}, but saw {term!r}. Give one.")
    row: pd.Series = frame.loc[name]
    return row


def benchmarks(fit: Nuisance, ridge: float) -> pd.DataFrame:
    """Strengths of the text, and of each feature: `term, benchmark, cf_y, cf_d`.

    They are those of a hidden confounder that explains as much, given the rest, as they do.
    """
    sigma2, nu2, spread = _moments(fit, fit.products.sum(axis=0))
    short = {"text": _moments(fit, fit.centred)}
    features = terms_of(fit.controls)
    by_gram = len(fit.gram[0]) == len(fit.terms)  # else nuisances are those of a learner
    for j, feature in enumerate(features if by_gram and 1 < fit.p <= _MOST else ()):
        kept = np.delete(np.arange(len(fit.terms)), 1 + j)
        names = tuple(fit.terms[i] for i in kept)
        rest = Columns(names[1 : fit.p], names[1 : fit.p])
        without = replace(
            fit, controls=rest, terms=names, shift=fit.shift[kept], scale=fit.scale[kept]
        )
        gram = fit.gram[:, kept][:, :, kept]
        without = cross_fitted(without, gram, ridge)
        short[feature] = _moments(without, without.products.sum(axis=0))
    rows = [
        (term, name, *benchmark(sigma2, nu2[i], s2, n2[i], spread))
        for i, term in enumerate(terms_of(fit.confounders))
        for name, (s2, n2, _) in short.items()
    ]
    return pd.DataFrame(rows, columns=["term", "benchmark", "cf_y", "cf_d"])


def chosen(
    known: pd.DataFrame | None, term: str, names: Sequence[str] | None
) -> dict[str, tuple[float, float]]:
    """Strengths of features beside a confounder; of "text" and the five strongest by default."""
    if known is None:
        if names:
            raise DataError(
                f"Expected benchmarks with their strengths, but saw {names!r}: this method has "
                "none of its own. Give a mapping such as {'as strong as': (0.1, 0.1)}."
            )
        return {}
    own = known[known["term"] == term].set_index("benchmark")[["cf_y", "cf_d"]]
    if names is None:
        product = (own["cf_y"] * own["cf_d"]).drop("text").sort_values(ascending=False)
        names = ["text", *product.index[:5]]
    unknown = [n for n in names if n not in own.index]
    if unknown:
        raise DataError(
            f"Expected benchmarks among {list(own.index)[:20]}, but saw {unknown}. Features are "
            "compared where there are fifty columns at most."
        )
    return {n: (float(own["cf_y"][n]), float(own["cf_d"][n])) for n in names}


def _moments(fit: Nuisance, s: np.ndarray) -> tuple[float, np.ndarray, float]:
    """Error variance of the outcome, E[alpha^2] of every confounder, variance of the outcome."""
    d, total = fit.d, float(fit.weight_sum.sum())
    inverse = k.solve(s[d, d], np.eye(fit.q))
    error = float(s[-1, -1] - s[-1, d] @ inverse @ s[d, -1])
    return error / total, total * np.diag(inverse), float(fit.centred[-1, -1]) / total
