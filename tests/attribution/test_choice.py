from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from statsmodels.discrete.conditional_models import ConditionalLogit

import causalrm as crm
from causalrm.attribution import (
    SimulatedChooser,
    bias_pairs,
    compare_choices,
    conditional_logit,
)
from causalrm.llm import FunctionModel, Reply

ATTRIBUTES = {"price": [200, 300, 400], "hours": [3, 5, 8]}


def experiment(**options):
    known = {"prior": {"price": -0.01, "hours": -0.4}, "cost": "price", "rng": 1}
    return crm.ChoiceExperiment(ATTRIBUTES, **(known | options))


@pytest.fixture(scope="module")
def travel():
    return sm.datasets.modechoice.load_pandas().data


def test_real_travellers_as_in_statsmodels_and_in_the_literature(travel):
    roles = {"occasion": "individual", "chosen": "choice"}
    fit = conditional_logit(travel, attributes=["gc", "ttme"], **roles)
    peer = ConditionalLogit(
        travel["choice"], travel[["gc", "ttme"]], groups=travel["individual"]
    ).fit(disp=False)
    np.testing.assert_allclose(fit.estimates, peer.params, rtol=1e-3)
    np.testing.assert_allclose(fit.std_error, peer.bse, rtol=1e-2)
    # Greene, Econometric Analysis (7th ed.), table 18.3 without covariates of the person:
    # constants only give the log-likelihood -283.7588
    modes = travel.assign(mode=travel["mode"].astype(str))
    constants = conditional_logit(modes, attributes=["mode"], **roles)
    assert constants.loglik == pytest.approx(-283.7588, abs=1e-3)
    assert constants.loglik_null == pytest.approx(-210 * np.log(4))


def test_willingness_to_pay_is_the_delta_method(travel):
    fit = conditional_logit(
        travel, occasion="individual", chosen="choice", attributes=["gc", "ttme"], cost="ttme"
    )
    row = fit.willingness_to_pay().iloc[0]
    (a, b), v = fit.estimates, fit.cov().to_numpy()
    gradient = np.array([-1 / b, a / b**2])
    assert row["estimate"] == pytest.approx(-a / b)
    assert row["std_error"] == pytest.approx(np.sqrt(gradient @ v @ gradient))
    with pytest.raises(crm.DataError, match="no column"):
        conditional_logit(travel, occasion="who", chosen="choice", attributes=["gc"])


def test_a_d_efficient_design_is_better_than_random_ones():
    made = experiment(n_sets=8)
    assert made.design.groupby("set").size().eq(2).all() and len(made.design) == 16

    def information(design):
        X = design[["price", "hours"]].to_numpy(float) / [100.0, 1.0]
        X = X.reshape(-1, 2, 2)
        d = X[:, 0] - X[:, 1]
        p = 1 / (1 + np.exp(-(d @ [-1.0, -0.4])))
        return np.linalg.det((d * (p * (1 - p))[:, None]).T @ d)

    random = [information(experiment(n_sets=8, design="random", rng=s).design) for s in range(20)]
    assert information(made.design) > max(random)


def test_known_utilities_are_recovered():
    chooser = SimulatedChooser({"price": -0.01, "hours": -0.4}, centre={"price": 300, "hours": 5})
    made = experiment(n_sets=12)
    choices = made.run(FunctionModel(chooser, name="simulated"), replies=25)
    fit = made.fit(choices)
    z = (fit.estimates - [-0.01, -0.4]) / fit.std_error
    assert (np.abs(z) < 3).all() and fit.n_obs == 600
    worth = fit.willingness_to_pay().iloc[0]
    assert abs(worth["estimate"] + 40) < 3 * worth["std_error"] < 10
    other = SimulatedChooser({"price": -0.01, "hours": -0.1})
    people = made.fit(made.run(FunctionModel(other, name="others"), replies=25))
    table = compare_choices(fit, people)
    assert table["group"].tolist() == ["coefficient"] * 2 + ["willingness to pay"]
    assert table["p_value"][1] < 0.001 and table["p_value"][2] < 0.001


def test_attribution_of_a_set_on_both_scales():
    chooser = SimulatedChooser(
        {"price": -0.01, "hours": -0.4},
        centre={"price": 300, "hours": 5},
        words={"kindly": {"price": 0.004}},
    )
    made = experiment(n_sets=4)
    filler = {"k": "Would you kindly help.", "t": "Thanks."}
    found = made.attribute(FunctionModel(chooser, name="simulated"), 0, filler=filler)
    logit = found["logit"]
    rows = made.design[made.design["set"] == 0]
    # In log-odds hours are additive; the price is worth its mean weight, with and without kindly
    hours = -0.4 * (rows["hours"].iloc[0] - 5)
    price = -0.01 * (rows["price"].iloc[0] - 300) + 0.002 * (rows["price"].iloc[0] - 300)
    values = dict(zip(logit.names, logit.phi, strict=True))
    assert values["hours 1"] == pytest.approx(hours)
    assert values["price 1"] == pytest.approx(price)
    assert values["t"] == pytest.approx(0, abs=1e-12)
    assert found["probability"].groups[2] == ("price",)


def test_occasions_without_a_choice_are_counted():
    def simulated(prompt, replicate):
        if replicate == 0:
            return Reply(refusal="No.", finish_reason="stop")
        return {"A": 0.6, "B": 0.4}

    made = experiment(n_sets=6)
    choices = made.run(FunctionModel(simulated, name="shy"), replies=6)
    with pytest.warns(crm.CausalRMWarning, match="12 refused"):
        fit = made.fit(choices)
    assert fit.n_obs == 60
    assert fit.outcomes.set_index("outcome")["count"].to_dict() == {"chosen": 60, "refused": 12}


def test_bad_input(travel):
    roles = {"occasion": "individual", "chosen": "choice"}
    with pytest.raises(crm.IdentificationError, match="'hinc' is the same"):
        conditional_logit(travel, attributes=["gc", "hinc"], **roles)
    with pytest.raises(crm.IdentificationError, match="rank 1"):
        conditional_logit(travel.assign(g=2 * travel["gc"]), attributes=["gc", "g"], **roles)
    with pytest.raises(crm.DataError, match="missing values"):
        conditional_logit(travel.replace({"gc": {70: np.nan}}), attributes=["gc"], **roles)
    with pytest.raises(crm.DataError, match="exactly one 'choice'"):
        conditional_logit(travel.assign(choice=1.0), attributes=["gc"], **roles)
    perfect = pd.DataFrame({"o": np.repeat(range(20), 2), "c": [1, 0] * 20, "x": [1.0, 0.0] * 20})
    with pytest.raises(crm.IdentificationError, match="no maximum"):
        conditional_logit(perfect, occasion="o", chosen="c", attributes=["x"])
    with pytest.raises(crm.DataError, match="two or more different levels"):
        crm.ChoiceExperiment({"price": [1]})
    with pytest.raises(crm.DataError, match="no attribute 'cost'"):
        crm.ChoiceExperiment(ATTRIBUTES, cost="cost")
    with pytest.raises(crm.DataError, match="no set 99"):
        experiment(n_sets=2).template(99)


def test_bias_pairs_differ_in_the_frame_alone():
    pairs = bias_pairs()
    assert set(pairs) == {"framing", "anchoring", "default", "sunk cost", "bandwagon"}
    for pair in pairs.values():
        on = np.ones(len(pair.template), bool)
        off = on & (np.array(pair.template.names) != "frame")
        texts = pair.template.render(on), pair.template.render(off)
        assert texts[0] != texts[1] and pair.target in pair.options
        assert pair.template.placebo().names == ("greeting", "closing")
