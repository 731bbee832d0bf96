"""Simulated preferences between answers to questions, with what they truly depend on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit, ndtr

from causalrm.core.errors import DataError
from causalrm.core.random import RNG, resolve
from causalrm.datasets._preference_text import (
    CAUSAL,
    HEADING,
    PHRASES,
    STYLE,
    TOPICS,
    read,
    topic_of,
)
from causalrm.datasets._simulated import Simulated, check_ranges

if TYPE_CHECKING:
    import pandas as pd

_THETA = {
    "correctness": 2.0, "completeness": 1.6, "relevance": 1.2, "reasoning": 1.0, "evidence": 0.8,
}  # fmt: skip
_GAMMA = {
    "length": 1.6, "formatting": 1.2, "politeness": 0.8, "hedging": 0.6, "enthusiasm": 0.0,
}  # fmt: skip


def make_preferences(
    n_pairs: int = 1000,
    *,
    theta: Mapping[str, float] | None = None,
    gamma: Mapping[str, float] | None = None,
    bias: float = 1.0,
    correlation: float = 0.6,
    n_topics: int = len(TOPICS),
    rng: RNG = None,
) -> Simulated[PreferenceTruth]:
    """Simulate preferences of a labeller who is biased on style.

    Questions are about facts of nature, history and technology. An answer is put together from
    sentences: five causal attributes say what it tells about the question, five attributes of
    style how. The true reward depends on the question and on the causal attributes alone;
    the labeller prefers answer a to b with probability ``s(theta'(C_a - C_b) + bias *
    gamma'(S_a - S_b))``, s the logistic function.

    Parameters
    ----------
    n_pairs : int
        Number of rows.
    theta : mapping of str to float, optional
        True reward of the causal attributes, each of which is within 0 to 1: ``correctness``
        (of the fact that is asked for), ``completeness`` (0 to 3 details), ``relevance`` (2 to
        0 sentences about other things), ``reasoning`` (a reason is given) and ``evidence`` (a
        source is). Those not named are worth 0. Default: 2, 1.6, 1.2, 1, 0.8.
    gamma : mapping of str to float, optional
        The labeller's bias on style, each within 0 to 1: ``length`` (0 to 4 empty sentences),
        ``formatting`` (bullets, a heading), ``politeness``, ``hedging`` and ``enthusiasm`` (0 to
        2 phrases each). Default: 1.6, 1.2, 0.8, 0.6, 0.
    bias : float
        Factor of `gamma`; 0 is a labeller who looks at causal attributes only.
    correlation : float
        Within -1 to 1, between the normal scores of each causal attribute and of the style
        that stands at the same place in the lists above.
    n_topics : int
        2 to 24 topics of three questions each.
    rng : None, int, SeedSequence or Generator

    Returns
    -------
    Simulated
        The pair ``(data, truth)``: a `pandas.DataFrame` of n_pairs rows with the columns
        ``query, chosen, rejected`` (text), and a `PreferenceTruth`.

    Raises
    ------
    DataError
        For arguments outside their range.

    Examples
    --------
    >>> from causalrm.datasets import make_preferences
    >>> data, truth = make_preferences(200, rng=0)
    >>> print(data["query"][0])
    What is the capital of Australia?
    >>> print(data["chosen"][0].splitlines()[2])
    - The capital of Australia is Canberra.
    >>> truth.measure(data["query"][:1], data["chosen"][:1])[["correctness", "completeness"]]
       correctness  completeness
    0          1.0      0.333333
    """
    import pandas as pd

    generator, entropy = resolve(rng)
    check_ranges(
        n_pairs=(n_pairs, 1, 10**8), n_topics=(n_topics, 2, len(TOPICS)),
        correlation=(correlation, -1, 1),
    )  # fmt: skip
    worth = _weights("theta", CAUSAL, _THETA if theta is None else theta)
    liking = _weights("gamma", STYLE, _GAMMA if gamma is None else gamma)
    liking = {name: float(bias) * value for name, value in liking.items()}
    queries, answers, levels = _pairs(generator, n_pairs, correlation, n_topics)
    values = levels / (np.array([*CAUSAL.values(), *STYLE.values()]) - 1.0)
    labelled = values @ np.array([*worth.values(), *liking.values()])
    wins = generator.random(n_pairs) < expit(labelled[:, 0] - labelled[:, 1])
    first = np.where(wins, 0, 1)
    rows = np.arange(n_pairs)
    frames = [
        pd.DataFrame(values[rows, side], columns=[*CAUSAL, *STYLE]) for side in (first, 1 - first)
    ]
    truth = PreferenceTruth(
        theta=worth, gamma=liking, chosen=frames[0], rejected=frames[1], n_topics=n_topics,
        entropy=entropy,
    )  # fmt: skip
    data = pd.DataFrame(
        {
            "query": queries,
            "chosen": [pair[k] for pair, k in zip(answers, first, strict=True)],
            "rejected": [pair[1 - k] for pair, k in zip(answers, first, strict=True)],
        }
    )
    return Simulated(data, truth)


@dataclass(frozen=True, kw_only=True, eq=False)
class AnswerTruth:
    """How any answer to the simulated questions would score.

    Attributes
    ----------
    theta : dict of str to float
        True reward of each causal attribute.
    gamma : dict of str to float
        Bias of those who judge, on each attribute of style.
    n_topics : int
    entropy : int
        Given as ``rng`` it repeats the simulation.
    """

    theta: dict[str, float]
    gamma: dict[str, float]
    n_topics: int
    entropy: int

    def measure(self, queries: Sequence[str], answers: Sequence[str]) -> pd.DataFrame:
        """Read the causal attributes and the style of answers, edited ones too.

        Parameters
        ----------
        queries, answers : sequence of str
            Of equal length; the queries are among those of the simulation. An answer to
            another question has no causal attributes.

        Returns
        -------
        pandas.DataFrame
            One row per answer, one column per attribute, within 0 to 1.

        Raises
        ------
        DataError
            For a query that is not among those of the simulation.
        """
        import pandas as pd

        asked = list(queries)
        topics = [topic_of(query) for query in asked]
        if unknown := [q for q, t in zip(asked, topics, strict=True) if t is None]:
            raise DataError(
                f"Expected queries of the simulation, but {len(unknown)} of {len(asked)} are "
                f"others: {unknown[0]!r:.80}. What their answers are worth is not known."
            )
        rows = [read(t, a) for t, a in zip(topics, answers, strict=True) if t is not None]
        return pd.DataFrame(rows, columns=[*CAUSAL, *STYLE])

    def reward(self, queries: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        """True reward of answers, shape (n,): ``theta'C``, 0 for an answer beside the question."""
        found = self.measure(queries, answers)[list(CAUSAL)].to_numpy()
        return np.asarray(found @ np.array(list(self.theta.values())))

    def labeller(self, queries: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        """Score by which people judge, shape (n,): the true reward and their bias on style."""
        weights = [*self.theta.values(), *self.gamma.values()]
        return np.asarray(self.measure(queries, answers).to_numpy() @ np.array(weights))


@dataclass(frozen=True, kw_only=True, eq=False)
class PreferenceTruth(AnswerTruth):
    """What simulated preferences depend on, and how any answer would score.

    Attributes
    ----------
    theta : dict of str to float
        True reward of each causal attribute.
    gamma : dict of str to float
        The labeller's bias on each attribute of style, `bias` included.
    n_topics : int
    entropy : int
        Given as ``rng`` it repeats the simulation.
    chosen, rejected : pandas.DataFrame
        Causal attributes and style of the answers, one row per pair.

    Examples
    --------
    >>> from causalrm.datasets import make_preferences
    >>> data, truth = make_preferences(2, rng=0)
    >>> asked = ["What is the capital of Australia?", "How high is Mount Everest?"]
    >>> truth.reward(asked, ["The capital of Australia is Canberra."] * 2).tolist()
    [3.2, 0.0]
    """

    chosen: pd.DataFrame = field(repr=False)
    rejected: pd.DataFrame = field(repr=False)

    def test_set(
        self, n_pairs: int = 1000, *, correlation: float = -0.8, rng: RNG = None
    ) -> pd.DataFrame:
        """Make pairs in which `chosen` has the higher true reward.

        Parameters
        ----------
        n_pairs : int
        correlation : float, default -0.8
            As in `make_preferences`; negative, so that what the labeller's bias likes now stands
            against the true reward.
        rng : None, int, SeedSequence or Generator

        Returns
        -------
        pandas.DataFrame
            Columns ``query, chosen, rejected``. Pairs of equal true reward are drawn again.
        """
        import pandas as pd

        generator, _ = resolve(rng)
        weights = np.array(list(self.theta.values())) / (np.array(list(CAUSAL.values())) - 1.0)
        if not weights.any():
            raise DataError("theta is zero throughout: no answer is better than another.")
        rows: list[tuple[str, str, str]] = []
        while len(rows) < n_pairs:
            drawn = _pairs(generator, n_pairs, correlation, self.n_topics)
            for query, (a, b), levels in zip(*drawn, strict=True):
                gap = (levels[0] - levels[1])[: len(CAUSAL)] @ weights
                if abs(gap) > 1e-9:
                    rows.append((query, a, b) if gap > 0 else (query, b, a))
        return pd.DataFrame(rows[:n_pairs], columns=["query", "chosen", "rejected"])


def _weights(
    argument: str, names: Mapping[str, int], given: Mapping[str, float]
) -> dict[str, float]:
    if unknown := [name for name in given if name not in names]:
        raise DataError(f"{argument} has weights of {list(names)}; got {unknown[0]!r}.")
    return {name: float(given.get(name, 0.0)) for name in names}


def _pairs(
    rng: np.random.Generator, n: int, correlation: float, n_topics: int
) -> tuple[list[str], list[list[str]], np.ndarray]:
    """Questions, two answers each, and the levels of all attributes, shape (n, 2, 10)."""
    scores = rng.standard_normal((n, 2, len(CAUSAL) + len(STYLE)))
    k = len(CAUSAL)
    scores[..., k:] *= np.sqrt(1.0 - correlation**2)
    scores[..., k:] += correlation * scores[..., :k]
    levels = to_levels(scores)
    topics = rng.integers(n_topics, size=n)
    queries = ask(rng, topics)
    answers = [
        [write_answer(rng, int(t), level, n_topics) for level in pair]
        for t, pair in zip(topics, levels, strict=True)
    ]
    return queries, answers, levels


def to_levels(scores: np.ndarray) -> np.ndarray:
    """Levels of all attributes (last axis), each equally frequent, from standard normal scores."""
    counts = np.array([*CAUSAL.values(), *STYLE.values()])
    return np.asarray(np.minimum((ndtr(scores) * counts).astype(int), counts - 1))


def ask(rng: np.random.Generator, topics: np.ndarray) -> list[str]:
    """Word a question about each topic."""
    wording = rng.integers(3, size=len(topics))
    return [TOPICS[t].queries[w] for t, w in zip(topics, wording, strict=True)]


def write_answer(rng: np.random.Generator, t: int, levels: np.ndarray, n_topics: int) -> str:
    """Write an answer with these levels of the attributes."""
    level: dict[str, Any] = dict(zip([*CAUSAL, *STYLE], levels.tolist(), strict=True))
    topic = TOPICS[t]
    value = topic.right if level["correctness"] else topic.wrong[rng.integers(len(topic.wrong))]
    told = [topic.fact.format(value)]
    told += [topic.details[i] for i in rng.permutation(3)[: level["completeness"]]]
    told += [topic.reason] * level["reasoning"] + [topic.evidence] * level["evidence"]
    others = rng.choice(n_topics - 1, size=min(2, n_topics - 1), replace=False)
    others = np.resize(others + (others >= t), 2)
    strays = [TOPICS[o].details[i] for i, o in zip(rng.permutation(3), others, strict=False)]
    style = {
        name: [options[i] for i in rng.permutation(len(options))[: level[name]]]
        for name, options in PHRASES.items()
    }
    # Style and strays stand anywhere after the fact, the politest phrase before it.
    rest = told[1:] + strays[: CAUSAL["relevance"] - 1 - level["relevance"]]
    rest += style["length"] + style["hedging"] + style["enthusiasm"] + style["politeness"][1:]
    rest = [rest[i] for i in rng.permutation(len(rest))]
    sentences = [*style["politeness"][:1], told[0], *rest]
    if level["formatting"] == 0:
        return " ".join(sentences)
    lines = "\n".join(f"- {sentence}" for sentence in sentences)
    return f"{HEADING}\n{lines}" if level["formatting"] == 2 else lines
