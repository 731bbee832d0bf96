"""Value of showing the best of several texts, with the noise of what was subtracted."""

from __future__ import annotations

import numpy as np
import pandas as pd

from causalrm.core.errors import CausalRMWarning, warn
from causalrm.core.inference import by_cluster, two_sided_p
from causalrm.core.result import COLUMNS, quantile
from causalrm.deconfound.pairs import selection
from causalrm.deconfound.task import Kept


def best_of(
    frame: pd.DataFrame,
    kept: Kept,
    n: int,
    codes: np.ndarray | None,
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
    codes : ndarray of int of shape (n_obs,), optional
        Prompt of each row.
    level : float
    df : float, optional
        Degrees of freedom of the intervals.
    """
    z = quantile(level, df)
    total = len(frame)
    fine = frame[["deconfounded", "reward"]].notna().all(axis=1).to_numpy()
    y, score = frame["deconfounded"].to_numpy()[fine], frame["reward"].to_numpy()[fine]
    codes = None if codes is None else codes[fine]
    chance, own, base, left_out = selection(score, y, n, codes)
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
        psi = direct + kept.passed_on(p, fine)
        sums = psi if kept.codes is None else by_cluster(
            kept.codes[fine], psi[None, :], kept.n_clusters or 0
        )[:, 0]  # fmt: skip
        estimate = float(p @ y)
        se = float(np.sqrt(sums @ sums + kept.extra(p, fine)))
        statistic = estimate / se
        pvalue = float(two_sided_p(np.array(statistic), df))
        rows.append([name, estimate, se, statistic, pvalue, estimate - z * se,
                     estimate + z * se])  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)
