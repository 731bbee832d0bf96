"""Likelihoods of single votes, sums over votes, and histograms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from causalrm.preference import _kernels as K

MODELS = [
    K.HALF_LOGIT, K.HALF_PROBIT, K.DAVIDSON, K.RAO_KUPPER_LOGIT, K.RAO_KUPPER_PROBIT,
]  # fmt: skip
TIED = MODELS[2:]


def log_probability(model: int, z: float, tau: float, y: float) -> float:
    """The same from the textbook formulas, which lose digits in the tails."""
    if model in (K.HALF_LOGIT, K.HALF_PROBIT):
        log_f = special.log_expit if model == K.HALF_LOGIT else special.log_ndtr
        return float(y * log_f(z) + (1 - y) * log_f(-z))
    if model == K.DAVIDSON:
        weights = {1.0: np.exp(z / 2), 0.0: np.exp(-z / 2), 0.5: np.exp(tau)}
        return float(np.log(weights[y] / sum(weights.values())))
    f = special.expit if model == K.RAO_KUPPER_LOGIT else special.ndtr
    p = {1.0: f(z - tau), 0.0: f(-z - tau)}
    return float(np.log(p[y])) if y != 0.5 else float(np.log(f(z + tau) - f(z - tau)))


def one(model: int, z: float, tau: float, y: float) -> tuple[float, float, float]:
    value, s, t = K.votes(model, np.array([z]), tau, np.array([y]))
    return float(value[0]), float(s[0]), float(t[0])


@pytest.mark.parametrize("model", MODELS)
@given(z=st.floats(-4, 4), tau=st.floats(0.1, 2), y=st.sampled_from([0.0, 0.5, 1.0]))
def test_log_probability(model: int, z: float, tau: float, y: float) -> None:
    assert one(model, z, tau, y)[0] == pytest.approx(
        log_probability(model, z, tau, y), rel=1e-9, abs=1e-12
    )


@pytest.mark.parametrize("model", TIED)
@given(z=st.floats(-30, 30), tau=st.floats(0.05, 3))
def test_probabilities_sum_to_one(model: int, z: float, tau: float) -> None:
    total = sum(np.exp(one(model, z, tau, y)[0]) for y in (0.0, 0.5, 1.0))
    assert total == pytest.approx(1.0, abs=1e-12)


def derivatives(model: int, z: float, tau: float, y: float) -> np.ndarray:
    """Scores and information of one vote between items 0 and 1, through `accumulate`."""
    has_tau = int(model in TIED)
    q = has_tau
    out = (np.zeros(1), np.zeros((2, q)), np.zeros((q, q)), np.zeros(2), np.zeros(q))
    K.accumulate(
        model, np.array([0]), np.array([1]), np.array([y]), np.ones(1), np.array([0]),
        np.empty((0, 1)), np.array([z, 0.0]), np.full(q, tau), has_tau, False, *out,
    )  # fmt: skip
    laplacian, border, corner, score, score_common = out
    assert score[0] == -score[1]
    return np.array([score[0], laplacian[0], *score_common, *border[0], *corner.ravel()])


@pytest.mark.parametrize("model", MODELS)
@given(z=st.floats(-12, 12), tau=st.floats(0.2, 2), y=st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_derivatives(model: int, z: float, tau: float, y: float) -> None:
    if model in TIED and y == 0.3:
        y = 0.5
    h = 1e-5
    found = derivatives(model, z, tau, y)
    _, s, t = one(model, z, tau, y)
    ahead, behind = one(model, z + h, tau, y), one(model, z - h, tau, y)
    assert found[0] == pytest.approx(s)
    assert s == pytest.approx((ahead[0] - behind[0]) / (2 * h), rel=1e-5, abs=1e-6)
    assert found[1] == pytest.approx(-(ahead[1] - behind[1]) / (2 * h), rel=1e-4, abs=1e-7)
    if model in TIED:
        up, down = one(model, z, tau + h, y), one(model, z, tau - h, y)
        assert found[2] == pytest.approx(t)
        assert t == pytest.approx((up[0] - down[0]) / (2 * h), rel=1e-5, abs=1e-6)
        assert found[3] == pytest.approx(-(up[1] - down[1]) / (2 * h), rel=1e-4, abs=1e-7)
        assert found[4] == pytest.approx(-(up[2] - down[2]) / (2 * h), rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("z", [-700.0, -40.0, 40.0, 700.0])
@pytest.mark.parametrize("y", [0.0, 0.5, 1.0])
def test_extreme_strengths_stay_finite(model: int, z: float, y: float) -> None:
    found = derivatives(model, z, 0.7, y)
    assert np.isfinite(found).all() and np.isfinite(one(model, z, 0.7, y)).all()
    assert found[1] >= 0


def test_the_normal_tail_keeps_its_digits() -> None:
    value, s, _ = one(K.HALF_PROBIT, -20.0, 0.0, 1.0)
    assert value == pytest.approx(stats.norm.logcdf(-20.0), rel=1e-14)
    assert s == pytest.approx(np.exp(stats.norm.logpdf(20.0) - stats.norm.logcdf(-20.0)), rel=1e-12)


def test_a_threshold_of_zero_is_refused() -> None:
    assert one(K.RAO_KUPPER_LOGIT, 0.3, 0.0, 0.5)[0] == -np.inf


def random_votes(n: int, k: int, q: int, seed: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    i = rng.integers(0, k, n)
    j = (i + rng.integers(1, k, n)) % k
    return {
        "i": i, "j": j, "y": rng.choice([0.0, 0.5, 1.0], n), "w": rng.uniform(0, 2, n),
        "x": rng.normal(size=(q, n)), "strength": rng.normal(size=k),
    }  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("meat", [False, True])
def test_sums_are_those_of_dense_algebra(model: int, meat: bool) -> None:
    k, n = 5, 200
    v = random_votes(n, k, 2)
    has_tau = int(model in TIED)
    common = np.array([0.4, 0.2, -0.3][1 - has_tau :])
    q = len(common)
    key = np.minimum(v["i"], v["j"]) * k + np.maximum(v["i"], v["j"])
    pairs, pair = np.unique(key, return_inverse=True)
    laplacian, border, corner = np.zeros(len(pairs)), np.zeros((k, q)), np.zeros((q, q))
    score, score_common = np.zeros(k), np.zeros(q)
    K.accumulate(
        model, v["i"], v["j"], v["y"], v["w"], pair, v["x"], v["strength"], common, has_tau, meat,
        laplacian, border, corner, score, score_common,
    )  # fmt: skip
    expected = np.zeros((k + q, k + q))
    gradient = np.zeros(k + q)
    for r in range(n):
        design = np.zeros((2, k + q))  # of z and of tau
        design[0, v["i"][r]], design[0, v["j"][r]] = 1, -1
        design[0, k + has_tau :] = v["x"][:, r]
        if has_tau:
            design[1, k] = 1
        z = float(design[0, :k] @ v["strength"] + common[has_tau:] @ v["x"][:, r])
        tau = float(common[0]) if has_tau else 0.0
        _, s, t = one(model, z, tau, v["y"][r])
        if meat:
            inner = np.outer([s, t], [s, t])
        else:
            d = derivatives(model, z, tau, v["y"][r])
            inner = np.array([[d[1], d[3]], [d[3], d[4]]]) if has_tau else np.diag([d[1], 0.0])
        expected += v["w"][r] * design.T @ inner @ design
        gradient += v["w"][r] * design.T @ np.array([s, t])
    found = np.zeros((k, k))
    found[pairs // k, pairs % k] = -laplacian
    found += found.T
    np.testing.assert_allclose(found, np.tril(expected[:k, :k], -1) + np.triu(expected[:k, :k], 1))
    np.testing.assert_allclose(border, expected[:k, k:], atol=1e-12)
    np.testing.assert_allclose(np.triu(corner), np.triu(expected[k:, k:]), atol=1e-12)
    if not meat:
        np.testing.assert_allclose(np.concatenate([score, score_common]), gradient, atol=1e-12)


def test_histogram_counts_and_reports_odd_outcomes() -> None:
    v = random_votes(500, 4, 0)
    y = v["y"].copy()
    y[:4] = 0.3, np.nan, -1.0, 2.0
    table = np.array([2, 0, 3, 1], np.int32)
    out = np.zeros(3 * 16, np.int64)
    odd = K.histogram(v["i"], table, v["j"], table, y, 4, out)
    assert odd == 4
    expected = np.zeros((4, 4, 3), int)
    for a, b, c in zip(table[v["i"][4:]], table[v["j"][4:]], y[4:], strict=True):
        expected[a, b, int(2 * c)] += 1
    np.testing.assert_array_equal(out.reshape(4, 4, 3), expected)


@pytest.mark.parametrize("model", [K.HALF_LOGIT, K.RAO_KUPPER_PROBIT])
def test_cluster_sums(model: int) -> None:
    k, n = 6, 300
    v = random_votes(n, k, 1)
    has_tau = int(model in TIED)
    common = np.array([0.5] * has_tau + [0.2, -0.4])
    cluster = np.random.default_rng(1).integers(0, 17, n)
    starts = np.zeros(4, np.int64)
    codes = np.arange(17, dtype=np.int32)
    order = K.bucket(cluster, codes, 6, starts)
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    place = np.arange(k, dtype=np.int32)
    found = []
    for g in range(3):
        out = np.zeros((min(6, 17 - 6 * g), k + len(common)))
        K.add_scores(
            model, order[starts[g] : starts[g + 1]], v["i"], place, v["j"], place, v["y"],
            v["w"], v["x"], 1, cluster, codes, 6 * g, v["strength"], common, has_tau,
            np.empty((2, 0)), out,
        )  # fmt: skip
        found.append(out)
    z = v["strength"][v["i"]] - v["strength"][v["j"]] + common[has_tau] + common[-1] * v["x"][0]
    _, s, t = K.votes(model, z, 0.5, v["y"])
    s, t = s * v["w"], t * v["w"]
    expected = np.zeros((17, k + len(common)))
    np.add.at(expected, (cluster, v["i"]), s)
    np.add.at(expected, (cluster, v["j"]), -s)
    if has_tau:
        np.add.at(expected, (cluster, k), t)
    np.add.at(expected, (cluster, k + has_tau), s)
    np.add.at(expected, (cluster, k + has_tau + 1), s * v["x"][0])
    sums = np.concatenate(found)
    np.testing.assert_allclose(sums, expected, atol=1e-12)
    upper = np.zeros((k + len(common),) * 2)
    K.outer_products(sums, upper)
    np.testing.assert_allclose(upper, np.triu(expected.T @ expected), atol=1e-12)
