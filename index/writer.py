"""Writing: the one process that holds the lock adds, replaces and deletes.

The order is always the same: blocks into a shard, fdatasync, one transaction of the catalog, and only then the call
returns. A document is staged page by page, invisible, and becomes visible as a whole with `finish`, in the transaction
that also takes its path over from whatever content was there before. So a killed writer loses no page that was staged
and a reader never sees half a document. Not here: reading (index.snapshot), compaction and checks (index.upkeep).
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sqlite_utils import Database

from index import catalog, lane, schema, settings
from index.blocks import Block, Extent, Layout
from index.codec import CENTRED
from index.failpoint import failpoint
from index.pooling import pool_mean, pool_tokens
from index.records import Origin, PageRecord, as_json, clean
from index.store import ShardWriter, shard_files, sync_folder

logger = logging.getLogger("octavo.index")
PENDING = "pending"


class Writer:
    """Made by `Index.writing()`; every method has committed when it returns."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.db: Database = schema.connect(folder, write=True)
        try:
            self.settings = settings.read(self.db, folder)
            self.layout = self.settings.layout
            ends = {row["id"]: row["committed"] for row in catalog.checked(self.db, "shards")}
            first = catalog.setting(self.db, "first_shard", 1)
            for shard, path in shard_files(folder):
                if shard not in ends:  # begun by a writer that was killed before its commit, or compacted away
                    path.unlink()
            self.shards = ShardWriter(folder, self.layout, ends, first)
        except BaseException:
            self.db.close()
            raise

    def close(self) -> None:
        """Close files and connection."""
        self.shards.close()
        self.db.close()

    def document(self, content: str) -> catalog.Row | None:
        """The row of a content, pending and failed ones too."""
        return catalog.one(self.db, "SELECT * FROM documents WHERE content = ?", [content])

    def at_path(self, path: str) -> catalog.Row | None:
        """The row of the document that a path holds, with the size and mtime_ns that the file had."""
        return catalog.one(
            self.db,
            "SELECT d.*, p.size AS path_size, p.mtime_ns FROM paths p JOIN documents d ON d.id = p.document"
            " WHERE p.path = CAST(? AS TEXT)",
            [catalog.as_text(path)],
        )

    def paths(self, document: int) -> list[str]:
        """Where a document's content lies."""
        return catalog.paths(self.db, document)

    def begin(
        self,
        content: str,
        origin: Origin,
        *,
        title: str = "",
        page_count: int = 0,
        metadata: dict[str, Any] | None = None,
    ) -> tuple[int, set[int]]:
        """Stage a document, or take up where an earlier attempt stopped: its id and the page numbers it has already."""
        row = self.document(content)
        with catalog.transaction(self.db):
            if row is None:
                document = self._insert(content, origin, title, page_count, PENDING, "", metadata)
            else:
                document = row["id"]
                changes = {"title": clean(title), "page_count": page_count, "source": origin.path, "kind": origin.kind}
                if metadata is not None:
                    changes["metadata"] = as_json(metadata)
                if not row["visible"]:
                    changes |= {"state": PENDING, "reason": ""}
                catalog.update_document(self.db, document, **changes)
                if row["visible"]:
                    lane.rename(self.db, document)
                    self.next_generation()
        done = catalog.rows(
            self.db, "SELECT number FROM pages WHERE document = ? AND state IN ('ok', 'blank')", [document]
        )
        return document, {row["number"] for row in done}

    def fail(
        self, content: str, origin: Origin, state: str, reason: str, metadata: dict[str, Any] | None = None
    ) -> None:
        """Record that a content could not be taken in, and why. What its path held before stays."""
        row = self.document(content)
        with catalog.transaction(self.db):
            if row is None:
                self._insert(content, origin, "", 0, state, reason, metadata)
            elif not row["visible"]:
                catalog.update_document(self.db, row["id"], state=state, reason=reason, source=origin.path)
            self._forget_failures(origin.path, content)

    def _insert(
        self, content: str, origin: Origin, title: str, page_count: int, state: str, reason: str, metadata: Any
    ) -> int:
        row = {
            "content": content,
            "kind": origin.kind,
            "title": clean(title),
            "size": origin.size,
            "page_count": page_count,
            "state": state,
            "reason": reason,
            "metadata": as_json(metadata or {}),
            "source": origin.path,
            "added": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "visible": 0,
        }
        return catalog.insert(self.db, "documents", row)

    def add_pages(self, document: int, pages: Sequence[PageRecord]) -> list[int]:
        """Store pages of a staged document; a page number that is there already is replaced. Their new ids."""
        (row,) = catalog.checked(self.db, "documents", "id = ?", [document])
        last = catalog.one(self.db, "SELECT seq FROM sqlite_sequence WHERE name = 'pages'")
        first = (last["seq"] if last else 0) + 1
        ids = list(range(first, first + len(pages)))
        for page in pages:
            page.check(self.layout.dim)
        self._centre(pages)
        layout, pool = self.layout, self.settings.pool
        stored = [block_of(layout, pool, page_id, page) for page_id, page in zip(ids, pages, strict=True)]
        extents = self.shards.append([block for block, _ in stored])
        title, name = lane.naming(self.db, row)
        with catalog.transaction(self.db):
            for page_id, page, extent, (_, clusters) in zip(ids, pages, extents, stored, strict=True):
                self._drop_pages("document = ? AND number = ?", [document, page.number])
                self._insert_page(page_id, document, page, extent)
                if clusters is not None:
                    catalog.put_clusters(self.db, page_id, clusters)
                self._insert_text(page_id, page, title, name)
            self._commit_shards()
            if row["visible"]:
                self.next_generation()
            failpoint("pages in transaction")
        failpoint("pages committed")
        return ids

    def _centre(self, pages: Sequence[PageRecord]) -> None:
        """Where the codec needs a centre and there is none yet, make it the mean of these tokens."""
        if self.layout.codec not in CENTRED or self.layout.centre is not None:
            return
        vectors = np.concatenate([page.vectors for page in pages])
        if len(vectors):
            self.settings = self.settings.centred(vectors.mean(axis=0, dtype=np.float64))
            self.layout = self.shards.layout = self.settings.layout
            with catalog.transaction(self.db):
                settings.write(self.db, self.settings)
            failpoint("centre committed")

    def bytes_of(self, page: PageRecord) -> int:
        """About what a page takes on the disk: its block, its rows, and its words twice in the text lane."""
        tokens = -(-len(page.vectors) // self.settings.pool)
        rows = 8 * (len(page.token_boxes) + len(page.word_boxes)) + 2 * (len(page.vectors) - tokens)
        return self.layout.block_bytes(tokens) + rows + 3 * len(page.text.encode()) + 300

    def _insert_page(self, page_id: int, document: int, page: PageRecord, extent: Extent) -> None:
        row = {
            "document": document,
            "number": page.number,
            "state": page.state,
            "reason": page.reason,
            "width": float(page.width),
            "height": float(page.height),
            "shard": extent.shard,
            "offset": extent.offset,
            "tokens": extent.tokens,
            "payload_crc": extent.crc,
        }
        assert catalog.insert(self.db, "pages", {"id": page_id, **row}) == page_id

    def _insert_text(self, page_id: int, page: PageRecord, title: str, name: str) -> None:
        boxes = catalog.pack_boxes(page.word_boxes), catalog.pack_boxes(page.token_boxes)
        words = clean(page.text)
        row = {"page": page_id, "text": words, "word_boxes": boxes[0], "token_boxes": boxes[1]}
        catalog.insert(self.db, "page_text", row)
        headings = clean(page.headings)
        if headings or page.contents:
            place = {"page": page_id, "headings": headings, "contents": int(page.contents)}
            catalog.insert(self.db, "page_places", place)
        if page.state == "ok":  # a blank or failed page would be found by its title alone, before those that say it
            lane.put(self.db, page_id, title, name, words, headings)

    def finish(self, document: int, origin: Origin, state: str, reason: str = "") -> None:
        """Make a staged document visible under its path, in place of what the path held before."""
        with catalog.transaction(self.db):
            catalog.update_document(self.db, document, visible=1, state=state, reason=reason)
            self._take_path(document, origin)
            lane.rename(self.db, document)
            self._forget_failures(origin.path)
            self.next_generation()
            failpoint("finish in transaction")
        failpoint("finished")

    def add_path(self, document: int, origin: Origin, gone: Sequence[str] = ()) -> None:
        """Say that a document's content lies at this path, and no longer at those."""
        with catalog.transaction(self.db):
            self._take_path(document, origin)
            for path in gone:
                self.db.execute("DELETE FROM paths WHERE path = CAST(? AS TEXT)", [catalog.as_text(path)])
            lane.rename(self.db, document)
            self.next_generation()
            failpoint("path in transaction")

    def lose(self, pages: Iterable[tuple[str, int]]) -> None:
        """Give up stored pages, as (content, number), that turned out damaged; `begin` then asks for them again."""
        with catalog.transaction(self.db):
            for content, number in pages:
                row = self.document(content)
                if row is not None and self._drop_pages("document = ? AND number = ?", [row["id"], number]):
                    catalog.update_document(
                        self.db, row["id"], state="partial", reason="pages were damaged on the disk"
                    )
            self.next_generation()

    def drop_paths(self, paths: Sequence[str]) -> None:
        """Forget paths; a document that has none left goes with its last."""
        with catalog.transaction(self.db):
            for path in paths:
                row = self.at_path(path)
                self.db.execute("DELETE FROM paths WHERE path = CAST(? AS TEXT)", [catalog.as_text(path)])
                if row is not None:
                    self._drop_or_name(row["id"])
            self.next_generation()

    def _take_path(self, document: int, origin: Origin) -> None:
        before = self.at_path(origin.path)
        catalog.set_path(self.db, origin.path, document, origin.size, origin.mtime_ns)
        if before is not None and before["id"] != document:
            self._drop_or_name(before["id"])

    def _drop_or_name(self, document: int) -> None:
        if self.paths(document):
            lane.rename(self.db, document)
        else:
            self._drop_document(document)

    def _forget_failures(self, path: str, content: str = "") -> None:
        """Drop what earlier contents of a path left behind without becoming visible."""
        stale = self.db.conn.execute(
            "SELECT id FROM documents WHERE visible = 0 AND source = CAST(? AS TEXT) AND content <> ?",
            [catalog.as_text(path), content],
        ).fetchall()
        for (document,) in stale:
            self._drop_document(document)

    def set_metadata(self, document: int, metadata: dict[str, Any]) -> None:
        """Replace the metadata of a document."""
        with catalog.transaction(self.db):
            catalog.update_document(self.db, document, metadata=as_json(metadata))
            self.next_generation()

    def delete(self, documents: Sequence[int]) -> int:
        """Remove documents with all their pages, from every later search; the number of pages removed."""
        with catalog.transaction(self.db):
            pages = sum(self._drop_document(document) for document in documents)
            self.next_generation()
            failpoint("delete in transaction")
        return pages

    def _drop_document(self, document: int) -> int:
        pages = self._drop_pages("document = ?", [document])
        self.db.execute("DELETE FROM document_search WHERE rowid = ?", [document])
        self.db.execute("DELETE FROM documents WHERE id = ?", [document])
        return pages

    def _drop_pages(self, condition: str, values: list[object]) -> int:
        chosen = f"(SELECT id FROM pages WHERE {condition})"
        self.db.execute(f"DELETE FROM page_search WHERE rowid IN {chosen}", values)
        return int(self.db.execute(f"DELETE FROM pages WHERE {condition}", values).rowcount)

    def _commit_shards(self) -> None:
        for shard, end in self.shards.ends.items():
            catalog.insert(self.db, "shards", {"id": shard, "committed": end}, replace=True)

    def drop_shard(self, shard: int) -> None:
        """Inside a transaction: no page lies in this shard any more; its successors take its place."""
        self.shards.drop(shard)
        catalog.put_setting(self.db, "first_shard", self.shards.first)
        self.db.execute("DELETE FROM shards WHERE id = ?", [shard])
        self._commit_shards()
        self.next_generation()

    def next_generation(self) -> None:
        """Inside a transaction: tell readers that what they see has changed."""
        catalog.put_setting(self.db, "generation", catalog.setting(self.db, "generation", 0) + 1)

    def sync(self) -> bool:
        """Move what the write-ahead log holds into the catalog file; whether all of it, which readers may prevent."""
        try:
            self.db.execute("PRAGMA busy_timeout=200").fetchall()
            busy = self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            sync_folder(self.folder)
        except (catalog.SQLiteError, OSError) as error:  # it is safe in the log
            logger.warning("%s: the log could not be moved into the catalog: %s", self.folder, error)
            return False
        return not busy


def block_of(layout: Layout, pool: int, page_id: int, page: PageRecord) -> tuple[Block, np.ndarray | None]:
    """The block of a page, and which of its vectors stands for each token where that is not its own."""
    vectors, pooled = page.vectors, page.single
    if pooled is None:
        pooled = pool_mean(vectors) if len(vectors) else np.zeros(layout.single_dim, np.float32)
    if pool == 1:
        return layout.block(page_id, vectors, pooled), None
    vectors, clusters = pool_tokens(vectors, -(-len(vectors) // pool))
    return layout.block(page_id, vectors, pooled), clusters if len(vectors) < len(clusters) else None
