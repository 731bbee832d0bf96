"""What all encoders share, and the check of texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin

from causalrm.core.column import first_rows
from causalrm.core.errors import CausalRMError, DataError


def texts(values: Iterable[Any], what: str, index: pd.Index | None = None) -> list[str]:
    """Values as a list of texts.

    Raises
    ------
    DataError
        When some are no text; the message counts them and names the first rows.
    """
    if isinstance(values, str):
        raise DataError(f"Expected a sequence of texts as {what}, but saw one text. Give a list.")
    found = list(values)
    if not found:
        raise DataError(
            f"Expected at least one text as {what}, but saw none. Check how they were filtered."
        )
    bad = [i for i, value in enumerate(found) if not isinstance(value, str)]
    if bad:
        kinds = sorted({type(found[i]).__name__ for i in bad})
        raise DataError(
            f"Expected texts in {what}, but {len(bad)} of {len(found)} are of type "
            f"{' and '.join(kinds)} (first rows: {first_rows(bad[:6], index)}). Convert them to "
            "text, drop these rows, or use the encoder Features for vectors."
        )
    return found


class Encoder(TransformerMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """What all encoders share: fit and transform take answers and, where they have them, queries.

    Attributes
    ----------
    query_aware : bool
        Whether the features of an answer depend on the query it is given to.
    """

    _names: np.ndarray
    query_aware: bool = False

    def fit(self, answers: Any, queries: Any = None) -> Self:
        """Learn what the encoder needs to know of the answers.

        Parameters
        ----------
        answers : sequence of str; for `Features` an array, a data frame or a sequence of vectors
        queries : sequence of str, optional
            Of the same length. Without them the features are of the answer alone.

        Returns
        -------
        Encoder
            Itself.

        Raises
        ------
        DataError
            When answers or queries are not of the right kind, or nothing can be learnt from them.
        """
        found, asked = self._read(answers, queries)
        self.query_aware = bool(getattr(self, "interaction", False)) and asked is not None
        names = self._learn(found, asked if self.query_aware else None)
        self._names = np.array(names, dtype=object)
        return self

    def transform(self, answers: Any, queries: Any = None) -> Any:
        """Features of each answer, given its query.

        Parameters
        ----------
        answers : as in `fit`
        queries : sequence of str, optional
            Needed where `fit` had them.

        Returns
        -------
        ndarray or scipy.sparse.csr_array of shape (n, p)
        """
        self._check_fitted()
        found, asked = self._read(answers, queries)
        if self.query_aware and asked is None:
            raise DataError(
                f"This {type(self).__name__} was fitted with queries, but saw none now. Give the "
                "queries, or fit it without them."
            )
        return self._features(found, asked if self.query_aware else None)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the features, an array of p texts."""
        self._check_fitted()
        return self._names

    @abstractmethod
    def _learn(self, found: Any, asked: list[str] | None) -> list[str]:
        """Learn from what was read, and name the features."""

    @abstractmethod
    def _features(self, found: Any, asked: list[str] | None) -> Any:
        """Features of what was read."""

    def _check_fitted(self) -> None:
        if not hasattr(self, "_names"):
            raise CausalRMError(f"This {type(self).__name__} is not fitted: call fit first.")

    def _read(self, answers: Any, queries: Any) -> tuple[Any, list[str] | None]:
        found = texts(answers, "answers")
        asked = None if queries is None else texts(queries, "queries")
        if asked is not None and len(asked) != len(found):
            raise DataError(
                f"Expected one query per answer, but saw {len(asked)} queries and {len(found)} "
                "answers. Give both with the same length."
            )
        return found, asked
