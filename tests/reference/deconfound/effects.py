"""Effects by DoubleML, from linear nuisances on the folds of `average_effect(..., rng=0)`.

    pip install doubleml causalrm
    python tests/reference/deconfound/effects.py

writes effects_data.csv (simulated) and effects.json beside this file.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import doubleml as dml
import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression, LogisticRegression

from causalrm.core.random import seed_int, spawn
from causalrm.deconfound.folds import Folds

HERE = Path(__file__).parent
COVARIATES = ["x1", "x2", "x3"]


def data() -> pd.DataFrame:
    rng = np.random.default_rng(2018)
    n = 400
    x = rng.normal(size=(n, 3))
    d = (x[:, 0] - 0.5 * x[:, 1] + rng.logistic(size=n) > 0).astype(float)
    y = d * (1 + 0.5 * x[:, 0]) + x @ [1.0, 0.5, -0.5] + rng.normal(size=n)
    return pd.DataFrame(x, columns=COVARIATES).assign(y=y, d=d).round(6)


def main() -> None:
    df = data()
    df.to_csv(HERE / "effects_data.csv", index=False)
    fold = Folds(5, seed_int(spawn(0, 1)[0])).codes({"d": df["d"].to_numpy()}, 0)
    splits = [(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in range(5)]
    linear = LinearRegression()
    logistic = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12, max_iter=500)
    found: dict[str, object] = {"versions": {p: version(p) for p in ("doubleml", "scikit-learn")}}
    for name in ("plr", "ate", "att"):
        source = dml.DoubleMLData(df, "y", "d", COVARIATES)
        if name == "plr":
            model = dml.DoubleMLPLR(source, linear, linear, n_folds=5)
        else:
            score = "ATE" if name == "ate" else "ATTE"
            model = dml.DoubleMLIRM(source, linear, logistic, n_folds=5, score=score)
        model.set_sample_splitting([splits])
        model.fit()
        model.sensitivity_analysis(cf_y=0.04, cf_d=0.03)
        s = model.sensitivity_params
        found[name] = {
            "estimate": float(model.coef[0]),
            "std_error": float(model.se[0]),
            "rv": float(s["rv"][0]),
            "rva": float(s["rva"][0]),
            "low": float(s["theta"]["lower"][0]),
            "high": float(s["theta"]["upper"][0]),
            "conf_low": float(s["ci"]["lower"][0]),
            "conf_high": float(s["ci"]["upper"][0]),
        }
        if name != "att":
            gains = model.sensitivity_benchmark(benchmarking_set=["x2"])
            found[name]["benchmark"] = {c: float(gains[c].iloc[0]) for c in ("cf_y", "cf_d")}
    (HERE / "effects.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
