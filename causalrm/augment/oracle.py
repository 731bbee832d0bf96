"""What an oracle is asked and what it replies: six questions, in batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

#: The questions, in the order in which an augmentation asks them.
STEPS = ("attributes", "elements", "rewrite", "verify", "paraphrase", "align")


class Attribute(NamedTuple):
    """A causal attribute of answers to a query, and its share of their quality."""

    name: str
    weight: float
    description: str = ""


class Element(NamedTuple):
    """Something about an answer that raises or lowers an attribute."""

    text: str
    effect: str
    """``"raises"`` or ``"lowers"``."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ask:
    """One question to an oracle.

    Attributes
    ----------
    step : str
        One of `STEPS`.
    query : str, or any label beside vectors
    answer : str or numpy.ndarray
        attributes, elements: the chosen answer; rewrite, verify: the answer before it was
        rewritten; paraphrase, align: the answer to rewrite.
    other : str, numpy.ndarray or None
        attributes, elements: the rejected answer; rewrite: the other answer of the pair;
        verify: the answer after it was rewritten; align: the answer to align with.
    attribute, direction : str
        What to move, and ``"upgrade"`` or ``"degrade"``.
    elements : tuple of Element
    n : int
        How many attributes or elements are wanted.
    pair : str
        Names the pair that the question belongs to; oracles are not to show it. Questions that
        differ in it alone are separate draws.
    """

    step: str
    query: Any
    answer: Any
    other: Any = None
    attribute: str = ""
    direction: str = ""
    elements: tuple[Element, ...] = ()
    n: int = 0
    pair: str = ""

    def to_json(self) -> str:
        """Write the question as canonical JSON: the same text for the same question."""
        return self._json(_plain)

    @cached_property
    def key(self) -> str:
        """SHA-256 of all that the question says: what it is looked up by."""
        return hashlib.sha256(self._json(_digest).encode()).hexdigest()

    def _json(self, default: Callable[[Any], Any]) -> str:
        told = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return json.dumps(told, sort_keys=True, separators=(",", ":"), default=default)

    def generator(self, seed: int) -> np.random.Generator:
        """Make a generator that the question and a seed decide, whenever it is asked."""
        return np.random.default_rng([seed, int(self.key, 16)])


@dataclass(frozen=True, kw_only=True, eq=False)
class OracleReply:
    """What an oracle replies to one question.

    Attributes
    ----------
    value : tuple of Attribute, tuple of Element, str, numpy.ndarray, bool or None
        attributes, elements: a tuple of them; rewrite, paraphrase, align: the new answer;
        verify: whether the attribute moved much and nothing else did. None on failure.
    status : {"ok", "failed"}
    reason : str or None
        Why it failed, or why `verify` says no.
    calls : int
        Calls that were paid; 0 for one that was known.
    cached : int
        Calls whose answers were known.
    retries : int
        How often the question was put again because the reply could not be used.
    prompt_tokens, completion_tokens : int
        Of the paid calls, as reported.
    cost : float
        Of the paid calls, NaN without prices.
    """

    value: Any = None
    status: str = "ok"
    reason: str | None = None
    calls: int = 1
    cached: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = float("nan")


@runtime_checkable
class Oracle(Protocol):
    """What an augmentation asks: six methods that take a list and give a list.

    A question that fails is a reply with the status failed and a reason, never an exception
    and never a missing reply. An oracle whose answers are vectors has ``vectors = True`` and a
    method ``beside(answer)``, which gives the features of an answer beside an unrelated query.
    """

    def attributes(self, asks: Sequence[Ask]) -> list[OracleReply]:
        """Name `n` attributes on which the two answers may differ in quality."""
        ...

    def elements(self, asks: Sequence[Ask]) -> list[OracleReply]:
        """Name `n` elements that raise or lower an attribute."""
        ...

    def rewrite(self, asks: Sequence[Ask]) -> list[OracleReply]:
        """Improve or worsen one attribute of an answer and keep the rest."""
        ...

    def verify(self, asks: Sequence[Ask]) -> list[OracleReply]:
        """Judge whether a rewriting moved its attribute much, and nothing else."""
        ...

    def paraphrase(self, asks: Sequence[Ask]) -> list[OracleReply]:
        """Say the same in other words."""
        ...

    def align(self, asks: Sequence[Ask]) -> list[OracleReply]:
        """Give an answer the causal attributes of another, and keep its style."""
        ...


class BestCase:
    """Replies as an oracle would at best, without asking one: to count the questions."""

    def attributes(self, asks: Sequence[Ask]) -> list[OracleReply]:
        """Number the attributes."""
        return [
            OracleReply(value=tuple(Attribute(f"attribute {k}", 1 / a.n) for k in range(a.n)))
            for a in asks
        ]

    def elements(self, asks: Sequence[Ask]) -> list[OracleReply]:
        """Name one element, as often as asked for."""
        return [OracleReply(value=(Element("an element", "raises"),) * a.n) for a in asks]

    def rewrite(self, asks: Sequence[Ask]) -> list[OracleReply]:
        """Mark the answer, so that it differs."""
        return [
            OracleReply(value=f"{a.answer} *" if isinstance(a.answer, str) else a.answer + 1.0)
            for a in asks
        ]

    paraphrase = align = rewrite

    def verify(self, asks: Sequence[Ask]) -> list[OracleReply]:
        """Find every rewriting good."""
        return [OracleReply(value=True) for _ in asks]

    def beside(self, answer: np.ndarray) -> np.ndarray:
        """Return the answer."""
        return answer


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _digest(value: Any) -> Any:
    """Stand in for a vector: its digits take long to write."""
    if isinstance(value, np.ndarray):
        return {"vector": hashlib.sha256(value.astype("<f8").tobytes()).hexdigest()}
    return _plain(value)
