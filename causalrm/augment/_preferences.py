"""Preferences as an augmentation reads them, and which of their questions are unrelated."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from causalrm.core.column import first_rows
from causalrm.core.errors import DataError
from causalrm.core.frame import Source
from causalrm.datasets._preference_text import content

_TRIES = 32
_SHARED = 0.2


@dataclass
class Preferences:
    """Lists of one entry per row; the codes and distinct values of the questions."""

    index: pd.Index
    queries: list[Any]
    chosen: list[Any]
    rejected: list[Any]
    cluster: list[int]
    distinct: list[Any]
    status: list[str]
    """Per row "" or what is wrong with it."""
    _words: list[frozenset[str]] = field(default_factory=list)

    @classmethod
    def read(cls, data: Any, query: str, chosen: str, rejected: str, vectors: bool) -> Preferences:
        """Check the columns of any data frame: all there, complete and of the right kind."""
        source = Source(data)
        names = (query, chosen, rejected)
        for role, name in zip(("query", "chosen", "rejected"), names, strict=True):
            source.want([name], f"{role}=")
        values: dict[str, list[Any]] = {name: [] for name in names}
        for part in source.parts():
            for name in names:
                values[name] += part[name].to_list()
        index = source.index if source.kind == "memory" else pd.RangeIndex(len(values[query]))
        for name in names:
            _complete(name, values[name], index)
        if vectors:
            for name in names[1:]:
                values[name] = _vectors(name, values[name], index)
            if len({len(v) for name in names[1:] for v in values[name]}) > 1:
                raise DataError(f"The vectors in {chosen!r} and {rejected!r} must have one length.")
        else:
            for name in names:
                _texts(name, values[name], index)
            empty = [i for i, q in enumerate(values[query]) if not q.strip()]
            if empty:
                raise DataError(
                    f"Expected a question in every row of column {query!r}, but {len(empty)} of "
                    f"{len(index)} are empty (first rows: {first_rows(empty, index)}). Drop them."
                )
        codes, distinct = pd.factorize(pd.Series(values[query], dtype=object))
        pairs = zip(values[chosen], values[rejected], strict=True)
        return cls(
            index,
            values[query],
            values[chosen],
            values[rejected],
            codes.tolist(),
            list(distinct),
            [compare(a, b) for a, b in pairs],
        )

    def look_for_unrelated(self, name: str) -> None:
        """Need two questions at least, and learn what sets them apart."""
        if len(self.distinct) < 2:
            raise DataError(
                f"Expected several questions in column {name!r}, but all {len(self.queries)} rows "
                f"have the same ({self.distinct[0]!r:.80}): there is no unrelated question to put "
                "beside its answers. Give preferences on several questions, or neutrals that need "
                "no other question ('paraphrase', 'aligned', or none)."
            )
        found = [content(q) if isinstance(q, str) else frozenset() for q in self.distinct]
        counts = Counter(word for own in found for word in own)
        common = {w for w, n in counts.items() if n > max(2, len(found) / 10)}
        self._words = [own - common for own in found]

    def unrelated(self, code: int, rng: np.random.Generator) -> int:
        """Draw the code of a question that is unrelated to another."""
        own = self._words[code]
        nearest = (2.0, -1)
        for _ in range(_TRIES):
            drawn = int(rng.integers(len(self.distinct) - 1))
            drawn += drawn >= code
            other = self._words[drawn]
            shared = len(own & other) / max(1, min(len(own), len(other)))
            nearest = min(nearest, (shared, drawn))
            if shared <= _SHARED:
                break
        return nearest[1]  # where all are akin, the least so of those that were drawn


def compare(a: Any, b: Any) -> str:
    """Say what is wrong with a pair of answers: "identical", "empty" or nothing ("")."""
    if isinstance(a, np.ndarray):
        return "identical" if np.array_equal(a, b) else ""
    if not a.strip() or not b.strip():
        return "empty"
    return "identical" if a.split() == b.split() else ""


def _complete(name: str, values: list[Any], index: pd.Index) -> None:
    missing = [
        i for i, v in enumerate(values)
        if v is None or v is pd.NA or v is pd.NaT or (isinstance(v, float) and v != v)
    ]  # fmt: skip
    if missing:
        raise DataError(
            f"Column {name!r} has {len(missing)} missing values in {len(values)} rows (first rows: "
            f"{first_rows(missing, index)}). Drop these rows: dropna(subset=[{name!r}])."
        )


def _texts(name: str, values: list[Any], index: pd.Index) -> None:
    bad = [i for i, v in enumerate(values) if not isinstance(v, str)]
    if bad:
        raise DataError(
            f"Expected text in column {name!r}, but {len(bad)} of {len(values)} rows hold "
            f"{type(values[bad[0]]).__name__} (first rows: {first_rows(bad, index)}). Convert it, "
            "or give an oracle for vectors."
        )


def _vectors(name: str, values: list[Any], index: pd.Index) -> list[np.ndarray]:
    out, bad = [], []
    for i, value in enumerate(values):
        try:
            vector = np.asarray(value, dtype=float)
            good = vector.ndim == 1 and bool(np.isfinite(vector).all())
        except (TypeError, ValueError):
            good = False
        if good:
            out.append(vector)
        else:
            bad.append(i)
    if bad:
        raise DataError(
            f"Expected 1-d vectors of finite numbers in column {name!r}, as the oracle works on "
            f"vectors, but {len(bad)} of {len(values)} rows hold something else (first rows: "
            f"{first_rows(bad, index)})."
        )
    return out
