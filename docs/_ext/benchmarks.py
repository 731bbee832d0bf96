"""A directive that shows what a script in benchmarks/ measured, from the file that it stored.

    ```{measured} preference
    ```

renders benchmarks/results/preference.txt: the machine and versions, and a table with a row per
line "what: figure (target figure, met or missed)". Missed targets are in bold.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
VERDICT = re.compile(r"\(target ([^()]+?)(?:, (met|MISSED|missed))?\)")


def _row(cells: list[tuple[str, bool]]) -> nodes.row:
    row = nodes.row()
    for text, strong in cells:
        inner = nodes.strong if strong else nodes.inline
        row += nodes.entry("", nodes.paragraph("", "", inner(text, text)))
    return row


class Measured(SphinxDirective):
    """The stored figures of one benchmark."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        path = RESULTS / f"{self.arguments[0]}.txt"
        self.env.note_dependency(str(path))
        machine, *lines = [line for line in path.read_text().splitlines() if line.strip()]
        group = nodes.tgroup(cols=3)
        group += [nodes.colspec(colwidth=width) for width in (44, 40, 16)]
        group += nodes.thead("", _row([(t, False) for t in ("comparison", "measured", "target")]))
        body = nodes.tbody()
        for line in lines:
            what, _, figure = line.partition(": ")
            verdicts = VERDICT.findall(figure)
            missed = any(verdict.lower() == "missed" for _, verdict in verdicts)
            target = "; ".join(f"{t} {verdict.lower()}".strip() for t, verdict in verdicts)
            figure = re.sub(r" +(?=[ ;,])", "", VERDICT.sub("", figure))
            body += _row([(what, missed), (figure.strip(), missed), (target, missed)])
        group += body
        table = nodes.table("", group, classes=["measured"])
        return [nodes.paragraph("", machine), table]


def setup(app: Any) -> dict[str, Any]:
    app.add_directive("measured", Measured)
    return {"parallel_read_safe": True}
