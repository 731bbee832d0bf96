"""The front door for data: any data frame in, checked columns and labels out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import narwhals as nw
import numpy as np
import pandas as pd

from causalrm.core.blocks import BatchRows, Block, DaskRows, Rows
from causalrm.core.errors import DataError, require
from causalrm.core.kernel import kernel

HUGE = 1e100  # squares and products of larger numbers leave the range of a double
TINY = 1e-100
_BATCH = 1 << 18


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
    """

    def __init__(self, data: Any):
        self.kind: Literal["memory", "batches", "dask"] = "memory"
        self.index: pd.Index = pd.RangeIndex(0)
        self.n_obs = -1
        self._partitions: list[Any] = []
        if hasattr(data, "to_delayed") and hasattr(data, "columns"):
            self.kind, self._dask = "dask", data
            self.names = [str(c) for c in data.columns]
        elif isinstance(data, (str, Path)) or type(data).__module__.startswith("pyarrow._dataset"):
            self.kind, self._dataset = "batches", _dataset(data)
            self.names = list(self._dataset.schema.names)
        else:
            self._memory, self.names, self._twice = _in_memory(data)
            self.n_obs = len(self._memory)
            native = self._memory.to_native()
            pandas_like = isinstance(native, pd.DataFrame)
            self.index = native.index if pandas_like else pd.RangeIndex(self.n_obs)
        self._wanted: list[str] = []

    def want(self, names: Iterable[str], role: str = "") -> None:
        """Check that the columns exist once, and read them from now on."""
        for name in names:
            if name not in self.names:
                near = ", ".join(repr(c) for c in self.names[:12])
                more = ", ..." if len(self.names) > 12 else ""
                raise DataError(
                    f"Expected a column {name!r}{f' for {role}' if role else ''}, but the data "
                    f"have no such column. Give one of: {near}{more}."
                )
            if self.kind == "memory" and name in self._twice:
                raise DataError(
                    f"Expected one column {name!r}, but the data have {self._twice[name]} of that "
                    "name. Rename or drop all but one."
                )
            if name not in self._wanted:
                self._wanted.append(name)

    def parts(self) -> Iterator[Any]:
        """Give the wanted columns as narwhals frames, part by part."""
        if self.kind == "memory":
            yield self._memory.select(self._wanted)
        elif self.kind == "batches":
            for batch in self._batches():
                yield nw.from_native(batch, eager_only=True)
        else:
            for partition in self.partitions():
                yield nw.from_native(partition.compute(), eager_only=True)

    def _batches(self) -> Iterator[Any]:
        import pyarrow as pa

        for batch in self._dataset.to_batches(columns=self._wanted, batch_size=_BATCH):
            if batch.num_rows:
                yield pa.Table.from_batches([batch])

    def partitions(self) -> list[Any]:
        """Give the wanted columns of a Dask collection as one delayed frame per partition."""
        if not self._partitions:
            self._partitions = self._dask[self._wanted].to_delayed()
        return self._partitions

    def rows(self, read: Callable[[Any], Block], n_obs: int) -> Rows:
        """Rows for `causalrm.core.blocks`; `read` turns a part into checked columns."""
        if self.kind == "memory":
            return Rows(read(next(self.parts())), n_obs)
        if self.kind == "batches":
            return BatchRows(self._batches, read, n_obs)
        return DaskRows(self.partitions(), read, n_obs)


def _in_memory(data: Any) -> tuple[nw.DataFrame[Any], list[str], dict[str, int]]:
    twice: dict[str, int] = {}
    if isinstance(data, pd.DataFrame):
        names = list(data.columns)
        counts = pd.Series(names, dtype=object).value_counts()
        twice = {str(name): int(c) for name, c in counts.items() if c > 1}
        if twice:  # narwhals refuses the frame; a fit that does not use them need not
            data = data.loc[:, ~data.columns.duplicated()]
    try:
        frame = nw.from_native(data, eager_only=True)
    except TypeError as error:
        raise DataError(
            "Expected a pandas, polars or pyarrow data frame, a Dask data frame, or the path of "
            f"parquet files, but saw {type(data).__module__}.{type(data).__name__}. Convert it, "
            "for example with pandas.DataFrame(data)."
        ) from error
    if len(frame) == 0:
        raise DataError(
            f"Expected at least one row, but the data have 0 rows and {len(frame.columns)} "
            "columns. Check how the data were filtered or joined."
        )
    return frame, list(frame.columns), twice


def _dataset(data: Any) -> Any:
    if not isinstance(data, (str, Path)):
        return data
    if not Path(data).exists():
        raise DataError(
            f"Expected a parquet file or a folder of them, but {str(data)!r} does not exist. "
            "Check the path."
        )
    return require("pyarrow.dataset", "arrow").dataset(data, format="parquet")


# --------------------------------------------------------------------------- columns


@kernel
def _scan(x: np.ndarray) -> tuple[int, int, float, float, float]:
    """Counts of NaN and infinities; least, greatest, and least non-zero magnitude."""
    n_nan = 0
    n_inf = 0
    low = np.inf
    high = -np.inf
    small = np.inf
    for v in x:
        if v != v:
            n_nan += 1
        elif v == np.inf or v == -np.inf:
            n_inf += 1
        else:
            low = min(low, v)
            high = max(high, v)
            m = abs(v)
            if m != 0.0 and m < small:
                small = m
    return n_nan, n_inf, low, high, small


def _first(mask: np.ndarray, index: pd.Index | None, offset: int) -> str:
    rows = np.flatnonzero(mask)[:5]
    labels = [str(offset + r) for r in rows] if index is None else [str(index[r]) for r in rows]
    return ", ".join(labels) + (", ..." if int(mask.sum()) > 5 else "")


def _missing(name: str, mask: np.ndarray, index: pd.Index | None, offset: int) -> DataError:
    return DataError(
        f"Expected complete values in column {name!r}, but {int(mask.sum())} of {len(mask)} are "
        f"missing (first rows: {_first(mask, index, offset)}). Drop these rows with "
        f"df.dropna(subset=[{name!r}]) or impute them before the fit."
    )


def _numbers(series: nw.Series[Any], name: str) -> np.ndarray:
    """A numeric or boolean column as an array, missing values as NaN; no copy where possible."""
    if series.dtype == nw.Boolean:
        if series.null_count():
            return np.asarray(
                [np.nan if v is None or v is pd.NA else float(v) for v in series.to_list()]
            )
        return np.asarray(series.to_numpy(), dtype=bool)
    if isinstance(series.dtype, nw.Decimal) or (
        series.null_count() and not series.dtype.is_float()
    ):
        series = series.cast(nw.Float64)
    values = np.asarray(series.to_numpy())
    if values.dtype == object:  # nullable pandas columns with pd.NA
        values = pd.to_numeric(pd.Series(values), errors="coerce").to_numpy(dtype=float)
    return values


def _is_text(dtype: Any) -> bool:
    return dtype in (nw.String, nw.Categorical) or isinstance(dtype, nw.Enum)


def _values_and_levels(series: nw.Series[Any]) -> tuple[np.ndarray, list[Any], bool]:
    """Codes (-1 missing), levels, and whether the order of the levels is the user's."""
    native = series.to_native()
    if isinstance(native, pd.Series) and isinstance(native.dtype, pd.CategoricalDtype):
        return np.asarray(native.cat.codes), list(native.cat.categories), True
    if type(native).__module__.startswith("pyarrow"):
        import pyarrow as pa

        if pa.types.is_dictionary(native.type):
            native = native.unify_dictionaries().to_pandas()
            return np.asarray(native.cat.codes), list(native.cat.categories), True
    if isinstance(series.dtype, nw.Enum):
        levels = list(series.dtype.categories)
        place = {level: i for i, level in enumerate(levels)}
        return np.array([place.get(v, -1) for v in series.to_list()]), levels, True
    values = series.to_numpy()
    if values.dtype.kind in "biuf":
        codes, found = pd.factorize(values, sort=True)
    else:
        text = [v if isinstance(v, str) else None for v in series.to_list()]
        codes, found = pd.factorize(np.asarray(text, dtype=object), sort=True)
    return np.asarray(codes), list(found), False


def _check_number(
    name: str, x: np.ndarray, index: pd.Index | None, offset: int, allow_inf: bool
) -> tuple[float, float]:
    n_nan, n_inf, low, high, small = _scan(np.ascontiguousarray(x, dtype=np.float64))
    if n_nan:
        raise _missing(name, np.isnan(np.asarray(x, dtype=float)), index, offset)
    if n_inf and not allow_inf:
        mask = np.isinf(x)
        raise DataError(
            f"Expected finite values in column {name!r}, but {n_inf} of {len(x)} are infinite "
            f"(first rows: {_first(mask, index, offset)}). Correct or drop these rows."
        )
    if max(abs(low), abs(high)) > HUGE and n_inf < len(x):
        mask = (np.abs(x) > HUGE) & np.isfinite(x)
        raise DataError(
            f"Expected magnitudes up to {HUGE:.0e} in column {name!r}, but {int(mask.sum())} of "
            f"{len(x)} are larger (first rows: {_first(mask, index, offset)}). Rescale the column."
        )
    if small < TINY and max(abs(low), abs(high)) < TINY:
        raise DataError(
            f"Expected magnitudes above {TINY:.0e} in column {name!r}, but all {len(x)} values "
            f"are at most {max(abs(low), abs(high)):.1e}. Rescale the column."
        )
    return low, high


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
        return {c.name: self._read(c, frame[c.name], index, offset) for c in self.columns}

    def _read(
        self, column: Column, series: nw.Series[Any], index: pd.Index | None, offset: int
    ) -> np.ndarray:
        name = column.name
        if column.levels is None:
            if not (series.dtype.is_numeric() or series.dtype == nw.Boolean):
                raise _wrong_type(name, series)
            x = _numbers(series, name)
            _check_number(name, x, index, offset, name in self.infinite)
            return x
        codes, levels, _ = _values_and_levels(series)
        if (codes < 0).any():
            raise _missing(name, codes < 0, index, offset)
        place = {level: i for i, level in enumerate(column.levels)}
        table = np.array([place.get(_plain(v), -1) for v in levels] or [-1], dtype=np.int32)
        out = table[codes]
        if (out < 0).any():
            unseen = sorted({str(levels[c]) for c in np.unique(codes[out < 0])})
            raise DataError(
                f"Expected the levels {list(column.levels)} in column {name!r}, but "
                f"{int((out < 0).sum())} of {len(out)} rows have others: {unseen[:8]} (first rows: "
                f"{_first(out < 0, index, offset)}). Drop these rows, or fit again with them."
            )
        return np.asarray(out)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _wrong_type(name: str, series: nw.Series[Any]) -> DataError:
    n = series.len()
    seen = [repr(v) for v in series.head(3).to_list()]
    return DataError(
        f"Expected numbers in column {name!r}, but its {n} values have type {series.dtype} "
        f"(first values: {', '.join(seen)}). Convert the column, for example with "
        f"pandas.to_numeric, or use it as a category where categories are allowed."
    )


def scan(
    source: Source,
    numbers: Iterable[str] = (),
    either: Iterable[str] = (),
    categories: Iterable[str] = (),
    infinite: Iterable[str] = (),
) -> tuple[Reader, int]:
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
    Reader, int
        Reader of the same columns, and the number of rows.
    """
    numbers, either, categories = list(numbers), list(either), list(categories)
    infinite = frozenset(infinite)
    names = list(dict.fromkeys([*numbers, *either, *categories]))
    source.want(names)
    index = source.index if source.kind == "memory" else None
    found: dict[str, Column] = {}
    ordered: dict[str, bool] = {}
    n = 0
    for part in source.parts():
        for name in names:
            series = part[name]
            as_levels = name in categories or (name in either and _is_text(series.dtype))
            if not as_levels and not (series.dtype.is_numeric() or series.dtype == nw.Boolean):
                raise _wrong_type(name, series)
            old = found.get(name)
            if as_levels:
                found[name], ordered[name] = _merge_levels(
                    name, series, old, ordered.get(name, True), index, n
                )
            else:
                low, high = _check_number(
                    name, _numbers(series, name), index, n, name in infinite
                )
                if old is not None:
                    low, high = min(low, old.low), max(high, old.high)
                found[name] = Column(name, None, low, high)
        n += len(part)
    if n == 0:
        raise DataError(
            "Expected at least one row, but the data have 0 rows. Check how they were filtered."
        )
    return Reader([found[name] for name in names], infinite), n


def _merge_levels(
    name: str,
    series: nw.Series[Any],
    old: Column | None,
    ordered: bool,
    index: pd.Index | None,
    offset: int,
) -> tuple[Column, bool]:
    codes, levels, users_order = _values_and_levels(series)
    if (codes < 0).any():
        raise _missing(name, codes < 0, index, offset)
    used = np.zeros(len(levels), dtype=bool)
    used[np.unique(codes)] = True
    here = [_plain(v) for v, u in zip(levels, used, strict=True) if u]
    if old is None or old.levels is None:
        return Column(name, tuple(here)), users_order
    both = [*old.levels, *(v for v in here if v not in old.levels)]
    if not (ordered and users_order):
        both.sort()
    elif len(both) > max(len(here), len(old.levels)):  # parts with different unused levels
        order = [_plain(v) for v in levels]
        if all(v in order for v in both):
            both.sort(key=order.index)
        else:
            both.sort()
    return Column(name, tuple(both)), ordered and users_order


def check(
    rows: Rows,
    names: Sequence[str],
    bad: Callable[..., np.ndarray],
    expected: str,
    remedy: str,
    index: pd.Index | None = None,
) -> None:
    """Raise a `DataError` that counts and locates the rows for which ``bad(*columns)`` holds."""
    count, n, first = 0, 0, ""
    for offset, part in rows.parts():
        mask = np.asarray(bad(*[part[name] for name in names]))
        n += len(mask)
        if mask.any():
            first = first or _first(mask, index, offset)
            count += int(mask.sum())
    if count:
        columns = " and ".join(repr(name) for name in names)
        raise DataError(
            f"Expected {expected} in column{'s' if len(names) > 1 else ''} {columns}, but "
            f"{count} of {n} rows differ (first rows: {first}). {remedy}"
        )
