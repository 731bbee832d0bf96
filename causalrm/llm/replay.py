"""Recorded replies: a run again, without the model."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from causalrm.core.errors import DataError
from causalrm.llm.backend import Backend
from causalrm.llm.cache import Cache
from causalrm.llm.reply import Reply, Request, make_requests


class Replay(Backend):
    """Answers from a file; a prompt that is not in it is a row with the status error.

    Parameters
    ----------
    path : str or path
        A cache file (SQLite) or its export (:meth:`Cache.to_jsonl`). By hand, one JSON object
        a line: ``prompt`` (a string or a list of messages), and ``text`` or ``reply`` (the
        fields of :class:`Reply`); optionally ``decoding``, ``replicate`` and ``choices``.
    model : str, optional
        Use the replies of this model only. Needed if the file has those of several.

    Notes
    -----
    A line with ``decoding`` answers requests with exactly these parameters, one without
    answers any. Several such lines of one prompt are its replicates, in order.

    Examples
    --------
    >>> import json, tempfile
    >>> line = {"prompt": "Is fire hot?", "text": "Yes"}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = folder + "/recorded.jsonl"
    ...     with open(path, "w") as file:
    ...         _ = file.write(json.dumps(line))
    ...     Replay(path).complete(["Is fire hot?", "Is ice hot?"])[["text", "status"]]
       text status
    0   Yes     ok
    1  None  error
    """

    def __init__(self, path: str | PathLike[str], *, model: str | None = None) -> None:
        self.path = Path(path)
        self.model = model
        self._exact: dict[str, Reply] = {}
        self._any: dict[str, list[Reply]] = {}
        found = set()
        for i, record in enumerate(_records(self.path)):
            source = record.get("model")
            if model is not None and source not in (model, None):
                continue
            found.add(source)
            try:
                self._add(record)
            except (DataError, KeyError, TypeError, ValueError) as error:
                raise DataError(f"{self.path}, record {i + 1} is not a reply: {error}") from None
        names = sorted(str(name) for name in found if name is not None)
        if len(names) > 1:
            raise DataError(f"{self.path} has replies of several models: name one of {names}.")
        if not found:
            raise DataError(f"{self.path} has no replies" + (f" of {model!r}." if model else "."))
        super().__init__(names[0] if names else self.path.stem, progress=False)

    def __repr__(self) -> str:
        return f"Replay({str(self.path)!r}, model={self.model!r})"

    def _add(self, record: Mapping[str, Any]) -> None:
        fields = record["reply"] if "reply" in record else {"text": record["text"]}
        decoding = {**record.get("decoding", {}), "replicate": record.get("replicate", 0)}
        choices = tuple(record["choices"]) if record.get("choices") else None
        [request] = make_requests([record["prompt"]], decoding, choices)
        reply = Reply.from_dict(fields)
        if "decoding" in record:
            self._exact.setdefault(request.key("", None), reply)
        else:
            self._any.setdefault(_bare(request), []).append(reply)

    async def _answer(self, request: Request, connection: Any) -> Reply:
        exact = self._exact.get(request.key("", None))
        if exact is not None:
            return exact
        others = self._any.get(_bare(request), [])
        if request.replicate < len(others):
            return others[request.replicate]
        return Reply(error="not recorded with these parameters", attempts=0)


def _bare(request: Request) -> str:
    return Request(request.prompt, {}).key("", None)


def _records(path: Path) -> Iterable[dict[str, Any]]:
    try:
        with open(path, "rb") as file:
            is_sqlite = file.read(16) == b"SQLite format 3\0"
        if is_sqlite:
            with Cache(path).session() as session:
                return list(session.records())
        lines = path.read_text(encoding="utf-8").split("\n")
        return [_object(path, i, line) for i, line in enumerate(lines) if line.strip()]
    except (OSError, sqlite3.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error


def _object(path: Path, i: int, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {i + 1} is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}, line {i + 1} is not a JSON object.")
    return value
