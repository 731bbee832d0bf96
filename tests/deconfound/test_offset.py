"""Rewards by offsets: against scikit-learn, closed forms, coverage, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import special
from sklearn.linear_model import LogisticRegression, PoissonRegressor

from causalrm.core.errors import (
    ConvergenceError,
    DataError,
    IdentificationError,
    IdentificationWarning,
)
from causalrm.core.result import Result
from causalrm.datasets import make_logged_rewards
from causalrm.deconfound import offset_reward

FEATURES = ["quality", "style"]
ROLES: dict[str, Any] = {"outcome": "y", "text": FEATURES, "confounders": ["popularity"]}


def log(n: int, seed: int, family: str = "logit", authors: int | None = None) -> pd.DataFrame:
    df, _ = make_logged_rewards(n, authors=authors, rng=seed)
    rng = np.random.default_rng(seed)
    eta = 0.6 * df["quality"] + 0.4 * df["popularity"]
    if family == "logit":
        return df.assign(y=(rng.random(n) < special.expit(eta)).astype(int))
    return df.assign(y=rng.poisson(np.exp(eta) * rng.gamma(2.0, 0.5, size=n)))  # overdispersed


@pytest.mark.parametrize("family", ["logit", "poisson"])
def test_estimates_are_those_of_a_regression_on_both(family: str) -> None:
    df = log(2000, 1, family).assign(w=lambda d: 1.0 + (d["noise"] > 0))
    x = np.column_stack([df["popularity"] - np.average(df["popularity"], weights=df["w"]),
                         df[FEATURES]])  # fmt: skip
    learner: Any = LogisticRegression(C=np.inf, tol=1e-10, solver="newton-cholesky")
    if family == "poisson":
        learner = PoissonRegressor(alpha=0, tol=1e-10, solver="newton-cholesky")
    learner.fit(x, df["y"], sample_weight=df["w"])
    found = offset_reward(df, **ROLES, family=family, weights="w")
    b = np.ravel(learner.coef_)
    expected = [b[0], np.ravel(learner.intercept_)[0], *b[1:]]
    np.testing.assert_allclose(found.estimates, expected, rtol=1e-5, atol=1e-7)
    # The sandwich, written out.
    z = np.column_stack([x[:, 0], np.ones(len(df)), x[:, 1:]])
    eta = z @ found.estimates
    mean = special.expit(eta) if family == "logit" else np.exp(eta)
    w = df["w"].to_numpy() / df["w"].mean()
    bread = np.linalg.inv((z.T * w * (mean * (1 - mean) if family == "logit" else mean)) @ z)
    scores = z * (w * (df["y"] - mean)).to_numpy()[:, None]
    np.testing.assert_allclose(found.cov("robust"), bread @ scores.T @ scores @ bread, rtol=1e-6)
    predicted = found.predict_reward(df)
    np.testing.assert_allclose(predicted["reward"] + found.offset(df), eta, rtol=1e-9, atol=1e-10)
    link = special.expit if family == "logit" else np.exp
    np.testing.assert_allclose(predicted["mean"], link(predicted["reward"]))


@pytest.mark.parametrize("family", ["logit", "poisson"])
def test_intervals_cover_and_the_easy_way_does_not(family: str) -> None:
    covered, ignored = [], []
    for seed in range(60):
        df = log(600, seed, family)
        row = offset_reward(df, **ROLES, family=family).to_frame().set_index("term")
        for term, truth in (("popularity", 0.4), ("quality", 0.6), ("style", 0.0)):
            covered.append(row["conf_low"][term] <= truth <= row["conf_high"][term])
        x = np.column_stack([np.ones(600), df[FEATURES]])
        ignored.append(np.linalg.lstsq(x, df["y"].to_numpy(float))[0][2])
    assert abs(np.mean(covered) - 0.95) < 4 * np.sqrt(0.05 * 0.95 / 180)
    assert np.mean(ignored) > 4 * np.std(ignored) / np.sqrt(60)  # style is rewarded


def test_clusters_and_json() -> None:
    with pytest.warns(IdentificationWarning, match="Only 15 clusters"):
        found = offset_reward(log(600, 3, authors=15), **ROLES, cluster="author")
    influence, slopes, _ = found.cluster_sums
    np.testing.assert_allclose(influence.sum(axis=0), 0, atol=1e-7)
    np.testing.assert_allclose(slopes.sum(axis=0), np.eye(4), atol=1e-7)
    frame = found.wild_bootstrap(draws=499)
    assert frame["conf_low"][0] < found.estimates[0] < frame["conf_high"][0]
    again: Any = Result.from_json(found.to_json())
    df = log(5, 4)
    pd.testing.assert_frame_equal(again.predict_reward(df), found.predict_reward(df))
    pd.testing.assert_series_equal(again.offset(df), found.offset(df))
    assert "log-odds" in str(found.summary())


def test_refusals() -> None:
    df = log(300, 5)
    for roles, kind, message in (
        ({"family": "probit"}, DataError, "family 'logit'"),
        ({"text": "quality"}, DataError, "Encode texts"),
        ({"outcome": "quality"}, DataError, "outcomes 0 or 1"),
        ({"outcome": "quality", "family": "poisson"}, DataError, "at least 0"),
        ({"text": ["quality", "popularity"]}, IdentificationError, "popularity"),
    ):  # fmt: skip
        with pytest.raises(kind, match=message):
            offset_reward(df, **{**ROLES, **roles})
    sure = df.assign(y=(df["quality"] > 0).astype(int))
    with pytest.raises(ConvergenceError, match="do not determine"):
        offset_reward(sure, **ROLES)
