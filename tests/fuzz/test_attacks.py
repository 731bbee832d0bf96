"""Files are data: nothing that a file or a formula says is ever run."""

from __future__ import annotations

import ast
import json
import pickle
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import causalrm as crm
from causalrm.core.encoding import Design
from tests.contract.cases import CASES, Case

PACKAGE = Path(crm.__file__).parent
TRAP = "causalrm_trap"  # a module that nothing may import

EXPRESSIONS = [
    f"__import__('{TRAP}')",
    f"x + len(__import__('{TRAP}').__name__)",
    f"np.log(__import__('{TRAP}') and x)",
    f"(lambda: __import__('{TRAP}'))()",
    f"(y := __import__('{TRAP}'))",
    f"f\"{{__import__('{TRAP}')}}\"",
    f"[__import__('{TRAP}') for _ in (1,)]",
    f"x if __import__('{TRAP}') else x",
    f"bs(x, df=__import__('{TRAP}'))",
    f"C(x, __import__('{TRAP}'))",
    f"C(x, levels=[__import__('{TRAP}')])",
    f"C(x, contr.treatment(base=__import__('{TRAP}')))",
    f"C(x, contr.custom(__import__('{TRAP}')))",
    f"eval('__import__(\"{TRAP}\")')",
    f"exec('import {TRAP}')",
    f"open('{TRAP}.txt', 'w')",
    f"np.load('{TRAP}.npy', allow_pickle=True)",
    f"np.fromfile('{TRAP}.npy')",
    f"np.__builtins__['__import__']('{TRAP}')",
    "np.core.multiarray", "np.log.__class__", "x.__class__.__mro__[1].__subclasses__()",
    "x.to_pickle('x')", "x.__array_interface__", "globals()['np']", "getattr(x, 'T')",
    "breakpoint()",
    "np.log.__globals__", "np.frompyfunc(print, 1, 1)(x)", "np.vectorize(print)(x)",
    "x.tofile('x')",
    "{**x}", "{x: x}", "x[0]", "x @ x", "await x", "yield x", "*x", "...", "x; x", "x\nimport os",
    "I(print)", "I(__import__)", "lookup('x')", "`x`.__class__", "poly(x, degree=print)",
    "scale(x, center=__import__)", "Q('x')", "hashed(x, levels=10)", "lag(x)", "np.ufunc(x)",
]  # fmt: skip


@pytest.fixture(autouse=True)
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Set the trap where it would be found, and see that nothing sprang it."""
    sprung = tmp_path / "sprung"
    (tmp_path / f"{TRAP}.py").write_text(f"open({str(sprung)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    yield tmp_path
    assert TRAP not in sys.modules and not sprung.exists()
    assert not {p.name for p in tmp_path.iterdir()} - {p.name for p in before} & {
        f"{TRAP}.txt",
        "x",
    }


class Trap:
    """Springs the trap when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return exec, (f"import {TRAP}",)


def test_the_trap_works(tmp_path: Path) -> None:
    """Or nothing below means anything."""
    pickle.loads(pickle.dumps(Trap()))
    assert sys.modules.pop(TRAP) and (tmp_path / "sprung").exists()
    (tmp_path / "sprung").unlink()


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_formula(text: str, trap: Path) -> None:
    np.save(trap / f"{TRAP}.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=40), "t": rng.exponential(size=40), "d": 1})
    for formula in (text, f"x + {text}", f"`x` + x:{text}"):
        with pytest.raises(crm.CausalRMError):
            crm.SurvivalRegression(phi=formula).fit(frame, time="t", event="d")


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_formula_in_the_state_of_a_design(text: str) -> None:
    plain = {
        "formula": "np.log(x)", "terms": ["Intercept", "np.log(x)"],
        "columns": [["x", None, 1.0, 2.0]], "products": [[], [["np.log(x)", 0]]], "codings": {},
        "transforms": {"np.log(x)": {"columns": ["x"], "state": [], "width": 1}},
    }  # fmt: skip
    assert len(Design.from_dict(plain)) == 2
    bad = json.loads(json.dumps(plain).replace("np.log(x)", json.dumps(text)[1:-1]))
    with pytest.raises(crm.DataError):
        Design.from_dict(bad)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Give the place of every text and every key in a JSON value."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key, None)
            yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for i, item in enumerate(value[:6]):
            yield from leaves(item, (*path, i))
    elif isinstance(value, str):
        yield path


def tampered(value: Any, path: tuple[Any, ...], text: str) -> Any:
    """Return a copy with another text, or another key, at a place."""
    out = json.loads(json.dumps(value))
    inner = out
    for key in path[:-1] if path[-1] is not None else path[:-2]:
        inner = inner[key]
    if path[-1] is None:
        inner[text] = inner.pop(path[-2])
    else:
        inner[path[-1]] = text
    return out


def attack(case: Case, most: int) -> int:
    fit, frame = case.fit(), case.make()[1].head(8)
    content = json.loads(fit.result_.to_json())
    places = list(leaves(content))
    places = places[:: max(len(places) // most, 1)]
    for i, place in enumerate(places):
        bad = tampered(content, place, EXPRESSIONS[i % 19])
        try:
            restored = crm.Estimator.from_result(crm.Result.from_json(json.dumps(bad)))
        except crm.CausalRMError:
            continue
        for use in (restored.to_frame, restored.summary, lambda: case.predict(restored, frame)):  # noqa: B023
            try:
                use()
            except Exception:  # noqa: BLE001 - a damaged result may fail in any way but by running code
                continue
    return len(places)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_tampered_result(case: Case) -> None:
    assert attack(case, 20) >= 20


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_result_tampered_everywhere(case: Case) -> None:
    assert attack(case, 100_000) > 90


@pytest.mark.parametrize(
    "name",
    ["os.system", "subprocess.Popen", "builtins.exec", "Popen", "Path", "partial", "ModuleType",
     "LoopbackServer", "Archive", "Cache", "OpenAICompatible", "Estimator", "sys", "table"],
)  # fmt: skip
def test_a_file_cannot_make_other_objects(name: str, trap: Path) -> None:
    content = json.loads(CASES[2].fit().result_.to_json())
    content["fields"]["diagnostics"] = {"~object": [name, {"path": f"{TRAP}.txt", "args": "ls"}]}
    with pytest.raises(crm.CausalRMError):
        crm.Result.from_json(json.dumps(content))
    with pytest.raises(crm.CausalRMError):
        crm.Result.from_json(json.dumps(content | {"class": name}))
    assert not (trap / f"{TRAP}.txt").exists()


@pytest.mark.parametrize("suffix", ["jsonl", "sqlite"])
def test_files_that_are_pickles(suffix: str, trap: Path) -> None:
    """Whatever a reader takes a pickle for, it does not load it."""
    path = trap / f"file.{suffix}"
    path.write_bytes(pickle.dumps(Trap(), protocol=0) + b"\n")
    readers: list[Callable[[], Any]] = [
        lambda: crm.Result.from_json(path),
        lambda: crm.attribution.Archive(path),
        lambda: crm.llm.Replay(path).complete(["?"]),
        lambda: crm.augment.ReplayOracle(path).attributes([]),
        lambda: crm.llm.FunctionModel(str.upper, name="upper", cache=path).complete(["?"]),
        lambda: crm.SurvivalRegression().fit(str(path), time="x", event="x"),
        lambda: crm.calibration.RiskTask.from_json(path.read_text()),
        lambda: crm.calibration.RiskScores.from_json(path.read_text()),
        lambda: crm.datasets.fetch_llm_forecasts(trap),
        lambda: crm.datasets.fetch_e1684(path),
    ]
    for read in readers:
        with pytest.raises(crm.CausalRMError):
            read()


def test_a_cache_holds_json_only(trap: Path) -> None:
    path = trap / "cache.sqlite"
    model = crm.llm.FunctionModel(str.upper, name="upper", cache=path)
    assert model.complete(["a"])["text"].tolist() == ["A"]
    with sqlite3.connect(path) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master")]
        for table in [t for t in tables if not t.startswith("sqlite_")]:
            for (kind,) in database.execute(f"SELECT type FROM pragma_table_info('{table}')"):
                assert kind in ("TEXT", "INTEGER", "REAL", ""), (table, kind)


# ---------------------------------------------------------------- what the code may call

FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "__import__", "pickle.load", "pickle.loads", "pickle.Unpickler",
    "marshal.load", "marshal.loads", "yaml.load", "yaml.unsafe_load", "torch.load", "joblib.load",
    "np.load", "numpy.load", "pd.read_pickle", "pandas.read_pickle", "os.system", "os.popen",
    "shelve.open", "runpy.run_path", "formulaic.model_matrix", "model_matrix",
    "get_model_matrix", "sklearn.load", "read_pickle", "skops.io.load", "pd.eval",
}  # fmt: skip
FORBIDDEN_MODULES = {
    "pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "yaml", "subprocess", "runpy",
    "code", "codeop", "jsonpickle",
}  # fmt: skip
# Modules by name: of those that the code itself lists, and of packages that an extra brings.
BY_NAME = {"__init__.py", "core/errors.py", "core/result.py", "core/store.py"}


def offences(source: str, name: str) -> list[str]:
    """What a source file calls or imports that can run what it reads."""
    found = []
    for node in ast.walk(ast.parse(source)):
        where = f"{name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            last = called.rpartition(".")[2]
            if called in FORBIDDEN_CALLS or last in ("read_pickle", "get_model_matrix"):
                found.append(f"{where}: {called}")
            if isinstance(node.func, ast.Attribute) and last in ("eval", "query") and node.args:
                if not isinstance(node.args[0], ast.Constant):
                    found.append(f"{where}: {called}")
            if last == "import_module" and name not in BY_NAME:
                if not (node.args and isinstance(node.args[0], ast.Constant)):
                    found.append(f"{where}: {called} of a name that is not written out")
            for keyword in node.keywords:
                value = getattr(keyword.value, "value", None)
                if keyword.arg in ("allow_pickle", "trust_remote_code", "shell") and value:
                    found.append(f"{where}: {keyword.arg}={value}")
                if keyword.arg == "weights_only" and value is False:
                    found.append(f"{where}: weights_only=False")
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{a.name}" for a in node.names)]
        found += [f"{where}: import {n}" for n in names if n.split(".")[0] in FORBIDDEN_MODULES]
    return found


@pytest.mark.parametrize(
    "line",
    ["eval(x)", "pd.eval(x)", "frame.eval(x)", "frame.query(x)", "np.load(x, allow_pickle=True)",
     "import pickle", "from pickle import loads", "torch.load(x)", "import_module(name)",
     "pd.read_pickle(x)", "f(x, trust_remote_code=True)", "import subprocess"],
)  # fmt: skip
def test_the_search_finds(line: str) -> None:
    assert offences(line, "somewhere.py")


def test_nothing_that_is_read_can_be_run() -> None:
    found = [
        line
        for path in sorted(PACKAGE.rglob("*.py"))
        for line in offences(path.read_text(), str(path.relative_to(PACKAGE)))
    ]
    assert not found, "\n".join(found)
