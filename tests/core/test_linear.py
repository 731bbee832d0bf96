from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st

from causalrm import IdentificationError
from causalrm.core.blocks import Block, Rows, length
from causalrm.core.design import prepare
from causalrm.core.linear import (
    Predictors,
    dependent_columns,
    least_squares,
    logistic_rows,
    pairs,
    weighted_gram,
)
from causalrm.core.optimize import maximize

N = 700
RNG = np.random.default_rng(11)
FRAME = pd.DataFrame(
    {
        "x": RNG.normal(size=N),
        "y": RNG.uniform(1, 2, N),
        "g": RNG.choice(list("abc"), N),
        "big": RNG.normal(1e6, 1, N),
        "tiny": RNG.normal(size=N) * 1e-8,
        "huge": RNG.normal(size=N) * 1e8,
        "far": RNG.normal(1e6, 1e3, N),
    }
)


def predictors(
    texts: list[str | None], drop: list[bool] | None = None, data: pd.DataFrame = FRAME
) -> tuple[Predictors, Rows]:
    given_ = {str(i): text for i, text in enumerate(texts) if text is not None}
    _, rows, designs, _ = prepare(data, given_)
    used = [designs.get(str(i)) for i in range(len(texts))]
    return Predictors(used, drop or [False] * len(texts)), rows


def dense(p: Predictors, rows: Rows) -> list[np.ndarray]:
    """The raw design of each predictor, (n, p); a column of ones for a free number."""
    n = rows.n_obs
    out = []
    for w, f in zip(p.which, p.first, strict=True):
        out.append(np.ones((n, 1)) if w < 0 else p.unique[w].encode(rows.columns, n)[f:].T)
    return out


CASES = {
    "one": (["x + g"], None),
    "shared": (["x + g", "x + g"], None),
    "shared without intercept": (["x + g", "x + g", None], [False, True, False]),
    "several": (["x*g", "1", "0 + g", None, "y", None], None),
    "intercept dropped": (["big + tiny", "x"], [True, False]),
    "far from zero": (["big + tiny + huge", "far*g"], None),
    "splines": (["bs(x, df=4)", "poly(y, 2):g"], None),
}


@pytest.fixture(params=CASES, scope="module")
def case(request: pytest.FixtureRequest) -> tuple[Predictors, Rows]:
    p, rows = predictors(*CASES[request.param])
    p.standardise(rows, [f"eta{i}" for i in range(len(p.which))])
    return p, rows


def test_sizes(case: tuple[Predictors, Rows]) -> None:
    p, rows = case
    widths = [x.shape[1] for x in dense(p, rows)]
    assert p.sizes == widths and p.n_params == sum(widths)
    assert [s.stop - s.start for s in p.slices] == widths


def test_values_scores_and_hessian_against_dense_matrices(case: tuple[Predictors, Rows]) -> None:
    p, rows = case
    n, m = rows.n_obs, len(p.which)
    rng = np.random.default_rng(5)
    raw = dense(p, rows)
    t = p.transform()
    theta = rng.normal(size=p.n_params) * 0.1
    xs = p.matrices(rows.columns, n)
    for i, (s, value) in enumerate(zip(p.slices, p.values(xs, theta), strict=True)):
        assert np.ndim(value) == 0 or not p.constant(i)
        expected = raw[i] @ (t @ theta)[s]
        np.testing.assert_allclose(np.broadcast_to(value, n), expected, rtol=1e-7, atol=1e-7)
    # derivatives are those of the internal coefficients: T' times the raw ones
    g = rng.normal(size=(m, n))
    internal = [x @ t[s, s] for x, s in zip(raw, p.slices, strict=True)]
    scores = np.concatenate([x.T * g[i] for i, x in enumerate(internal)])
    found = p.scores(xs, list(g))
    size = np.abs(scores).max(axis=1, keepdims=True)
    np.testing.assert_allclose(found / size, scores / size, atol=1e-7)
    np.testing.assert_allclose(p.score(xs, list(g)), found.sum(axis=1), rtol=1e-9, atol=1e-9 * n)
    w = rng.normal(size=(2, len(pairs(m)), n))
    hessian = p.hessian(xs, w)
    for q in range(2):
        expected = np.empty((p.n_params, p.n_params))
        for slot, (i, j) in enumerate(pairs(m)):
            block = (internal[i] * w[q, slot][:, None]).T @ internal[j]
            expected[p.slices[i], p.slices[j]] = block
            expected[p.slices[j], p.slices[i]] = block.T
        scale = np.sqrt(np.concatenate([(x**2).sum(axis=0) for x in internal]))
        np.testing.assert_allclose(
            hessian[q] / np.outer(scale, scale), expected / np.outer(scale, scale), atol=1e-7
        )
        np.testing.assert_array_equal(hessian[q], hessian[q].T)


def test_columns_far_from_zero_are_centred_and_scaled() -> None:
    p, rows = predictors(["big + tiny + huge + x"])
    p.standardise(rows, ["eta"])
    (x,) = p.matrices(rows.columns, N)
    assert np.abs(x[1:].mean(axis=1)).max() < 1.0
    assert ((0.5 < x[1:].std(axis=1)) & (x[1:].std(axis=1) < 2)).all()
    np.testing.assert_allclose(p.sd[0][1:], FRAME[["big", "tiny", "huge", "x"]].std(ddof=0))
    np.testing.assert_allclose(p.mean[0][1:], FRAME[["big", "tiny", "huge", "x"]].mean(), atol=1e-9)
    np.testing.assert_array_equal(x[4], FRAME["x"])  # ordinary columns are left alone


def test_without_an_intercept_nothing_is_centred() -> None:
    p, rows = predictors(["big + x"], [True])
    p.standardise(rows, ["lam"])
    (x,) = p.matrices(rows.columns, N)
    np.testing.assert_array_equal(x[1], FRAME["big"])
    assert not p.shift[0].any() and p.sizes == [2]
    p, rows = predictors(["0 + g + x"])
    p.standardise(rows, ["eta"])  # its columns add up to 1, and are not dependent
    assert not p.shift[0].any()


def test_constant_predictors_are_numbers() -> None:
    p, rows = predictors(["1", None, "x"], None)
    assert [p.constant(i) for i in range(3)] == [True, True, False]
    values = p.values(p.matrices(rows.columns, N), np.array([1.5, 2.0, 0.0, 1.0]))
    assert values[:2] == [1.5, 2.0]
    np.testing.assert_array_equal(values[2], FRAME["x"])
    p, rows = predictors(["x"], [True])
    assert not p.constant(0)


# ---------------------------------------------------------------- rank


@pytest.mark.parametrize(
    ("text", "data", "message"),
    [
        ("x + c", {"c": 3.0}, "'c' is constant .*Remove it: the intercept"),
        ("x + c", {"c": 0.1}, "'c' is constant"),
        ("x + c", {"c": 1e6}, "'c' is constant"),
        ("x + c", {"c": 0.0}, "'c' is constant"),
        ("0 + x + c", {"c": 0.0}, "'c' is zero in every row .*Remove it"),
        ("x + c", {"c": FRAME["x"] * 3 - 2}, r"\['x', 'c'\] are linearly dependent \(with"),
        ("0 + x + c", {"c": FRAME["x"] * 3}, r"\['x', 'c'\] are linearly dependent \(2 of 2"),
        ("x + y + c", {"c": FRAME["x"] - FRAME["y"]}, r"\['x', 'y', 'c'\] are"),
        ("x + y + c", {"c": FRAME["x"] * 1e9}, r"\['x', 'c'\] are linearly dependent"),
        ("g + c", {"c": (FRAME["g"] == "b") * 1.0}, r"\['g\[T.b\]', 'c'\] are"),
        ("g + h", {"h": FRAME["g"].str.upper()}, r"linearly dependent"),
        ("big + c", {"c": FRAME["big"] + 1}, r"\['big', 'c'\] are"),
        ("C(g, levels=['a', 'b', 'c', 'd'])", {}, r"\[T.d\]. is constant"),
    ],
)
def test_singular_designs_name_their_columns(text: str, data: dict[str, Any], message: str) -> None:
    p, rows = predictors([text, "x"], None, FRAME.assign(**data))
    with pytest.raises(IdentificationError, match=f"formula of phi .*{message}"):
        p.standardise(rows, ["phi", "gamma"])


def test_hardly_regular_designs_pass() -> None:
    near = FRAME.assign(c=FRAME["x"] + 1e-3 * FRAME["y"], rare=(FRAME.index == 690) * 1.0)
    p, rows = predictors(["x + c + rare + big + far"], None, near)
    p.standardise(rows, ["eta"])


def test_a_message_names_all_users_of_a_design() -> None:
    p, rows = predictors(["x + c", "y", "x + c"], None, FRAME.assign(c=1.0))
    with pytest.raises(IdentificationError, match="formula of phi and gamma"):
        p.standardise(rows, ["phi", "lam", "gamma"])


@given(st.integers(2, 6), st.integers(0, 10_000), st.floats(-100, 100))
def test_dependent_columns(p: int, seed: int, log_scale: float) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(50, p)) * 10.0 ** rng.uniform(-abs(log_scale) / 4, abs(log_scale) / 4, p)
    assert dependent_columns(x.T @ x) is None
    i, j = rng.choice(p, 2, replace=False)
    x[:, j] = -2.5 * x[:, i]
    assert dependent_columns(x.T @ x) == sorted((int(i), int(j)))
    x[:, i] = 0.0
    assert dependent_columns(x.T @ x) == [i]
    assert dependent_columns(np.empty((0, 0))) is None


# ---------------------------------------------------------------- kernel


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.integers(1, 1500))
def test_weighted_gram(p: int, r: int, m: int, n: int) -> None:
    rng = np.random.default_rng(n)
    x, z, w = rng.normal(size=(p, n)), rng.normal(size=(r, n)), rng.normal(size=(m, n))
    start = rng.normal(size=(m, p, r))
    out = start.copy()
    weighted_gram(x, z, w, False, out)
    np.testing.assert_allclose(out - start, np.einsum("pn,qn,rn->qpr", x, w, z), atol=1e-10)
    out = np.zeros((m, p, p))
    weighted_gram(x, x, w, True, out)
    np.testing.assert_allclose(out, np.einsum("pn,qn,rn->qpr", x, w, x), atol=1e-10)
    np.testing.assert_array_equal(out, out.transpose(0, 2, 1))


def test_a_tile_more_or_less_changes_nothing() -> None:
    x = np.ones((2, 1025))
    for n in (1, 511, 512, 513, 1024, 1025):
        out = np.zeros((1, 2, 2))
        weighted_gram(np.ascontiguousarray(x[:, :n]), np.ascontiguousarray(x[:, :n]),
                      np.ones((1, n)), True, out)  # fmt: skip
        assert (out == n).all()


# ---------------------------------------------------------------- regressions


def normal_equations(block: Block, p: Predictors) -> tuple[np.ndarray, np.ndarray]:
    n = length(block)
    xs = p.matrices(block, n)
    return p.hessian(xs, np.ones((1, 1, n)))[0], p.score(xs, [np.asarray(block["y"])])


def test_least_squares_against_statsmodels() -> None:
    p, rows = predictors(["big + tiny + huge + g + x:g"])
    rows.columns["y"] = FRAME["y"].to_numpy()
    p.standardise(rows, ["mean"])
    gram, moment = rows.total(normal_equations, p)
    beta = p.transform() @ least_squares(gram, moment)
    x = dense(p, rows)[0]
    sd = np.r_[1.0, x[:, 1:].std(axis=0)]  # statsmodels needs help
    easy = (x - np.r_[0.0, x[:, 1:].mean(axis=0)]) / sd
    expected = sm.OLS(FRAME["y"], easy).fit().params.to_numpy()
    np.testing.assert_allclose((beta * sd)[1:], expected[1:], rtol=1e-6)
    np.testing.assert_allclose(x @ beta, easy @ expected, rtol=1e-9)


def test_least_squares_of_several_outcomes() -> None:
    x, y = RNG.normal(size=(50, 3)), RNG.normal(size=(50, 2))
    beta = least_squares(x.T @ x, x.T @ y)
    np.testing.assert_allclose(beta, np.linalg.lstsq(x, y, rcond=None)[0])
    np.testing.assert_allclose(least_squares(x.T @ x, x.T @ y[:, 0]), beta[:, 0])


def test_least_squares_names_dependent_columns() -> None:
    x = np.column_stack([np.ones(9), np.arange(9), 2 - np.arange(9), np.zeros(9)])
    with pytest.raises(IdentificationError, match=r"of 3 columns \[0, 1, 2\] are dependent\. Rem"):
        least_squares(x.T[:3] @ x[:, :3], np.ones(3))
    with pytest.raises(IdentificationError, match=r"of 4 columns \['d'\] is zero"):
        least_squares(x.T @ x, np.ones(4), list("abcd"))


def test_logistic_regression_against_statsmodels() -> None:
    p, rows = predictors(["x*g + big"])
    p.standardise(rows, ["odds"])
    eta = FRAME["x"] - (FRAME["g"] == "b") + FRAME["big"] - 1e6
    y = (np.random.default_rng(1).random(N) < 1 / (1 + np.exp(-eta))).astype(int)
    w = np.random.default_rng(2).integers(1, 4, N)
    rows.columns |= {"y": y.to_numpy(), "w": w}

    def sums(block: Block, theta: np.ndarray) -> tuple[Any, ...]:
        n = length(block)
        xs = p.matrices(block, n)
        value, first, second = logistic_rows(block["y"], p.values(xs, theta)[0], block["w"])
        hessian, meat = p.hessian(xs, np.stack([second[None], first[None] ** 2]))
        return value.sum(), p.score(xs, [first]), hessian, meat

    fit = maximize(lambda theta: rows.total(sums, theta), np.zeros(p.n_params))
    assert fit.converged
    x = dense(p, rows)[0]
    x[:, 4] -= 1e6  # statsmodels needs help
    peer = sm.GLM(y, x, family=sm.families.Binomial(), freq_weights=w).fit(tol=1e-12)
    t = p.transform()
    np.testing.assert_allclose((t @ fit.theta)[1:], peer.params[1:], rtol=1e-6, atol=1e-9)
    assert fit.value == pytest.approx(peer.llf, rel=1e-9)
    se = np.sqrt(np.diag(t @ np.linalg.inv(-fit.hessian) @ t.T))
    np.testing.assert_allclose(se[1:], peer.bse[1:], rtol=1e-5)


@given(st.floats(-700, 700), st.floats(0, 1), st.floats(0, 5))
def test_logistic_rows(eta: float, y: float, w: float) -> None:
    value, first, second = logistic_rows(np.array([y]), np.array([eta]), w)
    loss = y * np.logaddexp(0, -eta) + (1 - y) * np.logaddexp(0, eta)
    assert value[0] == pytest.approx(-w * loss, rel=1e-10, abs=1e-300)
    p = 1 / (1 + np.exp(-eta)) if eta > -700 else 0.0
    assert first[0] == pytest.approx(w * (y - p), rel=1e-12, abs=1e-15)
    assert -0.25 * w <= second[0] <= 0
    assert second[0] == pytest.approx(-w * p * (1 - p), rel=1e-9, abs=1e-15)


def test_logistic_rows_at_their_limits() -> None:
    with np.errstate(all="raise", under="ignore"):
        y, eta = np.array([1.0, 0.0, 1.0, 0.0]), np.array([800.0, -800.0, -800.0, 800.0])
        value, first, second = logistic_rows(y, eta)
    assert value.tolist() == [0.0, 0.0, -800.0, -800.0]
    assert first.tolist() == [0.0, 0.0, 1.0, -1.0] and not second.any()
