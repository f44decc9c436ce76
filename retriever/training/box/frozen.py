"""Training only: texts as the encoder reads them, up to the layers that are tuned; done once and kept on disk.

Windows, prompts and which pieces get vectors are those of `BoxEncoder`, of pages given as words in reading order.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from retriever.encoders.box import MOST_TOKENS, PASSAGE, PREPROCESSING, QUERY, BoxEncoder, _telling, leaders
from retriever.encoders.box.build_e5 import LAYERS
from retriever.encoders.box.initialisers import initialisers
from retriever.encoders.box.pieces import BOS, EOS, Piece
from retriever.encoders.box.states import POSITIONS, WIDTH, WINDOW, spans
from retriever.encoders.box.weights import Weights
from retriever.training.box.pools import parts
from retriever.training.box.upper import Layer, Shape, embedded

TOGETHER = 48  # texts of a file

log = logging.getLogger(__name__)


class Reading(NamedTuple):
    """A text before the layers that are tuned. states: (w, t, 384) fp16 of its windows with prompt and specials;
    places: (k,) of the pieces that get vectors, among the w * t."""

    states: torch.Tensor
    places: torch.Tensor


def laid(ids: Sequence[int], prompt: list[int], window: int) -> tuple[np.ndarray, np.ndarray]:
    """Pieces (w, t) of the windows in which the encoder reads `ids`, and the place of each among the w * t."""
    windows = spans(len(ids), window)
    starts, ends = np.array(windows).T
    read = np.array([[BOS, *prompt, *ids[start:end], EOS] for start, end in windows], np.int64)
    of = np.searchsorted((starts[1:] + ends[:-1] + 1) // 2, np.arange(len(ids)), side="right")
    return read, of * read.shape[1] + np.arange(len(ids)) - starts[of] + 1 + len(prompt)


class Frozen:
    """The text model below the `tuned` upper layers; what it makes of texts is kept in `kept`."""

    def __init__(self, weights: Path, tuned: int, kept: Path, device: str) -> None:
        self._encoder, self._kept, self._device = BoxEncoder(threads=1, weights=weights), kept, device
        self._stored = initialisers(Weights(weights).read("states.onnx"))
        self._layers = [Layer(self._stored, k).to(device) for k in range(LAYERS - tuned)]
        files = [self._encoder.fingerprint["weights"][name] for name in ("states.onnx", "pieces.safetensors")]
        self._named = [PREPROCESSING, tuned, *files]
        kept.mkdir(parents=True, exist_ok=True)

    def pages(self, texts: Sequence[str]) -> list[Reading]:
        """The readings of pages, given as words with a space between."""
        return self._read(texts, PASSAGE)

    def questions(self, texts: Sequence[str]) -> list[Reading]:
        """The readings of questions."""
        return self._read(texts, QUERY)

    def _read(self, texts: Sequence[str], prompt: str) -> list[Reading]:
        found = []
        for start in range(0, len(texts), TOGETHER):
            part = texts[start : start + TOGETHER]
            named = json.dumps([*self._named, prompt, *part]).encode()
            path = self._kept / f"{hashlib.sha256(named).hexdigest()[:16]}.npz"
            if not path.exists():
                log.info("reading %d texts after %r", len(part), prompt)
                states, places, shapes = self._made(part, prompt)
                held = [(*shape, len(there)) for shape, there in zip(shapes, places, strict=True)]
                np.savez(path.with_suffix(".part.npz"), states=states, places=np.concatenate(places), shapes=held)
                path.with_suffix(".part.npz").rename(path)
            found += _readings(path)
        return found

    def _made(self, texts: Sequence[str], prompt: str) -> tuple[np.ndarray, list[np.ndarray], list[Shape]]:
        """States (n, 384) fp16 of the texts in a row; places and shape of each."""
        rows, places, shapes = [], [], []
        for text in texts:
            pieces, telling = self._pieces(text, prompt)
            window = POSITIONS if prompt == QUERY else WINDOW
            read, there = laid([piece.id for piece in pieces], self._encoder._prompts[prompt], window)
            found = self._encoder._states._table.rows(read.ravel())
            rows.append(embedded(self._stored, found.reshape(*read.shape, WIDTH)).flatten(0, 1))
            places.append(there[telling])
            shapes.append((len(read), read.shape[1]))
        with torch.inference_mode():
            states = torch.cat(rows).to(self._device)
            for layer in self._layers:
                states = layer(states, shapes)
        return states.half().cpu().numpy(), places, shapes

    def _pieces(self, text: str, prompt: str) -> tuple[list[Piece], list[int]]:
        """The pieces of a text, and the places of those that get vectors."""
        if prompt == QUERY:
            pieces = self._encoder._query_pieces(text)
            return pieces, _telling(pieces)
        words = text.split(" ")
        kept = [word for word, leader in zip(words, leaders(words), strict=True) if not leader]
        pieces = [piece for word in kept for piece in self._encoder._pieces.word(word)][:MOST_TOKENS]
        return pieces, [k for k, piece in enumerate(pieces) if piece.says]


def _readings(path: Path) -> list[Reading]:
    with np.load(path) as held:
        shapes = held["shapes"]
        states = parts(held["states"], shapes[:, 0] * shapes[:, 1])
        places = parts(held["places"], shapes[:, 2])
    return [Reading(s.view(w, t, WIDTH), p) for s, p, (w, t, _) in zip(states, places, shapes.tolist(), strict=True)]
