"""Measures of calibration and discrimination, one function each, with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Unpack

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from causalrm.calibration import _kernels as k
from causalrm.calibration import estimation as est
from causalrm.calibration.options import Options, documented, rows_and_level
from causalrm.calibration.scored import Scored, check_scores
from causalrm.core.errors import check_choice, warn
from causalrm.core.result import Estimate


def _run(
    measure: Callable[[Scored, float], est.Found], y: ArrayLike, p: ArrayLike, options: Options
) -> Estimate:
    found = measure(*rows_and_level(y, p, options))
    if found.reason:
        warn(f"{found.estimate.name}: {found.reason}.")
    return found.estimate


# --- means and ratios --------------------------------------------------------------------------


@documented
def observed_expected(y: ArrayLike, p: ArrayLike, **options: Unpack[Options]) -> Estimate:
    """Ratio of observed to expected outcomes, sum wy / sum wp; interval on the log scale.

    {parameters}
    {returns}
    {raises}

    Examples
    --------
    >>> print(observed_expected([0, 1, 1, 0, 1], [0.2, 0.6, 0.7, 0.4, 0.6]))
    observed_expected: 1.20, std. error 0.31, 95% interval [0.73, 1.98], p = 0.476
    """
    return _run(est.OBSERVED_EXPECTED, y, p, options)


@documented
def calibration_in_the_large(y: ArrayLike, p: ArrayLike, **options: Unpack[Options]) -> Estimate:
    """Intercept a of logit P(y = 1) = a + logit p, the slope held at one; 0 when calibrated.

    Scores are clipped to [1e-6, 1 - 1e-6]. This is not the intercept that is estimated jointly
    with the calibration slope.

    {parameters}
    {returns}
    {raises}
    """
    return _run(est.LARGE, y, p, options)


@documented
def calibration_slope(y: ArrayLike, p: ArrayLike, **options: Unpack[Options]) -> Estimate:
    """Slope b of logit P(y = 1) = a + b logit p; 1 when calibrated, below for overconfidence.

    Scores are clipped to [1e-6, 1 - 1e-6]; the standard error is robust.

    {parameters}
    {returns}
    {raises}

    References
    ----------
    Cox, D. R. (1958). Two further applications of a model for binary regression.
    Biometrika 45, 562-565. doi:10.1093/biomet/45.3-4.562.
    """
    return _run(est.SLOPE, y, p, options)


@documented
def spiegelhalter(y: ArrayLike, p: ArrayLike, **options: Unpack[Options]) -> Estimate:
    """Spiegelhalter's z, standard normal under perfect calibration; it has no interval.

    {parameters}
    {returns}
    {raises}

    References
    ----------
    Spiegelhalter, D. J. (1986). Probabilistic prediction in patient management and clinical
    trials. Statistics in Medicine 5, 421-433. doi:10.1002/sim.4780050506.
    """
    return _run(est.spiegelhalter, y, p, options)


# --- size of the gap ---------------------------------------------------------------------------


@documented
def ece(y: ArrayLike, p: ArrayLike, **options: Unpack[Options]) -> Estimate:
    """Expected calibration error: mean over rows of abs(mean y - mean p) of the row's bin.

    Ten bins of equal width by default, of the scores of the positive class. The estimate is
    biased upwards; the interval is for the value that these bins have in the population, inverts
    simulated tests, and may therefore lie below the estimate.

    {parameters}
    {returns}
    {raises}

    References
    ----------
    Naeini, M. P., Cooper, G. F., and Hauskrecht, M. (2015). Obtaining well calibrated
    probabilities using Bayesian binning. AAAI. Feldman, G. J., and Cousins, R. D. (1998).
    Unified approach to the classical statistical analysis of small signals. Physical Review D
    57, 3873. doi:10.1103/PhysRevD.57.3873.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> p = rng.uniform(size=1000)  # simulated scores
    >>> y = rng.uniform(size=1000) < 0.25 + 0.5 * p  # overconfident
    >>> print(ece(y, p))
    ece: 0.132, std. error 0.015, 95% interval [0.102, 0.158], p <0.001
    """
    if options.get("n_boot") == 0 and set(options) <= {"n_boot", "bins"}:
        bins = options.get("bins", 10)
        if isinstance(bins, int) and bins > 0:
            outcome, score = check_scores(y, p)
            value = k.ece_equal(outcome, score, bins)
            return Estimate(value, math.nan, math.nan, math.nan, name="ece")
    return _run(est.ECE, y, p, options)


@documented
def squared_error(y: ArrayLike, p: ArrayLike, **options: Unpack[Options]) -> Estimate:
    """Squared calibration error on bins, less its bias; it can be negative, its interval not.

    From each bin's squared gap the variance of its mean residual is taken off, which is
    unbiased for any scores on fixed bins. Bins of a single row are left out.

    {parameters}
    {returns}
    {raises}

    References
    ----------
    Kumar, A., Liang, P., and Ma, T. (2019). Verified uncertainty calibration. NeurIPS.
    arXiv:1909.10155.
    """
    return _run(est.SQUARED, y, p, options)


@documented
def smooth_ece(y: ArrayLike, p: ArrayLike, **options: Unpack[Options]) -> Estimate:
    """Smooth ECE: residuals smoothed with the bandwidth that equals the error found.

    The interval is for the value that this definition gives for the population.

    {parameters}
    {returns}
    {raises}

    References
    ----------
    Blasiok, J., and Nakkiran, P. (2023). Smooth ECE: principled reliability diagrams via
    kernel smoothing. arXiv:2309.12236.

    Examples
    --------
    >>> print(smooth_ece([0, 0, 1, 1], [0.1, 0.4, 0.6, 0.9], n_boot=0))
    smooth_ece: 0.15
    """
    return _run(est.SMOOTH_ECE, y, p, options)


@documented
def ici(y: ArrayLike, p: ArrayLike, **options: Unpack[Options]) -> Estimate:
    """Integrated calibration index: mean abs(c(p) - p), c the loess curve (span 0.75).

    The interval is for the same index of the population: c is then the loess curve, of the same
    span, of all its rows. It is not P(y = 1 | p) where that turns or jumps within a span.

    {parameters}
    {returns}
    {raises}

    References
    ----------
    Austin, P. C., and Steyerberg, E. W. (2019). The integrated calibration index (ICI) and
    related metrics. Statistics in Medicine 38, 4051-4065. doi:10.1002/sim.8281.
    """
    return _run(est.ICI, y, p, options)


@documented
def e50(y: ArrayLike, p: ArrayLike, **options: Unpack[Options]) -> Estimate:
    """Median of abs(c(p) - p) over the rows, c the loess curve of `ici`.

    The interval is for that of the population, its curve smoothed by the same span.

    {parameters}
    {returns}
    {raises}
    """
    return _run(est.E50, y, p, options)


@documented
def e90(y: ArrayLike, p: ArrayLike, **options: Unpack[Options]) -> Estimate:
    """90th percentile of abs(c(p) - p) over the rows, c the loess curve of `ici`.

    The interval is for that of the population, its curve smoothed by the same span.

    {parameters}
    {returns}
    {raises}
    """
    return _run(est.E90, y, p, options)


@documented
def emax(y: ArrayLike, p: ArrayLike, **options: Unpack[Options]) -> Estimate:
    """Maximum of abs(c(p) - p) over the rows, c the loess curve of `ici`.

    The interval is for that of the population, its curve smoothed by the same span.

    {parameters}
    {returns}
    {raises}
    """
    return _run(est.EMAX, y, p, options)


@documented
def ecce(y: ArrayLike, p: ArrayLike, **options: Unpack[Options]) -> Estimate:
    """Range of the cumulative differences between outcomes and scores (Kuiper).

    On the scale of probabilities; the interval is for the range in the population. The p-value
    refers the range, over the standard deviation of the last sum, to that of a Brownian motion;
    for clustered rows it is simulated.

    {parameters}
    {returns}
    {raises}

    References
    ----------
    Arrieta-Ibarra, I., et al. (2022). Metrics of calibration for probabilistic predictions.
    JMLR 23(351). arXiv:2205.09680.
    """
    return _run(est.ECCE, y, p, options)


# --- scores and discrimination -----------------------------------------------------------------


@documented
def auc(y: ArrayLike, p: ArrayLike, **options: Unpack[Options]) -> Estimate:
    """Area under the ROC curve with DeLong's standard error; interval on the logit scale.

    {parameters}
    {returns}
    {raises}

    References
    ----------
    DeLong, E. R., DeLong, D. M., and Clarke-Pearson, D. L. (1988). Biometrics 44, 837-845.
    doi:10.2307/2531595. Obuchowski, N. A. (1997), for clusters. Biometrics 53, 567-578.
    doi:10.2307/2533958.

    Examples
    --------
    >>> print(auc([0, 0, 1, 1, 0, 1], [0.1, 0.4, 0.35, 0.8, 0.5, 0.7]))
    auc: 0.78, std. error 0.25, 95% interval [0.17, 0.98]
    """
    return _run(est.AUC, y, p, options)


@documented
def brier(y: ArrayLike, p: ArrayLike, **options: Unpack[Options]) -> Estimate:
    """Brier score, mean (y - p)^2.

    {parameters}
    {returns}
    {raises}
    """
    return _run(est.BRIER, y, p, options)


@documented
def scaled_brier(y: ArrayLike, p: ArrayLike, **options: Unpack[Options]) -> Estimate:
    """Brier score relative to that of the prevalence: 1 - Brier / (ybar (1 - ybar)).

    {parameters}
    {returns}
    {raises}
    """
    return _run(est.SCALED_BRIER, y, p, options)


@documented
def log_loss(y: ArrayLike, p: ArrayLike, **options: Unpack[Options]) -> Estimate:
    """Mean minus log probability of the outcome; infinite, and said so, for a certain miss.

    {parameters}
    {returns}
    {raises}
    """
    return _run(est.LOG_LOSS, y, p, options)


# --- CORP --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Corp:
    """Decomposition score = mcb - dsc + unc, and the isotonic reliability curve.

    Attributes
    ----------
    score, mcb, dsc, unc : Estimate
    curve : pandas.DataFrame
        A row per block: `p_low`, `p_high`, `observed`, `weight`.
    """

    score: Estimate
    mcb: Estimate
    dsc: Estimate
    unc: Estimate
    curve: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """Return the four parts, one row each."""
        parts = (self.score, self.mcb, self.dsc, self.unc)
        return pd.concat([part.to_frame() for part in parts], ignore_index=True)


def corp_of(s: Scored, level: float, log_score: bool = False) -> tuple[Corp, list[str]]:
    """Decompose, with the reasons for what is missing."""
    t, fit = s.ties, s.isotonic
    last = np.append(fit.start[1:], t.value.size) - 1
    curve = pd.DataFrame(
        {
            "p_low": t.value[fit.start],
            "p_high": t.value[last],
            "observed": fit.value,
            "weight": fit.weight,
        }
    )
    found = (
        (est.LOG_LOSS if log_score else est.BRIER)(s, level),
        (est.MCB_LOG if log_score else est.MCB)(s, level),
        est.dsc(s, level, log_score),
        est.unc(s, level, log_score),
    )
    reasons = [f"{f.estimate.name}: {f.reason}." for f in found if f.reason]
    score, mcb, dsc, unc = (f.estimate for f in found)
    return Corp(score, mcb, dsc, unc, curve), reasons


@documented
def corp(y: ArrayLike, p: ArrayLike, *, score: str = "brier", **options: Unpack[Options]) -> Corp:
    """Miscalibration, discrimination and uncertainty of the Brier or the log score.

    Isotonic regression of the outcomes on the scores recalibrates them: mcb is what that gains,
    dsc what the recalibrated scores gain over the prevalence, unc the prevalence's own score.
    Intervals are for the parts of the population's score, its isotonic curve in place of the
    sample's.

    {parameters}
    score : {"brier", "log"}
        The proper score that is decomposed.

    Returns
    -------
    Corp
        With `mcb, dsc, unc` and `curve`.

    {raises}

    References
    ----------
    Dimitriadis, T., Gneiting, T., and Jordan, A. I. (2021). Stable reliability diagrams for
    probabilistic classifiers. PNAS 118, e2016191118. doi:10.1073/pnas.2016191118.

    Examples
    --------
    >>> parts = corp([0, 1, 0, 1, 1], [0.1, 0.2, 0.4, 0.6, 0.9], n_boot=0)
    >>> round(parts.mcb.estimate - parts.dsc.estimate + parts.unc.estimate, 6)
    0.196
    """
    check_choice("score", score, ("brier", "log"))
    parts, reasons = corp_of(*rows_and_level(y, p, options), score == "log")
    for reason in reasons:
        warn(reason)
    return parts


# --- noise floor -------------------------------------------------------------------------------


@dataclass(frozen=True)
class NoiseFloor:
    """What ECE a perfectly calibrated score of this size would show.

    Attributes
    ----------
    observed, expected, excess : float
        ECE, its mean under perfect calibration, and their difference.
    upper : float
        `level` quantile of the ECE under perfect calibration.
    p_value : float
        Share of simulated values at least as large as the observed one, (b + 1) / (B + 1).
    level : float
    """

    observed: float
    expected: float
    excess: float
    upper: float
    p_value: float
    level: float = 0.95


def noise_floor_of(s: Scored, level: float) -> NoiseFloor:
    """Noise floor of the ECE; rows are independent given their scores."""
    t = s.ties
    observed = k.ece(s.bins)
    draws = k.null_ece(t.value, t.weight, t.weight2, s.edges, max(s.n_boot, 100), s.generator(3))
    expected = float(draws.mean())
    p_value = float((np.count_nonzero(draws >= observed - 1e-12) + 1) / (draws.size + 1))
    upper = float(np.quantile(draws, level))
    return NoiseFloor(observed, expected, observed - expected, upper, p_value, level)


@documented
def noise_floor(y: ArrayLike, p: ArrayLike, **options: Unpack[Options]) -> NoiseFloor:
    """ECE expected of a perfectly calibrated score: outcomes are simulated as Bernoulli(p).

    {parameters}

    Returns
    -------
    NoiseFloor

    {raises}

    Examples
    --------
    >>> floor = noise_floor([0, 1, 1, 0, 1, 0], [0.2, 0.8, 0.7, 0.4, 0.6, 0.1])
    >>> floor.observed > floor.expected
    False
    """
    return noise_floor_of(*rows_and_level(y, p, options))
