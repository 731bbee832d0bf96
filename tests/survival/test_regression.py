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
            fitter.fit(joined, "time", "event", ancillary=x if ancillary else None, entry_col=late)
    names = [(scale, c) for c in ["Intercept", *x]]
    names += [(shape, c) for c in (["Intercept", *x] if ancillary else ["Intercept"])]
    sign = np.array([-1.0 if name == scale else 1.0 for name, _ in names])
    return sign * fitter.params_[names].to_numpy(), fitter.standard_errors_[names], fitter


def roles_of(data: pd.DataFrame) -> dict[str, str]:
    return {name: name for name in ("time", "event", "entry", "lower", "upper") if name in data}


@pytest.mark.parametrize(
    ("family", "ancillary"), [("weibull", False), ("weibull", True), ("loglogistic", False)]
)
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
    other = data.assign(x1=100 + 1000 * data["x1"], x2=-3 * data["x2"] + 2000)
    two = fit(other, phi="x1 + x2", penalty=0.1).result_
    np.testing.assert_allclose(two.estimates[1:3] * [1000, -3], one.estimates[1:3], rtol=1e-4)
    np.testing.assert_allclose(two.std_error[1:3] * [1000, 3], one.std_error[1:3], rtol=1e-4)
    assert two.loglik == pytest.approx(one.loglik, abs=1e-6)


# ---------------------------------------------------------------- what must not matter


def close(a: Any, b: Any, tolerance: float = 1e-5) -> None:
    """Compare estimates and standard errors of two results, in units of standard errors."""
    assert a.term == b.term and a.parameter == b.parameter
    assert np.abs((a.estimates - b.estimates) / a.std_error).max() < tolerance
    np.testing.assert_allclose(a.std_error, b.std_error, rtol=tolerance)


MODEL: dict[str, Any] = {"phi": "x1 + trt", "gamma": "trt"}


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return make_survival(300, cluster_size=3, correlation=0.3, rng=11).data


def test_order_and_index_of_rows(data: pd.DataFrame) -> None:
    shuffled = data.sample(frac=1.0, random_state=0)
    roles = RIGHT | {"cluster": "cluster"}
    one, two = fit(data, roles, **MODEL).result_, fit(shuffled, roles, **MODEL).result_
    for kind in ("model", "robust", "cluster"):
        close(one.with_covariance(kind), two.with_covariance(kind), 1e-7)
    assert two.loglik == pytest.approx(one.loglik, rel=1e-12)
    assert one.diagnostics["cox_snell_gap"] == pytest.approx(two.diagnostics["cox_snell_gap"])


@pytest.mark.parametrize("unit", [1e-6, 365.25, 1e9])
@pytest.mark.parametrize("kind", ["right", "late", "interval"])
def test_unit_of_time(unit: float, kind: str) -> None:
    options: dict[str, Any] = {"late": {"entry": 0.5}, "interval": {"interval": 0.7}}.get(kind, {})
    data = make_survival(300, rng=12, **options).data
    roles = roles_of(data)
    times = [c for c in ("time", "entry", "lower", "upper") if c in data]
    one = fit(data, roles, **MODEL).result_
    two = fit(data.assign(**{c: unit * data[c] for c in times}), roles, **MODEL).result_
    shift = np.zeros(len(one.estimates))
    shift[0] = -math.log(unit)
    assert np.abs((two.estimates - one.estimates - shift) / one.std_error).max() < 1e-5
    np.testing.assert_allclose(two.cov().to_numpy(), one.cov().to_numpy(), rtol=1e-5, atol=1e-8)
    densities = data["event"].sum() if kind != "interval" else 0
    assert two.loglik == pytest.approx(one.loglik - densities * math.log(unit), abs=1e-7)
    assert two.turning_point == pytest.approx(unit * one.turning_point, rel=1e-5, nan_ok=True)


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_unit_and_origin_of_a_covariate(data: pd.DataFrame, scale: float) -> None:
    one = fit(data, **MODEL).result_
    moved = data.assign(x1=scale * (data["x1"] - 7.0))
    two = fit(moved, **MODEL).result_
    b = dict(zip(zip(two.parameter, two.term, strict=True), two.estimates, strict=True))
    a = dict(zip(zip(one.parameter, one.term, strict=True), one.estimates, strict=True))
    assert b["phi", "x1"] * scale == pytest.approx(a["phi", "x1"], rel=1e-5)
    assert b["phi", "Intercept"] == pytest.approx(
        a["phi", "Intercept"] + 7 * a["phi", "x1"], rel=1e-5
    )
    assert two.loglik == pytest.approx(one.loglik, abs=1e-8)
    se = dict(zip(zip(two.parameter, two.term, strict=True), two.std_error, strict=True))
    assert se["phi", "x1"] * scale == pytest.approx(one.std_error[1], rel=1e-5)
    # A year such as 2020 is far from zero in units of its spread.
    late = fit(data.assign(x1=data["x1"] + 2020.0), **MODEL).result_
    assert late.estimates[1] == pytest.approx(one.estimates[1], rel=1e-5)
    assert late.std_error[1] == pytest.approx(one.std_error[1], rel=1e-5)


def test_weights(data: pd.DataFrame) -> None:
    roles = RIGHT | {"weights": "w"}
    one = fit(data, **MODEL).result_
    same = fit(data.assign(w=3.7), roles, **MODEL).result_
    assert same.covariance == "robust" and one.covariance == "model"
    for kind in ("model", "robust"):
        close(one.with_covariance(kind), same.with_covariance(kind), 1e-8)
    twice = pd.concat([data, data.iloc[:100]])
    weighted = data.assign(w=np.where(np.arange(300) < 100, 2.0, 1.0))
    left, right = fit(twice, **MODEL).result_, fit(weighted, roles, **MODEL).result_
    np.testing.assert_allclose(left.estimates, right.estimates, rtol=1e-5, atol=1e-7)
    assert right.loglik / 300 == pytest.approx(left.loglik / 400, rel=1e-9)
    # A weight of 0 takes the row out of everything but the count.
    zero = data.assign(w=np.where(np.arange(300) < 100, 0.0, 1.0))
    without, held = fit(data.iloc[100:], **MODEL).result_, fit(zero, roles, **MODEL).result_
    close(without.with_covariance("robust"), held, 1e-5)


def test_clusters_of_one(data: pd.DataFrame) -> None:
    alone = fit(data.assign(cluster=range(300)), RIGHT | {"cluster": "cluster"}, **MODEL).result_
    assert alone.covariance == "cluster" and alone.df_resid == 299
    np.testing.assert_allclose(
        alone.cov("cluster").to_numpy(), alone.cov("robust").to_numpy() * 300 / 299, rtol=1e-10
    )
    text = data.assign(cluster=[f"c{i}" for i in data["cluster"]])
    roles = RIGHT | {"cluster": "cluster"}
    one, two = fit(data, roles, **MODEL).result_, fit(text, roles, **MODEL).result_
    np.testing.assert_allclose(two.cov().to_numpy(), one.cov().to_numpy(), rtol=1e-10)


def test_reference_level() -> None:
    data = load_gbsg2()
    one = fit(data, phi="tumor_grade", gamma="tumor_grade").result_
    turned = data.assign(tumor_grade=data["tumor_grade"].cat.reorder_categories(["III", "I", "II"]))
    two = fit(turned, phi="tumor_grade", gamma="tumor_grade").result_
    assert two.loglik == pytest.approx(one.loglik, abs=1e-8)
    for parameter in ("phi", "gamma"):
        first = one.contrast(
            {(parameter, "tumor_grade[T.II]"): 1, (parameter, "tumor_grade[T.III]"): -1}
        )
        second = two.contrast({(parameter, "tumor_grade[T.II]"): 1})
        assert first.estimate == pytest.approx(second.estimate, abs=1e-5)
        assert first.std_error == pytest.approx(second.std_error, rel=1e-5)
    assert one.wald_test("tumor_grade").statistic == pytest.approx(
        two.wald_test("tumor_grade").statistic, rel=1e-5
    )


def test_scales_of_the_weibull_are_one(data: pd.DataFrame) -> None:
    phi = fit(data, phi="x1 + trt", kappa="weibull").result_
    lam = fit(data, phi=None, lam="1 + x1 + trt", kappa="weibull").result_
    mixed = fit(data, phi="1", lam="x1 + trt", kappa="weibull").result_
    assert phi.loglik == pytest.approx(lam.loglik, abs=1e-8)
    assert phi.loglik == pytest.approx(mixed.loglik, abs=1e-8)
    gamma = math.exp(phi.estimates[-1])
    np.testing.assert_allclose(lam.estimates[:3], gamma * phi.estimates[:3], rtol=1e-5)
    np.testing.assert_allclose(mixed.estimates[1:3], lam.estimates[1:3], rtol=1e-5)
    # Two-by-two agreement of a derived quantity: the standard error of gamma tau.
    jacobian = np.diag([gamma] * 3 + [1.0])
    jacobian[:3, 3] = gamma * phi.estimates[:3]
    derived = jacobian @ phi.cov().to_numpy() @ jacobian.T
    np.testing.assert_allclose(lam.cov().to_numpy(), derived, rtol=1e-4, atol=1e-8)


def test_families_are_points_of_the_general_model(data: pd.DataFrame) -> None:
    free = fit(data, phi="x1 + trt").result_
    at = fit(data, phi="x1 + trt", kappa=free.kappa).result_
    assert at.loglik == pytest.approx(free.loglik, abs=1e-7)
    assert at.estimates == pytest.approx(free.estimates[:-1], abs=1e-4)
    for family, kappa in (("weibull", 1.0), ("loglogistic", 0.0), ("exponential_power", math.inf)):
        named, number = (fit(data, phi="x1 + trt", kappa=k).result_ for k in (family, kappa))
        assert named.loglik == number.loglik and named.kappa == number.kappa == kappa
        assert named.loglik <= free.loglik + 1e-7
    assert fit(data, kappa="exponential").result_.n_params == 1
    assert fit(data, kappa="linear_hazard").result_.kappa == 2.0


def test_starts_lead_to_the_same_maximum(data: pd.DataFrame) -> None:
    one = fit(data, **MODEL).result_
    for starts in ([0.5], [-1.5], [2.0, 0.1]):
        close(one, fit(data, **MODEL, starts=starts).result_, 1e-4)
