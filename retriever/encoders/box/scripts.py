"""One script a word: letters of the same shape in Latin, Cyrillic and Greek become those of the word they stand in.

A word's script is that of most of its letters that no other script has a likeness of, else that of the whole line's.
Longer words of one script are never changed. Katakana that look like a Chinese character are that one
beside no other kana. A cedilla in a line with Romanian letters and none of Turkish is a comma. Dotless i's before a
digit, at the start of a word, are ones.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import cache

_ALIKE = (  # Latin, Cyrillic, Greek; _ where a script has none
    "AАΑ BВΒ CС_ EЕΕ HНΗ IІΙ KКΚ MМΜ N_Ν OОΟ PРΡ TТΤ XХΧ YУΥ Z_Ζ JЈ_ SЅ_ _ГΓ _ПΠ _ФΦ _ЛΛ "
    "aаα bьβ cс_ eеε iіι jј_ kкκ mмμ oоο pрρ sѕ_ tтτ u_υ v_ν wшω xхχ yуγ rг_ nпη _фφ _лλ _іί"
)
_GROUPS = _ALIKE.split()
_HAN = dict(zip("ーニカロタエチ", "一二力口夕工千", strict=True))
_COMMA = dict(zip("ŞşŢţ", "ȘșȚț", strict=True))
_DIGIT = dict(zip("oоοıзșş", "0001355", strict=True))
_LIKE = {c: group for group in _GROUPS for c in group if c != "_"}


@cache
def shape(character: str) -> str:
    """What a letter looks like without its marks, the same for letters of one shape in three scripts."""
    plain = unicodedata.normalize("NFD", character)[0]
    plain = {"ı": "i", "đ": "d", "Đ": "D"}.get(plain, plain)
    return _LIKE.get(plain, plain)


def _script(character: str) -> int | None:
    """0 Latin, 1 Cyrillic, 2 Greek, None for any other character."""
    code = ord(character)
    if 0x400 <= code < 0x530:
        return 1
    if 0x370 <= code < 0x400:
        return 2
    latin = code < 0x250 or 0x1E00 <= code < 0x1F00
    return 0 if latin and character.isalpha() and character not in "ªº" else None


def _most(characters: list[str]) -> int | None:
    """The script of most of the letters: of those without likeness, where there are such."""
    found = [(script, c in _LIKE) for c in characters if (script := _script(c)) is not None]
    own = Counter(script for script, like in found if not like) or Counter(script for script, _ in found)
    return own.most_common(1)[0][0] if own else None


def consistent(text: list[str]) -> list[str]:
    """The characters of a line, each word in one script."""
    line = _most(text)
    if line is None and not _HAN.keys() & set(text):
        return text
    told = list(text)
    letters = set("".join(text).lower())
    if letters & set("ăâîțţ") and not letters & set("ığöüç"):
        text = told = [_COMMA.get(c, c) for c in text]
    start = 0
    for stop in [*[i for i, c in enumerate(text) if c == " "], len(text)]:
        ones = len(word := text[start:stop]) - len("".join(word).lstrip("ı"))
        if word[ones : ones + 1] and word[ones].isdigit():
            told[start : start + ones] = word[:ones] = ["1"] * ones
        if any(c.isdigit() for c in word) and all(c in _DIGIT or not c.isalpha() for c in word):
            told[start:stop] = [_DIGIT.get(c, c) for c in word]
        elif len({_script(c) for c in word} - {None}) > 1 or (len(word) == 1 and line and word[0] in _LIKE):
            own = [c for c in word if c not in _LIKE and _script(c) is not None]
            most = _most(own) if len(own) > 1 else line
            for i, c in enumerate(word):
                other = _LIKE[c][most] if most is not None and c in _LIKE else "_"
                told[start + i] = c if other == "_" else other
        start = stop + 1
    for i, c in enumerate(text):
        beside = [*text[max(0, i - 1) : i], *text[i + 1 : i + 2]]
        if c in _HAN and not any("\u3041" <= near <= "\u30ff" for near in beside):
            told[i] = _HAN[c]
    return told
