"""The frame of pairs: its columns, each kind of pair, bad input, and randomness."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import causalrm as crm
from causalrm.augment import Ask, OracleReply, RuleOracle, VectorOracle
from causalrm.core.errors import CausalRMWarning, DataError
from causalrm.datasets import make_preferences
from causalrm.datasets._preference_text import topic_of

DATA, TRUTH = make_preferences(60, rng=2)
DATA.index = pd.Index([f"row {i}" for i in range(60)], name="who")
ALL = ("irrelevant_query", "paraphrase", "aligned", "non_contextual", "non_contextual_tie")
COLUMNS = [
    "pair", "parent", "cluster", "query", "answer_a", "answer_b", "target", "kind", "attribute",
    "direction", "status",
]  # fmt: skip


def augmented(data=DATA, oracle=None, **options):
    return crm.CausalAugmenter(oracle or RuleOracle(), **options).generate(data)


FRAME = augmented(neutrals=ALL)


def parents(frame):
    return DATA.loc[frame["parent"]]


def test_one_row_per_pair_with_its_parent_and_cluster():
    assert list(FRAME.columns) == COLUMNS
    assert FRAME.pair.tolist() == list(range(len(FRAME)))
    assert FRAME.kind.value_counts().to_dict() == {"causal": 600, **dict.fromkeys(ALL, 60)}
    assert set(FRAME.target) == {1.0, 0.5}
    assert FRAME.status.isin(["ok", "identical"]).all()
    codes = dict(zip(DATA["query"].unique(), range(60), strict=False))
    assert FRAME.cluster.tolist() == parents(FRAME)["query"].map(codes).tolist()


def test_causal_pairs_improve_the_rejected_and_worsen_the_chosen():
    pairs = FRAME[FRAME.kind == "causal"]
    up, down = pairs[pairs.direction == "upgrade"], pairs[pairs.direction == "degrade"]
    assert len(up) == len(down) == 300 and (pairs.target == 1).all()
    assert (up.answer_b.to_numpy() == parents(up).rejected.to_numpy()).all()
    assert (down.answer_a.to_numpy() == parents(down).chosen.to_numpy()).all()
    assert (pairs["query"].to_numpy() == parents(pairs)["query"].to_numpy()).all()
    assert set(pairs.attribute) == set(TRUTH.theta)
    ok = pairs[pairs.status == "ok"]
    gain = TRUTH.measure(ok["query"], ok.answer_a) - TRUTH.measure(ok["query"], ok.answer_b)
    assert 0.5 < len(ok) / len(pairs) < 1
    for attribute in TRUTH.theta:
        moved = gain[attribute].to_numpy() != 0
        assert (moved == (ok.attribute == attribute).to_numpy()).all()
    reward = [TRUTH.reward(ok["query"], ok[side]) for side in ("answer_a", "answer_b")]
    assert (reward[0] > reward[1]).all()


def test_neutral_pairs_are_of_equal_true_reward():
    ties = FRAME[(FRAME.target == 0.5) & (FRAME.status == "ok")]
    assert set(ties.kind) == set(ALL) - {"non_contextual"}
    a, b = (TRUTH.reward(ties["query"], ties[side]) for side in ("answer_a", "answer_b"))
    np.testing.assert_allclose(a, b)
    beside = ties.kind.isin(["irrelevant_query", "non_contextual_tie"])
    assert not a[beside].any()
    own = ties[ties.kind.isin(["paraphrase", "aligned"])]
    assert (own["query"].to_numpy() == parents(own)["query"].to_numpy()).all()
    said = ties[ties.kind == "paraphrase"]
    source = parents(said)
    from_parent = (said.answer_a.to_numpy() == source.chosen.to_numpy()) | (
        said.answer_a.to_numpy() == source.rejected.to_numpy()
    )
    assert from_parent.all()
    aligned = ties[ties.kind == "aligned"]
    assert (aligned.answer_a.to_numpy() == parents(aligned).chosen.to_numpy()).all()
    ordered = FRAME[(FRAME.kind == "non_contextual") & (FRAME.status == "ok")]
    other = TRUTH.reward(ordered["query"], ordered.answer_b)
    assert not other.any() and (TRUTH.reward(ordered["query"], ordered.answer_a) > 0).mean() > 0.9


def test_irrelevant_queries_are_unrelated_and_drawn_from_both_sources():
    pairs = FRAME[FRAME.kind == "irrelevant_query"]
    source = parents(pairs)
    topics = pairs["query"].map(topic_of).to_numpy()
    assert (topics != source["query"].map(topic_of).to_numpy()).all()
    plain = (pairs.answer_a.to_numpy() == source.chosen.to_numpy()) & (
        pairs.answer_b.to_numpy() == source.rejected.to_numpy()
    )
    assert plain.sum() == 30  # and the other half from augmented pairs
    made = FRAME[(FRAME.kind == "causal") & (FRAME.status == "ok")]
    known = set(zip(made.parent, made.answer_a, made.answer_b, strict=True))
    rest = pairs[~plain]
    assert set(zip(rest.parent, rest.answer_a, rest.answer_b, strict=True)) <= known


def test_one_seed_gives_one_frame_and_kinds_do_not_disturb_each_other():
    pd.testing.assert_frame_equal(augmented(neutrals=ALL), FRAME)
    pd.testing.assert_frame_equal(augmented(neutrals=ALL, rng=np.random.default_rng(0)), FRAME)
    other = augmented(neutrals=ALL, rng=1)
    causal = FRAME.kind == "causal"
    pd.testing.assert_frame_equal(other[causal], FRAME[causal])  # the oracle's word is the same
    assert (other[~causal]["query"] != FRAME[~causal]["query"]).mean() > 0.2
    for kind in ALL:
        alone = augmented(neutrals=(kind,))
        one = alone[alone.kind == kind].drop(columns="pair").reset_index(drop=True)
        all_ = FRAME[FRAME.kind == kind].drop(columns="pair").reset_index(drop=True)
        pd.testing.assert_frame_equal(one, all_)


def test_ratios_set_the_number_of_neutral_pairs():
    frame = augmented(
        neutrals=("irrelevant_query", "paraphrase"),
        neutral_ratio={"irrelevant_query": 2.5, "paraphrase": 0.1},
        n_attributes=0,
    )
    assert frame.kind.value_counts().to_dict() == {"irrelevant_query": 150, "paraphrase": 6}
    every = augmented(neutrals=("paraphrase", "aligned"), neutral_ratio={"paraphrase": 2})
    said = every[every.kind == "paraphrase"]
    assert len(said) == 120 and not said.duplicated(["parent", "answer_a"]).any()
    assert augmented(neutrals=()).kind.eq("causal").all()


def test_frames_of_all_libraries_give_the_same_pairs():
    plain = DATA.reset_index(drop=True)
    expected = augmented(plain, neutrals=ALL)
    assert expected.parent.max() == 59
    renamed = plain.set_axis(["q", "yes", "no"], axis=1)
    for data in (
        pl.from_pandas(renamed),
        pa.Table.from_pandas(renamed),
        renamed.astype("category"),
    ):
        found = crm.CausalAugmenter(RuleOracle(), neutrals=ALL).generate(
            data, query="q", chosen="yes", rejected="no"
        )
        pd.testing.assert_frame_equal(found, expected)


def test_preferences_that_are_there_twice_are_asked_once():
    twice = pd.concat([DATA, DATA])
    augmenter = crm.CausalAugmenter(RuleOracle(), neutrals=())
    frame = augmenter.generate(twice)
    assert augmenter.report_.steps.asked[:3].tolist() == [60, 300, 600]
    first, second = frame.iloc[:600], frame.iloc[600:]
    pd.testing.assert_frame_equal(
        first.drop(columns="pair"), second.drop(columns="pair").set_index(first.index)
    )


def test_blocks_change_nothing(monkeypatch):
    monkeypatch.setattr("causalrm.augment._run._BLOCK", 7)
    pd.testing.assert_frame_equal(augmented(neutrals=ALL), FRAME)


def test_identical_and_empty_answers_stay_as_rows():
    data = DATA.copy()
    data.loc["row 3", "rejected"] = data.loc["row 3", "chosen"] + " \n"
    data.loc["row 7", "chosen"] = " "
    with (
        pytest.warns(CausalRMWarning, match="1 of 60 preferences have an empty answer .*row 7"),
        pytest.warns(CausalRMWarning, match="1 of 60 preferences have identical answers .*row 3"),
    ):
        frame = augmented(data, neutrals=ALL)
    causal = frame[frame.kind == "causal"]
    assert len(causal) == 600
    assert (causal.status[causal.parent == "row 3"] == "identical").all()
    assert (causal.status[causal.parent == "row 7"] == "empty").all()
    neutral = frame[(frame.kind != "causal") & (frame.status == "ok")]
    assert not neutral.parent.isin(["row 3", "row 7"]).any()
    assert not (neutral[["answer_a", "answer_b"]] == " ").to_numpy().any()
    counts = frame.attrs["augmentation"]["pairs"]["causal"]
    assert counts["empty"] == 10 and counts["identical"] >= 10


def test_rewritings_that_change_nothing_are_identical():
    class Lazy(RuleOracle):
        def rewrite(self, asks):
            return [OracleReply(value=a.answer + " ") for a in asks]

        paraphrase = align = rewrite

    augmenter = crm.CausalAugmenter(Lazy(), neutrals=("paraphrase", "aligned"))
    frame = augmenter.generate(DATA)
    assert (frame.status[frame.kind != "aligned"] == "identical").all()
    assert "verify" not in augmenter.report_.steps.index[augmenter.report_.steps.asked > 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": "one and the same"}, "all 60 rows have the same .*no unrelated question"),
        ({"chosen": 3.5}, "Expected text in column 'chosen', but 60 of 60 rows hold float"),
        ({"rejected": [None, "x"] * 30}, "Column 'rejected' has 30 missing values .*row 0"),
        ({"query": [" ", "x", "y"] * 20}, "20 of 60 are empty"),
        ({"chosen": [np.zeros(2)] * 60}, "rows hold ndarray .* or give an oracle for vectors"),
    ],
)
def test_bad_columns(change, message):
    with pytest.raises(DataError, match=message):
        augmented(DATA.assign(**change))


def test_one_query_is_enough_where_no_other_is_needed():
    frame = augmented(DATA.assign(query=DATA["query"].iloc[0]), neutrals=("paraphrase", "aligned"))
    assert frame.cluster.eq(0).all() and len(frame) == 720


def test_questions_that_are_all_akin_are_paired_with_the_least_akin():
    data = DATA.iloc[:9].assign(
        query=["the long green tea leaf", "the long green tea cup", "the long red coffee cup"] * 3
    )
    frame = augmented(data, n_attributes=0)
    of = {"leaf": "coffee", "tea cup": "coffee", "coffee": "leaf"}
    seen = set()
    for row in frame.itertuples():
        [mine] = [k for k in of if k in data.loc[row.parent, "query"]]
        assert of[mine] in row.query
        seen.add(mine)
    assert seen == set(of)


def test_other_bad_input():
    with pytest.raises(DataError, match="Expected a column 'reply' for chosen="):
        crm.CausalAugmenter(RuleOracle()).generate(DATA, chosen="reply")
    with pytest.raises(DataError, match="0 rows"):
        augmented(DATA.iloc[:0])
    with pytest.raises(DataError, match="Expected a pandas"):
        augmented([1, 2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"oracle": "gpt"}, "oracle needs the methods"),
        ({"n_attributes": -1}, "n_attributes must be"),
        ({"n_attributes": True}, "n_attributes must be"),
        ({"neutrals": ("irrelevant",)}, "neutrals must be different ones of .* got 'irrelevant'"),
        ({"neutrals": ("aligned", "aligned")}, "neutrals must be different"),
        ({"neutral_ratio": -1}, "neutral_ratio must be a number >= 0"),
        ({"neutrals": "aligned", "neutral_ratio": 2}, "at most 1 for aligned"),
        ({"neutral_ratio": {"aligned": 1}}, "not among neutrals"),
        ({"neutrals": (), "n_attributes": 0}, "nothing to make"),
    ],
)
def test_arguments_that_do_not_fit(options, message):
    with pytest.raises(DataError, match=message):
        crm.CausalAugmenter(**({"oracle": RuleOracle()} | options))


def test_an_oracle_that_breaks_the_protocol():
    class Short(RuleOracle):
        def elements(self, asks):
            return super().elements(asks)[1:]

    with pytest.raises(DataError, match="asked 300 questions and gave 299"):
        augmented(oracle=Short())

    class Few(RuleOracle):
        def attributes(self, asks):
            return super().attributes([Ask(step="", query="?", answer="", other="", n=2)]) * len(
                asks
            )

    with pytest.warns(CausalRMWarning, match="2 attributes where 5 were asked for"):
        frame = augmented(oracle=Few(), neutrals=())
    assert len(frame) == 600 and (frame.status == "failed").all()
    with pytest.warns(CausalRMWarning, match="6 attributes are wanted"):
        assert (augmented(n_attributes=6, neutrals=()).status == "failed").all()


def test_the_report_is_plain_json():
    augmenter = crm.CausalAugmenter(RuleOracle(), neutrals=ALL, rng=np.random.SeedSequence(9))
    frame = augmenter.generate(DATA)
    report = augmenter.report_
    told = json.loads(report.to_json())
    assert told == frame.attrs["augmentation"] == report.to_dict()
    assert told["entropy"] == 9 and told["cost"] is None and not told["planned"]
    assert sum(sum(kind.values()) for kind in told["pairs"].values()) == len(frame)
    assert told["steps"]["attributes"]["asked"] == 60
    assert "irrelevant_query" in str(report) and "all" in report.summary().to_markdown()


def vectors(n, seed=0):
    rng = np.random.default_rng(seed)
    s = rng.standard_normal((2 * n, 40))
    c = 0.6 * s[:, :5] + 0.8 * rng.standard_normal((2 * n, 5))
    answers = list(np.hstack([c, s]))
    return pd.DataFrame({"query": np.arange(n), "chosen": answers[:n], "rejected": answers[n:]})


def test_vectors_follow_the_design_of_the_simulation():
    n = 1000
    oracle = VectorOracle(error=0.045)
    frame = augmented(vectors(n), oracle, n_attributes=1)
    causal = frame[frame.kind == "causal"]
    gap = np.array(list(causal.answer_a)) - np.array(list(causal.answer_b))
    assert gap.shape == (2 * n, 45) and (causal.status == "ok").all()
    j = causal.attribute.str[1:].astype(int).to_numpy() - 1
    moved = gap[np.arange(2 * n), j]
    np.testing.assert_allclose(np.abs(moved), 1.5)
    assert (moved < 0).mean() == pytest.approx(0.045, abs=4 * np.sqrt(0.045 * 0.955 / (2 * n)))
    leak = gap[np.arange(2 * n), 5 + j] * np.sign(moved)
    assert 0 < leak.min() < 0.02 and 0.73 < leak.max() < 0.75
    assert (np.count_nonzero(gap, axis=1) == 2).all()
    assert np.bincount(j, minlength=5).min() > 300
    beside = frame[frame.kind == "irrelevant_query"]
    gap = np.array(list(beside.answer_a)) - np.array(list(beside.answer_b))
    assert len(beside) == n and not gap[:, :5].any()
    assert (np.count_nonzero(gap, axis=1) == 40).sum() == n // 2  # from preferences
    assert (np.count_nonzero(gap, axis=1) == 1).sum() == n // 2  # from causal pairs: the leak
    assert (beside["query"] != beside["parent"]).all()
    pd.testing.assert_frame_equal(augmented(vectors(n), oracle, n_attributes=1), frame)
    polars = pl.DataFrame(
        {"query": range(n), **{k: np.array(list(vectors(n)[k])) for k in ("chosen", "rejected")}}
    )
    pd.testing.assert_frame_equal(augmented(polars, oracle, n_attributes=1), frame)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chosen": "text"}, "Expected 1-d vectors of finite numbers in column 'chosen'"),
        ({"chosen": [np.array([np.nan] * 45)] * 20}, "20 of 20 rows hold something else"),
        ({"chosen": [np.zeros((2, 2))] * 20}, "Expected 1-d vectors"),
        ({"chosen": [np.zeros(3)] * 20}, "must have one length"),
    ],
)
def test_bad_vectors(change, message):
    with pytest.raises(DataError, match=message):
        augmented(vectors(20).assign(**change), VectorOracle())
