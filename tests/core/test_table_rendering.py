"""Tables as readers see them: HTML and markdown parsed, LaTeX compiled where there is a TeX."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import causalrm as crm
from causalrm.core.table import Section, Table, section
from tests.contract.cases import CASES, Case

NASTY = "g[T.50% & more_x]: #1 $y$ {z} ~a^b \\n |c| <d> \"e\" 'f' `h` *i* ünï"
NASTY_FRAME = pd.DataFrame(
    {
        "parameter": ["phi_%", "phi_%", "&"], "term": [NASTY, "[x]", "*"],
        "estimate": [-1.5, 0.25, 1e-9], "std_error": [0.5, 0.125, 1e-10],
        "conf_low": [-2.5, 0.0, 1e-10], "conf_high": [-0.5, 0.5, 2e-9],
    }
)  # fmt: skip
NASTY_TABLE = Table(
    NASTY,
    (
        section(NASTY_FRAME, NASTY),
        Section(NASTY, rows=((NASTY, NASTY * 3), ("short", "x" * 200))),
        Section("", ("", "note"), (("a", NASTY * 2), (NASTY,), ("C(a_long_name)[T.b]" * 4, "c"))),
    ),
    (NASTY, "short"),
)


@functools.cache
def tables(case: Case) -> list[Table]:
    fit = case.fit()
    return [
        crm.table(fit, fit.result_, names=["A & B", "50%"], stars=True),
        crm.table(fit, *[fit] * 6, statistic="interval", level=0.9),
        fit.summary(),
    ]


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def html_of(table: Table) -> tuple[str, list[list[list[str]]]]:
    """Parse strictly: all text, and the cells of each row of each grid."""
    text = table.to_html().replace("&emsp;", " ").replace("&#8199;", " ")
    root = ET.fromstring(text)
    grids = []
    for grid in root.iter("table"):
        rows = []
        width = 0
        for row in grid.iter("tr"):
            cells = list(row)
            width = width or sum(int(c.get("colspan", 1)) for c in cells)
            assert sum(int(c.get("colspan", 1)) for c in cells) == width
            rows.append(["".join(c.itertext()).strip() for c in cells])
        grids.append(rows)
    return "".join(root.itertext()), grids


def markdown_of(table: Table) -> tuple[str, list[list[list[str]]]]:
    parser = pytest.importorskip("markdown_it", reason="markdown-it-py comes with the docs")
    html = parser.MarkdownIt("commonmark").enable("table").render(table.to_markdown())
    root = ET.fromstring(f"<div>{html.replace('&emsp;', ' ')}</div>")
    grids = []
    for grid in root.iter("table"):
        rows = [["".join(c.itertext()).strip() for c in row] for row in grid.iter("tr")]
        assert len({len(row) for row in rows}) == 1
        grids.append(rows)
    return "".join(root.itertext()), grids


def expected(table: Table) -> list[list[list[str]]]:
    """Say what the cells of each grid must be, on one line each."""
    grids = []
    for part in table.sections:
        if part.rows or part.footer:
            header = [list(part.header())] if any(part.header()) else []
            rows = [*header, *(list(row) for row in (*part.rows, *part.footer))]
            grids.append([[" ".join(c.split()).replace("[ ", "[") for c in row] for row in rows])
    return grids


def check_html_and_markdown(table: Table) -> None:
    wanted = expected(table)
    text, grids = html_of(table)
    assert grids == wanted
    assert all(" ".join(note.split()) in " ".join(text.split()) for note in table.notes)
    _, grids = markdown_of(table)
    for rows, want in zip(grids, wanted, strict=True):  # an empty header or a heading fills a row
        assert [[c for c in row if c] for row in rows if any(row)] == [
            [c for c in row if c] for row in want if any(row)
        ]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_html_and_markdown_say_what_the_table_says(case: Case) -> None:
    for table in tables(case):
        check_html_and_markdown(table)


def test_nasty_labels_in_html_and_markdown() -> None:
    check_html_and_markdown(NASTY_TABLE)


# ---------------------------------------------------------------- LaTeX

_SPECIAL = re.compile(r"(?<!\\)[#%&~^_]")


def check_latex(text: str) -> None:
    """Check groups, environments, math and the number of cells, as TeX would."""
    assert text.count(r"\begin{") == text.count(r"\end{")
    depth = 0
    for mark in re.findall(r"(?<!\\)(?:\\\\)*([{}])", text):
        depth += 1 if mark == "{" else -1
        assert depth >= 0
    assert depth == 0
    assert len(re.findall(r"(?<!\\)\$", text)) % 2 == 0
    columns = 0
    for line in text.splitlines():
        if begun := re.match(r"\\begin\{tabular\*?\}(?:\{\\linewidth\})?\{(.*)\}$", line):
            bare = re.sub(r"@\{(?:[^{}]|\{[^{}]*\})*\}", "", begun[1])
            columns = len(re.sub(r"p\{[^{}]*\}", "p", bare))
        if line.endswith((r"\\", r"\tabularnewline")):
            spans = [int(n) for n in re.findall(r"\\multicolumn\{(\d+)\}", line)]
            cells = len(re.findall(r"(?<!\\)&", line)) + 1
            assert cells - len(spans) + sum(spans) == columns, line
        bare = re.sub(r"(?<!\\)&", "", line) if line.endswith(("\\\\", "newline")) else line
        assert not _SPECIAL.search(bare.replace(r"\\", "")), line


@pytest.mark.parametrize("case", CASES, ids=str)
def test_latex_is_well_formed(case: Case) -> None:
    for table in tables(case):
        check_latex(table.to_latex(caption=NASTY, label="tab:one"))


def test_nasty_labels_in_latex() -> None:
    check_latex(NASTY_TABLE.to_latex())


def compiled(folder: Path, texts: list[str]) -> str:
    """Compile to PDF; return the log."""
    tex = shutil.which("pdflatex")
    if tex is None:
        pytest.skip("no pdflatex on this machine")
    packages = r"\usepackage[T1]{fontenc}\usepackage[utf8]{inputenc}\usepackage{booktabs}"
    body = "\n\\clearpage\n".join(texts)
    (folder / "tables.tex").write_text(
        rf"\documentclass{{article}}{packages}\begin{{document}}{body}\end{{document}}",
        encoding="utf-8",
    )
    if (
        not shutil.which("kpsewhich")
        or not subprocess.run(
            ["kpsewhich", "booktabs.sty"], capture_output=True, check=False
        ).stdout
    ):
        pytest.skip("TeX is here, but not its package booktabs")
    command = [tex, "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


def test_latex_compiles(tmp_path: Path) -> None:
    """All estimators and the nasty labels, in one document, nothing wider than the page."""
    made: list[Any] = [table for case in CASES for table in tables(case)]
    texts = [table.to_latex(caption=f"{i}. {NASTY}") for i, table in enumerate(made)]
    log = compiled(tmp_path, texts)
    wide = [float(points) for points in re.findall(r"Overfull \\hbox \((\d+\.?\d*)pt", log)]
    assert max(wide, default=0.0) < 6.0, log[-3000:]
    assert (tmp_path / "tables.pdf").stat().st_size > 20_000
    compiled(tmp_path, [NASTY_TABLE.to_latex()])
