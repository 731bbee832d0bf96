"""Plots of survival fits and of standardized contrasts; they read only the result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from causalrm.core import plotting
from causalrm.core.errors import DataError
from causalrm.core.format import percent
from causalrm.core.inference import quantile
from causalrm.core.result import check_level
from causalrm.survival import _kernels as K
from causalrm.survival.predict import predict

if TYPE_CHECKING:
    from causalrm.survival._calibration import Calibration
    from causalrm.survival.contrast import ContrastResult
    from causalrm.survival.result import SurvivalResult

_POINTS = 200  # of a smooth curve
_CURVE = 8  # times from which a contrast is drawn as a curve, not as points
_PARAMETERS = {
    "phi": "phi (speed of time)",
    "lam": "lambda (level of the hazard)",
    "gamma": "gamma (shape)",
}


class SurvivalPlots:
    """Plots of a survival fit: ``result.plot()`` and ``result.plot.<kind>()``.

    Each takes `ax`, a matplotlib Axes to draw on (a new figure by default), and the `level` of
    its intervals; each returns the Axes and shows nothing. Times are in the unit of their column.

    Parameters
    ----------
    result : SurvivalResult

    Examples
    --------
    >>> import causalrm as crm
    >>> df = crm.datasets.load_gbsg2()
    >>> fit = crm.SurvivalRegression("hormone + nodes").fit(df, time="time", event="event")
    >>> ax = fit.plot(by="hormone")
    >>> ax.get_xlabel(), len(ax.get_lines())
    ('time', 4)
    """

    def __init__(self, result: SurvivalResult):
        self._result = result

    def __call__(self, ax: Axes | None = None, by: str | None = None, level: float = 0.95) -> Axes:
        """Fitted survival against Kaplan-Meier; the same as `survival`."""
        return self.survival(ax, by, level)

    def survival(self, ax: Axes | None = None, by: str | None = None, level: float = 0.95) -> Axes:
        """Draw fitted survival, averaged over the rows, against Kaplan-Meier with its band.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        by : str, optional
            A covariate of the model with few levels: a pair of curves for the rows of each level.
            All rows together by default.
        level : float
            Of the pointwise Kaplan-Meier band.

        Returns
        -------
        matplotlib.axes.Axes
            Without Kaplan-Meier when times are known up to intervals.

        Raises
        ------
        DataError
            When the fit has no groups by that column.
        """
        ax = self._curves(plotting.axes(ax), by, level, cumulative=False)
        ax.set_ylim(0, 1.02)
        ax.set_ylabel("Survival probability")
        return ax

    def cumulative_hazard(
        self, ax: Axes | None = None, by: str | None = None, level: float = 0.95
    ) -> Axes:
        """Draw minus the logarithm of the curves of `survival`; same arguments.

        Where the hazards of two groups are proportional, so are these curves.
        """
        ax = self._curves(plotting.axes(ax), by, level, cumulative=True)
        # the last Kaplan-Meier bands reach far beyond the curves
        drawn = [np.asarray(line.get_ydata(), dtype=float) for line in ax.get_lines()]
        ax.set_ylim(0, 1.3 * max(float(np.nanmax(y)) for y in drawn))
        ax.set_ylabel("Cumulative hazard")
        return ax

    def hazard(
        self,
        ax: Axes | None = None,
        by: str | None = None,
        data: Any = None,
        level: float = 0.95,
    ) -> Axes:
        """Draw the fitted hazard, per unit of time, with its band.

        Marks on the axis are the times of events: where there are none, the curve is the model's
        alone.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        by : str, optional
            A covariate of the model with few levels: a curve for each level, at the mean
            covariates of its rows. By default one curve, at the mean covariates of all rows.
        data : data frame, optional
            Instead of `by`, a curve for each of these rows, labelled by the columns in which they
            differ.
        level : float
            Of the pointwise band, by the delta method on the log scale.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        DataError
            When both `by` and `data` are given, or the fit has no groups by that column.
        """
        if by is not None and data is not None:
            raise DataError("Expected by= or data=, but saw both. Give one of them.")
        r = self._result
        end = float(r.curves["grid"][-1])
        t = end * np.arange(1, _POINTS + 1) / _POINTS
        ax = plotting.axes(ax)
        drawn = self._at_rows(data, t, level) if data is not None else self._at_means(by, t, level)
        for i, (label, (value, low, high)) in enumerate(drawn.items()):
            paint = plotting.color(i)
            ax.plot(t, value, color=paint, linewidth=1.8, label=label)
            plotting.band(ax, t, low, high, color=paint)
        curves = list(drawn.values())
        # the limit at 0 may be infinite, and bands open at the end
        late = max(float(value[_POINTS // 20 :].max()) for value, _, _ in curves)
        top = max(float(np.nanmax(high[_POINTS // 20 :], initial=late)) for _, _, high in curves)
        ax.set_ylim(0, 1.05 * min(top, 2 * late))
        events = np.asarray(r.curves["events"], dtype=float)
        bottom = ax.get_xaxis_transform()
        ax.vlines(events, 0, 0.03, transform=bottom, color=plotting.GREY, linewidth=0.5, alpha=0.6)
        ax.set_xlim(0, end)
        ax.set_xlabel(_time_of(self._result))
        ax.set_ylabel("Hazard, per unit of time")
        if len(drawn) > 1:
            _legend(ax, *ax.get_legend_handles_labels())
        return ax

    def cox_snell(self, ax: Axes | None = None, level: float = 0.95) -> Axes:
        """Draw the cumulative hazard of the Cox-Snell residuals, the diagonal if the model holds.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        level : float
            Of the pointwise band around the Nelson-Aalen estimate.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        DataError
            When times are known up to intervals.
        """
        r = self._result
        if "cox_snell" not in r.curves:
            raise DataError(
                "Expected exact or right-censored times for the curve of Cox-Snell residuals, but "
                "this fit has intervals. Compare families with causalrm.survival.select."
            )
        curve = r.curves["cox_snell"]
        x, y = (curve[name].to_numpy(dtype=float) for name in ("time", "value"))
        half = (curve["high"].to_numpy(dtype=float) - y) * quantile(level) / quantile(0.95)
        ax = plotting.axes(ax, height=4.8)
        x, y, half = (np.concatenate([[0.0], v]) for v in (x, y, half))
        line = plotting.steps(ax, x, y)
        shade = plotting.band(ax, x, np.clip(y - half, 0, None), y + half, step=True)
        end = 1.04 * max(x[-1], y[-1])
        unit = plotting.diagonal(ax, end)
        _legend(
            ax, [(shade, line), unit],
            [f"Nelson-Aalen, {percent(check_level(level))} band", "Unit exponential"],
        )  # fmt: skip
        ax.set(xlim=(0, end), ylim=(0, end), aspect="equal")
        ax.set_xlabel("Cox-Snell residual")
        ax.set_ylabel("Cumulative hazard of the residuals")
        return ax

    def forest(self, ax: Axes | None = None, level: float = 0.95, intercepts: bool = False) -> Axes:
        """Draw the coefficients of the covariates with their intervals, by parameter.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            A new one, as high as the rows need, by default.
        level : float
        intercepts : bool
            Draw intercepts and kappa too.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        DataError
            When the model has no covariates and `intercepts` is False.
        """
        frame = self._result.to_frame(level)
        if not intercepts:
            frame = frame[(frame["term"] != "Intercept") & (frame["parameter"] != "kappa")]
        if frame.empty:
            raise DataError(
                "Expected covariates in at least one parameter, but the model has none. Call "
                "forest(intercepts=True) to see the rest."
            )
        frame = frame.assign(parameter=frame["parameter"].replace(_PARAMETERS))
        return plotting.forest(
            ax, frame, xlabel=f"Coefficient on the log scale, {percent(level)} interval"
        )

    # ------------------------------------------------------------------ what is drawn

    def _groups(self, by: str | None) -> dict[str, Mapping[str, Any]]:
        """The reduced curves of each level of a column, or of all rows."""
        groups = self._result.curves["groups"]
        if by is None:
            return {"all": groups["all"]}
        found = {label: g for label, g in groups.items() if label.startswith(f"{by} = ")}
        if not found:
            known = sorted({label.rsplit(" = ", 1)[0] for label in groups} - {"all"})
            raise DataError(
                f"Expected by= to name a covariate of the model with few levels, but saw {by!r}; "
                f"this fit has {', '.join(map(repr, known)) or 'none'}."
            )
        return found

    def _curves(self, ax: Axes, by: str | None, level: float, cumulative: bool) -> Axes:
        grid = np.asarray(self._result.curves["grid"], dtype=float)
        groups = self._groups(by)

        def shown(survival: Any) -> np.ndarray:
            s = np.asarray(survival, dtype=float)
            return -np.log(np.where(s > 0, s, math.nan)) if cumulative else s

        handles: list[Any] = []
        for i, group in enumerate(groups.values()):
            paint = plotting.color(i)
            if "km" in group and len(group["km"]):
                time, value, low, high = _kaplan_meier(group, level)
                under = plotting.GREY if by is None else paint
                plotting.steps(ax, time, shown(value), color=under, linewidth=1.0)
                plotting.band(ax, time, shown(low), shown(high), color=under, step=True)
            handles += ax.plot(grid, shown(group["fitted"]), color=paint, linewidth=2.0)
        labels = ["Model"]
        if by is not None:
            labels = [f"{_words(name)} (n = {g['n']:,})" for name, g in groups.items()]
            handles.append(Line2D([], [], color=plotting.GREY, linewidth=2.0))
            labels.append("Model")
        if all("km" in group for group in groups.values()):
            line = Line2D([], [], color=plotting.GREY, linewidth=1.0)
            handles.append((Patch(color=plotting.GREY, alpha=0.18, linewidth=0), line))
            labels.append(f"Kaplan-Meier, {percent(check_level(level))} band")
        _legend(ax, handles, labels)
        ax.set_xlim(0, grid[-1])
        ax.set_xlabel(_time_of(self._result))
        return ax

    def _at_rows(self, data: Any, t: np.ndarray, level: float) -> dict[str, Any]:
        """Hazards of new rows: value, low, high at each time."""
        r = self._result
        frame = predict(
            r.model, r.estimates, r._covariance(), r._df, data, "hazard", t, "time", True, level
        )
        parts = frame[["estimate", "conf_low", "conf_high"]].to_numpy().reshape(-1, len(t), 3)
        names = [c.name for d in r.model.predictors.unique for c in d.columns]
        return dict(zip(_names(data, names), np.moveaxis(parts, 2, 1), strict=True))

    def _at_means(self, by: str | None, t: np.ndarray, level: float) -> dict[str, Any]:
        """Hazards at the mean columns of each group's design: value, low, high at each time."""
        r = self._result
        model, cov, z = r.model, r._covariance(), quantile(level, r._df)
        out = {}
        for label, group in self._groups(by).items():
            xs = [np.repeat(np.asarray(mean)[:, None], len(t), axis=1) for mean in group["mean"]]
            curve = K.curves(t, *model.parameters(xs, r.estimates, len(t)))
            slope = model.predictors.scores(xs, [curve[6 + i] for i in model.active])
            sd = np.sqrt(np.clip(np.einsum("kt,kl,lt->t", slope, cov, slope), 0, None))
            value = np.exp(curve[5])
            out[_words(label)] = value, value * np.exp(-z * sd), value * np.exp(z * sd)
        return out


class ContrastPlots:
    """Plots of standardized contrasts: ``result.plot()`` and ``result.plot.<kind>()``.

    From eight times on estimates are joined to a curve with a band, which starts at time 0, where
    everybody is free of the event; fewer are points with intervals. Each kind takes `ax`, `level`
    and a `label` for the legend, by which several results can share one Axes.

    Parameters
    ----------
    result : ContrastResult
    """

    def __init__(self, result: ContrastResult):
        self._result = result

    def __call__(
        self, ax: Axes | None = None, level: float = 0.95, label: str | None = None
    ) -> Axes:
        """Draw the difference in survival over time or, without times, in restricted mean."""
        kind = self.difference if len(self._result.times) else self.rmst
        return kind(ax, level, label)

    def difference(
        self, ax: Axes | None = None, level: float = 0.95, label: str | None = None
    ) -> Axes:
        """Draw the difference in marginal survival from the reference, over time.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        level : float
            Of the pointwise band.
        label : str, optional
            In the legend.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        DataError
            When the result has no times.
        """
        return self._draw("survival difference", "Survival difference", ax, level, label, 0.0)

    def rmst(self, ax: Axes | None = None, level: float = 0.95, label: str | None = None) -> Axes:
        """Draw the difference in restricted mean survival over its horizon; as `difference`."""
        return self._draw("rmst difference", "Restricted mean difference", ax, level, label, 0.0)

    def survival(
        self, ax: Axes | None = None, level: float = 0.95, label: str | None = None
    ) -> Axes:
        """Draw marginal survival under each level of the treatment; arguments as `difference`."""
        ax = self._draw("survival", "Marginal survival", ax, level, label, 1.0)
        ax.set_ylim(0, 1.02)
        return ax

    def _draw(
        self,
        parameter: str,
        ylabel: str,
        ax: Axes | None,
        level: float,
        label: str | None,
        start: float,
    ) -> Axes:
        r = self._result
        frame = r.to_frame(level)
        frame = frame[frame["parameter"] == parameter]
        if frame.empty:
            role = "rmst=" if parameter.startswith("rmst") else "times="
            raise DataError(
                f"Expected a contrast with {role} for this plot, but saw none. Give it to "
                "standardized_contrast."
            )
        ax = plotting.axes(ax)
        taken = len(ax.get_legend_handles_labels()[1])
        several = frame["term"].nunique() > 1
        for i, (term, part) in enumerate(frame.groupby("term", sort=False)):
            arm = str(term).replace(" - ", " \N{MINUS SIGN} ") if several else ""
            text = ", ".join(filter(None, [label, f"{r.treatment}: {arm}" if arm else None]))
            columns = ("time", "estimate", "conf_low", "conf_high")
            x, y, low, high = (part[name].to_numpy(dtype=float) for name in columns)
            look: dict[str, Any] = {"color": plotting.color(taken + i), "label": text or None}
            if len(x) >= _CURVE:
                x, y, low, high = (
                    np.concatenate([[first], v])
                    for first, v in ((0.0, x), (start, y), (start, low), (start, high))
                )
                plotting.band(ax, x, low, high, color=look["color"])
                ax.plot(x, y, linewidth=1.8, **look)
            else:  # side by side where several share a time
                x = x + 0.012 * (taken + i) * float(frame["time"].max())
                ax.errorbar(x, y, yerr=[y - low, high - y], fmt="o", markersize=5, **look)
        if start == 0.0:
            plotting.reference(ax, y=0.0)
            if not several:
                first = str(frame["term"].iloc[0]).replace(" - ", " \N{MINUS SIGN} ")
                ylabel += f", {r.treatment}: {first}"
        handles, labels = ax.get_legend_handles_labels()
        if labels:
            # the search for an empty place does not see the bars of points
            over = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "ncols": 3}
            _legend(ax, handles, labels, **({} if len(x) >= _CURVE else over))
        at = _time_of(r)
        ax.set_xlim(left=0, auto=True)  # the next result on these Axes may reach further
        ax.set_xlabel(f"Horizon, {at}" if parameter.startswith("rmst") else at)
        ax.set_ylabel(ylabel)
        return ax


class CalibrationPlots:
    """Plot of observed against predicted risk: ``result.plot()``.

    Parameters
    ----------
    result : Calibration
    """

    def __init__(self, result: Calibration):
        self._result = result

    def __call__(self, ax: Axes | None = None, level: float = 0.95) -> Axes:
        """Draw the observed risk of each group and the smooth curve, with their intervals.

        Groups stand at their mean predicted risk; on the dashed diagonal predictions are right.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        level : float

        Returns
        -------
        matplotlib.axes.Axes
        """
        r = self._result
        groups, curve = r.to_frame(level), r.curve(level)
        columns = ("predicted", "estimate", "conf_low", "conf_high")
        x, y, low, high = (groups[name].to_numpy(dtype=float) for name in columns)
        u, v, below, above = (curve[name].to_numpy(dtype=float) for name in columns)
        ax = plotting.axes(ax, height=4.8)
        unit = plotting.diagonal(ax)
        shade = plotting.band(ax, u, below, above, color=plotting.color(0))
        (line,) = ax.plot(u, v, color=plotting.color(0), linewidth=1.8)
        dots = ax.errorbar(
            x, y, yerr=[y - low, high - y], fmt="o", markersize=5, color=plotting.color(1)
        )
        top = min(1.0, 1.05 * float(np.nanmax(np.concatenate([high, x, u, v]))))
        ax.set(xlim=(0, top), ylim=(0, top), aspect="equal")
        until = f"{r.call['roles']['time']} \N{LESS-THAN OR EQUAL TO} {r.time:g}"
        ax.set_xlabel(f"Predicted risk, {until}")
        ax.set_ylabel(f"Observed risk, {until}")
        text = percent(level)
        _legend(
            ax, [dots, (shade, line), unit],
            [f"Kaplan-Meier by group, {text} interval", f"Smooth, {text} band", "Ideal"],
        )  # fmt: skip
        return ax


# ---------------------------------------------------------------------------- helpers


def _time_of(result: SurvivalResult | ContrastResult) -> str:
    """Name of the time axis: that of the column, which knows the unit."""
    roles = result.call["roles"]
    return str(roles.get("time") or f"{roles['lower']}, {roles['upper']}")


def _words(group: str) -> str:
    """``arm = b``, the name of a group of rows, as ``arm: b``."""
    return group.replace(" = ", ": ", 1)


def _kaplan_meier(group: Mapping[str, Any], level: float) -> list[np.ndarray]:
    """Steps from 0 to the last time of a group, value and band, which is stored at 0.95."""
    time, value, low, high = (
        group["km"][name].to_numpy(dtype=float) for name in ("time", "value", "low", "high")
    )
    factor = quantile(level) / quantile(0.95)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_s = np.log(value)
        bounds = [
            np.where(bound == value, value, np.exp(log_s * (np.log(bound) / log_s) ** factor))
            for bound in (low, high)
        ]
    drawn = [np.concatenate([[1.0], v, v[-1:]]) for v in (value, *bounds)]
    return [np.concatenate([[0.0], time, [group["end"]]]), *drawn]


def _legend(ax: Axes, handles: Sequence[Any], labels: Sequence[str], **options: Any) -> None:
    """A legend where it covers least, on a light ground."""
    look: dict[str, Any] = {
        "loc": "best", "fontsize": "small", "framealpha": 0.85, "edgecolor": "none",
        "borderaxespad": 0.3, "handler_map": {tuple: HandlerTuple(ndivide=1)},
    }  # fmt: skip
    ax.legend(handles, labels, **look | options)


def _names(data: Any, columns: Sequence[str]) -> list[str]:
    """A label per row from the columns in which rows differ."""
    given = {c: np.asarray(data[c]).tolist() for c in dict.fromkeys(columns)}
    vary = {c: v for c, v in given.items() if len(set(v)) > 1}
    n = len(data)
    texts = [
        ", ".join(
            f"{c}: {v[i]:g}" if isinstance(v[i], float) else f"{c}: {v[i]}" for c, v in vary.items()
        )
        for i in range(n)
    ]
    return texts if len(set(texts)) == n else [f"row {i}" for i in range(n)]
