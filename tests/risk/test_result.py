"""Results: weighted summaries, contrasts, JSON, and what the summary says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import causalrm as crm
from causalrm.risk.result import frame_of, summarise, weighted_quantile
from tests.risk.simulated import ROLES, selective


@pytest.fixture(scope="module")
def fit() -> crm.SelectiveLabelsModel:
    known = [crm.Prevalence(0.32, se=0.03), crm.Expertise(free=["x"])]
    model = crm.SelectiveLabelsModel("x + z", constraints=known, draws=512)
    return model.fit(selective(500, 2), **ROLES)


def test_weighted_quantiles_are_those_of_repeated_draws() -> None:
    rng = np.random.default_rng(0)
    x, times = rng.normal(size=(3, 400)), rng.integers(1, 5, 400)
    probs = [0.025, 0.3, 0.5, 0.975]
    repeated = np.array(
        [np.quantile(row, probs, method="hazen") for row in np.repeat(x, times, 1)]
    ).T
    np.testing.assert_allclose(
        weighted_quantile(x, times.astype(float), probs), repeated, atol=0.05
    )
    equal = weighted_quantile(x, np.full(400, 0.1), probs)
    np.testing.assert_allclose(equal, weighted_quantile(x, None, probs), rtol=1e-12)
    assert weighted_quantile(x, times.astype(float), [0.0, 1.0]).tolist() == [
        x.min(axis=1).tolist(), x.max(axis=1).tolist(),
    ]  # fmt: skip
    flat = weighted_quantile(np.ones((2, 5)), np.array([0.0, 1, 0, 2, 0]), [0.1, 0.9])
    np.testing.assert_array_equal(flat, 1.0)


def test_summaries_of_draws() -> None:
    rng = np.random.default_rng(1)
    x, w = rng.normal(size=(2, 500)), rng.random(500)
    mean, sd, low, high = summarise(x, w, 0.9)
    np.testing.assert_allclose(mean, np.average(x, axis=1, weights=w))
    np.testing.assert_allclose(sd**2, [np.cov(row, aweights=w, bias=True) for row in x])
    assert (low < mean).all() and (mean < high).all()
    assert frame_of(x, None, 0.9).shape == (2, 4)
    with pytest.raises(crm.DataError, match="level"):
        summarise(x, w, 95)


def test_frame(fit: crm.SelectiveLabelsModel) -> None:
    table = fit.to_frame()
    assert table.columns.tolist() == [
        "parameter", "term", "estimate", "std_error", "statistic", "p_value", "conf_low",
        "conf_high", "ess_bulk", "r_hat",
    ]  # fmt: skip
    assert table["parameter"].tolist() == ["risk"] * 3 + ["testing"] * 2 + ["sigma"]
    assert table[["statistic", "p_value", "r_hat"]].isna().all(axis=None)
    assert (table["ess_bulk"] == fit.result_.diagnostics["importance_ess"]).all()


def test_contrasts_are_of_draws(fit: crm.SelectiveLabelsModel) -> None:
    found = fit.contrast({("risk", "x"): 10.0, ("testing", "x"): -1}, name="ten")
    draws, w = fit.result_.draws, fit.result_.weights
    own = 10 * draws[:, 1] - draws[:, 4]
    assert found.estimate == pytest.approx(np.average(own, weights=w))
    assert found.conf_low < found.estimate < found.conf_high and np.isnan(found.p_value)
    assert float(fit.contrast({"z": 2})) == pytest.approx(2 * fit.to_frame()["estimate"][2])
    with pytest.raises(crm.DataError, match="names several coefficients"):
        fit.contrast({"x": 1})
    with pytest.raises(crm.DataError, match="names no coefficient"):
        fit.contrast({"w": 1})
    with pytest.raises(crm.DataError, match="as {.parameter, term.: weight}"):
        fit.contrast(["x"])


def test_summary_says_what_matters(fit: crm.SelectiveLabelsModel) -> None:
    text = fit.summary().to_markdown()
    for words in (
        "grid: 512 draws", "importance ESS", "Pareto k-hat", "Implied prevalence", "target 0.32",
        "Condition number", "contraction", "If the prevalence were", "Expertise", "Unobservable",
    ):  # fmt: skip
        assert words in text, words


def test_diagnostics(fit: crm.SelectiveLabelsModel) -> None:
    d, frame = fit.result_.diagnostics, selective(500, 2)
    assert d["tested_prevalence"] == pytest.approx(frame["sick"].mean())
    assert d["implied_minus_tested"] == d["implied_prevalence"] - d["tested_prevalence"]
    assert d["condition_number"] > 1 and d["khat"] < 0.5
    own = fit._setup.standard(fit.result_.draws)
    sd = np.sqrt(np.cov(own[:, 0], aweights=fit.result_.weights))
    assert d["contraction"]["risk intercept"] == pytest.approx(1 - sd**2 / 9)
    assert fit.result_.prevalence["estimate"].item() == pytest.approx(d["implied_prevalence"])


def test_assumptions_answer_to_the_data() -> None:
    frame = selective(1500, 1)
    bare = crm.SelectiveLabelsModel("x + z", draws=256).fit(frame, **ROLES)
    names = {a.name: a for a in bare.result_.assumptions}
    assert {"Unobservable", "Testing by risk", "Form of the model", "Rows"} == set(names)
    assert names["Unobservable"].status == "supported"
    # a prevalence that the outcomes speak against
    odd = crm.SelectiveLabelsModel(
        "x + z", constraints=[crm.Prevalence(0.55, se=0.03), crm.Expertise(free=["x"])], draws=256
    ).fit(frame, **ROLES)
    assert {a.name: a.status for a in odd.result_.assumptions}["Prevalence"] == "doubtful"


def test_json_loses_nothing(fit: crm.SelectiveLabelsModel) -> None:
    again = crm.Result.from_json(fit.result_.to_json())
    assert isinstance(again, crm.RiskResult) and again.to_json() == fit.result_.to_json()
    assert str(again.summary(0.9)) == str(fit.summary(0.9))
    for name in ("fan", "check", "prevalence", "testing_curve"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(fit.result_, name))
    assert repr(again) == "<RiskResult of SelectiveLabelsModel: n_obs=500>"
