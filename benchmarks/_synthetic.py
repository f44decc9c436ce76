"""Pages made of a seed, to be hard on the first stage: any page again, alone, in about a tenth of a millisecond.

A token is MEAN times one direction that all tokens share (page tokens of our encoder have a mean of norm .88), and the
rest of its norm is its own: what it says, a drift of its page and document, noise. What it says is, in the variant
`concepts`, one of 50,000 in themes with Zipf popularity, far from as many as there are centroids; in `manifold` a point
of a smooth surface of 16 dimensions, with no concepts at all. A quarter of a page is one of 16 blanks. Noise is rows of
a table, chosen by a hash of (seed, page, token). On both the codes of the first stage find less of the exact top 10
than on real pages (LOG.md). Not here: what is measured with them (search.py, scale.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np

TOKENS, DIM = 256, 128
MEAN = 0.88
CONCEPTS, THEMES, BLANKS, GENERIC = 50_000, 500, 16, 64
DOCUMENT = 12  # pages that are about the same
ABOUT, WORDS = 4, 64  # themes of a document, concepts that its pages choose from
LATENT, HIDDEN = 16, 64  # of the smooth surface
SAID, DRIFT, NOISE, BLANK = 1.0, 0.5, 0.5, 3.0  # how much of a token's own part is what
COPIED, ASKED = 16, 24  # query tokens that are noisy copies of tokens of the target, and all of them
ALIKE = 0.8  # their cosine without the shared direction
_ROWS = 1 << 16  # of noise


class Query(NamedTuple):
    """tokens: (24, 128) float32; target: the page that 16 of them come from."""

    tokens: np.ndarray
    target: int


class Synthetic:
    """Pages 0, 1, 2 ... of 256 unit vectors of 128 components, and queries for them."""

    def __init__(self, kind: Literal["concepts", "manifold"], seed: int = 0) -> None:
        rng = np.random.default_rng([seed, 1])
        self.kind, self.seed = kind, seed
        self.shared = _unit(rng.standard_normal(DIM))
        self.noise = self._own(rng.standard_normal((_ROWS, DIM)))
        blanks = self._own(rng.standard_normal((BLANKS, DIM)))
        if kind == "concepts":
            themes = np.repeat(self._own(rng.standard_normal((THEMES, DIM))), CONCEPTS // THEMES, axis=0)
            said = self._own(0.6 * themes + 0.8 * self._own(rng.standard_normal((CONCEPTS, DIM))))
            self._theme, self._concept = _zipf(rng, THEMES), _zipf(rng, CONCEPTS // THEMES)
            self._word = _zipf(rng, WORDS)
            common = self._theme[:GENERIC] * (CONCEPTS // THEMES) + self._concept[-GENERIC:]
            self.generic = said[common]
        else:
            self._first = (rng.standard_normal((LATENT, HIDDEN)) * 1.5 / np.sqrt(LATENT)).astype(np.float32)
            self._bias = rng.standard_normal(HIDDEN).astype(np.float32)
            second = rng.standard_normal((HIDDEN, DIM)) / np.sqrt(HIDDEN / 2)
            self._second = (second - np.outer(second @ self.shared, self.shared)).astype(np.float32) / np.sqrt(DIM)
            self._centre = np.tanh(rng.standard_normal((4096, LATENT)).astype(np.float32) @ self._first + self._bias)
            self._centre = self._centre.mean(axis=0)
            said = np.zeros((0, DIM), np.float32)
            self.generic = self._own(self._surface(0.5 * rng.standard_normal((GENERIC, LATENT)).astype(np.float32)))
        self._said = np.concatenate([SAID * said, BLANK * blanks]).astype(np.float32)

    def pages(self, numbers: Iterable[int]) -> np.ndarray:
        """(n, 256, 128) float32 of n pages."""
        numbers = np.asarray(list(numbers), np.uint64)
        made = np.empty((len(numbers), TOKENS, DIM), np.float32)
        for page, number in zip(made, numbers, strict=True):
            bits = self._bits(int(number), TOKENS + 1)
            self._fill(page, bits[:-1], bits[-1], self._bits((1 << 41) + int(number) // DOCUMENT, WORDS + ABOUT + 1))
        return made

    def query(self, number: int, pages: int) -> Query:
        """Query `number` for a corpus of pages 0 to `pages` - 1."""
        bits = self._bits((1 << 40) + number, 4 + 2 * ASKED)
        target = int(bits[0] % np.uint64(pages))
        page = (self.pages([target])[0] - MEAN * self.shared) / _rest()
        written = np.flatnonzero(self._bits(target, TOKENS) & np.uint64(3))  # not blank
        copied = page[written[_distinct(bits[4 : 4 + COPIED], len(written))]]
        common = self.generic[(bits[4 + COPIED : 4 + ASKED] % np.uint64(GENERIC)).astype(np.int64)]
        wanted = np.concatenate([copied, common])
        noise = self.noise[(bits[4 + ASKED :] & np.uint64(_ROWS - 1)).astype(np.int64)[:ASKED]]
        own = _unit(ALIKE * wanted + np.sqrt(1 - ALIKE**2) * noise)
        return Query((MEAN * self.shared + _rest() * own).astype(np.float32), target)

    def _fill(self, page: np.ndarray, bits: np.ndarray, of_page: np.uint64, of_document: np.ndarray) -> None:
        """bits: (256,), of_document: (69,) uint64. Of a token's bits 2 say whether it is blank, 2 whether what it says
        is of its document, 16 what that is, 16 what else, 16 its noise."""
        blank, strange = _field(bits, 0, 2) == 0, _field(bits, 2, 2) == 0
        first, second, third = _field(bits, 16), _field(bits, 32), _field(bits, 48)
        if self.kind == "concepts":
            words = self._concept[_field(of_document[ABOUT:-1], 0)]
            words += self._theme[_field(of_document[:ABOUT], 0)][np.arange(WORDS) % ABOUT] * (CONCEPTS // THEMES)
            place = words[(self._word[first] + int(_field(of_page, 0, 8))) % WORDS]
            place[strange] = self._theme[first[strange]] * (CONCEPTS // THEMES) + self._concept[second[strange]]
            place[blank] = CONCEPTS + first[blank] % BLANKS
            self._said.take(place, axis=0, out=page)
        else:
            latent = self.noise[_field(of_document[:ABOUT], 0)[first % ABOUT], :LATENT]
            latent += 0.4 * self.noise[_field(of_page, 48), :LATENT]
            latent[strange] = self.noise[first[strange], -LATENT:]
            latent += 0.4 * self.noise[second, :LATENT]
            page[:] = self._surface(latent * np.float32(np.sqrt(DIM)))
            page[blank] = self._said[first[blank] % BLANKS]
        noise = self.noise.take(third, axis=0)
        noise *= np.float32(NOISE)
        drift = self.noise[_field(of_page, 32)] + self.noise[_field(of_document[-1], 0)]
        noise += np.float32(DRIFT / np.sqrt(2)) * drift
        page += noise
        page *= (_rest() / np.sqrt(np.einsum("td,td->t", page, page)))[:, None]
        page += np.float32(MEAN) * self.shared

    def _surface(self, latent: np.ndarray) -> np.ndarray:
        """(t, 16) -> (t, 128), of norm about 1."""
        return (np.tanh(latent @ self._first + self._bias) - self._centre) @ self._second * np.float32(1.7)

    def _own(self, vectors: np.ndarray) -> np.ndarray:
        """Unit vectors without the shared direction."""
        return _unit(vectors - np.outer(vectors @ self.shared, self.shared))

    def _bits(self, number: int, count: int) -> np.ndarray:
        """(count,) uint64 by SplitMix64 (Steele, Lea and Flood 2014), whose state starts at a hash of the page."""
        start = _mix(np.array([(self.seed << 48) ^ number], np.uint64) * np.uint64(0xD1342543DE82EF95) + np.uint64(1))
        return _mix(start + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))


def _field(bits: np.ndarray | np.uint64, shift: int, width: int = 16) -> np.ndarray:
    """`width` bits from `shift` on."""
    return np.asarray(bits >> np.uint64(shift) & np.uint64((1 << width) - 1)).astype(np.int64)


def _mix(state: np.ndarray) -> np.ndarray:
    state = (state ^ state >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ state >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return state ^ state >> np.uint64(31)


def _rest() -> np.float32:
    return np.float32(np.sqrt(1 - MEAN**2))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def _zipf(rng: np.random.Generator, count: int) -> np.ndarray:
    """(65,536,) draws of 0 to count - 1, the i-th with a chance of 1 / (i + 1) as much as the first."""
    chances = 1 / np.arange(1, count + 1)
    return rng.choice(count, _ROWS, p=chances / chances.sum())


def _distinct(bits: np.ndarray, among: int) -> np.ndarray:
    """As many different numbers below `among` as there are bits."""
    return np.random.default_rng(bits).choice(among, len(bits), replace=False)
