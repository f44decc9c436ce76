"""What stands alone in the cells of tables: "$", of which the recogniser is not sure, and dashes, which the detector
leaves out or the recogniser takes for "1"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from retriever.encoders.box.confidence import CERTAIN, believed
from retriever.encoders.box.ctc import Read
from retriever.encoders.box.lines import Cut, Line

_FIGURE = re.compile(r"[(\[$€£¥+−–-]*\d")
_DOLLAR = frozenset("$Ss5")  # what "$" alone is read as
_BAR = frozenset("1-–—一_~")  # ... and a dash
_NEAR = 12.0  # heights of a line from "$" to its figure, and from a dash to the next figure of its column
_STACKED = 6.0  # heights between figures of one column
_EDGE = 0.4  # heights by which their right edges differ
_BESIDE = 0.5  # heights of paper on both sides of a dash
_LONG, _THICK = (0.22, 1.4), 0.13  # heights
_MIDDLE = (0.2, 0.8)  # of a row, beyond which rows above and below reach into it
_SAME = 0.12  # heights between the middles of what is in one row
_RECENT = 100  # dashes of rows so close that they may have the same one
_INK = 40  # of 255


class Cell(NamedTuple):
    """What stands in a cell, where, and after which of the lines."""

    after: int
    line: Line
    read: Read


def alone(text: str) -> Read:
    """A sign that stands by itself, as it is read."""
    return Read(text, CERTAIN, [(text, 0.0, 1.0)], np.inf, (0.5,))


def dollars(cuts: Sequence[Cut], read: Sequence[Read]) -> list[Read]:
    """The lines as they were `read`, but "$" what passes for it, stands before a figure, and is not believed or stands
    above or below others, on a page that has some."""
    level = [(i, cut) for i, cut in enumerate(cuts) if isinstance(cut, Line)]
    told = list(read)
    if not any("$" in one.text for one in read):
        return told
    signs = np.array([cut.x0 for i, cut in level if read[i].text.startswith("$")])
    figures = [(cut.x0, cut.y0, cut.y1) for i, cut in level if _FIGURE.match(read[i].text) and believed(read[i])]
    x0, y0, y1 = np.array(figures).reshape(-1, 3).T
    for i, cut in level:
        if read[i].text and _DOLLAR.issuperset(read[i].text):
            middle, high = (cut.y0 + cut.y1) / 2, min(cut.x1 - cut.x0, cut.y1 - cut.y0)
            figure = (x0 > cut.x1 - _EDGE * high) & (x0 < cut.x1 + _NEAR * high) & (y0 < middle) & (y1 > middle)
            stacked = read[i].text in "Ss" and (np.abs(signs - cut.x0) < _EDGE * high).any()
            if figure.any() and (stacked or not believed(read[i])):
                told[i] = alone("$")
    return told


def dashes(cuts: Sequence[Cut], read: Sequence[Read]) -> list[Cell]:
    """The dashes in columns of figures: flat strokes by themselves in the middle of rows that have something else.

    Columns are figures above each other whose right edges agree, and the dashes above and below those.
    """
    told = [
        (i, cut)
        for i, (cut, one) in enumerate(zip(cuts, read, strict=True))
        if isinstance(cut, Line) and believed(one) and not _BAR.issuperset(one.text)
    ]
    columns = _columns([(cut, read[i]) for i, cut in told if not cut.upright])
    if len(columns) == 0:
        return []
    y0, y1 = np.array([(cut.y0, cut.y1) for _, cut in told]).T
    middles = (y0 + y1) / 2
    left: list[Cell] = []
    last = -np.inf
    for place in np.argsort(middles, kind="stable").tolist():
        (i, row), middle = told[place], middles[place]
        if row.upright or middle - last < _SAME * row.height:
            continue
        last = middle
        same = [told[k] for k in np.flatnonzero((y0 < middle) & (y1 > middle)).tolist()]
        for start, end in _strokes(row, [cut for _, cut in same]):
            line = Line(row.image, start, row.y0, end, row.y1)
            if not any(_within(line, other) for other in left[-_RECENT:]):
                left.append(Cell(max((k for k, cut in same if cut.x1 <= end), default=i), line, alone("—")))
    found: list[Cell] = []
    while len(columns):
        under = [_under(columns, cell.line) for cell in left]
        more = [cell for cell, near in zip(left, under, strict=True) if near]
        left = [cell for cell, near in zip(left, under, strict=True) if not near]
        columns = np.array([(line.x0, (line.y0 + line.y1) / 2, line.x1) for _, line, _ in more])
        found += more
    return found


def _under(columns: np.ndarray, line: Line) -> bool:
    """Whether a line stands in one of `columns`, near what they have."""
    x0, y, x1 = columns.T
    beside = line.height / 2
    near = np.abs(y - (line.y0 + line.y1) / 2) < _NEAR * line.height
    return bool((near & (x0 - beside < line.x1) & (x1 + beside > line.x0)).any())


def without(placed: Sequence[tuple[int, Cut, Read]], cells: Sequence[Cell]) -> list[tuple[int, Cut, Read]]:
    """Lines with their places, but for those where a dash of `cells` was taken for another sign."""
    bars = {one[0] for one in placed if _BAR.issuperset(one[2].text) and any(_within(one[1], cell) for cell in cells)}
    return [one for one in placed if one[0] not in bars]


def _within(cut: Cut, cell: Cell) -> bool:
    """Whether the middle of a cell's sign lies in a line."""
    x, y = (cell.line.x0 + cell.line.x1) / 2, (cell.line.y0 + cell.line.y1) / 2
    return isinstance(cut, Line) and cut.x0 < x < cut.x1 and cut.y0 < y < cut.y1


def _columns(level: Sequence[tuple[Line, Read]]) -> np.ndarray:
    """Left edges, middles and right edges (n, 3) in pixels of the figures that stand above or below others."""
    figures = []
    for line, one in level:
        long, y = line.x1 - line.x0, (line.y0 + line.y1) / 2
        for word, start, end in one.words:
            if _FIGURE.match(word):
                figures.append((line.x0 + start * long, y, line.x0 + end * long, line.height))
    at = np.array(figures).reshape(-1, 4)
    stacked = np.zeros(len(at), bool)
    for shift in (0.0, 0.5) if len(at) else ():  # edges that agree are between the same bounds in one of both
        strip = np.floor(at[:, 2] / (2 * _EDGE * np.median(at[:, 3])) + shift)
        order = np.lexsort((at[:, 1], strip))
        apart = np.diff(at[order, 1]) / at[order[1:], 3]
        pair = (np.diff(strip[order]) == 0) & (apart > 0.5) & (apart < _STACKED)
        stacked[order[:-1][pair]] = stacked[order[1:][pair]] = True
    return at[stacked, :3]


def _strokes(row: Line, covered: Sequence[Line]) -> list[tuple[int, int]]:
    """Where flat strokes by themselves begin and end in the picture, in the row of a line, not in `covered` ones."""
    height = row.height
    above, below = (row.y0 + round(share * height) for share in _MIDDLE)
    strip = row.image[above:below, :, 1].astype(np.int16)
    ink = np.abs(strip - int(np.median(strip))) >= _INK if strip.size else np.zeros((0, 0), bool)
    inked = np.flatnonzero(ink.any(0))
    if len(inked) == 0:
        return []
    gaps = np.flatnonzero(np.diff(inked) > 1)
    x0, x1 = inked[[0, *gaps + 1]], inked[[*gaps, -1]] + 1
    apart = np.concatenate([[np.inf], x0[1:] - x1[:-1], [np.inf]])
    lone = np.minimum(apart[1:], apart[:-1]) > _BESIDE * height
    long = (x1 - x0 >= _LONG[0] * height) & (x1 - x0 <= _LONG[1] * height)
    found = []
    for start, end in zip(x0[lone & long].tolist(), x1[lone & long].tolist(), strict=True):
        rows = np.flatnonzero(ink[:, start:end].any(1))
        flat = rows[-1] - rows[0] < max(2, _THICK * height) and rows[0] > 0 and rows[-1] < len(strip) - 1
        if flat and not any(line.x0 < (start + end) / 2 < line.x1 for line in covered):
            found.append((start, end))
    return found
