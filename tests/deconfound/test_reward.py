"""Deconfounded rewards: closed forms, nuisances, refusals, and what a user does with them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression

import causalrm as crm
from causalrm.core.errors import (
    CausalRMWarning,
    DataError,
    IdentificationError,
    IdentificationWarning,
)
from causalrm.datasets import make_headlines, make_logged_rewards
from causalrm.deconfound.absorb import absorbed_regression
from causalrm.deconfound.task import _together
from causalrm.text import HashedText

FEATURES = ["quality", "noise", "style"]
ROLES: dict[str, Any] = {"outcome": "outcome", "text": FEATURES, "confounders": ["popularity"]}
LARGE = 200_000
METHODS = ["plr", "iv", "joint", "input", "ignore", "residualise", "invariance"]


def fit(df: pd.DataFrame, method: str = "plr", options: Any = None, **roles: Any) -> Any:
    if method == "iv":
        roles = {"instruments": ["instrument"]} | roles
    return crm.DeconfoundedReward(method, **(options or {})).fit(df, **ROLES | roles)


# --------------------------------------------------------------------------- closed forms


@pytest.mark.parametrize("method", METHODS)
def test_every_method_converges_where_the_closed_form_says(method: str) -> None:
    df, truth = make_logged_rewards(LARGE, rng=11)
    found = fit(df, method).to_frame().set_index("term").drop("Intercept")
    limits = truth.limits(method)
    for term, row in found.iterrows():
        assert abs(row["estimate"] - limits[term]) < 4.5 * row["std_error"] + 1e-9, term
    assert (found["std_error"] < 0.01).all()


@pytest.mark.parametrize("rho", [0.0, 0.5, 1.5])
@pytest.mark.parametrize("pi", [0.3, 1.0])
def test_biases_of_the_table(rho: float, pi: float) -> None:
    """The formulas written out, against the fits on 200,000 simulated rows."""
    df, truth = make_logged_rewards(LARGE, rho=rho, pi=pi, rng=12)
    b, g, v, q = truth.beta, truth.gamma, truth.var_v, truth.style_noise
    w = pi**2 + v
    total = w + rho**2
    quality = {"text": ["quality"]}

    def estimate(found: Any, term: str) -> float:
        return float(found.to_frame().set_index("term")["estimate"][term])

    naive = fit(df, "ignore", **quality)
    assert estimate(naive, "quality") == pytest.approx(b + g * rho, abs=0.02)
    spurious = fit(df, "ignore")
    assert estimate(spurious, "quality") == pytest.approx(b + g * rho * q / (w + q), abs=0.02)
    assert estimate(spurious, "style") == pytest.approx(g * w / (w + q), abs=0.02)
    alone = fit(df, "residualise", **quality)
    assert estimate(alone, "popularity") == pytest.approx(g + b * rho / total, abs=0.02)
    assert estimate(alone, "quality") == pytest.approx(b * (1 - rho**2 / total), abs=0.02)
    for method in ("iv", "plr"):
        assert estimate(fit(df, method, **quality), "popularity") == pytest.approx(g, abs=0.03)


def test_a_direct_effect_of_the_instrument_biases_as_it_should() -> None:
    df, truth = make_logged_rewards(LARGE, pi=0.8, delta=0.4, rng=13)
    w = 0.8**2 + truth.var_v
    for method, bias in (("iv", 0.4 / 0.8), ("plr", 0.4 * 0.8 / w)):
        row = fit(df, method).to_frame().iloc[0]
        assert row["estimate"] - 1 == pytest.approx(bias, abs=4.5 * row["std_error"])


def test_hidden_confounding_needs_the_instrument() -> None:
    df, truth = make_logged_rewards(LARGE, hidden=1.0, rng=14)
    for method in ("iv", "plr"):
        row = fit(df, method).to_frame().iloc[0]
        limit = truth.limits(method)["popularity"]
        assert row["estimate"] == pytest.approx(limit, abs=4.5 * row["std_error"])
    assert truth.limits("iv")["popularity"] == pytest.approx(1.0)
    assert truth.limits("plr")["popularity"] > 1.5


def test_iv_is_the_ratio_of_covariances() -> None:
    df, _ = make_logged_rewards(500, rng=1)
    s = np.cov(df[["instrument", "outcome", "popularity"]].to_numpy().T)
    assert fit(df, "iv").result_.gamma[0] == pytest.approx(s[0, 1] / s[0, 2], rel=1e-10)


def test_joint_is_least_squares() -> None:
    df, _ = make_logged_rewards(500, rng=1)
    x = np.column_stack([np.ones(500), df[FEATURES], df["popularity"] - df["popularity"].mean()])
    b, *_ = np.linalg.lstsq(x, df["outcome"].to_numpy(), rcond=None)
    for method in ("joint", "input"):  # the same without a penalty
        found = fit(df, method).result_.estimates
        np.testing.assert_allclose(found, np.r_[b[-1], b[:-1]], rtol=1e-9, atol=1e-11)


def test_invariance_gives_a_score_without_correlation() -> None:
    df, _ = make_logged_rewards(500, rng=1)
    found = fit(df, "invariance")
    score = df[FEATURES].to_numpy() @ found.result_.estimates[2:]
    # Exact where the confounder is predicted in sample; nearly so out of fold.
    assert abs(np.corrcoef(score, df["popularity"])[0, 1]) < 0.02


def test_a_penalty_splits_the_effect_of_an_input_but_not_of_plr() -> None:
    df, truth = make_logged_rewards(20_000, rng=2)
    strong = {"nuisance": 0.3}
    as_input = abs(fit(df, "input", strong).result_.gamma[0] - 1)
    plain = abs(fit(df, "plr").result_.gamma[0] - 1)
    assert as_input > 5 * plain and as_input > 0.2


# --------------------------------------------------------------------------- standard errors


@pytest.mark.parametrize("method", ["plr", "iv", "joint", "residualise", "invariance"])
def test_stacked_moments_agree_with_the_bootstrap_of_the_whole_chain(method: str) -> None:
    df, _ = make_logged_rewards(1500, rng=4)
    generator = np.random.default_rng(0)
    draws = []
    for _ in range(150):
        again = df.iloc[generator.integers(len(df), size=len(df))].reset_index(drop=True)
        draws.append(fit(again, method).result_.estimates)
    ratio = np.std(draws, axis=0) / fit(df, method).result_.std_error
    assert (np.abs(ratio - 1) < 0.22).all(), ratio


def test_the_noise_of_gamma_is_in_the_rewards() -> None:
    df, _ = make_logged_rewards(800, rng=4)
    found = fit(df, "iv")
    r = found.rewards_
    away = df["popularity"] - df["popularity"].mean()
    np.testing.assert_allclose(r["std_error"], abs(away) * found.result_.std_error[0])
    np.testing.assert_allclose(
        r["deconfounded"], df["outcome"] - found.result_.gamma[0] * away, rtol=1e-9
    )
    assert r["deconfounded"].mean() == pytest.approx(df["outcome"].mean())


def test_a_cluster_of_copies_counts_once() -> None:
    df, _ = make_logged_rewards(600, rng=5)
    three = pd.concat([df.assign(g=np.arange(600))] * 3, ignore_index=True)
    one = fit(df, "joint").to_frame()["std_error"]
    many = fit(three, "joint", cluster="g").to_frame()["std_error"]
    np.testing.assert_allclose(many, one * np.sqrt(600 / 599), rtol=1e-8)  # G/(G - 1)


def test_repeats_take_the_median() -> None:
    df, _ = make_logged_rewards(300, rng=6)
    single = [fit(df, options={"rng": s}).result_.gamma[0] for s in range(3)]
    found = fit(df, options={"repeats": 9})
    assert min(single) - 0.02 < found.result_.gamma[0] < max(single) + 0.02
    again = fit(df, options={"repeats": 9})
    np.testing.assert_array_equal(again.result_.estimates, found.result_.estimates)


# --------------------------------------------------------------------------- fixed effects


def test_fixed_effects_are_an_absorbed_regression() -> None:
    df, _ = make_logged_rewards(2000, authors=50, rng=7)
    df["hour"] = np.random.default_rng(0).integers(0, 24, 2000)
    df["outcome"] += 0.3 * df["hour"]
    found = fit(df, "fixed_effects", absorb=["author", "hour"], cluster="author")
    direct = absorbed_regression(
        df, y="outcome", x=["popularity", *FEATURES], absorb=["author", "hour"], cluster="author"
    )
    mine, theirs = found.to_frame().set_index("term"), direct.to_frame().set_index("term")
    for column in ("estimate", "std_error"):
        np.testing.assert_allclose(mine.loc[theirs.index, column], theirs[column], rtol=1e-7)
    np.testing.assert_allclose(
        found.transform(df)["deconfounded"], found.rewards_["deconfounded"], rtol=1e-8
    )
    with pytest.raises(DataError, match="levels of the fit in column 'hour'"):
        found.transform(df.head(5).assign(hour=99))


def test_rows_alone_in_a_level_are_counted() -> None:
    df, _ = make_logged_rewards(300, rng=7)
    df["site"] = np.r_[np.arange(280) % 7, 100 + np.arange(20)]
    with pytest.warns(IdentificationWarning, match="20 of 300 rows are alone"):
        found = fit(df, "fixed_effects", absorb="site")
    assert found.result_.n_obs == 280 and found.rewards_["deconfounded"].isna().sum() == 20


def test_texts_beside_fixed_effects() -> None:
    """Stories of their own worth: absorbed, they leave the attributes alone to be rewarded."""
    df, truth = make_headlines(1500, rng=3)
    worth = 4 * np.random.default_rng(0).normal(size=24)
    df["clicks"] += worth[pd.factorize(df["story"])[0]]
    found = crm.DeconfoundedReward("fixed_effects", HashedText(64, 0)).fit(
        df, **TEXT, absorb="editor"
    )
    row = found.to_frame().iloc[0]
    assert len(found.to_frame()) == 1 and abs(row["estimate"] - truth.gamma) < 4 * row["std_error"]
    predicted = found.predict_reward(df)
    assert np.corrcoef(predicted["reward"], truth.reward(df["headline"]))[0, 1] > 0.8
    d = found.result_.diagnostics
    gone = d["dropped"]["features that absorbed effects or others determine"]
    assert gone > 0 and gone + d["n_features"] == 64
    np.testing.assert_allclose(predicted["reward"], found.rewards_["reward"])
    np.testing.assert_allclose(predicted["std_error"], found.rewards_["reward_std_error"])
    np.testing.assert_allclose(
        found.transform(df)["deconfounded"], found.rewards_["deconfounded"], rtol=1e-8
    )


def test_texts_beside_fixed_effects_alone() -> None:
    df, _ = make_headlines(600, rng=3)
    roles = {k: v for k, v in TEXT.items() if k != "confounders"}
    found = crm.DeconfoundedReward("fixed_effects", HashedText(32, 0)).fit(
        df, **roles, absorb="editor"
    )
    assert list(found.result_.effects) == ["editor"] and not len(found.to_frame())
    np.testing.assert_allclose(
        found.transform(df)["deconfounded"], found.rewards_["deconfounded"], rtol=1e-8
    )


# --------------------------------------------------------------------------- texts and learners


@pytest.fixture(scope="module")
def headlines() -> Any:
    return make_headlines(1200, rng=3)


TEXT: dict[str, Any] = {
    "outcome": "clicks", "text": "headline", "confounders": ["readers"], "cluster": "editor",
}  # fmt: skip


@pytest.mark.parametrize("method", ["plr", "iv"])
def test_texts_in_rewards_out(headlines: Any, method: str) -> None:
    df, truth = headlines
    more = {"instruments": ["lottery"]} if method == "iv" else {}
    found = crm.DeconfoundedReward(method).fit(df, **TEXT, **more)
    row = found.to_frame().iloc[0]
    assert abs(row["estimate"] - truth.gamma) < 4 * row["std_error"] < 0.25
    value = truth.reward(df["headline"])
    assert np.corrcoef(found.predict_reward(df)["reward"], value)[0, 1] > 0.85
    ignored = crm.DeconfoundedReward("ignore").fit(df, **TEXT).predict_reward(df)["reward"]
    assert (
        np.corrcoef(found.predict_reward(df)["reward"], value)[0, 1]
        > (np.corrcoef(ignored, value)[0, 1])
    )
    new = pd.DataFrame({"headline": ["Bees return to rail yard in Graz, audit finds", "Wow: Rain"]})
    predicted = found.predict_reward(new)
    assert predicted["reward"][0] > predicted["reward"][1] + 2
    assert predicted["std_error"].between(0, 2).all()


def test_learners_of_scikit_learn(headlines: Any) -> None:
    df, truth = headlines
    forest = RandomForestRegressor(8, min_samples_leaf=10)
    with pytest.warns(IdentificationWarning, match="groups, which folds cannot split"):
        first, again = (
            crm.DeconfoundedReward("plr", HashedText(64), forest, folds=3).fit(df, **TEXT)
            for _ in range(2)
        )
    pd.testing.assert_frame_equal(first.rewards_, again.rewards_)  # seeds reach the learner
    assert abs(first.result_.gamma[0] - truth.gamma) < 0.15
    assert not hasattr(forest, "estimators_")  # a copy is fitted
    assert first.rewards_["reward_std_error"].isna().all()
    assert len(first.predict_reward(df.head(3))) == 3
    as_input = crm.DeconfoundedReward("input", HashedText(64), forest, folds=3).fit(df, **TEXT)
    assert as_input.rewards_["deconfounded"].notna().all()
    assert as_input.transform(df.head(4))["reward"].notna().all()


def test_a_linear_learner_agrees_with_gram_matrices() -> None:
    df, _ = make_logged_rewards(1000, authors=120, rng=8)  # too many to leave each out
    a = fit(df, cluster="author", weights=None)
    b = fit(df, options={"nuisance": LinearRegression()}, cluster="author")
    np.testing.assert_allclose(a.result_.gamma, b.result_.gamma, rtol=1e-8)
    np.testing.assert_allclose(a.result_.std_error[0], b.result_.std_error[0], rtol=1e-7)
    np.testing.assert_allclose(a.rewards_["reward"], b.rewards_["reward"], rtol=1e-7, atol=1e-9)


def test_ties_between_clusters_are_warned_of_where_errors_do_not_count_them(
    headlines: Any,
) -> None:
    df = headlines.data
    found = crm.DeconfoundedReward("plr", HashedText(32, 0)).fit(df, **TEXT)
    d = found.result_.diagnostics
    assert d["cluster_errors"] == "jackknife" and 24 <= d["fold_groups"] < d["n_clusters"] == 60
    tied = df[df["headline"].isin(df["headline"].value_counts().head(1).index)]
    assert tied["editor"].nunique() > 1
    forest = RandomForestRegressor(4, min_samples_leaf=20)
    with pytest.warns(IdentificationWarning, match=r"of the 60 clusters .* in 2\d groups.*story"):
        found = crm.DeconfoundedReward("plr", HashedText(32, 0), forest, folds=2).fit(df, **TEXT)
    assert found.result_.diagnostics["cluster_errors"] == "scores"


def test_folds_split_neither_clusters_nor_copies_of_a_text() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(40, size=100), rng.integers(90, size=100)
    codes = _together(a, b)
    for keys in (a, b):
        for value in np.unique(keys):
            assert len(np.unique(codes[keys == value])) == 1
    apart = _together(np.arange(6) // 2, np.arange(6) // 3)
    assert len(np.unique(apart)) == 1 and len(np.unique(_together(np.arange(6), np.arange(6)))) == 6


def test_encoders_learn_inside_the_fold(headlines: Any) -> None:
    """An encoder that counts texts it was fitted to never sees those of the fold."""

    class Seen(HashedText):
        sizes: list[int] = []

        def fit(self, answers: Any, queries: Any = None) -> Any:
            Seen.sizes.append(len(set(answers)))
            return super().fit(answers, queries)

    df = headlines.data
    crm.DeconfoundedReward("plr", Seen(32, 0), folds=4).fit(df, **TEXT)
    distinct = df["headline"].nunique()
    sizes = sorted(Seen.sizes)
    assert sizes[-1] == distinct and sizes[-2] < 0.85 * distinct  # all texts for the final one


def test_parquet_gives_the_same(tmp_path: Any) -> None:
    df, _ = make_logged_rewards(3000, authors=60, rng=9)
    df.to_parquet(tmp_path / "log.parquet")
    a = fit(df, cluster="author")
    b = crm.DeconfoundedReward().fit(tmp_path / "log.parquet", **ROLES, cluster="author")
    np.testing.assert_allclose(a.result_.estimates, b.result_.estimates, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(a.rewards_, b.rewards_, rtol=1e-7, atol=1e-9)


# --------------------------------------------------------------------------- refusals


def test_what_is_refused(headlines: Any) -> None:
    df, _ = make_logged_rewards(400, rng=1)
    refused: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"timing": {"popularity": "post"}}, IdentificationError, "consequence of the text"),
        ({"timing": {"other": "pre"}}, DataError, "Give columns of"),
        ({"confounders": ["quality"]}, IdentificationError, "no part of the text"),
        ({"confounders": ["outcome"]}, DataError, "other than the outcome"),
        ({"confounders": None}, DataError, "confounders="),
        ({"instruments": ["instrument"]}, DataError, "method 'iv' and no other"),
        ({"absorb": ["prompt"]}, DataError, "method 'fixed_effects' and no other"),
        ({"text": []}, DataError, "feature columns"),
        ({"text": "quality"}, DataError, "Expected texts"),
    ]
    for roles, kind, message in refused:
        with pytest.raises(kind, match=message):
            fit(df, **roles)
    for method, options, message in (
        ("odin", {}, "Choose one"), ("plr", {"folds": 1}, "folds from 2"),
        ("joint", {"nuisance": LinearRegression()}, "method='plr'"),
        ("fixed_effects", {"nuisance": 1.0}, "least squares|absorb"),
        ("plr", {"nuisance": "forest"}, "scikit-learn regressor"),
        ("plr", {"nuisance": -1.0}, "at least 0"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=message):
            fit(df, method, options)
    with pytest.raises(IdentificationError, match="constant|vary"):
        fit(df.assign(popularity=1.0))


def test_text_that_determines_the_confounder() -> None:
    df, _ = make_logged_rewards(2000, style_noise=0.001, rng=1)
    with pytest.raises(IdentificationError, match=r"R2 of 0\.9\d+.*instrument"):
        fit(df)
    fit(df, "iv")  # which does not need overlap
    with pytest.warns(IdentificationWarning, match="no method without"):
        fit(df, "ignore")


def test_confounders_derived_from_the_text(headlines: Any) -> None:
    df = headlines.data.assign(length=headlines.data["headline"].str.len() * 2.0)
    roles = TEXT | {"confounders": ["readers", "length"]}
    with pytest.raises(IdentificationError, match="number of characters.*timing"):
        crm.DeconfoundedReward().fit(df, **roles)
    with (
        pytest.warns(IdentificationWarning, match="'length' is computed from the text"),
        pytest.warns(IdentificationWarning, match="no method without"),
    ):
        found = crm.DeconfoundedReward("residualise").fit(df, **roles, timing={"length": "text"})
    doubts = [a for a in found.result_.assumptions if a.status == "doubtful"]
    assert any("text on the confounder" in a.name for a in doubts)


def test_copies_that_tie_all_clusters_together() -> None:
    df = pd.DataFrame({"t": ["a", "b", "c", "d"] * 50, "g": np.arange(200) % 50})
    df["y"], df["c"] = np.random.default_rng(0).normal(size=(2, 200))
    with pytest.raises(IdentificationError, match="hang together"):
        crm.DeconfoundedReward().fit(df, outcome="y", text="t", confounders=["c"], cluster="g")


def test_what_is_warned_of() -> None:
    df, _ = make_logged_rewards(600, authors=20, rng=1)
    with pytest.warns(IdentificationWarning, match="Only 20 clusters"):
        fit(df, cluster="author")
    with pytest.warns(CausalRMWarning, match=r"can leave \[0, 1\]"):
        found = fit(df.assign(outcome=(df["outcome"] > 0).astype(float)))
    assert any("leave" in w for w in found.result_.warnings)
    with pytest.warns(CausalRMWarning, match="small count"):
        fit(df.assign(outcome=np.random.default_rng(0).poisson(2, 600)))
    weak, _ = make_logged_rewards(600, pi=0.05, rng=1)
    with pytest.warns(IdentificationWarning, match="Weak instruments"):
        fit(weak, "iv")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(df)


def test_restored_from_json_a_text_model_says_so(headlines: Any) -> None:
    found = crm.DeconfoundedReward("plr", HashedText(32, 0)).fit(headlines.data, **TEXT)
    again = crm.DeconfoundedReward.from_result(crm.Result.from_json(found.result_.to_json()))
    assert str(again.summary()) == str(found.summary())
    with pytest.raises(DataError, match="pickle"):
        again.predict_reward(headlines.data)
