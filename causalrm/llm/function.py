"""Any Python callable as a language model."""

from __future__ import annotations

import asyncio
import copy
import inspect
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from os import PathLike
from typing import Any

import numpy as np

from causalrm.core.errors import DataError
from causalrm.llm.backend import Backend
from causalrm.llm.cache import Cache
from causalrm.llm.reply import Reply, Request


class FunctionModel(Backend):
    """A callable that answers prompts, for simulations, tests and models of one's own.

    Parameters
    ----------
    function : callable
        Takes a prompt as it was given (a string or a list of messages) and, as keywords, those
        decoding parameters that it names (all, ``replicate`` included, if it has
        ``**kwargs``). Returns a string; or a mapping from tokens to probabilities of the next
        token, whose sum is at most 1; or a :class:`Reply`. It may be a coroutine function.
        An exception becomes a row with the status error.
    name, revision : str
        What the answers are cached under. The name is needed with a cache.
    cache : Cache, str or path, optional
    concurrency : int, default 1
        Above 1, that many threads call the function.
    progress : bool, default False

    Notes
    -----
    From probabilities a token is drawn as a language model does (the likeliest at temperature
    0), by a generator seeded with the request: the same request gives the same token, a
    request with another ``replicate`` or ``seed`` an independent one.

    Examples
    --------
    >>> def simulated(prompt):
    ...     return {"Yes": 0.6, "No": 0.2} if "smokes" in prompt else {"Yes": 0.1, "No": 0.9}
    >>> model = FunctionModel(simulated, name="simulated")
    >>> found = model.choice_probabilities(["She smokes.", "She runs."], ["Yes", "No"])
    >>> found[["probability[Yes]", "lower[Yes]", "upper[Yes]", "mass", "status"]].round(3)
       probability[Yes]  lower[Yes]  upper[Yes]  mass status
    0              0.75         0.6         0.8   0.8     ok
    1              0.10         0.1         0.1   1.0     ok
    >>> model.complete(["She runs."], temperature=0).text[0]
    'No'
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        revision: str | None = None,
        cache: Cache | str | PathLike[str] | None = None,
        concurrency: int = 1,
        progress: bool = False,
    ) -> None:
        if not callable(function):
            raise DataError(f"function must be callable; got {type(function).__name__}.")
        if cache is not None and name is None:
            raise DataError("A cache needs name=: answers are stored under it.")
        super().__init__(
            name or str(getattr(function, "__name__", type(function).__name__)),
            revision=revision,
            cache=cache,
            concurrency=concurrency,
            progress=progress,
        )
        self.function = function
        self._named = _keywords(function)

    def __repr__(self) -> str:
        return f"FunctionModel({self.name!r})"

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[ThreadPoolExecutor | None]:
        if self.concurrency == 1:
            yield None
            return
        with ThreadPoolExecutor(self.concurrency) as pool:
            yield pool

    async def _answer(self, request: Request, connection: Any) -> Reply:
        prompt = copy.deepcopy(request.prompt)
        keywords = {**request.decoding, "replicate": request.replicate}
        if self._named is not None:
            keywords = {k: v for k, v in keywords.items() if k in self._named}
        start = time.perf_counter()
        try:
            if connection is not None:
                call = partial(self.function, prompt, **keywords)
                value = await asyncio.get_running_loop().run_in_executor(connection, call)
            else:
                value = self.function(prompt, **keywords)
            if inspect.isawaitable(value):
                value = await value
            reply = _reply(value, request)
        except Exception as error:
            return Reply(error=f"{type(error).__name__}: {error}")
        return replace(reply, latency=time.perf_counter() - start)


def _keywords(function: Callable[..., Any]) -> set[str] | None:
    """Names of the keywords that a function takes besides the prompt; None for all."""
    try:
        parameters = list(inspect.signature(function).parameters.values())[1:]
    except (TypeError, ValueError):  # some built-ins do not tell
        return set()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}


def _reply(value: Any, request: Request) -> Reply:
    if isinstance(value, Reply):
        return value
    if isinstance(value, str):
        return Reply(text=value, finish_reason="stop")
    if not isinstance(value, Mapping) or not value:
        raise TypeError(
            "expected a string, a mapping from tokens to probabilities or a Reply from the "
            f"function; got {value!r:.80}"
        )
    tokens = [str(token) for token in value]
    p = np.array([float(x) for x in value.values()])
    if not (np.all(p >= 0.0) and p.sum() <= 1.0 + 1e-9):
        raise ValueError(f"probabilities must be >= 0 and sum to at most 1; got {value!r:.80}")
    drawn = draw(p, request.decoding.get("temperature", 1.0), request)
    logs = [math.log(x) if x > 0.0 else -9999.0 for x in p]
    top: list[list[Any]] = [[t, x] for t, x in zip(tokens, logs, strict=True)]
    top.sort(key=lambda pair: -pair[1])
    place = {"token": tokens[drawn], "logprob": logs[drawn], "top": top}
    return Reply(text=tokens[drawn], logprobs=[place], finish_reason="stop", completion_tokens=1)


def draw(p: np.ndarray[Any, Any], temperature: float, request: Request) -> int:
    """Draw an index from probabilities, by a generator that only the request decides."""
    if temperature == 0.0 or p.sum() == 0.0:
        return int(np.argmax(p))
    with np.errstate(divide="ignore"):
        logs = np.log(p) / temperature
    weights = np.cumsum(np.exp(logs - logs.max()))
    uniform = np.random.default_rng(int(request.key("draw", None), 16)).random()
    return int(np.searchsorted(weights, uniform * weights[-1], side="right"))
