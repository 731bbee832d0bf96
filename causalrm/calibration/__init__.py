"""Calibration of probabilities: measures with intervals, comparison, audit, recalibration."""

from causalrm.calibration.measures import (
    Corp,
    NoiseFloor,
    auc,
    brier,
    calibration_in_the_large,
    calibration_slope,
    corp,
    decision_curve,
    e50,
    e90,
    ecce,
    ece,
    emax,
    ici,
    log_loss,
    net_benefit,
    noise_floor,
    observed_expected,
    scaled_brier,
    smooth_ece,
    spiegelhalter,
    squared_error,
)
from causalrm.calibration.report import CalibrationReport, calibration_report
