"""Questions and their keys, the oracle for vectors, and recorded replies."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from causalrm.augment import (
    Ask,
    CausalAugmenter,
    Oracle,
    OracleReply,
    ReplayOracle,
    RuleOracle,
    VectorOracle,
)
from causalrm.core.errors import DataError
from causalrm.datasets import make_preferences


def test_a_question_is_named_by_all_that_it_says():
    ask = Ask(step="rewrite", query="é 東?", answer=np.array([1.0, 2.0]), attribute="C1")
    same = Ask(step="rewrite", query="é 東?", answer=np.array([1.0, 2.0]), attribute="C1")
    assert ask.key == same.key
    assert ask.generator(0).random() == same.generator(0).random() != same.generator(1).random()
    for change in (
        {"step": "verify"}, {"query": "é"}, {"answer": np.array([1.0, 2.5])}, {"pair": "a"},
        {"other": np.array([0.0])}, {"attribute": "C2"}, {"direction": "upgrade"}, {"n": 1},
    ):  # fmt: skip
        assert Ask(**{**json_fields(ask), **change}).key != ask.key, change
    assert json.loads(ask.to_json())["answer"] == [1.0, 2.0]
    Ask(step="rewrite", query="\ud800", answer="").key  # noqa: B018  a lone surrogate is a key too


def json_fields(ask):
    return {name: getattr(ask, name) for name in Ask.__dataclass_fields__}


def test_oracles_follow_the_protocol(tmp_path):
    for oracle in (RuleOracle(), VectorOracle(), ReplayOracle(tmp_path / "r", record=RuleOracle())):
        assert isinstance(oracle, Oracle)


def vectors(n=400, seed=0):
    rng = np.random.default_rng(seed)
    answers = list(rng.standard_normal((2 * n, 45)))
    return pd.DataFrame(
        {"query": np.arange(n) % 50, "chosen": answers[:n], "rejected": answers[n:]}
    )


def rewritten(oracle, data, direction="upgrade", attribute="C3"):
    asks = [
        Ask(step="rewrite", query=q, answer=a, attribute=attribute, direction=direction)
        for q, a in zip(data["query"], data.rejected, strict=True)
    ]
    return asks, np.array([reply.value for reply in oracle.rewrite(asks)])


def test_vectors_move_along_one_cause_and_leak_into_its_style():
    data = vectors()
    old = np.array(list(data.rejected))
    for direction, sign in (("upgrade", 1), ("degrade", -1)):
        asks, new = rewritten(VectorOracle(error=0.0), data, direction)
        moved = sign * (new - old)
        np.testing.assert_allclose(moved[:, 2], 1.5)
        leak = moved[:, 7]
        assert 0 < leak.min() and leak.max() < 0.75
        assert leak.mean() == pytest.approx(0.375, abs=4 * 0.75 / np.sqrt(12 * len(leak)))
        assert not np.delete(moved, [2, 7], axis=1).any()
    _, wrong = rewritten(VectorOracle(error=0.25, rng=5), data)
    share = ((wrong - old)[:, 2] < 0).mean()
    assert share == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / len(old)))
    judge = [
        Ask(step="verify", query=a.query, answer=a.answer, other=b, attribute="C3")
        for a, b in zip(asks, wrong, strict=True)
    ]
    # Its errors go unnoticed; a change of another cause does not.
    assert all(reply.value for reply in VectorOracle().verify(judge))
    bad = Ask(step="verify", query=0, answer=old[0], other=new[0] + np.eye(45)[0], attribute="C3")
    assert VectorOracle().verify([bad])[0].value is False


def test_vectors_paraphrased_aligned_and_beside_another_query():
    data, oracle = vectors(5), VectorOracle()
    ask = Ask(step="align", query=0, answer=data.rejected[0], other=data.chosen[0])
    [aligned] = oracle.align([ask])
    np.testing.assert_array_equal(aligned.value[:5], data.chosen[0][:5])
    np.testing.assert_array_equal(aligned.value[5:], data.rejected[0][5:])
    [said] = oracle.paraphrase([ask])
    np.testing.assert_array_equal(said.value[:5], data.rejected[0][:5])
    assert (said.value[5:] != data.rejected[0][5:]).all()
    beside = oracle.beside(data.chosen[0])
    assert not beside[:5].any() and (beside[5:] == data.chosen[0][5:]).all()
    [failed] = oracle.attributes([Ask(step="attributes", query=0, answer=beside, n=6)])
    assert failed.status == "failed"
    with pytest.raises(DataError, match="attributes are C1 to C5"):
        oracle.rewrite([Ask(step="rewrite", query=0, answer=beside, attribute="style")])
    with pytest.raises(DataError, match="needs n_causal"):
        VectorOracle(step=0)


def test_the_attribute_is_drawn_uniformly():
    asks = [
        Ask(step="attributes", query=q, answer=a, other=b, n=1)
        for q, a, b in vectors(1000).itertuples(index=False)
    ]
    names = [reply.value[0].name for reply in VectorOracle().attributes(asks)]
    counts = pd.Series(names).value_counts()
    assert set(counts.index) == {f"C{j}" for j in range(1, 6)}
    assert ((counts - 200) ** 2 / 200).sum() < 18.5  # chi-square, 4 degrees, .999


class Counting(RuleOracle):
    """Counts what it is asked, and breaks after a number of questions."""

    def __init__(self, limit=None):
        super().__init__()
        self.asked, self.limit = [], limit

    def rewrite(self, asks):
        if self.limit is not None and len(self.asked) + len(asks) > self.limit:
            raise KeyboardInterrupt
        self.asked += [ask.key for ask in asks]
        return super().rewrite(asks)


def test_recorded_replies_give_the_same_frame(tmp_path):
    path = tmp_path / "replies.jsonl"
    data, _ = make_preferences(12, rng=0)
    kinds = ("irrelevant_query", "paraphrase", "aligned")
    counting = Counting()
    first = CausalAugmenter(ReplayOracle(path, record=counting), neutrals=kinds).generate(data)
    augmenter = CausalAugmenter(ReplayOracle(path), neutrals=kinds)
    assert augmenter.plan(data).calls == 0
    again = augmenter.generate(data)
    pd.testing.assert_frame_equal(first, again)
    assert augmenter.report_.calls == 0 and augmenter.report_.steps["cached"].sum() > 200
    assert len(counting.asked) == len(set(counting.asked)) == 120
    CausalAugmenter(ReplayOracle(path, record=counting), neutrals=kinds).generate(data)
    assert len(counting.asked) == 120
    # One more preference: only it is asked for.
    more, _ = make_preferences(13, rng=0)
    recorder = ReplayOracle(path, record=counting)
    before = path.read_bytes()
    planned = CausalAugmenter(recorder).plan(pd.concat([data, more.iloc[-1:]]))
    assert planned.calls == 26 and path.read_bytes() == before


def test_a_recording_that_was_interrupted_goes_on(tmp_path):
    path = tmp_path / "replies.jsonl"
    data, _ = make_preferences(60, rng=1)
    stopped = Counting(limit=450)
    with pytest.raises(KeyboardInterrupt):
        CausalAugmenter(ReplayOracle(path, record=stopped)).generate(data)
    assert len(stopped.asked) == 400  # two parts of 200
    with open(path, "ab") as file:
        file.write(b'{"key": "cut sho')
    resumed = Counting()
    found = CausalAugmenter(ReplayOracle(path, record=resumed)).generate(data)
    assert len(resumed.asked) == 200 and not set(resumed.asked) & set(stopped.asked)
    pd.testing.assert_frame_equal(found, CausalAugmenter(RuleOracle()).generate(data))
    pd.testing.assert_frame_equal(found, CausalAugmenter(ReplayOracle(path)).generate(data))


def test_recorded_vectors(tmp_path):
    path, data = tmp_path / "vectors.jsonl", vectors(20)
    options = {"neutrals": ("irrelevant_query", "paraphrase", "aligned", "non_contextual")}
    oracle = ReplayOracle(path, record=VectorOracle())
    first = CausalAugmenter(oracle, **options).generate(data)
    again = CausalAugmenter(ReplayOracle(path), **options).generate(data)
    pd.testing.assert_frame_equal(first, again)
    with pytest.raises(DataError, match="does not hold this vector"):
        ReplayOracle(path).beside(np.zeros(45))


def test_files_that_do_not_fit(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        ReplayOracle(tmp_path / "none")
    for text in ("[1]\n", '{"key": 1}\n', "what?\n"):
        path = tmp_path / "bad.jsonl"
        path.write_text(text)
        with pytest.raises(DataError, match="line 1 is not a recorded reply"):
            ReplayOracle(path)
    path.write_text("")
    [lost] = ReplayOracle(path).verify([Ask(step="verify", query="", answer="", other="")])
    assert (lost.status, lost.reason, lost.calls) == ("failed", "not recorded", 0)


def test_failures_are_not_recorded(tmp_path):
    class Failing(RuleOracle):
        def paraphrase(self, asks):
            return [OracleReply(status="failed", reason="no")] * len(asks)

    oracle = ReplayOracle(tmp_path / "r", record=Failing())
    ask = Ask(step="paraphrase", query="?", answer="It rains.")
    assert oracle.paraphrase([ask])[0].reason == "no"
    oracle.record = RuleOracle()
    assert oracle.paraphrase([ask])[0].status == "ok"
