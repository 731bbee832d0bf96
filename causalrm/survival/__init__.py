"""Flexible parametric survival regression, its diagnostics and its causal contrasts."""

from causalrm.survival.regression import SurvivalRegression
from causalrm.survival.result import SurvivalResult

__all__ = ["SurvivalRegression", "SurvivalResult"]
