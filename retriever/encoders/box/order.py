"""The order in which a person would read the lines of a page: columns of text one after the other, tables row by row.

A gutter that few lines cross makes columns where running text stands on both sides, or on one while the other's lines
are not level with it; the lines that cross it divide the page into bands. Without such a gutter, lines of about one
height are a row, read from left to right.
It knows boxes only: no language is right to left here, and no line is turned.
"""

from __future__ import annotations

import numpy as np

_CROSSING = 0.3
_FILLED = 0.6
_RUNNING = 6.0
_LINES = 3
_LEVEL = 0.25
_ALIGNED = 0.7


def reading_order(boxes: np.ndarray) -> list[int]:
    """Indices of `boxes` (n, 4) of lines, x0 y0 x1 y1 in units of one scale, in reading order."""
    return _ordered(np.asarray(boxes, np.float64).reshape(-1, 4), np.arange(len(boxes)), 0)


def _ordered(boxes: np.ndarray, which: np.ndarray, depth: int) -> list[int]:
    if len(which) < 2 * _LINES or depth > 3:
        return _rows(boxes, which)
    x = _gutter(boxes[which])
    if x is None:
        return _rows(boxes, which)
    mine = boxes[which]
    crossing = (mine[:, 0] < x) & (mine[:, 2] > x)
    centre = (mine[:, 1] + mine[:, 3]) / 2
    order: list[int] = []
    above = -np.inf
    for row in _grouped(mine, np.flatnonzero(crossing)):
        below = float(centre[row].mean())
        order += _sides(boxes, which, ~crossing & (centre > above) & (centre <= below), x, depth)
        order += which[row].tolist()
        above = below
    return order + _sides(boxes, which, ~crossing & (centre > above), x, depth)


def _sides(boxes: np.ndarray, which: np.ndarray, band: np.ndarray, x: float, depth: int) -> list[int]:
    left = boxes[which][:, 2] <= x
    return [i for side in (band & left, band & ~left) for i in _ordered(boxes, which[side], depth + 1)]


def _gutter(boxes: np.ndarray) -> float | None:
    """The x of the widest gutter crossed least, None where the two sides are not columns of running text."""
    left, right = boxes[:, 0].min(), boxes[:, 2].max()
    places = np.linspace(left, right, 201)[30:171]
    crossed = ((boxes[:, :1] < places) & (boxes[:, 2:3] > places)).sum(0)
    if crossed.min() > _CROSSING * len(boxes):
        return None
    free = np.flatnonzero(crossed == crossed.min())
    runs = np.split(free, np.flatnonzero(np.diff(free) > 1) + 1)
    x = float(places[max(runs, key=len)].mean())
    sides = boxes[boxes[:, 2] <= x], boxes[boxes[:, 0] >= x]
    running = [_running(side) for side in sides]
    return x if all(running) or (any(running) and min(map(len, sides)) >= _LINES and _apart(*sides)) else None


def _running(side: np.ndarray) -> bool:
    """Whether these are lines of running text: some, long for their height, most of them filling the side."""
    if len(side) < _LINES:
        return False
    width, height = np.median(side[:, 2] - side[:, 0]), np.median(side[:, 3] - side[:, 1])
    return bool(width >= _FILLED * (side[:, 2].max() - side[:, 0].min()) and width >= _RUNNING * height)


def _apart(left: np.ndarray, right: np.ndarray) -> bool:
    """Whether the right side's lines stand beside none of the left's: not the numbers of a table after its labels."""
    centres = [(side[:, 1] + side[:, 3]) / 2 for side in (left, right)]
    nearest = np.abs(centres[1][:, None] - centres[0]).min(1)
    return bool((nearest < _LEVEL * np.median(right[:, 3] - right[:, 1])).mean() < _ALIGNED)


def _rows(boxes: np.ndarray, which: np.ndarray) -> list[int]:
    return [int(i) for row in _grouped(boxes, which) for i in row]


def _grouped(boxes: np.ndarray, which: np.ndarray) -> list[np.ndarray]:
    """Rows from top to bottom: a line belongs to the row whose first line holds its centre; each from the left."""
    rows: list[list[int]] = []
    bottom = -np.inf
    centre = (boxes[:, 1] + boxes[:, 3]) / 2
    for i in sorted(which.tolist(), key=lambda i: (centre[i], boxes[i, 0])):
        if not rows or centre[i] > bottom:
            rows.append([])
            bottom = centre[i] + (boxes[i, 3] - boxes[i, 1]) * 0.4
        rows[-1].append(i)
    return [np.array(sorted(row, key=lambda i: boxes[i, 0])) for row in rows]
