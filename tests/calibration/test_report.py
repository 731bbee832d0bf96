"""The report: content, groups, rendering, storage, and odd inputs."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import causalrm.calibration as cal
from causalrm.calibration.contrasts import holm
from causalrm.core.errors import CausalRMWarning, DataError


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    p = np.round(rng.beta(1, 1.5, 900), 2)
    group = rng.choice(["a", "b"], 900)
    chance = np.where(group == "a", p, 0.3 + 0.4 * p)
    return rng.uniform(size=900) < chance, p, group


@pytest.fixture(scope="module")
def report(data):
    y, p, group = data
    return cal.calibration_report(y, p, groups=group, n_boot=300)


def test_the_rows_are_those_of_the_functions(data, report):
    y, p, _ = data
    for measure in (cal.ece, cal.auc, cal.ici, cal.smooth_ece, cal.calibration_slope, cal.brier):
        x = measure(y, p, n_boot=300)
        row = report[x.name]
        assert row["estimate"] == x.estimate and row["conf_high"] == x.conf_high
    with pytest.raises(DataError, match="No measure 'nonsense'"):
        report["nonsense"]


def test_frame_and_level(report):
    frame = report.to_frame()
    assert set(frame["group"]) == {"all", "a", "b"}
    assert len(frame) == 3 * 21
    usual = ["group", "term", "estimate", "std_error", "statistic", "p_value", "conf_low"]
    assert frame.columns[:7].tolist() == usual
    assert report.to_frame(0.95).equals(frame)
    with pytest.raises(DataError, match="level=0.9"):
        report.to_frame(0.9)


def test_groups_differ_where_they_do(data, report):
    y, p, group = data
    c = report.contrasts.set_index(["group", "term"])
    assert c.loc[("b", "calibration_slope"), "p_adjusted"] < 0.01
    assert c.loc[("b", "ece"), "conf_low"] > 0
    row = c.loc[("a", "brier")]
    part = [np.mean((y[group == g] - p[group == g]) ** 2) for g in "ab"]
    assert row["estimate"] == pytest.approx(part[0] - part[1])
    known = c[c["p_value"].notna()]
    assert (known["p_adjusted"] >= known["p_value"] - 1e-12).all()
    # With two groups, each is the rest of the other.
    assert_allclose(
        c.loc["a"].loc[["brier", "auc"], "estimate"], -c.loc["b"].loc[["brier", "auc"], "estimate"]
    )


def test_contrast_of_independent_groups_by_hand(data, report):
    y, p, group = data
    a, b = (cal.brier(y[group == g], p[group == g]) for g in "ab")
    row = report.contrasts.set_index(["group", "term"]).loc[("a", "brier")]
    assert row["std_error"] == pytest.approx(np.hypot(a.std_error, b.std_error))


def test_clusters_across_groups_are_joined(data):
    y, p, group = data
    # Each question is asked in both groups with the same score and outcome: the difference of
    # the Brier scores is known exactly.
    r = cal.calibration_report(
        np.tile(y, 2),
        np.tile(p, 2),
        groups=np.repeat(["x", "z"], y.size),
        cluster=np.tile(np.arange(y.size), 2),
        n_boot=200,
    )
    row = r.contrasts.set_index(["group", "term"]).loc[("x", "brier")]
    assert row["estimate"] == 0.0 and row["std_error"] < 1e-9
    row = r.contrasts.set_index(["group", "term"]).loc[("x", "ece")]
    assert abs(row["estimate"]) < 1e-9 and row["conf_low"] <= 0 <= row["conf_high"]


def test_holm_by_hand():
    p = pd.Series([0.01, 0.04, np.nan, 0.03])
    assert holm(p).tolist()[:2] == [0.03, 0.06]
    assert np.isnan(holm(p)[2]) and holm(p)[3] == 0.06


def test_summary_in_all_formats(report):
    table = report.summary()
    text = str(table)
    for word in ("smooth_ece", "Noise floor", "Group less the rest", "Independence", "900"):
        assert word in text
    for other in (table.to_markdown(), table.to_latex(), table.to_html(), report._repr_html_()):
        assert "brier" in other


def test_json_gives_the_report_back(report, tmp_path):
    path = tmp_path / "report.json"
    report.to_json(path)
    again = cal.CalibrationReport.from_json(path)
    pd.testing.assert_frame_equal(again.estimates, report.estimates)
    pd.testing.assert_frame_equal(again.contrasts, report.contrasts)
    assert str(again.summary()) == str(report.summary())
    assert again.plot.curve().get_xlabel() == "Score"


def test_page_stands_alone(report, tmp_path):
    page = report.to_html(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page
    assert page.count("data:image/png;base64,") == 7
    assert "TRIPOD+AI" in page
    assert not re.findall(r"<script|<link|@import|url\(|(?:src|href)=\"(?!data:)", page)


def test_plots_draw_what_the_frames_say(report):
    ax = report.plot()
    labels = {t.get_text() for t in ax.get_legend().get_texts()}
    assert {"a", "b", "isotonic"} <= labels
    ax = report.plot.curve(groups=False)
    line = next(x for x in ax.get_lines() if x.get_label() == "loess")
    every = report.curve[report.curve["group"] == "all"]
    assert_allclose(line.get_ydata(), every["loess"])
    assert report.plot.decision_curve().get_ylabel() == "Net benefit"
    assert "Brier" in report.plot.decomposition().get_xlabel()
    assert report.plot.groups(term="calibration_slope") is not None
    with pytest.raises(DataError, match="no measure"):
        report.plot.groups(term="x")


def test_bands_hold_a_calibrated_curve():
    rng = np.random.default_rng(1)
    inside = []
    for i in range(20):
        p = rng.uniform(size=500)
        y = rng.uniform(size=500) < p
        c = cal.calibration_report(y, p, n_boot=200, rng=i).curve
        middle = c[(c["p"] > 0.05) & (c["p"] < 0.95)]
        inside.append(
            [
                (
                    (middle["band_low"] <= middle["isotonic"])
                    & (middle["isotonic"] <= middle["band_high"])
                ).mean(),
                ((middle["conf_low"] <= middle["p"]) & (middle["p"] <= middle["conf_high"])).mean(),
            ]
        )
    assert (np.mean(inside, axis=0) > 0.9).all()


def test_small_and_odd_groups_are_flagged_not_dropped(data):
    y, p, _ = data
    group = np.array(["large"] * 894 + ["five"] * 5 + ["one"])
    with pytest.warns(CausalRMWarning, match="Small groups.*five, one"):
        r = cal.calibration_report(y, p, groups=group, n_boot=200)
    assert r.groups["n"].tolist() == [900, 5, 894, 1]
    assert "five" in set(r.to_frame()["group"])
    assert any("one: fewer than two" in text for text in r.diagnostics["missing"])
    assert r.warnings


def test_odd_scores_are_counted():
    y = np.array([0, 1, 1, 0] * 30)
    p = np.tile([0.0, 1.0, 0.0, 0.5], 30)
    w = np.tile([1.0, 1.0, 1.0, 0.0], 30)
    r = cal.calibration_report(y, p, weights=w, n_boot=200)
    d = r.diagnostics
    assert (d["zeros"], d["ones"], d["infinite"], d["zero_weights"]) == (60, 30, 30, 30)
    assert d["clipped"] == 90 and d["distinct"] == 2
    assert any(text.startswith("log_loss: infinite") for text in d["missing"])
    assert "zero" in str(r.summary())


@pytest.mark.parametrize("spread", [0.0, 1e-6])
def test_scores_that_hardly_vary_have_no_slope(spread):
    rng = np.random.default_rng(0)
    p = 0.5 + spread * rng.normal(size=500)
    y = rng.uniform(size=500) < 0.3
    made = cal.calibration_report(y, p, n_boot=100)
    assert np.isnan(made["calibration_slope"]["estimate"])
    assert any(m.startswith("calibration_slope:") for m in made.diagnostics["missing"])
    gap = 0.5 - y.mean()
    assert_allclose(made["ece"]["estimate"], gap, atol=1e-5)
    assert made["mcb"]["estimate"] >= gap**2 - 1e-5
    if spread == 0.0:
        assert made["dsc"]["estimate"] == 0.0
    with pytest.warns(CausalRMWarning, match="slope is not identified"):
        cal.calibration_slope(y, p)


def test_one_class_and_no_simulation():
    p = np.linspace(0, 1, 50)
    r = cal.calibration_report(np.zeros(50), p, n_boot=200)
    assert np.isnan(r["auc"]["estimate"]) and r["ece"]["conf_low"] > 0
    assert len(r.diagnostics["missing"]) >= 3
    quick = cal.calibration_report(np.arange(50) % 2, p, n_boot=0)
    assert np.isnan(quick["ece"]["conf_low"]) and np.isfinite(quick["brier"]["conf_low"])
    assert quick.plot() is not None


def test_same_seed_same_report_and_row_order_does_not_matter(data):
    y, p, group = data
    o = np.random.default_rng(2).permutation(y.size)
    one = cal.calibration_report(y, p, n_boot=200, rng=5).to_frame()
    two = cal.calibration_report(y[o], p[o], n_boot=200, rng=5).to_frame()
    pd.testing.assert_frame_equal(one, two, rtol=1e-7, atol=1e-10)


def test_labels_must_be_told_apart(data):
    y, p, _ = data
    with pytest.raises(DataError, match="none may be 'all'"):
        cal.calibration_report(y, p, groups=["all"] * 900)
    with pytest.raises(DataError, match="groups is missing in 1"):
        cal.calibration_report(y, p, groups=[None] + ["a"] * 899)


def test_replicate_weights_in_a_report(data):
    y, p, group = data
    y, p, group = y[:240], p[:240], group[:240]
    block = np.arange(240) % 20
    replicates = np.column_stack([1 + 0.9 * np.where(block == g, -1, 1 / 19) for g in range(20)])
    r = cal.calibration_report(
        y, p, weights=np.ones(240), replicate_weights=replicates, groups=group, n_boot=200
    )
    assert (r.to_frame().query("term == 'brier'")["std_error"] > 0).all()
    assert (r.contrasts.query("term == 'brier'")["std_error"] > 0).all()
    assert "replicate" in r.assumptions[0].statement


def test_missing_replies_are_counted_and_compared(data):
    y, p, group = data
    lost = np.random.default_rng(6).uniform(size=900) < np.where(y, 0.5, 0.33)
    q = np.where(lost, np.nan, p)
    with pytest.warns(CausalRMWarning, match=r"rows \(\d\d\.\d%\) have no score"):
        r = cal.calibration_report(
            y, q, groups=group, weights=np.ones(900), cluster=np.arange(900), n_boot=200
        )
    facts = r.diagnostics["unscored"]
    assert facts["n"] == lost.sum() and facts["prevalence"] == pytest.approx(y[lost].mean())
    assert r.n_obs == 900 - lost.sum()
    assert r["brier"]["estimate"] == pytest.approx(np.mean((y[~lost] - p[~lost]) ** 2))
    assert "Rows without a score" in str(r.summary())
    with pytest.raises(DataError, match="two rows"):
        cal.calibration_report(y, np.full(900, np.nan))
