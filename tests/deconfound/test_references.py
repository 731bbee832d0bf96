"""Published figures: 401(k), LaLonde, CPS and NHEFS."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import statsmodels.api as sm
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from causalrm import datasets
from causalrm.deconfound.effects import EffectResult, average_effect

K401 = ["age", "inc", "educ", "fsize", "marr", "twoearn", "db", "pira", "hown"]
JOBS = ["age", "age2", "educ", "black", "hisp", "marr", "nodegree", "re74", "re75"]


@pytest.fixture(scope="module")
def jobs() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The experiment, and its trained men beside the controls of the population survey."""
    nsw, cps = (f().assign(age2=lambda d: d["age"] ** 2) for f in
                (datasets.load_lalonde, datasets.load_cps))  # fmt: skip
    return nsw, pd.concat([nsw[nsw["treat"] == 1], cps], ignore_index=True)


def overflown(df: pd.DataFrame) -> pd.DataFrame:
    return df.assign(age2=df["age"].astype("int8") ** 2)


def job_effect(df: pd.DataFrame, **options: object) -> EffectResult:
    return average_effect(
        df, outcome="re78", treatment="treat", covariates=JOBS, covariance="HC2", **options
    )


def test_401k_by_least_squares(data_folder: Path) -> None:
    df = datasets.fetch_401k()
    roles = {"outcome": "net_tfa", "treatment": "e401"}
    gap = average_effect(df, **roles, method="difference")
    assert gap.estimate == pytest.approx(19559.34475, abs=1e-5)
    fit = average_effect(df, **roles, covariates=K401, method="regression")
    assert fit.estimate == pytest.approx(5896.198421, abs=1e-5)
    assert fit.std_error == pytest.approx(1524.033659, abs=1e-5)


def forests(trees: int) -> dict[str, object]:
    return {
        "outcome": RandomForestRegressor(trees, max_depth=7, max_features=3, min_samples_leaf=3),
        "treatment": RandomForestClassifier(trees, max_depth=5, max_features=4, min_samples_leaf=7),
    }


def check_401k(trees: int) -> None:
    """DoubleML's documentation: PLR 8,960 (1,320), IRM 8,180 (1,100), RV .071, RVa .053."""
    df = datasets.fetch_401k()
    roles = {"outcome": "net_tfa", "treatment": "e401", "covariates": K401}
    plr = average_effect(df, **roles, method="plr", nuisance=forests(trees))
    assert plr.estimate == pytest.approx(8960, abs=0.25 * 1320)
    assert plr.std_error == pytest.approx(1320, rel=0.03)
    found = plr.sensitivity()
    assert found.robustness_value() == pytest.approx(0.071, abs=0.003)
    assert found.robustness_value(level=0.95) == pytest.approx(0.053, abs=0.003)
    ends = found.bounds(0.04, 0.03).iloc[0]
    assert ends["low"] == pytest.approx(4700, abs=330)
    assert ends["high"] == pytest.approx(13_250, abs=330)
    irm = average_effect(df, **roles, method="aipw", nuisance=forests(trees))
    assert irm.estimate == pytest.approx(8180, abs=0.33 * 1100)
    assert irm.std_error == pytest.approx(1100, rel=0.05)


def test_401k_by_small_forests(data_folder: Path) -> None:
    check_401k(20)


@pytest.mark.slow
def test_401k_by_forests(data_folder: Path) -> None:
    check_401k(500)


def test_lalonde(jobs: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """The sample of Dehejia and Wahba (1999), with HC2 errors."""
    experiment, _ = jobs
    gap = job_effect(experiment, method="difference")
    assert (gap.estimate, gap.std_error) == pytest.approx((1794.34, 671.00), abs=0.005)
    fit = job_effect(experiment, method="regression")
    assert (fit.estimate, fit.std_error) == pytest.approx((1675.86, 677.12), abs=0.005)
    # The package's ages are 8-bit integers, whose squares overflow: figures made from them differ.
    fit = job_effect(overflown(experiment), method="regression")
    assert (fit.estimate, fit.std_error) == pytest.approx((1683.35, 677.65), abs=0.005)


def test_population_survey(jobs: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    _, observed = jobs
    assert len(observed) == 16_177
    assert job_effect(observed, method="difference").estimate == pytest.approx(-8497.52, abs=0.005)
    fit = job_effect(observed, method="regression")
    expected = sm.OLS(observed["re78"], sm.add_constant(observed[["treat", *JOBS]])).fit(
        cov_type="HC2"
    )
    assert fit.estimate == pytest.approx(expected.params["treat"], rel=1e-9)
    assert fit.std_error == pytest.approx(expected.bse["treat"], rel=1e-9)
    assert fit.estimate == pytest.approx(793.59, abs=0.005)
    fit = job_effect(overflown(observed), method="regression")
    assert fit.estimate == pytest.approx(700.33, abs=0.005)
    treated = average_effect(
        observed, outcome="re78", treatment="treat", covariates=JOBS, estimand="att"
    ).effect()
    assert treated.conf_low < 1794.34 < treated.conf_high


def test_nhefs() -> None:
    """What If, chapters 12 and 13: 2.5, 3.5 by standardisation, 3.4 by weighting."""
    df = datasets.load_nhefs()
    covariates = (
        "sex + race + age + I(age**2) + education + smokeintensity + I(smokeintensity**2) + "
        "smokeyrs + I(smokeyrs**2) + exercise + active + wt71 + I(wt71**2)"
    )
    roles = {"outcome": "wt82_71", "treatment": "qsmk", "covariates": covariates}
    assert average_effect(df, **roles, method="difference").estimate == pytest.approx(
        2.5406, abs=5e-5
    )
    standard = average_effect(df, **roles, method="regression", interact=["smokeintensity"])
    assert standard.estimate == pytest.approx(3.5174, abs=5e-5)
    assert average_effect(df, **roles, method="ipw").estimate == pytest.approx(3.4405, abs=5e-5)
    robust = average_effect(df, **roles).effect()
    assert robust.conf_low < 3.4405 < robust.conf_high
