"""Frames that hold the same numbers and texts in another form, and frames with other content.

A case of the fuzzer has two parts. A list of `Change` alters what a small, plain frame says: values
go missing, a column is multiplied by 1e9, a level becomes rare. A `Disguise` then writes the
same content in another form: other types, another library, another index, other names of columns
and levels. What the package makes of the disguised frame must be what it makes of the plain one.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import strategies as st

# ---------------------------------------------------------------- content

# Of a column: what happens to it. `rows` are drawn; the factor is a power of ten.
CHANGES = (
    "missing", "infinite", "one missing", "all missing", "scale", "shift", "constant", "zeros",
    "one level", "rare level", "whole", "one outlier", "negative", "dates", "timedeltas", "lists",
    "bytes", "complex", "texts", "mixed", "decimals", "few rows", "one row", "no rows", "copies",
    "copy of another", "many levels",
)  # fmt: skip
WRONG_TYPES = {"dates", "timedeltas", "lists", "bytes", "complex", "texts", "mixed", "decimals"}
MISSING = {"missing", "one missing", "all missing"}


@dataclass(frozen=True)
class Change:
    """One alteration of the content: which, of which column (modulo their number), how much."""

    kind: str
    column: int
    power: int = 0
    rows: tuple[int, ...] = (3, 7, 11)

    def __call__(self, frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
        """Return the frame with another content, and the name of the changed column."""
        name = frame.columns[self.column % frame.shape[1]]
        x = frame[name]
        text = not pd.api.types.is_numeric_dtype(x)
        rows = sorted({r % len(frame) for r in self.rows})
        match self.kind:
            case "few rows":
                return frame.iloc[: 2 + self.rows[0] % 12].reset_index(drop=True), ""
            case "one row":
                return frame.iloc[:1], ""
            case "no rows":
                return frame.iloc[:0], ""
            case "copies":
                return pd.concat([frame, frame.iloc[rows]], ignore_index=True), ""
            case "missing" | "one missing":
                x = x.astype(object if text else float)
                x.iloc[rows[: 1 if self.kind == "one missing" else None]] = None
            case "all missing":
                x = pd.Series([None if text else np.nan] * len(x), dtype=object if text else float)
            case "one level" | "constant":
                x = pd.Series([x.iloc[0]] * len(x))
            case "rare level" if text:
                x = x.astype(object)
                x.iloc[rows[0]] = "zzz"
            case "many levels" if text:
                x = pd.Series([f"{v}{i}" for i, v in enumerate(x)])
            case "dates":
                x = pd.Series(pd.date_range("2020-01-01", periods=len(x), freq="h"))
            case "timedeltas":
                x = pd.Series(pd.to_timedelta(np.arange(len(x)), unit="h"))
            case "lists":
                x = pd.Series([[v] for v in x], dtype=object)
            case "bytes":
                x = pd.Series([str(v).encode() for v in x], dtype=object)
            case "mixed":
                x = x.astype(object)
                x.iloc[rows[0]] = 1.5 if text else "n/a"
            case "copy of another":
                other = frame.columns[(self.column + 1 + self.power % 5) % frame.shape[1]]
                x = frame[other]
            case _ if text:
                pass
            case "texts":
                x = x.astype(str)
            case "decimals":
                decimal = importlib.import_module("decimal").Decimal
                x = pd.Series([decimal(repr(float(v))) for v in x], dtype=object)
            case "complex":
                x = x.astype(complex)
            case "infinite":
                x = x.astype(float)
                x.iloc[rows] = np.inf if self.power % 2 else -np.inf
            case "scale":
                x = x * 10.0**self.power
            case "shift":
                x = x + 10.0 ** abs(self.power)
            case "zeros":
                x = 0.0 * x
            case "whole":
                x = (x * 8).round()
            case "one outlier":
                x = x.astype(float)
                x.iloc[rows[0]] = 10.0 ** abs(self.power)
            case "negative":
                x = -x
        return frame.assign(**{name: x.to_numpy() if len(x) else x}), str(name)


# ---------------------------------------------------------------- form

INDEXES = {
    "plain": lambda n: pd.RangeIndex(n),
    "offset": lambda n: pd.RangeIndex(5, 5 + 3 * n, 3),
    "reversed": lambda n: pd.RangeIndex(n - 1, -1, -1),
    "duplicated": lambda n: pd.Index([0] * n),
    "shuffled": lambda n: pd.Index(np.random.default_rng(0).permutation(n)),
    "text": lambda n: pd.Index([f"row {i % 7}" for i in range(n)]),
    "multi": lambda n: pd.MultiIndex.from_arrays([[i % 3 for i in range(n)], range(n)]),
    "dates": lambda n: pd.date_range("2020-01-01", periods=n)[::-1],
    "missing": lambda n: pd.Index([np.nan] * n),
    "floats": lambda n: pd.Index(np.arange(n) / 3),
    "category": lambda n: pd.CategoricalIndex(["a", "b"] * (n // 2) + ["a"] * (n % 2)),
    "named as a column": lambda n: pd.RangeIndex(n),  # the name is given below
}
LIBRARIES = ("pandas", "pandas", "pandas", "nullable", "pyarrow in pandas", "polars", "pyarrow")
DTYPES = (
    "float64", "float32", "float16", "int8", "int16", "int32", "int64", "uint8", "uint16",
    "uint64", "bool", "Int8", "Int64", "UInt32", "Float32", "Float64", "boolean", "object",
    ">f8", ">i4",
)  # fmt: skip
TEXTS = (
    "object", "str", "string", "category", "ordered", "unused levels", "string[pyarrow]",
    "dictionary",
)  # fmt: skip
# Names of columns that a formula, a frame or a table could take for something else.
NAMES = (
    "x y", "ünï cödé", "年齢", "a[b]", "a:b", "a*b", "a+b", "a~b", "a|b", "a-b", "(a)", "a=b",
    "a,b", "log", "C", "np", "I", "bs", "poly", "center", "np.log", "class", "lambda", "None",
    "True", "term", "estimate", "std_error", "p_value", "conf_low", "parameter", "group", "index",
    "level_0", "Intercept", "intercept", "const", "1", "1x", "a'b", 'a"b', "a\\b", "{x}", "%s",
    "$x$", "x.y", "_", "__class__", "e\u0301", "\ufb01", "ª", "😀", "weights", "time", "event",
    "row", "variable", "value", "count", "size", "values", "name", "T", "x ", " x", "x\ty",
    "x\ny", "", "a`b", "{}", "#", "&", "<b>", "a;b", "nan", "y", "_quoted0", "x[0]", "g[T.b]",
    "w", "outcome", "treatment", "cluster", "propensity", "fold", "n", "p", "time 1.0",
)  # fmt: skip
# What formulas cannot quote: a refusal is an answer there.
UNQUOTABLE = ("", "1", "a`b", "x\ny", "x\ty", "x ", " x", "{}")
LEVELS = {
    "plain": lambda i: f"{i:03d}z",
    "unicode": lambda i: f"ä{i:03d}é",
    "emoji": lambda i: f"😀{i:03d}",
    "brackets": lambda i: f"[T.{i:03d}]",
    "colons": lambda i: f"a:{i:03d}:b",
    "spaces": lambda i: f" a {i:03d}  ",
    "quotes": lambda i: f"'{i:03d}\"",
    "backticks": lambda i: f"`{i:03d}`",
    "braces": lambda i: f"{{{i:03d}}}",
    "percent": lambda i: f"%s{i:03d}%d",
    "code": lambda i: f"C(x)[{i:03d}] + 1",
    "dollars": lambda i: f"$\\frac{{{i:03d}}}$",
    "missing words": lambda i: "" if i == 0 else "None" if i == 1 else f"nan{i:03d}",
    "numbers": lambda i: f"{i:03d}.5",
    "underscores": lambda i: f"__{i:03d}__",
    "newlines": lambda i: f"a\n{i:03d}",
    "long": lambda i: f"{i:03d}" + "x" * 200,
    "results": lambda i: ("Intercept", "estimate", "term")[i] if i < 3 else f"x{i:03d}",
}


@dataclass(frozen=True)
class Disguise:
    """A form in which a frame is handed over."""

    library: str = "pandas"
    dtypes: tuple[str, ...] = ("float64",)
    texts: tuple[str, ...] = ("object",)
    index: str = "plain"
    names: tuple[str, ...] = ()
    levels: str = ""
    bystanders: bool = False
    order: int = 0
    listed: bool = False  # names in lists, where a target takes them in formulas or in lists

    def rename(self, columns: Sequence[str]) -> dict[str, str]:
        """Give each column its name; those beyond the drawn names keep theirs."""
        new = dict(zip(columns, self.names, strict=False))
        return {c: c if new.get(c, c) in columns else new[c] for c in columns}

    def relabel(self, x: pd.Series) -> pd.Series:
        """Give the levels of a text other names in the same order."""
        found = sorted({v for v in x if isinstance(v, str)})
        new = sorted(LEVELS[self.levels](i) for i in range(len(found)))
        if not self.levels or len(set(new)) < len(found):
            return x
        return x.map(dict(zip(found, new, strict=True))).astype(object)

    def __call__(self, frame: pd.DataFrame, levels: Sequence[str]) -> tuple[Any, dict[str, str]]:
        """Return the disguised frame and the names of its columns.

        Parameters
        ----------
        frame : pandas.DataFrame
            With float and object columns.
        levels : sequence of str
            Text columns whose values stand for themselves only: levels, never sentences.
        """
        out: dict[str, pd.Series] = {}
        order = list(frame)
        if self.order:
            order = list(np.random.default_rng(self.order).permutation(order))
        for j, name in enumerate(order):
            x = frame[name].reset_index(drop=True)
            if _is_text(x):
                if name in levels and self.levels:
                    x = self.relabel(x)
                out[name] = _as_text(x, self.texts[j % len(self.texts)], self.library)
            else:
                out[name] = _as_numbers(x, self.dtypes[j % len(self.dtypes)])
        plain = pd.DataFrame(out)
        names = self.rename(list(frame.columns))
        plain = plain.rename(columns=names)
        if self.bystanders:
            plain.insert(0, "unused", [[i] for i in range(len(plain))])
            plain["unused dates"] = pd.Timestamp("2020-01-01")
            plain["unused NaN"] = np.nan
        return self._hand_over(plain), names

    def _hand_over(self, plain: pd.DataFrame) -> Any:
        match self.library:
            case "polars":
                return importlib.import_module("polars").from_pandas(_native(plain))
            case "pyarrow":
                table = importlib.import_module("pyarrow").Table
                return table.from_pandas(_native(plain), preserve_index=False)
            case "pyarrow in pandas":
                pa = importlib.import_module("pyarrow")
                table = pa.Table.from_pandas(_native(plain), preserve_index=False)
                plain = table.to_pandas(types_mapper=pd.ArrowDtype)
            case "nullable":
                with np.errstate(invalid="ignore"), warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # pandas', of infinite values
                    plain = _native(plain).convert_dtypes()
        plain.index = INDEXES[self.index](len(plain))
        if self.index == "named as a column":
            plain.index.name = plain.columns[0]
        return plain


def _is_text(x: pd.Series) -> bool:
    kind = pd.api.types.infer_dtype(x, skipna=True)
    return kind == "string" or (kind == "empty" and x.dtype == object)


def _native(plain: pd.DataFrame) -> pd.DataFrame:
    """Without the types that other libraries do not know."""
    out = plain.copy()
    for name in out:
        dtype = out[name].dtype
        if isinstance(dtype, np.dtype) and (dtype == np.float16 or not dtype.isnative):
            out[name] = out[name].astype(float)
        elif pd.api.types.infer_dtype(out[name]) in ("floating", "boolean"):
            out[name] = out[name].astype(float)
    return out


def _as_numbers(x: pd.Series, dtype: str) -> pd.Series:
    """Numbers in another type that holds each of them exactly, or as they are."""
    if not pd.api.types.is_numeric_dtype(x) or x.dtype.kind == "c":
        return x
    if dtype == "object":
        return x.astype(object)
    try:
        with np.errstate(all="ignore"):
            other = x.astype(dtype)
            back = other.to_numpy(dtype=float, na_value=np.nan)
    except (ValueError, TypeError, OverflowError):
        return x
    return other if np.array_equal(back, x.to_numpy(dtype=float), equal_nan=True) else x


def _as_text(x: pd.Series, kind: str, library: str) -> pd.Series:
    if kind == "object":
        return x.astype(object)
    if kind == "str":
        return x.astype(pd.StringDtype("python", na_value=np.nan))
    if kind in ("string", "string[pyarrow]"):
        return x.astype(kind)
    found = sorted({v for v in x if isinstance(v, str)})
    if kind == "dictionary" and library.startswith("pandas"):
        pa = importlib.import_module("pyarrow")
        codes = pa.array([found.index(v) if isinstance(v, str) else None for v in x], pa.int32())
        values = pa.DictionaryArray.from_arrays(codes, pa.array(found, pa.string()))
        return pd.Series(pd.arrays.ArrowExtensionArray(values))
    if kind == "unused levels":
        found = ["\x01 before", *found, "\uffff after"]
    return pd.Series(pd.Categorical(x, categories=found, ordered=kind == "ordered"))


@dataclass(frozen=True)
class Plan:
    """One case: what the frame says, and how it is handed over."""

    changes: tuple[Change, ...] = ()
    disguise: Disguise = field(default_factory=Disguise)


def plans(
    content: bool = True, names: Sequence[str] = NAMES, levels: Sequence[str] = tuple(LEVELS)
) -> st.SearchStrategy[Plan]:
    """Draw plans; the simplest is the plain frame itself."""
    changes = st.builds(
        Change,
        st.sampled_from(CHANGES),
        st.integers(0, 11),
        st.integers(-12, 12),
        st.lists(st.integers(0, 500), min_size=1, max_size=4).map(tuple),
    )
    few = st.one_of(st.just(()), st.tuples(changes), st.tuples(changes, changes))
    disguises = st.builds(
        Disguise,
        st.sampled_from(LIBRARIES),
        st.lists(st.sampled_from(DTYPES), min_size=1, max_size=8).map(tuple),
        st.lists(st.sampled_from(TEXTS), min_size=1, max_size=4).map(tuple),
        st.sampled_from(sorted(INDEXES)),
        st.lists(st.sampled_from(names), max_size=8, unique=True).map(tuple),
        st.sampled_from(["", *levels]),
        st.booleans(),
        st.integers(0, 3),
        st.booleans(),
    )
    return st.builds(Plan, few if content else st.just(()), disguises)
