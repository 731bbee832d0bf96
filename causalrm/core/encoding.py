"""Design matrices without rows, applied block by block.

What is kept of a formula is small: each column of the design is a product of *pieces*, a piece
being a numeric column, one column of a coding table looked up by category, or one column of a
transformed factor such as ``bs(age, df=4)``. A block of rows is encoded from the pieces as a
C-ordered array of shape (p, rows), so that each of its rows is contiguous.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from causalrm.core.blocks import Block, Rows
from causalrm.core.column import Column, first_rows
from causalrm.core.errors import DataError
from causalrm.core.expression import Computed, Expression

Piece = tuple[str, int]  # key of a source of values, and which of its columns


class Design:
    """A design matrix as products of columns, without any rows.

    Attributes
    ----------
    formula : str
    terms : tuple of str
        Names of the columns as formulaic gives them.
    columns : tuple of Column
        The data columns that are read, with levels and ranges.
    products : tuple of tuple of (str, int)
        The pieces whose product is each design column; empty for the intercept.
    codings : dict of str to (str, ndarray)
        For a categorical piece the data column and its table (levels x codes).
    transforms : dict of str to dict
        For a transformed piece its expression's columns, learned state and width.
    """

    def __init__(
        self,
        formula: str,
        terms: Sequence[str],
        columns: Sequence[Column],
        products: Sequence[Sequence[Piece]],
        codings: Mapping[str, tuple[str, np.ndarray]],
        transforms: Mapping[str, dict[str, Any]],
    ):
        self.formula = formula
        self.terms = tuple(terms)
        self.columns = tuple(columns)
        self.products = tuple(tuple((str(k), int(j)) for k, j in p) for p in products)
        self.codings = {k: (c, np.asarray(t, dtype=float)) for k, (c, t) in codings.items()}
        self.transforms = {
            key: {**rule, "state": [_restored(own) for own in rule["state"]]}
            for key, rule in transforms.items()
        }
        self._tables = {k: (c, np.ascontiguousarray(t.T)) for k, (c, t) in self.codings.items()}
        self._expressions = {
            key: Expression(key, rule["columns"]) for key, rule in self.transforms.items()
        }

    def __len__(self) -> int:
        return len(self.terms)

    @property
    def has_intercept(self) -> bool:
        """Whether the first column is the intercept."""
        return bool(self.products) and not self.products[0]

    def encode(self, block: Block, n: int) -> np.ndarray:
        """Encode `n` rows of checked columns as an array of shape (p, n)."""
        out = np.empty((len(self.terms), n))
        cache: dict[str, np.ndarray] = {}
        for row, pieces in zip(out, self.products, strict=True):
            if not pieces:
                row[:] = 1.0
            for i, (key, j) in enumerate(pieces):
                if key in self._tables:
                    column, table = self._tables[key]
                    if column not in cache:
                        cache[column] = np.asarray(block[column], dtype=np.intp)
                    if i == 0:  # codes were checked; "clip" lets numpy write straight to `out`
                        table[j].take(cache[column], out=row, mode="clip")
                        continue
                    piece = table[j].take(cache[column])
                elif key in self.transforms:
                    derived = f"{key}[{j}]"
                    if derived not in block and key not in cache:
                        cache[key] = self._transform(key, block)
                    piece = block[derived] if derived in block else cache[key][j]
                else:
                    piece = block[key]
                if i == 0:
                    row[:] = piece
                else:
                    row *= piece
        return out

    @property
    def slope_terms(self) -> tuple[str, ...]:
        """Names of the columns without the intercept."""
        return self.terms[int(self.has_intercept) :]

    def slopes(self, block: Block, n: int) -> np.ndarray:
        """What `encode` gives without the intercept."""
        return self.encode(block, n)[int(self.has_intercept) :]

    def _transform(self, key: str, block: Block, index: pd.Index | None = None) -> np.ndarray:
        state = self.transforms[key]["state"]
        computed, _ = compute(self._expressions[key], block, state)
        check_finite(self._expressions[key], computed, block, index)
        return computed.values

    def derive(self, rows: Rows, index: pd.Index | None = None) -> None:
        """Compute transformed factors once where the rows are held in memory."""
        if not rows.in_memory:
            return
        for key, rule in self.transforms.items():
            if f"{key}[0]" not in rows.columns:
                values = self._transform(key, rows.columns, index)
                for j in range(rule["width"]):
                    rows.columns[f"{key}[{j}]"] = values[j]

    def to_dict(self) -> dict[str, Any]:
        """Everything that is needed to encode new rows, as plain values."""
        return {
            "formula": self.formula,
            "terms": list(self.terms),
            "columns": [[c.name, c.levels, c.low, c.high] for c in self.columns],
            "products": [[list(p) for p in pieces] for pieces in self.products],
            "codings": {k: [c, t.tolist()] for k, (c, t) in self.codings.items()},
            "transforms": _plain(self.transforms),
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Design:
        """Rebuild a design from `to_dict`, also after `json.dumps`.

        Raises
        ------
        DataError
            When the state is damaged, or asks for a function that formulas may not use.
        """
        try:
            columns = [
                Column(name, None if levels is None else tuple(levels), float(low), float(high))
                for name, levels, low, high in state["columns"]
            ]
            transforms = {
                str(key): {
                    "columns": [str(c) for c in rule["columns"]],
                    "state": list(rule["state"]),
                    "width": int(rule["width"]),
                }
                for key, rule in state["transforms"].items()
            }
            codings = {str(k): (str(c), np.asarray(t)) for k, (c, t) in state["codings"].items()}
            out = cls(
                str(state["formula"]), state["terms"], columns, state["products"], codings,
                transforms,
            )  # fmt: skip
            for key, j in (piece for pieces in out.products for piece in pieces):
                if key in codings:
                    width = codings[key][1].shape[1]
                else:
                    width = transforms[key]["width"] if key in transforms else 1
                if not 0 <= j < width or len(out.products) != len(out.terms):
                    raise ValueError(f"no column {j} of {key!r}")
        except DataError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise DataError(
                f"Expected the description of a design, but it is damaged ({error!r:.200}). Fit "
                "again, or restore the file."
            ) from error
        return out


def _restored(state: Any) -> dict[Any, Any]:
    """What a function learned, as it takes it: JSON has no whole numbers as keys, and no arrays."""
    out: dict[Any, Any] = {}
    for key, value in state.items():
        if isinstance(value, Mapping):
            value = _restored(value)
        elif isinstance(value, list) and value and isinstance(value[0], list):
            value = np.asarray(value, dtype=float)
        out[int(key) if isinstance(key, str) and key.isdecimal() else key] = value
    return out


def _plain(value: Any) -> Any:
    """The same with lists and Python's numbers in place of numpy's."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def compute(
    expression: Expression, block: Block, state: list[dict[Any, Any]] | None
) -> tuple[Computed, list[dict[Any, Any]]]:
    """Compute an expression for a block, or say why that cannot be."""
    try:
        return expression.compute(block, state)
    except Exception as error:  # whatever numpy or formulaic raise for values they cannot take
        columns = ", ".join(repr(c) for c in expression.columns)
        raise DataError(
            f"Expected the term {expression.text!r} to be computable from {columns}, but it "
            f"raised: {error}. Correct the term; for splines, new values must lie within the "
            "bounds of the fit unless extrapolation= is given."
        ) from error


def check_finite(
    expression: Expression, computed: Computed, block: Block, index: pd.Index | None
) -> None:
    """Raise when an expression is not finite for some rows."""
    values = computed.values
    if np.isfinite(values.sum()):
        return
    bad = ~np.isfinite(values).all(axis=0)
    if not bad.any():  # only their sum is too large
        return
    rows = [int(r) for r in np.flatnonzero(bad)[:6]]
    seen = ", ".join(f"{c} = {block[c][rows[0]]:g}" for c in expression.columns)
    where = "" if index is None else f"first rows: {first_rows(rows, index)}; "
    raise DataError(
        f"Expected finite values of the term {expression.text!r}, but {int(bad.sum())} of "
        f"{len(bad)} are not ({where}first at {seen}). Drop these rows, or use a term that is "
        "defined there."
    )
