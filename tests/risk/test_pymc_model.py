"""The PyMC model against the posterior in closed form, and NUTS against the grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pymc as pm
import pytest

import causalrm as crm
from causalrm.risk import density
from causalrm.risk import problem as P
from causalrm.risk.pymc_model import build, choose_sampler
from causalrm.risk.rows import Scaling
from tests.risk.simulated import ROLES, selective

FAST = "FAST_COMPILE"  # no C, no numba: the graph is what is tested
N, BETA, DELTA = 60, 3, 2
ORDER = ["risk", "risk_free", "testing", "sigma", "alpha", "decider_sd", "decider"]


def problem(**options: Any) -> P.Problem:
    rng = np.random.default_rng(3)
    x = np.column_stack([np.ones(N), rng.normal(size=(N, 2))])
    tested, y = rng.random(N) < 0.1 + 0.25 * (np.arange(N) % 4), (rng.random(N) < 0.4).astype(float)
    return P.Problem.from_rows(
        x, x[:, :DELTA], tested, y, rng.integers(1, 3, N).astype(float),
        risk_sd=np.array([3.0, 2.0, 1.0]), testing_sd=np.array([3.0, 0.5]), **options,
    )  # fmt: skip


def terms(*kinds: str) -> tuple[P.PrevalenceTerm, ...]:
    w = np.full(N, 1 / N)
    made = {
        "soft": P.PrevalenceTerm(w, 0.35, se=0.02),
        "beta": P.PrevalenceTerm(w, 0.3, a=30.0, b=70.0),
        "hard": P.PrevalenceTerm(w, 0.35, hard=True),
    }
    return tuple(made[kind] for kind in kinds)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"prevalence": terms("soft", "beta")},
        {"prevalence": terms("beta", "hard")},
        {"unobservable": "normal", "alpha": 0.5},
        {"alpha": None, "deciders": np.arange(N) % 4, "n_deciders": 4},
    ],
    ids=["plain", "soft", "hard", "normal", "alpha and deciders"],
)
def test_log_density_and_gradient_are_those_of_the_problem(options: dict[str, Any]) -> None:
    own = problem(**options)
    assert (own.centring > 0.5).all()  # the deciders differ
    one = Scaling(np.array([0.0, 3.0, -1.0]), np.array([1.0, 2.0, 0.5]))
    two = Scaling(np.array([0.0, 3.0]), np.array([1.0, 2.0]))
    model = build(own, one, two)
    names = sorted((v.name for v in model.value_vars), key=lambda v: ORDER.index(_plain(v)))
    value, gradient = model.compile_logp(mode=FAST), model.compile_dlogp(mode=FAST)
    offsets = []
    rng = np.random.default_rng(5)
    for _ in range(3):
        u = rng.normal(scale=0.5, size=own.n_u)
        point, at = {}, 0
        for name in names:
            shape = model.initial_point()[name].shape
            size = int(np.prod(shape))
            point[name] = u[at : at + size].reshape(shape)
            at += size
        expected, slope = density.log_posterior(own, u)
        offsets.append(float(value(point)) - expected)
        found, at = {}, 0
        flat = gradient(point)
        for v in model.value_vars:
            found[v.name] = flat[at : at + point[v.name].size]
            at += point[v.name].size
        np.testing.assert_allclose(
            np.concatenate([found[name] for name in names]), slope, rtol=1e-9, atol=1e-9
        )
    np.testing.assert_allclose(offsets, 0.0, atol=1e-6)


def _plain(name: str) -> str:
    return name.removesuffix("_ridge__").removesuffix("_softplus__").removesuffix("_effects__")


@pytest.fixture(scope="module")
def fit() -> crm.SelectiveLabelsModel:
    model = crm.SelectiveLabelsModel(
        "x + z", constraints=[crm.Prevalence(0.32, se=0.03), crm.Expertise(free=["x"])], draws=4096
    )
    return model.fit(selective(400, 1), **ROLES)


def test_model_is_on_the_scale_of_the_data(fit: crm.SelectiveLabelsModel) -> None:
    model = fit.model_
    assert model is fit.model_
    assert {v.name for v in model.free_RVs} == {"risk", "testing", "sigma"}
    assert model.coords["testing_term"] == ("Intercept", "x")
    draws = pm.draw([model["risk"], model["sigma"]], 2000, random_seed=0, mode=FAST)
    own = fit._setup
    prior = own.risk.standard(draws[0])
    np.testing.assert_allclose(prior.mean(axis=0), 0.0, atol=0.25)
    np.testing.assert_allclose(prior.std(axis=0), 3.0, rtol=0.06)
    assert abs(np.corrcoef(prior[:, 0], draws[1])[0, 1]) < 0.08
    assert draws[1].min() > 0 and draws[1].mean() == pytest.approx(3 * np.sqrt(2 / np.pi), rel=0.06)


def test_model_can_be_extended(fit: crm.SelectiveLabelsModel) -> None:
    model = fit.model_.copy()
    before = model.compile_logp(mode=FAST)(model.initial_point())
    with model:
        pm.Potential("believed", -0.5 * (model["risk"][1] - 0.1) ** 2)
    after = model.compile_logp(mode=FAST)(model.initial_point())
    assert after == pytest.approx(before - 0.5 * 0.1**2, abs=1e-8)


def _agree(fit: crm.SelectiveLabelsModel, sampler: str) -> crm.SelectiveLabelsModel:
    options = {"sampler": sampler, "chains": 2, "draws": 500, "tune": 400, "cores": 1}
    again = crm.SelectiveLabelsModel(
        "x + z", constraints=fit.constraints, method="nuts", nuts=options
    ).fit(selective(400, 1), **ROLES)
    grid, nuts = fit.to_frame(), again.to_frame()
    sd, ess = grid["std_error"], nuts["ess_bulk"]
    error = sd * np.sqrt(1 / ess + 1 / grid["ess_bulk"])
    assert (abs(grid["estimate"] - nuts["estimate"]) < 4 * error).all()
    assert (abs(nuts["std_error"] / sd - 1) < 5 / np.sqrt(2 * ess)).all()
    assert again.result_.method == "nuts" and again.result_.diagnostics["sampler"] == sampler
    assert nuts["r_hat"].max() < 1.02 and again.result_.diagnostics["divergences"] == 0
    return again


@pytest.mark.filterwarnings("ignore:The chains of NUTS")
def test_nutpie_agrees_with_the_grid(fit: crm.SelectiveLabelsModel) -> None:
    again = _agree(fit, "nutpie")
    posterior = again.posterior_["posterior"]
    assert posterior["risk"].dims == ("chain", "draw", "risk_term")
    assert posterior.sizes["chain"] == 2
    implied = posterior["implied_prevalence"].values.ravel()
    np.testing.assert_allclose(implied, again.result_.implied[:, 1], atol=1e-9)


@pytest.mark.filterwarnings("ignore:The chains of NUTS")
def test_pymc_agrees_with_the_grid(fit: crm.SelectiveLabelsModel) -> None:
    _agree(fit, "pymc")


def test_sampler_options() -> None:
    assert choose_sampler({}) == "nutpie"  # of the test group
    assert choose_sampler({"sampler": "pymc"}) == "pymc"
    with pytest.raises(crm.DataError, match="'nutpie' or 'pymc'"):
        choose_sampler({"sampler": "gibbs"})
    with pytest.raises(crm.DataError, match=r"\['step'\]"):
        choose_sampler({"step": 1})
