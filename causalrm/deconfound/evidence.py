"""What a deconfounded reward rests on: what is refused, what is doubted, what is only assumed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from causalrm.core.blocks import Block
from causalrm.core.design import Design
from causalrm.core.errors import (
    CausalRMWarning,
    DataError,
    IdentificationError,
    IdentificationWarning,
    check_choice,
    warn,
)
from causalrm.core.inference import warn_of_few
from causalrm.core.result import Assumption
from causalrm.deconfound.few_clusters import BOOTSTRAP
from causalrm.deconfound.result import COMPARATORS, METHODS
from causalrm.deconfound.task import Fitted, Task

_TIMES = ("pre", "post", "text")


def check_options(
    estimator: Any, text: Any, confounders: Any, instruments: Any, absorb: Any
) -> None:
    """Refuse options of a `DeconfoundedReward` that are none, or do not go with its roles."""
    check_choice("method", estimator.method, METHODS)
    for name, least in (("folds", 2), ("repeats", 1)):
        value = getattr(estimator, name)
        if not isinstance(value, int | np.integer) or not least <= value <= 100:
            raise DataError(
                f"Expected {name} from {least} to 100, but saw {value!r}. Give such a number."
            )
    needs = {"instruments": ("iv", instruments), "absorb": ("fixed_effects", absorb)}
    for role, (method, given) in needs.items():
        if (given is not None) != (estimator.method == method):
            problem = "saw none" if given is None else f"saw it with {estimator.method!r}"
            raise DataError(
                f"Expected {role}= with method {method!r} and no other, but {problem}. "
                f"Set method={method!r} and give {role}, or leave {role} out."
            )
    if confounders is None and not (absorb and estimator.method == "fixed_effects"):
        raise DataError(
            "Expected confounders=, but saw none. Give the columns that move the outcome and may "
            "go with the text, or fit a plain regression."
        )
    is_text = isinstance(text, str)
    columns = text if is_text else tuple(text)
    if not columns or len(set(columns)) < len(columns) and not is_text:
        raise DataError(
            f"Expected text to be a column or different feature columns, but saw {text!r}. "
            "Give one column of texts, or a list of numeric columns."
        )
    linear = estimator.nuisance is None or isinstance(estimator.nuisance, int | float)
    if estimator.method == "joint" and is_text:
        raise DataError(
            f"Expected feature columns for method 'joint', but saw the text {text!r}: a joint "
            "regression on texts needs a penalty, which leaves a part of the confounder's "
            "effect to the text. Use method='plr', or encode the texts and give the columns."
        )
    needed = {"joint": linear, "fixed_effects": estimator.nuisance is None}
    if not needed.get(estimator.method, True):
        raise DataError(
            f"Expected least squares for method {estimator.method!r}, but saw nuisance="
            f"{estimator.nuisance!r}. Use method='plr' with the levels as confounders."
        )
    if not linear and not hasattr(estimator.nuisance, "predict"):
        raise DataError(
            "Expected nuisance to be a number or a scikit-learn regressor, but saw "
            f"{estimator.nuisance!r}. Give one of these."
        )
    if linear and estimator.nuisance is not None and not 0 <= estimator.nuisance < np.inf:
        raise DataError(
            f"Expected a penalty of at least 0 as nuisance, but saw {estimator.nuisance!r}. Give "
            "such a number."
        )


def check_timing(
    used: Mapping[str, Sequence[str]], timing: Mapping[str, str], outcome: str,
    features: Sequence[str], log: list[str],
) -> None:  # fmt: skip
    """Refuse what comes after the text, or is a part of it, as confounder or instrument."""
    columns = {name: role for role, names in used.items() for name in names}
    for name, when in timing.items():
        if when not in _TIMES or name not in columns:
            raise DataError(
                f"Expected timing to map columns of confounders or instruments to one of {_TIMES}, "
                f"but saw {name!r}: {when!r}. Give columns of {list(columns)}."
            )
    for name, role in columns.items():
        if name == outcome:
            raise DataError(f"Expected {role} other than the outcome, but saw {name!r}. Remove it.")
        if timing.get(name) == "post":
            raise IdentificationError(
                f"Expected {role} from before the text was shown, but {name!r} is declared "
                "'post': a consequence of the text, and to take it out takes a part of the text's "
                "effect out. Remove it."
            )
        if name in features:
            raise IdentificationError(
                f"Expected {role} that are no part of the text, but {name!r} is among the "
                "features. Remove it from one of the two."
            )
        if timing.get(name) == "text":
            warn(
                f"{name!r} is computed from the text: what it does to the outcome is a part of the "
                "text's effect, and is taken out of the reward because timing says so.",
                IdentificationWarning,
                log,
            )


def check_derived(task: Task, design: Design, timing: Mapping[str, str]) -> None:
    """Refuse confounders that are the length of the text."""
    codes = task.rows.columns[str(task.text)]
    measures = {
        "characters": [len(text) for text in task.distinct],
        "words": [len(text.split()) for text in task.distinct],
    }
    for column in design.columns:
        if column.is_categorical or timing.get(column.name) == "text":
            continue
        x = task.rows.columns[column.name].astype(float)
        for what, values in measures.items():
            y = np.array(values, dtype=float)[codes]
            if x.std() == 0 or y.std() == 0 or abs(np.corrcoef(x, y)[0, 1]) < 0.999:
                continue
            raise IdentificationError(
                f"Expected confounders that are no part of the text, but {column.name!r} follows "
                f"its number of {what} in all {len(x)} rows. Remove it, or declare "
                f"timing={{{column.name!r}: 'text'}} to take its effect out of the reward."
            )


def _kinds(block: Block, name: str) -> tuple[int, int, float]:
    y = np.asarray(block[name], dtype=float)
    whole = (y >= 0) & (y == np.round(y))
    return int((whole & (y <= 1)).sum()), int(whole.sum()), float(y.sum())


def check_outcome(task: Task, log: list[str]) -> None:
    """Warn where the deconfounded outcome can leave the range of the outcome."""
    n = task.rows.n_obs
    binary, whole, total = task.rows.total(_kinds, task.outcome)
    if whole < n or (binary < n and total / n > 10):
        return
    what, range_ = ("0 or 1", "[0, 1]") if binary == n else ("a small count", "what counts can be")
    warn(
        f"The outcome {task.outcome!r} is {what}: effects are differences of its mean, and "
        f"deconfounded outcomes and rewards can leave {range_}. They order texts and enter least "
        "squares; do not read them as probabilities or counts. offset_reward() works with log-odds "
        "or log-means.",
        CausalRMWarning,
        log,
    )


def check_clusters(task: Task, log: list[str]) -> None:
    """Refuse one cluster, and warn where there are few."""
    g = task.n_clusters
    if g is None:
        return
    if g < 2 or g < task.n_folds and task.method != "fixed_effects":
        raise IdentificationError(
            f"Expected at least as many clusters as folds in column {task.cluster!r}, but saw {g} "
            f"for {task.n_folds}. Lower folds, or use a finer cluster."
        )
    if task.method != "fixed_effects":  # which warns itself
        warn_of_few(g, log, unit=f"clusters in column {task.cluster!r}", remedy=BOOTSTRAP)


def assumptions(task: Task, fitted: Fitted, timing: Mapping[str, str]) -> tuple[Assumption, ...]:
    """Everything that must hold, with the evidence of this fit."""
    d = fitted.diagnostics
    design = task.designs.get("confounders")
    names = [c.name for c in design.columns] if design is not None else []
    c = ", ".join([*names, *task.absorb])
    y, m = task.outcome, task.method
    r2 = d.get("entanglement", {})
    entangled = "not measured beside absorbed effects"
    p = math.nan
    if r2:
        p = d["hausman"]["p_value"]
        entangled = (
            f"out-of-fold R2 of the confounder on the text {max(r2.values()):.2f}; its effects "
            f"alone and with the text or instrument differ with p = {p:.2g}"
        )
    out = []
    if m in COMPARATORS:
        wrong = p < 0.05 and m != "input"
        out.append(
            Assumption(
                "comparator",
                f"'{m}' is given for comparison and is right only where {COMPARATORS[m]}",
                entangled,
                "doubtful" if wrong else "untested",
            )
        )
    if m == "iv":
        stage = d["first_stage"]
        strong = bool((stage["effective_f"] > stage["critical"]).all())
        out += [
            Assumption(
                "relevance", f"the instruments move {c}",
                f"effective first-stage F {stage['effective_f'].min():.1f}, to exceed "
                f"{stage['critical'].max():.1f}; see anderson_rubin()",
                "supported" if strong else "doubtful",
            ),
            Assumption(
                "exclusion", f"the instruments move {y} through {c} only",
                "cannot be tested with as many instruments as confounders; an empty "
                "Anderson-Rubin set refutes it with more",
            ),
            Assumption(
                "independence",
                "the instruments are as good as random: unrelated to text quality and errors",
                "known from how they were drawn; compare texts across their values",
            ),
        ]  # fmt: skip
    elif m != "ignore":
        out.append(
            Assumption(
                "no hidden confounding", f"nothing beside the text moves both {c} and {y}",
                "not tested; sensitivity() says how strong it would have to be",
            )
        )  # fmt: skip
    if r2:
        share = d["ess"] / task.rows.n_obs
        worst = max(r2.values())
        out.append(
            Assumption(
                "overlap", f"texts of equal quality were shown at different {c}",
                f"out-of-fold R2 {worst:.2f} (not identified without an instrument above 0.95), "
                f"effective rows {d['ess']:,.0f} ({share:.0%}), none trimmed",
                "supported" if worst < 0.8 else "doubtful",
            )
        )  # fmt: skip
        z = max((abs(v) for v in d["additivity_z"].values() if not math.isnan(v)), default=0.0)
        out.append(
            Assumption(
                "additivity", f"{c} shifts {y} by the same amount whatever the text",
                f"score test of the product of reward and confounder: largest |z| {z:.1f}",
                "doubtful" if z > 3 else "supported",
            )
        )  # fmt: skip
    else:
        out.append(
            Assumption("additivity", f"{c} shifts {y} by the same amount whatever the text",
                       "not tested; compare fits on parts of the texts")
        )  # fmt: skip
    declared = {name: timing[name] for name in names if name in timing}
    before = bool(names) and all(declared.get(name) == "pre" for name in names)
    out += [
        Assumption(
            "no effect of the text on the confounder", f"{c} was fixed before the text was seen",
            f"declared: {declared}" if declared else "not declared; give timing=",
            "supported" if before else "doubtful" if "text" in declared.values() else "untested",
        ),
        Assumption(
            "no error in the confounder", f"{c} is what readers met, measured without error",
            "not tested; with error a part of its effect stays in the reward",
        ),
        Assumption(
            "no interference", "a text's outcome does not depend on the others shown",
            "not tested; give cluster= for texts that compete",
        ),
        Assumption(
            "stability", f"the effect of {c} and the reward are the same where rewards are used",
            "not tested; fit periods apart and compare",
        ),
    ]  # fmt: skip
    return tuple(out)
