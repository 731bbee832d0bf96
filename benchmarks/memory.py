"""Time and memory of every estimator on one million rows.

Every estimator runs in a process of its own. It is fitted once to a few thousand rows, so that
compiled code and libraries are there; then the peak of the process is reset, and what the large fit
adds to the memory that the process holds with its data is its cost. Linux only.

    python benchmarks/memory.py                    # 1e6 rows, about ten minutes
    python benchmarks/memory.py --only BradleyTerry
    python benchmarks/memory.py --rows 1e5         # nothing is stored

Writes benchmarks/results/memory.txt.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import causalrm as crm

RESULTS = Path(__file__).resolve().parent / "results" / "memory.txt"
FEATURES = [f"x{j}" for j in range(10)]
WORDS = np.array("the of and to in is it was for on are as with his they at be this from".split())


def numbers(n: int) -> pd.DataFrame:
    """Features, a treatment, a continuous and a 0/1 outcome, a confounder, groups."""
    rng = np.random.default_rng(1)
    data = pd.DataFrame(rng.normal(size=(n, 10)), columns=FEATURES)
    risk = 1 / (1 + np.exp(1.0 - data["x0"]))
    data["p"] = risk
    data["y"] = (rng.random(n) < risk).astype(int)
    data["treated"] = (rng.random(n) < 1 / (1 + np.exp(-data["x1"]))).astype(int)
    data["hour"] = 0.5 * data["x2"] + rng.normal(size=n)
    data["clicks"] = data["x0"] + 0.5 * data["hour"] + 0.3 * data["treated"] + rng.normal(size=n)
    data["site"] = rng.integers(0, 1000, n)
    return data


def survival_rows(n: int) -> pd.DataFrame:
    """Right-censored times with three covariates."""
    phi = {"Intercept": -0.5, "x1": 0.3, "x2": -0.2, "trt": -0.5}
    return crm.datasets.make_survival(n, phi=phi, rng=1).data


def votes(n: int) -> pd.DataFrame:
    """Comparisons of 40 items with ties."""
    rng = np.random.default_rng(2)
    a, shift = rng.integers(0, 40, n), rng.integers(1, 40, n)
    b = (a + shift) % 40
    p = 1 / (1 + np.exp((b - a) / 30))
    u = rng.random(n)
    outcome = np.select([u < 0.9 * p, u < 0.9 * p + 0.1], [1.0, 0.5], 0.0)
    return pd.DataFrame({"a": a, "b": b, "outcome": outcome})


def selected(n: int) -> pd.DataFrame:
    """Outcomes that are seen for the tested only; every row is different."""
    data = crm.datasets.make_selective_labels(n, rng=3).data
    rng = np.random.default_rng(3)
    data[["x1", "x2"]] += rng.normal(size=(n, 2)) * 1e-3
    u = rng.normal(size=n)
    data["seen"] = (data["x1"] + rng.normal(size=n) > 0).astype(int)
    wage = 1 + 0.5 * data["x2"] + u
    data["wage"] = wage.where(data["seen"] == 1)
    return data


def texts(n: int) -> pd.DataFrame:
    """Pairs of short answers; the longer is preferred more often."""
    rng = np.random.default_rng(4)

    def sentences() -> list[str]:
        lengths = rng.integers(4, 12, n)
        words = WORDS[rng.integers(0, len(WORDS), lengths.sum())]
        return [" ".join(part) for part in np.split(words, np.cumsum(lengths)[:-1])]

    return pd.DataFrame(
        {"query": (np.arange(n) % 500).astype(str), "chosen": sentences(), "rejected": sentences()}
    )


def choices(n: int) -> pd.DataFrame:
    """Occasions with three options each."""
    rng = np.random.default_rng(5)
    m = n // 3
    data = pd.DataFrame({"occasion": np.repeat(np.arange(m), 3)})
    data["price"], data["speed"] = rng.normal(size=(2, 3 * m))
    utility = data["speed"] - data["price"] + rng.gumbel(size=3 * m)
    best = utility.to_numpy().reshape(m, 3).argmax(axis=1)
    data["chosen"] = (np.tile(np.arange(3), m) == np.repeat(best, 3)).astype(int)
    return data


def shapley(d: pd.DataFrame) -> Any:
    """All coalitions of as many players as there are powers of two in the rows."""
    n = int(np.log2(len(d)))
    weight = np.linspace(-1, 1, n)
    value = lambda z: np.tanh(z @ weight)  # noqa: E731
    budget = crm.Budget(calls=2**n)
    return crm.PromptShapley(method="exact", budget=budget, rng=0).fit(
        [f"p{j}" for j in range(n)], value
    )


def reward_of_features(d: pd.DataFrame) -> Any:
    """A pair of neighbouring rows is a comparison."""
    x = d[FEATURES].to_numpy()
    other = x[::-1]
    noise = np.random.default_rng(6).logistic(size=len(d))
    return crm.PreferenceRewardModel().fit(x, other, x[:, 0] - other[:, 0] + noise > 0)


def contrast(d: pd.DataFrame) -> Any:
    """Standardized survival curves of the treated and the untreated."""
    fit = crm.SurvivalRegression(phi="x1 + x2 + trt").fit(d, time="time", event="event")
    return crm.survival.standardized_contrast(fit, d, treatment="trt", times=[1.0])


SURVIVAL = {"time": "time", "event": "event"}
JOBS: dict[str, tuple[Callable[[int], pd.DataFrame], Callable[[pd.DataFrame], Any]]] = {
    "SurvivalRegression": (
        survival_rows, lambda d: crm.SurvivalRegression(phi="x1 + x2 + trt").fit(d, **SURVIVAL),
    ),
    "survival.select": (
        survival_rows,
        lambda d: crm.survival.select(d, "x1 + trt", families=("weibull", "free"), **SURVIVAL),
    ),
    "survival.standardized_contrast": (survival_rows, contrast),
    "BradleyTerry": (
        votes, lambda d: crm.BradleyTerry().fit(d, a="a", b="b", outcome="outcome"),
    ),
    "Thurstone": (
        votes, lambda d: crm.Thurstone(penalty=1.0).fit(d, a="a", b="b", outcome="outcome"),
    ),
    "GeneralPreference": (
        votes, lambda d: crm.GeneralPreference(rank=2).fit(d, a="a", b="b", outcome="outcome"),
    ),
    "PreferenceRewardModel": (numbers, reward_of_features),
    "RobustRewardModel (hashed texts)": (
        texts,
        lambda d: crm.RobustRewardModel().fit(
            d, query="query", chosen="chosen", rejected="rejected"
        ),
    ),
    "DeconfoundedReward": (
        numbers,
        lambda d: crm.DeconfoundedReward(rng=0).fit(
            d, outcome="clicks", text=FEATURES, confounders="hour"
        ),
    ),
    "deconfound.average_effect (aipw)": (
        numbers,
        lambda d: crm.deconfound.average_effect(
            d, outcome="clicks", treatment="treated", covariates=FEATURES, rng=0
        ),
    ),
    "deconfound.absorbed_regression": (
        numbers,
        lambda d: crm.deconfound.absorbed_regression(
            d, y="clicks", x=["x0", "hour"], absorb=["site"], cluster="site"
        ),
    ),
    "deconfound.offset_reward": (
        numbers,
        lambda d: crm.deconfound.offset_reward(
            d, outcome="y", text=FEATURES, confounders=["hour"]
        ),
    ),
    "deconfound.policy_value": (
        numbers,
        lambda d: crm.deconfound.policy_value(
            d, action="treated", reward="clicks", policy=lambda x: (x["x0"] > 0).astype(int),
            covariates=FEATURES, rng=0,
        ),
    ),
    "calibration_report": (numbers, lambda d: crm.calibration_report(d["y"], d["p"], rng=0)),
    "calibration.multicalibration_audit": (
        numbers,
        lambda d: crm.calibration.multicalibration_audit(
            d["y"], d["p"], d[["x1", "x2", "treated"]]
        ),
    ),
    "calibration.IsotonicCalibration": (
        numbers, lambda d: crm.calibration.IsotonicCalibration().fit(d["p"], d["y"]),
    ),
    "SelectiveLabelsModel": (
        selected,
        lambda d: crm.SelectiveLabelsModel(risk="x1 + x2").fit(
            d, tested="tested", outcome="outcome"
        ),
    ),
    "HeckmanModel": (
        selected,
        lambda d: crm.HeckmanModel(outcome="x2", selection="x1 + x2").fit(
            d, selected="seen", outcome="wage"
        ),
    ),
    "PromptShapley (exact)": (lambda n: pd.DataFrame({"row": np.arange(n)}), shapley),
    "attribution.conditional_logit": (
        choices,
        lambda d: crm.attribution.conditional_logit(
            d, attributes=["price", "speed"], occasion="occasion", chosen="chosen"
        ),
    ),
}  # fmt: skip


def memory(name: str) -> float:
    """A line of the process's memory, in MB: VmRSS (held now) or VmHWM (its peak)."""
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+) kB", text)[1]) / 1024


def job(name: str, n: int) -> None:
    """One fit; prints what it measured as JSON."""
    warnings.simplefilter("ignore")
    make, fit = JOBS[name]
    fit(make(4096))
    data = make(n)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    held, begin = memory("VmRSS"), time.perf_counter()
    kept = fit(data)
    seconds = time.perf_counter() - begin
    size = data.memory_usage(deep=True).sum() / 2**20
    print(json.dumps({"seconds": seconds, "data": size, "mb": memory("VmHWM") - held}))
    del kept


def main() -> None:
    """Run the jobs one after the other, and store what they measured."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=float, default=1e6)
    parser.add_argument("--only", help="the first letters of one estimator")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    n = int(options.rows)
    if options.job:
        return job(options.job, n)
    title = f"{'n = ' + format(n, ','):<40} {'seconds':>8} {'data, MB':>9} {'beyond, MB':>11}"
    stored = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    lines = {line[:40].strip(): line for line in stored[3:]} if title in stored else {}
    failed = []
    print(title)
    for name in JOBS:
        if not name.startswith(options.only or ""):
            continue
        command = [sys.executable, __file__, "--job", name, "--rows", str(n)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
        if done.returncode:
            failed.append(f"{name}: {done.stderr[-2000:]}")
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        lines[name] = (
            f"{name:<40} {found['seconds']:>8.1f} {found['data']:>9,.0f} {found['mb']:>11,.0f}"
        )
        print(lines[name], flush=True)
    if failed:
        raise RuntimeError("\n".join(failed))
    if n == 1_000_000:
        packages = ("causalrm", "numpy", "pandas", "numba", "econml", "pymc")
        versions = ", ".join(f"{p} {version(p)}" for p in packages)
        head = f"{platform.machine()}, {os.cpu_count()} cores; {versions}"
        ordered = [lines[name] for name in JOBS if name in lines]
        RESULTS.write_text("\n".join([head, "", title, *ordered, ""]))


if __name__ == "__main__":
    main()
