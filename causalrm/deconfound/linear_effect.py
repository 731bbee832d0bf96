"""Effects of the confounders from cross-fitted linear nuisances, and their uncertainty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from causalrm.core.blocks import Block, Rows
from causalrm.core.errors import IdentificationError
from causalrm.core.linear import dependent_columns
from causalrm.deconfound import _kernels as k
from causalrm.deconfound.linear_nuisance import Nuisance, residuals_of, targets_of


@dataclass(frozen=True)
class FirstStage:
    """How strong the instruments are.

    Attributes
    ----------
    coef : ndarray of shape (m, q)
    f : ndarray of shape (q,)
        Classical first-stage F of each confounder; with several, that of Sanderson and Windmeijer.
    effective_f, critical : ndarray of shape (q,)
        Effective F under the robust or clustered covariance of each first stage, and the value it
        should exceed for a bias of at most a tenth of the worst; with one instrument the robust F.
    """

    coef: np.ndarray
    f: np.ndarray
    effective_f: np.ndarray
    critical: np.ndarray


@dataclass(frozen=True)
class LinearEffect:
    """Effects of the confounders on the outcome, with controls partialled out.

    Attributes
    ----------
    theta : ndarray of shape (q,)
    covariances : dict of str to ndarray of shape (q, q)
        "robust", and "cluster" where clusters were given; without small-sample factors.
    naive : ndarray of shape (q,)
        Slopes of the outcome on the confounders alone.
    joint : dict of str to ndarray of shape (2 q, 2 q)
        Covariances of (theta, naive), for the test that they agree.
    bread : ndarray of shape (q, m)
        ``bread @ (z * e)`` is the influence of a row on theta, with z the residual instruments
        (the residual confounders in the partially linear model), e the error, times the weight.
    sigma2 : float
        Weighted mean of squared errors, residual outcome less residual confounders times theta.
    residual_products : ndarray of shape (q, q)
        Weighted cross products of the residual confounders.
    first_stage : FirstStage or None
    ar_moments : tuple of ndarray or None
        Where there are instruments, sums zy of shape (m,) and zd of shape (m, q), and the
        covariance of zy and the columns of zd.
    """

    theta: np.ndarray
    covariances: Mapping[str, np.ndarray]
    naive: np.ndarray
    joint: Mapping[str, np.ndarray]
    bread: np.ndarray
    sigma2: float
    residual_products: np.ndarray
    first_stage: FirstStage | None = None
    ar_moments: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    @property
    def covariance(self) -> np.ndarray:
        """The clustered covariance where there is one, else the robust one."""
        return self.covariances.get("cluster", self.covariances["robust"])


@dataclass(frozen=True)
class _Scorer:
    """What the second pass computes for each row."""

    nuisance: Nuisance
    theta: np.ndarray
    naive: np.ndarray
    first: np.ndarray

    def __call__(self, block: Block) -> np.ndarray:
        fit = self.nuisance
        v, w = residuals_of(block, fit)
        d, z, y = v[fit.d], v[fit.z], v[-1]
        if fit.weights is not None:
            z = z * w
        raw = targets_of(block, fit)
        c = raw[fit.d] - fit.mean[fit.d, None]
        error = raw[-1] - fit.mean[-1] - self.naive @ c
        if fit.weights is not None:
            error = error * w
        scores = [z * (y - self.theta @ d), c * error]
        if fit.m:
            u = d - self.first.T @ v[fit.z]
            scores += [z * row for row in u]
            scores += [z * row for row in d]
        return np.concatenate(scores)


def _outer(block: Block, scorer: _Scorer) -> tuple[np.ndarray]:
    scores = scorer(block)
    return (scores @ scores.T,)


def _by_row(block: Block, scorer: _Scorer) -> np.ndarray:
    return scorer(block)


def linear_effect(
    rows: Rows, nuisance: Nuisance, *, cluster: str | None = None, n_clusters: int | None = None
) -> LinearEffect:
    r"""Estimate the effects, and in a second pass their covariances.

    Without instruments theta solves ``sum V (Y - V' theta) = 0`` for the out-of-fold residuals V
    of the confounders and Y of the outcome (partialling out); with instruments it is 2SLS on the
    residuals. The clustered covariance of one effect is
    :math:`\sum_g (\sum_{i \in g} \psi_i)^2 / (\sum V^2)^2` with
    :math:`\psi = V (Y - \theta V)`, without small-sample factors.

    Parameters
    ----------
    rows : Rows
        As in `partial_out`.
    nuisance : Nuisance
    cluster : str, optional
        Column of integer codes below `n_clusters`.
    n_clusters : int, optional

    Returns
    -------
    LinearEffect

    Raises
    ------
    IdentificationError
        When controls determine a confounder or an instrument, or instruments do not move the
        confounders.

    References
    ----------
    Chernozhukov et al. (2018), Double/debiased machine learning for treatment and structural
    parameters, Econometrics Journal 21(1), C1-C68, doi 10.1111/ectj.12097.
    """
    fit, q, m = nuisance, nuisance.q, nuisance.m or nuisance.q
    total: np.ndarray = fit.products.sum(axis=0)
    _check_targets(fit, total)
    z, d = fit.z, fit.d
    theta, first, inverse = k.two_stage(total[z, z], total[z, d], total[z, -1])
    naive_bread = k.solve(fit.centred[d, d], np.eye(q))
    naive = naive_bread @ fit.centred[d, -1]
    scorer = _Scorer(fit, theta, naive, first)
    meats: dict[str, np.ndarray] = {"robust": rows.total(_outer, scorer)[0]}
    sums = None
    if cluster is not None:
        assert n_clusters is not None
        sums = rows.grouped(_by_row, cluster, n_clusters, scorer)
        meats["cluster"] = sums.T @ sums
    bread = inverse @ first.T
    # Linear map from the first m + q scores to (theta, naive).
    both = linalg.block_diag(bread, naive_bread)
    joint = {kind: both @ meat[: m + q, : m + q] @ both.T for kind, meat in meats.items()}
    contrast = np.concatenate([-theta, np.zeros(fit.m), [1.0]])
    stage = ar = None
    if fit.m:
        meat = meats["robust"] if sums is None else meats["cluster"]
        stage = _first_stage(fit, total, first, meat[m + q :, m + q :])
        # z * y = z * e + theta z * d, in which the scores are the first m and the last q * m.
        take = np.r_[:m, len(meat) - q * m : len(meat)]
        lift = np.eye(len(take))
        lift[:m, m:] = np.hstack([t * np.eye(m) for t in theta])
        ar = (
            total[fit.z, -1].copy(), total[fit.z, fit.d].copy(),
            lift @ meat[np.ix_(take, take)] @ lift.T,
        )  # fmt: skip
    return LinearEffect(
        theta=theta,
        covariances={kind: c[:q, :q] for kind, c in joint.items()},
        naive=naive,
        joint=joint,
        bread=bread,
        sigma2=float(contrast @ total @ contrast) / float(fit.weight_sum.sum()),
        residual_products=total[d, d].copy(),
        first_stage=stage,
        ar_moments=ar,
    )


def _check_targets(fit: Nuisance, products: np.ndarray) -> None:
    """Refuse confounders or instruments that vary only with the controls, or together."""
    names = fit.terms[1 + fit.p :]
    groups = {"confounders": fit.d} | ({"instruments": fit.z} if fit.m else {})
    for what, part in groups.items():
        dependent = dependent_columns(products[part, part], np.diag(fit.centred)[part])
        if dependent is not None:
            involved = [names[part][i] for i in dependent]
            raise IdentificationError(
                f"Expected {what} that vary beyond the controls and one another, but {involved} "
                f"({len(involved)} of {len(names[part])}) do not. Remove a column or the controls "
                "that determine it, or use an instrument that moves it."
            )
    if not fit.m:
        return
    # Correlations between residual instruments and confounders must have full column rank.
    first = k.solve(products[fit.z, fit.z], products[fit.z, fit.d])
    explained = first.T @ products[fit.z, fit.d]
    dependent = dependent_columns(explained, np.diag(products)[fit.d])
    if dependent is not None:
        involved = [names[fit.d][i] for i in dependent]
        raise IdentificationError(
            f"Expected instruments that move the confounders separately, but they do not move "
            f"{involved}. Give other instruments."
        )


def _first_stage(
    fit: Nuisance, products: np.ndarray, first: np.ndarray, meat: np.ndarray
) -> FirstStage:
    z, d, m = fit.z, fit.d, fit.m
    zz = products[z, z]
    # As if weights had mean one.
    unit = fit.n_obs / float(fit.weight_sum.sum())
    f = k.conditional_f(
        unit * zz, unit * products[z, d], unit * products[d, d], fit.n_obs - 1 - fit.p - m
    )
    inverse = k.solve(zz, np.eye(len(zz)))
    pairs = []
    for j in range(fit.q):
        own = slice(j * m, (j + 1) * m)
        pairs.append(k.effective_f(first[:, j], zz, inverse @ meat[own, own] @ inverse))
    effective, critical = np.array(pairs).T
    return FirstStage(first, f, effective, critical)


def combine(thetas: np.ndarray, covariances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median over R repeated splits, with a covariance that holds their spread.

    Parameters
    ----------
    thetas : ndarray of shape (R, q)
    covariances : ndarray of shape (R, q, q)

    Returns
    -------
    theta : ndarray of shape (q,)
        ``median_r theta_r``, for each effect.
    covariance : ndarray of shape (q, q)
        Its diagonal is ``median_r (se_r**2 + (theta_r - theta)**2)``; its correlations are those of
        the split whose matrix has the median trace.

    Examples
    --------
    >>> theta, covariance = combine(np.array([[1.0], [2.0], [4.0]]), np.ones((3, 1, 1)))
    >>> float(theta[0]), float(covariance[0, 0])
    (2.0, 2.0)
    """
    theta = np.median(thetas, axis=0)
    away = thetas - theta
    spread = covariances + away[:, :, None] * away[:, None, :]
    diagonals = np.diagonal(spread, axis1=1, axis2=2)
    sd = np.sqrt(np.median(diagonals, axis=0))
    middle = spread[np.argsort(diagonals.sum(axis=1), kind="stable")[(len(thetas) - 1) // 2]]
    own = np.sqrt(np.diag(middle))
    ratio = np.divide(sd, own, out=np.ones_like(own), where=own > 0)
    return theta, middle * np.outer(ratio, ratio)
