"""Pairs from deconfounded outcomes, and the chance of being the best of n."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

import causalrm as crm
from causalrm.core.errors import CausalRMWarning, DataError
from causalrm.datasets import make_headlines, make_logged_rewards
from causalrm.deconfound.pairs import pairs_of, selection

ROLES: dict[str, Any] = {
    "outcome": "outcome", "text": ["quality", "style"], "confounders": ["popularity"],
}  # fmt: skip


@pytest.fixture(scope="module")
def fitted() -> Any:
    df, truth = make_logged_rewards(600, rng=2)
    return crm.DeconfoundedReward().fit(df, **ROLES), df, truth


def test_every_pair_of_a_prompt_once_and_in_order(fitted: Any) -> None:
    fit, df, _ = fitted
    pairs = fit.to_pairs(df, prompt="prompt")
    assert len(pairs) == 150 * 6
    y = fit.rewards_["deconfounded"]
    np.testing.assert_allclose(pairs["margin"], y[pairs["chosen"]].values - y[pairs["rejected"]])
    assert (pairs["margin"] > 0).all() and pairs["weight"].between(0, 1).all()
    prompt = df["prompt"]
    assert (prompt[pairs["chosen"]].values == prompt[pairs["rejected"]].values).all()
    apart = (df["popularity"][pairs["chosen"]].values - df["popularity"][pairs["rejected"]]).abs()
    np.testing.assert_allclose(pairs["margin_std_error"], apart * fit.result_.std_error[0])


def test_margins_and_caps(fitted: Any) -> None:
    fit, df, _ = fitted
    assert fit.to_pairs(df, prompt="prompt", min_margin=1.0)["margin"].min() > 1
    assert fit.to_pairs(df, prompt="prompt", max_pairs=2).groupby("prompt").size().max() == 2
    some = fit.to_pairs(df, max_pairs=500)  # one prompt for all
    assert len(some) == 500 and not some.duplicated(["chosen", "rejected"]).any()
    by = fit.to_pairs(df.drop(columns=["outcome", "popularity"]), by="reward", prompt="prompt")
    assert (by["weight"] == 1).all()
    with pytest.raises(DataError, match="Lower min_margin"):
        fit.to_pairs(df, min_margin=1e6)
    with pytest.raises(DataError, match="one of 'deconfounded', 'reward'"):
        fit.to_pairs(df, by="outcome")


def test_pairs_teach_a_reward_model_what_is_true(tmp_path: Any) -> None:
    df, truth = make_headlines(1000, rng=5)
    fit = crm.DeconfoundedReward("plr").fit(
        df, outcome="clicks", text="headline", confounders=["readers"]
    )
    path = tmp_path / "pairs.jsonl"
    pairs = fit.to_pairs(df, prompt="story", max_pairs=60, min_margin=1.0, path=path)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert pd.DataFrame(lines)[["prompt", "chosen", "rejected"]].equals(
        pairs[["prompt", "chosen", "rejected"]]
    )
    names = list(truth.theta)
    a, b = (truth.measure(pairs[side])[names] for side in ("chosen", "rejected"))
    differ = (a != b).any(axis=1).to_numpy()  # the others say nothing of these attributes
    model = crm.PreferenceRewardModel("regression").fit(
        a[differ], b[differ], np.ones(differ.sum()), strength=pairs["margin"][differ],
        weights=pairs["weight"][differ],
    )  # fmt: skip
    found = model.to_frame().set_index("term")["estimate"]
    style = found[["teaser", "exclamation"]].abs().max()
    assert found[["figure", "place", "source"]].min() > 3 * style


def test_chances_are_those_of_drawing() -> None:
    score = np.array([3.0, 1.0, 2.0, 5.0, 4.0])
    value = np.arange(5.0)
    chance, own, base, _ = selection(score, value, 2, None)
    best = [max(p, key=lambda i: score[i]) for p in itertools.product(range(5), repeat=2)]
    np.testing.assert_allclose(chance, np.bincount(best) / 25)
    assert own.sum() == pytest.approx(0) and base.sum() == pytest.approx(1)
    prompt = np.array([0, 0, 0, 1, 1])
    chance, own, base, left = selection(score, value, 2, prompt)
    expected = np.zeros(5)
    for group in ([0, 1, 2], [3, 4]):
        draws = list(itertools.combinations(group, 2))
        for draw in draws:
            expected[max(draw, key=lambda i: score[i])] += 0.5 / len(draws)
    np.testing.assert_allclose(chance, expected)
    assert left == 0 and own.sum() == pytest.approx(0)
    chance, _, base, left = selection(score, value, 3, prompt)
    np.testing.assert_allclose(chance, [1, 0, 0, 0, 0])
    assert left == 2 and base[3:].sum() == 0


def test_influence_of_a_row_on_the_value_is_its_derivative() -> None:
    """The value of a weighted sample, by putting a little more weight on one row."""
    rng = np.random.default_rng(0)
    score, value, n = rng.normal(size=40), rng.normal(size=40), 3
    own = selection(score, value, n, None)[1]
    order = np.argsort(score)

    def weighted(w: np.ndarray) -> float:
        share = np.r_[0, np.cumsum(w[order])] / w.sum()
        return float(np.diff(share**n) @ value[order])

    for i in (0, 7, 39):
        w = np.ones(40)
        w[i] += 1e-6
        # A weight counts the row from below in full, as ties would: the difference is O(1/n).
        assert (weighted(w) - weighted(np.ones(40))) / 1e-6 == pytest.approx(own[i], abs=0.02)


def test_best_of_n(fitted: Any) -> None:
    fit, df, truth = fitted
    frame = fit.best_of_n(4)
    assert frame["term"].tolist() == ["best of 4", "random", "gain"]
    best, random, gain = frame["estimate"]
    assert gain == pytest.approx(best - random) and gain > 0.5
    assert random == pytest.approx(df["outcome"].mean())
    assert fit.best_of_n(1)["estimate"][2] == pytest.approx(0, abs=1e-12)
    within = fit.best_of_n(4, prompt=df["prompt"])
    assert abs(within["estimate"][2] - gain) < 4 * within["std_error"][2]
    with pytest.raises(DataError, match="at least 5 candidates"):
        fit.best_of_n(5, prompt=df["prompt"])
    uneven = np.where(df.index < 8, 0, df["prompt"])
    with pytest.warns(CausalRMWarning, match="592 of 600 rows are of prompts with fewer than 5"):
        fit.best_of_n(5, prompt=uneven)
    with pytest.raises(DataError, match="labels of prompts"):
        fit.best_of_n(2, prompt=["a"])
    with pytest.raises(DataError, match="n from 1"):
        fit.best_of_n(0)


def test_many_rows_of_one_prompt_are_not_listed() -> None:
    rng = np.random.default_rng(0)
    a, b = pairs_of(np.zeros(100_000, int), rng.normal(size=100_000), 0.0, 50, rng)
    assert len(a) == 50 and (a != b).all()
