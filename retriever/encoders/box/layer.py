"""Is the file's own text layer the text of the page, or must the picture be read?

Three looks, each only when the one before leaves doubt: are the words made of real characters; do they lie on most of
the ink of the picture; if not, do they lie on the lines of text that the detector finds there. So a scan under a
stamped header is read, and a page of photographs with a caption keeps its caption. A layer of real characters also
stays where the reader then finds less text than it holds. It does not judge spelling.
"""

from __future__ import annotations

import re
import unicodedata

import numpy as np
from PIL import Image

from ingest.page import Words

REAL = 0.8
INKED = 0.5
COVERED = 0.5
_CELL = 8
_CONTRAST = 32
_GLYPH_NAME = re.compile(r"\(cid:\d+\)|\\u[0-9a-fA-F]{4}|/[Gg](?:lyph)?\d{1,5}\b")


def real(words: Words) -> bool:
    """Whether at least REAL of the characters are letters, digits, marks, punctuation or symbols of Unicode.

    Private use, unassigned, control characters and U+FFFD are not, nor is the name of a glyph such as "(cid:12)".
    """
    text = "".join(words.texts)
    if not text:
        return False
    left = _GLYPH_NAME.sub("", text)
    good = len(left) if left.isascii() and left.isprintable() else sum(_is_real(c) for c in left)
    return good >= REAL * len(text)


def _is_real(character: str) -> bool:
    return character != "\ufffd" and unicodedata.category(character) not in ("Co", "Cn", "Cc", "Cs")


def blank(image: np.ndarray) -> bool:
    """Whether the picture (H, W, 3) uint8 is of one grey, to 8 of 255 in cells of 8 x 8 pixels: nothing to read."""
    grey = Image.fromarray(image).convert("L")
    cells = np.asarray(grey.reduce(_CELL) if min(grey.size) >= _CELL else grey)
    return int(cells.max()) - int(cells.min()) < 8


def on_ink(words: Words, image: np.ndarray) -> float:
    """Share of the picture's ink under the words' boxes, 1.0 for a blank picture. image: (H, W, 3) uint8.

    Ink: cells of 8 x 8 pixels that differ from the picture's median grey by 32 of 255 or more.
    """
    if min(image.shape[:2]) < _CELL:
        return 1.0
    grey = np.asarray(Image.fromarray(image).convert("L").reduce(_CELL), np.int16)
    ink = np.abs(grey - int(np.median(grey))) >= _CONTRAST
    total = int(ink.sum())
    if total == 0:
        return 1.0
    return float((ink & painted(words.boxes, ink.shape)).sum() / total)


def on_lines(words: Words, lines: np.ndarray, shape: tuple[int, int] = (256, 256)) -> float:
    """Share of the area of detected `lines` (n, 4) under the words' boxes, 1.0 where no line was detected."""
    found = painted(lines, shape)
    total = int(found.sum())
    return 1.0 if total == 0 else float((found & painted(words.boxes, shape)).sum() / total)


def painted(boxes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A mask (rows, columns) that is true under `boxes` (n, 4), fractions of the page."""
    mask = np.zeros(shape, bool)
    size = np.array([shape[1], shape[0]] * 2, np.float32)
    cells = np.clip(np.nan_to_num(boxes), 0, 1) * size
    cells[:, :2], cells[:, 2:] = np.floor(cells[:, :2]), np.ceil(cells[:, 2:])
    for x0, y0, x1, y1 in cells.astype(int).tolist():
        mask[y0:y1, x0:x1] = True
    return mask
