"""What would be done without a model of testing, beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from causalrm.core.errors import DataError
from causalrm.core.inference import invert_information, two_sided_p
from causalrm.core.result import COLUMNS, Assumption, Result, quantile
from causalrm.core.table import Table, section
from causalrm.risk.predict import Draws, NewRows, mean_of
from causalrm.risk.result import RiskResult
from causalrm.risk.separation import logistic

MODEL, TESTED, NEGATIVE = "selective labels", "tested only", "untested as negative"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class BaselineResult(Result):
    """Coefficients and performance of the model and of two shortcuts.

    Besides the fields of every result:

    Parameters
    ----------
    table : pandas.DataFrame
        Coefficients of the two logistic regressions: group, term, estimate, std_error.
    model : RiskResult
        Result of the model.
    metrics : pandas.DataFrame
        Columns rows ("tested", and with the truth "untested" and "all"), model, n, auc, brier,
        o_e (observed over expected) and slope (of calibration).
    """

    table: pd.DataFrame
    model: RiskResult
    metrics: pd.DataFrame = field(default_factory=pd.DataFrame)

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return the coefficients of risk of all three, with Wald intervals for the shortcuts."""
        q = quantile(level)
        own = self.model.to_frame(level).query("parameter == 'risk'")
        frame = self.table.copy()
        frame["statistic"] = frame["estimate"] / frame["std_error"]
        frame["p_value"] = two_sided_p(frame["statistic"].to_numpy())
        frame["conf_low"] = frame["estimate"] - q * frame["std_error"]
        frame["conf_high"] = frame["estimate"] + q * frame["std_error"]
        first = own[COLUMNS].assign(group=MODEL)[["group", *COLUMNS]]
        frame = frame[["group", *COLUMNS]]
        both = [part.astype({c: float for c in COLUMNS[1:]}) for part in (first, frame)]
        return pd.concat(both, ignore_index=True)

    def summary(self, level: float = 0.95) -> Table:
        """Return the coefficients side by side with the measures of performance."""
        table = super().summary(level)
        own = section(self.metrics, "Where outcomes are known", level)
        return Table("Baselines", (*table.sections[:2], own, *table.sections[2:]), table.notes)


def compare(
    result: RiskResult, rows: NewRows, tested: np.ndarray, y: np.ndarray, truth: np.ndarray | None
) -> BaselineResult:
    """Fit both shortcuts to the rows; see `SelectiveLabelsModel.baselines`."""
    x, terms = rows.x, result.risk_design.terms
    naive = np.where(tested, np.nan_to_num(y), 0.0)
    fits, frames = {}, []
    for name, use, outcome in ((TESTED, tested, y), (NEGATIVE, np.ones(len(y), bool), naive)):
        found = logistic(x[use], outcome[use], np.ones(int(use.sum())))
        fits[name] = 1.0 / (1.0 + np.exp(-(x @ found.theta)))
        se = np.sqrt(np.diag(invert_information(-found.hessian, terms)))
        frame = pd.DataFrame({"term": terms, "estimate": found.theta, "std_error": se})
        frames.append(frame.assign(group=name))
    draws = Draws.of(result)
    marginal = mean_of(rows, draws, "risk")
    pools = [("tested", tested, y, mean_of(rows, draws, "risk_tested"))]
    if truth is not None:
        pools.append(("untested", ~tested, truth, mean_of(rows, draws, "risk_untested")))
        pools.append(("all", np.ones(len(y), bool), truth, marginal))
    metrics = [
        {"rows": label, "model": name, "n": int(use.sum())} | performance(outcome[use], p[use])
        for label, use, outcome, own in pools
        for name, p in ((MODEL, own), *fits.items())
    ]
    return BaselineResult(
        call=dict(result.call), n_obs=len(y), model=result, table=pd.concat(frames),
        metrics=pd.DataFrame(metrics),
        assumptions=(
            Assumption(
                "Tested only", "The tested are like the untested with the same columns",
                f"implied prevalence {marginal.mean():.3g} against {fits[TESTED].mean():.3g} "
                "by the tested alone",
            ),
            Assumption(
                "Untested as negative", "No untested row would have been positive",
                f"implied prevalence {marginal.mean():.3g} against {naive.mean():.3g} found",
            ),
        ),
    )  # fmt: skip


def performance(y: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """AUC, Brier score, observed over expected, and slope of y on the logit of p."""
    from sklearn.metrics import roc_auc_score

    if not 0 < y.sum() < len(y):
        raise DataError(
            f"Expected outcomes of both kinds to measure performance, but {int(y.sum())} of "
            f"{len(y)} are positive. Give more rows."
        )
    p = np.clip(p, 1e-12, 1 - 1e-12)
    logit = np.log(p) - np.log1p(-p)
    slope = math.nan
    if np.ptp(logit) > 1e-8:
        x = np.column_stack([np.ones(len(y)), logit])
        slope = float(logistic(x, y, np.ones(len(y))).theta[1])
    return {
        "auc": float(roc_auc_score(y, p)), "brier": float(np.mean((y - p) ** 2)),
        "o_e": float(y.mean() / p.mean()), "slope": slope,
    }  # fmt: skip
