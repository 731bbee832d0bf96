"""The front door for data: any data frame in, checked columns and labels out."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import narwhals as nw
import numpy as np
import pandas as pd

from causalrm.core.blocks import BatchRows, Block, DaskRows, Rows, each, on_partitions
from causalrm.core.errors import DataError, require

HUGE = 1e100  # squares and products of larger numbers leave the range of a double
TINY = 1e-100
_BATCH = 1 << 18
_MANY = 1 << 16  # rows from which columns are looked at on threads


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


# --------------------------------------------------------------------------- sources


class Source:
    """A data set as the user gave it: in memory, parquet batches, or a Dask collection.

    Parameters
    ----------
    data : data frame, pyarrow table or data set, path of parquet files, or Dask data frame
        pandas, polars and pyarrow tables are held in memory; the others are read in parts.

    Attributes
    ----------
    kind : {"memory", "batches", "dask"}
    names : list
        Names of all columns.
    index : pandas.Index
        Labels of the rows, where they are in memory.
    n_obs : int
        Number of rows; -1 as long as it is not known.
    """

    def __init__(self, data: Any):
        self.kind: Literal["memory", "batches", "dask"] = "memory"
        self.index: pd.Index = pd.RangeIndex(0)
        self.n_obs = -1
        self._wanted: list[str] = []
        self._partitions: list[Any] = []
        self._sizes: list[int] = []
        if hasattr(data, "to_delayed") and hasattr(data, "columns"):
            self.kind, self._data = "dask", data
            self.names = list(data.columns)
        elif isinstance(data, (str, os.PathLike)) or _is_arrow(data, "_dataset"):
            self.kind, self._data = "batches", _dataset(data)
            self.names = list(self._data.schema.names)
        else:
            self.frame, self.names = _in_memory(data)
            self.n_obs = len(self.frame)
            pandas_like = isinstance(data, pd.DataFrame)
            self.index = data.index if pandas_like else pd.RangeIndex(self.n_obs)

    def want(self, names: Iterable[str], role: str = "") -> None:
        """Check that the columns exist once, and read them from now on."""
        counts = Counter(self.names)
        for name in names:
            count = counts[name]
            if count == 0:
                near = ", ".join(repr(c) for c in self.names[:12])
                more = ", ..." if len(self.names) > 12 else ""
                raise DataError(
                    f"Expected a column {name!r}{f' for {role}' if role else ''}, but the data "
                    f"have no such column. Give one of: {near}{more}."
                )
            if count > 1:
                raise DataError(
                    f"Expected one column {name!r}, but the data have {count} of that name. "
                    "Rename or drop all but one."
                )
            if name not in self._wanted:
                self._wanted.append(name)

    def parts(self) -> Iterator[nw.DataFrame[Any]]:
        """Give the wanted columns as narwhals frames, part by part."""
        if self.kind == "memory":
            yield self.frame.select(self._wanted)
        else:
            batches = self._batches() if self.kind == "batches" else self._computed()
            for batch in batches:
                yield nw.from_native(batch, eager_only=True)

    def _batches(self) -> Iterator[Any]:
        import pyarrow as pa

        for batch in self._data.to_batches(columns=self._wanted, batch_size=_BATCH):
            if batch.num_rows:
                yield _without_appearance(pa.Table.from_batches([batch]))

    def _computed(self) -> Iterator[Any]:
        for partition in self.partitions():
            yield partition.compute()

    def partitions(self) -> list[Any]:
        """Give the wanted columns of a Dask collection as one delayed frame per partition."""
        if not self._partitions:
            self._partitions = list(self._data[self._wanted].to_delayed())
        return self._partitions

    def looks(self, uses: Mapping[str, Collection[str]]) -> Iterator[tuple[int, dict[str, _Look]]]:
        """Look at every column, part by part, and learn how many rows there are."""
        if self.kind == "memory":
            yield self.n_obs, _looks(self.frame, uses)
            return
        if self.kind == "batches":
            found: Iterable[Any] = (_look_part(batch, uses) for batch in self._batches())
        else:
            found = on_partitions(_look_part, self.partitions(), uses)
        self._sizes = []
        for n, looks in found:
            self._sizes.append(n)
            if n:
                yield n, looks
        self.n_obs = sum(self._sizes)

    def rows(self, read: Callable[..., Block], n_obs: int) -> Rows:
        """Rows for `causalrm.core.blocks`; `read` turns a part into checked columns."""
        if self.kind == "memory":
            return Rows(read(self.frame, self.index), n_obs)
        if self.kind == "batches":
            return BatchRows(self._batches, read, n_obs)
        return DaskRows(self.partitions(), read, self._sizes)


def _is_arrow(data: Any, module: str = "") -> bool:
    return type(data).__module__.startswith(f"pyarrow.{module}")


def _in_memory(data: Any) -> tuple[nw.DataFrame[Any], list[Any]]:
    """The data as a narwhals frame with every name once, and all the names."""
    names: list[Any] = []
    if isinstance(data, pd.DataFrame):
        names = list(data.columns)
        if not data.columns.is_unique:  # narwhals refuses the frame; a fit without them need not
            data = data.loc[:, ~data.columns.duplicated()]
    elif _is_arrow(data) and hasattr(data, "column_names"):
        names = list(data.column_names)
        if len(set(names)) < len(names):
            data = data.select([names.index(name) for name in dict.fromkeys(names)])
        data = _without_appearance(data)
    try:
        frame = nw.from_native(data, eager_only=True)
    except TypeError as error:
        raise DataError(
            "Expected a pandas, polars or pyarrow data frame, a Dask data frame, or the path of "
            f"parquet files, but saw {type(data).__module__}.{type(data).__name__}. Convert it, "
            "for example with pandas.DataFrame(data), or .collect() where it is lazy."
        ) from error
    names = names or list(frame.columns)
    if len(frame) == 0:
        raise DataError(
            f"Expected at least one row, but the data have 0 rows and {len(names)} columns. Check "
            "how they were filtered or joined."
        )
    return frame, names


def _dataset(data: Any) -> Any:
    if not isinstance(data, (str, os.PathLike)):
        return data
    path = os.fspath(data)
    if not os.path.exists(path):
        raise DataError(
            f"Expected a parquet file or a folder of them, but {path!r} does not exist. Check the "
            "path."
        )
    module = require("pyarrow.dataset", "arrow")
    try:
        return module.dataset(path, format="parquet")
    except (OSError, ValueError) as error:  # pyarrow's own errors are subclasses
        raise DataError(
            f"Expected a parquet file or a folder of them, but {path!r} cannot be read as one "
            f"({type(error).__name__}). Convert it to parquet, or read it to a data frame."
        ) from error


def _without_appearance(table: Any) -> Any:
    """A pyarrow table whose polars categories are plain text.

    They are coded in the order in which they appeared, which means nothing; other dictionaries
    keep their order, which is that of a pandas categorical or a polars Enum.
    """
    for i, field in enumerate(table.schema):
        if any(key.startswith(b"_PL_CATEGORICAL") for key in field.metadata or ()):
            values = table.column(i).cast(field.type.value_type)
            table = table.set_column(i, field.name, values)
    return table


# --------------------------------------------------------------------------- columns


@dataclasses.dataclass
class _Look:
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

    def joined(self, other: _Look) -> _Look:
        """Both parts together, without values."""
        bad = dict(self.bad)
        for what, (count, first) in other.bad.items():
            old, before = bad.get(what, (0, []))
            bad[what] = old + count, [*before, *(self.n + i for i in first)][:6]
        levels = self.levels
        if levels is not None and other.levels is not None:
            levels = list(dict.fromkeys([*levels, *other.levels]))
        return _Look(
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
                f"Expected levels of one type in column {name!r}, but its {len(levels)} levels have "
                f"types {' and '.join(kinds)}. Convert the column to text."
            ) from error

    def codes(self, levels: Sequence[Any]) -> np.ndarray:
        """Codes of the values among other levels; -1 where they have no such level."""
        place = {level: i for i, level in enumerate(levels)}
        table = np.array([place.get(v, -1) for v in self.levels or ()] or [-1], dtype=np.int32)
        return np.asarray(table[self.values])


def _first(rows: Sequence[int], index: pd.Index | None, offset: int) -> str:
    labels = [str(offset + r) if index is None else str(index[r]) for r in rows[:5]]
    return ", ".join(labels) + (", ..." if len(rows) > 5 else "")


def _refuse(
    name: str, look: _Look, infinite: bool, index: pd.Index | None = None, offset: int = 0
) -> None:
    """Raise when a column has values with which nothing can be computed."""
    for what in ("missing", "infinite", "huge"):
        if what not in look.bad or (what == "infinite" and infinite):
            continue
        count, rows = look.bad[what]
        first = _first(rows, index, offset)
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


def _object(native: pd.Series) -> pd.Series | None:
    """A pandas column of objects as text or numbers; None where it holds something else."""
    kind = pd.api.types.infer_dtype(native, skipna=True)
    if kind in ("string", "empty"):
        return native
    if kind == "decimal":
        return pd.Series(native.to_numpy(dtype=float, na_value=np.nan))
    if kind in ("integer", "floating", "mixed-integer-float", "boolean"):
        return native.convert_dtypes()
    return None


def _numbers(series: nw.Series[Any]) -> np.ndarray | None:
    """A numeric or boolean column as an array, missing values as NaN; None for other types."""
    native = series.to_native()
    if isinstance(native, pd.Series):
        dtype = native.dtype
        if isinstance(dtype, np.dtype):
            return native.to_numpy() if dtype.kind in "biuf" else None
        if not pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_complex_dtype(dtype):
            return None
        return native.to_numpy(dtype=float, na_value=np.nan)
    if series.dtype == nw.Unknown and series.null_count() == len(series):
        return np.full(len(series), np.nan)
    if not (series.dtype.is_numeric() or series.dtype == nw.Boolean):
        return None
    if series.null_count() or series.dtype == nw.Decimal:
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
    native = series.to_native()
    if isinstance(native, pd.Series):
        if isinstance(native.dtype, pd.CategoricalDtype):
            return native.cat.codes.to_numpy(), native.cat.categories.tolist(), True
        if series.dtype == nw.Categorical:  # a pyarrow dictionary inside pandas
            return _dictionary(native.array.__arrow_array__())  # type: ignore[attr-defined]
        codes, found = pd.factorize(native, sort=True)
        return codes, found.tolist(), False
    if series.dtype == nw.Enum:
        codes = native.to_physical().cast(int).fill_null(-1).to_numpy()
        return codes, list(series.dtype.categories), True  # type: ignore[attr-defined]
    if _is_arrow(native):
        if series.dtype == nw.Categorical:
            return _dictionary(native)
        if series.dtype == nw.String:
            codes, found, _ = _dictionary(native.dictionary_encode())
            order = sorted(range(len(found)), key=found.__getitem__)
            rank = np.append(np.argsort(order), -1)
            return rank[codes], [found[i] for i in order], False
    if series.dtype in (nw.String, nw.Categorical):
        text = series.cast(nw.String)
        found = text.drop_nulls().unique().sort().to_list()
        return (*_levels(text.cast(nw.Enum(found)))[:2], False)
    codes, found = pd.factorize(_numbers(series), sort=True)
    return codes, found.tolist(), False


def _dictionary(native: Any) -> tuple[np.ndarray, list[Any], bool]:
    if hasattr(native, "chunks"):
        native = native.unify_dictionaries().combine_chunks()
        if hasattr(native, "chunks"):  # some versions give one chunk back inside a column
            native = native.chunk(0)
    codes = native.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return codes.astype(np.int64), native.dictionary.to_pylist(), True


def _look(name: str, series: nw.Series[Any], uses: Collection[str]) -> _Look:
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
        look = _Look(len(codes), codes, levels, set(levels), ordered)
        look.note("missing", codes < 0)
        if ordered:
            seen = np.bincount(codes[codes >= 0] if look.bad else codes, minlength=len(levels))
            look.used = {level for level, count in zip(levels, seen, strict=True) if count}
        return look
    x = _tidy(x)
    look = _Look(len(x), x)
    if len(x):
        with np.errstate(invalid="ignore"):
            look.low, look.high = float(x.min()), float(x.max())
    if not max(-look.low, look.high) <= HUGE:  # or NaN
        finite = np.isfinite(x)
        look.note("missing", np.isnan(x))
        look.note("infinite", np.isinf(x))
        look.note("huge", finite & (np.abs(x) > HUGE))
        look.low = float(x.min(where=finite, initial=np.inf))
        look.high = float(x.max(where=finite, initial=-np.inf))
    return look


def _looks(frame: nw.DataFrame[Any], uses: Mapping[str, Collection[str]]) -> dict[str, _Look]:
    columns = [(name, frame[name], use) for name, use in uses.items()]
    apply = each if len(frame) >= _MANY else map
    return dict(zip(uses, apply(lambda column: _look(*column), columns), strict=True))


def _look_part(part: Any, uses: Mapping[str, Collection[str]]) -> tuple[int, dict[str, _Look]]:
    """Number of rows of a part and what it says of each column, without the values."""
    frame = nw.from_native(part, eager_only=True)
    if not len(frame):  # the types of an empty partition mean nothing
        return 0, {}
    looks = _looks(frame, uses)
    return len(frame), {
        name: dataclasses.replace(look, values=look.values[:0]) for name, look in looks.items()
    }


def _wrong_type(name: str, series: nw.Series[Any], uses: Collection[str]) -> DataError:
    seen = [repr(v) for v in series.head(3).to_list()]
    dtype = str(series.dtype)
    remedy = "Convert the column, for example with pandas.to_numeric"
    if series.dtype == nw.Object:
        kinds = sorted({type(v).__name__ for v in series.to_list() if not pd.isna(v) is True})
        dtype = " and ".join(kinds)
    elif series.dtype.is_temporal():
        remedy = "Convert the column, for example to days since its first date"
    expected = "numbers" if "numbers" in uses else "numbers, text or categories"
    return DataError(
        f"Expected {expected} in column {name!r}, but its {len(series)} values have type {dtype} "
        f"(first values: {', '.join(seen)}). {remedy}, or to text where it stands for categories."
    )


class Reader:
    """Turns a part of the data into checked arrays: numbers as they are, categories as codes.

    Parameters
    ----------
    columns : sequence of Column
        What the first look at the data, or an earlier fit, found.
    infinite : collection of str
        Numeric columns in which infinity has a meaning.
    """

    def __init__(self, columns: Sequence[Column], infinite: Iterable[str] = ()):
        self.columns = tuple(columns)
        self.infinite = frozenset(infinite)

    def __call__(self, part: Any, index: pd.Index | None = None, offset: int = 0) -> Block:
        """Read one native or narwhals frame."""
        frame = nw.from_native(part, eager_only=True)
        uses = {
            c.name: ["numbers" if c.levels is None else "categories"] for c in self.columns
        }
        return self.values(_looks(frame, uses), len(frame), index, offset)

    def values(
        self, looks: Mapping[str, _Look], n: int, index: pd.Index | None = None, offset: int = 0
    ) -> Block:
        """Check what was seen of a part, and give its values."""
        out: dict[str, np.ndarray] = {}
        for c in self.columns:
            look = looks[c.name]
            _refuse(c.name, look, c.name in self.infinite, index, offset)
            if c.levels is None:
                out[c.name] = look.values
                continue
            codes = out[c.name] = look.codes(c.levels)
            if (codes < 0).any():
                rows = [int(r) for r in np.flatnonzero(codes < 0)]
                unseen = sorted({repr(look.levels[v]) for v in np.unique(look.values[rows])})
                raise DataError(
                    f"Expected the levels {list(c.levels)[:20]} in column {c.name!r}, but "
                    f"{len(rows)} of {n} rows have others: {', '.join(unseen[:8])} (first rows: "
                    f"{_first(rows, index, offset)}). Drop these rows, or fit again with them."
                )
        return out or {"": np.zeros(n, dtype=np.int8)}  # a block must know its length


def scan(
    source: Source,
    numbers: Iterable[str] = (),
    either: Iterable[str] = (),
    categories: Iterable[str] = (),
    infinite: Iterable[str] = (),
) -> tuple[Reader, Rows]:
    """Look at all rows once: check every column and learn its levels and range.

    Parameters
    ----------
    source : Source
    numbers : iterable of str
        Columns that must be numeric or boolean.
    either : iterable of str
        Columns that are used as they come: numbers, or text and categories.
    categories : iterable of str
        Columns whose distinct values are levels, numbers too (cluster labels, ``C(x)``).
    infinite : iterable of str
        Those of `numbers` in which infinity has a meaning.

    Returns
    -------
    Reader, Rows
        Reader of the same columns, and the rows.

    Raises
    ------
    DataError
        When a column is absent, of the wrong type, incomplete, infinite or out of scale.
    """
    uses: dict[str, list[str]] = {}
    for use, names in (("numbers", numbers), ("either", either), ("categories", categories)):
        for name in names:
            uses.setdefault(name, []).append(use)
    source.want(uses)
    seen: dict[str, _Look] = {}
    for _, looks in source.looks(uses):
        seen = {k: seen[k].joined(look) for k, look in looks.items()} if seen else looks
    if source.n_obs == 0:
        raise DataError(
            "Expected at least one row, but the data have 0 rows. Check how they were filtered."
        )
    in_memory = source.kind == "memory"
    allowed = frozenset(infinite)
    for name, look in seen.items():
        _refuse(name, look, name in allowed, source.index if in_memory else None)
        largest = max(-look.low, look.high)
        if 0 < largest < TINY:
            raise DataError(
                f"Expected magnitudes above {TINY:.0e} in column {name!r}, but all {look.n} values "
                f"are at most {largest:.1e}. Rescale the column."
            )
    reader = Reader([look.column(name) for name, look in seen.items()], allowed)
    if in_memory:
        return reader, Rows(reader.values(seen, source.n_obs, source.index), source.n_obs)
    return reader, source.rows(reader, source.n_obs)


def check(
    rows: Rows,
    names: Sequence[str],
    bad: Callable[..., np.ndarray],
    expected: str,
    remedy: str,
    index: pd.Index | None = None,
) -> None:
    """Raise a `DataError` that counts and locates the rows for which ``bad(*columns)`` holds."""
    (count,) = rows.total(_count, names, bad)
    if not count:
        return
    first: list[int] = []
    for offset, part in rows.parts():
        mask = bad(*[part[name] for name in names])
        first += [offset + int(r) for r in np.flatnonzero(mask)[:6]]
        if len(first) > 5:
            break
    columns = " and ".join(repr(name) for name in names)
    raise DataError(
        f"Expected {expected} in column{'s' if len(names) > 1 else ''} {columns}, but {count} of "
        f"{rows.n_obs} rows differ (first rows: {_first(first, index, 0)}). {remedy}"
    )


def _count(block: Block, names: Sequence[str], bad: Callable[..., np.ndarray]) -> tuple[int]:
    return (int(np.count_nonzero(bad(*[block[name] for name in names]))),)
