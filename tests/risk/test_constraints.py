"""Prevalence and Expertise: what they accept, and which columns they hold."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import causalrm as crm
from causalrm.core.design import prepare
from causalrm.core.store import decode, encode
from causalrm.risk.constraints import split_constraints
from tests.risk.simulated import selective


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "neither"),
        ({"value": 0.1, "beta": (2, 3)}, "both"),
        ({"value": 0.1, "se": 0.0}, "se to be a finite number above 0"),
        ({"value": 0.1, "se": "wide"}, "se to be a finite number above 0"),
        ({"value": np.nan}, "a prevalence to be a finite number"),
        ({"value": True}, "a prevalence to be a finite number"),
        ({"value": 0.1, "se": 0.01, "hard": True}, "se only beside a value that is not hard"),
        ({"beta": (2, 3), "hard": True}, "a value for a hard prevalence"),
        ({"beta": 3}, "two shapes"),
        ({"beta": (0, 3)}, "shape a of beta"),
        ({"value": {"a": 0.1}}, "one prevalence per level"),
        ({"value": 0.1, "by": "g"}, "one prevalence per level"),
        ({"value": {"a": 0.1}, "by": "g", "hard": True}, "one number for a hard prevalence"),
        ({"value": {"a": 0.1, "b": 0.2}, "by": "g", "se": {"a": 0.1}}, "for each level of 'g'"),
    ],
)
def test_prevalence_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(crm.DataError, match=message):
        crm.Prevalence(**options)


def test_prevalence_targets() -> None:
    (one,) = crm.Prevalence(0.2, se=0.01).targets()
    assert one == (None, 0.2, 0.01, None)
    by = crm.Prevalence({"a": 0.1, "b": 0.3}, se={"a": 0.01, "b": 0.02}, by="g").targets()
    assert [(t.level, t.value, t.se) for t in by] == [("a", 0.1, 0.01), ("b", 0.3, 0.02)]
    (beta,) = crm.Prevalence(beta=(3, 7)).targets()
    assert beta.value == pytest.approx(0.3) and beta.beta == (3.0, 7.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "neither"),
        ({"free": ["x"], "exclude": ["z"]}, "both"),
        ({"free": "x"}, "a list of names"),
        ({"free": [1]}, "a list of names"),
        ({"free": ["x"], "soft": 0}, "soft to be a number above 0"),
        ({"free": ["x"], "soft": "a bit"}, "soft to be a number above 0"),
    ],
)
def test_expertise_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(crm.DataError, match=message):
        crm.Expertise(**options)


FORMULA = "x + C(g) + bs(z, df=4) + x:z"


@pytest.mark.parametrize(
    ("expertise", "free"),
    [
        (crm.Expertise(free=["x"]), ["x"]),
        (crm.Expertise(free=["x", "g"]), ["x", "C(g)"]),
        (crm.Expertise(exclude=["z"]), ["x", "C(g)"]),
        (crm.Expertise(exclude=["g"]), ["x", "bs(", "x:z"]),
        (crm.Expertise(free=["x", "z"]), ["x", "bs(", "x:z"]),
        (crm.Expertise(free=[]), []),
        (crm.Expertise(exclude=[]), ["x", "C(g)", "bs(", "x:z"]),
    ],
)
def test_expertise_holds_columns_of_variables(expertise: crm.Expertise, free: list[str]) -> None:
    design = prepare(selective(50), {"testing": FORMULA})[2]["testing"]
    masked = expertise.masked(design)
    terms = [t for t, m in zip(design.terms, masked, strict=True) if not m]
    assert terms[0] == "Intercept"
    expected = [
        t
        for t in design.terms[1:]
        if t in free or any(re.match(re.escape(f) + r"[\[z]", t) for f in free if f != "x")
        or any(t.startswith(f) for f in free if f.endswith("("))
    ]  # fmt: skip
    assert terms[1:] == expected


def test_expertise_names_the_variables_it_does_not_know() -> None:
    design = prepare(selective(50), {"testing": FORMULA})[2]["testing"]
    with pytest.raises(crm.DataError, match=r"\['C\(g\)'\] are not among \['g', 'x', 'z'\]"):
        crm.Expertise(free=["C(g)"]).masked(design)


def test_lists_of_constraints() -> None:
    one, two = crm.Prevalence(0.2), crm.Expertise(free=["x"])
    assert split_constraints(None) == ((), None)
    assert split_constraints(one) == ((one,), None)
    assert split_constraints([two, one]) == ((one,), two)
    with pytest.raises(crm.DataError, match="a list of Prevalence and Expertise"):
        split_constraints([0.2])
    with pytest.raises(crm.DataError, match="at most one Expertise"):
        split_constraints([two, two])
    with pytest.raises(crm.DataError, match="at most one hard"):
        split_constraints([crm.Prevalence(0.2, hard=True)] * 2)


def test_constraints_survive_json() -> None:
    for item in (crm.Prevalence({1: 0.2, 2: 0.3}, by="g"), crm.Expertise(exclude=["x"], soft=0.1)):
        assert decode(encode(item)) == item
