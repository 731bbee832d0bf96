"""Row kernels against mpmath, and against differences of their own values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from causalrm.risk import _kernels as ker

REFERENCE = Path(__file__).parents[1] / "reference" / "risk" / "kernels.csv"
CODES = np.array([ker.UNTESTED, ker.POSITIVE, ker.NEGATIVE], dtype=np.int8)

log_odds = st.floats(-14, 14)
sigmas = st.floats(1e-3, 15)
alphas = st.sampled_from([1.0, 0.0, 0.3, 2.2])
laws = st.sampled_from(["uniform", "normal"])


def at(a: float, d: float, s: float, alpha: float, law: str) -> np.ndarray:
    """Log-likelihood and derivatives in one place for the three codes."""
    return ker.derivatives(
        CODES, np.full(3, a), np.full(3, d), s, alpha, law, alpha_moves=alpha != 1.0
    )


def test_values_are_those_of_mpmath() -> None:
    for _, row in pd.read_csv(REFERENCE).iterrows():
        a, d, s, alpha, law = (row[c] for c in ("a", "d", "s", "alpha", "law"))
        expected = row[["untested", "positive", "negative"]].to_numpy(float)
        found = ker.values(CODES, np.full(3, a), np.full(3, d), s, alpha, law)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-9, err_msg=str(row))
        np.testing.assert_allclose(at(a, d, s, alpha, law)[0], found, rtol=1e-11, atol=1e-11)
        risk = ker.risk(np.array([a]), s, law)[0, 0]
        np.testing.assert_allclose(np.log(risk), row["risk"], rtol=1e-11, atol=1e-9)


@given(log_odds, log_odds, sigmas, alphas, laws)
@settings(deadline=None, max_examples=200)
def test_probabilities_sum_to_one(a: float, d: float, s: float, alpha: float, law: str) -> None:
    values = ker.values(CODES, np.full(3, a), np.full(3, d), s, alpha, law)
    assert np.exp(values).sum() == pytest.approx(1.0, abs=1e-9)


@given(log_odds, log_odds, sigmas, alphas, laws)
@settings(deadline=None, max_examples=150)
def test_derivatives_are_differences(a: float, d: float, s: float, alpha: float, law: str) -> None:
    found = at(a, d, s, alpha, law)
    assert np.isfinite(found).all()
    step = 1e-5
    # a rule that changes inside the step shows its own error of quadrature, over the step
    lengths = {
        len(ker.rule(s + e, alpha + f, law)[0]) for e in (-step, step) for f in (-step, step)
    }
    assume(len(lengths) == 1)
    for k, move in enumerate(np.eye(4) * step):
        if k == 3 and alpha in (0.0, 1.0):
            continue
        up, down = (at(a + m[0], d + m[1], s + m[2], alpha + m[3], law) for m in (move, -move))
        np.testing.assert_allclose((up - down)[0] / (2 * step), found[1 + k], rtol=2e-4, atol=2e-6)
        if k < 2:
            second = (up - down)[1:3] / (2 * step)
            expected = found[5:7] if k == 0 else found[6:8]
            np.testing.assert_allclose(second, expected, rtol=2e-4, atol=2e-6)


@given(st.floats(-11, 11), st.floats(-18, 18), st.floats(0.05, 8))
@settings(deadline=None, max_examples=150)
def test_closed_form_is_the_integral(a: float, d: float, s: float) -> None:
    closed = at(a, d, s, 1.0, "uniform")
    integral = np.empty_like(closed)
    rule = ker.rule(s, 1.0, "uniform")
    a3, d3 = np.full(3, a), np.full(3, d)
    ker._rows(CODES, a3, d3, s, 1.0, False, *rule, integral)
    keep = [0, 1, 2, 3, 5, 6, 7]  # the closed form has no derivative in alpha
    np.testing.assert_allclose(closed[keep], integral[keep], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("law", ["uniform", "normal"])
@pytest.mark.parametrize("s", [0.0, 1e-9])
def test_without_an_unobservable_it_is_two_logistic_regressions(law: str, s: float) -> None:
    a, d = np.array([-2.0, 0.5, 30.0]), np.array([1.0, -1.0, -40.0])
    found = ker.derivatives(CODES, a, d, s, 1.0, law)
    b = a + d
    expected = [
        -np.logaddexp(0, b[0]),
        -np.logaddexp(0, -b[1]) - np.logaddexp(0, -a[1]),
        -np.logaddexp(0, -b[2]) - np.logaddexp(0, a[2]),
    ]
    np.testing.assert_allclose(found[0], expected, rtol=1e-7)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(ker.risk(a, s, law)[0], 1 / (1 + np.exp(-a)), rtol=1e-8)


@pytest.mark.parametrize("law", ["uniform", "normal"])
@pytest.mark.parametrize("s", [1e-6, 0.02, 0.5, 3.0, 60.0])
def test_weighted_sums_of_the_risk_are_those_of_its_rows(law: str, s: float) -> None:
    rng = np.random.default_rng(0)
    a, weights = rng.normal(size=60) * np.repeat([1, 30, 200], 20), rng.random((60, 2))
    rows = ker.risk(a, s, law)[:2]
    np.testing.assert_allclose(ker.levels(a, weights, s, law), rows @ weights, rtol=1e-12)


@pytest.mark.parametrize("law", ["uniform", "normal"])
def test_extreme_rows_neither_underflow_nor_warn(law: str) -> None:
    grid = np.array([-900.0, -400.0, -50.0, 0.0, 50.0, 400.0, 900.0])
    a, d = (v.ravel() for v in np.meshgrid(grid, grid))
    for code in CODES:
        for s in (0.0, 0.5, 20.0):
            found = ker.derivatives(np.full(len(a), code), a, d, s, 1.0, law)
            assert np.isfinite(found).all()
            assert (found[0] <= 1e-12).all()
            np.testing.assert_allclose(
                ker.values(np.full(len(a), code), a, d, s, 1.0, law),
                found[0],
                rtol=1e-9,
                atol=1e-12,
            )


@given(st.floats(-25, 25), st.floats(0.0, 15), laws)
@settings(deadline=None, max_examples=150)
def test_risk_has_its_derivatives(a: float, s: float, law: str) -> None:
    step = 1e-5
    s += 2 * step
    assume(len({len(ker.rule(s + e, 1.0, law)[0]) for e in (-step, step)}) == 1)
    m = ker.risk(np.array([a]), s, law)[:, 0]
    up, down = ker.risk(np.array([a + step, a - step]), s, law).T
    tolerance = {"rtol": 1e-4, "atol": 1e-8}
    np.testing.assert_allclose((up - down)[[0, 1]] / (2 * step), m[[1, 3]], **tolerance)
    np.testing.assert_allclose((up - down)[2] / (2 * step), m[4], rtol=1e-4, atol=1e-6)
    if not 0.02 - step < s < 0.02 + step:  # the closed form begins here
        up, down = (ker.risk(np.array([a]), s + e, law)[:, 0] for e in (step, -step))
        np.testing.assert_allclose((up - down)[0] / (2 * step), m[2], **tolerance)


def test_untested_outcomes_are_not_read() -> None:
    tested = np.array([True, True, False, False, False])
    y = np.array([1.0, 0.0, np.nan, 1.0, 7.0])
    np.testing.assert_array_equal(ker.codes(tested, y), [1, 2, 0, 0, 0])


@given(st.integers(1, 60), st.integers(1, 4), st.integers(0, 10**6))
@settings(deadline=None, max_examples=60)
def test_collapse_finds_identical_rows(n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    keys = rng.integers(-1, 2, size=(n, m)) * rng.choice([1.0, -0.0, 1e300], size=m)
    first, inverse = ker.collapse(keys)
    np.testing.assert_array_equal(keys[first][inverse], keys)
    assert len(first) == len(np.unique(keys + 0.0, axis=0))
    assert (np.diff(first) > 0).all()


def test_collapse_survives_a_shared_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    def same(keys: np.ndarray, out: np.ndarray) -> None:
        out[:] = 1

    monkeypatch.setattr(ker, "_hash", same)
    keys = np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])
    first, inverse = ker.collapse(keys)
    np.testing.assert_array_equal(first, [0, 1])
    np.testing.assert_array_equal(inverse, [0, 1, 0])
