"""Every reply that was paid for, kept so that any method can be fitted again without a call."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from causalrm.core.errors import DataError, warn

_KIND = "causalrm attribution archive"
_SQLITE = (".sqlite", ".sqlite3", ".db")

type Key = tuple[bytes, int, int]
"""Coalition as packed bits, variant of the prompt, replicate."""
type Row = dict[str, Any]


class Archive:
    """Replies by coalition, variant of the prompt and replicate, in the order of arrival.

    Parameters
    ----------
    path : str or path, optional
        A file that every reply is written to when it comes: lines of JSON, or SQLite where the
        name ends with .sqlite or .db. An existing file is read and continued. Without a path
        the archive is in memory, and `save` writes it.

    Examples
    --------
    >>> import tempfile
    >>> import causalrm as crm
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = folder + "/game.jsonl"
    ...     fit = crm.PromptShapley().fit(["a", "b"], lambda Z: Z @ [1.0, 2.0], archive=path)
    ...     len(Archive(path))
    4
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        self.header: dict[str, Any] = {}
        self.orders: list[list[int]] = []
        self.rows: dict[Key, Row | float] = {}
        if self.path is not None and self.path.exists() and self.path.stat().st_size:
            for line in _read(self.path):
                self._take(line)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        where = "in memory" if self.path is None else repr(str(self.path))
        return f"<Archive {where}: {len(self)} replies>"

    def _take(self, line: dict[str, Any]) -> None:
        if "header" in line:
            self.header = line["header"]
        elif "orders" in line:
            self.orders += line["orders"]
        else:
            key = (bytes.fromhex(line["coalition"]), line["variant"], line["replicate"])
            self.rows.setdefault(key, line["reply"])

    def open(self, header: dict[str, Any]) -> None:
        """Say what game the replies belong to; those of another game are refused.

        Raises
        ------
        DataError
            When the archive was made with another template or value function.
        """
        if not self.header:
            self.header = dict(header)
            self._write([{"header": self.header}])
            return
        for name in ("names", "template", "value"):
            if self.header[name] != json.loads(json.dumps(header[name])):
                raise DataError(
                    f"The archive {self!r} holds replies of another game: its {name} was "
                    f"{str(self.header[name])!r:.200} and is now {str(header[name])!r:.200}. "
                    "Give another file."
                )

    def add(self, keys: Sequence[Key], rows: Sequence[Row | float]) -> None:
        """Keep replies, and write them to the file at once."""
        self.rows.update(zip(keys, rows, strict=True))
        self._write(map(_line, keys, rows))

    def add_orders(self, orders: np.ndarray) -> None:
        """Keep the orders of players whose prefixes are asked, if they are new."""
        new = orders[len(self.orders) :].tolist()
        if new:
            self.orders += new
            self._write([{"orders": new}])

    def save(self, path: str | Path) -> None:
        """Write everything to a new file, in the format that its name asks for."""
        if Path(path).exists():
            raise DataError(f"{path} exists already. Give another name, or remove it first.")
        lines: list[dict[str, Any]] = [{"header": self.header}]
        if self.orders:
            lines.append({"orders": self.orders})
        _append(Path(path), [*lines, *map(_line, self.rows, self.rows.values())])

    def to_frame(self) -> pd.DataFrame:
        """Return one row per reply: a column per player, variant, replicate, and the reply."""
        names = self.header.get("names", [])
        Z = self.coalitions(len(names))
        frame = pd.DataFrame(Z, columns=names)
        frame["variant"] = [variant for _, variant, _ in self.rows]
        frame["replicate"] = [replicate for *_, replicate in self.rows]
        rows = [row if isinstance(row, dict) else {"value": row} for row in self.rows.values()]
        return pd.concat([frame, pd.DataFrame(rows)], axis=1)

    def coalitions(self, n: int) -> np.ndarray:
        """Coalition of each reply, shape (replies, n)."""
        raw = np.frombuffer(b"".join(mask for mask, *_ in self.rows), dtype=np.uint8)
        return np.unpackbits(raw.reshape(len(self.rows), -1), axis=1, count=n).astype(bool)

    def _write(self, lines: Iterable[dict[str, Any]]) -> None:
        if self.path is not None:
            _append(self.path, lines)


def _line(key: Key, row: Row | float) -> dict[str, Any]:
    return {"coalition": key[0].hex(), "variant": key[1], "replicate": key[2], "reply": row}


def _append(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    texts = [json.dumps(line) for line in lines]
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in _SQLITE:
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("CREATE TABLE IF NOT EXISTS lines (number INTEGER PRIMARY KEY, line TEXT)")
            db.executemany("INSERT INTO lines (line) VALUES (?)", [(text,) for text in texts])
        return
    with open(path, "a", encoding="utf-8") as file:
        file.write("".join(text + "\n" for text in texts))


def _read(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix in _SQLITE:
        try:
            with closing(sqlite3.connect(path)) as db:
                texts = [row[0] for row in db.execute("SELECT line FROM lines ORDER BY number")]
        except sqlite3.Error as error:
            raise DataError(f"{path} is not an archive of replies: {error}.") from None
    else:
        raw = path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):  # the writer was killed in the middle of a line
            warn(f"The last line of {path} was cut short and is left out; it is asked again.")
            with open(path, "r+b") as file:
                file.truncate(len(whole))
        texts = whole.decode(errors="replace").split("\n")[:-1]
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
            if number == 1 and line["header"]["kind"] != _KIND:
                raise KeyError("kind")
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}, line {number}, is not of an archive: {error!r}.") from None
        yield line


def header(names: Sequence[str], template: str, value: dict[str, Any], entropy: int) -> Row:
    """Describe a game."""
    return {
        "kind": _KIND,
        "names": list(names),
        "template": template,
        "value": value,
        "entropy": str(entropy),
    }
