"""Settings that all tests share."""

from __future__ import annotations

import os
import sys

# Before numpy is imported: tests run side by side, and small problems gain nothing from threads.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import matplotlib
import pytest

matplotlib.use("Agg")
# Deterministic, and without a deadline: the first example may compile a kernel.
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("tests")


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    if plt := sys.modules.get("matplotlib.pyplot"):
        plt.close("all")


@pytest.fixture
def data_folder() -> Path:
    """Folder of public data files, or a skip that says why there is none."""
    text = os.environ.get("CAUSALRM_DATA", "")
    if not text:
        pytest.skip("CAUSALRM_DATA does not name a folder with the public data files")
    folder = Path(text)
    if not folder.is_dir():
        pytest.skip(f"CAUSALRM_DATA names {text!r}, which is not a folder")
    return folder
