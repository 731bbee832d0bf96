from __future__ import annotations

import json
import pickle
import time
import warnings
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pytest
from formulaic import Formula, ModelSpec
from hypothesis import given, settings
from hypothesis import strategies as st

import causalrm as crm
from causalrm import DataError, IdentificationError
from causalrm.core import store
from causalrm.core.blocks import Rows
from causalrm.core.design import (
    Design,
    _terms,
    encode_new,
    formula_text,
    prepare,
)

N = 60
RNG = np.random.default_rng(20200301)
FRAME = pd.DataFrame(
    {
        "x": RNG.normal(size=N),
        "y": RNG.uniform(0.5, 3.0, N),
        "z": RNG.integers(-3, 9, N),
        "b": RNG.random(N) < 0.5,
        "g": RNG.choice(list("abc"), N),
        "h": RNG.choice(["u", "v"], N),
        "k": RNG.integers(1, 4, N),
        "c": pd.Categorical(
            RNG.choice(["lo", "mid", "hi"], N), categories=["lo", "none", "mid", "hi"]
        ),
        "my col": RNG.normal(size=N),
        "größe": RNG.normal(size=N),
        "a-b:c": RNG.normal(size=N),
    }
)


def encode(text: str, data: Any = FRAME) -> tuple[Design, np.ndarray]:
    _, rows, designs, _ = prepare(data, {"f": text})
    design = designs["f"]
    return design, design.encode(rows.columns, rows.n_obs)


def by_formulaic(text: str) -> pd.DataFrame:
    frame = FRAME.assign(c=FRAME["c"].cat.remove_unused_categories())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        matrix = ModelSpec(Formula(text)).get_model_matrix(frame, na_action="ignore")
    return pd.DataFrame(matrix).astype(float)


def agrees(text: str) -> None:
    expected = by_formulaic(text)
    design, x = encode(text)
    assert list(design.terms) == list(expected.columns)
    assert x.flags.c_contiguous and x.dtype == float
    np.testing.assert_allclose(x.T, expected.to_numpy(), rtol=1e-12, atol=1e-12)


FORMULAS = [
    "1", "x", "x + y", "g", "0 + g", "g - 1", "0 + x", "g:h", "g*h", "0 + g:h", "g/h", "x/g",
    "(x + g + h)**2", "x:g", "0 + x:g", "x*g*h", "C(k)", "C(k)*x", "0 + C(k)", "C(b)", "b", "b:g",
    "b*x", "c", "c*x", "0 + c:b", "C(c)", "g:h:c", "g:h + g", "h:g + g:x + x", "y + g + 0", "1:x",
    "x*y - x", "1 + x - 1", "z*b", "0 + h:x:g + g", "0 + x:h + h:g", "`my col`", "`my col`:g",
    "{`my col` + 1}", "np.log(`my col` ** 2 + 1)", "größe + I(größe**2)", "`a-b:c`*g", "{x}*g",
    "C(g, Treatment('b'))", "C(g, contr.treatment(base='c'))", "C(g, contr.sum)", "C(g, Sum)",
    "C(g, contr.helmert)", "C(g, contr.helmert(reverse=False, scale=True))", "C(g, contr.diff)",
    "C(k, contr.poly)", "C(k, contr.poly(scores=[1, 2, 5]))", "C(g, contr.SAS)", "C(g, Helmert)*x",
    "0 + C(g, contr.sum)", "0 + C(g, contr.sum) + h", "C(g, levels=['c', 'b', 'a'])",
    "C(k, levels=[3, 2, 1], contrasts=Treatment(2))", "C(g, spans_intercept=False)",
    "0 + C(g, spans_intercept=False)", "C(g, [[1, 0], [0, 1], [-1, -1]])",
    "bs(x, df=4)", "0 + bs(x, df=4)", "bs(x, df=5, include_intercept=True)",
    "0 + bs(x, df=5, include_intercept=True)", "g:bs(x, df=4)",
    "g*bs(x, df=5, include_intercept=True)", "0 + g:bs(x, df=5, include_intercept=True)",
    "bs(y, knots=[1, 2], degree=2, lower_bound=0, upper_bound=4)", "cr(x, df=4)", "cc(y, df=4)",
    "cs(x, df=3, constraints='center')", "poly(x, 3)", "poly(x, degree=2, raw=True)*h",
    "center(x)", "x:center(y)", "scale(x)", "scale(x, center=1.0, scale=2.0)", "standardize(x)",
    "scale(center(x))", "bs(np.log(y), df=4)", "center(x)*g", "np.log(y)", "log(y)", "exp(x)",
    "log10(y)", "log2(y)", "exp2(x)", "np.exp(x)*g", "I(x**2)", "{x**2}", "{x + 1}",
    "np.where(x > 0, x, 0)", "I(x > 0)", "I((x > 0) & (y > 1))", "np.maximum(x, 0)", "I(~(x > 0))",
    "np.clip(x, -1, 1)", "np.power(y, 3)", "np.round(x, 1)", "np.hypot(x, y)", "I(-x)", "I(x / y)",
    "I(z // 2)", "I(z % 2)", "np.sign(x)", "I(x == y)", "I( x*2 ) + I(x * 2)",
]  # fmt: skip


@pytest.mark.parametrize("text", FORMULAS)
def test_design_is_that_of_formulaic(text: str) -> None:
    agrees(text)


FACTORS = [
    "x", "y", "z", "b", "g", "h", "c", "C(k)", "C(g, contr.sum)", "C(h, spans_intercept=False)",
    "C(k, levels=[2, 3, 1])", "`my col`", "np.log(y)", "center(x)", "poly(x, 2)", "I(x * y)",
    "bs(x, df=5, include_intercept=True)",
]  # fmt: skip
terms = st.lists(st.sampled_from(FACTORS), min_size=1, max_size=3, unique=True)
joined = st.tuples(terms, st.sampled_from([":", ":", "*", "/"])).map(lambda t: t[1].join(t[0]))
several = st.lists(joined, min_size=1, max_size=3)
formulas = st.tuples(st.sampled_from(["", "0 + ", "1 + "]), several)


@given(formulas)
@settings(max_examples=80)
def test_random_formulas(drawn: tuple[str, list[str]]) -> None:
    start, parts = drawn
    agrees(start + " + ".join(parts))


def test_order_of_the_rows_of_a_block_does_not_matter() -> None:
    design, x = encode("g*x + bs(y, df=4) + C(k)")
    _, rows = encode_new(FRAME.iloc[::-1], [design])
    np.testing.assert_array_equal(design.encode(rows.columns, N), x[:, ::-1])
    part = {name: c[10:13] for name, c in rows.columns.items()}
    np.testing.assert_array_equal(design.encode(part, 3), x[:, ::-1][:, 10:13])
    # without what was derived beforehand, as in a block of a file
    bare = {name: c for name, c in part.items() if "[" not in name}
    np.testing.assert_allclose(design.encode(bare, 3), x[:, ::-1][:, 10:13], rtol=1e-14, atol=1e-15)


def test_roles_share_designs_and_what_they_learn() -> None:
    texts = {"phi": "bs(x, df=4) + g", "gamma": "bs(x, df=4)", "lam": "bs(x, df=4) + g"}
    _, rows, designs, reader = prepare(FRAME, texts, numbers=["y"])
    assert designs["phi"] is designs["lam"] and designs["phi"] is not designs["gamma"]
    assert designs["phi"].transforms == designs["gamma"].transforms
    assert sorted(rows.columns) == [*(f"bs(x, df=4)[{j}]" for j in range(4)), "g", "x", "y"]
    assert [c.name for c in reader.columns] == ["y", "x", "g"]


def test_intercept_is_no_name() -> None:
    frame = FRAME.rename(columns={"x": "Intercept"})
    design, _ = encode("0 + Intercept", frame)
    assert design.terms == ("Intercept",) and not design.has_intercept
    assert encode("g")[0].has_intercept and not encode("0 + g")[0].has_intercept
    assert len(encode("g")[0]) == 3


# ---------------------------------------------------------------- text of formulas


def test_lists_of_columns() -> None:
    text = formula_text(["x", "my col", "größe", "a-b:c", "g"], "phi")
    assert encode(text)[0].terms == (
        "Intercept", "x", "my col", "größe", "a-b:c", "g[T.b]", "g[T.c]",
    )  # fmt: skip
    assert formula_text([], "phi") == formula_text("", "phi") == formula_text("  ", "phi") == "1"


@pytest.mark.parametrize("name", ["a`b", "1", "2.5", ""])
def test_names_that_no_formula_can_hold(name: str) -> None:
    with pytest.raises(DataError, match="phi.*Rename the column"):
        formula_text(["x", name], "phi")


@pytest.mark.parametrize("formula", [1, None, ["x", 1], {"x": 1}, b"x", {"x"}])
def test_what_is_no_formula(formula: Any) -> None:
    with pytest.raises(DataError, match="formula or a list of column names for phi"):
        formula_text(formula, "phi")


def test_two_sides() -> None:
    with pytest.raises(DataError, match="right-hand side of a formula for phi.*after '~'"):
        formula_text("y ~ x", "phi")


@pytest.mark.parametrize(
    "text",
    ["x +", "x y", "x | y", "x + 'a'", "my col", "`my col", "(x", "x ** y", "2*x", ".", "x + )",
     "f'{x}'", "lambda: 1", "x := 1", "x" * 200_000, "C(g", "a in", "x[1", "x ? y"],
    ids=lambda t: t[:20],
)  # fmt: skip
def test_formulas_that_cannot_be_read(text: str) -> None:
    with pytest.raises(DataError, match=r"for f, .*Check its spelling|no such column|spell|Use "):
        prepare(FRAME, {"f": text})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "at least one term"),
        ("-x - 1", "at least one term"),
        ("x + `1`", "no column named '1'.*Rename"),
        ("2:x", r"no number as a factor.*I\(2 \* x\)"),
        ("nope", "column 'nope' for f.*Give one of: 'x', 'y'"),
        ("np.log(nope)", "no column 'nope'"),
        ("C(nope)", "no column 'nope'"),
        ("np.log(2)", "a column in the term .* names none"),
        ("np.log(g)", "Expected numbers in column 'g'"),
        ("g + C(g, Treatment('zzz'))", "contrasts .* 3 levels .*zzz"),
        ("C(g, [[1, 0], [0, 1]])", "contrasts .* 3 levels"),
        ("C(g, levels=['a', 'b'])", r"all levels of column 'g' .*\['c'\] \(1 of 3\)"),
        ("x + C(x)", "column 'x' .* either as numbers or as categories"),
        ("k:C(k)", "column 'k' .* either as numbers or as categories"),
        ("np.log(k) + C(k)", "column 'k' .* either as numbers or as categories"),
        ("np.log(x)", r"finite values .*'np.log\(x\)', but \d+ of 60 .*first rows: \d+.*x = -"),
        ("bs(x, df=1)", "it raised: .*df"),
        ("bs(x, knots=[1, 2], df=4)", "it raised"),
        ("bs(x, df='a')", "it raised"),
        ("poly(x, 10000000000)", "it raised"),
        ("x + 9 ** 9 ** 9 ** 9 + I(x + 9 ** 9 ** 9 ** 9)", "cannot be read|it raised"),
        ("I(x + 9 ** 9 ** 9 ** 9)", "it raised"),
        ("I(x & 1)", "it raised"),
        ("__import__('os').system('x')", "cannot be read"),
        ("{__import__('os').system('x')}", "saw"),
        ("np.load('x')", r"saw np\.load"),
    ],
)
def test_formulas_that_make_no_sense(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        prepare(FRAME, {"f": text})
    assert str(caught.value).rstrip(".").count(". ") >= 1, "no remedy"


def test_a_category_of_one_level_is_refused() -> None:
    frame = FRAME.assign(one="a")
    with pytest.raises(IdentificationError, match=r"column 'one' .* all 60 rows have 'a'\. Remove"):
        prepare(frame, {"f": "x + one"})
    assert encode("0 + one", frame)[0].terms == ("one[a]",)


def test_text_may_be_coded_in_two_ways() -> None:
    _, _, designs, _ = prepare(FRAME, {"phi": "g", "gamma": "C(g, contr.sum)"})
    assert designs["gamma"].terms == ("Intercept", "C(g, contr.sum)[S.a]", "C(g, contr.sum)[S.b]")


def test_names_that_look_like_parts() -> None:
    frame = FRAME.assign(**{"g-": 1.0 + FRAME["x"], "bs(x, df=4)[1]": FRAME["y"]})
    design, x = encode("g + `g-`", frame)
    assert design.terms == ("Intercept", "g[T.b]", "g[T.c]", "g-")
    np.testing.assert_array_equal(x[3], frame["g-"])
    with pytest.raises(DataError, match="Rename"):
        prepare(frame, {"f": "bs(x, df=4) + `bs(x, df=4)[1]`"})
    with pytest.raises(DataError, match="Rename"):
        prepare(frame.assign(**{"I(x)": 1.0}), {"f": "`I(x)`", "h": "I(x)"})


def test_clusters_are_no_numbers() -> None:
    with pytest.raises(DataError, match="column 'k' .* either as numbers or as categories"):
        prepare(FRAME, {"f": "x + k"}, categories=["k"])
    _, rows, designs, reader = prepare(FRAME, {"f": "C(k)"}, categories=["k", "g"])
    assert [c.levels for c in reader.columns] == [(1, 2, 3), ("a", "b", "c")]
    assert designs["f"].terms == ("Intercept", "C(k)[T.2]", "C(k)[T.3]")


def test_infinity_has_its_meaning_in_roles_only() -> None:
    frame = FRAME.assign(end=np.where(FRAME["x"] > 0, np.inf, 1.0))
    _, rows, _, _ = prepare(frame, {"f": "x"}, numbers=["end"], infinite=["end"])
    assert np.isinf(rows.columns["end"]).any()
    for text in ("end", "np.exp(-end)"):
        with pytest.raises(DataError, match="finite values in column 'end'"):
            prepare(frame, {"f": text}, numbers=["end"], infinite=["end"])


# ---------------------------------------------------------------- storing


TRANSFORMED = [
    "poly(x, 3) + g", "bs(x, df=4):g", "cr(y, df=4)", "cs(x, df=3, constraints='center')",
    "cc(y, df=4)", "scale(center(x)) + standardize(y)", "C(k, contr.poly)*b", "poly(np.log(y), 2)",
    "C(g, Sum) + np.where(x > 0, x, 0)",
]  # fmt: skip


@pytest.mark.parametrize("text", TRANSFORMED)
def test_json(text: str) -> None:
    design, x = encode(text)
    state = design.to_dict()
    texts = [json.dumps(state), json.dumps(store.encode(state))]
    for again in (
        Design.from_dict(state),
        Design.from_dict(json.loads(texts[0])),
        Design.from_dict(store.decode(json.loads(texts[1]))),
        pickle.loads(pickle.dumps(design)),
    ):
        assert again.terms == design.terms and repr(again.columns) == repr(design.columns)
        _, rows = encode_new(FRAME, [again])
        np.testing.assert_allclose(again.encode(rows.columns, N), x, rtol=1e-13, atol=1e-14)
        assert json.dumps(again.to_dict()) == texts[0]
        # few rows are enough: nothing is learned anew
        _, rows = encode_new(FRAME.iloc[[3, 5]], [again])
        np.testing.assert_allclose(again.encode(rows.columns, 2), x[:, [3, 5]], rtol=1e-12)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_result_from_json_predicts(library: str) -> None:
    frame = crm.datasets.load_gbsg2()
    model = crm.SurvivalRegression("poly(age, 2) + bs(nodes, df=4) + hormone", kappa="weibull")
    fit = model.fit(frame, time="time", event="event")
    again = crm.Estimator.from_result(crm.Result.from_json(fit.result_.to_json()))
    new = frame.iloc[:5]
    other = new if library == "pandas" else pl.from_pandas(new)
    expected = fit.predict_survival(new, times=[500.0, 1000.0]).to_numpy()
    np.testing.assert_allclose(
        again.predict_survival(other, times=[500.0, 1000.0]).to_numpy(), expected, rtol=1e-13
    )


def test_levels_that_are_no_text_survive_json() -> None:
    frame = FRAME.assign(
        cut=pd.cut(FRAME["x"], [-9, -1, 0, 1, 9]),
        day=pd.Categorical(pd.Timestamp("2020-01-01") + pd.to_timedelta(FRAME["k"], "D")),
        flag=FRAME["b"],
        real=FRAME["k"] / 2,
    )
    design, x = encode("cut + day*C(flag) + C(real)", frame)
    again = Design.from_dict(store.decode(json.loads(json.dumps(store.encode(design.to_dict())))))
    assert again.columns[0].levels == design.columns[0].levels
    _, rows = encode_new(frame, [again])
    np.testing.assert_array_equal(again.encode(rows.columns, N), x)


def damaged(change: Any) -> dict[str, Any]:
    state = json.loads(json.dumps(encode("bs(x, df=4) + g + z")[0].to_dict()))
    change(state)
    return dict(state)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.pop("terms"),
        lambda s: s.pop("transforms"),
        lambda s: s.update(columns=3),
        lambda s: s.update(columns=[["x"]]),
        lambda s: s.update(columns=[["x", None, "low", 1]]),
        lambda s: s["products"].pop(),
        lambda s: s["products"].append([["z", 1]]),
        lambda s: s["products"][1].append(["bs(x, df=4)", 4]),
        lambda s: s["products"][1].append(["g-", -1]),
        lambda s: s["transforms"]["bs(x, df=4)"].pop("state"),
        lambda s: s["transforms"]["bs(x, df=4)"].update(width="many"),
        lambda s: s["transforms"]["bs(x, df=4)"].update(columns=["y"]),
        lambda s: s["codings"].update({"g-": ["g", [["a"]]]}),
        lambda s: s["codings"].update({"g-": 3}),
    ],
)
def test_damaged_files(change: Any) -> None:
    with pytest.raises(DataError, match="damaged|no column"):
        Design.from_dict(damaged(change))


def test_lost_knots_are_not_learned_from_new_rows() -> None:
    def lose(state: Any) -> None:
        state["transforms"]["bs(x, df=4)"]["state"] = [{}]

    design = Design.from_dict(damaged(lose))
    with pytest.raises(DataError, match="learned in the fit is missing"):
        encode_new(FRAME, [design])


# ---------------------------------------------------------------- new rows


def test_new_rows() -> None:
    design, x = encode("g*x + bs(y, df=4) + c")
    new = FRAME.iloc[20:25].assign(g=FRAME["g"].iloc[20:25].astype("category"), extra="unused")
    for data in (new, pl.from_pandas(new.drop(columns="extra"))):
        source, rows = encode_new(data, [design], numbers=["z"])
        np.testing.assert_allclose(design.encode(rows.columns, 5), x[:, 20:25], rtol=1e-13)
        assert rows.columns["z"].tolist() == FRAME["z"].iloc[20:25].tolist()
    with pytest.raises(DataError, match=r"levels \['a', 'b', 'c'\] in column 'g'.* 2 of 60 .*'q'"):
        encode_new(FRAME.assign(g=["q", "q", *FRAME["g"][2:]]), [design])
    with pytest.raises(DataError, match=r"bs\(y, df=4\).*lie within the bounds of the fit"):
        encode_new(FRAME.assign(y=FRAME["y"] * 2), [design])
    with pytest.raises(DataError, match="'y'.*no such column"):
        encode_new(FRAME.drop(columns="y"), [design])
    with pytest.raises(DataError, match="held in memory .*map_partitions.* Convert"):
        encode_new(dd.from_pandas(FRAME, npartitions=2), [design])


@pytest.mark.parametrize("text", ["g", "bs(x, df=4)"])
def test_designs_of_several_fits_are_not_mixed(text: str) -> None:
    first, other = encode(text)[0], encode(text, FRAME[FRAME["g"] != "a"])[0]
    encode_new(FRAME, [first, encode(f"{text} + y")[0]], numbers=["x"])
    with pytest.raises(DataError, match="designs of one fit.* Use one call per fit"):
        encode_new(FRAME, [first, other])


def test_new_rows_without_columns() -> None:
    design, _ = encode("1")
    source, rows = encode_new(FRAME[["x"]], [design])
    assert design.encode(rows.columns, rows.n_obs).tolist() == [[1.0] * N]
    assert source.n_obs == N


def test_unseen_level_names_rows_by_their_label() -> None:
    design, _ = encode("g")
    new = pd.DataFrame({"g": ["a", "q", "r"]}, index=pd.Index(["r1", "r2", "r3"]))
    with pytest.raises(DataError, match=r"2 of 3 rows have others: 'q', 'r' \(first rows: r2, r3"):
        encode_new(new, [design])


# ---------------------------------------------------------------- in parts


def parts_of(frame: pd.DataFrame) -> Any:
    return dd.from_pandas(frame, npartitions=3)


def test_terms_that_learn_need_all_rows() -> None:
    positional = "bs(x, 4, lower_bound=-9, upper_bound=9)"
    for text in ("bs(x, df=4)", "poly(x, 2)", "center(x)", positional):
        with pytest.raises(DataError, match=r"read in parts.*learns from all rows\. Give a spline"):
            prepare(parts_of(FRAME), {"f": text})


@pytest.mark.parametrize(
    "text",
    [
        "bs(x, knots=[0, 1], lower_bound=-9, upper_bound=9)*g",
        "cr(x, knots=[0, 1], lower_bound=-9, upper_bound=9)",
        "poly(x, 2, raw=True) + np.log(y)",
    ],
)
def test_terms_with_knots_and_bounds(text: str) -> None:
    expected = encode(text)
    _, rows, designs, _ = prepare(parts_of(FRAME), {"f": text})
    assert designs["f"].terms == expected[0].terms
    parts = [designs["f"].encode(part, len(part["x"])) for _, part in rows.parts()]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), expected[1], rtol=1e-13, atol=1e-14)


def test_values_outside_of_written_bounds() -> None:
    text = "bs(x, knots=[0, 1], lower_bound=-0.1, upper_bound=0.1)"
    for data in (FRAME, parts_of(FRAME)):
        with pytest.raises(DataError, match="lie within the bounds"):
            prepare(data, {"f": text})


def test_undefined_values_in_a_part() -> None:
    _, rows, designs, _ = prepare(parts_of(FRAME), {"f": "np.log(x)"})
    with pytest.raises(DataError, match=r"'np.log\(x\)', but \d+ of 20 are not \(first at x = -"):
        list(designs["f"].encode(part, 20) for _, part in rows.parts())


# ---------------------------------------------------------------- speed


def test_small_fits_are_prepared_quickly() -> None:
    frame = FRAME.assign(**{f"v{i}": RNG.normal(size=N) for i in range(9)})
    texts = {
        "phi": " + ".join(f"v{i}" for i in range(8)) + " + g + C(k)",
        "gamma": " + ".join(f"v{i}" for i in range(1, 9)) + " + g:x + np.log(y)",
    }
    best = np.inf
    for _ in range(5):
        _terms.cache_clear()
        start = time.perf_counter()
        prepare(frame, texts)
        best = min(best, time.perf_counter() - start)
    assert best < 0.05  # some 4 ms where nothing else runs


def test_encoding_leaves_the_data_alone() -> None:
    frame = FRAME.copy()
    for name in frame:
        frame[name].to_numpy().flags.writeable = False
    design, _ = encode("x*g + I(x) + {y} + poly(x, 2) + b", frame)
    _, rows = encode_new(frame, [design])
    design.encode(rows.columns, N)
    pd.testing.assert_frame_equal(frame, FRAME)
    assert isinstance(rows, Rows)
