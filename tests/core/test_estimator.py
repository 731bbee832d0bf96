from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError as SklearnNotFittedError
from sklearn.utils.validation import check_is_fitted

from causalrm import CausalRMError, DataError, Estimator, Result, SurvivalRegression
from causalrm.core.estimator import Foreign
from causalrm.core.result import LikelihoodResult


class Mean(Estimator):
    """The mean of a column."""

    def __init__(self, shift: float = 0.0, encoder: Any = None):
        self.shift = shift
        self.encoder = encoder

    def fit(self, data: pd.DataFrame, *, outcome: str, weights: str | None = None) -> Mean:
        y = data[outcome].to_numpy() + self.shift
        self.result_ = LikelihoodResult(
            call=self._call({"outcome": outcome, "weights": weights}),
            n_obs=len(y),
            parameter=("mu",),
            term=("Intercept",),
            estimates=np.array([y.mean()]),
            covariances={"model": np.array([[y.var() / len(y)]])},
            covariance="model",
            loglik=-float(len(y)),
            n_params=1,
        )
        return self

    def predict(self) -> float:
        self._check_native()
        return float(self.result_.to_frame().estimate[0])


FRAME = pd.DataFrame({"y": [1.0, 2.0, 6.0]})


@pytest.mark.parametrize(
    "use",
    [
        lambda e: e.result_,
        lambda e: e.summary(),
        lambda e: e.to_frame(),
        lambda e: e.plot,
        lambda e: e.contrast({}),
        lambda e: e.predict(),
        check_is_fitted,
    ],
)
def test_unfitted(use: Any) -> None:
    with pytest.raises(SklearnNotFittedError, match="fit") as caught:
        use(Mean())
    if use is not check_is_fitted:
        assert isinstance(caught.value, CausalRMError)
        assert str(caught.value) == "This Mean has no result yet: call fit first."
    assert not hasattr(Mean(), "result_")


def test_misspelt_attribute() -> None:
    with pytest.raises(AttributeError, match="'Mean' object has no attribute 'sumary'"):
        Mean().sumary()
    with pytest.raises(AttributeError, match="'Mean' object has no attribute 'sumary'"):
        Mean().fit(FRAME, outcome="y").sumary()


def test_forwards_to_the_result() -> None:
    fit = Mean().fit(FRAME, outcome="y")
    pd.testing.assert_frame_equal(fit.to_frame(0.9), fit.result_.to_frame(0.9))
    assert str(fit.summary(0.9)) == str(fit.result_.summary(0.9))
    assert fit.contrast({"Intercept": 2}).estimate == 6
    with pytest.raises(CausalRMError, match="LikelihoodResult has no plot"):
        fit.plot()


def test_scikit_learn_sees_an_estimator() -> None:
    fit = Mean(shift=1.0).fit(FRAME, outcome="y")
    check_is_fitted(fit)
    fresh = clone(fit)
    assert fresh.get_params() == {"shift": 1.0, "encoder": None} and not hasattr(fresh, "result_")
    assert fresh.set_params(shift=2.0).shift == 2.0
    assert repr(fit) == "Mean(shift=1.0)"
    assert pickle.loads(pickle.dumps(fit)).contrast({"Intercept": 1}).estimate == 4


def test_call_describes_the_fit() -> None:
    call = Mean(shift=1.0).fit(FRAME, outcome="y").result_.call
    assert call == {
        "estimator": "Mean",
        "options": {"shift": 1.0, "encoder": None},
        "roles": {"outcome": "y"},
    }


def test_from_result() -> None:
    fit = Mean(shift=1.0).fit(FRAME, outcome="y")
    restored = Mean.from_result(LikelihoodResult.from_json(fit.result_.to_json()))
    assert restored.get_params() == fit.get_params() and restored.predict() == fit.predict() == 4
    with pytest.raises(DataError, match="Expected the result of a SurvivalRegression.*'Mean'"):
        SurvivalRegression.from_result(fit.result_)
    with pytest.raises(DataError, match="'Mean' is not a public class"):
        Estimator.from_result(fit.result_)


def test_options_of_another_version() -> None:
    fit = Mean().fit(FRAME, outcome="y")
    text = fit.result_.to_json().replace('"shift"', '"drift"')
    with pytest.raises(DataError, match="not those of Mean.*drift"):
        Mean.from_result(Result.from_json(text))


def test_foreign_options_survive_as_descriptions() -> None:
    fit = Mean(encoder=str.lower).fit(FRAME, outcome="y")
    assert fit.predict() == 3
    restored = Mean.from_result(Result.from_json(fit.result_.to_json()))
    assert isinstance(restored.encoder, Foreign) and "lower" in str(restored.encoder)
    assert "lower" in str(restored.summary())
    with pytest.raises(DataError, match="option encoder .*from a pickle, or fit it again"):
        restored.predict()
    assert isinstance(clone(restored).encoder, Foreign)
