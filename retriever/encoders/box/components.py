"""Connected components of a mask, in numpy."""

from __future__ import annotations

import numpy as np


def components(mask: np.ndarray) -> np.ndarray:
    """Bounding boxes (n, 4) int of the 4-connected components of `mask` (H, W) bool: x0 y0 x1 y1, ends excluded.

    Runs of each row are joined with the runs they touch in the next row; labels then sink to the least by pointer
    jumping. Numpy only, some milliseconds a page.
    """
    height, width = mask.shape
    padded = np.zeros((height, width + 2), np.int8)
    padded[:, 1:-1] = mask
    change = np.flatnonzero(np.diff(padded.ravel()))
    starts, ends = change[::2], change[1::2]
    if len(starts) == 0:
        return np.zeros((0, 4), np.int64)
    stride = width + 2
    low = np.searchsorted(ends, starts + stride, "right")
    high = np.searchsorted(starts, ends + stride, "left")
    count = np.maximum(high - low, 0)
    above = np.repeat(np.arange(len(starts)), count)
    below = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(low, count)
    label = np.arange(len(starts))
    while True:
        least = np.minimum(label[above], label[below])
        sunk = label.copy()
        for end in (above, below, label[above], label[below]):
            np.minimum.at(sunk, end, least)
        while not np.array_equal(sunk, sunk[sunk]):
            sunk = sunk[sunk]
        if np.array_equal(sunk, label):
            break
        label = sunk
    _, group = np.unique(label, return_inverse=True)
    n = int(group.max()) + 1
    boxes = np.stack([np.full(n, width), np.full(n, height), np.zeros(n, int), np.zeros(n, int)], axis=1)
    y = starts // stride
    np.minimum.at(boxes[:, 0], group, starts % stride)
    np.minimum.at(boxes[:, 1], group, y)
    np.maximum.at(boxes[:, 2], group, ends - y * stride)
    np.maximum.at(boxes[:, 3], group, y + 1)
    return boxes
