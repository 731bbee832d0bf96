"""Processes: kills, a shared cache, fork and spawn."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time

import pytest

from causalrm.llm import Cache, FunctionModel, LoopbackServer, OpenAICompatible

ECHO = FunctionModel(str.upper)


def client(server, cache, **options):
    options = {"concurrency": 4, "progress": False} | options
    return OpenAICompatible("echo", base_url=server.base_url, cache=cache, **options)


def stored(path):
    db = sqlite3.connect(path)
    try:
        return {request for (request,) in db.execute("SELECT request FROM replies")}
    finally:
        db.close()


def start(code, *arguments):
    code = textwrap.dedent(code)
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)])


RUN = """
    import sys
    from causalrm.llm import OpenAICompatible
    url, cache, n = sys.argv[1:]
    model = OpenAICompatible("echo", base_url=url, cache=cache, concurrency=4, progress=False)
    model.complete([f"prompt {i}" for i in range(int(n))])
"""


@pytest.mark.skipif(os.name != "posix", reason="kills a process by a POSIX signal")
def test_a_killed_run_resumes_without_paying_twice(tmp_path):
    path = tmp_path / "c.sqlite"
    with LoopbackServer(ECHO, delay=0.03) as server:
        process = start(RUN, server.base_url, path, 80)
        deadline = time.monotonic() + 60
        while sum(server.answered.values()) < 20 and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        time.sleep(0.1)  # the server ends what it had begun
        before = stored(path)
        paid = sum(server.answered.values())
        assert 15 <= len(before) <= paid < 80
        started = time.monotonic()
        frame = client(server, path).complete([f"prompt {i}" for i in range(80)])
        # The claims of the killed process do not hold the run up (their lease is a minute).
        assert time.monotonic() - started < 20
    assert (frame.status == "ok").all()
    assert list(frame.text) == [f"PROMPT {i}" for i in range(80)]
    assert frame.cached.sum() == len(before)
    assert sum(server.answered.values()) == paid + 80 - len(before)
    assert paid - len(before) <= 4  # at most what was under way is paid again
    for i in range(80):
        if any(f'"prompt {i}"' in request for request in before):
            assert server.answered[f"prompt {i}"] == 1


EIGHT = """
    import multiprocessing, sys, warnings
    from causalrm.llm import OpenAICompatible
    url, cache, n = sys.argv[1:]
    prompts = [f"prompt {i}" for i in range(int(n))]
    model = OpenAICompatible("echo", base_url=url, cache=cache, progress=False, backoff=0.01,
                             requests_per_minute=60000, concurrency=2)
    assert (model.complete(prompts[:5]).status == "ok").all()  # used before the fork
    # The bound method is pickled for the spawned process: so are the client and its cache.
    workers = [multiprocessing.get_context("spawn").Process(target=model.complete, args=(prompts,))]
    fork = multiprocessing.get_context("fork" if hasattr(__import__("os"), "fork") else "spawn")
    workers += [fork.Process(target=model.complete, args=(prompts,)) for _ in range(6)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # numpy's threads are idle
        for worker in workers:
            worker.start()
    assert (model.complete(prompts).status == "ok").all()  # and at the same time as the others
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 7
"""


def test_eight_processes_pay_each_prompt_once(tmp_path):
    cache = Cache(tmp_path / "c.sqlite")
    with LoopbackServer(ECHO, delay=0.02, faults=[*[None] * 9, "500"]) as server:
        assert start(EIGHT, server.base_url, cache.path, 60).wait(100) == 0
        assert set(server.answered.values()) == {1}
        assert len(server.answered) == len(cache) == 60
        calls = len(server.times)
        frame = client(server, cache).complete([f"prompt {i}" for i in range(60)])
        assert len(server.times) == calls
    assert frame.cached.all() and list(frame.text) == [f"PROMPT {i}" for i in range(60)]
    with cache.session() as session:
        assert session.db.execute("SELECT count(*) FROM claims").fetchone()[0] == 0
