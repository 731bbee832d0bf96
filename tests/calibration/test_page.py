"""The page for reviewers: readings, hard cases, and what it claims to cover."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from causalrm import calibration as cal
from causalrm.calibration.page import MEANING
from causalrm.core.errors import CausalRMWarning


class Text(HTMLParser):
    """Collects the text, and checks that tags close in order."""

    def __init__(self, page):
        super().__init__()
        self.open, self.text = [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def text_of(page):
    return " ".join(" ".join(Text(page).text).split())


def simulated(n, factor, shift=0.0, seed=0):
    """Outcomes and scores whose log-odds are the true ones times a factor, plus a shift."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(size=n)
    y = rng.uniform(size=n) < 1 / (1 + np.exp(-logit))
    return y.astype(int), 1 / (1 + np.exp(-(factor * logit + shift)))


@pytest.mark.parametrize(
    ("factor", "shift", "words"),
    [
        (2.0, 0.0, ("the scores are too extreme", "no clear difference")),
        (0.5, 0.0, ("the scores are too timid", "no clear difference")),
        (1.0, 1.0, ("neither clearly too extreme nor too timid", "more was forecast than")),
        (1.0, -1.0, ("neither clearly too extreme nor too timid", "less was forecast than")),
    ],
)
def test_readings_say_which_way(factor, shift, words):
    report = cal.calibration_report(*simulated(3000, factor, shift), n_boot=100)
    text = text_of(report.to_html())
    for word in words:
        assert word in text
    assert f"ECE {report['ece']['estimate']:.3f}" in text
    assert f"{report.diagnostics['noise_floor']['expected']:.3f} by chance" in text


def test_hard_cases_are_told():
    rng = np.random.default_rng(0)
    y, p = simulated(400, 1.0)
    p = p.round(1)
    p[:3], y[:3] = (0.0, 1.0, 0.0), (1, 0, 0)
    group = np.array(["a & <b>", "one class"])[rng.integers(2, size=400)].astype(object)
    group[:5], y[group == "one class"] = "five", 1
    p[rng.permutation(np.arange(5, 400))[:160]] = np.nan
    weights = rng.uniform(size=400)
    weights[::9] = 0.0
    with pytest.warns(CausalRMWarning):
        report = cal.calibration_report(y, p, groups=group, weights=weights, n_boot=100)
    page = report.to_html()
    text = text_of(page)
    assert "240 scored rows; " in text and "160 further rows have no score" in text
    assert "Small groups, whose intervals are unreliable: a & <b>, five, one class." in text
    assert "No value or interval in one class" in text and "auc, scaled_brier, unc" in text
    assert "Rows of weight zero" in text and "(weighted)" in text
    assert "a & <b> (small)" in {t.get_text() for t in report.plot().get_legend().get_texts()}
    assert "<b>" not in re.sub(r"<b>[A-Z][\w ]+\.</b>", "", page)  # titles only, no label


def test_one_class_has_no_slope():
    report = cal.calibration_report(np.ones(50, int), np.tile([0.0, 1.0], 25), n_boot=100)
    text = text_of(report.to_html())
    assert "Slope – cannot be computed; see Data" in text
    assert "AUC – cannot be computed; see Data" in text


def test_every_measure_is_explained():
    report = cal.calibration_report(*simulated(300, 1.0), n_boot=100)
    assert set(MEANING) == set(report.estimates["term"])


def test_checklist_items():
    """Items of TRIPOD+AI; clusters (23b), updating (24) and fairness (14) are not claimed."""
    y, p = simulated(600, 1.0)
    for groups in (None, np.arange(600) % 2):
        page = cal.calibration_report(y, p, groups=groups, n_boot=100).to_html()
        part = page[page.index("TRIPOD+AI items covered") :]
        claimed = re.findall(r"<dt>(\w+) ", part)
        assert claimed == ["11", "12e", "20a", "20b", "21", "23a"]
        assert ("also by group" in part) == (groups is not None)
        assert "12d, 23b" in part and "{groups}" not in part
