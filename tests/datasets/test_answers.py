"""The simulated log of answers does what its truth says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import causalrm as crm
from causalrm.datasets._preference_text import CAUSAL, STYLE


@pytest.fixture(scope="module")
def log():
    return crm.datasets.make_answer_log(4000, rng=3)


def _slopes(frame: pd.DataFrame, y: np.ndarray) -> tuple[pd.Series, pd.Series]:
    x = np.column_stack([np.ones(len(frame)), frame])
    beta, rss = np.linalg.lstsq(x, y, rcond=None)[:2]
    se = np.sqrt(np.diag(np.linalg.inv(x.T @ x)) * rss[0] / (len(x) - x.shape[1]))
    return pd.Series(beta[1:], frame.columns), pd.Series(se[1:], frame.columns)


def test_ratings_follow_causes_style_and_waiting(log):
    data, truth = log
    frame = truth.measure(data["query"], data["answer"]).assign(wait=data["wait"])
    slope, se = _slopes(frame, data["rating"].to_numpy())
    expected = pd.Series(truth.theta | truth.gamma | {"wait": truth.wait_effect})
    assert ((slope - expected).abs() < 4 * se).all()


def test_without_the_wait_style_looks_better_than_it_is(log):
    data, truth = log
    frame = truth.measure(data["query"], data["answer"])
    slope, se = _slopes(frame, data["rating"].to_numpy())
    bias = slope - pd.Series(truth.theta | truth.gamma)
    assert (bias[list(STYLE)] > 0).all()
    assert bias[list(STYLE)].sum() > 5 * np.sqrt((se[list(STYLE)] ** 2).sum())


def test_days_until_a_complaint_are_those_of_the_truth(log):
    data, truth = log
    expected = truth.days(data["query"], data["answer"])
    gap = data["days"] - expected
    assert abs(gap.mean()) < 4 * gap.sem()
    assert data["days"].max() == 40 and set(data["complaint"]) == {0, 1}
    assert (data.loc[data["complaint"] == 0, "days"] == 40).all()


def test_candidates_have_style_without_quality(log):
    _, truth = log
    new = truth.candidates(400, 5, rng=1)
    assert new["question"].value_counts().eq(5).all()
    assert new.groupby("question")["query"].nunique().eq(1).all()
    found = truth.measure(new["query"], new["answer"]).corr().loc[list(CAUSAL), list(STYLE)]
    assert found.abs().to_numpy().max() < 0.1


def test_experts_judge_by_true_reward(log):
    _, truth = log
    n = 4000
    asked = ["How high is Mount Everest?"] * n
    better, worse = ["Everest is 8849 metres high."] * n, ["Everest is 7610 metres high."] * n
    share = truth.judge(asked, better, worse, rng=2).mean()
    p = 1 / (1 + np.exp(-truth.theta["correctness"]))
    assert abs(share - p) < 4 * np.sqrt(p * (1 - p) / n)


def test_a_seed_repeats_the_log():
    first, second = (crm.datasets.make_answer_log(50, rng=9) for _ in range(2))
    pd.testing.assert_frame_equal(first.data, second.data)
    again = crm.datasets.make_answer_log(50, rng=first.truth.entropy)
    pd.testing.assert_frame_equal(first.data, again.data)


@pytest.mark.parametrize(
    "bad", [{"n": 0}, {"entanglement": 1.5}, {"agents": 0}, {"n_topics": 1}, {"error_sd": -1}]
)
def test_arguments_out_of_range_are_refused(bad):
    with pytest.raises(crm.DataError, match=next(iter(bad))):
        crm.datasets.make_answer_log(**{"n": 10} | bad)
