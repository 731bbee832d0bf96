"""What a survival fit needs around its likelihood: starting values, checks, reduced curves."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from causalrm.core.blocks import Block, Rows, length
from causalrm.core.design import encode_new
from causalrm.core.errors import DataError
from causalrm.core.result import Assumption
from causalrm.survival.curves import StepCurve, kaplan_meier, nelson_aalen
from causalrm.survival.model import Model
from causalrm.survival.predict import Points
from causalrm.survival.roles import Roles, check_values

if TYPE_CHECKING:
    from causalrm.survival.result import SurvivalResult

_CURVE_ROWS = 10_000  # rows from which curves for plots are drawn
_FITTED_ROWS = 1_000  # rows over which fitted survival is averaged for plots
_GRID = 60
_GROUPS = 6
_STEPS = 500


@dataclass(frozen=True)
class Counts:
    """Sums over the rows before the fit."""

    events: int
    interval: int
    left: int
    entry: int
    weight_sum: float
    informative: float
    timed: int
    log_time: float
    log_time_squares: float
    log_event_time: float
    log_upper: float

    def kinds(self, n: int) -> dict[str, int]:
        """Rows by kind of observation."""
        return {
            "events": self.events,
            "right": n - self.events - self.interval - self.left,
            "interval": self.interval,
            "left": self.left,
            "entry": self.entry,
        }

    @property
    def fingerprint(self) -> tuple[float, ...]:
        """Numbers by which the same rows are recognised."""
        return (
            float(self.events), float(self.interval), float(self.left), float(self.entry),
            float(self.timed), self.log_time, self.log_time_squares, self.log_event_time,
            self.log_upper,
        )  # fmt: skip


def count(rows: Rows, model: Model) -> Counts:
    """Look at times and weights once."""
    return Counts(*rows.total(model.counts))


def start(model: Model, counts: Counts, largest: float) -> np.ndarray:
    """Starting values: all slopes 0, time scaled by its geometric mean."""
    theta = np.zeros(model.predictors.n_params)
    centre = counts.log_time / max(counts.timed, 1)
    if model.kappa is not None and math.isinf(model.kappa):
        centre = math.log(largest)  # e^(phi t) must not overflow
    for i, name in enumerate(model.names):
        first = model.predictors.slices[i].start
        w = model.predictors.which[i]
        starts_with = w >= 0 and model.predictors.unique[w].has_intercept
        if name == "phi" and starts_with:
            theta[first] = -centre
        elif name == "lam" and model.predictors.constant(i) and model.position("phi") is None:
            theta[first] = -centre
    return theta


# ---------------------------------------------------------------------------- summaries


def cure_sums(block: Block, model: Model, theta: np.ndarray) -> tuple[Any, ...]:
    """Sum of cure fractions over a block, and its gradient in the coefficients."""
    points = Points(model, theta, block, length(block))
    x, slope = points.cure()
    w = model.weights(block)
    p = np.exp(-np.exp(x)) * (1.0 if w is None else w)
    factor = -p * np.exp(x)
    g = [factor * slope[i] for i in model.active]
    return float(p.sum()), model.predictors.score(points.xs, g)


def summarise(
    rows: Rows, model: Model, theta: np.ndarray, means: list[np.ndarray]
) -> dict[str, Any]:
    """Everything that plots, tables and assumptions need from the rows.

    Parameters
    ----------
    rows, model
    theta : ndarray of shape (k,)
        Coefficients of the columns as they are.
    means : list of ndarray
        Means of the columns of each design.
    """
    n, p = rows.n_obs, model.predictors
    centre = {"phi": 0.0, "lam": 0.0, "gamma": 0.0}
    for name, w, f, s in zip(model.names, p.which, p.first, p.slices, strict=True):
        if w >= 0:
            centre[name] = float(theta[s] @ means[w][f:])
    sample = rows.sample(_CURVE_ROWS)
    block = sample.columns
    kappa = model.kappa
    if kappa is None:
        kappa = math.expm1(theta[-1])
    curves, diagnostics = _curves(block, model, theta)
    diagnostics["curve_rows"] = sample.n_obs
    out: dict[str, Any] = {
        "centre": centre,
        "curves": curves,
        "diagnostics": diagnostics,
        "cure": None,
        "kappa": kappa,
    }
    if kappa < 0:
        total, gradient = rows.total(cure_sums, model, theta)
        mean = total / n
        if 0 < mean < 1:  # kappa just below 0 can leave nothing that a double holds
            slope = gradient / n / (mean * math.log(mean))
            out["cure"] = {"cloglog": math.log(-math.log(mean)), "gradient": slope}
            diagnostics.update(_follow_up(block, model, theta))
    return out


def _follow_up(block: Block, model: Model, theta: np.ndarray) -> dict[str, float]:
    """How much of the plateau of a cure model was seen.

    The share of the events that the model expects in those not cured by the end of follow-up, the
    rows censored after the last event, and alpha of Maller and Zhou (1992), doi
    10.1093/biomet/79.4.731 (small values support a plateau).
    """
    time, event, _, upper = model.times(block)
    n, last = len(time), float(time.max())
    rows = {name: c[:: max(1, n // _FITTED_ROWS)] for name, c in block.items()}
    points = Points(model, theta, rows, length(rows))
    w = model.weights(rows)
    survival = float(np.average(np.exp(-points.curves(last)[0]), weights=w))
    cure = float(np.average(np.exp(-np.exp(points.cure()[0])), weights=w))
    out = {"follow_up_share": (1.0 - survival) / (1.0 - cure) if cure < 1 else math.nan}
    if upper is None and event.any():
        latest = float(time[event > 0].max())
        late = int(((event > 0) & (time > 2 * latest - last) & (time <= latest)).sum())
        out["follow_up_rows"] = float(n)
        out["censored_after_last_event"] = float((time > latest).sum())
        out["maller_zhou_alpha"] = float((1.0 - late / n) ** n)
    return out


def _curves(block: Block, model: Model, theta: np.ndarray) -> tuple[dict[str, Any], dict[str, Any]]:
    time, event, entry, upper = model.times(block)
    w = model.weights(block)
    end = float(time.max() if upper is None else np.where(np.isfinite(upper), upper, time).max())
    grid = np.linspace(0.0, end, _GRID + 1)
    curves: dict[str, Any] = {"grid": grid, "groups": {}, "events": _reduced(time[event > 0])}
    for label, mask in _groups(block, model).items():
        part = {name: c[mask] for name, c in block.items()}
        curves["groups"][label] = _group(part, model, theta, grid, upper is None)
    diagnostics: dict[str, Any] = {}
    if upper is None:
        n = len(time)
        cs, start = cox_snell(block, model, theta)
        na = nelson_aalen(cs, event, None if entry is None else start, w)
        inner = na.at_risk >= max(10.0, 0.05 * n) if na.time.size else np.zeros(0, bool)
        gap = float(np.abs(na.value - na.time)[inner].max()) if inner.any() else math.nan
        curves["cox_snell"] = _frame(na.thin(_STEPS), interval=False)
        diagnostics["cox_snell_gap"] = gap
        # upper 5 % point of the gap if the model held with known parameters (Kolmogorov's)
        last = float(na.variance[inner][-1]) if inner.any() else math.nan
        diagnostics["cox_snell_limit"] = 1.358 * math.sqrt(last)
    return curves, diagnostics


def _groups(block: Block, model: Model) -> dict[str, np.ndarray]:
    """All rows, and the rows of each level of covariates with few levels."""
    out = {"all": np.ones(length(block), dtype=bool)}
    seen: set[str] = set()
    for design in model.predictors.unique:
        for column in design.columns:
            if column.name in seen or column.name not in block:
                continue
            seen.add(column.name)
            values = block[column.name]
            if column.levels is not None:
                if len(column.levels) <= _GROUPS:
                    for code, level in enumerate(column.levels):
                        out[f"{column.name} = {level}"] = values == code
            else:
                found = np.unique(values[:2000])
                if len(found) == 2 and len(np.unique(values)) == 2:
                    for level in found:
                        out[f"{column.name} = {level:g}"] = values == level
    return {label: mask for label, mask in out.items() if mask.any()}


def _group(
    block: Block, model: Model, theta: np.ndarray, grid: np.ndarray, exact: bool
) -> dict[str, Any]:
    time, event, entry, _ = model.times(block)
    w = model.weights(block)
    n = len(time)
    step = max(1, n // _FITTED_ROWS)
    few = {name: c[::step] for name, c in block.items()}
    points = Points(model, theta, few, length(few))
    weight = model.weights(few)
    fitted, density = np.ones(len(grid)), np.zeros(len(grid))
    for i, t in enumerate(grid[1:], 1):
        curve = points.curves(t)
        fitted[i] = np.average(np.exp(-curve[0]), weights=weight)
        density[i] = np.average(np.exp(curve[5] - curve[0]), weights=weight)
    hazard = density[1:] / np.maximum(fitted[1:], 1e-300)
    designs = model.predictors.matrices(block, n)
    out: dict[str, Any] = {
        "n": n, "end": float(time.max()), "fitted": fitted, "hazard": hazard,
        "mean": [np.average(x, axis=1, weights=w) for x in designs],
    }  # fmt: skip
    if exact:
        km = kaplan_meier(time, event, entry, w)
        out["km"] = _frame(km.thin(_STEPS))
        out["events"] = int((event > 0).sum())
    return out


def _frame(curve: StepCurve, interval: bool = True) -> pd.DataFrame:
    out = pd.DataFrame({"time": curve.time, "value": curve.value})
    if interval:
        out["low"], out["high"] = curve.interval()
    else:
        half = 1.959964 * np.sqrt(np.clip(curve.variance, 0, None))
        out["low"], out["high"] = np.clip(curve.value - half, 0, None), curve.value + half
    out["at_risk"] = curve.at_risk
    return out


def _reduced(values: np.ndarray) -> np.ndarray:
    """At most `_STEPS` quantiles of a sample, its ends included."""
    if len(values) <= _STEPS:
        return np.sort(values).astype(float)
    return np.asarray(np.quantile(values, np.linspace(0, 1, _STEPS)))


# ---------------------------------------------------------------------------- residuals


def cox_snell(block: Block, model: Model, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cumulative hazard at the end and at the start of observation of each row."""
    time, _, entry, _ = model.times(block)
    points = Points(model, theta, block, len(time))
    start = np.zeros(len(time))
    if entry is not None:
        start = points.curves(entry)[0]
    return points.curves(time)[0], start


def residuals(result: SurvivalResult, data: Any, kind: str) -> pd.Series:
    """Residuals of rows with outcomes; see `SurvivalRegression.residuals`."""
    if kind not in ("cox-snell", "martingale", "deviance"):
        raise DataError(f"Expected kind 'cox-snell', 'martingale' or 'deviance', but saw {kind!r}.")
    model, theta = result.model, result.estimates
    roles = replace(model.roles, weights=None, cluster=None)
    source, rows = encode_new(
        data, model.predictors.unique, roles.numbers,
        infinite=[] if roles.upper is None else [roles.upper],
    )  # fmt: skip
    check_values(rows, roles, source.index)
    _, event, _, upper = model.times(rows.columns)
    end, begin = cox_snell(rows.columns, model, theta)
    expected, events = end - begin, event.copy()
    if upper is not None:
        inside = np.isfinite(upper)
        points = Points(model, theta, rows.columns, rows.n_obs)
        top = points.curves(np.where(inside, upper, 1.0))[0]
        # mean of a unit exponential between two bounds
        gap = top - end
        with np.errstate(over="ignore"):
            mean = 1.0 - gap / np.expm1(np.where(gap > 0, gap, 1.0))
        expected = np.where(inside, end - begin + np.where(gap > 0, mean, 0.0), expected)
        events = np.where(inside, 1.0, events)
    if kind == "cox-snell":
        value = expected
    else:
        value = events - expected
        if kind == "deviance":
            with np.errstate(divide="ignore", invalid="ignore"):
                log_term = np.where(events > 0, np.log(expected), 0.0)
            square = -2.0 * (value + log_term)
            value = np.sign(value) * np.sqrt(np.clip(square, 0.0, None))
    return pd.Series(value, index=source.index, name=kind)


# ---------------------------------------------------------------------------- assumptions


def assumptions(roles: Roles, summary: dict[str, Any], model: Model) -> tuple[Assumption, ...]:
    """What the fit rests on, with what was seen of it."""
    d = summary["diagnostics"]
    gap, limit = d.get("cox_snell_gap", math.nan), d.get("cox_snell_limit", math.nan)
    if math.isfinite(gap):
        text = (
            f"Cox-Snell residuals stay within {gap:.3f} of the unit exponential's cumulative "
            f"hazard (5% limit {limit:.3f} if the parameters were known); see plot.cox_snell()."
        )
        status = "supported" if gap <= limit else "doubtful"
    else:
        text, status = "Compare families with causalrm.survival.select.", "untested"
    end = "in those not yet under observation and " if roles.entry else ""
    out = [
        Assumption(
            "distribution",
            f"Given the covariates, times follow the family with kappa = {summary['kappa']:.4g}.",
            text,
            status,
        ),
        Assumption(
            "covariates",
            f"Effects are log-linear in {', '.join(n for n in model.names if n != 'kappa')}.",
            "Compare structures with causalrm.survival.select, and groups with plot.survival().",
        ),
        Assumption(
            "censoring",
            f"Given the covariates, censoring says nothing about the time to come {end}"
            "in those still at risk.",
            "The data cannot show it; compare covariates of early and late censored rows.",
        ),
    ]
    if roles.cluster is None:
        out.append(
            Assumption(
                "independence",
                "Rows are independent.",
                "If people appear in several rows, give cluster=.",
            )
        )
    if summary["cure"] is not None:
        share, alpha = d["follow_up_share"], d.get("maller_zhou_alpha", 0.0)
        text = f"By the last time {100 * share:.1f}% of the events expected in those not cured"
        text += " had been seen"
        if "censored_after_last_event" in d:
            text += (
                f"; {d['censored_after_last_event']:.0f} of {d['follow_up_rows']:.0f} rows looked "
                "at were censored after the last event"
                f"; Maller-Zhou alpha {d['maller_zhou_alpha']:.3g}"
            )
        out.append(
            Assumption(
                "follow-up",
                "Observation is long enough to see the plateau of those cured.",
                text + ".",
                "supported" if share > 0.9 and alpha < 0.05 else "doubtful",
            )
        )
    return tuple(out)
