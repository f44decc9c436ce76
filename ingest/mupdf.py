"""PDF pages by MuPDF, through PyMuPDF.

A page is interpreted once, into a display list; picture and words both come from that list, hence in the same
coordinates (page box and rotation applied) and with annotations and form fields. Only MuPDF's PDF code is entered: the
other formats it could read never are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import pymupdf
from pymupdf import extra, mupdf

from .drawing import Box, Caps, Drawing, Failed, Word, clean_title, clean_words, fit, headings

_FLAGS = pymupdf.TEXT_MEDIABOX_CLIP | pymupdf.TEXT_PRESERVE_WHITESPACE  # ligatures are expanded without their flag
_SPACES = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
_OUT_OF_MEMORY = re.compile(r"[mc]alloc \(.*\) failed|realloc \(.*\) failed|out of memory", re.IGNORECASE)

pymupdf.TOOLS.mupdf_display_errors(False)
pymupdf.TOOLS.mupdf_display_warnings(False)


def open_pdf(data: bytes, password: str | None) -> MuPDF:
    """Raises `Failed`: "encrypted", "empty", "damaged", "oom"."""
    return MuPDF(data, password)


class MuPDF:
    def __init__(self, data: bytes, password: str | None) -> None:
        self._data = data  # MuPDF reads from it: must outlive the document
        pymupdf.TOOLS.reset_mupdf_warnings()
        try:
            stream = mupdf.fz_open_memory(mupdf.python_buffer_data(data), len(data))
            self._document = mupdf.FzDocument(mupdf.pdf_open_document_with_stream(stream))
            if mupdf.fz_needs_password(self._document):
                self._unlock(password)
            self.pages = mupdf.fz_count_pages(self._document)
            self.title = self._title()
        except Failed:
            raise
        except Exception as error:
            raise _failed(error, "the file is no PDF that can be read") from None
        if self.pages < 1:
            raise Failed("empty", "the PDF has no pages")

    def draw(self, number: int, dpi: float, caps: Caps) -> Drawing:
        pymupdf.TOOLS.reset_mupdf_warnings()
        try:
            drawing = self._draw(number, dpi, caps)
        except Failed:
            raise
        except Exception as error:
            raise _failed(error, "the page cannot be drawn") from None
        finally:
            pymupdf.TOOLS.store_shrink(50)  # keeps the half that was used last: bounded by two pages' worth
        said = pymupdf.TOOLS.mupdf_warnings()
        if _OUT_OF_MEMORY.search(said):  # MuPDF leaves out what it has no memory for, and goes on
            raise Failed("oom", f"a part of the page needs more memory than the limit: {said[:200]}")
        return drawing

    def close(self) -> None:
        del self._document
        pymupdf.TOOLS.store_shrink(100)

    def _draw(self, number: int, dpi: float, caps: Caps) -> Drawing:
        shown = mupdf.fz_new_display_list_from_page(mupdf.fz_load_page(self._document, number - 1))
        bounds = mupdf.fz_bound_display_list(shown)
        width, height = bounds.x1 - bounds.x0, bounds.y1 - bounds.y0
        width_px, height_px = fit(width, height, dpi / 72, caps)
        matrix = mupdf.FzMatrix(width_px / width, 0, 0, height_px / height, 0, 0)
        matrix = mupdf.fz_pre_translate(matrix, -bounds.x0, -bounds.y0)
        rgb = mupdf.FzColorspace(mupdf.FzColorspace.Fixed_RGB)
        area = mupdf.FzIrect(0, 0, width_px, height_px)
        picture = mupdf.fz_new_pixmap_with_bbox(rgb, area, mupdf.FzSeparations(), 0)
        mupdf.fz_clear_pixmap_with_value(picture, 0xFF)
        device = mupdf.fz_new_draw_device(matrix, picture)
        everywhere = mupdf.FzRect(mupdf.FzRect.Fixed_INFINITE)
        mupdf.fz_run_display_list(shown, device, mupdf.FzMatrix(), everywhere, mupdf.FzCookie())
        mupdf.fz_close_device(device)
        pixels, words = bytes(mupdf.fz_pixmap_samples_memoryview(picture)), _words(shown, bounds)
        heads = self._headings.get(number, "")
        return Drawing(width_px, height_px, pixels, words, width, height, headings=heads)

    @cached_property
    def _headings(self) -> dict[int, str]:
        return headings(self._outline())

    def _outline(self) -> Iterator[tuple[str, int]]:
        """Titles and pages, parents before their children. By steps, as MuPDF's own recursion has no limit."""
        at = mupdf.FzOutlineIterator(self._document)
        while entry := mupdf.ll_fz_outline_iterator_item(at.m_internal):  # the class around it crashes without a target
            if entry.uri:
                yield entry.title or "", mupdf.fz_resolve_link(self._document, entry.uri)[0].page + 1
            inside = mupdf.fz_outline_iterator_down(at)  # 0: at a child, 1: where one could be, -1: still here
            if inside == 0:
                continue
            if inside > 0:
                mupdf.fz_outline_iterator_up(at)
            while mupdf.fz_outline_iterator_next(at) != 0:
                if mupdf.fz_outline_iterator_up(at) < 0:
                    return

    def _unlock(self, password: str | None) -> None:
        if password is None:
            raise Failed("encrypted", "the PDF asks for a password: give it with --password")
        if not _is_text(password) or not mupdf.fz_authenticate_password(self._document, password):
            raise Failed("encrypted", "the password given with --password does not open this PDF")

    def _title(self) -> str:
        try:
            return clean_title(mupdf.fz_lookup_metadata2(self._document, "info:Title"))
        except Exception:
            return ""


def _is_text(password: str) -> bool:
    """Not where a command line held bytes that are no UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in password)


def _words(shown: Any, bounds: Any) -> list[Word]:
    options = mupdf.FzStextOptions()
    options.flags = _FLAGS
    width, height = bounds.x1 - bounds.x0, bounds.y1 - bounds.y0
    found = extra.extractWORDS(mupdf.FzStextPage(shown, options), _SPACES)

    def fractions(word: Any) -> Box:
        return (
            (word[0] - bounds.x0) / width,
            (word[1] - bounds.y0) / height,
            (word[2] - bounds.x0) / width,
            (word[3] - bounds.y0) / height,
        )

    return clean_words(((word[4], fractions(word)) for word in found), width, height)


def _failed(error: Exception, what: str) -> Failed:
    reason = re.sub(r"^code=\d+: ", "", str(error))
    said = f"{reason}\n{pymupdf.TOOLS.mupdf_warnings()}"
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(said):
        return Failed("oom", f"{what}: it needs more memory than the limit")
    if "encrypt" in said and ("unknown" in said or "unsupported" in said.lower()):
        return Failed("encrypted", f"the PDF is encrypted in a way that cannot be opened: {reason}")
    return Failed("damaged", f"{what}: {reason}")
