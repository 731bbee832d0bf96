"""Encoders: texts, or queries with their answers, to arrays of features."""

from causalrm.text.base import texts as texts
from causalrm.text.vectors import Features as Features
from causalrm.text.vectors import SentenceEmbeddings as SentenceEmbeddings
from causalrm.text.words import HashedText as HashedText
from causalrm.text.words import TfidfText as TfidfText

__all__ = ["Features", "HashedText", "SentenceEmbeddings", "TfidfText"]
