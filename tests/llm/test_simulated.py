"""The simulated language model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causalrm.llm import FunctionModel, SimulatedLanguageModel
from causalrm.llm.simulated import TEXT

MODEL = SimulatedLanguageModel()
MODELS = {tilt: SimulatedLanguageModel(tilt=tilt) for tilt in (0.0, 1.0, 3.0)}


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60), st.sampled_from([0.0, 1.0, 3.0]))
def test_probabilities_sum_to_one_and_texts_come_back(text, tilt):
    model = MODELS[tilt]
    tokens = model.encode(text)
    logs = model.log_probabilities(tokens, tokens)
    assert np.isfinite(logs).all()
    assert np.logaddexp.reduce(logs) == pytest.approx(0.0, abs=1e-9)
    assert model.decode(tokens) == text.encode(errors="replace").decode()


def test_it_has_learnt_its_text():
    tokens = MODEL.encode(TEXT)
    logs = [MODEL.log_probabilities(tokens[:i])[t] for i, t in enumerate(tokens)]
    assert np.exp(-np.mean(logs)) < 0.1 * len(MODEL.vocabulary)  # perplexity


def test_the_seed_decides_what_is_drawn():
    prompts = ["The patient"] * 4
    draw = {"max_tokens": 8, "replicate": range(4)}
    one = FunctionModel(SimulatedLanguageModel()).complete(prompts, **draw)
    two = FunctionModel(SimulatedLanguageModel()).complete(prompts, **draw)
    three = FunctionModel(SimulatedLanguageModel(seed=1)).complete(prompts, **draw)
    assert list(one.text) == list(two.text) != list(three.text)
    assert len(set(one.text)) > 1
    cold = FunctionModel(MODEL).complete(["The patient"], temperature=0, max_tokens=3)
    assert cold.text[0] == " who smokes has"


def test_log_probabilities_of_a_reply_are_those_of_its_tokens():
    reply = MODEL("The patient", max_tokens=6, logprobs=True, top_logprobs=20, seed=3)
    assert len(reply.logprobs) == reply.completion_tokens == 6
    tokens = MODEL.encode("The patient")
    prompt = list(tokens)
    for place in reply.logprobs:
        logs = MODEL.log_probabilities(tokens, prompt)
        ids = [i for i in range(len(logs)) if MODEL.token_text(i) == place["token"]]
        assert place["logprob"] in [float(logs[i]) for i in ids]
        assert place["top"][0][1] == logs.max()
        assert len(place["top"]) == 20
        tokens.append(ids[0])


def test_words_of_the_prompt_matter():
    prompts = [
        f"The {noun}. Is the risk high? Answer with Yes or No.\nAnswer:"
        for noun in ("patient smokes", "staff is friendly", "quite unknown zzz")
    ]
    frame = FunctionModel(MODEL).choice_probabilities(prompts, ["Yes", "No"])
    assert frame["probability[Yes]"].nunique() == 3
    assert (frame.mass > 0.1).all()
    flat = FunctionModel(SimulatedLanguageModel(tilt=0)).choice_probabilities(
        prompts, ["Yes", "No"]
    )
    assert flat["probability[Yes]"].nunique() == 1


def test_stop_and_length():
    line = FunctionModel(MODEL).complete(
        ["Question: The patient smokes. Is the risk high? Answer with Yes or No.\nAnswer:"],
        temperature=0,
        max_tokens=5,
    )
    assert line.text[0] == " Yes" and line.finish_reason[0] == "stop"
    free = MODEL("The", max_tokens=3, stop=None, temperature=0)
    assert free.finish_reason == "length" and free.completion_tokens == 3
