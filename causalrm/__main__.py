"""``python -m causalrm``: versions, threads, and where the documentation is."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, metadata, version

from causalrm.core.parallel import n_threads
from causalrm.core.result import versions

# Beside those that decide every result: what some results depend on, and the optional parts.
OTHERS = (
    "scikit-learn", "statsmodels", "econml", "lifelines", "pymc", "arviz", "matplotlib", "joblib",
    "nutpie", "polars", "pyarrow", "dask", "openai", "transformers", "torch",
)  # fmt: skip


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _documentation() -> str:
    try:
        links = metadata("causalrm").get_all("Project-URL") or []
    except PackageNotFoundError:  # run from a checkout that is not installed
        links = []
    for link in links:
        kind, _, address = link.partition(", ")
        if kind.lower() == "documentation":
            return str(address)
    return "'make docs' in the source tree builds it in docs/_build/html"


def main() -> None:
    """Print what a bug report should contain."""
    setting = os.environ.get("CAUSALRM_NUM_THREADS")
    origin = "CAUSALRM_NUM_THREADS" if setting else "all CPUs; CAUSALRM_NUM_THREADS sets another"
    lines = versions() | {package: _installed(package) for package in OTHERS}
    lines |= {
        "threads": f"{n_threads()} ({origin})",
        "data": os.environ.get("CAUSALRM_DATA", "downloaded when needed; CAUSALRM_DATA not set"),
        "docs": _documentation(),
    }
    for name, text in lines.items():
        print(f"{name:<14}{text}")


if __name__ == "__main__":
    main()
