"""What a fit returns: immutable, without data rows, one tidy frame, JSON in and out."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import math
import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import pandas as pd

from causalrm.core import inference
from causalrm.core.errors import DataError, IdentificationError
from causalrm.core.format import percent, text_of_numbers, text_of_test
from causalrm.core.frozen import freeze
from causalrm.core.store import dumps, loads, public_class

if TYPE_CHECKING:
    from causalrm.core.table import Section, Table

COLUMNS = ["term", "estimate", "std_error", "statistic", "p_value", "conf_low", "conf_high"]

type Coefficient = str | tuple[str, str]
"""A (parameter, term) pair, or the term alone where that is unambiguous."""


@functools.cache
def _versions() -> dict[str, str]:
    found = {"causalrm": importlib.import_module("causalrm").__version__}
    found["python"] = platform.python_version()
    for package in ("numpy", "scipy", "pandas", "numba", "formulaic"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def versions() -> dict[str, str]:
    """Versions of causalrm, Python and the packages that decide the numbers."""
    return dict(_versions())


check_level, quantile = inference.check_level, inference.quantile  # every result needs them


@dataclass(frozen=True)
class Assumption:
    """One thing that must hold for the estimate to mean what it says.

    Parameters
    ----------
    name : str
        A few words.
    statement : str
        One sentence in terms of the columns used.
    diagnostic : str
        What was, or could be, looked at to refute it, and what it showed.
    status : {"untested", "supported", "doubtful"}
    """

    name: str
    statement: str
    diagnostic: str
    status: str = "untested"

    def _row(self) -> tuple[str, str]:
        statement = self.statement.rstrip(".")
        return f"{self.name} ({self.status})", f"{statement}. Diagnostic: {self.diagnostic}"


@dataclass(frozen=True)
class Estimate:
    """A single number with its uncertainty; ``float(estimate)`` is the number.

    Examples
    --------
    >>> print(Estimate(1.5, 0.5, 0.52, 2.48, name="difference", p_value=0.0027))
    difference: 1.50, std. error 0.50, 95% interval [0.52, 2.48], p = 0.003
    """

    estimate: float
    std_error: float
    conf_low: float
    conf_high: float
    level: float = 0.95
    name: str = "estimate"
    p_value: float = math.nan

    def __float__(self) -> float:
        return float(self.estimate)

    def __str__(self) -> str:
        est, se, low, high = text_of_numbers(
            [self.estimate, self.std_error, self.conf_low, self.conf_high], digits=2
        )
        text = f"{self.name}: {est}"
        text += f", std. error {se}" if se else ""
        text += f", {percent(self.level)} interval [{low}, {high}]" if low and high else ""
        return text if math.isnan(self.p_value) else f"{text}, {text_of_test(self.p_value)}"

    @classmethod
    def wald(
        cls, value: float, std_error: float, level: float, name: str, df: float | None = None
    ) -> Self:
        """Interval and test of a number by its standard error: t with `df`, else normal."""
        half = quantile(level, df) * std_error
        with np.errstate(divide="ignore", invalid="ignore"):
            p = float(inference.two_sided_p(np.divide(value, std_error), df))
        return cls(value, std_error, value - half, value + half, level, name, p)

    def to_frame(self) -> pd.DataFrame:
        """Return one row with the columns of every result frame."""
        with np.errstate(divide="ignore", invalid="ignore"):
            statistic = float(np.divide(self.estimate, self.std_error))
        if math.isnan(self.p_value):
            statistic = math.nan
        row = [self.name, self.estimate, self.std_error, statistic]
        return pd.DataFrame([[*row, self.p_value, self.conf_low, self.conf_high]], columns=COLUMNS)


@dataclass(frozen=True)
class Test:
    """A test that several coefficients are jointly zero.

    `statistic` is chi-squared with `df` degrees of freedom or, with `df_resid`, F.
    """

    name: str
    statistic: float
    df: int
    p_value: float
    df_resid: float | None = None

    __test__ = False  # not for pytest

    def __str__(self) -> str:
        law = f"chi2({self.df})" if self.df_resid is None else f"F({self.df}, {self.df_resid:g})"
        return f"{self.name}: {law} = {self.statistic:.2f}, {text_of_test(self.p_value)}"


def call_of(estimator: str, options: Mapping[str, Any], roles: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a fit for `Result.call`; roles that were not given are left out."""
    absent = {r for r, c in roles.items() if c is None or isinstance(c, tuple) and not c}
    used = {role: column for role, column in roles.items() if role not in absent}
    return {"estimator": estimator, "options": dict(options), "roles": used}


class Scale(NamedTuple):
    """How a scalar parameter is shown: its natural value, and the slope of that function."""

    natural: Callable[[float], float]
    slope: Callable[[float], float]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Result(ABC):
    """What every fit returns.

    Arrays are copied and set read-only, mappings are copied and refuse changes. A subclass is
    a frozen dataclass with fields that `to_json` can store: None, bools, numbers, text, tuples,
    lists, dicts, numpy arrays, pandas objects, and dataclasses of a public module.

    Parameters
    ----------
    call : dict
        ``{"estimator": name, "options": {...}, "roles": {...}}``.
    n_obs : int
        Rows used.
    versions : dict
        Package versions at the time of the fit.
    entropy : int, optional
        Of the random numbers, where any were used: given as `rng`, it repeats them.
    assumptions : tuple of Assumption
    diagnostics : dict
        What was computed to judge the fit: numbers, arrays and frames.
    warnings : tuple of str
        The warnings that were issued during the fit.
    """

    call: Mapping[str, Any]
    n_obs: int
    versions: Mapping[str, str] = field(default_factory=versions)
    entropy: int | None = None
    assumptions: tuple[Assumption, ...] = ()
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __init_subclass__(cls) -> None:
        # The dataclass decorator would otherwise give each subclass a repr with all arrays.
        if "__repr__" not in cls.__dict__:
            cls.__repr__ = Result.__repr__  # type: ignore[method-assign]

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            object.__setattr__(self, item.name, freeze(getattr(self, item.name)))

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():  # unpickled arrays can be written to again
            object.__setattr__(self, name, freeze(value))

    def __repr__(self) -> str:
        shown = ["n_obs", *(name for name in ("covariance", "loglik") if hasattr(self, name))]
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
        return f"<{type(self).__name__} of {self.call.get('estimator', '?')}: {values}>"

    def _repr_html_(self) -> str:
        return self.summary().to_html()

    @abstractmethod
    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return the estimates, one row per term, with intervals at `level`."""

    def _fit_lines(self, level: float) -> list[tuple[str, str]]:
        """Return what `summary` says about the fit as a whole: (label, text) pairs."""
        return []

    def _changed(self) -> dict[str, Any]:
        """Return the options of the call that are not the estimator's defaults."""
        options = dict(self.call.get("options", {}))
        try:
            usual = inspect.signature(public_class(self.call.get("estimator", ""))).parameters
        except DataError:  # an estimator from outside the package
            return options
        return {
            name: value
            for name, value in options.items()
            if name not in usual or repr(value) != repr(usual[name].default)
        }

    def summary(self, level: float = 0.95) -> Table:
        """Return the call, the estimates, the fit, the assumptions and the warnings as a table."""
        from causalrm.core.table import Section, Table, section

        def text(items: Mapping[str, Any]) -> str:
            return ", ".join(f"{name} = {value}" for name, value in items.items())

        head = [("Options", text(self._changed())), ("Columns", text(self.call.get("roles", {})))]
        head = [(label, value) for label, value in head if value]
        sections = [
            Section(rows=(*head, ("Observations", f"{self.n_obs:,}"))),
            section(self.to_frame(level), "Coefficients", level),
            Section("Fit", rows=tuple(self._fit_lines(level))),
            *self._remarks(),
        ]
        return Table(str(self.call.get("estimator", type(self).__name__)), tuple(sections))

    def _remarks(self) -> tuple[Section, Section]:
        """Return what every summary ends with: the assumptions and the warnings."""
        from causalrm.core.table import Section

        return (
            Section("Assumptions", rows=tuple(a._row() for a in self.assumptions)),
            Section("Warnings", rows=tuple((str(i), w) for i, w in enumerate(self.warnings, 1))),
        )

    def to_json(self, path: str | Path | None = None) -> str:
        """Return the result as JSON, and write it to `path` where one is given.

        Nothing is lost: floats to the last bit, NaN and infinities, tuples, integer keys,
        arrays and frames with their types and indexes.

        Raises
        ------
        DataError
            When a field holds something that JSON cannot describe.
        """
        text = dumps(self)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    @classmethod
    def from_json(cls, source: str | Path) -> Self:
        """Read what `to_json` wrote.

        The class is looked up by name among causalrm's public names: nothing that a file
        names is ever imported, so that a file from elsewhere can be read safely.

        Parameters
        ----------
        source : str or pathlib.Path
            The JSON text itself, or the path of a file.

        Raises
        ------
        DataError
            When the file is missing or damaged, of a later version, or of another class.
        """
        found: Self = loads(cls, source)
        return found


def position_of(parameter: Sequence[str], term: Sequence[str], key: Coefficient) -> int:
    """Index of a coefficient, given as (parameter, term) or as an unambiguous term."""
    labels = list(zip(parameter, term, strict=True))
    found = [i for i, label in enumerate(labels) if key in (label, label[1])]
    if len(found) != 1:
        known = ", ".join(map(repr, labels if not found else [labels[i] for i in found]))
        problem = "names no coefficient" if not found else "names several coefficients"
        raise DataError(f"{key!r} {problem}; give one (parameter, term) pair of: {known}.")
    return found[0]


def contrast_vector(
    parameter: Sequence[str], term: Sequence[str], weights: Mapping[Coefficient, float]
) -> np.ndarray:
    """Weights of a contrast in the order of the coefficients."""
    if not isinstance(weights, Mapping):
        example = {(parameter[0], term[0]): 1}
        raise DataError(
            f"Expected a contrast as {{(parameter, term): weight}}, for example {example}, "
            f"but saw {weights!r}."
        )
    w = np.zeros(len(term))
    for key, weight in weights.items():
        w[position_of(parameter, term, key)] += weight
    return w


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LikelihoodResult(Result):
    """The maximum of a likelihood and its covariances.

    Parameters
    ----------
    parameter, term : tuple of str
        Labels of the k coefficients: ``("phi", "phi", "kappa")``, ``("Intercept", "x", "kappa")``.
    estimates : ndarray of shape (k,)
        On the scale on which they were estimated.
    covariances : dict of str to ndarray of shape (k, k)
        Every kind that the data allow: "model", "robust", "cluster".
    covariance : str
        The kind in use.
    loglik : float
    n_params : int
    df_resid : float, optional
        Degrees of freedom of t under the "cluster" covariance; normal quantiles otherwise.
    """

    parameter: tuple[str, ...]
    term: tuple[str, ...]
    estimates: np.ndarray
    covariances: Mapping[str, np.ndarray]
    covariance: str
    loglik: float
    n_params: int
    df_resid: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._covariance(self.covariance)
        k = len(self.estimates)
        shapes = {kind: matrix.shape for kind, matrix in self.covariances.items()}
        wrong = any(shape != (k, k) for shape in shapes.values())
        if wrong or len(self.parameter) != k or len(self.term) != k:
            raise DataError(
                f"{k} estimates need {k} labels and {k} x {k} covariances; got "
                f"{len(self.parameter)} parameters, {len(self.term)} terms and {shapes}."
            )

    @property
    def aic(self) -> float:
        """Akaike's criterion, -2 loglik + 2 n_params."""
        return -2 * self.loglik + 2 * self.n_params

    @property
    def bic(self) -> float:
        """Schwarz's criterion, -2 loglik + log(n_obs) n_params."""
        return -2 * self.loglik + math.log(self.n_obs) * self.n_params

    @property
    def std_error(self) -> np.ndarray:
        """Standard errors of `estimates` under the covariance in use; NaN where undefined."""
        variance = np.diag(self._covariance())
        return np.sqrt(np.where(variance >= 0, variance, math.nan))

    @property
    def _df(self) -> float | None:
        return self.df_resid if self.covariance == "cluster" else None

    def _scales(self) -> Mapping[str, Scale]:
        """Scalar parameters to show on their natural scale; a subclass says which.

        Their standard error is by the delta method, their interval is the transformed one, and
        the test that the untransformed parameter is zero is left out.
        """
        return {}

    def _covariance(self, kind: str | None = None) -> np.ndarray:
        kind = self.covariance if kind is None else kind
        if kind not in self.covariances:
            raise DataError(
                f"There is no {kind!r} covariance in this fit; it has "
                f"{', '.join(map(repr, self.covariances))}. A 'cluster' covariance needs cluster= "
                "in fit."
            )
        return self.covariances[kind]

    def with_covariance(self, kind: str) -> Self:
        """Return the same fit with standard errors from another covariance.

        Raises
        ------
        DataError
            When the fit has no such covariance; the message names those it has.
        """
        self._covariance(kind)
        return dataclasses.replace(self, covariance=kind)

    def cov(self, kind: str | None = None) -> pd.DataFrame:
        """Return the (k, k) covariance of `estimates`, labelled by (parameter, term)."""
        labels = pd.MultiIndex.from_arrays(
            [list(self.parameter), list(self.term)], names=["parameter", "term"]
        )
        return pd.DataFrame(self._covariance(kind).copy(), index=labels, columns=labels)

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return one row per coefficient.

        Returns
        -------
        pandas.DataFrame
            With the columns `parameter, term, estimate, std_error, statistic, p_value,
            conf_low, conf_high`. Scalar parameters are on their natural scale.
        """
        z = quantile(level, self._df)
        estimate, se = self.estimates.astype(float), self.std_error
        low, high = estimate - z * se, estimate + z * se
        with np.errstate(divide="ignore", invalid="ignore"):
            statistic = estimate / se
        for i, name in enumerate(self.parameter):
            if scale := self._scales().get(name):
                se[i] *= abs(scale.slope(estimate[i]))
                estimate[i], statistic[i] = scale.natural(estimate[i]), math.nan
                low[i], high[i] = sorted([scale.natural(low[i]), scale.natural(high[i])])
        values = (estimate, se, statistic, inference.two_sided_p(statistic, self._df), low, high)
        columns = {"parameter": self.parameter, "term": self.term}
        return pd.DataFrame(columns | dict(zip(COLUMNS[1:], values, strict=True)))

    def _position(self, key: Coefficient) -> int:
        return position_of(self.parameter, self.term, key)

    def contrast(
        self, weights: Mapping[Coefficient, float], level: float = 0.95, name: str = "contrast"
    ) -> Estimate:
        """Estimate a weighted sum of coefficients, on the scale of `estimates`.

        Parameters
        ----------
        weights : dict
            ``{(parameter, term): weight}``; the term alone will do where it is unambiguous.
        level : float
        name : str

        Returns
        -------
        Estimate

        Raises
        ------
        DataError
            When weights are not given by coefficient, or a coefficient is not in the fit.
        """
        w = contrast_vector(self.parameter, self.term, weights)
        estimate = float(w @ self.estimates)
        used = np.flatnonzero(w)  # the variance may be undefined elsewhere
        variance = float(w[used] @ self._covariance()[np.ix_(used, used)] @ w[used])
        se = math.sqrt(variance) if variance >= 0 else math.nan
        return Estimate.wald(estimate, se, level, name, self._df)

    def wald_test(self, terms: str | Sequence[Coefficient]) -> Test:
        """Test that coefficients are jointly zero.

        Parameters
        ----------
        terms : str or list
            A covariate, tested in every parameter and at every level (``"C(arm)"`` stands for
            ``"C(arm)[T.b]"`` too); or a list of (parameter, term) pairs.

        Returns
        -------
        Test
            Chi-squared, or F under a cluster covariance with `df_resid`.
        """
        if isinstance(terms, str):
            name = terms
            used = [i for i, t in enumerate(self.term) if t == terms or t.startswith(terms + "[")]
            if not used:
                self._position(terms)  # raises, naming the coefficients
        else:
            used = sorted({self._position(key) for key in terms})
            name = ", ".join(f"{self.parameter[i]}: {self.term[i]}" for i in used)
        if not used:
            raise DataError("wald_test needs at least one coefficient; got none.")
        b, v = self.estimates[used], self._covariance()[np.ix_(used, used)]
        df = self._df
        try:
            statistic, q, p = inference.wald(b, v, df)
        except (ValueError, np.linalg.LinAlgError) as error:  # undefined, or redundant terms
            raise IdentificationError(
                f"The {self.covariance!r} covariance of {name} is undefined or singular, so that "
                "these coefficients cannot be tested jointly. Test fewer of them."
            ) from error
        return Test(name, statistic if df is None else statistic / q, q, p, df)

    def _fit_lines(self, level: float) -> list[tuple[str, str]]:
        law = "normal" if self._df is None else f"t({self._df:g})"
        others = [kind for kind in self.covariances if kind != self.covariance]
        also = f"; also kept: {', '.join(others)}" if others else ""
        return [
            ("Log-likelihood", f"{self.loglik:.4f} ({self.n_params} parameters)"),
            ("AIC, BIC", f"{self.aic:.3f}, {self.bic:.3f}"),
            ("Covariance", f"{self.covariance}, {law} quantiles{also}"),
        ]
