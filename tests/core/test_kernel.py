from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core.caching import FunctionCache, NullCache

from causalrm.core import kernel as module
from causalrm.core.kernel import kernel

ROOT = Path(__file__).parents[2]


@kernel(inline=True)
def _half(x: float) -> float:
    """Half of a number."""
    return 0.5 * x


@kernel
def _halves(x: np.ndarray) -> float:
    """Sum of halves."""
    total = 0.0
    for v in x:
        total += _half(v)
    return total


@kernel(reassociate=True)
def _sum(x: np.ndarray) -> float:
    total = 0.0
    for v in x:
        total += v
    return total


def test_kernels_compute_and_are_cached() -> None:
    assert _halves(np.arange(5.0)) == 5.0
    assert _sum(np.ones(1001)) == 1001.0
    assert isinstance(_halves._cache, FunctionCache)
    assert _halves.__doc__ == "Sum of halves." and _halves.py_func(np.ones(2)) == 1.0


def test_options() -> None:
    for function in (_half, _halves, _sum):
        options = function.targetoptions
        assert options["nogil"] and options["nopython"] and options["error_model"] == "numpy"
        assert not options.get("parallel")
    assert not _halves.targetoptions.get("fastmath")
    assert _sum.targetoptions["fastmath"] == {"reassoc", "contract", "nsz"}


def test_division_and_infinities_are_those_of_numpy() -> None:
    @kernel
    def ratio(a: float, b: float) -> float:
        return a / b

    assert ratio(1.0, 0.0) == np.inf and np.isnan(ratio(0.0, 0.0))
    assert _sum(np.array([np.inf, 1.0])) == np.inf and np.isnan(_sum(np.array([np.nan, 1.0])))


def test_sums_repeat_themselves() -> None:
    x = np.random.default_rng(0).lognormal(sigma=5, size=10_001)
    assert len({_sum(x) for _ in range(5)}) == 1
    assert _sum(x) == pytest.approx(x.sum(), rel=1e-12)


def test_kernels_run_without_the_gil() -> None:
    x = np.zeros(20_000_000)
    _halves(x[:1])
    worker = threading.Thread(target=_halves, args=(x,))
    worker.start()
    ticks = 0
    while worker.is_alive():
        ticks += 1
    assert ticks > 100


def test_without_a_place_for_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    jit = numba.jit

    def refuses(*args: object, **options: object) -> object:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return jit(*args, **options)

    monkeypatch.setattr(module.numba, "jit", refuses)

    @kernel
    def double(x: float) -> float:
        return 2 * x

    assert double(4.0) == 8.0 and isinstance(double._cache, NullCache)


SCRIPT = """
from causalrm.core.kernel import kernel
@kernel
def one(x):
    return x + 1
assert one(1) == 2
print(type(one._cache).__name__)
"""
UNWRITABLE = """
import numba.core.caching as caching
def refuses(self):
    raise OSError(30, "Read-only file system")
for locator in vars(caching).values():
    if isinstance(locator, type) and "ensure_cache_path" in vars(locator):
        locator.ensure_cache_path = refuses
"""


@pytest.mark.parametrize("writable", [True, False])
def test_where_the_cache_goes(tmp_path: Path, writable: bool) -> None:
    """In a process of its own; root may write anywhere, so that numba is told that it cannot."""
    script, folder = tmp_path / "own.py", tmp_path / "cache"
    script.write_text(SCRIPT if writable else UNWRITABLE + SCRIPT)
    environment = dict(os.environ, PYTHONPATH=str(ROOT), NUMBA_CACHE_DIR=str(folder))
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)], env=environment, capture_output=True,
        text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ("FunctionCache" if writable else "NullCache")
    assert bool(list(folder.rglob("*.nbi"))) is writable
