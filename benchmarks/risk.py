"""Effective draws per second of the engines of the selective-labels model, and times of the grid.

Every engine samples the posterior of the same simulated rows (the design of the paper's
experiment, uniform unobservable, no constraint) in a process of its own, with one thread and one
chain. The reference is the paper's model in the paper's coordinates, written here in PyMC, and as
a Stan program where R's rstan is installed. Counted is CPU time with warm-up and without
compilation, so that a busy machine does no harm. ESS is the least bulk ESS of all parameters; for
the grid it is the importance ESS. Errors are the largest distance of a posterior mean from that of
a grid with 32,768 draws, in posterior sds.

Then the grid is timed on 5e4, 5e5 and 1e6 rows (those with at most 1e5 distinct), on two threads,
from designs in memory to draws: wall time, and CPU time over two, which is what the wall time would
be if the machine did nothing else and all of it ran side by side. Heckman's model is timed on 5e4
and 5e5 rows in the same way, the whole fit: reading, two steps, maximum likelihood, posterior.

    python benchmarks/risk.py                # an hour at most
    python benchmarks/risk.py --quick        # 1,000 rows and short chains, a tenth of the rows
    python benchmarks/risk.py --only grid    # one engine, "rows" or "Heckman"; the rest stays

Writes benchmarks/results/risk.json and .txt, and prints figures beside targets.
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
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
STAN = HERE.parent / "tests" / "reference" / "risk" / "authors.stan"
N, FEATURES, SD = 5000, 4, 3.0
AUTHORS = 1000  # warm-up and draws, each, of the authors' model
Found = dict[str, Any]


def data(n: int) -> dict[str, Any]:
    """Simulated rows of the experiment's design: five columns with the intercept."""
    import numpy as np

    from causalrm.datasets import make_selective_labels

    frame, _ = make_selective_labels(n, features=FEATURES, rng=2024)
    return {
        "X": np.column_stack([np.ones(n), frame.filter(like="x")]),
        "tested": frame["tested"].to_numpy(bool), "y": frame["outcome"].to_numpy(),
    }  # fmt: skip


def problem(X: Any, tested: Any, y: Any) -> Any:
    import numpy as np

    from causalrm.risk.problem import Problem

    sd = np.full(X.shape[1], SD)
    return Problem.from_rows(X, X, tested, y, np.ones(len(X)), risk_sd=sd, testing_sd=sd)


def chains(tree: Any, names: tuple[str, ...]) -> Any:
    """Draws of the parameters side by side: (chains, draws, k)."""
    import numpy as np

    parts = [np.asarray(tree["posterior"][name].values) for name in names]
    return np.concatenate([p if p.ndim == 3 else p[..., None] for p in parts], axis=-1)


def judged(draws: Any, cpu: float, **more: Any) -> Found:
    """Least bulk ESS, largest R-hat of halves, and means of draws (chains, draws, k)."""
    import numpy as np
    from arviz_stats.base import array_stats

    ess = array_stats.ess(draws, method="bulk", chain_axis=0, draw_axis=1)
    half = draws.shape[1] // 2
    halves = np.concatenate([draws[:, :half], draws[:, -half:]])
    r_hat = array_stats.rhat(halves, method="identity", chain_axis=0, draw_axis=1)
    means = draws.mean(axis=(0, 1)).tolist()
    return {"cpu": cpu, "ess": float(min(ess)), "r_hat": float(max(r_hat)), "means": means, **more}


# --- engines --------------------------------------------------------------------------------------


def grid(quick: bool, rows: dict[str, Any]) -> Found:
    import numpy as np

    from causalrm.risk.grid import fit_grid

    one = problem(**rows)
    fit_grid(one, 64, np.random.default_rng(0))  # compiled kernels
    times = []
    for _ in range(3):
        begin = time.process_time()
        found = fit_grid(one, 1024, np.random.default_rng(0))
        times.append(time.process_time() - begin)
    exact = fit_grid(one, 32_768, np.random.default_rng(1))
    return {
        "cpu": min(times), "ess": found.ess, "khat": found.khat, "ok": found.ok,
        "means": found.mean().tolist(), "exact_means": exact.mean().tolist(),
        "exact_sds": exact.sd().tolist(), "exact_ok": exact.ok,
    }  # fmt: skip


def ours(sampler: str) -> Callable[..., Found]:
    """The package's PyMC model; compilation is timed by a run of a few steps and taken off."""

    def run(quick: bool, rows: dict[str, Any]) -> Found:
        import numpy as np

        from causalrm.risk.pymc_model import build, sample
        from causalrm.risk.rows import Scaling

        one = problem(**rows)
        plain = Scaling(np.zeros(one.p), np.ones(one.p))
        model = build(one, plain, plain)
        options = {"sampler": sampler, "chains": 1, "cores": 1}
        cpu = []
        length = 200 if quick else 1000
        for size in (5, 5, length):  # the first also loads what others have loaded
            begin = time.process_time()
            tree, _ = sample(model, 1, {**options, "draws": size, "tune": size})
            cpu.append(time.process_time() - begin)
        draws = chains(tree, ("risk", "testing", "sigma"))
        divergent = int(tree["sample_stats"]["diverging"].sum())
        return judged(draws, cpu[2] - cpu[1], divergences=divergent, length=length)

    return run


def authors_pymc(quick: bool, rows: dict[str, Any]) -> Found:
    """The paper's model and coordinates, PyMC's defaults."""
    import numpy as np
    import pymc as pm
    import pytensor.tensor as pt

    X, tested, y = rows["X"], rows["tested"], rows["y"]

    def area(v: Any, s: Any) -> Any:
        return pt.softplus(v + s) - pt.softplus(v)

    with pm.Model():
        beta = pm.Normal("beta", 0.0, SD, shape=X.shape[1])
        delta = pm.Normal("delta", 0.0, SD, shape=X.shape[1])
        s = pm.HalfNormal("s", SD)
        a, d = pt.dot(X, beta), pt.dot(X, delta)
        none, one, zero = ~tested, tested & (y == 1), tested & (y == 0)
        b0 = (a + d)[none]
        total = pt.log(area(-b0 - s, s)).sum()
        for part, positive in ((one, True), (zero, False)):
            ai, di = a[part], d[part]
            fa, fb, e = area(ai, s), area(ai + di, s), pt.exp(-di)
            total += pt.log((fa - e * fb if positive else fb - fa) / (1.0 - e)).sum()
        pm.Potential("rows", total - len(y) * pt.log(s))
        cpu = []
        length = 50 if quick else AUTHORS
        for size in (5, 5, length):
            begin = time.process_time()
            tree = pm.sample(
                size, tune=size, chains=1, cores=1, random_seed=1, progressbar=False, quiet=True,
                compute_convergence_checks=False,
            )  # fmt: skip
            cpu.append(time.process_time() - begin)
    draws = chains(tree, ("beta", "delta", "s"))
    divergent = int(np.asarray(tree["sample_stats"]["diverging"]).sum())
    return judged(draws, cpu[2] - cpu[1], divergences=divergent, length=length)


def authors_stan(quick: bool, rows: dict[str, Any]) -> Found:
    """The same in Stan, whose own clock leaves compilation out."""
    import numpy as np
    import pandas as pd

    if shutil.which("Rscript") is None:
        raise ImportError("Rscript is not installed")
    length = 50 if quick else AUTHORS
    frame = pd.DataFrame(rows["X"], columns=[f"x{j}" for j in range(rows["X"].shape[1])])
    frame["tested"] = rows["tested"].astype(int)
    frame["y"] = np.where(rows["tested"], rows["y"], 0).astype(int)
    with tempfile.TemporaryDirectory(prefix="risk-") as folder:
        frame.to_csv(f"{folder}/rows.csv", index=False)
        shutil.copy(STAN, f"{folder}/authors.stan")
        command = ["Rscript", str(HERE / "risk_stan.R"), f"{folder}/authors.stan"]
        command += [f"{folder}/rows.csv", f"{folder}/out.csv", str(length), str(length)]
        out = subprocess.run(command, capture_output=True, text=True)
        if out.returncode:
            raise ImportError("rstan: " + " ".join(out.stderr.split())[-300:])
        said = out.stdout.splitlines()[-1].split()
        found = pd.read_csv(f"{folder}/out.csv").drop(columns="lp__")
    draws = found.to_numpy()[None]
    return judged(draws, float(said[1]), divergences=int(said[3]), length=length)


ENGINES: dict[str, Callable[..., Found]] = {
    "grid": grid,
    "nutpie": ours("nutpie"),
    "PyMC NUTS": ours("pymc"),
    "authors, PyMC": authors_pymc,
    "authors, Stan": authors_stan,
}
TARGETS = {"PyMC NUTS": 50, "nutpie": 150, "grid": 2000}  # times the ESS per second of the authors'

# --- rows -----------------------------------------------------------------------------------------

ROWS = {
    "5e4": (50_000, 0, 1024, 10.0),
    "5e5": (500_000, 0, 256, 25.0),
    "1e6": (1_000_000, 13, 256, 15.0),
}  # fmt: skip  rows, levels, draws, seconds at most


def rows_job(name: str, quick: bool) -> Found:
    """Wall and CPU time of the grid from designs to draws."""
    import numpy as np

    from causalrm.risk.grid import fit_grid

    n, levels, draws, _ = ROWS[name]
    n = n // 10 if quick else n
    small = problem(**data(20_000))
    fit_grid(small, 64, np.random.default_rng(0))  # compiled kernels, threads
    if levels:
        rng = np.random.default_rng(0)
        X = np.column_stack([np.ones(n), rng.integers(0, levels, (n, FEATURES))])
        X[:, 1:] = (X[:, 1:] - X[:, 1:].mean(axis=0)) / X[:, 1:].std(axis=0)
        r = -2.0 + X[:, 1:] @ [0.8, -0.6, 0.3, 0.1] + 2.0 * rng.random(n)
        tested = np.log(rng.random(n)) < -np.logaddexp(0, -(r + 2.0 + X[:, 1]))
        y = (np.log(rng.random(n)) < -np.logaddexp(0, -r)).astype(float)
        rows = {"X": X, "tested": tested, "y": y}
    else:
        rows = data(n)
    clock, begin = time.perf_counter(), time.process_time()
    one = problem(**rows)
    found = fit_grid(one, draws, np.random.default_rng(0))
    return {
        "wall": time.perf_counter() - clock, "cpu": time.process_time() - begin, "n": n,
        "distinct": len(one.X), "draws": draws, "ok": found.ok, "ess": found.ess,
        "khat": found.khat, "load": os.getloadavg()[0], **found.checks,
    }  # fmt: skip


HECKMAN = {"Heckman 5e4": 50_000, "Heckman 5e5": 500_000}  # rows


def heckman_job(name: str, quick: bool) -> Found:
    """Wall and CPU time of a whole fit of Heckman's model; simulated, rho .5, an exclusion."""
    import numpy as np
    import pandas as pd

    import causalrm as crm

    def rows(n: int) -> pd.DataFrame:
        rng = np.random.default_rng(1)
        frame = pd.DataFrame(rng.normal(size=(n, 4)), columns=list("abcd"))
        z, e = rng.normal(size=(2, n))
        seen = 0.2 + 0.6 * frame["a"] + 0.5 * frame["d"] + 0.5 * z + np.sqrt(0.75) * e > 0
        y = 1.0 + frame["a"] - 0.5 * frame["b"] + 2.0 * z
        return frame.assign(t=seen.astype(int), y=y.where(seen))

    model = crm.HeckmanModel("a + b + c", "a + b + c + d", method="grid", draws=1024)
    model.fit(rows(2000), selected="t", outcome="y")  # compiled kernels, threads
    frame = rows(HECKMAN[name] // (10 if quick else 1))
    clock, begin = time.perf_counter(), time.process_time()
    found = model.fit(frame, selected="t", outcome="y").result_
    d = found.diagnostics
    return {
        "wall": time.perf_counter() - clock, "cpu": time.process_time() - begin,
        "n": len(frame), "draws": len(found.draws), "ess": d["importance_ess"], "khat": d["khat"],
        "points": d["nodes"], "load": os.getloadavg()[0],
        "rho": found.to_frame().iloc[-1][["estimate", "conf_low", "conf_high"]].tolist(),
    }  # fmt: skip


# --- driver ---------------------------------------------------------------------------------------


def run(job: str, quick: bool, limit: float) -> Found:
    """Run a job in a process of its own, with a time limit."""
    threads = "2" if job in ROWS or job in HECKMAN else "1"
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, "1"), "CAUSALRM_NUM_THREADS": threads}
    command = [sys.executable, __file__, "--child", job] + ["--quick"] * quick
    start = {"job": job}
    try:
        out = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=limit
        )
    except subprocess.TimeoutExpired:
        return {**start, "failed": f"did not end within {limit:.0f} s"}
    if out.returncode:
        return {**start, "failed": " ".join(out.stderr.split())[-400:]}
    return {**start, **json.loads(out.stdout.splitlines()[-1])}


def child(job: str, quick: bool) -> Found:
    import warnings

    warnings.simplefilter("ignore")
    try:
        if job in ROWS:
            return rows_job(job, quick)
        if job in HECKMAN:
            return heckman_job(job, quick)
        return ENGINES[job](quick, data(1000 if quick else N))
    except ImportError as error:
        return {"failed": str(error)}


def verdict(met: bool) -> str:
    return "met" if met else "MISSED"


def lines_of(found: dict[str, Found]) -> list[str]:
    """What was got, beside what was wanted."""
    import numpy as np

    lines = []
    rate = {
        job: f["ess"] / f["cpu"] for job, f in found.items() if job in ENGINES and "failed" not in f
    }
    peers = [job for job in rate if job.startswith("authors")]
    exact = found.get("grid", {})
    for job in ENGINES:
        if job not in found:
            continue
        one = found[job]
        if job not in rate:
            lines.append(f"{job} was left out: {one['failed']}")
            continue
        text = f"{job}: {rate[job]:.3g} ESS per CPU second (ESS {one['ess']:.0f}"
        text += (
            ", importance)"
            if job == "grid"
            else f" of {one['length']} draws, R-hat {one['r_hat']:.3f}"
        )
        text += "" if job == "grid" else f", {one['divergences']} divergences)"
        if "exact_means" in exact:
            error = np.subtract(one["means"], exact["exact_means"]) / exact["exact_sds"]
            text += f"; largest error of a mean {np.abs(error).max():.3f} sd"
        lines.append(text)
    for job, target in TARGETS.items():
        for peer in peers:
            if job in rate:
                ratio = rate[job] / rate[peer]
                lines.append(
                    f"{job} v {peer}: {ratio:,.0f}x (target {target:,}x, "
                    f"{verdict(ratio >= target)})"
                )
    for job, (_, _, _, most) in ROWS.items():
        if job not in found:
            continue
        one = found[job]
        if "failed" in one:
            lines.append(f"{job} rows: {one['failed']}")
            continue
        half = one["cpu"] / 2
        said = verdict(one["wall"] <= most)
        if one["wall"] > most and half <= most:
            said = f"MISSED on this run at a load of {one['load']:.0f}; met by CPU time over two"
        lines.append(
            f"{one['n']:,} rows, {one['distinct']:,} distinct, {one['draws']} draws: "
            f"{one['wall']:.1f} s, CPU time over two {half:.1f} s (target {most:g} s, {said}); "
            f"ESS {one['ess']:.0f}, k-hat {one['khat']:.2f}, {one['n_points']} points"
        )
    for job in HECKMAN:
        if job not in found:
            continue
        one = found[job]
        if "failed" in one:
            lines.append(f"{job}: {one['failed']}")
            continue
        lines.append(
            f"Heckman's model, {one['n']:,} rows, {one['draws']} draws: {one['wall']:.1f} s, CPU "
            f"time over two {one['cpu'] / 2:.1f} s; ESS {one['ess']:.0f}, k-hat {one['khat']:.2f}, "
            f"{one['points']} points; rho {one['rho'][0]:.3f} [{one['rho'][1]:.3f}, "
            f"{one['rho'][2]:.3f}] for a truth of .5"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rows and short chains")
    parser.add_argument("--only", help='jobs whose name contains this, or "rows"')
    parser.add_argument("--limit", type=float, default=1500.0, help="seconds for each engine")
    parser.add_argument("--child")
    args = parser.parse_args()
    if args.child:
        print(json.dumps(child(args.child, args.quick)))
        return
    store = HERE / "results" / "risk.json"
    found: dict[str, Found] = {}
    if args.only and store.exists() and not args.quick:
        found = json.loads(store.read_text())
    for job in [*ENGINES, *ROWS, *HECKMAN]:
        if args.only and args.only not in job and not (args.only == "rows" and job in ROWS):
            continue
        found[job] = run(job, args.quick, args.limit)
        short = {k: v for k, v in found[job].items() if not isinstance(v, list)}
        print(json.dumps(short), flush=True)
    lines = lines_of(found)
    print("\n" + "\n".join(lines))
    if not args.quick:
        from importlib.metadata import PackageNotFoundError, version

        def of(package: str) -> str:
            try:
                return f"{package} {version(package)}"
            except PackageNotFoundError:
                return f"{package} missing"

        store.parent.mkdir(exist_ok=True)
        store.write_text(json.dumps(found, indent=1))
        versions = ", ".join(map(of, ("causalrm", "pymc", "nutpie", "numpy", "numba")))
        head = f"{platform.machine()}, {os.cpu_count()} cores; {versions}"
        store.with_suffix(".txt").write_text("\n".join([head, "", *lines, ""]))


if __name__ == "__main__":
    main()
