"""Discrete choice experiments with language models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from causalrm.attribution._choice_design import choice_design
from causalrm.attribution._replies import check_replies, chosen
from causalrm.attribution._run import Budget, shares
from causalrm.attribution.archive import Archive
from causalrm.attribution.logit import ChoiceResult, conditional_logit
from causalrm.attribution.result import AttributionResult
from causalrm.attribution.shapley import PromptShapley
from causalrm.attribution.template import Baseline, Component, Neutral, PromptTemplate
from causalrm.attribution.values import ChoiceValue
from causalrm.core import random
from causalrm.core.errors import CausalRMWarning, DataError, warn
from causalrm.llm.reply import LanguageModel

_QUESTION = "Answer with the letter of one option only."


class ChoiceExperiment:
    """A discrete choice experiment: sets of alternatives that differ in their attributes.

    Parameters
    ----------
    attributes : dict of str to list
        Levels of each attribute, numbers or texts.
    n_sets : int
    n_alternatives : int, default 2
    design : {"d-efficient", "random"}
        D-efficient: levels are exchanged one by one as long as the determinant of the
        conditional logit's information, at `prior`, grows.
    prior : dict of str to float, optional
        Guessed utilities per unit of numeric attributes; 0 by default.
    describe : dict of str to str, optional
        How an attribute is written, such as ``{"price": "costs {} dollars"}``.
    intro : str
        Stands before the options.
    label : str
        What an alternative is called.
    cost : str, optional
        The attribute that willingness to pay is measured in.
    rng : None, int, SeedSequence or Generator

    Attributes
    ----------
    design : DataFrame
        set, alternative, and the attributes.

    References
    ----------
    Huber, Zwerina (1996), doi:10.1177/002224379603300305.

    Examples
    --------
    >>> experiment = ChoiceExperiment({"price": [200, 300], "hours": [3, 6]}, n_sets=2, rng=1)
    >>> len(experiment.design)
    4
    """

    def __init__(
        self,
        attributes: Mapping[str, Sequence[Any]],
        n_sets: int = 12,
        n_alternatives: int = 2,
        *,
        design: str = "d-efficient",
        prior: Mapping[str, float] | None = None,
        describe: Mapping[str, str] | None = None,
        intro: str = "Which would you choose?",
        label: str = "Option",
        cost: str | None = None,
        rng: random.RNG = 0,
    ) -> None:
        if not attributes or any(len(set(levels)) < 2 for levels in attributes.values()):
            raise DataError("Every attribute needs two or more different levels.")
        if design not in ("d-efficient", "random"):
            raise DataError(f"design must be 'd-efficient' or 'random'; got {design!r}.")
        if n_alternatives < 2 or n_sets < 1:
            raise DataError("A choice experiment needs a set of two alternatives at least.")
        for name in (*(prior or ()), *(describe or ()), *([cost] if cost else [])):
            if name not in attributes:
                raise DataError(f"There is no attribute {name!r}; there are {list(attributes)}.")
        self.attributes = {name: list(levels) for name, levels in attributes.items()}
        self.describe = {name: f"{name}: {{}}" for name in attributes} | dict(describe or {})
        self.intro, self.label, self.cost = intro, label, cost
        generator, self.entropy = random.resolve(rng)
        codes = choice_design(
            self.attributes, n_sets, n_alternatives, prior or {}, design, generator
        )
        self.design = pd.DataFrame(
            {
                "set": np.repeat(np.arange(n_sets), n_alternatives),
                "alternative": np.tile(np.arange(n_alternatives), n_sets),
            }
            | {
                name: [levels[c] for c in codes[:, :, k].ravel()]
                for k, (name, levels) in enumerate(self.attributes.items())
            }
        )

    def __repr__(self) -> str:
        sets = self.design["set"].nunique()
        return f"ChoiceExperiment({sets} sets, attributes {', '.join(self.attributes)})"

    def _option(self, row: Mapping[Any, Any], alternative: int) -> str:
        shown = ", ".join(self.describe[a].format(row[a]) for a in self.attributes)
        return f"{self.label} {alternative + 1}: {shown}"

    def run(
        self, client: LanguageModel, *, replies: int = 1, counterbalance: bool = True,
        **decoding: Any,
    ) -> pd.DataFrame:  # fmt: skip
        """Let a language model choose from every set.

        Parameters
        ----------
        client : LanguageModel
            With a cache it goes on where an interrupted run stopped.
        replies : int
            Replies per set and order of the alternatives.
        counterbalance : bool
            Also show the alternatives in rotated orders.
        **decoding
            Passed to the client.

        Returns
        -------
        DataFrame
            One row per alternative of each occasion (a set shown once): occasion, set, order,
            alternative, position, the attributes, chosen. Occasions without a choice have
            chosen NaN and say why in `outcome`.
        """
        prompts, shown, replicate = [], [], []
        for s, rows in self.design.groupby("set"):
            k = len(rows)
            texts = [self._option(row, i) for i, row in enumerate(rows.to_dict("records"))]
            for turn in range(k if counterbalance else 1):
                order = [(i + turn) % k for i in range(k)]
                lines = [f"{chr(65 + i)}. {texts[o]}" for i, o in enumerate(order)]
                for r in range(check_replies(replies)):
                    prompts.append("\n".join([self.intro, *lines, _QUESTION]))
                    shown.append((s, turn, order))
                    replicate.append(r)
        found = client.complete(prompts, replicate=replicate, **decoding)
        parts = []
        for i, (s, turn, order) in enumerate(shown):
            rows = self.design[self.design["set"] == s].iloc[order].copy()
            options = [self._option(row, a) for a, row in zip(
                order, rows.to_dict("records"), strict=True)]  # fmt: skip
            letters = [chr(65 + k) for k in range(len(order))]
            status = str(found["status"].iloc[i])
            at = chosen(found["text"].iloc[i], letters, options) if status == "ok" else None
            rows.insert(0, "occasion", i)
            rows["order"], rows["position"] = turn, np.arange(len(order))
            rows["chosen"] = np.nan if at is None else (np.arange(len(order)) == at).astype(float)
            lost = "unparseable" if status == "ok" else status
            rows["outcome"] = lost if at is None else "chosen"
            parts.append(rows)
        return pd.concat(parts, ignore_index=True)

    def fit(self, choices: pd.DataFrame) -> ChoiceResult:
        """Fit a conditional logit to choices, of a model (`run`) or of people.

        Parameters
        ----------
        choices : DataFrame
            As `run` gives it: occasion, chosen and the attributes. Occasions without a choice
            are left out, with a warning, and counted in the result's outcomes.

        Returns
        -------
        ChoiceResult
        """
        outcome = choices.get("outcome")
        taken = choices
        counts = pd.Series({"chosen": choices["occasion"].nunique()})
        log: list[str] = []
        if outcome is not None:
            counts = choices.drop_duplicates("occasion")["outcome"].value_counts()
            taken = choices[choices["chosen"].notna()]
            if len(taken) < len(choices):
                rest = counts.drop("chosen", errors="ignore")
                warn(
                    "Left out are occasions without a choice: "
                    + ", ".join(f"{n} {o}" for o, n in rest.items()) + ".", CausalRMWarning, log,
                )  # fmt: skip
        found = conditional_logit(
            taken, occasion="occasion", chosen="chosen", attributes=list(self.attributes),
            cost=self.cost,
        )  # fmt: skip
        return replace(found, outcomes=shares(counts), warnings=(*found.warnings, *log))

    def template(
        self,
        choice_set: int,
        *,
        filler: Mapping[str, str] | None = None,
        absent: Baseline | None = None,
    ) -> tuple[PromptTemplate, list[str]]:
        """Make an attribution game of one choice set.

        Parameters
        ----------
        choice_set : int
        filler : dict of name to text, optional
            Neutral components, which stand before `intro`.
        absent : Drop, Mask, Neutral or Resample, optional
            By default an absent attribute is ``"not stated"``.

        Returns
        -------
        template : PromptTemplate
            A component per attribute and alternative, named ``"price 1"``, in one group per
            attribute.
        options : list of str
            For `ChoiceValue`.
        """
        rows = self.design[self.design["set"] == choice_set]
        if rows.empty:
            raise DataError(
                f"There is no set {choice_set}; there are {self.design['set'].max() + 1}."
            )
        components = [Component(k, t, role="neutral") for k, t in (filler or {}).items()]
        options = []
        for i, row in enumerate(rows.to_dict("records"), 1):
            components += [
                Component(f"{a} {i}", str(row[a]), a, baseline=absent or Neutral("not stated"))
                for a in self.attributes
            ]
            shown = ", ".join(
                self.describe[a].format("{" + f"{a} {i}" + "}") for a in self.attributes
            )
            options.append(f"{self.label} {i}: {shown}")
        head = " ".join([*("{" + name + "}" for name in filler or {}), self.intro])
        return PromptTemplate(head, components), options

    def attribute(
        self,
        client: LanguageModel,
        choice_set: int,
        *,
        target: int = 0,
        filler: Mapping[str, str] | None = None,
        mode: str = "logprob",
        replies: int | None = None,
        budget: Budget | None = None,
        rng: random.RNG = 0,
        **decoding: Any,
    ) -> dict[str, AttributionResult]:
        """Shapley values of attributes and filler in one choice set, on both scales.

        Parameters
        ----------
        client : LanguageModel
        choice_set, target : int
            The value is the probability of alternative `target`.
        filler
            As in `template`.
        mode, replies, budget, rng, **decoding
            As in `ChoiceValue` and `PromptShapley`.

        Returns
        -------
        dict
            "probability" and "logit" to AttributionResult, from the same replies.
        """
        template, options = self.template(choice_set, filler=filler)
        archive = Archive()
        out: dict[str, AttributionResult] = {}
        for scale in ("probability", "logit"):
            value = ChoiceValue(
                client, options, target, mode=mode, replies=replies, scale=scale, **decoding
            )
            fit = PromptShapley(budget=budget, rng=rng)
            if scale == "probability":
                out[scale] = fit.fit(template, value, archive=archive).result_
            else:
                out[scale] = fit.reanalyse(template, value, archive).result_
        return out
