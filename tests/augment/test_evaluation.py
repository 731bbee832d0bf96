"""Accuracy, robustness to style, best of many, and identities of rewards."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.special import logsumexp

import causalrm as crm
from causalrm import augment as aug


def test_accuracy_by_category_and_ties() -> None:
    gap = np.array([1.0, -1.0, 0.0, 2.0, 3.0, -0.5])
    by = ["a", "a", "a", "b", "b", "b"]
    frame = aug.accuracy(gap, by=by).to_frame().set_index("term")
    assert frame["estimate"].to_dict() == pytest.approx({"all": 3.5 / 6, "a": 0.5, "b": 2 / 3})
    assert frame["ties"].to_dict() == {"all": 1, "a": 1, "b": 0}


def test_clustered_errors_of_copied_rows_are_those_of_the_rows() -> None:
    rng = np.random.default_rng(0)
    gap = rng.normal(0.3, 1, 80)
    alone = aug.accuracy(gap).to_frame()
    copied = aug.accuracy(np.repeat(gap, 5), cluster=np.repeat(np.arange(80), 5)).to_frame()
    assert copied["std_error"][0] == pytest.approx(alone["std_error"][0])
    p = (gap > 0).mean()
    assert alone["std_error"][0] == pytest.approx(np.sqrt(p * (1 - p) / 79))


def test_models_are_compared_in_pairs() -> None:
    rng = np.random.default_rng(1)
    one = rng.normal(0.5, 1, 500)
    other = one + rng.normal(0, 0.1, 500)
    found = aug.accuracy({"one": one, "other": other}, by=np.arange(500) % 2)
    frame = found.to_frame().set_index("term")
    row = frame.loc["other - one: all"]
    assert row["estimate"] == pytest.approx(np.mean(other > 0) - np.mean(one > 0))
    apart = np.hypot(*frame.loc[["one: all", "other: all"], "std_error"])
    assert row["std_error"] < 0.5 * apart  # the pairs are the same
    assert len(frame) == 9


def test_accuracy_intervals_cover_under_clusters() -> None:
    rng = np.random.default_rng(2)
    hits = {"clustered": 0, "naive": 0}
    for _ in range(300):
        gap = np.repeat(rng.normal(0, 1, 60), 10) + rng.normal(0, 0.5, 600)
        codes = np.repeat(np.arange(60), 10)
        for name, cluster in (("clustered", codes), ("naive", None)):
            row = aug.accuracy(gap, cluster=cluster).to_frame().iloc[0]
            hits[name] += row["conf_low"] <= 0.5 <= row["conf_high"]
    assert 0.915 < hits["clustered"] / 300 < 0.98
    assert hits["naive"] / 300 < 0.75


def test_length_matched() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.integers(50, 200, (2, 4000))
    found = aug.length_matched_accuracy(
        {"length": a - b + 0.5, "noise": rng.normal(size=4000)}, a, b
    )
    frame = found.to_frame().set_index("term")["estimate"]
    assert (
        frame["length: better is longer"] == pytest.approx(1)
        and frame["length: better is shorter"] == 0
    )
    assert frame["length: balanced"] == 0.5
    assert frame["noise: balanced"] == pytest.approx(0.5, abs=0.04)
    assert frame["length: matched"] == pytest.approx(0.5, abs=0.06)
    with pytest.raises(crm.DataError, match="lengths above 0"):
        aug.length_matched_accuracy([1.0], [0], [1])


# ---------------------------------------------------------------- robustness


def letters(text: str) -> list[str]:
    return "".join(c if c.isalnum() else " " for c in text.lower()).split()


@pytest.mark.parametrize("name", aug.TRANSFORMS)
def test_transforms_keep_what_is_said(name: str) -> None:
    change = aug.TRANSFORMS[name]
    for text in (
        "Canberra is the capital. It has 450,000 people, I think!",
        "**In short**\n- Water boils at 99.97 degrees.\n- It does so at sea level.",
    ):
        before, after = letters(text), letters(change(text))
        at = after.index(before[0]) if before[0] in after else -1
        whole = [i for i in range(len(after)) if after[i : i + len(before)] == before]
        assert at >= 0 and whole, (name, change(text))
    assert change("A b, c. D e.") != "A b, c. D e." or name == "as plain text"


def test_drop_is_that_of_a_reward_on_style() -> None:
    df, truth = crm.datasets.make_preferences(300, rng=0)
    test = truth.test_set(300, rng=1)
    roles = {"query": "query", "chosen": "chosen", "rejected": "rejected"}

    def long(pairs: pd.DataFrame) -> pd.Series:
        return pairs["chosen"].str.len() - pairs["rejected"].str.len()

    def true(pairs: pd.DataFrame) -> np.ndarray:
        one, other = (truth.reward(pairs["query"], pairs[c]) for c in ("chosen", "rejected"))
        return one - other

    change = {k: aug.TRANSFORMS[k] for k in ("double spaces", "polite ending", "lower case")}
    hurt = aug.style_robustness(long, test, transforms=change, **roles).to_frame()
    hurt = hurt.set_index("term")
    assert (
        hurt.loc["polite ending", "estimate"] > 0.05 and hurt.loc["polite ending", "p_value"] < 0.01
    )
    assert hurt.loc["lower case", "estimate"] == 0 and (hurt["changed"][1:] == 1).all()
    safe = aug.style_robustness(true, test, transforms=change, **roles).to_frame()
    assert safe["estimate"].tolist() == pytest.approx([1.0, 0.0, 0.0, 0.0])
    helped = aug.style_robustness(long, test, transforms=change, side="chosen", **roles).to_frame()
    assert helped.set_index("term").loc["polite ending", "estimate"] < -0.05
    with pytest.raises(crm.DataError, match="side"):
        aug.style_robustness(long, test, side="left", **roles)


# ---------------------------------------------------------------- best of many


def test_best_of_n_is_the_mean_over_all_subsets() -> None:
    rng = np.random.default_rng(4)
    proxy = rng.integers(0, 4, (35, 6)).astype(float)  # with ties
    true = rng.normal(size=(35, 6))
    for n in (1, 2, 4, 6):
        means = []
        for r, t in zip(proxy, true, strict=True):
            picked = []
            for subset in itertools.combinations(range(6), n):
                s = np.array(subset)
                picked.append(t[s[r[s] == r[s].max()]].mean())
            means.append(np.mean(picked))
        frame = aug.best_of_n(proxy, true, n=(n,)).to_frame()
        assert frame["estimate"][0] == pytest.approx(np.mean(means))
    best = aug.best_of_n(proxy, true, n=(6,)).to_frame()
    assert best["estimate"][1] == pytest.approx(true.max(axis=1).mean())
    assert best["kl"][0] == pytest.approx(np.log(6) - 5 / 6)


def test_kl_bound_holds_for_a_policy_without_ties() -> None:
    # Best of n from N equally likely answers: KL by the order statistics' probabilities.
    n, size = 4, 200
    k = np.arange(1, size + 1)
    q = (k / size) ** n - ((k - 1) / size) ** n
    kl = float(np.sum(q * np.log(q * size)))
    assert kl < aug.best_of_n_kl(n) and kl == pytest.approx(aug.best_of_n_kl(n), rel=0.01)
    assert aug.best_of_n_kl(1) == 0
    with pytest.raises(crm.DataError):
        aug.best_of_n_kl(0)


def test_one_against_many() -> None:
    wrong = np.array([[0.0] * 9, [1.0] + [0.0] * 8, [2.0, 1.0] + [0.0] * 7])
    found = aug.one_against_many([1.0, 1.0, 1.0], wrong).to_frame()
    value = found.set_index(["group", "term"])["estimate"]
    assert value[("accuracy", "all, optimistic")] == pytest.approx(2 / 3)
    assert value[("accuracy", "all, pessimistic")] == pytest.approx(1 / 3)
    assert value[("reciprocal rank", "all, optimistic")] == pytest.approx((1 + 1 + 1 / 2) / 3)
    assert value[("reciprocal rank", "all, pessimistic")] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert (found["ties"] == 2).all()


@pytest.mark.parametrize("levels", [2, 3, 1000])
def test_a_random_reward_is_right_in_a_quarter(levels: int) -> None:
    draws = np.random.default_rng(5).integers(0, levels, (40_000, 4)).astype(float)
    row = aug.best_of_k(draws[:, 0], draws[:, 1:]).to_frame().iloc[0]
    assert abs(row["estimate"] - 0.25) < 3.5 * row["std_error"]
    constant = aug.best_of_k(np.zeros(50), np.zeros((50, 3))).to_frame().iloc[0]
    assert constant["estimate"] == 0.25


# ---------------------------------------------------------------- identities


def test_log_sigmoid_sum_is_the_probability_that_all_are_good() -> None:
    r = np.array([0.3, -2.0, 1.5])
    u = aug.log_sigmoid_centred(r, 0.5).sum()
    assert np.exp(u) == pytest.approx(np.prod(1 / (1 + np.exp(-(r - 0.5)))))


def test_process_rewards_on_a_token_tree() -> None:
    # Any reward of the leaves, any reference policy: the policy tilted by exp(r / beta) gives
    # q_t = beta log E_ref[exp(r / beta) | prefix], less the same at the root.
    rng = np.random.default_rng(6)
    depth, width, beta = 3, 2, 0.7
    leaves = list(itertools.product(range(width), repeat=depth))
    r = dict(zip(leaves, rng.normal(size=len(leaves)), strict=True))
    ref = {
        prefix: np.log(rng.dirichlet(np.ones(width)))
        for d in range(depth)
        for prefix in itertools.product(range(width), repeat=d)
    }

    def value(prefix: tuple[int, ...]) -> float:
        if len(prefix) == depth:
            return r[prefix]
        after = [ref[prefix][k] + value((*prefix, k)) / beta for k in range(width)]
        return beta * float(logsumexp(after))

    for leaf in leaves:
        logp, logr = [], []
        for t in range(depth):
            step = ref[leaf[:t]][leaf[t]]
            logr.append(step)
            logp.append(step + (value(leaf[: t + 1]) - value(leaf[:t])) / beta)
        q, step = aug.process_rewards(logp, logr, beta)
        np.testing.assert_allclose(q, [value(leaf[: t + 1]) - value(()) for t in range(depth)])
        np.testing.assert_allclose(step.sum(), r[leaf] - value(()))


@pytest.mark.filterwarnings("ignore::causalrm.IdentificationWarning")
def test_bad_input() -> None:
    with pytest.raises(crm.DataError, match="1 that are not"):
        aug.accuracy([1.0, np.nan])
    with pytest.raises(crm.DataError, match="equal lengths"):
        aug.accuracy({"a": [1.0], "b": [1.0, 2.0]})
    with pytest.raises(crm.DataError, match="2 categories"):
        aug.accuracy([1.0, 2.0], by=["a"])
    with pytest.raises(crm.DataError, match="from 1 to 2"):
        aug.best_of_n(np.zeros((3, 2)), np.zeros((3, 2)), n=(3,))
    with pytest.raises(crm.DataError, match="shape"):
        aug.best_of_k([1.0], [1.0])
    with pytest.raises(crm.DataError, match="beta"):
        aug.process_rewards([0.0], [0.0], beta=0)


def test_few_clusters_warn() -> None:
    with pytest.warns(crm.IdentificationWarning, match="Only 3 clusters"):
        found = aug.accuracy(np.ones(9), cluster=np.arange(9) % 3)
    assert found.warnings and found.df_resid == 2


def test_result_is_a_result() -> None:
    found = aug.accuracy(np.random.default_rng(7).normal(size=100))
    assert crm.Result.from_json(found.to_json()).to_json() == found.to_json()
    assert "all" in str(found.summary())
    assert found.plot().get_xlabel() == "Accuracy"
