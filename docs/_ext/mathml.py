"""Formulas as MathML: every current browser sets it, without a script or a download."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

# "log x": the thin space that TeX puts after the name of a function, unless a bracket follows
APPLY = re.compile(r"<mo>&ApplyFunction;</mo>(?=\s*<m(?:i|n|sub|sup|over|frac|row)\b)")

logger = logging.getLogger(__name__)


def render(translator: Any, node: nodes.Element) -> None:
    block = isinstance(node, nodes.math_block)
    try:
        html = tex2mathml(node.astext(), as_block=block)
        html = APPLY.sub('<mspace width="0.17em"></mspace>', html)
    except MathError as error:
        logger.warning("formula %r: %s", node.astext(), error, location=node)
        html = f"<code>{translator.encode(node.astext())}</code>"
    if block:
        label = node.get("label")
        anchor = f' id="equation-{label}"' if label else ""
        html = f'<div class="math"{anchor}>{html}</div>'
    translator.body.append(html)
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (render, None), (render, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
