"""A small experiment and a large log: the experiment identifies, the log lowers the variance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from causalrm.core.design import encode_new, formula_text, prepare
from causalrm.core.errors import DataError, IdentificationError
from causalrm.core.frame import check
from causalrm.core.random import RNG, resolve, spawn
from causalrm.core.result import COLUMNS, Assumption, Estimate, Result, call_of
from causalrm.deconfound.effects import EffectResult, average_effect
from causalrm.deconfound.few_clusters import Sums, wild_bootstrap
from causalrm.deconfound.learners import LINEAR, fitted, units, variances
from causalrm.deconfound.stages import near_singular

_PROGNOSIS = ("(log: mean)", "(log: effect)")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FusionResult(Result):
    """What `fuse` returns.

    Parameters
    ----------
    term : tuple of str
        "experiment" alone; "fused", valid whatever the confounding of the log; "log" alone, moved
        to the covariates of the experiment; "bias of the log", log less experiment; "pooled", the
        average of experiment and log weighted by precision, valid only without that bias.
    estimates, std_error : ndarray of shape (k,)
    df : float or None
        Degrees of freedom of the intervals.
    variance_ratio : float
        Variance of "fused" over that of "experiment".
    cluster_sums : tuple or None
        What `wild_bootstrap` needs of each cluster for "experiment" and "fused", where clusters are
        few.
    """

    term: tuple[str, ...]
    estimates: np.ndarray
    std_error: np.ndarray
    df: float | None
    variance_ratio: float
    cluster_sums: tuple[Sums | None, ...] = (None, None)

    def effect(self, level: float = 0.95, term: str = "fused") -> Estimate:
        """One of the rows of `to_frame` as a number with its interval."""
        if term not in self.term:
            raise DataError(f"Expected one of {list(self.term)}, but saw {term!r}.")
        i = self.term.index(term)
        value, error = float(self.estimates[i]), float(self.std_error[i])
        return Estimate.wald(value, error, level, term, self.df)

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return the estimates side by side, with the columns of every result frame."""
        rows = [self.effect(level, term).to_frame() for term in self.term]
        return pd.concat(rows, ignore_index=True)[COLUMNS]

    def wild_bootstrap(self, level: float = 0.95, draws: int = 9999, rng: RNG = 0) -> pd.DataFrame:
        """Tests and intervals that hold with few clusters, of "experiment" and "fused"."""
        parts = zip(self.term, self.estimates, self.cluster_sums, strict=False)
        return pd.concat(
            [wild_bootstrap((t,), np.array([e]), s, level, draws, rng) for t, e, s in parts],
            ignore_index=True,
        )

    def _fit_lines(self, level: float) -> list[tuple[str, str]]:
        gain = 1 / self.variance_ratio
        worth = f"the log is worth {gain:.2f} times the experiment's rows"
        return [("Variance", f"{self.variance_ratio:.3f} of the experiment's; {worth}")]


def fuse(
    experiment: Any,
    log: Any,
    *,
    outcome: str,
    treatment: str,
    covariates: str | Sequence[str],
    propensity: str | None = None,
    nuisance: Any = None,
    cluster: str | None = None,
    rng: RNG = 0,
) -> FusionResult:
    r"""Average effect in an experiment, made more precise by a log that may be confounded.

    The log gives predictions of the outcome under both treatments. In the experiment they are
    covariates of a regression with interactions: chance alone makes them differ between the arms,
    so that the estimate is consistent whatever they are, and the better they predict, the less
    noise is left.

    Parameters
    ----------
    experiment : data frame
        Rows whose treatment was randomised.
    log : data frame
        Rows of the same columns; a log of one treatment only will do.
    outcome, treatment : str
        Numeric; the treatment is 0/1.
    covariates : str or list of str
        Formula or columns in both.
    propensity : str, optional
        Column of the experiment with the probability of treatment 1, where it differs by row.
    nuisance : scikit-learn regressor, optional
        Predicts the outcome in each arm of the log; least squares by default.
    cluster : str, optional
        Clusters of the experiment. With fewer than 30 read ``wild_bootstrap()``.
    rng : None, int, SeedSequence or Generator
        Seeds the learner.

    Returns
    -------
    FusionResult

    Raises
    ------
    DataError
    IdentificationError
        When the experiment lacks an arm, or log and experiment share no treatment.

    Notes
    -----
    The predictions come from other rows than the experiment's, so they count as fixed covariates.
    Adjusting with interactions does not raise the variance in large samples; the HC2 covariance is
    used, or the clustered one.

    What a confounded log says about the effect itself cannot be used without an assumption. Its own
    estimate (least squares with interactions, moved to the experiment's covariates) is therefore
    shown apart, with its difference from the experiment and the average that would be right if that
    were 0. Not seeing a difference does not make it 0: prefer "fused".

    References
    ----------
    Lin (2013), Agnostic notes on regression adjustments to experimental data, Annals of Applied
    Statistics 7(1), 295-318, doi 10.1214/12-AOAS583. Schuler, Walsh, Hall, Walsh, Fisher (2022),
    Increasing the efficiency of randomized trial estimates via linear adjustment for a prognostic
    score, International Journal of Biostatistics 18(2), 329-356, doi 10.1515/ijb-2021-0072.
    Gagnon-Bartsch, Sales, Wu, Botelho, Erickson, Miratrix, Heffernan (2023), Precise unbiased
    estimation in randomized experiments using auxiliary observational data, Journal of Causal
    Inference 11(1), 20220011, doi 10.1515/jci-2022-0011.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from causalrm.deconfound import fuse
    >>> rng = np.random.default_rng(0)
    >>> def rows(n, randomised):
    ...     x, hidden = rng.normal(size=(2, n))
    ...     on = (rng.random(n) < 0.5) if randomised else (x + hidden + rng.normal(size=n) > 0)
    ...     clicks = on + 2 * x + hidden + rng.normal(size=n)
    ...     return pd.DataFrame({"clicks": clicks, "on": on.astype(int), "x": x})
    >>> roles = {"outcome": "clicks", "treatment": "on", "covariates": ["x"]}
    >>> found = fuse(rows(300, True), rows(20_000, False), **roles)
    >>> found.to_frame().round(2)[["term", "estimate", "std_error"]]
                  term  estimate  std_error
    0       experiment      1.15       0.28
    1            fused      0.93       0.16
    2              log      2.23       0.02
    3  bias of the log      1.30       0.16
    4           pooled      2.21       0.02
    """
    text = formula_text(covariates, "covariates")
    _, entropy = resolve(rng)
    zero_one = lambda d: (d != 0) & (d != 1)  # noqa: E731
    remedy = "Code the treatment as 0/1."
    _, logged, designs, _ = prepare(log, {"covariates": text}, numbers=[outcome, treatment])
    check(logged, [treatment], zero_one, "0 or 1 in the log", remedy)
    more = [propensity] if propensity else []
    _, rows = encode_new(experiment, designs.values(), [outcome, treatment, *more])
    check(rows, [treatment], zero_one, "0 or 1 in the experiment", remedy)
    design = designs["covariates"]
    old, new = logged.collect(), rows.columns
    x, z = (design.slopes(c, p.n_obs).T for c, p in ((old, logged), (new, rows)))
    d, y = np.asarray(old[treatment]), np.asarray(old[outcome], dtype=float)
    learner = LINEAR if nuisance is None else nuisance
    arms = [a for a in (0, 1) if (d == a).any()]
    children = spawn(rng, 2)
    messages: list[str] = []
    with near_singular(messages):
        predicted = [fitted(learner, x, y, d == a, children[a], None)(z) for a in arms]
    table = {name: np.asarray(new[name]) for name in (outcome, treatment)}
    mean = np.mean(predicted, axis=0)
    used = [_PROGNOSIS[0]]
    if not np.ptp(mean) > 1e-9 * np.std(y):
        raise IdentificationError(
            "Expected covariates by which the log predicts different outcomes, but its prediction "
            "is the same for all rows of the experiment. Give other covariates."
        )
    table[_PROGNOSIS[0]] = mean = (mean - mean.mean()) / mean.std()
    if len(arms) == 2:  # what the effect adds to the mean, in units of its own
        change = predicted[1] - predicted[0]
        change = change - change.mean() - mean * float(mean @ change) / len(mean)
        if change.std() > 1e-6 * np.std(y):
            table[_PROGNOSIS[1]] = change / change.std()
            used.append(_PROGNOSIS[1])
    frame = pd.DataFrame(table)
    roles: dict[str, Any] = {"outcome": outcome, "treatment": treatment, "covariance": "HC2"}
    if propensity:
        check(
            rows, [propensity], lambda p: (p <= 0) | (p >= 1), "probabilities between 0 and 1",
            "Rows that could have one treatment only are no experiment.",
        )  # fmt: skip
        p = np.asarray(new[propensity], dtype=float)
        frame["(weight)"] = np.where(frame[treatment] == 1, 1 / p, 1 / (1 - p))
        roles["weights"] = "(weight)"
    if cluster:
        _, by, _, _ = prepare(experiment, {}, categories=[cluster])
        frame[cluster] = by.collect()[cluster]
        roles |= {"cluster": cluster, "covariance": "cluster"}
    alone = average_effect(frame, **roles, method="difference")
    fused = average_effect(frame, **roles, method="regression", covariates=used,
                           interact=used)  # fmt: skip
    terms, values, errors = ["experiment", "fused"], [alone.estimate, fused.estimate], [
        alone.std_error, fused.std_error
    ]  # fmt: skip
    status, seen = "untested", "not testable: the log has one treatment only"
    if len(arms) == 2:
        value, error = _of_log(x, y, d, z)
        gap, spread = value - fused.estimate, float(np.hypot(error, fused.std_error))
        share = (1 / error**2) / (1 / error**2 + 1 / fused.std_error**2)
        terms += ["log", "bias of the log", "pooled"]
        values += [value, gap, share * value + (1 - share) * fused.estimate]
        errors += [error, spread, float((1 / error**2 + 1 / fused.std_error**2) ** -0.5)]
        status = "doubtful" if abs(gap) > 2 * spread else "untested"
        seen = f"log less experiment is {gap:.4g} (standard error {spread:.3g})"
    ratio = (fused.std_error / alone.std_error) ** 2
    options = {"nuisance": None if nuisance is None else str(nuisance), "rng": entropy}
    columns: dict[str, Any] = {"outcome": outcome, "treatment": treatment, "covariates": text}
    columns |= {"propensity": propensity, "cluster": cluster}
    return FusionResult(
        call=call_of("fuse", options, columns),
        n_obs=rows.n_obs,
        entropy=entropy,
        assumptions=_assumptions(treatment, fused, status, seen),
        diagnostics={
            "n_log": logged.n_obs,
            "arms_in_log": arms,
            "r2_of_log": _r2(frame, used, treatment, outcome),
        },
        warnings=tuple(dict.fromkeys([*messages, *alone.warnings, *fused.warnings])),
        term=tuple(terms),
        estimates=np.array(values),
        std_error=np.array(errors),
        df=None if fused.n_clusters is None else fused.n_clusters - 1.0,
        variance_ratio=float(ratio),
        cluster_sums=(alone.cluster_sums, fused.cluster_sums),
    )


def _of_log(x: np.ndarray, y: np.ndarray, d: np.ndarray, z: np.ndarray) -> tuple[float, float]:
    """The log's effect at the experiment's covariates, by least squares in each arm."""
    middle, unit = units(x)
    x, z = (x - middle) / unit, (z - middle) / unit
    one = np.column_stack([np.ones(len(z)), z])
    mean = one.mean(axis=0)
    effect, change, variance = 0.0, np.zeros(len(mean)), 0.0
    for a, sign in ((0, -1.0), (1, 1.0)):
        part = np.column_stack([np.ones(int((d == a).sum())), x[d == a]])
        beta = np.linalg.lstsq(part, y[d == a], rcond=None)[0]
        row = part @ np.linalg.lstsq(part.T @ part, mean, rcond=None)[0]
        influence = row * (y[d == a] - part @ beta)
        variance += float(variances(influence[None, :], None, None)["robust"][0, 0])
        effect += sign * float(mean @ beta)
        change += sign * beta
    spread = float(np.var(one @ change, ddof=1)) / len(z)
    return effect, float(np.sqrt(variance + spread))


def _r2(frame: pd.DataFrame, used: Sequence[str], treatment: str, outcome: str) -> list[float]:
    """Share of the outcome's variance in each arm that the log's predictions explain."""
    found = []
    for _, arm in frame.groupby(treatment):
        x = np.column_stack([np.ones(len(arm)), arm[list(used)]])
        y = arm[outcome].to_numpy(dtype=float)
        left = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
        found.append(float(1 - left @ left / max(float(((y - y.mean()) ** 2).sum()), 1e-300)))
    return found


def _assumptions(
    treatment: str, fused: EffectResult, status: str, seen: str
) -> tuple[Assumption, ...]:
    return (
        Assumption(
            "randomised experiment",
            f"{treatment} was assigned by chance in the experiment",
            "compare the covariates of its arms",
        ),
        Assumption(
            "separate rows",
            "no row of the experiment is in the log",
            "not tested; drop the experiment's period or users from the log",
        ),
        Assumption(
            "unconfounded log ('pooled' only)",
            "the log's own effect is that of the experiment",
            seen,
            status,
        ),
        Assumption(
            "no interference", f"the {treatment} of one row changes its own outcome", "none"
        ),
    )
