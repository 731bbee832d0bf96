"""What must hold of the repository itself."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from matplotlib import pyplot
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import causalrm

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted((ROOT / "docs" / "guide").glob("*.md"))
CAPABILITIES = [
    "survival", "calibration", "preference", "augment", "deconfound", "risk", "attribution",
]  # fmt: skip


def project_files() -> list[Path]:
    """List what is or would be committed; without git, what is neither built nor cached."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0:
        files = [ROOT / line for line in listed.stdout.splitlines()]
    else:
        built = {".venv", ".venv-bench", ".git", "_build", "gallery", "generated", "build", "dist"}
        files = [p for p in ROOT.rglob("*") if not built & set(p.relative_to(ROOT).parts)]
    return [p for p in files if p.is_file()]


def texts() -> list[tuple[str, str]]:
    found = []
    for path in project_files():
        try:
            found.append((str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue  # a figure or a stored array
    return found


# Written so that this file does not contain what it forbids.
REGISTRIES = r"pypi\.org|pythonhoste[d]|index-ur[l]|find-link[s]|\.npmjs\.|/simpl[e]\b"
MACHINE_PATHS = r"(?<![\w.~$}])/(?:home|Users|root|work|tmp|opt|mnt|private)/\w"
UNFINISHED = r"NotImplemente[d]Error|\bTOD[O]\b|\bFIXM[E]\b"


@pytest.mark.parametrize("pattern", [REGISTRIES, MACHINE_PATHS, UNFINISHED])
def test_no_file_mentions(pattern: str) -> None:
    found = [
        f"{name}:{text[: match.start()].count(chr(10)) + 1}: {match.group()}"
        for name, text in texts()
        for match in re.finditer(pattern, text)
    ]
    assert not found, "\n".join(found)


def test_one_version() -> None:
    citation = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.M)
    changes = re.search(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert citation and citation[1] == causalrm.__version__
    assert changes and changes[1] == causalrm.__version__


def test_constraints_pin_every_dependency() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!]+", line) for line in lines)
    assert lines == sorted(lines, key=str.lower)
    pins = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines}

    wanted = list(PROJECT["project"]["dependencies"])
    for extra, requirements in PROJECT["project"]["optional-dependencies"].items():
        if extra not in ("transformers", "torch"):  # gigabytes that no test installs
            wanted += requirements
    for group in ("test", "lint", "docs"):
        wanted += PROJECT["dependency-groups"][group]
    for requirement in map(Requirement, wanted):
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{requirement.name} is not in constraints.txt"
        assert requirement.specifier.contains(pin), f"{requirement} excludes {pin}"


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or ".")
    return names


def test_every_import_is_a_declared_dependency() -> None:
    names = set().union(*(imported(path) for path in (ROOT / "causalrm").rglob("*.py")))
    modules = {name.partition(".")[0] for name in names} - {"causalrm", *sys.stdlib_module_names}
    project = PROJECT["project"]
    wanted = [Requirement(line).name for line in project["dependencies"]]
    for lines in project["optional-dependencies"].values():
        wanted += [Requirement(line).name for line in lines]
    declared = {canonicalize_name(name) for name in wanted}
    brought = {"pytensor", "arviz_stats"}  # parts of pymc and arviz
    data = {"causaldata"}  # data sets alone: the loader says how to install it
    packages = importlib.metadata.packages_distributions()
    for module in modules - brought - data:
        found = {canonicalize_name(name) for name in packages.get(module, [module])}
        assert found & declared, f"{module} is imported, but pyproject.toml does not name it"


def test_dependencies_have_permissive_licences() -> None:
    waiting, seen = list(map(Requirement, PROJECT["project"]["dependencies"])), set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(name)
        about = importlib.metadata.metadata(name)
        lines = about.get_all("Classifier") or []
        licence = [about.get("License-Expression") or ""]
        licence += [line for line in lines if line.startswith("License")]
        assert not re.search(r"\b(A|L)?GPL|General Public", " ".join(licence)), f"{name}: {licence}"
        waiting += map(Requirement, importlib.metadata.requires(name) or [])
    assert {"numpy", "pymc", "llvmlite", "pytensor"} <= seen


KERNELS = sorted((ROOT / "causalrm").glob("*/_kernels*.py"))


@pytest.mark.parametrize("path", KERNELS, ids=lambda p: str(p.relative_to(ROOT)))
def test_kernels_import_arrays_only(path: Path) -> None:
    """As in the import rules, which name only `_kernels` itself."""
    allowed = {"causalrm.core.kernel", "causalrm.core.errors"}
    allowed |= {f"causalrm.{path.parent.name}.{p.stem}" for p in path.parent.glob("_kernels*.py")}
    packages = {"numpy", "scipy", "numba", *sys.stdlib_module_names}
    others = {n for n in imported(path) - allowed if n.partition(".")[0] not in packages}
    assert not others


def test_ci_runs_what_contributors_run() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    called = re.findall(r"^make (\S+)$", script.read_text(), re.M)
    assert called == ["test", "lint", "docs"]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert targets >= {"demo", "test", "test-slow", "lint", "docs", "bench", "clean"}


def is_public(capability: str) -> bool:
    path = ROOT / "causalrm" / capability / "__init__.py"
    return path.exists() and "__all__" in path.read_text()


@pytest.mark.parametrize("name", list(filter(is_public, CAPABILITIES)))
def test_every_capability_has_a_guide(name: str) -> None:
    page = (ROOT / "docs" / "guide" / f"{name}.md").read_text()
    for heading in ("The question", "The model", "Assumptions", "When not to use it", "References"):
        assert f"\n## {heading}" in page, f"{name}.md has no section {heading!r}"
    assert name in (ROOT / "docs" / "guide" / "index.md").read_text().split()
    assert "doi.org/" in page or "arxiv.org/" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        # The gallery and the API index are there once the documentation is built.
        if "://" not in target and not re.match(r"(\.\./)?(gallery|api)/", target):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)


@pytest.mark.parametrize(
    "page", [p for p in PAGES if python_blocks(p)], ids=lambda p: str(p.relative_to(ROOT))
)
def test_code_in_pages_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyplot.switch_backend("agg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    for block in python_blocks(page):
        exec(compile(block, str(page), "exec"), names)
    pyplot.close("all")


def test_readme_shows_what_its_script_writes() -> None:
    path = ROOT / "examples" / "readme.py"
    spec = importlib.util.spec_from_file_location("readme", path)
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    shown = (ROOT / "README.md").read_text()
    shown = shown.split("<!-- readme:begin -->")[1].split("<!-- readme:end -->")[0]
    assert shown.strip() == script.block().strip(), "run examples/readme.py"
    for figure in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", shown):
        assert (ROOT / figure).exists()
