"""A document as the renderer sees it: what it may cost, how it can fail, what is known of it once open.

Plain values, made by `render.Renderer`; the names with an underscore are its bookkeeping.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .sources import MAX_BYTES


class Limits(NamedTuple):
    """What a document may cost. Seconds of wall time, bytes, pixels; a document has document_seconds and seconds_a_page
    for each of its pages, all told. memory: address space of the worker, above the file's own size; memory_retry: for a
    second try at what ran out of it. worker_*: when a worker is replaced."""

    page_seconds: float = 10.0
    first_page_seconds: float = 20.0
    document_seconds: float = 120.0
    seconds_a_page: float = 1.0
    memory: int = 2**30
    memory_retry: int = 2 * 2**30
    max_pages: int = 5000
    max_bytes: int = MAX_BYTES
    max_pixels: int = 4_000_000
    max_side: int = 4096
    max_aspect: float = 50.0
    page_timeouts: int = 3
    worker_deaths: int = 2
    worker_pages: int = 500
    worker_seconds: float = 900.0
    worker_rss: int = 600 * 2**20


class PageFailure(NamedTuple):
    """A page that cannot be had. number: from 1; state: "timeout", "oom", "crash", "damaged", "oversize"."""

    number: int
    state: str
    reason: str


class RenderError(Exception):
    """A document that cannot be had. state: "encrypted", "damaged", "empty", "timeout", "oom", "crash", "oversize",
    "unsupported"; reason: a sentence for the user."""

    def __init__(self, state: str, reason: str) -> None:
        super().__init__(reason)
        self.state = state
        self.reason = reason


@dataclass(eq=False)
class Document:
    """An open document. pages: how many will be drawn; truncated: the file has more than `Limits.max_pages`; title:
    from the file's metadata, on one line, "" where it has none; content: BLAKE2b (16 bytes, hex) of the bytes that the
    worker read, by its own word. Close it, or use it as a context manager; it keeps a descriptor of its own."""

    kind: str
    pages: int = 0
    truncated: bool = False
    title: str = ""
    content: str = ""
    _fd: int = field(default=-1, repr=False)
    _size: int = field(default=0, repr=False)
    _password: str | None = field(default=None, repr=False)
    _memory: int = field(default=0, repr=False)
    _seconds: float = field(default=0.0, repr=False)
    _timeouts: int = field(default=0, repr=False)
    _deaths: int = field(default=0, repr=False)
    _end: Any = field(default=None, repr=False)

    def close(self) -> None:
        if self._end is not None:
            self._end()

    def __enter__(self) -> Document:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
