"""What crosses from a file to an encoder to the index: a page, its words, its token vectors.

Boxes are fractions of the page, x0 y0 x1 y1 from the top left, so that they hold at any resolution. Arrays are numpy.
An encoder is whatever fits the `Encoder` protocol; ingest is handed one and imports none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np


class Render(NamedTuple):
    """The picture an encoder wants: `dpi` unless that passes `max_pixels` (width x height), then smaller."""

    dpi: int = 150
    max_pixels: int = 4_000_000


@dataclass(frozen=True, slots=True)
class Words:
    """Words in reading order. texts: w strings without white space; boxes: (w, 4) float32 fractions of the page."""

    texts: Sequence[str] = ()
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def text(self) -> str:
        return " ".join(self.texts)


@dataclass(frozen=True, slots=True)
class Page:
    """A rendered page. number: from 1; image: (H, W, 3) uint8 RGB; words: the file's own text layer, empty where it has
    none; width, height: in points (1/72 inch); passage: the text itself where the file is one, "" elsewhere;
    headings: the entries of the document's outline that lead to this page, a line each."""

    number: int
    image: np.ndarray
    words: Words
    width: float
    height: float
    passage: str = ""
    headings: str = ""


@dataclass(frozen=True, slots=True)
class PageTokens:
    """What an encoder makes of a page. vectors: (t, d) float32, finite, t >= 0; boxes: (t, 4) float32, where each token
    lies; words: what the encoder read, None where it kept the page's own; single: (D,) float32 or None."""

    vectors: np.ndarray
    boxes: np.ndarray
    words: Words | None = None
    single: np.ndarray | None = None


@runtime_checkable
class Encoder(Protocol):
    """Pages and queries to token vectors of one space.

    fingerprint: everything that, changed, changes a vector (weights digest, prompts, preprocessing version, render
    size); an index refuses an encoder with another fingerprint than the one that filled it. single_dim: D of the single
    vector, None where there is none; an encoder with one has `encode_queries_single(texts) -> (n, D)` too. batch_size:
    pages a call of `encode_pages` takes best. Results never depend on what shares a batch.
    """

    name: str
    dim: int
    single_dim: int | None
    fingerprint: dict[str, Any]
    render: Render
    batch_size: int

    def encode_pages(self, pages: Sequence[Page]) -> list[PageTokens]: ...

    def encode_queries(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Each text -> (m, d) float32, m >= 1; a token's weight is its norm."""
        ...

    def query_tokens(self, texts: Sequence[str]) -> list[list[str]]:
        """Each text -> the m strings its token vectors stand for, in order."""
        ...
