"""Prompts made of named components that can be present or absent."""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from causalrm.core.errors import DataError

OPTIONS = "options"  # the placeholder that a ChoiceValue fills
_MARKS = re.compile(r"(?:[^{}]|\{\{|\}\})+|\{([^{}]+)\}|[{}]")
_ROLES = ("informative", "neutral")
_SPLIT = {
    "sections": re.compile(r"\n\s*\n\s*"),
    "sentences": re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n+\s*"),
    "words": re.compile(r"\s+"),
}


@dataclass(frozen=True)
class Drop:
    """An absent component leaves nothing: its text and one of the gaps around it go."""

    def fill(self, text: str, draw: int) -> str | None:
        """Return what stands in place of `text`; None for nothing."""
        return None


@dataclass(frozen=True)
class Mask:
    """An absent component becomes a token, one for each of its words or one for all.

    Parameters
    ----------
    token : str
    per_word : bool
    """

    token: str = "___"
    per_word: bool = False

    def fill(self, text: str, draw: int) -> str | None:
        """Return what stands in place of `text`."""
        return " ".join([self.token] * len(text.split())) if self.per_word else self.token


@dataclass(frozen=True)
class Neutral:
    """An absent component becomes another text, such as ``"a certain price"``.

    Parameters
    ----------
    text : str
    """

    text: str

    def fill(self, text: str, draw: int) -> str | None:
        """Return what stands in place of `text`."""
        return self.text


@dataclass(frozen=True)
class Resample:
    """An absent component becomes one of several texts, drawn anew for every reply.

    The value of a coalition is then a mean over these draws, and they are part of its noise.

    Parameters
    ----------
    texts : sequence of str
    """

    texts: Sequence[str]

    def __post_init__(self) -> None:
        if isinstance(self.texts, str) or not self.texts:
            raise DataError(f"Resample needs a list of texts; got {self.texts!r}.")
        object.__setattr__(self, "texts", tuple(self.texts))

    def fill(self, text: str, draw: int) -> str | None:
        """Return what stands in place of `text`."""
        return self.texts[draw % len(self.texts)]


type Baseline = Drop | Mask | Neutral | Resample


@dataclass(frozen=True)
class Component:
    """A part of a prompt, a player of the attribution game.

    Parameters
    ----------
    name : str
        As in the template's text: ``"{price}"``.
    text : str
        What stands there when it is present.
    group : str or tuple of str, optional
        The group it belongs to, or for nested groups all of them, outermost first.
    role : {"informative", "neutral"}
        Whether its content should matter for the decision; see `token_noise`.
    baseline : Drop, Mask, Neutral or Resample
        What stands there when it is absent.
    stage : int, default 0
        For ordered values: components of a lower stage join before those of a higher one.
    paraphrases : sequence of str, optional
        Texts that say the same, for the placebo test.
    """

    name: str
    text: str = ""
    group: str | tuple[str, ...] = ()
    role: str = "informative"
    baseline: Baseline = field(default_factory=Drop)
    stage: int = 0
    paraphrases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or set("{}") & set(self.name):
            raise DataError(f"A component's name is a text without braces; got {self.name!r}.")
        if self.role not in _ROLES:
            raise DataError(f"role of {self.name!r} must be one of {_ROLES}; got {self.role!r}.")
        if not isinstance(self.baseline, Drop | Mask | Neutral | Resample):
            raise DataError(
                f"baseline of {self.name!r} must be Drop(), Mask(...), Neutral(...) or "
                f"Resample([...]); got {self.baseline!r}."
            )
        group = self.group if isinstance(self.group, tuple) else (self.group,) * bool(self.group)
        object.__setattr__(self, "group", group)
        object.__setattr__(self, "paraphrases", tuple(self.paraphrases))


type Pieces = list[tuple[str, int]]
"""Literal text with -1, or an empty text with the number of a component."""


class PromptTemplate:
    """A prompt with named components, which renders any coalition of them.

    Parameters
    ----------
    text : str
        With a placeholder ``{name}`` for every component; ``{{`` and ``}}`` write braces. The
        place of the options of a `ChoiceValue` is ``{options}``, by default the end.
    components : sequence of Component
        A placeholder may also stand in an option's text.
    paraphrases : sequence of str, optional
        Other wordings of `text` with the same placeholders. Every coalition is asked in all of
        them, and their spread is the template variance of the result.

    Raises
    ------
    DataError
        For an empty text, duplicate names, a placeholder without a component.

    Examples
    --------
    >>> template = PromptTemplate(
    ...     "{polite} Would you fly for {price} dollars?",
    ...     [
    ...         Component("polite", "Good morning.", role="neutral"),
    ...         Component("price", "300", baseline=Neutral("some")),
    ...     ],
    ... )
    >>> template.render([True, True])
    'Good morning. Would you fly for 300 dollars?'
    >>> template.render([False, False])
    'Would you fly for some dollars?'
    """

    def __init__(
        self, text: str, components: Sequence[Component], *, paraphrases: Sequence[str] = ()
    ) -> None:
        self.texts = (text, *paraphrases)
        self.components = check_components(components)
        for wording in self.texts:
            if not isinstance(wording, str) or not wording.strip():
                raise DataError("The prompt is empty: text must be a string with some words.")
            self.compile(wording)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the components, in player order."""
        return tuple(c.name for c in self.components)

    def __len__(self) -> int:
        return len(self.components)

    def __repr__(self) -> str:
        return f"PromptTemplate({self.texts[0]!r:.60}, {len(self)} components)"

    def compile(self, text: str) -> Pieces:
        """Split a text at its placeholders, which must be names of components."""
        number = {name: i for i, name in enumerate(self.names)}
        pieces: Pieces = []
        for mark in _MARKS.finditer(text):
            literal, name = mark[0], mark[1]
            if name is None and literal in ("{", "}"):
                raise DataError(
                    f"The text {text!r:.60} has a single {literal!r} at {mark.start()}. Write "
                    "{{ and }} for braces."
                )
            if name is None:
                literal = literal.replace("{{", "{").replace("}}", "}")
                pieces.append((literal, -1))
            elif name in number:
                pieces.append(("", number[name]))
            elif name != OPTIONS:
                raise DataError(
                    f"The placeholder {{{name}}} has no component of that name; components are: "
                    f"{', '.join(self.names[:10])}. Write {{{{ and }}}} for braces."
                )
        return pieces

    def render(
        self,
        present: Sequence[bool] | np.ndarray,
        *,
        pieces: Pieces | None = None,
        draw: str | None = None,
    ) -> str:
        """Write the prompt of a coalition.

        Parameters
        ----------
        present : sequence of bool, shape (n,)
        pieces : list, optional
            Of `compile`, for another text than the template's own.
        draw : str, optional
            Decides what is drawn where a baseline resamples.

        Returns
        -------
        str
        """
        return "".join(text for text, _ in self._filled(present, pieces, draw)).strip()

    def _filled(
        self, present: Sequence[bool] | np.ndarray, pieces: Pieces | None, draw: str | None
    ) -> list[tuple[str, int]]:
        out: list[tuple[str, int]] = []
        dropped = False
        for literal, i in self.compile(self.texts[0]) if pieces is None else pieces:
            text: str | None = literal
            if i >= 0:
                c = self.components[i]
                text = c.text if present[i] else c.baseline.fill(c.text, _seed(draw, c.name))
            if not text:
                dropped = True
                continue
            if dropped and i < 0 and (not out or out[-1][0][-1].isspace()):
                # Of the gaps before and after what was dropped, the one with more lines stays
                last = out[-1][0] if out else ""
                before = last[len(last.rstrip()) :]
                after = text[: len(text) - len(text.lstrip())]
                text = text.lstrip()
                if out and after.count("\n") > before.count("\n"):
                    out[-1] = (last.rstrip() + after, out[-1][1])
            dropped = False
            if text:
                out.append((text, i))
        return out

    @property
    def segments(self) -> tuple[tuple[str, int], ...]:
        """The full prompt in order, each part with its component's number, or -1."""
        return tuple(self._filled([True] * len(self), None, None))

    @classmethod
    def from_text(
        cls,
        text: str,
        by: str = "sentences",
        *,
        baseline: Baseline | None = None,
        neutral: Sequence[str] = (),
    ) -> PromptTemplate:
        """Make every section, sentence or word of a text a component, in nested groups.

        Sections are parted by blank lines, sentences end with a full stop, question or
        exclamation mark before white space (so that an abbreviation ends one, too), or with
        the line.

        Parameters
        ----------
        text : str
        by : {"sections", "sentences", "words"}
        baseline : Drop, Mask, Neutral or Resample, optional
            Of all components; `Drop()` by default.
        neutral : sequence of str
            Texts of the components that are neutral.

        Returns
        -------
        PromptTemplate
            Groups are sections, and for words also sentences.

        Examples
        --------
        >>> template = PromptTemplate.from_text("Fly now. It costs 300.", by="words")
        >>> template.names
        ('1 Fly', '2 now.', '3 It', '4 costs', '5 300.')
        >>> template.components[0].group
        ('section 1', 'sentence 1')
        """
        if by not in _SPLIT:
            raise DataError(f"by must be one of {tuple(_SPLIT)}; got {by!r}.")
        if not isinstance(text, str) or not text.strip():
            raise DataError("The prompt is empty: text must be a string with some words.")
        levels = list(_SPLIT)[: list(_SPLIT).index(by) + 1]
        out, last, components = "", 0, []
        spans = _nested(text, 0, len(text), levels, dict.fromkeys(levels, 0), ())
        for number, (a, b, groups) in enumerate(spans, 1):
            part = text[a:b]
            short = " ".join(re.sub(r"[{}]", "", part).split())
            name = f"{number} {short if len(short) < 28 else short[:26] + '…'}".strip()
            role = "neutral" if part in neutral else "informative"
            components.append(Component(name, part, groups, role, baseline or Drop()))
            out += _escaped(text[last:a]) + "{" + name + "}"
            last = b
        return cls(out + _escaped(text[last:]), components)

    def with_baseline(self, baseline: Baseline | Mapping[str, Baseline]) -> PromptTemplate:
        """Return the template with another text for absent components, of all or of some.

        Parameters
        ----------
        baseline : Drop, Mask, Neutral or Resample, or dict of name to one of these
        """
        if isinstance(baseline, Mapping):
            if unknown := sorted(set(baseline) - set(self.names)):
                raise DataError(f"There is no component {unknown[0]!r}; there are {self.names}.")
            new = [replace(c, baseline=baseline.get(c.name, c.baseline)) for c in self.components]
        else:
            new = [replace(c, baseline=baseline) for c in self.components]
        return PromptTemplate(self.texts[0], new, paraphrases=self.texts[1:])

    def placebo(self) -> PromptTemplate:
        """Return the template of the placebo test.

        Its players are the neutral components that have paraphrases; absent means paraphrased.
        All others are always present. Where only content decides, every value is zero.
        """
        fixed = {
            c.name: _escaped(c.text)
            for c in self.components
            if c.role != "neutral" or not c.paraphrases
        }
        players = [
            replace(c, baseline=Neutral(c.paraphrases[0]))
            for c in self.components
            if c.name not in fixed
        ]
        if not players:
            raise DataError(
                "A placebo test needs neutral components with paraphrases: "
                "Component(..., role='neutral', paraphrases=[...])."
            )
        texts = list(self.texts)
        for name, text in fixed.items():
            texts = [wording.replace("{" + name + "}", text) for wording in texts]
        return PromptTemplate(texts[0], players, paraphrases=texts[1:])

    def fingerprint(self) -> str:
        """Name the template by the SHA-256 of all that decides its prompts."""
        return hashlib.sha256(repr((self.texts, self.components)).encode()).hexdigest()

    def _repr_html_(self) -> str:
        parts = []
        for text, i in self.segments:
            safe = html.escape(text).replace("\n", "<br>")
            if i < 0:
                parts.append(safe)
                continue
            c = self.components[i]
            colour = "#D6E8F5" if c.role == "informative" else "#E8E8E8"
            title = html.escape(f"{c.name} ({', '.join((*c.group, c.role))}); absent: {c.baseline}")
            parts.append(
                f'<span style="background:{colour};color:#111;border-radius:3px;padding:0 2px" '
                f'title="{title}">{safe}</span>'
            )
        return '<div style="line-height:1.7">' + "".join(parts) + "</div>"


def check_components(components: Sequence[Component | str]) -> tuple[Component, ...]:
    """Return players as components with names that differ; at least one and at most 1,000."""
    if isinstance(components, str) or not isinstance(components, Sequence):
        raise DataError(
            f"Players must be a list of Components or of names; got {type(components).__name__}."
        )
    found = tuple(c if isinstance(c, Component) else Component(c) for c in components)
    names = [c.name for c in found]
    if not 1 <= len(found) <= 1000:
        raise DataError(
            f"Between 1 and 1,000 players can be told apart; got {len(found):,}. Merge them into "
            "groups: PromptTemplate.from_text(text, by='sentences') or by='sections'."
        )
    if double := [name for name in names if names.count(name) > 1]:
        raise DataError(f"Component names must differ; {double[0]!r} stands there twice or more.")
    return found


def _nested(
    text: str,
    start: int,
    end: int,
    levels: Sequence[str],
    counts: dict[str, int],
    groups: tuple[str, ...],
) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Spans of the innermost level, each with the names of the groups around it."""
    level, cuts = levels[0], [start]
    for match in _SPLIT[level].finditer(text, start, end):
        closing = len(match[0]) - len(match[0].lstrip("\"')]"))  # belongs to the sentence
        cuts += [match.start() + closing, match.end()]
    cuts.append(end)
    for a, b in zip(cuts[::2], cuts[1::2], strict=True):
        if not text[a:b].strip():
            continue
        counts[level] += 1
        if len(levels) == 1:
            yield a, b, groups
        else:
            inner = (*groups, f"{level[:-1]} {counts[level]}")
            yield from _nested(text, a, b, levels[1:], counts, inner)


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _seed(draw: str | None, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{draw} {name}".encode()).digest()[:8], "little")
