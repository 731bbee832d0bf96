"""Rewards from observational outcomes, without the known confounders."""

from causalrm.deconfound.absorb import AbsorbedResult, absorbed_regression
from causalrm.deconfound.e_value import EValue, e_value
from causalrm.deconfound.effects import EffectResult, average_effect
from causalrm.deconfound.fusion import FusionResult, fuse
from causalrm.deconfound.heterogeneity import HeterogeneityResult, heterogeneity
from causalrm.deconfound.offset import OffsetResult, offset_reward
from causalrm.deconfound.policy import PolicyResult, policy_value
from causalrm.deconfound.result import DeconfoundedResult
from causalrm.deconfound.reward import DeconfoundedReward
from causalrm.deconfound.sensitivity import SensitivityResult, sensitivity

__all__ = [
    "AbsorbedResult",
    "DeconfoundedResult",
    "DeconfoundedReward",
    "EValue",
    "EffectResult",
    "FusionResult",
    "HeterogeneityResult",
    "OffsetResult",
    "PolicyResult",
    "SensitivityResult",
    "absorbed_regression",
    "average_effect",
    "e_value",
    "fuse",
    "heterogeneity",
    "offset_reward",
    "policy_value",
    "sensitivity",
]
