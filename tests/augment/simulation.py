"""The acceptance simulation: preferences of a labeller biased on style, in feature space."""

from __future__ import annotations

import numpy as np
import pandas as pd

import causalrm as crm

K, M = 5, 40  # causal and spurious features
THETA = np.array([1.0, 0.8, 0.6, 0.5, 0.4])
GAMMA = np.r_[0.8, 0.6, 0.4, 0.3, np.zeros(M - 4)]
CAUSAL = [f"C{j + 1}" for j in range(K)]
SPURIOUS = [f"S{j + 1}" for j in range(M)]
ROLES = {"query": "query", "chosen": "chosen", "rejected": "rejected"}


def preferences(n: int, rng: np.random.Generator, per_query: int = 1) -> pd.DataFrame:
    """Pairs of vectors (C, S); labels follow the true reward and the bias on style."""
    s = rng.standard_normal((n, 2, M))
    c = 0.6 * s[..., :K] + 0.8 * rng.standard_normal((n, 2, K))
    score = c @ THETA + s @ GAMMA
    wins = rng.random(n) < 1 / (1 + np.exp(score[:, 1] - score[:, 0]))
    x = np.concatenate([c, s], axis=2)
    x[~wins] = x[~wins, ::-1]
    return pd.DataFrame(
        {"query": np.arange(n) // per_query, "chosen": list(x[:, 0]), "rejected": list(x[:, 1])}
    )


def augment(df: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Twice as many causal pairs as preferences, and as many irrelevant-query ties.

    What `CausalAugmenter` makes with `VectorOracle`, drawn at once.
    """
    n = len(df)
    parent = np.tile(np.arange(n), 2)
    j = rng.integers(K, size=2 * n)
    move = np.zeros((2 * n, K + M))
    move[np.arange(2 * n), j] = 1.5
    move[np.arange(2 * n), K + j] = 0.75 * rng.random(2 * n)
    base = np.stack(df["rejected"].to_numpy())[parent]
    wrong = rng.random(2 * n) < 0.045
    better, worse = np.where(wrong[:, None], -move, move) + base, base
    causal = pd.DataFrame(
        {
            "parent": parent, "query": df["query"].to_numpy()[parent], "answer_a": list(better),
            "answer_b": list(worse), "target": 1.0, "kind": "causal",
            "attribute": np.array(CAUSAL)[j],
        }
    )  # fmt: skip
    source = rng.integers(n, size=n)
    augmented = np.arange(n) % 2 == 1
    a = np.where(augmented[:, None], better[source], np.stack(df["chosen"].to_numpy())[source])
    b = np.where(augmented[:, None], worse[source], np.stack(df["rejected"].to_numpy())[source])
    beside = np.r_[np.zeros(K), np.ones(M)]
    neutral = pd.DataFrame(
        {
            "parent": source, "query": df["query"].to_numpy()[rng.integers(n, size=n)],
            "answer_a": list(a * beside), "answer_b": list(b * beside), "target": 0.5,
            "kind": "irrelevant_query", "attribute": "",
        }
    )  # fmt: skip
    out = pd.concat([causal, neutral], ignore_index=True)
    out["cluster"] = df["query"].to_numpy()[out["parent"]]
    return out.assign(status="ok", direction="")


def by_oracle(df: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The same through the public door: one attribute per preference, up and down."""
    oracle = crm.augment.VectorOracle(K, step=1.5, leak=0.75, error=0.045, rng=seed)
    return crm.CausalAugmenter(oracle, n_attributes=1, rng=seed).generate(df)


def model(tie_weight: float, **options: object) -> crm.RobustRewardModel:
    """The model of the simulation: a ridge of 1e-6."""
    encoder = crm.text.Features([*CAUSAL, *SPURIOUS])
    return crm.RobustRewardModel(encoder, tie_weight=tie_weight, penalty=1e-6, **options)


def ratio(fit: crm.RobustRewardModel) -> float:
    """Norm of the spurious coefficients over that of the causal ones."""
    w = fit.result_.weights
    return float(np.linalg.norm(w[K:]) / np.linalg.norm(w[:K]))


def reversed_style(fit: crm.RobustRewardModel, rng: np.random.Generator, n: int = 20_000) -> float:
    """Accuracy on pairs in which style runs against causes."""
    dc, ds = rng.standard_normal((n, K)), rng.standard_normal((n, M))
    ds[:, :4] -= 0.8 * dc[:, :4]
    gap = np.c_[dc, ds] @ fit.result_.weights
    return float(np.mean(np.sign(gap) == np.sign(dc @ THETA)))
