"""The calibration report: every measure, curves, groups and net benefit, in one result."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from causalrm.calibration import _kernels_cells as cells
from causalrm.calibration import _kernels_rank as rank
from causalrm.calibration import estimation as est
from causalrm.calibration.contrasts import group_contrasts, part_of, usable
from causalrm.calibration.decision import decision_frame
from causalrm.calibration.measures import noise_floor_of
from causalrm.calibration.page import KEY, page
from causalrm.calibration.scored import Scored, check_labels
from causalrm.core.errors import DataError, warn
from causalrm.core.inference import quantile
from causalrm.core.parallel import blas_limit
from causalrm.core.random import RNG
from causalrm.core.result import COLUMNS, Assumption, Result, check_level
from causalrm.core.table import Section, Table, section

if TYPE_CHECKING:
    from causalrm.calibration.plots import CalibrationPlots

Floats = NDArray[np.float64]

SMALL_ROWS = 100
SMALL_EVENTS = 10


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CalibrationReport(Result):
    """What `calibration_report` returns.

    Attributes
    ----------
    level : float
        Of all intervals; they come from simulations, so another level needs another report.
    estimates : pandas.DataFrame
        A row per group (the first is "all") and measure. Beside the usual columns:
        `if_calibrated`, the value (of estimates with an upward bias, the mean) under perfect
        calibration, which `statistic` and `p_value` test, and `corrected`, the estimate less
        its bias (median unbiased).
    groups : pandas.DataFrame
        `group, n, positive, score, note`; small groups carry a note.
    contrasts : pandas.DataFrame
        Each group less the rest, bias taken off; `p_adjusted` is Holm's over the groups.
    curve : pandas.DataFrame
        `group, p, weight, loess, conf_low, conf_high, isotonic, band_low, band_high`: the curve
        with its pointwise interval, and the isotonic one with the band (pointwise, same level)
        that a calibrated score stays in.
    histogram : pandas.DataFrame
        Weight of either outcome in 20 intervals of the score.
    decision : pandas.DataFrame
        See `decision_curve`.
    """

    level: float
    estimates: pd.DataFrame
    groups: pd.DataFrame
    contrasts: pd.DataFrame
    curve: pd.DataFrame
    histogram: pd.DataFrame
    decision: pd.DataFrame

    def to_frame(self, level: float | None = None) -> pd.DataFrame:
        """Return the estimates; `level`, if given, must be that of the report.

        Raises
        ------
        DataError
            For another level: its intervals would need the rows again.
        """
        if level is not None and level != self.level:
            raise DataError(
                f"The intervals of this report have level {self.level:g}; for {level:g} call "
                f"calibration_report(..., level={level:g})."
            )
        return self.estimates.copy()

    def __getitem__(self, term: str) -> dict[str, float]:
        """Row of one measure for all rows together: ``report["ece"]["conf_high"]``."""
        frame = self.estimates[self.estimates["group"] == "all"].set_index("term")
        if term not in frame.index:
            raise DataError(f"No measure {term!r}; there are {', '.join(frame.index)}.")
        row: Any = frame.drop(columns="group").loc[term]
        return {str(name): float(value) for name, value in row.items()}

    @property
    def plot(self) -> CalibrationPlots:
        """Plots: ``report.plot()`` and ``report.plot.<kind>()``."""
        from causalrm.calibration.plots import CalibrationPlots

        return CalibrationPlots(self)

    def _fit_lines(self, level: float) -> list[tuple[str, str]]:
        d = self.diagnostics
        floor = d["noise_floor"]
        lines = [
            (
                "Noise floor of the ECE",
                f"{floor['expected']:.4f} expected of a calibrated score of this size, "
                f"{floor['upper']:.4f} at {self.level:.0%}; excess {floor['excess']:.4f}, "
                f"p = {floor['p_value']:.3f}",
            ),
            ("Distinct scores", f"{d['distinct']:,}"),
            ("Scores of 0 and of 1", f"{d['zeros']:,} and {d['ones']:,}"),
            ("Scores clipped for logits", f"{d['clipped']:,}, to [1e-6, 1 - 1e-6]"),
            ("Infinite log losses", f"{d['infinite']:,}"),
        ]
        if d["unscored"]:
            lines.append(("Rows without a score", _unscored_text(d["unscored"])))
        for key, label in (("zero_weights", "Rows of weight zero"), ("clusters", "Clusters")):
            if d[key] is not None:
                lines.append((label, f"{d[key]:,}"))
        if d["empty_bins"]:
            lines.append(("Bins without rows", f"{d['empty_bins']:,}"))
        return lines + _gaps(d["missing"])

    def summary(self, level: float | None = None) -> Table:
        """Return all of it as a table."""
        frame = self.to_frame(level)
        shown = ["term", "estimate", "std_error", "p_value", "conf_low", "conf_high", "corrected"]
        everybody = frame.loc[frame["group"] == "all", shown]
        first = self.groups.iloc[0]
        sections = [
            Section(
                rows=(
                    ("Observations", f"{self.n_obs:,}"),
                    ("With outcome 1", f"{first['positive']:,.0f}"),
                    ("Options", ", ".join(f"{a} = {b}" for a, b in self.call["options"].items())),
                )
            ),
            section(everybody.reset_index(drop=True), "Measures", self.level),
        ]
        if len(self.groups) > 1:
            key = frame[frame["term"].isin(KEY)]
            some = self.contrasts[self.contrasts["term"].isin(KEY)].reset_index(drop=True)
            usual = ["group", *shown[:2], "conf_low", "conf_high"]
            sections += [
                section(self.groups, "Groups"),
                section(key[usual].reset_index(drop=True), "Measures by group", self.level),
                section(some[[*usual, "p_adjusted"]], "Group less the rest", self.level),
            ]
        sections += [
            Section("Data", rows=tuple(self._fit_lines(self.level))),
            *self._remarks(),
        ]
        notes = (
            "Measures of the size of the gap (ece to ecce, mcb) are biased upwards; their "
            "intervals are for the population's value and may lie below the estimate.",
        )
        return Table("Calibration report", tuple(sections), notes)

    def to_html(self, path: str | Path | None = None) -> str:
        """Return a page that needs nothing else, with tables, plots and TRIPOD+AI items.

        Parameters
        ----------
        path : str or pathlib.Path, optional
            Where to write it.
        """
        text = page(self)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text


def _gaps(missing: list[str]) -> list[tuple[str, str]]:
    """Put what lacks a value or an interval together by group and reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for text in missing:
        parts = re.fullmatch(r"([\w ]+?)(?: in (.+?))?: (.*)", text, re.DOTALL)
        name, group, reason = parts.groups("") if parts else (text, "", "")
        found.setdefault((group, reason), []).append(name)
    return [
        (f"No value or interval{group and f' in {group}'}", f"{', '.join(names)}: {reason}")
        for (group, reason), names in found.items()
    ]


# --- parts -------------------------------------------------------------------------------------


def _measures(s: Scored, level: float, group: str) -> tuple[pd.DataFrame, list[str]]:
    rows, missing = [], []
    for measure in est.ORDER:
        f = measure(s, level)
        e = f.estimate
        rows.append(
            [group, e.name, e.estimate, e.std_error, f.statistic, e.p_value]
            + [e.conf_low, e.conf_high, f.corrected, f.null]
        )
        if f.reason:
            missing.append(f"{e.name}{'' if group == 'all' else f' in {group}'}: {f.reason}")
    return pd.DataFrame(rows, columns=["group", *COLUMNS, "corrected", "if_calibrated"]), missing


def _curve(s: Scored, level: float, group: str) -> pd.DataFrame:
    c = s.cells
    gap = s.smoother @ (c.residual / c.weight)
    fit = s.isotonic
    block = np.searchsorted(s.ties.value[fit.start], c.p, side="right") - 1
    nothing = np.full(c.p.size, math.nan)
    low = high = band_low = band_high = nothing
    if s.n_boot:
        # The draws of the loess curve exist already: those of the ICI.
        spread = est.curve_statistics(s)["ici"].noise1.std(axis=0)
        half = quantile(level, s.df) * spread
        low, high = np.clip(c.p + gap - half, 0, 1), np.clip(c.p + gap + half, 0, 1)
        band_low, band_high = cells.consistency_band(s.samples, level)
    return pd.DataFrame(
        {
            "group": group,
            "p": c.p,
            "weight": c.weight / c.weight.sum(),
            "loess": np.clip(c.p + gap, 0.0, 1.0),
            "conf_low": low,
            "conf_high": high,
            "isotonic": fit.value[block],
            "band_low": band_low,
            "band_high": band_high,
        }
    )


def _histogram(s: Scored) -> pd.DataFrame:
    edges = np.arange(21) / 20
    at = np.append(np.searchsorted(s.ties.value, edges[:-1]), s.ties.value.size)
    zero, one = (rank.segment_sums(at, x) for x in (s.ties.negative, s.ties.positive))
    total = zero.sum() + one.sum()
    return pd.DataFrame(
        {
            "p_low": edges[:-1],
            "p_high": edges[1:],
            "negative": zero / total,
            "positive": one / total,
        }
    )


def calibration_report(
    y: ArrayLike,
    p: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    cluster: ArrayLike | None = None,
    replicate_weights: ArrayLike | None = None,
    bins: int | list[float] = 10,
    strategy: str = "width",
    thresholds: ArrayLike | None = None,
    level: float = 0.95,
    n_boot: int = 1000,
    rng: RNG = 0,
) -> CalibrationReport:
    """Every measure of calibration, with intervals, curves, groups and net benefit.

    Parameters
    ----------
    y : array-like of shape (n,)
        Outcomes, 0/1 or bool.
    p : array-like of shape (n,)
        Scores in [0, 1]; 0 and 1 are kept. NaN means that there is no score, such as a failed
        reply: these rows are counted and compared with the others, and enter no measure.
    weights, cluster, replicate_weights, bins, strategy, level, n_boot, rng
        As in `ece`.
    groups : array-like of shape (n,), optional
        Labels: every measure per group, and its contrast with the rest. Groups of fewer than
        100 rows or 10 rows of either outcome are flagged, not dropped.
    thresholds : array-like, optional
        Of the decision curve; 0.01 to 0.99 by default.

    Returns
    -------
    CalibrationReport

    Raises
    ------
    DataError
        When outcomes, scores, weights or labels are incomplete or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> p = rng.uniform(size=500)  # simulated scores
    >>> y = rng.uniform(size=500) < 0.2 + 0.5 * p
    >>> report = calibration_report(y, p, n_boot=200)
    >>> row = report["calibration_slope"]
    >>> print(f"{row['estimate']:.2f} [{row['conf_low']:.2f}, {row['conf_high']:.2f}]")
    0.39 [0.26, 0.52]
    """
    level = check_level(level)
    rows, unscored = _scored_rows(y, p)
    if rows is not None:
        y, p = np.asarray(y)[rows], np.asarray(p, dtype=float)[rows]
        weights, groups, cluster, replicate_weights = (
            None if x is None else x.iloc[rows] if hasattr(x, "iloc") else np.asarray(x)[rows]
            for x in (weights, groups, cluster, replicate_weights)
        )
    s = Scored(
        y,
        p,
        weights=weights,
        cluster=cluster,
        replicate_weights=replicate_weights,
        bins=bins,
        strategy=strategy,
        n_boot=n_boot,
        rng=rng,
    )
    t = np.arange(1, 100) / 100 if thresholds is None else thresholds
    labels = check_labels(groups, s.n, "groups") if groups is not None else None
    if unscored:
        warn(_unscored_text(unscored), log=s.log)
    with blas_limit(1):
        return _build(s, labels, t, level, unscored)


def _scored_rows(y: ArrayLike, p: ArrayLike) -> tuple[NDArray[np.bool_] | None, dict[str, float]]:
    """Rows that have a score (None for all), and what is known of the others."""
    score = np.asarray(p)
    if score.dtype.kind not in "fO" or score.ndim != 1:
        return None, {}
    absent = np.asarray(pd.isna(score))
    n = int(absent.sum())
    if n == 0 or np.shape(y) != score.shape:
        return None, {}
    outcome = np.asarray(y)
    share = float(np.mean(outcome[absent] == 1))
    rest = float(np.mean(outcome[~absent] == 1)) if n < score.size else math.nan
    facts = {"n": n, "share": n / score.size, "prevalence": share, "prevalence_scored": rest}
    return ~absent, facts


def _unscored_text(facts: dict[str, float]) -> str:
    return (
        f"{facts['n']:,} rows ({facts['share']:.1%}) have no score and enter no measure; the "
        f"outcome is 1 in {facts['prevalence']:.1%} of them and in "
        f"{facts['prevalence_scored']:.1%} of the others."
    )


def _build(
    s: Scored,
    labels: tuple[NDArray[np.int64], list[Any]] | None,
    thresholds: ArrayLike,
    level: float,
    unscored: dict[str, float],
) -> CalibrationReport:
    whole, missing = _measures(s, level, "all")
    frames, curves = [whole], [_curve(s, level, "all")]
    counts = [_count(s, "all")]
    contrasts = pd.DataFrame(columns=["group", *COLUMNS, "p_adjusted"])
    if labels is not None:
        codes, levels = labels
        names = [str(v) for v in levels]
        if "all" in names or len(set(names)) < len(names):
            raise DataError("Labels of groups must differ as text, and none may be 'all'.")
        parts = [part_of(s, codes == g, g) for g in range(len(names))]
        for part, name in zip(parts, names, strict=True):
            counts.append(_count(part, name))
            if not usable(part):
                missing.append(f"every measure in {name}: fewer than two rows with weight")
                continue
            frame, reasons = _measures(part, level, name)
            frames.append(frame)
            missing += reasons
            curves.append(_curve(part, level, name))
        contrasts = group_contrasts(s, codes, parts, names, level)
        small = [c["group"] for c in counts[1:] if c["note"]]
        if small:
            warn(f"Small groups, whose intervals are unreliable: {', '.join(small)}.", log=s.log)
    floor = noise_floor_of(s, level)
    b = s.bins
    diagnostics = {
        "noise_floor": {
            key: getattr(floor, key)
            for key in ("observed", "expected", "excess", "upper", "p_value")
        },
        "unscored": unscored,
        "distinct": int(s.ties.value.size),
        "zeros": int(np.count_nonzero(s.p == 0.0)),
        "ones": int(np.count_nonzero(s.p == 1.0)),
        "clipped": s.logit[1],
        "infinite": s.moments.n_infinite,
        "zero_weights": None if s.w is None else int(np.count_nonzero(s.w == 0.0)),
        "clusters": s.n_clusters or None,
        "empty_bins": int(np.count_nonzero(b.weight == 0.0)),
        "missing": missing,
    }
    options = {
        "bins": s._bins if isinstance(s._bins, int) else list(s._bins),
        "strategy": s._strategy,
        "level": level,
        "n_boot": s.n_boot,
    }
    return CalibrationReport(
        call={"estimator": "calibration_report", "options": options, "roles": {}},
        n_obs=s.n,
        entropy=s.entropy,
        assumptions=_assumptions(s),
        diagnostics=diagnostics,
        warnings=tuple(s.log),
        level=level,
        estimates=pd.concat(frames, ignore_index=True),
        groups=pd.DataFrame(counts),
        contrasts=contrasts,
        curve=pd.concat(curves, ignore_index=True),
        histogram=_histogram(s),
        decision=decision_frame(s, thresholds, level),
    )


def _count(s: Scored, group: str) -> dict[str, Any]:
    y, w = s.y, s.w
    n, positive = s.n, int(y.sum())
    score = float(s.p.mean()) if n else math.nan
    if w is not None:
        n, positive = int(np.count_nonzero(w)), int(y[w > 0.0].sum())
        score = float(np.average(s.p, weights=w)) if n else math.nan
    few = group != "all" and (n < SMALL_ROWS or min(positive, n - positive) < SMALL_EVENTS)
    note = f"small: {n} rows, {positive} with outcome 1" if few else ""
    return {"group": group, "n": n, "positive": positive, "score": score, "note": note}


def _assumptions(s: Scored) -> tuple[Assumption, ...]:
    if s.replicates is not None:
        unit = "The replicate weights describe how the sample was drawn"
    elif s.cluster is not None:
        unit = f"The {s.n_clusters:,} clusters are independent of one another"
    else:
        unit = "Rows are independent of one another"
    return (
        Assumption(
            "Independence",
            unit,
            "repeat with cluster= set to questions, templates or persons; wider intervals "
            "speak against it",
        ),
        Assumption(
            "Representativeness",
            "Rows, weighted where weights were given, are a sample of the population meant",
            "compare counts and score histogram with the population; repeat under weights",
        ),
        Assumption(
            "No selection on the outcome",
            "Rows left out for want of a score or an outcome are like those here",
            "compare their number and covariates with those of the rows used",
        ),
    )
