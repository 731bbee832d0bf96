"""Reading log-probabilities, and the bounds on choices."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causalrm.llm import choice_bounds
from causalrm.llm.logprobs import read_logprobs, spelling


def logs(**probabilities):
    return [(token, math.log(p)) for token, p in probabilities.items()]


def test_spellings_of_a_key_are_summed():
    top = [
        (t, math.log(p)) for t, p in [("A", 0.2), (" A", 0.1), ("\u0120A", 0.05), ("\u2581B", 0.4)]
    ]
    found = choice_bounds([*top, ("A.", math.log(0.2))], ["A", "B"])
    assert found.probability == pytest.approx([0.35 / 0.75, 0.4 / 0.75])
    assert found.mass == pytest.approx(0.75)
    assert found.rest == pytest.approx(0.05)


def test_a_key_that_is_a_marker_letter_is_found():
    assert spelling("\u0120") == ""
    found = choice_bounds([("\u0120", math.log(0.5)), ("X", math.log(0.5))], ["\u0120", "X"])
    assert found.probability == pytest.approx([0.5, 0.5])


def test_bounds_of_the_specification():
    top = logs(Yes=0.5, No=0.2)
    loose = choice_bounds(top, ["Yes", "No"], variants=None)
    assert loose.lower == pytest.approx([0.5, 0.2])
    assert loose.upper == pytest.approx([0.8, 0.5])
    tight = choice_bounds([*top, ("x", math.log(0.05))], ["Yes", "No"])  # rest .25, u p_min = .05
    assert tight.lower == pytest.approx([0.5 / 0.75, 0.2 / 0.75])
    assert tight.upper == pytest.approx([0.55 / 0.75, 0.25 / 0.75])


def test_no_mass_says_nothing():
    found = choice_bounds(logs(Maybe=0.9), ["Yes", "No"])
    assert np.isnan(found.probability).all()
    assert (found.lower == 0).all() and (found.upper == 1).all()
    assert found.mass == 0


def test_the_drawn_token_counts_but_does_not_bound_the_unlisted_ones():
    top = logs(Yes=0.6, No=0.2)
    found = choice_bounds(top, ["Yes", "No"], sampled=("rare", math.log(0.001)), top_k=2)
    assert found.rest == pytest.approx(0.199)
    assert found.upper[0] == pytest.approx(0.799 / 0.999)  # gains min(rest, p_min = .2)
    # Some servers put the drawn token into the list of the likeliest.
    same = choice_bounds([*top, ("rare", math.log(0.001))], ["Yes", "No"], top_k=2)
    assert same.upper == pytest.approx(found.upper)


def test_probabilities_that_sum_to_more_than_one_are_refused():
    with pytest.raises(ValueError, match="sum to 1.2"):
        choice_bounds(logs(Yes=0.7, No=0.5), ["Yes", "No"])


@settings(max_examples=150, deadline=None)
@given(
    weights=st.lists(st.floats(1e-6, 1.0), min_size=8, max_size=30),
    k=st.integers(1, 30),
    power=st.floats(0.2, 6.0),
    n_choices=st.integers(2, 3),
    draw=st.integers(0, 29),
)
def test_bounds_hold_the_truth(weights, k, power, n_choices, draw):
    p = np.array(weights) ** power
    p /= p.sum()
    keys = ["A", "B", "C"][:n_choices]
    vocabulary = [form for key in keys for form in (key, " " + key)]
    vocabulary += [f"t{i}" for i in range(len(p) - len(vocabulary))]
    of_key = np.array([p[2 * j] + p[2 * j + 1] for j in range(n_choices)])
    truth = of_key / of_key.sum()
    order = np.argsort(-p, kind="stable")[:k]
    top = [(vocabulary[i], math.log(p[i])) for i in order]
    drawn = (vocabulary[draw % len(p)], math.log(p[draw % len(p)]))
    loose = choice_bounds(top, keys, variants=None, sampled=drawn, top_k=k)
    tight = choice_bounds(top, keys, sampled=drawn, top_k=k)
    for found in (loose, tight):
        assert (found.lower <= truth + 1e-9).all() and (truth <= found.upper + 1e-9).all()
        assert found.mass <= of_key.sum() + 1e-9
        if found.mass:
            assert found.probability.sum() == pytest.approx(1.0)
            assert (found.lower <= found.probability + 1e-12).all()
            assert (found.probability <= found.upper + 1e-12).all()
    assert (tight.lower >= loose.lower - 1e-12).all()
    assert (tight.upper <= loose.upper + 1e-12).all()
    if k >= len(p):
        assert tight.upper - tight.lower == pytest.approx(np.zeros(n_choices), abs=1e-9)
        assert tight.probability == pytest.approx(truth)


CURRENT = {
    "content": [
        {
            "token": "\\xc3",
            "logprob": -0.1,
            "bytes": [0xC3],
            "top_logprobs": [
                {"token": "garbled", "logprob": -0.1, "bytes": [0xC3, 0xA9]},
                {"token": "<0x41>", "logprob": -3.0},
                {"token": "x", "logprob": None},
                {"token": "y", "logprob": -12000.0, "bytes": None},
            ],
        }
    ]
}


def test_current_shape_with_bytes():
    [place] = read_logprobs({}, {"logprobs": CURRENT})
    assert place["token"] == "\\xc3"  # a part of a character stays as the server writes it
    assert place["top"] == [["é", -0.1], ["A", -3.0], ["y", -9999.0]]


@pytest.mark.parametrize(
    ("body", "choice"),
    [
        (
            {},
            {
                "logprobs": {
                    "tokens": ["A"],
                    "token_logprobs": [math.log(0.5)],
                    "top_logprobs": [{"A": math.log(0.5), " B": math.log(0.25)}],
                }
            },
        ),
        (
            {
                "completion_probabilities": [
                    {
                        "content": "A",
                        "probs": [
                            {"tok_str": "A", "prob": 0.5},
                            {"tok_str": " B", "prob": 0.25},
                        ],
                    }
                ]
            },
            {"logprobs": None},
        ),
        (
            {
                "completion_probabilities": [
                    {
                        "token": "A",
                        "prob": 0.5,
                        "top_probs": [{"token": "A", "prob": 0.5}, {"token": " B", "prob": 0.25}],
                    }
                ]
            },
            {},
        ),
    ],
    ids=["completions", "llama.cpp before December 2024", "llama.cpp after sampling"],
)
def test_older_shapes(body, choice):
    [place] = read_logprobs(body, choice)
    assert place["token"] == "A"
    assert place["logprob"] == pytest.approx(math.log(0.5))
    found = choice_bounds(place["top"], ["A", "B"])
    assert found.probability == pytest.approx([2 / 3, 1 / 3])


def test_impossible_and_absent_tokens():
    legacy = {
        "completion_probabilities": [{"content": "A", "probs": [{"tok_str": "A", "prob": 0}]}]
    }
    assert read_logprobs(legacy, {})[0]["top"] == [["A", -9999.0]]
    assert read_logprobs({}, {"logprobs": None}) is None
    assert read_logprobs({}, {"logprobs": {"content": []}}) is None
    first = {"tokens": ["<s>"], "token_logprobs": [None], "top_logprobs": [None]}
    assert read_logprobs({}, {"logprobs": first}) == [{"token": "<s>", "logprob": None, "top": []}]


@pytest.mark.parametrize(
    "logprobs",
    [
        {"content": [{"logprob": -1.0}]},
        {"content": ["A"]},
        {"content": [{"token": "A", "logprob": "low"}]},
        {"content": [{"token": "A", "logprob": float("nan")}]},
        {"content": [{"token": "A", "logprob": 0.7}]},
        {"content": [{"token": 3, "logprob": -1.0}]},
        {"tokens": ["A", "B"], "token_logprobs": [-1.0]},
        ["A"],
    ],
)
def test_malformed_ones_are_named(logprobs):
    with pytest.raises(ValueError):
        read_logprobs({}, {"logprobs": logprobs})
