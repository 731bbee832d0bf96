from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from causalrm import DataError, Estimate, IdentificationError, Result, SurvivalResult
from causalrm.core import store
from causalrm.core.result import Assumption, LikelihoodResult, Scale, Test, versions

TERMS = (("phi", "Intercept"), ("phi", "C(g)[T.b]"), ("gamma", "C(g)[T.b]"), ("kappa", "kappa"))
ROOT = np.array([[0.2, 0, 0, 0], [0.05, 0.3, 0, 0], [0.01, -0.1, 0.15, 0], [0, 0.02, 0.03, 0.1]])


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Fit(LikelihoodResult):
    extra: Any = None

    def _scales(self) -> Mapping[str, Scale]:
        return {"kappa": Scale(math.expm1, math.exp)}


def fit(**changes: Any) -> Fit:
    model = ROOT @ ROOT.T
    fields: dict[str, Any] = {
        "call": {"estimator": "Toy", "options": {"phi": "g"}, "roles": {"time": "t"}},
        "n_obs": 120,
        "parameter": tuple(p for p, _ in TERMS),
        "term": tuple(t for _, t in TERMS),
        "estimates": np.array([0.5, -1.25, 0.0625, math.log(1.5)]),
        "covariances": {"model": model, "cluster": 1.5 * model},
        "covariance": "model",
        "loglik": -81.5,
        "n_params": 4,
        "df_resid": 7.0,
    }
    return Fit(**fields | changes)


# ---------------------------------------------------------------- numbers


def test_frame_matches_scipy() -> None:
    result, frame = fit(), fit().to_frame(0.9)
    z = stats.norm.ppf(0.95)
    se = np.sqrt(np.diag(ROOT @ ROOT.T))
    assert frame.columns.tolist() == [
        "parameter", "term", "estimate", "std_error", "statistic", "p_value", "conf_low",
        "conf_high",
    ]  # fmt: skip
    assert list(zip(frame.parameter, frame.term, strict=True)) == list(TERMS)
    np.testing.assert_allclose(frame.std_error[:3], se[:3])
    np.testing.assert_allclose(frame.conf_low[:3], result.estimates[:3] - z * se[:3])
    np.testing.assert_allclose(
        frame.p_value[:3], 2 * stats.norm.sf(np.abs(result.estimates / se))[:3]
    )


def test_scalar_parameter_on_its_natural_scale() -> None:
    row, nu, se = fit().to_frame().iloc[3], math.log(1.5), fit().std_error[3]
    assert row.estimate == pytest.approx(0.5)
    assert row.std_error == pytest.approx(1.5 * se)
    z = stats.norm.ppf(0.975)
    assert row.conf_low == pytest.approx(math.expm1(nu - z * se))
    assert row.conf_high == pytest.approx(math.expm1(nu + z * se))
    assert math.isnan(row.p_value) and math.isnan(row.statistic)


def test_decreasing_scale_keeps_the_interval_in_order() -> None:
    class Reversed(Fit):
        def _scales(self) -> Mapping[str, Scale]:
            return {"kappa": Scale(lambda x: math.exp(-x), lambda x: -math.exp(-x))}

    row = Reversed(**{f.name: getattr(fit(), f.name) for f in dataclasses.fields(Fit)}).to_frame()
    last = row.iloc[3]
    assert last.conf_low < last.estimate < last.conf_high and last.std_error > 0


def test_cluster_covariance_uses_t() -> None:
    frame = fit().with_covariance("cluster").to_frame()
    se = math.sqrt(1.5) * fit().std_error
    np.testing.assert_allclose(frame.std_error[:3], se[:3])
    np.testing.assert_allclose(
        frame.conf_high[:3], fit().estimates[:3] + stats.t.ppf(0.975, 7) * se[:3]
    )
    np.testing.assert_allclose(
        frame.p_value[:3], 2 * stats.t.sf(np.abs(fit().estimates / se), 7)[:3]
    )


def test_unknown_covariance_names_those_there_are() -> None:
    with pytest.raises(DataError, match="no 'robust' covariance.*'model', 'cluster'"):
        fit().with_covariance("robust")
    with pytest.raises(DataError, match="no 'robust'"):
        fit(covariance="robust")


def test_missing_and_zero_standard_errors() -> None:
    v = np.diag([0.04, math.nan, 0.0, -1e-12])
    frame = fit(covariances={"model": v}).to_frame()
    assert frame.std_error.isna().tolist() == [False, True, False, True]
    assert frame.statistic[2] == math.inf and frame.p_value[2] == 0
    assert frame.loc[1, ["conf_low", "conf_high", "p_value"]].isna().all()


def test_criteria() -> None:
    assert fit().aic == 163 + 8
    assert fit().bic == pytest.approx(163 + 4 * math.log(120))


def test_labelled_covariance() -> None:
    cov = fit().cov("cluster")
    key = ("phi", "Intercept"), ("gamma", "C(g)[T.b]")
    assert cov.loc[key] == pytest.approx(1.5 * 0.2 * 0.01)
    cov.iloc[0, 0] = 5.0
    assert fit().cov().iloc[0, 0] == pytest.approx(0.04)


def test_contrast() -> None:
    b = ROOT @ ROOT.T
    estimate = fit().contrast({("phi", "Intercept"): 1, ("phi", "C(g)[T.b]"): -2}, 0.9, "gap")
    se = math.sqrt(b[0, 0] + 4 * b[1, 1] - 4 * b[0, 1])
    assert float(estimate) == estimate.estimate == 3.0
    assert estimate.std_error == pytest.approx(se)
    assert estimate.conf_low == pytest.approx(3 - stats.norm.ppf(0.95) * se)
    assert estimate.p_value == pytest.approx(2 * stats.norm.sf(3 / se))
    assert fit().contrast({"Intercept": 1}).estimate == 0.5
    with pytest.raises(DataError, match="several coefficients.*'phi'.*'gamma'"):
        fit().contrast({"C(g)[T.b]": 1})
    with pytest.raises(DataError, match="'age' names no coefficient.*'Intercept'"):
        fit().contrast({"age": 1})
    with pytest.raises(DataError, match=r"\{\(parameter, term\): weight\}.*but saw 'age'"):
        fit().contrast("age")  # type: ignore[arg-type]


def test_contrast_where_other_variances_are_undefined() -> None:
    v = np.diag([0.04, math.nan, 0.01, 0.01])
    v[0, 1] = v[1, 0] = math.nan
    assert fit(covariances={"model": v}).contrast({"Intercept": 2}).std_error == 0.4


def test_wald_test() -> None:
    b, v = fit().estimates[1:3], (ROOT @ ROOT.T)[1:3, 1:3]
    w = b @ np.linalg.inv(v) @ b
    test = fit().wald_test("C(g)")
    assert (test.df, test.df_resid) == (2, None)
    assert test.statistic == pytest.approx(w)
    assert test.p_value == pytest.approx(stats.chi2.sf(w, 2))
    same = fit().wald_test([("gamma", "C(g)[T.b]"), ("phi", "C(g)[T.b]")])
    assert same.statistic == test.statistic
    clustered = fit().with_covariance("cluster").wald_test("C(g)")
    assert clustered.statistic == pytest.approx(w / 1.5 / 2)
    assert clustered.p_value == pytest.approx(stats.f.sf(w / 3, 2, 7))
    assert str(clustered).startswith("C(g): F(2, 7) = ")
    with pytest.raises(DataError, match="'h' names no coefficient"):
        fit().wald_test("h")
    with pytest.raises(DataError, match="at least one"):
        fit().wald_test([])


@pytest.mark.parametrize("v", [np.full((4, 4), math.nan), np.zeros((4, 4))])
def test_wald_test_without_a_covariance(v: np.ndarray) -> None:
    with pytest.raises(IdentificationError, match="undefined or singular"):
        fit(covariances={"model": v}).wald_test("C(g)")


@pytest.mark.parametrize("level", [0, 1, 95, -0.1, math.nan])
def test_bad_level(level: float) -> None:
    with pytest.raises(DataError, match="level must lie between 0 and 1"):
        fit().to_frame(level)


def test_shapes_are_checked() -> None:
    with pytest.raises(DataError, match="4 estimates need 4 labels"):
        fit(term=("a", "b"))


def test_single_numbers() -> None:
    estimate = Estimate(-0.123456, 0.0471, -0.21, -0.03, name="ece", p_value=0.00001)
    assert str(estimate) == (
        "ece: -0.123, std. error 0.047, 95% interval [-0.210, -0.030], p <0.001"
    )
    assert str(Estimate(3, math.nan, math.nan, math.nan)) == "estimate: 3.0"
    row = estimate.to_frame().iloc[0]
    assert row.statistic == pytest.approx(-0.123456 / 0.0471) and row.term == "ece"
    assert str(Test("g", 3.456, 2, 0.1776)) == "g: chi2(2) = 3.46, p = 0.178"


# ---------------------------------------------------------------- immutability


def test_a_result_cannot_be_changed() -> None:
    estimates = np.arange(4.0)
    options = {"phi": {"x": [1, 2]}}
    result = fit(estimates=estimates, call={"options": options}, diagnostics={"a": np.ones(2)})
    estimates[0] = 99
    options["phi"]["x"] = []
    assert result.estimates[0] == 0 and result.call["options"]["phi"]["x"] == [1, 2]
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.n_obs = 3  # type: ignore[misc]
    for again in (result, pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
        for array in (again.estimates, again.covariances["model"], again.diagnostics["a"]):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1
        for change in (
            lambda d: d.update(a=1), lambda d: d.pop("a"), lambda d: d.clear(),
            lambda d: d.__setitem__("a", 1), lambda d: d.setdefault("b", 1),
        ):  # fmt: skip
            with pytest.raises(TypeError, match="cannot be changed"):
                change(again.diagnostics)


def test_repr_is_short() -> None:
    assert repr(fit()) == "<Fit of Toy: n_obs=120, covariance='model', loglik=-81.5>"


def test_versions() -> None:
    assert {"causalrm", "python", "numpy", "scipy", "pandas"} <= set(versions())


# ---------------------------------------------------------------- JSON


def back(value: Any) -> Any:
    text = json.dumps(store.encode(value), allow_nan=False)
    return store.decode(json.loads(text))


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and repr(a.tolist()) == repr(b.tolist())
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and repr(a) == repr(b)


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    | st.floats(width=32).map(np.float32) | st.integers(0, 255).map(np.uint8)
    | st.booleans().map(np.bool_)
)  # fmt: skip
keys = st.text() | st.integers() | st.booleans() | st.tuples(st.text(), st.integers())
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(keys, inner),
    max_leaves=12,
)


@given(values)
def test_json_keeps_every_value_and_type(value: Any) -> None:
    assert same(value, back(value))


@pytest.mark.parametrize(
    "array",
    [
        np.array([1.5, math.nan, math.inf, -math.inf, -0.0, 1e-310]),
        np.array([], dtype=np.float32),
        np.array(3.5),
        np.arange(6).reshape(2, 3)[:, ::-1].T,
        np.array([True, False]),
        np.array(["a", "ü ~", ""]),
        np.array([2**63], dtype=np.uint64),
        np.array([(1, "a"), None, 2.0, {"~x": 1}, [1]], dtype=object),
        np.array(["2020-01-01", "NaT"], dtype="M8[us]"),
        np.array([1, 2], dtype="m8[s]"),
        np.array([1.0, 2.0], dtype=">f8"),
    ],
)
def test_json_keeps_arrays(array: np.ndarray) -> None:
    assert same(array, back(array))


INDEXES = [
    pd.RangeIndex(3, 9, 2, name="i"),
    pd.Index([3, 1, 1]),
    pd.Index(["a", "b", None], name=("x", 1)),
    pd.Index([0.5, math.nan, math.inf]),
    pd.Index(["x", 1, 2.5], dtype=object),
    pd.MultiIndex.from_tuples([("a", 1), ("b", 2), ("a", 3)], names=["g", None]),
    pd.date_range("2024-03-30", periods=3, freq="12h", tz="Europe/Berlin"),
    pd.DatetimeIndex(["2024-01-01", "NaT", "2020-05-05T01:02:03.000000004"]),
    pd.TimedeltaIndex(np.array([1, 2, 3], "m8[h]").astype("m8[ns]"), freq="infer"),
    pd.period_range("2024Q1", periods=3, freq="Q"),
    pd.CategoricalIndex(["b", "a", "b"], categories=["b", "a", "c"], ordered=True),
    pd.IntervalIndex.from_breaks([0.0, 1.0, 2.5, math.inf], closed="left"),
    pd.Index([1, 2, None], dtype="Int64"),
]


@pytest.mark.parametrize("index", INDEXES, ids=lambda i: type(i).__name__)
def test_json_keeps_frames_with_any_index(index: pd.Index) -> None:
    frame = pd.DataFrame(
        {
            "x": [1.5, math.nan, math.inf],
            "n": [1, 2, 3],
            "b": [True, False, True],
            "s": ["a", None, "c"],
            "c": pd.Categorical(["u", None, "v"], categories=["v", "u"]),
            "t": pd.to_datetime(["2020-01-01", None, "2021-01-01"]),
            "i": pd.array([1, None, 3], dtype="Int64"),
            "str": pd.array(["a", None, "c"], dtype="string"),
        },
        index=index,
    )
    pd.testing.assert_frame_equal(back(frame), frame, check_freq=True)
    pd.testing.assert_frame_equal(back(frame.T), frame.T, check_freq=True)
    pd.testing.assert_series_equal(back(frame["x"]), frame["x"])
    pd.testing.assert_index_equal(back(index), index, exact=True)


def test_json_keeps_odd_frames() -> None:
    for frame in (
        pd.DataFrame(),
        pd.DataFrame({"a": np.array([], dtype=int)}),
        pd.DataFrame(index=["a", "b"]),
        pd.DataFrame([[1, 2.0]], columns=["a", "a"]),
    ):
        pd.testing.assert_frame_equal(back(frame), frame)


def test_json_keeps_records() -> None:
    record = Assumption("a", "b", "c", "supported")
    number = Estimate(1, 2, 3, math.inf, p_value=0.5)
    assert back((record, number)) == (record, number)


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, 1j, np.array([1j]), len, np.random.default_rng(0), b"x", Scale]
)
def test_what_json_cannot_hold(value: object) -> None:
    assert not store.encodable({"a": [value]})
    with pytest.raises(DataError, match="cannot be stored"):
        store.encode(value)


def test_result_round_trip(tmp_path: Path) -> None:
    original = fit(
        extra={1: (np.int64(3), [pd.Timestamp("2020-01-01", tz="UTC")]), "~": math.nan},
        entropy=2**100,
        assumptions=(Assumption("a", "b", "c"),),
        warnings=("w",),
        covariances={"model": np.full((4, 4), math.nan)},
    )
    path = tmp_path / "fit.json"
    assert original.to_json(path) == path.read_text()
    for restored in (
        Fit.from_json(path),
        Fit.from_json(str(path)),
        Fit.from_json(path.read_text()),
    ):
        pd.testing.assert_frame_equal(restored.to_frame(), original.to_frame(), check_exact=True)
        assert restored.to_json() == original.to_json()
        assert restored.entropy == 2**100 and restored.assumptions == original.assumptions
        assert list(restored.extra) == [1, "~"]
        assert str(restored.summary()) == str(original.summary())


def content(**changes: Any) -> str:
    return json.dumps(json.loads(fit().to_json()) | changes)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("no such file.json", "no such file.json"),
        ("{", "written by to_json"),
        ("{}", "written by to_json"),
        (content(schema=2), "schema 2.*reads schema 1.*version of causalrm that wrote it"),
        (content(**{"class": "Fitt"}), "'Fitt' is not a public class"),
        (content(**{"class": ["os"]}), "not a public class"),
        (content(**{"class": "DataError"}), "Expected a Result in the text; found a DataError"),
        (content(**{"class": "Table"}), "found a Table"),
        (content(**{"class": "Result"}), "incomplete or damaged"),
        (content(**{"class": "SurvivalResult"}), "SurvivalResult in the text is incomplete"),
        (content(**{"class": "SurvivalResult", "fields": {"call": {"~run": 1}}}), "unknown mark"),
        (content(fields=3), "written by to_json"),
    ],
)
def test_damaged_files(text: str, match: str) -> None:
    with pytest.raises(DataError, match=match):
        Result.from_json(text)


def test_only_the_class_asked_for() -> None:
    with pytest.raises(DataError, match="not a public class"):
        Result.from_json(fit().to_json())
    with pytest.raises(DataError, match="not a public class"):
        SurvivalResult.from_json(fit().to_json())


def test_a_file_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("trap", "trap.Result", "os.system", "builtins.dict", "np"):
        with pytest.raises(DataError, match="not a public class"):
            Result.from_json(content(**{"class": name}))


# ---------------------------------------------------------------- summary


def test_summary_says_everything() -> None:
    text = str(
        fit(
            assumptions=(Assumption("Independence", "Rows are.", "None.", "doubtful"),),
            warnings=("Few clusters.",),
        ).summary(0.9)
    )
    for part in (
        "Toy", "phi = g", "time = t", "120", "90% interval", "C(g)[T.b]", "kappa", "-81.5000",
        "171.000", "model, normal quantiles; also kept: cluster", "Independence (doubtful)",
        "Rows are. Diagnostic: None.", "Few clusters.",
    ):  # fmt: skip
        assert part in text, part
    assert max(map(len, text.splitlines())) <= 88
    assert "t(7) quantiles" in str(fit().with_covariance("cluster").summary())
    assert fit()._repr_html_() == fit().summary().to_html()
