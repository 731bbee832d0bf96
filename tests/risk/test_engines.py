"""The three engines on one posterior: the stored comparison, and how to repeat it.

Running this file draws every setting again by PyMC's NUTS and by nutpie, four chains each, about
a minute per setting, and writes means and sds beside those of the sigma grid to
results/engines.csv:

    python -m tests.risk.test_engines [setting ...]
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from causalrm.risk.grid import fit_grid
from causalrm.risk.problem import PrevalenceTerm, Problem
from causalrm.risk.rows import Scaling
from tests.risk.test_grid import scenario, scenarios

STORE = Path(__file__).with_name("results") / "engines.csv"
SAMPLERS = ("pymc", "nutpie")
SETTINGS = (*scenarios.SCENARIOS, "hard prevalence", "soft expertise")
DRAWS = dict.fromkeys(SETTINGS, 1000)  # per chain; more where chains mix slowly
DRAWS |= {"normal": 4000, "strong sigma": 2000, "both": 3000, "rare": 3000}
TUNE, CHAINS = 700, 4


def setting(name: str) -> Problem:
    """Problem of a stored posterior, or one of two further constraints."""
    if name == "hard prevalence":
        problem = scenario("prevalence")
        (term,) = problem.prevalence
        return replace(problem, prevalence=(PrevalenceTerm(term.weights, term.target, hard=True),))
    if name == "soft expertise":
        problem = scenario("unconstrained")
        return replace(problem, testing_sd=np.array([3.0, 3.0, 0.2, 0.2, 0.2]))
    return scenario(name)


def sampled(problem: Problem, sampler: str, draws: int) -> tuple[pd.DataFrame, Any]:
    """Means, sds, their Monte Carlo errors and the checks of NUTS, one row per parameter."""
    from arviz_stats.base import array_stats

    from causalrm.risk.pymc_model import build, sample

    plain = (Scaling(np.zeros(k), np.ones(k)) for k in (problem.p, problem.q))
    options = {"sampler": sampler, "draws": draws, "tune": TUNE, "chains": CHAINS}
    tree, _ = sample(build(problem, *plain), 17, options)
    found = tree["posterior"]
    parts = [np.asarray(found[name].values) for name in ("risk", "testing")]
    chains = np.concatenate([*parts, np.asarray(found["sigma"].values)[..., None]], axis=-1)
    axes = {"chain_axis": 0, "draw_axis": 1}
    frame = pd.DataFrame(problem.labels(), columns=["parameter", "term"])
    frame["mean"], frame["sd"] = chains.mean(axis=(0, 1)), chains.std(axis=(0, 1), ddof=1)
    for kind in ("mean", "sd"):
        frame[f"mcse_{kind}"] = np.asarray(array_stats.mcse(chains, method=kind, **axes))
    for kind in ("bulk", "tail"):
        options = {} if kind == "bulk" else {"prob": (0.05, 0.95)}
        frame[f"ess_{kind}"] = np.asarray(array_stats.ess(chains, method=kind, **options, **axes))
    frame["r_hat"] = np.asarray(array_stats.rhat(chains, **axes))
    frame["divergences"] = int(tree["sample_stats"]["diverging"].sum())
    return frame, tree


def compared(name: str) -> pd.DataFrame:
    """The grid and both samplers on one setting."""
    problem, out = setting(name), []
    start = time.perf_counter()
    grid = fit_grid(problem, 8192, np.random.default_rng(0))
    assert grid.ok, grid.reason
    spent = {"grid": time.perf_counter() - start}
    for sampler in SAMPLERS:
        start = time.perf_counter()
        frame, _ = sampled(problem, sampler, DRAWS[name])
        spent[sampler] = time.perf_counter() - start
        frame.insert(0, "sampler", sampler)
        frame.insert(0, "setting", name)
        frame["grid_mean"], frame["grid_sd"] = grid.mean(), grid.sd()
        frame["grid_ess"], frame["khat"] = grid.ess, grid.khat
        frame["seconds"], frame["grid_seconds"] = spent[sampler], spent["grid"]
        out.append(frame)
    return pd.concat(out, ignore_index=True)


def agree(frame: pd.DataFrame) -> None:
    """Means within .05 sd and sds within 5 %, from chains that say they have converged."""
    assert frame["r_hat"].max() < 1.01 and frame["divergences"].max() == 0
    assert frame["ess_bulk"].min() > 1500
    gap = (frame["grid_mean"] - frame["mean"]) / frame["sd"]
    assert gap.abs().max() < 0.05
    assert (frame["grid_sd"] / frame["sd"] - 1).abs().max() < 0.05


def test_stored_engines_agree() -> None:
    frame = pd.read_csv(STORE)
    assert set(frame["setting"]) == set(SETTINGS)
    assert (frame.groupby("setting")["sampler"].nunique() == len(SAMPLERS)).all()
    agree(frame)
    # the grid of today is that of the stored comparison
    name = SETTINGS[0]
    now = fit_grid(setting(name), 1024, np.random.default_rng(1))
    then = frame[(frame["setting"] == name) & (frame["sampler"] == "pymc")]
    assert (np.abs(now.mean() - then["grid_mean"]) < 0.1 * then["grid_sd"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_engines_agree(name: str) -> None:
    agree(compared(name))


def main() -> None:
    STORE.parent.mkdir(exist_ok=True)
    for name in sys.argv[1:] or SETTINGS:
        found = compared(name)
        print(found.round(3).to_string(), flush=True)
        if STORE.exists():
            old = pd.read_csv(STORE)
            found = pd.concat([old[old["setting"] != name], found])
        found.to_csv(STORE, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
