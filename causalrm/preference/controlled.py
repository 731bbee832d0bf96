"""Win rates against a baseline, with length or style held equal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from causalrm.core.errors import DataError, IdentificationError
from causalrm.core.frame import Source, check, check_weights, scan
from causalrm.core.inference import by_cluster
from causalrm.core.result import Assumption, LikelihoodResult, Scale, call_of
from causalrm.preference.differences import fit_differences

_FORMS = ("tanh", "linear")
_SHOWN = ("estimate", "std_error", "conf_low", "conf_high")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ControlledWinRate(LikelihoodResult):
    """A win rate with differences in length or style held at zero.

    The parameter "win_rate" is in percent, with an interval that is symmetric in log-odds;
    "logit" has the coefficients of the log-odds.

    Parameters
    ----------
    raw : dict
        The plain win rate in percent (`win_rate`), its `std_error`, and `naive_std_error`: that of
        the mean fitted probability of the instructions, the coefficients taken as known.
    """

    raw: Mapping[str, float]

    def _scales(self) -> dict[str, Scale]:
        return {
            "win_rate": Scale(
                lambda t: 100.0 * float(special.expit(t)),
                lambda t: 100.0 * float(special.expit(t) * special.expit(-t)),
            )
        }

    @property
    def win_rate(self) -> float:
        """The controlled win rate in percent."""
        return float(self.to_frame()["estimate"].iloc[0])

    def _fit_lines(self, level: float) -> list[tuple[str, str]]:
        r = self.raw
        return [
            *super()._fit_lines(level),
            ("Plain win rate", f"{r['win_rate']:.2f} % (std. error {r['std_error']:.2f})"),
            ("Std. error, given the coefficients", f"{r['naive_std_error']:.2f}"),
        ]


def controlled_win_rate(
    data: Any,
    *,
    outcome: str,
    controls: str | Sequence[str],
    model: str | None = None,
    difficulty: str | None = None,
    cluster: str | None = None,
    weights: str | None = None,
    form: str = "tanh",
    at: str = "zero",
    penalty: float | None = None,
) -> Any:
    r"""Win rate of a model against a baseline, as if both answers were alike in length or style.

    The log-odds of a win are
    :math:`\theta + \sum_j \phi_j f(d_j / \mathrm{sd}(d_j)) + \psi\,g`, with d the model's value
    less the baseline's and g the difficulty of the instruction, centred at its mean. The
    controlled win rate is :math:`100\,s(\theta)`, s the logistic function.

    Standard errors are by the delta method from the sandwich covariance of the coefficients, so
    that they contain the error of estimating them and the noise of the votes. Averages of fitted
    probabilities over the instructions at hand, as leaderboards report, treat the coefficients as
    known and show much smaller ones.

    Parameters
    ----------
    data : data frame
        One row per comparison with the baseline.
    outcome : str
        Column of 1 where the model wins, 0 where the baseline does, and values between for
        ties and for weighted preferences.
    controls : str or list of str
        Columns of differences, model less baseline, such as of length.
    model : str, optional
        Column of the model, where there are several: each is fitted by itself.
    difficulty : str, optional
        Column with a number for how hard the instruction is for the baseline.
    cluster : str, optional
        Column that labels dependent rows, such as the instruction where it was judged repeatedly.
    weights : str, optional
        Column of sampling weights. Rows of weight 0 are left out.
    form : {"tanh", "linear"}, default "tanh"
        Function f of the scaled differences; the hyperbolic tangent levels off at long answers.
    at : {"zero", "average"}, default "zero"
        "zero" is the rate at an instruction of average difficulty; "average" is the mean of the
        rates over all instructions, which differs only with `difficulty`.
    penalty : float, optional
        Ridge on the coefficients of controls and difficulty, on the scale of the summed
        log-likelihood. Without one, controls that separate wins from losses are an error.

    Returns
    -------
    ControlledWinRate, or pandas.DataFrame with `model`
        The frame has one row per model, by falling rate: `model, estimate, std_error, conf_low,
        conf_high` in percent, `win_rate` and `win_rate_std_error` (plain), `naive_std_error`
        (coefficients taken as known: nothing but difficulties vary), `n`, and `note`: a model
        that always wins or loses, or whose controls separate its wins, has no estimate and says
        so there.

    Raises
    ------
    DataError
        When a column is missing, incomplete or out of range.
    IdentificationError
        For a single model: when the outcomes are all alike, or separated by the controls, or a
        control does not vary.

    References
    ----------
    Dubois, Galambosi, Liang, Hashimoto (2024). Length-controlled AlpacaEval: a simple way to
    debias automatic evaluators. arXiv:2404.04475.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> longer = rng.normal(300, 200, 800)  # simulated: judges like long answers
    >>> won = rng.uniform(size=800) < 1 / (1 + np.exp(-0.2 - np.tanh(longer / 200)))
    >>> votes = pd.DataFrame({"won": won, "longer": longer})
    >>> rate = controlled_win_rate(votes, outcome="won", controls="longer")
    >>> float(votes["won"].mean().round(3)), round(rate.win_rate, 1)
    (0.708, 61.4)
    """
    names = [controls] if isinstance(controls, str) else list(controls)
    if not names or form not in _FORMS or at not in ("zero", "average"):
        raise DataError(
            f"Expected controls to name columns, form to be one of {_FORMS} and at to be 'zero' or "
            f"'average', but saw {controls!r}, {form!r} and {at!r}."
        )
    source = Source(data)
    numbers = [outcome, *names, *(c for c in (difficulty, weights) if c is not None)]
    reader, rows = scan(source, numbers, categories=[c for c in (model, cluster) if c is not None])
    check(
        rows, [outcome], lambda y: (y < 0) | (y > 1),
        "outcomes from 0 (the baseline wins) to 1", "Recode the column.", source.index,
    )  # fmt: skip
    if weights is not None:
        check_weights(rows, weights, source.index)
    columns = rows.collect()
    if weights is not None:  # rows without weight say nothing, not even of the scale of a control
        used = columns[weights] > 0
        columns = {name: c[used] for name, c in columns.items()}
    roles = (outcome, names, difficulty, cluster, weights)
    labels = ("outcome", "controls", "difficulty", "cluster", "weights")
    call = call_of(
        "controlled_win_rate",
        {"form": form, "at": at, "penalty": penalty},
        dict(zip(labels, roles, strict=True)),
    )
    one = partial(_one, roles=roles, form=form, at=at, penalty=penalty, call=call)
    if model is None:
        return one(columns)
    table = []
    for code, level in enumerate(reader.levels[model]):
        part = {name: c[columns[model] == code] for name, c in columns.items()}
        plain = _plain(part, roles) if len(part[model]) else (math.nan, math.nan)
        row = {"model": level} | dict.fromkeys(_SHOWN, math.nan)
        row |= {"win_rate": plain[0], "win_rate_std_error": plain[1], "naive_std_error": math.nan}
        row |= {"n": len(part[outcome]), "note": ""}
        try:
            fit = one(part)
        except (IdentificationError, DataError) as error:  # one model must not stop the others
            row["note"] = str(error).partition(". ")[0].rstrip(".") + "."
        else:
            first = fit.to_frame().iloc[0]
            row |= {c: float(first[c]) for c in _SHOWN}
            row["naive_std_error"] = fit.raw["naive_std_error"]
        table.append(row)
    return pd.DataFrame(table).sort_values("estimate", ascending=False, ignore_index=True)


_Roles = tuple[str, list[str], str | None, str | None, str | None]


def _plain(columns: dict[str, np.ndarray], roles: _Roles) -> tuple[float, float]:
    """Plain win rate in percent, and its standard error, by cluster where there are any."""
    outcome, _, _, cluster, weights = roles
    y = columns[outcome]
    w = np.ones(len(y)) if weights is None else columns[weights]
    mean = float(np.average(y, weights=w))
    codes = np.arange(len(y)) if cluster is None else columns[cluster]
    labels, place = np.unique(codes, return_inverse=True)
    sums, g = np.bincount(place, w * (y - mean)), len(labels)
    error = math.sqrt(float(sums @ sums) * g / (g - 1)) / float(w.sum()) if g > 1 else math.nan
    return 100.0 * mean, 100.0 * error


def _one(
    columns: dict[str, np.ndarray],
    roles: _Roles,
    form: str,
    at: str,
    penalty: float | None,
    call: dict[str, Any],
) -> ControlledWinRate:
    outcome, names, difficulty, cluster, weights = roles
    y = np.asarray(columns[outcome], dtype=float)
    n = len(y)
    if not n:
        raise IdentificationError("Expected rows of positive weight, but saw none. Drop the model.")
    if y.min() == y.max():
        raise IdentificationError(
            f"Expected outcomes that vary, but all {n} are {y[0]:g}: the log-odds of a win have no "
            "finite estimate, or nothing to vary with. Drop the model, or report its plain rate."
        )
    log: list[str] = []
    x = [np.ones(n)]
    for name in names:
        d = np.asarray(columns[name], dtype=float)
        size = float(d.std(ddof=1)) if n > 1 else 0.0
        if size == 0.0:
            raise IdentificationError(
                f"Expected differences in {name!r} that vary, but all {n} are {d[0]:g}. Leave the "
                "control out."
            )
        x.append(np.tanh(d / size) if form == "tanh" else d / size)
    terms = ["Intercept", *names]
    w = np.ones(n) if weights is None else np.asarray(columns[weights], dtype=float)
    w = w * (n / w.sum())
    if difficulty is not None:
        g = np.asarray(columns[difficulty], dtype=float)
        x.append(g - np.average(g, weights=w))
        terms.append(difficulty)
    design = np.column_stack(x)
    ridge = None if penalty is None else np.array([0.0] + [penalty] * (len(terms) - 1))
    codes = None if cluster is None else columns[cluster]
    fit = fit_differences(design, y, weights=w, cluster=codes, penalty=ridge, names=terms, log=log)
    beta, k = fit.beta, len(fit.beta)
    flat = design.copy()  # the same instructions, with answers alike in length and style
    flat[:, 1 : 1 + len(names)] = 0.0
    if at == "zero":
        flat[:, 1 + len(names) :] = 0.0
    p = special.expit(flat @ beta)
    rate = float(np.average(p, weights=w))
    unit = n * rate * (1 - rate)
    slope = flat.T @ (w * p * (1 - p)) / unit  # of the logit of the rate
    own = w * (p - rate) / unit  # the instructions are a sample too
    fitted = special.expit(design @ beta)
    information = (design.T * (w * fitted * (1 - fitted))) @ design
    bread = np.linalg.inv(information + np.diag(np.zeros(k) if ridge is None else ridge))
    influence = (design * (w * (y - fitted))[:, None]) @ bread
    influence = np.column_stack([influence @ slope + own, influence])
    turn = np.vstack([slope, np.eye(k)])
    covariances = {
        "model": turn @ fit.covariances["model"] @ turn.T,
        "robust": influence.T @ influence,
    }
    covariances["model"][0, 0] += float(own @ own)
    if codes is not None:
        groups, place = np.unique(codes, return_inverse=True)
        sums = by_cluster(place, influence.T, len(groups))
        covariances["cluster"] = sums.T @ sums * len(groups) / (len(groups) - 1)
    naive = 0.0
    if difficulty is not None:
        eta = beta[0] + design[:, 1 + len(names) :] @ beta[1 + len(names) :]
        naive = 100.0 * float(special.expit(eta).std(ddof=1)) / math.sqrt(n)
    plain = _plain(columns, roles)
    return ControlledWinRate(
        call=call,
        n_obs=n,
        warnings=tuple(log),
        diagnostics={
            "condition_number": fit.condition,
            "converged": fit.converged,
            "n_clusters": fit.n_clusters,
        },
        parameter=("win_rate",) + ("logit",) * k,
        term=("win_rate", *terms),
        estimates=np.concatenate([[special.logit(rate)], beta]),
        covariances=covariances,
        covariance="robust" if cluster is None else "cluster",
        loglik=fit.value,
        n_params=k,
        df_resid=None if fit.n_clusters is None else fit.n_clusters - 1.0,
        raw={"win_rate": plain[0], "std_error": plain[1], "naive_std_error": naive},
        assumptions=(
            Assumption(
                "Controls",
                f"Given {', '.join(terms[1:])}, nothing else that differs between the answers is a "
                "matter of length or style alone",
                "Compare fits with other controls; a control that quality causes takes away part "
                "of it.",
            ),
            Assumption(
                "Form",
                f"The log-odds of a win depend on the differences as form={form!r} says, alike "
                "for all instructions",
                "Compare form='tanh' with form='linear'.",
            ),
        ),
    )
