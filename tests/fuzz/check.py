"""What must hold of every case: an answer or a refusal, and the same in any form of the frame."""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

import causalrm as crm
from tests.fuzz.disguise import MISSING, UNQUOTABLE, Disguise, Plan
from tests.fuzz.targets import Names, Target


class Wrong(AssertionError):
    """A crash or a silent wrong answer."""


def arrays(value: Any, undefined: bool = False) -> Iterator[np.ndarray]:
    """Give the numbers in an answer, in order; estimates must be finite unless `undefined`."""
    if isinstance(value, tuple):
        for item in value:
            yield from arrays(item, undefined)
    elif isinstance(value, crm.Estimator | crm.Result):
        frame = value.to_frame()
        if not undefined and "estimate" in frame and not np.isfinite(frame["estimate"]).all():
            raise Wrong(f"an estimate is not finite:\n{frame}")
        yield from arrays(frame)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            if not isinstance(item := getattr(value, field.name), str):
                yield from arrays(item, undefined)
    elif isinstance(value, pd.DataFrame):
        for i in range(value.shape[1]):
            yield from arrays(value.iloc[:, i])
    elif isinstance(value, pd.Series):
        if pd.api.types.is_numeric_dtype(value) or pd.api.types.is_bool_dtype(value):
            yield value.to_numpy(dtype=float, na_value=np.nan)
    else:
        yield np.asarray(value, dtype=float)


def outcome(target: Target, data: Any, names: Names) -> tuple[list[np.ndarray] | None, str]:
    """Return the numbers of the answer, or None and the message of the refusal."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", crm.CausalRMWarning)
        try:
            return list(arrays(target.run(data, names), target.undefined)), ""
        except crm.CausalRMError as error:
            return None, str(error)


def agree(left: list[np.ndarray], right: list[np.ndarray], tolerance: float) -> None:
    """Compare numbers, each relative to the largest of its array."""
    if [a.shape for a in left] != [a.shape for a in right]:
        raise Wrong(f"other shapes: {[a.shape for a in left]} and {[a.shape for a in right]}")
    for i, (a, b) in enumerate(zip(left, right, strict=True)):
        if not np.array_equal(np.isnan(a), np.isnan(b)):
            raise Wrong(f"array {i}: NaN in other places:\n{a}\n{b}")
        finite = np.isfinite(a)
        size = np.abs(a[finite]).max(initial=0.0)
        same = np.isclose(a, b, rtol=tolerance, atol=tolerance * size, equal_nan=True)
        if not same.all():
            raise Wrong(f"array {i} of {len(left)}: {a[~same][:4]} and {b[~same][:4]}")


def check(target: Target, plan: Plan, tolerance: float = 1e-6) -> str:
    """Run a case and return what became of it: "answer" or "refused".

    Raises
    ------
    Wrong
        For a silent wrong answer or a message without the column's name; any other exception is a
        crash.
    """
    content, changed = target.make(), ""
    for change in plan.changes:
        content, changed = change(content)
        if not len(content):
            break
    disguise = plan.disguise
    if target.pandas_only and disguise.library in ("polars", "pyarrow"):
        disguise = dataclasses.replace(disguise, library="pandas")
    left_out = (() if target.booleans else ("bool", "boolean")) + (
        (">f8", ">i4")
        if target.arrays or target.pandas_only
        else ()  # pandas takes no rows of them
    )
    if any(dtype in left_out for dtype in disguise.dtypes):
        dtypes = tuple("float64" if dtype in left_out else dtype for dtype in disguise.dtypes)
        disguise = dataclasses.replace(disguise, dtypes=dtypes)
    try:
        data, mapping = disguise(content, target.levels)
    except Exception:  # noqa: BLE001 - the other library cannot hold such a column
        data, mapping = dataclasses.replace(disguise, library="pandas")(content, target.levels)
    plain = Names({c: c for c in content.columns})
    names = Names(mapping)
    plain.listed = names.listed = disguise.listed
    expected, why = outcome(target, content, plain)
    found, message = outcome(target, data, names)
    if expected is not None and found is not None:
        agree(expected, found, tolerance)
        return "answer"
    if expected is None and found is None:
        odd = [name for name in mapping.values() if name in UNQUOTABLE]
        if len(plan.changes) == 1 and changed and not target.arrays and not odd:
            told(plan.changes[0].kind, names[changed], message, plain[changed], why)
        return "refused"
    odd = [name for name in mapping.values() if name in UNQUOTABLE]
    if expected is not None and odd and any(repr(name)[1:-1] in message for name in odd):
        return "refused"
    raise Wrong(f"plain: {why or 'an answer'}\ndisguised: {message or 'an answer'}")


def told(kind: str, name: str, message: str, plain: str, why: str) -> None:
    """A message about values of a column must name the column."""
    if kind not in MISSING | {"infinite", "dates", "timedeltas", "lists", "bytes", "mixed"}:
        return
    if plain in why and name not in message and repr(name)[1:-1] not in message:
        raise Wrong(f"no {name!r} in: {message}")
    if not re.search(rf"\b{re.escape(plain)}\b", why):
        raise Wrong(f"no {plain!r} in: {why}")


__all__ = ["Disguise", "Plan", "Wrong", "agree", "arrays", "check"]
