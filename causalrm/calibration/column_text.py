"""How the values of one column are written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import narwhals as nw
import numpy as np
import pandas as pd

from causalrm.core.errors import DataError

type Values = Mapping[Any, str] | Sequence[tuple[float | None, float | None, str]]
"""Texts by value, or (low, high, text) for low <= value < high, None being no limit."""

GRANULARITIES = ("full", "coarse")


@dataclass(frozen=True)
class ColumnText:
    """How the values of one column are written: plain data, so that JSON can hold it.

    Parameters
    ----------
    description : str
        What the column is, in words that fit after "the": "age", "marital status".
    values : mapping, or sequence of (low, high, text), optional
        The text of every value, or of ranges with ``low <= value < high`` (None: no limit).
        A value without a text is an error when a row is written. Without `values`, booleans
        are written as yes and no, numbers by `number`, all else as `str` has it.
    coarse : as `values`, optional
        Texts for the granularity "coarse".
    number : str, optional
        A format specification such as ``",.0f"``. By default six significant digits, and all
        digits of integers.
    template : str
        What stands around the value: ``"{} years"``.
    connector : str, optional
        Between description and value, in place of the task's.
    missing : str, optional
        Text of a missing value, in place of the task's.

    Examples
    --------
    >>> ColumnText("age", template="{} years").text(34.0)
    '34 years'
    >>> age = ColumnText("age", coarse=[(None, 18, "a minor"), (18, None, "an adult")])
    >>> age.text(34, "coarse")
    'an adult'
    """

    description: str
    values: Values | None = None
    coarse: Values | None = None
    number: str = ""
    template: str = "{}"
    connector: str | None = None
    missing: str | None = None

    def __post_init__(self) -> None:
        if not self.description or self.template.count("{}") != 1:
            raise DataError(
                "A ColumnText needs a description and a template with one {}; got "
                f"{self.description!r} and {self.template!r}."
            )
        try:
            format(1.5, self.number)
        except ValueError as error:
            raise DataError(
                f"number={self.number!r} of {self.description!r} does not format 1.5 ({error}); "
                "give a specification for floats such as ',.0f'."
            ) from None
        for name in ("values", "coarse"):
            object.__setattr__(self, name, _check_values(self.description, getattr(self, name)))

    def text(self, value: Any, granularity: str = "full", missing: str = "unknown") -> str | None:
        """Write one value; None if `values` (or `coarse`) has no text for it."""
        if is_missing(value):
            return missing if self.missing is None else self.missing
        values = self.values
        if granularity == "coarse" and self.coarse is not None:
            values = self.coarse
        if values is None:
            return self.template.replace("{}", _written(value, self.number))
        if isinstance(values, Mapping):
            return values.get(value)
        if isinstance(value, int | float | np.number):
            for low, high, text in values:
                if (low is None or value >= low) and (high is None or value < high):
                    return text
        return None

    @classmethod
    def inferred(cls, name: str, series: nw.Series[Any]) -> Self:
        """Describe a column by its name, and categories by a text each."""
        description = " ".join(name.replace("_", " ").split()) or name
        native = series.to_native()
        levels: tuple[Any, ...] = ()
        if isinstance(native, pd.Series) and isinstance(native.dtype, pd.CategoricalDtype):
            levels = tuple(plain(v) for v in native.dtype.categories)
        elif isinstance(series.dtype, nw.Enum):
            levels = tuple(series.dtype.categories)
        if levels and all(map(storable, levels)):
            return cls(description, {v: _written(v, "") for v in levels})
        return cls(description)

    def to_plain(self) -> dict[str, Any]:
        """Return what differs from the defaults, for JSON (whose keys are strings only)."""
        out = {f.name: getattr(self, f.name) for f in fields(self)}
        out = {name: v for name, v in out.items() if v not in (None, "", "{}")}
        for name in out.keys() & {"values", "coarse"}:
            pairs = out[name].items() if isinstance(out[name], Mapping) else out[name]
            out[name] = [list(pair) for pair in pairs]
        return out

    @classmethod
    def from_plain(cls, fields: Mapping[str, Any]) -> Self:
        """Read what `to_plain` returned."""
        options = dict(fields)
        for name in options.keys() & {"values", "coarse"}:
            items = [tuple(item) for item in options[name]]
            options[name] = dict(items) if all(len(i) == 2 for i in items) else items
        return cls(**options)


def plain(value: Any) -> Any:
    """Turn a numpy scalar into Python's."""
    return value.item() if isinstance(value, np.generic) else value


def is_missing(value: Any) -> bool:
    """Tell None, NaN, NA and NaT."""
    not_a_number = isinstance(value, float) and value != value
    return value is None or value is pd.NA or value is pd.NaT or not_a_number


def storable(value: Any) -> bool:
    """Tell what JSON can hold as it is: strings, booleans and finite numbers."""
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _check_values(description: str, values: Any) -> Any:
    """Return the values with plain keys or limits, if they are of one of the two kinds."""
    if values is None:
        return None
    out: Any
    if isinstance(values, Mapping):
        out = {plain(k): v for k, v in values.items()}
        texts = list(out.values())
        fine = all(map(storable, out))
    else:
        out = tuple((plain(low), plain(high), text) for low, high, text in values)
        limits, texts = [x for r in out for x in r[:2]], [r[2] for r in out]
        fine = all(x is None or (storable(x) and not isinstance(x, str)) for x in limits)
    if not out or not fine or not all(isinstance(text, str) and text for text in texts):
        raise DataError(
            f"values of {description!r} must map strings, numbers or booleans to texts, or be "
            f"ranges (low, high, text) with None for no limit; got {values!r:.200}."
        )
    return out


def _written(value: Any, number: str) -> str:
    """Write a value that has no text of its own, on one line."""
    value = plain(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    if isinstance(value, int):
        return format(value, number)
    if isinstance(value, float):
        short = 1e-4 <= abs(value) < 1e6
        return format(value, number or ".6g") if number or short else repr(value)
    return " ".join(str(value).split()) or '""'
