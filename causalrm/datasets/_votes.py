"""Comparisons of two things: votes on language models, and three classical tables."""

from __future__ import annotations

import hashlib
import json
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from causalrm.datasets._fetch import check, fetch

if TYPE_CHECKING:
    import pandas as pd

_EVALICA_URL = (
    "https://raw.githubusercontent.com/dustalov/evalica/2ebe79e3a191875aa0c4cc295c7f1c192e24214b/"
)
_LLMFAO = "106564a4bf06f047a4662979384313c22d9b4ca901e780f9e8419f8e5581adb1"
_LLMFAO_GZ = "4995c3e07af1693d65027a70ea9f9f54dd81a149d386a5be4af40d10f31b5e82"
_FOOD = "6f63acedb355970208e66b99c408cb271adcb3db4aff55988fbf56253fa4e61e"
_OUTCOME = {"left": 1.0, "tie": 0.5, "right": 0.0}

_ALPACA_URL = (
    "https://raw.githubusercontent.com/tatsu-lab/alpaca_eval/"
    "cd543a149df89434d8a54582c0151c0b945c3d20/"
)
_LENGTH_GZ = "4f8ef53fc430ac077c39b05cf2cf0603d6f8ab75a6d183e5f0ec1bb68ee3b17d"
_LEADERBOARD_CSV = "44dbbc762ff875619f3f71838fb0b5df2cd5bb4d8c705dc5053af989d68dc9b2"
# As the file of results of each model, in the order in which instructions are numbered.
_ANNOTATIONS = {
    "FuseChat-Gemma-2-9B-Instruct": (
        "72945b6a549eadcd18940fee835343d62985fced144e5b7a2b69c79e120d3cab"
    ),
    "FuseChat-Llama-3.1-8B-Instruct": (
        "7ef73623093cb690473d201417d3c6dfcb0e8d1c1f329180d802ab7dec81b1dc"
    ),
    "FuseChat-Llama-3.2-3B-Instruct": (
        "32d4b6912694012c82c1b822792a3fc9e492119a48d93a10c3fbf2990b3a40ae"
    ),
    "FuseChat-Qwen-2.5-7B-Instruct": (
        "c816628e6973dc86ed95e6f6a50fdc09fbc4fcb970ee39140138e652cbf2a505"
    ),
    "Mixtral-8x7B-Instruct-v0.1_concise": (
        "5f0d215b9a5796ad666dfce980ab4f8db38efa68b766b114f5d44cf85ce25315"
    ),
    "NullModel": "d8e6d6d8ad735b57149fe0d9cb307e095cdc8befee5f0a849e00d66912500be3",
    "gpt-3.5-turbo-1106": "4558bed562144780dfcdd5ff55cafc17d76eea62eca143cfcc7ac5f3c154de10",
    "gpt-3.5-turbo-1106_concise": (
        "87f84647d56b37e4e8c40a874ba33752f8e54f37ffcdfaab366775d84bf1adde"
    ),
    "gpt-3.5-turbo-1106_verbose": (
        "7d04918cdcdfee001cb27255fe52acf7cc1d6b2afde651d129b87d0707c99d8a"
    ),
    "alpaca-7b": "41047c654c6c5ddc0290fb207367e3f458d22692045eb41927eb64103a2cb764",
    "alpaca-7b_concise": "afa1dcc9daa47b9df7f50b2c09f489289008da0961f51e946f623e0a338947b0",
    "alpaca-7b_verbose": "bc02ca337d9c3bf38382e76d4f44584570ad64bec6b2d90f9adb55f0b4c2d107",
}
_LEADERBOARD = {
    "src/alpaca_eval/leaderboards/data_AlpacaEval_2/weighted_alpaca_eval_gpt4_turbo_leaderboard.csv": (  # noqa: E501
        "fe32bf85c2f7429038faa4c9a884d1d131726454ff84a4b810a91c1c7a2aa0e9"
    ),
    "src/alpaca_eval/metrics/weights/weighted_alpaca_eval_gpt4_turbo/length_controlled_v1/baseline_gpt4_1106_preview.csv": (  # noqa: E501
        "3bd6d5a46327020f1b3eea79ac62d537f89a953d44ab0a6da83c954e36a23254"
    ),
}


def fetch_llmfao(path: str | Path | None = None) -> pd.DataFrame:
    """Votes of people on answers of 59 language models to 13 prompts.

    Looked for in CAUSALRM_DATA (``llmfao/llmfao.csv.gz`` or ``llmfao/llmfao.csv``), then in the
    user's cache, then downloaded from the repository of evalica (0.5 MB, Apache-2.0; the terms
    of the original collection are not stated), and compared with its checksum.

    Parameters
    ----------
    path : str or Path, optional
        A copy of the file to read instead, ``.csv`` or ``.csv.gz``.

    Returns
    -------
    pandas.DataFrame
        8,931 rows, one per vote; the columns as published, and `outcome`.

        ======================== ===== ========================================================
        column                   dtype meaning
        ======================== ===== ========================================================
        ``id``                   int   comparison (2,139 of them, of several votes each)
        ``prompt``               int   13 prompts
        ``model_x``, ``model_y`` int   numbers of the models
        ``worker``               int   124 raters
        ``winner``               str   ``left``, ``right`` or ``tie``
        ``left``, ``right``      str   names of the models
        ``outcome``              float 1 left is better, 0.5 tie, 0 right is better
        ======================== ===== ========================================================

    Raises
    ------
    DataError, BackendError
        When the file on this machine is not the published one, or none can be downloaded.

    References
    ----------
    Ustalov (2025). Reliable, reproducible, and really fast leaderboards with Evalica. COLING
    2025, system demonstrations. arXiv:2412.11314.

    Examples
    --------
    The first call may use the network:

    >>> from causalrm.datasets import fetch_llmfao
    >>> len(fetch_llmfao())  # doctest: +SKIP
    8931
    """
    local = {"llmfao/llmfao.csv.gz": _LLMFAO_GZ, "llmfao/llmfao.csv": _LLMFAO}
    return _votes("llmfao.csv", _LLMFAO, local, path)


def fetch_food(path: str | Path | None = None) -> pd.DataFrame:
    """Thirty made-up votes on five dishes, a small example of votes with ties.

    Looked for in CAUSALRM_DATA (``llmfao/food.csv``), then in the user's cache, then downloaded
    from the repository of evalica (554 bytes, Apache-2.0).

    Parameters
    ----------
    path : str or Path, optional
        A copy of the file to read instead.

    Returns
    -------
    pandas.DataFrame
        30 rows: `left`, `right`, `winner` (left 13, right 15, tie 2) and `outcome` (1, 0, 0.5).

    Raises
    ------
    DataError, BackendError
        When the file on this machine is not the published one, or none can be downloaded.

    References
    ----------
    Ustalov (2025). Reliable, reproducible, and really fast leaderboards with Evalica. COLING
    2025, system demonstrations. arXiv:2412.11314.
    """
    return _votes("food.csv", _FOOD, {"llmfao/food.csv": _FOOD}, path)


def _votes(
    name: str, checksum: str, local: dict[str, str], path: str | Path | None
) -> pd.DataFrame:
    import pandas as pd

    file = fetch(f"llmfao/{name}", _EVALICA_URL + name, checksum, local=local, path=path)
    return pd.read_csv(file).assign(outcome=lambda votes: votes["winner"].map(_OUTCOME))


def fetch_alpaca_length(path: str | Path | None = None) -> pd.DataFrame:
    """Preferences of a judge between 12 models and a baseline, with the lengths of the answers.

    The models are four FuseChat models, Mixtral 8x7B told to be concise, a null model that gives
    one constant adversarial answer, and GPT-3.5 and Alpaca-7B, each plain, told to be concise
    and told to be verbose; the baseline is GPT-4 1106 preview, and the judge GPT-4 turbo.

    Looked for in CAUSALRM_DATA (``alpaca_eval_length/alpaca_eval_length.csv.gz``), then in the
    user's cache, then computed from the 12 files of results in the repository of AlpacaEval (45
    MB to download once). Whichever is found is compared with its checksum. The licence of the
    data is CC BY-NC 4.0: not for commercial use.

    Parameters
    ----------
    path : str or Path, optional
        A copy to read instead: the ``.csv.gz``, or a folder with a file ``<model>.json`` of
        results for every model.

    Returns
    -------
    pandas.DataFrame
        9,656 rows of model and instruction.

        ================================== ===== ==============================================
        column                             dtype meaning
        ================================== ===== ==============================================
        ``model``                          str   12 models
        ``instruction``                    int   0 to 804; the same number in every model
        ``instruction_sha256_16``          str   start of the SHA-256 of the instruction
        ``position``                       int   row in the model's file
        ``preference``                     float 1 (baseline) to 2 (model)
        ``len_output_1``, ``len_output_2`` int   characters of the baseline's and the model's
                                                 answer
        ``outcome``                        float `preference` - 1
        ================================== ===== ==============================================

    Raises
    ------
    DataError, BackendError
        When a file on this machine is not the published one, or none can be downloaded.

    References
    ----------
    Dubois, Galambosi, Liang, Hashimoto (2024). Length-controlled AlpacaEval: a simple way to
    debias automatic evaluators. arXiv:2404.04475.

    Examples
    --------
    The first call may use the network:

    >>> from causalrm.datasets import fetch_alpaca_length
    >>> fetch_alpaca_length()["model"].nunique()  # doctest: +SKIP
    12
    """
    import pandas as pd

    name = "alpaca_eval_length/alpaca_eval_length.csv.gz"
    files: list[Path] = []
    for model, checksum in _ANNOTATIONS.items():
        if path is None:
            place = f"results/{model}/weighted_alpaca_eval_gpt4_turbo/annotations.json"
            local = {name: _LENGTH_GZ} if not files else {}  # one converted file in place of all
            target = f"alpaca_eval_length/{model}.json"
            files.append(fetch(target, _ALPACA_URL + place, checksum, local=local))
        elif Path(path).is_dir():
            files.append(check(Path(path) / f"{model}.json", {checksum}))
        else:
            files.append(check(Path(path), {_LENGTH_GZ}))
        if files[-1].suffix == ".gz":
            frame = pd.read_csv(files[-1], float_precision="round_trip")
            break
    else:
        frame = _lengths(dict(zip(_ANNOTATIONS, files, strict=True)))
    return frame.assign(outcome=frame["preference"] - 1.0)


def _lengths(files: dict[str, Path]) -> pd.DataFrame:
    """One row per model and instruction; instructions are numbered as they first appear."""
    import pandas as pd

    number: dict[str, int] = {}
    rows = []
    for model, file in files.items():
        for position, item in enumerate(json.loads(file.read_bytes())):
            text = item["instruction"]
            rows.append({
                "model": model,
                "instruction": number.setdefault(text, len(number)),
                "instruction_sha256_16": hashlib.sha256(text.encode()).hexdigest()[:16],
                "position": position,
                "preference": item["preference"],
                "len_output_1": len(item["output_1"]),
                "len_output_2": len(item["output_2"]),
            })  # fmt: skip
    return pd.DataFrame(rows)


def fetch_alpaca_leaderboard(path: str | Path | None = None) -> pd.DataFrame:
    """Published win rates of the models of `fetch_alpaca_length`, plain and length-controlled.

    Looked for in CAUSALRM_DATA (``alpaca_eval_length/alpaca_eval_leaderboard.csv``), then in the
    user's cache, then put together from two files of the repository of AlpacaEval (44 kB,
    CC BY-NC 4.0).

    Parameters
    ----------
    path : str or Path, optional
        A copy of the ``.csv`` to read instead.

    Returns
    -------
    pandas.DataFrame
        12 rows, one per `model`: `win_rate`, `standard_error`, `length_controlled_winrate` and
        `lc_standard_error` in percent, `avg_length` in characters, the counts `n_wins`,
        `n_wins_base`, `n_draws`, `n_total`, and the three published weights of the
        length-controlled model (`glm_*`). Six `lc_standard_error` are not published.

    Raises
    ------
    DataError, BackendError
        When a file on this machine is not the published one, or none can be downloaded.

    References
    ----------
    Dubois, Galambosi, Liang, Hashimoto (2024). Length-controlled AlpacaEval: a simple way to
    debias automatic evaluators. arXiv:2404.04475.
    """
    import pandas as pd

    name = "alpaca_eval_length/alpaca_eval_leaderboard.csv"
    if path is not None:
        return pd.read_csv(check(Path(path), {_LEADERBOARD_CSV}), float_precision="round_trip")
    tables = []
    for i, (place, checksum) in enumerate(_LEADERBOARD.items()):
        local = {name: _LEADERBOARD_CSV} if i == 0 else {}
        target = f"alpaca_eval_length/{Path(place).name}"
        file = fetch(target, _ALPACA_URL + place, checksum, local=local)
        if file.name == Path(name).name:
            return pd.read_csv(file, float_precision="round_trip")
        tables.append(pd.read_csv(file, index_col=0, float_precision="round_trip"))
    rates, weights = tables
    weights.columns = pd.Index([
        "glm_tanh_std_delta_len", "glm_instruction_difficulty", "glm_not_gamed_baseline",
    ])  # fmt: skip
    columns = [
        "win_rate", "standard_error", "length_controlled_winrate", "lc_standard_error",
        "avg_length", "n_wins", "n_wins_base", "n_draws", "n_total",
    ]  # fmt: skip
    joined = rates[columns].join(weights).loc[list(_ANNOTATIONS)]
    return joined.rename_axis("model").reset_index()


def load_citations() -> pd.DataFrame:
    """Citations among four journals of statistics, 1987 and 1988.

    Returns
    -------
    pandas.DataFrame
        16 rows: `cited`, `citing` and `count`. In a comparison of two journals, the one that is
        cited wins; citations of a journal by itself compare nothing and are to be left out.

    References
    ----------
    Stigler, S. M. (1994). Citation patterns in the journals of statistics and probability.
    Statistical Science 9(1), 94-108. doi:10.1214/ss/1177010655

    Examples
    --------
    >>> from causalrm.datasets import load_citations
    >>> int(load_citations().query("cited != citing")["count"].sum())
    3727
    """
    import pandas as pd

    journals = ["Biometrika", "Comm Statist", "JASA", "JRSS-B"]
    counts = [[714, 730, 498, 221], [33, 425, 68, 17], [320, 813, 1072, 142], [284, 276, 325, 188]]
    rows = [
        (cited, citing, count)
        for cited, row in zip(journals, counts, strict=True)
        for citing, count in zip(journals, row, strict=True)
    ]
    return pd.DataFrame(rows, columns=["cited", "citing", "count"])


def load_puddings() -> pd.DataFrame:
    """Comparisons of six brands of chocolate pudding, with ties.

    Returns
    -------
    pandas.DataFrame
        15 rows, one per pair of brands `a` and `b`: `wins_a`, `wins_b` and `ties`.

    References
    ----------
    Davidson, R. R. (1970). On extending the Bradley-Terry model to accommodate ties in paired
    comparison experiments. JASA 65(329), 317-328. doi:10.1080/01621459.1970.10481082

    Examples
    --------
    >>> from causalrm.datasets import load_puddings
    >>> load_puddings()[["wins_a", "wins_b", "ties"]].sum().tolist()
    [254, 289, 202]
    """
    import pandas as pd

    text = """a b wins_a wins_b ties
1 2 19 22 16\n1 3 16 19 12\n2 3 19 19 10\n1 4 18 23 13\n2 4 23 19 9\n3 4 19 20 15
1 5 13 19 18\n2 5 16 20 12\n3 5 16 15 17\n4 5 17 14 16\n1 6 18 21 12\n2 6 22 20 12
3 6 13 18 10\n4 6 14 19 18\n5 6 11 21 12"""
    return pd.read_csv(StringIO(text), sep=" ")


def load_baseball() -> pd.DataFrame:
    """Games among seven teams of the American League East, 1987.

    Returns
    -------
    pandas.DataFrame
        42 rows, one per `home` and `away` team: `home_wins` and `away_wins`.

    References
    ----------
    Agresti, A. (2002). Categorical Data Analysis, 2nd edition, section 10.6. Wiley.
    doi:10.1002/0471249688

    Examples
    --------
    >>> from causalrm.datasets import load_baseball
    >>> load_baseball()[["home_wins", "away_wins"]].sum().tolist()
    [154, 119]
    """
    import pandas as pd

    teams = ["Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore"]
    won = [  # wins of the home team (row) over the visitors (column), and losses
        "4-3 4-2 4-3 6-1 4-2 6-0", "3-3 4-2 4-3 6-0 6-1 4-3", "2-5 4-3 2-4 4-3 4-2 6-0",
        "3-3 5-1 2-5 4-3 4-2 6-1", "5-1 2-5 3-3 4-2 5-2 6-0", "2-5 3-3 3-4 4-3 4-2 2-4",
        "2-5 1-5 1-6 2-4 1-6 3-4",
    ]  # fmt: skip
    rows = []
    for home, line in zip(teams, won, strict=True):
        visitors = [team for team in teams if team != home]
        for away, games in zip(visitors, line.split(), strict=True):
            rows.append((home, away, *map(int, games.split("-"))))
    return pd.DataFrame(rows, columns=["home", "away", "home_wins", "away_wins"])
