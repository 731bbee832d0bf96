"""Observed against predicted risk."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from causalrm.core import inference
from causalrm.core.errors import CausalRMWarning, DataError, IdentificationError, warn
from causalrm.core.optimize import maximize
from causalrm.core.result import Result, Test, quantile
from causalrm.core.table import Section, Table, section
from causalrm.survival._evaluation import (
    CENSORING,
    EvaluationRows,
    check_horizon,
    intervals,
    layout,
    read_rows,
)
from causalrm.survival._kernels_rank import risk_sets
from causalrm.survival.predict import check_times

if TYPE_CHECKING:
    from causalrm.survival.plots import CalibrationPlots

_CURVE = 100  # points of the smooth curve
_WINDOW = 0.7  # its half-width as a share of the rows, for one event; falls with power -1/5
_EARLY = 0.01  # risk before the first entry that calls for a warning


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Calibration(Result):
    """Observed against predicted risk; from `calibration`.

    Parameters
    ----------
    time : float
        The time by which risk is counted.
    observed : pandas.DataFrame
        A row per group of predicted risk: `group`, `n`, `events`, `low`, `high` (range of the
        predicted risk), `predicted` (its mean), `estimate` (observed risk), `std_error`.
    measures : pandas.DataFrame
        `term`, `estimate`, `std_error` of the ratios, the slope, and the smooth errors.
    smooth : pandas.DataFrame
        Smooth curve: `predicted`, `estimate`, `std_error`.
    test : Test
        That predicted risks are right at every level.
    df_resid : float, optional
        Degrees of freedom under clusters.
    """

    time: float
    observed: pd.DataFrame
    measures: pd.DataFrame
    smooth: pd.DataFrame
    test: Test
    df_resid: float | None = None

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return one row per group of predicted risk.

        Returns
        -------
        pandas.DataFrame
            With the columns `group, n, events, low, high, predicted, estimate, std_error,
            statistic, p_value, conf_low, conf_high`. `estimate` is the observed risk, its interval
            symmetric on the log(-log) scale; `statistic` compares it with the predicted one.
        """
        frame = intervals(self.observed, level, self.df_resid, "cloglog")
        gap = frame["estimate"].to_numpy(float) - frame["predicted"].to_numpy(float)
        with np.errstate(divide="ignore", invalid="ignore"):
            statistic = gap / frame["std_error"].to_numpy(float)
        statistic = np.where(np.isfinite(statistic), statistic, math.nan)
        place = list(frame.columns).index("conf_low")
        frame.insert(place, "statistic", statistic)
        frame.insert(place + 1, "p_value", inference.two_sided_p(statistic, self.df_resid))
        return frame

    def curve(self, level: float = 0.95) -> pd.DataFrame:
        """Smooth calibration curve: `predicted, estimate, std_error, conf_low, conf_high`."""
        return intervals(self.smooth, level, self.df_resid, "cloglog")

    def statistics(self, level: float = 0.95) -> pd.DataFrame:
        """Return one row per summary of the calibration.

        Returns
        -------
        pandas.DataFrame
            With the columns of every result frame and the terms: "O:E risk" (Kaplan-Meier over
            mean predicted risk; not under delayed entry), "O:E events" (events over the cumulative
            hazard that the fit gives to the time under observation), "slope" (of the log
            cumulative hazard); intervals of the ratios are symmetric on the log scale, and
            statistics compare with 1. Then, without standard errors, "ICI", "E50" and "E90": mean,
            median and 90 % point of the distance between smooth and predicted risk.
        """
        frame = self.measures.copy()
        ratio = frame["term"].str.startswith("O:E").to_numpy()
        e, se = frame["estimate"].to_numpy(float), frame["std_error"].to_numpy(float)
        z = quantile(level, self.df_resid)
        with np.errstate(all="ignore"):
            x, width = np.where(ratio, np.log(e), e), np.where(ratio, se / e, se)
            ends = [np.where(ratio, np.exp(x + s * z * width), x + s * z * width) for s in (-1, 1)]
            statistic = (x - np.where(ratio, 0.0, 1.0)) / width
        return frame.assign(
            statistic=statistic, p_value=inference.two_sided_p(statistic, self.df_resid),
            conf_low=ends[0], conf_high=ends[1],
        )  # fmt: skip

    @property
    def plot(self) -> CalibrationPlots:
        """Plot: ``plot()`` shows observed against predicted risk."""
        from causalrm.survival.plots import CalibrationPlots

        return CalibrationPlots(self)

    def summary(self, level: float = 0.95) -> Table:
        """Return groups, statistics, test and assumptions as a table."""
        frame = self.to_frame(level).drop(columns=["low", "high", "statistic"])
        part = section(frame.rename(columns={"group": "term"}).astype({"term": str}), "", level)
        header = ["observed" if name == "estimate" else name for name in part.columns]
        return layout(
            self,
            f"Calibration at time {self.time:g}",
            replace(part, columns=("group", *header[1:])),
            section(self.statistics(level), "Statistic", level),
            Section("Test", rows=(("All risks are right", str(self.test)),)),
            notes=(
                "Observed: Kaplan-Meier within groups of predicted risk. Ratios and slope are "
                "tested against 1.",
            ),
        )


def calibration(fit: Any, data: Any, time: float, groups: int = 10) -> Calibration:
    r"""Observed against predicted risk of an event by a given time.

    Rows are grouped by predicted risk, and Kaplan-Meier in each group is compared with the mean
    prediction. The smooth curve does the same in a window that moves over the predictions: no
    proportional hazards in the prediction, as a Cox regression on it would need, and no family of
    distributions, whose faults the fit may share. Counts of events are compared with the
    cumulative hazard that the fit gives to the time under observation; that is right under any
    censoring that depends on covariates of the fit, and under delayed entry.

    Parameters
    ----------
    fit : SurvivalRegression or SurvivalResult
        Fitted with `time` and `event`.
    data : data frame
        Rows with the covariates and the roles of the fit, preferably not those of the fit.
    time : float
        Above 0 and below the last time observed.
    groups : int
        Number of groups, of equal weight but for ties.

    Returns
    -------
    Calibration
        `to_frame()` has a row per group, `statistics()` the ratios observed to expected, the
        calibration slope and the distances ICI, E50 and E90 of Austin, Harrell and van Klaveren,
        `curve()` the smooth curve, `test` whether events are as expected in all groups.

    Raises
    ------
    DataError
        For interval-censored fits, and a time that nobody was observed beyond.
    IdentificationError
        Without events up to the time.

    Notes
    -----
    Standard errors are from influence functions, honour sampling weights and clusters, and take
    the fit as given; on the rows of the fit itself tests are too lenient. ICI, E50 and E90 are
    means and quantiles of absolute values, so that noise alone makes them positive: read them
    beside the test.

    The window is tricube in the rank of the prediction with half-width 0.7 m^(-1/5), m being the
    number of events by `time`. On the log(-log) scale the smooth curve is the prediction plus the
    difference between Kaplan-Meier and mean prediction in the window, so that predictions that are
    right give a curve on the diagonal up to the ends. The slope is that of the log cumulative
    hazard in a Poisson regression of events with offset (Crowson, Atkinson and Therneau); the test
    is that of Gronnesby and Borgan with the fit taken as given.

    References
    ----------
    Austin, Harrell, van Klaveren (2020), doi 10.1002/sim.8570; Crowson, Atkinson, Therneau (2016),
    doi 10.1177/0962280213497434; Gronnesby, Borgan (1996), doi 10.1007/BF00127305; for windows,
    Akritas (1994), doi 10.1214/aos/1176325630.

    Examples
    --------
    >>> import causalrm as crm
    >>> from causalrm.survival.diagnostics import calibration
    >>> df = crm.datasets.load_gbsg2()
    >>> odd, even = df[1::2], df[::2]
    >>> fit = crm.SurvivalRegression("hormone + nodes").fit(odd, time="time", event="event")
    >>> found = calibration(fit, even, time=1095, groups=4)
    >>> found.to_frame()[["group", "n", "predicted", "estimate"]].round(3)
       group   n  predicted  estimate
    0      1  95      0.240     0.214
    1      2  96      0.302     0.305
    2      3  79      0.357     0.296
    3      4  73      0.504     0.719
    >>> found.statistics()[["term", "estimate", "conf_low", "conf_high"]].round(3)
             term  estimate  conf_low  conf_high
    0    O:E risk     1.069     0.931      1.227
    1  O:E events     1.151     0.963      1.376
    2       slope     1.491     1.116      1.867
    3         ICI     0.055       NaN        NaN
    4         E50     0.028       NaN        NaN
    5         E90     0.169       NaN        NaN
    >>> print(found.test)
    calibration: chi2(4) = 13.05, p = 0.011
    """
    t = float(check_times(time, "time", open_end=True)[0])
    if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1:
        raise DataError(f"Expected a positive number of groups, but saw {groups!r}.")
    rows = read_rows(fit, data, "calibration")
    check_horizon(rows, np.array([t]), "time")
    log: list[str] = []
    hazard = rows.hazard(t)
    risk = -np.expm1(-hazard)
    label = _labels(risk, rows.weights, groups)
    observed = _observed(rows, t, risk, label, log)
    expected = rows.hazard(np.minimum(rows.time, t))
    if rows.entry is not None:
        expected -= rows.hazard(np.minimum(rows.entry, t))
        expected[rows.entry >= t] = 0.0
    events = ((rows.event > 0) & (rows.time <= t)).astype(float)
    w = rows.weights
    if not (w @ events) > 0:
        raise IdentificationError(
            f"Expected events up to time {t:g} in column {rows.result.model.roles.event!r}, but "
            "there are none. Choose a later time."
        )
    _warn_about_start(rows, log)
    measures: list[tuple[str, float, float]] = []
    late = rows.entry is not None and bool((rows.entry > 0).any())
    if not late:
        value, u = _kaplan_meier_risk(rows, t, np.ones(rows.n))
        mean = float(w @ risk) / rows.n
        u = (u - value / mean * (risk - mean) / rows.n) / mean
        measures.append(("O:E risk", value / mean, rows.std_error(u)))
    total = float(w @ expected)
    ratio = float(w @ events) / total
    measures.append(("O:E events", ratio, rows.std_error((events - ratio * expected) / total)))
    z = np.log(np.maximum(hazard, 1e-300))
    if float(z.max() - z.min()) > 1e-8 * (1.0 + abs(float(z.mean()))):
        measures.append(("slope", *_slope(rows, events, expected, z - z.mean())))
    smooth, gap = _smooth(rows, t, z, int(events.sum()))
    far = np.array([w @ gap / rows.n, *_weighted_quantile(gap, w, np.array([0.5, 0.9]))])
    if np.isnan(gap).any():
        far[:] = math.nan
        low = float(smooth.loc[smooth["estimate"].isna(), "predicted"].min())
        warn(
            f"The smooth curve is not defined for predicted risks from {low:.3g}, where nobody was "
            f"under observation until {t:g}, so that ICI, E50 and E90 are missing. Choose an "
            "earlier time.",
            CausalRMWarning,
            log,
        )
    measures += [(k, float(v), math.nan) for k, v in zip(("ICI", "E50", "E90"), far, strict=True)]
    return Calibration(
        call=rows.call("calibration", time=t, groups=groups),
        n_obs=rows.n,
        assumptions=(
            *rows.notes(),
            replace(
                CENSORING,
                statement="Within groups of predicted risk censoring is independent of the event.",
            ),
        ),
        warnings=tuple(log),
        time=t,
        observed=observed,
        measures=pd.DataFrame(measures, columns=["term", "estimate", "std_error"]),
        smooth=smooth,
        test=_test(rows, events, expected, label, log),
        df_resid=rows.df,
    )


def _warn_about_start(rows: EvaluationRows, log: list[str]) -> None:
    """Kaplan-Meier knows nothing of the time before the first entry."""
    first = 0.0 if rows.entry is None else float(rows.entry.min())
    if first > 0:
        early = float(np.average(-np.expm1(-rows.hazard(first)), weights=rows.weights))
        if early > _EARLY:
            warn(
                f"Nobody was under observation before {first:g}, when the fit expects "
                f"{100 * early:.1f}% to have the event: the observed risks of the groups leave "
                "these out. Read the ratio 'O:E events', the slope and the curve instead.",
                CausalRMWarning,
                log,
            )


def _kaplan_meier_risk(
    rows: EvaluationRows, t: float, share: np.ndarray
) -> tuple[float, np.ndarray]:
    """Kaplan-Meier risk by time t where rows count by a share, and its influence; or NaN."""
    mask = share > 0
    entry = None if rows.entry is None else rows.entry[mask]
    weights = rows.weights[mask] * share[mask]
    sets = risk_sets(rows.time[mask], rows.event[mask], weights, entry)
    k = int(sets.until(t))
    survival = float(sets.survival[k])
    influence = np.zeros(rows.n)
    used = (np.arange(len(sets.time)) < k).astype(float)
    influence[mask] = survival * share[mask] * sets.integral(used)
    # Nobody was followed to t, or all who were at risk died although others entered later.
    end = float(rows.time[mask].max())
    ended = np.flatnonzero(sets.survival[1 : k + 1] <= 1e-12)
    if end < t if ended.size == 0 else end > sets.time[ended[0]]:
        return math.nan, influence * math.nan
    return 1.0 - survival, influence


def _labels(risk: np.ndarray, w: np.ndarray, groups: int) -> np.ndarray:
    """Group of each row, from 0; equal predictions stay together."""
    rounded = np.round(risk, 10)
    edges = np.unique(_weighted_quantile(rounded, w, np.arange(1, groups) / groups))
    label = np.searchsorted(edges, rounded, side="left")
    return np.asarray(np.unique(label, return_inverse=True)[1])


def _observed(
    rows: EvaluationRows, t: float, risk: np.ndarray, label: np.ndarray, log: list[str]
) -> pd.DataFrame:
    out: list[dict[str, Any]] = []
    for g in range(label.max() + 1):
        mask = label == g
        value, influence = _kaplan_meier_risk(rows, t, mask.astype(float))
        out.append(
            {
                "group": g + 1,
                "n": int(mask.sum()),
                "events": int(((rows.event > 0) & (rows.time <= t) & mask).sum()),
                "low": float(risk[mask].min()),
                "high": float(risk[mask].max()),
                "predicted": float(np.average(risk[mask], weights=rows.weights[mask])),
                "estimate": value,
                "std_error": rows.std_error(influence),
            }
        )
    frame = pd.DataFrame(out)
    empty = frame.loc[frame["estimate"].isna(), "group"].tolist()
    if empty:
        warn(
            f"Kaplan-Meier is not defined at time {t:g} in the groups {empty} of predicted risk, "
            "where nobody was under observation for so long. Choose an earlier time or fewer "
            "groups.",
            CausalRMWarning,
            log,
        )
    return frame


def _weighted_quantile(x: np.ndarray, w: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Least value that has at least a share p of the weight at or below it."""
    order = np.argsort(x, kind="stable")
    share = np.cumsum(w[order]) / w.sum()
    place = np.searchsorted(share, p - 1e-12)
    return np.asarray(x[order][np.minimum(place, len(x) - 1)])


def _slope(
    rows: EvaluationRows, events: np.ndarray, expected: np.ndarray, z: np.ndarray
) -> tuple[float, float]:
    """Slope of the log cumulative hazard by Poisson regression, and its robust standard error."""
    w, x = rows.weights, np.stack([np.ones(rows.n), z])

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        with np.errstate(over="ignore", invalid="ignore"):
            eta = theta @ x
            mu = expected * np.exp(eta)
            value = float(w @ (events * eta - mu))
            return value, x @ (w * (events - mu)), -(x * (w * mu)) @ x.T, np.zeros((0, 0))

    found = maximize(objective, np.array([math.log((w @ events) / (w @ expected)), 0.0]))
    bread = inference.invert_information(-found.hessian, ["calibration", "calibration slope"])
    residual = events - expected * np.exp(found.theta @ x)
    return 1.0 + float(found.theta[1]), rows.std_error((bread @ (x * residual))[1])


def _test(
    rows: EvaluationRows,
    events: np.ndarray,
    expected: np.ndarray,
    label: np.ndarray,
    log: list[str],
) -> Test:
    """Test that events are as expected in every group.

    Events minus expected are martingales when the fit is right, whose variance is the expected
    number; an estimated variance would make the test reject too often.
    """
    w, g = rows.weights, int(label.max()) + 1
    if rows.codes is not None and rows.n_clusters <= g:
        warn(
            f"No joint test: it needs more clusters than groups, but there are {rows.n_clusters} "
            f"clusters and {g} groups. Choose fewer groups.",
            CausalRMWarning,
            log,
        )
        return Test("calibration", math.nan, g, math.nan, rows.df)
    excess = w * (events - expected)
    variance = np.diag(np.bincount(label, w**2 * expected, g))
    if rows.codes is not None:
        cells = np.bincount(rows.codes * g + label, excess, rows.n_clusters * g).reshape(-1, g)
        variance = cells.T @ cells * (rows.n_clusters / (rows.n_clusters - 1))
    seen = np.diag(variance) > 0  # a group whose rows all enter late has seen nothing
    sums, variance = np.bincount(label, excess, g)[seen], variance[np.ix_(seen, seen)]
    statistic, q, p = inference.wald(sums, variance, rows.df)
    return Test("calibration", statistic if rows.df is None else statistic / q, q, p, rows.df)


def _smooth(
    rows: EvaluationRows, t: float, z: np.ndarray, n_events: int
) -> tuple[pd.DataFrame, np.ndarray]:
    """Smooth curve over the predicted risk, and the distance from it of each row's prediction.

    In a window of similar predictions Kaplan-Meier is compared with the mean prediction under the
    same weights, on the log(-log) scale; the difference, added to the prediction in the middle,
    is free of the pull that a window has towards the inside at the ends.
    """
    w = rows.weights
    levels, place = np.unique(np.round(z, 10), return_inverse=True)
    weight = np.bincount(place, w)
    middle = (np.cumsum(weight) - 0.5 * weight) / weight.sum()
    rank = middle[place]  # share of the weight below a row, half of its equals counted
    at = np.linspace(0.01, 0.99, _CURVE)
    grid, ranks = levels, middle
    if len(levels) > _CURVE:
        grid, ranks = np.interp(at, middle, levels), at
    width = _WINDOW * n_events**-0.2
    risk = -np.expm1(-np.exp(z))
    shift, error = np.empty(len(grid)), np.empty(len(grid))
    for i, r in enumerate(ranks):
        share = np.maximum(1.0 - (np.abs(rank - r) / width) ** 3, 0.0) ** 3
        total = float(w @ share)
        mean = float(w @ (share * risk)) / total
        value, influence = _kaplan_meier_risk(rows, t, share)
        with np.errstate(divide="ignore", invalid="ignore"):
            shift[i] = np.log(-np.log1p(-value)) - math.log(-math.log1p(-mean))
            slopes = [1.0 / ((p - 1.0) * np.log1p(-p)) for p in (np.float64(value), mean)]
            own = share * (risk - mean) / total
            error[i] = rows.std_error(slopes[0] * influence - slopes[1] * own)
    eta = grid + shift
    with np.errstate(over="ignore", invalid="ignore"):  # everybody, or nobody, had the event
        frame = pd.DataFrame(
            {
                "predicted": -np.expm1(-np.exp(grid)),
                "estimate": -np.expm1(-np.exp(eta)),
                "std_error": np.exp(eta - np.exp(eta)) * error,
            }
        )
    moved = z + np.interp(rank, ranks, np.clip(shift, -50.0, 50.0))
    return frame, np.abs(-np.expm1(-np.exp(moved)) - risk)
