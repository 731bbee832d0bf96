"""R data files: every compression and column type, against what R wrote (rda/make_rda.R)."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from causalrm.core.errors import DataError
from causalrm.datasets._rdata import read_rda

HERE = Path(__file__).parent / "rda"


@pytest.mark.parametrize("name", ["gzip", "bzip2_v2", "xz", "plain"])
def test_all_column_types_in_every_compression(name):
    frames = read_rda(HERE / f"{name}.rda")
    assert list(frames) == ["mixed", "named"]
    mixed = pd.DataFrame(
        {
            "flag": [1.0, np.nan, 0.0],
            "whole": [1.0, np.nan, -3.0],
            "count": [1, 2, 3],
            "real": [0.1, np.nan, np.inf],
            "group": pd.Categorical(["b", None, "a"], ["b", "a"]),
            "grade": pd.Categorical(["low", "high", "low"], ["low", "high"], ordered=True),
            "text": ["one", None, "été"],
        }
    )
    pd.testing.assert_frame_equal(frames["mixed"], mixed)
    named = pd.DataFrame({"x": [1.5, 2.5], "latin": ["a", "é"]}, index=["first", "second"])
    pd.testing.assert_frame_equal(frames["named"], named)


def test_compact_sequences_and_wrapped_vectors():
    long = read_rda(HERE / "long.rda")["long"]
    expected = pd.DataFrame(
        {
            "index": np.arange(1, 101),
            "sorted": np.arange(1, 101) / 2,
            "half": np.arange(100) + 0.5,
        }
    )
    pd.testing.assert_frame_equal(long, expected)


def test_row_names_that_are_numbers_become_the_index():
    shuffled = read_rda(HERE / "shuffled.rda")["shuffled"]
    assert shuffled.index.tolist() == [3, 1]
    assert shuffled["whole"].tolist() == [-3, 1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ascii", "binary form"),
        ("dated", "'day' has the R class 'Date'"),
        ("numbers", "'numbers' is not a data frame"),
        ("function", "R object of type 3"),
    ],
)
def test_what_is_not_a_plain_data_frame_is_refused(name, message):
    with pytest.raises(DataError, match=message):
        read_rda(HERE / f"{name}.rda")


@pytest.mark.parametrize("name", ["gzip", "bzip2_v2", "xz", "plain"])
def test_a_file_cut_short_is_refused(name, tmp_path):
    whole = (HERE / f"{name}.rda").read_bytes()
    short = tmp_path / "short.rda"
    for keep in (len(whole) // 2, len(whole) - 1):
        short.write_bytes(whole[:keep])
        with pytest.raises(DataError, match="cut short|damaged"):
            read_rda(short)


def test_other_versions_are_refused(tmp_path):
    path = tmp_path / "new.rda"
    path.write_bytes(b"RDX3\nX\n" + (4).to_bytes(4, "big") + bytes(8))
    with pytest.raises(DataError, match="version 2 or 3, seen 4"):
        read_rda(path)
