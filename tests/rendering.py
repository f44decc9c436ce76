"""What the tests of rendering share: documents made in memory, opened from a file that is gone, and their outcome."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymupdf
import pytest

from ingest.document import Document, Limits, PageFailure, RenderError
from ingest.page import Page
from ingest.render import Renderer
from ingest.sources import open_source

BACKENDS = [
    "pymupdf",
    pytest.param(
        "pdfium",
        marks=pytest.mark.skipif(importlib.util.find_spec("pypdfium2") is None, reason="pypdfium2 is not installed"),
    ),
]
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
QUICK = Limits(page_seconds=1, first_page_seconds=1)


def opened(renderer: Renderer, data: bytes, kind: str = "pdf", password: str | None = None) -> Document:
    """A document of `data`, from a file that is gone by then."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(data)
        fd = open_source(path)
        try:
            return renderer.open(fd, kind, password=password)
        finally:
            os.close(fd)


def made(draw: Callable[[Any], None], pages: int = 1, width: float = 400, height: float = 600, **save: Any) -> bytes:
    with pymupdf.open() as document:
        for _ in range(pages):
            document.new_page(width=width, height=height)
        draw(document)
        return document.tobytes(**save)


def numbered(count: int) -> bytes:
    def draw(document: Any) -> None:
        for number, page in enumerate(document, 1):
            page.insert_text((50, 100), f"number {number}", fontsize=20)

    return made(draw, count)


def text(outcome: Page | PageFailure) -> str:
    assert isinstance(outcome, Page), outcome
    return outcome.words.text


def saved(image: Any, kind: str, **options: Any) -> bytes:
    import io

    held = io.BytesIO()
    image.save(held, kind, **options)
    return held.getvalue()


def outcome(renderer: Renderer, data: bytes, kind: str) -> str:
    try:
        with opened(renderer, data, kind) as document:
            page = renderer.render(document, 1)
            return page.state if isinstance(page, PageFailure) else "page"
    except RenderError as error:
        assert error.reason
        return error.state
