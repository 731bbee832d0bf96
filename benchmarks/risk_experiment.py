"""The synthetic experiment of Balachandar, Garg and Pierson (2024), by the sigma grid.

Each data set (5,000 simulated people, five columns with the intercept) is fitted without a
constraint, under the expertise constraint and under the prevalence constraint: with the
prevalence of the sample met exactly, which is how the paper takes it, and with its binomial
standard error. Stored per data set, fit and parameter are the mean width of the 95 % intervals,
the mean absolute error of the posterior means, and the share of intervals that hold the truth.

    python benchmarks/risk_experiment.py 60 --seconds 1500

adds data sets to ``benchmarks/results/risk_experiment.csv`` up to that number.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import numpy as np

import causalrm as crm

RESULTS = Path(__file__).parent / "results" / "risk_experiment.csv"
FIELDS = ["data_set", "constraint", "parameter", "width", "error", "covered", "k_hat", "method"]
FORMULA = "x1 + x2 + x3 + x4"
TESTED_ON = ["x1"]  # beside the intercept, the first of its two columns


def constraints(prevalence: float) -> dict[str, list[Any]]:
    """The fits of the experiment."""
    return {
        "none": [],
        "expertise": [crm.Expertise(free=TESTED_ON)],
        "prevalence": [crm.Prevalence(prevalence, hard=True)],
        "prevalence, binomial se": [crm.Prevalence(prevalence)],
    }


def one_data_set(seed: int) -> list[dict[str, Any]]:
    """Simulate a data set, fit it in all ways, and compare with the truth."""
    data, truth = crm.datasets.make_selective_labels(5000, rng=seed)
    rows = []
    for name, given in constraints(truth.prevalence).items():
        model = crm.SelectiveLabelsModel(FORMULA, constraints=given, fan=False, rng=seed)
        fit = model.fit(data, tested="tested", outcome="outcome")
        frame = fit.to_frame()
        true = [
            truth.sigma if p == "sigma" else getattr(truth, p)[t]
            for p, t in zip(frame["parameter"], frame["term"], strict=True)
        ]
        frame["width"] = frame["conf_high"] - frame["conf_low"]
        frame["error"] = np.abs(frame["estimate"] - true)
        frame["covered"] = (frame["conf_low"] <= true) & (np.array(true) <= frame["conf_high"])
        free = (frame["parameter"] != "testing") | frame["term"].isin(["Intercept", *TESTED_ON])
        means = frame[free].groupby("parameter", sort=False)[["width", "error", "covered"]].mean()
        for parameter, row in means.iterrows():
            rows.append(
                {"data_set": seed, "constraint": name, "parameter": parameter}
                | {k: round(float(v), 5) for k, v in row.items()}
                | {
                    "k_hat": round(fit.result_.diagnostics.get("khat", np.nan), 3),
                    "method": fit.result_.method,
                }
            )
    return rows


def main() -> None:
    """Add data sets until there are enough, or time is up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data_sets", type=int, nargs="?", default=60)
    parser.add_argument("--seconds", type=float, default=1800)
    options = parser.parse_args()
    begin = time.monotonic()
    done: set[int] = set()
    if RESULTS.exists():
        with RESULTS.open(encoding="utf-8") as file:
            done = {int(row["data_set"]) for row in csv.DictReader(file)}
    for seed in range(1, options.data_sets + 1):
        if seed in done:
            continue
        if time.monotonic() - begin > options.seconds:
            print(f"time is up before data set {seed}")
            break
        rows = one_data_set(seed)
        new = not RESULTS.exists()
        with RESULTS.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
