"""The simulator against the model's formulas, and its truth against large samples."""

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from causalrm.core.errors import DataError
from causalrm.datasets import SurvivalTruth, make_survival

REFERENCE = Path(__file__).parents[1] / "reference" / "survival"
EXACT = {"censoring": 0.0, "follow_up": np.inf}


def truth_of(phi, lam, gamma, kappa):
    phi, lam, gamma = ({"Intercept": float(np.log(v))} for v in (phi, lam, gamma))
    return SurvivalTruth(phi, lam, gamma, kappa, 0.5, 0.0)


def one_row():
    return pd.DataFrame({"x1": [0.0], "x2": [0.0], "trt": [0]})


def cases(name):
    return json.loads((REFERENCE / f"{name}.json").read_text())["cases"]


@pytest.mark.parametrize("case", cases("functions"), ids=lambda c: f"{c['kappa']}-{c['time']}")
def test_survival_function_against_sixty_digits(case):
    truth = truth_of(case["phi"], case["lam"], case["gamma"], case["kappa"])
    columns = {name: np.zeros((1, 1)) for name in ("x1", "x2", "trt")}
    cumulative = truth._cumulative_hazard(columns, np.array([case["time"]]))
    np.testing.assert_allclose(cumulative.item(), case["cumulative_hazard"], rtol=1e-10)


@pytest.mark.parametrize("case", cases("rmst"), ids=lambda c: f"{c['kappa']}-{c['gamma']}")
def test_rmst_cure_and_quantiles_against_r(case):
    truth = truth_of(case["phi"], case["lam"], case["gamma"], case["kappa"])
    assert truth.marginal_rmst(case["horizon"], 0) == pytest.approx(case["rmst"], rel=1e-9)
    assert truth.marginal_cure(1) == pytest.approx(case["cure"], rel=1e-12)
    columns = {name: np.zeros(2) for name in ("x1", "x2", "trt")}
    times = truth._times(columns, -np.log1p(-np.array([0.1, 0.5])))
    np.testing.assert_allclose(times, [case["quantile_0.1"], case["quantile_0.5"]], rtol=1e-9)


@given(
    kappa=st.one_of(
        st.floats(-0.99, 50), st.floats(-1e-6, 1e-6), st.sampled_from([0.0, 1.0, 1e8, np.inf])
    ),
    log_lam=st.floats(-4, 4),
    log_gamma=st.floats(-2, 2),
    exponential=st.floats(1e-12, 40),
)
@settings(max_examples=300, deadline=None)
def test_times_invert_the_cumulative_hazard(kappa, log_lam, log_gamma, exponential):
    truth = truth_of(1.0, np.exp(log_lam), np.exp(log_gamma), kappa)
    columns = {name: np.zeros(1) for name in ("x1", "x2", "trt")}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        time = truth._times(columns, np.array([exponential]))
        if np.isinf(time).all():
            limit = -np.exp(log_lam) * (kappa + 1) / kappa if kappa < 0 else np.inf
            assume(exponential >= limit)  # else the time is beyond the largest double
        else:
            assume(time.item() > 0)  # else it is below the smallest
            back = truth._cumulative_hazard(columns, time).item()
            assert back == pytest.approx(exponential, rel=1e-7)


@pytest.mark.parametrize("kappa", [-0.4, 0.0, 1e-9, 0.5, 1.0, 3.0, np.inf])
def test_event_times_follow_the_model(kappa):
    data, truth = make_survival(
        20_000, lam={"x1": 0.3}, gamma={"Intercept": 0.2, "trt": 0.3}, kappa=kappa, rng=1
    )
    columns = {name: data[name].to_numpy(float) for name in ("x1", "x2", "trt")}
    limit = np.exp(0.3 * columns["x1"]) * (-(kappa + 1) / kappa if kappa < 0 else np.inf)
    hazards = truth._cumulative_hazard(columns, truth.event_time)
    cured = np.isinf(truth.event_time)
    np.testing.assert_allclose(hazards[cured], limit[cured])
    # Given that it is below its limit, the cumulative hazard at the event is exponential.
    uniform = np.expm1(-hazards[~cured]) / np.expm1(-limit[~cured])
    assert stats.kstest(uniform, "uniform").pvalue > 0.001
    assert cured.mean() == pytest.approx(np.exp(-limit).mean(), abs=0.012)


def test_censoring_of_each_kind():
    data, truth = make_survival(20_000, censoring=0.4, follow_up=2.0, rng=2)
    assert list(data.columns) == ["time", "event", "x1", "x2", "trt"]
    assert data["time"].max() == 2.0 and data["time"].min() > 0
    seen = data["event"] == 1
    np.testing.assert_array_equal(data["time"][seen], truth.event_time[seen])
    assert (data["time"][~seen] < truth.event_time[~seen]).all()
    # An exponential rate: events of censoring over time at risk.
    rate = (~seen & (data["time"] < 2)).sum() / data["time"].sum()
    assert rate == pytest.approx(0.4, rel=0.05)
    data, _ = make_survival(500, phi={}, kappa=1, rng=2, **EXACT)
    assert data["event"].all()


def test_censoring_and_treatment_may_depend_on_covariates():
    data, _ = make_survival(
        50_000,
        treatment={"Intercept": -0.5, "x1": 1.0},
        censoring={"Intercept": -1.0, "x2": 1.5},
        follow_up=100.0,
        rng=3,
    )
    low, high = data[data["x1"] < -1], data[data["x1"] > 1]
    assert low["trt"].mean() < 0.2 < 0.6 < high["trt"].mean()
    low, high = data[data["x2"] < -0.5], data[data["x2"] > 0.5]
    rate = [(1 - part["event"]).sum() / part["time"].sum() for part in (low, high)]
    # exp(-1 + 1.5 x2), averaged within each part by time at risk
    assert rate[0] == pytest.approx(0.12, abs=0.02)
    assert rate[1] == pytest.approx(1.1, abs=0.1)


def test_delayed_entry_selects_and_keeps_n_rows():
    data, truth = make_survival(5_000, entry=2.0, follow_up=6.0, cluster_size=4, rng=4)
    assert len(data) == 5_000
    assert (data["entry"] < data["time"]).all() and (data["entry"] < truth.event_time).all()
    assert data["entry"].max() > 1.8 and data["time"].max() == 6.0
    # A uniform number: the cumulative hazard gained between entry and event, exponential.
    columns = {name: data[name].to_numpy(float) for name in ("x1", "x2", "trt")}
    gained = truth._cumulative_hazard(columns, truth.event_time) - truth._cumulative_hazard(
        columns, data["entry"].to_numpy()
    )
    assert stats.kstest(gained[::4], "expon").pvalue > 0.001
    sizes = data["cluster"].value_counts()
    assert sizes.max() <= 4 and data["cluster"].is_monotonic_increasing


def test_visits_bracket_the_event():
    data, truth = make_survival(20_000, interval=0.7, rng=5)
    assert list(data.columns) == ["lower", "upper", "x1", "x2", "trt"]
    lower, upper, time = data["lower"].to_numpy(), data["upper"].to_numpy(), truth.event_time
    assert (lower <= time).all() and (time <= upper).all() and (lower < upper).all()
    assert (lower >= 0).all() and (lower == 0).any() and np.isinf(upper).any()
    width = (upper - lower)[np.isfinite(upper)]
    assert width.max() == pytest.approx(0.7, abs=1e-9)
    assert upper[np.isfinite(upper)].max() <= 5.0


def test_left_censoring():
    data, truth = make_survival(20_000, left=0.6, rng=6)
    lower, upper, time = data["lower"].to_numpy(), data["upper"].to_numpy(), truth.event_time
    assert (lower <= time).all() and (time <= upper).all()
    early = (lower == 0) & np.isfinite(upper)
    assert early.any() and (upper[early] <= 0.6).all() and (time[early] < 0.6).all()
    exact = lower == upper
    assert (time[exact] >= 0.6).all() and early.sum() + exact.sum() == np.isfinite(upper).sum()


def test_delayed_entry_and_visits():
    data, truth = make_survival(3_000, entry=1.0, interval=0.5, rng=7)
    assert (data["lower"] >= data["entry"]).all()
    assert ((data["lower"] <= truth.event_time) & (truth.event_time <= data["upper"])).all()


def test_clusters_share_but_keep_each_rows_model():
    data, truth = make_survival(20_000, cluster_size=5, correlation=0.6, rng=8)
    assert data["cluster"].value_counts().eq(5).all()
    columns = {name: data[name].to_numpy(float) for name in ("x1", "x2", "trt")}
    hazards = truth._cumulative_hazard(columns, truth.event_time)
    assert stats.kstest(hazards[::5], "expon").pvalue > 0.001
    scores = stats.norm.ppf(stats.expon.cdf(hazards)).reshape(-1, 5)
    assert np.corrcoef(scores[:, 0], scores[:, 1])[0, 1] == pytest.approx(0.6, abs=0.04)


@pytest.mark.parametrize("kappa", [-0.5, 0.0, 1.0])
def test_marginal_truth_against_a_large_sample(kappa):
    terms = {"phi": {"Intercept": -0.3, "x1": 0.6, "trt": -0.4, "trt:x1": 0.3}, "kappa": kappa}
    terms |= {"lam": {"x2": 0.8, "trt": -0.5}, "gamma": {"Intercept": -0.2, "trt": 0.4}}
    for arm in (0, 1):
        _, truth = make_survival(400_000, treatment=float(arm), rng=9, **terms)
        times = np.array([0.3, 1.0, 4.0])
        observed = (truth.event_time[:, None] > times).mean(axis=0)
        np.testing.assert_allclose(truth.marginal_survival(times, arm), observed, atol=0.004)
        mean = np.minimum(truth.event_time, 4.0).mean()
        assert truth.marginal_rmst(4.0, arm) == pytest.approx(mean, abs=0.012)
        cured = np.isinf(truth.event_time).mean()
        assert truth.marginal_cure(arm) == pytest.approx(cured, abs=0.004)


def test_survival_of_rows():
    data, truth = make_survival(50, gamma={"x2": 0.5}, kappa=1.0, rng=10)
    survival = truth.survival(data, [0.0, 1.0, 2.0])
    assert survival.shape == (50, 3) and (survival[:, 0] == 1).all()
    shape = np.exp(0.5 * data["x2"])
    log_phi = -0.5 + 0.3 * data["x1"] - 0.2 * data["x2"] - 0.5 * data["trt"]
    np.testing.assert_allclose(survival[:, 2], np.exp(-((2 * np.exp(log_phi)) ** shape)))


def test_a_seed_repeats_and_options_do_not_disturb_each_other():
    first, truth = make_survival(200, rng=11)
    again, _ = make_survival(200, rng=truth.entropy)
    pd.testing.assert_frame_equal(first, again)
    _, other = make_survival(200, censoring=0.5, interval=1.0, rng=11)
    np.testing.assert_array_equal(truth.event_time, other.event_time)
    _, drawn = make_survival(20)
    np.testing.assert_array_equal(
        drawn.event_time, make_survival(20, rng=drawn.entropy).truth.event_time
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n must be at least 1; got 0"),
        ({"kappa": -1.0}, "kappa must be above -1"),
        ({"kappa": np.nan}, "kappa must be above -1"),
        ({"phi": {"x3": 1.0}}, "phi has the term 'x3'"),
        ({"treatment": {"trt": 1.0}}, "treatment has the term 'trt'"),
        ({"gamma": {"x1": np.inf}}, "must be a finite number"),
        ({"treatment": 1.5}, "treatment must be a probability"),
        ({"censoring": -1.0}, "censoring must be a rate"),
        ({"entry": 6.0}, "follow_up must be after the latest entry"),
        ({"interval": -1.0}, "interval must be a length"),
        ({"interval": 1.0, "left": 1.0}, "give one of them"),
        ({"cluster_size": 0}, "cluster_size must be"),
        ({"correlation": 2.0}, "correlation must be within"),
        ({"kappa": -0.5, **EXACT}, "neither an event nor an end of observation"),
        ({"phi": {"Intercept": 12.0}, "gamma": {}, "entry": 4.0}, "is too late"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(DataError, match=message):
        make_survival(**({"rng": 0} | options))


def test_arms_are_checked():
    with pytest.raises(DataError, match="arm must be 0 or 1"):
        make_survival(5, rng=0).truth.marginal_survival(1.0, 2)
