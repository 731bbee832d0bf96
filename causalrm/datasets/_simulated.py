"""What every simulator returns, and the check of its arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from causalrm.core.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


class Simulated[Truth](NamedTuple):
    """Simulated data and what generated them; unpacks as ``data, truth = make_...(...)``.

    The truth is an object of its own and not an attribute of the frame, because copies,
    joins and other data frame libraries lose such attributes.
    """

    data: pd.DataFrame
    """The rows, as an analyst would see them."""
    truth: Truth
    """The parameters and the estimands computed from them."""


def check_ranges(**ranges: tuple[float, float, float]) -> None:
    """Raise a DataError for the first argument, given as (value, low, high), out of its range."""
    for name, (value, low, high) in ranges.items():
        if not low <= value <= high:
            raise DataError(f"{name} must be within {low} to {high}; got {value!r}.")
