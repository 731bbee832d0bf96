"""LaTeX of tables, for the package booktabs and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from causalrm.core.format import indented, squeezed

if TYPE_CHECKING:
    from causalrm.core.table import Section

_MARKS = {c: "\\" + c for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
}


PAGE = 84  # characters of a line on paper, in footnote size
_NUMBER = re.compile(r"(\(?-?[\d,]*)(\.\d+)?(\)?\**)")


def escaped(text: str) -> str:
    """Text as LaTeX sets it: marks that mean something to TeX escaped, minus signs of numbers."""
    text = re.sub(r"[&%$#_{}\\~^<>|]", lambda m: _MARKS[m[0]], squeezed(text))
    return re.sub(r"(?<![\w$-])-(?=\d|\.\d|inf\b)", "$-$", text)


class _Paper(NamedTuple):
    """How the columns of a grid are set on paper."""

    kinds: list[str]  # "l", "r", or "p" for a paragraph
    decimals: list[int]  # most digits after the point
    tails: list[float]  # room for stars and brackets, in em


def _paper(section: Section) -> _Paper:
    rows = [row for row in section.rows if row[1:]]
    kinds = list(section.alignment()) if section.columns else ["p", "p"]
    decimals, tails = [0] * len(kinds), [0.0] * len(kinds)
    for j, kind in enumerate(kinds):
        if kind == "l" and max((len(row[j]) for row in rows), default=0) > 36:
            kinds[j] = "p"
        found = [_NUMBER.fullmatch(row[j].strip()) for row in rows if kind == "r" and row[j]]
        for match in filter(None, found):
            decimals[j] = max(decimals[j], len(match[2] or ".") - 1)
            tails[j] = max(tails[j], 0.4 * match[3].count(")") + 0.5 * match[3].count("*"))
    return _Paper(kinds, decimals, tails)


def _row(row: Sequence[str], paper: _Paper, numbers: bool = True) -> str:
    """Write a row; points stand under points, stars and brackets beside the digits."""
    cells = [indented(cell, r"\quad ", escaped) for cell in row]
    for j, kind in enumerate(paper.kinds):
        if kind == "p" and cells[j]:
            cells[j] = r"\raggedright " + " ".join(map(_breakable, cells[j].split(" ")))
        if kind != "r" or not cells[j]:
            continue
        tail = ""
        if numbers and (found := _NUMBER.fullmatch(row[j].strip())):
            digits = len(found[2] or ".") - 1
            missing = "." * (not found[2]) + "0" * (paper.decimals[j] - digits)
            cells[j], tail = escaped(found[1] + (found[2] or "")), found[3]
            if paper.decimals[j] > digits:
                cells[j] += rf"\phantom{{{missing}}}"
        if paper.tails[j]:
            cells[j] += rf"\makebox[{paper.tails[j]:.1f}em][l]{{{tail}}}"
    if cells[0].startswith(("[", "*")):  # after the end of a row read as its argument
        cells[0] = "{" + cells[0][0] + "}" + cells[0][1:]
    return " & ".join(cells) + (r" \tabularnewline" if "p" in paper.kinds else r" \\")


def _breakable(word: str) -> str:
    return re.sub(r"(\\_|[,:(\[])(?=\S)", r"\1\\allowbreak{}", word) if len(word) > 20 else word


def tabular(section: Section, whole: bool, small: bool, notes: Sequence[str] = ()) -> list[str]:
    """Lay out one grid; `whole` makes it as wide as the text, `small` sets it in footnote size."""
    paper, header = _paper(section), section.header()
    n, edge = len(paper.kinds), "@{}" * whole

    def line(row: Sequence[str], numbers: bool = True) -> str:
        if len(row) == 1:
            return rf"\multicolumn{{{n}}}{{{edge}l}}{{\textit{{{escaped(row[0])}}}}} \\"
        return _row(row, paper, numbers)

    if section.columns:
        width = 0.3 if paper.kinds.count("p") < 2 else 0.25
        columns = "".join(rf"p{{{width}\linewidth}}" if k == "p" else k for k in paper.kinds)
    else:
        label = 0.2 if max(len(row[0]) for row in section.rows) <= 14 else 0.3
        columns = rf"p{{{label}\linewidth}}p{{{0.96 - label - 0.03 * (not whole):.2f}\linewidth}}"
    opening, closing = rf"\begin{{tabular}}{{{edge}{columns}{edge}}}", r"\end{tabular}"
    if whole and section.columns:
        columns = rf"@{{\extracolsep{{\fill}}}}{columns}@{{}}"
        opening = rf"\begin{{tabular*}}{{\linewidth}}{{{columns}}}"
        closing = r"\end{tabular*}"
    lines = [opening, r"\toprule"]
    lines += [_row(header, paper, False), r"\midrule"] if any(header) else []
    lines += map(line, section.rows)
    if section.footer:
        lines += [r"\midrule", *(line(row, False) for row in section.footer)]
    lines.append(r"\bottomrule")
    for note in notes:
        text = rf"\makebox[0pt][l]{{\footnotesize {escaped(note)}}}"
        lines.append(rf"\multicolumn{{{n}}}{{@{{}}l}}{{{text}}} \\")
    lines.append(closing)
    if small:
        return [r"{\footnotesize\setlength{\tabcolsep}{3pt}", *lines, "}"]
    return lines
