"""Pages come back right, and whatever a document does, the renderer goes on: values, states, limits, recovery."""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pymupdf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import answers, drawing, process, wire
from ingest.document import Limits, PageFailure, RenderError
from ingest.page import Page, Words
from ingest.render import Renderer, blank
from ingest.sources import content_id, open_source

sys.path.insert(0, str(Path(__file__).parent))
import hostile

BACKENDS = [
    "pymupdf",
    pytest.param(
        "pdfium",
        marks=pytest.mark.skipif(importlib.util.find_spec("pypdfium2") is None, reason="pypdfium2 is not installed"),
    ),
]
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
QUICK = Limits(page_seconds=1, first_page_seconds=1)


@pytest.fixture(scope="module", params=BACKENDS)
def renderer(request: pytest.FixtureRequest) -> Iterator[Renderer]:
    with Renderer(backend=request.param) as made:
        yield made


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., Any]:
    """opened(renderer, bytes, kind="pdf") -> document, from a file that is gone by then."""

    def open_bytes(renderer: Renderer, data: bytes, kind: str = "pdf", password: str | None = None) -> Any:
        path = tmp_path / "file"
        path.write_bytes(data)
        fd = open_source(path)
        try:
            return renderer.open(fd, kind, password=password)
        finally:
            os.close(fd)
            path.unlink()

    return open_bytes


def made(draw: Callable[[Any], None], pages: int = 1, width: float = 400, height: float = 600, **save: Any) -> bytes:
    with pymupdf.open() as document:
        for _ in range(pages):
            document.new_page(width=width, height=height)
        draw(document)
        return document.tobytes(**save)


def numbered(count: int) -> bytes:
    def draw(document: Any) -> None:
        for number, page in enumerate(document, 1):
            page.insert_text((50, 100), f"number {number}", fontsize=20)

    return made(draw, count)


def text(outcome: Page | PageFailure) -> str:
    assert isinstance(outcome, Page), outcome
    return outcome.words.text


# What a page looks like


def test_colours_size_and_words(renderer: Renderer, opened: Callable[..., Any]) -> None:
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
def test_boxes_lie_on_the_ink_of_turned_and_cropped_pages(
    renderer: Renderer, opened: Callable[..., Any], rotation: int
) -> None:
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


def test_annotations_and_form_fields_are_drawn(renderer: Renderer, opened: Callable[..., Any]) -> None:
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


def test_words_hold_no_white_space(renderer: Renderer, opened: Callable[..., Any]) -> None:
    with opened(
        renderer, made(lambda document: document[0].insert_text((40, 100), "Stra\u00dfe non\u00a0breaking"))
    ) as document:
        words = renderer.render(document, 1).words  # type: ignore[union-attr]
    assert list(words.texts) == ["Stra\u00dfe", "non", "breaking"]
    assert words.boxes[1, 2] <= words.boxes[2, 0] + 0.01


@pytest.mark.parametrize(
    ("raw", "texts"),
    [
        ("plain", ["plain"]),
        ("of\ufb01ce", ["office"]),
        ("e\u0301te\u0301", ["\u00e9t\u00e9"]),
        ("soft\u00adhyphen", ["softhyphen"]),
        ("\u202eevil\u202c\x00\x1b[31m", ["evil[31m"]),
        ("a\u3000b\u2003c\x85d\te", ["a", "b", "c", "d", "e"]),
        ("\ue000x\ud800\U000f0001\ufffe", ["\ufffdx\ufffd\ufffd\ufffd"]),
        ("\x01\u200b\ufeff", []),
        ("  ", []),
        ("\u0646\u0645\u06cc\u200c\u0634\u0648\u062f", ["\u0646\u0645\u06cc\u200c\u0634\u0648\u062f"]),
        ("x" * 1500, ["x" * 1000]),
    ],
)
def test_words_are_clean(raw: str, texts: list[str]) -> None:
    words = drawing.clean_words([(raw, (0.1, 0.2, 0.5, 0.3))])
    assert [word for word, _ in words] == texts
    if texts:
        assert words[0][1][:2] == (0.1, 0.2)
        assert words[-1][1][2:] == pytest.approx((0.5, 0.3))
        assert all(one[1][2] == two[1][0] for one, two in itertools.pairwise(words))


def test_words_off_the_page_are_dropped_and_their_number_is_bounded() -> None:
    nan = float("nan")
    boxes = [(-0.5, 0.1, 0.5, 0.2), (1.1, 0.1, 1.2, 0.2), (0.1, 0.2, 0.1, 0.3), (nan, 0, 1, 1), (0.9, 0.9, 9.0, 9.0)]
    kept = drawing.clean_words([("w", box) for box in boxes])
    assert kept == [("w", (0.0, 0.1, 0.5, 0.2)), ("w", (0.9, 0.9, 1.0, 1.0))]
    assert len(drawing.clean_words([("w", (0.0, 0.0, 1.0, 1.0))] * 30_000)) == drawing.MAX_WORDS
    long = drawing.clean_words([("w" * 1000, (0.0, 0.0, 1.0, 1.0))] * 3_000)
    assert sum(len(word) for word, _ in long) == drawing.MAX_TEXT


@given(
    width=st.floats(0.001, 1e9),
    height=st.floats(0.001, 1e9),
    scale=st.floats(0.01, 70),
    pixels=st.integers(1, 4_000_000),
    side=st.integers(1, 4096),
)
def test_any_page_fits(width: float, height: float, scale: float, pixels: int, side: int) -> None:
    caps = drawing.Caps(pixels, side, 50)
    if max(width / height, height / width) > 50:
        with pytest.raises(drawing.Failed, match="longer than 50 to 1"):
            drawing.fit(width, height, scale, caps)
        return
    width_px, height_px = drawing.fit(width, height, scale, caps)
    assert 1 <= width_px <= side
    assert 1 <= height_px <= side
    assert width_px * height_px <= pixels
    assert width_px <= width * scale + 1
    if min(width_px, height_px) > 50:
        assert width_px / height_px == pytest.approx(width / height, rel=0.04)


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
    opened: Callable[..., Any],
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


def test_slivers_are_refused(renderer: Renderer, opened: Callable[..., Any]) -> None:
    with opened(renderer, hostile.page(b"", box=b"[0 0 10 501]")) as document:
        assert renderer.render(document, 1) == PageFailure(
            1, "oversize", "the page measures 10 x 501: longer than 50 to 1"
        )


def test_a_number_or_dpi_that_is_none(renderer: Renderer, opened: Callable[..., Any]) -> None:
    with opened(renderer, numbered(2)) as document:
        for number in (0, 3, -1):
            with pytest.raises(ValueError, match="pages 1 to 2"):
                renderer.render(document, number)
        with pytest.raises(ValueError, match="dpi is 0"):
            renderer.prefetch(document, 1, dpi=0)


def test_title_and_content(renderer: Renderer, opened: Callable[..., Any], tmp_path: Path) -> None:
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


def test_encrypted(renderer: Renderer, opened: Callable[..., Any]) -> None:
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


def test_more_pages_than_the_limit(opened: Callable[..., Any]) -> None:
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


# Images


def test_images_of_all_kinds(renderer: Renderer, opened: Callable[..., Any]) -> None:
    from PIL import Image

    four = np.zeros((40, 60, 3), np.uint8)
    four[:20, :30], four[20:, :30], four[:20, 30:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    colours = Image.fromarray(four)
    upright = {(0, 0): (255, 0, 0), (-1, 0): (0, 255, 0), (0, -1): (0, 0, 255), (-1, -1): (0, 0, 0)}
    turned = {(0, 0): (0, 255, 0), (-1, 0): (0, 0, 0), (0, -1): (255, 0, 0), (-1, -1): (0, 0, 255)}
    exif = Image.Exif()
    exif[0x0112] = 6
    cases: dict[str, tuple[bytes, str, dict[tuple[int, int], tuple[int, int, int]], tuple[float, float]]] = {
        "png": (saved(colours, "png", dpi=(144, 144)), "png", upright, (30, 20)),
        "webp": (saved(colours, "webp", lossless=True), "webp", upright, (60, 40)),
        "jpeg": (saved(colours, "jpeg", quality=95, subsampling=0, dpi=(72, 144)), "jpeg", upright, (60, 20)),
        "cmyk": (saved(colours.convert("CMYK"), "jpeg", quality=95, subsampling=0), "jpeg", upright, (60, 40)),
        "palette": (saved(colours.convert("P"), "png"), "png", upright, (60, 40)),
        "turned jpeg": (
            saved(colours, "jpeg", quality=95, subsampling=0, dpi=(72, 144), exif=exif), "jpeg", turned, (20, 60)
        ),
        "turned png": (saved(colours, "png", exif=exif), "png", turned, (40, 60)),
        "turned tiff": (saved(colours, "tiff", exif=exif), "tiff", turned, (40, 60)),
    }  # fmt: skip
    for name, (data, kind, corners, points) in cases.items():
        with opened(renderer, data, kind) as document:
            page = renderer.render(document, 1, dpi=7)
        assert isinstance(page, Page), name
        assert page.image.shape == ((40, 60, 3) if corners is upright else (60, 40, 3)), name
        for place, colour in corners.items():
            assert page.image[place].astype(int) == pytest.approx(colour, abs=3), name
        assert (page.width, page.height, len(page.words)) == (*points, 0), name


def saved(image: Any, kind: str, **options: Any) -> bytes:
    import io

    held = io.BytesIO()
    image.save(held, kind, **options)
    return held.getvalue()


def test_image_depths_and_transparency(renderer: Renderer, opened: Callable[..., Any]) -> None:
    from PIL import Image

    ramp = np.linspace(0, 65535, 2400).reshape(40, 60)
    clear = Image.new("P", (60, 40), 0)
    clear.putpalette([9, 9, 9] + [0] * 765)
    cases = {
        "16 bit png": (Image.fromarray(ramp.astype(np.uint16)), "png", {}, (0, 255)),
        "16 bit tiff": (Image.fromarray(ramp.astype(np.uint16)), "tiff", {}, (0, 255)),
        "float tiff": (Image.fromarray((ramp / 65535).astype(np.float32)), "tiff", {}, (0, 255)),
        "1 bit": (Image.fromarray(ramp > 32768), "tiff", {"compression": "group4"}, (0, 255)),
        "grey": (Image.fromarray((ramp / 257).astype(np.uint8)), "webp", {"lossless": True}, (0, 255)),
        "clear": (Image.new("RGBA", (60, 40), (255, 0, 0, 0)), "png", {}, (255, 255)),
        "half clear": (Image.new("LA", (60, 40), (0, 127)), "png", {}, (128, 128)),
        "clear palette": (clear, "png", {"transparency": 0}, (255, 255)),
    }
    for name, (image, kind, options, ends) in cases.items():
        with opened(renderer, saved(image, kind, **options), kind) as document:
            page = renderer.render(document, 1)
        assert isinstance(page, Page), name
        assert [int(page.image[0, 0, 1]), int(page.image[-1, -1, 1])] == pytest.approx(ends, abs=1), name


def test_frames(renderer: Renderer, opened: Callable[..., Any]) -> None:
    from PIL import Image

    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    with opened(renderer, saved(frames[0], "tiff", save_all=True, append_images=frames[1:]), "tiff") as document:
        assert document.pages == 3
        shown = [tuple(page.image[0, 0]) for page in renderer.pages(document, [3, 1, 2])]  # type: ignore[union-attr]
    assert shown == [(0, 0, 255), (255, 0, 0), (0, 255, 0)]
    moving = saved(frames[0], "webp", save_all=True, append_images=frames[1:], lossless=True)
    with opened(renderer, moving, "webp") as document:
        assert document.pages == 1
        assert tuple(renderer.render(document, 1).image[0, 0]) == (255, 0, 0)  # type: ignore[union-attr]


def test_images_become_smaller_and_never_larger(renderer: Renderer, opened: Callable[..., Any]) -> None:
    for kind in ("png", "jpeg"):
        with opened(renderer, hostile.picture(kind, (6000, 3000)), kind) as document:
            page = renderer.render(document, 1, dpi=4800, max_pixels=500_000)
            assert page.image.shape == (500, 1000, 3)  # type: ignore[union-attr]
            page = renderer.render(document, 1, dpi=1)
            assert page.image.shape == (1414, 2828, 3)  # type: ignore[union-attr]
            assert (page.width, page.height) == (6000, 3000)  # type: ignore[union-attr]


# Limits and recovery


def outcome(renderer: Renderer, opened: Callable[..., Any], data: bytes, kind: str) -> str:
    try:
        with opened(renderer, data, kind) as document:
            page = renderer.render(document, 1)
            return page.state if isinstance(page, PageFailure) else "page"
    except RenderError as error:
        assert error.reason
        return error.state


HARMLESS = [name for name in hostile.OUTCOMES if "timeout" not in hostile.OUTCOMES[name]]


def test_damaged_files_end_in_a_state(renderer: Renderer, opened: Callable[..., Any]) -> None:
    from ingest.sources import sniff

    for name, data in hostile.files(HARMLESS).items():
        kind = sniff(data[:1024]) or ("pdf" if name.endswith(".pdf") else "")
        state = outcome(renderer, opened, data, kind)
        assert state in hostile.OUTCOMES[name] or (state, renderer.backend) == ("page", "pdfium"), (name, state)
    assert outcome(renderer, opened, hostile.good(), "pdf") == "page"


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_hostile_files_end_in_a_state(backend: str, opened: Callable[..., Any]) -> None:
    from ingest.sources import sniff

    with Renderer(backend=backend, limits=Limits(page_seconds=2, first_page_seconds=2)) as renderer:
        for name, data in hostile.files().items():
            kind = sniff(data[:1024]) or ("pdf" if name.endswith(".pdf") else "")
            start = time.monotonic()
            state = outcome(renderer, opened, data, kind)
            assert time.monotonic() - start < 12, name
            assert state in hostile.OUTCOMES[name] or (state, backend) == ("page", "pdfium"), (name, state)
            assert outcome(renderer, opened, hostile.good(), "pdf") == "page", name


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_hang_ends_in_time_and_the_next_document_is_drawn(backend: str, opened: Callable[..., Any]) -> None:
    with Renderer(backend=backend, limits=QUICK) as renderer:
        with opened(renderer, hostile.billion_laughs()) as document:
            start = time.monotonic()
            page = renderer.render(document, 1)
            assert page == PageFailure(1, "timeout", "the page was not drawn within 1 s")
            assert 0.9 < time.monotonic() - start < 3
        start = time.monotonic()
        with opened(renderer, hostile.good()) as document:
            assert text(renderer.render(document, 1)) == "Octavo finds the page"
        assert time.monotonic() - start < 5, "a fresh process is there at once"


def hanging(pages: int) -> bytes:
    """A document whose every page but the first hangs."""
    form = hostile.billion_laughs()
    with pymupdf.open(stream=form) as document, pymupdf.open() as first:
        first.new_page().insert_text((50, 50), "fine")
        for _ in range(pages - 1):
            first.insert_pdf(document)
        return first.tobytes()


def test_three_hangs_are_enough_for_a_document(opened: Callable[..., Any]) -> None:
    limits = Limits(page_seconds=0.3, first_page_seconds=0.6)
    with Renderer(limits=limits) as renderer, opened(renderer, hanging(9)) as document:
        start = time.monotonic()
        outcomes = list(renderer.pages(document))
        assert time.monotonic() - start < 10
        assert text(outcomes[0]) == "fine"
        assert [page.state for page in outcomes[1:]] == ["timeout"] * 8  # type: ignore[union-attr]
        reasons = [page.reason for page in outcomes[1:]]  # type: ignore[union-attr]
        assert all("not drawn within" in reason for reason in reasons[:3])
        assert set(reasons[3:]) == {"skipped: 3 pages of this document took too long"}
        with opened(renderer, hostile.good()) as other:
            assert text(renderer.render(other, 1)) == "Octavo finds the page"


def test_a_document_has_a_budget(opened: Callable[..., Any]) -> None:
    limits = Limits(document_seconds=0.0, seconds_a_page=1e-9)
    with Renderer(limits=limits) as renderer, opened(renderer, numbered(3)) as document:
        assert text(renderer.render(document, 1)) == "number 1"
        assert renderer.render(document, 2)[1] == "timeout"  # type: ignore[index]


def test_waiting_to_fetch_is_not_charged(opened: Callable[..., Any]) -> None:
    limits = Limits(page_seconds=0.5, first_page_seconds=2, document_seconds=0.9, seconds_a_page=0)
    with Renderer(limits=limits) as renderer, opened(renderer, numbered(4)) as document:
        for number, page in enumerate(renderer.pages(document), 1):
            assert text(page) == f"number {number}"
            time.sleep(0.6)  # longer than a page may take


@linux
def test_a_killed_worker_is_replaced_without_a_word(opened: Callable[..., Any]) -> None:
    with Renderer() as renderer, opened(renderer, numbered(6)) as document:
        for number in range(1, 7):
            assert text(renderer.render(document, number)) == f"number {number}"
            assert renderer._worker is not None
            os.kill(renderer._worker.pid, signal.SIGKILL)
            while renderer._worker.alive:
                time.sleep(0.001)
        assert document._deaths == 0


@linux
def test_signals_to_the_whole_group_do_not_cost_a_page(opened: Callable[..., Any]) -> None:
    with Renderer() as renderer, opened(renderer, numbered(3)) as document:
        assert renderer._worker is not None
        pid = renderer._worker.pid
        for number, name in enumerate((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), 1):
            renderer.prefetch(document, number)
            os.kill(pid, name)
            assert text(renderer.render(document, number)) == f"number {number}"
        assert renderer._worker.pid == pid


@linux
def test_two_deaths_are_enough_for_a_document(opened: Callable[..., Any]) -> None:
    with Renderer() as renderer, opened(renderer, hanging(5)) as document:
        for number in (2, 3):
            renderer.prefetch(document, number)
            assert renderer._worker is not None
            os.kill(renderer._worker.pid, signal.SIGSEGV)
            assert renderer.render(document, number) == PageFailure(
                number, "crash", "the render process ended (SIGSEGV) while it drew the page"
            )
        assert renderer.render(document, 1) == PageFailure(
            1, "crash", "skipped: this document ended the render process 2 times"
        )
        with opened(renderer, numbered(1)) as other:
            assert text(renderer.render(other, 1)) == "number 1"


@linux
@pytest.mark.parametrize("kind", ["pdf", "png"])
def test_memory_is_bounded_with_one_larger_try(opened: Callable[..., Any], kind: str) -> None:
    data = hostile.nested_groups() if kind == "pdf" else hostile.png_bomb(9900)
    small, large = 140 * 2**20, 900 * 2**20
    with (
        Renderer(limits=Limits(memory=small, memory_retry=small)) as renderer,
        opened(renderer, data, kind) as document,
    ):
        page = renderer.render(document, 1)
        assert isinstance(page, PageFailure)
        assert (page.state, "more memory than the limit" in page.reason) == ("oom", True)
        with opened(renderer, numbered(1)) as other:
            assert text(renderer.render(other, 1)) == "number 1"
    with Renderer(limits=Limits(memory=small, memory_retry=large)) as renderer:
        with opened(renderer, data, kind) as document:
            assert isinstance(renderer.render(document, 1), Page)
        with opened(renderer, numbered(1)) as other:
            assert text(renderer.render(other, 1)) == "number 1"
            assert renderer._worker is not None
            assert renderer._worker.memory == small, "the next document is back to the small limit"


def test_workers_are_replaced_after_some_pages(opened: Callable[..., Any]) -> None:
    with Renderer(limits=Limits(worker_pages=3)) as renderer, opened(renderer, numbered(8)) as document:
        seen = []
        for number, page in enumerate(renderer.pages(document), 1):
            assert text(page) == f"number {number}"
            assert renderer._worker is not None
            seen.append(renderer._worker.pid)
        assert len(set(seen)) == 3


def test_too_large_or_empty_a_file(opened: Callable[..., Any]) -> None:
    with Renderer(limits=Limits(max_bytes=500)) as renderer:
        with pytest.raises(RenderError, match="more than the limit of 500; raise max_bytes") as error:
            opened(renderer, hostile.good())
        assert error.value.state == "oversize"
        with pytest.raises(RenderError) as error:
            opened(renderer, b"")
        assert error.value.state == "empty"
        with pytest.raises(RenderError, match="the kind is 'gif'") as error:
            opened(renderer, b"GIF89a", "gif")
        assert error.value.state == "unsupported"


# One page ahead


def test_prefetch_gives_the_same_pages(renderer: Renderer, opened: Callable[..., Any]) -> None:
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


def test_drawing_goes_on_while_the_caller_works(opened: Callable[..., Any]) -> None:
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


# Memory, descriptors, processes


@linux
def test_memory_stays_bounded_over_thousands_of_pages(opened: Callable[..., Any]) -> None:
    def draw(document: Any) -> None:
        rng = np.random.default_rng(0)
        for number, page in enumerate(document):
            noise = pymupdf.Pixmap(pymupdf.csRGB, 100, 100, rng.integers(0, 256, 30_000, np.uint8).tobytes(), False)
            page.insert_image((0, 0, 400, 400), pixmap=noise)
            page.insert_text((50, 500), f"page {number} of many")

    def peak(renderer: Renderer) -> int:
        assert renderer._worker is not None
        return renderer._worker.rss() + process_rss()

    endless = Limits(worker_pages=10**9, document_seconds=10**6)
    with Renderer(limits=endless) as renderer, opened(renderer, made(draw, 2000)) as document:
        peaks = []
        for number, page in enumerate(renderer.pages(document, dpi=50)):
            assert isinstance(page, Page)
            if number % 20 == 19:
                peaks.append(peak(renderer))
        assert document.pages == 2000
        assert max(peaks) - peaks[0] < 300 * 2**20
        assert len(set(peaks)) > 1


def process_rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@linux
def test_nothing_is_left_open(opened: Callable[..., Any]) -> None:
    def held() -> list[str]:
        return sorted(os.listdir("/proc/self/fd"))

    before = held()
    for _ in range(3):
        with Renderer(limits=QUICK) as renderer:
            with opened(renderer, numbered(2)) as document:
                list(renderer.pages(document))
                renderer.close()
                assert text(renderer.render(document, 1)) == "number 1"
            for data in (b"nothing", hostile.billion_laughs()):
                outcome(renderer, opened, data, "pdf")
    assert held() == before
    renderer = Renderer()
    document = opened(renderer, numbered(1))
    worker = renderer._worker
    assert worker is not None
    pid = worker.pid
    del renderer, document, worker  # no close: the process ends with the object all the same
    assert not Path(f"/proc/{pid}").exists()
    assert held() == before


@linux
def test_the_worker_outlives_the_thread_that_started_it(opened: Callable[..., Any]) -> None:
    with Renderer() as renderer:
        documents: list[Any] = []
        thread = threading.Thread(target=lambda: documents.append(opened(renderer, numbered(2))))
        thread.start()
        thread.join()
        time.sleep(0.1)
        assert renderer._worker is not None
        assert renderer._worker.alive
        assert text(renderer.render(documents[0], 2)) == "number 2"
        documents[0].close()


SCRIPT = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from ingest.render import Renderer
from ingest.sources import open_source
renderer = Renderer()
document = renderer.open(open_source(sys.argv[2]), "pdf")
"""


@pytest.mark.parametrize("more", ["", "import threading\n"])
def test_from_a_plain_script_anywhere(tmp_path: Path, more: str) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('a file beside the script is not for the worker')")
    (tmp_path / "a.pdf").write_bytes(numbered(1))
    script = tmp_path / "script.py"
    script.write_text(more + SCRIPT + "print(renderer.render(document, 1).words.text)")
    root = str(Path(process.__file__).parent.parent)
    command = [sys.executable, "-P", str(script), root, str(tmp_path / "a.pdf")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("number 1\n", 0), done.stderr


@linux
def test_the_worker_ends_with_its_parent(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(hostile.billion_laughs())
    more = "renderer.prefetch(document, 1); print(renderer._worker.pid, flush=True); time.sleep(60)"
    command = [sys.executable, "-c", SCRIPT + more, str(Path(process.__file__).parent.parent), str(tmp_path / "a.pdf")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        parent.kill()
    end = time.monotonic() + 5
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    assert not alive(pid)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_protects_is_said() -> None:
    with Renderer() as renderer:
        said = renderer.protection
        if sys.platform != "linux":
            assert "not here: landlock and seccomp" in said
        elif renderer.jailed:
            assert said.startswith("rlimits + isolation + landlock (ABI ")
            assert said.endswith("seccomp")
    with Renderer(jail=False) as renderer:
        assert renderer.protection.endswith("not here: landlock and seccomp (switched off)")
        assert not renderer.jailed


def test_a_jail_that_fails_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = "import ingest.jail\ndef refuse(readable): raise OSError('no')\ningest.jail._landlock = refuse\nmain("
    monkeypatch.setattr(process, "_PROGRAM", process._PROGRAM.replace("main(", broken, 1))
    monkeypatch.setattr(
        process, "_PROGRAM", process._PROGRAM.replace("import inherited, " + broken, "import inherited, main(")
    )
    if sys.platform != "linux":
        pytest.skip("no Landlock to fail")
    with Renderer() as renderer:
        with pytest.warns(RuntimeWarning, match=r"not fully jailed: landlock \(no\)"):
            said = renderer.protection
        assert "FAILED: landlock (no)" in said
        assert not renderer.jailed


def test_fingerprint_and_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Renderer().fingerprint() == f"pymupdf {pymupdf.VersionBind}"
    with pytest.raises(ValueError, match="backend is 'poppler'; there are 'pymupdf', 'pdfium'"):
        Renderer(backend="poppler")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install octavo\[pdfium\]"):
        Renderer(backend="pdfium")


# A worker that lies


GOOD = {"ok": True, "width_px": 4, "height_px": 2, "words": 1, "width": 9.0, "height": 5}
BOX = np.array([[0.1, 0.2, 0.3, 0.4]], "<f4").tobytes()
PAYLOAD = bytes(range(24)) + BOX + b"word"


def test_a_right_answer_is_taken() -> None:
    page = answers.page(7, GOOD, bytearray(PAYLOAD), max_pixels=8, max_side=4)
    assert page.image.tolist()[1][3] == [21, 22, 23]
    assert (page.number, page.words.text, page.width, page.height) == (7, "word", 9, 5)


@pytest.mark.parametrize(
    "change",
    [
        {"width_px": 5},
        {"width_px": 2**40},
        {"width_px": 0},
        {"width_px": -4},
        {"width_px": 4.0},
        {"width_px": "4"},
        {"width_px": True},
        {"height_px": 3},
        {"words": 2},
        {"words": 0},
        {"words": 10**6},
        {"words": None},
        {"width": float("inf")},
        {"width": -1},
        {"width": 1e300},
        {"width": None},
        {"ok": False},
        {"ok": False, "state": "fine", "reason": "x"},
        {"ok": False, "state": "oom", "reason": 5},
        {"ok": False, "state": "encrypted", "reason": "of a document only"},
    ],
)
def test_forged_headers_are_seen(change: dict[str, Any]) -> None:
    with pytest.raises(wire.ForgedMessage):
        answers.page(1, {**GOOD, **change}, bytearray(PAYLOAD), max_pixels=8, max_side=4)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        PAYLOAD[:30],
        bytes(24) + np.array([np.nan, 0, 1, 1], "<f4").tobytes() + b"word",
        bytes(24) + np.array([0.5, 0, 0.4, 1], "<f4").tobytes() + b"word",
        bytes(24) + BOX + b"two words",
        bytes(24) + BOX + b"",
        bytes(24) + BOX + b"\xff\xfe",
        bytes(24) + BOX + b"x" * 1001,
        bytes(24) + BOX + "e\u0301".encode(),
    ],
)
def test_forged_payloads_are_seen(payload: bytes) -> None:
    with pytest.raises(wire.ForgedMessage):
        answers.page(1, GOOD, bytearray(payload), max_pixels=8, max_side=4)


@pytest.mark.parametrize(
    "change",
    [
        {"pages": 0},
        {"pages": 2**60},
        {"pages": "1"},
        {"title": None},
        {"title": "x" * 501},
        {"content": "zz"},
        {"content": 1},
    ],
)
def test_forged_documents_are_seen(change: dict[str, Any]) -> None:
    right = {"ok": True, "pages": 1, "title": "\x1b[31mred\u202e", "content": "0" * 32}
    assert answers.opened(right) == (1, "[31mred", "0" * 32)
    with pytest.raises(wire.ForgedMessage):
        answers.opened({**right, **change})


@pytest.mark.parametrize(
    "lie",
    [
        'header["width_px"] += 1',
        'header["id"] = 0',
        "parts.append(bytes(10**8))",
        "parts.clear()",
        'sock.sendall(b"\\0" * 100)',
        'sock.sendall(b"OCT1" + b"\\xff" * 12)',
        'header = {"x": [[[[1]]]] , "big": "y" * 100_000}',
        "raise SystemExit(3)",
    ],
)
def test_a_lying_worker_is_killed(lie: str, opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    program = f"""
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from ingest import wire
from ingest.worker import inherited, main
honest = wire.send
def send(sock, header, parts=(), fd=None):
    if "width_px" in header:
        {lie}
    honest(sock, header, parts, fd)
wire.send = send
main(inherited(sys.argv[2]))
"""
    with Renderer() as renderer, opened(renderer, numbered(2)) as document:
        renderer.close()
        with monkeypatch.context() as patch:
            patch.setattr(process, "_PROGRAM", program)
            page = renderer.render(document, 1)
        assert isinstance(page, PageFailure)
        assert page.state == "crash"
        assert page.reason.isprintable()
        assert text(renderer.render(document, 2)) == "number 2"


def test_a_worker_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_PROGRAM", "raise SystemExit(7)")
    with Renderer() as renderer, pytest.raises(process.StartError, match="exit code 7"):
        _ = renderer.protection


# A corpus of damaged files, where it is at hand


DATA = Path(os.environ.get("OCTAVO_SHARED", Path(__file__).parents[2] / "shared")) / "data" / "badpdf"


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no corpus of damaged PDFs at {DATA} (OCTAVO_SHARED names its parent)")
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_file_of_the_corpus_ends_in_a_state(backend: str) -> None:
    files = sorted(path for path in DATA.rglob("*") if path.suffix.lower() == ".pdf")
    assert len(files) >= 300
    ended: dict[str, int] = {}
    start = time.monotonic()
    with Renderer(backend=backend, limits=Limits(page_seconds=5, first_page_seconds=5)) as renderer:
        for path in files:
            fd = open_source(path)
            try:
                with renderer.open(fd, "pdf") as document:
                    pages = renderer.pages(document, range(1, min(3, document.pages) + 1))
                    states = [page.state if isinstance(page, PageFailure) else "page" for page in pages]
                assert set(states) <= {"page"} | answers.PAGE_STATES, path
            except RenderError as error:
                assert error.state in answers.DOCUMENT_STATES, path
                assert error.reason.isprintable()
                states = [error.state]
            finally:
                os.close(fd)
            for state in states:
                ended[state] = ended.get(state, 0) + 1
    assert time.monotonic() - start < 120
    assert ended["page"] > 350, ended
    assert ended["encrypted"] > 20, ended
    assert ended.get("crash", 0) == 0, ended
