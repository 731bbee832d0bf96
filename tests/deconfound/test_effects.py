"""Average effects: independent software, properties, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge

from causalrm.core.errors import DataError, IdentificationError, IdentificationWarning
from causalrm.core.result import Result
from causalrm.deconfound.effects import average_effect

REFERENCE = Path(__file__).parents[1] / "reference" / "deconfound"
ROLES = {"outcome": "y", "treatment": "d"}
XS = ["x1", "x2", "x3"]


@pytest.fixture(scope="module")
def df() -> pd.DataFrame:
    return pd.read_csv(REFERENCE / "effects_data.csv")


@pytest.mark.parametrize("name", ["plr", "ate", "att"])
def test_against_doubleml(df: pd.DataFrame, name: str) -> None:
    """Same folds, same linear nuisances: same estimates, errors, bounds and benchmarks."""
    expected = json.loads((REFERENCE / "effects.json").read_text())[name]
    options = {"method": "plr"} if name == "plr" else {"method": "aipw", "estimand": name}
    fit = average_effect(df, **ROLES, covariates=XS, benchmarks=["x2"], **options)
    assert fit.estimate == pytest.approx(expected["estimate"], rel=1e-8)
    assert fit.std_error == pytest.approx(expected["std_error"], rel=1e-8)
    found = fit.sensitivity()
    assert found.robustness_value() == pytest.approx(expected["rv"], abs=2e-6)
    ends = found.bounds(0.04, 0.03).iloc[0]
    for end in ("low", "high"):
        assert ends[end] == pytest.approx(expected[end], rel=1e-8)
    if "benchmark" in expected:
        row = fit.benchmarks.loc["x2"]
        assert row["cf_y"] == pytest.approx(expected["benchmark"]["cf_y"], rel=1e-6)
        assert row["cf_d"] == pytest.approx(expected["benchmark"]["cf_d"], rel=1e-6)
    # DoubleML 0.11 divides scores by their (negative) derivative, which turns the sign of the
    # covariance of estimate and S; test_sensitivity.py shows which sign is right.
    theirs = type(found)(
        **{
            **{f: getattr(found, f) for f in found.__dataclass_fields__},
            "scale_covariance": (-found.scale_covariance[0], found.scale_covariance[1]),
        }
    )
    assert theirs.robustness_value(level=0.95) == pytest.approx(expected["rva"], abs=2e-6)
    ends = theirs.bounds(0.04, 0.03).iloc[0]
    assert ends["conf_low"] == pytest.approx(expected["conf_low"], rel=1e-8)
    assert ends["conf_high"] == pytest.approx(expected["conf_high"], rel=1e-8)


def test_regression_against_statsmodels(df: pd.DataFrame) -> None:
    design = sm.add_constant(df[["d", *XS]])
    fit = average_effect(df, **ROLES, covariates=XS, method="regression")
    for kind, theirs in (("robust", "HC1"), ("HC2", "HC2"), ("model", "nonrobust")):
        expected = sm.OLS(df["y"], design).fit(cov_type=theirs)
        assert fit.estimate == pytest.approx(expected.params["d"], rel=1e-10)
        assert fit.std_errors[kind] == pytest.approx(expected.bse["d"], rel=1e-10)
    groups = np.arange(len(df)) // 8
    expected = sm.OLS(df["y"], design).fit(cov_type="cluster", cov_kwds={"groups": groups})
    n, k = design.shape
    fit = average_effect(
        df.assign(g=groups), **ROLES, covariates=XS, method="regression", cluster="g"
    )
    factor = np.sqrt((n - 1) / (n - k))  # ours is G/(G-1) alone
    assert fit.std_error * factor == pytest.approx(expected.bse["d"], rel=1e-10)
    w = np.arange(n) % 3 + 1.0
    expected = sm.WLS(df["y"], design, weights=w).fit(cov_type="HC1")
    fit = average_effect(df.assign(w=w), **ROLES, covariates=XS, method="regression", weights="w")
    assert fit.estimate == pytest.approx(expected.params["d"], rel=1e-10)
    assert fit.std_error == pytest.approx(expected.bse["d"], rel=1e-10)


def test_ipw_against_statsmodels(df: pd.DataFrame) -> None:
    """Normalised weights; the standard error by stacked moments, solved by hand."""
    design = sm.add_constant(df[XS]).to_numpy()
    d, y = df["d"].to_numpy(), df["y"].to_numpy()
    logit = sm.Logit(d, design).fit(disp=0, tol=1e-12)
    e = logit.predict()
    for estimand, a, b in (
        ("ate", d / e, (1 - d) / (1 - e)), ("att", d, (1 - d) * e / (1 - e)),
    ):  # fmt: skip
        m1, m0 = np.average(y, weights=a), np.average(y, weights=b)
        fit = average_effect(df, **ROLES, covariates=XS, method="ipw", estimand=estimand)
        assert fit.estimate == pytest.approx(m1 - m0, rel=1e-7)

        def moments(theta: np.ndarray, estimand: str = estimand) -> np.ndarray:
            p = 1 / (1 + np.exp(-design @ theta[2:]))
            one = d / p if estimand == "ate" else d
            none = (1 - d) / (1 - p) if estimand == "ate" else (1 - d) * p / (1 - p)
            return np.vstack([one * (y - theta[0]), none * (y - theta[1]), design.T * (d - p)])

        theta = np.concatenate([[m1, m0], logit.params])
        step = 1e-6 * np.eye(len(theta))
        slope = np.stack(
            [(moments(theta + s).sum(1) - moments(theta - s).sum(1)) / 2e-6 for s in step], axis=1
        )
        influence = -np.linalg.solve(slope, moments(theta))
        expected = np.sqrt(((influence[0] - influence[1]) ** 2).sum())
        assert fit.std_error == pytest.approx(expected, rel=1e-5)


def test_standardisation_is_the_average_of_predictions(df: pd.DataFrame) -> None:
    fit = average_effect(df, **ROLES, covariates=XS, method="regression", interact=XS)
    lines = [LinearRegression().fit(df.loc[df["d"] == a, XS], df.loc[df["d"] == a, "y"]) for a in
             (0, 1)]  # fmt: skip
    change = lines[1].predict(df[XS]) - lines[0].predict(df[XS])
    assert fit.estimate == pytest.approx(change.mean(), rel=1e-10)
    treated = average_effect(
        df, **ROLES, covariates=XS, method="regression", interact=XS, estimand="att"
    )
    assert treated.estimate == pytest.approx(change[df["d"] == 1].mean(), rel=1e-10)


def test_fast_path_is_the_general_one(df: pd.DataFrame) -> None:
    fast = average_effect(df, **ROLES, covariates=XS, method="plr", rng=4)
    slow = average_effect(
        df, **ROLES, covariates=XS, method="plr", nuisance=LinearRegression(), rng=4
    )
    assert slow.estimate == pytest.approx(fast.estimate, rel=1e-9)
    assert slow.std_error == pytest.approx(fast.std_error, rel=1e-9)
    assert slow.moments == pytest.approx(fast.moments, rel=1e-7)


def test_double_robustness() -> None:
    """AIPW is right with either nuisance wrong; the difference in means is not."""
    rng = np.random.default_rng(1)
    n = 20_000
    x = rng.normal(size=n)
    d = (x + rng.logistic(size=n) > 0).astype(int)
    df = pd.DataFrame({"x": x, "d": d, "y": d + np.exp(x) + rng.normal(size=n)})
    wrong = average_effect(df, **ROLES, method="difference")
    assert abs(wrong.estimate - 1) > 20 * wrong.std_error
    outcome_wrong = average_effect(df, **ROLES, covariates=["x"]).effect()
    df["z"], df["late"] = np.exp(x), rng.normal(size=n)
    blind = LogisticRegression(C=1e-8)
    right = average_effect(df, **ROLES, covariates=["x", "z"], nuisance={"treatment": blind})
    for e in (outcome_wrong, right.effect()):
        assert abs(e.estimate - 1) < 4 * e.std_error


@pytest.mark.parametrize("method", ["regression", "aipw", "plr"])
def test_a_formula_without_intercept_keeps_all_its_columns(df: pd.DataFrame, method: str) -> None:
    with_one, without = (
        average_effect(df, **ROLES, covariates=text, method=method).effect()
        for text in ("x1 + x2", "0 + x1 + x2")
    )
    assert with_one == without


def test_repeated_splits_and_seeds(df: pd.DataFrame) -> None:
    nuisance = {"outcome": RandomForestRegressor(10), "treatment": RandomForestClassifier(10,
                min_samples_leaf=20)}  # fmt: skip
    fit = average_effect(df, **ROLES, covariates=XS, nuisance=nuisance, repeats=3, rng=5)
    again = average_effect(df, **ROLES, covariates=XS, nuisance=nuisance, repeats=3, rng=5)
    pd.testing.assert_frame_equal(fit.splits, again.splits)
    assert fit.splits["estimate"].nunique() == 3
    theta = fit.splits["estimate"].median()
    spread = (fit.splits["std_error"] ** 2 + (fit.splits["estimate"] - theta) ** 2).median()
    assert fit.estimate == theta
    assert fit.std_error == pytest.approx(np.sqrt(spread))


def test_weights_are_sampling_weights(df: pd.DataFrame) -> None:
    doubled = pd.concat([df, df.iloc[::2]])
    weighted = df.assign(w=np.where(np.arange(len(df)) % 2 == 0, 2.0, 1.0))
    for method in ("difference", "regression", "ipw"):
        one = average_effect(weighted, **ROLES, covariates=XS, method=method, weights="w")
        two = average_effect(doubled, **ROLES, covariates=XS, method=method)
        assert one.estimate == pytest.approx(two.estimate, rel=1e-6)
    same = average_effect(df.assign(w=3.0), **ROLES, covariates=XS, weights="w")
    plain = average_effect(df, **ROLES, covariates=XS)
    assert same.estimate == pytest.approx(plain.estimate, rel=1e-9)
    assert same.std_error == pytest.approx(plain.std_error, rel=1e-9)


def test_clusters_stay_in_a_fold_and_are_counted(df: pd.DataFrame) -> None:
    rows = pd.concat([df] * 3, ignore_index=True).assign(g=np.tile(np.arange(len(df)), 3))
    fit = average_effect(rows, **ROLES, covariates=XS, cluster="g", method="plr")
    single = average_effect(df, **ROLES, covariates=XS, method="plr")
    assert fit.std_error == pytest.approx(single.std_error, rel=0.05)
    assert fit.std_errors["robust"] < 0.65 * fit.std_error
    with pytest.warns(IdentificationWarning, match="Only 10 clusters"):
        few = average_effect(df.assign(g=np.arange(len(df)) % 10), **ROLES, cluster="g")
    assert few.warnings


def test_overlap_is_told_and_nothing_is_trimmed_silently(df: pd.DataFrame) -> None:
    fit = average_effect(df, **ROLES, covariates=XS)
    d = fit.diagnostics
    assert d["n_trimmed"] == d["n_clipped"] == 0
    assert 0 < d["ess_treated"] < d["n_treated"]
    assert len(d["propensity"]["treated"]) == 5
    with pytest.warns(IdentificationWarning, match="were trimmed"):
        trimmed = average_effect(df, **ROLES, covariates=XS, trim=0.1)
    assert trimmed.diagnostics["n_trimmed"] > 0
    with pytest.warns(IdentificationWarning, match="were clipped"):
        clipped = average_effect(df, **ROLES, covariates=XS, clip=0.1, method="ipw")
    assert clipped.diagnostics["n_clipped"] > 0
    assert clipped.std_error < average_effect(df, **ROLES, covariates=XS, method="ipw").std_error
    deep = {"treatment": RandomForestClassifier(5, random_state=0)}
    with pytest.raises(IdentificationError, match="propensities between 0 and 1"):
        average_effect(df, **ROLES, covariates=XS, nuisance=deep)


def test_json_frame_and_summary(df: pd.DataFrame) -> None:
    fit = average_effect(df, **ROLES, covariates=XS, benchmarks=["x1", ("x2", "x3")])
    again = Result.from_json(fit.to_json())
    pd.testing.assert_frame_equal(again.to_frame(), fit.to_frame())
    assert again.sensitivity().robustness_value() == fit.sensitivity().robustness_value()
    assert fit.benchmarks.index.tolist() == ["x1", "x2, x3"]
    text = " ".join(str(fit.summary()).split())
    assert "no unobserved confounding" in text and "effective sample size" in text


def test_data_frames_of_all_kinds(df: pd.DataFrame, tmp_path: Path) -> None:
    import polars as pl

    for method in ("plr", "aipw", "regression"):
        plain = average_effect(df, **ROLES, covariates=XS, method=method)
        other = average_effect(pl.from_pandas(df), **ROLES, covariates=XS, method=method)
        assert other.estimate == pytest.approx(plain.estimate, rel=1e-12)
    df.to_parquet(tmp_path / "rows.parquet")
    stored = average_effect(tmp_path, **ROLES, covariates=XS, method="plr")
    plain = average_effect(df, **ROLES, covariates=XS, method="plr")
    assert stored.estimate == pytest.approx(plain.estimate, rel=1e-10)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "magic"}, DataError, "Expected method"),
        ({"outcome": "x1", "treatment": "x2"}, DataError, "0 or 1"),
        ({"clip": 0.7}, DataError, "clip between"),
        ({"clip": 0.1, "method": "plr"}, DataError, "clip between"),
        ({"covariance": "HC2"}, DataError, "covariance among"),
        ({"nuisance": LinearRegression()}, DataError, "classifier"),
        ({"nuisance": {"treatment": LinearRegression()}}, DataError, "classifier"),
        ({"nuisance": {"reward": LinearRegression()}}, DataError, "nuisances among"),
        ({"benchmarks": ["hour"]}, DataError, "benchmarks among"),
        ({"method": "regression", "interact": ["hour"]}, DataError, "interact among"),
        ({"weights": "x1"}, DataError, "at least 0"),
        ({"covariates": [*XS, "d"], "method": "plr"}, IdentificationError, "varies beyond"),
        ({"treatment": "one"}, IdentificationError, "constant"),
        ({"cluster": "one"}, IdentificationError, "two clusters"),
    ],
)
def test_refusals(df: pd.DataFrame, options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        average_effect(df.assign(one=1), **{**ROLES, "covariates": XS, **options})


def test_ipw_has_no_sensitivity(df: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="outcome model"):
        average_effect(df, **ROLES, covariates=XS, method="ipw").sensitivity()


def test_a_nuisance_that_is_barely_identified_warns_once_and_is_kept() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=300)
    data = pd.DataFrame({"x": x, "copy": x + 1e-9 * rng.normal(size=300)})
    data["d"] = (rng.random(300) < 0.5).astype(int)
    data["y"] = data["d"] + x + rng.normal(size=300)
    learners = {"outcome": Ridge(1e-14), "treatment": LogisticRegression()}
    with pytest.warns(IdentificationWarning, match="barely identified") as seen:
        found = average_effect(
            data, outcome="y", treatment="d", covariates=["x", "copy"], nuisance=learners, rng=0
        )
    assert [Path(w.filename).name for w in seen] == ["test_effects.py"]
    assert found.warnings == (str(seen[0].message),)
