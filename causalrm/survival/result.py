"""What a survival regression returns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from causalrm.core.design import Design
from causalrm.core.errors import DataError
from causalrm.core.format import percent
from causalrm.core.result import Estimate, LikelihoodResult, Scale, Test, quantile
from causalrm.survival import _kernels as K
from causalrm.survival.model import Model
from causalrm.survival.predict import shape_in_words
from causalrm.survival.roles import Roles

if TYPE_CHECKING:
    from causalrm.survival.plots import SurvivalPlots


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SurvivalResult(LikelihoodResult):
    """Result of `SurvivalRegression`.

    Besides the fields of every likelihood fit:

    Parameters
    ----------
    designs : dict
        For phi, lam and gamma the design as plain values, or None where the parameter is 1.
    lam_intercept : bool
        Whether lambda has an intercept.
    fixed_kappa : float or None
        The fixed value of kappa; None when it was estimated.
    n_events : int
        Rows with an observed event.
    counts : dict
        Rows by kind: events, right, interval and left censored, and with delayed entry.
    cure : dict or None
        Cure fraction with its support, when kappa is below 0.
    centre : dict
        Mean linear predictors of phi, lam and gamma.
    curves : dict
        Step curves for plots, reduced from the rows: at most 1,000 points each.
    fingerprint : tuple of float
        Sums over the data by which two fits are recognised as fits to the same rows.
    """

    designs: Mapping[str, Any]
    lam_intercept: bool
    fixed_kappa: float | None
    n_events: int
    counts: Mapping[str, int]
    cure: Mapping[str, Any] | None = None
    centre: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: tuple[float, ...] = ()

    def _scales(self) -> Mapping[str, Scale]:
        return {"kappa": Scale(_expm1, lambda nu: _expm1(nu) + 1.0)}

    @cached_property
    def model(self) -> Model:
        """The likelihood on the scale of the reported coefficients."""
        designs = {
            name: None if state is None else Design.from_dict(state)
            for name, state in self.designs.items()
        }
        shared: dict[str, Design] = {}
        for name, design in designs.items():
            if design is not None:
                designs[name] = shared.setdefault(design.formula, design)
        roles = Roles(**self.call["roles"])
        weight = float(self.diagnostics.get("mean_weight", 1.0))
        return Model(designs, self.lam_intercept, self.fixed_kappa, roles, weight)

    @property
    def kappa(self) -> float:
        """The shape kappa, estimated or fixed."""
        if self.fixed_kappa is not None:
            return self.fixed_kappa
        return float(math.expm1(self.estimates[self.parameter.index("kappa")]))

    @property
    def hazard_shape(self) -> str:
        """Shape of the hazard over time in words, at the mean of gamma's linear predictor."""
        return shape_in_words(math.exp(self.centre["gamma"]), self.kappa)

    @property
    def turning_point(self) -> float:
        """Time at which the hazard turns, at the mean predictors; NaN when it is monotone."""
        a, c = np.array([self.centre["phi"]]), np.array([self.centre["gamma"]])
        return float(K.turning_point(a, c, self.kappa)[0])

    def cure_fraction(self, level: float = 0.95) -> Estimate:
        """Share of people who never have the event, averaged over the rows of the fit.

        Parameters
        ----------
        level : float

        Raises
        ------
        DataError
            When kappa is not below 0, so that everybody has the event in the end.
        """
        if self.cure is None:
            raise DataError(
                f"Expected kappa clearly below 0 for a cure fraction, but it is {self.kappa:.4g}: "
                "under this fit everybody has the event in the end."
            )
        x, gradient = float(self.cure["cloglog"]), np.asarray(self.cure["gradient"])
        sd = math.sqrt(max(float(gradient @ self._covariance() @ gradient), 0.0))
        z = quantile(level, self._df)
        with np.errstate(over="ignore"):
            low, high = (float(np.exp(-np.exp(x + s * z * sd))) for s in (1, -1))
        p = math.exp(-math.exp(x))
        se = math.exp(x) * p * sd
        return Estimate(p, se, low, high, level, "cure fraction")

    def lr_test(self, other: SurvivalResult) -> Test:
        """Likelihood-ratio test of this fit against a fit that is nested in it, or contains it.

        Parameters
        ----------
        other : SurvivalResult
            Fitted to the same rows.

        Returns
        -------
        Test
            Chi-squared with as many degrees of freedom as parameters differ.

        Raises
        ------
        DataError
            When the fits are not nested or not of the same rows, when weights, clusters or a
            penalty make the log-likelihoods no likelihoods, or when the smaller model lies where
            the test statistic is not chi-squared; the message says which.
        """
        small, big = (self, other) if self.n_params <= other.n_params else (other, self)
        reason = not_comparable(small, big)
        if reason:
            raise DataError(
                f"Expected two nested fits for a likelihood-ratio test, but {reason}. Compare "
                "them by AIC or BIC."
            )
        df = big.n_params - small.n_params
        statistic = max(2.0 * (big.loglik - small.loglik), 0.0)
        return Test("likelihood ratio", statistic, df, float(stats.chi2.sf(statistic, df)))

    def _fit_lines(self, level: float) -> list[tuple[str, str]]:
        kinds = {
            "right": "right-censored", "interval": "interval-censored", "left": "left-censored",
            "entry": "with delayed entry",
        }  # fmt: skip
        rows = ", ".join(
            [f"{self.n_events:,} events"]
            + [f"{self.counts[k]:,} {text}" for k, text in kinds.items() if self.counts.get(k)]
        )
        turn = self.turning_point
        shape = self.hazard_shape + ("" if math.isnan(turn) else f" (turns at {turn:.3g})")
        lines = [("Rows", rows), *super()._fit_lines(level)]
        if self.fixed_kappa is not None:
            lines.append(("kappa", f"{self.fixed_kappa:g} (fixed)"))
        lines.append(("Hazard", shape + ", at mean covariates"))
        if self.cure is not None:
            e = self.cure_fraction(level)
            ends = f"[{e.conf_low:.4f}, {e.conf_high:.4f}]"
            lines.append(("Cure fraction", f"{e.estimate:.4f}, {percent(level)} interval {ends}"))
        return lines

    @property
    def plot(self) -> SurvivalPlots:
        """Plots of the fit: ``plot()``, ``plot.survival()``, ``plot.hazard()``, ..."""
        from causalrm.survival.plots import SurvivalPlots

        return SurvivalPlots(self)


def _expm1(x: float) -> float:
    """Exponential minus 1, infinite where a double ends: an interval of kappa may reach there."""
    return math.expm1(x) if x < 709.0 else math.inf


def not_comparable(small: SurvivalResult, big: SurvivalResult) -> str:
    """Why a likelihood-ratio test of two fits is not valid, or an empty string."""
    if not np.allclose(small.fingerprint, big.fingerprint, rtol=1e-9, atol=1e-12):
        return "they were fitted to different rows"
    for fit in (small, big):
        roles, options = fit.call["roles"], fit.call["options"]
        if roles.get("weights") or roles.get("cluster"):
            return "weights or clusters make the log-likelihood a pseudo-likelihood"
        if options.get("penalty"):
            return "a penalty was used"
    if small.n_params >= big.n_params:
        return "neither has parameters that the other lacks"
    if big.loglik < small.loglik - 1e-4:
        return "the larger one has the lower log-likelihood: its fit did not reach the maximum"
    have = set(zip(big.parameter, big.term, strict=True))
    used = [pair for pair in zip(small.parameter, small.term, strict=True) if pair[0] != "kappa"]
    missing = [pair for pair in used if pair not in have]
    if missing:
        return f"the larger one lacks the terms {missing}"
    if small.fixed_kappa is None and big.fixed_kappa is not None:
        return "the smaller one estimates kappa and the larger one does not"
    if (
        small.fixed_kappa is not None
        and big.fixed_kappa is not None
        and small.fixed_kappa != big.fixed_kappa
    ):
        return "they fix kappa at different values"
    if big.fixed_kappa is None and small.fixed_kappa is not None:
        if math.isinf(small.fixed_kappa):
            return "kappa = infinity lies on the boundary, where the test is not chi-squared"
        constant = {"Intercept"} >= {
            t for p, t in zip(small.parameter, small.term, strict=True) if p == "gamma"
        }
        phi, lam = (
            {t for p, t in zip(big.parameter, big.term, strict=True) if p == name}
            for name in ("phi", "lam")
        )
        if small.fixed_kappa == 1.0 and constant and phi & lam:
            return (
                f"at kappa = 1 the two scales leave {sorted(phi & lam)} unidentified, where the "
                "test is not chi-squared"
            )
    return ""
