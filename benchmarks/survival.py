"""Survival regression against lifelines and R's survreg: same rows, one run, two threads each.

Every fit runs in a process of its own, which makes the rows from a seed, fits once to warm up on
few rows (compiled kernels, imports), then fits `repeats` times; the least wall time counts. Peak
memory is that of the first full fit above what the process held before it, the data included.

    python benchmarks/survival.py             # all sizes; half an hour
    python benchmarks/survival.py --quick     # up to 1e5 rows

Writes benchmarks/results/survival.csv and prints the tables.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

THREADS = "2"
HERE = Path(__file__).resolve().parent
COVARIATES = [f"x{i}" for i in range(10)]
FORMULA = " + ".join(COVARIATES)

# name -> (tool, sizes); the multi-parameter fit has 11 + 11 + 1 = 23 parameters
FITS = {
    "causalrm APGW, phi + gamma": ("ours", [1_000, 10_000, 100_000, 1_000_000, 10_000_000]),
    "causalrm Weibull": ("ours", [1_000, 10_000, 100_000, 1_000_000, 10_000_000]),
    "lifelines WeibullAFT": ("lifelines", [1_000, 10_000, 100_000, 1_000_000]),
    "lifelines WeibullAFT, ancillary": ("lifelines", [1_000, 10_000, 100_000, 1_000_000]),
    "lifelines GeneralizedGamma": ("lifelines", [1_000, 10_000]),
    "R survreg Weibull": ("r", [1_000, 10_000, 100_000, 1_000_000]),
}


def make(n: int, seed: int = 1):
    """Simulated rows: ten normal covariates, Weibull times, about 70 % events."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(seed)
    columns = {name: rng.normal(size=n) for name in COVARIATES}
    beta = np.linspace(-0.3, 0.3, len(COVARIATES))
    eta = sum(b * columns[name] for b, name in zip(beta, COVARIATES, strict=True))
    shape = np.exp(0.2 + 0.1 * columns["x0"])
    time = rng.exponential(size=n) ** (1 / shape) * np.exp(-eta)
    censor = rng.exponential(2.0, size=n) + 0.05
    columns["time"] = np.minimum(time, censor)
    columns["event"] = (time <= censor).astype(float)
    return pd.DataFrame(columns)


def fitter(name: str):
    """Return a function that fits one model to a frame and returns its log-likelihood."""
    if name.startswith("causalrm"):
        import causalrm as crm

        options = (
            {"phi": FORMULA, "gamma": FORMULA}
            if "APGW" in name
            else {"phi": FORMULA, "kappa": "weibull"}
        )

        def fit(df):
            model = crm.SurvivalRegression(**options).fit(df, time="time", event="event")
            return model.result_.loglik

        return fit
    import lifelines

    def fit(df):
        if name.endswith("GeneralizedGamma"):
            model = lifelines.GeneralizedGammaRegressionFitter(penalizer=0.0)
            regressors = {p: FORMULA if p == "mu_" else "1" for p in ("mu_", "sigma_", "lambda_")}
            model.fit(df, "time", event_col="event", regressors=regressors)
        else:
            model = lifelines.WeibullAFTFitter()
            model.fit(df, "time", event_col="event", ancillary=name.endswith("ancillary"))
        return model.log_likelihood_

    return fit


def memory(field: str) -> int:
    """Resident (VmRSS) or peak (VmHWM) memory of this process in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    return 0


def child(name: str, n: int, repeats: int) -> dict:
    """Fit in this process; see the top of the file."""
    import gc
    import time
    import warnings

    warnings.simplefilter("ignore")
    start = time.perf_counter()
    fit = fitter(name)
    df = make(n)
    small = make(1_000, 2)
    loaded = time.perf_counter()
    fit(small)
    first = time.perf_counter() - loaded
    gc.collect()
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak restarts from here
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        loglik = fit(df)
        times.append(time.perf_counter() - begin)
        if len(times) == 1:
            peak = memory("VmHWM") - before
        if sum(times) > 20:
            break
    return {
        "fit": name, "n": n, "seconds": min(times), "peak_mb": peak / 2**20,
        "data_mb": df.memory_usage(index=False).sum() / 2**20,
        "loglik": float(loglik), "first_call": first + loaded - start if n <= 1_000 else None,
    }  # fmt: skip


def gram(n: int) -> dict:
    """Time of one X'WX pass over n x 23 doubles in blocks, BLAS, two threads."""
    import time
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np
    from threadpoolctl import threadpool_limits

    x = np.random.default_rng(0).normal(size=(n, 23))
    w = np.random.default_rng(1).random(n)

    def part(span):
        out = np.zeros((23, 23))
        for a in range(*span, 4096):
            block = x[a : min(a + 4096, span[1])]
            out += (block * w[a : min(a + 4096, span[1]), None]).T @ block
        return out

    spans = [(0, n // 2), (n // 2, n)]
    times = []
    with threadpool_limits(1), ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            begin = time.perf_counter()
            sum(pool.map(part, spans))
            times.append(time.perf_counter() - begin)
    return {"fit": "one X'WX pass, 23 columns", "n": n, "seconds": min(times)}


R_SCRIPT = """
suppressMessages(library(survival))
args <- commandArgs(TRUE); n <- as.integer(args[2])
m <- matrix(readBin(args[1], "double", n * 12), n, 12)
d <- as.data.frame(m); names(d) <- c(paste0("x", 0:9), "time", "event")
f <- Surv(time, event) ~ x0 + x1 + x2 + x3 + x4 + x5 + x6 + x7 + x8 + x9
invisible(survreg(f, d[1:1000, ], dist = "weibull"))
best <- Inf
for (i in seq_len(as.integer(args[3]))) {
  s <- system.time(fit <- survreg(f, d, dist = "weibull"))[["elapsed"]]
  best <- min(best, s)
}
cat(sprintf('{"seconds": %.6f, "loglik": %.8f, "version": "%s"}\\n',
            best, fit$loglik[2], packageVersion("survival")))
"""


def run_r(n: int, repeats: int) -> dict:
    """Fit survreg on the same rows."""
    import numpy as np

    df = make(n)
    with tempfile.TemporaryDirectory() as folder:
        rows, script = Path(folder, "rows.bin"), Path(folder, "fit.R")
        np.asfortranarray(df[[*COVARIATES, "time", "event"]].to_numpy()).T.tofile(rows)
        script.write_text(R_SCRIPT)
        command = ["Rscript", str(script), str(rows), str(n), str(repeats)]
        out = subprocess.run(command, capture_output=True, text=True, check=True, env=limits())
    return {"fit": "R survreg Weibull", "n": n, **json.loads(out.stdout)}


def limits() -> dict:
    """Environment with two threads for everybody."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    return {**os.environ, **dict.fromkeys([*names, "CAUSALRM_NUM_THREADS"], THREADS)}


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="up to 1e5 rows")
    parser.add_argument("--only", help="fits whose name contains this")
    parser.add_argument("--child", nargs=3, metavar=("FIT", "N", "REPEATS"))
    args = parser.parse_args()
    if args.child:
        name, n, repeats = args.child[0], int(args.child[1]), int(args.child[2])
        print(json.dumps(gram(n) if name == "gram" else child(name, n, repeats)))
        return
    import pandas as pd

    rows = []
    for n in (1_000, 10_000, 100_000, 1_000_000, 10_000_000):
        if args.quick and n > 100_000:
            break
        repeats = 7 if n <= 10_000 else 5 if n <= 100_000 else 3 if n <= 1_000_000 else 1
        todo = [(name, tool) for name, (tool, sizes) in FITS.items() if n in sizes]
        if n == 1_000_000:
            todo.append(("gram", "ours"))
        for name, tool in todo:
            if args.only and args.only not in name and name != "gram":
                continue
            if tool == "r":
                if not shutil.which("Rscript"):
                    continue
                rows.append(run_r(n, repeats))
            else:
                command = [sys.executable, __file__, "--child", name, str(n), str(repeats)]
                out = subprocess.run(command, capture_output=True, text=True, env=limits())
                if out.returncode:
                    why = (out.stderr.splitlines() or ["no message"])[-1]
                    print(f"{name:34s} {n:>10,} failed: {why}", flush=True)
                    continue
                rows.append(json.loads(out.stdout.splitlines()[-1]))
            last = rows[-1]
            print(f"{last['fit']:34s} {n:>10,} {last['seconds']:10.4f} s", flush=True)
    report(pd.DataFrame(rows), args.quick or bool(args.only))


def report(table, partial: bool) -> None:
    """Print times, ratios and targets, and store them."""
    import numpy as np

    time = table.pivot(index="fit", columns="n", values="seconds")
    peak = table.pivot(index="fit", columns="n", values="peak_mb")
    print("\nseconds\n" + time.to_string(float_format="{:.4f}".format, na_rep=""))
    shown = peak.to_string(float_format="{:.0f}".format, na_rep="")
    print(f"\npeak memory above the data, MB\n{shown}")
    lines = []

    def ratio(ours: str, peer: str, n: int, target: float) -> None:
        if n in time and peer in time.index and ours in time.index:
            value = time.loc[peer, n] / time.loc[ours, n]
            if np.isfinite(value):
                met = "met" if value >= target else "MISSED"
                text = f"{value:.1f}x (target {target:g}x, {met})"
                lines.append(f"{ours} v {peer}, n = {n:,}: {text}")

    apgw, weibull = "causalrm APGW, phi + gamma", "causalrm Weibull"
    aft, gamma, r = "lifelines WeibullAFT", "lifelines GeneralizedGamma", "R survreg Weibull"
    ratio(apgw, aft, 1_000_000, 20)
    ratio(apgw, aft, 100_000, 10)
    ratio(apgw, "lifelines WeibullAFT, ancillary", 1_000_000, 20)
    ratio(apgw, gamma, 10_000, 100)
    ratio(weibull, aft, 1_000_000, 15)
    ratio(weibull, aft, 1_000, 1)
    for n in (1_000, 10_000, 100_000, 1_000_000):
        ratio(weibull, r, n, 1)
    if 1_000_000 in peak and aft in peak.index and np.isfinite(peak.loc[aft, 1_000_000]):
        share = peak.loc[apgw, 1_000_000] / peak.loc[aft, 1_000_000]
        lines.append(
            f"peak memory above data at 1e6, APGW / lifelines: {share:.2f} "
            f"(target 1/3, {'met' if share <= 1 / 3 else 'MISSED'})"
        )
    floor = "one X'WX pass, 23 columns"
    if floor in time.index:
        passes = time.loc[apgw, 1_000_000] / time.loc[floor, 1_000_000]
        verdict = "met" if passes <= 15 else "MISSED"
        lines.append(
            f"APGW at 1e6 as a multiple of one X'WX pass: {passes:.1f} (target 15, {verdict})"
        )
    if 10_000_000 in time:
        seconds = time.loc[apgw, 10_000_000]
        verdict = "met" if seconds <= 20 else "MISSED"
        lines.append(f"APGW at 1e7: {seconds:.1f} s (target 20 s, {verdict})")
    for name in (apgw, weibull):
        row = time.loc[name].dropna() if name in time.index else []
        row = row[row.index >= 100_000] if len(row) else row
        if len(row) > 1:
            slope = np.polyfit(np.log(row.index.to_numpy(float)), np.log(row.to_numpy()), 1)[0]
            lines.append(f"{name}: time grows as n^{slope:.2f} from 1e5 rows on")
    first = table.get("first_call")
    if first is not None and first.notna().any():
        ours = table.loc[table["fit"].eq(apgw) & first.notna(), "first_call"]
        if len(ours):
            text = f"{ours.iloc[0]:.2f} s (target 3, {'met' if ours.iloc[0] <= 3 else 'MISSED'})"
            lines.append(f"import and first call on 1,000 rows, kernels cached: {text}")
    weib = table[table["fit"].isin([weibull, aft, r])]
    weib = weib.pivot(index="n", columns="fit", values="loglik")
    gap = float((weib.max(axis=1) - weib.min(axis=1)).div(weib.abs().max(axis=1)).max())
    lines.append(f"largest relative difference of the Weibull log-likelihoods: {gap:.1e}")
    print("\n" + "\n".join(lines))
    if not partial:
        from importlib.metadata import version

        folder = HERE / "results"
        folder.mkdir(exist_ok=True)
        table.to_csv(folder / "survival.csv", index=False)
        peers = ", ".join(f"{p} {version(p)}" for p in ("causalrm", "lifelines", "numpy", "numba"))
        head = f"{platform.machine()}, {os.cpu_count()} cores, {THREADS} threads; {peers}"
        (folder / "survival.txt").write_text("\n".join([head, "", *lines, ""]))


if __name__ == "__main__":
    main()
