"""Preferences and augmented pairs, read and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from causalrm.core.column import first_rows
from causalrm.core.errors import CausalRMWarning, DataError, warn
from causalrm.core.frame import Source
from causalrm.text import Features, texts

type Matrix = Any  # an ndarray or a scipy CSR array

COLUMNS = (
    "parent", "cluster", "query", "answer_a", "answer_b", "target", "kind", "attribute", "status",
)  # fmt: skip
FOREIGN = "irrelevant_query"  # the kind whose query is not the one its answers were given to
_OWN = ("causal", "paraphrase", "aligned")  # kinds that keep the query of their parent


@dataclass(frozen=True)
class Pairs:
    """Pairs of answers with their targets.

    Attributes
    ----------
    queries, a, b : list
        Texts, or vectors as answers.
    target : ndarray of shape (n,)
        1: a is better; 0.5: a tie.
    cluster : ndarray of shape (n,) of int
        Codes of the parents' queries, in the order of their sorted values.
    kind, attribute, status : ndarray of shape (n,) of str
    used : ndarray of shape (n,) of bool
        Rows that enter a fit: generated without fault, and kept by a filter.
    good : ndarray of shape (n,) of bool
        Rows generated without fault.
    """

    queries: list[Any]
    a: list[Any]
    b: list[Any]
    target: np.ndarray
    cluster: np.ndarray
    kind: np.ndarray
    attribute: np.ndarray
    status: np.ndarray
    used: np.ndarray
    good: np.ndarray

    def __len__(self) -> int:
        return len(self.target)

    @property
    def tie(self) -> np.ndarray:
        """Whether the pair is neutral."""
        return np.asarray(self.target == 0.5)

    def take(self, rows: np.ndarray) -> Pairs:
        """Some of the rows."""
        index = np.flatnonzero(rows)
        queries, a, b = ([v[i] for i in index] for v in (self.queries, self.a, self.b))
        arrays = (
            self.target, self.cluster, self.kind, self.attribute, self.status, self.used, self.good
        )  # fmt: skip
        return Pairs(queries, a, b, *(array[index] for array in arrays))

    @staticmethod
    def joined(parts: Sequence[Pairs]) -> Pairs:
        """Rows of several sets below one another."""
        queries, a, b = (
            [v for part in parts for v in getattr(part, name)] for name in ("queries", "a", "b")
        )
        names = ("target", "cluster", "kind", "attribute", "status", "used", "good")
        arrays = (np.concatenate([getattr(part, name) for part in parts]) for name in names)
        return Pairs(queries, a, b, *arrays)

    def differences(self, encoder: Any) -> Matrix:
        """Features of a minus features of b."""
        n = len(self)
        x = encoder.transform([*self.a, *self.b], [*self.queries, *self.queries])
        return x[:n] - x[n:]

    def counts(self) -> pd.DataFrame:
        """Rows by kind: given, generated without fault, used; and how many have which status."""
        frame = pd.DataFrame({"kind": self.kind, "rows": 1, "ok": self.good, "used": self.used})
        out = frame.groupby("kind", sort=False).sum().astype(int)
        status = pd.crosstab(pd.Series(self.kind, name="kind"), pd.Series(self.status))
        return out.join(status.drop(columns="ok", errors="ignore")).reset_index()


def _column(source: Source, name: str, text: bool) -> list[Any]:
    """A complete column as a list; of texts that are not blank, with `text`."""
    values = [value for part in source.parts() for value in part[name].to_list()]
    index = source.index if source.kind == "memory" else None
    missing = [
        i
        for i, v in enumerate(values)
        if v is None or v is pd.NA or (isinstance(v, float) and v != v)
    ]
    if missing:
        raise DataError(
            f"Expected complete values in column {name!r}, but {len(missing)} of {len(values)} are "
            f"missing (first rows: {first_rows(missing[:6], index)}). Drop these rows with "
            f"df.dropna(subset=[{name!r}])."
        )
    if text:
        texts(values, f"column {name!r}", index)
        blank = [i for i, value in enumerate(values) if not value.strip()]
        if blank:
            raise DataError(
                f"Expected answers and queries that are not empty, but {len(blank)} of "
                f"{len(values)} texts in column {name!r} are (first rows: "
                f"{first_rows(blank[:6], index)}). Drop these rows, or correct the texts."
            )
    return values


def column_values(
    data: Any, query: str, answer: str, text: bool
) -> tuple[list[Any], list[Any], pd.Index]:
    """Queries, answers and index of a data frame."""
    source = Source(data)
    source.want([query, answer])
    return _column(source, query, text), _column(source, answer, text), source.index


def same(one: Any, other: Any) -> bool:
    """Whether two answers are the same."""
    return one is other or bool(np.array_equal(np.asarray(one), np.asarray(other)))


def read(
    data: Any,
    augmented: Any,
    roles: dict[str, str],
    encoder: Any,
    log: list[str],
) -> tuple[Pairs, Pairs | None]:
    """Read preferences and augmented pairs, with clusters in common.

    Parameters
    ----------
    data : data frame
        Preferences.
    augmented : data frame or None
        As `CausalAugmenter.generate` gives it, `ConfidenceFilter` marked or not.
    roles : dict
        Columns of `data` for query, chosen and rejected.
    encoder : encoder
        Decides whether answers must be text.
    log : list of str
        Takes the warnings.

    Raises
    ------
    DataError
        When columns are missing, incomplete, empty or of the wrong kind, when there is one query
        only, or when augmented pairs belong to none of the preferences.
    """
    text = not isinstance(encoder, Features)
    source = Source(data)
    source.want(roles.values())
    queries, a, b = (_column(source, roles[r], text) for r in ("query", "chosen", "rejected"))
    n = len(queries)
    identical = [i for i in range(n) if same(a[i], b[i])]
    if identical:
        index = source.index if source.kind == "memory" else None
        warn(
            f"{len(identical)} of {n} pairs have the same answer chosen and rejected (first rows: "
            f"{first_rows(identical[:6], index)}). They say nothing about the reward; they are "
            "kept and counted.",
            CausalRMWarning,
            log,
        )
    try:
        codes, levels = pd.factorize(pd.Series(queries), sort=True)
    except TypeError as error:
        raise DataError(
            f"Expected queries of one type in column {roles['query']!r}: {error}. Convert them to "
            "text."
        ) from error
    if len(levels) < 2:
        raise DataError(
            f"Expected at least two queries in column {roles['query']!r}, but all {n} rows have "
            "the same. Nothing can be said about other queries; add pairs of other queries."
        )
    everywhere = np.ones(n, dtype=bool)
    preferences = Pairs(
        queries, a, b, np.ones(n), codes, np.full(n, "preference", dtype=object),
        np.full(n, "", dtype=object), np.full(n, "ok", dtype=object), everywhere, everywhere,
    )  # fmt: skip
    if augmented is None:
        return preferences, None
    place = {level: i for i, level in enumerate(levels)}
    return preferences, read_augmented(augmented, text, place, source.index, codes)


def read_augmented(
    augmented: Any,
    text: bool,
    place: dict[Any, int] | None = None,
    index: pd.Index | None = None,
    codes: np.ndarray | None = None,
) -> Pairs:
    """Read augmented pairs; with `place`, the code of each query, in the preferences' clusters."""
    source = Source(augmented)
    source.want(COLUMNS, "augmented pairs")
    if marked := "keep" in source.names:
        source.want(["keep"])
    columns = {
        name: [value for part in source.parts() for value in part[name].to_list()]
        for name in (*COLUMNS, *(["keep"] if marked else []))
    }
    status = np.array([str(value) for value in columns["status"]], dtype=object)
    good = status == "ok"
    kind = np.array([str(value) for value in columns["kind"]], dtype=object)
    attribute = np.array([str(value or "") for value in columns["attribute"]], dtype=object)
    for name in ("query", "answer_a", "answer_b"):
        rows = [value for value, fine in zip(columns[name], good, strict=True) if fine]
        if text and rows:
            texts(rows, f"column {name!r} of the augmented pairs with status 'ok'")
    target = np.array([np.nan if v is None else v for v in columns["target"]], dtype=float)
    wrong = np.flatnonzero(good & (target != 1.0) & (target != 0.5))
    if len(wrong):
        raise DataError(
            f"Expected target 1 (answer_a is better) or 0.5 (a tie), but {len(wrong)} of "
            f"{len(target)} augmented pairs have others (first rows: "
            f"{first_rows(wrong[:6].tolist(), source.index)}). Correct them; swap the answers "
            "where answer_b is better."
        )
    cluster = pd.factorize(pd.Series(columns["cluster"]), sort=True)[0]
    if place is not None:
        cluster = _joined(columns, cluster, kind, place, index, codes)
    used = good & np.array(columns["keep"], dtype=bool) if marked else good
    return Pairs(
        columns["query"], columns["answer_a"], columns["answer_b"], target, cluster, kind,
        attribute, status, used, good,
    )  # fmt: skip


def _joined(
    columns: dict[str, list[Any]],
    cluster: np.ndarray,
    kind: np.ndarray,
    place: dict[Any, int],
    index: pd.Index | None,
    codes: np.ndarray | None,
) -> np.ndarray:
    """Clusters of augmented pairs as codes of the preferences' queries.

    By the query itself, where a pair of the cluster keeps that of its parent; else by the label
    of the parent.
    """
    known: dict[int, int] = {}
    for code, query, k in zip(cluster, columns["query"], kind, strict=True):
        if k in _OWN and query in place:
            known[int(code)] = place[query]
    left = [i for i, code in enumerate(cluster) if int(code) not in known]
    if left and index is not None and codes is not None and index.is_unique:
        rows = index.get_indexer(pd.Index([columns["parent"][i] for i in left]))
        for i, row in zip(left, rows, strict=True):
            if row >= 0:
                known[int(cluster[i])] = int(codes[row])
    lost = [i for i, code in enumerate(cluster) if int(code) not in known]
    if lost:
        raise DataError(
            f"Expected augmented pairs made from these preferences, but {len(lost)} of "
            f"{len(cluster)} belong to none of their queries or row labels (first rows: "
            f"{first_rows(lost[:6], None)}). Give the preferences that were augmented, with their "
            "index."
        )
    return np.array([known[int(code)] for code in cluster])


def stack(parts: Sequence[Matrix]) -> Matrix:
    """Rows of several matrices below one another."""
    if sparse.issparse(parts[0]):
        return sparse.csr_array(sparse.vstack(parts, format="csr"))
    return np.vstack(parts)


def dense_enough(d: Matrix) -> Matrix:
    """Rows with many entries as a dense matrix, whose products are faster then."""
    if sparse.issparse(d) and d.nnz > 0.08 * d.shape[0] * d.shape[1] and d.shape[1] <= 2_000:
        return np.asarray(d.toarray())
    return d
