"""Sums over blocks of rows: in memory on threads, from parquet batches, or on a Dask cluster.

A likelihood, a score, a Gram matrix are sums over rows. The caller writes
``function(block, *args) -> tuple of arrays or numbers``, where a block maps column names to
arrays of at most `BLOCK` rows, and `total` adds the tuples up. Blocks have a fixed size and are
added in a fixed order, so the answer has the same bits for any number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import lru_cache
from typing import Any

import numpy as np

from causalrm.core.errors import DataError
from causalrm.core.kernel import kernel
from causalrm.core.parallel import blas_limit, n_threads

BLOCK = 8192  # rows; a block of 20 columns stays in a core's second-level cache
_SPANS = 64  # at most so many partial sums are held for a part of the data

Block = Mapping[str, np.ndarray]
Sums = tuple[Any, ...]
Function = Callable[..., Sums]
Values = Callable[..., np.ndarray]


def add(left: Sums | None, right: Sums) -> Sums:
    """Add two tuples of sums, item by item."""
    return right if left is None else tuple(a + b for a, b in zip(left, right, strict=True))


@lru_cache(maxsize=4)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="causalrm")


if hasattr(os, "register_at_fork"):  # a forked process has the pool's queue but not its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


def each[T, R](function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """Apply a function that frees the GIL to every item, on threads, results in order.

    Every call sees the caller's context, so that ``np.errstate`` holds there too.
    """
    threads = min(n_threads(), len(items)) if len(items) > 1 else 1
    if threads < 2:
        return map(function, items)
    contexts = [copy_context() for _ in items]  # a context can be entered by one thread at a time
    return _pool(threads).map(lambda c, item: c.run(function, item), contexts, items)


def length(block: Block) -> int:
    """Number of rows of a block."""
    return len(next(iter(block.values())))


def pieces(columns: Block) -> Iterator[tuple[int, Block]]:
    """Give the first row number and the columns of each block of rows held in memory."""
    for start in range(0, length(columns), BLOCK):
        yield start, {name: c[start : start + BLOCK] for name, c in columns.items()}


def _span(columns: Block, start: int, stop: int, function: Function, args: tuple[Any, ...]) -> Sums:
    out: Sums | None = None
    for a in range(start, stop, BLOCK):
        b = min(a + BLOCK, stop)
        out = add(out, function({name: c[a:b] for name, c in columns.items()}, *args))
    assert out is not None
    return out


def sum_columns(columns: Block, n: int, function: Function, args: tuple[Any, ...]) -> Sums:
    """Sum `function` over the blocks of columns held in memory, on threads where it pays."""
    size = max(1, -(-n // (BLOCK * _SPANS))) * BLOCK

    def task(a: int) -> Sums:
        return _span(columns, a, min(a + size, n), function, args)

    out: Sums | None = None
    with blas_limit(1):
        for part in each(task, range(0, n, size)):
            out = add(out, part)
    assert out is not None
    return out


@kernel
def _add_by_code(codes: np.ndarray, values: np.ndarray, out: np.ndarray) -> None:
    for j in range(values.shape[0]):
        for i in range(codes.size):
            out[codes[i], j] += values[j, i]


def group_columns(
    columns: Block, n: int, function: Values, args: tuple[Any, ...], by: str, out: np.ndarray
) -> None:
    """Add the values (k, n) that `function` gives for rows to `out`, at the rows' codes."""

    def task(a: int) -> np.ndarray:
        block = {name: c[a : a + BLOCK] for name, c in columns.items()}
        return np.ascontiguousarray(function(block, *args))

    starts = range(0, n, BLOCK)
    with blas_limit(1):
        for first in range(0, len(starts), _SPANS):  # so many blocks of values are held at once
            some = starts[first : first + _SPANS]
            for a, values in zip(some, each(task, some), strict=True):
                _add_by_code(np.asarray(columns[by][a : a + BLOCK]), values, out)


class Rows:
    """Rows of checked columns, held in memory.

    Parameters
    ----------
    columns : mapping of str to ndarray of shape (n,)
        Numbers, or integer codes of categories.
    n : int
        Number of rows.
    """

    in_memory = True

    def __init__(self, columns: Block, n: int):
        self.columns = dict(columns)
        self.n_obs = n

    def total(self, function: Function, *args: Any) -> Sums:
        """Sum of ``function(block, *args)`` over all blocks of rows."""
        return sum_columns(self.columns, self.n_obs, function, args)

    def grouped(self, function: Values, by: str, n_groups: int, *args: Any) -> np.ndarray:
        """Sums of the rows' values by group, without a matrix of all of them.

        Parameters
        ----------
        function : callable
            ``function(block, *args)`` gives an array of shape (k, rows).
        by : str
            Column of integer codes below `n_groups`.
        n_groups : int

        Returns
        -------
        ndarray of shape (n_groups, k)
        """
        out: np.ndarray | None = None
        for _, columns in self.parts():
            if out is None:
                one = {name: c[:1] for name, c in columns.items()}
                out = np.zeros((n_groups, len(function(one, *args))))
            group_columns(columns, length(columns), function, args, by, out)
        assert out is not None
        return out

    def parts(self) -> Iterator[tuple[int, Block]]:
        """Give the first row number and the columns of each part, in order."""
        yield 0, self.columns

    def collect(self) -> dict[str, np.ndarray]:
        """The columns of all rows, in memory."""
        parts = [columns for _, columns in self.parts()]
        if len(parts) == 1:
            return dict(parts[0])
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def sample(self, size: int) -> Rows:
        """About `size` rows, one drawn from each of as many equal stretches of the data."""
        if self.n_obs > size:
            parts = self._take(_stratified(self.n_obs, size))
        elif self.in_memory:
            return self
        else:
            parts = self._take(np.arange(self.n_obs))
        joined = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
        return Rows(joined, length(joined))

    def _take(self, picks: np.ndarray) -> list[Block]:
        """The rows with these numbers, in increasing order, part by part."""
        out: list[Block] = []
        for first, part in self.parts():
            a, b = np.searchsorted(picks, [first, first + length(part)])
            if a < b:
                out.append({name: c[picks[a:b] - first] for name, c in part.items()})
        return out


def _stratified(n: int, size: int) -> np.ndarray:
    edges = np.linspace(0, n, size + 1).astype(np.int64)
    draw = np.random.default_rng(20200301).random(size)  # fixed: a start needs no fresh randomness
    return np.asarray(edges[:-1] + (draw * np.diff(edges)).astype(np.int64))


class BatchRows(Rows):
    """Rows that are read again, part by part, for every sum (parquet files).

    Parameters
    ----------
    batches : callable
        Gives the parts, native data frames, from the first on.
    read : callable
        Turns a part into checked columns.
    n : int
        Number of rows.
    """

    in_memory = False

    def __init__(self, batches: Callable[[], Iterator[Any]], read: Callable[[Any], Block], n: int):
        self._batches, self._read, self.n_obs = batches, read, n

    def parts(self) -> Iterator[tuple[int, Block]]:
        """Give the first row number and the columns of each part, in order."""
        first = 0
        for batch in self._batches():
            if len(batch):
                columns = self._read(batch)
                yield first, columns
                first += len(batch)

    def total(self, function: Function, *args: Any) -> Sums:
        """Sum of ``function(block, *args)`` over all blocks of rows."""
        return _total(sum_columns(c, length(c), function, args) for _, c in self.parts())


class DaskRows(BatchRows):
    """Rows of a Dask collection: each partition is read and summed where it lies.

    Parameters
    ----------
    partitions : list
        Delayed data frames.
    read : callable
        Turns a part into checked columns.
    sizes : sequence of int
        Number of rows of each partition.
    """

    def __init__(self, partitions: list[Any], read: Callable[[Any], Block], sizes: Sequence[int]):
        super().__init__(lambda: (p.compute() for p in partitions), read, sum(sizes))
        self._partitions, self._sizes = partitions, list(sizes)

    def total(self, function: Function, *args: Any) -> Sums:
        """Sum of ``function(block, *args)``; one task per partition, added in their order."""
        return _total(on_partitions(_sum_partition, self._partitions, self._read, function, args))

    def grouped(self, function: Values, by: str, n_groups: int, *args: Any) -> np.ndarray:
        """Sums of the rows' values by group; see `Rows.grouped`."""
        out: np.ndarray | None = None
        parts = on_partitions(_group_partition, self._partitions, self._read, function, by, args)
        for part in parts:
            if part is not None:
                codes, sums = part
                out = np.zeros((n_groups, sums.shape[1])) if out is None else out
                out[codes] += sums
        assert out is not None
        return out

    def _take(self, picks: np.ndarray) -> list[Block]:
        edges = np.cumsum([0, *self._sizes])
        places = np.searchsorted(picks, edges)
        wanted = [
            picks[a:b] - edge
            for a, b, edge in zip(places[:-1], places[1:], edges[:-1], strict=True)
        ]
        parts = on_partitions(_take_partition, self._partitions, self._read, own=wanted)
        return [part for part in parts if part is not None]


def _total(parts: Iterable[Sums | None]) -> Sums:
    out: Sums | None = None
    for part in parts:
        if part is not None:
            out = add(out, part)
    if out is None:
        raise DataError("Expected rows, but the data hold none. Give at least one row.")
    return out


def on_partitions(
    function: Callable[..., Any], partitions: Sequence[Any], *args: Any, own: Any = None
) -> list[Any]:
    """``function(partition, *args)`` as one Dask task per partition; results in their order.

    With `own`, every partition also gets its own item of it as last argument.
    """
    from dask.base import compute
    from dask.delayed import delayed

    task = delayed(function, pure=False)
    last = [()] * len(partitions) if own is None else [(item,) for item in own]
    tasks = [task(p, *args, *more) for p, more in zip(partitions, last, strict=True)]
    return list(compute(*tasks))  # type: ignore[no-untyped-call]


def _sum_partition(
    frame: Any, read: Callable[[Any], Block], function: Function, args: tuple[Any, ...]
) -> Sums | None:
    return sum_columns(read(frame), len(frame), function, args) if len(frame) else None


def _group_partition(
    frame: Any, read: Callable[[Any], Block], function: Values, by: str, args: tuple[Any, ...]
) -> tuple[np.ndarray, np.ndarray] | None:
    if not len(frame):
        return None
    columns = dict(read(frame))
    codes, columns[by] = np.unique(columns[by], return_inverse=True)
    sums = Rows(columns, len(frame)).grouped(function, by, len(codes), *args)
    return codes, sums


def _take_partition(frame: Any, read: Callable[[Any], Block], rows: np.ndarray) -> Block | None:
    return {name: c[rows] for name, c in read(frame).items()} if len(rows) else None
