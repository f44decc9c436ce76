"""What an ingest did, and how far it is: the two things a caller is told."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

Entry = dict[str, Any]


class Progress(NamedTuple):
    """How far an ingest is. pages_total counts the pages of new documents; path: the file in hand; seconds: so far."""

    documents_done: int
    documents_total: int
    pages_done: int
    pages_total: int
    path: Path | None
    seconds: float


@dataclass
class Report:
    """What became of each file: dicts of path, document, state, reason and pages.

    added: new documents, partial ones too (state says so); updated: new content at a known path; renamed: known content
    at a new path; skipped: nothing to do; failed: recorded with a reason, nothing searchable; gone: known paths with no
    file any more. pages: stored by this run; bytes: of the files read, or expected on disk for a dry run.
    """

    added: list[Entry] = field(default_factory=list)
    updated: list[Entry] = field(default_factory=list)
    renamed: list[Entry] = field(default_factory=list)
    skipped: list[Entry] = field(default_factory=list)
    failed: list[Entry] = field(default_factory=list)
    gone: list[Entry] = field(default_factory=list)
    pages: int = 0
    bytes: int = 0
    seconds: float = 0.0
    dry_run: bool = False

    def dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        return {item.name: getattr(self, item.name) for item in fields(self)}
