"""How likely a word of Hangul is: its syllables, each by the two before it.

The pieces of the encoder know few Korean words as print has them, so letters in doubt are weighed by this there. The
table is made by retriever/training/reader/syllables.py.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from functools import cached_property

import numpy as np

START, END = "^", "$"
STEPS = 12  # a nat
_REMEMBERED = 100_000
RUN = re.compile("[\uac00-\ud7a3]+")


class Syllables:
    """tensors: `grams` (deflated UTF-8 of all grams of one, two, three syllables on end), `counts` (3,) of each length,
    `nats` and `back` (deflated bytes, in STEPS a nat: of each gram's last syllable, and what is added where the gram
    of one more is not there), `unknown` (1,) float32. others: nats of a word without Hangul."""

    def __init__(self, tensors: dict[str, np.ndarray], others: Callable[[str], float]) -> None:
        self._tensors, self._others = tensors, others
        self._known: dict[str, float] = {}

    @cached_property
    def _grams(self) -> dict[str, tuple[float, float]]:
        """Made at the first word of Hangul."""
        grams, nats, back = (zlib.decompress(self._tensors[name].tobytes()) for name in ("grams", "nats", "back"))
        text, at, found = grams.decode("utf-8"), 0, []
        for length, count in enumerate(self._tensors["counts"].tolist(), 1):
            found += [text[i : i + length] for i in range(at, at + length * count, length)]
            at += length * count
        values = np.frombuffer(nats + back, np.uint8).reshape(2, -1) / STEPS
        return dict(zip(found, zip(*values.tolist(), strict=True), strict=True))

    def nats(self, word: str) -> float:
        """Minus the log-probability of a word: of its Hangul, or, if it has none, as `others` tell."""
        runs = RUN.findall(word)
        if not runs:
            return self._others(word)
        if len(self._known) > _REMEMBERED:
            self._known.clear()
        for run in runs:
            if run not in self._known:
                marked = START * 2 + run + END
                self._known[run] = sum(self._next(marked[i - 2 : i + 1]) for i in range(2, len(marked)))
        return sum(self._known[run] for run in runs)

    def _next(self, gram: str) -> float:
        """Minus the log-probability of the last of three syllables."""
        grams, added = self._grams, 0.0
        for start in range(3):
            if gram[start:] in grams:
                return added + grams[gram[start:]][0]
            added += grams.get(gram[start:-1], (0.0, 0.0))[1]
        return added + float(self._tensors["unknown"][0])
