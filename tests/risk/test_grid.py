"""The sigma grid against independent samplers, and its checks against what they are for."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from causalrm.core.errors import ConvergenceError, DataError
from causalrm.risk import grid
from causalrm.risk.density import implied_prevalence
from causalrm.risk.grid import GridDraws, fit_grid, smooth_weights
from causalrm.risk.problem import PrevalenceTerm, Problem

REFERENCE = Path(__file__).parents[1] / "reference" / "risk"
POSTERIORS = pd.read_csv(REFERENCE / "posteriors.csv")


def _scenarios() -> ModuleType:
    spec = importlib.util.spec_from_file_location("risk_scenarios", REFERENCE / "scenarios.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


scenarios = _scenarios()


def scenario(name: str) -> Problem:
    """The problem of one of the stored posteriors."""
    data = scenarios.arrays(name)
    n, p, q, sd = len(data["y"]), data["X"].shape[1], data["W"].shape[1], scenarios.PRIOR_SD
    known: tuple[PrevalenceTerm, ...] = ()
    if data["se"] is not None:
        known = (PrevalenceTerm(np.full(n, 1 / n), data["target"], se=data["se"]),)
    return Problem.from_rows(
        data["X"], data["W"], data["tested"], data["y"], np.ones(n), risk_sd=np.full(p, sd),
        testing_sd=np.full(q, sd), sigma_sd=sd, unobservable=data["law"], prevalence=known,
    )  # fmt: skip


def small(n: int = 400, **options: object) -> Problem:
    problem = scenario("expertise")
    rows = slice(0, n)
    return replace(
        problem, X=problem.X[rows], W=problem.W[rows], tested=problem.tested[rows],
        y=problem.y[rows], counts=problem.counts[rows], **options,
    )  # fmt: skip


@pytest.mark.parametrize("name", list(scenarios.SCENARIOS))
def test_posterior_is_that_of_an_independent_sampler(name: str) -> None:
    """Means within .05 sd and sds within 5 %, plus what is the sampler's own Monte Carlo error."""
    expected = POSTERIORS[POSTERIORS["scenario"] == name]
    assert expected["r_hat"].max() < 1.01 and expected["divergences"].max() == 0
    assert (expected["mcse_mean"] < 0.025 * expected["sd"]).all()
    found = fit_grid(scenario(name), 4096, np.random.default_rng(0))
    assert found.ok, found.reason
    z = (found.mean() - expected["mean"]) / expected["sd"]
    assert np.abs(z).max() < 0.05
    ratio = found.sd() / expected["sd"]
    assert (np.abs(ratio - 1) < 0.05 + 2 * expected["mcse_sd"] / expected["sd"]).all()


def test_psis_takes_minus_the_log_ratios() -> None:
    """A large ratio gets a large weight, and its tail is what k-hat sees."""
    rng = np.random.default_rng(0)
    log_ratios = rng.normal(size=2000)
    log_weights, khat = smooth_weights(log_ratios)
    assert np.corrcoef(log_weights, log_ratios)[0, 1] > 0.99
    assert np.logaddexp.reduce(log_weights) == pytest.approx(0.0, abs=1e-12)
    assert khat < 0.5
    heavy = 0.9 * rng.exponential(size=2000)  # ratios with a Pareto tail of shape .9
    assert smooth_weights(heavy)[1] == pytest.approx(0.9, abs=0.2)
    assert smooth_weights(-heavy)[1] < 0.3  # bounded above: no tail


def test_hard_prevalence_is_the_limit_of_a_tight_one() -> None:
    n = 400
    share = np.full(n, 1 / n)
    rng = np.random.default_rng(0)
    hard = small(prevalence=(PrevalenceTerm(share, 0.3, hard=True),))
    tight = small(prevalence=(PrevalenceTerm(share, 0.3, se=3e-3),))
    one, two = fit_grid(hard, 2048, rng), fit_grid(tight, 2048, rng)
    assert one.ok and two.ok, one.reason + two.reason
    np.testing.assert_allclose((one.mean() - two.mean()) / two.sd(), 0, atol=0.1)
    np.testing.assert_allclose(one.sd() / two.sd(), 1, atol=0.08)
    for theta in one.theta[:5]:
        assert implied_prevalence(hard, theta).value[0] == pytest.approx(0.3, abs=1e-10)


def test_beta_and_group_prevalences_pull_as_their_normal_counterparts() -> None:
    n = 400
    groups = [np.where(np.arange(n) % 2 == g, 2 / n, 0.0) for g in (0, 1)]
    se = np.sqrt(0.3 * 0.7 / 2000)
    normal = small(prevalence=tuple(PrevalenceTerm(w, 0.3, se=se) for w in groups))
    beta = small(prevalence=tuple(PrevalenceTerm(w, 0.3, a=601.0, b=1401.0) for w in groups))
    rng = np.random.default_rng(0)
    one, two = fit_grid(normal, 1024, rng), fit_grid(beta, 1024, rng)
    assert one.ok and two.ok
    np.testing.assert_allclose((one.mean() - two.mean()) / two.sd(), 0, atol=0.1)
    implied = [
        np.exp(d.log_weights) @ [implied_prevalence(beta, t).value for t in d.theta]
        for d in (one, two)
    ]
    np.testing.assert_allclose(*implied, atol=0.01)
    np.testing.assert_allclose(implied[0], 0.3, atol=0.05)  # the rows say .35


def test_counts_are_rows() -> None:
    problem = small(150)
    twice = replace(
        problem, X=np.tile(problem.X, (2, 1)), W=np.tile(problem.W, (2, 1)),
        tested=np.tile(problem.tested, 2), y=np.tile(problem.y, 2), counts=np.ones(300),
    )  # fmt: skip
    one = fit_grid(replace(problem, counts=np.full(150, 2.0)), 256, np.random.default_rng(0))
    two = fit_grid(twice, 256, np.random.default_rng(0))
    np.testing.assert_allclose(one.theta, two.theta, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(one.log_weights, two.log_weights, atol=1e-5)


def test_threads_and_seeds_repeat_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for threads in ("1", "2"):
        monkeypatch.setenv("CAUSALRM_NUM_THREADS", threads)
        found.append(fit_grid(small(), 64, np.random.default_rng(3)))
    np.testing.assert_array_equal(found[0].theta, found[1].theta)
    np.testing.assert_array_equal(found[0].log_weights, found[1].log_weights)


def test_draws_are_resampled_to_equal_weights() -> None:
    rng = np.random.default_rng(0)
    theta = np.arange(4.0)[:, None]
    draws = GridDraws(theta, np.log([0.1, 0.2, 0.3, 0.4]), 0.0, 4.0)
    picked = draws.resample(1000, rng)[:, 0]
    np.testing.assert_allclose(np.bincount(picked.astype(int)), [100, 200, 300, 400], atol=1)
    assert abs(np.corrcoef(picked, np.arange(1000))[0, 1]) < 0.15  # in random order
    assert draws.mean()[0] == pytest.approx(2.0) and draws.sd()[0] == pytest.approx(1.0)


# --- loud checks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"alpha": None}, {"deciders": np.zeros(400, int)}])
def test_what_the_grid_does_not_do_is_said_before_any_work(options: dict[str, object]) -> None:
    with pytest.raises(DataError, match='method="nuts"'):
        fit_grid(small(**options), 64, np.random.default_rng(0))


def test_an_end_that_is_not_reached_is_said() -> None:
    wide = {"risk_sd": np.full(5, 300.0), "testing_sd": np.full(2, 300.0), "sigma_sd": 1e4}
    found = fit_grid(small(**wide), 64, np.random.default_rng(0))
    assert not found.ok and "does not end below" in found.reason


def test_a_failed_mode_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = grid.maximize

    def stop(*args: object, **options: object) -> object:
        return replace(plain(*args, **options), converged=False)  # type: ignore[arg-type]

    monkeypatch.setattr(grid, "maximize", stop)
    found = fit_grid(small(), 64, np.random.default_rng(0))
    assert not found.ok and "mode of the coefficients was not found" in found.reason

    def flat(*args: object, **options: object) -> object:
        best = plain(*args, **options)  # type: ignore[arg-type]
        return replace(best, hessian=-best.hessian)

    monkeypatch.setattr(grid, "maximize", flat)
    found = fit_grid(small(), 64, np.random.default_rng(0))
    assert not found.ok and "not positive definite" in found.reason


def test_an_intercept_that_is_not_found_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(problem: Problem, theta: np.ndarray) -> float:
        raise ConvergenceError("no intercept")

    monkeypatch.setattr(grid, "solve_intercept", never)
    term = PrevalenceTerm(np.full(400, 1 / 400), 0.3, hard=True)
    found = fit_grid(small(prevalence=(term,)), 64, np.random.default_rng(0))
    assert not found.ok and "no intercept" in found.reason


def test_bad_weights_are_said() -> None:
    draws = GridDraws(np.zeros((4, 1)), np.zeros(4), 0.0, 0.0)
    found = grid._judge(draws, np.array([0.0, np.nan, -np.inf, 1.0]))
    assert not found.ok and "2 of 4 importance weights are not finite" in found.reason
    rng = np.random.default_rng(0)
    found = grid._judge(draws, 2.0 * rng.exponential(size=1000))
    assert not found.ok and "k-hat" in found.reason
    found = grid._judge(
        draws, np.where(np.arange(1000) < 300, 0.0, -20.0) + 0.01 * rng.random(1000)
    )
    assert not found.ok and "below half" in found.reason


def test_a_proposal_that_is_off_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the sds, as a plain Laplace approximation has them, must not pass."""
    plain = grid._solve_point

    def narrow(*args: object) -> object:
        point = plain(*args)  # type: ignore[arg-type]
        return replace(point, factor=0.5 * point.factor)

    monkeypatch.setattr(grid, "_solve_point", narrow)
    found = fit_grid(small(), 1024, np.random.default_rng(0))
    assert not found.ok
