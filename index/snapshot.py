"""Reading: one generation of an index, whole, for as long as it is looked at.

A snapshot is a read transaction of the catalog and the maps of the shards that it names. What a writer commits
meanwhile is not in it; compaction removes files, but a map keeps what it maps. A page whose block is damaged is left
out and named in the log, the rest is served. Not here: scores (retriever), writing (index.writer).
"""

from __future__ import annotations

import ctypes
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sqlite_utils import Database

from index import candidates, catalog, text
from index.blocks import ALIGN, Extent, Extents, Layout
from index.codec import CODECS, decode, width
from index.errors import DamageError
from index.ragged import Codes, Ragged, Views
from index.store import Shards, shard_path
from index.where import compile_where

logger = logging.getLogger("octavo.index")
WEIGHTS = (2.0, 1.0, 1.0, 0.5)  # of a term in the title, the file name and the text, and of a stem in the text
K1 = 1.2  # of FTS5's BM25
SAMPLED = 16  # pages whose tokens are taken to be as long as any
CROSSING = 0.5  # of the ceiling of parts of runs without spaces (benchmarks/LOG.md)
PAIRS = 0.5  # of the BM25 of two terms side by side, beside that of terms (benchmarks/LOG.md)
CONTEXT = 0.5  # of the BM25 of a page's document, among documents, beside the page's own (benchmarks/LOG.md)
_VISIBLE = "SELECT p.id FROM pages p JOIN documents d ON d.id = p.document WHERE d.visible = 1"
_DOCUMENTS = "SELECT * FROM documents WHERE visible <> 0"
_CONTENTS = "SELECT page FROM page_places WHERE contents"
_PAGES = f"SELECT id, {', '.join(catalog.PAGE_COLUMNS)}, crc FROM pages WHERE id IN ({_VISIBLE}) ORDER BY id"


@dataclass
class State:
    """What a generation's snapshots share. ids: (n,) int64, rising; ranks: (n,), their places in the
    order of (document, page); documents: (n,), the ids of their documents; contents: (n,) bool, tables of contents;
    extents: where each page lies; sound: (n,) bool, blocks this process saw to be right."""

    generation: int
    ids: np.ndarray
    ranks: np.ndarray
    documents: np.ndarray
    contents: np.ndarray
    extents: Extents
    shards: Shards
    sound: np.ndarray
    damaged: dict[int, str] = field(default_factory=dict)  # pages that are left out, and why
    longest: float | None = None  # see Snapshot.longest
    first_stage: candidates.Candidates | None = None
    before: candidates.Candidates | None = None  # the first stage of the generation before, to start from

    @classmethod
    def load(
        cls, db: Database, folder: Path, layout: Layout, generation: int, before: State | None, *, missing: bool
    ) -> State:
        """What a read transaction sees. before: the state of an earlier generation; missing: as in `Shards`."""
        ends = {}
        for row in catalog.rows(db, "SELECT * FROM shards"):
            path = shard_path(folder, row["id"])
            if catalog.sound("shards", row):
                ends[row["id"]] = row["committed"]
            elif path.exists():  # each block still says what it is; a writer refuses (index.writer)
                ends[row["id"]] = path.stat().st_size
        shards = Shards(folder, layout, ends, before.shards if before else None, missing=missing)
        contents = {
            row["id"]: row["content"] for row in catalog.rows(db, _DOCUMENTS) if catalog.sound("documents", row)
        }
        places, extents, damaged = [], [], {}
        for page, *row, crc in db.conn.execute(_PAGES):
            if row[0] in contents and crc == catalog.row_crc(*row):
                places.append((contents[row[0]], row[1], page, row[0]))
                extents.append(tuple(row[6:]))
            else:
                damaged[page] = f"{folder / catalog.FILE}: the row of page id {page} or of its document is damaged"
                logger.warning("a page is left out: %s", damaged[page])
        ids = np.array([place[2] for place in places], np.int64)
        ranks = np.empty(len(ids), np.int64)
        ranks[sorted(range(len(ids)), key=places.__getitem__)] = np.arange(len(ids))
        documents = np.array([place[3] for place in places], np.int64)
        listing = np.isin(ids, [page for (page,) in db.conn.execute(_CONTENTS)])
        state = cls(
            generation, ids, ranks, documents, listing, Extents.of(extents), shards, np.zeros(len(ids), bool), damaged
        )
        if before is not None:
            state.before = before.first_stage or before.before
            state._remember(before)
        return state

    def _remember(self, before: State) -> None:
        """Take over which blocks were seen to be right and lie where they lay."""
        _, here, there = np.intersect1d(self.ids, before.ids, assume_unique=True, return_indices=True)
        same = before.sound[there]
        for name in ("shards", "offsets", "tokens", "crcs"):
            same &= getattr(self.extents, name)[here] == getattr(before.extents, name)[there]
        self.sound[here] = same

    @property
    def tokens(self) -> int:
        """Stored token vectors of all pages."""
        return int(self.extents.tokens.sum())


class Snapshot:
    """One generation; made by `Index.snapshot()`, valid inside its `with` block."""

    def __init__(self, db: Database, folder: Path, layout: Layout, state: State, stage: str) -> None:
        self.db, self.folder, self.layout, self.state, self.stage = db, folder, layout, state, stage

    @property
    def generation(self) -> int:
        """Rises with every change that a search can see."""
        return self.state.generation

    def __len__(self) -> int:
        return len(self.state.ids)

    def extent(self, page: int) -> Extent:
        """Where a page lies. Raises KeyError for a page that is not in this generation."""
        return self.state.extents[int(self._rows(np.array([page]))[0])]

    def _rows(self, ids: np.ndarray) -> np.ndarray:
        """(n,) ids -> their places among all ids. Raises KeyError where one is not in this generation."""
        rows = np.minimum(np.searchsorted(self.state.ids, ids), max(len(self.state.ids) - 1, 0))
        if len(ids) and (not len(self.state.ids) or (self.state.ids[rows] != ids).any()):
            raise KeyError(next(page for page in ids.tolist() if not self._has(page)))
        return rows

    def _has(self, page: int) -> bool:
        row = int(np.searchsorted(self.state.ids, page))
        return row < len(self.state.ids) and bool(self.state.ids[row] == page)

    def rank(self, ids: np.ndarray) -> np.ndarray:
        """(n,) ids -> (n,) places in the order of (document, page), which breaks ties."""
        return self.state.ranks[np.searchsorted(self.state.ids, ids)]

    def contents(self, ids: np.ndarray) -> np.ndarray:
        """(n,) ids -> (n,) bool, which of them are tables of contents."""
        return self.state.contents[np.searchsorted(self.state.ids, ids)]

    def views(self, ids: Sequence[int] | np.ndarray) -> Views:
        """The stored tokens of n pages where they lie in the maps, in the order asked for; a damaged page has none."""
        _, starts, lengths = self._places(np.asarray(ids, np.int64).reshape(-1))
        layout = self.layout
        scales = starts + (lengths * layout.row_bytes).astype(np.uint64) if layout.scale_bytes else None
        kind, columns = CODECS[layout.codec], width(layout.codec, layout.dim)
        return Views(starts, lengths, layout.codec, layout.dim, columns, kind, scales, self.state.shards, layout.centre)

    def gather(self, ids: Sequence[int] | np.ndarray) -> Codes:
        """A copy of the stored tokens of n pages, in the order asked for; a damaged page has none."""
        return self.views(ids).codes()

    def vectors(self, ids: Sequence[int] | np.ndarray) -> Ragged:
        """The tokens (t, d) of n pages as float32, in the order asked for."""
        codes = self.gather(ids)
        return Ragged(decode(codes), codes.offsets)

    @property
    def longest(self) -> float:
        """The norm of the longest token of a few pages, looked up once a generation."""
        state = self.state
        if state.longest is None:
            some = np.random.default_rng(0).permutation(state.ids)[:SAMPLED]
            state.longest = float(np.linalg.norm(self.vectors(some).values, axis=1).max(initial=0))
        return state.longest

    def pooled(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """(n, D) float32: the pooled vectors of pages; zeros for a damaged one."""
        rows, starts, lengths = self._places(np.asarray(ids, np.int64).reshape(-1))
        per_token, pooled = self.layout.token_bytes, np.zeros((len(rows), self.layout.single_dim), "<f2")
        for i in np.flatnonzero(starts):
            ctypes.memmove(pooled[i].ctypes.data, int(starts[i]) + int(lengths[i]) * per_token, pooled[i].nbytes)
        return pooled.astype(np.float32)

    def _places(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Places (n,) among all ids, addresses (n,) uint64 of the first token and lengths (n,) in tokens of pages.

        Blocks are verified at the first look; address and length are 0 for a damaged one."""
        state, rows = self.state, self._rows(ids)
        shards, offsets, lengths = (
            a[rows] for a in (state.extents.shards, state.extents.offsets, state.extents.tokens)
        )
        starts = np.zeros(len(rows), np.uint64)
        for shard in np.unique(shards).tolist():
            inside = shards == shard
            try:
                start = state.shards.address(shard)
            except DamageError as error:
                self._leave_out(ids[inside].tolist(), error)
                continue
            starts[inside] = np.uint64(start + ALIGN) + offsets[inside].astype(np.uint64)
        self._look(rows[~state.sound[rows] & (starts > 0)])
        if state.damaged:
            bad = np.isin(ids, list(state.damaged))
            starts[bad], lengths[bad] = 0, 0
        return rows, starts, lengths

    def _look(self, rows: np.ndarray) -> None:
        """Verify blocks that this process did not look at before; the disk is asked for all of them at once."""
        state = self.state
        rows = np.unique(rows)
        for row in rows:
            extent = state.extents[row]
            state.shards.will_need(extent.shard, extent.offset, self.layout.block_bytes(extent.tokens))
        for row in rows:
            page = int(state.ids[row])
            if page not in state.damaged:
                try:
                    state.shards.check_block(page, state.extents[row])
                    state.sound[row] = True
                except DamageError as error:
                    self._leave_out([page], error)

    def _leave_out(self, pages: Iterable[int], error: DamageError) -> None:
        for page in pages:
            if page not in self.state.damaged:
                row = self.page(page)
                where = f"{row['title'] or row['content']}, page {row['number']}" if row else f"page id {page}"
                self.state.damaged[page] = str(error)
                logger.warning("%s is left out: %s", where, error)

    @property
    def first_stage(self) -> candidates.Candidates:
        """The candidates of this generation."""
        if self.state.first_stage is None:
            self.state.first_stage = self._build_first_stage()
        return self.state.first_stage

    def _build_first_stage(self) -> candidates.Candidates:
        ids, layout = self.state.ids[self.state.extents.tokens > 0], self.layout
        if self.stage == "exact":
            return candidates.Exact(ids)
        before: Any = self.state.before
        if before is not None and before.kind == self.stage:
            stage = before.copy()
        else:
            stage = candidates.restored(self.stage, self.folder, layout.index, layout.dim, layout.single_dim)
            stage = stage or candidates.empty(self.stage, layout.dim, layout.single_dim)
        stage.update(ids, self)
        stage.remove(np.array(sorted(self.state.damaged), np.int64))  # looked at again by the next process
        return stage

    def allowed(self, where: dict[str, Any] | None) -> np.ndarray | None:
        """The ids that a filter leaves, rising, or None where there is no filter."""
        if where is None or where == {}:
            return None
        condition, values = compile_where(where)
        found = self.db.conn.execute(f"{_VISIBLE} AND {condition} ORDER BY p.id", values)
        return np.intersect1d(np.fromiter((row[0] for row in found), np.int64), self.state.ids, assume_unique=True)

    def match(self, query: str, where: dict[str, Any] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """BM25 (FTS5: k1 1.2, b 0.75) of every page that has a term of the query, with shares of that of pairs of terms
        and of its document's: scores (n,) float64 > 0, ids (n,), best first, ties by id."""
        if not text.distinct(query):
            return np.zeros(0), np.zeros(0, np.int64)
        condition, values = compile_where(where)
        # the plus keeps SQLite from matching once for each page of the list
        scores, ids = self._bm25("page_search", query, f"+rowid IN ({_VISIBLE} AND {condition})", values)
        sound = np.isin(ids, self.state.ids)
        scores, ids = scores[sound], ids[sound]
        whole, documents = self._bm25("document_search", query)
        if len(documents):
            own = self.state.documents[np.searchsorted(self.state.ids, ids)]
            places = np.minimum(np.searchsorted(documents, own), len(documents) - 1)
            scores += CONTEXT * np.where(documents[places] == own, whole[places], 0.0)
        order = np.lexsort((ids, -scores))
        return scores[order], ids[order]

    def _bm25(
        self, lane: str, query: str, condition: str = "1", values: Sequence[object] = ()
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores (n,) and rising ids (n,) of the rows of a part of the text lane that fit."""
        sql = (
            f"SELECT rowid, -bm25({lane}, {', '.join(map(str, WEIGHTS))}) FROM {lane}"
            f" WHERE {lane} MATCH ? AND {condition} ORDER BY rowid"
        )
        found = self.db.conn.execute(sql, [text.match_any(query), *values]).fetchall()
        scores, ids = np.array([row[1] for row in found], np.float64), np.array([row[0] for row in found], np.int64)
        if pairs := text.match_pairs(query):
            beside = dict(self.db.conn.execute(sql, [pairs, *values]).fetchall())
            scores += PAIRS * np.array([beside.get(page, 0.0) for page in ids.tolist()])
        return scores, ids

    def ceiling(self, query: str) -> float:
        """The BM25 that no page's own words can pass: all terms of the query at their most, also those no page has, but
        parts of runs without spaces at CROSSING, as many of them lie across two words of what is asked."""
        total = 0.0
        for term in text.distinct(query):
            having = self.having(term)
            rarity = max(math.log((max(len(self) - having, 0) + 0.5) / (having + 0.5)), 0.0)  # as FTS5's idf
            total += rarity * (CROSSING if text.part_of_run(term) else 1.0)
        return total * (K1 + 1)

    def having(self, term: str) -> int:
        """How many pages have a term, in the text or in the title or file name."""
        sql = "SELECT count(*) FROM page_search WHERE page_search MATCH ?"
        return int(self.db.conn.execute(sql, [text.match_word(term)]).fetchone()[0])

    def page(self, page: int) -> catalog.Row | None:
        """A page with its document: the columns of both, None where there is no such page."""
        return self.pages([page]).get(page)

    def pages(self, ids: Iterable[int]) -> dict[int, catalog.Row]:
        """Pages by id, each with its document's columns and one of its paths."""
        ids = [int(page) for page in ids]
        marks = ",".join(map(str, ids))
        found = {
            row["id"]: row
            for row in catalog.rows(
                self.db,
                "SELECT p.id, p.number, p.state, p.width, p.height, p.tokens, d.id AS document, d.content, d.title,"
                " d.kind, d.metadata, d.page_count, NULL AS path"
                f" FROM pages p JOIN documents d ON d.id = p.document WHERE d.visible = 1 AND p.id IN ({marks})",
            )
        }
        if any(self._has(page) for page in ids if page not in found):
            raise DamageError(f"{self.folder / catalog.FILE}: the row of a page is damaged; run octavo check")
        marks = ",".join(str(document) for document in {row["document"] for row in found.values()})
        paths = catalog.rows(self.db, f"SELECT * FROM paths WHERE document IN ({marks}) ORDER BY path DESC")
        first = {row["document"]: row["path"] for row in paths if catalog.sound("paths", row)}
        return {page: row | {"path": first.get(row["document"])} for page, row in found.items()}

    def text(self, page: int) -> tuple[str, np.ndarray, np.ndarray]:
        """The words of a page joined by spaces, their boxes (w, 4), and its tokens' boxes (t, 4), as page fractions."""
        row = catalog.one(self.db, "SELECT * FROM page_text WHERE page = ?", [page])
        if row is None or not catalog.sound("page_text", row):
            if row is not None:
                logger.warning("%s: the words of page id %s are left out: damaged", self.folder / catalog.FILE, page)
            return "", np.zeros((0, 4), np.float32), np.zeros((0, 4), np.float32)
        return row["text"], catalog.unpack_boxes(row["word_boxes"]), catalog.unpack_boxes(row["token_boxes"])
