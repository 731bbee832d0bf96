"""Predictive checks: quiet under the model, loud against it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import causalrm as crm
from causalrm.risk.checks import outside
from tests.risk.simulated import ROLES, selective


def fit_of(frame: pd.DataFrame) -> crm.SelectiveLabelsModel:
    known = [crm.Prevalence(0.32, se=0.03)]
    return crm.SelectiveLabelsModel("x + z", constraints=known, draws=256).fit(frame, **ROLES)


def test_check_of_the_fit() -> None:
    frame = selective(1500, 1)
    fit = fit_of(frame)
    check = fit.result_.check
    tested = check.query("quantity == 'tested'")
    assert tested["bin"].tolist() == list(range(1, 11)) and tested["n"].sum() == 1500
    mean = np.average(tested["observed"], weights=tested["n"])
    assert mean == pytest.approx(frame["tested"].mean())
    assert check["risk"][:10].is_monotonic_increasing
    assert outside(check)[0] <= 3
    wide = fit.predictive_check(frame, bins=5, level=0.99)
    assert wide["bin"].max() == 5 and wide["n"].sum() == 2 * 1500
    prior = fit.predictive_check(frame, kind="prior", bins=5)
    gap = (prior["conf_high"] - prior["conf_low"]) - (wide["conf_high"] - wide["conf_low"])
    assert (gap > 0.3).all()
    pd.testing.assert_series_equal(prior["risk"], wide["risk"])
    with pytest.raises(crm.DataError, match="'posterior' or 'prior'"):
        fit.predictive_check(frame, kind="both")


def test_check_finds_what_the_formula_lacks() -> None:
    rng = np.random.default_rng(0)
    frame = selective(2500, 1)
    bend = frame["x"].sub(50).abs() > 8  # tests go to the extremes, whatever the risk
    frame["tested"] = (rng.random(2500) < np.where(bend, 0.9, 0.2)).astype(int)
    frame["sick"] = frame["truth"].where(frame["tested"] == 1)
    fit = fit_of(frame)
    bad, of = outside(fit.result_.check)
    assert bad > 0.25 * of
    status = {a.name: a.status for a in fit.result_.assumptions}
    assert status["Unobservable"] == "doubtful"
