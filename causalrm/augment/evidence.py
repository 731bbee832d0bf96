"""What a robust reward model rests on: what is doubted, and what is only assumed."""

from __future__ import annotations

import numpy as np
import pandas as pd

from causalrm.core.errors import IdentificationWarning, warn
from causalrm.core.inference import FEW
from causalrm.core.result import Assumption

_STANDS = 0.5  # share of the causal signal on irrelevant queries from which on we warn


def warn_where_causes_stay(vanishing: pd.DataFrame, log: list[str]) -> None:
    """Warn where what makes an answer good is seen on an irrelevant query too."""
    stays = vanishing[vanishing["remaining"] > _STANDS]
    if len(stays) and len(stays) >= 0.5 * len(vanishing):
        shown = ", ".join(f"{a} ({r:.2f})" for a, r in stays.head(5).itertuples(index=False))
        warn(
            "The features hardly depend on the query: of what tells the causal pairs apart, this "
            f"share remains when answers are given to an irrelevant query: {shown}. Neutral pairs "
            "then shrink causes along with style. Use an encoder that relates answers to queries "
            "(interaction=True), or set tie_weight=0.",
            IdentificationWarning,
            log,
        )


INDEPENDENT = Assumption(
    "Independent queries",
    "Pairs of different queries are independent; those of one query need not be",
    "standard errors are clustered by the query of the parent",
)


def assumptions(
    table: pd.DataFrame, vanishing: pd.DataFrame, query: str, n_clusters: int
) -> tuple[Assumption, ...]:
    """Everything that must hold, with the evidence of this fit."""
    left = vanishing["remaining"].median() if len(vanishing) else np.nan
    kinds = table.loc[table["group"] == "invariance"]
    least = kinds["estimate"].min() if len(kinds) else np.nan
    changes = table.loc[table["group"] == "change when dropped"]
    return (
        Assumption(
            "Attributes are causes",
            "The attributes of the causal pairs, and nothing else, make an answer to its "
            f"{query} better",
            "sensitivity when an attribute is dropped"
            + (f": falls by up to {-changes['estimate'].min():.2f}" if len(changes) else "")
            + "; accuracy on pairs of equal length",
        ),
        Assumption(
            "Clean edits",
            "Upgrades and degradations change their attribute and nothing else that is rewarded",
            "the augmenter's verification; the statuses counted under Fit",
        ),
        Assumption(
            "Neutral pairs are ties",
            "Neutral answers are equally good",
            "none in these data" if np.isnan(least) else f"least invariance {least:.2f}",
        ),
        Assumption(
            "Features depend on the query",
            "What makes an answer good is not seen when it is given to an irrelevant query",
            "no pairs with irrelevant queries" if np.isnan(left)
            else f"share of the causal signal that stays: {left:.2f} in the median attribute",
            "untested" if np.isnan(left) else "doubtful" if left > _STANDS else "supported",
        ),
        Assumption(
            INDEPENDENT.name,
            INDEPENDENT.statement,
            f"{INDEPENDENT.diagnostic}; there are {n_clusters}",
            "doubtful" if n_clusters < FEW else "untested",
        ),
    )  # fmt: skip
