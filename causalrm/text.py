"""Encoders: texts, or queries with their answers, to arrays of features."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from sklearn.utils import murmurhash3_32

from causalrm.core.column import first_rows
from causalrm.core.errors import CausalRMError, DataError, require

__all__ = ["Features", "HashedText", "SentenceEmbeddings", "TfidfText"]

# Words and numbers, every other sign, and line breaks: style is to be seen as well as content.
_TOKEN = re.compile(r"\w+(?:[.,]\d+)*|[^\w\s]|\n")
_SENTENCE = re.compile(r"(?<=[.!?])[^\S\n]+|(?=\n)")
_SUMMARIES = (
    "share of sentences on topic", "log sentences on topic", "query terms in answer",
    "answer terms in query",
)  # fmt: skip
_NONE = np.zeros(0, dtype=np.int64)
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: an odd multiplier that mixes bits


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
    bad = [i for i, value in enumerate(found) if not isinstance(value, str)]
    if bad:
        kinds = sorted({type(found[i]).__name__ for i in bad})
        raise DataError(
            f"Expected texts in {what}, but {len(bad)} of {len(found)} are of type "
            f"{' and '.join(kinds)} (first rows: {first_rows(bad[:6], index)}). Convert them to "
            "text, drop these rows, or use the encoder Features for vectors."
        )
    return found


class _Encoder(TransformerMixin, BaseEstimator, ABC):  # type: ignore[misc]
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


class _Terms(_Encoder):
    """Terms of answers, and their relations to the terms of the query, as sparse columns."""

    interaction: bool
    lowercase: bool

    @abstractmethod
    def _known(self, terms: Sequence[str]) -> np.ndarray:
        """Codes of terms; those the encoder does not know are -1."""

    def _weight(self, codes: np.ndarray) -> np.ndarray:
        """Weight of each term."""
        return np.ones(len(codes))

    def _bags(self, found: Iterable[str]) -> dict[str, _Bag]:
        """Each distinct text as a bag of coded terms; sentences are often repeated."""
        cache: dict[str, _Sentence] = {}
        out = {}
        for text in dict.fromkeys(found):
            parts = _SENTENCE.split(text.lower() if self.lowercase else text)
            for part in parts:
                if part not in cache:
                    cache[part] = self._sentence(part)
            out[text] = _Bag([cache[part] for part in parts if part])
        return out

    def _sentence(self, text: str) -> _Sentence:
        terms = _TOKEN.findall(text)
        words = [term for term in dict.fromkeys(terms) if term[0].isalnum()]
        content = [word for word in words if word.lower() not in ENGLISH_STOP_WORDS]
        codes = [self._known(group) for group in (terms, words, content)]
        known = [c[c >= 0] for c in codes]
        return _Sentence(known[0], known[1], known[2], frozenset(content))

    @abstractmethod
    def _columns(self) -> tuple[int, int]:
        """Number of columns for terms and for pairs of terms."""

    @abstractmethod
    def _pair_columns(self, query: np.ndarray, answer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Column (-1: none) and sign of pairs of a query term and an answer term."""

    def _place(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Column and sign of terms."""
        return codes, np.ones(len(codes))

    def _features(self, found: list[str], asked: list[str] | None) -> sparse.csr_array:
        keys = list(zip([""] * len(found) if asked is None else asked, found, strict=True))
        place = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        distinct = self._distinct(list(place))
        return distinct if len(keys) == len(place) else distinct[[place[key] for key in keys]]

    def _distinct(self, keys: list[tuple[str, str]]) -> sparse.csr_array:
        """Features of distinct (query, answer) pairs."""
        bags = self._bags(answer for _, answer in keys)
        given = [bags[answer] for _, answer in keys]
        codes, sizes = _flat([bag.codes for bag in given])
        counts = _flat([bag.counts for bag in given])[0]
        n_terms, n_pairs = self._columns()
        place, sign = self._place(codes)
        blocks = [_csr(place, sign * self._weight(codes) * counts, sizes, n_terms)]
        if self.query_aware:
            questions = self._bags(query for query, _ in keys)
            asked = [questions[query] for query, _ in keys]
            near = [bag.near(query) for bag, query in zip(given, asked, strict=True)]
            codes, sizes = _flat([part.words for part in near])
            place, sign = self._place(codes)
            blocks.append(_csr(place, sign * self._weight(codes), sizes, n_terms))
            one, sizes = _flat([np.repeat(q.content, len(a.content))
                                for q, a in zip(asked, near, strict=True)])  # fmt: skip
            other, _ = _flat([np.tile(a.content, len(q.content))
                              for q, a in zip(asked, near, strict=True)])  # fmt: skip
            share = np.repeat([1.0 / math.sqrt(max(len(q.content), 1)) for q in asked], sizes)
            if n_pairs:
                place, sign = self._pair_columns(one, other)
                value = share * sign * self._weight(one) * self._weight(other)
                blocks.append(_csr(place, value, sizes, n_pairs))
            blocks.append(sparse.csr_array(np.array([part.summaries for part in near])))
        return sparse.csr_array(sparse.hstack(blocks, format="csr"))


def _flat(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Arrays end to end, and their lengths."""
    return np.concatenate([*parts, _NONE]), np.array([len(part) for part in parts])


def _csr(place: np.ndarray, value: np.ndarray, sizes: np.ndarray, n: int) -> sparse.csr_array:
    """Rows of so many entries each; entries in column -1 are left out, equal columns added."""
    row = np.repeat(np.arange(len(sizes)), sizes)
    kept = place >= 0
    entries = (value[kept], (row[kept], place[kept]))
    return sparse.coo_array(entries, shape=(len(sizes), n)).tocsr()


class _Sentence(NamedTuple):
    """Codes of all terms, of distinct words, and of those of content, which are there as text."""

    terms: np.ndarray
    words: np.ndarray
    content: np.ndarray
    about: frozenset[str]


class _Near(NamedTuple):
    """The part of an answer that is about a query: coded words, those of content, summaries."""

    words: np.ndarray
    content: np.ndarray
    summaries: list[float]


class _Bag:
    """A text as coded terms with log counts, and as sentences."""

    __slots__ = ("about", "codes", "content", "counts", "sentences")

    def __init__(self, sentences: list[_Sentence]) -> None:
        self.sentences = sentences
        self.codes, counts = np.unique(
            np.concatenate([_NONE, *(s.terms for s in sentences)]), return_counts=True
        )
        self.counts = 1.0 + np.log(counts)
        self.about = frozenset().union(*(s.about for s in sentences))
        self.content = np.unique(np.concatenate([_NONE, *(s.content for s in sentences)]))

    def near(self, query: _Bag) -> _Near:
        """The sentences that share a word of content with a query."""
        found = [s for s in self.sentences if not query.about.isdisjoint(s.about)]
        shared = len(query.about & self.about)
        summaries = [
            len(found) / max(len(self.sentences), 1),
            math.log1p(len(found)),
            shared / max(len(query.about), 1),
            shared / max(len(self.about), 1),
        ]
        return _Near(
            np.concatenate([_NONE, *(s.words for s in found)]),
            np.concatenate([_NONE, *(s.content for s in found)]),
            summaries,
        )


class HashedText(_Terms):
    """Hashed terms of the answer, and their relation to the query; nothing is learnt.

    Columns are terms of the answer (words, numbers, punctuation, line breaks). With queries, the
    sentences of the answer that share a word of content with the query, which are on its topic,
    give three more blocks: their words, their pairs with the words of the query, and four
    summaries of how much of the answer is on topic. These blocks vanish when the answer belongs to
    another query; the first one, in which style shows, does not.

    Parameters
    ----------
    n_features : int, default 256
        Columns for terms; as many again for terms on topic.
    n_pairs : int, default 256
        Columns for pairs of a query term and an answer term. 0 leaves them out.
    interaction : bool, default True
        Whether features relate the answer to its query, where queries are given.
    lowercase : bool, default True

    References
    ----------
    Weinberger, Dasgupta, Langford, Smola, Attenberg (2009), Feature hashing for large scale
    multitask learning, ICML, doi 10.1145/1553374.1553516, arXiv 0902.2206.

    Examples
    --------
    >>> encoder = HashedText().fit(["It is Paris."], ["Where is the Louvre?"])
    >>> x = encoder.transform(["The Louvre is in Paris."] * 2, ["Where is the Louvre?", "And 2?"])
    >>> x.shape, bool((x[[0]] != x[[1]]).nnz)
    ((2, 772), True)
    """

    def __init__(
        self,
        n_features: int = 256,
        n_pairs: int = 256,
        *,
        interaction: bool = True,
        lowercase: bool = True,
    ):
        self.n_features = n_features
        self.n_pairs = n_pairs
        self.interaction = interaction
        self.lowercase = lowercase

    def _learn(self, found: list[str], asked: list[str] | None) -> list[str]:
        if self.n_features < 1 or self.n_pairs < 0:
            raise DataError(
                "Expected at least 1 column of terms and 0 of pairs, but saw "
                f"n_features={self.n_features} and n_pairs={self.n_pairs}. Raise them."
            )
        self._codes: dict[str, int] = {}
        names = [f"term {j}" for j in range(self.n_features)]
        if asked is not None:
            names += [f"term {j} on topic" for j in range(self.n_features)]
            names += [f"pair {j}" for j in range(self.n_pairs)]
            names += _SUMMARIES
        return names

    def _known(self, terms: Sequence[str]) -> np.ndarray:
        cache = self._codes
        for term in terms:
            if term not in cache:
                cache[term] = murmurhash3_32(term, positive=True)
        return np.array([cache[term] for term in terms], dtype=np.int64)

    def _columns(self) -> tuple[int, int]:
        return self.n_features, self.n_pairs

    def _place(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _hashed(codes.astype(np.uint64), self.n_features)

    def _pair_columns(self, query: np.ndarray, answer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        keys = (query.astype(np.uint64) << np.uint64(32)) ^ answer.astype(np.uint64)
        return _hashed(keys, self.n_pairs)


def _hashed(keys: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Column below n and sign of each 64-bit key."""
    mixed = keys * _MIX
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    sign = 1.0 - 2.0 * ((mixed >> np.uint64(62)) & np.uint64(1)).astype(float)
    return ((mixed >> np.uint64(24)) % np.uint64(n)).astype(np.int64), sign


class TfidfText(_Terms):
    r"""Terms of the answer by inverse document frequency, and their relation to the query.

    As `HashedText`, with a vocabulary that is learnt from the texts of `fit`, so that every
    feature has a name. A term of n_t of the n distinct texts has weight
    :math:`\log\frac{1 + n}{1 + n_t} + 1`, scaled to a mean of one: what all answers say counts
    less than what few say.

    Parameters
    ----------
    max_features : int, default 256
        Most terms; those in most texts are kept.
    max_pairs : int, default 256
        Most pairs of a query term and an answer term.
    min_df : int, default 2
        Distinct texts (for pairs: rows) in which a term must be.
    interaction : bool, default True
    lowercase : bool, default True

    Examples
    --------
    >>> answers = ["It is Paris.", "Paris, I hope.", "It is 4.", "4, I hope."]
    >>> queries = ["Capital of France?"] * 2 + ["What is 2 + 2?"] * 2
    >>> encoder = TfidfText().fit(answers, queries)
    >>> [str(name) for name in encoder.get_feature_names_out()][:4]
    [',', '.', '4', '?']
    """

    def __init__(
        self,
        max_features: int = 256,
        max_pairs: int = 256,
        *,
        min_df: int = 2,
        interaction: bool = True,
        lowercase: bool = True,
    ):
        self.max_features = max_features
        self.max_pairs = max_pairs
        self.min_df = min_df
        self.interaction = interaction
        self.lowercase = lowercase

    def _learn(self, found: list[str], asked: list[str] | None) -> list[str]:
        # Answers may repeat terms of queries, which are therefore counted too.
        distinct = dict.fromkeys(found + (asked or []))
        low = [text.lower() if self.lowercase else text for text in distinct]
        count = Counter(term for text in low for term in set(_TOKEN.findall(text)))
        often = sorted((-n, term) for term, n in count.items() if n >= self.min_df)
        if not often:
            raise DataError(
                f"Expected terms in at least min_df={self.min_df} texts, but no term of the "
                f"{len(distinct)} distinct texts is. Lower min_df, or give more texts."
            )
        often = sorted(often[: self.max_features], key=lambda item: item[1])
        self._vocabulary = {term: j for j, (_, term) in enumerate(often)}
        idf = np.log((1.0 + len(distinct)) / (1.0 - np.array([n for n, _ in often]))) + 1.0  # n < 0
        self._idf = idf / idf.mean()
        self._pairs = np.zeros(0, dtype=np.int64)
        terms = list(self._vocabulary)
        names = list(terms)
        if asked is not None:
            self._pairs = self._learn_pairs(found, asked)
            names += [f"{term} on topic" for term in terms]
            names += [f"{terms[k // len(terms)]} x {terms[k % len(terms)]}" for k in self._pairs]
            names += _SUMMARIES
        return names

    def _learn_pairs(self, found: list[str], asked: list[str]) -> np.ndarray:
        """Codes of the pairs in most rows, sorted."""
        bags, questions = self._bags(found), self._bags(asked)
        n = len(self._vocabulary)
        keys = []
        for q, a in dict.fromkeys(zip(asked, found, strict=True)):
            query = questions[q]
            keys.append((query.content[:, None] * n + bags[a].near(query).content).ravel())
        code, count = np.unique(np.concatenate(keys), return_counts=True)
        code, count = code[count >= self.min_df], count[count >= self.min_df]
        return np.sort(code[np.lexsort((code, -count))[: self.max_pairs]])

    def _known(self, terms: Sequence[str]) -> np.ndarray:
        return np.array([self._vocabulary.get(term, -1) for term in terms], dtype=np.int64)

    def _weight(self, codes: np.ndarray) -> np.ndarray:
        return np.asarray(self._idf[codes])

    def _columns(self) -> tuple[int, int]:
        return len(self._vocabulary), len(self._pairs)

    def _pair_columns(self, query: np.ndarray, answer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        keys = query * len(self._vocabulary) + answer
        place = np.searchsorted(self._pairs, keys).clip(max=len(self._pairs) - 1)
        return np.where(self._pairs[place] == keys, place, -1), np.ones(keys.size)


class SentenceEmbeddings(_Encoder):
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


class Features(_Encoder):
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
