"""Pictures to the patches that a Qwen2-VL vision tower takes, in PIL and numpy: what the published processor computes.

A picture is resized (bicubic) so that both sides are multiples of patch x merge and its area lies between two bounds,
rescaled, normalised and cut into patches; merge x merge patches become one token, whose cell on the page is known. The
values equal those of the processor bit by bit. Orientation tags are not applied and transparency is dropped, as by
transformers 4, with which the models were published.
"""

from __future__ import annotations

import io
import math
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from index.errors import OctavoError

# A picture to encode: a path, an http(s) address, a PIL image, or (H, W, 3) uint8 RGB.
Picture = str | PathLike[str] | Image.Image | np.ndarray

MAX_ASPECT = 200
MOST_ENLARGED = 2**24  # pixels that a folder may ask a small picture to be enlarged to
MAX_DOWNLOAD = 200 * 2**20  # bytes of a picture from the network
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


@dataclass(frozen=True)
class Preprocessing:
    """What preprocessor_config.json says. Sides in pixels, min_pixels and max_pixels areas."""

    min_pixels: int = 56 * 56
    max_pixels: int = 28 * 28 * 1280
    patch: int = 14
    merge: int = 2
    temporal: int = 2
    rescale: float = 1 / 255
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    resample: int = 3

    @property
    def factor(self) -> int:
        """Pixels of the side of a token."""
        return self.patch * self.merge

    @classmethod
    def read(cls, config: Mapping[str, Any], name: str) -> Preprocessing:
        """From the values of preprocessor_config.json; `name` is its path, for errors. max_pixels wins over size.

        Raises OctavoError for steps that are switched off and for values that cannot be.
        """
        for step in ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb"):
            if config.get(step) is False:
                raise OctavoError(f"{name}: {step} is false; only the published steps are supported, all of them on")
        size = config.get("size") or {}
        if not isinstance(size, dict):
            raise OctavoError(f"{name}: size is {size!r}; shortest_edge and longest_edge are expected")
        try:
            found = cls(
                min_pixels=int(config.get("min_pixels") or size.get("shortest_edge") or cls.min_pixels),
                max_pixels=int(config.get("max_pixels") or size.get("longest_edge") or cls.max_pixels),
                patch=int(config.get("patch_size", cls.patch)),
                merge=int(config.get("merge_size", cls.merge)),
                temporal=int(config.get("temporal_patch_size", cls.temporal)),
                rescale=float(config.get("rescale_factor", cls.rescale)),
                mean=tuple(float(value) for value in config.get("image_mean") or cls.mean),
                std=tuple(float(value) for value in config.get("image_std") or cls.std),
                resample=int(config.get("resample", cls.resample)),
            )
        except (TypeError, ValueError, AttributeError) as error:
            raise OctavoError(f"{name}: {error}") from None
        sides = (found.patch, found.merge, found.temporal)
        if min(sides) < 1 or max(sides) > 1024 or len(found.mean) != 3 or len(found.std) != 3 or 0 in found.std:
            raise OctavoError(
                f"{name}: patch {sides}, image_mean {found.mean} or image_std {found.std} cannot be right"
            )
        least, most = found.min_pixels, found.max_pixels
        if not 0 < least <= most or least > MOST_ENLARGED or found.resample not in range(6):
            raise OctavoError(
                f"{name}: min_pixels {least}, max_pixels {most}, resample {found.resample} cannot be right"
            )
        return found


def smart_resize(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """(height, width) near those given, multiples of `factor`, with an area within the bounds where that can be.

    As Qwen2-VL's processor defines it. Raises ValueError where one side is over 200 times the other.
    """
    check_aspect((width, height))
    rows, columns = round(height / factor) * factor, round(width / factor) * factor
    if rows * columns > max_pixels:
        shrink = math.sqrt((height * width) / max_pixels)
        rows = max(factor, math.floor(height / shrink / factor) * factor)
        columns = max(factor, math.floor(width / shrink / factor) * factor)
    elif rows * columns < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows = math.ceil(height * grow / factor) * factor
        columns = math.ceil(width * grow / factor) * factor
    return rows, columns


def check_aspect(size: tuple[int, int]) -> None:
    """Raise ValueError where one side of a picture of `size` (width, height) is over 200 times the other, or is 0."""
    if max(size) > MAX_ASPECT * min(size) or not max(size):
        raise ValueError(
            f"the picture has {size[0]} x {size[1]} pixels; one side may be at most {MAX_ASPECT} times the other"
        )


def grid_of(size: tuple[int, int], steps: Preprocessing, max_pixels: int | None = None) -> tuple[int, int]:
    """(rows, columns) of patches of a picture of `size` (width, height) pixels."""
    rows, columns = smart_resize(size[1], size[0], steps.factor, steps.min_pixels, max_pixels or steps.max_pixels)
    return rows // steps.patch, columns // steps.patch


def patches(picture: Image.Image, grid: tuple[int, int], steps: Preprocessing) -> np.ndarray:
    """(rows x columns, channels x temporal x patch x patch) float32, the patches of a token side by side."""
    rows, columns = grid
    patch, merge = steps.patch, steps.merge
    resized = picture.resize((columns * patch, rows * patch), Image.Resampling(steps.resample))
    levels = np.stack([_levels(steps, channel) for channel in range(3)])
    pixels = np.asarray(resized)
    values = np.stack([levels[channel][pixels[:, :, channel]] for channel in range(3)])
    cut = values.reshape(3, rows // merge, merge, patch, columns // merge, merge, patch)
    cut = cut.transpose(1, 4, 2, 5, 0, 3, 6)[:, :, :, :, :, None]
    cut = np.broadcast_to(cut, (*cut.shape[:5], steps.temporal, patch, patch))
    return cut.reshape(rows * columns, 3 * steps.temporal * patch * patch)


def cells(grid: tuple[int, int], merge: int) -> np.ndarray:
    """(t, 4) float32, the cell of each token of a picture: x0 y0 x1 y1 as fractions of it, row by row."""
    rows, columns = grid[0] // merge, grid[1] // merge
    y, x = np.divmod(np.arange(rows * columns), columns)
    return np.stack([x / columns, y / rows, (x + 1) / columns, (y + 1) / rows], axis=1).astype(np.float32)


def size_of(picture: Picture) -> tuple[int, int]:
    """(width, height) in pixels, without decoding a file."""
    if isinstance(picture, Image.Image):
        return picture.size
    if isinstance(picture, np.ndarray):
        return picture.shape[1], picture.shape[0]
    with _opened(picture) as image:
        return image.size


def rgb(picture: Picture) -> Image.Image:
    """The picture in RGB, its pixels decoded. Raises OctavoError naming a file that is no picture."""
    if isinstance(picture, np.ndarray):
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise ValueError(f"an array of shape {picture.shape}, {picture.dtype}: (H, W, 3) uint8 is expected")
        return Image.fromarray(picture)
    if isinstance(picture, Image.Image):
        return _converted(picture, "the picture")
    with _opened(picture) as image:
        return _converted(image, str(picture))


def given(image: Any) -> Picture:
    """A picture as callers name one: a str is a path, or an http(s) address, which is fetched now."""
    if isinstance(image, str) and image.startswith(("http://", "https://")):
        return fetched(image)
    picture: Picture = Path(image) if isinstance(image, str) else image
    return picture


def fetched(address: str) -> Image.Image:
    """The picture at an http(s) address. Raises OctavoError."""
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            data = answer.read(MAX_DOWNLOAD + 1)
    except OSError as error:
        raise OctavoError(f"{address}: the picture could not be fetched: {error}") from None
    if len(data) > MAX_DOWNLOAD:
        raise OctavoError(f"{address}: the picture has over {MAX_DOWNLOAD >> 20} MiB")
    with _opened(io.BytesIO(data), address) as image:
        return _converted(image, address)


def _levels(steps: Preprocessing, channel: int) -> np.ndarray:
    """(256,) float32: what each of the 256 levels of a channel becomes, with the processor's own roundings."""
    rescaled = (np.arange(256, dtype=np.float64) * steps.rescale).astype(np.float32)
    return (rescaled - np.float32(steps.mean[channel])) / np.float32(steps.std[channel])


def _opened(file: Any, name: str = "") -> Image.Image:
    try:
        return Image.open(file)
    except FileNotFoundError:
        raise
    except _UNREADABLE as error:
        raise OctavoError(f"{name or file}: not a picture that can be read: {error}") from None


def _converted(image: Image.Image, name: str) -> Image.Image:
    try:
        return image.convert("RGB")
    except _UNREADABLE as error:
        raise OctavoError(f"{name}: not a picture that can be read: {error}") from None
