"""Which column plays which part, and whether its values can."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from causalrm.core.blocks import Rows
from causalrm.core.errors import DataError, IdentificationError
from causalrm.core.frame import check, check_weights

if TYPE_CHECKING:
    from causalrm.survival._support import Counts
    from causalrm.survival.model import Model


@dataclass(frozen=True)
class Roles:
    """Which column plays which part."""

    time: str | None = None
    event: str | None = None
    entry: str | None = None
    lower: str | None = None
    upper: str | None = None
    weights: str | None = None
    cluster: str | None = None

    @property
    def numbers(self) -> list[str]:
        """The numeric columns among the roles."""
        given = (self.time, self.event, self.entry, self.lower, self.upper, self.weights)
        return [c for c in given if c is not None]


def check_roles(roles: Roles) -> None:
    """Refuse combinations of roles that have no meaning."""
    if (roles.lower is None) != (roles.upper is None):
        raise DataError("Expected both lower and upper, or neither, but saw one of them.")
    if (roles.time is None) == (roles.lower is None):
        raise DataError(
            "Expected either time= (with event=) or lower= and upper=, but saw "
            + ("both" if roles.time is not None else "neither")
            + ". Interval-censored data take lower and upper; exact times have equal ends."
        )
    if roles.lower is not None and roles.event is not None:
        raise DataError(
            "Expected no event column beside lower and upper, which say it already: equal ends are "
            "an event, an infinite upper end is right censoring."
        )
    for name, column in vars(roles).items():
        if column is not None and not isinstance(column, str):
            raise DataError(f"Expected a column name for {name}, but saw {column!r}.")


def check_values(rows: Rows, roles: Roles, index: pd.Index | None) -> None:
    """Refuse times, events and weights outside their range."""
    r = roles
    if r.time is not None:
        check(
            rows, [r.time], lambda t: t <= 0, "times above 0",
            "Drop these rows, or add half of the smallest unit if 0 stands for a rounded time.",
            index,
        )  # fmt: skip
    if r.event is not None:
        check(
            rows, [r.event], lambda d: (d != 0) & (d != 1), "0 (censored) or 1 (event)",
            "Recode the column, for example with df[column] == value.", index,
        )  # fmt: skip
    if r.lower is not None and r.upper is not None:
        check(rows, [r.lower], lambda t: t < 0, "times of at least 0", "Correct these rows.", index)
        check(
            rows, [r.upper], lambda t: ~(t > 0), "times above 0 (infinity for right censoring)",
            "Correct these rows.", index,
        )  # fmt: skip
        check(
            rows, [r.lower, r.upper], lambda a, b: a > b, "lower ends up to the upper ends",
            "Swap or correct these rows.", index,
        )  # fmt: skip
    if r.entry is not None:
        check(rows, [r.entry], lambda e: e < 0, "times of at least 0", "Correct these rows.", index)
        late = [r.entry, r.time] if r.time is not None else [r.entry, str(r.upper)]
        check(
            rows, late, lambda e, t: e >= t, "entry before the end of observation",
            "Drop rows that were never under observation.", index,
        )  # fmt: skip
        if r.lower is not None:
            check(
                rows, [r.entry, r.lower], lambda e, a: (a < e) & (a > 0),
                "lower ends at or after entry (or 0)", "Correct these rows.", index,
            )  # fmt: skip
    if r.weights is not None:
        check_weights(rows, r.weights, index)


def check_counts(counts: Counts, n: int, model: Model) -> None:
    """Refuse data without events, or with fewer rows than parameters."""
    k, roles = model.predictors.n_params, model.roles
    if counts.informative <= 0:
        column = roles.event if roles.event is not None else roles.upper
        raise IdentificationError(
            f"Expected at least one event in column {column!r}, but all {n} rows are censored. "
            "Check how events are coded (1 is an event); without events nothing can be estimated."
        )
    if n < k:
        columns = {c.name: c for d in model.predictors.unique for c in d.columns}
        wide = [
            f"column {c.name!r} has {len(c.levels)} levels"
            for c in columns.values()
            if c.levels is not None and len(c.levels) > 10
        ]
        why = f" ({'; '.join(wide)}: numbers read as text?)" if wide else ""
        remedy = "Convert it with pandas.to_numeric, or simplify" if wide else "Simplify"
        raise IdentificationError(
            f"Expected at least as many rows as parameters, but there are {n} rows and {k} "
            f"parameters in {model.names}{why}. {remedy} the formulas."
        )
