"""The one door to language models.

A language model is anything with the two methods of :class:`LanguageModel`. Each gives one row
per prompt, in order; a prompt without an answer is a row with a status and a reason.

>>> from causalrm.llm import FunctionModel
>>> model = FunctionModel(lambda prompt: {"A": 0.8, "B": 0.2}, name="simulated")
>>> model.choice_probabilities(["A or B?"], ["A", "B"])["probability[A]"].tolist()
[0.8]
"""

from __future__ import annotations

from causalrm.llm.backend import Backend
from causalrm.llm.cache import Cache
from causalrm.llm.function import FunctionModel
from causalrm.llm.logprobs import ChoiceBounds, choice_bounds
from causalrm.llm.openai_compatible import OpenAICompatible
from causalrm.llm.plan import Plan
from causalrm.llm.replay import Replay
from causalrm.llm.reply import STATUS, LanguageModel, Prompt, Reply
from causalrm.llm.server import LoopbackServer
from causalrm.llm.simulated import SimulatedLanguageModel
from causalrm.llm.transformers_model import TransformersModel

__all__ = [
    "STATUS",
    "Backend",
    "Cache",
    "ChoiceBounds",
    "FunctionModel",
    "LanguageModel",
    "LoopbackServer",
    "OpenAICompatible",
    "Plan",
    "Prompt",
    "Replay",
    "Reply",
    "SimulatedLanguageModel",
    "TransformersModel",
    "choice_bounds",
]
