"""Every measure as a function of `Scored`: value, standard error and interval."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from causalrm.calibration import _kernels as k
from causalrm.calibration import _kernels_curve as curve
from causalrm.calibration import _kernels_interval as interval
from causalrm.calibration import _kernels_rank as rank
from causalrm.calibration.scored import Scored
from causalrm.core.inference import quantile, two_sided_p
from causalrm.core.result import Estimate

Floats = NDArray[np.float64]

NAN = math.nan


@dataclass(frozen=True)
class Found:
    """A measure of one set of rows.

    `null` is the value (or the mean of the estimate) under perfect calibration, `reason` says
    why a number is missing.
    """

    estimate: Estimate
    statistic: float = NAN
    null: float = NAN
    reason: str = ""
    corrected: float = NAN  # the estimate less its upward bias, where it has one


# --- measures with a normal limit --------------------------------------------------------------


@dataclass(frozen=True)
class Smooth:
    """A measure that is a smooth function of sums.

    `find` gives it with the reason where it is missing, `variance` the sums' variance, and
    `psi` the influence of each row (needed with clusters, and for comparisons).
    """

    name: str
    find: Callable[[Scored], tuple[float, str]]
    variance: Callable[[Scored], float]
    psi: Callable[[Scored], Floats]
    scale: str = "identity"  # on which the interval is symmetric: identity, log, logit
    null: float = NAN  # value under perfect calibration
    low: float = -math.inf
    high: float = math.inf

    def value(self, s: Scored) -> float:
        """Return the measure alone."""
        return self.find(s)[0]

    def std_error(self, s: Scored) -> float:
        """Standard error under the design of the rows."""
        if s.replicates is not None:
            value = self.value(s)
            everyone = np.ones(s.n, dtype=bool)
            change = [self.value(s.subset(everyone, w)) - value for w in s.replicates.T]
            return float(np.sqrt(4.0 / len(change) * np.square(change).sum()))
        variance = self.variance(s) if s.cluster is None else s.covariance(self.psi(s))[0, 0]
        return float(np.sqrt(variance)) if variance >= 0.0 else NAN

    def __call__(self, s: Scored, level: float) -> Found:
        """Estimate with its interval and the test of perfect calibration."""
        value, reason = self.find(s)
        if reason:
            nothing = Estimate(value, NAN, NAN, NAN, level, self.name)
            return Found(nothing, null=self.null, reason=reason)
        error = self.std_error(s)
        half = quantile(level, s.df)
        if self.scale == "log":
            at, slope = math.log(value), 1.0 / value
        elif self.scale == "logit":
            at, slope = math.log(value / (1.0 - value)), 1.0 / (value * (1.0 - value))
        else:
            at, slope = value, 1.0
        ends = at + np.array([-1.0, 1.0]) * half * error * slope
        if self.scale != "identity":
            ends = np.exp(ends) if self.scale == "log" else expit(ends)
        low, high = np.clip(ends, self.low, self.high)
        statistic = NAN
        if not math.isnan(self.null) and error > 0.0:
            null = math.log(self.null) if self.scale == "log" else self.null
            statistic = (at - null) / (error * slope)
        p_value = float(two_sided_p(np.array(statistic), s.df))
        estimate = Estimate(value, error, float(low), float(high), level, self.name, p_value)
        return Found(estimate, statistic, self.null)


def _mean_psi(s: Scored, columns: Floats) -> Floats:
    w = s.weight_or_one
    return np.asarray((w / w.sum())[:, None] * (columns - np.average(columns, axis=0, weights=w)))


def _moment_psi(s: Scored, gradient: Floats) -> Floats:
    loss = k.log_loss(s.y, s.p)
    loss[np.isinf(loss)] = 0.0
    columns = np.column_stack([s.y, s.p, (s.y - s.p) ** 2, loss])
    return np.asarray(_mean_psi(s, columns) @ gradient)


def _moment(
    name: str,
    value: Callable[[Floats], float],
    gradient: Callable[[Floats], list[float]],
    missing: Callable[[Scored], str] = lambda s: "",
    instead: float = NAN,
    scale: str = "identity",
    null: float = NAN,
    low: float = -math.inf,
    high: float = math.inf,
) -> Smooth:
    # A function of the means of (y, p, Brier score, log loss).
    def both(s: Scored) -> tuple[float, str]:
        reason = missing(s)
        return (instead if reason else value(s.moments.mean)), reason

    def variance(s: Scored) -> float:
        g = np.array(gradient(s.moments.mean))
        return float(g @ s.moments.cov @ g)

    def psi(s: Scored) -> Floats:
        return _moment_psi(s, np.array(gradient(s.moments.mean)))

    return Smooth(name, both, variance, psi, scale, null, low, high)


def _one_class(s: Scored) -> str:
    rate = s.moments.mean[0]
    if 0.0 < rate < 1.0:
        return ""
    return f"all outcomes are {int(rate)}"


def _no_ratio(s: Scored) -> str:
    if s.moments.mean[0] <= 0.0:
        return "no outcome is 1, so the logarithm of O:E is not finite"
    return "" if s.moments.mean[1] > 0.0 else "all scores are 0"


def _infinite(s: Scored) -> str:
    count = s.moments.n_infinite
    return f"infinite: {count:,} rows are certain (p of 0 or 1) and wrong" if count else ""


PREVALENCE = _moment(
    "prevalence", lambda m: float(m[0]), lambda m: [1.0, 0.0, 0.0, 0.0], low=0.0, high=1.0
)
MEAN_SCORE = _moment(
    "mean_score", lambda m: float(m[1]), lambda m: [0.0, 1.0, 0.0, 0.0], low=0.0, high=1.0
)
OBSERVED_EXPECTED = _moment(
    "observed_expected",
    lambda m: float(m[0] / m[1]),
    lambda m: [1.0 / m[1], -m[0] / m[1] ** 2, 0.0, 0.0],
    _no_ratio,
    scale="log",
    null=1.0,
)
BRIER = _moment("brier", lambda m: float(m[2]), lambda m: [0.0, 0.0, 1.0, 0.0], low=0.0, high=1.0)
SCALED_BRIER = _moment(
    "scaled_brier",
    lambda m: float(1.0 - m[2] / (m[0] * (1.0 - m[0]))),
    lambda m: [
        m[2] * (1.0 - 2.0 * m[0]) / (m[0] * (1.0 - m[0])) ** 2,
        0.0,
        -1.0 / (m[0] * (1.0 - m[0])),
        0.0,
    ],
    _one_class,
    high=1.0,
)
LOG_LOSS = _moment(
    "log_loss",
    lambda m: float(m[3]),
    lambda m: [0.0, 0.0, 0.0, 1.0],
    _infinite,
    math.inf,
    low=0.0,
)


def _auc(s: Scored) -> tuple[float, str]:
    found = s.auc
    if math.isnan(found.value):
        return NAN, _one_class(s)
    if not 0.0 < found.value < 1.0 or not found.std_error > 0.0:
        return found.value, "the classes are separated, or one has a single row"
    return found.value, ""


AUC = Smooth(
    "auc",
    _auc,
    lambda s: s.auc.std_error**2,
    lambda s: rank.auc_influence(s.y, s.p, s.w)[1],
    scale="logit",
)

_STATUS = {
    "separated": "the outcomes are all alike or separated by the score, so it has no maximum",
    "singular": "the score has a single value, so a slope is not identified",
}


def _logistic(name: str, slope: bool, null: float) -> Smooth:
    at = -1  # the slope, or the only coefficient

    def value(s: Scored) -> tuple[float, str]:
        found = s.logistic(slope)
        return float(found.coef[at]), _STATUS.get(found.status, "")

    def variance(s: Scored) -> float:
        # The factor n/(n-k) keeps the sandwich from being too small in small samples.
        found = s.logistic(slope)
        size = s.moments.weight**2 / s.moments.weight2
        return float(found.cov_robust[at, at]) * size / max(size - 1.0 - slope, 1.0)

    def psi(s: Scored) -> Floats:
        return s.logistic_psi(slope)[:, at]

    return Smooth(name, value, variance, psi, null=null)


LARGE = _logistic("calibration_in_the_large", False, 0.0)
SLOPE = _logistic("calibration_slope", True, 1.0)


# --- measures that cannot be negative ----------------------------------------------------------


@dataclass(frozen=True)
class Norm:
    """A measure of the size of the gap between curve and score; see `_kernels_interval`."""

    name: str
    value: Callable[[Scored], float]
    statistic: Callable[[Scored], interval.Statistic]
    p_value: Callable[[Scored, float], float] | None = None

    def __call__(self, s: Scored, level: float) -> Found:
        """Estimate, interval by inverted tests, and the test of perfect calibration."""
        value = self.value(s)
        if not s.n_boot or not math.isfinite(value):
            reason = "" if math.isfinite(value) else "infinite: certain scores that are wrong"
            return Found(Estimate(value, NAN, NAN, NAN, level, self.name), reason=reason)
        found = inverted(self, s, level)
        error = found.std_error
        if self.name == "smooth_ece":
            error *= _gain(s)
        p_value = found.p_value if self.p_value is None else self.p_value(s, level)
        low, high = found.low, found.high
        return Found(
            Estimate(value, error, low, high, level, self.name, p_value),
            null=found.null_mean,
            corrected=found.median_unbiased,
        )

    def draws(self, s: Scored, level: float) -> Floats:
        """Simulated statistics at the median-unbiased point of the path."""
        centre = inverted(self, s, level).centre
        return self.statistic(s).draws(centre if math.isfinite(centre) else 1.0)


def inverted(measure: Norm, s: Scored, level: float) -> interval.Inverted:
    """Invert the tests of one measure, once."""
    made: interval.Inverted = s.once(
        f"{measure.name} at {level}", lambda: interval.invert(measure.statistic(s), level)
    )
    return made


def _gain(s: Scored) -> float:
    # The crossing smECE_sigma = sigma moves by less than smECE does at a fixed sigma.
    at = s.smooth_ece
    if at <= 0.0:
        return 1.0
    step = 0.01 * at
    rise = curve.smooth_ece_at(s.spectrum, at + step) - curve.smooth_ece_at(s.spectrum, at - step)
    return 1.0 / (1.0 - min(rise / (2.0 * step), 0.0))


def _curve_value(name: str) -> Callable[[Scored], float]:
    def value(s: Scored) -> float:
        gap = s.smoother @ (s.cells.residual / s.cells.weight)
        return float(getattr(curve.curve_errors(gap, s.cells.weight), name))

    return value


def _curve_statistic(name: str) -> Callable[[Scored], interval.Statistic]:
    return lambda s: curve_statistics(s)[name]


def curve_statistics(s: Scored) -> dict[str, interval.Statistic]:
    """ICI, E50, E90 and Emax on simulated samples, made once."""
    made: dict[str, interval.Statistic] = s.once(
        "curve statistics", lambda: interval.curve_statistics(s.samples, s.smoother)
    )
    return made


def _cumulative_p(s: Scored, level: float) -> float:
    if not s.independent:
        return inverted(ECCE, s, level).p_value
    found = rank.cumulative(s.ties)
    return rank.brownian_range_sf(found.range / found.sigma) if found.sigma > 0.0 else NAN


ECE = Norm("ece", lambda s: k.ece(s.bins), lambda s: interval.binned_statistic(s.samples, s.edges))
SQUARED = Norm(
    "squared_error",
    lambda s: k.squared_error(s.bins).value,
    lambda s: interval.binned_statistic(s.samples, s.edges, squared=True),
)
SMOOTH_ECE = Norm(
    "smooth_ece",
    lambda s: s.smooth_ece,
    lambda s: interval.smooth_statistic(s.node_samples, s.smooth_ece),
)
ICI, E50, E90, EMAX = (
    Norm(name, _curve_value(name), _curve_statistic(name)) for name in ("ici", "e50", "e90", "emax")
)
ECCE = Norm(
    "ecce",
    lambda s: rank.cumulative(s.ties).range,
    lambda s: interval.cumulative_statistic(s.samples),
    _cumulative_p,
)
MCB = Norm(
    "mcb",
    lambda s: s.corp().mcb,
    lambda s: interval.corp_statistic(s.samples, 4),
)
MCB_LOG = Norm(
    "mcb_log",
    lambda s: s.corp(True).mcb,
    lambda s: interval.corp_statistic(s.samples, 6),
)


# --- DSC and UNC -------------------------------------------------------------------------------


def dsc(s: Scored, level: float, log_score: bool = False) -> Found:
    """Discrimination part of the score.

    The bootstrap's interval on the scale of the square root, as the spread grows with the value,
    less the bias of the isotonic fit, and wider by the doubt about that bias.
    """
    name = "dsc_log" if log_score else "dsc"
    found = s.corp(log_score)
    if not s.n_boot:
        return Found(Estimate(found.dsc, NAN, NAN, NAN, level, name))
    centre = inverted(MCB_LOG if log_score else MCB, s, level).centre
    centre = centre if math.isfinite(centre) else 1.0
    statistic = interval.corp_statistic(s.samples, 7 if log_score else 5)
    draws = statistic.draws(centre)
    tail = (1.0 - level) / 2.0
    root, mean = math.sqrt(max(statistic.observed, 0.0)), max(float(draws.mean()), 0.0)
    error = np.sqrt(np.maximum(np.quantile(draws, [1.0 - tail, tail]), 0.0)) - math.sqrt(mean)
    bias = mean - statistic.truth(centre)
    length = np.maximum(root - error, 0.0) ** 2 - root**2
    length = np.sign(length) * np.hypot(length, interval.doubt(bias, level))
    ends = root**2 - bias + length
    low, high = (float(min(max(x, 0.0), found.unc)) for x in ends)
    return Found(Estimate(found.dsc, float(draws.std()), low, high, level, name))


def unc(s: Scored, level: float, log_score: bool = False) -> Found:
    """Uncertainty part, a function of the prevalence alone; Wilson's interval, carried over."""
    name = "unc_log" if log_score else "unc"
    rate = float(s.moments.mean[0])

    def part(q: Floats) -> Floats:
        if not log_score:
            return np.asarray(q * (1.0 - q))
        with np.errstate(divide="ignore", invalid="ignore"):
            h = -q * np.log(q) - (1.0 - q) * np.log1p(-q)
        return np.asarray(np.where((q > 0.0) & (q < 1.0), h, 0.0))

    value = float(part(np.array([rate]))[0])
    error = PREVALENCE.std_error(s)
    if not 0.0 < rate < 1.0 or not error > 0.0:
        return Found(Estimate(value, NAN, NAN, NAN, level, name), reason=_one_class(s))
    half = quantile(level, s.df)
    size = rate * (1.0 - rate) / error**2
    middle = (rate + half**2 / (2.0 * size)) / (1.0 + half**2 / size)
    width = half / (1.0 + half**2 / size)
    width *= math.sqrt(rate * (1.0 - rate) / size + half**2 / (4.0 * size**2))
    ends = part(np.array([middle - width, middle + width]))
    top = float(part(np.array([0.5]))[0]) if abs(middle - 0.5) < width else float(ends.max())
    slope = abs(1.0 - 2.0 * rate) if not log_score else abs(math.log(rate / (1.0 - rate)))
    return Found(Estimate(value, error * slope, float(ends.min()), top, level, name))


def spiegelhalter(s: Scored, level: float) -> Found:
    """Spiegelhalter's z; the variance is that of the design where rows are not independent."""
    z, reason = k.spiegelhalter(s.y, s.p, s.w), ""
    if math.isnan(z):
        reason = "every score is 0, 0.5 or 1"
    elif not s.independent:
        evidence = (s.y - s.p) * (1.0 - 2.0 * s.p)
        if s.replicates is not None:
            change = evidence @ (s.replicates - s.weight_or_one[:, None])
            variance = 4.0 / change.size * float(change @ change)
        else:
            variance = float(s.covariance(s.weight_or_one * evidence)[0, 0])
        z = float((s.weight_or_one * evidence).sum()) / math.sqrt(variance)
    p_value = float(two_sided_p(np.array(z), s.df))
    return Found(Estimate(z, NAN, NAN, NAN, level, "spiegelhalter_z", p_value), z, 0.0, reason)


SMOOTH: tuple[Smooth, ...] = (
    PREVALENCE, MEAN_SCORE, OBSERVED_EXPECTED, LARGE, SLOPE, AUC, BRIER, SCALED_BRIER, LOG_LOSS,
)  # fmt: skip
ORDER: tuple[Callable[[Scored, float], Found], ...] = (
    PREVALENCE, MEAN_SCORE, OBSERVED_EXPECTED, LARGE, SLOPE, spiegelhalter, ECE, SQUARED,
    SMOOTH_ECE, ICI, E50, E90, EMAX, ECCE, AUC, BRIER, SCALED_BRIER, LOG_LOSS, MCB, dsc, unc,
)  # fmt: skip
"""All measures of a report, in its order."""
