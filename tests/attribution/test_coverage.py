"""Coverage of the 95 % intervals of `PromptShapley`.

`simulation.py` wrote the summary that is checked here; the slow test simulates anew.
"""

from __future__ import annotations

import pandas as pd
import pytest

from tests.attribution import simulation

CASES = [(name, m) for name, (_, _, methods, _) in simulation.SETTINGS.items() for m in methods]


def test_intervals_cover_in_the_stored_summary():
    summary = pd.read_csv(simulation.SUMMARY).set_index(["setting", "method"])
    assert set(summary.index) == set(CASES)
    assert set(summary.index[summary["coverage"] < 0.93]) == simulation.TOO_LOW
    assert set(summary.index[summary["coverage"] > 0.97]) == simulation.TOO_HIGH


@pytest.mark.parametrize("name", ["bernoulli, all coalitions", "multinomial, all coalitions"])
def test_intervals_cover_now(name):
    found = simulation.coverage(name, 40, seed=7)[0]
    assert 0.89 < found["coverage"] <= 1.0 and 0.85 < found["rms_z"] < 1.15


@pytest.mark.slow
@pytest.mark.parametrize(("name", "method"), CASES)
def test_all_settings_cover(name, method):
    found = simulation.coverage(name, 60, 3, method)[0]
    missed = (name, method) in simulation.TOO_LOW
    assert missed or found["coverage"] > 0.93 - 3 * found["mc_error"], found
