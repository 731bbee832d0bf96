"""One map over joblib, with progress and the workers' warnings; thread counts."""

from __future__ import annotations

import functools
import os
import sys
import threading
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import joblib
import scipy.linalg  # noqa: F401  its BLAS must be loaded before threadpoolctl looks
from joblib.parallel import get_active_backend
from threadpoolctl import ThreadpoolController

from causalrm.core.errors import _PACKAGE, DataError

_PROCESS = uuid.uuid4().hex


def in_worker() -> bool:
    """Say whether this code runs in a worker of joblib or Dask."""
    if get_active_backend()[0].nesting_level:
        return True
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return False
    try:
        distributed.get_worker()
    except (ValueError, AttributeError):  # not in a task; or distributed is half imported
        return False
    return True


@functools.cache
def _cpus() -> int:
    return int(joblib.cpu_count())


def n_threads() -> int:
    """Return how many threads a sum over rows may use.

    Returns
    -------
    int
        1 inside a worker of joblib or Dask, else the environment variable
        ``CAUSALRM_NUM_THREADS``, else the CPUs that this process may use.

    Raises
    ------
    DataError
        When ``CAUSALRM_NUM_THREADS`` is not a positive whole number.
    """
    text = os.environ.get("CAUSALRM_NUM_THREADS", "").strip()
    if text and not (text.isascii() and text.isdigit() and int(text) > 0):
        raise DataError(
            f"CAUSALRM_NUM_THREADS must be a positive whole number; it is {text!r}. "
            "Correct it, or unset it to use all CPUs."
        )
    if in_worker():
        return 1
    return int(text) if text else _cpus()


def map[T, R](
    function: Callable[[T], R],
    items: Iterable[T],
    *,
    n_jobs: int | None = None,
    progress: bool | None = False,
    label: str = "",
) -> list[R]:
    """Apply a function to every item, in parallel, and return the results in order.

    Inside ``joblib.parallel_config(backend="dask")`` the work goes to that cluster. BLAS runs
    on one thread in every task, wherever it runs, so that results do not depend on `n_jobs`.

    Parameters
    ----------
    function : callable
        Of one item. It and the items must be picklable, unless one job runs.
    items : iterable
    n_jobs : int, optional
        -1 uses all CPUs. None takes what ``joblib.parallel_config`` says, else `n_threads`.
        Inside a worker of joblib or Dask the items are done one after another.
    progress : bool, optional
        Show a progress bar on stderr. None shows it only when that is a terminal.
    label : str
        What the progress bar says.

    Returns
    -------
    list

    Warns
    -----
    Warning
        Each distinct warning of the workers is issued here, once.

    Examples
    --------
    >>> map(abs, [-2, 1, -3], n_jobs=1)
    [2, 1, 3]
    """
    if n_jobs == 0 or not (n_jobs is None or type(n_jobs) is int):
        raise DataError(
            f"n_jobs must be None, a positive number, or -1 for all CPUs; got {n_jobs!r}."
        )
    todo = list(items)
    backend, configured = get_active_backend()
    if n_jobs is None:
        n_jobs = configured if configured is not None else n_threads()
    task = _Task(function)
    results: list[R] = []
    seen: dict[tuple[type[Warning], str], None] = {}
    with blas_limit(1), _bar(progress, label, len(todo)) as advance:
        if in_worker() or n_jobs == 1 or len(todo) < 2:
            outputs: Iterator[Any] = (task(item) for item in todo)
        else:
            pool = joblib.Parallel(n_jobs=n_jobs, return_as="generator")
            outputs = pool(joblib.delayed(task)(item) for item in todo)
        try:
            for result, issued in outputs:
                results.append(result)
                seen.update(dict.fromkeys(issued))
                advance()
        finally:
            outputs.close()  # type: ignore[attr-defined]  # stops the workers after an error
    for category, message in seen:
        warnings.warn(message, category, skip_file_prefixes=(_PACKAGE,))
    return results


class _Task:
    """The function as it runs in a worker: returns the result and the warnings."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function
        self.parent = (os.getpid(), _PROCESS)

    def __call__(self, item: Any) -> tuple[Any, list[tuple[type[Warning], str]]]:
        if self.parent == (os.getpid(), _PROCESS):
            # Warnings of the parent's threads reach the user by themselves, and
            # catch_warnings is not safe in threads.
            return self.function(item), []
        with warnings.catch_warnings(record=True) as caught, blas_limit(1):
            warnings.simplefilter("always")
            result = self.function(item)
        return result, [(w.category, str(w.message)) for w in caught]


@contextmanager
def _bar(progress: bool | None, label: str, total: int) -> Iterator[Callable[[], object]]:
    if not (sys.stderr.isatty() if progress is None else progress):
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(label or "Working", total=total)
        yield lambda: bar.advance(task)


_lock = threading.Lock()
_limits: list[int] = []
_before: list[int] = []


@functools.cache
def _blas() -> list[Any]:
    """Find the BLAS libraries, once: looking for them takes milliseconds."""
    return list(ThreadpoolController().select(user_api="blas").lib_controllers)


@contextmanager
def blas_limit(n: int) -> Iterator[None]:
    """Let BLAS use at most `n` threads inside the block.

    The setting is global to the process, so that blocks that overlap, nested or in several
    threads, are counted: the smallest limit holds, and the last block to end restores what was
    there before the first.
    """
    if type(n) is not int or n < 1:
        raise DataError(f"The number of BLAS threads must be a positive int; got {n!r}.")
    with _lock:
        if not _limits:
            _before[:] = [library.get_num_threads() for library in _blas()]
        changes = not _limits or n < min(_limits)
        _limits.append(n)
        if changes:
            _apply()
    try:
        yield
    finally:
        with _lock:
            _limits.remove(n)
            if not _limits or n < min(_limits):
                _apply()


def _apply() -> None:
    for library, before in zip(_blas(), _before, strict=True):
        library.set_num_threads(min([before, *_limits]))
