"""Waiting: limits of requests and tokens per minute, pauses that a server asks for, progress."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class RateLimit:
    """Space requests out so that no minute holds more than is allowed.

    A request starts when the shares of those before it have passed (60 s / limit for each
    request, 60 s * tokens / limit for its tokens), so there are no bursts that a server which
    counts in shorter windows would reject. The limits hold for one process.
    """

    def __init__(self, requests: float | None = None, tokens: float | None = None) -> None:
        self.requests, self.tokens = requests, tokens
        self._reset()

    def __reduce__(self) -> tuple[Any, ...]:
        return RateLimit, (self.requests, self.tokens)  # a lock cannot be pickled

    def _reset(self) -> None:
        self._lock, self._pid = threading.Lock(), os.getpid()
        self._next_request = self._next_token = self._paused_until = 0.0

    async def wait(self, tokens: int) -> None:
        """Wait for the turn of a request that is expected to use `tokens`."""
        if os.getpid() != self._pid:  # a fork may have copied the lock while it was held
            self._reset()
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next_request, self._next_token)
            if self.requests:
                self._next_request = start + 60.0 / self.requests
            if self.tokens:
                self._next_token = start + 60.0 * tokens / self.tokens
        await asyncio.sleep(start - now)
        while (left := self._paused_until - time.monotonic()) > 0:
            await asyncio.sleep(left)

    def settle(self, expected: int, used: int | None) -> None:
        """Correct the account once the tokens that were used are known."""
        if self.tokens and used is not None:
            with self._lock:
                self._next_token += 60.0 * (used - expected) / self.tokens

    def pause(self, seconds: float) -> None:
        """Send nothing for a while, as a server has asked."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)


@contextmanager
def progress(total: int, label: str, show: bool) -> Iterator[Callable[[bool], None]]:
    """Show done and failed prompts, the rate and the time left, if there is a terminal.

    Gives a function to call after each prompt, with whether it was answered.
    """
    if not show or not total:
        yield lambda answered: None
        return
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda answered: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=total, note="")
        failed = 0

        def advance(answered: bool) -> None:
            nonlocal failed
            failed += not answered
            speed = bar.tasks[0].speed
            rate = f"{speed:.1f}/s" if speed else ""
            bar.update(task, advance=1, note=f"{rate} {failed} failed" if failed else rate)

        yield advance
