"""What a coalition of components is worth: choices, scores, or any set function."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from causalrm.attribution._replies import check_replies, chosen, common
from causalrm.attribution.archive import Row
from causalrm.attribution.template import OPTIONS, Component, Pieces, PromptTemplate, Resample
from causalrm.core.errors import BackendError, DataError
from causalrm.llm.plan import Plan
from causalrm.llm.reply import LanguageModel

_LABELS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ORDER = "option order"


class Value(ABC):
    """A value function: asks for replies, and reads a number off each.

    Attributes
    ----------
    noisy : bool
        Whether asking again may give another number.
    binary : bool
        Whether the number of a reply is 0 or 1.
    replies : int
        Replies asked of each coalition and variant of the prompt.
    """

    noisy = False
    binary = False
    replies = 1

    def players(self, template: Any) -> tuple[Component, ...]:
        """Players of the game; by default the template's components."""
        return tuple(template.components)

    def variants(self, template: Any) -> int:
        """Wordings and option orders in which every coalition is asked."""
        return 1

    def wording(self, variant: int) -> int:
        """Which paraphrase of the template a variant is."""
        return 0

    def batch(self) -> int:
        """Requests that are sent together; all of them are archived when they are back."""
        return 1

    @abstractmethod
    def ask(
        self, template: Any, Z: np.ndarray, variant: np.ndarray, replicate: np.ndarray
    ) -> Sequence[Row | float | None]:
        """Ask for one reply per row; None where there is none."""

    @abstractmethod
    def number(self, row: Any) -> float:
        """Read the value off an archived reply."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Describe all that decides replies, but not how they are read."""

    def combine(self, numbers: np.ndarray, count: np.ndarray) -> np.ndarray:
        """Turn mean numbers of coalitions into values."""
        return numbers


class SetFunction(Value):
    """Any game: a function of coalitions.

    Parameters
    ----------
    function : callable
        Takes coalitions as a bool array of shape (m, n), returns m numbers.
    replies : int, default 1
        Above 1 the function is taken to be noisy, and is asked so often.
    binary : bool, default False
        Whether it returns noisy zeros and ones, for which one reply is enough.
    """

    def __init__(
        self, function: Callable[[np.ndarray], Any], replies: int = 1, binary: bool = False
    ) -> None:
        self.function, self.replies, self.binary = function, check_replies(replies), binary
        self.noisy = binary or replies > 1

    def batch(self) -> int:
        """Coalitions in one call of the function."""
        return 65_536

    def ask(
        self, template: Any, Z: np.ndarray, variant: np.ndarray, replicate: np.ndarray
    ) -> Sequence[Row | float | None]:
        """Call the function."""
        found = np.asarray(self.function(Z))
        if found.shape != (len(Z),) or found.dtype.kind not in "biuf":
            raise DataError(
                f"The value function must return one number for each of the {len(Z)} coalitions "
                f"it is given, shape ({len(Z)},); got shape {found.shape} of {found.dtype}."
            )
        if self.binary and not np.isin(found, (0, 1)).all():
            raise DataError("A binary value function must return 0 or 1.")
        return [float(x) for x in found]

    def number(self, row: Any) -> float:
        """Return the value itself."""
        return float(row)

    def fingerprint(self) -> dict[str, Any]:
        """Name the kind; a function cannot be compared with another."""
        return {"value": "SetFunction", "binary": self.binary}


class _PromptValue(Value):
    """A value function of prompts."""

    client: LanguageModel | None
    decoding: dict[str, Any]

    def _texts(self, template: PromptTemplate) -> list[Pieces]:
        """Pieces of the prompt of each variant; every component must stand in one of them."""
        pieces = [template.compile(text) for text in self._wordings(template)]
        for variant in pieces:
            used = {i for _, i in variant}
            if missing := [c.name for i, c in enumerate(template.components) if i not in used]:
                raise DataError(
                    f"The component {missing[0]!r} has no placeholder {{{missing[0]}}} in the "
                    "prompt, so that it can have no effect. Put it into the text or an option."
                )
        return pieces

    def _wordings(self, template: PromptTemplate) -> list[str]:
        return list(template.texts)

    def prompts(
        self, template: PromptTemplate, Z: np.ndarray, variant: np.ndarray, replicate: np.ndarray
    ) -> list[str]:
        """Render the prompt of each row."""
        pieces = self._texts(template)
        out = []
        for row, v, r in zip(Z, variant, replicate, strict=True):
            draw = f"{np.packbits(row[: len(template)]).tobytes().hex()} {r}"
            text = template.render(row[: len(template)], pieces=pieces[v], draw=draw)
            if not text:
                raise DataError(
                    "The prompt is empty when all components are absent. Leave some text outside "
                    "the components, or use Mask or Neutral in place of Drop."
                )
            out.append(text)
        return out

    def resamples(self, template: PromptTemplate) -> bool:
        """Whether prompts themselves are drawn."""
        return any(isinstance(c.baseline, Resample) for c in template.components)

    def batch(self) -> int:
        """Return the number of requests under way at once; more with a cache, which keeps them."""
        many = int(getattr(self.client, "concurrency", 1))
        return many if getattr(self.client, "cache", None) is None else 16 * many

    def _client(self) -> dict[str, Any]:
        name, revision = (getattr(self.client, a, None) for a in ("name", "revision"))
        return {"model": name, "revision": revision, "decoding": self.decoding}

    def _complete(self, prompts: list[str], replicate: np.ndarray) -> Any:
        assert self.client is not None
        return self.client.complete(prompts, replicate=replicate.tolist(), **self.decoding)

    def plan(
        self, template: PromptTemplate, Z: np.ndarray, variant: np.ndarray, replicate: np.ndarray,
        price: tuple[float, float] | None,
    ) -> Plan:  # fmt: skip
        """Count calls and tokens without sending anything."""
        if self.client is None or not hasattr(self.client, "plan"):
            raise DataError(f"The client {self.client!r} cannot plan; those of causalrm.llm can.")
        prompts = self.prompts(template, Z, variant, replicate)
        options = {"replicate": replicate.tolist(), **self.decoding}
        found: Plan = self.client.plan(prompts, price=price, **options)
        return found


class ChoiceValue(_PromptValue):
    """Probability that a language model picks an option.

    Parameters
    ----------
    client : LanguageModel
        From `causalrm.llm`, or anything with its two methods.
    options : sequence of str
        Texts of two or more options; they may hold placeholders of components. They are shown
        as ``A. ...``, ``B. ...`` on lines of their own, at ``{options}`` or at the end.
    target : str or int
        The option whose probability is the value, or its position.
    mode : {"logprob", "sample"}
        Read the probability of the answer's first token, or count replies.
    replies : int, optional
        Replies to each variant of a coalition's prompt; 1 by default.
    counterbalance : bool or "player", default True
        Show the options in as many orders as there are options, each option once at each
        place, and average. "player" makes the order a player in place of that: present is the
        order given, absent the reverse.
    scale : {"probability", "logit"}
        Log-odds need the target's probability to lie between 0 and 1; from replies they are
        those of (k + 1/2) of (m + 1), and m must be 10 or more.
    question : str
        Stands after the options.
    **decoding
        Passed to the client, such as ``temperature`` or ``max_tokens``.

    Notes
    -----
    A refusal, an empty reply, one that names no option and one without mass on any option are
    outcomes: they are counted, and not the target. A call that fails altogether stops the fit.
    With ``mode="logprob"`` the probability is given that one of the options is taken; the mass
    on all of them is archived with it.

    Examples
    --------
    >>> from causalrm.llm import FunctionModel
    >>> simulated = FunctionModel(lambda prompt: {"A": 0.7, "B": 0.3} if "cheap" in prompt else {
    ...     "A": 0.5, "B": 0.5}, name="simulated")
    >>> template = PromptTemplate("Which one? {word}", [Component("word", "The first is cheap.")])
    >>> value = ChoiceValue(simulated, ["this", "that"], "this", counterbalance=False)
    >>> rows = value.ask(template, np.array([[True], [False]]), np.zeros(2, int), np.zeros(2, int))
    >>> [value.number(row) for row in rows]
    [0.7, 0.5]
    """

    def __init__(
        self,
        client: LanguageModel,
        options: Sequence[str],
        target: str | int = 0,
        *,
        mode: str = "logprob",
        replies: int | None = None,
        counterbalance: bool | str = True,
        scale: str = "probability",
        question: str = "Answer with the letter of one option only.",
        **decoding: Any,
    ) -> None:
        if isinstance(options, str) or not 2 <= len(set(options)) == len(options) <= 26:
            raise DataError(f"options must be 2 to 26 different texts; got {options!r}.")
        if mode not in ("logprob", "sample"):
            raise DataError(f"mode must be 'logprob' or 'sample'; got {mode!r}.")
        if scale not in ("probability", "logit"):
            raise DataError(f"scale must be 'probability' or 'logit'; got {scale!r}.")
        if counterbalance not in (True, False, "player"):
            raise DataError(
                f"counterbalance must be True, False or 'player'; got {counterbalance!r}."
            )
        if isinstance(target, int) and 0 <= target < len(options):
            target = options[target]
        if target not in options:
            raise DataError(f"target must be one of the options {list(options)}; got {target!r}.")
        self.client, self.options, self.target = client, tuple(options), str(target)
        self.mode, self.scale, self.question = mode, scale, question
        self.counterbalance, self.decoding = counterbalance, decoding
        self.replies = check_replies(1 if replies is None else replies)
        self.noisy = mode == "sample" and decoding.get("temperature", 1) != 0
        self.binary = self.noisy and scale == "probability"

    @property
    def labels(self) -> list[str]:
        """The letters that stand before the options."""
        return list(_LABELS[: len(self.options)])

    def players(self, template: PromptTemplate) -> tuple[Component, ...]:
        """Return the template's components, and the order of options where it is a player."""
        extra = (Component(ORDER, role="neutral"),) if self.counterbalance == "player" else ()
        return (*template.components, *extra)

    @property
    def _orders(self) -> list[tuple[int, ...]]:
        k = len(self.options)
        given = tuple(range(k))
        if self.counterbalance == "player":
            return [given[::-1], given]
        return [given[i:] + given[:i] for i in range(k if self.counterbalance else 1)]

    def variants(self, template: PromptTemplate) -> int:
        """Wordings times orders."""
        orders = 1 if self.counterbalance == "player" else len(self._orders)
        return len(template.texts) * orders

    def wording(self, variant: int) -> int:
        """Paraphrase of a variant."""
        return variant // (1 if self.counterbalance == "player" else len(self._orders))

    def _wordings(self, template: PromptTemplate) -> list[str]:
        out = []
        for text in template.texts:
            for order in self._orders:
                lines = [f"{label}. {self.options[o]}" for label, o in zip(self.labels, order)]  # noqa: B905
                block = "\n".join(lines)
                mark = "{" + OPTIONS + "}"
                whole = text.replace(mark, block) if mark in text else f"{text}\n{block}"
                out.append(f"{whole}\n{self.question}".strip())
        return out

    def _cells(self, Z: np.ndarray, variant: np.ndarray) -> np.ndarray:
        """Which text of `_wordings` each row is asked in."""
        if self.counterbalance != "player":
            return variant
        return np.asarray(2 * variant + Z[:, -1])

    def ask(
        self, template: PromptTemplate, Z: np.ndarray, variant: np.ndarray, replicate: np.ndarray
    ) -> Sequence[Row | float | None]:
        """Send the prompts."""
        cells = self._cells(Z, variant)
        prompts = self.prompts(template, Z, cells, replicate)
        if self.mode == "sample":
            frame = self._complete(prompts, replicate)
        else:
            frame = self.client.choice_probabilities(  # type: ignore[union-attr]
                prompts, self.labels, replicate=replicate.tolist(), **self.decoding
            )
            if (frame["status"] == "no_logprobs").any():
                raise BackendError(
                    "The client gives no log-probabilities. Use mode='sample', which counts "
                    "replies."
                )
        columns = [f"probability[{label}]" for label in self.labels]
        probabilities = None
        if self.mode == "logprob":
            probabilities = frame[columns].to_numpy(float)
        out: list[Row | None] = []
        for i, row in enumerate(frame.to_dict("records")):
            if row["status"] == "error":
                out.append(None)
                continue
            order = self._orders[cells[i] % len(self._orders)]
            reply = common(row, prompts[i])
            if probabilities is None:
                at = chosen(row["text"], self.labels, [self.options[o] for o in order])
                known = row["status"] != "ok" or at is None
                reply["outcome"] = (
                    self.options[order[at]]
                    if not known and at is not None
                    else ("unparseable" if row["status"] == "ok" else row["status"])
                )
            elif row["status"] == "ok":
                reply["mass"] = float(row["mass"])
                p = dict(zip(order, probabilities[i].tolist(), strict=True))
                reply["probabilities"] = [p[o] for o in range(len(order))]
                reply["outcome"] = "ok"
            else:
                reply["outcome"] = row["status"]
            out.append(reply)
        return out

    def number(self, row: Any) -> float:
        """Return the target's probability, or whether it was chosen."""
        if self.mode == "sample":
            return float(row["outcome"] == self.target)
        if row["outcome"] != "ok":
            return 0.0
        return float(row["probabilities"][self.options.index(self.target)])

    def combine(self, numbers: np.ndarray, count: np.ndarray) -> np.ndarray:
        """Take log-odds where they are asked for."""
        if self.scale == "probability":
            return numbers
        p = numbers
        if self.mode == "sample":
            p = (numbers * count + 0.5) / (count + 1.0)
            if count.min() < 10:
                raise DataError(
                    f"Log-odds of {int(count.min())} replies are badly biased. Ask 10 or more "
                    "(replies times option orders), or use scale='probability'."
                )
        elif np.any((p <= 0.0) | (p >= 1.0)):
            raise DataError(
                f"The target has probability 0 or 1 in {int(np.sum((p <= 0) | (p >= 1)))} of "
                f"{len(p)} coalitions, so that its log-odds are infinite. Use "
                "scale='probability'."
            )
        return np.asarray(np.log(p) - np.log1p(-p))

    def fingerprint(self) -> dict[str, Any]:
        """All but target and scale, which may be changed when an archive is read again."""
        return {
            "value": "ChoiceValue",
            "options": list(self.options),
            "mode": self.mode,
            "counterbalance": self.counterbalance,
            "question": self.question,
            **self._client(),
        }

    def plan(
        self, template: PromptTemplate, Z: np.ndarray, variant: np.ndarray, replicate: np.ndarray,
        price: tuple[float, float] | None,
    ) -> Plan:  # fmt: skip
        """Count calls and tokens without sending anything."""
        return super().plan(template, Z, self._cells(Z, variant), replicate, price)


class ScoreValue(_PromptValue):
    """Any number computed from prompts, or from a language model's replies to them.

    Parameters
    ----------
    score : callable
        Text to number. Without a client the text is the prompt (a reward model, a length); with
        one it is the reply (a similarity to an answer, a sentiment).
    client : LanguageModel, optional
    replies : int, default 1
        Replies to each coalition. At least 2 where replies are drawn, or their noise could not
        be told from the effect of components.
    **decoding
        Passed to the client; with ``temperature=0`` replies are taken to be fixed, and one is
        enough.

    Notes
    -----
    Refusals and empty replies go to `score` as they are, the latter as ``""``, and are counted.
    """

    def __init__(
        self,
        score: Callable[[str], float],
        client: LanguageModel | None = None,
        *,
        replies: int = 1,
        **decoding: Any,
    ) -> None:
        self.score, self.client, self.decoding = score, client, decoding
        self.replies = check_replies(replies)
        self.noisy = client is not None and decoding.get("temperature", 1) != 0
        if self.noisy and self.replies < 2:
            raise DataError(
                "Replies are drawn, so that at least 2 of each coalition are needed to measure "
                "their noise: give replies=2 or more, or temperature=0."
            )

    def variants(self, template: PromptTemplate) -> int:
        """Wordings."""
        return len(template.texts)

    def wording(self, variant: int) -> int:
        """Paraphrase of a variant."""
        return variant

    def ask(
        self, template: PromptTemplate, Z: np.ndarray, variant: np.ndarray, replicate: np.ndarray
    ) -> Sequence[Row | float | None]:
        """Render, reply and score."""
        prompts = self.prompts(template, Z, variant, replicate)
        if self.client is None:
            return [common({}, p) | {"value": float(self.score(p))} for p in prompts]
        out: list[Row | None] = []
        frame = self._complete(prompts, replicate)
        for prompt, row in zip(prompts, frame.to_dict("records"), strict=True):
            if row["status"] == "error":
                out.append(None)
                continue
            reply = common(row, prompt) | {"outcome": row["status"]}
            out.append(reply | {"value": float(self.score(row["text"] or ""))})
        return out

    def number(self, row: Any) -> float:
        """Return the score."""
        return float(row["value"])

    def fingerprint(self) -> dict[str, Any]:
        """Name the client and its decoding; a score cannot be compared with another."""
        return {"value": "ScoreValue", **self._client()}
