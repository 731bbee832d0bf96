"""From a data frame of comparisons to coded votes, and from votes to sums over equal ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from causalrm.core.blocks import each
from causalrm.core.column import Look, first_rows, look_at, refuse
from causalrm.core.design import Design, Formulas
from causalrm.core.errors import DataError, IdentificationError
from causalrm.core.frame import Source, check, scan
from causalrm.preference import _kernels as K

LABELS = {
    "win": 1.0, "loss": 0.0, "tie": 0.5, "draw": 0.5, "a": 1.0, "b": 0.0, "left": 1.0, "right": 0.0,
}  # fmt: skip
_MANY = 1 << 16  # rows from which columns of integers and categories are coded without a copy
_SPAN = 1 << 26  # largest range of integers that a table codes
_DENSE = 1500  # items up to which votes are counted in a table of all ordered pairs
_NONE = np.empty(0)


@dataclass(frozen=True)
class Roles:
    """Which column plays which part."""

    a: str
    b: str
    outcome: str
    weights: str | None = None
    counts: str | None = None
    cluster: str | None = None

    def check(self) -> None:
        """Refuse what is no column name, and a column in two parts."""
        given = {name: column for name, column in vars(self).items() if column is not None}
        for name, column in given.items():
            if not isinstance(column, str):
                raise DataError(
                    f"Expected a column name for {name}, but saw {column!r}. Give the name."
                )
        for name, column in given.items():
            other = next((n for n in given if n != name and given[n] == column), None)
            if other and {name, other} <= {"a", "b", "outcome", "weights", "counts"}:
                raise DataError(
                    f"Expected different columns for {name} and {other}, but both are {column!r}. "
                    "Give one column for each."
                )


@dataclass(frozen=True)
class Coded:
    """A column of labels: the code of a value is ``table[value - low]``, -1 where it is none."""

    values: np.ndarray
    low: int
    table: np.ndarray

    @property
    def codes(self) -> np.ndarray:
        """Code of every row."""
        return np.asarray(self.table[np.subtract(self.values, self.low, dtype=np.int64)])


@dataclass(frozen=True)
class Votes:
    """Coded votes, in memory.

    Attributes
    ----------
    items : tuple
        Labels, the reference first.
    a, b : Coded
    y : ndarray of shape (n,)
        Outcomes in [0, 1].
    w, square : ndarray of shape (n,) or (0,)
        Sums of the weights, of mean 1, and of their squares, over the votes that a row stands for;
        empty where each row is one vote.
    x : ndarray of shape (p, n)
        Covariates.
    design : Design or None
    cluster : Coded or None
    n_clusters : int
    n_votes : int
        Rows, or the sum of counts.
    table : ndarray of shape (items * items * 3,) or None
        Votes by (a, b, outcome), where they were counted while they were read.
    """

    items: tuple[Any, ...]
    a: Coded
    b: Coded
    y: np.ndarray
    w: np.ndarray
    square: np.ndarray
    x: np.ndarray
    design: Design | None
    cluster: Coded | None
    n_clusters: int
    n_votes: int
    table: np.ndarray | None = None

    @property
    def columns(self) -> tuple[Any, Any, Any, Any, Any, Any, Any]:
        """Items and outcomes as the kernels take them."""
        a, b = self.a, self.b
        return a.values, a.low, a.table, b.values, b.low, b.table, self.y


@dataclass(frozen=True)
class Heaps:
    """Votes summed where items, outcome and covariates are equal.

    Attributes
    ----------
    i, j, y, w, square : ndarray of shape (m,)
    pair : ndarray of shape (m,)
        Number of the unordered pair.
    first, second : ndarray of shape (pairs,)
        Items of each pair.
    x : ndarray of shape (p, m)
        Position and covariates.
    """

    i: np.ndarray
    j: np.ndarray
    y: np.ndarray
    w: np.ndarray
    square: np.ndarray
    pair: np.ndarray
    first: np.ndarray
    second: np.ndarray
    x: np.ndarray


# ---------------------------------------------------------------- reading


def read(data: Any, roles: Roles, formula: str | None) -> Votes:
    """Read and check the votes of a data frame."""
    roles.check()
    source = Source(data)
    votes = None
    if source.kind == "memory" and not (formula or roles.weights or roles.counts):
        votes = _read_many(source, roles)
    return _read_any(source, roles, formula) if votes is None else votes


@dataclass(frozen=True)
class _Levels:
    """A column whose values are small integers: which occur, and what they stand for."""

    values: np.ndarray
    low: int
    used: np.ndarray
    levels: list[Any]
    ordered: bool

    def coded(self, place: dict[Any, int]) -> Coded:
        table = np.full(int(self.used[-1]) + 1, -1, np.int32)
        table[self.used] = [place[level] for level in self.levels]
        return Coded(self.values, self.low, table)


def _levels(name: str, series: Any) -> _Levels | None:
    """The codes of a column, without a copy where they lie in memory; None where one is missing."""
    native = series.to_native()
    if isinstance(native, pd.Series) and isinstance(native.dtype, np.dtype | pd.CategoricalDtype):
        found = _small_integers(native)
        if found is not None:
            return found
    look = look_at(name, series, ["categories"])
    if look.bad or look.levels is None:
        return None
    used = np.array([i for i, level in enumerate(look.levels) if level in look.used])
    return _Levels(look.values, 0, used, [look.levels[i] for i in used], look.ordered)


def _small_integers(native: pd.Series) -> _Levels | None:
    """A pandas column of integers or categories as it lies in memory; None for all others."""
    if isinstance(native.dtype, pd.CategoricalDtype):
        values, low = native.cat.codes.to_numpy(), 0
        size = len(native.cat.categories) + 1
    elif native.dtype.kind in "iu":
        values = native.to_numpy()
        low, high = int(values.min()), int(values.max())
        size = high - low + 2
        if size > min(_SPAN, 4 * len(values)) or high > np.iinfo(np.int64).max:
            return None
        if values.dtype == np.uint64:
            values = values.astype(np.int64)
    else:
        return None
    mark = np.zeros(size, np.uint8)
    K.seen(values, low, mark)
    if mark[-1]:  # missing: the other path says where
        return None
    used = np.flatnonzero(mark)
    if isinstance(native.dtype, pd.CategoricalDtype):
        return _Levels(values, low, used, native.cat.categories[used].tolist(), True)
    return _Levels(values, low, used, (used + low).tolist(), False)


def _read_many(source: Source, roles: Roles) -> Votes | None:
    """Many votes without weights, counted as they are read; None where anything is unusual.

    Integers and categories are not copied.
    """
    if source.n_obs < _MANY:
        return None
    names = [c for c in (roles.a, roles.b, roles.cluster) if c is not None]
    source.want([*names, roles.outcome])
    y = source.frame[roles.outcome].to_native()
    if not (isinstance(y, pd.Series) and isinstance(y.dtype, np.dtype) and y.dtype.kind in "iuf"):
        look = look_at(roles.outcome, source.frame[roles.outcome], ["either"])
        if look.bad or look.levels is not None:
            return None
        y = look.values
    found = list(each(lambda name: _levels(name, source.frame[name]), names))
    if any(f is None for f in found):
        return None
    a, b, *rest = found
    assert a is not None and b is not None
    items = _joined(a.levels, b.levels, a.ordered, b.ordered, roles)
    place = {item: code for code, item in enumerate(items)}
    if len(items) > _DENSE:
        return None
    cluster, n_clusters = None, 0
    if rest and rest[0] is not None:
        n_clusters = len(rest[0].levels)
        table = np.full(int(rest[0].used[-1]) + 1, -1, np.int32)
        table[rest[0].used] = np.arange(n_clusters)
        cluster = Coded(rest[0].values, rest[0].low, table)
    values = np.asarray(y)
    votes = Votes(
        items, a.coded(place), b.coded(place), values, _NONE, _NONE, np.empty((0, len(values))),
        None, cluster, n_clusters, len(values),
    )  # fmt: skip
    counts, odd = _count(votes)
    same = counts.reshape(len(items), len(items), 3)[np.diag_indices(len(items))]
    return None if odd or same.any() else replace(votes, table=counts)


def _joined(
    a: list[Any], b: list[Any], a_ordered: bool, b_ordered: bool, roles: Roles
) -> tuple[Any, ...]:
    """The levels of both columns in one order: the user's where both have one, else sorted."""
    both = list(dict.fromkeys([*a, *b]))
    if a_ordered and b_ordered:
        return tuple(both)
    try:
        return tuple(sorted(both))
    except TypeError as error:
        kinds = sorted({type(level).__name__ for level in both})
        raise DataError(
            f"Expected items of one type in columns {roles.a!r} and {roles.b!r}, but saw "
            f"{' and '.join(kinds)}. Convert both columns to text."
        ) from error


def _read_any(source: Source, roles: Roles, formula: str | None) -> Votes:
    """Votes of any source, through the checks that all data pass."""
    numbers = [c for c in (roles.weights, roles.counts) if c is not None]
    categories = [c for c in (roles.a, roles.b, roles.cluster) if c is not None]
    source.want([*numbers, *categories, roles.outcome])
    formulas = {} if formula is None else {"covariates": formula}
    parsed = Formulas(formulas, source)
    reader, rows = scan(
        source,
        numbers=[*numbers, *parsed.numbers],
        either=[roles.outcome, *parsed.either],
        categories=[*categories, *parsed.categories],
    )
    index = source.index if source.kind == "memory" else None
    levels = {c.name: c.levels for c in reader.columns}
    design = parsed.build(rows, reader, index).get("covariates")
    if roles.weights:
        check(
            rows, [roles.weights], lambda w: w < 0, "weights of at least 0",
            "Drop these rows or correct the weights.", index,
        )  # fmt: skip
    if roles.counts:
        check(
            rows, [roles.counts], lambda m: (m < 0) | (m != np.floor(m)),
            "whole numbers of at least 0",
            "Correct these rows; sampling weights that are no counts go into weights=.", index,
        )  # fmt: skip
    labels = levels[roles.outcome]
    outcome = None if labels is None else _outcome_of_labels(labels, roles.outcome)
    if outcome is None:
        check(
            rows, [roles.outcome], lambda y: (y < 0) | (y > 1),
            "outcomes from 0 (b wins) to 1 (a wins), 0.5 for a tie",
            "Recode the column, or give text labels win, loss and tie.", index,
        )  # fmt: skip
    a_ordered, b_ordered = (_ordered(source, name) for name in (roles.a, roles.b))
    first, second = (list(levels[name] or ()) for name in (roles.a, roles.b))
    items = _joined(first, second, a_ordered, b_ordered, roles)
    place = {item: code for code, item in enumerate(items)}
    tables = [
        np.array([place[level] for level in levels[name] or ()], np.int32)
        for name in (roles.a, roles.b)
    ]
    check(
        rows, [roles.a, roles.b], lambda a, b: tables[0][a] == tables[1][b],
        "two different items in each row", "Drop these rows: an item cannot be compared with "
        "itself.", index,
    )  # fmt: skip
    parts: list[list[np.ndarray]] = []
    for _, block in rows.parts():
        n = len(block[roles.a])
        y = block[roles.outcome] if outcome is None else outcome[block[roles.outcome]]
        one = [block[roles.a], block[roles.b], y]
        one.append(np.asarray(block[roles.weights], float) if roles.weights else _NONE)
        one.append(np.asarray(block[roles.counts], float) if roles.counts else _NONE)
        one.append(block[roles.cluster] if roles.cluster else _NONE)
        one.append(np.empty((0, n)) if design is None else _encoded(design, block, n))
        parts.append(one)
    a, b, y, w, counts, clusters = (
        np.concatenate(c) if len(c) > 1 else c[0] for c in list(zip(*parts, strict=True))[:6]
    )
    x = np.concatenate([p[6] for p in parts], axis=1) if len(parts) > 1 else parts[0][6]
    w, square, n_votes = _weights(w, counts, roles, rows.n_obs)
    cluster = None
    if roles.cluster:
        n_clusters = len(levels[roles.cluster] or ())
        cluster = Coded(clusters, 0, np.arange(n_clusters, dtype=np.int32))
    votes = Votes(
        items, Coded(a, 0, tables[0]), Coded(b, 0, tables[1]), y, w, square, x,
        None if design is None else design, cluster, 0 if cluster is None else n_clusters, n_votes,
    )  # fmt: skip
    return _checked_covariates(votes)


def _ordered(source: Source, name: str) -> bool:
    """Whether the order of a column's levels is the user's."""
    if source.kind != "memory":
        return False
    native = source.frame[name].to_native()
    if isinstance(native, pd.Series):
        return isinstance(native.dtype, pd.CategoricalDtype)
    look: Look = look_at(name, source.frame[name][:1], ["categories"])
    return look.ordered


def _outcome_of_labels(labels: tuple[Any, ...], column: str) -> np.ndarray:
    """The outcome that each text label stands for."""
    unknown = [label for label in labels if str(label).strip().lower() not in LABELS]
    if unknown:
        raise DataError(
            f"Expected the labels win, loss and tie (also a, b; left, right; draw) in column "
            f"{column!r}, but {len(unknown)} of its {len(labels)} labels are others: "
            f"{', '.join(map(repr, unknown[:8]))}. Recode them, or give numbers: 1, 0 and 0.5."
        )
    return np.array([LABELS[str(label).strip().lower()] for label in labels])


def _weights(
    w: np.ndarray, counts: np.ndarray, roles: Roles, n: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Sums of weights and of squared weights of each row's votes, and the number of votes."""
    n_votes = int(counts.sum()) if counts.size else n
    for column, values in ((roles.counts, counts), (roles.weights, w)):
        if column and not values.any():
            raise DataError(
                f"Expected positive values in column {column!r}, but all {n} are 0. Give at least "
                "some rows a positive value."
            )
    if not w.size:
        return counts, counts, n_votes
    m = counts if counts.size else 1.0
    w = w / (float((m * w).sum()) / n_votes)
    return m * w, m * w * w, n_votes


def _encoded(design: Design, block: Any, n: int) -> np.ndarray:
    """Covariates of a part, without the intercept, which is the position's."""
    x = np.empty((len(design) - design.has_intercept, n))
    starts = range(0, n, 1 << 15)

    def task(start: int) -> None:
        part = {name: c[start : start + (1 << 15)] for name, c in block.items()}
        m = min(1 << 15, n - start)
        x[:, start : start + m] = design.encode(part, m)[int(design.has_intercept) :]

    for _ in each(task, starts):
        pass
    return x


def _checked_covariates(votes: Votes) -> Votes:
    """Refuse covariates that do not vary: these would be a position effect by another name."""
    if votes.design is None:
        return votes
    terms = votes.design.terms[int(votes.design.has_intercept) :]
    if not terms:
        raise DataError(
            f"Expected covariates in {votes.design.formula!r}, but it has only an intercept. Name "
            "columns, or set position=True where the first place may have an advantage."
        )
    constant = [t for t, row in zip(terms, votes.x, strict=True) if row.min() == row.max()]
    if constant:
        raise IdentificationError(
            f"Expected covariates that vary between rows, but {constant} are constant over all "
            f"{len(votes.y)} rows. Remove them; an advantage of the first place is position=True."
        )
    return votes


def locate_labels(data: Any, roles: Any, items: tuple[Any, ...]) -> tuple[Source, Any, Any]:
    """Open new rows, and give the codes of their items among those of a fit."""
    source = Source(data)
    if source.kind != "memory":
        raise DataError(
            "Expected rows held in memory for a prediction, but saw a source that is read in "
            "parts. Convert a part with its to_pandas(), and predict part by part."
        )
    out = []
    source.want([roles["a"], roles["b"]])
    for name in (roles["a"], roles["b"]):
        look = look_at(name, source.frame[name], ["categories"])
        refuse(name, look, False, source.index)
        codes = look.codes(items)
        bad = np.flatnonzero(codes < 0)
        if bad.size:
            unseen = sorted({repr((look.levels or ())[v]) for v in np.unique(look.values[bad])})
            raise DataError(
                f"Expected items of the fit in column {name!r}, but {bad.size} of {len(codes)} "
                f"rows have others: {', '.join(unseen[:8])} (first rows: "
                f"{first_rows(bad[:6].tolist(), source.index)}). Drop these rows, or fit again "
                "with them."
            )
        out.append(codes)
    return source, out[0], out[1]


# ---------------------------------------------------------------- counting


def _spans(n: int, k: int) -> list[slice]:
    """Stretches of rows, as many as tables of counts fit; the same for any number of threads."""
    parts = max(1, min(8, n >> 17, (1 << 26) // (3 * k * k)))
    edges = np.linspace(0, n, parts + 1).astype(int)
    return [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]


def _count(votes: Votes) -> tuple[np.ndarray, int]:
    """Votes by (a, b, outcome), and how many outcomes are neither 0, 1/2 nor 1."""
    k = len(votes.items)
    a, la, ta, b, lb, tb, y = votes.columns

    def task(s: slice) -> tuple[np.ndarray, int]:
        out = np.zeros(3 * k * k, np.int64)
        return out, K.histogram(a[s], la, ta, b[s], lb, tb, y[s], k, out)

    total, odd = np.zeros(3 * k * k, np.int64), 0
    for out, others in each(task, _spans(len(y), k)):
        total += out
        odd += others
    return total, odd


def _sum(votes: Votes) -> np.ndarray:
    """Sums of weights and of their squares by (a, b, outcome), shape (2, 3 k^2)."""
    k = len(votes.items)
    a, la, ta, b, lb, tb, y = votes.columns

    def task(s: slice) -> np.ndarray:
        out = np.zeros((2, 3 * k * k))
        w, square = votes.w[s], votes.square[s]
        K.weighted_histogram(a[s], la, ta, b[s], lb, tb, y[s], w, square, k, out)
        return out

    total = np.zeros((2, 3 * k * k))
    for out in each(task, _spans(len(y), 2 * k)):
        total += out
    return total


def has_shares(votes: Votes) -> bool:
    """Whether some outcomes are neither 0, 1/2 nor 1."""
    return any(bool((2 * part != np.floor(2 * part)).any()) for part in _chunks(votes.y, 1 << 20))


def _chunks(values: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def heap(votes: Votes, position: bool) -> Heaps:
    """Sum votes that are equal; with covariates or shares of a win each row is its own heap."""
    k = len(votes.items)
    rowwise = votes.x.shape[0] > 0 or (votes.table is None and has_shares(votes))
    if not rowwise and k <= _DENSE:
        if votes.w.size:
            table = _sum(votes)
        else:
            table = (_count(votes)[0] if votes.table is None else votes.table)[None]
        if not position:  # the order of the two items means nothing: fewer heaps
            table = table.reshape(-1, k, k, 3)
            table = np.triu((table + table.transpose(0, 2, 1, 3)[..., ::-1]).transpose(0, 3, 1, 2))
            table = table.transpose(0, 2, 3, 1).reshape(-1, 3 * k * k)
        cell = np.flatnonzero(table[0])
        w, square = table[0, cell].astype(float), table[-1, cell].astype(float)
        x = np.empty((0, len(cell)))
    else:
        cell = (votes.a.codes.astype(np.int64) * k + votes.b.codes) * 3
        w = votes.w if votes.w.size else np.ones(len(cell))
        square = votes.square if votes.w.size else w
        x = votes.x
        if not rowwise:
            cell, place = np.unique(cell + (2 * votes.y).astype(np.int64), return_inverse=True)
            w, square = np.bincount(place, w), np.bincount(place, square)
            x = np.empty((0, len(cell)))
    i, j = cell // (3 * k), cell // 3 % k
    y = np.asarray(votes.y, float) if rowwise else 0.5 * (cell % 3)
    if position:
        x = np.vstack([np.ones(len(cell)), x])
    key = np.minimum(i, j) * k + np.maximum(i, j)
    if k <= _DENSE:
        mark = np.zeros(k * k, np.int64)
        mark[key] = 1
        pairs = np.flatnonzero(mark)
        mark[pairs] = np.arange(len(pairs))
        pair = mark[key]
    else:
        pairs, pair = np.unique(key, return_inverse=True)
    return Heaps(
        i.astype(np.int32), j.astype(np.int32), y, np.ascontiguousarray(w),
        np.ascontiguousarray(square), pair, pairs // k, pairs % k, np.ascontiguousarray(x),
    )  # fmt: skip


def reweighted(votes: Votes, factor: np.ndarray) -> Votes:
    """The same votes with weights times a factor per cluster."""
    assert votes.cluster is not None
    w = factor[votes.cluster.codes]
    if votes.w.size:
        return replace(votes, w=votes.w * w, square=votes.square * w * w)
    return replace(votes, w=w, square=w * w, table=None)
