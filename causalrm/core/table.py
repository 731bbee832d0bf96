"""Tables for the screen and for the paper: text, markdown, LaTeX and HTML."""

from __future__ import annotations

import html
import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from causalrm.core.errors import DataError
from causalrm.core.format import (
    aligned,
    decimals,
    estimates,
    indented,
    number,
    percent,
    shared,
    squeezed,
    text_of_p,
)
from causalrm.core.latex import PAGE, escaped, tabular

WIDTH = 88
type Row = tuple[str, ...]

_HEADERS = {
    "term": "",
    "std_error": "std. error",
    "statistic": "stat.",
    "p_value": "p",
    "ess_bulk": "ESS",
    "r_hat": "R-hat",
}
_STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))


@dataclass(frozen=True)
class Section:
    """A part of a table.

    With `columns` it is a grid: the first cell of a row is its label, two leading spaces indent
    it, and a row of one cell is a heading for those below. Without `columns` each row is a
    (label, text) pair, and the text may be long.
    """

    heading: str = ""
    columns: Row = ()
    rows: tuple[Row, ...] = ()
    footer: tuple[Row, ...] = ()
    align: str = ""  # "l" or "r" per column; by default the first is left, the others right

    def alignment(self) -> str:
        """Return "l" or "r" per column, and "p" for a paragraph."""
        return self.align or ("l" + "r" * (len(self.columns) - 1) if self.columns else "lp")

    def header(self) -> Row:
        """Return the columns, with the heading in the corner where nothing stands there."""
        columns = self.columns or ("", "")
        return (columns[0] or self.heading, *columns[1:])


@dataclass(frozen=True)
class Table:
    """A titled list of sections with notes.

    ``print(table)`` shows text, a notebook shows HTML.

    Parameters
    ----------
    title : str
    sections : tuple of Section
        Empty ones are left out.
    notes : tuple of str

    Examples
    --------
    >>> print(Table("Answer", (Section(columns=("", "n"), rows=(("all", "42"),)),)))
    Answer
    =======
          n
    -------
    all  42
    =======
    """

    title: str = ""
    sections: tuple[Section, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        return self.to_html()

    def _shown(self) -> list[Section]:
        return [section for section in self.sections if section.rows or section.footer]

    def to_text(self, width: int = WIDTH) -> str:
        """Return aligned text; what is wider than `width` goes on below in another panel."""
        panels: list[Section] = []
        for section in self._shown():
            panels += _panels(section, width) if section.columns else [section]
        needs = [_width(p, width) for p in panels if p.columns]
        prose = any(not p.columns for p in panels)
        total = max([*needs, min(len(self.title), width), min(72, width) if prose else 4])
        lines = textwrap.wrap(self.title, width)
        for i, panel in enumerate(panels):
            lines.append(("-" if i else "=") * total)
            lines += _grid(panel, total) if panel.columns else _pairs(panel, total)
        lines.append("=" * total)
        for note in self.notes:
            lines += textwrap.wrap(note, max(total, min(60, width)))
        return "\n".join(line.rstrip() for line in lines)

    def to_markdown(self) -> str:
        """Return GitHub-flavoured markdown."""
        blocks = [f"**{_markdown(self.title)}**"] if self.title else []
        for section in self._shown():
            marks = ["---:" if a == "r" else ":---" for a in section.alignment()]
            rows = [[_markdown(cell) for cell in section.header()], marks]
            for row in section.rows + section.footer:
                cells = [indented(cell, "&emsp;", _markdown) for cell in row]
                rows.append(cells if row[1:] else [f"**{cells[0]}**", *[""] * (len(marks) - 1)])
            blocks.append("\n".join("| " + " | ".join(row) + " |" for row in rows))
        blocks += [_markdown(note) for note in self.notes]
        return "\n\n".join(blocks)

    def to_latex(self, caption: str | None = None, label: str | None = None) -> str:
        r"""Return a LaTeX ``table`` environment for the package booktabs.

        Points stand under points. What is wider than a page goes on below, and long texts wrap.
        Letters beyond Latin and Greek symbols need LuaLaTeX or XeLaTeX and a font with them.

        Parameters
        ----------
        caption : str, optional
            Escaped here; the title by default.
        label : str, optional
            For ``\ref``.
        """
        lines = [r"\begin{table}[htbp]", r"\centering"]
        if caption := self.title if caption is None else caption:
            lines.append(rf"\caption{{{escaped(caption)}}}")
        if label:
            lines.append(rf"\label{{{label}}}")
        if caption:
            lines.append(r"\smallskip")  # or the first rule touches the caption
        grids = [_panels(s, PAGE) if s.columns else [s] for s in self._shown()]
        # Short notes stand at the left edge of a single grid, others below everything.
        alone = len(grids) == 1 and len(grids[0]) == 1 and bool(grids[0][0].columns)
        inside = alone and all(len(note) <= 60 for note in self.notes)
        for i, parts in enumerate(grids):
            for k, part in enumerate(parts):
                if i or k:
                    lines.append(r"\par\medskip")
                small = len(parts) > 1 or bool(part.columns) and _width(part) > 74
                lines += tabular(part, not alone, small, self.notes if inside else ())
        if self.notes and not inside:
            notes = r" \newline ".join(escaped(note) for note in self.notes)
            lines.append(rf"\par\smallskip\parbox{{\linewidth}}{{\footnotesize {notes}}}")
        return "\n".join([*lines, r"\end{table}"])

    def to_html(self) -> str:
        """Return an HTML fragment that needs no style sheet and suits light and dark pages."""
        parts = ['<div style="overflow-x:auto;font-size:90%">']
        if self.title:
            parts.append(f'<p style="font-weight:bold;margin:0.4em 0">{_html(self.title)}</p>')
        for section in self._shown():
            parts += _html_grid(section)
        for note in self.notes:
            parts.append(f'<p style="font-size:90%;margin:0.3em 0">{_html(note)}</p>')
        return "\n".join([*parts, "</div>"])


def table(
    *fits: Any,
    names: Sequence[str] | None = None,
    statistic: str = "std_error",
    level: float = 0.95,
    stars: bool = False,
) -> Table:
    """Set fits side by side, one column each.

    Parameters
    ----------
    *fits : Estimator or Result
        Fitted; of one kind or of several.
    names : sequence of str, optional
        Headers of the columns, "(1)", "(2)", ... by default.
    statistic : {"std_error", "interval"}
        What stands beneath each estimate.
    level : float
        Of the interval.
    stars : bool
        Mark p-values below .05, .01 and .001.

    Returns
    -------
    Table
        A row per parameter and term in order of first appearance; then the number of
        observations and, where a fit has them, log-likelihood, AIC, BIC and covariance.

    Raises
    ------
    DataError
        Without fits, or when the names do not match them.
    """
    results = [getattr(fit, "result_", fit) for fit in fits]
    wrong = [type(result).__name__ for result in results if not hasattr(result, "to_frame")]
    if not fits or wrong:
        raise DataError(f"table needs fitted estimators or results; got {wrong or 'none'}.")
    header = [f"({i})" for i in range(1, len(fits) + 1)] if names is None else list(names)
    if len(header) != len(fits):
        raise DataError(f"Give one name per fit: {len(fits)} fits, {len(header)} names.")
    if statistic not in ("std_error", "interval"):
        raise DataError(f"statistic must be 'std_error' or 'interval'; got {statistic!r}.")

    columns = [_cells(result.to_frame(level), statistic, stars) for result in results]
    keys: dict[str, dict[str, None]] = {}  # group -> terms, both in order of appearance
    for column in columns:
        for group, term in column:
            keys.setdefault(group, {})[term] = None
    rows: list[Row] = []
    for group, terms in keys.items():
        indent = ""
        if group and list(terms) != [group]:
            rows.append((group,))
            indent = "  "
        for term in terms:
            pairs = [column.get((group, term), ("", "")) for column in columns]
            rows.append((indent + term, *(estimate for estimate, _ in pairs)))
            if any(beneath for _, beneath in pairs):
                rows.append(("", *(beneath for _, beneath in pairs)))
    width = _suffix(statistic, stars)
    footer = [
        (label, *(text + " " * width if text else "" for text in cells))
        for label, cells in _footer(results)
        if any(cells)
    ]
    section = Section("", ("", *header), tuple(rows), tuple(footer))
    beneath = (
        "Standard errors in parentheses."
        if statistic == "std_error"
        else f"{percent(level)} intervals in brackets."
    )
    notes = (beneath, "* p < 0.05, ** p < 0.01, *** p < 0.001.") if stars else (beneath,)
    return Table("", (section,), notes)


def _suffix(statistic: str, stars: bool) -> int:
    """Room after the last digit, for stars or a closing parenthesis."""
    return 3 if stars else int(statistic == "std_error")


def _cells(
    frame: pd.DataFrame, statistic: str, stars: bool
) -> dict[tuple[str, str], tuple[str, str]]:
    """Text of each (group, term): the estimate, and what stands beneath it."""
    if not {"term", "estimate"} <= set(frame.columns):
        raise DataError(
            "table needs results whose frame has the columns 'term' and 'estimate'; got "
            f"{list(frame.columns)}."
        )
    width = _suffix(statistic, stars)
    family = estimates(frame)
    found = {}
    for i, (group, term) in enumerate(zip(_groups(frame), frame["term"], strict=True)):
        p = frame["p_value"].iloc[i] if "p_value" in frame else math.nan
        mark = next((s for bound, s in _STARS if p < bound), "") if stars else ""
        estimate = family["estimate"][i]
        value = (estimate.rstrip() + mark).ljust(len(estimate) + width)
        if statistic == "std_error":
            inner = family.get("std_error", {i: ""})[i]
            beneath = f"({inner.strip()})".ljust(len(inner.lstrip()) + 1 + width) if inner else ""
        else:
            inner = family.get("interval", {i: ""})[i]
            beneath = inner + " " * width if inner else ""
        found[group, str(term)] = (value, beneath)
    return found


def _footer(results: list[Any]) -> list[tuple[str, list[str]]]:
    def texts(name: str, spec: str) -> list[str]:
        values = [getattr(result, name, None) for result in results]
        # what is not a likelihood has none, or NaN
        found = ["" if v is None or v != v else format(v, spec) for v in values]
        return found if any(found) else []

    kinds = [str(getattr(result, "call", {}).get("estimator", "")) for result in results]
    return [
        ("Estimator", kinds if len(set(kinds)) > 1 else []),
        ("Observations", texts("n_obs", ",")),
        ("Log-likelihood", texts("loglik", ".2f")),
        ("AIC", texts("aic", ".2f")),
        ("BIC", texts("bic", ".2f")),
        ("Covariance", texts("covariance", "")),
    ]


def section(frame: pd.DataFrame, heading: str = "", level: float = 0.95) -> Section:
    """Lay out a frame: a result frame as statisticians print it, any other by its types.

    Parameters
    ----------
    frame : pandas.DataFrame
        Estimates, standard errors and interval bounds of a row share their decimals; the two
        bounds share a column; columns without any value are left out; the rows of one
        `parameter` or `group` stand under its name.
    heading : str
    level : float
        Of the interval, for its header.
    """
    if not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index()
    frame = frame.loc[:, ~frame.isna().all()] if len(frame) else frame
    family = estimates(frame)
    columns: dict[str, tuple[str, list[str]]] = {}  # header -> alignment, cells
    for name in map(str, frame.columns):
        if name in ("conf_low", "conf_high") and "interval" in family:
            columns[f"{percent(level)} interval"] = ("r", family["interval"])
            continue
        if name in ("parameter", "group") and "term" in frame:
            continue
        values = frame[name]
        if name in family:
            cell = ("r", family[name])
        elif pd.api.types.is_bool_dtype(values) or not pd.api.types.is_numeric_dtype(values):
            cell = ("l", ["" if pd.isna(v) else str(v) for v in values])
        elif name in ("p_value", "p_adjusted"):
            cell = ("r", [text_of_p(v) for v in values])
        elif name == "statistic":
            cell = ("r", [number(v, 2) for v in values])
        elif pd.api.types.is_integer_dtype(values):
            cell = ("r", ["" if pd.isna(v) else str(v) for v in values])
        else:
            numbers = values.to_numpy(dtype=float, na_value=math.nan)
            digits = 3 if name in ("ess_bulk", "r_hat") else 4
            cell = ("r", aligned(numbers, shared([decimals(v, digits) for v in numbers])))
        columns[_HEADERS.get(name, name.replace("_", " "))] = cell
    if "" in columns and next(iter(columns)) != "":  # the term is the label of its row
        columns = {"": columns[""], **columns}
    rows: list[Row] = []
    groups = _groups(frame) if "term" in frame else [""] * len(frame)
    for i, row in enumerate(zip(*(cells for _, cells in columns.values()), strict=True)):
        inside = bool(groups[i]) and (groups.count(groups[i]) > 1 or row[0] != groups[i])
        if inside and (i == 0 or groups[i] != groups[i - 1]):
            rows.append((groups[i],))
        rows.append(("  " * inside + row[0], *row[1:]))
    align = "".join(a for a, _ in columns.values())
    return Section(heading, tuple(columns), tuple(rows), align=align)


def _groups(frame: pd.DataFrame) -> list[str]:
    for name in ("parameter", "group"):
        if name in frame:
            return ["" if pd.isna(value) else str(value) for value in frame[name]]
    return [""] * len(frame)


def _widths(section: Section, width: int = WIDTH) -> list[int]:
    """Text width of each column; words wrap at 36, and labels earlier to make all columns fit."""
    rows = [section.header(), *(r for r in section.rows + section.footer if len(r) > 1)]
    widths = [max(len(row[j]) for row in rows) for j in range(len(section.columns))]
    widths = [
        min(w, 36) if a == "l" else w for w, a in zip(widths, section.alignment(), strict=True)
    ]
    excess = max(sum(widths) + 2 * (len(widths) - 1) - width, 0)
    return [max(widths[0] - excess, min(widths[0], 24)), *widths[1:]]


def _width(section: Section, width: int = WIDTH) -> int:
    return sum(_widths(section, width)) + 2 * (len(section.columns) - 1)


def _panels(section: Section, width: int) -> list[Section]:
    """Split a grid that is too wide, repeating the labels."""
    widths = _widths(section, width)
    groups: list[list[int]] = [[]]
    for j in range(1, len(widths)):
        if groups[-1] and sum(2 + widths[i] for i in [*groups[-1], j]) + widths[0] > width:
            groups.append([])
        groups[-1].append(j)

    def pick(row: Row, used: list[int]) -> Row:
        return (row[0], *(row[j] for j in used)) if len(row) > 1 else row

    def filled(used: list[int]) -> tuple[Row, ...]:
        """Rows with a value in a panel, and headings of such rows."""
        rows = [pick(row, used) for row in section.rows]
        if len(groups) > 1:
            rows = [row for row in rows if not row[1:] or any(cell.strip() for cell in row[1:])]
            pairs = zip(rows, [*rows[1:], ("",)], strict=True)
            rows = [row for row, after in pairs if row[1:] or after[1:]]
        return tuple(rows)

    return [
        Section(
            section.heading,
            pick(section.columns, used),
            filled(used),
            tuple(pick(row, used) for row in section.footer if any(pick(row, used)[1:])),
            "".join(pick(tuple(section.alignment()), used)),
        )
        for used in groups
    ]


def _grid(section: Section, total: int) -> list[str]:
    widths, align = _widths(section, total), section.alignment()
    spare = total - sum(widths) - 2 * (len(widths) - 1)
    gap = 2 + min(spare // max(len(widths) - 1, 1), 4)
    widths[0] += total - sum(widths) - gap * (len(widths) - 1)

    def lines(row: Row) -> list[str]:
        if len(row) == 1:
            return textwrap.wrap(row[0], total)
        cells = [
            _wrap(cell, w) if a == "l" else [cell]
            for cell, w, a in zip(row, widths, align, strict=True)
        ]
        height = max(map(len, cells))
        padded = [cell + [""] * (height - len(cell)) for cell in cells]
        return [
            (" " * gap).join(
                text.rjust(w) if a == "r" else text.ljust(w)
                for text, w, a in zip(line, widths, align, strict=True)
            )
            for line in zip(*padded, strict=True)
        ]

    out = [*lines(section.header()), "-" * total]
    for row in section.rows:
        out += lines(row)
    if section.footer:
        out.append("-" * total)
    for row in section.footer:
        out += lines(row)
    return out


def _wrap(cell: str, width: int) -> list[str]:
    if len(cell) <= width:
        return [cell]
    indent = "  " * cell.startswith("  ")
    return textwrap.wrap(
        cell.strip(), width, initial_indent=indent, subsequent_indent=indent + "  "
    )


def _pairs(section: Section, total: int) -> list[str]:
    out = [section.heading] if section.heading else []
    margin = "  " if section.heading else ""
    wide = max(len(label) for label, _ in section.rows)
    for label, text in section.rows:
        if wide <= 14:
            lead = (margin + label).ljust(18 if wide > 3 else len(margin) + wide + 2)
            out += textwrap.wrap(
                text, total, initial_indent=lead, subsequent_indent=" " * len(lead)
            ) or [lead]
        else:
            indent = margin + "    "
            out += [margin + label]
            out += textwrap.wrap(text, total, initial_indent=indent, subsequent_indent=indent)
    return out


def _markdown(text: str) -> str:
    return re.sub(r"[\\|*_`<>\[\]]", lambda m: "\\" + m[0], squeezed(text))


def _html(text: str) -> str:
    return html.escape(squeezed(text))


def _html_grid(section: Section) -> list[str]:
    align, header = section.alignment(), section.header()

    def line(row: Row, tag: str = "td", rule: str = "") -> str:
        style = f"padding:0.15em 0.7em;background:none;vertical-align:top{rule}"
        if len(row) == 1:
            cell = f'<td colspan="{len(align)}" style="{style};text-align:left">'
            return f"<tr>{cell}<i>{_html(row[0])}</i></td></tr>"
        cells = []
        for cell, a in zip(row, align, strict=True):
            look = style + f";text-align:{'right' if a == 'r' else 'left'}"
            look += "" if a == "p" else ";white-space:nowrap"
            pad = "&#8199;" * (len(cell) - len(cell.rstrip())) if a == "r" and cell.strip() else ""
            cells.append(f'<{tag} style="{look}">{indented(cell, "&emsp;", _html)}{pad}</{tag}>')
        return f"<tr>{''.join(cells)}</tr>"

    solid = "solid currentColor"
    lines = [
        '<table style="border-collapse:collapse;font-variant-numeric:tabular-nums;margin:0.4em 0;'
        f'border-top:2px {solid};border-bottom:2px {solid}">'
    ]
    if any(header):
        lines.append(f"<thead>{line(header, 'th', f';border-bottom:1px {solid}')}</thead>")
    lines += ["<tbody>", *map(line, section.rows)]
    for i, row in enumerate(section.footer):
        lines.append(line(row, rule="" if i else f";border-top:1px {solid}"))
    return [*lines, "</tbody></table>"]
