"""The skew of a scanned page, and places of its words once it was turned straight.

Text that runs level piles up in rows: of the angles up to STEEPEST the one is taken whose shear makes counts of text
pixels by row most uneven. Pages that stand on a side or on their head are not righted here.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

STEEPEST = 3.0
STEP = 0.1
LEAST = 0.35
_POINTS = 40_000


def ink(image: np.ndarray) -> np.ndarray:
    """Where `image` (H, W, 3) uint8 differs from its paper by 32 of 255 or more, (H / 3, W / 3) bool."""
    if min(image.shape[:2]) < 3:
        return np.zeros((0, 0), bool)
    grey = np.asarray(Image.fromarray(image).convert("L").reduce(3), np.int16)
    return np.asarray(np.abs(grey - int(np.median(grey))) >= 32)


def skew(mask: np.ndarray) -> float:
    """Degrees by which lines of text in `mask` (h, w) bool fall to the right; 0.0 below LEAST and without text."""
    y, x = np.nonzero(mask)
    if len(y) < 100:
        return 0.0
    thin = -(-len(y) // _POINTS)
    y, x = y[::thin].astype(np.float32), x[::thin].astype(np.float32)

    def uneven(degrees: float) -> float:
        rows = np.rint(y - x * np.float32(np.tan(np.radians(degrees)))).astype(np.intp)
        counts = np.bincount(rows - rows.min())
        return float(counts @ counts)

    coarse = max(np.arange(-STEEPEST, STEEPEST + 0.01, 4 * STEP), key=uneven)
    best = float(max(coarse + np.arange(-4, 5) * STEP, key=uneven))
    return best if abs(best) >= LEAST and uneven(best) > 1.05 * uneven(0.0) else 0.0


def straightened(image: np.ndarray, degrees: float) -> np.ndarray:
    """`image` (H, W, 3) uint8 turned about its centre so that lines that fall by `degrees` run level."""
    paper = tuple(int(level) for level in np.median(image[::16, ::16].reshape(-1, 3), axis=0))
    return np.asarray(Image.fromarray(image).rotate(degrees, Image.Resampling.BICUBIC, fillcolor=paper))


def turned_back(boxes: np.ndarray, degrees: float, width: int, height: int) -> np.ndarray:
    """Boxes (n, 4) in pixels of the straightened page moved to where their centres were before."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    middle = np.array([width, height], np.float32) / 2
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    turned = (centre - middle) @ np.array([[cosine, sine], [-sine, cosine]], np.float32) + middle
    return (boxes + np.tile(turned - centre, 2)).astype(np.float32)


def unturned(boxes: np.ndarray, turns: int) -> np.ndarray:
    """Boxes (n, 4) of a page turned `turns` times by 90 degrees, as `np.rot90` does -> those of it as it was; fractions
    of the page."""
    for _ in range(turns):
        boxes = np.stack([1 - boxes[:, 3], boxes[:, 0], 1 - boxes[:, 1], boxes[:, 2]], axis=1)
    return boxes
