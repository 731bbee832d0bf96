"""Which rows are in which fold, and which columns are regressors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalrm.core.blocks import BatchRows, Block, DaskRows, Rows, length
from causalrm.core.design import Design
from causalrm.core.errors import DataError
from causalrm.deconfound import _kernels as k

FOLD = "(fold)"  # the column of fold codes in the rows that `with_folds` returns


@dataclass(frozen=True)
class Columns:
    """Columns of the rows as regressors, without an intercept.

    Parameters
    ----------
    names : tuple of str
        Keys of the rows' columns: arrays of shape (n,), or of shape (n, p) such as text features,
        which are used where they lie.
    terms : tuple of str
        Names of all regressors, for results and messages.
    """

    names: tuple[str, ...]
    terms: tuple[str, ...]


@dataclass(frozen=True)
class Folds:
    """How rows are split.

    Parameters
    ----------
    n_folds : int
        From 2 to 100.
    seed : int
        Of 63 bits; another seed is another split.
    unit : str, optional
        Column of integer codes (clusters, distinct texts) whose rows stay in one fold; without it
        every row is a unit.

    Raises
    ------
    DataError
        When the number of folds cannot be used.
    """

    n_folds: int
    seed: int
    unit: str | None = None

    def __post_init__(self) -> None:
        if not 2 <= self.n_folds <= 100:
            raise DataError(
                f"Expected 2 to 100 folds, but saw {self.n_folds!r}. Five folds are usual."
            )

    def codes(self, block: Block, first: int) -> np.ndarray:
        """Fold of every row of a part of the data that starts at row number `first`."""
        if self.unit is None:
            units = np.arange(first, first + length(block))
        else:
            units = np.asarray(block[self.unit], dtype=np.int64)
        return np.asarray(k.fold_codes(units, self.n_folds, self.seed))


class _Numbered:
    """A part of the data that knows the number of its first row."""

    def __init__(self, part: Any, first: int):
        self.part, self.first = part, first

    def __len__(self) -> int:
        return len(self.part)


class _Reader:
    """Reads a numbered part, and adds the folds of its rows."""

    def __init__(self, read: Callable[[Any], Block], folds: Folds):
        self.read, self.folds = read, folds

    def __call__(self, numbered: _Numbered) -> Block:
        block = dict(self.read(numbered.part))
        block[FOLD] = self.folds.codes(block, numbered.first)
        return block


def with_folds(rows: Rows, folds: Folds) -> Rows:
    """The same rows with a column `FOLD`; one byte per row where they are held in memory."""
    if isinstance(rows, DaskRows):
        from dask.delayed import delayed

        first = np.cumsum([0, *rows._sizes[:-1]]).tolist()
        number = delayed(_Numbered, pure=False)
        parts = [number(p, a) for p, a in zip(rows._partitions, first, strict=True)]
        return DaskRows(parts, _Reader(rows._read, folds), rows._sizes)
    if isinstance(rows, BatchRows):
        batches = rows._batches

        def numbered() -> Iterator[_Numbered]:
            first = 0
            for batch in batches():
                yield _Numbered(batch, first)
                first += len(batch)

        return BatchRows(numbered, _Reader(rows._read, folds), rows.n_obs)
    return Rows({**rows.columns, FOLD: folds.codes(rows.columns, 0)}, rows.n_obs)


Regressors = Design | Columns


def terms_of(inputs: Regressors) -> tuple[str, ...]:
    """Names of the regressors, without the intercept."""
    return inputs.slope_terms if isinstance(inputs, Design) else inputs.terms


def pieces_of(inputs: Regressors, block: Block, n: int) -> list[np.ndarray]:
    """Arrays of shape (., n) that hold the regressors, without the intercept."""
    if isinstance(inputs, Design):
        return [inputs.slopes(block, n)]
    out = []
    for name in inputs.names:
        x = np.asarray(block[name], dtype=float)
        out.append(x[None, :] if x.ndim == 1 else x.T)
    return out


def matrix_of(inputs: Regressors, block: Block, n: int) -> np.ndarray:
    """The regressors as one array of shape (p, n), without the intercept."""
    pieces = pieces_of(inputs, block, n)
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
