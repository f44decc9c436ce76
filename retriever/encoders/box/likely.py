"""Letters that the recogniser is in doubt about, by what makes the likelier word.

The recogniser knows no words; the pieces of the encoder, with their probabilities in text of a hundred languages, tell
which of the letters it hesitates between is likelier there (in Korean `syllables` do, of kanji in words `japanese`).
Words with figures, which are codes, stay as they are read (but for ones that may be "l"), and so does every letter that
it is sure of. As the pieces of all languages are in one list, and those without marks are the commonest, a mark that
the language of the line has is never taken away, and case changes only to that of the letter before. Chinese characters
are looked at in Japanese lines alone: in Chinese ones it changed more than it mended.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence

from retriever.encoders.box.scripts import WIDE, alphabet, hangul, in_japanese, japanese, script_of, shape

WEIGHT, HANGUL = 0.4, 0.5  # of nats of pieces, and of syllables, beside those of the recogniser
LEAST = 0.2  # nats to be gained
STRANGE, NONE = 1.0, 2.0  # as many more for a Latin letter of another shape, and for none
FOREIGN = 5.0  # nats, in words of Hangul, that what is no Hangul has to be likelier
REACH = 8  # characters each side that are looked at where no spaces are
_OWN = ("ăâîșț", "àáâãèéêìíòóôõùúýạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹăơưđĩũ", "çğıöşüâîû\u0307")
"""Letters with marks of the alphabets of `scripts.alphabet`."""


def likelier(text: Sequence[str], others: Sequence[Mapping[str, float]], nats: Callable[[str], float]) -> list[str]:
    """The characters of a line, of which some are others, or none (""), where those make likelier words.

    others: for each character, what it could be instead, "" for nothing, and the logarithm of how likely beside it, at
    most 0; nats: of a word, minus its log-probability.
    """
    told, others = list(text), list(others)
    if any(map(hangul, text)):
        for i, syllable in _hangul_for_others(text, others):
            told[i], ahead = syllable, others[i][syllable]
            others[i] = {c: min(0.0, far - ahead) for c, far in others[i].items() if hangul(c)}
        text = list(told)
    own = alphabet("".join(text).lower())
    marked = None if own is None else _OWN[own]
    kana = in_japanese(text)
    start = 0
    for stop in [*[i for i, c in enumerate(text) if c == " "], len(text)]:
        first, start = start, stop + 1
        doubted = [i for i in range(first, stop) if others[i] and text[i].isalpha()]
        wide = max(text[first:stop], default="") >= WIDE
        if not wide and any(c.isdigit() for c in text[first:stop]):
            doubted = [first + i for i in _ones_for_letters(text[first:stop])]
        if stop - first < 2 or not doubted:
            continue
        for i in doubted * 2:
            if not told[i]:
                continue
            near = (max(first, i - REACH), min(stop, i + REACH + 1)) if wide else (first, stop)
            before, after = "".join(told[near[0] : i]), "".join(told[i + 1 : near[1]])
            room = len(before + after) > 2
            weight = HANGUL if hangul(told[i]) else WEIGHT
            could = [o for o in others[i] if (o or room) and _could_be(told[i], o, before[-1:], marked, kana)]
            now, most, best = nats(before + told[i] + after) if could else 0.0, LEAST, told[i]
            for other in could:
                gained = others[i][other] + weight * (now - nats(before + other + after))
                if not other or (script_of(other) == 0 and shape(other) != shape(told[i])):
                    gained -= STRANGE if other else NONE
                if gained > most:
                    most, best = gained, other
            told[i] = best
    return told


def _ones_for_letters(word: Sequence[str]) -> list[int]:
    """Where a word whose only figures are ones among small letters has those, for which "l" passes."""
    found = []
    for i in [i for i, c in enumerate(word) if c.isdigit()]:
        beside = [*word[max(0, i - 1) : i], *word[i + 1 : i + 2]]
        if word[i] != "1" or any(c.isupper() or c.isdigit() for c in beside) or not any(c.islower() for c in beside):
            return []
        found.append(i)
    return found


def _hangul_for_others(text: Sequence[str], others: Sequence[Mapping[str, float]]) -> list[tuple[int, str]]:
    """Which Chinese characters and kana of a line, beside Hangul, are Hangul that is less likely by FOREIGN at most."""
    found = []
    for i, c in enumerate(text):
        beside = [*text[max(0, i - 1) : i], *text[i + 1 : i + 2]]
        if c >= WIDE and c.isalpha() and not hangul(c) and any(map(hangul, beside)):
            syllables = [other for other in others[i] if other and hangul(other)]
            best = max(syllables, key=lambda other: others[i][other], default="")
            if best and others[i][best] > -FOREIGN:
                found.append((i, best))
    return found


def _could_be(letter: str, other: str, before: str, marked: str | None, kana: bool) -> bool:
    """Whether a letter may become the other. before: the letter before it; marked: those that the line's language has;
    kana: whether it is Japanese."""
    if not other:
        return script_of(letter) is not None
    if letter == "1":
        return other == "l"
    if other == letter or not other.isalpha() or script_of(other) != script_of(letter):
        return False
    if script_of(letter) is None:
        if hangul(letter) or hangul(other):
            return hangul(letter) and hangul(other)
        return kana and japanese(other) == 2
    if other.isupper() != letter.isupper() and not (before.isalpha() and before.isupper() == other.isupper()):
        return False
    if shape(letter) != shape(other):
        return script_of(letter) != 0 or (letter.isascii() and other.isascii())
    if script_of(letter) == 2 and other.lower() != letter.lower():
        return _has_mark(other)
    if script_of(letter) == 0 and not (letter.isascii() and other.isascii()):
        plain, to = letter.lower()[0], other.lower()[0]
        if to.isascii():
            return plain not in marked if marked is not None else plain >= "\u0180"
        return to in marked if marked is not None else to < "\u0180"
    return True


def _has_mark(character: str) -> bool:
    return len(unicodedata.normalize("NFD", character)) > 1
