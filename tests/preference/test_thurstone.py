"""Thurstone's model with a variance per item: truth, derivatives, and how little is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from scipy import optimize, special

from causalrm import Thurstone
from causalrm.core.errors import DataError, IdentificationError, IdentificationWarning
from causalrm.preference import pair_table as pt
from causalrm.preference.thurstone import _free, _Judgement
from causalrm.preference.votes import Roles, read

ROLES = {"a": "a", "b": "b", "outcome": "y"}
MU = np.array([-1.4, -0.6, 0.0, 0.6, 1.4])
VARIANCE = np.array([0.7, 1.0, 2.0, 0.5, 0.8])  # of mean 1


def probability(mu=MU, variance=VARIANCE):
    i, j = np.triu_indices(len(mu), 1)
    return i, j, special.ndtr((mu[i] - mu[j]) / np.sqrt(variance[i] + variance[j]))


def votes(n, seed=None, mu=MU, variance=VARIANCE):
    """Votes in the exact shares of the model, or drawn."""
    i, j, p = probability(mu, variance)
    won = n * p if seed is None else np.random.default_rng(seed).binomial(n, p)
    frame = pd.DataFrame({"a": i, "b": j, "y": 1, "n": won})
    return pd.concat([frame, frame.assign(y=0, n=n - won)], ignore_index=True)


def test_recovers_the_truth_from_exact_shares():
    with pytest.warns(IdentificationWarning, match="weakly identified"):
        fit = Thurstone().fit(votes(1000), **ROLES, weights="n").result_
    np.testing.assert_allclose(fit.estimates[:5], MU, atol=1e-4)
    np.testing.assert_allclose(fit.estimates[5:], VARIANCE, atol=1e-3)
    i, j, p = probability()
    np.testing.assert_allclose(fit.win_matrix().to_numpy()[i, j], p, atol=1e-6)


def test_derivatives():
    table = pt.pair_table(read(votes(30, 0), Roles(**ROLES, counts="n"), None))
    for fixed in ({}, {1: 0.0}):
        score = _Judgement(table, *_free(5, fixed))
        function = pt.objective(table, score, "probit", score.prior(0.4))
        d = 8 - len(fixed)
        theta, h = 0.2 * np.random.default_rng(0).normal(size=d), 1e-5
        _, gradient, hessian, _ = function(theta)
        for j, e in enumerate(np.eye(d)):
            high, low = function(theta + h * e), function(theta - h * e)
            assert (high[0] - low[0]) / (2 * h) == pytest.approx(gradient[j], rel=1e-5, abs=1e-5)
            slope = (high[1] - low[1]) / (2 * h)
            np.testing.assert_allclose(slope, hessian[j], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fixed", [{}, {2: 0.0}, {0: 1.5, 3: 0.2}])
def test_free_parameters_keep_the_constraints(fixed):
    basis, offset = _free(5, fixed)
    both = offset + basis @ np.random.default_rng(0).normal(size=basis.shape[1])
    assert both[:5].sum() == pytest.approx(0) and both[5:].mean() == pytest.approx(1)
    for i, value in fixed.items():
        assert both[5 + i] == value


def test_equal_variances_are_a_probit_model():
    frame = votes(400, 3, variance=np.ones(5))
    fit = Thurstone(penalty=1e6).fit(frame, **ROLES, counts="n").result_
    design = np.zeros((len(frame), 5))
    rows = np.arange(len(frame))
    design[rows, frame["a"]], design[rows, frame["b"]] = 1, -1

    def loss(mu):
        eta = (design @ mu) / np.sqrt(2)
        return -frame["n"] @ special.log_ndtr(np.where(frame["y"] == 1, eta, -eta))

    best = optimize.minimize(loss, np.zeros(5), tol=1e-10)
    np.testing.assert_allclose(fit.estimates[:5], best.x - best.x.mean(), atol=1e-3)
    assert fit.loglik == pytest.approx(-best.fun, abs=1e-3)


@pytest.mark.filterwarnings("ignore::causalrm.IdentificationWarning")
def test_intervals_cover_where_votes_are_many():
    held, truth = [], np.concatenate([MU, VARIANCE])
    for seed in range(200):
        fit = Thurstone().fit(votes(100_000, seed), **ROLES, counts="n")
        assert not fit.result_.at_zero
        frame = fit.to_frame()
        held.append((frame["conf_low"] <= truth) & (truth <= frame["conf_high"]))
    share = np.mean(held, axis=0)
    assert 0.92 <= share[:5].mean() <= 0.98 and 0.92 <= share[5:].mean() <= 0.98


@pytest.mark.filterwarnings("ignore::causalrm.IdentificationWarning")
def test_equal_variances_are_rejected_as_often_as_the_level_says():
    p = [
        Thurstone().fit(votes(100_000, s, variance=np.ones(5)), **ROLES, counts="n").result_
        .equal_variances_test().p_value
        for s in range(200)
    ]  # fmt: skip
    assert 0.015 <= np.mean(np.array(p) < 0.05) <= 0.09
    fit = Thurstone().fit(votes(20_000, 1), **ROLES, counts="n")
    assert fit.result_.equal_variances_test().p_value < 0.01


def test_a_variance_at_the_end_of_its_range():
    """Few votes from equal variances: the estimate of one is zero, and none has an error."""
    frame = votes(2000, 0, variance=np.ones(5))
    with pytest.warns(IdentificationWarning, match="1 estimated as zero"):
        fit = Thurstone().fit(frame, **ROLES, counts="n")
    result = fit.result_
    assert result.at_zero == ("0",) and result.estimates[5] == 0.0
    assert result.estimates[5:].mean() == pytest.approx(1) and result.estimates[5:].min() == 0
    shown = fit.to_frame()
    assert shown["std_error"].notna().tolist() == [True] * 5 + [False] * 5
    assert fit.predict_proba(frame)["std_error"].gt(0).all()
    # The likelihood falls away from zero: it is the maximum of the profile.
    profile = fit.profile(frame, 0, [0.0, 0.1, 0.5])
    assert profile["drop"][0] == pytest.approx(0, abs=1e-6)
    assert profile["drop"].is_monotonic_increasing
    assert {a.status for a in result.assumptions} == {"untested", "doubtful"}
    regular = Thurstone(penalty=50.0).fit(frame, **ROLES, counts="n").result_
    assert not regular.at_zero and regular.estimates[5:].min() > 0.5


@pytest.mark.filterwarnings("ignore::causalrm.IdentificationWarning")
def test_profile_has_its_top_at_the_estimate():
    frame = votes(50_000, 7)
    fit = Thurstone().fit(frame, **ROLES, counts="n")
    at = fit.to_frame().iloc[7]
    grid = at["estimate"] + at["std_error"] * np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    profile = fit.profile(frame, 2, grid)
    # To second order the drop is half the squared distance in standard errors.
    np.testing.assert_allclose(profile["drop"], [2, 0.5, 0, 0.5, 2], rtol=0.15, atol=1e-6)
    assert len(fit.profile(frame, 2)) == 21
    with pytest.raises(DataError, match="below 5"):
        fit.profile(frame, 2, [5.0])
    with pytest.raises(DataError, match="item of the fit"):
        fit.profile(frame, "x")
    with pytest.raises(DataError, match="items differ"):
        fit.profile(frame[frame["b"] < 4], 2)


def test_what_cannot_be_fitted():
    frame = votes(100, 0)
    with pytest.raises(IdentificationError, match="at least 8 different pairs"):
        Thurstone().fit(frame[frame["a"] == 0], **ROLES, counts="n")
    with pytest.raises(DataError, match="penalty"):
        Thurstone(penalty=-1.0).fit(frame, **ROLES, counts="n")
    always = frame[(frame["y"] == 1) | (frame["a"] > 0)]
    with pytest.raises(IdentificationError, match="0 never lost.*BradleyTerry.penalty"):
        Thurstone().fit(always, **ROLES, counts="n")
    apart = pd.concat([frame, frame.assign(a=frame["a"] + 9, b=frame["b"] + 9)])
    with pytest.raises(IdentificationError, match="2 groups that were never compared"):
        Thurstone(penalty=1.0).fit(apart, **ROLES, counts="n")
    with pytest.raises(DataError, match="at least two clusters"):
        Thurstone(penalty=1.0).fit(frame.assign(r=1), **ROLES, counts="n", cluster="r")
    with pytest.raises(DataError, match="cluster=..."):
        Thurstone(covariance="cluster").fit(frame, **ROLES, counts="n")


def test_contrasts_are_differences_of_means():
    fit = Thurstone(penalty=30.0).fit(votes(1000), **ROLES, weights="n")
    found, v = fit.contrast(3, 1), fit.result_.cov().to_numpy()
    assert found.estimate == pytest.approx(fit.result_.estimates[3] - fit.result_.estimates[1])
    assert found.std_error == pytest.approx(np.sqrt(v[3, 3] + v[1, 1] - 2 * v[1, 3]))
    assert fit.contrast({("mu", "3"): 1.0, ("mu", "1"): -1.0}).estimate == found.estimate
    with pytest.raises(DataError, match="item of the fit"):
        fit.contrast(3, 99)


@pytest.mark.filterwarnings("ignore::causalrm.IdentificationWarning")
def test_clusters_and_plots():
    rng = np.random.default_rng(0)
    i, j, p = probability()
    pick = rng.integers(0, 10, 4000)
    frame = pd.DataFrame({"a": i[pick], "b": j[pick], "rater": rng.integers(0, 50, 4000)})
    frame["y"] = (rng.uniform(size=4000) < p[pick]).astype(float)
    both = Thurstone(penalty=1.0).fit(pd.concat([frame] * 2), **ROLES, cluster="rater").result_
    once = Thurstone(penalty=0.5).fit(frame, **ROLES, cluster="rater").result_
    # The same votes twice under the same raters: no new information.
    np.testing.assert_allclose(both.cov("cluster"), once.cov("cluster"), rtol=1e-4, atol=1e-8)
    assert both.df_resid == 49
    for ax in (once.plot(), once.plot.variance()):
        assert [t.get_text() for t in ax.get_yticklabels()] and ax.get_xlabel()
    plt.close("all")
