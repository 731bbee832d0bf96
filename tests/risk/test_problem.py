"""The posterior in its coordinates: gradients, Jacobians, constraints, identical rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causalrm.core.errors import DataError
from causalrm.risk import density as P
from causalrm.risk.problem import PrevalenceTerm, Problem

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "normal": {"unobservable": "normal"},
    "alpha given": {"alpha": 0.6},
    "alpha inferred": {"alpha": None},
    "soft": {"terms": [{"se": 0.02}, {"a": 8.0, "b": 30.0}]},
    "hard": {"terms": [{"hard": True}, {"se": 0.05}]},
    "hard, normal": {"terms": [{"hard": True}], "unobservable": "normal"},
    "deciders": {"deciders": 4, "alpha": None},
}


def make(kind: str = "plain", n: int = 60, seed: int = 0) -> Problem:
    """A small problem with everything that `kind` asks for."""
    rng = np.random.default_rng(seed)
    options = dict(KINDS[kind])
    X = np.column_stack([np.ones(n), rng.integers(-1, 2, n), rng.normal(size=n).round(1)])
    terms = []
    for i, term in enumerate(options.pop("terms", [])):
        w = np.ones(n) if i == 0 else rng.random(n)
        terms.append(PrevalenceTerm(w / w.sum(), 0.2, **term))
    if "deciders" in options:
        options["n_deciders"] = options["deciders"]
        options["deciders"] = rng.integers(0, options["deciders"], n)
    y = (rng.random(n) < 0.3).astype(float)
    tested = rng.random(n) < 0.3 + 0.2 * options.get("deciders", np.ones(n))
    return Problem(
        X=X, W=X[:, :2], tested=tested, y=np.where(tested, y, np.nan),
        counts=rng.integers(1, 4, n).astype(float), risk_sd=np.array([3.0, 2.0, 1.0]),
        testing_sd=np.array([3.0, 0.5]), prevalence=tuple(terms), **options,
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=12)
def test_gradient_is_that_of_the_value(kind: str, seed: int) -> None:
    problem = make(kind)
    u = np.random.default_rng(seed).normal(size=problem.n_u)
    _, gradient = P.log_posterior(problem, u)
    h = 1e-5
    differences = [
        (P.log_posterior(problem, u + e)[0] - P.log_posterior(problem, u - e)[0]) / (2 * h)
        for e in np.eye(problem.n_u) * h
    ]
    np.testing.assert_allclose(gradient, differences, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [k for k in KINDS if "hard" not in k])
def test_jacobian_is_that_of_the_coordinates(kind: str) -> None:
    problem = make(kind)
    u = np.random.default_rng(1).normal(size=problem.n_u)
    h = 1e-6
    jacobian = [
        (problem.to_theta(u + e) - problem.to_theta(u - e)) / (2 * h)
        for e in np.eye(problem.n_u) * h
    ]
    theta = problem.to_theta(u)
    expected = sum(
        part(problem, theta)[0] for part in (P.log_likelihood, P.log_prior, P.log_constraint)
    )
    expected += np.linalg.slogdet(np.array(jacobian))[1]
    assert P.log_posterior(problem, u)[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", ["hard", "hard, normal"])
def test_hard_prevalence_is_met_and_has_its_jacobian(kind: str) -> None:
    problem = make(kind)
    u = np.random.default_rng(2).normal(size=problem.n_u)
    theta = problem.to_theta(u)
    assert P.implied_prevalence(problem, theta).value[0] == pytest.approx(0.2, abs=1e-12)
    # with the intercept replaced by the prevalence m, the density gains 1 / (dm / d intercept)
    h = 1e-6
    first = np.eye(problem.n_theta)[0] * h
    slope = (
        P.implied_prevalence(problem, theta + first).value[0]
        - P.implied_prevalence(problem, theta - first).value[0]
    ) / (2 * h)
    n = problem.p + problem.q
    expected = sum(
        part(problem, theta)[0] for part in (P.log_likelihood, P.log_prior, P.log_constraint)
    )
    k, v = problem.scale(theta[n])[0], u[n - 1]
    expected += (n - 1) * np.log(k) - np.logaddexp(0, -v) - np.log(slope)
    assert P.log_posterior(problem, u)[0] == pytest.approx(expected, abs=1e-6)
    with pytest.raises(DataError, match="at most one hard"):
        _ = replace(problem, prevalence=problem.prevalence[:1] * 2).hard


@pytest.mark.parametrize("kind", KINDS)
def test_coordinates_come_back(kind: str) -> None:
    problem = make(kind)
    assert (problem.centring > 0.2).all()  # where there are deciders, they differ
    u = np.random.default_rng(3).normal(size=problem.n_u)
    np.testing.assert_allclose(problem.to_u(problem.to_theta(u)), u, atol=1e-9)
    assert len(problem.labels()) == problem.n_theta


def test_deciders_with_few_rows_or_no_differences_are_left_to_their_sd() -> None:
    sizes = [400, 400, 400, 4]
    who = np.repeat(np.arange(4), sizes)
    chance = np.array([0.2, 0.5, 0.8, 0.5])[who]
    tested = np.random.default_rng(0).random(len(who)) < chance
    own = replace(make("deciders", len(who)), deciders=who, tested=tested)
    assert own.centring[:3].min() > 0.95 and 0.1 < own.centring[3] < 0.9
    alike = replace(own, tested=np.arange(len(who)) % 2 == 0)
    np.testing.assert_array_equal(alike.centring, 0.0)


@pytest.mark.parametrize("kind", ["soft", "hard", "deciders"])
def test_identical_rows_are_collapsed_exactly(kind: str) -> None:
    problem = make(kind, n=400)
    options = {
        name: getattr(problem, name)
        for name in ("risk_sd", "testing_sd", "alpha", "prevalence", "deciders", "n_deciders")
    }
    short = Problem.from_rows(
        problem.X, problem.W, problem.tested, problem.y, problem.counts, **options
    )
    assert len(short.X) < 380
    u = np.random.default_rng(4).normal(size=problem.n_u)
    full, few = P.log_posterior(problem, u), P.log_posterior(short, u)
    assert few[0] == pytest.approx(full[0], rel=1e-12)
    np.testing.assert_allclose(few[1], full[1], rtol=1e-9, atol=1e-9)


def test_outcomes_of_the_untested_change_nothing() -> None:
    problem = make()
    other = replace(problem, y=np.where(problem.tested, problem.y, 1.0))
    u = np.random.default_rng(5).normal(size=problem.n_u)
    assert P.log_posterior(problem, u)[0] == P.log_posterior(other, u)[0]
    theta = problem.to_theta(u)
    total = P.row_log_likelihood(other, theta) @ problem.counts
    assert total == pytest.approx(P.log_likelihood(problem, theta)[0])


def test_any_number_of_threads_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = make(n=30_000)
    u = np.random.default_rng(6).normal(size=problem.n_u)
    found = []
    for threads in ("1", "2"):
        monkeypatch.setenv("CAUSALRM_NUM_THREADS", threads)
        found.append(P.log_posterior(problem, u))
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])
