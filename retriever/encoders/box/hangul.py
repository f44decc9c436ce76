"""What lines of Hangul are read by beside their classes: that their syllables stand equally far apart.

Of more syllables than there is room for some go, and where there is room for one more a missing one is put. Whether
there is a space between two is weighed by how far apart they are and the picture's gap, beside the distance of
syllables, what the recogniser says, and what words there would be, with weights fitted by
retriever/training/reader/spaces.py.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from retriever.encoders.box.scripts import WIDE, hangul

_ROOM = 1.4  # distances of syllables, less than which there is none for one between two
_CLOSE = 0.62  # of that, less than which there is none at an end of a line
_STEPS = 3.7  # between syllables where that is not known
_MARK = 0.6  # of that before a mark
_TWO, _TWO_APART = 1.65, 2.3  # from which on there is room for one between two, with a space beside it
_BESIDE = 0.6  # that it stands from them at least
_FEWEST = 3  # distances that tell the usual one
_USUAL, _MIDDLE = 0.285, (0.2, 0.45)  # the middle of gaps in words and at spaces, in distances: usually, and bounds
_SAID, _NATS, _WIDEST = 10.0, 25.0, 0.6  # nats and distances beyond which nothing more is told
_OPENING, _CLOSING = "([{“‘「『《`·・", ")]}”’」』》,.!?:;·・"  # after and before these no space is missed
_INNER = (-3.62, 0.99, -0.61, 6.0, 11.66, 19.54, -44.46)  # neighbours that are both Hangul, and others: see `between`
_OUTER = (5.52, 1.2, 0.0, 5.21, 1.41, 11.57, -18.41)


def crowded(text: list[str], centre: np.ndarray, sure: np.ndarray) -> np.ndarray:
    """Which characters of a line go, (n,) bool: of three without room for the middle one that, or if it is Hangul the
    less `sure` (n,) of the nearer two; the first and the last that stand too close to Hangul. centre (n,): steps."""
    gone = np.zeros(len(text), bool)
    korean, apart = [hangul(c) for c in text], np.diff(centre)
    distance = _distance(text, centre)
    close = _CLOSE * (_STEPS if np.isinf(distance) else distance)
    for i, k in ((0, 1), (len(text) - 1, len(text) - 2)) if len(text) > 1 else ():
        if text[i].isalnum() and korean[k] and not gone[k] and abs(centre[k] - centre[i]) < close:
            gone[min((i, k), key=lambda k: sure[k]) if korean[i] else i] = True
    if np.isinf(distance):
        return gone
    room = _ROOM * distance
    for i in range(1, len(text) - 1):
        odd = text[i].isalnum() or text[i] in "|{}"
        if odd and text[i] < WIDE and korean[i - 1] and text[i + 1] in ".,)!?:;":
            gone[i] = centre[i + 1] - centre[i - 1] < room * _MARK
        between = odd and korean[i - 1] and korean[i + 1] and not gone[i - 1]
        if between and centre[i + 1] - centre[i - 1] < room:
            near = (i - 1, i) if apart[i - 1] < apart[i] else (i, i + 1)
            gone[min(near, key=lambda k: sure[k]) if korean[i] else i] = True
    return gone


def missing(text: list[str], first: np.ndarray, end: np.ndarray, clear: np.ndarray) -> list[int]:
    """The steps at which a syllable was missed: where there is room for one more, the clearest each.

    first, end (n,): the steps of the characters; clear (s,): by how much the likeliest syllable of each step of the
    line is likelier than none, -inf for no syllable.
    """
    centre = (first + end) / 2
    korean, distance = [hangul(c) for c in text], _distance(text, centre)
    found: list[int] = []
    for i, k in pairwise([i for i, c in enumerate(text) if c != " "]):
        room = _TWO if k == i + 1 else _TWO_APART
        if (korean[i] or korean[k]) and centre[k] - centre[i] > room * distance:
            start, stop = centre[i] + _BESIDE * distance, centre[k] - _BESIDE * distance
            steps = np.arange(max(int(np.ceil(start)), end[i]), min(int(stop) + 1, first[k]))
            if len(steps) and np.isfinite(clear[steps]).any():
                found.append(int(steps[clear[steps].argmax()]))
    return found


def _distance(text: list[str], centre: np.ndarray) -> float:
    """That of neighbouring syllables, usually; infinite if there are few."""
    apart = [b - a for (c, a), (d, b) in pairwise(zip(text, centre.tolist(), strict=True)) if hangul(c) and hangul(d)]
    return float(np.median(apart)) if len(apart) >= _FEWEST else np.inf


def spaces(
    text: list[str],
    centre: np.ndarray,
    gaps: np.ndarray,
    said: np.ndarray,
    nats: Callable[[str], float],
) -> tuple[list[int], list[int]] | None:
    """Which characters of a line are spaces that the page has not, and before which one was missed, by a logistic
    regression on what is told `between` them; None of lines with few neighbours of Hangul, or without gaps."""
    pairs, tells, inner = between(text, centre, gaps, said, nats)
    if not pairs or len(gaps) == 0:
        return None
    false: list[int] = []
    missed: list[int] = []
    likely = np.where(inner, tells @ np.array(_INNER), tells @ np.array(_OUTER)) > 0
    for n, ((i, k), space) in enumerate(zip(pairs, likely.tolist(), strict=True)):
        if k > i + 1 and not space:
            false += range(i + 1, k)
        elif k == i + 1 and space and text[k] not in _CLOSING and (n == 0 or text[i] not in _OPENING):
            missed.append(k)
    return false, missed


def between(
    text: list[str],
    centre: np.ndarray,
    gaps: np.ndarray,
    said: np.ndarray,
    nats: Callable[[str], float],
) -> tuple[list[tuple[int, int]], np.ndarray, np.ndarray]:
    """The neighbours (n) of a line, what tells spaces between them (n, 7), which are both Hangul (n,) bool; none of
    lines with few neighbours of Hangul.

    centre (c,): columns; gaps (g, 2): those of the picture, in columns; said (c,): by how many nats the recogniser
    finds a space likelier than none after each character; nats: of a word, minus its log-probability. Told are, beside
    1, `said`, by how many nats one word is likelier than two, whether a space was read, and in distances of syllables
    how far apart the two are, the widest gap between them and what lies in the middle of the line's gaps in words and
    at spaces.
    """
    letters = [i for i, c in enumerate(text) if c != " "]
    pairs, korean = [*pairwise(letters)], [hangul(c) for c in text]
    distance = _distance(text, centre)
    if np.isinf(distance):
        return [], np.zeros((0, 7)), np.zeros(0, bool)
    place, widths = gaps.mean(1), gaps[:, 1] - gaps[:, 0]
    gap = np.array([widths[(place > centre[i]) & (place < centre[k])].max(initial=0) for i, k in pairs]) / distance
    apart = np.array([centre[k] - centre[i] for i, k in pairs]) / distance
    read = np.array([k > i + 1 for i, k in pairs])
    inner = np.array([korean[i] and korean[k] for i, k in pairs])
    middle = _USUAL
    if read.sum() > 1:
        middle = float(np.clip((np.median(gap[inner & ~read]) + np.median(gap[read])) / 2, *_MIDDLE))
    words = [_together(text, i, k, nats) if both else 0.0 for (i, k), both in zip(pairs, inner, strict=True)]
    tells = [np.ones(len(pairs)), np.clip(said[[i for i, _ in pairs]], -_SAID, _SAID), np.clip(words, -_NATS, _NATS)]
    return pairs, np.stack([*tells, read, apart, gap.clip(0, _WIDEST), np.full(len(pairs), middle)], 1), inner


def _together(text: list[str], i: int, k: int, nats: Callable[[str], float]) -> float:
    """By how many nats one word is likelier than two of the Hangul up to character i and from k on."""
    start, stop = i + 1, k
    while start > 0 and hangul(text[start - 1]):
        start -= 1
    while stop < len(text) and hangul(text[stop]):
        stop += 1
    before, after = "".join(text[start : i + 1]), "".join(text[k:stop])
    return nats(before) + nats(after) - nats(before + after)
