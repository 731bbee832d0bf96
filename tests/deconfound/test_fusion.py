"""Fusion: valid whatever the log says, and what is refused. Coverage: test_effects_coverage.py."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from sklearn.ensemble import RandomForestRegressor

from causalrm.core.errors import DataError, IdentificationError
from causalrm.core.result import Result
from causalrm.deconfound.fusion import fuse

ROLES = {"outcome": "y", "treatment": "d", "covariates": ["x", "z"]}


def rows(n: int, rng: np.random.Generator, confounding: float | None) -> pd.DataFrame:
    x, z, hidden, noise, u = rng.normal(size=(5, n))
    d = u > 0 if confounding is None else x + confounding * hidden + u > 0
    y = d * (1 + 0.5 * x) + 2 * x - z + hidden + noise
    return pd.DataFrame({"y": y, "d": d.astype(int), "x": x, "z": z})


@pytest.fixture(scope="module")
def data() -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(5)
    return rows(300, rng, None), rows(10_000, rng, 1.0)


def test_fused_is_lins_regression_on_the_logs_predictions(data) -> None:
    experiment, log = data
    found = fuse(experiment, log, **ROLES)
    parts = [smf.ols("y ~ x + z", log[log["d"] == a]).fit().predict(experiment) for a in (0, 1)]
    m, t = (parts[0] + parts[1]) / 2, parts[1] - parts[0]
    frame = experiment.assign(m=m - m.mean(), t=t - t.mean())
    fit = smf.ols("y ~ d * (m + t)", frame).fit(cov_type="HC2")
    assert found.effect().estimate == pytest.approx(fit.params["d"], rel=1e-8)
    # ours adds what the mean of the experiment's covariates adds
    assert fit.bse["d"] <= found.effect().std_error < 1.1 * fit.bse["d"]
    gap = experiment.groupby("d")["y"].mean().diff()[1]
    assert found.effect(term="experiment").estimate == pytest.approx(gap, rel=1e-10)


def test_bias_of_the_log_is_seen_and_does_not_reach_the_fused(data) -> None:
    experiment, log = data
    found = fuse(experiment, log, **ROLES)
    bias = found.effect(term="bias of the log")
    assert bias.conf_low > 0.5
    assert found.assumptions[2].status == "doubtful"
    fused, alone = found.effect(), found.effect(term="experiment")
    assert fused.conf_low < 1 < fused.conf_high
    assert fused.std_error < 0.6 * alone.std_error
    assert found.variance_ratio == pytest.approx((fused.std_error / alone.std_error) ** 2)
    pooled = found.effect(term="pooled")
    assert pooled.conf_low > 1.5  # pooling is wrong here
    clean = fuse(experiment, rows(10_000, np.random.default_rng(6), 0.0), **ROLES)
    bias = clean.effect(term="bias of the log")
    assert bias.conf_low < 0 < bias.conf_high
    assert clean.effect(term="pooled").std_error < 0.5 * clean.effect().std_error


def test_useless_log_does_no_harm(data) -> None:
    experiment, log = data
    noise = log.assign(y=np.random.default_rng(0).normal(size=len(log)))
    found = fuse(experiment, noise, **ROLES)
    assert found.variance_ratio < 1.05
    e = found.effect()
    assert e.conf_low < 1 < e.conf_high


def test_learner_one_armed_log_unequal_chances_and_clusters(data) -> None:
    experiment, log = data
    forest = RandomForestRegressor(20, min_samples_leaf=20)
    found = fuse(experiment, log, **ROLES, nuisance=forest, rng=1)
    assert found.effect() == fuse(experiment, log, **ROLES, nuisance=forest, rng=1).effect()
    assert found.variance_ratio < 0.5
    controls = fuse(experiment, log[log["d"] == 0], **ROLES)
    assert controls.term == ("experiment", "fused") and controls.variance_ratio < 0.5
    rng = np.random.default_rng(8)
    big = rows(20_000, rng, None)
    p = np.where(big["x"] > 0, 0.8, 0.3)
    on = rng.random(len(big)) < p
    big["y"] += (on.astype(int) - big["d"]) * (1 + 0.5 * big["x"])
    big = big.assign(d=on.astype(int), p=p)
    for term in ("experiment", "fused"):
        e = fuse(big, log, **ROLES, propensity="p").effect(term=term)
        assert abs(e.estimate - 1) < 4 * e.std_error
    assert abs(fuse(big, log, **ROLES).effect(term="experiment").estimate - 1) > 0.5
    twice = pd.concat([experiment] * 2, ignore_index=True)
    twice["g"] = np.tile(np.arange(300), 2)
    clustered = fuse(twice, log, **ROLES, cluster="g").effect()
    single = fuse(experiment, log, **ROLES).effect()
    assert clustered.std_error == pytest.approx(single.std_error, rel=0.03)


def test_json_and_summary(data) -> None:
    found = fuse(*data, **ROLES)
    again = Result.from_json(found.to_json())
    pd.testing.assert_frame_equal(again.to_frame(), found.to_frame())
    assert "the log is worth" in str(found.summary())
    with pytest.raises(DataError, match="one of"):
        found.effect(term="best")


def test_refusals(data) -> None:
    experiment, log = data
    with pytest.raises(DataError, match="0 or 1 in the log"):
        fuse(experiment, log.assign(d=2), **ROLES)
    with pytest.raises(DataError, match="0 or 1 in the experiment"):
        fuse(experiment.assign(d=2), log, **ROLES)
    with pytest.raises(IdentificationError, match="constant"):
        fuse(experiment[experiment["d"] == 1], log, **ROLES)
    with pytest.raises(IdentificationError, match="same for all rows"):
        fuse(experiment, log, outcome="y", treatment="d", covariates=[])
    with pytest.raises(DataError, match="between 0 and 1"):
        fuse(experiment.assign(p=1.0), log, **ROLES, propensity="p")
    with pytest.raises(DataError, match="column 'z'"):
        fuse(experiment.drop(columns="z"), log, **ROLES)
