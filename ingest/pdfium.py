"""PDF pages by PDFium, through pypdfium2: the permissively licensed alternative to MuPDF, with the same outputs.

Words are PDFium's characters, joined between the white space that it finds or generates; their boxes go through the
page's own transform, so that page box and rotation are applied as they are to the picture.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import pypdfium2 as pdfium
import pypdfium2.raw as raw

from .drawing import Box, Caps, Drawing, Failed, Word, clean_title, clean_words, fit, headings

_MAX_CHARACTERS = 1_000_000
_NOWHERE: Box = (0.0, 0.0, 0.0, 0.0)
_GRID = 1 << 20  # the page as a device of this many pixels a side: boxes to a millionth


def open_pdf(data: bytes, password: str | None) -> Pdfium:
    """Raises `Failed`: "encrypted", "empty", "damaged", "oom"."""
    return Pdfium(data, password)


class Pdfium:
    def __init__(self, data: bytes, password: str | None) -> None:
        try:
            self._document = _load(data, password)
            self.pages = len(self._document)
            self._document.init_forms()
            self.title = clean_title(self._document.get_metadata_value("Title"))
        except pdfium.PdfiumError as error:
            raise _failed(error, password) from None
        except UnicodeEncodeError:  # a command line held bytes that are no UTF-8
            raise Failed("encrypted", "the password given with --password does not open this PDF") from None
        except MemoryError:
            raise Failed("oom", "the PDF needs more memory than the limit") from None
        if self.pages < 1:
            raise Failed("empty", "the PDF has no pages")

    def draw(self, number: int, dpi: float, caps: Caps) -> Drawing:
        try:
            page = self._document[number - 1]
        except (pdfium.PdfiumError, IndexError) as error:
            raise Failed("damaged", f"the page cannot be loaded: {error}") from None
        try:
            return _draw(page, dpi, caps)._replace(headings=self._headings.get(number, ""))
        except pdfium.PdfiumError as error:
            raise Failed("damaged", f"the page cannot be drawn: {error}") from None
        except MemoryError:
            raise Failed("oom", "the page needs more memory than the limit") from None
        finally:
            page.close()

    @cached_property
    def _headings(self) -> dict[int, str]:
        return headings(self._outline())

    def _outline(self) -> Iterator[tuple[str, int]]:
        for entry in self._document.get_toc():
            if (target := entry.get_dest()) and (index := target.get_index()) is not None:
                yield entry.get_title(), index + 1

    def close(self) -> None:
        self._document.close()


def _load(data: bytes, password: str | None) -> Any:
    """Without the password first: given one that it does not need, PDFium refuses."""
    for attempt in (None, password):
        raw.FPDF_LoadMemDocument(b"", 0, None)  # fails: sets the last error, which some failures leave as it was
        try:
            return pdfium.PdfDocument(data, password=attempt)
        except pdfium.PdfiumError as error:
            if attempt is not password and error.err_code == raw.FPDF_ERR_PASSWORD:
                continue
            raise
    raise AssertionError("unreachable")


def _draw(page: Any, dpi: float, caps: Caps) -> Drawing:
    width, height = page.get_size()
    width_px, height_px = fit(width, height, dpi / 72, caps)
    stride = (width_px * 3 + 3) // 4 * 4
    rows = (ctypes.c_ubyte * (stride * height_px))()
    bitmap = raw.FPDFBitmap_CreateEx(width_px, height_px, raw.FPDFBitmap_BGR, rows, stride)
    if not bitmap:
        raise Failed("oom", f"no memory for a picture of {width_px} x {height_px} pixels")
    try:
        raw.FPDFBitmap_FillRect(bitmap, 0, 0, width_px, height_px, 0xFFFFFFFF)
        where = (bitmap, page, 0, 0, width_px, height_px, 0, raw.FPDF_ANNOT | raw.FPDF_REVERSE_BYTE_ORDER)
        raw.FPDF_RenderPageBitmap(*where)
        if page.formenv:
            raw.FPDF_FFLDraw(page.formenv, *where)
    finally:
        raw.FPDFBitmap_Destroy(bitmap)
    pixels = memoryview(rows).cast("B")
    if stride != width_px * 3:
        pixels = memoryview(b"".join(pixels[y * stride : y * stride + width_px * 3] for y in range(height_px)))
    return Drawing(width_px, height_px, pixels, clean_words(_words(page), width, height), width, height)


def _words(page: Any) -> Iterator[Word]:
    text = raw.FPDFText_LoadPage(page)
    if not text:
        return
    try:
        count = min(raw.FPDFText_CountChars(text), _MAX_CHARACTERS)
        codes = (_character(raw.FPDFText_GetUnicode(text, index)) for index in range(count))
        for is_space, run in itertools.groupby(enumerate(codes), lambda item: item[1].isspace()):
            if not is_space:
                letters = list(run)
                yield (
                    _utf16("".join(letter for _, letter in letters)),
                    _around(text, page, [index for index, _ in letters]),
                )
    finally:
        raw.FPDFText_ClosePage(text)


def _character(code: int) -> str:
    return "\ufffd" if code == 0 else chr(code) if code < 0x110000 else "\ufffd"


def _utf16(text: str) -> str:
    """PDFium gives characters beyond U+FFFF as two halves where its build has 16-bit characters."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _around(text: Any, page: Any, letters: list[int]) -> Box:
    """The box around letters in fractions of the page. Of each its loose box (its font's height), as MuPDF has it."""
    rect = raw.FS_RECTF()
    sides = [
        (rect.left, rect.bottom, rect.right, rect.top)
        for index in letters
        if raw.FPDFText_GetLooseCharBox(text, index, rect)
    ]
    if not sides:
        return _NOWHERE
    left, bottom, right, top = zip(*sides, strict=True)
    x, y = ctypes.c_int(), ctypes.c_int()
    corners = []
    for page_x, page_y in ((min(left), max(top)), (max(right), min(bottom))):
        if not raw.FPDF_PageToDevice(page, 0, 0, _GRID, _GRID, 0, page_x, page_y, x, y):
            return _NOWHERE
        corners.append((x.value / _GRID, y.value / _GRID))
    (ax, ay), (bx, by) = corners
    return min(ax, bx), min(ay, by), max(ax, bx), max(ay, by)


def _failed(error: Exception, password: str | None) -> Failed:
    code = getattr(error, "err_code", None)
    if code == raw.FPDF_ERR_PASSWORD:
        if password is None:
            return Failed("encrypted", "the PDF asks for a password: give it with --password")
        return Failed("encrypted", "the password given with --password does not open this PDF")
    if code == raw.FPDF_ERR_SECURITY:
        return Failed("encrypted", "the PDF is encrypted in a way that cannot be opened")
    return Failed("damaged", f"the file is no PDF that can be read: {error}")
