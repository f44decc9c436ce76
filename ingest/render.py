"""Files to pages: a document is opened and drawn in a jailed worker process, and what comes back is checked.

One worker serves one document at a time and lives for some hundred pages. A page that takes too long costs its worker's
life: the page is recorded as failed, the next request starts a new one and puts the document back into it. Nothing that
a file does raises from `render`; nothing that a worker answers is believed.

Draws nothing itself and imports no PDF library. Not safe for use from two threads at once.
"""

from __future__ import annotations

import importlib.util
import os
import time
import warnings
import weakref
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import NamedTuple

import numpy as np

from . import answers
from .document import Document, Limits, PageFailure, RenderError
from .drawing import Failed
from .page import Page
from .process import Worker
from .sources import KINDS
from .wire import ForgedMessage

__all__ = ["BACKENDS", "Document", "Limits", "PageFailure", "RenderError", "Renderer", "blank"]

BACKENDS = {"pymupdf": "pymupdf", "pdfium": "pypdfium2"}

_READ_RATE = 16 * 2**20  # bytes a second that a slow disk still gives
_PDFIUM_NO_MEMORY = ("SIGABRT", "SIGTRAP", "SIGILL")


class _Request(NamedTuple):
    """A page asked for. wanted: (document, number, dpi, max_pixels)."""

    wanted: tuple[Document, int, float, int]
    id: int
    asked: float
    deadline: float


class Renderer:
    """Pages of documents, through one worker process.

    backend: "pymupdf" or "pdfium"; jail: False leaves out Landlock and seccomp, for measuring. While the caller works
    on a page, the worker draws the one that was asked for with `prefetch`; `pages` does that by itself. Two documents
    may be open at once, but each change between them opens a file anew. Whatever starts the process may raise
    `process.StartError`: the machine's fault, not the file's.
    """

    def __init__(self, *, backend: str = "pymupdf", limits: Limits | None = None, jail: bool = True) -> None:
        """Raises ValueError for an unknown backend, ImportError where its package is missing."""
        if backend not in BACKENDS:
            raise ValueError(f"backend is {backend!r}; there are {', '.join(map(repr, BACKENDS))}")
        if importlib.util.find_spec(BACKENDS[backend]) is None:
            how = "pip install octavo[pdfium]" if backend == "pdfium" else "pip install pymupdf"
            raise ImportError(f"the {backend} backend needs {BACKENDS[backend]}, which is not installed: {how}")
        self.backend = backend
        self.limits = limits or Limits()
        self.jail = jail
        self._worker: Worker | None = None
        self._request: _Request | None = None

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the worker process. A later call starts a new one."""
        self._request = None
        if self._worker is not None:
            self._worker.kill()
            self._worker = None

    def fingerprint(self) -> str:
        """What draws the pages, with its version: another may draw them differently."""
        package = BACKENDS[self.backend]
        return f"{package} {version(package)}"

    @property
    def protection(self) -> str:
        """What holds the worker, by its own word: "rlimits + landlock (ABI 7) + seccomp". Starts it."""
        return answers.protection(self._ensure_worker().ready)

    @property
    def jailed(self) -> bool:
        """Whether the worker has no way to files, network and other processes (Landlock and seccomp both hold)."""
        active = answers.texts(self._ensure_worker().ready, "active")
        return all(any(name.startswith(part) for name in active) for part in ("landlock", "seccomp"))

    def open(self, fd: int, kind: str, *, password: str | None = None) -> Document:
        """Open what `fd` holds (a regular file: `sources.open_source`) as `kind`, one of `sources.KINDS`. `fd` stays
        the caller's. Raises `RenderError`."""
        if kind not in KINDS:
            raise RenderError("unsupported", f"the kind is {kind!r}; there are {', '.join(KINDS)}")
        self._drop_request()
        size = os.fstat(fd).st_size
        if size == 0:
            raise RenderError("empty", "the file has no bytes")
        if size > self.limits.max_bytes:
            limit = f"more than the limit of {self.limits.max_bytes:,}"
            raise RenderError("oversize", f"the file has {size:,} bytes, {limit}; raise max_bytes to take it")
        document = Document(kind, _fd=os.dup(fd), _size=size, _password=password, _memory=self.limits.memory)
        document._end = weakref.finalize(document, os.close, document._fd)
        try:
            self._load(document)
        except BaseException:
            document.close()
            raise
        return document

    def render(
        self, document: Document, number: int, *, dpi: float = 150, max_pixels: int | None = None
    ) -> Page | PageFailure:
        """Page `number`, from 1, at `dpi`, smaller where it would have more than `max_pixels` (`Limits.max_pixels` at
        most). Images come in their own pixels. Never raises for a bad page; ValueError for a number that is none."""
        wanted = self._wanted(document, number, dpi, max_pixels)
        if self._request is not None and self._request.wanted != wanted:
            self._drop_request()
        outcome = self._draw(wanted)
        if isinstance(outcome, PageFailure) and outcome.state == "oom" and document._memory < self.limits.memory_retry:
            document._memory = self.limits.memory_retry
            outcome = self._draw(wanted)
        return outcome

    def prefetch(self, document: Document, number: int, *, dpi: float = 150, max_pixels: int | None = None) -> None:
        """Ask for a page that `render` will be called for next, and return at once. One page ahead: while one is asked
        for and not yet fetched, this does nothing."""
        wanted = self._wanted(document, number, dpi, max_pixels)
        if self._request is None:
            self._ask(wanted)

    def pages(
        self,
        document: Document,
        numbers: Iterable[int] | None = None,
        *,
        dpi: float = 150,
        max_pixels: int | None = None,
    ) -> Iterator[Page | PageFailure]:
        """The pages of `numbers`, by default all, each with the next one being drawn meanwhile."""
        ahead = iter(range(1, document.pages + 1) if numbers is None else numbers)
        number = next(ahead, None)
        while number is not None:
            outcome = self.render(document, number, dpi=dpi, max_pixels=max_pixels)
            number = next(ahead, None)
            if number is not None:
                self.prefetch(document, number, dpi=dpi, max_pixels=max_pixels)
            yield outcome

    def _wanted(
        self, document: Document, number: int, dpi: float, max_pixels: int | None
    ) -> tuple[Document, int, float, int]:
        if not 1 <= number <= document.pages:
            raise ValueError(f"page {number}: the document has pages 1 to {document.pages}")
        if not 1 <= dpi <= 4800:
            raise ValueError(f"dpi is {dpi}; it goes from 1 to 4800")
        most = self.limits.max_pixels
        return document, number, float(dpi), max(1, min(most if max_pixels is None else max_pixels, most))

    def _draw(self, wanted: tuple[Document, int, float, int]) -> Page | PageFailure:
        """Ask, unless asked already, and fetch."""
        if self._request is None:
            refusal = self._ask(wanted)
            if refusal is not None:
                return refusal
        return self._fetch()

    def _ask(self, wanted: tuple[Document, int, float, int]) -> PageFailure | None:
        """Send the request for a page; a failure where that is already the answer."""
        document, number, dpi, max_pixels = wanted
        refusal = self._refusal(document)
        if refusal is not None:
            return PageFailure(number, *refusal)
        limits = self.limits
        try:
            worker = self._load(document)
            seconds = limits.page_seconds if worker.warm else limits.first_page_seconds
            header = {"do": "draw", "number": number, "dpi": dpi, "max_pixels": max_pixels, "seconds": seconds}
            caps = {"max_side": limits.max_side, "max_aspect": limits.max_aspect}
            now = time.monotonic()
            self._request = _Request(wanted, worker.ask({**header, **caps}), now, now + seconds)
        except RenderError as error:
            return PageFailure(number, error.state if error.state in answers.PAGE_STATES else "damaged", error.reason)
        except OSError:
            return PageFailure(number, *self._death(document, "when it was asked for the page"))
        return None

    def _fetch(self) -> Page | PageFailure:
        """Wait for the page that was asked for."""
        request, self._request = self._request, None
        assert request is not None and self._worker is not None
        document, number, _, max_pixels = request.wanted
        allowed = request.deadline - request.asked
        try:
            most = answers.most_bytes(max_pixels)
            header, payload = self._worker.answer(request.id, deadline=request.deadline, max_payload=most)
            document._seconds += answers.seconds(header, min(allowed, time.monotonic() - request.asked))
            self._worker.pages += 1
            self._worker.warm = True
            return answers.page(number, header, payload, max_pixels=max_pixels, max_side=self.limits.max_side)
        except Failed as failed:
            return PageFailure(number, failed.state, failed.reason)
        except TimeoutError:
            self.close()
            document._timeouts += 1
            document._seconds += allowed
            return PageFailure(number, "timeout", f"the page was not drawn within {allowed:g} s")
        except (EOFError, OSError):
            return PageFailure(number, *self._death(document, "while it drew the page"))
        except ForgedMessage as error:
            return PageFailure(number, *self._death(document, f"for a wrong answer ({error})"))
        except BaseException:
            self.close()  # an answer may be half read
            raise

    def _drop_request(self) -> None:
        """Fetch what was asked for and will not be used."""
        if self._request is not None:
            self._fetch()

    def _load(self, document: Document) -> Worker:
        """A worker that has `document` open. Raises `RenderError`."""
        worker = self._ensure_worker(document._memory)
        if worker.loaded is document:
            return worker
        try:
            found = self._open(worker, document)
        except RenderError as error:
            if error.state != "oom" or document._memory >= self.limits.memory_retry:
                raise
            document._memory = self.limits.memory_retry
            worker = self._ensure_worker(document._memory)
            found = self._open(worker, document)
        if document.content and document.content != found.content:
            raise RenderError("damaged", "the file was changed while it was being read")
        document.content, document.title = found.content, found.title
        document.pages = min(found.pages, self.limits.max_pages)
        document.truncated = found.pages > self.limits.max_pages
        worker.loaded, worker.warm = document, False
        return worker

    def _open(self, worker: Worker, document: Document) -> answers.Opened:
        seconds = self.limits.first_page_seconds + document._size / _READ_RATE
        request = {"do": "open", "kind": document.kind, "password": document._password, "seconds": seconds}
        worker.loaded = None
        try:
            header, _ = worker.answer(worker.ask(request, fd=document._fd), deadline=time.monotonic() + seconds)
            return answers.opened(header)
        except Failed as failed:
            raise RenderError(failed.state, failed.reason) from None
        except TimeoutError:
            self.close()
            document._timeouts += 1
            raise RenderError("timeout", f"the file was not opened within {seconds:.3g} s") from None
        except (EOFError, OSError):
            raise RenderError(*self._death(document, "while it opened the file")) from None
        except ForgedMessage as error:
            raise RenderError(*self._death(document, f"for a wrong answer ({error})")) from None
        except BaseException:
            self.close()
            raise

    def _ensure_worker(self, memory: int | None = None) -> Worker:
        """A living worker, a fresh one where the last has served its time. memory: what it is to have, None for any."""
        worker = self._worker
        if worker is not None and (not worker.alive or (memory is not None and self._spent(worker, memory))):
            self.close()
        if self._worker is None:
            limits = self.limits
            self._worker = Worker(
                backend=self.backend,
                jail=self.jail,
                memory=limits.memory if memory is None else memory,
                memory_hard=max(limits.memory, limits.memory_retry) + limits.max_bytes,
                max_bytes=limits.max_bytes,
            )
            failed = answers.texts(self._worker.ready, "failed")
            if failed:
                warnings.warn(
                    f"the render process is not fully jailed: {', '.join(failed)}", RuntimeWarning, stacklevel=3
                )
        return self._worker

    def _spent(self, worker: Worker, memory: int) -> bool:
        limits = self.limits
        return (
            worker.memory != memory
            or worker.pages >= limits.worker_pages
            or time.monotonic() - worker.started >= limits.worker_seconds
            or worker.rss()
            > max(limits.worker_rss, worker.loaded._size + limits.worker_rss // 2 if worker.loaded else 0)
        )

    def _refusal(self, document: Document) -> tuple[str, str] | None:
        """Why no more pages of the document are drawn: state and reason."""
        limits = self.limits
        if document._timeouts >= limits.page_timeouts:
            return "timeout", f"skipped: {document._timeouts} pages of this document took too long"
        if document._deaths >= limits.worker_deaths:
            return "crash", f"skipped: this document ended the render process {document._deaths} times"
        budget = limits.document_seconds + limits.seconds_a_page * document.pages
        if document._seconds > budget:
            return "timeout", f"skipped: the pages before took {budget:g} s, the limit for this document"
        return None

    def _death(self, document: Document, when: str) -> tuple[str, str]:
        """Bury the worker; state and reason for what it was doing."""
        how = self._worker.kill() if self._worker is not None else "killed"
        self.close()
        document._deaths += 1
        if self.backend == "pdfium" and how in _PDFIUM_NO_MEMORY:
            return "oom", f"the render process gave up ({how}) {when}, as PDFium does without memory"
        return "crash", f"the render process ended ({how}) {when}"


def blank(page: Page) -> bool:
    """Whether there is nothing on the page: no words, and a picture of one colour (within 8 of 255)."""
    if len(page.words):
        return False
    return all(int(band.max()) - int(band.min()) <= 8 for band in np.moveaxis(page.image, 2, 0))
