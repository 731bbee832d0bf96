"""What every estimator of the package promises; this one takes a game in place of a data frame."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

import causalrm as crm
from causalrm.attribution import SetFunction
from causalrm.core.result import COLUMNS
from tests.attribution.games import sigmoid

NAMES = [f"p{i}" for i in range(6)]
BUDGET = crm.Budget(calls=120)


def noisy():
    rng = np.random.default_rng(1)
    value, _ = sigmoid(6, np.random.default_rng(2))
    return SetFunction(lambda Z: rng.random(len(Z)) < value(Z), binary=True)


def make(method="kernel", **options):
    return crm.PromptShapley(method, BUDGET, **options)


METHODS = ("permutation", "kernel", "odd_gp", "link", "sparse", "tree", "auto")


@pytest.mark.parametrize("method", METHODS)
def test_pickle_json_and_a_second_fit(method):
    fit = make(method, rng=7).fit(NAMES, noisy())
    frame = fit.to_frame()
    assert list(frame.columns) == list(COLUMNS) and frame["term"].tolist() == NAMES
    assert (fit.to_frame(0.99)["conf_low"] <= frame["conf_low"]).all()
    exact = {"check_exact": True}
    pd.testing.assert_frame_equal(clone(fit).fit(NAMES, noisy()).to_frame(), frame, **exact)
    pd.testing.assert_frame_equal(fit.fit(NAMES, noisy()).to_frame(), frame, **exact)
    again = pickle.loads(pickle.dumps(fit))
    pd.testing.assert_frame_equal(again.to_frame(), frame, **exact)
    text = fit.result_.to_json()
    result = crm.Result.from_json(text)
    assert type(result) is type(fit.result_) and result.to_json() == text
    assert str(result.summary()) == str(fit.summary())
    for kind in (crm.PromptShapley, crm.Estimator):
        restored = kind.from_result(result)
        assert restored.get_params() == fit.get_params()
        pd.testing.assert_frame_equal(restored.result_.convergence(), fit.result_.convergence())


def test_constructor_only_stores_and_unfitted_use_says_so():
    estimator = make("auto", order=2, rng=None, kind="owen")
    assert set(vars(estimator)) == {"method", "budget", "order", "rng", "kind"}
    assert repr(clone(estimator)) == repr(estimator)
    for use in (estimator.summary, estimator.to_frame, lambda: estimator.plot):
        with pytest.raises(crm.CausalRMError, match="call fit first"):
            use()
    with pytest.raises(crm.DataError, match="level"):
        make().fit(NAMES, noisy()).to_frame(95)


def test_every_kind_of_seed():
    seeds = [3, np.random.SeedSequence(3), np.random.default_rng(3)]
    frames = [make(rng=seed).fit(NAMES, noisy()).to_frame() for seed in seeds]
    for frame in frames[1:]:
        pd.testing.assert_frame_equal(frame, frames[0], check_exact=True)
    fits = [make(rng=None).fit(NAMES, noisy()) for _ in range(2)]
    assert fits[0].result_.entropy != fits[1].result_.entropy
    assert not fits[0].to_frame().equals(fits[1].to_frame())


def test_a_result_states_assumptions_and_holds_no_replies():
    few = make().fit(NAMES, noisy()).result_
    many = crm.PromptShapley("kernel", crm.Budget(calls=4000)).fit(NAMES, noisy()).result_
    assert few.assumptions and all(a.diagnostic for a in few.assumptions)
    assert len(many.to_json()) < len(few.to_json()) + 20_000
