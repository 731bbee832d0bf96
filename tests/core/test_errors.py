from __future__ import annotations

import inspect
import pickle
import warnings
from typing import Any

import pytest

import causalrm
from causalrm.core import errors
from causalrm.core.errors import CausalRMError, CausalRMWarning, require, warn

ERRORS = {
    "DataError": ValueError,
    "IdentificationError": ValueError,
    "ConvergenceError": RuntimeError,
    "BackendError": RuntimeError,
    "MissingDependencyError": ImportError,
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_python_s_own_too(name: str) -> None:
    kind = getattr(causalrm, name)
    assert issubclass(kind, CausalRMError) and issubclass(kind, ERRORS[name])
    with pytest.raises(ERRORS[name], match="what was seen"):
        raise kind("what was seen")
    again = pickle.loads(pickle.dumps(kind("what was seen")))  # as it comes back from a worker
    assert type(again) is kind and str(again) == "what was seen"


@pytest.mark.parametrize("name", ["ConvergenceWarning", "IdentificationWarning"])
def test_warnings_have_one_root(name: str) -> None:
    assert issubclass(getattr(causalrm, name), CausalRMWarning)
    assert issubclass(CausalRMWarning, UserWarning)


def test_warnings_point_to_the_caller_outside_the_package() -> None:
    inner = compile("warn('too few', category, log)", errors.__file__, "exec")
    outer = compile("exec(inner)", errors.__file__.replace("errors", "frame"), "exec")
    log: list[str] = []
    names = {"inner": inner, "warn": warn, "log": log, "category": errors.IdentificationWarning}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exec(outer, names | globals())  # the line to which the warning must point
        line = inspect.currentframe().f_lineno - 1  # type: ignore[union-attr]
    (record,) = caught
    assert record.category is errors.IdentificationWarning and str(record.message) == "too few"
    assert (record.filename, record.lineno) == (__file__, line)
    assert log == ["too few"]


def test_an_estimator_s_warning_points_to_fit() -> None:
    frame = causalrm.datasets.load_gbsg2()
    with pytest.warns(errors.IdentificationWarning) as caught:
        causalrm.SurvivalRegression(phi=None, lam="1 + hormone", kappa=2.0).fit(
            frame, time="time", event="event"
        )
    assert {record.filename for record in caught} == {__file__}


def test_the_log_keeps_what_a_filter_hides() -> None:
    log: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warn("first", log=log)
        warn("second", errors.ConvergenceWarning, log)
        warn("third")
    assert log == ["first", "second"]
    with pytest.warns(CausalRMWarning, match="fourth"):
        warn("fourth")


def test_optional_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert require("json.decoder", "any").__name__ == "json.decoder"

    def absent(name: str, *args: Any) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(errors.importlib, "import_module", absent)
    with pytest.raises(
        causalrm.MissingDependencyError,
        match=r"the package 'polars', which is not installed.*pip install 'causalrm\[polars\]'",
    ) as caught:
        require("polars.dataframe", "polars")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
