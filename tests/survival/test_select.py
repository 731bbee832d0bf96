"""Selection among families and structures: against lifelines, nesting, and what it refuses."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import joblib
import lifelines
import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import stats

from causalrm.core.errors import DataError, IdentificationError
from causalrm.datasets import load_gbsg2, load_lung, make_survival
from causalrm.survival import SurvivalRegression
from causalrm.survival.select import STRUCTURES, SelectionResult, select

RIGHT = {"time": "time", "event": "event"}


@pytest.fixture(scope="module")
def lung() -> pd.DataFrame:
    data = load_lung().dropna(subset=["age", "sex", "ph_ecog"])
    return data.assign(female=(data["sex"] == data["sex"].unique()[1]).astype(int))


@pytest.fixture(scope="module")
def breast() -> pd.DataFrame:
    return load_gbsg2()


@pytest.fixture(scope="module")
def found(breast: pd.DataFrame) -> SelectionResult:
    return select(breast, "hormone + nodes", **RIGHT)


def test_one_row_per_combination(found: SelectionResult, breast: pd.DataFrame) -> None:
    frame = found.to_frame()
    assert len(frame) == 25 == len(found.fits) + len(found.failures)
    fitted = frame[frame["aic"].notna()]
    assert fitted["aic"].is_monotonic_increasing and fitted["delta"].iloc[0] == 0
    np.testing.assert_allclose(fitted["aic"], 2 * fitted["n_params"] - 2 * fitted["loglik"])
    np.testing.assert_allclose(
        fitted["bic"], np.log(len(breast)) * fitted["n_params"] - 2 * fitted["loglik"]
    )
    assert fitted["converged"].all()
    # kappa is fixed, or estimated with its interval
    free = fitted["family"] == "free"
    assert (fitted["kappa_std_error"].notna() == free).all()
    assert (fitted["kappa_low"] < fitted["kappa"])[free].all()
    assert (fitted["kappa_high"] > fitted["kappa"])[free].all()
    assert (fitted["cure"].notna() == (fitted["kappa"] < 0)).all()
    assert set(fitted["hazard"]) == {"increasing", "increasing, then decreasing"}


def test_what_could_not_be_fitted_stands_in_the_table(found: SelectionResult) -> None:
    failed = found.to_frame()[lambda f: f["aic"].isna()].set_index(["family", "structure"])
    assert set(failed.index) == set(found.failures) == {
        ("weibull", "both scales"), ("gompertz", "aft+shape"), ("gompertz", "ph+shape"),
    }  # fmt: skip
    assert "one scale at kappa = 1" in failed["note"]["weibull", "both scales"]
    assert "fixes gamma at 1" in failed["note"]["gompertz", "aft+shape"]
    text = str(found.summary())
    assert text.count("not fitted") == 3 and "one scale at kappa = 1" in " ".join(text.split())


def test_a_row_is_the_fit_that_it_names(found: SelectionResult, breast: pd.DataFrame) -> None:
    formulas = {
        ("free", "aft"): {"phi": "hormone + nodes"},
        ("free", "ph+shape"): {"lam": "hormone + nodes", "gamma": "hormone + nodes"},
        ("burr", "ph"): {"lam": "1 + hormone + nodes", "kappa": "burr"},
        ("gompertz", "both scales"): {
            "phi": "hormone + nodes", "lam": "1 + hormone + nodes", "kappa": "gompertz",
        },
    }  # fmt: skip
    frame = found.to_frame().set_index(["family", "structure"])
    for key, options in formulas.items():
        alone = SurvivalRegression(**options).fit(breast, **RIGHT).result_
        assert frame.loc[key, "loglik"] == pytest.approx(alone.loglik, rel=1e-12)
        np.testing.assert_allclose(found.fits[key].result_.estimates, alone.estimates)
    best = found.best
    assert next(iter(found.fits)) == ("burr", "aft")
    assert best.result_.aic == pytest.approx(frame["aic"].min())
    assert best.predict_survival(breast[:3], 1000).shape == (3, 1)


@pytest.mark.parametrize(
    ("family", "fitter"),
    [("weibull", lifelines.WeibullAFTFitter), ("loglogistic", lifelines.LogLogisticAFTFitter)],
)
def test_aic_of_lifelines(lung: pd.DataFrame, family: str, fitter: Any) -> None:
    columns = ["time", "event", "age", "female", "ph_ecog"]
    data = lung[columns].astype(float)
    frame = select(
        data, ["age", "female", "ph_ecog"], **RIGHT, families=[family],
        structures=["aft", "aft+shape"],
    ).to_frame()  # fmt: skip
    for structure, shape in (("aft", None), ("aft+shape", True)):
        theirs = fitter().fit(data, "time", "event", ancillary=shape)
        ours = frame.set_index("structure").loc[structure]
        assert ours["aic"] == pytest.approx(theirs.AIC_, abs=1e-4)
        assert ours["n_params"] == len(theirs.params_)


def test_larger_models_fit_better(found: SelectionResult, lung: pd.DataFrame) -> None:
    more = select(
        lung, "age + C(sex)", **RIGHT, structures=list(STRUCTURES),
        families=["exponential", "weibull", "loglogistic", "burr", "free", "full", 0.3],
    )  # fmt: skip
    for result in (found, more):
        frame = result.to_frame().set_index(["family", "structure"])
        for t in result.tests.to_dict("records"):
            small, big = (
                frame.loc[(t[f"{s}_family"], t[f"{s}_structure"])] for s in ("small", "large")
            )
            assert big["loglik"] >= small["loglik"] - 1e-6
            assert big["n_params"] - small["n_params"] == t["df"]
            if not t["reason"]:
                statistic = 2 * (big["loglik"] - small["loglik"])
                assert t["statistic"] == pytest.approx(max(statistic, 0), abs=1e-9)
                assert t["p_value"] == pytest.approx(stats.chi2.sf(t["statistic"], t["df"]))
        assert not any("below that of" in note for notes in result.notes.values() for note in notes)
    pairs = set(more.tests[["small_family", "large_family"]].itertuples(index=False, name=None))
    assert {("exponential", "weibull"), ("weibull", "free"), ("burr", "full")} <= pairs
    assert not {("weibull", "burr"), ("free", "weibull"), ("burr", "free")} & pairs
    assert ("kappa = 0.3", "full") in pairs


def test_p_values_of_the_table(found: SelectionResult) -> None:
    frame = found.to_frame().set_index(["family", "structure"])

    def p(small: tuple[str, str], big: tuple[str, str]) -> float:
        gain = 2 * (frame["loglik"][big] - frame["loglik"][small])
        return float(stats.chi2.sf(gain, frame["n_params"][big] - frame["n_params"][small]))

    assert frame["p_family"]["weibull", "ph"] == pytest.approx(p(("weibull", "ph"), ("free", "ph")))
    shaped = p(("free", "aft"), ("free", "aft+shape"))
    assert frame["p_shape"]["free", "aft"] == pytest.approx(shaped)
    # nothing larger in the table
    assert np.isnan(frame["p_family"]["free", "aft"])
    assert np.isnan(frame["p_shape"]["free", "aft+shape"])


def test_invalid_tests_give_their_reason(breast: pd.DataFrame) -> None:
    found = select(
        breast, "hormone", **RIGHT, families=["weibull", "gompertz", "full"], structures=["aft"]
    )
    reasons = found.tests.set_index("small_family")
    assert "unidentified" in reasons["reason"]["weibull"]
    assert "boundary" in reasons["reason"]["gompertz"]
    assert reasons["p_value"].isna().all() and found.to_frame()["p_family"].isna().all()
    # the summary shows it of fits near the best only when they have such a test
    assert "boundary" in str(found.summary()) and "unidentified" in str(found.summary())


@pytest.mark.filterwarnings("ignore:Only 21 clusters")
def test_weights_and_clusters_leave_no_tests(breast: pd.DataFrame) -> None:
    data = breast.assign(w=1 + breast["age"] % 2, g=breast["age"])
    for roles in ({"weights": "w"}, {"cluster": "g"}):
        found = select(
            data, "hormone", **RIGHT, **roles, families=["weibull", "free"], structures=["aft"]
        )
        assert found.tests["reason"].str.contains("pseudo-likelihood").all()
        assert found.assumptions[-1].status == "doubtful"
        assert found.best.result_.covariance == ("robust" if "weights" in roles else "cluster")
        assert "pseudo-likelihood" in str(found.summary())


def test_likelihood_ratio_statistic_is_chi_squared() -> None:
    """A Weibull model is right: p-values of kappa = 1 are uniform."""
    p = []
    for child in np.random.SeedSequence(8).spawn(40):
        data = make_survival(150, phi={"x1": 0.4}, kappa=1.0, censoring=0.2, rng=child).data
        found = select(data, "x1", **RIGHT, families=["weibull", "free"], structures=["aft"])
        p.append(found.tests["p_value"].item())
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_the_right_model_is_found() -> None:
    data = make_survival(
        3000, phi={"x1": 0.8}, gamma={"Intercept": 0.4, "x1": 0.5}, kappa=0.0, censoring=0.1, rng=3
    ).data
    for criterion in ("aic", "bic"):
        found = select(
            data, "x1", **RIGHT, families=["weibull", "loglogistic", "free"], criterion=criterion
        )
        frame = found.to_frame()
        right = frame.set_index(["family", "structure"]).loc[("loglogistic", "aft+shape")]
        assert right["delta"] == 0 if criterion == "bic" else right["delta"] < 2
        assert frame[criterion].dropna().is_monotonic_increasing
        assert frame.set_index(["family", "structure"])["p_shape"]["loglogistic", "aft"] < 1e-6
        assert criterion.upper() in str(found.summary())


def test_remarks_of_single_fits(breast: pd.DataFrame) -> None:
    """Warnings of the fits are kept in the table, not issued; equal models are named."""
    found = select(
        breast, "hormone", **RIGHT, families=["weibull", 2],
        structures=["aft", "ph", "both scales"],
    )  # fmt: skip
    notes = found.to_frame().set_index(["family", "structure"])["note"]
    assert notes["weibull", "ph"] + notes["weibull", "aft"] in (
        "The same model as weibull: aft.", "The same model as weibull: ph."
    )  # fmt: skip
    assert "hardly separate" in notes["kappa = 2", "both scales"]
    assert notes["kappa = 2", "aft"] == ""
    assert "hardly separate" in str(found.summary())


def test_a_number_is_fitted_at_its_full_precision(breast: pd.DataFrame) -> None:
    found = select(breast, "hormone", **RIGHT, families=[1 / 3], structures=["aft"])
    assert list(found.fits) == [("kappa = 0.333333", "aft")]
    assert found.best.result_.fixed_kappa == 1 / 3


def test_other_data_and_roles(tmp_path: Path) -> None:
    data = make_survival(300, entry=0.3, censoring=0.2, rng=5).data
    options: dict[str, Any] = {
        "entry": "entry", **RIGHT, "families": ["weibull", "free"], "structures": ["aft", "ph"]
    }  # fmt: skip
    expected = select(data, "x1 + trt", **options).to_frame()
    data.to_parquet(tmp_path / "rows.parquet")
    for other in (pl.from_pandas(data), str(tmp_path / "rows.parquet")):
        frame = select(other, ["x1", "trt"], **options).to_frame()
        np.testing.assert_allclose(frame["loglik"], expected["loglik"], rtol=1e-10)
    between = make_survival(300, interval=0.5, rng=6).data
    found = select(
        between, "1 + x1", lower="lower", upper="upper", families=["weibull", "free"],
        structures=["null", "aft"],
    )  # fmt: skip
    assert len(found.fits) == 4 and found.call["roles"] == {"lower": "lower", "upper": "upper"}


def test_workers_give_the_same(lung: pd.DataFrame) -> None:
    options: dict[str, Any] = {**RIGHT, "families": ["weibull", "free"], "structures": ["aft"]}
    one = select(lung, "age", **options)
    with joblib.parallel_config(backend="threading"):
        two = select(lung, "age", **options, n_jobs=2)
    pd.testing.assert_frame_equal(one.to_frame(), two.to_frame())
    pd.testing.assert_frame_equal(one.tests, two.tests)


def test_json_pickle_and_summary(found: SelectionResult, breast: pd.DataFrame) -> None:
    for again in (
        SelectionResult.from_json(found.to_json()), pickle.loads(pickle.dumps(found))
    ):  # fmt: skip
        pd.testing.assert_frame_equal(again.to_frame(0.9), found.to_frame(0.9))
        assert str(again.summary()) == str(found.summary())
        survival = again.fits["free", "aft"].predict_survival(breast[:2], 500)
        expected = found.fits["free", "aft"].predict_survival(breast[:2], 500)
        pd.testing.assert_frame_equal(survival, expected)
    text = str(found.summary())
    assert max(len(line) for line in text.splitlines()) <= 88
    assert "burr: aft" in text and "p shape" in text
    for form in (found.summary().to_html(), found.summary().to_latex()):
        assert "loglogistic" in form
    narrow, wide = (found.to_frame(level) for level in (0.8, 0.99))
    free = narrow["kappa_low"].notna()
    assert (wide["kappa_low"][free] < narrow["kappa_low"][free]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"criterion": "aicc"}, "'aic' or 'bic'"),
        ({"families": ["gamma"]}, "Expected kappa to be a number above -1 or one of"),
        ({"families": []}, "a list of families"),
        ({"families": "weibull"}, "a list of families"),
        ({"structures": ["AFT"]}, r"structures out of .* but saw \['AFT'\]"),
        ({"structures": "aft"}, "structures out of .* but saw 'aft'"),
        ({"structures": []}, "structures out of"),
        ({"phi": "nodes"}, "left to select"),
        ({"kappa": 1}, "left to select"),
        ({"prior": 1}, r"options out of .* but saw \['prior'\]"),
        ({"covariates": ""}, "at least one covariate"),
        ({"covariates": []}, "a formula or a list of column names"),
        ({"covariates": "0 + nodes"}, "without a word on the intercept"),
        ({"covariates": "nodes - 1"}, "without a word on the intercept"),
        ({"covariates": "weight"}, "column 'weight'"),
        ({"covariates": "time ~ nodes"}, "right-hand side"),
        ({"event": "died"}, "column 'died'"),
        ({"time": None}, "either time="),
    ],
)
def test_errors(breast: pd.DataFrame, options: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"covariates": "nodes", **RIGHT} | options
    with pytest.raises(DataError, match=message):
        select(breast, **arguments)


def test_no_fit_at_all(breast: pd.DataFrame) -> None:
    with pytest.raises(IdentificationError, match="none of 25 was possible.*all 686 rows are"):
        select(breast.assign(event=0), "nodes", **RIGHT)
