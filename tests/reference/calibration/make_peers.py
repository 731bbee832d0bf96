"""Write peers.json: what other packages say about fixed simulated scores.

Needs model-diagnostics, dcurves and relplot besides the test environment:
python tests/reference/calibration/make_peers.py
"""

from __future__ import annotations

import json
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

warnings.simplefilter("ignore")

import relplot  # noqa: E402
from dcurves import dca  # noqa: E402
from model_diagnostics.scoring import LogLoss, SquaredError, decompose  # noqa: E402

rng = np.random.default_rng(20240714)
n = 400
p = np.round(rng.beta(1, 1.6, n), 2).clip(0.01, 0.99)
y = (rng.uniform(size=n) < 0.1 + 0.7 * p).astype(int)
w = rng.integers(1, 4, n)

content = {
    "versions": {name: version(name) for name in ("model-diagnostics", "dcurves", "relplot")},
    "y": y.tolist(),
    "p": p.tolist(),
    "w": w.tolist(),
}
for name, score in (("brier", SquaredError()), ("log", LogLoss())):
    for suffix, weights in (("", None), ("_weighted", w.astype(float))):
        row = decompose(y_obs=y, y_pred=p, weights=weights, scoring_function=score).row(
            0, named=True
        )
        content[f"corp_{name}{suffix}"] = {
            "mcb": row["miscalibration"],
            "dsc": row["discrimination"],
            "unc": row["uncertainty"],
            "score": row["score"],
        }
thresholds = np.array([0.1, 0.2, 0.33, 0.5, 0.71])
frame = dca(
    data=pd.DataFrame({"y": y, "p": p}), outcome="y", modelnames=["p"], thresholds=thresholds
)
content["thresholds"] = thresholds.tolist()
for model, key in (("p", "net_benefit"), ("all", "treat_all")):
    part = frame[frame["model"] == model].sort_values("threshold")
    content[key] = part["net_benefit"].tolist()
# relplot rounds scores to a grid of its own: it agrees to about one per cent.
content["smooth_ece"] = float(relplot.smECE(p, y))
Path(__file__).with_name("peers.json").write_text(json.dumps(content) + "\n")
