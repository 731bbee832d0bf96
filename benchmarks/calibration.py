"""Calibration against netcal, relplot, model-diagnostics and scikit-learn: same rows, one run.

Every job runs in a process of its own, which makes simulated rows from a seed, runs once on few
rows (compiled kernels, imports), then several times, for a second at least. Ours and the peers'
take turns, twice; the least CPU time counts; everybody has one thread. Memory is the peak of the
first full run beyond what the process held before it, which were the rows. Peers that are not
installed are left out, and said so.

    python benchmarks/calibration.py             # 1e3, 1e6 and 1e7 rows; some minutes
    python benchmarks/calibration.py --quick     # 1e3 and 1e5 rows

Writes benchmarks/results/calibration.csv and prints times, ratios and targets.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

THREADS = "1"  # or threads of BLAS that wait for work would count as CPU time
HERE = Path(__file__).resolve().parent
SMALL, MIDDLE, LARGE, HUGE = 1_000, 100_000, 1_000_000, 10_000_000

# --- the jobs: name -> (function that imports and returns the job, sizes) ------------------------


def ours(name: str) -> Callable[[Any, Any], float]:
    """Return one of ours, as a user calls it."""
    import causalrm as crm
    from causalrm import calibration as cal

    def corp_and_auc(y, p):
        parts = cal.corp(y, p, n_boot=0)
        return parts.mcb.estimate + cal.auc(y, p, n_boot=0).estimate

    def isotonic_and_auc(y, p):
        learner = cal.IsotonicCalibration().fit(p, y)
        return float(learner.predict(p).mean()) + cal.auc(y, p, n_boot=0).estimate

    return {
        "ECE": lambda y, p: cal.ece(y, p, n_boot=0).estimate,
        "smooth ECE": lambda y, p: cal.smooth_ece(y, p, n_boot=0).estimate,
        "CORP + AUC": corp_and_auc,
        "isotonic + AUC": isotonic_and_auc,
        "temperature": lambda y, p: float(cal.TemperatureScaling().fit(p, y).predict(p).mean()),
        "Platt": lambda y, p: float(cal.PlattScaling().fit(p, y).predict(p).mean()),
        "report": lambda y, p: crm.calibration_report(y, p)["ece"]["estimate"],
    }[name]


def netcal(name: str) -> Callable[[Any, Any], float]:
    """Return netcal's ECE, of the positive class."""
    from netcal.metrics import ECE

    return lambda y, p: float(ECE(bins=10).measure(p, y))


def relplot(name: str) -> Callable[[Any, Any], float]:
    """Return relplot's smooth ECE."""
    from relplot import smECE

    return lambda y, p: float(smECE(p, y))


def diagnostics(name: str) -> Callable[[Any, Any], float]:
    """Return model-diagnostics' decomposition, with scikit-learn's AUC, as it has none."""
    from model_diagnostics.scoring import SquaredError, decompose
    from sklearn.metrics import roc_auc_score

    def corp(y, p):
        return float(decompose(y, p, scoring_function=SquaredError())["miscalibration"][0])

    if name == "CORP":
        return corp
    return lambda y, p: corp(y, p) + float(roc_auc_score(y, p))


def sklearn(name: str) -> Callable[[Any, Any], float]:
    """Return scikit-learn's calibrators, of scores that are there already."""
    import numpy as np
    from scipy.special import logit
    from sklearn import calibration
    from sklearn.isotonic import IsotonicRegression
    from sklearn.metrics import roc_auc_score

    if name == "isotonic + AUC":

        def isotonic(y, p):
            fitted = IsotonicRegression(out_of_bounds="clip").fit(p, y)
            return float(fitted.predict(p).mean() + roc_auc_score(y, p))

        return isotonic
    # What CalibratedClassifierCV runs inside, without its folds and checks.
    learner = {
        "temperature": calibration._TemperatureScaling,
        "Platt": calibration._SigmoidCalibration,
    }[name]

    def calibrate(y, p):
        z = logit(np.clip(p, 1e-6, 1 - 1e-6))
        q = learner().fit(z, y).predict(z)
        return float((q[:, 1] if q.ndim == 2 else q).mean())

    return calibrate


TO_LARGE = [SMALL, MIDDLE, LARGE]
ALL = [*TO_LARGE, HUGE]
JOBS: dict[tuple[str, str], tuple[Callable[[str], Callable[[Any, Any], float]], list[int]]] = {
    ("causalrm", "ECE"): (ours, ALL),
    ("netcal", "ECE"): (netcal, ALL),
    ("causalrm", "smooth ECE"): (ours, ALL),
    ("relplot", "smooth ECE"): (relplot, TO_LARGE),
    ("causalrm", "CORP + AUC"): (ours, ALL),
    ("model-diagnostics", "CORP"): (diagnostics, TO_LARGE),
    ("model-diagnostics", "CORP + AUC"): (diagnostics, TO_LARGE),
    ("causalrm", "isotonic + AUC"): (ours, TO_LARGE),
    ("scikit-learn", "isotonic + AUC"): (sklearn, TO_LARGE),
    ("causalrm", "temperature"): (ours, TO_LARGE),
    ("scikit-learn", "temperature"): (sklearn, TO_LARGE),
    ("causalrm", "Platt"): (ours, TO_LARGE),
    ("scikit-learn", "Platt"): (sklearn, TO_LARGE),
    ("causalrm", "report"): (ours, ALL),
}
# our job, peer, the peer's job, rows, at least as many times as fast
TARGETS = [
    ("ECE", "netcal", "ECE", LARGE, 50),
    ("smooth ECE", "relplot", "smooth ECE", LARGE, 50),
    ("CORP + AUC", "model-diagnostics", "CORP", LARGE, 5),
    ("CORP + AUC", "model-diagnostics", "CORP + AUC", LARGE, None),
    ("isotonic + AUC", "scikit-learn", "isotonic + AUC", LARGE, None),
    ("temperature", "scikit-learn", "temperature", LARGE, 10),
    ("Platt", "scikit-learn", "Platt", LARGE, 10),
    ("isotonic + AUC", "scikit-learn", "isotonic + AUC", SMALL, 1),
    ("temperature", "scikit-learn", "temperature", SMALL, 1),
    ("Platt", "scikit-learn", "Platt", SMALL, 1),
]
REPORT_SECONDS = {LARGE: 0.3, HUGE: 3.0}
REPORT_MEMORY = 4.0  # times the rows


def make(n: int, seed: int = 1):
    """Simulated scores and outcomes; the scores are overconfident."""
    import numpy as np

    rng = np.random.default_rng(seed)
    z = rng.normal(-0.5, 1.0, n)
    y = (rng.random(n) < 1.0 / (1.0 + np.exp(-z))).astype(float)
    return y, 1.0 / (1.0 + np.exp(-1.5 * z))


def memory(field: str) -> int:
    """Resident (VmRSS) or peak (VmHWM) memory of this process in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    return 0


def child(tool: str, job: str, n: int, repeats: int) -> dict[str, Any]:
    """Run one job in this process; see the top of the file."""
    import gc
    import time
    import warnings

    warnings.simplefilter("ignore")
    start = {"tool": tool, "job": job, "n": n}
    try:
        run = JOBS[tool, job][0](job)
    except ImportError as error:
        return {**start, "missing": str(error)}
    y, p = make(n)
    run(*make(2_000, 2))
    gc.collect()
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak restarts from here
    cpu, wall = [], []
    while len(cpu) < repeats or sum(wall) < 1.0:
        begin, clock = time.process_time(), time.perf_counter()
        value = run(y, p)
        cpu.append(time.process_time() - begin)
        wall.append(time.perf_counter() - clock)
        if len(cpu) == 1:
            peak = memory("VmHWM") - before
        if sum(wall) > 20:
            break
    return {
        **start, "cpu": min(cpu), "wall": min(wall), "peak_mb": peak / 2**20,
        "data_mb": (y.nbytes + p.nbytes) / 2**20, "value": value,
    }  # fmt: skip


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1e3 and 1e5 rows")
    parser.add_argument("--only", help="jobs whose name contains this")
    parser.add_argument("--child", nargs=4, metavar=("TOOL", "JOB", "N", "REPEATS"))
    args = parser.parse_args()
    if args.child:
        tool, job, n, repeats = args.child
        print(json.dumps(child(tool, job, int(n), int(repeats))))
        return
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    limits = dict.fromkeys([*threads, "CAUSALRM_NUM_THREADS"], THREADS)
    least: dict[tuple[str, str, int], dict[str, Any]] = {}
    missing: dict[str, str] = {}
    sizes = [SMALL, MIDDLE] if args.quick else [SMALL, LARGE, HUGE]
    turns = [
        (n, tool, job)
        for n in sizes
        for _ in range(2)
        for (tool, job), (_, run_at) in JOBS.items()
        if n in run_at and (not args.only or args.only in job)
    ]
    for n, tool, job in turns:
        if tool in missing:
            continue
        repeats = 3 if n == HUGE else 5
        command = [sys.executable, __file__, "--child", tool, job, str(n), str(repeats)]
        out = subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, **limits}
        )
        row = json.loads(out.stdout.splitlines()[-1])
        if "missing" in row:
            missing[tool] = row["missing"]
            print(f"{tool} is left out: {row['missing']}", flush=True)
            continue
        least[tool, job, n] = min(row, least.get((tool, job, n), row), key=lambda r: r["cpu"])
        name = f"{tool}, {job}"
        print(f"{name:30s} {n:>10,} {row['cpu']:9.4f} s {row['peak_mb']:7.0f} MB", flush=True)
    rows = list(least.values())
    show(rows, missing, bool(args.quick or args.only))


def show(rows: list[dict[str, Any]], missing: dict[str, str], partial: bool) -> None:
    """Print times, ratios and targets, and store them."""
    import pandas as pd

    table = pd.DataFrame(rows)
    cpu = table.pivot(index=["job", "tool"], columns="n", values="cpu")
    print("\nCPU seconds\n" + cpu.to_string(float_format="{:.5f}".format, na_rep=""))
    found = {(r["tool"], r["job"], r["n"]): r for r in rows}
    lines = []

    def verdict(met: bool) -> str:
        return "met" if met else "MISSED"

    for job, tool, theirs, n, target in TARGETS:
        we, they = found.get(("causalrm", job, n)), found.get((tool, theirs, n))
        if we and they:
            ratio = they["cpu"] / we["cpu"]
            goal = f" (target {target}x, {verdict(ratio >= target)})" if target else ""
            lines.append(f"{job} v {tool} {theirs}, n = {n:,}: {ratio:.1f}x{goal}")
    for n, seconds in REPORT_SECONDS.items():
        row = found.get(("causalrm", "report", n))
        if row:
            share = row["peak_mb"] / row["data_mb"]
            lines.append(
                f"report with 1,000 samples, n = {n:,}: {row['cpu']:.3f} CPU s "
                f"(target {seconds:g}, {verdict(row['cpu'] <= seconds)}); "
                f"memory {share:.1f} times the rows "
                f"(target {REPORT_MEMORY:g}, {verdict(share <= REPORT_MEMORY)})"
            )
    for job, tool in (("ECE", "netcal"), ("smooth ECE", "relplot"),
                      ("CORP + AUC", "model-diagnostics"), ("isotonic + AUC", "scikit-learn"),
                      ("temperature", "scikit-learn"), ("Platt", "scikit-learn")):  # fmt: skip
        gaps = [
            abs(found["causalrm", job, n]["value"] - found[tool, job, n]["value"])
            for n in ALL
            if ("causalrm", job, n) in found and (tool, job, n) in found
        ]
        if gaps:
            lines.append(f"largest difference of {job} from {tool}: {max(gaps):.1e}")
    lines += [f"{tool} was left out: {why}" for tool, why in missing.items()]
    print("\n" + "\n".join(lines))
    if not partial:
        from importlib.metadata import version

        import causalrm

        folder = HERE / "results"
        folder.mkdir(exist_ok=True)
        table.to_csv(folder / "calibration.csv", index=False)
        peers = [*sorted({r["tool"] for r in rows} - {"causalrm"}), "numpy", "numba"]
        versions = ", ".join(f"{p} {version(p)}" for p in peers)
        head = (
            f"{platform.machine()}, {os.cpu_count()} cores, {THREADS} thread; "
            f"causalrm {causalrm.__version__}, {versions}"
        )
        (folder / "calibration.txt").write_text("\n".join([head, "", *lines, ""]))


if __name__ == "__main__":
    main()
