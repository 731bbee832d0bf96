"""Data sets of observational studies: shapes and published means."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

from causalrm import datasets
from causalrm.core.errors import DataError, MissingDependencyError


def test_401k(data_folder: Path) -> None:
    df = datasets.fetch_401k()
    assert df.shape == (9915, 14)
    sums = {"e401": 3682, "p401": 2594, "age": 407112, "fsize": 28415, "educ": 130940}
    assert df[list(sums)].sum().to_dict() == sums
    original = datasets.fetch_401k(data_folder / "sipp1991" / "original" / "sipp1991.dta")
    pd.testing.assert_frame_equal(original, df)


def test_401k_refuses_another_file(tmp_path: Path) -> None:
    other = tmp_path / "sipp1991.csv.gz"
    other.write_bytes(b"age,inc")
    with pytest.raises(DataError, match="not the published one"):
        datasets.fetch_401k(other)


def test_job_training() -> None:
    nsw, cps = datasets.load_lalonde(), datasets.load_cps()
    assert list(nsw) == list(cps) and len(nsw) == 445 and len(cps) == 15_992
    assert nsw["treat"].sum() == 185 and cps["treat"].sum() == 0
    assert nsw.groupby("treat")["re78"].mean().round(2).to_list() == [4554.80, 6349.14]
    nsw.loc[:, "age"] = 0  # a copy of its own
    assert datasets.load_lalonde()["age"].min() == 17


def test_nhefs() -> None:
    df = datasets.load_nhefs()
    assert df.shape == (1566, 67) and df["qsmk"].sum() == 403
    assert not df[["wt82_71", "age", "smokeintensity", "wt71"]].isna().any().any()


def test_thornton() -> None:
    df = datasets.load_thornton()
    assert len(df) == 2894 and df["hiv2004"].isna().sum() == 14  # indeterminate results
    known = df.dropna(subset=["hiv2004"])
    assert round(df["got"].mean(), 2) == 0.70 and round(known["hiv2004"].mean(), 3) == 0.064
    assert known.groupby("got")["hiv2004"].sum().to_dict() == {0: 62.0, 1: 123.0}
    paid = df.dropna(subset=["any"])
    assert ((paid["tinc"] > 0) == (paid["any"] == 1)).all()
    assert paid.groupby("any")["got"].mean().round(2).to_list() == [0.34, 0.79]


def test_mroz() -> None:
    df = datasets.load_mroz()
    assert df.shape == (753, 8) and df["lfp"].sum() == 428  # Mroz (1987)
    assert (df["lwg"].isna() == (df["lfp"] == 0)).all()  # imputed wages are no data
    assert round(df["lwg"].mean(), 3) == 1.190


LOADERS = ["load_lalonde", "load_cps", "load_nhefs", "load_thornton", "load_mroz"]


@pytest.mark.parametrize("name", LOADERS)
def test_missing_package(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "causaldata", None)
    with pytest.raises(MissingDependencyError, match="causaldata"):
        getattr(datasets, name)()
