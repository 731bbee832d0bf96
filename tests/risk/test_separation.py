"""Separation: refused where it is perfect (see test_model), diagnosed where it is not."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

import causalrm as crm
from causalrm.risk.separation import logistic, warn_of_separation
from tests.risk.simulated import ROLES, selective

NARROW = {"risk": 1.0, "testing": 1.0}  # with which the grid holds


def fit_of(frame: pd.DataFrame, **options: object) -> crm.SelectiveLabelsModel:
    model = crm.SelectiveLabelsModel("x + C(g)", draws=256, priors=NARROW, **options)  # type: ignore[arg-type]
    return model.fit(frame, **ROLES)


def all_positive(f: pd.DataFrame) -> pd.DataFrame:
    return f.assign(sick=f["sick"].mask((f["g"] == "c") & (f["tested"] == 1), 1.0))


def all_tested(f: pd.DataFrame) -> pd.DataFrame:
    f = f.assign(tested=f["tested"].mask(f["g"] == "c", 1))
    return f.assign(sick=f["truth"].where(f["tested"] == 1))


def none_tested(f: pd.DataFrame) -> pd.DataFrame:
    return f.assign(tested=f["tested"].mask(f["g"] == "c", 0))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (all_positive, ["'C(g)[T.c]' of risk (posterior sd", "{'risk': {'C(g)[T.c]': 1.0}}"]),
        (all_tested, ["'C(g)[T.c]' of testing (posterior sd", "{'testing': {'C(g)[T.c]': 1.0}}"]),
        (none_tested, ["'C(g)[T.c]' of risk", "'C(g)[T.c]' of testing"]),
    ],
)
def test_a_coefficient_that_the_prior_decides_is_named(
    change: Callable[[pd.DataFrame], pd.DataFrame], named: list[str]
) -> None:
    with pytest.warns(crm.IdentificationWarning, match="one side at most") as caught:
        fit = fit_of(change(selective(400, 2)))
    (said,) = [str(w.message) for w in caught if "one side" in str(w.message)]
    assert all(text in said for text in named) and "T.b" not in said
    assert said in fit.result_.warnings
    assert fit.result_.method == "grid"


def test_data_that_bound_every_coefficient_say_nothing() -> None:
    frame = selective(400, 2)
    few = frame["g"].where((frame["g"] != "c") | (frame.index < 40), "a")  # a rare level
    with warnings.catch_warnings():
        warnings.simplefilter("error", crm.IdentificationWarning)
        assert fit_of(frame.assign(g=few))._setup.unbounded == ()


def test_columns_that_are_almost_the_same_are_not_called_separated() -> None:
    frame = selective(400, 2)
    frame["again"] = frame["x"] + 1e-3 * np.random.default_rng(0).normal(size=len(frame))
    with warnings.catch_warnings():
        warnings.simplefilter("error", crm.IdentificationWarning)
        model = crm.SelectiveLabelsModel("x + again", draws=64, priors=NARROW)
        assert model.fit(frame, **ROLES)._setup.unbounded == ()


def test_a_posterior_narrower_than_its_prior_is_not_named() -> None:
    labels = [("risk", "Intercept"), ("risk", "x"), ("testing", "Intercept")]
    log: list[str] = []
    warn_of_separation([("risk", "x")], labels, np.array([1.0, 0.1, 1.0]), np.full(3, 3.0), log)
    assert log == []
    with pytest.warns(crm.IdentificationWarning, match="posterior sd 2, prior sd 3"):
        warn_of_separation([("risk", "x")], labels, np.array([1.0, 2.0, 1.0]), np.full(3, 3.0), log)


def test_logistic_regression_is_that_of_statsmodels() -> None:
    import statsmodels.api as sm

    rng = np.random.default_rng(0)
    x = sm.add_constant(rng.normal(size=(200, 2)))
    y = (rng.random(200) < 1 / (1 + np.exp(-x @ [0.3, 1.0, -0.5]))).astype(float)
    np.testing.assert_allclose(
        logistic(x, y, np.ones(200)).theta, sm.Logit(y, x).fit(disp=0).params, rtol=1e-6
    )
