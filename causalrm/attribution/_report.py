"""What an attribution tells about itself besides the values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from causalrm.attribution._run import Evaluated, Game, Run
from causalrm.attribution.estimators import Attribution
from causalrm.attribution.template import PromptTemplate
from causalrm.attribution.values import _PromptValue
from causalrm.core.inference import two_sided_p
from causalrm.core.result import Assumption


def positive(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
    return np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T)


def endpoint_of(game: Game, run: Run) -> dict[str, Any]:
    """How far repeated calls that should agree do so."""
    if game.noisy or not isinstance(game.value, _PromptValue):
        return {}
    rows = run.archive.rows
    gaps = np.array([
        game.value.number(rows[mask, v, 1]) - game.value.number(rows[mask, v, 0])
        for mask, v, r in rows if r == 1 and (mask, v, 0) in rows
    ])  # fmt: skip
    if not len(gaps):
        return {}
    return {
        "repeated": len(gaps),
        "differing": int(np.sum(np.abs(gaps) > 1e-12)),
        "sd": float(np.sqrt(np.mean(gaps**2) / 2.0)),
    }


def variants_frame(game: Game, found: Evaluated, size: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "variant": np.arange(game.variants),
            "wording": [game.value.wording(v) for v in range(game.variants)],
            "mean": found.by_variant.mean(axis=0),
            "none": found.by_variant[size == 0][0],
            "all": found.by_variant[size == game.n][0],
        }
    )


def trace_frame(trace: list[tuple[int, int, Attribution]], game: Game) -> pd.DataFrame:
    parts = [
        pd.DataFrame(
            {
                "look": look,
                "calls": calls,
                "coalitions": coalitions,
                "term": [c.name for c in game.players],
                "estimate": a.phi,
                "std_error": a.std_error,
                "df": np.nan if a.df is None else a.df,
            }
        )
        for look, (calls, coalitions, a) in enumerate(trace, 1)
    ]
    return pd.concat(parts, ignore_index=True)


def assumptions(game: Game, found: Attribution, endpoint: dict[str, Any]) -> tuple[Assumption, ...]:
    out = []
    if isinstance(game.template, PromptTemplate):
        out.append(
            Assumption(
                "Absence",
                "A component is absent when its baseline stands in its place",
                "fit.sensitivity(template, value, policies) compares baselines",
            )
        )
        shown = "the number is computed from the prompt alone"
        if endpoint:
            shown = f"{endpoint['differing']} of {endpoint['repeated']} repeated calls differed"
        elif game.noisy:
            shown = "replies are drawn; compare fits of two halves of the archive"
        out.append(
            Assumption(
                "Replies",
                "Given the prompt, replies are independent, and the endpoint does not change",
                shown,
            )
        )
    if not found.exact:
        best = min(found.held_out.values(), default=None)
        error = "" if best is None else f"mean squared error at pairs left out {best:.3g}; "
        out.append(
            Assumption(
                "Coalitions not asked",
                f"They are like those that were, given the method {found.method!r}",
                f"{error}efficiency gap {found.efficiency_gap:.2g}; compare methods with reanalyse",
            )
        )
    return tuple(out)


def differences(frames: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Stack frames, each with its differences from the first as if they were independent."""
    first, out = next(iter(frames.values())), []
    for i, (name, own) in enumerate(frames.items()):
        frame = own.copy()
        frame.insert(0, "group", name)
        frame["difference"] = own["estimate"] - first["estimate"]
        frame["difference_se"] = np.hypot(own["std_error"], first["std_error"]) if i else np.nan
        with np.errstate(divide="ignore", invalid="ignore"):
            statistic = (frame["difference"] / frame["difference_se"]).to_numpy()
        frame["difference_p"] = two_sided_p(statistic)
        out.append(frame)
    return pd.concat(out, ignore_index=True)
