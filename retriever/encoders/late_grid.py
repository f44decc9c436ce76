"""Pages of NeoMME: the picture at its own size, in rows of patches, each ended by a marker; queries by its template.

Computed with Pillow and numpy, since transformers' processor for it needs torchvision. What lies beyond the picture's
right and lower edge is black. A patch is one token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from index.errors import OctavoError
from retriever.encoders.checkpoint import read_json
from retriever.encoders.late_inputs import Read, Reader
from retriever.encoders.late_rows import Row
from retriever.encoders.tokens import CONFIG, special_tokens
from retriever.encoders.vision import MOST_ENLARGED, Picture, cells, rgb

_TEMPLATES = ("chat_template.jinja", "chat_template.json")
_MAX_TEMPLATE = 2**16  # characters
_NAMED = ("image_token", "document_token", "row_token", "query_token", "mask_token")


class Grid(Reader):
    """Reads pages and queries of NeoMME."""

    ragged = True

    def __init__(self, row: Row, settings: Mapping[str, Any], path: Path, config: Any) -> None:
        self._tokens = special_tokens(path.parent, _NAMED)
        super().__init__(row._replace(image=self._tokens["image_token"]), settings, path, config)
        self._template, self._path = _template(path.parent), path
        size = settings.get("size") or {}
        mean, std = settings.get("image_mean", [0.5] * 3), settings.get("image_std", [0.5] * 3)
        self.settings = {"max_side": settings.get("max_side"), "size": size, "mean": mean, "std": std}
        self._patch, self._bounds = config.patch_size, (size.get("min_pixels"), size.get("max_pixels"))
        self._mean, self._std = np.array(mean, np.float32) * 255, np.array(std, np.float32) * 255
        bounds = [value for value in (self.settings["max_side"], *self._bounds) if value is not None]
        if not all(type(value) is int and value > 0 for value in bounds) or (self._bounds[0] or 0) > MOST_ENLARGED:
            raise OctavoError(f"{path}: max_side and size are {bounds}, which cannot be right")
        if settings.get("patch_size", 32) != self._patch or self._mean.shape != (3,) or self._std.shape != (3,):
            raise OctavoError(f"{path} cuts patches that config.json does not describe")

    def read(self, picture: Picture) -> Read:
        """A page."""
        image, patch = rgb(picture), self._patch
        width, height = _fitted(image.size, self.settings["max_side"], *self._bounds)
        if (width, height) != image.size:
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        rows, columns = -(-height // patch), -(-width // patch)
        pixels = np.zeros((rows * patch, columns * patch, 3), np.float32)
        pixels[:height, :width] = np.asarray(image)
        pixels = (pixels - self._mean) / self._std
        cut = pixels.reshape(rows, patch, columns, patch, 3).transpose(0, 2, 1, 3, 4).reshape(rows * columns, -1)
        line = self.image * columns + self._tokens["row_token"]
        text = self._tokens["document_token"] + self.image + line * rows
        covered = np.array([columns * patch / width, rows * patch / height] * 2, np.float32)
        boxes = np.minimum(cells((rows, columns), 1) * covered, 1.0)
        return Read(text, boxes, {"pixel_values": torch.from_numpy(cut)}, (rows, columns))

    def query(self, text: str) -> str:
        """By the template of the checkpoint, rendered in Jinja's sandbox."""
        from transformers.utils.chat_template_utils import render_jinja_template

        turn = [{"role": "user", "content": [{"type": "text", "text": text}]}]
        try:
            rendered = render_jinja_template([turn], chat_template=self._template, task="query", **self._tokens)
        except Exception as error:  # of Jinja: it forbids what is unsafe, and finds what is no template
            raise OctavoError(f"the chat template of {self._path.parent} is not usable: {error}") from None
        return str(rendered[0][0])

    def visual(self, ids: np.ndarray, image: int) -> np.ndarray:
        """The first placeholder is a marker that starts the page, not a patch."""
        found = ids == image
        return found & (np.cumsum(found, axis=-1) > 1)

    def arrays(
        self, inputs: Sequence[Read], ids: torch.Tensor, visual: torch.Tensor, backbone: Any
    ) -> dict[str, torch.Tensor]:
        """With the row and column of each token; of a text both are its place."""
        places = [_positions(one.grid, ids.shape[1]) for one in inputs]
        return super().arrays(inputs, ids, visual, backbone) | {"position_ids": torch.stack(places, dim=1)}


def _positions(grid: tuple[int, int] | None, length: int) -> torch.Tensor:
    """(2, t)"""
    if grid is None:
        return torch.arange(length).expand(2, -1)
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1] + 1), indexing="ij")
    inside = torch.stack([rows.flatten(), columns.flatten()]) + 2
    return torch.cat([torch.arange(2).expand(2, -1), inside], dim=1)


def _fitted(
    size: tuple[int, int], max_side: int | None, min_pixels: int | None, max_pixels: int | None
) -> tuple[int, int]:
    """(width, height) within the bounds: enlarged to min_pixels unless that passes another bound."""
    width, height = size
    area = width * height
    small = min_pixels is not None and area < min_pixels
    scale = math.sqrt(min_pixels / area) if min_pixels is not None and small else 1.0
    scale = min(scale, max_side / max(size)) if max_side is not None else scale
    scale = min(scale, math.sqrt(max_pixels / area)) if max_pixels is not None else scale
    if scale == 1.0:
        return size

    def over(sides: tuple[int, int]) -> bool:
        wide = max_side is not None and max(sides) > max_side
        return wide or (max_pixels is not None and sides[0] * sides[1] > max_pixels)

    nearest, above, below = (
        (max(1, turn(width * scale)), max(1, turn(height * scale))) for turn in (round, math.ceil, math.floor)
    )
    if not over(nearest):
        short = small and min_pixels is not None and nearest[0] * nearest[1] < min_pixels
        return above if short and not over(above) else nearest
    if max_pixels is not None and below[0] * below[1] > max_pixels:  # a side is one pixel
        long = max(1, max_pixels // min(below))
        return (below[0], long) if below[1] >= below[0] else (long, below[1])
    return below


def _template(folder: Path) -> str:
    """The chat template of a folder. Raises OctavoError where there is none."""
    for name in _TEMPLATES:
        if (folder / name).is_file():
            if (folder / name).stat().st_size > _MAX_TEMPLATE:
                raise OctavoError(f"{folder / name} is larger than any template")
            if name.endswith(".json"):
                return str(read_json(folder, name).get("chat_template", ""))
            return (folder / name).read_text("utf-8", "replace")
    template = read_json(folder, CONFIG).get("chat_template")
    if not isinstance(template, str) or len(template) > _MAX_TEMPLATE:
        raise OctavoError(f"{folder} has no chat template (chat_template.jinja), by which its queries are written")
    return template
