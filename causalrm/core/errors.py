"""One root for everything that the package raises, and its warnings."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Collection
from types import ModuleType
from typing import Any

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


class CausalRMError(Exception):
    """Root of all errors raised by causalrm."""


class DataError(CausalRMError, ValueError):
    """The data or an argument is not what was asked for."""


class IdentificationError(CausalRMError, ValueError):
    """The data or the model cannot determine what was asked for."""


class ConvergenceError(CausalRMError, RuntimeError):
    """An iteration ended without an answer that can be trusted."""


class BackendError(CausalRMError, RuntimeError):
    """A service, file or process outside the package failed."""


class MissingDependencyError(CausalRMError, ImportError):
    """An optional package is needed and not installed."""


class CausalRMWarning(UserWarning):
    """Root of all warnings issued by causalrm."""


class ConvergenceWarning(CausalRMWarning):
    """The answer may be less exact than asked for."""


class IdentificationWarning(CausalRMWarning):
    """The data say little about a part of the model."""


def warn(
    message: str,
    category: type[CausalRMWarning] = CausalRMWarning,
    log: list[str] | None = None,
) -> None:
    """Warn at the first line outside the package, and keep the text in `log`."""
    if log is not None:
        log.append(message)
    warnings.warn(message, category, skip_file_prefixes=(_PACKAGE,))


def check_choice(name: str, value: Any, known: Collection[Any]) -> None:
    """Raise a DataError where an option is none of those known, which are words or booleans."""
    plain = isinstance(value, str | bool) or type(value).__name__ == "bool"  # numpy's too
    if not plain or value not in known:
        raise DataError(
            f"Expected {name} to be one of {', '.join(map(repr, known))}, but saw {value!r}. "
            "Choose one of these."
        )


def require(module: str, extra: str) -> ModuleType:
    """Import an optional module, or say which extra of causalrm brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"This needs the package {module.partition('.')[0]!r}, which is not installed. "
            f"Install it with: pip install 'causalrm[{extra}]'"
        ) from error
