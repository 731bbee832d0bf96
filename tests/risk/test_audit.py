"""The audit: groups that are tested less at equal risk are found, with their size."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

import causalrm as crm
from causalrm.risk.audit import TERMS
from tests.risk.simulated import ROLES, selective

KNOWN = [crm.Prevalence(0.32, se=0.02), crm.Expertise(free=["x", "g"])]


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return selective(2500, 3)


@pytest.fixture(scope="module")
def fit(frame: pd.DataFrame) -> crm.SelectiveLabelsModel:
    model = crm.SelectiveLabelsModel("x + z + g", constraints=KNOWN, draws=256)
    return model.fit(frame, **ROLES, group="g")


def test_finds_who_is_tested_more(fit: crm.SelectiveLabelsModel, frame: pd.DataFrame) -> None:
    audit = fit.audit(frame, draws=128)  # by the group of the fit
    table = audit.to_frame().set_index(["group", "term"])
    assert table.loc[("c", "difference"), "verdict"] == "over-tested"
    assert table.loc[("a", "difference"), "verdict"] == "under-tested"
    # c has .8 more log odds of testing than a and b at equal risk
    gap = audit.contrast({("c", TERMS[3]): 1, ("a", TERMS[3]): -0.5, ("b", TERMS[3]): -0.5})
    assert gap.conf_low < 0.8 < gap.conf_high and gap.conf_low > 0.1
    for group in "abc":
        now, equal, difference = (table.loc[(group, t), "estimate"] for t in TERMS[:3])
        assert now - equal == pytest.approx(difference, abs=1e-9)
        seen = (frame.loc[frame["g"] == group, "tested"]).mean()
        assert now == pytest.approx(seen, abs=0.03)


def test_same_number_of_tests(fit: crm.SelectiveLabelsModel, frame: pd.DataFrame) -> None:
    audit = fit.audit(frame, by="g", draws=64)
    size = audit.groups["rows"].to_numpy()
    difference = [i for i, (p, t) in enumerate(zip(audit.parameter, audit.term, strict=True))
                  if t == "difference" and p != "all"]  # fmt: skip
    np.testing.assert_allclose(audit.draws[:, difference] @ size, 0.0, atol=1e-6)
    assert (
        audit.groups["tested_by_risk"].sum()
        == frame["tested"].sum()
        == audit.groups["tested"].sum()
    )
    assert audit.groups["positive"].sum() == (frame["sick"] == 1).sum()
    table = audit.to_frame().set_index(["group", "term"])["estimate"]
    assert table["all", "found now"] == pytest.approx((frame["sick"] == 1).sum(), rel=0.06)
    gain = table["all", "found by risk"] - table["all", "found now"]
    assert gain == pytest.approx(table["all", "difference"], abs=1e-6)
    # what the rule would have found in truth, which the model cannot see
    risk = fit.predict_risk(frame)["estimate"]
    top = risk.nlargest(int(frame["tested"].sum())).index
    assert table["all", "found by risk"] == pytest.approx(frame.loc[top, "truth"].sum(), rel=0.06)


def test_without_a_term_of_testing_nobody_is_treated_differently(frame: pd.DataFrame) -> None:
    fit = crm.SelectiveLabelsModel(
        "x + z", "1", constraints=[crm.Prevalence(0.32, se=0.02)], draws=256
    ).fit(frame, **ROLES)
    table = fit.audit(frame, by="g", draws=32).to_frame()
    own = table[
        table["term"].isin(["difference", "log odds at equal risk"]) & (table["group"] != "all")
    ]
    np.testing.assert_allclose(own["estimate"], 0.0, atol=1e-7)


def test_result(fit: crm.SelectiveLabelsModel, frame: pd.DataFrame) -> None:
    audit = fit.audit(frame.assign(ward=np.arange(len(frame)) % 2), by="ward", draws=32)
    assert audit.groups["group"].tolist() == ["0", "1"]
    frame_of = audit.to_frame(0.9)
    assert frame_of.columns.tolist()[:2] == ["group", "term"]
    text = str(audit.summary())
    assert "ward = 0" in text and "found by risk" in text and "Equal risk" in text
    again = crm.Result.from_json(audit.to_json())
    pd.testing.assert_frame_equal(again.to_frame(), audit.to_frame(), check_exact=True)
    for ax in (audit.plot(), audit.plot.rates()):
        assert isinstance(ax, Axes) and ax.get_xlabel()
        assert [t.get_text() for t in ax.get_yticklabels()] == ["0", "1"]


def test_needs_groups_and_roles(frame: pd.DataFrame) -> None:
    fit = crm.SelectiveLabelsModel("x", draws=64).fit(frame.head(300), **ROLES)
    with pytest.raises(crm.DataError, match="Give by="):
        fit.audit(frame)
    with pytest.raises(crm.DataError, match="no such column"):
        fit.audit(frame, by="ward")
    with pytest.raises(crm.DataError, match="no such column"):
        fit.audit(frame.drop(columns="tested"), by="g")
    with pytest.raises(crm.DataError, match="at least 2 draws"):
        fit.audit(frame, by="g", draws=1)
    with pytest.raises(crm.DataError, match="1 .tested. or 0"):
        fit.audit(frame.assign(tested=frame["tested"] + 1), by="g")
