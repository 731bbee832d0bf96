"""SelectiveLabelsModel: options, roles, constraints, priors, and what it recovers."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import causalrm as crm
from causalrm.risk import fitting
from tests.contract.bad_inputs import BAD_WEIGHTS, REMEDY, Bad
from tests.risk.simulated import ROLES, selective

ANSWER = ["estimate", "std_error", "conf_low", "conf_high"]


def fit_of(data: pd.DataFrame, roles: dict[str, str] | None = None, **options: Any) -> Any:
    known = [crm.Prevalence(0.32, se=0.03), crm.Expertise(free=["x"])]
    options = {"risk": "x + z", "constraints": known, "draws": 256} | options
    return crm.SelectiveLabelsModel(**options).fit(data, **ROLES, **(roles or {}))


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return selective(600, 0)


@pytest.fixture(scope="module")
def fit(frame: pd.DataFrame) -> Any:
    return fit_of(frame)


# ------------------------------------------------------------------------- what counts


def test_outcomes_of_the_untested_change_nothing(frame: pd.DataFrame, fit: Any) -> None:
    untested = frame["tested"] == 0
    for value in (0.0, 1.0, -7.5):
        other = frame.assign(sick=frame["sick"].where(~untested, value))
        again = fit_of(other)
        pd.testing.assert_frame_equal(again.to_frame(), fit.to_frame(), check_exact=True)
        assert again.result_.to_json() == fit.result_.to_json()


def test_booleans_are_outcomes_and_tests(frame: pd.DataFrame, fit: Any) -> None:
    other = frame.assign(tested=frame["tested"] == 1, sick=frame["truth"] == 1)
    pd.testing.assert_frame_equal(fit_of(other).to_frame(), fit.to_frame(), check_exact=True)


def test_identical_rows_are_collapsed(frame: pd.DataFrame) -> None:
    coarse = frame.assign(x=frame["x"].round(-1), z=frame["z"].round())
    fit = fit_of(coarse)
    assert fit.result_.diagnostics["distinct_rows"] < 250 < fit.result_.n_obs == 600


def test_only_ratios_of_weights_matter(frame: pd.DataFrame, fit: Any) -> None:
    weighted = fit_of(frame.assign(w=2.0), {"weights": "w"})
    np.testing.assert_allclose(weighted.to_frame()[ANSWER], fit.to_frame()[ANSWER], rtol=1e-9)
    uneven = frame.assign(w=1.0 + (frame["x"] > 50))
    high = fit_of(uneven, {"weights": "w"})
    assert abs(high.to_frame()["estimate"] - fit.to_frame()["estimate"]).max() > 1e-3
    assert "pseudo-posterior" in high.summary().to_markdown()


@pytest.mark.parametrize("bad", BAD_WEIGHTS, ids=str)
def test_bad_weights(frame: pd.DataFrame, bad: Bad) -> None:
    with pytest.raises(crm.DataError, match="w") as caught:
        fit_of(bad.spoil(frame.assign(w=1.0), "w"), {"weights": "w"})
    pd.testing.assert_series_equal(
        pd.Series(str(caught.value)).str.contains(REMEDY), pd.Series([True])
    )


def test_formulas_take_splines_and_categories(frame: pd.DataFrame) -> None:
    fit = fit_of(frame, risk="bs(x, df=4) + C(g)", testing="x + g",
                 constraints=[crm.Prevalence(0.32), crm.Expertise(free=["g"])])  # fmt: skip
    terms = fit.to_frame().groupby("parameter", sort=False)["term"].apply(list)
    assert terms["risk"] == [
        "Intercept", *(f"bs(x, df=4)[{i}]" for i in range(1, 5)), "C(g)[T.b]", "C(g)[T.c]",
    ]  # fmt: skip
    assert terms["testing"] == ["Intercept", "g[T.b]", "g[T.c]"]
    risk = fit.predict_risk(frame.sort_values("x"))["estimate"]
    assert risk.tail(100).mean() > risk.head(100).mean() + 0.1


def test_a_list_of_columns_is_a_formula(frame: pd.DataFrame, fit: Any) -> None:
    again = fit_of(frame, risk=["x", "z"])
    np.testing.assert_allclose(again.to_frame()[ANSWER], fit.to_frame()[ANSWER], rtol=1e-12)


def test_scale_of_a_column_changes_the_unit_alone(frame: pd.DataFrame, fit: Any) -> None:
    other = fit_of(frame.assign(x=frame["x"] * 1000 - 7e4)).to_frame()
    own = fit.to_frame()
    for parameter in ("risk", "testing"):
        one = (own["parameter"] == parameter) & (own["term"] == "x")
        np.testing.assert_allclose(other.loc[one, ANSWER] * 1000, own.loc[one, ANSWER], rtol=1e-6)
    np.testing.assert_allclose(other[ANSWER].iloc[-1], own[ANSWER].iloc[-1], rtol=1e-6)


# ------------------------------------------------------------------------- constraints


def test_constraints_narrow_and_recover() -> None:
    frame = selective(2500, 5)
    true = {"x": 0.08, "z": 0.5}
    free = fit_of(frame, risk="x + z + C(g)", constraints=None)
    known = fit_of(
        frame, risk="x + z + C(g)",
        constraints=[crm.Prevalence(frame["truth"].mean()), crm.Expertise(free=["x", "g"])],
    )  # fmt: skip
    wide, narrow = (
        f.to_frame().query("parameter in ('risk', 'sigma')").set_index("term")
        for f in (free, known)
    )
    own = ["Intercept", "x", "z", "sigma"]
    assert (narrow.loc[own, "std_error"] < 0.75 * wide.loc[own, "std_error"]).all()
    for term, value in true.items():
        row = narrow.loc[term]
        assert row["conf_low"] < value < row["conf_high"]
    low, high = (narrow.loc["sigma", c] for c in ("conf_low", "conf_high"))
    assert low < 2 < high
    untested = frame[frame["tested"] == 0]
    own = known.predict_risk(untested, given="untested")["estimate"].mean()
    assert own == pytest.approx(untested["truth"].mean(), abs=0.04)


def test_hard_prevalence_holds_in_every_draw(frame: pd.DataFrame) -> None:
    fit = fit_of(frame, constraints=[crm.Prevalence(0.33, hard=True)])
    np.testing.assert_allclose(fit.result_.implied, 0.33, atol=1e-9)
    risk = fit.predict_risk(frame)["estimate"]
    assert risk.mean() == pytest.approx(0.33, abs=1e-9)
    tight = fit_of_quietly(frame, crm.Prevalence(0.33, se=0.003))
    np.testing.assert_allclose(
        fit.to_frame()["estimate"], tight.to_frame()["estimate"],
        atol=0.12 * fit.to_frame()["std_error"].max(),
    )  # fmt: skip


def fit_of_quietly(frame: pd.DataFrame, known: crm.Prevalence) -> Any:
    with pytest.warns(crm.IdentificationWarning, match="below the binomial"):
        return fit_of(frame, constraints=[known])


def test_default_se_is_that_of_the_sample(frame: pd.DataFrame) -> None:
    fit = fit_of(frame, constraints=[crm.Prevalence(0.3)])
    (row,) = fit.result_.prevalence.to_dict("records")
    assert row["se"] == pytest.approx(math.sqrt(0.3 * 0.7 / 600))
    assert row["z"] == pytest.approx((row["estimate"] - 0.3) / row["se"])


def test_a_beta_is_nearly_the_normal_of_its_size(frame: pd.DataFrame) -> None:
    beta = fit_of(frame, constraints=[crm.Prevalence(beta=(60, 140))])
    sd = math.sqrt(0.3 * 0.7 / 201)
    normal = fit_of(frame, constraints=[crm.Prevalence(0.3, se=sd)])
    gap = beta.to_frame()["estimate"] - normal.to_frame()["estimate"]
    assert (abs(gap) < 0.2 * normal.to_frame()["std_error"]).all()


def test_prevalence_by_group_and_for_a_target_population(frame: pd.DataFrame) -> None:
    by = fit_of(frame, risk="x + C(g)", constraints=[
        crm.Prevalence({"a": 0.2, "b": 0.35}, se=0.04, by="g")])  # fmt: skip
    shown = by.result_.prevalence
    assert shown["label"].tolist() == ["", " (g = a)", " (g = b)"]
    assert shown["target"].tolist()[1:] == [0.2, 0.35]
    risk = by.predict_risk(frame)["estimate"].groupby(frame["g"]).mean()
    np.testing.assert_allclose(shown["estimate"].iloc[1:], risk[["a", "b"]], atol=1e-6)
    with pytest.warns(crm.IdentificationWarning):  # few rows stand for that population
        pass_through = frame.assign(w=np.where(frame["x"] > 50, 3.0, 1.0))
        weighted = fit_of(pass_through, constraints=[crm.Prevalence(0.4, se=0.01, weights="w")])
    rows = weighted.predict_risk(frame)["estimate"]
    implied = np.average(rows, weights=pass_through["w"])
    assert weighted.result_.prevalence["estimate"].iloc[1] == pytest.approx(implied, abs=1e-6)


def test_soft_expertise_lies_between(frame: pd.DataFrame) -> None:
    z = {}
    for soft in (None, 0.05, 3.0):
        expert = crm.Expertise(exclude=["z"], soft=soft)
        table = fit_of(frame, constraints=[expert]).to_frame()
        own = table.query("parameter == 'testing' and term == 'z'")
        z[soft] = own["std_error"].item() if len(own) else 0.0
    assert 0 == z[None] < z[0.05] < 0.06 < z[3.0]
    free = fit_of(frame, constraints=None).to_frame()
    np.testing.assert_allclose(
        fit_of(frame, constraints=[crm.Expertise(exclude=["z"], soft=3.0)]).to_frame()[ANSWER],
        free[ANSWER],
    )


def test_priors_by_parameter_and_term(frame: pd.DataFrame) -> None:
    tight = fit_of(frame, priors={"risk": {"z": 0.01}, "sigma": 0.1, "testing": 2}).to_frame()
    z = tight.query("parameter == 'risk' and term == 'z'")
    assert abs(z["estimate"].item()) < 0.03
    assert tight["estimate"].iloc[-1] < 0.2
    for priors, message in (
        ({"rho": 1}, "Expected priors as a dict"), (3, "Expected priors as a dict"),
        ({"risk": {"w": 1}}, r"for its terms \['Intercept', 'x', 'z'\]"),
        ({"sigma": 0}, "prior of sigma as a standard deviation above 0"),
        ({"testing": {"x": "wide"}}, "prior of testing as a standard deviation above 0"),
    ):  # fmt: skip
        with pytest.raises(crm.DataError, match=message):
            fit_of(frame, priors=priors)


@pytest.mark.parametrize("options", [{"alpha": 0.5}, {"alpha": 0.0}, {"unobservable": "normal"}])
def test_other_models(frame: pd.DataFrame, options: dict[str, Any]) -> None:
    fit = fit_of(frame, **options)
    assert fit.result_.method == "grid"
    implied = fit.result_.diagnostics["implied_prevalence"]
    assert fit.predict_risk(frame)["estimate"].mean() == pytest.approx(implied, abs=1e-6)


# ------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda f: f.assign(sick=f["sick"].where(f.index > 9)), crm.DataError,
         "for each of the .* tested rows, but .* are missing"),
        (lambda f: f.assign(sick=f["sick"] * 2), crm.DataError, "Expected 0 or 1 in column 'sick'"),
        (lambda f: f.assign(tested=f["tested"] * 2), crm.DataError, "1 .tested. or 0"),
        (lambda f: f.assign(tested=0), crm.IdentificationError, "none is tested"),
        (lambda f: f.assign(tested=1, sick=f["truth"]), crm.IdentificationError, "all are tested"),
        (lambda f: f.assign(sick=f["sick"] * 0), crm.IdentificationError, "both kinds"),
        (lambda f: f.assign(sick=f["sick"] * 0 + 1), crm.IdentificationError, "both kinds"),
        (lambda f: f.assign(z=3.0), crm.IdentificationError, "'z' is constant"),
        (lambda f: f.assign(z=2 * f["x"]), crm.IdentificationError, "linearly dependent"),
        (lambda f: f.assign(z=f["truth"] + 0.01 * f["z"]), crm.IdentificationError,
         "separate column 'sick' perfectly"),
        (lambda f: f.assign(z=f["tested"] + 0.01 * f["z"]), crm.IdentificationError,
         "separate column 'tested' perfectly"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_used(
    frame: pd.DataFrame, change: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        fit_of(change(frame), constraints=None)
    assert pd.Series(str(caught.value)).str.contains(REMEDY).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unobservable": "cauchy"}, "unobservable to be one of"),
        ({"method": "gibbs"}, "method to be one of"),
        ({"alpha": -1}, "alpha to be a number of at least 0"),
        ({"alpha": "free"}, "alpha to be a number of at least 0"),
        ({"draws": 10}, "draws to be a whole number of at least 64"),
        ({"nuts": 500}, "nuts as a dict"),
        ({"method": "nuts", "nuts": {"step": 1}}, r"options of NUTS .* \['step'\]"),
        ({"alpha": None, "method": "grid"}, "alpha is inferred"),
        ({"constraints": [0.2]}, "a list of Prevalence and Expertise"),
        ({"constraints": [crm.Expertise(free=["y"])]}, r"\['y'\] are not among"),
        ({"constraints": [crm.Prevalence(21)]}, "between 0 and 1"),
        ({"constraints": [crm.Prevalence(0.9, se=0.01)]}, "that the outcomes of the tested allow"),
        ({"constraints": [crm.Prevalence(0.02, se=0.01)]}, "that the outcomes of the tested allow"),
        ({"constraints": [crm.Prevalence({"d": 0.3}, by="g")]}, "'d' is not among"),
        ({"constraints": [crm.Prevalence(0.3, weights="w")]}, "column 'w'"),
        ({"risk": "0 + x"}, "an intercept in the formula of risk"),
        ({"risk": "sick ~ x"}, "right-hand side"),
    ],
)
def test_options_that_cannot_be_used(
    frame: pd.DataFrame, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(crm.DataError, match=message):
        fit_of(frame, **options)


def test_roles_are_columns(frame: pd.DataFrame) -> None:
    for roles in ({"tested": "no"}, {"outcome": "no"}, {"weights": "no"}, {"group": "no"}):
        with pytest.raises(crm.DataError, match="no such column"):
            crm.SelectiveLabelsModel("x").fit(frame, **(ROLES | roles))
    with pytest.raises(crm.DataError, match="a column name for tested"):
        crm.SelectiveLabelsModel("x").fit(frame, tested=1, outcome="sick")  # type: ignore[arg-type]
    with pytest.raises(crm.IdentificationError, match="several deciders"):
        fit_of(frame.assign(who="a"), {"decider": "who"}, method="nuts")


def test_rows_must_be_in_memory(frame: pd.DataFrame, tmp_path: Any) -> None:
    path = tmp_path / "rows.parquet"
    frame.to_parquet(path)
    with pytest.raises(crm.DataError, match="held in memory"):
        crm.SelectiveLabelsModel("x").fit(str(path), **ROLES)


# ------------------------------------------------------------------------- the engines


def _failing(own: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = fitting.fit_grid

    def fails(*args: Any) -> Any:
        return replace(real(*args), ok=False, reason="k-hat is 0.9")

    monkeypatch.setattr(fitting, "fit_grid", fails)
    monkeypatch.setattr(fitting, "_of_nuts", lambda *args: own)


def test_auto_falls_back_loudly(frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    k = 6
    rng = np.random.default_rng(0)
    draws = np.column_stack([rng.normal(size=(100, k - 1)) * 0.01, np.full(100, 1.0)])
    told = {"sampler": "nutpie", "chains": 4, "max_r_hat": 1.0, "min_ess_bulk": 99.0,
            "min_ess_tail": 99.0, "divergences": 0}  # fmt: skip
    nuts = fitting.Posterior(draws, None, np.full(k, 99.0), np.ones(k), "nuts", told)
    _failing(nuts, monkeypatch)
    with pytest.warns(crm.ConvergenceWarning, match=r"did not pass its checks \(k-hat is 0.9\)"):
        fit = fit_of(frame, constraints=[crm.Expertise(free=["x"])])
    assert fit.result_.method == "nuts" and "k-hat is 0.9" in fit.result_.warnings[0]
    assert "nuts (nutpie): 100 draws" in str(fit.summary())
    with pytest.raises(crm.ConvergenceError, match="k-hat is 0.9"):
        fit_of(frame, method="grid")
    with pytest.warns(crm.CausalRMWarning, match="alpha is inferred and deciders have effects"):
        fitting.draw(
            replace_problem(fit._setup), "auto", 256, {}, np.random.default_rng(0), [],
        )  # fmt: skip


def replace_problem(own: fitting.Setup) -> fitting.Setup:
    n = len(own.problem.X)
    problem = replace(own.problem, alpha=None, deciders=np.arange(n) % 2, n_deciders=2)
    return replace(own, problem=problem)


@pytest.mark.filterwarnings("ignore:The chains of NUTS")
def test_deciders_and_alpha_by_nuts() -> None:
    rng = np.random.default_rng(4)
    n, who = 800, rng.integers(0, 8, 800)
    effect = rng.normal(0, 1.0, 8)
    frame = pd.DataFrame({"x": rng.normal(size=n), "doctor": [f"Dr {i}" for i in who]})
    risk = -2 + frame["x"] + rng.uniform(0, 2, n)
    frame["sick"] = (rng.random(n) < 1 / (1 + np.exp(-risk))).astype(float)
    known = [crm.Prevalence(frame["sick"].mean()), crm.Expertise(free=[])]
    frame["tested"] = (rng.random(n) < 1 / (1 + np.exp(-risk - 1 - effect[who]))).astype(int)
    fit = crm.SelectiveLabelsModel(
        "x", constraints=known, alpha=None, priors={"alpha": 1.0}, method="nuts",
        nuts={"chains": 2, "draws": 250, "tune": 300, "cores": 1},
    ).fit(frame, **ROLES, decider="doctor")  # fmt: skip
    table = fit.to_frame().set_index(["parameter", "term"])
    found = table.loc["decider", "estimate"].drop("sd")
    assert found.index.tolist() == [f"Dr {i}" for i in range(8)]
    assert np.corrcoef(found, effect)[0, 1] > 0.9
    assert 0.4 < table.loc[("decider", "sd"), "estimate"] < 2
    low, high = (table.loc[("alpha", "alpha"), c] for c in ("conf_low", "conf_high"))
    assert low < 1 < high
    own = fit.predict_testing(frame)["estimate"]
    typical = fit.predict_testing(frame.drop(columns="doctor"))["estimate"]
    gap = (own - typical).groupby(frame["doctor"]).mean()
    assert np.corrcoef(gap, found)[0, 1] > 0.95
    with pytest.raises(crm.DataError, match="'doctor', but 1 of 800 rows have others"):
        fit.predict_testing(frame.assign(doctor=["Dr 9", *frame["doctor"][1:]]))
    again = crm.Estimator.from_result(crm.Result.from_json(fit.result_.to_json()))
    pd.testing.assert_frame_equal(again.predict_risk(frame), fit.predict_risk(frame))
    assert again.posterior_["posterior"]["decider"].shape == (2, 250, 8)


# ------------------------------------------------------------------------- what is kept


def test_rng_repeats_and_records(frame: pd.DataFrame) -> None:
    one, two = (fit_of(frame, rng=None) for _ in range(2))
    assert one.result_.entropy != two.result_.entropy
    again = fit_of(frame, rng=one.result_.entropy)
    pd.testing.assert_frame_equal(again.to_frame(), one.to_frame(), check_exact=True)


def test_what_a_pickle_and_json_keep(frame: pd.DataFrame, fit: Any) -> None:
    fit.posterior_, fit.model_  # noqa: B018  both are there before
    for again in (
        pickle.loads(pickle.dumps(fit)),
        crm.Estimator.from_result(crm.Result.from_json(fit.result_.to_json())),
    ):
        np.testing.assert_array_equal(
            again.posterior_["posterior"]["risk"], fit.posterior_["posterior"]["risk"]
        )
        pd.testing.assert_frame_equal(again.audit(frame, by="g").to_frame(),
                                      fit.audit(frame, by="g").to_frame())  # fmt: skip
        assert again.baselines(frame).metrics["auc"].between(0.5, 1).all()
        for use in (lambda a=again: a.model_, lambda a=again: a.sensitivity([0.3])):
            with pytest.raises(crm.CausalRMError, match="needs the rows of the fit"):
                use()


def test_unfitted_has_no_posterior() -> None:
    model = crm.SelectiveLabelsModel("x")
    for use in (lambda: model.posterior_, lambda: model.model_, lambda: model.sensitivity([0.1])):
        with pytest.raises(crm.CausalRMError, match="call fit first"):
            use()
