"""Do neutral pairs take spurious weight away? Simulations with the truth known.

Figures beside the gates are means over 8 seeds of the same simulation: ratio of spurious to causal
weight .749 (preferences), .569 (with causal pairs), .138 (and neutral ones, weight 1), .055
(weight 3), with standard deviations of .060, .042, .011, .004; accuracy under reversed style .664,
.724, .926, .956, with .025, .020, .006, .005.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import causalrm as crm
from tests.augment.simulation import (
    CAUSAL,
    ROLES,
    SPURIOUS,
    augment,
    by_oracle,
    model,
    preferences,
    ratio,
    reversed_style,
)

RATIO, RATIO_SD = np.array([0.749, 0.569, 0.138, 0.055]), np.array([0.060, 0.042, 0.011, 0.004])
RIGHT, RIGHT_SD = np.array([0.664, 0.724, 0.926, 0.956]), np.array([0.025, 0.020, 0.006, 0.005])


def steps(seed: int) -> tuple[list[float], list[float]]:
    """Ratio and accuracy: preferences, causal pairs, neutral pairs of weight 1 and 3."""
    rng = np.random.default_rng(seed)
    df = preferences(3000, rng)
    made = augment(df, rng)
    fits = [model(0.0, drop_attributes=False).fit(df, **ROLES)]
    for weight in (0.0, 1.0, 3.0):
        fits.append(model(weight, drop_attributes=False).fit(df, made, **ROLES))
    right = [reversed_style(fit, np.random.default_rng(100 + seed)) for fit in fits]
    return [ratio(fit) for fit in fits], right


@pytest.mark.parametrize("seed", [0, 1])
def test_on_vectors(seed: int) -> None:
    found, right = steps(seed)
    assert (np.abs(found - RATIO) < 3.5 * RATIO_SD).all(), found
    assert (np.abs(right - RIGHT) < 3.5 * RIGHT_SD).all(), right
    assert found[2] < 0.25 and right[2] > 0.88  # the gates


@pytest.mark.slow
def test_on_vectors_over_seeds() -> None:
    found, right = np.array([steps(seed) for seed in range(24)]).transpose(1, 0, 2)
    # Two means over 8 and over 24 seeds.
    error = np.sqrt(1 / 8 + 1 / 24)
    assert (np.abs(found.mean(axis=0) - RATIO) < 3 * error * RATIO_SD + 5e-4).all()
    assert (np.abs(right.mean(axis=0) - RIGHT) < 3 * error * RIGHT_SD + 5e-4).all()


def test_on_vectors_by_the_oracle() -> None:
    df = preferences(500, np.random.default_rng(3))
    made = by_oracle(df, seed=3)
    fits = [model(w, drop_attributes=False).fit(df, made, **ROLES) for w in (0.0, 1.0)]
    assert ratio(fits[1]) < 0.25 and ratio(fits[0]) > 2 * ratio(fits[1])
    assert reversed_style(fits[1], np.random.default_rng(4)) > 0.88


# ---------------------------------------------------------------- texts


def weights(model: crm.RobustRewardModel, test: pd.DataFrame, truth: object) -> np.ndarray:
    """Standardised regression of the reward gap on true causal attributes and style."""
    one, other = (truth.measure(test["query"], test[c]) for c in ("chosen", "rejected"))
    sizes = pd.concat([one, other]).std().to_numpy()
    gap = model.gap(test).to_numpy()
    return np.linalg.lstsq((one - other).to_numpy(), gap)[0] * sizes


EQUAL = {
    "correctness": 1.2, "completeness": 3.6, "relevance": 2.4, "reasoning": 1.2, "evidence": 1.2,
}  # fmt: skip


def on_text(n: int, n_topics: int, seed: int, leak: float = 0.3) -> dict[str, tuple[float, float]]:
    """Ratio and accuracy under reversed style, where an edit of any attribute is worth the same."""
    df, truth = crm.datasets.make_preferences(n, theta=EQUAL, n_topics=n_topics, rng=seed)
    oracle = crm.augment.RuleOracle(leak=leak)
    made = crm.CausalAugmenter(oracle, n_attributes=2, rng=seed).generate(df)
    test = truth.test_set(1000, rng=seed + 1000)
    out = {}
    for name, augmented, weight in (
        ("preferences", None, 1.0), ("causal", made, 0.0), ("neutral", made, 1.0)
    ):  # fmt: skip
        encoder = crm.text.HashedText(512, 0)
        new = crm.RobustRewardModel(encoder, tie_weight=weight, penalty=0.3, drop_attributes=False)
        fit = new.fit(df, augmented, **ROLES)
        b = weights(fit, test, truth)
        share = float(np.linalg.norm(b[5:]) / np.linalg.norm(b[:5]))
        out[name] = share, 0.5 * float(np.mean(np.sign(fit.gap(test)) + 1))
    return out


def check_text(found: dict[str, tuple[float, float]]) -> None:
    assert found["neutral"][0] < 0.25 and found["neutral"][1] > 0.88, found  # the gates
    assert found["preferences"][0] > found["causal"][0] > 2 * found["neutral"][0]
    assert found["preferences"][1] < found["causal"][1] < found["neutral"][1]


def test_on_text() -> None:
    check_text(on_text(600, 10, 0))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_on_text_with_all_topics(seed: int) -> None:
    check_text(on_text(3000, 24, seed))


# ---------------------------------------------------------------- coverage


def cover(reps: int, n: int, per_query: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Share of clustered and of naive intervals of the sensitivities that hold the truth.

    Pairs of a query share a part of their answers, so that rows of a cluster are dependent.
    """
    big = np.random.default_rng(seed)
    df = clustered(30_000, per_query, big)
    made = augment(df, big)
    truth = model(1.0, drop_attributes=False).fit(df, made, **ROLES)
    keys = [("sensitivity", name) for name in CAUSAL]
    true = truth.to_frame().set_index(["group", "term"])["estimate"][keys].to_numpy()
    hits = []
    for child in np.random.SeedSequence(seed).spawn(reps):
        rng = np.random.default_rng(child)
        df = clustered(n, per_query, rng)
        made = augment(df, rng)
        alone = made.assign(cluster=np.arange(len(made)))
        rows = []
        for frame, one in ((df, made), (df.assign(query=np.arange(n)), None)):
            if one is None:  # every row its own cluster
                one = alone.assign(cluster=made["parent"], query=made["parent"])
            fit = model(1.0, drop_attributes=False).fit(frame, one, **ROLES)
            table = fit.to_frame().set_index(["group", "term"]).loc[keys]
            rows.append((table["conf_low"] <= true) & (true <= table["conf_high"]))
        hits.append(rows)
    share = np.array(hits).mean(axis=0)
    return share[0], share[1]


def clustered(n: int, per_query: int, rng: np.random.Generator) -> pd.DataFrame:
    """Preferences of which those of one query compare the same two answers, with small changes."""
    df = preferences(n // per_query, rng)
    rows = np.repeat(np.arange(len(df)), per_query)
    out = df.iloc[rows].reset_index(drop=True)
    for c in ("chosen", "rejected"):
        noise = 0.3 * rng.standard_normal((len(out), len(CAUSAL) + len(SPURIOUS)))
        out[c] = [x + e for x, e in zip(out[c], noise, strict=True)]
    return out


def test_intervals_cover() -> None:
    found, naive = cover(25, 1800, 6, seed=1)
    assert 0.88 < found.mean() < 0.99
    assert naive.mean() < found.mean() - 0.05


@pytest.mark.slow
def test_intervals_cover_over_many() -> None:
    found, naive = cover(500, 4800, 6, seed=2)
    assert 0.93 < found.mean() < 0.97
    assert (found > 0.91).all() and (found < 0.985).all()
    assert naive.mean() < 0.9
