"""The text lane's rows: a page with the terms of its words, of its document's title and of its files' names.

All of it inside the caller's transaction. What a term is: index.text; how it is searched: Snapshot.match.
"""

from __future__ import annotations

from pathlib import Path

from sqlite_utils import Database

from index import catalog, text
from index.records import clean


def put(db: Database, page: int, title: str, name: str, words: str) -> None:
    """Put a page into the lane; title and name as `naming` gives them."""
    body = text.terms(words)
    db.execute(
        "INSERT INTO page_search (rowid, title, name, body, stems) VALUES (?, ?, ?, ?, ?)",
        [page, title, name, " ".join(body), " ".join(text.stems(body))],
    )


def put_document(db: Database, document: catalog.Row) -> int:
    """Put a document's pages into a new lane; their number."""
    title, name = naming(db, document)
    sql = "SELECT p.id, t.text FROM pages p JOIN page_text t ON t.page = p.id WHERE document = ? AND state = 'ok'"
    pages = list(catalog.rows(db, sql, [document["id"]]))
    for page in pages:
        put(db, page["id"], title, name, page["text"])
    return len(pages)


def naming(db: Database, document: catalog.Row) -> tuple[str, str]:
    """The terms of a document's title, and of the names of the files that hold it."""
    names = sorted({Path(path).name for path in catalog.paths(db, document["id"]) or [document["source"]]})
    terms = [term for name in names for term in text.terms(clean(name))]
    return " ".join(text.terms(document["title"])), " ".join(terms)


def rename(db: Database, document: int) -> None:
    """Find a document's pages by the title and file names that it has now."""
    (row,) = catalog.checked(db, "documents", "id = ?", [document])
    now = naming(db, row)
    db.execute(
        "UPDATE page_search SET title = ?, name = ? WHERE rowid IN (SELECT id FROM pages WHERE document = ?)"
        " AND (title <> ? OR name <> ?)",
        [*now, document, *now],
    )
