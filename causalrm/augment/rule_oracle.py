"""An oracle without a language model: it edits sentences of real text by rules."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from causalrm.augment.oracle import Ask, Attribute, Element, OracleReply
from causalrm.core.errors import DataError
from causalrm.datasets._preference_text import (
    CAUSAL,
    HEADING,
    PHRASES,
    STYLE,
    TOPICS,
    Segment,
    content,
    hits,
    join,
    segments,
    topic_of,
)

# Attribute -> the role of the sentences that carry it.
_ROLES = {
    "correctness": "fact",
    "completeness": "detail",
    "relevance": "stray",
    "reasoning": "reason",
    "evidence": "evidence",
}
_WEIGHTS = {name: 1.0 - 0.15 * i for i, name in enumerate(CAUSAL)} | dict.fromkeys(STYLE, 0.3)
_ELEMENTS = {
    "correctness": (
        ("the fact that is asked for is stated rightly", "raises"),
        ("figures agree with what is known", "raises"),
        ("a wrong figure or name", "lowers"),
        ("a statement turned into its opposite", "lowers"),
        ("the fact that is asked for is missing", "lowers"),
    ),
    "completeness": (
        ("further facts about the subject", "raises"),
        ("conditions under which the answer holds", "raises"),
        ("context of the fact", "raises"),
        ("a fact is left out", "lowers"),
        ("the bare answer alone", "lowers"),
    ),
    "relevance": (
        ("every sentence is about the question", "raises"),
        ("the question is answered first", "raises"),
        ("a sentence about another subject", "lowers"),
        ("several subjects are mixed", "lowers"),
        ("an aside that answers nothing", "lowers"),
    ),
    "reasoning": (
        ("a cause is named", "raises"),
        ("the steps of the explanation follow", "raises"),
        ("a statement without its reason", "lowers"),
        ("the explanation is cut", "lowers"),
        ("a circular reason", "lowers"),
    ),
    "evidence": (
        ("a source is named", "raises"),
        ("a measurement or study is reported", "raises"),
        ("a claim without a source", "lowers"),
        ("the source is left out", "lowers"),
        ("hearsay", "lowers"),
    ),
}
_CUES = {
    "reason": re.compile(r"\b(because|since|therefore|due to|as a result|the reason)\b", re.I),
    "evidence": re.compile(
        r"\b(according to|as reported by|study|studies|survey|source|reports?)\b", re.I
    ),
    "politeness": re.compile(r"\b(thank|thanks|please|pleasure|welcome|hope (this|that))\b", re.I),
    "hedging": re.compile(r"\b(perhaps|maybe|might|not (entirely )?(sure|certain)|think)\b", re.I),
    "enthusiasm": re.compile(r"!\s*$"),
}  # fmt: skip
# Both ways round; none of the words is a figure, a name or a cause of its own.
_SYNONYMS = (
    ("because", "since"), ("according to", "as reported by"), ("about", "roughly"),
    ("usually", "as a rule"), ("begins", "starts"), ("mainly", "mostly"),
    ("often", "frequently"), ("needs", "requires"), ("very", "highly"),
)  # fmt: skip
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_VERB = re.compile(r"\b(is|are|was|were|has|have|can|does|will)\b( not\b)?")


class RuleOracle:
    """Edits texts along named attributes by rules, offline and always in the same way.

    The causal attributes are ``correctness`` (of the fact that is asked for), ``completeness``
    (details), ``relevance`` (no sentence on other subjects), ``reasoning`` (a reason is given)
    and ``evidence`` (a source is). A sentence is added, taken out or changed. What is right is
    known for the questions of :func:`causalrm.datasets.make_preferences`; with other questions
    sentences are told apart by cue words, an upgrade borrows from the other answer of the pair,
    and a degraded fact is one with another figure or turned into its opposite. Where there is
    nothing to edit the answer comes back as it was, and the pair counts as identical.

    Parameters
    ----------
    leak : float, default 0.5
        Probability, within 0 to 1, that a rewriting also moves style by one unit in the same
        direction: correctness the length, completeness the formatting, relevance the
        politeness, reasoning the hedging, evidence the enthusiasm.
    attributes : sequence of str, optional
        Those to name as causal, the five above by default. Names of style (``length``,
        ``formatting``, ...) are allowed: an oracle that takes style for a cause.
    rng : int, default 0
        Seeds which of several possible edits is made, with the question.

    Examples
    --------
    >>> from causalrm.augment import Ask, RuleOracle
    >>> ask = Ask(step="rewrite", query="What is the capital of Australia?",
    ...           answer="The capital of Australia is Sydney. It is a pleasure to assist you.",
    ...           attribute="correctness", direction="upgrade")
    >>> RuleOracle(leak=0).rewrite([ask])[0].value
    'The capital of Australia is Canberra. It is a pleasure to assist you.'
    """

    def __init__(
        self, leak: float = 0.5, attributes: Sequence[str] | None = None, rng: int = 0
    ) -> None:
        self.leak = leak
        self.names = tuple(CAUSAL if attributes is None else attributes)
        self.rng = rng
        if not 0 <= leak <= 1:
            raise DataError(f"leak must be within 0 to 1; got {leak!r}.")
        known = (*CAUSAL, *STYLE)
        if bad := [name for name in self.names if name not in known]:
            raise DataError(f"attributes must be among {list(known)}; got {bad[0]!r}.")

    def attributes(self, asks: Sequence[Ask]) -> list[OracleReply]:
        """Name attributes, first those that can be moved in both answers."""
        return [self._name_attributes(ask) for ask in asks]

    def elements(self, asks: Sequence[Ask]) -> list[OracleReply]:
        """Name elements of an attribute."""
        out = []
        for ask in asks:
            style = [(f"more {ask.attribute}", "raises"), (f"less {ask.attribute}", "lowers")]
            found = _ELEMENTS.get(ask.attribute, style)
            out.append(OracleReply(value=tuple(Element(*e) for e in found[: ask.n])))
        return out

    def rewrite(self, asks: Sequence[Ask]) -> list[OracleReply]:
        """Edit one attribute of each answer, and leak into style."""
        return [OracleReply(value=self._rewritten(ask)) for ask in asks]

    def verify(self, asks: Sequence[Ask]) -> list[OracleReply]:
        """Compare which sentences changed: those of the attribute, and of style at most."""
        return [self._verified(ask) for ask in asks]

    def paraphrase(self, asks: Sequence[Ask]) -> list[OracleReply]:
        """Put later sentences in another order, and replace words by synonyms."""
        return [OracleReply(value=self._paraphrased(ask)) for ask in asks]

    def align(self, asks: Sequence[Ask]) -> list[OracleReply]:
        """Replace what carries causal attributes by that of the other answer; keep style."""
        return [OracleReply(value=_aligned(ask)) for ask in asks]

    def _name_attributes(self, ask: Ask) -> OracleReply:
        if ask.n > len(self.names):
            reason = f"{ask.n} attributes are wanted, but this oracle knows {self.names}"
            return OracleReply(status="failed", reason=reason)
        names = list(self.names)
        if ask.n < len(names):
            rng = ask.generator(self.rng)
            names = [names[i] for i in rng.permutation(len(names))]
            fixed = {
                name: sum(
                    join(_edit(segments(answer), ask.query, other, name, up, rng)) == answer
                    for answer, other, up in (
                        (ask.other, ask.answer, True),
                        (ask.answer, ask.other, False),
                    )
                )
                for name in names
            }
            names = sorted(names, key=lambda name: fixed[name])[: ask.n]
        total = sum(_WEIGHTS[name] for name in names)
        return OracleReply(value=tuple(Attribute(name, _WEIGHTS[name] / total) for name in names))

    def _rewritten(self, ask: Ask) -> str:
        rng = ask.generator(self.rng)
        up = ask.direction == "upgrade"
        parts = segments(ask.answer)
        edited = _edit(parts, ask.query, ask.other or "", ask.attribute, up, rng)
        if edited != parts and ask.attribute in CAUSAL and rng.random() < self.leak:
            style = list(STYLE)[list(CAUSAL).index(ask.attribute)]
            edited = _edit(edited, ask.query, "", style, up, rng)
        return join(edited)

    def _verified(self, ask: Ask) -> OracleReply:
        before, after = (_by_role(text, ask.query) for text in (ask.answer, ask.other))
        target = _ROLES.get(ask.attribute, ask.attribute)
        if before[target] == after[target] and ask.attribute != "formatting":
            return OracleReply(value=False, reason=f"{ask.attribute} did not change")
        for role in _ROLES.values():
            if role != target and before[role] != after[role]:
                return OracleReply(value=False, reason=f"a {role} changed too")
        return OracleReply(value=True)

    def _paraphrased(self, ask: Ask) -> str:
        rng = ask.generator(self.rng)
        parts = segments(ask.answer)
        texts = [part.text for part in parts]
        if len(texts) > 2:
            start = 1 if texts[0] != HEADING else 2
            texts[start:] = [texts[start:][i] for i in rng.permutation(len(texts) - start)]
        text = join([Segment(p.lead, t) for p, t in zip(parts, texts, strict=True)])
        for pair in _SYNONYMS:
            old, new = pair if rng.random() < 0.7 else pair[::-1]
            text = re.sub(rf"\b{old}\b", new, text)
            text = re.sub(rf"\b{old.capitalize()}\b", new.capitalize(), text)
        return text


def _roles(parts: Sequence[Segment], query: str) -> list[str]:
    """Say what each sentence does in an answer to a query: a role, a style, heading or other."""
    topic = topic_of(query)
    out = [_role(part.text, topic) for part in parts]
    if topic is not None:
        return ["other" if role == "statement" else role for role in out]
    # An unknown question: its fact is the statement that shares most words with it (a figure
    # counts as one); those that share words with neither are strays.
    asked = content(query)
    statements = [i for i, role in enumerate(out) if role == "statement"]
    shared = [
        len(content(parts[i].text) & asked) + 0.5 * bool(_NUMBER.search(parts[i].text))
        for i in statements
    ]
    fact = statements[int(np.argmax(shared))] if any(s >= 1 for s in shared) else -1
    near = asked | (content(parts[fact].text) if fact >= 0 else frozenset())
    for i in statements:
        about = content(parts[i].text) & near
        out[i] = "fact" if i == fact else "detail" if about else "stray"
    return out


@lru_cache(maxsize=1 << 16)
def _role(text: str, topic: int | None) -> str:
    if not content(text) or text.startswith(("**", "#")):
        return "heading"
    for role, t, _ in hits(text):
        if t == -1:
            return role
        if topic is not None:
            return role if t == topic else "stray"
    for role, cue in _CUES.items():
        if cue.search(text):
            return role
    return "statement"


def _by_role(text: str, query: str) -> dict[str, Counter[str]]:
    parts = segments(text)
    out: dict[str, Counter[str]] = {role: Counter() for role in (*_ROLES.values(), *PHRASES)}
    for part, role in zip(parts, _roles(parts, query), strict=True):
        if role in out:
            out[role][" ".join(sorted(content(part.text)))] += 1
    return out


def _edit(
    parts: list[Segment], query: str, other: str, attribute: str, up: bool, rng: np.random.Generator
) -> list[Segment]:
    """Move one attribute by one unit; the same list where there is nothing to move."""
    if attribute == "formatting":
        return _reformatted(parts, up)
    roles = _roles(parts, query)
    role = _ROLES.get(attribute, attribute)
    there = [i for i, r in enumerate(roles) if r == role]
    if attribute == "correctness":
        return _corrected(parts, query, other, there, up)
    if (role == "stray") != up:
        options = _options(role, query, other, rng)
        own = {content(part.text) for part in parts}
        new = [option for option in options if content(option) not in own]
        most = {"reason": 1, "evidence": 1, "stray": 2, "detail": len(parts) + 1}
        most |= {name: STYLE[name] - 1 for name in PHRASES}
        if not new or len(there) >= most[role]:
            return parts
        return _inserted(parts, new[int(rng.integers(len(new)))], len(parts))
    if not there or len(parts) == 1:
        return parts
    gone = there[int(rng.integers(len(there)))]
    if role in ("reason", "evidence"):  # one that is left would leave the attribute as it was
        return _without(parts, there)
    return _without(parts, [gone])


def _options(role: str, query: str, other: str, rng: np.random.Generator) -> list[str]:
    """Sentences that could be added: known ones, else those of the other answer."""
    if role in PHRASES:
        return list(PHRASES[role])
    topic = topic_of(query)
    if role == "stray":
        strays = [t for t in range(len(TOPICS)) if t != topic and not _related(query, t)]
        return list(TOPICS[strays[int(rng.integers(len(strays)))]].details)
    if topic is not None:
        found = TOPICS[topic]
        return {
            "detail": list(found.details),
            "reason": [found.reason],
            "evidence": [found.evidence],
        }[role]
    theirs = segments(other)
    return [p.text for p, r in zip(theirs, _roles(theirs, query), strict=True) if r == role]


def _related(query: str, topic: int) -> bool:
    return bool(content(query) & content(" ".join(TOPICS[topic].details)))


def _corrected(
    parts: list[Segment], query: str, other: str, there: list[int], up: bool
) -> list[Segment]:
    topic = topic_of(query)
    if topic is not None:
        found = TOPICS[topic]
        # The same wrong value whichever way the question was put.
        new = [found.fact.format(found.right if up else found.wrong[len(query) % 2])]
    elif up:
        theirs = segments(other)
        new = [p.text for p, r in zip(theirs, _roles(theirs, query), strict=True) if r == "fact"]
    else:
        new = [_falsified(parts[i].text) for i in there]
    if not new:
        return parts
    if not there:
        return _inserted(parts, new[0], 0) if up else parts
    wrong = any(hit[2] for i in there for hit in hits(parts[i].text) if hit[0] == "fact")
    if topic is not None and wrong != up:
        return parts  # it is right, or wrong, already
    edited = [Segment(p.lead, new[0]) if i == there[0] else p for i, p in enumerate(parts)]
    return _without(edited, there[1:]) if topic is not None else edited


def _falsified(text: str) -> str:
    """Give a statement another figure, or turn it into its opposite."""
    if number := _NUMBER.search(text):
        old = number.group()
        digits = old.replace(",", "")
        if digits.count(".") <= 1:
            value = float(digits)
            places = len(digits.partition(".")[2])
            new = f"{value * 1.4 + (value < 3):.{places}f}"
            return text[: number.start()] + new + text[number.end() :]
    return _VERB.sub(lambda m: m[1] if m[2] else f"{m[1]} not", text, count=1)


def _inserted(parts: list[Segment], text: str, place: int) -> list[Segment]:
    """Put a sentence before the one at `place`, set off as its neighbours are."""
    if not parts:
        return [Segment("", text)]
    inner = parts[-1].lead if len(parts) > 1 else "\n- " if parts[0].lead.strip() else " "
    if place == 0:
        return [Segment(parts[0].lead, text), Segment(inner, parts[0].text), *parts[1:]]
    return [*parts[:place], Segment(inner, text), *parts[place:]]


def _without(parts: list[Segment], gone: Sequence[int]) -> list[Segment]:
    kept = [part for i, part in enumerate(parts) if i not in gone]
    if 0 in gone and kept:  # what comes first now needs no space before it
        kept[0] = Segment(parts[0].lead, kept[0].text)
    return kept


def _reformatted(parts: list[Segment], up: bool) -> list[Segment]:
    """From a paragraph to bullets to bullets under a heading, or back."""
    bullets = any(p.lead.strip() for p in parts)
    heading = bool(parts) and parts[0].text == HEADING
    if up and not bullets:
        return [Segment("- " if i == 0 else "\n- ", p.text) for i, p in enumerate(parts)]
    if up and not heading:
        return [Segment("", HEADING), *(Segment("\n- ", p.text) for p in parts)]
    if not up and heading and len(parts) > 1:
        return [Segment("- ", parts[1].text), *parts[2:]]
    if not up and bullets:
        return [Segment("" if i == 0 else " ", p.text) for i, p in enumerate(parts)]
    return parts


def _aligned(ask: Ask) -> str:
    own, theirs = segments(ask.answer), segments(ask.other)
    causal = set(_ROLES.values())
    wanted = [p.text for p, r in zip(theirs, _roles(theirs, ask.query), strict=True) if r in causal]
    roles = _roles(own, ask.query)
    places = [i for i, role in enumerate(roles) if role in causal]
    out = []
    for i, part in enumerate(own):
        if i not in places:
            out.append(part)
        elif wanted:
            out.append(Segment(part.lead, wanted.pop(0)))
    for text in wanted:
        out = _inserted(out, text, len(out))
    if out and own and out[0].lead != own[0].lead:
        out[0] = Segment(own[0].lead, out[0].text)
    return join(out)
