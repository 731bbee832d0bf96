"""Log-probabilities of tokens: the shapes that servers send, and bounds for choices."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from causalrm.core.errors import DataError

_LOWEST = -9999.0  # what OpenAI writes for "practically impossible"; -inf is not JSON
# How byte-level BPE and SentencePiece write a leading space or line break.
_MARKERS = "\u0120\u010a\u2581"
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class ChoiceBounds:
    """Probabilities of choices given that one of them is taken, with what bounds them.

    Attributes
    ----------
    probability, lower, upper : ndarray, shape (n_choices,)
        The listed mass of each choice over that of all of them (NaN if that is 0), and the
        smallest and the largest value that the unlisted mass allows.
    mass : float
        Listed probability of all choices together.
    rest : float
        Probability that no listed token accounts for.
    """

    probability: npt.NDArray[np.float64]
    lower: npt.NDArray[np.float64]
    upper: npt.NDArray[np.float64]
    mass: float
    rest: float


def choice_bounds(
    top: Iterable[Sequence[Any]],
    choices: Sequence[str],
    *,
    sampled: tuple[str, float | None] | None = None,
    top_k: int | None = None,
    variants: int | None = 2,
    exact: bool = False,
) -> ChoiceBounds:
    r"""Probability of each choice, and its bounds, from the likeliest tokens alone.

    A choice may be written by several tokens (with and without a leading space, with a
    tokenizer's marker for it); those that are listed are summed. The mass that is not listed,
    ``rest``, may belong to any choice, so for choice y with listed mass :math:`p_y`

    .. math:: \frac{p_y}{\sum_c p_c + g_{-y}} \le P(y) \le \frac{p_y + g_y}{\sum_c p_c + g_y},

    where :math:`g_y` is what y may gain: the smaller of ``rest`` and u times the smallest
    listed probability (no unlisted token is likelier), u the number of tokens that write y and
    are not listed; :math:`g_{-y}` is what the others may gain together.

    Parameters
    ----------
    top : iterable of (token, logprob)
        The likeliest tokens, in any order.
    choices : sequence of str
        Answer keys, each of which is one token.
    sampled : (token, logprob), optional
        The token that was drawn, which servers report even if it is not among the likeliest.
    top_k : int, optional
        How many of `top` are the likeliest (some servers add the drawn token to them).
    variants : int or None, default 2
        How many tokens of the vocabulary write one choice. None assumes nothing: every choice
        may then gain all of ``rest``.
    exact : bool, default False
        `top` lists the choices with their exact probabilities: nothing is missing.

    Returns
    -------
    ChoiceBounds
        With no listed mass the probabilities are NaN and the bounds 0 and 1.

    Raises
    ------
    DataError
        If the probabilities sum to more than 1.01, so that they are not raw ones.

    References
    ----------
    Cruz, Hardt, Mendler-Duenner (2024), arXiv:2407.14614, for reading scores off answer keys.

    Examples
    --------
    >>> import math
    >>> top = [("Yes", math.log(0.5)), (" No", math.log(0.3)), ("Maybe", math.log(0.1))]
    >>> found = choice_bounds(top, ["Yes", "No"])
    >>> found.probability.round(3), round(found.mass, 3), round(found.rest, 3)
    (array([0.625, 0.375]), 0.8, 0.1)
    >>> found.lower.round(3), found.upper.round(3)
    (array([0.556, 0.333]), array([0.667, 0.444]))
    """
    position = {choice.strip(): j for j, choice in enumerate(choices)}
    pairs = [(str(token), math.exp(logprob)) for token, logprob in top]
    likeliest = sorted((p for _, p in pairs), reverse=True)[:top_k]
    if sampled is not None and sampled[1] is not None and sampled[0] not in dict(pairs):
        pairs.append((sampled[0], math.exp(sampled[1])))
    p = np.zeros(len(choices))
    listed = np.zeros(len(choices))
    for token, probability in pairs:
        j = position.get(token.strip(), position.get(spelling(token)))
        if j is not None:
            p[j] += probability
            listed[j] += 1
    total = math.fsum(q for _, q in pairs)
    if total > 1.01:
        raise DataError(
            "Expected raw probabilities, which sum to 1 at most, but the listed ones sum to "
            f"{total:.3f}. Give those of one position, before any scaling."
        )
    mass, rest = float(p.sum()), 0.0 if exact else max(0.0, 1.0 - total)
    smallest = likeliest[-1] if likeliest else 1.0
    gain = np.full(len(choices), rest)
    if variants is not None:
        gain = np.minimum(rest, np.maximum(variants - listed, 0.0) * smallest)
    if mass == 0.0:
        return ChoiceBounds(np.full_like(p, np.nan), np.zeros_like(p), np.ones_like(p), 0.0, rest)
    others = np.minimum(rest, gain.sum() - gain)
    return ChoiceBounds(p / mass, p / (mass + others), (p + gain) / (mass + gain), mass, rest)


def read_logprobs(
    body: Mapping[str, Any], choice: Mapping[str, Any]
) -> list[dict[str, Any]] | None:
    """Read the log-probabilities of a chat completion, whichever server wrote them.

    Understood are the present shape of OpenAI, vLLM, Ollama and llama.cpp
    (``choice["logprobs"]["content"]``); that of the older completions protocol, which
    llama-cpp-python sends for chats too (parallel lists ``tokens``, ``token_logprobs``,
    ``top_logprobs``); and ``body["completion_probabilities"]`` of llama.cpp, with ``probs`` and
    ``tok_str`` before December 2024. The latter are taken after sampling parameters: ask for
    temperature 1, top_p 1 and top_k 0.

    Returns
    -------
    list of dict or None
        As in :class:`causalrm.llm.Reply`; None if there are none.

    Raises
    ------
    ValueError
        If they are there and not of a known shape, or are not log-probabilities.
    """
    try:
        found = choice.get("logprobs") or {}
        if found.get("content"):
            return [_position(entry) for entry in found["content"]]
        if found.get("tokens"):
            tops = found.get("top_logprobs") or [None] * len(found["tokens"])
            rows = zip(found["tokens"], found["token_logprobs"], tops, strict=True)
            return [
                {
                    "token": _token({"token": token}),
                    "logprob": _value({"logprob": value}),
                    "top": _top([{"token": t, "logprob": v} for t, v in (top or {}).items()]),
                }
                for token, value, top in rows
            ]
        legacy = body.get("completion_probabilities")
        return [_position(entry) for entry in legacy] if legacy else None
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"log-probabilities of an unknown shape ({error!r})") from None


def _position(entry: Mapping[str, Any]) -> dict[str, Any]:
    top = entry.get("top_logprobs") or entry.get("top_probs") or entry.get("probs") or []
    pairs = _top(top)
    token = _token(entry) if "token" in entry else str(entry["content"])
    value = _value(entry)
    if value is None:  # the older llama.cpp gives the drawn token's only inside the list
        value = next((v for t, v in pairs if t == token), None)
    return {"token": token, "logprob": value, "top": pairs}


def _top(entries: Iterable[Mapping[str, Any]]) -> list[list[Any]]:
    pairs = [[_token(entry), _value(entry)] for entry in entries]
    return [pair for pair in pairs if pair[1] is not None]


def _value(entry: Mapping[str, Any]) -> float | None:
    value = entry.get("logprob")
    if value is None and entry.get("prob") is not None:
        value = math.log(entry["prob"]) if entry["prob"] > 0 else _LOWEST
    if value is None:
        return None
    if not isinstance(value, int | float) or math.isnan(value) or value > 0.01:
        raise ValueError(f"{value!r} is not a log-probability")
    return min(0.0, max(_LOWEST, float(value)))


def _token(entry: Mapping[str, Any]) -> str:
    """Decode a token, from its bytes if they are given and whole characters."""
    token = entry["token"] if "token" in entry else entry["tok_str"]
    if not isinstance(token, str):
        raise ValueError(f"the token {token!r} is not a string")
    raw = entry.get("bytes")
    if match := _BYTE.fullmatch(token):
        raw = [int(match[1], 16)]
    if raw:
        try:
            return bytes(raw).decode()
        except (UnicodeDecodeError, ValueError):
            pass  # a part of a character: keep the server's own way of writing it
    return token


def spelling(token: str) -> str:
    """What a token writes, without white space and tokenizers' marks for it."""
    return token.strip().strip(_MARKERS).strip()
