"""Statistical truth of the diagnostics: intervals cover as often as they say.

Brier scores and concordances are those of a fit that stays the same, on new simulated rows; the
truth is that of a large uncensored sample. Calibration is that of the parameters behind the rows.
Running this file writes the summary of the full simulation to results/diagnostics_coverage.csv:

    python tests/survival/test_diagnostics_coverage.py [replications [rows]]
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from causalrm.datasets import make_survival
from causalrm.survival import SurvivalRegression
from causalrm.survival.diagnostics import brier_score, calibration, concordance

RESULTS = Path(__file__).parent / "results" / "diagnostics_coverage.csv"
PHI = {"Intercept": -0.5, "x1": 0.6, "x2": -0.3, "trt": -0.5}
GAMMA = {"Intercept": 0.3, "trt": 0.2}
TIME, HORIZON = 1.0, 2.0


def simulated(n: int, rng: Any) -> Any:
    return make_survival(n, phi=PHI, gamma=GAMMA, kappa=0.5, censoring=0.2, rng=rng)


@functools.cache
def fits() -> tuple[Any, Any]:
    """A fit, and a result with the parameters of the simulation."""
    data = simulated(600, 99).data
    fit = SurvivalRegression("x1 + x2 + trt").fit(data, time="time", event="event")
    model = SurvivalRegression("x1 + x2 + trt", gamma="trt", kappa=0.5)
    result = model.fit(data, time="time", event="event").result_
    values = {"phi": PHI, "gamma": GAMMA}
    theta = [values[p][t] for p, t in zip(result.parameter, result.term, strict=True)]
    return fit, dataclasses.replace(result, estimates=np.array(theta))


@functools.cache
def target(n: int = 100_000) -> dict[str, float]:
    """What the scores of the fit estimate, from `n` rows without censoring."""
    data, truth = simulated(n, 5)
    fit, lives = fits()[0], truth.event_time
    grid = np.linspace(0, HORIZON, 101)[1:]
    weights = np.full(100, 0.01)
    weights[-1] = 0.005
    survival = fit.predict_survival(data, grid).to_numpy()
    free = lives[:, None] > grid
    model = ((free - survival) ** 2).mean(axis=0)
    null = free.mean(axis=0) * (1 - free.mean(axis=0))
    at = int(np.argmin(np.abs(grid - TIME)))
    out = {}
    for name, pair in (
        ("at time", (model[at], null[at])), ("integrated", (weights @ model, weights @ null)),
    ):  # fmt: skip
        out[f"Brier {name}, model"], out[f"Brier {name}, null"] = map(float, pair)
        out[f"Brier {name}, scaled"] = float(1 - pair[0] / pair[1])
    out["Harrell"] = concordance(fit, data, HORIZON).estimate
    all_seen = data.assign(time=lives, event=1)
    out["Uno"] = concordance(fit, all_seen, HORIZON).estimate
    return out


def replicate(n: int, replications: int, seed: int, large: int = 100_000) -> pd.DataFrame:
    """Error, standard error and coverage of every interval in every replication."""
    (fit, right), truth = fits(), target(large)
    rows: list[tuple[str, float, float, bool]] = []

    def add(quantity: str, value: float, x: Any) -> None:
        covered = bool(x.conf_low <= value <= x.conf_high)
        rows.append((quantity, float(x.estimate) - value, float(x.std_error), covered))

    for child in np.random.SeedSequence(seed).spawn(replications):
        data = simulated(n, child).data
        for row in brier_score(fit, data, [TIME, HORIZON]).to_frame().itertuples():
            if row.group == "integrated" or row.time == TIME:
                add(name := f"Brier {row.group}, {row.term}", truth[name], row)
        add("Harrell", truth["Harrell"], concordance(fit, data, HORIZON))
        add("Uno", truth["Uno"], concordance(fit, data, HORIZON, "uno"))
        found = calibration(right, data, TIME, groups=4)
        for row in found.statistics().iloc[:3].itertuples():
            add(str(row.term), 1.0, row)
        for row in found.to_frame().itertuples():
            add(f"risk in group {row.group}", row.predicted, row)
        middle = found.curve().iloc[50]
        add("middle of the curve", float(middle["predicted"]), middle)
        rows.append(("test of calibration", 0.0, math.nan, found.test.p_value > 0.05))
    return pd.DataFrame(rows, columns=["quantity", "error", "se", "covered"])


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Bias in standard deviations, ratio of mean standard error to standard deviation, coverage."""
    out = []
    for quantity, part in rows.groupby("quantity", sort=False):
        sd = float(part["error"].std(ddof=1))
        out.append(
            {
                "quantity": quantity, "replications": len(part),
                "bias_in_sd": part["error"].mean() / sd if sd else math.nan,
                "se_over_sd": part["se"].mean() / sd if sd else math.nan,
                "coverage": part["covered"].mean(),
            }
        )  # fmt: skip
    return pd.DataFrame(out)


def check(summary: pd.DataFrame, level: float) -> None:
    """Within Monte Carlo error and what is left in finite samples: .15 sd, 6 % and 2 %."""
    z = stats.norm.ppf(0.5 + 0.5 * level)
    for row in summary.itertuples():
        m = row.replications
        assert abs(row.coverage - 0.95) < 0.02 + z * math.sqrt(0.95 * 0.05 / m), row.quantity
        if not math.isnan(row.bias_in_sd):
            assert abs(row.bias_in_sd) < 0.15 + z / math.sqrt(m), row.quantity
            assert abs(row.se_over_sd - 1) < 0.06 + z / math.sqrt(2 * m), row.quantity


def test_intervals_cover_in_few_replications() -> None:
    check(summarise(replicate(300, 50, seed=11, large=20_000)), level=0.9999)


def test_the_stored_simulation_covers() -> None:
    stored = pd.read_csv(RESULTS)
    assert (stored["replications"] >= 1000).all() and len(stored) == 17
    check(stored, level=0.99)


@pytest.mark.slow
def test_intervals_cover_in_many_replications() -> None:
    check(summarise(replicate(300, 1000, seed=2021)), level=0.999)


if __name__ == "__main__":
    size = [int(v) for v in sys.argv[1:]] + [2000, 300][len(sys.argv) - 1 :]
    table = summarise(replicate(size[1], size[0], seed=2020))
    table.insert(1, "rows", size[1])
    RESULTS.parent.mkdir(exist_ok=True)
    table.round(5).to_csv(RESULTS, index=False)
    print(table.to_string())
