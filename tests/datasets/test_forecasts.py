"""Forecasts and aggregate results: the files' own figures, and pickles that are only read."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from causalrm.core.errors import BackendError, DataError
from causalrm.datasets import _forecasts, fetch_folktexts, fetch_llm_forecasts
from causalrm.datasets._forecasts import read_lists

DATA = Path(os.environ.get("CAUSALRM_DATA", ""))
needs_forecasts = pytest.mark.skipif(
    not (DATA / "llm_forecasts" / "llm_forecasts.csv.gz").is_file(),
    reason="CAUSALRM_DATA does not hold llm_forecasts",
)
needs_folktexts = pytest.mark.skipif(
    not (DATA / "folktexts").is_dir(), reason="CAUSALRM_DATA does not hold folktexts"
)


@needs_forecasts
def test_forecasts_as_documented():
    frame = fetch_llm_forecasts()
    columns = ["question", "retrieval", "source", "sample", "probability", "outcome"]
    assert list(frame.columns) == columns and len(frame) == 26_188
    counts = frame["source"].value_counts()
    assert counts.to_dict() == {
        "base": 11_544, "finetuned": 3_848, "finetuned_other": 6_948, "crowd": 3_848,
    }  # fmt: skip
    pairs = frame.groupby(["retrieval", "question"])["outcome"].agg(["first", "nunique"])
    assert (pairs["nunique"] == 1).all()
    assert pairs.groupby("retrieval")["first"].agg(["size", "sum"]).to_numpy().tolist() == [
        [890, 332], [856, 321], [809, 307], [748, 284], [545, 205],
    ]  # fmt: skip
    assert frame["probability"].between(0, 1).all()


def trimmed_mean(values):
    """Weights of the authors: one half for those farthest from the median."""
    distance = np.abs(values - np.median(values))
    weights = np.where(distance == distance.max(), 0.5, 1 + 0.5 / max(len(values) - 1, 1))
    return np.average(values, weights=weights)


@needs_forecasts
def test_forecasts_have_the_published_brier_scores():
    frame = fetch_llm_forecasts()
    groups = {
        "base": (["base"], trimmed_mean, 0.1863574497732625),
        "fine-tuned": (["finetuned", "finetuned_other"], np.mean, 0.1800594544610284),
        "system": (["base", "finetuned", "finetuned_other"], trimmed_mean, 0.1798871353162045),
        "crowd": (["crowd"], np.mean, 0.1486199294280867),
    }
    for name, (sources, aggregate, published) in groups.items():
        rows = frame[frame["source"].isin(sources)].groupby(["retrieval", "question"])
        p = rows["probability"].agg(lambda v, a=aggregate: a(v.to_numpy()))
        brier = float(((p - rows["outcome"].first()) ** 2).mean())
        assert brier == pytest.approx(published, abs=1e-14), name


@needs_forecasts
def test_pickles_and_converted_file_are_equal_to_the_last_bit(tmp_path, monkeypatch):
    folder = DATA / "llm_forecasts" / "original"
    converted = fetch_llm_forecasts(DATA / "llm_forecasts" / "llm_forecasts.csv.gz")
    pd.testing.assert_frame_equal(fetch_llm_forecasts(folder), converted, check_exact=True)
    # A data folder with the originals alone is enough, and needs no network.
    shutil.copytree(folder, tmp_path / "llm_forecasts" / "original")
    monkeypatch.setenv("CAUSALRM_DATA", str(tmp_path))
    pd.testing.assert_frame_equal(fetch_llm_forecasts(), converted, check_exact=True)


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "llm_forecasts.csv.gz"
    path.write_bytes(b"other")
    for fetch in (fetch_llm_forecasts, fetch_folktexts):
        with pytest.raises(DataError, match="not the published one"):
            fetch(path)
    with pytest.raises(DataError, match="found none"):
        fetch_llm_forecasts(tmp_path)
    (tmp_path / "answers.pickle").write_bytes(pickle.dumps([[1]]))
    with pytest.raises(DataError, match="not the published one"):
        fetch_llm_forecasts(tmp_path)


def test_no_file_and_no_network_is_an_error(tmp_path, monkeypatch):
    import pooch

    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("CAUSALRM_DATA", raising=False)
    monkeypatch.setattr(_forecasts, "_FORECASTS_URL", "http://127.0.0.1:9/")
    with pytest.raises(BackendError, match=r"llm_forecasts/llm_forecasts\.csv\.gz"):
        fetch_llm_forecasts()


class Calls:
    """Leaves a trace wherever it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_calls_something_is_refused(tmp_path, protocol):
    trace = tmp_path / "trace"
    path = tmp_path / "calls.pickle"
    path.write_bytes(pickle.dumps([[0.5], Calls(trace)], protocol))
    with pytest.raises(DataError, match="has the operation"):
        read_lists(path)
    assert not trace.exists()


@pytest.mark.parametrize("value", [{"a": 1}, ["text"], [None], [(1,)], [np.float64(1)], [1 << 80]])
def test_pickles_of_other_things_are_refused(tmp_path, value):
    path = tmp_path / "other.pickle"
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(DataError, match="has the operation"):
        read_lists(path)


def test_lists_of_numbers_are_read_and_damage_is_told(tmp_path):
    value = [[0.25, 3, [0, 70_000, -1.5]], [], [1e300]]
    path = tmp_path / "lists.pickle"
    raw = pickle.dumps(value)
    path.write_bytes(raw)
    assert read_lists(path) == value
    for damaged in (
        b"",
        raw[:-3],
        raw[:12],
        b"\x80\x04.",
        b"\x80\x04K\x01.",
        b"\x80\x04]e.",
        b"a.",
    ):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"damaged|does not hold"):
            read_lists(path)


@needs_folktexts
def test_folktexts_as_documented():
    frame = fetch_folktexts()
    assert frame.shape == (210, 65)
    assert frame["task"].value_counts().to_dict() == dict.fromkeys(
        ["ACSIncome", "ACSPublicCoverage", "ACSMobility", "ACSEmployment", "ACSTravelTime"], 42
    )
    assert frame["name"].nunique() == 21 and frame.index.is_unique
    assert frame["brier_score_loss"].sum() == pytest.approx(55.8632476326, abs=1e-9)
    assert frame["ece"].sum() == pytest.approx(42.9833416939, abs=1e-9)
    # By the triangle inequality, whatever the bins.
    prevalence = frame["n_positives"] / frame["n_samples"]
    gap = (frame["score_mean"] - prevalence).abs()
    assert (frame["ece"] >= gap - 1e-9).all()
    assert (frame["ece"] - gap < 1e-6).sum() == 68
    # A constant score s has ECE |pi - s| and Brier score pi (1 - pi) + (pi - s)^2.
    row = frame.loc["gemma-2b__ACSIncome__-1__Num"]
    pi, s = 61_233 / 166_450, row["score_mean"]
    assert row["score_stdev"] == 0 and row["n_positives"] == 61_233
    assert row["ece"] == pytest.approx(abs(pi - s), abs=1e-9)
    assert row["brier_score_loss"] == pytest.approx(pi * (1 - pi) + (pi - s) ** 2, abs=1e-9)
