"""Formulas to design matrices, block by block.

formulaic parses the formula, decides the coding of categories and names the terms. What is then
kept is small: each column of the design is a product of *pieces*, a piece being a numeric column,
one column of a coding table looked up by category, or one column of a transformed factor such as
``bs(age, df=4)``. A block of rows is encoded from the pieces as a C-ordered array of shape
(p, rows), so that each of its rows is contiguous.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from formulaic import Formula, ModelSpec
from formulaic.errors import FormulaicError

from causalrm.core.blocks import Block, Rows
from causalrm.core.errors import DataError
from causalrm.core.frame import Column, Reader, Source, check, scan

_ELEMENTWISE = frozenset(
    "abs arcsinh cbrt ceil clip cos exp expm1 floor hypot log log10 log1p log2 maximum minimum "
    "power round sign sin sinh sqrt square tan tanh where".split()
)
_PLAIN = frozenset("log log10 log2 exp exp10 exp2 I".split())
_STATEFUL = frozenset("bs cc cr cs center poly scale standardize".split())
_CODINGS = frozenset("treatment Treatment sum Sum helmert Helmert diff Diff poly Poly".split())
_NODES = (
    ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.BinOp, ast.UnaryOp, ast.Compare,
    ast.BoolOp, ast.keyword, ast.Attribute, ast.List, ast.Tuple, ast.operator, ast.unaryop,
    ast.cmpop, ast.boolop,
)  # fmt: skip
_QUOTED = re.compile(r"`([^`]*)`")

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
        self.transforms = dict(transforms)

    def __len__(self) -> int:
        return len(self.terms)

    @property
    def has_intercept(self) -> bool:
        """Whether the first column is the intercept."""
        return bool(self.terms) and self.terms[0] == "Intercept"

    def encode(self, block: Block, n: int) -> np.ndarray:
        """Encode `n` rows of checked columns as an array of shape (p, n)."""
        out = np.empty((len(self.terms), n))
        values: dict[str, np.ndarray] = {}
        for row, product in zip(out, self.products, strict=True):
            if not product:
                row[:] = 1.0
            for i, (key, j) in enumerate(product):
                if key in self.codings:
                    column, table = self.codings[key]
                    piece = table[:, j].take(block[column])
                elif key in self.transforms:
                    derived = f"{key}[{j}]"
                    if derived in block:
                        piece = block[derived]
                    else:
                        if key not in values:
                            values[key] = self._transform(key, block)
                        piece = values[key][j]
                else:
                    piece = block[key]
                if i == 0:
                    row[:] = piece
                else:
                    row *= piece
        return out

    def _transform(self, key: str, block: Block) -> np.ndarray:
        rule = self.transforms[key]
        frame = pd.DataFrame({name: block[name] for name in rule["columns"]})
        return _evaluate(key, frame, rule["state"])[0]

    def derive(self, rows: Rows) -> None:
        """Compute transformed factors once where the rows are held in memory."""
        if not rows.in_memory:
            return
        for key, rule in self.transforms.items():
            if f"{key}[0]" not in rows.columns:
                values = self._transform(key, rows.columns)
                for j in range(rule["width"]):
                    rows.columns[f"{key}[{j}]"] = values[j]

    def to_dict(self) -> dict[str, Any]:
        """Everything that is needed to encode new rows, as plain values."""
        return {
            "formula": self.formula,
            "terms": list(self.terms),
            "columns": [[c.name, c.levels, c.low, c.high] for c in self.columns],
            "products": [[list(p) for p in product] for product in self.products],
            "codings": {k: [c, t.tolist()] for k, (c, t) in self.codings.items()},
            "transforms": self.transforms,
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Design:
        """Rebuild a design from `to_dict`; expressions are checked again before their use."""
        columns = [
            Column(name, None if levels is None else tuple(levels), low, high)
            for name, levels, low, high in state["columns"]
        ]
        names = {c.name for c in columns}
        for key in state["transforms"]:
            check_expression(key, names)
        codings = {k: (c, np.asarray(t, dtype=float)) for k, (c, t) in state["codings"].items()}
        products = [[(k, j) for k, j in product] for product in state["products"]]
        return cls(
            state["formula"], state["terms"], columns, products, codings, state["transforms"]
        )


# ------------------------------------------------------------------------- checking


def check_expression(expression: str, names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Check one factor of a formula before it is evaluated.

    Parameters
    ----------
    expression : str
        Python as formulaic would evaluate it.
    names : iterable of str
        Columns that exist.

    Returns
    -------
    columns : list of str
        The columns used, as they are named in the data.
    learns : list of str
        Functions in it that learn from all rows.

    Raises
    ------
    DataError
        For anything but column names, arithmetic, comparisons and the listed functions.
    """
    names = set(names)
    quoted: dict[str, str] = {}

    def hide(match: re.Match[str]) -> str:
        return quoted.setdefault(match.group(1), f"_quoted_{len(quoted)}")

    plain = _QUOTED.sub(hide, expression)
    unquoted = {v: k for k, v in quoted.items()}
    try:
        tree = ast.parse(plain, mode="eval")
    except SyntaxError as error:
        raise DataError(
            f"Expected a term of column names, arithmetic and functions, but {expression!r} does "
            "not parse. Put column names that are no Python names between backticks."
        ) from error
    columns: list[str] = []
    learns: list[str] = []
    functions: set[int] = set()

    def refuse(what: str) -> DataError:
        known = ", ".join(sorted(_STATEFUL | _PLAIN | {"C"}))
        return DataError(
            f"Expected column names, arithmetic and known functions in the term {expression!r}, "
            f"but saw {what}. Known are {known} and np.{', np.'.join(sorted(_ELEMENTWISE))}. "
            "Compute anything else as a column beforehand."
        )

    for node in ast.walk(tree):
        if not isinstance(node, _NODES):
            raise refuse(type(node).__name__)
        if isinstance(node, ast.Call):
            f = node.func
            functions.add(id(f))
            if isinstance(f, ast.Name) and f.id in _STATEFUL:
                given = {k.arg for k in node.keywords}
                bounded = {"lower_bound", "upper_bound"} <= given and "df" not in given
                if not (f.id in {"bs", "cc", "cr", "cs"} and bounded):
                    learns.append(f.id)
            elif isinstance(f, ast.Attribute) and isinstance(f.value, ast.Name):
                functions.add(id(f.value))
                allowed = {"np": _ELEMENTWISE, "contr": _CODINGS}.get(f.value.id, frozenset())
                if f.attr not in allowed:
                    raise refuse(f"{f.value.id}.{f.attr}")
            elif not (isinstance(f, ast.Name) and f.id in _PLAIN | _CODINGS | {"C"}):
                raise refuse(ast.unparse(f))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in functions:
            if not (isinstance(node.value, ast.Name) and node.value.id == "contr"):
                raise refuse(ast.unparse(node))
            if node.attr not in _CODINGS:
                raise refuse(ast.unparse(node))
            functions.add(id(node.value))  # an uncalled coding such as contr.sum
        if isinstance(node, ast.Name) and id(node) not in functions:
            name = unquoted.get(node.id, node.id)
            if name in names:
                columns.append(name)
            else:
                near = ", ".join(repr(c) for c in sorted(names)[:12])
                raise DataError(
                    f"Expected the names of columns in the term {expression!r}, but the data have "
                    f"no column {name!r}. They have: {near}."
                )
    return list(dict.fromkeys(columns)), learns


def formula_text(formula: str | Sequence[str], role: str) -> str:
    """A right-hand side as text; a list of column names becomes their sum."""
    if isinstance(formula, str):
        if "~" in formula:
            raise DataError(
                f"Expected the right-hand side of a formula for {role}, but saw {formula!r}. "
                "Write only what stands after '~'; the other columns are arguments of fit."
            )
        return formula.strip() or "1"
    if isinstance(formula, Sequence) and all(isinstance(c, str) for c in formula):
        return " + ".join(["1", *(f"`{c}`" for c in formula)])
    raise DataError(
        f"Expected a formula or a list of column names for {role}, but saw {formula!r}."
    )


# ------------------------------------------------------------------------- building


def _parse(text: str, role: str) -> Any:
    try:
        formula = Formula(text)
        for term in formula:
            _ = term.factors
    except (FormulaicError, AttributeError, SyntaxError) as error:
        raise DataError(
            f"Expected a one-sided formula for {role}, such as 'x + C(g)', but {text!r} cannot "
            f"be read. Check its spelling ({type(error).__name__})."
        ) from error
    return formula


def _evaluate(
    expression: str, frame: pd.DataFrame, state: dict[str, Any] | None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Values (q, n) of a transformed numeric factor, and what it learned."""
    spec = ModelSpec(Formula(f"0 + {{{expression}}}"), transform_state=dict(state or {}))
    columns = ", ".join(repr(c) for c in frame.columns)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            matrix = spec.get_model_matrix(frame, na_action="ignore")
    except Exception as error:  # formulaic passes on whatever the expression raised
        raise DataError(
            f"Expected the term {expression!r} to be computable from {columns}, but it raised: "
            f"{error}. For splines, new values must lie within the bounds of the fit; write "
            "lower_bound=, upper_bound= or extrapolation= out."
        ) from error
    values = np.ascontiguousarray(matrix.to_numpy(dtype=float).T)
    bad = ~np.isfinite(values).all(axis=0)
    if bad.any():
        first = ", ".join(str(r) for r in np.flatnonzero(bad)[:5])
        raise DataError(
            f"Expected finite values of the term {expression!r} (from {columns}), but "
            f"{int(bad.sum())} of {len(bad)} are not (first rows by position: {first}). Restrict "
            "the columns to where the term is defined."
        )
    return values, dict(matrix.model_spec.transform_state)


class Formulas:
    """The formulas of one fit: read, checked, and turned to designs over the same rows.

    Parameters
    ----------
    formulas : mapping of str to str
        Role (for messages) to right-hand side.
    source : Source
    """

    def __init__(self, formulas: Mapping[str, str], source: Source):
        self.texts = dict(formulas)
        self._parsed: dict[str, Any] = {}
        self._used: dict[str, list[str]] = {}
        self.categories: list[str] = []
        self.either: list[str] = []
        self._factors: dict[str, tuple[list[str], bool]] = {}
        self._in_memory = source.kind == "memory"
        for role, text in self.texts.items():
            if text in self._parsed:
                continue
            parsed = self._parsed[text] = _parse(text, role)
            used = self._used[text] = []
            for term in parsed:
                for factor in term.factors:
                    if factor.eval_method.value == "literal":
                        continue
                    columns = self._factor(factor, source, role)
                    used.extend(c for c in columns if c not in used)

    def _factor(self, factor: Any, source: Source, role: str) -> list[str]:
        key = factor.expr
        if factor.eval_method.value == "lookup":
            source.want([key], role)
            self.either.append(key)
            self._factors[key] = [key], False
            return [key]
        columns, learns = check_expression(key, source.names)
        source.want(columns, role)
        if not columns:
            raise DataError(
                f"Expected a column in the term {key!r} of {role}, but it names none. Remove it."
            )
        if key.startswith("C("):
            if len(columns) != 1:
                raise DataError(f"Expected one column in {key!r}, but saw {columns}.")
            self.categories.extend(columns)
            self._factors[key] = columns, False
        else:
            if learns and not self._in_memory:
                raise DataError(
                    f"Expected knots and bounds written out in the term {key!r}, because "
                    f"{learns[0]} learns from all rows and these data are read in parts. Write "
                    "bs(x, knots=[...], lower_bound=..., upper_bound=...) or compute the column."
                )
            self.either.extend(columns)
            self._factors[key] = columns, True
        return columns

    def build(self, rows: Rows, reader: Reader) -> dict[str, Design]:
        """One design per role; roles with the same formula share one."""
        known = {c.name: c for c in reader.columns}
        built = {text: self._design(text, rows, known) for text in self._parsed}
        return {role: built[text] for role, text in self.texts.items()}

    def _design(self, text: str, rows: Rows, known: Mapping[str, Column]) -> Design:
        transforms: dict[str, dict[str, Any]] = {}
        formula = self._parsed[text]
        for term in formula:
            for factor in term.factors:
                names, transformed = self._factors.get(factor.expr, ([], False))
                if transformed:
                    transforms[factor.expr] = self._learn(factor.expr, names, rows, known)
        columns = [known[name] for name in self._used[text]]
        spec = _probe(formula, columns, transforms)
        codings: dict[str, tuple[str, np.ndarray]] = {}
        products: list[list[Piece]] = []
        terms: list[str] = []
        for encoded in spec.structure:
            terms.extend(encoded.columns)
            for scoped in encoded.scoped_terms:
                product: list[list[Piece]] = [[]]
                for sf in scoped.factors:
                    pieces = self._pieces(sf, spec, known, codings, transforms)
                    # formulaic lets the first factor vary fastest
                    product = [p + [piece] for piece in pieces for p in product]
                products.extend(product)
        if len(products) != len(terms):
            raise DataError(
                f"Expected one coding per column of {text!r}, but saw {len(products)} for "
                f"{len(terms)} terms. Compute the columns beforehand."
            )
        if not terms:
            raise DataError(
                f"Expected a formula with at least one term, but {text!r} has none. Write '1' for "
                "an intercept, or None where a parameter is to be fixed."
            )
        return Design(text, terms, columns, products, codings, transforms)

    def _learn(
        self, key: str, columns: list[str], rows: Rows, known: Mapping[str, Column]
    ) -> dict[str, Any]:
        for name in columns:
            if known[name].is_categorical:
                raise DataError(
                    f"Expected numbers in column {name!r} of the term {key!r}, but it holds "
                    f"categories: {list(known[name].levels or ())[:5]}. Use it as it is or as "
                    f"C({name})."
                )
        sample = rows if rows.in_memory else rows.sample(1000)
        frame = pd.DataFrame({name: sample.columns[name] for name in columns})
        values, state = _evaluate(key, frame, None)
        return {"columns": columns, "state": _plain_state(state), "width": len(values)}

    def _pieces(
        self,
        scoped: Any,
        spec: Any,
        known: Mapping[str, Column],
        codings: dict[str, tuple[str, np.ndarray]],
        transforms: Mapping[str, dict[str, Any]],
    ) -> list[Piece]:
        key = scoped.factor.expr
        if key in transforms:
            return [(key, j) for j in range(transforms[key]["width"])]
        columns, _ = self._factors.get(key, ([], False))
        if not columns:  # a literal such as 1
            return []
        column = known[columns[0]]
        if column.levels is None:
            return [(key, 0)]
        states = {f.expr: s for f, s in spec.factor_contrasts.items()}
        state = states[key]
        table = state.contrasts.get_coding_matrix(
            list(column.levels), reduced_rank=scoped.reduced
        ).to_numpy(dtype=float)
        coded = f"{key}{'-' if scoped.reduced else ''}"
        codings[coded] = (column.name, table)
        return [(coded, j) for j in range(table.shape[1])]


def _probe(formula: Any, columns: Sequence[Column], transforms: Mapping[str, Any]) -> Any:
    """Let formulaic lay the design out on a few rows that show every level."""
    size = max([8, *(len(c.levels) for c in columns if c.levels is not None)])
    data: dict[str, Any] = {}
    for c in columns:
        if c.levels is not None:
            data[c.name] = pd.Categorical.from_codes(
                np.arange(size) % len(c.levels), categories=pd.Index(c.levels)
            )
        else:
            data[c.name] = np.linspace(c.low, c.high, size)
    frame = pd.DataFrame(data, index=range(size))
    state: dict[str, Any] = {}
    for rule in transforms.values():
        state.update(rule["state"])
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        spec = ModelSpec(formula, transform_state=state)
        return spec.get_model_matrix(frame, na_action="ignore").model_spec


def _plain_state(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain_state(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain_state(v) for v in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value


# ------------------------------------------------------------------------- opening


def prepare(
    data: Any,
    formulas: Mapping[str, str],
    numbers: Iterable[str] = (),
    categories: Iterable[str] = (),
    infinite: Iterable[str] = (),
) -> tuple[Source, Rows, dict[str, Design], Reader]:
    """Open a data set for a fit: check every column that is used, and build the designs."""
    source = Source(data)
    numbers, categories = list(numbers), list(categories)
    source.want([*numbers, *categories])
    parsed = Formulas(formulas, source)
    both = set(numbers) & set(parsed.categories)
    either = [c for c in parsed.either if c not in numbers and c not in parsed.categories]
    if both or set(parsed.categories) & set(parsed.either):
        name = sorted(both | set(parsed.categories) & set(parsed.either))[0]
        raise DataError(
            f"Expected column {name!r} to be used either as numbers or as categories, but the "
            f"model uses it as both ({name} and C({name})). Copy it under a second name."
        )
    reader, n = scan(
        source, numbers=numbers, either=either,
        categories=[*parsed.categories, *categories], infinite=infinite,
    )  # fmt: skip
    rows = source.rows(reader, n)
    designs = parsed.build(rows, reader)
    for design in dict.fromkeys(designs.values()):
        design.derive(rows)
    return source, rows, designs, reader


def encode_new(
    data: Any, designs: Iterable[Design], numbers: Iterable[str] = (), infinite: Iterable[str] = ()
) -> tuple[Source, Rows]:
    """Open new rows for designs of an earlier fit; unseen levels are an error."""
    source = Source(data)
    columns: dict[str, Column] = {name: Column(name) for name in numbers}
    designs = list(designs)
    for design in designs:
        for c in design.columns:
            columns.setdefault(c.name, c)
    source.want(columns)
    if source.kind != "memory":
        raise DataError(
            "Expected rows held in memory for a prediction, but saw a source that is read in "
            "parts. Predict part by part, for example with map_partitions or per batch."
        )
    reader = Reader(list(columns.values()), infinite)
    if columns:
        rows = Rows(reader(next(source.parts()), source.index), source.n_obs)
    else:
        rows = Rows({"": np.zeros(source.n_obs, dtype=np.int8)}, source.n_obs)
    for design in designs:
        design.derive(rows)
    return source, rows


__all__ = [
    "Design", "Formulas", "check", "check_expression", "encode_new", "formula_text", "prepare",
]  # fmt: skip
