"""What reads pages for the baselines, which are BM25 over the words.

Each is an `Encoder` that only reads, so that words are kept as indexes are: the file's text layer as it is, and, of the
picture alone, what the reader of the encoder in the box sees, or rapidocr. `PixelsOnly` hides text layers from any
encoder. What the box reads is kept apart from what is made of it (`readings`). Not here: BM25 (bm25), scoring (run).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from index.errors import OctavoError
from ingest.page import Encoder, Page, PageTokens, Render, Words
from retriever.encoders.box import BoxEncoder
from retriever.evaluation.readings import Readings


class WordsOnly:
    """An `Encoder` of pages without vectors, which only their words find. name: of what reads; read: the words of a
    page; made_by: what, changed, changes them."""

    dim, batch_size = 1, 1
    single_dim: int | None = None
    readings: Readings | None = None

    def __init__(self, name: str, read: Callable[[Page], Words], made_by: Any, render: Render) -> None:
        self.name, self.read, self.render = name, read, render
        self.fingerprint: dict[str, Any] = {"name": name, "words": made_by, "render": list(render)}

    def encode_pages(self, pages: Sequence[Page]) -> list[PageTokens]:
        """A page -> its words, and no vectors."""
        none = np.zeros((0, self.dim), np.float32), np.zeros((0, 4), np.float32)
        return [PageTokens(*none, self.read(page)) for page in pages]

    def encode_queries(self, texts: Sequence[str]) -> list[np.ndarray]:
        """A text -> (1, dim), which is not looked at."""
        return [np.ones((1, self.dim), np.float32) for _ in texts]

    def query_tokens(self, texts: Sequence[str]) -> list[list[str]]:
        """A text -> itself."""
        return [[text] for text in texts]


class PixelsOnly:
    """An `Encoder` over another, which is handed pages as if they were scans: without their text layer."""

    def __init__(self, encoder: Encoder, cache: Path) -> None:
        """cache: where readings of the encoder in the box are kept."""
        self.encoder = encoder
        self.readings = Readings(encoder, cache) if isinstance(encoder, BoxEncoder) else None
        self.name, self.dim, self.single_dim = f"{encoder.name}, pixels only", encoder.dim, encoder.single_dim
        self.render, self.batch_size = encoder.render, encoder.batch_size
        self.fingerprint: dict[str, Any] = encoder.fingerprint | {"text_layers": "hidden"}

    def encode_pages(self, pages: Sequence[Page]) -> list[PageTokens]:
        """As the encoder does; the words are those that it read, none where it does not read."""
        if isinstance(self.encoder, BoxEncoder) and self.readings:
            read = [self.readings(page.image) for page in pages]
            return [replace(self.encoder.embed(words), words=words) for words in read]
        found = self.encoder.encode_pages([replace(page, words=Words(), passage="") for page in pages])
        return [replace(tokens, words=tokens.words or Words()) for tokens in found]

    def encode_queries(self, texts: Sequence[str]) -> list[np.ndarray]:
        """As the encoder does."""
        return self.encoder.encode_queries(texts)

    def encode_queries_single(self, texts: Sequence[str]) -> np.ndarray:
        """As the encoder does, where it has single vectors."""
        found: np.ndarray = self.encoder.encode_queries_single(texts)  # type: ignore[attr-defined]
        return found

    def query_tokens(self, texts: Sequence[str]) -> list[list[str]]:
        """As the encoder does."""
        return self.encoder.query_tokens(texts)


def text_layer() -> WordsOnly:
    """The words that files hold. Pictures are drawn as small as they can be: nobody looks at them."""
    return WordsOnly("the text layer", lambda page: page.words, "text layer", Render(10, 100_000))


def ocr(cache: Path) -> WordsOnly:
    """The reader of the encoder in the box, on the picture alone. cache: where readings are kept."""
    box = BoxEncoder()
    readings = Readings(box, cache)
    reader = WordsOnly(f"OCR by {box.name}", lambda page: readings(page.image), readings.made_by, box.render)
    reader.readings = readings
    return reader


def rapidocr() -> WordsOnly:
    """rapidocr with the models in its wheel. Raises OctavoError where it is not installed."""
    try:
        from rapidocr import RapidOCR
    except ImportError:
        raise OctavoError('--baseline rapidocr needs rapidocr: pip install "octavo[ocr]"') from None
    engine = RapidOCR(params={"Global.log_level": "error"})

    def read(page: Page) -> Words:
        found = engine(np.ascontiguousarray(page.image[:, :, ::-1]))
        lines = [line.split() for line in found.txts or ()]
        if not lines:
            return Words()
        height, width = page.image.shape[:2]
        corners = np.asarray(found.boxes, np.float32) / np.array([width, height], np.float32)
        boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        return Words([word for line in lines for word in line], np.repeat(boxes, [len(line) for line in lines], axis=0))

    return WordsOnly(f"OCR by rapidocr {version('rapidocr')}", read, "models of its wheel", Render())


BASELINES: dict[str, Callable[[Path], WordsOnly]] = {
    "layer": lambda cache: text_layer(),
    "ocr": ocr,
    "rapidocr": lambda cache: rapidocr(),
}
