"""Simulated survival times from the adapted power generalised Weibull (APGW) model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import integrate
from scipy.special import expit, log_ndtr

from causalrm.core.errors import DataError
from causalrm.core.random import RNG, resolve
from causalrm.datasets._simulated import Simulated

if TYPE_CHECKING:
    import pandas as pd

type Array = NDArray[np.float64]
type Terms = Mapping[str, float]

_COLUMNS = ("x1", "x2", "trt")
_PHI = {"Intercept": -0.5, "x1": 0.3, "x2": -0.2, "trt": -0.5}
_GAMMA = {"Intercept": 0.3}


def make_survival(
    n: int = 1000,
    *,
    phi: Terms | None = None,
    lam: Terms | None = None,
    gamma: Terms | None = None,
    kappa: float = 0.5,
    treatment: float | Terms = 0.5,
    censoring: float | Terms = 0.1,
    follow_up: float = 5.0,
    entry: float = 0.0,
    interval: float = 0.0,
    left: float = 0.0,
    cluster_size: int = 1,
    correlation: float = 0.0,
    rng: RNG = None,
) -> Simulated[SurvivalTruth]:
    """Simulate survival data from the APGW multi-parameter regression model.

    The cumulative hazard is ``lam (k + 1)/k [(1 + u/(k + 1))**k - 1]`` with
    ``u = (phi t)**gamma`` and ``k = kappa``; the logarithms of ``phi`` (time), ``lam`` (hazard)
    and ``gamma`` (shape) are linear in the covariates. Event times are drawn by inverting it.
    With a negative ``kappa`` a part of the population is cured: their times are infinite and
    always censored.

    Parameters
    ----------
    n : int
        Number of rows.
    phi, lam, gamma : mapping of str to float, optional
        Coefficients by term: ``Intercept``, ``x1`` (standard normal), ``x2`` (uniform on
        -1..1), ``trt`` (0 or 1), and products such as ``"trt:x1"``. Terms not named are 0.
        Defaults: ``phi={"Intercept": -0.5, "x1": 0.3, "x2": -0.2, "trt": -0.5}``, no ``lam``
        (the parameter is then 1), ``gamma={"Intercept": 0.3}``.
    kappa : float
        Above -1. 1 is the Weibull, 0 the Burr (log-logistic without ``lam``), ``inf`` the
        Gompertz when gamma is 1.
    treatment : float or mapping
        Probability of ``trt = 1``, or the terms of its logit: ``{"x1": 1.0}`` confounds the
        treatment by ``x1``.
    censoring : float or mapping
        Rate of exponential censoring from entry on (0: none), or the terms of its logarithm,
        so that censoring depends on covariates.
    follow_up : float
        Time at which observation ends for everybody; ``inf`` for never.
    entry : float
        When positive, observation starts late, at a time uniform on 0..entry, and whoever has
        the event before is never seen (left truncation). Rows are then drawn until `n` are
        seen.
    interval : float
        When positive, the event is noticed at visits only, this far apart, the first one
        within `interval` of entry and one at the end of observation. Columns ``lower`` and
        ``upper`` take the place of ``time`` and ``event``.
    left : float
        When positive, observation is continuous from this time on but an earlier event is only
        known to have been earlier (left-censored). Columns as with `interval`.
    cluster_size : int
        Rows per cluster; above 1 a column ``cluster`` is added.
    correlation : float
        Correlation, within 0..1, of the normal scores of event times in a cluster. The model
        of each single row stays what it is.
    rng : None, int, SeedSequence or Generator
        Source of randomness. The same draws are made whatever the options, so that two data
        sets of one seed differ only by what their options say (without `entry`).

    Returns
    -------
    Simulated
        The pair ``(data, truth)``: a `pandas.DataFrame` of n rows with columns ``time, event``
        (or ``lower, upper``; right-censored rows have an infinite ``upper``, exact ones both
        bounds equal), ``entry`` and ``cluster`` where asked for, ``x1, x2, trt``; and a
        `SurvivalTruth`.

    Raises
    ------
    DataError
        For arguments outside their range, or an `entry` that nearly nobody reaches.

    References
    ----------
    Burke, K., Jones, M. C. and Noufaily, A. (2020). A flexible parametric modelling framework
    for survival analysis. Journal of the Royal Statistical Society C 69(2), 429-457.
    doi:10.1111/rssc.12398

    Examples
    --------
    >>> from causalrm.datasets import make_survival
    >>> data, truth = make_survival(500, phi={"trt": -0.5, "x1": 0.3}, kappa=1, rng=0)
    >>> data.shape, list(data.columns)
    ((500, 5), ['time', 'event', 'x1', 'x2', 'trt'])
    >>> treated, control = (truth.marginal_rmst(2.0, arm) for arm in (1, 0))
    >>> round(treated - control, 4)
    0.3437
    """
    import pandas as pd

    truth = SurvivalTruth(
        phi=dict(_PHI if phi is None else phi),
        lam=dict(lam or {}),
        gamma=dict(_GAMMA if gamma is None else gamma),
        kappa=float(kappa),
        treatment=dict(treatment) if isinstance(treatment, Mapping) else float(treatment),
        censoring=dict(censoring) if isinstance(censoring, Mapping) else float(censoring),
    )
    _check(n, truth, follow_up, entry, interval, left, cluster_size, correlation)
    generator, entropy = resolve(rng)
    parts: list[dict[str, Array]] = []
    seen = drawn = clusters = 0
    while seen < n:
        part = _people(generator, max(n, 100), truth, entry, cluster_size, correlation)
        part["cluster"] += clusters
        clusters += int(part["cluster"][-1]) + 1
        drawn += len(part["x1"])
        part = {name: values[part["event_time"] > part["entry"]] for name, values in part.items()}
        seen += len(part["x1"])
        if drawn >= 10_000 and seen < drawn / 1000:
            raise DataError(
                f"entry={entry} is too late: of {drawn} people drawn, {seen} had no event before "
                "their entry. Choose an earlier entry or a smaller phi."
            )
        parts.append(part)
    people = {name: np.concatenate([part[name] for part in parts])[:n] for name in parts[0]}
    event_time = people["event_time"]
    end = np.minimum(people["entry"] + people["censored_after"], follow_up)
    if endless := int(np.isinf(np.minimum(event_time, end)).sum()):
        raise DataError(
            f"{endless} of {n} rows have neither an event nor an end of observation. Give a finite "
            "follow_up or a positive censoring."
        )
    columns: dict[str, Any]
    if interval or left:
        columns = _bounds(event_time, end, people, interval, left)
    else:
        columns = {"time": np.minimum(event_time, end), "event": (event_time <= end).astype(int)}
    if entry:
        columns["entry"] = people["entry"]
    if cluster_size > 1:
        columns["cluster"] = people["cluster"].astype(int)
    columns |= {"x1": people["x1"], "x2": people["x2"], "trt": people["trt"].astype(int)}
    truth = replace(truth, event_time=event_time, entropy=entropy)
    return Simulated(pd.DataFrame(columns), truth)


@dataclass(frozen=True, eq=False)
class SurvivalTruth:
    """What generated a simulated survival data set, and the estimands that follow.

    The marginal quantities average over the covariates of the population (``x1`` standard
    normal, ``x2`` uniform on -1..1) by quadrature, with the treatment of everybody set to one
    arm: the truth that a standardised contrast estimates.

    Attributes
    ----------
    phi, lam, gamma : dict of str to float
        Coefficients of the logarithm of each parameter.
    kappa : float
        The power parameter.
    treatment, censoring : float or dict
        As given to `make_survival`.
    event_time : numpy.ndarray
        The times of the rows before any censoring, shape (n,); infinite for the cured.
    entropy : int
        Given as ``rng`` it repeats the simulation.

    Examples
    --------
    >>> from causalrm.datasets import make_survival
    >>> _, truth = make_survival(10, lam={"trt": -0.7}, kappa=-0.5, rng=1)
    >>> round(truth.marginal_cure(0), 4), round(truth.marginal_cure(1), 4)
    (0.3679, 0.6086)
    """

    phi: dict[str, float]
    lam: dict[str, float]
    gamma: dict[str, float]
    kappa: float
    treatment: float | dict[str, float]
    censoring: float | dict[str, float]
    event_time: Array = field(default_factory=lambda: np.empty(0), repr=False)
    entropy: int = 0

    def survival(self, data: pd.DataFrame, times: ArrayLike) -> Array:
        """Return S(t | row) for the rows of a frame with x1, x2 and trt, shape (rows, times)."""
        columns = {name: data[name].to_numpy(float)[:, None] for name in _COLUMNS}
        return np.exp(-self._cumulative_hazard(columns, np.asarray(times, float).ravel()))

    def marginal_survival(self, times: ArrayLike, arm: int) -> Array:
        """Return the survival function of the population under one arm, shape of `times`."""
        columns, weights = _population(arm)
        t = np.asarray(times, float)
        survival = np.exp(-self._cumulative_hazard(columns, t.ravel()))
        return (weights @ survival).reshape(t.shape)

    def marginal_rmst(self, horizon: float, arm: int) -> float:
        """Return the mean of min(T, horizon) in the population under one arm."""
        # t = v**4 flattens the corner that t**gamma has at zero.
        value, _ = integrate.quad(
            lambda v: float(self.marginal_survival(v**4, arm)) * 4 * v**3,
            0.0,
            horizon**0.25,
            epsabs=1e-10,
            epsrel=1e-10,
            limit=200,
        )
        return float(value)

    def marginal_cure(self, arm: int) -> float:
        """Return the cured share of the population under one arm; 0 unless kappa < 0."""
        return float(self.marginal_survival(np.inf, arm)) if self.kappa < 0 else 0.0

    def _parameters(self, columns: dict[str, Array]) -> tuple[Array, Array, Array]:
        """Logarithms of phi, lam and gamma."""
        log_phi, log_lam, log_gamma = (
            _linear(terms, columns) for terms in (self.phi, self.lam, self.gamma)
        )
        return log_phi, log_lam, log_gamma

    def _cumulative_hazard(self, columns: dict[str, Array], times: Array) -> Array:
        log_phi, log_lam, log_gamma = self._parameters(columns)
        k = self.kappa
        with np.errstate(divide="ignore", over="ignore"):  # times of 0 and infinity are right
            log_u = np.exp(log_gamma) * (np.log(times) + log_phi)
            if np.isinf(k):
                base = np.expm1(np.exp(log_u))
            else:
                a = np.logaddexp(0.0, log_u - np.log1p(k))
                base = (k + 1) * (np.expm1(k * a) / k if abs(k) > 1e-300 else a)
            return np.asarray(np.exp(log_lam) * base)

    def _times(self, columns: dict[str, Array], exponential: Array) -> Array:
        """Times at which the cumulative hazard reaches the standard exponential draws."""
        log_phi, log_lam, log_gamma = self._parameters(columns)
        k = self.kappa
        e = exponential * np.exp(-log_lam)
        if np.isinf(k):
            return np.asarray(np.exp(np.log(np.log1p(e)) * np.exp(-log_gamma) - log_phi))
        x = k / (k + 1) * e
        reached = x > -1  # else the hazard is used up before: cured
        x = np.where(reached, x, 0.0)
        # log(1 + x)/k, without a division by k: log1p(x)/x is exact down to the smallest x
        a = e / (k + 1) * np.divide(np.log1p(x), x, out=np.ones_like(x), where=x != 0)
        log_u = np.log1p(k) + a + np.log(-np.expm1(-a))
        with np.errstate(over="ignore"):
            times = np.exp(log_u * np.exp(-log_gamma) - log_phi)
        return np.where(reached, times, np.inf)


def _linear(terms: Terms, columns: dict[str, Array]) -> Array:
    total = np.zeros_like(columns["x1"])
    for term, coefficient in terms.items():
        value = np.ones_like(total)
        for name in [] if term == "Intercept" else term.split(":"):
            value = value * columns[name]
        total = total + coefficient * value
    return total


def _population(arm: int) -> tuple[dict[str, Array], Array]:
    """Nodes and weights of the covariates' distribution, treatment set to `arm`."""
    if arm not in (0, 1):
        raise DataError(f"arm must be 0 or 1; got {arm!r}.")
    # The trapezoidal rule is exact to rounding for smooth functions under a normal density.
    normal, step = np.linspace(-8.5, 8.5, 137, retstep=True)
    density = np.exp(-0.5 * normal**2) * step / np.sqrt(2 * np.pi)
    uniform, half = np.polynomial.legendre.leggauss(24)
    x1, x2 = (grid.reshape(-1, 1) for grid in np.meshgrid(normal, uniform, indexing="ij"))
    return {"x1": x1, "x2": x2, "trt": np.full_like(x1, arm)}, np.outer(density, half / 2).ravel()


def _people(
    generator: np.random.Generator,
    n: int,
    truth: SurvivalTruth,
    entry: float,
    cluster_size: int,
    correlation: float,
) -> dict[str, Array]:
    """Draw people before any selection: the order of draws is the same for all options."""
    x1 = generator.standard_normal(n)
    x2 = generator.uniform(-1, 1, n)
    assignment, own, shared = generator.random(n), *generator.standard_normal((2, n))
    censoring, start, visit = generator.standard_exponential(n), *generator.random((2, n))
    columns = {"x1": x1, "x2": x2, "trt": np.zeros(n)}
    probability: Array | float
    if isinstance(truth.treatment, dict):
        probability = expit(_linear(truth.treatment, columns))
    else:
        probability = truth.treatment
    columns["trt"] = (assignment < probability).astype(float)
    cluster = np.arange(n) // cluster_size
    score = np.sqrt(1 - correlation) * own + np.sqrt(correlation) * shared[cluster]
    rate: Array | float
    if isinstance(truth.censoring, dict):
        rate = np.exp(_linear(truth.censoring, columns))
    else:
        rate = truth.censoring
    with np.errstate(divide="ignore"):  # a rate of zero censors nobody
        censored_after = censoring / np.asarray(rate, float)
    return columns | {
        "event_time": truth._times(columns, -log_ndtr(-score)),
        "censored_after": censored_after,
        "entry": entry * start,
        "visit": visit,
        "cluster": cluster.astype(float),
    }


def _bounds(
    event_time: Array, end: Array, people: dict[str, Array], interval: float, left: float
) -> dict[str, Array]:
    """The interval in which each event is known to lie."""
    entry = people["entry"]
    seen = event_time <= end
    if left:
        early = seen & (event_time < left)
        lower = np.where(early, entry, np.minimum(event_time, end))
        upper = np.where(early, np.minimum(left, end), np.where(seen, event_time, np.inf))
        return {"lower": lower, "upper": upper}
    first = entry + interval * people["visit"]
    # Visits passed strictly before the event, counted from the first one.
    passed = np.ceil((np.where(seen, event_time, end) - first) / interval)
    previous = np.where(passed > 0, first + (passed - 1) * interval, entry)
    following = np.minimum(first + np.maximum(passed, 0) * interval, end)
    return {
        "lower": np.where(seen, previous, end),
        "upper": np.where(seen, following, np.inf),
    }


def _check(
    n: int,
    truth: SurvivalTruth,
    follow_up: float,
    entry: float,
    interval: float,
    left: float,
    cluster_size: int,
    correlation: float,
) -> None:
    for argument in ("phi", "lam", "gamma", "treatment", "censoring"):
        names = _COLUMNS[:2] if argument == "treatment" else _COLUMNS
        terms = getattr(truth, argument)
        if not isinstance(terms, dict):
            continue
        for term, coefficient in terms.items():
            parts = [] if term == "Intercept" else term.split(":")
            if unknown := [part for part in parts if part not in names]:
                raise DataError(
                    f"{argument} has the term {term!r} with {unknown[0]!r}; expected Intercept, "
                    f"{', '.join(names)} or products such as {names[0]}:{names[-1]}."
                )
            if not np.isfinite(coefficient):
                raise DataError(f"{argument}[{term!r}] must be a finite number; got {coefficient}.")
    probability = truth.treatment if not isinstance(truth.treatment, dict) else 0.5
    rate = truth.censoring if not isinstance(truth.censoring, dict) else 0.0
    demands = [
        ("n", n, n >= 1, "at least 1"),
        ("kappa", truth.kappa, truth.kappa > -1, "above -1"),
        ("treatment", probability, 0 <= probability <= 1, "a probability or a mapping"),
        ("censoring", rate, 0 <= rate < np.inf, "a rate >= 0 or a mapping"),
        ("entry", entry, 0 <= entry < np.inf, "a time >= 0"),
        ("follow_up", follow_up, follow_up > entry, f"after the latest entry ({entry})"),
        ("interval", interval, 0 <= interval < np.inf, "a length >= 0"),
        ("left", left, 0 <= left < np.inf, "a time >= 0"),
        ("cluster_size", cluster_size, cluster_size >= 1, "at least 1"),
        ("correlation", correlation, 0 <= correlation <= 1, "within 0..1"),
    ]
    for name, value, fine, expected in demands:
        if not fine:
            raise DataError(f"{name} must be {expected}; got {value}.")
    if interval and left:
        raise DataError(
            f"interval={interval} and left={left} describe two ways to observe; give one of them."
        )
