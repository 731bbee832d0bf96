"""Simulation-based calibration: whether the posteriors have the coverage that they claim."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from causalrm.core.errors import ConvergenceError, DataError
from causalrm.core.parallel import map as parallel_map
from causalrm.core.random import RNG, resolve, spawn
from causalrm.risk.density import implied_prevalence, row_log_likelihood, row_risk
from causalrm.risk.grid import fit_grid
from causalrm.risk.problem import PrevalenceTerm, Problem

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from causalrm.risk.model import SelectiveLabelsModel

LEVELS = (0.5, 0.8, 0.95)
BINS = 10

Draw = Callable[[Problem, np.random.Generator], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class SimulationCalibration:
    """Where the true values of simulated data sets lie in their posteriors.

    Attributes
    ----------
    positions : DataFrame of shape (data sets, quantities)
        Posterior probability of values below the true one. Uniform when the posteriors are right.
        The columns are (parameter, term), and (derived, ...) for the log-likelihood and the
        mean risk of the rows, which see errors that single parameters miss.
    failures : tuple of str
        Why the engine refused a data set. They are left out, which keeps the rest uniform, because
        a refusal depends on the data and not on the truth.
    entropy : int
        Given as ``rng`` it repeats the calibration.
    """

    positions: pd.DataFrame
    failures: tuple[str, ...]
    entropy: int

    def _columns(self) -> list[tuple[tuple[str, str], pd.Series]]:
        return list(self.positions.items())  # type: ignore[arg-type]

    def to_frame(self) -> pd.DataFrame:
        """Coverage of central intervals and tests of uniformity, one row per quantity.

        Returns
        -------
        DataFrame
            Columns ``parameter, term, n_datasets, coverage_50, coverage_80, coverage_95`` and
            ``p_chi2`` (10 bins) and ``p_ks``, p-values against uniform positions; expect one of
            twenty below .05.
        """
        n = len(self.positions)
        rows = []
        for (parameter, term), column in self._columns():
            u = column.to_numpy()
            row: dict[str, Any] = {"parameter": parameter, "term": term, "n_datasets": n}
            for level in LEVELS:
                row[f"coverage_{100 * level:.0f}"] = float(np.mean(np.abs(u - 0.5) <= level / 2))
            counts = np.histogram(u, BINS, (0.0, 1.0))[0]
            row["p_chi2"] = float(stats.chisquare(counts).pvalue)
            row["p_ks"] = float(stats.kstest(u, "uniform").pvalue)
            rows.append(row)
        return pd.DataFrame(rows)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the distribution functions of all positions, minus the uniform one.

        The band holds a uniform sample's whole curve in 95 of 100 cases.
        """
        from causalrm.core.plotting import GREY, PALETTE, axes, band, reference

        ax = axes(ax)
        n = len(self.positions)
        grid = np.linspace(0.0, 1.0, 201)
        half = _band(n, grid)
        band(ax, grid, -half, half, color=GREY)
        reference(ax, y=0.0)
        groups = list(dict.fromkeys(parameter for (parameter, _), _ in self._columns()))
        seen = set()
        for (name, _), column in self._columns():
            order = np.searchsorted(np.sort(column.to_numpy()), grid, side="right") / n
            ax.plot(
                grid, order - grid, color=PALETTE[groups.index(name) % len(PALETTE)],
                linewidth=1.2, label=None if name in seen else name,
            )  # fmt: skip
            seen.add(name)
        ax.set(
            xlabel="Position of the true value in its posterior",
            ylabel="Share at or below, minus uniform",
            xlim=(0, 1),
        )
        ax.legend(frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
        return ax


def _band(n: int, grid: np.ndarray) -> np.ndarray:
    """Half width of a simultaneous 95 % band of an empirical distribution function."""
    rng = np.random.default_rng(0)  # fixed: a band needs no fresh randomness
    sd = np.sqrt(grid * (1 - grid) / n)
    inner = sd > 0
    draws = np.sort(rng.random((1000, n)), axis=1)
    gaps = [np.searchsorted(d, grid[inner], side="right") / n - grid[inner] for d in draws]
    return np.asarray(sd * np.quantile(np.abs(gaps / sd[inner]).max(axis=1), 0.95))


# --- one data set ---------------------------------------------------------------------------------


def expanded(problem: Problem) -> Problem:
    """The problem with each identical row on its own again; weights that are no counts stay."""
    counts = np.asarray(problem.counts)
    if (counts == 1).all() or not (counts == np.round(counts)).all():
        return problem
    row = np.repeat(np.arange(len(counts)), counts.astype(int))
    return replace(
        problem, X=problem.X[row], W=problem.W[row], tested=problem.tested[row], y=problem.y[row],
        counts=np.ones(len(row)),
        deciders=None if problem.deciders is None else problem.deciders[row],
        prevalence=tuple(replace(t, weights=(t.weights / counts)[row]) for t in problem.prevalence),
    )  # fmt: skip


def draw_prior(problem: Problem, rng: np.random.Generator) -> np.ndarray:
    """Draw theta from the priors, without regard to what is known about the prevalence."""
    theta = np.empty(problem.n_theta)
    n = problem.p + problem.q
    theta[:n] = rng.normal(size=n) * np.concatenate([problem.risk_sd, problem.testing_sd])
    theta[n] = abs(rng.normal()) * problem.sigma_sd
    if problem.alpha is None:
        theta[n + 1] = abs(rng.normal()) * problem.alpha_sd
    if problem.n_deciders:
        theta[-problem.n_deciders - 1] = sd = abs(rng.normal()) * problem.decider_sd
        theta[-problem.n_deciders :] = sd * rng.normal(size=problem.n_deciders)
    return theta


def simulate(problem: Problem, theta: np.ndarray, rng: np.random.Generator) -> Problem:
    """Simulate tests and outcomes of the problem's rows, and its knowledge of the prevalence.

    A soft target is an estimate of the prevalence that theta implies, drawn with its error; a hard
    one is that prevalence.
    """
    parts, n = problem.split(theta), len(problem.X)
    z = rng.random(n) if problem.unobservable == "uniform" else rng.normal(size=n)
    r = problem.X @ parts["risk"] + parts["sigma"] * z
    eta = parts["alpha"] * r + problem.W @ parts["testing"]
    if parts["decider"] is not None:
        eta += parts["decider"][problem.deciders]
    tested = np.log(rng.random(n)) < -np.logaddexp(0.0, -eta)
    y = (np.log(rng.random(n)) < -np.logaddexp(0.0, -r)).astype(float)
    terms = []
    if problem.prevalence:
        implied = implied_prevalence(problem, theta).value
        for term, m in zip(problem.prevalence, implied, strict=True):
            terms.append(_simulated(term, float(m), rng))
    y[~tested] = np.nan
    return replace(problem, tested=tested, y=y, prevalence=tuple(terms))


def _simulated(term: PrevalenceTerm, m: float, rng: np.random.Generator) -> PrevalenceTerm:
    if term.hard:
        return replace(term, target=m)
    if term.a is not None and term.b is not None:
        size = round(term.a + term.b - 2.0)
        positive = float(rng.binomial(size, m))
        return replace(
            term, target=positive / max(size, 1), a=1.0 + positive, b=1.0 + size - positive
        )
    assert term.se is not None
    return replace(term, target=m + term.se * float(rng.normal()))


def _positions(problem: Problem, draw: Draw, rng: np.random.Generator) -> np.ndarray | str:
    """Positions of the truth in the posterior of one simulated data set; or why there are none."""
    theta = draw_prior(problem, rng)
    simulated = simulate(problem, theta, rng)
    if not 0 < simulated.tested.sum() < len(simulated.tested):
        return "none or all of the people were tested"
    try:
        draws, weights = draw(simulated, rng)
    except ConvergenceError as error:
        return str(error)
    truth, found = _quantities(simulated, theta[None]), _quantities(simulated, draws)
    return np.asarray(weights @ (found < truth))


def _quantities(problem: Problem, draws: np.ndarray) -> np.ndarray:
    columns: list[Any] = [
        draws,
        [row_log_likelihood(problem, theta) @ problem.counts for theta in draws],
    ]
    if problem.hard is None:  # which fixes it
        columns.append([row_risk(problem, theta).mean() for theta in draws])
    return np.column_stack(columns)


def simulation_based_calibration(
    model: SelectiveLabelsModel | Problem,
    *,
    n_datasets: int = 200,
    method: str = "grid",
    draws: int = 512,
    nuts: dict[str, Any] | None = None,
    n_jobs: int | None = None,
    progress: bool | None = False,
    rng: RNG = 0,
) -> SimulationCalibration:
    """Check an engine by data sets simulated from the model's own priors.

    For each data set, parameters are drawn from the priors, tests and outcomes are simulated for
    the rows of the fit, the posterior is drawn as in a fit, and the position of the true
    parameters in it is noted [1]_. Positions that are not uniform mean that intervals of this
    model, on rows and priors like these, do not have the coverage that they claim.

    Parameters
    ----------
    model : SelectiveLabelsModel
        Fitted: its rows, priors and constraints are used, its tests and outcomes are not.
    n_datasets : int
    method : {"grid", "nuts"}
        The engine to check.
    draws : int
        Per data set, of the grid.
    nuts : dict, optional
        Options of NUTS, as in the model.
    n_jobs : int, optional
    progress : bool, optional
    rng : None, int, SeedSequence or Generator

    Returns
    -------
    SimulationCalibration

    Raises
    ------
    DataError
        For options outside their range, or when no data set could be used.

    References
    ----------
    .. [1] Talts, S. et al. (2018). Validating Bayesian inference algorithms with simulation-based
       calibration. arXiv:1804.06788

    Examples
    --------
    >>> import causalrm as crm
    >>> from causalrm.datasets import make_selective_labels
    >>> data, _ = make_selective_labels(120, features=1, rng=0)
    >>> narrow = {"risk": 1.0, "testing": 1.0, "sigma": 1.0}
    >>> fit = crm.SelectiveLabelsModel("x1", priors=narrow).fit(
    ...     data, tested="tested", outcome="outcome"
    ... )
    >>> check = crm.risk.simulation_based_calibration(fit, n_datasets=4, draws=64, n_jobs=1)
    >>> check.positions.shape[1]
    7
    """
    if method not in ("grid", "nuts"):
        raise DataError(f'Expected method to be "grid" or "nuts", but saw {method!r}. Correct it.')
    if not n_datasets >= 1:
        raise DataError(f"Expected n_datasets of at least 1, but saw {n_datasets!r}. Give more.")
    _, entropy = resolve(rng)
    draw: Draw
    if isinstance(model, Problem):
        problem, draw = model, _Grid(draws)
        if method == "nuts":
            raise DataError('Expected a fitted SelectiveLabelsModel for method="nuts".')
    else:
        own = model._own("Simulation-based calibration")
        problem = own.problem
        draw = _Grid(draws) if method == "grid" else _Nuts(own, nuts or {})
    task = _Task(expanded(problem), draw)
    found = parallel_map(
        task, spawn(entropy, n_datasets), n_jobs=n_jobs, progress=progress, label="Calibrating"
    )
    used = [u for u in found if not isinstance(u, str)]
    failures = tuple(u for u in found if isinstance(u, str))
    if not used:
        raise DataError(
            f"Expected data sets that {method} can fit, but all {n_datasets} were refused, first "
            f"because {failures[0]}. Choose narrower priors, or more rows."
        )
    names = [*problem.labels(), ("derived", "log likelihood")]
    if problem.hard is None:
        names.append(("derived", "mean risk"))
    columns = pd.MultiIndex.from_tuples(names, names=["parameter", "term"])
    return SimulationCalibration(pd.DataFrame(np.array(used), columns=columns), failures, entropy)


@dataclass(frozen=True)
class _Task:
    problem: Problem
    draw: Draw

    def __call__(self, rng: np.random.Generator) -> np.ndarray | str:
        return _positions(self.problem, self.draw, rng)


@dataclass(frozen=True)
class _Grid:
    draws: int

    def __call__(self, problem: Problem, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        found = fit_grid(problem, self.draws, rng)
        if not found.ok:
            raise ConvergenceError(found.reason)
        return found.theta, np.exp(found.log_weights)


@dataclass(frozen=True)
class _Nuts:
    own: Any
    options: dict[str, Any]

    def __call__(self, problem: Problem, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        from causalrm.risk.fitting import draw

        found = draw(replace(self.own, problem=problem), "nuts", 0, self.options, rng, [])
        theta = self.own.standard(found.draws)
        return theta, np.full(len(theta), 1.0 / len(theta))
