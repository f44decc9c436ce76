"""Words to pieces: the Unigram tokenizer of multilingual-e5 over the pieces that ship, one word at a time.

No piece has a word mark except at its front, so the best segmentation of a text is that of its words one by one: each
is segmented alone by Viterbi over a dict of pieces and remembered, and a piece's place in its word is known exactly.
Same ids as the `tokenizers` Unigram over the same pieces (tests hold that), without its 0.2 s of loading.
Spaces at the ends of a text make no piece of their own, and no text spells a special token ("</s>" is characters).
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from typing import NamedTuple

import numpy as np

MARK = "\u2581"
BOS, PAD, EOS, UNK = 0, 1, 2, 3
SPECIALS = 4
_LONGEST = 16
_LONGEST_WORD = 16_384
_UNK_PENALTY = 10.0
UNKNOWN = 12.0  # nats of a character that no piece has
_REMEMBERED = 200_000
_LOOSE = re.compile("[\u0300-\u036f\u1100-\u11ff\u3099\u309a]")
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U0003134f]"
)


def packed(texts: list[str], scores: np.ndarray) -> dict[str, np.ndarray]:
    """`pieces` (joined by line feeds, UTF-8) and `scores` (the steps between their bits) as stored: exact, deflated."""
    steps = np.diff(scores.view("<i4"), prepend=np.int32(0))
    stored = {"pieces": "\n".join(texts).encode("utf-8"), "scores": steps.tobytes()}
    return {name: np.frombuffer(zlib.compress(data, 9), np.uint8) for name, data in stored.items()}


class Piece(NamedTuple):
    """A piece of a word: its id, its text, and where it lies in the word as fractions of the word's characters."""

    id: int
    text: str
    start: float
    end: float

    @property
    def says(self) -> bool:
        """Whether it has a letter or digit; what has none is context for the others and gets no vector of its own."""
        return any(map(str.isalnum, self.text))


class Pieces:
    """The tokenizer. scores: (n,) float32 log-probabilities by id; ids 0..3 are <s>, <pad>, </s>, <unk>."""

    def __init__(self, tensors: dict[str, np.ndarray]) -> None:
        """tensors: `pieces` and `scores` as `packed` makes them, `normalise.from`, `normalise.to`."""
        self.texts = zlib.decompress(tensors["pieces"].tobytes()).decode("utf-8").split("\n")
        self.scores = np.frombuffer(zlib.decompress(tensors["scores"].tobytes()), "<i4").cumsum(dtype="<i4").view("<f4")
        self._ids = dict(zip(self.texts, range(len(self.texts)), strict=True))
        for special in range(SPECIALS):
            del self._ids[self.texts[special]]
        self._log = self.scores.tolist()
        self._unk = float(self.scores.min()) - _UNK_PENALTY
        replaced = tensors["normalise.to"].tobytes().decode("utf-8").split("\0")
        self._normal = {0: ""} | dict(zip(tensors["normalise.from"].tolist(), replaced, strict=True))
        self._known: dict[str, tuple[Piece, ...]] = {}

    def normal(self, text: str) -> str:
        """`text` as the model saw it in training: loose accents, jamo and kana marks composed, then mapped."""
        if _LOOSE.search(text):
            text = unicodedata.normalize("NFC", text)
        return text if text.isascii() and text.isprintable() else text.translate(self._normal)

    def nats(self, word: str) -> float:
        """Minus the log-probability of a word by its pieces; UNKNOWN a character of which no piece has one."""
        pieces = self._known.get(word) or self._pieces(word)
        return sum(UNKNOWN * len(piece.text) if piece.id == UNK else -self._log[piece.id] for piece in pieces)

    def word(self, word: str) -> tuple[Piece, ...]:
        """The pieces of one word; none for a word of control characters, several runs where a space comes to be.

        Of a word of more than 16,384 characters the rest is dropped.
        """
        pieces = self._known.get(word)
        if pieces is None:
            pieces = self._pieces(word)
            if len(word) <= _LONGEST * 4:
                if len(self._known) >= _REMEMBERED:
                    self._known.clear()
                self._known[word] = pieces
        return pieces

    def _pieces(self, word: str) -> tuple[Piece, ...]:
        runs = self.normal(word[:_LONGEST_WORD]).split(" ")
        length = max(1, sum(map(len, runs)))
        found: list[Piece] = []
        done = 0
        for run in filter(None, runs):
            found += self._segment(run, done, length)
            done += len(run)
        return tuple(found)

    def _segment(self, run: str, done: int, length: int) -> list[Piece]:
        """Viterbi (Kudo 2018, section 3.2) over MARK + run, ties to the longer first piece as in `tokenizers`."""
        text, ids, log = MARK + run, self._ids, self._log
        size = len(text)
        best: list[tuple[float, int, int]] = [(0.0, 0, UNK)] + [(-np.inf, 0, UNK)] * size
        for start in range(size):
            score = best[start][0]
            single = False
            for end in range(start + 1, min(size, start + _LONGEST) + 1):
                found = ids.get(text[start:end])
                if found is not None:
                    single = single or end == start + 1
                    if score + log[found] > best[end][0]:
                        best[end] = (score + log[found], start, found)
            if not single and score + self._unk > best[start + 1][0]:
                best[start + 1] = (score + self._unk, start, UNK)
        spans: list[tuple[int, int, int]] = []
        end = size
        while end:
            _, start, found = best[end]
            if found == UNK and spans and spans[-1][2] == UNK:
                spans[-1] = (start, spans[-1][1], UNK)
            else:
                spans.append((start, end, found))
            end = start
        return [
            Piece(i, text[a:b].lstrip(MARK), (done + max(0, a - 1)) / length, (done + b - 1) / length)
            for a, b, i in reversed(spans)
        ]
