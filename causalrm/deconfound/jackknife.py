"""Influence of clusters by leaving each of them out, with what its rows teach the nuisances.

A cluster's scores count its own residuals, but not what its rows do to the nuisances of all others.
Where clusters are few, or texts tell clusters apart, that is a good part of the noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from scipy import linalg

from causalrm.core.blocks import Rows
from causalrm.core.errors import IdentificationError
from causalrm.deconfound import _kernels as k
from causalrm.deconfound import stages
from causalrm.deconfound.few_clusters import MOST
from causalrm.deconfound.folds import Folds, with_folds
from causalrm.deconfound.linear_nuisance import Nuisance, cross_fitted, gram_by, targets_of
from causalrm.deconfound.task import Task

_NUMBERS = 20_000_000  # of Gram matrices that are held at once


def left_out(
    task: Task, rows: Rows, fit: Nuisance, source: Nuisance, gamma: stages.Gamma,
    cross: stages.CrossFit | None, fold_of: np.ndarray,
) -> np.ndarray | None:  # fmt: skip
    """Influence of clusters on gamma (G, q), or on gamma and the coefficients (G, q + 1 + p).

    It is (G - 1)/G times what an estimate loses without the cluster, so that the clustered
    covariance is that of the jackknife.

    Parameters
    ----------
    task : Task
    rows : Rows
    fit : Nuisance
        With the text as control.
    source : Nuisance
        What gamma was estimated from.
    gamma : Gamma
    cross : CrossFit or None
    fold_of : ndarray of int of shape (G,)

    Returns
    -------
    ndarray or None
        None where clusters or columns are many, where a learner was given, for "invariance", and
        where estimates need every single cluster.
    """
    g, q, method = len(fold_of), fit.q, task.method
    if g > MOST[0] or method in ("ignore", "invariance"):
        return None
    if method == "plr" and cross is not None:
        if cross.learner is not None:
            return None
        targets = stages.stacked_columns(rows, lambda b: targets_of(b, fit))
        products = cross.without(targets, rows.columns[str(task.cluster)], g)
        try:
            thetas = [k.two_stage(p[:q, :q], p[:q, :q], p[:q, -1])[0] for p in products]
        except IdentificationError:
            return None
        return np.asarray((g - 1) / g * (gamma.theta - np.array(thetas)))
    if method == "input" and cross is not None:
        return None
    with_line = cross is None and source is fit
    out = []
    for one in each_left_out(rows, source, str(task.cluster), fold_of, task.ridge):
        try:
            theta = theta_of(method, one, task.ridge)
            if with_line:
                line = stages.reward_line(one, replace(gamma, theta=theta), task.ridge)
                theta = np.concatenate([theta, line.coef])
        except (IdentificationError, linalg.LinAlgError):
            return None
        out.append(theta)
    if len(out) < g:
        return None
    whole = gamma.theta
    if with_line:
        whole = np.concatenate([whole, stages.reward_line(fit, gamma, task.ridge).coef])
    return np.asarray((g - 1) / g * (whole - np.array(out)))


def each_left_out(
    rows: Rows, fit: Nuisance, cluster: str, fold_of: np.ndarray, ridge: float
) -> Iterator[Nuisance]:
    """The nuisances without each cluster, in order; ends early where they need every cluster."""
    g = len(fold_of)
    if g > MOST[0] or g * fit.gram[0].size > _NUMBERS:
        return
    one_each = Folds(g, 0, cluster)  # as many folds as clusters: one in each
    own = gram_by(with_folds(rows, one_each), fit, g)
    for place, fold in zip(one_each.codes({cluster: np.arange(g)}, 0), fold_of, strict=True):
        gram = fit.gram.copy()
        gram[fold] -= own[place]
        try:
            yield cross_fitted(fit, gram, ridge)
        except (IdentificationError, linalg.LinAlgError):
            return


def theta_of(method: str, fit: Nuisance, ridge: float) -> np.ndarray:
    """Gamma of a method from Gram matrices alone."""
    if method in ("joint", "input"):
        return stages.jointly(fit, ridge).theta
    s = fit.products.sum(axis=0) if method == "plr" else fit.centred
    z = fit.d if method == "residualise" else fit.z
    return k.two_stage(s[z, z], s[z, fit.d], s[z, -1])[0]
