"""The index of a corpus: built once by the engine itself, kept by what is in it, taken up again after a kill.

A folder is named by the corpus (content and names), the encoder's fingerprint, the catalog's format (an older one may
know less of a page) and how tokens are stored, so that data sets that share their pages share it. In a sweep the tokens
are encoded once, kept in half precision, and copies of that index are recoded. Corpora of texts go in without the
renderer, a text a page.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from index import Index, Origin, PageRecord, catalog, schema
from index.writer import Writer
from ingest.page import Encoder, Page, PageTokens, Words
from ingest.report import Progress
from retriever.engine import Retriever
from retriever.evaluation.datasets import Corpus

Told = Callable[[str, int, int], None]
"""Told what is done, how much of it, of how much."""
_TEXTS_AT_ONCE = 32


def opened(
    corpus: Corpus,
    encoder: Encoder,
    cache: Path,
    *,
    codec: str = "int8",
    pool: int = 1,
    candidates: str = "auto",
    derive: bool = False,
    told: Told | None = None,
) -> tuple[Retriever, dict[str, Any]]:
    """The index of a corpus, made if it is not there, and how making it went: encoded (pages), failed, seconds,
    pages_a_second, cpu_seconds_a_page (without drawing).

    derive: recode a copy of the index in half precision instead of encoding the pages, unless there is one already.
    Raises OctavoError; IndexLocked where another evaluation is making the same index.
    """
    tell = told or (lambda what, done, total: None)
    folder = place(corpus, encoder, cache, codec, pool)
    made = folder.with_name(f"{folder.name}.json")
    if not made.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        if derive and (codec, pool) != ("fp16", 1):
            facts = _derived(corpus, encoder, cache, folder, codec, pool, tell)
        else:
            facts = _built(corpus, encoder, folder, codec, pool, tell)
        made.write_text(json.dumps(facts))
    set_stage(folder, candidates)
    return Retriever.open(folder, encoder, create=False), json.loads(made.read_text())


def place(corpus: Corpus, encoder: Encoder, cache: Path, codec: str, pool: int) -> Path:
    """Where the index of a corpus lies."""
    fingerprint = json.dumps([encoder.fingerprint, len(schema.MIGRATIONS)], sort_keys=True, default=str).encode()
    maker = hashlib.blake2b(fingerprint, digest_size=6).hexdigest()
    pooled = f"-pool{pool}" if pool != 1 else ""
    return cache / "indexes" / f"{corpus.key[:16]}-{maker}-{codec}{pooled}"


def _built(corpus: Corpus, encoder: Encoder, folder: Path, codec: str, pool: int, tell: Told) -> dict[str, Any]:
    options: dict[str, Any] = {"pool": pool} if pool != 1 else {}
    begun, cpu = time.monotonic(), _spent(encoder)
    with Retriever.open(folder, encoder, codec=codec, **options) as retriever:
        if corpus.texts:
            failed = _add_texts(retriever, corpus, tell)
            pages = len(corpus.texts)
        else:

            def progress(p: Progress) -> None:
                tell("indexing pages", p.pages_done, p.pages_total)

            report = retriever.add(list(corpus.files.values()), progress=progress)
            failed, pages = [f"{e['path']}: {e['state']}: {e['reason']}" for e in report.failed], report.pages
    seconds = time.monotonic() - begun
    return {
        "failed": failed,
        "encoded": pages,
        "seconds": seconds,
        "pages_a_second": pages / seconds if pages else None,
        "cpu_seconds_a_page": (_spent(encoder) - cpu) / pages if pages else None,
    }


def _spent(encoder: Any) -> float:
    """CPU seconds, those that a reading took which was there already among them."""
    readings = getattr(encoder, "readings", None)
    return time.process_time() + (readings.spared if readings else 0.0)


def _derived(
    corpus: Corpus, encoder: Encoder, cache: Path, folder: Path, codec: str, pool: int, tell: Told
) -> dict[str, Any]:
    source, facts = opened(corpus, encoder, cache, codec="fp16", told=tell)
    source.close()
    partial = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source.folder, partial)
    copy: Any
    with Retriever.open(partial, encoder, create=False) as copy:
        copy.recode(codec, pool, progress=lambda done, total: tell(f"recoding to {codec}, pool {pool}", done, total))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return facts | {"derived": True}


def texts(retriever: Retriever, corpus: Corpus) -> dict[str, str]:
    """Page id -> the words of the page, as the encoder of the index read them."""
    return {
        name: page["text"]
        for document in retriever.documents()
        for page in retriever.pages(document["document"])
        for name in corpus.ids(document["document"], page["page"])
    }


def set_stage(folder: Path, candidates: str) -> None:
    """Have an index narrowed by another first stage. Raises OctavoError for one that there is not."""
    index = Index(folder)
    try:
        if index.settings.candidates != candidates:
            with index.writing() as writer, catalog.transaction(writer.db):
                catalog.put_setting(
                    writer.db, "index", catalog.setting(writer.db, "index") | {"candidates": candidates}
                )
                writer.next_generation()
    finally:
        index.close()


def _add_texts(retriever: Retriever, corpus: Corpus, tell: Told) -> list[str]:
    """Each text as a document of one page; those that are there are skipped."""
    index = retriever.make_index()
    with index.writing() as writer:
        todo = [content for content in corpus.texts if not (row := writer.document(content)) or not row["visible"]]
        for start in range(0, len(todo), _TEXTS_AT_ONCE):
            tell("indexing texts", len(corpus.texts) - len(todo) + start, len(corpus.texts))
            contents = todo[start : start + _TEXTS_AT_ONCE]
            texts = [corpus.texts[content] for content in contents]
            for content, text, tokens in zip(contents, texts, encode_texts(retriever.encoder, texts), strict=True):
                _add_text(writer, content, corpus.names[content][0], text, tokens)
    return []


def _add_text(writer: Writer, content: str, name: str, text: str, tokens: PageTokens) -> None:
    origin = Origin(f"/texts/{content}.txt", "text", len(text), 0)
    document, _ = writer.begin(content, origin, title="", page_count=1)
    words = " ".join(text.split())
    boxes = _boxes(len(words.split()))
    page = PageRecord(1, tokens.vectors, tokens.boxes, words, boxes, tokens.single)
    writer.add_pages(document, [page])
    writer.finish(document, origin, "ok")


def encode_texts(encoder: Any, texts: Sequence[str]) -> list[PageTokens]:
    """Texts as what is searched: by the encoder's own `encode`, else as a page of words whose picture is white."""
    if hasattr(encoder, "encode"):
        found = encoder.encode(list(texts), prompt_name="passage")
        singles = [None if one.single is None else np.asarray(one.single, np.float32) for one in found]
        return [
            PageTokens(np.asarray(one.multi, np.float32), np.zeros((len(one.multi), 4), np.float32), None, single)
            for one, single in zip(found, singles, strict=True)
        ]
    white = np.full((16, 16, 3), 255, np.uint8)
    pages = [Page(1, white, Words(text.split(), _boxes(len(text.split()))), 600.0, 800.0) for text in texts]
    found = encoder.encode_pages(pages)
    return [PageTokens(one.vectors, one.boxes, None, one.single) for one in found]


def _boxes(n: int) -> np.ndarray:
    """Boxes for words that lie nowhere: one below the other."""
    edges = np.linspace(0, 1, n + 1, dtype=np.float32)
    return np.stack([np.zeros(n, np.float32), edges[:-1], np.ones(n, np.float32), edges[1:]], axis=1)
