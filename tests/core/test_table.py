from __future__ import annotations

import math
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import causalrm as crm
from causalrm import DataError, Table
from causalrm.core.format import number, text_of_numbers, text_of_p
from causalrm.core.result import Assumption, LikelihoodResult
from causalrm.core.table import Section, section


def fit(
    terms: Mapping[tuple[str, str], tuple[float, float]], estimator: str = "Survival", **fields: Any
) -> LikelihoodResult:
    given: dict[str, Any] = {
        "call": {"estimator": estimator, "options": {"phi": "trt + age"}, "roles": {"time": "t"}},
        "n_obs": 1284,
        "parameter": tuple(p for p, _ in terms),
        "term": tuple(t for _, t in terms),
        "estimates": np.array([b for b, _ in terms.values()]),
        "covariances": {"model": np.diag([se**2 for _, se in terms.values()])},
        "covariance": "model",
        "loglik": -367.91563,
        "n_params": len(terms),
    }
    return LikelihoodResult(**given | fields)


ONE = fit(
    {
        ("phi", "Intercept"): (0.6644, 0.1490),
        ("phi", "C(trt)[T.interferon]"): (-0.5598, 0.2263),
        ("gamma", "Intercept"): (0.4639, 0.1041),
        ("kappa", "kappa"): (-0.3982, 0.0279),
    },
    assumptions=(
        Assumption(
            "Independent censoring",
            "Given trt, censoring at t says nothing about the event that was not seen.",
            "None is possible from these data; plot.censoring() shows censoring by trt.",
        ),
    ),
    warnings=("The plateau rests on 34 people.",),
)
TWO = fit(
    {
        ("phi", "Intercept"): (0.7, 0.15),
        ("phi", "age"): (-0.000598, 0.000226),
        ("gamma", "age"): (12.5, math.nan),
    }
)

SUMMARY = """\
Survival
================================================================================
Options           phi = trt + age
Columns           time = t
Observations      1,284
--------------------------------------------------------------------------------
Coefficients            estimate  std. error   stat.       p        95% interval
--------------------------------------------------------------------------------
phi
  Intercept               0.6644      0.1490    4.46  <0.001  [ 0.3724,  0.9564]
  C(trt)[T.interferon]   -0.5598      0.2263   -2.47   0.013  [-1.0033, -0.1163]
gamma
  Intercept               0.4639      0.1041    4.46  <0.001  [ 0.2599,  0.6679]
kappa                    -0.3982      0.0279  -14.27  <0.001  [-0.4529, -0.3435]
--------------------------------------------------------------------------------
Fit
  Log-likelihood  -367.9156 (4 parameters)
  AIC, BIC        743.831, 764.462
  Covariance      model, normal quantiles
--------------------------------------------------------------------------------
Assumptions
  Independent censoring (untested)
      Given trt, censoring at t says nothing about the event that was not seen.
      Diagnostic: None is possible from these data; plot.censoring() shows
      censoring by trt.
--------------------------------------------------------------------------------
Warnings
  1  The plateau rests on 34 people.
================================================================================"""

SIDE_BY_SIDE = """\
============================================
                             (1)         (2)
--------------------------------------------
phi
  Intercept              0.6644    0.700
                        (0.1490)  (0.150)
  C(trt)[T.interferon]  -0.5598
                        (0.2263)
  age                             -0.000598
                                  (0.000226)
gamma
  Intercept              0.4639
                        (0.1041)
  age                             12.50
kappa                   -0.3982
                        (0.0279)
--------------------------------------------
Observations              1,284       1,284
Log-likelihood          -367.92     -367.92
AIC                      743.83      741.83
BIC                      764.46      757.30
Covariance                model       model
============================================
Standard errors in parentheses."""


def test_summary_looks_like_this() -> None:
    assert str(ONE.summary()) == SUMMARY


def test_side_by_side_looks_like_this() -> None:
    assert str(crm.table(ONE, TWO)) == SIDE_BY_SIDE


def test_side_by_side_cells() -> None:
    rows = {row[0]: row[1:] for row in crm.table(ONE, TWO, stars=True).sections[0].rows}
    assert [cell.strip() for cell in rows["  C(trt)[T.interferon]"]] == ["-0.5598*", ""]
    assert [cell.strip() for cell in rows["kappa"]] == ["-0.3982***", ""]
    intervals = crm.table(ONE, TWO, statistic="interval", level=0.9, names=["a", "b"])
    assert intervals.sections[0].columns == ("", "a", "b")
    assert intervals.notes == ("90% intervals in brackets.",)
    assert "[-0.9320, -0.1876]" in str(intervals)


def test_fits_of_different_kinds() -> None:
    other = SimpleNamespace(
        to_frame=lambda level: pd.DataFrame({"term": ["ate"], "estimate": [1.5], "group": ["b"]}),
        n_obs=5,
    )
    third = fit({("phi", "Intercept"): (0.1, 0.1)}, estimator="Preference")
    text = str(crm.table(ONE, other, third))
    assert re.search(r"Estimator +Survival +Preference", text)
    assert re.search(r"Observations +1,284 +5 +1,284", text)
    assert re.search(r"b\n +ate +1.500", text)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (((), {}), "needs fitted estimators or results; got none"),
        (((3,), {}), "got .'int'"),
        (((ONE,), {"names": ["a", "b"]}), "1 fits, 2 names"),
        (((ONE,), {"statistic": "t"}), "statistic must be"),
        (((ONE,), {"level": 2}), "level must lie"),
        (((SimpleNamespace(to_frame=lambda level: pd.DataFrame({"x": [1]})),), {}), "'term' and"),
        (((crm.SurvivalRegression(),), {}), "call fit first"),
    ],
)
def test_bad_arguments(arguments: tuple[Any, Any], match: str) -> None:
    with pytest.raises(crm.CausalRMError, match=match):
        crm.table(*arguments[0], **arguments[1])


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("value", "places", "text"),
    [
        (-0.0004, 2, "0.00"), (-0.6, 0, "-1"), (1234.5, 1, "1234.5"), (2.5e8, 3, "2.5e+08"),
        (1.234e-9, 11, "1.23e-09"), (math.nan, 2, ""), (math.inf, 2, "inf"), (-math.inf, 0, "-inf"),
    ],
)  # fmt: skip
def test_number(value: float, places: int, text: str) -> None:
    assert number(value, places) == text


def test_p_values() -> None:
    texts = [text_of_p(p) for p in (0.0, 0.000999, 0.001, 0.0499, 1.0, math.nan)]
    assert texts == ["<0.001", "<0.001", "0.001", "0.050", "1.000", ""]


def test_decimals_follow_the_standard_error() -> None:
    assert text_of_numbers([1234.567, 12.3, 1210.4, 1258.7]) == [
        "1234.6",
        "12.3",
        "1210.4",
        "1258.7",
    ]
    far = {"term": list("abc"), "estimate": [1.0, 200, 0], "std_error": [0.001, 30, math.nan]}
    assert [row[1] for row in section(pd.DataFrame(far)).rows] == [
        "1.00000",
        "200.0    ",
        "0      ",
    ]
    near = far | {"std_error": [0.1, 0.012, math.nan]}
    assert [row[1:] for row in section(pd.DataFrame(near)).rows] == [
        ("1.0000", "0.1000"), ("200.0000", "0.0120"), ("0.0000", ""),
    ]  # fmt: skip


@given(
    st.lists(
        st.tuples(st.floats(), st.floats(min_value=0), st.floats(), st.floats()),
        min_size=1,
        max_size=6,
    )
)
def test_any_numbers_fit(rows: list[tuple[float, float, float, float]]) -> None:
    frame = pd.DataFrame(rows, columns=["estimate", "std_error", "conf_low", "conf_high"])
    frame.insert(0, "term", [f"x{i}" for i in range(len(rows))])
    text = str(Table("T", (section(frame),)))
    assert max(map(len, text.splitlines())) <= 88
    assert "nan" not in text


# ---------------------------------------------------------------- frames of other kinds


def test_any_frame() -> None:
    frame = pd.DataFrame(
        {
            "model": ["weibull", "burr"], "aic": [743.2, 12.5], "k": [4, 5], "valid": [True, False],
            "p_value": [0.0002, math.nan], "missing": [math.nan, math.nan], "r_hat": [1.0, 1.01],
        }
    )  # fmt: skip
    laid = section(frame, "Models")
    assert laid.columns == ("model", "aic", "k", "valid", "p", "R-hat")
    assert [cell.strip() for cell in laid.rows[0]] == [
        "weibull", "743.20", "4", "True", "<0.001", "1.00",
    ]  # fmt: skip
    indexed = section(frame.set_index("model"))
    assert indexed.columns[0] == "model"
    assert section(frame.iloc[:0]).rows == ()


def test_one_group_one_heading() -> None:
    frame = pd.DataFrame({"group": ["a", "a", "b"], "estimate": [1.0, 2, 3], "term": list("xyb")})
    assert [row[0] for row in section(frame).rows] == ["a", "  x", "  y", "b"]


# ---------------------------------------------------------------- layout and escaping


def test_wide_tables_go_on_below() -> None:
    text = str(crm.table(*[ONE] * 9, statistic="interval"))
    assert max(map(len, text.splitlines())) <= 88
    assert all(f"({i})" in text for i in range(1, 10))
    assert text.count("C(trt)[T.interferon]") == text.count("Observations") > 1
    other = crm.table(*[ONE] * 9, TWO, statistic="interval").to_text().split("=\n")
    assert "age" not in text.split("-\n")[0] and other  # a panel has no rows without a value
    narrow = ONE.summary().to_text(width=60)
    assert max(map(len, narrow.splitlines())) <= 60


def test_long_terms_wrap() -> None:
    term = "bs(very_long_column_name_number_one, df=4):C(another_long_column_name)[T.level]"
    text = str(fit({("phi", "Intercept"): (1, 0.1), ("phi", term): (-2, 0.2)}).summary())
    assert max(map(len, text.splitlines())) <= 88
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("  bs("))
    assert "".join(line[2:32].strip() for line in lines[first : first + 3]) == term


class Checker(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


NASTY = r"a_b & 50% <script>alert('x')</script> $y$ #1 {z} ~^ \n | *bold* `c` [T.1]"


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1)
    | st.just(NASTY)
)
def test_nothing_in_a_label_breaks_a_table(label: str) -> None:
    result = fit({("phi", label): (1.0, 0.1), ("phi", "x"): (2.0, 0.1)}, warnings=(label,))
    for made in (crm.table(result, result, names=[label, label]), result.summary()):
        checker = Checker()
        checker.feed(made.to_html())
        assert checker.open == []
        assert " ".join(label.split()) in " ".join("".join(checker.text).split())
        for line in made.to_latex().splitlines():
            if line.endswith(r"\\") and "multicolumn" not in line:
                assert len(re.findall(r"(?<!\\)&", line)) in (1, 2, 5)
            assert not re.search(r"(?<!\\)[#%]|(?<!\\)_", line.replace(r"\textbackslash", ""))
        bars = [
            len(re.findall(r"(?<!\\)(?:\\\\)*\|", line))
            for line in made.to_markdown().splitlines()
            if line.startswith("|")
        ]
        assert set(bars) <= {3, 4, 7}


def test_html_is_escaped_and_whole() -> None:
    text = Table("<b>", (Section(columns=("", "<i>"), rows=(("<u>", "&"),)),), ("<p>",)).to_html()
    assert not re.search(r"<(b|i|u)>", text) and text.count("&lt;") == 4
    assert "class=" not in text and "<style" not in text


def test_latex() -> None:
    text = crm.table(ONE, TWO, stars=True).to_latex(caption="50% of_x", label="tab:fit")
    assert text.startswith(
        "\\begin{table}[htbp]\n\\centering\n\\caption{50\\% of\\_x}\n\\label{tab:fit}"
    )
    cells = r"\quad C(trt)[T.interferon] & $-$0.5598\makebox[1.5em][l]{*} &  \\"
    assert cells in text
    assert r"0.700\phantom{000}\makebox[1.5em][l]{***}" in text  # points under points
    assert r"\makebox[0pt][l]{\footnotesize Standard errors in parentheses.}" in text
    assert r"\multicolumn{3}{l}{\textit{phi}} \\" in text
    assert text.count(r"\midrule") == 2 and text.endswith(r"\end{table}")
    starts = Section(columns=("", "n"), rows=(("[1]", "[2]"), ("*", "2")))
    assert "\n{[}1] & [2] \\\\\n{*} & 2 \\\\" in Table("", (starts,)).to_latex()


def test_markdown() -> None:
    text = crm.table(ONE).to_markdown().splitlines()
    assert text[:4] == [
        "|  | (1) |", "| :--- | ---: |", "| **phi** |  |", "| &emsp;Intercept | 0.6644 |",
    ]  # fmt: skip
    assert r"| &emsp;C(trt)\[T.interferon\] | -0.5598 |" in text


def test_empty() -> None:
    assert str(Table("T", (Section("Nothing"),))) == "T\n===="
    with pytest.raises(DataError):
        crm.table()
