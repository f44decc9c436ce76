"""What an engine makes of a page, and the rules that are the same for all engines: size in pixels, clean words.

An engine (`mupdf`, `pdfium`, `picture`) opens bytes and draws pages; it runs in the worker process, so this module and
those import neither numpy nor anything else that starts a thread. What goes wrong is a `Failed` with a state.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

MAX_WORDS = 20_000
MAX_WORD = 1_000  # characters
MAX_TEXT = 1_000_000  # characters a page
MAX_TITLE = 500
MAX_HEADINGS = 2_000  # characters a page
MAX_ENTRIES = 5_000  # of an outline
MAX_PASSAGE = 20_000  # characters of a page of a text file
SMALLEST = 1.5, 1 / 400  # height of words that can be read: points, and of the page's shorter side if that is less

Box = tuple[float, float, float, float]
Word = tuple[str, Box]

_LIGATURES = {
    code: unicodedata.normalize("NFKC", chr(code)) for code in (*range(0xFB00, 0xFB07), *range(0xFB13, 0xFB18))
}
_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_UNKNOWN = re.compile("[\ud800-\udfff\ue000-\uf8ff\ufdd0-\ufdef\ufffe\uffff\U000f0000-\U0010ffff]")


class Failed(Exception):
    """A document or a page cannot be had. state: as in `render.RenderError` and `render.PageFailure`."""

    def __init__(self, state: str, reason: str) -> None:
        super().__init__(reason)
        self.state = state
        self.reason = reason


class Drawing(NamedTuple):
    """A drawn page. pixels: height_px rows of width_px RGB bytes; words: boxes in fractions of the page; width, height:
    points; passage: the text itself, of a page of a text file; headings: the entries of the document's outline that
    lead to the page, a line each."""

    width_px: int
    height_px: int
    pixels: bytes | memoryview
    words: Sequence[Word]
    width: float
    height: float
    passage: str = ""
    headings: str = ""


class Caps(NamedTuple):
    """How large a picture may become: width x height, each side, and the ratio of the sides that is still a page."""

    max_pixels: int
    max_side: int
    max_aspect: float


class Opened(Protocol):
    """An open document. pages: how many; draw: page `number`, from 1, at `dpi` or smaller to fit `caps`."""

    pages: int
    title: str

    def draw(self, number: int, dpi: float, caps: Caps) -> Drawing: ...

    def close(self) -> None: ...


def fit(width: float, height: float, scale: float, caps: Caps) -> tuple[int, int]:
    """Pixels for a page of width x height units at `scale` pixels a unit, made smaller where a cap asks for it. Raises
    `Failed` ("oversize" for a sliver, "damaged" where the page has no size)."""
    if not (math.isfinite(width) and math.isfinite(height) and width > 0 and height > 0):
        raise Failed("damaged", f"the page measures {width:g} x {height:g}")
    aspect = max(width / height, height / width)
    if aspect > caps.max_aspect:
        raise Failed("oversize", f"the page measures {width:g} x {height:g}: longer than {caps.max_aspect:g} to 1")
    scale = min(scale, caps.max_side / max(width, height), math.sqrt(caps.max_pixels / width / height))
    width_px, height_px = max(1, round(width * scale)), max(1, round(height * scale))
    while width_px * height_px > caps.max_pixels:  # rounding may pass the cap by a row
        if width_px >= height_px:
            width_px -= 1
        else:
            height_px -= 1
    return width_px, height_px


def clean(text: str) -> str:
    """`text` in NFC, ligatures expanded, without control and direction characters; what stands for no known character
    (private use, lone surrogates) as U+FFFD."""
    if text.isascii() and text.isprintable():
        return text
    text = _UNKNOWN.sub("\ufffd", _INVISIBLE.sub("", text.translate(_LIGATURES)))
    return unicodedata.normalize("NFC", text)


def clean_title(text: str) -> str:
    """A title on one line: cleaned, white space run together, `MAX_TITLE` characters at most."""
    return " ".join(clean(" ".join(text.split())).split())[:MAX_TITLE].rstrip()


def headings(outline: Iterable[tuple[str, int]]) -> dict[int, str]:
    """Titles and page numbers of an outline -> what `Drawing.headings` says of each page that has any. Of an outline
    that turns out damaged, what stands before the damage; `MAX_ENTRIES` at most."""
    found: dict[int, str] = {}
    with contextlib.suppress(Exception):
        for title, number in itertools.islice(outline, MAX_ENTRIES):
            lines = f"{found.get(number, '')}\n{clean_title(title)}".strip()
            found[number] = lines if len(lines) <= MAX_HEADINGS else found.get(number, "")
    return found


def clean_words(words: Iterable[tuple[str, Box]], width: float, height: float) -> list[Word]:
    """The words that can be seen on a page of width x height points: texts cleaned and without white space, boxes
    (fractions) clipped to the page, what lies outside it or is smaller than `SMALLEST`, put there for machines,
    dropped, `MAX_WORDS` and `MAX_TEXT` at most."""
    kept: list[Word] = []
    characters, least = 0, min(SMALLEST[0], SMALLEST[1] * min(width, height))
    for raw, (x0, y0, x1, y1) in words:
        x0, y0, x1, y1 = max(x0, 0.0), max(y0, 0.0), min(x1, 1.0), min(y1, 1.0)
        if not (x0 < x1 and y0 < y1):  # also false for NaN
            continue
        if min((x1 - x0) * width, (y1 - y0) * height) < least and sum(map(str.isalnum, raw)) > 2:  # not "l" or "..."
            continue
        parts = (
            clean(raw).split()
            if raw.isprintable()
            else [piece for part in raw.split() for piece in clean(part).split()]
        )
        total = sum(map(len, parts)) or 1
        before = 0
        for part in parts:
            left = x0 + (x1 - x0) * before / total
            before += len(part)
            text = part[:MAX_WORD]
            characters += len(text)
            if len(kept) == MAX_WORDS or characters > MAX_TEXT:
                return kept
            kept.append((text, (left, y0, x0 + (x1 - x0) * before / total, y1)))
    return kept
