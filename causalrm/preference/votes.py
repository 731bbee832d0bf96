"""From a data frame of comparisons to coded votes, and from votes to sums over equal ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from causalrm.core.blocks import Rows, each
from causalrm.core.column import Look, first_rows, look_at, refuse, refuse_tiny
from causalrm.core.design import Design, Formulas
from causalrm.core.errors import DataError, IdentificationError
from causalrm.core.frame import Source, check, check_weights, scan
from causalrm.preference import _kernels as K

LABELS = {
    "win": 1.0, "loss": 0.0, "tie": 0.5, "draw": 0.5, "a": 1.0, "b": 0.0, "left": 1.0, "right": 0.0,
}  # fmt: skip
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
        """Refuse a column in two parts; only clusters may be those of another column."""
        given: dict[str, str] = {}
        for name in ("a", "b", "outcome", "weights", "counts"):
            column = getattr(self, name)
            if column is not None and column in given:
                raise DataError(
                    f"Expected different columns for {given[column]} and {name}, but both are "
                    f"{column!r}. Give one column for each."
                )
            given[column] = name


@dataclass(frozen=True)
class Coded:
    """A column of labels: the code of a value is ``table[value]``."""

    values: np.ndarray
    table: np.ndarray

    @property
    def codes(self) -> np.ndarray:
        """Code of every row."""
        return np.asarray(self.table[self.values])


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
    unused : int
        Rows whose weight or count is zero; they are not among the n.
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
    unused: int = 0
    table: np.ndarray | None = None

    @property
    def columns(self) -> tuple[Any, Any, Any, Any, Any]:
        """Items and outcomes as the kernels take them."""
        return self.a.values, self.a.table, self.b.values, self.b.table, self.y


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
    rowwise : bool
        Whether each row of the votes is a heap, in their order.
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
    rowwise: bool = False


# ---------------------------------------------------------------- reading


def read(data: Any, roles: Roles, formula: str | None = None) -> Votes:
    """Read and check the votes of a data frame."""
    roles.check()
    source = Source(data)
    looks, design, x = _columns(source, roles, formula)
    index, n = source.index, source.n_obs
    rows = Rows({name: look.values for name, look in looks.items()}, n)
    w, counts = (
        np.asarray(looks[c].values, float) if c else _NONE for c in (roles.weights, roles.counts)
    )
    if roles.weights:
        check_weights(rows, roles.weights, index)
    if roles.counts:
        check(
            rows, [roles.counts], lambda m: (m < 0) | (m != np.floor(m)),
            "whole numbers of at least 0",
            "Correct these rows; sampling weights that are no counts go into weights=.", index,
        )  # fmt: skip
    outcome = looks[roles.outcome]
    y = outcome.values
    if outcome.levels is not None:
        y = _outcome_of_labels(outcome, roles.outcome)[y]
    elif outcome.low < 0 or outcome.high > 1:
        check(
            rows, [roles.outcome], lambda y: (y < 0) | (y > 1),
            "outcomes from 0 (b wins) to 1 (a wins), 0.5 for a tie",
            "Recode the column, or give text labels win, loss and tie.", index,
        )  # fmt: skip
    items, tables = _items([looks[roles.a], looks[roles.b]], roles)
    cluster = None
    if roles.cluster:
        look = looks[roles.cluster]
        cluster = Coded(look.values, _numbered(look.levels or [], look.used))
    votes = Votes(
        items, Coded(looks[roles.a].values, tables[0]), Coded(looks[roles.b].values, tables[1]),
        y, _NONE, _NONE, x, design, cluster, len(look.used) if roles.cluster else 0, n,
    )  # fmt: skip
    itself = True
    if not w.size and not counts.size and not len(x) and len(items) <= _DENSE:
        table, odd = _count(votes)
        itself = bool(table.reshape(len(items), len(items), 3)[np.diag_indices(len(items))].any())
        votes = votes if odd else replace(votes, table=table)
    if itself:
        check(
            rows, [roles.a, roles.b], lambda a, b: tables[0][a] == tables[1][b],
            "two different items in each row", "Drop these rows: an item cannot be compared with "
            "itself.", index,
        )  # fmt: skip
    return _checked_covariates(_weighted(votes, w, counts, roles))


def _columns(
    source: Source, roles: Roles, formula: str | None
) -> tuple[dict[str, Look], Design | None, np.ndarray]:
    """Look at the columns of all roles, and encode the covariates."""
    uses: dict[str, list[str]] = {roles.outcome: ["either"]}
    for kind, names in (
        ("numbers", (roles.weights, roles.counts)),
        ("categories", (roles.a, roles.b, roles.cluster)),
    ):
        for name in names:
            if name is not None and kind not in uses.setdefault(name, []):
                uses[name].append(kind)
    source.want(uses)
    parsed = Formulas({} if formula is None else {"covariates": formula}, source)
    named: dict[str, list[str]] = {"numbers": [], "either": [], "categories": []}
    looks: dict[str, Look] = {}
    if source.kind == "memory":  # taken as they lie: codes of many votes are not copied
        ((_, looks),) = source.looks(uses)
        for name, look in looks.items():
            refuse(name, look, False, source.index)
            refuse_tiny(name, look)
        if formula is None:
            return looks, None, np.empty((0, source.n_obs))
    else:
        for name, kinds in uses.items():
            for kind in kinds:
                named[kind].append(name)
    reader, rows = scan(
        source,
        numbers=[*named["numbers"], *parsed.numbers],
        either=[*named["either"], *parsed.either],
        categories=[*named["categories"], *parsed.categories],
    )
    design = parsed.build(rows, reader, source.index).get("covariates")
    parts: list[tuple[list[np.ndarray], np.ndarray]] = []
    wanted = [] if looks else list(uses)
    for _, block in rows.parts():
        m = len(next(iter(block.values())))
        x = np.empty((0, m)) if design is None else _encoded(design, block, m)
        parts.append(([np.asarray(block[name]) for name in wanted], x))
    known = {c.name: c for c in reader.columns}
    for i, name in enumerate(wanted):
        c = known[name]
        levels = None if c.levels is None else list(c.levels)
        values = np.concatenate([columns[i] for columns, _ in parts])
        looks[name] = Look(
            len(values), values, levels, set(levels or ()), low=c.low, high=c.high
        )  # fmt: skip
    return looks, design, np.concatenate([x for _, x in parts], axis=1)


def _numbered(levels: Sequence[Any], used: Any) -> np.ndarray:
    """Numbers of the levels that are used, -1 for the others."""
    there = np.array([level in used for level in levels], dtype=bool)
    return np.where(there, np.cumsum(there) - 1, -1).astype(np.int32)


def _items(looks: Sequence[Look], roles: Roles) -> tuple[tuple[Any, ...], list[np.ndarray]]:
    """Items of both columns, in the user's order where both have one, else sorted; their codes."""
    levels = [level for look in looks for level in look.levels or () if level in look.used]
    items = list(dict.fromkeys(levels))
    if not all(look.ordered for look in looks):
        try:
            items = sorted(items)
        except TypeError as error:
            kinds = sorted({type(item).__name__ for item in items})
            raise DataError(
                f"Expected items of one type in columns {roles.a!r} and {roles.b!r}, but saw "
                f"{' and '.join(kinds)}. Convert both columns to text."
            ) from error
    place = {item: code for code, item in enumerate(items)}
    return tuple(items), [
        np.array([place.get(level, -1) for level in look.levels or ()], np.int32) for look in looks
    ]


def _outcome_of_labels(look: Look, column: str) -> np.ndarray:
    """The outcome that each text label stands for."""
    labels = [str(level).strip().lower() for level in look.levels or ()]
    pairs = zip(labels, look.levels or (), strict=True)
    unknown = [level for label, level in pairs if label not in LABELS and level in look.used]
    if unknown:
        raise DataError(
            f"Expected the labels win, loss and tie (also a, b; left, right; draw) in column "
            f"{column!r}, but {len(unknown)} of its {len(look.used)} labels are others: "
            f"{', '.join(map(repr, unknown[:8]))}. Recode them, or give numbers: 1, 0 and 0.5."
        )
    return np.array([LABELS.get(label, np.nan) for label in labels])


def _weighted(votes: Votes, w: np.ndarray, counts: np.ndarray, roles: Roles) -> Votes:
    """Put weights and counts to the votes; rows without any weight are left out, and counted."""
    if not w.size and not counts.size:
        return votes
    n = len(votes.y)
    if roles.counts and not counts.any():
        raise DataError(
            f"Expected positive values in column {roles.counts!r}, but all {n} are 0. Give at "
            "least some rows a positive value."
        )
    m = counts if counts.size else np.ones(n)
    w = w if w.size else np.ones(n)
    used = (m > 0) & (w > 0)
    if not used.all():
        m, w = m[used], w[used]
        cluster, n_clusters = votes.cluster, votes.n_clusters
        if cluster is not None:
            levels, codes = np.unique(cluster.codes[used], return_inverse=True)
            n_clusters = len(levels)
            cluster = Coded(codes, np.arange(n_clusters, dtype=np.int32))
        votes = replace(
            votes, a=replace(votes.a, values=votes.a.values[used]),
            b=replace(votes.b, values=votes.b.values[used]), y=votes.y[used],
            x=np.ascontiguousarray(votes.x[:, used]), cluster=cluster, n_clusters=n_clusters,
            unused=n - len(w),
        )  # fmt: skip
    n_votes = int(m.sum())
    if roles.weights:
        w = w / (float((m * w).sum()) / n_votes)
    return replace(votes, w=m * w, square=m * w * w, n_votes=n_votes)


def _encoded(design: Design, block: Any, n: int) -> np.ndarray:
    """Covariates of a part, without the intercept, which is the position's."""
    x = np.empty((len(design.slope_terms), n))
    starts = range(0, n, 1 << 15)

    def task(start: int) -> None:
        part = {name: c[start : start + (1 << 15)] for name, c in block.items()}
        m = min(1 << 15, n - start)
        x[:, start : start + m] = design.slopes(part, m)

    for _ in each(task, starts):
        pass
    return x


def _checked_covariates(votes: Votes) -> Votes:
    """Refuse covariates that do not vary: these would be a position effect by another name."""
    if votes.design is None:
        return votes
    terms = votes.design.slope_terms
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
    a, ta, b, tb, y = votes.columns

    def task(s: slice) -> tuple[np.ndarray, int]:
        out = np.zeros(3 * k * k, np.int64)
        return out, K.histogram(a[s], ta, b[s], tb, y[s], k, out)

    total, odd = np.zeros(3 * k * k, np.int64), 0
    for out, others in each(task, _spans(len(y), k)):
        total += out
        odd += others
    return total, odd


def _sum(votes: Votes) -> np.ndarray:
    """Sums of weights and of their squares by (a, b, outcome), shape (2, 3 k^2)."""
    k = len(votes.items)
    a, ta, b, tb, y = votes.columns

    def task(s: slice) -> np.ndarray:
        out = np.zeros((2, 3 * k * k))
        w, square = votes.w[s], votes.square[s]
        K.weighted_histogram(a[s], ta, b[s], tb, y[s], w, square, k, out)
        return out

    total = np.zeros((2, 3 * k * k))
    for out in each(task, _spans(len(y), 2 * k)):
        total += out
    return total


def heap(votes: Votes, position: bool) -> Heaps:
    """Sum votes that are equal; with covariates or shares of a win each row is its own heap."""
    k = len(votes.items)
    rowwise = len(votes.x) > 0 or (votes.table is None and bool((2 * votes.y % 1 != 0).any()))
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
        i, j, y = cell // (3 * k), cell // 3 % k, 0.5 * (cell % 3)
        w, square = table[0, cell].astype(float), table[-1, cell].astype(float)
    else:
        i, j, y = votes.a.codes, votes.b.codes, np.asarray(votes.y, float)
        w = votes.w if votes.w.size else np.ones(len(y))
        square = votes.square if votes.w.size else w
        if not position and not len(votes.x):
            i, j, y = np.minimum(i, j), np.maximum(i, j), np.where(i < j, y, 1.0 - y)
        if not rowwise:
            cell = (i.astype(np.int64) * k + j) * 3 + (2 * y).astype(np.int64)
            cell, place = np.unique(cell, return_inverse=True)
            w, square = np.bincount(place, w), np.bincount(place, square)
            i, j, y = cell // (3 * k), cell // 3 % k, 0.5 * (cell % 3)
    x = votes.x if rowwise else np.empty((0, len(y)))
    if position:
        x = np.vstack([np.ones(len(y)), x])
    key = np.minimum(i, j).astype(np.int64) * k + np.maximum(i, j)
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
        rowwise,
    )  # fmt: skip


def reweighted(votes: Votes, factor: np.ndarray) -> Votes:
    """The same votes with weights times a factor per cluster."""
    assert votes.cluster is not None
    w = factor[votes.cluster.codes]
    if votes.w.size:
        return replace(votes, w=votes.w * w, square=votes.square * w * w)
    return replace(votes, w=w, square=w * w, table=None)
