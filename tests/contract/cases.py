"""One small case per public estimator, for the contract that all of them keep.

A new estimator adds one `Case` to `CASES`; the tests in test_contract.py then run for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

import causalrm as crm


@dataclass(frozen=True)
class Case:
    """An estimator with data that it fits in well under a second, without a warning.

    Parameters
    ----------
    name : str
    make : callable
        Without arguments: (unfitted estimator, pandas frame, roles of `fit` as a dict). Text
        columns are plain strings, and there is no column that the fit does not use.
    predict : callable
        (fitted estimator, data frame) -> predictions, one row per row of the frame.
    covariates : tuple of str
        Numeric columns of the formulas; a constant one must be refused.
    numbers : tuple of str
        Numeric columns in roles (time, outcome, ...), which take no text and no dates.
    category : str, optional
        A text column of the formulas; its levels must be known at prediction.
    event : str, optional
        Column that says 1 for an event and 0 for censoring.
    weights : str, optional
        Role of `fit` that takes sampling weights.
    permutable : bool
        Whether the order of the rows is without meaning and no split is drawn at random.
    """

    name: str
    make: Callable[[], tuple[Any, pd.DataFrame, dict[str, Any]]]
    predict: Callable[[Any, Any], pd.DataFrame]
    covariates: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    category: str | None = None
    event: str | None = None
    weights: str | None = None
    permutable: bool = True

    def __str__(self) -> str:
        return self.name

    def fit(self, data: Any = None, **roles: Any) -> Any:
        """Fit the case, to other data or with more roles where these are given."""
        estimator, frame, given = self.make()
        return estimator.fit(frame if data is None else data, **given | roles)


def _survival() -> tuple[Any, pd.DataFrame, dict[str, Any]]:
    rng = np.random.default_rng(20)
    n = 240
    frame = pd.DataFrame(
        {
            "x": rng.normal(50, 10, n),
            "g": rng.choice(["a", "b", "c"], n),
            "months": rng.weibull(1.6, n),
            "died": np.zeros(n, dtype=int),
        }
    )
    frame["months"] *= 10 * np.exp(-0.03 * (frame["x"] - 50) + 0.4 * (frame["g"] == "b"))
    censoring = rng.uniform(2, 25, n)
    frame["died"] = (frame["months"] <= censoring).astype(int)
    frame["months"] = np.minimum(frame["months"], censoring)
    estimator = crm.SurvivalRegression(phi="x + C(g)", gamma="x")
    return estimator, frame, {"time": "months", "event": "died"}


def _intervals() -> tuple[Any, pd.DataFrame, dict[str, Any]]:
    _, frame, _ = _survival()
    visit = 3.0  # seen at visits only; those censored have no upper end
    lower = np.floor(frame["months"] / visit) * visit
    frame["lower"] = np.where(frame["died"] == 1, lower, frame["months"])
    frame["upper"] = np.where(frame["died"] == 1, lower + visit, np.inf)
    estimator = crm.SurvivalRegression(phi="x + g", kappa="weibull")
    return estimator, frame.drop(columns=["months", "died"]), {"lower": "lower", "upper": "upper"}


def _clusters() -> tuple[Any, pd.DataFrame, dict[str, Any]]:
    _, frame, roles = _survival()
    frame["centre"] = [f"centre {i % 40}" for i in range(len(frame))]
    frame["share"] = 1.0 + np.arange(len(frame)) % 3
    frame["since"] = 0.2 * frame["months"] * (np.arange(len(frame)) % 2)
    estimator = crm.SurvivalRegression(phi="1", lam="x + g", kappa=0.5)
    return estimator, frame, roles | {"weights": "share", "cluster": "centre", "entry": "since"}


def _cycle(estimator: Any, size: float) -> tuple[Any, pd.DataFrame, dict[str, Any]]:
    rng = np.random.default_rng(21)
    names = np.array(["ant", "bee", "cat", "dog"])
    i, j = np.triu_indices(4, 1)
    pick = rng.integers(6, size=600)
    turned = rng.integers(2, size=600).astype(bool)
    first, second = np.where(turned, j[pick], i[pick]), np.where(turned, i[pick], j[pick])
    odds = size * np.sin(np.pi * (second - first) / 2) + 0.4 * (second - first)
    won = rng.uniform(size=600) < 1 / (1 + np.exp(-odds))
    frame = pd.DataFrame({"one": names[first], "other": names[second], "won": won.astype(float)})
    return estimator, frame, {"a": "one", "b": "other", "outcome": "won"}


def _general() -> tuple[Any, pd.DataFrame, dict[str, Any]]:
    return _cycle(crm.GeneralPreference(n_starts=2, draws=99), 0.8)


def _thurstone() -> tuple[Any, pd.DataFrame, dict[str, Any]]:
    return _cycle(crm.Thurstone(penalty=6.0), 0.0)


def _comparisons() -> tuple[Any, pd.DataFrame, dict[str, Any]]:
    rng = np.random.default_rng(31)
    n = 240
    first = rng.integers(0, 4, n)
    second = (first + rng.integers(1, 4, n)) % 4
    names = np.array(["p", "q", "r", "s"])
    frame = pd.DataFrame({"item": names[first], "other": names[second], "x": rng.normal(3, 1, n)})
    z = 0.3 * (first - second) + 0.2 * frame["x"]
    frame["score"] = np.where(rng.random(n) < 1 / (1 + np.exp(-z)), 1.0, 0.0)
    frame.loc[::6, "score"] = 0.5
    estimator = crm.BradleyTerry(covariates=["x"])
    return estimator, frame, {"a": "item", "b": "other", "outcome": "score"}


def _answers() -> tuple[Any, pd.DataFrame, dict[str, Any]]:
    frame, _ = crm.datasets.make_preferences(90, n_topics=16, rng=0)
    augmenter = crm.CausalAugmenter(crm.augment.RuleOracle(), n_attributes=1)
    roles = {"query": "query", "chosen": "chosen", "rejected": "rejected"}
    return (
        crm.RobustRewardModel(drop_attributes=False),
        frame,
        roles | {"augmented": augmenter.generate(frame)},
    )


def _deconfounded(method: str) -> tuple[Any, pd.DataFrame, dict[str, Any]]:
    rng = np.random.default_rng(41)
    n = 240
    frame = pd.DataFrame({"fact": rng.normal(size=n), "length": rng.normal(50, 10, n)})
    frame["lottery"] = rng.normal(size=n)
    frame["hour"] = 12 + 2 * frame["fact"] + 3 * frame["lottery"] + rng.normal(size=n)
    frame["site"] = rng.choice(["a", "b", "c"], n)
    frame["clicks"] = frame["fact"] + 0.5 * frame["hour"] + (frame["site"] == "b")
    frame["clicks"] += 0.02 * frame["length"] + rng.normal(size=n)
    roles = {"outcome": "clicks", "text": ["fact", "length"], "confounders": ["hour", "site"]}
    if method == "iv":
        roles |= {"confounders": ["hour"], "instruments": ["lottery"]}
        frame = frame.drop(columns="site")
    else:
        frame = frame.drop(columns="lottery")
    return crm.DeconfoundedReward(method), frame, roles


def _selective() -> tuple[Any, pd.DataFrame, dict[str, Any]]:
    rng = np.random.default_rng(51)
    n = 240
    frame = pd.DataFrame({"x": rng.normal(50, 10, n), "g": rng.choice(["a", "b", "c"], n)})
    risk = -1.5 + 0.08 * (frame["x"] - 50) + 0.4 * (frame["g"] == "b") + rng.uniform(0, 2, n)
    sick = rng.random(n) < 1 / (1 + np.exp(-risk))
    frame["tested"] = (rng.random(n) < 1 / (1 + np.exp(-0.5 - risk))).astype(int)
    frame.loc[[3, 5, 7, 11], "tested"] = 1  # where the bad inputs are put
    frame["sick"] = np.where(frame["tested"] == 1, sick, np.nan)
    known = [crm.Prevalence(0.4, se=0.05), crm.Expertise(free=["x"])]
    estimator = crm.SelectiveLabelsModel("x + C(g)", constraints=known, draws=256)
    return estimator, frame, {"tested": "tested", "outcome": "sick"}


def _heckman() -> tuple[Any, pd.DataFrame, dict[str, Any]]:
    _, frame, _ = _selective()
    rng = np.random.default_rng(52)
    frame = frame.rename(columns={"tested": "seen"}).drop(columns="sick")
    frame["z"] = rng.normal(size=len(frame)) + frame["seen"]
    wage = 1 + 0.02 * (frame["x"] - 50) + rng.normal(size=len(frame))
    frame["wage"] = np.where(frame["seen"] == 1, wage, np.nan)
    estimator = crm.HeckmanModel("x + C(g)", "x + C(g) + z", draws=256)
    return estimator, frame, {"selected": "seen", "outcome": "wage"}


CASES = [
    Case(
        "GeneralPreference",
        _general,
        lambda fit, data: fit.predict_proba(data),
        numbers=("won",),
        category="one",
        weights="weights",
    ),
    Case(
        "Thurstone",
        _thurstone,
        lambda fit, data: fit.predict_proba(data),
        numbers=("won",),
        category="one",
    ),
    Case(
        "SurvivalRegression",
        _survival,
        lambda fit, data: fit.predict_survival(data, times=[3.0, 9.0]),
        covariates=("x",),
        numbers=("months", "died"),
        category="g",
        event="died",
        weights="weights",
    ),
    Case(
        "SurvivalRegression, intervals",
        _intervals,
        lambda fit, data: fit.predict_rmst(data, [5.0, 12.0]),
        covariates=("x",),
        numbers=("lower",),
        category="g",
        weights="weights",
    ),
    Case(
        "SurvivalRegression, weights and clusters",
        _clusters,
        lambda fit, data: fit.predict_quantile(data, [0.1, 0.5]),
        covariates=("x",),
        numbers=("months", "died", "share", "since"),
        category="g",
        event="died",
    ),
    Case(
        "BradleyTerry",
        _comparisons,
        lambda fit, data: fit.predict_proba(data),
        covariates=("x",),
        numbers=("score",),
        category="item",
        weights="weights",
    ),
    Case(
        "RobustRewardModel",
        _answers,
        lambda fit, data: fit.predict_proba(data).to_frame(),
    ),
    Case(
        "DeconfoundedReward, joint",
        lambda: _deconfounded("joint"),
        lambda fit, data: fit.transform(data),
        covariates=("fact", "length"),
        numbers=("clicks",),
        category="site",
        weights="weights",
    ),
    Case(
        "DeconfoundedReward, cross-fitted",
        lambda: _deconfounded("plr"),
        lambda fit, data: fit.transform(data),
        covariates=("fact", "length"),
        numbers=("clicks",),
        category="site",
        permutable=False,
    ),
    Case(
        "DeconfoundedReward, instruments",
        lambda: _deconfounded("iv"),
        lambda fit, data: fit.predict_reward(data),
        covariates=("fact", "length"),
        numbers=("clicks",),
        permutable=False,
    ),
    Case(
        "HeckmanModel",
        _heckman,
        lambda fit, data: fit.predict_outcome(data),
        covariates=("x",),
        numbers=("seen", "wage"),
        category="g",
    ),
    Case(
        "SelectiveLabelsModel",
        _selective,
        lambda fit, data: fit.predict_risk(data),
        covariates=("x",),
        numbers=("tested", "sick"),
        category="g",
        event="tested",
    ),
]
