"""Sums over blocks of rows: in memory on threads, from parquet batches, or on a Dask cluster.

A likelihood, a score, a Gram matrix are sums over rows. The caller writes
``function(block, *args) -> tuple of arrays or numbers``, where a block maps column names to
arrays of at most `BLOCK` rows, and `total` adds the tuples up. Blocks have a fixed size and are
added in a fixed order, so the answer has the same bits for any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np

from causalrm.core.errors import DataError
from causalrm.core.parallel import blas_limit, n_threads

BLOCK = 4096  # rows; a block of 20 columns stays in a core's second-level cache
_SPANS = 64  # at most so many partial sums are held for a part of the data

Block = Mapping[str, np.ndarray]
Sums = tuple[Any, ...]
Function = Callable[..., Sums]


def add(left: Sums | None, right: Sums) -> Sums:
    """Add two tuples of sums, item by item."""
    return right if left is None else tuple(a + b for a, b in zip(left, right, strict=True))


@lru_cache(maxsize=4)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="causalrm")


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
    starts = range(0, n, size)
    threads = min(n_threads(), len(starts)) if len(starts) > 1 else 1

    def task(a: int) -> Sums:
        return _span(columns, a, min(a + size, n), function, args)

    out: Sums | None = None
    with blas_limit(1):
        for part in map(task, starts) if threads < 2 else _pool(threads).map(task, starts):
            out = add(out, part)
    assert out is not None
    return out


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

    def parts(self) -> Iterator[tuple[int, Block]]:
        """Give the first row number and the columns of each part, in order."""
        yield 0, self.columns

    def sample(self, size: int) -> Rows:
        """About `size` rows, one drawn from each of as many equal stretches of the data."""
        if self.n_obs <= size:
            if self.in_memory:
                return self
            parts = [part for _, part in self.parts()]
        else:
            picks = _stratified(self.n_obs, size)
            parts = []
            for first, part in self.parts():
                n = len(next(iter(part.values())))
                rows = picks[np.searchsorted(picks, first) : np.searchsorted(picks, first + n)]
                parts.append({name: c[rows - first] for name, c in part.items()})
        joined = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
        return Rows(joined, len(next(iter(joined.values()))))


def _stratified(n: int, size: int) -> np.ndarray:
    edges = np.linspace(0, n, size + 1).astype(np.int64)
    draw = np.random.default_rng(20200301).random(size)  # fixed: a start needs no fresh randomness
    return np.asarray(edges[:-1] + (draw * np.diff(edges)).astype(np.int64))


class BatchRows(Rows):
    """Rows that are read again, part by part, for every sum (parquet files)."""

    in_memory = False

    def __init__(self, batches: Callable[[], Iterator[Any]], read: Callable[[Any], Block], n: int):
        self._batches, self._read, self.n_obs = batches, read, n

    def parts(self) -> Iterator[tuple[int, Block]]:
        """Give the first row number and the columns of each part, in order."""
        first = 0
        for batch in self._batches():
            columns = self._read(batch)
            yield first, columns
            first += len(next(iter(columns.values())))

    def total(self, function: Function, *args: Any) -> Sums:
        """Sum of ``function(block, *args)`` over all blocks of rows."""
        out: Sums | None = None
        for _, columns in self.parts():
            n = len(next(iter(columns.values())))
            if n:
                out = add(out, sum_columns(columns, n, function, args))
        if out is None:
            raise DataError("Expected rows, but the data hold none. Give at least one row.")
        return out


class DaskRows(BatchRows):
    """Rows of a Dask collection: each partition is summed where it lies."""

    def __init__(self, partitions: list[Any], read: Callable[[Any], Block], n: int):
        def batches() -> Iterator[Any]:
            for partition in partitions:
                yield partition.compute()

        super().__init__(batches, read, n)
        self._partitions = partitions

    def total(self, function: Function, *args: Any) -> Sums:
        """Sum of ``function(block, *args)``; one task per partition, added in their order."""
        from dask.base import compute
        from dask.delayed import delayed

        task = delayed(_sum_partition, pure=False)
        sums = compute(*[task(p, self._read, function, args) for p in self._partitions])  # type: ignore[no-untyped-call]
        out: Sums | None = None
        for part in sums:
            if part is not None:
                out = add(out, part)
        if out is None:
            raise DataError("Expected rows, but the data hold none. Give at least one row.")
        return out


def _sum_partition(
    frame: Any, read: Callable[[Any], Block], function: Function, args: tuple[Any, ...]
) -> Sums | None:
    columns = read(frame)
    n = len(next(iter(columns.values())))
    return sum_columns(columns, n, function, args) if n else None
