"""Rewards from observational outcomes, without the known confounders."""

from causalrm.deconfound.absorb import AbsorbedResult as AbsorbedResult
from causalrm.deconfound.absorb import absorbed_regression as absorbed_regression
from causalrm.deconfound.sensitivity import EValue as EValue
from causalrm.deconfound.sensitivity import SensitivityResult as SensitivityResult
from causalrm.deconfound.sensitivity import e_value as e_value
from causalrm.deconfound.sensitivity import sensitivity as sensitivity
