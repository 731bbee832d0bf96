"""A store of paid answers, shared by processes: one SQLite file, one answer per request."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from causalrm.core.errors import BackendError
from causalrm.llm.reply import Reply

_FORMAT = 1
_OURS = 0x63726D6C  # the application id that SQLite files can carry
_TABLES = """
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY, request TEXT NOT NULL, reply TEXT NOT NULL, created REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS claims (
    key TEXT PRIMARY KEY, owner TEXT NOT NULL, expires REAL NOT NULL
) WITHOUT ROWID;
"""
_BUSY_SECONDS = 60.0


class Cache:
    """Answers by content: the SHA-256 of model, revision, prompt and decoding parameters.

    Any number of processes of one machine can share the file (it uses SQLite's write-ahead log,
    which network file systems do not support). A request that one of them is paying for is
    claimed, and the others wait for its answer. The claim of a process that was killed is taken
    over at once on the same machine, and when its lease ends elsewhere. Only answers are
    stored: failures are asked again. No key for a service is ever in the file; prompts are.

    Parameters
    ----------
    path : str or path
        The file, made when it is first needed.
    lease : float, default 60
        Seconds that a claim holds if the process that made it no longer renews it.

    Examples
    --------
    >>> import tempfile
    >>> from causalrm.llm import FunctionModel
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model = FunctionModel(str.upper, name="upper", cache=folder + "/replies.sqlite")
    ...     first, second = model.complete(["a", "b"]), model.complete(["b", "c"])
    ...     len(model.cache)
    3
    >>> list(first.cached), list(second.cached)
    ([False, False], [True, False])
    """

    def __init__(self, path: str | os.PathLike[str], *, lease: float = 60.0) -> None:
        self.path = Path(path)
        self.lease = lease

    def __repr__(self) -> str:
        return f"Cache({str(self.path)!r})"

    def __len__(self) -> int:
        with self.session() as session:
            return int(session.db.execute("SELECT count(*) FROM replies").fetchone()[0])

    def to_jsonl(self, path: str | os.PathLike[str]) -> int:
        """Write every answer as a line that :class:`causalrm.llm.Replay` reads.

        Returns
        -------
        int
            The number of lines.
        """
        n = 0
        with self.session() as session, open(path, "w", encoding="utf-8") as file:
            for record in session.records():
                file.write(json.dumps(record) + "\n")
                n += 1
        return n

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Open the file for one run in one thread; no connection outlives it (or a fork)."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            db = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
        except sqlite3.Error as error:
            raise BackendError(f"The cache {self.path} cannot be opened: {error}.") from error
        try:
            _prepare(db, self.path)
            session = Session(db, self.lease)
            try:
                yield session
            finally:
                session.release_all()
        finally:
            db.close()


class Session:
    """An open cache: what one run of one thread asks of it."""

    def __init__(self, db: sqlite3.Connection, lease: float) -> None:
        self.db = db
        self.lease = lease
        self.owner = json.dumps([_machine(), os.getpid(), uuid.uuid4().hex])
        self.warnings: list[str] = []
        self._claimed = False

    def records(self) -> Iterator[dict[str, Any]]:
        """Give all requests with their `reply`, oldest first."""
        rows = self.db.execute("SELECT request, reply FROM replies ORDER BY created, key")
        for request, reply in rows:
            yield {**json.loads(request), "reply": json.loads(reply)}

    def find(self, keys: Sequence[str]) -> dict[str, Reply]:
        """Look up many keys."""
        found: dict[str, Reply] = {}
        for start in range(0, len(keys), 500):
            part = keys[start : start + 500]
            query = f"SELECT key, reply FROM replies WHERE key IN ({','.join('?' * len(part))})"
            rows = self.db.execute(query, part)
            found.update((key, Reply.from_json(text)) for key, text in rows)
        return found

    def claim(self, key: str) -> Reply | bool:
        """Ask for the right to pay for a request.

        Returns
        -------
        Reply or bool
            The answer, if there is one by now; True if the request is ours to send; False if
            another process is sending it.
        """
        if found := self._look(key):
            return found[0]
        self.db.execute("BEGIN IMMEDIATE")
        try:
            if found := self._look(key):  # looked at again, now that nobody else can write
                return found[0]
            self._claimed = True
            self.db.execute(
                "INSERT OR REPLACE INTO claims VALUES (?, ?, ?)",
                (key, self.owner, time.time() + self.lease),
            )
            return True
        finally:
            self.db.execute("COMMIT")

    def _look(self, key: str) -> tuple[Reply | bool] | None:
        row = self.db.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
        if row is not None:
            return (Reply.from_json(row[0]),)
        row = self.db.execute("SELECT owner, expires FROM claims WHERE key = ?", (key,)).fetchone()
        if row is not None and row[1] > time.time() and not _dead(row[0]):
            return (row[0] == self.owner,)
        return None

    def store(self, key: str, request: str, reply: Reply) -> None:
        """Keep an answer and end the claim; the first answer to a request stays."""
        try:
            self.db.execute("BEGIN IMMEDIATE")
            self.db.execute(
                "INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?)",
                (key, request, reply.to_json(), time.time()),
            )
            self.db.execute("DELETE FROM claims WHERE key = ?", (key,))
            self.db.execute("COMMIT")
        except sqlite3.Error as error:  # the answer is paid for: hand it on all the same
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            self.warnings.append(f"An answer could not be stored in the cache: {error}.")

    def release(self, key: str) -> None:
        """End a claim without an answer, so that others may try."""
        self.db.execute("DELETE FROM claims WHERE key = ? AND owner = ?", (key, self.owner))

    def renew(self) -> None:
        """Extend the lease of all our claims."""
        self.db.execute(
            "UPDATE claims SET expires = ? WHERE owner = ?", (time.time() + self.lease, self.owner)
        )

    def release_all(self) -> None:
        """End all our claims, as when a run is interrupted."""
        if self._claimed:
            self.db.execute("DELETE FROM claims WHERE owner = ?", (self.owner,))


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            db.execute("BEGIN")  # one view of all three, while another may be creating the tables
            version, owner, tables = (
                db.execute(question).fetchone()[0]
                for question in (
                    "PRAGMA user_version",
                    "PRAGMA application_id",
                    "SELECT count(*) FROM sqlite_master",
                )
            )
            db.execute("COMMIT")
            if version == _FORMAT and owner == _OURS:
                db.execute("PRAGMA synchronous = NORMAL")
                return
            if version or tables:
                raise BackendError(f"{path} is a database, but not a cache of this version.")
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(
                f"BEGIN IMMEDIATE;{_TABLES}PRAGMA application_id = {_OURS};"
                f"PRAGMA user_version = {_FORMAT};COMMIT;"
            )
        except sqlite3.OperationalError as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            # Switching to the write-ahead log does not wait for others: try again.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise BackendError(f"The cache {path} cannot be opened: {error}.") from error
            time.sleep(0.02)
        except sqlite3.DatabaseError as error:
            raise BackendError(f"{path} is not a cache file: {error}.") from error


def _machine() -> str:
    """Name the machine and the set of process ids that `os.kill` can ask about."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return f"{socket.gethostname()} {space}"


def _dead(owner: str) -> bool:
    """Tell whether the process that made a claim is known to be gone."""
    machine, pid, _ = json.loads(owner)
    if os.name != "posix" or machine != _machine():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
