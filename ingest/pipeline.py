"""Files into an index: skip what is known, render, encode, store; a document after another, a batch of pages at a time.

First every file is looked at (its hash, whether it opens, its pages), so that progress and a dry run know the work
ahead and files that cannot be read are recorded at once. Then the new ones are encoded while the worker draws on.
Whatever is wrong with a file or page ends as a recorded state; killed and started again, it goes on after the last
batch of pages that was committed. Not here: what a file looks like (ingest.render), what is stored (index.writer).
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from index import Origin, PageRecord
from index.catalog import Row
from index.writer import PENDING, Writer
from ingest.contents import is_contents
from ingest.page import Encoder, Page, PageTokens, Words
from ingest.render import Document, PageFailure, Renderer, RenderError, blank
from ingest.report import Entry, Progress, Report
from ingest.sources import Source, Unreadable, content_id, find, open_source

logger = logging.getLogger("octavo.ingest")
FAILED = ("damaged", "timeout", "oom", "crash", "encrypted", "oversize", "unsupported", "empty")
"""States of a document of which nothing is searchable, and of a page without tokens."""
SAMPLES = 5  # documents that an estimate looks into


@dataclass
class Work:
    """A file that has to be encoded, the id of its content, and how many pages it has."""

    source: Source
    content: str
    pages: int


@dataclass
class Ingest:
    """One run. metadata: for every document of it, None leaves what is there; retry: take failed contents up again."""

    writer: Writer
    encoder: Encoder
    renderer: Renderer
    metadata: dict[str, Any] | None = None
    password: str | None = None
    retry: bool = False
    dry_run: bool = False
    progress: Callable[[Progress], None] | None = None
    report: Report = field(default_factory=Report)

    def run(self, paths: Iterable[str | Path], exclude: Sequence[str] = ()) -> Report:
        """Take in files and folders. Raises FileNotFoundError for a path that is not there; nothing else stops it."""
        self._started = time.monotonic()
        self._documents, self._pages_total = 0, 0
        self.report.dry_run = self.dry_run
        found = find(paths, exclude=exclude, max_bytes=self.renderer.limits.max_bytes)
        work = [item for file in found if (item := self._look(file)) is not None]
        self._documents_total = len(work)
        if self.dry_run:
            return self._estimate(work)
        for item in work:
            self._tell(item.source.path)
            self._take(item)
            self._documents += 1
        self._tell(None)
        self.report.seconds = time.monotonic() - self._started
        return self.report

    def _estimate(self, work: Sequence[Work]) -> Report:
        """What a run would store and take, going by a page from the middle of some of the documents."""
        size, seconds, stored = self.encoder.render, [], []
        for item in work[:: -(-len(work) // SAMPLES) or 1]:
            started = time.monotonic()
            descriptor = open_source(item.source.path)
            try:
                with self.renderer.open(descriptor, item.source.kind, password=self.password) as document:
                    numbers = [item.pages // 2 + 1]
                    drawn = list(self.renderer.pages(document, numbers, dpi=size.dpi, max_pixels=size.max_pixels))
                    records = list(self._records(drawn))
            except RenderError:
                continue
            finally:
                os.close(descriptor)
            seconds.append(time.monotonic() - started)
            stored.append(sum(self.writer.bytes_of(record) for record in records))
        self.report.pages = self._pages_total
        self.report.bytes = int(self._pages_total * np.mean(stored or [0]))
        self.report.seconds = float(self._pages_total * np.mean(seconds or [0]))
        return self.report

    def _tell(self, path: Path | None) -> None:
        if self.progress is not None:
            seconds = time.monotonic() - self._started
            done = (self._documents, self._documents_total, self.report.pages, self._pages_total)
            self.progress(Progress(*done, path, seconds))

    # -- looking ------------------------------------------------------------------------------------------------------

    def _look(self, file: Source | Unreadable) -> Work | None:
        """What there is to do for a file; None where that is nothing, or nothing can be done."""
        if isinstance(file, Unreadable):
            self._fail(file.path, _origin(file), _path_id(file.path), file.state, file.reason)
            return None
        known = self.writer.at_path(str(file.path))
        same = known is not None and (known["path_size"], known["mtime_ns"]) == (file.size, file.mtime_ns)
        if known is not None and same and not self._again(known):
            self._set_metadata(known)
            self._done("skipped", file.path, known)
            return None
        try:
            descriptor = open_source(file.path)
        except (OSError, ValueError) as error:
            self._fail(file.path, _origin(file), _path_id(file.path), "unsupported", str(error))
            return None
        try:
            return self._look_inside(file, descriptor)
        finally:
            os.close(descriptor)

    def _look_inside(self, file: Source, descriptor: int) -> Work | None:
        content = content_id(descriptor)
        row = self.writer.document(content)
        if row is not None and row["visible"] and not self._again(row):
            self._known(file, row)
            return None
        if row is not None and row["state"] not in (PENDING, "partial") and not (self.retry or self.password):
            self.report.failed.append(_entry(file.path, row["content"], row["state"], row["reason"]))
            return None
        try:
            with self.renderer.open(descriptor, file.kind, password=self.password) as document:
                if not document.pages:
                    raise RenderError("empty", "the document has no pages")
                self._pages_total += document.pages
                self.report.bytes += file.size
                if self.dry_run:
                    self._done("added", file.path, {"content": content, "state": "new", "page_count": document.pages})
                return Work(file, content, document.pages)
        except RenderError as error:
            self._fail(file.path, _origin(file), content, error.state, error.reason)
            return None

    def _again(self, row: Row) -> bool:
        """Whether pages of a document that is there already are to be tried again."""
        return self.retry and row["state"] == "partial"

    def _known(self, file: Source, row: Row) -> None:
        """A content that is there already, under this path or others."""
        paths = self.writer.paths(row["id"])
        gone = [path for path in paths if path != str(file.path) and not os.path.lexists(path)]
        if not self.dry_run:
            self._set_metadata(row)
            self.writer.add_path(row["id"], _origin(file), gone)
        self._done("skipped" if str(file.path) in paths else "renamed", file.path, row)

    def _set_metadata(self, row: Row) -> None:
        if self.metadata is not None and not self.dry_run:
            self.writer.set_metadata(row["id"], self.metadata)

    # -- taking in ----------------------------------------------------------------------------------------------------

    def _take(self, work: Work) -> None:
        """Encode and store a document, whole or as much of it as can be had."""
        file = work.source
        row = self.writer.document(work.content)
        if row is not None and row["visible"] and row["state"] != "partial":
            self._known(file, row)  # its twin came earlier in this run
            return
        try:
            descriptor = open_source(file.path)
            try:
                with self.renderer.open(descriptor, file.kind, password=self.password) as document:
                    self._encode(work, document)
            finally:
                os.close(descriptor)
        except RenderError as error:
            self._fail(file.path, _origin(file), work.content, error.state, error.reason)
        except (OSError, ValueError) as error:
            self._fail(file.path, _origin(file), work.content, "unsupported", str(error))

    def _encode(self, work: Work, document: Document) -> None:
        if document.content != work.content:
            raise RenderError("damaged", "the file changed while it was read; run octavo retry when it is at rest")
        origin = _origin(work.source)
        replaces = self.writer.at_path(origin.path)
        key, done = self.writer.begin(
            work.content, origin, title=document.title, page_count=document.pages, metadata=self.metadata
        )
        states = Counter({"ok": len(done)})
        reasons: dict[str, str] = {}
        self._pages_total -= len(done)
        todo = [number for number in range(1, document.pages + 1) if number not in done]
        size = self.encoder.render
        drawn = self.renderer.pages(document, todo, dpi=size.dpi, max_pixels=size.max_pixels)
        for batch in _batches(drawn, self.encoder.batch_size):
            records = list(self._records(batch))
            self.writer.add_pages(key, records)
            for record in records:
                states[record.state] += 1
                reasons.setdefault(record.state, record.reason)
            self.report.pages += len(records)
            self._tell(work.source.path)
        self._finish(work, document, key, states, reasons, replaces)

    def _finish(
        self,
        work: Work,
        document: Document,
        key: int,
        states: Counter[str],
        reasons: dict[str, str],
        replaces: Row | None,
    ) -> None:
        """Say what became of a document from what became of its pages."""
        origin = _origin(work.source)
        bad = {state: count for state, count in states.items() if state in FAILED}
        if bad and not states["ok"] and not states["blank"]:
            state = max(bad, key=lambda name: bad[name])
            self._fail(work.source.path, origin, work.content, state, f"no page could be had: {reasons[state]}")
            return
        reason = "; ".join(
            f"{count} of {document.pages} pages {state} ({reasons[state]})" for state, count in bad.items()
        )
        if document.truncated:
            reason = f"only the first {document.pages} pages were taken (see max_pages); {reason}".rstrip("; ")
        state = "partial" if reason else "blank" if not states["ok"] else "ok"
        self.writer.finish(key, origin, state, reason)
        row = {"content": work.content, "state": state, "reason": reason, "page_count": document.pages}
        new = replaces is None or replaces["content"] == work.content
        self._done("added" if new else "updated", work.source.path, row)

    def _records(self, batch: Sequence[Page | PageFailure]) -> Iterator[PageRecord]:
        """Pages and failures in, what is stored of each out."""
        pages = [item for item in batch if isinstance(item, Page) and not blank(item)]
        tokens = dict(zip((page.number for page in pages), self._tokens(pages), strict=True))
        for item in batch:
            if isinstance(item, PageFailure):
                yield self._empty(item.number, item.state, item.reason)
                continue
            found = tokens.get(item.number)
            if isinstance(found, PageTokens):
                yield _record(item, found)
            else:
                yield self._empty(item.number, *((("blank", "")) if found is None else ("crash", found)))

    def _empty(self, number: int, state: str, reason: str) -> PageRecord:
        nothing = np.zeros((0, self.encoder.dim), np.float32)
        return PageRecord(number, nothing, np.zeros((0, 4), np.float32), state=state, reason=reason)

    def _tokens(self, pages: Sequence[Page]) -> list[PageTokens | str]:
        """The encoder's answer for each page, or what went wrong with it; one bad page spoils no other."""
        if not pages:
            return []
        try:
            return list(self.encoder.encode_pages(pages))
        except Exception as error:
            if len(pages) > 1:
                return [answer for page in pages for answer in self._tokens([page])]
            logger.debug("page %d: the encoder failed", pages[0].number, exc_info=True)
            return [f"the encoder failed: {type(error).__name__}: {error}"]

    # -- telling ------------------------------------------------------------------------------------------------------

    def _fail(self, path: Path, origin: Origin, content: str, state: str, reason: str) -> None:
        if not self.dry_run:
            self.writer.fail(content, origin, state, reason, self.metadata)
        self.report.failed.append(_entry(path, content, state, reason))

    def _done(self, kind: str, path: Path, row: Row) -> None:
        entry = _entry(path, row["content"], row["state"], row.get("reason", ""), row["page_count"])
        getattr(self.report, kind).append(entry)


def _record(page: Page, tokens: PageTokens) -> PageRecord:
    words: Words = tokens.words if tokens.words is not None else page.words
    texts = ["".join(text.split()) or "\ufffd" for text in words.texts]
    return PageRecord(
        number=page.number,
        vectors=np.asarray(tokens.vectors, np.float32),
        token_boxes=np.asarray(tokens.boxes, np.float32).reshape(-1, 4),
        text=" ".join(texts),
        word_boxes=np.asarray(words.boxes, np.float32).reshape(-1, 4),
        single=tokens.single,
        state="ok" if len(tokens.vectors) or texts else "blank",
        width=page.width,
        height=page.height,
        headings=page.headings,
        contents=is_contents(words),
    )


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) >= size:
            yield batch
            batch = []
    if batch:
        yield batch


def _entry(path: Path, content: str, state: str, reason: str, pages: int = 0) -> Entry:
    return {"path": str(path), "document": content, "state": state, "reason": reason, "pages": pages}


def _origin(file: Source | Unreadable) -> Origin:
    if isinstance(file, Source):
        return Origin(str(file.path), file.kind, file.size, file.mtime_ns)
    return Origin(str(file.path), "", 0, 0)


def _path_id(path: Path) -> str:
    """An identity for what has no content that could be read."""
    return hashlib.blake2b(b"path:" + os.fsencode(path), digest_size=16).hexdigest()
