from __future__ import annotations

import numpy as np
import pytest

import causalrm as crm

TEXT = "Fly now. It costs 300.\n\nSeats are few! Will you?"


def template(**options):
    parts = [crm.Component("a", "One."), crm.Component("b", "Two."), crm.Component("c", "Three.")]
    return crm.PromptTemplate("{a} {b}\n\n{c} End.", parts, **options)


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ("111", "One. Two.\n\nThree. End."),
        ("101", "One.\n\nThree. End."),
        ("011", "Two.\n\nThree. End."),
        ("001", "Three. End."),
        ("110", "One. Two.\n\nEnd."),
        ("000", "End."),
    ],
)
def test_dropping_leaves_no_gaps(present, expected):
    assert template().render([x == "1" for x in present]) == expected


def test_baselines():
    parts = [
        crm.Component("m", "very cheap", baseline=crm.Mask("#", per_word=True)),
        crm.Component("n", "300", baseline=crm.Neutral("some")),
        crm.Component("r", "red", baseline=crm.Resample(["blue", "green"])),
    ]
    made = crm.PromptTemplate("{m}|{n}|{r}", parts)
    drawn = {made.render([False] * 3, draw=str(k)) for k in range(20)}
    assert drawn == {"# #|some|blue", "# #|some|green"}
    assert made.render([False] * 3, draw="1") == made.render([False] * 3, draw="1")
    assert made.render([True] * 3, draw="1") == "very cheap|300|red"
    every = made.with_baseline(crm.Drop()).with_baseline({"n": crm.Mask("?")})
    assert every.render([False] * 3) == "|?|"


@pytest.mark.parametrize("by", ["sections", "sentences", "words"])
def test_plain_text_comes_back_whole(by):
    made = crm.PromptTemplate.from_text(TEXT, by)
    assert made.render([True] * len(made)) == TEXT
    assert len(made) == {"sections": 2, "sentences": 4, "words": 10}[by]
    assert made.render([False] * len(made)) == ""
    assert "".join(text for text, _ in made.segments) == TEXT


def test_groups_are_nested():
    made = crm.PromptTemplate.from_text(TEXT, "words")
    assert [c.group for c in made.components][-3:] == [
        ("section 2", "sentence 3"),
        ("section 2", "sentence 4"),
        ("section 2", "sentence 4"),
    ]


def test_braces_in_a_text_stay():
    text = "Write {x: 1} as JSON. Then {stop}."
    made = crm.PromptTemplate.from_text(text)
    assert made.render([True, True]) == text
    literal = crm.PromptTemplate("{{x}} {a}", [crm.Component("a", "{b}")])
    assert literal.render([True]) == "{x} {b}"


def test_placebo_fixes_all_but_neutral_components_with_paraphrases():
    parts = [
        crm.Component("p", "{300}"),
        crm.Component("hello", "Hello.", role="neutral", paraphrases=["Hi."]),
    ]
    made = crm.PromptTemplate("{hello} {p}", parts).placebo()
    assert made.names == ("hello",)
    assert made.render([True]) == "Hello. {300}" and made.render([False]) == "Hi. {300}"
    with pytest.raises(crm.DataError, match="neutral components with paraphrases"):
        template().placebo()


def test_shows_itself_in_a_notebook():
    parts = [crm.Component("a", "<b>", role="neutral", group="g")]
    shown = crm.PromptTemplate("x {a}", parts)._repr_html_()
    assert "&lt;b&gt;" in shown and "a (g, neutral)" in shown and "<b>" not in shown


@pytest.mark.parametrize(
    ("text", "parts", "message"),
    [
        ("", ["a"], "prompt is empty"),
        ("   ", ["a"], "prompt is empty"),
        ("{a} {b}", ["a"], "{b} has no component"),
        ("{a", ["a"], "brace"),
        ("{a!r}", ["a"], "has no component"),
        ("{a}", ["a", "a"], "must differ"),
        ("{a}", [], "Between 1 and 1,000"),
    ],
)
def test_bad_templates_are_refused(text, parts, message):
    with pytest.raises(crm.DataError, match=message):
        crm.PromptTemplate(text, [crm.Component(name, "x") for name in parts])


@pytest.mark.parametrize(
    "options",
    [{"name": ""}, {"name": "a{"}, {"name": "a", "role": "loud"}, {"name": "a", "baseline": "x"}],
)
def test_bad_components_are_refused(options):
    with pytest.raises(crm.DataError):
        crm.Component(**options)


def test_other_bad_input():
    with pytest.raises(crm.DataError, match="no component 'z'"):
        template().with_baseline({"z": crm.Drop()})
    with pytest.raises(crm.DataError, match="list of texts"):
        crm.Resample("abc")
    with pytest.raises(crm.DataError, match="by must be"):
        crm.PromptTemplate.from_text(TEXT, "letters")
    with pytest.raises(crm.DataError, match="empty"):
        crm.PromptTemplate.from_text("  \n ")
    with pytest.raises(crm.DataError, match="1,000 players"):
        crm.PromptTemplate.from_text("word " * 10_000, "words")
    with pytest.raises(crm.DataError, match="has no component"):
        template(paraphrases=["{a} {z}"])


def test_random_coalitions_render_their_components_only():
    rng = np.random.default_rng(0)
    words = [f"w{i}x" for i in range(30)]
    made = crm.PromptTemplate.from_text(" ".join(words), "words")
    for _ in range(20):
        z = rng.random(30) < 0.5
        assert made.render(z).split() == [w for w, on in zip(words, z, strict=True) if on]
