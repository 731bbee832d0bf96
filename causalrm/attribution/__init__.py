"""Shapley attribution over the components of a prompt, with honest uncertainty."""

from __future__ import annotations

from causalrm.attribution._run import Budget
from causalrm.attribution.archive import Archive
from causalrm.attribution.bias import BiasPair, bias_pairs
from causalrm.attribution.choice import ChoiceExperiment
from causalrm.attribution.chooser import SimulatedChooser
from causalrm.attribution.logit import ChoiceResult, compare_choices, conditional_logit
from causalrm.attribution.noise import TokenNoise, token_noise
from causalrm.attribution.result import AttributionResult
from causalrm.attribution.shapley import PromptShapley
from causalrm.attribution.template import (
    Component,
    Drop,
    Mask,
    Neutral,
    PromptTemplate,
    Resample,
)
from causalrm.attribution.values import ChoiceValue, ScoreValue, SetFunction, Value

__all__ = [
    "Archive",
    "AttributionResult",
    "BiasPair",
    "Budget",
    "ChoiceExperiment",
    "ChoiceResult",
    "ChoiceValue",
    "Component",
    "Drop",
    "Mask",
    "Neutral",
    "PromptShapley",
    "PromptTemplate",
    "Resample",
    "ScoreValue",
    "SetFunction",
    "SimulatedChooser",
    "TokenNoise",
    "Value",
    "bias_pairs",
    "compare_choices",
    "conditional_logit",
    "token_noise",
]
