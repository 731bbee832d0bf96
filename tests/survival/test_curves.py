"""Product-limit curves against lifelines and R."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import lifelines
import numpy as np
import pytest

from causalrm.datasets import load_gbsg2, make_survival
from causalrm.survival.curves import kaplan_meier, nelson_aalen

REFERENCE = Path(__file__).parents[1] / "reference" / "survival" / "diagnostics.json"


def rows(kind: str) -> dict[str, np.ndarray]:
    """Times with many ties, and those with delayed entry or weights."""
    rng = np.random.default_rng(7)
    data = make_survival(300, censoring=0.4, entry=1.0 if "entry" in kind else 0.0, rng=1).data
    time = np.ceil(data["time"].to_numpy() * 8) / 8
    out = {"time": time, "event": data["event"].to_numpy()}
    if "entry" in kind:
        out["entry"] = np.minimum(np.floor(data["entry"].to_numpy() * 8) / 8, time - 0.125)
    if "weights" in kind:
        out["weights"] = rng.uniform(0.2, 3.0, 300)
    return out


def of_lifelines(fitter: Any, data: dict[str, np.ndarray]) -> Any:
    with warnings.catch_warnings():  # of weights that are no integers
        warnings.simplefilter("ignore")
        return fitter.fit(
            data["time"], data["event"], entry=data.get("entry"), weights=data.get("weights")
        )


KINDS = ["plain", "entry", "weights", "entry and weights"]


@pytest.mark.parametrize("kind", KINDS)
def test_kaplan_meier_is_that_of_lifelines(kind: str) -> None:
    data = rows(kind)
    ours = kaplan_meier(**data)
    theirs = of_lifelines(lifelines.KaplanMeierFitter(), data)
    expected = theirs.survival_function_at_times(ours.time).to_numpy()
    np.testing.assert_allclose(ours.value, expected, rtol=1e-10)
    # no other times change it
    every = theirs.survival_function_.index.to_numpy()
    np.testing.assert_allclose(
        ours.at(every), theirs.survival_function_at_times(every).to_numpy(), rtol=1e-10
    )


def test_interval_is_that_of_lifelines() -> None:
    data = rows("plain")
    ours = kaplan_meier(**data)
    theirs = of_lifelines(lifelines.KaplanMeierFitter(), data)
    low, high = ours.interval()
    expected = theirs.confidence_interval_survival_function_.loc[ours.time].to_numpy()
    inside = (ours.value > 0) & (ours.value < 1)
    np.testing.assert_allclose(low[inside], expected[inside, 0], rtol=1e-8)
    np.testing.assert_allclose(high[inside], expected[inside, 1], rtol=1e-8)
    wide = ours.interval(0.99)
    assert (wide[0] <= low).all() and (wide[1] >= high).all()


@pytest.mark.parametrize("kind", KINDS)
def test_nelson_aalen_is_that_of_lifelines(kind: str) -> None:
    data = rows(kind)
    ours = nelson_aalen(**data)
    theirs = of_lifelines(lifelines.NelsonAalenFitter(nelson_aalen_smoothing=False), data)
    expected = theirs.cumulative_hazard_at_times(ours.time).to_numpy()
    np.testing.assert_allclose(ours.value, expected, rtol=1e-8)
    if kind == "plain":  # Aalen's variance
        deaths = np.array([data["event"][data["time"] == t].sum() for t in ours.time])
        np.testing.assert_allclose(ours.variance, np.cumsum(deaths / ours.at_risk**2), rtol=1e-8)


def test_values_of_r() -> None:
    """R's survfit with delayed entry and weights; Greenwood's standard error."""
    r = json.loads(REFERENCE.read_text(encoding="utf-8"))["kaplan_meier"]
    even = load_gbsg2()[::2]
    time, event = even["time"].to_numpy(float), even["event"].to_numpy()
    entry = np.minimum(10.0 * (even["age"].to_numpy() % 20), time - 1)
    weights = 1.0 + even["nodes"].to_numpy() % 3
    late = kaplan_meier(time, event, entry)
    np.testing.assert_allclose(late.at(r["times"]), r["entry"], rtol=1e-10)
    place = np.searchsorted(late.time, r["times"], side="right") - 1
    greenwood = late.value[place] * np.sqrt(late.variance[place])
    np.testing.assert_allclose(greenwood, r["entry_se"], rtol=1e-10)
    both = kaplan_meier(time, event, entry, weights)
    np.testing.assert_allclose(both.at(r["times"]), r["both"], rtol=1e-10)
    weighted = kaplan_meier(time, event, None, weights)
    np.testing.assert_allclose(weighted.at(r["times"]), r["weighted"], rtol=1e-10)
    aalen = nelson_aalen(time, event, entry, weights)
    place = np.searchsorted(aalen.time, r["times"], side="right") - 1
    np.testing.assert_allclose(aalen.value[place], r["nelson_aalen"], rtol=1e-10)


def test_by_hand() -> None:
    """An event comes before a censoring at the same time; the curve may end at zero."""
    curve = kaplan_meier(np.array([1.0, 2.0, 2.0, 3.0]), np.array([1, 1, 0, 1]))
    np.testing.assert_array_equal(curve.time, [1.0, 2.0, 3.0])
    np.testing.assert_allclose(curve.value, [0.75, 0.5, 0.0])
    np.testing.assert_array_equal(curve.at_risk, [4.0, 3.0, 1.0])
    np.testing.assert_allclose(curve.at(np.array([0.5, 2.0, 9.0])), [1.0, 0.5, 0.0])
    np.testing.assert_allclose(curve.at(np.array([1.0, 2.0]), left=True), [1.0, 0.75])
    low, high = curve.interval()
    assert np.isfinite(low).all() and np.isfinite(high).all()
    assert low[-1] == high[-1] == 0.0


def test_weights_are_copies_of_rows() -> None:
    data = rows("entry")
    copies = np.arange(300) % 3
    repeated = {name: np.repeat(x, copies) for name, x in data.items()}
    weighted, expanded = kaplan_meier(**data, weights=copies), kaplan_meier(**repeated)
    np.testing.assert_allclose(weighted.at(expanded.time), expanded.value, rtol=1e-12)


def test_without_events() -> None:
    curve = kaplan_meier(np.array([1.0, 2.0]), np.array([0, 0]))
    assert curve.time.size == 0
    np.testing.assert_array_equal(curve.at(np.array([0.5, 5.0])), [1.0, 1.0])
    assert nelson_aalen(np.array([1.0, 2.0]), np.array([0, 0])).time.size == 0


def test_thinned_curve_keeps_its_ends() -> None:
    rng = np.random.default_rng(3)
    curve = kaplan_meier(rng.exponential(size=5000), np.ones(5000))
    thin = curve.thin(100)
    assert len(thin.time) <= 100
    assert thin.time[0] == curve.time[0] and thin.time[-1] == curve.time[-1]
    np.testing.assert_array_equal(thin.value, curve.at(thin.time))
    assert curve.thin(10_000) is curve
