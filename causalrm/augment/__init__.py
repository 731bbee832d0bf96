"""Causal augmentation: whether reward models follow causes or surface features."""

from __future__ import annotations

from causalrm.augment.augmenter import CausalAugmenter
from causalrm.augment.effects import AttributeEffectsResult, attribute_effects
from causalrm.augment.evaluation import (
    accuracy,
    best_of_k,
    best_of_n,
    best_of_n_kl,
    length_matched_accuracy,
    one_against_many,
)
from causalrm.augment.filter import ConfidenceFilter, FilterResult
from causalrm.augment.llm_oracle import LLMOracle
from causalrm.augment.oracle import Ask, Attribute, Element, Oracle, OracleReply
from causalrm.augment.replay_oracle import ReplayOracle
from causalrm.augment.report import AugmentationReport
from causalrm.augment.result import EstimatesResult, RobustResult
from causalrm.augment.robust import RobustRewardModel
from causalrm.augment.rule_oracle import RuleOracle
from causalrm.augment.style import TRANSFORMS, style_robustness
from causalrm.augment.transforms import log_sigmoid_centred, process_rewards
from causalrm.augment.vector_oracle import VectorOracle

__all__ = [
    "TRANSFORMS",
    "Ask",
    "Attribute",
    "AttributeEffectsResult",
    "AugmentationReport",
    "CausalAugmenter",
    "ConfidenceFilter",
    "Element",
    "EstimatesResult",
    "FilterResult",
    "LLMOracle",
    "Oracle",
    "OracleReply",
    "ReplayOracle",
    "RobustResult",
    "RobustRewardModel",
    "RuleOracle",
    "VectorOracle",
    "accuracy",
    "attribute_effects",
    "best_of_k",
    "best_of_n",
    "best_of_n_kl",
    "length_matched_accuracy",
    "log_sigmoid_centred",
    "one_against_many",
    "process_rewards",
    "style_robustness",
]
