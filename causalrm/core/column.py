"""One column of one part of the data: its numbers or levels, and what is wrong with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd

from causalrm.core.errors import DataError
from causalrm.core.kernel import kernel

HUGE = 1e100  # squares and products of larger numbers leave the range of a double
TINY = 1e-100
OFFSET = 1e-7  # of a double's 16 digits, some 9 are left for what varies


@dataclasses.dataclass(frozen=True)
class Column:
    """What a fit knows of one column.

    Attributes
    ----------
    name : str
    levels : tuple or None
        The categories in their order, the first being the reference; None for numbers.
    low, high : float
        Range of a numeric column; NaN for categories.
    """

    name: str
    levels: tuple[Any, ...] | None = None
    low: float = np.nan
    high: float = np.nan

    @property
    def is_categorical(self) -> bool:
        """Whether the column holds categories."""
        return self.levels is not None


@dataclasses.dataclass
class Look:
    """What one part of the data says of one column.

    Attributes
    ----------
    n : int
        Rows.
    values : ndarray of shape (n,)
        Numbers, or codes into `levels`, -1 for missing.
    levels : list or None
        All categories in their order; None for numbers.
    used : set
        Those of them that occur.
    ordered : bool
        Whether their order is the user's.
    low, high : float
        Range of the finite numbers.
    bad : dict of str to (int, list of int)
        Count and first positions of values that are missing, infinite or huge.
    """

    n: int
    values: np.ndarray
    levels: list[Any] | None = None
    used: set[Any] = dataclasses.field(default_factory=set)
    ordered: bool = False
    low: float = np.inf
    high: float = -np.inf
    bad: dict[str, tuple[int, list[int]]] = dataclasses.field(default_factory=dict)

    def note(self, what: str, mask: np.ndarray) -> None:
        """Count and locate bad values."""
        if mask.any():
            first = np.flatnonzero(mask)[:6]
            self.bad[what] = int(np.count_nonzero(mask)), [int(i) for i in first]

    def joined(self, other: Look) -> Look:
        """Both parts together, without values."""
        bad = dict(self.bad)
        for what, (count, first) in other.bad.items():
            old, before = bad.get(what, (0, []))
            bad[what] = old + count, [*before, *(self.n + i for i in first)][:6]
        levels = self.levels
        if levels is not None and other.levels is not None:
            levels = list(dict.fromkeys([*levels, *other.levels]))
        return Look(
            self.n + other.n, self.values[:0], levels, self.used | other.used,
            self.ordered and other.ordered, min(self.low, other.low), max(self.high, other.high),
            bad,
        )  # fmt: skip

    def column(self, name: str) -> Column:
        """The column as a fit knows it: unused levels go."""
        if self.levels is None:
            return Column(name, None, self.low, self.high)
        levels = [level for level in self.levels if level in self.used]
        try:
            return Column(name, tuple(levels if self.ordered else sorted(levels)))
        except TypeError as error:
            kinds = sorted({type(level).__name__ for level in levels})
            raise DataError(
                f"Expected levels of one type in column {name!r}, but its {len(levels)} levels "
                f"have types {' and '.join(kinds)}. Convert the column to text."
            ) from error

    def codes(self, levels: Sequence[Any]) -> np.ndarray:
        """Codes of the values among other levels; -1 where they have no such level."""
        place = {level: i for i, level in enumerate(levels)}
        table = np.array([place.get(v, -1) for v in self.levels or ()] or [-1], dtype=np.int32)
        return np.asarray(table[self.values])


def first_rows(rows: Sequence[int], index: pd.Index | None, offset: int = 0) -> str:
    """Labels of the first rows, as a message shows them."""
    labels = [offset + r if index is None else index[r] for r in rows[:5]]
    texts = [
        f"({', '.join(map(str, label))})" if isinstance(label, tuple) else str(label)
        for label in labels
    ]
    return ", ".join(texts) + (", ..." if len(rows) > 5 else "")


def refuse(
    name: str, look: Look, infinite: bool, index: pd.Index | None = None, offset: int = 0
) -> None:
    """Raise when a column has values with which nothing can be computed."""
    for what in ("missing", "infinite", "huge"):
        if what not in look.bad or (what == "infinite" and infinite):
            continue
        count, rows = look.bad[what]
        first = first_rows(rows, index, offset)
        if what == "missing":
            raise DataError(
                f"Expected complete values in column {name!r}, but {count} of {look.n} are missing "
                f"(first rows: {first}). Drop these rows with df.dropna(subset=[{name!r}]) or "
                "impute them before the fit."
            )
        if what == "infinite":
            raise DataError(
                f"Expected finite values in column {name!r}, but {count} of {look.n} are infinite "
                f"(first rows: {first}). Correct or drop these rows."
            )
        raise DataError(
            f"Expected magnitudes up to {HUGE:.0e} in column {name!r}, but {count} of {look.n} are "
            f"larger (first rows: {first}). Rescale the column."
        )


def refuse_tiny(name: str, look: Look) -> None:
    """Raise when all values of a column are so small that their squares vanish."""
    largest = max(-look.low, look.high)
    if 0 < largest < TINY:
        raise DataError(
            f"Expected magnitudes above {TINY:.0e} in column {name!r}, but all {look.n} values "
            f"are at most {largest:.1e}. Rescale the column."
        )


def refuse_offset(column: Column) -> None:
    """Raise when a number varies so little beside its size that rounding would decide the fit."""
    largest = max(-column.low, column.high)
    if column.levels is None and 0 < column.high - column.low < OFFSET * largest:
        raise DataError(
            f"Expected values of column {column.name!r} that vary beside their size, but they lie "
            f"between {column.low:.17g} and {column.high:.17g}. Subtract a constant, such as their "
            "mean, and rescale the column."
        )


def _object(native: pd.Series) -> pd.Series | None:
    """A pandas column of objects as text or numbers; None where it holds something else."""
    kind = pd.api.types.infer_dtype(native, skipna=True)
    if kind in ("string", "empty"):
        return native
    if kind == "decimal":
        return pd.Series(native.to_numpy(dtype=float, na_value=np.nan))
    if kind in ("integer", "floating", "mixed-integer-float", "boolean"):
        with np.errstate(invalid="ignore"):  # pandas tries whole numbers on infinite ones too
            return native.convert_dtypes()
    return None


def _numbers(series: nw.Series[Any]) -> np.ndarray | None:
    """A numeric or boolean column as an array, missing values as NaN; None for other types."""
    native = series.to_native()
    if isinstance(native, pd.Series):
        dtype = native.dtype
        if isinstance(dtype, np.dtype):
            return native.to_numpy() if dtype.kind in "biuf" else None
        kinds = pd.api.types
        if not (kinds.is_numeric_dtype(dtype) or kinds.is_bool_dtype(dtype)):
            return None
        return native.to_numpy(dtype=float, na_value=np.nan)
    if series.dtype == nw.Unknown and series.null_count() == len(series):
        return np.full(len(series), np.nan)
    if not (series.dtype.is_numeric() or series.dtype == nw.Boolean):
        return None
    if series.null_count() or series.dtype in (nw.Decimal, nw.Int128, nw.UInt128):
        series = series.cast(nw.Float64)
    values = np.asarray(series.to_numpy())
    return values if values.dtype.kind in "biuf" else values.astype(float)


def _tidy(x: np.ndarray) -> np.ndarray:
    """Numbers without the traps of small types, contiguous; a copy only where one is needed."""
    if x.dtype.kind == "b":
        x = x.view(np.int8)
    elif x.dtype.kind == "u" or x.dtype == np.float16 or not x.dtype.isnative:
        x = x.astype(float)
    return np.ascontiguousarray(x)


def _levels(series: nw.Series[Any]) -> tuple[np.ndarray, list[Any], bool]:
    """Codes (-1 missing), levels, and whether the order of the levels is the user's."""
    native, dtype = series.to_native(), series.dtype
    arrow = type(native).__module__.startswith("pyarrow.")
    if isinstance(native, pd.Series):
        if isinstance(native.dtype, pd.CategoricalDtype):
            return native.cat.codes.to_numpy(), native.cat.categories.tolist(), True
        if dtype == nw.Categorical:  # a pyarrow dictionary inside pandas
            return _dictionary(native.array.__arrow_array__())  # type: ignore[attr-defined]
        floats = pd.api.types.is_float_dtype(native.dtype)  # nullable ones may hold a NaN beside NA
        distinct: Any = _numbers(series) if floats else native
    elif isinstance(dtype, nw.Enum):
        codes = native.to_physical().cast(int).fill_null(-1).to_numpy()
        return codes, list(dtype.categories), True
    elif arrow and dtype == nw.Categorical:
        return _dictionary(native)
    elif arrow and dtype == nw.String:
        codes, seen, _ = _dictionary(native.dictionary_encode())
        order = sorted(range(len(seen)), key=seen.__getitem__)
        return np.append(np.argsort(order), -1)[codes], [seen[i] for i in order], False
    elif dtype in (nw.String, nw.Categorical):
        text = series.cast(nw.String)
        seen = text.drop_nulls().unique().sort().to_list()
        return (*_levels(text.cast(nw.Enum(seen)))[:2], False)
    else:
        distinct = _numbers(series)
    codes, found = _small_integers(distinct) or pd.factorize(distinct, sort=True)
    return codes, found.tolist(), False


def _small_integers(distinct: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Codes and values of integers within a narrow range, all of it; None for other columns."""
    if not isinstance(distinct.dtype, np.dtype) or distinct.dtype.kind not in "iu":
        return None
    x = np.asarray(distinct)
    if not len(x) or (low := int(x.min())) < -(1 << 62) or (high := int(x.max())) >= 1 << 62:
        return None
    if high - low > len(x) // 8:
        return None
    if high - low > np.iinfo(x.dtype).max or x.dtype == np.uint64:
        x = x.astype(np.int64)
    return x - x.dtype.type(low) if low else x, np.arange(low, high + 1)


@kernel
def _mark(codes: np.ndarray, out: np.ndarray) -> None:
    """Mark which codes occur; the first place is that of -1."""
    for r in range(codes.size):
        out[codes[r] + 1] = True


def _dictionary(native: Any) -> tuple[np.ndarray, list[Any], bool]:
    """Codes and levels of a pyarrow dictionary, whose chunks may differ in theirs."""
    place: dict[Any, int] = {}
    parts = []
    for chunk in getattr(native, "chunks", [native]):
        table = [
            -1 if level is None else place.setdefault(level, len(place))
            for level in chunk.dictionary.to_pylist()
        ]
        codes = chunk.indices.cast("int64").fill_null(-1).to_numpy(zero_copy_only=False)
        parts.append(np.array([*table, -1])[codes])
    return np.concatenate(parts), list(place), True


def look_at(name: str, series: nw.Series[Any], uses: Collection[str]) -> Look:
    """Look at a column for its `uses`: "numbers", "categories", or "either" as it comes."""
    native = series.to_native()
    if isinstance(native, pd.Series) and native.dtype == object:
        plain = _object(native)
        if plain is None:
            raise _wrong_type(name, series, uses)
        series = nw.from_native(plain, series_only=True)
    x = _numbers(series)
    text = series.dtype in (nw.String, nw.Categorical, nw.Enum)
    if (x is None and not text) or (text and "numbers" in uses):
        raise _wrong_type(name, series, uses)
    if not text and "categories" in uses and len(set(uses)) > 1:
        raise DataError(
            f"Expected column {name!r} to be used either as numbers or as categories, but the "
            "model uses it as both. Add a copy of the column under a second name."
        )
    if text or x is None or "categories" in uses:
        codes, levels, ordered = _levels(series)
        codes = np.ascontiguousarray(codes)
        seen = np.zeros(len(levels) + 1, dtype=np.bool_)
        _mark(codes, seen)
        used = {level for level, there in zip(levels, seen[1:].tolist(), strict=True) if there}
        out = Look(len(codes), codes, levels, used, ordered)
        if seen[0]:
            out.note("missing", codes < 0)
        return out
    x = _tidy(x)
    out = Look(len(x), x)
    if len(x):
        with np.errstate(invalid="ignore"):
            out.low, out.high = float(x.min()), float(x.max())
    if not max(-out.low, out.high) <= HUGE:  # or NaN
        finite = np.isfinite(x)
        out.note("missing", np.isnan(x))
        out.note("infinite", np.isinf(x))
        out.note("huge", finite & (np.abs(x) > np.float64(HUGE)))  # no float32, which ends before
        out.low = float(x.min(where=finite, initial=np.inf))
        out.high = float(x.max(where=finite, initial=-np.inf))
    return out


def _wrong_type(name: str, series: nw.Series[Any], uses: Collection[str]) -> DataError:
    seen = [repr(v) for v in series.head(3).to_list()]
    dtype = str(series.dtype)
    remedy = "Convert the column, for example with pandas.to_numeric"
    native = series.to_native()
    if isinstance(native, pd.Series) and native.dtype == object:
        kinds = sorted({type(v).__name__ for v in series.to_list() if pd.isna(v) is not True})
        dtype = " and ".join(kinds)
    elif series.dtype.is_temporal():
        remedy = "Convert the column, for example to days since its first date"
    expected = "numbers" if "numbers" in uses else "numbers, text or categories"
    return DataError(
        f"Expected {expected} in column {name!r}, but its {len(series)} values have type {dtype} "
        f"(first values: {', '.join(seen)}). {remedy}, or to text where it stands for categories."
    )
