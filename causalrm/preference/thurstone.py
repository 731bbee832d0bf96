"""Thurstone's law of comparative judgement, with a variance of its own for every item."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import linalg, special

from causalrm.core import plotting
from causalrm.core.errors import (
    ConvergenceWarning,
    DataError,
    IdentificationError,
    IdentificationWarning,
    warn,
)
from causalrm.core.inference import condition_number
from causalrm.core.result import Assumption, Coefficient, Estimate, LikelihoodResult, Test
from causalrm.preference import _kernels as K
from causalrm.preference import pair_table as pt
from causalrm.preference.base import VoteModel, check_penalty
from causalrm.preference.fitting import check_connected
from causalrm.preference.result import place_of
from causalrm.preference.votes import Roles, Votes, heap, read

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_VAGUE = 0.5  # standard error of a variance (of mean 1) from which on a warning is due
_FAR = 5.5  # score of a pair beyond which its estimate runs to infinity


def sum_to_zero(k: int) -> np.ndarray:
    """Orthonormal basis of the vectors of length k that sum to zero, shape (k, k - 1)."""
    return np.asarray(linalg.null_space(np.ones((1, k)))) if k > 1 else np.zeros((k, 0))


def pair_scores(
    mu: np.ndarray, variance: np.ndarray, a: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of `a` against `b`, and their Jacobian in all means and variances."""
    k, rows = len(mu), np.arange(len(a))
    total = variance[a] + variance[b]
    root = 1.0 / np.sqrt(total)
    eta = (mu[a] - mu[b]) * root
    j = np.zeros((len(a), 2 * k))
    j[rows, a], j[rows, b] = root, -root
    j[rows, k + a] = j[rows, k + b] = -0.5 * eta / total
    return eta, j


class _Judgement:
    """Scores of pairs in free parameters: ``(mu, variance) = offset + basis @ theta``."""

    def __init__(self, table: pt.PairTable, basis: np.ndarray, offset: np.ndarray):
        self.a, self.b, self.k = table.first, table.second, len(table.items)
        self.basis, self.offset = basis, offset

    def parts(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        both = self.offset + self.basis @ theta
        return both[: self.k], both[self.k :]

    def prior(self, penalty: float) -> pt.Prior:
        """Ridge on the variances, whatever of them is free."""
        half = self.basis[self.k :]

        def prior(theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
            excess = self.parts(theta)[1] - 1.0
            value = -0.5 * penalty * float(excess @ excess)
            return value, -penalty * half.T @ excess, -penalty * half.T @ half

        return prior

    def eta(self, theta: np.ndarray) -> np.ndarray:
        return pair_scores(*self.parts(theta), self.a, self.b)[0]

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        return np.asarray(pair_scores(*self.parts(theta), self.a, self.b)[1] @ self.basis)

    def curvature(self, theta: np.ndarray, g: np.ndarray) -> np.ndarray:
        mu, variance = self.parts(theta)
        a, b, k = self.a, self.b, self.k
        total = variance[a] + variance[b]
        cross = -0.5 * g * total**-1.5
        square = 0.75 * g * (mu[a] - mu[b]) * total**-2.5
        out = np.zeros((2 * k, 2 * k))
        for v in (k + a, k + b):
            for mean, sign in ((a, 1.0), (b, -1.0)):
                np.add.at(out, (mean, v), sign * cross)
                np.add.at(out, (v, mean), sign * cross)
            for other in (k + a, k + b):
                np.add.at(out, (v, other), square)
        return np.asarray(self.basis.T @ out @ self.basis)


def _free(k: int, fixed: dict[int, float]) -> tuple[np.ndarray, np.ndarray]:
    """Basis and offset of means that sum to zero and variances of mean 1, some of them fixed."""
    others = [i for i in range(k) if i not in fixed]
    variances = np.zeros((k, max(len(others) - 1, 0)))
    variances[others] = sum_to_zero(len(others))
    offset = np.zeros(2 * k)
    offset[[k + i for i in others]] = (k - sum(fixed.values())) / max(len(others), 1)
    for i, value in fixed.items():
        offset[k + i] = value
    return linalg.block_diag(sum_to_zero(k), variances), offset


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ThurstoneResult(LikelihoodResult):
    """What `Thurstone.fit` found: parameters "mu" and "variance", one of each per item.

    Means sum to zero, and the mean of the variances is 1.

    Parameters
    ----------
    items : tuple
    at_zero : tuple of str
        Items whose variance is estimated as zero, at the end of its range. No variance has a
        standard error then, and those of the means take these zeros as known.
    equal_variances : dict
        Likelihood-ratio test that all variances are equal: `statistic`, `df`, `p_value`.
    """

    items: tuple[Any, ...]
    at_zero: tuple[str, ...]
    equal_variances: dict[str, float]

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return one row per mean and variance; see `at_zero` for missing standard errors."""
        frame = super().to_frame(level)
        variances = frame["parameter"] == "variance"
        frame.loc[variances, ["statistic", "p_value"]] = math.nan  # zero is no hypothesis to test
        if self.at_zero:
            frame.loc[variances, ["std_error", "conf_low", "conf_high"]] = math.nan
        return frame

    @property
    def plot(self) -> ThurstonePlots:
        """Plots: ``plot()`` draws strengths with their intervals, ``plot.variance()`` others."""
        return ThurstonePlots(self)

    def contrast(  # type: ignore[override]  # an item is a natural first argument here
        self, a: Any, b: Any = None, level: float = 0.95, name: str = ""
    ) -> Estimate:
        """Estimate the mean of item `a` less that of item `b`.

        Parameters
        ----------
        a, b : item
            A dict ``{(parameter, term): weight}`` as `a`, without `b`, gives a weighted sum.
        level : float
        name : str

        Returns
        -------
        Estimate
        """
        if isinstance(a, Mapping):
            return super().contrast(a, level, name or "contrast")
        i, j = place_of(a, self.items), place_of(b, self.items)
        weights: dict[Coefficient, float] = {
            ("mu", str(self.items[i])): 1.0,
            ("mu", str(self.items[j])): -1.0,
        }
        return super().contrast(weights, level, name or f"{a} - {b}")

    def win_matrix(self) -> pd.DataFrame:
        """Probability that the row's item beats the column's; NaN on the diagonal."""
        k = len(self.items)
        mu, variance = self.estimates[:k], self.estimates[k:]
        total = variance[:, None] + variance[None, :]
        np.fill_diagonal(total, 1.0)
        p = special.ndtr((mu[:, None] - mu[None, :]) / np.sqrt(total))
        np.fill_diagonal(p, np.nan)
        return pd.DataFrame(p, index=self.items, columns=self.items)

    def equal_variances_test(self) -> Test:
        """Likelihood-ratio test that all variances are equal.

        The chi-squared reference is for independent votes without ties.
        """
        t = self.equal_variances
        return Test("Equal variances", t["statistic"], int(t["df"]), t["p_value"])

    def _fit_lines(self, level: float) -> list[tuple[str, str]]:
        text = str(self.equal_variances_test()).partition(": ")[2]
        number = self.diagnostics["condition_number"]
        return [
            *super()._fit_lines(level),
            ("Equal variances", text),
            ("Condition number", f"{number:.3g}"),
        ]


class ThurstonePlots:
    """Plots of Thurstone's model."""

    def __init__(self, result: ThurstoneResult):
        self._result = result

    def __call__(self, ax: Axes | None = None, level: float = 0.95) -> Axes:
        """Strengths of the items, with intervals."""
        return self._draw("mu", "Mean, in units of the typical standard deviation", ax, level)

    def variance(self, ax: Axes | None = None, level: float = 0.95) -> Axes:
        """Variances of the items, with intervals."""
        return self._draw("variance", "Variance (mean 1)", ax, level)

    def _draw(self, parameter: str, text: str, ax: Axes | None, level: float) -> Axes:
        frame = self._result.to_frame(level)
        frame = frame[frame["parameter"] == parameter].sort_values("estimate", ascending=False)
        one = 0.0 if parameter == "mu" else 1.0
        frame = frame.drop(columns="parameter")
        labels = frame["term"].tolist()
        ax = plotting.forest(ax, frame, reference_at=one, xlabel=text, labels=labels)
        ax.set_title("Thurstone's comparative judgement")
        return ax


class Thurstone(VoteModel):
    r"""Thurstone's comparative judgement with a variance for every item.

    Item i draws a quality from a normal distribution with mean :math:`\mu_i` and standard
    deviation :math:`\sigma_i`, and the better draw wins:
    :math:`P(a \succ b) = \Phi\bigl((\mu_a - \mu_b) / \sqrt{\sigma_a^2 + \sigma_b^2}\bigr)`.

    The data fix neither the origin nor the unit: means sum to zero, and the mean of the variances
    is 1. The variances are weakly identified: they show only in how much the score of a pair
    departs from a difference of means, and items of equal mean say nothing of them. With five
    items of equal variance and means 0.6 to 0.8 apart, the estimate of one variance is zero in
    72 % of simulated data sets of 2,000 votes on each pair, and in 47 % of those of 100,000. Look
    at intervals, at `profile` and at `result_.equal_variances_test` before you read them.

    Parameters
    ----------
    penalty : float, default 0
        Ridge ``penalty / 2 * (variance - 1)**2`` on the scale of the summed log-likelihood.
    covariance : {"auto", "model", "robust", "cluster"}, default "auto"
        "auto" is "cluster" when `cluster` is given to `fit`, else "robust".

    Attributes
    ----------
    result_ : ThurstoneResult

    References
    ----------
    Thurstone, L. L. (1927). A law of comparative judgment. Psychological Review 34(4), 273-286.
    doi:10.1037/h0070288

    Examples
    --------
    >>> import causalrm as crm
    >>> import pandas as pd
    >>> votes = pd.DataFrame({
    ...     "a": ["w", "w", "w", "x", "x", "y"], "b": ["x", "y", "z", "y", "z", "z"],
    ...     "wins": [620, 790, 880, 700, 840, 690], "losses": [380, 210, 120, 300, 160, 310],
    ... }).melt(["a", "b"], ["wins", "losses"], "result", "times")
    >>> votes["won"] = (votes["result"] == "wins").astype(int)
    >>> fit = crm.Thurstone(penalty=30.0)
    >>> fit = fit.fit(votes, a="a", b="b", outcome="won", counts="times")
    >>> print(fit.result_.equal_variances_test())
    Equal variances: chi2(3) = 2.47, p = 0.481
    """

    result_: ThurstoneResult

    def __init__(self, *, penalty: float = 0.0, covariance: str = "auto"):
        self.penalty = penalty
        self.covariance = covariance

    def _check_options(self) -> None:
        super()._check_options()
        check_penalty(self.penalty)

    def _fit(self, votes: Votes, roles: Roles, log: list[str]) -> ThurstoneResult:
        table = pt.pair_table(votes)
        k = len(table.items)
        if len(table.n) < 2 * k - 2 and not self.penalty:
            raise IdentificationError(
                f"Expected at least {2 * k - 2} different pairs for the means and variances of "
                f"{k} items, but columns {roles.a!r} and {roles.b!r} have {len(table.n)}. Give a "
                "penalty (such as penalty=1.0), or fit BradleyTerry, which has equal variances."
            )
        check_connected(heap(votes, position=False), votes.items, 0.0)
        strength, equal = table.bradley_terry(K.HALF_PROBIT)
        start = sum_to_zero(k).T @ strength * math.sqrt(2.0)  # variances of 1 add up to 2
        score, theta, converged, steps, zero = self._climb(table, start)
        mu, variance = score.parts(theta)
        eta = score.eta(theta)
        pt.refuse_infinite(table, eta, _FAR, "Drop such items, or fit BradleyTerry with a penalty.")
        if not converged:
            warn(
                f"The likelihood was still rising after {steps} steps. Give a penalty.",
                ConvergenceWarning,
                log,
            )
        information = -pt.objective(table, score, "probit")(theta)[2]
        ridge = np.repeat([0.0, self.penalty], [k - 1, len(theta) - k + 1])
        penalised = information + np.diag(ridge)
        names = [f"direction {i + 1} of the means" for i in range(k - 1)]
        names += [f"direction {i + 1} of the variances" for i in range(len(theta) - k + 1)]
        found, df = pt.covariances(
            table, eta, score.jacobian(theta), information, penalised, "probit", names
        )
        used = self._used(votes)
        matrices = {kind: score.basis @ c @ score.basis.T for kind, c in found.items()}
        loglik = pt.rows(table, eta, "probit")[0]
        gain = 2.0 * max(loglik - equal, 0.0)
        test = {"statistic": gain, "df": k - 1, "p_value": float(special.chdtrc(k - 1, gain))}
        number = condition_number(penalised)[0]
        vague = np.sqrt(np.clip(np.diag(matrices[used])[k:], 0.0, None))
        at_zero = tuple(str(table.items[i]) for i in sorted(zero))
        weak = [
            str(label)
            for i, (label, v) in enumerate(zip(table.items, vague, strict=True))
            if v > _VAGUE or i in zero
        ]
        if weak:
            why = f"standard error up to {vague.max():.2g}, where their mean is 1"
            if zero:
                why = f"{len(zero)} estimated as zero, which leaves none a standard error"
            warn(
                f"The variances of {len(weak)} of {k} items are weakly identified ({why}): "
                f"{', '.join(weak[:8])}. Look at profile(), give a penalty, or fit BradleyTerry, "
                "which has equal variances.",
                IdentificationWarning,
                log,
            )
        return ThurstoneResult(
            call=self._call(vars(roles)),
            n_obs=table.n_votes,
            warnings=tuple(log),
            diagnostics={
                "converged": converged,
                "iterations": steps,
                "condition_number": number,
                "weakly_identified": weak,
                "share_of_ties": table.ties,
                "n_pairs": len(table.n),
            },
            parameter=("mu",) * k + ("variance",) * k,
            term=tuple(map(str, table.items)) * 2,
            estimates=np.concatenate([mu, variance]),
            covariances=matrices,
            covariance=used,
            loglik=loglik,
            n_params=2 * k - 2,
            df_resid=df,
            items=table.items,
            at_zero=at_zero,
            equal_variances=test,
            assumptions=_assumptions(test, number, weak, roles.cluster),
        )

    def _climb(
        self, table: pt.PairTable, start: np.ndarray, given: dict[int, float] | None = None
    ) -> tuple[_Judgement, np.ndarray, bool, int, set[int]]:
        """Maximum over variances of at least zero: those that would be less are held there."""
        k = len(table.items)
        fixed = dict(given or {})
        while True:
            score = _Judgement(table, *_free(k, fixed))
            more = score.basis.shape[1] - (k - 1)
            function = pt.objective(table, score, "probit", score.prior(self.penalty))
            theta, converged, steps = pt.climb(
                function, np.concatenate([start, np.zeros(more)]), max_step=0.5
            )
            variance = score.parts(theta)[1]
            if variance.min() >= -1e-12 or more == 0:
                zero = {i for i in fixed if i not in (given or {})}
                return score, theta, converged, steps, zero
            fixed[int(np.argmin(variance))] = 0.0

    def profile(self, data: Any, item: Any, grid: Any = None) -> pd.DataFrame:
        """Likelihood of a variance, the other parameters fitted anew at each of its values.

        A flat profile says that the votes do not tell the variance. Values of `drop` below 1.92
        (half the 95 % point of chi-squared) are within a 95 % interval for independent votes. As
        variances have mean 1, none exceeds the number of items.

        Parameters
        ----------
        data : data frame
            The rows of the fit.
        item : label
        grid : array-like, optional
            Variances; by default 21 of them, from zero to nearly the largest possible.

        Returns
        -------
        pandas.DataFrame
            Columns `variance`, `loglik` (penalised where the fit is) and `drop`, by how much that
            is below the maximum.
        """
        result = self.result_
        roles = Roles(**result.call["roles"])
        table = pt.pair_table(read(data, roles))
        if table.items != result.items:
            raise DataError("Expected the rows of the fit, but their items differ. Fit again.")
        k, at = len(result.items), place_of(item, result.items)
        values = np.linspace(0.0, 0.95 * k, 21) if grid is None else grid
        values = np.asarray(values, dtype=float)
        if not ((values >= 0) & (values < k)).all():
            raise DataError(
                f"Expected variances from 0 to below {k}, as {k} of them have mean 1, but saw "
                f"{values.tolist()}."
            )
        start = np.linalg.lstsq(sum_to_zero(k), result.estimates[:k], rcond=None)[0]

        def value(score: _Judgement, theta: np.ndarray) -> float:
            loglik = pt.rows(table, score.eta(theta), "probit")[0]
            return loglik + score.prior(self.penalty)(theta)[0]

        loglik = np.array([value(*self._climb(table, start, {at: v})[:2]) for v in values])
        fit = _Judgement(table, np.zeros((2 * k, 0)), result.estimates)
        return pd.DataFrame(
            {"variance": values, "loglik": loglik, "drop": value(fit, np.empty(0)) - loglik}
        )

    def predict_proba(self, data: Any, level: float = 0.95) -> pd.DataFrame:
        """Probability that a beats b.

        Parameters
        ----------
        data : data frame
            With the columns of items of the fit.
        level : float

        Returns
        -------
        pandas.DataFrame
            Columns `estimate, std_error, conf_low, conf_high`, one row per row of `data`.
            Intervals are symmetric on the scale of normal quantiles.
        """
        r = self.result_
        k = len(r.items)
        return pt.predictions(
            data, r.call["roles"], r.items,
            lambda a, b: pair_scores(r.estimates[:k], r.estimates[k:], a, b),
            r._covariance(), r._df, "probit", level,
        )  # fmt: skip


def _assumptions(
    test: dict[str, float], number: float, weak: list[str], cluster: str | None
) -> tuple[Assumption, ...]:
    return (
        Assumption(
            "Normal qualities",
            "The quality of an item varies normally and independently of its opponent's",
            "Cycles would contradict it; GeneralPreference tests for them.",
        ),
        Assumption(
            "Variances",
            "Items differ in variance, and the votes tell by how much",
            f"Equal variances have p = {test['p_value']:.3g}; condition number {number:.3g}; "
            f"{len(weak)} items have a variance of zero or with a standard error above {_VAGUE}.",
            "doubtful" if weak else "untested",
        ),
        pt.independence(cluster),
    )
