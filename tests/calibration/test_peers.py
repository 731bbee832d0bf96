"""Values of model-diagnostics, dcurves and relplot (see tests/reference/calibration)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import causalrm.calibration as cal

PEERS = json.loads(
    (Path(__file__).parents[1] / "reference" / "calibration" / "peers.json").read_text()
)
Y, P, W = (np.array(PEERS[name]) for name in "ypw")


@pytest.mark.parametrize("score", ["brier", "log"])
@pytest.mark.parametrize("weighted", [False, True])
def test_corp_is_that_of_model_diagnostics(score, weighted):
    options = {"weights": W} if weighted else {}
    parts = cal.corp(Y, P, score=score, n_boot=0, **options)
    expected = PEERS[f"corp_{score}{'_weighted' if weighted else ''}"]
    assert set(expected) == {"score", "mcb", "dsc", "unc"}
    for name, value in expected.items():
        assert float(getattr(parts, name)) == pytest.approx(value, rel=1e-9)


def test_net_benefit_is_that_of_dcurves():
    frame = cal.decision_curve(Y, P, PEERS["thresholds"])
    assert_allclose(frame["estimate"], PEERS["net_benefit"], atol=1e-12)
    assert_allclose(frame["treat_all"], PEERS["treat_all"], atol=1e-12)


def test_smooth_ece_is_near_relplots():
    assert float(cal.smooth_ece(Y, P, n_boot=0)) == pytest.approx(PEERS["smooth_ece"], rel=0.015)
