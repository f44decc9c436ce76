"""Kanji in doubt, in lines of Japanese, by which stand side by side in words.

The recogniser takes kanji for others of nearly the same strokes, and the pieces of the encoder know few words of them.
So one beside others is weighed by the one before and the one after it, with a table of the pairs in a dictionary's
words, made by retriever/training/reader/japanese.py.
"""

from __future__ import annotations

import math
import zlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from retriever.encoders.box.scripts import in_japanese, japanese, kanji

WEIGHT = 0.6  # of the table's nats beside those of the recogniser
LEAST = 0.2  # nats to be gained
DISCOUNT = 0.3  # of a pair's count, for pairs that the dictionary lacks
_RARE, _ALL = 0.1, 7000  # the count of a character that it lacks, and how many there are


class _Pairs(NamedTuple):
    """place: of each character; first: where the pairs of each begin, and the last ones end; second: places, ascending
    for each first; counts: of the pairs; begin, end: counts of each character as the first and as the second; total: of
    all."""

    place: dict[str, int]
    first: list[int]
    second: list[int]
    counts: list[float]
    begin: list[float]
    end: list[float]
    total: float


class Japanese:
    """tensors: `characters` (deflated UTF-8), `pairs` (deflated 16 bits of how many pairs each begins), `steps`
    (deflated, from one second character's place to the next, the first from -1; all lower bytes first), `counts`
    (deflated bytes: the logarithm of each pair's count, rounded)."""

    def __init__(self, tensors: dict[str, np.ndarray]) -> None:
        self._tensors = tensors

    @cached_property
    def _pairs(self) -> _Pairs:
        """Made at the first kanji in doubt."""
        held = {name: zlib.decompress(tensor.tobytes()) for name, tensor in self._tensors.items()}
        characters = held["characters"].decode("utf-8")
        many = np.frombuffer(held["pairs"], np.uint16).astype(np.int64)
        first = np.concatenate([[0], many.cumsum()])
        steps = np.frombuffer(held["steps"], np.uint8).reshape(2, -1).T.copy().view(np.uint16)[:, 0].astype(np.int64)
        along = np.concatenate([[0], steps.cumsum()])
        second = along[1:] - np.repeat(along[first[:-1]], many) - 1
        counts = np.exp(np.frombuffer(held["counts"], np.uint8).astype(np.float64))
        begin = np.bincount(np.repeat(np.arange(len(many)), many), counts, len(many))
        end = np.bincount(second, counts, len(many))
        place = {character: i for i, character in enumerate(characters)}
        pairs = first.tolist(), second.tolist(), counts.tolist(), begin.tolist(), end.tolist()
        return _Pairs(place, *pairs, float(counts.sum()))

    def nats(self, character: str, before: str, after: str) -> float:
        """Minus the log-probability of a character after the one before it, and of the one after it, "" for none."""
        return -math.log(self._follows(before, character)) - (math.log(self._follows(character, after)) if after else 0)

    def _follows(self, one: str, other: str) -> float:
        """The probability of a character after another, absolutely discounted."""
        pairs = self._pairs
        second = pairs.place.get(other, -1)
        alone = ((pairs.end[second] if second >= 0 else 0) + _RARE) / (pairs.total + _RARE * _ALL)
        first = pairs.place.get(one, -1)
        if first < 0 or not pairs.begin[first]:
            return alone
        start, stop = pairs.first[first : first + 2]
        at = bisect_left(pairs.second, second, start, stop)
        seen = pairs.counts[at] - DISCOUNT if at < stop and pairs.second[at] == second else 0.0
        return (seen + DISCOUNT * (stop - start) * alone) / pairs.begin[first]

    def likelier(self, text: Sequence[str], others: Sequence[Mapping[str, float]], told: Sequence[str]) -> list[str]:
        """The characters of a line, of which kanji in doubt are those that stand likelier there, if it is Japanese.

        others: for each character, what it could be instead, "" for nothing, and the logarithm of how likely beside it,
        at most 0; told: the characters, "" for none, as they stand where no kanji are beside, and in other lines.
        """
        result = list(told)
        if not in_japanese(text):
            return result
        could = {
            i: {other: far for other, far in others[i].items() if kanji(other) and japanese(other) == 2}
            for i, (read, now) in enumerate(zip(text, told, strict=True))
            if kanji(read) and kanji(now) and any(self._beside(told, i))
        }
        for i in [i for i in could if could[i]] * 2:
            before, after = self._beside(result, i)
            now, most, best = self.nats(text[i], before, after), LEAST, text[i]
            for other, far in could[i].items():
                gained = far + WEIGHT * (now - self.nats(other, before, after))
                if gained > most:
                    most, best = gained, other
            result[i] = best
        return result

    @staticmethod
    def _beside(text: Sequence[str], i: int) -> tuple[str, str]:
        """The kanji before and after, "" for none."""
        before, after = text[i - 1] if i else "", text[i + 1] if i + 1 < len(text) else ""
        return before if kanji(before) else "", after if kanji(after) else ""
