"""The shared list of bad inputs, and what must become of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

# What a remedy starts with: an imperative, at the head of a sentence or of a part of one.
REMEDY = (
    r"(?:^|[.;:,] (?:or )?)(?i:add|check|choose|combine|convert|correct|divide|drop|fit|fix|give|"
    r"leave|lower|merge|raise|recode|refit|remove|rename|replace|rescale|scale|set|simplify|swap|"
    r"use)\b"
)


@dataclass(frozen=True)
class Bad:
    """A way to spoil one column of a good frame.

    Parameters
    ----------
    name : str
    spoil : callable
        (copy of the frame, name of the column) -> spoilt frame.
    where : str
        Which columns of a case are spoilt: "used" (all), "covariates", "numbers" (covariates and
        numeric roles), "roles" (numeric roles), "event", "category".
    count : int, optional
        Number of bad values, which the message must state.
    may_fit : bool
        Whether a right answer will do as well: one with finite estimates.
    names_column : bool
        Whether the message must name the column.
    """

    name: str
    spoil: Callable[[pd.DataFrame, str], pd.DataFrame]
    where: str
    count: int | None = None
    may_fit: bool = False
    names_column: bool = True

    def __str__(self) -> str:
        return self.name


def _put(value: object, rows: tuple[int, ...] = (3, 7, 11)) -> Callable[..., pd.DataFrame]:
    def spoil(frame: pd.DataFrame, column: str) -> pd.DataFrame:
        values = frame[column].astype(object if isinstance(value, str) else float)
        values.iloc[list(rows)] = value
        return frame.assign(**{column: values})

    return spoil


def _all(change: Callable[[pd.Series], object]) -> Callable[..., pd.DataFrame]:
    return lambda frame, column: frame.assign(**{column: change(frame[column])})


def _missing_text(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    values = frame[column].astype(object)
    values.iloc[[3, 7, 11]] = None
    return frame.assign(**{column: values})


def _dates(x: pd.Series) -> pd.Series:
    return pd.Series(pd.Timestamp("2020-01-01"), index=x.index)


def _objects(x: pd.Series) -> pd.Series:
    return pd.Series([[v] for v in x], index=x.index, dtype=object)


BAD = [
    Bad("missing column", lambda f, c: f.drop(columns=c), "used"),
    Bad("duplicated name", lambda f, c: pd.concat([f, f[[c]]], axis=1), "used"),
    Bad("numbers as text", _all(lambda x: x.astype(str)), "roles"),
    Bad("covariate as text", _all(lambda x: x.astype(str)), "covariates", may_fit=True),
    Bad("one text among numbers", _put("n/a"), "numbers"),
    Bad("dates", _all(_dates), "numbers"),
    Bad("lists", _all(_objects), "numbers"),
    Bad("NaN", _put(np.nan), "numbers", count=3),
    Bad("all NaN", _all(lambda x: x * np.nan), "numbers"),
    Bad("None in text", _missing_text, "category", count=3),
    Bad("inf", _put(np.inf), "numbers", count=3),
    Bad("-inf", _put(-np.inf), "numbers", count=3),
    Bad("constant covariate", _all(lambda x: x * 0 + 3), "covariates"),
    Bad("constant text", _all(lambda x: "a"), "category", may_fit=True),
    Bad("one value 1e300", _put(1e300, (5,)), "numbers", count=1),
    Bad("1e300 times", _all(lambda x: x * 1e300), "numbers"),
    Bad("1e-300 times", _all(lambda x: x * 1e-300), "numbers"),
    Bad("1e8 times a covariate", _all(lambda x: x * 1e8), "covariates", may_fit=True),
    Bad("no rows", lambda f, c: f.iloc[:0], "used", names_column=False),
    Bad("one row", lambda f, c: f.iloc[:1], "used", names_column=False),
    Bad("all censored", _all(lambda x: 0), "event"),
    Bad("events coded 1 and 2", _all(lambda x: x + 1), "event"),
]

# Spoil the weights, a column "w" of ones.
BAD_WEIGHTS = [
    Bad("negative weights", _put(-1.0), "used", count=3),
    Bad("all weights zero", _all(lambda x: 0.0 * x), "used"),
    Bad("NaN weights", _put(np.nan), "used", count=3),
    Bad("inf weights", _put(np.inf), "used", count=3),
    Bad("weights as text", _all(lambda x: x.astype(str)), "used"),
]

# Spoil the rows to predict.
BAD_ROWS = [
    Bad("missing column", lambda f, c: f.drop(columns=c), "design"),
    Bad("NaN", _put(np.nan), "covariates", count=3),
    Bad("inf", _put(np.inf), "covariates", count=3),
    Bad("dates", _all(_dates), "covariates"),
    Bad("covariate as text", _all(lambda x: x.astype(str)), "covariates"),
    Bad("unseen level", _put("new", (2, 4)), "category", count=2),
    Bad("None in text", _missing_text, "category", count=3),
    Bad("duplicated name", lambda f, c: pd.concat([f, f[[c]]], axis=1), "design"),
]

# Harmless: the answer must be that of the plain index.
INDEXES = {
    "reversed": lambda n: pd.Index(range(n - 1, -1, -1)),
    "shuffled": lambda n: pd.Index(np.random.default_rng(0).permutation(n)),
    "duplicated": lambda n: pd.Index([0] * n, name="id"),
    "text": lambda n: pd.Index([f"row {i % 7}" for i in range(n)]),
    "multi": lambda n: pd.MultiIndex.from_arrays([[i % 3 for i in range(n)], range(n)]),
    "dates": lambda n: pd.date_range("2020-01-01", periods=n)[::-1],
    "missing": lambda n: pd.Index([np.nan] + [1.0] * (n - 1)),
}
