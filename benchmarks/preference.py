"""Bradley-Terry against evalica and choix: same votes, one run.

Every job runs in a process of its own, which makes simulated votes of 100 items from a seed, runs
once on few votes (compiled kernels, imports), then several times, for a second at least. The least
wall time counts; everybody may use all cores. "From raw rows" starts for everybody from what its
own documentation takes: a data frame for us, sequences of labels and of winners for evalica, a list
of (winner, loser) pairs for choix, all of them made before the clock starts. "From counts" starts
from a frame of counts, from weighted lists, and, for choix, from the matrix of wins: the matrix
leaves nothing to do but solve, and gives no standard errors. Ours always ends with strengths, model
and sandwich covariance. Peers that are not installed are left out, and said so.

    python benchmarks/preference.py             # 1e5 to 1e8 votes; about ten minutes
    python benchmarks/preference.py --quick     # 1e5 votes

Writes benchmarks/results/preference.csv and prints times, ratios and targets.
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

HERE = Path(__file__).resolve().parent
ITEMS, RATERS = 100, 100_000
SMALL, LARGE, HUGE, ENORMOUS = 100_000, 1_000_000, 10_000_000, 100_000_000


def make(n: int, seed: int = 1):
    """Simulated votes in blocks: two items, outcome, rater, and 4 style differences."""
    import numpy as np

    rng = np.random.default_rng(seed)
    strength = rng.normal(0, 1, ITEMS)
    a, b = np.empty(n, np.uint16), np.empty(n, np.uint16)
    y, rater = np.empty(n, np.float32), np.empty(n, np.int32)
    for start in range(0, n, 1 << 20):
        s = slice(start, min(start + (1 << 20), n))
        m = s.stop - start
        a[s] = rng.integers(0, ITEMS, m)
        b[s] = (a[s] + rng.integers(1, ITEMS, m)) % ITEMS
        p = 1 / (1 + np.exp(strength[b[s]] - strength[a[s]]))
        y[s] = np.where(rng.random(m) < 0.15, 0.5, rng.random(m) < p)
        rater[s] = rng.integers(0, RATERS, m)
    return a, b, y, rater


def frame(n: int, kind: str = "uint16"):
    """The votes as a pandas frame, items as numbers, categories or text."""
    import numpy as np
    import pandas as pd

    a, b, y, rater = make(n)
    names = np.array([f"model-{i:03d}" for i in range(ITEMS)])
    if kind == "category":
        a, b = (pd.Categorical.from_codes(c, names) for c in (a, b))
    elif kind == "text":
        a, b = names[a].astype(object), names[b].astype(object)
    elif kind == "arrow":
        a, b = (pd.array(names[c], dtype="string[pyarrow]") for c in (a, b))
    return pd.DataFrame({"a": a, "b": b, "y": y, "rater": rater})


def counted(n: int):
    """The votes summed by pair and outcome."""
    votes = frame(n).groupby(["a", "b", "y"], observed=True).size()
    return votes.rename("n").reset_index()


def ours(job: str, n: int) -> Callable[[], float]:
    """Return one of ours, as a user calls it."""
    import causalrm as crm

    roles: dict[str, str] = {"a": "a", "b": "b", "outcome": "y"}
    options: dict[str, Any] = {}
    if job == "counts" or job.startswith("200"):
        data = counted(n)
        roles["counts"] = "n"
        if job.startswith("200"):
            options = {"covariance": "bootstrap", "n_boot": 200, "rng": 0}
    else:
        kind = job.partition(", ")[2]
        data = frame(n, kind if kind in ("category", "text", "arrow") else "uint16")
        if "clustered" in job:
            roles["cluster"] = "rater"
        if job == "4 covariates":
            import numpy as np

            rng = np.random.default_rng(2)
            options["covariates"] = ["length", "headers", "lists", "bold"]
            for name in options["covariates"]:
                data[name] = rng.normal(size=n)
    model = crm.BradleyTerry(**options)
    return lambda: float(model.fit(data, **roles).result_.std_error.sum())


def sandwich(job: str, n: int) -> Callable[[], float]:
    """Return the sandwich alone, at an optimum that was found before."""
    from causalrm.core.parallel import blas_limit
    from causalrm.preference import fitting
    from causalrm.preference.votes import Roles, heap, read

    votes = read(counted(n), Roles("a", "b", "y", counts="n"), None)
    heaps = heap(votes, False)
    setup = fitting.Setup(0, False, 0.0, ())
    fitted, sums = fitting.newton(heaps, setup, ITEMS)

    def run() -> float:
        with blas_limit(1):
            found, _ = fitting.covariances(votes, heaps, setup, fitted, sums, 0, 0)
        return float((found["robust"].diagonal() ** 0.5).sum())

    return run


def evalica(job: str, n: int) -> Callable[[], float]:
    """Return evalica's Bradley-Terry, of lists."""
    from evalica import Winner, bradley_terry

    kinds = {1.0: Winner.X, 0.0: Winner.Y, 0.5: Winner.Draw}
    if job == "counts":
        data = counted(n)
        lists = data["a"].tolist(), data["b"].tolist(), [kinds[v] for v in data["y"]]
        weights = data["n"].astype(float).tolist()
        return lambda: float(bradley_terry(*lists, weights=weights).scores.max())
    data = frame(n, "text" if "text" in job else "uint16")
    lists = data["a"].tolist(), data["b"].tolist(), [kinds[v] for v in data["y"]]
    return lambda: float(bradley_terry(*lists).scores.max())


def choix(job: str, n: int) -> Callable[[], float]:
    """Return choix' iterative Luce spectral ranking; raw votes without the ties, which it lacks."""
    import numpy as np
    from choix import ilsr_pairwise, ilsr_pairwise_dense

    if job == "counts":
        data = counted(n)
        wins = np.zeros((ITEMS, ITEMS))
        np.add.at(wins, (data["a"], data["b"]), data["y"] * data["n"])
        np.add.at(wins, (data["b"], data["a"]), (1 - data["y"]) * data["n"])
        return lambda: float(ilsr_pairwise_dense(wins).max())
    data = frame(n)
    data = data[data["y"] != 0.5]
    first = data["y"] == 1
    winner, loser = data["a"].where(first, data["b"]), data["b"].where(first, data["a"])
    pairs = list(zip(winner.tolist(), loser.tolist(), strict=True))
    return lambda: float(ilsr_pairwise(ITEMS, pairs).max())


JOBS: dict[tuple[str, str], tuple[Callable[[str, int], Callable[[], float]], list[int]]] = {
    ("causalrm", "raw rows"): (ours, [SMALL, LARGE, HUGE]),
    ("causalrm", "raw rows, category"): (ours, [SMALL, LARGE, HUGE]),
    ("causalrm", "raw rows, text"): (ours, [SMALL, LARGE, HUGE]),
    ("causalrm", "raw rows, arrow"): (ours, [SMALL, LARGE, HUGE]),
    ("evalica", "raw rows"): (evalica, [SMALL, LARGE, HUGE]),
    ("evalica", "raw rows, text"): (evalica, [SMALL, LARGE]),
    ("choix", "raw rows"): (choix, [SMALL, LARGE]),
    ("causalrm", "counts"): (ours, [SMALL, LARGE]),
    ("evalica", "counts"): (evalica, [SMALL, LARGE]),
    ("choix", "counts"): (choix, [SMALL, LARGE]),
    ("causalrm", "sandwich alone"): (sandwich, [SMALL, LARGE]),
    ("causalrm", "200 bootstraps and fit"): (ours, [SMALL, LARGE]),
    ("causalrm", "4 covariates"): (ours, [SMALL, LARGE]),
    ("causalrm", "clustered"): (ours, [SMALL, LARGE, HUGE, ENORMOUS]),
}
# our job, tool, its job, votes, at least as many times as fast
TARGETS = [
    ("raw rows", "evalica", "raw rows", LARGE, 50),
    ("raw rows, category", "evalica", "raw rows, text", LARGE, 50),
    ("raw rows, text", "evalica", "raw rows, text", LARGE, None),
    ("raw rows", "evalica", "raw rows", HUGE, None),
    ("raw rows", "choix", "raw rows", LARGE, 200),
    ("counts", "evalica", "counts", LARGE, 2),
    ("counts", "choix", "counts", LARGE, 2),
    ("sandwich alone", "causalrm", "200 bootstraps and fit", LARGE, 200),
]
SECONDS = {("clustered", ENORMOUS): 10.0, ("4 covariates", LARGE): 1.0}


def child(tool: str, job: str, n: int, repeats: int) -> dict[str, Any]:
    """Run one job in this process; see the top of the file."""
    import gc
    import time
    import warnings

    warnings.simplefilter("ignore")
    start = {"tool": tool, "job": job, "n": n}
    try:
        JOBS[tool, job][0](job, 70_000)()
    except ImportError as error:
        return {**start, "missing": str(error)}
    run = JOBS[tool, job][0](job, n)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak restarts from here
    wall: list[float] = []
    while len(wall) < repeats or (sum(wall) < 1.0 and n < HUGE):
        clock = time.perf_counter()
        value = run()
        wall.append(time.perf_counter() - clock)
        if sum(wall) > 20:
            break
    status = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    return {**start, "seconds": min(wall), "peak_mb": peak / 1024, "value": value}


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1e5 votes")
    parser.add_argument("--only", help="jobs whose name contains this")
    parser.add_argument("--child", nargs=4, metavar=("TOOL", "JOB", "N", "REPEATS"))
    args = parser.parse_args()
    if args.child:
        tool, job, n, repeats = args.child
        print(json.dumps(child(tool, job, int(n), int(repeats))))
        return
    rows: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    for n in [SMALL] if args.quick else [SMALL, LARGE, HUGE, ENORMOUS]:
        for (tool, job), (_, sizes) in JOBS.items():
            if n not in sizes or tool in missing or (args.only and args.only not in job):
                continue
            command = [sys.executable, __file__, "--child", tool, job, str(n)]
            command.append("5" if n < HUGE else "2")
            out = subprocess.run(command, capture_output=True, text=True, check=True)
            row = json.loads(out.stdout.splitlines()[-1])
            if "missing" in row:
                missing[tool] = row["missing"]
                print(f"{tool} is left out: {row['missing']}", flush=True)
                continue
            rows.append(row)
            name = f"{tool}, {job}"
            print(
                f"{name:35s} {n:>12,} {row['seconds']:9.4f} s {row['peak_mb']:7.0f} MB", flush=True
            )
    show(rows, missing, bool(args.quick or args.only))


def show(rows: list[dict[str, Any]], missing: dict[str, str], partial: bool) -> None:
    """Print times, ratios and targets, and store them."""
    import pandas as pd

    table = pd.DataFrame(rows)
    seconds = table.pivot(index=["job", "tool"], columns="n", values="seconds")
    print("\nSeconds\n" + seconds.to_string(float_format="{:.5f}".format, na_rep=""))
    found = {(r["tool"], r["job"], r["n"]): r for r in rows}
    lines = []
    for job, tool, theirs, n, target in TARGETS:
        at = SMALL if partial else n
        we, they = found.get(("causalrm", job, at)), found.get((tool, theirs, at))
        if we and they:
            ratio = they["seconds"] / we["seconds"]
            met = "met" if target and ratio >= target else "MISSED"
            goal = f" (target {target}x, {met})" if target else ""
            lines.append(f"{job} v {tool} {theirs}, n = {at:,}: {ratio:.1f}x{goal}")
    for (job, n), target in SECONDS.items():
        row = found.get(("causalrm", job, n))
        if row:
            met = "met" if row["seconds"] <= target else "MISSED"
            lines.append(
                f"{job}, n = {n:,}: {row['seconds']:.2f} s (target {target:g}, {met}), peak "
                f"{row['peak_mb']:.0f} MB with the votes"
            )
    lines += [f"{tool} was left out: {why}" for tool, why in missing.items()]
    print("\n" + "\n".join(lines))
    if not partial:
        from importlib.metadata import version

        folder = HERE / "results"
        folder.mkdir(exist_ok=True)
        table.to_csv(folder / "preference.csv", index=False)
        peers = ["causalrm", *sorted({r["tool"] for r in rows} - {"causalrm"}), "numpy", "numba"]
        versions = ", ".join(
            f"{p} {version(p) if p != 'causalrm' else __import__(p).__version__}" for p in peers
        )
        head = f"{platform.machine()}, {os.cpu_count()} cores; {versions}"
        (folder / "preference.txt").write_text("\n".join([head, "", *lines, ""]))


if __name__ == "__main__":
    main()
