"""Spaces of a line: those that the recogniser gave and the page has not, and those that it missed."""

from __future__ import annotations

import re

import numpy as np

from retriever.encoders.box.scripts import WIDE, hangul

_SPACE = 12.0
_BESIDE = 4  # gaps each side, which in monospaced words are wide
_LEAST = 4  # columns that most gaps in monospaced words are wider than
_ADDRESS = re.compile(r"(?:https? ?: ?//|www ?\.)(?:\S| (?=[./])|(?:(?<=[.])|(?<=//)) (?=[a-z0-9]))+")
_NARROW, _CLOSE = 0.8, 0.7  # of the other spaces, and of what is between the middles of characters
_FEW = re.compile(r"\d(?!\d\d)")  # fewer than three figures
_SLENDER = frozenset(".:/_'\"()[]*~-|!iltrfj")  # beside which they are widest


def between_wide(text: list[str], centre: np.ndarray, least: float) -> np.ndarray:
    """(n,) bool, which characters are spaces between Chinese characters or kana whose centres are less than `least`
    steps apart, which the page has not."""
    false = np.zeros(len(text), bool)
    for i in [i for i in range(1, len(text) - 1) if text[i] == " "]:
        if all(text[side] >= WIDE and not hangul(text[side]) for side in (i - 1, i + 1)):
            false[i] = centre[i + 1] - centre[i - 1] < least
    return false


def monospaced(text: list[str], centre: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """(n,) bool, which characters are spaces no wider than what is between the letters of monospaced words, or, beside
    figures, narrower than the others, as before and behind a one; those that part thousands stay."""
    false = np.zeros(len(text), bool)
    spaces = np.flatnonzero([c == " " for c in text])
    if len(spaces) < 3 or len(gaps) < _BESIDE:
        return false
    place, width = gaps.mean(1), gaps[:, 1] - gaps[:, 0]
    apart = median(np.diff(centre))
    near = np.abs(centre[spaces][:, None] - place) < 1.2 * apart
    own, letters = np.where(near, width, 0), ~near.any(0)
    widest = own.max(1)
    usual = median(widest)
    for space, gap, wide in zip(spaces.tolist(), own.argmax(1).tolist(), widest.tolist(), strict=True):
        beside = slice(max(0, gap - _BESIDE), gap + _BESIDE + 1)
        around = median(width[beside][letters[beside]]) if letters[beside].sum() >= _BESIDE else 0.0
        false[space] = around > _LEAST < wide < min(0.6 * usual, 1.6 * around)
        figures = space > 0 and text[space - 1].isdigit() and _FEW.match("".join(text[space + 1 : space + 4]))
        false[space] |= bool(figures) and wide < min(_NARROW * usual, _CLOSE * apart)
    return false


def in_addresses(text: list[str]) -> list[int]:
    """Which characters are spaces at the points, slashes and colons of web addresses, which have none."""
    found = _ADDRESS.finditer("".join(text)) if max(map(len, text)) == 1 else ()
    return [i for one in found for i in range(*one.span()) if text[i] == " "]


def gaps(line: np.ndarray) -> np.ndarray:
    """The gaps between strokes along `line` (h, w) uint8, (g, 2) columns, ends excluded; margins are none."""
    middle = line[len(line) // 7 : -len(line) // 7]
    half = (middle.size - 1) // 2
    paper = int(np.partition(middle.ravel(), half)[half])  # the median
    away = np.maximum(middle.max(0).astype(np.int16) - paper, paper - middle.min(0).astype(np.int16))
    stroke = np.flatnonzero(away >= 0.25 * away.max())
    before = np.flatnonzero(np.diff(stroke) > 1)
    return np.stack([stroke[before] + 1, stroke[before + 1]], axis=1)


def missed_spaces(text: list[str], centre: np.ndarray, gaps: np.ndarray) -> list[int]:
    """Before which characters of `text`, at columns `centre`, a space was missed.

    A gap belongs to the space within a character's advance of it; others as wide as those of spaces, or where there
    are not two as wide as a space should be, are missed ones. None in numbers or in scripts without spaces, nor
    before the first character or after the last, as to the frame of a chart; beside slender letters and points only
    where it is wider than those around it, as such are in monospaced words.
    """
    place, width = gaps.mean(1), gaps[:, 1] - gaps[:, 0]
    within = (place > centre[:1]) & (place < centre[-1:])
    place, width = place[within], width[within]
    if len(text) < 3 or len(place) == 0:
        return []
    near = 1.2 * median(np.diff(centre))
    spaces = centre[np.array([c == " " for c in text])]
    off = spaces[:, None] - place if len(spaces) else np.full((1, len(place)), np.inf)
    nearest = np.abs(off).argmin(0)
    off = off[nearest, np.arange(len(place))]
    taken = np.abs(off) < near
    usual, late = _SPACE, 0.0
    if len(known := np.unique(nearest[taken])) > 1:
        widest = np.zeros(len(spaces))
        np.maximum.at(widest, nearest[taken], width[taken])
        usual = median(widest[known])
        late = median(off[taken & (width >= 0.75 * usual)])
    least = max(0.75 * usual, 2.2 * median(width) + 2)
    edges = (centre[1:] + centre[:-1]) / 2
    missed = []
    for gap in np.flatnonzero(~taken & (width >= least)).tolist():
        i = int(np.abs(edges - place[gap] - late).argmin()) + 1
        i += text[i] in ",." and text[i - 1].isalpha() and i + 1 < len(text)  # the gap is behind it
        pair = text[i - 1] + text[i]
        around = slice(max(0, gap - _BESIDE), gap + _BESIDE + 1)
        beside = width[around][~taken[around]]
        wide = not _SLENDER.isdisjoint(pair) and len(beside) > _BESIDE and width[gap] < 2.2 * median(beside) + 2
        number = pair.isdigit() or (pair[0].isdigit() and pair[1] in ",." and "".join(text[i + 1 : i + 2]).isdigit())
        if " " not in pair and max(pair) < WIDE and not number and not wide:
            missed.append(i)
    return sorted({*missed})


def median(values: np.ndarray) -> float:
    """As numpy's, whose checks take longer than the median of so few."""
    ordered = np.sort(values)
    return float(ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
