"""The encoder in the box: it reads the page, then gives each piece of each word a vector that knows its context.

Words come from the file's text layer where it is sane, else from the picture by OCR, and so do those of charts that are
pictures in a page with a layer; multilingual-e5-small makes their pieces into states, a trained head makes the states
128 wide, and each vector keeps the box of its word. Punctuation is read but gets no vectors (an eighth of a page, which
no question set misses: benchmarks/LOG.md). A query's pieces weigh as much as they are rare, times what the head says of
their states. All of it is onnxruntime and numpy, on weights that lie beside this file.
It does not see pictures: a photograph without words gives no tokens. What the reader cannot read: see `reader`.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from ingest.page import Page, PageTokens, Render, Words
from retriever.encoders.box import layer, tesseract
from retriever.encoders.box.japanese import Japanese
from retriever.encoders.box.pieces import UNK, UNSPACED, Piece, Pieces
from retriever.encoders.box.reader import Reader
from retriever.encoders.box.states import POSITIONS, States, Table
from retriever.encoders.box.syllables import Syllables
from retriever.encoders.box.vietnamese import Vietnamese
from retriever.encoders.box.weights import FOLDER, Weights
from retriever.encoders.multivector import MultiVector

PASSAGE, QUERY = "passage:", "query:"
PREPROCESSING = 4
MOST_TOKENS = 4096
LEAST_WEIGHT = 3.0
JUDGED = 300  # words of a layer that are judged
LEADER, ELLIPSIS = re.compile("[.·…‥․_]+"), 3
LEAST_LETTERS = 4  # of what is read beside a layer: less is icons and rules
FILES = (
    "states.onnx",
    "passages.onnx",
    "pieces.safetensors",
    "projection.safetensors",
    "detector.onnx",
    "recogniser.onnx",
    "quick.onnx",
    "characters.json",
    "syllables.safetensors",
    "vietnamese.safetensors",
    "japanese.safetensors",
)


class BoxEncoder(MultiVector):
    """`octavo-box-1`, an `Encoder` (ingest/page.py). Loads the text model when it is made, the OCR nets at the first
    page that needs them. May be shared between threads."""

    name = "octavo-box-1"
    dim = 128
    single_dim = None
    render = Render(150, 4_000_000)
    batch_size = 4

    def __init__(self, threads: int | None = None, weights: Path = FOLDER) -> None:
        """threads: of onnxruntime, None for all cores this process may use; weights: the folder of the files.

        Raises WeightsError where a file is missing or is not the one weights.json names.
        """
        self._threads = threads or _cores()
        self._weights = Weights(weights)
        tensors = self._weights.tensors("pieces.safetensors")
        self._pieces = Pieces(tensors)
        passages = partial(self._weights.read, "passages.onnx")
        self._states = States(self._weights.read("states.onnx"), passages, Table(tensors), self._threads)
        head = self._weights.tensors("projection.safetensors")
        self._projection, self._stress = head["projection"], head["stress"]
        self._prompts = {prompt: [piece.id for piece in self._pieces.word(prompt)] for prompt in (PASSAGE, QUERY)}
        self._opening = threading.Lock()
        self.fingerprint: dict[str, Any] = {
            "name": self.name,
            "weights": {file: self._weights.digests.get(file, "") for file in FILES},
            "prompts": [PASSAGE, QUERY],
            "preprocessing": PREPROCESSING,
            "dpi": self.render.dpi,
            "max_pixels": self.render.max_pixels,
        }

    @cached_property
    def _opened(self) -> Reader:
        nets = [self._weights.read(name) for name in ("detector.onnx", "recogniser.onnx", "quick.onnx")]
        syllables = Syllables(self._weights.tensors("syllables.safetensors"), self._pieces.nats)
        characters, other = self._weights.read("characters.json"), tesseract.installed()
        vietnamese = Vietnamese(self._weights.tensors("vietnamese.safetensors"), self._pieces.nats)
        languages = (Japanese(self._weights.tensors("japanese.safetensors")), vietnamese)
        return Reader(nets, characters, self._threads, syllables.nats, other, languages)

    @property
    def reader(self) -> Reader:
        """The OCR nets, loaded now if they were not."""
        with self._opening:
            return self._opened

    def encode_pages(self, pages: Sequence[Page]) -> list[PageTokens]:
        """A page -> vectors (t, 128) of norm 1 and boxes (t, 4), t <= 4,096: the first pieces in reading order.

        `words` are those read from the picture, None where the text layer was taken. A page without words: t = 0.
        """
        return [self._page(page) for page in pages]

    def encode_queries(self, texts: Sequence[str]) -> list[np.ndarray]:
        """A text -> (m, 128); a row's norm is its weight, mean 1 a query: minus the log-probability of its piece, times
        the exponential of its state along the head's `stress`.

        Raises ValueError for a text without tokens, and for one of more than 512 pieces with its prompt.
        """
        return [self._query(text) for text in texts]

    def query_tokens(self, texts: Sequence[str]) -> list[list[str]]:
        """A text -> its m pieces as they read, aligned with `encode_queries`. Raises ValueError as that does."""
        asked = [self._query_pieces(text) for text in texts]
        return [[pieces[place].text for place in _telling(pieces)] for pieces in asked]

    def states(self, text: str) -> np.ndarray:
        """The exact states (t, 384) of a passage before projection: what a projection is fitted on."""
        ids = [piece.id for word in text.split() for piece in self._pieces.word(word)]
        return self._states.of(self._prompts[PASSAGE], np.array(ids, np.int64))

    def read(self, page: Page) -> Words | None:
        """The words of the picture, or of the layer and those beside it in the picture; None where the page's own words
        are to be used as they are (see `layer`)."""
        own, lines, real = page.words, None, layer.real(page.words)
        if layer.blank(page.image):
            return None if real or not len(own) else Words()
        trusted = real and (self._likely(own) or self._agree(page))
        if trusted:
            if 1 - layer.on_ink(own, page.image) < layer.LOOSE:
                return None
            lines = self.reader.lines(page.image)
            covered, unseen = layer.under(own, lines)
            if covered >= layer.COVERED:
                more = self.reader.words(page.image, lines[unseen]) if unseen.any() else Words()
                if sum(map(str.isalpha, more.text)) < LEAST_LETTERS:
                    return None
                return Words([*own.texts, *more.texts], np.concatenate([own.boxes, more.boxes]))
        found = self.reader.words(page.image, lines)
        least = len(own.text) if trusted else len(own.text) / 2 if real else -1
        return found if len(found.text) > least else None

    def _likely(self, words: Words) -> bool:
        """Whether the words are likely ones, by the probabilities of their pieces; Chinese and Japanese never are, as
        one of their characters says as much as a short word."""
        texts = words.texts[:JUDGED]
        return sum(map(self._pieces.nats, texts)) <= layer.UNLIKELY * sum(map(len, texts))

    def _agree(self, page: Page) -> bool:
        """Whether a line of the layer says what is read at its place, or none of some can be read."""
        doubted = False
        for text, box in layer.samples(page.words):
            if layer.known(text, self.reader.characters) and (read := self.reader.words(page.image, box[None]).text):
                if layer.agree(text, read):
                    return True
                doubted = True
        return not doubted

    def embed(self, words: Words) -> PageTokens:
        """Words in reading order -> vectors (t, 128) and boxes (t, 4), as `encode_pages` has them; `words` is None."""
        taken: list[Piece] = []
        boxes: list[np.ndarray] = []
        corners = np.clip(np.nan_to_num(words.boxes), 0, 1)
        for text, box, leader in zip(words.texts, corners, leaders(words.texts), strict=True):
            if leader:
                continue
            pieces = self._pieces.word(text)[: MOST_TOKENS - len(taken)]
            taken += pieces
            boxes.append(piece_boxes(text, pieces, box))
        kept = np.array([piece.says for piece in taken], bool)
        vectors = self._vectors(np.array([piece.id for piece in taken], np.int64))[kept]
        return PageTokens(vectors, np.concatenate(boxes)[kept] if boxes else np.zeros((0, 4), np.float32))

    def _page(self, page: Page) -> PageTokens:
        read = None if page.passage else self.read(page)
        return replace(self.embed(page.words if read is None else read), words=read)

    def _query_pieces(self, text: str) -> list[Piece]:
        pieces = [piece for word in text.split() for piece in self._pieces.word(word)]
        if not any(piece.text for piece in pieces):
            raise ValueError(f"the query {text[:40]!r} holds no tokens; write at least one word")
        room = POSITIONS - 2 - len(self._prompts[QUERY])
        if len(pieces) > room:
            raise ValueError(f"the query has {len(pieces)} pieces, at most {room} fit; shorten it")
        return pieces

    def _query(self, text: str) -> np.ndarray:
        pieces = self._query_pieces(text)
        ids, kept = np.array([piece.id for piece in pieces], np.int64), _telling(pieces)
        rare = np.where(ids == UNK, LEAST_WEIGHT, np.maximum(-self._pieces.scores[ids], LEAST_WEIGHT))
        states = _unit(self._states.of(self._prompts[QUERY], ids, window=POSITIONS)[kept])
        weights = rare[kept] * np.exp(states @ self._stress)
        return (_unit(states @ self._projection) * (weights / weights.mean())[:, None]).astype(np.float32)

    def _vectors(self, ids: np.ndarray) -> np.ndarray:
        if len(ids) == 0:
            return np.zeros((0, self.dim), np.float32)
        return _unit(self._states.of(self._prompts[PASSAGE], ids, fast=True) @ self._projection)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), np.float32)


def _telling(pieces: Sequence[Piece]) -> list[int]:
    """Places of the pieces of a query that say something; of all, where none does."""
    places = [place for place, piece in enumerate(pieces) if piece.says]
    return places or list(range(len(pieces)))


def leaders(texts: Sequence[str]) -> list[bool]:
    """Whether each word is a part of a row of dots or of a line to write on. They would take half of their neighbours'
    window and tell nothing; the reader leaves most of them out."""
    dots = [False, *(LEADER.fullmatch(text) is not None for text in texts), False]
    return [dots[k] and (len(text) > ELLIPSIS or dots[k - 1] or dots[k + 1]) for k, text in enumerate(texts, start=1)]


def piece_boxes(word: str, pieces: Sequence[Piece], box: np.ndarray) -> np.ndarray:
    """Boxes (p, 4) of the pieces of a word: the word's own, or in a script without spaces the part along its side."""
    boxes = np.repeat(np.asarray(box, np.float32)[None], len(pieces), axis=0)
    if len(pieces) > 1 and UNSPACED.search(word):
        ends = np.array([(piece.start, piece.end) for piece in pieces], np.float32)
        axis = int(box[3] - box[1] > 2 * (box[2] - box[0]))
        start, length = box[axis], box[axis + 2] - box[axis]
        boxes[:, axis], boxes[:, axis + 2] = start + ends[:, 0] * length, start + ends[:, 1] * length
    return boxes


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
