"""What a fit says of itself: cure, shape, tests between fits, and its doubts about the data."""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import causalrm as crm
from causalrm.datasets import load_gbsg2, make_survival

REFERENCE = Path(__file__).parents[1] / "reference" / "survival"
RIGHT = {"time": "time", "event": "event"}
BETWEEN = {"lower": "lower", "upper": "upper"}


def fit(data: pd.DataFrame, roles: dict[str, str] | None = None, **options: Any) -> Any:
    return crm.SurvivalRegression(**options).fit(data, **(RIGHT if roles is None else roles))


def quietly(data: pd.DataFrame, roles: dict[str, str] | None = None, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", crm.CausalRMWarning)
        return fit(data, roles, **options)


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return make_survival(300, cluster_size=3, correlation=0.3, rng=11).data


@pytest.fixture(scope="module")
def cured() -> pd.DataFrame:
    return make_survival(
        600, phi={"Intercept": 0.5}, lam={"trt": -0.7}, gamma={"Intercept": 0.3}, kappa=-0.5,
        follow_up=25.0, censoring=0.02, rng=5,
    ).data  # fmt: skip


# ---------------------------------------------------------------- the frame


def test_frame_and_covariances(data: pd.DataFrame) -> None:
    result = fit(data, RIGHT | {"cluster": "cluster"}, phi="x1 + trt", gamma="trt").result_
    frame = result.to_frame()
    assert list(frame["parameter"]) == ["phi"] * 3 + ["gamma"] * 2 + ["kappa"]
    assert list(frame["term"]) == ["Intercept", "x1", "trt", "Intercept", "trt", "kappa"]
    assert set(result.covariances) == {"model", "robust", "cluster"}
    kappa = frame.iloc[-1]
    nu, se = result.estimates[-1], result.std_error[-1]
    t = float(stats.t.ppf(0.975, 99))
    assert kappa["estimate"] == pytest.approx(math.expm1(nu)) == pytest.approx(result.kappa)
    assert kappa["std_error"] == pytest.approx(math.exp(nu) * se)
    assert kappa["conf_low"] == pytest.approx(math.expm1(nu - t * se), rel=1e-6)
    assert kappa["conf_high"] == pytest.approx(math.expm1(nu + t * se), rel=1e-6)
    assert math.isnan(kappa["p_value"])
    model = result.with_covariance("model")
    assert model.covariance == "model" and result.covariance == "cluster"
    row = model.to_frame().iloc[1]
    assert row["conf_high"] - row["estimate"] == pytest.approx(1.95996398 * row["std_error"])
    again = crm.Result.from_json(result.to_json())
    pd.testing.assert_frame_equal(again.to_frame(), frame, check_exact=True)
    assert isinstance(again, type(result)) and again.hazard_shape == result.hazard_shape
    with pytest.raises(crm.DataError, match="cluster="):
        fit(data, covariance="cluster")


def test_joint_test_of_a_covariate(data: pd.DataFrame) -> None:
    result = fit(data, phi="x1 + trt", gamma="trt").result_
    test = result.wald_test("trt")
    used = [2, 4]
    b, v = result.estimates[used], result.cov().to_numpy()[np.ix_(used, used)]
    assert test.df == 2 and test.statistic == pytest.approx(b @ np.linalg.solve(v, b))
    # Close to the likelihood-ratio test of the same hypothesis.
    ratio = result.lr_test(fit(data, phi="x1").result_)
    assert ratio.df == 2 and test.statistic == pytest.approx(ratio.statistic, rel=0.1)


@pytest.mark.parametrize(
    ("gamma", "kappa", "words"),
    [
        (0.4, 1.0, "increasing"), (-0.4, 1.0, "decreasing"), (0.8, 0.1, "increasing, then decreas"),
        (-0.5, math.inf, "decreasing, then increasing"), (0.3, math.inf, "increasing"),
        (0.6, -0.4, "increasing, then decreasing"), (-0.2, -0.4, "decreasing"),
    ],
)  # fmt: skip
def test_hazard_shape(gamma: float, kappa: float, words: str) -> None:
    data = make_survival(
        2000, phi={"Intercept": -0.5}, gamma={"Intercept": gamma}, kappa=kappa, follow_up=40.0,
        censoring=0.01, rng=1,
    ).data  # fmt: skip
    result = fit(data, kappa=kappa).result_
    assert result.hazard_shape.startswith(words)
    if "," in words:  # the hazard turns where it says
        t = result.turning_point * np.array([0.8, 0.999, 1.0, 1.001, 1.2])
        h = crm.SurvivalRegression.from_result(result).predict_hazard(data.iloc[:1], t).to_numpy()
        inner = h[0, 2] >= h[0].max() if words[0] == "i" else h[0, 2] <= h[0].min()
        assert inner
    else:
        assert math.isnan(result.turning_point)
    assert fit(data, kappa="exponential").result_.hazard_shape == "constant"


# ---------------------------------------------------------------- cure


@pytest.mark.parametrize("roles", [RIGHT, RIGHT | {"weights": "w"}], ids=["plain", "weighted"])
def test_cure_fraction(cured: pd.DataFrame, roles: dict[str, str]) -> None:
    rows = cured.assign(w=np.where(cured["trt"] == 1, 3.0, 1.0))
    model = fit(rows, roles, lam="trt", phi="1")
    result, w = model.result_, rows["w"] if "weights" in roles else np.ones(len(rows))
    cure = result.cure_fraction(0.9)

    def mean(theta: np.ndarray) -> float:
        k = math.expm1(theta[-1])
        lam = np.exp(rows["trt"] * theta[1])
        return float(np.average(np.exp(lam * (k + 1) / k), weights=w))

    theta, h = result.estimates, 1e-6
    gradient = np.array([(mean(theta + e) - mean(theta - e)) / (2 * h) for e in h * np.eye(4)])
    se = math.sqrt(gradient @ result.cov().to_numpy() @ gradient)
    assert cure.estimate == pytest.approx(mean(theta), rel=1e-10)
    assert cure.std_error == pytest.approx(se, rel=1e-5)
    x, half = math.log(-math.log(cure.estimate)), 1.6448536 * se
    half /= cure.estimate * -math.log(cure.estimate)
    assert cure.conf_low == pytest.approx(math.exp(-math.exp(x + half)), rel=1e-5)
    assert cure.conf_high == pytest.approx(math.exp(-math.exp(x - half)), rel=1e-5)
    rowwise = model.predict_cure(rows)["cure"]
    assert np.average(rowwise, weights=w) == pytest.approx(cure.estimate)
    arms = rowwise.groupby(rows["trt"]).first()
    assert arms[1] > arms[0]  # the treatment acts on lambda, and so on the cure fraction
    assert "Cure fraction" in str(result.summary())


def test_no_cure_fraction(data: pd.DataFrame) -> None:
    model = fit(data, kappa="weibull")
    for ask in (model.result_.cure_fraction, lambda: model.predict_cure(data)):
        with pytest.raises(crm.DataError, match="kappa (clearly )?below 0"):
            ask()


def test_follow_up(cured: pd.DataFrame) -> None:
    def say(rows: pd.DataFrame) -> tuple[dict[str, Any], str]:
        result = fit(rows, lam="trt", phi="1").result_
        (found,) = [a for a in result.assumptions if a.name == "follow-up"]
        return dict(result.diagnostics), found.status

    long, status = say(cured)
    time, event = cured["time"].to_numpy(), cured["event"].to_numpy() == 1
    latest, last = time[event].max(), time.max()
    assert 0.9 < long["follow_up_share"] <= 1
    assert status == ("supported" if long["maller_zhou_alpha"] < 0.05 else "doubtful")
    assert long["censored_after_last_event"] == (time > latest).sum()
    late = (event & (time > 2 * latest - last)).sum()
    assert long["maller_zhou_alpha"] == pytest.approx((1 - late / len(time)) ** len(time))
    # The order of the rows is nothing: with more than 1,000 rows a part of them is looked at.
    many = pd.concat([cured] * 4, ignore_index=True)
    shares = [say(many.sort_values("trt", ascending=up))[0]["follow_up_share"] for up in (1, 0)]
    assert shares[0] == pytest.approx(shares[1], abs=0.003)
    assert shares[0] == pytest.approx(long["follow_up_share"], abs=0.003)
    short = cured.assign(event=np.where(time > 0.4, 0, cured["event"]), time=np.minimum(time, 0.4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", crm.CausalRMWarning)
        early, status = say(short) if fit(short, lam="trt").result_.kappa < 0 else ({}, "doubtful")
    assert status == "doubtful" and early.get("follow_up_share", 0.0) < 0.9


# ---------------------------------------------------------------- likelihood-ratio tests


def test_likelihood_ratio(data: pd.DataFrame) -> None:
    free = fit(data, phi="x1 + trt", gamma="trt").result_
    for small, df in (
        (fit(data, phi="x1 + trt").result_, 1),
        (fit(data, phi="x1", kappa="weibull").result_, 3),
        (fit(data, phi="x1 + trt", kappa="loglogistic").result_, 2),
        (fit(data, phi="x1 + trt", kappa="exponential").result_, 3),
        (fit(data, phi="trt", gamma="trt", kappa=0.5).result_, 2),
    ):
        test = free.lr_test(small)
        assert test.df == df and test == small.lr_test(free)
        assert test.statistic == pytest.approx(2 * (free.loglik - small.loglik), abs=1e-9)
        assert test.statistic > 0 and 0 < test.p_value < 1
    shuffled = fit(data.sample(frac=1, random_state=1), phi="x1 + trt").result_
    assert free.lr_test(shuffled).df == 1


def test_likelihood_ratio_where_it_is_not_one(data: pd.DataFrame, cured: pd.DataFrame) -> None:
    def refuses(one: Any, other: Any, why: str) -> None:
        for a, b in ((one, other), (other, one)):
            with pytest.raises(crm.DataError, match=why):
                a.lr_test(b)

    def result(**options: Any) -> Any:
        return quietly(data, **options).result_

    free = result(phi="x1 + trt")
    refuses(free, fit(data.iloc[1:], phi="x1").result_, "different rows")
    changed = data.assign(event=1 - data["event"].where(data["time"] < 1, 1 - data["event"]))
    refuses(free, fit(changed, phi="x1").result_, "different rows")
    refuses(free, result(phi="x1 + x2"), "neither has parameters")
    refuses(free, result(phi="x2"), r"lacks the terms \[\('phi', 'x2'\)\]")
    refuses(free, result(phi="1", lam="trt"), "lacks the terms")
    larger = result(phi="x1 + x2 + trt", kappa=1)
    refuses(larger, result(phi="x1"), "estimates kappa")
    refuses(larger, result(phi="x1", kappa=0), "different values")
    refuses(free, result(phi="x1", kappa="exponential_power"), "boundary")
    refuses(free, result(phi="x1", penalty=0.1), "penalty")
    rows = data.assign(w=1.0)
    refuses(free, fit(rows, RIGHT | {"weights": "w"}, phi="x1").result_, "weights or clusters")
    refuses(free, fit(rows, RIGHT | {"cluster": "cluster"}, phi="x1").result_, "clusters")
    # At kappa = 1 with constant gamma two scales are one, whatever gamma is in the larger fit.
    weibull, both = (
        quietly(cured, **o).result_
        for o in ({"phi": "trt", "kappa": 1}, {"phi": "trt", "lam": "trt"})
    )
    refuses(both, weibull, r"leave \['trt'\] unidentified")
    curved = quietly(cured, phi="trt", lam="trt", gamma="trt").result_
    refuses(curved, weibull, "unidentified")
    plain = quietly(cured, phi="1", kappa="exponential").result_
    refuses(quietly(cured, phi="1", lam="1").result_, plain, "unidentified")
    # At another kappa they are not.
    assert both.lr_test(quietly(cured, phi="trt", kappa=0).result_).df == 2


def test_likelihood_ratio_of_intervals_is_on_the_same_intervals() -> None:
    rows = pd.read_csv(REFERENCE / "interval.csv")
    late = np.where(rows["lower"] < rows["upper"], rows["upper"] * 1.1, rows["upper"])
    wider = rows.assign(upper=late)
    one, other = fit(rows, BETWEEN, phi="x").result_, fit(wider, BETWEEN).result_
    with pytest.raises(crm.DataError, match="different rows"):
        one.lr_test(other)
    assert one.lr_test(fit(rows, BETWEEN).result_).df == 1


# ---------------------------------------------------------------- redundancy


def refused(data: pd.DataFrame, words: list[str], **options: Any) -> None:
    with pytest.raises(crm.IdentificationError) as caught:
        quietly(data, **options)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_redundant_scales_are_refused(data: pd.DataFrame) -> None:
    weibull: dict[str, Any] = {"kappa": "weibull"}
    refused(data, ["phi: x1", "lam: x1"], phi="x1 + trt", lam="x1", **weibull)
    refused(data, ["phi: Intercept", "lam: Intercept"], phi="1", lam="1", **weibull)
    refused(data, ["phi: Intercept", "lam: Intercept"], phi="trt", lam="1 + x1", **weibull)
    refused(data, ["phi: x1", "lam: x2"], phi="x1 + x2", lam="x1 + x2", **weibull)
    refused(data, ["phi: x1", "lam: I(2 * x1)"], phi="x1", lam="I(2 * x1)", kappa="exponential")
    # With gamma by the same groups every group has a Weibull of its own: still one scale.
    refused(data, ["phi", "lam"], phi="trt", lam="1 + trt", gamma="trt", **weibull)
    # Columns of one formula that depend on each other, constant ones among them.
    refused(data, ["phi", "x1", "I(3 * x1)"], phi="x1 + I(3 * x1)")
    refused(data.assign(z=2.0), ["'z' is constant"], gamma="z")
    # Where gamma varies freely, or kappa is another number, both scales have their say.
    assert quietly(data, phi="x1", lam="x2", kappa="weibull").result_.n_params == 4
    assert quietly(data, phi="trt", lam="trt", kappa=0.0).result_.n_params == 4


def test_a_rare_level_is_not_taken_for_redundancy() -> None:
    data = make_survival(40_000, rng=3).data
    rare = np.zeros(len(data), dtype=int)
    rare[np.flatnonzero(data["event"])[7::5000]] = 1  # a sample of 2,000 rows hardly has one
    group = np.where(rare, "c", np.where(data["x1"] > 0, "b", "a"))
    result = fit(data.assign(g=group), phi="x2", lam="g", kappa="weibull").result_
    assert result.term[2:4] == ("g[T.b]", "g[T.c]") and np.abs(result.estimates).max() < 5


def test_nearly_redundant_scales_warn() -> None:
    data = make_survival(600, kappa=1.0, rng=2).data
    for options in ({"phi": "x1", "lam": "x1"}, {"phi": "x1", "lam": "x1", "kappa": 1.0001}):
        with pytest.warns(crm.IdentificationWarning, match=r"phi: x1.*lam: x1.*near 1") as caught:
            result = fit(data, **options).result_
        assert result.warnings == tuple(str(w.message) for w in caught)
        assert result.diagnostics["condition_number"] > 1e5


# ---------------------------------------------------------------- the ends of kappa's range


def test_kappa_runs_to_infinity() -> None:
    rows = pd.read_csv(REFERENCE / "left.csv")
    with pytest.warns(crm.IdentificationWarning, match=r"end of its range \(infinity\)"):
        result = fit(rows, BETWEEN, phi="x").result_
    limit = fit(rows, BETWEEN, phi="x", kappa="exponential_power").result_
    assert result.loglik == pytest.approx(limit.loglik, abs=1e-6)
    np.testing.assert_allclose(result.estimates[:3], limit.estimates, atol=1e-4)
    row = result.to_frame().iloc[-1]
    assert row["conf_low"] == -1.0 and row["conf_high"] == math.inf
    assert "infinity" in str(result.summary())


def test_kappa_runs_to_minus_one() -> None:
    rng = np.random.default_rng(3)
    n = 400
    early = rng.random(n) < 0.03  # a plateau from early on: nobody has the event any more
    t = np.where(early, rng.weibull(1.5, n), np.inf)
    rows = pd.DataFrame({"time": np.minimum(t, 5.0), "event": (t < 5).astype(int)})
    with pytest.warns(crm.IdentificationWarning) as caught:
        try:
            fit(rows, lam="1")
        except crm.IdentificationError as error:
            assert "kappa" in str(error)
    assert any(re.search(r"end of its range \(-1\)", str(w.message)) for w in caught)


# ---------------------------------------------------------------- separation


@pytest.mark.parametrize(
    "options",
    [
        {"phi": "g"}, {"phi": "g", "kappa": "weibull"}, {"phi": "1", "lam": "g"},
        {"phi": "g", "gamma": "g"}, {"phi": "g + x1", "kappa": "loglogistic"},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("rare", [False, True])
def test_a_level_without_events(data: pd.DataFrame, options: dict[str, Any], rare: bool) -> None:
    where = np.arange(len(data)) < 3 if rare else np.arange(len(data)) % 5 == 0
    rows = data.assign(g=np.where(where, "b", "a"), event=np.where(where, 0, data["event"]))
    name = "lam" if "lam" in options else "phi"
    with pytest.warns(crm.IdentificationWarning, match="no finite estimate") as caught:
        result = fit(rows, **options).result_
    message = str(caught[0].message)
    assert f"{name}: g[T.b]" in message and "nobody has an event" in message
    assert "x1" not in message and "Intercept" not in message
    # The rest is what it would be without the level; a penalty makes the level finite.
    if "x1" not in options["phi"]:
        rest = fit(rows[~where], kappa=options.get("kappa", "free")).result_
        assert result.estimates[0] == pytest.approx(rest.estimates[0], abs=1e-4)
    shrunk = fit(rows, **options, penalty=0.01).result_
    assert not shrunk.warnings and np.abs(shrunk.estimates).max() < 10


def test_one_lonely_row_in_a_large_table() -> None:
    data = make_survival(100_000, rng=6).data
    rows = data.assign(g=np.where(np.arange(len(data)) == 77, "b", "a"))
    rows.loc[77, "event"] = 0
    with pytest.warns(crm.IdentificationWarning, match=r"finite estimate of \[.phi: g\[T.b\].\]:"):
        fit(rows, phi="g + x1")
    rows.loc[77, "event"] = 1  # with an event it has an estimate, if a poor one
    assert not fit(rows, phi="g + x1").result_.warnings


def test_few_events_are_no_separation() -> None:
    data = make_survival(200, rng=8).data
    rows = data.assign(g=np.where(np.arange(200) % 4 == 0, "b", "a"))
    events = np.flatnonzero((rows["g"] == "b") & (rows["event"] == 1))
    rows.loc[events[1:], "event"] = 0  # one event is left in the level
    result = fit(rows, phi="g", kappa="weibull").result_
    assert not result.warnings and result.std_error[1] < 2


# ---------------------------------------------------------------- degenerate data


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (lambda d: d.iloc[:1].assign(event=1), {}, "1 rows and 3 parameters"),
        (lambda d: d.iloc[:2].assign(event=1), {}, "2 rows and 3 parameters"),
        (lambda d: d.assign(event=0), {}, "'event', but all 300 rows are censored"),
        (lambda d: d.assign(time=3.0, event=1), {}, "gamma"),
        (lambda d: d.assign(time=3.0, event=1), {"kappa": "weibull"}, "gamma"),
        (lambda d: d.assign(event=[1] + [0] * 299), {}, "separate|information|range"),
    ],
)
def test_too_little_data(data: pd.DataFrame, change: Any, options: Any, words: str) -> None:
    with pytest.raises(crm.IdentificationError, match=words):
        quietly(change(data), **options)


def test_least_data() -> None:
    one = pd.DataFrame({"time": [2.0], "event": [1]})
    result = fit(one, kappa="exponential").result_
    assert result.estimates[0] == pytest.approx(-math.log(2.0)) and result.std_error[0] == 1.0
    # Rate of an exponential: events over time at risk; its standard error one over root d.
    data = make_survival(50, rng=2).data
    rate = math.log(data["event"].sum() / data["time"].sum())
    result = fit(data, kappa="exponential").result_
    assert result.estimates[0] == pytest.approx(rate, abs=1e-6)
    assert result.std_error[0] == pytest.approx(data["event"].sum() ** -0.5, rel=1e-5)


def test_awkward_scales_do_not_break_a_fit() -> None:
    rng = np.random.default_rng(1)
    for time in (
        np.exp(rng.normal(0, 5, 200)), rng.normal(10, 0.1, 200), rng.weibull(2, 200) * 1e60,
        rng.weibull(0.5, 200) * 1e-60, rng.pareto(0.3, 200) + 1e-9,
    ):  # fmt: skip
        result = fit(pd.DataFrame({"time": time, "event": 1})).result_
        assert np.isfinite(result.estimates).all() and (result.std_error < 1).all()
        assert result.diagnostics["converged"]


def test_real_data_are_fitted_without_a_doubt() -> None:
    result = fit(load_gbsg2(), phi="hormone + nodes + tumor_grade", gamma="hormone").result_
    assert not result.warnings and result.diagnostics["condition_number"] < 1e4
    names = {a.name for a in result.assumptions}
    assert {"distribution", "covariates", "censoring", "independence"} <= names


def test_a_cure_fraction_too_small_for_a_double() -> None:
    rng = np.random.default_rng(3)
    n = 400
    trt = rng.integers(0, 2, n)
    t = rng.exponential(size=n) ** 0.8 * np.exp(0.3 * trt)
    rows = pd.DataFrame({"time": t, "event": 1, "trt": trt})
    result = crm.SurvivalRegression(phi="trt", kappa=-1e-4).fit(rows, time="time", event="event")
    assert result.result_.cure is None
    assert "Cure fraction" not in str(result.summary())
    with pytest.raises(crm.DataError, match="clearly below 0"):
        result.result_.cure_fraction()
