"""A table of estimates as a result: what filter, model, effects and evaluation return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from causalrm.core.format import percent
from causalrm.core.inference import two_sided_p
from causalrm.core.result import COLUMNS, Result, quantile

if TYPE_CHECKING:
    from causalrm.augment.plots import EstimatesPlots, RobustPlots


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


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RobustResult(EstimatesResult):
    """Result of `RobustRewardModel`.

    Besides the fields of an `EstimatesResult`, whose groups are "sensitivity" (mean reward gap of
    the pairs of an attribute, in log odds), "typical gap" (root mean square gap of preferences and
    of each kind of neutral pair), "invariance" (1 less the typical gap of neutral pairs over that
    of preferences) and "change when dropped" (of the sensitivity to an attribute, when its own
    pairs are left out of the fit):

    Parameters
    ----------
    names : tuple of str
        Names of the p features.
    weights : ndarray of shape (p,)
        Coefficients of the reward.
    weights_se : ndarray of shape (p,)
        Their clustered standard errors.
    counts : pandas.DataFrame
        Augmented pairs by kind: rows, ok (generated without fault), used, and other statuses.
    dropping : pandas.DataFrame
        For each attribute: pairs, sensitivity with and without them, share of the preferences that
        both fits rank the same way, and the accuracy on the preferences of both.
    n_clusters : int
    loglik : float
        Weighted log-likelihood of all pairs, without the penalty.
    """

    names: tuple[str, ...]
    weights: np.ndarray
    weights_se: np.ndarray
    counts: pd.DataFrame
    dropping: pd.DataFrame
    n_clusters: int
    loglik: float

    def coefficients(self, level: float = 0.95) -> pd.DataFrame:
        """Return the weight of every feature, with clustered intervals at `level`."""
        q = quantile(level, self.df_resid)
        return pd.DataFrame(
            {
                "term": self.names,
                "estimate": self.weights,
                "std_error": self.weights_se,
                "conf_low": self.weights - q * self.weights_se,
                "conf_high": self.weights + q * self.weights_se,
            }
        )

    def _fit_lines(self, level: float) -> list[tuple[str, str]]:
        d = self.diagnostics
        lines = [("Features", f"{len(self.names):,}; condition number {d['condition']:.3g}")]
        for row in self.counts.to_dict("records"):
            kept = f"{row['used'] / max(row['rows'], 1):.0%}"
            text = f"{row['rows']:,} pairs, {row['ok']:,} without fault, {row['used']:,} used"
            lines.append((str(row["kind"]), f"{text} ({kept})"))
        lines += [
            ("Log-likelihood", f"{self.loglik:.4f}"),
            ("Covariance", f"clustered by {self.n_clusters:,} queries, t quantiles"),
            ("Ranked as labelled", percent(d["accuracy"]) + " of the preferences it was fitted to"),
        ]
        return lines

    @property
    def plot(self) -> RobustPlots:
        """Plots of the fit: ``plot()``, ``plot.invariance()``, ``plot.dropping()``, ..."""
        from causalrm.augment.plots import RobustPlots

        return RobustPlots(self)


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
