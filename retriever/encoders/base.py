"""What every encoder of pictures shares: an embedding, and the `Encoder` protocol on top of two methods.

A family says how pictures and queries are embedded; pages, queries and cached queries of an index follow from that, and
so do sentence-transformers' words (`encode_query`, `encode_document`, `similarity`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from ingest.page import Page, PageTokens


class Span(NamedTuple):
    """A part of an input and the tokens start..end-1 that are its own; kind: `text` or `image`."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True)
class Embedding:
    """What an input became. single: (D,) float32 of norm 1; multi: (t, d) float32, each of norm 1; either may be None;
    boxes: (t, 4) cells of visual tokens on their picture, zeros for the others; spans: the tokens of each part; ids:
    (t,) token ids. Tensors are on the CPU."""

    single: torch.Tensor | None
    multi: torch.Tensor | None
    boxes: np.ndarray
    spans: list[Span]
    ids: np.ndarray


class PictureEncoder:
    """The `Encoder` protocol (ingest/page.py) from `embed_pictures` and `embed_queries`."""

    _recent: tuple[Any, list[Embedding]] = (None, [])

    def embed_pictures(self, pictures: Sequence[Any]) -> list[Embedding]:
        """Each picture as a page."""
        raise NotImplementedError

    def embed_queries(self, texts: Sequence[str]) -> list[Embedding]:
        """Each text as a query."""
        raise NotImplementedError

    def query_key(self) -> Any:
        """What, changed, changes the embedding of a query."""
        return None

    def encode_pages(self, pages: Sequence[Page]) -> list[PageTokens]:
        """A page -> its picture's token vectors (t, d), their cells (zeros for tokens of the prompt), and (D,)."""
        found = self.embed_pictures([page.image for page in pages])
        return [PageTokens(plain(e.multi), e.boxes, None, None if e.single is None else plain(e.single)) for e in found]

    def encode_queries(self, texts: Sequence[str]) -> list[np.ndarray]:
        """A text -> (m, d), tokens of the prompt among them."""
        return [plain(found.multi) for found in self._queries(texts)]

    def encode_queries_single(self, texts: Sequence[str]) -> np.ndarray:
        """(n, D). Right after `encode_queries` of the same texts it runs no model."""
        return np.stack([plain(found.single) for found in self._queries(texts)])

    def _queries(self, texts: Sequence[str]) -> list[Embedding]:
        key = (tuple(texts), self.query_key())
        asked, found = self._recent
        if asked != key:
            found = self.embed_queries(list(texts))
            self._recent = (key, found)
        return found


def plain(vectors: torch.Tensor | None) -> np.ndarray:
    """A tensor on the CPU as a float32 array."""
    assert vectors is not None
    return np.asarray(vectors.numpy(), np.float32)
