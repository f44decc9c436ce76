"""An encoder small enough to crash-test an ingest with: a word is a random direction fixed by its letters.

It reads nothing but the text layer, so what it should find is known exactly. `documents` writes PDFs for it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pymupdf

from ingest.page import Page, PageTokens, Render

DIM = 32


class WordEncoder:
    """One token a word. single_dim: also a single vector of that dimension; seconds: what a page takes; fail: a word
    that makes a page impossible to encode."""

    name = "words"
    dim = DIM
    batch_size = 2
    render = Render(50, 200_000)

    def __init__(self, single_dim: int | None = None, seconds: float = 0.0, fail: str = "", version: int = 1) -> None:
        self.single_dim, self.seconds, self.fail = single_dim, seconds, fail
        self.fingerprint = {"name": self.name, "version": version, "single_dim": single_dim}

    def encode_pages(self, pages: Sequence[Page]) -> list[PageTokens]:
        """Words to vectors, and their boxes."""
        time.sleep(self.seconds * len(pages))
        if any(self.fail and self.fail in page.words.texts for page in pages):
            raise RuntimeError(f"a page says {self.fail}")
        return [
            PageTokens(vectors(page.words.texts), page.words.boxes, single=self._single(page.words.text))
            for page in pages
        ]

    def encode_queries(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Words to vectors."""
        return [vectors(text.split()) for text in texts]

    def encode_queries_single(self, texts: Sequence[str]) -> np.ndarray:
        """(n, single_dim)."""
        return np.stack([self._single(text) for text in texts])

    def query_tokens(self, texts: Sequence[str]) -> list[list[str]]:
        """Words."""
        return [text.split() for text in texts]

    def _single(self, text: str) -> np.ndarray | None:
        if self.single_dim is None:
            return None
        total = np.sum(
            [direction(word, self.single_dim) for word in text.split()] or [np.ones(self.single_dim)], axis=0
        )
        return (total / np.linalg.norm(total)).astype(np.float32)


def vectors(words: Sequence[str]) -> np.ndarray:
    """(w, DIM) float32 unit vectors."""
    return np.stack([direction(word, DIM) for word in words]) if len(words) else np.zeros((0, DIM), np.float32)


def direction(word: str, dim: int) -> np.ndarray:
    """The unit vector of a word."""
    seed = int.from_bytes(hashlib.blake2b(word.casefold().encode(), digest_size=8).digest(), "big")
    vector = np.random.default_rng(seed).standard_normal(dim)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def document(path: Path, pages: Sequence[str], title: str = "") -> Path:
    """A PDF with a page for each text ("" is a blank one)."""
    with pymupdf.open() as pdf:
        for text in pages:
            page = pdf.new_page(width=300, height=400)
            if text:
                page.insert_textbox((20, 20, 280, 380), text, fontsize=11)
        pdf.set_metadata({"title": title})
        path.parent.mkdir(parents=True, exist_ok=True)
        pdf.save(path)
    return path
