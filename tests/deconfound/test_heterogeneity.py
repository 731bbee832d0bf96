"""Heterogeneous effects: EconML's own numbers, seeds, and what is refused."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression

from causalrm.core.errors import DataError, IdentificationError
from causalrm.core.random import seed_int
from causalrm.core.result import Result
from causalrm.deconfound.folds import Folds
from causalrm.deconfound.heterogeneity import heterogeneity

ROLES = {"outcome": "y", "treatment": "d", "modifiers": ["a", "b"], "covariates": ["w"]}


@pytest.fixture(scope="module")
def df() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    df = pd.DataFrame(rng.normal(size=(1000, 3)), columns=["a", "b", "w"])
    df["a"] = 100 + 20 * df["a"]
    df["d"] = (df["b"] + df["w"] + rng.logistic(size=1000) > 0).astype(int)
    df["y"] = df["d"] * (1 + 0.05 * (df["a"] - 100)) + df["b"] + df["w"] + rng.normal(size=1000)
    return df


@pytest.mark.parametrize("method", ["linear", "dr"])
def test_is_econml_on_the_same_folds(df: pd.DataFrame, method: str) -> None:
    from econml.dml import LinearDML
    from econml.dr import LinearDRLearner

    generator = np.random.default_rng(0)
    fold = Folds(5, seed_int(generator), "u").codes({"u": np.arange(1000)}, 0)
    cv = [(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in range(5)]
    logistic = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12)
    linear = LinearRegression()
    if method == "linear":
        model = LinearDML(model_y=linear, model_t=logistic, discrete_treatment=True, cv=cv)
        own: dict[str, int] = {}
    else:
        model = LinearDRLearner(model_regression=linear, model_propensity=logistic, cv=cv)
        own = {"T": 1}
    model.fit(df["y"].to_numpy(), df["d"].to_numpy(), X=df[["a", "b"]].to_numpy(),
              W=df[["w"]].to_numpy())  # fmt: skip
    found = heterogeneity(df, **ROLES, method=method).to_frame()
    slopes, level = model.coef__inference(**own), model.intercept__inference(**own)
    expected = [float(np.ravel(level.point_estimate)[0]), *np.ravel(slopes.point_estimate)]
    errors = [float(np.ravel(level.stderr)[0]), *np.ravel(slopes.stderr)]
    assert found["estimate"][1:].to_list() == pytest.approx(expected, rel=1e-6)
    assert found["std_error"][1:].to_list() == pytest.approx(errors, rel=1e-6)


@pytest.mark.parametrize("method", ["linear", "dr", "forest"])
def test_finds_the_effect(df: pd.DataFrame, method: str) -> None:
    found = heterogeneity(df, **ROLES, method=method, n_estimators=100)
    frame = found.to_frame()
    truth = np.array([1 + 0.05 * (df["a"].mean() - 100), -4.0, 0.05, 0.0])
    assert (np.abs(frame["estimate"] - truth) < 4 * frame["std_error"]).all()
    assert found.test().p_value < 1e-6
    new = found.predict(df.iloc[:50])
    effect = 1 + 0.05 * (df["a"].iloc[:50] - 100)
    assert np.corrcoef(new["estimate"], effect)[0, 1] > 0.8
    assert ((new["conf_low"] < effect) & (effect < new["conf_high"])).mean() > 0.7
    assert new.index.equals(df.index[:50])


@pytest.mark.parametrize("method", ["linear", "dr"])
@pytest.mark.parametrize(("origin", "unit"), [(0, 1e9), (1.7e9, 1e5)])
def test_units_and_origin_of_a_modifier_do_not_matter(
    df: pd.DataFrame, method: str, origin: float, unit: float
) -> None:
    scale = np.array([1.0, 1.0, 1.0, unit])  # average effect, intercept, and two slopes
    plain = heterogeneity(df, **ROLES, method=method)
    moved = heterogeneity(df.assign(b=origin + unit * df["b"]), **ROLES, method=method)
    for column in ("estimate", "std_error"):
        one, other = (found.to_frame()[column].to_numpy() for found in (plain, moved))
        np.testing.assert_allclose((other * scale)[[0, 2, 3]], one[[0, 2, 3]], rtol=1e-5)
    assert moved.test().statistic == pytest.approx(plain.test().statistic, rel=1e-6)


def test_seeds_reach_the_nuisances(df: pd.DataFrame) -> None:
    nuisance = {"outcome": RandomForestRegressor(5, max_depth=3),
                "treatment": RandomForestClassifier(5, max_depth=3)}  # fmt: skip
    one, two, three = (
        heterogeneity(df, **ROLES, nuisance=nuisance, rng=seed).estimates for seed in (1, 1, 2)
    )
    assert (one == two).all() and (one != three).all()
    forest = [heterogeneity(df, **ROLES, method="forest", n_estimators=40, rng=s) for s in (1, 1)]
    a, b = (f.predict(df.head(5))["estimate"] for f in forest)
    assert (a == b).all()


def test_clusters(df: pd.DataFrame) -> None:
    rows = pd.concat([df] * 3, ignore_index=True).assign(g=np.tile(np.arange(1000), 3))
    clustered = heterogeneity(rows, **ROLES, cluster="g").to_frame()
    plain, single = (heterogeneity(d, **ROLES).to_frame() for d in (rows, df))
    ratio = clustered["std_error"] / single["std_error"]
    assert ratio.between(0.93, 1.07).all()
    assert (plain["std_error"] < 0.65 * clustered["std_error"]).all()


def test_json_pickle_and_continuous_treatment(df: pd.DataFrame) -> None:
    for method in ("linear", "forest"):
        found = heterogeneity(df, **ROLES, method=method, n_estimators=40)
        again = Result.from_json(found.to_json())
        pd.testing.assert_frame_equal(again.to_frame(), found.to_frame())
        if method == "linear":
            pd.testing.assert_frame_equal(again.predict(df), found.predict(df))
        else:
            kept = pickle.loads(pickle.dumps(found))
            pd.testing.assert_frame_equal(kept.predict(df[:9]), found.predict(df[:9]))
            with pytest.raises(DataError, match="pickle"):
                again.predict(df)
            assert found.diagnostics["importance"]["a"] > 0.5
    dose = df.assign(d=df["d"] + np.random.default_rng(1).normal(size=1000))
    assert heterogeneity(dose, **ROLES).to_frame()["std_error"].gt(0).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "magic"}, DataError, "Expected method"),
        ({"method": "dr", "cluster": "g"}, DataError, "clustered"),
        ({"method": "dr", "treatment": "w", "covariates": []}, DataError, "0 or 1"),
        ({"modifiers": []}, IdentificationError, "one modifier"),
        ({"treatment": "one"}, IdentificationError, "varies"),
        ({"nuisance": LinearRegression()}, DataError, "classifier"),
    ],
)
def test_refusals(df: pd.DataFrame, options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        heterogeneity(df.assign(one=1, g=np.arange(1000) // 5), **{**ROLES, **options})
