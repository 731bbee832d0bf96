"""Paired comparisons: t tests, DeLong, and samples that the scores share."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from scipy.special import expit, logit

import causalrm.calibration as cal
from causalrm.calibration import _kernels as k
from causalrm.calibration import _kernels_rank as rank
from causalrm.core.errors import DataError


def sample(n=400, seed=0):
    rng = np.random.default_rng(seed)
    q = rng.beta(1.5, 2, n)
    y = rng.uniform(size=n) < q
    noisy = expit(logit(q) + 0.5 * rng.normal(size=n))
    return y, q, expit(1.8 * logit(q)), noisy


def test_brier_and_log_loss_are_paired_t_tests():
    y, q, sharp, _ = sample()
    found = cal.compare(y, {"q": q, "sharp": sharp}, n_boot=200).to_frame().set_index("term")
    loss = [(v - y) ** 2 for v in (q, sharp)]
    t = stats.ttest_rel(loss[1], loss[0])
    assert found.loc["brier", "statistic"] == pytest.approx(t.statistic)
    assert found.loc["brier", "p_value"] == pytest.approx(t.pvalue)
    interval = t.confidence_interval()
    assert_allclose(found.loc["brier", ["conf_low", "conf_high"]].astype(float), interval)
    loss = [-np.log(np.where(y, v, 1 - v)) for v in (q, sharp)]
    t = stats.ttest_rel(loss[1], loss[0])
    assert found.loc["log_loss", "statistic"] == pytest.approx(t.statistic)


def test_auc_is_delongs_test():
    y, q, _, noisy = sample()
    found = cal.compare(y, {"q": q, "noisy": noisy}, n_boot=200).to_frame().set_index("term")
    psi = [rank.auc_influence(y.astype(float), v)[1] for v in (q, noisy)]
    error = np.sqrt(k.covariance(psi[1] - psi[0])[0, 0])
    assert found.loc["auc", "std_error"] == pytest.approx(error, rel=2e-3)
    assert found.loc["auc", "estimate"] < 0


def test_the_verdict_names_what_drives_the_gap():
    y, q, sharp, noisy = sample(3000, 1)
    found = cal.compare(y, {"q": q, "sharp": sharp, "noisy": noisy}, n_boot=200)
    drives = found.diagnostics["drives"]
    assert drives["sharp - q"].endswith("calibration (MCB)")
    assert drives["noisy - q"].endswith("discrimination (DSC)")
    frame = found.to_frame().set_index(["group", "term"])
    assert frame.loc[("sharp - q", "mcb"), "conf_low"] > 0
    assert frame.loc[("sharp - q", "ece"), "conf_low"] > 0
    assert abs(frame.loc[("sharp - q", "auc"), "estimate"]) < 1e-12
    assert (frame["p_adjusted"] >= frame["p_value"] - 1e-12)[frame["p_value"].notna()].all()
    text = str(found.summary())
    assert "driven by" in text and "sharp - q" in text
    assert found.plot() is not None


def test_a_score_does_not_differ_from_itself():
    y, q, *_ = sample()
    frame = cal.compare(y, {"a": q, "b": q}, n_boot=200).to_frame().set_index("term")
    assert (frame["estimate"].abs() < 1e-12).all()
    assert (frame["conf_low"] <= 0).all() and (frame["conf_high"] >= 0).all()
    assert frame.loc["brier", "conf_high"] == 0.0


def test_repeated_rows_need_their_cluster():
    y, q, sharp, _ = sample()
    one = cal.compare(y, {"q": q, "s": sharp}, n_boot=200).to_frame().set_index("term")
    args = (np.repeat(y, 4), {"q": np.repeat(q, 4), "s": np.repeat(sharp, 4)})
    four = cal.compare(*args, cluster=np.repeat(np.arange(y.size), 4), n_boot=200)
    four = four.to_frame().set_index("term")
    assert four.loc["brier", "std_error"] == pytest.approx(one.loc["brier", "std_error"], rel=1e-6)
    naive = cal.compare(*args, n_boot=200).to_frame().set_index("term")
    assert naive.loc["brier", "std_error"] < 0.6 * one.loc["brier", "std_error"]


def test_json_level_and_bad_input():
    y, q, sharp, _ = sample()
    found = cal.compare(y, {"q": q, "s": sharp}, n_boot=200, level=0.9)
    again = cal.Comparison.from_json(found.to_json())
    assert str(again.summary()) == str(found.summary())
    with pytest.raises(DataError, match="level 0.9"):
        found.to_frame(0.95)
    with pytest.raises(DataError, match="at least two"):
        cal.compare(y, {"q": q})
    with pytest.raises(DataError, match="Score 's'"):
        cal.compare(y, {"q": q, "s": q * 3})


def test_coverage_of_differences():
    # Simulated; two calibrated scores of which one is coarser, and one that is overconfident.
    grid = np.random.default_rng(9).beta(1.5, 2, 400_000)
    sharp = expit(1.4 * logit(grid))
    bins = np.bincount((sharp * 10).astype(int), grid - sharp) / grid.size
    truth = {"brier": ((sharp - grid) ** 2).mean(), "ece": np.abs(bins).sum()}
    hits = dict.fromkeys(truth, 0)
    for i in range(60):
        y, q, *_ = sample(300, 100 + i)
        found = cal.compare(y, {"q": q, "s": expit(1.4 * logit(q))}, n_boot=200, rng=i)
        frame = found.to_frame().set_index("term")
        for term, value in truth.items():
            hits[term] += frame.loc[term, "conf_low"] <= value <= frame.loc[term, "conf_high"]
    assert min(hits.values()) >= 52, hits
