"""Chinese characters in the forms of their page.

Simplified characters on a traditional page, and Chinese ones on a Japanese page, are what the recogniser gives for
others that look alike.
"""

from __future__ import annotations

from functools import cache

from index.han import forms
from retriever.encoders.box.scripts import kana, kanji, korean

_FEWEST = 20  # Chinese characters of a page that tell
_KANA = 8  # of them to a kana on a Japanese page, at most
_COMMON = {"euc_jp": 0xCF, "big5": 0xC6}  # the last first octet of a standard's first level


def in_one_form(words: list[str]) -> list[str]:
    """The words of a page; the characters that its standard (Big5, JIS X 0208) lacks are the form that it has.

    A page is Japanese by its kana, and traditional where Big5 has more of it than GB 2312; pages in Korean stay.
    """
    every = [c for word in words for c in word if kanji(c)]
    if len(every) < _FEWEST or korean(words):
        return words
    standard = "euc_jp"
    if sum(kana(c) for word in words for c in word) * _KANA < len(every):
        standard = "big5"
        if sum(_has(c, standard) for c in every) <= sum(_has(c, "gb2312") for c in every):
            return words
    others = {ord(c): found for c in {*every} if not _has(c, standard) and (found := _other(c, standard))}
    return [word.translate(others) for word in words] if others else words


@cache
def _has(character: str, standard: str) -> bool:
    """Whether a standard has a character, in two octets."""
    return len(character.encode(standard, "ignore")) == 2


def _other(character: str, standard: str) -> str:
    """The one other form of a character that a standard has, of its common characters first; "" if none or several."""
    found = [other for other in forms(character) if other != character and _has(other, standard)]
    common = [other for other in found if other.encode(standard)[0] <= _COMMON[standard]] or found
    return common[0] if len(common) == 1 else ""
