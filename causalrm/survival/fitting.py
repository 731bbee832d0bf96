"""From a likelihood to estimates: redundancy, starting values, maximum, covariances."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalrm.core.blocks import Block, Rows, length
from causalrm.core.errors import (
    ConvergenceError,
    ConvergenceWarning,
    DataError,
    IdentificationError,
    IdentificationWarning,
    warn,
)
from causalrm.core.inference import (
    condition_number,
    invert_information,
    sandwich,
    warn_of_few,
)
from causalrm.core.linear import dependent_columns
from causalrm.core.optimize import Optimum, maximize
from causalrm.survival import _support as support
from causalrm.survival.model import Model

STARTS = (-2.0, -1.0, -0.5, 0.0, 0.4, 0.7, 1.0, 1.5, 2.5)
_SAMPLE = 2_000  # rows of the first round of a fit; a second takes every 16th, within bounds
_SECOND = (8_192, 131_072)
_ILL = 1e5  # condition number of the information, scaled to unit diagonal
_BOUNDARY = 8.0  # |log(kappa + 1)| beyond which kappa is at the end of its range
_WIDE = 30.0  # standard error per standard deviation of a column that only a runaway has


@dataclass(frozen=True)
class Penalty:
    """Elastic net on the coefficients of covariates, per standard deviation of their column."""

    strength: float
    l1_ratio: float

    def weights(self, model: Model, n: int) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Ridge and lasso weights of the internal coefficients, for `n` rows."""
        if not self.strength:
            return None, None
        size = column_sizes(model)
        ridge = n * self.strength * (1 - self.l1_ratio) * size**2
        return ridge, n * self.strength * self.l1_ratio * size if self.l1_ratio else None


def column_sizes(model: Model) -> np.ndarray:
    """Standard deviation of each internal column; 0 for intercepts and kappa."""
    p = model.predictors
    out = np.zeros(p.n_params)
    for w, f, s in zip(p.which, p.first, p.slices, strict=True):
        if w >= 0:
            terms = p.unique[w].terms[f:]
            sizes = (p.sd[w] * p.scale[w])[f:]
            out[s] = np.where([t == "Intercept" for t in terms], 0.0, sizes)
    return out


def check_redundant(model: Model, rows: Rows) -> None:
    """Refuse two free scales at kappa = 1 with constant gamma, where they are one parameter."""
    phi, lam, gamma = (model.position(name) for name in ("phi", "lam", "gamma"))
    constant = gamma is None or model.predictors.constant(gamma)
    if model.kappa != 1.0 or phi is None or lam is None or not constant:
        return
    (gram,) = rows.total(_scales_gram, model, phi, lam)  # a sample may lack a level
    dependent = dependent_columns(gram)
    if dependent is not None:
        parameter, term = model.labels()
        names = [f"{p}: {t}" for p, t in zip(parameter, term, strict=True) if p in ("phi", "lam")]
        raise IdentificationError(
            "Expected one scale at kappa = 1 with constant gamma, where phi and lam are the same "
            f"up to the factor gamma, but both use {[names[i] for i in dependent]}. Put each "
            "covariate in one of them, and drop one intercept (phi=None or no '1 +' in lam)."
        )


def _scales_gram(block: Block, model: Model, phi: int, lam: int) -> tuple[np.ndarray]:
    """Gram matrix of the columns of both scales side by side."""
    xs = model.predictors.matrices(block, length(block))
    parts = [model.predictors.part(xs, i) for i in (phi, lam)]
    both = np.concatenate([x for x in parts if x is not None])
    return (both @ both.T,)


def search(
    model: Model,
    rows: Rows,
    counts: support.Counts,
    largest: float,
    penalty: Penalty,
    starts: Sequence[float] | None,
    max_iter: int,
) -> tuple[Optimum, dict[str, Any]]:
    """Profile the likelihood over kappa on a sample of rows, then climb on all of them.

    The other parameters are fitted at each starting value of kappa, from those of its neighbour;
    each local maximum of this profile is a place from which to climb freely.

    Parameters
    ----------
    model, rows, counts
    largest : float
        Greatest time.
    penalty : Penalty
    starts : sequence of float or None
        Starting values of log(kappa + 1).
    max_iter : int
        Most steps over all rows.

    Returns
    -------
    Optimum, dict
        And the profile.
    """
    share = counts.informative / rows.n_obs
    size = max(_SAMPLE, math.ceil(25 * model.predictors.n_params / share))
    ridge, lasso = penalty.weights(model, rows.n_obs)
    weak = _weak_prior(model)

    def climb(part: Rows, theta: np.ndarray, free: bool = False, **how: Any) -> Optimum:
        l2, l1 = ridge, lasso
        if not free:  # a sample may lack a level or separate the events
            shrink = part.n_obs / rows.n_obs
            l2 = weak if ridge is None else weak + shrink * ridge
            l1 = None if lasso is None else shrink * lasso
        return maximize(lambda t: part.total(model.sums, t), theta, ridge=l2, lasso=l1, **how)

    first = rows.sample(size) if 4 * size < rows.n_obs else rows
    theta = support.start(model, counts, largest)
    how: dict[str, Any] = {"tol": 1e-2, "max_iter": 60, "max_step": 3.0}
    tried: dict[str, Any] = {"rows": first.n_obs}
    if model.kappa is None:
        nus = np.unique(np.asarray(STARTS if starts is None else starts, dtype=float))
        profile = _profile(lambda t, **k: climb(first, t, **k, **how), theta, nus)
        reached = [-math.inf if o is None else o.value for o in profile]
        tried |= {"nu": nus, "loglik": np.array(reached)}
        # with two scales the model is singular at kappa = 1, and each side has maxima of its own
        two = model.position("phi") is not None and model.position("lam") is not None
        cut = int(np.searchsorted(nus, math.log(2.0))) if two else len(nus)
        peaks = _peaks(profile[:cut]) + _peaks(profile[cut:])
        if not peaks:
            raise ConvergenceError(
                "Expected a finite likelihood at one starting value or more, but it is not at any "
                f"of {len(nus)}. Rescale the time column, or simplify the formulas."
            )
        full = first is rows
        found = [climb(first, o.theta, free=full, **how) for o in peaks]
        theta = max(found, key=lambda o: o.value).theta
    else:
        theta = climb(first, theta, **how).theta
    second = min(max(rows.n_obs // 16, _SECOND[0]), _SECOND[1])
    if 4 * size < second and 4 * second < rows.n_obs:
        theta = climb(rows.sample(second), theta, tol=1e-2, max_iter=30).theta
    return climb(rows, theta, free=True, max_iter=max_iter), tried


def _weak_prior(model: Model) -> np.ndarray:
    """Ridge of normal priors for starting values: sd 1 per sd of a covariate, 3 for log lambda.

    With two free scales the likelihood has a flat ridge near kappa = 1, along which a climb
    without a prior loses its way.
    """
    out = column_sizes(model) ** 2
    lam = model.position("lam")
    if lam is not None and model.position("phi") is not None:
        s = model.predictors.slices[lam]
        out[s] = np.where(out[s] == 0.0, 1.0 / 9.0, out[s])
    return np.asarray(out)


def _profile(
    climb: Callable[..., Optimum], theta: np.ndarray, nus: np.ndarray
) -> list[Optimum | None]:
    """Maxima with log(kappa + 1), the last coordinate, held at each of `nus`."""
    out: list[Optimum | None] = [None] * len(nus)
    middle = int(np.argmin(np.abs(nus - math.log(2.0))))  # near the Weibull, where it is easiest
    for order in (range(middle, len(nus)), range(middle - 1, -1, -1)):
        near = theta if out[middle] is None else out[middle].theta  # type: ignore[union-attr]
        for i in order:
            start = near.copy()
            start[-1] = nus[i]
            try:
                out[i] = found = climb(start, hold=(len(theta) - 1,))
            except ConvergenceError:
                continue
            near = found.theta
    return out


def _peaks(profile: list[Optimum | None]) -> list[Optimum]:
    """Local maxima of a profile, its ends included."""
    values = [-math.inf, *(-math.inf if o is None else o.value for o in profile), -math.inf]
    return [
        o
        for i, o in enumerate(profile)
        if o is not None and values[i + 1] >= values[i] and values[i + 1] >= values[i + 2]
    ]


@dataclass(frozen=True)
class Covariances:
    """Every covariance that the data allow, on the reported scale."""

    matrices: dict[str, np.ndarray]
    used: str
    n_params: int
    df_resid: float | None
    condition: float


def covariances(
    model: Model,
    rows: Rows,
    optimum: Optimum,
    n_clusters: int | None,
    penalty: Penalty,
    used: str,
    log: list[str],
) -> Covariances:
    """Observed-information, sandwich and cluster covariance at an optimum.

    Parameters
    ----------
    model, rows, optimum, penalty
    n_clusters : int or None
        Number of clusters, None without a cluster column.
    used : str
        The `covariance` option.
    log : list of str
        Takes the warnings.
    """
    names = [f"{p}: {t}" for p, t in zip(*model.labels(), strict=True)]
    roles, k = model.roles, len(names)
    ridge, lasso = penalty.weights(model, rows.n_obs)
    information = -optimum.hessian
    out: dict[str, np.ndarray] = {}
    if lasso is not None:
        bread = out["model"] = out["robust"] = np.full((k, k), np.nan)
        condition, _ = condition_number(information)
        k = int(np.count_nonzero(optimum.theta))
        warn(
            "A lasso penalty leaves no valid standard errors; they are missing. Use l1_ratio=0, or "
            "refit the chosen terms without a penalty.",
            IdentificationWarning,
            log,
        )
    else:
        penalised = information if ridge is None else information + np.diag(ridge)
        try:
            bread = invert_information(penalised, names)
        except IdentificationError as error:
            if (end := _at_the_end(optimum, model)) is None:
                raise
            raise IdentificationError(end) from error
        condition, weak = condition_number(penalised)
        if condition > _ILL:
            involved = [n for n, v in zip(names, weak, strict=True) if v > 0.1 * weak.max()]
            warn(
                f"The data hardly separate {involved}: the condition number of the scaled "
                f"information is {condition:.1e}. A parameter may be running to the end of its "
                "range, or two scales may share a covariate while kappa is near 1. Fix or remove "
                "one of them.",
                IdentificationWarning,
                log,
            )
        else:
            _warn_of_runaways(bread, model, names, log)
        out["model"] = bread if ridge is None else sandwich(bread, information)
        out["robust"] = sandwich(bread, optimum.meat)
    df = None
    if n_clusters is not None:
        if n_clusters < 2:
            raise DataError(
                f"Expected at least two clusters in column {roles.cluster!r}, but saw "
                f"{n_clusters}. Leave cluster out."
            )
        sums = rows.grouped(model.scores, str(roles.cluster), n_clusters, optimum.theta)
        out["cluster"] = sandwich(bread, sums.T @ sums, n_clusters / (n_clusters - 1))
        df = float(n_clusters - 1)
        warn_of_few(n_clusters, log)
    if used == "auto":
        weighted = "robust" if roles.weights is not None else "model"
        used = "cluster" if roles.cluster is not None else weighted
    if used not in out:
        raise DataError(
            f"Expected a cluster column for covariance={used!r}, but fit was called without one. "
            "Give fit(..., cluster=...)."
        )
    t = model.predictors.transform()
    return Covariances({name: t @ c @ t.T for name, c in out.items()}, used, k, df, condition)


def _warn_of_runaways(bread: np.ndarray, model: Model, names: list[str], log: list[str]) -> None:
    """Warn of coefficients without a finite estimate, such as that of a level without events.

    The likelihood then flattens out along them: steps end where nothing is left to gain, with a
    standard error that no data would give.
    """
    size = column_sizes(model)
    unit = np.where(size > 0, np.maximum(size, 0.01), 1.0)  # a rare level is a small column
    if model.kappa is None:
        unit[-1] = 0.0  # `warn_about` looks after kappa
    far = np.sqrt(np.diag(bread)) * unit > _WIDE
    if far.any():
        runaways = [name for name, is_far in zip(names, far, strict=True) if is_far]
        warn(
            f"There is no finite estimate of {runaways}: the likelihood keeps rising, ever more "
            "slowly, while they run to infinity, so that their values, intervals and tests mean "
            "nothing. A level, or a combination of covariates, in which nobody has an event does "
            "this. Merge or drop the level, remove the term, or give a penalty.",
            IdentificationWarning,
            log,
        )


def warn_about(optimum: Optimum, model: Model, log: list[str]) -> None:
    """Warn of a maximum that was not reached, or lies at the end of kappa's range."""
    if not optimum.converged:
        warn(
            f"The likelihood was still rising after {optimum.iterations} steps (expected gain of "
            f"the next: {optimum.decrement:.1e}). Raise max_iter, or simplify the model.",
            ConvergenceWarning,
            log,
        )
    if (end := _at_the_end(optimum, model)) is not None:
        warn(end, IdentificationWarning, log)


def _at_the_end(optimum: Optimum, model: Model) -> str | None:
    """What to say of a kappa at the end of its range, or None where it is not."""
    nu = float(optimum.theta[-1])
    if model.kappa is not None or abs(nu) < _BOUNDARY:
        return None
    end, fix = "-1", "Fix kappa, or move covariates from one parameter to another"
    if nu > 0:
        end, fix = "infinity", "Fit kappa='gompertz' or kappa='exponential_power'"
    return f"kappa runs to the end of its range ({end}), where its interval means nothing. {fix}."
