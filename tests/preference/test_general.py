"""Preferences that cycle: exact cases, invariances, and the size of the test of transitivity."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from scipy import special

import causalrm as crm
from causalrm import GeneralPreference
from causalrm.core.errors import DataError, IdentificationError
from causalrm.preference import pair_table as pt
from causalrm.preference.general import _transitive
from causalrm.preference.planes import (
    Vectors,
    across,
    anchors_of,
    canonical,
    pair_scores,
    scores_of,
)
from causalrm.preference.votes import Roles, read

ROLES = {"a": "a", "b": "b", "outcome": "y"}


def counted(p, n=1000.0, names="abcdefgh"):
    """Votes of every pair in exactly the shares of a matrix of win probabilities."""
    i, j = np.triu_indices(len(p), 1)
    label = np.array(list(names[: len(p)]))
    won = pd.DataFrame({"a": label[i], "b": label[j], "y": 1, "n": n * p[i, j]})
    return pd.concat([won, won.assign(y=0, n=n * p[j, i])], ignore_index=True)


def drawn(k, per, seed, spread=0.7, ties=0.0, raters=0, sd=0.0):
    """Simulated votes of Bradley-Terry, with ties, or with raters who differ in taste."""
    rng = np.random.default_rng(seed)
    theta = spread * rng.normal(size=k)
    i, j = np.triu_indices(k, 1)
    a, b = np.repeat(i, per), np.repeat(j, per)
    rater = rng.integers(0, max(raters, 1), len(a))
    taste = sd * rng.normal(size=(max(raters, 1), k))
    p = special.expit(theta[a] - theta[b] + taste[rater, a] - taste[rater, b])
    u, tie = rng.uniform(size=len(a)), 2 * ties * np.minimum(p, 1 - p)
    y = np.where(u < p - tie / 2, 1.0, np.where(u < p + tie / 2, 0.5, 0.0))
    frame = pd.DataFrame({"a": a, "b": b, "y": y})
    return frame.assign(rater=rater) if raters else frame


# ------------------------------------------------------------------ exact cases


@pytest.mark.parametrize("margin", [1e-3, 0.1, 1.0, 6.0])
def test_rock_paper_scissors_at_any_margin(margin):
    s = margin * np.array([[0, 1, -1], [-1, 0, 1], [1, -1, 0.0]])
    fit = GeneralPreference().fit(counted(special.expit(s)), **ROLES, weights="n").result_
    np.testing.assert_allclose(fit.scores(), s, atol=1e-5 * max(1, margin**2))
    assert fit.singular_values[0] == pytest.approx(margin * np.sqrt(3), rel=1e-4)
    assert fit.n_params == 3


def test_a_transitive_matrix_is_bradley_terry():
    theta = np.array([1.0, 0.4, -0.2, -1.2])
    theta -= theta.mean()
    p = special.expit(theta[:, None] - theta[None, :])
    fit = GeneralPreference().fit(counted(p), **ROLES, weights="n").result_
    np.testing.assert_allclose(fit.win_matrix().fillna(0.5), p, atol=1e-6)
    assert fit.loglik == pytest.approx(fit.loglik_transitive, abs=1e-4)
    plane = fit.decomposition()
    # In normal form y is constant and x is proportional to the strengths.
    assert plane["y"].std() < 1e-4 and np.corrcoef(plane["x"], theta)[0, 1] > 1 - 1e-8
    assert fit.transitivity_test().p_value > 0.9


def test_rank_four_fits_four_items_exactly():
    rng = np.random.default_rng(1)
    half = rng.normal(size=(4, 4))
    s = half - half.T
    fit = GeneralPreference(rank=4).fit(counted(special.expit(s)), **ROLES, weights="n").result_
    np.testing.assert_allclose(fit.scores(), s, atol=1e-4)
    values = np.linalg.svd(s, compute_uv=False)[::2]
    np.testing.assert_allclose(fit.singular_values, values, rtol=1e-4)
    assert fit.n_params == 6


# ------------------------------------------------------------------ geometry


@given(st.integers(0, 10_000), st.sampled_from([(3, 2), (6, 2), (5, 4)]))
@settings(max_examples=30, deadline=None)
def test_normal_form_keeps_the_scores(seed, shape):
    rng = np.random.default_rng(seed)
    v = rng.normal(size=shape)
    normal = canonical(v)
    np.testing.assert_allclose(scores_of(normal), scores_of(v), atol=1e-9)
    # Any linear map that keeps the scores leads to the same normal form.
    plane = np.linalg.qr(rng.normal(size=(2, 2)))[0] @ np.diag([2.0, 0.5])
    plane[:, 0] *= np.sign(np.linalg.det(plane))
    moved = v.copy()
    moved[:, :2] = v[:, :2] @ plane
    np.testing.assert_allclose(canonical(moved, anchors_of(normal)), normal, atol=1e-7)
    x, y = normal[:, 0::2], normal[:, 1::2]
    assert np.abs((x * y).sum(axis=0)).max() < 1e-8
    np.testing.assert_allclose((x**2).sum(axis=0), (y**2).sum(axis=0))


def test_scores_and_derivatives():
    rng = np.random.default_rng(2)
    frame = drawn(5, 6, 3, ties=0.3)
    table = pt.pair_table(read(frame, Roles(**ROLES), None))
    v = rng.normal(size=(5, 4))
    local = Vectors(table, 4, v, across(v))
    function = pt.objective(table, local, "logit", local.prior(0.3))
    u, h = 0.3 * rng.normal(size=20 - 10), 1e-5
    _, score, hessian, _ = function(u)
    for j, e in enumerate(np.eye(10)):
        high, low = function(u + h * e), function(u - h * e)
        assert (high[0] - low[0]) / (2 * h) == pytest.approx(score[j], abs=1e-6)
        np.testing.assert_allclose((high[1] - low[1]) / (2 * h), hessian[j], atol=1e-6)
    eta, _ = pair_scores(v, np.array([0, 3]), np.array([1, 2]))
    np.testing.assert_allclose(eta, scores_of(v)[[0, 3], [1, 2]])
    full = pair_scores(v, table.first, table.second)[1]
    assert np.linalg.matrix_rank(full) == 10  # 4 * 5 less 10 moves that change nothing


# ------------------------------------------------------------------ inference


def test_standard_errors_of_a_saturated_fit_are_binomial():
    s = np.array([[0, 1.2, -0.7], [-1.2, 0, 0.4], [0.7, -0.4, 0]])
    frame = counted(special.expit(s), n=400.0).assign(n=lambda f: f["n"].round().astype(int))
    fit = GeneralPreference().fit(frame, **ROLES, counts="n")
    wins = frame.pivot_table(index=["a", "b"], columns="y", values="n")
    p = (wins[1] / 400).to_numpy()
    found = fit.predict_proba(frame.iloc[:3])
    np.testing.assert_allclose(found["estimate"], p, atol=1e-8)
    np.testing.assert_allclose(found["std_error"], np.sqrt(p * (1 - p) / 400), rtol=1e-4)
    back = frame.iloc[:3].rename(columns={"a": "b", "b": "a"})
    np.testing.assert_allclose(fit.predict_proba(back)["estimate"], 1 - p, atol=1e-8)
    fit.result_ = fit.result_.with_covariance("model")
    np.testing.assert_allclose(fit.predict_proba(back)["std_error"], found["std_error"], rtol=1e-4)


def test_intervals_of_win_probabilities_cover():
    truth = scores_of(np.array([[0.9, 0.5], [-0.4, 1.0], [-0.8, -0.6], [0.5, -0.9], [0.2, 0.9]]))
    i, j = np.triu_indices(5, 1)
    rng = np.random.default_rng(6)
    held = []
    for _ in range(150):
        wins = rng.binomial(60, special.expit(truth[i, j]))
        won = pd.DataFrame({"a": i, "b": j, "y": 1, "n": wins})
        votes = pd.concat([won, won.assign(y=0, n=60 - wins)])
        fit = GeneralPreference(n_starts=1, draws=9).fit(votes, **ROLES, counts="n")
        p = fit.predict_proba(won)
        held.append((p["conf_low"] <= special.expit(truth[i, j]))
                    & (special.expit(truth[i, j]) <= p["conf_high"]))  # fmt: skip
    assert 0.93 <= np.mean(held) <= 0.97


# Share of p-values below 5 %, over 300 data sets of each kind. Chi-squared with as many degrees
# of freedom as pairs beyond the strengths holds in the first row only.
SIZES = [
    ({"k": 5, "per": 30}, (0.02, 0.09)),
    ({"k": 5, "per": 30, "spread": 0.0}, (0.02, 0.09)),
    ({"k": 8, "per": 30, "ties": 0.6}, (0.02, 0.09)),
    ({"k": 6, "per": 60, "raters": 60, "sd": 1.0}, (0.02, 0.10)),
    ({"k": 15, "per": 4}, (0.0, 0.09)),
]


def rejected(reps, **options):
    p = []
    for seed in range(reps):
        frame = drawn(seed=seed, **options)
        roles = Roles(**ROLES, cluster="rater" if "rater" in frame else None)
        table = pt.pair_table(read(frame, roles, None))
        test = _transitive(table, 199, np.random.default_rng(seed))[2]
        p.append((test["p_value"], test["deviance_p"]))
    return (np.array(p) <= 0.05).mean(axis=0)


@pytest.mark.parametrize(("options", "bounds"), SIZES, ids=str)
def test_size_of_the_test_of_transitivity(options, bounds):
    share, by_deviance = rejected(300, **options)
    assert bounds[0] <= share <= bounds[1]
    if options.get("ties"):
        assert by_deviance == 0.0  # ties vary less than coins
    if options["k"] == 15:
        assert by_deviance > 0.2  # four votes a pair are too few for chi-squared


def test_power_against_a_cycle():
    s = 0.5 * np.array([[0, 1, -1], [-1, 0, 1], [1, -1, 0.0]])
    frame = counted(special.expit(s), n=300.0).assign(n=lambda f: f["n"].round().astype(int))
    fit = GeneralPreference().fit(frame, **ROLES, counts="n")
    test = fit.result_.transitivity_test()
    assert test.p_value < 0.01 and test.df == 1
    # Strengths are equal; three pairs of 300 votes with 187 wins, against a variance of 1/4.
    assert test.statistic == pytest.approx(3 * (187 - 150) ** 2 / (300 / 4), rel=1e-4)


# ------------------------------------------------------------------ input and output


def test_what_cannot_be_fitted():
    frame = drawn(6, 20, 0)
    with pytest.raises(DataError, match="even rank from 2 to the number of items"):
        GeneralPreference(rank=3).fit(frame, **ROLES)
    with pytest.raises(DataError, match="penalty"):
        GeneralPreference(penalty=-1).fit(frame, **ROLES)
    with pytest.raises(DataError, match="penalty.*'none'"):
        GeneralPreference(penalty="none").fit(frame, **ROLES)
    with pytest.raises(DataError, match="at least two clusters"):
        GeneralPreference().fit(frame.assign(r=1), **ROLES, cluster="r")
    few = frame[(frame["a"] == 0) | (frame["b"] == 0)]
    with pytest.raises(IdentificationError, match="at least 9 different pairs.*have 5"):
        GeneralPreference().fit(few, **ROLES)
    always = frame.assign(y=frame["y"].where(frame["a"] > 0, 1.0))
    with pytest.raises(IdentificationError, match="run to infinity .*0 / 1.*penalty"):
        GeneralPreference(n_starts=1).fit(always, **ROLES)
    fit = GeneralPreference(penalty=1.0, n_starts=1).fit(always, **ROLES)
    assert np.abs(fit.result_.scores().to_numpy()).max() < 14
    assert GeneralPreference(penalty=1.0).fit(few, **ROLES).result_.diagnostics["converged"]
    with pytest.raises(DataError, match="items of the fit"):
        fit.predict_proba(frame.assign(b=99))


def test_planes_are_drawn(tmp_path):
    s = np.array([[0, 1, -1], [-1, 0, 1], [1, -1, 0.0]])
    fit = GeneralPreference().fit(counted(special.expit(s)), **ROLES, weights="n")
    ax = fit.plot.plane(1)
    assert {t.get_text() for t in ax.texts} == {"a", "b", "c"}
    with pytest.raises(DataError, match="plane from 1 to 1"):
        fit.plot.plane(2)
    restored = crm.Result.from_json(fit.result_.to_json(tmp_path / "fit.json"))
    pd.testing.assert_frame_equal(restored.win_matrix(), fit.result_.win_matrix())
    plt.close("all")
