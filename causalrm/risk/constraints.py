"""What is known besides the rows: the prevalence of the outcome, and what testers look at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from causalrm.core.design import Design
from causalrm.core.errors import DataError


class Target(NamedTuple):
    """One prevalence to meet: of the rows of one level of `by`, or of all rows (level None)."""

    level: Any
    value: float
    se: float | None
    beta: tuple[float, float] | None


def _given(item: Any) -> str:
    """The call that makes `item`, without defaults: what a summary has room for."""
    values = {f.name: getattr(item, f.name) for f in fields(item)}
    kept = [f"{f.name}={values[f.name]!r}" for f in fields(item) if values[f.name] != f.default]
    return f"{type(item).__name__}({', '.join(kept)})"


@dataclass(frozen=True, repr=False)
class Prevalence:
    """The prevalence of the outcome in a population is known.

    The implied prevalence, the (weighted) mean of the rows' risk, gets a density: normal around
    `value` with `se`, or Beta; with `hard` it equals `value` exactly.

    Parameters
    ----------
    value : float or dict, optional
        In (0, 1); with `by` a dict from level to prevalence. Of a continuous outcome: its mean.
    se : float or dict, optional
        Standard error of `value`. By default the binomial standard error of the sample: what a
        prevalence known exactly for the population says of a sample of this size. A smaller one
        claims more than that, and warns.
    by : str, optional
        Column of groups, each with its own prevalence.
    weights : str, optional
        Column of weights that turn the rows into the population to which `value` belongs.
    hard : bool, default False
        Solve the intercept of risk so that the prevalence holds exactly, in every draw.
    beta : (float, float) or dict, optional
        Instead of `value` and `se`: the shapes of a Beta density. A survey that found k cases
        among n people is ``(k + 1, n - k + 1)``.

    Raises
    ------
    DataError
        When the values contradict one another or lie outside their range.

    References
    ----------
    Balachandar, Garg, Pierson (2024), Domain constraints improve risk prediction when outcome
    data is missing, arXiv 2312.03878.

    Examples
    --------
    >>> import causalrm as crm
    >>> crm.Prevalence(0.021, se=0.002)
    Prevalence(value=0.021, se=0.002)
    """

    value: float | Mapping[Any, float] | None = None
    se: float | Mapping[Any, float] | None = None
    by: str | None = None
    weights: str | None = None
    hard: bool = False
    beta: tuple[float, float] | Mapping[Any, tuple[float, float]] | None = None

    def __repr__(self) -> str:
        return _given(self)

    def __post_init__(self) -> None:
        for name in ("value", "se"):
            if isinstance(getattr(self, name), np.floating):
                object.__setattr__(self, name, float(getattr(self, name)))
        if (self.value is None) == (self.beta is None):
            raise DataError(
                "Expected a prevalence as value (with se=) or as beta=(a, b), but saw "
                f"{'neither' if self.value is None else 'both'}. Give one of them."
            )
        if self.se is not None and (self.hard or self.beta is not None):
            raise DataError(
                "Expected se only beside a value that is not hard: a hard prevalence has no error, "
                "and a Beta has its own. Remove one of them."
            )
        if self.hard and self.beta is not None:
            raise DataError("Expected a value for a hard prevalence, but saw a Beta. Give a value.")
        grouped = isinstance(self.value if self.beta is None else self.beta, Mapping)
        if grouped != (self.by is not None):
            raise DataError(
                "Expected one prevalence per level of the column by=, as a dict, or one number "
                f"without by=, but saw value={self.value!r}, beta={self.beta!r}, by={self.by!r}."
                " Give both or neither."
            )
        if grouped and self.hard:
            raise DataError(
                "Expected one number for a hard prevalence, because one intercept meets one "
                "target. Give the groups' prevalences a standard error instead."
            )
        for target in self.targets():
            _check_target(target)

    def targets(self) -> list[Target]:
        """The prevalences one by one."""
        source: Any = self.value if self.beta is None else self.beta
        items = list(source.items()) if isinstance(source, Mapping) else [(None, source)]
        out = []
        for level, given in items:
            se = self.se[level] if isinstance(self.se, Mapping) and level in self.se else self.se
            if isinstance(se, Mapping):
                raise DataError(
                    f"Expected a standard error for each level of {self.by!r}, but there is none "
                    f"for {level!r}. Give one, or a single number for all."
                )
            if self.beta is None:
                out.append(Target(level, given, se, None))
                continue
            try:
                a, b = (float(x) for x in given)
            except (TypeError, ValueError) as error:
                raise DataError(
                    f"Expected beta as two shapes (a, b), but saw {given!r}. Give two numbers."
                ) from error
            mean = a / (a + b) if a + b > 0 else math.nan
            out.append(Target(level, mean, None, (a, b)))
        return out


def _check_target(target: Target) -> None:
    checks = [("a prevalence", target.value, -math.inf), ("se", target.se, 0.0)]
    if target.beta is not None:
        checks += [
            (f"shape {name} of beta", x, 0.0) for name, x in zip("ab", target.beta, strict=True)
        ]
    for name, x, low in checks:
        if x is None and name == "se":
            continue
        try:
            good = low < x < math.inf  # type: ignore[operator]
        except TypeError:
            good = False
        if not good or isinstance(x, bool):
            bound = "" if low == -math.inf else " above 0"
            where = "" if target.level is None else f" of {target.level!r}"
            raise DataError(
                f"Expected {name}{where} to be a finite number{bound}, but saw {x!r}. Correct it."
            )


@dataclass(frozen=True, repr=False)
class Expertise:
    """At equal risk, testing depends on some variables only.

    The coefficients of testing are exactly 0 on every column of the formula that involves another
    variable; the intercept of testing is always free.

    Parameters
    ----------
    free : list of str, optional
        Variables that may affect testing beyond risk; all others may not.
    exclude : list of str, optional
        Instead: variables that affect testing through risk alone.
    soft : float, optional
        Standard deviation of a normal prior around 0, on standardised columns, in place of
        exactly 0: a way to look at whether the data object.

    Raises
    ------
    DataError
        When both or neither list is given.

    Examples
    --------
    >>> import causalrm as crm
    >>> crm.Expertise(free=["age"])
    Expertise(free=['age'])
    """

    free: Sequence[str] | None = None
    exclude: Sequence[str] | None = None
    soft: float | None = None

    def __repr__(self) -> str:
        return _given(self)

    def __post_init__(self) -> None:
        if (self.free is None) == (self.exclude is None):
            raise DataError(
                "Expected either free= or exclude=, the names of variables, but saw "
                f"{'neither' if self.free is None else 'both'}. Give one of them."
            )
        names = self.names
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise DataError(f"Expected a list of names of variables, but saw {names!r}. Give one.")
        soft = self.soft
        if soft is not None and not (isinstance(soft, (int, float)) and 0 < soft < math.inf):
            raise DataError(f"Expected soft to be a number above 0, but saw {soft!r}. Correct it.")

    @property
    def names(self) -> Sequence[str]:
        """The variables given."""
        return self.free if self.free is not None else self.exclude or ()

    def masked(self, design: Design) -> np.ndarray:
        """Which columns of a design of testing are held at 0, shape (q,).

        A column is free when all its variables are: an interaction of a free with an excluded
        variable is excluded.

        Raises
        ------
        DataError
            When a name is no variable of the formula.
        """
        known = {column.name for column in design.columns}
        unknown = [name for name in self.names if name not in known]
        if unknown:
            raise DataError(
                f"Expected variables of the testing formula {design.formula!r} in Expertise, but "
                f"{unknown} are not among {sorted(known)}. Correct the names; they are those of "
                "columns of the data, without C(...) or bs(...)."
            )
        named = set(self.names)
        out = np.zeros(len(design), dtype=bool)
        for j, pieces in enumerate(design.products):
            used = {v for key, _ in pieces for v in piece_columns(design, key)}
            out[j] = bool(used - named) if self.free is not None else bool(used & named)
        return out


def piece_columns(design: Design, key: str) -> list[str]:
    """The columns of the data that a piece of a design is computed from."""
    if key in design.codings:
        return [design.codings[key][0]]
    if key in design.transforms:
        return list(design.transforms[key]["columns"])
    return [key]


def split_constraints(constraints: Any) -> tuple[tuple[Prevalence, ...], Expertise | None]:
    """Check a list of constraints: prevalences, and at most one expertise."""
    items = [] if constraints is None else constraints
    if isinstance(items, (Prevalence, Expertise)):
        items = [items]
    if not isinstance(items, Sequence) or not all(
        isinstance(item, (Prevalence, Expertise)) for item in items
    ):
        raise DataError(
            "Expected constraints to be a list of Prevalence and Expertise, but saw "
            f"{constraints!r}. Give such a list."
        )
    expertise = [item for item in items if isinstance(item, Expertise)]
    if len(expertise) > 1:
        raise DataError(
            f"Expected at most one Expertise, but saw {len(expertise)}. Merge their variables."
        )
    prevalences = tuple(item for item in items if isinstance(item, Prevalence))
    if sum(item.hard for item in prevalences) > 1:
        raise DataError(
            "Expected at most one hard prevalence, because one intercept meets one target. Give "
            "the others a standard error."
        )
    return prevalences, expertise[0] if expertise else None
