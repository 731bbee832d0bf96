"""llms.txt, the index of the documentation for language models, and llms-full.txt, its text."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import public
from docutils import nodes

SUMMARY = (
    "Causal and statistical analysis of the numbers that come out of language models: rewards, "
    "preferences, risk scores, survival times of decisions, answers to prompts. Estimators take "
    "a data frame and the roles of its columns, and return an estimate, its uncertainty, the "
    "assumptions behind it with a diagnostic for each, a table and a plot."
)


def write(app: Any, exception: Exception | None) -> None:
    if exception is not None or app.builder.name != "html":
        return
    env, out = app.env, Path(app.outdir)

    def title(page: str) -> str:
        return str(env.titles[page].astext())

    def opening(page: str) -> str:
        """The first paragraph of a page, on one line."""
        for paragraph in env.get_doctree(page).findall(nodes.paragraph):
            if not isinstance(paragraph.parent, nodes.section):
                continue
            return " ".join(paragraph.astext().split())
        return ""

    def links(prefix: str) -> list[str]:
        pages = sorted(p for p in env.found_docs if p.startswith(prefix))
        pages = [p for p in pages if not p.endswith(("/index", "sg_execution_times"))]
        return [f"- [{title(p)}]({p}.html): {opening(p)}" for p in pages]

    names = [name for section in public.sections() for name in section.names]
    api = [
        f"- [{name}](api/generated/{name}.html): {public.first_line(public.resolve(name))}"
        for name in names
    ]
    parts = {"Guide": links("guide/"), "Worked analyses": links("gallery/"), "API": api}
    lines = ["# causalrm", "", f"> {SUMMARY}", ""]
    for heading, entries in parts.items():
        if entries:
            lines += [f"## {heading}", "", *entries, ""]
    (out / "llms.txt").write_text("\n".join(lines), encoding="utf-8")

    source = Path(app.srcdir)
    full = ["\n".join(lines)]
    full += [path.read_text(encoding="utf-8") for path in sorted(source.glob("guide/*.md"))]
    for path in sorted((source.parent / "examples").glob("*/plot_*.py")):
        text = path.read_text(encoding="utf-8")
        full.append(f"# Example {path.parent.name}/{path.name}\n\n```python\n{text}```\n")
    for name in names:
        obj = public.resolve(name)
        call = f"{name}{_signature(obj)}"
        members = [
            f"### {name}.{member}{_signature(value)}\n\n{inspect.getdoc(value)}\n"
            for member, value in inspect.getmembers(obj)
            if inspect.isclass(obj) and not member.startswith("_")
            and (getattr(value, "__module__", None) or "").startswith("causalrm")
            and inspect.getdoc(value)
        ]  # fmt: skip
        full.append(f"## {call}\n\n{inspect.getdoc(obj) or ''}\n\n" + "\n".join(members))
    (out / "llms-full.txt").write_text("\n\n".join(full), encoding="utf-8")


def _signature(obj: Any) -> str:
    try:
        return str(inspect.signature(obj))
    except (TypeError, ValueError):
        return ""


def setup(app: Any) -> dict[str, bool]:
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
