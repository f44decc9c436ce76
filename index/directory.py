"""`Index`: a folder that holds documents, pages and token vectors; one writer, many readers.

    LOCK              flock of the writer, with who holds it
    catalog.sqlite3   what exists (index.catalog); its transactions are the only commit point
    shards/*.tok      token vectors (index.store)
    cache/            pooled vectors for FAISS (index.candidates); may be deleted at any time

Settings (dimension, codec, candidates, the encoder's fingerprint) are written once, at creation, and read ever after.
"""

from __future__ import annotations

import datetime
import os
import socket
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sqlite_utils import Database

from index import candidates, catalog
from index.codec import CODECS
from index.errors import IndexLocked, NotAnIndex
from index.snapshot import Snapshot, State
from index.store import Extent, Layout, Shards, sync_folder
from index.writer import Writer

STAGES = ("auto", "exact", "pooled")


class Settings(NamedTuple):
    """What an index was created with. fingerprint: of the encoder that fills it."""

    uid: str
    dim: int
    single_dim: int
    codec: str
    candidates: str
    fingerprint: dict[str, Any]


class Index:
    """An index folder. Safe to use from several threads; several processes may read while one writes."""

    def __init__(self, folder: str | Path) -> None:
        """Open an existing index. Raises NotAnIndex, FormatError, DamageError."""
        self.folder = Path(folder).absolute()
        if not (self.folder / catalog.FILE).is_file():
            raise NotAnIndex(f"{self.folder}: there is no index here; octavo add creates one")
        self._readers: list[Database] = []
        self._guard = threading.Lock()
        self._state: State | None = None
        with self._reader() as db:
            stored = catalog.setting(db, "index")
        if stored is None:
            raise NotAnIndex(f"{self.folder}: its creation was cut short; delete the folder and add again")
        self.settings = Settings(**stored)
        name = uuid.UUID(self.settings.uid).bytes
        self.layout = Layout(name, self.settings.dim, self.settings.codec, self.settings.single_dim)

    @classmethod
    def create(
        cls,
        folder: str | Path,
        *,
        dim: int,
        fingerprint: dict[str, Any],
        single_dim: int | None = None,
        codec: str = "int8",
        stage: str = "auto",
    ) -> Index:
        """Make an index of token vectors (t, dim) and pooled vectors (single_dim,); then open it.

        single_dim: None where the pooled vector is the tokens' mean. Raises ValueError for settings that do not exist.
        """
        if codec not in CODECS or stage not in STAGES or dim < 1:
            raise ValueError(
                f"codec is one of {', '.join(CODECS)}, candidates of {', '.join(STAGES)}; got {codec}, {stage}"
            )
        path = Path(folder).absolute()
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        settings = Settings(uuid.uuid4().hex, dim, single_dim or dim, codec, stage, fingerprint)
        with lock(path):
            db = catalog.connect(path, write=True)
            try:
                with catalog.transaction(db):
                    if catalog.setting(db, "index") is None:
                        catalog.put_setting(db, "index", settings._asdict())
                        catalog.put_setting(db, "generation", 0)
                sync_folder(path)
            finally:
                db.close()
        return cls(path)

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """Hold the lock and write. Raises IndexLocked at once where another process does."""
        with lock(self.folder):
            writer = Writer(self.folder, self.layout)
            try:
                yield writer
                writer.sync()
            finally:
                writer.close()
            self._save_cache()

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """One generation to read, whatever is written meanwhile."""
        with self._reader() as db:
            state = self._enter(db)
            stage = candidates.choose(state.tokens, self.settings.candidates)
            try:
                yield Snapshot(db, self.folder, self.layout, state, stage)
            finally:
                if db.conn.in_transaction:
                    db.execute("COMMIT")

    def _enter(self, db: Database) -> State:
        """Begin a read transaction and load what its generation needs."""
        for attempt in range(5):
            db.execute("BEGIN")
            generation = catalog.setting(db, "generation", 0)
            with self._guard:
                if self._state is not None and self._state.generation == generation:
                    return self._state
                try:
                    self._state = self._load(db, generation, self._state)
                    return self._state
                except FileNotFoundError:  # compacted away between the transaction and the map
                    db.execute("COMMIT")
                    if attempt == 4:
                        raise
        raise AssertionError("unreachable")

    def _load(self, db: Database, generation: int, before: State | None) -> State:
        ends = {row["id"]: row["committed"] for row in catalog.rows(db, "SELECT * FROM shards")}
        shards = Shards(self.folder, self.layout, ends, before.shards if before else None)
        for shard in ends:
            shards.check_header(shard)
        found = db.conn.execute(
            "SELECT p.id, p.shard, p.offset, p.tokens, p.payload_crc, d.content, p.number"
            " FROM pages p JOIN documents d ON d.id = p.document WHERE d.visible = 1 ORDER BY p.id"
        ).fetchall()
        ids = np.array([row[0] for row in found], np.int64)
        first_stage = (before.first_stage or before.before) if before else None
        ranks = np.empty(len(ids), np.int64)
        ranks[sorted(range(len(found)), key=lambda i: found[i][5:])] = np.arange(len(found))
        return State(generation, ids, ranks, [Extent(*row[1:5]) for row in found], shards, before=first_stage)

    def _save_cache(self) -> None:
        """Leave the pooled vectors of this generation behind, for the next process that opens the index."""
        with self.snapshot() as snapshot:
            stage = snapshot.first_stage
            if isinstance(stage, candidates.Pooled):
                candidates.save(stage, self.folder / "cache", self.layout.index, snapshot.generation)

    def forget(self) -> None:
        """Let go of what is in memory, so that the next snapshot reads it anew."""
        with self._guard:
            self._state = None

    @contextmanager
    def _reader(self) -> Iterator[Database]:
        with self._guard:
            db = self._readers.pop() if self._readers else None
        db = db or catalog.connect(self.folder, write=False)
        try:
            yield db
        except BaseException:
            db.close()
            raise
        with self._guard:
            self._readers.append(db)

    def close(self) -> None:
        """Close the connections; maps go when the last array that looks at them goes."""
        with self._guard:
            while self._readers:
                self._readers.pop().close()
            self._state = None


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Be the one writer of a folder. Raises IndexLocked, with who is, at once. A dead writer's lock is free."""
    import fcntl

    path = folder / "LOCK"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 500, 0).decode("utf-8", "replace").strip() or "another process"
            raise IndexLocked(f"{folder} is being written by {holder}; wait for it, or stop it") from None
        started = datetime.datetime.now().isoformat(" ", "seconds")
        program = Path(sys.argv[0] or "python").name
        os.ftruncate(descriptor, 0)
        os.pwrite(
            descriptor, f"process {os.getpid()} on {socket.gethostname()} ({program}), since {started}".encode(), 0
        )
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)
