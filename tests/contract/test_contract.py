"""What every public estimator promises, whatever it estimates."""

from __future__ import annotations

import importlib
import inspect
import math
import pickle
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from sklearn.base import clone

import causalrm as crm
from tests.contract.bad_inputs import BAD, BAD_ROWS, INDEXES, REMEDY, Bad
from tests.contract.cases import CASES, Case

pytestmark = pytest.mark.parametrize("case", CASES, ids=str)


def agree(a: pd.DataFrame, b: pd.DataFrame, tolerance: float) -> None:
    """Compare frames: labels exactly, numbers to a tolerance relative to their column."""
    pd.testing.assert_index_equal(a.index, b.index)
    assert a.columns.tolist() == b.columns.tolist()
    for j, name in enumerate(a.columns):
        x, y = a.iloc[:, j], b.iloc[:, j]
        if pd.api.types.is_numeric_dtype(x):
            size = float(np.nanmax(np.abs(x.to_numpy(float)), initial=0.0))
            np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance * size, err_msg=name)
        else:
            assert x.tolist() == y.tolist()


def test_is_public_with_a_result(case: Case) -> None:
    fit = case.fit()
    assert getattr(crm, type(fit).__name__) is type(fit)
    assert isinstance(fit, crm.Estimator) and isinstance(fit.result_, crm.Result)
    assert fit.result_.call["estimator"] == type(fit).__name__
    assert fit.result_.n_obs == len(case.make()[1])
    assert fit.result_.assumptions, "a result states its assumptions"
    for assumption in fit.result_.assumptions:
        assert assumption.statement and assumption.diagnostic
        assert assumption.status in {"untested", "supported", "doubtful"}


def test_result_frame(case: Case) -> None:
    fit = case.fit()
    frame, wide = fit.to_frame(), fit.to_frame(0.99)
    columns = [c for c in frame.columns if c not in ("parameter", "group")]
    assert columns[:7] == [
        "term", "estimate", "std_error", "statistic", "p_value", "conf_low", "conf_high",
    ]  # fmt: skip
    assert frame["estimate"].notna().all()
    known = frame["conf_low"].notna()
    assert (frame["conf_low"] <= frame["estimate"])[known].all()
    assert (frame["estimate"] <= frame["conf_high"])[known].all()
    assert (wide["conf_low"] < frame["conf_low"])[known].all()
    with pytest.raises(crm.DataError, match="level"):
        fit.to_frame(95)


def test_constructor_only_stores(case: Case) -> None:
    estimator = case.make()[0]
    names = set(inspect.signature(type(estimator).__init__).parameters) - {"self"}
    assert set(estimator.get_params(deep=False)) == names
    assert set(vars(estimator)) == names
    fresh = clone(estimator)
    assert fresh is not estimator and repr(fresh) == repr(estimator)
    assert estimator.set_params(**fresh.get_params()) is estimator
    with pytest.raises(ValueError, match="Invalid parameter"):
        estimator.set_params(no_such_option=1)


def test_unfitted(case: Case) -> None:
    estimator, frame, _ = case.make()
    for use in (
        estimator.summary, estimator.to_frame, lambda: estimator.plot,
        lambda: case.predict(estimator, frame),
    ):  # fmt: skip
        with pytest.raises(crm.CausalRMError, match="call fit first"):
            use()


def test_fit_returns_the_estimator(case: Case) -> None:
    estimator, frame, roles = case.make()
    assert estimator.fit(frame, **roles) is estimator
    assert not hasattr(clone(estimator), "result_")


def test_roles_are_keywords(case: Case) -> None:
    parameters = list(inspect.signature(type(case.make()[0]).fit).parameters.values())[1:]
    assert parameters[0].name == "data"
    # A second table follows the first by position; roles are columns, and keywords.
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters[1:] if p.name != "augmented")


def test_pickle(case: Case) -> None:
    fit, frame = case.fit(), case.make()[1]
    again = pickle.loads(pickle.dumps(fit))
    pd.testing.assert_frame_equal(again.to_frame(), fit.to_frame(), check_exact=True)
    pd.testing.assert_frame_equal(
        case.predict(again, frame), case.predict(fit, frame), check_exact=True
    )


def test_json(case: Case) -> None:
    fit, frame = case.fit(), case.make()[1]
    text = fit.result_.to_json()
    result = crm.Result.from_json(text)
    assert type(result) is type(fit.result_) and result.to_json() == text
    pd.testing.assert_frame_equal(result.to_frame(0.9), fit.to_frame(0.9), check_exact=True)
    assert str(result.summary()) == str(fit.summary())
    for kind in (type(fit), crm.Estimator):
        restored = kind.from_result(result)
        assert restored.get_params() == fit.get_params()
        agree(case.predict(restored, frame), case.predict(fit, frame), 1e-12)


def test_result_holds_no_rows(case: Case) -> None:
    frame = case.make()[1]
    many = pd.concat([frame] * 40, ignore_index=True)
    small, large = case.fit().result_.to_json(), case.fit(many).result_.to_json()
    assert len(large) < len(small) + 200_000  # plots may keep up to 1,000 points per curve
    assert len(pickle.dumps(case.fit(many).result_)) < 400_000


def test_input_is_left_alone(case: Case) -> None:
    estimator, frame, roles = case.make()
    before = frame.copy(deep=True)
    for column in frame:  # fails loudly where a view is written to
        frame[column].to_numpy().flags.writeable = False
    fit = estimator.fit(frame, **roles)
    case.predict(fit, frame)
    pd.testing.assert_frame_equal(frame, before, check_exact=True)


def test_a_second_fit_is_the_same(case: Case) -> None:
    estimator, frame, roles = case.make()
    if "rng" in estimator.get_params():
        estimator.set_params(rng=7)
    first = clone(estimator).fit(frame, **roles)
    again = estimator.fit(frame, **roles).fit(frame, **roles)
    pd.testing.assert_frame_equal(again.to_frame(), first.to_frame(), check_exact=True)
    pd.testing.assert_frame_equal(
        case.predict(again, frame), case.predict(first, frame), check_exact=True
    )


@pytest.mark.parametrize("library", ["polars", "pyarrow"])
def test_other_data_frames(case: Case, library: str) -> None:
    fit, frame = case.fit(), case.make()[1]
    if library == "polars":
        other: Any = importlib.import_module("polars").from_pandas(frame)
    else:
        other = importlib.import_module("pyarrow").Table.from_pandas(frame, preserve_index=False)
    again = case.fit(other)
    agree(again.to_frame(), fit.to_frame(), 1e-10)
    agree(case.predict(again, other), case.predict(fit, frame), 1e-10)


def test_threads_and_jobs_do_not_matter(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    estimator, frame, roles = case.make()
    many = pd.concat([frame] * (20_000 // len(frame)), ignore_index=True)  # several blocks
    frames, predictions = [], []
    for n in (1, 2):
        monkeypatch.setenv("CAUSALRM_NUM_THREADS", str(n))
        if "n_jobs" in estimator.get_params():
            estimator.set_params(n_jobs=n)
        fit = clone(estimator).fit(many, **roles)
        frames.append(fit.to_frame())
        predictions.append(case.predict(fit, many))
    pd.testing.assert_frame_equal(*frames, check_exact=True)
    pd.testing.assert_frame_equal(*predictions, check_exact=True)


def test_order_of_rows_does_not_matter(case: Case) -> None:
    fit, frame = case.fit(), case.make()[1]
    shuffled = frame.sample(frac=1, random_state=3)
    if case.permutable:
        again = case.fit(shuffled)
        agree(again.to_frame(), fit.to_frame(), 1e-8)
    predictions = case.predict(fit, shuffled)
    pd.testing.assert_index_equal(predictions.index, shuffled.index)
    agree(predictions.loc[frame.index], case.predict(fit, frame), 1e-12)


@pytest.mark.parametrize("kind", INDEXES)
def test_the_index_does_not_matter(case: Case, kind: str) -> None:
    fit, frame = case.fit(), case.make()[1]
    indexed = frame.set_axis(INDEXES[kind](len(frame)))
    pd.testing.assert_frame_equal(case.fit(indexed).to_frame(), fit.to_frame(), check_exact=True)
    predictions = case.predict(fit, indexed)
    pd.testing.assert_index_equal(predictions.index, indexed.index)
    np.testing.assert_array_equal(predictions.to_numpy(), case.predict(fit, frame).to_numpy())


def test_rows_are_predicted_one_by_one(case: Case) -> None:
    fit, frame = case.fit(), case.make()[1]
    whole = case.predict(fit, frame)
    assert len(whole) == len(frame)
    part = frame.iloc[[5]]
    agree(case.predict(fit, part), whole.iloc[[5]], 1e-12)


def test_summary_and_plot(case: Case) -> None:
    fit = case.fit()
    table = fit.summary(0.9)
    assert isinstance(table, crm.Table) and type(fit).__name__ in str(table)
    assert max(map(len, str(table).splitlines())) <= 88
    assert isinstance(crm.table(fit, fit), crm.Table)
    ax = fit.plot()
    assert isinstance(ax, Axes)
    ax.figure.canvas.draw()
    assert ax.get_xlabel() and ax.get_ylabel() or ax.get_title()
    restored = crm.Result.from_json(fit.result_.to_json())
    assert isinstance(restored.plot(), Axes)  # type: ignore[attr-defined]


# ---------------------------------------------------------------- bad inputs


def columns_of(case: Case, where: str) -> list[str]:
    roles = [c for c in case.numbers if c != case.event]
    return {
        "used": [*case.covariates, *case.numbers, *([case.category] if case.category else [])],
        "design": [*case.covariates, *([case.category] if case.category else [])],
        "covariates": list(case.covariates),
        "numbers": [*case.covariates, *case.numbers],
        "roles": [*roles, *([case.event] if case.event else [])],
        "event": [case.event] if case.event else [],
        "category": [case.category] if case.category else [],
    }[where]


def check_message(error: BaseException, bad: Bad, column: str) -> None:
    message = str(error)
    if bad.names_column:
        assert re.search(rf"\b{re.escape(column)}\b", message), message
    if bad.count is not None:
        assert re.search(rf"\b{bad.count}\b", message), message
    assert re.search(REMEDY, message), f"no remedy in: {message}"


def refuses(case: Case, bad: Bad, column: str, frame: pd.DataFrame, **roles: Any) -> None:
    try:
        fit = case.fit(bad.spoil(frame, column), **roles)
    except crm.CausalRMError as error:
        check_message(error, bad, column)
    else:
        assert bad.may_fit, f"{bad} in {column!r} was accepted"
        assert all(math.isfinite(value) for value in fit.to_frame()["estimate"])


@pytest.mark.parametrize("bad", BAD, ids=str)
@pytest.mark.filterwarnings("ignore::causalrm.CausalRMWarning")
def test_bad_data(case: Case, bad: Bad, subtests: pytest.Subtests) -> None:
    for column in columns_of(case, bad.where):
        with subtests.test(column=column):
            refuses(case, bad, column, case.make()[1])


@pytest.mark.parametrize("bad", BAD_ROWS, ids=str)
def test_bad_rows_to_predict(case: Case, bad: Bad, subtests: pytest.Subtests) -> None:
    fit, frame = case.fit(), case.make()[1]
    for column in columns_of(case, bad.where):
        with subtests.test(column=column):
            with pytest.raises(crm.CausalRMError) as caught:
                case.predict(fit, bad.spoil(frame, column))
            check_message(caught.value, bad, column)


@pytest.mark.parametrize("data", [[1, 2], {"x": [1.0]}, None, np.ones((3, 2)), "no/such.parquet"])
def test_what_is_no_data_frame(case: Case, data: Any) -> None:
    with pytest.raises(crm.DataError, match="data frame|parquet"):
        case.make()[0].fit(data, **case.make()[2])
