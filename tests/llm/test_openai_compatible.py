"""The client against a real HTTP server on loopback that behaves, and misbehaves."""

from __future__ import annotations

import asyncio
import copy
import datetime
import email.utils
import json
import logging
import pickle
import sys
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest

from causalrm.core.errors import BackendError, DataError, MissingDependencyError
from causalrm.llm import (
    FunctionModel,
    LanguageModel,
    LoopbackServer,
    OpenAICompatible,
    Reply,
    SimulatedLanguageModel,
)
from causalrm.llm.openai_compatible import _retry_after
from causalrm.llm.server import FAULTS

KEY = "sk-simulated-0123456789abcdef"
SIMULATED = FunctionModel(SimulatedLanguageModel(), name="simulated")
PROMPTS = [
    f"Question: {question} Choices: A. Yes B. No\nAnswer:"
    for question in ("Will the person pay?", "Is the café loud?", "Łódź 東京 👍?", 'Is it "so"?\\n')
]
COLUMNS = [f"{kind}[{c}]" for kind in ("probability", "lower", "upper") for c in "AB"]


def client(server, **options):
    options = {"api_key": KEY, "backoff": 0.005, "progress": False} | options
    return OpenAICompatible("simulated", base_url=server.base_url, **options)


def test_the_protocol_changes_nothing():
    direct = SIMULATED.choice_probabilities(PROMPTS, ["A", "B"])
    with LoopbackServer(SIMULATED, api_key=KEY) as server:
        model = client(server)
        served = model.choice_probabilities(PROMPTS, ["A", "B"])
        chats = [[{"role": "system", "content": "Be short."}, {"role": "user", "content": p}]
                 for p in PROMPTS]  # fmt: skip
        told = model.complete(chats, max_tokens=8, logprobs=True, top_logprobs=3)
    assert isinstance(model, LanguageModel)
    assert served[COLUMNS].to_numpy() == pytest.approx(direct[COLUMNS].to_numpy())
    assert (served.status == "ok").all()
    assert (served.attempts == 1).all() and (served.latency > 0).all()
    assert (served.prompt_tokens == direct.prompt_tokens).all()
    expected = SIMULATED.complete(chats, max_tokens=8, logprobs=True, top_logprobs=3)
    assert list(told.text) == list(expected.text)
    places = [[p["logprob"] for p in row] for row in told.logprobs]
    assert places == [[p["logprob"] for p in row] for row in expected.logprobs]
    assert told.mass.to_numpy() == pytest.approx(expected.mass.to_numpy())


@pytest.mark.parametrize("shape", ["legacy", "completions"])
def test_older_servers(shape):
    direct = SIMULATED.choice_probabilities(PROMPTS, ["A", "B"])
    with LoopbackServer(SIMULATED, faults=[shape]) as server:
        served = client(server).choice_probabilities(PROMPTS, ["A", "B"])
    assert served[COLUMNS].to_numpy() == pytest.approx(direct[COLUMNS].to_numpy())


TRANSIENT = ("429", "500", "503", "reset", "cut", "truncated", "not_json", "no_choices")


def test_every_prompt_ends_as_a_row_and_every_passing_fault_is_overcome():
    faults = [f for fault in TRANSIENT for f in (fault, None)]
    prompts = [f"{p} {i}" for i in range(6) for p in PROMPTS]
    direct = SIMULATED.choice_probabilities(prompts, ["A", "B"])
    with LoopbackServer(SIMULATED, faults=faults) as server:
        frame = client(server, retries=20).choice_probabilities(prompts, ["A", "B"])
    assert (frame.status == "ok").all()
    assert frame[COLUMNS].to_numpy() == pytest.approx(direct[COLUMNS].to_numpy())
    assert set(server.counts) == {"ok", *TRANSIENT}
    assert frame.attempts.sum() == sum(server.counts.values())
    assert server.counts["ok"] == len(prompts) == len(server.answered)


@pytest.mark.parametrize(
    ("fault", "status", "reason", "attempts"),
    [
        ("400", "error", "HTTP 400", 1),
        ("429", "error", "HTTP 429", 3),
        ("500", "error", "HTTP 500", 3),
        ("reset", "error", "connection failed", 3),
        ("cut", "error", "connection failed", 3),
        ("truncated", "error", "malformed reply", 3),
        ("not_json", "error", "malformed reply", 3),
        ("no_choices", "error", "list of choices is empty", 3),
        (None, "error", "no reply within", 3),
        ("no_logprobs", "no_logprobs", "no log-probabilities", 1),
        ("bad_logprobs", "error", "not a log-probability", 1),
        ("refusal", "refused", "cannot answer", 1),
    ],
)
def test_a_fault_that_stays_is_told(fault, status, reason, attempts):
    delay = 0.25 if fault is None else 0.0
    with LoopbackServer(SIMULATED, faults=[fault], delay=delay) as server:
        model = client(server, retries=2, timeout=30 if fault else 0.15)
        frame = model.choice_probabilities(PROMPTS[:2], ["A", "B"])
    assert list(frame.status) == [status] * 2
    assert frame.reason.str.contains(reason).all()
    assert list(frame.attempts) == [attempts] * 2
    assert frame[COLUMNS[:2]].isna().all(axis=None)


def test_failures_are_asked_again_and_paid_answers_are_not(tmp_path):
    faults = ["no_logprobs", "bad_logprobs", "400", "refusal", None]
    prompts = [f"{PROMPTS[0]} {i}" for i in range(5)]
    with LoopbackServer(SIMULATED, faults=faults) as server:
        model = client(server, cache=tmp_path / "c.sqlite", concurrency=1)
        first = model.choice_probabilities(prompts, ["A", "B"])
        server.faults = ()
        second = model.choice_probabilities(prompts, ["A", "B"])
        model.complete(prompts, max_tokens=1, logprobs=True, top_logprobs=20, temperature=1.0)
    assert list(first.status) == ["no_logprobs", "error", "error", "refused", "ok"]
    assert list(second.status) == ["ok", "ok", "ok", "refused", "ok"]
    assert list(second.cached) == [False, False, False, True, True]
    assert len(server.times) == 8  # the last call was all in the cache


def test_a_rejected_key_ends_the_run_at_once():
    with LoopbackServer(SIMULATED, api_key="another") as server:
        frame = client(server, concurrency=2).complete([str(i) for i in range(50)])
    assert (frame.status == "error").all()
    assert frame.reason.str.contains("the key was rejected").all()
    assert sum(server.counts.values()) <= 2
    assert frame.reason.iloc[-1].startswith("not sent")
    assert frame.attempts.iloc[-1] == 0


def test_a_dead_service_ends_the_run_after_some_prompts():
    with LoopbackServer(SIMULATED, faults=["500"]) as server:
        model = client(server, retries=1, give_up_after=6, concurrency=2)
        frame = model.complete([str(i) for i in range(60)])
    assert (frame.status == "error").all()
    assert 12 <= len(server.times) <= 16
    assert "6 prompts in a row failed" in frame.reason.iloc[-1]


def test_a_server_that_is_not_there():
    with LoopbackServer(SIMULATED) as server:
        model = client(server, retries=1)
    frame = model.complete(["a"])
    assert frame.status[0] == "error" and "ConnectError" in frame.reason[0]


def test_retry_after_is_honoured_by_all_requests():
    faults = ["429", "429", *[None] * 9]  # one answered prompt would let the next be sent at once
    with LoopbackServer(SIMULATED, faults=faults, delay=0.1, retry_after="0.5") as server:
        frame = client(server, concurrency=2).complete(["a", "b", "c", "d"], max_tokens=1)
    assert (frame.status == "ok").all()
    # Two were sent before the server asked for a pause; nothing is sent during it.
    assert (np.array(server.times[2:]) - server.times[0] >= 0.5).all()
    assert server.times[-1] - server.times[0] < 5.0


def test_a_wait_that_is_too_long_gives_the_prompt_up():
    with LoopbackServer(SIMULATED, faults=["429"], retry_after="86400") as server:
        frame = client(server).complete(["a"])
    assert "asks to wait 86400 s" in frame.reason[0] and frame.attempts[0] == 1


def test_forms_of_retry_after():
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=30)
    assert _retry_after({"retry-after": "2.5"}) == 2.5
    assert _retry_after({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert 28 < _retry_after({"retry-after": email.utils.format_datetime(soon)}) <= 30
    assert _retry_after({"retry-after": "-3"}) == 0.0
    assert _retry_after({"retry-after": "soon"}) is None
    assert _retry_after({}) is None


def test_requests_per_minute():
    with LoopbackServer(SIMULATED) as server:
        model = client(server, requests_per_minute=60 / 0.06)
        model.complete(["a", "b", "c", "d"], max_tokens=1)
        model.complete(["e", "f", "g"], max_tokens=1)  # the limit is the object's, not the call's
    spans = np.array(server.times)[1:] - server.times[0]
    assert (spans >= 0.06 * np.arange(1, 7) - 0.05).all()
    assert spans[-1] >= 0.31


def test_tokens_per_minute():
    with LoopbackServer(FunctionModel(lambda p: Reply(text="x", prompt_tokens=10,
                                                      completion_tokens=0))) as server:  # fmt: skip
        model = client(server, tokens_per_minute=60 * 100, concurrency=1)  # 10 tokens: .1 s
        plan = model.plan(["a", "b"], max_tokens=100)
        model.complete(["a", "b", "c", "d"], max_tokens=100)
    assert plan.minutes == pytest.approx((2 * 5 + 200) / 6000)
    spans = np.array(server.times) - server.times[0]
    # 105 were expected of each, 10 were used: the account is corrected after each reply.
    assert 0.25 <= spans[-1] < 2.0


def test_concurrency_is_bounded_and_used():
    with LoopbackServer(SIMULATED, delay=0.05) as server:
        client(server, concurrency=3).complete([str(i) for i in range(9)], max_tokens=1)
    assert server.largest == 3


def test_inside_a_running_event_loop_and_from_threads(tmp_path):
    with LoopbackServer(SIMULATED, delay=0.02) as server:
        model = client(server, cache=tmp_path / "c.sqlite")

        async def cell():
            return model.complete(PROMPTS, max_tokens=2)

        inside = asyncio.run(cell())
        out = []
        threads = [
            threading.Thread(target=lambda: out.append(model.complete([*PROMPTS, "new"], seed=1)))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (inside.status == "ok").all()
    assert [list(f.text) for f in out] == [list(out[0].text)] * 3
    # Threads share the cache as processes do: each distinct request was paid once.
    assert sum(server.answered.values()) == 4 + 5


def repeats_the_key(prompt):
    return f"{prompt} {KEY}"


def test_the_key_is_nowhere(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    frames, said = [], []
    with LoopbackServer(FunctionModel(repeats_the_key)) as server:
        model = client(server, cache=tmp_path / "c.sqlite", retries=0, concurrency=1)
        for faults in [(), *((f,) for f in FAULTS)]:
            server.faults = faults
            frames.append(model.complete([f"say {faults}"], logprobs=bool(faults)))
        said += [repr(model), str(model), repr(vars(model)), str(model.plan(["a"]).rows)]
    said += [f.to_json() for f in frames]
    said += [caplog.text, *(str(vars(r)) for r in caplog.records)]
    said.append(pickle.dumps(model).decode("latin-1"))
    said += [p.read_bytes().decode("latin-1") for p in tmp_path.iterdir()]
    model.cache.to_jsonl(tmp_path / "out.jsonl")
    said.append((tmp_path / "out.jsonl").read_text())
    for text in said:
        assert KEY not in text
        assert KEY[:12] not in text
    assert frames[0].text[0].endswith("***")
    assert any("key ***" in f.reason[0] for f in frames if f.status[0] == "error")


def test_copies_keep_the_key_and_pickles_do_not(monkeypatch):
    with LoopbackServer(SIMULATED, api_key=KEY) as server:
        model = client(server)
        for other in (copy.copy(model), copy.deepcopy(model)):
            assert other.complete(["a"]).status[0] == "ok"
        loaded = pickle.loads(pickle.dumps(model))
        assert loaded.complete(["a"]).status[0] == "error"
        monkeypatch.setenv("OPENAI_API_KEY", KEY + "\n")  # as files with keys end
        assert loaded.complete(["a"]).status[0] == "ok"
        monkeypatch.setenv("MY_KEY", KEY)
        named = client(server, api_key=None, api_key_variable="MY_KEY")
        assert named.complete(["a"]).status[0] == "ok"


def test_no_key_no_service():
    model = OpenAICompatible("m")
    with pytest.raises(BackendError, match="OPENAI_API_KEY"):
        model.complete(["a"])
    with pytest.raises(BackendError, match="printable"):
        OpenAICompatible("m", api_key="schlüssel").complete(["a"])
    assert repr(OpenAICompatible("m", base_url="http://me:pw@host/v1?token=1")) == (
        "OpenAICompatible('m', base_url='http://host/v1')"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"retries": -1}, "retries"),
        ({"timeout": -1}, "timeout"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(DataError, match=message):
        OpenAICompatible("m", **options)
    with pytest.raises(DataError, match="name"):
        OpenAICompatible("")


def test_prompts_that_cannot_be_sent_are_rows():
    with LoopbackServer(SIMULATED) as server:
        frame = client(server).complete(["fine", "\ud800"])
    assert list(frame.status) == ["ok", "error"]
    assert "Unicode" in frame.reason[1]


def test_without_the_client_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingDependencyError, match=r"causalrm\[llm\]"):
        OpenAICompatible("m", api_key="x").complete(["a"])


def test_the_server_checks_its_settings_and_requests():
    with pytest.raises(DataError, match="faults must be among"):
        LoopbackServer(SIMULATED, faults=["flood"])
    server = LoopbackServer(SIMULATED)
    with pytest.raises(DataError, match="not running"):
        _ = server.base_url
    with server:
        for body in (b"{", b"[]", b"{}"):
            with pytest.raises(urllib.error.HTTPError, match="400") as caught:
                urllib.request.urlopen(server.base_url + "/chat/completions", body)
            caught.value.close()
        failing = json.dumps({"messages": [{"role": "user", "content": "x"}], "odd": 1})
        server.model = FunctionModel(lambda prompt: 1 / 0)
        with pytest.raises(urllib.error.HTTPError, match="500") as caught:
            urllib.request.urlopen(server.base_url + "/chat/completions", failing.encode())
        assert "ZeroDivisionError" in json.load(caught.value)["error"]["message"]
        caught.value.close()


def test_progress_goes_to_terminals_only(capsys, monkeypatch):
    with LoopbackServer(SIMULATED, faults=[None, "400"]) as server:
        model = client(server, progress=True)
        model.complete(["a"])
        assert capsys.readouterr() == ("", "")
        monkeypatch.setenv("FORCE_COLOR", "1")
        model.complete(["a", "b"])
        assert "2/2" in capsys.readouterr().err
