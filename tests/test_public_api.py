"""What `import causalrm` gives, and what it costs."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import causalrm

HEAVY = ("numpy", "scipy", "pandas", "matplotlib", "pymc", "arviz", "econml", "lifelines")


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=True, timeout=120
    )


def test_import_is_quick_and_light() -> None:
    # The best of three: other work on the machine slows a single run.
    seconds = []
    for _ in range(3):
        lines = python("-X", "importtime", "-c", "import causalrm").stderr.splitlines()
        (line,) = [text for text in lines if text.split("|")[-1].strip() == "causalrm"]
        seconds.append(int(line.split("|")[1]) / 1e6)
        loaded = {text.split("|")[-1].strip().split(".")[0] for text in lines}
        assert not loaded & set(HEAVY)
    assert min(seconds) < 0.3


@pytest.mark.parametrize("name", [n for n in causalrm.__all__ if n != "__version__"])
def test_public_name(name: str) -> None:
    value = getattr(causalrm, name)
    assert inspect.isclass(value) or inspect.isfunction(value) or inspect.ismodule(value)
    assert value.__doc__, f"{name} has no docstring"
    assert name in dir(causalrm)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(inspect.getsource(causalrm))
    (block,) = [
        node
        for node in tree.body
        if isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and any(isinstance(line, ast.ImportFrom) for line in node.body)
    ]
    imports = [line for line in block.body if isinstance(line, ast.ImportFrom)]
    seen = {}
    for line in imports:
        for item in line.names:
            assert item.asname == item.name  # or mypy does not export it
            package = line.module == "causalrm"
            seen[item.name] = f"causalrm.{item.name}" if package else line.module
    assert seen == causalrm._PUBLIC


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Survival'"):
        causalrm.Survival  # noqa: B018


def test_main_prints_what_a_bug_report_needs() -> None:
    text = python("-m", "causalrm").stdout
    for word in (causalrm.__version__, "numpy", "pymc", "threads", "docs"):
        assert word in text


def test_a_typed_program_runs() -> None:
    # Its types are checked by `make lint`.
    program = Path(__file__).parent / "typing" / "program.py"
    assert "kappa" in python("-W", "error", str(program)).stdout
