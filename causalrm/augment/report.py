"""What an augmentation made, and what it cost or would."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pandas as pd

from causalrm.core.table import Section, Table


@dataclass(frozen=True, kw_only=True, eq=False)
class AugmentationReport:
    """What an augmentation made and what it cost, or would.

    Attributes
    ----------
    planned : bool
        Nothing was asked: the counts are expectations.
    n_preferences : int
    pairs : pandas.DataFrame
        Number of pairs by `kind` (rows) and status (columns).
    steps : pandas.DataFrame
        Per kind of question (rows) the numbers ``asked`` (different questions), ``calls``
        (paid), ``cached``, ``retries``, ``failed``, ``prompt_tokens``, ``completion_tokens``
        and ``cost`` (NaN without prices).
    failures : pandas.DataFrame
        Columns ``step, parent, reason``: at most 1,000 questions that failed or were not
        verified.
    entropy : int
        Given as `rng` it repeats the draws.
    """

    planned: bool
    n_preferences: int
    pairs: pd.DataFrame
    steps: pd.DataFrame
    failures: pd.DataFrame
    entropy: int

    @property
    def calls(self) -> int:
        """Calls of the oracle to pay."""
        return int(self.steps["calls"].sum())

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompts to pay."""
        return int(self.steps["prompt_tokens"].sum())

    @property
    def completion_tokens(self) -> int:
        """Tokens of the replies to pay; in a plan the most that there can be."""
        return int(self.steps["completion_tokens"].sum())

    @property
    def cost(self) -> float:
        """Cost of the calls, NaN without prices."""
        return float(self.steps["cost"].sum(skipna=False))

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as plain dicts: pairs by kind and status, calls by step."""
        return {
            "planned": self.planned,
            "n_preferences": self.n_preferences,
            "pairs": {
                str(kind): {s: int(n) for s, n in row.items() if n}
                for kind, row in self.pairs.to_dict("index").items()
            },
            "steps": {
                str(step): {k: None if v != v else v for k, v in row.items()}
                for step, row in self.steps.to_dict("index").items()
            },
            "calls": self.calls,
            "cost": None if self.cost != self.cost else self.cost,
            "entropy": self.entropy,
        }

    def to_json(self) -> str:
        """Write `to_dict` as JSON."""
        return json.dumps(self.to_dict())

    def summary(self) -> Table:
        """Return the counts as a `Table`."""
        statuses = tuple(self.pairs.columns)
        pairs = tuple(
            (str(kind), *(str(int(n)) for n in row)) for kind, row in
            zip(self.pairs.index, self.pairs.to_numpy(), strict=True)
        )  # fmt: skip
        columns = ("asked", "calls", "cached", "retries", "failed", "prompt_tokens",
                   "completion_tokens")  # fmt: skip
        shown = self.steps[list(columns)]
        total = ("all", *(str(int(n)) for n in shown.sum()))
        steps = tuple(
            (str(step), *(str(int(n)) for n in row))
            for step, row in zip(shown.index, shown.to_numpy(), strict=True)
        )
        notes = [f"{self.n_preferences} preferences."]
        if self.cost == self.cost:
            notes.append(f"Cost: {'at most ' if self.planned else ''}{self.cost:.4g}.")
        if self.planned:
            notes.append("Planned: nothing was asked. Tokens of replies are the most possible.")
        names = tuple(c.replace("_", " ") for c in columns)
        return Table(
            "Augmentation",
            (
                Section("pairs", ("", *statuses), pairs),
                Section("questions", ("", *names), steps, (total,) if len(steps) > 1 else ()),
            ),
            tuple(notes),
        )

    def __str__(self) -> str:
        return str(self.summary())
