"""Where the lines of a picture stand, from where there is text in it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from retriever.encoders.box.components import Components, components
from retriever.encoders.box.ends import whole
from retriever.encoders.box.order import reading_order
from retriever.encoders.box.slanted import Slanted, slanted

_GROWN = 1.2
_LEAST = 3


class Line(NamedTuple):
    """A line's place in a picture, in pixels; turned: whether the picture was turned on its side before."""

    image: np.ndarray
    x0: int
    y0: int
    x1: int
    y1: int
    turned: bool = False

    @property
    def upright(self) -> bool:
        return self.y1 - self.y0 > 1.3 * (self.x1 - self.x0) and self.y1 - self.y0 > 24

    @property
    def short(self) -> bool:
        """Whether it stands upright but is more likely a character than a line."""
        return self.upright and (self.length <= 60 or self.length <= 1.6 * self.height)

    @property
    def height(self) -> int:
        return self.x1 - self.x0 if self.upright else self.y1 - self.y0

    @property
    def length(self) -> int:
        return self.y1 - self.y0 if self.upright else self.x1 - self.x0

    def pixels(self) -> np.ndarray:
        """The line from left to right; where it stands upright, from bottom to top, as along the axes of charts."""
        cut = self.image[self.y0 : self.y1, self.x0 : self.x1]
        return np.rot90(cut, -1) if self.upright else cut

    def box(self, start: float, end: float) -> list[float]:
        """The box of what lies between two fractions of the line's length, as fractions of the picture."""
        x0, y0, x1, y1 = map(float, (self.x0, self.y0, self.x1, self.y1))
        if self.upright:
            y0, y1 = self.y1 - end * self.length, self.y1 - start * self.length
        else:
            x0, x1 = self.x0 + start * self.length, self.x0 + end * self.length
        height, width = self.image.shape[:2]
        return [x0 / width, y0 / height, x1 / width, y1 / height]


Cut = Line | Slanted


def lines_at(image: np.ndarray, lines: np.ndarray, turned: bool = False) -> list[Line]:
    """Lines (n, 4), fractions of the page, in reading order, those of under two pixels left out; turned: see `Line`."""
    corners = lines * np.array([image.shape[1], image.shape[0]] * 2, np.float32)
    corners[:, :2], corners[:, 2:] = np.floor(corners[:, :2]), np.ceil(corners[:, 2:])
    corners = whole(image, corners[reading_order(corners)].astype(int))
    return [Line(image, x0, y0, x1, y1, turned) for x0, y0, x1, y1 in corners.tolist() if min(x1 - x0, y1 - y0) > 1]


def on_a_side(found: Components) -> bool:
    """Whether most of the text that was `found` stands upright, in three lines at least."""
    boxes = found.boxes
    sides = boxes[:, 2:] - boxes[:, :2]
    area = sides.prod(1)
    upright = (sides[:, 1] > 3 * sides[:, 0]) & (sides[:, 1] > 30)
    return bool(upright.sum() >= 3 and area[upright].sum() > 0.7 * area.sum())


def lines_of(image: np.ndarray, text: np.ndarray, turned: bool = False, found: Components | None = None) -> list[Cut]:
    """The lines where there is `text` (h, w) bool in `image` (H, W, 3), those that run askew last; found: in it."""
    if text.size == 0:
        return []
    found = found or components(text)
    askew, bars = slanted(found, (image.shape[1] / text.shape[1], image.shape[0] / text.shape[0]))
    level = lines_at(image, boxes_of(found.boxes[~askew], text.shape), turned)
    grown = bars[:, 2] * bars[:, 3] * _GROWN / (bars[:, 2] + bars[:, 3])
    bars[:, 2:4] += grown[:, None]
    return [*level, *(Slanted(image, *bar) for bar in bars.tolist())]


def boxes_of(found: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Boxes (n, 4) float32 of the lines, as fractions of the page, of what was `found` (m, 4) in a mask of a shape."""
    boxes = found.astype(np.float32)
    sides = boxes[:, 2:] - boxes[:, :2]
    boxes, sides = boxes[(sides >= _LEAST).all(1)], sides[(sides >= _LEAST).all(1)]
    grown = sides.prod(1, keepdims=True) * _GROWN / (2 * sides.sum(1, keepdims=True))
    boxes = np.concatenate([boxes[:, :2] - grown, boxes[:, 2:] + grown], axis=1)
    return np.clip(boxes / np.array([shape[1], shape[0]] * 2, np.float32), 0, 1)
