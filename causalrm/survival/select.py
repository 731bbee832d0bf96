"""Families and regression structures compared in one table."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from causalrm.core import parallel
from causalrm.core.design import formula_text
from causalrm.core.errors import (
    CausalRMWarning,
    ConvergenceError,
    DataError,
    IdentificationError,
)
from causalrm.core.format import number, text_of_p
from causalrm.core.result import Assumption, Result, check_level, quantile
from causalrm.core.table import Section, Table
from causalrm.survival.model import FAMILIES, Family, resolve_kappa
from causalrm.survival.regression import SurvivalRegression
from causalrm.survival.result import SurvivalResult, not_comparable

# Which parameters take the covariates.
STRUCTURES: dict[str, tuple[str, ...]] = {
    "null": (),
    "aft": ("phi",),
    "ph": ("lam",),
    "aft+shape": ("phi", "gamma"),
    "ph+shape": ("lam", "gamma"),
    "both scales": ("phi", "lam"),
    "both scales+shape": ("phi", "lam", "gamma"),
}
_SHAPED = {"null": "", "aft": "aft+shape", "ph": "ph+shape", "both scales": "both scales+shape"}
_FULL = Family(None, lam=True)
_NEAR = 10.0  # difference in the criterion beyond which a fit is hardly supported
_HAZARD = {
    "constant": "flat", "increasing": "up", "decreasing": "down",
    "increasing, then decreasing": "up, down", "decreasing, then increasing": "down, up",
}  # fmt: skip

type Key = tuple[str, str]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SelectionResult(Result):
    """The fits that `select` compared.

    Parameters
    ----------
    criterion : {"aic", "bic"}
    results : dict of (family, structure) to SurvivalResult
        The fits that succeeded, the best first.
    failures : dict of (family, structure) to str
        Why the others could not be fitted.
    tests : pandas.DataFrame
        Every pair of nested fits of one structure or of one family: `small_family`,
        `small_structure`, `large_family`, `large_structure`, `statistic`, `df`, `p_value`, and
        the `reason` where a likelihood-ratio test is not valid.
    notes : dict of (family, structure) to tuple of str
        Remarks on single fits: their warnings, equal models, a maximum not reached.
    """

    criterion: str
    results: Mapping[Key, SurvivalResult]
    failures: Mapping[Key, str]
    tests: pd.DataFrame
    notes: Mapping[Key, tuple[str, ...]]

    @property
    def fits(self) -> dict[Key, SurvivalRegression]:
        """The fitted estimators by (family, structure), the best first."""
        return {key: SurvivalRegression.from_result(fit) for key, fit in self.results.items()}

    @property
    def best(self) -> SurvivalRegression:
        """The fitted estimator with the least criterion."""
        return SurvivalRegression.from_result(next(iter(self.results.values())))

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return one row per family and structure, the best first, failures last.

        Returns
        -------
        pandas.DataFrame
            With the columns `family, structure, n_params, loglik, aic, bic, delta` (from the least
            criterion), `kappa, kappa_std_error, kappa_low, kappa_high` (no interval where it is
            fixed), `hazard` (its shape at mean covariates), `cure, cure_low, cure_high` (where
            kappa is below 0), `p_family` (likelihood-ratio test against the family "free", or
            else "full", with the same structure), `p_shape` (against the same family with
            covariates in gamma too), `converged`, `condition_number`, `note`.
        """
        check_level(level)
        best = min(getattr(fit, self.criterion) for fit in self.results.values())
        rows: list[dict[str, Any]] = []
        for (family, structure), fit in self.results.items():
            row: dict[str, Any] = {
                "family": family, "structure": structure, "n_params": fit.n_params,
                "loglik": fit.loglik, "aic": fit.aic, "bic": fit.bic,
                "delta": getattr(fit, self.criterion) - best, "kappa": fit.kappa,
            }  # fmt: skip
            if fit.fixed_kappa is None:
                place = fit.parameter.index("kappa")
                nu, se = float(fit.estimates[place]), float(fit.std_error[place])
                half = quantile(level, fit._df) * se
                row["kappa_std_error"] = math.exp(nu) * se
                row["kappa_low"], row["kappa_high"] = np.expm1(nu - half), np.expm1(nu + half)
            row["hazard"] = fit.hazard_shape
            if fit.cure is not None:
                cure = fit.cure_fraction(level)
                row["cure"] = cure.estimate
                row["cure_low"], row["cure_high"] = cure.conf_low, cure.conf_high
            for kind in ("family", "shape"):
                test = self._test(family, structure, kind)
                row[f"p_{kind}"] = math.nan if test is None else float(test["p_value"])
            row["converged"] = bool(fit.diagnostics["converged"])
            row["condition_number"] = float(fit.diagnostics["condition_number"])
            row["note"] = " ".join(self.notes.get((family, structure), ()))
            rows.append(row)
        for (family, structure), reason in self.failures.items():
            rows.append(
                {"family": family, "structure": structure, "converged": False, "note": reason}
            )
        columns = [
            "family", "structure", "n_params", "loglik", "aic", "bic", "delta", "kappa",
            "kappa_std_error", "kappa_low", "kappa_high", "hazard", "cure", "cure_low",
            "cure_high", "p_family", "p_shape", "converged", "condition_number", "note",
        ]  # fmt: skip
        frame = pd.DataFrame(rows).reindex(columns=columns)
        return frame.astype({"n_params": "Int64"})

    def _test(self, family: str, structure: str, kind: str) -> pd.Series | None:
        t = self.tests
        own = (t["small_family"] == family) & (t["small_structure"] == structure)
        if kind == "shape":
            own &= (t["large_family"] == family) & (
                t["large_structure"] == _SHAPED.get(structure, "")
            )
            return t[own].iloc[0] if own.any() else None
        for free in ("free", "full"):
            found = t[own & (t["large_family"] == free) & (t["large_structure"] == structure)]
            if len(found):
                return found.iloc[0]
        return None

    def summary(self, level: float = 0.95) -> Table:
        """Return the ranking, the shapes and tests of the best fits, and the remarks as a table."""
        frame = self.to_frame(level)
        marks: dict[str, str] = {}
        ranking: list[tuple[str, ...]] = []
        shapes: list[tuple[str, ...]] = []
        for row in frame.to_dict("records"):
            key = (str(row["family"]), str(row["structure"]))
            texts = list(self.notes.get(key, ()))
            if key in self.failures:
                texts = [self.failures[key]]
            else:
                tests = (self._test(*key, kind) for kind in ("family", "shape"))
                texts += [str(t["reason"]) for t in tests if t is not None and t["reason"]]
            own = " ".join(marks.setdefault(_first(t), _mark(len(marks))) for t in texts)
            label = f"{key[0]}: {key[1]}"
            if key in self.failures:
                ranking.append((label, "", "not fitted", "", "", "", own))
                continue
            numbers = [number(v, 2) for v in (row["loglik"], row["aic"], row["bic"], row["delta"])]
            ranking.append((label, str(row["n_params"]), *numbers, own))
            if row["delta"] <= _NEAR:
                shapes.append(_shape(label, row))
        head = [
            ("Columns", ", ".join(f"{k} = {v}" for k, v in self.call["roles"].items())),
            ("Covariates", str(self.call["options"]["covariates"])),
            ("Observations", f"{self.n_obs:,}"),
            ("Least " + self.criterion.upper(), "{}: {}".format(*next(iter(self.results)))),
        ]
        columns = ("family: structure", "k", "log-lik.", "AIC", "BIC", "diff.", "note")
        near = ("family: structure", "kappa", "hazard", "cure", "p family", "p shape")
        notes = [f"{mark}: {text}" for text, mark in marks.items()]
        return Table(
            f"Selection by {self.criterion.upper()}",
            (
                Section(rows=tuple(head)),
                Section("", columns, tuple(ranking), align="lrrrrrl"),
                Section("", near, tuple(shapes), align="lrlrrr"),
                *self._remarks(),
            ),
            (
                f"diff.: from the least {self.criterion.upper()}; kappa, hazard and tests of fits "
                f"within {_NEAR:g}, with standard errors in parentheses. p family: "
                "likelihood-ratio test against the family 'free' (or else 'full') with the same "
                "structure; p shape: against covariates in gamma too, in the same family.",
                *notes,
            ),
        )


def _mark(place: int) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return letters[place] if place < 26 else f"{letters[place % 26]}{place // 26}"


def _first(text: str) -> str:
    """First sentence of a message; what to do stands in the frame."""
    return re.split(r"(?<=\.) (?=[A-Z])", text, maxsplit=1)[0]


def _shape(label: str, row: Mapping[Any, Any]) -> tuple[str, ...]:
    kappa = "inf" if math.isinf(row["kappa"]) else number(row["kappa"], 3)
    se = row["kappa_std_error"]
    kappa += " fixed" if math.isnan(se) else f" ({number(se, 3)})"
    cure = "<0.001" if row["cure"] < 0.0005 else number(row["cure"], 3)
    tests = (text_of_p(row[name]) for name in ("p_family", "p_shape"))
    return label, kappa, _HAZARD[row["hazard"]], cure, *tests


# ---------------------------------------------------------------------------- fitting


def select(
    data: Any,
    covariates: str | Sequence[str],
    *,
    time: str | None = None,
    event: str | None = None,
    entry: str | None = None,
    lower: str | None = None,
    upper: str | None = None,
    weights: str | None = None,
    cluster: str | None = None,
    families: Sequence[str | float] = ("weibull", "loglogistic", "burr", "gompertz", "free"),
    structures: Sequence[str] = ("aft", "ph", "aft+shape", "ph+shape", "both scales"),
    criterion: str = "aic",
    n_jobs: int | None = 1,
    progress: bool | None = False,
    **options: Any,
) -> SelectionResult:
    """Fit every family with every regression structure, and rank the fits.

    Parameters
    ----------
    data : data frame, path of parquet files, pyarrow data set, or Dask data frame
        As for `SurvivalRegression.fit`.
    covariates : str or list of str
        Right-hand side of a formula, or names of columns; the intercepts are left to the
        structures.
    time, event, entry, lower, upper, weights, cluster : str, optional
        As for `SurvivalRegression.fit`.
    families : sequence of str or float
        Values of the option `kappa` of `SurvivalRegression`, and "full": kappa and lambda both
        free.
    structures : sequence of str
        Which parameters take the covariates: "aft" phi, "ph" lambda, "both scales" the two of
        them, each with "+shape" also gamma, and "null" none. Every structure has an intercept in
        phi and, unless the family fixes it, in gamma.
    criterion : {"aic", "bic"}
        By which the fits are ranked.
    n_jobs : int or None
        Fits at a time, see `causalrm.core.parallel.map`; a single fit already uses all cores when
        there are many rows.
    progress : bool or None
        Show a progress bar.
    **options
        Further options of every `SurvivalRegression`, such as `covariance`.

    Returns
    -------
    SelectionResult
        `summary()` and `to_frame()` have a row per combination, those that could not be fitted
        with the reason; `best` is the fit with the least criterion and `fits` holds all of them;
        `tests` holds the likelihood-ratio tests of all nested pairs of one family or one
        structure, without a p-value and with the reason where such a test is not valid.

    Raises
    ------
    DataError
        For unknown families or structures, and whatever `SurvivalRegression.fit` finds in the data.
    IdentificationError
        When no combination could be fitted.

    Notes
    -----
    The warnings of single fits are not issued; they stand in the column `note`. Standard errors
    and p-values of the chosen fit do not know that it was chosen.

    References
    ----------
    Burke, Jones, Noufaily (2020), doi 10.1111/rssc.12398.

    Examples
    --------
    >>> import causalrm as crm
    >>> from causalrm.survival.select import select
    >>> df = crm.datasets.load_gbsg2()
    >>> found = select(df, "hormone + nodes", time="time", event="event",
    ...                families=["weibull", "free"], structures=["aft", "aft+shape"])
    >>> found.to_frame()[["family", "structure", "n_params", "delta"]].round(2)
        family  structure  n_params  delta
    0     free        aft         5   0.00
    1     free  aft+shape         7   3.87
    2  weibull  aft+shape         6  21.22
    3  weibull        aft         4  31.48
    >>> found.best.result_.hazard_shape
    'increasing, then decreasing'
    """
    roles = {
        "time": time, "event": event, "entry": entry, "lower": lower, "upper": upper,
        "weights": weights, "cluster": cluster,
    }  # fmt: skip
    used = {name: column for name, column in roles.items() if column is not None}
    if criterion not in ("aic", "bic"):
        raise DataError(f"Expected criterion 'aic' or 'bic', but saw {criterion!r}.")
    text = _covariates(covariates)
    _check_names("structures", structures, STRUCTURES)
    if isinstance(families, str) or not len(families):
        raise DataError(f"Expected a list of families, but saw {families!r}.")
    kinds = {_name(f): _FULL if f == "full" else resolve_kappa(f) for f in families}
    fixed = {"phi", "lam", "gamma", "kappa"} & set(options)
    if fixed:
        raise DataError(
            f"Expected the parameters to be left to select, but saw {sorted(fixed)} among the "
            "options. Give families= and structures=."
        )
    known = SurvivalRegression()._get_param_names()
    _check_names("options", list(options), known, empty=True)

    todo: dict[Key, dict[str, Any]] = {}
    failures: dict[Key, str] = {}
    for name, family in kinds.items():
        value: Any = name if name in FAMILIES else family.kappa
        if family is _FULL:
            value = "free"
        for structure in dict.fromkeys(structures):
            spec = _specification(family, value, structure, text)
            if spec is None:
                failures[name, structure] = "The family fixes gamma at 1, without covariates."
            else:
                todo[name, structure] = spec | options
    tasks = [(spec, data, used) for spec in todo.values()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalRMWarning)  # each fit keeps its own
        found = parallel.map(_fit, tasks, n_jobs=n_jobs, progress=progress, label="Fitting")
    fits: dict[Key, SurvivalResult] = {}
    for key, out in zip(todo, found, strict=True):
        if isinstance(out, SurvivalResult):
            fits[key] = out
        else:
            failures[key] = out
    if not fits:
        reason = failures[next(iter([*todo, *failures]))]
        raise IdentificationError(
            f"Expected at least one fit, but none of {len(failures)} was possible. The first "
            f"reason: {reason}"
        )
    order = sorted(fits, key=lambda key: float(getattr(fits[key], criterion)))
    fits = {key: fits[key] for key in order}
    tests = _tests(fits)
    best = fits[order[0]]
    return SelectionResult(
        call={
            "estimator": "select",
            "options": {
                "covariates": text,
                "families": list(kinds),
                "structures": list(dict.fromkeys(structures)),
                "criterion": criterion,
                **options,
            },
            "roles": used,
        },  # fmt: skip
        n_obs=best.n_obs,
        assumptions=_assumptions(best, order[0], used),
        criterion=criterion,
        results=fits,
        failures=failures,
        tests=tests,
        notes=_notes(fits, tests),
    )


def _covariates(covariates: str | Sequence[str]) -> str:
    if not isinstance(covariates, str):
        if not covariates:
            raise DataError(
                f"Expected a formula or a list of column names, but saw {covariates!r}. Give one "
                "of these."
            )
        return formula_text(covariates, "covariates").removeprefix("1 + ")
    text = re.sub(r"^\s*1\s*\+", "", covariates).strip()
    if text in ("", "1"):
        raise DataError(
            f"Expected at least one covariate, but saw {covariates!r}. To compare families "
            "without covariates, name any and give structures=['null']."
        )
    if re.match(r"(0|-\s*1)\s*\+", text) or re.search(r"(-\s*1|\+\s*0)$", text):
        raise DataError(
            f"Expected covariates without a word on the intercept, but saw {covariates!r}. The "
            "structures say where there is one."
        )
    return text


def _check_names(
    what: str, given: Sequence[str], known: Sequence[str] | Mapping[str, Any], empty: bool = False
) -> None:
    wrong = [name for name in given if name not in known]
    if isinstance(given, str) or wrong or not (given or empty):
        seen = given if isinstance(given, str) else wrong
        raise DataError(f"Expected {what} out of {list(known)}, but saw {seen!r}.")


def _name(family: str | float) -> str:
    return family if isinstance(family, str) else f"kappa = {family:g}"


def _specification(
    family: Family, kappa: str | float, structure: str, text: str
) -> dict[str, Any] | None:
    """Options of `SurvivalRegression`; None where the family has no place for the covariates."""
    takes = STRUCTURES[structure]
    if "gamma" in takes and not family.gamma:
        return None
    lam = "1" if family.lam else None
    if "lam" in takes:
        lam = f"1 + {text}" if family.lam else text
    return {
        "phi": text if "phi" in takes else "1",
        "lam": lam,
        "gamma": text if "gamma" in takes else "1",
        "kappa": kappa,
    }


def _fit(task: tuple[dict[str, Any], Any, dict[str, str]]) -> SurvivalResult | str:
    options, data, roles = task
    try:
        return SurvivalRegression(**options).fit(data, **roles).result_
    except (IdentificationError, ConvergenceError) as error:
        return str(error)


# ---------------------------------------------------------------------------- comparing


def _nested(small: SurvivalResult, big: SurvivalResult) -> bool:
    """Whether the smaller model is the larger one with parameters fixed."""
    kappa = small.fixed_kappa == big.fixed_kappa or big.fixed_kappa is None
    terms = [set(zip(fit.parameter, fit.term, strict=True)) for fit in (small, big)]
    return kappa and small.n_params < big.n_params and terms[0] <= terms[1]


def _tests(fits: Mapping[Key, SurvivalResult]) -> pd.DataFrame:
    rows = []
    for small_key, small in fits.items():
        for big_key, big in fits.items():
            alike = sum(a == b for a, b in zip(small_key, big_key, strict=True))
            if alike != 1 or not _nested(small, big):
                continue
            reason = not_comparable(small, big)
            row: dict[str, Any] = {"statistic": math.nan, "p_value": math.nan, "reason": reason}
            row["df"] = big.n_params - small.n_params
            if not reason:
                test = small.lr_test(big)
                row |= {"statistic": test.statistic, "p_value": test.p_value}
            for label, key in (("small", small_key), ("large", big_key)):
                row[f"{label}_family"], row[f"{label}_structure"] = key
            rows.append(row)
    columns = [
        "small_family", "small_structure", "large_family", "large_structure", "statistic", "df",
        "p_value", "reason",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _notes(fits: Mapping[Key, SurvivalResult], tests: pd.DataFrame) -> dict[Key, tuple[str, ...]]:
    notes: dict[Key, list[str]] = {key: list(fit.warnings) for key, fit in fits.items()}
    seen: list[Key] = []
    for key, fit in fits.items():
        close = 1e-7 * (1.0 + abs(fit.loglik))
        for other in seen:
            same = fit.n_params == fits[other].n_params and fit.fixed_kappa is not None
            if same and abs(fit.loglik - fits[other].loglik) < close:
                notes[key].append(f"The same model as {other[0]}: {other[1]}.")
                break
        seen.append(key)
    for row in tests.to_dict("records"):
        small = (str(row["small_family"]), str(row["small_structure"]))
        big = (str(row["large_family"]), str(row["large_structure"]))
        if fits[big].loglik < fits[small].loglik - 1e-6 * (1.0 + abs(fits[small].loglik)):
            notes[big].append(
                f"Its log-likelihood is below that of {small[0]}: {small[1]}, which it contains: "
                "its maximum was not reached."
            )
    return {key: tuple(texts) for key, texts in notes.items() if texts}


def _assumptions(
    best: SurvivalResult, key: Key, roles: Mapping[str, str]
) -> tuple[Assumption, ...]:
    out = [
        Assumption(
            "choice",
            "The fit is used as if it had not been chosen on these rows.",
            "Choose on one part of the rows and estimate on another, or report the fits near the "
            "best beside it.",
        ),
    ]
    fitted = [a for a in best.assumptions if a.name == "distribution"]
    if fitted:
        text = f"{key[0]}: {key[1]}. {fitted[0].diagnostic}"
        out.append(
            Assumption("adequacy", "The best of the fits is a good one.", text, fitted[0].status)
        )
    if "weights" in roles or "cluster" in roles:
        out.append(
            Assumption(
                "likelihood",
                "Log-likelihoods of weighted or clustered rows rank the fits.",
                "They are pseudo-likelihoods: AIC and BIC are a rough guide, and there are no "
                "likelihood-ratio tests. Compare predictions on other clusters.",
                "doubtful",
            )
        )
    return tuple(out)


__all__ = ["STRUCTURES", "SelectionResult", "select"]
