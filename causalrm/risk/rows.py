"""From a data frame to the arrays of a fit: roles, designs, and columns of one scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalrm.core.column import first_rows, look_at, refuse
from causalrm.core.design import Design, encode_new, formula_text, prepare
from causalrm.core.errors import DataError, IdentificationError
from causalrm.core.frame import Source, check
from causalrm.core.linear import Predictors


@dataclass(frozen=True, eq=False)
class Scaling:
    """How the columns of a design were centred and scaled; the first is the intercept.

    Attributes
    ----------
    shift, scale : ndarray of shape (p,)
        0 and 1 for the intercept.
    """

    shift: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, weights: np.ndarray) -> Scaling:
        """Means of all columns, and sds of those that are not 0/1."""
        w = weights / weights.sum()
        shift = w @ x
        scale = np.sqrt(np.clip(w @ (x - shift) ** 2, 0.0, None))
        binary = ((x == 0) | (x == 1)).all(axis=0)
        scale = np.where(binary | ~(scale > 0), 1.0, scale)
        shift[0], scale[0] = 0.0, 1.0
        return cls(shift, scale)

    def columns(self, x: np.ndarray) -> np.ndarray:
        """The standardised columns."""
        return np.asarray((x - self.shift) / self.scale)

    def raw(self, beta: np.ndarray) -> np.ndarray:
        """Coefficients on the scale of the data, from those of the standardised columns."""
        out = np.asarray(beta / self.scale)
        out[..., 0] -= out @ self.shift
        return out

    def standard(self, beta: np.ndarray) -> np.ndarray:
        """Coefficients of the standardised columns, from those on the scale of the data."""
        out = np.asarray(beta * self.scale)
        out[..., 0] += beta @ self.shift
        return out


@dataclass(frozen=True, eq=False)
class Roles:
    """Which column plays which part."""

    tested: str
    outcome: str
    weights: str | None = None
    group: str | None = None
    decider: str | None = None

    def given(self) -> dict[str, str]:
        """The roles that have a column."""
        return {name: column for name, column in vars(self).items() if column is not None}


@dataclass(frozen=True, eq=False)
class Sample:
    """The rows of a fit as arrays, one entry per row of the data.

    Attributes
    ----------
    columns : dict of str to ndarray
        Every column that was read.
    risk, testing : Design
    x, w : ndarray of shape (n, p), (n, q)
        The designs, all columns.
    tested : ndarray of bool
    y : ndarray
        NaN where not tested, whatever the data have there.
    weights : ndarray
        Of mean one.
    """

    columns: dict[str, np.ndarray]
    risk: Design
    testing: Design
    x: np.ndarray
    w: np.ndarray
    tested: np.ndarray
    y: np.ndarray
    weights: np.ndarray


def read_outcome(
    source: Source, outcome: str, tested: np.ndarray, tested_name: str, binary: bool = True
) -> np.ndarray:
    """Read an outcome that has a meaning on tested rows only; NaN elsewhere.

    Raises
    ------
    DataError
        When it is missing, infinite, or not 0 or 1, on a row that was tested.
    """
    source.want([outcome], "the outcome")
    values = source.frame[outcome]
    if not len(values.drop_nulls()):
        raise DataError(
            f"Expected outcomes of the tested in column {outcome!r}, but all {len(values)} values "
            "are missing. Check the column."
        )
    look = look_at(outcome, values, ["numbers"])
    y = np.where(tested, look.values.astype(float), np.nan)
    missing = np.flatnonzero(tested & np.isnan(y))
    if len(missing):
        raise DataError(
            f"Expected an outcome in column {outcome!r} for each of the {int(tested.sum())} tested "
            f"rows, but {len(missing)} are missing (first rows: "
            f"{first_rows([int(r) for r in missing[:6]], source.index)}). Set {tested_name!r} to 0 "
            "where no result is known, or drop these rows."
        )
    seen = look_at(outcome, values.filter(tested.tolist()), ["numbers"])
    refuse(outcome, seen, False, source.index[tested])
    wrong = np.flatnonzero(tested & (y != 0) & (y != 1)) if binary else np.empty(0, int)
    if len(wrong):
        raise DataError(
            f"Expected 0 or 1 in column {outcome!r} on the {int(tested.sum())} tested rows, but "
            f"{len(wrong)} differ (first rows: "
            f"{first_rows([int(r) for r in wrong[:6]], source.index)}). Recode the column, for "
            "example with df[column] == value."
        )
    return np.asarray(y, dtype=float)


def in_memory(data: Any) -> Source:
    """Open a data frame held in memory."""
    source = Source(data)
    if source.kind != "memory":
        raise DataError(
            "Expected a data frame held in memory, because every draw of the posterior reads all "
            "rows, but saw a source that is read in parts. Convert it, for example with "
            "pandas.read_parquet(path), or .compute() for Dask."
        )
    return source


def read(
    data: Any, roles: Roles, formulas: dict[str, str], numbers: Sequence[str]
) -> tuple[Source, Sample]:
    """Read and check the rows of a fit.

    Parameters
    ----------
    data : data frame
    roles : Roles
    formulas : dict
        Right-hand sides of risk and testing.
    numbers : sequence of str
        Further numeric columns, of weights.
    """
    for name, column in roles.given().items():
        if not isinstance(column, str):
            raise DataError(f"Expected a column name for {name}, but saw {column!r}. Give one.")
    in_memory(data)
    weights = [roles.weights] if roles.weights is not None else []
    source, rows, designs, _ = prepare(data, formulas, numbers=[roles.tested, *weights, *numbers])
    index = source.index
    check(
        rows, [roles.tested], lambda t: (t != 0) & (t != 1), "1 (tested) or 0 (not tested)",
        "Recode the column, for example with df[column] == value.", index,
    )  # fmt: skip
    for name in [*weights, *numbers]:
        check(
            rows, [name], lambda w: w < 0, "weights of at least 0",
            "Drop these rows or correct the weights.", index,
        )  # fmt: skip
        if not rows.columns[name].sum() > 0:
            raise DataError(
                f"Expected positive weights in column {name!r}, but all {rows.n_obs} are 0. Give "
                "at least some rows a weight."
            )
    tested = rows.columns[roles.tested] == 1
    y = read_outcome(source, roles.outcome, tested, roles.tested)
    for role, design in designs.items():
        if not design.has_intercept:
            raise DataError(
                f"Expected an intercept in the formula of {role}, but {design.formula!r} has none. "
                "Remove the 0 or -1."
            )
    Predictors(list(designs.values()), [False] * len(designs)).standardise(rows, list(designs))
    n = rows.n_obs
    w = rows.columns[weights[0]].astype(float) if weights else np.ones(n)
    x = {role: _encode(design, rows.columns, n) for role, design in designs.items()}
    return source, Sample(
        rows.columns, designs["risk"], designs["testing"], x["risk"], x["testing"], tested, y,
        w / w.mean(),
    )  # fmt: skip


def _encode(design: Design, columns: dict[str, np.ndarray], n: int) -> np.ndarray:
    return np.ascontiguousarray(design.encode(columns, n).T)


def read_new(data: Any, risk: Design, testing: Design) -> tuple[Source, np.ndarray, np.ndarray]:
    """The designs of new rows."""
    source, rows = encode_new(data, [risk, testing])
    n = rows.n_obs
    return source, _encode(risk, rows.columns, n), _encode(testing, rows.columns, n)


def level_codes(source: Source, name: str, levels: Sequence[Any], role: str) -> np.ndarray:
    """Codes of a column among known levels."""
    source.want([name], role)
    look = look_at(name, source.frame[name], ["categories"])
    refuse(name, look, False, source.index)
    codes = look.codes(levels)
    bad = np.flatnonzero(codes < 0)
    if len(bad):
        raise DataError(
            f"Expected the levels {list(levels)[:20]} in column {name!r}, but {len(bad)} of "
            f"{len(codes)} rows have others (first rows: "
            f"{first_rows([int(r) for r in bad[:6]], source.index)}). Drop these rows, or fit "
            "again with them."
        )
    return codes


def check_identified(sample: Sample, roles: Roles) -> None:
    """Refuse data in which nothing, or everything, was tested or positive."""
    n, tested = len(sample.tested), int(sample.tested.sum())
    if tested in (0, n):
        what, why = (
            ("none is", "without outcomes there is no risk to learn. Check how tests are coded")
            if tested == 0
            else ("all are", "there is nothing to recover. Use an ordinary logistic regression")
        )
        raise IdentificationError(
            f"Expected tested and untested rows in column {roles.tested!r}, but of {n} rows {what} "
            f"tested: {why}."
        )
    positive = int(np.nansum(sample.y))
    if positive in (0, tested):
        raise IdentificationError(
            f"Expected outcomes of both kinds in column {roles.outcome!r}, but {positive} of the "
            f"{tested} tested rows are positive. Check how outcomes are coded (1 is positive); "
            "without both nothing can be estimated."
        )


def formulas_of(risk: Any, testing: Any) -> dict[str, str]:
    """The two right-hand sides; testing is that of risk by default."""
    return {
        "risk": formula_text(risk, "risk"),
        "testing": formula_text(risk if testing is None else testing, "testing"),
    }
