"""Value of showing the best of several texts, with the noise of what was subtracted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from causalrm.core.errors import CausalRMWarning, DataError, warn
from causalrm.core.result import Estimate
from causalrm.deconfound.pairs import selection
from causalrm.deconfound.task import Kept


def best_of(
    frame: pd.DataFrame,
    kept: Kept,
    n: int,
    prompt: Any,
    level: float,
    df: float | None,
) -> pd.DataFrame:
    """Value of the best of n by the reward, of a random one, and their difference.

    Parameters
    ----------
    frame : pandas.DataFrame
        `rewards_` of a fit.
    kept : Kept
        What the fit keeps of its rows.
    n : int
    prompt : array-like of shape (n_obs,), optional
        Prompt of each row.
    level : float
    df : float, optional
        Degrees of freedom of the intervals.
    """
    total = len(frame)
    if not isinstance(n, int | np.integer) or not 1 <= n <= total:
        raise DataError(f"Expected n from 1 to {total} rows, but saw {n!r}. Lower n.")
    codes = None
    if prompt is not None:
        codes = pd.factorize(np.asarray(prompt), use_na_sentinel=True)[0]
        if len(codes) != total or (codes < 0).any():
            raise DataError(
                f"Expected {total} labels of prompts, one per row of the fit and none missing, "
                f"but saw {len(codes)} with {int((codes < 0).sum())} missing. Give df['prompt'], "
                "say."
            )
    fine = frame[["deconfounded", "reward"]].notna().all(axis=1).to_numpy()
    y, score = frame["deconfounded"].to_numpy()[fine], frame["reward"].to_numpy()[fine]
    codes = None if codes is None else codes[fine]
    chance, own, base, left_out = selection(score, y, int(n), codes)
    if left_out:
        warn(
            f"{left_out} of {total} rows are of prompts with fewer than {n} candidates and are "
            "left out.",
            CausalRMWarning,
        )
    mean = float(base @ y)
    if codes is None:
        other = (y - mean) / len(y)
    else:
        share = (base > 0) / np.bincount(codes)[codes] / max(len(np.unique(codes[base > 0])), 1)
        other = base * y - share * mean
    rows = []
    for name, p, direct in (
        (f"best of {n}", chance, own), ("random", base, other),
        ("gain", chance - base, own - other),
    ):  # fmt: skip
        psi = kept.influence(direct, p, fine)
        se = float(np.sqrt(psi @ psi + kept.extra(p, fine)))
        rows.append(Estimate.wald(float(p @ y), se, level, name, df).to_frame())
    return pd.concat(rows, ignore_index=True)
