"""The text lane's rows: what a page says, and what its document's first page says of all its pages.

A page has the terms of its words, of its document's title and of its files' names, and twice those of the outline's
entries that lead to it. A document has title, names and the words of its first page that has any, as what a question
names (a company, a year) may stand there alone. All of it inside the caller's transaction. What a term is: index.text;
how rows are searched: Snapshot.match.
"""

from __future__ import annotations

from pathlib import Path

from sqlite_utils import Database

from index import catalog, text
from index.records import clean

HEADING = 2
"""A term of a heading counts as much as one of a title (index.snapshot.WEIGHTS)."""


def put(db: Database, page: int, title: str, name: str, words: str, headings: str = "") -> None:
    """Put a page into the lane; title and name as `naming` gives them."""
    _insert(db, "page_search", page, title, name, " ".join([headings] * HEADING + [words]))


def put_document(db: Database, document: catalog.Row) -> int:
    """Put a document and its pages into a new lane; their number."""
    title, name = naming(db, document)
    sql = (
        "SELECT p.id, t.text, ifnull(h.headings, '') AS headings FROM pages p JOIN page_text t ON t.page = p.id"
        " LEFT JOIN page_places h ON h.page = p.id WHERE document = ? AND state = 'ok'"
    )
    pages = list(catalog.rows(db, sql, [document["id"]]))
    for page in pages:
        put(db, page["id"], title, name, page["text"], page["headings"])
    describe(db, document["id"], title, name)
    return len(pages)


def naming(db: Database, document: catalog.Row) -> tuple[str, str]:
    """The terms of a document's title, and of the names of the files that hold it."""
    terms = [term for name in names(db, document) for term in text.terms(clean(name))]
    return " ".join(text.terms(document["title"])), " ".join(terms)


def names(db: Database, document: catalog.Row) -> list[str]:
    """The names of the files that hold a document."""
    return sorted({Path(path).name for path in catalog.paths(db, document["id"]) or [document["source"]]})


def describe(db: Database, document: int, title: str, name: str) -> None:
    """Put a document into the lane as it is now; title and name as `naming` gives them."""
    sql = (
        "SELECT t.text FROM pages p JOIN page_text t ON t.page = p.id"
        " WHERE document = ? AND state = 'ok' AND t.text <> '' ORDER BY number LIMIT 1"
    )
    first = catalog.one(db, sql, [document])
    db.execute("DELETE FROM document_search WHERE rowid = ?", [document])
    _insert(db, "document_search", document, title, name, first["text"] if first else "")


def rename(db: Database, document: int) -> None:
    """Find a document and its pages by the title and file names that it has now."""
    (row,) = catalog.checked(db, "documents", "id = ?", [document])
    now = naming(db, row)
    db.execute(
        "UPDATE page_search SET title = ?, name = ? WHERE rowid IN (SELECT id FROM pages WHERE document = ?)"
        " AND (title <> ? OR name <> ?)",
        [*now, document, *now],
    )
    describe(db, document, *now)


def _insert(db: Database, table: str, row: int, title: str, name: str, body: str) -> None:
    db.execute(
        f"INSERT INTO {table} (rowid, title, name, body, stems) VALUES (?, ?, ?, ?, ?)",
        [row, title, name, " ".join(text.terms(body)), " ".join(text.stems(body))],
    )
