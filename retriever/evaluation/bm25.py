"""Plain BM25 (Robertson and Zaragoza 2009, k1 1.2, b 0.75), for the baselines: the words of a page and nothing else.

Terms are those of index.text, so that scripts without spaces are no worse off. Not the engine's text lane, which also
knows titles, file names, headings and stems: that one is a system that is measured, this is what it has to beat.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping

from index.text import terms

K1, B = 1.2, 0.75


class BM25:
    """Pages by their words."""

    def __init__(self, pages: Mapping[str, str]) -> None:
        """pages: name -> text."""
        counts = {page: Counter(terms(text)) for page, text in pages.items()}
        mean = sum(count.total() for count in counts.values()) / max(len(counts), 1)
        self._weights: dict[str, dict[str, float]] = defaultdict(dict)
        for page, count in counts.items():
            norm = K1 * (1 - B + B * count.total() / mean) if mean else K1
            for term, n in count.items():
                self._weights[term][page] = n * (K1 + 1) / (n + norm)
        for having in self._weights.values():
            idf = math.log(1 + (len(counts) - len(having) + 0.5) / (len(having) + 0.5))
            having.update({page: idf * weight for page, weight in having.items()})

    def search(self, query: str, k: int) -> list[tuple[str, float]]:
        """(page, score) of the k best pages that have a term of the query, best first, ties by name."""
        scores: dict[str, float] = defaultdict(float)
        for term in terms(query):
            for page, weight in self._weights.get(term, {}).items():
                scores[page] += weight
        return sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:k]
