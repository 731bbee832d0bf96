"""Data sets: `load_*` from installed packages, `fetch_*` from public files, `make_*` simulated.

Frames of one kind name their columns alike: `time` and `event` (1 seen, 0 censored), `entry`
where observation starts late, `lower` and `upper` where a time is known up to an interval.
"""

from __future__ import annotations

from causalrm.datasets._acs_like import AcsLikeTruth, make_acs_like
from causalrm.datasets._forecasts import fetch_folktexts, fetch_llm_forecasts
from causalrm.datasets._public import fetch_e1684
from causalrm.datasets._simulated import Simulated
from causalrm.datasets._survival import (
    load_diabetes,
    load_gbsg2,
    load_kidney_transplant,
    load_larynx,
    load_lung,
    load_multicenter_aids_cohort,
    load_rossi,
    load_waltons,
)
from causalrm.datasets._survival_simulator import SurvivalTruth, make_survival

__all__ = [
    "AcsLikeTruth",
    "Simulated",
    "SurvivalTruth",
    "fetch_e1684",
    "fetch_folktexts",
    "fetch_llm_forecasts",
    "load_diabetes",
    "load_gbsg2",
    "load_kidney_transplant",
    "load_larynx",
    "load_lung",
    "load_multicenter_aids_cohort",
    "load_rossi",
    "load_waltons",
    "make_acs_like",
    "make_survival",
]
