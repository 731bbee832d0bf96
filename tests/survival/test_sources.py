"""The same fit from wherever the rows are: frames, files, and a Dask collection."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from distributed import Client, LocalCluster

import causalrm as crm
from causalrm.datasets import make_survival

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # of dask and its parts

ROLES = {
    "right": {"time": "time", "event": "event", "weights": "w", "cluster": "cluster"},
    "late": {"time": "time", "event": "event", "entry": "entry"},
    "interval": {"lower": "lower", "upper": "upper", "cluster": "cluster"},
}
MODEL: dict[str, Any] = {"phi": "x1 + C(site) + arm", "gamma": "arm"}


def simulate(kind: str, n: int = 5000) -> pd.DataFrame:
    """Rows in an order that has a meaning: one arm, one site and the early times come first."""
    options: dict[str, Any] = {"late": {"entry": 0.5}, "interval": {"interval": 0.6}}.get(kind, {})
    data = make_survival(n, kappa=0.4, cluster_size=5, correlation=0.2, rng=9, **options).data
    rng = np.random.default_rng(1)
    data["w"] = rng.uniform(0.5, 3.0, n)
    data["site"] = rng.choice([10, 20, 30], n, p=[0.6, 0.3, 0.1])
    data["arm"] = np.where(data["trt"] == 1, "treated", "control")
    first = "lower" if kind == "interval" else "time"
    data = data.sort_values(["arm", "site", first], ignore_index=True)
    return data.drop(columns=["x2", "trt"])


def fit(data: Any, kind: str, **options: Any) -> Any:
    return crm.SurvivalRegression(**(MODEL | options)).fit(data, **ROLES[kind]).result_


@pytest.fixture(scope="module", params=list(ROLES))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def data(kind: str) -> pd.DataFrame:
    return simulate(kind)


@pytest.fixture(scope="module")
def expected(data: pd.DataFrame, kind: str) -> Any:
    return fit(data, kind)


def same(found: Any, expected: Any) -> None:
    assert found.term == expected.term and found.n_obs == expected.n_obs
    assert found.counts == expected.counts and found.n_events == expected.n_events
    assert found.loglik == pytest.approx(expected.loglik, rel=1e-12)
    np.testing.assert_allclose(found.estimates, expected.estimates, rtol=1e-8, atol=1e-10)
    assert set(found.covariances) == set(expected.covariances)
    for name, matrix in expected.covariances.items():
        size = np.sqrt(np.outer(np.diag(matrix), np.diag(matrix)))
        np.testing.assert_allclose(
            found.covariances[name] / size, matrix / size, rtol=0, atol=1e-8, err_msg=name
        )
    assert found.hazard_shape == expected.hazard_shape
    assert found.fingerprint == pytest.approx(expected.fingerprint, rel=1e-12)
    assert found.turning_point == pytest.approx(expected.turning_point, rel=1e-7, nan_ok=True)
    gap = expected.diagnostics.get("cox_snell_gap", np.nan)
    assert found.diagnostics.get("cox_snell_gap", np.nan) == pytest.approx(
        gap, rel=1e-6, nan_ok=True
    )


def test_frames(data: pd.DataFrame, kind: str, expected: Any) -> None:
    arrow = pa.Table.from_pandas(data)
    dictionary = arrow.set_column(
        arrow.column_names.index("arm"), "arm", arrow["arm"].dictionary_encode()
    )
    many_chunks = pa.concat_tables([arrow.slice(0, 1000), arrow.slice(1000)])
    for frame in (
        pl.from_pandas(data), arrow, dictionary, many_chunks,
        data.astype({"x1": "Float64", "site": "Int64", "arm": "category"}),
    ):  # fmt: skip
        same(fit(frame, kind), expected)
    # A double of less precision is the same to its own digits.
    rounded = fit(data.astype({"x1": "float32"}), kind)
    np.testing.assert_allclose(rounded.estimates, expected.estimates, rtol=1e-4, atol=1e-5)


def test_parquet(data: pd.DataFrame, kind: str, expected: Any, tmp_path: Path) -> None:
    one = tmp_path / "one.parquet"
    pq.write_table(pa.Table.from_pandas(data), one, row_group_size=1700)
    folder = tmp_path / "parts"
    folder.mkdir()
    for i, start in enumerate(range(0, len(data), 1300)):
        part = pa.Table.from_pandas(data.iloc[start : start + 1300])
        pq.write_table(part, folder / f"part-{i:02d}.parquet")
    for source in (str(one), pads.dataset(folder)):
        same(fit(source, kind), expected)


def test_dask(data: pd.DataFrame, kind: str, expected: Any) -> None:
    # A partition may lack levels and events, and may be empty.
    parts = dd.from_pandas(data, npartitions=3, sort=False)
    same(fit(parts, kind), expected)
    none = parts[parts["x1"] > 1e9]
    same(fit(dd.concat([parts, none], interleave_partitions=False), kind), expected)


def test_large_enough_to_start_from_a_sample(tmp_path: Path) -> None:
    data = simulate("right", 20_000)
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pandas(data), path, row_group_size=4000)
    expected = fit(data, "right")
    assert expected.diagnostics["starts"]["rows"] < len(data)
    same(fit(path, "right"), expected)
    same(fit(dd.from_pandas(data, npartitions=5, sort=False), "right"), expected)


@pytest.fixture
def cluster() -> Iterator[Client]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with (
            LocalCluster(
                n_workers=1, threads_per_worker=2, processes=True, dashboard_address=None
            ) as workers,
            Client(workers) as client,
        ):
            yield client


def test_a_worker_in_another_process(cluster: Client) -> None:
    data, near = simulate("right", 3000), {"starts": [0.3]}
    rows = dd.from_pandas(data, npartitions=3, sort=False)
    same(fit(rows, "right", **near), fit(data, "right", **near))


def test_penalties_and_families_from_parts(tmp_path: Path) -> None:
    data = simulate("right", 3000)
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pandas(data), path, row_group_size=900)
    for options in (
        {"penalty": 0.05}, {"kappa": "weibull", "phi": None, "lam": "1 + x1 + arm"},
        {"phi": "bs(x1, degree=2, knots=[0.0], lower_bound=-4, upper_bound=4) + arm:C(site)"},
    ):  # fmt: skip
        same(fit(path, "right", **options), fit(data, "right", **options))


def test_rows_in_parts_must_be_right_too(tmp_path: Path) -> None:
    data = simulate("right", 3000)
    for change, words in (
        ({"time": np.where(data.index == 2500, -1.0, data["time"])}, "1 of 3000 rows"),
        ({"event": 2 * data["event"]}, "0 .censored. or 1"),
        ({"x1": np.where(data.index == 2999, np.nan, data["x1"])}, "'x1'.*missing"),
        ({"w": -data["w"]}, "weights"),
    ):
        path = tmp_path / "bad.parquet"
        pq.write_table(pa.Table.from_pandas(data.assign(**change)), path, row_group_size=800)
        with pytest.raises(crm.DataError, match=words):
            fit(path, "right")
    with pytest.raises(crm.DataError, match="learns from all rows"):
        pq.write_table(pa.Table.from_pandas(data), path)
        fit(path, "right", phi="bs(x1, df=4)")
    model = crm.SurvivalRegression(**MODEL).fit(path, **ROLES["right"])
    with pytest.raises(crm.DataError, match="in memory"):
        model.predict_survival(path, [1.0])


# ---------------------------------------------------------------- roles and options


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    frame = make_survival(60, interval=0.6, rng=2).data
    return frame.assign(
        time=frame["lower"] + 0.1, event=np.isfinite(frame["upper"]).astype(int), entry=0.0
    )


RIGHT = {"time": "time", "event": "event"}
LATE = RIGHT | {"entry": "entry"}
BETWEEN = {"lower": "lower", "upper": "upper"}
LATE_BETWEEN = BETWEEN | {"entry": "entry"}


@pytest.mark.parametrize(
    ("roles", "change", "words"),
    [
        ({}, {}, "neither"),
        (RIGHT | BETWEEN, {}, "both"),
        ({"lower": "lower"}, {}, "lower and upper, or neither"),
        ({"time": "time", "upper": "upper"}, {}, "lower and upper, or neither"),
        (BETWEEN | {"event": "event"}, {}, "no event column beside lower and upper"),
        ({"time": 3}, {}, "column name for time"),
        (RIGHT, {"time": 0.0}, "times above 0"),
        (LATE, {"entry": -0.5}, "at least 0"),
        (LATE, {"entry": 1e3}, "'entry' and 'time', but 1 of 60 rows differ .first rows: 5"),
        (BETWEEN, {"lower": -1.0}, "at least 0"),
        (BETWEEN, {"lower": np.inf}, "'lower'.*infinite"),
        (BETWEEN, {"lower": 2.0, "upper": 1.0}, "lower ends up to the upper ends"),
        (BETWEEN, {"lower": 0.0, "upper": 0.0}, "times above 0"),
        (BETWEEN, {"upper": -np.inf}, "times above 0"),
        (BETWEEN, {"upper": np.nan}, "'upper'.*missing"),
        (LATE_BETWEEN, {"entry": 0.3, "lower": 0.2, "upper": 1.0}, "or after entry"),
        (LATE_BETWEEN, {"entry": 2.0, "lower": 0.0, "upper": 1.0}, "before the end"),
        (RIGHT | {"cluster": "c"}, {}, "no such column"),
    ],
)  # fmt: skip
def test_roles(rows: pd.DataFrame, roles: Any, change: dict[str, float], words: str) -> None:
    spoilt = rows.copy()
    for column, value in change.items():
        spoilt.loc[5, column] = value
    with pytest.raises(crm.DataError, match=words):
        crm.SurvivalRegression("x1").fit(spoilt, **roles)


def test_roles_that_say_the_same(rows: pd.DataFrame) -> None:
    def loglik(frame: pd.DataFrame, roles: dict[str, str]) -> float:
        model = crm.SurvivalRegression("x1", kappa="weibull").fit(frame, **roles)
        return float(model.result_.loglik)

    # Entry at 0 is no entry; exact intervals and open ends are times and events.
    assert loglik(rows, LATE) == pytest.approx(loglik(rows, RIGHT), rel=1e-12)
    ends = rows.assign(lower=rows["time"], upper=np.where(rows["event"] == 1, rows["time"], np.inf))
    assert loglik(ends, BETWEEN) == pytest.approx(loglik(rows, RIGHT), rel=1e-12)
    # Without an event column every time is an event; True and False are events and none.
    every = rows.assign(event=1)
    assert loglik(every, {"time": "time"}) == loglik(every, RIGHT)
    assert loglik(rows.assign(event=rows["event"] == 1), RIGHT) == loglik(rows, RIGHT)
    # A left-censored row whose observation began late.
    late = rows.assign(entry=np.where(rows["lower"] == 0, 0.05, 0.0))
    model = crm.SurvivalRegression("x1", kappa="weibull")
    model.fit(late, **BETWEEN, entry="entry")
    assert model.result_.counts["left"] == (rows["lower"] == 0).sum()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kappa": "cauchy"}, "weibull"), ({"kappa": -1}, "above -1"), ({"kappa": True}, "above"),
        ({"kappa": np.nan}, "above -1"), ({"kappa": "gompertz", "gamma": "x1"}, "fixes it at 1"),
        ({"kappa": "burr", "lam": "x1"}, "starts with '1 [+]'"), ({"penalty": -1.0}, "penalty"),
        ({"l1_ratio": 1.5, "penalty": 1.0}, "l1_ratio"), ({"covariance": "hc3"}, "'robust'"),
        ({"penalty": "strong"}, "penalty"), ({"penalty": np.nan}, "penalty"),
        ({"starts": []}, "starts"), ({"starts": ["a"]}, "starts"), ({"starts": [99.0]}, "starts"),
        ({"max_iter": 0}, "max_iter"), ({"max_iter": 2.5}, "whole number"),
        ({"phi": None, "gamma": None, "kappa": 1}, "at least one free parameter"),
        ({"phi": "time ~ x1"}, "right-hand side"), ({"phi": "nothing"}, "no such column"),
        ({"phi": 3}, "formula or a list"), ({"phi": "x1 +"}, "cannot be read"),
    ],
)  # fmt: skip
def test_options(rows: pd.DataFrame, options: dict[str, Any], words: str) -> None:
    with pytest.raises(crm.DataError, match=words):
        crm.SurvivalRegression(**options).fit(rows, **RIGHT)


def test_no_scale_depends_on_the_unit_of_time(rows: pd.DataFrame) -> None:
    with pytest.warns(crm.IdentificationWarning, match="changes with the unit of time"):
        crm.SurvivalRegression(phi=None, lam="1 + x1", kappa=0.5).fit(rows, **RIGHT)
    crm.SurvivalRegression(phi=None, lam="1 + x1", kappa=1).fit(rows, **RIGHT)
