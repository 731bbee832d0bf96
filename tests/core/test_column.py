from __future__ import annotations

import datetime
import decimal
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalrm import DataError
from causalrm.core.column import Column, Look, look_at, refuse

D = decimal.Decimal
INTEGERS, REALS, FLAGS = [3, 0, -2, 3], [1.5, 0.0, -2.25, 1e7], [True, False, True, True]
TEXT, DECIMALS = ["b", "a", "ä", "b"], [D("1.5"), D("-2"), D("0.25"), D("7")]


def series(values: Any) -> nw.Series[Any]:
    if isinstance(values, pa.Array):
        values = pa.chunked_array([values[:2], values[2:]])
    return nw.from_native(values, series_only=True)


def arrow_pandas(values: list[Any], kind: Any) -> pd.Series:
    return pd.Series(pd.array(values, dtype=pd.ArrowDtype(kind)))


NUMBERS = {
    "int64": (pd.Series(INTEGERS), INTEGERS),
    "int8": (pd.Series(INTEGERS, dtype="int8"), INTEGERS),
    "uint8": (pd.Series([1, 2, 3, 255], dtype="uint8"), [1, 2, 3, 255]),
    "float64": (pd.Series(REALS), REALS),
    "float32": (pd.Series(REALS, dtype="float32"), REALS),
    "float16": (pd.Series([1.5, 2.0, 0.5, 4.0], dtype="float16"), [1.5, 2.0, 0.5, 4.0]),
    "big-endian": (pd.Series(np.array(REALS, dtype=">f8")), REALS),
    "bool": (pd.Series(FLAGS), FLAGS),
    "Int64": (pd.Series(INTEGERS, dtype="Int64"), INTEGERS),
    "Float64": (pd.Series(REALS, dtype="Float64"), REALS),
    "boolean": (pd.Series(FLAGS, dtype="boolean"), FLAGS),
    "sparse": (pd.Series(REALS, dtype="Sparse[float]"), REALS),
    "objects: int": (pd.Series(INTEGERS, dtype=object), INTEGERS),
    "objects: mixed": (pd.Series([1, 2.5, 3, 4], dtype=object), [1, 2.5, 3, 4]),
    "objects: bool": (pd.Series(FLAGS, dtype=object), FLAGS),
    "objects: decimal": (pd.Series(DECIMALS, dtype=object), DECIMALS),
    "pandas arrow int": (arrow_pandas(INTEGERS, pa.int64()), INTEGERS),
    "pandas arrow bool": (arrow_pandas(FLAGS, pa.bool_()), FLAGS),
    "pandas arrow decimal": (arrow_pandas(DECIMALS, pa.decimal128(5, 2)), DECIMALS),
    "polars int": (pl.Series(INTEGERS), INTEGERS),
    "polars int128": (pl.Series(INTEGERS, dtype=pl.Int128), INTEGERS),
    "polars float": (pl.Series(REALS), REALS),
    "polars bool": (pl.Series(FLAGS), FLAGS),
    "polars decimal": (pl.Series(DECIMALS), DECIMALS),
    "arrow int": (pa.array(INTEGERS), INTEGERS),
    "arrow float": (pa.array(REALS), REALS),
    "arrow bool": (pa.array(FLAGS), FLAGS),
    "arrow decimal": (pa.array(DECIMALS), DECIMALS),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers(kind: str) -> None:
    values, expected = NUMBERS[kind]
    for use in ("numbers", "either"):
        look = look_at("v", series(values), [use])
        assert look.levels is None and not look.bad and look.n == 4
        assert look.values.tolist() == [float(v) for v in expected]
        assert look.values.dtype.kind in "if" and look.values.dtype.isnative
        assert look.column("v") == Column("v", None, float(min(expected)), float(max(expected)))


MISSING_NUMBERS = {
    "float64": pd.Series([1.0, np.nan, 2.0, None]),
    "Int64": pd.Series([1, None, 2, None], dtype="Int64"),
    "Float64": pd.Series([1.0, None, 2.0, None], dtype="Float64"),
    "Float64 with NaN": pd.Series([0, 0, 1, 0], dtype="Float64") / pd.Series([1, 0, 1, 0]),
    "boolean": pd.Series([True, None, False, None], dtype="boolean"),
    "objects": pd.Series([1, None, 2.5, pd.NA], dtype=object),
    "objects: decimal": pd.Series([D("1"), None, D("2"), np.nan], dtype=object),
    "pandas arrow": arrow_pandas([1, None, 2, None], pa.int64()),
    "pandas arrow bool": arrow_pandas([True, None, False, None], pa.bool_()),
    "polars int": pl.Series([1, None, 2, None]),
    "polars NaN": pl.Series([1.0, float("nan"), 2.0, None]),
    "polars bool": pl.Series([True, None, False, None]),
    "polars decimal": pl.Series([D("1"), None, D("2"), None]),
    "arrow int": pa.array([1, None, 2, None]),
    "arrow NaN": pa.array([1.0, float("nan"), 2.0, None]),
    "arrow bool": pa.array([True, None, False, None]),
    "arrow decimal": pa.array([D("1"), None, D("2"), None]),
}  # fmt: skip
MISSING_TEXT = {
    "objects": pd.Series(["b", None, "a", np.nan], dtype=object),
    "string": pd.Series(["b", None, "a", None], dtype="string[python]"),
    "string[pyarrow]": pd.Series(["b", None, "a", None], dtype="string[pyarrow]"),
    "categorical": pd.Series(pd.Categorical(["b", None, "a", None], categories=["b", "z", "a"])),
    "polars": pl.Series(["b", None, "a", None]),
    "polars categorical": pl.Series(["b", None, "a", None], dtype=pl.Categorical),
    "polars enum": pl.Series(["b", None, "a", None], dtype=pl.Enum(["b", "z", "a"])),
    "arrow": pa.array(["b", None, "a", None]),
    "arrow large": pa.array(["b", None, "a", None], pa.large_string()),
    "arrow dictionary": pa.array(["b", None, "a", None]).dictionary_encode(),
    "arrow dictionary with null": pa.array(["b", None, "a", None]).dictionary_encode("encode"),
}


@pytest.mark.parametrize(
    ("values", "use"),
    [(v, use) for v in MISSING_NUMBERS.values() for use in ("numbers", "either", "categories")]
    + [(v, use) for v in MISSING_TEXT.values() for use in ("either", "categories")],
    ids=[f"{k}-{use}" for k in MISSING_NUMBERS for use in ("numbers", "either", "categories")]
    + [f"{k}-{use}" for k in MISSING_TEXT for use in ("either", "categories")],
)
def test_missing_values_are_counted_and_located(values: Any, use: str) -> None:
    look = look_at("v", series(values), [use])
    assert look.bad == {"missing": (2, [1, 3])}
    with pytest.raises(DataError, match=r"column 'v', but 2 of 4 are missing \(first rows: b, d\)"):
        refuse("v", look, False, pd.Index(list("abcd")))
    with pytest.raises(DataError, match=r"first rows: 11, 13\)\. Drop these rows with df.dropna"):
        refuse("v", look, False, offset=10)


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([None, None], dtype=object), pd.Series([np.nan, np.nan]),
        pd.Series([None, None], dtype="string"), pl.Series([None, None]),
        pl.Series([None, None], dtype=pl.String), pa.array([None, None]),
        pa.array([None, None], pa.string()), pd.Series(pd.Categorical([None, None])),
        pl.Series([None, None], dtype=pl.Categorical),
    ],
)  # fmt: skip
@pytest.mark.parametrize("use", ["either", "categories"])
def test_nothing_but_missing_values(values: Any, use: str) -> None:
    if isinstance(values, pa.Array):
        values = pa.chunked_array([values])
    look = look_at("v", nw.from_native(values, series_only=True), [use])
    with pytest.raises(DataError, match="2 of 2 are missing"):
        refuse("v", look, False)


SORTED = {
    "objects": pd.Series(TEXT, dtype=object),
    "string": pd.Series(TEXT, dtype="string[python]"),
    "string[pyarrow]": pd.Series(TEXT, dtype="string[pyarrow]"),
    "pandas arrow": arrow_pandas(TEXT, pa.string()),
    "polars": pl.Series(TEXT),
    "polars categorical": pl.Series(TEXT, dtype=pl.Categorical),
    "arrow": pa.array(TEXT),
    "arrow large": pa.array(TEXT, pa.large_string()),
    "arrow view": pa.array(TEXT, pa.string_view()),
}


@pytest.mark.parametrize("kind", SORTED)
def test_text_is_sorted(kind: str) -> None:
    look = look_at("v", series(SORTED[kind]), ["either"])
    column = look.column("v")
    assert column.levels == ("a", "b", "ä") and column.is_categorical
    assert look.codes(("a", "b", "ä")).tolist() == [1, 0, 2, 1]
    assert look.codes(("ä", "b")).tolist() == [1, -1, 0, 1]


ORDER = ["unused", "b", "ä", "a"]
ORDERED = {
    "categorical": pd.Series(pd.Categorical(TEXT, categories=ORDER)),
    "ordered categorical": pd.Series(pd.Categorical(TEXT, categories=ORDER, ordered=True)),
    "arrow-backed categorical": pd.Series(TEXT, dtype="string[pyarrow]").astype(
        pd.CategoricalDtype(pd.Index(ORDER, dtype="string[pyarrow]"))
    ),
    "polars enum": pl.Series(TEXT, dtype=pl.Enum(ORDER)),
    "arrow dictionary": pa.DictionaryArray.from_arrays(pa.array([1, 3, 2, 1]), pa.array(ORDER)),
    "pandas arrow dictionary": pd.Series(
        pd.array(
            pa.DictionaryArray.from_arrays(pa.array([1, 3, 2, 1], pa.int32()), pa.array(ORDER)),
            dtype=pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string())),
        )
    ),
}


@pytest.mark.parametrize("kind", ORDERED)
def test_users_order_is_kept_and_unused_levels_go(kind: str) -> None:
    look = look_at("v", series(ORDERED[kind]), ["either"])
    assert look.column("v").levels == ("b", "ä", "a")
    assert look.codes(("b", "ä", "a")).tolist() == [0, 2, 1, 0]


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        (pd.Series([3, 1, 3]), (1, 3)),
        (pd.Series([2.5, -1.0, 2.5]), (-1.0, 2.5)),
        (pd.Series([True, False, True]), (False, True)),
        (pd.Series([3, 1, 3], dtype="Int64"), (1, 3)),
        (pd.Series([True, False, True], dtype="boolean"), (False, True)),
        (pd.Series([3, 1, 3], dtype=object), (1, 3)),
        (pd.Series([D("3"), D("1.5"), D("3")], dtype=object), (1.5, 3.0)),
        (pd.Series(pd.Categorical([3, 1, 3], categories=[3, 2, 1])), (3, 1)),
        (pd.Series(pd.cut([3, 1, 3], [0, 2, 4])), (pd.Interval(0, 2), pd.Interval(2, 4))),
        (pl.Series([3, 1, 3]), (1, 3)),
        (pl.Series([True, False, True]), (False, True)),
        (pa.array([3, 1, 3]), (1, 3)),
        (pa.array([3, 1, 3]).dictionary_encode(), (3, 1)),
        (pa.array([True, False, True]), (False, True)),
    ],
)
def test_levels_of_what_is_no_text(values: Any, levels: tuple[Any, ...]) -> None:
    look = look_at("v", series(values), ["categories"])
    found = look.column("v").levels
    assert found == levels
    assert [type(v) for v in found or ()] == [type(v) for v in levels]  # no numpy scalars
    codes = look.codes(levels)
    assert codes[0] == codes[2] != codes[1] and codes.min() == 0


WRONG = {
    "dates": pd.Series(pd.to_datetime(["2020-01-01", "2020-01-02"])),
    "times with zone": pd.Series(pd.to_datetime(["2020-01-01", "2020-01-02"], utc=True)),
    "durations": pd.Series(pd.to_timedelta([1, 2], "D")),
    "periods": pd.Series(pd.period_range("2020", periods=2, freq="Y")),
    "complex": pd.Series([1 + 2j, 3.0]),
    "bytes": pd.Series([b"a", b"b"]),
    "lists": pd.Series([[1], [2, 3]]),
    "dicts": pd.Series([{"a": 1}, {}]),
    "text and numbers": pd.Series(["a", 1], dtype=object),
    "late numbers in text": pd.Series([*["a"] * 200, 1.5], dtype=object),
    "text and flags": pd.Series(["a", True], dtype=object),
    "date objects": pd.Series([datetime.date(2020, 1, 1), None], dtype=object),
    "intervals": pd.Series([pd.Interval(0, 1), pd.Interval(1, 2)]),
    "polars dates": pl.Series([datetime.date(2020, 1, 1), None]),
    "polars lists": pl.Series([[1], [2]]),
    "polars objects": pl.Series([object(), object()], dtype=pl.Object),
    "arrow dates": pa.array([datetime.date(2020, 1, 1), None]),
    "arrow bytes": pa.array([b"a", b"b"]),
    "arrow structs": pa.array([{"a": 1}, {"a": 2}]),
}


@pytest.mark.parametrize("use", ["numbers", "either", "categories"])
@pytest.mark.parametrize("kind", WRONG)
def test_types_with_no_meaning(kind: str, use: str) -> None:
    with pytest.raises(DataError, match=r"Expected numbers.* in column 'v', but its .*Convert"):
        look_at("v", series(WRONG[kind]), [use])


def test_messages_name_the_types() -> None:
    with pytest.raises(DataError, match=r"201 values have type float and str \(first values: 'a',"):
        look_at("v", series(WRONG["late numbers in text"]), ["either"])
    with pytest.raises(DataError, match="Expected numbers, text or categories .*days since"):
        look_at("v", series(WRONG["dates"]), ["either"])
    for values in (pd.Series(["1", "2"]), ORDERED["polars enum"], SORTED["arrow"]):
        with pytest.raises(DataError, match="Expected numbers in column 'v'.*pandas.to_numeric"):
            look_at("v", series(values), ["numbers"])


def test_numbers_are_not_read_as_categories_too() -> None:
    for use in ("numbers", "either"):
        with pytest.raises(DataError, match="'v'.* as both. Add a copy"):
            look_at("v", series(pd.Series([1, 2])), [use, "categories"])
    assert look_at("v", series(pd.Series(["a"])), ["either", "categories"]).levels == ["a"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.inf, r"finite values in column 'v', but 2 of 4 are infinite .*: 1, 3\)\. Correct"),
        (-np.inf, "2 of 4 are infinite"),
        (1e300, r"magnitudes up to 1e\+100 in column 'v', but 2 of 4 are larger .*1, 3.*Rescale"),
        (-1e101, "2 of 4 are larger"),
    ],
)
def test_numbers_out_of_range(value: float, message: str) -> None:
    look = look_at("v", series(pd.Series([0.5, value, -2.0, value])), ["numbers"])
    with pytest.raises(DataError, match=message):
        refuse("v", look, False)
    if np.isinf(value):
        refuse("v", look, True)
        assert (look.low, look.high) == (-2.0, 0.5)


def test_strided_columns_are_made_contiguous_and_nothing_else_is_copied() -> None:
    x = np.arange(12.0).reshape(4, 3)
    frame = pd.DataFrame(x, columns=list("abc"))
    look = look_at("b", nw.from_native(frame, eager_only=True)["b"], ["numbers"])
    assert look.values.flags.c_contiguous and look.values.tolist() == [1.0, 4.0, 7.0, 10.0]
    plain = pd.Series(REALS)
    assert np.shares_memory(look_at("v", series(plain), ["numbers"]).values, plain.to_numpy())


# ---------------------------------------------------------------- parts


@given(st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=5), min_size=1, max_size=4))
def test_parts_of_text_join_to_the_whole(parts: list[list[str]]) -> None:
    whole = look_at("v", series(pd.Series([v for p in parts for v in p])), ["either"])
    looks = [look_at("v", series(pd.Series(p)), ["either"]) for p in parts]
    joined = looks[0]
    for look in looks[1:]:
        joined = joined.joined(look)
    assert joined.n == whole.n and repr(joined.column("v")) == repr(whole.column("v"))


@given(st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=5), min_size=1, max_size=4))
def test_parts_of_a_categorical_keep_its_order(parts: list[list[str]]) -> None:
    def look(values: list[str]) -> Look:
        return look_at("v", series(pd.Series(pd.Categorical(values, list("dbca")))), ["either"])

    joined = look(parts[0])
    for part in parts[1:]:
        joined = joined.joined(look(part))
    assert repr(joined.column("v")) == repr(look([v for p in parts for v in p]).column("v"))


def test_bad_values_of_parts_add_up() -> None:
    first = look_at("v", series(pd.Series([1.0, np.nan, np.inf])), ["numbers"])
    second = look_at("v", series(pd.Series([np.nan] * 8)), ["numbers"])
    joined = first.joined(second)
    assert joined.bad == {"missing": (9, [1, 3, 4, 5, 6, 7]), "infinite": (1, [2])}
    with pytest.raises(DataError, match=r"9 of 11 .*first rows: 1, 3, 4, 5, 6, \.\.\.\)"):
        refuse("v", joined, False)
    assert (joined.low, joined.high) == (1.0, 1.0)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint64"])
@pytest.mark.parametrize("low", [0, -100, 3])
def test_integers_of_a_narrow_range_are_coded_where_they_lie(dtype: str, low: int) -> None:
    values = np.random.default_rng(0).integers(0, 200 if low < 0 else 90, 5000) + low
    values = np.where(values == low + 7, low, values)  # a number within the range that is absent
    if values.min() < 0 and dtype.startswith("u"):
        values = values - low
    x = values.astype(dtype)
    look = look_at("v", series(pd.Series(x)), ["categories"])
    column = look.column("v")
    assert column.levels == tuple(np.unique(x).tolist())
    np.testing.assert_array_equal(np.array(column.levels)[look.codes(column.levels)], x)
    if x.min() == 0 and dtype != "uint64":
        assert np.shares_memory(look.values, x) or look.values.dtype == x.dtype


def test_levels_of_several_types_are_refused() -> None:
    first = look_at("v", series(pd.Series([1, 2])), ["categories"])
    second = look_at("v", series(pd.Series(["a"])), ["categories"])
    with pytest.raises(DataError, match="column 'v', but its 3 levels have types int and str. Con"):
        first.joined(second).column("v")
