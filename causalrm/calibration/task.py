"""From the rows of a table to prompts that ask for a risk."""

from __future__ import annotations

import json
import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import narwhals as nw
import numpy as np
import pandas as pd

from causalrm.calibration.column_text import GRANULARITIES, ColumnText, is_missing, plain, storable
from causalrm.core.errors import DataError, check_choice
from causalrm.core.frame import Source

FORMATS = ("bullet", "sentence", "json")
FACTORS = ("format", "connector", "order", "granularity")
MODES = ("multiple_choice", "numeric", "reasoning")
KEYS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "in": lambda value, several: value in several,
}


@dataclass(frozen=True)
class RiskTask:
    """A question about the rows of a table, and how the rows are put into words.

    Parameters
    ----------
    question : str
        Answered by one of `choices`: "Does this person earn more than $50,000 a year?"
    columns : mapping of str to ColumnText or str
        The columns to show, in order; a string is a description alone.
    choices : sequence of str, default ("Yes", "No")
    positive : str or sequence of str, optional
        The choice or choices whose probability is the risk; the first by default.
    event : str, optional
        The same as a clause, for modes that ask for a number: "this person earns more than
        $50,000 a year". By default the probability of the positive answer is asked for.
    target : str, optional
        Column of the outcome. It must not be among `columns`.
    rule : (operator, value), default ("==", 1)
        When the target is positive; the operator is one of ==, !=, >, >=, <, <=, in.
    population : str, optional
        Who the rows are; it starts the prompt.
    format : {"bullet", "sentence", "json"}
    connector : str, optional
        Between description and value: ":" by default, "is" in sentences. Unused in JSON.
    missing : str, default "unknown"
        Text of a missing value.

    Raises
    ------
    DataError
        If these do not fit together, or the target is among the columns.

    References
    ----------
    Cruz, Hardt, Mendler-Duenner (2024). Evaluating language models as risk scores.
    arXiv:2407.14614.

    Examples
    --------
    >>> task = RiskTask("Will this patient be readmitted?",
    ...                 {"age": ColumnText("age", template="{} years"), "smokes": "smoking"},
    ...                 population="The patient below left a hospital.", target="readmitted")
    >>> print(task.prompt({"age": 71, "smokes": None}))
    The patient below left a hospital.
    <BLANKLINE>
    - age: 71 years
    - smoking: unknown
    <BLANKLINE>
    Question: Will this patient be readmitted?
    A. Yes
    B. No
    Answer with the letter of one choice.
    Answer:
    >>> RiskTask.from_json(task.to_json()) == task
    True
    """

    question: str
    columns: Mapping[str, ColumnText]
    choices: Sequence[str] = ("Yes", "No")
    positive: Sequence[str] = ()
    event: str = ""
    target: str | None = None
    rule: tuple[str, Any] = ("==", 1)
    population: str = ""
    format: str = "bullet"
    connector: str | None = None
    missing: str = "unknown"

    def __post_init__(self) -> None:
        columns = {
            name: ColumnText(text) if isinstance(text, str) else text
            for name, text in dict(self.columns).items()
        }
        choices = () if isinstance(self.choices, str) else tuple(str(c) for c in self.choices)
        positive = (self.positive,) if isinstance(self.positive, str) else tuple(self.positive)
        positive = positive or choices[:1]
        for name, value in (("columns", columns), ("choices", choices), ("positive", positive)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "rule", _check_rule(self.rule))
        described = [c.description for c in columns.values()]
        twice = [d for d, count in Counter(described).items() if count > 1]
        _need(self.question and columns, "A task needs a question and columns to show.")
        _need(all(isinstance(c, str) for c in columns), "Names of columns must be strings.")
        _need(not twice, f"Descriptions of columns must differ; {twice[:1]} is there twice.")
        _need(
            2 <= len(set(choices)) == len(choices) <= len(KEYS),
            f"choices must be 2 to {len(KEYS)} different strings; got {choices}.",
        )
        _need(
            set(positive) < set(choices),
            f"positive must be some, not all, of the choices {choices}; got {positive}.",
        )
        _need(
            self.target not in columns,
            f"The target {self.target!r} is among the columns to show: the prompt would tell "
            "the answer. Leave it out of columns.",
        )
        self._style({})

    @classmethod
    def from_frame(
        cls,
        data: Any,
        *,
        target: str,
        question: str,
        columns: Sequence[str] | None = None,
        texts: Mapping[str, ColumnText | str] | None = None,
        rule: tuple[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """Infer the texts of columns from their names, types and categories.

        Names lose their underscores; categories get a text each, which a later value must be
        among; booleans are yes or no; numbers and strings are written as they are. Then edit
        what `to_json` writes, or give better `texts`.

        Parameters
        ----------
        data : data frame
        target : str
        question : str
        columns : sequence of str, optional
            All but the target by default.
        texts : mapping of str to ColumnText or str, optional
            In place of what would be inferred.
        rule : (operator, value), optional
            Inferred for a target of booleans or of 0 and 1.
        **options
            As in :class:`RiskTask`.

        Examples
        --------
        >>> import pandas as pd
        >>> people = pd.DataFrame({"blood_type": pd.Categorical(["0", "A"]), "ill": [0, 1]})
        >>> RiskTask.from_frame(people, target="ill", question="Is she ill?").columns
        {'blood_type': ColumnText(description='blood type', values={'0': '0', 'A': 'A'}, ...)}
        """
        source = Source(data)
        names = [n for n in source.names if n != target] if columns is None else list(columns)
        if any(not isinstance(name, str) for name in names):
            raise DataError(f"Names of columns must be strings; got {names[:5]!r}. Rename them.")
        source.want([*names, target])
        frame = _memory(source)
        found: dict[str, Any] = {}
        for name in names:
            given = (texts or {}).get(name)
            found[name] = ColumnText.inferred(name, frame[name]) if given is None else given
        if rule is None:
            seen = {v for v in frame[target].to_list() if not is_missing(v)}
            if not seen <= {0, 1}:
                raise DataError(
                    f"The target {target!r} is neither boolean nor 0 and 1 (it has "
                    f"{sorted(map(repr, seen))[:4]}): say when it is positive, such as "
                    "rule=('==', value) or rule=('>', number)."
                )
            rule = ("==", 1)
        return cls(question, found, target=target, rule=rule, **options)

    # ------------------------------------------------------------------ what the data say

    def outcome(self, data: Any) -> pd.Series:
        """Tell which rows are positive: 1 or 0, NaN where the target is missing."""
        if self.target is None:
            raise DataError("This task has no target: give RiskTask(target=, rule=).")
        frame, index = self._read(data, [self.target])
        values = [_holds(self.target, v, *self.rule) for v in frame[self.target]]
        missing = any(v is None for v in values)
        return pd.Series(values, index, float if missing else int, self.target)

    def answers(self, data: Any) -> list[str]:
        """Give the right choice of every row: for two choices by the rule, else the target."""
        if len(self.choices) == 2:
            other = next(c for c in self.choices if c not in self.positive)
            found = self.outcome(data)
            if found.isna().any():
                raise DataError(f"{int(found.isna().sum())} rows have no {self.target!r}.")
            return [self.positive[0] if y else other for y in found]
        given = [str(v) for v in self._read(data, [str(self.target)])[0][str(self.target)]]
        if unknown := sorted(set(given) - set(self.choices)):
            raise DataError(
                f"With more than two choices the target {self.target!r} must hold choices; "
                f"{unknown[0]!r} is none of {self.choices}."
            )
        return given

    # ------------------------------------------------------------------ prompts

    def describe(self, data: Any, **style: Any) -> list[str]:
        """Put every row into words.

        Parameters
        ----------
        data : data frame
        **style
            `format` and `connector` as in :class:`RiskTask`; `order` of the columns ("given",
            "reversed", or an int that seeds a shuffle); `granularity` ("full" or "coarse").

        Raises
        ------
        DataError
            If a column is not there, or a value has no text.
        """
        frame, index = self._read(data, list(self.columns))
        return self._describe(frame, index, style)

    def prompts(
        self,
        data: Any,
        mode: str = "multiple_choice",
        *,
        choices: Sequence[str] | None = None,
        examples: Any = None,
        **style: Any,
    ) -> pd.Series:
        """Write one prompt per row.

        Parameters
        ----------
        data : data frame
        mode : {"multiple_choice", "numeric", "reasoning"}
        choices : sequence of str, optional
            The choices in the order in which they are to be listed.
        examples : data frame, optional
            Rows to show before, with their answers.
        **style
            As in :meth:`describe`.
        """
        check_choice("mode", mode, MODES)
        order = tuple(choices or self.choices)
        if sorted(order) != sorted(self.choices):
            raise DataError(f"choices must be the task's {self.choices} reordered; got {order}.")
        before, after = self._around(mode, order, examples, style)
        frame, index = self._read(data, list(self.columns))
        described = self._describe(frame, index, style)
        return pd.Series([before + d + after for d in described], index, dtype=object)

    def prompt(self, row: Mapping[str, Any] | pd.Series, **options: Any) -> str:
        """Write the prompt of one row, given as a mapping or a Series; options as `prompts`."""
        one = pd.DataFrame({k: pd.Series([v], dtype=object) for k, v in dict(row).items()})
        return str(self.prompts(one, **options).iloc[0])

    def _around(
        self, mode: str, choices: Sequence[str], examples: Any, style: Mapping[str, Any]
    ) -> tuple[str, str]:
        """What stands before and after the description of a row."""
        before, after = "", "\n\n" + self._ask(mode, choices)
        if self.population:
            before = self.population.strip() + "\n\n"
        if examples is not None:
            # An outcome is no probability: in modes that ask for one it is shown as an answer.
            ask = after if mode == "multiple_choice" else f"\n\nQuestion: {self.question}\nAnswer:"
            for text, answer in zip(
                self.describe(examples, **style), self.answers(examples), strict=True
            ):
                key = KEYS[list(choices).index(answer)] if mode == "multiple_choice" else answer
                before += f"{text}{ask} {key}\n\n"
        return before, after

    def _ask(self, mode: str, choices: Sequence[str]) -> str:
        if mode == "multiple_choice":
            listed = "\n".join(f"{k}. {c}" for k, c in zip(KEYS, choices, strict=False))
            return (
                f"Question: {self.question}\n{listed}\n"
                "Answer with the letter of one choice.\nAnswer:"
            )
        answer = " or ".join(f'"{c}"' for c in self.positive)
        asked = f"What is the probability that {self.event}?"
        if not self.event:
            asked = f"{self.question} What is the probability that the answer is {answer}?"
        if mode == "numeric":
            return (
                f"Question: {asked}\nAnswer with one number from 0 (impossible) to 1 (certain) "
                "and nothing else.\nProbability:"
            )
        return (
            f"Question: {asked}\nReason step by step. Then end with one line of this form, X "
            "being a number from 0 to 100:\nProbability: X%"
        )

    def _style(self, style: Mapping[str, Any]) -> dict[str, Any]:
        """Check the style and complete it."""
        full: dict[str, Any] = {"format": self.format, "connector": None, "order": "given"}
        full |= {"granularity": "full"} | dict(style)
        order, connector = full["order"], full["connector"]
        seed = isinstance(order, int) and not isinstance(order, bool) and order >= 0
        check_choice("format", full["format"], FORMATS)
        _need(isinstance(connector, str | None), f"connector must be a string; got {connector!r}.")
        _need(
            seed or order in ("given", "reversed"),
            f'order must be "given", "reversed" or an int that seeds a shuffle; got {order!r}.',
        )
        check_choice("granularity", full["granularity"], GRANULARITIES)
        unknown = sorted(full.keys() - set(FACTORS))
        _need(not unknown, f"{unknown[:1]} is not a matter of style; {FACTORS} are.")
        return full

    def _read(self, data: Any, names: list[str]) -> tuple[dict[str, list[Any]], pd.Index]:
        source = Source(data)
        source.want(names)
        frame = _memory(source)
        return {name: frame[name].to_list() for name in names}, source.index

    def _describe(
        self, frame: Mapping[str, list[Any]], index: pd.Index, style: Mapping[str, Any]
    ) -> list[str]:
        full = self._style(style)
        names = list(self.columns)
        if full["order"] == "reversed":
            names.reverse()
        elif full["order"] != "given":
            places = np.random.default_rng(full["order"]).permutation(len(names))
            names = [names[i] for i in places]
        parts = [self._lines(name, frame[name], index, full) for name in names]
        rows = zip(*parts, strict=True)
        if full["format"] == "json":
            return ["{" + ", ".join(row) + "}" for row in rows]
        return [(" " if full["format"] == "sentence" else "\n").join(row) for row in rows]

    def _lines(
        self, name: str, values: list[Any], index: pd.Index, style: Mapping[str, Any]
    ) -> list[str]:
        """Write one column; every distinct value once."""
        column, done = self.columns[name], dict[Any, str | None]()
        connector = style["connector"] or column.connector or self.connector
        out: list[str | None] = []
        for value in values:
            key = None if is_missing(value) else (type(value), value)
            try:
                if key not in done:
                    text = column.text(value, style["granularity"], self.missing)
                    done[key] = _line(column.description, text, connector, style["format"])
            except TypeError:
                raise DataError(
                    f"Column {name!r} holds {value!r:.60}, which is neither a number nor a text."
                ) from None
            out.append(done[key])
        bad = [i for i, line in enumerate(out) if line is None]
        if bad:
            unseen = list(dict.fromkeys(repr(values[i]) for i in bad))
            raise DataError(
                f"{len(bad)} of {len(values)} values of column {name!r} have no text: "
                f"{', '.join(unseen[:5])} (first rows: "
                f"{', '.join(str(index[i]) for i in bad[:5])}). Add them to the values of its "
                "ColumnText, or make them missing."
            )
        return [line for line in out if line is not None]

    # ------------------------------------------------------------------ storage

    def to_json(self, path: str | Path | None = None) -> str:
        """Write the task as JSON that people can edit; to a file as well, if a path is given."""
        out = {"kind": "RiskTask"} | {f.name: getattr(self, f.name) for f in fields(self)}
        out["columns"] = {name: c.to_plain() for name, c in self.columns.items()}
        text = json.dumps(out, ensure_ascii=False, indent=1)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    @classmethod
    def from_json(cls, source: str | Path) -> Self:
        """Read what `to_json` wrote: its text, or the path of a file.

        Raises
        ------
        DataError
            If it is not such a text.
        """
        out = read_json(source, "RiskTask")
        try:
            columns = {n: ColumnText.from_plain(c) for n, c in out.pop("columns").items()}
            return cls(columns=columns, **out)
        except DataError:
            raise
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise DataError(f"This is not a RiskTask: {error!r}.") from error


def read_json(source: str | Path, kind: str) -> dict[str, Any]:
    """Read an object of one kind from a text or a file."""
    text = str(source)
    if isinstance(source, Path) or not text.lstrip().startswith("{"):
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"Expected JSON of a {kind} or its path: {error}.") from error
    try:
        out = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"The JSON of a {kind} is damaged: {error}.") from None
    found = out.pop("kind", None) if isinstance(out, dict) else None
    if found != kind:
        raise DataError(f"Expected JSON of a {kind}; its kind is {found!r}.")
    return dict(out)


def _check_rule(rule: Sequence[Any]) -> tuple[str, Any]:
    if isinstance(rule, str) or len(rule) != 2 or rule[0] not in _OPERATORS:
        raise DataError(
            f"A rule is a pair of an operator ({', '.join(_OPERATORS)}) and a value; got {rule!r}."
        )
    value = plain(rule[1])
    several = isinstance(value, list | tuple | set | frozenset)
    items = [plain(v) for v in value] if several else [value]
    if several != (rule[0] == "in") or not all(map(storable, items)):
        raise DataError(f"A rule needs a string, number or boolean, or `in` a list; got {rule!r}.")
    return rule[0], items if several else value


def _holds(column: str, value: Any, sign: str, reference: Any) -> int | None:
    if is_missing(value):
        return None
    try:
        return int(bool(_OPERATORS[sign](value, reference)))
    except TypeError:
        raise DataError(
            f"The rule {column!r} {sign} {reference!r} cannot be applied to {value!r}."
        ) from None


def _line(description: str, text: str | None, connector: str | None, format: str) -> str | None:
    if text is None:
        return None
    if format == "json":
        return json.dumps({description: text}, ensure_ascii=False)[1:-1]
    mark = connector or ("is" if format == "sentence" else ":")
    phrase = f"{description}{'' if mark in ':;,' else ' '}{mark} {text}"
    return f"The {phrase.rstrip('.')}." if format == "sentence" else f"- {phrase}"


def _need(fine: object, message: str) -> None:
    if not fine:
        raise DataError(message)


def _memory(source: Source) -> nw.DataFrame[Any]:
    if source.kind != "memory":
        raise DataError("Rows are put into words in memory: give a data frame (compute() it).")
    return next(iter(source.parts()))
