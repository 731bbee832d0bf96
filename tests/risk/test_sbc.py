"""Simulation-based calibration finds what is wrong, and passes what is right."""

from __future__ import annotations

from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
import pytest

from causalrm.core.errors import ConvergenceError, DataError
from causalrm.risk import grid, sbc
from causalrm.risk.density import implied_prevalence
from causalrm.risk.problem import PrevalenceTerm, Problem
from causalrm.risk.sbc import SimulationCalibration, simulation_based_calibration

matplotlib.use("Agg")


def make(n: int = 250, sd: float = 1.0, **options: object) -> Problem:
    rng = np.random.default_rng(0)
    X = np.column_stack([np.ones(n), rng.normal(size=n)])
    return Problem(
        X=X, W=X, tested=np.ones(n, dtype=bool), y=np.zeros(n), counts=np.ones(n),
        risk_sd=np.full(2, sd), testing_sd=np.full(2, sd), sigma_sd=2.0, **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"unobservable": "normal", "alpha": 0.7},
        {"prevalence": (PrevalenceTerm(np.full(250, 1 / 250), 0.2, se=0.02),)},
        {"prevalence": (PrevalenceTerm(np.full(250, 1 / 250), 0.2, hard=True),)},
    ],
    ids=["plain", "normal", "soft", "hard"],
)
def test_the_grid_is_calibrated(options: dict[str, object]) -> None:
    n = 40
    check = simulation_based_calibration(make(**options), n_datasets=n, draws=256, n_jobs=1, rng=1)
    frame = check.to_frame()
    assert len(check.failures) <= 0.1 * n
    assert frame[["p_chi2", "p_ks"]].min().min() > 0.001
    assert frame["coverage_80"].between(0.58, 0.98).all()
    assert frame["n_datasets"].eq(n - len(check.failures)).all()


def test_a_wrong_posterior_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def narrow(problem: Problem, n: int, rng: np.random.Generator) -> grid.GridDraws:
        found = grid.fit_grid(problem, n, rng)
        centre = found.mean()
        return replace(found, theta=centre + 0.4 * (found.theta - centre))

    monkeypatch.setattr(sbc, "fit_grid", narrow)
    check = simulation_based_calibration(make(), n_datasets=40, draws=128, n_jobs=1)
    frame = check.to_frame().set_index("parameter")
    assert frame.loc[["risk", "testing", "sigma"], "p_chi2"].max() < 0.01
    assert frame.loc["risk", "coverage_80"].max() < 0.6


def test_refused_data_sets_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(problem: Problem, n: int, rng: np.random.Generator) -> grid.GridDraws:
        if problem.tested.mean() < 0.5:
            return grid.GridDraws(np.empty((0, 5)), np.empty(0), 1.0, 0.0, {}, False, "of a reason")
        return grid.fit_grid(problem, n, rng)

    monkeypatch.setattr(sbc, "fit_grid", refuse)
    check = simulation_based_calibration(make(), n_datasets=12, draws=64, n_jobs=1)
    assert len(check.failures) + len(check.positions) == 12
    assert "of a reason" in check.failures

    def never(problem: Problem, n: int, rng: np.random.Generator) -> grid.GridDraws:
        raise ConvergenceError("of nothing")

    monkeypatch.setattr(sbc, "fit_grid", never)
    with pytest.raises(DataError, match="all 2 were refused, first because of nothing"):
        simulation_based_calibration(make(), n_datasets=2, n_jobs=1)


def test_the_same_seed_gives_the_same_positions() -> None:
    first = simulation_based_calibration(make(n=40), n_datasets=2, draws=64, n_jobs=1, rng=5)
    second = simulation_based_calibration(
        make(n=40), n_datasets=2, draws=64, n_jobs=2, rng=first.entropy
    )
    pd.testing.assert_frame_equal(first.positions, second.positions)


def test_simulated_rows_follow_the_model() -> None:
    problem = make(200_000)
    theta = np.array([-1.0, 0.5, 0.4, -0.3, 2.0])
    term = PrevalenceTerm(np.full(200_000, 1 / 200_000), 0.1, se=0.01)
    beta = replace(term, se=None, a=201.0, b=801.0)
    problem = replace(problem, prevalence=(term, beta, replace(term, hard=True)))
    rng = np.random.default_rng(1)
    found = sbc.simulate(problem, theta, rng)
    implied = implied_prevalence(problem, theta).value[0]
    targets = [t.target for t in found.prevalence]
    assert targets[2] == implied
    assert targets[0] == pytest.approx(implied, abs=0.04)
    assert found.prevalence[1].a + found.prevalence[1].b == 1002.0  # type: ignore[operator]
    assert targets[1] == pytest.approx(implied, abs=0.05)
    from causalrm.risk.density import log_likelihood

    # the score of the rows at the truth is noise
    gradient = log_likelihood(found, theta)[1]
    assert np.abs(gradient).max() < 4 * np.sqrt(200_000)
    assert np.isnan(found.y[~found.tested]).all()


def test_identical_rows_are_expanded() -> None:
    problem = make(4)
    problem = replace(
        problem, counts=np.array([1.0, 3.0, 2.0, 1.0]),
        prevalence=(PrevalenceTerm(np.array([0.1, 0.6, 0.2, 0.1]), 0.2, se=0.1),),
    )  # fmt: skip
    full = sbc.expanded(problem)
    assert len(full.X) == 7 and full.counts.sum() == 7
    np.testing.assert_allclose(full.prevalence[0].weights, [0.1, 0.2, 0.2, 0.2, 0.1, 0.1, 0.1])
    assert sbc.expanded(replace(problem, counts=np.array([0.5, 1.0, 1.0, 1.5]))).X.shape == (4, 2)


def test_priors_are_drawn() -> None:
    problem = replace(make(4), alpha=None, deciders=np.arange(4), n_deciders=4)
    draws = np.array([sbc.draw_prior(problem, np.random.default_rng(i)) for i in range(2000)])
    np.testing.assert_allclose(draws[:, :4].std(axis=0), 1.0, atol=0.06)
    assert (draws[:, 4:7] >= 0).all()
    np.testing.assert_allclose((draws[:, 4:7] ** 2).mean(axis=0), [4.0, 9.0, 1.0], rtol=0.15)
    np.testing.assert_allclose((draws[:, 7:] / draws[:, [6]]).std(axis=0), 1.0, atol=0.06)


def test_the_plot_has_a_line_for_each_quantity_inside_its_band() -> None:
    rng = np.random.default_rng(0)
    columns = pd.MultiIndex.from_tuples([("risk", "x"), ("risk", "z"), ("sigma", "sigma")])
    check = SimulationCalibration(pd.DataFrame(rng.random((200, 3)), columns=columns), (), 0)
    ax = check.plot()
    lines = [line for line in ax.lines if len(line.get_xdata()) > 2]
    assert len(lines) == 3
    half = sbc._band(200, np.linspace(0, 1, 201))
    assert all((np.abs(line.get_ydata()) <= half + 1e-12).mean() > 0.95 for line in lines)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["risk", "sigma"]


@pytest.mark.parametrize("bad", [{"method": "other"}, {"method": "nuts"}, {"n_datasets": 0}])
def test_options_out_of_range(bad: dict[str, object]) -> None:
    with pytest.raises(DataError):
        simulation_based_calibration(make(), **bad)  # type: ignore[arg-type]
