"""Estimates: against R and lifelines, under penalties, and when data are rescaled or reordered."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lifelines
import numpy as np
import pandas as pd
import pytest
from scipy import optimize

import causalrm as crm
from causalrm.datasets import fetch_e1684, load_gbsg2, load_lung, load_rossi, make_survival

REFERENCE = Path(__file__).parents[1] / "reference" / "survival"
RIGHT = {"time": "time", "event": "event"}
BETWEEN = {"lower": "lower", "upper": "upper"}


def fit(data: pd.DataFrame, roles: dict[str, str] | None = None, **options: Any) -> Any:
    return crm.SurvivalRegression(**options).fit(data, **(RIGHT if roles is None else roles))


def reference(name: str) -> dict[str, Any]:
    return dict(json.loads((REFERENCE / f"{name}.json").read_text(encoding="utf-8"))["fits"])


def lung() -> pd.DataFrame:
    return load_lung().dropna(subset=["age", "sex", "ph_ecog"])


def simulated(name: str) -> pd.DataFrame:
    return pd.read_csv(REFERENCE / f"{name}.csv")


# ---------------------------------------------------------------- R

TRUNCATED = RIGHT | {"entry": "entry"}
LUNG = "age + sex + ph_ecog"
# fit of apgw.json: data, roles, options
APGW: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {
    "e1684_phi": ("e1684", RIGHT, {"phi": "treatment"}),
    "e1684_lam": ("e1684", RIGHT, {"lam": "treatment"}),
    "e1684_phi_gamma": ("e1684", RIGHT, {"phi": "treatment", "gamma": "treatment"}),
    "e1684_lam_gamma": ("e1684", RIGHT, {"lam": "treatment", "gamma": "treatment"}),
    "e1684_phi_lam": ("e1684", RIGHT, {"phi": "treatment", "lam": "treatment"}),
    "e1684_constant": ("e1684", RIGHT, {}),
    "e1684_constant_lam": ("e1684", RIGHT, {"lam": "1"}),
    "e1684_burr": ("e1684", RIGHT, {"lam": "1 + treatment", "kappa": "burr"}),
    "truncated_phi": ("truncated", TRUNCATED, {"phi": "x + trt"}),
    "truncated_phi_gamma": ("truncated", TRUNCATED, {"phi": "x + trt", "gamma": "trt"}),
    "truncated_weibull": ("truncated", TRUNCATED, {"phi": "x + trt", "kappa": "weibull"}),
    "interval_phi": ("interval", BETWEEN, {"phi": "x + trt"}),
    "interval_phi_gamma": ("interval", BETWEEN, {"phi": "x + trt", "gamma": "trt"}),
    "left_phi": ("left", BETWEEN, {"phi": "x", "kappa": 2}),
    "left_limit": ("left", BETWEEN, {"phi": "x", "kappa": "exponential_power"}),
    "lung_gompertz": ("lung", RIGHT, {"lam": f"1 + {LUNG}", "kappa": "gompertz"}),
}
SURVREG: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {
    "e1684_weibull": ("e1684", RIGHT, {"phi": "treatment", "kappa": "weibull"}),
    "e1684_loglogistic": ("e1684", RIGHT, {"phi": "treatment", "kappa": "loglogistic"}),
    "lung_weibull": ("lung", RIGHT, {"phi": LUNG, "kappa": "weibull"}),
    "lung_loglogistic": ("lung", RIGHT, {"phi": LUNG, "kappa": "loglogistic"}),
    "lung_exponential": ("lung", RIGHT, {"phi": LUNG, "kappa": "exponential"}),
    "lung_weibull_cluster": (
        "lung with institution", RIGHT | {"cluster": "institution"},
        {"phi": LUNG, "kappa": "weibull"},
    ),
    "lung_weibull_weighted": (
        "lung with weights", RIGHT | {"weights": "w"}, {"phi": LUNG, "kappa": "weibull"},
    ),
    "interval_weibull": ("interval", BETWEEN, {"phi": "x + trt", "kappa": "weibull"}),
    "interval_loglogistic": ("interval", BETWEEN, {"phi": "x + trt", "kappa": "loglogistic"}),
    "left_weibull": ("left", BETWEEN, {"phi": "x", "kappa": "weibull"}),
}  # fmt: skip


def frame(name: str, request: pytest.FixtureRequest) -> pd.DataFrame:
    if name == "e1684":
        request.getfixturevalue("data_folder")
        return fetch_e1684().dropna()
    if name.startswith("lung"):
        data = lung().assign(w=lambda d: 1 + (d["age"] % 5) / 2)
        return data.dropna(subset=["institution"]) if "institution" in name else data
    return simulated(name)


def natural_terms(result: Any) -> list[str]:
    return ["nu" if term == "kappa" else term for term in result.term]


@pytest.mark.parametrize("name", APGW)
def test_multi_parameter_fits_of_r(name: str, request: pytest.FixtureRequest) -> None:
    data, roles, options = APGW[name]
    expected = reference("apgw")[name]
    result = fit(frame(data, request), roles, **options).result_
    assert natural_terms(result) == expected["term"]
    assert result.n_obs == expected["n"] and result.n_params == expected["n_params"]
    assert result.loglik == pytest.approx(expected["loglik"], abs=1e-7)
    np.testing.assert_allclose(result.estimates, expected["estimate"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(result.std_error, expected["std_error"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(result.cov().to_numpy(), expected["covariance"], rtol=0, atol=2e-5)
    assert result.aic == pytest.approx(expected["aic"], abs=1e-6)
    assert result.bic == pytest.approx(expected["bic"], abs=1e-6)
    assert result.kappa == pytest.approx(expected["kappa"], abs=1e-5)


@pytest.mark.parametrize("name", SURVREG)
@pytest.mark.filterwarnings("ignore:Only 18 clusters")
def test_survreg_of_r(name: str, request: pytest.FixtureRequest) -> None:
    data, roles, options = SURVREG[name]
    expected = reference("survreg")[name]
    rows = frame(data, request)
    result = fit(rows, roles, **options).result_
    assert list(result.parameter) == expected["parameter"]
    assert list(result.term) == expected["term"]
    np.testing.assert_allclose(result.estimates, expected["estimate"], rtol=0, atol=1e-5)
    # Weights of mean one: the log-likelihood and the information are divided by their mean.
    mean = rows["w"].mean() if "weights" in roles else 1.0
    assert result.loglik == pytest.approx(expected["loglik"] / mean, abs=1e-7)
    factor = {"model": mean, "robust": 1.0}
    if "cluster" in roles:
        groups = rows["institution"].nunique()
        factor["cluster"] = groups / (groups - 1)
    for kind, covariance in expected["covariance"].items():
        if kind == "robust" and name.startswith("interval"):
            continue  # survreg's residuals of type dfbeta are others; see the next test
        scaled = np.array(covariance) * factor[kind]
        np.testing.assert_allclose(
            result.cov(kind).to_numpy(), scaled, rtol=1e-4, atol=1e-6, err_msg=kind
        )


# ---------------------------------------------------------------- an independent likelihood


def row_loglik(theta: np.ndarray, x: np.ndarray, shape: np.ndarray, rows: pd.DataFrame) -> Any:
    """Rows' log-likelihood from the definition: phi by `x`, gamma by `shape`, lambda 1, nu last."""
    p = x.shape[1]
    phi, g, k = np.exp(x @ theta[:p]), np.exp(shape @ theta[p:-1]), math.expm1(theta[-1])

    def cumulative(t: np.ndarray) -> Any:
        base = np.log1p((phi * t) ** g / (k + 1))
        return base * (k + 1) if abs(k) < 1e-9 else (k + 1) / k * np.expm1(k * base)

    with np.errstate(all="ignore"):
        if "lower" in rows:
            lower, upper = rows["lower"].to_numpy(), rows["upper"].to_numpy()
            exact, open_end = lower == upper, np.isinf(upper)
            last = np.where(open_end, 0.0, np.exp(-cumulative(np.where(open_end, 1.0, upper))))
            inside = np.log(np.exp(-cumulative(lower)) - last)
            time, event = np.where(exact, lower, 1.0), exact
        else:
            time, event = rows["time"].to_numpy(float), rows["event"].to_numpy() > 0
        u = (phi * time) ** g
        out = event * (np.log(g * u / time) + (k - 1) * np.log1p(u / (k + 1))) - cumulative(time)
        if "lower" in rows:
            out = np.where(exact, out, inside)
        return out + (cumulative(rows["entry"].to_numpy()) if "entry" in rows else 0.0)


def row_scores(theta: np.ndarray, *args: Any) -> np.ndarray:
    steps = 1e-5 * np.eye(len(theta))
    return np.array(
        [(row_loglik(theta + h, *args) - row_loglik(theta - h, *args)) / 2e-5 for h in steps]
    )


@pytest.mark.parametrize("name", ["truncated", "interval"])
def test_robust_covariance_is_the_sandwich_of_row_scores(name: str) -> None:
    rows = simulated(name)
    roles = TRUNCATED if name == "truncated" else BETWEEN
    result = fit(rows, roles, phi="x + trt", gamma="trt").result_
    one = np.ones((len(rows), 1))
    x, shape = np.hstack([one, rows[["x", "trt"]]]), np.hstack([one, rows[["trt"]]])
    scores = row_scores(result.estimates, x, shape, rows)
    np.testing.assert_allclose(scores.sum(axis=1), 0.0, atol=1e-3)
    bread = result.cov("model").to_numpy()
    expected = bread @ scores @ scores.T @ bread
    np.testing.assert_allclose(result.cov("robust").to_numpy(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("case", ["few", "cure", "mixture", "heavy", "bathtub"])
def test_no_start_finds_a_better_maximum(case: str) -> None:
    rng = np.random.default_rng(7)
    n = 30 if case == "few" else 150
    t = {
        "few": lambda: rng.weibull(1.3, n),
        "cure": lambda: np.where(rng.random(n) < 0.4, np.inf, rng.weibull(2.0, n)),
        "mixture": lambda: np.where(rng.random(n) < 0.5, 0.1, 3.0) * rng.weibull(3.0, n),
        "heavy": lambda: rng.pareto(0.4, n) + 0.01,
        "bathtub": lambda: np.where(rng.random(n) < 0.3, rng.weibull(0.5, n), rng.normal(9, 1, n)),
    }[case]()
    end = rng.uniform(1.0, 12.0, n)
    rows = pd.DataFrame({"time": np.minimum(t, end), "event": (t <= end).astype(int)})
    with warnings.catch_warnings():  # kappa may lie at the end of its range; that is not the point
        warnings.simplefilter("ignore", crm.CausalRMWarning)
        found = fit(rows).result_
    one = np.ones((n, 1))

    def loss(theta: np.ndarray) -> float:
        value = row_loglik(theta, one, one, rows).sum()
        return -float(value) if math.isfinite(value) and abs(theta[-1]) < 25 else 1e10

    centre = np.array([-np.log(rows["time"]).mean(), 0.0, 0.0])
    best = min(
        optimize.minimize(loss, centre + rng.normal(size=3) * [1.0, 1.0, 1.5], method="BFGS").fun
        for _ in range(12)
    )
    assert found.loglik > -best - 1e-4


# ---------------------------------------------------------------- lifelines

FITTERS = {
    "weibull": (lifelines.WeibullAFTFitter, "lambda_", "rho_"),
    "loglogistic": (lifelines.LogLogisticAFTFitter, "alpha_", "beta_"),
}
SETS: dict[str, tuple[Callable[[], pd.DataFrame], list[str]]] = {
    "lung": (lung, ["age", "sex", "ph_ecog"]),
    "gbsg2": (load_gbsg2, ["hormone", "age", "nodes", "progesterone"]),
    "rossi": (load_rossi, ["fin", "age", "race", "prio"]),
    "truncated": (lambda: simulated("truncated"), ["x", "trt"]),
    "interval": (lambda: simulated("interval"), ["x", "trt"]),
}


def lifelines_fit(
    data: pd.DataFrame, columns: list[str], family: str, ancillary: bool, **penalty: float
) -> Any:
    """The same fit by lifelines: its coefficients in our order, their errors, and its fitter."""
    fitter_class, scale, shape = FITTERS[family]
    x = pd.get_dummies(data[columns], drop_first=True, dtype=float)
    # formulaic puts the columns in the order of the formula, get_dummies categories last
    x = x[[c for name in columns for c in x if c == name or c.startswith(name + "_")]]
    outcome = [c for c in ("time", "event", "entry", "lower", "upper") if c in data]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitter = fitter_class(**penalty)
        joined = x.join(data[outcome])
        if "lower" in data:
            fitter.fit_interval_censoring(
                joined, "lower", "upper", ancillary=x if ancillary else None
            )
        else:
            late = "entry" if "entry" in data else None
            fitter.fit(
                joined, "time", "event", ancillary=x if ancillary else None, entry_col=late
            )
    names = [(scale, c) for c in ["Intercept", *x]]
    names += [(shape, c) for c in (["Intercept", *x] if ancillary else ["Intercept"])]
    sign = np.array([-1.0 if name == scale else 1.0 for name, _ in names])
    return sign * fitter.params_[names].to_numpy(), fitter.standard_errors_[names], fitter


def roles_of(data: pd.DataFrame) -> dict[str, str]:
    return {name: name for name in ("time", "event", "entry", "lower", "upper") if name in data}


@pytest.mark.parametrize("ancillary", [False, True], ids=["scale", "scale and shape"])
@pytest.mark.parametrize("family", FITTERS)
@pytest.mark.parametrize("name", SETS)
def test_agrees_with_lifelines(name: str, family: str, ancillary: bool) -> None:
    load, columns = SETS[name]
    data = load().reset_index(drop=True)
    formula = " + ".join(columns)
    ours = fit(
        data, roles_of(data), phi=formula, gamma=formula if ancillary else "1", kappa=family
    ).result_
    estimates, errors, fitter = lifelines_fit(data, columns, family, ancillary)
    # lifelines stops where the log-likelihood has three digits; ours must not be lower.
    assert -1e-6 < ours.loglik - fitter.log_likelihood_ < 2e-3
    assert (np.abs(ours.estimates - estimates) < 0.03 * ours.std_error).all()
    np.testing.assert_allclose(ours.std_error, errors, rtol=0.01)


# ---------------------------------------------------------------- elastic net


@pytest.mark.parametrize(("name", "penalty"), [("lung", 0.05), ("gbsg2", 0.02), ("rossi", 0.2)])
def test_ridge_of_lifelines(name: str, penalty: float) -> None:
    load, columns = SETS[name]
    data, formula = load().reset_index(drop=True), " + ".join(columns)
    # lifelines standardises by the deviation with n - 1
    scaled = penalty * len(data) / (len(data) - 1)
    ours = fit(data, phi=formula, gamma=formula, kappa="weibull", penalty=scaled).result_
    estimates, _, _ = lifelines_fit(data, columns, "weibull", True, penalizer=penalty)
    free = fit(data, phi=formula, gamma=formula, kappa="weibull").result_
    np.testing.assert_allclose(ours.estimates, estimates, rtol=1e-3, atol=1e-4)
    covariates = [i for i, term in enumerate(ours.term) if term != "Intercept"]
    shrunk, full = ours.estimates[covariates], free.estimates[covariates]
    assert np.abs(shrunk).sum() < np.abs(full).sum() and free.loglik > ours.loglik


@pytest.mark.parametrize("l1_ratio", [0.0, 0.5, 1.0])
def test_elastic_net_conditions(l1_ratio: float) -> None:
    rng = np.random.default_rng(2)
    n, columns = 300, [f"x{i}" for i in range(6)]
    data = pd.DataFrame(rng.normal(size=(n, 6)) * [1, 10, 0.1, 1, 1, 5] + 3, columns=columns)
    effect = 0.5 * (data["x0"] - 3) - 0.06 * (data["x1"] - 3) + 4 * (data["x2"] - 3)
    t, end = np.exp(-effect) * rng.weibull(1.5, n), rng.uniform(0.5, 4.0, n)
    data["time"], data["event"] = np.minimum(t, end), (t <= end).astype(int)
    penalty = 0.1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", crm.CausalRMWarning)
        result = fit(
            data, phi=columns, gamma=["x0", "x3"], penalty=penalty, l1_ratio=l1_ratio
        ).result_
    one = np.ones((n, 1))
    x, shape = np.hstack([one, data[columns]]), np.hstack([one, data[["x0", "x3"]]])
    score = row_scores(result.estimates, x, shape, data).sum(axis=1)
    size = np.array([0.0, *x[:, 1:].std(axis=0), 0.0, *shape[:, 1:].std(axis=0), 0.0])
    beta = result.estimates
    ridge, lasso = n * penalty * (1 - l1_ratio) * size**2 * beta, n * penalty * l1_ratio * size
    zero = (beta == 0) & (lasso > 0)
    assert (np.abs(score[zero]) <= lasso[zero] * (1 + 1e-6)).all()
    rest = (score - ridge - lasso * np.sign(beta))[~zero]
    np.testing.assert_allclose(rest / np.where(size > 0, size, 1.0)[~zero], 0.0, atol=0.01)
    if l1_ratio == 0:
        assert not zero.any() and np.isfinite(result.std_error).all()
    else:
        assert zero.any() and result.n_params == np.count_nonzero(beta)
        assert np.isnan(result.std_error).all() and "lasso" in result.warnings[0]


def test_penalty_does_not_depend_on_units() -> None:
    data = make_survival(200, rng=4).data
    one = fit(data, phi="x1 + x2", penalty=0.1).result_
    other = data.assign(x1=100 + 1000 * data["x1"], x2=-3 * data["x2"] + 1)
    two = fit(other, phi="x1 + x2", penalty=0.1).result_
    np.testing.assert_allclose(two.estimates[1:3] * [1000, -3], one.estimates[1:3], rtol=1e-4)
    assert two.loglik == pytest.approx(one.loglik, abs=1e-6)
