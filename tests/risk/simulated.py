"""Small simulated data for the tests of risk, with the outcomes of all."""

from __future__ import annotations

import numpy as np
import pandas as pd

ROLES = {"tested": "tested", "outcome": "sick"}


def selective(n: int = 600, seed: int = 0) -> pd.DataFrame:
    """Columns x, z, g, tested, sick (missing where not tested), truth; sigma is 2."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"x": rng.normal(50, 10, n), "z": rng.normal(size=n)})
    frame["g"] = rng.choice(["a", "b", "c"], n)
    risk = -2 + 0.08 * (frame["x"] - 50) + 0.5 * frame["z"] + rng.uniform(0, 2, n)
    frame["truth"] = (rng.random(n) < 1 / (1 + np.exp(-risk))).astype(float)
    test = risk + 1 - 0.03 * (frame["x"] - 50) + 0.8 * (frame["g"] == "c")
    frame["tested"] = (rng.random(n) < 1 / (1 + np.exp(-test))).astype(int)
    frame["sick"] = frame["truth"].where(frame["tested"] == 1)
    return frame
