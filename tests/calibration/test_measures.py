"""The measures as users call them: values, intervals, weights, clusters, odd inputs."""

from __future__ import annotations

import inspect

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

import causalrm.calibration as cal
from causalrm.core.errors import CausalRMWarning, DataError

NORMS = [cal.ece, cal.squared_error, cal.smooth_ece, cal.ici, cal.e50, cal.e90, cal.emax, cal.ecce]
SMOOTH = [
    cal.observed_expected,
    cal.calibration_in_the_large,
    cal.calibration_slope,
    cal.auc,
    cal.brier,
    cal.scaled_brier,
    cal.log_loss,
]
ALL = [*SMOOTH, *NORMS, cal.spiegelhalter]


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    p = np.round(rng.beta(1, 1.5, 600), 2).clip(0.01, 0.99)
    return (rng.uniform(size=600) < 0.15 + 0.6 * p).astype(int), p


def test_values_are_scikit_learns(data):
    y, p = data
    assert float(cal.brier(y, p)) == pytest.approx(brier_score_loss(y, p))
    assert float(cal.log_loss(y, p)) == pytest.approx(log_loss(y, p))
    assert float(cal.auc(y, p)) == pytest.approx(roc_auc_score(y, p))
    z = np.log(p / (1 - p))[:, None]
    slope = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(z, y).coef_[0, 0]
    assert float(cal.calibration_slope(y, p)) == pytest.approx(slope, rel=1e-5)
    assert float(cal.observed_expected(y, p)) == pytest.approx(y.mean() / p.mean())
    reference = 1 - brier_score_loss(y, p) / (y.mean() * (1 - y.mean()))
    assert float(cal.scaled_brier(y, p)) == pytest.approx(reference)


@pytest.mark.parametrize("measure", ALL, ids=lambda f: f.__name__)
def test_every_measure_has_an_interval_that_makes_sense(data, measure):
    y, p = data
    x = measure(y, p, n_boot=200)
    if measure is cal.spiegelhalter:
        assert np.isnan([x.std_error, x.conf_low, x.conf_high]).all() and 0 <= x.p_value <= 1
        return
    assert x.conf_low < x.conf_high
    if measure in SMOOTH:
        assert x.conf_low < x.estimate < x.conf_high and x.std_error > 0
    else:
        assert 0 < x.conf_low and x.p_value < 0.05  # clearly miscalibrated
    wide = measure(y, p, n_boot=200, level=0.99)
    assert wide.conf_low <= x.conf_low and wide.conf_high >= x.conf_high
    assert repr(x) == repr(measure(y, p, n_boot=200))


@pytest.mark.parametrize("measure", ALL, ids=lambda f: f.__name__)
def test_input_types_order_and_unit_weights_do_not_matter(data, measure):
    y, p = data
    first = measure(y, p, n_boot=0)
    o = np.random.default_rng(1).permutation(y.size)
    others = [
        measure(pd.Series(y, index=o).astype(bool), pd.Series(p), n_boot=0),
        measure(y[o].tolist(), p[o].tolist(), n_boot=0),
        measure(y, p, weights=np.full(y.size, 7.0), n_boot=0),
    ]
    for x in others:
        assert x.estimate == pytest.approx(first.estimate, rel=1e-9, abs=1e-12)
        assert x.std_error == pytest.approx(first.std_error, rel=1e-6, nan_ok=True)


# The variances behind the two that are left out rightly tell a weight of two from two rows.
@pytest.mark.parametrize(
    "measure",
    [m for m in [*SMOOTH, *NORMS] if m is not cal.squared_error],
    ids=lambda f: f.__name__,
)
def test_integer_weights_are_repeated_rows(data, measure):
    y, p = data
    times = np.random.default_rng(2).integers(0, 4, y.size)
    x = measure(y, p, weights=times, n_boot=0)
    z = measure(np.repeat(y, times), np.repeat(p, times), n_boot=0)
    assert x.estimate == pytest.approx(z.estimate, rel=1e-6)


@pytest.mark.parametrize("measure", SMOOTH, ids=lambda f: f.__name__)
def test_repeating_every_row_in_a_cluster_changes_nothing(data, measure):
    y, p = data
    one = measure(y, p, cluster=np.arange(y.size))
    two = measure(np.repeat(y, 3), np.repeat(p, 3), cluster=np.repeat(np.arange(y.size), 3))
    assert two.std_error == pytest.approx(one.std_error, rel=0.01)
    assert measure(y, p).std_error == pytest.approx(one.std_error, rel=0.02)


@pytest.mark.parametrize("measure", [cal.ece, cal.ici, cal.smooth_ece, cal.ecce])
def test_clustered_intervals_of_repeated_rows_are_those_of_single_rows(data, measure):
    y, p = data
    one = measure(y, p)
    y3, p3 = np.repeat(y, 3), np.repeat(p, 3)
    three = measure(y3, p3, cluster=np.repeat(np.arange(y.size), 3))
    naive = measure(y3, p3)
    width = one.conf_high - one.conf_low
    assert three.conf_high - three.conf_low == pytest.approx(width, rel=0.25)
    assert naive.conf_high - naive.conf_low < 0.8 * width


@pytest.mark.parametrize("measure", [*SMOOTH, cal.ece, cal.smooth_ece])
def test_replicate_weights_of_a_jackknife_give_its_standard_error(data, measure):
    y, p = data[0][:200], data[1][:200]
    w = np.ones(200)
    # Delete-a-group jackknife with 40 groups; the variance has the factor 39/40 where the
    # function has 4/40: the deviations are scaled to match.
    group = np.arange(200) % 40
    scale = np.sqrt(39 / 4)
    replicates = np.column_stack([w + scale * ((group != g) * 40 / 39 - 1) for g in range(40)])
    x = measure(y, p, weights=w, replicate_weights=replicates)
    z = measure(y, p, cluster=group)
    assert x.std_error == pytest.approx(z.std_error, rel=0.35)
    assert x.conf_low < x.conf_high


def test_corp_parts_add_up(data):
    y, p = data
    for score in ("brier", "log"):
        parts = cal.corp(y, p, score=score, n_boot=200)
        total = parts.mcb.estimate - parts.dsc.estimate + parts.unc.estimate
        assert total == pytest.approx(parts.score.estimate)
        frame = parts.to_frame()
        assert (frame["conf_low"] <= frame["conf_high"]).all()
        assert parts.curve["observed"].is_monotonic_increasing
        assert parts.curve["weight"].sum() == y.size
    with pytest.raises(DataError, match="one of 'brier', 'log'"):
        cal.corp(y, p, score="crps")


def test_constant_score_identities():
    y = np.repeat([0, 1], [632, 368])
    p = np.full(1000, 0.3)
    assert float(cal.ece(y, p)) == pytest.approx(0.068)
    assert float(cal.ici(y, p)) == pytest.approx(0.068)
    assert float(cal.smooth_ece(y, p)) == pytest.approx(0.068, rel=1e-3)
    assert float(cal.ecce(y, p)) == pytest.approx(0.068)
    assert float(cal.brier(y, p)) == pytest.approx(0.368 * 0.632 + 0.068**2)
    assert float(cal.corp(y, p).mcb) == pytest.approx(0.068**2)
    with pytest.warns(CausalRMWarning, match="slope is not identified"):
        assert np.isnan(cal.calibration_slope(y, p).estimate)


def test_net_benefit_and_decision_curve(data):
    y, p = data
    x = cal.net_benefit(y, p, 0.3)
    tp, fp = ((p >= 0.3) & (y == 1)).mean(), ((p >= 0.3) & (y == 0)).mean()
    assert x.estimate == pytest.approx(tp - fp * 0.3 / 0.7)
    frame = cal.decision_curve(y, p, cluster=np.arange(y.size))
    assert len(frame) == 99
    row = frame.iloc[29]
    assert row["estimate"] == pytest.approx(x.estimate)
    assert row["std_error"] == pytest.approx(x.std_error, rel=1e-3)
    with pytest.raises(DataError, match="strictly between 0 and 1"):
        cal.decision_curve(y, p, [0.0, 0.5])


def test_noise_floor_agrees_with_direct_simulation(data):
    y, p = data
    floor = cal.noise_floor(y, p, n_boot=2000)
    rng = np.random.default_rng(3)
    draws = [float(cal.ece(rng.uniform(size=p.size) < p, p, n_boot=0)) for _ in range(1000)]
    assert floor.expected == pytest.approx(np.mean(draws), abs=4 * np.std(draws) / 30)
    assert floor.excess == pytest.approx(floor.observed - floor.expected)
    assert floor.p_value < 0.01 and floor.upper > floor.expected


def test_scores_of_zero_and_one_are_kept_and_told():
    y = np.array([0, 1, 1, 0, 1, 0, 1, 1])
    p = np.array([0.0, 1.0, 0.0, 1.0, 0.5, 0.2, 0.7, 1.0])
    with pytest.warns(CausalRMWarning, match="2 rows are certain"):
        assert cal.log_loss(y, p).estimate == np.inf
    assert np.isfinite(cal.calibration_slope(y, p).estimate)
    for measure in NORMS:
        x = measure(y, p, n_boot=200)
        assert np.isfinite([x.estimate, x.conf_low, x.conf_high]).all()


@pytest.mark.parametrize("value", [0, 1])
def test_all_outcomes_alike(value):
    rng = np.random.default_rng(4)
    p = rng.uniform(size=60)
    y = np.full(60, value)
    for measure in (cal.calibration_slope, cal.auc, cal.scaled_brier):
        with pytest.warns(CausalRMWarning):
            assert np.isnan(measure(y, p).estimate)
    for measure in NORMS:
        x = measure(y, p, n_boot=200)
        assert x.conf_low <= x.conf_high


def test_weights_of_zero_are_rows_that_do_not_count(data):
    y, p = data
    w = np.ones(y.size)
    w[:300] = 0.0
    for measure in (cal.ece, cal.auc, cal.brier, cal.smooth_ece, cal.ici):
        x, z = measure(y, p, weights=w, n_boot=0), measure(y[300:], p[300:], n_boot=0)
        assert x.estimate == pytest.approx(z.estimate, rel=1e-9)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda y, p: ((y + 1), p), "y must hold 0 and 1"),
        (lambda y, p: (y, p * 2), "p must hold probabilities"),
        (lambda y, p: (y, np.where(np.arange(p.size) == 3, np.nan, p)), r"first at \[3\]"),
        (lambda y, p: (y[:-1], p), "one length"),
        (lambda y, p: (y[:1], p[:1]), "two rows"),
        (lambda y, p: (y, p.reshape(2, -1)), "one-dimensional"),
        (lambda y, p: (["no"] * p.size, p), "numbers"),
    ],
)
def test_bad_rows_are_refused(data, change, message):
    with pytest.raises(DataError, match=message):
        cal.ece(*change(*data))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"weights": [-1.0] * 600}, "not negative"),
        ({"weights": [0.0] * 600}, "all zero"),
        ({"weights": [1.0]}, "one value per row"),
        ({"cluster": [1] * 600}, "two distinct"),
        ({"cluster": [None, *range(599)]}, "missing in 1 of 600"),
        ({"replicate_weights": np.ones((600, 4))}, "need weights"),
        ({"weights": np.ones(600), "replicate_weights": np.ones((5, 4))}, "one row per obs"),
        ({"strategy": "cubes"}, "one of 'width', 'quantile'"),
        ({"bins": 0}, "at least 1"),
        ({"bins": [0.0, 0.7, 0.4, 1.0]}, "increase from 0 to 1"),
        ({"n_boot": 5}, "at least 100"),
        ({"level": 1.5}, "level must lie"),
    ],
)
def test_bad_options_are_refused(data, options, message):
    with pytest.raises(DataError, match=message):
        cal.ece(*data, **options)


def test_few_clusters_warn_and_unknown_options_fail(data):
    with pytest.warns(CausalRMWarning, match="Only 20 clusters"):
        cal.brier(*data, cluster=np.arange(600) % 20)
    with pytest.raises(TypeError, match="'bootstraps'"):
        cal.ece(*data, bootstraps=3)
    assert "n_boot" in inspect.signature(cal.ece).parameters


def test_quantile_bins_and_custom_edges(data):
    y, p = data
    edges = [0.0, 0.25, 0.5, 1.0]
    index = np.digitize(p, edges[1:-1])
    gap = sum(abs((y - p)[index == j].sum()) for j in range(3)) / y.size
    assert float(cal.ece(y, p, bins=edges)) == pytest.approx(gap)
    assert_allclose(
        float(cal.ece(y, p, bins=5, strategy="quantile")),
        float(cal.ece(y, p, bins=5, strategy="quantile", weights=np.ones(y.size))),
    )
