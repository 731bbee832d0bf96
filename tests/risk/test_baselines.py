"""Baselines against statsmodels and scikit-learn, and what the model gains on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from sklearn.metrics import brier_score_loss, roc_auc_score

import causalrm as crm
from causalrm.risk.baselines import MODEL, NEGATIVE, TESTED
from tests.risk.simulated import ROLES, selective


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return selective(2500, 8)


@pytest.fixture(scope="module")
def fit(frame: pd.DataFrame) -> Any:
    known = [crm.Prevalence(frame["truth"].mean()), crm.Expertise(free=["x", "g"])]
    model = crm.SelectiveLabelsModel("x + z + g", constraints=known, draws=256)
    return model.fit(frame, **ROLES)


def test_coefficients_are_those_of_statsmodels(fit: Any, frame: pd.DataFrame) -> None:
    table = fit.baselines(frame).to_frame()
    x = sm.add_constant(pd.get_dummies(frame[["x", "z", "g"]], drop_first=True, dtype=float))
    tested = frame["tested"] == 1
    for name, use, y in (
        (TESTED, tested, frame["sick"]), (NEGATIVE, tested | True, frame["sick"].fillna(0.0)),
    ):  # fmt: skip
        other = sm.Logit(y[use], x[use]).fit(disp=0)
        own = table[table["group"] == name]
        np.testing.assert_allclose(own["estimate"], other.params, rtol=1e-6)
        np.testing.assert_allclose(own["std_error"], other.bse, rtol=1e-6)
        np.testing.assert_allclose(own["conf_low"], other.conf_int()[0], rtol=1e-5)
    model = table[table["group"] == MODEL]
    np.testing.assert_array_equal(model["estimate"], fit.to_frame()["estimate"][:5])


def test_measures_are_those_of_scikit_learn(fit: Any, frame: pd.DataFrame) -> None:
    metrics = fit.baselines(frame, truth="truth").metrics.set_index(["rows", "model"])
    risk = fit.predict_risk(frame)["estimate"]
    own = metrics.loc[("all", MODEL)]
    assert own["auc"] == pytest.approx(roc_auc_score(frame["truth"], risk))
    assert own["brier"] == pytest.approx(brier_score_loss(frame["truth"], risk))
    assert own["o_e"] == pytest.approx(frame["truth"].mean() / risk.mean())
    tested = frame[frame["tested"] == 1]
    given = fit.predict_risk(tested, given="tested")["estimate"]
    assert metrics.loc[("tested", MODEL), "auc"] == pytest.approx(
        roc_auc_score(tested["sick"], given)
    )
    # of the untested, the model knows the level; the shortcuts do not
    level = {
        name: abs(np.log(metrics.loc[("untested", name), "o_e"]))
        for name in (MODEL, TESTED, NEGATIVE)
    }
    assert level[MODEL] < 0.1 < level[TESTED] and level[NEGATIVE] > 0.1


def test_result(fit: Any, frame: pd.DataFrame) -> None:
    found = fit.baselines(frame)
    assert found.metrics["rows"].unique().tolist() == ["tested"]
    text = str(found.summary())
    assert "untested as negative" in text and "brier" in text
    again = crm.Result.from_json(found.to_json())
    pd.testing.assert_frame_equal(again.to_frame(), found.to_frame())
