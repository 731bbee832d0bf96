"""A calibration report as a page for a reviewer, who may know neither Python nor this package."""

from __future__ import annotations

import html
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pandas as pd

from causalrm.core.format import percent, text_of_p, text_of_test
from causalrm.core.table import Section, Table

if TYPE_CHECKING:
    from causalrm.calibration.report import CalibrationReport

KEY = ("observed_expected", "calibration_slope", "ece", "auc", "brier")

MEANING = {
    "prevalence": "share of rows with outcome 1",
    "mean_score": "mean of the scores; the prevalence, if scores are right on average",
    "observed_expected": "prevalence over mean score; 1 if scores are right on average",
    "calibration_in_the_large": "shift of all log-odds that makes the scores right on average; 0 "
    "if they are",
    "calibration_slope": "factor on the log-odds that fits the outcomes best; 1 if calibrated, "
    "below 1 if scores are too extreme, above 1 if too timid",
    "spiegelhalter_z": "test of calibration: Brier score against what the scores promise",
    "ece": "expected calibration error: mean gap between outcomes and scores in bins of the score",
    "squared_error": "the same with squared gaps, less what noise adds to them",
    "smooth_ece": "calibration error without bins, by smoothing as far as the gap itself",
    "ici": "integrated calibration index: mean gap between a smooth reliability curve and the "
    "diagonal",
    "e50": "median of that gap over the rows",
    "e90": "90th percentile of that gap",
    "emax": "largest of those gaps",
    "ecce": "largest sum of outcomes less scores over a range of scores, per row",
    "auc": "chance that a row with outcome 1 has a higher score than one with outcome 0; 0.5 is "
    "chance, 1 perfect",
    "brier": "mean squared difference of outcome and score; 0 is perfect",
    "scaled_brier": "share of the prevalence's Brier score that the scores save",
    "log_loss": "mean of minus the log of the probability given to what happened; infinite if "
    "something declared impossible happened",
    "mcb": "miscalibration: the part of the Brier score that recalibration could remove",
    "dsc": "discrimination: the part of the uncertainty that recalibrated scores explain",
    "unc": "uncertainty: Brier score of the prevalence; brier = mcb - dsc + unc",
}

TRIPOD = (
    ("11", "Missing data", "number of rows without a score, and their outcomes; not the reasons"),
    ("12e", "Measures and plots used", "calibration, discrimination and net benefit, in words"),
    ("20a", "Participants", "numbers with and without the outcome; not their flow"),
    ("20b", "Characteristics", "sample size, outcome events and missing scores; not predictors"),
    ("21", "Numbers in each analysis", "rows and outcome events{groups}"),
    ("23a", "Performance", "estimates with confidence intervals, and plots{groups}"),
)
"""Items of the TRIPOD+AI checklist (Collins et al. 2024, BMJ 385:e078378) that are on the page,
at least in part; `{groups}` stands where there are groups."""

CAPTIONS = {
    "Reliability curve": "How often the outcome was 1 at each score. On the diagonal the scores "
    "mean what they say. Isotonic curve (steps) outside the grey band: more than noise. Bars: "
    "where the scores are.",
    "Decision curve": "Net benefit of acting where the score exceeds the threshold. Acting on the "
    "score is worth while where its curve is above both treating all and treating none (0).",
    "Parts of the Brier score": "Brier score = MCB - DSC + UNC. MCB is what recalibration could "
    "remove.",
}

STYLE = """
body{font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
color:#1a1a1a;background:#fff;max-width:68rem;margin:0 auto;padding:1.5rem 1rem 3rem}
h1{font-size:1.8rem;margin:0 0 .3rem}h2{font-size:1.25rem;margin:2.2rem 0 .5rem}
h3{font-size:1rem;margin:1.2rem 0 .3rem}ul{padding-left:1.2rem;margin:.4rem 0}

p{margin:.4rem 0}.small,figcaption{font-size:.85rem;color:#444}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));
gap:1.5rem 2rem;align-items:start}
figure{margin:0}img{display:block;width:100%;max-width:40rem;height:auto}
.short{border-collapse:collapse}.short td,.short th{padding:.3rem .9rem .3rem 0;text-align:left;
vertical-align:top;border-bottom:1px solid #ddd;font-variant-numeric:tabular-nums}
.short td:nth-child(2){white-space:nowrap}
dl{display:grid;grid-template-columns:minmax(7rem,max-content) 1fr;gap:.25rem 1.2rem;margin:.5rem 0}
dt{font-weight:600}dd{margin:0;overflow-wrap:anywhere}
@media(max-width:40rem){dl{display:block}dd{margin:0 0 .5rem}
.short tr{display:block;padding:.4rem 0;border-bottom:1px solid #ddd}.short thead{display:none}
.short td{display:block;border:0;padding:0}.short td:first-child{font-weight:600}}
"""


def page(report: CalibrationReport) -> str:
    """Write the page."""
    summary = report.summary()
    sections = {section.heading: section for section in summary._shown()}
    grouped = len(report.groups) > 1
    figures = "\n".join(
        f'<figure><img alt="{html.escape(title)}" src="{uri}"><figcaption><b>'
        f"{html.escape(title)}.</b> {html.escape(CAPTIONS.get(title, ''))}</figcaption></figure>"
        for title, uri in report.plot.images()
    )
    meanings = [(t, MEANING[t]) for t in dict.fromkeys(report.estimates["term"]) if t in MEANING]
    also = ", also by group" if grouped else ""
    items = [(f"{n} {topic}", text.format(groups=also)) for n, topic, text in TRIPOD]
    versions = ", ".join(f"{a} {b}" for a, b in report.versions.items())
    options = ", ".join(f"{a} = {b}" for a, b in report.call["options"].items())
    parts = [
        "<h1>Calibration report</h1>",
        f"<p>{_lead(report)}</p>",
        "<h2>In short</h2>",
        _short(report),
        f'<h2>Curves</h2>\n<div class="figures">\n{figures}\n</div>',
        *_part("Warnings", sections.get("Warnings")),
        "<h2>Measures</h2>",
        Table("", (sections["Measures"],)).to_html(),
        *(f'<p class="small">{html.escape(note)}</p>' for note in summary.notes),
        *(_groups(report, sections["Groups"]) if grouped else ()),
        *_part("Data", sections.get("Data")),
        *_part("Assumptions", sections.get("Assumptions")),
        "<h2>Measures in words</h2>",
        _pairs(meanings),
        "<h2>TRIPOD+AI items covered</h2>",
        _pairs(items),
        '<p class="small">Items of the checklist for evaluating a model (Collins et al. 2024, BMJ '
        "385:e078378). Not covered here: heterogeneity across clusters (12d, 23b), unless the "
        "groups are these clusters; model updating (12f, 24), unless the scores are the updated "
        "ones; fairness (14), of which performance in groups is one part; all other items.</p>",
        f'<p class="small">Options: {html.escape(options)}. {html.escape(versions)}. Random '
        f"numbers from {report.entropy}.</p>",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Calibration report</title><style>{STYLE}</style></head><body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _pairs(rows: list[tuple[str, str]]) -> str:
    lines = (f"<dt>{html.escape(a)}</dt><dd>{html.escape(b)}</dd>" for a, b in rows)
    return "<dl>\n" + "\n".join(lines) + "\n</dl>"


def _part(title: str, section: Section | None) -> list[str]:
    if section is None:
        return []
    rows = [(row[0], row[1]) for row in section.rows]
    if title != "Warnings":
        return [f"<h2>{title}</h2>", _pairs(rows)]
    items = (f"<li>{html.escape(text)}</li>" for _, text in rows)
    return [f"<h2>{title}</h2>", "<ul>", *items, "</ul>"]


def _groups(report: CalibrationReport, counts: Section) -> list[str]:
    """Lay out the key measures with a row per group."""
    return [
        "<h2>Groups</h2>",
        Table("", (counts,)).to_html(),
        "<h3>Measures by group</h3>",
        _wide(report.estimates, _interval),
        "<h3>Each group less the rest</h3>",
        _wide(report.contrasts, _interval),
        "<h3>p-values of these differences, adjusted for the number of groups (Holm)</h3>",
        _wide(report.contrasts, lambda row: text_of_p(row["p_adjusted"]) or "\u2013"),
    ]


def _wide(frame: pd.DataFrame, cell: Callable[[pd.Series[Any]], str]) -> str:
    rows = []
    for group, part in frame.groupby("group", sort=False):
        lines = part.set_index("term").reindex(KEY)
        rows.append((str(group), *(cell(line) for _, line in lines.iterrows())))
    return Table("", (Section("", ("group", *KEY), tuple(rows)),)).to_html()


def _interval(row: pd.Series[Any]) -> str:
    if math.isnan(row["estimate"]):
        return "\u2013"
    text = f"{row['estimate']:.3f}"
    if math.isnan(row["conf_low"]):
        return text
    return f"{text} [{row['conf_low']:.3f}, {row['conf_high']:.3f}]"


def _lead(report: CalibrationReport) -> str:
    d, n = report.diagnostics, report.n_obs
    share, score = (report[name]["estimate"] for name in ("prevalence", "mean_score"))
    clusters = f" in {d['clusters']:,} clusters" if d["clusters"] else ""
    weighted = " (weighted)" if d["zero_weights"] is not None else ""
    text = (
        f"{n:,} scored rows{clusters}; the outcome is 1 in {share:.1%} and the mean score is "
        f"{score:.1%}{weighted}. Intervals have level {percent(report.level)}."
    )
    if d["unscored"]:
        text += f" {d['unscored']['n']:,} further rows have no score."
    return text


def _short(report: CalibrationReport) -> str:
    """Answer the five questions that come first."""
    floor = report.diagnostics["noise_floor"]
    mcb = report["mcb"]["estimate"]
    rows = [
        ("Right on average?", "observed_expected", "Observed/expected",
         _reading(report, "observed_expected", "more was forecast than happened",
                  "less was forecast than happened", "no clear difference")),
        ("As extreme as they should be?", "calibration_slope", "Slope",
         _reading(report, "calibration_slope", "the scores are too extreme",
                  "the scores are too timid", "neither clearly too extreme nor too timid")),
        ("How large is the gap?", "ece", "ECE",
         f"calibrated scores would show {floor['expected']:.3f} by chance "
         f"({text_of_test(floor['p_value'])})"),
        ("What does it cost?", "brier", "Brier score",
         f"recalibration could take off at most some {mcb:.3f} (MCB)"),
        ("Does it rank well?", "auc", "AUC",
         "chance that a row with outcome 1 is above one with 0"),
    ]  # fmt: skip
    lines = []
    for question, term, name, reading in rows:
        value = pd.Series(report[term])
        shown = f"{name} {_interval(value)}"
        if math.isnan(value["estimate"]):
            reading = "cannot be computed; see Data"
        cells = "".join(f"<td>{html.escape(x)}</td>" for x in (question, shown, reading))
        lines.append(f"<tr>{cells}</tr>")
    head = "<thead><tr><th>Question</th><th>Measure</th><th>Reading</th></tr></thead>"
    return f'<table class="short">{head}<tbody>\n' + "\n".join(lines) + "\n</tbody></table>"


def _reading(report: CalibrationReport, term: str, below: str, above: str, neither: str) -> str:
    """Say on which side of 1 the interval is."""
    value = report[term]
    if value["conf_high"] < 1.0:
        return below
    return above if value["conf_low"] > 1.0 else neither
