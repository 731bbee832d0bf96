"""Who is tested less or more than others at equal risk, and what a rule by risk would find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from causalrm.core.errors import DataError
from causalrm.core.result import COLUMNS, Assumption
from causalrm.risk import _kernels as ker
from causalrm.risk.predict import Block, Draws, NewRows, mean_of
from causalrm.risk.result import PosteriorResult, RiskResult

if TYPE_CHECKING:
    from causalrm.risk.plots import AuditPlots

TERMS = ("test rate", "rate at equal risk", "difference", "log odds at equal risk")
ALL = "all"
_STEPS, _TOL = 50, 1e-10


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RiskAudit(PosteriorResult):
    """Result of `SelectiveLabelsModel.audit`.

    Besides the fields of `PosteriorResult`, whose `parameter` is the group here:

    Parameters
    ----------
    by : str
        Column of groups.
    groups : pandas.DataFrame
        Rows, tests and positive tests by group, and tests if those at highest predicted risk had
        got them.
    """

    by: str = ""
    groups: pd.DataFrame = field(default_factory=pd.DataFrame)

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return group by group the rate of testing, that at equal risk, and their difference.

        Returns
        -------
        pandas.DataFrame
            `group, term, estimate, std_error, statistic, p_value, conf_low, conf_high, verdict`.
            The difference is below 0 for a group that is tested less than others at equal risk;
            "under-tested" and "over-tested" mean that its interval excludes 0. The last rows,
            of the group "all", are positive tests found: now, by the same number of tests given
            to those at highest predicted risk, and the difference.
        """
        frame = super().to_frame(level)[["parameter", "term", *COLUMNS[1:]]]
        frame = frame.rename(columns={"parameter": "group"})
        own = (frame["term"] == "difference") & (frame["group"] != ALL)
        verdict = np.where(frame["conf_high"] < 0, "under-tested", "no evidence")
        verdict = np.where(frame["conf_low"] > 0, "over-tested", verdict)
        return frame.assign(verdict=np.where(own, verdict, ""))

    def _fit_lines(self, level: float) -> list[tuple[str, str]]:
        return [
            (
                f"{self.by} = {row['group']}",
                f"{row['tested']:,} of {row['rows']:,} tested ({row['tested'] / row['rows']:.1%}), "
                f"{row['positive']:,} positive; {row['tested_by_risk']:,} tests by risk",
            )
            for _, row in self.groups.iterrows()
        ]

    @property
    def plot(self) -> AuditPlots:
        """Plots of the audit: ``plot()``."""
        from causalrm.risk.plots import AuditPlots

        return AuditPlots(self)


def audit(
    result: RiskResult,
    rows: NewRows,
    tested: np.ndarray,
    y: np.ndarray,
    by: str,
    codes: np.ndarray,
    levels: Sequence[Any],
    n_draws: int,
) -> RiskAudit:
    """Compare groups; see `SelectiveLabelsModel.audit`."""
    if n_draws < 2:
        raise DataError(f"Expected at least 2 draws for an audit, but saw {n_draws!r}. Give more.")
    draws = Draws.of(result).thin(int(n_draws))
    n, groups, tests = len(rows), len(levels), int(tested.sum())
    size = np.bincount(codes, minlength=groups)
    risk = mean_of(rows, draws, "risk")
    chosen = np.zeros(n, dtype=bool)
    chosen[np.argsort(-risk, kind="stable")[:tests]] = True

    def by_group(values: np.ndarray) -> np.ndarray:
        return np.bincount(codes, values, groups) / size

    block = Block(rows.x, rows.w, rows.decider)
    out = np.empty((len(draws), 4 * groups + 3))
    c = None
    for i in range(len(draws)):
        one = Draws(
            draws.risk[i : i + 1], draws.testing[i : i + 1], draws.sigma[i : i + 1],
            draws.alpha[i : i + 1], draws.decider[i : i + 1], None, draws.law,
        )  # fmt: skip
        a, d = (v[0] for v in block.predictors(one))
        s, alpha = float(one.sigma[0]), float(one.alpha[0])
        now = -np.expm1(_log_untested(a, d, s, alpha, draws.law)[0])
        c = _constant(a, s, alpha, draws.law, float(now.sum()), float(d.mean()) if c is None else c)
        equal = -np.expm1(_log_untested(a, np.full(n, c), s, alpha, draws.law)[0])
        found = ker.values(np.full(n, ker.POSITIVE, np.int8), a, d, s, alpha, draws.law)
        cases = float(np.exp(found).sum())
        by_risk = float(ker.risk(a, s, draws.law)[0][chosen].sum())
        parts = (by_group(now), by_group(equal), by_group(now - equal), by_group(d) - c)
        out[i] = [*np.column_stack(parts).ravel(), cases, by_risk, by_risk - cases]
    labels = [(str(level), term) for level in levels for term in TERMS]
    labels += [(ALL, t) for t in ("found now", "found by risk", "difference")]
    positive = tested & (y == 1)
    table = pd.DataFrame(
        {
            "group": [str(level) for level in levels], "rows": size,
            "tested": np.bincount(codes[tested], minlength=groups),
            "positive": np.bincount(codes[positive], minlength=groups),
            "tested_by_risk": np.bincount(codes[chosen], minlength=groups),
        }
    )  # fmt: skip
    same = float(draws.normalised @ out[:, -3])
    return RiskAudit(
        call={"estimator": "SelectiveLabelsModel", "options": dict(result.call["options"]),
              "roles": dict(result.call["roles"]) | {"by": by}},
        n_obs=n, entropy=result.entropy, parameter=tuple(p for p, _ in labels),
        term=tuple(t for _, t in labels), draws=out, weights=draws.weights, method=result.method,
        ess_bulk=np.full(len(labels), np.nan), r_hat=np.full(len(labels), np.nan), by=by,
        groups=table, diagnostics={"positive": int(positive.sum()), "expected": same},
        assumptions=(
            Assumption(
                "Equal risk", "At equal risk, testing differs between groups only through the "
                f"columns of the testing formula; a group is compared by {by!r}",
                f"tests found {int(positive.sum()):,} positive, the model expects {same:,.0f}",
            ),
            *result.assumptions,
        ),
    )  # fmt: skip


def _log_untested(
    a: np.ndarray, d: np.ndarray, s: float, alpha: float, law: str
) -> tuple[np.ndarray, np.ndarray]:
    """Log P(T = 0) and its derivative in d."""
    code = np.full(len(a), ker.UNTESTED, dtype=np.int8)
    found = ker.derivatives(code, a, d, s, alpha, law, second=False)
    return found[0], found[2]


def _constant(a: np.ndarray, s: float, alpha: float, law: str, total: float, start: float) -> float:
    """Constant log odds of testing beyond risk that give the same expected number of tests."""
    low, high, c = -np.inf, np.inf, start
    for _ in range(_STEPS):
        log_p, slope = _log_untested(a, np.full(len(a), c), s, alpha, law)
        gap = float(-np.expm1(log_p).sum()) - total
        if gap > 0:
            high = c
        else:
            low = c
        step = gap / max(float(-(np.exp(log_p) * slope).sum()), 1e-300)
        if abs(gap) < _TOL * max(total, 1.0):
            break
        c -= float(np.clip(step, -3.0, 3.0))
        if not low < c < high:
            c = 0.5 * (low + high)
    return c
