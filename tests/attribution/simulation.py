"""Coverage of the intervals of `PromptShapley`, end to end, on simulated games with known truth.

Run as a script it writes the summary that `test_coverage.py` reads:
python -m tests.attribution.simulation 300
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

import causalrm as crm
from causalrm.attribution import SetFunction
from tests.attribution.games import sigmoid, unanimity

SUMMARY = Path(__file__).parents[1] / "reference" / "attribution" / "coverage.csv"
SCORES = np.array([0.0, 0.5, 1.0])


def bernoulli(value, rng):
    return SetFunction(lambda Z: rng.random(len(Z)) < value(Z), binary=True)


def multinomial(value, rng):
    """Each reply is one of three outcomes, with scores whose mean is the value."""

    def reply(Z):
        p = value(Z)
        u = rng.random(len(Z))
        return SCORES[(u > (1 - p) ** 2).astype(int) + (u > 1 - p**2)]

    return SetFunction(reply, replies=4)


# name: players, method, replies, budget
SETTINGS = {
    "deterministic, regression": (10, "kernel", None, {"calls": 160}),
    "deterministic, auto": (10, "auto", None, {"calls": 160}),
    "bernoulli, all coalitions": (6, "auto", bernoulli, {"calls": 640}),
    "bernoulli, regression": (10, "kernel", bernoulli, {"calls": 400}),
    "bernoulli, auto": (10, "auto", bernoulli, {"calls": 400}),
    "multinomial, all coalitions": (6, "auto", multinomial, {"calls": 640}),
    "multinomial, regression": (10, "kernel", multinomial, {"calls": 800}),
    "adaptive, all coalitions": (6, "auto", bernoulli, {"calls": 20_000, "target_se": 0.03}),
    "adaptive, regression": (10, "kernel", bernoulli, {"calls": 900, "target_se": 0.09}),
}
SLOW = ("deterministic, auto", "bernoulli, auto")


def coverage(name, reps, seed):
    n, method, noisy, budget = SETTINGS[name]
    hits, z, calls = [], [], []
    for r in range(reps):
        rng = np.random.default_rng([seed, r])
        # The link surrogate fits a sigmoid game exactly, which would be no test of intervals
        value, phi = (unanimity if name == "deterministic, auto" else sigmoid)(n, rng)
        game = value if noisy is None else noisy(value, rng)
        found = crm.PromptShapley(method, crm.Budget(**budget), rng=r).fit(
            [f"p{i}" for i in range(n)], game
        )
        frame = found.to_frame()
        inside = (frame["conf_low"] - 1e-12 <= phi) & (phi <= frame["conf_high"] + 1e-12)
        hits.append(inside.mean())
        z += ((frame["estimate"] - phi) / np.maximum(frame["std_error"], 1e-12)).tolist()
        calls.append(found.result_.n_obs)
    return {
        "setting": name,
        "reps": reps,
        "coverage": np.mean(hits),
        "mc_error": np.std(hits) / np.sqrt(reps),
        "rms_z": np.sqrt(np.mean(np.square(z))),
        "mean_calls": np.mean(calls),
    }


if __name__ == "__main__":
    many = int(sys.argv[1])
    rows = []
    for name in sorted(SETTINGS, key=lambda s: s in SLOW):
        rows.append(coverage(name, max(many // 5, 2) if name in SLOW else many, 1))
        print(rows[-1], flush=True)
        pd.DataFrame(rows).round(4).to_csv(SUMMARY, index=False)
