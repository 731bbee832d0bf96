"""What the rows say about the assumptions of a Heckman model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import ndtr, owens_t

from causalrm.core.errors import IdentificationError
from causalrm.core.inference import wald
from causalrm.core.result import Assumption
from causalrm.risk import _kernels_heckman as ker
from causalrm.risk.heckman_classical import Classical
from causalrm.risk.heckman_problem import HeckmanProblem

_COLLINEAR = 20.0  # condition number from which two steps are unstable (Leung, Yu 1996)
_DOUBT = 0.01
_POINTS = 400


@dataclass(frozen=True, eq=False)
class Evidence:
    """Diagnostics of a fit, the warnings they give rise to, and the curve of the shape check."""

    diagnostics: dict[str, Any]
    excluded: tuple[str, ...]
    pit: np.ndarray
    warnings: list[str] = field(default_factory=list)

    def assumptions(
        self, sign: str, means: pd.DataFrame, expertise: bool
    ) -> tuple[Assumption, ...]:
        """What the estimates rest on, each with what was seen of it."""
        d = self.diagnostics
        shape = Assumption(
            "Shape",
            "Errors of outcome and selection are bivariate normal, with the same variance in all "
            "rows",
            f"distribution of the seen outcomes under the fit: largest deviation "
            f"{d['pit_distance']:.3f} from uniform (p = {d['pit_p_value']:.2g}, somewhat too "
            "large because parameters were estimated)",
            "doubtful" if d["pit_p_value"] < _DOUBT else "supported",
        )
        if self.excluded:
            weak = not d["exclusion_p_value"] < 0.05
            names = ", ".join(self.excluded)
            told = (
                f"they move selection: chi2({len(self.excluded)}) = {d['exclusion_chi2']:.1f}, p = "
                f"{d['exclusion_p_value']:.2g}; that they do not move the outcome is not testable"
            )
            exclusion = Assumption(
                "Exclusion", f"{names} move selection and not the outcome", told,
                "doubtful" if weak else "untested",
            )  # fmt: skip
        else:
            exclusion = Assumption(
                "Exclusion",
                "Selection is identified by the normal shape or by constraints: no term moves "
                "selection alone",
                "condition number of the outcome's columns beside the inverse Mills ratio: "
                f"{d['mills_condition_number']:.0f}",
                "doubtful" if d["mills_condition_number"] > _COLLINEAR else "untested",
            )
        out = [shape, exclusion]
        if sign != "any":
            out.append(
                Assumption(
                    "Sign of rho",
                    f"rho is {sign}",
                    f"maximum likelihood without it: rho = {d['ml_rho']:.2f}",
                    "doubtful"
                    if d["ml_rho"] * (1 if sign == "positive" else -1) < 0
                    and d["rho_p_value"] < 0.05
                    else "untested",
                )  # fmt: skip
            )
        for _, row in means.iloc[1:].iterrows():
            z = (row["ml"] - row["target"]) / math.hypot(row["se"], row["ml_std_error"])
            out.append(
                Assumption(
                    f"Known mean{row['label']}",
                    f"the mean outcome is {row['target']:.4g}",
                    f"maximum likelihood without it implies {row['ml']:.4g} (std. error "
                    f"{row['ml_std_error']:.2g}), z = {z:.1f}",
                    "untested"
                    if not math.isfinite(z)
                    else "doubtful"
                    if abs(z) > 2.6
                    else "supported",
                )  # fmt: skip
            )
        if expertise:
            p = d["expertise_p_value"]
            out.append(
                Assumption(
                    "Expertise",
                    "Terms that are not free move selection through the outcome alone",
                    f"test without it: chi2({d['expertise_df']}) = {d['expertise_chi2']:.1f}, p = "
                    f"{p:.2g}",
                    "untested" if math.isnan(p) else "doubtful" if p < _DOUBT else "supported",
                )  # fmt: skip
            )
        return tuple(out)


def look(
    problem: HeckmanProblem, ml: Classical, two_step: np.ndarray, theta: np.ndarray,
    independent: float,
) -> Evidence:  # fmt: skip
    """Collect what speaks for and against the model.

    Parameters
    ----------
    problem : HeckmanProblem
    ml : Classical
        Maximum likelihood without constraints.
    two_step, theta : ndarray of shape (k,)
        Raw coefficients: of the two-step estimate, and the posterior mean.
    independent : float
        Maximal log-likelihood at rho = 0.
    """
    model = problem.likelihood
    outcome, selection = model.terms
    p = problem.p
    x, w, y = _selected(problem)
    e, z = (y - x @ theta[:p]) / math.exp(theta[-2]), theta[-1]
    pit = np.sort(_shape(e, w @ theta[p:-2], math.tanh(z)))
    ks = stats.kstest(pit, "uniform")
    mills = ker.mills_rows(np.ascontiguousarray(w @ two_step[p:-2]))
    a = np.column_stack([x, mills])
    condition = float(np.linalg.cond(a / np.sqrt((a * a).sum(axis=0))))
    excluded = [t for t in selection if t not in outcome]
    lr = 2 * (ml.loglik - independent)
    out: dict[str, Any] = {
        "pit_distance": float(ks.statistic),
        "pit_p_value": float(ks.pvalue),
        "mills_condition_number": condition,
        "rho_lr": lr,
        "rho_p_value": float(stats.chi2.sf(max(lr, 0.0), 1)),
        "ml_rho": math.tanh(ml.theta[-1]),
        "ml_note": ml.note,
    }
    at = [p + selection.index(t) for t in excluded]
    out["exclusion_chi2"], _, out["exclusion_p_value"] = _test(ml, at, np.eye(len(theta)))
    masked = np.flatnonzero(problem.through.any(axis=1))
    if len(masked):
        v = ml.theta
        ratio, inv = math.tanh(v[-1]) * math.exp(-v[-2]), math.exp(-v[-2])
        through = problem.through[masked]
        jacobian = np.zeros((len(masked), len(v)))
        jacobian[np.arange(len(masked)), p + masked] = 1.0
        jacobian[:, :p] = -ratio * through
        mb = through @ v[:p]
        jacobian[:, -2], jacobian[:, -1] = ratio * mb, -inv * (1 - math.tanh(v[-1]) ** 2) * mb
        own = v[p + masked] - ratio * mb
        chi2, df, p_value = _wald(own, jacobian, ml)
        out |= {"expertise_chi2": chi2, "expertise_df": df, "expertise_p_value": p_value}
    said = []
    if not excluded and not len(masked) and condition > _COLLINEAR:
        said.append(
            "No term moves selection alone, and the inverse Mills ratio is almost a combination of "
            f"the outcome's columns (condition number {condition:.0f}): rho rests on the normal "
            "shape and the prior. Add a covariate of selection, or a constraint."
        )
    some = np.linspace(0, len(pit) - 1, min(len(pit), _POINTS)).astype(int)
    curve = np.column_stack([(some + 0.5) / len(pit), pit[some]])
    return Evidence(out, tuple(excluded), curve, said)


def _test(ml: Classical, at: list[int], identity: np.ndarray) -> tuple[float, float, float]:
    return _wald(ml.theta[at], identity[at], ml) if at else (math.nan, 0, math.nan)


def _wald(values: np.ndarray, jacobian: np.ndarray, ml: Classical) -> tuple[float, float, float]:
    if ml.covariance is None:
        return math.nan, len(values), math.nan
    try:
        return wald(values, jacobian @ ml.covariance @ jacobian.T)
    except IdentificationError:
        return math.nan, len(values), math.nan


def _selected(problem: HeckmanProblem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Designs and outcomes of the selected rows."""
    model = problem.likelihood
    columns = next(iter(model.rows.parts()))[1]
    seen = columns[model.selected] == 1
    block = {name: c[seen] for name, c in columns.items()}
    x, w = (
        model.predictors.unique[model.predictors.which[i]].encode(block, int(seen.sum())).T
        for i in (0, 1)
    )
    return x, w, np.asarray(block[model.outcome], dtype=float)


def _shape(e: np.ndarray, w: np.ndarray, rho: float) -> np.ndarray:
    """P(Z <= e sigma | selected), by Owen's formula for the bivariate normal integral."""
    root = math.sqrt(1 - rho * rho)
    h, k = np.where(e == 0, 1e-300, e), np.where(w == 0, 1e-300, -w)
    both = 0.5 * (ndtr(h) + ndtr(k)) - owens_t(h, (k / h - rho) / root)
    both -= owens_t(k, (h / k - rho) / root) + 0.5 * (h * k < 0)
    return np.asarray(np.clip((ndtr(h) - both) / ndtr(-k), 0.0, 1.0))
