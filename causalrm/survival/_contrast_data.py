"""Rows, arms and covariates of a standardised contrast."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from formulaic import Formula

from causalrm.core.blocks import Block, Rows
from causalrm.core.design import Design, encode_new, formula_text
from causalrm.core.errors import DataError, IdentificationError
from causalrm.core.expression import Expression
from causalrm.core.frame import Source
from causalrm.survival import _support as support
from causalrm.survival.model import Model
from causalrm.survival.predict import Points
from causalrm.survival.result import SurvivalResult

_MOST_LEVELS = 20
_NAME = re.compile(r"[A-Za-z_]\w*$")


@dataclass(frozen=True)
class Treatment:
    """A column that is set to each of its levels in turn, the reference first.

    Attributes
    ----------
    name : str
    levels : tuple
        As in the data.
    values : tuple
        As in a block of checked columns: numbers, or codes of categories.
    labels : tuple of str
    """

    name: str
    levels: tuple[Any, ...]
    values: tuple[Any, ...]
    labels: tuple[str, ...]

    def arms(self, column: np.ndarray) -> np.ndarray:
        """Place of each row's level among `values`."""
        values = np.asarray(self.values, dtype=float)
        order = np.argsort(values)
        return np.asarray(order[np.searchsorted(values[order], np.asarray(column, dtype=float))])

    def assign(self, block: Block, designs: Sequence[Design], arm: int, n: int) -> Block:
        """A block with the treatment of everybody set to one level."""
        out = dict(block)
        for design in designs:  # what was computed from the treatment beforehand no longer holds
            for key, rule in design.transforms.items():
                if self.name in rule["columns"]:
                    for j in range(rule["width"]):
                        out.pop(f"{key}[{j}]", None)
        out[self.name] = np.full(n, self.values[arm])
        return out


@dataclass(frozen=True)
class Population:
    """The rows over which a contrast is averaged.

    Attributes
    ----------
    frame : pandas.DataFrame
        The columns that are needed, as they came.
    rows : Rows
        The same, checked and coded as in the fit.
    treated : bool
        Whether the data have the column of the treatment.
    fitted : bool
        Whether they are the rows of the fit, by their number and outcomes.
    n_clusters : int
        0 where rows are independent.
    clusters : ndarray of shape (n,) or None
        Cluster of each row.
    """

    frame: pd.DataFrame
    rows: Rows
    treated: bool
    fitted: bool
    n_clusters: int
    clusters: np.ndarray | None


def fit_columns(result: SurvivalResult) -> dict[str, Any]:
    """The columns of a fit's formulas."""
    return {c.name: c for d in result.model.predictors.unique for c in d.columns}


def open_population(
    result: SurvivalResult, data: Any, treatment: str, extra: Sequence[str]
) -> Population:
    """Read the rows; `extra` names further columns to keep in the frame."""
    columns = fit_columns(result)
    if not isinstance(treatment, str) or treatment not in columns:
        raise DataError(
            f"Expected treatment to be a column of the fit's formulas ({sorted(columns)}), but saw "
            f"{treatment!r}. Name one of them, or fit again with the treatment in a formula."
        )
    source = Source(data)
    if source.kind != "memory":
        raise DataError(
            "Expected rows held in memory for a contrast, but saw a source that is read in parts. "
            "Give the rows, or a random sample of them, as a data frame."
        )
    roles, names = result.model.roles, set(source.names)
    numbers = roles.numbers
    cluster = roles.cluster if result.covariance == "cluster" else None
    treated = treatment in names
    observed = treated and {*numbers, *([cluster] if cluster else [])} <= names
    if not observed:  # a target population: weights and clusters are used where it has them
        numbers = [roles.weights] if roles.weights is not None and roles.weights in names else []
        cluster = cluster if cluster in names else None
    wanted = [*columns, *numbers, *([cluster] if cluster else []), *extra]
    source.want(c for c in wanted if c in names or (c in columns and c != treatment))
    frame = next(source.parts()).to_pandas()
    frame.index = source.index
    if not treated:  # every level is assigned to all rows later
        column = columns[treatment]
        first = column.low if column.levels is None else column.levels[0]
        frame = frame.assign(**{treatment: first})
    infinite = [] if roles.upper is None else [roles.upper]
    _, rows = encode_new(frame, result.model.predictors.unique, numbers, infinite)
    fitted = observed and _same_rows(result, rows)
    if cluster is None:
        return Population(frame, rows, treated, fitted, 0, None)
    codes, found = pd.factorize(frame[cluster])
    if (codes < 0).any():
        raise DataError(
            f"Expected complete values in column {cluster!r}, but {int((codes < 0).sum())} of "
            f"{len(codes)} are missing. Drop these rows."
        )
    return Population(frame, rows, treated, fitted, len(found), codes)


def _same_rows(result: SurvivalResult, rows: Rows) -> bool:
    if rows.n_obs != result.n_obs:
        return False
    with np.errstate(all="ignore"):
        seen = support.count(rows, result.model).fingerprint
    return bool(np.allclose(seen, result.fingerprint, rtol=1e-9, atol=1e-12))


def open_treatment(
    result: SurvivalResult, seen: np.ndarray | None, name: str, reference: Any
) -> Treatment:
    """The levels of the treatment, the reference first; `seen` are its values in the data."""
    column = fit_columns(result)[name]
    levels: list[Any]
    if column.levels is not None:
        levels = list(column.levels)
        values: list[Any] = list(range(len(levels)))
    else:
        ends = np.array([column.low, column.high])
        found = ends if seen is None else np.union1d(np.asarray(seen, dtype=float), ends)
        values = levels = [float(v) for v in np.unique(found)]
        if len(levels) > _MOST_LEVELS:
            raise DataError(
                f"Expected a treatment with few levels, but column {name!r} has {len(levels)} "
                "distinct numbers. Cut it into groups and fit again."
            )
        outside = [v for v in levels if not column.low <= v <= column.high]
        if outside:
            raise DataError(
                f"Expected levels of {name!r} that the fit saw (from {column.low:g} to "
                f"{column.high:g}), but the data have {outside[:5]}. Recode them."
            )
        if seen is None and levels != [0.0, 1.0]:
            raise DataError(
                f"Expected a column {name!r} in the data, because the treatment is numeric and its "
                f"levels (between {column.low:g} and {column.high:g}) are not kept in the fit."
            )
    labels = [f"{v:g}" if isinstance(v, float) else str(v) for v in levels]
    if len(levels) < 2:
        raise IdentificationError(
            f"Expected at least two levels of the treatment {name!r}, but the fit saw {labels}."
        )
    first = 0
    if reference is not None:
        match = [i for i, v in enumerate(levels) if v == reference or labels[i] == reference]
        if not match:
            raise DataError(
                f"Expected reference to be a level of {name!r} ({', '.join(labels)}), but saw "
                f"{reference!r}."
            )
        first = match[0]
    order = [first, *(i for i in range(len(levels)) if i != first)]
    return Treatment(
        name, tuple(levels[i] for i in order), tuple(values[i] for i in order),
        tuple(labels[i] for i in order),
    )  # fmt: skip


# ---------------------------------------------------------------------------- formulas


def formula_columns(formula: Any, role: str) -> list[str]:
    """Columns that a formula may need, without a check of the formula."""
    if formula is None:
        return []
    try:
        return [str(v) for v in Formula(formula_text(formula, role)).required_variables]
    except DataError:
        raise
    except Exception:  # formulaic's own; the formula is read again, with a message, when it is used
        return []


def covariate_terms(result: SurvivalResult, treatment: str) -> list[str]:
    """Terms of the fit's formulas for all covariates other than the treatment.

    The terms of phi without the treatment, then those of lambda and gamma in columns that were not
    named before, then what only occurs in products with the treatment. A spline and the same column
    plain would be linearly dependent.
    """
    covered: set[str] = set()
    out: list[str] = []
    designs = result.model.predictors.unique
    for design in designs:
        names = [c.name for c in design.columns]
        here: set[str] = set()
        for term in Formula(design.formula):
            columns: set[str] = set()
            factors: list[str] = []
            for factor in term.factors:
                if factor.eval_method.value == "lookup":
                    columns.add(factor.expr)
                    factors.append(_quoted(factor.expr))
                elif factor.eval_method.value == "python":
                    columns.update(Expression(factor.expr, names).columns)
                    factors.append(factor.expr)
            if columns and treatment not in columns and not columns <= covered:
                out.append(":".join(factors))
                here |= columns
        covered |= here
    for design in designs:
        coded = {c for c, _ in design.codings.values()}
        for column in design.columns:
            if column.name != treatment and column.name not in covered:
                name = _quoted(column.name)
                numeric = column.is_categorical and not isinstance((column.levels or ("",))[0], str)
                out.append(f"C({name})" if numeric and column.name in coded else name)
                covered.add(column.name)
    return out


def treatment_term(result: SurvivalResult, treatment: str) -> str:
    """The treatment as a term: as a factor where it has several numeric levels."""
    column = fit_columns(result)[treatment]
    name = _quoted(treatment)
    text = column.levels is not None and all(isinstance(v, str) for v in column.levels)
    return name if text or (column.low, column.high) == (0.0, 1.0) else f"C({name})"


def _quoted(name: str) -> str:
    return name if _NAME.match(name) else f"`{name}`"


# ---------------------------------------------------------------------------- evaluation


@dataclass(frozen=True)
class Curves:
    """Survival at some times, then restricted means up to some horizons.

    Attributes
    ----------
    times, horizons : ndarray
    """

    times: np.ndarray
    horizons: np.ndarray

    def __len__(self) -> int:
        return len(self.times) + len(self.horizons)

    @property
    def end(self) -> float:
        """The latest time that is asked for."""
        return float(np.concatenate([self.times, self.horizons]).max())

    def evaluate(self, points: Points) -> tuple[np.ndarray, np.ndarray]:
        """Values (q, n) for the rows of a block and gradients (q, 4, n) in (a, b, c, nu)."""
        value, slope = np.empty((len(self), points.n)), np.empty((len(self), 4, points.n))
        for q, t in enumerate(self.times):
            curve = points.curves(t)
            value[q] = np.exp(-curve[0])
            slope[q] = -value[q] * curve[1:5]
        for q, horizon in enumerate(self.horizons, start=len(self.times)):
            value[q], slope[q] = points.rmst(float(horizon), True)
        return value, slope


@dataclass(frozen=True)
class Arms:
    """A fitted outcome model at every level of the treatment."""

    model: Model
    theta: np.ndarray
    treatment: Treatment
    curves: Curves

    def evaluate(self, block: Block, n: int) -> tuple[np.ndarray, np.ndarray, list[Points]]:
        """Values (arms, q, n), gradients (arms, q, 4, n) and the points of each arm."""
        size, q = len(self.treatment.values), len(self.curves)
        value, slope = np.empty((size, q, n)), np.empty((size, q, 4, n))
        points = []
        for arm in range(size):
            there = self.treatment.assign(block, self.model.predictors.unique, arm, n)
            points.append(Points(self.model, self.theta, there, n))
            value[arm], slope[arm] = self.curves.evaluate(points[arm])
        return value, slope, points

    def weights(self, block: Block, n: int) -> np.ndarray:
        """Sampling weights, or ones where there are none."""
        name = self.model.roles.weights
        return np.ones(n) if name is None or name not in block else np.asarray(
            self.model.weights(block)
        )  # fmt: skip


def chain(model: Model, points: Points, slope: np.ndarray) -> np.ndarray:
    """Sum over rows of gradients (q, 4, n) in (a, b, c, nu) as gradients (q, k)."""
    return np.stack(
        [model.predictors.score(points.xs, [s[i] for i in model.active]) for s in slope]
    )
