"""Published probabilities of language models: forecasts, and aggregate results of risk scores."""

from __future__ import annotations

import pickletools
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causalrm.core.errors import DataError
from causalrm.datasets._fetch import check, fetch, sha256_of

if TYPE_CHECKING:
    import pandas as pd

_FOLKTEXTS_URL = (
    "https://raw.githubusercontent.com/socialfoundations/folktexts/"
    "8a6d73524f99a545c39019b47093164d805e318d/results/aggregated-results.2024-08.csv"
)
_FOLKTEXTS = "9170e967cf2b45ad0aa195a62b0310ea2d778830de839e7fd41a4ba6ee9748f4"
_FORECASTS_URL = (
    "https://raw.githubusercontent.com/dannyallover/llm_forecasting/"
    "85e72d026fc0703f16e7aef6faaec99cc5f4041d/notebooks/results/data/"
)
_FORECASTS_CSV = "530d0ba9265aaab5b01826e5ef2903d2dc3f86d7830bcddbb50fbb817570886d"
_PICKLES = {
    "answers": "59c7d961003da94251d465a1ee1eee88ea46bd8d2a7c32979091c44b95ccf65c",
    "base": "851c70e740d220f1d0c164058ca06ea5d15125f2a81cf73ec1c0fe9c31bcf20f",
    "finetuned": "385033270b5490b5451b260dba035a1e2238b624eb27afb8696aee5e4f3b891d",
    "finetuned_other": "8f19b916ebe69e750a924f2e9f7c59f7afc860085782e241c722bd4cd684ff16",
    "crowd": "c0f6651ca9c473ca4dd122bc218c7d561ce7ea2cf2565ceb9e8712d2bc4a830f",
}
_SOURCES = tuple(_PICKLES)[1:]


def fetch_llm_forecasts(path: str | Path | None = None) -> pd.DataFrame:
    """Forecasts of binary questions by language models and by a crowd, with the outcomes.

    The files are looked for in the folder that the environment variable CAUSALRM_DATA names
    (``llm_forecasts/llm_forecasts.csv.gz`` or ``llm_forecasts/original/*.pickle``), then in the
    user's cache, and then downloaded from the authors' repository (0.3 MB, no licence stated:
    do not redistribute). Whichever is found is compared with its checksum. The published files
    are pickles; they are read as lists of numbers, and nothing in them is ever executed.

    Parameters
    ----------
    path : str or Path, optional
        A copy to read instead: the ``.csv.gz``, or a folder with the five pickles.

    Returns
    -------
    pandas.DataFrame
        26,188 rows, one per probability.

        =============== ======== ============================================================
        column          dtype    meaning
        =============== ======== ============================================================
        ``question``    int      position within the retrieval date; the source has nothing
                                 that links a question across dates
        ``retrieval``   int      0 to 4, the date at which news were retrieved
        ``source``      category ``base``, ``finetuned``, ``finetuned_other`` or ``crowd``
        ``sample``      int      from 0; several per question for the models
        ``probability`` float
        ``outcome``     int      1 yes, 0 no
        =============== ======== ============================================================

        Rows of one (retrieval, question) pair are about one event: take it as the cluster.

    Raises
    ------
    DataError, BackendError
        When a file on this machine is not the published one, or none can be downloaded.

    References
    ----------
    Halawi, Zhang, Yueh-Han, Steinhardt (2024). Approaching human-level forecasting with
    language models. arXiv:2402.18563.

    Examples
    --------
    The first call may use the network:

    >>> from causalrm.datasets import fetch_llm_forecasts
    >>> forecasts = fetch_llm_forecasts()  # doctest: +SKIP
    >>> forecasts["source"].value_counts()["crowd"]  # doctest: +SKIP
    3848
    """
    import pandas as pd

    files: dict[str, Path] = {}
    if path is not None and not Path(path).is_dir():
        files["answers"] = check(Path(path), {_FORECASTS_CSV})
    for name, checksum in _PICKLES.items() if not files else ():
        file = _pickle_name(name)
        local = {f"llm_forecasts/original/{file}": checksum}
        if name == "answers":  # one converted file in place of all five
            local = {"llm_forecasts/llm_forecasts.csv.gz": _FORECASTS_CSV} | local
        place = f"llm_forecasts/{file}"
        own = None if path is None else Path(path) / file
        files[name] = fetch(place, _FORECASTS_URL + file, checksum, local=local, path=own)
        if sha256_of(files[name]) == _FORECASTS_CSV:
            break
    if files["answers"].suffix == ".gz":
        frame = pd.read_csv(files["answers"], float_precision="round_trip")
    else:
        frame = pd.DataFrame(_rows({name: read_lists(file) for name, file in files.items()}))
    frame["source"] = pd.Categorical(frame["source"], _SOURCES)
    return frame


def fetch_folktexts(path: str | Path | None = None) -> pd.DataFrame:
    """Aggregate results of 21 language models on five ACS tasks, as published by folktexts.

    Looked for in CAUSALRM_DATA (``folktexts/aggregated-results.2024-08.csv``), then in the
    user's cache, then downloaded from the package's repository (0.2 MB, MIT licence), and
    compared with its checksum.

    Parameters
    ----------
    path : str or Path, optional
        A copy of the file to read instead.

    Returns
    -------
    pandas.DataFrame
        210 rows of model, task and kind of prompt; 64 columns as published, indexed by the
        authors' label, with a column ``task`` put before them. Scores and rates are within
        0 to 1. The main columns are ``name``, ``is_inst`` (instruction tuned),
        ``config_numeric_risk_prompting`` (a number was asked for, else a choice),
        ``n_samples``, ``n_positives``, ``score_mean``, ``score_stdev``, ``ece`` (10 bins of
        equal width), ``brier_score_loss`` and ``roc_auc``. Two rows (GPT 4o mini,
        ACSEmployment) are of a tenth of the people of the others.

    Raises
    ------
    DataError, BackendError
        When the file on this machine is not the published one, or none can be downloaded.

    References
    ----------
    Cruz, Hardt, Mendler-Duenner (2024). Evaluating language models as risk scores.
    arXiv:2407.14614.

    Examples
    --------
    The first call may use the network:

    >>> from causalrm.datasets import fetch_folktexts
    >>> fetch_folktexts()["task"].nunique()  # doctest: +SKIP
    5
    """
    import pandas as pd

    name = "folktexts/aggregated-results.2024-08.csv"
    file = fetch(name, _FOLKTEXTS_URL, _FOLKTEXTS, local={name: _FOLKTEXTS}, path=path)
    frame = pd.read_csv(file, index_col=0, float_precision="round_trip")
    frame.insert(0, "task", frame["config_task_name"].str.partition("_")[0])
    return frame


def _pickle_name(name: str) -> str:
    return f"{name}.pickle" if name == "answers" else f"{name}_predictions.pickle"


def _rows(lists: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """One row per probability: by retrieval date, question, source and sample."""
    rows = []
    for retrieval, answers in enumerate(lists["answers"]):
        for (question, outcome), source in product(enumerate(answers), _SOURCES):
            found = lists[source][retrieval][question]
            for sample, p in enumerate(found if isinstance(found, list) else [found]):
                rows.append({
                    "question": question, "retrieval": retrieval, "source": source,
                    "sample": sample, "probability": p, "outcome": outcome,
                })  # fmt: skip
    return rows


def read_lists(path: Path) -> list[Any]:
    """Read a pickle of nested lists of numbers, without executing it.

    Only the operations that build lists of ints and floats are known; a pickle with any other
    (those that import, call or refer to anything among them) is refused.

    Raises
    ------
    DataError
        When the file holds anything else or is damaged.
    """
    stack: list[Any] = []
    marks: list[int] = []
    try:
        for operation, argument, position in pickletools.genops(path.read_bytes()):
            name = operation.name
            if name in ("BININT", "BININT1", "BININT2", "BINFLOAT"):
                stack.append(argument)
            elif name == "EMPTY_LIST":
                stack.append([])
            elif name == "MARK":
                marks.append(len(stack))
            elif name == "APPEND":
                item = stack.pop()
                stack[-1].append(item)
            elif name == "APPENDS":
                start = marks.pop()
                items = stack[start:]
                del stack[start:]
                stack[-1].extend(items)
            elif name not in ("PROTO", "FRAME", "MEMOIZE", "STOP"):  # these build nothing
                raise DataError(
                    f"The pickle {path} has the operation {name} at byte {position}; only nested "
                    "lists of numbers are read."
                )
    except DataError:
        raise
    except (ValueError, IndexError, AttributeError) as error:
        raise DataError(f"The pickle {path} is damaged: {error}.") from error
    if len(stack) != 1 or marks or not isinstance(stack[0], list):
        raise DataError(f"The pickle {path} does not hold one list.")
    return list(stack[0])
