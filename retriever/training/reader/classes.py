"""The characters that the recogniser learns here: those of its new output classes, in their order.

Kana and the kanji of JIS X 0208's first level that PP-OCRv6-tiny's dictionary lacks, the 2,350 syllables of KS X 1001,
Cyrillic, Greek, Latin of Vietnamese, Romanian and pinyin, low quotes. All Greek letters are among them, though the
dictionary has the unaccented ones: there they are signs of formulae, and lose to Latin letters of the same shape. So
are letters of Turkish and Vietnamese that the old classes, which see averages over a line's height, take for others.
"""

from __future__ import annotations

import unicodedata


def _rows(first: int, last: int, codec: str) -> str:
    """The characters of rows `first` to `last` of a 94 x 94 set."""
    cells = (bytes([160 + row, 160 + cell]) for row in range(first, last + 1) for cell in range(1, 95))
    return "".join(cell.decode(codec, "ignore") for cell in cells)


def _between(first: int, last: int) -> str:
    return "".join(chr(code) for code in range(first, last + 1) if unicodedata.category(chr(code))[0] == "L")


HANGUL = _rows(16, 40, "euc_kr")
KANA = _between(0x3041, 0x3096) + _between(0x30A1, 0x30FA) + "ーゝゞヽヾ・"
KANJI = _rows(16, 47, "euc_jp")
CYRILLIC = _between(0x400, 0x45F) + "ҐґҒғҚқҢңҮүҰұӘәӨөҺһ"
GREEK = "ΆΈΉΊΌΎΏΐ" + _between(0x391, 0x3A9) + "ΪΫάέήίΰ" + _between(0x3B1, 0x3C9) + "ϊϋόύώ"
LATIN = _between(0x1EA0, 0x1EF9) + "ƠơƯưȘșȚțƏəǍǎǏǐǑǒǓǔǗǘǙǚǛǜ„‚‹›"

POINTLESS = "ıİđĐ"
MARKED = "".join(c + c.upper() for c in "áàãâăéèêíìĩóòõôúùũý")


def former(listed: list[str]) -> list[str]:
    """The characters of the old classes, given those `listed` in a characters.json with or without the new."""
    return listed[: listed.index(" ")] if " " in listed else listed


def added(known: list[str]) -> list[str]:
    """The characters of the new classes, given the `known` of the old: others, GREEK, POINTLESS, MARKED."""
    wanted = dict.fromkeys(KANA + HANGUL + CYRILLIC + LATIN + KANJI)
    old = set(known)
    return [character for character in wanted if character not in old] + list(GREEK + POINTLESS + MARKED)


def groups(new: list[str]) -> dict[str, list[int]]:
    """Which of the `new` characters, as `added` gives them, are of which kind."""
    again = len(new) - len(MARKED)
    place = {character: i for i, character in enumerate(new[:again])}
    kinds = {"latin": LATIN + POINTLESS, "cyrillic": CYRILLIC + GREEK}
    found = {kind: [place[c] for c in characters if c in place] for kind, characters in kinds.items()}
    found["marked"] = [*range(again, len(new))]
    return {**found, "eastern": sorted({*range(again)}.difference(*found.values()))}


def jamo(character: str) -> tuple[int, int, int]:
    """Which initial (1-19), vowel (1-21), final (1-28) a Hangul syllable has; zeros for any other character."""
    code = ord(character) - 0xAC00
    return (code // 588 + 1, code % 588 // 28 + 1, code % 28 + 1) if 0 <= code < 11172 else (0, 0, 0)
