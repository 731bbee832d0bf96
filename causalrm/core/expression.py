"""The Python inside formulas: read, checked against a fixed list, and computed without `eval`.

A factor such as ``np.log(dose + 1)`` or ``bs(age, df=4)`` is parsed to a syntax tree. Only what
this module knows can be in the tree, and the tree is walked to compute it, so that a formula, or
a file that holds one, cannot run anything else.
"""

from __future__ import annotations

import ast
import operator
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from formulaic.transforms import TRANSFORMS

from causalrm.core.errors import DataError

_LONGEST = 10_000  # characters; deeper nesting than a sane term has ends in Python's own limits

# Functions of columns, with the most arguments that they take (a further one would be `out`).
_ELEMENTWISE: dict[str, tuple[Callable[..., Any], int]] = {
    f"np.{name}": (getattr(np, name), most)
    for most, names in (
        (
            1,
            "abs arcsinh cbrt ceil cos exp exp2 expm1 floor log log10 log1p log2 sign sin sinh "
            "sqrt square tan tanh",
        ),
        (2, "hypot maximum minimum power round"),
        (3, "clip where"),
    )
    for name in names.split()
} | {name: (getattr(np, name), 1) for name in ("log", "log10", "log2", "exp", "exp2")}
_ELEMENTWISE["I"] = (lambda x: x, 1)

# Functions that learn from the rows, with their further arguments.
_STATEFUL: dict[str, list[str]] = {
    "bs": "df knots degree include_intercept lower_bound upper_bound extrapolation".split(),
    "center": [],
    "poly": ["degree", "raw"],
    "scale": ["center", "scale", "ddof"],
    "standardize": ["center", "rescale", "ddof"],
} | dict.fromkeys(
    ("cc", "cr", "cs"), "df knots lower_bound upper_bound constraints extrapolation".split()
)
_CODINGS: dict[str, Any] = {
    f"contr.{name}": getattr(TRANSFORMS["contr"], name)
    for name in ("treatment", "SAS", "sum", "helmert", "diff", "poly")
} | {name: TRANSFORMS[name] for name in ("Treatment", "Sum", "Helmert", "Diff", "Poly")}

_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
    ast.Pow: operator.pow, ast.BitAnd: operator.and_, ast.BitOr: operator.or_,
    ast.BitXor: operator.xor, ast.USub: operator.neg, ast.UAdd: operator.pos,
    ast.Invert: operator.invert, ast.Eq: operator.eq, ast.NotEq: operator.ne,
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip
_QUOTED = re.compile(r"`([^`]*)`")


@dataclass(frozen=True)
class Coding:
    """What ``C(column, contrasts, levels=, spans_intercept=)`` asks for."""

    column: str
    contrasts: Any = None
    levels: list[Any] | None = None
    spans_intercept: bool = True


@dataclass(frozen=True)
class Computed:
    """A factor's columns.

    Attributes
    ----------
    fields : list
        What stands in brackets after the factor's name; ``[None]`` for a single column.
    values : ndarray of shape (len(fields), n)
    spans_intercept : bool
        Whether the columns add up to a constant, so that the first goes beside an intercept.
    """

    fields: list[Any]
    values: np.ndarray
    spans_intercept: bool


class Expression:
    """A factor of a formula that is more than a column's name.

    Parameters
    ----------
    text : str
        Python as formulaic writes it, names that are no Python names between backticks.
    names : iterable
        The columns of the data.

    Attributes
    ----------
    columns : tuple of str
        The columns used, as they are named in the data.
    learns : tuple of str
        Functions in it that learn from all rows.
    coding : Coding or None
        For ``C(...)``.

    Raises
    ------
    DataError
        For anything but column names, arithmetic, comparisons and the listed functions.
    """

    def __init__(self, text: str, names: Iterable[Any]):
        self.text = text
        self._names: dict[str, str] = {}
        self._known = names if isinstance(names, set) else set(names)
        used: list[str] = []
        learns: list[str] = []
        self._stateful: list[ast.Call] = []
        self.coding: Coding | None = None
        try:
            if len(text) > _LONGEST:
                raise ValueError(f"a term of {len(text)} characters")
            self._tree = ast.parse(self._unquoted(text), mode="eval").body
            tree = self._tree
            if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name):
                if tree.func.id == "C":
                    self.coding = self._coding(tree, used)
            if self.coding is None:
                self._check(tree, used, learns)
        except DataError:
            raise
        except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
            raise DataError(
                f"Expected a term of column names, arithmetic and functions, but {text[:200]!r} "
                f"does not parse ({type(error).__name__}). Correct it; put column names that are "
                "no Python names between backticks."
            ) from error
        self.columns = tuple(dict.fromkeys(used))
        self.learns = tuple(dict.fromkeys(learns))

    @property
    def is_name(self) -> bool:
        """Whether the whole expression is the name of a column."""
        return isinstance(self._tree, ast.Name)

    def compute(
        self, columns: Mapping[str, np.ndarray], state: list[dict[Any, Any]] | None = None
    ) -> tuple[Computed, list[dict[Any, Any]]]:
        """Compute the factor for some rows.

        Parameters
        ----------
        columns : mapping of str to ndarray of shape (n,)
        state : list of dict, optional
            What its functions learned before, one per function; None to learn it now.

        Returns
        -------
        Computed, list of dict
            Its columns and what was learned.
        """
        data = {name: np.asarray(columns[name], dtype=float) for name in self.columns}
        learned: list[dict[Any, Any]] = [{} for _ in self._stateful] if state is None else state
        for call, own in zip(self._stateful, learned, strict=True):
            if state is not None and not own and _learns(call):
                raise ValueError("what the term learned in the fit is missing")
        with np.errstate(all="ignore"):
            value = self._value(self._tree, data, learned)
        meta = getattr(value, "__formulaic_metadata__", None)
        if isinstance(value, dict):
            fields = [k for k in value if not (isinstance(k, str) and k.startswith("__"))]
            values = np.stack([np.asarray(value[k], dtype=float) for k in fields])
        else:
            values = np.asarray(value, dtype=float)
            fields = [None]
            if values.ndim == 2:
                fields = list(getattr(meta, "column_names", None) or range(values.shape[1]))
                values = np.ascontiguousarray(values.T)
            else:
                values = np.atleast_2d(values)
        return Computed(fields, values, bool(getattr(meta, "spans_intercept", False))), learned

    # ---------------------------------------------------------------- checking

    def _unquoted(self, text: str) -> str:
        """Replace names between backticks by identifiers that the text does not use."""
        prefix = "_quoted"
        while prefix in text:
            prefix += "_"
        names: dict[str, str] = {}

        def alias(match: re.Match[str]) -> str:
            return names.setdefault(match.group(1), f"{prefix}{len(names)}")

        plain = _QUOTED.sub(alias, text)
        self._names = {v: k for k, v in names.items()}
        return plain.strip()

    def _column(self, node: ast.Name) -> str:
        name = self._names.get(node.id, node.id)
        if name in self._known:
            return name
        for known in self._known:  # Python normalises identifiers
            if isinstance(known, str) and unicodedata.normalize("NFKC", known) == name:
                return known
        near = ", ".join(sorted(repr(c) for c in self._known)[:12])
        raise DataError(
            f"Expected the names of columns in the term {self.text!r}, but the data have no column "
            f"{name!r}. Give one of: {near}."
        )

    def _refuse(self, what: str) -> DataError:
        known = ", ".join(sorted({*_STATEFUL, *_ELEMENTWISE, "C"}))
        return DataError(
            f"Expected column names, arithmetic and known functions in the term "
            f"{self.text[:200]!r}, but saw {what[:100]}. Use {known}, or add anything else to the "
            "data as a column."
        )

    def _check(self, node: ast.expr, used: list[str], learns: list[str]) -> None:
        """Refuse a tree that `_value` would not compute."""
        match node:
            case ast.Name():
                used.append(self._column(node))
            case ast.Constant(value=bool() | int() | float()):
                pass
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
                self._check(operand, used, learns)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                self._check(left, used, learns)
                self._check(right, used, learns)
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _OPERATORS:
                self._check(left, used, learns)
                self._check(right, used, learns)
            case ast.Call(func=func, args=[first, *rest], keywords=keywords):
                name = ast.unparse(func)
                if name in _ELEMENTWISE and not keywords and len(rest) < _ELEMENTWISE[name][1]:
                    for argument in node.args:
                        self._check(argument, used, learns)
                elif name in _STATEFUL:
                    self._check(first, used, learns)
                    if len(rest) > len(_STATEFUL[name]):
                        raise self._refuse(f"too many arguments of {name}")
                    for keyword in keywords:
                        if keyword.arg not in _STATEFUL[name]:
                            raise self._refuse(f"the argument {keyword.arg!r} of {name}")
                    for argument in [*rest, *(k.value for k in keywords)]:
                        self._constant(argument)
                    self._stateful.append(node)
                    if _learns(node):
                        learns.append(name)
                else:
                    raise self._refuse(ast.unparse(node))
            case _:
                raise self._refuse(ast.unparse(node))

    def _constant(self, node: ast.expr) -> Any:
        """The value of an argument: a number, text, None, or a list of these."""
        match node:
            case ast.Constant(value=bool() | int() | float() | str() | None):
                return node.value
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as op, operand=operand):
                return _OPERATORS[type(op)](self._constant(operand))
            case ast.BinOp(
                left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div() as op, right=right
            ):
                a, b = self._constant(left), self._constant(right)
                if isinstance(a, int | float) and isinstance(b, int | float):
                    return _OPERATORS[type(op)](a, b)
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return [self._constant(item) for item in items]
        raise self._refuse(ast.unparse(node))

    def _coding(self, call: ast.Call, used: list[str]) -> Coding:
        given: dict[str, ast.expr] = dict(zip(("column", "contrasts"), call.args, strict=False))
        given |= {str(k.arg): k.value for k in call.keywords}
        column = given.pop("column", None)
        if len(call.args) > 2 or not set(given) <= {"contrasts", "levels", "spans_intercept"}:
            raise self._refuse("other arguments of C than contrasts, levels and spans_intercept")
        if not isinstance(column, ast.Name):
            raise DataError(
                f"Expected the name of a column first in {self.text!r}, but saw "
                f"{'nothing' if column is None else ast.unparse(column)!r}. Add what stands there "
                "to the data as a column."
            )
        used.append(self._column(column))
        options: dict[str, Any] = {"column": used[-1]}
        for name, node in given.items():
            options[name] = self._contrasts(node) if name == "contrasts" else self._constant(node)
        if not isinstance(options.get("levels"), list | None):
            raise self._refuse("levels that are no list")
        return Coding(**options)

    def _contrasts(self, node: ast.expr) -> Any:
        if isinstance(node, ast.List):
            return np.asarray(self._constant(node), dtype=float)
        call = node if isinstance(node, ast.Call) else None
        name = ast.unparse(node if call is None else call.func)
        if name not in _CODINGS:
            raise self._refuse(ast.unparse(node))
        if call is None:
            return _CODINGS[name]()
        args = [self._constant(a) for a in call.args]
        return _CODINGS[name](*args, **{str(k.arg): self._constant(k.value) for k in call.keywords})

    # ---------------------------------------------------------------- computing

    def _value(self, node: ast.expr, data: Mapping[str, np.ndarray], state: list[Any]) -> Any:
        match node:
            case ast.Name():
                return data[self._column(node)]
            case ast.Constant():
                return node.value
            case ast.UnaryOp():
                return _OPERATORS[type(node.op)](self._value(node.operand, data, state))
            case ast.BinOp():
                left, right = (self._value(side, data, state) for side in (node.left, node.right))
                if isinstance(node.op, ast.Pow) and not (np.ndim(left) or np.ndim(right)):
                    left = float(left)  # whole numbers would grow without bound
                return _OPERATORS[type(node.op)](left, right)
            case ast.Compare():
                left, right = (
                    self._value(side, data, state) for side in (node.left, node.comparators[0])
                )
                return _OPERATORS[type(node.ops[0])](left, right)
            case ast.Call():
                name = ast.unparse(node.func)
                if name in _ELEMENTWISE:
                    return _ELEMENTWISE[name][0](*(self._value(a, data, state) for a in node.args))
                args = [self._constant(a) for a in node.args[1:]]
                options = {str(k.arg): self._constant(k.value) for k in node.keywords}
                own = state[self._stateful.index(node)]
                x = self._value(node.args[0], data, state)
                return TRANSFORMS[name](x, *args, **options, _state=own)
        raise AssertionError(node)


def _learns(call: ast.Call) -> bool:
    """Whether a function of `_STATEFUL` takes something from the rows."""
    given = {str(k.arg) for k in call.keywords}
    name = ast.unparse(call.func)
    if name == "poly":
        raw = [k.value for k in call.keywords if k.arg == "raw"] or call.args[2:3]
        return not (raw and isinstance(raw[0], ast.Constant) and raw[0].value is True)
    if name in ("center", "scale", "standardize"):
        return True
    bounded = {"lower_bound", "upper_bound"} <= given and len(call.args) == 1
    return not bounded or bool({"df", "constraints"} & given)
