"""Audits and sample sizes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from numpy.testing import assert_allclose
from scipy.special import expit, logit

import causalrm.calibration as cal
from causalrm.core.errors import CausalRMWarning, DataError, IdentificationError


def segments(n=4000, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    x = pd.DataFrame(
        {
            "site": rng.choice(["a", "b", "c"], n),
            "age": rng.uniform(20, 80, n),
            "old": rng.integers(0, 2, n),
        }
    )
    p = rng.uniform(0.1, 0.9, n)
    bad = (x["site"] == "b") & (x["old"] == 1)
    return rng.uniform(size=n) < p - shift * bad, p, x


def test_a_planted_segment_is_found_and_a_clean_score_passes():
    y, p, x = segments(shift=0.15)
    audit = cal.multicalibration_audit(y, p, x)
    top = audit.to_frame().iloc[0]
    assert top["term"] == "site = b and old = 1"
    assert top["p_adjusted"] < 0.01
    assert top["conf_low"] < -0.15 < top["conf_high"]
    assert audit.diagnostics["segments_tested"] <= 20
    assert "segments searched" in str(audit.summary())
    clean = cal.multicalibration_audit(*segments(seed=1))
    assert clean.to_frame()["p_adjusted"].min() > 0.01
    again = cal.AuditResult.from_json(audit.to_json())
    pd.testing.assert_frame_equal(again.to_frame(), audit.to_frame())


def test_false_alarms_keep_their_level():
    # 60 calibrated samples, all segments tested on all rows; 3 expected at 5 %.
    alarms = 0
    for i in range(60):
        y, p, x = segments(1500, 100 + i)
        audit = cal.multicalibration_audit(y, p, x, holdout=0.0, n_boot=300, rng=i)
        alarms += audit.to_frame()["p_adjusted"].min() < 0.05
    assert alarms <= 9


def test_segments_with_clusters_and_small_ones():
    y, p, x = segments(1000, 2)
    audit = cal.multicalibration_audit(
        np.repeat(y, 2),
        np.repeat(p, 2),
        x.loc[np.repeat(x.index, 2)],
        cluster=np.repeat(np.arange(1000), 2),
        depth=1,
        weights=np.ones(2000),
        min_rows=200,
    )
    one = cal.multicalibration_audit(y, p, x, depth=1, min_rows=100)
    assert audit.diagnostics["segments_searched"] == one.diagnostics["segments_searched"]
    with pytest.raises(DataError, match="No segment has"):
        cal.multicalibration_audit(y, p, x, min_rows=5000)
    with pytest.raises(DataError, match="one row per score"):
        cal.multicalibration_audit(y, p, x.iloc[:5])
    with pytest.raises(DataError, match="must be a data frame"):
        cal.multicalibration_audit(y, p, 3)
    with pytest.raises(DataError, match="missing"):
        cal.multicalibration_audit(y, p, x.assign(age=np.nan))
    with pytest.raises(DataError, match="nothing can be tested"):
        cal.multicalibration_audit(y, y, x)  # certain and right everywhere


def scenarios(seed=0, groups=80):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        [(s, g, r) for s in range(groups) for g in ("f", "m") for r in ("u", "v", "w")],
        columns=["scenario", "gender", "race"],
    )
    z = rng.normal(size=groups)[frame["scenario"]] + 0.3 * (frame["gender"] == "m")
    z = z - 0.2 * (frame["race"] == "w") + 0.3 * rng.normal(size=len(frame))
    return expit(z.to_numpy()), frame


def test_discrimination_audit_is_the_mixed_model():
    p, frame = scenarios()
    audit = cal.discrimination_audit(p, frame[["gender", "race"]], frame["scenario"])
    table = audit.to_frame().set_index("term")
    data = frame.assign(z=logit(p))
    fit = smf.mixedlm("z ~ gender + race", data, groups="scenario").fit()
    assert_allclose(
        table.loc[["m", "v", "w"], "estimate"],
        fit.params[["gender[T.m]", "race[T.v]", "race[T.w]"]],
        atol=1e-6,
    )
    assert_allclose(
        table.loc[["m", "v", "w"], "std_error"],
        fit.bse[["gender[T.m]", "race[T.v]", "race[T.w]"]],
        rtol=0.25,
    )
    ratio = float(fit.cov_re.iloc[0, 0]) / fit.scale
    share = audit.diagnostics["intraclass_correlation"]
    assert share == pytest.approx(ratio / (1 + ratio), rel=1e-3)
    swapped = cal.discrimination_audit(
        p, frame[["gender", "race"]], frame["scenario"], baseline={"gender": "m"}
    )
    assert swapped.to_frame().set_index("term").loc["f", "estimate"] == pytest.approx(
        -table.loc["m", "estimate"]
    )


def test_discrimination_audit_refuses_what_it_cannot_tell():
    p, frame = scenarios(groups=40)
    attributes = frame[["gender"]].assign(twin=frame["gender"] + "x")
    with pytest.raises(IdentificationError, match="told apart"):
        cal.discrimination_audit(p, attributes, frame["scenario"])
    with pytest.raises(DataError, match="no level"):
        cal.discrimination_audit(p, frame[["gender"]], frame["scenario"], baseline={"gender": 3})
    with pytest.raises(DataError, match="names no attribute"):
        cal.discrimination_audit(p, frame[["gender"]], frame["scenario"], baseline={"x": 3})
    with pytest.raises(DataError, match="three scenarios"):
        cal.discrimination_audit(p, frame[["gender"]], np.zeros(len(p)))
    some = frame["scenario"] < 10
    with pytest.warns(CausalRMWarning, match="Only 10 scenarios"):
        cal.discrimination_audit(p[some], frame.loc[some, ["gender"]], frame.loc[some, "scenario"])
    age = np.random.default_rng(3).uniform(20, 70, len(p))
    audit = cal.discrimination_audit(p, {"age": age}, frame["scenario"])
    assert audit.to_frame()["term"].iloc[0].startswith("age (per SD")


def test_sample_size_gives_the_width_it_promises():
    rng = np.random.default_rng(4)
    population = rng.beta(2, 3, 50_000)
    plan = cal.sample_size(population).set_index("criterion")
    assert plan.loc["all", "n"] == plan.drop("all")["n"].max()
    for criterion, measure in (
        ("O:E", cal.observed_expected),
        ("slope", cal.calibration_slope),
        ("AUC", cal.auc),
    ):
        n = int(plan.loc[criterion, "n"])
        width = []
        for _ in range(20):
            p = rng.choice(population, n)
            x = measure(rng.uniform(size=n) < p, p)
            width.append(x.conf_high - x.conf_low)
        assert np.mean(width) == pytest.approx(plan.loc[criterion, "width"], rel=0.15)
    with pytest.raises(DataError, match="scores p or a prevalence"):
        cal.sample_size()
    with pytest.raises(DataError, match="must lie in"):
        cal.sample_size(prevalence=1.2)
    with pytest.raises(DataError, match="positive"):
        cal.sample_size(prevalence=0.2, oe_width=0.0)


def test_columns_are_named_by_numbers_or_not_at_all():
    rng = np.random.default_rng(3)
    p, site = rng.uniform(size=400), rng.choice(["a", "b"], 400)
    y = (rng.uniform(size=400) < p) * 1.0
    named = cal.multicalibration_audit(y, p, pd.DataFrame({"0": site}), n_boot=100)
    numbered = cal.multicalibration_audit(y, p, pd.DataFrame({0: site}), n_boot=100)
    pd.testing.assert_frame_equal(numbered.to_frame(), named.to_frame())
    twice = pd.DataFrame([[v, v] for v in site], columns=["site", "site"])
    with pytest.raises(DataError, match="each column once; got .'site'. twice"):
        cal.discrimination_audit(p, twice, np.arange(400) // 2)
    with pytest.raises(DataError, match="complex"):
        cal.multicalibration_audit(y, p + 1j, pd.DataFrame({"site": site}))
