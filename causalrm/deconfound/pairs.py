"""Rows with deconfounded outcomes as preference pairs."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import pandas as pd

from causalrm.core.errors import DataError
from causalrm.core.frame import Source, scan
from causalrm.core.inference import delta_std_error


def labels_of(data: Any, name: str) -> np.ndarray:
    """Values of a column of any data frame as objects."""
    reader, rows = scan(Source(data), categories=[name])
    levels = pd.Series(reader.levels[name], dtype=object).to_numpy()
    return np.asarray(levels[rows.collect()[name]])


def pairs_of(
    prompt: np.ndarray,
    score: np.ndarray,
    min_margin: float,
    max_pairs: int | None,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows (better, worse) of all pairs within a prompt that differ by more than a margin.

    Parameters
    ----------
    prompt : ndarray of int of shape (n,)
    score : ndarray of shape (n,)
    min_margin : float
    max_pairs : int, optional
        Per prompt; so many are drawn where there are more.
    generator : Generator
    """
    better, worse = [], []
    order = np.argsort(prompt, kind="stable")
    ends = np.flatnonzero(np.diff(prompt[order])) + 1
    for rows in np.split(order, ends):
        m = len(rows)
        total = m * (m - 1) // 2
        if max_pairs is not None and total > 4 * max_pairs:  # without listing all of them
            i, j = generator.integers(m, size=(2, 4 * max_pairs))
            low, high = np.minimum(i, j)[i != j], np.maximum(i, j)[i != j]
            i, j = np.unique(np.stack([low, high]), axis=1)
        else:
            i, j = np.triu_indices(m, 1)
        i, j = rows[i], rows[j]
        first = score[i] > score[j]
        a, b = np.where(first, i, j), np.where(first, j, i)
        apart = score[a] - score[b] > min_margin
        a, b = a[apart], b[apart]
        if max_pairs is not None and len(a) > max_pairs:
            some = np.sort(generator.choice(len(a), max_pairs, replace=False))
            a, b = a[some], b[some]
        better.append(a)
        worse.append(b)
    return np.concatenate(better), np.concatenate(worse)


def pair_frame(
    score: np.ndarray, prompt: np.ndarray, answer: np.ndarray, min_margin: float,
    max_pairs: int | None, generator: np.random.Generator, sigma: float, c: np.ndarray,
    covariance: np.ndarray,
) -> pd.DataFrame:  # fmt: skip
    """Pairs as `DeconfoundedReward.to_pairs` gives them.

    Parameters
    ----------
    score : ndarray of shape (n,)
    prompt, answer : ndarray of object of shape (n,)
        Of one prompt are the rows that are compared; the answer is what the frame shows of a row.
    min_margin : float
    max_pairs : int, optional
    generator : Generator
    sigma : float
        Standard deviation of an outcome about the reward.
    c : ndarray of shape (q, n)
        Confounders whose effects were subtracted.
    covariance : ndarray of shape (q, q)
        Of these effects.
    """
    codes = pd.factorize(prompt)[0]
    a, b = pairs_of(codes, score, min_margin, max_pairs, generator)
    if not len(a):
        raise DataError(
            f"Expected texts of one prompt that differ by more than {min_margin}, but "
            f"{len(score)} rows of {codes.max() + 1} prompts give no pair. Lower min_margin, or "
            "give a coarser prompt."
        )
    q = len(c)
    error = delta_std_error((c[:, a] - c[:, b]).T, covariance[:q, :q])
    return pd.DataFrame(
        {
            "prompt": prompt[a], "chosen": answer[a], "rejected": answer[b],
            "margin": score[a] - score[b], "weight": 2 * sigma**2 / (2 * sigma**2 + error**2),
            "margin_std_error": error,
        }
    )  # fmt: skip


def write_jsonl(frame: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write one JSON object per row, as fine-tuning tools read preference data.

    Parameters
    ----------
    frame : pandas.DataFrame
    path : str or path

    Raises
    ------
    DataError
        When the file cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile, pandas as pd
    >>> pairs = pd.DataFrame({"prompt": ["a"], "chosen": ["b"], "rejected": ["c"], "margin": [1.0]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "pairs.jsonl"
    ...     write_jsonl(pairs, path)
    ...     print(path.read_text().strip())
    {"prompt": "a", "chosen": "b", "rejected": "c", "margin": 1.0}
    """
    try:
        with open(path, "w", encoding="utf-8") as file:
            for record in frame.to_dict("records"):
                file.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")
    except OSError as error:
        raise DataError(
            f"Expected a path that can be written for the pairs, but saw {os.fspath(path)!r} "
            f"({error.strerror}). Give another path."
        ) from error


def selection(
    score: np.ndarray, value: np.ndarray, n: int, prompt: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Chance of every row to be the best of n candidates, and each unit's influence on the value.

    Without prompts candidates are drawn from all rows; the value is that of a rule of order n,
    whose projection on a single row is the mean outcome of draws that hold the row. With prompts,
    n candidates are drawn from each prompt's own.

    Parameters
    ----------
    score, value : ndarray of shape (n_rows,)
        What is maximised, and what the choice is worth. Equal scores are ordered by row.
    n : int
        0 for all candidates of a prompt.
    prompt : ndarray of int of shape (n_rows,), optional

    Returns
    -------
    chance : ndarray of shape (n_rows,)
        Sums to 1.
    own : ndarray of shape (n_rows,)
        Influence of each row on the value; sums to 0.
    base : ndarray of shape (n_rows,)
        Chance of every row under a random choice.
    left_out : int
        Rows of prompts with fewer than n candidates.
    """
    total = len(score)
    if prompt is None:
        order = np.argsort(score, kind="stable")
        share = np.arange(total + 1) / total
        chance = np.empty(total)
        chance[order] = np.diff(share**n)
        # E[value of the best | row i is one of the n]: i is the best, or a better row is.
        below = share[1:] ** (n - 1)
        later = np.diff(share ** (n - 1)) * value[order]
        above = later.sum() - np.cumsum(later)
        own = np.empty(total)
        own[order] = value[order] * below + above
        own = n * (own - own.mean()) / total
        return chance, own, np.full(total, 1.0 / total), 0
    order = np.lexsort((score, prompt))
    _, start, size = np.unique(prompt[order], return_index=True, return_counts=True)
    rank = np.arange(total) - np.repeat(start, size) + 1
    m = np.repeat(size, size)
    take = m if n == 0 else np.full(total, n)
    fits = m >= take
    # C(rank - 1, n - 1) / C(m, n), by a product over the candidates drawn.
    p = take / m
    for step in range(1, int(take.max())):
        active = step < take
        factor = np.where(m > step, (rank - step) / np.maximum(m - step, 1), 1.0)
        p = np.where(active, p * np.clip(factor, 0.0, None), p)
    p = np.where(fits, p, 0.0)
    groups = int(fits[start].sum())
    if groups == 0:
        raise DataError(
            f"Expected prompts with at least {n} candidates, but the largest has {size.max()}. "
            "Lower n."
        )
    chance, base, own = np.zeros(total), np.zeros(total), np.zeros(total)
    chance[order] = p / groups
    base[order] = np.where(fits, 1.0 / m, 0.0) / groups
    overall = float(chance @ value)
    own[order] = chance[order] * value[order] - np.where(fits, overall / m, 0.0) / groups
    return chance, own, base, int(np.count_nonzero(~fits))
