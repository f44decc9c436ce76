"""`Index`: a folder that holds documents, pages and token vectors; one writer, many readers.

    LOCK              flock of the writer, with who holds it
    catalog.sqlite3   what exists (index.catalog); its transactions are the only commit point
    shards/*.tok      token vectors (index.store, index.blocks)
    cache/            what the first stage derives from them (index.cache); may be deleted at any time

Settings (index.settings) are written at creation and read with every generation, as `octavo recode` may change them.
"""

from __future__ import annotations

import datetime
import logging
import os
import shutil
import socket
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from index import cache, candidates, catalog, schema
from index import settings as stored
from index.blocks import Layout
from index.candidates import STAGES
from index.codec import CODECS, check_dim
from index.errors import DamageError, IndexLocked, NotAnIndex, OldFormat, QueryError
from index.failpoint import failpoint
from index.settings import Settings
from index.snapshot import Snapshot, State
from index.store import sync_folder
from index.writer import Writer

logger = logging.getLogger("octavo.index")


class Index:
    """An index folder. Safe to use from several threads; several processes may read while one writes."""

    def __init__(self, folder: str | Path) -> None:
        """Open an existing index; one of an earlier format is brought up to date. Raises NotAnIndex, FormatError,
        DamageError."""
        self.folder = Path(folder).absolute()
        if not (self.folder / catalog.FILE).is_file():
            raise NotAnIndex(f"{self.folder}: there is no index here; octavo add creates one")
        self._readers: list[Database] = []
        self._guard = threading.Lock()
        self._state: State | None = None
        try:
            schema.connect(self.folder, write=False).close()
        except OldFormat:
            with lock(self.folder):
                schema.connect(self.folder, write=True).close()
        with self._reader() as db:
            self.settings = stored.read(db, self.folder)

    @property
    def layout(self) -> Layout:
        """What its blocks look like, as of the newest generation that was read."""
        return self.settings.layout

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
        pool: int = 1,
    ) -> Index:
        """Make an index of token vectors (t, dim) and pooled vectors (single_dim,); then open it.

        single_dim: None where the pooled vector is the tokens' mean; pool: tokens that become one stored vector. Raises
        QueryError, a ValueError too, for settings that do not exist or do not fit each other.
        """
        if codec not in CODECS or stage not in STAGES or pool < 1:
            raise QueryError(
                f"codec is one of {', '.join(CODECS)}, candidates of {', '.join(STAGES)}, pool 1 or more; "
                f"got {codec}, {stage}, {pool}"
            )
        check_dim(codec, dim)
        path = Path(folder).absolute()
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        settings = Settings(uuid.uuid4().hex, dim, single_dim or dim, codec, stage, fingerprint, pool)
        with lock(path):
            if not (path / catalog.FILE).exists():
                _create_catalog(path, settings)
        return cls(path)

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """Hold the lock and write. Raises IndexLocked at once where another process does."""
        with lock(self.folder):
            writer = Writer(self.folder)
            try:
                yield writer
                writer.sync()
            finally:
                writer.close()
            self._save_cache()

    @contextmanager
    def snapshot(self, *, anew: bool = False) -> Iterator[Snapshot]:
        """One generation to read, whatever is written meanwhile. anew: with nothing that was read before, staged pages
        included, for upkeep. Raises DamageError where the catalog cannot be read."""
        with self._reader(anew) as db:
            state = self._enter(db, anew)
            stage = candidates.choose(state.tokens, self.settings.candidates)
            try:
                yield Snapshot(db, self.folder, state.shards.layout, state, stage)
            finally:
                if db.conn.in_transaction:
                    db.execute("COMMIT")

    def _enter(self, db: Database, anew: bool) -> State:
        """Begin a read transaction and load what its generation needs."""
        for last in (False, False, True):
            db.execute("BEGIN")
            generation = catalog.generation(db)
            try:
                if anew:
                    layout = stored.read(db, self.folder).layout
                    return State.load(db, self.folder, layout, generation, None, missing=last)
                with self._guard:
                    if self._state is None or self._state.generation != generation:
                        settings = stored.read(db, self.folder)
                        before = self._state if settings == self.settings else None  # recoded: nothing of it fits
                        self.settings = settings
                        self._state = State.load(db, self.folder, self.layout, generation, before, missing=last)
                    return self._state
            except FileNotFoundError:  # compacted away between the transaction and the map; at the third time, damage
                db.execute("COMMIT")
        raise AssertionError("unreachable")

    def _save_cache(self) -> None:
        """Leave the first stage of this generation behind, for the next process that opens the index."""
        with self.snapshot() as snapshot:
            stage: Any = snapshot.first_stage
            if stage.kind != "exact":
                try:
                    cache.save(self.folder, stage.kind, self.layout.index, *stage.state())
                except OSError as error:
                    logger.warning("the cache was not written, the next process makes it again: %s", error)

    def forget(self) -> None:
        """Let go of what is in memory, so that the next snapshot reads it anew."""
        with self._guard:
            self._state = None

    @contextmanager
    def _reader(self, anew: bool = False) -> Iterator[Database]:
        """A connection, one that was used before unless `anew`: FTS5 remembers too much for an integrity check."""
        with self._guard:
            db = self._readers.pop() if self._readers and not anew else None
        db = db or schema.connect(self.folder, write=False)
        try:
            yield db
        except catalog.UNREADABLE as error:
            db.close()
            raise DamageError(f"{self.folder / catalog.FILE}: {error}; run octavo check, or octavo rebuild") from error
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


def _create_catalog(path: Path, settings: Settings) -> None:
    """The catalog of a new index, whole or not at all."""
    fresh = path / "creating"
    shutil.rmtree(fresh, ignore_errors=True)  # of one that was killed here
    fresh.mkdir(mode=0o700)
    db = schema.connect(fresh, write=True)
    try:
        failpoint("catalog begun")
        with catalog.transaction(db):
            stored.write(db, settings)
            catalog.put_setting(db, "generation", 0)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        db.close()
    failpoint("catalog written")
    (fresh / catalog.FILE).rename(path / catalog.FILE)
    shutil.rmtree(fresh)
    sync_folder(path)


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
