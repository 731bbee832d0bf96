from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from formulaic.transforms import TRANSFORMS

from causalrm import DataError
from causalrm.core.design import Design, prepare
from causalrm.core.expression import Expression

NAMES = {"x", "y", "my col", "µ", "ﬁeld", "__import__('os').system('echo')"}
X = np.linspace(0.5, 3.0, 7)
COLUMNS = {"x": X, "y": X[::-1].copy(), "my col": X**2, "µ": -X, "ﬁeld": X + 1}


def value(text: str) -> np.ndarray:
    computed, _ = Expression(text, NAMES).compute(COLUMNS)
    return computed.values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x + 1", X + 1),
        ("-x ** 2 / (y - 4)", -(X**2) / (X[::-1] - 4)),
        ("x // 1 % 2", X // 1 % 2),
        ("I(x * 2)", 2 * X),
        ("np.where((x > 1) & (y > 1) | (x == 3), x, 0)",
         np.where((X > 1) & (X[::-1] > 1) | (X == 3), X, 0)),
        ("~(x >= 1) ^ (y != 1)", ~(X >= 1) ^ (X[::-1] != 1)),
        ("np.clip(x, 1, 2)", np.clip(X, 1, 2)),
        ("np.maximum(x, y)", np.maximum(X, X[::-1])),
        ("np.round(x, 1)", np.round(X, 1)),
        ("log(`my col`) + np.sqrt(`my col`)", np.log(X**2) + X),
        ("µ + ﬁeld", np.ones(7)),  # Python reads these identifiers in their normal form
        ("`µ` * True", -X),
        ("2 ** 3 ** 2 * x", 512 * X),
    ],
)  # fmt: skip
def test_arithmetic(text: str, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(value(text)[0], np.asarray(expected, dtype=float))


def test_whole_numbers_are_computed_as_reals() -> None:
    small = Expression("x ** 3 - 1", {"x"}).compute({"x": np.array([0, 200], dtype=np.uint8)})[0]
    assert small.values.tolist() == [[-1.0, 7_999_999.0]]
    flags = Expression("1 - x", {"x"}).compute({"x": np.array([True, False])})[0]
    assert flags.values.tolist() == [[0.0, 1.0]]


# Each must be refused before anything is computed.
MALICIOUS = [
    "__import__('os').system('touch {canary}')",
    "I(__import__('os').system('touch {canary}'))",
    "np.where(x > 0, open('{canary}', 'w'), 0)",
    "x.__class__", "x.__class__.__mro__", "().__class__", "np.load('{canary}')", "np.savetxt(x, x)",
    "np.exp.__self__", "np.linalg.norm(x)", "np.fromfile(x)", "np.exp(x, out=x)", "np.exp(x, y)",
    "np.exp(x, where=y)", "np", "np.pi * x", "np.exp", "log", "contr.sum", "contr.treatment(x)",
    "(lambda: 1)()", "lambda q: q", "[q for q in x]", "{{q for q in x}}", "{{1: x}}",
    "(q for q in x)", "(q := x)", "f'{{x}}'", "x if y else x", "x[0]", "x[x]", "x and y", "not x",
    "0 < x < 1", "x in y", "x is y", "x @ y", "x << 3", "1 << x", "*x", "I(*x)", "I(**x)", "x, y",
    "[x]", "await x", "yield x", "x + 'a'", "'a' * 1000000", "x + None", "x + ...", "x + b'a'",
    "x + 1j", "print(x)", "eval('1')", "exec('1')", "getattr(x, 'T')", "open('{canary}', 'w')",
    "Q('x')", "hashed(x)", "lag(x)", "exp10(x)", "str(x)", "x.mean()", "bs(x, _state=y)",
    "bs(x, _context=1)", "bs(x, df=y)", "bs(x, df=[i for i in x])", "center(x, 1)", "scale(x, **y)",
    "poly(x, (lambda: 2)())", "bs(x, df=__import__('os').system('touch {canary}'))", "I()", "bs()",
    "C(x, __import__('os').system('touch {canary}'))", "C(x, levels=open('{canary}', 'w'))",
    "C(x, eval('1'))", "C(x, contr.custom)", "C(x, contr.treatment(base=open))", "C(x, dict())",
    "C(np.exp(x))", "C(x > 1)", "C()", "C(x, Sum, [1])", "C(x, other=1)", "C(x, **y)", "C(x) + 1",
    "I(C(x))", "C(x, levels=3)", "np.where(C(x), 1, 2)", "x; y", "x = 1", "import os", "", " ", "`",
    "x +", "'`' + __import__('os').system('touch {canary}') + '`'", "`x` `y`", "`not there`",
    "__builtins__", "__name__", "_quoted0", "x\x00", "((((", "x" * 20_000, "-" * 9_000 + "x",
    "(" * 3_000 + "x" + ")" * 3_000, "+".join(["x"] * 4_000), "x.a" + ".a" * 2_000,
    "[" * 4_000, "bs(x, knots=" + "[" * 90 + "]" * 90 + "+1)",
]  # fmt: skip


@pytest.mark.parametrize("text", MALICIOUS, ids=lambda t: t[:30])
def test_anything_else_is_refused(text: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    with pytest.raises(DataError, match=r"Use |Give |Correct |Add "):
        Expression(text.replace("{canary}", str(canary)), NAMES)
    assert not canary.exists()


@pytest.mark.parametrize("text", MALICIOUS, ids=lambda t: t[:30])
def test_a_tampered_file_is_refused(text: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    text = text.replace("{canary}", str(canary))
    _, _, designs, _ = prepare(pd.DataFrame({"x": X, "y": -X}), {"f": "bs(x, df=4)"})
    state = designs["f"].to_dict()
    rule = state["transforms"].pop("bs(x, df=4)")
    state["transforms"][text] = rule | {"columns": sorted(NAMES)}
    state["products"] = [
        [[text if k == "bs(x, df=4)" else k, j] for k, j in product]
        for product in state["products"]
    ]
    with pytest.raises(DataError):
        Design.from_dict(state).encode(COLUMNS, 7)
    assert not canary.exists()


def test_whole_powers_do_not_grow_without_bound() -> None:
    read = Expression("x + 9 ** 9 ** 9 ** 9", {"x"})
    with pytest.raises(OverflowError):
        read.compute(COLUMNS)


def test_a_name_between_backticks_is_never_code() -> None:
    # A file may say that such a column exists; it is looked up, not run.
    name = "__import__('os').system('echo')"
    read = Expression(f"`{name}` + 1", NAMES)
    assert read.columns == (name,)
    assert read.compute({name: X})[0].values.tolist() == [(X + 1).tolist()]
    assert Expression("`x` + _quoted0", {"x", "_quoted0"}).columns == ("x", "_quoted0")
    read = Expression("bs(`my col`, df=4) * x", NAMES)
    assert (read.columns, read.learns) == (("my col", "x"), ("bs",))


def test_messages_say_what_is_known() -> None:
    with pytest.raises(DataError, match=r"saw np\.sqrt\.reduce\(x\).*np\.expm1.*as a column"):
        Expression("np.sqrt.reduce(x)", {"x"})
    with pytest.raises(DataError, match=r"no column 'z'\. Give one of: 'x', 'y'"):
        Expression("np.exp(z)", {"x", "y"})
    with pytest.raises(DataError, match="name of a column first in 'C\\(x > 1\\)'"):
        Expression("C(x > 1)", {"x"})


# ---------------------------------------------------------------- functions that learn


@pytest.mark.parametrize(
    ("text", "learns"),
    [
        ("bs(x, df=4)", True),
        ("bs(x, 4, lower_bound=0, upper_bound=4)", True),
        ("bs(x, knots=[1, 2])", True),
        ("bs(x, knots=[1, 2], lower_bound=0, upper_bound=4)", False),
        ("bs(x, lower_bound=0, upper_bound=3 + 1)", False),
        ("cr(x, knots=[1, 2], lower_bound=-1, upper_bound=4)", False),
        ("cr(x, knots=[1, 2], lower_bound=-1, upper_bound=4, constraints='center')", True),
        ("poly(x, 2)", True),
        ("poly(x, 2, True)", False),
        ("poly(x, 2, raw=True)", False),
        ("poly(x, 2, raw=False)", True),
        ("center(x)", True),
        ("np.log(scale(x))", True),
        ("np.log(x)", False),
    ],
)
def test_what_learns(text: str, learns: bool) -> None:
    read = Expression(text, {"x"})
    assert bool(read.learns) is learns
    whole, state = read.compute({"x": X})
    if not learns:  # a part of the rows gives the same values
        part, _ = read.compute({"x": X[2:4]})
        np.testing.assert_allclose(part.values, whole.values[:, 2:4], rtol=1e-14)
    part, again = read.compute({"x": X[2:4]}, state)
    np.testing.assert_allclose(part.values, whole.values[:, 2:4], rtol=1e-12, atol=1e-15)
    assert again is state


def test_nested_functions_keep_their_own_state() -> None:
    read = Expression("center(x) * center(y) + scale(center(x))", {"x", "y"})
    whole, state = read.compute(COLUMNS)
    assert len(state) == 4
    first, _ = read.compute({k: v[:1] for k, v in COLUMNS.items()}, state)
    assert first.values[0, 0] == pytest.approx(whole.values[0, 0], rel=1e-14)
    centred = X - X.mean()
    expected = centred * centred[::-1] + centred / centred.std(ddof=1)
    np.testing.assert_allclose(whole.values[0], expected, atol=1e-14)


def test_lost_state_is_not_learned_anew() -> None:
    read = Expression("center(x)", {"x"})
    with pytest.raises(ValueError, match="missing"):
        read.compute({"x": X}, [{}])
    with pytest.raises(ValueError, match="shorter|longer"):
        read.compute({"x": X}, [])


def test_fields_and_intercept() -> None:
    plain, _ = Expression("poly(x, 2)", {"x"}).compute(COLUMNS)
    assert plain.fields == ["1", "2"] and not plain.spans_intercept
    raw, _ = Expression("poly(x, 2, raw=True)", {"x"}).compute(COLUMNS)
    assert raw.fields == [0, 1]
    spline, _ = Expression("bs(x, df=5, include_intercept=True)", {"x"}).compute(COLUMNS)
    assert spline.fields == [0, 1, 2, 3, 4] and spline.spans_intercept
    np.testing.assert_allclose(spline.values.sum(axis=0), 1.0)
    assert Expression("exp(x)", {"x"}).compute(COLUMNS)[0].fields == [None]


def test_codings() -> None:
    coding = Expression("C(`my col`, contr.treatment(base='b'), levels=['b', -1])", NAMES).coding
    assert coding is not None and coding.column == "my col" and coding.levels == ["b", -1]
    assert isinstance(coding.contrasts, TRANSFORMS["contr"].treatment)
    assert Expression("C(x)", NAMES).coding.contrasts is None  # type: ignore[union-attr]
    assert Expression("x", NAMES).is_name and not Expression("-x", NAMES).is_name


def test_pickle() -> None:
    read = Expression("bs(np.log(`my col`), df=4)", NAMES)
    whole, state = read.compute(COLUMNS)
    again, _ = pickle.loads(pickle.dumps(read)).compute(COLUMNS, state)
    np.testing.assert_array_equal(again.values, whole.values)
