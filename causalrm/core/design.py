"""Formulas to design matrices: reading, checking, coding.

formulaic parses a formula to terms. Names, the coding of categories and the columns that keep a
design of full rank are those that formulaic would give, but nothing is evaluated to find them:
`causalrm.core.expression` computes the Python in a formula, and what is left of a formula after
that is a `Design`, which `causalrm.core.encoding` applies to blocks of rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from formulaic import Formula, SimpleFormula
from formulaic.errors import FormulaicError
from formulaic.transforms import TRANSFORMS

from causalrm.core.blocks import Block, Rows
from causalrm.core.column import Column, refuse_offset
from causalrm.core.encoding import Design, Piece, check_finite, compute
from causalrm.core.errors import DataError, IdentificationError
from causalrm.core.expression import Coding, Computed, Expression
from causalrm.core.frame import Reader, Source, scan

_LONGEST = 100_000  # characters of a formula

# ------------------------------------------------------------------------- reading


def formula_text(formula: str | Sequence[str], role: str) -> str:
    """A right-hand side as text; a list of column names becomes their sum."""
    if isinstance(formula, str):
        if "~" in re.sub("`[^`]*`", "", formula):  # not in the name of a column
            raise DataError(
                f"Expected the right-hand side of a formula for {role}, but saw {formula!r}. "
                "Write only what stands after '~'; the other columns are arguments of fit."
            )
        if "``" in formula:  # formulaic takes the empty name for nothing at all
            raise DataError(
                f"Expected names of columns in the formula for {role}, but saw one without any "
                f"letters in {formula!r}. Rename the column."
            )
        return formula.strip() or "1"
    if isinstance(formula, Sequence) and all(isinstance(c, str) for c in formula):
        for name in formula:
            if "`" in name or not name or name.replace(".", "", 1).isdecimal():
                raise DataError(
                    f"Expected names of columns that a formula can hold for {role}, but saw "
                    f"{name!r}. Rename the column: no backticks, and not only digits."
                )
        return " + ".join(["1", *(f"`{c}`" for c in formula)])
    raise DataError(
        f"Expected a formula or a list of column names for {role}, but saw {formula!r}. Give one "
        "of these."
    )


@lru_cache(maxsize=256)
def _terms(text: str) -> tuple[tuple[tuple[str, str], ...], ...]:
    """The factors of each term: expression, and "lookup", "python" or "literal"."""
    if len(text) > _LONGEST:
        raise ValueError(f"{len(text)} characters")
    formula = Formula(text)
    if not isinstance(formula, SimpleFormula):
        raise ValueError("several parts")
    return tuple(tuple((f.expr, f.eval_method.value) for f in t.factors) for t in formula)


def _parse(text: str, role: str) -> tuple[tuple[tuple[str, str], ...], ...]:
    try:
        terms = _terms(text)
    except (FormulaicError, AttributeError, SyntaxError, ValueError, RecursionError) as error:
        raise DataError(
            f"Expected a one-sided formula for {role}, such as 'x + C(g)', but {text[:200]!r} "
            f"cannot be read ({type(error).__name__}). Check its spelling; put column names that "
            "are no Python names between backticks."
        ) from error
    if "`1`" in text:  # formulaic takes it for the intercept
        raise DataError(
            f"Expected no column named '1' in the formula for {role}, where it stands for the "
            "intercept. Rename the column."
        )
    for term in terms:
        for key, method in term:
            if method == "literal" and key != "1":
                raise DataError(
                    f"Expected no number as a factor in the formula for {role}, but saw {key!r} in "
                    f"{text[:200]!r}. Give the scaled column a term of its own, such as I(2 * x)."
                )
    return terms


class _Factor(NamedTuple):
    """A factor of a formula: the name of a column, ``C(...)``, or an expression."""

    columns: tuple[str, ...]
    coding: Coding | None = None
    expression: Expression | None = None


class _Part(NamedTuple):
    """Columns of a factor: their names, and where their values are."""

    name: str
    piece: Piece


class Formulas:
    """The formulas of one fit: read, checked, and turned to designs over the same rows.

    Parameters
    ----------
    formulas : mapping of str to str
        Role (for messages) to right-hand side.
    source : Source

    Attributes
    ----------
    numbers, categories, either : list of str
        The columns used in expressions, in ``C(...)``, and as they come.
    """

    def __init__(self, formulas: Mapping[str, str], source: Source):
        self.texts = dict(formulas)
        self.numbers: list[str] = []
        self.categories: list[str] = []
        self.either: list[str] = []
        self._terms: dict[str, list[list[str]]] = {}
        self._factors: dict[str, _Factor] = {}
        self._learned: dict[str, tuple[dict[str, Any], Computed]] = {}
        names = {name for name in source.names if isinstance(name, str)}
        for role, text in self.texts.items():
            if text in self._terms:
                continue
            self._terms[text] = terms = []
            for term in _parse(text, role):
                keys = [(key, method) for key, method in term if method != "literal"]
                terms.append([key for key, _ in keys])
                for key, method in keys:
                    factor = self._factor(key, method, names, source, role)
                    if self._factors.setdefault(key, factor).columns != factor.columns:
                        raise DataError(
                            f"Expected one meaning of {key!r}, but it is a column and a term. "
                            "Rename the column."
                        )

    def _factor(self, key: str, method: str, names: set[str], source: Source, role: str) -> _Factor:
        factor = _Factor((key,))
        if method == "python":
            read = Expression(key, names)
            plain = read.is_name or read.coding is not None
            factor = _Factor(read.columns, read.coding, None if plain else read)
        source.want(factor.columns, role)
        if factor.coding is not None:
            self.categories.extend(factor.columns)
        elif factor.expression is None:
            self.either.extend(factor.columns)
        else:
            self.numbers.extend(factor.columns)
            if not factor.columns:
                raise DataError(
                    f"Expected a column in the term {key!r} of {role}, but it names none. Remove "
                    "it."
                )
            if factor.expression.learns and source.kind != "memory":
                raise DataError(
                    f"Expected a term that can be computed row by row, because these data are read "
                    f"in parts, but {factor.expression.learns[0]} in {key!r} of {role} learns from "
                    "all rows. Give a spline its knots and bounds, as in bs(x, knots=[...], "
                    "lower_bound=..., upper_bound=...), or add the column to the data."
                )
        return factor

    def build(self, rows: Rows, reader: Reader, index: pd.Index | None = None) -> dict[str, Design]:
        """One design per role; roles with the same formula share one."""
        known = {c.name: c for c in reader.columns}
        built = {text: self._design(text, rows, known, index) for text in self._terms}
        return {role: built[text] for role, text in self.texts.items()}

    def _design(
        self, text: str, rows: Rows, known: Mapping[str, Column], index: pd.Index | None
    ) -> Design:
        factors = {key: self._factors[key] for term in self._terms[text] for key in term}
        used = dict.fromkeys(c for factor in factors.values() for c in factor.columns)
        spans: dict[str, bool] = {}
        for key, factor in factors.items():
            if factor.expression is not None:
                spans[key] = self._learn(key, factor.expression, rows, known, index)
            elif factor.coding is not None:
                spans[key] = factor.coding.spans_intercept
            else:
                spans[key] = known[factor.columns[0]].levels is not None
        codings: dict[str, tuple[str, np.ndarray]] = {}
        products: list[list[Piece]] = []
        terms: list[str] = []
        spanned: set[frozenset[Scoped]] = set()
        for term in self._terms[text]:
            for scoped in _code(term, spans, spanned):
                parts = [
                    self._parts(key, reduced, text, rows.n_obs, known, codings)
                    for key, reduced in scoped
                ]
                for chosen in product(*reversed(parts)):  # the first factor varies fastest
                    terms.append(":".join(p.name for p in reversed(chosen)) or "Intercept")
                    products.append([p.piece for p in reversed(chosen)])
        if not terms:
            raise DataError(
                f"Expected a formula with at least one term, but {text!r} has none. Write '1' for "
                "an intercept, or None where a parameter is to be fixed."
            )
        transforms = {key: self._learned[key][0] for key in factors if key in self._learned}
        return Design(text, terms, [known[c] for c in used], products, codings, transforms)

    def _learn(
        self,
        key: str,
        expression: Expression,
        rows: Rows,
        known: Mapping[str, Column],
        index: pd.Index | None,
    ) -> bool:
        """Learn a transformed factor, and say whether its columns span the intercept."""
        if key in self._learned:
            return self._learned[key][1].spans_intercept
        if rows.in_memory:
            block: Block = rows.columns
        else:  # it learns nothing; a few values show how many columns it has
            block = {c: np.linspace(known[c].low, known[c].high, 8) for c in expression.columns}
        computed, state = compute(expression, block, None)
        names = [f"{key}[{j}]" for j in range(len(computed.values))]
        if known.keys() & set(names):
            raise DataError(
                f"Expected no column named like the term {key!r}, but the data have one. Rename it."
            )
        if rows.in_memory:
            check_finite(expression, computed, block, index)
            rows.columns |= dict(zip(names, computed.values, strict=True))
        columns = list(expression.columns)
        rule = {"columns": columns, "state": state, "width": len(names)}
        self._learned[key] = rule, computed
        return computed.spans_intercept

    def _parts(
        self,
        key: str,
        reduced: bool,
        text: str,
        n: int,
        known: Mapping[str, Column],
        codings: dict[str, tuple[str, np.ndarray]],
    ) -> list[_Part]:
        """The columns of a factor, without the one that goes beside an intercept if `reduced`."""
        factor = self._factors[key]
        if factor.expression is not None:
            fields = list(enumerate(self._learned[key][1].fields))
            return [
                _Part(key if field is None else f"{key}[{field}]", (key, j))
                for j, field in fields[int(reduced) :]
            ]
        column = known[factor.columns[0]]
        if column.levels is None:
            return [_Part(key, (column.name, 0))]
        names, table = _coded(key, column, factor.coding or Coding(column.name), reduced)
        if not names:
            raise IdentificationError(
                f"Expected at least two levels in column {column.name!r} of the formula {text!r}, "
                f"but all {n} rows have {column.levels[0]!r}. Remove the term: the intercept "
                "stands for it."
            )
        coded = f"{key}-" if reduced else key
        while coded in known and coded != column.name:
            coded += "-"
        codings[coded] = (column.name, table)
        return [_Part(name, (coded, j)) for j, name in enumerate(names)]


# ------------------------------------------------------------------------- coding

Scoped = tuple[str, bool]  # a factor of a term, and whether it is coded with one column less


def _code(
    term: Sequence[str], spans: Mapping[str, bool], spanned: set[frozenset[Scoped]]
) -> list[tuple[Scoped, ...]]:
    """How to code the factors of a term, given what earlier terms span already.

    A factor that spans the intercept is the sum of a constant and a part beside it; a term is the
    sum of the products of these, of which those that are new are kept and put together again as
    far as they go. These are the rules of patsy and formulaic.

    Parameters
    ----------
    term : sequence of str
        Keys of factors.
    spans : mapping of str to bool
        Whether a factor spans the intercept.
    spanned : set
        What is spanned already; grows.
    """
    choices = [[((key, True),), ()] if spans[key] else [((key, False),)] for key in term]
    new: list[tuple[Scoped, ...]] = []
    for choice in product(*choices):
        scoped = tuple(factor for chosen in choice for factor in chosen)
        if frozenset(scoped) not in spanned:
            new.append(scoped)
    spanned.update(map(frozenset, new))
    return _simplified(new)


def _simplified(scoped: Iterable[tuple[Scoped, ...]]) -> list[tuple[Scoped, ...]]:
    out: list[tuple[Scoped, ...]] = []
    for one in sorted(scoped, key=len):
        for other in out:
            extra = set(one) - set(other)
            if len(one) == len(other) + 1 and len(extra) == 1 and next(iter(extra))[1]:
                ((key, _),) = extra
                whole = tuple((k, reduced and k != key) for k, reduced in one)
                out = _simplified([*(o for o in out if o != other), whole])
                break
        else:
            out.append(one)
    return out


def _coded(key: str, column: Column, coding: Coding, reduced: bool) -> tuple[list[str], np.ndarray]:
    """Names of the columns that code a category, and the table (levels x codes)."""
    assert column.levels is not None
    levels = list(column.levels) if coding.levels is None else coding.levels
    absent = [level for level in column.levels if level not in levels]
    if absent:
        raise DataError(
            f"Expected all levels of column {column.name!r} in {key!r}, but {absent[:8]} "
            f"({len(absent)} of {len(column.levels)}) are not there. Add them, or drop their rows."
        )
    contrasts = coding.contrasts
    if contrasts is None:
        contrasts = TRANSFORMS["contr"].treatment()
    elif isinstance(contrasts, np.ndarray):
        contrasts = TRANSFORMS["contr"].custom(contrasts)
    try:
        table = contrasts.get_coding_matrix(levels, reduced_rank=reduced)
        form = contrasts.get_factor_format(levels, reduced_rank=reduced)
    except Exception as error:  # whatever formulaic raises for a reference or a shape
        raise DataError(
            f"Expected contrasts in {key!r} that suit the {len(levels)} levels {levels[:8]}, but "
            f"formulaic raised: {error}. Correct them."
        ) from error
    names = [form.format(name=key, field=field) for field in table.columns]
    rows = [levels.index(level) for level in column.levels]
    return names, table.to_numpy(dtype=float)[rows]


# ------------------------------------------------------------------------- opening


def prepare(
    data: Any,
    formulas: Mapping[str, str],
    numbers: Iterable[str] = (),
    categories: Iterable[str] = (),
    infinite: Iterable[str] = (),
) -> tuple[Source, Rows, dict[str, Design], Reader]:
    """Open a data set for a fit: check every column that is used, and build the designs.

    Parameters
    ----------
    data : data frame, path of parquet files, pyarrow data set, or Dask data frame
    formulas : mapping of str to str
        Role to right-hand side, as `formula_text` gives it.
    numbers, categories : iterable of str
        Further columns: numeric, and such whose distinct values are levels.
    infinite : iterable of str
        Those of `numbers` in which infinity has a meaning.

    Returns
    -------
    Source, Rows, dict of str to Design, Reader

    Raises
    ------
    DataError, IdentificationError
        When a column or a formula cannot be used.
    """
    source = Source(data)
    numbers, categories = list(numbers), list(categories)
    source.want([*numbers, *categories])
    parsed = Formulas(formulas, source)
    reader, rows = scan(
        source,
        numbers=[*numbers, *parsed.numbers],
        either=parsed.either,
        categories=[*categories, *parsed.categories],
        infinite=set(infinite) - {*parsed.either, *parsed.numbers},
    )
    for column in reader.columns:
        if column.name in parsed.either:
            refuse_offset(column)
    return source, rows, parsed.build(rows, reader, source.index), reader


def encode_new(
    data: Any, designs: Iterable[Design], numbers: Iterable[str] = (), infinite: Iterable[str] = ()
) -> tuple[Source, Rows]:
    """Open new rows for designs of an earlier fit; unseen levels are an error.

    Parameters
    ----------
    data : data frame
    designs : iterable of Design
        Of one fit.
    numbers : iterable of str
        Further numeric columns.
    infinite : iterable of str
        Those of `numbers` in which infinity has a meaning.

    Returns
    -------
    Source, Rows

    Raises
    ------
    DataError
        When a column is absent, of the wrong type, incomplete, or has levels that the fit had not.
    """
    source = Source(data)
    if source.kind != "memory":
        raise DataError(
            "Expected rows held in memory for a prediction, but saw a source that is read in "
            "parts. Predict part by part, for example with map_partitions or per batch. Convert a "
            "part with its to_pandas()."
        )
    designs = list(designs)
    columns: dict[str, Column] = {name: Column(name) for name in numbers}
    states: dict[str, str] = {}
    for design in designs:
        same = [columns.setdefault(c.name, c).levels == c.levels for c in design.columns]
        for key, rule in design.transforms.items():
            state = repr(rule["state"])
            same.append(states.setdefault(key, state) == state)
        if not all(same):
            raise DataError(
                "Expected designs of one fit, but a column has other levels, or a term has learned "
                "something else, in another of them. Use one call per fit."
            )
    source.want(columns)
    reader = Reader(list(columns.values()), infinite)
    rows = Rows(reader(source.frame, source.index), source.n_obs)
    for design in designs:
        design.derive(rows, source.index)
    return source, rows


__all__ = ["Design", "Formulas", "encode_new", "formula_text", "prepare"]
