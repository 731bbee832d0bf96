"""Coverage of the 95 % intervals of `PromptShapley`.

`simulation.py` wrote the summary that is checked here; the slow test simulates anew.
"""

from __future__ import annotations

import pandas as pd
import pytest

from tests.attribution import simulation


def test_intervals_cover_in_the_stored_summary():
    summary = pd.read_csv(simulation.SUMMARY).set_index("setting")
    assert set(summary.index) <= set(simulation.SETTINGS) and len(summary) >= 6
    assert (summary["coverage"] > 0.93 - 3 * summary["mc_error"]).all()
    assert (summary["coverage"] < 0.97 + 3 * summary["mc_error"]).mean() > 0.7


@pytest.mark.parametrize("name", ["bernoulli, all coalitions", "multinomial, all coalitions"])
def test_intervals_cover_now(name):
    found = simulation.coverage(name, 40, seed=7)
    assert 0.89 < found["coverage"] <= 1.0 and 0.85 < found["rms_z"] < 1.15


@pytest.mark.slow
@pytest.mark.parametrize("name", simulation.SETTINGS)
def test_all_settings_cover(name):
    found = simulation.coverage(name, 60 if name in simulation.SLOW else 300, seed=3)
    assert found["coverage"] > 0.93 - 3 * found["mc_error"], found
