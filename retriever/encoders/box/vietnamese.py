"""Lines of Vietnamese: letters in doubt are those of the syllables that are likeliest to follow each other.

Words are written in syllables, most of which are others with other marks, of which small print tells least. Spelling
has an initial, one of some 160 rimes and one tone in its place, of which two alone before c, ch, p, t. How likely a
syllable is, alone and after another, tells a table of 20 kB, made by retriever/training/reader/vietnamese.py.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, cached_property

import numpy as np

from retriever.encoders.box.scripts import VIETNAMESE, shape

STEPS = 8  # a nat
WEIGHT = 0.55  # of the table's nats beside those of the recogniser
UNSEEN, FOREIGN, MISSPELT = 20.0, 13.0, 22.0  # nats of a syllable, of a word without marks, of others, at most
PIECES = 2.0  # nats less in Vietnamese text than in that of all languages
_REMEMBERED = 50_000
_FLOOR = 6.0  # nats by which marks of a doubted letter that are not told are less likely, at least
_REACH, _MOST = 9.0, 40  # nats and readings of a syllable, beyond which none is looked at
_STRANGE, _NONE, _TWICE = 1.0, 2.0, 1.0  # nats against another letter, none, none beside one of its shape
_GRAVE = 3.0  # nats against a grave on an ô, which print often has grown into the circumflex
_GAIN = 0.2  # nats
_STATES = 8
_LONGEST = 8  # letters of a syllable, of which one may be too many
_TELLS, _SHARE = 2, 0.5  # letters and share of syllables that tell a line
_TONES = "\u0300\u0301\u0303\u0309\u0323"
_INITIALS = "ngh ch gh gi kh ng nh ph qu th tr b c d đ g h k l m n p r s t v x"
_ENDS = (  # a space in front where nothing, too, ends what comes before
    ("a", " c ch i m n ng nh o p t u y"),
    ("ă", "c m n ng p t"),
    ("â", "c m n ng p t u y"),
    ("e", " c m n ng o p t"),
    ("ê", " ch m n nh p t u"),
    ("i", " a ch m n nh p t u"),
    ("iê", "c m n ng p t u"),
    ("o", " a c e i m n ng p t"),
    ("oo", "c ng"),
    ("oa", " c ch i m n ng nh o p t y"),
    ("oă", "c m n ng t"),
    ("oe", " n o t"),
    ("ô", " c i m n ng p t"),
    ("ơ", " i m n p t"),
    ("u", " a c i m n ng p t y ơ"),
    ("uâ", "n ng t y"),
    ("uê", " ch n nh u"),
    ("uô", "c i m n ng t"),
    ("uy", " a ch n nh t u"),
    ("uyê", "n t"),
    ("ư", " a c i m n ng t u"),
    ("ươ", " c i m n ng p t u"),
    ("y", ""),
    ("yê", "m n ng t u"),
)
_RIMES = frozenset(first + end for first, ends in _ENDS for end in ends.split(" "))
_FRONT = ("e", "ê", "i", "y")
_VARIANTS = {
    letter: letters
    for vowels in ("aăâ", "eê", "i", "oôơ", "uư", "y")
    for letters in [[unicodedata.normalize("NFC", v + tone) for v in vowels for tone in ("", *_TONES)]]
    for letter in letters
}
_WORD = re.compile(r"(?:(?<!\w)1)?[^\W\d_]+(?:(?<=[ơườớởỡợừứửữự])['’][^\W\d_]+)*")

Readings = dict[str, tuple[float, tuple[str, ...]]]  # by syllable: nats beside what was read, the letters as they stand


@cache
def spelt(word: str) -> bool:
    """Whether a word in small letters (NFC) is spelt as a syllable of Vietnamese."""
    apart = [unicodedata.normalize("NFD", letter) for letter in word]
    plain = "".join(unicodedata.normalize("NFC", "".join(c for c in letter if c not in _TONES)) for letter in apart)
    tones = [(i, c) for i, letter in enumerate(apart) for c in letter if c in _TONES]
    if len(tones) > 1 or (plain.endswith(("c", "ch", "p", "t")) and not (tones and tones[0][1] in "\u0301\u0323")):
        return False
    at = tones[0][0] if tones else None
    return any(_rime(i, plain[len(i) :], at and at - len(i)) for i in (*_INITIALS.split(), "") if plain.startswith(i))


def _rime(initial: str, rime: str, tone: int | None) -> bool:
    """Whether a rime without its tone, which is on its letter `tone`, can stand after an initial."""
    if initial in ("gi", "qu") and _rime("", initial[1] + rime, tone if tone is None else tone + 1):
        return True
    if initial in ("c", "k", "g", "gh", "ng", "ngh"):
        front = rime.startswith(_FRONT) and not (initial == "g" and rime == "i")
        if front != (initial in ("k", "gh", "ngh")):
            return False
    if tone is not None:
        marked = [i for i, c in enumerate(rime) if c in "ăâêôơư"]
        last = len(rime) - 1 if rime not in ("oa", "oe", "uy") else len(rime)
        if tone != marked[-1] if marked else tone < 0 or (tone == last > 0):
            return False
    return rime in _RIMES


class Vietnamese:
    """tensors: `syllables` (deflated UTF-8, joined by line feeds), `nats` (deflated bytes, in STEPS a nat, of each),
    `pairs` (deflated, the four bytes of each step from one pair to the next, all first bytes first; a pair is the first
    syllable's place times how many there are, and the second's place), `follows` (deflated bytes, in STEPS a nat: of
    the second after the first)."""

    def __init__(self, tensors: dict[str, np.ndarray], pieces: Callable[[str], float]) -> None:
        self._tensors, self._pieces = tensors, pieces
        self._known: dict[str, float] = {}

    @cached_property
    def _table(self) -> tuple[dict[str, float], dict[tuple[str, str], float], dict[str, float]]:
        """Nats of syllables, of those after another, and what is added to the first after each for those that are not
        among the second. Made at the first line of Vietnamese."""
        held = {name: zlib.decompress(tensor.tobytes()) for name, tensor in self._tensors.items()}
        syllables = held["syllables"].decode("utf-8").split("\n")
        nats = dict(zip(syllables, (np.frombuffer(held["nats"], np.uint8) / STEPS).tolist(), strict=True))
        steps = np.frombuffer(held["pairs"], np.uint8).reshape(4, -1).T.copy().view("<u4")[:, 0]
        places = [divmod(int(pair), len(syllables)) for pair in steps.cumsum(dtype=np.int64)]
        pairs = [(syllables[first], syllables[second]) for first, second in places]
        follows = np.frombuffer(held["follows"], np.uint8) / STEPS
        told: dict[str, float] = defaultdict(float)
        alone: dict[str, float] = defaultdict(float)
        for (first, second), much in zip(pairs, np.exp(-follows).tolist(), strict=True):
            told[first] += much
            alone[first] += float(np.exp(-nats[second]))
        back = {first: float(-np.log(max(0.001, 1 - told[first]) / max(0.001, 1 - alone[first]))) for first in told}
        return nats, dict(zip(pairs, follows.tolist(), strict=True)), back

    def nats(self, word: str, before: str = "") -> float:
        """Minus the log-probability of a word in small letters after the one `before`."""
        _, pairs, back = self._table
        if (before, word) in pairs:
            return pairs[before, word]
        if word not in self._known:
            if len(self._known) > _REMEMBERED:
                self._known.clear()
            self._known[word] = self._alone(word)
        return self._known[word] + back.get(before, 0.0)

    def _alone(self, word: str) -> float:
        """Minus the log-probability of a word: of a syllable with marks half by the table, half by the pieces."""
        table = self._table[0].get(word, np.inf)
        if word.isascii():
            return min(table, FOREIGN)
        if not spelt(word):
            return min(self._pieces(word), MISSPELT)
        pieces = max(0.0, self._pieces(word) - PIECES)
        return min(-float(np.log(0.5 * np.exp(-table) + 0.5 * np.exp(-pieces))), UNSEEN)

    def likelier(self, text: Sequence[str], others: Sequence[Mapping[str, float]], told: Sequence[str]) -> list[str]:
        """The characters of a line, of which those in doubt are what makes likelier syllables, if it is Vietnamese.

        others: for each character, what it could be instead, "" for nothing, and the logarithm of how likely beside it,
        at most 0; told: the characters, "" for none, as they stand where they make no syllable, and in other lines.
        """
        line = "".join(text)
        if line.isascii() or len(line) != len(text) or sum(c in VIETNAMESE for c in line.lower()) < _TELLS:
            return list(told)
        words = list(_words(line))
        if sum(spelt(line[start:stop].lower()) for start, stop in words) < _SHARE * len(words):
            return list(told)
        paths: list[tuple[str, float, tuple[tuple[str, ...], ...]]] = [("", 0.0, ())]  # last syllable, cost, words
        last = 0
        for start, stop in words:
            if line[last:start] != " ":
                paths = [("", *paths[0][1:])]
            last = stop
            read = line[start:stop].lower()
            best: dict[str, tuple[str, float, tuple[tuple[str, ...], ...]]] = {}
            for word, (far, letters) in _readings(text[start:stop], others[start:stop], told[start:stop]).items():
                for before, cost, chosen in paths:
                    whole = cost + far + WEIGHT * self.nats(word, before) - (_GAIN if word == read else 0.0)
                    if word not in best or whole < best[word][1]:
                        best[word] = (word, whole, (*chosen, letters))
            paths = sorted(best.values(), key=lambda path: path[1])[:_STATES]
        result = list(told)
        for (start, stop), letters in zip(words, paths[0][2], strict=True):
            result[start:stop] = letters
        return result


def _words(line: str) -> Iterator[tuple[int, int]]:
    """Where the words of a line begin and end, less those with figures but for a one that may be the letter l."""
    for match in _WORD.finditer(line):
        start, stop = match.span()
        if line[start] == "1" and (stop - start < 3 or line[start:stop].isascii()):
            continue
        if not line[max(0, start - 1) : start].isdigit() and not line[stop : stop + 1].isdigit():
            yield start, stop


def _readings(text: Sequence[str], others: Sequence[Mapping[str, float]], told: Sequence[str]) -> Readings:
    """The syllables that a word could be, and the word as it is told if it is none as it was read."""
    read = "".join(text).lower()
    found: list[tuple[float, tuple[str, ...]]] = [(0.0, ())]
    for i, letter in enumerate(text if len(text) <= _LONGEST else ()):
        could = list(_could_be(letter, others[i], {*text[max(0, i - 1) : i], *text[i + 1 : i + 2]}))
        if len(could) == 1:
            found = [(far, (*letters, letter)) for far, letters in found]
            continue
        more = [(far + by, (*letters, other)) for far, letters in found for other, by in could]
        found = sorted(one for one in more if one[0] < _REACH)[:_MOST]
    readings: Readings = {}
    for far, letters in found:
        word = "".join(letters).lower()
        if word and spelt(word):
            readings.setdefault(word, (far, letters))
    if read not in readings:
        readings["".join(told).lower()] = (0.0, tuple(told))
    return readings


def _could_be(letter: str, others: Mapping[str, float], beside: set[str]) -> Iterator[tuple[str, float]]:
    """What a letter could be, itself first, and by how many nats that is less likely. beside: the letters beside it."""
    yield letter, 0.0
    if letter in "'’":
        yield "", 0.0
        return
    if letter == "1":
        yield "l", _STRANGE
        return
    sized = str.upper if letter.isupper() else str.lower
    found: dict[str, float] = {}
    for other, much in others.items():
        against = _NONE if not other else 0.0 if shape(other) == shape(letter) else _STRANGE
        if (not other or other.isalpha()) and len(sized(other)) == len(other):
            found[sized(other)] = min(found.get(sized(other), np.inf), against - much)
    if letter in "ôÔ":
        found[sized("ồ")] = min(found.get(sized("ồ"), np.inf), _GRAVE)
    if any(shape(one) == shape(letter) and not (one + letter).isascii() for one in beside):
        found[""] = min(found.get("", np.inf), _TWICE)
    variants = _VARIANTS.get(letter.lower(), [])
    if any(other.lower() in variants for other in found if other != letter):
        floor = max(_FLOOR, *(-much for much in others.values()), 0.0)
        for other in map(sized, variants):
            found.setdefault(other, floor)
    found.pop(letter, None)
    yield from found.items()
