"""Every public function that takes arrays, on arrays of any length, type and content.

As for frames: an answer or a refusal, never a crash; and the same answer for the same numbers as
list, as booleans, as small integers, in pandas or in polars.
"""

from __future__ import annotations

import importlib
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import hypothesis
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import causalrm as crm
from causalrm import attribution, augment, calibration, deconfound, llm, text
from tests.fuzz.check import Wrong, agree, arrays

QUICK, LONG = 14, 400


class Inputs(NamedTuple):
    """What is drawn: outcomes, scores, weights and cluster labels, in one form."""

    y: Any
    p: Any
    w: Any
    cluster: Any


OUTCOMES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "mixed": lambda g, n: g.integers(0, 2, n) * 1.0,
    "rare": lambda g, n: (np.arange(n) == n // 2) * 1.0,
    "none": lambda g, n: np.zeros(n),
    "all": lambda g, n: np.ones(n),
    "shares": lambda g, n: g.integers(0, 5, n) / 4,
    "NaN": lambda g, n: np.where(np.arange(n) == 1, np.nan, 1.0),
    "twos": lambda g, n: g.integers(0, 3, n) * 1.0,
}
SCORES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "spread": lambda g, n: g.integers(1, 64, n) / 64,
    "ties": lambda g, n: g.integers(1, 4, n) / 4,
    "constant": lambda g, n: np.full(n, 0.25),
    "certain": lambda g, n: g.integers(0, 2, n) * 1.0,
    "tiny": lambda g, n: 10.0 ** -g.integers(1, 300, n),
    "edges": lambda g, n: np.array([0.0, 1.0, 0.5, 1e-17, 1 - 1e-16])[np.arange(n) % 5],
    "NaN": lambda g, n: np.where(np.arange(n) == 1, np.nan, 0.5),
    "inf": lambda g, n: np.where(np.arange(n) == 1, np.inf, 0.5),
    "outside": lambda g, n: g.integers(-64, 128, n) / 64,
}
WEIGHTS: dict[str, Callable[[np.random.Generator, int], np.ndarray | None]] = {
    "no": lambda g, n: None,
    "ones": lambda g, n: np.ones(n),
    "some zero": lambda g, n: g.integers(0, 3, n) * 1.0,
    "zero": lambda g, n: np.zeros(n),
    "one row": lambda g, n: (np.arange(n) == 0) * 1.0,
    "negative": lambda g, n: np.where(np.arange(n) == 1, -1.0, 1.0),
    "NaN": lambda g, n: np.where(np.arange(n) == 1, np.nan, 1.0),
    "inf": lambda g, n: np.where(np.arange(n) == 1, np.inf, 1.0),
    "wide": lambda g, n: 2.0 ** g.integers(-400, 400, n),
    "short": lambda g, n: np.ones(max(n - 1, 0)),
}


def _single(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        single = x.astype(np.float32)
    return single if (single == x).all() else x


FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "array": lambda x: x,
    "list": lambda x: x.tolist(),
    "tuple": lambda x: tuple(x.tolist()),
    "bool": lambda x: x.astype(bool) if np.isin(x, (0, 1)).all() else x,
    "int8": lambda x: x.astype(np.int8) if np.isin(x, (0, 1)).all() else x,
    "uint8": lambda x: x.astype(np.uint8) if np.isin(x, (0, 1)).all() else x,
    "float32": lambda x: _single(x),
    "object": lambda x: x.astype(object),
    "series": lambda x: pd.Series(x, index=np.arange(len(x))[::-1] // 2),
    "nullable": lambda x: pd.Series(x).astype("Float64"),
    "boolean": lambda x: pd.Series(x).astype("boolean") if np.isin(x, (0, 1)).all() else x,
    "polars": lambda x: importlib.import_module("polars").Series(x),
    "strided": lambda x: np.repeat(x, 2)[::2],
    "read-only": lambda x: np.frombuffer(x.tobytes()),
}


def _measure(name: str, **options: Any) -> Callable[[Inputs], Any]:
    return lambda d: getattr(calibration, name)(
        d.y, d.p, weights=d.w, cluster=d.cluster, n_boot=100, **options
    )


def _recalibrate(kind: Any) -> Callable[[Inputs], Any]:
    def run(d: Inputs) -> Any:
        fit = kind().fit(d.p, d.y, sample_weight=d.w)
        return fit.predict(d.p), fit.predict(np.linspace(0, 1, 5))

    return run


def _finite(value: Any) -> Any:
    return np.asarray(value, dtype=float)


def _sum(value: Any) -> float:
    return float(np.asarray(value, dtype=float).sum())


def _texts(encoder: Any) -> Callable[[Inputs], Any]:
    def run(d: Inputs) -> Any:
        words = [f"word{p:.1f} of text{i % 3}" for i, p in enumerate(np.asarray(d.p))]
        found = encoder().fit(words).transform(words)
        return np.asarray(found.todense() if hasattr(found, "todense") else found)

    return run


def _bounds(d: Inputs) -> Any:
    top = [("A", float(v)) for v in np.asarray(d.p, dtype=float)[:3]]
    return llm.choice_bounds([(t, np.log(v) if v > 0 else -np.inf) for t, v in top], ["A", "B"])


MEASURES = (
    "auc brier calibration_in_the_large calibration_slope corp decision_curve e50 e90 ecce ece "
    "emax ici log_loss noise_floor observed_expected scaled_brier smooth_ece spiegelhalter "
    "squared_error"
).split()
FUNCTIONS: dict[str, Callable[[Inputs], Any]] = {name: _measure(name) for name in MEASURES} | {
    "net_benefit": _measure("net_benefit", threshold=0.25),
    "crossfit": lambda d: calibration.crossfit(
        calibration.PlattScaling(), d.p, d.y, folds=2, sample_weight=d.w, cluster=d.cluster
    ),
    "sample_size": lambda d: calibration.sample_size(d.p),
    "log_sigmoid_centred": lambda d: augment.log_sigmoid_centred(d.p, d.y),
    "process_rewards": lambda d: augment.process_rewards([d.p, d.p], [d.y, d.y], 0.5),
    "best_of_n_kl": lambda d: augment.best_of_n_kl(d.p),
    "accuracy": lambda d: augment.accuracy(d.p, by=d.y, cluster=d.cluster),
    "length_matched_accuracy": lambda d: augment.length_matched_accuracy(d.y, d.p, d.p),
    "best_of_k": lambda d: augment.best_of_k(d.p, np.c_[_finite(d.y), _finite(d.y)]),
    "one_against_many": lambda d: augment.one_against_many(d.p, np.c_[_finite(d.y)]),
    "token_noise": lambda d: attribution.token_noise(
        _finite(d.p), np.diag(_finite(d.p) ** 2), _finite(d.y) > 0.5, draws=50
    ),
    "e_value": lambda d: deconfound.e_value(1 + _sum(d.p), 0.5, 2.0),
    "sensitivity": lambda d: deconfound.sensitivity(_sum(d.y), _sum(d.p), dof=20.0),
    "choice_bounds": _bounds,
    "PreferenceRewardModel": lambda d: crm.PreferenceRewardModel(penalty=1.0).fit(
        np.c_[_finite(d.p), _finite(d.p) ** 2], np.zeros((len(d.p), 2)), d.y, weights=d.w,
        cluster=d.cluster,
    ),
    "HashedText": _texts(lambda: text.HashedText(16, 8)),
    "TfidfText": _texts(lambda: text.TfidfText(16, 8)),
    "SentenceEmbeddings": _texts(
        lambda: text.SentenceEmbeddings(lambda t: np.array([[len(v), v.count("1")] for v in t]))
    ),
    "Features": lambda d: text.Features().fit(np.c_[_finite(d.p)]).transform(np.c_[_finite(d.p)]),
} | {
    name: _recalibrate(getattr(calibration, name))
    for name in (
        "BetaCalibration", "HistogramBinning", "IsotonicCalibration", "PlattScaling",
        "TemperatureScaling", "VennAbers",
    )
}  # fmt: skip


def outcome(function: Callable[[Inputs], Any], inputs: Inputs) -> list[np.ndarray] | str:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", crm.CausalRMWarning)
        try:
            return list(arrays(function(inputs), undefined=True))
        except crm.CausalRMError as error:
            return str(error)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Inputs, Inputs]:
    """Draw the same numbers plainly and in some form."""
    n = draw(st.sampled_from([30, 60, 40, 50, 30, 8, 3, 2, 1, 0]))
    generator = np.random.default_rng(draw(st.integers(0, 9)))
    y = OUTCOMES[draw(st.sampled_from(["mixed"] * 9 + sorted(OUTCOMES)))](generator, n)
    p = SCORES[draw(st.sampled_from(["spread"] * 6 + sorted(SCORES)))](generator, n)
    w = WEIGHTS[draw(st.sampled_from(["no"] * 9 + ["ones"] * 4 + sorted(WEIGHTS)))](generator, n)
    cluster = draw(st.sampled_from([None, None, "many", "few", "one"]))
    labels = None
    if cluster is not None:
        labels = [f"c{i % {'many': 40, 'few': 4, 'one': 1}[cluster]:02d}" for i in range(n)]
    forms = [FORMS[draw(st.sampled_from(sorted(FORMS)))] for _ in range(3)]
    made = forms[2](w) if w is not None else None
    many = draw(st.sampled_from([list, np.array, pd.Series, pd.Categorical]))
    other = None if labels is None else many(labels)
    return Inputs(y, p, w, labels), Inputs(forms[0](y), forms[1](p), made, other)


def fuzz(name: str, n: int, seed: int = 0) -> Counter[str]:
    """Run n cases, and count answers and refusals."""
    seen: Counter[str] = Counter()

    @hypothesis.seed(seed)
    @settings(max_examples=n, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(cases())
    def run(pair: tuple[Inputs, Inputs]) -> None:
        plain, other = (outcome(FUNCTIONS[name], inputs) for inputs in pair)
        if isinstance(plain, str) != isinstance(other, str):
            raise Wrong(f"plain: {plain}\nin another form: {other}")
        if isinstance(plain, str):
            assert plain and not plain.startswith("Traceback")
            seen["refused"] += 1
        else:
            agree(plain, other, 1e-9)
            seen["answer"] += 1

    run()
    return seen


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arrays(name: str) -> None:
    fuzz(name, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_many_arrays(name: str) -> None:
    assert fuzz(name, LONG, seed=1)["answer"]
