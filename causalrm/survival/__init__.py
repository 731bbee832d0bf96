"""Flexible parametric survival regression, its diagnostics and its causal contrasts."""

from causalrm.survival._calibration import Calibration, calibration
from causalrm.survival.contrast import ContrastResult, standardized_contrast
from causalrm.survival.diagnostics import BrierScore, brier_score, concordance
from causalrm.survival.regression import SurvivalRegression
from causalrm.survival.result import SurvivalResult
from causalrm.survival.select import SelectionResult, select

__all__ = [
    "BrierScore",
    "Calibration",
    "ContrastResult",
    "SelectionResult",
    "SurvivalRegression",
    "SurvivalResult",
    "brier_score",
    "calibration",
    "concordance",
    "select",
    "standardized_contrast",
]
