"""The public names of causalrm, by capability, and the API index made from them."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

import causalrm

# In the order of the guide; a package that is not there yet is left out.
PACKAGES = {
    "survival": "Survival",
    "calibration": "Calibration",
    "preference": "Preferences",
    "augment": "Causal augmentation",
    "deconfound": "Deconfounding",
    "risk": "Risk with missing outcomes",
    "attribution": "Attribution",
    "llm": "Language models",
    "text": "Text encoders",
    "datasets": "Data sets",
    "core": "Shared by all",
}
# What every capability returns or raises, in the order of the index; a user meets these without
# importing them.
CORE = {
    "estimator": ["Estimator"],
    "result": ["Result", "LikelihoodResult", "Estimate", "Assumption"],
    "table": ["Table", "table"],
    "errors": [
        "CausalRMError", "DataError", "IdentificationError", "ConvergenceError", "BackendError",
        "MissingDependencyError", "CausalRMWarning", "ConvergenceWarning",
        "IdentificationWarning",
    ],
}  # fmt: skip

# Packages have their section, and an alias of types has no docstring of its own.
UNDESCRIBED = (types.ModuleType, types.UnionType, types.GenericAlias, typing.TypeAliasType)


@dataclass(frozen=True)
class Section:
    package: str
    title: str
    intro: str
    names: list[str]


def first_line(obj: Any) -> str:
    """The first line of a docstring; a constant would only show that of its type."""
    described = inspect.isclass(obj) or inspect.isroutine(obj) or inspect.ismodule(obj)
    return (inspect.getdoc(obj) or "").partition("\n")[0] if described else ""


def sections() -> list[Section]:
    """Every public object once, under the shortest name that a user can import."""
    found: list[tuple[str, str, Any]] = []
    for package in PACKAGES:
        if package != "core" and importlib.util.find_spec(f"causalrm.{package}"):
            module = importlib.import_module(f"causalrm.{package}")
            for name in getattr(module, "__all__", []):
                found.append((package, f"causalrm.{package}.{name}", getattr(module, name)))
    for file, names in CORE.items():
        module = importlib.import_module(f"causalrm.core.{file}")
        for name in names:
            found.append(("core", f"causalrm.core.{file}.{name}", getattr(module, name)))
    top = {name: getattr(causalrm, name) for name in causalrm.__all__ if name[0] != "_"}
    found += [("core", f"causalrm.{name}", obj) for name, obj in top.items()]

    shortest = {id(obj): f"causalrm.{name}" for name, obj in top.items()}
    listed: dict[str, list[str]] = {}
    for package, name, obj in found:
        name = shortest.get(id(obj), name)
        if not isinstance(obj, UNDESCRIBED) and not any(name in names for names in listed.values()):
            listed.setdefault(package, []).append(name)
    return [
        Section(
            package=package,
            title=title,
            intro=first_line(importlib.import_module(f"causalrm.{package}")),
            names=listed[package],
        )
        for package, title in PACKAGES.items()
        if package in listed
    ]


def resolve(name: str) -> Any:
    """Return the object behind a dotted name of `sections`."""
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            obj = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            obj = getattr(obj, part)
        return obj
    raise ImportError(name)


def write(app: Any, config: Any) -> None:
    source = Path(app.srcdir)
    template = jinja2.Template((source / "_templates" / "api.rst").read_text())
    found = sections()
    guides = {path.stem for path in (source / "guide").glob("*.md")}
    text = template.render(sections=found, guides=guides)
    target = source / "api" / "index.rst"
    target.parent.mkdir(exist_ok=True)
    if not target.exists() or target.read_text() != text:
        target.write_text(text)
    # A page includes the examples of its object; without any, it includes an empty file.
    examples = source / "api" / "backreferences"
    examples.mkdir(exist_ok=True)
    for section in found:
        for name in section.names:
            (examples / f"{name}.examples").touch()


def setup(app: Any) -> dict[str, bool]:
    app.connect("config-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
