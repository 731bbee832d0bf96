"""Effects of attributes from flipped pairs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

import causalrm as crm
from causalrm.augment import attribute_effects

CAUSAL = ["c1", "c2", "c3"]
STYLE = ["s1", "s2"]
THETA = {"c1": 1.0, "c2": 0.6, "c3": -0.4}
PAIR = {("c1", "c2"): 0.5, ("c1", "c3"): 0.0, ("c2", "c3"): -0.3}
BY_STYLE = {("c1", "s1"): 0.7, ("c3", "s2"): 0.2}
ROLES = {"change": "change", "attribute": "flipped", "causal": CAUSAL, "spurious": STYLE}


def reward(df: pd.DataFrame) -> np.ndarray:
    """Main effects, interactions, and a style effect that is not linear."""
    out = sum(b * df[c] for c, b in THETA.items())
    out += sum(b * df[i] * df[j] for (i, j), b in (PAIR | BY_STYLE).items())
    return np.asarray(out + 3.0 * df["s1"] * df["s2"] - 2.0 * df["s1"], dtype=float)


def flips(n: int, noise: float, rng: np.random.Generator) -> pd.DataFrame:
    df = pd.DataFrame(rng.choice([-1, 1], (n, 5)), columns=[*CAUSAL, *STYLE])
    df["flipped"] = rng.choice(CAUSAL, n)
    other = df.copy()
    for c in CAUSAL:
        rows = df["flipped"] == c
        other.loc[rows, c] *= -1
    df["change"] = reward(other) - reward(df) + noise * rng.standard_normal(n)
    return df


def truth(group: str, term: str) -> float:
    if group == "effect":
        return THETA[term]
    pair = tuple(term.split(" x "))
    return (PAIR | BY_STYLE).get(pair, 0.0)


@pytest.mark.parametrize("method", ["per_attribute", "stacked_l1"])
def test_exact_without_noise(method: str) -> None:
    # The style effects cancel; what is left is linear in the coefficients.
    df = flips(300, 0.0, np.random.default_rng(0))
    frame = attribute_effects(df, **ROLES, method=method).to_frame()
    assert set(frame.loc[frame["group"] == "effect", "term"]) == set(THETA)
    for row in frame.itertuples():
        assert row.estimate == pytest.approx(truth(row.group, row.term), abs=1e-8)


def test_standard_errors_are_those_of_statsmodels() -> None:
    df = flips(200, 0.5, np.random.default_rng(1))
    frame = attribute_effects(df, **ROLES).to_frame().set_index(["group", "term"])
    rows = df[df["flipped"] == "c2"]
    x = sm.add_constant(rows[["c1", "c3", *STYLE]].astype(float))
    fit = sm.OLS(-0.5 * rows["change"] * rows["c2"], x).fit(cov_type="HC1")
    own = frame.xs("effect").loc["c2"]
    assert own["estimate"] == pytest.approx(fit.params["const"])
    assert own["std_error"] == pytest.approx(fit.bse["const"])


def test_intervals_cover() -> None:
    rng = np.random.default_rng(2)
    hits = []
    for _ in range(150):
        frame = attribute_effects(flips(240, 1.0, rng), **ROLES).to_frame()
        true = np.array([truth(r.group, r.term) for r in frame.itertuples()])
        hits.append((frame["conf_low"] <= true) & (true <= frame["conf_high"]))
    assert 0.925 < np.mean(hits) < 0.97


def test_more_columns_than_pairs() -> None:
    rng = np.random.default_rng(3)
    names = [f"c{i}" for i in range(12)]
    df = pd.DataFrame(rng.choice([-1, 1], (72, 12)), columns=names)
    df["flipped"] = np.tile(names, 6)
    own = df.to_numpy()[:, :12][np.arange(72), np.tile(np.arange(12), 6)].astype(float)
    theta = np.tile(np.r_[1.0, 0.8, np.zeros(10)], 6)
    df["change"] = -2 * own * theta + 0.1 * rng.standard_normal(72)
    roles = {"change": "change", "attribute": "flipped", "causal": names}
    with pytest.raises(crm.IdentificationError, match="determine 6 of 12 coefficients"):
        attribute_effects(df, **roles)
    found = attribute_effects(df, **roles, method="stacked_l1")
    frame = found.to_frame().set_index("term")
    assert frame.loc[["c0", "c1"], "estimate"].tolist() == pytest.approx([1.0, 0.8], abs=0.1)
    assert (frame["estimate"].drop(["c0", "c1"]) == 0).sum() >= 70
    assert found.penalty > 0 and len(frame) == 78
    assert (found.designs["rank"] == 6).all() and np.isinf(found.designs["condition_number"]).all()
    assert "rank 6 of 12" in str(found.summary())


def test_conditioning_is_reported() -> None:
    df = flips(600, 0.1, np.random.default_rng(4))
    df["s2"] = np.where(np.random.default_rng(5).random(600) < 0.9, df["s1"], -df["s1"])
    designs = attribute_effects(df, **ROLES).designs
    assert (designs["coherence"] > 0.7).all() and (designs["rank"] == 5).all()
    assert (designs["condition_number"] > 2.5).all()


def test_clusters_widen_what_is_shared() -> None:
    df = flips(200, 0.5, np.random.default_rng(6))
    twice = pd.concat([df.assign(q=range(200))] * 2, ignore_index=True)
    alone = attribute_effects(df, **ROLES).to_frame()
    naive = attribute_effects(twice, **ROLES).to_frame()
    grouped = attribute_effects(twice, **ROLES, cluster="q").to_frame()
    assert (naive["std_error"] < 0.75 * alone["std_error"]).all()
    np.testing.assert_allclose(grouped["std_error"], alone["std_error"], rtol=0.05)


def test_bad_input() -> None:
    df = flips(50, 0.1, np.random.default_rng(7))
    with pytest.raises(crm.DataError, match="1 of 50 rows differ"):
        attribute_effects(df.assign(c1=[0, *df["c1"][1:]]), **ROLES)
    with pytest.raises(crm.DataError, match="also has other"):
        attribute_effects(df.assign(flipped="other"), **ROLES)
    with pytest.raises(crm.DataError, match="method"):
        attribute_effects(df, **ROLES, method="ols")
