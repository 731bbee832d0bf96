"""The ready-made tasks against simulated rows in the survey's codes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from causalrm.calibration.acs import ACS_COLUMNS, ACS_TASKS, acs_population, acs_task
from causalrm.calibration.scorer import RiskScorer
from causalrm.calibration.task import RiskTask
from causalrm.core.errors import DataError
from causalrm.datasets import make_acs_like
from causalrm.llm import FunctionModel


@pytest.mark.parametrize("name", ACS_TASKS)
def test_simulated_rows_have_words_in_every_style(name):
    data, truth = make_acs_like(1500, task=name, rng=0)
    task = acs_task(name)
    np.testing.assert_array_equal(task.outcome(data), truth.outcome)
    n_columns = {"ACSIncome": 10, "ACSPublicCoverage": 19, "ACSMobility": 21,
                 "ACSEmployment": 16, "ACSTravelTime": 16}[name]  # fmt: skip
    assert len(task.columns) == n_columns and task.target not in task.columns
    full, coarse = (task.describe(data, granularity=g) for g in ("full", "coarse"))
    assert all(text.count("\n") == n_columns - 1 for text in full + coarse)
    assert len(set(coarse)) <= len(set(full)) and not set(coarse) & set(full)
    assert not any("unknown" in text for text in full)
    assert RiskTask.from_json(task.to_json()) == task
    prompt = task.prompt(data.iloc[0], mode="numeric")
    assert prompt.startswith("The information below") and task.event in prompt


def test_words_of_known_codes():
    def text(column, value, granularity="full"):
        return ACS_COLUMNS[column].text(value, granularity)

    assert text("SCHL", 21.0) == "bachelor's degree" and text("SCHL", 16) == "high school diploma"
    assert text("SCHL", 20, "coarse") == "some college"
    assert text("OCCP", 2310) == "education and libraries"
    assert text("OCCP", 4720) == "sales" and text("OCCP", 9920).startswith("none")
    assert text("POBP", 303) == "Mexico" and text("POBP", 6) == "California"
    assert text("POBP", 110, "coarse") == "Europe" and text("POBP", 72) == "Puerto Rico"
    assert text("PINCP", 1234567) == "$1,234,567" and text("PINCP", -4000) == "$-4,000"
    assert text("PINCP", -4000, "coarse") == "none or a loss"
    assert text("AGEP", 29, "coarse") == "18 to 29 years"
    assert text("ESP", None) == "not applicable (not a child in the family)"
    assert len(ACS_COLUMNS["ST"].values) == 52 and ACS_COLUMNS["ST"].values[48] == "Texas"
    assert {c for name in ACS_TASKS for c in acs_task(name).columns} == ACS_COLUMNS.keys()


def test_unknown_codes_are_an_error_in_both_granularities():
    data, _ = make_acs_like(5, rng=0)
    for code in (-1, 25):  # some tools write -1 for missing
        for granularity in ("full", "coarse"):
            with pytest.raises(DataError, match="'SCHL' have no text"):
                acs_task().describe(data.assign(SCHL=code), granularity=granularity)


@pytest.mark.parametrize("name", ACS_TASKS)
def test_populations(name):
    data, _ = make_acs_like(200, task=name, rng=1)
    data = data.assign(ESR=1) if name == "ACSTravelTime" else data
    assert acs_population(data, name).all()
    others = data.assign(AGEP=[5, 99] * 100)
    kept = acs_population(others, name)
    assert not kept.iloc[0::2].any() or name == "ACSPublicCoverage"
    assert kept.iloc[1::2].all() == (name in ("ACSIncome", "ACSEmployment", "ACSTravelTime"))
    with pytest.raises(DataError, match="a column 'AGEP'"):
        acs_population(data.drop(columns="AGEP"), name)


def test_missing_values_are_outside_a_population():
    data = pd.DataFrame({"AGEP": [40, 40, 40], "WKHP": [40, None, 40], "PINCP": [101, 200, 100]})
    assert acs_population(data, "ACSIncome").tolist() == [True, False, False]


def test_fewer_columns_and_unknown_names():
    assert list(acs_task("ACSMobility", ["AGEP", "SEX"]).columns) == ["AGEP", "SEX"]
    with pytest.raises(DataError, match="to be one of 'ACSIncome"):
        acs_task("ACSHealth")
    with pytest.raises(DataError, match="to be one of 'ACSIncome"):
        acs_population(pd.DataFrame(), "ACSHealth")
    with pytest.raises(DataError, match="'SHOE' is not one"):
        acs_task("ACSIncome", ["SHOE"])
    with pytest.raises(DataError, match="tell the answer"):
        acs_task("ACSIncome", ["PINCP"])


def test_a_simulated_model_that_knows_the_risk_gives_it_back():
    data, truth = make_acs_like(100, task="ACSEmployment", rng=2)
    task = acs_task("ACSEmployment")
    known = dict(zip(task.describe(data), truth.risk, strict=True))

    def simulated(prompt):
        p = known[prompt[prompt.index("- age") : prompt.index("\n\nQuestion")]]
        return {"A": p, "B": 1 - p} if "A. Yes" in prompt else {"A": 1 - p, "B": p}

    found = RiskScorer(task, FunctionModel(simulated)).score(data).to_frame()
    np.testing.assert_allclose(found.probability, truth.risk, rtol=1e-12)
