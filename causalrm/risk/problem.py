"""The posterior that every engine samples: rows, priors, constraints and coordinates.

A `Problem` holds arrays only. Its parameters on the original scale, `theta`, are the coefficients
of risk, the coefficients of testing, sigma, then alpha where it is inferred, then the deciders' sd
and effects. The engines move in unconstrained coordinates `u`, in which the ridge of the posterior
(intercepts, slopes and sigma grow together) is straight: with k(s) = sqrt(1 + c s^2),

    (b0 + mean(Z), b_j, d_j) = k(s) g,   s = softplus(v),

and the log Jacobian is P log k(s) + log sigmoid(v). Priors stay on the original scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from causalrm.core.blocks import Rows
from causalrm.core.errors import ConvergenceError, DataError
from causalrm.risk import _kernels as ker

CURVE = {"uniform": 0.0288, "normal": 0.3456}  # c of k(s); the second is 12 times the first


@dataclass(frozen=True, eq=False)
class PrevalenceTerm:
    """What is known about the mean risk of a population.

    Attributes
    ----------
    weights : ndarray of shape (n,)
        Weights of the rows, which sum to 1; 0 outside the population.
    target : float
    se : float, optional
        Standard error of the target: a normal log density of the implied prevalence.
    a, b : float, optional
        Beta(a, b) density of the implied prevalence instead.
    hard : bool
        The intercept is solved so that the implied prevalence equals `target`.
    """

    weights: np.ndarray
    target: float
    se: float | None = None
    a: float | None = None
    b: float | None = None
    hard: bool = False

    def density(self, m: float) -> tuple[float, float, float]:
        """Log density at an implied prevalence, and its first two derivatives."""
        if self.a is not None and self.b is not None:
            a1, b1 = self.a - 1.0, self.b - 1.0
            return (
                a1 * np.log(m) + b1 * np.log1p(-m),
                a1 / m - b1 / (1.0 - m),
                -a1 / m**2 - b1 / (1.0 - m) ** 2,
            )
        assert self.se is not None
        z = (m - self.target) / self.se
        return -0.5 * z * z, -z / self.se, -1.0 / self.se**2


@dataclass(frozen=True, eq=False)
class Problem:
    """Rows, priors and constraints of one posterior; `from_rows` collapses duplicate rows.

    Attributes
    ----------
    X : ndarray of shape (n, p)
        Design of risk; the first column is the intercept.
    W : ndarray of shape (n, q)
        Design of testing: free columns only, intercept first.
    tested : ndarray of bool, shape (n,)
    y : ndarray of shape (n,)
        Outcome, 0 or 1; its values on untested rows are never read.
    counts : ndarray of shape (n,)
        How often the row occurs, or its weight.
    unobservable : {"uniform", "normal"}
        Z ~ U(0, sigma) or Z ~ N(0, sigma^2).
    alpha : float, optional
        Weight of risk in testing. None: inferred, with a half-normal prior.
    risk_sd, testing_sd : ndarray of shape (p,) and (q,)
        Standard deviations of the normal priors. A tight testing prior is soft expertise.
    sigma_sd, alpha_sd, decider_sd : float
        Scales of the half-normal priors of sigma, alpha and the sd of the deciders' effects.
    prevalence : tuple of PrevalenceTerm
        At most one of them hard.
    deciders : ndarray of int, shape (n,), optional
        Codes below `n_deciders`; their effects on testing are partially pooled.
    n_deciders : int
    risk_terms, testing_terms, decider_terms : tuple of str
        Names, for `labels`.
    """

    X: np.ndarray
    W: np.ndarray
    tested: np.ndarray
    y: np.ndarray
    counts: np.ndarray
    risk_sd: np.ndarray
    testing_sd: np.ndarray
    unobservable: str = "uniform"
    alpha: float | None = 1.0
    sigma_sd: float = 3.0
    alpha_sd: float = 3.0
    decider_sd: float = 1.0
    prevalence: tuple[PrevalenceTerm, ...] = ()
    deciders: np.ndarray | None = None
    n_deciders: int = 0
    risk_terms: tuple[str, ...] = ()
    testing_terms: tuple[str, ...] = ()
    decider_terms: tuple[str, ...] = ()

    @classmethod
    def from_rows(
        cls, X: np.ndarray, W: np.ndarray, tested: np.ndarray, y: np.ndarray, counts: np.ndarray,
        **options: Any,
    ) -> Problem:  # fmt: skip
        """Build a problem from all rows: identical ones are collapsed, exactly.

        Takes the attributes of the class, one entry per row of the data.
        """
        code = ker.codes(tested, y)
        keys = [X, W, code[:, None]]
        deciders = options.get("deciders")
        if deciders is not None:
            keys.append(np.asarray(deciders)[:, None])
        first, inverse = ker.collapse(np.hstack([np.asarray(k, dtype=float) for k in keys]))
        n = len(first)
        if n < len(X):
            X, W, tested, y = X[first], W[first], tested[first], y[first]
            counts = np.bincount(inverse, counts, n)
            if deciders is not None:
                options["deciders"] = np.asarray(deciders)[first]
            options["prevalence"] = tuple(
                PrevalenceTerm(np.bincount(inverse, t.weights, n), t.target, t.se, t.a, t.b, t.hard)
                for t in options.get("prevalence", ())
            )
        return cls(X=X, W=W, tested=tested, y=y, counts=counts, **options)

    # --- sizes and names --------------------------------------------------------------------------

    @property
    def p(self) -> int:
        """Number of coefficients of risk."""
        return int(self.X.shape[1])

    @property
    def q(self) -> int:
        """Number of coefficients of testing."""
        return int(self.W.shape[1])

    @property
    def n_theta(self) -> int:
        """Number of parameters on the original scale."""
        return self.p + self.q + 1 + (self.alpha is None) + self._n_decider

    @property
    def n_u(self) -> int:
        """Number of unconstrained coordinates: one less than parameters with a hard constraint."""
        return self.n_theta - (self.hard is not None)

    @property
    def _n_decider(self) -> int:
        return 0 if self.deciders is None else 1 + self.n_deciders

    @cached_property
    def hard(self) -> PrevalenceTerm | None:
        """The hard prevalence term, if there is one."""
        terms = [t for t in self.prevalence if t.hard]
        if len(terms) > 1:
            raise DataError(
                f"Expected at most one hard prevalence, because one intercept meets one target; "
                f"got {len(terms)}. Give the others a standard error."
            )
        return terms[0] if terms else None

    @cached_property
    def hard_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Columns of risk but the intercept, and weights (n, 1), of the hard term's rows."""
        assert self.hard is not None
        used = np.flatnonzero(self.hard.weights)
        return np.ascontiguousarray(self.X[used, 1:]), self.hard.weights[used, None]

    @property
    def soft(self) -> tuple[PrevalenceTerm, ...]:
        """The prevalence terms with a density."""
        return tuple(t for t in self.prevalence if not t.hard)

    def labels(self) -> list[tuple[str, str]]:
        """Parameter and term of each entry of theta."""
        out = [("risk", t) for t in self.risk_terms or [f"x{j}" for j in range(self.p)]]
        out += [("testing", t) for t in self.testing_terms or [f"w{j}" for j in range(self.q)]]
        out.append(("sigma", "sigma"))
        if self.alpha is None:
            out.append(("alpha", "alpha"))
        if self.deciders is not None:
            names = self.decider_terms or [str(j) for j in range(self.n_deciders)]
            out += [("decider", "sd"), *(("decider", t) for t in names)]
        return out

    # --- coordinates ------------------------------------------------------------------------------

    def scale(self, s: float) -> tuple[float, float]:
        """k(s) and its log derivative."""
        c = CURVE[self.unobservable]
        k2 = 1.0 + c * s * s
        return float(np.sqrt(k2)), c * s / k2

    @cached_property
    def centring(self) -> np.ndarray:
        """How far the effect of each decider is its own coordinate, from 0 to 1; shape (J,).

        The effect is sd^(1 - c) k(s)^c z. A decider with many rows pins the effect itself, and one
        with few leaves it to sd, so that c is the reliability of the decider's share of tests,
        with the method of moments of DerSimonian and Laird for the variance between deciders. It
        changes the coordinates, not the posterior.
        """
        if self.deciders is None:
            return np.empty(0)
        n = np.bincount(self.deciders, self.counts, self.n_deciders)
        yes = np.bincount(self.deciders, self.counts * self.tested, self.n_deciders) + 0.5
        no = n + 1.0 - yes
        share, noise = np.log(yes / no), 1.0 / yes + 1.0 / no
        w = 1.0 / noise
        spread = float(w @ (share - w @ share / w.sum()) ** 2) - (self.n_deciders - 1)
        between = max(spread / float(w.sum() - w @ w / w.sum()), 0.0)
        return np.asarray(between / (between + noise))

    @property
    def centre(self) -> float:
        """Mean of the unobservable in units of sigma."""
        return 0.5 if self.unobservable == "uniform" else 0.0

    def decider_scale(self, sd: float, s: float) -> np.ndarray:
        """Effects of deciders over their coordinates; see `centring`."""
        return np.asarray(sd ** (1.0 - self.centring) * self.scale(s)[0] ** self.centring)

    def split(self, theta: np.ndarray) -> dict[str, Any]:
        """Name the parts of theta: risk, testing, sigma, alpha, decider_sd, decider."""
        p, q = self.p, self.q
        rest = theta[p + q + 1 :]
        alpha = self.alpha
        if alpha is None:
            alpha, rest = float(rest[0]), rest[1:]
        return {
            "risk": theta[:p], "testing": theta[p : p + q], "sigma": float(theta[p + q]),
            "alpha": float(alpha), "decider_sd": rest[0] if len(rest) else None,
            "decider": rest[1:] if len(rest) else None,
        }  # fmt: skip

    def to_theta(self, u: np.ndarray) -> np.ndarray:
        """Parameters on the original scale of unconstrained coordinates.

        Raises
        ------
        ConvergenceError
            When no intercept meets a hard prevalence.
        """
        h = int(self.hard is not None)
        n = self.p + self.q
        theta = np.empty(self.n_theta)
        s = float(np.logaddexp(0.0, u[n - h]))
        theta[h:n] = self.scale(s)[0] * u[: n - h]
        theta[n] = s
        rest = u[n - h + 1 :]
        if self.alpha is None:
            theta[n + 1] = np.logaddexp(0.0, rest[0])
            rest = rest[1:]
        if self.deciders is not None:
            sd = np.logaddexp(0.0, rest[0])
            theta[-self.n_deciders - 1] = sd
            theta[-self.n_deciders :] = self.decider_scale(sd, s) * rest[1:]
        if h:
            theta[0] = -self.centre * s
            theta[0] = solve_intercept(self, theta)
        else:
            theta[0] -= self.centre * s
        return theta

    def to_u(self, theta: np.ndarray) -> np.ndarray:
        """Unconstrained coordinates of parameters; a hard constraint's intercept is dropped."""
        parts = self.split(theta)
        s, n = parts["sigma"], self.p + self.q
        g = theta[:n].copy()
        g[0] += self.centre * s
        out: list[Any] = [g[int(self.hard is not None) :] / self.scale(s)[0], [_unsoftplus(s)]]
        if self.alpha is None:
            out.append([_unsoftplus(parts["alpha"])])
        if self.deciders is not None:
            sd = parts["decider_sd"]
            out += [[_unsoftplus(sd)], parts["decider"] / self.decider_scale(sd, s)]
        return np.concatenate(out)

    @cached_property
    def rows(self) -> Rows:
        """The rows, for `causalrm.core.blocks`."""
        columns = {
            "X": np.ascontiguousarray(self.X, dtype=float),
            "W": np.ascontiguousarray(self.W, dtype=float),
            "code": ker.codes(self.tested, self.y),
            "counts": np.ascontiguousarray(self.counts, dtype=float),
        }
        if self.deciders is not None:
            columns["decider"] = np.ascontiguousarray(self.deciders, dtype=np.int64)
        if self.prevalence:
            columns["prevalence"] = np.column_stack([t.weights for t in self.prevalence])
        return Rows(columns, len(self.X))


def _unsoftplus(s: float) -> float:
    return float(s + np.log(-np.expm1(-s))) if s > 0 else -np.inf


def solve_intercept(problem: Problem, theta: np.ndarray) -> float:
    """Intercept at which the implied prevalence equals the hard target, given the rest of theta.

    The search starts from ``theta[0]``.

    Raises
    ------
    ConvergenceError
        When no intercept meets the target.
    """
    assert problem.hard is not None
    term, parts = problem.hard, problem.split(theta)
    rows, weights = problem.hard_rows
    offset = rows @ parts["risk"][1:]
    logit = float(np.log(term.target) - np.log1p(-term.target))
    low, high, b = -np.inf, np.inf, float(theta[0])
    for _ in range(100):
        m, slope = ker.levels(offset + b, weights, parts["sigma"], problem.unobservable)[:, 0]
        if m > term.target:
            high = b
        else:
            low = b
        # Newton on the log odds of the implied prevalence, which is nearly linear
        inside = 0.0 < m < 1.0 and slope > 0.0
        step = (np.log(m) - np.log1p(-m) - logit) * m * (1.0 - m) / slope if inside else np.inf
        if abs(step) < 1e-7 * (1.0 + abs(b)):  # the next one would be below 1e-14
            return b - float(step)
        b = b - float(step) if inside else np.sign(m - term.target) * -np.inf
        if not low < b < high:
            if np.isfinite(low + high):
                b = 0.5 * (low + high)
            else:
                b = high - 10.0 if np.isfinite(high) else low + 10.0
    raise ConvergenceError(
        f"Expected an intercept at which the implied prevalence is {term.target:g}, but none was "
        "found. Give the prevalence a standard error (hard=False), or rescale the columns."
    )
