"""Predictions of a fitted survival regression, block by block, with the delta method."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from causalrm.core.blocks import Block, length, pieces
from causalrm.core.design import encode_new
from causalrm.core.errors import DataError
from causalrm.core.result import check_level, quantile
from causalrm.survival import _kernels as K
from causalrm.survival.model import Model


def _gauss_legendre(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(size)
    return 0.5 * (nodes + 1.0), 0.5 * weights


_RULE, _PANEL = _gauss_legendre(40), _gauss_legendre(20)
_SHARES = (0.02, 0.9, 1.0 - 1e-5)  # of the fall of a survivor function, where panels meet


def rmst_rule(horizon: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights for the integral of smooth survivor functions over [0, horizon].

    Gauss-Legendre in v with t = horizon v^4, which smooths t^gamma at zero for small gamma. It
    is one rule for all rows, for averages over them; `Points.rmst` adapts to each row.
    """
    v, w = _RULE
    return horizon * v**4, horizon * 4.0 * v**3 * w


class Points:
    """The parameters of a block of new rows and their covariance.

    Attributes
    ----------
    a, b, c : ndarray of shape (n,)
        log phi, log lambda, log gamma.
    kappa : float
    xs : list of ndarray
        Designs of the block, each of shape (p, n).
    """

    def __init__(self, model: Model, theta: np.ndarray, block: Any, n: int):
        self.model = model
        self.n = n
        self.xs = model.predictors.matrices(block, n)
        self.a, self.b, self.c, self.kappa = model.parameters(self.xs, theta, n)

    def covariance(self, cov: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
        """Covariance of (a, b, c, nu) of each row, as arrays of shape (n,) by index pair."""
        p = self.model.predictors
        out: dict[tuple[int, int], np.ndarray] = {}
        for j, sj in enumerate(p.slices):
            xj = p.part(self.xs, j)
            for i in range(j + 1):
                xi, block = p.part(self.xs, i), cov[p.slices[i], sj]
                left = np.repeat(block.T, self.n, axis=1) if xi is None else block.T @ xi
                right = np.ones((1, self.n)) if xj is None else xj
                out[self.model.active[i], self.model.active[j]] = np.einsum("pn,pn->n", left, right)
        return out

    def variance(self, gradient: np.ndarray, cov: dict[tuple[int, int], np.ndarray]) -> np.ndarray:
        """Variance of a function of (a, b, c, nu) with `gradient` of shape (4, n)."""
        total = np.zeros(self.n)
        for (i, j), v in cov.items():
            total += (1.0 if i == j else 2.0) * gradient[i] * gradient[j] * v
        return np.clip(total, 0.0, None)

    def curves(self, time: float | np.ndarray) -> np.ndarray:
        """H, gradient, log h, gradient at one time per row: shape (10, n)."""
        t = np.broadcast_to(np.asarray(time, dtype=float), (self.n,))
        return K.curves(np.ascontiguousarray(t), self.a, self.b, self.c, self.kappa)

    def rmst(self, horizon: float, gradient: bool) -> tuple[np.ndarray, np.ndarray]:
        """Restricted mean up to `horizon` and its gradient (4, n).

        Gauss-Legendre between 0, quantiles of each row and the horizon: a survivor function that
        falls within a small part of the range is lost between the nodes of one rule for all rows.
        """
        fall = -np.expm1(-self.curves(horizon)[0])
        ends = [np.zeros(self.n)]
        for share in _SHARES:
            t = K.quantile(share * fall, self.a, self.b, self.c, self.kappa)
            ends.append(np.clip(t**0.25, ends[-1], horizon**0.25))
        ends.append(np.full(self.n, horizon**0.25))
        value, slope = np.zeros(self.n), np.zeros((4, self.n))
        for low, high in itertools.pairwise(ends):
            for x, w in zip(*_PANEL, strict=True):
                v = low + (high - low) * x  # t = v^4 smooths t^gamma at zero for small gamma
                curve = self.curves(v**4)
                s = w * (high - low) * 4.0 * v**3 * np.exp(-curve[0])
                value += s
                if gradient:
                    slope -= s * np.where(s > 0, curve[1:5], 0.0)  # else 0 times infinity
        return value, slope

    def cure(self) -> tuple[np.ndarray, np.ndarray]:
        """Log of minus log cure fraction, and its gradient (4, n)."""
        k = self.kappa
        value = self.b + math.log((k + 1.0) / -k)
        gradient = np.zeros((4, self.n))
        gradient[1] = 1.0
        gradient[3] = 1.0 - (k + 1.0) / k  # d/dnu of nu - log(-k)
        return value, gradient


# Each quantity gives, per column: value on a scale where it is near normal, the gradient there
# (or None), and the way back.
Quantity = Callable[[Points, float, bool], tuple[np.ndarray, np.ndarray]]


def _log_cumulative(points: Points, time: float, gradient: bool) -> tuple[np.ndarray, np.ndarray]:
    curve = points.curves(time)
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = (curve[0] > 0) & (curve[0] < np.inf)
        return np.log(curve[0]), np.where(inside, curve[1:5] / curve[0], 0.0)


def _log_hazard(points: Points, time: float, gradient: bool) -> tuple[np.ndarray, np.ndarray]:
    if time == 0.0:  # the limit: t^(gamma - 1)
        g = np.exp(points.c)
        at_one = points.a + points.b
        value = np.where(g > 1, -np.inf, np.where(g < 1, np.inf, at_one))
        slope = np.zeros((4, points.n))
        slope[:2] = g == 1  # log h(0) = log phi + log lambda
        return value, slope
    curve = points.curves(time)
    return curve[5], curve[6:10]


def _log_quantile(points: Points, p: float, gradient: bool) -> tuple[np.ndarray, np.ndarray]:
    t = K.quantile(np.full(points.n, p), points.a, points.b, points.c, points.kappa)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.log(t)
        if not gradient:
            return value, np.zeros((4, points.n))
        ok = np.isfinite(t) & (t > 0)
        curve = points.curves(np.where(ok, t, 1.0))
        slope = -curve[1:5] / (np.exp(curve[5]) * np.where(ok, t, 1.0))
    return value, np.where(ok, slope, np.nan)


def _logit_rmst(points: Points, horizon: float, gradient: bool) -> tuple[np.ndarray, np.ndarray]:
    value, slope = points.rmst(horizon, gradient)
    share = np.clip(value / horizon, 1e-300, 1.0 - 1e-16)
    return np.log(share / (1 - share)), slope / (horizon * share * (1 - share))


def _cloglog_cure(points: Points, _: float, gradient: bool) -> tuple[np.ndarray, np.ndarray]:
    return points.cure()


_BACK: dict[str, tuple[Quantity, Callable[[np.ndarray, float], np.ndarray]]] = {
    "survival": (_log_cumulative, lambda x, _: np.exp(-np.exp(x))),
    "cumulative_hazard": (_log_cumulative, lambda x, _: np.exp(x)),
    "hazard": (_log_hazard, lambda x, _: np.exp(x)),
    "quantile": (_log_quantile, lambda x, _: np.exp(x)),
    "rmst": (_logit_rmst, lambda x, h: h / (1.0 + np.exp(-x))),
    "cure": (_cloglog_cure, lambda x, _: np.exp(-np.exp(x))),
}
_DECREASING = {"survival", "cure"}


def check_times(times: Any, what: str, open_end: bool = False) -> np.ndarray:
    """Times (or horizons, probabilities) as a vector, or a `DataError`."""
    try:
        t = np.atleast_1d(np.asarray(times, dtype=float))
    except (TypeError, ValueError) as error:
        raise DataError(f"Expected {what} as a number or a sequence, but saw {times!r}.") from error
    if t.ndim != 1 or t.size == 0 or not np.isfinite(t).all():
        raise DataError(
            f"Expected finite {what} in one dimension, but saw {times!r}. Give a number or a list."
        )
    bad = (t <= 0) if open_end else (t < 0)
    if bad.any():
        raise DataError(
            f"Expected {what} {'above' if open_end else 'of at least'} 0, but "
            f"{int(bad.sum())} of {t.size} are not (first: {t[bad][0]:g}). Remove them."
        )
    return t


def predict(
    model: Model,
    theta: np.ndarray,
    cov: np.ndarray,
    df: float | None,
    data: Any,
    what: str,
    at: np.ndarray,
    label: str,
    ci: bool,
    level: float,
) -> pd.DataFrame:
    """One column per element of `at`, or with `ci` a long frame indexed by (row, `label`)."""
    check_level(level)
    if ci and not np.isfinite(cov).all():
        raise DataError(
            "Expected a covariance for intervals, but this fit has none (a lasso penalty). Call "
            "with ci=False, or fit with l1_ratio=0."
        )
    quantity, back = _BACK[what]
    source, rows = encode_new(data, model.predictors.unique)
    n, m = rows.n_obs, len(at)
    value = np.empty((n, m))
    se, low, high = (np.empty((n, m)) for _ in range(3)) if ci else (value, value, value)
    z = quantile(level, df)
    for start, points in blocks(model, theta, rows.columns):
        span = slice(start, start + points.n)
        row_cov = points.covariance(cov) if ci else {}
        for j, t in enumerate(at):
            with np.errstate(over="ignore", invalid="ignore"):
                x, slope = quantity(points, float(t), ci)
                value[span, j] = back(x, float(t))
                if ci:
                    sd = np.sqrt(points.variance(slope, row_cov))
                    ends = back(x - z * sd, float(t)), back(x + z * sd, float(t))
                    if what in _DECREASING:
                        ends = ends[::-1]
                    low[span, j], high[span, j] = ends
                    se[span, j] = sd * _slope(what, x, float(t))
    if not ci:
        return pd.DataFrame(value, index=source.index, columns=pd.Index(at, name=label))
    long = {"estimate": value, "std_error": se, "conf_low": low, "conf_high": high}
    return pd.DataFrame(
        {name: x.ravel() for name, x in long.items()},
        index=_long_index(source.index, at, label),
    )


def _long_index(index: pd.Index, at: np.ndarray, label: str) -> pd.MultiIndex:
    n, m = len(index), len(at)
    times = np.tile(at, n)
    if isinstance(index, pd.MultiIndex):
        arrays = [np.repeat(index.get_level_values(i), m) for i in range(index.nlevels)]
        return pd.MultiIndex.from_arrays([*arrays, times], names=[*index.names, label])
    return pd.MultiIndex.from_arrays([index.repeat(m), times], names=[index.name or "row", label])


def _slope(what: str, x: np.ndarray, h: float) -> np.ndarray:
    """Absolute derivative of the way back, for standard errors on the natural scale."""
    if what in _DECREASING:
        e = np.minimum(np.exp(x), 1e3)  # beyond, the product is 0
        return np.asarray(e * np.exp(-e))
    if what == "rmst":
        p = 1.0 / (1.0 + np.exp(-x))
        return np.asarray(h * p * (1.0 - p))
    return np.asarray(np.exp(x))


def blocks(model: Model, theta: np.ndarray, columns: Block) -> Iterator[tuple[int, Points]]:
    """Give the parameters of new rows block by block."""
    for start, block in pieces(columns):
        yield start, Points(model, theta, block, length(block))


def shape_in_words(gamma: float, kappa: float) -> str:
    """The shape of the hazard over time, from its power at zero and at infinity."""
    first, last = gamma - 1.0, gamma * kappa - 1.0
    if math.isinf(kappa):
        return "increasing" if first >= 0 else "decreasing, then increasing"
    if abs(first) < 1e-12 and abs(last) < 1e-12:
        return "constant"
    if first >= 0 and last >= 0:
        return "increasing"
    if first <= 0 and last <= 0:
        return "decreasing"
    return "increasing, then decreasing" if first > 0 else "decreasing, then increasing"
