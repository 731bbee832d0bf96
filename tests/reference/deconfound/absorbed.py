"""Reference values of regressions with absorbed fixed effects, from pyfixest 0.60.

    python tests/reference/deconfound/absorbed.py

writes absorbed_data.csv (simulated) and absorbed.json beside this file. pyfixest 0.60 keeps the
level counts of fixed effects in the order of a set, but says which are nested in the clusters in
the order of the formula, so that clustered standard errors depend on Python's hash seed. The script
starts itself again with other seeds until the two orders agree.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyfixest as pf
from pyfixest.demeaners import MapDemeaner

HERE = Path(__file__).resolve().parent


def data() -> pd.DataFrame:
    rng = np.random.default_rng(12)
    n = 400
    worker = rng.integers(0, 60, n)
    firm = (worker // 6 + rng.integers(0, 3, n)) % 12
    year = rng.integers(2001, 2006, n)
    region = worker % 35  # workers are nested in regions
    x1 = rng.normal(size=n) + worker / 20
    x2 = rng.exponential(size=n) * (1 + (firm % 3))
    error = rng.normal(size=n) * (0.5 + 0.5 * x2) + rng.normal(size=35)[region] * x1 / 2
    y = 1.5 * x1 - 0.7 * x2 + rng.normal(size=60)[worker] + firm / 3 + 0.2 * year + error
    weight = rng.integers(1, 5, n).astype(float)
    # Singletons: two workers who worked once, one of them in a firm that nobody else leaves to.
    worker[:2], firm[:2] = [900, 901], [50, 1]
    frame = {"y": y, "x1": x1, "x2": x2, "worker": worker, "firm": firm, "year": year}
    return pd.DataFrame(frame | {"region": region, "w": weight}).round(6)


def main() -> None:
    df = data()
    df.to_csv(HERE / "absorbed_data.csv", index=False)
    out = {}
    exact = MapDemeaner(fixef_tol=1e-12, fixef_maxiter=100_000)
    # pyfixest says for every fit how many singletons it drops.
    for absorb in ("worker", "worker+firm", "worker+firm+year"):
        for weights in (None, "w"):
            for kind in ("iid", "hetero", "region", "year"):
                vcov = kind if kind in ("iid", "hetero") else {"CRV1": kind}
                fit = pf.feols(
                    f"y ~ x1 + x2 | {absorb}", df, vcov=vcov, weights=weights, demeaner=exact,
                    fixef_rm="singleton",
                )  # fmt: skip
                counted = [name.split("(")[1].rstrip(")") for name in fit._k_fe.index]
                if counted != absorb.split("+"):
                    seed = int(os.environ.get("PYTHONHASHSEED", "0")) + 1
                    environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
                    os.execve(sys.executable, [sys.executable, __file__], environment)
                out[f"{absorb}|{weights or ''}|{kind}"] = {
                    "n": int(fit._N),
                    "coef": fit.coef().tolist(),
                    "se": fit.se().tolist(),
                    "p": fit.pvalue().tolist(),
                    "confint": fit.confint().to_numpy().tolist(),
                }
    text = json.dumps({"pyfixest": pf.__version__, "fits": out}, indent=1)
    (HERE / "absorbed.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
