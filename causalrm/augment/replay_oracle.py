"""Recorded replies of an oracle: a run again without it, or a run that can be resumed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from causalrm.augment.oracle import STEPS, Ask, Attribute, BestCase, Element, Oracle, OracleReply
from causalrm.core.errors import DataError

_PART = 200  # questions between two writes


class ReplayOracle:
    """Replies from a file of JSON lines; and records any oracle to one.

    Parameters
    ----------
    path : str or path
        One reply a line. Without `record` it must exist.
    record : Oracle, optional
        Asked what is not in the file; its replies are appended as they come, so that a run
        which was killed goes on where it stopped. Failures are not recorded.

    Notes
    -----
    A question that is neither in the file nor put to another oracle has failed, with the
    reason "not recorded". A last line that a kill has cut short is left out, and asked again.

    Examples
    --------
    >>> import tempfile
    >>> from causalrm.augment import Ask, ReplayOracle, RuleOracle
    >>> ask = Ask(step="paraphrase", query="Why?", answer="It often rains. So it is wet.")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = folder + "/replies.jsonl"
    ...     first = ReplayOracle(path, record=RuleOracle()).paraphrase([ask])[0]
    ...     again = ReplayOracle(path).paraphrase([ask])[0]
    >>> first.value == again.value, first.calls, again.calls
    (True, 1, 0)
    """

    def __init__(self, path: str | PathLike[str], record: Oracle | None = None) -> None:
        self.path = Path(path)
        self.record = record
        self._known: dict[str, OracleReply] = {}
        self.vectors = bool(getattr(record, "vectors", False))
        if record is None and not self.path.exists():
            raise DataError(
                f"Expected a file of recorded replies, but {str(self.path)!r} does not exist. Give "
                "record= an oracle to make it."
            )
        if self.path.exists():
            self._load()

    def attributes(self, asks: Sequence[Ask]) -> list[OracleReply]:
        """Give recorded attributes."""
        return self._replies("attributes", asks)

    def elements(self, asks: Sequence[Ask]) -> list[OracleReply]:
        """Give recorded elements."""
        return self._replies("elements", asks)

    def rewrite(self, asks: Sequence[Ask]) -> list[OracleReply]:
        """Give recorded rewritings."""
        return self._replies("rewrite", asks)

    def verify(self, asks: Sequence[Ask]) -> list[OracleReply]:
        """Give recorded verdicts."""
        return self._replies("verify", asks)

    def paraphrase(self, asks: Sequence[Ask]) -> list[OracleReply]:
        """Give recorded paraphrases."""
        return self._replies("paraphrase", asks)

    def align(self, asks: Sequence[Ask]) -> list[OracleReply]:
        """Give recorded aligned answers."""
        return self._replies("align", asks)

    def beside(self, answer: np.ndarray) -> np.ndarray:
        """Give the features of a vector beside an unrelated query, as recorded."""
        ask = Ask(step="beside", query=None, answer=answer)
        if ask.key not in self._known:
            if self.record is None:
                raise DataError(f"{self.path} does not hold this vector beside another query.")
            self._append([(ask, OracleReply(value=self.record.beside(answer)))])  # type: ignore[attr-defined]
        return np.asarray(self._known[ask.key].value)

    def planner(self) -> ReplayOracle:
        """Return an oracle that counts what is not in the file, and neither asks nor writes."""
        return _Planner(self)

    def _replies(self, step: str, asks: Sequence[Ask]) -> list[OracleReply]:
        missing = list({ask.key: ask for ask in asks if ask.key not in self._known}.values())
        new: dict[str, OracleReply] = {}
        for start in range(0, len(missing) if self.record is not None else 0, _PART):
            part = missing[start : start + _PART]
            found = getattr(self.record, step)(part)
            new |= {ask.key: reply for ask, reply in zip(part, found, strict=True)}
            self._append([p for p in zip(part, found, strict=True) if p[1].status == "ok"])
        lost = OracleReply(status="failed", reason="not recorded", calls=0)
        return [new.get(ask.key) or self._known.get(ask.key) or lost for ask in asks]

    def _append(self, pairs: list[tuple[Ask, OracleReply]]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            for ask, reply in pairs:
                value = reply.value.tolist() if isinstance(reply.value, np.ndarray) else reply.value
                told = {
                    "key": ask.key, "value": value, "reason": reply.reason,
                    "vector": isinstance(reply.value, np.ndarray),
                    "ask": json.loads(ask.to_json()),
                }  # fmt: skip
                file.write(json.dumps(told) + "\n")
                self._known[ask.key] = _known(reply)

    def _load(self) -> None:
        raw = self.path.read_bytes()
        lines = raw.split(b"\n")
        if lines[-1]:  # written without its end: the run was killed
            if self.record is not None:
                with open(self.path, "rb+") as file:
                    file.truncate(len(raw) - len(lines[-1]))
        for i, line in enumerate(lines[:-1]):
            try:
                told = json.loads(line)
                self._known[told["key"]] = _reply(told)
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"{self.path}, line {i + 1} is not a recorded reply ({type(error).__name__}: "
                    f"{error})."
                ) from None
            self.vectors = self.vectors or told["vector"]


class _Planner(ReplayOracle):
    def __init__(self, oracle: ReplayOracle) -> None:
        self._known, self.vectors, self.record = dict(oracle._known), oracle.vectors, oracle.record
        planner = getattr(oracle.record, "planner", BestCase)
        if oracle.record is not None:
            self.record = planner()

    def beside(self, answer: np.ndarray) -> np.ndarray:
        return answer

    def _append(self, pairs: list[tuple[Ask, OracleReply]]) -> None:
        """Write nothing."""


def _reply(told: dict[str, Any]) -> OracleReply:
    step, value = told["ask"]["step"], told["value"]
    if step not in (*STEPS, "beside"):
        raise ValueError(f"{step!r} is not a step")
    if step == "attributes":
        value = tuple(Attribute(*item) for item in value)
    elif step == "elements":
        value = tuple(Element(*item) for item in value)
    elif told["vector"]:
        value = np.array(value, dtype=float)
    return OracleReply(value=value, reason=told["reason"], calls=0, cached=1)


def _known(reply: OracleReply) -> OracleReply:
    return OracleReply(value=reply.value, reason=reply.reason, calls=0, cached=1)
