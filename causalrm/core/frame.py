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
from causalrm.core.column import Column, Look, first_rows, look_at, refuse, refuse_tiny
from causalrm.core.errors import DataError, require

_BATCH = 1 << 18
_MANY = 1 << 16  # rows from which columns are looked at on threads


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
        Labels of the rows: the user's where they are in memory, else their numbers.
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
        if hasattr(data, "to_delayed") and getattr(data, "ndim", 0) == 2:
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
                self._partitions = []  # were without it

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

        # Read little ahead: pyarrow's default holds some 16 batches of several files in memory
        batches = self._data.to_batches(
            columns=self._wanted, batch_size=_BATCH, batch_readahead=2, fragment_readahead=1
        )
        for batch in batches:
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

    def looks(self, uses: Mapping[str, Collection[str]]) -> Iterator[tuple[int, dict[str, Look]]]:
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
        self.index = pd.RangeIndex(self.n_obs)

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
        kinds = {name: t for name, t in data.dtypes.items() if isinstance(t, np.dtype)}
        if foreign := {n: t.newbyteorder("=") for n, t in kinds.items() if not t.isnative}:
            data = data.astype(foreign)  # pandas selects no rows or columns of other byte orders
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


# --------------------------------------------------------------------------- reading


def _looks(frame: nw.DataFrame[Any], uses: Mapping[str, Collection[str]]) -> dict[str, Look]:
    columns = [(name, frame[name], use) for name, use in uses.items()]
    apply = each if len(frame) >= _MANY else map
    return dict(zip(uses, apply(lambda column: look_at(*column), columns), strict=True))


def _look_part(part: Any, uses: Mapping[str, Collection[str]]) -> tuple[int, dict[str, Look]]:
    """Number of rows of a part and what it says of each column, without the values."""
    frame = nw.from_native(part, eager_only=True)
    if not len(frame):  # the types of an empty partition mean nothing
        return 0, {}
    looks = _looks(frame, uses)
    return len(frame), {
        name: dataclasses.replace(look, values=look.values[:0]) for name, look in looks.items()
    }


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

    @property
    def levels(self) -> dict[str, tuple[Any, ...]]:
        """Levels of the categorical columns, by name."""
        return {c.name: c.levels for c in self.columns if c.levels is not None}

    def __call__(self, part: Any, index: pd.Index | None = None, offset: int = 0) -> Block:
        """Read one native or narwhals frame."""
        frame = nw.from_native(part, eager_only=True)
        uses = {c.name: ["numbers" if c.levels is None else "categories"] for c in self.columns}
        return self.values(_looks(frame, uses), len(frame), index, offset)

    def values(
        self, looks: Mapping[str, Look], n: int, index: pd.Index | None = None, offset: int = 0
    ) -> Block:
        """Check what was seen of a part, and give its values."""
        out: dict[str, np.ndarray] = {}
        for c in self.columns:
            look = looks[c.name]
            refuse(c.name, look, c.name in self.infinite, index, offset)
            if c.levels is None:
                out[c.name] = look.values
                continue
            codes = out[c.name] = look.codes(c.levels)
            if (codes < 0).any():
                rows = [int(r) for r in np.flatnonzero(codes < 0)]
                there = look.levels or ()
                unseen = sorted({repr(there[v]) for v in np.unique(look.values[rows])})
                raise DataError(
                    f"Expected the levels {list(c.levels)[:20]} in column {c.name!r}, but "
                    f"{len(rows)} of {n} rows have others: {', '.join(unseen[:8])} (first rows: "
                    f"{first_rows(rows, index, offset)}). Drop these rows, or fit again with them."
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
    seen: dict[str, Look] = {}
    for _, looks in source.looks(uses):
        seen = {k: seen[k].joined(look) for k, look in looks.items()} if seen else looks
    if source.n_obs == 0:
        raise DataError(
            "Expected at least one row, but the data have 0 rows. Check how they were filtered."
        )
    allowed = frozenset(infinite)
    for name, look in seen.items():
        refuse(name, look, name in allowed, source.index)
        refuse_tiny(name, look)
    reader = Reader([look.column(name) for name, look in seen.items()], allowed)
    if source.kind == "memory":
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
        f"{rows.n_obs} rows differ (first rows: {first_rows(first, index)}). {remedy}"
    )


def _count(block: Block, names: Sequence[str], bad: Callable[..., np.ndarray]) -> tuple[int]:
    return (int(np.count_nonzero(bad(*[block[name] for name in names]))),)


def check_weights(rows: Rows, name: str, index: pd.Index | None = None) -> None:
    """Raise a `DataError` where weights are below 0, or all of them 0."""
    negative, total = rows.total(_weight_sums, name)
    if negative:
        check(
            rows, [name], lambda w: w < 0, "weights of at least 0",
            "Drop these rows or correct the weights.", index,
        )  # fmt: skip
    if not total > 0:
        raise DataError(
            f"Expected positive weights in column {name!r}, but all {rows.n_obs} are 0. Give at "
            "least some rows a weight."
        )


def _weight_sums(block: Block, name: str) -> tuple[int, float]:
    w = block[name]
    return int(np.count_nonzero(w < 0)), float(w.sum())
