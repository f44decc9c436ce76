"""What a writer is given: where a content was read, and a page with its vectors, boxes and words."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np


class Origin(NamedTuple):
    """Where a content was read: absolute path, kind of file, bytes, time of change in ns."""

    path: str
    kind: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class PageRecord:
    """A page to store. vectors: (t, d) float, t >= 0; token_boxes: (t, 4) and word_boxes: (w, 4), fractions of the
    page; text: w words joined by single spaces; single: (D,) or None for the mean; state: ok, blank, or what failed;
    headings: what the document's outline calls the page, a line each; contents: whether it is a table of contents."""

    number: int
    vectors: np.ndarray
    token_boxes: np.ndarray
    text: str = ""
    word_boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    single: np.ndarray | None = None
    state: str = "ok"
    reason: str = ""
    width: float = 0.0
    height: float = 0.0
    headings: str = ""
    contents: bool = False

    def check(self, dim: int) -> None:
        """Raise ValueError unless there are (t, dim) finite vectors, and a box for each."""
        shape = self.vectors.shape
        if len(shape) != 2 or shape[1] != dim or self.token_boxes.shape != (shape[0], 4):
            raise ValueError(
                f"page {self.number}: expected (t, {dim}) vectors with (t, 4) boxes; "
                f"got {shape} and {self.token_boxes.shape}"
            )
        if not np.isfinite(self.vectors).all():
            raise ValueError(f"page {self.number}: token vectors must be finite")


def as_json(metadata: dict[str, Any]) -> str:
    """Metadata as JSON: not escaped, as SQLite before 3.45 would not find such keys, unless UTF-8 cannot hold it."""
    plain = json.dumps(metadata, allow_nan=False, ensure_ascii=False)
    return plain if plain == clean(plain) else json.dumps(metadata, allow_nan=False)


def clean(words: str) -> str:
    """Text that UTF-8 can hold: a PDF may give half a surrogate pair."""
    return words.encode("utf-8", "replace").decode()
