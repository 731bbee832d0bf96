"""Regret of showing the best of eight texts by each method's reward, over a grid of entanglement.

Regret is the mean true reward of the best candidate less that of the one chosen. Candidates are
new texts whose popularity is not known; a confounder that is an input is averaged over.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestRegressor

import causalrm as crm
from causalrm.datasets import make_logged_rewards

FEATURES = ["quality", "noise", "style"]
ROLES: dict[str, Any] = {"outcome": "outcome", "text": FEATURES, "confounders": ["popularity"]}
GRID = (0.0, 0.4, 0.8, 1.2, 1.6)
METHODS = ("plr", "input", "ignore", "residualise", "invariance")


def regret(found: Any, rho: float, candidates: int = 8, **options: Any) -> float:
    new, truth = make_logged_rewards(16_000, rho=rho, rng=99, **options)
    value = truth.reward(new).reshape(-1, candidates)
    score = found.predict_reward(new)["reward"].to_numpy().reshape(-1, candidates)
    chosen = np.take_along_axis(value, score.argmax(axis=1)[:, None], axis=1)[:, 0]
    return float((value.max(axis=1) - chosen).mean())


@functools.cache
def table(replications: int = 6, n: int = 1000, gamma: float = 1.0) -> pd.DataFrame:
    """Mean regret by entanglement and method."""
    rows = []
    for rho in GRID:
        for seed in range(replications):
            df, _ = make_logged_rewards(n, rho=rho, gamma=gamma, rng=100 + seed)
            for method in METHODS:
                found = crm.DeconfoundedReward(method).fit(df, **ROLES)
                rows.append((rho, method, regret(found, rho, gamma=gamma)))
    frame = pd.DataFrame(rows, columns=["rho", "method", "regret"])
    return frame.pivot_table(index="rho", columns="method", values="regret")


def test_regret_is_at_most_half_of_that_of_the_easy_ways() -> None:
    mean = table().mean()
    for method in ("ignore", "residualise", "invariance"):
        assert mean["plr"] <= 0.5 * mean[method], table().to_string()


def test_never_worse_than_the_confounder_as_an_input() -> None:
    """Within the noise of six replications: both are least squares without a penalty."""
    found = table()
    assert (found["plr"] <= found["input"] + 0.005).all(), found.to_string()


def test_what_it_costs_where_the_confounder_has_no_effect() -> None:
    """Style goes with popularity, so that gamma has to be estimated, and its noise is passed on.

    Least squares pays it as well: without bias nothing pays less. It is a thousandth of what
    choosing is worth, and falls as 1/n.
    """
    new, truth = make_logged_rewards(16_000, gamma=0.0, rng=99)
    value = truth.reward(new).reshape(-1, 8)
    worth = float((value.max(axis=1) - value.mean(axis=1)).mean())
    mean = {}
    for n in (1000, 4000):
        for method in ("plr", "joint", "ignore"):
            found = [
                crm.DeconfoundedReward(method).fit(
                    make_logged_rewards(n, gamma=0.0, rng=100 + seed)[0], **ROLES
                )
                for seed in range(12)
            ]
            mean[method, n] = float(np.mean([regret(f, 0.8, gamma=0.0) for f in found]))
    assert mean["plr", 1000] <= mean["ignore", 1000] + 0.003 * worth, mean
    assert mean["plr", 1000] <= 1.25 * mean["joint", 1000], mean
    assert mean["plr", 4000] < 0.6 * mean["plr", 1000], mean


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_no_worse_than_ignoring_where_nothing_is_confounded(gamma: float) -> None:
    """Text and confounder are unrelated; what is subtracted is then noise for the reward."""
    mean = {"plr": 0.0, "ignore": 0.0}
    for seed in range(12):
        df, _ = make_logged_rewards(500, rho=0.0, gamma=gamma, rng=200 + seed)
        for method in mean:
            roles = ROLES | {"text": ["quality", "noise"]}
            mean[method] += regret(crm.DeconfoundedReward(method).fit(df, **roles), 0.0) / 12
    assert mean["plr"] <= mean["ignore"] * (1.02 if gamma == 0 else 1.0) + 1e-5, mean


def test_better_than_an_input_that_is_unknown_at_use() -> None:
    """What stands in for the confounder, if it is guessed from the text, brings its effect back."""
    df, _ = make_logged_rewards(1000, rho=0.8, rng=1)
    new, truth = make_logged_rewards(16_000, rho=0.8, rng=99)
    found = crm.DeconfoundedReward("input").fit(df, **ROLES)
    x, new_x = (np.column_stack([np.ones(len(d)), d[FEATURES].to_numpy()]) for d in (df, new))
    guess = new_x @ np.linalg.lstsq(x, df["popularity"].to_numpy())[0]
    score = found.predict_reward(new)["reward"] + found.result_.gamma[0] * guess
    value = truth.reward(new).reshape(-1, 8)
    best = score.to_numpy().reshape(-1, 8).argmax(axis=1)
    lost = float((value.max(axis=1) - value[np.arange(len(value)), best]).mean())
    assert regret(crm.DeconfoundedReward("plr").fit(df, **ROLES), 0.8) < 0.1 * lost


def test_better_than_a_penalised_input() -> None:
    mean = {"plr": 0.0, "input": 0.0}
    for seed in range(4):
        df, _ = make_logged_rewards(1000, rho=1.2, rng=seed)
        for method in mean:
            options = {} if method == "plr" else {"nuisance": 0.5}
            found = crm.DeconfoundedReward(method, **options).fit(df, **ROLES)
            mean[method] += regret(found, 1.2) / 4
    assert mean["plr"] < 0.8 * mean["input"], mean


def test_better_than_an_input_where_overlap_is_poor() -> None:
    """A forest on text and confounder hands a part of the confounder's effect to the text."""
    mean = {"plr": 0.0, "input": 0.0}
    options = {"var_v": 0.1, "pi": 0.2, "style_noise": 0.3}
    for seed in range(2):
        df, _ = make_logged_rewards(800, rho=1.2, rng=seed, **options)
        for method in mean:
            forest = RandomForestRegressor(30, min_samples_leaf=10, max_features=0.7)
            learner = None if method == "plr" else forest
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", crm.IdentificationWarning)
                found = crm.DeconfoundedReward(method, nuisance=learner, folds=3).fit(df, **ROLES)
            if method == "input":
                found.model_.learner.set_params(n_jobs=1)
            mean[method] += regret(found, 1.2, **options) / 2
    assert mean["plr"] < 0.8 * mean["input"], mean


@pytest.mark.slow
def test_regret_over_many_replications() -> None:
    found = table(40)
    mean = found.mean()
    for method in ("ignore", "residualise", "invariance"):
        assert mean["plr"] <= 0.5 * mean[method], found.to_string()
    assert (found["plr"] <= found["input"] + 0.002).all(), found.to_string()
