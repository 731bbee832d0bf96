"""The frames from lifelines: columns, types, labels, and the published counts."""

import inspect
import re

import lifelines.datasets
import pandas as pd
import pytest

from causalrm import datasets

LOADERS = sorted(
    name
    for name in datasets.__all__
    if name.startswith("load_") and getattr(datasets, name).__module__.endswith("._survival")
)


@pytest.mark.parametrize("name", LOADERS)
def test_frames_are_tidy_and_documented(name):
    loader = getattr(datasets, name)
    frame = loader()
    assert isinstance(frame.index, pd.RangeIndex)
    documented = re.findall(r"^\s+``(\w+)``\s+(\w+)", inspect.getdoc(loader), re.MULTILINE)
    kinds = {"category": "category", "int": "int64", "float": "float64"}
    assert {column: kinds[kind] for column, kind in documented} == {
        column: str(dtype) for column, dtype in frame.dtypes.items()
    }
    if "event" in frame:
        assert set(frame["event"]) == {0, 1}
        assert (frame["time"] > 0).all()
    else:
        assert ((frame["lower"] <= frame["upper"]) & (frame["upper"] > 0)).all()
    if "entry" in frame:
        assert ((frame["entry"] >= 0) & (frame["entry"] < frame["time"])).all()
    again = loader()
    again.iloc[:, 0] = again.iloc[::-1, 0].to_numpy()
    pd.testing.assert_frame_equal(loader(), frame)  # a copy each time


def test_missing_values_are_kept_as_documented():
    missing = {name: int(getattr(datasets, name)().isna().to_numpy().sum()) for name in LOADERS}
    assert {name: count for name, count in missing.items() if count} == {"load_lung": 67}
    documented = re.findall(r"float\s+(\d+)", inspect.getdoc(datasets.load_lung))
    seen = datasets.load_lung().isna().sum()
    assert [int(count) for count in documented] == seen[seen > 0].tolist()


@pytest.mark.parametrize(
    ("name", "rows", "events"),
    [
        ("load_lung", 228, 165),
        ("load_gbsg2", 686, 299),
        ("load_rossi", 432, 114),
        ("load_larynx", 90, 50),
        ("load_kidney_transplant", 863, 140),
        ("load_waltons", 163, 156),
        ("load_multicenter_aids_cohort", 78, 27),
    ],
)
def test_counts(name, rows, events):
    frame = getattr(datasets, name)()
    assert (len(frame), frame["event"].sum()) == (rows, events)


def test_labels_follow_the_codes_of_the_source():
    raw = lifelines.datasets.load_lung()
    assert (raw["sex"].map({1: "male", 2: "female"}) == datasets.load_lung()["sex"]).all()
    raw = lifelines.datasets.load_kidney_transplant()
    kidney = datasets.load_kidney_transplant()
    for race, sex in [("black", "male"), ("white", "male"), ("black", "female")]:
        chosen = (kidney["race"] == race) & (kidney["sex"] == sex)
        assert (chosen == (raw[f"{race}_{sex}"] == 1)).all()
    raw = lifelines.datasets.load_rossi()
    rossi = datasets.load_rossi()
    assert ((rossi["fin"] == "yes") == (raw["fin"] == 1)).all()
    assert ((rossi["mar"] == "married") == (raw["mar"] == 1)).all()
    assert ((rossi["race"] == "black") == (raw["race"] == 1)).all()
    raw = lifelines.datasets.load_larynx()
    assert ((datasets.load_larynx()["stage"] == "IV") == (raw["Stage_IV"] == 1)).all()


def test_diabetes_counts():
    diabetes = datasets.load_diabetes()
    exact = diabetes["lower"] == diabetes["upper"]
    assert (len(diabetes), exact.sum(), (diabetes["lower"] == 0).sum()) == (731, 595, 1)
