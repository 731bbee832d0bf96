"""Encoders of vectors: those of a sentence model, or features that are there already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from causalrm.core.column import first_rows
from causalrm.core.errors import DataError, require
from causalrm.text.base import Encoder


class SentenceEmbeddings(Encoder):
    """Embeddings of the answer; with queries, also their products with those of the query.

    Parameters
    ----------
    model : str or callable, default "sentence-transformers/all-MiniLM-L6-v2"
        A model of the package sentence-transformers, or a function of a list of texts that
        returns an array with one row per text.
    interaction : bool, default True
        Whether the products of answer and query, coordinate by coordinate, and their cosine are
        features too, where queries are given.

    References
    ----------
    Reimers, Gurevych (2019), Sentence-BERT, EMNLP, doi 10.18653/v1/D19-1410, arXiv 1908.10084.

    Examples
    --------
    >>> def lengths(texts):
    ...     return [[len(text), text.count(" ")] for text in texts]
    >>> encoder = SentenceEmbeddings(lengths, interaction=False).fit(["Paris.", "It is Paris."])
    >>> encoder.transform(["It is so."]).tolist()
    [[9.0, 2.0]]
    """

    def __init__(
        self,
        model: str | Callable[[list[str]], Any] = "sentence-transformers/all-MiniLM-L6-v2",
        *,
        interaction: bool = True,
    ):
        self.model = model
        self.interaction = interaction

    def _learn(self, found: list[str], asked: list[str] | None) -> list[str]:
        p = self._embed(found[:1]).shape[1]
        names = [f"e{j}" for j in range(p)]
        if asked is not None:
            names += [f"e{j} x query" for j in range(p)] + ["cosine with query"]
        return names

    def _embed(self, found: list[str]) -> np.ndarray:
        distinct = {text: i for i, text in enumerate(dict.fromkeys(found))}
        model = self.model
        if isinstance(model, str):
            if not hasattr(self, "_loaded"):
                package = require("sentence_transformers", "transformers")
                self._loaded = package.SentenceTransformer(model)
            model = self._loaded.encode
        rows = np.asarray(model(list(distinct)), dtype=float)
        if rows.ndim != 2 or len(rows) != len(distinct) or not np.isfinite(rows).all():
            raise DataError(
                f"Expected {len(distinct)} rows of finite numbers from the embedding model, but "
                f"saw an array of shape {rows.shape}. Check the model."
            )
        return np.asarray(rows[[distinct[text] for text in found]])

    def _features(self, found: list[str], asked: list[str] | None) -> np.ndarray:
        x = self._embed(found)
        if asked is None:
            return x
        q = self._embed(asked)
        product = x * q * np.sqrt(x.shape[1])
        norm = np.sqrt((x**2).sum(axis=1) * (q**2).sum(axis=1))
        cosine = (x * q).sum(axis=1) / np.where(norm > 0, norm, 1.0)
        return np.hstack([x, product, cosine[:, None]])


class Features(Encoder):
    """Answers that are numeric vectors already; queries are ignored.

    Parameters
    ----------
    names : sequence of str, optional
        Names of the features; those of the columns of a frame, or x0, x1, ..., by default.

    Examples
    --------
    >>> import numpy as np
    >>> encoder = Features().fit([np.array([1.0, 2.0]), np.array([3.0, 4.0])])
    >>> encoder.get_feature_names_out().tolist()
    ['x0', 'x1']
    """

    def __init__(self, names: Sequence[str] | None = None):
        self.names = names

    def _read(self, answers: Any, queries: Any) -> tuple[np.ndarray, None]:
        if isinstance(answers, pd.DataFrame):
            self._given = [str(name) for name in answers.columns]
        return _vectors(answers), None

    def _learn(self, found: np.ndarray, asked: list[str] | None) -> list[str]:
        p = found.shape[1]
        given = getattr(self, "_given", [f"x{j}" for j in range(p)])
        names = given if self.names is None else [str(name) for name in self.names]
        if len(names) != p:
            raise DataError(
                f"Expected {len(names)} features, one per name, but the vectors have {p}. Give as "
                "many names as features."
            )
        return names

    def _features(self, found: np.ndarray, asked: list[str] | None) -> np.ndarray:
        if found.shape[1] != len(self._names):
            raise DataError(
                f"Expected vectors of {len(self._names)} features, as in the fit, but saw "
                f"{found.shape[1]}. Give the same features."
            )
        return found


def _vectors(answers: Any) -> np.ndarray:
    """Vectors as a finite array of shape (n, p)."""
    try:
        x = np.asarray(
            answers if isinstance(answers, np.ndarray | pd.DataFrame) and answers.ndim == 2
            else np.stack([np.asarray(row, dtype=float) for row in answers]),
            dtype=float,
        )  # fmt: skip
    except (TypeError, ValueError) as error:
        raise DataError(
            "Expected answers that are numeric vectors of one length, but they cannot be stacked "
            f"to an array ({error}). Use a text encoder for texts."
        ) from error
    if x.ndim != 2:
        raise DataError(
            f"Expected one vector of numbers per answer, but saw an array of shape {x.shape}. "
            "Give each answer as a vector."
        )
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if len(bad):
        raise DataError(
            f"Expected finite numbers, but {len(bad)} of {len(x)} answers have others "
            f"(first rows: {first_rows([int(i) for i in bad[:6]], None)}). Correct them."
        )
    return x
