"""A table of estimates as a result: what filter, model, effects and evaluation return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from causalrm.core.inference import two_sided_p
from causalrm.core.result import COLUMNS, Result, quantile

if TYPE_CHECKING:
    from causalrm.augment.plots import EstimatesPlots


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class EstimatesResult(Result):
    """Estimates with standard errors, in groups.

    Besides the fields of every result:

    Parameters
    ----------
    table : pandas.DataFrame
        Columns `group, term, estimate, std_error` and what else belongs to a row.
    df_resid : float, optional
        Degrees of freedom of t under clusters; normal quantiles otherwise.
    """

    table: pd.DataFrame
    df_resid: float | None = None

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return one row per estimate, with t intervals at `level` under clusters.

        Returns
        -------
        pandas.DataFrame
            Columns `group, term, estimate, std_error, statistic, p_value, conf_low, conf_high`,
            then those that belong to the kind of estimate. The test is that the value is 0; for
            shares, whose natural values are others, it is NaN.
        """
        q = quantile(level, self.df_resid)
        value, error = (self.table[c].to_numpy(float) for c in ("estimate", "std_error"))
        tested = ~self.table["share"].to_numpy(bool)
        with np.errstate(divide="ignore", invalid="ignore"):
            statistic = np.where(tested & (error > 0), value / error, np.nan)
        p = two_sided_p(statistic, self.df_resid)
        columns = (value, error, statistic, p, value - q * error, value + q * error)
        head = self.table[["group", "term"]].reset_index(drop=True)
        head = head.assign(**dict(zip(COLUMNS[1:], columns, strict=True)))
        more = self.table.drop(columns=["group", "term", "estimate", "std_error", "share"])
        return head.join(more.reset_index(drop=True))

    @property
    def plot(self) -> EstimatesPlots:
        """Plots of the estimates: ``plot()`` and ``plot(group)``."""
        from causalrm.augment.plots import EstimatesPlots

        return EstimatesPlots(self)


def degrees(n_clusters: int) -> float:
    """Degrees of freedom of t with that many clusters."""
    return float(max(n_clusters - 1, 1))


def cluster_se(influence: np.ndarray, cluster: np.ndarray) -> float:
    """Standard error of an estimate from the influence of its rows, summed by cluster.

    Parameters
    ----------
    influence : ndarray of shape (n,)
        What each row contributes to the error of the estimate; they sum to about 0.
    cluster : ndarray of shape (n,) of int
        Codes from 0.
    """
    sums = np.bincount(cluster, weights=influence)
    g = int(np.count_nonzero(np.bincount(cluster)))
    return float(np.sqrt(g / (g - 1) * float(sums @ sums))) if g > 1 else float("nan")
