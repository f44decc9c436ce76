"""Is the file's own text layer the text of the page, or must the picture be read, or a part of it?

Looks, each only when the one before leaves doubt: are the words made of real characters; are they likely ones, or else
what is read at their places; do they lie on all of the ink of the picture; if not, on which of the lines of text that
the detector finds there. So a scan under a stamped header is read, and a font that shows other letters than it names; a
page of photographs with a caption keeps its caption, and of a chart that is a picture the words are read too. A layer
of real characters also stays where the reader then finds less text than it holds.
"""

from __future__ import annotations

import re
import unicodedata
from difflib import SequenceMatcher

import numpy as np
from PIL import Image

from ingest.page import Words

REAL = 0.8
UNLIKELY = 4.8  # nats a character: 4.4 at most on pages of seven sets, 5.6 and more with letters shifted
AGREES = 0.5
LOOSE = 0.05  # share of ink beside the words: .03 at most on pages of text
COVERED = 0.5
_SEEN = 0.3
_SAMPLES, _SHORT, _LONG = 3, 12, 16
_CELL = 8
_STRIP = 32 * _CELL
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
    least, most = 255, 0
    for top in range(0, len(image), _STRIP):  # the first tells of most pages
        grey = Image.fromarray(image[top : top + _STRIP]).convert("L")
        cells = np.asarray(grey.reduce(_CELL) if min(image.shape[:2]) >= _CELL else grey)
        least, most = min(least, int(cells.min())), max(most, int(cells.max()))
        if most - least >= 8:
            return False
    return True


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


def under(words: Words, lines: np.ndarray, shape: tuple[int, int] = (512, 512)) -> tuple[float, np.ndarray]:
    """Share of the area of detected `lines` (n, 4) under the words' boxes, 1.0 where no line was detected, and which of
    them (n,) bool are not under any."""
    mask = painted(words.boxes, shape)
    sums = np.pad(mask.cumsum(0, dtype=np.int32).cumsum(1, dtype=np.int32), ((1, 0), (1, 0)))
    x0, y0, x1, y1 = _cells(lines, shape).T
    inside = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
    found = painted(lines, shape)
    total = int(found.sum())
    shares = inside / np.maximum((x1 - x0) * (y1 - y0), 1)
    return (1.0 if total == 0 else float((found & mask).sum() / total)), shares < _SEEN


def samples(words: Words) -> list[tuple[str, np.ndarray]]:
    """The beginnings of some lines of the layer, the longest first: their text and box (4,)."""
    lines: list[tuple[list[str], np.ndarray]] = []
    for text, box in zip(words.texts, words.boxes, strict=True):
        if lines:
            last = lines[-1][1]
            height = last[3] - last[1]
            level = abs(box[1] + box[3] - last[1] - last[3]) < height and box[0] >= last[2] - height
            if level and box[0] - last[2] < 2 * height:
                lines[-1][0].append(text)
                lines[-1] = lines[-1][0], np.concatenate([np.minimum(last[:2], box[:2]), np.maximum(last[2:], box[2:])])
                continue
        lines.append(([text], box))
    told = []
    for texts, box in lines:
        text = " ".join(texts)
        if len(text) >= _SHORT and sum(map(str.isalpha, text)) >= 0.6 * len(text):
            wide = box[2] - box[0] > box[3] - box[1]
            end = box[:2] + (box[2:] - box[:2]) * np.where([wide, not wide], min(1.0, _LONG / len(text)), 1)
            told.append((text[:_LONG], np.concatenate([box[:2], end])))
    return sorted(told, key=lambda line: -len(line[0]))[:_SAMPLES]


def known(text: str, characters: frozenset[str]) -> bool:
    """Whether at least nine tenths of the letters are among the reader's `characters`, or Chinese, Japanese, Korean."""
    letters = [c for c in text if c.isalpha()]
    return sum(c in characters or "\u3040" <= c <= "\ud7a3" for c in letters) >= 0.9 * len(letters)


def agree(text: str, read: str) -> bool:
    """Whether a line of the layer says what is read at its place, letters and digits, case ignored."""
    said, seen = ([c for c in unicodedata.normalize("NFKD", one).casefold() if c.isalnum()] for one in (text, read))
    return SequenceMatcher(None, said, seen, autojunk=False).ratio() >= AGREES


def painted(boxes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A mask (rows, columns) that is true under `boxes` (n, 4), fractions of the page."""
    mask = np.zeros(shape, bool)
    for x0, y0, x1, y1 in _cells(boxes, shape).tolist():
        mask[y0:y1, x0:x1] = True
    return mask


def _cells(boxes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The cells (n, 4) int that `boxes` touch, ends excluded."""
    cells = np.clip(np.nan_to_num(boxes), 0, 1) * np.array([shape[1], shape[0]] * 2, np.float32)
    cells[:, :2], cells[:, 2:] = np.floor(cells[:, :2]), np.ceil(cells[:, 2:])
    return cells.astype(int)
