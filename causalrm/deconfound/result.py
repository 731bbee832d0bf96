"""What a fit of `DeconfoundedReward` found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import special

from causalrm.core.blocks import Block
from causalrm.core.encoding import Design
from causalrm.core.errors import DataError
from causalrm.core.format import percent
from causalrm.core.inference import delta_std_error
from causalrm.core.random import RNG
from causalrm.core.result import LikelihoodResult, Test
from causalrm.deconfound.anderson_rubin import (
    Moments,
    confidence_set,
    critical_value,
    statistic,
)
from causalrm.deconfound.few_clusters import Sums, wild_bootstrap

if TYPE_CHECKING:
    from causalrm.deconfound.plots import DeconfoundedPlots

COMPARATORS = {
    "ignore": "the confounder has no effect, or nothing in the text goes with it",
    "input": "outcome model of text and confounder is right, unpenalised, and overlap is good",
    "residualise": "the true reward is uncorrelated with the confounder",
    "invariance": "the true reward is uncorrelated with the confounder",
}
METHODS = ("iv", "plr", "joint", "fixed_effects", *COMPARATORS)


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
        For the Anderson-Rubin set: sums zy (m,) and zd (m, q), and their covariance.
    gammas : pandas.DataFrame
        Effects of the confounders by "outcome on confounder alone", by partialling out the text
        and, with instruments, by two-stage least squares.
    overlap : pandas.DataFrame
        For each confounder column, in twenty bins of what the text predicts of it: its mean, 10 %
        and 90 % quantile.
    cluster_sums : tuple of ndarray or None
        What `wild_bootstrap` needs of each cluster, where clusters are few.
    """

    method: str
    outcome: str
    text: str | tuple[str, ...]
    centre: np.ndarray
    design: Mapping[str, Any] | None
    sigma: float
    effects: Mapping[str, pd.Series] = field(default_factory=dict)
    ar_moments: Moments | None = None
    gammas: pd.DataFrame = field(default_factory=pd.DataFrame)
    overlap: pd.DataFrame = field(default_factory=pd.DataFrame)
    cluster_sums: Sums | None = None
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

    def confounders(self, block: Block, n: int) -> np.ndarray:
        """Columns about their means whose effects are subtracted, (q, n)."""
        if self.design is None or not len(self.gamma):
            return np.empty((0, n))
        c = Design.from_dict(self.design).slopes(block, n)
        return np.asarray(c - self.centre[:, None])

    def subtracted(self, block: Block, n: int) -> tuple[np.ndarray, np.ndarray]:
        """What is subtracted from the outcomes of rows, and its standard error."""
        c = self.confounders(block, n)
        return self.gamma @ c, delta_std_error(c.T, self._block("confounder"))

    def rewards(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rewards of features of shape (p, n) under the linear model, and standard errors."""
        i = self._part("reward")
        x = np.concatenate([np.ones((1, x.shape[1])), x])
        return self.estimates[i] @ x, delta_std_error(x.T, self._block("reward"))

    def wild_bootstrap(self, level: float = 0.95, draws: int = 9999, rng: RNG = 0) -> pd.DataFrame:
        """Tests and intervals for the confounders' effects that hold with few clusters.

        Parameters
        ----------
        level : float
        draws : int
        rng : None, int, SeedSequence or Generator

        Returns
        -------
        pandas.DataFrame
            Columns of a result frame; p-values and intervals from a wild cluster bootstrap of
            scores, with signs or, below 12 clusters, Webb's six weights.

        Raises
        ------
        DataError
            Without clusters, or with more than a hundred.

        References
        ----------
        Cameron, Gelbach, Miller (2008), doi 10.1162/rest.90.3.414. Kline, Santos (2012),
        doi 10.1515/2156-6674.1006. Webb (2023), doi 10.1111/caje.12661.
        """
        terms = self.term[: len(self.gamma)]
        return wild_bootstrap(terms, self.gamma, self.cluster_sums, level, draws, rng)

    def _moments(self) -> Moments:
        if self.ar_moments is None:
            raise DataError(
                "Expected a fit by method 'iv' for what Anderson and Rubin propose, but this one "
                f"is by {self.method!r}. Fit it so, with instruments=."
            )
        return self.ar_moments

    def anderson_rubin(
        self, level: float = 0.95, term: str | None = None
    ) -> list[tuple[float, float]]:
        """Confidence set for a confounder's effect, valid however weak the instruments are.

        Parameters
        ----------
        level : float
        term : str, optional
            A confounder column; the first by default.

        Returns
        -------
        list of (low, high)
            Disjoint intervals; ends may be infinite. Empty where instruments contradict each other.
            With several confounders it is the projection of their joint set, which covers at least
            as often as its level says.

        Raises
        ------
        DataError
            When the fit has no instruments, or no such confounder.

        References
        ----------
        Anderson, Rubin (1949), Estimation of the parameters of a single equation in a complete
        system of stochastic equations, Annals of Mathematical Statistics 20(1), 46-63,
        doi 10.1214/aoms/1177730090. Dufour, Taamouti (2005), Projection-based statistical inference
        in linear structural models with possibly weak instruments, Econometrica 73(4), 1351-1365,
        doi 10.1111/j.1468-0262.2005.00618.x.
        """
        moments, j = self._moments(), self._place(term)
        critical = critical_value(len(moments[0]), level, self.df_resid)
        se = self.std_error[: len(self.gamma)]
        return confidence_set(moments, critical, j, self.gamma, se)

    def anderson_rubin_test(self, values: Mapping[str, float] | None = None) -> Test:
        """Joint test of all confounders' effects, valid however weak the instruments are.

        Parameters
        ----------
        values : mapping of str to float, optional
            Effects under the null, 0 for confounder columns that are left out.
        """
        moments = self._moments()
        theta = np.zeros(len(self.gamma))
        for name, value in (values or {}).items():
            theta[self._place(name)] = value
        found, m, df = statistic(moments, theta), len(moments[0]), self.df_resid
        if df is None:
            return Test("Anderson-Rubin", found, m, float(special.chdtrc(m, found)))
        return Test("Anderson-Rubin", found / m, m, float(special.fdtrc(m, df, found / m)), df)

    def _place(self, term: str | None) -> int:
        """Place of a confounder column; the first by default."""
        known = list(self.term[: len(self.gamma)])
        if not known or term is not None and term not in known:
            raise DataError(f"Expected a confounder of {known}, but saw {term!r}. Give one.")
        return 0 if term is None else known.index(term)

    def _fit_lines(self, level: float) -> list[tuple[str, str]]:
        d = self.diagnostics
        right = COMPARATORS.get(self.method)
        lines = [("Method", self.method + (f" (comparator, right where {right})" if right else ""))]
        if "entanglement" in d:
            largest = sorted(d["entanglement"].items(), key=lambda item: -item[1])
            r2 = ", ".join(f"{name} {value:.3f}" for name, value in largest[:4])
            r2 += f" (largest of {len(largest)})" if len(largest) > 4 else ""
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
            if len(self.gamma) > 1:
                found = f"{self.anderson_rubin_test()}; anderson_rubin(term=) gives sets"
            else:
                sets = " or ".join(f"[{a:.4g}, {b:.4g}]" for a, b in self.anderson_rubin(level))
                found = f"{percent(level)} set {sets or 'empty'}"
            lines.append(("Anderson-Rubin", found))
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
