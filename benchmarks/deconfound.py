"""Partialling out against EconML and DoubleML, fixed effects against pyfixest: same rows, one run.

Every job runs in a process of its own, which makes simulated rows from a seed, runs once on few
rows (compiled kernels, imports), then some times. The least CPU time counts; everybody has one
thread. Memory is the peak of the first full run beyond what the process held before it, which were
the rows. EconML's LinearDML and DoubleML's PLR get scikit-learn's linear regression as both
nuisances and our folds, so that estimates must agree. pyfixest runs each of its solvers that
finishes. Peers that are not installed are left out, and said so.

    python benchmarks/deconfound.py             # 1e6 rows, and 1e7 rows of parquet; some minutes
    python benchmarks/deconfound.py --quick     # 1e5 rows, and 1e6 rows of parquet

Writes benchmarks/results/deconfound.csv and .txt and prints times, ratios and targets.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

THREADS = "1"  # or threads of BLAS that wait for work would count as CPU time
HERE = Path(__file__).resolve().parent
FOLDS, SEED = 5, 20250600
Values = dict[str, list[float]]

# --- partially linear models ----------------------------------------------------------------------


def make_linear(job: str, n: int) -> tuple[Any, ...]:
    """Simulated outcome, confounder and text features."""
    import numpy as np

    p = int(job.split("=")[1])
    rng = np.random.default_rng(1)
    x = rng.normal(size=(n, p))
    d = x @ rng.normal(size=p) / p**0.5 + rng.normal(size=n)
    y = 0.5 * d + x @ rng.normal(size=p) / p**0.5 + rng.normal(size=n)
    return y, d, x


def ours_linear(y: Any, d: Any, x: Any) -> Values:
    import numpy as np

    from causalrm.core.blocks import Rows
    from causalrm.deconfound.folds import Columns, Folds, with_folds
    from causalrm.deconfound.linear_effect import linear_effect
    from causalrm.deconfound.linear_nuisance import partial_out

    rows = with_folds(Rows({"y": y, "d": d, "x": x}, len(y)), Folds(FOLDS, SEED))
    nuisance = partial_out(
        rows, outcome="y", confounders=Columns(("d",), ("d",)), n_folds=FOLDS,
        controls=Columns(("x",), tuple(f"x{j}" for j in range(x.shape[1]))),
    )  # fmt: skip
    effect = linear_effect(rows, nuisance)
    return {"estimate": effect.theta.tolist(), "se": np.sqrt(np.diag(effect.covariance)).tolist()}


def splits(n: int) -> list[tuple[Any, Any]]:
    """Our folds, as indices of training and test rows."""
    import numpy as np

    from causalrm.deconfound._kernels import fold_codes

    codes = fold_codes(np.arange(n), FOLDS, SEED)
    return [(np.flatnonzero(codes != f), np.flatnonzero(codes == f)) for f in range(FOLDS)]


def econml(y: Any, d: Any, x: Any) -> Values:
    import numpy as np
    from econml.dml import LinearDML
    from econml.inference import StatsModelsInference
    from sklearn.linear_model import LinearRegression

    model = LinearDML(model_y=LinearRegression(), model_t=LinearRegression(), cv=splits(len(y)))
    model.fit(y, d, X=None, W=x, inference=StatsModelsInference(cov_type="HC0"))
    return {
        "estimate": np.ravel(model.const_marginal_effect()).tolist(),
        "se": np.ravel(model.intercept__inference().stderr).tolist(),
    }


def doubleml(y: Any, d: Any, x: Any) -> Values:
    from doubleml import DoubleMLData, DoubleMLPLR
    from sklearn.linear_model import LinearRegression

    data = DoubleMLData.from_arrays(x, y, d)
    model = DoubleMLPLR(
        data, LinearRegression(), LinearRegression(), n_folds=FOLDS, draw_sample_splitting=False
    )
    model.set_sample_splitting(splits(len(y)))
    model.fit(store_predictions=False)
    return {"estimate": model.coef.tolist(), "se": model.se.tolist()}


# --- rows larger than memory ----------------------------------------------------------------------


def make_parquet(job: str, n: int) -> tuple[Any, ...]:
    """A folder of parquet files of 500,000 rows each, with 20 features."""
    import numpy as np
    import pandas as pd

    folder = tempfile.TemporaryDirectory(prefix="deconfound-")
    rng = np.random.default_rng(2)
    for part, start in enumerate(range(0, n, 500_000)):
        x = rng.normal(size=(min(500_000, n - start), 20))
        d = x[:, :5].sum(axis=1) + rng.normal(size=len(x))
        y = 0.5 * d + x[:, 5:].sum(axis=1) + rng.normal(size=len(x))
        names = [f"x{j}" for j in range(20)]
        frame = pd.DataFrame(x, columns=names).assign(d=d, y=y)
        frame.to_parquet(f"{folder.name}/{part:03d}.parquet", index=False, compression=None)
    return (folder,)


def ours_parquet(folder: Any) -> Values:
    import numpy as np

    from causalrm.core.design import formula_text, prepare
    from causalrm.deconfound.folds import Columns, Folds, with_folds
    from causalrm.deconfound.linear_effect import linear_effect
    from causalrm.deconfound.linear_nuisance import partial_out

    text = formula_text([f"x{j}" for j in range(20)], "text")
    _, rows, designs, _ = prepare(folder.name, {"text": text}, numbers=["y", "d"])
    rows = with_folds(rows, Folds(FOLDS, SEED))
    nuisance = partial_out(
        rows, outcome="y", confounders=Columns(("d",), ("d",)), n_folds=FOLDS,
        controls=designs["text"],
    )  # fmt: skip
    effect = linear_effect(rows, nuisance)
    return {"estimate": effect.theta.tolist(), "se": np.sqrt(np.diag(effect.covariance)).tolist()}


# --- fixed effects --------------------------------------------------------------------------------


def make_effects(job: str, n: int) -> tuple[Any, ...]:
    """Simulated panels: users and items at random, or users who stay with neighbouring items."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(3)
    if job.startswith("easy"):
        user, item = rng.integers(0, n // 20, n), rng.integers(0, max(n // 1000, 50), n)
    else:
        user = np.repeat(np.arange(n // 10), 10)
        items = n // 100
        moves = np.where(rng.random(n) < 0.02, rng.integers(-2, 3, n), 0)
        item = np.clip(rng.integers(0, items, n // 10)[user] + moves, 0, items - 1)
    x = rng.normal(size=(n, 2)) + (item / item.max())[:, None]
    y = x @ [1.0, 2.0] + rng.normal(size=user.max() + 1)[user] + rng.normal(size=n)
    y += np.cumsum(rng.normal(size=item.max() + 1))[item] / 10
    columns = {"y": y, "x1": x[:, 0], "x2": x[:, 1], "user": user, "item": item}
    return (pd.DataFrame(columns | {"day": rng.integers(0, 30, n)}),)


def absorbed(job: str) -> list[str]:
    return ["user", "item", "day"] if "3" in job else ["user", "item"]


def ours_effects(job: str) -> Callable[..., Values]:
    from causalrm.deconfound.absorb import absorbed_regression

    def run(df: Any) -> Values:
        fit = absorbed_regression(df, y="y", x=["x1", "x2"], absorb=absorbed(job), cluster="user")
        return {"estimate": fit.estimates.tolist(), "se": fit.std_error.tolist()}

    return run


def pyfixest(kind: str) -> Callable[[str], Callable[..., Values]]:
    def prepare_run(job: str) -> Callable[..., Values]:
        import pyfixest as pf
        from pyfixest.demeaners import LsmrDemeaner, MapDemeaner

        solver = {
            "map": MapDemeaner(fixef_tol=1e-8),
            "lsmr": LsmrDemeaner(),
        }[kind]

        def run(df: Any) -> Values:
            fit = pf.feols(
                f"y ~ x1 + x2 | {' + '.join(absorbed(job))}", df, vcov={"CRV1": "user"},
                demeaner=solver, copy_data=False, store_data=False, fixef_rm="singleton",
            )  # fmt: skip
            return {"estimate": fit.coef().tolist(), "se": fit.se().tolist()}

        return run

    return prepare_run


def plain(function: Callable[..., Values]) -> Callable[[str], Callable[..., Values]]:
    return lambda job: function


LINEAR, EFFECTS = ("PLR p=20", "PLR p=100"), ("easy", "weak", "weak, 3 factors")
JOBS: dict[tuple[str, str], tuple[Callable[..., Any], Callable[[str], Callable[..., Values]]]] = {}
for name in LINEAR:
    JOBS["causalrm", name] = make_linear, plain(ours_linear)
    JOBS["econml", name] = make_linear, plain(econml)
    JOBS["doubleml", name] = make_linear, plain(doubleml)
for name in EFFECTS:
    JOBS["causalrm", name] = make_effects, ours_effects
    JOBS["pyfixest lsmr", name] = make_effects, pyfixest("lsmr")
JOBS["pyfixest map", "easy"] = make_effects, pyfixest("map")  # elsewhere it does not finish
JOBS["causalrm", "parquet"] = make_parquet, plain(ours_parquet)
SPEED = {"econml": 25.0, "doubleml": 10.0}  # at least as many times as fast
MEMORY = 0.2  # of theirs, at most
BEST_SOLVER = 2.0  # times the time of pyfixest's best solver, at most


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
    make, get = JOBS[tool, job]
    try:
        run = get(job)
        run(*make(job, 20_000))
    except ImportError as error:
        return {**start, "missing": str(error)}
    data = make(job, n)
    gc.collect()
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak restarts from here
    cpu, wall = [], []
    while len(cpu) < repeats and sum(wall) < 20:
        begin, clock = time.process_time(), time.perf_counter()
        values = run(*data)
        cpu.append(time.process_time() - begin)
        wall.append(time.perf_counter() - clock)
        if len(cpu) == 1:
            peak = memory("VmHWM") - before
    return {
        **start, "cpu": min(cpu), "wall": min(wall), "peak_mb": max(peak, 0) / 2**20, **values,
    }  # fmt: skip


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows")
    parser.add_argument("--only", help="jobs whose name contains this")
    parser.add_argument("--child", nargs=4, metavar=("TOOL", "JOB", "N", "REPEATS"))
    args = parser.parse_args()
    if args.child:
        tool, job, n, repeats = args.child
        print(json.dumps(child(tool, job, int(n), int(repeats))))
        return
    threads = (
        "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS",
        "RAYON_NUM_THREADS", "CAUSALRM_NUM_THREADS",
    )  # fmt: skip
    environment = {**os.environ, **dict.fromkeys(threads, THREADS)}
    rows: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    for tool, job in JOBS:
        if tool in missing or (args.only and args.only not in job):
            continue
        n = (10**6 if args.quick else 10**7) if job == "parquet" else 10**6
        n = 10**5 if args.quick and job != "parquet" else n
        command = [sys.executable, __file__, "--child", tool, job, str(n), "3"]
        out = subprocess.run(command, capture_output=True, text=True, env=environment)
        if out.returncode:
            raise SystemExit(f"{tool}, {job} failed:\n{out.stderr[-3000:]}")
        row = json.loads(out.stdout.splitlines()[-1])
        if "missing" in row:
            missing[tool] = row["missing"]
            print(f"{tool} is left out: {row['missing']}", flush=True)
            continue
        rows.append(row)
        text = f"{row['cpu']:9.3f} CPU s {row['wall']:9.3f} s {row['peak_mb']:7.0f} MB"
        print(f"{tool + ', ' + job:32s} {n:>10,} {text}", flush=True)
    show(rows, missing, bool(args.quick or args.only))


def verdict(met: bool) -> str:
    return "met" if met else "MISSED"


def gap(one: dict[str, Any], two: dict[str, Any], what: str) -> float:
    """Largest relative difference of estimates or standard errors."""
    return max(abs(a / b - 1) for a, b in zip(one[what], two[what], strict=True))


def show(rows: list[dict[str, Any]], missing: dict[str, str], partial: bool) -> None:
    """Print ratios and targets, and store them."""
    import pandas as pd

    found = {(r["tool"], r["job"]): r for r in rows}
    lines = []
    for job in LINEAR:
        we = found.get(("causalrm", job))
        for tool, target in SPEED.items():
            they = found.get((tool, job))
            if not we or not they:
                continue
            ratio, share = they["cpu"] / we["cpu"], we["peak_mb"] / max(they["peak_mb"], 1e-9)
            worst = gap(we, they, "estimate")
            lines.append(
                f"{job}, n = {we['n']:,}, v {tool}: {ratio:.1f}x as fast (target {target:g}, "
                f"{verdict(ratio >= target)}); memory {share:.3f} of theirs (target {MEMORY:g}, "
                f"{verdict(share <= MEMORY)}); estimates differ by {worst:.0e} (target 1e-8, "
                f"{verdict(worst <= 1e-8)}), standard errors by {gap(we, they, 'se'):.0e}"
            )
    for job in EFFECTS:
        we = found.get(("causalrm", job))
        peers = [r for r in rows if r["tool"].startswith("pyfixest") and r["job"] == job]
        if not we or not peers:
            continue
        best = min(peers, key=lambda r: r["cpu"])
        ratio = we["cpu"] / best["cpu"]
        lines.append(
            f"fixed effects, {job}, n = {we['n']:,}: {ratio:.2f} times the time of {best['tool']} "
            f"(target {BEST_SOLVER:g}, {verdict(ratio <= BEST_SOLVER)}); memory "
            f"{we['peak_mb'] / max(best['peak_mb'], 1e-9):.2f} of theirs; estimates differ by "
            f"{gap(we, best, 'estimate'):.0e}, standard errors by {gap(we, best, 'se'):.0e}"
        )
    parquet = found.get(("causalrm", "parquet"))
    if parquet:
        lines.append(
            f"parquet, 20 features, n = {parquet['n']:,}: {parquet['cpu']:.1f} CPU s, "
            f"{parquet['wall']:.1f} s, peak {parquet['peak_mb']:,.0f} MB of "
            f"{parquet['n'] * 22 * 8 / 2**20:,.0f} MB of data"
        )
    lines += [f"{tool} was left out: {why}" for tool, why in missing.items()]
    print("\n" + "\n".join(lines))
    if not partial:
        from importlib.metadata import version

        folder = HERE / "results"
        folder.mkdir(exist_ok=True)
        pd.DataFrame(rows).to_csv(folder / "deconfound.csv", index=False)
        tools = sorted({r["tool"].split()[0] for r in rows} - {"causalrm"})
        versions = ", ".join(f"{p} {version(p)}" for p in ["causalrm", *tools, "numpy", "numba"])
        head = f"{platform.machine()}, {os.cpu_count()} cores, {THREADS} thread; {versions}"
        (folder / "deconfound.txt").write_text("\n".join([head, "", *lines, ""]))


if __name__ == "__main__":
    main()
