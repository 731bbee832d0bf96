"""Product-limit curves, and what plots need from the rows of a fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causalrm.core.result import quantile


@dataclass(frozen=True)
class StepCurve:
    """A step function that starts at `time` 0 and changes at each element of `time`.

    Attributes
    ----------
    time, value, variance : ndarray of shape (m,)
        For Kaplan-Meier `variance` is Greenwood's sum, that of log survival.
    at_risk : ndarray of shape (m,)
    """

    time: np.ndarray
    value: np.ndarray
    variance: np.ndarray
    at_risk: np.ndarray

    def at(self, t: np.ndarray, left: bool = False) -> np.ndarray:
        """Value at `t`, or just before it."""
        place = np.searchsorted(self.time, t, side="left" if left else "right")
        return np.concatenate([[1.0], self.value])[place]

    def thin(self, size: int) -> StepCurve:
        """Keep at most `size` steps, evenly spread over the time axis, ends included."""
        if len(self.time) <= size:
            return self
        grid = np.linspace(self.time[0], self.time[-1], size)
        keep = np.unique(np.clip(np.searchsorted(self.time, grid, side="right") - 1, 0, None))
        return StepCurve(self.time[keep], self.value[keep], self.variance[keep], self.at_risk[keep])

    def interval(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Pointwise interval of a survivor curve on the log(-log) scale."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            log_s = np.log(self.value)
            half = quantile(level) * np.sqrt(self.variance) / np.abs(log_s)
            low, high = np.exp(log_s * np.exp(half)), np.exp(log_s * np.exp(-half))
        fixed = ~np.isfinite(half)
        return np.where(fixed, self.value, low), np.where(fixed, self.value, high)


def kaplan_meier(
    time: np.ndarray,
    event: np.ndarray,
    entry: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> StepCurve:
    """Kaplan-Meier estimate with delayed entry and weights.

    Parameters
    ----------
    time, event : ndarray of shape (n,)
        Times, and 1 for an event or 0 for censoring. Events precede censorings at ties.
    entry : ndarray of shape (n,), optional
        Start of observation; a row is at risk in (entry, time].
    weights : ndarray of shape (n,), optional

    Returns
    -------
    StepCurve
        With a step at each distinct event time.

    References
    ----------
    Kaplan, Meier (1958), doi 10.1080/01621459.1958.10501452.
    """
    times, deaths, at_risk = _risk_sets(time, event, entry, weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        hazard = np.minimum(deaths / at_risk, 1.0)
        variance = np.cumsum(deaths / (at_risk * (at_risk - deaths)))
    return StepCurve(times, np.cumprod(1.0 - hazard), variance, at_risk)


def nelson_aalen(
    time: np.ndarray,
    event: np.ndarray,
    entry: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> StepCurve:
    """Nelson-Aalen cumulative hazard; arguments as in `kaplan_meier`."""
    times, deaths, at_risk = _risk_sets(time, event, entry, weights)
    jump = deaths / at_risk
    return StepCurve(times, np.cumsum(jump), np.cumsum(jump / at_risk), at_risk)


def _risk_sets(
    time: np.ndarray,
    event: np.ndarray,
    entry: np.ndarray | None,
    weights: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct event times, with the weight of the events and of the rows at risk."""
    given = np.ones(len(time)) if weights is None else weights
    if not given.all():  # a row without weight is no step and nobody at risk
        seen = given > 0
        time, event, given = time[seen], event[seen], given[seen]
        entry = None if entry is None else entry[seen]
    order = np.argsort(time, kind="stable")
    t, d, w = time[order], event[order] > 0, given[order]
    times = np.unique(t[d])
    if times.size == 0:
        return times, times, times
    total = np.concatenate([[0.0], np.cumsum(w)])
    at_risk = total[-1] - total[np.searchsorted(t, times, side="left")]
    if entry is not None:
        e = np.argsort(entry, kind="stable")
        late = np.concatenate([[0.0], np.cumsum(given[e])])
        at_risk = at_risk - (late[-1] - late[np.searchsorted(entry[e], times, side="left")])
    deaths = np.bincount(np.searchsorted(times, t[d]), weights=w[d], minlength=len(times))
    return times, deaths, at_risk
