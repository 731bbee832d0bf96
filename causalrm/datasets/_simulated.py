"""What every simulator returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

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
