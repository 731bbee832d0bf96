"""Plots: each returns its Axes, drawn and labelled, from the result alone."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

import causalrm as crm
from tests.risk.simulated import ROLES, selective


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return selective(500, 2)


@pytest.fixture(scope="module")
def fit(frame: pd.DataFrame) -> Any:
    known = [crm.Prevalence(0.32, se=0.03), crm.Expertise(free=["x"])]
    model = crm.SelectiveLabelsModel("x + z", constraints=known, draws=256)
    return model.fit(frame, **ROLES, group="g")


@pytest.fixture(scope="module")
def bare(frame: pd.DataFrame) -> Any:
    return crm.SelectiveLabelsModel("x + z", draws=256).fit(frame, **ROLES)


def drawn(ax: Axes) -> Axes:
    assert isinstance(ax, Axes)
    ax.figure.canvas.draw()
    return ax


def legend(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize("kind", ["forest", "prevalence", "testing", "check", "fan", "ridge"])
def test_every_plot_after_json(fit: Any, kind: str) -> None:
    result = crm.Result.from_json(fit.result_.to_json())
    ax = drawn(getattr(result.plot, kind)())
    assert ax.get_xlabel()
    own = plt.figure().add_subplot()
    assert getattr(fit.plot, kind)(ax=own) is own


def test_forest_with_and_without_constraints(fit: Any, bare: Any) -> None:
    ax = drawn(fit.plot.forest({"none": bare, "again": bare.result_}, name="both"))
    assert legend(ax) == ["both", "none", "again"]
    labels = [t.get_text() for t in ax.get_yticklabels()]
    assert labels == [
        "Risk",
        "Intercept",
        "x",
        "z",
        "Testing beyond risk",
        "Intercept",
        "x",
        "sigma",
    ]
    points = [line.get_xdata()[0] for line in ax.get_lines() if line.get_marker() == "o"]
    for estimate in fit.to_frame()["estimate"]:
        assert np.isclose(points, estimate).any()
    alone = drawn(fit.plot())
    assert alone.get_title() and alone.get_legend() is None


def test_prevalence_with_one_target_with_none_and_by_group(
    fit: Any, bare: Any, frame: pd.DataFrame
) -> None:
    assert legend(drawn(fit.plot.prevalence())) == [
        "implied",
        "target",
        "positive among the tested",
    ]
    assert legend(drawn(bare.plot.prevalence())) == ["implied", "positive among the tested"]
    known = crm.Prevalence({"a": 0.3, "b": 0.35}, se=0.05, by="g")
    by = crm.SelectiveLabelsModel("x", constraints=[known], draws=256).fit(frame, **ROLES)
    ax = drawn(by.plot.prevalence())
    assert [t.get_text() for t in ax.get_yticklabels()] == ["all rows", "g = a", "g = b"]
    hard = crm.Prevalence(0.32, hard=True)
    solved = crm.SelectiveLabelsModel("x", constraints=[hard], draws=256).fit(frame, **ROLES)
    drawn(solved.plot.prevalence())


def test_groups_fan_and_checks(fit: Any, bare: Any, frame: pd.DataFrame) -> None:
    assert legend(drawn(fit.plot.testing())) == ["a", "b", "c"]
    assert bare.plot.testing().get_legend() is None
    ax = drawn(fit.plot.fan("testing"))
    assert ax.get_ylabel() == "Coefficient of testing" and len(ax.figure.axes) == 2
    assert len(fit.plot.ridge().figure.axes) == 3
    with pytest.raises(crm.DataError, match="needs a prevalence"):
        bare.plot.fan()
    own = fit.predictive_check(frame, kind="prior", bins=5)
    assert legend(drawn(fit.plot.check(frame=own))) == ["tested", "positive among the tested"]
    some = fit.sensitivity([0.3, 0.34])
    assert [t.get_text() for t in fit.plot.fan(frame=some).get_xticklabels()] == ["0.3", "0.34"]
