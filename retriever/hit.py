"""`Hit`: a page that was found, with what it scored, why, and its pictures.

A hit carries the evidence of its page (similarities of query and page tokens, boxes, words), so snippet, boxes and heat
map cost no model run and hold even when the index has moved on. Pictures are drawn from the file when asked for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever.snippet import Snippet, snippet

if TYPE_CHECKING:
    from PIL.Image import Image

    from index.snapshot import Snapshot
    from retriever.query import Query
    from retriever.ranking import Found

_THUMBNAIL = 300  # pixels of the longer side


@dataclass(frozen=True)
class Evidence:
    """What a page and a query have to do with each other. query: (m, d); vectors: (t, d); token_boxes: (t, 4) and
    word_boxes: (w, 4), fractions of the page; words: w texts."""

    text: str
    query: np.ndarray
    vectors: np.ndarray
    token_boxes: np.ndarray
    words: list[str]
    word_boxes: np.ndarray

    def weights(self, token: int | None = None) -> np.ndarray:
        """(t,) evidence of each page token, in [0, 1], for one query token or for all; 0 for those of a prompt, which
        lie nowhere on the page."""
        from retriever.explain import token_weights

        weights = np.zeros(len(self.vectors), np.float32)
        placed = (self.token_boxes[:, 2:] > self.token_boxes[:, :2]).all(axis=1)
        if placed.any() and len(self.query):
            weights[placed] = token_weights(self.query, self.vectors[placed], token)
        return weights

    def word_weights(self) -> np.ndarray | None:
        """(w,) evidence of each word: the strongest of the tokens whose boxes its centre lies in."""
        weights = self.weights()
        if not weights.any() or not len(self.word_boxes):
            return None
        centres = (self.word_boxes[:, :2] + self.word_boxes[:, 2:]) / 2
        strong = np.flatnonzero(weights > 0.05)
        low, high = self.token_boxes[strong, :2], self.token_boxes[strong, 2:]
        inside = ((low[:, None] <= centres) & (centres <= high[:, None])).all(axis=2)
        return np.where(inside, weights[strong, None], 0.0).max(axis=0, initial=0.0)


@dataclass
class Hit:
    """A page. document: the id of its content; page: from 1; score: of the lane, or fused, for ranking within a search;
    score_norm: in [0, 1], comparable across searches (visual: the share of the highest possible MaxSim; text, or a page
    with no token vectors: the share of the query's terms on the page); lanes: MaxSim and BM25 as they are; tokens: each
    query token with the similarity of its best page token."""

    document: str
    page: int
    score: float
    score_norm: float
    rank: int
    path: str
    title: str
    kind: str
    pages: int
    metadata: dict[str, Any]
    lanes: dict[str, float]
    tokens: list[tuple[str, float]]
    evidence: Evidence = field(repr=False)
    draw: Callable[[int], Image] = field(repr=False)

    @property
    def id(self) -> str:
        """Document and page in one text."""
        return f"{self.document}#p{self.page}"

    @property
    def name(self) -> str:
        """What the document is called: its title, or else its file's name."""
        return self.title or Path(self.path).name

    @property
    def url(self) -> str:
        """file://...#page=N, which a PDF viewer opens at the page; "" where no path is known."""
        if not self.path:
            return ""
        uri = Path(os.fsencode(self.path).decode("utf-8", "surrogateescape")).as_uri()
        return f"{uri}#page={self.page}" if self.pages > 1 or self.kind == "pdf" else uri

    @cached_property
    def _snippet(self) -> Snippet:
        return snippet(self.evidence.words, self.evidence.text, self.evidence.word_weights())

    @property
    def snippet(self) -> str:
        """The words of the page that answer the query best, on one line; "" where the page has no words."""
        return self._snippet.text

    @property
    def marks(self) -> list[tuple[int, int]]:
        """(start, end) of what in `snippet` matched."""
        return self._snippet.marks

    def image(self, dpi: int = 150) -> Image:
        """The page as a picture. Raises OctavoError where its file has gone or changed."""
        return self.draw(dpi)

    def thumbnail(self, side: int = _THUMBNAIL) -> Image:
        """A small picture of the page, `side` pixels at its longer side."""
        picture = self.image(dpi=50)
        picture.thumbnail((side, side))
        return picture

    def heatmap(self, token: int | str | None = None, dpi: int = 150) -> Image:
        """The page with what answers the query lit up. token: one query token, by place or by text, None for all."""
        from retriever.explain import heat, overlay

        picture = self.image(dpi)
        weights = self.evidence.weights(self._place(token))
        return overlay(picture, heat(self.evidence.token_boxes, weights, picture.size))

    def boxes(self, k: int = 5) -> list[tuple[tuple[float, float, float, float], float]]:
        """The k regions that answer the query best: ((x0, y0, x1, y1) as fractions of the page, weight in (0, 1])."""
        from retriever.explain import regions

        return regions(self.evidence.token_boxes, self.evidence.weights(), k)

    def _place(self, token: int | str | None) -> int | None:
        if token is None or isinstance(token, int):
            return token
        for place, (text, _) in enumerate(self.tokens):
            if text.casefold() == token.casefold():
                return place
        raise ValueError(f"{token!r} is no token of the query; there are {', '.join(text for text, _ in self.tokens)}")

    def dict(self) -> dict[str, Any]:
        """The hit as plain values, for JSON."""
        names = ("id", "document", "page", "score", "score_norm", "rank", "path", "title", "snippet", "url")
        plain = {name: getattr(self, name) for name in names}
        plain["marks"] = [list(mark) for mark in self.marks]
        return plain | {
            "metadata": self.metadata,
            "lanes": self.lanes,
            "tokens": [list(token) for token in self.tokens],
        }

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def _repr_html_(self) -> str:
        from retriever import sheet

        heading = f"<b>{sheet.text(self.name)}</b>, page {self.page} <small>({self.score:.3f})</small>"
        words = sheet.marked(self.snippet, self.marks)
        return sheet.figure(self.thumbnail, _THUMBNAIL, f"{heading}<br>{words}")


def hits_of(
    snapshot: Snapshot, asked: Query, ranked: Sequence[Found], names: Sequence[str], draw: Callable[..., Image]
) -> list[Hit]:
    """The pages that a query found, best first. names: of its first tokens; draw: (document, path, kind, page, dpi) to
    a picture."""
    from retriever import documents
    from retriever.explain import token_scores
    from retriever.ranking import normalised

    query, said = asked.vectors, " ".join(asked.said)
    rows = snapshot.pages(found.page for found in ranked)
    hits = []
    for place, found in enumerate(ranked, 1):
        row = rows[found.page]
        words, word_boxes, boxes = snapshot.text(found.page)
        vectors, token_boxes = documents.tokens(snapshot, found.page, boxes)
        best = token_scores(query, vectors)[0] if len(vectors) and len(query) else np.zeros(0)
        hits.append(
            Hit(
                document=row["content"],
                page=row["number"],
                score=found.score,
                score_norm=normalised(found, query, said, words),
                rank=place,
                path=row["path"] or "",
                title=row["title"],
                kind=row["kind"],
                pages=row["page_count"],
                metadata=json.loads(row["metadata"]),
                lanes=found.lanes,
                tokens=[(name, float(value)) for name, value in zip(names, best, strict=False)],
                evidence=Evidence(asked.text, query, vectors, token_boxes, words.split(), word_boxes),
                draw=partial(draw, row["content"], row["path"] or "", row["kind"], row["number"]),
            )
        )
    return hits
