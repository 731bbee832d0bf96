"""Statistical truth of the contrasts: intervals cover as often as they say.

The simulated population has a treatment and censoring that depend on the covariates, an effect on
scale and shape, and an effect that varies with a covariate. Running this file writes the summary of
the full simulation to results/contrast_coverage.csv:

    python tests/survival/test_contrast_coverage.py [replications [rows]]
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
from scipy import stats

from causalrm.core.errors import IdentificationWarning
from causalrm.datasets import make_survival
from causalrm.survival import SurvivalRegression
from causalrm.survival.contrast import standardized_contrast

RESULTS = Path(__file__).parent / "results" / "contrast_coverage.csv"
TIMES, HORIZON = (0.7, 1.5), 2.0
TRUTH: dict[str, Any] = {
    "phi": {"Intercept": -0.4, "x1": 0.5, "x2": -0.3, "trt": -0.5, "trt:x1": 0.2},
    "gamma": {"Intercept": 0.3, "trt": 0.2},
    "kappa": 0.5,
    "treatment": {"x1": 0.6, "x2": 0.5},
    "censoring": {"Intercept": -1.6, "trt": 0.3, "x1": 0.4},
}
RIGHT, NAIVE = "trt * x1 + x2", "trt"
SCENARIOS: dict[str, tuple[str, dict[str, Any]]] = {
    "g-formula": (RIGHT, {"method": "gformula"}),
    "aipw": (RIGHT, {"method": "aipw"}),
    "aipw, outcome wrong": (
        NAIVE, {"method": "aipw", "propensity": "x1 + x2", "censoring": "trt + x1 + x2"},
    ),
    "aipw, propensity and censoring wrong": (
        RIGHT, {"method": "aipw", "propensity": "x2", "censoring": "1"},
    ),
    "aipw, 5 folds": (RIGHT, {"method": "aipw", "folds": 5}),
}  # fmt: skip


def replicate(
    n: int, replications: int, scenarios: list[str], seed: int, kappa: float | str = "free"
) -> pd.DataFrame:
    """Estimates, standard errors and covered truths of every replication."""
    rows = []
    start = [math.log(1.5)] if kappa == "free" else None
    truth = make_survival(1, **TRUTH).truth
    target = [
        *(truth.marginal_survival(TIMES, 1) - truth.marginal_survival(TIMES, 0)),
        truth.marginal_rmst(HORIZON, 1) - truth.marginal_rmst(HORIZON, 0),
    ]
    for r, child in enumerate(np.random.SeedSequence(seed).spawn(replications)):
        data = make_survival(n, **TRUTH, rng=child).data
        fits: dict[str, SurvivalRegression] = {}
        for name in scenarios:
            phi, options = SCENARIOS[name]
            with warnings.catch_warnings():  # small propensities, few censored rows
                warnings.simplefilter("ignore", IdentificationWarning)
                if phi not in fits:
                    model = SurvivalRegression(phi=phi, gamma="trt", kappa=kappa, starts=start)
                    fits[phi] = model.fit(data, time="time", event="event")
                result = standardized_contrast(
                    fits[phi], data, treatment="trt", times=TIMES, rmst=HORIZON, rng=r, **options
                )
            frame = result.to_frame()
            frame = frame[frame["parameter"].str.endswith("difference")]
            for value, (_, row) in zip(target, frame.iterrows(), strict=True):
                rows.append(
                    {
                        "scenario": name, "quantity": f"{row['parameter']} at {row['time']:g}",
                        "truth": value, "estimate": row["estimate"], "se": row["std_error"],
                        "covered": row["conf_low"] <= value <= row["conf_high"],
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Bias in standard deviations, ratio of mean standard error to standard deviation, coverage."""
    out = []
    for (scenario, quantity), part in rows.groupby(["scenario", "quantity"], sort=False):
        sd = float(part["estimate"].std(ddof=1))
        out.append(
            {
                "scenario": scenario, "quantity": quantity, "replications": len(part),
                "truth": part["truth"].iloc[0], "mean_estimate": part["estimate"].mean(),
                "bias_in_sd": (part["estimate"] - part["truth"]).mean() / sd,
                "se_over_sd": part["se"].mean() / sd, "coverage": part["covered"].mean(),
            }
        )  # fmt: skip
    return pd.DataFrame(out)


def check(summary: pd.DataFrame, level: float = 0.999) -> None:
    """Coverage, bias and standard errors within the Monte Carlo error of that level."""
    z = stats.norm.ppf(0.5 + 0.5 * level)
    for row in summary.itertuples():
        m = row.replications
        where = f"{row.scenario}, {row.quantity}"
        assert abs(row.bias_in_sd) < z / math.sqrt(m), where
        assert abs(row.se_over_sd - 1) < z / math.sqrt(2 * m), where
        assert abs(row.coverage - 0.95) < z * math.sqrt(0.95 * 0.05 / m), where


def test_intervals_cover_in_few_replications() -> None:
    scenarios = ["g-formula", "aipw, outcome wrong", "aipw, propensity and censoring wrong"]
    rows = replicate(300, 30, scenarios, seed=11, kappa=0.5)
    check(summarise(rows), level=0.9999)


def test_a_wrong_outcome_model_alone_is_biased() -> None:
    # else the scenarios above would prove nothing
    rows = replicate(4000, 1, ["aipw, outcome wrong"], seed=3, kappa=0.5)
    data, truth = make_survival(4000, **TRUTH, rng=3)
    fit = SurvivalRegression(phi=NAIVE, gamma="trt").fit(data, time="time", event="event")
    naive = standardized_contrast(fit, data, treatment="trt", rmst=HORIZON).contrast(rmst=HORIZON)
    target = truth.marginal_rmst(HORIZON, 1) - truth.marginal_rmst(HORIZON, 0)
    assert abs(naive.estimate - target) > 4 * naive.std_error
    assert (abs(rows["estimate"] - rows["truth"]) < 3.5 * rows["se"]).all()


def test_the_stored_simulation_covers() -> None:
    stored = pd.read_csv(RESULTS)
    assert set(stored["scenario"]) == set(SCENARIOS)
    assert (stored["replications"] >= 500).all()
    check(stored)


@pytest.mark.slow
def test_intervals_cover_in_many_replications() -> None:
    rows = replicate(500, 500, list(SCENARIOS), seed=2020)
    check(summarise(rows))


if __name__ == "__main__":
    size = [int(v) for v in sys.argv[1:]] + [1000, 500][len(sys.argv) - 1 :]
    table = summarise(replicate(size[1], size[0], list(SCENARIOS), seed=2020))
    table.insert(2, "rows", size[1])
    RESULTS.parent.mkdir(exist_ok=True)
    table.round(5).to_csv(RESULTS, index=False)
    print(table.to_string())
