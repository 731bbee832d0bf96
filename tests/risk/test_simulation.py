"""Calibration and coverage of the sigma grid: the tables that are stored, and small repetitions.

Running this file repeats the full simulation, some minutes each, and writes its summaries to
results/sbc.csv and results/coverage.csv:

    python tests/risk/test_simulation.py [sbc] [coverage]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from causalrm.core.random import spawn
from causalrm.datasets import make_selective_labels
from causalrm.risk.grid import fit_grid
from causalrm.risk.problem import PrevalenceTerm, Problem
from causalrm.risk.sbc import simulation_based_calibration

RESULTS = Path(__file__).with_name("results")
CONSTRAINTS = ("unconstrained", "prevalence", "expertise", "both")


def problem_of(
    n: int, seed: int, constraint: str = "unconstrained", law: str = "uniform", sd: float = 3.0
) -> tuple[Problem, np.ndarray]:
    """Rows of the experiment's design with a constraint, and the true theta."""
    data, truth = make_selective_labels(n, unobservable=law, rng=seed)
    X = np.column_stack([np.ones(n), data.filter(like="x")])
    W = X[:, :2] if constraint in ("expertise", "both") else X
    share = np.full(n, 1 / n)
    known: tuple[PrevalenceTerm, ...] = ()
    if constraint in ("prevalence", "both"):
        p = truth.prevalence
        known = (PrevalenceTerm(share, p, se=float(np.sqrt(p * (1 - p) / n))),)
    elif constraint == "hard":
        known = (PrevalenceTerm(share, truth.prevalence, hard=True),)
    problem = Problem.from_rows(
        X, W, data["tested"].to_numpy(bool), data["outcome"].to_numpy(), np.ones(n),
        risk_sd=np.full(5, sd), testing_sd=np.full(W.shape[1], sd), sigma_sd=3.0,
        unobservable=law, prevalence=known,
    )  # fmt: skip
    values = [*truth.risk.values(), *list(truth.testing.values())[: W.shape[1]], truth.sigma]
    return problem, np.array(values)


CALIBRATED = {
    "default priors": {"n": 500},
    "narrow priors": {"n": 500, "sd": 1.0},
    "both constraints": {"n": 500, "sd": 1.0, "constraint": "both"},
    "hard prevalence": {"n": 500, "sd": 1.0, "constraint": "hard"},
    "normal": {"n": 500, "sd": 1.0, "law": "normal"},
}


def sbc(n_datasets: int | None = None, n_jobs: int = 1, only: str | None = None) -> pd.DataFrame:
    """Simulation-based calibration for each of the settings.

    By default of as many data sets as leave 200 that are not refused: wide priors make extreme
    ones.
    """
    out = []
    for name, options in CALIBRATED.items():
        if only is not None and name != only:
            continue
        problem, _ = problem_of(seed=0, **options)  # type: ignore[arg-type]
        number = n_datasets or (240 if name == "default priors" else 210)
        check = simulation_based_calibration(
            problem, n_datasets=number, draws=256, n_jobs=n_jobs, rng=20241123
        )
        frame = check.to_frame()
        frame.insert(0, "setting", name)
        frame["n_refused"] = len(check.failures)
        out.append(frame)
        print(frame.round(3).to_string(), flush=True)
    return pd.concat(out)


def coverage(n_datasets: int, n: int = 2000, only: str | None = None) -> pd.DataFrame:
    """Coverage of 95 % intervals where the truth is fixed by the experiment's design."""
    rows = []
    for constraint in CONSTRAINTS:
        if only is not None and constraint != only:
            continue
        hits, refused, errors = [], 0, []
        for seed, rng in enumerate(spawn(7, n_datasets)):
            problem, truth = problem_of(n, 1000 + seed, constraint)
            found = fit_grid(problem, 512, rng)
            if not found.ok:
                refused += 1
                continue
            below = np.exp(found.log_weights) @ (found.theta < truth)
            hits.append(np.abs(below - 0.5) <= 0.475)
            errors.append((found.mean() - truth) / found.sd())
        labels = problem.labels()
        for (parameter, term), hit, z in zip(
            labels, np.mean(hits, axis=0), np.mean(errors, axis=0), strict=True
        ):
            rows.append(
                {
                    "constraint": constraint, "parameter": parameter, "term": term,
                    "coverage_95": hit, "mean_z": z, "n_datasets": len(hits),
                    "n_refused": refused,
                }
            )  # fmt: skip
        print(pd.DataFrame(rows[-len(labels) :]).round(3).to_string(), flush=True)
    return pd.DataFrame(rows)


# --- what the stored tables must say, and small runs of the same --------------------------------


def uniform_enough(frame: pd.DataFrame) -> None:
    """P-values and coverages of a calibration are those of uniform positions."""
    p = frame[["p_chi2", "p_ks"]].to_numpy()
    assert p.min() > 0.01 / p.size  # Bonferroni at 1 %
    n = frame["n_datasets"]
    for level in (0.5, 0.8, 0.95):
        sd = np.sqrt(level * (1 - level) / n)
        assert (np.abs(frame[f"coverage_{100 * level:.0f}"] - level) < 4 * sd + 0.5 / n).all()


def test_stored_calibration_is_uniform() -> None:
    frame = pd.read_csv(RESULTS / "sbc.csv")
    assert set(frame["setting"]) == set(CALIBRATED)
    assert (frame["n_datasets"] >= 200).all()
    uniform_enough(frame)


def test_stored_intervals_cover() -> None:
    frame = pd.read_csv(RESULTS / "coverage.csv")
    assert set(frame["constraint"]) == set(CONSTRAINTS)
    assert (frame["n_datasets"] + frame["n_refused"] >= 200).all()
    assert frame["n_refused"].max() <= 0.02 * 200
    # With priors that are wide against the truth the frequentist coverage is near the level
    assert (frame["coverage_95"] > 0.95 - 4 * np.sqrt(0.95 * 0.05 / 200)).all()


def test_a_small_calibration_is_uniform() -> None:
    uniform_enough(sbc(25, only="narrow priors"))


@pytest.mark.slow
def test_calibration_is_uniform() -> None:
    uniform_enough(sbc())


@pytest.mark.slow
def test_intervals_cover() -> None:
    frame = coverage(200)
    assert (frame["coverage_95"] > 0.95 - 4 * np.sqrt(0.95 * 0.05 / 200)).all()


def main() -> None:
    RESULTS.mkdir(exist_ok=True)
    wanted = sys.argv[1:] or ["sbc", "coverage"]
    if "sbc" in wanted:
        sbc().to_csv(RESULTS / "sbc.csv", index=False, float_format="%.4g")
    if "coverage" in wanted:
        coverage(200).to_csv(RESULTS / "coverage.csv", index=False, float_format="%.4g")


if __name__ == "__main__":
    main()
