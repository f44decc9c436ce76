"""The reader: words with boxes of a page's picture, by PP-OCRv6-tiny detection and recognition (onnxruntime).

Lines are found at half the picture's resolution (75 dpi of 150), of a dark page in its negative; each is cut from the
full picture, turned if it stands upright or askew, scaled to 48 pixels and read (`ctc`). The recogniser leaves out
letters that stand closer than two of its time steps, so lines are made as wide as the first of their height asks for,
and read again where that was too narrow. Pages that lie askew, on a side or on their head are righted; lines of upright
characters from top to bottom are read as such (`stacked`). Lines read with a mean probability under CONFIDENT, single
characters under CERTAIN, are looked at again at the full resolution, as several may have been taken for one, or
dropped. Hangul in doubt is read twice (`twice`). Where most of a page is plain (letters without marks, figures, all
sure), lines are read by a net in 8 bits, which takes less time, and those that are not plain again.
Reads Latin, Cyrillic and Greek letters, digits, Chinese, Japanese, Korean; pages in other scripts where `tesseract` is
there to read them; no handwriting and no curved lines.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from PIL import Image

from ingest.page import Words
from retriever.encoders.box.cells import dashes, dollars, without
from retriever.encoders.box.components import components
from retriever.encoders.box.confidence import CERTAIN, CONFIDENT, believed, crowded, likely, plain
from retriever.encoders.box.ctc import Doubts, Language, Read, apostrophes, ctc
from retriever.encoders.box.forms import in_one_form
from retriever.encoders.box.initialisers import borrowed
from retriever.encoders.box.lines import Cut, Line, boxes_of, lines_at, lines_of, on_a_side
from retriever.encoders.box.scripts import WIDE, eastern, hangul, korean, mixed, narrow, settled
from retriever.encoders.box.skew import LEAST, ink, skew, straightened, turned_back, unturned
from retriever.encoders.box.slanted import Slanted
from retriever.encoders.box.spaces import gaps
from retriever.encoders.box.stacked import restored, strip
from retriever.encoders.box.states import session
from retriever.encoders.box.tesseract import Tesseract
from retriever.encoders.box.twice import doubted, read_again

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)
_TEXT = 0.2
_LONG_SIDE = 900
_HEIGHT = 48
_WIDEST = 4000
ADVANCE, CLOSE = 2.0, 1.6  # time steps a character, aimed at and too few
NARROW = 2.5  # time steps aimed at where letters stand close together
_USUAL = 0.083  # time steps a character over a line's height in pixels, before any line is read
_SHORT = 4
_PARTS = 24  # pixels of a line in height and width that may hold several
_DARK = 75  # of 255
_FOREIGN = 0.9  # of the confidence of a page in a script that is read: .73 to .83 in others
QUICK = 0.8  # share that is plain of what was read, from which on it takes less time to try 8 bits first
_TOGETHER = 16  # lines
_WIDER = (1.25, 1.5)  # than usual
_DOUBTFUL = 0.94  # letters upside down pass for others at up to .93, kana on a side at up to .92


Wide = tuple[Read, float]  # a line read, and the width that would have been right


class Reader:
    """Detection and recognition sessions. characters: the letters that can be read."""

    def __init__(
        self,
        nets: Sequence[bytes],
        characters: bytes,
        threads: int,
        nats: Callable[[str], float],
        other: Tesseract | None = None,
        languages: Sequence[Language] = (),
    ) -> None:
        """nets: the detector, the recogniser, the same in 8 bits; characters: JSON, the classes after blank; nats: of a
        word, minus its log-probability; other: what is asked for pages that are read with little confidence, as those
        in other scripts are; languages: whose words are known better."""
        detector, recogniser, quick = nets
        self._detector, self._recogniser = session(detector, threads), session(recogniser, 1)
        self._quick = session(quick, 1, borrowed(quick, recogniser))
        self._characters = ["", *json.loads(characters)]
        places: dict[str, int] = {}
        self._first = np.array([places.setdefault(c, k) for k, c in enumerate(self._characters)])
        self._apostrophes = places["'"], places["’"]
        self._hangul = np.array([bool(c) and hangul(c) for c in self._characters])
        self.characters = frozenset(self._characters[1:])
        self._threads, self._nats, self._other, self.languages = threads, nats, other, languages

    def lines(self, image: np.ndarray) -> np.ndarray:
        """Boxes (n, 4) float32 of the lines of text in `image` (H, W, 3) uint8, fractions of the page."""
        text = self._text(_dark_on_light(image))
        return boxes_of(components(text).boxes, text.shape)

    def _text(self, image: np.ndarray, scale: float | None = None) -> np.ndarray:
        """Where there is text: (h, w) bool, at about 75 dpi where no `scale` is given."""
        height, width = image.shape[:2]
        if min(height, width) < 2:
            return np.zeros((0, 0), bool)
        scale = scale or min(1.0, max(0.5, _LONG_SIDE / max(height, width)) if max(height, width) < 1800 else 0.5)
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
        image = _dark_on_light(image)
        if lines is not None:
            return self._words(lines_at(image, lines))[0]
        image, text, degrees = self._straight(image)
        found = components(text)
        turns = int(on_a_side(found))
        cuts = lines_of(np.rot90(image, turns), np.rot90(text, turns), turns == 1, None if turns else found)
        on_its_head, known = self._on_its_head(cuts)
        if on_its_head:
            turns += 2
            cuts, known = lines_of(np.rot90(image, turns), np.rot90(text, turns)), {}
        words, confidence = self._words(cuts, known)
        boxes = unturned(words.boxes, turns)
        if self._other and cuts and confidence < _FOREIGN and (other := self._other.words(image)):
            words, boxes = other, other.boxes
        if degrees:
            size = np.array([image.shape[1], image.shape[0]] * 2, np.float32)
            boxes = turned_back(boxes * size, degrees, image.shape[1], image.shape[0]) / size
        return Words(words.texts, np.clip(boxes, 0, 1).astype(np.float32))

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

    def _on_its_head(self, cuts: list[Cut]) -> tuple[bool, dict[int, Wide]]:
        """Whether the longest lines read better upside down, where the longest reads badly or in two scripts; how the
        longest reads as it stands."""
        longest = sorted((i for i, line in enumerate(cuts) if not line.upright), key=lambda i: -cuts[i].length)[:3]
        known = {i: self._read_wide(cuts[i], _guess(cuts[i].height)) for i in longest[:1]}
        certain = [read.confidence >= _DOUBTFUL and not mixed(read.text) for read, _ in known.values()]
        if len(longest) < 3 or certain[0]:
            return False, known
        level = sum(self._read(cuts[i].pixels(), 1.0).confidence for i in longest)
        return sum(likely(self._read(cuts[i].pixels()[::-1, ::-1], 1.0)) for i in longest) > level, known

    def _words(self, cuts: Sequence[Cut], known: dict[int, Wide] | None = None) -> tuple[Words, float]:
        """The words of lines, and their boxes as fractions of the picture; the confidence of lines that are believed,
        mean over their lengths, 0 where those are not half of all. known: what of them was read before."""
        with ThreadPoolExecutor(self._threads) as pool:
            read = self._lines(cuts, pool, known or {})
            if korean([word for one in read for word, _, _ in one.words]):
                read = [*pool.map(self._not_chinese, cuts, read)]
            read = dollars(cuts, read)
            alone = dashes(cuts, read)
            placed = [one for one in zip(range(len(cuts)), cuts, read, strict=True) if believed(one[2])]
            placed = [*without(placed, alone), *alone]
            parts = self._parts(cuts, placed)
            again = self._lines([line for _, line in parts], pool, {})
        placed += [(i, line, told) for (i, line), told in zip(parts, again, strict=True) if believed(told)]
        texts, boxes = [], []
        for _, line, told in sorted(placed, key=lambda one: one[0]):
            texts += [word for word, _, _ in told.words]
            boxes += [line.box(start, end) for _, start, end in told.words]
        found = np.array(boxes, np.float32).reshape(-1, 4)
        lengths = [line.length for _, line, _ in placed]
        enough = 2 * sum(lengths) >= sum(line.length for line in cuts) > 0
        confidence = np.average([told.confidence for _, _, told in placed], weights=lengths) if enough else 0.0
        return Words(in_one_form(settled(texts)), np.clip(found, 0, 1).astype(np.float32)), float(confidence)

    def _parts(self, cuts: Sequence[Cut], placed: Sequence[tuple[int, Cut, Read]]) -> list[tuple[int, Cut]]:
        """The lines in those of `cuts` that are not among the `placed`, where the picture's full resolution shows
        several of which none lies where something was read; with the place of what they were taken for."""
        taken, good = [line.box(0, 1) for _, line, _ in placed], {i for i, _, _ in placed}
        parts: list[tuple[int, Cut]] = []
        for i, line in enumerate(cuts):
            if i in good or isinstance(line, Slanted) or min(line.x1 - line.x0, line.y1 - line.y0) < _PARTS:
                continue
            image = line.image[line.y0 : line.y1, line.x0 : line.x1]
            found = [one for one in lines_of(image, self._text(image, 1.0), line.turned) if isinstance(one, Line)]
            for one in found if len(found) > 1 else []:
                x0, y0, x1, y1 = one.x0 + line.x0, one.y0 + line.y0, one.x1 + line.x0, one.y1 + line.y0
                part = Line(line.image, x0, y0, x1, y1, line.turned)
                x, y = np.array(part.box(0, 1)).reshape(2, 2).mean(0)
                if not any(box[0] < x < box[2] and box[1] < y < box[3] for box in taken):
                    parts.append((i, part))
                    taken.append(part.box(0, 1))
        return parts

    def _lines(self, cuts: Sequence[Cut], pool: ThreadPoolExecutor, known: dict[int, Wide]) -> list[Read]:
        """Reads all lines: first the longest of each height, which tells how wide the others are to be."""
        heights: dict[int, list[int]] = {}
        for i in sorted(range(len(cuts)), key=lambda i: -cuts[i].length):
            heights.setdefault(cuts[i].height, []).append(i)
        first = [same[0] for same in heights.values()]
        read = dict(known)
        self._more(cuts, [i for i in first if i not in known], {high: _guess(high) for high in heights}, pool, read)
        widths = {cuts[i].height: min(max(read[i][1], 0.8), 1.6) for i in first}
        rest = [i for same in heights.values() for i in same[1:] if i not in known]
        self._more(cuts, rest, widths, pool, read)
        return [read[i][0] for i in range(len(cuts))]

    def _more(
        self,
        cuts: Sequence[Cut],
        which: Sequence[int],
        widths: dict[int, float],
        pool: ThreadPoolExecutor,
        read: dict[int, Wide],
    ) -> None:
        """Reads `which` lines, as wide as `widths` has it for their heights, and adds them to what was `read`."""
        for start in range(0, len(which), _TOGETHER):
            some, wide = which[start : start + _TOGETHER], {i: cuts[i].length / max(1, cuts[i].height) for i in read}
            certain = sum(wide[i] for i, (line, _) in read.items() if plain(line))
            reading = partial(self._read_wide, quick=certain > QUICK * sum(wide.values()))
            told = pool.map(reading, [cuts[i] for i in some], [widths[cuts[i].height] for i in some])
            read.update(zip(some, told, strict=True))

    def _read_wide(self, line: Cut, width: float, quick: bool = False) -> Wide:
        """A line read `width` times as wide as it is, and the width that would have been right; what stands upright is
        read from bottom to top and, where that is doubtful, from top to bottom, lying characters and standing ones."""
        pixels = line.pixels()
        level = self._level(pixels) if line.short else None
        if level and level.confidence >= CERTAIN:
            return level, 1.0
        read, right = self._read_twice(pixels, width, quick)
        if level:
            return (read if read.confidence >= _DOUBTFUL and len(read.text) > 1 else level), right
        if read.confidence >= _DOUBTFUL and not crowded(read.text, line):
            return read, right
        others = []
        if line.upright:
            pixels = pixels[::-1, ::-1]
            others.append(self._read_twice(pixels, width)[0])
        if (line.upright or line.turned) and (stacked := strip(pixels, (others or [read])[0])):
            others.append(restored(self._read(stacked.image, 1.0), stacked))
        if line.upright:
            others = [_backwards(other) for other in others]
        best = max([read, *others], key=lambda one: one.confidence)
        return best._replace(confidence=0.0) if crowded(best.text, line) else best, right

    def _not_chinese(self, line: Cut, read: Read) -> Read:
        """A line of a Korean page; where it was read as kana or Chinese alone, which Hangul passes for that is made too
        narrow, as it is read when wider, if that is Hangul."""
        if any(map(hangul, read.text)) or not eastern(read.text):
            return read
        for wider in _WIDER:
            again = self._read(line.pixels(), wider * _guess(line.height))
            if any(map(hangul, again.text)) and not eastern(again.text) and again.confidence >= CERTAIN:
                return again
        return read

    def _level(self, pixels: np.ndarray) -> Read:
        """What stands upright as figures or letters that do not; no wide characters, as none is that slender."""
        read = self._read(np.rot90(pixels), 1.0)
        slender = bool(read.text) and max(read.text) < WIDE
        words = [(text, 0.0, 1.0) for text, _, _ in read.words]
        return read._replace(words=words, confidence=read.confidence if slender else 0.0)

    def _read_twice(self, pixels: np.ndarray, width: float, quick: bool = False) -> Wide:
        """A line read, again where its characters stand too close, and the width that would have been right."""
        read = self._read(pixels, width, quick)
        advance, close = (NARROW, CLOSE * NARROW / ADVANCE) if narrow(read.text) else (ADVANCE, CLOSE)
        right = width * advance / read.advance if read.confidence >= CONFIDENT else 1.0
        if read.advance < close and len(read.text) >= _SHORT:
            wider = self._read(pixels, width * min(1.6, advance / read.advance), quick)
            read = wider if wider.confidence > read.confidence - 0.1 else read
        return read, right

    def _read(self, pixels: np.ndarray, stretch: float, quick: bool = False) -> Read:
        """A line made `stretch` times as wide; quick: by the net in 8 bits, and again only where it is not plain."""
        width = min(_WIDEST, max(_HEIGHT, round(pixels.shape[1] * _HEIGHT / pixels.shape[0] * stretch)))
        grey = bool((pixels[:, :, 0] == pixels[:, :, 1]).all() and (pixels[:, :, 1] == pixels[:, :, 2]).all())
        one = np.ascontiguousarray(pixels[:, :, 0] if grey else pixels)  # the same pixels, a third of the work
        line = np.asarray(Image.fromarray(one).resize((width, _HEIGHT), Image.Resampling.BICUBIC))
        between = gaps(line if grey else line[:, :, 1])
        for net in (self._quick, self._recogniser) if quick else (self._recogniser,):
            best, sure, others, logits, curly = net.run(None, {"x": _normalised(line)})
            best, others = apostrophes(self._first[best], curly, self._apostrophes), self._first[others]
            doubts = Doubts(others, logits, self._nats, self.languages)
            if net is self._recogniser and len(steps := doubted(best, logits, self._hangul)):
                doubts = doubts._replace(again=read_again(line, one, steps, self._likeliest))
            read = ctc(best, sure, self._characters, between, doubts)
            if net is self._recogniser or plain(read):
                break
        return read

    def _likeliest(self, line: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The likeliest classes (s, m) of a line's steps, and their logits (s, m)."""
        others, logits = self._recogniser.run(["others", "logits"], {"x": _normalised(line)})
        return self._first[others], logits


def _normalised(line: np.ndarray) -> np.ndarray:
    """A line (h, w) or (h, w, 3) uint8 as the recogniser takes it, (1, 3, h, w)."""
    x = np.empty((1, 3, *line.shape[:2]), np.float32)
    x[0] = (line[None] if line.ndim == 2 else line.transpose(2, 0, 1)) / np.float32(127.5) - np.float32(1)
    return x


def _dark_on_light(image: np.ndarray) -> np.ndarray:
    """`image` (H, W, 3) uint8, its negative where its paper is dark: the detector finds small light letters badly."""
    grey = image[::16, ::16] @ np.array([0.299, 0.587, 0.114])
    return 255 - image if grey.size and np.median(grey) < _DARK else image


def _guess(height: int) -> float:
    """How wide a line of a height in pixels is to be made before any of that height was read."""
    return float(np.clip(ADVANCE / (_USUAL * height), 0.85, 1.4))


def _backwards(read: Read) -> Read:
    """A line with its places counted from its other end."""
    return read._replace(words=[(text, 1 - end, 1 - start) for text, start, end in read.words])
