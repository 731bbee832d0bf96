"""What `make demo` runs: three worked analyses, on the screen and as one page.

    python examples/demo.py [folder]

writes index.html and the figures into the folder, demo-results by default. Two analyses are of real
people and come with installed packages, one is simulated from end to end; no network is needed. The
scripts are those of the documentation, unchanged.
"""

from __future__ import annotations

import ast
import contextlib
import html
import io
import platform
import re
import sys
import textwrap
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ANALYSES = (
    "survival/plot_breast_cancer.py",
    "attribution/plot_travel_mode.py",
    "story/plot_answers.py",
)
STYLE = """
body { max-width: 56rem; margin: 2rem auto; padding: 0 1rem; line-height: 1.55;
       font-family: system-ui, sans-serif; color: #1b1b1b; background: #ffffff; }
h1 { line-height: 1.2; } h2 { margin-top: 4rem; border-bottom: 2px solid #1b1b1b; }
h3 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
.wide { overflow-x: auto; } pre { font-size: 85%; }
.frame { border-collapse: collapse; border: solid; border-width: 2px 0; font-size: 90%; }
.frame th, .frame td { padding: 0.2em 0.7em; text-align: right; }
img { max-width: 100%; background: #ffffff; } code { font-size: 95%; }
details { color: #666; font-size: 85%; }
@media (prefers-color-scheme: dark) {
  body { color: #e4e4e4; background: #161616; } h2 { border-color: #e4e4e4; } }
"""


class Page:
    """What is printed as it comes, and written as one page at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.parts, self.start = folder, list[str](), time.time()
        folder.mkdir(parents=True, exist_ok=True)

    def text(self, text: str) -> None:
        """Paragraphs, headings underlined with = or -, and lists, as the scripts write them."""
        for block in re.split(r"\n\s*\n", text.strip()):
            title, _, rest = block.partition("\n")
            if re.fullmatch(r"[=-]{4,}", rest.partition("\n")[0]):
                deep = rest.startswith("-")
                mark = "-" if deep else "="
                took = f"  [{time.time() - self.start:.0f} s]"
                print(f"\n\n{title}{took}\n{mark * (len(title) + len(took))}\n")
                self.parts.append(f"<h{2 + deep}>{html.escape(title)}</h{2 + deep}>")
            elif not block.startswith(".. "):
                plain = re.sub(r":\w+:`~?(?:causalrm\.)?([^`<]+)(?: <[^`]*)?`", r"``\1``", block)
                joined = plain if re.match(r"\d\.|- ", plain) else " ".join(plain.split())
                print(joined if "\n" in joined else textwrap.fill(joined, 88), end="\n\n")
                marked = re.sub(r"``(.+?)``", r"<code>\1</code>", html.escape(joined, quote=False))
                self.parts.append(f"<p>{marked.replace(chr(10), '<br>')}</p>")

    def printed(self, text: str) -> None:
        """What a cell prints, or an object without a table of its own."""
        if text.strip():
            print(text.rstrip(), end="\n\n")
            self.parts.append(f'<pre class="wide">{html.escape(text.rstrip())}</pre>')

    def value(self, value: Any) -> None:
        """What the last expression of a cell evaluates to; not what plotting calls return."""
        if not hasattr(value, "to_html"):
            if value is not None and not re.search(r"matplotlib|'list'|'tuple'", repr(type(value))):
                self.printed(str(value))
            return
        print(value.to_string() if hasattr(value, "to_string") else value, end="\n\n")
        options = {"border": 0, "classes": "frame"} if hasattr(value, "to_string") else {}
        self.parts.append(f'<div class="wide">{value.to_html(**options)}</div>')

    def figures(self, name: str) -> None:
        """Save the open figures, and close them."""
        import matplotlib.pyplot as plt

        for number in plt.get_fignums():
            file = f"{name}-{len(list(self.folder.glob(name + '-*.png'))) + 1}.png"
            plt.figure(number).savefig(self.folder / file, dpi=140)
            print(f"  figure: {self.folder / file}")
            self.parts.append(f'<img src="{file}" alt="Figure of {html.escape(name)}">')
        plt.close("all")

    def close(self) -> Path:
        """Write the page."""
        page = self.folder / "index.html"
        packages = ("causalrm", "numpy", "scipy", "pandas", "numba", "matplotlib")
        versions = ", ".join(f"{p} {version(p)}" for p in packages)
        facts = (
            f"Python {platform.python_version()}, {versions}; {platform.machine()}. Every random "
            f"number has a seed that stands in the script. {time.time() - self.start:.0f} s."
        )
        body = "\n".join([*self.parts, f"<hr><p><small>{facts}</small></p>"])
        head = (
            '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f"<title>causalrm demo</title><style>{STYLE}</style>"
        )
        page.write_text(f"<!doctype html><html><head>{head}</head><body>{body}</body></html>")
        print(f"\n{facts}")
        return page


def run(script: Path, page: Page) -> None:
    """Run a script cell by cell; a cell is prose in comments, then code."""
    name = script.stem.removeprefix("plot_").replace("_", "-")
    for stale in page.folder.glob(f"{name}-*.png"):
        stale.unlink()
    source = script.read_text(encoding="utf-8")
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(re.split(r"^# %%.*\n", source, flags=re.M)):
        tree = ast.parse(cell)
        if number == 0:
            page.text(str(ast.get_docstring(tree)))
        else:
            prose = re.match(r"(?:#.*\n)*", cell)
            page.text(re.sub(r"^# ?", "", prose[0] if prose else "", flags=re.M))
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        value, out = None, io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(tree, str(script), "exec"), names)
            if isinstance(last, ast.Expr) and (number or tree.body):
                value = eval(compile(ast.Expression(last.value), str(script), "eval"), names)
        page.printed(out.getvalue())
        page.value(value)
        page.figures(name)


def main(folder: Path) -> None:
    """Run the analyses and write the page."""
    print("Loading causalrm (the first run compiles its kernels) ...", flush=True)
    import matplotlib

    matplotlib.use("Agg")
    page = Page(folder)
    page.parts.append("<h1>causalrm: three worked analyses</h1>")
    for script in ANALYSES:
        run(HERE / script, page)
    print(f"\nDone in {time.time() - page.start:.0f} s. Open {page.close()}")


if __name__ == "__main__":
    warnings.simplefilter("default")
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo-results"))
