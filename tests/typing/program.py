"""A user's program under ``mypy --strict``: types of results, and misspelt names refused.

`make lint` checks its types, and the tests run it. A ``type: ignore`` that is no longer needed is
itself an error, so each marks a mistake that a type checker must find.
"""

from __future__ import annotations

from typing import assert_type

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

import causalrm as crm


def survival() -> crm.Table:
    """Fit, read, draw, store."""
    data = crm.datasets.make_survival(300, phi={"Intercept": -0.5, "x1": 0.3}, rng=1).data
    fit = crm.SurvivalRegression(phi="x1").fit(data, time="time", event="event")
    assert_type(fit, crm.SurvivalRegression)
    assert_type(fit.result_, crm.SurvivalResult)
    assert_type(fit.to_frame(), pd.DataFrame)
    assert_type(fit.result_.estimates, np.ndarray)
    assert_type(fit.result_.plot(), Axes)
    other = crm.Result.from_json(fit.result_.to_json())
    assert isinstance(other, crm.SurvivalResult)
    return crm.table(fit, other)


def preference() -> float:
    """Votes to probabilities."""
    votes = pd.DataFrame({"a": list("abcabc"), "b": list("bcacab"), "y": [1, 1, 0, 1, 0, 0]})
    fit = crm.BradleyTerry(penalty=1.0).fit(votes, a="a", b="b", outcome="y")
    assert_type(fit.result_, crm.BradleyTerryResult)
    return float(fit.result_.estimates[0])


def deconfounding() -> crm.DeconfoundedResult:
    """Outcomes to a reward."""
    rng = np.random.default_rng(0)
    log = pd.DataFrame(rng.normal(size=(200, 3)), columns=["x", "hour", "clicks"])
    fit = crm.DeconfoundedReward(rng=0).fit(log, outcome="clicks", text=["x"], confounders="hour")
    assert_type(fit.rewards_, pd.DataFrame)
    return fit.result_


def risk() -> crm.RiskResult:
    """Outcomes of the tested to a risk of everybody."""
    data = crm.datasets.make_selective_labels(300, rng=2).data
    model = crm.SelectiveLabelsModel(risk="x1 + x2", constraints=[crm.Prevalence(0.55, se=0.05)])
    return model.fit(data, tested="tested", outcome="outcome").result_


def attribution() -> pd.DataFrame:
    """A game to Shapley values."""
    fit = crm.PromptShapley(rng=0).fit(["a", "b", "c"], lambda z: z.sum(axis=1) ** 2.0)
    return fit.result_.to_frame()


def calibration() -> crm.CalibrationReport:
    """Probabilities to a report."""
    p = np.random.default_rng(3).random(400)
    y = (np.random.default_rng(4).random(400) < p).astype(float)
    return crm.calibration_report(y, p)


def mistakes() -> None:
    """What a type checker must find; never run."""
    crm.SurvivalRegresion  # type: ignore[attr-defined]  # noqa: B018
    crm.SurvivalRegression(phi=3)  # type: ignore[arg-type]
    crm.SurvivalRegression(phy="x")  # type: ignore[call-arg]
    crm.BradleyTerry().fit(pd.DataFrame(), a="a", b="b", outcom="y")  # type: ignore[call-arg]
    crm.Prevalence("much")  # type: ignore[arg-type]
    crm.Budget(calls="ten")  # type: ignore[arg-type]
    deconfounding().estimate  # type: ignore[attr-defined]  # noqa: B018


def main() -> None:
    """Run everything that is right."""
    print(survival().to_markdown())
    print(preference(), deconfounding().summary(), risk().summary(), attribution(), calibration())


if __name__ == "__main__":
    main()
