"""The martingale integral of the efficient influence function, row by row.

For a row seen to time Y with event indicator d, with S, H and h survivor function, cumulative
hazard and hazard of the event and G the survivor function of censoring, all at its own treatment
and covariates,

    B(t) = S(t) { d 1(Y <= t) / (S(Y) G(Y)) - int_0^min(Y, t) dH(u) / (S(u) G(u)) },

and for the restricted mean the integral of B over [0, horizon]. Written with C(t) = int_0^t S,
I(t) = int_0^t e^(H - log G) dH and P(t) = int_0^t C e^(H - log G) dH, all of them up to Y, the
second is d 1(Y <= tau) (C(tau) - C(Y)) / (S(Y) G(Y)) - C(tau) I + P, so that one sweep over time
serves all times and horizons.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.polynomial import legendre

from causalrm.survival import _kernels as K
from causalrm.survival.predict import Points

_CHUNK = 1024  # rows at a time: their nodes stay in the second-level cache
_FIRST, _LATER = 28, 14  # nodes on the stretch from zero, and on each later one
_HALVINGS = 6

# Rows of the running integrals: value, gradient in the outcome's (a, b, c, nu), in the censoring's.
_I, _I_OUT, _I_CENS = 0, slice(1, 5), slice(5, 9)
_C, _C_OUT = 9, slice(10, 14)
_P, _P_OUT, _P_CENS = 14, slice(15, 19), slice(19, 23)

type Parameters = tuple[np.ndarray, np.ndarray, np.ndarray, float]  # log phi, lam, gamma; kappa


@lru_cache(maxsize=8)
def _rule(k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights on [0, 1], and the integrals from 0 to each node."""
    z, w = legendre.leggauss(k)
    degree = np.arange(k)
    # coefficients of the interpolating polynomial of a function that is 1 at one node
    coefficients = w * (degree[:, None] + 0.5) * legendre.legvander(z, k - 1).T
    primitive = legendre.legint(coefficients, lbnd=-1, axis=0)
    return 0.5 * (z + 1.0), 0.5 * w, 0.5 * legendre.legval(z, primitive).T


def _parameters(points: Points, rows: np.ndarray) -> Parameters:
    return points.a[rows], points.b[rows], points.c[rows], points.kappa


def _stretch(
    left: float,
    right: np.ndarray,
    out: Parameters,
    cens: Parameters | None,
    before: np.ndarray,
    nodes: int,
) -> np.ndarray:
    """What the running integrals gain between `left` and `right` of each row.

    The variable is u = right s^q, with q so large that powers of time with exponent gamma are
    smooth in s at zero.
    """
    x, w, primitive = _rule(nodes)
    shape = np.exp(out[2] if cens is None else np.minimum(out[2], cens[2]))
    q = np.clip(3.0 / shape, 3.0, 60.0)
    low = (left / right) ** (1.0 / q)
    s = low + (1.0 - low) * x[:, None]
    u = np.maximum(right * s**q, 1e-300)
    du = (1.0 - low) * q * u / s
    flat = u.ravel()

    def curves(p: Parameters) -> np.ndarray:
        a, b, c = (np.tile(v, nodes) for v in p[:3])
        return K.curves(flat, a, b, c, p[3]).reshape(10, *u.shape)

    h = curves(out)
    g = np.zeros((5, *u.shape)) if cens is None else curves(cens)[:5]
    slope = h[1:5] + h[6:10]
    e = np.exp(h[0] + g[0] + h[5]) * du * w[:, None]
    gain = np.zeros_like(before)
    gain[_I] = e.sum(axis=0)
    gain[_I_OUT] = np.einsum("km,jkm->jm", e, slope)
    gain[_I_CENS] = np.einsum("km,jkm->jm", e, g[1:5])
    if len(before) > _C:
        f = np.exp(-h[0]) * du
        f_out = -f * h[1:5]
        mean = before[_C] + primitive @ f
        mean_out = before[_C_OUT, None] + np.einsum("kl,jlm->jkm", primitive, f_out)
        gain[_C] = w @ f
        gain[_C_OUT] = np.einsum("k,jkm->jm", w, f_out)
        e_mean = e * mean
        gain[_P] = e_mean.sum(axis=0)
        gain[_P_OUT] = np.einsum("km,jkm->jm", e, mean_out)
        gain[_P_OUT] += np.einsum("km,jkm->jm", e_mean, slope)
        gain[_P_CENS] = np.einsum("km,jkm->jm", e_mean, g[1:5])
    return gain


@dataclass(frozen=True)
class Brackets:
    """B of each row for each time and horizon, with its derivatives.

    Attributes
    ----------
    value : ndarray of shape (q, n)
    by_outcome, by_censoring : ndarray of shape (q, 4, n)
        Gradients in (a, b, c, nu) of the outcome and of the censoring model.
    """

    value: np.ndarray
    by_outcome: np.ndarray
    by_censoring: np.ndarray


def brackets(
    time: np.ndarray,
    event: np.ndarray,
    outcome: Points,
    censoring: Points | None,
    times: np.ndarray,
    horizons: np.ndarray,
    value: np.ndarray,
    slope: np.ndarray,
    bounds: np.ndarray,
) -> Brackets:
    """B of each row at `times`, then its integrals up to `horizons`.

    Parameters
    ----------
    time, event : ndarray of shape (n,)
    outcome, censoring : Points
        At the rows' own treatment; without censoring None.
    times, horizons : ndarray
    value : ndarray of shape (q, n)
        S at each time and its integral up to each horizon.
    slope : ndarray of shape (q, 4, n)
        Their gradients.
    bounds : ndarray
        Ends of the stretches of time that are integrated one by one, from `stretches`.
    """
    n, size = len(time), 23 if horizons.size else 9
    run = np.zeros((size, n))
    at_end = outcome.curves(time)
    g_end = np.zeros((5, n)) if censoring is None else censoring.curves(time)[:5]
    targets = np.concatenate([times, horizons])
    needed = (event > 0) & (time <= targets.max())
    jump = np.where(needed, np.exp(np.where(needed, at_end[0] + g_end[0], 0.0)), 0.0)
    result = Brackets(np.zeros_like(value), np.zeros_like(slope), np.zeros_like(slope))
    left = 0.0
    for right in bounds:
        rows = np.flatnonzero(time > left)
        for start in range(0, rows.size, _CHUNK):
            i = rows[start : start + _CHUNK]
            run[:, i] += _stretch(
                left, np.minimum(time[i], right), _parameters(outcome, i),
                None if censoring is None else _parameters(censoring, i),
                run[:, i], _LATER if left > 0 else _FIRST,
            )  # fmt: skip
        left = float(right)
        seen = jump * (time <= right)
        for q in np.flatnonzero(targets == right):
            v, dv = value[q], slope[q]
            if q < len(times):
                inner = seen - run[_I]
                result.value[q] = v * inner
                result.by_outcome[q] = dv * inner + v * (seen * at_end[1:5] - run[_I_OUT])
                result.by_censoring[q] = v * (seen * g_end[1:5] - run[_I_CENS])
            else:
                rest = v - run[_C]
                result.value[q] = seen * rest - v * run[_I] + run[_P]
                result.by_outcome[q] = (
                    seen * (at_end[1:5] * rest + dv - run[_C_OUT])
                    - dv * run[_I] - v * run[_I_OUT] + run[_P_OUT]
                )  # fmt: skip
                result.by_censoring[q] = seen * g_end[1:5] * rest - v * run[_I_CENS] + run[_P_CENS]
    return result


def stretches(
    time: np.ndarray,
    event: np.ndarray,
    outcome: Points,
    censoring: Points | None,
    times: np.ndarray,
    horizons: np.ndarray,
    value: np.ndarray,
    slope: np.ndarray,
) -> np.ndarray:
    """Ends of stretches so short that `brackets` of these rows keep still when all are halved.

    Arguments are as in `brackets`, for a sample of rows.
    """
    targets = np.concatenate([times, horizons])
    bounds = np.unique(targets[targets > 0])
    rows = (time, event, outcome, censoring, times, horizons, value, slope)
    now = brackets(*rows, bounds)
    for _ in range(_HALVINGS):
        middle = 0.5 * (bounds + np.concatenate([[0.0], bounds[:-1]]))
        finer = np.sort(np.concatenate([bounds, middle]))
        better = brackets(*rows, finer)
        close = _close(now.value, better.value, 1e-8)
        close &= _close(now.by_outcome, better.by_outcome, 1e-4)
        close &= _close(now.by_censoring, better.by_censoring, 1e-4)
        if close:
            break
        bounds, now = finer, better
    return bounds


def _close(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    return not bool((np.abs(a - b) > tolerance * (1.0 + np.abs(b))).any())
