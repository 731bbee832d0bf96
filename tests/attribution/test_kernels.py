from __future__ import annotations

import json
from fractions import Fraction
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from causalrm.attribution import _kernels
from causalrm.attribution._kernels_surrogate import (
    boost,
    logistic_walk,
    symmetric,
    symmetric_products,
    trees_at,
    trees_shapley,
)
from causalrm.attribution.design import all_coalitions
from tests.attribution.games import (
    airport,
    faithful,
    glove,
    security_council,
    sigmoid,
    sparse,
    unanimity,
)

SHAPIQ = json.loads(
    (Path(__file__).parents[1] / "reference" / "attribution" / "shapiq.json").read_text()
)


def by_orders(table):
    n = int(table.size).bit_length() - 1
    phi = np.zeros(n)
    orders = list(permutations(range(n)))
    for order in orders:
        mask = 0
        for i in order:
            phi[i] += table[mask | 1 << i] - table[mask]
            mask |= 1 << i
    return phi / len(orders)


def players(text):
    return tuple(sorted(int(i) for i in text.split(",")))


def test_known_games():
    phi = _kernels.shapley(security_council(all_coalitions(15)))
    np.testing.assert_allclose(phi[:5], 421 / 2145, atol=1e-12)
    np.testing.assert_allclose(phi[5:], 4 / 2145, atol=1e-12)
    np.testing.assert_allclose(
        _kernels.shapley(airport([1, 2, 3])(all_coalitions(3))), [1 / 3, 5 / 6, 11 / 6], atol=1e-14
    )
    np.testing.assert_allclose(
        _kernels.shapley(glove(all_coalitions(3))), [1 / 6, 1 / 6, 2 / 3], atol=1e-14
    )


def test_airport_game_in_closed_form():
    costs = np.sort(np.random.default_rng(0).integers(1, 50, 12))
    steps = np.diff(costs, prepend=0)
    exact = [float(sum(Fraction(int(steps[k]), 12 - k) for k in range(i + 1))) for i in range(12)]
    np.testing.assert_allclose(
        _kernels.shapley(airport(costs)(all_coalitions(12))), exact, atol=1e-10
    )


@pytest.mark.parametrize("make", [unanimity, sparse, sigmoid])
def test_simulated_games_agree_with_their_closed_forms(make):
    value, phi = make(12, np.random.default_rng(1))
    np.testing.assert_allclose(_kernels.shapley(value(all_coalitions(12))), phi, atol=1e-12)


def test_shapley_is_the_mean_over_orders():
    table = np.random.default_rng(2).normal(size=64)
    np.testing.assert_allclose(_kernels.shapley(table), by_orders(table), atol=1e-13)


def test_a_large_level_costs_no_digits():
    table = np.random.default_rng(3).normal(size=256)
    np.testing.assert_allclose(
        _kernels.shapley(table + 2.0**30), _kernels.shapley(table), atol=1e-6
    )


def test_moebius_of_a_unanimity_game_is_its_coefficient():
    Z = all_coalitions(6)
    m = _kernels.moebius(Z[:, [1, 4]].all(axis=1).astype(float))
    expected = np.zeros(64)
    expected[2 + 16] = 1.0
    np.testing.assert_allclose(m, expected, atol=1e-14)


@pytest.mark.parametrize("game", SHAPIQ)
def test_published_interaction_values(game):
    # github.com/mmschlk/shapiq, MIT licence; FSII there comes from a numerical regression
    stored = SHAPIQ[game]
    m = np.zeros(256)
    m[0] = stored["empty"]
    for text, value in stored["Moebius_8"].items():
        m[sum(1 << i for i in players(text))] = value
    table = np.array([m[[t for t in range(256) if t & s == t]].sum() for s in range(256)])
    phi = _kernels.shapley(table)
    for text, value in stored["SV_1"].items():
        assert phi[int(text)] == pytest.approx(value, abs=1e-10)
    for index in _kernels.INDICES:
        for order in (2, 3):
            found = _kernels.interactions(table, index, order)
            assert len(found) == len(stored[f"{index}_{order}"])
            for text, value in stored[f"{index}_{order}"].items():
                tolerance = 1e-8 if index == "FSII" else 1e-10
                assert found[players(text)] == pytest.approx(value, abs=tolerance)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_fsii_is_its_least_squares_fit(order):
    table = np.random.default_rng(4).normal(size=64)
    exact = faithful(table, order)
    for which, value in _kernels.interactions(table, "FSII", order).items():
        assert value == pytest.approx(exact[which], abs=1e-10)


def test_orders_beyond_the_players():
    table = np.array([0.0, 1.0, 2.0, 7.0])
    assert _kernels.interactions(table, "SII", 3)[0, 1] == 4.0


def test_owen_values_average_over_orders_that_keep_groups_together():
    groups = np.array([0, 0, 1, 1, 1, 2])
    table = np.random.default_rng(5).normal(size=64)
    phi, count = np.zeros(6), 0
    for order in permutations(range(6)):
        if np.sum(np.diff(groups[list(order)]) != 0) != 2:
            continue
        count, mask = count + 1, 0
        for i in order:
            phi[i] += table[mask | 1 << i] - table[mask]
            mask |= 1 << i
    np.testing.assert_allclose(_kernels.owen(table, groups), phi / count, atol=1e-13)


def test_trees_have_exact_shapley_values():
    Z = all_coalitions(8)
    y = unanimity(8, np.random.default_rng(6), largest=2)[0](Z)
    feature, value = np.full((30, 15), -1, dtype=np.int64), np.zeros((30, 15))
    boost(Z.astype(np.uint8), y, 0.3, 1.0, feature, value)
    fitted, phi = np.zeros(256), np.zeros(8)
    trees_at(Z.astype(np.uint8), feature, value, fitted)
    trees_shapley(feature, value, phi)
    np.testing.assert_allclose(phi, _kernels.shapley(fitted), atol=1e-13)
    assert np.var(y - fitted) < 0.5 * np.var(y)  # and they learn


def test_walk_over_a_logistic_surrogate():
    rng = np.random.default_rng(7)
    main, pair = rng.normal(size=6), 1.3
    start, other, joint = np.array([0, 1, 1, 2, 2, 2, 2]), np.array([2, 0]), np.full(2, pair)
    Z = all_coalitions(6)
    exact = _kernels.shapley(1 / (1 + np.exp(-(-0.4 + Z @ main + pair * Z[:, 0] * Z[:, 2]))))
    out = np.empty((20, 6))
    logistic_walk(-0.4, main, start, other, joint, 4000, 1, out)
    error = out.std(axis=0, ddof=1) / np.sqrt(20)
    assert np.all(np.abs(out.mean(axis=0) - exact) < 4 * error + 1e-12)


def test_symmetric_polynomials_of_products():
    rng = np.random.default_rng(8)
    X, Y, r = rng.choice([-1.0, 1.0], (3, 7)), rng.choice([-1.0, 1.0], (4, 7)), rng.uniform(size=7)
    e = symmetric_products(X, Y, r, 5)
    for a in range(3):
        for b in range(4):
            np.testing.assert_allclose(
                [e[k][a, b] for k in range(6)], symmetric(r * X[a] * Y[b], 5), atol=1e-12
            )
