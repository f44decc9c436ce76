"""Our preprocessing against transformers' own Pillow processor, for odd sizes and for every kind of picture."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from index.errors import OctavoError
from retriever.encoders.vision import Preprocessing, cells, fetched, grid_of, patches, rgb, size_of, smart_resize

STEPS = Preprocessing(min_pixels=3136, max_pixels=602112)
SIZES = [(1, 1), (1, 199), (13, 2500), (27, 29), (55, 57), (56, 56), (300, 1), (640, 480), (1240, 1754), (2000, 17)]


def picture(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    """Noise of which neighbours are alike."""
    rng = np.random.default_rng(sum(size))
    small = Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC).convert(mode)


def processed(image: Image.Image, max_pixels: int = 602112) -> tuple[np.ndarray, list[int]]:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    found = Qwen2VLImageProcessorPil(min_pixels=3136, max_pixels=max_pixels)(images=[image], return_tensors="np")
    return found["pixel_values"], found["image_grid_thw"][0].tolist()


@pytest.mark.parametrize("size", [size for size in SIZES if max(size) <= 200 * min(size)])
def test_patches_equal_the_processor(size: tuple[int, int]) -> None:
    for max_pixels in (602112, 28 * 28 * 20):
        wanted, grid = processed(picture(size), max_pixels)
        steps = Preprocessing(min_pixels=3136, max_pixels=max_pixels)
        assert [1, *grid_of(size, steps)] == grid
        np.testing.assert_allclose(patches(picture(size), grid_of(size, steps), steps), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["1", "L", "P", "PA", "LA", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F"])
def test_every_mode_is_converted_as_the_processor_does(mode: str) -> None:
    image = picture((90, 60)).convert("L").convert("I").convert("I;16") if mode == "I;16" else picture((90, 60), mode)
    if mode in ("LA", "RGBA", "PA"):
        image.putalpha(picture((90, 60), "L"))
    wanted, grid = processed(image.convert("RGB") if mode in ("LA", "RGBA", "PA") else image)
    np.testing.assert_allclose(patches(rgb(image), (grid[1], grid[2]), STEPS), wanted, rtol=0, atol=1e-6)


def test_orientation_is_left_alone_and_files_equal_pictures(tmp_path: Path) -> None:
    image, exif = picture((90, 60)), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    assert size_of(tmp_path / "turned.png") == size_of(image) == (90, 60) == size_of(np.asarray(image))
    for given in (tmp_path / "turned.png", str(tmp_path / "turned.png"), np.asarray(image)):
        assert np.array_equal(np.asarray(rgb(given)), np.asarray(image))


def test_smart_resize_keeps_to_its_bounds() -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize as theirs

    rng = np.random.default_rng(0)
    for height, width in (np.exp(rng.uniform(0, 9, (2000, 2)))).astype(int):
        if max(height, width) > 200 * min(height, width):
            with pytest.raises(ValueError, match=f"{width} x {height} pixels"):
                smart_resize(height, width, 28, 3136, 602112)
            continue
        assert smart_resize(height, width, 28, 3136, 602112) == theirs(height, width, 28, 3136, 602112)


def test_cells_tile_the_picture() -> None:
    third = 1 / 3
    wanted = [(0, 0, third, 0.5), (third, 0, 2 * third, 0.5), (2 * third, 0, 1, 0.5), (0, 0.5, third, 1)]
    np.testing.assert_allclose(cells((4, 6), 2)[:4], wanted, atol=1e-7)
    found = cells((22, 16), 2)
    assert ((found[:, 2] - found[:, 0]) * (found[:, 3] - found[:, 1])).sum() == pytest.approx(1)


def test_max_pixels_wins_over_size() -> None:
    read = Preprocessing.read
    assert read({"max_pixels": 4000, "size": {"longest_edge": 9000, "shortest_edge": 3500}}, "f") == Preprocessing(
        3500, 4000
    )
    assert read({"size": {"longest_edge": 9000}}, "f") == Preprocessing(3136, 9000)
    assert read({}, "f") == Preprocessing(3136, 28 * 28 * 1280)
    with pytest.raises(OctavoError, match="f: size is 5"):
        read({"size": 5}, "f")


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "no.png").write_bytes(b"no")
    with pytest.raises(OctavoError, match=r"no\.png: not a picture"):
        size_of(tmp_path / "no.png")
    whole = io.BytesIO()
    picture((200, 200)).save(whole, "PNG")
    (tmp_path / "half.png").write_bytes(whole.getvalue()[:3000])
    with pytest.raises(OctavoError, match=r"half\.png: not a picture"):
        rgb(tmp_path / "half.png")
    with pytest.raises(FileNotFoundError):
        rgb(tmp_path / "none.png")
    with pytest.raises(ValueError, match=r"shape \(4, 4\), float64: \(H, W, 3\) uint8"):
        rgb(np.zeros((4, 4)))
    with pytest.raises(OctavoError, match="could not be fetched"):
        fetched("http://127.0.0.1:9/page.png")
