"""Image files become pages: every mode and orientation to RGB, frames to pages, large ones smaller."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ingest.page import Page
from ingest.render import Renderer

sys.path.insert(0, str(Path(__file__).parent))
import hostile
from rendering import BACKENDS, opened, saved


@pytest.fixture(scope="module", params=BACKENDS)
def renderer(request: pytest.FixtureRequest) -> Iterator[Renderer]:
    with Renderer(backend=request.param) as made:
        yield made


def test_images_of_all_kinds(renderer: Renderer) -> None:
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


def test_image_depths_and_transparency(renderer: Renderer) -> None:
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


def test_frames(renderer: Renderer) -> None:
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


def test_frames_before_a_broken_one_are_pages(renderer: Renderer) -> None:
    from PIL import Image

    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    data = bytearray(saved(frames[0], "tiff", save_all=True, append_images=frames[1:]))
    with Image.open(io.BytesIO(data)) as image:
        image.seek(2)
        third = image._frame_pos[2]  # type: ignore[attr-defined]
    data[third : third + 60] = b"\xff" * 60
    with opened(renderer, bytes(data), "tiff") as document:
        assert document.pages == 3
        first, second, last = renderer.pages(document, [1, 2, 3])
    assert [tuple(page.image[0, 0]) for page in (first, second)] == [(255, 0, 0), (0, 255, 0)]  # type: ignore[union-attr]
    assert not isinstance(last, Page) and last.state == "damaged" and "cannot be decoded" in last.reason


def test_images_become_smaller_and_never_larger(renderer: Renderer) -> None:
    for kind in ("png", "jpeg"):
        with opened(renderer, hostile.picture(kind, (6000, 3000)), kind) as document:
            page = renderer.render(document, 1, dpi=4800, max_pixels=500_000)
            assert page.image.shape == (500, 1000, 3)  # type: ignore[union-attr]
            page = renderer.render(document, 1, dpi=1)
            assert page.image.shape == (1414, 2828, 3)  # type: ignore[union-attr]
            assert (page.width, page.height) == (6000, 3000)  # type: ignore[union-attr]
