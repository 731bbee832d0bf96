"""Plots of a calibration report; they read only the result."""

from __future__ import annotations

import base64
import io
from functools import partial
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from causalrm.core import plotting
from causalrm.core.errors import DataError
from causalrm.core.format import percent

if TYPE_CHECKING:
    from causalrm.calibration.report import CalibrationReport


HAS_REFERENCE = ("observed_expected", "calibration_slope", "calibration_in_the_large")
XLABELS = {"ece": "ECE", "auc": "AUC", "observed_expected": "observed / expected", "ici": "ICI"}


class CalibrationPlots:
    """Plots of a report: ``report.plot()`` and ``report.plot.<kind>()``.

    Each takes `ax`, a matplotlib Axes to draw on (a new figure by default), and returns it;
    nothing is shown.

    Parameters
    ----------
    report : CalibrationReport
    """

    def __init__(self, report: CalibrationReport):
        self._report = report

    def __call__(self, ax: Axes | None = None) -> Axes:
        """Draw the reliability curve; the same as `curve`."""
        return self.curve(ax)

    def curve(self, ax: Axes | None = None, groups: bool = True) -> Axes:
        """Draw outcomes against scores, with consistency band and score histogram.

        The step is the isotonic curve; the grey band holds it where the score is calibrated.
        The line is the loess curve with its pointwise interval, one per group where there are
        groups, dotted for small ones. Bars at the bottom are the scores' histogram.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        groups : bool
            Draw the curves of groups in place of the interval of the whole.

        Returns
        -------
        matplotlib.axes.Axes
        """
        r = self._report
        alone = ax is None
        ax = plotting.axes(ax, height=5.8)
        every = r.curve[r.curve["group"] == "all"]
        plotting.diagonal(ax)
        shown = percent(r.level)
        if every["band_low"].notna().all():
            plotting.band(
                ax,
                every["p"],
                every["band_low"],
                every["band_high"],
                color=plotting.GREY,
                label=f"{shown} band if calibrated",
            )
        ax.step(
            every["p"],
            every["isotonic"],
            where="mid",
            color=plotting.GREY,
            linewidth=1.0,
            label="isotonic",
        )
        names = [g for g in r.curve["group"].unique() if g != "all"] if groups else []
        small = set(r.groups.loc[r.groups["note"] != "", "group"])
        if names:
            for i, name in enumerate(names):
                part = r.curve[r.curve["group"] == name]
                dash, label = (":", f"{name} (small)") if name in small else ("-", name)
                ax.plot(part["p"], part["loess"], dash, color=plotting.color(i), label=label)
        else:
            ax.plot(every["p"], every["loess"], color=plotting.color(0), label="loess")
            if every["conf_low"].notna().all():
                plotting.band(
                    ax,
                    every["p"],
                    every["conf_low"],
                    every["conf_high"],
                    color=plotting.color(0),
                    label=f"{shown} pointwise interval",
                )
        h = r.histogram
        total = (h["negative"] + h["positive"]).to_numpy()
        ax.bar(
            (h["p_low"] + h["p_high"]) / 2,
            0.12 * total / total.max(),
            width=0.045,
            color="#BBBBBB",
            zorder=1,
        )
        ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        ax.set_xlabel("Score")
        ax.set_ylabel("Share with outcome 1")
        look: dict[str, Any] = {"loc": "upper left"}
        if alone:  # beneath, as curves that are far off cross every corner
            look = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.13), "ncols": 2}
        ax.legend(frameon=False, fontsize="small", **look)
        return ax

    def decision_curve(self, ax: Axes | None = None) -> Axes:
        """Draw net benefit against the threshold, with treating all and treating none.

        Returns
        -------
        matplotlib.axes.Axes
        """
        r = self._report
        d = r.decision
        ax = plotting.axes(ax)
        ax.plot(d["threshold"], d["estimate"], color=plotting.color(0), label="score")
        plotting.band(
            ax,
            d["threshold"],
            d["conf_low"],
            d["conf_high"],
            color=plotting.color(0),
            label=f"{percent(r.level)} interval",
        )
        ax.plot(d["threshold"], d["treat_all"], color=plotting.color(1), label="treat all")
        plotting.reference(ax, y=0.0)
        # Not the band: at the highest thresholds, where hardly a row is left, it is wide.
        top = max(float(d["estimate"].max()), float(d["treat_all"].max()), 0.01)
        ax.set_ylim(-0.3 * top, 1.2 * top)
        ax.set_xlabel("Threshold")
        ax.set_ylabel("Net benefit")
        ax.legend(frameon=False)
        return ax

    def decomposition(self, ax: Axes | None = None, groups: bool = True) -> Axes:
        """Draw miscalibration, discrimination and uncertainty with intervals.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        groups : bool
            Draw those of the groups, too.

        Returns
        -------
        matplotlib.axes.Axes
        """
        names = {
            "brier": "Brier score",
            "mcb": "MCB, miscalibration",
            "dsc": "DSC, discrimination",
            "unc": "UNC, uncertainty",
        }
        frame = self._report.estimates
        frame = frame[frame["term"].isin(names) & (groups | (frame["group"] == "all"))]
        place = {name: i for i, name in enumerate((*frame["group"].unique(), *names))}
        frame = frame.sort_values(["group", "term"], key=lambda x: x.map(place))
        labels = [names[t] for t in frame["term"]]
        if frame["group"].nunique() == 1:
            frame = frame.drop(columns="group")
        return plotting.forest(ax, frame, labels=labels, xlabel="Part of the Brier score")

    def groups(self, ax: Axes | None = None, term: str = "ece") -> Axes:
        """Draw one measure by group.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        term : str
            A measure of the report.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        DataError
            When there is no such measure.
        """
        frame = self._report.estimates
        frame = frame[frame["term"] == term]
        if frame.empty:
            raise DataError(f"The report has no measure {term!r}.")
        labels = frame["group"].tolist()
        null = frame["if_calibrated"].iloc[0] if term in HAS_REFERENCE else None
        frame = frame.drop(columns="group")
        return plotting.forest(
            ax,
            frame,
            labels=labels,
            reference_at=null,
            xlabel=XLABELS.get(term, term.replace("_", " ")),
        )

    def images(self) -> list[tuple[str, str]]:
        """Return (title, PNG as a data address) of the plots that belong into a page."""
        kinds: list[tuple[str, Any]] = [
            ("Reliability curve", self.curve),
            ("Decision curve", self.decision_curve),
            ("Parts of the Brier score", partial(self.decomposition, groups=False)),
        ]
        if self._report.groups.shape[0] > 1:
            kinds += [
                ("Observed over expected by group", partial(self.groups, term="observed_expected")),
                ("Calibration slope by group", partial(self.groups, term="calibration_slope")),
                ("Calibration error by group", self.groups),
                ("Discrimination by group", partial(self.groups, term="auc")),
            ]
        out = []
        for title, draw in kinds:
            figure = draw(None).get_figure(root=True)
            assert figure is not None
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=150)
            plt.close(figure)
            text = base64.b64encode(buffer.getvalue()).decode("ascii")
            out.append((title, f"data:image/png;base64,{text}"))
        return out
