"""The row likelihood: derivatives against 60 digits, limits, extremes, laws of probability."""

from __future__ import annotations

import json
import math
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from causalrm.survival import _kernels as K

REFERENCE = Path(__file__).parents[1] / "reference" / "survival"

# ---------------------------------------------------------------- derivatives, by many digits


def exact_value(
    p: list[Decimal], t: Decimal, event: bool, entry: Decimal, upper: Decimal | None, limit: bool
) -> Decimal:
    """Log-likelihood of a row from the definition, in Decimal arithmetic; limit: kappa infinite."""
    a, b, c, nu = p
    g, lam, k = c.exp(), b.exp(), nu.exp() - 1

    def u(time: Decimal) -> Decimal:
        return (g * (time.ln() + a)).exp()

    def cumulative(time: Decimal) -> Decimal:
        if time == 0:
            return Decimal(0)
        if limit:
            return lam * (u(time).exp() - 1)
        base = (1 + u(time) / (k + 1)).ln()
        return lam * base if k == 0 else lam * (k + 1) / k * ((k * base).exp() - 1)

    start = cumulative(entry)
    if upper is not None:
        return ((-cumulative(t)).exp() - (-cumulative(upper)).exp()).ln() + start
    value = start - cumulative(t)
    if event:
        growth = u(t) if limit else (k - 1) * (1 + u(t) / (k + 1)).ln()
        value += b + c + g * (t.ln() + a) - t.ln() + growth
    return value


def exact_derivatives(kappa: float, p: tuple[float, ...], **row: Any) -> np.ndarray:
    """Value, gradient and second derivatives by differences so small that they are exact."""
    with localcontext() as context:
        context.prec, context.Emax, context.Emin = 70, 10**9, -(10**9)
        limit = math.isinf(kappa)
        nu = Decimal(0) if limit else (Decimal(kappa) + 1).ln()
        at, h = [*map(Decimal, p), nu], Decimal("1e-15")
        upper = None if row["upper"] is None else Decimal(row["upper"])
        args = Decimal(row["t"]), row["event"], Decimal(row["entry"]), upper, limit

        def f(*moves: tuple[int, int]) -> Decimal:
            q = list(at)
            for i, sign in moves:
                q[i] += sign * h
            return exact_value(q, *args)

        free = range(3 if limit else 4)  # in the limit nothing depends on nu
        middle = f()
        out = [middle, *[Decimal(0)] * 14]
        for i in free:
            up, down = f((i, 1)), f((i, -1))
            out[1 + i] = (up - down) / (2 * h)
            out[K.SLOT[i, i]] = (up - 2 * middle + down) / h**2
            for j in free[i + 1 :]:
                corners = f((i, 1), (j, 1)) - f((i, 1), (j, -1)) - f((i, -1), (j, 1))
                out[K.SLOT[i, j]] = (corners + f((i, -1), (j, -1))) / (4 * h**2)
        return np.array([float(x) for x in out])


NUS = [-3.0, -2.0, -1.0, -0.5, -1e-3, 0.0, 1e-6, 0.4, math.log(2), 1.3, 2.2, 3.0]
KAPPAS = [*map(math.expm1, NUS), -1e-12, 1e-12, 1e-3, math.inf]
POINTS = [  # time, log phi, log lambda, log gamma
    (1.3, -0.4, 0.0, 0.3), (0.2, 0.9, -1.2, -0.5), (1e-6, 0.0, 0.0, -0.7), (30.0, -3.0, 0.7, 1.0),
    (1e4, -7.0, -0.7, -1.6), (5.0, -1.0, 0.0, 0.7),
]  # fmt: skip
ROWS: dict[str, dict[str, Any]] = {
    "event": {"event": True},
    "censored": {},
    "event after entry": {"event": True, "entry": 0.4},
    "censored after entry": {"entry": 0.9},
    "interval": {"upper": 1.7},
    "narrow interval": {"upper": 1.0 + 2.0**-16},
    "left-censored": {"t": 0.0, "upper": 1.2},
    "left-censored after entry": {"t": 0.3, "entry": 0.3, "upper": 0.8},
}


def one_row(
    kappa: float, t: float, a: float, b: float, c: float, event: bool, entry: float,
    upper: float | None,
) -> np.ndarray:  # fmt: skip
    return K.row_derivatives(
        *(np.array([x]) for x in (t, float(event), a, b, c)),
        kappa,
        np.array([entry]) if entry else None,
        None if upper is None else np.array([upper]),
    )[:, 0]


@pytest.mark.parametrize("kind", ROWS)
def test_derivatives(kind: str, subtests: pytest.Subtests) -> None:
    # Every kappa of the grid, the points in turn.
    for number, kappa in enumerate(KAPPAS):
        t, *p = POINTS[(number + list(ROWS).index(kind)) % len(POINTS)]
        shape = {"t": 1.0, "event": False, "entry": 0.0, "upper": None} | ROWS[kind]
        row = shape | {n: t * shape[n] for n in ("t", "entry", "upper") if shape[n] is not None}
        expected = exact_derivatives(kappa, tuple(p), **row)
        a, b, c = p
        found = one_row(kappa, row["t"], a, b, c, row["event"], row["entry"], row["upper"])
        # The difference of two cumulative hazards over a narrow interval loses digits.
        tolerance = 1e-6 if kind == "narrow interval" else 1e-9
        with subtests.test(kappa=kappa):
            size = float(np.abs(expected).max())
            np.testing.assert_allclose(
                found, expected, rtol=tolerance, atol=1e-3 * tolerance * size + 1e-15
            )


def test_functions_to_double_precision() -> None:
    cases = json.loads((REFERENCE / "functions.json").read_text(encoding="utf-8"))["cases"]
    assert len(cases) == 72
    for case in cases:
        t, kappa = case["time"], case["kappa"]
        a, b, c = (math.log(case[name]) for name in ("phi", "lam", "gamma"))
        curve = K.curves(*(np.array([x]) for x in (t, a, b, c)), kappa)[:, 0]
        left = one_row(kappa, 0.0, a, b, c, False, 0.0, t)[0]
        # gamma (log t + log phi) is rounded before it is exponentiated.
        np.testing.assert_allclose(curve[0], case["cumulative_hazard"], rtol=1e-12, err_msg=case)
        np.testing.assert_allclose(curve[5], case["log_hazard"], rtol=1e-12, err_msg=case)
        np.testing.assert_allclose(
            left, case["log_incidence"], rtol=1e-11, atol=1e-15, err_msg=case
        )


def test_curves_are_the_likelihood() -> None:
    rng = np.random.default_rng(0)
    t, a, b, c = np.exp(rng.normal(size=(4, 300)) * [[2.0], [1.0], [1.0], [0.5]])
    a, b, c = np.log(a), np.log(b), np.log(c)
    for kappa in (-0.7, 0.0, 0.6, 3.0, math.inf):
        censored = K.row_derivatives(t, np.zeros(300), a, b, c, kappa)
        event = K.row_derivatives(t, np.ones(300), a, b, c, kappa)
        ok = censored[0] > -30.0  # beyond, the difference below has no digits
        curve = K.curves(t, a, b, c, kappa)
        np.testing.assert_allclose(curve[:5, ok], -censored[:5, ok], rtol=1e-11, atol=1e-300)
        hazard = event[:5, ok] - censored[:5, ok]
        np.testing.assert_allclose(curve[5:, ok], hazard, rtol=1e-8, atol=1e-8)


# ---------------------------------------------------------------- limits


def survival(t: np.ndarray, a: float, b: float, c: float, kappa: float) -> np.ndarray:
    n = len(t)
    return np.exp(-K.curves(t, np.full(n, a), np.full(n, b), np.full(n, c), kappa)[0])


TIMES = np.array([0.0, 1e-3, 0.1, 0.5, 1.0, 2.0, 7.0, 30.0])


def test_named_distributions() -> None:
    scale = math.exp(0.4)
    np.testing.assert_allclose(
        survival(TIMES, -0.4, 0.0, 0.6, 0.0), stats.fisk(math.exp(0.6), scale=scale).sf(TIMES)
    )
    np.testing.assert_allclose(
        survival(TIMES, -0.4, 0.7, 0.6, 0.0),
        stats.burr12(math.exp(0.6), math.exp(0.7), scale=scale).sf(TIMES),
    )
    np.testing.assert_allclose(
        survival(TIMES, -0.4, 0.0, -0.3, 1.0),
        stats.weibull_min(math.exp(-0.3), scale=scale).sf(TIMES),
    )
    np.testing.assert_allclose(
        survival(TIMES, -0.4, 0.3, 0.0, math.inf),
        stats.gompertz(math.exp(0.3), scale=scale).sf(TIMES),
    )
    u = TIMES / scale  # a hazard that is linear in time
    np.testing.assert_allclose(survival(TIMES, -0.4, 0.0, 0.0, 2.0), np.exp(-u - u**2 / 6))


@pytest.mark.parametrize(
    ("near", "limit", "tolerance"),
    [(1e-12, 0.0, 1e-11), (-1e-12, 0.0, 1e-11), (1 + 1e-12, 1.0, 1e-11), (1e9, math.inf, 1e-6)],
)
def test_no_jump_at_a_limit(near: float, limit: float, tolerance: float) -> None:
    for t, a, b, c in POINTS:
        for event in (True, False):
            for entry, upper in ((0.0, None), (0.5 * t, None), (0.0, 1.5 * t)):
                rows = [
                    one_row(k, t, a, b, c, event and upper is None, entry, upper)
                    for k in (near, limit)
                ]
                # At infinity the derivatives in nu are 0 by definition; they tend to it.
                keep = [0, 1, 2, 3, 5, 6, 7, 9, 10, 12] if limit == math.inf else range(15)
                size = 1.0 + np.abs(rows[1]).max()
                np.testing.assert_allclose(
                    rows[0][keep], rows[1][keep], rtol=tolerance, atol=tolerance * size
                )
                if limit == math.inf:
                    assert np.abs(rows[0][[4, 8, 11, 13, 14]]).max() < 1e-6 * size


def test_kappa_near_minus_one() -> None:
    # lambda (k + 1) = L and u / (k + 1) = v held: H tends to L v / (1 + v).
    k, big_l, g = -1 + 1e-9, 1.7, 1.3
    v = TIMES**g
    a = math.log(k + 1) / g
    found = survival(TIMES, a, math.log(big_l / (k + 1)), math.log(g), k)
    np.testing.assert_allclose(found, np.exp(-big_l * v / (1 + v)), rtol=1e-7)


def test_hazard_at_both_ends() -> None:
    # d log h / d log t is gamma - 1 at first and gamma kappa - 1 at last.
    for c, kappa in ((0.5, 0.3), (-0.7, 2.0), (0.2, -0.4)):
        for t, slope in ((1e-25, math.expm1(c)), (1e25, math.exp(c) * kappa - 1)):
            two = np.array([t, t * 1.001])
            h = K.curves(two, np.zeros(2), np.zeros(2), np.full(2, c), kappa)[5]
            assert math.isclose((h[1] - h[0]) / math.log(1.001), slope, rel_tol=1e-5)


def test_turning_point() -> None:
    for c, kappa in ((0.6, 0.1), (0.9, -0.5), (-0.5, 3.0), (-0.5, math.inf)):
        t = float(K.turning_point(np.array([-0.3]), np.array([c]), kappa)[0])
        near = t * np.array([0.99, 1.0, 1.01])
        h = K.curves(near, np.full(3, -0.3), np.zeros(3), np.full(3, c), kappa)[5]
        up_then_down = c > 0
        assert (h[1] > max(h[0], h[2])) if up_then_down else (h[1] < min(h[0], h[2]))
    for c, kappa in ((0.6, 1.0), (-0.5, 1.0), (0.0, 3.0)):
        assert math.isnan(K.turning_point(np.zeros(1), np.array([c]), kappa)[0])


# ---------------------------------------------------------------- laws, over a wide range

numbers = st.floats
parameters = st.tuples(numbers(-4, 4), numbers(-3, 3), numbers(-1.5, 1.5))
kappas = st.one_of(
    numbers(-3, 3).map(math.expm1),
    st.sampled_from([0.0, 1e-12, -1e-12, 1.0, 2.0, math.inf, 1e6, -0.999]),
)


def cumulative(t: float | np.ndarray, p: tuple[float, ...], kappa: float) -> np.ndarray:
    time = np.atleast_1d(np.asarray(t, float))
    a, b, c = (np.full(len(time), x) for x in p)
    return K.curves(time, a, b, c, kappa)[0]


@given(parameters, kappas, st.lists(numbers(-20, 20), min_size=2, max_size=8))
def test_survival_falls(p: tuple[float, ...], kappa: float, logs: list[float]) -> None:
    h = cumulative(np.exp(np.sort(logs)), p, kappa)
    assert not np.isnan(h).any() and (h >= 0).all()
    steps = np.diff(h[np.isfinite(h)])
    assert (steps >= -1e-14 * h[np.isfinite(h)][:-1]).all()
    if kappa < 0:
        bound = math.exp(p[1]) * (kappa + 1) / -kappa
        assert (h <= bound * (1 + 1e-12)).all()


@given(parameters, kappas, numbers(-10, 10))
def test_quantile_inverts_survival(p: tuple[float, ...], kappa: float, log_t: float) -> None:
    t = math.exp(log_t)
    h = float(cumulative(t, p, kappa)[0])
    assume(1e-12 < h < 30)
    slope = float(K.curves(np.array([t]), *(np.array([x]) for x in p), kappa)[1, 0])
    assume(slope / math.exp(p[2]) > 1e-3 * h)  # else H is flat, and t not to be had from it
    share = -math.expm1(-h)
    assume(share < 1 - 1e-6)  # nearer to 1 a double has no digits left
    args = (np.array([share]), *(np.array([x]) for x in p), kappa)
    back = float(K.quantile(*args)[0])
    assert math.isclose(float(cumulative(back, p, kappa)[0]), h, rel_tol=1e-8)


@given(parameters, numbers(-3, -1e-6).map(math.expm1), numbers(0.0, 0.999))
def test_quantile_of_the_cured_is_infinite(p: tuple[float, ...], kappa: float, q: float) -> None:
    cure = math.exp(math.exp(p[1]) * (kappa + 1) / kappa)
    t = float(K.quantile(np.array([q]), *(np.array([x]) for x in p), kappa)[0])
    assert t >= 0
    if q > 1 - cure + 1e-12:
        assert t == math.inf


@given(parameters, kappas, numbers(-5, 5), numbers(0.01, 3.0), st.booleans())
def test_entry_adds_its_hazard(
    p: tuple[float, ...], kappa: float, log_t: float, gap: float, event: bool
) -> None:
    entry, t = math.exp(log_t - gap), math.exp(log_t)
    before = float(cumulative(entry, p, kappa)[0])
    plain = float(one_row(kappa, t, *p, event, 0.0, None)[0])
    late = float(one_row(kappa, t, *p, event, entry, None)[0])
    assume(math.isfinite(plain))
    assert math.isclose(late, plain + before, rel_tol=1e-12, abs_tol=1e-12)


@given(parameters, kappas, st.lists(numbers(-4, 4), min_size=1, max_size=6, unique=True))
def test_intervals_of_a_partition_sum_to_one(
    p: tuple[float, ...], kappa: float, logs: list[float]
) -> None:
    cuts = np.exp(np.sort(logs))
    h = cumulative(cuts, p, kappa)
    assume(np.diff(np.concatenate([[0.0], h])).min() > 1e-9)
    lower = np.concatenate([[0.0], cuts])
    upper = np.concatenate([cuts, [np.inf]])
    n = len(lower)
    a, b, c = (np.full(n, x) for x in p)
    logs_ = K.row_derivatives(lower, np.zeros(n), a, b, c, kappa, None, upper)[0]
    assert math.isclose(np.exp(logs_).sum(), 1.0, rel_tol=1e-9)
    # The first is left-censored, the last right-censored.
    assert math.isclose(logs_[0], math.log(-math.expm1(-h[0])), rel_tol=1e-9, abs_tol=1e-15)
    assert math.isclose(logs_[-1], -h[-1], rel_tol=1e-12)
    # Given survival to an entry, the rest of the partition sums to one as well.
    if n > 2:
        entry = np.full(n - 1, cuts[0])
        late = K.row_derivatives(
            lower[1:], np.zeros(n - 1), a[1:], b[1:], c[1:], kappa, entry, upper[1:]
        )[0]
        if np.isfinite(late).all():
            assert math.isclose(np.exp(late).sum(), 1.0, rel_tol=1e-8)


@given(
    st.tuples(numbers(-200, 200), numbers(-50, 50), numbers(-6, 5)),
    st.one_of(kappas, numbers(-30, 30).map(math.expm1)),
    numbers(-200, 200),
    numbers(0.0, 50.0),
    st.sampled_from(["event", "censored", "entry", "interval", "left"]),
)
def test_extremes_give_a_number_or_minus_infinity(
    p: tuple[float, ...], kappa: float, log_t: float, gap: float, kind: str
) -> None:
    t = math.exp(log_t)
    wide = math.exp(log_t + gap)
    row = {
        "event": (t, True, 0.0, None),
        "censored": (t, False, 0.0, None),
        "entry": (wide, True, t, None),
        "interval": (t, False, 0.0, wide * (1 + 1e-9)),
        "left": (0.0, False, 0.0, t),
    }[kind]
    found = one_row(kappa, row[0], *p, *row[1:])
    hazards = cumulative([t, wide], p, kappa)
    if not (np.isfinite(hazards).all() and 1e-300 < hazards[0]):
        assert not found[0] > 1e300  # never plus infinity: a step there is refused
        return
    if kind in ("event", "censored"):
        assert math.isfinite(found[0])
    else:
        assert math.isfinite(found[0]) or found[0] == -math.inf
