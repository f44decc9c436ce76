"""Spaces that were missed, those that the page has not, and the gaps that tell them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pymupdf
import pytest

from retriever.encoders.box import BoxEncoder
from retriever.encoders.box.ctc import ctc
from retriever.encoders.box.spaces import gaps, missed_spaces


@pytest.fixture(scope="module")
def encoder() -> BoxEncoder:
    return BoxEncoder(threads=1)


def steps(text: str, apart: int) -> tuple[np.ndarray, list[str]]:
    """The classes of steps at which a character comes each `apart`, spaces half way between two; the characters."""
    characters = ["", *sorted(set(text))]
    best = np.zeros(apart * len(text.replace(" ", "")) + 1, int)
    at = 0
    for c in text:
        best[at - apart // 2 if c == " " else at] = characters.index(c)
        at += 0 if c == " " else apart
    return best, characters


def test_spaces_between_kana_are_those_of_the_page() -> None:
    best, characters = steps("こ とがよくあ る", 4)
    assert ctc(best, np.full(len(best), 0.9), characters, np.zeros((0, 2), int)).text == "ことがよくある"
    wide = np.concatenate([best[:23], np.zeros(5, int), best[23:]])  # before the last, a character's width more
    assert ctc(wide, np.full(len(wide), 0.9), characters, np.zeros((0, 2), int)).text == "ことがよくあ る"


def test_a_missed_space_is_seen_in_the_picture() -> None:
    text, centre = list("to be orNot to 12"), np.arange(17) * 20.0
    wide = [(50, 59), (110, 119), (210, 219)]
    narrow = [(20 * k + 9, 20 * k + 11) for k in (0, 3, 6, 8, 9, 15)]
    assert missed_spaces(text, centre[: len(text)], np.array(sorted(wide + narrow))) == []
    joined = list("to be orNot to it")
    spaces = [(35, 45), (95, 105), (210, 220), (270, 280)]
    marks = np.array(sorted([*spaces, (145, 155), *narrow]))
    assert missed_spaces(joined, centre, marks) == [8]
    framed = np.array([(-45, -10), (8, 11), (28, 31), (72, 95)])
    assert missed_spaces(list("0.8"), centre[:3], framed) == []  # gaps to the frame of a chart


MONOSPACED = (
    "For more information on it see <code>https://wiki.debian.org/systemd</code> and the files",
    "The service file <code>/lib/systemd/system/rc-local.service</code> provides an easy way",
)


@pytest.mark.parametrize("size", [9, 10, 11])
def test_monospaced_words_are_not_cut(encoder: BoxEncoder, size: int) -> None:
    sheet = pymupdf.open().new_page(width=612, height=200)
    css = f"* {{font-size: {size}pt; font-family: serif}} code {{font-family: monospace}}"
    sheet.insert_htmlbox(pymupdf.Rect(40, 40, 590, 190), "".join(f"<p>{line}</p>" for line in MONOSPACED), css=css)
    pixels = sheet.get_pixmap(dpi=150)
    image = np.frombuffer(pixels.samples, np.uint8).reshape(pixels.height, pixels.width, 3)
    told = " ".join(MONOSPACED).replace("<code>", "").replace("</code>", "")
    assert " ".join(encoder.reader.words(image).texts) == told


@pytest.mark.parametrize(
    ("read", "told"),
    [
        ("see https : //wiki .debian. org/a b", "see https://wiki.debian.org/a b"),
        ("at www .example.org. The end. of it", "at www.example.org. The end. of it"),
        ("deb http://a.org/ stable main", "deb http://a.org/ stable main"),
        ("the end. of https", "the end. of https"),
    ],
)
def test_addresses_have_no_spaces(read: str, told: str) -> None:
    best, characters = steps(read, 4)
    assert ctc(best, np.full(len(best), 0.9), characters, np.zeros((0, 2), int)).text == told


def test_spaces_no_wider_than_gaps_in_monospaced_words_are_none() -> None:
    best, characters = steps("to be a wo rd or not", 4)
    letters = np.flatnonzero(best)
    letters = letters[[characters[k] != " " for k in best[letters]]]
    middle = (letters[1:] + letters[:-1] + 1) * 4
    spaces = [i for i in range(len(middle)) if (best[letters[i] : letters[i + 1]] == characters.index(" ")).any()]
    widths = [16 if i in spaces and i != 6 else 6 for i in range(len(middle))]  # 6: that in "wo rd"
    gaps = np.array([(at - wide // 2, at + wide // 2) for at, wide in zip(middle.tolist(), widths, strict=True)])
    assert ctc(best, np.full(len(best), 0.9), characters, gaps).text == "to be a word or not"
    alike = np.array([(at - 8, at + 8 if i in spaces else at - 6) for i, at in enumerate(middle.tolist())])
    assert ctc(best, np.full(len(best), 0.9), characters, alike).text == "to be a wo rd or not"


def test_a_gap_beside_a_point_is_a_space_where_letters_are_not_monospaced() -> None:
    def missed(text: str, monospaced: int, apart: dict[str, int]) -> list[int]:
        width = [apart.get(pair, 11 if " " in pair else 2) for pair in map("".join, pairwise(text))]
        width[monospaced:] = [max(6, wide) for wide in width[monospaced:]]
        places = [(20 * i + 10 - wide // 2, wide) for i, wide in enumerate(width) if text[i] != " "]
        gaps = np.array([(start, start + wide) for start, wide in places])
        return missed_spaces(list(text), np.arange(len(text)) * 20.0, gaps)

    points = {"a.": 10, ".b": 10, "b.": 10, ".c": 10}
    assert missed("between another together.And then", 99, {".A": 10}) == [25]
    assert missed("between another together a.b.cdef", 26, points) == []


def test_gaps_lie_between_strokes() -> None:
    line = np.full((48, 60), 240, np.uint8)
    line[10:40, 5:9] = line[10:40, 20:24] = line[2:5, 12:14] = 30
    assert gaps(line).tolist() == [[9, 20]]
    assert gaps(np.full((48, 60), 240, np.uint8)).shape[1] == 2
