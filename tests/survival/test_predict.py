"""Predictions: closed forms, intervals by the delta method, and what a prediction costs."""

from __future__ import annotations

import dataclasses
import json
import math
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import integrate, stats

import causalrm as crm
from causalrm.datasets import fetch_e1684, make_survival

REFERENCE = Path(__file__).parents[1] / "reference" / "survival"
QUANTITIES: dict[str, tuple[str, list[float]]] = {
    "survival": ("predict_survival", [0.3, 1.0, 4.0]),
    "cumulative_hazard": ("predict_cumulative_hazard", [0.3, 1.0, 4.0]),
    "hazard": ("predict_hazard", [0.3, 1.0, 4.0]),
    "quantile": ("predict_quantile", [0.1, 0.25]),
    "rmst": ("predict_rmst", [0.5, 3.0]),
}


def ask(model: Any, what: str, rows: Any, at: Any = None, **how: Any) -> pd.DataFrame:
    method, usual = QUANTITIES[what]
    return getattr(model, method)(rows, usual if at is None else at, **how)


def moved(model: Any, estimates: Any, kappa: float | None = None) -> Any:
    """The same model at other estimates."""
    changes: dict[str, Any] = {"estimates": np.asarray(estimates, float)}
    if kappa is not None:
        changes["fixed_kappa"] = kappa
    return crm.SurvivalRegression.from_result(dataclasses.replace(model.result_, **changes))


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return make_survival(400, kappa=-0.4, follow_up=8.0, cluster_size=4, rng=21).data


@pytest.fixture(scope="module")
def model(data: pd.DataFrame) -> Any:
    model = crm.SurvivalRegression(phi="x1 + trt", gamma="trt")
    return model.fit(data, time="time", event="event")


@pytest.fixture(scope="module")
def plain(data: pd.DataFrame) -> Any:
    """One group, every parameter a number, kappa fixed: for `moved`."""
    return crm.SurvivalRegression(lam="1", kappa=0.3).fit(data, time="time", event="event")


# ---------------------------------------------------------------- values


def test_predictions_of_r(data_folder: Path) -> None:
    expected = json.loads((REFERENCE / "apgw.json").read_text(encoding="utf-8"))["predictions"]
    rows = fetch_e1684().dropna()
    model = crm.SurvivalRegression(phi="treatment", gamma="treatment")
    model.fit(rows, time="time", event="event")
    arms = pd.DataFrame({"treatment": ["control", "interferon"]})
    for name, value in expected["quantities"].items():
        if name == "cure":
            found = model.predict_cure(arms, ci=True)
        else:
            what, _, at = name.rpartition("_")
            found = ask(model, what, arms, float(at), ci=True)
        np.testing.assert_allclose(found["estimate"], value["value"], rtol=2e-6, err_msg=name)
        np.testing.assert_allclose(found["std_error"], value["std_error"], rtol=2e-5, err_msg=name)


def test_restricted_means_and_quantiles_of_r(plain: Any) -> None:
    cases = json.loads((REFERENCE / "rmst.json").read_text(encoding="utf-8"))["cases"]
    assert len(cases) == 84
    row = pd.DataFrame({"x": [0.0]})
    for case in cases:
        at = moved(plain, np.log([case["phi"], case["lam"], case["gamma"]]), case["kappa"])
        rmst = at.predict_rmst(row, case["horizon"]).iloc[0, 0]
        assert rmst == pytest.approx(case["rmst"], rel=1e-9), case
        found = at.predict_quantile(row, [0.1, 0.5]).iloc[0]
        assert list(found) == pytest.approx(
            [case["quantile_0.1"], case["quantile_0.5"]], rel=1e-9
        ), case
        if case["kappa"] < 0:
            assert at.predict_cure(row).iloc[0, 0] == pytest.approx(case["cure"], rel=1e-12)


def test_steep_and_flat_restricted_means(plain: Any) -> None:
    # Survival that falls within a sliver of the range, or hardly at all.
    row = pd.DataFrame({"x": [0.0]})
    for kappa in (-0.5, 0.0, 1.0, math.inf):
        for gamma in (0.2, 30.0):
            for horizon in (0.3, 7.0, 400.0):
                at = moved(plain, [0.0, -0.5, math.log(gamma)], kappa)
                cuts = [float(at.predict_quantile(row, p).iloc[0, 0]) for p in _SHARES]
                # in v = t^(1/4), as t^gamma has a corner at zero

                def integrand(v: float, at: Any = at) -> float:
                    return 4 * v**3 * float(at.predict_survival(row, v**4).iloc[0, 0])

                ends = [0.0, *(t**0.25 for t in cuts if t < horizon), horizon**0.25]
                expected = sum(
                    integrate.fixed_quad(np.vectorize(integrand), a, b, n=24)[0]
                    for a, b in zip(ends[:-1], ends[1:], strict=True)
                )
                found = at.predict_rmst(row, horizon).iloc[0, 0]
                assert found == pytest.approx(expected, rel=1e-6), (kappa, gamma, horizon)


_SHARES = (0.001, 0.3, 0.9, 0.999, 1 - 1e-9)


def test_quantities_belong_together(model: Any, data: pd.DataFrame) -> None:
    rows = data.iloc[:40]
    t = 1.3
    s = model.predict_survival(rows, t).iloc[:, 0]
    h = model.predict_cumulative_hazard(rows, [t - 1e-5, t, t + 1e-5])
    np.testing.assert_allclose(s, np.exp(-h[t]), rtol=1e-13)
    slope = (h[t + 1e-5] - h[t - 1e-5]) / 2e-5
    np.testing.assert_allclose(model.predict_hazard(rows, t).iloc[:, 0], slope, rtol=1e-6)
    assert (model.predict_survival(rows, [0.0, 0.1, 1.0, 5.0]).diff(axis=1).iloc[:, 1:] < 0).all(
        axis=None
    )
    for p in (0.05, 0.2):
        q = model.predict_quantile(rows, p).iloc[:, 0]
        for i in range(3):
            back = model.predict_survival(rows.iloc[[i]], q.iloc[i]).iloc[0, 0]
            assert back == pytest.approx(1 - p, rel=1e-9)
    # The cure fraction is what survival tends to, and the slope of the restricted mean.
    cure = model.predict_cure(rows)["cure"]
    np.testing.assert_allclose(model.predict_survival(rows, 1e60).iloc[:, 0], cure, rtol=1e-9)
    far = model.predict_rmst(rows, [1e12, 2e12])
    np.testing.assert_allclose((far[2e12] - far[1e12]) / 1e12, cure, rtol=1e-4)
    area = model.predict_rmst(rows, t).iloc[0, 0]
    one = rows.iloc[[0]]
    points = np.linspace(0, t, 20_001)
    curve = model.predict_survival(one, points).to_numpy()[0]
    assert area == pytest.approx(integrate.simpson(curve, x=points), rel=1e-5)


def test_at_time_zero_and_far_away(plain: Any) -> None:
    row = pd.DataFrame({"x": [0.0]})
    for gamma, hazard in ((2.0, 0.0), (1.0, 0.5 * 3.0), (0.5, math.inf)):
        at = moved(plain, np.log([0.5, 3.0, gamma]), 0.3)
        assert at.predict_hazard(row, 0.0).iloc[0, 0] == pytest.approx(hazard)
        assert at.predict_survival(row, 0.0, ci=True).iloc[0].tolist() == [1.0, 0.0, 1.0, 1.0]
        assert at.predict_cumulative_hazard(row, 0.0).iloc[0, 0] == 0.0
    # A hazard that starts above zero has an error there too.
    data = make_survival(300, kappa=1.0, gamma={}, rng=1).data
    rate = crm.SurvivalRegression(kappa="exponential").fit(data, time="time", event="event")
    both = rate.predict_hazard(data.iloc[:1], [0.0, 2.0], ci=True)
    np.testing.assert_allclose(both.iloc[0], both.iloc[1], rtol=1e-12)
    # Where survival is 0 to the last digit, nothing is NaN.
    steep = moved(plain, [0.0, 0.0, 1.0], math.inf)
    for t in (5.0, 1e3, 1e100):
        none = steep.predict_survival(row, t, ci=True).iloc[0]
        assert none.notna().all() and none["estimate"] == 0.0
        mean = steep.predict_rmst(row, t, ci=True).iloc[0]
        assert mean.notna().all() and mean["estimate"] < 1.0


def test_quantiles_of_the_cured(model: Any, data: pd.DataFrame) -> None:
    rows = data.iloc[:5]
    cure = model.predict_cure(rows)["cure"]
    assert (cure > 0.05).all()
    found = model.predict_quantile(rows, [0.1, 0.99], ci=True)
    late = found.xs(0.99, level="p")
    assert (late["estimate"] == math.inf).all()
    assert late[["std_error", "conf_low", "conf_high"]].isna().all(axis=None)
    assert np.isfinite(found.xs(0.1, level="p")).all(axis=None)


# ---------------------------------------------------------------- intervals


LINKS: dict[str, tuple[Any, Any]] = {  # to the scale of the interval, and back
    "survival": (lambda s, t: np.log(-np.log(s)), lambda x, t: np.exp(-np.exp(x))),
    "cumulative_hazard": (lambda h, t: np.log(h), lambda x, t: np.exp(x)),
    "hazard": (lambda h, t: np.log(h), lambda x, t: np.exp(x)),
    "quantile": (lambda q, t: np.log(q), lambda x, t: np.exp(x)),
    "rmst": (lambda m, t: np.log(m / (t - m)), lambda x, t: t / (1 + np.exp(-x))),
}


@pytest.mark.parametrize("what", QUANTITIES)
@pytest.mark.parametrize("kind", ["model", "cluster"])
def test_intervals_are_the_delta_method(what: str, kind: str, data: pd.DataFrame) -> None:
    model = crm.SurvivalRegression(phi="x1 + trt", lam="x2", gamma="trt", covariance=kind)
    model.fit(data, time="time", event="event", cluster="cluster")
    rows = data.iloc[[3, 50, 111, 200, 333]]
    result, at = model.result_, QUANTITIES[what][1]
    link, back = LINKS[what]

    def values(theta: np.ndarray) -> np.ndarray:
        return np.asarray(ask(moved(model, theta), what, rows).to_numpy())

    theta, se = result.estimates, result.std_error
    middle = values(theta)
    slopes = np.stack(
        [(values(theta + h) - values(theta - h)) / 2e-4 for h in 1e-4 * np.diag(se)], axis=-1
    )
    scaled = slopes / se
    error = np.sqrt(np.einsum("...i,ij,...j", scaled, result.cov().to_numpy(), scaled))
    found = ask(model, what, rows, ci=True, level=0.9)
    np.testing.assert_allclose(found["estimate"], middle.ravel(), rtol=1e-12)
    np.testing.assert_allclose(found["std_error"], error.ravel(), rtol=1e-5)
    h = 1e-6 * middle
    derivative = (link(middle + h, at) - link(middle - h, at)) / (2 * h)
    half = np.abs(derivative) * error
    half *= stats.norm.ppf(0.95) if kind == "model" else stats.t.ppf(0.95, 99)
    ends = np.stack([back(link(middle, at) + s * half, at).ravel() for s in (-1, 1)])
    np.testing.assert_allclose(found["conf_low"], ends.min(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found["conf_high"], ends.max(axis=0), rtol=1e-5)


def test_interval_of_the_cure_probability(model: Any, data: pd.DataFrame) -> None:
    rows = data.iloc[:4]
    found = model.predict_cure(rows, ci=True)
    k, se = model.result_.kappa, model.result_.std_error[-1]
    x = math.log((k + 1) / -k)  # lambda is 1: the cure fraction depends on kappa alone
    slope = 1 - (k + 1) / k
    z = stats.norm.ppf(0.975)
    np.testing.assert_allclose(found["estimate"], math.exp(-math.exp(x)))
    np.testing.assert_allclose(found["conf_low"], math.exp(-math.exp(x + z * slope * se)))
    np.testing.assert_allclose(found["conf_high"], math.exp(-math.exp(x - z * slope * se)))


def test_intervals_do_not_depend_on_the_other_rows(model: Any, data: pd.DataFrame) -> None:
    many = pd.concat([data] * 12)  # more than one block
    for what in QUANTITIES:
        alone = ask(model, what, data.iloc[[7]], ci=True).to_numpy()
        among = ask(model, what, many, ci=True).to_numpy().reshape(len(many), -1, 4)
        np.testing.assert_allclose(among[7], alone, rtol=1e-12)
        np.testing.assert_allclose(among[7 + 11 * 400], alone, rtol=1e-12)


def test_standard_errors_against_a_parametric_bootstrap() -> None:
    truth: dict[str, Any] = {
        "phi": {"Intercept": -0.3, "trt": -0.5}, "gamma": {"Intercept": 0.3}, "kappa": 0.7,
        "censoring": 0.1, "follow_up": 6.0,
    }  # fmt: skip
    rows = pd.DataFrame({"trt": [0, 1]})
    asked = {"survival": [1.0, 3.0], "rmst": [4.0], "quantile": [0.5], "hazard": [1.0]}
    draws: list[np.ndarray] = []
    claimed: list[np.ndarray] = []
    for seed in range(60):
        sample = make_survival(300, rng=seed, **truth).data
        model = crm.SurvivalRegression("trt", starts=[0.5])
        model.fit(sample, time="time", event="event")
        found = pd.concat([ask(model, what, rows, at, ci=True) for what, at in asked.items()])
        draws.append(np.log(found["estimate"].to_numpy()))
        claimed.append((found["std_error"] / found["estimate"]).to_numpy())
    ratio = np.mean(claimed, axis=0) / np.std(draws, axis=0, ddof=1)
    # The standard error of a standard deviation of 60 draws is 9 %.
    assert (np.abs(ratio - 1) < 0.3).all(), ratio
    assert abs(ratio.mean() - 1) < 0.15


# ---------------------------------------------------------------- frames


def test_wide_and_long_frames(model: Any, data: pd.DataFrame) -> None:
    rows = data.iloc[[5, 3, 9]].set_axis(["u", "v", "v"])
    wide = model.predict_survival(rows, [2.0, 1.0])
    assert wide.columns.tolist() == [2.0, 1.0] and wide.columns.name == "time"
    assert wide.index.tolist() == ["u", "v", "v"]
    long = model.predict_survival(rows, [2.0, 1.0], ci=True)
    assert long.index.names == ["row", "time"]
    assert long.index.tolist() == [(i, t) for i in "uvv" for t in (2.0, 1.0)]
    assert long.columns.tolist() == ["estimate", "std_error", "conf_low", "conf_high"]
    np.testing.assert_allclose(long["estimate"].to_numpy().reshape(3, 2), wide, rtol=1e-14)
    named = model.predict_quantile(rows.rename_axis("id"), 0.2, ci=True)
    assert named.index.names == ["id", "p"]
    two = rows.set_axis(pd.MultiIndex.from_tuples([(1, "a"), (1, "b"), (2, "a")], names=["g", "i"]))
    found = model.predict_rmst(two, [1.0, 2.0], ci=True)
    assert found.index.names == ["g", "i", "horizon"] and found.index[3] == (1, "b", 2.0)
    assert model.predict_rmst(two, 1.0).index.equals(two.index)
    cure = model.predict_cure(two, ci=True)
    assert cure.index.equals(two.index) and len(cure.columns) == 4
    assert model.predict_cure(rows).columns.tolist() == ["cure"]
    from_polars = model.predict_survival(pl.from_pandas(rows.reset_index(drop=True)), [2.0, 1.0])
    np.testing.assert_array_equal(from_polars, wide)
    assert from_polars.index.tolist() == [0, 1, 2]
    only = rows[["x1", "trt"]]  # no outcome is needed
    pd.testing.assert_frame_equal(model.predict_survival(only, [2.0, 1.0]), wide)


def test_level_and_covariance_of_an_interval(model: Any, data: pd.DataFrame) -> None:
    rows = data.iloc[:3]
    narrow, wide = (ask(model, "survival", rows, ci=True, level=x) for x in (0.5, 0.99))
    assert (wide["conf_low"] < narrow["conf_low"]).all()
    robust = crm.SurvivalRegression.from_result(model.result_.with_covariance("robust"))
    other = ask(robust, "survival", rows, ci=True)
    assert (other["std_error"] != ask(model, "survival", rows, ci=True)["std_error"]).all()
    with pytest.raises(crm.DataError, match="level"):
        ask(model, "survival", rows, ci=True, level=95)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", crm.CausalRMWarning)
        lasso = crm.SurvivalRegression("x1", penalty=0.1, l1_ratio=1.0)
        lasso.fit(data, time="time", event="event")
    assert ask(lasso, "survival", rows).notna().all(axis=None)
    with pytest.raises(crm.DataError, match="l1_ratio=0"):
        ask(lasso, "survival", rows, ci=True)


@pytest.mark.parametrize(
    ("what", "at", "words"),
    [
        ("survival", -1.0, "at least 0"), ("survival", [1.0, math.nan], "finite"),
        ("survival", [], "finite times"), ("hazard", "soon", "number"),
        ("survival", [[1.0, 2.0]], "one dimension"), ("quantile", 0.0, "above 0"),
        ("quantile", 1.0, "below 1"), ("quantile", [0.5, 1.2], "below 1"),
        ("rmst", 0.0, "above 0"), ("rmst", math.inf, "finite horizon"),
    ],
)  # fmt: skip
def test_impossible_times(model: Any, data: pd.DataFrame, what: str, at: Any, words: str) -> None:
    with pytest.raises(crm.DataError, match=words):
        ask(model, what, data.iloc[:2], at)


def test_a_million_rows_take_little_more_than_their_answer(model: Any) -> None:
    rng = np.random.default_rng(0)
    n = 1_000_000
    rows = pd.DataFrame({"x1": rng.normal(size=n), "trt": rng.integers(0, 2, n).astype(float)})
    model.predict_survival(rows.iloc[:10], [1.0])
    tracemalloc.start()
    try:
        answer = model.predict_survival(rows, [1.0, 2.0, 3.0])
        size = answer.to_numpy().nbytes
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.shape == (n, 3) and peak < 1.5 * size
