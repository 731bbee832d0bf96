"""Simulated ACS-like rows: seeded, in the survey's codes, with the risk that generated them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from causalrm.core.errors import DataError
from causalrm.datasets import make_acs_like
from causalrm.datasets._acs_like import ACS_FEATURES, ACS_TARGETS, _terms

TASKS = list(ACS_FEATURES)


@pytest.mark.parametrize("task", TASKS)
def test_outcomes_follow_the_true_risk(task):
    data, truth = make_acs_like(20_000, task=task, rng=0)
    target, sign, value = ACS_TARGETS[task]
    positive = {"==": data[target] == value, "!=": data[target] != value, ">": data[target] > value}
    np.testing.assert_array_equal(positive[sign], truth.outcome)
    assert data[target].notna().all()
    risk = truth.risk
    assert ((risk > 0) & (risk < 1)).all() and risk.std() > 0.1
    # In tenths of the risk the counts are those of independent Bernoulli draws.
    tenth = np.digitize(risk, np.quantile(risk, np.arange(0.1, 1, 0.1)))
    frame = pd.DataFrame({"y": truth.outcome, "p": risk, "v": risk * (1 - risk)})
    sums = frame.groupby(tenth).sum()
    chi2 = ((sums.y - sums.p) ** 2 / sums.v).sum()
    assert stats.chi2.sf(chi2, 10) > 0.001


@pytest.mark.parametrize("task", TASKS)
def test_the_risk_is_a_function_of_the_columns_shown(task):
    data, truth = make_acs_like(300, task=task, rng=1)
    assert list(data.columns) == [*ACS_FEATURES[task].split(), ACS_TARGETS[task][0], "PWGTP"]
    columns = ["AGEP", "SCHL", "WKHP", "PINCP", "SEX", "MAR", "RAC1P", "DIS", "ESR", "RELP",
               "OCCP", "JWTR"]  # fmt: skip
    shown = data.drop(columns=ACS_TARGETS[task][0]).reindex(columns=columns).astype(float)
    terms = _terms({name: shown[name].to_numpy() for name in columns})
    logit = sum(b * terms[term] for term, b in truth.coefficients.items())
    np.testing.assert_allclose(1 / (1 + np.exp(-logit)), truth.risk)


def test_codes_that_do_not_apply_are_missing():
    data, _ = make_acs_like(5000, task="ACSPublicCoverage", rng=2)
    assert (data["AGEP"] < 65).all() and (data["PINCP"] <= 30_000).all()
    assert data["ESR"].isna().equals(data["AGEP"] < 16)
    assert data["MIL"].isna().equals(data["AGEP"] < 17)
    men_or_other_ages = (data["SEX"] == 1) | ~data["AGEP"].between(15, 50)
    assert data["FER"].isna().equals(men_or_other_ages)
    assert data.loc[data["AGEP"] >= 18, "ESP"].isna().all()
    assert (data["NATIVITY"] == 1 + (data["CIT"] > 3)).all()
    difficulty = (data[["DEAR", "DEYE", "DREM"]] == 1).any(axis=1)
    assert (data.loc[difficulty, "DIS"] == 1).all()
    assert data["AGEP"].dtype == int and (data["PWGTP"] >= 1).all()


def test_the_seed_decides():
    (one, truth), (two, _), (three, _) = (make_acs_like(50, rng=seed) for seed in (5, 5, 6))
    pd.testing.assert_frame_equal(one, two)
    assert not one.equals(three)
    again, _ = make_acs_like(50, rng=truth.entropy)
    pd.testing.assert_frame_equal(one, again)
    assert len(make_acs_like(1, task="ACSMobility", rng=0).data) == 1


@pytest.mark.parametrize("options", [{"n": 0}, {"n": 1.5}, {"n": True}, {"task": "ACSHealth"}])
def test_bad_arguments(options):
    with pytest.raises(DataError, match="must be|to be one of"):
        make_acs_like(**options)
