"""Standardised contrasts: against explicit averages, exact cases and numerical influence."""

from __future__ import annotations

import math
import pickle
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

import causalrm as crm
from causalrm.core.errors import DataError, IdentificationWarning
from causalrm.core.inference import quantile
from causalrm.datasets import make_survival
from causalrm.survival import SurvivalRegression
from causalrm.survival import _contrast_aipw as aipw
from causalrm.survival import _kernels as K
from causalrm.survival._contrast_data import covariate_terms, treatment_term
from causalrm.survival._contrast_integral import brackets, stretches
from causalrm.survival.contrast import ContrastResult, standardized_contrast

ROLES = {"time": "time", "event": "event"}
TIMES, HORIZON = [0.5, 1.5], 2.0


def simulated(n: int = 300, seed: int = 1, **options: Any) -> pd.DataFrame:
    options = {
        "treatment": {"x1": 0.6, "x2": 0.4},
        "censoring": {"Intercept": -1.3, "trt": 0.3, "x1": 0.3},
    } | options
    data: pd.DataFrame = make_survival(n, **options, rng=seed).data
    return data


def fitted(data: Any, phi: str = "trt * x1 + x2", **options: Any) -> SurvivalRegression:
    options = {"gamma": "trt", "kappa": "weibull"} | options
    roles = {k: options.pop(k) for k in ("weights", "cluster", "entry") if k in options}
    return SurvivalRegression(phi=phi, **options).fit(data, **ROLES, **roles)


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return simulated()


@pytest.fixture(scope="module")
def fit(data: pd.DataFrame) -> SurvivalRegression:
    return fitted(data)


def contrast(fit: Any, data: Any, **options: Any) -> ContrastResult:
    options = {"treatment": "trt", "times": TIMES, "rmst": HORIZON} | options
    return standardized_contrast(fit, data, **options)


# ---------------------------------------------------------------------------- estimates


@pytest.mark.parametrize("phi", ["trt * x1 + x2", "trt + I(trt * x1) + x2", "trt*bs(x1, df=4)"])
def test_gformula_is_the_mean_prediction(data: pd.DataFrame, phi: str) -> None:
    fit = fitted(data, phi)
    result = contrast(fit, data)
    for i, level in enumerate((0, 1)):
        there = data.assign(trt=level)
        survival = fit.predict_survival(there, TIMES).mean()
        rmst = fit.predict_rmst(there, HORIZON).mean()
        np.testing.assert_allclose(result.estimates[i], [*survival, *rmst], rtol=1e-12)


def test_gformula_weights_rows(data: pd.DataFrame) -> None:
    data = data.assign(w=np.random.default_rng(0).uniform(0.5, 2, len(data)))
    fit = fitted(data, weights="w")
    result = contrast(fit, data)
    there = fit.predict_survival(data.assign(trt=1), TIMES)
    expected = np.average(there, axis=0, weights=data["w"])
    np.testing.assert_allclose(result.estimates[1, :2], expected, rtol=1e-12)


def test_aipw_without_censoring_and_covariates_is_the_empirical_mean() -> None:
    # S + 1(A=a)/pi {1(Y>t) - S}, with pi the share of the arm: the fit drops out
    data = simulated(200, censoring=0.0, follow_up=math.inf)
    fit = fitted(data, "trt", gamma="1")
    result = contrast(fit, data, method="aipw")
    assert result.diagnostics["smallest_uncensored"] == 1.0
    for i in (0, 1):
        time = data.loc[data["trt"] == i, "time"].to_numpy()
        expected = [(time > t).mean() for t in TIMES] + [np.minimum(time, HORIZON).mean()]
        np.testing.assert_allclose(result.estimates[i], expected, atol=1e-7)


def test_aipw_is_the_mean_influence_function(data: pd.DataFrame, fit: SurvivalRegression) -> None:
    import statsmodels.api as sm

    result = contrast(fit, data, method="aipw", times=TIMES, rmst=None, censoring="trt + x1")
    logit = sm.Logit(data["trt"], sm.add_constant(data[["x1", "x2"]])).fit(disp=False, tol=1e-12)
    end = max(TIMES)
    cut = data.assign(
        time=data["time"].clip(upper=end), event=((data["event"] == 0) & (data["time"] < end)) * 1
    )
    censoring = SurvivalRegression(phi="trt + x1", kappa="weibull").fit(cut, **ROLES)
    for a in (0, 1):
        p = logit.predict() if a else 1 - logit.predict()
        for q, t in enumerate(TIMES):
            grid = np.linspace(1e-9, t, 1501)
            terms = []
            for start in range(0, len(data), 100):
                part = data.iloc[start : start + 100].assign(trt=a)
                h = fit.predict_cumulative_hazard(part, grid).to_numpy()
                g = censoring.predict_cumulative_hazard(part, grid).to_numpy()
                inner = np.exp(g) * np.exp(h)
                steps = 0.5 * (inner[:, 1:] + inner[:, :-1]) * np.diff(h, axis=1)
                total = np.concatenate([np.zeros((len(part), 1)), steps.cumsum(axis=1)], axis=1)
                for i, (y, d) in enumerate(zip(part["time"], part["event"], strict=True)):
                    value = -np.interp(min(y, t), grid, total[i])
                    if d and y <= t:
                        value += np.exp(np.interp(y, grid, h[i]) + np.interp(y, grid, g[i]))
                    observed = data["trt"].iloc[start + i] == a
                    factor = 1 - observed / p[start + i] * value
                    terms.append(np.exp(-h[i, -1]) * factor)
            assert result.estimates[a, q] == pytest.approx(np.mean(terms), abs=2e-5)


class _Points:
    """Constant parameters for n rows."""

    def __init__(self, n: int, a: float, b: float, c: float, kappa: float):
        self.n, self.kappa = n, kappa
        self.a, self.b, self.c = (np.full(n, v) for v in (a, b, c))

    def curves(self, time: Any) -> np.ndarray:
        t = np.ascontiguousarray(np.broadcast_to(np.asarray(time, dtype=float), (self.n,)))
        return K.curves(t, self.a, self.b, self.c, self.kappa)

    def at(self, times: np.ndarray) -> np.ndarray:
        flat = times.ravel()
        parts = (np.full(flat.size, v[0]) for v in (self.a, self.b, self.c))
        return K.curves(flat, *parts, self.kappa).reshape(10, *times.shape)


def _panels(end: float, panels: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on [0, end], much finer than the code's, in v with u = v^8."""
    x, w = np.polynomial.legendre.leggauss(10)
    edges = np.linspace(0, end**0.125, panels + 1)
    half = 0.5 * np.diff(edges)[:, None]
    v = (edges[:-1, None] + half * (x + 1)).ravel()
    return v**8, (half * w).ravel() * 8 * v**7


@pytest.mark.parametrize(
    ("c", "c_censoring", "kappa"), [(0.3, 0.0, 0.5), (-1.2, 0.4, -0.5), (1.8, -1.0, 1.0)]
)
def test_quadrature(c: float, c_censoring: float, kappa: float) -> None:
    time = np.array([0.05, 0.4, 0.9, 1.1, 1.3, 2.5])
    event = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    out, cens = _Points(6, -0.2, 0.1, c, kappa), _Points(6, -0.7, 0.0, c_censoring, 1.0)
    times, horizons = np.array([0.6, 1.2]), np.array([1.5])

    def quantities(p: _Points) -> tuple[np.ndarray, np.ndarray]:
        s = [np.exp(-p.curves(t)[0]) for t in times]
        slope = [-v * p.curves(t)[1:5] for v, t in zip(s, times, strict=True)]
        nodes, weights = _panels(1.5)
        curve = p.at(nodes)
        mean = weights * np.exp(-curve[0])
        s.append(np.full(6, mean.sum()))
        slope.append(np.repeat(-(mean * curve[1:5]).sum(axis=1)[:, None], 6, axis=1))
        return np.stack(s), np.stack(slope)

    def run(out: _Points, cens: _Points, bounds: np.ndarray | None = None) -> Any:
        args: Any = (time, event, out, cens, times, horizons, *quantities(out))
        found = stretches(*args) if bounds is None else bounds
        return brackets(*args, found), found

    got, bounds = run(out, cens)

    def bracket(y: float, d: float, t: np.ndarray) -> np.ndarray:
        """B at times t >= y, or at any one time below."""
        inner = 0.0
        nodes, weights = _panels(min(y, float(t.min())))
        o = out.at(nodes)
        inner -= float((weights * np.exp(o[0] + cens.at(nodes)[0] + o[5])).sum())
        if d and y <= t.min():
            inner += math.exp(out.at(np.array(y))[0] + cens.at(np.array(y))[0])
        return np.asarray(np.exp(-out.at(t)[0]) * inner)

    for i, (y, d) in enumerate(zip(time, event, strict=True)):
        for q, t in enumerate(times):
            assert got.value[q, i] == pytest.approx(bracket(y, d, np.array([t]))[0], abs=1e-8)
        nodes, weights = _panels(min(y, 1.5), 20)
        whole = sum(
            w * bracket(y, 0, np.array([t]))[0] for t, w in zip(nodes, weights, strict=True)
        )
        if y < 1.5:
            x, w = np.polynomial.legendre.leggauss(60)
            later = y + (1.5 - y) * (x + 1) / 2
            whole += float((1.5 - y) / 2 * w @ bracket(y, d, later))
        assert got.value[2, i] == pytest.approx(whole, abs=1e-7)

    for j, name in enumerate(("a", "b", "c")):
        for index, points in enumerate((out, cens)):
            ends = []
            for step in (1e-5, -1e-5):
                moved = [_Points(6, p.a[0], p.b[0], p.c[0], p.kappa) for p in (out, cens)]
                setattr(moved[index], name, getattr(points, name) + step)
                ends.append(run(*moved, bounds)[0].value)
            expected = (ends[0] - ends[1]) / 2e-5
            slopes = (got.by_outcome, got.by_censoring)[index][:, j]
            np.testing.assert_allclose(slopes, expected, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------------- standard errors


@pytest.mark.parametrize("method", ["gformula", "aipw"])
def test_covariance_is_that_of_the_numerical_influence(method: str) -> None:
    # Weights move the estimate; the derivatives in them are the influence of each row.
    data = simulated(32, seed=5, censoring=0.25)
    options: dict[str, Any] = {"method": method}
    if method == "aipw":
        censoring = SurvivalRegression(phi="trt", kappa="exponential")
        options |= {"propensity": "x1", "censoring": censoring}

    def estimate(w: np.ndarray) -> ContrastResult:
        weighted = data.assign(w=w)
        fit = fitted(weighted, "trt + x1", gamma="1", weights="w")
        return contrast(fit, weighted, times=[1.0], **options)

    w, rows, h = np.random.default_rng(2).uniform(0.5, 1.5, len(data)), [], 0.01
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IdentificationWarning)
        for i in range(len(data)):
            step = np.zeros(len(data))
            step[i] = h * w[i]
            ends = (estimate(w + step).estimates - estimate(w - step).estimates) / (2 * h)
            rows.append(ends.ravel())
        result = estimate(w)
    influence = np.array(rows)
    np.testing.assert_allclose(result.covariance, influence.T @ influence, rtol=2e-3, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gformula", "aipw"])
def test_standard_errors_against_bootstrap(method: str) -> None:
    data = simulated(400)
    rng = np.random.default_rng(0)

    def estimate(rows: pd.DataFrame) -> ContrastResult:
        return contrast(fitted(rows), rows, method=method)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IdentificationWarning)
        se = np.sqrt(np.diag(estimate(data).covariance))
        draws = [
            estimate(data.iloc[rng.integers(0, 400, 400)].reset_index(drop=True)).estimates.ravel()
            for _ in range(300)
        ]
    np.testing.assert_allclose(np.std(draws, axis=0), se, rtol=0.15)


def test_clusters_of_copies_are_the_rows_themselves(data: pd.DataFrame) -> None:
    twice = pd.concat([data, data], ignore_index=True)
    twice["id"] = np.tile(np.arange(len(data)), 2).astype(str)
    g = len(data)
    one = fitted(data)
    two = fitted(twice, cluster="id")
    for method in ("gformula", "aipw"):
        single = contrast(one, data, method=method)
        double = contrast(two, twice, method=method)
        np.testing.assert_allclose(double.estimates, single.estimates, rtol=1e-6)
        np.testing.assert_allclose(
            double.covariance, single.covariance * g / (g - 1), rtol=1e-5, atol=1e-12
        )
        assert double.df_resid == g - 1
    row = double.to_frame().iloc[-1]
    half = quantile(0.95, g - 1) * row["std_error"]
    assert row["conf_high"] == pytest.approx(row["estimate"] + half)


@pytest.mark.parametrize("method", ["gformula", "aipw"])
def test_weights_are_copies(data: pd.DataFrame, method: str) -> None:
    w = np.random.default_rng(4).integers(1, 3, len(data))
    copies = data.loc[data.index.repeat(w)].reset_index(drop=True)
    weighted = data.assign(w=w)
    options: dict[str, Any] = {"method": method}
    if method == "aipw":
        options["censoring"] = "trt + x1"
    one = contrast(fitted(weighted, weights="w"), weighted, **options)
    many = contrast(fitted(copies), copies, **options)
    np.testing.assert_allclose(one.estimates, many.estimates, rtol=1e-6)


def test_one_row_as_population_has_the_uncertainty_of_its_prediction(
    data: pd.DataFrame, fit: SurvivalRegression
) -> None:
    row = data.loc[[3], ["x1", "x2"]]  # neither treatment nor outcome
    result = contrast(fit, row)
    assert result.population == "other"
    frame = result.to_frame().set_index(["parameter", "term", "time"])
    for level in (0, 1):
        there = fit.predict_survival(row.assign(trt=level), TIMES, ci=True)
        for (_, t), expected in there.iterrows():
            got = frame.loc[("survival", str(level), t)]
            for name in ("estimate", "std_error", "conf_low", "conf_high"):
                assert got[name] == pytest.approx(expected[name], rel=1e-8), (level, t, name)


def test_a_target_population_adds_its_own_sampling(
    data: pd.DataFrame, fit: SurvivalRegression
) -> None:
    target = simulated(150, seed=9)[["x1", "x2", "trt"]]
    result = contrast(fit, target)
    variance = []
    for level in (0, 1):
        value = fit.predict_survival(target.assign(trt=level), TIMES)
        variance += list(value.var(ddof=0) / len(target))
    # the rest is the variance of the fit, as if the rows were fixed
    exact = contrast(fit, pd.concat([target] * 400, ignore_index=True))
    places = [0, 1, 3, 4]
    got = np.diag(result.covariance)[places] - np.diag(exact.covariance)[places]
    np.testing.assert_allclose(got, np.array(variance) * (1 - 1 / 400), rtol=1e-6)
    # changed covariates are no longer the rows of the fit, though outcomes agree
    assert contrast(fit, data.assign(x1=data["x1"] + 1)).population == "other"
    assert contrast(fit, data.sample(frac=1, random_state=0)).population == "fit"


def test_bread_of_a_penalised_fit(data: pd.DataFrame) -> None:
    from causalrm.core.design import encode_new

    fit = fitted(data, penalty=0.05)
    r = fit.result_
    _, rows = encode_new(data, r.model.predictors.unique, ["time", "event"])
    bread = aipw.bread_of(r, rows)
    information = -rows.total(r.model.sums, r.estimates)[2]
    np.testing.assert_allclose(bread @ information @ bread, r.covariances["model"], rtol=1e-8)
    assert np.linalg.eigvalsh(np.linalg.inv(bread) - information).min() > -1e-6
    assert np.isfinite(contrast(fit, data).covariance).all()


def test_a_lasso_leaves_standard_errors_to_cross_fitting(data: pd.DataFrame) -> None:
    with pytest.warns(IdentificationWarning, match="lasso"):
        fit = fitted(data, penalty=0.01, l1_ratio=1.0)
    frame = contrast(fit, data).to_frame()
    assert frame["estimate"].notna().all()
    assert frame["std_error"].isna().all()
    with pytest.warns(IdentificationWarning, match="lasso"):
        crossed = contrast(fit, data, method="aipw", folds=2, censoring="x1")
    assert crossed.to_frame()["std_error"].gt(0).all()


# ---------------------------------------------------------------------------- treatments and data


def three_arms(n: int = 360) -> pd.DataFrame:
    data = simulated(n, seed=3)
    extra = np.random.default_rng(1).random(n) < 0.4
    arm = np.where(extra, "c", np.where(data["trt"] == 1, "b", "a"))
    return data.assign(arm=arm, dose=np.select([arm == "b", arm == "c"], [1, 2], 0))


@pytest.mark.parametrize("method", ["gformula", "aipw"])
def test_several_levels(method: str) -> None:
    data = three_arms()
    options: dict[str, Any] = {"method": method}
    if method == "aipw":
        options["censoring"] = "x1"
    text = contrast(fitted(data, "arm + x1", gamma="1"), data, treatment="arm", **options)
    assert text.arms == ("a", "b", "c")
    frame = text.to_frame()
    assert list(frame["term"].unique()) == ["a", "b", "c", "b - a", "c - a"]
    coded = contrast(fitted(data, "C(dose) + x1", gamma="1"), data, treatment="dose", **options)
    assert coded.arms == ("0", "1", "2")
    np.testing.assert_allclose(coded.estimates, text.estimates, rtol=1e-6)
    np.testing.assert_allclose(coded.covariance, text.covariance, rtol=1e-4, atol=1e-9)
    other = contrast(
        fitted(data, "arm + x1", gamma="1"), data, treatment="arm", reference="b", **options
    )
    assert other.arms == ("b", "a", "c")
    np.testing.assert_allclose(other.estimates[[1, 0, 2]], text.estimates, rtol=1e-6)
    one, back = text.contrast(rmst=HORIZON, arm="b"), other.contrast(rmst=HORIZON, arm="a")
    assert (one.estimate, one.std_error) == pytest.approx((-back.estimate, back.std_error))
    assert coded.contrast(time=0.5, arm=1).name == "survival at 0.5, 1 - 0"


def test_levels_keep_the_order_of_a_category() -> None:
    data = three_arms()
    data["arm"] = pd.Categorical(data["arm"], ["c", "a", "b", "unused"])
    result = contrast(fitted(data, "arm + x1", gamma="1"), data, treatment="arm")
    assert result.arms == ("c", "a", "b")


def test_booleans_and_frames_of_other_kinds(data: pd.DataFrame, fit: SurvivalRegression) -> None:
    import polars as pl
    import pyarrow as pa

    expected = contrast(fit, data, method="aipw")
    truth = data.assign(trt=data["trt"] == 1)
    frames = [truth, pl.from_pandas(truth), pa.Table.from_pandas(truth)]
    for frame in frames:
        got = contrast(fitted(frame), frame, method="aipw", reference=False)
        np.testing.assert_allclose(got.estimates, expected.estimates, rtol=1e-8)
        np.testing.assert_allclose(got.covariance, expected.covariance, rtol=1e-6)


def test_delayed_entry_and_intervals_have_the_gformula() -> None:
    late = make_survival(400, entry=0.5, treatment={"x1": 0.5}, rng=1).data
    fit = fitted(late, "trt + x1", entry="entry")
    result = contrast(fit, late)
    assert result.population == "fit"
    assert result.to_frame()["std_error"].gt(0).all()
    with pytest.raises(DataError, match="delayed entry"):
        contrast(fit, late, method="aipw")
    coarse = make_survival(400, interval=0.4, treatment={"x1": 0.5}, rng=1).data
    model = SurvivalRegression(phi="trt + x1", kappa="weibull")
    seen = model.fit(coarse, lower="lower", upper="upper")
    assert contrast(seen, coarse).population == "fit"
    with pytest.raises(DataError, match="interval-censored"):
        contrast(seen, coarse, method="aipw")


def test_default_covariates_are_the_terms_without_treatment() -> None:
    data = three_arms().assign(**{"a b": np.arange(360) % 3})
    fit = SurvivalRegression(
        phi="arm * np.exp(x1) + C(`a b`)", gamma="arm + x1 + x2", kappa="weibull"
    ).fit(data, **ROLES)
    terms = covariate_terms(fit.result_, "arm")
    assert terms == ["np.exp(x1)", "C(`a b`)", "x2"]
    assert covariate_terms(fitted(data, "arm:x1 + C(dose):x2", gamma="1").result_, "arm") == [
        "C(dose):x2", "x1",
    ]  # fmt: skip
    assert covariate_terms(fitted(data, "trt").result_, "trt") == []
    assert treatment_term(fit.result_, "arm") == "arm"
    assert treatment_term(fit.result_, "a b") == "C(`a b`)"
    result = contrast(fit, data, treatment="arm")
    assert result.diagnostics["propensity_formula"] == "np.exp(x1) + C(`a b`) + x2"


def test_randomised_treatment_without_covariates() -> None:
    data = simulated(treatment=0.5)
    fit = fitted(data, "trt")
    with pytest.warns(IdentificationWarning, match="censoring is taken to be independent"):
        result = contrast(fit, data, method="aipw", times=[0.1], rmst=None)
    assert result.diagnostics["propensity_formula"] == "1"
    names = [a.name for a in result.assumptions]
    assert names == ["exchangeability", "positivity", "consistency", "models", "censoring"]


# ---------------------------------------------------------------------------- AIPW options


def test_cross_fitting(data: pd.DataFrame, fit: SurvivalRegression) -> None:
    options: dict[str, Any] = {"method": "aipw", "folds": 3, "censoring": "trt + x1"}
    one, two = (contrast(fit, data, rng=5, **options) for _ in range(2))
    np.testing.assert_array_equal(one.estimates, two.estimates)
    assert one.entropy == 5
    other = contrast(fit, data, rng=6, **options)
    assert np.abs(other.estimates - one.estimates).max() > 0
    plain = contrast(fit, data, method="aipw", censoring="trt + x1")
    assert plain.entropy is None
    se = np.sqrt(np.diag(plain.covariance))
    assert (np.abs(one.estimates - plain.estimates).ravel() < se).all()
    np.testing.assert_allclose(np.sqrt(np.diag(one.covariance)), se, rtol=0.3)


def test_cross_fitting_keeps_clusters_together() -> None:
    data = make_survival(
        300, cluster_size=3, correlation=0.3, treatment={"x1": 0.5}, censoring=0.2, rng=1
    ).data
    result = contrast(fitted(data, cluster="cluster"), data, method="aipw", folds=2, censoring="x1")
    assert result.df_resid == 99
    assert result.to_frame()["std_error"].gt(0).all()


def test_clip_is_counted(data: pd.DataFrame, fit: SurvivalRegression) -> None:
    plain = contrast(fit, data, method="aipw")
    assert plain.diagnostics["clipped"] == 0
    clipped = contrast(fit, data, method="aipw", clip=0.3)
    assert clipped.diagnostics["clipped"] > 0
    assert np.abs(clipped.estimates - plain.estimates).max() > 1e-4


def test_a_given_censoring_model_is_not_touched(
    data: pd.DataFrame, fit: SurvivalRegression
) -> None:
    spec = SurvivalRegression(phi="trt + x1", kappa="weibull")
    one = contrast(fit, data, method="aipw", censoring=spec)
    two = contrast(fit, data, method="aipw", censoring="trt + x1")
    np.testing.assert_allclose(one.estimates, two.estimates, rtol=1e-10)
    assert not hasattr(spec, "result_")
    assert one.diagnostics["censoring_model"]["phi"] == "trt + x1"


# ---------------------------------------------------------------------------- the result


@pytest.fixture(scope="module")
def result(data: pd.DataFrame, fit: SurvivalRegression) -> ContrastResult:
    return contrast(fit, data, times=[0.0, *TIMES])


def test_frame(result: ContrastResult) -> None:
    frame = result.to_frame()
    assert list(frame.columns) == [
        "parameter", "term", "time", "estimate", "std_error", "statistic", "p_value", "conf_low",
        "conf_high",
    ]  # fmt: skip
    kinds = ["survival", "survival difference", "rmst", "rmst difference"]
    assert list(frame["parameter"].unique()) == kinds
    inside = frame[frame["time"] > 0]
    assert (inside["conf_low"] < inside["estimate"]).all()
    assert (inside["estimate"] < inside["conf_high"]).all()
    differences = frame["parameter"].str.endswith("difference")
    assert frame.loc[~differences, "p_value"].isna().all()
    assert frame.loc[differences & (frame["time"] > 0), "p_value"].between(0, 1).all()
    start = frame[(frame["time"] == 0) & (frame["parameter"] == "survival")]
    assert (start["estimate"] == 1).all()
    assert (start["conf_low"] == 1).all()
    wide, narrow = result.to_frame(0.99), result.to_frame(0.8)
    assert (wide["conf_high"] >= narrow["conf_high"]).all()
    with pytest.raises(DataError, match="level"):
        result.to_frame(95)


def test_single_contrasts(result: ContrastResult) -> None:
    frame = result.to_frame().set_index(["parameter", "time"]).sort_index()
    difference = result.contrast(time=0.5)
    assert difference.estimate == frame.loc[("survival difference", 0.5), "estimate"].item()
    assert difference.p_value == frame.loc[("survival difference", 0.5), "p_value"].item()
    ratio = result.contrast(rmst=HORIZON, scale="ratio")
    arms = frame.loc[("rmst", HORIZON), "estimate"].to_numpy()
    assert float(ratio) == pytest.approx(arms[1] / arms[0])
    assert math.sqrt(ratio.conf_low * ratio.conf_high) == pytest.approx(ratio.estimate)
    for wrong in (
        {}, {"time": 0.5, "rmst": 2.0}, {"time": 0.51}, {"time": 0.5, "arm": 2},
        {"time": 0.5, "scale": "odds"}, {"time": "soon"},
    ):  # fmt: skip
        with pytest.raises(DataError):
            result.contrast(**wrong)


def test_storing_and_showing(result: ContrastResult) -> None:
    text = str(result.summary())
    assert "survival difference" in text
    assert "positivity" in text
    back = crm.Result.from_json(result.to_json())
    pd.testing.assert_frame_equal(back.to_frame(), result.to_frame())
    pd.testing.assert_frame_equal(pickle.loads(pickle.dumps(result)).to_frame(), result.to_frame())
    assert result.plot().get_ylabel()
    with pytest.raises(ValueError, match="read-only"):
        result.estimates[0] = 0.0


def test_without_times_a_grid_is_used(data: pd.DataFrame, fit: SurvivalRegression) -> None:
    result = contrast(fit, data, times=None, rmst=None)
    assert len(result.times) == 20
    assert result.times[-1] < data["time"].max()
    assert result.horizons.size == 0
    only = contrast(fit, data, times=None)
    assert only.times.size == 0
    stored = contrast(fit.result_, data, times=None, rmst=None)
    np.testing.assert_array_equal(stored.estimates, result.estimates)
