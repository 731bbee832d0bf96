"""A language model as oracle: what of its replies can be used, retries, costs and plans."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalrm.augment import Ask, CausalAugmenter, Element, LLMOracle
from causalrm.augment.llm_oracle import prompt
from causalrm.core.errors import CausalRMWarning, DataError
from causalrm.llm import Cache, FunctionModel, Replay, Reply

QUERY, A, B = "Why is the sky {blue}?", "Because of </answer> scattering.", 'It "is" so.\nReally.'
DATA = pd.DataFrame(
    {
        "query": [f"Question {word}?" for word in ("one", "two", "three")],
        "chosen": ["It is so.", "It was so.", "So it be."],
        "rejected": ["No.", "Never.", "Nowhere."],
    },
    index=["x", "y", "z"],
)


def ask(step, **more):
    what = {"attributes": {"n": 2}, "elements": {"n": 2, "attribute": "depth"}}.get(step, {})
    if step in ("rewrite", "verify"):
        what = {"attribute": "depth", "direction": "upgrade"}
    return Ask(step=step, query=QUERY, answer=A, other=B, **{**what, **more})


def replies(texts, step, **options):
    """Put one question to a model that gives these replies in turn."""
    texts, seen = list(texts), []

    def function(text, **decoding):
        seen.append((text, decoding))
        return texts[len(seen) - 1]

    oracle = LLMOracle(FunctionModel(function, name="simulated"), **options)
    [reply] = getattr(oracle, step)([ask(step)])
    return reply, seen


def named(*pairs):
    return json.dumps({"attributes": [{"name": n, "weight": w} for n, w in pairs]})


GOOD = {
    "attributes": named(("depth", 0.75), ("truth", 0.25)),
    "elements": json.dumps(
        {"elements": [{"text": "a cause", "effect": "raises"}, {"text": "x", "effect": "Lowers"}]}
    ),
    "rewrite": json.dumps({"answer": "Line one.\nLine two."}),
    "paraphrase": 'Here it is:\n```json\n{"answer": "Raw\nbreak"}\n```\nDone.',
    "align": json.dumps({"answer": "  东京 \ud83d\ude00 "}),
    "verify": json.dumps({"change": "much", "direction": "better", "others_changed": False}),
}
VALUES = {
    "attributes": (("depth", 0.75, ""), ("truth", 0.25, "")),
    "elements": (Element("a cause", "raises"), Element("x", "lowers")),
    "rewrite": "Line one.\nLine two.",
    "paraphrase": "Raw\nbreak",
    "align": "东京 😀",
    "verify": True,
}


@pytest.mark.parametrize("step", list(GOOD))
def test_good_replies(step):
    reply, seen = replies([GOOD[step]], step)
    assert reply.status == "ok" and reply.value == VALUES[step]
    assert (reply.calls, reply.cached, reply.retries) == (1, 0, 0) and math.isnan(reply.cost)
    [(text, decoding)] = seen
    assert QUERY in text and A in text and decoding["temperature"] == 0
    assert (B in text) == (step not in ("rewrite", "paraphrase"))


@pytest.mark.parametrize(
    ("step", "text", "reason"),
    [
        ("attributes", "I cannot say.", "holds no JSON object"),
        ("attributes", GOOD["attributes"][:40], "not valid JSON"),
        ("attributes", "[1, 2]", "holds no JSON object"),
        ("attributes", '{"attributes": 3}', "no list of objects 'attributes'"),
        ("attributes", named(("depth", 1.0)), "has 1 attributes where exactly 2"),
        ("attributes", named(("depth", 0.5), (" Depth", 0.5)), "there twice"),
        ("attributes", named(("depth", 0.7), ("truth", 0.7)), "they sum to 1.4"),
        ("attributes", named(("depth", 1.5), ("truth", -0.5)), "weights must be numbers above 0"),
        ("attributes", named(("depth", "0.5"), ("truth", 0.5)), "weights must be numbers"),
        ("attributes", named(("depth", math.nan), ("truth", 0.5)), "weights must be numbers"),
        ("attributes", named(("depth", True), ("truth", 0.5)), "weights must be numbers"),
        ("attributes", named(("", 0.5), ("truth", 0.5)), "'name' is missing"),
        ("elements", GOOD["elements"].replace("raises", "helps"), "one is 'helps'"),
        ("rewrite", '{"answer": ""}', "'answer' is missing"),
        ("rewrite", '{"answer": ["x"]}', "'answer' is missing or is no text"),
        ("rewrite", Reply(text='{"answer": "x"}', finish_reason="length"), "cut off"),
        ("rewrite", "", "empty"),
        ("rewrite", Reply(refusal="I must not."), "refused: I must not."),
        ("verify", '{"change": "big", "direction": "better"}', "has another value"),
        ("verify", GOOD["verify"].replace("false", '"no"'), "must be true or false"),
    ],
)
def test_bad_replies_are_asked_again_and_then_kept_as_failed(step, text, reason):
    reply, seen = replies([text, text, GOOD[step]], step)
    assert reply.status == "ok" and reply.value == VALUES[step]
    assert (reply.calls, reply.retries) == (3, 2)
    (first, _), (second, _), (third, _) = seen
    assert second.startswith(first) and reason in second and "Reply number 2" in third
    draws = [decoding["replicate"] for _, decoding in seen]
    assert len(set(draws)) == 3
    reply, seen = replies([text] * 2, step, n_retries=1)
    assert reply.status == "failed" and reply.value is None and reason in reply.reason
    assert (reply.calls, reply.retries, len(seen)) == (2, 1, 2)


def test_weights_are_scaled_within_a_small_tolerance():
    reply, _ = replies([named(("depth", 0.5), ("truth", 0.51))], "attributes")
    assert sum(a.weight for a in reply.value) == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize(
    ("change", "direction", "others", "good"),
    [
        ("much", "better", False, True),
        ("much", "better", True, False),
        ("much", "worse", False, False),
        ("little", "better", False, False),
        ("none", "same", False, False),
    ],
)
def test_verdicts(change, direction, others, good):
    told = {"change": change, "direction": direction, "others_changed": others}
    assert replies([json.dumps(told)], "verify")[0].value is good


@given(st.text())
def test_any_reply_is_used_or_refused(text):
    oracle = LLMOracle(FunctionModel(lambda prompt: text), n_retries=0)
    for step in GOOD:
        [reply] = getattr(oracle, step)([ask(step)])
        assert reply.status in ("ok", "failed") and (reply.reason is None) == (reply.status == "ok")


def test_errors_of_the_service_are_not_asked_again():
    calls = []

    def broken(text):
        calls.append(text)
        raise TimeoutError("no reply")

    [reply] = LLMOracle(FunctionModel(broken)).verify([ask("verify")])
    assert (reply.status, reply.retries, len(calls)) == ("failed", 0, 1)
    assert "no reply" in reply.reason


def test_prompts_do_not_tell_which_answer_won():
    texts = [prompt(ask("attributes", pair=f"{k:x}")) for k in range(2)]
    assert texts[0].index(A) < texts[0].index(B) and texts[1].index(A) > texts[1].index(B)
    assert "chosen" not in texts[0] and "rejected" not in texts[0]
    text = prompt(ask("rewrite", elements=(Element("a cause", "raises"),)))
    assert "- a cause (raises it)" in text and "clearly better" in text and B not in text
    assert "clearly worse" in prompt(ask("rewrite", direction="degrade"))


@pytest.mark.parametrize("neutrals", [(), ("irrelevant_query",), ("paraphrase", "aligned")])
@pytest.mark.parametrize("n_attributes", [5, 2])
def test_the_plan_is_what_a_clean_run_costs(model_text, neutrals, n_attributes):
    asked = []
    model = FunctionModel(lambda text: asked.append(text) or model_text(text), name="simulated")
    twice = pd.concat([DATA, DATA.iloc[:1]])  # a preference that is there twice is asked once
    augmenter = CausalAugmenter(
        LLMOracle(model, price=(1.0, 10.0)), n_attributes=n_attributes, neutrals=neutrals
    )
    plan = augmenter.plan(twice)
    assert not asked and plan.planned and plan.cost > 0
    frame = augmenter.generate(twice)
    report = augmenter.report_
    assert (frame.status == "ok").all()
    assert plan.calls == report.calls == len(asked)
    per_pair = 1 + 5 * n_attributes
    assert report.calls == 3 * per_pair + ("paraphrase" in neutrals) * report.steps.calls[-2:].sum()
    pd.testing.assert_frame_equal(plan.steps.iloc[:, :5], report.steps.iloc[:, :5])
    pd.testing.assert_frame_equal(plan.pairs, report.pairs)


def test_the_full_setting_costs_26_calls_and_irrelevant_queries_none(model_text):
    model = FunctionModel(model_text, name="simulated")
    for neutrals in ((), ("irrelevant_query", "non_contextual", "non_contextual_tie")):
        plan = CausalAugmenter(LLMOracle(model), neutrals=neutrals).plan(DATA)
        assert plan.calls == 26 * len(DATA)
        assert plan.prompt_tokens > 26 * 3 * 100 and plan.completion_tokens > 0
        assert math.isnan(plan.cost) and "Planned" in str(plan)


def test_tokens_and_costs_are_counted(model_text):
    def priced(text):
        return Reply(text=model_text(text), prompt_tokens=100, completion_tokens=10)

    model = FunctionModel(priced, name="simulated")
    augmenter = CausalAugmenter(LLMOracle(model, price=(2.0, 30.0)), neutrals=())
    augmenter.generate(DATA)
    report = augmenter.report_
    assert report.steps.loc["rewrite", "prompt_tokens"] == 30 * 100
    assert (report.prompt_tokens, report.completion_tokens) == (7800, 780)
    assert report.cost == pytest.approx((7800 * 2 + 780 * 30) / 1e6)
    assert "Cost: 0.039" in str(report)


def test_a_cached_run_is_free_and_the_plan_knows(model_text, tmp_path):
    cache = Cache(tmp_path / "cache.sqlite")
    model = FunctionModel(model_text, name="simulated", cache=cache)
    augmenter = CausalAugmenter(LLMOracle(model, price=(1, 1)), neutrals=("paraphrase", "aligned"))
    first = augmenter.generate(DATA.iloc[:2])
    paid = augmenter.report_.calls
    assert paid == len(cache) == 2 * 26 + 2 + 2
    plan = augmenter.plan(DATA.iloc[:2])
    assert (plan.calls, plan.cost) == (0, 0) and plan.steps["cached"].sum() == paid
    again = augmenter.generate(DATA.iloc[:2])
    pd.testing.assert_frame_equal(first, again)
    assert augmenter.report_.calls == 0 and len(cache) == paid
    # What is added costs what is added, and replies can be replayed without the model.
    assert CausalAugmenter(LLMOracle(model), neutrals=()).plan(DATA).calls == 26
    replayed = CausalAugmenter(LLMOracle(Replay(cache.path)), neutrals=("paraphrase", "aligned"))
    pd.testing.assert_frame_equal(replayed.generate(DATA.iloc[:2]), first)


def test_malformed_replies_end_as_rows(model_text):
    """A third of the replies is never usable; every pair is there all the same."""
    state = np.random.default_rng(0)
    bad: dict[str, bool] = {}

    def function(text):
        original = text.split("\n\nReply number")[0]
        spoilt = bad.setdefault(original, bool(state.random() < 0.15))
        return model_text(original)[:25] if spoilt else model_text(original)

    augmenter = CausalAugmenter(LLMOracle(FunctionModel(function, name="simulated"), n_retries=1))
    data = pd.concat([DATA] * 4, ignore_index=True)
    data["query"] += [f" {k}" for k in range(12)]
    with pytest.warns(CausalRMWarning, match="of 132 pairs failed and have that status"):
        frame = augmenter.generate(data)
    causal = frame[frame.kind == "causal"]
    assert len(causal) == 2 * 5 * 12 and len(frame) == 132
    assert causal.groupby("parent").size().eq(10).all()
    assert {"ok", "failed"} == set(causal.status)
    report = augmenter.report_
    n_bad = sum(bad.values())
    assert report.steps.failed.sum() == report.steps.retries.sum() == n_bad > 10
    assert report.calls == report.steps.asked.sum() + n_bad
    assert len(report.failures) == n_bad and report.failures.reason.str.contains("JSON").all()
    assert causal[causal.status == "ok"][["answer_a", "answer_b"]].notna().all().all()
    counts = frame.attrs["augmentation"]["pairs"]["causal"]
    assert counts == causal.status.value_counts().to_dict()
    json.dumps(frame.attrs)


def test_verification_that_says_no_is_kept_and_counted(model_text):
    def doubtful(text):
        found = model_text(text)
        return found.replace("false", "true") if "quality 0" in text else found

    augmenter = CausalAugmenter(LLMOracle(FunctionModel(doubtful, name="s")), neutrals=())
    frame = augmenter.generate(DATA)
    refused = frame.attribute == "quality 0"
    assert (frame.status[refused] == "not_verified").all() and refused.sum() == 6
    assert (frame.status[~refused] == "ok").all()
    assert frame.loc[refused, ["answer_a", "answer_b"]].notna().all().all()
    assert augmenter.report_.pairs.loc["causal", "not_verified"] == 6


def test_arguments_that_do_not_fit():
    with pytest.raises(DataError, match="needs a client"):
        LLMOracle("gpt")
    with pytest.raises(DataError, match="n_retries"):
        LLMOracle(FunctionModel(str.upper), n_retries=-1)

    class Bare:
        def complete(self, prompts, **decoding):
            raise AssertionError

        def choice_probabilities(self, prompts, choices, **decoding):
            raise AssertionError

    with pytest.raises(DataError, match="Bare has no method plan"):
        CausalAugmenter(LLMOracle(Bare())).plan(DATA)
