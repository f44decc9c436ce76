"""Connected components of a mask, in numpy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Components(NamedTuple):
    """boxes: (n, 4) int, x0 y0 x1 y1, ends excluded; moments: (n, 6), of the pixels their count, mean x and y, and the
    variances of x and y with their covariance."""

    boxes: np.ndarray
    moments: np.ndarray


def components(mask: np.ndarray) -> Components:
    """The 4-connected components of `mask` (H, W) bool.

    Runs of each row are joined with the runs they touch in the next row; labels then sink to the least by pointer
    jumping. Numpy only, some milliseconds a page.
    """
    height, width = mask.shape
    padded = np.zeros((height, width + 2), np.int8)
    padded[:, 1:-1] = mask
    change = np.flatnonzero(np.diff(padded.ravel()))
    starts, ends = change[::2], change[1::2]
    if len(starts) == 0:
        return Components(np.zeros((0, 4), np.int64), np.zeros((0, 6)))
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
    long, middle = ends - starts, (starts % stride + ends - 1 - y * stride) / 2 + 0.5
    area = np.bincount(group, long)

    def mean(of: np.ndarray) -> np.ndarray:
        return np.bincount(group, long * of) / area

    x, high = mean(middle), mean(y + 0.5)
    xx, yy = mean(middle**2 + long**2 / 12) - x**2, mean((y + 0.5) ** 2 + 1 / 12) - high**2
    return Components(boxes, np.stack([area, x, high, xx, yy, mean(middle * (y + 0.5)) - x * high], axis=1))
