"""How far a line that was read is believed."""

from __future__ import annotations

from retriever.encoders.box.ctc import Read
from retriever.encoders.box.lines import Cut
from retriever.encoders.box.scripts import WIDE, mixed

_CROWDED = 0.5  # heights of a line from one wide character to the next
_MIXED = 0.9  # of the confidence of lines of two scripts
CONFIDENT = 0.7
CERTAIN = 0.9
_DOUBTED = 0.75
PLAIN = 0.95


def likely(read: Read) -> float:
    """The confidence of a line, less where it is of two scripts, as most are that are turned on their heads."""
    return read.confidence * (_MIXED if mixed(read.text) else 1.0)


def plain(read: Read) -> bool:
    """Whether a line is of letters without marks, figures and signs, and sure: 8 bits read such lines no worse."""
    return read.text.replace("’", "'").isascii() and read.confidence >= PLAIN


def believed(read: Read) -> bool:
    """Whether a line is kept."""
    return read.confidence >= _least(read.text)


def crowded(text: str, line: Cut) -> bool:
    """Whether wide characters stand closer than such do in an upright line: rows of figures are read as such."""
    return line.upright and sum(c >= WIDE for c in text) * line.height * _CROWDED > line.length


def _least(text: str) -> float:
    """The confidence asked of a line: more of one character, and of Greek and Cyrillic, which poor print looks like."""
    if len(text) < 2:
        return CERTAIN
    return _DOUBTED if any("\u0370" <= c < "\u0530" for c in text) else CONFIDENT
