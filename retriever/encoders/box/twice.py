"""Hangul in doubt, read once more: what stands around it, made wider, in one picture.

Many syllables differ in a stroke; what passes for another at one width seldom does at both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

WIDER = 1.2
_DOUBT = 4.0  # nats by which the likeliest is likelier than the next, less than which a syllable is in doubt
_FEWEST = 3  # syllables that make a line of Korean
_BESIDE, _TOLD = 80, 44  # columns of the first reading each side of a doubt that are read, and that are told
_APART, _STRIDE = 16, 8  # columns of paper between two parts, and columns a time step
_UNTOLD = -6.0  # nats of what a reading does not tell
_REACH = 0.65  # of the distance of characters each side that is one's own, at most


def doubted(best: np.ndarray, logits: np.ndarray, hangul: np.ndarray) -> np.ndarray:
    """The time steps of a line's syllables in doubt. best (s,): the classes; logits (s, m): of the likeliest m; hangul
    (c,) bool: of each class, whether it is a syllable."""
    found = np.flatnonzero(hangul[best])
    if len(found) < _FEWEST:
        return found[:0]
    two = np.partition(logits[found], -2, axis=1)[:, -2:]
    return found[two[:, 1] - two[:, 0] < _DOUBT]


class Again(NamedTuple):
    """A second reading of some of a line: places (r,) of its steps as fractions of the line, ascending, the likeliest
    classes (r, m) and their logits (r, m)."""

    places: np.ndarray
    classes: np.ndarray
    logits: np.ndarray


def read_again(
    line: np.ndarray,
    picture: np.ndarray,
    steps: np.ndarray,
    read: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> Again:
    """What is read around `steps` (s,) of a `line` (h, w) or (h, w, 3) uint8, made of a `picture` of any size.

    read: the classes (r, m) and logits (r, m) of a line.
    """
    height, width = line.shape[:2]
    wide = np.asarray(Image.fromarray(picture).resize((round(width * WIDER), height), Image.Resampling.BICUBIC))
    at = (steps + 0.5) * _STRIDE
    cut = np.flatnonzero(np.diff(at) > 2 * _BESIDE + _APART) + 1
    parts, places = [], []
    paper = np.full((height, _APART, *wide.shape[2:]), np.median(wide), np.uint8)
    for group in np.split(at, cut):
        start, stop = (int(np.clip(x * WIDER, 0, wide.shape[1])) for x in (group[0] - _BESIDE, group[-1] + _BESIDE))
        stop -= (stop - start) % _STRIDE
        parts += [wide[:, start:stop], paper]
        places += [(np.arange(start, stop, _STRIDE) + _STRIDE / 2) / WIDER, np.full(_APART // _STRIDE, -np.inf)]
    classes, logits = read(np.concatenate(parts, axis=1))
    place = np.concatenate(places)[: len(classes)]
    told = np.flatnonzero(np.abs(place[:, None] - at).min(1) < _TOLD)
    return Again(place[told] / width, classes[told], logits[told])


def both(
    text: Sequence[str], others: Sequence[Mapping[str, float]], centre: np.ndarray, more: Again, names: Sequence[str]
) -> tuple[list[str], list[dict[str, float]]]:
    """The characters of a line as two readings have them, and what each could be instead, see `ctc.Language`.

    centre (n,): of the characters, as fractions of the line; names: of the classes.
    """
    far = _REACH * float(np.median(np.diff(centre))) if len(centre) > 1 else 1.0
    middle = (centre[1:] + centre[:-1]) / 2
    starts = np.maximum(np.concatenate([[0], middle]), centre - far)
    stops = np.minimum(np.concatenate([middle, [1]]), centre + far)
    spans = np.searchsorted(more.places, np.stack([starts, stops], 1)).tolist()
    less = np.where(more.classes == 0, -np.inf, more.logits - more.logits.max(1, keepdims=True))
    told, found = list(text), [dict(other) for other in others]
    for i, (start, stop) in enumerate(spans):
        if text[i] == " " or max(less[start:stop].max(initial=-1), -1) < 0:
            continue
        second: dict[str, float] = {}
        for k, nats in zip(more.classes[start:stop].ravel().tolist(), less[start:stop].ravel().tolist(), strict=True):
            if k and names[k] != " ":
                second[names[k]] = max(second.get(names[k], _UNTOLD), nats)
        first = {**others[i], text[i]: 0.0}
        none = first.pop("", None)
        mean = {c: (first.get(c, _UNTOLD) + second.get(c, _UNTOLD)) / 2 for c in {*first, *second}}
        told[i] = max(mean, key=lambda c: (mean[c], c))
        found[i] = {c: nats - mean[told[i]] for c, nats in mean.items() if c != told[i]}
        if none is not None:
            found[i][""] = none
    return told, found
