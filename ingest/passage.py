"""Pages of text files: notes, books, source code. Lines of at most COLUMNS characters, ROWS to a page, drawn plainly.

A page is a passage: where it would end in the middle of something, it ends at the last blank line of its second half;
a form feed ends it too. Its words are those of the file, whatever can be drawn: the font (Pillow's own) has the
letters of ASCII, others are boxes on the picture. Reads UTF-8, and UTF-16 with its mark; tabs become four spaces.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont

from .drawing import Box, Caps, Drawing, Failed, clean, clean_words, fit
from .sources import MAX_TEXT_BYTES, is_text

if TYPE_CHECKING:
    import numpy as np

COLUMNS, ROWS = 120, 60
WIDTH, HEIGHT, MARGIN = 595.0, 842.0, 36.0  # A4, points
_CELL, _LEADING = (WIDTH - 2 * MARGIN) / COLUMNS, (HEIGHT - 2 * MARGIN) / ROWS
_SIZE = 7.0  # points: letters are a little narrower than a cell


class Passages:
    """Raises `Failed`: "unsupported" for what is no text, "oversize", "empty"."""

    title = ""

    def __init__(self, data: bytes) -> None:
        if len(data) > MAX_TEXT_BYTES:
            raise Failed(
                "oversize", f"a text file has at most {MAX_TEXT_BYTES // 2**20} MiB, this one {len(data)} bytes"
            )
        self._pages = list(_pages(_decoded(data)))
        self.pages = len(self._pages)
        if not self.pages:
            raise Failed("empty", "the file has no words")

    def draw(self, number: int, dpi: float, caps: Caps) -> Drawing:
        rows = self._pages[number - 1]
        width, height = fit(WIDTH, HEIGHT, dpi / 72, caps)
        picture = Image.new("L", (width, height), 255)
        pen, font = ImageDraw.Draw(picture), _font(max(1, round(_SIZE * height / HEIGHT)))
        words = list(_words(rows))
        for word, (x0, y0, _, _) in words:
            pen.text((x0 * width, y0 * height), word, fill=0, font=font)
        pixels = picture.convert("RGB").tobytes()
        return Drawing(width, height, pixels, clean_words(words, WIDTH, HEIGHT), WIDTH, HEIGHT, "".join(rows).rstrip())

    def close(self) -> None:
        self._pages = []


def _decoded(data: bytes) -> str:
    if not is_text(data):
        raise Failed("unsupported", "the file holds bytes that no text has")
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"the text is not {'UTF-16' if wide else 'UTF-8'} at byte {error.start:,}; convert it (iconv -t UTF-8)"
        raise Failed("unsupported", what) from None


def _pages(text: str) -> Iterator[list[str]]:
    """The rows of each page that has words; a row that ends its line ends with a line feed."""
    for part in text.replace("\r\n", "\n").replace("\r", "\n").split("\f"):
        rows = [row for line in part.split("\n") for row in _rows(clean(line.expandtabs(4)))]
        start = 0
        while start < len(rows):
            end = min(start + ROWS, len(rows))
            if end < len(rows):
                end = next((i + 1 for i in range(end - 1, start + ROWS // 2, -1) if not rows[i].strip()), end)
            if any(row.strip() for row in rows[start:end]):
                yield rows[start:end]
            start = end


def _rows(line: str) -> Iterator[str]:
    """A line cut to COLUMNS, after spaces where it has some."""
    start = 0
    while len(line) - start > COLUMNS // 2:
        end, columns, space = start, 0, start
        while end < len(line) and (columns := columns + _columns(line[end])) <= COLUMNS and end - start < 2 * COLUMNS:
            end += 1
            space = end if line[end - 1] == " " else space
        if end == len(line):
            break
        end = space if space > start else end
        yield line[start:end]
        start = end
    yield f"{line[start:].rstrip()}\n"


def _columns(character: str) -> int:
    if character.isascii():
        return 1
    return 2 if unicodedata.east_asian_width(character) in "WF" else 0 if unicodedata.combining(character) else 1


def _words(rows: list[str]) -> Iterator[tuple[str, Box]]:
    """Words with boxes, fractions of the page."""
    for number, row in enumerate(rows):
        top = (MARGIN + number * _LEADING) / HEIGHT
        for found in re.finditer(r"\S+", row):
            before = sum(map(_columns, row[: found.start()]))
            after = before + max(1, sum(map(_columns, found.group())))
            left, right = ((MARGIN + column * _CELL) / WIDTH for column in (before, after))
            yield found.group(), (left, top, right, top + _LEADING / HEIGHT)


def laid_out(words: Sequence[str], boxes: np.ndarray) -> str:
    """The rows of a page again, indents and blank lines too, from its words and their boxes (w, 4)."""
    rows: dict[int, str] = {}
    for word, (x0, y0, _, _) in zip(words, boxes.tolist(), strict=True):
        number = round((y0 * HEIGHT - MARGIN) / _LEADING)
        row = rows.get(number, "")
        missing = round((x0 * WIDTH - MARGIN) / _CELL) - sum(map(_columns, row))
        rows[number] = row + " " * max(missing, int(bool(row))) + word
    return "\n".join(rows.get(number, "") for number in range(max(rows, default=-1) + 1))


@lru_cache(maxsize=4)
def _font(size: int) -> Any:
    return ImageFont.load_default(size)
