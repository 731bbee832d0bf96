"""Cross-fitted linear nuisances against plain loops over folds, EconML and closed forms."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from causalrm.core.blocks import Rows
from causalrm.core.design import prepare
from causalrm.core.errors import DataError, IdentificationError
from causalrm.deconfound import anderson_rubin as ar
from causalrm.deconfound import folds as fo
from causalrm.deconfound import linear_effect as le
from causalrm.deconfound import linear_nuisance as ln
from causalrm.deconfound import stages

N = 3000


def frame(n: int = N, seed: int = 0) -> pd.DataFrame:
    """Simulated text features x, two confounders, three instruments, clusters and weights."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4)) * [1, 5, 0.2, 1] + [0, 100, 0, 3]
    group = rng.integers(0, 60, n)
    shock = rng.normal(size=60)[group]
    z = rng.normal(size=(n, 3))
    hidden = rng.normal(size=n)
    d1 = x[:, 0] + 0.05 * x[:, 1] + z[:, 0] + 0.5 * z[:, 1] + hidden + shock
    d2 = x[:, 3] - z[:, 2] + rng.normal(size=n) * (1 + (z[:, 0] > 0))
    y = 0.5 * d1 - 0.3 * d2 + x @ [1, 0.2, 0, -1] + hidden + shock + rng.normal(size=n)
    columns = {f"x{j}": x[:, j] for j in range(4)} | {f"z{j}": z[:, j] for j in range(3)}
    out = {"y": y, "d1": d1, "d2": d2, "g": group, "w": rng.integers(1, 4, n).astype(float)}
    return pd.DataFrame(columns | out)


def columns(*names: str) -> fo.Columns:
    return fo.Columns(names, names)


X = columns("x0", "x1", "x2", "x3")


def rows_of(df: pd.DataFrame, folds: fo.Folds) -> Rows:
    return fo.with_folds(Rows({c: df[c].to_numpy() for c in df}, len(df)), folds)


def fit(
    df: pd.DataFrame, d: tuple[str, ...] = ("d1",), z: tuple[str, ...] = (), unit: str | None = "g",
    cluster: str | None = "g", weights: str | None = None, n_folds: int = 5, **options: Any,
) -> tuple[Rows, ln.Nuisance, le.LinearEffect]:  # fmt: skip
    rows = rows_of(df, fo.Folds(n_folds, 11, unit))
    nuisance = ln.partial_out(
        rows, outcome="y", confounders=columns(*d), controls=X, n_folds=n_folds, weights=weights,
        instruments=columns(*z) if z else None, **options,
    )  # fmt: skip
    n_clusters = None if cluster is None else int(df[cluster].max()) + 1
    return rows, nuisance, le.linear_effect(rows, nuisance, cluster=cluster, n_clusters=n_clusters)


def plain_residuals(
    df: pd.DataFrame, names: list[str], folds: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Out-of-fold least-squares residuals of columns, shape (n, r)."""
    x = np.column_stack([np.ones(len(df)), df[list(X.names)]])
    v = df[names].to_numpy(dtype=float)
    root = np.ones(len(df)) if weights is None else np.sqrt(weights)
    out = np.empty_like(v)
    for fold in range(folds.max() + 1):
        rest = folds != fold
        b = np.linalg.lstsq(x[rest] * root[rest, None], v[rest] * root[rest, None])[0]
        out[~rest] = v[~rest] - x[~rest] @ b
    return out


def influence(rows: Rows, nuisance: ln.Nuisance, effect: le.LinearEffect) -> np.ndarray:
    """Of every row on theta, (q, n), from residuals."""
    v = ln.residuals(rows, nuisance)
    return effect.bread @ (v[nuisance.z] * (v[-1] - effect.theta @ v[nuisance.d]))


def test_partialling_out_is_its_definition() -> None:
    df = frame()
    rows, nuisance, effect = fit(df, unit=None)
    folds = rows.columns[fo.FOLD]
    v, y = plain_residuals(df, ["d1", "y"], folds).T
    theta = (v @ y) / (v @ v)
    psi = v * (y - theta * v)
    sums = np.bincount(df["g"], weights=psi)
    assert effect.theta[0] == pytest.approx(theta, rel=1e-12)
    assert effect.covariances["cluster"][0, 0] == pytest.approx((sums**2).sum() / (v @ v) ** 2)
    assert effect.covariances["robust"][0, 0] == pytest.approx((psi**2).sum() / (v @ v) ** 2)
    assert nuisance.r2[0] == pytest.approx(1 - (v @ v) / (N * df["d1"].var(ddof=0)))
    assert effect.sigma2 == pytest.approx(np.mean((y - theta * v) ** 2))
    np.testing.assert_allclose(ln.residuals(rows, nuisance)[0], v, atol=1e-9)
    found = influence(rows, nuisance, effect)
    np.testing.assert_allclose(found[0], psi / (v @ v), atol=1e-12)


@pytest.mark.parametrize("d", [("d1",), ("d1", "d2")])
def test_econml_with_the_same_nuisances_and_folds(d: tuple[str, ...]) -> None:
    """EconML's LinearDML of a constant effect: estimates and HC0 standard errors."""
    from econml.dml import LinearDML
    from econml.inference import StatsModelsInference
    from sklearn.linear_model import LinearRegression

    df = frame()
    rows, _, effect = fit(df, d=d, unit=None, cluster=None)
    folds = rows.columns[fo.FOLD]
    splits = [(np.flatnonzero(folds != f), np.flatnonzero(folds == f)) for f in range(5)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scikit-learn, about arguments that EconML passes
        model = LinearDML(model_y=LinearRegression(), model_t=LinearRegression(), cv=splits)
        model.fit(
            df["y"].to_numpy(), df[list(d)].to_numpy(), X=None, W=df[list(X.names)].to_numpy(),
            inference=StatsModelsInference(cov_type="HC0"),
        )  # fmt: skip
        theirs = np.ravel(model.const_marginal_effect())
        errors = np.ravel(model.intercept__inference().stderr)
    np.testing.assert_allclose(effect.theta, theirs, rtol=1e-8)
    ours = np.sqrt(np.diag(effect.covariance))
    np.testing.assert_allclose(ours, errors, rtol=1e-8)


def test_two_stage_least_squares_is_its_definition() -> None:
    df = frame()
    rows, nuisance, effect = fit(df, d=("d1", "d2"), z=("z0", "z1", "z2"))
    names = ["d1", "d2", "z0", "z1", "z2", "y"]
    v = plain_residuals(df, names, rows.columns[fo.FOLD])
    d, z, y = v[:, :2], v[:, 2:5], v[:, 5]
    hat = z @ np.linalg.lstsq(z, d)[0]
    theta = np.linalg.lstsq(hat, y)[0]
    np.testing.assert_allclose(effect.theta, theta, rtol=1e-9)
    psi = np.linalg.solve(hat.T @ hat, (hat * (y - d @ theta)[:, None]).T)
    sums = np.stack([np.bincount(df["g"], weights=row) for row in psi])
    np.testing.assert_allclose(effect.covariance, sums @ sums.T, rtol=1e-9)
    found = influence(rows, nuisance, effect)
    np.testing.assert_allclose(found, psi, atol=1e-12)
    np.testing.assert_allclose(effect.theta, [0.5, -0.3], atol=0.08)  # d1 is endogenous


def ar_set(
    effect: le.LinearEffect, level: float = 0.95, df: float | None = None
) -> list[tuple[float, float]]:
    assert effect.ar_moments is not None
    critical = ar.critical_value(len(effect.ar_moments[0]), level, df)
    return ar.confidence_set(effect.ar_moments, critical, 0, effect.theta, np.ones(1))


def test_first_stage_and_anderson_rubin() -> None:
    df = frame()
    rows, nuisance, effect = fit(df, z=("z0", "z1"))
    v = plain_residuals(df, ["d1", "z0", "z1", "y"], rows.columns[fo.FOLD])
    d, z, y = v[:, 0], v[:, 1:3], v[:, 3]
    first = np.linalg.lstsq(z, d)[0]
    u = d - z @ first
    stage = effect.first_stage
    assert stage is not None
    explained = d @ d - u @ u
    assert stage.f[0] == pytest.approx(explained / 2 / (u @ u / (N - 5 - 2)))
    sums = np.stack([np.bincount(df["g"], weights=row) for row in (z * u[:, None]).T])
    inverse = np.linalg.inv(z.T @ z)
    sigma = inverse @ sums @ sums.T @ inverse
    expected = first @ z.T @ z @ first / np.trace(sigma @ z.T @ z)
    assert stage.effective_f[0] == pytest.approx(expected)

    from scipy import stats

    def p_value(theta: float) -> float:
        by = np.stack([np.bincount(df["g"], weights=r) for r in (z * (y - theta * d)[:, None]).T])
        g = by.sum(axis=1)
        return float(stats.f.sf(g @ np.linalg.solve(by @ by.T, g) / 2, 2, 59))

    ((low, high),) = ar_set(effect, 0.9, 59)
    assert low < effect.theta[0] < high
    assert p_value(low) == pytest.approx(0.1)
    assert p_value(high) == pytest.approx(0.1)


def test_one_instrument_has_the_robust_f() -> None:
    effect = fit(frame(), z=("z0",))[2]
    assert effect.first_stage is not None
    assert effect.first_stage.critical[0] == pytest.approx(23.1, abs=0.05)


def test_weights_are_those_of_repeated_rows() -> None:
    df = frame()
    _, _, weighted = fit(df, weights="w", z=("z0", "z1"))
    again = df.loc[df.index.repeat(df["w"].astype(int))]
    _, _, repeated = fit(again, z=("z0", "z1"))
    np.testing.assert_allclose(weighted.theta, repeated.theta, rtol=1e-10)
    np.testing.assert_allclose(
        weighted.covariances["cluster"], repeated.covariances["cluster"], rtol=1e-9
    )
    _, _, scaled = fit(df.assign(w=df["w"] * 7), weights="w", z=("z0", "z1"))
    np.testing.assert_allclose(scaled.covariance, weighted.covariance, rtol=1e-10)
    assert weighted.first_stage is not None and scaled.first_stage is not None
    np.testing.assert_allclose(scaled.first_stage.f, weighted.first_stage.f)
    np.testing.assert_allclose(scaled.first_stage.effective_f, weighted.first_stage.effective_f)


def test_clusters_are_never_split() -> None:
    df = frame()
    folds = rows_of(df, fo.Folds(5, 3, "g")).columns[fo.FOLD]
    assert (pd.Series(folds).groupby(df["g"].to_numpy()).nunique() == 1).all()
    other = rows_of(df, fo.Folds(5, 4, "g")).columns[fo.FOLD]
    assert (folds != other).any()


def test_same_bits_for_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    df = frame(40_000)
    found = []
    for threads in ("1", "2"):
        monkeypatch.setenv("CAUSALRM_NUM_THREADS", threads)
        effect = fit(df, z=("z0", "z1"), weights="w")[2]
        found.append((effect.theta, effect.covariance, effect.joint["cluster"]))
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("unit", [None, "g"])
def test_parquet_and_dask_give_what_memory_gives(tmp_path: Path, unit: str | None) -> None:
    import dask.dataframe as dd

    df = frame().assign(g=lambda d: d["g"].map("c{:02d}".format))
    df.iloc[:1700].to_parquet(tmp_path / "a.parquet")
    df.iloc[1700:].to_parquet(tmp_path / "b.parquet")
    found = []
    for data in (df, tmp_path, dd.from_pandas(df, npartitions=3)):
        _, rows, designs, _ = prepare(
            data, {"x": "x0 + x1 * x2 + x3"}, numbers=["y", "d1", "z0"], categories=["g"]
        )
        rows = fo.with_folds(rows, fo.Folds(4, 2**40 + 5, unit))
        nuisance = ln.partial_out(
            rows, outcome="y", confounders=columns("d1"), controls=designs["x"], n_folds=4,
            instruments=columns("z0"),
        )  # fmt: skip
        effect = le.linear_effect(rows, nuisance, cluster="g", n_clusters=60)
        residual = ln.residuals(rows, nuisance)
        found.append((effect.theta, effect.covariance, effect.naive, residual[-1]))
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-9)


def test_a_matrix_of_features_is_used_as_its_columns_are() -> None:
    df = frame()
    rows, _, effect = fit(df)
    block = dict(rows.columns) | {"X": df[list(X.names)].to_numpy()}
    both = ln.partial_out(
        Rows(block, N), outcome="y", confounders=columns("d1"), n_folds=5,
        controls=fo.Columns(("X",), X.terms),
    )  # fmt: skip
    one = le.linear_effect(Rows(block, N), both, cluster="g", n_clusters=60)
    np.testing.assert_allclose(one.theta, effect.theta, rtol=1e-12)
    np.testing.assert_allclose(one.covariance, effect.covariance, rtol=1e-9)


def test_many_columns_by_blas_agree_with_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    df = frame()
    one = fit(df, weights="w")[2]
    monkeypatch.setattr(ln, "_FEW", 0)
    two = fit(df, weights="w")[2]
    np.testing.assert_allclose(one.theta, two.theta, rtol=1e-11)


def test_ridge_is_the_penalty_it_says() -> None:
    from sklearn.linear_model import Ridge

    df, penalty = frame(), 0.3
    rows, nuisance, _ = fit(df, ridge=penalty)
    folds = rows.columns[fo.FOLD]
    x = df[list(X.names)].to_numpy() / df[list(X.names)].std(ddof=0).to_numpy()
    for fold in range(5):
        rest = folds != fold
        # Ridge minimises a sum of squares, ours half their mean.
        model = Ridge(alpha=penalty * rest.sum()).fit(x[rest], df["y"][rest])
        expected = df["y"][~rest] - model.predict(x[~rest])
        found = ln.residuals(rows, nuisance)[-1, ~rest]
        np.testing.assert_allclose(found, expected, atol=1e-8)


def test_the_reward_model_needs_no_other_pass() -> None:
    df = frame()
    rows, nuisance, effect = fit(df)
    line = stages.reward_line(nuisance, stages.gamma_of("plr", rows, nuisance, effect, 0.0), 0.0)
    x = np.column_stack([np.ones(N), df[list(X.names)]])
    left = df["y"] - effect.theta[0] * (df["d1"] - df["d1"].mean())
    np.testing.assert_allclose(line.coef, np.linalg.lstsq(x, left)[0], rtol=1e-7)
    np.testing.assert_allclose(line.bread, np.linalg.inv(x.T @ x), rtol=1e-6, atol=1e-12)


def test_columns_far_from_zero_keep_their_digits() -> None:
    df = frame()
    one = fit(df)[2]
    far = df.assign(x1=df["x1"] + 1e8, y=df["y"] * 1e5 + 3e9, d1=df["d1"] - 1e7)
    two = fit(far)[2]
    np.testing.assert_allclose(two.theta, 1e5 * one.theta, rtol=1e-6)
    np.testing.assert_allclose(two.covariance, 1e10 * one.covariance, rtol=1e-5)


def test_naive_and_joint_covariance() -> None:
    """Y on the confounder alone, and the variance of the difference, from influence functions."""
    df = frame()
    rows, nuisance, effect = fit(df)
    c = (df["d1"] - df["d1"].mean()).to_numpy()
    y = (df["y"] - df["y"].mean()).to_numpy()
    naive = (c @ y) / (c @ c)
    assert effect.naive[0] == pytest.approx(naive)
    difference = influence(rows, nuisance, effect)[0]
    difference = difference - c * (y - naive * c) / (c @ c)
    sums = np.bincount(df["g"], weights=difference)
    contrast = np.array([1.0, -1.0])
    assert contrast @ effect.joint["cluster"] @ contrast == pytest.approx(sums @ sums)


# --------------------------------------------------------------------------- refusals


def test_dependent_controls_are_named() -> None:
    df = frame()
    with pytest.raises(IdentificationError, match=r"\['x0', 'x2', 'x3'\] are linearly dependent"):
        fit(df.assign(x3=df["x0"] - 2 * df["x2"]))
    with pytest.raises(IdentificationError, match="'x2' is constant"):
        fit(df.assign(x2=5.0))
    fit(df.assign(x2=5.0), ridge=0.1)


def test_a_level_that_only_one_fold_has_is_named() -> None:
    df = frame()
    one_group = (df["g"] == 7).astype(float)
    with pytest.raises(IdentificationError, match="'x2' is constant of the rows outside fold"):
        fit(df.assign(x2=one_group))


def test_a_confounder_that_the_text_determines_is_refused() -> None:
    df = frame()
    with pytest.raises(IdentificationError, match=r"\['d1'\] .* do not"):
        fit(df.assign(d1=df["x0"] + 2 * df["x3"]))
    with pytest.raises(IdentificationError, match=r"instruments that vary .*\['z0', 'z1'\]"):
        fit(df.assign(z1=df["z0"] * 2 + df["x0"]), z=("z0", "z1"))


def test_instruments_must_move_each_confounder() -> None:
    df = frame()
    with pytest.raises(IdentificationError, match="at least as many instruments"):
        fit(df, d=("d1", "d2"), z=("z0",))


def test_folds_that_cannot_be_used() -> None:
    df = frame()
    with pytest.raises(DataError, match="2 to 100 folds"):
        fit(df, n_folds=1)
    with pytest.raises(IdentificationError, match="rows in each of 5 folds"):
        fit(df.assign(g=df["g"] % 3))


# --------------------------------------------------------------------------- repeated splits


def test_median_over_splits() -> None:
    thetas = np.array([[1.0, 5.0], [2.0, 7.0], [6.0, 6.0]])
    covariances = np.array([np.diag([1.0, 4.0]), np.diag([2.0, 4.0]), np.diag([1.0, 1.0])])
    theta, covariance = le.combine(thetas, covariances)
    np.testing.assert_allclose(theta, [2.0, 6.0])
    # median(1 + 1, 2 + 0, 1 + 16), median(4 + 1, 4 + 1, 1 + 0)
    np.testing.assert_allclose(np.diag(covariance), [2.0, 5.0])
    assert np.linalg.eigvalsh(covariance)[0] >= -1e-12


# --------------------------------------------------------------------------- truth


def test_closed_form_truths_of_the_simulator() -> None:
    """Z -> P <- U, Y = beta U + gamma P: what each way estimates, within Monte Carlo error."""
    pi, rho, beta, gamma, var_v = 0.8, 0.6, 1.0, 0.5, 1.0
    n, reps = 2000, 60
    w = pi**2 + var_v
    var_p = w + rho**2
    found = []
    for rep in range(reps):
        rng = np.random.default_rng(1000 + rep)
        z, u, v, e = rng.normal(size=(4, n))
        p = pi * z + rho * u + v * np.sqrt(var_v)
        y = beta * u + gamma * p + e
        rows = fo.with_folds(Rows({"z": z, "u": u, "p": p, "y": y}, n), fo.Folds(5, rep))
        args = dict(outcome="y", confounders=columns("p"), controls=columns("u"), n_folds=5)
        plr = ln.partial_out(rows, **args)
        iv = ln.partial_out(rows, instruments=columns("z"), **args)
        one, two = le.linear_effect(rows, plr), le.linear_effect(rows, iv)
        ignored = stages.gamma_of("ignore", rows, plr, None, 0.0)
        line = stages.reward_line(plr, ignored, 0.0)
        ((low, high),) = ar_set(two)
        found.append(
            [
                one.theta[0], two.theta[0], one.naive[0], line.coef[1],
                one.covariance[0, 0], two.covariance[0, 0], low <= gamma <= high,
            ]
        )  # fmt: skip
    mean = np.mean(found, axis=0)
    error = np.std(found, axis=0) / np.sqrt(reps)
    truth = [gamma, gamma, gamma + beta * rho / var_p, beta + gamma * rho]
    assert (np.abs(mean[:4] - truth) < 4 * error[:4]).all()
    spread = np.var(np.array(found)[:, :2], axis=0)
    np.testing.assert_allclose(mean[4:6], spread, rtol=0.45)
    assert mean[6] > 0.86
