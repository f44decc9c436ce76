"""Where level lines end: strokes that the detector cut off belong to them, and the bullets before them, which it seldom
sees or takes for lines of their own."""

from __future__ import annotations

import numpy as np

_INK, _FAINT = 0.4, 40  # of a line's contrast, what is ink; the contrast in grey levels below which nothing is done
_LONG = 2  # heights in length that a line has that is looked at, and bullets have not
_BESIDE = 0.3  # of a line's height: what another that is beside it shares of it
_GAP, _REACH = 0.2, 0.6  # of its height: between strokes of one word, and how far a line is made longer
_MARGIN = 0.12  # of its height: what is left beside the last stroke
_RULE = 0.9  # of its height: what rules cover of it
_FAR, _ROUND = 2.4, (0.1, 0.5)  # of its height: where bullets are looked for, and how wide they are
_SQUARE, _FULL = 0.7, 0.55  # how much higher or wider they may be, and how much of their box they cover
_MIDDLE = 0.25  # of the line's height: where their middle is not, from above and below


def whole(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The boxes (n, 4) int of level lines in `image` (H, W, 3), dark on light, with all of their last and first
    letters and bullets; those of bullets alone are empty."""
    boxes = boxes.copy()
    for i, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        high = y1 - y0
        if high < 2 or x1 - x0 < _LONG * high or not boxes[i].any():
            continue
        inside = image[y0:y1, x0:x1, 1]
        contrast = float(np.median(inside)) - float(inside.min())
        if contrast < _FAINT:
            continue
        back, reach, far = high // 4, int(_REACH * high), int(_FAR * high)
        ink = image[y0:y1, :, 1] < inside.min() + (1 - _INK) * contrast
        beside = np.minimum(boxes[:, 3], y1) - np.maximum(boxes[:, 1], y0) > _BESIDE * high
        short = boxes[:, 2] - boxes[:, 0] < _LONG * high
        left = max([0, *boxes[beside & ~short & (boxes[:, 2] <= x0), 2].tolist()])
        right = min([ink.shape[1], *boxes[beside & (boxes[:, 0] >= x1), 0].tolist()])
        boxes[i, 2] = x1 + _more(ink[:, x1 - back : min(right, x1 + reach)], back)
        x0 -= _more(ink[:, max(left, x0 - reach) : x0 + back][:, ::-1], back)
        left = max(left, x0 - far)
        if bullet := _bullet(ink[:, left:x0]):
            boxes[i, 0] = max(0, left + bullet - round(_MARGIN * high))
            x, y = (boxes[:, :2] + boxes[:, 2:]).T / 2
            boxes[short & (x > boxes[i, 0]) & (x < x0) & (y > y0) & (y < y1)] = 0
        else:
            boxes[i, 0] = x0
    return boxes


def _more(ink: np.ndarray, back: int) -> int:
    """How many columns a line goes on beyond `back` columns of `ink` (h, w) bool."""
    columns, rules = np.flatnonzero(ink.any(0)), np.flatnonzero(ink.mean(0) > _RULE)
    inked, high = np.setdiff1d(columns, rules), len(ink)
    last = int(inked[inked < back].max(initial=-1))
    if last < 0:
        return 0
    for at in inked[inked >= back].tolist():
        if at - last > _GAP * high or ((rules > last) & (rules < at)).any():
            break
        last = at
    if last < back - 1 or last >= ink.shape[1] - 1:
        return 0
    room = int(columns[columns > last].min(initial=ink.shape[1])) - last - 1
    return max(0, last + 1 + min(room, round(_MARGIN * high)) - back)


def _bullet(ink: np.ndarray) -> int | None:
    """The first column of the bullet in front of a line, in `ink` (h, w) bool, if it is all there is."""
    columns = np.flatnonzero(ink.any(0))
    if len(columns) == 0 or columns[0] == 0:
        return None
    first, last = int(columns[0]), int(columns[-1])
    rows = np.flatnonzero(ink.any(1))
    wide, tall, high = last - first + 1, int(rows[-1] - rows[0]) + 1, len(ink)
    middle = float(rows[-1] + rows[0] + 1) / 2 / high
    sized = max(3, _ROUND[0] * high) <= wide <= _ROUND[1] * high and _SQUARE < tall / wide < 1 / _SQUARE
    full = ink.sum() >= _FULL * wide * tall
    return first if sized and full and _MIDDLE < middle < 1 - _MIDDLE else None
