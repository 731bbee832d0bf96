"""Brier score, concordance and calibration: against R, lifelines, slow sums and derivatives."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import hypothesis
import lifelines
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import strategies as st
from lifelines.utils import concordance_index

import causalrm as crm
from causalrm.core.errors import CausalRMWarning, DataError, IdentificationError
from causalrm.datasets import load_gbsg2, make_survival
from causalrm.survival._kernels_rank import concordant_pairs, risk_sets
from causalrm.survival.diagnostics import (
    BrierScore,
    Calibration,
    brier_score,
    calibration,
    concordance,
)

R = json.loads(
    (Path(__file__).parents[1] / "reference" / "survival" / "diagnostics.json").read_text("utf-8")
)
PHI = {"Intercept": -0.5, "x1": 0.6, "x2": -0.3, "trt": -0.5}
GAMMA = {"Intercept": 0.3, "trt": 0.2}


def simulated(n: int = 400, rng: int = 1, **options: Any) -> pd.DataFrame:
    """Simulated rows of a model whose survival curves cross."""
    return make_survival(n, phi=PHI, gamma=GAMMA, rng=rng, **({"censoring": 0.2} | options)).data


def fitted(data: pd.DataFrame, formula: str = "x1 + x2 + trt", **roles: str) -> Any:
    model = crm.SurvivalRegression(formula, gamma="trt" if "trt" in formula else "1")
    return model.fit(data, time="time", event="event", **roles)


def true_result(**roles: str) -> Any:
    """A result with the parameters that the rows were simulated with."""
    fit = crm.SurvivalRegression("x1 + x2 + trt", gamma="trt", kappa=0.5)
    data = simulated(**({"entry": 0.5} if "entry" in roles else {})).assign(w=1.0, g=range(400))
    result = fit.fit(data, time="time", event="event", **roles).result_
    values = {"phi": PHI, "gamma": GAMMA}
    theta = [values[p][t] for p, t in zip(result.parameter, result.term, strict=True)]
    return dataclasses.replace(result, estimates=np.array(theta))


@pytest.fixture(scope="module")
def train() -> pd.DataFrame:
    return simulated(500, rng=10)


@pytest.fixture(scope="module")
def test() -> pd.DataFrame:
    return simulated(250, rng=11)


@pytest.fixture(scope="module")
def fit(train: pd.DataFrame) -> Any:
    return fitted(train)


# ------------------------------------------------------------------------ reference values


@pytest.fixture(scope="module")
def breast() -> tuple[pd.DataFrame, pd.DataFrame]:
    data = load_gbsg2()
    even = data[::2].copy()
    even["w"] = 1 + even["nodes"] % 3
    even["entry"] = np.minimum(10 * (even["age"] % 20), even["time"] - 1)
    return data[1::2].assign(w=1.0, entry=0.0), even


def weibull(data: pd.DataFrame, **roles: str) -> Any:
    model = crm.SurvivalRegression("hormone + nodes", kappa="weibull")
    return model.fit(data, time="time", event="event", **roles)


def test_brier_score_of_r(breast: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    odd, even = breast
    r = R["brier"]
    frame = brier_score(weibull(odd), even, r["times"]).to_frame()
    at = frame[frame["group"] == "at time"].set_index("term")
    for term, name in (("model", "model"), ("null", "null"), ("scaled", "ipa")):
        np.testing.assert_allclose(at.loc[term, "estimate"], r[name], rtol=1e-6)
    # riskRegression divides by n - 1
    n = len(even)
    np.testing.assert_allclose(
        at.loc["model", "std_error"], np.array(r["model_se"]) * math.sqrt((n - 1) / n), rtol=5e-4
    )
    np.testing.assert_allclose(at.loc["null", "std_error"], r["null_se"], rtol=0.02)


@pytest.mark.parametrize(
    ("name", "roles", "options"),
    [
        ("harrell", {}, {}),
        ("weighted", {"weights": "w"}, {}),
        ("cluster", {"cluster": "age"}, {}),
        ("truncated", {"entry": "entry"}, {}),
        ("restricted", {}, {"tau": 1500}),
        ("uno", {}, {"tau": 1500, "method": "uno"}),
    ],
)
def test_concordance_of_r(
    breast: tuple[pd.DataFrame, pd.DataFrame],
    name: str,
    roles: dict[str, str],
    options: dict[str, Any],
) -> None:
    odd, even = breast
    found = concordance(weibull(odd, **roles), even, **options)
    value, se = R["concordance"][name]
    if name == "cluster":
        g = even["age"].nunique()
        se *= math.sqrt(g / (g - 1))
    assert found.estimate == pytest.approx(value, rel=1e-10)
    # R takes Uno's weights as known
    assert found.std_error == pytest.approx(se, rel=1e-3 if name == "uno" else 1e-8)


# ------------------------------------------------------------------------ concordance


def test_harrell_is_that_of_lifelines(fit: Any, test: pd.DataFrame) -> None:
    last = test.loc[test["event"] == 1, "time"].max()
    lasting = fit.predict_rmst(test, last)[last]
    expected = concordance_index(test["time"], lasting, test["event"])
    assert concordance(fit, test).estimate == pytest.approx(expected, rel=1e-12)


def test_equal_predictions_count_half(test: pd.DataFrame) -> None:
    ties = test.assign(time=np.ceil(test["time"] * 4) / 4)
    fit = fitted(ties, "trt")
    expected = concordance_index(ties["time"], -_sign(fit, ties) * ties["trt"], ties["event"])
    assert concordance(fit, ties).estimate == pytest.approx(expected, rel=1e-12)
    nothing = crm.SurvivalRegression().fit(ties, time="time", event="event")
    found = concordance(nothing, ties)
    assert (found.estimate, found.std_error, found.conf_low) == (0.5, 0.0, 0.5)


def _sign(fit: Any, data: pd.DataFrame) -> float:
    last = data.loc[data["event"] == 1, "time"].max()
    rmst = fit.predict_rmst(data, last)[last]
    return float(np.sign(rmst[data["trt"] == 0].iloc[0] - rmst[data["trt"] == 1].iloc[0]))


@hypothesis.given(st.integers(0, 2**32), st.integers(2, 25), st.booleans())
@hypothesis.settings(max_examples=60)
def test_pairs_are_those_of_two_loops(seed: int, n: int, late: bool) -> None:
    rng = np.random.default_rng(seed)
    time = rng.integers(2, 9, n).astype(float)
    event, risk = rng.integers(0, 2, n), rng.integers(0, 4, n).astype(float)
    w, v = rng.uniform(0, 2, n), rng.uniform(0, 2, n) * (time < 7)
    entry = np.minimum(rng.integers(0, 7, n), time - 1) if late else np.zeros(n)
    expected = np.zeros((4, n))
    for i in range(n):
        for j in range(n):
            later = time[j] > time[i] or (time[j] == time[i] and not event[j])
            if event[i] and v[i] > 0 and later and entry[j] < time[i]:
                right = 1.0 if risk[i] > risk[j] else 0.5 * (risk[i] == risk[j])
                expected[:, i] += [w[j] * right, w[j], 0, 0]
                expected[:, j] += [0, 0, w[i] * v[i] * right, w[i] * v[i]]
    found = concordant_pairs(time, event, risk, w, v, entry if late else None)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_concordance_is_bounded_by_its_interval(fit: Any, test: pd.DataFrame) -> None:
    narrow, wide = (concordance(fit, test, level=level) for level in (0.8, 0.99))
    assert 0.5 < wide.conf_low < narrow.conf_low < narrow.estimate
    assert narrow.estimate < narrow.conf_high < wide.conf_high < 1
    assert concordance(fit, test, 1.5).name == "Harrell's concordance up to 1.5"


# ------------------------------------------------------------------------ Brier score


def slow_brier(
    time: np.ndarray, event: np.ndarray, w: np.ndarray, survival: np.ndarray, t: float
) -> float:
    """Sums over rows, the censoring curve from its definition."""

    def g(until: float, inclusive: bool) -> float:
        out = 1.0
        for u in np.unique(time[event == 0]):
            if u < until or (inclusive and u == until):
                censored = w[(time == u) & (event == 0)].sum()
                out *= 1 - censored / w[(time > u) | ((time == u) & (event == 0))].sum()
        return out

    total = 0.0
    for i in range(len(time)):
        if time[i] > t:
            total += w[i] * (1 - survival[i]) ** 2 / g(t, True)
        elif event[i]:
            total += w[i] * survival[i] ** 2 / g(time[i], False)
    return total / w.sum()


def test_brier_score_is_its_definition(train: pd.DataFrame) -> None:
    data = simulated(80, rng=4, censoring=0.5)
    data["time"] = np.ceil(data["time"] * 6) / 6  # events and censorings at the same times
    data["w"] = np.random.default_rng(1).uniform(0.2, 2.0, 80)
    fit = fitted(train.assign(w=1.0), weights="w")
    times = [0.5, 1.0, 2.1]
    score = brier_score(fit, data, times)
    frame = score.to_frame()
    columns = [data[c].to_numpy() for c in ("time", "event", "w")]
    survival = fit.predict_survival(data, np.linspace(0, 2.1, 101)[1:])
    km = lifelines.KaplanMeierFitter()
    for t in times:
        part = frame[(frame["time"] == t) & (frame["group"] == "at time")].set_index("term")
        s = fit.predict_survival(data, t)[t].to_numpy()
        assert part["estimate"]["model"] == pytest.approx(slow_brier(*columns, s, t), rel=1e-10)
    with pytest.warns(Warning, match="weights are not integers"):
        km.fit(data["time"], data["event"], weights=data["w"])
    s0 = float(km.predict(times[1]))
    part = frame[(frame["time"] == times[1]) & (frame["group"] == "at time")].set_index("term")
    # with its own weights for censoring Kaplan-Meier has the Brier score of a mean
    assert part["estimate"]["null"] == pytest.approx(s0 * (1 - s0), rel=1e-10)
    by_hand = [slow_brier(*columns, survival[t].to_numpy(), t) for t in survival.columns]
    mean = (sum(by_hand) - 0.5 * by_hand[-1]) / 100
    assert score.integrated().estimate == pytest.approx(mean, rel=1e-10)


def test_scaled_is_one_minus_the_ratio(fit: Any, test: pd.DataFrame) -> None:
    score = brier_score(fit, test, [0.5, 2.0])
    wide = score.to_frame().pivot(index=["group", "time"], columns="term", values="estimate")
    np.testing.assert_allclose(wide["scaled"], 1 - wide["model"] / wide["null"], rtol=1e-12)
    last = score.to_frame().iloc[-3:]
    assert (last["group"] == "integrated").all() and (last["time"] == 2.0).all()
    only = brier_score(fit, test, 2.0)  # the integral does not depend on the times reported
    assert str(only.integrated("scaled")) == str(score.integrated("scaled"))


# ------------------------------------------------------------------------ standard errors


def _numbers(fit: Any, data: pd.DataFrame) -> pd.Series:
    """Every estimate that has a standard error, with it."""
    frame = brier_score(fit, data, [0.7, 2.0]).to_frame()
    found = {f"{g} {t} {k}": (e, s) for g, t, k, e, s in frame.iloc[:, :5].itertuples(index=False)}
    for method, tau in (("harrell", None), ("harrell", 2.0), ("uno", 2.0)):
        c = concordance(fit, data, tau, method)
        found[c.name] = (c.estimate, c.std_error)
    result = calibration(fit, data, 1.5, groups=3)
    for row in result.statistics().itertuples():
        found[str(row.term)] = (row.estimate, row.std_error)
    for row in result.to_frame().itertuples():
        found[f"group {row.group}"] = (row.estimate, row.std_error)
    return pd.DataFrame(found, index=["estimate", "std_error"]).T.stack()


@pytest.mark.filterwarnings("ignore:Only 15 clusters")
def test_standard_errors_are_derivatives_in_the_weights(train: pd.DataFrame) -> None:
    """The infinitesimal jackknife, by changing each weight a little."""
    n = 45
    data = simulated(n, rng=21)
    data["time"] = np.ceil(data["time"] * 20) / 20
    data["w"] = np.random.default_rng(2).uniform(0.5, 2.0, n)
    data["g"] = np.arange(n) % 15
    train = train.assign(w=1.0, g=np.arange(500) % 15)
    fit = fitted(train, weights="w")
    slopes = []
    for i in data.index:
        h = 1e-4 * data.loc[i, "w"]
        ends = [data.assign(w=data["w"] + s * h * (data.index == i)) for s in (1, -1)]
        up, down = (_numbers(fit, end).unstack()["estimate"] for end in ends)
        slopes.append(data.loc[i, "w"] * (up - down) / (2 * h))
    table = pd.DataFrame(slopes)
    in_clusters = table.groupby(data["g"].to_numpy()).sum() * math.sqrt(15 / 14)
    clustered = fitted(train, weights="w", cluster="g")
    for f, slope in ((fit, table), (clustered, in_clusters)):
        found = _numbers(f, data).unstack()["std_error"].dropna()
        assert len(found) == table.shape[1] - 3  # all but ICI, E50 and E90
        expected = np.sqrt((slope[found.index] ** 2).sum())
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-8)


def test_kaplan_meier_influence_gives_greenwood() -> None:
    rng = np.random.default_rng(5)
    time, event = rng.exponential(size=200), rng.integers(0, 2, 200)
    sets = risk_sets(time, event, np.ones(200))
    k = len(sets.time) // 2
    u = sets.survival[k] * sets.integral((np.arange(len(sets.time)) < k).astype(float))
    greenwood = np.cumsum(sets.deaths / (sets.at_risk * (sets.at_risk - sets.deaths)))[k - 1]
    assert math.sqrt(u @ u) == pytest.approx(sets.survival[k] * math.sqrt(greenwood), rel=1e-10)


def test_a_cluster_per_row_changes_nothing(train: pd.DataFrame, test: pd.DataFrame) -> None:
    data = test.assign(g=[f"p{i}" for i in range(len(test))])
    fit = fitted(train.assign(g=range(len(train))), cluster="g")
    plain = fitted(train)
    factor = math.sqrt(250 / 249)
    for one, other in (
        (concordance(fit, data), concordance(plain, data)),
        (brier_score(fit, data, 1.0).integrated(), brier_score(plain, data, 1.0).integrated()),
    ):
        assert one.std_error == pytest.approx(factor * other.std_error, rel=1e-9)
        assert one.conf_high - one.conf_low > other.conf_high - other.conf_low  # t(249)


# ------------------------------------------------------------------------ calibration


def test_groups_are_kaplan_meier_of_lifelines(fit: Any, test: pd.DataFrame) -> None:
    frame = calibration(fit, test, 1.5, groups=5).to_frame()
    risk = 1 - fit.predict_survival(test, 1.5)[1.5]
    assert frame["n"].tolist() == [50] * 5
    for row in frame.itertuples():
        mask = (risk >= row.low - 1e-12) & (risk <= row.high + 1e-12)
        km = lifelines.KaplanMeierFitter().fit(test["time"][mask], test["event"][mask])
        assert row.estimate == pytest.approx(1 - float(km.predict(1.5)), rel=1e-10)
        assert row.predicted == pytest.approx(risk[mask].mean(), rel=1e-10)
        interval = km.confidence_interval_survival_function_
        low, high = interval[interval.index <= 1.5].iloc[-1]
        assert row.conf_low == pytest.approx(1 - high, rel=1e-2)
        assert row.conf_high == pytest.approx(1 - low, rel=1e-2)
        assert row.events == ((test["time"] <= 1.5) & (test["event"] == 1) & mask).sum()


def test_right_predictions_are_calibrated() -> None:
    data = simulated(20_000, rng=31)
    found = calibration(true_result(), data, 2.0)
    statistics = found.statistics().set_index("term")
    for term in ("O:E risk", "O:E events", "slope"):
        assert abs(statistics["estimate"][term] - 1) < 4 * statistics["std_error"][term] < 0.06
    assert statistics["estimate"]["E50"] <= statistics["estimate"]["E90"]
    assert statistics["estimate"]["ICI"] < 0.01
    assert found.test.p_value > 0.01
    curve = found.curve()
    assert (np.abs(curve["estimate"] - curve["predicted"]) < 4 * curve["std_error"]).all()
    assert curve["predicted"].is_monotonic_increasing


def test_wrong_predictions_are_found_where_they_are() -> None:
    """A Weibull model without the treatment: the curve follows the truth, not the fit."""
    data, truth = make_survival(
        40_000, phi=PHI | {"x1": 0.8}, gamma={"Intercept": 0.3, "x1": 0.3}, kappa=-0.4,
        censoring=0.3, rng=5,
    )  # fmt: skip
    fit = crm.SurvivalRegression("x1", kappa="weibull").fit(data, time="time", event="event")
    found = calibration(fit, data, 2.0)
    risk, happened = 1 - fit.predict_survival(data, 2.0)[2.0], truth.event_time <= 2.0
    curve = found.curve()
    for row in found.to_frame().itertuples():
        mask = (risk >= row.low) & (risk <= row.high)
        actual = happened[mask.to_numpy()].mean()
        assert abs(row.estimate - actual) < 0.03
        assert abs(np.interp(row.predicted, curve["predicted"], curve["estimate"]) - actual) < 0.03
    assert found.test.p_value < 1e-6
    assert found.statistics().set_index("term")["estimate"]["ICI"] > 0.02


def test_calibration_under_delayed_entry() -> None:
    data = simulated(20_000, rng=32, entry=0.5)
    found = calibration(true_result(entry="entry"), data, 2.0, groups=5)
    statistics = found.statistics().set_index("term")
    assert "O:E risk" not in statistics.index
    for term in ("O:E events", "slope"):
        assert abs(statistics["estimate"][term] - 1) < 4 * statistics["std_error"][term]
    frame = found.to_frame()
    assert (np.abs(frame["estimate"] - frame["predicted"]) < 4 * frame["std_error"] + 0.01).all()


def test_nobody_seen_early_is_a_warning() -> None:
    result = true_result(entry="entry")
    data = simulated(500, rng=33, entry=0.5)
    data = data[data["time"] > 0.6].assign(entry=lambda d: np.maximum(d["entry"], 0.5))
    with pytest.warns(CausalRMWarning, match="Nobody was under observation before 0.5"):
        found = calibration(result, data, 2.0, groups=2)
    assert len(found.warnings) == 1 and "Warnings" in str(found.summary())


def test_groups_beyond_follow_up_are_missing(fit: Any, test: pd.DataFrame) -> None:
    risk = 1 - fit.predict_survival(test, 1.5)[1.5]
    short = test.copy()  # those at high risk are observed until 1 only
    cut = (risk > risk.quantile(0.5)) & (test["time"] > 1.0)
    short.loc[cut, ["time", "event"]] = 1.0, 0
    with pytest.warns(CausalRMWarning) as caught:
        found = calibration(fit, short, 1.5, groups=4)
    assert any("in the groups [3, 4] of predicted risk" in str(w.message) for w in caught)
    assert any("The smooth curve is not defined" in str(w.message) for w in caught)
    assert found.to_frame()["estimate"].isna().tolist() == [False, False, True, True]
    assert found.statistics().set_index("term").loc[["ICI", "E50", "E90"], "estimate"].isna().all()


def test_few_distinct_predictions(train: pd.DataFrame, test: pd.DataFrame) -> None:
    fit = fitted(train, "trt")
    found = calibration(fit, test, 1.5, groups=10)
    frame, curve = found.to_frame(), found.curve()
    assert len(frame) == len(curve) == 2
    # where a window holds one level, the curve is the Kaplan-Meier of its group
    assert found.statistics().set_index("term")["estimate"]["slope"] > 0
    nothing = crm.SurvivalRegression().fit(train, time="time", event="event")
    found = calibration(nothing, test, 1.5)
    assert len(found.to_frame()) == len(found.curve()) == 1
    assert "slope" not in found.statistics()["term"].tolist()
    np.testing.assert_allclose(found.curve()["estimate"], found.to_frame()["estimate"], rtol=1e-9)


@pytest.mark.filterwarnings("ignore:Only 5 clusters")
def test_joint_test_needs_more_clusters_than_groups(test: pd.DataFrame) -> None:
    data = test.assign(g=np.arange(250) % 5)
    fit = fitted(data, cluster="g")
    with pytest.warns(CausalRMWarning, match="more clusters than groups"):
        found = calibration(fit, data, 1.5, groups=5)
    assert math.isnan(found.test.p_value)
    assert calibration(fit, data, 1.5, groups=2).test.df_resid == 4


# ------------------------------------------------------------------------ house rules


def test_weights_are_copies_of_rows(train: pd.DataFrame, test: pd.DataFrame) -> None:
    copies = np.arange(250) % 3
    repeated = test.loc[test.index.repeat(copies)]
    plain, weighted = fitted(train), fitted(train.assign(w=1.0), weights="w")
    data = test.assign(w=copies)
    for function in (
        lambda f, d: concordance(f, d, 2.0, "uno").estimate,
        lambda f, d: concordance(f, d).estimate,
        lambda f, d: brier_score(f, d, 1.5).integrated("scaled").estimate,
        lambda f, d: calibration(f, d, 1.5, groups=1).to_frame()["estimate"][0],
        lambda f, d: calibration(f, d, 1.5).statistics()["estimate"][2],  # slope
    ):
        assert function(weighted, data) == pytest.approx(function(plain, repeated), rel=1e-9)


def test_other_frames_and_orders(fit: Any, test: pd.DataFrame) -> None:
    shuffled = test.sample(frac=1.0, random_state=1)
    before = test.copy()
    for other in (pl.from_pandas(test), shuffled):
        pd.testing.assert_frame_equal(
            brier_score(fit, other, [1, 2]).to_frame(), brier_score(fit, test, [1, 2]).to_frame()
        )
        assert concordance(fit, other).estimate == pytest.approx(concordance(fit, test).estimate)
        pd.testing.assert_frame_equal(
            calibration(fit, other, 1.5).to_frame(), calibration(fit, test, 1.5).to_frame()
        )
    pd.testing.assert_frame_equal(test, before)


def test_results_survive_json_and_take_levels(fit: Any, test: pd.DataFrame) -> None:
    score, found = brier_score(fit.result_, test, [1, 2]), calibration(fit, test, 1.5)
    for result, kind in ((score, BrierScore), (found, Calibration)):
        again = kind.from_json(result.to_json())
        pd.testing.assert_frame_equal(again.to_frame(0.9), result.to_frame(0.9))
        assert str(again.summary()) == str(result.summary())
        narrow, wide = result.to_frame(0.8), result.to_frame(0.99)
        assert (wide["conf_low"] <= narrow["conf_low"]).all()
        assert max(len(line) for line in str(result.summary()).splitlines()) <= 88
        assert {a.name for a in result.assumptions} == {"new rows", "censoring"}
    columns = ["term", "estimate", "std_error", "statistic", "p_value", "conf_low", "conf_high"]
    assert list(found.statistics().columns) == columns
    assert set(columns) <= set(score.to_frame().columns)
    assert len(found.curve()) == 100


def test_rows_of_the_fit_are_recognised(fit: Any, train: pd.DataFrame, test: pd.DataFrame) -> None:
    status = {
        name: brier_score(fit, data, 1.0).assumptions[0].status
        for name, data in (("train", train), ("shuffled", train[::-1]), ("test", test))
    }
    assert status == {"train": "doubtful", "shuffled": "doubtful", "test": "untested"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f, d: brier_score(f, d, 99.0), "below the last time in column 'time'"),
        (lambda f, d: brier_score(f, d, [0.0, 1.0]), "times above 0"),
        (lambda f, d: brier_score(f, d, []), "finite times"),
        (lambda f, d: brier_score(f, d, 1.0).integrated("best"), "'model', 'null' or 'scaled'"),
        (lambda f, d: brier_score(f, d, 1.0).to_frame(1.5), "level must lie between"),
        (lambda f, d: concordance(f, d, method="somers"), "'harrell' or 'uno'"),
        (lambda f, d: concordance(f, d, tau=1e-9), "events before tau = 1e-09 in column 'event'"),
        (lambda f, d: concordance(f, d.assign(event=0)), "events in column 'event', but there are"),
        (lambda f, d: concordance(f, d[:1].assign(event=1)), "none of the 1 rows form one"),
        (lambda f, d: calibration(f, d, -1.0), "time above 0"),
        (lambda f, d: calibration(f, d, 1.0, groups=0), "positive number of groups"),
        (lambda f, d: calibration(f, d, 1.0, groups=True), "positive number of groups"),
        (lambda f, d: calibration(f, d, 99.0), "below the last time"),
        (lambda f, d: calibration(f, d.drop(columns="x1"), 1.0), "column 'x1'"),
        (lambda f, d: calibration(f, d.drop(columns="event"), 1.0), "column 'event'"),
        (lambda f, d: concordance(f, d.assign(event=2)), "0 .censored. or 1 .event."),
        (lambda f, d: concordance(f, d.assign(time=0.0)), "times above 0"),
        (lambda f, d: concordance(f, d.assign(time=np.nan)), "complete values in column 'time'"),
        (lambda f, d: concordance("fit", d), "fitted SurvivalRegression"),
    ],
)
def test_errors(fit: Any, test: pd.DataFrame, call: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        call(fit, test)


def test_no_events_by_the_time(fit: Any, test: pd.DataFrame) -> None:
    first = test.loc[test["event"] == 1, "time"].min()
    with pytest.raises(IdentificationError, match="events up to time"):
        calibration(fit, test, first / 2)


def test_unfitted_is_told_to_fit(test: pd.DataFrame) -> None:
    with pytest.raises(crm.CausalRMError, match="call fit first"):
        concordance(crm.SurvivalRegression(), test)


def test_interval_censoring_has_no_diagnostics() -> None:
    data = make_survival(300, interval=0.5, rng=3).data
    fit = crm.SurvivalRegression("x1").fit(data, lower="lower", upper="upper")
    for call in (
        lambda: brier_score(fit, data, 1.0), lambda: concordance(fit, data),
        lambda: calibration(fit, data, 1.0),
    ):  # fmt: skip
        with pytest.raises(DataError, match="took intervals from 'lower' and 'upper'"):
            call()


def test_delayed_entry_has_no_censoring_weights() -> None:
    data = simulated(300, entry=0.5)
    fit = fitted(data, entry="entry")
    with pytest.raises(DataError, match="Brier score.*300 of 300 rows enter late .column 'entry'"):
        brier_score(fit, data, 1.0)
    with pytest.raises(DataError, match="Uno's concordance"):
        concordance(fit, data, method="uno")
    assert 0.5 < concordance(fit, data).estimate < 1
    early = data.assign(entry=0.0)  # everybody seen from the start
    assert brier_score(fit, early, 1.0).n_obs == 300
    assert concordance(fit, early, method="uno").estimate > 0.5


@pytest.mark.filterwarnings("ignore:Only 1 clusters")
def test_weights_and_clusters_are_checked(train: pd.DataFrame, test: pd.DataFrame) -> None:
    fit = fitted(train.assign(w=1.0, g=range(500)), weights="w", cluster="g")
    with pytest.raises(DataError, match="positive weights in column 'w', but all 250 are 0"):
        concordance(fit, test.assign(w=0.0, g=range(250)))
    with pytest.raises(DataError, match="weights of at least 0"):
        concordance(fit, test.assign(w=-1.0, g=range(250)))
    with pytest.raises(DataError, match="at least two clusters in column 'g', but saw 1"):
        concordance(fit, test.assign(w=1.0, g=7))
    zero = test.assign(w=(np.arange(250) < 200).astype(float), g=range(250))
    assert concordance(fit, zero).estimate == concordance(fit, zero[:200]).estimate
    assert calibration(fit, zero, 1.5).n_obs == 200
