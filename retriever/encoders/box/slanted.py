"""Lines of text that rise or fall across the page, as the labels below the bars of a chart."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

from retriever.encoders.box.components import Components

_GENTLE, _STEEP = 15.0, 75.0  # degrees; others are level or upright
_SLENDER, _FULL = 1.6, 0.7  # a line's length over its height, the share of its rectangle that is text
_LEAST = 6.0  # pixels


class Slanted(NamedTuple):
    """A line's place in a picture: its centre x, y, its length and height in pixels, and the degrees by which it falls
    to the right."""

    image: np.ndarray
    x: float
    y: float
    long: float
    high: float
    degrees: float
    turned: bool = False
    upright: bool = False
    short: bool = False

    @property
    def height(self) -> int:
        return round(self.high)

    @property
    def length(self) -> int:
        return round(self.long)

    def pixels(self) -> np.ndarray:
        """The line from left to right."""
        x0, y0, x1, y1 = self._within(0.0, 1.0)
        x0, y0 = max(0, int(x0)), max(0, int(y0))
        cut = Image.fromarray(np.ascontiguousarray(self.image[y0 : int(y1) + 2, x0 : int(x1) + 2]))
        size = (max(1, self.length), max(1, self.height))
        sine, cosine = np.sin(np.radians(self.degrees)), np.cos(np.radians(self.degrees))
        left = self.x - x0 - (cosine * size[0] - sine * size[1]) / 2
        top = self.y - y0 - (sine * size[0] + cosine * size[1]) / 2
        paper = tuple(int(level) for level in np.median(np.asarray(cut).reshape(-1, 3), axis=0))
        matrix = (cosine, -sine, left, sine, cosine, top)
        return np.asarray(
            cut.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=paper)
        )

    def box(self, start: float, end: float) -> list[float]:
        """The box around what lies between two fractions of the line's length, as fractions of the picture."""
        height, width = self.image.shape[:2]
        x0, y0, x1, y1 = self._within(start, end)
        return [x0 / width, y0 / height, x1 / width, y1 / height]

    def _within(self, start: float, end: float) -> tuple[float, float, float, float]:
        sine, cosine = np.sin(np.radians(self.degrees)), np.cos(np.radians(self.degrees))
        middle, long = (start + end - 1) / 2 * self.long, (end - start) * self.long
        x, y = self.x + middle * cosine, self.y + middle * sine
        wide, high = long * cosine + self.high * abs(sine), long * abs(sine) + self.high * cosine
        return float(x - wide / 2), float(y - high / 2), float(x + wide / 2), float(y + high / 2)


def slanted(found: Components, scale: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Which components are bars askew, (n,) bool, and these (m, 5): centre x, y, length, height, degrees of fall, in
    pixels of a picture `scale` times as wide and as high."""
    across, down = scale
    area, x, y, xx, yy, xy = (found.moments * (across * down, across, down, across**2, down**2, across * down)).T
    spread, middle = np.hypot((xx - yy) / 2, xy), (xx + yy) / 2
    long, high = np.sqrt(12 * (middle + spread)), np.sqrt(12 * np.maximum(middle - spread, 1e-6))
    degrees = np.degrees(np.arctan2(2 * xy, xx - yy)) / 2
    askew = (np.abs(degrees) > _GENTLE) & (np.abs(degrees) < _STEEP) & (long > _SLENDER * high) & (high >= _LEAST)
    askew &= area > _FULL * long * high
    return askew, np.stack([x, y, long, high, degrees], axis=1)[askew]
