"""The reader of the box on pages that were laid askew on the scanner."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pymupdf
import pytest
from PIL import Image, ImageFilter

from retriever.encoders.box import BoxEncoder
from retriever.encoders.box.skew import skew, straightened, turned_back

TEXT = (
    "The board met on Tuesday to review the annual budget. Costs of energy rose by twelve per cent while the number of "
    "visitors fell. The treasurer proposed to close the eastern hall during winter and to sell two of the older buses. "
    "Members of the garden club planted forty apple trees behind the school. Volunteers will water them every evening."
)


def level() -> np.ndarray:
    """A page of three paragraphs at 150 dpi."""
    sheet = pymupdf.open().new_page(width=612, height=792)
    assert sheet.insert_textbox(pymupdf.Rect(56, 72, 556, 720), "\n\n".join([TEXT] * 3), fontsize=11) > 0
    pixels = sheet.get_pixmap(dpi=150)
    return np.frombuffer(pixels.samples, np.uint8).reshape(pixels.height, pixels.width, 3).copy()


def askew(image: np.ndarray, degrees: float) -> np.ndarray:
    turned = Image.fromarray(image).rotate(-degrees, Image.Resampling.BICUBIC, fillcolor=(255, 255, 255))
    return np.asarray(turned.filter(ImageFilter.GaussianBlur(0.8)))


@pytest.mark.parametrize("degrees", [-2.5, 1.0, 2.0])
def test_the_angle_is_found(degrees: float) -> None:
    ink = askew(level(), degrees)[::2, ::2, 0] < 128
    assert skew(ink) == pytest.approx(degrees, abs=0.15)


def test_level_and_empty_pages_are_left_as_they_are() -> None:
    assert skew(level()[::2, ::2, 0] < 128) == 0.0
    assert skew(np.zeros((50, 40), bool)) == 0.0
    assert skew(np.ones((300, 200), bool)) == 0.0


def test_a_page_askew_is_read_and_its_boxes_lie_on_it() -> None:
    reader = BoxEncoder(threads=1).reader
    page = level()
    read, true = reader.words(askew(page, 1.5)), reader.words(page)
    assert sum((Counter(read.texts) & Counter(TEXT.split() * 3)).values()) >= 0.97 * len(TEXT.split() * 3)
    size = np.array([page.shape[1], page.shape[0]] * 2)
    once = dict(zip(true.texts, true.boxes * size, strict=True))
    places = turned_back(np.array(list(once.values())), 1.5, page.shape[1], page.shape[0])
    found = dict(zip(read.texts, read.boxes * size, strict=True))
    far = [np.abs(found[text] - box).max() for text, box in zip(once, places, strict=True) if text in found]
    assert len(far) > 30
    assert np.median(far) < 6


def test_a_mark_returns_to_its_place() -> None:
    image = np.full((400, 300, 3), 255, np.uint8)
    image[100:104, 200:204] = 0
    y, x = np.nonzero(straightened(image, 3.0)[:, :, 0] < 128)
    (box,) = turned_back(np.array([[x.min(), y.min(), x.max() + 1, y.max() + 1]], float), 3.0, 300, 400)
    assert (box[:2] + box[2:]) / 2 == pytest.approx([202, 102], abs=1)
