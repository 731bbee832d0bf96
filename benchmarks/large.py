"""Rows that are not in memory, and rows and tasks on another process: the same fit, what it costs.

Simulated rows are written as parquet files of one million rows each. Every job runs in a process of
its own and reports its time and its peak memory beyond what it held before. The cluster is a local
one of two Dask workers with one thread each, whose memory is not counted; one worker is killed in
the middle of a fit. Estimates must agree to rounding with those from memory. Linux only.

    python benchmarks/large.py              # 1e7 rows
    python benchmarks/large.py --rows 1e6   # a tenth

Writes benchmarks/results/large.txt.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

import causalrm as crm

HERE = Path(__file__).resolve().parent
PART, WORKERS = 1_000_000, 2
MODEL, ROLES = {"phi": "x1 + x2 + trt", "gamma": "trt"}, {"time": "time", "event": "event"}


def write(folder: Path, n: int) -> None:
    """Survival rows, votes, and logged outcomes with 20 features."""
    theta = {"Intercept": -0.5, "x1": 0.3, "x2": -0.2, "trt": -0.5}
    for kind in ("survival", "votes", "log"):
        (folder / kind).mkdir()
    for part in range(max(1, n // PART)):
        rng = np.random.default_rng(part)
        size = min(PART, n)
        survival = crm.datasets.make_survival(size, phi=theta, rng=part).data
        votes = pd.DataFrame(rng.integers(0, 200, (size, 2)), columns=["a", "b"])
        votes["b"] = np.where(votes["a"] == votes["b"], (votes["b"] + 1) % 200, votes["b"])
        gap = (votes["a"] - votes["b"]).to_numpy() / 100
        votes["outcome"] = (rng.random(size) < 1 / (1 + np.exp(-gap))).astype(int)
        x = rng.normal(size=(size, 20))
        log = pd.DataFrame(x, columns=[f"x{j}" for j in range(20)])
        log["hour"] = x[:, 0] + rng.normal(size=size)
        log["clicks"] = 0.5 * log["hour"] + x[:, 1] + rng.normal(size=size)
        for kind, frame in (("survival", survival), ("votes", votes), ("log", log)):
            frame.to_parquet(folder / kind / f"{part:03d}.parquet")


def memory(name: str) -> float:
    """A line of this process's memory, in MB: VmRSS (held now) or VmHWM (its peak)."""
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+) kB", text)[1]) / 1024


def fit(kind: str, data: object) -> np.ndarray:
    """Estimates of one model."""
    if kind == "survival":
        return crm.SurvivalRegression(**MODEL).fit(data, **ROLES).result_.estimates
    if kind == "votes":
        return crm.BradleyTerry().fit(data, a="a", b="b", outcome="outcome").result_.estimates
    features = [f"x{j}" for j in range(20)]
    found = crm.deconfound.average_effect(
        data, outcome="clicks", treatment="hour", covariates=features, method="plr", rng=0
    )
    return found.to_frame()["estimate"].to_numpy()


def job(name: str, folder: str) -> None:
    """One job, in a process of its own; prints what it measured as JSON."""
    kind, _, where = name.partition(" ")
    path = Path(folder) / kind
    warm = pd.read_parquet(next(path.glob("*.parquet"))).head(2000)
    fit(kind, warm)
    client = None
    if where == "memory":
        data: object = pd.read_parquet(path)
    elif where == "parquet":
        data = str(path)
    else:
        import dask.dataframe as dd
        from distributed import Client, LocalCluster

        cluster = LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, silence_logs=50
        )
        client = Client(cluster)
        client.wait_for_workers(WORKERS)
        data = dd.read_parquet(path)
        if where.endswith("killed"):
            worker = next(iter(cluster.workers.values()))
            threading.Timer(1.0, lambda: os.kill(worker.pid, 9)).start()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    held, begin = memory("VmRSS"), time.perf_counter()
    estimates = fit(kind, data)
    seconds = time.perf_counter() - begin
    if client is not None:
        client.close()
        cluster.close()
    print(
        json.dumps(
            {"seconds": seconds, "mb": memory("VmHWM") - held, "estimates": estimates.tolist()}
        )
    )


def tasks(folder: str) -> None:
    """Twelve fits of `survival.select`, one after the other and on the cluster."""
    import joblib
    from distributed import Client, LocalCluster

    data = pd.read_parquet(next((Path(folder) / "survival").glob("*.parquet"))).head(50_000)

    def run() -> tuple[float, np.ndarray]:
        begin = time.perf_counter()
        found = crm.survival.select(data, "x1 + x2 + trt", **ROLES, n_jobs=WORKERS)
        return time.perf_counter() - begin, found.to_frame()["aic"].to_numpy()

    os.environ["CAUSALRM_NUM_THREADS"] = "1"
    with joblib.parallel_config(backend="sequential"):
        run()
        alone = run()
    with (
        LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as cluster,
        Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        run()
        shared = run()
    same = float(np.nanmax(np.abs(alone[1] - shared[1])))
    print(json.dumps({"alone": alone[0], "shared": shared[0], "difference": same}))


def main() -> None:
    """Write the rows, run the jobs, store what they measured."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=float, default=1e7)
    parser.add_argument("--job", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        name, folder = options.job
        return tasks(folder) if name == "tasks" else job(name, folder)
    n = int(options.rows)
    kinds = {
        "survival": "SurvivalRegression", "votes": "BradleyTerry, 200 items",
        "log": "average_effect, 20 features",
    }  # fmt: skip
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), n)

        def measure(name: str) -> dict:
            command = [sys.executable, __file__, "--job", name, folder]
            done = subprocess.run(command, capture_output=True, text=True, timeout=900)
            if done.returncode:
                raise RuntimeError(done.stderr[-2000:])
            return json.loads(done.stdout.splitlines()[-1])

        for kind, title in kinds.items():
            size = sum(f.stat().st_size for f in (Path(folder) / kind).iterdir()) / 2**20
            base = measure(f"{kind} memory")
            lines.append(
                f"{title}, n = {n:,}, in memory: {base['seconds']:.1f} s, "
                f"{base['mb']:,.0f} MB beyond the data"
            )
            for where in ("parquet", "cluster", "cluster, one worker killed"):
                found = measure(f"{kind} {where}")
                gap = np.max(np.abs(np.subtract(found["estimates"], base["estimates"])))
                beyond = f", {found['mb']:,.0f} MB in all" if where == "parquet" else ""
                lines.append(
                    f"{title}, n = {n:,}, {where}: {found['seconds']:.1f} s{beyond}, estimates "
                    f"differ by {gap:.0e} (target 1e-8, {'met' if gap < 1e-8 else 'MISSED'})"
                )
            print("\n".join(lines[-4:]) + f"\n({size:,.0f} MB of files)", flush=True)
        found = measure("tasks")
        lines.append(
            f"survival.select, all families, n = 50,000, on {WORKERS} Dask workers: "
            f"{found['shared']:.1f} s, {found['alone']:.1f} s one after the other; AIC differs by "
            f"{found['difference']:.0e}"
        )
        print(lines[-1])
    packages = ("causalrm", "dask", "distributed", "pyarrow", "numpy", "numba")
    versions = ", ".join(f"{p} {version(p)}" for p in packages)
    head = f"{platform.machine()}, {os.cpu_count()} cores; {versions}"
    (HERE / "results" / "large.txt").write_text("\n".join([head, "", *lines, ""]))


if __name__ == "__main__":
    main()
