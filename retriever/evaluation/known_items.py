"""Questions for documents that come with none: a run of words out of a page, which that page should bring back.

A smoke test, not a quality: the words stand on the page as they are, so it says that pages are read, stored and found,
and compares settings; people ask otherwise. Of each page the run with the rarest words is taken, which few other pages
fit. The text lane would look for words where they were taken from, so such sets are searched by the visual lane alone.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace

from index.errors import OctavoError
from index.text import terms
from retriever.engine import Retriever
from retriever.evaluation.datasets import Query, QuestionSet
from retriever.evaluation.indexes import texts

_WORDS, _LETTERS = 8, 24
"""Of a question; letters for scripts that put no spaces between words."""


def known_items(questions: QuestionSet, retriever: Retriever, n: int = 200, seed: int = 0) -> QuestionSet:
    """At most n queries made of the words of as many pages; the same for the same pages and seed.

    Every page that has the words, in this order, is relevant. Raises OctavoError where no page has enough words.
    """
    said = texts(retriever, questions.corpus)
    rare = Counter(term for text in said.values() for term in set(terms(text)))
    pages = sorted(name for name, text in said.items() if _runs(text))
    if not pages:
        raise OctavoError(f"{questions.name}: no page has words to make questions of; give queries.jsonl and qrels.tsv")
    queries, qrels = [], {}
    for number, page in enumerate(random.Random(seed).sample(pages, min(n, len(pages)))):
        text = max(_runs(said[page]), key=lambda run: _rarity(run, rare, len(said)))
        queries.append(Query(f"known-{number}", text))
        qrels[f"known-{number}"] = {name: 1 for name, words in said.items() if text in words}
    return replace(questions, queries=queries, qrels=qrels, smoke=True)


def _rarity(run: str, having: Counter[str], pages: int) -> float:
    """How far the terms of a run narrow the pages; those that its cut made, which no page has, do not."""
    return sum(math.log(pages / having[term]) for term in set(terms(run)) if term in having)


def _runs(text: str) -> list[str]:
    """The runs of a page's words that a question may be, one beginning at every fourth word."""
    words = text.split()
    if words and len(text) / len(words) > 2 * _LETTERS / 3:
        return [text[start : start + _LETTERS] for start in range(0, len(text) - _LETTERS, _LETTERS)]
    return [" ".join(words[start : start + _WORDS]) for start in range(0, len(words) - _WORDS + 1, _WORDS // 2)]
