"""Services that speak the chat completions protocol: OpenAI, vLLM, llama.cpp, Ollama, ..."""

from __future__ import annotations

import asyncio
import email.utils
import json
import os
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any
from urllib.parse import urlsplit

from causalrm.core.errors import BackendError, DataError, require
from causalrm.llm.backend import Backend
from causalrm.llm.cache import Cache
from causalrm.llm.limits import RateLimit
from causalrm.llm.logprobs import read_logprobs
from causalrm.llm.reply import Reply, Request

_LONGEST_DELAY = 60.0  # of our own back-off
_LONGEST_WAIT = 600.0  # that a server may ask for; beyond it, the prompt is given up
_RETRIED = (408, 409, 425, 429)  # and all from 500 up
_NO_KEY = "none"  # local servers want a header, not a key


class OpenAICompatible(Backend):
    """A service that speaks OpenAI's chat completions protocol.

    Parameters
    ----------
    model : str
        The service's name of the model.
    base_url : str, optional
        Such as ``http://127.0.0.1:8000/v1``; OpenAI's if it is not given.
    api_key : str, optional
        Otherwise the environment variable `api_key_variable` is read when a run starts. A key
        given here stays in this object: it is neither pickled (a process that gets the pickle
        reads the variable) nor shown, cached or told in errors.
    api_key_variable : str, default "OPENAI_API_KEY"
    revision : str, optional
        Part of what answers are cached under. Endpoints that serve different weights under one
        name need different revisions.
    concurrency : int, default 8
        Requests under way at the same time.
    requests_per_minute, tokens_per_minute : float, optional
        Limits of this process; requests are spaced evenly. Tokens are estimated (a quarter of
        the bytes, and ``max_tokens``) and corrected by what the service reports.
    retries : int, default 5
        Further attempts after connection errors, timeouts, malformed replies and the statuses
        408, 409, 425, 429 and 5xx, with exponential back-off and jitter, not before the time
        that the service asks for (Retry-After, up to ten minutes; all requests wait).
    backoff : float, default 0.5
        Seconds before the first retry (half of it to all of it, at random); doubled each time.
    timeout : float, default 120
        Seconds for one attempt in all.
    give_up_after : int, default 50
        So many prompts in a row lost to the service, each after all its retries, end the run:
        the prompts that are left are rows with an error. A rejected key or an unknown model
        does so at once.
    cache : Cache, str or path, optional
        With it a run that was stopped resumes: what is cached is not sent.
    progress : bool, default True
        On a terminal only.

    Notes
    -----
    A string is sent as one user message. The client's connections live as long as one call of
    `complete` or `choice_probabilities`, so the object can be copied, pickled, forked and used
    by several threads, and inside a running event loop.

    Examples
    --------
    >>> from causalrm.llm import FunctionModel, LoopbackServer, OpenAICompatible
    >>> simulated = FunctionModel(lambda prompt: {"Yes": 0.25, "No": 0.75}, name="simulated")
    >>> with LoopbackServer(simulated) as server:
    ...     model = OpenAICompatible("simulated", base_url=server.base_url, api_key="secret")
    ...     found = model.choice_probabilities(["Is it so?"], ["Yes", "No"])
    >>> found[["probability[Yes]", "status"]]
       probability[Yes] status
    0              0.25     ok
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        api_key_variable: str = "OPENAI_API_KEY",
        revision: str | None = None,
        concurrency: int = 8,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        retries: int = 5,
        backoff: float = 0.5,
        timeout: float = 120.0,
        give_up_after: int = 50,
        cache: Cache | str | PathLike[str] | None = None,
        progress: bool = True,
    ) -> None:
        super().__init__(
            model, revision=revision, cache=cache, concurrency=concurrency, progress=progress
        )
        for name, value in (
            ("requests_per_minute", requests_per_minute),
            ("tokens_per_minute", tokens_per_minute),
            ("timeout", timeout),
            ("give_up_after", give_up_after),
        ):
            if value is not None and not value > 0:
                raise DataError(f"{name} must be positive; got {value!r}.")
        if retries < 0 or backoff < 0:
            raise DataError(f"retries and backoff must be >= 0; got {retries!r}, {backoff!r}.")
        self.base_url = base_url
        self.api_key_variable = api_key_variable
        self.retries = retries
        self.backoff = backoff
        self.timeout = timeout
        self._secret = _Secret(api_key)
        self._limit = RateLimit(requests_per_minute, tokens_per_minute)
        self._give_up_after = give_up_after

    def __repr__(self) -> str:
        parts = urlsplit(self.base_url or "")
        place = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
        return f"OpenAICompatible({self.name!r}, base_url={place or None!r})"

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[_Connection]:
        openai = require("openai", "llm")
        key = (self._secret.value or os.environ.get(self.api_key_variable) or "").strip() or None
        if key is None and self.base_url is None:
            raise BackendError(
                f"No key: set the environment variable {self.api_key_variable}, or give api_key "
                "(it is not pickled, so processes that get a pickle need the variable), or give "
                "the base_url of a server that needs none."
            )
        if key is not None and not (key.isascii() and key.isprintable()):
            raise BackendError("The key has characters that no key can have (not printable ASCII).")
        client = openai.AsyncOpenAI(
            api_key=key or _NO_KEY, base_url=self.base_url, max_retries=0, timeout=self.timeout
        )
        async with client:
            yield _Connection(openai, client, key)

    async def _answer(self, request: Request, connection: _Connection) -> Reply:
        decoding = request.decoding
        expected = self._count_tokens(request)
        expected += int(decoding.get("max_completion_tokens", decoding.get("max_tokens", 0)))
        attempt = 0
        while True:
            await self._limit.wait(expected)
            start = time.perf_counter()
            outcome = await self._attempt(request, connection)
            attempt += 1
            if isinstance(outcome, Reply):
                error = connection.mask(outcome.error) if outcome.error else None
                outcome = replace(outcome, error=error)
                used = (outcome.prompt_tokens or 0) + (outcome.completion_tokens or 0)
                self._limit.settle(expected, used or None)
                return replace(outcome, latency=time.perf_counter() - start, attempts=attempt)
            reason = connection.mask(outcome.reason)
            if not outcome.retry or attempt > self.retries:
                return Reply(error=reason, attempts=attempt, scope=outcome.scope)
            if outcome.wait is not None:
                if outcome.wait > _LONGEST_WAIT:
                    reason += f"; the service asks to wait {outcome.wait:.0f} s"
                    return Reply(error=reason, attempts=attempt, scope=outcome.scope)
                self._limit.pause(outcome.wait)  # all requests wait, this one too
            delay = min(_LONGEST_DELAY, self.backoff * 2.0 ** (attempt - 1))
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))

    async def _attempt(self, request: Request, connection: _Connection) -> Reply | _Failure:
        openai = connection.openai
        prompt = request.prompt
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        try:
            async with asyncio.timeout(self.timeout):
                # extra_body is merged into the body as it is, so that parameters which the
                # client does not know (of vLLM, say) pass, and the raw body is read by us.
                response = await connection.client.chat.completions.with_raw_response.create(
                    model=self.name, messages=messages, extra_body=request.decoding
                )
            body = connection.mask_body(response.http_response.content)
            return _read(json.loads(body))
        except (TimeoutError, openai.APITimeoutError):
            return _Failure(f"no reply within {self.timeout:g} s")
        except openai.APIStatusError as error:
            return _status_failure(error, connection)
        except openai.APIConnectionError as error:
            return _Failure(f"connection failed ({type(error.__cause__ or error).__name__})")
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            # JSON that is cut short or not of the protocol; UnicodeEncodeError is a ValueError,
            # but says that the prompt itself cannot be sent.
            if isinstance(error, UnicodeEncodeError):
                return _Failure("the prompt is not valid Unicode", retry=False, scope="prompt")
            return _Failure(f"malformed reply ({type(error).__name__}: {error})")


class _Secret:
    """Holds a key; shows and pickles nothing of it."""

    def __init__(self, value: str | None = None) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "***"

    def __reduce__(self) -> tuple[Any, ...]:
        return _Secret, ()

    def __deepcopy__(self, memo: dict[int, Any]) -> _Secret:
        return self


@dataclass(frozen=True)
class _Connection:
    openai: Any
    client: Any
    key: str | None

    def __repr__(self) -> str:
        return "_Connection()"

    def mask(self, text: str) -> str:
        """Take the key out of a message."""
        return text.replace(self.key, "***") if self.key else text

    def mask_body(self, body: bytes) -> str:
        """Take the key out of a reply that repeats it, unless it could be an ordinary word."""
        text = body.decode()
        return text.replace(self.key, "***") if self.key and len(self.key) >= 16 else text


@dataclass(frozen=True)
class _Failure:
    reason: str
    retry: bool = True
    wait: float | None = None
    scope: str = "service"


def _status_failure(error: Any, connection: _Connection) -> _Failure:
    status = int(error.status_code)
    detail = error.body if isinstance(error.body, Mapping) else {}
    # Masked before it is cut, so that no part of a key is left.
    told = connection.mask(str(detail.get("message") or error.message))
    message = f"HTTP {status}: {told[:300]}"
    if status in (401, 404) or detail.get("code") == "insufficient_quota":
        if status == 401:  # what the service writes may repeat a part of the key
            message = "HTTP 401: the key was rejected"
        return _Failure(message, retry=False, scope="run")
    if status in _RETRIED or status >= 500:
        return _Failure(message, wait=_retry_after(error.response.headers))
    return _Failure(message, retry=False, scope="prompt")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait: a number, milliseconds, or a date."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * unit)
        except (KeyError, ValueError):
            pass
    try:
        when = email.utils.parsedate_to_datetime(headers["retry-after"])
    except (KeyError, ValueError, TypeError):
        return None
    return max(0.0, when.timestamp() - time.time())


def _read(body: Any) -> Reply:
    """Read the body of a chat completion; raise if it is not one."""
    if not isinstance(body, Mapping) or not isinstance(body.get("choices"), list):
        raise ValueError(f"the body has no list of choices: {body!r:.200}")
    if not body["choices"]:
        raise ValueError("the list of choices is empty")
    choice = body["choices"][0]
    message = choice["message"]
    text, refusal = message.get("content"), message.get("refusal")
    usage = body.get("usage") or {}
    reply = Reply(
        text=text,
        finish_reason=choice.get("finish_reason"),
        refusal=refusal,
        model=body.get("model"),
        prompt_tokens=usage.get("prompt_tokens"),
        completion_tokens=usage.get("completion_tokens"),
    )
    try:
        return replace(reply, logprobs=read_logprobs(body, choice))
    except ValueError as error:  # another attempt would be paid and fail the same way
        return replace(reply, error=str(error))
