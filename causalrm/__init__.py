"""Causal and statistical analysis of the numbers that come out of language models.

Public names are imported when they are first used, so that ``import causalrm`` is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

# A public name stands in two lists, which a test compares: here for type checkers ...
if TYPE_CHECKING:
    from causalrm import attribution as attribution
    from causalrm import augment as augment
    from causalrm import calibration as calibration
    from causalrm import datasets as datasets
    from causalrm import deconfound as deconfound
    from causalrm import llm as llm
    from causalrm import preference as preference
    from causalrm import risk as risk
    from causalrm import survival as survival
    from causalrm import text as text
    from causalrm.attribution import Budget as Budget
    from causalrm.attribution import ChoiceExperiment as ChoiceExperiment
    from causalrm.attribution import ChoiceValue as ChoiceValue
    from causalrm.attribution import Component as Component
    from causalrm.attribution import Drop as Drop
    from causalrm.attribution import Mask as Mask
    from causalrm.attribution import Neutral as Neutral
    from causalrm.attribution import PromptShapley as PromptShapley
    from causalrm.attribution import PromptTemplate as PromptTemplate
    from causalrm.attribution import Resample as Resample
    from causalrm.attribution import ScoreValue as ScoreValue
    from causalrm.augment import CausalAugmenter as CausalAugmenter
    from causalrm.augment import ConfidenceFilter as ConfidenceFilter
    from causalrm.augment import RobustRewardModel as RobustRewardModel
    from causalrm.calibration import CalibrationReport as CalibrationReport
    from causalrm.calibration import ColumnText as ColumnText
    from causalrm.calibration import RiskScorer as RiskScorer
    from causalrm.calibration import RiskScores as RiskScores
    from causalrm.calibration import RiskTask as RiskTask
    from causalrm.calibration import calibration_report as calibration_report
    from causalrm.core.errors import BackendError as BackendError
    from causalrm.core.errors import CausalRMError as CausalRMError
    from causalrm.core.errors import CausalRMWarning as CausalRMWarning
    from causalrm.core.errors import ConvergenceError as ConvergenceError
    from causalrm.core.errors import ConvergenceWarning as ConvergenceWarning
    from causalrm.core.errors import DataError as DataError
    from causalrm.core.errors import IdentificationError as IdentificationError
    from causalrm.core.errors import IdentificationWarning as IdentificationWarning
    from causalrm.core.errors import MissingDependencyError as MissingDependencyError
    from causalrm.core.estimator import Estimator as Estimator
    from causalrm.core.result import Estimate as Estimate
    from causalrm.core.result import Result as Result
    from causalrm.core.table import Table as Table
    from causalrm.core.table import table as table
    from causalrm.deconfound import DeconfoundedResult as DeconfoundedResult
    from causalrm.deconfound import DeconfoundedReward as DeconfoundedReward
    from causalrm.preference import BradleyTerry as BradleyTerry
    from causalrm.preference import BradleyTerryResult as BradleyTerryResult
    from causalrm.preference import GeneralPreference as GeneralPreference
    from causalrm.preference import GeneralPreferenceResult as GeneralPreferenceResult
    from causalrm.preference import PreferenceRewardModel as PreferenceRewardModel
    from causalrm.preference import RewardResult as RewardResult
    from causalrm.preference import Thurstone as Thurstone
    from causalrm.preference import ThurstoneResult as ThurstoneResult
    from causalrm.risk import Expertise as Expertise
    from causalrm.risk import HeckmanModel as HeckmanModel
    from causalrm.risk import HeckmanResult as HeckmanResult
    from causalrm.risk import Prevalence as Prevalence
    from causalrm.risk import RiskResult as RiskResult
    from causalrm.risk import SelectiveLabelsModel as SelectiveLabelsModel
    from causalrm.survival import SurvivalRegression as SurvivalRegression
    from causalrm.survival import SurvivalResult as SurvivalResult

# ... and here, name to module, for Python. A package is its own name's module.
_PUBLIC = {
    "attribution": "causalrm.attribution",
    "augment": "causalrm.augment",
    "calibration": "causalrm.calibration",
    "datasets": "causalrm.datasets",
    "deconfound": "causalrm.deconfound",
    "llm": "causalrm.llm",
    "preference": "causalrm.preference",
    "risk": "causalrm.risk",
    "survival": "causalrm.survival",
    "text": "causalrm.text",
    "Budget": "causalrm.attribution",
    "ChoiceExperiment": "causalrm.attribution",
    "ChoiceValue": "causalrm.attribution",
    "Component": "causalrm.attribution",
    "Drop": "causalrm.attribution",
    "Mask": "causalrm.attribution",
    "Neutral": "causalrm.attribution",
    "PromptShapley": "causalrm.attribution",
    "PromptTemplate": "causalrm.attribution",
    "Resample": "causalrm.attribution",
    "ScoreValue": "causalrm.attribution",
    "CausalAugmenter": "causalrm.augment",
    "ConfidenceFilter": "causalrm.augment",
    "RobustRewardModel": "causalrm.augment",
    "CalibrationReport": "causalrm.calibration",
    "ColumnText": "causalrm.calibration",
    "RiskScorer": "causalrm.calibration",
    "RiskScores": "causalrm.calibration",
    "RiskTask": "causalrm.calibration",
    "calibration_report": "causalrm.calibration",
    "BackendError": "causalrm.core.errors",
    "CausalRMError": "causalrm.core.errors",
    "CausalRMWarning": "causalrm.core.errors",
    "ConvergenceError": "causalrm.core.errors",
    "ConvergenceWarning": "causalrm.core.errors",
    "DataError": "causalrm.core.errors",
    "IdentificationError": "causalrm.core.errors",
    "IdentificationWarning": "causalrm.core.errors",
    "MissingDependencyError": "causalrm.core.errors",
    "Estimator": "causalrm.core.estimator",
    "Estimate": "causalrm.core.result",
    "Result": "causalrm.core.result",
    "Table": "causalrm.core.table",
    "table": "causalrm.core.table",
    "DeconfoundedResult": "causalrm.deconfound",
    "DeconfoundedReward": "causalrm.deconfound",
    "BradleyTerry": "causalrm.preference",
    "BradleyTerryResult": "causalrm.preference",
    "GeneralPreference": "causalrm.preference",
    "GeneralPreferenceResult": "causalrm.preference",
    "PreferenceRewardModel": "causalrm.preference",
    "RewardResult": "causalrm.preference",
    "Thurstone": "causalrm.preference",
    "ThurstoneResult": "causalrm.preference",
    "Expertise": "causalrm.risk",
    "HeckmanModel": "causalrm.risk",
    "HeckmanResult": "causalrm.risk",
    "Prevalence": "causalrm.risk",
    "RiskResult": "causalrm.risk",
    "SelectiveLabelsModel": "causalrm.risk",
    "SurvivalRegression": "causalrm.survival",
    "SurvivalResult": "causalrm.survival",
}

if not TYPE_CHECKING:  # hidden from mypy, or every misspelt name passes --strict
    __all__ = ["__version__", *_PUBLIC]

    def __getattr__(name):
        """Import a public name when it is first used."""
        from importlib import import_module

        if name not in _PUBLIC:
            raise AttributeError(f"module 'causalrm' has no attribute {name!r}")
        module = import_module(_PUBLIC[name])
        value = module if module.__name__ == f"causalrm.{name}" else getattr(module, name)
        globals()[name] = value
        return value

    def __dir__():
        """List what is public."""
        return sorted(__all__)
