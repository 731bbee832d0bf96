"""What all estimators share: options in, `fit`, and everything found in `result_`."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError as _NotFittedError

from causalrm.core.errors import CausalRMError, DataError
from causalrm.core.result import Result, call_of
from causalrm.core.store import encodable, public_class
from causalrm.core.table import Table


class NotFittedError(CausalRMError, _NotFittedError):  # type: ignore[misc]
    """An estimator was asked for its result before `fit`."""


@dataclass(frozen=True)
class Foreign:
    """Stands in a stored result for an option that JSON cannot hold."""

    description: str

    def __str__(self) -> str:
        return self.description


class Estimator(BaseEstimator):  # type: ignore[misc]
    """Base of all estimators: a scikit-learn estimator whose findings are in `result_`.

    A subclass stores its arguments unchanged in ``__init__`` and defines
    ``fit(data, *, roles)``, which checks them, sets `result_` and returns ``self``.

    Attributes
    ----------
    result_ : Result
        Everything that was found; immutable.
    """

    result_: Result

    if not TYPE_CHECKING:  # or every misspelt attribute passes the type checker

        def __getattr__(self, name: str) -> Any:
            # Also reached when a property such as `plot` found no `result_`.
            if name == "result_" or hasattr(type(self), name):
                kind = type(self).__name__
                raise NotFittedError(f"This {kind} has no result yet: call fit first.")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def summary(self, level: float = 0.95) -> Table:
        """Return the call, estimates, fit, assumptions and warnings as a `Table`."""
        return self.result_.summary(level)

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return the estimates as a tidy frame, with intervals at `level`."""
        return self.result_.to_frame(level)

    @property
    def plot(self) -> Any:
        """The plots of the result: ``fit.plot()`` and ``fit.plot.<kind>()``."""
        return self._of_result("plot")

    def contrast(self, *args: Any, **kwargs: Any) -> Any:
        """Estimate a contrast; see the `contrast` method of `result_`."""
        return self._of_result("contrast")(*args, **kwargs)

    def _of_result(self, name: str) -> Any:
        result = self.result_
        if not hasattr(result, name):
            raise CausalRMError(f"A {type(result).__name__} has no {name}.")
        return getattr(result, name)

    @classmethod
    def from_result(cls, result: Result) -> Self:
        """Rebuild a fitted estimator from its result, as read by `Result.from_json`.

        Called on `Estimator` itself, it finds the class by the name in the result.

        Parameters
        ----------
        result : Result

        Returns
        -------
        Estimator
            With the options of the fit and the result in `result_`. What a fit keeps outside
            its result (a frame with one row per training row, an encoder, draws) is not there.

        Raises
        ------
        DataError
            When the result is that of another estimator.
        """
        name = result.call.get("estimator", "")
        kind = public_class(name) if cls is Estimator else cls
        if kind.__name__ != name or not issubclass(kind, cls):
            raise DataError(f"Expected the result of a {cls.__name__}; got that of {name!r}.")
        try:
            estimator = kind(**result.call["options"])
        except (KeyError, TypeError) as error:
            raise DataError(
                f"The options stored in the result are not those of {name}: {error}. Use the "
                f"version of causalrm that wrote it ({result.versions.get('causalrm')})."
            ) from error
        estimator.result_ = result
        return estimator

    def _call(self, roles: dict[str, Any]) -> dict[str, Any]:
        """Describe this fit for `Result.call`: name, options, and the roles that were given."""
        given = {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}
        options = {
            name: value if encodable(value) else Foreign(repr(value))
            for name, value in given.items()
        }
        return call_of(type(self).__name__, options, roles)

    def _check_native(self) -> None:
        """Refuse to compute with options that did not survive JSON."""
        for name, value in self.get_params(deep=False).items():
            if isinstance(value, Foreign):
                raise DataError(
                    f"This estimator was restored from JSON, which cannot hold its option "
                    f"{name} ({value}). Its tables and plots work; to predict, restore it from "
                    "a pickle, or fit it again."
                )
