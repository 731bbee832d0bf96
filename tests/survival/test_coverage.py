"""Statistical truth of the fits: intervals cover as often as they say.

Running this file repeats the full simulation and writes its summary to results/coverage.csv:

    python tests/survival/test_coverage.py [replications [rows]]
"""

from __future__ import annotations

import math
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats
from scipy.special import expit

from causalrm.core.errors import CausalRMWarning
from causalrm.datasets import make_survival
from causalrm.survival import SurvivalRegression

RESULTS = Path(__file__).parent / "results" / "coverage.csv"
PERSON = pd.DataFrame({"x1": [0.5], "x2": [0.0], "trt": [1]})
TIME, HORIZON = 1.0, 3.0
RIGHT = {"time": "time", "event": "event"}
BETWEEN = {"lower": "lower", "upper": "upper"}

PHI = {"Intercept": -0.4, "x1": 0.4, "trt": -0.5}
# Design: what make_survival takes, what the regression takes, the roles.
DESIGNS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, str]]] = {
    "accelerated failure time": ({"phi": PHI}, {"phi": "x1 + trt"}, RIGHT),
    "proportional hazards": (
        {"phi": {"Intercept": -0.4}, "lam": {"x1": 0.4, "trt": -0.5}}, {"lam": "x1 + trt"}, RIGHT,
    ),
    "multi-parameter": (
        {"phi": PHI, "gamma": {"Intercept": 0.2, "trt": 0.3}},
        {"phi": "x1 + trt", "gamma": "trt"}, RIGHT,
    ),
    "cure": (
        {
            "phi": {"Intercept": 0.5}, "lam": {"x1": 0.3, "trt": -0.6}, "kappa": -0.5,
            "follow_up": 15.0, "censoring": 0.03,
        },
        {"lam": "x1 + trt"}, RIGHT,
    ),
    "interval censoring": ({"phi": PHI, "interval": 0.6}, {"phi": "x1 + trt"}, BETWEEN),
    "left censoring": ({"phi": PHI, "left": 0.5}, {"phi": "x1 + trt"}, BETWEEN),
    "left truncation": (
        {"phi": PHI, "entry": 1.0}, {"phi": "x1 + trt"}, RIGHT | {"entry": "entry"},
    ),
    "weights, robust": ({"phi": PHI}, {"phi": "x1 + trt"}, RIGHT | {"weights": "w"}),
    "clusters": (
        {"phi": PHI, "cluster_size": 5, "correlation": 0.5}, {"phi": "x1 + trt"},
        RIGHT | {"cluster": "cluster"},
    ),
}  # fmt: skip


def simulate(name: str, n: int, seed: np.random.SeedSequence) -> tuple[pd.DataFrame, Any]:
    options = {"gamma": {"Intercept": 0.2}, "kappa": 0.5} | DESIGNS[name][0]
    if not name.startswith("weights"):
        data, truth = make_survival(n, **options, rng=seed)
        return data, truth
    # Who has the event, and who has high x1, is sampled more often, and weighs less for it.
    everybody, truth = make_survival(4 * n, **options, rng=seed)
    sampled = expit(-2.0 + 1.2 * everybody["event"] + 0.7 * everybody["x1"])
    kept = np.random.default_rng(seed.spawn(1)[0]).random(4 * n) < sampled
    return everybody.assign(w=1 / sampled)[kept], truth


def truths(name: str, truth: Any) -> dict[str, float]:
    """The estimands of a design."""
    out = {
        f"{parameter}: {term}": value
        for parameter in ("phi", "lam", "gamma")
        for term, value in getattr(truth, parameter).items()
    }
    out["kappa"] = truth.kappa

    def survival(t: float) -> float:
        return float(truth.survival(PERSON, [t])[0, 0])

    out[f"survival at {TIME:g}"] = survival(TIME)
    out[f"restricted mean to {HORIZON:g}"] = integrate.quad(survival, 0, HORIZON)[0]
    if truth.kappa < 0:
        out["cure probability"] = survival(np.inf)
    return out


def intervals(model: SurvivalRegression) -> dict[str, pd.Series]:
    """What the fit says of each estimand."""
    out = {}
    for _, row in model.to_frame().iterrows():
        kappa = row["parameter"] == "kappa"
        out["kappa" if kappa else f"{row['parameter']}: {row['term']}"] = row
    out[f"survival at {TIME:g}"] = model.predict_survival(PERSON, TIME, ci=True).iloc[0]
    rmst = model.predict_rmst(PERSON, HORIZON, ci=True)
    out[f"restricted mean to {HORIZON:g}"] = rmst.iloc[0]
    if model.result_.kappa < 0:
        out["cure probability"] = model.predict_cure(PERSON, ci=True).iloc[0]
    return out


def replicate(name: str, n: int, replications: int, seed: int) -> pd.DataFrame:
    """Estimates, standard errors and covered truths of every replication."""
    rows = []
    _, options, roles = DESIGNS[name]
    for child in np.random.SeedSequence(seed).spawn(replications):
        data, truth = simulate(name, n, child)
        # One starting value, which is not the truth, saves half of the time.
        model = SurvivalRegression(**options, starts=[-0.3 if truth.kappa < 0 else 0.1])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", CausalRMWarning)
            model.fit(data, **roles)
        found = intervals(model)
        expected = truths(name, truth)
        if truth.kappa < 0:  # of the people in the fit, whoever they are
            expected["mean cure fraction"] = float(truth.survival(data, [np.inf]).mean())
            if model.result_.cure is not None:
                cure = model.result_.cure_fraction()
                found["mean cure fraction"] = pd.Series(vars(cure))
        for quantity, value in expected.items():
            row = found.get(quantity)
            known = row is not None
            rows.append(
                {
                    "design": name, "quantity": quantity, "truth": value,
                    "estimate": row["estimate"] if known else math.nan,
                    "se": row["std_error"] if known else math.nan,
                    "covered": known and row["conf_low"] <= value <= row["conf_high"],
                    "warned": bool(caught),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Bias in standard deviations, median standard error over standard deviation, coverage."""
    out = []
    for (design, quantity), part in rows.groupby(["design", "quantity"], sort=False):
        error = part["estimate"] - part["truth"]
        # kappa has a long tail to the right; its quartiles have not
        sd = float(stats.iqr(error, nan_policy="omit") / (2 * stats.norm.ppf(0.75)))
        out.append(
            {
                "design": design, "quantity": quantity, "replications": len(part),
                "truth": part["truth"].mean(), "mean_estimate": part["estimate"].mean(),
                "median_bias_in_sd": error.median() / sd,
                "se_over_sd": part["se"].median() / sd, "coverage": part["covered"].mean(),
                "warned": part["warned"].mean(),
            }
        )  # fmt: skip
    return pd.DataFrame(out)


def check(summary: pd.DataFrame, level: float = 0.9995) -> None:
    """Coverage, bias and standard errors within Monte Carlo error.

    Besides Monte Carlo error the bias may be .15 standard deviations, the standard error 5 % and
    the coverage 1.5 % off: the finite-sample error of maximum likelihood with a shape parameter.
    """
    z = stats.norm.ppf(0.5 + 0.5 * level)
    problems = []
    for row in summary.itertuples():
        m = row.replications
        wrong = {
            "bias": abs(row.median_bias_in_sd) > 0.15 + z * 1.25 / math.sqrt(m),
            "standard error": abs(row.se_over_sd - 1) > 0.05 + z * 1.17 / math.sqrt(m),
            "coverage": abs(row.coverage - 0.95) > 0.015 + z * math.sqrt(0.95 * 0.05 / m),
            "warnings": row.warned > 0.02 + z * math.sqrt(0.02 / m),
        }
        problems += [f"{row}: {what}" for what, is_wrong in wrong.items() if is_wrong]
    assert not problems, "\n".join(problems)
    pooled = float(summary["coverage"].mean())
    assert abs(pooled - 0.95) < 0.01 + z * math.sqrt(0.0475 / summary["replications"].sum() * 4)


@pytest.mark.parametrize("name", DESIGNS)
def test_intervals_cover_in_few_replications(name: str) -> None:
    check(summarise(replicate(name, 300, 40, seed=5)))


def test_the_stored_simulation_covers() -> None:
    stored = pd.read_csv(RESULTS)
    assert set(stored["design"]) == set(DESIGNS)
    assert (stored["replications"] >= 1000).all()
    check(stored)
    for name in DESIGNS:
        _, truth = simulate(name, 10, np.random.SeedSequence(0))
        part = stored[stored["design"] == name].set_index("quantity")
        for quantity, value in truths(name, truth).items():
            assert part.loc[quantity, "truth"] == pytest.approx(value, rel=1e-5)


def test_what_robust_covariances_are_for() -> None:
    # else the designs with weights and clusters would prove nothing
    data, _ = simulate("clusters", 3000, np.random.SeedSequence(1))
    model = SurvivalRegression("x1 + trt").fit(data, **RIGHT, cluster="cluster")
    naive = SurvivalRegression.from_result(model.result_.with_covariance("model"))
    errors = [m.predict_survival(PERSON, TIME, ci=True)["std_error"] for m in (model, naive)]
    assert errors[0].iloc[0] > 1.25 * errors[1].iloc[0]
    sample, truth = simulate("weights, robust", 4000, np.random.SeedSequence(1))
    expected = float(truth.survival(PERSON, [TIME])[0, 0])
    distances = []
    for roles in (RIGHT, RIGHT | {"weights": "w"}):
        model = SurvivalRegression("x1 + trt").fit(sample, **roles)
        row = model.predict_survival(PERSON, TIME, ci=True).iloc[0]
        distances.append(abs(row["estimate"] - expected) / row["std_error"])
    assert distances[0] > 5 and distances[1] < 3


@pytest.mark.slow
@pytest.mark.parametrize("name", DESIGNS)
def test_intervals_cover_in_many_replications(name: str) -> None:
    check(summarise(replicate(name, 500, 1000, seed=2020)))


if __name__ == "__main__":
    replications, size = [int(v) for v in sys.argv[1:]] + [1000, 500][len(sys.argv) - 1 :]
    parts = [summarise(replicate(name, size, replications, seed=2020)) for name in DESIGNS]
    pd.concat(parts).round(8).to_csv(RESULTS, index=False, float_format="%.6g")
