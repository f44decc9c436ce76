"""Change the codec of an index in place, pool its tokens, or embed its pages again from the words that it keeps.

Each page is decoded from what is stored, or embedded again, encoded anew and appended to new shards, which are synced;
the one transaction that has moved all pages over and changed the settings commits; only then the old files go. So a
kill at any point leaves one whole index in one of the two codecs, a reader keeps the generation that it has, and no
generation mixes codecs. Twice the room is needed meanwhile. Not here: what a codec is (index.codec), pooling
(index.pooling), an encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from index import cache, catalog
from index import settings as stored
from index.blocks import Block, Extent
from index.codec import CENTRED, check_dim, decode
from index.directory import Index
from index.errors import DamageError, QueryError
from index.failpoint import failpoint
from index.pooling import pool_tokens
from index.records import PageRecord
from index.settings import Settings
from index.snapshot import Snapshot
from index.store import ShardWriter, shard_path, sync_folder
from index.upkeep import bytes_of
from index.writer import Writer, block_of

FINENESS = ("binary", "int4", "int8", "fp16")
_AT_ONCE = 256  # pages that are synced together
_EMBEDDED_AT_ONCE = 8
_SAMPLE = 1000  # pages whose mean token is the centre
_EMBEDDED_SAMPLE = 50  # where they are embedded for that
Progress = Callable[[int, int], None]


class Anew(NamedTuple):
    """What pages are embedded again by. embed: the words of a page, joined by spaces, and their boxes (w, 4) -> vectors
    (t, dim), boxes (t, 4) and (D,) or None; fingerprint: of that encoder."""

    embed: Callable[[str, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray | None]]
    fingerprint: dict[str, Any]


def recode(
    index: Index,
    codec: str | None = None,
    pool: int | None = None,
    progress: Progress | None = None,
    anew: Anew | None = None,
) -> dict[str, Any]:
    """Store every page in another codec, or pooled further; None leaves as it is. progress: told (pages done, of all).

    What a coarser codec or pooling took away does not come back: `note` in the result says so where it applies. It does
    with `anew`, where vectors are made of the stored words. Raises QueryError for settings that do not fit, DamageError
    where a page is not as it was written, IndexLocked, DiskFull.
    """
    before = bytes_of(index.folder)
    with index.writing() as writer:
        old = writer.settings
        new = _wanted(old, codec, pool, anew)
        pages = [row[0] for row in writer.db.execute("SELECT id FROM pages ORDER BY document, number")]
        if new != old or anew:
            _recode(index, writer, new, pages, progress or (lambda done, total: None), anew)
    facts = {"codec": new.codec, "pool": new.pool, "pages": len(pages) if new != old or anew else 0}
    note = "" if anew else _note(old, new)
    return facts | {"bytes_before": before, "bytes_after": bytes_of(index.folder), "note": note}


def _wanted(old: Settings, codec: str | None, pool: int | None, anew: Anew | None) -> Settings:
    new = old._replace(codec=codec or old.codec, pool=old.pool if pool is None else pool)
    new = new if new.codec in CENTRED else new._replace(centre="")
    check_dim(new.codec, new.dim)
    if anew:
        return new._replace(fingerprint=anew.fingerprint)
    if new.pool < old.pool:
        raise QueryError(
            f"the index keeps one vector for {old.pool} tokens, so pool is {old.pool} or more; got {pool}. "
            "For the tokens themselves, add the files to a new index"
        )
    return new


def _note(old: Settings, new: Settings) -> str:
    if FINENESS.index(new.codec) > FINENESS.index(old.codec):
        return (
            f"{new.codec} now holds what {old.codec} had left of the vectors, no more; add the files anew to regain it"
        )
    return "" if new != old else f"the index is in {new.codec} already, pooled by {new.pool}"


def _recode(
    index: Index, writer: Writer, new: Settings, pages: list[int], progress: Progress, anew: Anew | None
) -> None:
    at_once = _EMBEDDED_AT_ONCE if anew else _AT_ONCE
    before = dict(writer.shards.ends)
    with index.snapshot(anew=True) as snapshot:
        if new.codec in CENTRED:
            new = _centred(writer, snapshot, new, pages, anew)
        copy = ShardWriter(index.folder, new.layout, before, max([writer.shards.first - 1, *before]) + 1)
        cache.clear(index.folder)  # made of vectors that will not be these
        try:
            with catalog.transaction(writer.db):
                for start in range(0, len(pages), at_once):
                    progress(start, len(pages))
                    rows = _rows(writer, pages[start : start + at_once])
                    blocks = [
                        _embed(writer, new, row, anew) if anew else _convert(writer, snapshot, new, row) for row in rows
                    ]
                    for row, extent in zip(rows, copy.append(blocks), strict=True):
                        catalog.move_page(writer.db, row, extent)
                failpoint("recode copied")
                _adopt(writer, copy, new, before)
                failpoint("recode in transaction")
        except BaseException:
            copy.close()
            kept = {row[0] for row in writer.db.execute("SELECT id FROM shards")}
            for shard in copy.ends.keys() - kept:
                shard_path(index.folder, shard).unlink(missing_ok=True)
            raise
    failpoint("recode committed")
    progress(len(pages), len(pages))
    for shard in before:
        shard_path(index.folder, shard).unlink(missing_ok=True)
    sync_folder(index.folder / "shards")
    index.forget()


def _rows(writer: Writer, pages: Sequence[int]) -> list[catalog.Row]:
    rows = {row["id"]: row for row in catalog.checked(writer.db, "pages", f"id IN ({','.join(map(str, pages))})")}
    return [rows[page] for page in pages]


def _vectors(snapshot: Snapshot, row: catalog.Row) -> tuple[np.ndarray, np.ndarray]:
    """The stored tokens (t, d) of a page, staged ones too, and its pooled vector. Raises DamageError."""
    extent = Extent(row["shard"], row["offset"], row["tokens"], row["payload_crc"])
    try:
        snapshot.state.shards.check_block(row["id"], extent)
    except DamageError as error:
        raise DamageError(f"{error}; nothing was changed. Run octavo retry, or delete the document, first") from error
    codes, pooled = snapshot.layout.parts(snapshot.state.shards.raw(row["id"], extent).data, extent.tokens)
    return decode(codes), pooled


def _centred(writer: Writer, snapshot: Snapshot, new: Settings, pages: list[int], anew: Anew | None) -> Settings:
    """With the mean of the tokens of some pages, or all, as the centre."""
    total, count, most = np.zeros(new.dim), 0, _EMBEDDED_SAMPLE if anew else _SAMPLE
    for row in _rows(writer, pages[:: -(-len(pages) // most) or 1]):
        vectors = _embedded(writer, row, anew)[0].vectors if anew else _vectors(snapshot, row)[0]
        total, count = total + vectors.sum(axis=0, dtype=np.float64), count + len(vectors)
    return new.centred(total / count) if count else new._replace(centre="")


def _convert(writer: Writer, snapshot: Snapshot, new: Settings, row: catalog.Row) -> Block:
    """A page out of what is stored of it."""
    vectors, pooled = _vectors(snapshot, row)
    if new.pool != writer.settings.pool:
        vectors = _pool(writer, row["id"], vectors, new.pool)
    return new.layout.block(row["id"], vectors, pooled)


def _embed(writer: Writer, new: Settings, row: catalog.Row, anew: Anew) -> Block:
    """A page made of its words; where its tokens lie now is put into the catalog."""
    page, words = _embedded(writer, row, anew)
    block, clusters = block_of(new.layout, new.pool, row["id"], page)
    writer.db.execute("DELETE FROM page_clusters WHERE page = ?", [row["id"]])
    if clusters is not None:
        catalog.put_clusters(writer.db, row["id"], clusters)
    if words:
        words = words | {"token_boxes": catalog.pack_boxes(page.token_boxes)}
        catalog.insert(writer.db, "page_text", words, replace=True)
    return block


def _embedded(writer: Writer, row: catalog.Row, anew: Anew) -> tuple[PageRecord, catalog.Row]:
    """A page made of its stored words, and their row. Raises DamageError where they are not as they were written."""
    found = catalog.checked(writer.db, "page_text", "page = ?", [row["id"]])
    if not found and row["tokens"]:
        raise DamageError(f"{writer.folder / catalog.FILE}: the words of a page are gone; index its document again")
    words = {name: found[0][name] for name in catalog.TEXT_COLUMNS} if found else {}
    boxes = catalog.unpack_boxes(words["word_boxes"]) if words else np.zeros((0, 4), np.float32)
    vectors, places, single = anew.embed(words.get("text", ""), boxes)
    page = PageRecord(row["number"], vectors, places, single=single)
    page.check(writer.settings.dim)
    return page, words


def _pool(writer: Writer, page: int, vectors: np.ndarray, pool: int) -> np.ndarray:
    """Merge a page's vectors further, and say so of the tokens they stand for."""
    before = catalog.clusters(writer.db, page)
    tokens = len(vectors) if before is None else len(before)
    vectors, clusters = pool_tokens(vectors, -(-tokens // pool))
    if len(vectors) < tokens:
        catalog.put_clusters(writer.db, page, clusters if before is None else clusters[before])
    return vectors


def _adopt(writer: Writer, copy: ShardWriter, new: Settings, before: dict[int, int]) -> None:
    """Inside the transaction: the new shards and settings instead of the old."""
    writer.shards.close()
    writer.shards, writer.settings, writer.layout = copy, new, new.layout
    for shard in before:
        writer.drop_shard(shard)
    stored.write(writer.db, new)
    writer.next_generation()
