"""Rows and tasks on a cluster of two workers: the same answers, also when a worker is killed."""

from __future__ import annotations

import inspect
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import distributed
import joblib
import numpy as np
import pandas as pd
import pytest

import causalrm as crm
from causalrm.core import parallel

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning"),  # of dask and its parts
    pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals"),
]

N, PARTS = 1200, 4


def rows() -> pd.DataFrame:
    """Columns for every estimator below."""
    rng = np.random.default_rng(7)
    x, z, hour = rng.normal(size=(3, N))
    a = rng.integers(0, 6, N)
    b = (a + rng.integers(1, 6, N)) % 6
    u, p = rng.random(N), 1 / (1 + np.exp(0.3 * (b - a)))
    time = rng.weibull(1.4, N) * np.exp(0.3 * x)
    return pd.DataFrame(
        {
            "x": x, "z": z, "hour": hour + 0.5 * z, "clicks": 0.5 * hour + x + rng.normal(size=N),
            "site": "site " + pd.Series(rng.integers(0, 40, N)).astype(str),
            "time": np.minimum(time, 1.5), "event": (time < 1.5).astype(int),
            "a": "item " + pd.Series(a).astype(str), "b": "item " + pd.Series(b).astype(str),
            "winner": np.select([u < p - 0.1, u < p + 0.1], [1.0, 0.5], 0.0),
        }
    )  # fmt: skip


def votes(estimator: Any, data: Any) -> np.ndarray:
    fit = estimator.fit(data, a="a", b="b", outcome="winner", cluster="site")
    return np.r_[fit.result_.estimates, fit.result_.std_error]


def survival(data: Any) -> np.ndarray:
    fit = crm.SurvivalRegression(phi="x", gamma="x").fit(data, time="time", event="event")
    return np.r_[fit.result_.estimates, fit.result_.std_error]


def selected(data: Any) -> np.ndarray:
    found = crm.survival.select(
        data, "x", time="time", event="event", families=("weibull",), structures=("null", "aft"),
        n_jobs=2,
    )  # fmt: skip
    return found.to_frame()["aic"].to_numpy()


def reward(data: Any) -> np.ndarray:
    fit = crm.DeconfoundedReward(rng=3)
    fit.fit(data, outcome="clicks", text=["x", "z"], confounders="hour")
    return np.r_[fit.result_.estimates, fit.result_.std_error]


def effect(data: Any) -> np.ndarray:
    found = crm.deconfound.average_effect(
        data,
        outcome="clicks",
        treatment="hour",
        covariates="x + z",
        method="plr",
        cluster="site",
        rng=3,
    )
    return found.to_frame()[["estimate", "std_error"]].to_numpy().ravel()


def absorbed(data: Any) -> np.ndarray:
    found = crm.deconfound.absorbed_regression(data, y="clicks", x=["x", "hour"], absorb=["site"])
    return found.to_frame()[["estimate", "std_error"]].to_numpy().ravel()


CASES: dict[str, Callable[[Any], np.ndarray]] = {
    "SurvivalRegression.fit": survival,
    "survival.select": selected,
    "BradleyTerry.fit": lambda data: votes(crm.BradleyTerry(), data),
    "GeneralPreference.fit": lambda data: votes(crm.GeneralPreference(rank=2), data),
    "Thurstone.fit": lambda data: votes(crm.Thurstone(penalty=1.0), data),
    "DeconfoundedReward.fit": reward,
    "deconfound.average_effect": effect,
    "deconfound.absorbed_regression": absorbed,
}


def claims() -> set[str]:
    """Public functions and fits whose docstring takes a Dask data frame."""
    found = {}
    for name in crm.__all__:
        thing = getattr(crm, name)
        if inspect.isclass(thing):
            found[f"{name}.fit"] = getattr(thing, "fit", None)
        elif inspect.ismodule(thing):
            for inner in thing.__all__:
                value = getattr(thing, inner)
                if inspect.isfunction(value):
                    found[f"{name}.{inner}"] = value
    return {name for name, thing in found.items() if "Dask data frame" in (thing.__doc__ or "")}


def test_every_claim_has_a_case() -> None:
    assert claims() == set(CASES)


@pytest.fixture(scope="module")
def client() -> Iterator[distributed.Client]:
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.wait_for_workers(2)
        yield client


class Partition:
    """Reads a part of the rows; the worker that is told to dies over it, once."""

    def __init__(self, data: pd.DataFrame, fuse: Path | None = None) -> None:
        self.data, self.fuse = data, fuse

    def __call__(self, part: int) -> pd.DataFrame:
        if part == 2 and self.fuse is not None and self.fuse.exists():
            self.fuse.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.data.iloc[part * N // PARTS : (part + 1) * N // PARTS]


def on_cluster(data: pd.DataFrame, fuse: Path | None = None) -> Any:
    return dd.from_map(Partition(data, fuse), range(PARTS), meta=data.head(0))


@pytest.mark.parametrize("name", CASES)
def test_rows(name: str, client: distributed.Client) -> None:
    data = rows()
    expected = CASES[name](data)
    assert np.isfinite(expected).any()
    before = client.scheduler_info()["workers"].keys()
    np.testing.assert_allclose(CASES[name](on_cluster(data)), expected, rtol=1e-7, atol=1e-10)
    assert client.scheduler_info()["workers"].keys() == before


QUICK = ("BradleyTerry.fit", "deconfound.absorbed_regression")


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in CASES]
)
def test_a_worker_killed_in_the_middle(
    name: str, client: distributed.Client, tmp_path: Path
) -> None:
    data = rows()
    expected = CASES[name](data)
    fuse = tmp_path / "fuse"
    fuse.touch()
    np.testing.assert_allclose(CASES[name](on_cluster(data, fuse)), expected, rtol=1e-7, atol=1e-10)
    assert not fuse.exists()  # a worker did die
    client.wait_for_workers(2)


def double(task: tuple[int, Path]) -> tuple[int, int]:
    value, fuse = task
    if value == 3 and fuse.exists():
        fuse.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * value, os.getpid()


@pytest.mark.parametrize("killed", [False, True])
def test_tasks(killed: bool, client: distributed.Client, tmp_path: Path) -> None:
    fuse = tmp_path / "fuse"
    if killed:
        fuse.touch()
    with joblib.parallel_config(backend="dask"):
        found = parallel.map(double, [(i, fuse) for i in range(6)])
    assert [value for value, _ in found] == [0, 2, 4, 6, 8, 10]
    assert os.getpid() not in {process for _, process in found}
    assert not fuse.exists()
    client.wait_for_workers(2)


def test_tasks_of_estimators(client: distributed.Client) -> None:
    data = rows()
    model = crm.SelectiveLabelsModel(risk="x", rng=1)
    looked = data.assign(
        tested=(data["x"] + data["z"] > 0).astype(int),
        outcome=lambda d: np.where(d["tested"] == 1, d["event"], np.nan),
    ).head(300)
    fit = model.fit(looked, tested="tested", outcome="outcome")

    def both() -> tuple[np.ndarray, pd.DataFrame]:
        check = crm.risk.simulation_based_calibration(fit, n_datasets=4, draws=32, rng=5)
        return selected(data), check.positions

    with joblib.parallel_config(backend="sequential"):
        aic, positions = both()
    with joblib.parallel_config(backend="dask"):
        other_aic, other_positions = both()
    np.testing.assert_allclose(other_aic, aic, rtol=1e-10)
    pd.testing.assert_frame_equal(other_positions, positions)
