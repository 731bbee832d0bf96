"""Simulation-based calibration of Heckman's model: the stored table, and small repetitions.

Running this file repeats the full calibration, minutes, and writes results/heckman_sbc.csv:

    python -m tests.risk.test_heckman_simulation
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import causalrm as crm
from causalrm.core.blocks import Rows
from causalrm.core.errors import IdentificationError
from causalrm.core.random import spawn
from causalrm.risk.heckman_classical import first_step, maximum_likelihood, two_step
from causalrm.risk.heckman_problem import HeckmanProblem
from causalrm.risk.heckman_sampling import sample_grid
from causalrm.risk.heckman_setup import starting_point
from causalrm.risk.sbc import SimulationCalibration
from tests.risk.test_heckman import simulate
from tests.risk.test_simulation import uniform_enough

STORE = Path(__file__).with_name("results") / "heckman_sbc.csv"
DATASETS = 220
N = 150
PRIORS = dict.fromkeys(("outcome", "selection", "sigma", "covariance"), 1.0)
EXPERTS = crm.risk.Expertise(free=["b", "d"])
SETTINGS: dict[str, dict[str, Any]] = {
    "any sign": {},
    "positive": {"sign": "positive"},
    "known mean": {"constraints": [crm.risk.Prevalence(1.0, se=0.5)]},
    "exact mean": {"constraints": [crm.risk.Prevalence(1.0, hard=True)]},
    "experts": {"constraints": [EXPERTS], "sign": "positive"},
}


def reference(name: str) -> tuple[HeckmanProblem, np.ndarray, np.ndarray]:
    """Rows, priors and constraints of a setting, and the two designs."""
    df = simulate(N, 0.5, np.random.default_rng(0))
    model = crm.HeckmanModel("a + b", "a + b + d", priors=PRIORS, **SETTINGS[name])
    problem = model.fit(df, selected="t", outcome="y")._problem
    x = np.column_stack([np.ones(N), df[["a", "b"]]])
    return problem, x, np.column_stack([x, df["d"]])


def from_prior(problem: HeckmanProblem, own: int, rng: np.random.Generator) -> np.ndarray:
    """Coordinates drawn from the priors: the first `own` rows of the quadratic form are theirs."""
    rows = problem.directions[:own] / problem.sds[:own, None]
    offset = problem.centers[:own] / problem.sds[:own] - rows @ problem.base
    u = np.empty(problem.n_u)
    u[:-2] = np.linalg.lstsq(rows @ problem.basis[:, :-2], offset + rng.normal(size=own))[0]
    while True:
        sigma, covariance = np.abs(rng.normal()), rng.normal()
        sigma, covariance = sigma * problem.sigma_sd, covariance * problem.covariance_sd
        if abs(covariance) < sigma and (not problem.sign or np.sign(covariance) == problem.sign):
            break
    u[-2:] = np.log(sigma), np.arctanh(covariance / sigma)
    return u


def position(
    problem: HeckmanProblem, x: np.ndarray, w: np.ndarray, draws: int, rng: np.random.Generator
) -> np.ndarray | str:
    """Where the truth lies in the posterior of one simulated data set; or why nowhere."""
    own = x.shape[1] + w.shape[1] - int((problem.through.sum(axis=1) > 0).sum())
    u = from_prior(problem, own, rng)
    theta, p = problem.coefficients(u), problem.p
    z, e = rng.normal(size=(2, len(x)))
    rho = np.tanh(theta[-1])
    y = x @ theta[:p] + np.exp(theta[-2]) * z
    t = w @ theta[p:-2] + rho * z + np.sqrt(1 - rho**2) * e > 0
    like = problem.likelihood
    columns = like.rows.columns | {like.outcome: np.where(t, y, 0.0), like.selected: t * 1.0}
    like = replace(like, rows=Rows(columns, len(x)))
    v = problem.base + problem.basis @ u
    centers = problem.centers.copy()
    centers[own:] = (problem.directions @ v + problem.sds * rng.normal(size=len(centers)))[own:]
    problem = replace(problem, likelihood=like, centers=centers)
    if not 5 <= t.sum() <= len(x) - 5:
        return "fewer than five were selected, or left out"
    try:
        start, information, _ = first_step(like)
        two = two_step(like, start, information)
    except IdentificationError as error:
        return str(error)
    ml = maximum_likelihood(like, [like.predictors.transform() @ start, two.theta])
    best = ml.theta if np.isfinite(ml.estimates).all() else two.theta
    found = sample_grid(problem, starting_point(problem, best), draws, rng)
    if found.reason:
        return found.reason
    us = np.vstack([u, found.u[0]])
    thetas = problem.coefficients(us)
    values = np.column_stack([thetas, like.raw_values(thetas)])
    return np.asarray((values[1:] < values[0]).mean(axis=0))


def calibration(name: str, datasets: int, draws: int = 1024) -> pd.DataFrame:
    """Coverage and uniformity of the positions of one setting."""
    problem, x, w = reference(name)
    found = [position(problem, x, w, draws, rng) for rng in spawn(20241124, datasets)]
    used = np.array([one for one in found if not isinstance(one, str)])
    names = [("outcome", t) for t in problem.likelihood.terms[0]]
    names += [("selection", t) for t in problem.likelihood.terms[1]]
    names += [("sigma", "sigma"), ("rho", "rho"), ("derived", "log likelihood")]
    failures = tuple(one for one in found if isinstance(one, str))
    columns = pd.MultiIndex.from_tuples(names)
    check = SimulationCalibration(pd.DataFrame(used, columns=columns), failures, 20241124)
    frame = check.to_frame()
    frame.insert(0, "setting", name)
    refused = [f for f in failures if "k-hat" in f or "effective number" in f or "grid" in f]
    return frame.assign(n_extreme=len(failures) - len(refused), n_refused=len(refused))


def test_stored_calibration_is_uniform() -> None:
    frame = pd.read_csv(STORE)
    assert set(frame["setting"]) == set(SETTINGS)
    assert (frame["n_datasets"] >= 200).all()
    assert frame["n_refused"].max() <= 0.08 * DATASETS  # small data; a fit falls to NUTS there
    uniform_enough(frame)


@pytest.mark.filterwarnings("ignore")
def test_a_small_calibration_is_uniform() -> None:
    uniform_enough(calibration("any sign", 30, 256))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SETTINGS)
def test_calibration_is_uniform(name: str) -> None:
    uniform_enough(calibration(name, DATASETS))


def main() -> None:
    import warnings

    warnings.simplefilter("ignore")
    STORE.parent.mkdir(exist_ok=True)
    out = []
    for name in SETTINGS:
        out.append(calibration(name, DATASETS))
        print(out[-1].round(3).to_string(), flush=True)
        pd.concat(out).to_csv(STORE, index=False, float_format="%.4g")


if __name__ == "__main__":
    main()
