"""How the families of late interaction read pages: Qwen's patches, one square picture, or tiles of a large one.

Each gives the text with the placeholders written out, the arrays that the backbone takes, and the cell of each visual
token on the page. Pictures are prepared by Pillow and numpy: `vision` for Qwen, transformers' own Pillow processors for
the others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from index.errors import OctavoError
from retriever.encoders.checkpoint import read_json
from retriever.encoders.late_rows import Row
from retriever.encoders.vision import Picture, Preprocessing, cells, grid_of, patches, rgb, size_of

PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
_KNOWN = ("size", "max_image_size", "resample", "rescale_factor", "image_mean", "image_std", "do_image_splitting")


def picture_settings(folder: Path) -> tuple[dict[str, Any], Path]:
    """How pictures are prepared, and the file that says it: transformers 5 writes it into processor_config.json."""
    if not (folder / PREPROCESSOR).exists() and (folder / PROCESSOR).exists():
        found = read_json(folder, PROCESSOR).get("image_processor")
        if isinstance(found, dict):
            return found, folder / PROCESSOR
    return read_json(folder, PREPROCESSOR), folder / PREPROCESSOR


@dataclass(frozen=True)
class Read:
    """A page as text and arrays. text: with a placeholder for each visual token; boxes: (v, 4) their cells, in order;
    pixels, grid: what the backbone takes, without the dimension of the batch."""

    text: str
    boxes: np.ndarray
    pixels: dict[str, torch.Tensor] = field(default_factory=dict)
    grid: tuple[int, int] | None = None


class Reader(ABC):
    """What readers share. image: the placeholder of a visual token; special: is a text put between the tokenizer's own
    tokens? ragged: are pictures of unlike shapes put one after the other, or stacked?"""

    settings: Mapping[str, Any]  # what, changed, changes a page
    special = True
    ragged = False

    def __init__(self, row: Row, settings: Mapping[str, Any], path: Path, config: Any) -> None:
        """settings: of preprocessor_config.json, at `path`; config: of the backbone."""
        self._row, self.image = row, row.image

    @abstractmethod
    def read(self, picture: Picture) -> Read:
        """A page."""

    def query(self, text: str) -> str:
        """A query as the model reads it."""
        return self._row.query.format(text)

    def visual(self, ids: np.ndarray, image: int) -> np.ndarray:
        """Which of the ids stand for a part of the picture; image: the id of the placeholder."""
        return ids == image

    def arrays(
        self, inputs: Sequence[Read], ids: torch.Tensor, visual: torch.Tensor, backbone: Any
    ) -> dict[str, torch.Tensor]:
        """What the backbone takes for inputs of one length, pages or queries; ids, visual: (b, t)."""
        join = torch.cat if self.ragged else torch.stack
        pixels = {name: join([one.pixels[name] for one in inputs]) for name in inputs[0].pixels}
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **pixels}


class Qwen(Reader):
    """Pages of Qwen2-VL and its kin: patches of a picture of nearly its own shape."""

    ragged = True

    def __init__(self, row: Row, settings: Mapping[str, Any], path: Path, config: Any) -> None:
        super().__init__(row, settings, path, config)
        self.steps = Preprocessing.read(settings, str(path))
        vision = config.vision_config
        if (self.steps.patch, self.steps.merge) != (vision.patch_size, vision.spatial_merge_size):
            raise OctavoError(f"{path} cuts patches that config.json does not describe")
        self.settings = {"min_pixels": self.steps.min_pixels, "max_pixels": self.steps.max_pixels}

    def read(self, picture: Picture) -> Read:
        """A page. Raises ValueError where one side is over 200 times the other."""
        grid = grid_of(size_of(picture), self.steps)
        tokens = grid[0] * grid[1] // self.steps.merge**2
        text = self._row.page.replace(self._row.image, self._row.image * tokens)
        pixels = torch.from_numpy(patches(rgb(picture), grid, self.steps))
        return Read(text, cells(grid, self.steps.merge), {"pixel_values": pixels}, grid)

    def arrays(
        self, inputs: Sequence[Read], ids: torch.Tensor, visual: torch.Tensor, backbone: Any
    ) -> dict[str, torch.Tensor]:
        """With positions in time, rows and columns (M-RoPE), which transformers 5 leaves out for some of them."""
        found = super().arrays(inputs, ids, visual, backbone)
        grids = [(1, *one.grid) for one in inputs if one.grid is not None]
        grid = torch.tensor(grids, dtype=torch.int64).reshape(-1, 3)
        found["position_ids"] = backbone.get_rope_index(ids, mm_token_type_ids=visual.int(), image_grid_thw=grid)[0]
        return found | ({"image_grid_thw": grid} if grids else {})


class Whole(Reader):
    """Pages of PaliGemma: one square picture, whatever the shape of the page."""

    special = False

    def __init__(self, row: Row, settings: Mapping[str, Any], path: Path, config: Any) -> None:
        from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

        super().__init__(row, settings, path, config)
        vision = config.vision_config
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

    def arrays(
        self, inputs: Sequence[Read], ids: torch.Tensor, visual: torch.Tensor, backbone: Any
    ) -> dict[str, torch.Tensor]:
        """With the word that all of it is prefix, over which attention goes both ways."""
        return super().arrays(inputs, ids, visual, backbone) | {"token_type_ids": torch.zeros_like(ids)}


class Tiles(Reader):
    """Pages of Idefics3 and ModernVBERT: square tiles, row by row, then the whole page once more as small as a tile."""

    def __init__(self, row: Row, settings: Mapping[str, Any], path: Path, config: Any) -> None:
        from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

        super().__init__(row, settings, path, config)
        vision = config.vision_config
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
