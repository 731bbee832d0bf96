"""What all backends share: one run over distinct requests, with cache, claims and progress."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, nullcontext
from os import PathLike
from typing import Any, ClassVar

import pandas as pd

from causalrm.core.errors import BackendError, DataError, warn
from causalrm.llm.cache import Cache, Session
from causalrm.llm.limits import RateLimit, progress
from causalrm.llm.plan import Plan
from causalrm.llm.reply import Prompt, Reply, Request, check_choices, frame, make_requests


class Backend(ABC):
    """Base of the backends; they differ in how one request is answered.

    Parameters
    ----------
    name, revision : str
        What identifies the model in caches and frames. Two models that go by the same name
        need different revisions.
    cache : Cache, str or path, optional
    concurrency : int
        Requests under way at the same time.
    progress : bool
    """

    # Whether choices are part of the request (scored exactly) or read off listed tokens.
    _scores_choices: ClassVar[bool] = False
    _give_up_after: int | None = None
    _limit = RateLimit()

    def __init__(
        self,
        name: str,
        *,
        revision: str | None = None,
        cache: Cache | str | PathLike[str] | None = None,
        concurrency: int = 1,
        progress: bool = True,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise DataError(f"The model's name must be a string; got {name!r}.")
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
            raise DataError(f"concurrency must be a positive int; got {concurrency!r}.")
        self.name = name
        self.revision = revision
        self.cache = cache if cache is None or isinstance(cache, Cache) else Cache(cache)
        self.concurrency = concurrency
        self.progress = progress

    def complete(self, prompts: Sequence[Prompt], **decoding: Any) -> pd.DataFrame:
        """Reply to every prompt.

        Parameters
        ----------
        prompts : sequence of str or of lists of messages
            A message is a dict such as ``{"role": "user", "content": "..."}``. Equal prompts
            are sent once.
        **decoding
            Passed on: ``max_tokens``, ``temperature``, ``logprobs=True``, ``top_logprobs``
            (at most 20), ``stop``, ``seed``, ... They are part of what a cached answer is
            looked up by. ``replicate`` (an int, or one per prompt) is not sent: requests that
            differ in it alone are separate draws.

        Returns
        -------
        DataFrame
            One row per prompt, in order, with the index of `prompts` if that is a Series.

            ==================  ==========================================================
            text                the reply, None if there is none
            logprobs            list of dicts per token: token, logprob, top (as in
                                :class:`Reply`); None unless ``logprobs=True``
            mass                probability of all tokens listed for the first place
            status              ok, empty, refused, no_logprobs or error (:data:`STATUS`)
            reason              what is behind a status other than ok
            finish_reason       as reported: stop, length, content_filter, ...
            prompt_tokens,      as reported, missing if not; those of a cached or repeated
            completion_tokens   row were paid before
            latency             seconds of the answering attempt
            attempts            how often the request was sent
            cached              the row was not paid by this call
            model               as reported by the service, else the model's name
            key                 SHA-256 of the request, the key in the cache
            ==================  ==========================================================

        Raises
        ------
        DataError
            If prompts or decoding parameters are not of these kinds.
        BackendError
            If nothing can be sent at all (no key, no cache file).
        """
        return self._frame(prompts, None, None, decoding)

    def choice_probabilities(
        self,
        prompts: Sequence[Prompt],
        choices: Sequence[str],
        *,
        variants: int | None = 2,
        **decoding: Any,
    ) -> pd.DataFrame:
        """Give, for every prompt, the probability of each choice as the next token.

        Parameters
        ----------
        prompts : sequence of str or of lists of messages
        choices : sequence of str
            Answer keys such as ``["A", "B"]``. A backend that reads the likeliest tokens
            needs keys of one token; one that scores texts takes any.
        variants : int or None, default 2
            For the bounds: tokens that write one key (see :func:`choice_bounds`).
        **decoding
            As in :meth:`complete`. By default one token is asked for, with its 20 likeliest
            alternatives, at temperature 1, so that log-probabilities are raw.

        Returns
        -------
        DataFrame
            The columns of :meth:`complete`, after, for each choice c, ``probability[c]``
            (given that one of the choices is taken; NaN without an answer or without mass),
            ``lower[c]`` and ``upper[c]`` (what the unlisted mass allows). ``mass`` is the
            listed probability of all choices together and ``rest``, next to it, that of all
            unlisted tokens. `status` may also be no_mass: no choice is listed.
        """
        keys = check_choices(choices)
        return self._frame(prompts, keys, variants, _for_choices(decoding))

    def plan(
        self,
        prompts: Sequence[Prompt],
        choices: Sequence[str] | None = None,
        *,
        price: tuple[float, float] | None = None,
        **decoding: Any,
    ) -> Plan:
        """Count calls and tokens without sending anything.

        Parameters
        ----------
        prompts, choices, **decoding
            As they would go to :meth:`complete`, or with choices to
            :meth:`choice_probabilities`.
        price : (float, float), optional
            Per million tokens of prompts and of replies.

        Returns
        -------
        Plan
        """
        if choices is not None:
            decoding = _for_choices(decoding)
        index, keys, requests = self._requests(prompts, choices, decoding)
        found: set[str] = set()
        if self.cache is not None and self.cache.path.exists():
            with self.cache.session() as session:
                found = set(session.find(list(dict.fromkeys(keys))))
        rows = pd.DataFrame({"key": keys}, index=index)
        rows["cached"] = rows["key"].isin(found)
        rows["repeated"] = rows["key"].duplicated() & ~rows["cached"]
        rows["prompt_tokens"] = [self._count_tokens(r) for r in requests]
        most = decoding.get("max_completion_tokens", decoding.get("max_tokens"))
        rows["completion_tokens"] = pd.array([most] * len(rows), dtype="Int64")
        return Plan(rows, self._limit.requests, self._limit.tokens, price)

    # What a backend may replace.

    @abstractmethod
    async def _answer(self, request: Request, connection: Any) -> Reply:
        """Answer one request; a failure is a Reply with an error."""

    def _connect(self) -> AbstractAsyncContextManager[Any]:
        """Open what the calls of one run share. Raise BackendError if that cannot work."""
        return nullcontext()

    def _count_tokens(self, request: Request) -> int:
        """Estimate the tokens of a prompt: four bytes each, and four for a message's frame."""
        messages = 1 if isinstance(request.prompt, str) else len(request.prompt)
        return 4 * messages + -(-len(request.text.encode(errors="replace")) // 4)

    # The run.

    def _requests(
        self, prompts: Sequence[Prompt], choices: Sequence[str] | None, decoding: dict[str, Any]
    ) -> tuple[pd.Index[Any], list[str], list[Request]]:
        scored = check_choices(choices) if choices is not None and self._scores_choices else None
        requests = make_requests(prompts, decoding, scored)
        index: pd.Index[Any] = pd.RangeIndex(len(requests))
        if isinstance(prompts, pd.Series):
            index = prompts.index
        return index, [r.key(self.name, self.revision) for r in requests], requests

    def _frame(
        self,
        prompts: Sequence[Prompt],
        choices: tuple[str, ...] | None,
        variants: int | None,
        decoding: dict[str, Any],
    ) -> pd.DataFrame:
        index, keys, requests = self._requests(prompts, choices, decoding)
        run = _Run(self, dict(zip(keys, requests, strict=True)))
        _run_anywhere(run.main)
        for message in run.warnings:
            warn(message)
        repeated = pd.Index(keys).duplicated().tolist()
        cached = [run.cached[key] or again for key, again in zip(keys, repeated, strict=True)]
        replies = [run.replies[key] for key in keys]
        return frame(index, keys, replies, cached, self.name, choices, variants, decoding)


class _Run:
    """One run over distinct requests."""

    def __init__(self, backend: Backend, requests: dict[str, Request]) -> None:
        self.backend = backend
        self.requests = requests
        self.replies: dict[str, Reply] = {}
        self.cached: dict[str, bool] = {}
        self.warnings: list[str] = []
        self.stop: str | None = None
        self.failures = 0  # of the service, with no answer in between

    async def main(self) -> None:
        backend = self.backend
        with ExitStack() as stack:
            session = None
            if backend.cache is not None:
                session = stack.enter_context(backend.cache.session())
                self.replies.update(session.find(list(self.requests)))
                self.cached = dict.fromkeys(self.replies, True)
            todo = deque(key for key in self.requests if key not in self.replies)
            if not todo:
                return
            advance = stack.enter_context(progress(len(todo), backend.name, backend.progress))
            async with backend._connect() as connection:
                renewal = asyncio.create_task(_renew(session)) if session else None
                try:
                    async with asyncio.TaskGroup() as group:
                        for _ in range(min(backend.concurrency, len(todo))):
                            group.create_task(self._work(todo, connection, session, advance))
                except ExceptionGroup as group_error:
                    raise BackendError(
                        f"The run stopped: {group_error.exceptions[0]!r}. Answers that were paid "
                        "for are in the cache, if there is one."
                    ) from group_error
                finally:
                    if renewal and session:
                        renewal.cancel()
                        self.warnings = session.warnings

    async def _work(
        self,
        todo: deque[str],
        connection: Any,
        session: Session | None,
        advance: Callable[[bool], None],
    ) -> None:
        busy = 0
        while todo:
            key = todo.popleft()
            if self.stop is not None:
                self.cached[key] = False
                self.replies[key] = Reply(error=f"not sent: {self.stop}", attempts=0)
                advance(False)
                continue
            claim = session.claim(key) if session else True
            if claim is False:  # another process is paying for it: ask again later
                todo.append(key)
                await asyncio.sleep(min(0.5, 0.02 * 2.0 ** min(busy, 5)))
                busy += 1
                continue
            busy = 0
            self.cached[key] = isinstance(claim, Reply)
            if isinstance(claim, Reply):
                reply = claim
            else:
                reply = await self._send(key, connection)
                if session:
                    if _is_answer(reply, self.requests[key]):
                        text = self.requests[key].to_json(self.backend.name, self.backend.revision)
                        session.store(key, text, reply)
                    else:
                        session.release(key)
            self.replies[key] = reply
            advance(reply.error is None)

    async def _send(self, key: str, connection: Any) -> Reply:
        await asyncio.sleep(0)  # lets an interrupt in where backends do not wait for anything
        try:
            reply = await self.backend._answer(self.requests[key], connection)
        except Exception as error:
            # A failure of one prompt must not lose the others; the traceback's text may hold
            # what the backend would have masked, so only the kind of error is told.
            return Reply(error=f"unexpected {type(error).__name__}")
        self.failures = self.failures + 1 if reply.error and reply.scope == "service" else 0
        if reply.scope == "run":
            self.stop = reply.error
        elif self.backend._give_up_after and self.failures >= self.backend._give_up_after:
            self.stop = f"{self.failures} prompts in a row failed, the last with: {reply.error}"
        return reply


def _for_choices(decoding: dict[str, Any]) -> dict[str, Any]:
    limit = {} if "max_completion_tokens" in decoding else {"max_tokens": 1}
    return {**limit, "temperature": 1, "logprobs": True, "top_logprobs": 20, **decoding}


def _is_answer(reply: Reply, request: Request) -> bool:
    """Tell answers, which are kept, from failures, which are asked again."""
    missing = request.decoding.get("logprobs") and not reply.logprobs and reply.refusal is None
    return reply.error is None and not missing


async def _renew(session: Session) -> None:
    while True:
        await asyncio.sleep(session.lease / 3)
        try:
            session.renew()
        except sqlite3.OperationalError:
            pass  # the file is busy: the next renewal comes before the lease ends


def _run_anywhere(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine to its end, also where an event loop runs already (as in Jupyter)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(main())
        return
    errors: list[BaseException] = []
    inner: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = []

    async def entry() -> None:
        inner.append((asyncio.get_running_loop(), asyncio.current_task()))
        await main()

    def target() -> None:
        try:
            asyncio.run(entry())
        except BaseException as error:  # handed to the calling thread
            errors.append(error)

    thread = threading.Thread(target=target, name="causalrm-llm")
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        for loop, task in inner:
            if task is not None:
                loop.call_soon_threadsafe(task.cancel)
        thread.join()
        raise
    if errors:
        raise errors[0]
