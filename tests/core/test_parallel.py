from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import distributed
import joblib
import pytest

from causalrm import CausalRMWarning, DataError
from causalrm.core import parallel
from causalrm.core.errors import warn


def square(x: int) -> tuple[int, int, int]:
    return x * x, os.getpid(), parallel.n_threads()


def murmur(x: int) -> int:
    warn("odd numbers are odd" if x % 2 else "even numbers are even")
    return x


def blas(_: int) -> list[int]:
    return [library.num_threads for library in parallel._blas()]


def refuse(x: int) -> int:
    if x == 2:
        raise ZeroDivisionError("no twos")
    return x


def test_in_order_and_in_other_processes() -> None:
    results = parallel.map(square, range(6), n_jobs=2)
    assert [value for value, _, _ in results] == [0, 1, 4, 9, 16, 25]
    assert os.getpid() not in {pid for _, pid, _ in results}
    assert {threads for _, _, threads in results} == {1}


def test_one_job_runs_here() -> None:
    assert {pid for _, pid, _ in parallel.map(square, iter([1, 2]), n_jobs=1)} == {os.getpid()}
    assert parallel.map(square, [], n_jobs=2) == []


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_warnings_of_workers_arrive_once(n_jobs: int) -> None:
    with pytest.warns(CausalRMWarning) as caught:
        assert parallel.map(murmur, range(4), n_jobs=n_jobs) == [0, 1, 2, 3]
    texts = {str(w.message) for w in caught}
    assert texts == {"odd numbers are odd", "even numbers are even"}
    assert {w.filename for w in caught} == {__file__}
    if n_jobs == 2:
        assert len(caught) == 2


def test_errors_arrive() -> None:
    with pytest.raises(ZeroDivisionError, match="no twos"):
        parallel.map(refuse, range(4), n_jobs=2)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_blas_is_held_at_one(n_jobs: int) -> None:
    assert set(sum(parallel.map(blas, range(3), n_jobs=n_jobs), [])) == {1}


def test_follows_joblibs_configuration() -> None:
    here = threading.get_ident()
    with joblib.parallel_config(backend="threading", n_jobs=2):
        threads = parallel.map(lambda _: threading.get_ident(), range(4))
        inner = parallel.map(lambda _: parallel.map(square, range(2), n_jobs=2), range(2))
    assert here not in threads
    assert all(pid == os.getpid() and n == 1 for row in inner for _, pid, n in row)


def test_on_a_dask_cluster() -> None:
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        with joblib.parallel_config(backend="dask"):
            results = parallel.map(square, range(3))
        # A task of Dask's own, without joblib, is in a worker too.
        assert client.submit(square, 3).result()[2] == 1
        assert parallel.n_threads() == int(joblib.cpu_count())
    assert [value for value, _, _ in results] == [0, 1, 4]
    assert {threads for _, _, threads in results} == {1}


@pytest.mark.parametrize("bad", [0, 1.0, True, "2"])
def test_bad_n_jobs(bad: object) -> None:
    with pytest.raises(DataError, match="n_jobs must be None"):
        parallel.map(square, [1], n_jobs=bad)  # type: ignore[arg-type]


def test_progress_only_when_wanted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parallel.map(square, range(3), n_jobs=1)
    parallel.map(square, range(3), n_jobs=1, progress=None)  # stderr is no terminal here
    assert capsys.readouterr().err == ""
    parallel.map(square, range(3), n_jobs=1, progress=True, label="Refitting")
    assert "Refitting" in (text := capsys.readouterr().err) and "3/3" in text
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    parallel.map(square, range(3), n_jobs=1, progress=None)
    assert "3/3" in capsys.readouterr().err


def test_n_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAUSALRM_NUM_THREADS", raising=False)
    assert parallel.n_threads() == joblib.cpu_count()
    monkeypatch.setenv("CAUSALRM_NUM_THREADS", " 3 ")
    assert parallel.n_threads() == 3


@pytest.mark.parametrize("bad", ["0", "-1", "two", "1.5", "²"])
def test_bad_n_threads(bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAUSALRM_NUM_THREADS", bad)
    with pytest.raises(DataError, match=f"CAUSALRM_NUM_THREADS .* {bad!r}"):
        parallel.n_threads()


class Library:
    """Stands for a BLAS library, so that the test holds on a machine with one core."""

    def __init__(self) -> None:
        self.threads = 8

    def get_num_threads(self) -> int:
        return self.threads

    def set_num_threads(self, n: int) -> None:
        self.threads = n


def test_blas_limit_nests_and_restores(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(parallel, "_blas", lambda: [library])
    with parallel.blas_limit(4):
        assert library.threads == 4
        with parallel.blas_limit(2), parallel.blas_limit(6):
            assert library.threads == 2
        assert library.threads == 4
        with pytest.raises(KeyError), parallel.blas_limit(1):
            raise KeyError
        assert library.threads == 4
    assert library.threads == 8
    with parallel.blas_limit(20):
        assert library.threads == 8


def test_blas_limit_of_threads_that_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(parallel, "_blas", lambda: [library])
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with parallel.blas_limit(1):
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with parallel.blas_limit(2):
        thread.start()
        assert inside.wait(10)
    assert library.threads == 1  # the other thread is still in its block
    leave.set()
    thread.join()
    assert library.threads == 8


@pytest.mark.parametrize("bad", [0, -1, 1.0, True])
def test_bad_blas_limit(bad: object) -> None:
    with pytest.raises(DataError, match="positive int"), parallel.blas_limit(bad):  # type: ignore[arg-type]
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_an_interrupt_ends_the_workers(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time; from causalrm.core import parallel\n"
        "def job(path):\n"
        "    path.touch()\n"
        "    time.sleep(120)\n"
        "try:\n"
        "    parallel.map(job, [pathlib.Path(sys.argv[1], str(i)) for i in range(4)], n_jobs=2)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        for _ in range(600):
            if len(list(tmp_path.iterdir())) == 2:  # both workers are at work
                break
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (out, err, process.returncode) == ("interrupted\n", "", 0)


def test_catching_warnings_leaves_the_filters_alone() -> None:
    filters = list(warnings.filters)
    parallel.map(square, range(2), n_jobs=1)
    assert warnings.filters == filters
