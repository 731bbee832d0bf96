"""Simulated preferences: their truth, the labeller's bias, and how edited answers are read."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from causalrm.core.errors import DataError
from causalrm.datasets import PreferenceTruth, make_preferences
from causalrm.datasets._preference_text import (
    CAUSAL,
    PHRASES,
    STYLE,
    TOPICS,
    Segment,
    hits,
    join,
    segments,
    topic_of,
)

DATA, TRUTH = make_preferences(1500, rng=3)


def test_one_seed_gives_one_data_set():
    again, truth = make_preferences(1500, rng=np.random.SeedSequence(3))
    pd.testing.assert_frame_equal(again, DATA)
    assert truth.entropy == TRUTH.entropy == 3
    other, _ = make_preferences(1500, rng=4)
    assert (other.chosen != DATA.chosen).mean() > 0.9
    assert list(DATA.columns) == ["query", "chosen", "rejected"]


def test_what_was_put_in_is_read_off_the_text():
    for side in ("chosen", "rejected"):
        read = TRUTH.measure(DATA["query"], DATA[side])
        pd.testing.assert_frame_equal(read, getattr(TRUTH, side), check_dtype=False)
    assert set(TRUTH.chosen) == {*CAUSAL, *STYLE}
    for name, levels in {**CAUSAL, **STYLE}.items():
        assert TRUTH.chosen[name].nunique() == levels, name


def test_the_labeller_follows_the_stated_probability():
    data, truth = make_preferences(5000, rng=0)
    gap = truth.labeller(data["query"], data.chosen) - truth.labeller(data["query"], data.rejected)
    # Of pairs that differ by g, the better one is chosen with probability s(|g|).
    p = expit(np.abs(gap))
    for low, high in ((0, 0.5), (0.5, 1.5), (1.5, 3), (3, 9)):
        near = (np.abs(gap) > low) & (np.abs(gap) <= high)
        z = ((gap > 0) - p)[near].sum() / np.sqrt((p * (1 - p))[near].sum())
        assert near.sum() > 300 and abs(z) < 3.5


def test_bias_and_correlation_are_set():
    none, truth = make_preferences(2500, bias=0, correlation=0, rng=1)
    assert set(truth.gamma.values()) == {0.0}
    gap = truth.chosen - truth.rejected
    for name in STYLE:  # nothing makes a chosen answer differ in style
        assert abs(gap[name].mean()) < 4 * gap[name].std() / np.sqrt(len(gap))
    assert (gap[list(CAUSAL)].mean() > 0.05).all()
    _, fair = make_preferences(2500, gamma={"length": 3.0}, theta={}, rng=1)
    gap = fair.chosen - fair.rejected
    assert gap["length"].mean() > 0.25
    rho = [truth.chosen[a].corr(truth.chosen[b]) for a, b in zip(CAUSAL, STYLE, strict=True)]
    assert np.abs(rho).max() < 0.05
    _, tied = make_preferences(2500, correlation=0.9, gamma={}, theta={}, rng=1)
    rho = [tied.chosen[a].corr(tied.chosen[b]) for a, b in zip(CAUSAL, STYLE, strict=True)]
    assert np.min(rho) > 0.6


def test_an_answer_beside_the_question_is_worth_nothing():
    here = DATA["query"].map(topic_of).to_numpy()
    turned = np.roll(DATA["query"].to_numpy(), 7)
    other = here != np.array([topic_of(q) for q in turned])
    assert other.sum() > 1000
    answers = DATA.chosen[other]
    assert not TRUTH.reward(turned[other], answers).any()
    style = TRUTH.measure(turned[other], answers)[list(STYLE)]
    np.testing.assert_array_equal(style, TRUTH.chosen.loc[other, list(STYLE)])
    np.testing.assert_allclose(
        TRUTH.labeller(turned[other], answers), style @ np.array(list(TRUTH.gamma.values()))
    )


def test_reversed_style_sets_the_labeller_against_the_truth():
    test = TRUTH.test_set(1000, rng=5)
    pd.testing.assert_frame_equal(test, TRUTH.test_set(1000, rng=5))
    gain = TRUTH.reward(test["query"], test.chosen) - TRUTH.reward(test["query"], test.rejected)
    assert (gain > 0).all()
    style = TRUTH.measure(test["query"], test.chosen) - TRUTH.measure(test["query"], test.rejected)
    assert (style[list(STYLE)].mean() < 0).all()
    ordinary = TRUTH.test_set(1000, correlation=0.6, rng=5)
    assert agrees_with(TRUTH, ordinary) > agrees_with(TRUTH, test) + 0.05
    strong = make_preferences(10, bias=3, rng=0).truth
    assert agrees_with(strong, test) < 0.5
    nothing = make_preferences(10, theta={}, rng=0).truth
    with pytest.raises(DataError, match="no answer is better"):
        nothing.test_set(5)


def agrees_with(truth: PreferenceTruth, frame: pd.DataFrame) -> float:
    a, b = (truth.labeller(frame["query"], frame[side]) for side in ("chosen", "rejected"))
    return float((a > b).mean())


def test_every_sentence_names_its_subject_and_no_phrase_of_style_does():
    subjects = [topic.subject.lower() for topic in TOPICS]
    assert len(set(subjects)) == len(TOPICS) == 24
    queries = [q for topic in TOPICS for q in topic.queries]
    assert len(set(queries)) == 72
    for topic in TOPICS:
        told = (*topic.queries, topic.fact, *topic.details, topic.reason, topic.evidence)
        assert all(topic.subject.lower() in text.lower() for text in told), topic.subject
        assert len(topic.details) == 3 and len({topic.right, *topic.wrong}) == 3
    for phrase in (p for options in PHRASES.values() for p in options):
        assert not any(f" {s} " in f" {phrase.lower()} " for s in subjects)


@pytest.mark.parametrize("topic", range(len(TOPICS)), ids=lambda t: TOPICS[t].subject)
def test_sentences_are_recognised_in_other_dress(topic):
    found = TOPICS[topic]
    for value, which in ((found.right, 0), (found.wrong[0], 1), (found.wrong[1], 2)):
        fact = found.fact.format(value)
        for text in (fact, fact.upper(), f"**{fact}**", fact.rstrip(".") + " , indeed !"):
            assert hits(text) == (("fact", topic, which),), text
    for k, detail in enumerate(found.details):
        for text in (detail, detail.lower(), "  ".join(reversed(detail.rstrip(".").split()))):
            assert hits(text) == (("detail", topic, k),), text
    run_on = f"{found.fact.format(found.right)[:-1]} {found.details[0][:-1]} {found.reason[:-1]}"
    assert {role for role, _, _ in hits(run_on)} == {"fact", "detail", "reason"}


def test_transformations_that_keep_the_meaning_keep_the_reward():
    reward = TRUTH.reward(DATA["query"], DATA.chosen)
    for change in (
        str.upper,
        lambda text: re.sub(r"[.!]", "", text).replace("- ", ""),
        lambda text: text.replace(" ", "  "),
        lambda text: text.replace("- ", "* "),
        lambda text: text + "\nThat is all there is to say.",
    ):
        np.testing.assert_allclose(TRUTH.reward(DATA["query"], DATA.chosen.map(change)), reward)


@given(st.text())
def test_texts_are_their_segments(text):
    assert join(segments(text)) == text


def test_bullets_numbers_and_figures():
    parts = segments("- It is 8.8 km high. So what?\n\n2) Nothing! ")
    assert [p.text for p in parts] == ["It is 8.8 km high.", "So what?", "Nothing!", ""]
    assert [p.lead for p in parts] == ["- ", " ", "\n\n2) ", " "]
    assert segments("") == [] and segments("x") == [Segment("", "x")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_pairs": 0}, "n_pairs must be within 1"),
        ({"n_topics": 1}, "n_topics must be within 2 to 24"),
        ({"correlation": 1.5}, "correlation must be within -1 to 1"),
        ({"theta": {"wit": 1.0}}, "theta has weights of .* got 'wit'"),
        ({"gamma": {"correctness": 1.0}}, "gamma has weights of"),
        ({"rng": -1}, "rng must be"),
    ],
)
def test_arguments_out_of_range(options, message):
    with pytest.raises(DataError, match=message):
        make_preferences(**options)


def test_unknown_questions_have_no_truth():
    with pytest.raises(DataError, match="1 of 2 are others: 'Who am I"):
        TRUTH.reward(["How high is Mount Everest?", "Who am I?"], ["", ""])
    few, _ = make_preferences(300, n_topics=2, rng=0)
    assert few["query"].nunique() == 6
