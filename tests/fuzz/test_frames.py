"""Every public function that takes a frame, on frames of any form and content.

A crash, a warning that is not the package's own, an estimate that is not finite, or another answer
to the same data in another form is a failure. ``python -m tests.fuzz.test_frames`` runs the long
version and stores how many cases there were.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings

import causalrm as crm
from tests.fuzz.check import agree, arrays, check
from tests.fuzz.disguise import Change, Disguise, Plan, plans
from tests.fuzz.targets import TARGETS, Names, Target
from tests.fuzz.test_arrays import FUNCTIONS
from tests.fuzz.test_arrays import fuzz as fuzz_arrays

QUICK, LONG = 9, 300
# Times fewer: a case takes half a second.
SLOW = {"SelectiveLabelsModel": 5, "HeckmanModel": 5, "calibration_report": 3}
RESULTS = Path(__file__).parent / "results" / "cases.csv"

# Public names without a frame or arrays of data, by reason.
WITHOUT_DATA = {
    "attribution": "Archive AttributionResult BiasPair Budget ChoiceResult ChoiceValue Component "
    "Drop Mask Neutral PromptShapley PromptTemplate Resample ScoreValue SetFunction "
    "SimulatedChooser TokenNoise Value bias_pairs compare_choices token_noise",
    "augment": "TRANSFORMS Ask Attribute AttributeEffectsResult AugmentationReport Element "
    "EstimatesResult FilterResult LLMOracle Oracle OracleReply ReplayOracle RobustResult "
    "RuleOracle VectorOracle best_of_n_kl",
    "calibration": "ACS_COLUMNS ACS_TASKS AuditResult CalibrationReport ColumnText Comparison Corp "
    "NoiseFloor Recalibrator RiskScores acs_task",
    "datasets": "*",
    "deconfound": "AbsorbedResult DeconfoundedResult EValue EffectResult FusionResult "
    "HeterogeneityResult OffsetResult PolicyResult SensitivityResult e_value sensitivity",
    "llm": "*",
    "preference": "BradleyTerryResult ControlledWinRate GeneralPreferenceResult RewardResult "
    "ThurstoneResult",
    "risk": "BaselineResult Expertise HeckmanResult PosteriorResult Prevalence RiskAudit "
    "RiskResult SimulationCalibration simulation_based_calibration",
    "survival": "BrierScore Calibration ContrastResult SelectionResult SurvivalResult",
    "text": "*",  # of lists of texts, with tests of their own
}
WITHOUT_DATA_AT_THE_TOP = (
    "BackendError CausalRMError CausalRMWarning ConvergenceError ConvergenceWarning DataError "
    "IdentificationError IdentificationWarning MissingDependencyError Estimator Estimate Result "
    "Table table"
)


def test_every_public_name_is_fuzzed_or_takes_no_data() -> None:
    run = {name for target in TARGETS for name in target.names} | set(FUNCTIONS)
    missing = []
    for package in sorted({*WITHOUT_DATA, *(n for n in crm._PUBLIC if n.islower())}):
        module = getattr(crm, package)
        if not inspect.ismodule(module):
            continue
        excused = WITHOUT_DATA.get(package, "").split()
        names = [] if excused == ["*"] else module.__all__
        missing += [f"{package}.{n}" for n in names if n not in run and n not in excused]
        assert excused == ["*"] or set(excused) <= set(names), "an excuse for what is not there"
    top = {n for n in crm._PUBLIC if not inspect.ismodule(getattr(crm, n))}
    excused = " ".join([*WITHOUT_DATA.values(), WITHOUT_DATA_AT_THE_TOP]).split()
    missing += sorted(top - run - set(excused))
    assert not missing, f"no case of the fuzzer for {missing}"
    assert run <= {
        n for p in WITHOUT_DATA for n in importlib.import_module(f"causalrm.{p}").__all__
    }


def fuzz(target: Target, n: int, seed: int = 0) -> Counter[str]:
    """Run n cases, and count answers and refusals."""
    seen: Counter[str] = Counter()

    @hypothesis.seed(seed)
    @settings(max_examples=n, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(plans())
    def run(plan: Plan) -> None:
        seen[check(target, plan)] += 1

    run()
    return seen


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_frames(target: Target) -> None:
    seen = fuzz(target, max(QUICK // SLOW.get(target.name, 1), 3))
    assert seen["answer"]


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_many_frames(target: Target) -> None:
    seen = fuzz(target, LONG // SLOW.get(target.name, 1), seed=1)
    assert seen["answer"] > 20 and seen["refused"] > 5


# What went wrong once.
FOUND = [
    ("survival.select", (), {"names": ("x", "a~b"), "listed": True}),
    ("survival.select", (), {"names": ("", "x\ny"), "listed": True}),
    ("SurvivalRegression, intervals", (), {"library": "pyarrow", "dtypes": ("float32",)}),
    ("SurvivalRegression", (), {"dtypes": (">f8", ">i4"), "bystanders": True}),
    ("RobustRewardModel", (), {"names": ("poly", "", "row"), "index": "reversed"}),
    ("calibration.acs_population", (("missing", 1),), {"library": "nullable"}),
    ("calibration.acs_population", (("texts", 1),), {}),
    ("calibration.discrimination_audit", (), {"library": "polars", "texts": ("category",),
                                              "levels": "long"}),
    ("calibration.discrimination_audit", (), {"library": "pyarrow in pandas",
                                              "texts": ("unused levels",)}),
    ("calibration_report", (), {"library": "pyarrow in pandas", "texts": ("unused levels",)}),
    ("attribution.conditional_logit", (), {"library": "polars"}),
    ("attribution.conditional_logit", (), {"texts": ("category",)}),
    ("attribution.conditional_logit", (("mixed", 4),), {}),
    ("attribution.conditional_logit", (("texts", 1),), {}),
    ("attribution.conditional_logit", (("shift", 1, 9), ("shift", 2, 12)), {}),
    ("augment.attribute_effects, lasso", (("zeros", 2),), {}),
    ("deconfound.average_effect, regression", (("one outlier", 0, 9),), {}),
    ("deconfound.average_effect, aipw", (("few rows", 0), ("few rows", 0)), {}),
    ("deconfound.average_effect, aipw", (("rare level", 2),), {}),
    ("deconfound.absorbed_regression", (("scale", 0, 11),), {}),
    ("deconfound.heterogeneity", (("scale", 0, 11),), {}),
    ("deconfound.heterogeneity", (("constant", 0),), {}),
    ("deconfound.heterogeneity", (("few rows", 8),), {}),
    ("deconfound.policy_value", (("few rows", 0), ("few rows", 0)), {}),
    ("DeconfoundedReward, joint", (("rare level", 2), ("rare level", 0)), {}),
    ("SurvivalRegression", (), {"names": ("", "T")}),
    ("BradleyTerry", (("infinite", 2),), {"dtypes": ("object",)}),
    ("calibration_report", (("complex", 1),), {}),
    ("calibration.discrimination_audit", (("complex", 2),), {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "form"), FOUND)
def test_what_was_found(name: str, changes: tuple, form: dict) -> None:
    (target,) = [t for t in TARGETS if t.name == name]
    check(target, Plan(tuple(Change(*change) for change in changes), Disguise(**form)))


# Covariates in other units, or counted from another origin: what does not depend on the unit must
# stay as it is, or the package says that it cannot compute with such numbers.
UNITS = [(6, 0.0), (12, 0.0), (-12, 0.0), (0, 1e4), (0, 1e6), (0, 1e10)]
COVARIATES = [
    ("SurvivalRegression", "x"), ("SurvivalRegression, intervals", "x"),
    ("SurvivalRegression, weights and clusters", "x"), ("survival.standardized_contrast", "x"),
    ("survival.standardized_contrast, aipw", "x"), ("DeconfoundedReward, joint", "fact"),
    ("DeconfoundedReward, joint", "hour"), ("DeconfoundedReward, plr", "fact"),
    ("DeconfoundedReward, plr", "hour"), ("DeconfoundedReward, iv", "hour"),
    ("DeconfoundedReward, iv", "lottery"), ("deconfound.absorbed_regression", "fact"),
    ("deconfound.average_effect, aipw", "fact"), ("deconfound.average_effect, regression", "fact"),
    ("deconfound.fuse", "fact"), ("deconfound.heterogeneity", "fact"),
    ("deconfound.heterogeneity", "hour"), ("deconfound.offset_reward", "fact"),
    ("deconfound.offset_reward", "hour"), ("deconfound.policy_value", "fact"),
    ("deconfound.policy_value, snips", "fact"), ("attribution.conditional_logit", "price"),
    ("calibration.discrimination_audit", "age"), ("calibration.multicalibration_audit", "age"),
]  # fmt: skip


def without_units(answer: Any, column: str) -> list[np.ndarray]:
    """Give the numbers that do not depend on the unit of a column: ratios, and the other rows."""
    out = []
    for part in answer if isinstance(answer, tuple) else (answer,):
        if isinstance(part, crm.Estimator | crm.Result):
            frame = part.to_frame()
            term = frame["term"].astype(str)
            own = term.str.contains(column, regex=False) | term.str.contains("<", regex=False)
            rest = frame[~own & ~term.str.contains("Intercept", regex=False)]
            out.append((frame["estimate"] / frame["std_error"])[own].to_numpy())
            out.append(rest[["estimate", "std_error"]].to_numpy())
        else:
            out += list(arrays(part))
    return out


@pytest.mark.filterwarnings("ignore::causalrm.CausalRMWarning")
@pytest.mark.parametrize(("name", "column"), COVARIATES)
def test_units_do_not_matter(name: str, column: str) -> None:
    (target,) = [t for t in TARGETS if t.name == name]
    frame = target.make()
    names = Names({c: c for c in frame})
    answers = 0
    for power, offset in UNITS:
        x = frame[column] * 10.0**power + offset
        same = frame.assign(**{column: (x - offset) / 10.0**power})  # what rounding left of it
        expected = without_units(target.run(same, names), column)
        try:
            found = without_units(target.run(frame.assign(**{column: x}), names), column)
        except crm.CausalRMError as error:
            assert offset > 1e5 and f"'{column}'" in str(error), f"{power}, {offset}: {error}"
            continue
        agree(expected, found, 1e-3)
        answers += 1
    assert answers > 3


def main(n: int, pattern: str = "") -> None:
    """Run the long version, and store the number of cases by function; again for a part of them."""
    runs: dict[str, Callable[[], Counter[str]]] = {
        t.name: functools.partial(fuzz, t, n // SLOW.get(t.name, 1), 1) for t in TARGETS
    } | {f"{name}, arrays": functools.partial(fuzz_arrays, name, n, 1) for name in FUNCTIONS}
    RESULTS.parent.mkdir(exist_ok=True)
    old = pd.read_csv(RESULTS) if RESULTS.exists() else pd.DataFrame({"function": []})
    rows = old.set_index("function").to_dict("index")
    for name, run in runs.items():
        if re.search(pattern, name):
            seen = run()
            rows[name] = {"cases": seen.total(), "answer": 0, "refused": 0, **seen}
            print(name, rows[name], flush=True)
            frame = pd.DataFrame.from_dict(rows, "index").rename_axis("function").sort_index()
            frame.astype(int).to_csv(RESULTS)
    print(f"{frame['cases'].sum():,.0f} cases without a failure")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else LONG, "".join(sys.argv[2:]))
