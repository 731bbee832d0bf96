"""The conditional logit: what alternatives' attributes are worth to those who choose."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from causalrm.attribution._run import shares
from causalrm.attribution.result import effects
from causalrm.core import inference
from causalrm.core.errors import CausalRMWarning, DataError, IdentificationError, warn
from causalrm.core.frame import Source, scan
from causalrm.core.result import Assumption, LikelihoodResult

_SEPARATED = (
    "The likelihood has no maximum: some attributes predict every choice. Add sets, or leave "
    "attributes out."
)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ChoiceResult(LikelihoodResult):
    """A conditional logit.

    Parameters
    ----------
    cost : str or None
        The attribute that utilities are measured in.
    loglik_null : float
        Log-likelihood when all alternatives of an occasion are equally likely.
    n_alternatives : int
        Rows; `n_obs` counts occasions.
    outcomes : DataFrame
        What came back, where a model was asked: outcome, count, share.
    """

    cost: str | None
    loglik_null: float
    n_alternatives: int
    outcomes: pd.DataFrame

    def willingness_to_pay(self, level: float = 0.95) -> pd.DataFrame:
        """Cost that a unit of each attribute is worth, by the delta method.

        Returns
        -------
        DataFrame
            The columns of every result frame; minus the ratio of two coefficients.
        """
        if self.cost is None:
            raise DataError("Willingness to pay needs the cost attribute: give cost='price'.")
        at = self.term.index(self.cost)
        b, v = self.estimates, self._covariance()
        if abs(b[at]) < 3.0 * math.sqrt(v[at, at]):
            warn(
                f"The coefficient of {self.cost!r} is {b[at]:.3g} with standard error "
                f"{math.sqrt(v[at, at]):.2g}: so near zero a ratio to it is far from normal, and "
                "the delta method is unreliable.", CausalRMWarning,
            )  # fmt: skip
        others = [i for i in range(len(b)) if i != at]
        jacobian = np.zeros((len(others), len(b)))
        jacobian[np.arange(len(others)), others] = -1.0 / b[at]
        jacobian[:, at] = b[others] / b[at] ** 2
        estimate = -b[others] / b[at]
        se = inference.delta_std_error(jacobian, v)
        return effects([self.term[i] for i in others], estimate, se, level)

    def _fit_lines(self, level: float) -> list[tuple[str, str]]:
        lines = [
            ("Alternatives", f"{self.n_alternatives:,} in {self.n_obs:,} occasions"),
            ("McFadden R2", f"{1.0 - self.loglik / self.loglik_null:.3f}"),
        ]
        return [*super()._fit_lines(level), *lines]


def conditional_logit(
    data: Any,
    *,
    occasion: str,
    chosen: str,
    attributes: Sequence[str],
    cost: str | None = None,
) -> ChoiceResult:
    """Fit a conditional logit to choices, by statsmodels.

    Parameters
    ----------
    data : data frame
        One row per alternative of each occasion.
    occasion : str
        Column that says which rows were to be chosen from together.
    chosen : str
        Column with 1 for the one alternative taken, 0 for the others.
    attributes : sequence of str
        Columns that explain the choice; text becomes indicators, the first level (in sorted
        order, or that of a categorical) is the reference. They must vary within occasions.
    cost : str, optional
        One of them, for the willingness to pay.

    Returns
    -------
    ChoiceResult

    References
    ----------
    McFadden (1974), in Zarembka (ed.), Frontiers in Econometrics, 105-142.

    Examples
    --------
    >>> import statsmodels.api as sm
    >>> travel = sm.datasets.modechoice.load_pandas().data  # 210 people, four modes each
    >>> fit = conditional_logit(travel, occasion="individual", chosen="choice",
    ...                         attributes=["invc", "invt", "ttme"], cost="invc")
    >>> fit.n_obs
    210
    """
    from statsmodels.discrete.conditional_models import ConditionalLogit

    attributes = list(attributes)
    source = Source(data)
    if source.kind != "memory":
        raise DataError("Expected choices held in memory. Give a pandas, polars or pyarrow frame.")
    reader, rows = scan(source, numbers=[chosen], either=attributes, categories=[occasion])
    known = {column.name: column.levels for column in reader.columns}
    occasions = known[occasion] or ()
    y, codes = rows.columns[chosen].astype(float), rows.columns[occasion]
    sizes = np.bincount(codes)
    bad = np.flatnonzero((np.bincount(codes, y) != 1) | (sizes < 2))
    if len(bad) or not np.isin(y, (0.0, 1.0)).all():
        raise DataError(
            f"Every occasion needs two or more alternatives and exactly one {chosen!r} of 1, "
            f"0 elsewhere; {len(bad)} of {len(occasions)} differ, the first "
            f"{[occasions[i] for i in bad[:3]]}. Correct or drop them, all their rows."
        )
    columns: dict[str, np.ndarray] = {}
    for name in attributes:
        if (levels := known[name]) is None:
            columns[name] = rows.columns[name].astype(float)
        else:
            columns |= {
                f"{name}_{level}": (rows.columns[name] == j) * 1.0
                for j, level in enumerate(levels)
                if j
            }
    if not columns:
        raise IdentificationError(
            f"Expected attributes that vary, but {attributes} have one level each. Add others."
        )
    X = pd.DataFrame(columns)
    within = X - X.groupby(codes).transform("mean")
    rank = np.linalg.matrix_rank(within / np.maximum(within.abs().max(), 1e-300))
    if flat := [c for c in X if within[c].abs().max() <= 1e-12 * X[c].abs().max()]:
        raise IdentificationError(
            f"{flat[0]!r} is the same for all alternatives of every occasion, so that choices say "
            "nothing about it. Remove it, or let it interact with an alternative."
        )
    if rank < X.shape[1]:
        raise IdentificationError(
            f"Within occasions the attributes {list(X)} have rank {rank}: some are sums of others. "
            "Remove these."
        )
    if cost is not None and cost not in X:
        raise DataError(f"cost must be one of the numeric attributes {list(X)}; got {cost!r}.")
    scale = within.std(ddof=0).to_numpy()
    unit = within.to_numpy() / scale  # what alternatives of an occasion share cancels
    model = ConditionalLogit(y, unit, groups=codes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # convergence is judged by the score below
        try:
            fit = model.fit(disp=False, method="bfgs", maxiter=200)
        except ValueError as error:  # it asks for a covariance, and there is none
            raise IdentificationError(_SEPARATED) from error
    b = np.asarray(fit.params)
    for _ in range(3):  # Newton: its steps are digits that BFGS leaves open
        information = _information(unit, codes, b)
        step = np.linalg.lstsq(information, np.asarray(model.score(b)), rcond=None)[0]
        b = b + step
    if not np.isfinite(b).all() or np.abs(step).max() > 1e-6 or np.abs(b).max() > 30.0:
        raise IdentificationError(_SEPARATED)
    covariance = inference.invert_information(information, [str(c) for c in X]) / np.outer(
        scale, scale
    )
    call = {
        "estimator": "conditional_logit",
        "options": {"cost": cost},
        "roles": {"occasion": occasion, "chosen": chosen, "attributes": attributes},
    }
    return ChoiceResult(
        call=call,
        n_obs=len(occasions),
        assumptions=(
            Assumption(
                "Independence of irrelevant alternatives",
                "The odds of two alternatives do not depend on the others that are offered",
                "compare fits on occasions with and without an alternative",
            ),
            Assumption(
                "One taste",
                "All who choose weigh attributes alike, and occasions are independent",
                "compare fits by person, prompt or order of the options",
            ),
        ),
        parameter=("utility",) * X.shape[1],
        term=tuple(X.columns),
        estimates=b / scale,
        covariances={"model": covariance},
        covariance="model",
        loglik=float(model.loglike(b)),
        n_params=X.shape[1],
        cost=cost,
        loglik_null=-float(np.log(sizes).sum()),
        n_alternatives=len(data),
        outcomes=shares(pd.Series({"chosen": len(occasions)})),
    )


def _information(X: np.ndarray, codes: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Fisher information of a conditional logit."""
    u = X @ b
    p = np.exp(u - u.max())
    p /= np.bincount(codes, p)[codes]
    means = np.stack([np.bincount(codes, p * x) for x in X.T], axis=1)
    return np.asarray((X * p[:, None]).T @ X - means.T @ means)


def compare_choices(model: ChoiceResult, people: ChoiceResult, level: float = 0.95) -> pd.DataFrame:
    """Set the tastes of a model beside those of people.

    Parameters
    ----------
    model, people : ChoiceResult
        With the same attributes; with a cost also their willingness to pay, which does not
        depend on how noisy each is, as coefficients do.
    level : float

    Returns
    -------
    DataFrame
        ``group`` ("coefficient" or "willingness to pay"), ``term``, the difference model minus
        people in the columns of every result frame, and both estimates.
    """
    if model.term != people.term:
        raise DataError(f"Attributes must agree; got {model.term} and {people.term}.")
    pairs = [("coefficient", model.to_frame(level), people.to_frame(level))]
    if model.cost is not None and model.cost == people.cost:
        a, b = model.willingness_to_pay(level), people.willingness_to_pay(level)
        pairs.append(("willingness to pay", a, b))
    frames = []
    for name, a, b in pairs:
        estimate = (a["estimate"] - b["estimate"]).to_numpy()
        se = np.hypot(a["std_error"].to_numpy(), b["std_error"].to_numpy())
        frame = effects(a["term"].tolist(), estimate, se, level)
        frame.insert(0, "group", name)
        frame["model"], frame["people"] = a["estimate"], b["estimate"]
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)
