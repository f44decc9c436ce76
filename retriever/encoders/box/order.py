"""The order in which a person would read the lines of a page: columns of text one after the other, tables row by row,
and what is wrapped within a cell together.

A gutter is a place that few lines of the page cross, or none of a stretch of it. It parts columns where running text
stands on both sides, or where the sides' lines are not level with each other, of tables and lists only where both begin
with more than a figure. Without one, lines of about one height are a row, read from left to right; of rows that stand
close, with wider gaps around them, it is read cell by cell what is wrapped in some cells but not in all.
It knows boxes only: no language is right to left here, and no line is turned. Lengths are in heights of the lines.
"""

from __future__ import annotations

import numpy as np

_CROSSING, _CROSSING_SHORT, _SHORT = 0.3, 2, 0.25
_GUTTERS, _STRETCHES = 4, 60
_DEPTH = 4
_LINES = 3
_FILLED, _LONG, _RUNNING = 0.8, 6.0, 0.4
_FIGURE, _NARROW = 4.0, 4.0
_HIGH = 0.2
_LEVEL, _LEVEL_FIGURES = 0.7, 0.4
_LEVEL_LISTS = ((10, 0.65), (4, 0.45))
_CLOSE = 1.15
_WRAPPED, _MOST = 2, 12


def reading_order(boxes: np.ndarray) -> list[int]:
    """Indices of `boxes` (n, 4) of lines, x0 y0 x1 y1 in units of one scale, in reading order."""
    return _ordered(np.asarray(boxes, np.float64).reshape(-1, 4), np.arange(len(boxes)), 0)


def _ordered(boxes: np.ndarray, which: np.ndarray, depth: int) -> list[int]:
    gutter = _gutter(boxes[which]) if len(which) >= 2 * _LINES and depth < _DEPTH else None
    if gutter is None:
        return _rows(boxes, which)
    x, top, bottom = gutter
    centre = _centres(boxes[which])
    above, below = which[centre < top], which[centre > bottom]
    within = which[(centre >= top) & (centre <= bottom)]
    return [*_ordered(boxes, above, depth), *_bands(boxes, within, x, depth), *_ordered(boxes, below, depth)]


def _bands(boxes: np.ndarray, which: np.ndarray, x: float, depth: int) -> list[int]:
    """Both sides of a gutter, between the lines that cross it."""
    mine, order, above = boxes[which], [], -np.inf
    crossing = (mine[:, 0] < x) & (mine[:, 2] > x)
    centre, left = _centres(mine), mine[:, 2] <= x
    crossed = _grouped(mine, np.flatnonzero(crossing))
    for row in [*crossed, np.array([], int)]:
        below = float(centre[row].mean()) if len(row) else np.inf
        band = ~crossing & (centre > above) & (centre <= below)
        for side in (band & left, band & ~left):
            order += _ordered(boxes, which[side], depth + 1)
        order += which[row].tolist()
        above = below
    return order


def _gutter(boxes: np.ndarray) -> tuple[float, float, float] | None:
    """The x of a gutter between columns, and the heights from which to which it goes: of the whole page the widest that
    parts it, else of the longest stretch."""
    lines = boxes[np.argsort(_centres(boxes), kind="stable")]
    left, right = lines[:, 0].min(), lines[:, 2].max()
    places = np.linspace(left, right, 201)[20:181]
    crossed = (lines[:, :1] < places) & (lines[:, 2:3] > places)
    times, short = crossed.sum(0), crossed[lines[:, 2] - lines[:, 0] < _SHORT * (right - left)].sum(0)
    if times.min() <= _CROSSING * len(lines):
        free = np.flatnonzero(times == times.min())
        runs = np.split(free, np.flatnonzero(np.diff(free) > 1) + 1)
        for run in sorted(runs, key=len, reverse=True)[:_GUTTERS]:
            x = float(places[run].mean())
            if short[run].min() <= _CROSSING_SHORT and _columns(lines[lines[:, 2] <= x], lines[lines[:, 0] >= x]):
                return x, -np.inf, np.inf
    for start, end, x in _stretches(lines, places, crossed):
        part = lines[start:end]
        if _columns(part[part[:, 2] <= x], part[part[:, 2] > x]):
            centre = _centres(part)
            return x, float(centre[0]), float(centre[-1])
    return None


def _stretches(lines: np.ndarray, places: np.ndarray, crossed: np.ndarray) -> list[tuple[int, int, float]]:
    """Runs of `lines` (from, to) that do not cross an x and have some on both sides of it, the longest first.

    crossed: (lines, places), which line crosses which of the `places`.
    """
    found: dict[tuple[int, int, int], list[float]] = {}
    for place, x in enumerate(places.tolist()):
        ends = np.concatenate([[-1], np.flatnonzero(crossed[:, place]), [len(lines)]])
        for k in np.flatnonzero(np.diff(ends) > 2 * _LINES).tolist():
            start, end = int(ends[k]) + 1, int(ends[k + 1])
            before = int((lines[start:end, 2] <= x).sum())
            if min(before, end - start - before) >= _LINES:
                found.setdefault((end - start, start, before), []).append(x)
    longest = sorted(found.items(), reverse=True)[:_STRETCHES]
    return [(start, start + count, float(np.mean(xs))) for (count, start, _), xs in longest]


def _columns(left: np.ndarray, right: np.ndarray) -> bool:
    """Whether the lines on both sides are of two columns of the page rather than of one table."""
    sides = left, right
    if min(map(len, sides)) < _LINES:
        return False
    level, full = max(_level(left, right), _level(right, left)), [_full(side) for side in sides]
    if level >= _LEVEL and min(full) < _LINES:
        return False
    rows = [_grouped(side, np.arange(len(side))) for side in sides]
    running = [count >= max(_LINES, _RUNNING * len(own)) for count, own in zip(full, rows, strict=True)]
    if all(running):
        return True
    figures = any(_begins_with_figures(side, own) for side, own in zip(sides, rows, strict=True))
    if any(running):
        return level < (_LEVEL_FIGURES if figures else _LEVEL)
    fewest = min(map(len, rows))
    return not figures and level < next((share for least, share in _LEVEL_LISTS if fewest >= least), 0)


def _full(side: np.ndarray) -> int:
    """How many lines are long for their height and fill the side."""
    least = max(_FILLED * (side[:, 2].max() - side[:, 0].min()), _LONG * _height(side))
    return int((side[:, 2] - side[:, 0] >= least).sum())


def _begins_with_figures(side: np.ndarray, rows: list[np.ndarray]) -> bool:
    """Whether rows begin with something short, a number or a mark and not a label."""
    first = side[[row[0] for row in rows]]
    return bool(np.median(first[:, 2] - first[:, 0]) < _FIGURE * _height(side))


def _level(side: np.ndarray, other: np.ndarray) -> float:
    """Share of a side's lines that are as high as one of the other, but for what most of them differ by."""
    here, there = _centres(side), np.sort(_centres(other))
    after = np.searchsorted(there, here).clip(1, len(there) - 1)
    before = after - (here - there[after - 1] < there[after] - here)
    apart = there[before] - here
    return float((np.abs(apart - np.median(apart)) < _HIGH * _height(side)).mean())


def _rows(boxes: np.ndarray, which: np.ndarray) -> list[int]:
    """Row by row, rows that stand close by `_cells`."""
    rows = _grouped(boxes, which)
    if len(rows) == len(which):
        return [int(row[0]) for row in rows]
    centre = np.array([_centres(boxes[row]).mean() for row in rows])
    height = np.array([_height(boxes[row]) for row in rows])
    wide = np.diff(centre) > _CLOSE * np.minimum(height[1:], height[:-1])
    ends = [0, *(np.flatnonzero(wide) + 1).tolist(), len(rows)]
    return [i for start, end in zip(ends, ends[1:], strict=False) for i in _cells(boxes, rows[start:end])]


def _cells(boxes: np.ndarray, rows: list[np.ndarray]) -> list[int]:
    """A row of a table whose cells are wrapped, cell by cell; rows one after the other where they look like several:
    where all cells have as many lines or more than _WRAPPED, or columns of figures have some."""
    flat = [int(i) for row in rows for i in row]
    if len(rows) == 1 or len(rows) == len(flat) or len(rows) > _MOST:
        return flat
    cells: list[list[int]] = []
    end = -np.inf
    for i in sorted(flat, key=lambda i: boxes[i, 0]):
        if not cells or boxes[i, 0] >= end - 0.3 * (boxes[i, 3] - boxes[i, 1]):
            cells.append([])
            end = boxes[i, 2]
        cells[-1].append(i)
        end = max(end, boxes[i, 2])
    counts, widest = [len(cell) for cell in cells], max(map(len, rows))
    wrapped = [boxes[cell] for cell in cells if len(cell) > 1]
    narrow = sum(bool(np.median(cell[:, 2] - cell[:, 0]) < _NARROW * _height(cell)) for cell in wrapped)
    several = min(counts) == max(counts) or min(counts) > _WRAPPED or narrow > (len(wrapped) == 1)
    if several or widest > len(cells):
        return flat
    return [i for cell in cells for i in sorted(cell, key=lambda i: boxes[i, 1] + boxes[i, 3])]


def _grouped(boxes: np.ndarray, which: np.ndarray) -> list[np.ndarray]:
    """Rows from top to bottom: a line belongs to the row whose first line holds its centre; each from the left."""
    rows: list[list[int]] = []
    bottom = -np.inf
    centre = _centres(boxes)
    for i in sorted(which.tolist(), key=lambda i: (centre[i], boxes[i, 0])):
        if not rows or centre[i] > bottom:
            rows.append([])
            bottom = centre[i] + (boxes[i, 3] - boxes[i, 1]) * 0.4
        rows[-1].append(i)
    return [np.array(sorted(row, key=lambda i: boxes[i, 0])) for row in rows]


def _centres(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 1] + boxes[:, 3]) / 2


def _height(boxes: np.ndarray) -> float:
    return float(np.median(boxes[:, 3] - boxes[:, 1]))
