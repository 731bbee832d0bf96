"""The cache: claims, leases, files that are not ours."""

from __future__ import annotations

import os
import pickle
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from causalrm.core.errors import BackendError
from causalrm.llm import Cache, FunctionModel, Reply

ANSWER = Reply(text="x", prompt_tokens=1)


def test_a_claim_keeps_others_out_until_it_ends(tmp_path):
    cache = Cache(tmp_path / "c.sqlite")
    with cache.session() as one, cache.session() as two:
        assert one.claim("k") is True
        assert one.claim("k") is True  # its own
        assert two.claim("k") is False
        one.release("k")
        assert two.claim("k") is True
        two.store("k", "{}", ANSWER)
        assert repr(one.claim("k")) == repr(two.find(["k"])["k"])
        assert one.claim("other") is True
    with cache.session() as three:  # what ended without an answer is free
        assert three.claim("other") is True


def test_a_lease_ends_and_can_be_renewed(tmp_path):
    cache = Cache(tmp_path / "c.sqlite", lease=0.15)
    with cache.session() as one, cache.session() as two:
        one.claim("k")
        time.sleep(0.1)
        one.renew()
        time.sleep(0.1)
        assert two.claim("k") is False
        time.sleep(0.1)
        assert two.claim("k") is True


@pytest.mark.skipif(os.name != "posix", reason="asks the system whether a process lives")
def test_the_claim_of_a_dead_process_is_free_at_once(tmp_path):
    cache = Cache(tmp_path / "c.sqlite", lease=3600)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with cache.session() as one, cache.session() as two:
        one.owner = one.owner.replace(f" {os.getpid()},", f" {gone.pid},")
        assert one.claim("k") is True
        assert two.claim("k") is True
        one.owner = one.owner.replace('["', '["another machine ')
        assert one.claim("elsewhere") is True
        assert two.claim("elsewhere") is False  # nobody can tell: the lease decides


def test_the_first_answer_stays(tmp_path):
    with Cache(tmp_path / "c.sqlite").session() as session:
        session.store("k", "{}", ANSWER)
        session.store("k", "{}", Reply(text="later"))
        assert session.find(["k", "absent"])["k"].text == "x"
        assert len(session.find(["k"] + [str(i) for i in range(1500)])) == 1


def test_many_threads_open_a_new_file_at_once(tmp_path):
    cache = Cache(tmp_path / "deep" / "c.sqlite")
    won, errors = [], []

    def run(name):
        try:
            with cache.session() as session:
                for k in range(20):
                    if session.claim(str(k)) is True:
                        won.append(k)
                        session.store(str(k), "{}", ANSWER)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert sorted(won) == list(range(20))
    assert len(cache) == 20


def test_a_file_that_another_thread_is_creating_is_a_cache(tmp_path):
    errors = []
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # so that threads meet within the creation
    try:
        for attempt in range(15):
            cache = Cache(tmp_path / f"{attempt}.sqlite")

            def run(cache=cache):
                try:
                    with cache.session():
                        pass
                except Exception as error:
                    errors.append(error)

            threads = [threading.Thread(target=run) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not errors


def test_files_that_are_no_caches(tmp_path):
    (tmp_path / "text").write_text("not a database, but long enough to look at " * 50)
    with pytest.raises(BackendError, match="not a cache"):
        len(Cache(tmp_path / "text"))
    other = sqlite3.connect(tmp_path / "other")
    other.execute("CREATE TABLE replies (mine TEXT)")
    other.close()
    with pytest.raises(BackendError, match="but not a cache"):
        len(Cache(tmp_path / "other"))
    with pytest.raises(BackendError, match="cannot be opened"):
        len(Cache(tmp_path))


def test_it_is_only_settings(tmp_path):
    cache = pickle.loads(pickle.dumps(Cache(tmp_path / "c", lease=5)))
    assert (cache.path, cache.lease) == (tmp_path / "c", 5)
    assert repr(cache) == f"Cache({str(tmp_path / 'c')!r})"


def test_export_is_what_replay_reads(tmp_path):
    cache = Cache(tmp_path / "c.sqlite")
    FunctionModel(str.upper, name="upper", cache=cache).complete(["a", "b"], seed=1)
    assert cache.to_jsonl(tmp_path / "out.jsonl") == 2
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2
