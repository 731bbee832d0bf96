"""What the Bayesian risk models return: draws and what was found from them, without rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from causalrm.core.design import Design
from causalrm.core.format import number
from causalrm.core.result import (
    COLUMNS,
    Coefficient,
    Estimate,
    Result,
    check_level,
    contrast_vector,
)

if TYPE_CHECKING:
    from causalrm.core.table import Table
    from causalrm.risk.plots import RiskPlots


# ------------------------------------------------------------------------- draws


def weighted_quantile(x: np.ndarray, weights: np.ndarray | None, probs: Sequence[float]) -> Any:
    """Quantiles along the last axis, between the midpoints of the draws' weights.

    Parameters
    ----------
    x : ndarray of shape (..., S)
    weights : ndarray of shape (S,), optional
        Equal by default.
    probs : sequence of float

    Returns
    -------
    ndarray of shape (len(probs), ...)
    """
    if weights is None:
        return np.quantile(x, probs, axis=-1, method="hazen")
    order = np.argsort(x, axis=-1)
    x, w = np.take_along_axis(x, order, axis=-1), weights[order]
    at = np.cumsum(w, axis=-1)
    at = (at - 0.5 * w) / at[..., -1:]
    out = []
    for p in probs:
        high = np.clip((at < p).sum(axis=-1, keepdims=True), 1, x.shape[-1] - 1)
        (x0, x1), (a0, a1) = (
            [np.take_along_axis(v, i, axis=-1)[..., 0] for i in (high - 1, high)] for v in (x, at)
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.clip((p - a0) / (a1 - a0), 0.0, 1.0)
        out.append(x0 + np.where(np.isfinite(share), share, 0.0) * (x1 - x0))
    return np.array(out)


def thinned(n: int, most: int, weights: np.ndarray | None) -> np.ndarray:
    """Numbers of at most so many of n draws: of chains spread over all, of a grid the first.

    Those are points of a Sobol sequence, any beginning of which is spread over the posterior.
    Every second or fourth is not: some combinations of the coordinates then keep one sign.
    """
    if weights is not None:
        return np.arange(min(n, most))
    return np.linspace(0, n - 1, min(n, most)).astype(int)


def summarise(x: np.ndarray, weights: np.ndarray | None, level: float) -> tuple[np.ndarray, ...]:
    """Mean, sd and ends of the equal-tailed interval of draws along the last axis."""
    check_level(level)
    w = np.full(x.shape[-1], 1.0 / x.shape[-1]) if weights is None else weights / weights.sum()
    mean = x @ w
    sd = np.sqrt(np.clip((x - mean[..., None]) ** 2 @ w, 0.0, None))
    low, high = weighted_quantile(x, weights, [(1 - level) / 2, (1 + level) / 2])
    return mean, sd, low, high


def frame_of(x: np.ndarray, weights: np.ndarray | None, level: float) -> pd.DataFrame:
    """Columns `estimate, std_error, conf_low, conf_high` of draws, shape (rows, S)."""
    names = ("estimate", "std_error", "conf_low", "conf_high")
    return pd.DataFrame(dict(zip(names, summarise(x, weights, level), strict=True)))


def to_datatree(
    posterior: Mapping[str, np.ndarray],
    sample_stats: Mapping[str, np.ndarray],
    coords: Mapping[str, Sequence[Any]],
    dims: Mapping[str, Sequence[str]],
    **groups: Mapping[str, np.ndarray],
) -> Any:
    """Draws as an ArviZ DataTree; arrays of shape (chain, draw, ...)."""
    import arviz as az

    content = {"posterior": dict(posterior), "sample_stats": dict(sample_stats), **groups}
    return az.from_dict(
        {name: dict(values) for name, values in content.items()},
        coords={name: list(values) for name, values in coords.items()},
        dims={name: list(values) for name, values in dims.items()},
    )


# ------------------------------------------------------------------------- results


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PosteriorResult(Result):
    """Draws from a posterior, and what is shown of them.

    Besides the fields of every result:

    Parameters
    ----------
    parameter, term : tuple of str
        Labels of the k coefficients.
    draws : ndarray of shape (S, k)
    weights : ndarray of shape (S,), optional
        Importance weights of the draws; None where they are equal.
    ess_bulk, r_hat : ndarray of shape (k,)
        Effective number of draws (of importance sampling with weights), and R-hat (NaN there).
    method : str
        What made the draws: "grid" or "nuts".
    """

    parameter: tuple[str, ...]
    term: tuple[str, ...]
    draws: np.ndarray
    weights: np.ndarray | None = None
    ess_bulk: np.ndarray = field(default_factory=lambda: np.empty(0))
    r_hat: np.ndarray = field(default_factory=lambda: np.empty(0))
    method: str = "grid"

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return one row per coefficient.

        Returns
        -------
        pandas.DataFrame
            `parameter, term, estimate, std_error, statistic, p_value, conf_low, conf_high,
            ess_bulk, r_hat`: posterior mean, posterior standard deviation and the equal-tailed
            interval; a posterior has no statistic and no p-value, which are NaN.
        """
        found = frame_of(self.draws.T, self.weights, level)
        out = pd.DataFrame({"parameter": self.parameter, "term": self.term})
        for name in COLUMNS[1:]:
            out[name] = found[name] if name in found else math.nan
        return out.assign(ess_bulk=self.ess_bulk, r_hat=self.r_hat)

    def contrast(
        self, weights: Mapping[Coefficient, float], level: float = 0.95, name: str = "contrast"
    ) -> Estimate:
        """Posterior of a weighted sum of coefficients.

        Parameters
        ----------
        weights : dict
            ``{(parameter, term): weight}``; the term alone will do where it is unambiguous.
        level : float
        name : str

        Returns
        -------
        Estimate
            Posterior mean, sd and equal-tailed interval; no p-value.

        Raises
        ------
        DataError
            When weights are not given by coefficient, or a coefficient is not in the fit.
        """
        x = self.draws @ contrast_vector(self.parameter, self.term, weights)
        mean, sd, low, high = summarise(x, self.weights, level)
        return Estimate(float(mean), float(sd), float(low), float(high), level, name)

    def _fit_lines(self, level: float) -> list[tuple[str, str]]:
        d = self.diagnostics
        parts = [f"{len(self.draws):,} draws"]
        if self.method == "grid":
            parts.append(f"importance ESS {d.get('importance_ess', math.nan):,.0f}")
            parts.append(f"Pareto k-hat {d.get('khat', math.nan):.2f}")
        else:
            parts.append(f"largest R-hat {d.get('max_r_hat', math.nan):.3f}")
            parts.append(
                f"smallest ESS {d.get('min_ess_bulk', math.nan):,.0f} (bulk), "
                f"{d.get('min_ess_tail', math.nan):,.0f} (tail)"
            )
            parts.append(f"{d.get('divergences', 0)} divergences")
        sampler = f" ({d['sampler']})" if "sampler" in d else ""
        return [("Posterior", f"{self.method}{sampler}: " + ", ".join(parts))]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RiskResult(PosteriorResult):
    """Result of `SelectiveLabelsModel`.

    Besides the fields of `PosteriorResult`, whose coefficients are those of risk and testing on
    the scale of their columns, then sigma, alpha where it is inferred, and the deciders:

    Parameters
    ----------
    designs : dict
        For risk and testing the design as plain values.
    free : ndarray of bool
        Which columns of the testing design have a coefficient.
    unobservable : str
    alpha : float or None
        The fixed weight of risk in testing; None where it is inferred.
    deciders : tuple
        Levels of the deciders.
    counts : dict
        Rows, tested, positive.
    prevalence : pandas.DataFrame
        A row per prevalence constraint: level, target, se, and the implied prevalence of each
        draw summarised; and a row for all rows.
    implied : ndarray of shape (S, t)
        Implied prevalence of the sample (first) and of each constraint, by draw.
    fan : pandas.DataFrame
        Coefficients under other prevalences; empty without a prevalence constraint.
    check : pandas.DataFrame
        Observed and predicted shares tested, and positive among the tested, by decile of risk.
    testing_curve : pandas.DataFrame
        Risk and probability of testing of the rows, reduced to at most 400 points.
    """

    designs: Mapping[str, Any]
    free: np.ndarray
    unobservable: str
    alpha: float | None
    deciders: tuple[Any, ...] = ()
    counts: Mapping[str, float] = field(default_factory=dict)
    prevalence: pd.DataFrame = field(default_factory=pd.DataFrame)
    implied: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    fan: pd.DataFrame = field(default_factory=pd.DataFrame)
    check: pd.DataFrame = field(default_factory=pd.DataFrame)
    testing_curve: pd.DataFrame = field(default_factory=pd.DataFrame)

    @cached_property
    def risk_design(self) -> Design:
        """Design of risk."""
        return Design.from_dict(self.designs["risk"])

    @cached_property
    def testing_design(self) -> Design:
        """Design of testing, all columns."""
        return Design.from_dict(self.designs["testing"])

    def part(self, parameter: str) -> np.ndarray:
        """Draws of the coefficients of one parameter, shape (S, number of them)."""
        return self.draws[:, [i for i, name in enumerate(self.parameter) if name == parameter]]

    def _fit_lines(self, level: float) -> list[tuple[str, str]]:
        d, c = self.diagnostics, self.counts
        lines = super()._fit_lines(level)
        lines.append(
            ("Tested", f"{c['tested']:,.0f} of {c['rows']:,.0f} rows, {c['positive']:,.0f} of "
             f"them positive ({d['tested_prevalence']:.3g})")
        )  # fmt: skip
        for _, row in self.prevalence.iterrows():
            text = f"{row['estimate']:.4g} [{row['conf_low']:.4g}, {row['conf_high']:.4g}]"
            if math.isfinite(row["target"]):
                z = f", z = {row['z']:.2f}" if math.isfinite(row["z"]) else ""
                text += f"; target {row['target']:.4g}{z}"
            lines.append((f"Implied prevalence{row['label']}", text))
        lines.append(("Condition number", number(d["condition_number"], 1)))
        told = ", ".join(f"{k} {v:.0%}" for k, v in d["contraction"].items())
        lines.append(("Prior-to-posterior contraction", told))
        return lines

    def summary(self, level: float = 0.95) -> Table:
        """Return the generic summary, with the fan of other prevalences."""
        from causalrm.core.table import Section, Table

        table = super().summary(level)
        if not len(self.fan):
            return table
        targets = list(dict.fromkeys(self.fan["prevalence"]))
        shown = self.fan[self.fan["parameter"].isin(["risk", "testing", "sigma"])]
        rows: list[tuple[str, ...]] = []
        for name, own in shown.groupby(["parameter", "term"], sort=False):
            by = dict(zip(own["prevalence"], own["estimate"], strict=True))
            parameter, term = map(str, tuple(name))
            label = term if parameter == term else f"{parameter}: {term}"
            rows.append((label, *(number(by.get(t, math.nan), 3) for t in targets)))
        fan = Section("If the prevalence were", ("", *map(str, targets)), tuple(rows))
        return Table(table.title, (*table.sections[:3], fan, *self._remarks()), table.notes)

    @property
    def plot(self) -> RiskPlots:
        """Plots of the fit: ``plot()`` and ``plot.<kind>()``."""
        from causalrm.risk.plots import RiskPlots

        return RiskPlots(self)
