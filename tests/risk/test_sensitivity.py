"""Other prevalences: reweighted draws are those of another fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import causalrm as crm
from causalrm.risk import sensitivity
from tests.risk.simulated import ROLES, selective


def fit_of(*known: Any, draws: int = 1024, **options: Any) -> Any:
    model = crm.SelectiveLabelsModel("x + z", constraints=known, draws=draws, **options)
    return model.fit(selective(400, 6), **ROLES)


@pytest.fixture(scope="module")
def fit() -> Any:
    return fit_of(crm.Prevalence(0.32, se=0.03), crm.Expertise(free=["x"]))


def test_a_fan_is_what_other_fits_give(fit: Any) -> None:
    fan = fit.sensitivity([0.32, 0.34, 0.5])
    methods = fan.groupby("prevalence", sort=False)["method"].first()
    assert methods.to_dict() == {"0.32": "reweighted", "0.34": "reweighted", "0.5": "refitted"}
    for value in (0.32, 0.34, 0.5):
        other = fit_of(crm.Prevalence(value, se=0.03), crm.Expertise(free=["x"])).to_frame()
        own = fan[fan["prevalence"] == f"{value:g}"].reset_index(drop=True)
        assert own["term"].tolist() == other["term"].tolist()
        assert (abs(own["estimate"] - other["estimate"]) < 0.2 * other["std_error"]).all()
        assert own["std_error"].to_numpy() == pytest.approx(other["std_error"], rel=0.15)
    np.testing.assert_allclose(
        fan.query("prevalence == '0.32'")["estimate"], fit.to_frame()["estimate"], atol=0.02
    )


def test_the_fan_of_a_summary(fit: Any) -> None:
    fan = fit.result_.fan
    assert len(fan) == 5 * len(fit.to_frame())
    sigma = fan.query("parameter == 'sigma'")["estimate"]
    assert sigma.is_monotonic_decreasing  # a rarer outcome needs testers who see more
    bare = crm.SelectiveLabelsModel("x", draws=512).fit(selective(300, 6), **ROLES)
    assert bare.result_.fan.empty
    with pytest.raises(crm.DataError, match="a prevalence to vary"):
        bare.sensitivity([0.3])


def test_the_fan_of_a_summary_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    hard = crm.Prevalence(0.32, hard=True)
    bare = fit_of(hard, draws=64, fan=False)
    assert bare.result_.fan.empty
    with pytest.raises(crm.DataError, match="a fan of 'risk'"):
        bare.plot.fan()
    monkeypatch.setattr(sensitivity, "_ROWS", 100)  # from here on a fan costs too much unasked
    assert fit_of(hard, draws=64).result_.fan.empty
    fan = fit_of(hard, draws=64, fan=True).result_.fan
    assert fan.groupby("prevalence", sort=False)["method"].first().tolist() == [
        "refitted", "refitted", "reweighted", "refitted", "refitted"
    ]  # fmt: skip
    with pytest.raises(crm.DataError, match="True, False or None"):
        fit_of(hard, fan="yes")


def test_groups_betas_and_hard_targets() -> None:
    by = fit_of(crm.Prevalence({"a": 0.3, "b": 0.35}, se=0.05, by="g"), draws=256)
    assert by.result_.fan["prevalence"].unique().tolist()[:2] == ["odds x 0.667", "odds x 0.8"]
    fan = by.sensitivity([{"a": 0.31, "b": 0.35}])
    assert fan["prevalence"].unique().tolist() == ["a 0.31, b 0.35"]
    for wrong, message in ((0.3, "a dict from level"), ({"a": 0.3}, "each of the levels")):
        with pytest.raises(crm.DataError, match=message):
            by.sensitivity([wrong])
    beta = fit_of(crm.Prevalence(beta=(64, 136)), draws=256).sensitivity([0.34])
    assert beta["method"].unique().tolist() == ["reweighted"]
    hard = fit_of(crm.Prevalence(0.32, hard=True), draws=256).sensitivity([0.34])
    assert hard["method"].unique().tolist() == ["refitted"]
    with pytest.raises(crm.DataError, match="between 0 and 1"):
        fit_of(crm.Prevalence(0.32), draws=64).sensitivity([34])


def test_columns(fit: Any) -> None:
    fan = fit.sensitivity([0.33], level=0.5)
    assert fan.columns.tolist() == [
        "prevalence", "parameter", "term", "estimate", "std_error", "conf_low", "conf_high",
        "method", "khat",
    ]  # fmt: skip
    wide = fit.sensitivity([0.33])
    assert (wide["conf_low"] < fan["conf_low"]).all()
    assert isinstance(wide, pd.DataFrame)
