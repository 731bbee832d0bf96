"""Results of deconfounded rewards: diagnostics, evidence, JSON, and sensitivity."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

import causalrm as crm
from causalrm.core.errors import DataError
from causalrm.datasets import make_logged_rewards

FEATURES = ["quality", "noise", "style"]
ROLES: dict[str, Any] = {"outcome": "outcome", "text": FEATURES, "confounders": ["popularity"]}


@pytest.fixture(scope="module")
def log() -> Any:
    return make_logged_rewards(3000, authors=100, rng=4)


def test_frame_and_rewards(log: Any) -> None:
    df = log.data.set_axis([f"row {i}" for i in range(3000)])
    fit = crm.DeconfoundedReward().fit(df, **ROLES, cluster="author")
    frame = fit.to_frame()
    assert frame["parameter"].tolist() == ["confounder"] + ["reward"] * 4
    assert frame["term"].tolist() == ["popularity", "Intercept", *FEATURES]
    assert fit.rewards_.index.equals(df.index)
    assert list(fit.rewards_) == [
        "outcome", "deconfounded", "std_error", "reward", "reward_std_error",
    ]  # fmt: skip
    assert fit.result_.df_resid == 99
    again = fit.transform(df)
    pd.testing.assert_frame_equal(
        again[["outcome", "deconfounded", "std_error"]],
        fit.rewards_[["outcome", "deconfounded", "std_error"]],
    )
    x = np.column_stack([np.ones(3000), df[FEATURES]])
    np.testing.assert_allclose(
        fit.predict_reward(df)["reward"], x @ fit.result_.estimates[1:], rtol=1e-10
    )


def test_entanglement_is_found_where_it_is(log: Any) -> None:
    d = crm.DeconfoundedReward().fit(log.data, **ROLES, cluster="author").result_.diagnostics
    s = log.truth.covariance()
    b = np.linalg.solve(s.loc[FEATURES, FEATURES], s.loc[FEATURES, "popularity"])
    r2 = float(b @ s.loc[FEATURES, "popularity"]) / s.loc["popularity", "popularity"]
    assert d["entanglement"]["popularity"] == pytest.approx(r2, abs=0.03)
    assert d["hausman"]["p_value"] < 1e-6
    # Normal residuals: (sum v^2)^2 / sum v^4 is a third of the rows.
    assert d["ess"] == pytest.approx(1000, rel=0.1)
    share = d["residual_share"]["popularity"]
    assert share[0] < share[1] < share[2] < 1.65


def test_the_test_of_entanglement_has_its_size() -> None:
    rejected = 0
    for seed in range(150):
        df, _ = make_logged_rewards(300, rho=0.0, style_noise=1e6, rng=seed)
        d = crm.DeconfoundedReward().fit(df, **ROLES).result_.diagnostics
        rejected += d["hausman"]["p_value"] < 0.05
    assert rejected <= 18  # 7.5 are expected; P(more than 18) < .0003


def test_additivity_is_doubted_where_it_fails(log: Any) -> None:
    df = log.data.copy()
    status = {}
    for name, size in (("right", 0.0), ("wrong", 0.5)):
        df["outcome"] = log.data["outcome"] + size * df["quality"] * df["popularity"]
        fit = crm.DeconfoundedReward().fit(df, **ROLES)
        status[name] = {a.name: a.status for a in fit.result_.assumptions}["additivity"]
    assert status == {"right": "supported", "wrong": "doubtful"}


@pytest.mark.parametrize("method", ["residualise", "invariance", "ignore", "input"])
def test_comparators_are_labelled(log: Any, method: str) -> None:
    fit = crm.DeconfoundedReward(method).fit(log.data, **ROLES)
    first = fit.result_.assumptions[0]
    assert first.name == "comparator" and "right only where" in first.statement
    assert first.status == ("untested" if method == "input" else "doubtful")
    assert "comparator" in str(fit.summary())


def test_timing_is_evidence(log: Any) -> None:
    fit = crm.DeconfoundedReward().fit(log.data, **ROLES, timing={"popularity": "pre"})
    found = {a.name: a for a in fit.result_.assumptions}["no effect of the text on the confounder"]
    assert found.status == "supported" and "pre" in found.diagnostic


def test_instruments(log: Any) -> None:
    fit = crm.DeconfoundedReward("iv").fit(log.data, **ROLES, instruments=["instrument"])
    r = fit.result_
    s = np.cov(log.data[["instrument", "popularity"]].to_numpy().T)
    z = log.data["instrument"] - log.data["instrument"].mean()
    left = log.data["popularity"] - log.data["popularity"].mean() - s[0, 1] / s[0, 0] * z
    f = s[0, 1] ** 2 / s[0, 0] * 2999 / (left @ left / 2998)
    assert r.diagnostics["first_stage"]["f"][0] == pytest.approx(f, rel=1e-3)
    ((low, high),) = r.anderson_rubin()
    row = fit.to_frame().iloc[0]
    assert low == pytest.approx(row["conf_low"], abs=0.3 * row["std_error"])
    assert high == pytest.approx(row["conf_high"], abs=0.3 * row["std_error"])
    assert r.anderson_rubin(0.5)[0][0] > low
    again = crm.Result.from_json(r.to_json())
    assert again.anderson_rubin() == r.anderson_rubin()  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="method 'iv'"):
        crm.DeconfoundedReward().fit(log.data, **ROLES).result_.anderson_rubin()


def test_methods_side_by_side(log: Any) -> None:
    fits = [crm.DeconfoundedReward(m).fit(log.data, **ROLES) for m in ("plr", "residualise")]
    assert "popularity" in str(crm.table(*fits, names=["plr", "residualise"]))


def test_sensitivity_is_that_of_the_average_effect(log: Any) -> None:
    """Benchmarks and S as for a continuous treatment with the features as covariates."""
    fit = crm.DeconfoundedReward().fit(log.data, **ROLES)
    found = fit.sensitivity()
    features = ROLES["text"]
    direct = crm.deconfound.average_effect(
        log.data, outcome="outcome", treatment="popularity", covariates=features, method="plr",
        benchmarks=features,
    ).sensitivity()  # fmt: skip
    assert found.scale == pytest.approx(direct.scale, rel=0.01)  # other folds
    assert found.robustness_value() == pytest.approx(direct.robustness_value(), rel=0.02)
    columns = ["cf_y", "cf_d"]
    np.testing.assert_allclose(
        found.benchmarks.loc[features, columns], direct.benchmarks[columns], atol=0.02
    )
    assert found.benchmarks.index[0] == "text" and len(found.benchmarks) == 1 + len(features)
    assert fit.sensitivity(benchmarks=["style"]).benchmarks.index.tolist() == ["style"]
    own = fit.sensitivity(benchmarks={"mine": (0.1, 0.2)}).benchmarks
    assert own.index.tolist() == ["mine"]
    again = crm.DeconfoundedReward.from_result(crm.Result.from_json(fit.result_.to_json()))
    pd.testing.assert_frame_equal(again.sensitivity().benchmarks, found.benchmarks)
    for wrong in ({"term": "other"}, {"benchmarks": ["other"]}):
        with pytest.raises(DataError, match="Expected"):
            fit.sensitivity(**wrong)
    with pytest.raises(DataError, match="another kind"):
        crm.DeconfoundedReward("ignore").fit(log.data, **ROLES).sensitivity()


def test_sensitivity_with_instruments_is_that_of_the_reduced_form(log: Any) -> None:
    fit = crm.DeconfoundedReward("iv").fit(log.data, **ROLES, instruments=["instrument"])
    found = fit.sensitivity()
    s = np.cov(log.data[["instrument", "outcome"]].to_numpy().T)
    assert found.estimate == pytest.approx(s[0, 1] / s[0, 0])
    left = s[1, 1] - s[0, 1] ** 2 / s[0, 0]
    assert found.scale == pytest.approx(np.sqrt(left / s[0, 0]))
    with pytest.raises(DataError, match="mapping"):
        fit.sensitivity(benchmarks=["quality"])


def test_projections_of_the_joint_set_of_several_confounders() -> None:
    """Against a grid; the truth passes the joint test about as often as it should."""
    from causalrm.deconfound.anderson_rubin import critical_value, statistic

    inside = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        z, e = rng.normal(size=(3, 300)), rng.normal(size=(4, 300))
        c = np.stack([0.4 * z[0] + e[0] + e[2], 0.4 * z[1] - 0.2 * z[2] + e[1] + e[2]])
        df = pd.DataFrame({"q": rng.normal(size=300), "c1": c[0], "c2": c[1], "z1": z[0],
                           "z2": z[1], "z3": z[2], "y": c[0] - c[1] + 2 * e[2] + e[3]})  # fmt: skip
        roles = {"outcome": "y", "text": ["q"], "confounders": ["c1", "c2"]}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", crm.IdentificationWarning)  # weak, as they should be
            fit = crm.DeconfoundedReward("iv").fit(df, **roles, instruments=["z1", "z2", "z3"])
        inside.append(fit.result_.anderson_rubin_test({"c1": 1.0, "c2": -1.0}).p_value > 0.05)
    assert np.mean(inside) > 0.85
    r = fit.result_
    (low, high), gamma, se = r.anderson_rubin(term="c2")[0], r.gamma, r.std_error
    critical = critical_value(3, 0.95, None)
    grid = np.linspace(-8, 8, 161)
    kept = [
        b for b in gamma[1] + grid * se[1]
        if min(statistic(r.ar_moments, np.array([a, b])) for a in gamma[0] + grid * se[0])
        <= critical
    ]  # fmt: skip
    assert low == pytest.approx(min(kept), abs=0.15 * se[1])
    assert high == pytest.approx(max(kept), abs=0.15 * se[1])
    assert "anderson_rubin(term=)" in str(fit.summary())
