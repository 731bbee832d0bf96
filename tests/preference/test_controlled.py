"""Controlled win rates: published figures, coverage, and models that always win."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import special

import causalrm as crm
from causalrm import datasets
from causalrm.core.errors import DataError, IdentificationError
from causalrm.preference import ControlledWinRate, controlled_win_rate

needs_alpaca = pytest.mark.skipif(
    not (Path(os.environ.get("CAUSALRM_DATA", "")) / "alpaca_eval_length").is_dir(),
    reason="CAUSALRM_DATA does not hold alpaca_eval_length",
)


def simulated(n, rng, theta=0.3, phi=0.8, psi=0.0):
    """Preferences of a judge who likes long answers."""
    longer, hard = rng.normal(200, 400, n), rng.normal(size=n)
    z = np.tanh(longer / longer.std(ddof=1))
    p = special.expit(theta + phi * z + psi * (hard - hard.mean()))
    won = (rng.uniform(size=n) < p).astype(float)
    return pd.DataFrame({"won": won, "longer": longer, "hard": hard, "instruction": np.arange(n)})


@needs_alpaca
def test_published_models():
    """Figures of the length-only model, recomputed with other software from the same file."""
    rows = datasets.fetch_alpaca_length()
    rows["longer"] = rows["len_output_2"] - rows["len_output_1"]
    found = controlled_win_rate(rows, outcome="outcome", controls="longer", model="model")
    found = found.set_index("model")
    expected = {
        "FuseChat-Gemma-2-9B-Instruct": 70.09, "FuseChat-Llama-3.1-8B-Instruct": 65.07,
        "FuseChat-Llama-3.2-3B-Instruct": 53.95, "FuseChat-Qwen-2.5-7B-Instruct": 63.45,
        "NullModel": 84.72, "gpt-3.5-turbo-1106": 37.80, "alpaca-7b": 19.83,
    }  # fmt: skip
    for model, rate in expected.items():
        assert found.loc[model, "estimate"] == pytest.approx(rate, abs=0.006), model
    board = datasets.fetch_alpaca_leaderboard().set_index("model")
    np.testing.assert_allclose(found["win_rate"], board["win_rate"][found.index], atol=1e-9)
    np.testing.assert_allclose(
        found["win_rate_std_error"], board["standard_error"][found.index], atol=1e-9
    )
    # Published standard errors leave out the noise of the votes and of the coefficients.
    ratio = (found["std_error"] / board["lc_standard_error"]).dropna()
    assert len(ratio) == 5 and ratio.min() > 2 and ratio["NullModel"] > 7
    assert found["note"].eq("").all() and found["estimate"].is_monotonic_decreasing


def test_is_logistic_regression_with_the_delta_method():
    frame = simulated(600, np.random.default_rng(0), psi=0.5)
    d = frame["longer"] / frame["longer"].std()
    x = np.column_stack([np.ones(600), np.tanh(d), frame["hard"] - frame["hard"].mean()])
    peer = sm.Logit(frame["won"], x).fit(disp=0, tol=1e-12)
    robust = sm.Logit(frame["won"], x).fit(disp=0, tol=1e-12, cov_type="HC0")
    rate = controlled_win_rate(frame, outcome="won", controls="longer", difficulty="hard")
    row = rate.to_frame().iloc[0]
    p = special.expit(peer.params.iloc[0])
    assert row["estimate"] == pytest.approx(100 * p) and rate.win_rate == row["estimate"]
    assert row["std_error"] == pytest.approx(100 * p * (1 - p) * robust.bse.iloc[0], rel=1e-5)
    assert rate.loglik == pytest.approx(peer.llf)
    np.testing.assert_allclose(rate.cov("model").iloc[1:, 1:], peer.cov_params(), rtol=1e-5)
    low, high = robust.conf_int().iloc[0]
    assert row["conf_low"] == pytest.approx(100 * special.expit(low), rel=1e-5)
    assert row["conf_high"] == pytest.approx(100 * special.expit(high), rel=1e-5)
    average = controlled_win_rate(
        frame, outcome="won", controls="longer", difficulty="hard", at="average"
    )
    flat = x * [1, 0, 1]
    assert average.win_rate == pytest.approx(100 * special.expit(flat @ peer.params).mean())
    assert average.raw["naive_std_error"] < 0.6 * average.to_frame()["std_error"][0]


def test_average_is_the_jackknife():
    frame = simulated(150, np.random.default_rng(3), psi=1.0)
    options = {"outcome": "won", "controls": "longer", "difficulty": "hard", "at": "average",
               "form": "linear"}  # fmt: skip
    whole = controlled_win_rate(frame, **options)
    left_out = [controlled_win_rate(frame.drop(i), **options).win_rate for i in range(150)]
    jackknife = np.sqrt(149**2 / 150) * np.std(left_out, ddof=1)
    assert whole.to_frame()["std_error"][0] == pytest.approx(jackknife, rel=0.06)


def test_rows_twice_in_clusters_and_weights():
    frame = simulated(300, np.random.default_rng(1))
    once = controlled_win_rate(frame, outcome="won", controls="longer", cluster="instruction")
    twice = pd.concat([frame, frame])
    both = controlled_win_rate(twice, outcome="won", controls="longer", cluster="instruction")
    assert both.to_frame()["std_error"][0] == pytest.approx(
        once.to_frame()["std_error"][0], rel=2e-3
    )
    naive = both.with_covariance("robust").to_frame()["std_error"][0]
    assert naive == pytest.approx(once.to_frame()["std_error"][0] / np.sqrt(2), rel=5e-3)
    assert both.raw["std_error"] == pytest.approx(once.raw["std_error"])
    weighted = controlled_win_rate(
        frame.assign(w=2.0), outcome="won", controls="longer", weights="w"
    )
    assert weighted.win_rate == pytest.approx(once.win_rate, abs=1e-8)


def coverage(reps, seed):
    rng = np.random.default_rng(seed)
    # The average rate at no difference in length, over the distribution of difficulties.
    node, weight = np.polynomial.hermite_e.hermegauss(40)
    average = special.expit(0.3 + node) @ weight / weight.sum()
    truth = {"zero": 100 * special.expit(0.3), "average": 100 * average}
    held = dict.fromkeys(truth, 0.0)
    for _ in range(reps):
        frame = simulated(300, rng, psi=1.0)
        for at, value in truth.items():
            rate = controlled_win_rate(
                frame, outcome="won", controls="longer", difficulty="hard", at=at
            )
            row = rate.to_frame().iloc[0]
            held[at] += row["conf_low"] <= value <= row["conf_high"]
    return np.array(list(held.values())) / reps


def test_coverage():
    share = coverage(250, 0)
    assert ((share > 0.91) & (share < 0.985)).all()


@pytest.mark.slow
def test_coverage_in_a_long_study():
    share = coverage(4000, 1)
    assert ((share > 0.935) & (share < 0.965)).all()


def test_models_without_an_estimate_say_why():
    rng = np.random.default_rng(2)
    good, best, parted = (simulated(80, rng) for _ in range(3))
    best["won"] = 1.0
    parted["won"] = (parted["longer"] > 0).astype(float)
    frame = pd.concat(
        [f.assign(model=m) for m, f in (("good", good), ("best", best), ("parted", parted))]
    )
    table = controlled_win_rate(frame, outcome="won", controls="longer", model="model")
    assert table["model"].tolist() == ["good", "best", "parted"]
    assert table["estimate"].isna().tolist() == [False, True, True]
    assert table["win_rate"][1] == 100 and table["n"].tolist() == [80, 80, 80]
    assert "all 80 are 1" in table["note"][1] and "separates" in table["note"][2]
    with pytest.raises(IdentificationError, match="separates"):
        controlled_win_rate(parted, outcome="won", controls="longer")
    rate = controlled_win_rate(parted, outcome="won", controls="longer", penalty=1.0)
    assert 0 < rate.win_rate < 100
    with pytest.raises(IdentificationError, match="all 80 are 1"):
        controlled_win_rate(best, outcome="won", controls="longer")
    with pytest.raises(IdentificationError, match="'longer' that vary"):
        controlled_win_rate(good.assign(longer=5.0), outcome="won", controls="longer")


def test_input_and_output():
    frame = simulated(200, np.random.default_rng(4)).assign(bold=lambda f: f["hard"])
    rate = controlled_win_rate(frame, outcome="won", controls=["longer", "bold"], form="linear")
    assert rate.term == ("win_rate", "Intercept", "longer", "bold")
    again = crm.Result.from_json(rate.to_json())
    assert isinstance(again, ControlledWinRate)
    pd.testing.assert_frame_equal(again.to_frame(), rate.to_frame(), check_exact=True)
    assert str(again.summary()) == str(rate.summary()) and "Plain win rate" in str(rate.summary())
    for bad in ({"form": "cubic"}, {"at": "median"}, {"controls": []}):
        with pytest.raises(DataError, match="Expected controls"):
            controlled_win_rate(frame, **{"outcome": "won", "controls": "longer"} | bad)
    with pytest.raises(DataError, match=r"outcomes from 0 .*200 of|outcomes from 0"):
        controlled_win_rate(frame.assign(won=frame["won"] + 1), outcome="won", controls="longer")
    with pytest.raises(DataError, match="weights of at least 0"):
        controlled_win_rate(frame, outcome="won", controls="longer", weights="hard")
    with pytest.raises(DataError, match="positive weights in column 'zero', but all 200"):
        nothing = frame.assign(zero=0.0)
        controlled_win_rate(nothing, outcome="won", controls="longer", weights="zero")
    some = frame.assign(w=(frame.index < 150) * 1.0, m=np.where(frame.index < 150, "old", "new"))
    gone = controlled_win_rate(some, outcome="won", controls="longer", weights="w")
    left = controlled_win_rate(frame.iloc[:150], outcome="won", controls="longer")
    pd.testing.assert_frame_equal(gone.to_frame(), left.to_frame())
    table = controlled_win_rate(some, outcome="won", controls="longer", weights="w", model="m")
    assert table.set_index("model").loc["new", "note"].startswith("Expected rows of positive")
    some["judge"] = np.where(some["m"] == "new", 0, frame.index)
    table = controlled_win_rate(
        some, outcome="won", controls="longer", cluster="judge", model="m"
    ).set_index("model")
    assert table.loc["new", "note"] == "Expected at least two clusters, but saw one."
    assert np.isfinite(table.loc["old", "estimate"])
    with pytest.raises(DataError, match="'shorter'"):
        controlled_win_rate(frame, outcome="won", controls="shorter")
