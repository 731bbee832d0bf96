"""Replicated data against the data by decile of risk, and the assumptions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from causalrm.core.result import Assumption, check_level
from causalrm.risk.constraints import Expertise, Prevalence
from causalrm.risk.predict import Draws, NewRows, mean_of, simulate

ROWS, REPLICATES = 20_000, 200  # at most, for checks within a fit
_POINTS = 400


def by_decile(
    rows: NewRows,
    draws: Draws,
    tested: np.ndarray,
    y: np.ndarray,
    rng: np.random.Generator,
    bins: int = 10,
    level: float = 0.95,
    order_by: np.ndarray | None = None,
) -> pd.DataFrame:
    """Shares tested, and positive among the tested, in the data and in replicated data.

    Parameters
    ----------
    rows : NewRows
    draws : Draws
        One set of replicated tests and outcomes is drawn from each.
    tested, y : ndarray of shape (n,)
        y is not read where not tested.
    rng : Generator
    bins : int
        Groups of about equal size by risk.
    level : float
    order_by : ndarray of shape (n,), optional
        What to group by; the posterior mean of risk by default.

    Returns
    -------
    pandas.DataFrame
        Columns quantity ("tested", "positive"), bin (from 1), risk (mean), n, observed,
        predicted, conf_low, conf_high; the interval is that of replicated shares.
    """
    check_level(level)
    risk = mean_of(rows, draws, "risk") if order_by is None else order_by
    edges = np.unique(np.quantile(risk, np.arange(1, bins) / bins))
    code = np.searchsorted(edges, risk, side="right")
    n = np.bincount(code, minlength=len(edges) + 1)
    bins = len(n)

    def shares(t: np.ndarray, outcome: np.ndarray) -> np.ndarray:
        count = np.bincount(code, t, bins)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.array([count / n, np.bincount(code, t * outcome, bins) / count])

    seen = shares(tested.astype(float), np.where(tested, y, 0.0))
    again = np.array(
        [shares(t.astype(float), o.astype(float)) for t, o in simulate(rows, draws, rng)]
    )
    tail = (1 - level) / 2
    parts = []
    for i, name in enumerate(("tested", "positive")):
        with np.errstate(invalid="ignore"):
            known = [column[np.isfinite(column)] for column in again[:, i].T]
        ends = [np.quantile(c, [tail, 1 - tail]) if len(c) else [math.nan] * 2 for c in known]
        columns = {
            "quantity": name, "bin": np.arange(1, bins + 1),
            "risk": np.bincount(code, risk, bins) / n, "n": n, "observed": seen[i],
            "predicted": [c.mean() if len(c) else math.nan for c in known],
            "conf_low": [e[0] for e in ends], "conf_high": [e[1] for e in ends],
        }  # fmt: skip
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def outside(check: pd.DataFrame) -> tuple[int, int]:
    """How many of the observed shares lie outside their interval, and of how many."""
    seen = check.dropna(subset=["observed", "conf_low"])
    gap = (seen["observed"] < seen["conf_low"]) | (seen["observed"] > seen["conf_high"])
    return int(gap.sum()), len(seen)


def testing_curve(
    rows: NewRows, draws: Draws, group: Sequence[Any] | None, rng: np.random.Generator
) -> pd.DataFrame:
    """Posterior mean risk and probability of testing of at most 400 rows."""
    pick = np.arange(len(rows))
    if len(pick) > _POINTS:
        pick = np.sort(rng.choice(len(rows), _POINTS, replace=False))
    decider = None if rows.decider is None else rows.decider[pick]
    some = NewRows(rows.x[pick], rows.w[pick], decider)
    out = {q: mean_of(some, draws, q) for q in ("risk", "testing")}
    labels = [""] * len(pick) if group is None else [str(group[int(i)]) for i in pick]
    return pd.DataFrame(out | {"group": labels}).sort_values("risk", ignore_index=True)


def assumptions(
    prevalences: Sequence[Prevalence],
    expertise: Expertise | None,
    masked: Sequence[str],
    unobservable: str,
    alpha: float | None,
    known: pd.DataFrame,
    check: pd.DataFrame,
    diagnostics: Mapping[str, Any],
    weights: str | None,
) -> tuple[Assumption, ...]:
    """What the estimates rest on, each with what would refute it."""
    out = []
    bad, of = outside(check)
    share = bad / max(of, 1)
    fits = f"{bad} of {of} observed shares by decile of risk lie outside 95% predictive intervals"
    law = "uniform between 0 and sigma" if unobservable == "uniform" else "normal with sd sigma"
    out.append(
        Assumption(
            "Unobservable", f"What testers see of risk beyond the columns is {law}, independent "
            "of the columns", f"{fits}; the shape itself cannot be seen", _status(share <= 0.15),
        )
    )  # fmt: skip
    weight = "an inferred weight" if alpha is None else f"weight {alpha:g}"
    out.append(
        Assumption(
            "Testing by risk", f"Log odds of testing rise with log odds of risk, with {weight}, "
            "plus what the testing columns add",
            "alpha and sigma are not identified together: fit with other values of alpha",
        )
    )  # fmt: skip
    targets = known.dropna(subset=["target"]) if len(known) else known
    if prevalences:
        z = targets["z"].abs().max()
        what = "hard, holds by construction" if math.isnan(z) else f"largest |z| {z:.2f}"
        out.append(
            Assumption(
                "Prevalence", "The prevalence given is that of the population of these rows",
                f"implied against target: {what}; what others would give stands under 'If the "
                "prevalence were'", _status(bool(z < 2)) if math.isfinite(z) else "untested",
            )
        )  # fmt: skip
    if expertise is not None:
        names = ", ".join(masked) or "no column"
        how = "exactly 0" if expertise.soft is None else f"0 within a prior sd of {expertise.soft}"
        out.append(
            Assumption(
                "Expertise", f"At equal risk testing does not depend on {names} ({how})",
                "the data cannot refute it without an instrument; soft= shows whether they pull",
            )
        )  # fmt: skip
    if not prevalences and expertise is None:
        least = min(diagnostics["contraction"].values())
        out.append(
            Assumption(
                "Form of the model", "Without a constraint, the untested are identified by the "
                "form of the model alone",
                f"least prior-to-posterior contraction {least:.0%}: near 0 the prior answers",
                "untested" if least > 0.5 else "doubtful",
            )
        )  # fmt: skip
    kind = f", weighted by {weights} (a pseudo-posterior)" if weights else ""
    out.append(
        Assumption(
            "Rows", f"Rows are independent given the columns{kind}, and the recorded outcome of a "
            "tested row is right", "not seen in the data; audit a sample of results",
        )
    )  # fmt: skip
    return tuple(out)


def _status(good: bool) -> str:
    return "supported" if good else "doubtful"
