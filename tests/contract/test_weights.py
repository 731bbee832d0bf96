"""Sampling weights, for the estimators whose case names their role."""

from __future__ import annotations

import pandas as pd
import pytest

from tests.contract.bad_inputs import BAD_WEIGHTS, Bad
from tests.contract.cases import CASES, Case
from tests.contract.test_contract import agree, refuses

pytestmark = pytest.mark.parametrize("case", [c for c in CASES if c.weights], ids=str)


def test_weights(case: Case) -> None:
    plain, frame = case.fit(), case.make()[1].assign(w=1.0)
    weighted = case.fit(frame, **{case.weights: "w"})
    doubled = case.fit(frame.assign(w=2.0), **{case.weights: "w"})
    for kind in getattr(plain.result_, "covariances", {}):
        expected = plain.result_.with_covariance(kind).to_frame()
        agree(weighted.result_.with_covariance(kind).to_frame(), expected, 1e-8)
        agree(doubled.result_.with_covariance(kind).to_frame(), expected, 1e-8)
    agree(case.predict(weighted, frame), case.predict(plain, frame), 1e-8)
    # Weight 2 is the row given twice, for the point estimates.
    twice = pd.concat([frame, frame.iloc[:20]], ignore_index=True)
    frame.loc[frame.index[:20], "w"] = 2.0
    left, right = case.fit(frame, **{case.weights: "w"}), case.fit(twice)
    agree(left.to_frame()[["estimate"]], right.to_frame()[["estimate"]], 1e-7)


@pytest.mark.parametrize("bad", BAD_WEIGHTS, ids=str)
def test_bad_weights(case: Case, bad: Bad) -> None:
    refuses(case, bad, "w", case.make()[1].assign(w=1.0), **{case.weights: "w"})
