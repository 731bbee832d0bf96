from __future__ import annotations

import json

import numpy as np
import pytest

import causalrm as crm
from causalrm.attribution import Archive


def additive(Z):
    return Z @ np.arange(1.0, Z.shape[1] + 1)


@pytest.mark.parametrize("name", ["a.jsonl", "a.sqlite", "a.db"])
def test_saved_and_read_again(tmp_path, name):
    path = tmp_path / name
    fit = crm.PromptShapley("permutation", crm.Budget(calls=40)).fit(
        list("abcdef"), additive, archive=path
    )
    read = Archive(path)
    assert read.rows == fit.archive_.rows and read.orders == fit.archive_.orders
    again = crm.PromptShapley("permutation").reanalyse(list("abcdef"), additive, path)
    assert again.result_.phi.tolist() == fit.result_.phi.tolist()
    copy = tmp_path / f"copy {name}"
    fit.archive_.save(copy)
    assert Archive(copy).rows == read.rows
    with pytest.raises(crm.DataError, match="exists already"):
        fit.archive_.save(copy)


def test_frame_has_one_row_per_reply():
    fit = crm.PromptShapley().fit(["a", "b"], additive)
    frame = fit.archive_.to_frame()
    assert list(frame.columns) == ["a", "b", "variant", "replicate", "value"]
    assert (frame["value"] == frame["a"] + 2 * frame["b"]).all() and len(frame) == 4


def test_a_line_cut_short_is_asked_again(tmp_path):
    path = tmp_path / "a.jsonl"
    crm.PromptShapley().fit(list("abc"), additive, archive=path)
    path.write_bytes(path.read_bytes()[:-9])
    asked = []

    def counted(Z):
        asked.append(len(Z))
        return additive(Z)

    with pytest.warns(crm.CausalRMWarning, match="cut short"):
        fit = crm.PromptShapley().fit(list("abc"), counted, archive=path)
    assert sum(asked) == 1 and len(Archive(path)) == 8
    np.testing.assert_allclose(fit.result_.phi, [1, 2, 3])


def test_archives_of_other_games_are_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    crm.PromptShapley().fit(list("abc"), additive, archive=path)
    with pytest.raises(crm.DataError, match="another game: its names"):
        crm.PromptShapley().fit(list("abd"), additive, archive=path)
    with pytest.raises(crm.DataError, match="is empty"):
        crm.PromptShapley().reanalyse(list("abc"), additive, Archive())


def test_files_of_another_kind_are_refused(tmp_path):
    text = tmp_path / "x.jsonl"
    text.write_text("hello\n")
    with pytest.raises(crm.DataError, match="line 1, is not of an archive"):
        Archive(text)
    text.write_text(json.dumps({"header": {"kind": "other"}}) + "\n")
    with pytest.raises(crm.DataError, match="line 1"):
        Archive(text)
    other = tmp_path / "x.sqlite"
    other.write_text("hello")
    with pytest.raises(crm.DataError, match="not an archive"):
        Archive(other)


def test_a_larger_budget_uses_what_was_asked(tmp_path):
    path = tmp_path / "a.jsonl"
    asked = []

    def counted(Z):
        asked.append(len(Z))
        return additive(Z)

    players = [f"p{i}" for i in range(9)]
    crm.PromptShapley("kernel", crm.Budget(calls=80)).fit(players, counted, archive=path)
    crm.PromptShapley("kernel", crm.Budget(calls=160)).fit(players, counted, archive=path)
    assert 80 < sum(asked) <= 200
