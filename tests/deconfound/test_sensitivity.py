"""Sensitivity: published figures, limits, and the error of the bounds."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalrm.core.errors import DataError
from causalrm.core.result import Estimate, Result
from causalrm.deconfound.e_value import e_value
from causalrm.deconfound.effects import average_effect
from causalrm.deconfound.sensitivity import benchmark, sensitivity


def test_published_regression() -> None:
    """Cinelli and Hazlett (2020), table 1: directly harmed, t = 4.184, 783 degrees of freedom."""
    found = sensitivity(0.097, 0.097 / 4.18445, dof=783)
    assert found.robustness_value() == pytest.approx(0.13878, abs=2e-5)
    assert found.robustness_value(level=0.95) == pytest.approx(0.07626, abs=2e-5)
    assert sensitivity(0.097, 0.097 / 4.184, dof=783).robustness_value() == pytest.approx(
        0.1388, abs=5e-5
    )


def test_published_e_values() -> None:
    """VanderWeele and Ding (2017): breastfeeding, risk ratio 3.9 (1.8 to 8.7)."""
    found = e_value(3.9, 1.8, 8.7)
    assert (round(found.estimate, 2), round(found.interval, 2)) == (7.26, 3.0)
    mirrored = e_value(1 / 3.9, 1 / 8.7, 1 / 1.8)
    assert mirrored.estimate == pytest.approx(found.estimate)
    assert mirrored.interval == pytest.approx(found.interval)
    assert e_value(1.5, 0.9, 2.0).interval == 1.0
    assert math.isnan(e_value(1.5).interval)


@given(st.floats(-5, 5).filter(lambda v: abs(v) > 0.05), st.floats(0.1, 10.0), st.floats(0.1, 1.0))
def test_robustness_value_moves_the_estimate_to_its_target(
    theta: float, scale: float, q: float
) -> None:
    found = sensitivity(theta, 0.01, scale=scale)
    r = found.robustness_value(q)
    if r > 1 - 1e-9:
        return
    ends = found.bounds(r, r).iloc[0]
    near = ends["low"] if theta > 0 else ends["high"]
    assert near == pytest.approx((1 - q) * theta, abs=1e-6 * max(1, abs(theta)))
    assert found.robustness_value(q, level=0.95) <= r + 1e-12


def test_confidence_robustness_value_puts_the_bound_on_the_null() -> None:
    found = sensitivity(2.0, 0.4, scale=6.0, scale_covariance=(0.05, 0.2), null=0.5)
    r = found.robustness_value(level=0.9)
    assert found.bounds(r, r, level=0.9)["conf_low"][0] == pytest.approx(0.5, abs=1e-8)
    assert sensitivity(0.1, 0.4, scale=6.0).robustness_value(level=0.95) == 0.0
    assert sensitivity(0.1, 0.4, dof=50).robustness_value(level=0.95) == 0.0


def test_small_degrees_of_freedom_have_no_room_for_the_outcome() -> None:
    found = sensitivity(50.0, 1.0, dof=5)
    f, t = 50 / math.sqrt(5), 2.7764451
    expected = (f**2 - t**2 / 4) / (1 + f**2)
    assert found.robustness_value(level=0.95) == pytest.approx(expected, rel=1e-6)


def test_bounds_hold_the_truth_when_a_confounder_is_left_out() -> None:
    """The bias of leaving u out is the bound at its own strength, in a linear model."""
    rng = np.random.default_rng(0)
    n = 200_000
    x, u = rng.normal(size=(2, n))
    d = x + 0.5 * u + rng.normal(size=n)
    y = d + x + 0.8 * u + rng.normal(size=n)
    df = pd.DataFrame({"x": x, "d": d, "y": y})
    fit = average_effect(df, outcome="y", treatment="d", covariates=["x"], method="plr")
    cf_d = 0.25 / 1.25  # share of the residual treatment that u explains
    left = 1 + 0.64 * 1 / 1.25  # outcome given x and d; u given d, x has variance 1 / 1.25
    cf_y = 0.64 / 1.25 / left
    ends = fit.sensitivity().bounds(cf_y, cf_d).iloc[0]
    assert fit.estimate == pytest.approx(1 + 0.8 * 0.5 / 1.25, abs=0.01)
    assert ends["low"] == pytest.approx(1.0, abs=0.01)


def test_standard_errors_of_bounds_are_those_of_repeated_samples() -> None:
    """Errors that grow with the treatment make the estimate and S vary together."""
    ends, errors = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x, v = rng.normal(size=(2, 1000))
        y = x + 2 * v + x + v * (rng.exponential(size=1000) - 1) + 0.3 * rng.normal(size=1000)
        df = pd.DataFrame({"x": x, "d": x + v, "y": y})
        fit = average_effect(df, outcome="y", treatment="d", covariates=["x"], method="plr")
        found = fit.sensitivity()
        row = found.bounds(0.4, 0.4, level=0.84134).iloc[0]
        ends.append([row["low"], row["high"]])
        errors.append([row["low"] - row["conf_low"], row["conf_high"] - row["high"]])
    sd, mean = np.std(ends, axis=0), np.mean(errors, axis=0)
    assert sd == pytest.approx(mean, rel=0.35)
    assert mean[1] > 1.5 * mean[0]  # the sign of their covariance matters


def test_benchmark_is_that_of_partial_r2() -> None:
    """For least squares the strength of a covariate is Cinelli and Hazlett's k = 1 benchmark."""
    rng = np.random.default_rng(3)
    x1, x2 = rng.normal(size=(2, 500))
    d = x1 + 0.5 * x2 + rng.normal(size=500)
    y = d + x1 + x2 + rng.normal(size=500)
    df = pd.DataFrame({"x1": x1, "x2": x2, "d": d, "y": y})
    fit = average_effect(
        df, outcome="y", treatment="d", covariates=["x1", "x2"], method="regression",
        benchmarks=["x2"],
    )  # fmt: skip

    def left(target: np.ndarray, *columns: np.ndarray) -> float:
        z = np.column_stack([np.ones(500), *columns])
        e = target - z @ np.linalg.lstsq(z, target, rcond=None)[0]
        return float(e @ e)

    r2_d = 1 - left(d, x1, x2) / left(d, x1)
    expected_d = r2_d / (1 - r2_d)
    expected_y = (left(y, x1, d) - left(y, x1, x2, d)) / left(y, x1, x2, d)
    row = fit.benchmarks.loc["x2"]
    assert row["cf_d"] == pytest.approx(expected_d, rel=1e-9)
    assert row["cf_y"] == pytest.approx(expected_y, rel=1e-9)
    assert benchmark(1.0, 1.0, 0.9, 1.1, 2.0) == (0.0, 0.0)


def test_result_frame_json_and_plots(tmp_path: object) -> None:
    found = sensitivity(
        Estimate(1.5, 0.5, 0.5, 2.5, name="clicks"), scale=8.0, outcome_sd=4.0,
        benchmarks={"hour": (0.05, 0.02), "author": (0.01, 0.04)}, n_obs=100,
    )  # fmt: skip
    frame = found.to_frame()
    assert frame["term"].tolist()[0] == "clicks"
    assert frame["estimate"][3] == found.e_value().estimate
    again = Result.from_json(found.to_json())
    pd.testing.assert_frame_equal(again.to_frame(), frame)
    pd.testing.assert_frame_equal(again.benchmarks, found.benchmarks)
    ax = found.plot()
    assert {t.get_text() for t in ax.texts} >= {"hour", "author"}
    x, y = ax.get_lines()[1].get_data()
    assert (x[0], y[0]) == (found.robustness_value(), found.robustness_value())
    assert ax.get_xlim()[1] > found.robustness_value()
    found.plot.contour(level=0.9, limit=0.3)
    low = found.plot.benchmarks().get_lines()[2].get_xdata()
    assert low == pytest.approx(found.benchmarks.loc["hour", ["low", "high"]].to_list())
    assert "robustness value" in str(found.summary())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sensitivity(1.0, 0.1), "scale= "),
        (lambda: sensitivity(1.0, 0.1, scale=2.0, dof=3), "Give one"),
        (lambda: sensitivity(1.0, scale=2.0), "standard error"),
        (lambda: sensitivity(1.0, 0.1, scale=-2.0), "scale S"),
        (lambda: sensitivity(1.0, 0.1, dof=1), "degree"),
        (lambda: sensitivity(1.0, 0.1, scale=2.0).bounds(0.1, 1.0), "cf_d"),
        (lambda: sensitivity(1.0, 0.1, scale=2.0).e_value(), "outcome_sd"),
        (lambda: sensitivity(1.0, 0.1, scale=2.0).plot.benchmarks(), "benchmarks"),
        (lambda: e_value(-1.0), "ratios"),
    ],
)
def test_refusals(call, message) -> None:
    with pytest.raises(DataError, match=message):
        call()
