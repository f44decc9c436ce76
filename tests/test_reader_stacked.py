"""Pages written from top to bottom, columns from right to left: Japanese and Chinese as in books and newspapers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pymupdf
import pytest

from retriever.encoders.box import BoxEncoder
from retriever.encoders.box.ctc import Read
from retriever.encoders.box.reader import Reader
from retriever.encoders.box.stacked import restored, strip

JAPANESE = [
    "委員会は火曜日に会議を開き来年度の予算について検討しました",
    "エネルギーのコストが上がり訪れる人は少なくなっています",
    "東の会館は冬のあいだ閉めて古いバスを二台売ることになった",
    "学校の裏にはりんごの木が植えられ毎晩みんなで水をやります",
]
CHINESE = [
    "委员会于星期二召开会议审议下一年度的预算",
    "能源费用上升了百分之十二来访人数有所下降",
    "学校后面种下了四十棵苹果树每天晚上都要浇水",
    "东边的会馆冬天关闭并且卖掉两辆旧的公共汽车",
]


@pytest.fixture(scope="module")
def reader() -> Reader:
    return BoxEncoder(threads=1).reader


def page(columns: list[str], figures: str = "", size: float = 12) -> np.ndarray:
    """A page of `columns` from top to bottom, the first on the right, at 150 dpi; `figures` lie below the first."""
    sheet, font = pymupdf.open().new_page(width=420, height=595), pymupdf.Font("cjk")
    writer = pymupdf.TextWriter(sheet.rect)
    for i, column in enumerate(columns):
        for k, character in enumerate(column):
            writer.append((360 - 2 * size * i, 60 + 1.1 * size * k), character, font, size)
    writer.write_text(sheet)
    below = pymupdf.Point(360 + 0.15 * size, 60 + 1.1 * size * len(columns[0]) - 0.7 * size)
    sheet.insert_text(below, figures, fontname="helv", fontsize=size, rotate=270)
    pixels = sheet.get_pixmap(dpi=150)
    return np.frombuffer(pixels.samples, np.uint8).reshape(pixels.height, pixels.width, 3).copy()


def recall(true: str, read: str) -> float:
    return sum((Counter(true) & Counter(read)).values()) / len(true)


@pytest.mark.parametrize(("columns", "marks"), [(JAPANESE, "火訪冬学"), (CHINESE, "星能学东")])
def test_columns_from_top_to_bottom_are_read_from_right_to_left(reader: Reader, columns: list[str], marks: str) -> None:
    words = reader.words(page(columns))
    assert recall("".join(columns), words.text.replace(" ", "")) >= 0.93
    in_turn = [words.text.index(mark) for mark in marks]
    assert in_turn == sorted(in_turn)
    assert (np.diff(words.boxes[:, 0]) < 0.01).all() and (np.ptp(words.boxes[:, [0, 2]], axis=1) < 0.06).all()


def test_figures_that_lie_in_such_a_column_are_read(reader: Reader) -> None:
    words = reader.words(page(JAPANESE, "1,489,161"))
    assert "1,489,161" in words.text
    assert recall("".join(JAPANESE), words.text) >= 0.93


@pytest.mark.parametrize("turns", [1, 3])
def test_a_page_scanned_on_its_side_is_not_taken_for_one(reader: Reader, turns: int) -> None:
    sheet = pymupdf.open().new_page(width=595, height=420)
    rect = pymupdf.Rect(56, 50, 540, 400)
    sheet.insert_htmlbox(rect, "".join(f"<p>{c}</p>" for c in JAPANESE), css="* {font-size: 12pt}")
    pixels = sheet.get_pixmap(dpi=150)
    image = np.frombuffer(pixels.samples, np.uint8).reshape(pixels.height, pixels.width, 3)
    words = reader.words(np.ascontiguousarray(np.rot90(image, turns)))
    assert recall("".join(JAPANESE), words.text.replace(" ", "")) >= 0.93
    places = [words.text.index(said) for said in ("火", "ギー", "冬", "学校")]
    assert places == sorted(places)


def test_lines_that_are_none_are_left_as_they_are() -> None:
    white = np.full((30, 400, 3), 255, np.uint8)
    assert strip(white, Read("a line in Latin", 0.9, [], 2.0, np.linspace(0, 1, 15).tolist())) is None
    assert strip(white, Read("委员会", 0.9, [], 2.0, [0.1, 0.5, 0.9])) is None
    assert strip(white, Read("委员会于星期", 0.9, [], 2.0, np.linspace(0.1, 0.9, 6).tolist())) is None  # no ink


def test_what_is_read_in_a_strip_lies_where_it_was_in_the_line() -> None:
    line = np.full((40, 420, 3), 255, np.uint8)
    for k in range(10):
        line[8:32, 13 + 40 * k : 37 + 40 * k] = 0
    centres = [(25 + 40 * k) / 420 for k in range(10)]
    made = strip(line, Read("委员会于星期二召开会", 0.9, [], 2.0, centres))
    assert made is not None and made.image.shape == (52, 10 * 44 + 16, 3)
    told = restored(Read("コンクリ1トで°", 0.9, [("コンクリ1トで°", 8 / 456, 448 / 456)], 2.0, []), made)
    assert told.text == "コンクリートで。"
    (word,) = told.words
    assert word[0] == "コンクリートで。" and abs(word[1] - 13 / 420) < 0.01 and abs(word[2] - 397 / 420) < 0.01
