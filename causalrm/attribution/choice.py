"""Discrete choice experiments with language models, and the conditional logit behind them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from causalrm.attribution._choice_design import choice_design
from causalrm.attribution._run import Budget, shares
from causalrm.attribution.archive import Archive
from causalrm.attribution.result import AttributionResult, effects
from causalrm.attribution.shapley import PromptShapley
from causalrm.attribution.template import Baseline, Component, Neutral, PromptTemplate
from causalrm.attribution.values import ChoiceValue, _chosen, check_replies
from causalrm.core import inference, random
from causalrm.core.errors import CausalRMWarning, DataError, IdentificationError, warn
from causalrm.core.frame import Source, scan
from causalrm.core.result import Assumption, LikelihoodResult
from causalrm.llm.reply import LanguageModel

_SEPARATED = (
    "The likelihood has no maximum: some attributes predict every choice. Add sets, or leave "
    "attributes out."
)
_QUESTION = "Answer with the letter of one option only."


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ChoiceResult(LikelihoodResult):
    """A conditional logit.

    Parameters
    ----------
    cost : str or None
        The attribute that utilities are measured in.
    loglik_null : float
        Log-likelihood when all alternatives of an occasion are equally likely.
    n_alternatives : int
        Rows; `n_obs` counts occasions.
    outcomes : DataFrame
        What came back, where a model was asked: outcome, count, share.
    """

    cost: str | None
    loglik_null: float
    n_alternatives: int
    outcomes: pd.DataFrame

    def willingness_to_pay(self, level: float = 0.95) -> pd.DataFrame:
        """Cost that a unit of each attribute is worth, by the delta method.

        Returns
        -------
        DataFrame
            The columns of every result frame; minus the ratio of two coefficients.
        """
        if self.cost is None:
            raise DataError("Willingness to pay needs the cost attribute: give cost='price'.")
        at = self.term.index(self.cost)
        b, v = self.estimates, self._covariance()
        if abs(b[at]) < 3.0 * math.sqrt(v[at, at]):
            warn(
                f"The coefficient of {self.cost!r} is {b[at]:.3g} with standard error "
                f"{math.sqrt(v[at, at]):.2g}: so near zero a ratio to it is far from normal, and "
                "the delta method is unreliable.", CausalRMWarning,
            )  # fmt: skip
        others = [i for i in range(len(b)) if i != at]
        jacobian = np.zeros((len(others), len(b)))
        jacobian[np.arange(len(others)), others] = -1.0 / b[at]
        jacobian[:, at] = b[others] / b[at] ** 2
        estimate = -b[others] / b[at]
        se = inference.delta_std_error(jacobian, v)
        return effects([self.term[i] for i in others], estimate, se, level)

    def _fit_lines(self, level: float) -> list[tuple[str, str]]:
        lines = [
            ("Alternatives", f"{self.n_alternatives:,} in {self.n_obs:,} occasions"),
            ("McFadden R2", f"{1.0 - self.loglik / self.loglik_null:.3f}"),
        ]
        return [*super()._fit_lines(level), *lines]


def conditional_logit(
    data: Any,
    *,
    occasion: str,
    chosen: str,
    attributes: Sequence[str],
    cost: str | None = None,
) -> ChoiceResult:
    """Fit a conditional logit to choices, by statsmodels.

    Parameters
    ----------
    data : data frame
        One row per alternative of each occasion.
    occasion : str
        Column that says which rows were to be chosen from together.
    chosen : str
        Column with 1 for the one alternative taken, 0 for the others.
    attributes : sequence of str
        Columns that explain the choice; text becomes indicators, the first level (in sorted
        order, or that of a categorical) is the reference. They must vary within occasions.
    cost : str, optional
        One of them, for the willingness to pay.

    Returns
    -------
    ChoiceResult

    References
    ----------
    McFadden (1974), in Zarembka (ed.), Frontiers in Econometrics, 105-142.

    Examples
    --------
    >>> import statsmodels.api as sm
    >>> travel = sm.datasets.modechoice.load_pandas().data  # 210 people, four modes each
    >>> fit = conditional_logit(travel, occasion="individual", chosen="choice",
    ...                         attributes=["invc", "invt", "ttme"], cost="invc")
    >>> fit.n_obs
    210
    """
    from statsmodels.discrete.conditional_models import ConditionalLogit

    attributes = list(attributes)
    source = Source(data)
    if source.kind != "memory":
        raise DataError("Expected choices held in memory. Give a pandas, polars or pyarrow frame.")
    reader, rows = scan(source, numbers=[chosen], either=attributes, categories=[occasion])
    known = {column.name: column.levels for column in reader.columns}
    occasions = known[occasion] or ()
    y, codes = rows.columns[chosen].astype(float), rows.columns[occasion]
    sizes = np.bincount(codes)
    bad = np.flatnonzero((np.bincount(codes, y) != 1) | (sizes < 2))
    if len(bad) or not np.isin(y, (0.0, 1.0)).all():
        raise DataError(
            f"Every occasion needs two or more alternatives and exactly one {chosen!r} of 1, "
            f"0 elsewhere; {len(bad)} of {len(occasions)} differ, the first "
            f"{[occasions[i] for i in bad[:3]]}. Correct or drop them, all their rows."
        )
    columns: dict[str, np.ndarray] = {}
    for name in attributes:
        if (levels := known[name]) is None:
            columns[name] = rows.columns[name].astype(float)
        else:
            columns |= {
                f"{name}_{level}": (rows.columns[name] == j) * 1.0
                for j, level in enumerate(levels)
                if j
            }
    X = pd.DataFrame(columns)
    within = X - X.groupby(codes).transform("mean")
    rank = np.linalg.matrix_rank(within / np.maximum(within.abs().max(), 1e-300))
    if flat := [c for c in X if within[c].abs().max() <= 1e-12 * X[c].abs().max()]:
        raise IdentificationError(
            f"{flat[0]!r} is the same for all alternatives of every occasion, so that choices say "
            "nothing about it. Remove it, or let it interact with an alternative."
        )
    if not columns:
        raise IdentificationError(
            f"Expected attributes that vary, but {attributes} have one level each. Add others."
        )
    if rank < X.shape[1]:
        raise IdentificationError(
            f"Within occasions the attributes {list(X)} have rank {rank}: some are sums of others. "
            "Remove these."
        )
    if cost is not None and cost not in X:
        raise DataError(f"cost must be one of the numeric attributes {list(X)}; got {cost!r}.")
    scale = within.std(ddof=0).to_numpy()
    unit = within.to_numpy() / scale  # what alternatives of an occasion share cancels
    model = ConditionalLogit(y, unit, groups=codes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # convergence is judged by the score below
        try:
            fit = model.fit(disp=False, method="bfgs", maxiter=200)
        except ValueError as error:  # it asks for a covariance, and there is none
            raise IdentificationError(_SEPARATED) from error
    b = np.asarray(fit.params)
    for _ in range(3):  # Newton: its steps are digits that BFGS leaves open
        information = _information(unit, codes, b)
        step = np.linalg.lstsq(information, np.asarray(model.score(b)), rcond=None)[0]
        b = b + step
    if not np.isfinite(b).all() or np.abs(step).max() > 1e-6 or np.abs(b).max() > 30.0:
        raise IdentificationError(_SEPARATED)
    covariance = inference.invert_information(information, [str(c) for c in X]) / np.outer(
        scale, scale
    )
    call = {
        "estimator": "conditional_logit",
        "options": {"cost": cost},
        "roles": {"occasion": occasion, "chosen": chosen, "attributes": attributes},
    }
    return ChoiceResult(
        call=call,
        n_obs=len(occasions),
        assumptions=(
            Assumption(
                "Independence of irrelevant alternatives",
                "The odds of two alternatives do not depend on the others that are offered",
                "compare fits on occasions with and without an alternative",
            ),
            Assumption(
                "One taste",
                "All who choose weigh attributes alike, and occasions are independent",
                "compare fits by person, prompt or order of the options",
            ),
        ),
        parameter=("utility",) * X.shape[1],
        term=tuple(X.columns),
        estimates=b / scale,
        covariances={"model": covariance},
        covariance="model",
        loglik=float(model.loglike(b)),
        n_params=X.shape[1],
        cost=cost,
        loglik_null=-float(np.log(sizes).sum()),
        n_alternatives=len(data),
        outcomes=shares(pd.Series({"chosen": len(occasions)})),
    )


def _information(X: np.ndarray, codes: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Fisher information of a conditional logit."""
    u = X @ b
    p = np.exp(u - u.max())
    p /= np.bincount(codes, p)[codes]
    means = np.stack([np.bincount(codes, p * x) for x in X.T], axis=1)
    return np.asarray((X * p[:, None]).T @ X - means.T @ means)


def compare_choices(model: ChoiceResult, people: ChoiceResult, level: float = 0.95) -> pd.DataFrame:
    """Set the tastes of a model beside those of people.

    Parameters
    ----------
    model, people : ChoiceResult
        With the same attributes; with a cost also their willingness to pay, which does not
        depend on how noisy each is, as coefficients do.
    level : float

    Returns
    -------
    DataFrame
        ``group`` ("coefficient" or "willingness to pay"), ``term``, the difference model minus
        people in the columns of every result frame, and both estimates.
    """
    if model.term != people.term:
        raise DataError(f"Attributes must agree; got {model.term} and {people.term}.")
    pairs = [("coefficient", model.to_frame(level), people.to_frame(level))]
    if model.cost is not None and model.cost == people.cost:
        a, b = model.willingness_to_pay(level), people.willingness_to_pay(level)
        pairs.append(("willingness to pay", a, b))
    frames = []
    for name, a, b in pairs:
        estimate = (a["estimate"] - b["estimate"]).to_numpy()
        se = np.hypot(a["std_error"].to_numpy(), b["std_error"].to_numpy())
        frame = effects(a["term"].tolist(), estimate, se, level)
        frame.insert(0, "group", name)
        frame["model"], frame["people"] = a["estimate"], b["estimate"]
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


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
            at = _chosen(found["text"].iloc[i], letters, options) if status == "ok" else None
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
