"""JSON without loss: what `Result.to_json` writes and `Result.from_json` reads."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from causalrm.core.errors import DataError

SCHEMA = 1
_TIMES: Any = (pd.DatetimeIndex, pd.TimedeltaIndex)

# JSON has no NaN, tuples, arrays, or keys other than text: those become {"~tag": payload}.
_SCALARS: dict[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "~timestamp": (
        pd.Timestamp,
        lambda x: [x.isoformat(), None if x.tz is None else str(x.tz)],
        lambda v: pd.Timestamp(v[0]) if v[1] is None else pd.Timestamp(v[0]).tz_convert(v[1]),
    ),
    "~timedelta": (
        pd.Timedelta,
        lambda x: encode(x.to_timedelta64()),
        lambda v: pd.Timedelta(decode(v)),
    ),
    "~period": (pd.Period, lambda x: [str(x), x.freqstr], lambda v: pd.Period(v[0], freq=v[1])),
    "~interval": (
        pd.Interval,
        lambda x: [encode(x.left), encode(x.right), x.closed],
        lambda v: pd.Interval(decode(v[0]), decode(v[1]), v[2]),
    ),
}


def encodable(value: Any) -> bool:
    """Say whether JSON can hold the value without loss."""
    try:
        encode(value)
    except DataError:
        return False
    return True


def encode(value: Any) -> Any:
    """Turn a value into what `json.dumps` can write, or raise a DataError."""
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"~float": str(value)}
    if value is pd.NaT or value is pd.NA:
        return {"~missing": "NaT" if value is pd.NaT else "NA"}
    if isinstance(value, np.generic):
        return {"~scalar": encode(np.asarray(value))}
    if isinstance(value, list):
        return [encode(item) for item in value]
    if isinstance(value, tuple):
        return {"~tuple": [encode(item) for item in value]}
    if isinstance(value, dict):
        if all(type(key) is str and not key.startswith("~") for key in value):
            return {key: encode(item) for key, item in value.items()}
        return {"~dict": [[encode(key), encode(item)] for key, item in value.items()]}
    if isinstance(value, np.ndarray):
        return _encode_array(value)
    if isinstance(value, pd.MultiIndex):
        levels = [value.get_level_values(i) for i in range(value.nlevels)]
        return {"~multiindex": [encode(level) for level in levels]}
    if isinstance(value, pd.RangeIndex):
        return {"~range": [value.start, value.stop, value.step, encode(value.name)]}
    if isinstance(value, pd.Index):
        freq = value.freqstr if isinstance(value, _TIMES) else None
        return {"~index": [encode(value.array), encode(value.name), freq]}
    if isinstance(value, pd.Series):
        return {"~series": [encode(x) for x in (value.array, value.index, value.name)]}
    if isinstance(value, pd.DataFrame):
        columns = [encode(value.iloc[:, i].array) for i in range(value.shape[1])]
        return {"~frame": [encode(value.columns), encode(value.index), columns]}
    if type(value) is pd.arrays.NumpyExtensionArray:  # strings are a subclass
        return _encode_array(value.to_numpy())
    if isinstance(value, pd.Categorical):
        return {"~categorical": [value.codes.tolist(), encode(value.categories), value.ordered]}
    if isinstance(value, pd.api.extensions.ExtensionArray):
        return {"~extension": [str(value.dtype), [encode(item) for item in value]]}
    for tag, (kind, write, _) in _SCALARS.items():
        if isinstance(value, kind):
            return {tag: write(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        name, module = type(value).__name__, type(value).__module__
        if module.startswith("causalrm.") and public_class(name) is type(value):
            items = {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
            return {"~object": [name, items]}
    raise DataError(
        f"A {type(value).__name__} cannot be stored as JSON without loss: {value!r:.80}. "
        "Pickle the fitted estimator instead."
    )


def _encode_array(value: np.ndarray) -> Any:
    kind = value.dtype.kind
    if kind == "O":
        items = [encode(item) for item in value.ravel().tolist()]
    elif kind in "mM":
        items = value.ravel().view(np.int64).tolist()
    elif kind in "biuU" or (kind == "f" and value.dtype.itemsize <= 8):
        items = value.ravel().tolist()
        if kind == "f" and not np.isfinite(value).all():
            items = [item if math.isfinite(item) else str(item) for item in items]
    else:
        raise DataError(f"An array of type {value.dtype} cannot be stored as JSON.")
    return {"~array": [value.dtype.str, list(value.shape), items]}


def decode(value: Any) -> Any:
    """Turn what `json.loads` gives back into the value; ValueError and such when damaged."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1 or not next(iter(value)).startswith("~"):
        return {key: decode(item) for key, item in value.items()}
    ((tag, v),) = value.items()
    if tag in _SCALARS:
        return _SCALARS[tag][2](v)
    if tag not in _DECODERS:
        raise ValueError(f"unknown mark {tag!r}")
    return _DECODERS[tag](v)


def _decode_array(v: list[Any]) -> np.ndarray:
    dtype, shape, items = np.dtype(v[0]), tuple(v[1]), v[2]
    if dtype.kind == "O":
        array = np.empty(len(items), dtype=object)
        for i, item in enumerate(items):  # item by item, or numpy unpacks tuples
            array[i] = decode(item)
    elif dtype.kind in "mM":
        array = np.array(items, dtype=np.int64).view(dtype)
    else:
        array = np.array(items, dtype=dtype)
    return array.reshape(shape)


def _decode_index(v: list[Any]) -> Any:
    index: Any = pd.Index(decode(v[0]), name=decode(v[1]))
    if v[2] is not None:
        index.freq = v[2]
    return index


def _decode_frame(v: list[Any]) -> pd.DataFrame:
    columns, index = decode(v[0]), decode(v[1])
    frame = pd.DataFrame({i: decode(item) for i, item in enumerate(v[2])}, index=index)
    frame.columns = columns
    return frame


def _decode_object(v: list[Any]) -> Any:
    kind = public_class(v[0])
    if not dataclasses.is_dataclass(kind):
        raise ValueError(f"{v[0]!r} is not a record")
    return kind(**{key: decode(item) for key, item in v[1].items()})


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "~float": float,
    "~missing": lambda v: {"NaT": pd.NaT, "NA": pd.NA}[v],
    "~scalar": lambda v: decode(v)[()],
    "~tuple": lambda v: tuple(map(decode, v)),
    "~dict": lambda v: {decode(key): decode(item) for key, item in v},
    "~array": _decode_array,
    "~multiindex": lambda v: pd.MultiIndex.from_arrays([decode(level) for level in v]),
    "~range": lambda v: pd.RangeIndex(v[0], v[1], v[2], name=decode(v[3])),
    "~index": _decode_index,
    "~series": lambda v: pd.Series(decode(v[0]), index=decode(v[1]), name=decode(v[2])),
    "~frame": _decode_frame,
    "~categorical": lambda v: pd.Categorical.from_codes(v[0], decode(v[1]), ordered=v[2]),
    "~extension": lambda v: pd.array([decode(item) for item in v[1]], dtype=v[0]),
    "~object": _decode_object,
}


def dumps(result: Any) -> str:
    """A dataclass of the package as text."""
    content = {
        "schema": SCHEMA,
        "class": type(result).__name__,
        "fields": {f.name: encode(getattr(result, f.name)) for f in dataclasses.fields(result)},
    }
    return json.dumps(content, allow_nan=False)


def loads(base: type, source: str | Path) -> Any:
    """The object of class `base`, or of one derived from it, in a text or a file of `dumps`."""
    text, where = str(source), "the text"
    if isinstance(source, Path) or not text.lstrip().startswith("{"):
        where = f"the file {text!r}"
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"Expected the path of a result written by to_json; got {text!r}: {error}."
            ) from error
    try:
        content = json.loads(text)
        schema, name = content["schema"], str(content["class"])
        fields = dict(content["fields"])
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"Expected a result written by to_json in {where}; reading it gave {error!r}."
        ) from error
    if schema != SCHEMA:
        raise DataError(
            f"The result in {where} has schema {schema!r}, and this version of causalrm reads "
            f"schema {SCHEMA}. Read it with the version of causalrm that wrote it."
        )
    # A subclass written outside the package reads its own files.
    kind = base if name == base.__name__ else public_class(name)
    if not issubclass(kind, base) or not dataclasses.is_dataclass(kind):
        raise DataError(f"Expected a {base.__name__} in {where}; found a {name}.")
    try:
        return kind(**{key: decode(value) for key, value in fields.items()})
    except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise DataError(f"The {name} in {where} is incomplete or damaged: {error}.") from error


def public_class(name: str) -> type:
    """Find a class among the public names of causalrm, or in the modules that hold them."""
    import causalrm

    table = causalrm._PUBLIC
    modules = [table[name]] if name in table else sorted(set(table.values()))
    for module in modules:
        found = getattr(importlib.import_module(module), name, None)
        if isinstance(found, type) and found.__module__.split(".")[0] == "causalrm":
            return found
    raise DataError(
        f"{name!r} is not a public class of this version of causalrm. Was the file written by a "
        "later version, or by a class outside causalrm? Such a class reads its own files: "
        "ItsResult.from_json(path)."
    )
