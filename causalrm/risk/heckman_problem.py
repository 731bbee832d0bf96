"""The posterior of a Heckman selection model: rows, priors, constraints, coordinates."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from causalrm.core.blocks import Block, Rows
from causalrm.core.linear import Predictors
from causalrm.risk import _kernels_heckman as ker

_DRAWS = 64  # so many draws of a block's predictors stay in the cache


@dataclass(frozen=True, eq=False)
class HeckmanLikelihood:
    """Likelihood of the raw coefficients (outcome, selection, log sigma, atanh rho).

    Attributes
    ----------
    rows : Rows
    predictors : Predictors
        Of outcome and selection, and two free numbers.
    outcome, selected : str
        Columns; the outcome is read where `selected` is not 0.
    weights : str, optional
        Column of weights.
    mean_weight : float
        By which weights are divided.
    """

    rows: Rows
    predictors: Predictors
    outcome: str
    selected: str
    weights: str | None = None
    mean_weight: float = 1.0

    def columns(self, block: Block) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Outcome, selection and weight of the rows of a block."""
        seen = np.ascontiguousarray(block[self.selected], dtype=np.float64)
        if self.weights is None:
            weight = np.ones(len(seen))
        else:
            weight = np.asarray(block[self.weights], dtype=np.float64) / self.mean_weight
        return np.ascontiguousarray(block[self.outcome], dtype=np.float64), seen, weight

    def sums(self, theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """Value, score, Hessian and meat of the internal coefficients, for `maximize`."""
        value, score, hessian = self.rows.total(_sums, self, theta)
        return value, score, hessian, np.zeros_like(hessian)

    def raw(self, theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Value, gradient and Hessian in the raw coefficients."""
        t = self.inverse
        value, score, hessian, _ = self.sums(t @ theta)
        return value, t.T @ score, t.T @ hessian @ t

    def raw_values(self, thetas: np.ndarray) -> np.ndarray:
        """Log-likelihood at each of S raw coefficient vectors, shape (S, k)."""
        (out,) = self.rows.total(_values, self, thetas @ self.inverse.T)
        return np.asarray(out)

    @property
    def inverse(self) -> np.ndarray:
        """Matrix from raw to internal coefficients."""
        return np.asarray(np.linalg.solve(self.predictors.transform(), np.eye(self.n_params)))

    @property
    def terms(self) -> tuple[list[str], list[str]]:
        """Names of the coefficients of outcome and selection."""
        p = self.predictors
        return list(p.unique[p.which[0]].terms), list(p.unique[p.which[1]].terms)

    @property
    def n_params(self) -> int:
        """Number of parameters, sigma and rho among them."""
        return self.predictors.n_params


def _sums(
    block: Block, model: HeckmanLikelihood, theta: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    y, seen, weight = model.columns(block)
    n, p = len(y), model.predictors
    xs = p.matrices(block, n)
    m, w, log_sigma, z = p.values(xs, theta)
    g, h = np.empty((4, n)), np.empty((10, n))
    m, w = (np.ascontiguousarray(np.broadcast_to(v, n)) for v in (m, w))
    with np.errstate(all="ignore"):
        value = ker.derivatives(y, seen, weight, m, w, float(log_sigma), float(z), g, h)
        return value, p.score(xs, list(g)), p.hessian(xs, h[None])[0]


def _values(block: Block, model: HeckmanLikelihood, thetas: np.ndarray) -> tuple[np.ndarray]:
    y, seen, weight = model.columns(block)
    p = model.predictors
    xs = p.matrices(block, len(y))
    a, b = (np.asarray(p.part(xs, i)) for i in (0, 1))
    out = np.empty(len(thetas))
    for first in range(0, len(thetas), _DRAWS):
        some = thetas[first : first + _DRAWS]
        m, w = some[:, p.slices[0]] @ a, some[:, p.slices[1]] @ b
        l, z = np.ascontiguousarray(some[:, -2]), np.ascontiguousarray(some[:, -1])  # noqa: E741
        out[first : first + _DRAWS] = ker.values(y, seen, weight, m, w, l, z)
    return (out,)


@dataclass(frozen=True, eq=False)
class HeckmanProblem:
    r"""Posterior density of unconstrained coordinates `u`.

    With ``v = base + basis @ u`` and v = (outcome :math:`\beta`, own :math:`\delta`,
    :math:`\log\sigma`, :math:`\operatorname{atanh}\rho`), the coefficients of selection are
    :math:`\delta + (\rho/\sigma)\,M\beta`: a row of M is 0 where they are free, and picks the
    outcome's coefficient of the same term where selection may depend on it through the outcome
    alone (:math:`\delta` is then 0, or small under soft expertise).

    Attributes
    ----------
    likelihood : HeckmanLikelihood
    through : ndarray of shape (q, p)
        The matrix M.
    base : ndarray of shape (k,)
    basis : ndarray of shape (k, n_u)
    directions : ndarray of shape (r, k)
        Rows a of normal densities: ``a @ v`` around `centers` with `sds`.
    centers, sds : ndarray of shape (r,)
    sigma_sd, covariance_sd : float
        Scales of the half-normal prior of sigma and the normal one of rho sigma.
    sign : int
        1 or -1: rho has this sign. 0: any.
    """

    likelihood: HeckmanLikelihood
    through: np.ndarray
    base: np.ndarray
    basis: np.ndarray
    directions: np.ndarray
    centers: np.ndarray
    sds: np.ndarray
    sigma_sd: float
    covariance_sd: float
    sign: int = 0

    @property
    def p(self) -> int:
        """Number of coefficients of the outcome."""
        return int(self.through.shape[1])

    @property
    def n_u(self) -> int:
        """Number of unconstrained coordinates; the last is atanh rho."""
        return int(self.basis.shape[1])

    def coefficients(self, u: np.ndarray) -> np.ndarray:
        """Raw coefficients of `u`, of shape (..., k): a vector or S of them."""
        v = self.base + u @ self.basis.T
        ratio = np.tanh(v[..., -1:]) * np.exp(-v[..., -2:-1])
        v[..., self.p : -2] += ratio * (v[..., : self.p] @ self.through.T)
        return np.asarray(v)

    def project(self, theta: np.ndarray) -> np.ndarray:
        """Coordinates of the nearest point that the constraints allow."""
        v = np.array(theta, dtype=float)
        ratio = math.tanh(v[-1]) * math.exp(-v[-2])
        v[self.p : -2] -= ratio * (self.through @ v[: self.p])
        return np.asarray(np.linalg.lstsq(self.basis, v - self.base, rcond=None)[0])

    def _scalars(self, v: np.ndarray) -> np.ndarray:
        """Log prior of log sigma and atanh rho, their Jacobian included; shape (...)."""
        s2, r2 = np.exp(2 * v[..., -2]), np.tanh(v[..., -1]) ** 2
        value = -0.5 * s2 / self.sigma_sd**2 - 0.5 * s2 * r2 / self.covariance_sd**2
        log_cosh = np.logaddexp(v[..., -1], -v[..., -1]) - math.log(2.0)
        return np.asarray(value + 2 * v[..., -2] - 2 * log_cosh)

    def values(self, u: np.ndarray) -> np.ndarray:
        """Log posterior density, up to a constant, at S points of shape (S, n_u)."""
        v = self.base + u @ self.basis.T
        z = (v @ self.directions.T - self.centers) / self.sds
        value = self.likelihood.raw_values(self.coefficients(u))
        return np.asarray(value - 0.5 * (z * z).sum(axis=1) + self._scalars(v))

    def derivatives(self, u: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """Log posterior density with gradient and Hessian, and zeros, for `maximize`."""
        p = self.p
        v = self.base + self.basis @ u
        s2, r = math.exp(min(2 * v[-2], 600.0)), math.tanh(v[-1])
        inv, c = math.exp(-v[-2]), 1.0 - r * r
        value, g, h = self.likelihood.raw(self.coefficients(u))

        # selection coefficients: delta + ratio * M beta
        mb = self.through @ v[:p]
        ratio, slope = r * inv, c * inv  # d ratio / d atanh rho
        jacobian = np.eye(len(v))
        jacobian[p:-2, :p] = ratio * self.through
        jacobian[p:-2, -2], jacobian[p:-2, -1] = -ratio * mb, slope * mb
        own = g[p:-2]
        bend = np.zeros_like(h)
        mg = self.through.T @ own
        bend[:p, -2], bend[:p, -1] = -ratio * mg, slope * mg
        bend[-2, -1] = -slope * float(own @ mb)
        bend += bend.T
        bend[-2, -2], bend[-1, -1] = ratio * float(own @ mb), -2 * r * slope * float(own @ mb)
        g, h = jacobian.T @ g, jacobian.T @ h @ jacobian + bend

        z = (self.directions @ v - self.centers) / self.sds
        scaled = self.directions / self.sds[:, None]
        value += float(self._scalars(v)) - 0.5 * float(z @ z)
        g -= scaled.T @ z
        h -= scaled.T @ scaled
        a, b = 1 / self.sigma_sd**2, 1 / self.covariance_sd**2
        g[-2] += 2.0 - s2 * (a + b * r * r)
        g[-1] += -2 * r - s2 * b * r * c
        h[-2, -2] -= 2 * s2 * (a + b * r * r)
        h[-2, -1] -= 2 * s2 * b * r * c
        h[-1, -2] -= 2 * s2 * b * r * c
        h[-1, -1] -= 2 * c + s2 * b * c * (1 - 3 * r * r)
        h = self.basis.T @ h @ self.basis
        return value, self.basis.T @ g, h, np.zeros_like(h)
