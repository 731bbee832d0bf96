"""What every measure of calibration accepts besides outcomes and scores, described once."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, TypedDict

from numpy.typing import ArrayLike

from causalrm.calibration.scored import Scored
from causalrm.core.random import RNG
from causalrm.core.result import check_level


class Options(TypedDict, total=False):
    """What every measure accepts besides outcomes and scores."""

    weights: ArrayLike | None
    cluster: ArrayLike | None
    replicate_weights: ArrayLike | None
    bins: int | Sequence[float]
    strategy: str
    n_boot: int
    rng: RNG
    level: float


_PARAMETERS = """
    Parameters
    ----------
    y : array-like of shape (n,)
        Outcomes, 0/1 or bool.
    p : array-like of shape (n,)
        Scores in [0, 1]; 0 and 1 are kept.
    weights : array-like of shape (n,), optional
        Sampling weights; only their ratios matter, zeros are allowed.
    cluster : array-like of shape (n,), optional
        Labels of rows that depend on one another: repeated questions, templates, persons.
    replicate_weights : array-like of shape (n, R), optional
        Replicate weights of a survey; the variance is 4/R times the sum of squared deviations
        (successive difference replication, as in the American Community Survey with R = 80).
    bins : int or sequence of float
        Number of bins, or their edges from 0 to 1; where a measure has bins.
    strategy : {"width", "quantile"}
        Bins of equal width or of equal weight.
    n_boot : int
        Simulated samples behind an interval; 0 leaves the interval out.
    rng : int, SeedSequence, Generator or None
        Of the simulation.
    level : float
        Of the interval.
"""
_RETURNS = """
    Returns
    -------
    Estimate
        With `estimate, std_error, conf_low, conf_high` and, where perfect calibration has a
        known value, `p_value` of the test of it.
"""
_RAISES = """
    Raises
    ------
    DataError
        When outcomes, scores or weights are incomplete or out of range.
"""


_DEFAULTS: Options = {
    "weights": None,
    "cluster": None,
    "replicate_weights": None,
    "bins": 10,
    "strategy": "width",
    "n_boot": 1000,
    "rng": 0,
    "level": 0.95,
}


def documented[F: Callable[..., Any]](function: F) -> F:
    """Fill in the shared sections of a docstring, and the shared options in the signature."""
    text = function.__doc__ or ""
    for mark, section in (
        ("{parameters}", _PARAMETERS),
        ("{returns}", _RETURNS),
        ("{raises}", _RAISES),
    ):
        text = text.replace("    " + mark + "\n", section.lstrip("\n") + "\n")
    # Options of the function itself stand below the shared ones, without a gap.
    text = re.sub(r"\n\n+(    (?:thresholds?|score) : )", r"\n\1", text)
    function.__doc__ = re.sub(r"\n{3,}", "\n\n", text)
    own = list(inspect.signature(function).parameters.values())[:-1]
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value)
        for name, value in _DEFAULTS.items()
    ]
    signature = inspect.Signature([*own, *shared])
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function


def rows_and_level(y: ArrayLike, p: ArrayLike, options: Options) -> tuple[Scored, float]:
    """Check rows and options; return the rows and the level."""
    rest: dict[str, Any] = dict(options)
    unknown = sorted(set(rest) - set(Options.__annotations__))
    if unknown:
        raise TypeError(f"Unexpected argument {unknown[0]!r}.")
    level = check_level(rest.pop("level", 0.95))
    return Scored(y, p, **rest), level
