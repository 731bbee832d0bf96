from __future__ import annotations

import multiprocessing
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalrm import DataError
from causalrm.core import blocks
from causalrm.core import frame as frame_module
from causalrm.core.blocks import BLOCK, BatchRows, Block, Rows, add, each, length, pieces
from causalrm.core.frame import Source, scan

N = 20_000
RNG = np.random.default_rng(3)
FRAME = pd.DataFrame({"x": RNG.lognormal(sigma=3, size=N), "g": RNG.integers(0, 3, N)})


def moments(block: blocks.Block, power: float = 1.0) -> tuple[Any, ...]:
    x = block["x"] ** power
    return x.sum(), np.array([np.log(x + 1).sum(), x @ x]), len(x)


def memory(frame: pd.DataFrame = FRAME) -> Rows:
    return scan(Source(frame), numbers=["x"], categories=["g"])[1]


def dask(frame: pd.DataFrame = FRAME, npartitions: int = 3) -> Rows:
    collection = dd.from_pandas(frame, npartitions=npartitions)
    return scan(Source(collection), numbers=["x"], categories=["g"])[1]


def parquet(folder: Path, frame: pd.DataFrame = FRAME) -> Rows:
    pq.write_table(pa.Table.from_pandas(frame), folder / "rows.parquet", row_group_size=3_000)
    return scan(Source(folder / "rows.parquet"), numbers=["x"], categories=["g"])[1]


# ---------------------------------------------------------------- sums


@pytest.mark.parametrize("n", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 65 * BLOCK + 7])
def test_same_bits_for_any_number_of_threads(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(n).lognormal(sigma=4, size=n)
    rows = Rows({"x": x}, n)
    found = []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("CAUSALRM_NUM_THREADS", threads)
        found.append(rows.total(moments, 0.5))
    for total, pair, count in found:
        assert total == found[0][0] and pair.tolist() == found[0][1].tolist() and count == n
    assert found[0][0] == pytest.approx(np.sqrt(x).sum(), rel=1e-12)


def test_blocks_have_their_size() -> None:
    sizes: list[int] = []
    Rows({"x": np.arange(2 * BLOCK + 5)}, 2 * BLOCK + 5).total(
        lambda block: (sizes.append(len(block["x"])) or 0,)
    )
    assert sorted(sizes) == [5, BLOCK, BLOCK]
    found = [(start, len(block["x"])) for start, block in pieces({"x": np.zeros(2 * BLOCK + 5)})]
    assert found == [(0, BLOCK), (BLOCK, BLOCK), (2 * BLOCK, 5)]


def test_blocks_are_added_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAUSALRM_NUM_THREADS", "4")
    n = 200 * BLOCK  # several blocks to a task
    (first,) = Rows({"x": np.arange(n)}, n).total(lambda block: ([int(block["x"][0])],))
    assert first == list(range(0, n, BLOCK))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6).filter(any))
def test_parts_sum_to_the_whole(sizes: list[int]) -> None:
    stops = np.cumsum(sizes)
    x = FRAME["x"].to_numpy()[: stops[-1]]
    parts = [{"x": x[b - n : b]} for n, b in zip(sizes, stops, strict=True)]

    class Part(dict[str, np.ndarray]):
        def __len__(self) -> int:
            return len(self["x"])

    rows = BatchRows(lambda: map(Part, parts), dict, len(x))
    total, _, count = rows.total(moments)
    assert count == len(x) and total == pytest.approx(x.sum(), rel=1e-13)
    starts = [first for first, _ in rows.parts()]
    assert starts == [b - n for n, b in zip(sizes, stops, strict=True) if n]


def test_every_source_has_the_same_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_module, "_BATCH", 7_000)
    expected = memory().total(moments, 0.5)
    for rows in (parquet(tmp_path), dask(), dask(npartitions=1)):
        assert rows.n_obs == N
        found = rows.total(moments, 0.5)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)


def test_sums_of_nothing() -> None:
    rows = BatchRows(lambda: iter([FRAME.iloc[:0]]), dict, 0)
    with pytest.raises(DataError, match="hold none. Give at least one row"):
        rows.total(moments)
    with pytest.raises(DataError, match="hold none"):
        blocks.DaskRows([], dict, []).total(moments)


def test_add() -> None:
    assert add(None, (1, 2.0)) == (1, 2.0)
    assert add((1, 2.0), (3, 4.0)) == (4, 6.0)
    with pytest.raises(ValueError, match="shorter|longer"):
        add((1,), (1, 2))
    assert length({"x": np.ones(3)}) == 3


# ---------------------------------------------------------------- threads


def test_errors_come_from_the_first_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAUSALRM_NUM_THREADS", "3")
    n = 10 * BLOCK

    def fails(block: blocks.Block) -> tuple[int]:
        if block["x"][0] >= BLOCK:
            raise DataError(f"block {int(block['x'][0]) // BLOCK}")
        return (1,)

    with pytest.raises(DataError, match="block 1$"):
        Rows({"x": np.arange(n)}, n).total(fails)
    assert Rows({"x": np.zeros(n)}, n).total(fails) == (10,)  # the pool still works


def test_numpy_settings_of_the_caller_hold_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    n = 8 * BLOCK
    rows = Rows({"x": np.zeros(n)}, n)

    def divides(block: blocks.Block) -> tuple[float]:
        return (float((1.0 / block["x"]).max()),)

    for threads in ("1", "4"):
        monkeypatch.setenv("CAUSALRM_NUM_THREADS", threads)
        with np.errstate(divide="ignore"):
            assert rows.total(divides) == (np.inf,)
        with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
            rows.total(divides)


def test_small_work_starts_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAUSALRM_NUM_THREADS", "4")
    main = threading.get_ident()
    seen: set[int] = set()
    Rows({"x": np.zeros(BLOCK)}, BLOCK).total(lambda b: (seen.add(threading.get_ident()) or 0,))
    assert seen == {main}
    assert list(each(lambda i: i * i, [3])) == [9] and list(each(str, [])) == []
    assert list(each(lambda i: i * i, list(range(50)))) == [i * i for i in range(50)]


def _in_fork(queue: Any) -> None:
    n = 4 * BLOCK
    queue.put(Rows({"x": np.ones(n)}, n).total(lambda block: (block["x"].sum(),)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform cannot fork")
def test_a_forked_process_has_threads_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAUSALRM_NUM_THREADS", "2")
    Rows({"x": np.ones(4 * BLOCK)}, 4 * BLOCK).total(lambda block: (block["x"].sum(),))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's own advice against forks
        process = context.Process(target=_in_fork, args=(queue,))
        process.start()
    try:
        assert queue.get(timeout=30) == (4 * BLOCK,)
    finally:
        process.kill()
        process.join()


# ---------------------------------------------------------------- samples


@pytest.mark.parametrize("size", [1, 7, 1_000, N - 1])
def test_samples_are_stratified_and_the_same_everywhere(size: int, tmp_path: Path) -> None:
    frame = FRAME.assign(x=np.arange(N) + 1.0)
    sample = memory(frame).sample(size)
    x = sample.columns["x"] - 1
    assert sample.n_obs == len(x) == size and sample.in_memory
    stretch = N / size
    assert (np.abs(x - stretch * (np.arange(size) + 0.5)) <= stretch / 2 + 1).all()
    assert (np.diff(x) > 0).all()
    for rows in (memory(frame), parquet(tmp_path, frame), dask(frame)):
        again = rows.sample(size)
        for name, values in sample.columns.items():
            np.testing.assert_array_equal(again.columns[name], values)


@pytest.mark.parametrize("size", [N, N + 1])
def test_a_large_sample_is_all_rows(size: int, tmp_path: Path) -> None:
    rows = memory()
    assert rows.sample(size) is rows
    for parts in (parquet(tmp_path), dask()):
        sample = parts.sample(size)
        assert sample.in_memory and sample.n_obs == N
        np.testing.assert_array_equal(sample.columns["x"], rows.columns["x"])


# ---------------------------------------------------------------- clusters


class Fragile:
    """Sums that take a worker down the first time."""

    def __init__(self, marker: Path):
        self.marker = str(marker)

    def __call__(self, block: blocks.Block, power: float) -> tuple[Any, ...]:
        try:
            os.close(os.open(self.marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return moments(block, power)
        os._exit(1)


@pytest.fixture
def cluster() -> Iterator[Any]:
    import logging

    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        ) as workers,
        Client(workers) as client,
    ):  # fmt: skip
        yield client


def test_a_cluster_loses_a_worker(cluster: Any, tmp_path: Path) -> None:
    rows = dask()
    expected = memory().total(moments, 0.5)
    for function in (Fragile(tmp_path / "marker"), moments):
        for a, b in zip(rows.total(function, 0.5), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)
    assert (tmp_path / "marker").exists()
    sample = memory().sample(50)
    np.testing.assert_array_equal(rows.sample(50).columns["x"], sample.columns["x"])
    bad = FRAME.assign(x=np.where(FRAME.index == 15_000, np.nan, FRAME["x"]))
    with pytest.raises(DataError, match=r"1 of 20000 are missing \(first rows: 15000\)"):
        dask(bad)


def test_grouped_sums_are_bincounts() -> None:
    rng = np.random.default_rng(5)
    n, groups = 20_000, 700
    x, codes = rng.normal(size=n), rng.integers(groups, size=n)
    rows = Rows({"x": x, "g": codes}, n)

    def values(block: Block, a: float) -> np.ndarray:
        return np.stack([a * block["x"], block["x"] ** 2])

    sums = rows.grouped(values, "g", groups, 2.0)
    expected = np.stack(
        [np.bincount(codes, weights=w, minlength=groups) for w in (2 * x, x**2)], axis=1
    )
    np.testing.assert_allclose(sums, expected, rtol=1e-12, atol=1e-12)
