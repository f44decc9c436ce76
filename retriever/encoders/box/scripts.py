"""One script a word, and one alphabet a line: letters that the recogniser gives for others of the same shape.

A word's script is that of most of its letters that no other script has a likeness of, else that of the whole line's.
Longer words of one script are never changed. A line's alphabet (Romanian, Vietnamese, Turkish) is that whose own
letters it has most of; marks that it lacks become those it has. Dotless i's before a digit, at the start of a word, are
ones. Small kana stand only where spelling has them, katakana that look like a Chinese character only beside katakana.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache

WIDE = "\u2e80"  # characters from here on are as wide as two
_ALIKE = (  # Latin, Cyrillic, Greek; _ where a script has none
    "AАΑ BВΒ CС_ EЕΕ HНΗ IІΙ KКΚ MМΜ N_Ν OОΟ PРΡ TТΤ XХΧ YУΥ Z_Ζ JЈ_ SЅ_ _ГΓ _ПΠ _ФΦ _ЛΛ "
    "aаα bьβ cс_ eеε iіι jј_ kкκ mмμ oоο pрρ sѕ_ tтτ u_υ v_ν wшω xхχ yуγ rг_ nпη _фφ _лλ _іί _пπ _оό í_ί ïїϊ"
)
_GROUPS = _ALIKE.split()
_POINTS = re.compile(r"[(\[$€£+−–-]*[1-9]\d{0,2}(\.\d{3})+[)\]*]*")
_COMMAS = re.compile(r"[(\[$€£+−–-]*[1-9]\d{0,2}(,\d{3})+(\.\d+)?[)\]%*]*")
_PRICE = re.compile(r"^(\(?)s(?=\d{3}|\d+[.,]\d)")
_RULES = re.compile(r"(?<=\d)İ|İ(?=\d)")
_BELOW = re.compile("[ạẠẹẸịỊọỌụỤẓẒḥḤḍḌșȘțȚşŞţŢ]")
_RARE = 500
_INNER = re.compile(r"(?<=[^\W_])['’](?=[^\W\d_])")  # an apostrophe in a word or behind a number
VIETNAMESE = "ạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹơưđ"  # letters that tell it
_HAN = dict(zip("ーニカロタエチ", "一二力口夕工千", strict=True))
_ALPHABETS = (  # how many letters tell an alphabet, which, those of others it is given for, its own
    (1, "ăâîțţș", "ŞşŢţǍǎÄäãǐịǔ", "ȘșȚțĂăĂăăiiu"),
    (2, VIETNAMESE, "ǎěęǐïǔǚǒșț", "ăẽẹĩĩũũõst"),
    (1, "ığöüç", "șȘțǚǔǐị", "şŞtüüii"),
)
_PAGES: tuple[tuple[str, str, str, dict[str, str]], ...] = (
    # letters that make 2 % of a page of a language, letters that it lacks, its own instead of them, as well as words
    ("ățș", "āảắẫẳẵãđơĐşţŞŢ", "ăăăăăăădoDșțȘȚ", {"in": "în", "In": "În"}),
    (VIETNAMESE, "äÄāĀöÖīïū", "âÂâÂồỒĩĩũ", {}),
    ("ыэъ", "әєґ", "эег", {}),
)
_NARROW = frozenset("ățșţğışĞİŞ" + VIETNAMESE)  # what tells lines with letters close together, and Greek ones
_HALF = {0xFF01 + k: 0x21 + k for k in range(94)} | {ord(c): half for c, half in zip("。、・", ".,·", strict=True)}
_LAST = re.compile(r"(?<=[^\W\d_])s'(?=[.,;:)]*$)")  # an apostrophe after a word
_OPENS = re.compile(r"""(^|[(\[{<‘'「『《〈])"(?=.)""")
_DIGIT = dict(zip("oоοıзЗșşбọ", "0001335569", strict=True))
_LIKE = {c: group for group in reversed(_GROUPS) for c in group if c != "_"} | {"п": "nпπ"}
_SMALL, _LARGE = "ぁぃぅぇぉゃゅょゕゖァィゥェォャュョ", "あいうえおやゆよかけアイウエオヤユヨ"
_GROWN = dict(zip(_SMALL, _LARGE, strict=True))
_BEFORE_Y = "きしちにひみりぎじぢびぴキシチニヒミリギジヂビピテデフヴ"  # what small ya, yu, yo follow
_BEFORE_VOWEL = "ふてでうゔウヴクグシジスズチツテデトドフホイー"
_FLAT = dict(zip("ヘベペリ", "へべぺり", strict=True))  # of the same shape in katakana and hiragana


def japanese(character: str) -> int:
    """0 for a Chinese character that JIS X 0208 lacks, 1 for one of its second level, 2 for all others."""
    if not "\u3400" <= character <= "\u9fff":
        return 2
    code = character.encode("euc_jp", "replace")
    return 0 if len(code) != 2 else 2 if code[0] - 160 <= 47 else 1


@cache
def shape(character: str) -> str:
    """What a letter looks like without its marks, the same for letters of one shape in three scripts."""
    plain = unicodedata.normalize("NFD", character)[0]
    plain = {"ı": "i", "đ": "d", "Đ": "D"}.get(plain, plain)
    return _LIKE.get(plain, plain)


@cache
def script_of(character: str) -> int | None:
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
    found = [(script, c in _LIKE) for c in characters if (script := script_of(c)) is not None]
    own = Counter(script for script, like in found if not like) or Counter(script for script, _ in found)
    return own.most_common(1)[0][0] if own else None


def mixed(text: str) -> bool:
    """Whether `text` has letters of more than one of Latin, Cyrillic, Greek."""
    return len({script_of(c) for c in text} - {None}) > 1


def consistent(text: list[str]) -> list[str]:
    """The characters of a line, each word in one script."""
    found = set(text)
    scripts = {script_of(c) for c in found} - {None}
    line = _most(text) if len(scripts) > 1 else next(iter(scripts), None)
    text = _kana(text) if any(map(kana, found)) else text
    if line is None:
        return text
    if "„" in found and '"' in found:
        text = ["”" if c == '"' else c for c in text]
    if found & {"《", "》"} and not any(c > "\u3040" for c in found):
        text = [{"《": "«", "》": "»"}.get(c, c) for c in text]
    if swaps := _swaps("".join(text).lower()):
        text = [swaps.get(c, c) for c in text]
    told = list(text)
    start, foreign, figures = 0, bool(scripts - {0}), "ı" in found or any(c.isdigit() for c in found)
    if not foreign and not figures:
        return told
    for stop in [*[i for i, c in enumerate(text) if c == " "], len(text)]:
        word, at, start = text[start:stop], start, stop + 1
        if any(c.isdigit() for c in word) or {c for c in word if c.isalpha()} == {"ı", "o"}:
            ones = len(word) - len("".join(word).lstrip("ı"))
            if word[ones : ones + 1] and word[ones].isdigit():
                told[at : at + ones] = word[:ones] = ["1"] * ones
            if all(c in _DIGIT or not c.isalpha() for c in word):
                told[at:stop] = word = [_DIGIT.get(c, c) for c in word]
        if "ı" in word and "".join(c for c in word if c != "ı").isupper():
            told[at:stop] = word = ["I" if c == "ı" else c for c in word]
        odd = not {"ѕ", "Ѕ"}.isdisjoint(word)
        if foreign and (odd or len({script_of(c) for c in word} - {None}) > 1 or (line and _alike(word))):
            own = Counter(script_of(c) for c in word if c not in _LIKE or c in "πό").most_common()
            own = [(script, many) for script, many in own if script is not None]
            clear = sum(many for _, many in own) > 1 and (len(own) == 1 or own[0][1] > own[1][1])
            whole = [script for script in (line, 0, 1, 2) if script is not None and _has(script, word)]
            most = own[0][0] if clear else (whole or [line])[0]
            for i, c in enumerate(word):
                other = _LIKE[c][most] if most is not None and c in _LIKE else "_"
                told[at + i] = c if other == "_" else other
    return told


def _has(script: int, word: list[str]) -> bool:
    """Whether a script has a likeness of all letters of a word; the Macedonian letter of the shape of "s" is none."""
    letters = [c for c in word if script_of(c) is not None]
    return all(_LIKE[c][script] not in "_ѕЅ" if c in _LIKE else script_of(c) == script for c in letters)


def narrow(text: str) -> bool:
    """Whether a line has letters that stand close together: Romanian, Turkish, Vietnamese, Greek."""
    marked = [c for c in text if c > "\u00bf" and c.isalpha()]
    found = any(c in _NARROW or "\u0370" <= c < "\u0400" for c in marked)
    return (found and len(marked) > 1) or not {"ă", "ț"}.isdisjoint(marked)


def settled(words: list[str]) -> list[str]:
    """The words of a page with one form of apostrophe between letters, quotes that close as they open, commas in all
    large numbers where most have them, marks that its language has, and short words that could be of its Cyrillic or
    Greek in it where none beside them is Latin."""
    told, marks = list(words), Counter(c for word in words for c in _INNER.findall(word))
    rounded = _rounded(words, marks)
    if len(marks) > 1 or rounded:
        often = "’" if rounded or marks["’"] > marks["'"] else "'"
        told = [_INNER.sub(often, word) for word in told]
    if any("„" in word for word in words) and not any(word.lstrip("([")[:1] == '"' for word in words):
        told = [word.replace('"', "”") for word in told]
    if rounded:
        told = _round([_LAST.sub("s’", word) for word in told])
    told = _underlined(_figures(told))
    if korean(words):
        told = [word.translate(_HALF).replace("″", "”") for word in told]
        told = _quoted(["•" if word == "·" else word for word in told])
    text = "".join(words).lower()
    for tells, others, own, whole in _PAGES:
        if sum(map(text.count, tells)) > 0.02 * len(text):
            told = [whole.get(word, word.translate(str.maketrans(others, own))) for word in told]
    script = _most([c for word in words for c in word])
    for i, word in enumerate(words if script else []):
        beside = "".join(words[max(0, i - 1) : i] + words[i + 1 : i + 2])
        letters = [c for c in word if c.isalpha()]
        alone = all(script_of(c) != 0 for c in beside) and set(word).isdisjoint("iIjJ")
        if script and alone and 0 < len(letters) < 4 and _has(script, letters):
            told[i] = "".join(_LIKE[c][script] if c in _LIKE else c for c in told[i])
        elif script and word == "0" and not any(c.isdigit() for c in beside):
            told[i] = "0оο"[script]
    return told


def _figures(words: list[str]) -> list[str]:
    """The words of a page with commas in all large numbers, where three times as many have them as points, and "$" for
    "s" before figures, where it has some; rules of tables beside figures are no letters."""
    told = [_RULES.sub("", word) for word in words]
    if any("$" in word for word in words):
        told = [_PRICE.sub(r"\1$", word) for word in told]
    points = [i for i, word in enumerate(told) if _POINTS.fullmatch(word)]
    commas = sum(_COMMAS.fullmatch(word) is not None for word in told) if points else 0
    for i in points if commas >= 3 * len(points) else []:
        told[i] = told[i].replace(".", ",")
    return told


def _underlined(words: list[str]) -> list[str]:
    """The words of a page with no marks below letters, which the rules of tables pass for, where one letter in RARE has
    such at most."""
    text = "".join(words)
    marked = _BELOW.findall(text)
    if not 0 < len(marked) * _RARE < len(text):
        return words
    return [_BELOW.sub(lambda one: unicodedata.normalize("NFD", one[0])[0], word) for word in words]


def _rounded(words: list[str], marks: Counter[str]) -> bool:
    """Whether quotes and apostrophes of a page are round: some that open are read so, as those that close pass for
    straight ones, or most of its apostrophes, `marks`."""
    text = "".join(words)
    opened, others = text.count("“"), text.count('"') + text.count("”")
    latin = "„" not in text and sum(c >= WIDE for c in text) * 8 < len(text)
    opens = opened > 0 and opened + others > 1 and 3 * opened >= text.count('"')
    return latin and (opens or marks["’"] > max(1, 2 * marks["'"]))


def _quoted(words: list[str]) -> list[str]:
    """The words of a page with quotes as most of them are, straight or round, and round ones that open and close."""
    text = "".join(words)
    if text.count('"') > text.count("“") + text.count("”"):
        return [word.replace("“", '"').replace("”", '"') for word in words]
    return _round(words)


def _round(words: list[str]) -> list[str]:
    """The words of a page with round quotes that open and close."""
    told = [_OPENS.sub(r"\1“", word.replace("“", '"')) if "“" in word or '"' in word else word for word in words]
    return [word.replace('"', "”") for word in told]


def korean(words: list[str]) -> bool:
    """Whether most of a page's characters as wide as two are Hangul."""
    wide = [c for word in words for c in word if c >= WIDE and c.isalpha()]
    return sum(map(hangul, wide)) > 0.5 * len(wide)


def hangul(character: str) -> bool:
    return "\uac00" <= character <= "\ud7a3"


def kana(character: str) -> bool:
    return "\u3041" <= character <= "\u30ff"


def in_japanese(line: Sequence[str]) -> bool:
    """Whether an eighth of the letters of a line as wide as two are kana, and none is Hangul."""
    wide = [c for c in line if c >= WIDE and c.isalpha() and c != "ー"]
    return not any(map(hangul, wide)) and sum(map(kana, wide)) * 8 >= max(1, len(wide))


def stray_hangul(line: Sequence[str]) -> bool:
    """Whether a line in Japanese has Hangul: an eighth of its wide letters at most, an eighth at least being kana."""
    wide = [c for c in line if c >= WIDE and c.isalpha() and c != "ー"]
    strange = sum(map(hangul, wide))
    return 0 < strange * 8 <= len(wide) <= sum(map(kana, wide)) * 8


def kanji(character: str) -> bool:
    return "\u4e00" <= character <= "\u9fff" or character == "々"


def eastern(text: str) -> bool:
    """Whether a text has kana or Chinese characters."""
    return any(kana(c) or kanji(c) for c in text)


def _alike(word: list[str]) -> bool:
    """Whether a word is one letter that other scripts have, or figures with one behind a hyphen, as in "1990-x"."""
    letters = [c for c in word if c.isalpha()]
    return len(letters) == 1 and letters[0] in _LIKE and (len(word) == 1 or (word[0].isdigit() and "-" in word))


def alphabet(text: str) -> int | None:
    """Which alphabet a line in small letters is in: 0 Romanian, 1 Vietnamese, 2 Turkish; None if none is clear."""
    counts = [sum(map(text.count, tells)) for _, tells, _, _ in _ALPHABETS]
    most = max(counts)
    which = counts.index(most)
    return which if most >= _ALPHABETS[which][0] and counts.count(most) == 1 else None


def _swaps(text: str) -> dict[str, str]:
    """The letters that the alphabet of a line in small letters has instead of others."""
    which = alphabet(text)
    return {} if which is None else dict(zip(*_ALPHABETS[which][2:], strict=True))


def _hiragana(character: str) -> bool:
    return "\u3041" <= character <= "\u3096"


def _katakana(character: str) -> bool:
    return "\u30a1" <= character <= "\u30fc" and character != "・"


def _kana(text: list[str]) -> list[str]:
    """The characters of a line in which kana stand as they are spelt."""
    told = list(text)
    for i, c in enumerate(text):
        before, after = told[i - 1] if i else " ", text[i + 1] if i + 1 < len(text) else " "
        among = not _katakana(before) and not _katakana(after)
        if c in _GROWN:
            follows = _BEFORE_Y if c in "ゃゅょャュョ" else "" if c in "ゕゖ" else _BEFORE_VOWEL
            told[i] = c if before in follows and before != " " else _GROWN[c]
        elif c == "ー":
            kept = _katakana(before) or (_hiragana(before) and (_hiragana(after) or _katakana(after)))
            told[i] = c if kept else "一"
        elif c in _HAN and among:
            told[i] = _HAN[c]
        elif c in _FLAT and among and (_hiragana(before) or _hiragana(after)):
            told[i] = _FLAT[c]
        elif c == "フ" and among and before > "\u3040" and _hiragana(after):
            told[i] = "っ"
    return told
