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


CASES = [
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
]
