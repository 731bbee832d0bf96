"""Encoders that count words, of answers and of how near they come to their query."""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from sklearn.utils import murmurhash3_32

from causalrm.core.errors import DataError
from causalrm.text.base import Encoder

# Words and numbers, every other sign, and line breaks: style is to be seen as well as content.
_TOKEN = re.compile(r"\w+(?:[.,]\d+)*|[^\w\s]|\n")
_SENTENCE = re.compile(r"(?<=[.!?])[^\S\n]+|(?=\n)")
_SUMMARIES = (
    "share of sentences on topic", "log sentences on topic", "query terms in answer",
    "answer terms in query",
)  # fmt: skip
_NONE = np.zeros(0, dtype=np.int64)
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: an odd multiplier that mixes bits


class _Terms(Encoder):
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
