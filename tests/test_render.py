"""Pages come back right: colours, sizes, words on their ink, titles, passwords, and the next one drawn meanwhile."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pymupdf
import pytest

from ingest.document import Limits, PageFailure, RenderError
from ingest.page import Page, Words
from ingest.render import Renderer, blank
from ingest.sources import content_id, open_source

sys.path.insert(0, str(Path(__file__).parent))
import hostile
from rendering import BACKENDS, made, numbered, opened, text


@pytest.fixture(scope="module", params=BACKENDS)
def renderer(request: pytest.FixtureRequest) -> Iterator[Renderer]:
    with Renderer(backend=request.param) as made:
        yield made


# What a page looks like


def test_colours_size_and_words(renderer: Renderer) -> None:
    def draw(document: Any) -> None:
        page = document[0]
        page.draw_rect((0, 0, 200, 300), color=None, fill=(1, 0, 0))
        page.draw_rect((200, 300, 400, 600), color=None, fill=(0, 0, 1))
        page.insert_text((40, 450), "Octavo finds pages", fontsize=20)

    with opened(renderer, made(draw)) as document:
        page = renderer.render(document, 1, dpi=144)
        assert document.pages == 1
    assert isinstance(page, Page)
    assert (page.number, page.width, page.height) == (1, 400, 600)
    assert page.image.shape == (1200, 800, 3)
    assert page.image.dtype == np.uint8
    assert page.image.flags.c_contiguous
    for (y, x), colour in {(10, 10): (255, 0, 0), (1190, 790): (0, 0, 255), (10, 790): (255, 255, 255)}.items():
        assert tuple(page.image[y, x]) == colour
    assert list(page.words.texts) == ["Octavo", "finds", "pages"]
    assert page.words.boxes.dtype == np.float32
    font = pymupdf.Font("helv")
    left = 40.0
    for word, box in zip(page.words.texts, page.words.boxes, strict=True):
        wide = font.text_length(word, 20)
        assert box[[0, 2]] == pytest.approx([left / 400, (left + wide) / 400], abs=0.004)
        left += font.text_length(word + " ", 20)
        assert 425 / 600 < box[1] < 438 / 600
        assert 450 / 600 < box[3] < 458 / 600
    assert not blank(page)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_boxes_lie_on_the_ink_of_turned_and_cropped_pages(renderer: Renderer, rotation: int) -> None:
    def draw(document: Any) -> None:
        page = document[0]
        page.insert_text((120, 200), "alpha", fontsize=18)
        page.insert_text((200, 420), "omega", fontsize=30)
        page.insert_text((10, 20), "outside", fontsize=12)
        page.draw_rect((100, 150, 110, 160), color=None, fill=(1, 0, 0))
        page.set_cropbox((100, 150, 350, 500))
        page.set_rotation(rotation)

    with opened(renderer, made(draw)) as document:
        page = renderer.render(document, 1, dpi=72)
    assert isinstance(page, Page)
    assert (page.width, page.height) == ((250, 350) if rotation % 180 == 0 else (350, 250))
    assert page.image.shape[:2] == (page.height, page.width)
    corner = {0: (5, 5), 90: (5, -5), 180: (-5, -5), 270: (-5, 5)}[rotation]
    assert tuple(page.image[corner]) == (255, 0, 0)
    assert sorted(page.words.texts) == ["alpha", "omega"], "what is outside the crop box is not on the page"
    ink = page.image.max(axis=2) < 128
    for box in page.words.boxes:
        x0, y0, x1, y1 = (box * [page.width, page.height, page.width, page.height]).round().astype(int)
        assert ink[y0:y1, x0:x1].mean() > 0.08
        ink[max(y0 - 2, 0) : y1 + 2, max(x0 - 2, 0) : x1 + 2] = False
    assert ink.sum() == 0, "no ink but under the boxes"


def test_annotations_and_form_fields_are_drawn(renderer: Renderer) -> None:
    def draw(document: Any) -> None:
        page = document[0]
        note = page.add_rect_annot((50, 50, 150, 150))
        note.set_colors(fill=(0, 1, 0), stroke=(0, 1, 0))
        note.update()
        field = pymupdf.Widget()
        field.field_type, field.field_name, field.field_value = pymupdf.PDF_WIDGET_TYPE_TEXT, "name", "filled"
        field.rect, field.fill_color, field.text_fontsize = pymupdf.Rect(200, 200, 350, 240), (1, 1, 0), 20
        page.add_widget(field)

    with opened(renderer, made(draw)) as document:
        page = renderer.render(document, 1, dpi=72)
    assert isinstance(page, Page)
    assert tuple(page.image[100, 100]) == (0, 255, 0)
    assert tuple(page.image[236, 340]) == (255, 255, 0)
    assert (page.image[205:235, 200:270].max(axis=2) < 100).any(), "the field's text is drawn"


@pytest.mark.parametrize(
    "side, size, seen",
    [(612, 0.7, False), (612, 3.0, True), (3000, 0.7, False), (3000, 3.0, True), (60, 0.7, True), (60, 0.05, False)],
)
def test_words_too_small_to_be_read_are_no_words(renderer: Renderer, side: float, size: float, seen: bool) -> None:
    def draw(document: Any) -> None:
        page = document.new_page(width=side, height=side)
        page.insert_text((side / 6, side / 3), "Harbour", fontsize=side / 30)
        page.insert_text((side / 6, side / 2), "buy-at-Acme", fontsize=size, color=(1, 1, 1))
        page.insert_text((side / 6, side / 2), "sideways", fontsize=size, rotate=90)

    with opened(renderer, made(draw)) as document:
        words = renderer.render(document, 2).words  # type: ignore[union-attr]
    assert list(words.texts) == (["Harbour", "buy-at-Acme", "sideways"] if seen else ["Harbour"])


def test_words_hold_no_white_space(renderer: Renderer) -> None:
    with opened(
        renderer, made(lambda document: document[0].insert_text((40, 100), "Stra\u00dfe non\u00a0breaking"))
    ) as document:
        words = renderer.render(document, 1).words  # type: ignore[union-attr]
    assert list(words.texts) == ["Stra\u00dfe", "non", "breaking"]
    assert words.boxes[1, 2] <= words.boxes[2, 0] + 0.01


@pytest.mark.parametrize(
    ("width", "height", "dpi", "max_pixels", "size"),
    [
        (595, 842, 150, None, (1240, 1754)),
        (595, 842, 600, None, (1681, 2379)),
        (595, 842, 150, 500_000, (594, 841)),
        (14_400, 14_400, 150, None, (2000, 2000)),
        (100, 4900, 300, None, (84, 4096)),
        (595, 842, 36, None, (298, 421)),
        (3, 3, 1, None, (1, 1)),
    ],
)
def test_sizes_are_capped(
    renderer: Renderer,
    width: int,
    height: int,
    dpi: int,
    max_pixels: int | None,
    size: tuple[int, int],
) -> None:
    with opened(renderer, hostile.page(b"", box=b"[0 0 %d %d]" % (width, height))) as document:
        page = renderer.render(document, 1, dpi=dpi, max_pixels=max_pixels)
    assert isinstance(page, Page)
    assert page.image.shape[1::-1] == pytest.approx(size, abs=1)
    assert page.image.shape[0] * page.image.shape[1] <= (max_pixels or 4_000_000)
    assert blank(page)


def test_slivers_are_refused(renderer: Renderer) -> None:
    with opened(renderer, hostile.page(b"", box=b"[0 0 10 501]")) as document:
        assert renderer.render(document, 1) == PageFailure(
            1, "oversize", "the page measures 10 x 501: longer than 50 to 1"
        )


def test_a_number_or_dpi_that_is_none(renderer: Renderer) -> None:
    with opened(renderer, numbered(2)) as document:
        for number in (0, 3, -1):
            with pytest.raises(ValueError, match="pages 1 to 2"):
                renderer.render(document, number)
        with pytest.raises(ValueError, match="dpi is 0"):
            renderer.prefetch(document, 1, dpi=0)


def test_title_and_content(renderer: Renderer, tmp_path: Path) -> None:
    title = "  Annual\n report\x07[31m \u202e2024\u00a0e\u0301 "
    data = made(lambda document: document.set_metadata({"title": title}))
    with opened(renderer, data) as document:
        assert document.title == "Annual report[31m 2024 \u00e9"
        assert document.content == hashlib.blake2b(data, digest_size=16).hexdigest()
    (tmp_path / "again").write_bytes(data)
    fd = open_source(tmp_path / "again")
    assert content_id(fd) == document.content
    os.close(fd)
    with opened(renderer, numbered(1)) as document:
        assert document.title == ""


def test_encrypted(renderer: Renderer) -> None:
    both = {"encryption": pymupdf.PDF_ENCRYPT_AES_256, "owner_pw": "owner", "user_pw": "us\u00e9r"}
    locked = made(lambda document: document[0].insert_text((50, 50), "hidden"), **both)
    with pytest.raises(RenderError, match="asks for a password: give it with --password") as missing:
        opened(renderer, locked)
    with pytest.raises(RenderError, match="password given with --password does not open") as wrong:
        opened(renderer, locked, password="guess")
    with pytest.raises(RenderError, match="password given with --password does not open"):
        opened(renderer, locked, password="\udcff")
    assert missing.value.state == wrong.value.state == "encrypted"
    for password in ("us\u00e9r", "owner"):
        with opened(renderer, locked, password=password) as document:
            assert text(renderer.render(document, 1)) == "hidden"
            assert password not in repr(document)
    owner = {"encryption": pymupdf.PDF_ENCRYPT_AES_128, "owner_pw": "owner", "permissions": 0}
    free = made(lambda document: document[0].insert_text((50, 50), "open"), **owner)
    for given_anyway in (None, "whatever"):
        with opened(renderer, free, password=given_anyway) as document:
            assert text(renderer.render(document, 1)) == "open"


def test_more_pages_than_the_limit() -> None:
    with Renderer(limits=Limits(max_pages=3)) as renderer:
        with opened(renderer, numbered(5)) as document:
            assert (document.pages, document.truncated) == (3, True)
            assert [text(page) for page in renderer.pages(document)] == ["number 1", "number 2", "number 3"]
        with opened(renderer, numbered(3)) as document:
            assert (document.pages, document.truncated) == (3, False)


def test_blank() -> None:
    def page(image: np.ndarray, *words: str) -> Page:
        return Page(1, image, Words(words, np.zeros((len(words), 4), np.float32)), 9, 9)

    white = np.full((50, 40, 3), 255, np.uint8)
    specked = white.copy()
    specked[20, 20] = 200
    noisy = white - np.arange(6000, dtype=np.uint8).reshape(50, 40, 3) % 7
    assert blank(page(white))
    assert blank(page(noisy))
    assert blank(page(white * 0 + np.array([255, 230, 200], np.uint8)))
    assert not blank(page(specked))
    assert not blank(page(white, "hidden"))
    for height in (256, 300, 517):  # it is looked at strip by strip
        tall = np.full((height, 40, 3), 255, np.uint8)
        assert blank(page(tall))
        tall[-1] = 0
        assert not blank(page(tall))
    paling = np.full((800, 40, 3), np.linspace(255, 240, 800)[:, None, None], np.uint8)
    assert not blank(page(paling))


# One page ahead


def test_prefetch_gives_the_same_pages(renderer: Renderer) -> None:
    with opened(renderer, numbered(4)) as document, opened(renderer, numbered(2)) as other:
        alone = [renderer.render(document, number) for number in range(1, 5)]
        ahead = list(renderer.pages(document))
        for one, two in zip(alone, ahead, strict=True):
            assert isinstance(one, Page)
            assert isinstance(two, Page)
            assert (one.image == two.image).all()
            assert text(one) == text(two)
        renderer.prefetch(document, 2)
        renderer.prefetch(document, 3)  # one ahead: this does nothing
        assert text(renderer.render(document, 4)) == "number 4"
        renderer.prefetch(document, 2, dpi=72)
        assert renderer.render(document, 2, dpi=36).image.shape == (300, 200, 3)  # type: ignore[union-attr]
        renderer.prefetch(document, 1)
        assert text(renderer.render(other, 2)) == "number 2"
        assert text(renderer.render(document, 3)) == "number 3"
        renderer.prefetch(other, 1)
    with opened(renderer, numbered(1)) as document:
        assert text(renderer.render(document, 1)) == "number 1"


def test_drawing_goes_on_while_the_caller_works() -> None:
    def draw(document: Any) -> None:
        for page in document:
            for turn in range(50):
                page.draw_circle((200, 300), 9 + turn, fill=(turn / 50, 0, 0), fill_opacity=0.5)

    with Renderer() as renderer, opened(renderer, made(draw, 6)) as document:
        renderer.render(document, 1)
        start = time.perf_counter()
        renderer.render(document, 2)
        alone = time.perf_counter() - start
        times = []
        for number in (3, 4, 5, 6):
            renderer.prefetch(document, number)
            time.sleep(4 * alone)
            start = time.perf_counter()
            assert isinstance(renderer.render(document, number), Page)
            times.append(time.perf_counter() - start)
        assert min(times) < alone / 2


def test_fingerprint_and_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Renderer().fingerprint() == f"pymupdf {pymupdf.VersionBind}"
    with pytest.raises(ValueError, match="backend is 'poppler'; there are 'pymupdf', 'pdfium'"):
        Renderer(backend="poppler")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install octavo\[pdfium\]"):
        Renderer(backend="pdfium")
