"""Policy values: formulas by hand, robustness, support, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import special
from sklearn.tree import DecisionTreeRegressor

from causalrm.core.errors import DataError, IdentificationError, IdentificationWarning
from causalrm.core.result import Result
from causalrm.deconfound.policy import policy_value

XS = ["x1", "x2"]


@pytest.fixture(scope="module")
def log() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(800, 2))
    p = special.softmax(np.column_stack([0 * x[:, 0], 0.8 * x[:, 0], -0.5 * x[:, 1]]), axis=1)
    a = np.minimum((p.cumsum(axis=1) < rng.random((800, 1))).sum(axis=1), 2)
    q = np.column_stack([x[:, 0], 0.5 + x[:, 1], 1 - 0.5 * x[:, 0]])
    rows = np.arange(800)
    return pd.DataFrame(
        {
            "x1": x[:, 0], "x2": x[:, 1], "a": np.array(["u", "v", "w"])[a], "p": p[rows, a],
            "r": q[rows, a] + rng.normal(size=800), "pick": np.where(x[:, 0] > 0, "v", "w"),
            "half": 0.5 + 0 * x[:, 0],
        }
    )  # fmt: skip


def value(log: pd.DataFrame, **options: object):
    roles = {"action": "a", "reward": "r", "policy": "pick", "covariates": XS}
    return policy_value(log, **{**roles, **options})


def test_weighting_by_hand(log: pd.DataFrame) -> None:
    w = (log["a"] == log["pick"]) / log["p"]
    ips = value(log, propensity="p", method="ips")
    assert ips.estimates[0] == pytest.approx((w * log["r"]).mean(), rel=1e-12)
    assert ips.effect().std_error == pytest.approx((w * log["r"]).std(ddof=0) / 800**0.5, rel=1e-9)
    snips = value(log, propensity="p", method="snips")
    v = (w * log["r"]).sum() / w.sum()
    assert snips.estimates[0] == pytest.approx(v, rel=1e-12)
    error = np.sqrt(((w * (log["r"] - v)) ** 2).sum()) / w.sum()
    assert snips.effect().std_error == pytest.approx(error, rel=1e-9)
    assert ips.diagnostics["ess"] == pytest.approx(w.sum() ** 2 / (w**2).sum())
    assert ips.to_frame()["estimate"][1] == pytest.approx(log["r"].mean())
    assert ips.estimates[2] == pytest.approx(ips.estimates[0] - ips.estimates[1])


def test_snips_does_not_move_with_the_origin_of_rewards(log: pd.DataFrame) -> None:
    plain = value(log, propensity="p", method="snips")
    moved = value(log.assign(r=log["r"] + 100), propensity="p", method="snips")
    assert moved.estimates[0] == pytest.approx(plain.estimates[0] + 100, rel=1e-9)


def test_direct_is_least_squares_within_actions(log: pd.DataFrame) -> None:
    found = value(log, method="direct")
    total = np.zeros(800)
    for action in ("v", "w"):
        part = log[log["a"] == action]
        x = np.column_stack([np.ones(len(part)), part[XS]])
        b = np.linalg.lstsq(x, part["r"], rcond=None)[0]
        total += (log["pick"] == action) * (np.column_stack([np.ones(800), log[XS]]) @ b)
    assert found.estimates[0] == pytest.approx(total.mean(), rel=1e-9)
    other = value(log, nuisance={"reward": DecisionTreeRegressor(max_depth=3)})
    assert other.effect().std_error > 0


@pytest.mark.parametrize("method", ["direct", "dr", "ips"])
@pytest.mark.parametrize(("origin", "unit"), [(0, 1e9), (1.7e9, 1e5)])
def test_units_and_origin_of_a_covariate_do_not_matter(
    log: pd.DataFrame, method: str, origin: float, unit: float
) -> None:
    plain = value(log, method=method).to_frame()
    moved = value(log.assign(x1=origin + unit * log["x1"]), method=method).to_frame()
    pd.testing.assert_frame_equal(moved, plain, rtol=1e-7)


def test_doubly_robust_with_either_nuisance_wrong() -> None:
    rng = np.random.default_rng(2)
    n = 20_000
    x = rng.normal(size=n)
    p = special.expit(x)
    a = rng.random(n) < p
    r = np.where(a, np.exp(x / 2), 0) + rng.normal(size=n)
    log = pd.DataFrame({"x": x, "z": np.exp(x / 2), "a": a, "r": r, "bad": 0.5,
                        "p": np.where(a, p, 1 - p)})  # fmt: skip
    truth = np.exp(1 / 8)
    roles = {"action": "a", "reward": "r", "policy": {True: 1.0}}
    reward_wrong = policy_value(log, **roles, propensity="p", covariates=["x"]).effect()
    assert abs(reward_wrong.estimate - truth) < 4 * reward_wrong.std_error
    propensity_wrong = policy_value(log, **roles, propensity="bad", covariates=["z"]).effect()
    assert abs(propensity_wrong.estimate - truth) < 4 * propensity_wrong.std_error
    both = policy_value(log, **roles, propensity="bad", method="snips").effect()
    assert abs(both.estimate - truth) > 10 * both.std_error


def test_policies_of_all_kinds_are_the_same(log: pd.DataFrame) -> None:
    one = value(log, propensity="p").estimates
    table = pd.DataFrame({k: (log["pick"] == k).astype(float) for k in ("v", "w")})
    frame = log.assign(pv=table["v"], pw=table["w"])
    for policy in (
        log["pick"], table, lambda d: d["pick"].to_numpy(), {"v": "pv", "w": "pw"},
    ):  # fmt: skip
        assert value(frame, propensity="p", policy=policy).estimates == pytest.approx(one)
    half = value(log, propensity="p", policy={"v": "half", "w": 0.5})
    assert half.diagnostics["policy_share"] == {"u": 0.0, "v": 0.5, "w": 0.5}
    logging = value(log, propensity="p", policy={"u": 1.0}, method="ips")
    assert logging.diagnostics["matched_rows"] == (log["a"] == "u").sum()


def test_switch_lies_between_direct_and_doubly_robust(log: pd.DataFrame) -> None:
    robust = value(log, propensity="p", method="dr")
    every = value(log, propensity="p", method="switch", switch=1e9)
    assert every.estimates[0] == pytest.approx(robust.estimates[0], rel=1e-12)
    none = value(log, propensity="p", method="switch", switch=1e-9)
    assert none.diagnostics["mass_beyond_switch"] == pytest.approx(
        robust.diagnostics["mean_weight"]
    )
    chosen = value(log, propensity="p", method="switch")
    assert 0 <= chosen.diagnostics["mass_beyond_switch"] <= 0.2
    assert any(a.name == "reward model" for a in chosen.assumptions)


def test_clusters_repeats_and_json(log: pd.DataFrame) -> None:
    rows = pd.concat([log] * 2, ignore_index=True).assign(g=np.tile(np.arange(800), 2))
    found = value(rows, propensity="p", cluster="g", repeats=3, rng=1)
    single = value(log, propensity="p", rng=1)
    assert found.effect().std_error == pytest.approx(single.effect().std_error, rel=0.05)
    again = Result.from_json(found.to_json())
    pd.testing.assert_frame_equal(again.to_frame(), found.to_frame())
    assert "effective rows" in str(found.summary())


def test_one_row_of_the_frame_as_a_number(log: pd.DataFrame) -> None:
    found = value(log, propensity="p")
    row = found.to_frame().iloc[2]
    assert found.effect(term="difference").estimate == row["estimate"]
    with pytest.raises(DataError, match="'policy', 'logged', 'difference'"):
        found.effect(term="both")


def test_wrong_propensities_and_thin_support_warn(log: pd.DataFrame) -> None:
    with pytest.warns(IdentificationWarning, match="mean 1"):
        value(log.assign(p=log["p"] / 2), propensity="p", method="ips")
    with pytest.warns(IdentificationWarning, match="were clipped"):
        clipped = value(log, propensity="p", method="ips", clip=2.0)
    assert clipped.diagnostics["n_clipped"] > 0
    rare = log.assign(a=np.where(np.arange(800) < 4, "rare", "u"), p=0.5)
    rare.loc[:3, "p"] = 0.005
    with pytest.warns(IdentificationWarning, match="seldom"):
        value(rare, propensity="p", policy={"rare": 1.0}, method="ips")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "magic"}, DataError, "Expected method"),
        ({"policy": {"never": 1.0}}, IdentificationError, "never logged"),
        ({"policy": {"u": 0.7}}, DataError, "add up to 1"),
        ({"policy": ["u", "v"]}, DataError, "one action for each"),
        ({"policy": "nowhere"}, DataError, "column 'nowhere'"),
        ({"propensity": "x1"}, DataError, "propensities above 0"),
        ({"clip": -1.0}, DataError, "positive weight"),
        ({"clip": 5.0, "method": "direct"}, DataError, "5.0 with 'direct'"),
        ({"switch": 5.0}, DataError, "weight for switch"),
        ({"folds": 1}, DataError, "2 to 100 folds"),
        (
            {"method": "direct", "nuisance": {"reward": DecisionTreeRegressor()}},
            DataError,
            "Use method 'dr'",
        ),
    ],
)
def test_refusals(log: pd.DataFrame, options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        value(log, **options)
