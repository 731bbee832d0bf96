"""Calibration of probabilities: measures with intervals, comparison, audit, recalibration."""

from causalrm.calibration.acs import ACS_COLUMNS, ACS_TASKS, acs_population, acs_task
from causalrm.calibration.audit import (
    AuditResult,
    discrimination_audit,
    multicalibration_audit,
)
from causalrm.calibration.column_text import ColumnText
from causalrm.calibration.compare import Comparison, compare
from causalrm.calibration.decision import decision_curve, net_benefit
from causalrm.calibration.measures import (
    Corp,
    NoiseFloor,
    auc,
    brier,
    calibration_in_the_large,
    calibration_slope,
    corp,
    e50,
    e90,
    ecce,
    ece,
    emax,
    ici,
    log_loss,
    noise_floor,
    observed_expected,
    scaled_brier,
    smooth_ece,
    spiegelhalter,
    squared_error,
)
from causalrm.calibration.planning import sample_size
from causalrm.calibration.recalibrate import (
    BetaCalibration,
    HistogramBinning,
    IsotonicCalibration,
    PlattScaling,
    Recalibrator,
    TemperatureScaling,
    VennAbers,
    crossfit,
)
from causalrm.calibration.report import CalibrationReport, calibration_report
from causalrm.calibration.scorer import RiskScorer
from causalrm.calibration.scores import RiskScores
from causalrm.calibration.task import RiskTask

__all__ = [
    "ACS_COLUMNS",
    "ACS_TASKS",
    "AuditResult",
    "BetaCalibration",
    "CalibrationReport",
    "ColumnText",
    "Comparison",
    "Corp",
    "HistogramBinning",
    "IsotonicCalibration",
    "NoiseFloor",
    "PlattScaling",
    "Recalibrator",
    "RiskScorer",
    "RiskScores",
    "RiskTask",
    "TemperatureScaling",
    "VennAbers",
    "acs_population",
    "acs_task",
    "auc",
    "brier",
    "calibration_in_the_large",
    "calibration_report",
    "calibration_slope",
    "compare",
    "corp",
    "crossfit",
    "decision_curve",
    "discrimination_audit",
    "e50",
    "e90",
    "ecce",
    "ece",
    "emax",
    "ici",
    "log_loss",
    "multicalibration_audit",
    "net_benefit",
    "noise_floor",
    "observed_expected",
    "sample_size",
    "scaled_brier",
    "smooth_ece",
    "spiegelhalter",
    "squared_error",
]
