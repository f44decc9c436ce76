"""The catalog: one SQLite file with documents, pages, words and settings, through sqlite-utils.

What is in a committed transaction here exists; what is not, does not (index.directory). Each row that carries content
has a CRC-32 over its other columns, so that a flipped byte is found (index.upkeep). One SQLite library serves all
connections: pysqlite3 where its wheel is installed, else the standard one. Its tables and its opening: index.schema.
"""

from __future__ import annotations

import json
import sqlite3 as types_sqlite
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from sqlite_utils import Database
from sqlite_utils.utils import sqlite3

from index.errors import DamageError, DiskFull

FILE = "catalog.sqlite3"
Row = dict[str, Any]
Connection = types_sqlite.Connection
SQLITE_VERSION: tuple[int, ...] = tuple(sqlite3.sqlite_version_info)
SQLiteError: type[Exception] = sqlite3.Error
UNREADABLE = (SQLiteError, UnicodeDecodeError)
"""What reading a damaged catalog raises; the second where SQLite quotes what it found in its message."""


@contextmanager
def transaction(db: Database) -> Iterator[None]:
    """One write transaction: all of it is durable when the block ends, or none of it ever was."""
    try:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("COMMIT")
    except BaseException as error:
        if db.conn.in_transaction:
            db.conn.execute("ROLLBACK")
        if isinstance(error, sqlite3.OperationalError) and ("full" in str(error) or "disk I/O" in str(error)):
            raise DiskFull(f"{_file(db)}: {error}; free some space and run the command again") from error
        if isinstance(error, UNREADABLE):
            raise DamageError(f"{_file(db)}: {error}; run octavo check") from error
        raise


def _file(db: Database) -> str:
    return str(db.conn.execute("PRAGMA database_list").fetchone()[2])


def row_crc(*columns: object) -> int:
    """CRC-32 over the columns of a row: text as UTF-8, numbers by repr, blobs as they are, each with its length."""
    parts: list[bytes] = []
    for column in columns:
        data = column if isinstance(column, bytes) else str(column).encode("utf-8", "surrogateescape")
        parts += (b"%d" % len(data), data)
    return zlib.crc32(b"".join(parts))


def sound(table: str, row: Row) -> bool:
    """Whether a row is as it was written."""
    return bool(row["crc"] == row_crc(*(row[name] for name in CHECKED[table])))


def checked(db: Database, table: str, condition: str = "1", values: Iterable[object] = ()) -> list[Row]:
    """Rows that a decision hangs on. Raises DamageError where one is not as it was written."""
    found = list(rows(db, f"SELECT * FROM {table} WHERE {condition}", values))
    if not all(sound(table, row) for row in found):
        raise DamageError(f"{_file(db)}: a row of {table} is not what was written; run octavo check")
    return found


DOCUMENT_COLUMNS = (
    "content", "kind", "title", "size", "page_count", "state", "reason", "metadata", "source", "added", "visible",
)  # fmt: skip
PAGE_COLUMNS = (
    "document", "number", "state", "reason", "width", "height", "shard", "offset", "tokens", "payload_crc",
)  # fmt: skip
TEXT_COLUMNS = ("page", "text", "word_boxes", "token_boxes")
CHECKED = {
    "documents": DOCUMENT_COLUMNS,
    "pages": PAGE_COLUMNS,
    "page_text": TEXT_COLUMNS,
    "page_clusters": ("page", "clusters"),
    "page_places": ("page", "headings", "contents"),
    "paths": ("path", "name", "size", "mtime_ns", "document"),
    "shards": ("id", "committed"),
    "settings": ("key", "value"),
}
_PATHS = ("source", "path", "name")  # columns that hold what the file system calls a file, UTF-8 or not


def insert(db: Database, table: str, row: Row, *, replace: bool = False) -> int:
    """Insert a row with its CRC; the new rowid. replace: put it in place of one with the same key."""
    row = row | {"crc": row_crc(*(row[name] for name in CHECKED[table]))}
    marks = ", ".join(_mark(name) for name in row)
    verb = "INSERT OR REPLACE" if replace else "INSERT"
    sql = f"{verb} INTO {table} ({', '.join(row)}) VALUES ({marks})"
    return int(db.execute(sql, [_bound(name, value) for name, value in row.items()]).lastrowid)


def _mark(name: str) -> str:
    return "CAST(? AS TEXT)" if name in _PATHS else "?"


def _bound(name: str, value: object) -> object:
    return as_text(value) if name in _PATHS else value


def update_document(db: Database, document: int, **changes: object) -> None:
    """Change columns of a document and its CRC with them."""
    (row,) = checked(db, "documents", "id = ?", [document])
    row |= changes
    sets = ", ".join(f"{name} = {_mark(name)}" for name in changes)
    values = [_bound(name, value) for name, value in changes.items()]
    crc = row_crc(*(row[name] for name in DOCUMENT_COLUMNS))
    db.execute(f"UPDATE documents SET {sets}, crc = ? WHERE id = ?", [*values, crc, document])


def move_page(db: Database, row: Row, extent: Sequence[int]) -> None:
    """Say that a page lies elsewhere now. extent: shard, offset, tokens, CRC of the payload."""
    row = row | dict(zip(("shard", "offset", "tokens", "payload_crc"), extent, strict=True))
    sets = "shard = ?, offset = ?, tokens = ?, payload_crc = ?, crc = ?"
    crc = row_crc(*(row[name] for name in PAGE_COLUMNS))
    db.execute(f"UPDATE pages SET {sets} WHERE id = ?", [*extent, crc, row["id"]])


def set_path(db: Database, path: str, document: int, size: int, mtime_ns: int) -> None:
    """Say that `path` holds `document`, whatever it held before."""
    row = {"path": path, "name": Path(path).name, "size": size, "mtime_ns": mtime_ns, "document": document}
    insert(db, "paths", row, replace=True)


def paths(db: Database, document: int) -> list[str]:
    """Where a document's content lies."""
    sql = "SELECT path FROM paths WHERE document = ? ORDER BY path"
    return [row["path"] for row in rows(db, sql, [document])]


def as_text(value: object) -> bytes:
    """A path as bytes, which need not be UTF-8; bind it to `CAST(? AS TEXT)`."""
    return str(value).encode("utf-8", "surrogateescape")


def one(db: Database, sql: str, values: Iterable[object] = ()) -> Row | None:
    """The first row as a dict, or None."""
    return next(rows(db, sql, values), None)


def rows(db: Database, sql: str, values: Iterable[object] = ()) -> Iterator[Row]:
    """Rows as dicts."""
    cursor = db.conn.execute(sql, list(values))
    names = [column[0] for column in cursor.description]
    return (dict(zip(names, row, strict=True)) for row in cursor)


def setting(db: Database, key: str, default: Any = None) -> Any:
    """A setting, from JSON. Raises DamageError."""
    found = checked(db, "settings", "key = ?", [key])
    return json.loads(found[0]["value"]) if found else default


def generation(db: Database) -> int:
    """The generation; -1 where that is damaged, for nobody can write then."""
    try:
        return int(setting(db, "generation", 0))
    except DamageError:
        return -1


def put_setting(db: Database, key: str, value: object) -> None:
    """Store a setting as JSON."""
    insert(db, "settings", {"key": key, "value": json.dumps(value)}, replace=True)


def put_clusters(db: Database, page: int, clusters: np.ndarray) -> None:
    """Store which vector of a page stands for each of its tokens, (t,) below 65,536."""
    if len(clusters) and int(clusters.max()) > 65_535:
        raise ValueError(f"a page of {int(clusters.max()) + 1:,} pooled vectors; 65,536 are the most")
    insert(db, "page_clusters", {"page": page, "clusters": clusters.astype("<u2").tobytes()}, replace=True)


def clusters(db: Database, page: int) -> np.ndarray | None:
    """(t,) int64, which stored vector stands for each token of a page; None where each stands for itself.

    Raises DamageError."""
    found = checked(db, "page_clusters", "page = ?", [page])
    return np.frombuffer(_blob(found[0]["clusters"]), "<u2").astype(np.int64) if found else None


def pack_boxes(boxes: np.ndarray) -> bytes:
    """(n, 4) fractions of the page -> 8 bytes a box, each edge in 1/65,535; NaN is 0."""
    return np.rint(np.clip(np.nan_to_num(boxes), 0, 1) * 65_535).astype("<u2").tobytes()


def unpack_boxes(data: bytes | str) -> np.ndarray:
    """8 bytes a box -> (n, 4) float32 fractions of the page."""
    return np.frombuffer(_blob(data), "<u2").reshape(-1, 4).astype(np.float32) / 65_535


def _blob(data: bytes | str) -> bytes:
    """A blob, which one flipped bit may have made a text of the same bytes, and so of the same CRC."""
    return as_text(data) if isinstance(data, str) else data
