"""Rewards from observational outcomes, without the known confounders."""

from causalrm.deconfound.absorb import AbsorbedResult as AbsorbedResult
from causalrm.deconfound.absorb import absorbed_regression as absorbed_regression
