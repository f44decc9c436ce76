"""The reader: words with boxes of a page's picture, by PP-OCRv6-tiny detection and recognition (onnxruntime).

Lines are found at half the picture's resolution (75 dpi of 150), each is cut from the full picture, turned if it stands
upright, scaled to 48 pixels and read by greedy CTC; the time steps at which characters come out place the words.
Lines read with a mean probability under CONFIDENT are dropped, single characters under CERTAIN.
Reads Latin, Cyrillic and Greek letters, digits, Chinese, Japanese, Korean; does not read Arabic, Hebrew, Thai, Indic
scripts, handwriting or curved lines.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image

from ingest.page import Words
from retriever.encoders.box.order import reading_order
from retriever.encoders.box.scripts import consistent
from retriever.encoders.box.skew import skew, straightened, turned_back
from retriever.encoders.box.states import session

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)
_TEXT = 0.2
_GROWN = 1.4
_LEAST = 3
_LONG_SIDE = 900
_HEIGHT = 48
_WIDEST = 2400
_STRIDE = 8
CONFIDENT = 0.7
CERTAIN = 0.9


class Read(NamedTuple):
    """A line read. text, confidence (mean probability of its characters), and the words with their spans as fractions
    of the line's length."""

    text: str
    confidence: float
    words: list[tuple[str, float, float]]


class Reader:
    """Detection and recognition sessions. characters: the classes between blank and space."""

    def __init__(self, detector: bytes, recogniser: bytes, characters: bytes, threads: int) -> None:
        self._detector = session(detector, threads)
        self._recogniser = session(recogniser, 1)
        self._characters = ["", *json.loads(characters), " "]
        self._threads = threads

    def lines(self, image: np.ndarray) -> np.ndarray:
        """Boxes (n, 4) float32 of the lines of text in `image` (H, W, 3) uint8, fractions of the page."""
        return _boxes(self._text(image))

    def _text(self, image: np.ndarray) -> np.ndarray:
        """Where there is text: (h, w) bool at about 75 dpi."""
        height, width = image.shape[:2]
        if min(height, width) < 2:
            return np.zeros((0, 0), bool)
        scale = min(1.0, max(0.5, _LONG_SIDE / max(height, width)) if max(height, width) < 1800 else 0.5)
        size = [max(32, round(side * scale / 32) * 32) for side in (width, height)]
        small = np.asarray(Image.fromarray(image).resize((size[0], size[1]), Image.Resampling.BOX), np.float32)
        pixels = np.ascontiguousarray(((small / 255 - _MEAN) / _STD).transpose(2, 0, 1)[None])
        (probability,) = self._detector.run(None, {"x": pixels})
        return np.asarray(probability[0, 0] > _TEXT)

    def words(self, image: np.ndarray, lines: np.ndarray | None = None) -> Words:
        """The words of `image` (H, W, 3) uint8 in reading order; `lines` (n, 4) spares a second detection.

        Without `lines` a page that lies askew is turned straight before it is read.
        """
        degrees = 0.0
        if lines is None:
            text = self._text(image)
            degrees = skew(text)
            if degrees:
                image = straightened(image, degrees)
                text = self._text(image)
            lines = _boxes(text)
        size = np.array([image.shape[1], image.shape[0]] * 2, np.float32)
        corners = lines * size
        corners[:, :2], corners[:, 2:] = np.floor(corners[:, :2]), np.ceil(corners[:, 2:])
        corners = corners[reading_order(corners)].astype(int)
        with ThreadPoolExecutor(self._threads) as pool:
            read = list(pool.map(lambda corner: self._line(image, corner), corners.tolist()))
        texts = [word for line in read for word, _ in line]
        boxes = np.array([box for line in read for _, box in line], np.float32).reshape(-1, 4)
        if degrees:
            boxes = turned_back(boxes, degrees, image.shape[1], image.shape[0])
        return Words(texts, np.clip(boxes / size, 0, 1).astype(np.float32))

    def _line(self, image: np.ndarray, corner: list[int]) -> list[tuple[str, list[float]]]:
        """The words of one line and their boxes in pixels; none where it is not read with confidence."""
        x0, y0, x1, y1 = corner
        cut = image[y0:y1, x0:x1]
        if min(cut.shape[:2]) < 2:
            return []
        upright = cut.shape[0] > 1.6 * cut.shape[1] and cut.shape[0] > 60
        read = self._read(np.rot90(cut) if upright else cut)
        if read.confidence < (CONFIDENT if len(read.text) > 1 else CERTAIN):
            return []
        if upright:
            return [(word, [x0, y1 - end * (y1 - y0), x1, y1 - start * (y1 - y0)]) for word, start, end in read.words]
        return [(word, [x0 + start * (x1 - x0), y0, x0 + end * (x1 - x0), y1]) for word, start, end in read.words]

    def _read(self, cut: np.ndarray) -> Read:
        width = min(_WIDEST, max(_HEIGHT, round(cut.shape[1] * _HEIGHT / cut.shape[0])))
        line = Image.fromarray(np.ascontiguousarray(cut)).resize((width, _HEIGHT), Image.Resampling.BICUBIC)
        pixels = np.asarray(line, np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
        (steps,) = self._recogniser.run(None, {"x": np.ascontiguousarray(pixels)})
        return ctc(steps[0], self._characters)


def _boxes(text: np.ndarray) -> np.ndarray:
    """Boxes (n, 4) float32 of the lines, as fractions of the page, from where there is `text` (h, w) bool."""
    if text.size == 0:
        return np.zeros((0, 4), np.float32)
    boxes = components(text).astype(np.float32)
    sides = boxes[:, 2:] - boxes[:, :2]
    boxes, sides = boxes[(sides >= _LEAST).all(1)], sides[(sides >= _LEAST).all(1)]
    grown = sides.prod(1, keepdims=True) * _GROWN / (2 * sides.sum(1, keepdims=True))
    boxes = np.concatenate([boxes[:, :2] - grown, boxes[:, 2:] + grown], axis=1)
    return np.clip(boxes / np.array([text.shape[1], text.shape[0]] * 2, np.float32), 0, 1)


def ctc(steps: np.ndarray, characters: list[str]) -> Read:
    """Greedy CTC of `steps` (s, classes) of probabilities, class 0 blank, into words cut at spaces.

    A character reaches half way to the next; words are placed as fractions of the line, steps i to i + 1 of s.
    """
    best = steps.argmax(1)
    first = np.flatnonzero((best != 0) & (best != np.concatenate([[-1], best[:-1]])))
    if len(first) == 0:
        return Read("", 0.0, [])
    text = consistent([characters[k] for k in best[first]])
    confidence = float(steps[first, best[first]].mean())
    end = np.array([i + np.argmax(np.append(best[i:] != best[i], True)) for i in first])
    centre = (first + end) / 2
    half = float(np.median(np.diff(centre))) / 2 if len(centre) > 1 else 1.5
    edges = np.concatenate([[centre[0] - half], (centre[1:] + centre[:-1]) / 2, [centre[-1] + half]])
    words: list[tuple[str, float, float]] = []
    start = 0
    for stop in [*[i for i, c in enumerate(text) if c == " "], len(text)]:
        if stop > start:
            ends = np.clip(np.array([edges[start], edges[stop]]) / len(steps), 0, 1)
            words.append(("".join(text[start:stop]), float(ends[0]), float(ends[1])))
        start = stop + 1
    return Read("".join(text), confidence, words)


def components(mask: np.ndarray) -> np.ndarray:
    """Bounding boxes (n, 4) int of the 4-connected components of `mask` (H, W) bool: x0 y0 x1 y1, ends excluded.

    Runs of each row are joined with the runs they touch in the next row; labels then sink to the least by pointer
    jumping. Numpy only, some milliseconds a page.
    """
    height, width = mask.shape
    padded = np.zeros((height, width + 2), np.int8)
    padded[:, 1:-1] = mask
    change = np.flatnonzero(np.diff(padded.ravel()))
    starts, ends = change[::2], change[1::2]
    if len(starts) == 0:
        return np.zeros((0, 4), np.int64)
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
    return boxes
