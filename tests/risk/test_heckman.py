"""The Heckman model: against integrals, scipy, statsmodels and simulated truth."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import integrate, optimize, special, stats

import causalrm as crm
from causalrm.core.design import prepare
from causalrm.core.errors import DataError, IdentificationError, IdentificationWarning
from causalrm.core.linear import Predictors
from causalrm.datasets import load_mroz
from causalrm.risk import _kernels_heckman as ker
from causalrm.risk.heckman import HeckmanModel
from causalrm.risk.heckman_evidence import _shape
from causalrm.risk.heckman_problem import HeckmanLikelihood, HeckmanProblem
from causalrm.risk.heckman_sampling import pymc_model, sample_grid, sample_nuts, whitening

MROZ = {"outcome": "age + wc", "selection": "age + wc + k5 + inc"}
ROLES = {"selected": "lfp", "outcome": "lwg"}
EXPERTS = crm.risk.Expertise(free=["age", "k5", "inc"])


def mroz_fit(**options: Any) -> HeckmanModel:
    return HeckmanModel(**(MROZ | {"draws": 1024} | options)).fit(load_mroz(), **ROLES)


@pytest.fixture(scope="module")
def fitted() -> HeckmanModel:
    return mroz_fit()


def simulate(
    n: int, rho: float, rng: np.random.Generator, sigma: float = 2.0, **extra: Any
) -> pd.DataFrame:
    """Simulated: y = 1 + 2 a - b + Z, selected where .3 + .8 a + .5 b + d + u > 0."""
    a, b, d = rng.normal(size=n), rng.normal(5, 2, n), rng.normal(size=n)
    z, e = rng.normal(size=(2, n))
    y = 1 + 2 * a - (b - 5) + sigma * z
    t = 0.3 + 0.8 * a + 0.25 * (b - 5) + d + rho * z + np.sqrt(1 - rho**2) * e > 0
    return pd.DataFrame({"a": a, "b": b, "d": d, "y": np.where(t, y, np.nan), "t": t.astype(int)})


def likelihood(df: pd.DataFrame, weights: str | None = None) -> HeckmanLikelihood:
    df = df.assign(y=df["y"].fillna(0.0))
    formulas = {"outcome": "a + b", "selection": "a + b + d"}
    numbers = ["y", "t"] + ([] if weights is None else [weights])
    _, rows, designs, _ = prepare(df, formulas, numbers=numbers)
    predictors = Predictors([designs["outcome"], designs["selection"], None, None], [False] * 4)
    predictors.standardise(rows, ["outcome", "selection", "sigma", "rho"])
    return HeckmanLikelihood(rows, predictors, "y", "t", weights)


def independent_loglik(theta: np.ndarray, x: Any, w: Any, y: Any, t: Any) -> Any:
    """Written with scipy's normal distribution: density of y, then selection given y."""
    p = x.shape[1]
    mean, index = x @ theta[:p], w @ theta[p:-2]
    sigma, rho = np.exp(theta[-2]), np.tanh(theta[-1])
    given = stats.norm.logcdf(index + rho / sigma * (y - mean), scale=np.sqrt(1 - rho**2))
    seen = stats.norm.logpdf(y, mean, sigma) + given
    return np.where(t == 1, np.where(t == 1, seen, 0.0), stats.norm.logcdf(-index)).sum()


# ---------------------------------------------------------------- numbers


def test_tail_of_the_normal_distribution() -> None:
    q = np.concatenate([np.linspace(-200, 9, 500), [-30.0, -29.999, -1e8, 40.0, 0.0]])
    ours = np.array([ker.log_ndtr(v) for v in q])
    np.testing.assert_allclose(ours, special.log_ndtr(q), rtol=1e-13, atol=1e-300)
    expected = np.exp(-0.5 * q**2 - 0.5 * np.log(2 * np.pi) - special.log_ndtr(q))
    near = q > -60  # the reference loses digits further out
    np.testing.assert_allclose(ker.mills_rows(q)[near], expected[near], rtol=1e-11)
    assert ker.mills(-1e8) == pytest.approx(1e8)


@pytest.mark.parametrize("rho", [-0.95, -0.3, 0.0, 0.6])
def test_rows_integrate_the_latent_pair(rho: float) -> None:
    m, w, sigma, y = 0.7, -0.4, 1.7, 2.1
    law = stats.multivariate_normal([0, 0], [[sigma**2, rho * sigma], [rho * sigma, 1]])
    seen, _ = integrate.quad(lambda u: law.pdf([y - m, u]), -w, 12)
    one = np.ones(1)
    args = (one * m, one * w, np.log(sigma), np.arctanh(rho), np.empty((4, 1)), np.empty((10, 1)))
    assert ker.derivatives(one * y, one, one, *args) == pytest.approx(np.log(seen), rel=1e-8)
    assert ker.derivatives(one * y, 0 * one, one, *args) == pytest.approx(stats.norm.logcdf(-w))


@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize("through", [False, True])
def test_derivatives_of_the_posterior(sign: int, through: bool) -> None:
    rng = np.random.default_rng(1)
    like = likelihood(simulate(300, 0.5, rng))
    k, p, q = like.n_params, 3, 4
    m = np.zeros((q, p))
    if through:
        m[1, 1] = m[2, 2] = 1.0
    basis = np.eye(k)
    basis[0, :3] = [0.0, -0.1, -5.0]  # as a hard mean has it
    problem = HeckmanProblem(
        like, m, np.zeros(k), np.delete(basis, 0, axis=1), rng.normal(size=(2, k)),
        rng.normal(size=2), np.array([1.0, 2.0]), 3.0, 2.0, sign,
    )  # fmt: skip
    for spread in (0.1, 1.0):
        u = spread * rng.normal(size=k - 1)
        u[2] = 0.1
        value, gradient, hessian, _ = problem.derivatives(u)
        assert problem.values(np.array([u, u])) == pytest.approx([value] * 2, rel=1e-12)
        for j, step in enumerate(1e-5 * np.eye(k - 1)):
            up, down = problem.derivatives(u + step), problem.derivatives(u - step)
            assert (up[0] - down[0]) / 2e-5 == pytest.approx(
                gradient[j], rel=1e-5, abs=1e-6 * np.abs(gradient).max()
            )
            np.testing.assert_allclose(
                (up[1] - down[1]) / 2e-5, hessian[j], rtol=1e-5, atol=1e-6 * np.abs(hessian).max()
            )


def test_values_of_many_draws_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    df = simulate(20_000, -0.4, rng)
    like = likelihood(df)
    thetas = np.array([1, 2, -1, -1, 0.8, 0.2, 1, 0.7, -0.4]) + 0.05 * rng.normal(size=(70, 9))
    x = np.column_stack([np.ones(len(df)), df[["a", "b"]]])
    w = np.column_stack([x, df["d"]])
    y = df["y"].fillna(0.0).to_numpy()
    expected = [independent_loglik(v, x, w, y, df["t"].to_numpy()) for v in thetas[[0, 1, 64, 69]]]
    np.testing.assert_allclose(like.raw_values(thetas)[[0, 1, 64, 69]], expected, rtol=1e-11)
    one = like.raw_values(thetas)
    monkeypatch.setenv("CAUSALRM_NUM_THREADS", "2")
    assert (like.raw_values(thetas) == one).all()


# ---------------------------------------------------------------- classical estimates


def mroz_arrays() -> tuple[np.ndarray, ...]:
    df = load_mroz()
    x = sm.add_constant(df[["age", "wc"]]).to_numpy(float)
    w = sm.add_constant(df[["age", "wc", "k5", "inc"]]).to_numpy(float)
    return x, w, df["lwg"].fillna(0.0).to_numpy(), df["lfp"].to_numpy()


def test_maximum_likelihood_of_scipy(fitted: HeckmanModel) -> None:
    x, w, y, t = mroz_arrays()
    x0 = np.concatenate([[0.5, 0.01, 0.3], [1, -0.01, 0.5, -0.5, -0.01], [-0.3, 0.0]])
    size = np.array([1, 0.02, 1, 1, 0.02, 1, 1, 0.02, 1, 1])

    def objective(v: np.ndarray) -> float:
        return -float(independent_loglik(v * size, x, w, y, t))

    found = optimize.minimize(objective, x0 / size, method="BFGS", options={"gtol": 1e-5})
    assert fitted.result_.loglik == pytest.approx(-found.fun, abs=1e-6)
    theta = found.x * size
    ml = fitted.result_.ml
    np.testing.assert_allclose(ml[:8, 0], theta[:8], rtol=2e-3, atol=1e-4)
    assert ml[8, 0] == pytest.approx(np.exp(theta[8]), rel=1e-3)
    assert ml[9, 0] == pytest.approx(np.tanh(theta[9]), rel=2e-3)
    # standard errors: the second differences of the independent likelihood at our maximum
    at = np.concatenate([ml[:8, 0], [np.log(ml[8, 0]), np.arctanh(ml[9, 0])]])
    h = 1e-4 * size
    hessian = np.empty((10, 10))
    for i in range(10):
        for j in range(10):
            a, b = np.eye(10)[i] * h, np.eye(10)[j] * h
            f = [independent_loglik(at + v, x, w, y, t) for v in (a + b, a - b, b - a, -a - b)]
            hessian[i, j] = (f[0] - f[1] - f[2] + f[3]) / (4 * h[i] * h[j])
    se = np.sqrt(np.diag(np.linalg.inv(-hessian)))
    np.testing.assert_allclose(ml[:8, 1], se[:8], rtol=1e-3)
    assert ml[9, 1] == pytest.approx(se[9] * (1 - ml[9, 0] ** 2), rel=1e-3)


def test_two_steps_of_statsmodels(fitted: HeckmanModel) -> None:
    x, w, y, t = mroz_arrays()
    probit = sm.Probit(t, w).fit(disp=0)
    index = w @ probit.params
    mills = stats.norm.pdf(index) / stats.norm.cdf(index)
    seen = t == 1
    a = np.column_stack([x, mills])[seen]
    ols = sm.OLS(y[seen], a).fit()
    delta = (mills * (mills + index))[seen]
    lam = ols.params[-1]
    sigma = np.sqrt(ols.ssr / seen.sum() + delta.mean() * lam**2)
    rho = lam / sigma
    # Greene, Econometric analysis, on the covariance of the second step
    bread = np.linalg.inv(a.T @ a)
    f = a.T @ (delta[:, None] * w[seen])
    middle = a.T @ ((1 - rho**2 * delta)[:, None] * a) + rho**2 * f @ probit.cov_params() @ f.T
    cov = sigma**2 * bread @ middle @ bread
    found = fitted.result_.two_step
    expected = np.concatenate([ols.params[:-1], probit.params, [sigma, rho, lam]])
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-7)
    se = np.sqrt(np.concatenate([np.diag(cov)[:-1], np.diag(probit.cov_params())]))
    np.testing.assert_allclose(found[:8, 1], se, rtol=1e-6)
    assert found[-1, 1] == pytest.approx(np.sqrt(cov[-1, -1]), rel=1e-6)


# ---------------------------------------------------------------- posterior


def test_wide_priors_give_the_likelihood(fitted: HeckmanModel) -> None:
    r = fitted.result_
    gap = (fitted.to_frame()["estimate"] - r.ml[:-1, 0]) / r.ml[:-1, 1]
    assert np.abs(gap[:8]).max() < 0.5  # priors of three sds hardly matter
    assert r.method == "grid" and r.diagnostics["khat"] < 0.5
    assert r.diagnostics["importance_ess"] > 0.7 * 1024


def test_posterior_of_a_reference_by_quadrature() -> None:
    """Two unknowns at fixed others, integrated on a fine grid: no sampler involved."""
    rng = np.random.default_rng(5)
    df = simulate(120, 0.6, rng)
    like = likelihood(df)
    k = like.n_params
    base = np.array([1, 2, -1, -0.95, 0.8, 0.25, 1, np.log(2), 0.0])
    basis = np.zeros((k, 3))
    basis[0, 0] = basis[-2, 1] = basis[-1, 2] = 1.0  # intercept, log sigma, atanh rho are free
    base[[0, -2]] = 0.0
    row = np.eye(k)[:1]
    problem = HeckmanProblem(
        like, np.zeros((4, 3)), base, basis, row, np.zeros(1), np.array([3.0]), 3.0, 3.0
    )
    found = sample_grid(problem, np.array([6.0, 0.7, 0.3]), 2048, np.random.default_rng(0))
    assert not found.reason
    axes = [np.linspace(4.5, 8, 61), np.linspace(0.2, 1.3, 61), np.linspace(-2.5, 3.5, 81)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    density = np.array([])
    for part in np.array_split(points, 40):
        density = np.append(density, problem.values(part))
    w = np.exp(density - density.max())
    w /= w.sum()
    mean = w @ points
    sd = np.sqrt(w @ (points - mean) ** 2)
    np.testing.assert_allclose((found.u[0].mean(axis=0) - mean) / sd, 0, atol=0.03)
    np.testing.assert_allclose(found.u[0].std(axis=0) / sd, 1, atol=0.04)


NUTS = {
    "free": {},
    "signed": {"sign": "negative"},
    "mean": {"constraints": [crm.risk.Prevalence(1.3, se=0.05)]},
    "exact mean": {"constraints": [crm.risk.Prevalence(1.3, hard=True)]},
    "experts": {"constraints": [EXPERTS], "sign": "positive"},
    "both": {"constraints": [EXPERTS, crm.risk.Prevalence(1.1, se=0.05)], "sign": "positive"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NUTS)
def test_grid_and_nuts_agree(name: str) -> None:
    options = MROZ | NUTS[name]
    grid = HeckmanModel(**options, draws=4096).fit(load_mroz(), **ROLES)
    problem, terms = grid._problem, grid._terms(grid._problem)
    found = sample_nuts(problem, terms, grid._start, np.random.default_rng(0), draws=2000)
    theirs = problem.coefficients(found.u).reshape(-1, problem.likelihood.n_params)
    ours = grid.result_.draws.copy()
    theirs[:, -2], theirs[:, -1] = np.exp(theirs[:, -2]), np.tanh(theirs[:, -1])
    moved = ours.std(axis=0) > 1e-12
    gap = (ours.mean(axis=0) - theirs.mean(axis=0))[moved] / ours.std(axis=0)[moved]
    ratio = ours.std(axis=0)[moved] / theirs.std(axis=0)[moved]
    assert found.checks["divergences"] <= 0.001 * found.u[..., 0].size
    if name == "free":  # NUTS seldom reaches the small mode at positive rho
        assert np.abs(gap).max() < 0.15
    else:
        assert np.abs(gap).max() < 0.06
        assert np.abs(ratio - 1).max() < 0.06


def test_auto_falls_to_nuts_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    from causalrm.risk import heckman, heckman_sampling

    real = heckman_sampling.pareto_smooth
    monkeypatch.setattr(heckman_sampling, "pareto_smooth", lambda w: (real(w)[0], 0.9))
    with pytest.raises(crm.ConvergenceError, match="k-hat .* is 0.90"):
        mroz_fit(method="grid")
    short = heckman.sample_nuts
    monkeypatch.setattr(
        heckman, "sample_nuts", lambda *args: short(*args, draws=300, tune=500, chains=2)
    )
    df = simulate(200, 0.5, np.random.default_rng(4))
    known = [crm.risk.Expertise(exclude=["a"]), crm.risk.Prevalence(1.0, se=0.3)]
    options: dict[str, Any] = {"constraints": known, "sign": "positive"}
    roles = {"selected": "t", "outcome": "y"}
    with pytest.warns(crm.ConvergenceWarning) as caught:
        fit = HeckmanModel("a + b", "a + b + d", **options).fit(df, **roles)
    assert "PyMC's NUTS draws instead" in str(caught[0].message)
    assert fit.result_.method == "nuts" and (fit.result_.r_hat < 1.03).all()
    assert fit.posterior_["posterior"]["rho"].shape == (2, 300)
    monkeypatch.undo()
    frame, grid = fit.to_frame(), HeckmanModel("a + b", "a + b + d", **options).fit(df, **roles)
    gap = (grid.to_frame()["estimate"] - frame["estimate"]) / frame["std_error"]
    assert np.abs(gap).max() < 0.2  # of 600 draws
    assert fit.result_.warnings[0] == str(caught[0].message)
    names = {v.name for v in fit.model_.deterministics}
    assert names == {"outcome", "selection", "sigma", "rho"}


@pytest.mark.parametrize("sign", [None, "positive", "negative"])
def test_the_coordinates_of_nuts_leave_the_density_as_it_is(sign: str | None) -> None:
    df = simulate(100, 0.5, np.random.default_rng(4))
    options: dict[str, Any] = {} if sign is None else {"sign": sign}
    fit = HeckmanModel("a + b", "a + b + d", draws=256, **options)
    problem = fit.fit(df, selected="t", outcome="y")._problem
    coordinates = whitening(problem, fit._start)
    density = pymc_model(problem, fit._terms(problem), coordinates).compile_logp(
        mode="FAST_COMPILE"
    )
    white = np.random.default_rng(0).normal(size=(6, problem.n_u))
    u, a = coordinates.place(white.T, lambda x: np.logaddexp(0.0, x), np.concatenate)
    assert sign is None or (np.sign(u[-1]) == problem.sign).all()
    expected = problem.values(u.T)
    if sign is not None:
        expected = expected - np.log1p(np.exp(-a))
    gap = np.array([float(density({"white": w})) for w in white]) - expected
    assert np.ptp(gap) < 1e-7  # but for the volume of the linear part


def test_truth_is_covered() -> None:
    truth = np.array([6.0, 2.0, -1.0])
    inside, error, naive = [], [], []
    for seed in range(12):
        df = simulate(600, 0.7, np.random.default_rng(seed))
        fit = HeckmanModel("a + b", "a + b + d", draws=512, rng=seed)
        frame = fit.fit(df, selected="t", outcome="y").to_frame().iloc[:3]
        inside.append((frame["conf_low"] < truth) & (truth < frame["conf_high"]))
        error.append(frame["estimate"].to_numpy() - truth)
        seen = df.dropna()
        x = np.column_stack([np.ones(len(seen)), seen[["a", "b"]]])
        naive.append(np.linalg.lstsq(x, seen["y"].to_numpy(), rcond=None)[0] - truth)
    assert np.mean(inside) > 0.85
    assert np.abs(np.mean(error, axis=0)).max() < 0.15
    assert np.abs(np.mean(naive, axis=0)).max() > 0.5  # what the seen alone would say


# ---------------------------------------------------------------- constraints


def test_known_mean() -> None:
    soft = mroz_fit(constraints=[crm.risk.Prevalence(1.3, se=0.05)]).result_
    hard = mroz_fit(constraints=[crm.risk.Prevalence(1.3, hard=True)]).result_
    row = np.asarray(soft.diagnostics["mean_row"])
    np.testing.assert_allclose(hard.draws[:, :3] @ row, 1.3, atol=1e-10)
    free = mroz_fit().result_.means["estimate"][0]
    assert abs(soft.means["estimate"][1] - 1.3) < abs(free - 1.3)
    assert soft.means["std_error"][1] < 0.055
    by = mroz_fit(constraints=[crm.risk.Prevalence({0: 1.1, 1: 1.6}, se=0.06, by="wc")]).result_
    assert by.means["label"].tolist() == ["", ", wc = 0", ", wc = 1"]
    np.testing.assert_allclose(by.means["estimate"][1:], [1.1, 1.6], atol=0.1)
    with pytest.warns(IdentificationWarning, match="below .*, the sampling error"):
        mroz_fit(constraints=[crm.risk.Prevalence(1.3, se=0.001)])


def test_expertise_ties_selection_to_the_outcome() -> None:
    r = mroz_fit(constraints=[EXPERTS], sign="positive").result_
    at = {label: i for i, label in enumerate(zip(r.parameter, r.term, strict=True))}
    d = r.draws
    expected = d[:, at["outcome", "wc"]] * d[:, -1] / d[:, -2]
    np.testing.assert_allclose(d[:, at["selection", "wc"]], expected, rtol=1e-10)
    assert (d[:, -1] > 0).all()
    assert r.diagnostics["expertise_df"] == 1 and 0 <= r.diagnostics["expertise_p_value"] <= 1
    soft = mroz_fit(constraints=[crm.risk.Expertise(exclude=["wc"], soft=0.01)], sign="positive")
    near = soft.result_.draws
    own = near[:, at["selection", "wc"]] - near[:, at["outcome", "wc"]] * near[:, -1] / near[:, -2]
    assert 0.005 < own.std() < 0.02


def test_a_wrong_sign_is_doubted() -> None:
    df = simulate(800, -0.8, np.random.default_rng(3))
    for sign, status in (("positive", "doubtful"), ("negative", "untested")):
        fit = HeckmanModel("a + b", "a + b + d", sign=sign, draws=256)
        found = fit.fit(df, selected="t", outcome="y").result_.assumptions
        assert {a.name: a.status for a in found}["Sign of rho"] == status


def test_expertise_and_prevalence_sharpen_simulated_truth() -> None:
    rng = np.random.default_rng(8)
    n, rho, sigma = 3000, 0.5, 1.5
    a, b, z, e = rng.normal(size=(4, n))
    y = 0.5 + a - b + sigma * z  # u = (rho / sigma) (y - x beta) / ... moves selection through y
    t = -0.2 + rho / sigma * (a - b) + 0.7 * a + rho * z + np.sqrt(1 - rho**2) * e > 0
    df = pd.DataFrame({"a": a, "b": b, "y": y, "t": t.astype(int)})
    constraints: dict[str, Any] = {
        "none": [],
        "experts": [crm.risk.Expertise(free=["a"])],
        "mean": [crm.risk.Prevalence(0.5, se=0.05)],
    }
    width = {}
    for name, given in constraints.items():
        fit = HeckmanModel("a + b", "a + b", given, sign="positive", draws=1024)
        frame = fit.fit(df, selected="t", outcome="y").to_frame()
        width[name] = (frame["conf_high"] - frame["conf_low"]).to_numpy()
        assert frame["conf_low"][0] < 0.5 < frame["conf_high"][0]
        assert frame["conf_low"][7] < rho < frame["conf_high"][7]
    assert width["experts"][7] < 0.7 * width["none"][7]
    assert width["mean"][0] < 0.7 * width["none"][0]


# ---------------------------------------------------------------- data


def test_unseen_outcomes_change_nothing(fitted: HeckmanModel) -> None:
    df = load_mroz()
    df.loc[df["lfp"] == 0, "lwg"] = np.where(np.arange(325) % 2, 1e300, np.inf)
    again = HeckmanModel(**MROZ, draws=1024).fit(df, **ROLES)
    assert (again.result_.draws == fitted.result_.draws).all()
    assert (again.result_.ml == fitted.result_.ml).all()


def test_weights_are_relative_and_repeat_rows(fitted: HeckmanModel) -> None:
    df = load_mroz().assign(one=7.0, double=lambda d: 1.0 + (d["age"] > 40))
    same = HeckmanModel(**MROZ, draws=1024).fit(df, **ROLES, weights="one").result_
    np.testing.assert_allclose(same.draws, fitted.result_.draws, rtol=1e-6, atol=1e-8)
    weighted = HeckmanModel(**MROZ, draws=256).fit(df, **ROLES, weights="double").result_
    twice = pd.concat([df, df[df["double"] == 2]])
    repeated = HeckmanModel(**MROZ, draws=256).fit(twice, **ROLES).result_
    np.testing.assert_allclose(weighted.ml[:, 0], repeated.ml[:, 0], rtol=1e-6)


BAD: dict[str, tuple[dict[str, Any], Any, type[Exception], str]] = {
    "nobody": ({}, lambda d: d.assign(lfp=0), IdentificationError, "0 of 753 are"),
    "everybody": ({}, lambda d: d.assign(lfp=1, lwg=1.0), IdentificationError, "753 of 753"),
    "separated": (
        {"selection": "age + k5 + s"}, lambda d: d.assign(s=d["lfp"] + 0.1 * d["age"]),
        IdentificationError, "tell them apart exactly",
    ),
    "constant": (
        {"outcome": "age + c"}, lambda d: d.assign(c=3.0), IdentificationError, "'c' is constant"
    ),
    "never selected": (
        {"outcome": "age + g"}, lambda d: d.assign(g=(d["lfp"] == 0) & (d["age"] > 40)),
        IdentificationError, r"\['g'\] are constant or dependent",
    ),
    "outcome missing": (
        {}, lambda d: d.assign(lwg=d["lwg"].mask(d["wc"] == 1)), DataError, "an outcome in column"
    ),
    "coding": ({}, lambda d: d.assign(lfp=d["lfp"] + 1), DataError, "1 .outcome seen. or 0"),
    "Beta": (
        {"constraints": [crm.risk.Prevalence(beta=(2, 3))]}, lambda d: d, DataError, "saw a Beta"
    ),
    "level": (
        {"constraints": [crm.risk.Prevalence({5: 1.0}, se=1.0, by="wc")]}, lambda d: d, DataError,
        "equal to 5",
    ),
    "one formula": (
        {"constraints": [crm.risk.Expertise(free=["age"])]}, lambda d: d, DataError,
        r"\['k5', 'inc'\] stand in one only",
    ),
    "sign": ({"sign": "plus"}, lambda d: d, DataError, "sign to be one of"),
    "method": ({"method": "advi"}, lambda d: d, DataError, "method to be"),
    "draws": ({"draws": 5}, lambda d: d, DataError, "at least 100 draws"),
    "priors": ({"priors": {"rho": 1}}, lambda d: d, DataError, "priors for some of"),
    "no intercept": ({"outcome": "0 + age"}, lambda d: d, DataError, "an intercept in the formula"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_refusals(name: str) -> None:
    options, change, kind, message = BAD[name]
    with pytest.raises(kind, match=message):
        HeckmanModel(**(MROZ | options)).fit(change(load_mroz()), **ROLES)


def test_collinear_mills_ratio_warns() -> None:
    with pytest.warns(IdentificationWarning, match="No term moves selection alone"):
        fit = HeckmanModel("age + inc", "age + inc", draws=512).fit(load_mroz(), **ROLES)
    assert fit.result_.assumptions[1].status == "doubtful"


# ---------------------------------------------------------------- what a fit gives


def test_predictions(fitted: HeckmanModel) -> None:
    df = load_mroz().iloc[[3, 500, 10]].drop(columns=["lwg", "lfp"])
    everybody = fitted.predict_outcome(df)
    assert list(everybody.index) == [3, 500, 10]
    inside = fitted.predict_outcome(df, given="selected")
    outside = fitted.predict_outcome(df, given="unselected")
    share = fitted.predict_selection(df)
    # by simulation at one draw
    r = fitted.result_
    theta = r.draws[0]
    x, w = np.array([1, 44, 1]), np.array([1, 44, 1, 1, 20.0])
    z, u = np.random.default_rng(0).multivariate_normal(
        [0, 0], [[theta[8] ** 2, theta[9] * theta[8]], [theta[9] * theta[8], 1]], 400_000
    ).T  # fmt: skip
    seen = w @ theta[3:8] + u > 0
    y = x @ theta[:3] + z
    from causalrm.risk.heckman_result import mean_outcome

    for what, expected in (
        ("everybody", y.mean()), ("selected", y[seen].mean()), ("unselected", y[~seen].mean()),
        ("selection", seen.mean()),
    ):  # fmt: skip
        found = mean_outcome(theta[None], x[None], w[None], what)
        assert found[0, 0] == pytest.approx(expected, abs=5e-3)
    between = (everybody["estimate"] - inside["estimate"]) * (
        everybody["estimate"] - outside["estimate"]
    )
    assert (between < 0).all() and share["estimate"].between(0, 1).all()
    with pytest.raises(DataError, match="given to be None"):
        fitted.predict_outcome(df, given="all")


def test_json_and_pickle(fitted: HeckmanModel) -> None:
    df = load_mroz().head()
    again = crm.Estimator.from_result(crm.Result.from_json(fitted.result_.to_json()))
    pd.testing.assert_frame_equal(again.predict_outcome(df), fitted.predict_outcome(df))
    pd.testing.assert_frame_equal(again.result_.comparison(), fitted.result_.comparison())
    with pytest.raises(DataError, match="a fit in this session"):
        again.model_  # noqa: B018
    copy = pickle.loads(pickle.dumps(fitted))
    pd.testing.assert_frame_equal(copy.to_frame(), fitted.to_frame())
    json.loads(fitted.result_.to_json())


def test_posterior_tree(fitted: HeckmanModel) -> None:
    import arviz as az

    facts = az.summary(fitted.posterior_, var_names=["outcome", "rho"], ci_prob=0.95)
    mean = fitted.to_frame()["estimate"]
    assert float(facts.loc["outcome[age]", "mean"]) == pytest.approx(mean[1], abs=2e-3)
    assert "log_weight" in fitted.posterior_["sample_stats"]


def test_summary_and_comparison(fitted: HeckmanModel) -> None:
    text = str(fitted.summary())
    for part in ("maximum likelihood", "two-step", "lambda", "Implied mean of all", "Shape"):
        assert part in text
    frame = fitted.result_.comparison()
    ml = frame[frame["group"] == "ml"]
    lam = ml[ml["term"] == "lambda"]["estimate"].item()
    rho, sigma = (ml[ml["term"] == t]["estimate"].item() for t in ("rho", "sigma"))
    assert lam == pytest.approx(rho * sigma)


def test_shape_check_finds_skewed_errors() -> None:
    e, w = np.random.default_rng(0).normal(size=(2, 6))
    for rho in (-0.8, 0.1, 0.7):
        law = stats.multivariate_normal([0, 0], [[1, rho], [rho, 1]])
        expected = [
            (stats.norm.cdf(a) - law.cdf([a, -b])) / stats.norm.cdf(b)
            for a, b in zip(e, w, strict=True)
        ]
        np.testing.assert_allclose(_shape(e, w, rho), expected, atol=2e-5)
    rng = np.random.default_rng(9)
    good = simulate(2000, 0.5, rng)
    skewed = good.assign(y=good["y"] + rng.exponential(4, len(good)))
    for df, status in ((good, "supported"), (skewed, "doubtful")):
        fit = HeckmanModel("a + b", "a + b + d", draws=256).fit(df, selected="t", outcome="y")
        assert fit.result_.assumptions[0].status == status


def test_plots(fitted: HeckmanModel) -> None:
    ax = fitted.plot()
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [
        "posterior", "maximum likelihood", "two-step",
    ]  # fmt: skip
    assert [t.get_text() for t in ax.get_yticklabels()] == ["age", "wc"]
    ridge = fitted.plot.ridge()
    assert len(ridge.lines[0].get_xdata()) == 1024
    shape = fitted.plot.shape()
    assert shape.get_xlim() == (0, 1)
