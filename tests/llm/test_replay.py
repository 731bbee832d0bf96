"""Recorded replies."""

from __future__ import annotations

import json
import pickle

import pytest

from causalrm.core.errors import DataError
from causalrm.llm import Cache, FunctionModel, Replay, SimulatedLanguageModel


def write(path, *records):
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in records))
    return path


@pytest.mark.parametrize("export", [False, True], ids=["sqlite", "jsonl"])
def test_a_recorded_run_gives_the_same_frame(tmp_path, export):
    cache = Cache(tmp_path / "c.sqlite")
    model = FunctionModel(SimulatedLanguageModel(), name="simulated", cache=cache)
    prompts = ["The patient", [{"role": "user", "content": "Is the risk high?"}]]
    texts = model.complete(prompts * 2, replicate=[0, 0, 1, 1], max_tokens=5)
    chosen = model.choice_probabilities(prompts, ["Yes", "No"])
    path = cache.path
    if export:
        path = tmp_path / "c.jsonl"
        cache.to_jsonl(path)
    replay = pickle.loads(pickle.dumps(Replay(path)))
    again = replay.complete(prompts * 2, replicate=[0, 0, 1, 1], max_tokens=5)
    assert list(again.text) == list(texts.text)
    assert replay.name == "simulated"
    same = replay.choice_probabilities(prompts, ["Yes", "No"])
    columns = ["probability[Yes]", "lower[Yes]", "upper[Yes]", "mass", "rest", "text"]
    assert same[columns].equals(chosen[columns])
    missing = replay.complete(["never asked", "The patient"], max_tokens=6)
    assert list(missing.status) == ["error", "error"]
    assert "not recorded" in missing.reason[1]


def test_lines_written_by_hand(tmp_path):
    path = write(
        tmp_path / "r.jsonl",
        {"prompt": "a", "text": "first"},
        "",
        {"prompt": "a", "text": "second"},
        {"prompt": "a", "text": "cold", "decoding": {"temperature": 0.0}},
        {"prompt": "b", "reply": {"refusal": "no"}},
    )
    replay = Replay(path)
    frame = replay.complete(["a", "a", "a", "b"], replicate=[0, 1, 2, 0])
    assert list(frame.text[:2]) == ["first", "second"]
    assert list(frame.status) == ["ok", "ok", "error", "refused"]
    assert replay.complete(["a"], temperature=0).text[0] == "cold"
    assert replay.complete(["a"], temperature=1).text[0] == "first"


def test_several_models_in_one_file(tmp_path):
    path = write(
        tmp_path / "r.jsonl",
        {"model": "m1", "prompt": "a", "text": "one"},
        {"model": "m2", "prompt": "a", "text": "two"},
    )
    with pytest.raises(DataError, match=r"\['m1', 'm2'\]"):
        Replay(path)
    assert Replay(path, model="m2").complete(["a"]).text[0] == "two"
    with pytest.raises(DataError, match="no replies of 'm3'"):
        Replay(path, model="m3")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "line 1 is not JSON"),
        ("[1]", "not a JSON object"),
        ('{"prompt": "a"}', "record 1"),
        ('{"text": "a"}', "record 1"),
        ('{"prompt": 3, "text": "a"}', "record 1"),
        ('{"prompt": "a", "text": 3}', "must be a string"),
        ('{"prompt": "a", "reply": {"prompt_tokens": "many"}}', "must be an int"),
        ('{"prompt": "a", "reply": {"text": "A", "logprobs": [1]}}', "logprobs"),
        ("", "no replies"),
    ],
)
def test_bad_files(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        Replay(write(tmp_path / "r.jsonl", content))


def test_absent_file(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        Replay(tmp_path / "absent")
    (tmp_path / "latin").write_bytes(b"\xff\xfe{")
    with pytest.raises(DataError, match="cannot be read"):
        Replay(tmp_path / "latin")
