"""One pass over preferences: the questions to the oracle, and the rows of pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from causalrm.augment._preferences import Preferences, compare
from causalrm.augment.oracle import STEPS, Ask, Attribute, OracleReply
from causalrm.augment.report import AugmentationReport
from causalrm.core.errors import DataError
from causalrm.core.random import RNG, resolve, spawn

#: Kinds of neutral pairs, and the kind of RRM that is ordered.
NEUTRALS = ("irrelevant_query", "paraphrase", "aligned", "non_contextual", "non_contextual_tie")
#: What can become of a pair.
STATUSES = {
    "ok": "to be used",
    "not_verified": "the oracle says that the attribute did not move much, or others did",
    "identical": "the two answers are the same",
    "empty": "an answer has no text",
    "failed": "the oracle gave no reply that can be used",
}
COLUMNS = (
    "pair", "parent", "cluster", "query", "answer_a", "answer_b", "target", "kind", "attribute",
    "direction", "status",
)  # fmt: skip
_BLOCK = 1000  # pairs that are worked on at a time
_N_ELEMENTS = 5
DIRECTIONS = ("upgrade", "degrade")


class Run:
    """One pass over the preferences with one oracle."""

    def __init__(
        self, oracle: Any, table: Preferences, n_attributes: int, ratios: Mapping[str, float],
        rng: RNG,
    ) -> None:  # fmt: skip
        self.oracle, self.table = oracle, table
        self.n_attributes, self.ratios = n_attributes, ratios
        self.tally: dict[str, Counter[str]] = {}
        self.costs: dict[str, float] = {}
        self.failures: list[tuple[str, Any, str]] = []
        _, self.entropy = resolve(rng)
        children = spawn(self.entropy, len(NEUTRALS))
        self.rngs = dict(zip(NEUTRALS, children, strict=True))
        self.rows_of: dict[int, list[int]] = {}
        for i, code in enumerate(table.cluster):
            self.rows_of.setdefault(code, []).append(i)
        self.usable = [i for i, status in enumerate(table.status) if not status]

    def rows(self) -> list[tuple[Any, ...]]:
        """Make all pairs, without the number of each."""
        causal = self._causal() if self.n_attributes else []
        rows = list(causal)
        for kind in self.ratios:
            n = round(self.ratios[kind] * len(self.table.queries))
            make = getattr(self, f"_{kind}")
            if n and self.usable:
                rows += make(n, self.rngs[kind], causal)
        return rows

    def report(self, frame: pd.DataFrame) -> AugmentationReport:
        """Count what was made and what was asked."""
        columns = ["asked", "calls", "cached", "retries", "failed", "prompt_tokens",
                   "completion_tokens"]  # fmt: skip
        steps = pd.DataFrame(
            [[self.tally[s][c] for c in columns] for s in STEPS if s in self.tally],
            index=pd.Index([s for s in STEPS if s in self.tally], name="step"),
            columns=columns,
            dtype=int,
        )
        steps["cost"] = [self.costs.get(s, 0.0) for s in steps.index]
        made = Counter(zip(frame["kind"], frame["status"], strict=True))
        kinds = [k for k in ("causal", *self.ratios) if any(made[k, s] for s in STATUSES)]
        pairs = pd.DataFrame(
            [[made[k, s] for s in STATUSES] for k in kinds],
            index=pd.Index(kinds, name="kind"),
            columns=list(STATUSES),
            dtype=int,
        )
        return AugmentationReport(
            planned=False,
            n_preferences=len(self.table.queries),
            pairs=pairs,
            steps=steps,
            failures=pd.DataFrame(self.failures[:1000], columns=["step", "parent", "reason"]),
            entropy=self.entropy,
        )

    # ------------------------------------------------------------------ asking

    def _ask(self, step: str, asks: list[tuple[int, Ask]]) -> list[OracleReply]:
        """Put each different question once; give a reply to every question, in order."""
        keys = [ask.key for _, ask in asks]
        first: dict[str, int] = {}
        for k, key in enumerate(keys):
            first.setdefault(key, k)
        replies = getattr(self.oracle, step)([asks[k][1] for k in first.values()])
        if len(replies) != len(first):
            raise DataError(
                f"The oracle's {step} was asked {len(first)} questions and gave {len(replies)} "
                "replies; it must give one for each, in order."
            )
        tally = self.tally.setdefault(step, Counter())
        tally["asked"] += len(first)
        for k, reply in zip(first.values(), replies, strict=True):
            for name in ("calls", "cached", "retries", "prompt_tokens", "completion_tokens"):
                tally[name] += getattr(reply, name)
            self.costs[step] = self.costs.get(step, 0.0) + reply.cost
            if reply.status != "ok":
                tally["failed"] += 1
                self._note(step, asks[k][0], reply.reason or "no reason was given")
        found = dict(zip(first, replies, strict=True))
        return [found[key] for key in keys]

    def _note(self, step: str, row: int, reason: str) -> None:
        self.failures.append((step, self.table.index[row], reason))

    def _row(
        self, i: int, a: Any, b: Any, target: float, kind: str, *,
        query: Any = None, attribute: str = "", direction: str = "", status: str = "ok",
    ) -> tuple[Any, ...]:  # fmt: skip
        table = self.table
        asked = table.queries[i] if query is None else query
        return (
            table.index[i], table.cluster[i], asked, a, b, target, kind, attribute, direction,
            status,
        )  # fmt: skip

    # ------------------------------------------------------------------ causal pairs

    def _causal(self) -> list[tuple[Any, ...]]:
        table, n = self.table, self.n_attributes
        keys = [self._key(i) for i in range(len(table.queries))]
        first: dict[str, int] = {}
        for i in self.usable:
            first.setdefault(keys[i], i)
        made: dict[str, list[dict[str, Any]]] = {}
        todo = list(first.items())
        for start in range(0, len(todo), _BLOCK):
            made.update(self._block(todo[start : start + _BLOCK]))
        rows = []
        for i, status in enumerate(table.status):
            found = made[keys[i]] if not status else [
                {"direction": d, "status": status} for _ in range(n) for d in DIRECTIONS
            ]  # fmt: skip
            for pair in found:
                new, up = pair.get("new"), pair["direction"] == "upgrade"
                a, b = (new, table.rejected[i]) if up else (table.chosen[i], new)
                rows.append(
                    self._row(
                        i, a, b, 1.0, "causal", attribute=pair.get("attribute", ""),
                        direction=pair["direction"], status=pair["status"],
                    )
                )  # fmt: skip
        return rows

    def _key(self, i: int) -> str:
        t = self.table
        return Ask(step="", query=t.queries[i], answer=t.chosen[i], other=t.rejected[i]).key

    def _block(self, todo: list[tuple[str, int]]) -> dict[str, list[dict[str, Any]]]:
        """Ask all that concerns some preferences, step by step."""
        t, n = self.table, self.n_attributes

        def ask(step: str, key: str, i: int, **what: Any) -> tuple[int, Ask]:
            what = {"answer": t.chosen[i], "other": t.rejected[i]} | what
            return i, Ask(step=step, query=t.queries[i], pair=key, **what)

        named = self._ask("attributes", [ask("attributes", key, i, n=n) for key, i in todo])
        work: list[dict[str, Any]] = []
        for (key, i), reply in zip(todo, named, strict=True):
            names: list[Attribute] = list(reply.value) if reply.status == "ok" else []
            if reply.status == "ok" and len(names) != n:
                self._note("attributes", i, f"{len(names)} attributes where {n} were asked for")
                names = []
            work += [
                {"key": key, "i": i, "attribute": names[k].name if names else "",
                 "status": "failed"}
                for k in range(n)
            ]  # fmt: skip
        open_ = [w for w in work if w["attribute"]]
        for w, reply in zip(
            open_,
            self._ask(
                "elements",
                [
                    ask("elements", w["key"], w["i"], attribute=w["attribute"], n=_N_ELEMENTS)
                    for w in open_
                ],
            ),
            strict=True,
        ):
            w["elements"] = reply.value if reply.status == "ok" else None
        pairs = [{**w, "direction": d} for w in work for d in DIRECTIONS]
        self._rewrite([p for p in pairs if p.get("elements") is not None], ask)
        out: dict[str, list[dict[str, Any]]] = {key: [] for key, _ in todo}
        for pair in pairs:
            out[pair["key"]].append(pair)
        return out

    def _rewrite(self, pairs: list[dict[str, Any]], ask: Any) -> None:
        t = self.table
        for p in pairs:
            both = (t.rejected[p["i"]], t.chosen[p["i"]])
            p["old"], p["else"] = both if p["direction"] == "upgrade" else both[::-1]
        asks = [
            ask(
                "rewrite", p["key"], p["i"], answer=p["old"], other=p["else"],
                attribute=p["attribute"], direction=p["direction"], elements=p["elements"],
            )
            for p in pairs
        ]  # fmt: skip
        for p, reply in zip(pairs, self._ask("rewrite", asks), strict=True):
            if reply.status == "ok":
                p["new"] = reply.value
                p["status"] = compare(p["old"], reply.value) or "ok"
        new = [p for p in pairs if p["status"] == "ok"]
        asks = [
            ask(
                "verify", p["key"], p["i"], answer=p["old"], other=p["new"],
                attribute=p["attribute"], direction=p["direction"],
            )
            for p in new
        ]  # fmt: skip
        for p, reply in zip(new, self._ask("verify", asks), strict=True):
            if reply.status != "ok":
                p["status"] = "failed"
            elif not reply.value:
                p["status"] = "not_verified"
                self._note("verify", p["i"], reply.reason or "no reason was given")

    # ------------------------------------------------------------------ neutral pairs

    def _irrelevant_query(
        self, n: int, rng: np.random.Generator, causal: list[tuple[Any, ...]]
    ) -> list[tuple[Any, ...]]:
        t = self.table
        # With the place of its parent: a label may be there twice.
        each = 2 * self.n_attributes
        sources = [(k // each, row[3], row[4]) for k, row in enumerate(causal) if row[-1] == "ok"]
        n_causal = n // 2 if sources else 0
        drawn = [self.usable[k] for k in rng.integers(len(self.usable), size=n - n_causal)]
        pairs = [(i, t.chosen[i], t.rejected[i]) for i in drawn]
        if n_causal:
            pairs += [sources[k] for k in rng.integers(len(sources), size=n_causal)]
        out = []
        for i, a, b in pairs:
            other = t.distinct[t.unrelated(t.cluster[i], rng)]
            a, b = self._beside(a), self._beside(b)
            out.append(self._row(i, a, b, 0.5, "irrelevant_query", query=other))
        return out

    def _beside(self, answer: Any) -> Any:
        """An answer beside an unrelated question: for vectors its features are others there."""
        if isinstance(answer, np.ndarray):
            return self.oracle.beside(answer)
        return answer

    def _paraphrase(self, n: int, rng: np.random.Generator, _: Any) -> list[tuple[Any, ...]]:
        t = self.table
        places = [(i, side) for i in self.usable for side in (t.chosen, t.rejected)]
        drawn = [places[k] for k in sorted(rng.permutation(len(places))[:n])]
        asks = [
            (i, Ask(step="paraphrase", query=t.queries[i], answer=side[i], pair=self._key(i)))
            for i, side in drawn
        ]
        replies = self._ask("paraphrase", asks)
        return [
            self._tie(i, side[i], reply, "paraphrase")
            for (i, side), reply in zip(drawn, replies, strict=True)
        ]

    def _aligned(self, n: int, rng: np.random.Generator, _: Any) -> list[tuple[Any, ...]]:
        t = self.table
        drawn = [self.usable[k] for k in sorted(rng.permutation(len(self.usable))[:n])]
        asks = [
            (i, Ask(
                step="align", query=t.queries[i], answer=t.rejected[i], other=t.chosen[i],
                pair=self._key(i),
            ))
            for i in drawn
        ]  # fmt: skip
        replies = self._ask("align", asks)
        return [
            self._tie(i, t.chosen[i], reply, "aligned")
            for i, reply in zip(drawn, replies, strict=True)
        ]

    def _tie(self, i: int, answer: Any, reply: OracleReply, kind: str) -> tuple[Any, ...]:
        status = "failed" if reply.status != "ok" else compare(answer, reply.value) or "ok"
        return self._row(i, answer, reply.value, 0.5, kind, status=status)

    def _non_contextual(self, n: int, rng: np.random.Generator, _: Any) -> list[tuple[Any, ...]]:
        out = []
        for _ in range(n):
            i = self._place(rng)
            own, other = self._either(i, rng), self._foreign(i, rng)
            status = compare(own, other) or "ok"
            out.append(self._row(i, own, other, 1.0, "non_contextual", status=status))
        return out

    def _non_contextual_tie(
        self, n: int, rng: np.random.Generator, _: Any
    ) -> list[tuple[Any, ...]]:
        out = []
        for _ in range(n):
            i = self._place(rng)
            a, b = self._foreign(i, rng), self._foreign(i, rng)
            status = compare(a, b) or "ok"
            out.append(self._row(i, a, b, 0.5, "non_contextual_tie", status=status))
        return out

    def _place(self, rng: np.random.Generator) -> int:
        return self.usable[int(rng.integers(len(self.usable)))]

    def _either(self, i: int, rng: np.random.Generator) -> Any:
        return (self.table.chosen, self.table.rejected)[int(rng.integers(2))][i]

    def _foreign(self, i: int, rng: np.random.Generator) -> Any:
        """Draw an answer to a question that is unrelated to that of a row."""
        rows = self.rows_of[self.table.unrelated(self.table.cluster[i], rng)]
        return self._beside(self._either(rows[int(rng.integers(len(rows)))], rng))
