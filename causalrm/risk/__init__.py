"""Risk of an outcome that is seen only for the tested, with what is known besides."""

from causalrm.risk.audit import RiskAudit
from causalrm.risk.baselines import BaselineResult
from causalrm.risk.constraints import Expertise, Prevalence
from causalrm.risk.heckman import HeckmanModel
from causalrm.risk.heckman_result import HeckmanResult
from causalrm.risk.model import SelectiveLabelsModel
from causalrm.risk.result import PosteriorResult, RiskResult
from causalrm.risk.sbc import SimulationCalibration, simulation_based_calibration

__all__ = [
    "BaselineResult",
    "Expertise",
    "HeckmanModel",
    "HeckmanResult",
    "PosteriorResult",
    "Prevalence",
    "RiskAudit",
    "RiskResult",
    "SelectiveLabelsModel",
    "SimulationCalibration",
    "simulation_based_calibration",
]
