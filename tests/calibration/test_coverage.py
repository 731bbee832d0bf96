"""Coverage of every interval on simulated data with known truth.

`simulation.py` wrote the summary of 300 samples per setting (standard error 1.3 points) that is
checked here; the slow test simulates anew.
"""

from __future__ import annotations

import warnings

import pandas as pd
import pytest

from causalrm.calibration import estimation as est
from tests.calibration import simulation

# Measures whose intervals are known to miss more often than one in twenty (see the guide):
# extremes of a curve, and the range of a curve that turns.
HARD = {"ecce", "e50", "e90", "emax"}
"""The limits leave room for three standard errors of a share from 300 samples."""


@pytest.fixture(scope="module")
def summary():
    return pd.read_csv(simulation.SUMMARY)


def test_the_stored_summary_is_complete(summary):
    settings = summary.groupby(["truth", "design", "n"]).size()
    assert len(settings) == len(simulation.TRUTHS) * len(simulation.DESIGNS) * 2
    assert (settings == 21).all()


def test_intervals_cover_in_the_stored_summary(summary):
    easy = summary[~summary["term"].isin(HARD)]
    independent = easy[easy["design"] == "independent"]
    assert independent["coverage"].between(0.905, 0.995).all()
    assert independent["coverage"].mean() == pytest.approx(0.945, abs=0.01)
    large = easy[easy["n"] == 2000]
    assert large["coverage"].between(0.905, 0.995).all()
    assert summary["coverage"].min() > 0.80
    assert summary["coverage"].mean() == pytest.approx(0.942, abs=0.015)


def test_smooth_measures_cover_now():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for design in simulation.DESIGNS:
            found = simulation.coverage(
                300, "overconfident", design, 120, 0, 0, est.SMOOTH, size=100_000
            )
            assert found["coverage"].between(0.87, 1.0).all(), found


@pytest.mark.slow
@pytest.mark.parametrize("design", simulation.DESIGNS)
@pytest.mark.parametrize("truth", simulation.TRUTHS)
def test_all_measures_cover(truth, design):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = simulation.coverage(1000, truth, design, 150, seed=1)
    limit = found["term"].map(lambda t: 0.82 if t in HARD else 0.87)
    assert (found["coverage"] >= limit).all(), found
