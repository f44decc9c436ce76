"""The tables of the catalog, how those of earlier versions become these, and the opening of it.

A file is opened only where its tables are exactly those that Octavo writes: triggers, views and columns of another's
are refused. Every PRAGMA is set explicitly, as builds of SQLite differ. What is in the tables: index.catalog.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from sqlite_utils import Database
from sqlite_utils.utils import sqlite3

from index import text
from index.catalog import FILE, SQLITE_VERSION, UNREADABLE, SQLiteError, rows, transaction
from index.errors import FormatError, NotAnIndex, OldFormat

APPLICATION_ID = 0x4F435456  # "OCTV"
_TABLES = {
    "settings": "key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL",
    "documents": """id INTEGER PRIMARY KEY AUTOINCREMENT, content TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,
        title TEXT NOT NULL, size INTEGER NOT NULL, page_count INTEGER NOT NULL, state TEXT NOT NULL,
        reason TEXT NOT NULL, metadata TEXT NOT NULL, source TEXT NOT NULL, added TEXT NOT NULL,
        visible INTEGER NOT NULL, crc INTEGER NOT NULL""",
    "paths": """path TEXT PRIMARY KEY, name TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
        document INTEGER NOT NULL REFERENCES documents(id) ON DELETE CASCADE, crc INTEGER NOT NULL""",
    "shards": "id INTEGER PRIMARY KEY, committed INTEGER NOT NULL, crc INTEGER NOT NULL",
    "pages": """id INTEGER PRIMARY KEY AUTOINCREMENT,
        document INTEGER NOT NULL REFERENCES documents(id) ON DELETE CASCADE,
        number INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, width REAL NOT NULL, height REAL NOT NULL,
        shard INTEGER NOT NULL, offset INTEGER NOT NULL, tokens INTEGER NOT NULL, payload_crc INTEGER NOT NULL,
        crc INTEGER NOT NULL, UNIQUE(document, number)""",
    "page_text": """page INTEGER PRIMARY KEY REFERENCES pages(id) ON DELETE CASCADE, text TEXT NOT NULL,
        word_boxes BLOB NOT NULL, token_boxes BLOB NOT NULL, crc INTEGER NOT NULL""",
}
_CLUSTERS = """page INTEGER PRIMARY KEY REFERENCES pages(id) ON DELETE CASCADE, clusters BLOB NOT NULL,
    crc INTEGER NOT NULL"""  # the stored vector that stands for each token; no row where that is its own
_PLACES = """page INTEGER PRIMARY KEY REFERENCES pages(id) ON DELETE CASCADE, headings TEXT NOT NULL,
    contents INTEGER NOT NULL, crc INTEGER NOT NULL"""  # no row for a page of which neither is said
LANES = ("page_search", "document_search")
"""FTS5 over what index.text makes of title, file name and body; rowid = page, document (index.lane)."""
_KNOWN = {
    *_TABLES,
    "page_clusters",
    "page_places",
    *LANES,
    "sqlite_sequence",
    *(f"{lane}_{part}" for lane in LANES for part in ("data", "idx", "content", "docsize", "config")),
}


def _first_schema(db: Database) -> None:
    for name, columns in _TABLES.items():
        db.execute(f"CREATE TABLE {name} ({columns})")
    db.execute("CREATE INDEX paths_document ON paths(document)")
    new_search(db, "page_search")


def new_search(db: Database, lane: str) -> None:
    """An empty part of the text lane, in place of the one that is there."""
    tokenize = text.TOKENIZER.replace("'", "''")
    db.execute(f"DROP TABLE IF EXISTS {lane}")
    db.execute(f"CREATE VIRTUAL TABLE {lane} USING fts5(title, name, body, stems, tokenize='{tokenize}')")
    if SQLITE_VERSION >= (3, 42):
        db.execute(f"INSERT INTO {lane}({lane}, rank) VALUES ('secure-delete', 1)")


def _clusters(db: Database) -> None:
    db.execute(f"CREATE TABLE page_clusters ({_CLUSTERS})")


def _context(db: Database) -> None:
    from index import lane

    db.execute(f"CREATE TABLE page_places ({_PLACES})")
    new_search(db, "document_search")
    for document in list(rows(db, "SELECT * FROM documents")):
        lane.describe(db, document["id"], *lane.naming(db, document))


def _by_letters(db: Database) -> None:
    """Documents in scripts whose words are found by groups of letters are put into the lane anew, as these changed:
    forms of Chinese characters became one, ends of lines none, Arabic stems triples."""
    from index import lane

    of = "(SELECT id FROM pages WHERE document = ?)"
    for document in list(rows(db, "SELECT * FROM documents")):
        said = db.execute(f"SELECT text FROM page_text WHERE page IN {of}", [document["id"]])
        texts = [document["title"], *lane.names(db, document), *(page for (page,) in said)]
        if any(map(text.by_letters, texts)):
            db.execute(f"DELETE FROM page_search WHERE rowid IN {of}", [document["id"]])
            lane.put_document(db, document)


MIGRATIONS: list[Callable[[Database], None]] = [_first_schema, _clusters, _context, _by_letters]
"""Step i takes a catalog from version i to i + 1, inside one transaction; steps are appended, never edited."""


def connect(folder: Path, *, write: bool) -> Database:
    """Open the catalog of an index folder, checked. write: create it or bring it up to date if need be.

    Raises NotAnIndex where the file is no catalog of ours, FormatError where it is newer than this version of Octavo,
    OldFormat where it needs a writer to bring it up to date.
    """
    path = folder / FILE
    mode = "rwc" if write else "ro"
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False
        )
    except SQLiteError as error:
        raise NotAnIndex(f"{path}: cannot be opened ({error}); octavo add creates an index") from error
    try:
        connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
        db = Database(connection, recursive_triggers=False)
        _set_pragmas(db, write)
        _check_format(db, path, write)
        return db
    except UNREADABLE as error:
        connection.close()
        raise NotAnIndex(
            f"{path}: not a readable catalog ({error}); restore it from a backup or index again"
        ) from error
    except BaseException:
        connection.close()
        raise


def _set_pragmas(db: Database, write: bool) -> None:
    settings = {
        "busy_timeout": 5000,
        "trusted_schema": "OFF",
        "cell_size_check": "ON",
        "mmap_size": 0,
        "foreign_keys": "ON",
        "cache_size": -16_000,
        "temp_store": "MEMORY",
    }
    if write:
        settings |= {"journal_mode": "WAL", "synchronous": "FULL", "secure_delete": "ON"}
    else:
        settings |= {"query_only": "ON"}
    for name, value in settings.items():
        db.execute(f"PRAGMA {name}={value}").fetchall()


def _check_format(db: Database, path: Path, write: bool) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    schema = {(row[0], row[1]) for row in db.execute("SELECT type, name FROM sqlite_master")}
    if schema and db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise NotAnIndex(f"{path}: an SQLite file, but not an Octavo catalog; give another --index")
    if version > len(MIGRATIONS):
        raise FormatError(
            f"{path}: format {version}, this Octavo reads up to {len(MIGRATIONS)}; install a newer Octavo to open it"
        )
    odd = {name for kind, name in schema if kind in ("trigger", "view") or (kind == "table" and name not in _KNOWN)}
    if not odd and version == len(MIGRATIONS):
        odd = {name for name, _ in _expected() ^ _schema(db)}
    if odd:
        raise NotAnIndex(f"{path}: holds {', '.join(sorted(odd))}, which Octavo does not write; it will not be opened")
    if version < len(MIGRATIONS) and not write:
        if not schema:
            raise NotAnIndex(f"{path}: an empty file; delete it and add again")
        raise OldFormat(f"{path}: format {version} is older than {len(MIGRATIONS)}; open it where it can be written to")
    for step, migrate in enumerate(MIGRATIONS[version:], version + 1):
        with transaction(db):
            migrate(db)
            db.execute(f"PRAGMA user_version={step}")
            db.execute(f"PRAGMA application_id={APPLICATION_ID}")


def _schema(db: Database) -> set[tuple[str, str]]:
    """What SQLite says of our tables and indexes; those that FTS5 and SQLite make for themselves differ by version."""
    found = db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {(name, sql) for name, sql in found if not name.startswith((*(f"{lane}_" for lane in LANES), "sqlite_"))}


@functools.cache
def _expected() -> set[tuple[str, str]]:
    db = Database(sqlite3.connect(":memory:"))
    try:
        for migrate in MIGRATIONS:
            migrate(db)
        return _schema(db)
    finally:
        db.close()
