"""What `hangul.spaces` weighs what is told of neighbouring characters by, fitted to pages.

    python -m retriever.training.reader.spaces --debs DEBS [--pages 160]

Paragraphs of libreoffice-help-ko and `lines.MORE` that nothing else is trained on are set in pages, of which half are
worn as scans are, and read by the encoder in the box; a logistic regression each, with a little ridge, for neighbours
that are both Hangul and for others. Prints both, with how many were wrong as they were read and as they are told. Some
five CPU-minutes.
"""

from __future__ import annotations

import argparse
import difflib
import html
import io
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pymupdf

from retriever.encoders.box import BoxEncoder, ctc
from retriever.encoders.box.hangul import between, spaces
from retriever.training.box.pages import spoilt
from retriever.training.reader import lines

_RIDGE = 0.01
_PARAGRAPHS = 30  # a page; what does not fit is left out
_SAME = 0.7  # of a line's characters, found in the text that it is of


def document(texts: Sequence[str], font: Path, chance: random.Random) -> bytes:
    """A PDF of one page, of paragraphs in a font of 9 to 12 points, in lines of some width."""
    archive, held = pymupdf.Archive(), io.BytesIO()
    archive.add(font.read_bytes(), name := f"font{font.suffix}")
    aligned = chance.choice(("left", "justify"))
    css = f"@font-face {{font-family: one; src: url({name});}} p {{font-family: one; text-align: {aligned}; "
    css += f"font-size: {chance.uniform(9, 12)}pt; line-height: {chance.uniform(1.3, 1.7)};}}"
    story = pymupdf.Story("".join(f"<p>{html.escape(text)}</p>" for text in texts), css, archive=archive)
    writer = pymupdf.DocumentWriter(held)
    device = writer.begin_page(pymupdf.paper_rect("a4"))
    story.place(pymupdf.Rect(50, 50, chance.uniform(280, 545), 790))
    story.draw(device)
    writer.end_page()
    writer.close()
    return held.getvalue()


def told(page: str, text: Sequence[str], pairs: list[tuple[int, int]]) -> list[bool | None]:
    """Whether a `page` has a space between neighbours in a reading of a line of it; None where that is not known."""
    true = "".join(page.split())
    spaced = [after == " " for c, after in zip(page, page[1:] + " ", strict=True) if c != " "]
    letters = [i for i, c in enumerate(text) if c != " "]
    match = difflib.SequenceMatcher(None, true, [text[i] for i in letters], False)
    longest = match.find_longest_match()
    start = max(0, longest.a - longest.b - len(letters))
    match.set_seq1(true[start : start + 3 * len(letters)])
    at = {letters[its + j]: start + mine + j for mine, its, many in match.get_matching_blocks() for j in range(many)}
    known = len(at) >= _SAME * len(letters)
    return [spaced[at[i]] if known and i in at and at.get(k) == at[i] + 1 else None for i, k in pairs]


def fitted(tells: np.ndarray, spaced: np.ndarray) -> np.ndarray:
    """The weights (f,) of a logistic regression of `spaced` (n,) bool on `tells` (n, f), by Newton's method."""
    weights = np.zeros(tells.shape[1])
    for _ in range(60):
        likely = 1 / (1 + np.exp(-np.clip(tells @ weights, -30, 30)))
        slope = tells.T @ (likely - spaced) + _RIDGE * weights
        bend = (tells * (likely * (1 - likely))[:, None]).T @ tells + _RIDGE * np.eye(len(weights))
        weights = weights - np.linalg.solve(bend, slope)
    return weights


def main() -> None:
    """Reads pages, prints the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--debs", type=Path, required=True, help="folder of the .deb files")
    parser.add_argument("--pages", type=int, default=160)
    given = parser.parse_args()
    reader, chance = BoxEncoder(threads=1).reader, random.Random(0)
    texts = [text for text in lines.texts_of(given.debs, "ko") if lines.held_out(text) and not text.isascii()]
    fonts = lines.Fonts().of("ko")
    heard: list[Any] = []

    def listening(*asked: Any) -> tuple[list[int], list[int]] | None:
        heard.append(asked)
        return spaces(*asked)

    ctc.spaces = listening  # type: ignore[assignment]
    found: dict[bool, list[tuple[np.ndarray, bool]]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder:
        for n in range(given.pages):
            some = [" ".join(text.split()) for text in chance.choices(texts, k=_PARAGRAPHS)]
            (path := Path(folder, "page.pdf")).write_bytes(document(some, Path(chance.choice(fonts)[0]), chance))
            heard.clear()
            if n % 2:
                reader.words(spoilt(path, 0, n))
            else:
                pixels = pymupdf.open(path)[0].get_pixmap(dpi=150)
                reader.words(np.frombuffer(pixels.samples, np.uint8).reshape(pixels.height, pixels.width, 3))
            for asked in heard:
                pairs, tells, inner = between(*asked)
                for tell, both, space in zip(tells, inner, told(" ".join(some), asked[0], pairs), strict=True):
                    if space is not None:
                        found[bool(both)].append((tell, space))
            sys.stderr.write(f"\r{n + 1} pages")
    for both, rows in found.items():
        tells, spaced = np.stack([tell for tell, _ in rows]), np.array([space for _, space in rows])
        weights = fitted(tells, spaced)
        wrong = [int((guess != spaced).sum()) for guess in (tells[:, 3] > 0, tells @ weights > 0)]
        row = {"hangul": both, "neighbours": len(rows), "wrong": wrong, "weights": weights.round(2).tolist()}
        sys.stdout.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
