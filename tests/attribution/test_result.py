from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import causalrm as crm
from causalrm.attribution import AttributionResult, SetFunction
from tests.attribution.games import sigmoid


@pytest.fixture(scope="module")
def fit():
    rng = np.random.default_rng(1)
    value, _ = sigmoid(4, np.random.default_rng(2))
    game = SetFunction(lambda Z: rng.random(len(Z)) < value(Z), binary=True)
    parts = [
        crm.Component("a", group=("x", "u")), crm.Component("b", group=("x", "v")),
        crm.Component("c", role="neutral"), crm.Component("d", role="neutral"),
    ]  # fmt: skip
    return crm.PromptShapley(budget=crm.Budget(calls=800), order=2).fit(parts, game)


def test_frame_and_parts_of_the_standard_error(fit):
    frame, parts = fit.to_frame(0.9), fit.result_.uncertainty()
    assert frame["term"].tolist() == list("abcd")
    width = (frame["conf_high"] - frame["conf_low"]) / frame["std_error"]
    np.testing.assert_allclose(width, 2 * 1.6448536, rtol=1e-6)
    total = (parts[["se_sampling", "se_reply", "se_template"]] ** 2).sum(axis=1)
    np.testing.assert_allclose(total, parts["std_error"] ** 2)
    assert (parts["se_sampling"] == 0).all() and (parts["se_reply"] > 0).all()
    gap = fit.result_.phi.sum() - fit.result_.value_all + fit.result_.value_none
    assert gap == pytest.approx(fit.result_.efficiency_gap, abs=1e-12)


def test_groups_and_contrasts(fit):
    r = fit.result_
    groups = r.group_values()
    assert groups["term"].tolist() == ["x", "c", "d"]
    assert r.group_values(2)["term"].tolist() == ["x / u", "x / v", "c", "d"]
    both = r.contrast({"a": 1, "b": 1})
    assert both.estimate == pytest.approx(groups["estimate"][0])
    assert both.std_error == pytest.approx(groups["std_error"][0])
    assert both.std_error == pytest.approx(np.sqrt(r.covariance[:2, :2].sum()))
    with pytest.raises(crm.DataError, match="no component 'z'"):
        r.contrast({"z": 1})


def test_joint_test(fit):
    test = fit.result_.joint_test("neutral")
    part = fit.result_.covariance[2:, 2:]
    expected = fit.result_.phi[2:] @ np.linalg.solve(part, fit.result_.phi[2:])
    assert test.statistic == pytest.approx(expected) and test.df == 2
    with pytest.raises(crm.DataError, match="No component has the role"):
        fit.result_.joint_test("loud")
    exact = crm.PromptShapley().fit(["a", "b"], lambda Z: Z @ [1.0, 2.0])
    with pytest.raises(crm.IdentificationError, match="known exactly"):
        exact.result_.joint_test()


def test_few_orders_give_t_intervals_and_hotelling():
    value, _ = sigmoid(6, np.random.default_rng(3))
    budget = crm.Budget(calls=80)
    found = crm.PromptShapley("permutation", budget).fit(list("abcdef"), value).result_
    frame, df = found.to_frame(), found.df
    assert df >= 3
    half = (frame["conf_high"] - frame["conf_low"]) / 2
    np.testing.assert_allclose(half, stats.t.ppf(0.975, df) * frame["std_error"])
    np.testing.assert_allclose(
        frame["p_value"], 2 * stats.t.sf(np.abs(frame["statistic"]), df), rtol=1e-9
    )
    last = found.convergence().iloc[-6:]
    looks = int(last["look"].iloc[0])
    wide = stats.t.ppf(1 - 0.025 / (looks * (looks + 1)), df) * last["std_error"]
    np.testing.assert_allclose(last["conf_high"] - last["estimate"], wide)
    parts = [crm.Component(k, role="neutral" if k in "ab" else "informative") for k in "abcdef"]
    test = crm.PromptShapley("permutation", budget).fit(parts, value).result_.joint_test("neutral")
    phi, v = found.phi[:2], found.covariance[:2, :2]
    t2 = phi @ np.linalg.solve(v, phi)
    assert test.statistic == pytest.approx(t2 * (df - 1) / (2 * df)) and test.df_resid == df - 1
    assert test.p_value == pytest.approx(stats.f.sf(test.statistic, 2, df - 1))
    few = crm.PromptShapley("permutation", crm.Budget(calls=24)).fit(list("abcdef"), value)
    with pytest.raises(crm.IdentificationError, match="more pairs than components"):
        few.result_.joint_test()


def test_json_and_back(fit, tmp_path):
    path = tmp_path / "r.json"
    fit.result_.to_json(path)
    read = AttributionResult.from_json(path)
    assert read.to_frame().equals(fit.to_frame())
    again = crm.PromptShapley.from_result(read)
    assert again.budget == crm.Budget(calls=800)
    assert again.result_.interaction("STII").equals(fit.result_.interaction("STII"))
    assert str(again.summary()) == str(fit.summary())


def test_summary_says_what_was_done(fit):
    text = str(fit.summary())
    for part in ("Token noise", "Stopped by", "exact", "16 of 2^4", "Std. errors"):
        assert part in text
    with pytest.raises(crm.IdentificationError, match="order=2"):
        crm.PromptShapley().fit(["a", "b"], lambda Z: Z[:, 0] * 1.0).result_.interaction()


def test_sensitivity_to_the_absent_component_policy():
    def marks(text):
        return float(text.count("x"))

    template = crm.PromptTemplate("q {a}", [crm.Component("a", "xx")])
    policies = {"drop": crm.Drop(), "x": crm.Neutral("x")}
    table = crm.PromptShapley().sensitivity(template, crm.ScoreValue(marks), policies)
    assert table["estimate"].tolist() == [2.0, 1.0]
    assert table["difference"].tolist() == [0.0, -1.0]
