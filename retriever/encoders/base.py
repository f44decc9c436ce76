"""What every encoder of pictures shares: an embedding, and the `Encoder` protocol on top of two methods.

A family says how pictures and queries are embedded; pages, queries and cached queries of an index follow from that, and
so do sentence-transformers' words (`multivector`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from ingest.page import Page, PageTokens
from retriever.encoders.multivector import MultiVector

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


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


class PictureEncoder(MultiVector):
    """The `Encoder` protocol (ingest/page.py) from `embed_pictures` and `embed_queries`."""

    _recent: tuple[Any, list[Embedding]] = (None, [])

    @abstractmethod
    def embed_pictures(self, pictures: Sequence[Any]) -> list[Embedding]:
        """Each picture as a page."""

    @abstractmethod
    def embed_queries(self, texts: Sequence[str]) -> list[Embedding]:
        """Each text as a query."""

    def query_key(self) -> Any:
        """What, changed, changes the embedding of a query."""
        return None

    def encode_pages(self, pages: Sequence[Page]) -> list[PageTokens]:
        """A page -> its picture's token vectors (t, d), their cells (zeros for tokens of the prompt), and (D,).

        A passage of a text file is embedded as text by families that do that, else by its picture."""
        reads = type(self).embed_passages is not PictureEncoder.embed_passages
        found = self._embedded([page.passage if reads and page.passage else page.image for page in pages])
        return [PageTokens(plain(e.multi), e.boxes, None, None if e.single is None else plain(e.single)) for e in found]

    def encode_queries(self, texts: Sequence[str]) -> list[np.ndarray]:
        """A text -> (m, d), tokens of the prompt among them."""
        return [plain(found.multi) for found in self._queries(texts)]

    def encode_queries_single(self, texts: Sequence[str]) -> np.ndarray:
        """(n, D). Right after `encode_queries` of the same texts it runs no model."""
        return np.stack([plain(found.single) for found in self._queries(texts)])

    def embed_passages(self, texts: Sequence[str]) -> list[Embedding]:
        """Each text as a document."""
        raise ValueError(f"{type(self).__name__} takes pictures as documents, texts only as queries")

    def _asked(self, texts: list[str]) -> list[np.ndarray]:
        return [plain(one.multi) for one in self.embed_queries(texts)]

    def _searched(self, inputs: list[Any]) -> list[np.ndarray]:
        return [plain(one.multi) for one in self._embedded(inputs)]

    def _embedded(self, inputs: Sequence[Any]) -> list[Embedding]:
        """Texts and pictures as documents."""
        found: dict[int, Embedding] = {}
        for texts, embed in ((True, self.embed_passages), (False, self.embed_pictures)):
            places = [place for place, one in enumerate(inputs) if isinstance(one, str) == texts]
            found |= zip(places, embed([inputs[i] for i in places]) if places else [], strict=True)
        return [found[place] for place in range(len(inputs))]

    def _queries(self, texts: Sequence[str]) -> list[Embedding]:
        key = (tuple(texts), self.query_key())
        asked, found = self._recent
        if asked != key:
            found = self.embed_queries(list(texts))
            self._recent = (key, found)
        return found


def chosen(device: str | torch.device | None, dtype: torch.dtype | str | None) -> tuple[torch.device, torch.dtype]:
    """Where and in what a model is kept: by default CUDA where there is one; bfloat16 on a GPU, float32 elsewhere.

    Raises ValueError for a dtype that weights cannot have.
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if dtype is None:
        return place, torch.float32 if place.type == "cpu" else torch.bfloat16
    names = {str(kind).removeprefix("torch."): kind for kind in DTYPES}
    found = names.get(str(dtype).removeprefix("torch."))
    if found is None:
        raise ValueError(f"dtype {dtype}: one of {', '.join(names)} is expected")
    return place, found


def plain(vectors: torch.Tensor | None) -> np.ndarray:
    """A tensor on the CPU as a float32 array."""
    assert vectors is not None
    return np.asarray(vectors.numpy(), np.float32)
