"""Few clusters: the wild bootstrap against enumeration, the jackknife against refits, coverage.

Running this file writes the summary of the full simulation to
tests/reference/deconfound/few_clusters.csv; cases that are named are replaced:

    python tests/deconfound/test_few_clusters.py [replications [case ...]]
"""

from __future__ import annotations

import itertools
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import special

from causalrm.core.errors import DataError, IdentificationWarning
from causalrm.core.result import Result
from causalrm.datasets import make_headlines, make_logged_rewards
from causalrm.deconfound import (
    DeconfoundedReward,
    absorbed_regression,
    average_effect,
    fuse,
    heterogeneity,
    policy_value,
)
from causalrm.deconfound.few_clusters import wild_bootstrap

RESULTS = Path(__file__).parents[1] / "reference" / "deconfound" / "few_clusters.csv"
ROLES: dict[str, Any] = {
    "outcome": "outcome", "text": ["quality", "noise", "style"], "confounders": ["popularity"],
    "cluster": "author",
}  # fmt: skip
TEXT: dict[str, Any] = {
    "outcome": "clicks", "text": "headline", "confounders": ["readers"], "cluster": "editor",
}  # fmt: skip


def fit(df: pd.DataFrame, method: str = "plr", **options: Any) -> DeconfoundedReward:
    roles = ROLES | ({"instruments": ["instrument"]} if method == "iv" else {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IdentificationWarning)
        return DeconfoundedReward(method, **options).fit(df, **roles)


def effect(df: pd.DataFrame, method: str, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IdentificationWarning)
        return average_effect(
            df, outcome="y", treatment="d", covariates=["x"], cluster="g", method=method, **options
        )


def treated(groups: int, seed: int, n: int = 400) -> pd.DataFrame:
    """Groups share a part of covariate, treatment and error; the effect is 1."""
    rng = np.random.default_rng([groups, seed])
    g = rng.integers(groups, size=n)
    x, noise, u = ((rng.normal(size=groups)[g] + rng.normal(size=n)) / np.sqrt(2) for _ in range(3))
    d = (special.ndtr(u) < special.expit(0.5 * x)).astype(int)
    return pd.DataFrame({"g": g, "x": x, "d": d, "y": d + x + noise})


# --------------------------------------------------------------------------- numbers


def test_bootstrap_of_a_regression_by_enumeration() -> None:
    """All sign changes of the restricted residuals of a regression through the origin, refitted."""
    rng = np.random.default_rng(1)
    groups = 12
    g = np.repeat(np.arange(groups), 5)
    x = rng.normal(size=60) + rng.normal(size=groups)[g]
    y = 0.4 * x + rng.normal(size=60) + rng.normal(size=groups)[g]
    theta, null = (x @ y) / (x @ x), 0.15

    def t(values: np.ndarray) -> float:
        slope = (x @ values) / (x @ x)
        scores = np.bincount(g, weights=x * (values - slope * x))
        return float((slope - null) / np.sqrt(scores @ scores) * (x @ x))

    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=groups)))
    drawn = [t(null * x + (y - null * x) * s[g]) for s in signs]
    exact = np.mean(np.abs(drawn) * (1 + 1e-9) >= abs(t(y)))
    influence = np.bincount(g, weights=x * (y - theta * x)) / (x @ x)
    slopes = np.bincount(g, weights=x * x) / (x @ x)
    sums = (influence[:, None], slopes[:, None, None], np.eye(1))
    shifted = wild_bootstrap(("x",), np.array([theta - null]), sums, draws=20_000)
    assert shifted["p_value"][0] == pytest.approx(exact, abs=4 * np.sqrt(exact / 20_000))
    found = wild_bootstrap(("x",), np.array([theta]), sums, level=1 - exact, draws=20_000).iloc[0]
    ends = np.array([found["conf_low"], found["conf_high"]])
    assert np.abs(ends - null).min() < 0.02  # a value is in the interval where its test keeps it


def test_sums_of_an_absorbed_regression_are_those_of_least_squares() -> None:
    rng = np.random.default_rng(2)
    df = pd.DataFrame({"g": np.arange(300) % 15, "f": rng.integers(6, size=300)})
    df["a"] = rng.normal(size=300) + df["f"]
    df["b"] = rng.normal(size=300) + 0.5 * df["a"]
    df["y"] = df["a"] + df["f"] + rng.normal(size=300) + rng.normal(size=15)[df["g"]]
    with pytest.warns(IdentificationWarning, match="Only 15 clusters.*wild_bootstrap"):
        found = absorbed_regression(df, y="y", x=["a", "b"], absorb="f", cluster="g")
    influence, slopes, _ = found.cluster_sums
    np.testing.assert_allclose(slopes.sum(axis=0), np.eye(2), atol=1e-9)
    np.testing.assert_allclose(influence.sum(axis=0), 0, atol=1e-9)
    frame = found.wild_bootstrap(draws=999)
    assert frame["term"].tolist() == ["a", "b"]
    assert frame["conf_low"][0] < 1 < frame["conf_high"][0] and frame["p_value"][0] < 0.01
    again = Result.from_json(found.to_json())
    pd.testing.assert_frame_equal(again.wild_bootstrap(draws=999), frame)


@pytest.mark.parametrize("method", ["plr", "iv", "joint", "residualise", "input"])
def test_jackknife_of_features_is_that_of_refits(method: str) -> None:
    """Every cluster left out by hand; folds keep their places as the codes of clusters do."""
    df, _ = make_logged_rewards(300, authors=10, rng=3)
    whole = fit(df, method, folds=2)
    result = whole.result_
    assert result.diagnostics["cluster_errors"] == "jackknife"
    influence, slopes, _ = result.cluster_sums
    np.testing.assert_allclose(slopes.sum(axis=0), np.eye(1), atol=1e-9)
    if method == "plr":
        return  # folds of the refits would be others; see the test of texts
    for g in (0, 7):
        left = fit(df[df["author"] != g].reset_index(drop=True), method, folds=2).result_
        np.testing.assert_allclose(
            influence[g], 0.9 * (result.gamma - left.gamma), rtol=1e-6, atol=1e-10
        )


def test_jackknife_of_plr_agrees_for_texts_and_features() -> None:
    """Out-of-fold residuals without a cluster, by the update and by Gram matrices."""
    from causalrm.core.blocks import Rows
    from causalrm.deconfound import stages
    from causalrm.deconfound.folds import FOLD, Columns, Folds, with_folds
    from causalrm.deconfound.linear_nuisance import cross_fitted, gram_by, partial_out

    rng = np.random.default_rng(4)
    n, groups = 200, 8
    x = rng.normal(size=(n, 3))
    c = x @ [1.0, 0.5, 0.0] + rng.normal(size=n)
    y = c + x[:, 1] + rng.normal(size=n)
    code = rng.integers(groups, size=n)
    w = rng.uniform(0.5, 2.0, size=n)
    block = {"y": y, "c": c, "g": code, "w": w} | {f"x{j}": x[:, j] for j in range(3)}
    folds = Folds(4, 5, "g")
    rows = with_folds(Rows(block, n), folds)
    names = Columns(("x0", "x1", "x2"), ("x0", "x1", "x2"))
    roles: dict[str, Any] = {"confounders": Columns(("c",), ("c",)), "controls": names}
    full = partial_out(rows, outcome="y", n_folds=4, weights="w", **roles)
    alone = with_folds(rows, Folds(groups, 0, "g"))
    place = Folds(groups, 0, "g").codes({"g": np.arange(groups)}, 0)
    own = gram_by(alone, full, groups)[place]
    cross = stages.CrossFit(lambda _: x.copy(), None, np.zeros(1), rows.columns[FOLD], w)
    products = cross.without(np.stack([c, y]), code, groups)
    for g, f in enumerate(folds.codes({"g": np.arange(groups)}, 0)):
        gram = full.gram.copy()
        gram[f] -= own[g]
        expected = cross_fitted(full, gram, 0.0).products.sum(axis=0)
        np.testing.assert_allclose(products[g], expected, rtol=1e-6)


def test_results_keep_what_the_bootstrap_needs() -> None:
    df, _ = make_logged_rewards(300, authors=12, rng=1)
    found = fit(df)
    frame = found.result_.wild_bootstrap(draws=999)
    row, wald = frame.iloc[0], found.to_frame().iloc[0]
    assert row["estimate"] == wald["estimate"]
    assert 0.5 < (row["conf_high"] - row["conf_low"]) / (wald["conf_high"] - wald["conf_low"]) < 2
    again = Result.from_json(found.result_.to_json())
    pd.testing.assert_frame_equal(again.wild_bootstrap(draws=999), frame)
    with pytest.raises(DataError, match="Give cluster="):
        df, _ = make_logged_rewards(300, rng=1)
        plain = DeconfoundedReward().fit(df, **{k: v for k, v in ROLES.items() if k != "cluster"})
        plain.result_.wild_bootstrap()
    with pytest.raises(DataError, match="at least 40 draws"):
        again.wild_bootstrap(draws=10)


@pytest.mark.parametrize("method", ["aipw", "plr", "regression", "ipw", "difference"])
def test_average_effects_have_it_too(method: str) -> None:
    found = effect(treated(12, 1), method)
    row, wald = found.wild_bootstrap(draws=999).iloc[0], found.effect()
    assert row["estimate"] == wald.estimate
    assert 0.5 < (row["conf_high"] - row["conf_low"]) / (wald.conf_high - wald.conf_low) < 2


def others(df: pd.DataFrame) -> dict[str, Any]:
    """Results of the other functions with twelve clusters, and the sums that they keep."""
    rng = np.random.default_rng(5)
    df = df.assign(p=0.5, a=np.where(rng.random(len(df)) < 0.5, "u", "v"))
    roles = {"outcome": "y", "treatment": "d"}
    policy = {"action": "a", "reward": "y", "policy": {"u": 1.0}, "covariates": ["x"]}
    log = treated(400, 2, 2000).drop(columns="g")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IdentificationWarning)
        found: dict[str, Any] = {
            method: policy_value(df, **policy, method=method, cluster="g")
            for method in ("dr", "ips", "snips", "direct")
        }
        found["logged"] = policy_value(df, **policy, method="snips", propensity="p", cluster="g")
        found["linear"] = heterogeneity(df, **roles, modifiers=["x"], cluster="g")
        found["fuse"] = fuse(df, log, **roles, covariates=["x"], cluster="g")
    return found


def test_every_function_with_clusters_has_a_bootstrap() -> None:
    df = treated(12, 1)
    for name, found in others(df).items():
        kept = found.cluster_sums if name == "fuse" else (found.cluster_sums,)
        for influence, slopes, _ in kept:
            np.testing.assert_allclose(slopes.sum(axis=0), np.eye(len(slopes[0])), atol=1e-8)
            np.testing.assert_allclose(influence.sum(axis=0), 0, atol=1e-8)
        frame, wald = found.wild_bootstrap(draws=999), found.to_frame()
        wald = wald[wald["term"].isin(frame["term"])]
        assert frame["term"].tolist() == wald["term"].tolist() and len(frame) > 1, name
        np.testing.assert_allclose(frame["estimate"], wald["estimate"], err_msg=name)
        width = frame["conf_high"] - frame["conf_low"]
        assert (width / (wald["conf_high"] - wald["conf_low"])).between(0.5, 2).all(), name
        again = Result.from_json(found.to_json())
        pd.testing.assert_frame_equal(again.wild_bootstrap(draws=999), frame)
    for warned in (
        lambda: heterogeneity(df, outcome="y", treatment="d", modifiers=["x"], cluster="g"),
        lambda: fuse(
            df, treated(400, 2), outcome="y", treatment="d", covariates=["x"], cluster="g"
        ),
    ):
        with pytest.warns(IdentificationWarning, match="12 clusters in column 'g'.*wild_bootstrap"):
            warned()


def test_what_does_not_vary_has_no_test() -> None:
    """Such as a policy less the log, where the policy is that of the log."""
    sums = (np.zeros((8, 1)), np.full((8, 1, 1), 1 / 8), np.zeros((1, 1)))
    row = wild_bootstrap(("difference",), np.array([0.5]), sums, draws=99).iloc[0]
    assert row["std_error"] == 0 and row["conf_low"] == row["conf_high"] == 0.5
    assert np.isnan(row["p_value"])


def test_the_best_of_n_counts_what_clusters_teach_the_nuisances() -> None:
    """Through gamma a cluster's influence is that of the jackknife, as in the fit itself."""
    df, _ = make_logged_rewards(300, authors=10, rng=3)
    found = fit(df)
    kept, everyone = found._kept, np.ones(300, dtype=bool)
    jackknife = found.result_.cluster_sums[0][:, :1]
    np.testing.assert_allclose(kept.by_cluster, jackknife)
    p = np.arange(300.0)  # what passes through gamma and the mean alone
    passed = kept.influence(np.zeros(300), p, everyone)
    mean = np.bincount(kept.codes, p.sum() * (kept.theta @ kept.c) / 300, minlength=10)
    expected = np.sqrt(10 / 9) * (mean - jackknife[:, 0] * float(kept.c[0] @ p))
    np.testing.assert_allclose(passed, expected)


# --------------------------------------------------------------------------- coverage

Rows = list[tuple[str, float, float, bool]]


def _seed(*entropy: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(entropy)


def features(groups: int, seed: int) -> Rows:
    df, truth = make_logged_rewards(400, authors=groups, icc=0.5, rng=_seed(groups, seed))
    out: Rows = []
    for method in ("plr", "iv"):
        found = fit(df, method)
        wild = found.result_.wild_bootstrap(draws=499, rng=seed)
        for way, row in (("t", found.to_frame().iloc[0]), ("wild", wild.iloc[0])):
            inside = row["conf_low"] <= truth.gamma <= row["conf_high"]
            out.append((f"{method}, {way}", row["estimate"] - 1, row["std_error"], inside))
    return out


def effects(groups: int, seed: int) -> Rows:
    out: Rows = []
    for method in ("aipw", "plr"):
        found = effect(treated(groups, seed), method, rng=seed)
        wild = found.wild_bootstrap(draws=499, rng=seed)
        for way, row in (("t", found.to_frame().iloc[0]), ("wild", wild.iloc[0])):
            inside = row["conf_low"] <= 1 <= row["conf_high"]
            out.append(
                (f"effect by {method}, {way}", row["estimate"] - 1, row["std_error"], inside)
            )
    return out


def texts(editors: int, seed: int) -> Rows:
    """Editors follow 24 stories, and share headlines: folds hold whole stories."""
    df, truth = make_headlines(1000, editors=editors, rng=_seed(editors, seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IdentificationWarning)
        row = DeconfoundedReward(rng=seed).fit(df, **TEXT).to_frame().iloc[0]
    inside = row["conf_low"] <= truth.gamma <= row["conf_high"]
    return [("texts, plr, t", row["estimate"] - truth.gamma, row["std_error"], inside)]


CASES = {
    "features 10": (features, 10), "features 15": (features, 15), "effects 10": (effects, 10),
    "effects 15": (effects, 15), "texts 60": (texts, 60),
}  # fmt: skip


def summary(case: str, replications: int) -> pd.DataFrame:
    simulate, groups = CASES[case]
    rows = [row for seed in range(replications) for row in simulate(groups, seed)]
    frame = pd.DataFrame(rows, columns=["quantity", "error", "se", "covered"])
    by = frame.groupby("quantity", sort=False)
    sd = by["error"].std()
    out = pd.DataFrame(
        {
            "replications": by.size(), "bias_in_sd": by["error"].mean() / sd,
            "se_over_sd": by["se"].mean() / sd, "coverage": by["covered"].mean(),
        }
    )  # fmt: skip
    out.insert(0, "clusters", groups)
    out.insert(0, "case", case)
    return out.round(4).reset_index().set_index(["case", "quantity"])


def test_the_stored_simulation_covers() -> None:
    stored = pd.read_csv(RESULTS)
    assert set(stored["case"]) == set(CASES) and (stored["replications"] >= 300).all()
    used = stored[stored["quantity"].str.contains("wild|texts")]
    error = 2 * np.sqrt(0.05 * 0.95 / used["replications"])
    assert used["coverage"].between(0.93 - error, 0.975 + error).all(), used


@pytest.mark.slow
@pytest.mark.parametrize("case", list(CASES))
def test_coverage(case: str) -> None:
    found = summary(case, 200)
    found = found[found.index.get_level_values(1).str.contains("wild|texts")]
    assert found["coverage"].between(0.90, 0.99).all(), found


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    for name in sys.argv[2:] or CASES:
        new = summary(name, count)
        if RESULTS.exists():
            old = pd.read_csv(RESULTS).set_index(["case", "quantity"])
            new = pd.concat([old.drop(name, level=0, errors="ignore"), new])
        new.to_csv(RESULTS)
