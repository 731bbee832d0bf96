"""Causal and neutral pairs from preferences, by asking an oracle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from causalrm.augment._preferences import Preferences
from causalrm.augment._run import COLUMNS, NEUTRALS, Run
from causalrm.augment.oracle import STEPS, BestCase, Oracle
from causalrm.augment.report import AugmentationReport
from causalrm.core.column import first_rows
from causalrm.core.errors import DataError, warn
from causalrm.core.random import RNG


class CausalAugmenter:
    """Makes causal and neutral pairs of answers from preferences.

    For each preference the oracle names attributes that may cause quality, and elements of
    each; per attribute it *upgrades* the rejected answer (upgraded beats original) and
    *degrades* the chosen one (original beats degraded), and verifies each rewriting. Neutral
    pairs differ in what should not matter, and tie.

    Parameters
    ----------
    oracle : Oracle
        :class:`LLMOracle`, :class:`RuleOracle`, :class:`VectorOracle`, :class:`ReplayOracle` or
        anything with their six methods.
    n_attributes : int, default 5
        Attributes per preference; 0 makes no causal pairs.
    neutrals : sequence of str
        Kinds of further pairs.

        ==================== ==============================================================
        irrelevant_query     two answers to one question, beside an unrelated question: a
                             tie. Half of them from the preferences, half from the causal
                             pairs that are verified. No call of the oracle.
        paraphrase           an answer and its paraphrase: a tie
        aligned              the chosen answer, and the rejected one rewritten to its
                             causal attributes in its own style: a tie
        non_contextual       an answer to the question beats an answer to an unrelated one
        non_contextual_tie   two answers to questions that are unrelated to this one tie
        ==================== ==============================================================
    neutral_ratio : float or mapping of str to float, default 1.0
        Neutral pairs per preference, for all kinds or by kind. At most 2 for paraphrases (each
        answer once) and 1 for aligned pairs; the others are drawn with replacement.
    rng : None, int, numpy.random.SeedSequence or numpy.random.Generator, default 0
        Draws neutral pairs; what the oracle says does not depend on it. One `rng` gives one
        frame, whatever the order in which replies arrive.

    Attributes
    ----------
    report_ : AugmentationReport
        Counts of the last `generate`.

    Notes
    -----
    Two questions are taken as unrelated if at most a fifth of the words of the shorter one are
    shared (words without meaning, and those in more than a tenth of the questions, aside);
    among questions that are all akin, the least so of 32 drawn ones is taken. The full setting
    asks 26 questions per preference: 1 for attributes, 5 for elements, 10 rewritings and 10
    verifications. Equal preferences are asked once.

    With a client that has a cache, or with :class:`ReplayOracle` as recorder, a run that was
    killed goes on where it stopped: call `generate` again. Failed questions are asked again,
    too. Progress is shown by the client, batch by batch.

    References
    ----------
    Srivastava et al. (2025). Robust reward modeling via causal rubrics. arXiv:2506.16507.
    Liu et al. (2024). RRM: robust reward model training mitigates reward hacking.
    arXiv:2409.13156 (permutations).

    Examples
    --------
    >>> import causalrm as crm
    >>> data, _ = crm.datasets.make_preferences(20, rng=0)
    >>> augmenter = crm.CausalAugmenter(crm.augment.RuleOracle())
    >>> augmenter.plan(data).calls
    520
    >>> pairs = augmenter.generate(data)
    >>> pairs.groupby(["kind", "status"]).size().to_dict()
    {('causal', 'identical'): 64, ('causal', 'ok'): 136, ('irrelevant_query', 'ok'): 20}
    """

    report_: AugmentationReport

    def __init__(
        self,
        oracle: Oracle,
        n_attributes: int = 5,
        neutrals: Sequence[str] = ("irrelevant_query",),
        neutral_ratio: float | Mapping[str, float] = 1.0,
        rng: RNG = 0,
    ) -> None:
        if not isinstance(oracle, Oracle):
            raise DataError(
                f"oracle needs the methods {', '.join(STEPS)}; got {type(oracle).__name__}."
            )
        if isinstance(n_attributes, bool) or not isinstance(n_attributes, int) or n_attributes < 0:
            raise DataError(f"n_attributes must be an int >= 0; got {n_attributes!r}.")
        kinds = (neutrals,) if isinstance(neutrals, str) else tuple(neutrals)
        if bad := [k for k in kinds if k not in NEUTRALS or kinds.count(k) > 1]:
            raise DataError(f"neutrals must be different ones of {NEUTRALS}; got {bad[0]!r}.")
        if n_attributes == 0 and not kinds:
            raise DataError("Without attributes and neutrals there is nothing to make.")
        given = neutral_ratio if isinstance(neutral_ratio, Mapping) else {}
        if unused := [k for k in given if k not in kinds]:
            raise DataError(f"neutral_ratio has {unused[0]!r}, which is not among neutrals.")
        most = {"paraphrase": 2.0, "aligned": 1.0}
        self._ratios: dict[str, float] = {}
        for kind in kinds:
            ratio = given.get(kind, 1.0) if given else neutral_ratio
            if isinstance(ratio, Mapping) or not 0 <= ratio <= most.get(kind, np.inf):
                raise DataError(
                    f"neutral_ratio must be a number >= 0 (at most {most.get(kind, np.inf):g} for "
                    f"{kind}), or a mapping of them by kind; got {ratio!r}."
                )
            self._ratios[kind] = float(ratio)
        self.oracle = oracle
        self.n_attributes = n_attributes
        self.neutrals = kinds
        self.neutral_ratio = neutral_ratio
        self.rng = rng

    def generate(
        self, data: Any, *, query: str = "query", chosen: str = "chosen", rejected: str = "rejected"
    ) -> pd.DataFrame:
        """Make the pairs.

        Parameters
        ----------
        data : data frame
            One preference per row.
        query, chosen, rejected : str
            Columns: the question (text; any label beside vectors), and the answers (text; 1-d
            vectors of one length with an oracle for vectors).

        Returns
        -------
        pandas.DataFrame
            One row per pair, whatever became of it: causal ones first (two per preference and
            attribute, the upgrade before the degrade), then each kind of `neutrals`.

            ==========  ====================================================================
            pair        0, 1, ...
            parent      label of the preference it was made from
            cluster     code of the parent's query: pairs of one cluster are not independent
            query       beside which the answers are to be read
            answer_a,   answers; None where there is none
            answer_b
            target      1.0: a is better; 0.5: a tie
            kind        causal, or one of `neutrals`
            attribute,  what was moved and how (upgrade, degrade); "" for other kinds
            direction
            status      ok, not_verified, identical, empty or failed; only ok is to be used
            ==========  ====================================================================

            ``attrs["augmentation"]`` holds the counts of `report_` as plain JSON.

        Raises
        ------
        DataError
            For missing values, columns that are not of the kind that the oracle takes, empty
            questions, or a kind of pairs that needs two unrelated questions where there are
            none.

        Warns
        -----
        CausalRMWarning
            When answers are empty or the two answers of a preference are the same, and when
            questions to the oracle failed.
        """
        table = self._read(data, query, chosen, rejected)
        for status, what in (("empty", "an empty answer"), ("identical", "identical answers")):
            found = [i for i, s in enumerate(table.status) if s == status]
            if found:
                warn(
                    f"{len(found)} of {len(table.status)} preferences have {what} (first rows: "
                    f"{first_rows(found, table.index)}): their pairs have the status {status!r}."
                )
        run = self._run(self.oracle, table)
        frame = pd.DataFrame(run.rows(), columns=list(COLUMNS[1:]))
        frame.insert(0, "pair", np.arange(len(frame)))
        self.report_ = run.report(frame)
        frame.attrs["augmentation"] = json.loads(self.report_.to_json())
        if n := int((frame["status"] == "failed").sum()):
            first = next(iter(self.report_.failures.get("reason", [])), "no reply")
            warn(
                f"{n} of {len(frame)} pairs failed and have that status (the first: {first:.200}). "
                "They are asked again when generate is called again."
            )
        return frame

    def plan(
        self,
        data: Any,
        *,
        query: str = "query",
        chosen: str = "chosen",
        rejected: str = "rejected",
    ) -> AugmentationReport:
        """Count calls, tokens and cost without asking the oracle.

        The number of calls is that of a run in which every reply can be used the first time
        (none malformed, no rewriting that changes nothing); what is cached costs nothing. With
        :class:`LLMOracle` the tokens of prompts are estimated, those of replies are the most
        that there can be; other oracles have none.

        Parameters
        ----------
        data, query, chosen, rejected
            As in `generate`.

        Returns
        -------
        AugmentationReport
        """
        table = self._read(data, query, chosen, rejected)
        planner = getattr(self.oracle, "planner", None)
        run = self._run(planner() if planner is not None else BestCase(), table)
        frame = pd.DataFrame(run.rows(), columns=list(COLUMNS[1:]))
        return replace(run.report(frame), planned=True)

    def _run(self, oracle: Any, table: Preferences) -> Run:
        return Run(oracle, table, self.n_attributes, self._ratios, self.rng)

    def _read(self, data: Any, query: str, chosen: str, rejected: str) -> Preferences:
        vectors = bool(getattr(self.oracle, "vectors", False))
        table = Preferences.read(data, query, chosen, rejected, vectors)
        if any(self._ratios.get(k) for k in (NEUTRALS[0], *NEUTRALS[3:])):
            table.look_for_unrelated(query)
        return table
