"""Whether a reward keeps to the better answer when its style is changed and its meaning is not."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from causalrm.augment._pairs import column_values
from causalrm.augment.evaluation import as_result, clusters_of, gaps_of, mean_row
from causalrm.augment.result import EstimatesResult
from causalrm.core.errors import check_choice

_END = re.compile(r"(?<=[.!?])\s+")


def _listed(text: str) -> str:
    parts = [part for line in text.split("\n") for part in _END.split(line.strip()) if part]
    return "\n".join("- " + re.sub(r"^[-*•]\s+", "", part) for part in parts)


def _unlisted(text: str) -> str:
    lines = [re.sub(r"^\s*(?:[-*•]|\d+[.)]|#+)\s+", "", line) for line in text.split("\n")]
    return " ".join(line.strip() for line in lines if line.strip())


TRANSFORMS: dict[str, Callable[[str], str]] = {
    "lower case": str.lower,
    "upper case": str.upper,
    "double spaces": lambda text: text.replace(" ", "  "),
    "line breaks": lambda text: _END.sub("\n\n", text),
    "no final punctuation": lambda text: text.rstrip().rstrip(".!"),
    "no commas": lambda text: re.sub(r",(?=\s)", "", text),
    "quotation marks": lambda text: f'"{text}"',
    "as a list": _listed,
    "as plain text": _unlisted,
    "emphasis": lambda text: f"**{text}**",
    "opening phrase": lambda text: f"To answer your question: {text}",
    "framed": lambda text: f"Here is what can be said. {text} That is the answer.",
    "polite ending": lambda text: f"{text} I hope this helps! Feel free to ask for more.",
    "disclaimer": lambda text: f"{text} Please note that I am a language model.",
    "repeated request": lambda text: f"You asked a question, and I will answer it. {text}",
}
"""Changes of an answer that leave its meaning as it is, by name."""


def style_robustness(
    gap: Callable[[pd.DataFrame], Any],
    data: pd.DataFrame,
    *,
    query: str = "query",
    chosen: str = "chosen",
    rejected: str = "rejected",
    side: str = "rejected",
    transforms: Mapping[str, Callable[[str], str]] | None = None,
    cluster: Any = None,
) -> EstimatesResult:
    """Accuracy before and after changes of style that leave the meaning of answers as it is.

    Parameters
    ----------
    gap : callable
        Of a data frame: reward of the better answer less that of the worse one, shape (n,), such
        as ``model.gap``.
    data : pandas.DataFrame
        Pairs of which `chosen` is the better answer.
    query, chosen, rejected : str
        Columns of `data`.
    side : {"rejected", "chosen", "both"}, default "rejected"
        Which answers are changed. Of a reward that ignores style, accuracy stays as it is in each
        case.
    transforms : mapping of str to callable, optional
        Text to text; `TRANSFORMS` by default.
    cluster : array of shape (n,), optional
        The query by default.

    Returns
    -------
    EstimatesResult
        Group "accuracy" (before), and group "drop": accuracy before less after, paired, with
        clustered standard errors, one row per change; the column ``changed`` is the share of
        answers that a change leaves different.

    References
    ----------
    Wu, Yasunaga, Cohen et al. (2025), reWordBench: benchmarking and improving the robustness of
    reward models with transformed inputs, arXiv 2503.11751.

    Examples
    --------
    >>> import causalrm as crm
    >>> df, _ = crm.datasets.make_preferences(100, rng=0)
    >>> def longer(pairs):
    ...     return pairs["chosen"].str.len() - pairs["rejected"].str.len()
    >>> change = {name: TRANSFORMS[name] for name in ("upper case", "polite ending")}
    >>> found = style_robustness(longer, df, transforms=change)
    >>> found.to_frame()[["term", "estimate"]].round(2).values.tolist()
    [['before', 0.71], ['upper case', 0.0], ['polite ending', 0.09]]
    """
    check_choice("side", side, ("rejected", "chosen", "both"))
    asked, _, _ = column_values(data, query, chosen, text=True)
    column_values(data, query, rejected, text=True)
    codes, clusters, log = clusters_of(asked if cluster is None else cluster, len(data))
    before = 0.5 * (np.sign(gaps_of(gap(data))["reward"]) + 1.0)
    every = np.ones(len(data), dtype=bool)
    mean = mean_row(before, every, codes)
    rows: list[tuple[Any, ...]] = [("accuracy", "before", *mean, 0.0, True)]
    columns = [chosen, rejected] if side == "both" else [{"chosen": chosen}.get(side, rejected)]
    for name, transform in (TRANSFORMS if transforms is None else transforms).items():
        other = data.assign(**{c: [transform(text) for text in data[c]] for c in columns})
        after = 0.5 * (np.sign(gaps_of(gap(other))["reward"]) + 1.0)
        changed = float(np.mean([other[c].to_numpy() != data[c].to_numpy() for c in columns]))
        rows.append(("drop", name, *mean_row(before - after, every, codes), changed, False))
    return as_result("style_robustness", rows, "changed", len(data), clusters, log)
