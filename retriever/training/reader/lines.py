"""Rendered lines of text, clean and worn, as the reader cuts them from a page at 150 dpi, to train the recogniser on.

Text is that of libreoffice-help-*, or of the messages of libreoffice-l10n-*, in the languages of LANGUAGES, most of it
as it stands, some of it with characters exchanged for rarer ones of its script, and a few strings of characters drawn
at random, so that each class is seen. Fonts are those that `fc-list` knows, if they have the glyphs, plain ones more
often than others. One paragraph of twenty is never trained on.
"""

from __future__ import annotations

import html
import io
import random
import re
import struct
import subprocess
import tarfile
import unicodedata
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from retriever.training.reader import classes

LANGUAGES = {
    **{"ja": 20, "ko": 22, "ru": 17, "vi": 28, "ro": 18, "tr": 13, "el": 14},
    **{"uk": 3, "bg": 1, "pl": 3, "cs": 2, "hu": 1, "et": 1},
}
OLD = {"de": 4, "fr": 6, "zh-cn": 8}  # languages it reads already
MORE = {"ko": ("cataclysm-dda-data", "wesnoth-1.16-data", "widelands-data")}  # packages with text of another kind
HELD_OUT = 20
_QUOTES = ("“”", "„”", '""', "«»", "''", "()", "‘’")
_PARAGRAPH = re.compile(r"<p [^>]*par_id.*?</p>", re.S)
_TAG = re.compile(r"<[^>]+>")
_HINT = re.compile(r"[~_]|%[0-9A-Z]+|\$\([^)]*\)|\x00.*", re.S)
_MARKUP = re.compile(r"<[^>]*>|[%$](\d\$)?([A-Za-z_]+\|?|\([^)]*\))|%\d%?|\{[^}]*\}|\|?\b[A-Z0-9]+_[A-Z_]+")  # of games
_ODD = re.compile(
    "Thin|ExtraLight|UltraLight|Black|ExtraBold|Hairline|Heavy|Condensed|hline|Dinaru|Pilgi|Gungseo|_RZ|_DR|MathTeX|Symbol"
    "|Brush|NanumPen|Barunpen|YetHangul"
)
_STYLED = re.compile("Bold|Italic|Oblique|Mono|Light|Medium|Semibold|Narrow|Cond|Display|Coding|_R[BI]")
_MARKED = {"ro": "ăâîșț", "tr": "ıçğöşü", "vi": "đ" + "ăâêôơư", "sh": "đčćšž", "pl": "ąćęłńóśźż"}
_ALIKE = (  # initials, vowels, finals of Hangul that look like each other in small print, by their numbers
    ((0, 1, 15), (3, 4, 16, 5), (6, 7, 8, 17, 11), (9, 10, 12, 13, 14), (11, 18, 6), (2, 5, 3)),
    ((0, 2, 4, 6, 20), (1, 3, 5, 7), (8, 12, 13, 17, 18), (9, 10, 11, 14, 15, 16, 19), (0, 4, 20)),
    ((1, 2, 3, 24), (4, 5, 6, 8, 7, 25), (16, 17, 18, 21, 26, 27), (19, 20, 22, 23), (8, *range(9, 16)), (0, 4, 21)),
)
_SYLLABLES = frozenset(classes.HANGUL)
_FEW = {"Cyrl": classes.CYRILLIC, "Latn": classes.LATIN + "ĂăÂâÎîŞşŢţĄąĘęŁłŐőŰűĞğİıŠšŽžŪūĖėĀāĒēĪīĢģĶķĻļŅņ"}


def paragraphs(package: Path) -> list[str]:
    """The distinct paragraphs of a libreoffice-help-* .deb, NFC; needs dpkg-deb."""
    found: dict[str, None] = {}
    for held in files(package, ".html"):
        for block in _PARAGRAPH.findall(held.decode("utf-8", "replace")):
            text = " ".join(html.unescape(_TAG.sub("", block)).split())
            if len(text) >= 20:
                found[unicodedata.normalize("NFC", text)] = None
    return list(found)


def messages(package: Path, folder: str = "") -> list[str]:
    """The distinct translations of 12 characters and more in a libreoffice-l10n-* .deb, or in `folder` of another, NFC;
    needs dpkg-deb."""
    found: dict[str, None] = {}
    for held in files(package, ".mo", folder):
        count, _, table = struct.unpack_from("<3I", held, 8) if held else (0, 0, 0)
        for i in range(1, count):  # the first holds the file's head
            length, at = struct.unpack_from("<2I", held, table + 8 * i)
            text = " ".join(_HINT.sub("", held[at : at + length].decode("utf-8")).split())
            if len(text) >= 12:
                found[unicodedata.normalize("NFC", text)] = None
    return list(found)


def told(package: Path, language: str = "ko") -> list[str]:
    """The distinct messages of a game's .deb in a language, without markup."""
    found = (" ".join(_MARKUP.sub(" ", text).split()) for text in messages(package, f"/{language}/LC_MESSAGES/"))
    return [*dict.fromkeys(text for text in found if len(text) >= 12 and not text.isascii())]


def files(package: Path, suffix: str, folder: str = "") -> Iterator[bytes]:
    """What the files of a .deb hold whose names end so, and have `folder` in their paths."""
    data = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(package)], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            wanted = member.name.endswith(suffix) and folder in member.name
            stream = archive.extractfile(member) if wanted else None
            if stream:
                yield stream.read()


def texts_of(folder: Path, language: str) -> list[str]:
    """The paragraphs of a language: of its libreoffice-help-* in `folder`, else of its libreoffice-l10n-*, and of MORE
    that are there."""
    packages = [package for name in MORE.get(language, ()) for package in folder.glob(f"{name}_*.deb")]
    more = [text for package in packages for text in told(package, language)]
    for kind, read in (("help", paragraphs), ("l10n", messages)):
        for package in folder.glob(f"libreoffice-{kind}-{language}_*.deb"):
            return read(package) + more
    raise FileNotFoundError(f"{folder} has no libreoffice-help-{language} nor -l10n-{language}: apt-get download one")


def held_out(text: str) -> bool:
    """Whether a paragraph is kept for testing."""
    return zlib.crc32(text.encode()) % HELD_OUT == 0


class Texts:
    """Draws lines of text. by_language: {language: paragraphs}; characters: all that can be read; shares: of the
    languages, those of LANGUAGES and OLD if none are given."""

    def __init__(
        self, by_language: dict[str, list[str]], characters: set[str], shares: dict[str, int] | None = None
    ) -> None:
        self._paragraphs = by_language
        self._characters = characters
        self._shares = shares or {**LANGUAGES, **OLD}

    def draw(self, chance: random.Random) -> tuple[str, str]:
        """A language and a line of text (of its script, for half of those in "ja" and "ko"); "" draws nothing."""
        language = chance.choices(list(self._shares), list(self._shares.values()))[0]
        if language in ("ja", "ko") and chance.random() < (0.15 if language == "ja" else 0.08):
            return language, _strange(language, chance)
        paragraph = chance.choice(self._paragraphs[language])
        if paragraph.isascii() and language not in OLD and chance.random() < 0.85:
            return language, ""
        wide = language in ("ja", "ko", "zh-cn")
        length = chance.randint(4, 30 if language == "ko" else 24) if wide else chance.randint(6, 44)
        start = chance.randrange(max(1, len(paragraph) - length))
        text = paragraph[start : start + length].strip()
        if language in ("ru", "pl", "fr") and chance.random() < 0.1:
            few = _FEW["Cyrl" if language == "ru" else "Latn"]
            text = "".join(chance.choice(few) if c.isalpha() and chance.random() < 0.3 else c for c in text)
        elif language in ("pl", "cs", "fr", "de") and chance.random() < 0.3:
            text = _exchanged(text, chance.choice(list(_MARKED.values())), chance)
        elif language == "ja" and chance.random() < 0.35:
            text = "".join(chance.choice(classes.KANJI) if c >= "\u4e00" and chance.random() < 0.4 else c for c in text)
        elif language == "ko" and chance.random() < 0.4:
            text = "".join(_syllable(c, chance) if chance.random() < 0.4 else c for c in text)
        if not wide and chance.random() < 0.2:
            text = _marked(text, chance)
        if not wide and chance.random() < 0.1:
            text = text.upper() if language != "tr" else text
        return language, "".join(c for c in text if c in self._characters).strip()


def _syllable(character: str, chance: random.Random) -> str:
    """Of a Hangul syllable one that differs in a jamo, most often in one that looks like its own, at times any."""
    jamo = [number - 1 for number in classes.jamo(character)]
    if jamo[0] < 0:
        return character
    if chance.random() < 0.3:
        return chance.choice(classes.HANGUL)
    part = chance.randrange(3)
    alike = [k for group in _ALIKE[part] for k in group if jamo[part] in group and k != jamo[part]]
    jamo[part] = chance.choice(alike or range((19, 21, 28)[part]))
    other = chr(0xAC00 + jamo[0] * 588 + jamo[1] * 28 + jamo[2])
    return other if other in _SYLLABLES else character


def _marked(text: str, chance: random.Random) -> str:
    """`text` with a figure beside one of its words, or that word in quotes, a mark behind it."""
    words = text.split(" ")
    at = chance.randrange(len(words))
    if chance.random() < 0.6:
        words.insert(at, _figure(chance))
    quotes = chance.choice(_QUOTES)
    if chance.random() < 0.6:
        words[at] = quotes[0] + words[at].strip("".join(_QUOTES)) + quotes[1] + chance.choice(("", "", ",", ".", "..."))
    return " ".join(words)


def _figure(chance: random.Random) -> str:
    """A year or a number as print has them."""
    number = chance.choice((chance.randint(1000, 2030), chance.randint(0, 99), chance.randint(0, 10**6)))
    told = chance.choice((f"{number}", f"{number}", f"{number:,}", f"{number / 10}", f"{number}".replace("0", "1")))
    return chance.choice(("", "", "", "(", "-")) + told + chance.choice(("", "", ".", ",", "%", "'"))


def _exchanged(text: str, marked: str, chance: random.Random) -> str:
    """`text` with half of the letters that have a like among `marked` exchanged for it."""
    like: dict[str, list[str]] = {}
    for letter in marked:
        plain = {"ı": "i", "đ": "d", "ł": "l"}.get(letter, unicodedata.normalize("NFD", letter)[0])
        like.setdefault(plain, []).append(letter)
        like.setdefault(plain.upper(), []).append({"ı": "İ"}.get(letter, letter.upper()))
    return "".join(chance.choice(like[c]) if c in like and chance.random() < 0.5 else c for c in text)


def _strange(language: str, chance: random.Random) -> str:
    """A string of characters of the language's script drawn evenly, at times with a digit or a space among them."""
    sets = [classes.HANGUL] if language == "ko" else [classes.KANJI, classes.KANA]
    drawn = [chance.choice(chance.choice(sets)) for _ in range(chance.randint(4, 18))]
    drawn = [chance.choice("0123456789.,()% ") if chance.random() < 0.08 else c for c in drawn]
    if language == "ko":
        drawn = [c + " " if chance.random() < 0.25 else c for c in drawn]
    return " ".join("".join(drawn).split())


class Fonts:
    """The scalable fonts of this machine."""

    def __init__(self) -> None:
        listed = subprocess.run(["fc-list", ":", "file", "index", "lang"], check=True, capture_output=True, text=True)
        self._by_language: dict[str, tuple[list[tuple[str, int]], list[tuple[str, int]]]] = {}
        for line in sorted(listed.stdout.splitlines()):
            path, _, rest = line.partition(":")
            index = int(re.search(r"index=(\d+)", rest)[1]) if "index=" in rest else 0  # type: ignore[index]
            name = Path(path).name
            if Path(path).suffix in (".ttf", ".otf", ".ttc") and index < 1000 and not _ODD.search(name):
                for language in re.findall(r"[a-z-]+", rest.partition("lang=")[2]):
                    self._by_language.setdefault(language, ([], []))[bool(_STYLED.search(name))].append((path, index))

        eastern = {font for language in ("ja", "ko", "zh-cn") for part in self._by_language[language] for font in part}
        for language in {*LANGUAGES, *OLD} - {"ja", "ko", "zh-cn"}:  # their letters are as wide as characters there
            for part in self._by_language[language]:
                part[:] = [font for font in part if font not in eastern]

    def of(self, language: str) -> list[tuple[str, int]]:
        """(path, index) of the fonts of a language, plain ones as often as they make three of five."""
        plain, styled = self._by_language[language]
        return plain * max(1, round(1.5 * len(styled) / len(plain))) + styled


@lru_cache(256)
def _font(path: str, index: int, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size, index=index)


@lru_cache(65536)
def _drawn(path: str, index: int, character: str) -> bool:
    """Whether a font has a glyph for a character: it is not drawn as one that no font has."""
    font = _font(path, index, 20)
    return bytes(font.getmask(character)) != bytes(font.getmask("\U0010fffe"))


def render(text: str, fonts: list[tuple[str, int]], chance: random.Random) -> np.ndarray | None:
    """The line as uint8 (h, w, 3), dark on light or light on dark, worn in half of the cases; None without a font."""
    for _ in range(6):
        path, index = chance.choice(fonts)
        if all(_drawn(path, index, c) for c in set(text) - {" "}):
            break
    else:
        return None
    size = chance.randint(15, 27) if chance.random() < 0.5 else chance.randint(11, 40)
    larger = 4 if chance.random() < 0.5 else 1  # letters as pages have them are fitted to no pixels
    font = _font(path, index, size * larger)
    parts = _spaced(text, font, chance)
    left, top, _, bottom = font.getbbox(text)
    pad = [round(size * chance.uniform(-0.04 if side > 1 else 0.02, 0.35)) * larger for side in range(4)]
    width, height = int(parts[-1][1] - left) + pad[0] + pad[1], int(bottom - top) + pad[2] + pad[3]
    paper, ink = chance.randint(225, 255), chance.randint(0, 90)
    if chance.random() < 0.1:
        paper, ink = ink, paper
    image = Image.new("L", (width, height), paper)
    draw = ImageDraw.Draw(image)
    for part, at in parts:
        draw.text((pad[0] - left + at, pad[2] - top), part, font=font, fill=ink)
    if chance.random() < 0.25:  # what reaches into the line from those above and below
        for side in (-1, 1):
            at = pad[2] - top + side * size * larger * chance.uniform(1.15, 1.5)
            draw.text((pad[0] - left, at), text[::-1], font=font, fill=ink)
    image = image.reduce(larger) if larger > 1 else image
    if chance.random() < 0.6:
        image = _worn(image, paper, chance)
    image = image.resize((max(1, round(image.width * chance.uniform(0.85, 1.45))), image.height))
    return np.repeat(np.asarray(image)[:, :, None], 3, axis=2)


def _spaced(text: str, font: ImageFont.FreeTypeFont, chance: random.Random) -> list[tuple[str, float]]:
    """Parts of `text` and where they begin, in the end "" and where it ends: as it stands, or with spaces of another
    width, or, Hangul, with letters farther apart or closer together."""
    hangul, size = any(c in _SYLLABLES for c in text), font.size
    if chance.random() < (0.4 if hangul else 0.7):
        return [(text, 0.0), ("", font.getlength(text))]
    space = size * chance.uniform(0.17, 0.5) if hangul else font.getlength(" ") * chance.uniform(0.8, 1.5)
    apart = size * chance.uniform(-0.08, 0.06) if hangul and chance.random() < 0.4 else 0.0
    found, at = [], 0.0
    for word in text.split(" "):
        for part in word if apart else [word]:
            found.append((part, at))
            at += font.getlength(part) + apart
        at += space
    return [*found, ("", at - space)]


def _worn(image: Image.Image, paper: int, chance: random.Random) -> Image.Image:
    """The line as after a scan: skewed, blurred, noisy, compressed."""
    size, angle = image.size, chance.uniform(-0.5, 0.5) if chance.random() < 0.6 else 0.0
    if angle:
        image = image.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor=paper)
    image = image.filter(ImageFilter.GaussianBlur(chance.uniform(0, 1.0)))
    noise = np.random.default_rng(chance.getrandbits(32)).normal(0, chance.uniform(0, 10), (image.height, image.width))
    image = Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=chance.randint(40, 95))
    image = Image.open(file).convert("L")
    if angle and chance.random() < 0.5:  # righted, as the reader does
        image = image.rotate(-angle, Image.Resampling.BICUBIC, fillcolor=paper)
        side, over = (image.width - size[0]) // 2, (image.height - size[1]) // 2
        image = image.crop((side, over, side + size[0], over + size[1]))
    return image
