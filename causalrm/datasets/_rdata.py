"""Data frames out of R's `.rda` files.

Reads what `save()` writes in its default binary form (XDR, versions 2 and 3; gzip, bzip2, xz
or not compressed), as far as data frames of logical, integer, numeric, character and factor
columns need it. The format is described in "R Internals", section "Serialization Formats".
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from causalrm.core.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

# Types of R objects, and the markers that stand in their place (Rinternals.h, serialize.c).
_SYMBOL, _PAIRLIST, _CHAR, _LOGICAL, _INTEGER, _REAL, _STRING, _LIST = 1, 2, 9, 10, 13, 14, 16, 19
_ALTREP, _NIL, _REFERENCE = 238, 254, 255
_HAS_ATTRIBUTES, _HAS_TAG = 1 << 9, 1 << 10
_NA_INTEGER = -(2**31)


@dataclass
class _Vector:
    values: Any  # an array; a list for strings and lists
    attributes: dict[str, Any] = field(default_factory=dict)

    def strings(self, attribute: str) -> list[str | None]:
        vector = self.attributes.get(attribute)
        return list(vector.values) if isinstance(vector, _Vector) else []


class _Reader:
    """The items of one serialised stream, in order."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._symbols: list[str] = []

    def take(self, n: int) -> bytes:
        piece = self._data[self._at : self._at + n]
        if len(piece) < n:
            raise DataError(
                f"The R data end after {len(self._data)} bytes, inside an object: "
                "the file is cut short. Get it again."
            )
        self._at += n
        return piece

    def integer(self) -> int:
        return int(struct.unpack(">i", self.take(4))[0])

    def length(self) -> int:
        n = self.integer()
        if n == -1:  # a long vector: the length in two halves
            high, low = struct.unpack(">II", self.take(8))
            return int(high) * 2**32 + int(low)
        return n

    def header(self) -> None:
        version = self.integer()
        self.take(8)  # the versions of R that wrote it and that can read it
        if version == 3:
            self.take(self.integer())  # the writer's native encoding
        elif version != 2:
            raise DataError(f"Expected R serialisation of version 2 or 3, seen {version}.")

    def item(self) -> Any:
        return self._item(self.integer())

    def _item(self, flags: int) -> Any:
        kind = flags & 0xFF
        if kind == _NIL:
            return None
        if kind == _REFERENCE:
            return self._symbols[(flags >> 8 or self.integer()) - 1]
        if kind == _SYMBOL:
            self._symbols.append(str(self.item()))
            return self._symbols[-1]
        if kind == _CHAR:
            return self._text()
        if kind == _PAIRLIST:
            return self._pairs(flags)
        if kind == _ALTREP:
            return self._compact()
        vector = _Vector(self._values(kind))
        if flags & _HAS_ATTRIBUTES:
            vector.attributes = dict(self.item() or ())
        return vector

    def _values(self, kind: int) -> Any:
        if kind in (_LOGICAL, _INTEGER):
            return np.frombuffer(self.take(4 * self.length()), ">i4").astype(np.int64)
        if kind == _REAL:
            return np.frombuffer(self.take(8 * self.length()), ">f8").astype(np.float64)
        if kind in (_STRING, _LIST):
            return [self.item() for _ in range(self.length())]
        raise DataError(
            f"The file holds an R object of type {kind}; this reader knows data frames of "
            "logical, integer, numeric, character and factor columns."
        )

    def _text(self) -> str | None:
        n = self.integer()
        if n == -1:
            return None
        raw = self.take(n)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return raw.decode("latin-1")

    def _pairs(self, flags: int) -> list[tuple[Any, Any]]:
        pairs = []
        while flags & 0xFF == _PAIRLIST:
            if flags & _HAS_ATTRIBUTES:
                self.item()
            tag = self.item() if flags & _HAS_TAG else None
            pairs.append((tag, self.item()))
            flags = self.integer()
        if flags & 0xFF != _NIL:  # a dotted pair
            pairs.append((None, self._item(flags)))
        return pairs

    def _compact(self) -> _Vector:
        """Read R's stand-ins for vectors: sequences, and vectors wrapped with a note on order."""
        info, state, attributes = self.item(), self.item(), self.item()
        name = info[0][1]
        if name in ("compact_intseq", "compact_realseq"):
            n, first, step = state.values
            vector = _Vector(first + step * np.arange(int(n)))
            if name == "compact_intseq":
                vector.values = vector.values.astype(np.int64)
        elif name.startswith("wrap_"):
            vector = state[0][1]  # the vector, before the note
        else:
            raise DataError(f"The file holds an R vector in the compact form {name!r}, not known.")
        if attributes:
            vector.attributes = dict(attributes)
        return vector


def read_rda(path: str | Path) -> dict[str, pd.DataFrame]:
    """Read the data frames of an R data file.

    Parameters
    ----------
    path : str or Path
        A file written by R's ``save()``.

    Returns
    -------
    dict of str to pandas.DataFrame
        By the name they were saved under. Logicals become 0/1; these and integers are floats
        where values are missing. Factors become categoricals. Row names are the index where R
        stores any.

    Raises
    ------
    DataError
        When the file is something else, is cut short, or holds objects other than data frames.
    """
    data = _decompressed(Path(path))
    if data[:7] not in (b"RDX2\nX\n", b"RDX3\nX\n"):
        raise DataError(
            f"Expected an R data file in binary form (RDX2 or RDX3) at {path}, "
            f"seen {data[:7]!r} at its start."
        )
    reader = _Reader(data[7:])
    reader.header()
    saved = reader.item()
    return {name: _data_frame(name, vector) for name, vector in saved or ()}


def _decompressed(path: Path) -> bytes:
    raw = path.read_bytes()
    try:
        if raw[:2] == b"\x1f\x8b":
            return gzip.decompress(raw)
        if raw[:3] == b"BZh":
            return bz2.decompress(raw)
        if raw[:6] == b"\xfd7zXZ\x00":
            return lzma.decompress(raw)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"The compressed file {path} is damaged: {error}.") from error
    return raw


def _data_frame(name: str, vector: Any) -> pd.DataFrame:
    import pandas as pd

    if not isinstance(vector, _Vector) or "data.frame" not in vector.strings("class"):
        raise DataError(f"The R object {name!r} is not a data frame.")
    columns = {
        column: _column(column, values)
        for column, values in zip(vector.strings("names"), vector.values, strict=True)
    }
    rows = vector.attributes["row.names"].values
    # Row names 1..n are stored as (NA, -n) or (NA, n).
    automatic = len(rows) == 2 and not isinstance(rows, list) and rows[0] == _NA_INTEGER
    index = pd.RangeIndex(abs(int(rows[1]))) if automatic else pd.Index(rows)
    return pd.DataFrame(columns, index=index)


def _column(name: str | None, vector: _Vector) -> Any:
    import pandas as pd

    classes = vector.strings("class")
    values = vector.values
    if "factor" in classes:
        codes = np.where(values == _NA_INTEGER, 0, values) - 1
        return pd.Categorical.from_codes(
            codes, pd.Index(vector.strings("levels")), ordered="ordered" in classes
        )
    if classes:
        raise DataError(f"Column {name!r} has the R class {classes[0]!r}, which is not read.")
    if isinstance(values, list) or values.dtype == np.float64:
        return values
    missing = values == _NA_INTEGER
    return np.where(missing, np.nan, values) if missing.any() else values
