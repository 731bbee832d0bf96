from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import optimize, special

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


def test_real_travellers_as_in_other_software(travel):
    modes = pd.Categorical.from_codes(
        travel["mode"].astype(int) % 4, ["car", "air", "train", "bus"]
    )
    frame = travel.assign(mode=modes, hinc_air=travel["hinc"] * (travel["mode"] == 1))
    roles = {"occasion": "individual", "chosen": "choice"}
    fit = conditional_logit(frame, attributes=["gc", "ttme", "hinc_air", "mode"], **roles)
    # The specification of Greene, Econometric Analysis (5th ed., 2003, p. 729), as R's mlogit
    # estimates it; the numbers are those stored with statsmodels' tests of its own logit
    known = {
        "gc": (-0.0155015067, 0.0044079931),
        "ttme": (-0.0961246218, 0.0104398465),
        "hinc_air": (0.0132870138, 0.0102624070),
        "mode_air": (5.20743293, 0.77905514),
        "mode_train": (3.86903570, 0.44312685),
        "mode_bus": (3.16319033, 0.45026593),
    }
    np.testing.assert_allclose(fit.estimates, [known[t][0] for t in fit.term], rtol=2e-6)
    np.testing.assert_allclose(fit.std_error, [known[t][1] for t in fit.term], rtol=1e-6)
    # The likelihood written down anew, and maximised by another program
    y = travel["choice"].to_numpy().reshape(-1, 4)
    X = np.stack([
        travel["gc"], travel["ttme"], frame["hinc_air"], *(travel["mode"] == k for k in (1, 2, 3)),
    ], axis=1).astype(float)  # fmt: skip

    def surprise(b):
        u = (X @ (b / X.std(axis=0))).reshape(-1, 4)
        return -np.sum(u[y == 1] - special.logsumexp(u, axis=1))

    found = optimize.minimize(surprise, np.zeros(6), method="BFGS", options={"gtol": 1e-5})
    np.testing.assert_allclose(found.x / X.std(axis=0), fit.estimates, rtol=2e-4)
    assert -found.fun == pytest.approx(fit.loglik, abs=1e-6)
    # With constants alone the fitted shares are those observed
    constants = conditional_logit(frame, attributes=["mode"], **roles)
    taken = y.sum(axis=0)
    assert constants.loglik == pytest.approx(np.sum(taken * np.log(taken / 210)), abs=1e-6)
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
    with pytest.raises(crm.DataError, match="no such column"):
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
    with pytest.raises(crm.IdentificationError, match="one level each"):
        conditional_logit(travel.assign(g="one"), attributes=["g"], **roles)
    with pytest.raises(crm.DataError, match="are missing"):
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
