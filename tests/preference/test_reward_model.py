"""Reward heads against independent software, and what the options mean."""

from __future__ import annotations

import pickle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import polars as pl
import pytest
import statsmodels.api as sm
from scipy import optimize, sparse, special
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

import causalrm as crm
from causalrm import PreferenceRewardModel
from causalrm.core.errors import DataError, IdentificationError, IdentificationWarning

LOSSES = ["bt", "margin", "scaled", "regression"]
BETA = np.array([1.0, -0.5, 0.3, 0.0])


def pairs(n=800, ties=0.0, seed=0, beta=BETA):
    """Simulated pairs: features of both answers, outcome, strength and cluster."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n, len(beta)))
    y = (rng.uniform(size=n) < special.expit((a - b) @ beta)).astype(float)
    y[rng.uniform(size=n) < ties] = 0.5
    return a, b, y, rng.integers(1, 4, n).astype(float), rng.integers(0, 60, n)


def fit(loss="bt", data=None, rows=slice(None), cluster=False, weights=None, **options):
    a, b, y, m, c = pairs(ties=0.2) if data is None else data
    a, b, y, m, c = a[rows], b[rows], y[rows], m[rows], c[rows]
    model = PreferenceRewardModel(loss, **options)
    m = None if loss == "bt" else m
    return model.fit(a, b, y, strength=m, weights=weights, cluster=c if cluster else None)


# ------------------------------------------------------------------ against others


def test_is_logistic_regression_on_differences():
    a, b, y, _, _ = pairs()
    peer = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-12, max_iter=1000)
    peer = peer.fit(a - b, y)
    found = fit(data=pairs()).result_
    np.testing.assert_allclose(found.estimates, peer.coef_[0], atol=1e-6)
    # scikit-learn's C is one over a ridge on the scale of the summed log-likelihood.
    peer = LogisticRegression(C=1 / 7.0, fit_intercept=False, tol=1e-12, max_iter=1000)
    ridge = fit(data=pairs(), penalty=7.0).result_.estimates
    np.testing.assert_allclose(ridge, peer.fit(a - b, y).coef_[0], atol=1e-6)


def test_sandwich_of_statsmodels():
    a, b, y, _, c = pairs()
    peer = sm.Logit(y, a - b).fit(disp=0, tol=1e-12)
    found = fit(data=pairs(), cluster=True).result_
    assert found.loglik == pytest.approx(peer.llf, abs=1e-8)
    np.testing.assert_allclose(found.cov("model"), peer.cov_params(), rtol=1e-6)
    robust = sm.Logit(y, a - b).fit(disp=0, tol=1e-12, cov_type="HC0").cov_params()
    np.testing.assert_allclose(found.cov("robust"), robust, rtol=1e-6)
    options = {"groups": c, "use_correction": False}
    peer = sm.Logit(y, a - b).fit(disp=0, tol=1e-12, cov_type="cluster", cov_kwds=options)
    np.testing.assert_allclose(found.cov("cluster"), 60 / 59 * peer.cov_params(), rtol=1e-6)
    assert found.covariance == "cluster" and found.df_resid == 59


def test_regression_is_least_squares():
    a, b, y, m, c = pairs(ties=0.2)
    target = (2 * y - 1) * m
    found = fit("regression", cluster=True).result_
    peer = sm.OLS(target, a - b).fit()
    np.testing.assert_allclose(found.estimates, peer.params, rtol=1e-9)
    assert found.loglik == pytest.approx(peer.llf, abs=1e-8)
    np.testing.assert_allclose(found.cov("model"), peer.cov_params(), rtol=1e-9)
    np.testing.assert_allclose(found.cov("robust"), peer.get_robustcov_results("HC1").cov_params())
    options = {"groups": c, "use_correction": False}
    peer = sm.OLS(target, a - b).fit(cov_type="cluster", cov_kwds=options)
    np.testing.assert_allclose(found.cov("cluster"), 60 / 59 * peer.cov_params(), rtol=1e-9)


@pytest.mark.parametrize("loss", ["bt", "margin", "scaled"])
def test_losses_as_they_are_written(loss):
    a, b, y, m, _ = pairs(ties=0.2)
    d = a - b
    log_s = special.log_expit

    def written(beta, tie_weight=0.7):
        eta = d @ beta
        up = {"bt": log_s(eta), "margin": log_s(eta - m), "scaled": m * log_s(eta)}[loss]
        down = {"bt": log_s(-eta), "margin": log_s(-eta - m), "scaled": m * log_s(-eta)}[loss]
        tie = tie_weight * 0.5 * (log_s(eta) + log_s(-eta))
        return -np.where(y == 1, up, np.where(y == 0, down, tie)).sum()

    best = optimize.minimize(written, np.zeros(4), method="BFGS", options={"gtol": 1e-6})
    found = fit(loss, tie_weight=0.7)
    assert -found.result_.loglik == pytest.approx(best.fun, abs=1e-7)
    np.testing.assert_allclose(found.result_.estimates, best.x, atol=1e-5)
    assert found.result_.diagnostics["n_ties"] == np.count_nonzero(y == 0.5)


# ------------------------------------------------------------------ weights, ties, penalties


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("penalty", [None, 2.0])
def test_integer_weights_are_repeated_rows(loss, penalty):
    times = np.random.default_rng(3).integers(0, 4, 800)
    weighted = fit(loss, weights=times, penalty=penalty).result_
    repeated = fit(loss, rows=np.repeat(np.arange(800), times), penalty=penalty).result_
    np.testing.assert_allclose(weighted.estimates, repeated.estimates, atol=1e-7)
    assert weighted.loglik == pytest.approx(repeated.loglik, abs=1e-7)
    if loss != "regression":  # whose residual variance counts rows
        np.testing.assert_allclose(weighted.cov("model"), repeated.cov("model"), rtol=1e-6)
    assert weighted.diagnostics["n_without_weight"] == np.count_nonzero(times == 0)


@pytest.mark.parametrize("loss", LOSSES)
def test_tie_weight_zero_leaves_ties_out(loss):
    ordered = pairs(ties=0.2)[2] != 0.5
    without = fit(loss, tie_weight=0.0, cluster=True).result_
    removed = fit(loss, rows=ordered, cluster=True).result_
    np.testing.assert_array_equal(without.estimates, removed.estimates)
    for kind in ("model", "robust", "cluster"):
        np.testing.assert_allclose(without.covariances[kind], removed.covariances[kind], rtol=1e-9)
    assert without.n_obs == removed.n_obs == ordered.sum()


def test_ties_shrink_scores_and_a_temperature_mends_that():
    train, held_out = pairs(6000), pairs(6000, seed=1)
    a, b, y, _, _ = train
    y = np.where(np.arange(6000) % 2, 0.5, y)  # ties that have nothing to do with the answers
    model = PreferenceRewardModel().fit(a, b, y)
    assert model.result_.estimates[0] < 0.6
    before = model.predict_proba(*held_out[:2])
    model.refit_temperature(*held_out[:3])
    t = model.result_
    # The true coefficient is 1: divided by the temperature, scores are log-odds again.
    assert t.estimates[0] / t.temperature == pytest.approx(1.0, abs=0.06)
    assert 0 < t.temperature_std_error < 0.03
    after = model.predict_proba(*held_out[:2])
    y = held_out[2]
    assert np.mean((after - y) ** 2) < np.mean((before - y) ** 2)
    scores = model.reward(held_out[0]) - model.reward(held_out[1])
    peer = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-12)
    slope = peer.fit(scores[:, None], y).coef_[0, 0]
    assert t.temperature == pytest.approx(1 / slope, rel=1e-5)
    np.testing.assert_array_equal(after, special.expit(scores / t.temperature))
    restored = crm.Result.from_json(t.to_json())
    assert restored.temperature == t.temperature


def test_sparse_features_give_the_same_fit():
    data = pairs(ties=0.2)
    a, b = (sparse.csr_array(x) for x in data[:2])
    for loss in LOSSES:
        dense = fit(loss, cluster=True).result_
        thin = fit(loss, (a, b, *data[2:]), cluster=True).result_
        np.testing.assert_allclose(thin.estimates, dense.estimates, atol=1e-10)
        for kind, matrix in dense.covariances.items():
            np.testing.assert_allclose(thin.covariances[kind], matrix, rtol=1e-6, atol=1e-12)


def test_many_penalised_features_reach_the_same_maximum():
    rng = np.random.default_rng(5)
    n, p = 300, 2100
    a, b = (sparse.random_array((n, p), density=0.02, rng=rng, format="csr") for _ in range(2))
    y = (rng.uniform(size=n) < 0.5).astype(float)
    found = PreferenceRewardModel(penalty=0.5).fit(a, b, y).result_
    d = (a - b).toarray()
    score = d.T @ (y - special.expit(d @ found.estimates)) - 0.5 * found.estimates
    assert np.abs(score).max() < 1e-5
    assert found.covariance == "none" and np.isnan(found.std_error).all()
    assert "too many features" in str(found.summary())
    assert crm.Result.from_json(found.to_json()).to_json() == found.to_json()


# ------------------------------------------------------------------ identification


def test_separated_outcomes_are_refused_with_a_remedy():
    a, b, _, m, c = pairs(200)
    y = (a[:, 0] > b[:, 0]).astype(float)
    for loss in ("bt", "margin", "scaled"):
        with pytest.raises(IdentificationError, match=r"x0 separates.*penalty=1\.0"):
            fit(loss, (a, b, y, m, c))
    quasi = y.copy()
    a[:50, 0] = b[:50, 0]  # in these pairs x0 says nothing
    quasi[:50] = np.arange(50) % 2
    with pytest.raises(IdentificationError, match="x0 separates"):
        fit(data=(a, b, quasi, m, c))
    firth = fit(data=(a, b, quasi, m, c), penalty="firth").result_
    assert 1 < firth.estimates[0] < 200 and np.isfinite(firth.std_error).all()
    assert np.isfinite(fit(data=(a, b, quasi, m, c), penalty=1.0).result_.estimates).all()


def test_a_rare_feature_with_strong_effect_is_not_separation():
    rng = np.random.default_rng(0)
    n = 20_000
    x = np.column_stack([rng.normal(size=n) * 4, rng.uniform(size=n) < 0.01])
    y = (rng.uniform(size=n) < special.expit(x @ [1.5, 2.0])).astype(float)
    found = PreferenceRewardModel().fit(x, 0 * x, y).result_
    assert abs(found.estimates[1] - 2) < 3 * found.std_error[1]


def test_firth_of_a_symmetric_table_is_half_a_win_more():
    # One binary feature: Jeffreys' prior adds half a win and half a loss (Firth 1993, sec. 3).
    x = np.ones((10, 1))
    for wins in (10, 7):
        y = (np.arange(10) < wins).astype(float)
        found = PreferenceRewardModel(penalty="firth").fit(x, 0 * x, y).result_
        assert found.estimates[0] == pytest.approx(np.log((wins + 0.5) / (10.5 - wins)), abs=1e-5)


def test_more_features_than_pairs_need_a_penalty():
    a, b, y, _, _ = pairs(20, beta=np.zeros(30))
    with pytest.raises(IdentificationError, match="of 30 features and 20 pairs.*dependent: x"):
        PreferenceRewardModel().fit(a, b, y)
    assert PreferenceRewardModel(penalty=0.1).fit(a, b, y).result_.n_params == 30
    a[:, 3] = a[:, 1] + a[:, 2]
    b[:, 3] = b[:, 1] + b[:, 2]
    with pytest.raises(IdentificationError, match="dependent: x1, x2, x3"):
        PreferenceRewardModel().fit(a[:, :5], b[:, :5], y)
    a[:, 0] = b[:, 0]
    with pytest.raises(IdentificationError, match="x0 is the same in both answers"):
        PreferenceRewardModel().fit(a[:, :3], b[:, :3], y)
    part = np.array([0.0, 0, 1, 1, 0])  # only what is free must be identified
    assert PreferenceRewardModel(penalty=part + [1, 0, 0, 0, 0]).fit(a[:, :5], b[:, :5], y)


# ------------------------------------------------------------------ input and output


def test_frames_name_the_terms_and_check_them():
    a, b, y, _, _ = pairs()
    names = ["fact", "style", "length", "tone"]
    fa, fb = pd.DataFrame(a, columns=names), pd.DataFrame(b, columns=names)
    model = PreferenceRewardModel().fit(fa, fb[names[::-1]], y)
    assert model.result_.term == tuple(names) and set(model.result_.parameter) == {"reward"}
    arrays = PreferenceRewardModel().fit(a, b, y, feature_names=names)
    np.testing.assert_array_equal(arrays.result_.estimates, model.result_.estimates)
    np.testing.assert_array_equal(model.reward(fa), model.reward(pl.from_pandas(fa)))
    np.testing.assert_allclose(model.reward(fa), a @ model.result_.estimates)
    with pytest.raises(DataError, match="'tone'"):
        model.reward(fa[names[:3]])
    with pytest.raises(DataError, match="'tone'"):
        model.fit(fa.assign(tone="warm"), fb, y)
    with pytest.raises(DataError, match="1 missing value.*'style'|'style'"):
        model.fit(fa.assign(style=fa["style"].where(fa.index != 3)), fb, y)


def test_columns_may_have_numbers_as_names():
    a, b, y, _, _ = pairs()
    model = PreferenceRewardModel().fit(pd.DataFrame(a), pd.DataFrame(b), y)
    assert model.result_.term == ("0", "1", "2", "3")
    np.testing.assert_allclose(model.reward(pd.DataFrame(a)), a @ model.result_.estimates)


def test_nothing_but_ties_is_said():
    a, b, _, _, _ = pairs(50)
    with pytest.warns(IdentificationWarning, match="All 50 pairs are ties"):
        PreferenceRewardModel().fit(a, b, np.full(50, 0.5))


def test_coefficients_are_drawn():
    a, b, y, _, _ = pairs()
    fit = PreferenceRewardModel().fit(a, b, y)
    assert [t.get_text() for t in fit.plot().get_yticklabels()] == ["x0", "x1", "x2", "x3"]
    largest = int(np.argmax(np.abs(fit.result_.estimates)))
    ax = fit.plot(level=0.9, top=1)
    assert [t.get_text() for t in ax.get_yticklabels()] == [f"x{largest}"]
    assert "90" in ax.get_xlabel()
    plt.close("all")


def test_bad_input():
    a, b, y, m, c = pairs(50)

    def refused(message, *data, loss="bt", options=None, **roles):
        with pytest.raises(DataError, match=message):
            PreferenceRewardModel(loss, **(options or {})).fit(*data, **roles)

    gap = a.copy()
    gap[[4, 7], 0] = np.nan
    refused(r"2 of 50 rows of X_a.*first rows: 4, 7", gap, b, y)
    refused(r"2 of 50 rows of X_b", a, sparse.csr_array(gap), y)
    refused("Expected 4 features in X_b, but saw 3", a, b[:, :3], y)
    refused("saw 50 and 49", a, b[:49], y)
    refused("shape", a[:, 0], b[:, 0], y)
    refused("numeric features", a.astype(str).astype(object) + "x", b, y)
    refused(r"outcome within \[0, 1\].*1 of 50.*first rows: 0", a, b, np.append(1.2, y[1:]))
    refused("outcome of shape", a, b, y[:-1])
    refused("numbers as outcome", a, b, ["win"] * 50)
    refused(r"weights within", a, b, y, weights=np.append(-1, y[1:]))
    refused("weight above 0", a, b, y, weights=0 * y)
    refused("strength", a, b, y, loss="margin")
    refused("does not use", a, b, y, strength=m)
    refused("cluster=", a, b, y, options={"covariance": "cluster"})
    refused("are missing", a, b, y, cluster=np.array([None, *c[1:]], dtype=object))
    refused("two clusters", a, b, y, cluster=np.zeros(50))
    refused("loss to be one of", a, b, y, loss="hinge")
    refused("tie_weight", a, b, y, options={"tie_weight": -1})
    refused("penalty", a, b, y, options={"penalty": -1.0})
    refused("penalty", a, b, y, options={"penalty": "lasso"})
    refused("head", a, b, y, options={"head": "tree"})
    with pytest.warns(crm.CausalRMWarning, match="1 of 50 pairs are ordered"):
        found = PreferenceRewardModel().fit(a, np.where(np.arange(50)[:, None] == 3, a, b), y)
    assert found.result_.diagnostics["n_identical"] == 1 and found.result_.warnings


def test_unfitted_clone_pickle_and_json():
    model = PreferenceRewardModel("scaled", penalty=np.array([1.0, 1, 1, 1]))
    with pytest.raises(crm.CausalRMError, match="call fit first"):
        model.reward(np.ones((1, 4)))
    assert repr(clone(model)) == repr(model)
    data = pairs(ties=0.1)
    a, b, y, m, c = data
    model.fit(a, b, y, strength=m, cluster=c)
    for again in (
        pickle.loads(pickle.dumps(model)),
        crm.Estimator.from_result(crm.Result.from_json(model.result_.to_json())),
    ):
        pd.testing.assert_frame_equal(again.to_frame(), model.to_frame(), check_exact=True)
        np.testing.assert_array_equal(again.predict_proba(a, b), model.predict_proba(a, b))
        assert str(again.summary()) == str(model.summary())
    assert model.contrast({"x0": 1, "x1": -1}).estimate > 1
    assert {a.name for a in model.result_.assumptions} >= {"One reward", "Ties"}


def test_scores_without_order_have_no_temperature():
    a, b, y, _, _ = pairs()
    model = PreferenceRewardModel().fit(a, b, y)
    with pytest.raises(IdentificationError, match="better than chance"):
        model.refit_temperature(a, b, 1 - y)


# ------------------------------------------------------------------ truth


def coverage(reps, seed):
    """Share of 95 % intervals that hold the truth: naive and clustered, effects shared within."""
    rng = np.random.default_rng(seed)
    held = np.zeros(2)
    for _ in range(reps):
        g, size = 80, 15
        topic = np.repeat(rng.normal(size=(g, 2)), size, axis=0)  # features alike within a query
        d = 0.7 * rng.normal(size=(g * size, 2)) + topic
        rater = np.repeat(rng.normal(size=g), size)
        # A shared error: the marginal model stays logistic to good approximation.
        eta = d @ [0.5, 0.0] + rater * topic[:, 1]
        y = (rng.uniform(size=len(eta)) < special.expit(eta)).astype(float)
        model = PreferenceRewardModel().fit(d, 0 * d, y, cluster=np.repeat(np.arange(g), size))
        for i, kind in enumerate(("robust", "cluster")):
            row = model.result_.with_covariance(kind).to_frame().iloc[1]
            held[i] += row["conf_low"] <= 0.0 <= row["conf_high"]  # zero by symmetry
    return held / reps


def test_clustered_intervals_cover_and_naive_ones_do_not():
    naive, clustered = coverage(300, 0)
    assert naive < 0.75
    assert 0.91 <= clustered <= 0.98


@pytest.mark.slow
def test_clustered_intervals_cover_in_a_long_study():
    naive, clustered = coverage(4000, 1)
    assert naive < 0.75 and 0.93 <= clustered <= 0.97
