"""The reader: words with boxes of a page's picture, by PP-OCRv6-tiny detection and recognition (onnxruntime).

Lines are found at half the picture's resolution (75 dpi of 150), each is cut from the full picture, turned if it stands
upright, scaled to 48 pixels and read (`ctc`). The recogniser leaves out letters that stand closer than two of its time
steps, so lines are made as wide as the first of their height asks for, and read again where that was too narrow. Pages
that lie askew, on a side or on their head are righted; lines of upright characters from top to bottom are read as such
(`stacked`). Lines read with a mean probability under CONFIDENT are dropped,
single characters under CERTAIN.
Reads Latin, Cyrillic and Greek letters, digits, Chinese, Japanese, Korean; does not read Arabic, Hebrew, Thai, Indic
scripts, handwriting or curved lines.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image

from ingest.page import Words
from retriever.encoders.box.components import components
from retriever.encoders.box.ctc import Doubts, Read, ctc, gaps
from retriever.encoders.box.order import reading_order
from retriever.encoders.box.scripts import mixed, narrow, settled
from retriever.encoders.box.skew import LEAST, ink, skew, straightened, turned_back
from retriever.encoders.box.stacked import restored, strip
from retriever.encoders.box.states import session

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)
_TEXT = 0.2
_GROWN = 1.2
_LEAST = 3
_LONG_SIDE = 900
_HEIGHT = 48
_WIDEST = 4000
ADVANCE, CLOSE = 2.0, 1.6  # time steps a character, aimed at and too few
NARROW = 2.5  # time steps aimed at where letters stand close together
_USUAL = 0.083  # time steps a character over a line's height in pixels, before any line is read
_SHORT = 4
CONFIDENT = 0.7
CERTAIN = 0.9
_DOUBTED = 0.75
_DOUBTFUL = 0.94  # letters upside down pass for others at up to .93, kana on a side at up to .92


class Line(NamedTuple):
    """A line's place in a picture, in pixels; turned: whether the picture was turned on its side before."""

    image: np.ndarray
    x0: int
    y0: int
    x1: int
    y1: int
    turned: bool = False

    @property
    def upright(self) -> bool:
        return self.y1 - self.y0 > 1.6 * (self.x1 - self.x0) and self.y1 - self.y0 > 60

    @property
    def height(self) -> int:
        return self.x1 - self.x0 if self.upright else self.y1 - self.y0

    @property
    def length(self) -> int:
        return self.y1 - self.y0 if self.upright else self.x1 - self.x0

    def pixels(self) -> np.ndarray:
        """The line from left to right."""
        cut = self.image[self.y0 : self.y1, self.x0 : self.x1]
        return np.rot90(cut) if self.upright else cut

    def box(self, start: float, end: float) -> list[float]:
        """The box of what lies between two fractions of the line's length, as fractions of the picture."""
        x0, y0, x1, y1 = map(float, (self.x0, self.y0, self.x1, self.y1))
        if self.upright:
            y0, y1 = self.y1 - end * self.length, self.y1 - start * self.length
        else:
            x0, x1 = self.x0 + start * self.length, self.x0 + end * self.length
        height, width = self.image.shape[:2]
        return [x0 / width, y0 / height, x1 / width, y1 / height]


Wide = tuple[Read, float]  # a line read, and the width that would have been right


class Reader:
    """Detection and recognition sessions. characters: the letters that can be read."""

    def __init__(
        self, detector: bytes, recogniser: bytes, characters: bytes, threads: int, nats: Callable[[str], float]
    ) -> None:
        """characters: JSON, the classes after blank; nats: of a word, minus its log-probability."""
        self._detector = session(detector, threads)
        self._recogniser = session(recogniser, 1)
        self._characters = ["", *json.loads(characters)]
        places: dict[str, int] = {}
        self._first = np.array([places.setdefault(c, k) for k, c in enumerate(self._characters)])
        self.characters = frozenset(self._characters[1:])
        self._threads, self._nats = threads, nats

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
        small = np.asarray(Image.fromarray(image).resize((size[0], size[1]), Image.Resampling.BOX))
        pixels = np.empty((1, 3, size[1], size[0]), np.float32)
        for channel in range(3):
            pixels[0, channel] = (small[:, :, channel] / np.float32(255) - _MEAN[channel]) / _STD[channel]
        (probability,) = self._detector.run(None, {"x": pixels})
        return np.asarray(probability[0, 0] > _TEXT)

    def words(self, image: np.ndarray, lines: np.ndarray | None = None) -> Words:
        """The words of `image` (H, W, 3) uint8 in reading order; `lines` (n, 4) spares a second detection.

        Without `lines` a page that lies askew, on a side or on its head is righted before it is read.
        """
        if lines is not None:
            return self._words(_cuts(image, lines))
        image, text, degrees = self._straight(image)
        turns = int(_on_a_side(text))
        cuts = _cuts(np.rot90(image, turns), _boxes(np.rot90(text, turns)), turned=turns == 1)
        on_its_head, known = self._on_its_head(cuts)
        if on_its_head:
            turns += 2
            cuts, known = _cuts(np.rot90(image, turns), _boxes(np.rot90(text, turns))), {}
        found = self._words(cuts, known)
        boxes = found.boxes
        for _ in range(turns):
            boxes = np.stack([1 - boxes[:, 3], boxes[:, 0], 1 - boxes[:, 1], boxes[:, 2]], axis=1)
        if degrees:
            size = np.array([image.shape[1], image.shape[0]] * 2, np.float32)
            boxes = turned_back(boxes * size, degrees, image.shape[1], image.shape[0]) / size
        return Words(found.texts, np.clip(boxes, 0, 1).astype(np.float32))

    def _straight(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """The page turned level, where it has text, and the degrees by which its lines fell.

        The angle of the ink spares a second detection where that of the text agrees.
        """
        degrees = skew(ink(image))
        level = straightened(image, degrees) if degrees else image
        text = self._text(level)
        if more := skew(text):
            degrees = degrees + more if abs(degrees + more) >= LEAST else 0.0
            level = straightened(image, degrees) if degrees else image
            text = self._text(level)
        return level, text, degrees

    def _on_its_head(self, cuts: list[Line]) -> tuple[bool, dict[int, Wide]]:
        """Whether the longest lines read better upside down, where the longest reads badly or in two scripts; how the
        longest reads as it stands."""
        longest = sorted((i for i, line in enumerate(cuts) if not line.upright), key=lambda i: -cuts[i].length)[:3]
        known = {i: self._read_wide(cuts[i], _guess(cuts[i].height)) for i in longest[:1]}
        certain = [read.confidence >= _DOUBTFUL and not mixed(read.text) for read, _ in known.values()]
        if len(longest) < 3 or certain[0]:
            return False, known
        level = sum(self._read(cuts[i].pixels(), 1.0).confidence for i in longest)
        return sum(self._read(cuts[i].pixels()[::-1, ::-1], 1.0).confidence for i in longest) > level, known

    def _words(self, cuts: list[Line], known: dict[int, Wide] | None = None) -> Words:
        """The words of lines, and their boxes as fractions of the picture. known: what of them was read before."""
        with ThreadPoolExecutor(self._threads) as pool:
            read = self._lines(cuts, pool, known or {})
        texts, boxes = [], []
        for line, told in zip(cuts, read, strict=True):
            if told.confidence >= _least(told.text):
                texts += [word for word, _, _ in told.words]
                boxes += [line.box(start, end) for _, start, end in told.words]
        found = np.array(boxes, np.float32).reshape(-1, 4)
        return Words(settled(texts), np.clip(found, 0, 1).astype(np.float32))

    def _lines(self, cuts: list[Line], pool: ThreadPoolExecutor, known: dict[int, Wide]) -> list[Read]:
        """Reads all lines: first the longest of each height, which tells how wide the others are to be."""
        heights: dict[int, list[int]] = {}
        for i in sorted(range(len(cuts)), key=lambda i: -cuts[i].length):
            heights.setdefault(cuts[i].height, []).append(i)
        first = [same[0] for same in heights.values()]
        new = [i for i in first if i not in known]
        told = pool.map(lambda i: self._read_wide(cuts[i], _guess(cuts[i].height)), new)
        read = {**known, **dict(zip(new, told, strict=True))}
        widths = {cuts[i].height: min(max(read[i][1], 0.8), 1.6) for i in first}
        rest = [i for same in heights.values() for i in same[1:] if i not in known]
        told = pool.map(lambda i: self._read_wide(cuts[i], widths[cuts[i].height]), rest)
        read.update(zip(rest, told, strict=True))
        return [read[i][0] for i in range(len(cuts))]

    def _read_wide(self, line: Line, width: float) -> Wide:
        """A line read `width` times as wide as it is, again where its characters stand too close, and the width that
        would have been right."""
        pixels = line.pixels()
        read = self._read(pixels, width)
        advance, close = (NARROW, CLOSE * NARROW / ADVANCE) if narrow(read.text) else (ADVANCE, CLOSE)
        right = width * advance / read.advance if read.confidence >= CONFIDENT else 1.0
        if read.advance < close and len(read.text) >= _SHORT:
            wider = self._read(pixels, width * min(1.6, advance / read.advance))
            read = wider if wider.confidence > read.confidence - 0.1 else read
        doubtful = (line.upright or line.turned) and read.confidence < _DOUBTFUL
        if doubtful and (stacked := strip(pixels, read)):
            above = restored(self._read(stacked.image, 1.0), stacked)
            read = above if above.confidence > read.confidence else read
        return read, right

    def _read(self, pixels: np.ndarray, stretch: float) -> Read:
        width = min(_WIDEST, max(_HEIGHT, round(pixels.shape[1] * _HEIGHT / pixels.shape[0] * stretch)))
        grey = bool((pixels[:, :, 0] == pixels[:, :, 1]).all() and (pixels[:, :, 1] == pixels[:, :, 2]).all())
        one = np.ascontiguousarray(pixels[:, :, 0] if grey else pixels)  # the same pixels, a third of the work
        line = np.asarray(Image.fromarray(one).resize((width, _HEIGHT), Image.Resampling.BICUBIC))
        x = np.empty((1, 3, _HEIGHT, width), np.float32)
        x[0] = (line[None] if grey else line.transpose(2, 0, 1)) / np.float32(127.5) - np.float32(1)
        best, sure, others, logits = self._recogniser.run(None, {"x": x})
        doubts = Doubts(self._first[others], logits, self._nats)
        return ctc(self._first[best], sure, self._characters, gaps(line if grey else line[:, :, 1]), doubts)


def _guess(height: int) -> float:
    """How wide a line of a height in pixels is to be made before any of that height was read."""
    return float(np.clip(ADVANCE / (_USUAL * height), 0.85, 1.4))


def _least(text: str) -> float:
    """The confidence asked of a line: more of one character, and of Greek and Cyrillic, which poor print looks like."""
    if len(text) < 2:
        return CERTAIN
    return _DOUBTED if any("\u0370" <= c < "\u0530" for c in text) else CONFIDENT


def _cuts(image: np.ndarray, lines: np.ndarray, turned: bool = False) -> list[Line]:
    """Lines (n, 4), fractions of the page, in reading order, those of under two pixels left out; turned: see `Line`."""
    corners = lines * np.array([image.shape[1], image.shape[0]] * 2, np.float32)
    corners[:, :2], corners[:, 2:] = np.floor(corners[:, :2]), np.ceil(corners[:, 2:])
    corners = corners[reading_order(corners)].astype(int)
    return [Line(image, x0, y0, x1, y1, turned) for x0, y0, x1, y1 in corners.tolist() if min(x1 - x0, y1 - y0) > 1]


def _on_a_side(text: np.ndarray) -> bool:
    """Whether most of the `text` (h, w) bool stands upright, in three lines at least."""
    boxes = components(text)
    sides = boxes[:, 2:] - boxes[:, :2]
    area = sides.prod(1)
    upright = (sides[:, 1] > 3 * sides[:, 0]) & (sides[:, 1] > 30)
    return bool(upright.sum() >= 3 and area[upright].sum() > 0.6 * area.sum())


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
