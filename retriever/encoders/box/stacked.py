"""Lines of Chinese, Japanese and Korean that are written from top to bottom, made into lines from left to right.

Such a line, turned on its left side, is read well but for the kana, and its figures and Latin letters stand upright
then. So a first reading says where those are and how far one character is from the next; what lies between is cut where
there is least ink, at about that distance (dynamic programming), and each cut is turned upright.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

from retriever.encoders.box.ctc import Read
from retriever.encoders.box.scripts import WIDE, hangul, kana

_SHARE, _LEAST = 0.3, 4
_NARROW, _BESIDE = 0.72, 1.75  # advances from one figure to the next, from what is before one to what is after it
_LYING = "一ー—-「」『』()（）"  # read as they lie
_STOPS = {"°": "。", "`": "、", "'": "、"}
_STEPS, _SHORTEST, _LONGEST = 16, 10, 23  # of a character's advance
_OFF, _INK = 4.0, 6.0  # what a cut costs that is off by an advance, and one through ink all along
_SIDE, _HEIGHT, _MARGIN = 44, 52, 8


class Strip(NamedTuple):
    """image (52, w, 3) uint8, the line from left to right; columns: some of the image's, rising, and the fractions of
    the line's length that they are of."""

    image: np.ndarray
    columns: np.ndarray
    fractions: np.ndarray


def strip(pixels: np.ndarray, read: Read) -> Strip | None:
    """The line `pixels` (h, w, 3) uint8, turned on its left side and read so; None where it does not seem to be one of
    upright characters."""
    wide = np.array([c >= WIDE for c in read.text])
    if len(wide) < _LEAST or wide.mean() < _SHARE:
        return None
    height, width = pixels.shape[:2]
    centre = np.array(read.centres) * width
    apart = np.diff(centre)[wide[1:] & wide[:-1]]
    if len(apart) < _LEAST - 1:
        return None
    advance = max(float(np.median(apart)), 4.0)
    paper = np.median(pixels, axis=(0, 1))
    ink = (np.abs(pixels - paper) >= 60).any(2)
    columns, rows = np.flatnonzero(ink.any(0)), np.flatnonzero(ink.any(1))
    if len(columns) == 0:
        return None
    middle = (rows[0] + rows[-1] + 1) / 2
    band = slice(max(0, int(middle - 0.55 * advance)), int(middle + 0.55 * advance) + 1)
    line, profile = pixels[band], ink[band].mean(0)
    parts, edges, at = [], [float(columns[0])], float(columns[0])
    end = float(columns[-1] + 1)
    for start, stop in [*_figures(read.text, centre, advance), (end, end)]:
        for cut in _cut(profile, at, start, advance):
            cell = line[:, round(edges[-1]) : max(round(cut), round(edges[-1]) + 1)]
            said = [c for c, x in zip(read.text, centre, strict=True) if edges[-1] <= x < cut]
            parts.append(_scaled(cell if said and said[0] in _LYING else np.rot90(cell, -1), _SIDE))
            edges.append(cut)
        if stop > edges[-1]:
            parts.append(_scaled(line[:, int(edges[-1]) : int(stop) + 1], (stop - edges[-1]) * _SIDE / line.shape[0]))
            edges.append(stop)
        at = edges[-1]
    image = np.empty((_HEIGHT, sum(part.shape[1] for part in parts) + 2 * _MARGIN, 3), np.uint8)
    image[:] = paper
    if parts:
        image[(_HEIGHT - _SIDE) // 2 : (_HEIGHT + _SIDE) // 2, _MARGIN:-_MARGIN] = np.concatenate(parts, axis=1)
    ends = _MARGIN + np.cumsum([0, *(part.shape[1] for part in parts)])
    return Strip(image, ends, np.array(edges) / width)


def restored(read: Read, made: Strip) -> Read:
    """What was read in a strip with its places along the line, marks put right (see `_marks`), no spaces between
    wide characters."""
    size = made.image.shape[1]

    def place(fraction: float) -> float:
        return float(np.interp(fraction * size, made.columns, made.fractions))

    words: list[tuple[str, float, float]] = []
    for text, start, end in read.words:
        if words and words[-1][0][-1] >= WIDE and text[0] >= WIDE:
            text, start = words[-1][0] + text, words.pop()[1]
        words.append((text, start, end))
    words = [(marked, place(start), place(end)) for text, start, end in words if (marked := _marks(text))]
    return Read(" ".join(text for text, _, _ in words), read.confidence, words, read.advance)


def _figures(text: str, centre: np.ndarray, advance: float) -> list[tuple[float, float]]:
    """Where figures or Latin letters stand as close as such do: to each other, or one to those beside it."""
    found, i = [], 0
    while i < len(text):
        j = i
        while j < len(text) and text[j].isascii() and not text[j].isspace():
            j += 1
        if j == i + 1 and 0 < i < len(text) - 1:
            narrow = text[i].isdigit() and centre[j] - centre[i - 1] < _BESIDE * advance
        else:
            narrow = j - i >= 2 and (centre[j - 1] - centre[i]) / (j - 1 - i) < _NARROW * advance
        if narrow:
            found.append((float(centre[i] - 0.27 * advance), float(centre[j - 1] + 0.27 * advance)))
        i = max(j, i + 1)
    return found


def _cut(profile: np.ndarray, start: float, end: float, advance: float) -> list[float]:
    """Where the characters between two columns end. profile: (w,) share of ink in each column."""
    count = int(round((end - start) / advance * _STEPS))
    if count < _STEPS // 2:
        return []
    places = start + np.arange(count + 1) * (end - start) / count
    ink = np.interp(places, np.arange(len(profile)), profile)
    lengths = np.arange(_SHORTEST, _LONGEST + 1)
    off = _OFF * ((lengths - _STEPS) / _STEPS) ** 2
    cost, before = np.full(count + 1, np.inf), np.zeros(count + 1, int)
    cost[0], ink[count] = 0.0, 0.0
    for i in range(_SHORTEST, count + 1):
        known = lengths[lengths <= i]
        total = cost[i - known] + off[: len(known)]
        best = int(total.argmin())
        cost[i], before[i] = total[best] + _INK * ink[i], i - known[best]
    last = int(np.flatnonzero(np.isfinite(cost))[-1])
    cuts = []
    while last > 0:
        cuts.append(float(places[last]))
        last = int(before[last])
    return cuts[::-1]


def _scaled(cell: np.ndarray, width: float) -> np.ndarray:
    size = (max(1, round(width)), _SIDE)
    return np.asarray(Image.fromarray(np.ascontiguousarray(cell)).resize(size, Image.Resampling.BICUBIC))


def _marks(text: str) -> str:
    """Bars after katakana are long vowels, rings and ticks after wide characters their stops, which stand high in such
    lines; syllables of Hangul among more kana are pieces of kana."""
    told = list(text)
    for i in range(1, len(told)):
        before = told[i - 1]
        if told[i] in "1|lI丨一" and "\u30a1" <= before <= "\u30fc" and before != "・":
            told[i] = "ー"
        elif told[i] in _STOPS and before >= WIDE:
            told[i] = _STOPS[told[i]]
    if 0 < sum(map(hangul, told)) < sum(map(kana, told)):
        told = [c for c in told if not hangul(c)]
    return "".join(told)
