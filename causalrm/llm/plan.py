"""Counting calls, tokens, money and minutes before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Plan:
    """What a run would cost, before anything is sent.

    Attributes
    ----------
    rows : DataFrame
        Per prompt: ``key``, ``cached`` (answered before), ``repeated`` (the same request as an
        earlier row), ``prompt_tokens`` (estimated) and ``completion_tokens`` (the most that
        there can be; missing where no maximum is set).
    requests_per_minute, tokens_per_minute : float or None
    price : (float, float) or None
        Per million tokens of prompts and of replies.
    """

    rows: pd.DataFrame
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    price: tuple[float, float] | None = None

    @property
    def paid(self) -> pd.DataFrame:
        """The rows that are to be paid."""
        return self.rows[~(self.rows["cached"] | self.rows["repeated"])]

    @property
    def calls(self) -> int:
        """Number of requests to send."""
        return len(self.paid)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompts to send, estimated."""
        return int(self.paid["prompt_tokens"].sum())

    @property
    def completion_tokens(self) -> float:
        """The most tokens that the replies can have; NaN where no maximum is set."""
        return float(self.paid["completion_tokens"].astype(float).sum(skipna=False))

    @property
    def cost(self) -> float:
        """The most that the calls can cost, in the unit of `price`; NaN without prices."""
        prices = self.price or (np.nan, np.nan)
        return (self.prompt_tokens * prices[0] + self.completion_tokens * prices[1]) / 1e6

    @property
    def minutes(self) -> float:
        """The least time that the limits per minute allow; NaN without limits."""
        tokens = self.prompt_tokens + np.nan_to_num(self.completion_tokens)
        times = [
            amount / limit
            for amount, limit in (
                (self.calls, self.requests_per_minute),
                (tokens, self.tokens_per_minute),
            )
            if limit
        ]
        return float(max(times, default=np.nan))

    def __str__(self) -> str:
        most = self.completion_tokens
        lines = [
            f"{len(self.rows)} prompts: {self.calls} calls to pay, "
            f"{int(self.rows['cached'].sum())} cached, {int(self.rows['repeated'].sum())} repeated",
            f"tokens to pay: about {self.prompt_tokens} in prompts, "
            + (f"at most {most:.0f} in replies" if most == most else "no maximum for replies"),
        ]
        if self.price:
            lines.append(f"cost: at most {self.cost:.4g}")
        if self.minutes == self.minutes:
            lines.append(f"time: at least {self.minutes:.1f} minutes")
        return "\n".join(lines)
