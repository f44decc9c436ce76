"""The reader of the box on charts: labels along axes, labels askew, figures one below the other."""

from __future__ import annotations

import numpy as np
import pymupdf
import pytest

from ingest.page import Words
from retriever.encoders.box import BoxEncoder
from retriever.encoders.box.components import components
from retriever.encoders.box.reader import Reader
from retriever.encoders.box.slanted import Slanted, slanted

WIDTH, HEIGHT = 500, 360
MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August"]


@pytest.fixture(scope="module")
def reader() -> Reader:
    return BoxEncoder(threads=1).reader


def chart(labels: list[tuple[str, float, float, float]], size: float = 11) -> np.ndarray:
    """A chart of three lines at 150 dpi under a title; labels: text, x, y in points, degrees by which it rises."""
    sheet = pymupdf.open().new_page(width=WIDTH, height=HEIGHT)
    sheet.insert_text((120, 40), "Deposits by region in the last eight months", fontsize=15)
    sheet.draw_rect(pymupdf.Rect(90, 60, 470, 260), color=(0, 0, 0))
    for k, colour in enumerate([(0.8, 0.1, 0.1), (0.1, 0.3, 0.8), (0.1, 0.6, 0.3)]):
        sheet.draw_polyline([(90 + 38 * i, 100 + 45 * k + 9 * ((i * (k + 2)) % 4)) for i in range(11)], color=colour)
    for text, x, y, degrees in labels:
        point = pymupdf.Point(x, y)
        sheet.insert_text(point, text, fontsize=size, morph=(point, pymupdf.Matrix(degrees)))
    pixels = sheet.get_pixmap(dpi=150)
    return np.frombuffer(pixels.samples, np.uint8).reshape(pixels.height, pixels.width, 3).copy()


def place(words: Words, text: str) -> tuple[float, float]:
    """The centre of a word, in points."""
    x0, y0, x1, y1 = words.boxes[list(words.texts).index(text)].tolist()
    return (x0 + x1) / 2 * WIDTH, (y0 + y1) / 2 * HEIGHT


def test_labels_along_both_axes_are_read_where_they_stand(reader: Reader) -> None:
    words = reader.words(chart([("Revenue in million", 70, 220, 90), ("Percent of all loans", 482, 100, -90)]))
    assert {"Revenue", "million", "Percent", "loans"} <= set(words.texts)
    assert place(words, "Revenue")[1] > place(words, "million")[1] + 30
    assert place(words, "Percent")[1] < place(words, "loans")[1] - 30
    assert place(words, "Revenue") == pytest.approx((66, 198), abs=6)
    assert place(words, "Percent") == pytest.approx((486, 120), abs=6)


@pytest.mark.parametrize("degrees", [30, 45, 60, -45])
def test_labels_askew_are_read_where_they_stand(reader: Reader, degrees: float) -> None:
    y = 320 if degrees > 0 else 275
    words = reader.words(chart([(month, 100 + 45 * i, y, degrees) for i, month in enumerate(MONTHS)]))
    assert {"Deposits", "region", *MONTHS} <= set(words.texts)
    x, y = place(words, "March")
    half = pymupdf.get_text_length("March", fontsize=11) / 2
    turn = np.radians(degrees)
    at = np.array([190, 320 if degrees > 0 else 275]) + half * np.array([np.cos(turn), -np.sin(turn)])
    np.testing.assert_allclose([x, y], at, atol=7)


def test_a_chart_with_many_upright_labels_does_not_lie_on_its_side(reader: Reader) -> None:
    short = [("12.5", 60, 80, 0), ("10.0", 60, 170, 0), ("mm", 40, 180, 90)]
    words = reader.words(chart([(f"{month} 2023", 100 + 45 * i, 345, 90) for i, month in enumerate(MONTHS)] + short))
    assert words.texts[0] == "Deposits"
    assert {"region", "months", "12.5", "10.0", "mm", *MONTHS} <= set(words.texts)
    assert list(words.texts).count("2023") == 8


def test_small_light_print_on_a_dark_chart_is_read_as_its_negative_is(reader: Reader) -> None:
    image = chart([(f"{month} {800 + i}", 100 + 45 * i, 345, 90) for i, month in enumerate(MONTHS)], size=8)
    light, dark = reader.words(image), reader.words(255 - image)
    assert dark.texts == light.texts and set(MONTHS) <= set(dark.texts)
    np.testing.assert_array_equal(reader.lines(image), reader.lines(255 - image))


def test_what_was_taken_for_one_line_is_looked_at_again(reader: Reader) -> None:
    sheet = pymupdf.open().new_page(width=WIDTH, height=HEIGHT)
    for i in range(8):
        sheet.insert_text((200, 100 + 14 * i), str(1350 + 111 * i), fontsize=11)
    pixels = sheet.get_pixmap(dpi=150)
    image = np.frombuffer(pixels.samples, np.uint8).reshape(pixels.height, pixels.width, 3)
    column = np.array([[195 / WIDTH, 88 / HEIGHT, 230 / WIDTH, 202 / HEIGHT]], np.float32)
    words = reader.words(image, column)
    assert list(words.texts) == [str(1350 + 111 * i) for i in range(8)]


def test_bars_askew_are_told_from_blots_and_level_lines() -> None:
    mask = np.zeros((200, 300), bool)
    y, x = np.mgrid[:200, :300]
    along, across = ((x - 200) - (y - 120)) / np.sqrt(2), ((x - 200) + (y - 120)) / np.sqrt(2)
    mask |= (np.abs(along) < 50) & (np.abs(across) < 6)  # rises to the right
    mask[20:30, 20:120] = mask[100:180, 20:30] = mask[40:70, 60:90] = True
    askew, bars = slanted(components(mask), (2.0, 2.0))
    assert askew.sum() == 1
    np.testing.assert_allclose(bars[0], [401, 241, 200, 24, -45], atol=2)


def test_a_slanted_line_is_cut_level() -> None:
    image = np.full((300, 300, 3), 255, np.uint8)
    y, x = np.mgrid[:300, :300]
    along, across = ((x - 150) - (y - 150)) / np.sqrt(2), ((x - 150) + (y - 150)) / np.sqrt(2)
    image[(np.abs(along) < 60) & (np.abs(across) < 5)] = 0
    image[(np.abs(along - 50) < 10) & (np.abs(across) < 5)] = (255, 0, 0)  # its end, at the top right
    line = Slanted(image, 150.5, 150.5, 140, 24, -45)
    cut = line.pixels()
    assert cut.shape == (24, 140, 3)
    assert cut[12, 40].max() < 60 and cut[12, 120].tolist()[0] > 200 and cut[12, 120, 1] < 60
    assert cut[2].min() > 200
    x0, y0, x1, y1 = (300 * np.array(line.box(0.75, 1.0))).tolist()
    assert (x0 + x1) / 2 == pytest.approx(150.5 + 52.5 / np.sqrt(2), abs=1) and (y0 + y1) / 2 < 120
