"""What a Bradley-Terry fit returns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import special

from causalrm.core.errors import DataError
from causalrm.core.result import Coefficient, Estimate, LikelihoodResult, Scale, quantile
from causalrm.preference import _kernels as K
from causalrm.preference import ranks

if TYPE_CHECKING:
    from causalrm.preference.plots import BradleyTerryPlots


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class BradleyTerryResult(LikelihoodResult):
    """Result of `BradleyTerry`.

    The strength of the first item, the reference, is zero, and it has no row among the
    coefficients; `ranking` and `strengths` have all items.

    Besides the fields of every likelihood fit:

    Parameters
    ----------
    items : tuple
        Labels, the reference first.
    model : int
        Number of the likelihood.
    position : bool
        Whether there is an effect of the first place.
    design : dict or None
        The covariates' design as plain values.
    votes : pandas.DataFrame
        Per item the (weighted) numbers of comparisons, wins, ties and losses.
    """

    items: tuple[Any, ...]
    model: int
    position: bool
    design: Mapping[str, Any] | None
    votes: pd.DataFrame

    def _scales(self) -> Mapping[str, Scale]:
        return {"nu": Scale(math.exp, math.exp), "theta": Scale(math.exp, math.exp)}

    @property
    def reference(self) -> Any:
        """The item whose strength is zero."""
        return self.items[0]

    @property
    def has_ties(self) -> bool:
        """Whether the model has a probability of a tie of its own."""
        return self.model >= K.DAVIDSON

    def _place(self, item: Any) -> int:
        return place_of(item, self.items)

    # ------------------------------------------------------------ strengths

    @property
    def strengths(self) -> pd.Series:
        """Strengths of all items, the reference's being zero."""
        values = np.concatenate([[0.0], self.estimates[: len(self.items) - 1]])
        return pd.Series(values, index=pd.Index(self.items, name="item"), name="strength")

    def _item_covariance(self) -> np.ndarray:
        k = len(self.items)
        out = np.zeros((k, k))
        out[1:, 1:] = self._covariance()[: k - 1, : k - 1]
        return out

    def contrast(  # type: ignore[override]  # an item is a natural first argument here
        self,
        a: Any,
        b: Any = None,
        level: float = 0.95,
        name: str = "",
    ) -> Estimate:
        """Estimate the difference of two strengths, or any weighted sum of coefficients.

        Parameters
        ----------
        a, b : item
            The difference is the strength of `a` minus that of `b`: the log odds that `a` beats
            `b` in the logit model. `b` is the reference where it is left out. A dict
            ``{(parameter, term): weight}`` as `a` gives a weighted sum.
        level : float
        name : str

        Returns
        -------
        Estimate

        Raises
        ------
        DataError
            When an item is not among those of the fit.
        """
        if isinstance(a, Mapping):
            return super().contrast(a, level, name or "contrast")
        i, j = self._place(a), 0 if b is None else self._place(b)
        if i == j:
            raise DataError(
                f"Expected two different items, but saw {a!r} twice"
                + (" (it is the reference). " if b is None else ". ")
                + "Give another as b."
            )
        sides = ((i, 1.0), (j, -1.0))
        weights: dict[Coefficient, float] = {
            ("strength", str(self.items[at])): sign for at, sign in sides if at
        }
        return super().contrast(weights, level, name or f"{self.items[i]} - {self.items[j]}")

    def quasi_std_errors(self) -> pd.Series:
        """Standard errors of single items, whose squares add up to those of differences.

        They do so nearly; ``attrs["largest_error"]`` of what is returned is the largest relative
        error of a standard error of a difference. Where it is large, which correlated votes can
        make it, rely on `contrast` for single pairs.

        Returns
        -------
        pandas.Series
            One value per item; NaN where no value serves all differences.

        References
        ----------
        Firth, de Menezes (2004), Quasi-variances, Biometrika 91, 65-80,
        doi 10.1093/biomet/91.1.65.
        """
        q, error = ranks.quasi_variances(self._item_covariance())
        values = np.sqrt(np.where(q >= 0, q, np.nan))
        out = pd.Series(values, index=self.strengths.index, name="quasi_se")
        out.attrs["largest_error"] = error
        return out

    # ------------------------------------------------------------ ranks

    @lru_cache(maxsize=4)  # noqa: B019  results are few and small
    def _better(self, level: float) -> np.ndarray:
        quantile(level)  # refuses a level that is none
        strength = self.strengths.to_numpy()
        return ranks.compare_all(strength, self._item_covariance(), level, self._df)[0]

    def ranking(self, level: float = 0.95) -> pd.DataFrame:
        """Return a leaderboard: strengths, their uncertainty, and the ranks that they may have.

        Parameters
        ----------
        level : float
            Of the intervals; the ranks of all items lie within `rank_low` and `rank_high`
            together with this probability.

        Returns
        -------
        pandas.DataFrame
            From the strongest item on, with the columns

            - `term`, `estimate`, `std_error`: the item, its strength against the reference, and
              the standard error of that difference;
            - `quasi_se`, `conf_low`, `conf_high`: quasi standard error, and the interval from it;
            - `rank`, `rank_low`, `rank_high`: 1 is the best; simultaneous intervals;
            - `group`: the groups of `groups`, by letter or number, that the item belongs to;
            - `n`, `wins`, `ties`, `losses`: (weighted) votes.
        """
        strength = self.strengths.to_numpy()
        better = self._better(level)
        low, high = ranks.rank_bounds(better)
        quasi = self.quasi_std_errors().to_numpy()
        z = quantile(level, self._df)
        frame = pd.DataFrame(
            {
                "term": list(self.items),
                "estimate": strength,
                "std_error": np.sqrt(np.clip(np.diag(self._item_covariance()), 0, None)),
                "quasi_se": quasi,
                "conf_low": strength - z * quasi,
                "conf_high": strength + z * quasi,
                "rank": 1 + (strength[:, None] < strength[None, :]).sum(axis=1),
                "rank_low": low,
                "rank_high": high,
            }
        )
        frame.loc[0, "std_error"] = math.nan
        named = _names_of(len(found := self._groups(level)))
        frame["group"] = [
            " ".join(n for n, members in zip(named, found, strict=True) if i in members)
            for i in range(len(self.items))
        ]
        frame = frame.join(self.votes[["n", "wins", "ties", "losses"]])
        return frame.sort_values("estimate", ascending=False, kind="stable", ignore_index=True)

    def _groups(self, level: float) -> list[list[int]]:
        order = np.argsort(-self.strengths.to_numpy(), kind="stable")
        return ranks.groups(order, self._better(level))

    def groups(self, level: float = 0.95) -> list[list[Any]]:
        """Return groups of items that the data cannot separate.

        Each is a run of neighbours in the ranking no two of whom differ beyond doubt, all pairs
        compared at once; runs overlap, as "not told apart" is not transitive.

        Returns
        -------
        list of list
            From the strongest on.
        """
        return [[self.items[i] for i in members] for members in self._groups(level)]

    # ------------------------------------------------------------ probabilities

    def _probability(
        self, z: np.ndarray, outcome: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Probability of an outcome at z, and the derivatives of its log."""
        tau = float(self.estimates[len(self.items) - 1]) if self.has_ties else 0.0
        z = np.ascontiguousarray(z, dtype=float)
        value, s_z, s_tau = K.votes(self.model, z, tau, np.full(z.size, outcome))
        return np.exp(value), s_z, s_tau

    def win_probability(self, a: Any, b: Any, level: float = 0.95) -> Estimate:
        """Probability that `a` beats `b`, with covariates equal and no advantage of place.

        With ties as half wins it is the expected share of a win. The interval is symmetric on the
        logit scale.
        """
        i, j = self._place(a), self._place(b)
        row = self._win_frame(np.array([i]), np.array([j]), level).iloc[0]
        value, se, low, high = (
            float(row[c]) for c in ("estimate", "std_error", "conf_low", "conf_high")
        )
        return Estimate(value, se, low, high, level, f"P({a} beats {b})")

    def win_matrix(self, level: float | None = None) -> pd.DataFrame:
        """Probabilities that the item of the row beats that of the column.

        Parameters
        ----------
        level : float, optional
            Give intervals at this level.

        Returns
        -------
        pandas.DataFrame
            Items by items, strongest first, with NaN in the diagonal; with `level` one row per
            ordered pair, with `a, b, estimate, std_error, conf_low, conf_high`.
        """
        order = np.argsort(-self.strengths.to_numpy(), kind="stable")
        k = len(order)
        i, j = np.repeat(order, k), np.tile(order, k)
        if level is not None:
            return self._win_frame(i[i != j], j[i != j], level)
        strength = self.strengths.to_numpy()
        p, _, _ = self._probability(strength[i] - strength[j], 1.0)
        labels = pd.Index([self.items[o] for o in order], name="item")
        values = np.where(i == j, np.nan, p).reshape(k, k)
        return pd.DataFrame(values, index=labels, columns=labels.rename("beats"))

    def _win_frame(self, i: np.ndarray, j: np.ndarray, level: float) -> pd.DataFrame:
        k = len(self.items)
        strength, covariance = self.strengths.to_numpy(), self._item_covariance()
        p, s_z, s_tau = self._probability(strength[i] - strength[j], 1.0)
        variance = s_z**2 * ranks.contrast_variances(covariance)[i, j]
        if self.has_ties:
            full = self._covariance()
            side = np.concatenate([[0.0], full[: k - 1, k - 1]])
            variance += 2 * s_z * s_tau * (side[i] - side[j]) + s_tau**2 * full[k - 1, k - 1]
        se = np.sqrt(np.clip(variance, 0.0, None))  # of log p; that of logit p is se / (1 - p)
        half = quantile(level, self._df) * se / (1 - p)
        logit = special.logit(p)
        return pd.DataFrame(
            {
                "a": [self.items[o] for o in i],
                "b": [self.items[o] for o in j],
                "estimate": p,
                "std_error": p * se,
                "conf_low": special.expit(logit - half),
                "conf_high": special.expit(logit + half),
            }
        )

    # ------------------------------------------------------------ shown

    def _fit_lines(self, level: float) -> list[tuple[str, str]]:
        d = self.diagnostics
        ties = d["ties"] / d["votes"]
        lines = [
            ("Reference item", f"{self.reference} (strength 0)"),
            ("Comparisons", f"{d['votes']:,} votes, {len(self.items):,} items, {d['pairs']:,} "
             f"pairs; {ties:.1%} ties"),
        ]  # fmt: skip
        if "clusters" in d:
            lines.append(("Clusters", f"{d['clusters']:,}"))
        found = self._groups(level)
        lines.append(("Not separable", f"{len(found)} overlapping groups; see groups()"))
        return lines + super()._fit_lines(level)

    @property
    def plot(self) -> BradleyTerryPlots:
        """Plots of the fit: ``plot()``, ``plot.win_matrix()``, ``plot.ranks()``."""
        from causalrm.preference.plots import BradleyTerryPlots

        return BradleyTerryPlots(self)


def place_of(item: Any, items: Sequence[Any]) -> int:
    """Where an item stands among those of a fit."""
    for i, known in enumerate(items):
        if known == item:
            return i
    near = ", ".join(map(repr, items[:12]))
    raise DataError(f"Expected an item of the fit, but saw {item!r}. Give one of: {near}.")


def _names_of(n: int) -> list[str]:
    """Letters for up to 26 groups, numbers for more."""
    return [chr(97 + i) for i in range(n)] if n <= 26 else [str(i + 1) for i in range(n)]
