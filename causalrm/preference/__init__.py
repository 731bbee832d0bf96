"""Strengths and rewards from paired comparisons: Bradley-Terry and its relatives."""

from causalrm.preference.bradley_terry import BradleyTerry
from causalrm.preference.controlled import ControlledWinRate, controlled_win_rate
from causalrm.preference.general import GeneralPreference, GeneralPreferenceResult
from causalrm.preference.result import BradleyTerryResult
from causalrm.preference.reward_model import PreferenceRewardModel, RewardResult
from causalrm.preference.thurstone import Thurstone, ThurstoneResult

__all__ = [
    "BradleyTerry",
    "BradleyTerryResult",
    "ControlledWinRate",
    "GeneralPreference",
    "GeneralPreferenceResult",
    "PreferenceRewardModel",
    "RewardResult",
    "Thurstone",
    "ThurstoneResult",
    "controlled_win_rate",
]
