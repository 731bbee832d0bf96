"""Preferences that may cycle: a skew-symmetric score matrix of low rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import linalg, optimize, special

from causalrm.core import plotting
from causalrm.core.errors import ConvergenceWarning, DataError, IdentificationError, warn
from causalrm.core.inference import gradient_of
from causalrm.core.random import RNG, resolve, spawn
from causalrm.core.result import Assumption, LikelihoodResult, Test
from causalrm.preference import _kernels as K
from causalrm.preference import pair_table as pt
from causalrm.preference.base import VoteModel, check_penalty
from causalrm.preference.planes import (
    Vectors,
    across,
    anchors_of,
    canonical,
    pair_scores,
    scores_of,
)
from causalrm.preference.votes import Roles, Votes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INFINITE = 14.0  # score of a pair beyond which its estimate runs to infinity


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class GeneralPreferenceResult(LikelihoodResult):
    """What `GeneralPreference.fit` found.

    The parameters "x1", "y1", "x2", ... are the coordinates of items in each plane, in the normal
    form of `canonical`; the score of a against b is the sum over planes of
    ``x_a y_b - y_a x_b``.

    Parameters
    ----------
    items : tuple
    rank : int
    singular_values : ndarray of shape (rank / 2,)
    loglik_transitive : float
        Of Bradley-Terry on the same votes.
    transitivity : dict
        The test of transitivity: `statistic`, `df`, `p_value`, and the chi-squared `deviance`
        against one free probability per pair with its `deviance_p`.
    """

    items: tuple[Any, ...]
    rank: int
    singular_values: np.ndarray
    loglik_transitive: float
    transitivity: dict[str, float]

    @property
    def vectors(self) -> np.ndarray:
        """Vectors of the items, shape (k, rank)."""
        return np.asarray(self.estimates.reshape(self.rank, len(self.items)).T)

    @property
    def plot(self) -> GeneralPreferencePlots:
        """Plots: ``plot()`` draws the first plane, ``plot.plane(2)`` others."""
        return GeneralPreferencePlots(self)

    def scores(self) -> pd.DataFrame:
        """Log-odds that the row's item beats the column's."""
        return pd.DataFrame(scores_of(self.vectors), index=self.items, columns=self.items)

    def win_matrix(self) -> pd.DataFrame:
        """Probability that the row's item beats the column's; NaN on the diagonal."""
        p = special.expit(scores_of(self.vectors))
        np.fill_diagonal(p, np.nan)
        return pd.DataFrame(p, index=self.items, columns=self.items)

    def decomposition(self) -> pd.DataFrame:
        """Planes of the score matrix, one row per plane and item.

        Returns
        -------
        pandas.DataFrame
            Columns `plane`, `singular_value`, `item`, `x`, `y`. Items of a plane with the same y
            are ordered by x, as in Bradley-Terry; items all around the origin form a cycle.
        """
        k, planes = len(self.items), self.rank // 2
        return pd.DataFrame(
            {
                "plane": np.repeat(np.arange(1, planes + 1), k),
                "singular_value": np.repeat(self.singular_values, k),
                "item": list(self.items) * planes,
                "x": self.vectors[:, 0::2].T.ravel(),
                "y": self.vectors[:, 1::2].T.ravel(),
            }
        )

    def transitivity_test(self) -> Test:
        """Test that one strength per item explains all pairs (Bradley-Terry).

        The statistic sums, over pairs, the squared residual of Bradley-Terry in units of its
        variance. Its reference distribution comes from multiplying the residuals of votes, or
        of clusters of votes, by random signs, so that it holds with ties and with dependent
        votes. `df` is the number of pairs beyond the strengths.
        """
        t = self.transitivity
        return Test("Transitivity", t["statistic"], int(t["df"]), t["p_value"])

    def _fit_lines(self, level: float) -> list[tuple[str, str]]:
        values = ", ".join(f"{v:.3f}" for v in self.singular_values)
        gain = f"{self.loglik_transitive:.4f} (Bradley-Terry)"
        return [
            *super()._fit_lines(level),
            ("Singular values", values),
            ("Transitive log-lik.", gain),
            ("Transitivity", str(self.transitivity_test()).partition(": ")[2]),
        ]


class GeneralPreferencePlots:
    """Plots of a general preference model."""

    def __init__(self, result: GeneralPreferenceResult):
        self._result = result

    def __call__(self, ax: Axes | None = None) -> Axes:
        """Items in the first plane."""
        return self.plane(1, ax)

    def plane(self, number: int = 1, ax: Axes | None = None) -> Axes:
        """Items in one plane: each beats those up to half a turn anticlockwise of it."""
        r = self._result
        if not 1 <= number <= r.rank // 2:
            raise DataError(f"Expected a plane from 1 to {r.rank // 2}, but saw {number!r}.")
        ax = plotting.style(plotting.axes(ax))
        at = r.vectors[:, 2 * number - 2 : 2 * number]
        plotting.reference(ax, x=0.0, y=0.0)
        ax.scatter(*at.T, color=plotting.color(0), zorder=3)
        near = 0.05 * np.ptp(at, axis=0).max()
        left = list(range(len(at)))
        while left:  # items that lie on top of one another share a label
            same = [i for i in left if np.abs(at[i] - at[left[0]]).max() <= near]
            left = [i for i in left if i not in same]
            text, corner = ", ".join(str(r.items[i]) for i in same), at[same].max(axis=0)
            ax.annotate(
                text, (corner[0], corner[1]), xytext=(5, 5), textcoords="offset points", fontsize=8
            )
        ax.set_aspect("equal", adjustable="datalim")
        ax.margins(0.15)
        ax.set_xlabel(f"x{number}: right beats left where y is positive")
        ax.set_ylabel(f"y{number}")
        ax.set_title(f"Plane {number}, singular value {r.singular_values[number - 1]:.2f}")
        return ax


class GeneralPreference(VoteModel):
    r"""Paired comparisons whose order may cycle.

    Item i has a vector :math:`v_i` of even dimension, and a beats b with log-odds
    :math:`\langle R v_a, v_b\rangle`, where R turns each plane of two coordinates by a right
    angle. The scores form a skew-symmetric matrix of that rank. Bradley-Terry is the case of rank
    2 with :math:`v_i = (\theta_i, 1)`, and three items in a cycle need no more than rank 2.

    The likelihood has several maxima; it is climbed from the Bradley-Terry fit and from random
    starts. Vectors are identified up to linear maps that keep all scores; they are reported in a
    normal form, and what does not depend on it (`scores`, `win_matrix`, probabilities) is what
    should be read.

    Parameters
    ----------
    rank : int, default 2
        Even, at most the number of items.
    penalty : float, default 0
        Times the sum of squares of the vectors, halved: in normal form, times the sum of the
        singular values. On the scale of the summed log-likelihood.
    n_starts : int, default 8
        Random starts, besides that of Bradley-Terry.
    draws : int, default 999
        Random signs for the test of transitivity.
    covariance : {"auto", "model", "robust", "cluster"}, default "auto"
        "auto" is "cluster" when `cluster` is given to `fit`, else "robust".
    rng : int, SeedSequence, Generator or None, default 0

    Attributes
    ----------
    result_ : GeneralPreferenceResult

    References
    ----------
    Zhang, Y. et al. (2024). Beyond Bradley-Terry models: a general preference model for language
    model alignment. arXiv:2410.02197.

    Jiang, X., Lim, L.-H., Yao, Y., Ye, Y. (2011). Statistical ranking and combinatorial Hodge
    theory. Mathematical Programming 127, 203-244. doi:10.1007/s10107-010-0419-x

    Examples
    --------
    >>> import pandas as pd
    >>> import causalrm as crm
    >>> votes = pd.DataFrame({
    ...     "a": ["rock", "paper", "scissors"] * 2, "b": ["scissors", "rock", "paper"] * 2,
    ...     "won": [1, 1, 1, 0, 0, 0], "times": [80, 80, 80, 20, 20, 20],
    ... })
    >>> fit = crm.GeneralPreference().fit(votes, a="a", b="b", outcome="won", counts="times")
    >>> fit.result_.win_matrix().round(2)
              paper  rock  scissors
    paper       NaN   0.8       0.2
    rock        0.2   NaN       0.8
    scissors    0.8   0.2       NaN
    >>> fit.result_.transitivity_test().p_value
    0.001
    """

    result_: GeneralPreferenceResult

    def __init__(
        self,
        rank: int = 2,
        *,
        penalty: float = 0.0,
        n_starts: int = 8,
        draws: int = 999,
        covariance: str = "auto",
        rng: RNG = 0,
    ):
        self.rank = rank
        self.penalty = penalty
        self.n_starts = n_starts
        self.draws = draws
        self.covariance = covariance
        self.rng = rng

    def _fit(self, votes: Votes, roles: Roles, log: list[str]) -> GeneralPreferenceResult:
        table = pt.pair_table(votes)
        rank, k = self._checked(len(table.items)), len(table.items)
        d = k * rank - rank * (rank + 1) // 2
        if len(table.n) < d and not self.penalty:
            raise IdentificationError(
                f"Expected at least {d} different pairs for rank {rank} and {k} items, but columns "
                f"{roles.a!r} and {roles.b!r} have {len(table.n)}. Lower the rank, or give a "
                "penalty (such as penalty=1.0)."
            )
        signs, starts = spawn(self.rng, 2)
        _, entropy = resolve(self.rng)
        theta, loglik_transitive, transitivity = _transitive(table, self.draws, signs)
        v, converged, tried = self._search(table, theta, rank, starts)
        eta = Vectors(table, rank, v).eta(np.zeros(v.size))
        if not self.penalty:
            pt.refuse_infinite(
                table, eta, _INFINITE, "Give a penalty (such as penalty=1.0), or lower the rank."
            )
        if not converged:
            warn(
                "The likelihood was still rising at the best of the starts. Give a penalty, or "
                "lower the rank.",
                ConvergenceWarning,
                log,
            )
        basis = across(v)
        local = Vectors(table, rank, v, basis)
        u = np.zeros(basis.shape[1])
        hessian = pt.objective(table, local, "logit")(u)[2]
        penalised = -hessian + self.penalty * np.eye(len(u))
        names = [f"direction {i + 1} of the score matrix" for i in range(len(u))]
        found, df = pt.covariances(
            table, eta, local.jacobian(u), -hessian, penalised, "logit", names
        )
        scale = np.sqrt(np.clip(np.diag(basis @ found["model"] @ basis.T), 1e-12, None))
        anchors = anchors_of(v)
        turn = gradient_of(
            lambda t: canonical(t.reshape(v.shape), anchors).T.ravel(), v.ravel(), scale
        )
        turned = {kind: turn @ basis @ c @ basis.T @ turn.T for kind, c in found.items()}
        x, y = v[:, 0::2], v[:, 1::2]
        return GeneralPreferenceResult(
            call=self._call(vars(roles)),
            n_obs=table.n_votes,
            entropy=entropy,
            warnings=tuple(log),
            diagnostics={
                "converged": converged,
                "logliks_of_starts": tried,
                "n_pairs": len(table.n),
                "share_of_ties": table.ties,
            },
            parameter=tuple(f"{'xy'[c % 2]}{c // 2 + 1}" for c in range(rank) for _ in range(k)),
            term=tuple(map(str, table.items)) * rank,
            estimates=v.T.ravel(),
            covariances={kind: 0.5 * (c + c.T) for kind, c in turned.items()},
            covariance=self._used(votes),
            loglik=pt.rows(table, eta, "logit")[0],
            n_params=d,
            df_resid=df,
            items=table.items,
            rank=rank,
            singular_values=np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0)),
            loglik_transitive=loglik_transitive,
            transitivity=transitivity,
            assumptions=_assumptions(rank, transitivity, tried, roles.cluster),
        )

    def _check_options(self) -> None:
        super()._check_options()
        check_penalty(self.penalty)

    def _checked(self, k: int) -> int:
        rank = self.rank
        if not isinstance(rank, int | np.integer) or rank < 2 or rank % 2 or rank > k:
            raise DataError(
                f"Expected an even rank from 2 to the number of items ({k}), but saw {rank!r}."
            )
        return int(rank)

    def _search(
        self, table: pt.PairTable, theta: np.ndarray, rank: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, bool, np.ndarray]:
        """Best of several local maxima in normal form, and the value that each start reached."""
        k = len(theta)
        starts = [0.1 * rng.normal(size=(k, rank))]
        starts[0][:, :2] += np.column_stack([theta, np.ones(k)])
        starts += [rng.normal(size=(k, rank)) for _ in range(self.n_starts)]
        whole = Vectors(table, rank, np.zeros((k, rank)))

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            value, g, _, _, _ = pt.rows(table, whole.eta(flat), "logit")
            score = whole.jacobian(flat).T @ g - self.penalty * flat
            return 0.5 * self.penalty * float(flat @ flat) - value, -score

        ends = [
            optimize.minimize(loss, s.ravel(), jac=True, method="L-BFGS-B", tol=1e-9)
            for s in starts
        ]
        best = min(ends, key=lambda e: e.fun)
        v, converged = canonical(best.x.reshape(k, rank)), False
        for _ in range(20):  # each round takes out the moves that leave all scores as they are
            basis = across(v)
            local = Vectors(table, rank, v, basis)
            function = pt.objective(table, local, "logit", local.prior(self.penalty))
            u, converged, steps = pt.climb(function, np.zeros(basis.shape[1]))
            v = canonical(local.vectors(u))
            if converged and steps <= 1:
                break
        return v, converged, -np.array([e.fun for e in ends])

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
            Intervals are symmetric on the scale of log-odds.
        """
        r = self.result_
        k = len(r.items)

        def score(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            eta, j = pair_scores(r.vectors, a, b)
            turned = j.reshape(len(a), k, r.rank).transpose(0, 2, 1)
            return eta, turned.reshape(len(a), k * r.rank)

        return pt.predictions(
            data, r.call["roles"], r.items, score, r._covariance(), r._df, "logit", level
        )


def _transitive(
    table: pt.PairTable, draws: int, rng: np.random.Generator
) -> tuple[np.ndarray, float, dict[str, float]]:
    """Bradley-Terry on the same votes, and the test of what it leaves."""
    design = table.incidence
    # A trace of a ridge: strengths of items that always win, or of separate groups, stay finite.
    theta, value = table.bradley_terry(K.HALF_LOGIT, ridge=1e-6)
    eta = design @ theta
    _, g, h, _, _ = pt.rows(table, eta, "logit")
    share = table.s / table.n
    saturated = special.xlogy(table.s, share) + special.xlogy(table.n - table.s, 1 - share)
    p = special.expit(eta)
    kept = p * (1 - p) > 1e-6  # the others are decided, and cannot contradict
    df = int(kept.sum() - np.linalg.matrix_rank(design[kept])) if kept.any() else 0
    if df < 1:
        empty = {"statistic": 0.0, "df": 0, "p_value": 1.0, "deviance": 0.0, "deviance_p": 1.0}
        return theta, value, empty
    root = np.sqrt(-h[kept])
    column = linalg.orth(root[:, None] * design[kept])

    def statistic(residual: np.ndarray) -> np.ndarray:
        z = residual / root
        z = z - (z @ column) @ column.T
        return np.asarray((z**2).sum(axis=-1))

    observed = float(statistic(g[kept][None, :])[0])
    if table.by_cluster is None:
        q0, q1, q2 = table.squares
        size = np.sqrt(np.clip(q2 - 2 * p * q1 + p**2 * q0, 0.0, None))[kept]
        drawn = statistic(rng.normal(size=(draws, size.size)) * size)
    else:
        n, s = table.by_cluster
        residuals = (s - n.multiply(p[None, :])).tocsr()[:, kept]
        drawn = statistic(rng.choice([-1.0, 1.0], (draws, residuals.shape[0])) @ residuals)
    above = int(np.count_nonzero(drawn >= observed * (1 - 1e-12)))
    deviance = 2.0 * max(float(saturated.sum()) - value, 0.0)
    return theta, value, {
        "statistic": observed,
        "df": df,
        "p_value": (1 + above) / (draws + 1),
        "deviance": deviance,
        "deviance_p": float(special.chdtrc(df, deviance)),
    }  # fmt: skip


def _assumptions(
    rank: int, transitivity: dict[str, float], tried: np.ndarray, cluster: str | None
) -> tuple[Assumption, ...]:
    reached = int(np.count_nonzero(tried > tried.max() - 1e-4))
    needed = transitivity["p_value"] < 0.05
    return (
        Assumption(
            "Rank",
            f"A score matrix of rank {rank} explains all pairs",
            f"Transitivity alone (Bradley-Terry) has p = {transitivity['p_value']:.3g}, so that "
            + ("cycles are needed." if needed else "cycles are not shown to be needed."),
        ),
        Assumption(
            "Highest maximum",
            "The best of the starts reached the highest of several maxima",
            f"{reached} of {len(tried)} starts reached it; raise n_starts where it is one.",
            "supported" if reached > 1 else "untested",
        ),
        pt.independence(cluster),
    )
