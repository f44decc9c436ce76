"""One vector a page: any encoder, seen as one whose pages and queries have a single token.

That is the encoder's own single vector, cut to a Matryoshka dimension where it was trained for that and normalised
anew, else the mean of its tokens. So an index of single vectors is an index like any other: FAISS finds candidates,
MaxSim of one token with one is their inner product. Such a vector lies nowhere on its page: there is no heat map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from index.errors import QueryError
from index.pooling import pool_mean
from ingest.page import Encoder, Page, PageTokens, Words


class SingleVectors:
    """An `Encoder` (ingest/page.py) over another."""

    def __init__(self, encoder: Encoder, dim: int | None = None) -> None:
        """dim: of the vectors, None for all that there is. Raises QueryError for one it was not trained for."""
        whole = encoder.single_dim or encoder.dim
        dims = [d for d in (*getattr(encoder, "matryoshka_dims", ()), whole) if d <= whole]
        if dim is not None and dim not in dims:
            told = ", ".join(map(str, sorted(set(dims))))
            raise QueryError(f"{encoder.name} gives single vectors of {told} components; got dim {dim}")
        self.encoder = encoder
        self.name, self.render, self.batch_size = encoder.name, encoder.render, encoder.batch_size
        self.dim: int = dim or whole
        self.single_dim: int | None = self.dim
        self.fingerprint: dict[str, Any] = encoder.fingerprint | {"vectors": "single", "vector_dim": self.dim}

    def encode_pages(self, pages: Sequence[Page]) -> list[PageTokens]:
        """A page -> its vector, as a token (1, dim) and as the single vector; no token where it has none."""
        return [self._page(tokens) for tokens in self.encoder.encode_pages(pages)]

    def embed(self, words: Words) -> PageTokens:
        """The words of a page -> as `encode_pages`, of an encoder that has `embed`."""
        return self._page(self.encoder.embed(words))  # type: ignore[attr-defined]

    def encode_queries(self, texts: Sequence[str]) -> list[np.ndarray]:
        """A text -> (1, dim)."""
        return list(self.encode_queries_single(texts)[:, None])

    def encode_queries_single(self, texts: Sequence[str]) -> np.ndarray:
        """(n, dim)."""
        if self.encoder.single_dim is not None:
            return self._cut(self.encoder.encode_queries_single(texts))  # type: ignore[attr-defined]
        return self._cut(np.stack([pool_mean(vectors) for vectors in self.encoder.encode_queries(texts)]))

    def query_tokens(self, texts: Sequence[str]) -> list[list[str]]:
        """A text -> itself, the one thing that its vector stands for."""
        return [[text] for text in texts]

    def _page(self, tokens: PageTokens) -> PageTokens:
        vectors = pool_mean(tokens.vectors)[None] if tokens.single is None else np.asarray(tokens.single)[None]
        vectors = self._cut(vectors)
        if not vectors.any():
            return PageTokens(np.zeros((0, self.dim), np.float32), np.zeros((0, 4), np.float32), tokens.words)
        return PageTokens(vectors, np.zeros((1, 4), np.float32), tokens.words, vectors[0])

    def _cut(self, vectors: np.ndarray) -> np.ndarray:
        cut = np.asarray(vectors, np.float32)[:, : self.dim]
        return cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), 1e-12)
