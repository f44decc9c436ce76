"""Text that others wrote, made safe for a terminal and for one line of a page. For HTML it still has to be escaped."""

from __future__ import annotations

import unicodedata

_KEPT_FORMAT = {"\u200c", "\u200d"}  # joiners: Persian, Hindi and emoji need them, and they move no other character


def printable(text: str) -> str:
    """Text from a document or a file name, safe to print: one line, no control or escape characters, nothing that
    reorders what follows (bidi overrides, embeddings, isolates, marks), nothing invisible, no lone surrogates."""
    out = []
    for character in text:
        category = unicodedata.category(character)
        if category in ("Zl", "Zp") or character in "\t\n\r\v\f":
            out.append(" ")
        elif category == "Cs":
            out.append("\ufffd")
        elif category not in ("Cc", "Cf", "Cn") or character in _KEPT_FORMAT:
            out.append(character)
    return "".join(out)
