"""Data sets: `load_*` from installed packages, `fetch_*` from public files, `make_*` simulated.

Tables of a few published counts are written out here, and loaded without a download.

Frames of one kind name their columns alike: `time` and `event` (1 seen, 0 censored), `entry`
where observation starts late, `lower` and `upper` where a time is known up to an interval.
"""

from __future__ import annotations

from causalrm.datasets._acs_like import AcsLikeTruth, make_acs_like
from causalrm.datasets._answers import AnswerLogTruth, make_answer_log
from causalrm.datasets._forecasts import fetch_folktexts, fetch_llm_forecasts
from causalrm.datasets._logged import (
    HeadlineTruth,
    LoggedTruth,
    make_headlines,
    make_logged_rewards,
)
from causalrm.datasets._observational import (
    fetch_401k,
    load_cps,
    load_lalonde,
    load_mroz,
    load_nhefs,
    load_thornton,
)
from causalrm.datasets._preferences import PreferenceTruth, make_preferences
from causalrm.datasets._public import fetch_e1684
from causalrm.datasets._selective import SelectiveTruth, make_selective_labels
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
from causalrm.datasets._votes import (
    fetch_alpaca_leaderboard,
    fetch_alpaca_length,
    fetch_food,
    fetch_llmfao,
    load_baseball,
    load_citations,
    load_puddings,
)

__all__ = [
    "AcsLikeTruth",
    "AnswerLogTruth",
    "HeadlineTruth",
    "LoggedTruth",
    "PreferenceTruth",
    "SelectiveTruth",
    "Simulated",
    "SurvivalTruth",
    "fetch_401k",
    "fetch_alpaca_leaderboard",
    "fetch_alpaca_length",
    "fetch_e1684",
    "fetch_folktexts",
    "fetch_food",
    "fetch_llm_forecasts",
    "fetch_llmfao",
    "load_baseball",
    "load_citations",
    "load_cps",
    "load_diabetes",
    "load_gbsg2",
    "load_kidney_transplant",
    "load_lalonde",
    "load_larynx",
    "load_lung",
    "load_mroz",
    "load_multicenter_aids_cohort",
    "load_nhefs",
    "load_puddings",
    "load_rossi",
    "load_thornton",
    "load_waltons",
    "make_acs_like",
    "make_answer_log",
    "make_headlines",
    "make_logged_rewards",
    "make_preferences",
    "make_selective_labels",
    "make_survival",
]
