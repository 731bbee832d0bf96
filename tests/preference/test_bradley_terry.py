"""BradleyTerry against published fits, independent likelihoods, and data that cannot be fitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import optimize, special

import causalrm as crm
from causalrm.preference import fitting, votes

# Citations between four journals of statistics (Stigler 1994; Agresti 2002): cited, citing.
JOURNALS = ["Biometrika", "Comm Statist", "JASA", "JRSS-B"]
CITED = [[714, 730, 498, 221], [33, 425, 68, 17], [320, 813, 1072, 142], [284, 276, 325, 188]]
# Chocolate puddings (Davidson 1970): brands, prefer the first, prefer the second, no preference.
PUDDINGS = [
    (1, 2, 19, 22, 16), (1, 3, 16, 19, 12), (2, 3, 19, 19, 10), (1, 4, 18, 23, 13),
    (2, 4, 23, 19, 9), (3, 4, 19, 20, 15), (1, 5, 13, 19, 18), (2, 5, 16, 20, 12),
    (3, 5, 16, 15, 17), (4, 5, 17, 14, 16), (1, 6, 18, 21, 12), (2, 6, 22, 20, 12),
    (3, 6, 13, 18, 10), (4, 6, 14, 19, 18), (5, 6, 11, 21, 12),
]  # fmt: skip
# American League East 1987 (Agresti 2002): wins at home of the row against the column, and losses.
TEAMS = ["Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore"]
HOME = [
    "--- 4-3 4-2 4-3 6-1 4-2 6-0", "3-3 --- 4-2 4-3 6-0 6-1 4-3", "2-5 4-3 --- 2-4 4-3 4-2 6-0",
    "3-3 5-1 2-5 --- 4-3 4-2 6-1", "5-1 2-5 3-3 4-2 --- 5-2 6-0", "2-5 3-3 3-4 4-3 4-2 --- 2-4",
    "2-5 1-5 1-6 2-4 1-6 3-4 ---",
]  # fmt: skip


def citations() -> pd.DataFrame:
    rows = [
        (JOURNALS[i], JOURNALS[j], 1, CITED[i][j]) for i in range(4) for j in range(4) if i != j
    ]
    return pd.DataFrame(rows, columns=["a", "b", "y", "n"])


def puddings() -> pd.DataFrame:
    rows = []
    for i, j, first, second, tie in PUDDINGS:
        rows += [(i, j, "win", first), (i, j, "loss", second), (i, j, "tie", tie)]
    return pd.DataFrame(rows, columns=["a", "b", "y", "n"])


def baseball() -> pd.DataFrame:
    rows = []
    for home, line in zip(TEAMS, HOME, strict=True):
        for away, score in zip(TEAMS, line.split(), strict=True):
            if score != "---":
                won, lost = map(int, score.split("-"))
                rows += [(home, away, 1, won), (home, away, 0, lost)]
    return pd.DataFrame(rows, columns=["a", "b", "y", "n"])


def fit(df: Any, **options: Any) -> crm.BradleyTerryResult:
    roles = {name: options.pop(name, None) for name in ("weights", "cluster")}
    counts = "n" if "n" in df.columns else None
    model = crm.BradleyTerry(**options)
    return model.fit(df, a="a", b="b", outcome="y", counts=counts, **roles).result_


def simulated(n: int = 3000, k: int = 6, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    a = rng.integers(0, k, n)
    b = (a + rng.integers(1, k, n)) % k
    x = rng.normal(size=n)
    z = 0.3 * (a - b) + 0.25 + 0.4 * x
    u = rng.random(n)
    y = np.where(u < special.expit(z - 0.4), 1.0, np.where(u > special.expit(z + 0.4), 0.0, 0.5))
    w, rater = rng.uniform(0.5, 2, n), rng.integers(0, 80, n)
    return pd.DataFrame({"a": a, "b": b, "y": y, "x": x, "w": w, "rater": rater})


# ---------------------------------------------------------------- published fits


def test_citations() -> None:
    """Coefficients and model standard errors of R's BradleyTerry2 (Turner and Firth 2012)."""
    r = fit(citations()).with_covariance("model")
    assert r.reference == "Biometrika"
    np.testing.assert_allclose(r.estimates, [-2.949072, -0.479570, 0.268954], atol=5e-7)
    np.testing.assert_allclose(r.std_error, [0.102545, 0.060589, 0.070830], atol=1e-6)


def test_puddings() -> None:
    """Davidson's worths (1970, converged), log worths against item 1, and log nu with errors."""
    r = fit(puddings(), ties="davidson").with_covariance("model")
    worth = np.exp(r.strengths.to_numpy())
    expected = [0.138803, 0.173002, 0.161747, 0.165373, 0.158685, 0.202389]
    np.testing.assert_allclose(worth / worth.sum(), expected, atol=1e-6)
    np.testing.assert_allclose(r.estimates[:5], [0.2202, 0.1530, 0.1751, 0.1339, 0.3771], atol=6e-5)
    errors = [0.1872, 0.1935, 0.1882, 0.1927, 0.1924, 0.0825]
    np.testing.assert_allclose(r.std_error, errors, atol=6e-5)
    assert r.estimates[5] == pytest.approx(-0.2919, abs=6e-5)
    nu = r.to_frame().set_index("parameter").loc["nu"]
    assert nu["estimate"] == pytest.approx(0.746823, abs=1e-6)


def test_baseball() -> None:
    """Agresti (2002), page 438: strengths against Baltimore without and with a home term."""
    r = fit(baseball())
    assert r.n_obs == 273 and r.reference == "Baltimore"
    order = ["Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland"]
    found = r.strengths[order].to_numpy()
    np.testing.assert_allclose(found, [1.58, 1.44, 1.29, 1.25, 1.11, 0.68], atol=5e-3)
    r = fit(baseball(), position=True).with_covariance("model")
    found = r.strengths[order].to_numpy()
    np.testing.assert_allclose(found, [1.62, 1.48, 1.33, 1.28, 1.14, 0.70], atol=6e-3)
    home = r.contrast({"first": 1})
    assert (home.estimate, home.std_error) == pytest.approx((0.3023, 0.1309), abs=5e-5)
    assert r.diagnostics["deviance"] == pytest.approx(38.642852, abs=1e-6)
    assert r.diagnostics["deviance_df"] == 35


def test_a_three_cycle_has_equal_strengths() -> None:
    df = pd.DataFrame({"a": ["r", "s", "p"], "b": ["s", "p", "r"], "y": ["win"] * 3})
    np.testing.assert_allclose(fit(df).estimates, 0, atol=1e-12)


# ---------------------------------------------------------------- independent likelihoods


def probabilities(model: tuple[str, str], z: Any, tau: float) -> dict[float, Any]:
    """Textbook probabilities of the outcomes."""
    ties, link = model
    f = special.expit if link == "logit" else special.ndtr
    if ties == "half":
        return {1.0: f(z), 0.0: f(-z)}
    if ties == "rao_kupper":
        return {1.0: f(z - tau), 0.5: f(z + tau) - f(z - tau), 0.0: f(-z - tau)}
    pa, pb = np.exp(z), 1.0
    total = pa + pb + np.exp(tau) * np.sqrt(pa * pb)
    return {1.0: pa / total, 0.5: np.exp(tau) * np.sqrt(pa * pb) / total, 0.0: pb / total}


@pytest.mark.parametrize(
    "model",
    [("half", "logit"), ("half", "probit"), ("davidson", "logit"), ("rao_kupper", "logit"),
     ("rao_kupper", "probit")],
)  # fmt: skip
@pytest.mark.parametrize("rows", [True, False], ids=["covariates", "aggregated"])
def test_any_model_is_the_optimum_of_its_textbook_likelihood(
    model: tuple[str, str], rows: bool
) -> None:
    df = simulated(1500)
    covariates = ["x"] if rows else None
    r = fit(df, ties=model[0], link=model[1], position=True, covariates=covariates, weights="w",
            cluster="rater")  # fmt: skip
    k, has_tau = 6, int(model[0] != "half")
    y, a, b = (df[c].to_numpy() for c in ("y", "a", "b"))
    w = (df["w"] / df["w"].mean()).to_numpy()
    design = np.zeros((len(df), k - 1 + 1 + rows))
    for column, sign in ((a, 1), (b, -1)):
        there = column > 0
        design[np.flatnonzero(there), column[there] - 1] = sign
    design[:, k - 1] = 1.0
    if rows:
        design[:, k] = df["x"]

    def contributions(theta: np.ndarray) -> np.ndarray:
        linear = np.delete(theta, k - 1) if has_tau else theta
        p = probabilities(model, design @ linear, theta[k - 1])
        if has_tau:
            return w * np.log(np.select([y == 1, y == 0.5], [p[1.0], p[0.5]], p[0.0]))
        return w * (y * np.log(p[1.0]) + (1 - y) * np.log(p[0.0]))

    def scores(theta: np.ndarray) -> np.ndarray:
        h = 1e-5 * np.eye(len(theta))
        return np.stack([(contributions(theta + e) - contributions(theta - e)) / 2e-5 for e in h])

    start = np.full(len(r.estimates), 0.1)
    best = optimize.minimize(
        lambda t: -contributions(t).sum(), start, jac=lambda t: -scores(t).sum(axis=1),
        method="BFGS", options={"gtol": 1e-6},
    )  # fmt: skip
    np.testing.assert_allclose(r.estimates, best.x, atol=2e-5)
    assert r.loglik == pytest.approx(-best.fun, abs=1e-6)
    h = 1e-4 * np.eye(len(start))
    hessian = np.stack(
        [(scores(r.estimates + e) - scores(r.estimates - e)).sum(axis=1) / 2e-4 for e in h]
    )
    bread = np.linalg.inv(-0.5 * (hessian + hessian.T))
    s = scores(r.estimates)
    by_rater = np.stack([np.bincount(df["rater"], v) for v in s], axis=1)
    expected = {
        "model": bread, "robust": bread @ (s @ s.T) @ bread,
        "cluster": 80 / 79 * bread @ (by_rater.T @ by_rater) @ bread,
    }  # fmt: skip
    for kind, matrix in expected.items():
        np.testing.assert_allclose(r.cov(kind).to_numpy(), matrix, rtol=2e-3, atol=1e-6)


def test_a_ridge_is_on_the_sum_log_likelihood_and_knows_no_reference() -> None:
    df = simulated(400)
    r = fit(df, penalty=3.0)
    a, b, y = (df[c].to_numpy() for c in ("a", "b", "y"))

    def loss(theta: np.ndarray) -> float:
        z = theta[a] - theta[b]
        likelihood = y * special.log_expit(z) + (1 - y) * special.log_expit(-z)
        return float(1.5 * theta @ theta - likelihood.sum())

    best = optimize.minimize(loss, np.zeros(6), method="BFGS", options={"gtol": 1e-8}).x
    np.testing.assert_allclose(r.strengths, best - best[0], atol=1e-6)
    swapped = df.assign(a=5 - df["a"], b=5 - df["b"])
    other = fit(swapped, penalty=3.0).strengths
    np.testing.assert_allclose(other - other[5], r.strengths[::-1].to_numpy(), atol=1e-8)


def test_the_sandwich_repairs_half_ties() -> None:
    """With 25 % ties among equals the inverse Hessian is sqrt(4/3) = 1.155 times too wide."""
    rng = np.random.default_rng(4)
    n = 200_000
    a = rng.integers(0, 5, n)
    df = pd.DataFrame({"a": a, "b": (a + rng.integers(1, 5, n)) % 5})
    df["y"] = rng.choice([0.0, 0.5, 1.0], n, p=[0.375, 0.25, 0.375])
    r = fit(df)
    ratio = r.with_covariance("model").std_error / r.std_error
    np.testing.assert_allclose(ratio, np.sqrt(4 / 3), rtol=0.01)


# ---------------------------------------------------------------- the same from every road


def test_counts_equal_the_rows_written_out() -> None:
    df = puddings()
    written = df.loc[df.index.repeat(df["n"])].drop(columns="n").reset_index(drop=True)
    short, long = fit(df, ties="rao_kupper"), fit(written, ties="rao_kupper")
    assert short.n_obs == long.n_obs == 745
    np.testing.assert_allclose(short.estimates, long.estimates, rtol=1e-12)
    for kind in ("model", "robust"):
        np.testing.assert_allclose(short.cov(kind), long.cov(kind), rtol=1e-10)
    assert short.bic == pytest.approx(long.bic)


@pytest.mark.parametrize("dtype", ["int64", "uint16", "int8", "category", "str", "polars"])
@pytest.mark.parametrize("position", [False, True])
def test_many_rows_are_counted_as_they_lie(dtype: str, position: bool) -> None:
    df = simulated(70_000).drop(columns=["x", "w"])
    df["rater"] = (df["rater"] * 3 + 100).astype("int32")
    general = df.copy()
    for column in ("a", "b"):
        df[column] = df[column].astype("str" if dtype == "polars" else dtype)
    general["one"] = 1.0  # weights take the general road
    slow = fit(general, position=position, cluster="rater", weights="one")
    data = pl.from_pandas(df) if dtype == "polars" else df
    quick = fit(data, position=position, cluster="rater")
    assert [str(item) for item in quick.items] == [str(item) for item in slow.items]
    np.testing.assert_allclose(quick.estimates, slow.estimates, rtol=1e-11)
    for kind in ("model", "robust", "cluster"):
        np.testing.assert_allclose(quick.cov(kind), slow.cov(kind), rtol=1e-9, atol=1e-15)


def test_sources(tmp_path: Path) -> None:
    import dask.dataframe as dd
    import pyarrow as pa

    df = simulated(4000)
    df["a"], df["b"] = "item " + df["a"].astype(str), "item " + df["b"].astype(str)
    df.to_parquet(tmp_path / "votes.parquet", row_group_size=700)
    plain = fit(df, cluster="rater", covariates=["x"])
    for data in (
        pl.from_pandas(df), pa.Table.from_pandas(df), str(tmp_path / "votes.parquet"),
        dd.from_pandas(df, npartitions=3), df.astype({"a": "category", "b": "category"}),
    ):  # fmt: skip
        again = fit_any(data)
        np.testing.assert_allclose(again.estimates, plain.estimates, rtol=1e-9)
        np.testing.assert_allclose(again.cov("cluster"), plain.cov("cluster"), rtol=1e-7)


def fit_any(data: Any) -> crm.BradleyTerryResult:
    model = crm.BradleyTerry(covariates=["x"])
    return model.fit(data, a="a", b="b", outcome="y", cluster="rater").result_


def test_shares_of_a_win_are_fractional_outcomes() -> None:
    df = simulated(500)
    share = df.assign(y=np.where(df["y"] == 0.5, 0.3, df["y"]))
    won = pd.concat([share.assign(y=1.0, w=share["y"]), share.assign(y=0.0, w=1 - share["y"])])
    np.testing.assert_allclose(fit(share).estimates, fit(won, weights="w").estimates, atol=1e-8)


def test_swapping_the_columns_mirrors_the_outcome() -> None:
    df = simulated(800)
    other = df.rename(columns={"a": "b", "b": "a"}).assign(y=1 - df["y"])
    np.testing.assert_allclose(fit(df).estimates, fit(other).estimates, rtol=1e-10)
    first, second = fit(df, position=True), fit(other, position=True)
    assert first.estimates[-1] == pytest.approx(-second.estimates[-1])


def test_many_items_take_the_sparse_road(monkeypatch: Any) -> None:
    df = simulated(6000, k=40)
    dense = fit(df, ties="rao_kupper", position=True)
    monkeypatch.setattr(fitting, "_CHOLESKY", 10)
    monkeypatch.setattr(votes, "_DENSE", 10)
    sparse = fit(df, ties="rao_kupper", position=True)
    np.testing.assert_allclose(sparse.estimates, dense.estimates, atol=1e-8)
    np.testing.assert_allclose(sparse.cov("robust"), dense.cov("robust"), rtol=1e-6, atol=1e-10)
    monkeypatch.setattr(fitting, "_MOST", 20)
    with pytest.raises(crm.DataError, match="at most 20 items"):
        fit(df)


@pytest.mark.parametrize("cluster", [None, "rater"])
def test_the_bootstrap_agrees_with_the_sandwich(cluster: str | None) -> None:
    df = simulated(4000)
    r = fit(df, ties="davidson", covariance="bootstrap", n_boot=400, rng=1, cluster=cluster)
    other = r.with_covariance("robust" if cluster is None else "cluster")
    np.testing.assert_allclose(r.std_error, other.std_error, rtol=0.12)
    again = fit(df, ties="davidson", covariance="bootstrap", n_boot=400, rng=1, cluster=cluster)
    np.testing.assert_array_equal(r.cov(), again.cov())
    assert r.entropy == 1


def test_the_bootstrap_takes_covariates_and_weights() -> None:
    df = simulated(2000)
    options: dict[str, Any] = {"covariates": "x", "weights": "w", "n_boot": 200, "rng": 2}
    for cluster in (None, "rater"):
        r = fit(df, covariance="bootstrap", cluster=cluster, **options)
        other = r.with_covariance("cluster" if cluster else "robust")
        np.testing.assert_allclose(r.std_error, other.std_error, rtol=0.2)


# ---------------------------------------------------------------- what is read off


def test_the_bootstrap_of_clusters_does_not_depend_on_the_order_of_rows() -> None:
    """There are as many sums of equal votes as rows here, in another order."""
    rng = np.random.default_rng(0)
    df = pd.DataFrame(
        [(i, j, y) for i in range(4) for j in range(i + 1, 4) for y in (0.0, 0.5, 1.0)],
        columns=["a", "b", "y"],
    ).sample(frac=1.0, random_state=1, ignore_index=True)
    df["n"], df["rater"] = rng.integers(5, 200, len(df)), np.arange(len(df)) % 9
    with pytest.warns(crm.IdentificationWarning, match="Only 9 clusters"):
        r = fit(df, cluster="rater", covariance="bootstrap", n_boot=400, rng=3)
    with pytest.warns(crm.IdentificationWarning, match="Only 9 clusters"):
        order = df.sort_values(["rater", "a", "b", "y"])
        other = fit(order, cluster="rater", covariance="bootstrap", n_boot=400, rng=3)
    np.testing.assert_allclose(other.std_error, r.std_error, rtol=1e-6)


def test_contrasts() -> None:
    model = crm.BradleyTerry().fit(citations(), a="a", b="b", outcome="y", counts="n")
    r = model.result_
    d = model.contrast("JRSS-B", "JASA")
    assert d.estimate == pytest.approx(r.strengths["JRSS-B"] - r.strengths["JASA"])
    v = r.cov().to_numpy()
    assert d.std_error == pytest.approx(np.sqrt(v[1, 1] + v[2, 2] - 2 * v[1, 2]))
    back = r.contrast("JASA", "JRSS-B")
    assert (back.estimate, back.std_error) == pytest.approx((-d.estimate, d.std_error))
    assert r.contrast("JASA").estimate == r.contrast("JASA", "Biometrika").estimate
    assert r.contrast("Biometrika", "JASA").estimate == pytest.approx(-r.estimates[1])
    assert r.contrast({"JASA": 1, "JRSS-B": -1}).estimate == pytest.approx(back.estimate)
    with pytest.raises(crm.DataError, match="item of the fit.*'Lancet'"):
        r.contrast("Lancet")
    with pytest.raises(crm.DataError, match="two different items"):
        r.contrast("JASA", "JASA")
    with pytest.raises(crm.DataError, match="is the reference.*Give another as b"):
        r.contrast("Biometrika")


def test_ranking_of_the_citations() -> None:
    board = fit(citations()).ranking()
    assert board["term"].tolist() == ["JRSS-B", "Biometrika", "JASA", "Comm Statist"]
    assert (board["rank_low"] == board["rank"]).all() and (
        board["rank_high"] == board["rank"]
    ).all()
    assert board["group"].tolist() == ["a", "b", "c", "d"]
    assert (board["wins"] + board["ties"] + board["losses"] == board["n"]).all()
    assert board["n"].sum() == 2 * 3727


def test_puddings_cannot_be_told_apart() -> None:
    r = fit(puddings(), ties="davidson")
    assert r.groups() == [[6, 2, 4, 3, 5, 1]]
    board = r.ranking()
    assert (board["rank_low"] == 1).all() and (board["rank_high"] == 6).all()
    assert r.quasi_std_errors().attrs["largest_error"] < 0.02


@pytest.mark.parametrize("ties", ["half", "davidson", "rao_kupper"])
def test_win_probabilities(ties: str) -> None:
    r = fit(puddings(), ties=ties)
    matrix = r.win_matrix()
    assert matrix.index[0] == 6 and np.isnan(np.diag(matrix)).all()
    tau = float(r.estimates[5]) if r.has_ties else 0.0
    p = probabilities((ties, "logit"), r.strengths[6] - r.strengths[1], tau)[1.0]
    assert matrix.loc[6, 1] == pytest.approx(p)
    both = matrix.loc[6, 1] + matrix.loc[1, 6]
    assert both == pytest.approx(1.0) if ties == "half" else both < 0.9
    one = r.win_probability(6, 1)
    rows = r.win_matrix(0.95).set_index(["a", "b"]).loc[(6, 1)]
    assert (one.estimate, one.conf_low) == pytest.approx((rows["estimate"], rows["conf_low"]))
    # The delta method by finite differences.
    v, h = r.cov().to_numpy(), 1e-5
    gradient = np.zeros(len(v))
    for c in {4, 5} & set(range(len(v))):
        ends = []
        for s in (h, -h):
            t = r.estimates.copy()
            t[c] += s
            level = float(t[5]) if r.has_ties else 0.0
            ends.append(probabilities((ties, "logit"), t[4], level)[1.0])
        gradient[c] = (ends[0] - ends[1]) / (2 * h)
    assert one.std_error == pytest.approx(np.sqrt(gradient @ v @ gradient), rel=1e-6)


def test_predictions() -> None:
    df = simulated(2000)
    model = crm.BradleyTerry(ties="rao_kupper", covariates="x", position=True)
    r = model.fit(df, a="a", b="b", outcome="y").result_
    p = model.predict_proba(df.head(7))
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    row, s = df.iloc[3], r.strengths
    z = s[row["a"]] - s[row["b"]] + r.estimates[-2] + r.estimates[-1] * row["x"]
    expected = probabilities(("rao_kupper", "logit"), z, r.estimates[5])
    np.testing.assert_allclose(p.iloc[3][["a", "tie", "b"]], [expected[v] for v in (1, 0.5, 0)])
    again = crm.BradleyTerry.from_result(crm.Result.from_json(r.to_json()))
    np.testing.assert_allclose(again.predict_proba(df.head(7)), p)
    with pytest.raises(crm.DataError, match="2 of 7 rows have others: 77.*Drop these rows"):
        model.predict_proba(df.head(7).assign(a=[77, 77, *df["a"].iloc[2:7]]))


# ---------------------------------------------------------------- what cannot be fitted


def frame(*rows: tuple[Any, ...]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=["a", "b", "y"])


CYCLE = [("x", "y", 1.0), ("y", "z", 1.0), ("z", "x", 1.0)]


def test_an_item_that_never_loses() -> None:
    df = frame(*CYCLE, ("best", "x", 1.0), ("best", "y", 1.0))
    with pytest.raises(crm.IdentificationError, match="'best' never lost.*penalty"):
        fit(df)
    r = fit(df, penalty=0.1)
    assert r.strengths.idxmax() == "best" and np.isfinite(r.estimates).all()
    status = {a.name: a.status for a in r.assumptions}
    assert status["connected comparisons"] == "doubtful"
    assert r.diagnostics["strong_components"] == 2


def test_many_equal_rows_are_one_connection(monkeypatch: Any) -> None:
    """256 wins, one row each, must not count as none."""
    df = frame(*[(i, j, 1.0) for i, j in ("xy", "yz", "zx") for _ in range(256)])
    df["c"] = np.random.default_rng(0).normal(size=len(df))
    monkeypatch.setattr(fitting, "_CHOLESKY", 1)
    heaps = votes.heap(votes.read(df, votes.Roles("a", "b", "y"), "c"), False)
    found = fitting.check_connected(heaps, ("x", "y", "z"), 0.0)
    assert found == {"components": 1, "strong_components": 1}


def test_an_item_that_never_wins() -> None:
    with pytest.raises(crm.IdentificationError, match="'worst' never won"):
        fit(frame(*CYCLE, ("worst", "x", 0.0)))
    fit(frame(*CYCLE, ("worst", "x", 0.5)))  # a tie connects both ways


def test_groups_that_never_met() -> None:
    other = [("u", "v", 1.0), ("v", "u", 1.0)]
    with pytest.raises(crm.IdentificationError, match="2 groups.*'u', 'v'.*penalty"):
        fit(frame(*CYCLE, *other))


def test_an_item_without_weight_is_named() -> None:
    df = frame(*CYCLE, ("q", "x", 0.5)).assign(w=[1.0, 1, 1, 0])
    with pytest.raises(crm.IdentificationError, match="'q'"):
        fit(df, weights="w")
    df = frame(*CYCLE, ("z", "x", 0.0)).assign(w=[1.0, 1, 1, 0])
    assert fit(df, weights="w").diagnostics["rows_without_weight"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": 1.5}, "outcomes from 0.*'y'.*1 of 3 rows.*first rows: 1"),
        ({"y": np.nan}, "complete values in column 'y'.*1 of 3"),
        ({"a": "z"}, "two different items.*'a' and 'b'.*first rows: 1.*Drop"),
        ({"a": None}, "complete values in column 'a'"),
        ({"n": -1.0}, "whole numbers of at least 0 in column 'n'.*1 of 3"),
        ({"n": 1.5}, "whole numbers.*weights="),
    ],
)
def test_bad_rows(change: dict[str, Any], message: str) -> None:
    df = frame(*CYCLE).assign(n=1.0)
    for column, value in change.items():
        df.loc[1, column] = value
    with pytest.raises(crm.DataError, match=message):
        fit(df)


def test_bad_rows_among_many_are_found_too() -> None:
    df = simulated(70_000)[["a", "b", "y"]]
    for column, value, message in (
        ("y", 1.5, "outcomes from 0"), ("y", np.nan, "complete"), ("b", df["a"].iloc[9], "itself"),
    ):  # fmt: skip
        bad = df.copy()
        bad.loc[9, column] = value
        with pytest.raises(crm.DataError, match=rf"{message}[\s\S]*|1 of 70000.*first rows: 9"):
            fit(bad)


def test_rows_without_weight_are_as_good_as_gone() -> None:
    df = simulated(400)
    zero = df["rater"] < 20
    full = fit(df.assign(w=np.where(zero, 0.0, df["w"])), weights="w", cluster="rater")
    short = fit(df[~zero], weights="w", cluster="rater")
    np.testing.assert_allclose(full.estimates, short.estimates, rtol=1e-12)
    np.testing.assert_allclose(full.cov("cluster"), short.cov("cluster"), rtol=1e-10)
    assert full.n_obs == short.n_obs and full.df_resid == short.df_resid
    assert full.diagnostics["rows_without_weight"] == zero.sum()


def test_nothing_but_ties_has_no_standard_error_to_trust() -> None:
    with pytest.warns(crm.IdentificationWarning, match="All 3 votes are ties"):
        r = fit(frame(("x", "y", 0.5), ("y", "z", 0.5), ("z", "x", 0.5)))
    np.testing.assert_allclose(r.estimates, 0.0)


def test_a_share_of_a_win_does_not_change_the_degrees_of_freedom() -> None:
    df = simulated(400)
    share = df.assign(y=np.where(df.index == 0, 0.25, df["y"]))
    few = fit(share).diagnostics["deviance_df"]
    assert few == fit(df).diagnostics["deviance_df"] == 15 - 5


def test_unknown_labels() -> None:
    with pytest.raises(crm.DataError, match="win, loss and tie.*'maybe'.*Recode"):
        fit(frame(*CYCLE).assign(y=["win", "maybe", "tie"]))


@pytest.mark.parametrize("labels", [("win", "loss", "tie"), ("left", "right", "draw"), "ABt"])
def test_labels(labels: Any) -> None:
    if labels == "ABt":
        labels = ("A", "B", "Tie")
    df = simulated(300)
    names = dict(zip((1.0, 0.0, 0.5), labels, strict=True))
    np.testing.assert_array_equal(fit(df.assign(y=df["y"].map(names))).estimates, fit(df).estimates)


def test_options_that_do_not_go_together() -> None:
    df = simulated(300)
    with pytest.raises(crm.DataError, match="rao_kupper"):
        fit(df, ties="davidson", link="probit")
    with pytest.raises(crm.DataError, match="shares of a win.*half"):
        fit(df.assign(y=np.where(df["y"] == 0.5, 0.4, df["y"])), ties="davidson")
    with pytest.raises(crm.IdentificationError, match="of ties there are none"):
        fit(df[df["y"] != 0.5], ties="rao_kupper")
    for options in ({"ties": "none"}, {"link": "cauchit"}, {"penalty": -1.0}, {"n_boot": 1}):
        with pytest.raises(crm.DataError, match="Expected"):
            fit(df, **options)
    fit(df, penalty=np.int64(1), n_boot=np.int64(20), position=np.True_)
    with pytest.raises(crm.DataError, match="cluster="):
        fit(df, covariance="cluster")
    with pytest.raises(crm.DataError, match="different columns for a and b"):
        crm.BradleyTerry().fit(df, a="a", b="a", outcome="y")
    with pytest.raises(crm.DataError, match="at least two clusters"):
        fit(df.assign(rater=1), cluster="rater")
    with pytest.warns(crm.IdentificationWarning, match="Only 4 clusters"):
        fit(df.assign(rater=df["rater"] % 4), cluster="rater")


def test_covariates_that_say_nothing_or_everything() -> None:
    df = simulated(300)
    with pytest.raises(crm.IdentificationError, match=r"vary.*\['c'\].*position=True"):
        fit(df.assign(c=2.0), covariates=["x", "c"])
    with pytest.raises(crm.IdentificationError, match="cannot separate"):
        fit(df.assign(c=2 * df["x"]), covariates=["x", "c"])
    with pytest.raises(crm.IdentificationError, match=r"\['c'\] follow from the items"):
        fit(df.assign(c=df["a"] - df["b"]), covariates=["x", "c"])
    with pytest.raises((crm.IdentificationError, crm.ConvergenceError), match="separate"):
        fit(df.assign(c=df["y"] - 0.5), covariates=["c"])
    with pytest.raises(crm.DataError, match="only an intercept"):
        fit(df, covariates="1")


def test_summary_names_the_reference_and_the_groups() -> None:
    text = str(fit(puddings(), ties="davidson").summary())
    for words in ("Reference item", "1 (strength 0)", "745 votes", "groups()", "nu"):
        assert words in text
