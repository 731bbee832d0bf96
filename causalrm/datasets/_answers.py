"""Simulated log of answers: rated while people wait, and followed until the next complaint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit, gamma, gammainc

from causalrm.core.random import RNG, resolve
from causalrm.datasets._preference_text import CAUSAL, STYLE, TOPICS
from causalrm.datasets._preferences import AnswerTruth, ask, to_levels, write_answer
from causalrm.datasets._simulated import Simulated, check_ranges

if TYPE_CHECKING:
    import pandas as pd

_THETA = dict.fromkeys(CAUSAL, 1.0) | {"completeness": 2.0}
_BIAS = {"length": 0.8, "formatting": 0.6, "politeness": 0.8, "hedging": 0.0, "enthusiasm": 0.0}
_STUDY_DAYS, _TYPICAL_DAYS, _SHAPE = 40.0, 25.0, 1.3


@dataclass(frozen=True, kw_only=True, eq=False)
class AnswerLogTruth(AnswerTruth):
    """What simulated ratings and complaints depend on, and how any answer would fare.

    Attributes
    ----------
    theta : dict of str to float
        Points of rating that each causal attribute adds: the true reward.
    gamma : dict of str to float
        Points that each attribute of style adds to a rating, and to nothing else.
    wait_effect : float
        Points of rating for each minute of waiting.
    log_time_ratio : float
        By which one point of true reward moves the logarithm of the days until a complaint.
    n_topics : int
    entropy : int
        Given as ``rng`` it repeats the simulation.
    """

    wait_effect: float
    log_time_ratio: float

    def candidates(
        self, n_questions: int, per_question: int = 8, *, rng: RNG = None
    ) -> pd.DataFrame:
        """Draw answers to choose from, whose style says nothing of their quality.

        Parameters
        ----------
        n_questions, per_question : int
        rng : None, int, SeedSequence or Generator

        Returns
        -------
        pandas.DataFrame
            n_questions x per_question rows with the columns ``question`` (a number), ``query`` and
            ``answer``.
        """
        import pandas as pd

        generator, _ = resolve(rng)
        topics = generator.integers(self.n_topics, size=n_questions)
        question = np.repeat(np.arange(n_questions), per_question)
        scores = generator.standard_normal((len(question), len(CAUSAL) + len(STYLE)))
        return pd.DataFrame(
            {
                "question": question,
                "query": np.array(ask(generator, topics), dtype=object)[question],
                "answer": _write(generator, topics[question], scores, self.n_topics),
            }
        )

    def days(self, queries: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        """Expected days without a complaint, of the 40 of follow-up, shape (n,)."""
        scale = self._scale(self.reward(queries, answers))
        part = gammainc(1.0 / _SHAPE, (_STUDY_DAYS / scale) ** _SHAPE)
        return np.asarray(scale * gamma(1.0 + 1.0 / _SHAPE) * part)

    def _scale(self, reward: np.ndarray) -> np.ndarray:
        return np.asarray(_TYPICAL_DAYS * np.exp(self.log_time_ratio * (reward - 3.0)))

    def judge(
        self, queries: Sequence[str], a: Sequence[str], b: Sequence[str], *, rng: RNG = None
    ) -> np.ndarray:
        """Let an expert say whether a is better than b, with probability s(reward a - reward b).

        Parameters
        ----------
        queries, a, b : sequence of str
        rng : None, int, SeedSequence or Generator

        Returns
        -------
        ndarray of shape (n,)
            1 where a was preferred, else 0.
        """
        generator, _ = resolve(rng)
        p = expit(self.reward(queries, a) - self.reward(queries, b))
        return np.asarray(generator.random(len(p)) < p, dtype=float)


def make_answer_log(
    n: int = 3000,
    *,
    entanglement: float = 0.4,
    style_follows: float = 0.9,
    wait_effect: float = -0.4,
    log_time_ratio: float = 0.25,
    error_sd: float = 1.0,
    agents: int = 100,
    n_topics: int = 12,
    rng: RNG = None,
) -> Simulated[AnswerLogTruth]:
    """Simulate answers that were rated by those who had waited for them.

    Whoever has waited long rates lower, whatever the answer. When few people wait, agents take
    their time: their answers are better, and longer and politer as well. Raters also give points
    for style itself. What brings a complaint later is neither style nor rating, but a bad answer.

    Parameters
    ----------
    n : int
        Number of rows.
    entanglement, style_follows : float
        Within 0 to 1: how strongly quality and style follow quiet times.
    wait_effect : float
        Points of rating for each minute of waiting.
    log_time_ratio : float
        By which one point of true reward moves the logarithm of the days until a complaint.
    error_sd : float
        Of a rating.
    agents : int
        Each of whom gives all its answers a little more or less of everything that is not known.
    n_topics : int
        2 to 24 topics of three questions each.
    rng : None, int, SeedSequence or Generator

    Returns
    -------
    Simulated
        The pair ``(data, truth)``: a `pandas.DataFrame` with the columns ``query, answer, agent,
        wait`` (minutes), ``rating`` (points), ``days`` (until the next complaint, or the end of
        follow-up) and ``complaint`` (1, or 0 where there was none by then), and an
        `AnswerLogTruth`.

    Raises
    ------
    DataError
        For arguments outside their range.

    Examples
    --------
    >>> from causalrm.datasets import make_answer_log
    >>> data, truth = make_answer_log(200, rng=0)
    >>> data[["wait", "rating", "days", "complaint"]].head(2).round(1)
       wait  rating  days  complaint
    0   4.9    11.9  40.0          0
    1   7.3     9.4  40.0          0
    """
    import pandas as pd

    check_ranges(
        n=(n, 1, 10**7), entanglement=(entanglement, 0, 1), style_follows=(style_follows, 0, 1),
        error_sd=(error_sd, 0, 1e6), agents=(agents, 1, 10**7), n_topics=(n_topics, 2, len(TOPICS)),
    )  # fmt: skip
    generator, entropy = resolve(rng)
    quiet = generator.standard_normal(n)
    topics = generator.integers(n_topics, size=n)
    scores = generator.standard_normal((n, len(CAUSAL) + len(STYLE)))
    follows = np.repeat([entanglement, style_follows], [len(CAUSAL), len(STYLE)])
    scores = follows * quiet[:, None] + np.sqrt(1.0 - follows**2) * scores
    data = pd.DataFrame(
        {
            "query": ask(generator, topics),
            "answer": _write(generator, topics, scores, n_topics),
            "agent": generator.integers(agents, size=n),
            "wait": 6.0 * np.exp(-0.5 * quiet + 0.3 * generator.standard_normal(n)),
        }
    )
    truth = AnswerLogTruth(
        theta=_THETA, gamma=_BIAS, n_topics=n_topics, entropy=entropy,
        wait_effect=wait_effect, log_time_ratio=log_time_ratio,
    )  # fmt: skip
    habit = 0.5 * error_sd * generator.standard_normal(agents)[data["agent"]]
    data["rating"] = (
        6.0
        + truth.labeller(list(data["query"]), list(data["answer"]))
        + wait_effect * data["wait"]
        + habit
        + np.sqrt(0.75) * error_sd * generator.standard_normal(n)
    )
    scale = truth._scale(truth.reward(list(data["query"]), list(data["answer"])))
    days = scale * generator.weibull(_SHAPE, n)
    data["days"] = np.minimum(days, _STUDY_DAYS)
    data["complaint"] = (days <= _STUDY_DAYS).astype(int)
    return Simulated(data, truth)


def _write(
    rng: np.random.Generator, topics: np.ndarray, scores: np.ndarray, n_topics: int
) -> list[str]:
    return [
        write_answer(rng, int(t), level, n_topics)
        for t, level in zip(topics, to_levels(scores), strict=True)
    ]
