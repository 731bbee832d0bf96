"""Absorbed regression against pyfixest, against dummies, and on hard graphs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from causalrm.core.errors import (
    ConvergenceError,
    DataError,
    IdentificationError,
    IdentificationWarning,
)
from causalrm.core.result import Result
from causalrm.deconfound.absorb import AbsorbedResult, absorbed_regression
from causalrm.deconfound.demean import absorb_columns

REFERENCE = Path(__file__).parents[1] / "reference" / "deconfound"
STORED = json.loads((REFERENCE / "absorbed.json").read_text())["fits"]
DATA = pd.read_csv(REFERENCE / "absorbed_data.csv")
XS = ["x1", "x2"]


@pytest.mark.filterwarnings("ignore:Only 5 clusters")
@pytest.mark.parametrize("key", list(STORED))
def test_pyfixest(key: str) -> None:
    columns, weights, kind = key.split("|")
    cluster = kind if kind in DATA else None
    fit = absorbed_regression(
        DATA, y="y", x=XS, absorb=columns.split("+"), weights=weights or None, cluster=cluster,
        covariance={"iid": "model", "hetero": "robust"}.get(kind, "cluster"), tol=1e-11,
    )  # fmt: skip
    stored = STORED[key]
    assert fit.n_obs == stored["n"] and fit.n_singletons == 3
    np.testing.assert_allclose(fit.estimates, stored["coef"], rtol=1e-9)
    np.testing.assert_allclose(fit.std_error, stored["se"], rtol=1e-8)
    shown = fit.to_frame()
    np.testing.assert_allclose(shown[["conf_low", "conf_high"]], stored["confint"], rtol=1e-7)
    np.testing.assert_allclose(shown["p_value"], stored["p"], atol=1e-9)


def dummies(df: pd.DataFrame, columns: list[str]) -> np.ndarray:
    return np.hstack([pd.get_dummies(df[c], dtype=float).to_numpy() for c in columns])


def weakly_connected(seed: int = 0) -> pd.DataFrame:
    """Simulated authors who write in a few neighbouring topics: a long chain of levels."""
    rng = np.random.default_rng(seed)
    author = np.repeat(np.arange(400), 6)
    topic = author // 2 + rng.integers(0, 2, len(author))
    x = rng.normal(size=len(author)) + np.sin(topic / 30)
    y = 2 * x + rng.normal(size=400)[author] + np.cumsum(rng.normal(size=201))[topic]
    return pd.DataFrame(
        {"y": y + rng.normal(size=len(author)), "x": x, "author": author, "topic": topic}
    )


def test_chain_takes_the_factor_and_agrees_with_dummies() -> None:
    df = weakly_connected()
    fit = absorbed_regression(df, y="y", x=["x"], absorb=["author", "topic"], tol=1e-10)
    assert fit.diagnostics["method"] == "cholesky"
    z = dummies(df, ["author", "topic"])
    full = np.column_stack([df["x"], z])
    beta, _, rank, _ = np.linalg.lstsq(full, df["y"])
    assert fit.estimates[0] == pytest.approx(beta[0], rel=1e-8)
    assert fit.df_model == rank
    effects = fit.predict_effects(df)
    np.testing.assert_allclose(effects.sum(axis=1), z @ beta[1:], atol=1e-6)


def test_dense_design_takes_projections() -> None:
    rng = np.random.default_rng(1)
    codes = [rng.integers(0, s, 3000) for s in (40, 30, 7)]
    values = rng.normal(size=(2, 3000))
    expected = values.copy()
    z = np.hstack([np.eye(s)[c] for c, s in zip(codes, (40, 30, 7), strict=True)])
    expected -= (z @ np.linalg.lstsq(z, expected.T)[0]).T
    found = absorb_columns(values, codes, [40, 30, 7], tol=1e-10)
    assert found.method == "projections" and found.redundant == 2
    np.testing.assert_allclose(found.values, expected, atol=1e-8)
    assert found.values is values


@pytest.mark.parametrize("factors", [1, 2, 3])
def test_error_stays_below_the_tolerance_asked_for(factors: int) -> None:
    df = weakly_connected(3).assign(hour=lambda d: (d.index * 7919) % 24)
    names = ["topic", "author", "hour"][:factors]
    codes = [df[name].to_numpy() for name in names]
    sizes = [int(c.max()) + 1 for c in codes]
    raw = df[["y", "x"]].to_numpy().T.copy()
    w = np.random.default_rng(4).random(len(df)) + 0.5
    z, root = dummies(df, names), np.sqrt(w)
    exact = raw - (z @ np.linalg.lstsq(z * root[:, None], (raw * root).T)[0]).T
    for tol in (1e-4, 1e-7, 1e-10):
        found = absorb_columns(raw.copy(), codes, sizes, w, tol=tol)
        distance = np.sqrt((w * (found.values - exact) ** 2).sum(axis=1) / (w * raw**2).sum(axis=1))
        assert distance.max() < 3 * tol
        effects = sum(e[:, c] for e, c in zip(found.effects, codes, strict=True))
        np.testing.assert_allclose(found.values + effects, raw, atol=1e-9)


def test_components_are_counted_and_effects_centred_in_each() -> None:
    df = weakly_connected()
    df = df[~df["topic"].isin([50, 120])]
    fit = absorbed_regression(df, y="y", x=["x"], absorb=["author", "topic"], tol=1e-10)
    assert fit.n_components == 3
    used = df[["author", "topic"]].loc[df.index]
    full = np.column_stack([df["x"], dummies(used, ["author", "topic"])])
    assert fit.df_model == np.linalg.matrix_rank(full)
    effects = fit.predict_effects(df)
    part = np.digitize(df["topic"], [50, 120])
    np.testing.assert_allclose(effects["topic"].groupby(part).mean(), 0, atol=1e-8)


def test_weights_of_zero_leave_rows_out() -> None:
    keep = np.arange(len(DATA)) % 4 > 0
    fits = [
        absorbed_regression(df, y="y", x=XS, absorb=["worker", "firm"], weights="w")
        for df in (DATA.assign(w=DATA["w"] * keep), DATA[keep])
    ]
    np.testing.assert_allclose(fits[0].estimates, fits[1].estimates)
    np.testing.assert_allclose(fits[0].std_error, fits[1].std_error)
    assert fits[0].diagnostics["zero_weights"] == int((~keep).sum())


def test_formula_with_categories_and_other_sources(tmp_path: Path) -> None:
    df = DATA.assign(year=DATA["year"].map("y{}".format))
    df.to_parquet(tmp_path / "rows.parquet")
    fits = [
        absorbed_regression(data, y="y", x="x1 * x2 + C(year)", absorb="worker", cluster="region")
        for data in (df, tmp_path / "rows.parquet")
    ]
    assert "C(year)[T.y2003]" in fits[0].term
    np.testing.assert_allclose(fits[0].estimates, fits[1].estimates, rtol=1e-10)
    np.testing.assert_allclose(fits[0].std_error, fits[1].std_error, rtol=1e-9)


def test_result_survives_json_and_says_what_it_did() -> None:
    fit = absorbed_regression(DATA, y="y", x=XS, absorb=["worker", "firm"], cluster="region")
    again = AbsorbedResult.from_json(fit.to_json())
    pd.testing.assert_frame_equal(again.to_frame(), fit.to_frame())
    pd.testing.assert_frame_equal(again.predict_effects(DATA), fit.predict_effects(DATA))
    assert isinstance(again, Result)
    text = str(fit.summary())
    assert "worker (59), firm (12); 1 connected component" in text
    assert "3 rows dropped" in text
    unknown = fit.predict_effects(DATA)["worker"].isna()
    alone = DATA["worker"].map(DATA["worker"].value_counts()) == 1
    np.testing.assert_array_equal(unknown, alone)
    assert alone.sum() == 3
    model = fit.with_covariance("model")
    assert model.to_frame()["p_value"].notna().all() and model._df == fit.n_obs - fit.df_model


def test_same_bits_for_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    df, found = weakly_connected(), []
    for threads in ("1", "2"):
        monkeypatch.setenv("CAUSALRM_NUM_THREADS", threads)
        fit = absorbed_regression(df, y="y", x=["x"], absorb=["author", "topic"])
        found.append((fit.estimates, fit.effects["author"].to_numpy()))
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


# --------------------------------------------------------------------------- refusals


def test_absorbed_and_dependent_columns_are_named() -> None:
    df = DATA.assign(level=DATA["worker"] * 0.5, both=DATA["x1"] - DATA["x2"])
    with pytest.raises(IdentificationError, match="'level' does not vary within them"):
        absorbed_regression(df, y="y", x=["x1", "level"], absorb=["worker", "firm"])
    with pytest.raises(IdentificationError, match=r"\['x1', 'x2', 'both'\] are dependent"):
        absorbed_regression(df, y="y", x=["x1", "x2", "both"], absorb=["worker"])


def test_nothing_left_of_the_rows() -> None:
    df = DATA.assign(row=np.arange(len(DATA)))
    with pytest.raises(IdentificationError, match="400 rows that are alone"):
        absorbed_regression(df, y="y", x=XS, absorb=["row"])
    with pytest.raises(DataError, match="one or more different columns"):
        absorbed_regression(df, y="y", x=XS, absorb=["firm", "firm"])
    with pytest.raises(DataError, match="weights of at least 0"):
        absorbed_regression(df.assign(w=-1.0), y="y", x=XS, absorb=["firm"], weights="w")


def test_more_effects_than_rows() -> None:
    df = pd.DataFrame({"a": [0, 0, 1, 1], "b": [0, 1, 0, 1], "x": [1.0, 2, 4, 3]})
    with pytest.raises(IdentificationError, match="4 rows for 4"):
        absorbed_regression(df.assign(y=df["x"] ** 2), y="y", x=["x"], absorb=["a", "b"])


def test_few_clusters_and_few_iterations() -> None:
    with pytest.warns(IdentificationWarning, match="Only 5 clusters"):
        fit = absorbed_regression(DATA, y="y", x=XS, absorb=["worker"], cluster="year")
    assert len(fit.warnings) == 1
    with pytest.raises(ConvergenceError, match="after 32 iterations"):
        absorbed_regression(
            weakly_connected(), y="y", x=["x"], absorb=["author", "topic"], max_iter=2, tol=1e-12
        )
