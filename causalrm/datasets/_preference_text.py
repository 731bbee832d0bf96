"""The texts behind `make_preferences`: topics, phrases of style, and how both are recognised.

Every sentence about a topic names its subject, as the questions do; phrases of style name none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

#: What the true reward depends on, and how many levels each has.
CAUSAL = {"correctness": 2, "completeness": 4, "relevance": 3, "reasoning": 2, "evidence": 2}
#: What the labeller may be biased on.
STYLE = {"length": 5, "formatting": 3, "politeness": 3, "hedging": 3, "enthusiasm": 3}


@dataclass(frozen=True)
class Topic:
    """A subject: questions about one fact of it, and sentences that answer them."""

    subject: str
    queries: tuple[str, ...]
    fact: str  # with {} for the value
    right: str
    wrong: tuple[str, ...]
    details: tuple[str, ...]
    reason: str
    evidence: str


def _topic(subject: str, queries: str, fact: str, values: str, rest: str) -> Topic:
    right, *wrong = values.split("|")
    *details, reason, evidence = rest.split("|")
    return Topic(
        subject, tuple(queries.split("|")), fact, right, tuple(wrong), tuple(details), reason,
        evidence,
    )  # fmt: skip


TOPICS = (
    _topic(
        "water",
        "At what temperature does water boil at sea level?|"
        "How hot is boiling water at sea level?|When does water start to boil by the sea?",
        "Water boils at {} at sea level.",
        "100 degrees Celsius|85 degrees Celsius|140 degrees Celsius",
        "High in the mountains water boils at a lower temperature.|"
        "Dissolved salt raises the boiling point of water a little.|"
        "While water boils away its temperature stays the same.|"
        "Water boils there because its vapour pressure then equals that of the air.|"
        "According to printed steam tables, this point of water is measured very exactly.",
    ),
    _topic(
        "Everest",
        "How high is Mount Everest?|What is the height of Everest?|"
        "How far does Everest rise above the sea?",
        "Everest is {} high.",
        "8849 metres|7610 metres|9920 metres",
        "Everest stands on the border of Nepal and China.|"
        "Everest was first climbed in 1953.|Everest belongs to the Himalayas.|"
        "Everest is that high because two continental plates collide below it.|"
        "According to the joint survey of 2020, Everest was measured by satellite.",
    ),
    _topic(
        "light",
        "How fast does light travel in empty space?|What is the speed of light?|"
        "How far does light get in one second?",
        "Light travels {} in a second.",
        "300 thousand kilometres|150 thousand kilometres|900 thousand kilometres",
        "Light is slower in glass than in empty space.|"
        "From the Sun light needs eight minutes to the Earth.|"
        "Light of every colour is equally fast in empty space.|"
        "No signal overtakes light because mass grows without limit at that speed.|"
        "According to the definition of the metre, the speed of light is exact.",
    ),
    _topic(
        "Moon",
        "How long does the Moon need for one orbit of the Earth?|"
        "In what time does the Moon go around the Earth?|What is the period of the Moon?",
        "The Moon goes around the Earth in {}.",
        "27 days|14 days|45 days",
        "The Moon always shows the same side to the Earth.|"
        "The gravity of the Moon raises the tides.|"
        "The diameter of the Moon is a quarter of that of the Earth.|"
        "The Moon stays on its path because gravity bends it all the time.|"
        "According to laser ranging, the Moon moves away by some centimetres a year.",
    ),
    _topic(
        "heart",
        "How many chambers does the human heart have?|Of how many chambers is the heart made?|"
        "What is the number of chambers in a heart?",
        "The human heart has {}.",
        "four chambers|two chambers|six chambers",
        "The left half of the heart is the stronger one.|"
        "At rest the heart beats about seventy times a minute.|"
        "Valves in the heart keep blood from flowing back.|"
        "The heart is divided because fresh and used blood must not mix.|"
        "According to anatomy books, dissections of the heart showed this long ago.",
    ),
    _topic(
        "bee",
        "How many legs does a bee have?|What is the number of legs of a bee?|"
        "On how many legs does a bee walk?",
        "A bee has {}.",
        "six legs|eight legs|four legs",
        "A worker bee carries pollen on its hind pair.|"
        "A bee tells others about flowers by a dance.|"
        "In summer a worker bee lives for some weeks.|"
        "A bee is built like that because it is an insect.|"
        "According to field guides, this is how a bee is told from a spider.",
    ),
    _topic(
        "Amazon",
        "On which continent is the Amazon river?|Where does the Amazon flow?|"
        "Through which continent does the Amazon run?",
        "The Amazon flows through {}.",
        "South America|Africa|Australia",
        "The Amazon carries more water than any other river.|"
        "The Amazon ends in the Atlantic Ocean.|"
        "Pink dolphins live in the Amazon.|"
        "The Amazon is so mighty because rain falls on its basin all year.|"
        "According to river gauges, the Amazon moves 200 thousand tonnes a second.",
    ),
    _topic(
        "gold",
        "What is the chemical symbol of gold?|How is gold written in chemistry?|"
        "Which letters stand for gold?",
        "The symbol of gold is {}.",
        "Au|Ag|Go",
        "Gold does not rust in air.|Gold can be beaten into very thin leaves.|"
        "Gold conducts electricity well.|"
        "Gold is written that way because the Latin word for it is aurum.|"
        "According to the periodic table, gold is element 79.",
    ),
    _topic(
        "plants",
        "Which gas do plants take from the air to grow?|What gas do plants live on?|"
        "Which part of the air do plants turn into sugar?",
        "Plants take up {} from the air.",
        "carbon dioxide|nitrogen|hydrogen",
        "Plants give off oxygen in daylight.|Plants bind the energy of light in sugar.|"
        "The green of plants is chlorophyll.|"
        "Plants need this gas because sugar is built from its carbon.|"
        "According to experiments with marked atoms, the carbon of plants comes from it.",
    ),
    _topic(
        "Jupiter",
        "How does Jupiter compare in size with the other planets?|"
        "Which rank does Jupiter have among the planets by size?|How big is Jupiter as a planet?",
        "Jupiter is the {} of the Sun.",
        "largest planet|third largest planet|smallest planet",
        "Jupiter consists mainly of hydrogen.|A red storm on Jupiter has raged for centuries.|"
        "Jupiter turns once in ten hours.|"
        "Jupiter became that size because it formed early and gathered much gas.|"
        "According to passing space probes, the mass of Jupiter is known well.",
    ),
    _topic(
        "sound",
        "How fast is sound in air?|What is the speed of sound in air?|"
        "How far does sound travel through air in a second?",
        "In air sound travels {} in a second.",
        "340 metres|120 metres|1500 metres",
        "Sound is faster in warm air than in cold air.|Sound is faster in steel than in air.|"
        "There is no sound in empty space.|"
        "Sound has that speed because molecules pass the push on as fast as they move.|"
        "According to tests with distant guns, the speed of sound was known by 1740.",
    ),
    _topic(
        "DNA",
        "What shape does DNA have?|How is DNA built?|What does a molecule of DNA look like?",
        "DNA has the shape of {}.",
        "a double helix|a single ring|a flat sheet",
        "DNA is written in four letters.|Nearly every cell holds the whole DNA.|"
        "DNA is copied before a cell divides.|"
        "DNA is built so because paired letters let either strand restore the other.|"
        "According to pictures taken with X-rays in 1952, DNA is wound.",
    ),
    _topic(
        "penicillin",
        "Who discovered penicillin?|To whom do we owe penicillin?|"
        "Which scientist found penicillin?",
        "The discoverer of penicillin was {}.",
        "Alexander Fleming|Louis Pasteur|Marie Curie",
        "Penicillin was found in 1928.|Penicillin comes from a mould.|"
        "Some bacteria no longer respond to penicillin.|"
        "Penicillin was noticed because a mould had killed bacteria in a forgotten dish.|"
        "According to his paper of 1929, penicillin stops some germs and not others.",
    ),
    _topic(
        "Australia",
        "What is the capital of Australia?|Which city is the capital of Australia?|"
        "From which city is Australia governed?",
        "The capital of Australia is {}.",
        "Canberra|Sydney|Melbourne",
        "Australia has six states.|Most people in Australia live near the coast.|"
        "Australia is a country and a continent.|"
        "Australia chose it because two larger cities could not agree.|"
        "According to its constitution of 1901, Australia had to found a new city.",
    ),
    _topic(
        "chess",
        "How many squares does a chess board have?|On how many squares is chess played?|"
        "What is the number of squares in chess?",
        "A chess board has {}.",
        "64 squares|81 squares|100 squares",
        "Each side in chess has sixteen pieces.|White moves first in chess.|"
        "A pawn in chess can become a queen.|"
        "The chess board has that many because it has eight rows of eight.|"
        "According to the rules of the world federation, a chess board is always so.",
    ),
    _topic(
        "marathon",
        "How long is a marathon?|What distance is run in a marathon?|"
        "How far do runners go in a marathon?",
        "A marathon is {} long.",
        "42 kilometres|36 kilometres|50 kilometres",
        "The fastest runners finish a marathon in some two hours.|"
        "The marathon is named after a Greek town.|"
        "The marathon has been an Olympic event since 1896.|"
        "The marathon has its odd length because the London course of 1908 became the rule.|"
        "According to the athletics federation, every marathon course is measured by bicycle.",
    ),
    _topic(
        "piano",
        "How many keys does a piano have?|What is the number of keys on a piano?|"
        "With how many keys is a piano built?",
        "A modern piano has {}.",
        "88 keys|64 keys|104 keys",
        "Hammers strike the strings of a piano.|The piano was invented in Italy.|"
        "A pedal lets the notes of a piano ring on.|"
        "A piano stops there because higher notes are hard to tell apart.|"
        "According to makers' catalogues, the piano has kept this since the 1880s.",
    ),
    _topic(
        "Sahara",
        "On which continent is the Sahara?|Where is the Sahara desert?|"
        "Which continent does the Sahara cover in part?",
        "The Sahara lies in {}.",
        "Africa|Asia|South America",
        "The Sahara is the largest hot desert.|Nights in the Sahara can be cold.|"
        "A part of the Sahara is sand, most of it is rock.|"
        "The Sahara is dry because sinking air keeps clouds from forming.|"
        "According to rain records, parts of the Sahara get less than 25 millimetres a year.",
    ),
    _topic(
        "octopus",
        "How many hearts does an octopus have?|What is the number of hearts of an octopus?|"
        "How many hearts beat in an octopus?",
        "An octopus has {}.",
        "three hearts|one heart|five hearts",
        "The blood of an octopus is blue.|An octopus can change its colour.|"
        "An octopus has eight arms.|"
        "An octopus needs them because its blood carries oxygen badly.|"
        "According to marine biologists, dissections of the octopus show it.",
    ),
    _topic(
        "bread",
        "Which gas makes bread rise?|What gas is in the holes of bread?|"
        "By which gas does the dough of bread grow?",
        "Bread rises by {}.",
        "carbon dioxide|oxygen|helium",
        "Gluten holds the bubbles in bread.|Warm dough makes bread rise faster.|"
        "The crust of bread browns in the oven.|"
        "Bread rises because yeast feeds on sugar and gives off this gas.|"
        "According to bakery chemists, samples from the dough of bread prove it.",
    ),
    _topic(
        "Berlin",
        "When did the Berlin Wall fall?|In which year was the wall in Berlin opened?|"
        "What year ended the division of Berlin?",
        "The wall in Berlin fell in {}.",
        "1989|1975|1999",
        "The wall around West Berlin was built in 1961.|Berlin is the capital of Germany.|"
        "Pieces of the wall in Berlin are in museums.|"
        "The wall in Berlin fell because mass protests left the government no choice.|"
        "According to the broadcasts of that night, crowds crossed in Berlin at midnight.",
    ),
    _topic(
        "insulin",
        "Where is insulin made in the body?|Which organ makes insulin?|"
        "From which organ does insulin come?",
        "Insulin is made in {}.",
        "the pancreas|the liver|the kidneys",
        "Insulin lowers the sugar in the blood.|People with diabetes often lack insulin.|"
        "Insulin was first given to a patient in 1922.|"
        "Insulin is needed because cells take up sugar only at its signal.|"
        "According to classic animal studies, removing that organ ends all insulin.",
    ),
    _topic(
        "Python",
        "Who created the programming language Python?|Who is the author of Python?|"
        "Which programmer started Python?",
        "Python was created by {}.",
        "Guido van Rossum|Dennis Ritchie|James Gosling",
        "Python marks blocks by indentation.|Python is named after a comedy group.|"
        "Python was first released in 1991.|"
        "Python was started because its author wanted a pastime over Christmas.|"
        "According to the printed history of Python, work began in Amsterdam.",
    ),
    _topic(
        "ice",
        "How much less dense is ice than liquid?|By how much does freezing to ice lower density?|"
        "What is the difference in density between ice and the liquid?",
        "Ice is {} less dense than the liquid.",
        "9 percent|30 percent|1 percent",
        "Most of an ice floe is under the surface.|Ice can burst pipes in winter.|"
        "Under pressure ice melts at a lower temperature.|"
        "Ice is lighter because its crystals leave room between the molecules.|"
        "According to handbooks of physics, the density of ice is known to five digits.",
    ),
)  # fmt: skip

#: Sentences that carry one unit of a style each.
PHRASES = {
    "length": (
        "There are many things that one could say here.",
        "This is a question that people have asked for a long time.",
        "It is worth going through the matter step by step.",
        "As always, the whole picture has several sides.",
        "With this in mind, let us turn to what matters.",
        "All in all, that sums up the main points.",
        "One can of course look at it from other angles as well.",
        "That is the short version of a longer story.",
    ),
    "politeness": (
        "Thank you for your kind question.",
        "It is a pleasure to assist you.",
        "Please feel free to ask again.",
        "I hope that this helps you.",
    ),
    "hedging": (
        "I am not entirely certain, though.",
        "Perhaps others would put it differently.",
        "This might depend on how one looks at it.",
        "I would not bet on every word.",
    ),
    "enthusiasm": (
        "What a great topic!",
        "This is truly fascinating!",
        "How exciting!",
        "I just love talking about that!",
    ),
}
HEADING = "**In short**"

_LEAD = r"(?:[-*•]\s+|\d+[.)]\s+|#+\s+)?"
_BREAK = re.compile(rf"(\s*\n\s*{_LEAD}|(?<=[.!?])\s+)")
_STOP = frozenset(
    "a an and are as at be been but by can do does for from has have how in is it its of on or "
    "so than that the then there these they this to was were what when where which who will "
    "with".split()
)


@dataclass(frozen=True)
class Segment:
    """A sentence or line, and the space, line break or bullet before it."""

    lead: str
    text: str


def segments(text: str) -> list[Segment]:
    """Split a text into sentences and lines; joined again they are the text."""
    start = re.match(rf"\s*{_LEAD}", text)
    assert start is not None  # it matches the empty string
    parts = _BREAK.split(text[start.end() :])
    leads = [start.group(), *parts[1::2]]
    out = [Segment(lead, part) for lead, part in zip(leads, parts[::2], strict=True)]
    return [s for s in out if s.text or s.lead]


def join(parts: list[Segment]) -> str:
    """Put segments together."""
    return "".join(part.lead + part.text for part in parts)


def words(text: str) -> list[str]:
    """Lower-case words and numbers."""
    return re.findall(r"\d+(?:[.,]\d+)*|[^\W\d_]+", text.lower())


@lru_cache(maxsize=1 << 16)
def content(text: str) -> frozenset[str]:
    """Words that carry meaning, without their plural s."""
    found = (w[:-1] if len(w) > 3 and w.endswith("s") else w for w in words(text))
    return frozenset(w for w in found if w not in _STOP)


def _plain(text: str) -> str:
    return f" {' '.join(words(text))} "


def _templates() -> list[tuple[str, frozenset[str], tuple[str, int, int]]]:
    out: list[tuple[str, tuple[str, int, int]]] = []
    for t, topic in enumerate(TOPICS):
        for v, value in enumerate((topic.right, *topic.wrong)):
            out.append((topic.fact.format(value), ("fact", t, v)))
        out += [(detail, ("detail", t, k)) for k, detail in enumerate(topic.details)]
        out += [(topic.reason, ("reason", t, 0)), (topic.evidence, ("evidence", t, 0))]
    out += [(p, (role, -1, k)) for role, all_ in PHRASES.items() for k, p in enumerate(all_)]
    return [(_plain(text), content(text), hit) for text, hit in out]


_TEMPLATES = _templates()
_FACTS = [(content(t.fact.format("")), [_plain(v) for v in (t.right, *t.wrong)]) for t in TOPICS]
_QUERIES = {_plain(q): t for t, topic in enumerate(TOPICS) for q in topic.queries}


def topic_of(query: str) -> int | None:
    """Number of the topic that a question is about; None for one that is not among them."""
    return _QUERIES.get(_plain(query))


@lru_cache(maxsize=1 << 16)
def hits(text: str) -> tuple[tuple[str, int, int], ...]:
    """Say what a sentence tells: (role, topic, which), topic -1 for style.

    Every template that it contains word by word; failing that, the one whose words it has in
    other order or with a few others, where a fact is right or wrong by the value it names.
    """
    plain = _plain(text)
    found = [hit for template, _, hit in _TEMPLATES if template in plain]
    if found:
        return tuple(found)
    own = content(text)
    for t, (frame, values) in enumerate(_FACTS):
        if len(own & frame) >= 0.7 * len(frame):
            which = [v for v, value in enumerate(values) if value in plain]
            if which and len(own) <= 2 * len(frame) + 3:
                return (("fact", t, max(which)),)
    scored = [
        (len(own & other) / len(own | other), hit)
        for _, other, hit in _TEMPLATES
        if hit[0] != "fact" and own & other
    ]
    best = max(scored, default=(0.0, None), key=lambda pair: pair[0])
    return (best[1],) if best[0] >= 0.6 and best[1] is not None else ()


@lru_cache(maxsize=1 << 14)
def read(topic: int, answer: str) -> tuple[float, ...]:
    """Values within 0..1 of all attributes, causal ones first, of an answer about a topic.

    An answer that does not say what is asked for, rightly or wrongly, has no causal attribute.
    """
    parts = segments(answer)
    told = [hit for part in parts for hit in hits(part.text)]
    own = {(role, which) for role, t, which in told if t == topic}
    others = sum(t not in (-1, topic) for _, t, _ in told)
    facts = {which for role, which in own if role == "fact"}
    causal = {
        "correctness": float(facts == {0}),
        "completeness": sum(role == "detail" for role, _ in own) / (CAUSAL["completeness"] - 1),
        "relevance": max(0.0, 1.0 - others / (CAUSAL["relevance"] - 1)),
        "reasoning": float(("reason", 0) in own),
        "evidence": float(("evidence", 0) in own),
    }
    style = {
        name: min(1.0, sum(role == name for role, _, _ in told) / (levels - 1))
        for name, levels in STYLE.items()
    }
    bullets = any(p.lead.strip() and "#" not in p.lead for p in parts)
    marked = any(p.text.lstrip().startswith(("**", "#")) or "#" in p.lead for p in parts)
    style["formatting"] = 0.5 * bullets + 0.5 * marked
    return (*(causal.values() if facts else (0.0,) * len(CAUSAL)), *style.values())
