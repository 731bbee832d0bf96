"""What goes to a language model and what comes back: prompts, requests, replies, result frames."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from causalrm.core.errors import DataError
from causalrm.llm.logprobs import ChoiceBounds, choice_bounds

Prompt = str | Sequence[Mapping[str, Any]]

#: Every value that the column `status` can have.
STATUS = {
    "ok": "answered",
    "empty": "answered without any text",
    "refused": "the model or its content filter declined to answer",
    "no_logprobs": "answered without the log-probabilities that were asked for",
    "no_mass": "answered, but no choice is among the tokens that are listed",
    "error": "no answer; `reason` says why",
}

# What we set or would have to interpret; everything else is passed on as it is.
_RESERVED = ("model", "messages", "prompt", "stream", "n", "choices")
_MAX_TOP = 20


@runtime_checkable
class LanguageModel(Protocol):
    """What the rest of causalrm asks of a language model.

    Both methods return a frame with one row per prompt, in order, and the index of `prompts`
    if that is a Series. A prompt that fails is a row with a status and a reason, never an
    exception. The columns are those of :meth:`causalrm.llm.Backend.complete` and
    :meth:`causalrm.llm.Backend.choice_probabilities`.
    """

    def complete(self, prompts: Sequence[Prompt], **decoding: Any) -> pd.DataFrame:
        """Reply to every prompt."""
        ...

    def choice_probabilities(
        self, prompts: Sequence[Prompt], choices: Sequence[str], **decoding: Any
    ) -> pd.DataFrame:
        """Give, for every prompt, the probability of each of the choices."""
        ...


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer of a language model, or the reason why there is none.

    Attributes
    ----------
    text : str or None
    logprobs : list of dict or None
        One entry per token of the text: ``token``, ``logprob`` (None if unknown) and ``top``,
        the likeliest tokens at that place as [token, logprob] pairs. An entry with ``"exact":
        True`` lists the choices themselves, each with its exact log-probability.
    finish_reason, refusal, model : str or None
        As the service reports them.
    prompt_tokens, completion_tokens : int or None
    latency : float
        Seconds that the answering attempt took.
    attempts : int
        How often the request was sent.
    error : str or None
        Why there is no answer.
    scope : {"prompt", "service", "run"}
        What a failure is about: this prompt; the service, which failed after all retries; or
        the whole run (a rejected key), so that the prompts that are left are not sent.
    """

    text: str | None = None
    logprobs: list[dict[str, Any]] | None = None
    finish_reason: str | None = None
    refusal: str | None = None
    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    latency: float = math.nan
    attempts: int = 1
    error: str | None = None
    scope: str = "prompt"

    def __post_init__(self) -> None:
        for name in ("text", "finish_reason", "refusal", "model", "error"):
            if not isinstance(getattr(self, name), str | None):
                raise TypeError(f"{name} of a reply must be a string; got {getattr(self, name)!r}")
        for name in ("prompt_tokens", "completion_tokens"):
            if not isinstance(getattr(self, name), int | None):
                raise TypeError(f"{name} of a reply must be an int; got {getattr(self, name)!r}")
        for place in self.logprobs or ():
            if not isinstance(place, Mapping) or not {"token", "logprob", "top"} <= place.keys():
                raise TypeError(f"logprobs of a reply need token, logprob and top; got {place!r}")

    def to_json(self) -> str:
        """Write the answer (without what only a failure has) as one line of JSON."""
        fields = {k: v for k, v in vars(self).items() if k not in ("error", "scope")}
        if not math.isfinite(self.latency):
            fields["latency"] = None
        return json.dumps(fields)

    @classmethod
    def from_json(cls, text: str) -> Reply:
        """Read what `to_json` wrote."""
        return cls.from_dict(json.loads(text))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Reply:
        """Make a reply from the fields of `to_json`, of which any may be missing."""
        known = {k: v for k, v in fields.items() if k in cls.__dataclass_fields__}
        if known.get("latency") is None:
            known["latency"] = math.nan
        return cls(**known)


@dataclass(frozen=True)
class Request:
    """One call: all that decides what the answer may be."""

    prompt: str | list[dict[str, Any]]
    decoding: dict[str, Any]
    replicate: int = 0
    choices: tuple[str, ...] | None = None

    def to_json(self, model: str, revision: str | None) -> str:
        """Write the request as canonical JSON: the same bytes for the same request."""
        fields = {"model": model, "revision": revision, **vars(self)}
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))

    def key(self, model: str, revision: str | None) -> str:
        """Name the request by the SHA-256 of its canonical JSON."""
        return hashlib.sha256(self.to_json(model, revision).encode()).hexdigest()

    @property
    def text(self) -> str:
        """The prompt as plain text."""
        if isinstance(self.prompt, str):
            return self.prompt
        return "\n".join(f"{m['role']}: {m.get('content')}" for m in self.prompt)


def make_requests(
    prompts: Sequence[Prompt], decoding: Mapping[str, Any], choices: tuple[str, ...] | None = None
) -> list[Request]:
    """Check prompts and decoding parameters, and make one request of each prompt."""
    if isinstance(prompts, str | Mapping):
        raise DataError(
            f"prompts must be a list of prompts; got one {type(prompts).__name__}. "
            "Give [prompt] for a single prompt."
        )
    listed = list(prompts)
    plain = [_prompt(i, prompt) for i, prompt in enumerate(listed)]
    options = {k: _plain(k, v) for k, v in decoding.items() if v is not None}
    replicate = options.pop("replicate", 0)
    if reserved := [name for name in _RESERVED if name in options]:
        raise DataError(f"{reserved[0]!r} is not a decoding parameter that can be given here.")
    if not 0 <= options.get("top_logprobs", 0) <= _MAX_TOP:
        raise DataError(
            f"top_logprobs must be between 0 and {_MAX_TOP}; got {options['top_logprobs']}."
        )
    replicates = replicate if isinstance(replicate, list) else [replicate] * len(plain)
    if len(replicates) != len(plain) or not all(type(r) is int and r >= 0 for r in replicates):
        raise DataError(
            "replicate must be a non-negative int, or one for each of the "
            f"{len(plain)} prompts; got {replicate!r}."
        )
    return [Request(p, options, r, choices) for p, r in zip(plain, replicates, strict=True)]


def check_choices(choices: Sequence[str]) -> tuple[str, ...]:
    """Return the choices stripped of white space, if they are two or more that differ."""
    if isinstance(choices, str) or not all(isinstance(c, str) for c in choices):
        raise DataError(f"choices must be a list of strings; got {choices!r}.")
    keys = tuple(c.strip() for c in choices)
    if len(keys) < 2 or len(set(keys)) < len(keys) or not all(keys):
        raise DataError(
            "choices must be two or more different strings (white space around them does not "
            f"count); got {list(choices)!r}."
        )
    return keys


def frame(
    index: pd.Index[Any],
    keys: Sequence[str],
    replies: Sequence[Reply],
    cached: Sequence[bool],
    name: str,
    choices: tuple[str, ...] | None,
    variants: int | None,
    decoding: Mapping[str, Any],
) -> pd.DataFrame:
    """Put replies into the frame that `complete` or `choice_probabilities` returns."""
    wanted = choices is not None or bool(decoding.get("logprobs"))
    n, labels = len(replies), choices or ()
    bounds = np.full((3, len(labels), n), np.nan)
    mass, rest = np.full(n, np.nan), np.full(n, np.nan)
    told: list[tuple[str, str | None]] = []
    for i, reply in enumerate(replies):
        status, reason = _status(reply, wanted)
        first = reply.logprobs[0] if reply.logprobs else None
        if first is not None and status in ("ok", "empty"):
            if choices is None:
                listed = {first["token"]: first["logprob"], **dict(first["top"])}
                shown = [math.exp(p) for p in listed.values() if p is not None]
                mass[i] = min(1.0, math.fsum(shown))
            else:
                try:
                    found = _bounds(first, choices, decoding.get("top_logprobs"), variants)
                except ValueError as error:
                    status, reason = "error", str(error)
                else:
                    mass[i], rest[i] = found.mass, found.rest
                    bounds[:, :, i] = found.probability, found.lower, found.upper
                    status, reason = ("ok", None) if found.mass else ("no_mass", _no_mass(first))
        told.append((status, reason))
    columns: dict[str, Any] = {
        f"{kind}[{label}]": bounds[k, j]
        for k, kind in enumerate(("probability", "lower", "upper"))
        for j, label in enumerate(labels)
    }
    columns["text"] = np.array([r.text for r in replies], dtype=object)
    columns["logprobs"] = pd.Series([r.logprobs for r in replies], index=index, dtype=object)
    columns["mass"] = mass
    if choices is not None:
        columns["rest"] = rest
    columns["status"] = np.array([status for status, _ in told], dtype=object)
    columns["reason"] = np.array([reason for _, reason in told], dtype=object)
    columns["finish_reason"] = np.array([r.finish_reason for r in replies], dtype=object)
    columns["prompt_tokens"] = pd.array([r.prompt_tokens for r in replies], dtype="Int64")
    columns["completion_tokens"] = pd.array([r.completion_tokens for r in replies], dtype="Int64")
    columns["latency"] = np.array([r.latency for r in replies], dtype=float)
    columns["attempts"] = np.array([r.attempts for r in replies], dtype=int)
    columns["cached"] = np.array(cached, dtype=bool)
    columns["model"] = np.array([r.model or name for r in replies], dtype=object)
    columns["key"] = np.array(keys, dtype=object)
    return pd.DataFrame(columns, index=index)


def _bounds(
    first: Mapping[str, Any], choices: Sequence[str], top_k: int | None, variants: int | None
) -> ChoiceBounds:
    if first.get("exact"):
        return choice_bounds(first["top"], choices, exact=True)
    drawn = (first["token"], first["logprob"])
    return choice_bounds(first["top"], choices, sampled=drawn, top_k=top_k, variants=variants)


def _no_mass(first: Mapping[str, Any]) -> str:
    likeliest = max(first["top"], key=lambda pair: pair[1], default=["(none)"])[0]
    return f"no choice among {len(first['top'])} listed tokens, the likeliest {likeliest!r}"


def _status(reply: Reply, wanted: bool) -> tuple[str, str | None]:
    if reply.error is not None:
        return "error", reply.error
    if reply.refusal is not None or reply.finish_reason == "content_filter":
        return "refused", reply.refusal or "stopped by the content filter"
    if wanted and not reply.logprobs:
        return "no_logprobs", "the reply holds no log-probabilities"
    if not reply.text:
        return "empty", f"the reply holds no text (finish reason {reply.finish_reason})"
    return "ok", None


def _prompt(i: int, prompt: Any) -> str | list[dict[str, Any]]:
    if isinstance(prompt, str):
        return str(prompt)
    if isinstance(prompt, Sequence) and prompt:
        messages = [_plain(f"prompts[{i}]", m) for m in prompt if isinstance(m, Mapping)]
        if len(messages) == len(prompt) and all(isinstance(m.get("role"), str) for m in messages):
            return messages
    raise DataError(
        "Every prompt must be a string or a list of messages such as "
        f"{{'role': 'user', 'content': '...'}}; prompt {i} is {prompt!r:.80}. "
        "Leave out prompts that are missing (dropna)."
    )


def _plain(name: str, value: Any) -> Any:
    """Turn a value into what JSON writes in one way only."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping):
        return {str(k): _plain(name, v) for k, v in value.items()}
    if isinstance(value, Sequence):
        return [_plain(name, v) for v in value]
    raise DataError(f"{name} must be made of what JSON can hold; got {value!r:.80}.")
