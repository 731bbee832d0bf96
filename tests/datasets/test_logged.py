"""Simulated logs have the moments and truths that they say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from causalrm.core.errors import DataError
from causalrm.datasets import make_headlines, make_logged_rewards


def test_covariance_is_that_of_the_rows() -> None:
    df, truth = make_logged_rewards(400_000, delta=0.3, hidden=0.4, authors=4000, rng=0)
    expected = truth.covariance()
    found = df[list(expected)].cov()
    np.testing.assert_allclose(found, expected, atol=0.06)


def test_limits_are_those_of_the_table() -> None:
    _, truth = make_logged_rewards(10, beta=2.0, gamma=0.7, rho=0.9, pi=0.6, rng=0)
    w, q, var = 0.36 + 0.5, 0.5, 0.36 + 0.81 + 0.5
    limits = truth.limits("ignore")
    assert limits["quality"] == pytest.approx(2 + 0.7 * 0.9 * q / (w + q))
    assert limits["style"] == pytest.approx(0.7 * w / (w + q))
    assert truth.limits("ignore", ["quality"])["quality"] == pytest.approx(2 + 0.7 * 0.9)
    limits = truth.limits("residualise", ["quality"])
    assert limits["popularity"] == pytest.approx(0.7 + 2 * 0.9 / var)
    assert limits["quality"] == pytest.approx(2 * (1 - 0.81 / var))
    for method in ("plr", "iv", "joint", "input"):
        assert truth.limits(method)["popularity"] == pytest.approx(0.7)
        assert truth.limits(method)["quality"] == pytest.approx(2.0)
    # A score that is uncorrelated with popularity.
    s, limits = truth.covariance(), truth.limits("invariance")
    names = ["quality", "noise", "style"]
    assert sum(limits[m] * s.loc[m, "popularity"] for m in names) == pytest.approx(0, abs=1e-12)
    _, biased = make_logged_rewards(10, delta=0.2, pi=0.5, rng=0)
    assert biased.limits("iv")["popularity"] == pytest.approx(1 + 0.2 / 0.5)
    assert biased.limits("plr")["popularity"] == pytest.approx(1 + 0.2 * 0.5 / (0.25 + 0.5))


@pytest.mark.parametrize("make", [make_logged_rewards, make_headlines])
def test_the_same_seed_gives_the_same_rows(make: object) -> None:
    a, truth = make(50, rng=3)  # type: ignore[operator]
    pd.testing.assert_frame_equal(a, make(50, rng=truth.entropy).data)  # type: ignore[operator]


def test_headlines_say_what_they_are_worth() -> None:
    df, truth = make_headlines(3000, rng=1)
    pd.testing.assert_frame_equal(
        truth.measure(df["headline"]), truth.attributes, check_dtype=False
    )
    left = df["clicks"] - truth.reward(df["headline"]) - truth.gamma * df["readers"]
    assert left.mean() == pytest.approx(12, abs=0.5) and left.std() == pytest.approx(3, abs=0.3)
    worth = truth.reward(df["headline"])
    assert np.corrcoef(worth, df["readers"])[0, 1] > 0.3
    assert abs(np.corrcoef(worth, df["lottery"])[0, 1]) < 0.06
    assert df["hour"].between(0, 23).all() and df.groupby("editor")["story"].nunique().max() == 1


def test_what_is_refused() -> None:
    for options in ({"n": 0}, {"var_v": 0.0}, {"icc": 2.0}, {"authors": 0}):
        with pytest.raises(DataError, match="Give such|must be within"):
            make_logged_rewards(**options)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="name of a method"):
        make_logged_rewards(5, rng=0).truth.limits("magic")
