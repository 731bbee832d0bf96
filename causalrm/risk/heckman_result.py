"""What a Heckman model returns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import log_ndtr, ndtr

from causalrm.core.design import Design
from causalrm.core.result import quantile
from causalrm.risk.result import PosteriorResult, summarise

if TYPE_CHECKING:
    from causalrm.core.table import Table
    from causalrm.risk.heckman_plots import HeckmanPlots

_LOG_ROOT_2PI = 0.5 * math.log(2 * math.pi)


def mean_outcome(draws: np.ndarray, x: np.ndarray, w: np.ndarray, what: str) -> np.ndarray:
    """Mean outcome, or probability of selection, of n rows at each of S draws; shape (n, S).

    Parameters
    ----------
    draws : ndarray of shape (S, k)
        Outcome, selection, sigma, rho.
    x, w : ndarray of shape (n, p), (n, q)
    what : {"everybody", "selected", "unselected", "selection"}
    """
    p = x.shape[1]
    index = w @ draws[:, p:-2].T
    if what == "selection":
        return np.asarray(ndtr(index))
    mean = x @ draws[:, :p].T
    if what != "everybody":
        sign = 1.0 if what == "selected" else -1.0
        mills = np.exp(-0.5 * index**2 - _LOG_ROOT_2PI - log_ndtr(sign * index))
        mean += sign * draws[:, -2] * draws[:, -1] * mills
    return np.asarray(mean)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class HeckmanResult(PosteriorResult):
    """Result of `HeckmanModel`.

    Besides the fields of a posterior, whose coefficients are those of outcome and selection on the
    scale of their columns, then sigma and rho (a correlation):

    Parameters
    ----------
    designs : dict
        For outcome and selection the design as plain values.
    counts : dict
        Rows and selected rows.
    seen_mean : float
        Mean outcome of the selected.
    means : pandas.DataFrame
        Implied mean outcome of all rows (first), and of the rows of each constraint beside its
        target, with that of maximum likelihood without constraints.
    ml, two_step : ndarray of shape (k + 1, 2)
        Estimates and standard errors without priors and constraints; the last row is lambda.
    notes : dict
        Why an estimate is missing or odd.
    loglik : float
        Largest log-likelihood, without constraints.
    pit : ndarray of shape (m, 2)
        Expected and found probabilities of the seen outcomes under the fit.
    """

    designs: Mapping[str, Any]
    counts: Mapping[str, int]
    seen_mean: float
    means: pd.DataFrame
    ml: np.ndarray
    two_step: np.ndarray
    notes: Mapping[str, str] = field(default_factory=dict)
    loglik: float = math.nan
    pit: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))

    @cached_property
    def outcome_design(self) -> Design:
        """Design of the outcome."""
        return Design.from_dict(self.designs["outcome"])

    @cached_property
    def selection_design(self) -> Design:
        """Design of selection."""
        return Design.from_dict(self.designs["selection"])

    def comparison(self, level: float = 0.95) -> pd.DataFrame:
        """Posterior, maximum likelihood and two-step estimates side by side.

        The classical estimates know neither priors nor constraints. Lambda is rho sigma, the
        coefficient of the inverse Mills ratio.

        Returns
        -------
        pandas.DataFrame
            `group` (the method), `parameter`, `term`, `estimate`, `std_error`, `conf_low`,
            `conf_high`; NaN where a method gives none.
        """
        parameter, term = (*self.parameter, "lambda"), (*self.term, "lambda")
        draws = np.column_stack([self.draws, self.draws[:, -2] * self.draws[:, -1]])
        frames = []
        for group, own in (("posterior", None), ("ml", self.ml), ("two-step", self.two_step)):
            if own is None:
                estimate, se, low, high = summarise(draws.T, self.weights, level)
            else:
                estimate, se = own.T
                low, high = (estimate + s * quantile(level) * se for s in (-1, 1))
            frames.append(
                pd.DataFrame(
                    {
                        "group": group,
                        "parameter": parameter,
                        "term": term,
                        "estimate": estimate,
                        "std_error": se,
                        "conf_low": low,
                        "conf_high": high,
                    }
                )  # fmt: skip
            )
        return pd.concat(frames, ignore_index=True)

    def _fit_lines(self, level: float) -> list[tuple[str, str]]:
        d = self.diagnostics
        lines = super()._fit_lines(level)
        n, seen = self.counts["rows"], self.counts["selected"]
        lines.append(("Selected", f"{seen:,} of {n:,} rows, mean outcome {self.seen_mean:.4g}"))
        for _, row in self.means.iterrows():
            text = f"{row['estimate']:.4g} [{row['conf_low']:.4g}, {row['conf_high']:.4g}]"
            text += f"; known {row['target']:.4g}" if math.isfinite(row["target"]) else ""
            lines.append((f"Implied mean of all{row['label']}", text))
        lines.append(
            ("Test of rho = 0", f"likelihood ratio {d['rho_lr']:.2f}, p = {d['rho_p_value']:.2g}")
        )
        for name, label in (("ml", "Maximum likelihood"), ("two_step", "Two steps")):
            if self.notes[name]:
                lines.append((label, self.notes[name]))
        return lines

    def summary(self, level: float = 0.95) -> Table:
        """Return the generic summary, with the classical estimates beside the posterior."""
        from causalrm.core.format import number
        from causalrm.core.table import Section, Table

        def shown(estimate: float, se: float) -> str:
            if not math.isfinite(estimate):
                return ""
            return number(estimate, 3) + (f" ({number(se, 3)})" if math.isfinite(se) else "")

        table = super().summary(level)
        both = self.comparison(level)
        size = len(self.parameter) + 1
        rows = []
        for i in range(size):
            own = both.iloc[i]
            name = own["term"]
            name = name if own["parameter"] == name else f"{own['parameter']}: {name}"
            cells = both.iloc[[i, i + size, i + 2 * size]]
            rows.append((name, *map(shown, cells["estimate"], cells["std_error"])))
        head = ("", "posterior", "maximum likelihood", "two-step")
        section = Section("Estimates with standard errors", head, tuple(rows))
        return Table(table.title, (*table.sections[:3], section, *self._remarks()), table.notes)

    @property
    def plot(self) -> HeckmanPlots:
        """Plots of the fit: ``plot()`` and ``plot.<kind>()``."""
        from causalrm.risk.heckman_plots import HeckmanPlots

        return HeckmanPlots(self)
