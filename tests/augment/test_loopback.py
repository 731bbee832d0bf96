"""An oracle behind a real HTTP server that fails in every way: nothing lost, nothing paid twice."""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time

import pandas as pd
import pytest

from causalrm.augment import CausalAugmenter, LLMOracle
from causalrm.core.errors import CausalRMWarning
from causalrm.llm import Cache, FunctionModel, LoopbackServer, OpenAICompatible

KINDS = ("irrelevant_query", "paraphrase", "aligned")


def preferences(n):
    return pd.DataFrame(
        {
            "query": [f"Question {'abcdefghij'[i]}{i}?" for i in range(n)],
            "chosen": [f"Good answer {i}.\nIt is «{i}»." for i in range(n)],
            "rejected": [f"Bad answer {i}." for i in range(n)],
        }
    )


def client(server, cache=None, **options):
    options = {
        "concurrency": 6, "progress": False, "backoff": 0.005, "retries": 12, "timeout": 20.0,
    } | options  # fmt: skip
    return OpenAICompatible("simulated", base_url=server.base_url, cache=cache, **options)


def expected(model_text, data, **options):
    """The frame without any server."""
    oracle = LLMOracle(FunctionModel(model_text, name="simulated"))
    return CausalAugmenter(oracle, neutrals=KINDS, **options).generate(data)


def test_faults_of_the_service_lose_no_pair(model_text, tmp_path):
    data = preferences(4)
    faults = [
        None, "500", None, "429", None, "truncated", None, "cut", "503", None, "not_json", None,
        "reset", None, "no_choices", None, "429", None,
    ]  # fmt: skip
    served = FunctionModel(model_text, name="simulated", concurrency=1)
    with LoopbackServer(served, faults=faults, retry_after="0.01") as server:
        cache = Cache(tmp_path / "c.sqlite")
        augmenter = CausalAugmenter(LLMOracle(client(server, cache)), neutrals=KINDS)
        planned = augmenter.plan(data)
        assert not server.times
        frame = augmenter.generate(data)
        pd.testing.assert_frame_equal(frame, expected(model_text, data))
        # Every question has been answered, and paid, once; the plan said how many.
        assert set(server.answered.values()) == {1}
        assert planned.calls == augmenter.report_.calls == len(server.answered) == len(cache)
        assert planned.calls == 4 * (26 + 1 + 1)
        assert server.counts.keys() >= {f for f in faults if f}
        assert server.largest > 1  # several were under way at once
        n = len(server.times)
        again = augmenter.generate(data)
        assert len(server.times) == n and augmenter.report_.calls == 0
    pd.testing.assert_frame_equal(again, frame)


def test_timeouts_are_tried_again(model_text):
    data, slow, lock = preferences(2), set(), threading.Lock()

    def hesitant(text):
        digest = hashlib.sha256(text.encode()).hexdigest()
        with lock:
            wait = digest[0] in "01" and digest not in slow
            slow.add(digest)
        if wait:
            time.sleep(1.5)
        return model_text(text)

    with LoopbackServer(FunctionModel(hesitant, name="simulated")) as server:
        model = client(server, timeout=0.6, concurrency=12)
        augmenter = CausalAugmenter(LLMOracle(model), neutrals=KINDS)
        frame = augmenter.generate(data)
        assert len(server.times) > augmenter.report_.calls == 56
    pd.testing.assert_frame_equal(frame, expected(model_text, data))


def test_replies_that_are_cut_or_malformed_are_asked_again(model_text):
    """The body is whole; what the model wrote in it is not."""
    data, seen, lock = preferences(3), set(), threading.Lock()

    def careless(text):
        with lock:
            first = text not in seen and "Reply number" not in text
            seen.add(text)
        whole = model_text(text.split("\n\nReply number")[0])
        return whole[: len(whole) // 2] if first else whole

    with LoopbackServer(FunctionModel(careless, name="simulated")) as server:
        augmenter = CausalAugmenter(LLMOracle(client(server)), neutrals=KINDS)
        frame = augmenter.generate(data)
    report = augmenter.report_
    assert report.steps.retries.sum() == report.steps.asked.sum() == 84
    assert report.calls == 168 and report.steps.failed.sum() == 0
    pd.testing.assert_frame_equal(frame, expected(model_text, data))


def test_a_service_that_is_down_leaves_rows_and_a_second_run_completes_them(model_text, tmp_path):
    data, cache = preferences(3), Cache(tmp_path / "c.sqlite")
    served = FunctionModel(model_text, name="simulated")
    with LoopbackServer(served, faults=[None, None, "500"]) as server:
        model = client(server, cache, retries=0)
        augmenter = CausalAugmenter(LLMOracle(model), neutrals=KINDS)
        with pytest.warns(CausalRMWarning, match="pairs failed .*HTTP 500"):
            first = augmenter.generate(data)
        assert first.status.value_counts()["failed"] > 5
        assert len(first) == len(expected(model_text, data))
        paid = dict(server.answered)
        assert augmenter.report_.steps.failed.sum() == server.counts["500"]
    left = augmenter.report_.failures
    assert left.parent.isin(data.index).all() and left.reason.str.contains("HTTP 500").all()
    with LoopbackServer(served) as server:
        augmenter = CausalAugmenter(LLMOracle(client(server, cache)), neutrals=KINDS)
        planned = augmenter.plan(data).calls
        second = augmenter.generate(data)
        assert not set(paid) & set(server.answered)
        assert len(server.answered) == augmenter.report_.calls == planned == 84 - len(paid)
    pd.testing.assert_frame_equal(second, expected(model_text, data))


def test_a_rejected_key_fails_at_once(model_text):
    with LoopbackServer(FunctionModel(model_text), api_key="right") as server:
        augmenter = CausalAugmenter(LLMOracle(client(server, api_key="wrong")), neutrals=())
        with pytest.warns(CausalRMWarning, match="the key was rejected"):
            frame = augmenter.generate(preferences(5))
        assert len(server.times) <= 6
    assert (frame.status == "failed").all() and len(frame) == 50


def test_replies_may_arrive_in_any_order(model_text):
    data, lock, turn = preferences(2), threading.Lock(), [0]

    def shuffled(text):
        with lock:
            turn[0] += 1
            wait = 0.02 * (7 * turn[0] % 5)
        time.sleep(wait)
        return model_text(text)

    model = FunctionModel(shuffled, name="simulated", concurrency=10)
    found = CausalAugmenter(LLMOracle(model), neutrals=KINDS).generate(data)
    pd.testing.assert_frame_equal(found, expected(model_text, data))


RUN = """
    import sys
    import pandas as pd
    from causalrm.augment import CausalAugmenter, LLMOracle
    from causalrm.llm import OpenAICompatible
    url, cache, data = sys.argv[1:]
    model = OpenAICompatible("simulated", base_url=url, cache=cache, concurrency=4, progress=False)
    kinds = ("irrelevant_query", "paraphrase", "aligned")
    CausalAugmenter(LLMOracle(model), neutrals=kinds).generate(pd.read_json(data))
"""


@pytest.mark.skipif(os.name != "posix", reason="kills a process by a POSIX signal")
def test_a_killed_run_goes_on_without_paying_twice(model_text, tmp_path):
    after = 70  # in the middle of the rewritings
    data, path = preferences(6), tmp_path / "c.sqlite"
    data.to_json(tmp_path / "data.json")
    served = FunctionModel(model_text, name="simulated")
    with LoopbackServer(served, delay=0.02) as server:
        arguments = [server.base_url, str(path), str(tmp_path / "data.json")]
        process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(RUN), *arguments])
        deadline = time.monotonic() + 60
        while sum(server.answered.values()) < after and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        time.sleep(0.1)  # the server ends what it had begun
        db = sqlite3.connect(path)
        stored = db.execute("SELECT count(*) FROM replies").fetchone()[0]
        db.close()
        paid = sum(server.answered.values())
        assert after - 4 <= stored <= paid < 168
        augmenter = CausalAugmenter(LLMOracle(client(server, path)), neutrals=KINDS)
        planned = augmenter.plan(data).calls
        frame = augmenter.generate(data)
        report = augmenter.report_
        # What was stored is not paid again; at most the four calls under way are.
        assert planned == report.calls == 168 - stored
        assert sum(server.answered.values()) == paid + 168 - stored <= 168 + 4
        assert sum(n > 1 for n in server.answered.values()) == paid - stored <= 4
        assert report.steps.cached.sum() == stored
    pd.testing.assert_frame_equal(frame, expected(model_text, data))
