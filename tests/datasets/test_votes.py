"""Comparisons: the files' own figures, and the conversion of the published files."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from causalrm import datasets
from causalrm.core.errors import DataError
from causalrm.datasets import _votes

DATA = Path(os.environ.get("CAUSALRM_DATA", ""))
needs_llmfao = pytest.mark.skipif(
    not (DATA / "llmfao" / "food.csv").is_file(), reason="CAUSALRM_DATA does not hold llmfao"
)
needs_alpaca = pytest.mark.skipif(
    not (DATA / "alpaca_eval_length").is_dir(),
    reason="CAUSALRM_DATA does not hold alpaca_eval_length",
)


@needs_llmfao
def test_votes_as_documented():
    votes = datasets.fetch_llmfao()
    assert list(votes.columns) == [
        "id", "prompt", "model_x", "model_y", "worker", "winner", "left", "right", "outcome",
    ]  # fmt: skip
    assert len(votes) == 8931 and not votes.isna().any().any()
    assert votes["winner"].value_counts().to_dict() == {"left": 2911, "right": 2549, "tie": 3471}
    assert votes[["id", "prompt", "worker"]].nunique().tolist() == [2139, 13, 124]
    assert len(set(votes["left"]) | set(votes["right"])) == 59
    assert votes.groupby("winner")["outcome"].unique().str[0].to_dict() == {
        "left": 1.0, "right": 0.0, "tie": 0.5,
    }  # fmt: skip
    food = datasets.fetch_food()
    assert food["winner"].value_counts().to_dict() == {"right": 15, "left": 13, "tie": 2}
    assert set(food["left"]) == {"Pizza", "Sushi", "Burger", "Pasta", "Tacos"}


@needs_alpaca
def test_lengths_reproduce_the_published_win_rates():
    rows, board = datasets.fetch_alpaca_length(), datasets.fetch_alpaca_leaderboard()
    assert rows.shape == (9656, 8) and board.shape == (12, 13)
    assert rows.groupby("instruction")["instruction_sha256_16"].nunique().eq(1).all()
    outcome = rows.groupby("model", sort=False)["outcome"]
    assert list(outcome.groups) and outcome.mean().index.tolist() == board["model"].tolist()
    np.testing.assert_allclose(100 * outcome.mean(), board["win_rate"], atol=1e-9)
    np.testing.assert_allclose(100 * outcome.sem(), board["standard_error"], atol=1e-9)
    assert outcome.size().tolist() == board["n_total"].tolist()


def test_results_are_converted_to_lengths(tmp_path, monkeypatch):
    """The published files together are 45 MB; two made-up ones have the same form."""
    files = {
        "first": [("Name a bird.", "Owl", "A hen", 1.25), ("Näme.", "", "é", 2.0)],
        "second": [("Näme.", "", "\n\n", 1.0), ("Count.", "1", "12", 1.5)],
    }
    checksums = {}
    for model, items in files.items():
        keys = ("instruction", "output_1", "output_2", "preference")
        text = json.dumps([dict(zip(keys, item, strict=True)) for item in items])
        (tmp_path / f"{model}.json").write_text(text)
        checksums[model] = hashlib.sha256(text.encode()).hexdigest()
    monkeypatch.setattr(_votes, "_ANNOTATIONS", checksums)
    rows = datasets.fetch_alpaca_length(tmp_path)
    assert rows["model"].tolist() == ["first", "first", "second", "second"]
    assert rows["instruction"].tolist() == [0, 1, 1, 2]
    assert rows["position"].tolist() == [0, 1, 0, 1]
    assert rows[["len_output_1", "len_output_2"]].to_numpy().tolist() == [
        [3, 5], [0, 1], [0, 2], [1, 2],
    ]  # fmt: skip
    assert rows["outcome"].tolist() == [0.25, 1.0, 0.0, 0.5]
    assert rows["instruction_sha256_16"][1] == hashlib.sha256("Näme.".encode()).hexdigest()[:16]


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "other.csv"
    path.write_bytes(b"other")
    for name in ("llmfao", "food", "alpaca_length", "alpaca_leaderboard"):
        with pytest.raises(DataError, match="not the published one"):
            getattr(datasets, f"fetch_{name}")(path)
    with pytest.raises(DataError, match="found none"):
        datasets.fetch_alpaca_length(tmp_path)


@pytest.mark.skipif(not (DATA / "bradleyterry2").is_dir(), reason="CAUSALRM_DATA lacks the files")
def test_short_tables_are_those_of_the_packages_that_publish_them():
    for name in ("baseball", "citations"):
        raw = pd.read_csv(DATA / "bradleyterry2" / f"{name}.csv")
        table = getattr(datasets, f"load_{name}")()
        assert table.to_numpy().tolist() == raw.to_numpy().tolist()
    raw = pd.read_csv(DATA / "pudding" / "pudding.csv")[["i", "j", "w_ij", "w_ji", "t_ij"]]
    assert datasets.load_puddings().to_numpy().tolist() == raw.to_numpy().tolist()


def test_margins_of_the_short_tables():
    citations = datasets.load_citations()
    assert citations["count"].sum() == 6126 and len(citations) == 16
    puddings = datasets.load_puddings()
    assert puddings[["wins_a", "wins_b", "ties"]].to_numpy().sum() == 745
    games = datasets.load_baseball()
    assert games.groupby("home").size().eq(6).all() and games["home"].nunique() == 7
    both = games.merge(games, left_on=["home", "away"], right_on=["away", "home"])
    played = both[[c for c in both if "wins" in c]].sum(axis=1)
    assert played.eq(13).all()  # every two teams met thirteen times
