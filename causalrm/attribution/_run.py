"""One attribution run: asks what the design wants, within the budget, through the archive."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from causalrm.attribution.archive import Archive, Key, Row
from causalrm.attribution.design import keys, prefixes
from causalrm.attribution.template import Component, PromptTemplate, check_components
from causalrm.attribution.values import SetFunction, Value
from causalrm.core.errors import BackendError, CausalRMError, DataError, IdentificationError

_QUICK, _MOST = 0.05, 1024  # seconds and requests of a batch
_PRIOR_DF = 8.0  # weight of the mean noise variance beside that of one coalition


@dataclass(frozen=True)
class Budget:
    """What a fit may spend; it stops at what comes first.

    Parameters
    ----------
    calls : int, optional
        Requests, those answered from an archive included. By default enough for all
        coalitions of up to 8 players, or 50 coalitions per player; where no language model is
        asked, ``method="exact"`` has all coalitions of up to 20.
    cost : float, optional
        Money, in the unit of `price`, by the token counts that come with replies.
    price : (float, float), optional
        Of a million tokens of prompts and of replies.
    seconds : float, optional
        Of this fit alone. A fit that time stops cannot be repeated exactly.
    target_se : float, optional
        Stop when all standard errors (without template variance) are at or below this at two
        checkpoints in a row; the second is reported. One alone would be chosen for its small
        standard error.

    Examples
    --------
    >>> Budget(calls=500, target_se=0.02)
    Budget(calls=500, cost=None, price=None, seconds=None, target_se=0.02)
    """

    calls: int | None = None
    cost: float | None = None
    price: tuple[float, float] | None = None
    seconds: float | None = None
    target_se: float | None = None

    def __post_init__(self) -> None:
        for name in ("calls", "cost", "seconds", "target_se"):
            x = getattr(self, name)
            if x is not None and (isinstance(x, bool) or not x > 0):
                raise DataError(f"{name} of a Budget must be positive; got {x!r}.")
        if self.calls is not None and int(self.calls) != self.calls:
            raise DataError(f"calls of a Budget must be a whole number; got {self.calls!r}.")
        if self.cost is not None and self.price is None:
            raise DataError(
                "A budget in money needs the price of a million tokens of prompts and of replies: "
                "Budget(cost=1.0, price=(0.5, 1.5))."
            )


class Spent(Exception):
    """The budget is used up in the middle of a design."""


@dataclass(frozen=True)
class Evaluated:
    """Coalitions that were asked in every variant."""

    Z: np.ndarray  # (m, n) bool
    values: np.ndarray  # (m, wordings)
    var: np.ndarray  # (m, wordings), of the reply noise
    count: np.ndarray  # (m,)
    by_variant: np.ndarray  # (m, variants), mean numbers

    @property
    def mean(self) -> np.ndarray:
        """Mean over wordings, shape (m,)."""
        return np.asarray(self.values.mean(axis=1))

    @property
    def noise(self) -> np.ndarray:
        """Variance of `mean` that replies bring, shape (m,)."""
        return np.asarray(self.var.sum(axis=1) / self.var.shape[1] ** 2)


class Game:
    """A template with a value function; its players may be merged into blocks."""

    def __init__(self, template: Any, value: Any) -> None:
        self.blocks: np.ndarray | None = None  # (players, components)
        self.whole: Archive | None = None
        if isinstance(template, PromptTemplate):
            if not isinstance(value, Value) or isinstance(value, SetFunction):
                raise DataError(
                    "A PromptTemplate needs a ChoiceValue or a ScoreValue; got "
                    f"{type(value).__name__}. A plain function of coalitions goes with a list of "
                    "names; a function of prompts is ScoreValue(function)."
                )
            self.template: Any = template
            self.mark = template.fingerprint()
        else:
            self.template = SimpleNamespace(components=check_components(template))
            self.mark = "none"
            if callable(value) and not isinstance(value, Value):
                value = SetFunction(value)
            if not isinstance(value, SetFunction):
                raise DataError(
                    "A list of names needs a function of coalitions, f(Z: bool[m, n]) -> "
                    f"float[m]; got {type(value).__name__}."
                )
        self.value: Value = value
        self.players: tuple[Component, ...] = check_components(value.players(self.template))
        self.n = len(self.players)
        self.variants = value.variants(self.template)
        self.wordings = 1 + max(value.wording(v) for v in range(self.variants))
        drawn = isinstance(template, PromptTemplate) and value.resamples(template)
        self.noisy = value.noisy or drawn
        if drawn and not value.noisy and value.replies < 2:
            raise DataError(
                "Resample draws texts anew for every reply, so that at least 2 replies of each "
                "coalition are needed to measure what the draws add: give replies=2 or more."
            )

    def merge(self, labels: Sequence[tuple[str, ...]], whole: Archive) -> None:
        """Let components of one label come and go together; replies are kept in `whole`."""
        kept = list(dict.fromkeys(labels))
        self.blocks = np.array([[label == own for label in labels] for own in kept])
        roles = np.array([c.role for c in self.players])
        self.players = check_components(
            [
                Component(
                    " / ".join(own),
                    group=own[:-1],
                    role="neutral" if (roles[block] == "neutral").all() else "informative",
                )
                for own, block in zip(kept, self.blocks, strict=True)
            ]
        )
        self.n, self.whole = len(self.players), whole

    @property
    def segments(self) -> tuple[tuple[str, int], ...]:
        """The prompt in parts, each with the number of its player or -1."""
        if not isinstance(self.template, PromptTemplate):
            return tuple((c.text or c.name, i) for i, c in enumerate(self.players))
        if self.blocks is None:
            return self.template.segments
        of = self.blocks.argmax(axis=0)
        return tuple((text, int(of[i]) if i >= 0 else -1) for text, i in self.template.segments)

    @property
    def levels(self) -> np.ndarray:
        """Numbers of each player's groups, outermost first; one alone is its own group."""
        depth = max(len(c.group) for c in self.players)
        names = [[str(c.group[:k]) + c.name * (len(c.group) < k) for c in self.players]
                 for k in range(1, depth + 1)]  # fmt: skip
        return np.array([np.unique(row, return_inverse=True)[1] for row in names])

    def ask(
        self, Z: np.ndarray, variant: np.ndarray, replicate: np.ndarray
    ) -> Sequence[Row | float | None]:
        """Ask for one reply per row."""
        if self.blocks is None or self.whole is None:
            return self.value.ask(self.template, Z, variant, replicate)
        Z = Z.astype(int) @ self.blocks > 0
        names = list(zip(keys(Z), variant.tolist(), replicate.tolist(), strict=True))
        out = [self.whole.rows.get(name) for name in names]
        new = np.array([i for i, row in enumerate(out) if row is None], dtype=int)
        if len(new):
            rows = self.value.ask(self.template, Z[new], variant[new], replicate[new])
            for i, row in zip(new.tolist(), rows, strict=True):
                out[i] = row
            good = [i for i in new if out[i] is not None and np.isfinite(self.value.number(out[i]))]
            self.whole.add([names[i] for i in good], [out[i] for i in good])
        return out

    @property
    def cost_of_one(self) -> int:
        """Calls for one coalition."""
        return int(self.variants * self.value.replies)


class Run:
    """Asks coalitions through an archive."""

    def __init__(self, game: Game, archive: Archive, budget: Budget) -> None:
        self.game, self.archive, self.budget = game, archive, budget
        self.start = time.monotonic()
        self.calls = 0
        self.paid = 0
        self._counted, self._tokens = 0, [0.0, 0.0]
        self.asked: set[Key] = set()
        self.times: dict[bytes, int] = {}
        self.Z = np.zeros((0, game.n), dtype=bool)

    def ask(self, Z: np.ndarray, times: np.ndarray) -> None:
        """Ask each coalition so often, in every variant."""
        new, rows = [], []
        fresh = []
        for i, (mask, t) in enumerate(zip(keys(Z), times.tolist(), strict=True)):
            before = self.times.get(mask, 0)
            if not before:
                fresh.append(i)
            self.times[mask] = before + t * self.game.value.replies
            for r in range(before, self.times[mask]):
                new += [(mask, v, r) for v in range(self.game.variants)]
                rows += [i] * self.game.variants
        self.Z = np.concatenate([self.Z, Z[fresh]])
        self._send(Z[rows], new)

    def repeat(self, Z: np.ndarray) -> None:
        """Ask a second time what should give the same number."""
        found = [(mask, v, 1) for mask in keys(Z) for v in range(self.game.variants)]
        self._send(np.repeat(Z, self.game.variants, axis=0), found)

    def _send(self, Z: np.ndarray, new: list[Key]) -> None:
        known = self.archive.rows
        todo = np.array([i for i, key in enumerate(new) if key not in known], dtype=int)
        self.asked.update(key for key in new if key in known)
        self.calls += len(new) - len(todo)
        size = least = self.game.value.batch()
        at = 0
        while at < len(todo):
            part = todo[at : at + size]
            self._check(len(part))
            began = time.monotonic()
            self._batch(Z[part], [new[i] for i in part])
            at += len(part)
            # Together where calls take next to no time, so that little is lost by a kill
            quick = time.monotonic() - began < _QUICK
            size = min(2 * size, max(_MOST, least)) if quick else least

    def _check(self, more: int) -> None:
        budget = self.budget
        if budget.seconds is not None and time.monotonic() - self.start >= budget.seconds:
            raise Spent("seconds")
        if budget.cost is not None:
            spent = self.cost
            if spent + more * spent / max(len(self.archive), 1) > budget.cost:
                raise Spent("cost")

    @property
    def cost(self) -> float:
        """Money for all archived replies."""
        a, b = self.budget.price or (np.nan, np.nan)
        for row in islice(self.archive.rows.values(), self._counted, None):
            self._counted += 1
            if isinstance(row, dict):
                self._tokens[0] += row.get("prompt_tokens", 0.0)
                self._tokens[1] += row.get("completion_tokens", 0.0)
        return float(self._tokens[0] * a + self._tokens[1] * b) / 1e6

    def _batch(self, Z: np.ndarray, part: list[Key]) -> None:
        game, kept = self.game, f"The {len(self.archive)} replies so far are in the archive"
        variant = np.array([v for _, v, _ in part])
        replicate = np.array([r for *_, r in part])
        try:
            rows = game.ask(Z, variant, replicate)
        except CausalRMError:
            raise
        except Exception as error:
            raise BackendError(
                f"The value function failed at a batch of {len(part)} coalitions, the first "
                f"{_described(Z[0], game.players)}: {type(error).__name__}: {error}. {kept}."
            ) from error
        good = [i for i, row in enumerate(rows) if row is not None]
        bad = [i for i in good if not np.isfinite(game.value.number(rows[i]))]
        good = [i for i in good if i not in set(bad)]
        self.archive.add([part[i] for i in good], [rows[i] for i in good])  # type: ignore[misc]
        self.asked.update(part[i] for i in good)
        self.calls += len(good)
        self.paid += len(good)
        kept = f"The {len(self.archive)} replies so far are in the archive"
        if bad:
            raise DataError(
                f"The value function gave {game.value.number(rows[bad[0]])} at {len(bad)} of "
                f"{len(part)} coalitions, the first {_described(Z[bad[0]], game.players)}. Values "
                f"must be finite numbers. {kept}."
            )
        if len(good) < len(part):
            raise BackendError(
                f"{len(part) - len(good)} of {len(part)} calls gave no answer at all. {kept}: "
                "fit again with the same archive to go on; answered calls are not repeated."
            )

    def evaluated(self, only_asked: bool = True) -> Evaluated:
        """Values of the coalitions asked so far, or of all that the archive holds."""
        chosen = self.asked.__contains__ if only_asked else None
        return evaluate(self.game, self.archive, chosen)


def evaluate(
    game: Game, archive: Archive, chosen: Callable[[Key], bool] | None = None
) -> Evaluated:
    """Reduce replies to values of coalitions."""
    value, V, T = game.value, game.variants, game.wordings
    if not archive.rows:
        raise IdentificationError("No reply has come yet.")
    keep = np.array([chosen is None or chosen(key) for key in archive.rows], dtype=bool)
    x = np.array([value.number(row) for row in archive.rows.values()], dtype=float)[keep]
    variant = np.array([v for _, v, _ in archive.rows], dtype=int)[keep]
    Z = archive.coalitions(game.n)[keep]
    packed = np.packbits(Z, axis=1)
    _, first, of = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=int)
    rank[np.argsort(first)] = np.arange(len(first))
    of, first = rank[of.ravel()], np.sort(first)
    m = len(first)
    cell = of * V + variant
    count = np.bincount(cell, minlength=m * V)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(cell, x, m * V) / count
    squares = np.bincount(cell, (x - mean[cell]) ** 2, m * V).reshape(m, V)
    counts, mean = count.reshape(m, V), mean.reshape(m, V)
    whole = (counts > 0).all(axis=1)
    Z, counts, mean, squares = Z[first][whole], counts[whole], mean[whole], squares[whole]
    of_wording = np.array([value.wording(v) for v in range(V)])
    values, var = np.empty((len(Z), T)), np.zeros((len(Z), T))
    freedom = (counts - 1).sum()
    typical = squares.sum() / freedom if freedom else 0.0
    for t in range(T):
        own = of_wording == t
        replies = counts[:, own].sum(axis=1)
        p = mean[:, own].mean(axis=1)
        values[:, t] = value.combine(p, replies)
        extra = (counts[:, own] - 1).sum(axis=1)
        spread = (squares[:, own].sum(axis=1) + _PRIOR_DF * typical) / (extra + _PRIOR_DF)
        var[:, t] = spread * (1.0 / counts[:, own]).sum(axis=1) / own.sum() ** 2
        if getattr(value, "scale", "probability") == "logit":  # delta method
            q = (p * replies + 0.5) / (replies + 1.0) if value.noisy else p
            slope = 1.0 / (q * (1.0 - q))
            var[:, t] = slope / replies if value.noisy else var[:, t] * slope**2
    return Evaluated(Z, values, var, counts.sum(axis=1), mean)


def outcomes(archive: Archive) -> pd.DataFrame:
    """Count what came back."""
    found = [
        str(row.get("outcome", "ok")) if isinstance(row, dict) else "ok"
        for row in archive.rows.values()
    ]
    return shares(pd.Series(found, dtype=object).value_counts())


def shares(counts: pd.Series) -> pd.DataFrame:
    """Outcome, count and share of each."""
    n = counts.to_numpy()
    names = [str(x) for x in counts.index]
    return pd.DataFrame({"outcome": names, "count": n, "share": n / max(n.sum(), 1)})


def _described(row: np.ndarray, players: Sequence[Component]) -> str:
    present = [c.name for c, on in zip(players, row, strict=True) if on]
    shown = ", ".join(present[:6]) + (", …" if len(present) > 6 else "")
    return f"with {len(present)} of {len(row)} components ({shown or 'none'})"


def walked(orders: np.ndarray, Z: np.ndarray) -> np.ndarray:
    """Pairs of orders all of whose prefixes were evaluated."""
    have = set(keys(Z))
    whole = [
        all(set(keys(prefixes(pair[None]))) <= have for pair in orders[k : k + 2])
        for k in range(0, len(orders) - 1, 2)
    ] if len(have) < 2 ** Z.shape[1] else [True] * (len(orders) // 2)  # fmt: skip
    return np.asarray(orders[: 2 * len(whole)][np.repeat(np.array(whole, dtype=bool), 2)])


def interleaved(Z: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Complements next to one another, so that little is lost where a budget ends."""
    size = Z.sum(axis=1)
    ends = np.flatnonzero((size == 0) | (size == Z.shape[1]))
    rest = np.setdiff1d(np.arange(len(Z)), ends)
    half = len(rest) // 2
    order = np.concatenate([ends, np.column_stack([rest[:half], rest[half : 2 * half]]).ravel()])
    order = np.concatenate([order, rest[2 * half :]]).astype(int)
    return Z[order], times[order]
