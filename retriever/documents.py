"""What a `Retriever` does with documents: take in, look up, list, delete, and draw their pages."""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlite_utils import Database

from index import candidates, catalog, upkeep
from index.codec import decode
from index.errors import DamageError, OctavoError, QueryError, UnknownDocument
from index.snapshot import Snapshot
from ingest.page import Words
from ingest.report import Progress, Report

if TYPE_CHECKING:
    from PIL.Image import Image

    from ingest.render import Renderer
    from retriever.engine import Retriever

logger = logging.getLogger("octavo")
Told = Callable[[Progress], None] | None
_ID = re.compile(r"[0-9a-f]{4,32}")


def add(retriever: Retriever, paths: Sequence[str | Path], metadata: dict[str, Any] | None, **options: Any) -> Report:
    """Run an ingest over `paths`; options: exclude, password, dry_run, progress, retry."""
    from ingest.pipeline import Ingest

    check_metadata(metadata)
    exclude = options.pop("exclude", ())
    with tempfile.TemporaryDirectory() as nowhere:
        index = retriever.make_index(Path(nowhere) if options.get("dry_run") else None)
        with index.writing() as writer:
            run = Ingest(writer, retriever.encoder, retriever.renderer, metadata=metadata, **options)
            return run.run(paths, exclude)


def recode(
    retriever: Retriever, codec: str | None, pool: int | None, anew: bool, progress: Callable[[int, int], None] | None
) -> dict[str, Any]:
    """See `Retriever.recode`."""
    from index.recode import Anew, recode

    if not anew:
        return recode(retriever.index, codec, pool, progress)
    from retriever.encoders import DEFAULT, load_encoder

    name = retriever.index.settings.fingerprint["name"]
    if name != DEFAULT:
        raise QueryError(f"{name} makes its vectors of pictures, not of the words that are kept; index the files again")
    encoder: Any = retriever.seen(load_encoder(DEFAULT))

    def embed(words: str, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        found = encoder.embed(Words(words.split(), boxes))
        return found.vectors, found.boxes, found.single

    return recode(retriever.index, codec, pool, progress, Anew(embed, encoder.fingerprint))


def check_metadata(metadata: Any) -> None:
    """Raise QueryError unless metadata is a dict that JSON can hold."""
    if metadata is None:
        return
    try:
        if not isinstance(metadata, dict):
            raise TypeError(f"a dict is expected, got {type(metadata).__name__}")
        json.dumps(metadata, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise QueryError(f"metadata cannot be stored: {error}") from error


def update(retriever: Retriever, paths: Iterable[str | Path] | None, *, prune: bool, progress: Told) -> Report:
    """Take in again what changed under the known paths, or under `paths`; with prune, delete what has vanished."""
    roots = None if paths is None else [Path(path).absolute() for path in paths]
    with retriever.index.snapshot() as snapshot:
        rows = list(
            catalog.rows(
                snapshot.db, "SELECT p.path, d.id, d.content FROM paths p JOIN documents d ON d.id = p.document"
            )
        )
    known = [row for row in rows if roots is None or any(Path(row["path"]).is_relative_to(root) for root in roots)]
    there = [row["path"] for row in known if os.path.lexists(row["path"])]
    here = [str(root) for root in roots or [] if root.exists()]
    report = add(retriever, here if roots is not None else there, None, progress=progress)
    gone = [row for row in known if not os.path.lexists(row["path"])]
    renamed = {entry["document"] for entry in report.renamed}
    for row in gone:
        if row["content"] not in renamed:
            entry = {"path": row["path"], "document": row["content"], "state": "gone", "reason": "no file", "pages": 0}
            report.gone.append(entry)
    if prune:
        with retriever.index.writing() as writer:
            writer.drop_paths([entry["path"] for entry in report.gone])
    return report


def retry(retriever: Retriever, *, password: str | None, progress: Told) -> Report:
    """Take up again what failed, is partial, was cut short, or is no longer on the disk as it was written."""
    lost = [
        (damage.document, damage.page) for damage in upkeep.check(retriever.index) if damage.document and damage.page
    ]
    if lost:
        with retriever.index.writing() as writer:
            writer.lose(lost)
    with retriever.index.snapshot() as snapshot:
        rows = list(
            catalog.rows(
                snapshot.db,
                "SELECT content, state, coalesce((SELECT min(path) FROM paths WHERE document = d.id), source) AS path"
                " FROM documents d WHERE visible = 0 OR state = 'partial' ORDER BY id",
            )
        )
    there = [row["path"] for row in rows if os.path.lexists(row["path"])]
    report = add(retriever, there, None, password=password, progress=progress, retry=True) if there else Report()
    for row in rows:
        if not os.path.lexists(row["path"]):
            entry = {"path": row["path"], "document": row["content"], "state": "gone", "reason": "no file", "pages": 0}
            report.gone.append(entry)
    return report


def delete(retriever: Retriever, name: str) -> int:
    """Remove a document; the number of its pages."""
    with retriever.index.writing() as writer:
        return writer.delete([find(writer.db, name, hidden=True)["id"]])


def find(db: Database, name: str, *, hidden: bool = False) -> catalog.Row:
    """The document that `name` means: its id or at least 4 characters of its start, a path, or a file name.

    hidden: failed and unfinished ones too. Raises UnknownDocument, QueryError where several fit.
    """
    shown = "1" if hidden else "d.visible = 1"
    path = [catalog.as_text(os.path.abspath(name)), catalog.as_text(name)]
    found = list(
        catalog.rows(
            db,
            "SELECT DISTINCT d.* FROM documents d LEFT JOIN paths p ON p.document = d.id"
            f" WHERE {shown} AND (p.path = CAST(? AS TEXT) OR p.name = CAST(? AS TEXT) OR d.source = CAST(? AS TEXT))",
            [*path, path[0]],
        )
    )
    if not found and _ID.fullmatch(name):
        pattern = f"{name}*"
        found = list(catalog.rows(db, f"SELECT * FROM documents d WHERE {shown} AND d.content GLOB ?", [pattern]))
    if not found:
        raise UnknownDocument(f"no document is called {name!r}; octavo list shows what there is")
    if len(found) > 1:
        raise QueryError(f"{name!r} fits {len(found)} documents: {', '.join(row['content'][:12] for row in found[:5])}")
    return found[0]


def page_id(snapshot: Snapshot, name: str, number: int) -> int:
    """The id of a page. Raises UnknownDocument."""
    row = find(snapshot.db, name)
    found = catalog.one(snapshot.db, "SELECT id FROM pages WHERE document = ? AND number = ?", [row["id"], number])
    if found is None:
        raise UnknownDocument(f"{name!r} has {row['page_count']} pages; page {number} is not among them")
    return int(found["id"])


def listing(retriever: Retriever) -> list[dict[str, Any]]:
    """All searchable documents, by path."""
    with retriever.index.snapshot() as snapshot:
        paths: dict[int, list[str]] = {}
        for row in catalog.rows(snapshot.db, "SELECT document, path FROM paths ORDER BY path"):
            paths.setdefault(row["document"], []).append(row["path"])
        rows = list(catalog.rows(snapshot.db, "SELECT * FROM documents WHERE visible = 1"))
    return sorted((_plain(row, paths.get(row["id"], [])) for row in rows), key=lambda entry: entry["paths"])


def _plain(row: catalog.Row, paths: list[str]) -> dict[str, Any]:
    names = ("title", "kind", "size", "state", "reason", "added")
    entry = {"document": row["content"], "paths": paths, "pages": row["page_count"]} | {
        name: row[name] for name in names
    }
    return entry | {"metadata": json.loads(row["metadata"])}


def pages(retriever: Retriever, name: str) -> list[dict[str, Any]]:
    """The pages of a document, in order."""
    with retriever.index.snapshot() as snapshot:
        row = find(snapshot.db, name)
        found = catalog.rows(
            snapshot.db,
            "SELECT p.number AS page, p.state, p.reason, p.tokens, p.width, p.height, t.text FROM pages p"
            " JOIN page_text t ON t.page = p.id WHERE p.document = ? ORDER BY p.number",
            [row["id"]],
        )
        return list(found)


def status(retriever: Retriever) -> dict[str, Any]:
    """What is in an index and how it lies there."""
    index = retriever.index
    with index.snapshot() as snapshot:
        db, state = snapshot.db, snapshot.state
        hidden = list(
            catalog.rows(
                db,
                "SELECT content AS document, state, reason, source AS path, page_count AS pages FROM documents"
                " WHERE visible = 0 OR state = 'partial' ORDER BY source",
            )
        )
        states = catalog.rows(db, "SELECT state, count(*) AS n FROM documents GROUP BY state ORDER BY state")
        page_states = catalog.rows(
            db,
            "SELECT p.state, count(*) AS n FROM pages p JOIN documents d ON d.id = p.document"
            " WHERE d.visible = 1 GROUP BY p.state ORDER BY p.state",
        )
        documents = db.execute("SELECT count(*) FROM documents WHERE visible = 1").fetchone()[0]
        stored = {"shards": 0, "catalog": 0, "cache": 0}
        for file in index.folder.rglob("*"):
            if file.is_file():
                part = {"shards": "shards", "cache": "cache"}.get(file.parent.name, "catalog")
                stored[part] += file.stat().st_size
        live = sum(snapshot.layout.block_bytes(row[0]) for row in db.conn.execute("SELECT tokens FROM pages"))
        return {
            "index": str(index.folder),
            "documents": documents,
            "pages": len(snapshot),
            "tokens": state.tokens,
            "states": {row["state"]: row["n"] for row in states},
            "page_states": {row["state"]: row["n"] for row in page_states},
            "problems": hidden,
            "damaged": sorted(state.damaged.values()),
            "bytes": sum(stored.values()),
            "bytes_by_part": stored,
            "dead_bytes": max(0, sum(state.shards.ends.values()) - 64 * len(state.shards.ends) - live),
            "encoder": index.settings.fingerprint["name"],
            "vectors": index.settings.fingerprint.get("vectors", "tokens"),
            "dim": index.settings.dim,
            "codec": index.settings.codec,
            "pool": index.settings.pool,
            "candidates": snapshot.stage,
            "candidates_rule": candidates.rule(index.settings.candidates),
            "generation": snapshot.generation,
        }


def tokens(snapshot: Snapshot, page: int, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The vector (t, d) that stands for each token of a page, and the boxes (t, 4), as `Snapshot.text` gives them.

    Tokens that were pooled share a vector. Boxes are empty rectangles where they are damaged."""
    vectors = decode(snapshot.gather([page]))
    try:
        clusters = catalog.clusters(snapshot.db, page)
        vectors = vectors if clusters is None or not len(vectors) else vectors[clusters]
    except DamageError as error:
        logger.warning("where the tokens of page id %s lie is left out: %s", page, error)
    return vectors, boxes if len(boxes) == len(vectors) else np.zeros((len(vectors), 4), np.float32)


def draw(
    renderer: Renderer, guard: AbstractContextManager[Any], content: str, path: str, kind: str, number: int, dpi: int
) -> Image:
    """A page of a file as a picture, if the file still is what was indexed."""
    from PIL import Image

    from ingest.render import PageFailure, RenderError
    from ingest.sources import open_source

    try:
        descriptor = open_source(path)
    except (OSError, ValueError) as error:
        raise OctavoError(f"{path}: the file cannot be opened ({error}); the picture is drawn from it") from error
    try:
        with guard, renderer.open(descriptor, kind) as document:
            if document.content != content:
                raise OctavoError(f"{path}: the file has changed since it was indexed; run octavo update")
            drawn = renderer.render(document, number, dpi=dpi)
    except RenderError as error:
        raise OctavoError(f"{path}: {error.reason}") from error
    finally:
        os.close(descriptor)
    if isinstance(drawn, PageFailure):
        raise OctavoError(f"{path}, page {number}: {drawn.state}: {drawn.reason}")
    return Image.fromarray(np.ascontiguousarray(drawn.image))
