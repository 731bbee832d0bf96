"""Asking a language model for the risk of every row of a table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import permutations as reorderings
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from causalrm.calibration.scores import STATUSES, RiskScores
from causalrm.calibration.task import FACTORS, KEYS, MODES, RiskTask
from causalrm.core.errors import DataError, check_choice
from causalrm.llm import LanguageModel, Plan

_CHUNK = 20_000  # prompts at a time: their log-probabilities take some 10 kB each

_NUMBER = (
    r"(?P<number>[-+]?(?:\d+(?:[.,]\d+)?|[.,]\d+)(?:[eE][-+]?\d+)?)"
    r"(?P<percent>\s*(?:%|per ?cent\b))?"
)
_ANY = re.compile(r"(?<![\w.,])" + _NUMBER)
_MARKS = r"[\s*_`\"'~≈$(\[]*"
_NAMED = (
    r"probability[\s*_`\"']*(?:\([^)]*\)[\s*_`\"']*)?(?:[:=]|is\b)"
    + _MARKS
    + r"(?:about|around|roughly|approximately)?\s*"
    + _NUMBER
)
_LAST = re.compile(_NAMED, re.IGNORECASE)
_LEADING = re.compile(rf"{_MARKS}(?:{_NAMED.replace(_NUMBER, '')})?{_NUMBER}", re.IGNORECASE)
_MORE = re.compile(r"\s*(?:[-\u2013\u2014/]|to|or|and)\s*[\d.]", re.IGNORECASE)
_ITEM = re.compile(r"(?:\.|\))\s+\D")  # what follows the number of a list item


class RiskScorer:
    """Scores the rows of a table by asking a language model.

    Parameters
    ----------
    task : RiskTask
    client : LanguageModel
        Anything with `complete` and `choice_probabilities`, such as
        :class:`causalrm.llm.OpenAICompatible`. Give it a cache, so that a run can go on where
        it stopped.
    mode : {"multiple_choice", "numeric", "reasoning"}
        Read the probabilities of the letters of the choices; ask for a number from 0 to 1; or
        ask for reasons and a last line "Probability: X%".
    permutations : {"all", "cyclic", "none"}
        Orders in which the choices are listed: all (at most 5 choices), each choice once at
        each place, or the task's alone. For multiple choice only.
    few_shot : data frame, optional
        Rows with their outcome, shown before the row in question.
    allow_overlap : bool, default False
        Allow rows to be scored that read exactly like one of `few_shot`.
    variations : mapping, optional
        Ways to write the prompt, all combinations of which are asked: ``format``,
        ``connector``, ``order`` and ``granularity``, each with a list of levels as in
        :meth:`RiskTask.describe`.
    replicates : int, default 1
        Independent draws of each reply, not for multiple choice.
    decoding : mapping, optional
        Passed to the client. By default a reply has at most 16 tokens (numeric) or 1024
        (reasoning), and temperature 0, or 1 with several replicates.

    Notes
    -----
    Rows that read alike are asked once. A number is read as a probability if nothing else can
    be meant: in numeric mode the first thing in the reply, or the only number in it, within 0
    to 1 or with a percent sign; in reasoning mode the last "Probability: X%", also without the
    sign unless X is 1. Ranges, numbers outside 0 to 1, replies that were cut off and refusals
    leave the row without a score and with a reason.

    Raises
    ------
    DataError
        If the arguments do not fit together.

    References
    ----------
    Cruz, Hardt, Mendler-Duenner (2024). Evaluating language models as risk scores.
    arXiv:2407.14614.

    Examples
    --------
    >>> import pandas as pd
    >>> from causalrm.calibration import RiskTask
    >>> from causalrm.llm import FunctionModel
    >>> task = RiskTask("Will it rain?", {"clouds": "cloud cover"})
    >>> simulated = FunctionModel(lambda prompt: "1" if "full" in prompt else "I cannot say.")
    >>> scorer = RiskScorer(task, simulated, mode="numeric")
    >>> sky = pd.DataFrame({"clouds": ["full", None]}, index=["Monday", "Tuesday"])
    >>> scorer.plan(sky).calls
    2
    >>> scorer.score(sky).to_frame()[["probability", "lower", "upper", "status"]]
             probability  lower  upper    status
    Monday           1.0    1.0    1.0        ok
    Tuesday          NaN    0.0    1.0  unparsed
    """

    def __init__(
        self,
        task: RiskTask,
        client: LanguageModel,
        *,
        mode: str = "multiple_choice",
        permutations: str = "all",
        few_shot: Any = None,
        allow_overlap: bool = False,
        variations: Mapping[str, Sequence[Any]] | None = None,
        replicates: int = 1,
        decoding: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(task, RiskTask) or not isinstance(client, LanguageModel):
            raise DataError(
                "RiskScorer needs a RiskTask and a client with complete and choice_probabilities; "
                f"got {type(task).__name__} and {type(client).__name__}."
            )
        check_choice("mode", mode, MODES)
        if isinstance(replicates, bool) or not isinstance(replicates, int) or replicates < 1:
            raise DataError(f"replicates must be a positive int; got {replicates!r}.")
        self.task, self.client, self.mode = task, client, mode
        self.permutations, self.replicates = permutations, replicates
        self.few_shot, self.allow_overlap = few_shot, allow_overlap
        self.variations = {name: list(levels) for name, levels in (variations or {}).items()}
        self.decoding = dict(decoding or {})
        for name, levels in self.variations.items():
            if name not in FACTORS or not levels or len(set(levels)) < len(levels):
                raise DataError(
                    f"variations are lists of different levels of {FACTORS}; got "
                    f"{name!r}: {levels!r}."
                )
        combined = product(*self.variations.values())
        self._styles = [dict(zip(self.variations, levels, strict=True)) for levels in combined]
        for style in self._styles:
            task._style(style)
        self._last: list[Any] = self._orders() if mode == MODES[0] else list(range(replicates))
        drawn = self._decoding().get("temperature") != 0
        if replicates > 1 and (mode == MODES[0] or not drawn):
            raise DataError(
                "replicates are draws of one reply: there is nothing to draw in multiple choice, "
                "nor at temperature 0."
            )
        # What stands around a row in each call; this checks the examples, too.
        self._frames = [
            task._around(mode, last if mode == MODES[0] else task.choices, few_shot, style)
            for style in self._styles
            for last in self._last
        ]

    def plan(self, data: Any, *, price: tuple[float, float] | None = None) -> Plan:
        """Count calls and tokens without sending anything.

        Parameters
        ----------
        data : data frame
        price : (float, float), optional
            Per million tokens of prompts and of replies.

        Raises
        ------
        DataError
            If rows cannot be written, or the client cannot plan.
        """
        plan = getattr(self.client, "plan", None)
        if plan is None:
            raise DataError(f"{type(self.client).__name__} has no method plan.")
        texts, index = self._texts(data)
        prompts = self._prompts(texts, range(len(index)))
        keys = list(KEYS[: len(self.task.choices)]) if self.mode == MODES[0] else None
        decoding = {k: v for k, v in self._decoding(len(index)).items() if k != "variants"}
        found: Plan = plan(prompts, keys, price=price, **decoding)
        return found

    def score(self, data: Any) -> RiskScores:
        """Ask for the risk of every row.

        Parameters
        ----------
        data : data frame
            With the columns of the task.

        Returns
        -------
        RiskScores
            One row per row of `data`, whatever came back.

        Raises
        ------
        DataError
            Before anything is sent: if rows cannot be written, or read like an example.
        BackendError
            If nothing can be sent at all.
        """
        texts, index = self._texts(data)
        codes, unique = pd.factorize(pd.Series(list(zip(*texts, strict=True)), dtype=object))
        first = pd.Series(range(len(index))).groupby(codes).first().to_numpy()
        n_calls = len(self._frames)
        parts = []
        for start in range(0, len(unique), max(1, _CHUNK // n_calls)):
            rows = first[start : start + max(1, _CHUNK // n_calls)]
            parts.append(self._ask(self._prompts(texts, rows), len(rows)))
        found = pd.concat(parts, ignore_index=True)

        def cells(name: str) -> Any:
            return found[name].to_numpy().reshape(len(unique), n_calls)[codes]

        status = cells("status").astype(np.uint8)
        reasons, failed = cells("reason"), (status != 0).argmax(1)
        design = pd.DataFrame([style for style in self._styles for _ in self._last])
        name = "choices" if self.mode == MODES[0] else "replicate"
        shown = [" | ".join(x) if isinstance(x, tuple) else x for x in self._last]
        design[name] = shown * len(self._styles)
        return RiskScores(
            task=self.task,
            mode=self.mode,
            model=str(found["model"].iloc[0]),
            index=index,
            design=design,
            status=status,
            reason=reasons[np.arange(len(index)), failed],
            **{x: cells(x).astype(float) for x in ("probability", "lower", "upper", "mass")},
        )

    def _orders(self) -> list[tuple[str, ...]]:
        choices = tuple(self.task.choices)
        if self.permutations == "all" and len(choices) <= 5:
            return list(reorderings(choices))
        if self.permutations == "cyclic":
            return [choices[i:] + choices[:i] for i in range(len(choices))]
        if self.permutations == "none":
            return [choices]
        raise DataError(
            'permutations must be "all" (of at most 5 choices), "cyclic" or "none"; got '
            f"{self.permutations!r} with {len(choices)} choices."
        )

    def _decoding(self, n_rows: int = 1) -> dict[str, Any]:
        if self.mode == MODES[0]:
            return self.decoding
        limit = {"max_tokens": 16 if self.mode == "numeric" else 1024}
        if "max_completion_tokens" in self.decoding:
            limit = {}
        out = {**limit, "temperature": 0 if self.replicates == 1 else 1, **self.decoding}
        if self.replicates > 1:
            out["replicate"] = self._last * (len(self._styles) * n_rows)
        return out

    def _texts(self, data: Any) -> tuple[list[list[str]], pd.Index]:
        """Write every row in every style; refuse rows that are among the examples."""
        frame, index = self.task._read(data, list(self.task.columns))
        if self.few_shot is not None and not self.allow_overlap:
            shown = set(self.task.describe(self.few_shot))
            texts = self.task._describe(frame, index, {})
            if same := [i for i, text in enumerate(texts) if text in shown]:
                raise DataError(
                    f"{len(same)} of {len(index)} rows read exactly like an example of few_shot, "
                    f"whose outcome the prompt tells (first rows: "
                    f"{', '.join(str(index[i]) for i in same[:5])}). Leave them out, or set "
                    "allow_overlap=True if they are other people."
                )
        return [self.task._describe(frame, index, style) for style in self._styles], index

    def _prompts(self, texts: list[list[str]], rows: Any) -> list[str]:
        """All calls of the first row, then those of the second, ..."""
        per_style = len(self._last)
        return [
            before + texts[k // per_style][i] + after
            for i in rows
            for k, (before, after) in enumerate(self._frames)
        ]

    def _ask(self, prompts: list[str], n_rows: int) -> pd.DataFrame:
        """Send prompts; one row per prompt: probability, lower, upper, mass, status, reason."""
        if self.mode == MODES[0]:
            keys = list(KEYS[: len(self.task.choices)])
            found = self.client.choice_probabilities(prompts, keys, **self._decoding(n_rows))
            out = _from_choices(found, keys, self._is_positive(n_rows))
        else:
            found = self.client.complete(prompts, **self._decoding(n_rows))
            out = _from_texts(found, self.mode)
        out["model"] = found["model"].to_numpy()
        return out

    def _is_positive(self, n_rows: int) -> np.ndarray:
        """Which keys stand for a positive choice, shape (n_prompts, n_keys)."""
        rows = [[c in self.task.positive for c in order] for order in self._last]
        return np.tile(np.array(rows), (len(self._styles) * n_rows, 1))


def _from_choices(found: pd.DataFrame, keys: list[str], positive: np.ndarray) -> pd.DataFrame:
    values = [
        found[[f"{kind}[{key}]" for key in keys]].to_numpy(float)
        for kind in ("probability", "lower", "upper")
    ]
    (p, low, high), (_, other_low, other_high) = (
        [np.where(mask, v, 0.0).sum(1) for v in values] for mask in (positive, ~positive)
    )
    out = _outcome(np.minimum(p, 1.0), found["status"].tolist(), found["reason"].tolist())
    ok = out["status"] == 0
    # Several positive choices cannot all be at their bounds; the others bound them, too.
    out["lower"] = np.where(ok, np.minimum(np.maximum(low, 1 - other_high), p), 0.0)
    out["upper"] = np.where(
        ok, np.maximum(np.minimum(high, 1 - other_low), out["probability"]), 1.0
    )
    out["mass"] = found["mass"].to_numpy(float)
    return out


def _from_texts(found: pd.DataFrame, mode: str) -> pd.DataFrame:
    parse = read_number if mode == "numeric" else read_last_probability
    p = np.full(len(found), np.nan)
    status, reason = found["status"].tolist(), found["reason"].tolist()
    for i, (text, finish) in enumerate(zip(found["text"], found["finish_reason"], strict=True)):
        if status[i] == "ok":
            value = parse(text, cut=finish == "length")
            if isinstance(value, str):
                status[i], reason[i] = "unparsed", value
            else:
                p[i] = value
    out = _outcome(p, status, reason)
    out["lower"], out["upper"] = out["probability"].fillna(0.0), out["probability"].fillna(1.0)
    return out.assign(mass=np.nan)


def _outcome(p: np.ndarray, status: Sequence[str], reason: Sequence[Any]) -> pd.DataFrame:
    """Put probabilities beside their status; a client's ok without a number is an error."""
    names, reasons = list(status), list(reason)
    for i, name in enumerate(names):
        if name == "ok" and not 0 <= p[i] <= 1:
            names[i], reasons[i] = "error", f"the client gave the probability {p[i]}"
    codes = np.array([STATUSES.index(name) for name in names])
    return pd.DataFrame(
        {
            "probability": np.where(codes == 0, p, np.nan),
            "status": codes,
            "reason": pd.Series(reasons, dtype=object),
        }
    )


def read_number(text: str, cut: bool = False) -> float | str:
    """Read a reply that should be one number from 0 to 1; a string says why it is none.

    Examples
    --------
    >>> [read_number(t) for t in ("1", "Probability: **70 %**", ".05 because he is old")]
    [1.0, 0.7, 0.05]
    >>> read_number("between 0.2 and 0.4")
    "several numbers in the reply: 'between 0.2 and 0.4'"
    """
    reply = text.strip()
    shown = f"{reply[:60]!r}"
    match = _LEADING.match(reply)
    if match is None or _is_item(match):
        found = [m for m in _ANY.finditer(reply) if not _is_item(m)]
        if not found:
            return f"no number in the reply: {shown}"
        if len({_value(m) for m in found}) > 1:
            return f"several numbers in the reply: {shown}"
        match = found[-1]
    if _MORE.match(reply, match.end()):
        return f"a range and no number: {shown}"
    if cut and match.end() == len(reply):
        return f"cut off within or after the number, raise max_tokens: {shown}"
    value = _value(match)
    return value if 0 <= value <= 1 else f"the number is outside 0 to 1: {shown}"


def read_last_probability(text: str, cut: bool = False) -> float | str:
    r"""Read the last "Probability: X%" of a reply; a string says why there is none.

    Examples
    --------
    >>> read_last_probability("At first, probability: 20%. But he smokes.\nProbability: 35%")
    0.35
    >>> read_last_probability("Probability: 1")
    "1 without a percent sign may be 1% or 100%: 'Probability: 1'"
    """
    reply = text.strip()
    shown = f"{reply[-60:]!r}"
    if cut:
        return f"cut off by max_tokens, raise it: {shown}"
    found = list(_LAST.finditer(reply))
    if not found:
        return f'no "Probability: X%" in the reply: {shown}'
    match, value = found[-1], _value(found[-1])
    if _MORE.match(reply, match.end()):
        return f"a range and no number: {shown}"
    if match["percent"] is None and value == 1:
        return f"1 without a percent sign may be 1% or 100%: {shown}"
    if match["percent"] is None and 1 < value <= 100:
        value /= 100
    return value if 0 <= value <= 1 else f"the number is outside 0 to 100%: {shown}"


def _is_item(match: re.Match[str]) -> bool:
    """Tell the "1" of "1. First ..." from a number."""
    return match["number"].isdigit() and _ITEM.match(match.string, match.end()) is not None


def _value(match: re.Match[str]) -> float:
    value = float(match["number"].replace(",", "."))
    return value / 100 if match["percent"] else value
