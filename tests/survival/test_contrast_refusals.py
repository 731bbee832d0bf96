"""Standardised contrasts: what is refused, and what is warned of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from causalrm.core.errors import DataError, IdentificationError, IdentificationWarning
from causalrm.survival import SurvivalRegression
from tests.survival.test_contrast import contrast, fitted, simulated, three_arms


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return simulated()


@pytest.fixture(scope="module")
def fit(data: pd.DataFrame) -> SurvivalRegression:
    return fitted(data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"treatment": "nowhere"}, "column of the fit's formulas"),
        ({"treatment": "time"}, "column of the fit's formulas"),
        ({"treatment": ["trt"]}, "column of the fit's formulas"),
        ({"treatment": "x1"}, "few levels"),
        ({"method": "ipw"}, "'gformula' or 'aipw'"),
        ({"times": [1.0, np.nan]}, "finite times"),
        ({"times": -1.0}, "at least 0"),
        ({"times": "soon"}, "number or a sequence"),
        ({"rmst": 0.0}, "above 0"),
        ({"reference": 3}, "level of 'trt'"),
        ({"folds": 3}, "no folds with method='gformula'"),
        ({"censoring": "x1"}, "no censoring with method='gformula'"),
        ({"method": "aipw", "folds": 1}, "folds"),
        ({"method": "aipw", "folds": 2.5}, "folds"),
        ({"method": "aipw", "clip": 0.7}, "clip"),
        ({"method": "aipw", "times": 0.0, "rmst": None}, "time above 0"),
        ({"method": "aipw", "propensity": "trt + x1"}, "without the treatment"),
        ({"method": "aipw", "propensity": "x9"}, "x9"),
        ({"method": "aipw", "propensity": "trt ~ x1"}, "right-hand side"),
        ({"method": "aipw", "censoring": "x9"}, "x9"),
    ],
)
def test_bad_arguments(
    data: pd.DataFrame, fit: SurvivalRegression, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        contrast(fit, data, **options)


def test_bad_rows(data: pd.DataFrame, fit: SurvivalRegression) -> None:
    with pytest.raises(DataError, match="x2"):
        contrast(fit, data.drop(columns="x2"))
    holes = data.assign(x2=data["x2"].where(data.index != 7))
    with pytest.raises(DataError, match=r"x2.*7"):
        contrast(fit, holes)
    with pytest.raises(DataError, match="rows of the fit"):
        contrast(fit, data.iloc[:-1], method="aipw")
    with pytest.raises(DataError, match="rows of the fit"):
        contrast(fit, data.assign(x1=data["x1"] + 1), method="aipw")
    with pytest.raises(DataError, match="levels of 'trt' that the fit saw"):
        contrast(fit, data.assign(trt=data["trt"] + 5))
    with pytest.raises(DataError, match="at least one row"):
        contrast(fit, data.iloc[:0])
    dose = three_arms()
    by_dose = fitted(dose, "dose + x1", gamma="1")
    with pytest.raises(DataError, match="not kept in the fit"):
        contrast(by_dose, dose[["x1"]], treatment="dose")
    assert contrast(by_dose, dose, treatment="dose").arms == ("0", "1", "2")


def test_one_level_only() -> None:
    data = simulated().assign(arm="a")
    data["arm"] = pd.Categorical(data["arm"], ["a"])
    fit = fitted(data, "x1 + x2", gamma="1")
    with pytest.raises(DataError, match="column of the fit's formulas"):
        contrast(fit, data, treatment="arm")


def test_treatment_that_covariates_determine(data: pd.DataFrame) -> None:
    data = data.assign(trt=(data["x1"] > 0).astype(int))
    fit = fitted(data, "trt + x1", gamma="1")
    with pytest.raises(IdentificationError, match="perfectly"):
        contrast(fit, data, method="aipw")
    result = contrast(fit, data)
    positivity = next(a for a in result.assumptions if a.name == "positivity")
    assert positivity.status == "doubtful"
    assert "perfectly" in positivity.diagnostic


def test_warnings(data: pd.DataFrame, fit: SurvivalRegression) -> None:
    late = float(data["time"].max()) + 1
    with pytest.warns(IdentificationWarning, match="beyond the follow-up"):
        result = contrast(fit, data, times=[1, late])
    assert len(result.warnings) == 1
    with pytest.warns(IdentificationWarning, match="beyond the follow-up in the fit"):
        contrast(fit, data[["x1", "x2"]], times=[1, late])
    strong = simulated(400, treatment={"x1": 3.0}, seed=2)
    with pytest.warns(IdentificationWarning, match="propensity below 0.02"):
        result = contrast(fitted(strong), strong, method="aipw", censoring="x1")
    assert result.diagnostics["small_propensities"] > 0
    positivity = next(a for a in result.assumptions if a.name == "positivity")
    assert positivity.status == "doubtful"
    short = simulated(400, censoring=2.0, seed=2)
    with pytest.warns(IdentificationWarning, match="uncensored"):
        contrast(fitted(short, "trt + x1"), short, method="aipw", times=1.5, rmst=None)
