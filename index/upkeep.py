"""Upkeep: verify every byte, give back the room of what was deleted, make derived parts again.

`check` reads all of it: row checksums, SQLite's own integrity check (which covers the FTS5 index), each block of each
shard whether a page still uses it or not, and the cache. `compact` copies live blocks into a new shard, syncs it, moves
the pages over in one transaction and only then unlinks the old file; a kill at any point leaves one whole index.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sqlite_utils import Database

from index import cache, catalog, lane, schema
from index.blocks import ALIGN, Extent, walk_block
from index.directory import Index
from index.errors import DamageError, FormatError, OctavoError
from index.failpoint import failpoint
from index.snapshot import Snapshot
from index.store import shard_path, sync_folder
from index.writer import PENDING, Writer

WORTH_IT = 0.1  # a shard is rewritten when this share of it is dead; with purge, when anything is


class Damage(NamedTuple):
    """Something that is not as it was written. document: content id, "" where none is concerned; page: from 1, 0 where
    none is; file: path; offset: in bytes, -1 where the file does not say."""

    document: str
    page: int
    file: str
    offset: int
    reason: str


def check(index: Index) -> list[Damage]:
    """Everything that is damaged, [] where nothing is. Reads every byte that is committed."""
    found: list[Damage] = []
    file = str(index.folder / catalog.FILE)
    try:
        with index.snapshot(anew=True) as snapshot:
            for part in (_check_catalog(index, snapshot.db), _check_shards(snapshot), _check_cache(index)):
                found += _until_unreadable(part, file)
    except (DamageError, FormatError) as error:
        found.append(Damage("", 0, file, -1, str(error)))
    return found


def _until_unreadable(part: Iterator[Damage], file: str) -> Iterator[Damage]:
    try:
        yield from part
    except catalog.UNREADABLE as error:
        yield Damage("", 0, file, -1, f"SQLite: {error}")


def _check_catalog(index: Index, db: Database) -> Iterator[Damage]:
    file = str(index.folder / catalog.FILE)
    for (line,) in db.conn.execute("PRAGMA integrity_check(20)").fetchall():
        if line != "ok":
            yield Damage("", 0, file, -1, f"SQLite: {line}")
    for table, row, parent, _ in db.conn.execute("PRAGMA foreign_key_check").fetchall():
        yield Damage("", 0, file, -1, f"row {row} of {table} has lost its row of {parent}")
    names = {row["id"]: row["content"] for row in catalog.rows(db, "SELECT id, content FROM documents")}
    owners = {row["id"]: row for row in catalog.rows(db, "SELECT id, document, number FROM pages")}
    for table in catalog.CHECKED:
        for row in catalog.rows(db, f"SELECT * FROM {table}"):
            if catalog.sound(table, row):
                continue
            page = owners.get(row["id" if table == "pages" else "page"]) if table.startswith("page") else None
            document = page["document"] if page else row["id"] if table == "documents" else row.get("document")
            reason = f"a row of {table} is not what was written"
            yield Damage(names.get(document, ""), page["number"] if page else 0, file, -1, reason)
    for page in owners.keys() - {row[0] for row in db.conn.execute("SELECT page FROM page_text")}:
        document, number = names.get(owners[page]["document"], ""), owners[page]["number"]
        yield Damage(document, number, file, -1, "the words and boxes of a page are missing")
    pooled = (
        "SELECT p.id FROM pages p JOIN page_text t ON t.page = p.id WHERE length(t.token_boxes) > 8 * p.tokens"
        " AND p.id NOT IN (SELECT page FROM page_clusters)"
    )
    for (page,) in db.conn.execute(pooled).fetchall():
        document, number = names.get(owners[page]["document"], ""), owners[page]["number"]
        yield Damage(document, number, file, -1, "which vectors stand for the tokens of a page is missing")


def _check_shards(snapshot: Snapshot) -> Iterator[Damage]:
    shards = snapshot.state.shards
    used: dict[int, dict[int, catalog.Row]] = {shard: {} for shard in shards.ends}
    pages = "SELECT p.*, d.content FROM pages p JOIN documents d ON d.id = p.document"
    for row in catalog.rows(snapshot.db, pages):
        if catalog.sound("pages", row):  # else it is reported already, and its block is looked at for itself
            used.setdefault(row["shard"], {})[row["offset"]] = row
    for shard, rows in used.items():
        path = str(shard_path(snapshot.folder, shard))
        for offset, row in sorted(rows.items()):
            try:
                shards.check_block(row["id"], Extent(shard, offset, row["tokens"], row["payload_crc"]))
            except DamageError as error:
                yield Damage(row["content"], row["number"], path, offset, str(error))
        try:
            yield from _check_gaps(snapshot, shard, rows)
        except DamageError as error:
            yield Damage("", 0, path, 0, str(error))


def _check_gaps(snapshot: Snapshot, shard: int, rows: dict[int, catalog.Row]) -> Iterator[Damage]:
    """Blocks that no page uses any more: they are ours until compaction, so their bytes are checked too."""
    data, layout = memoryview(snapshot.state.shards.data(shard)), snapshot.layout
    offset, end = ALIGN, len(data)
    while offset < end:
        if offset in rows:
            offset += layout.block_bytes(rows[offset]["tokens"])
            continue
        size = walk_block(data, offset)
        if not size:
            reason = "a block that no page uses any more is damaged; octavo compact --purge removes it"
            yield Damage("", 0, str(shard_path(snapshot.folder, shard)), offset, reason)
            size = min((start for start in rows if start > offset), default=end) - offset
        offset += size


def _check_cache(index: Index) -> Iterator[Damage]:
    for path in sorted((index.folder / "cache").glob("*.cache")):
        if not cache.whole(path):
            reason = "the cache is not what was written; it is not used. octavo rebuild makes it anew"
            yield Damage("", 0, str(path), -1, reason)


def compact(index: Index, *, purge: bool = False) -> dict[str, Any]:
    """Rewrite shards that hold what was deleted. purge: leave no byte of it in any file, in the catalog neither.

    Returns bytes before and after. Raises IndexLocked, DiskFull.
    """
    before = bytes_of(index.folder)
    with index.writing() as writer:
        _drop_orphans(writer)
        for shard, dead, size in _dead(writer):
            if dead and (purge or dead > WORTH_IT * size):
                _move(index, writer, shard)
        if purge:
            _purge(index, writer)
    return {"bytes_before": before, "bytes_after": bytes_of(index.folder)}


def _purge(index: Index, writer: Writer) -> None:
    cache.clear(index.folder)
    for part in schema.LANES:
        writer.db.execute(f"INSERT INTO {part}({part}) VALUES ('optimize')")
    writer.db.execute("VACUUM")
    failpoint("purge vacuumed")
    if not writer.sync():
        raise OctavoError(
            f"{index.folder}: what was deleted is gone from the shards, but another process is reading the catalog and "
            "keeps its write-ahead log; run octavo compact --purge again when it has ended"
        )


def _drop_orphans(writer: Writer) -> None:
    """Staged documents whose file has gone: nobody can finish them."""
    staged = catalog.rows(writer.db, "SELECT id, source FROM documents WHERE state = ?", [PENDING])
    gone = [row["id"] for row in staged if not os.path.lexists(row["source"])]
    if gone:
        writer.delete(gone)


def _dead(writer: Writer) -> list[tuple[int, int, int]]:
    """(shard, dead bytes, bytes) of each shard."""
    live = dict.fromkeys(writer.shards.ends, ALIGN)
    for row in catalog.checked(writer.db, "pages"):
        live[row["shard"]] += writer.layout.block_bytes(row["tokens"])
    return [(shard, end - live[shard], end) for shard, end in sorted(writer.shards.ends.items())]


def _move(index: Index, writer: Writer, shard: int) -> None:
    """Copy what lives in a shard to a new one, and drop the old."""
    rows = catalog.checked(writer.db, "pages", "shard = ? ORDER BY offset", [shard])
    with index.snapshot(anew=True) as snapshot:
        raw = snapshot.state.shards.raw
        blocks = (raw(row["id"], Extent(shard, row["offset"], row["tokens"], row["payload_crc"])) for row in rows)
        extents = writer.shards.append(blocks, fresh=max(writer.shards.ends) + 1)
    failpoint("compact copied")
    with catalog.transaction(writer.db):
        for row, extent in zip(rows, extents, strict=True):
            catalog.move_page(writer.db, row, extent)
        writer.drop_shard(shard)
        failpoint("compact in transaction")
    failpoint("compact committed")
    path = shard_path(index.folder, shard)
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def rebuild(index: Index) -> dict[str, Any]:
    """Make the text lane and the first stage again from what they are derived from."""
    with index.writing() as writer:
        with catalog.transaction(writer.db):
            for part in schema.LANES:
                schema.new_search(writer.db, part)
            documents = list(catalog.rows(writer.db, "SELECT * FROM documents ORDER BY id"))
            pages = sum(lane.put_document(writer.db, row) for row in documents)
            writer.next_generation()
        failpoint("rebuilt")
        cache.clear(index.folder)
        index.forget()
    return {"pages": pages}


def bytes_of(folder: Path) -> int:
    """Of all files of an index."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
