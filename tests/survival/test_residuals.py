"""Residuals: their laws when the model holds, and each by its definition."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import stats

import causalrm as crm
from causalrm.datasets import load_lung, make_survival

REFERENCE = Path(__file__).parents[1] / "reference" / "survival"
RIGHT = {"time": "time", "event": "event"}
BETWEEN = {"lower": "lower", "upper": "upper"}


def fit(data: Any, roles: dict[str, str] | None = None, **options: Any) -> Any:
    return crm.SurvivalRegression(**options).fit(data, **(RIGHT if roles is None else roles))


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return make_survival(2000, kappa=0.5, rng=1).data


@pytest.fixture(scope="module")
def model(data: pd.DataFrame) -> Any:
    return fit(data, phi="x1 + x2 + trt")


def test_cox_snell_residuals_are_censored_unit_exponentials(model: Any, data: pd.DataFrame) -> None:
    found = model.residuals(data)
    assert found.name == "cox-snell" and found.index.equals(data.index) and (found > 0).all()
    expected = [
        model.predict_cumulative_hazard(data.iloc[[i]], data["time"].iloc[i]).iloc[0, 0]
        for i in range(5)
    ]
    np.testing.assert_allclose(found.iloc[:5], expected, rtol=1e-12)
    # Their mean and the rate of events among them are 1: events over the sum of residuals.
    assert data["event"].sum() / found.sum() == pytest.approx(1.0, abs=3 / math.sqrt(1500))
    # Without censoring they are a sample of the unit exponential.
    full = make_survival(2000, kappa=0.5, censoring=0.0, follow_up=1e9, rng=2).data
    whole = fit(full, phi="x1 + x2 + trt").residuals(full)
    assert stats.kstest(whole, "expon").pvalue > 0.05
    assert whole.mean() == pytest.approx(1.0, abs=0.01)
    # Under a wrong distribution they are not, and the fit says so.
    rising = make_survival(2000, gamma={"Intercept": 1.0}, kappa=1.0, rng=3).data
    wrong = fit(rising, phi="x1 + x2 + trt", kappa="exponential")
    assert stats.kstest(wrong.residuals(rising), "expon").pvalue < 1e-6
    status = {a.name: a.status for a in wrong.result_.assumptions}
    assert status["distribution"] == "doubtful"
    status = {a.name: a.status for a in model.result_.assumptions}
    assert status["distribution"] == "supported"


@pytest.mark.parametrize("covariates", ["1", "age + sex"])
def test_martingale_residuals_sum_to_zero(covariates: str) -> None:
    # The score of an intercept of log lambda, which the Weibull has in that of log phi.
    lung = load_lung()
    weibull = fit(lung, phi=covariates, kappa="weibull")
    found = weibull.residuals(lung, "martingale")
    assert abs(found.sum()) < 1e-4 and (found <= 1).all()
    np.testing.assert_allclose(found, lung["event"] - weibull.residuals(lung), atol=1e-12)
    if covariates != "1":  # ... and the score of a covariate
        assert abs((found * lung["age"]).sum()) < 0.02
    other = make_survival(300, kappa=0.0, rng=4).data
    hazards = fit(other, phi="1", lam="1 + x1", kappa="burr")
    assert abs(hazards.residuals(other, "martingale").sum()) < 1e-4
    # With delayed entry too, where what is accumulated starts at entry.
    late = pd.read_csv(REFERENCE / "truncated.csv")
    roles = RIGHT | {"entry": "entry"}
    model = fit(late, roles, phi="x + trt", kappa="weibull")
    assert abs(model.residuals(late, "martingale").sum()) < 1e-4
    end, start = (
        model.predict_cumulative_hazard(late.iloc[[3]], late[c].iloc[3]).iloc[0, 0]
        for c in ("time", "entry")
    )
    assert model.residuals(late).iloc[3] == pytest.approx(end - start, rel=1e-12)


def test_deviance_residuals(model: Any, data: pd.DataFrame) -> None:
    m, d = model.residuals(data, "martingale"), data["event"]
    found = model.residuals(data, "deviance")
    with np.errstate(divide="ignore", invalid="ignore"):
        inner = m + np.where(d == 1, np.log(d - m), 0.0)
    np.testing.assert_allclose(found, np.sign(m) * np.sqrt(-2 * inner), rtol=1e-10, atol=1e-7)
    assert abs(found.skew()) < abs(m.skew())


def test_residuals_of_intervals_are_expectations() -> None:
    rows = pd.read_csv(REFERENCE / "interval.csv")
    model = fit(rows, BETWEEN, phi="x + trt", kappa="weibull")
    found = model.residuals(rows)
    for i in range(0, 300, 7):
        ends = rows.iloc[i][["lower", "upper"]]
        finite = [t for t in ends if np.isfinite(t)]
        h = model.predict_cumulative_hazard(rows.iloc[[i]], finite).to_numpy()[0]
        if ends["lower"] == ends["upper"] or len(finite) == 1:
            expected = h[0]
        else:  # mean of a unit exponential that lies between the two
            expected = stats.expon.expect(lambda x: x, lb=h[0], ub=h[1], conditional=True)
        assert found.iloc[i] == pytest.approx(expected, rel=1e-6), i
    # Expectations included, events minus residuals sum to zero with an intercept.
    assert abs(model.residuals(rows, "martingale").sum()) < 1e-4
    assert np.isfinite(model.residuals(rows, "deviance")).all()
    # Beyond the last digit of survival nothing overflows.
    far = rows.assign(lower=np.where(rows.index < 5, 0.0, rows["lower"]))
    far["upper"] = np.where(rows.index < 5, 1e6, far["upper"])
    assert np.isfinite(model.residuals(far)).all()


def test_residuals_keep_the_rows(model: Any, data: pd.DataFrame) -> None:
    part = data.iloc[[9, 4, 4]].set_axis(["a", "b", "b"])
    found = model.residuals(part)
    assert found.index.tolist() == ["a", "b", "b"] and found.iloc[1] == found.iloc[2]
    np.testing.assert_allclose(found.iloc[0], model.residuals(data).iloc[9], rtol=1e-14)
    other = model.residuals(pl.from_pandas(part.reset_index(drop=True)))
    np.testing.assert_array_equal(other, found)
    # Weights and clusters have no part in a residual.
    extra = data.assign(w=1.5, c=np.arange(len(data)) % 50)
    heavy = fit(extra, RIGHT | {"weights": "w", "cluster": "c"}, phi="x1 + x2 + trt")
    np.testing.assert_allclose(heavy.residuals(data), model.residuals(data), rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.assign(time=np.where(d.index == 3, -1.0, d["time"])), "1 of 2000.*rows: 3"),
        (lambda d: d.assign(event=d["event"] + 1), "'event'"),
        (lambda d: d.drop(columns="event"), "'event'"),
        (lambda d: d.assign(x1=math.nan), "'x1'"),
    ],
)
def test_bad_rows(model: Any, data: pd.DataFrame, change: Any, words: str) -> None:
    with pytest.raises(crm.DataError, match=words):
        model.residuals(change(data))


def test_unknown_kind(model: Any, data: pd.DataFrame) -> None:
    with pytest.raises(crm.DataError, match="'martingale'"):
        model.residuals(data, "pearson")
