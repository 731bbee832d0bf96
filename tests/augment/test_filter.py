"""The filter: cross-fitted by query, nothing dropped silently."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import causalrm as crm
from causalrm.preference.differences import fit_differences
from tests.augment.simulation import CAUSAL, ROLES, SPURIOUS, augment, preferences

ENCODER = crm.text.Features([*CAUSAL, *SPURIOUS])


@pytest.fixture(scope="module")
def data() -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(0)
    df = preferences(400, rng, per_query=4)
    made = augment(df, rng)
    made.loc[made.index[:7], "status"] = "failed"
    return df, made


def test_keeps_what_the_baseline_is_not_sure_of(data: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    df, made = data
    fit = crm.ConfidenceFilter(encoder=ENCODER).fit(df, made, **ROLES)
    pairs = fit.pairs_
    pd.testing.assert_frame_equal(pairs[made.columns.tolist()], made)
    ok = pairs["status"] == "ok"
    assert pairs["p"].notna().equals(ok) and not pairs.loc[~ok, "keep"].any()
    expected = (pairs.loc[ok, "p"] - pairs.loc[ok, "target"]).abs() > 0.2
    assert expected.equals(pairs.loc[ok, "keep"])
    counts = fit.result_.counts
    assert counts["not_ok"] == 7 and counts["kept"] == pairs["keep"].sum()
    assert sum(counts[k] for k in ("not_ok", "confident", "kept")) == counts["rows"] == len(made)
    rates = fit.to_frame().set_index("term")["estimate"]
    for kind, part in pairs[ok].groupby("kind"):
        assert rates[kind] == pytest.approx(part["keep"].mean())
    for name, part in pairs[ok & (pairs["kind"] == "causal")].groupby("attribute"):
        assert rates[f"causal: {name}"] == pytest.approx(part["keep"].mean())


def test_no_query_judges_itself(data: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    df, made = data
    pairs = crm.ConfidenceFilter(encoder=ENCODER, cross_fit=4, rng=3).fit(df, made, **ROLES).pairs_
    part = np.random.default_rng(3).permutation(100) % 4
    d = np.stack((df["chosen"] - df["rejected"]).to_numpy())
    for row in (10, 900, 1150):
        pair = made.iloc[row]
        others = part[df["query"]] != part[pair["cluster"]]
        beta = fit_differences(d[others], np.ones(others.sum()), penalty=1.0).beta
        p = 1 / (1 + np.exp(-(pair["answer_a"] - pair["answer_b"]) @ beta))
        assert pairs["p"].iloc[row] == pytest.approx(p, abs=1e-9)


def test_order_of_rows_and_a_filter_before_do_not_matter(
    data: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    df, made = data
    first = crm.ConfidenceFilter(encoder=ENCODER).fit(df, made, **ROLES).pairs_
    again = crm.ConfidenceFilter(encoder=ENCODER).fit(
        df.sample(frac=1, random_state=1), first.sample(frac=1, random_state=2), **ROLES
    )
    np.testing.assert_allclose(again.pairs_.sort_index()["p"], first["p"], atol=1e-9)


def test_tau(data: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    df, made = data
    kept = [
        crm.ConfidenceFilter(tau, encoder=ENCODER).fit(df, made, **ROLES).result_.counts["kept"]
        for tau in (0.0, 0.2, 0.5)
    ]
    assert len(made) - 7 >= kept[0] > kept[1] > kept[2] > 0
    with pytest.warns(crm.CausalRMWarning, match="none is kept"):
        crm.ConfidenceFilter(0.999, encoder=ENCODER).fit(df, made, **ROLES)


def test_text() -> None:
    df, _ = crm.datasets.make_preferences(120, n_topics=16, rng=0)
    made = crm.CausalAugmenter(crm.augment.RuleOracle(), n_attributes=2).generate(df)
    encoder = crm.text.HashedText(64, 32)
    fit = crm.ConfidenceFilter(encoder=encoder).fit(df, made, **ROLES)
    assert fit.pairs_["p"].notna().equals(made["status"] == "ok")
    assert 0 < fit.result_.counts["confident"] < len(made)
    assert "identical" in set(made["status"]) and fit.result_.counts["not_ok"] > 0
    robust = crm.RobustRewardModel(encoder, drop_attributes=False).fit(df, fit.pairs_, **ROLES)
    assert robust.result_.counts["used"].sum() == fit.result_.counts["kept"]
    text = fit.result_.to_json()
    assert crm.Result.from_json(text).to_json() == text
    assert fit.plot().get_xlabel() == "Share of pairs kept"


def test_bad_options(data: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    df, made = data
    for options in ({"tau": -0.1}, {"tau": "small"}, {"cross_fit": 1}, {"cross_fit": 2.5}):
        with pytest.raises(crm.DataError, match=next(iter(options))):
            crm.ConfidenceFilter(encoder=ENCODER, **options).fit(df, made, **ROLES)
    with pytest.raises(crm.DataError, match="Lower cross_fit"):
        crm.ConfidenceFilter(cross_fit=101, encoder=ENCODER).fit(df, made, **ROLES)
    with pytest.raises(crm.DataError, match="Give those to be filtered"):
        crm.ConfidenceFilter(encoder=ENCODER).fit(df, None, **ROLES)
