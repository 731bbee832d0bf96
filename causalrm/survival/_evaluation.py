"""Rows with outcomes, as the diagnostics of a survival fit read them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from causalrm.core.blocks import BLOCK
from causalrm.core.design import encode_new
from causalrm.core.errors import DataError
from causalrm.core.estimator import Estimator
from causalrm.core.frame import Source, scan
from causalrm.core.result import Assumption, Result, quantile
from causalrm.core.table import Section, Table
from causalrm.survival import _kernels as K
from causalrm.survival import _support as support
from causalrm.survival.predict import blocks
from causalrm.survival.result import SurvivalResult
from causalrm.survival.roles import check_values


@dataclass(frozen=True)
class EvaluationRows:
    """Outcomes of the rows, and the parameters that the fit predicts for them."""

    result: SurvivalResult
    time: np.ndarray
    event: np.ndarray
    entry: np.ndarray | None
    weights: np.ndarray  # mean one
    codes: np.ndarray | None
    n_clusters: int
    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    seen: bool  # the rows are those of the fit

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.time)

    @property
    def df(self) -> float | None:
        """Degrees of freedom of t under clusters."""
        return None if self.codes is None else float(self.n_clusters - 1)

    def hazard(self, time: float | np.ndarray) -> np.ndarray:
        """Cumulative hazard of each row at a time, or at a time of its own."""
        t = np.broadcast_to(np.asarray(time, dtype=float), (self.n,))
        out, kappa = np.empty(self.n), self.result.kappa
        for i in range(0, self.n, BLOCK):
            s = slice(i, i + BLOCK)
            part = np.ascontiguousarray(t[s])
            out[s] = K.curves(part, self.a[s], self.b[s], self.c[s], kappa)[0]
        return out

    def std_error(self, influence: np.ndarray) -> float:
        """Standard error from the derivative of an estimate in the weight of each row."""
        u = self.weights * influence
        if self.codes is None:
            return math.sqrt(float(u @ u))
        sums = np.bincount(self.codes, u, self.n_clusters)
        return math.sqrt(float(sums @ sums) * self.n_clusters / (self.n_clusters - 1))

    def notes(self) -> tuple[Assumption, ...]:
        """What every diagnostic rests on."""
        text = "The outcomes are not those of the fit; that no row is shared was not checked."
        if self.seen:
            text = "These are the rows of the fit, so that the numbers flatter it. Use other rows."
        return (
            Assumption(
                "new rows",
                "The rows were not used in the fit, and stand for those to be predicted.",
                text,
                "doubtful" if self.seen else "untested",
            ),
        )

    def call(self, name: str, **options: Any) -> dict[str, Any]:
        """Describe the call for `Result.call`."""
        return {"estimator": name, "options": options, "roles": dict(self.result.call["roles"])}


def read_rows(fit: Any, data: Any, what: str) -> EvaluationRows:
    """Open rows with outcomes, the roles being those of the fit."""
    result = fit.result_ if isinstance(fit, Estimator) else fit
    if not isinstance(result, SurvivalResult):
        raise DataError(
            f"Expected a fitted SurvivalRegression or its result, but saw {type(fit).__name__}."
        )
    model = result.model
    roles = model.roles
    if roles.time is None:
        raise DataError(
            f"Expected exact or right-censored times for {what}, but the fit took intervals from "
            f"{roles.lower!r} and {roles.upper!r}, for which it is not defined. Compare such fits "
            "by AIC, or evaluate one fitted with time= and event=."
        )
    source, rows = encode_new(data, model.predictors.unique, roles.numbers)
    check_values(rows, roles, source.index)
    block, n = rows.columns, rows.n_obs
    codes: np.ndarray | None = None
    if roles.cluster is not None:  # clusters of new rows need not be those of the fit
        clusters = Source(data)
        reader, _ = scan(clusters, categories=[roles.cluster])
        codes = clusters.rows(reader, n).columns[roles.cluster]
    time, event, entry, _ = model.times(block)
    weights = model.weights(block)
    w = np.ones(n) if weights is None else weights
    if not w.any():
        raise DataError(f"Expected positive weights in column {roles.weights!r}, but all are 0.")
    a, b, c = np.empty(n), np.empty(n), np.empty(n)
    for i, points in blocks(model, result.estimates, block):
        s = slice(i, i + points.n)
        a[s], b[s], c[s] = points.a, points.b, points.c
    seen = n == result.n_obs and np.allclose(
        support.count(rows, model).fingerprint, result.fingerprint, rtol=1e-9
    )
    if not w.all():  # rows without weight say nothing
        keep = w > 0
        time, event, w, a, b, c = (x[keep] for x in (time, event, w, a, b, c))
        entry, codes = (None if x is None else x[keep] for x in (entry, codes))
    n_clusters = 0
    if codes is not None:
        found, codes = np.unique(codes, return_inverse=True)
        n_clusters = len(found)
        if n_clusters < 2:
            raise DataError(
                f"Expected at least two clusters in column {roles.cluster!r}, but saw "
                f"{n_clusters}. Give more rows."
            )
    return EvaluationRows(
        result, time, event, entry, w / w.mean(), codes, n_clusters, a, b, c, seen
    )


def require_no_entry(rows: EvaluationRows, what: str) -> None:
    """Refuse delayed entry, under which the weights for censoring are not defined."""
    if rows.entry is not None and (rows.entry > 0).any():
        late = int((rows.entry > 0).sum())
        raise DataError(
            f"Expected rows seen from time 0 for {what}, which weights by the probability of not "
            f"being censored and is not defined under delayed entry, but {late} of {rows.n} rows "
            f"enter late (column {rows.result.model.roles.entry!r}). Use calibration or "
            "concordance(method='harrell'), which are."
        )


def check_horizon(rows: EvaluationRows, times: np.ndarray, what: str) -> None:
    """Refuse times beyond which nobody was observed."""
    last = float(rows.time.max())
    if times.max() >= last:
        raise DataError(
            f"Expected {what} below the last time in column {rows.result.model.roles.time!r}, "
            f"{last:g}, but saw {times.max():g}: nobody was observed for longer. Choose an earlier "
            "time."
        )


CENSORING = Assumption(
    "censoring",
    "Censoring is independent of the time of the event and of the covariates.",
    "Fit the time to censoring on the covariates: they should not matter.",
)


def intervals(
    frame: pd.DataFrame, level: float, df: float | None, scale: str = "identity"
) -> pd.DataFrame:
    """Add an interval that is symmetric on a scale, from estimate and std_error."""
    z = quantile(level, df)
    x, se = frame["estimate"].to_numpy(float), frame["std_error"].to_numpy(float)
    with np.errstate(all="ignore"):
        if scale == "cloglog":  # of a risk
            f, half = np.log(-np.log1p(-x)), z * se / np.abs((1 - x) * np.log1p(-x))
            low, high = (-np.expm1(-np.exp(f + s * half)) for s in (-1, 1))
        elif scale == "logit":
            f, half = special.logit(x), z * se / (x * (1 - x))
            low, high = (special.expit(f + s * half) for s in (-1, 1))
        else:
            low, high = x - z * se, x + z * se
    if scale == "logit":  # at its bounds, and where no row moves the estimate
        low, high = np.where(se == 0, x, low), np.where(se == 0, x, high)
    return frame.assign(conf_low=low, conf_high=high)


def layout(result: Result, title: str, *sections: Section, notes: tuple[str, ...]) -> Table:
    """Table of a diagnostic: the call, its own sections, assumptions and warnings."""
    roles = ", ".join(f"{role} = {column}" for role, column in result.call["roles"].items())
    options = ", ".join(f"{k} = {v}" for k, v in result.call["options"].items())
    head = [("Options", options), ("Columns", roles), ("Observations", f"{result.n_obs:,}")]
    return Table(
        title,
        (
            Section(rows=tuple((k, v) for k, v in head if v)),
            *sections,
            *result._remarks(),
        ),
        notes,
    )
