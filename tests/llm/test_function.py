"""Requests, frames and plans, through models that are Python functions."""

from __future__ import annotations

import asyncio
import copy
import pickle
import sqlite3

import numpy as np
import pandas as pd
import pytest

from causalrm.core.errors import CausalRMWarning, DataError
from causalrm.llm import STATUS, Cache, FunctionModel, LanguageModel, Reply

COLUMNS = [
    *("text", "logprobs", "mass", "status", "reason", "finish_reason", "prompt_tokens"),
    *("completion_tokens", "latency", "attempts", "cached", "model", "key"),
]


def yes(prompt):
    return {"Yes": 0.6, " Yes": 0.1, "No": 0.2}


def test_complete_gives_a_row_per_prompt_in_order():
    model = FunctionModel(str.upper)
    assert isinstance(model, LanguageModel)
    frame = model.complete(["b", "a", "b"])
    assert list(frame.columns) == COLUMNS
    assert list(frame.text) == ["B", "A", "B"]
    assert list(frame.cached) == [False, False, True]  # the repeated prompt is asked once
    assert frame.key[0] == frame.key[2] != frame.key[1]
    assert (frame.status == "ok").all() and set(frame.status) <= set(STATUS)


def test_the_index_of_a_series_is_kept():
    prompts = pd.Series(["a", "b"], index=[("x", 1), ("y", 2)])
    assert list(FunctionModel(str.upper).complete(prompts).index) == [("x", 1), ("y", 2)]
    twice = pd.Series(["a", "b", "c"], index=[1, 1, 0])
    assert list(FunctionModel(yes).choice_probabilities(twice, ["Yes", "No"]).index) == [1, 1, 0]
    assert len(FunctionModel(str.upper).complete([])) == 0
    none = FunctionModel(yes).choice_probabilities([], ["Yes", "No"])
    assert list(none.columns[:2]) == ["probability[Yes]", "probability[No]"]
    assert none["probability[Yes]"].dtype == float


def test_choice_probabilities_have_bounds_and_masses():
    frame = FunctionModel(yes).choice_probabilities(["?"], [" Yes", "No "])
    kinds = [f"{k}[{c}]" for k in ("probability", "lower", "upper") for c in ("Yes", "No")]
    assert list(frame.columns) == [*kinds, *COLUMNS[:3], "rest", *COLUMNS[3:]]
    row = frame.iloc[0]
    assert row["probability[Yes]"] == pytest.approx(0.7 / 0.9)
    assert (row["mass"], row["rest"]) == pytest.approx((0.9, 0.1))
    assert row["upper[Yes]"] == pytest.approx(0.7 / 0.9)  # both spellings are listed
    assert row["lower[Yes]"] == pytest.approx(0.7)  # No may gain .1
    loose = FunctionModel(yes).choice_probabilities(["?"], ["Yes", "No"], variants=None)
    assert loose["upper[Yes]"][0] == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        ("Yes", "no_logprobs", "no log-probabilities"),
        ({"Maybe": 0.5}, "no_mass", "'Maybe'"),
        ({"Yes": 0.9, "No": 0.9}, "error", "sum to at most 1"),
        ({"Yes": float("nan")}, "error", "probabilities"),
        ({}, "error", "mapping"),
        (3, "error", "expected a string"),
        (Reply(refusal="I will not"), "refused", "I will not"),
        (Reply(text="", finish_reason="content_filter"), "refused", "filter"),
        (Reply(error="broken"), "error", "broken"),
        (
            Reply(text="Yes", logprobs=[{"token": "Yes", "logprob": 0, "top": [["Yes", 0.4]]}]),
            "error",
            "sum to 1 at most",
        ),
    ],
)
def test_every_failure_is_a_row_with_a_reason(answer, status, reason):
    model = FunctionModel(lambda prompt: answer)
    frame = model.choice_probabilities(["a", "b"], ["Yes", "No"])
    assert list(frame.status) == [status] * 2
    assert reason in frame.reason[0]
    assert frame["probability[Yes]"].isna().all()
    if status == "no_mass":
        assert list(frame[["lower[Yes]", "upper[Yes]"]].iloc[0]) == [0, 1]


def test_an_exception_of_one_prompt_is_one_row():
    def fails(prompt):
        if prompt == "bad":
            raise KeyError("odd")
        return "fine"

    frame = FunctionModel(fails).complete(["a", "bad", "c"])
    assert list(frame.status) == ["ok", "error", "ok"]
    assert frame.reason[1] == "KeyError: 'odd'"
    assert frame.text[1] is None


def test_empty_reply():
    frame = FunctionModel(lambda prompt: "").complete(["a"])
    assert frame.status[0] == "empty" and "no text" in frame.reason[0]


def test_decoding_reaches_functions_that_ask_for_it():
    seen = []

    def all_of_them(prompt, **decoding):
        seen.append(decoding)
        return "x"

    async def some(prompt, temperature, *, replicate):
        await asyncio.sleep(0)
        return f"{temperature} {replicate}"

    FunctionModel(all_of_them).complete(["a"], top_p=np.float64(1.0), stop=("x",), seed=None)
    assert seen == [{"top_p": 1, "stop": ["x"], "replicate": 0}]
    frame = FunctionModel(some, concurrency=3).complete(
        ["a", "a"], temperature=0.5, replicate=[0, 7]
    )
    assert list(frame.text) == ["0.5 0", "0.5 7"]


def test_draws_follow_the_probabilities_and_repeat():
    model = FunctionModel(lambda prompt: {"H": 0.3, "T": 0.5}, name="coin")
    frame = model.complete(["toss"] * 2000, replicate=np.arange(2000))
    share = (frame.text == "H").mean()
    assert abs(share - 0.375) < 4 * (0.375 * 0.625 / 2000) ** 0.5
    again = model.complete(["toss"] * 2000, replicate=range(2000))
    assert (frame.text == again.text).all()
    cold = model.complete(["toss"] * 50, replicate=range(50), temperature=0)
    assert set(cold.text) == {"T"}


def test_messages_are_prompts_and_are_not_changed():
    def spoil(prompt):
        prompt[0]["content"] = "spoilt"
        return prompt[-1]["role"]

    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    frame = FunctionModel(spoil).complete([messages, tuple(messages)])
    assert list(frame.text) == ["user", "user"]
    assert messages[0]["content"] == "s"
    assert frame.cached[1]


@pytest.mark.parametrize(
    ("prompts", "decoding", "message"),
    [
        ("one", {}, r"\[prompt\]"),
        ({"role": "user", "content": "x"}, {}, r"\[prompt\]"),
        ([{"role": "user", "content": "x"}], {}, "prompt 0 is"),
        (["a", None], {}, "prompt 1 is None"),
        (["a", float("nan")], {}, "dropna"),
        (["a", []], {}, "prompt 1"),
        ([[{"content": "no role"}]], {}, "prompt 0"),
        (["a"], {"n": 2}, "'n' is not"),
        (["a"], {"model": "x"}, "'model' is not"),
        (["a"], {"top_logprobs": 21}, "between 0 and 20"),
        (["a"], {"replicate": [0, 1]}, "one for each of the 1 prompts"),
        (["a"], {"replicate": -1}, "replicate"),
        (["a"], {"seed": object()}, "seed must be made of"),
        (["a"], {"temperature": float("inf")}, "temperature must be"),
    ],
)
def test_bad_arguments_are_named_before_anything_is_sent(prompts, decoding, message):
    model = FunctionModel(lambda prompt: pytest.fail("called"))
    with pytest.raises(DataError, match=message):
        model.complete(prompts, **decoding)


@pytest.mark.parametrize("choices", ["AB", ["A"], ["A", " A"], ["A", ""], ["A", 1]])
def test_bad_choices(choices):
    with pytest.raises(DataError, match="choices must be"):
        FunctionModel(yes).choice_probabilities(["a"], choices)


def test_bad_settings():
    with pytest.raises(DataError, match="callable"):
        FunctionModel("text")
    with pytest.raises(DataError, match="name="):
        FunctionModel(yes, cache="x.sqlite")
    with pytest.raises(DataError, match="concurrency"):
        FunctionModel(yes, concurrency=0)


def test_answers_are_cached_and_failures_are_not(tmp_path):
    calls = []

    def flaky(prompt):
        calls.append(prompt)
        return Reply(error="down") if prompt == "b" and calls.count("b") == 1 else prompt * 2

    model = FunctionModel(flaky, name="flaky", cache=tmp_path / "c.sqlite")
    assert list(model.complete(["a", "b"]).status) == ["ok", "error"]
    second = model.complete(["a", "b"])
    assert list(second.text) == ["aa", "bb"] and list(second.cached) == [True, False]
    assert calls == ["a", "b", "b"]
    model.complete(["a"], temperature=0.0)
    model.complete(["a"], temperature=0)  # the same number, the same request
    FunctionModel(flaky, name="flaky", revision="2", cache=tmp_path / "c.sqlite").complete(["a"])
    assert calls == ["a", "b", "b", "a", "a"]


def test_one_cached_answer_serves_other_choices(tmp_path):
    calls = []
    model = FunctionModel(
        lambda prompt: calls.append(prompt) or yes(prompt), name="m", cache=tmp_path / "c"
    )
    first = model.choice_probabilities(["a"], ["Yes", "No"])
    second = model.choice_probabilities(["a"], ["No", "Perhaps"])
    assert len(calls) == 1
    assert first["probability[No]"][0] == pytest.approx(0.2 / 0.9)
    assert second["probability[No]"][0] == 1.0


def test_a_store_that_fails_does_not_lose_the_answer(tmp_path, monkeypatch):
    def full(self):
        raise sqlite3.OperationalError("disk full")

    monkeypatch.setattr(Reply, "to_json", full)
    model = FunctionModel(str.upper, name="upper", cache=Cache(tmp_path / "c"))
    with pytest.warns(CausalRMWarning, match="disk full") as record:
        frame = model.complete(["a"])
    assert frame.text[0] == "A"
    assert record[0].filename == __file__


def test_plan_counts_before_anything_is_paid(tmp_path):
    model = FunctionModel(str.upper, name="upper", cache=tmp_path / "new" / "c.sqlite")
    plan = model.plan(["a" * 40, "b", "b"], max_tokens=10, price=(1.0, 2.0))
    assert not (tmp_path / "new").exists()
    assert (plan.calls, plan.prompt_tokens, plan.completion_tokens) == (2, 19, 20)
    assert plan.cost == pytest.approx((19 * 1 + 20 * 2) / 1e6)
    assert np.isnan(plan.minutes)
    model.complete(["b"], max_tokens=10)
    after = model.plan(["a" * 40, "b", "b"], max_tokens=10)
    assert list(after.rows.cached) == [False, True, True] and after.calls == 1
    assert "3 prompts: 1 calls to pay, 2 cached, 0 repeated" in str(after)
    assert np.isnan(model.plan(["a"]).completion_tokens)
    assert np.isnan(model.plan(["a"]).cost)


def test_plan_for_choices_has_the_keys_of_the_run(tmp_path):
    model = FunctionModel(yes, name="yes", cache=tmp_path / "c")
    frame = model.choice_probabilities(["a"], ["Yes", "No"])
    plan = model.plan(["a", "b"], ["Yes", "No"])
    assert plan.rows.key[0] == frame.key[0]
    assert plan.calls == 1


def test_it_works_inside_a_running_event_loop():
    async def notebook_cell():
        frame = FunctionModel(str.upper).complete(["a"])
        with pytest.raises(DataError):
            FunctionModel(str.upper).complete("a")
        return frame.text[0]

    assert asyncio.run(notebook_cell()) == "A"


def test_an_interrupt_gets_through():
    def interrupt(prompt):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FunctionModel(interrupt).complete(["a", "b"])


def test_copies_and_pickles():
    model = FunctionModel(yes, name="yes", cache="somewhere")
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(FunctionModel(str.upper)))):
        assert repr(other).startswith("FunctionModel(")


def test_strange_text_survives(tmp_path):
    prompts = ["\ud800", "é" * 1000, "\x00", "👍", "", "'; DROP TABLE replies; --"]
    model = FunctionModel(lambda p: p or "none", name="same", cache=tmp_path / "c")
    assert list(model.complete(prompts).text) == [p or "none" for p in prompts]
    assert list(model.complete(prompts).text) == [p or "none" for p in prompts]
