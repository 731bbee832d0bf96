"""What a fit of `DeconfoundedReward` found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from causalrm.core.blocks import Block
from causalrm.core.encoding import Design
from causalrm.core.errors import DataError
from causalrm.core.format import percent
from causalrm.core.result import LikelihoodResult, check_level
from causalrm.deconfound import _kernels as k

if TYPE_CHECKING:
    from causalrm.deconfound.plots import DeconfoundedPlots

COMPARATORS = {
    "ignore": "the confounder has no effect, or nothing in the text goes with it",
    "input": "outcome model of text and confounder is right, unpenalised, and overlap is good",
    "residualise": "the true reward is uncorrelated with the confounder",
    "invariance": "the true reward is uncorrelated with the confounder",
}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DeconfoundedResult(LikelihoodResult):
    """What `DeconfoundedReward.fit` found.

    Parameters
    ----------
    method : str
    outcome : str
    text : str or tuple of str
        The column of texts, or the feature columns.
    centre : ndarray of shape (q,)
        Means of the confounder columns, at which rewards are given.
    design : dict or None
        Of the confounders.
    effects : dict of str to pandas.Series
        Of absorbed columns, about their mean over the rows; by level.
    sigma : float
        Standard deviation of deconfounded outcomes about the reward model.
    ar_moments : tuple of ndarray or None
        For the Anderson-Rubin set: sums (zy, zd) and their covariance.
    gammas : pandas.DataFrame
        Effects of the confounders by "outcome on confounder alone", by partialling out the text
        and, with instruments, by two-stage least squares.
    overlap : pandas.DataFrame
        For each confounder column, in twenty bins of what the text predicts of it: its mean, 10 %
        and 90 % quantile.
    """

    method: str
    outcome: str
    text: str | tuple[str, ...]
    centre: np.ndarray
    design: Mapping[str, Any] | None
    sigma: float
    effects: Mapping[str, pd.Series] = field(default_factory=dict)
    ar_moments: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    gammas: pd.DataFrame = field(default_factory=pd.DataFrame)
    overlap: pd.DataFrame = field(default_factory=pd.DataFrame)
    loglik: float = math.nan

    def _part(self, parameter: str) -> np.ndarray:
        return np.array([i for i, name in enumerate(self.parameter) if name == parameter], int)

    def _block(self, parameter: str) -> np.ndarray:
        i = self._part(parameter)
        return np.asarray(self._covariance()[np.ix_(i, i)])

    @property
    def gamma(self) -> np.ndarray:
        """What is subtracted per unit of each confounder column, shape (q,)."""
        return np.asarray(self.estimates[self._part("confounder")])

    def subtracted(self, block: Block, n: int) -> tuple[np.ndarray, np.ndarray]:
        """What is subtracted from the outcomes of rows, and its standard error."""
        removed, variance = np.zeros(n), np.zeros(n)
        if self.design is not None and len(self.gamma):
            design = Design.from_dict(self.design)
            c = design.encode(block, n)[int(design.has_intercept) :] - self.centre[:, None]
            removed += self.gamma @ c
            variance += ((self._block("confounder") @ c) * c).sum(axis=0)
        return removed, np.sqrt(np.clip(variance, 0.0, None))

    def rewards(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rewards of features of shape (p, n) under the linear model, and standard errors."""
        i = self._part("reward")
        x = np.concatenate([np.ones((1, x.shape[1])), x])
        variance = ((self._block("reward") @ x) * x).sum(axis=0)
        return self.estimates[i] @ x, np.sqrt(np.clip(variance, 0.0, None))

    def anderson_rubin(self, level: float = 0.95) -> list[tuple[float, float]]:
        """Confidence set for the confounder's effect, valid however weak the instruments are.

        Parameters
        ----------
        level : float

        Returns
        -------
        list of (low, high)
            Disjoint intervals; ends may be infinite. Empty where instruments contradict each other.

        Raises
        ------
        DataError
            When the fit has no instruments, or several confounders.
        """
        if self.ar_moments is None:
            raise DataError(
                "Expected a fit by method 'iv' with one confounder column for an Anderson-Rubin "
                f"set, but this one is by {self.method!r} with {len(self.gamma)}. Fit it so."
            )
        from scipy import special

        zy, zd, meat = self.ar_moments
        m, level = len(zy), check_level(level)
        if self.df_resid is None:
            critical = float(special.chdtri(m, 1 - level))
        else:
            critical = m * float(special.fdtri(m, self.df_resid, level))
        return k.anderson_rubin(zy, zd, meat, critical)

    def _fit_lines(self, level: float) -> list[tuple[str, str]]:
        d = self.diagnostics
        right = COMPARATORS.get(self.method)
        lines = [("Method", self.method + (f" (comparator, right where {right})" if right else ""))]
        if "entanglement" in d:
            found = sorted(d["entanglement"].items(), key=lambda item: -item[1])
            r2 = ", ".join(f"{name} {value:.3f}" for name, value in found[:4])
            r2 += f" (largest of {len(found)})" if len(found) > 4 else ""
            lines.append(("Entanglement", f"out-of-fold R2 of the confounder on the text: {r2}"))
            test = d["hausman"]
            lines.append(
                ("Entanglement test", f"chi2({test['df']}) = {test['statistic']:.2f}, "
                 f"p = {test['p_value']:.3g}: text does{'' if test['p_value'] < 0.05 else ' not'} "
                 "change the confounder's effect")
            )  # fmt: skip
            lines.append(("Overlap", f"effective {d['ess']:,.0f} of {self.n_obs:,} rows; "
                          "none trimmed"))  # fmt: skip
        if "first_stage" in d:
            f = d["first_stage"]
            lines.append(("First stage", ", ".join(
                f"F {a:.1f}, effective {b:.1f} (10 % bias below {c:.1f})"
                for a, b, c in zip(f["f"], f["effective_f"], f["critical"], strict=True)
            )))  # fmt: skip
        if self.ar_moments is not None:
            sets = " or ".join(f"[{a:.4g}, {b:.4g}]" for a, b in self.anderson_rubin(level))
            lines.append(("Anderson-Rubin", f"{percent(level)} set {sets or 'empty'}"))
        if self.effects:
            lines.append(("Absorbed", ", ".join(
                f"{name} ({len(e):,} levels)" for name, e in self.effects.items()
            )))  # fmt: skip
        lines.append(("Reward model", f"{d['n_features']:,} features; R2 {d['r2']:.3f} of the "
                      f"deconfounded outcome, residual sd {self.sigma:.4g}"))  # fmt: skip
        law = "normal" if self._df is None else f"t({self._df:g})"
        lines.append(("Covariance", f"{self.covariance}, {law} quantiles"))
        return lines

    @property
    def plot(self) -> DeconfoundedPlots:
        """Plots: ``plot()``, ``plot.rewards()``, ``plot.entanglement()``."""
        from causalrm.deconfound.plots import DeconfoundedPlots

        return DeconfoundedPlots(self)
