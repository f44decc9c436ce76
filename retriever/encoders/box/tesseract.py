"""Pages in scripts that `reader` does not know, read by tesseract, where it is installed.

tesseract says which script a page is in and reads it, by the models of the script and of its languages that are
installed. It is given grey pixels and nothing of the file that they came from.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import defaultdict
from functools import cached_property

import numpy as np
from PIL import Image

from ingest.page import Words
from retriever.encoders.box.skew import unturned

LANGUAGES = {
    "Arabic": ("ara", "fas", "urd", "pus", "snd", "uig"),
    "Hebrew": ("heb", "yid"),
    "Thai": ("tha",),
    "Devanagari": ("hin", "mar", "nep", "san"),
    "Bengali": ("ben", "asm"),
    "Gujarati": ("guj",),
    "Gurmukhi": ("pan",),
    "Kannada": ("kan",),
    "Malayalam": ("mal",),
    "Oriya": ("ori",),
    "Sinhala": ("sin",),
    "Tamil": ("tam",),
    "Telugu": ("tel",),
    "Khmer": ("khm",),
    "Lao": ("lao",),
    "Myanmar": ("mya",),
    "Tibetan": ("bod", "dzo"),
    "Armenian": ("hye",),
    "Georgian": ("kat", "kat_old"),
    "Ethiopic": ("amh", "tir"),
}
"""Script, by the name that tesseract has for it -> the names of its models of languages in it."""
ENGLISH = "eng"
_BESIDE = ("Thai",)  # Arabic words become Latin ones (benchmarks/LOG.md)
_UNSPACED = ("Thai", "Khmer", "Lao", "Myanmar", "Tibetan")  # whose letters it gives one by one
_GAP = 0.9  # widths of a letter
_SECONDS = 120
_WORD = "5"  # level of a row of its table
_LEAST = 20  # of 100, that a word is believed
_CERTAIN = 1.0  # of a script, as it measures that: .4 and .7 where it took Thai for Latin, 1.3 at least where not
_WELL = 80.0  # of 100, mean of a page: 92 by the right script, 69 at most by others


class Tesseract:
    """The program, as it is installed. program: its path."""

    def __init__(self, program: str) -> None:
        self._program = program

    @cached_property
    def models(self) -> frozenset[str]:
        """The names of the models that are installed."""
        told = self._run(["--list-langs"], b"") or ""
        return frozenset(line.strip() for line in told.splitlines()[1:])

    @cached_property
    def version(self) -> str:
        """As it says, "5.3.0"; "" where it does not run."""
        found = re.match(r"tesseract v?(\S+)", self._run(["--version"], b"") or "")
        return found[1] if found else ""

    @property
    def scripts(self) -> list[str]:
        """The scripts that it can read here and `reader` cannot: none without the model that tells scripts."""
        return [script for script in LANGUAGES if self._models(script)] if "osd" in self.models else []

    def words(self, image: np.ndarray) -> Words | None:
        """The words of `image` (H, W, 3) uint8 in its reading order, of a page in one of `scripts`; else None.

        Where it is not certain of the script, all are tried, and the one that reads best is taken if it reads well.
        """
        if not self.scripts:
            return None
        told = self._run(["-", "-", "--psm", "0"], _pgm(image)) or ""
        found = re.search(r"^Rotate: (\d+)$.*^Script: (\w+)$.*^Script confidence: ([\d.]+)$", told, re.M | re.S)
        if not found:
            return None
        turns, certain = -int(found[1]) // 90 % 4, float(found[3]) >= _CERTAIN
        level = np.rot90(image, turns)
        read = [self._read(level, script) for script in self.scripts if script == found[2] or not certain]
        words, confidence = max(read, key=lambda one: one[1], default=(Words(), 0.0))
        if not (certain or confidence >= _WELL) or not len(words.texts):
            return None
        return Words(words.texts, unturned(words.boxes, turns))

    def _read(self, image: np.ndarray, script: str) -> tuple[Words, float]:
        """The words of a level page in a script, and the mean confidence of their letters, of 100."""
        table = self._run(["-", "-", "--psm", "3", "-l", "+".join(self._models(script)), "tsv"], _pgm(image)) or ""
        rows = rows_of(table)
        sure = sum(float(row[10]) * len(row[11]) for row in rows) / max(1, sum(len(row[11]) for row in rows))
        return parsed(rows, image.shape[1], image.shape[0], script in _UNSPACED), sure

    def _models(self, script: str) -> list[str]:
        """The models that read a script together: that of the script itself, which Debian keeps without a folder, and
        those of its languages; with them that of English, where the script's words are not taken for Latin ones."""
        found = [name for name in (f"script/{script}", script, *LANGUAGES.get(script, ())) if name in self.models]
        return [*found, ENGLISH] if found and script in _BESIDE and ENGLISH in self.models else found

    def _run(self, options: list[str], given: bytes) -> str | None:
        """What it prints; None where it fails or takes too long."""
        alone = {**os.environ, "OMP_THREAD_LIMIT": "1"}
        try:
            done = subprocess.run(
                [self._program, *options], input=given, capture_output=True, timeout=_SECONDS, env=alone, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.decode("utf-8", "replace")


def installed() -> Tesseract | None:
    """tesseract, where it is on the PATH."""
    program = shutil.which("tesseract")
    return Tesseract(program) if program else None


def rows_of(table: str) -> list[list[str]]:
    """The cells of the rows of words in tesseract's table, as `tsv` makes it."""
    return [cells for line in table.splitlines()[1:] if len(cells := line.split("\t")) == 12 and cells[0] == _WORD]


def parsed(rows: list[list[str]], width: int, height: int, joined: bool = False) -> Words:
    """The words in `rows` of a picture of so many pixels; boxes as fractions of it.

    joined: letters that stand closer than _GAP of the usual width of one in their line are one word.
    """
    widths: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for cells in rows:
        if not cells[11].isascii():
            widths[tuple(cells[:5])].append(float(cells[8]))
    usual = {line: float(np.median(some)) for line, some in widths.items()}
    texts: list[str] = []
    boxes: list[list[float]] = []
    last: tuple[str, ...] = ()
    for cells in rows:
        if float(cells[10]) < _LEAST or not (text := _bare(cells[11])):
            continue
        x, y, w, h = map(float, cells[6:10])
        line = tuple(cells[:5])
        letters = joined and line == last and not (texts[-1][-1] + text[0]).isascii()
        if letters and x - boxes[-1][2] < _GAP * usual[line]:
            texts[-1] += text
            boxes[-1] = [boxes[-1][0], min(y, boxes[-1][1]), max(x + w, boxes[-1][2]), max(y + h, boxes[-1][3])]
        else:
            texts.append(text)
            boxes.append([x, y, x + w, y + h])
        last = line
    return Words(texts, (np.array(boxes, np.float32).reshape(-1, 4) / ([width, height] * 2)).astype(np.float32))


def _bare(text: str) -> str:
    """Without the marks of direction that it puts into words."""
    return text.translate({0x200E: None, 0x200F: None}).strip()


def _pgm(image: np.ndarray) -> bytes:
    grey = Image.fromarray(image).convert("L")
    return b"P5 %d %d 255\n" % grey.size + grey.tobytes()
