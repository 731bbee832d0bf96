"""What an attribution finds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from causalrm.attribution.noise import TokenNoise, token_noise
from causalrm.core import inference
from causalrm.core.errors import DataError, IdentificationError
from causalrm.core.result import COLUMNS, Estimate, Result, Test, check_level, quantile

if TYPE_CHECKING:
    from causalrm.attribution.plots import AttributionPlots


def effects(
    terms: Sequence[str],
    estimate: np.ndarray,
    std_error: np.ndarray,
    level: float,
    df: np.ndarray | None = None,
) -> pd.DataFrame:
    """Return the columns of every result frame; where `df` is not finite the law is normal."""
    laws = [None if df is None or not math.isfinite(df[i]) else float(df[i])
            for i in range(len(terms))]  # fmt: skip
    half = np.array([quantile(level, law) for law in laws]) * std_error
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = estimate / std_error
    p = [float(inference.two_sided_p(x, law)) for x, law in zip(statistic, laws, strict=True)]
    values = (list(terms), estimate, std_error, statistic, p, estimate - half, estimate + half)
    return pd.DataFrame(dict(zip(COLUMNS, values, strict=True)))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class AttributionResult(Result):
    """Shapley values of components, with where their uncertainty comes from.

    Parameters
    ----------
    names, groups, roles : tuple
        Of the n components.
    kind, method : str
        Kind of value, and the method that was used (the one that "auto" chose).
    phi : ndarray of shape (n,)
    cov_sampling, cov_reply, cov_template : ndarray of shape (n, n)
        Because not all coalitions were asked; because replies are noisy; because the wording is
        one of many (zero with one wording: not measured).
    df : float or None
        Degrees of freedom of `cov_sampling` + `cov_reply`, where they come from a few orders of
        the players; None where they are taken as known.
    template_df : int
        Wordings less one.
    value_none, value_all : float
        Value without and with all components.
    efficiency_gap : float
        Sum of the values less `value_all` - `value_none`.
    held_out : dict
        Squared error at pairs left out, per surrogate that "auto" compared.
    n_coalitions : int
    outcomes : DataFrame
        What came back: outcome, count, share.
    variants : DataFrame
        Per wording and option order: mean value, value without and with all components.
    trace : DataFrame
        Estimates at each checkpoint.
    interactions : DataFrame or None
        All indices that were estimated; see `interaction`.
    segments : tuple
        The prompt in parts, each with the number of its component or -1.
    """

    names: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]
    roles: tuple[str, ...]
    kind: str
    method: str
    phi: np.ndarray
    cov_sampling: np.ndarray
    cov_reply: np.ndarray
    cov_template: np.ndarray
    df: float | None
    template_df: int
    value_none: float
    value_all: float
    efficiency_gap: float
    held_out: Mapping[str, float]
    n_coalitions: int
    outcomes: pd.DataFrame
    variants: pd.DataFrame
    trace: pd.DataFrame
    interactions: pd.DataFrame | None
    segments: tuple[tuple[str, int], ...]

    def __repr__(self) -> str:
        return f"<AttributionResult: {len(self.names)} components, {self.n_obs} replies>"

    @property
    def covariance(self) -> np.ndarray:
        """Covariance of the values from all three sources, shape (n, n)."""
        return np.asarray(self.cov_sampling + self.cov_reply + self.cov_template)

    @property
    def std_error(self) -> np.ndarray:
        """Standard errors from all three sources, shape (n,)."""
        return np.sqrt(np.maximum(np.diag(self.covariance), 0.0))

    @property
    def plot(self) -> AttributionPlots:
        """The plots: ``result.plot()`` and ``result.plot.<kind>()``."""
        from causalrm.attribution.plots import AttributionPlots

        return AttributionPlots(self)

    def _rows(self, terms: list[str], weights: np.ndarray, level: float) -> pd.DataFrame:
        """Frame of weighted sums of values; t by Satterthwaite with few wordings or orders."""
        estimate = weights @ self.phi
        variance = np.maximum(np.einsum("ij,jk,ik->i", weights, self.covariance, weights), 0.0)
        wording = np.einsum("ij,jk,ik->i", weights, self.cov_template, weights)
        with np.errstate(divide="ignore", invalid="ignore"):
            unsure = wording**2 / max(self.template_df, 1)
            unsure += 0.0 if self.df is None else (variance - wording) ** 2 / self.df
            df = variance**2 / unsure
        return effects(terms, estimate, np.sqrt(variance), level, df)

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return one row per component, in player order, with intervals at `level`."""
        return self._rows(list(self.names), np.eye(len(self.names)), level)

    def uncertainty(self) -> pd.DataFrame:
        """Return the standard error of each value and its three parts.

        Returns
        -------
        DataFrame
            term, estimate, std_error, se_sampling, se_reply, se_template; the squares of the
            parts add up to that of the whole.
        """
        parts = {
            f"se_{name}": np.sqrt(np.maximum(np.diag(getattr(self, f"cov_{name}")), 0.0))
            for name in ("sampling", "reply", "template")
        }
        columns = {"term": list(self.names), "estimate": self.phi, "std_error": self.std_error}
        return pd.DataFrame(columns | parts)

    def group_values(self, depth: int = 1, level: float = 0.95) -> pd.DataFrame:
        """Sum the values of each group's components.

        With ``kind="owen"`` that is the group's own Shapley value in the game between groups.

        Parameters
        ----------
        depth : int, default 1
            Level of nested groups, 1 the outermost.
        level : float

        Returns
        -------
        DataFrame
            The columns of every result frame, a row per group, and per component without one.
        """
        labels = [
            " / ".join(g[:depth]) if g else name
            for g, name in zip(self.groups, self.names, strict=True)
        ]
        terms = list(dict.fromkeys(labels))
        weights = np.array([[float(label == term) for label in labels] for term in terms])
        return self._rows(terms, weights, level)

    def contrast(self, weights: Mapping[str, float], level: float = 0.95) -> Estimate:
        """Estimate a weighted sum of values.

        Parameters
        ----------
        weights : dict of component name to weight
        level : float

        Returns
        -------
        Estimate
        """
        if unknown := sorted(set(weights) - set(self.names)):
            raise DataError(f"There is no component {unknown[0]!r}; there are {self.names}.")
        row = np.array([[float(weights.get(name, 0.0)) for name in self.names]])
        found = self._rows(["contrast"], row, level).iloc[0]
        estimate, se, low, high, p = (
            float(found[c]) for c in ("estimate", "std_error", "conf_low", "conf_high", "p_value")
        )
        return Estimate(estimate, se, low, high, level, "contrast", p)

    def joint_test(self, role: str | None = None) -> Test:
        """Test that all components (of one role) have the value zero.

        On the fit of `PromptTemplate.placebo` this is the placebo test.

        Parameters
        ----------
        role : {"informative", "neutral"}, optional

        Returns
        -------
        Test
            Chi-squared, or Hotelling's as F where the covariance comes from a few orders.
        """
        used = [i for i, r in enumerate(self.roles) if role in (None, r)]
        if not used:
            raise DataError(f"No component has the role {role!r}.")
        df = None if self.df is None else self.df - len(used) + 1.0
        if df is not None and df < 1.0:
            raise IdentificationError(
                f"{int(self.df or 0) + 1} pairs of orders cannot test {len(used)} components "
                "together: raise the budget to more pairs than components."
            )
        phi = self.phi[used] * (1.0 if df is None else np.sqrt(df / (self.df or 1.0)))
        try:
            w, q, p = inference.wald(phi, self.covariance[np.ix_(used, used)], df)
        except (ValueError, np.linalg.LinAlgError) as error:
            raise IdentificationError(
                "The covariance of these values is singular: they are known exactly, or add up to "
                "a known number. Look at their sizes instead."
            ) from error
        return Test("all zero", w if df is None else w / q, q, p, df)

    def token_noise(self, level: float = 0.95) -> TokenNoise:
        """Share of neutral components in what moves the decision; see `token_noise`."""
        neutral = np.array([role == "neutral" for role in self.roles])
        return token_noise(
            self.phi, self.covariance, neutral, level=level, rng=(self.entropy or 0) % 2**32
        )

    def interaction(self, index: str = "FSII", level: float = 0.95) -> pd.DataFrame:
        """Return interaction values.

        Parameters
        ----------
        index : {"FSII", "SII", "k-SII", "STII"}
        level : float

        Returns
        -------
        DataFrame
            The columns of every result frame after `group`, the number of components.

        Raises
        ------
        IdentificationError
            When the fit was for single components.
        """
        table = self.interactions
        if table is None:
            raise IdentificationError("Interactions were not asked for: give order=2 or 3.")
        rows = table[table["index"] == index]
        if rows.empty:
            known = tuple(table["index"].unique())
            raise DataError(f"index must be one of {known}; got {index!r}.")
        frame = effects(
            rows["term"].tolist(), rows["estimate"].to_numpy(), rows["std_error"].to_numpy(), level
        )
        frame.insert(0, "group", "order " + rows["order"].astype(str).to_numpy())
        return frame

    def convergence(self, level: float = 0.95) -> pd.DataFrame:
        """Return estimates by checkpoint, with intervals that hold at all of them at once.

        Whoever stops after a look at the values needs these: look k has the error probability
        (1 - level) / (k (k + 1)), and all together that of one.

        Returns
        -------
        DataFrame
            look, calls, coalitions, term, estimate, std_error, df, conf_low, conf_high.
        """
        check_level(level)
        out = self.trace.copy()
        z = [
            quantile(1.0 - (1.0 - level) / (k * (k + 1)), None if np.isnan(df) else df)
            for k, df in zip(out["look"], out["df"], strict=True)
        ]
        out["conf_low"] = out["estimate"] - z * out["std_error"]
        out["conf_high"] = out["estimate"] + z * out["std_error"]
        return out

    def _fit_lines(self, level: float) -> list[tuple[str, str]]:
        parts = self.uncertainty()[["se_sampling", "se_reply", "se_template"]]
        rms = np.sqrt((parts**2).mean())
        lines = [
            ("Kind, method", f"{self.kind}, {self.method}"),
            ("Coalitions", f"{self.n_coalitions:,} of 2^{len(self.names)}"),
            ("Value", f"{self.value_none:.4g} without, {self.value_all:.4g} with all components"),
            ("Efficiency gap", f"{self.efficiency_gap:.2g}"),
            (
                "Std. errors",
                ("" if self.df is None else f"t({self.df:g}); ")
                + f"from coalitions {rms.iloc[0]:.2g}, replies {rms.iloc[1]:.2g}, wordings "
                + (f"{rms.iloc[2]:.2g}" if self.template_df else "not measured (one wording)"),
            ),
            (
                "Outcomes",
                ", ".join(
                    f"{o} {c:,}"
                    for o, c in zip(self.outcomes["outcome"], self.outcomes["count"], strict=True)
                ),
            ),
            ("Stopped by", str(self.diagnostics["stopped"])),
        ]
        if 0 < self.roles.count("neutral") < len(self.roles):
            s = self.token_noise(level).share
            lines.append(("Token noise", f"{s.estimate:.3f} [{s.conf_low:.3f}, {s.conf_high:.3f}]"))
        return lines

    def to_html(self, level: float = 0.95) -> str:
        """Return the prompt as a heat map in HTML; see `plot.text` for matplotlib."""
        from causalrm.attribution.plots import heat_map_html

        return heat_map_html(self, level)
