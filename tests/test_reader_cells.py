"""What stands alone in the cells of tables: signs of dollars and dashes."""

from __future__ import annotations

import numpy as np
import pymupdf
import pytest

from retriever.encoders.box import BoxEncoder
from retriever.encoders.box.cells import Cell, alone, dashes, dollars, without
from retriever.encoders.box.lines import Line

ROWS = [
    ("Interest income", "$", "1,204", "$", "—", "$", "(318)"),
    ("Trading revenue", "", "96", "", "—", "", "2,740"),
    ("Asset fees", "", "—", "", "1,377", "", "—"),
    ("Mortgage fees", "", "512", "", "—", "", "—"),
    ("Total revenue", "$", "1,812", "$", "1,377", "$", "2,422"),
]
RIGHT = (90, 250, 300, 360, 410, 470, 530)


@pytest.fixture(scope="module")
def encoder() -> BoxEncoder:
    return BoxEncoder(threads=1)


def table(size: float, rules: bool) -> np.ndarray:
    """ROWS at 150 dpi (H, W, 3), figures to the right, at times with a rule under each row."""
    sheet = pymupdf.open().new_page(width=612, height=260)
    writer, font = pymupdf.TextWriter(sheet.rect), pymupdf.Font("helv")
    for k, row in enumerate(ROWS):
        y = 60 + 2.2 * size * k
        for text, right in zip(row, RIGHT, strict=True):
            left = 50 if right == RIGHT[0] else right - font.text_length(text, size)
            if text:
                writer.append((left, y), text, font, size)
        if rules:
            sheet.draw_line((50, y + 0.8 * size), (530, y + 0.8 * size), width=0.6)
    writer.write_text(sheet)
    pixels = sheet.get_pixmap(dpi=150, alpha=False)
    return np.frombuffer(pixels.samples, np.uint8).reshape(pixels.height, pixels.width, 3)


@pytest.mark.parametrize("rules", [False, True])
@pytest.mark.parametrize("size", [8, 10])
def test_dashes_and_dollars_of_a_table(encoder: BoxEncoder, size: int, rules: bool) -> None:
    read = list(encoder.reader.words(table(size, rules)).texts)
    wanted = [word for row in ROWS for cell in row for word in cell.split()]
    assert read == wanted


def test_a_row_of_dashes_in_a_chart_is_none(encoder: BoxEncoder) -> None:
    sheet = pymupdf.open().new_page(width=612, height=260)
    for k in range(5):
        y = 50 + 40 * k
        sheet.insert_text((50, y + 3), f"{100 - 20 * k:,}.0", fontsize=9)
        sheet.insert_text((500, y + 3), f"{10 - 2 * k}.0", fontsize=9)
        sheet.draw_line((90, y), (480, y), width=0.8, dashes="[4 4]")
        sheet.draw_line((80, y), (88, y), width=0.8)  # a tick at the axis
    sheet.draw_line((88, 40), (88, 230), width=0.8)
    pixels = sheet.get_pixmap(dpi=150, alpha=False)
    image = np.frombuffer(pixels.samples, np.uint8).reshape(pixels.height, pixels.width, 3)
    assert "—" not in encoder.reader.words(image).texts


def test_what_passes_for_a_dollar_stands_before_a_figure_on_a_page_that_has_some() -> None:
    paper = np.full((400, 400, 3), 255, np.uint8)

    def line(x: int, y: int, text: str) -> Line:
        return Line(paper, x, y, x + 12 * len(text), y + 24)

    told = [(20, "$", 0.5), (60, "1,204", 0.99), (20, "S", 0.99), (60, "96", 0.99), (20, "s", 0.4), (200, "fees", 0.99)]
    cuts = [line(x, 20 + 40 * (k // 2), text) for k, (x, text, _) in enumerate(told)]
    read = [alone(text)._replace(confidence=sure) for _, text, sure in told]
    assert [one.text for one in dollars(cuts, read)] == ["$", "1,204", "$", "96", "s", "fees"]
    pounds = [one._replace(text=one.text.replace("$", "£")) for one in read]
    assert [one.text for one in dollars(cuts, pounds)] == ["£", "1,204", "S", "96", "s", "fees"]


def test_a_one_that_is_a_dash_goes() -> None:
    paper = np.full((200, 200, 3), 255, np.uint8)
    one, two = Line(paper, 100, 20, 110, 44), Line(paper, 100, 60, 110, 84)
    dash = Cell(0, Line(paper, 100, 20, 112, 44), alone("—"))
    placed = [(0, one, alone("1")), (1, two, alone("1"))]
    assert without(placed, [dash]) == placed[1:]
    assert dashes([], []) == []
