"""Encoders: what they see of texts, and of how answers relate to queries."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer

import causalrm as crm
from causalrm.text import Features, HashedText, SentenceEmbeddings, TfidfText

QUERIES = ["What is the capital of Australia?", "How many legs does a bee have?"] * 3
ANSWERS = [
    "The capital of Australia is Canberra. What a great topic!",
    "A bee has six legs. What a great topic!",
    "The capital of Australia is Sydney.",
    "A bee has eight legs.",
    "Gold does not rust.\n- Australia has six states.",
    "I hope that this helps you.",
]
def name_of(encoder: object) -> str:  # a name that is the same in every process
    return type(encoder).__name__


TERMS = [HashedText(), TfidfText(min_df=1)]


def dense(x: np.ndarray | sparse.csr_array) -> np.ndarray:
    return x.toarray() if sparse.issparse(x) else np.asarray(x)


def words_of(texts: list[str]) -> np.ndarray:
    """A stand-in for an embedding model: counts of letters."""
    return np.array([[text.count(c) for c in "abcdefgh"] for text in texts], dtype=float)


@pytest.mark.parametrize("encoder", [*TERMS, SentenceEmbeddings(words_of)], ids=name_of)
def test_deterministic_and_row_by_row(encoder: HashedText) -> None:
    x = dense(clone(encoder).fit(ANSWERS, QUERIES).transform(ANSWERS, QUERIES))
    fitted = clone(encoder).fit(ANSWERS, QUERIES)
    assert x.shape == (6, len(fitted.get_feature_names_out()))
    np.testing.assert_array_equal(dense(fitted.transform(ANSWERS, QUERIES)), x)
    order = [3, 0, 0, 5]
    part = fitted.transform([ANSWERS[i] for i in order], [QUERIES[i] for i in order])
    np.testing.assert_allclose(dense(part), x[order], atol=1e-12)


@pytest.mark.parametrize("encoder", TERMS, ids=name_of)
def test_only_relations_change_with_the_query(encoder: HashedText) -> None:
    encoder = clone(encoder).fit(ANSWERS, QUERIES)
    own, other = (dense(encoder.transform(ANSWERS[:1], [q])) for q in QUERIES[:2])
    names = encoder.get_feature_names_out()
    terms = encoder._columns()[0]
    np.testing.assert_array_equal(own[:, :terms], other[:, :terms])
    assert np.abs(own[:, terms:]).sum() > 3
    np.testing.assert_array_equal(other[:, terms:], 0)  # nothing in common with the other query
    assert len(set(names)) == len(names)
    assert (
        encoder.query_aware
        and not clone(encoder).set_params(interaction=False).fit(ANSWERS, QUERIES).query_aware
    )


def test_style_is_never_on_topic() -> None:
    encoder = TfidfText(min_df=1).fit(ANSWERS, QUERIES)
    names = encoder.get_feature_names_out().tolist()
    x = dense(encoder.transform(ANSWERS, QUERIES))
    assert x[0, names.index("great")] > 0 and x[0, names.index("great on topic")] == 0
    assert x[0, names.index("canberra on topic")] > 0 and x[2, names.index("canberra")] == 0
    assert x[0, names.index("australia x canberra")] > 0
    # A line break ends a sentence: the list's second line is on topic, what is before is not.
    assert x[4, names.index("states on topic")] > 0 and x[4, names.index("rust on topic")] == 0
    assert x[4, names.index("share of sentences on topic")] == 0.5


def test_inverse_document_frequency_is_that_of_scikit_learn() -> None:
    encoder = TfidfText(min_df=1, interaction=False).fit(ANSWERS)
    peer = TfidfVectorizer(
        token_pattern=r"\w+(?:[.,]\d+)*|[^\w\s]|\n", sublinear_tf=True, norm=None
    )
    expected = peer.fit_transform(ANSWERS).toarray()
    order = [peer.vocabulary_[name] for name in encoder.get_feature_names_out()]
    x = dense(encoder.transform(ANSWERS))
    np.testing.assert_allclose(x * peer.idf_.mean(), expected[:, order], rtol=1e-12)


def test_hashes_do_not_change() -> None:
    # Fixed by hand-run values of murmurhash3: a model stored today must read the same tomorrow.
    x = HashedText(8, 0, interaction=False).fit(["a b"]).transform(["a b b"])
    np.testing.assert_allclose(np.abs(x.toarray()).sum(), 2 + np.log(2))
    again = HashedText(8, 0, interaction=False).fit(["z"]).transform(["a b b"])
    np.testing.assert_array_equal(x.toarray(), again.toarray())


def test_case_is_kept_where_asked() -> None:
    for lowercase, same in ((True, True), (False, False)):
        encoder = HashedText(lowercase=lowercase).fit(ANSWERS, QUERIES)
        a, b = (
            dense(encoder.transform([t], QUERIES[:1])) for t in ("Canberra it is", "CANBERRA it is")
        )
        assert np.array_equal(a, b) is same


def test_embeddings() -> None:
    encoder = SentenceEmbeddings(words_of).fit(ANSWERS, QUERIES)
    x = encoder.transform(ANSWERS, QUERIES)
    a, q = words_of(ANSWERS), words_of(QUERIES)
    np.testing.assert_array_equal(x[:, :8], a)
    cosine = (a * q).sum(1) / np.sqrt((a**2).sum(1) * (q**2).sum(1))
    np.testing.assert_allclose(x[:, -1], cosine)
    with pytest.raises(crm.DataError, match="rows of finite numbers"):
        SentenceEmbeddings(lambda texts: np.zeros(3)).fit(ANSWERS)


def test_embeddings_need_their_package() -> None:
    try:
        import sentence_transformers  # noqa: F401
    except ImportError:
        with pytest.raises(crm.MissingDependencyError, match="sentence_transformers"):
            SentenceEmbeddings().fit(ANSWERS)


def test_features() -> None:
    x = np.arange(6.0).reshape(3, 2)
    frame = pd.DataFrame(x, columns=["a", "b"])
    for given in (x, list(x), pd.Series(list(x)), frame):
        np.testing.assert_array_equal(Features().fit(given).transform(given), x)
    assert Features().fit(frame).get_feature_names_out().tolist() == ["a", "b"]
    with pytest.raises(crm.DataError, match="3 features, as|3 features, one"):
        Features(["a", "b", "c"]).fit(x)
    with pytest.raises(crm.DataError, match="1 of 3 answers"):
        Features().fit([[1.0, 2.0], [np.nan, 1.0], [0.0, 0.0]])
    with pytest.raises(crm.DataError, match="text encoder"):
        Features().fit(ANSWERS)
    with pytest.raises(crm.DataError, match="as in the fit"):
        Features().fit(x).transform(x[:, :1])


@pytest.mark.parametrize("encoder", TERMS, ids=name_of)
def test_bad_texts(encoder: HashedText) -> None:
    with pytest.raises(crm.DataError, match=r"2 of 3 are of type .*first rows: 1, 2"):
        clone(encoder).fit(["a", 1, None])
    with pytest.raises(crm.DataError, match="one query per answer"):
        clone(encoder).fit(ANSWERS, QUERIES[:2])
    with pytest.raises(crm.DataError, match="Give a list"):
        clone(encoder).fit("one text")
    with pytest.raises(crm.CausalRMError, match="call fit first"):
        clone(encoder).transform(ANSWERS)
    with pytest.raises(crm.DataError, match="Give the queries"):
        clone(encoder).fit(ANSWERS, QUERIES).transform(ANSWERS)


def test_no_common_terms() -> None:
    with pytest.raises(crm.DataError, match="Lower min_df"):
        TfidfText(min_df=2).fit(["one", "two"])
    with pytest.raises(crm.DataError, match="n_features=0"):
        HashedText(0).fit(["one"])
