"""How the families of late interaction read pages: Qwen's patches, one square picture, or tiles of a large one.

Each gives the text with the placeholders written out, the arrays that the backbone takes, and the cell of each visual
token on the page. Pictures are prepared by Pillow and numpy: `vision` for Qwen, transformers' own Pillow processors for
the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from index.errors import OctavoError
from retriever.encoders.late_rows import Row
from retriever.encoders.vision import Picture, Preprocessing, cells, grid_of, patches, rgb, size_of

PREPROCESSOR = "preprocessor_config.json"
_KNOWN = ("size", "max_image_size", "resample", "rescale_factor", "image_mean", "image_std", "do_image_splitting")


@dataclass(frozen=True)
class Read:
    """A page as text and arrays. text: with a placeholder for each visual token; boxes: (v, 4) their cells, in order;
    pixels, grid: what the backbone takes, without the dimension of the batch."""

    text: str
    boxes: np.ndarray
    pixels: dict[str, torch.Tensor] = field(default_factory=dict)
    grid: tuple[int, int] | None = None


class Qwen:
    """Pages of Qwen2-VL and its kin: patches of a picture of nearly its own shape."""

    def __init__(self, row: Row, settings: Mapping[str, Any], path: Path, config: Any) -> None:
        self._row, self.steps = row, Preprocessing.read(settings, str(path))
        vision = config.vision_config
        if (self.steps.patch, self.steps.merge) != (vision.patch_size, vision.spatial_merge_size):
            raise OctavoError(f"{path} cuts patches that config.json does not describe")

    @property
    def settings(self) -> dict[str, Any]:
        """What, changed, changes a page."""
        return {"min_pixels": self.steps.min_pixels, "max_pixels": self.steps.max_pixels}

    def read(self, picture: Picture) -> Read:
        """A page. Raises ValueError where one side is over 200 times the other."""
        grid = grid_of(size_of(picture), self.steps)
        tokens = grid[0] * grid[1] // self.steps.merge**2
        text = self._row.page.replace(self._row.image, self._row.image * tokens)
        pixels = torch.from_numpy(patches(rgb(picture), grid, self.steps))
        return Read(text, cells(grid, self.steps.merge), {"pixel_values": pixels}, grid)


class Whole:
    """Pages of PaliGemma: one square picture, whatever the shape of the page."""

    def __init__(self, row: Row, settings: Mapping[str, Any], path: Path, config: Any) -> None:
        from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

        self._row, vision = row, config.vision_config
        self._side = vision.image_size // vision.patch_size
        self.settings = {name: settings[name] for name in _KNOWN[:1] + _KNOWN[2:6] if name in settings}
        self._processor = SiglipImageProcessorPil(**self.settings)
        if dict(self._processor.size) != {"height": vision.image_size, "width": vision.image_size}:
            raise OctavoError(
                f"{path}: size is {self._processor.size}, the model sees {vision.image_size} pixels square"
            )

    def read(self, picture: Picture) -> Read:
        """A page."""
        text = self._row.page.replace(self._row.image, self._row.image * self._side**2)
        pixels = self._processor(images=[rgb(picture)], return_tensors="pt")["pixel_values"][0]
        return Read(text, cells((self._side, self._side), 1), {"pixel_values": pixels})


class Tiles:
    """Pages of Idefics3 and ModernVBERT: square tiles, row by row, then the whole page once more as small as a tile."""

    def __init__(self, row: Row, settings: Mapping[str, Any], path: Path, config: Any) -> None:
        from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

        self._row, vision = row, config.vision_config
        factor = getattr(config, "scale_factor", None) or config.pixel_shuffle_factor
        self._side = vision.image_size // vision.patch_size // factor
        self.settings = {name: settings[name] for name in _KNOWN if name in settings}
        self._processor = Idefics3ImageProcessorPil(**self.settings)
        if self._processor.max_image_size["longest_edge"] != vision.image_size:
            raise OctavoError(f"{path}: tiles are not of the {vision.image_size} pixels that the model sees")

    def read(self, picture: Picture) -> Read:
        """A page."""
        found = self._processor(images=[[rgb(picture)]], return_row_col_info=True, return_tensors="pt")
        rows, columns = int(found["rows"][0][0]), int(found["cols"][0][0])
        tile = self._row.image * self._side**2
        around, text = "<fake_token_around_image>", ""
        for row in range(rows):
            for column in range(columns):
                text += f"{around}<row_{row + 1}_col_{column + 1}>{tile}"
            text += "\n"
        text += ("\n" if rows else "") + f"{around}<global-img>{tile}{around}"
        within = cells((self._side, self._side), 1)
        corners = [np.array([c, r, c, r], np.float32) for r in range(rows) for c in range(columns)]
        parts = [(corner + within) / np.array([columns, rows, columns, rows], np.float32) for corner in corners]
        pixels = {name: found[name][0] for name in ("pixel_values", "pixel_attention_mask")}
        text = self._row.page.replace(self._row.image, text)
        return Read(text, np.concatenate([*parts, within]).astype(np.float32), pixels)


READERS: dict[str, Any] = {"qwen": Qwen, "whole": Whole, "tiles": Tiles}
