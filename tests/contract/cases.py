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
]
