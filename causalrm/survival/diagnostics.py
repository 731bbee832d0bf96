"""How well a survival fit predicts: Brier score, concordance, calibration.

All take rows with outcomes, most usefully rows that were not in the fit, and take the predictions
as given: their standard errors are those of the evaluation, not of the fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from causalrm.core.errors import DataError
from causalrm.core.format import number, percent
from causalrm.core.result import Estimate, Result
from causalrm.core.table import Section, Table
from causalrm.survival._calibration import Calibration, calibration
from causalrm.survival._evaluation import (
    CENSORING,
    EvaluationRows,
    check_horizon,
    intervals,
    layout,
    read_rows,
    require_no_entry,
)
from causalrm.survival._kernels_rank import RiskSets, concordant_pairs, risk_sets
from causalrm.survival.predict import check_times, rmst_rule

_GRID = 100  # times at which the integrated Brier score is computed


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class BrierScore(Result):
    """Brier scores of a fit, of Kaplan-Meier, and scaled; from `brier_score`.

    Parameters
    ----------
    scores : pandas.DataFrame
        Columns `group` ("at time", "integrated"), `time`, `term` ("model", "null", "scaled"),
        `estimate`, `std_error`.
    df_resid : float, optional
        Degrees of freedom under clusters.
    """

    scores: pd.DataFrame
    df_resid: float | None = None

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return one row per time and term.

        Returns
        -------
        pandas.DataFrame
            With the columns `group, time, term, estimate, std_error, statistic, p_value,
            conf_low, conf_high`. Rows of the group "integrated" are means over 0 to `time`.
        """
        blank = self.scores.assign(statistic=math.nan, p_value=math.nan)
        return intervals(blank, level, self.df_resid)

    def integrated(self, term: str = "model", level: float = 0.95) -> Estimate:
        """Integrated score up to the last time: of the "model", the "null", or "scaled"."""
        frame = self.to_frame(level)
        found = frame[(frame["group"] == "integrated") & (frame["term"] == term)]
        if len(found) != 1:
            raise DataError(f"Expected term 'model', 'null' or 'scaled', but saw {term!r}.")
        value, se, low, high = found[["estimate", "std_error", "conf_low", "conf_high"]].iloc[0]
        name = f"integrated Brier score ({term})"
        return Estimate(float(value), float(se), float(low), float(high), level, name)

    def summary(self, level: float = 0.95) -> Table:
        """Return the scores, with their intervals, and what they rest on as a table."""
        frame = self.to_frame(level)
        at = self.scores["group"] == "at time"
        parts = ((frame[at], "Time"), (frame[~at], "Integrated to"))
        return layout(
            self,
            "Brier score",
            *(_score_section(part, heading, level) for part, heading in parts),
            notes=(
                "Standard errors in parentheses. Null: Kaplan-Meier of the same rows. Scaled: "
                "1 - model / null. Integrated: the mean from 0 to the time.",
            ),
        )


def _score_section(frame: pd.DataFrame, heading: str, level: float) -> Section:
    rows = []
    for time, part in frame.groupby("time"):
        texts = [
            f"{number(e, 4)} ({number(s, 4)})"
            for e, s in zip(part["estimate"], part["std_error"], strict=True)
        ]
        low, high = (number(float(part[c].iloc[2]), 4) for c in ("conf_low", "conf_high"))
        rows.append((f"{time:g}", *texts, f"[{low}, {high}]"))
    columns = (heading, "model", "null", "scaled", f"{percent(level)} interval")
    return Section(heading, columns, tuple(rows))


def brier_score(fit: Any, data: Any, times: Any) -> BrierScore:
    r"""Brier score of predicted survival, with inverse probability of censoring weights.

    At time t the squared distance between the survival predicted for a row and whether it was
    free of the event counts with weight :math:`1/\hat G(T-)` for an event at :math:`T \le t`, with
    :math:`1/\hat G(t)` for a row still under observation after t, and not at all for a row censored
    before; G is the Kaplan-Meier estimate of not being censored, in which events come before
    censorings at the same time.

    Parameters
    ----------
    fit : SurvivalRegression or SurvivalResult
        Fitted with `time` and `event`.
    data : data frame
        Rows with the covariates and the roles of the fit, preferably not those of the fit.
    times : float or sequence of float
        Above 0 and below the last time observed. The last of them is the end of the integrated
        score, the mean of the score over 0 to that time (trapezoidal rule with 100 steps).

    Returns
    -------
    BrierScore
        `to_frame()` has a row per time for the model, for Kaplan-Meier of the same rows (the null
        model), and for the scaled score, one minus the ratio of the two;
        `integrated()` the integrated score as an `Estimate`.

    Raises
    ------
    DataError
        For interval-censored fits, for delayed entry (where the weights are not defined), and for
        times that nobody was observed beyond.

    Notes
    -----
    Standard errors are from the influence function, that of the weights included; they honour
    sampling weights and clusters and take the fit as given. Where Kaplan-Meier is near 1/2 the
    null score is near its largest value, 1/4, and its interval is too short.

    References
    ----------
    Graf, Schmoor, Sauerbrei, Schumacher (1999), doi
    10.1002/(SICI)1097-0258(19990915/30)18:17/18<2529::AID-SIM274>3.0.CO;2-5; Gerds, Schumacher
    (2006), doi 10.1002/bimj.200610301.

    Examples
    --------
    >>> import causalrm as crm
    >>> from causalrm.survival.diagnostics import brier_score
    >>> df = crm.datasets.load_gbsg2()
    >>> odd, even = df[1::2], df[::2]
    >>> fit = crm.SurvivalRegression("hormone + nodes").fit(odd, time="time", event="event")
    >>> score = brier_score(fit, even, times=[365, 1095])
    >>> score.to_frame()[["group", "time", "term", "estimate", "std_error"]].round(3)
            group    time    term  estimate  std_error
    0     at time   365.0   model     0.074      0.012
    1     at time   365.0    null     0.077      0.013
    2     at time   365.0  scaled     0.044      0.032
    3     at time  1095.0   model     0.204      0.009
    4     at time  1095.0    null     0.232      0.007
    5     at time  1095.0  scaled     0.118      0.024
    6  integrated  1095.0   model     0.118      0.008
    7  integrated  1095.0    null     0.130      0.007
    8  integrated  1095.0  scaled     0.090      0.023
    >>> print(score.integrated("scaled"))
    integrated Brier score (scaled): 0.090, std. error 0.023, 95% interval [0.046, 0.134]
    """
    at = np.unique(check_times(times, "times", open_end=True))
    rows = read_rows(fit, data, "the Brier score")
    require_no_entry(rows, "the Brier score")
    check_horizon(rows, at, "times")
    censoring = risk_sets(rows.time, rows.event, rows.weights, censoring=True)
    events = risk_sets(rows.time, rows.event, rows.weights)
    horizon = float(at[-1])
    grid = np.linspace(0.0, horizon, _GRID + 1)[1:]
    steps = np.full(_GRID, 1.0 / _GRID)
    steps[-1] *= 0.5
    out: list[tuple[str, float, str, float, float]] = []

    def add(group: str, time: float, values: tuple[float, ...], u: np.ndarray) -> None:
        (model, null), ratio = values, values[0] / values[1] if values[1] > 0 else math.nan
        scaled = -(u[0] - ratio * u[1]) / null if null > 0 else np.full(rows.n, math.nan)
        for term, value, slope in (
            ("model", model, u[0]), ("null", null, u[1]), ("scaled", 1.0 - ratio, scaled)
        ):  # fmt: skip
            out.append((group, time, term, value, rows.std_error(slope)))

    score = _brier(rows, censoring)
    mean, influence = np.zeros(2), np.zeros((2, rows.n))
    for t in np.union1d(at, grid):
        s0 = events.survival[events.until(t)]
        both = [score(float(t), np.exp(-rows.hazard(t))), score(float(t), np.full(rows.n, s0))]
        if t in at:
            add("at time", float(t), (both[0][0], both[1][0]), np.stack([u for _, u in both]))
        if t in grid:
            step = steps[np.searchsorted(grid, t)]
            for j, (value, u) in enumerate(both):
                mean[j] += step * value
                influence[j] += step * u
    add("integrated", horizon, (float(mean[0]), float(mean[1])), influence)
    names = ["group", "time", "term", "estimate", "std_error"]
    return BrierScore(
        call=rows.call("brier_score", times=[float(t) for t in at]),
        n_obs=rows.n,
        assumptions=(*rows.notes(), CENSORING),
        scores=pd.DataFrame(out, columns=names),
        df_resid=rows.df,
    )


def _brier(
    rows: EvaluationRows, g: RiskSets
) -> Callable[[float, np.ndarray], tuple[float, np.ndarray]]:
    """Brier score at a time, given predicted survival, and its influence."""
    w, n, m = rows.weights, rows.n, len(g.time)
    died = rows.event > 0
    place = g.before(rows.time)  # censorings before the row's time
    event_weight = np.where(died, 1.0 / np.where(died, g.survival[place], 1.0), 0.0)

    def score(t: float, survival: np.ndarray) -> tuple[float, np.ndarray]:
        after = rows.time > t
        k = int(g.until(t))
        weight = np.where(after, 1.0 / g.survival[k], event_weight)
        loss = weight * (after - survival) ** 2
        value = float(w @ loss) / n
        # how much of the score rests on each factor of G
        carried = np.bincount(np.where(after, k, place), w * loss, m + 1)
        b = carried[::-1].cumsum()[::-1][1:]
        return value, (loss - value + g.integral(b)) / n

    return score


# ---------------------------------------------------------------------------- concordance


def concordance(
    fit: Any,
    data: Any,
    tau: float | None = None,
    method: str = "harrell",
    level: float = 0.95,
) -> Estimate:
    """Concordance: how often, of two people, the one predicted to last less has the event first.

    People are ranked by the expected time free of the event within [0, tau] (restricted mean
    survival time), which is one number also where survival curves cross; without covariates in
    gamma every quantile and every survival probability gives the same ranks. Equal predictions
    count half; a censoring at the time of an event is later than it; two events at the same time
    are not compared.

    Parameters
    ----------
    fit : SurvivalRegression or SurvivalResult
        Fitted with `time` and `event`.
    data : data frame
        Rows with the covariates and the roles of the fit, preferably not those of the fit.
    tau : float, optional
        Only pairs whose first event comes before `tau` count. By default all do, and people are
        ranked by the mean up to the last event.
    method : {"harrell", "uno"}
        "harrell" compares the pairs that censoring left comparable, so that its limit depends on
        censoring. "uno" weights each pair by the inverse squared probability of not being censored
        until its event, which removes that; give `tau`, or the last events weigh most.
    level : float

    Returns
    -------
    Estimate
        1/2 for predictions that know nothing. The interval is symmetric on the logit scale; the
        standard error is from the influence function (that of Uno's weights included), honours
        sampling weights and clusters, and takes the fit as given.

    Raises
    ------
    DataError
        For interval-censored fits, without comparable pairs, and for "uno" under delayed entry.

    References
    ----------
    Harrell, Lee, Mark (1996), doi 10.1002/(SICI)1097-0258(19960229)15:4<361::AID-SIM168>3.0.CO;2-4;
    Uno, Cai, Pencina, D'Agostino, Wei (2011), doi 10.1002/sim.4154.

    Examples
    --------
    >>> import causalrm as crm
    >>> from causalrm.survival.diagnostics import concordance
    >>> df = crm.datasets.load_gbsg2()
    >>> odd, even = df[1::2], df[::2]
    >>> fit = crm.SurvivalRegression("hormone + nodes").fit(odd, time="time", event="event")
    >>> print(concordance(fit, even))
    Harrell's concordance: 0.667, std. error 0.022, 95% interval [0.622, 0.709]
    >>> print(concordance(fit, even, tau=1825, method="uno"))
    Uno's concordance up to 1825: 0.653, std. error 0.022, 95% interval [0.609, 0.695]
    """
    if method not in ("harrell", "uno"):
        raise DataError(f"Expected method 'harrell' or 'uno', but saw {method!r}.")
    if tau is not None:
        tau = float(check_times(tau, "tau", open_end=True)[0])
    rows = read_rows(fit, data, "concordance")
    died = rows.event > 0
    used = died if tau is None else died & (rows.time < tau)
    if not used.any():
        raise DataError(
            f"Expected events{'' if tau is None else f' before tau = {tau:g}'} in column "
            f"{rows.result.model.roles.event!r}, but there are none. Give more rows or a later tau."
        )
    horizon = float(rows.time[died].max()) if tau is None else tau
    lost = np.zeros(rows.n)
    for t, step in zip(*rmst_rule(horizon), strict=True):
        lost -= step * np.expm1(-rows.hazard(t))
    # Equal covariates must give equal ranks, whatever the last digit says.
    risk = np.round(np.log(np.maximum(lost, 1e-300)), 10)
    censoring: RiskSets | None = None
    pair = used.astype(float)
    if method == "uno":
        require_no_entry(rows, "Uno's concordance")
        censoring = risk_sets(rows.time, rows.event, rows.weights, censoring=True)
        place = censoring.before(rows.time)
        pair[used] = censoring.survival[place[used]] ** -2.0
    later = concordant_pairs(rows.time, rows.event, risk, rows.weights, pair, rows.entry)
    w = rows.weights
    total = float((w * pair) @ later[1])
    if not total > 0:
        raise DataError(
            f"Expected pairs of an event and a later time, but none of the {rows.n} rows form one. "
            "Give more rows or a later tau."
        )
    value = float((w * pair) @ later[0]) / total
    excess = pair * (later[0] - value * later[1])
    influence = excess + later[2] - value * later[3]
    if censoring is not None:
        carried = np.bincount(place[used], (w * excess)[used], len(censoring.time) + 1)
        influence += 2.0 * censoring.integral(carried[::-1].cumsum()[::-1][1:])
    se = rows.std_error(influence / total)
    row = intervals(
        pd.DataFrame({"estimate": [value], "std_error": [se]}), level, rows.df, "logit"
    ).iloc[0]
    name = "Harrell's concordance" if method == "harrell" else "Uno's concordance"
    if tau is not None:
        name += f" up to {tau:g}"
    return Estimate(value, se, float(row["conf_low"]), float(row["conf_high"]), level, name)


__all__ = ["BrierScore", "Calibration", "brier_score", "calibration", "concordance"]
