"""Pages for an index, made of a seed: what was put in is known, so what comes out can be compared with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from index import Index, Origin, PageRecord
from index.candidates import Queries
from index.catalog import clusters, rows
from index.codec import decode
from index.pooling import pool_mean
from index.ragged import Ragged
from index.snapshot import Snapshot
from index.writer import Writer

DIM = 16
WORDS = ("harbour", "ship", "crane", "forest", "tree", "river", "stone", "mill", "wheel", "bread", "salt", "lamp")


def content_of(name: str) -> str:
    """A content id, as the ingest would give it."""
    return hashlib.blake2b(name.encode(), digest_size=16).hexdigest()


def origin_of(name: str, folder: str = "/files") -> Origin:
    """Where a document of that name lies."""
    return Origin(f"{folder}/{name}.pdf", "pdf", len(name), 7)


def vectors_of(name: str, number: int, tokens: int, dim: int = DIM) -> np.ndarray:
    """(tokens, dim) float32 unit vectors that only this page has."""
    seed = int.from_bytes(hashlib.blake2b(f"{name}/{number}".encode(), digest_size=8).digest(), "little")
    drawn = np.random.default_rng(seed).standard_normal((tokens, dim)).astype(np.float32)
    return drawn / np.maximum(np.linalg.norm(drawn, axis=1, keepdims=True), 1e-9)


def page_of(name: str, number: int, tokens: int = 5, text: str | None = None, dim: int = DIM) -> PageRecord:
    """A page with a word for each token."""
    vectors = vectors_of(name, number, tokens, dim)
    words = [WORDS[(len(name) + 3 * number + i) % len(WORDS)] for i in range(tokens)] if text is None else text.split()
    boxes = np.linspace(0, 1, 4 * tokens, dtype=np.float32).reshape(tokens, 4)
    word_boxes = np.linspace(0, 1, 4 * len(words), dtype=np.float32).reshape(len(words), 4)
    headings = f"{words[0]} of {name}" if words else ""
    return PageRecord(number, vectors, boxes, " ".join(words), word_boxes, width=600.0, height=800.0, headings=headings)


def add(
    writer: Writer,
    name: str,
    pages: int | Sequence[PageRecord] = 2,
    *,
    path: str | None = None,
    metadata: dict[str, Any] | None = None,
    batch: int = 2,
) -> int:
    """Add a document whole, or go on with it where an earlier attempt stopped; its id."""
    records = [page_of(name, number) for number in range(1, pages + 1)] if isinstance(pages, int) else list(pages)
    origin = origin_of(path or name)
    document, done = writer.begin(
        content_of(name), origin, title=f"Title {name}", page_count=len(records), metadata=metadata
    )
    todo = [record for record in records if record.number not in done]
    for start in range(0, len(todo), batch):
        writer.add_pages(document, todo[start : start + batch])
    writer.finish(document, origin, "ok")
    return document


def embed(words: str, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, None]:
    """What another encoder would make of a page's words: two tokens a word, where the word is."""
    drawn = [vectors_of(word, 9, 2) for word in words.split()]
    return np.concatenate([np.zeros((0, DIM), np.float32), *drawn]), np.repeat(boxes, 2, axis=0), None


def filled(folder: Path, names: Iterable[str] = "abc", pages: int = 2, **settings: Any) -> Index:
    """An index with a few documents. settings: as of Index.create."""
    index = Index.create(folder, **{"dim": DIM, "fingerprint": {"name": "seed"}} | settings)
    with index.writing() as writer:
        for name in names:
            add(writer, name, pages)
    return index


def dump(index: Index) -> list[Any]:
    """Everything that can be told apart from outside, in the order of (document, page): no ids, no times."""
    with index.snapshot() as snapshot:
        paths: dict[int, list[str]] = {}
        for row in rows(snapshot.db, "SELECT document, path, size FROM paths ORDER BY path"):
            paths.setdefault(row["document"], []).append(row["path"])
        found = sorted(snapshot.pages(snapshot.state.ids.tolist()).values(), key=lambda r: (r["content"], r["number"]))
        return [
            {
                "content": row["content"],
                "page": row["number"],
                "paths": paths[row["document"]],
                "title": row["title"],
                "metadata": json.loads(row["metadata"]),
                "page_count": row["page_count"],
                "state": row["state"],
                "vectors": decode(snapshot.gather([row["id"]])).tobytes(),
                "pooled": snapshot.pooled([row["id"]]).tobytes(),
                "text": snapshot.text(row["id"])[0],
                "boxes": [part.tobytes() for part in snapshot.text(row["id"])[1:]],
                "clusters": None if (found := clusters(snapshot.db, row["id"])) is None else found.tolist(),
            }
            for row in found
        ]


def text_search(index: Index, query: str) -> list[tuple[str, int, float]]:
    """(content, page, score rounded) of the text lane, best first, ties by content and page."""
    with index.snapshot() as snapshot:
        scores, ids = snapshot.match(query)
        found = snapshot.pages(ids.tolist())
        hits = [
            (found[i]["content"], found[i]["number"], round(s, 9))
            for s, i in zip(scores.tolist(), ids.tolist(), strict=True)
        ]
        return sorted(hits, key=lambda hit: (-hit[2], hit[:2]))


def asked(query: np.ndarray) -> Queries:
    """One query (m, d) as a first stage takes it."""
    return Queries(Ragged.of([query]), pool_mean(query)[None])


def visual_search(snapshot: Snapshot, query: np.ndarray, n: int = 10) -> list[tuple[str, int, float]]:
    """(content, page, score) by MaxSim of the candidates for one query (m, d); a page without tokens is not found."""
    _, ids = snapshot.first_stage.search(asked(query), n)[0]
    found = snapshot.pages(ids.tolist())
    hits = []
    for page in ids.tolist():
        vectors = decode(snapshot.gather([page]))
        if len(vectors):
            score = float((query @ vectors.T).max(axis=1).sum())
            hits.append((found[page]["content"], found[page]["number"], score))
    return sorted(hits, key=lambda hit: (-hit[2], hit[:2]))[:n]
