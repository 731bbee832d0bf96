from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

import causalrm as crm
from causalrm.core.errors import DataError
from causalrm.survival import SurvivalRegression, SurvivalResult
from causalrm.survival.contrast import ContrastResult, standardized_contrast
from causalrm.survival.curves import kaplan_meier
from causalrm.survival.diagnostics import calibration

KINDS = ("survival", "cumulative_hazard", "hazard", "cox_snell", "forest")
PROFILES = pd.DataFrame({"hormone": ["no", "yes"], "nodes": [3, 3]})


@pytest.fixture(scope="module")
def df() -> pd.DataFrame:
    return crm.datasets.load_gbsg2().assign(years=lambda d: d["time"] / 365.25)


@pytest.fixture(scope="module")
def fit(df: pd.DataFrame) -> SurvivalRegression:
    model = SurvivalRegression(phi="hormone + nodes", gamma="hormone")
    return model.fit(df, time="years", event="event")


def data_of(ax: Axes) -> list[tuple[np.ndarray, np.ndarray]]:
    lines = [np.asarray(line.get_xydata(), dtype=float) for line in ax.get_lines()]
    return [(line[:, 0], line[:, 1]) for line in lines]


def bands_of(ax: Axes) -> list[np.ndarray]:
    found = [c for c in ax.collections if isinstance(c, PolyCollection)]
    return [np.asarray(c.get_paths()[0].vertices) for c in found]


def legend_of(ax: Axes) -> list[str]:
    legend = ax.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_return_axes_and_show_nothing(
    fit: SurvivalRegression, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plt, "show", lambda *a, **k: pytest.fail("show was called"))
    plot = getattr(fit.plot, kind)
    ax = plot()
    assert isinstance(ax, Axes) and ax.get_xlabel() and len(plt.get_fignums()) == 1
    assert plot(ax=ax) is ax and len(plt.get_fignums()) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_same_after_json(fit: SurvivalRegression, kind: str) -> None:
    again = crm.Result.from_json(fit.result_.to_json())
    assert isinstance(again, SurvivalResult)
    ours, theirs = getattr(fit.plot, kind)(), getattr(again.plot, kind)()
    for a, b in zip(data_of(ours), data_of(theirs), strict=True):
        np.testing.assert_array_equal(a, b)
    assert legend_of(ours) == legend_of(theirs)


def test_call_draws_survival(fit: SurvivalRegression) -> None:
    for a, b in zip(
        data_of(fit.plot(by="hormone")), data_of(fit.plot.survival(by="hormone")), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_survival_is_the_mean_prediction_against_kaplan_meier(
    fit: SurvivalRegression, df: pd.DataFrame
) -> None:
    ax = fit.plot()
    (kt, ks), (t, s) = data_of(ax)
    np.testing.assert_allclose(s, fit.predict_survival(df, t).mean(), rtol=1e-12)
    km = kaplan_meier(df["years"].to_numpy(), df["event"].to_numpy())
    seen = dict(zip(kt, ks, strict=True))
    assert kt[0] == 0 and ks[0] == 1
    assert kt[-1] == pytest.approx(df["years"].max())  # as far as anybody was observed
    np.testing.assert_allclose([seen[v] for v in km.time], km.value)
    assert ax.get_xlabel() == "years"
    assert legend_of(ax) == ["Model", "Kaplan-Meier, 95% band"]


def test_survival_by_group(fit: SurvivalRegression, df: pd.DataFrame) -> None:
    ax = fit.plot(by="hormone")
    lines = data_of(ax)
    for i, (_, part) in enumerate(df.groupby("hormone", observed=True)):
        (kt, ks), (t, s) = lines[2 * i], lines[2 * i + 1]
        np.testing.assert_allclose(s, fit.predict_survival(part, t).mean(), rtol=1e-12)
        km = kaplan_meier(part["years"].to_numpy(), part["event"].to_numpy())
        np.testing.assert_allclose(ks[1:-1], km.value)
        np.testing.assert_allclose(kt[1:-1], km.time)
    assert legend_of(ax)[:2] == ["hormone: no (n = 440)", "hormone: yes (n = 246)"]


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_band_has_the_level_asked_for(
    fit: SurvivalRegression, df: pd.DataFrame, level: float
) -> None:
    ax = fit.plot(level=level)
    km = kaplan_meier(df["years"].to_numpy(), df["event"].to_numpy())
    low, high = km.interval(level)
    drawn = bands_of(ax)[0]
    for i in (10, 150, len(low) - 1):
        inside = drawn[np.isclose(drawn[:, 0], km.time[i])][:, 1]
        assert np.isclose(inside, low[i]).any() and np.isclose(inside, high[i]).any()
    assert legend_of(ax)[-1] == f"Kaplan-Meier, {100 * level:g}% band"


def test_band_is_kept_where_a_curve_is_0_or_1() -> None:
    df = pd.DataFrame({"t": [1.0, 2.0, 3.0, 4.0], "d": 1})
    fit = SurvivalRegression(kappa="weibull").fit(df, time="t", event="d")
    ax = fit.plot(level=0.8)
    assert np.isfinite(bands_of(ax)[0]).all()
    assert data_of(ax)[0][1][-1] == 0
    top = fit.plot.cumulative_hazard().get_ylim()[1]
    assert math.isfinite(top) and top > 1


def test_cumulative_hazard_is_minus_log_survival(fit: SurvivalRegression) -> None:
    pairs = zip(
        data_of(fit.plot(by="hormone")), data_of(fit.plot.cumulative_hazard(by="hormone")),
        strict=True,
    )  # fmt: skip
    for (t, s), (u, h) in pairs:
        np.testing.assert_array_equal(t, u)
        np.testing.assert_allclose(h, -np.log(s), atol=1e-15)


def test_hazard_of_rows_is_the_prediction(fit: SurvivalRegression) -> None:
    ax = fit.plot.hazard(data=PROFILES, level=0.9)
    lines = data_of(ax)
    assert len(lines) == 2
    for i, (t, h) in enumerate(lines):
        expected = fit.predict_hazard(PROFILES.iloc[[i]], t, ci=True, level=0.9)
        np.testing.assert_allclose(h, expected["estimate"], rtol=1e-12)
        ends = bands_of(ax)[i][:, 1]
        np.testing.assert_allclose(ends.min(), expected["conf_low"].min())
        np.testing.assert_allclose(ends.max(), expected["conf_high"].max())
    assert legend_of(ax) == ["hormone: no", "hormone: yes"]  # only what differs


def test_hazard_of_equal_rows_is_numbered(fit: SurvivalRegression) -> None:
    assert legend_of(fit.plot.hazard(data=PROFILES.iloc[[0, 0]])) == ["row 0", "row 1"]


def test_hazard_is_at_the_mean_covariates(fit: SurvivalRegression, df: pd.DataFrame) -> None:
    """At mean predictors; its turning point is that of the result."""
    (t, h), *_ = data_of(fit.plot.hazard())
    assert t[np.argmax(h)] == pytest.approx(fit.result_.turning_point, abs=2 * (t[1] - t[0]))


def test_hazard_by_group_has_the_delta_methods_band(
    fit: SurvivalRegression, df: pd.DataFrame
) -> None:
    """A group's mean covariates are a row that can be predicted."""
    ax = fit.plot.hazard(by="hormone")
    for i, (level, part) in enumerate(df.groupby("hormone", observed=True)):
        t, h = data_of(ax)[i]
        row = pd.DataFrame({"hormone": [level], "nodes": [part["nodes"].mean()]})
        expected = fit.predict_hazard(row, t, ci=True)
        np.testing.assert_allclose(h, expected["estimate"], rtol=1e-9)
        ends = bands_of(ax)[i][:, 1]
        np.testing.assert_allclose(ends.min(), expected["conf_low"].min(), rtol=1e-9)
        np.testing.assert_allclose(ends.max(), expected["conf_high"].max(), rtol=1e-9)
    assert legend_of(ax) == ["hormone: no", "hormone: yes"]


def test_hazard_band_follows_the_covariance(df: pd.DataFrame) -> None:
    clustered = df.assign(centre=np.arange(len(df)) // 14)
    fit = SurvivalRegression("hormone").fit(
        clustered, time="years", event="event", cluster="centre"
    )
    row = pd.DataFrame({"hormone": ["no"]})
    for result in (fit.result_, fit.result_.with_covariance("model")):
        ax = result.plot.hazard(by="hormone")
        (t, _), _ = data_of(ax)
        of = SurvivalRegression.from_result(result)
        expected = of.predict_hazard(row, t, ci=True)["conf_high"].max()
        assert bands_of(ax)[0][:, 1].max() == pytest.approx(expected)


def test_hazard_that_is_infinite_at_zero_keeps_the_rest_readable() -> None:
    df, _ = simulated(gamma=0.4)
    fit = SurvivalRegression(kappa="weibull").fit(df, time="time", event="event")
    ax = fit.plot.hazard()
    (_, h), *_ = data_of(ax)
    assert ax.get_ylim()[0] == 0 and ax.get_ylim()[1] < h[0]


def test_cox_snell_curve(fit: SurvivalRegression, df: pd.DataFrame) -> None:
    ax = fit.plot.cox_snell()
    (x, y), (u, v) = data_of(ax)
    r = fit.residuals(df).to_numpy()
    seen = np.sort(r[df["event"] == 1])
    np.testing.assert_allclose(np.unique(x[1:]), np.unique(seen), rtol=1e-12)
    assert y[0] == 0 and (np.diff(y) > 0).all()
    np.testing.assert_array_equal(u, v)
    narrow, wide = (bands_of(fit.plot.cox_snell(level=v))[0][:, 1].max() for v in (0.5, 0.99))
    assert narrow < wide


def test_forest_has_the_coefficients(fit: SurvivalRegression) -> None:
    def points(ax: Axes) -> list[float]:
        return [float(x[0]) for x, _ in data_of(ax) if len(x) == 1]

    frame = fit.to_frame()
    kept = (frame["term"] != "Intercept") & (frame["parameter"] != "kappa")
    np.testing.assert_allclose(points(fit.plot.forest()), frame["estimate"][kept])
    np.testing.assert_allclose(points(fit.plot.forest(intercepts=True)), frame["estimate"])


def simulated(gamma: float = 1.0, n: int = 300) -> tuple[pd.DataFrame, np.random.Generator]:
    rng = np.random.default_rng(1)
    time = rng.exponential(size=n) ** (1 / gamma)
    return pd.DataFrame({"time": time, "event": 1}), rng


def test_intervals_have_no_kaplan_meier() -> None:
    df, _ = simulated()
    df = df.assign(lower=np.floor(df["time"]), upper=np.ceil(df["time"]), arm=np.arange(300) % 2)
    fit = SurvivalRegression("arm", kappa="weibull").fit(df, lower="lower", upper="upper")
    ax = fit.plot(by="arm")
    assert legend_of(ax) == ["arm: 0 (n = 150)", "arm: 1 (n = 150)", "Model"]
    assert ax.get_xlabel() == "lower, upper" and not bands_of(ax)
    assert len(data_of(fit.plot.hazard(by="arm"))) == 2
    with pytest.raises(DataError, match="intervals"):
        fit.plot.cox_snell()


def test_errors_say_what_there_is(fit: SurvivalRegression) -> None:
    with pytest.raises(DataError, match="this fit has 'hormone'"):
        fit.plot(by="nodes")
    with pytest.raises(DataError, match="saw both"):
        fit.plot.hazard(by="hormone", data=PROFILES)
    with pytest.raises(DataError, match="level"):
        fit.plot(level=95)
    df, _ = simulated()
    with pytest.raises(DataError, match="intercepts=True"):
        SurvivalRegression(kappa="weibull").fit(df, time="time").plot.forest()


# ------------------------------------------------------------------ contrasts and calibration


@pytest.fixture(scope="module")
def contrast(fit: SurvivalRegression, df: pd.DataFrame) -> ContrastResult:
    return standardized_contrast(
        fit, df, treatment="hormone", times=np.linspace(0.5, 6, 12), rmst=[2, 5]
    )


@pytest.mark.parametrize("after_json", [False, True])
def test_contrast_over_time(contrast: ContrastResult, after_json: bool) -> None:
    result = ContrastResult.from_json(contrast.to_json()) if after_json else contrast
    ax = result.plot(level=0.9)
    (x, y), _ = data_of(ax)
    frame = contrast.to_frame(0.9).query("parameter == 'survival difference'")
    np.testing.assert_allclose(x, [0, *frame["time"]])
    np.testing.assert_allclose(y, [0, *frame["estimate"]])
    band = bands_of(ax)[0][:, 1]
    assert band.max() == pytest.approx(frame["conf_high"].max())
    assert band.min() == pytest.approx(min(0, frame["conf_low"].min()))
    assert ax.get_ylabel() == "Survival difference, hormone: yes \N{MINUS SIGN} no"
    assert ax.get_xlabel() == "years" and ax.get_legend() is None


def test_marginal_survival_of_each_arm(contrast: ContrastResult) -> None:
    ax = contrast.plot.survival()
    frame = contrast.to_frame().query("parameter == 'survival'")
    for (x, y), (_, part) in zip(data_of(ax), frame.groupby("term"), strict=True):
        np.testing.assert_allclose(x, [0, *part["time"]])
        np.testing.assert_allclose(y, [1, *part["estimate"]])
    assert legend_of(ax) == ["hormone: no", "hormone: yes"]


def test_few_horizons_are_points(contrast: ContrastResult) -> None:
    ax = contrast.plot.rmst(label="once")
    frame = contrast.to_frame().query("parameter == 'rmst difference'")
    (x, y), *_ = data_of(ax)
    np.testing.assert_allclose(x, frame["time"])
    np.testing.assert_allclose(y, frame["estimate"])
    contrast.plot.rmst(ax=ax, label="twice")
    assert legend_of(ax) == ["once", "twice"]
    colors = {container[0].get_color() for container in ax.containers}
    assert len(colors) == 2 and ax.get_xlim()[1] > 5.06


def test_contrast_without_times(fit: SurvivalRegression, df: pd.DataFrame) -> None:
    only = standardized_contrast(fit, df, treatment="hormone", rmst=3)
    assert only.plot().get_xlabel() == "Horizon, years"
    with pytest.raises(DataError, match="times="):
        only.plot.survival()


def test_calibration_shows_groups_and_curve(fit: SurvivalRegression, df: pd.DataFrame) -> None:
    found = calibration(fit, df, time=3.0, groups=4)
    ax = found.plot(level=0.8)
    unit, curve, dots = data_of(ax)
    np.testing.assert_array_equal(unit[0], unit[1])
    np.testing.assert_allclose(curve[1], found.curve()["estimate"])
    np.testing.assert_allclose(dots[0], found.to_frame()["predicted"])
    np.testing.assert_allclose(dots[1], found.to_frame()["estimate"])
    band = found.curve(0.8)
    assert bands_of(ax)[0][:, 1].max() == pytest.approx(band["conf_high"].max())
    assert ax.get_xlabel() == "Predicted risk, years \N{LESS-THAN OR EQUAL TO} 3"
    assert legend_of(ax)[0] == "Kaplan-Meier by group, 80% interval"
