"""What lines of Hangul are read by beside their classes: that their syllables stand equally far apart.

Of more syllables than there is room for some go, and where there is room for one more a missing one is put; spaces
stand where the picture's gaps are wide beside the distance of syllables (.28 of it and less between those of a word, .3
and more at spaces, in the fonts that were measured), and what the words on either side are makes up for little.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from retriever.encoders.box.scripts import WIDE, hangul

_ROOM = 1.4  # distances of syllables, less than which there is none for one between two
_MARK = 0.6  # of that before a mark
_TWO, _TWO_APART = 1.65, 2.3  # from which on there is room for one between two, with a space beside it
_BESIDE = 0.6  # that it stands from them at least
_FEWEST = 3  # distances that tell the usual one
_GAP, _GAPS = 0.285, (0.24, 0.5)  # what parts gaps in words from spaces, in distances: usually, at least and at most
_COMMA = 0.75  # of _WIDE after commas and stops, which have room behind them
_ONE = 0.6  # of the gap at the only space
_NARROW, _WIDE = 0.8, 1.15  # of what parts them: spaces below are false, gaps above are spaces
_ALONE, _FEW_SPACES = 0.5, 2  # of the median space's gap, where words are of one syllable and spaces more than so few
_MIXED = 0.5  # wrong gaps a space from which on the gaps tell nothing
_WORDS, _MOST = 0.01, 0.08  # distances that a gap has to be wider for a nat by which one word is likelier; at most
_STOPS = ",.，．"
_BEFORE = _STOPS + ")!?:;）！？：；"  # after these spaces are looked for, too, as after letters, and _BULLETS in front
_BULLETS = "•·・"


def crowded(text: list[str], centre: np.ndarray, sure: np.ndarray) -> np.ndarray:
    """Which characters of a line go, (n,) bool: of three without room for the middle one that, or if it is Hangul the
    less `sure` (n,) of the nearer two. centre (n,): steps."""
    gone = np.zeros(len(text), bool)
    korean, apart = [hangul(c) for c in text], np.diff(centre)
    room = _ROOM * _distance(text, centre)
    if np.isinf(room):
        return gone
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
    text: list[str], centre: np.ndarray, gaps: np.ndarray, nats: Callable[[str], float] | None = None
) -> tuple[list[int], list[int]]:
    """Which characters of a line are spaces that the page has not, and before which one was missed.

    centre (n,): columns; gaps (g, 2): those of the picture, in columns; nats: of a word, minus its log-probability.
    What parts gaps in words from those at spaces is where the fewest are on the wrong side, if the line has spaces.
    """
    letters = [i for i, c in enumerate(text) if c != " "]
    place, widths = gaps.mean(1), gaps[:, 1] - gaps[:, 0]
    found: list[tuple[int, int]] = []  # neighbours: Hangul, or beside it what a missed space could part from it
    for i, k in pairwise(letters):
        bullet = i == letters[0] and text[i] in _BULLETS
        before = hangul(text[i]) or text[i] in _BEFORE or text[i].isalnum() or bullet
        comma = text[i] in ",，" and i > 0 and hangul(text[i - 1]) and text[k].isalpha()
        behind = hangul(text[k]) or (text[k].isalnum() and (hangul(text[i]) or bullet)) or comma
        if (hangul(text[i]) and hangul(text[k])) or (k == i + 1 and before and behind):
            found.append((i, k))
    width = np.array([widths[(place > centre[i]) & (place < centre[k])].max(initial=0) for i, k in found], float)
    spaced = np.array([k > i + 1 for i, k in found], bool)
    inner = np.array([hangul(text[i]) and hangul(text[k]) and k == i + 1 for i, k in found], bool)
    distance = float(np.median([centre[k] - centre[i] for i, k in np.array(found)[inner]])) if inner.any() else 0.0
    parts = _parts(width, spaced, inner, distance)
    false: list[int] = []
    missed: list[int] = []
    for (i, k), gap, space in zip(found, width.tolist(), spaced.tolist(), strict=True):
        least = parts[0] if space else parts[1] * (_COMMA if text[i] in _STOPS else 1)
        if nats and abs(gap - least) < _MOST * distance:
            least += distance * min(_MOST, max(-_MOST, _WORDS * _together(text, i, k, nats)))
        if space and gap < least:
            false += range(i + 1, k)
        elif not space and gap > least:
            missed.append(k)
    return false, missed


def _together(text: list[str], i: int, k: int, nats: Callable[[str], float]) -> float:
    """By how many nats one word is likelier than two of the Hangul up to character i and from k on."""
    start, stop = i + 1, k
    while start > 0 and hangul(text[start - 1]):
        start -= 1
    while stop < len(text) and hangul(text[stop]):
        stop += 1
    before, after = "".join(text[start : i + 1]), "".join(text[k:stop])
    return nats(before) + nats(after) - nats(before + after) if before and after else 0.0


def _parts(width: np.ndarray, spaced: np.ndarray, inner: np.ndarray, distance: float) -> tuple[float, float]:
    """Below which width a gap is no space, above which it is one: (0, inf) if the gaps tell nothing. spaced, inner (n,)
    bool: which pairs have a space between them, which are in a word; distance: of those, usually."""
    if inner.sum() < _FEWEST:
        return (_ALONE * float(np.median(width[spaced])) if spaced.sum() > _FEW_SPACES else 0.0), np.inf
    if np.median(width[inner]) == 0:
        return 0.0, np.inf
    parts = _GAP * distance
    if spaced.sum() == 1:
        parts = max(parts, _ONE * float(width[spaced][0]))
    elif spaced.any():
        limits = np.array(_GAPS) * distance
        edges = np.unique(np.concatenate([limits, width[spaced | inner].clip(*limits)]))
        middle = (edges[1:] + edges[:-1]) / 2
        wrong = (width[spaced] < middle[:, None]).sum(1) + (width[inner] > middle[:, None]).sum(1)
        if wrong.min() > _MIXED * spaced.sum() or np.median(width[spaced]) < parts:
            return 0.0, np.inf
        best = np.flatnonzero(wrong == wrong.min())
        parts = float(middle[best[np.argmax(np.diff(edges)[best])]])
    return _NARROW * parts, _WIDE * parts
