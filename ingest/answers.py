"""What the worker answers, checked: it handles hostile files, so it may be in their hands.

Every size, number and string is measured against what was asked before it is used. A refusal (`ok` false) becomes
`Failed`; what breaks the agreement is a `ForgedMessage`, and its sender is to be killed.
"""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any, NamedTuple

import numpy as np

from .drawing import MAX_HEADINGS, MAX_PASSAGE, MAX_TEXT, MAX_TITLE, MAX_WORD, MAX_WORDS, Failed, clean_title
from .page import Page, Words
from .wire import ForgedMessage

PAGE_STATES = frozenset({"timeout", "oom", "crash", "damaged", "oversize"})
DOCUMENT_STATES = PAGE_STATES | {"encrypted", "empty", "unsupported"}

_CONTENT = re.compile(r"[0-9a-f]{32}")
_MAX_PAGES = 2**31
_MAX_POINTS = 1e12


class Opened(NamedTuple):
    pages: int
    title: str
    content: str


def most_bytes(max_pixels: int) -> int:
    """The largest payload of a page: pixels, boxes, text in UTF-8, passage."""
    return max_pixels * 3 + MAX_WORDS * 16 + MAX_TEXT * 4 + MAX_WORDS + MAX_PASSAGE * 4


def opened(header: dict[str, Any]) -> Opened:
    """An answer to "open". Raises `Failed`, `ForgedMessage`."""
    _refused(header, DOCUMENT_STATES)
    content = header.get("content")
    if not isinstance(content, str) or not _CONTENT.fullmatch(content):
        raise ForgedMessage(f"content is {str(content)[:40]!r}")
    title = header.get("title")
    if not isinstance(title, str) or len(title) > MAX_TITLE:
        raise ForgedMessage("the title is no text, or too long")
    return Opened(_whole(header, "pages", 1, _MAX_PAGES), clean_title(title), content)


def page(number: int, header: dict[str, Any], payload: bytearray, *, max_pixels: int, max_side: int) -> Page:
    """An answer to "draw". The picture is a view of `payload`. Raises `Failed`, `ForgedMessage`."""
    _refused(header, PAGE_STATES)
    width, height = _whole(header, "width_px", 1, max_side), _whole(header, "height_px", 1, max_side)
    if width * height > max_pixels:
        raise ForgedMessage(f"{width} x {height} pixels, {max_pixels} were asked for at most")
    count = _whole(header, "words", 0, MAX_WORDS)
    pixels, boxes = width * height * 3, count * 16
    passage = _whole(header, "passage", 0, MAX_PASSAGE * 4) if "passage" in header else 0
    if len(payload) < pixels + boxes + passage:
        raise ForgedMessage(f"{len(payload)} bytes for {pixels} of pixels, {boxes} of boxes, {passage} of a passage")
    image = np.frombuffer(payload, np.uint8, pixels).reshape(height, width, 3)
    end = len(payload) - passage
    words = _words(count, payload, pixels, pixels + boxes, end)
    points = _points(header, "width"), _points(header, "height")
    return Page(number, image, words, *points, _passage(payload, end), _headings(header))


def seconds(header: dict[str, Any], most: float) -> float:
    """What the worker says it took, between 0 and `most`."""
    said = header.get("seconds")
    return min(max(float(said), 0.0), most) if isinstance(said, int | float) else most


def texts(header: dict[str, Any], name: str) -> list[str]:
    """A list of strings, cleaned for display."""
    found = header.get(name)
    return [clean_title(str(item)) for item in found] if isinstance(found, list) else []


def protection(ready: dict[str, Any]) -> str:
    """One line: what holds, what failed, what this system lacks."""
    parts = [" + ".join(texts(ready, "active")) or "none"]
    if texts(ready, "failed"):
        parts.append("FAILED: " + ", ".join(texts(ready, "failed")))
    if texts(ready, "absent"):
        parts.append("not here: " + ", ".join(texts(ready, "absent")))
    return "; ".join(parts)


def _headings(header: dict[str, Any]) -> str:
    lines = header.get("headings", "")
    if not isinstance(lines, str) or len(lines) > MAX_HEADINGS:
        raise ForgedMessage("headings that are no text, or too long")
    return "\n".join(filter(None, map(clean_title, lines.split("\n"))))


def _passage(payload: bytearray, start: int) -> str:
    try:
        text = bytes(memoryview(payload)[start:]).decode()
    except UnicodeDecodeError:
        raise ForgedMessage("a passage that is no UTF-8") from None
    if len(text) > MAX_PASSAGE:
        raise ForgedMessage(f"a passage of {len(text)} characters")
    return text


def _words(count: int, payload: bytearray, boxes_at: int, texts_at: int, end: int) -> Words:
    boxes = np.frombuffer(payload, "<f4", count * 4, boxes_at).reshape(count, 4).astype(np.float32)
    if not np.isfinite(boxes).all() or (boxes[:, :2] > boxes[:, 2:]).any():
        raise ForgedMessage("boxes that are none")
    try:
        text = bytes(memoryview(payload)[texts_at:end]).decode()
    except UnicodeDecodeError:
        raise ForgedMessage("text that is no UTF-8") from None
    found = text.split()
    if len(found) != count or len(text) > MAX_TEXT + MAX_WORDS or any(len(word) > MAX_WORD for word in found):
        raise ForgedMessage(f"{len(found)} words where {count} were said, or too long")
    if not text.isascii() and not unicodedata.is_normalized("NFC", text):
        raise ForgedMessage("text that is not in NFC")
    return Words(found, np.clip(boxes, 0, 1))


def _refused(header: dict[str, Any], states: frozenset[str]) -> None:
    if header["ok"]:
        return
    state, reason = header.get("state"), header.get("reason")
    if state not in states or not isinstance(reason, str):
        raise ForgedMessage(f"failed with the state {str(state)[:40]!r}")
    raise Failed(state, clean_title(reason))


def _whole(header: dict[str, Any], name: str, least: int, most: int) -> int:
    value = header.get(name)
    if type(value) is not int or not least <= value <= most:
        raise ForgedMessage(f"{name} is {str(value)[:40]!r}, not from {least} to {most}")
    return value


def _points(header: dict[str, Any], name: str) -> float:
    value = header.get(name)
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not 0 < value < _MAX_POINTS
        or not math.isfinite(value)
    ):
        raise ForgedMessage(f"{name} is {str(value)[:40]!r}, no length")
    return float(value)
