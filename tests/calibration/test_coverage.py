"""Coverage of every interval on simulated data with known truth.

`simulation.py` wrote the summary of 1,000 samples per setting (standard error 0.7 points) that
is checked here; the slow test simulates anew.
"""

from __future__ import annotations

import warnings

import pandas as pd
import pytest

from causalrm.calibration import estimation as est
from tests.calibration import simulation

# Settings that are known to miss (see the guide): a jump that 200 rows cannot show, and few
# large clusters.
HARD = (("jump", 200), ("few clusters", 2000))


@pytest.fixture(scope="module")
def summary():
    found = pd.read_csv(simulation.SUMMARY)
    hard = [(t, n) in HARD or (d, n) in HARD for t, d, n in zip(*map(found.get, KEY), strict=True)]
    return found.assign(hard=hard)


KEY = ("truth", "design", "n")


def test_the_stored_summary_is_complete(summary):
    settings = summary.groupby(list(KEY)).size()
    assert len(settings) == len(simulation.TRUTHS) * len(simulation.DESIGNS) * 2
    assert (settings == 21).all()
    assert (summary["sets"] >= 990).all()


def test_intervals_cover_in_the_stored_summary(summary):
    parts = {hard: simulation.by_measure(part) for hard, part in summary.groupby("hard")}
    easy, hard = (parts[x].set_index("term") for x in (False, True))
    assert easy.loc["all", "within"] >= 0.9
    assert easy.loc["all", "within_2_errors"] >= 0.95
    assert easy["worst"].min() >= 0.9
    assert hard["worst"].min() >= 0.8
    assert summary["coverage"].mean() == pytest.approx(0.95, abs=0.01)


def test_smooth_measures_cover_now():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for design in simulation.DESIGNS:
            found = simulation.coverage(
                400, "overconfident", design, 120, 0, 0, est.SMOOTH, size=100_000
            )
            assert found["coverage"].between(0.87, 1.0).all(), found


@pytest.mark.slow
@pytest.mark.parametrize("design", simulation.DESIGNS)
@pytest.mark.parametrize("truth", simulation.TRUTHS)
def test_all_measures_cover(truth, design):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = simulation.coverage(1000, truth, design, 150, seed=1)
    assert (found["coverage"] >= 0.82).all(), found
