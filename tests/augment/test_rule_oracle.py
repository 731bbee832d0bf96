"""Rules that edit texts: they move the attribute that they name, and style by the set amount."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalrm.augment import Ask, RuleOracle
from causalrm.core.errors import DataError
from causalrm.datasets import make_preferences
from causalrm.datasets._preference_text import CAUSAL, STYLE

DATA, TRUTH = make_preferences(150, rng=11)
UP = "upgrade"


def asks(step, attribute="", direction="", texts=None, **more):
    texts = DATA.rejected if texts is None else texts
    return [
        Ask(step=step, query=q, answer=t, other=o, attribute=attribute, direction=direction, **more)
        for q, t, o in zip(DATA["query"], texts, DATA.chosen, strict=True)
    ]


def values(replies):
    assert all(reply.status == "ok" for reply in replies)
    return [reply.value for reply in replies]


@pytest.mark.parametrize("direction", [UP, "degrade"])
@pytest.mark.parametrize("attribute", [*CAUSAL, *STYLE])
def test_an_edit_moves_its_attribute_and_no_other(attribute, direction):
    put = asks("rewrite", attribute, direction)
    new = values(RuleOracle(leak=0).rewrite(put))
    gain = TRUTH.measure(DATA["query"], new) - TRUTH.measure(DATA["query"], DATA.rejected)
    changed = DATA.rejected.to_numpy() != np.array(new)
    assert changed.mean() > 0.25
    sign = 1 if direction == UP else -1
    assert (sign * gain.loc[changed, attribute] > 0).all()
    if attribute in CAUSAL:
        assert not gain.drop(columns=attribute).to_numpy().any()
    else:
        assert not gain[list(CAUSAL)].to_numpy().any()
    # What could be moved was moved: only the ends of the scale stay.
    end = 1.0 if direction == UP else 0.0
    assert (TRUTH.rejected.loc[~changed, attribute] == end).all()


@pytest.mark.parametrize("leak", [0.0, 0.3, 1.0])
def test_style_leaks_by_the_set_amount(leak):
    for k, attribute in enumerate(CAUSAL):
        style = list(STYLE)[k]
        put = asks("rewrite", attribute, UP)
        new = values(RuleOracle(leak=leak).rewrite(put))
        gain = TRUTH.measure(DATA["query"], new) - TRUTH.measure(DATA["query"], DATA.rejected)
        free = (gain[attribute] > 0) & (TRUTH.rejected[style] < 1)
        share = (gain.loc[free, style] > 0).mean()
        assert share == pytest.approx(leak, abs=4 * np.sqrt(0.25 / free.sum()) * (0 < leak < 1))
        assert not gain.drop(columns=[attribute, style]).to_numpy().any()


def test_paraphrases_and_alignment_keep_and_give_what_they_should():
    oracle = RuleOracle()
    new = values(oracle.paraphrase(asks("paraphrase")))
    assert np.mean(np.array(new) != DATA.rejected) > 0.95
    read = TRUTH.measure(DATA["query"], new)
    np.testing.assert_allclose(read, TRUTH.rejected, atol=1e-12)
    new = values(oracle.align(asks("align")))
    read = TRUTH.measure(DATA["query"], new)
    np.testing.assert_allclose(read[list(CAUSAL)], TRUTH.chosen[list(CAUSAL)], atol=1e-12)
    kept = [name for name in STYLE if name != "formatting"]  # a heading may need its bullets
    np.testing.assert_allclose(read[kept], TRUTH.rejected[kept], atol=1e-12)


def test_verification_tells_good_edits_from_bad():
    oracle = RuleOracle(leak=0.5)
    for attribute in CAUSAL:
        put = asks("rewrite", attribute, UP)
        new = values(oracle.rewrite(put))
        judged = values(
            oracle.verify(
                [
                    Ask(step="verify", query=a.query, answer=a.answer, other=t, attribute=attribute)
                    for a, t in zip(put, new, strict=True)
                ]
            )
        )
        np.testing.assert_array_equal(judged, DATA.rejected.to_numpy() != np.array(new))
        other = {"correctness": "evidence"}.get(attribute, "correctness")
        wrong = [
            Ask(step="verify", query=a.query, answer=a.answer, other=t, attribute=other)
            for a, t in zip(put, new, strict=True)
        ]
        assert not any(values(oracle.verify(wrong)))
    [both] = oracle.verify(
        [
            Ask(
                step="verify",
                query="What is the capital of Australia?",
                answer="The capital of Australia is Canberra. Australia has six states.",
                other="The capital of Australia is Sydney.",
                attribute="correctness",
            )
        ]
    )
    assert both.value is False and both.reason == "a detail changed too"


QUERY = "How tall is the Eiffel Tower in Paris?"
ANSWER = "The Eiffel Tower is 330 metres tall. It stands in Paris. Cats sleep all day."
OTHER = (
    "The Eiffel Tower is 324 metres tall. The tower was opened in 1889. It was built because of "
    "a world fair. According to its operator, it is repainted every seven years."
)


@pytest.mark.parametrize(
    ("attribute", "direction", "expected"),
    [
        ("correctness", "degrade", ANSWER.replace("330", "462")),
        ("correctness", UP, ANSWER.replace("330", "324")),
        ("completeness", "degrade", "The Eiffel Tower is 330 metres tall. Cats sleep all day."),
        ("completeness", UP, f"{ANSWER} The tower was opened in 1889."),
        ("reasoning", UP, f"{ANSWER} It was built because of a world fair."),
        ("reasoning", "degrade", ANSWER),
        ("relevance", UP, ANSWER.replace(" Cats sleep all day.", "")),
        (
            "evidence",
            UP,
            f"{ANSWER} According to its operator, it is repainted every seven years.",
        ),
    ],
)
def test_questions_it_does_not_know(attribute, direction, expected):
    ask = Ask(
        step="rewrite", query=QUERY, answer=ANSWER, other=OTHER, attribute=attribute,
        direction=direction,
    )  # fmt: skip
    [reply] = RuleOracle(leak=0).rewrite([ask])
    assert reply.value == expected
    verify = Ask(step="verify", query=QUERY, answer=ANSWER, other=expected, attribute=attribute)
    assert RuleOracle().verify([verify])[0].value is (expected != ANSWER)


def test_a_statement_without_a_figure_is_turned_round():
    ask = Ask(
        step="rewrite", query="Is the sky blue?", answer="The sky is blue.", other="",
        attribute="correctness", direction="degrade",
    )  # fmt: skip
    [reply] = RuleOracle(leak=0).rewrite([ask])
    assert reply.value == "The sky is not blue."


@given(st.text(), st.sampled_from([*CAUSAL, *STYLE]), st.sampled_from([UP, "degrade"]))
def test_any_text_is_edited_to_a_text(text, attribute, direction):
    for query in ("Why so?", "How high is Mount Everest?"):
        ask = Ask(
            step="rewrite", query=query, answer=text, other=OTHER, attribute=attribute,
            direction=direction,
        )  # fmt: skip
        oracle = RuleOracle(leak=1)
        [reply] = oracle.rewrite([ask])
        assert isinstance(reply.value, str) and reply.value == oracle.rewrite([ask])[0].value


def test_attributes_weigh_one_and_are_movable_first():
    put = [
        Ask(step="attributes", query=q, answer=c, other=r, n=n)
        for q, c, r in DATA.itertuples(index=False)
        for n in (1, 3, 5)
    ]
    for ask, named in zip(put, values(RuleOracle().attributes(put)), strict=True):
        assert len({a.name for a in named}) == len(named) == ask.n
        assert sum(a.weight for a in named) == pytest.approx(1)
    [failed] = RuleOracle().attributes(
        [Ask(step="attributes", query="?", answer="", other="", n=6)]
    )
    assert failed.status == "failed" and "6 attributes are wanted" in failed.reason
    wrong = RuleOracle(attributes=("length", "correctness"))
    [named] = values(
        wrong.attributes([Ask(step="attributes", query="?", answer="", other="", n=2)])
    )
    assert {a.name for a in named} == {"length", "correctness"}
    for step in asks("elements", "evidence", n=5)[:2]:
        [elements] = values(RuleOracle().elements([step]))
        assert len(elements) == 5 and {e.effect for e in elements} == {"raises", "lowers"}


@pytest.mark.parametrize("options", [{"leak": 1.2}, {"attributes": ["charm"]}])
def test_arguments_that_do_not_fit(options):
    with pytest.raises(DataError, match="must be"):
        RuleOracle(**options)
