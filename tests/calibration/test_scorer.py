"""Risk scores: each mode, order effects, bounds, failures as rows, variations, JSON."""

from __future__ import annotations

import hashlib
import math
import pickle
import re
from dataclasses import FrozenInstanceError

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalrm.calibration.column_text import ColumnText
from causalrm.calibration.scorer import RiskScorer, read_last_probability, read_number
from causalrm.calibration.scores import STATUS, RiskScores
from causalrm.calibration.task import RiskTask
from causalrm.core.errors import DataError
from causalrm.llm import (
    FunctionModel,
    LoopbackServer,
    OpenAICompatible,
    Replay,
    Reply,
    SimulatedLanguageModel,
)

TASK = RiskTask(
    "Will this patient be ill?",
    {"age": ColumnText("age", template="{} years"), "smokes": "smoking"},
    target="ill",
)
FRAME = pd.DataFrame(
    {
        "age": [71, 35, None, 71],
        "smokes": [True, False, None, True],
        "ill": [1, 0, 0, 1],
    },
    index=["a", "b", "b", "c"],
)


def risk_of(prompt):
    """What the simulated model believes, from the last row of the prompt."""
    row = prompt[prompt.rindex("- age") :]
    return 0.8 if "smoking: yes" in row else 0.3 if "smoking: no" in row else 0.5


def believes(first=0.0, mass=1.0):
    """A simulated model that leans towards the first choice and may say other things."""

    def function(prompt):
        yes = "A" if "A. Yes" in prompt[prompt.rindex("Question") :] else "B"
        p = risk_of(prompt) + (first if yes == "A" else -first)
        return {yes: mass * p, "AB".replace(yes, ""): mass * (1 - p)}

    return FunctionModel(function, name="simulated")


def scores(model, frame=FRAME, task=TASK, **options):
    return RiskScorer(task, model, **options).score(frame).to_frame()


def test_one_row_per_input_row_with_its_index():
    found = scores(believes())
    assert found.index.equals(FRAME.index)  # labels that repeat included
    np.testing.assert_allclose(found.probability, [0.8, 0.3, 0.5, 0.8])
    np.testing.assert_allclose(found[["lower", "upper"]].T, [found.probability] * 2)
    assert (found.status == "ok").all() and (found.n_calls == 2).all()
    assert found.reason.isna().all()
    np.testing.assert_allclose(found.mass, 1)
    polars = pl.DataFrame({name: FRAME[name].astype(object).tolist() for name in TASK.columns})
    again = scores(believes(), polars)
    assert again.index.equals(pd.RangeIndex(4))
    pd.testing.assert_frame_equal(again, found.reset_index(drop=True))


def test_rows_that_read_alike_are_asked_once():
    asked = []
    model = FunctionModel(lambda prompt: asked.append(prompt) or {"A": 0.5, "B": 0.5})
    RiskScorer(TASK, model).score(FRAME)
    assert len(asked) == len(set(asked)) == 6
    plan = RiskScorer(TASK, model).plan(FRAME, price=(1.0, 2.0))
    assert (plan.calls, len(plan.rows)) == (6, 8)
    assert plan.cost > 0 and len(asked) == 6


def test_order_effects_are_averaged_and_told():
    found = scores(believes(first=0.1))
    np.testing.assert_allclose(found.probability, [0.8, 0.3, 0.5, 0.8])
    np.testing.assert_allclose(found.instability, 0.2)
    one = scores(believes(first=0.1), permutations="none")
    np.testing.assert_allclose(one.probability, [0.9, 0.4, 0.6, 0.9])
    assert one.instability.isna().all()  # nothing to compare with


def test_three_choices_in_all_their_orders():
    task = RiskTask("How?", {"x": "x"}, choices=["low", "mid", "high"], positive=["mid", "high"])
    p = {"low": 0.2, "mid": 0.3, "high": 0.4}  # .1 is said of other things

    def simulated(prompt):
        return {m[1]: p[m[2]] for m in re.finditer(r"^([ABC])\. (\w+)$", prompt, re.M)}

    frame = pd.DataFrame({"x": [1]})
    for permutations, n in (("all", 6), ("cyclic", 3), ("none", 1)):
        found = scores(FunctionModel(simulated), frame, task, permutations=permutations).iloc[0]
        assert found.n_calls == n
        assert found.probability == pytest.approx(0.7 / 0.9)
        # The other choices could gain the .1 that is not listed, or the positive ones.
        assert 0.7 <= found.lower <= 0.7 / 0.9 <= found.upper <= 0.8 + 1e-12
    six = RiskTask("?", {"x": "x"}, choices=list("uvwxyz"))
    with pytest.raises(DataError, match="cyclic"):
        RiskScorer(six, FunctionModel(simulated))
    assert len(RiskScorer(six, FunctionModel(simulated), permutations="cyclic")._last) == 6


def test_bounds_from_missing_mass():
    found = scores(believes(mass=0.5), decoding={"variants": None})
    np.testing.assert_allclose(found.probability, [0.8, 0.3, 0.5, 0.8])
    np.testing.assert_allclose(found.mass, 0.5)
    np.testing.assert_allclose(found.lower, 0.5 * found.probability)
    np.testing.assert_allclose(found.upper, 0.5 * found.probability + 0.5)


def test_no_mass_is_a_missing_score_and_not_one_half():
    found = scores(FunctionModel(lambda prompt: {"Well": 0.9, "I": 0.1}))
    assert found.probability.isna().all()
    assert (found.status == "no_mass").all() and (found.mass == 0).all()
    assert (found.lower == 0).all() and (found.upper == 1).all()
    assert found.reason.str.contains("the likeliest 'Well'").all()
    assert (found.n_answered == 0).all()


def test_forty_percent_missing_replies_all_end_as_rows():
    def fails(prompt):
        if int(hashlib.sha256(prompt.encode()).hexdigest(), 16) % 10 < 4:
            raise TimeoutError("no reply")
        return {"A": 0.7, "B": 0.3}

    frame = pd.DataFrame({"age": range(400), "smokes": False})
    result = RiskScorer(TASK, FunctionModel(fails)).score(frame)
    found = result.to_frame()
    assert len(found) == 400
    counts = found.status.value_counts()
    assert set(counts.index) == {"ok", "partial", "error"}
    assert (result.status == STATUS_OF["error"]).mean() == pytest.approx(0.4, abs=0.05)
    assert counts["ok"] == pytest.approx(0.36 * 400, abs=40)
    failed, partial = found[found.status == "error"], found[found.status == "partial"]
    assert failed.probability.isna().all() and (failed.lower == 0).all()
    assert (failed.upper == 1).all() and failed.reason.str.contains("no reply").all()
    # One order of two answered: its score, bounds that allow anything of the other.
    assert set(partial.probability.round(6)) == {0.3, 0.7}
    np.testing.assert_allclose(partial.lower, partial.probability / 2)
    np.testing.assert_allclose(partial.upper, partial.probability / 2 + 0.5)
    assert partial.instability.isna().all()
    assert partial.reason.str.startswith("1 of 2 calls: error: TimeoutError").all()
    shown = str(result.summary())
    assert "error" in shown and "partial" in shown and "no reply" in shown
    assert result.variance().n_rows.eq(counts["ok"]).all()


STATUS_OF = {name: i for i, name in enumerate(STATUS)}


def test_refusals_and_replies_without_probabilities():
    refusal = FunctionModel(lambda prompt: Reply(refusal="I must not."))
    for mode in ("multiple_choice", "numeric", "reasoning"):
        found = scores(refusal, mode=mode)
        assert (found.status == "refused").all() and found.probability.isna().all()
        assert found.reason.str.contains("I must not.").all()
    silent = scores(FunctionModel(lambda prompt: "A"))
    assert (silent.status == "no_logprobs").all() and silent.probability.isna().all()
    empty = scores(FunctionModel(lambda prompt: ""), mode="numeric")
    assert (empty.status == "empty").all() and empty.probability.isna().all()
    polite = scores(FunctionModel(lambda prompt: "I'm sorry, I can't."), mode="reasoning")
    assert (polite.status == "unparsed").all() and polite.probability.isna().all()
    assert (polite.lower == 0).all() and (polite.upper == 1).all()


def test_a_client_that_claims_success_without_a_number():
    class Broken:
        def complete(self, prompts, **decoding):
            raise AssertionError

        def choice_probabilities(self, prompts, choices, **decoding):
            found = believes().choice_probabilities(prompts, choices)
            return found.assign(**{"probability[A]": np.nan, "probability[B]": np.nan})

    found = scores(Broken())
    # Sums over NaN must not become zeros.
    assert (found.status == "error").all() and found.probability.isna().all()
    with pytest.raises(DataError, match="no method plan"):
        RiskScorer(TASK, Broken()).plan(FRAME)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0.0),
        ("1", 1.0),
        ("1.0", 1.0),
        ("0.0", 0.0),
        (" 0.73\n", 0.73),
        (".5", 0.5),
        ("0,25", 0.25),
        ("73%", 0.73),
        ("100 %", 1.0),
        ("12.5 percent", 0.125),
        ("1e-3", 0.001),
        ("**0.4**", 0.4),
        ("Probability: 0.4", 0.4),
        ("The probability is about 0.4.", 0.4),
        ("~0.4", 0.4),
        ("0.4 (he is 71 years old)", 0.4),
        ("0.3\n\nQuestion: another?\nProbability: 0.8", 0.3),
        ("I would say 0.4", 0.4),
        ("0.7. He smokes.", 0.7),
        ("1. First, he smokes. So 0.6", 0.6),
        ("7", "outside 0 to 1"),
        ("-0.2", "outside 0 to 1"),
        ("110%", "outside 0 to 1"),
        ("0.2-0.4", "a range"),
        ("0.2 to 0.4", "a range"),
        ("7/10", "a range"),
        ("between 0.2 and 0.4", "several numbers"),
        ("he is 71, so 0.4", "several numbers"),
        ("1. The patient will be ill", "no number"),
        ("high", "no number"),
        ("", "no number"),
        ("v2 of the model", "no number"),
    ],
)
def test_numbers_in_replies(text, value):
    found = read_number(text)
    if isinstance(value, str):
        assert isinstance(found, str) and value in found
    else:
        assert found == pytest.approx(value, abs=1e-15)


def test_a_number_that_was_cut_off_is_not_read():
    assert "cut off" in read_number("0.7", cut=True)
    assert read_number("0.7 because", cut=True) == 0.7
    assert "cut off" in read_last_probability("So probability: 70% at", cut=True)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("He smokes.\nProbability: 70%", 0.7),
        ("Probability: 20%. On reflection:\n**Probability: 65 %**", 0.65),
        ("**Probability:** 70%", 0.7),
        ("Probability (ill): ~70%", 0.7),
        ("the probability is approximately 0.5%", 0.005),
        ("Probability: 0%", 0.0),
        ("Probability: 100%", 1.0),
        ("Probability: 0", 0.0),
        ("Probability: 70", 0.7),
        ("Probability: 0.7", 0.7),
        ("Probability: 12,5%", 0.125),
        ("Probability: 1", "may be 1% or 100%"),
        ("Probability: 1.0", "may be 1% or 100%"),
        ("Probability: 60-70%", "a range"),
        ("Probability: 60% to 70%", "a range"),
        ("Probability: 170%", "outside"),
        ("Probability: X%", "no "),
        ("Probability: high", "no "),
        ("70%", "no "),
        ("", "no "),
    ],
)
def test_the_last_probability_in_replies(text, value):
    found = read_last_probability(text)
    if isinstance(value, str):
        assert isinstance(found, str) and value in found
    else:
        assert found == pytest.approx(value, abs=1e-15)


@given(st.text(), st.booleans())
def test_any_text_gives_a_probability_or_a_reason(text, cut):
    for read in (read_number, read_last_probability):
        found = read(text, cut)
        assert isinstance(found, str) or 0 <= found <= 1


@given(st.floats(0, 1), st.integers(0, 6))
def test_every_written_probability_is_read_back(p, digits):
    written = f"{p:.{digits}f}"
    assert read_number(written) == float(written)
    percent = f"{100 * p:.{digits}f}"
    assert read_last_probability(f"So.\nProbability: {percent}%") == float(percent) / 100


def test_numeric_mode_expresses_zero_and_one_and_ties():
    replies = {"yes": "1", "no": "0", "unknown": "somewhere around even"}

    def simulated(prompt):
        return replies[re.search(r"smoking: (\w+)", prompt)[1]]

    result = RiskScorer(TASK, FunctionModel(simulated), mode="numeric").score(FRAME)
    found = result.to_frame()
    assert found.probability.tolist()[:2] == [1.0, 0.0] and math.isnan(found.probability.iloc[2])
    assert found.status.tolist() == ["ok", "ok", "unparsed", "ok"]
    assert "somewhere around even" in found.reason.iloc[2]
    assert found.mass.isna().all() and found.instability.isna().all()
    assert (found.n_calls == 1).all()
    text = str(result.summary())
    assert "scores of exactly 0; 1" in text and "1; 2" in text


def test_reasoning_mode_and_its_replicates():
    def simulated(prompt, replicate, temperature, max_tokens):
        assert (temperature, max_tokens) == (1, 99)
        return f"Let me think.\nProbability: {40 + 10 * replicate}%"

    scorer = RiskScorer(
        TASK,
        FunctionModel(simulated),
        mode="reasoning",
        replicates=3,
        decoding={"max_tokens": 99},
    )
    found = scorer.score(FRAME).to_frame()
    np.testing.assert_allclose(found.probability, 0.5)
    np.testing.assert_allclose(found.instability, 0.2)
    assert scorer.plan(FRAME).calls == 9
    for options in ({}, {"mode": "numeric", "decoding": {"temperature": 0}}):
        with pytest.raises(DataError, match="draws of one reply"):
            RiskScorer(TASK, FunctionModel(simulated), replicates=2, **options)
    cut = FunctionModel(lambda prompt: Reply(text="Probability: 7", finish_reason="length"))
    assert scores(cut, mode="reasoning").reason.str.contains("cut off by max_tokens").all()


def test_variations_are_factors_whose_variance_is_told():
    def simulated(prompt):  # sentences add .1, and "=" adds .05 for smokers only
        p = 0.6 if "smoking" in prompt and "yes" in prompt else 0.2
        p += 0.1 * ("The age" in prompt) + 0.05 * (p == 0.6 and " = " in prompt)
        p += 0.02 if "A. Yes" in prompt else -0.02
        return {"A": p, "B": 1 - p} if "A. Yes" in prompt else {"A": 1 - p, "B": p}

    frame = pd.DataFrame({"age": [1, 2], "smokes": [True, False]})
    variations = {"format": ["bullet", "sentence"], "connector": ["is", "="]}
    result = RiskScorer(TASK, FunctionModel(simulated), variations=variations).score(frame)
    assert result.design.shape == (8, 3)
    np.testing.assert_allclose(result.to_frame().probability, [0.675, 0.25])
    np.testing.assert_allclose(result.to_frame().instability, 0.04)
    found = result.variance().set_index("source")
    expected = {
        "row": 0.2125**2,
        "format": 0.05**2,
        "format x row": 0.0,
        "connector": 0.0125**2,
        "connector x row": 0.0125**2,
        "choices": 0.02**2,
        "choices x row": 0.0,
        "other interactions": 0.0,
    }
    for source, value in expected.items():
        assert found.variance[source] == pytest.approx(value, abs=1e-15), source
    assert found.variance[:-1].sum() == pytest.approx(found.variance["total"])
    assert found.share[:-1].sum() == pytest.approx(1)
    cells = result.cells()
    assert len(cells) == 16 and set(cells.connector) == {"is", "="}
    means = cells.groupby("format").probability.mean()
    assert means["sentence"] - means["bullet"] == pytest.approx(0.1)
    assert "connector x row" in str(result.summary())


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
def test_variances_sum_to_the_total(n, formats, orders, seed):
    design = pd.DataFrame(
        [(f, o, c) for f in range(formats) for o in range(orders) for c in "xy"],
        columns=["format", "order", "choices"],
    )
    p = np.random.default_rng(seed).random((n, len(design)))
    result = RiskScores(
        TASK, "multiple_choice", "simulated", pd.RangeIndex(n), design, p, p, p, p,
        np.zeros(p.shape, np.uint8), np.full(n, None, object),
    )  # fmt: skip
    found = result.variance()
    assert found.variance.iloc[:-1].sum() == pytest.approx(p.var())
    assert (found.variance >= 0).all()


def test_constant_scores_and_single_calls():
    one = RiskScorer(TASK, FunctionModel(lambda p: "0.5"), mode="numeric").score(FRAME.iloc[:1])
    assert one.variance().source.tolist() == ["row", "total"]
    assert one.variance().share.isna().all()  # nothing varies
    assert "variance" not in str(one.summary())
    none = RiskScorer(TASK, FunctionModel(lambda p: "what?"), mode="numeric").score(FRAME)
    with pytest.raises(DataError, match="None of 4 rows"):
        none.variance()
    assert "unparsed" in str(none.summary()) and "100.0%" in str(none.summary())


def test_examples_that_are_scored_are_refused():
    examples = FRAME.iloc[:2]
    rest = pd.DataFrame({"age": [50], "smokes": [False]})
    found = scores(believes(), rest, few_shot=examples)
    assert found.probability.tolist() == pytest.approx([0.3])
    with pytest.raises(DataError, match=r"3 of 4 rows read exactly like.*a, b, c"):
        scores(believes(), FRAME, few_shot=examples)
    assert len(scores(believes(), FRAME, few_shot=examples, allow_overlap=True)) == 4
    with pytest.raises(DataError, match="'ill'"):
        RiskScorer(TASK, believes(), few_shot=examples.drop(columns="ill"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "guess"}, "mode to be one of"),
        ({"permutations": "some"}, "permutations must be"),
        ({"replicates": 0}, "positive int"),
        ({"variations": {"tone": ["kind"]}}, "variations are"),
        ({"variations": {"format": []}}, "variations are"),
        ({"variations": {"order": [1, 1]}}, "variations are"),
        ({"variations": {"format": ["poem"]}}, "format to be one of"),
        ({"client": "gpt"}, "needs a RiskTask and a client"),
    ],
)
def test_arguments_that_do_not_fit(options, message):
    with pytest.raises(DataError, match=message):
        RiskScorer(**({"task": TASK, "client": believes()} | options))


def test_nothing_is_sent_when_a_row_cannot_be_written():
    asked = []
    model = FunctionModel(lambda prompt: asked.append(prompt) or "0.5")
    task = RiskTask("?", {"sex": ColumnText("sex", {1: "male"})})
    with pytest.raises(DataError, match="have no text"):
        RiskScorer(task, model, mode="numeric").score(pd.DataFrame({"sex": [1, 2]}))
    assert not asked


def test_scores_are_immutable_and_survive_json_and_pickle(tmp_path):
    frame = FRAME.set_axis(pd.Index(["é", "b", "b", "東"], name="who"))
    model = believes(first=0.1, mass=0.7)
    result = RiskScorer(TASK, model, variations={"order": ["given", 3]}).score(frame)
    with pytest.raises(ValueError, match="read-only"):
        result.probability[0, 0] = 0.5
    with pytest.raises(FrozenInstanceError):
        result.mode = "numeric"
    path = tmp_path / "scores.json"
    text = result.to_json(path)
    assert path.read_text(encoding="utf-8") == text
    for back in (
        RiskScores.from_json(path), RiskScores.from_json(text), pickle.loads(pickle.dumps(result)),
    ):  # fmt: skip
        assert back.task == TASK
        pd.testing.assert_frame_equal(back.to_frame(), result.to_frame(), check_exact=True)
        pd.testing.assert_frame_equal(back.cells(), result.cells(), check_exact=True)
        assert str(back.summary()) == str(result.summary())
    for damaged in ('{"kind": "RiskScores"}', '{"kind": "RiskTask"}', text[:-9]):
        with pytest.raises(DataError):
            RiskScores.from_json(damaged)


def test_chunks_change_nothing(monkeypatch):
    frame = pd.DataFrame({"age": [1, 2, 1, 3, 4, 5], "smokes": [True, False] * 3})
    whole = scores(believes(first=0.1), frame)
    monkeypatch.setattr("causalrm.calibration.scorer._CHUNK", 4)
    pd.testing.assert_frame_equal(scores(believes(first=0.1), frame), whole)


def test_recorded_replies_and_unicode(tmp_path):
    task = RiskTask("Gefährdet?", {"ort": "Wohnort"}, choices=["Ja, 是", "Nein"])
    frame = pd.DataFrame({"ort": pd.Categorical(["Łódź 👍", None])})
    cache = tmp_path / "cache.sqlite"

    def simulated(prompt):
        assert "Ja, 是" in prompt and ("Łódź 👍" in prompt or "unknown" in prompt)
        return {"A": 0.25, "B": 0.75}

    first = scores(FunctionModel(simulated, name="simulated", cache=cache), frame, task)
    again = scores(Replay(cache), frame, task)
    pd.testing.assert_frame_equal(first, again)
    missing = scores(Replay(cache), pd.DataFrame({"ort": ["Paris"]}), task)
    assert missing.status.tolist() == ["error"] and math.isnan(missing.probability.iloc[0])


def test_a_simulated_language_model_behind_a_real_server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    simulated = FunctionModel(SimulatedLanguageModel(), name="simulated")
    habits = {True: "the patient smokes", False: "the patient walks every day"}
    task = RiskTask("Is the risk high?", {"age": "age", "smokes": ColumnText("habit", habits)})
    direct = scores(simulated, task=task)
    assert (direct.status == "ok").all() and (direct.upper > direct.lower).all()
    # It looks at the letter and not at its choice: the mean over orders shows that it knows
    # nothing, and the instability that the orders disagree.
    np.testing.assert_allclose(direct.probability, 0.5)
    assert (direct.instability > 0).all()
    alone = scores(simulated, task=task, permutations="none")
    assert alone.probability.nunique() == 3  # the words of the row do matter
    faults = [None, "500", "no_logprobs", None, "refusal", None, None]
    with LoopbackServer(simulated, faults=faults) as server:
        model = OpenAICompatible(
            "simulated",
            base_url=server.base_url,
            api_key="simulated",
            backoff=0.005,
            concurrency=1,
            progress=False,
        )
        result = RiskScorer(task, model).score(FRAME)
    served = result.to_frame()
    assert set(served.status) == {"ok", "partial"} and result.model == "simulated"
    failed = result.status != STATUS_OF["ok"]
    assert {int(s) for s in result.status[failed]} == {
        STATUS_OF["refused"], STATUS_OF["no_logprobs"],
    }  # fmt: skip
    expected = RiskScorer(task, simulated).score(FRAME).probability
    np.testing.assert_allclose(result.probability[~failed], expected[~failed])
