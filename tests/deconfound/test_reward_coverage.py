"""Statistical truth of deconfounded rewards: intervals cover as often as they say.

Rows are simulated by `make_logged_rewards`; truths are closed forms. The value of choosing the
best of four is that of the fitted reward model, by its own linear score, over the population.
Running this file writes the summary of the full simulation to
tests/reference/deconfound/reward_coverage.csv:

    python tests/deconfound/test_reward_coverage.py [replications [rows]]
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
from causalrm.datasets import make_logged_rewards
from causalrm.deconfound import DeconfoundedReward

RESULTS = Path(__file__).parents[1] / "reference" / "deconfound" / "reward_coverage.csv"
FEATURES = ["quality", "noise", "style"]
ROLES: dict[str, Any] = {"outcome": "outcome", "text": FEATURES, "confounders": ["popularity"]}
BEST = stats.norm.expect(lambda z: z * 4 * stats.norm.cdf(z) ** 3)  # mean of the largest of four
CASES = {
    "plr": ("plr", {}, {}),
    "plr, 100 authors": ("plr", {"authors": 100}, {"cluster": "author"}),
    "joint": ("joint", {}, {}),
    "iv": ("iv", {"pi": 0.6, "hidden": 0.5}, {"instruments": ["instrument"]}),
    "residualise": ("residualise", {}, {}),
    "invariance": ("invariance", {}, {}),
}


def replicate(name: str, n: int, replications: int, seed: int) -> pd.DataFrame:
    """Error, standard error and coverage of every interval in every replication."""
    method, options, more = CASES[name]
    rows = []
    for child in np.random.SeedSequence(seed).spawn(replications):
        df, truth = make_logged_rewards(n, rng=child, **options)
        fit = DeconfoundedReward(method).fit(df, **ROLES, **more)
        limits = truth.limits(method)
        for row in fit.to_frame().itertuples():
            if row.term != "Intercept" and (method != "iv" or row.parameter == "confounder"):
                limit = limits[row.term]
                rows.append((f"{name}: {row.term}", row.estimate - limit, row.std_error,
                             row.conf_low <= limit <= row.conf_high))  # fmt: skip
        if method not in ("plr", "joint"):
            continue
        coef = fit.to_frame()["estimate"].to_numpy()[2:]
        s = truth.covariance()
        spread = math.sqrt(coef @ s.loc[FEATURES, FEATURES] @ coef)
        value = truth.beta * float(coef @ s.loc[FEATURES, "quality"]) / spread * BEST
        gain = fit.best_of_n(4).iloc[2]
        covered = gain["conf_low"] <= value <= gain["conf_high"]
        error = gain["estimate"] - value
        rows.append((f"{name}: gain of the best of four", error, gain["std_error"], covered))
    return pd.DataFrame(rows, columns=["quantity", "error", "se", "covered"])


def weak(n: int, replications: int, seed: int) -> pd.DataFrame:
    """Coverage of the Anderson-Rubin set, and of the Wald interval, with a weak instrument."""
    rows = []
    for child in np.random.SeedSequence(seed).spawn(replications):
        df, truth = make_logged_rewards(n, pi=0.06, hidden=2.0, rho=0.3, rng=child)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", IdentificationWarning)
            fit = DeconfoundedReward("iv").fit(df, instruments=["instrument"], **ROLES)
        inside = any(a <= truth.gamma <= b for a, b in fit.result_.anderson_rubin())
        row = fit.to_frame().iloc[0]
        error = row["estimate"] - truth.gamma
        rows.append(("weak iv: Anderson-Rubin", error, math.nan, inside))
        covered = row["conf_low"] <= truth.gamma <= row["conf_high"]
        rows.append(("weak iv: Wald, for contrast", error, row["std_error"], covered))
    return pd.DataFrame(rows, columns=["quantity", "error", "se", "covered"])


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Bias in standard deviations, ratio of mean standard error to standard deviation, coverage."""
    out = []
    for quantity, part in rows.groupby("quantity", sort=False):
        sd = float(part["error"].std(ddof=1))
        out.append(
            {
                "quantity": quantity, "replications": len(part),
                "bias_in_sd": part["error"].mean() / sd, "se_over_sd": part["se"].mean() / sd,
                "coverage": part["covered"].mean(),
            }
        )  # fmt: skip
    return pd.DataFrame(out)


def check(summary: pd.DataFrame, level: float) -> None:
    """Within Monte Carlo error of 93 to 97 %, and for bias of .15 standard deviations."""
    z = stats.norm.ppf(0.5 + 0.5 * level)
    for row in summary.itertuples():
        m = row.replications
        if "contrast" in row.quantity:
            continue
        assert abs(row.coverage - 0.95) < 0.02 + z * math.sqrt(0.95 * 0.05 / m), row.quantity
        if "weak" not in row.quantity:
            assert abs(row.bias_in_sd) < 0.15 + z / math.sqrt(m), row.quantity


@pytest.mark.parametrize("name", CASES)
def test_intervals_cover_in_few_replications(name: str) -> None:
    check(summarise(replicate(name, 400, 40, seed=3)), level=0.9999)


def test_anderson_rubin_covers_with_a_weak_instrument() -> None:
    found = summarise(weak(400, 80, seed=5))
    check(found, level=0.9999)


def test_the_stored_simulation_covers() -> None:
    stored = pd.read_csv(RESULTS).set_index("quantity")
    assert (stored["replications"] >= 1000).all() and len(stored) == 26
    assert stored.drop("weak iv: Wald, for contrast")["coverage"].between(0.93, 0.97).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_intervals_cover_in_many_replications(name: str) -> None:
    check(summarise(replicate(name, 800, 1000, seed=7)), level=0.999)


if __name__ == "__main__":
    size = [int(v) for v in sys.argv[1:]] + [1000, 800][len(sys.argv) - 1 :]
    parts = [replicate(name, size[1], size[0], seed=2026) for name in CASES]
    table = summarise(pd.concat([*parts, weak(size[1], size[0], seed=2026)]))
    table.insert(1, "rows", size[1])
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    table.round(5).to_csv(RESULTS, index=False)
    print(table.to_string())
