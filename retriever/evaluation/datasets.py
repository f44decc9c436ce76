"""Question sets: pages, queries and which page answers which query; from a folder, a hub data set's copy, or the hub.

    pdf/*.pdf or pages/*.png, queries.jsonl (id, text, lang), qrels.tsv (query, page, grade)     a folder of one's own
    corpus / queries / qrels as parquet, arrow or JSON lines, or ViDoRe's question-answer form   see hub

A page of a file is called `<file>#<page, from 0>`. Pages are known by their content, as in an index: pictures that are
the same are one page with several names, and corpora that are the same share an index. Not here: measuring (run).
"""

from __future__ import annotations

import hashlib
import os
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from index.errors import OctavoError
from ingest.sources import Source, Unreadable, content_id, find, open_source
from retriever.evaluation.tables import Row, Table


class Query(NamedTuple):
    """lang: as the data set says it, "" where it does not."""

    id: str
    text: str
    lang: str = ""


@dataclass(frozen=True)
class Corpus:
    """What is searched. files: content id -> file; texts: content id -> text, where pages are texts and no pictures;
    names: content id -> the names it has; paged: whether names are of files, and a page's is `<name>#<page, from 0>`;
    key: the same for the same pages under the same names."""

    files: Mapping[str, Path] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    paged: bool = False

    @cached_property
    def key(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for content in sorted(self.names):
            digest.update(f"{content} {sorted(self.names[content])}\n".encode())
        return digest.hexdigest()

    def ids(self, content: str, page: int) -> list[str]:
        """What a page (from 1) of a content is called; [] for one that is not of this corpus."""
        names = self.names.get(content, ())
        return [f"{name}#{page - 1}" for name in names] if self.paged else list(names)

    def place(self, page_id: str) -> tuple[str, int] | None:
        """The content and the page (from 1) that an id means; None for an id that is not of this corpus."""
        name, _, number = page_id.rpartition("#") if self.paged else (page_id, "#", "0")
        content = self._contents.get(name)
        return (content, int(number) + 1) if content is not None and number.isdecimal() else None

    @cached_property
    def _contents(self) -> dict[str, str]:
        return {name: content for content, names in self.names.items() for name in names}


@dataclass(frozen=True)
class QuestionSet:
    """name: of the data set; qrels: query -> page -> grade; smoke: whether its queries were made up from the pages."""

    name: str
    corpus: Corpus
    queries: Sequence[Query]
    qrels: Mapping[str, Mapping[str, int]]
    smoke: bool = False

    def sample(self, n: int, seed: int = 0) -> QuestionSet:
        """At most n of the queries that can be scored, of all languages alike."""
        by_language = defaultdict(list)
        for query in self.queries:
            if any(grade > 0 for grade in self.qrels.get(query.id, {}).values()):
                by_language[query.lang].append(query)
        share = -(-n // max(len(by_language), 1))
        rng = random.Random(seed)
        drawn = [query for found in by_language.values() for query in rng.sample(found, min(share, len(found)))]
        return replace(self, queries=sorted(drawn, key=lambda query: query.id))

    def only(self, languages: Iterable[str]) -> QuestionSet:
        """The queries of these languages. Raises OctavoError where there is none."""
        wanted = set(languages)
        queries = [query for query in self.queries if query.lang in wanted]
        if not queries:
            there = ", ".join(sorted({query.lang or "(none)" for query in self.queries}))
            raise OctavoError(f"{self.name} has no queries in {', '.join(sorted(wanted))}; it has {there}")
        return replace(self, queries=queries)


def cache_folder() -> Path:
    """Where pictures out of tables, and indexes, are kept: $XDG_CACHE_HOME/octavo/eval."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "octavo" / "eval"


def load(name: str, split: str = "test", cache: Path | None = None) -> list[QuestionSet]:
    """The question sets of a folder or of a data set on the hub (`owner/name`, `owner/name@revision`): one, or one a
    language where each has a corpus of its own. A folder of documents with no queries is one with none.

    Raises OctavoError for what is neither, FileNotFoundError for a path that is not there.
    """
    from retriever.evaluation import hub

    cache = cache or cache_folder()
    folder = Path(name).expanduser()
    if folder.is_dir():
        own = (folder / "qrels.tsv").is_file()
        return ([] if own else hub.read(folder, folder.resolve().name, split, cache)) or [from_folder(folder)]
    if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise FileNotFoundError(f"{name}: no such folder, and no data set of the hub (owner/name) is called like that")
    repository, _, revision = name.partition("@")
    found = hub.read(hub.download(repository, revision or None), repository, split, cache)
    if not found:
        raise OctavoError(
            f"{name}: the data set has neither corpus, queries and qrels nor query, image, image_filename"
        )
    return found


def from_folder(folder: Path) -> QuestionSet:
    """A folder of one's own; with no queries.jsonl, its documents alone. Raises OctavoError for what does not fit."""
    roots = [folder / name for name in ("pdf", "pages") if (folder / name).is_dir()] or [folder]
    corpus = of_files(roots)
    if not corpus.files:
        raise OctavoError(f"{folder}: there are no documents; PDFs are looked for in pdf/, pictures in pages/")
    if not (folder / "queries.jsonl").is_file():
        if (folder / "qrels.tsv").is_file():
            raise OctavoError(f"{folder}: qrels.tsv has no queries.jsonl beside it")
        return QuestionSet(folder.resolve().name, corpus, (), {})
    queries = read_queries(Table("", "", (folder / "queries.jsonl",)))
    qrels: dict[str, dict[str, int]] = defaultdict(dict)
    also, judged = _other_names(corpus), Table("", "", (folder / "qrels.tsv",))
    for row in judged.rows():
        page = str(row["corpus-id"])
        qrels[row["query-id"]][also.get(page, page)] = grade(row, judged)
    _check(folder, corpus, queries, qrels)
    return QuestionSet(folder.resolve().name, corpus, queries, qrels)


def of_files(roots: Sequence[Path]) -> Corpus:
    """The documents under some folders, called by their paths in them."""
    files: dict[str, Path] = {}
    names: dict[str, list[str]] = defaultdict(list)
    for root in roots:
        for found in find([root]):
            if isinstance(found, Unreadable):
                continue
            content = _content(found)
            files.setdefault(content, found.path)
            names[content].append(found.path.relative_to(root.absolute()).as_posix())
    return Corpus(files=files, names=names, paged=True)


def _content(source: Source) -> str:
    descriptor = open_source(source.path)
    try:
        return content_id(descriptor)
    finally:
        os.close(descriptor)


def _other_names(corpus: Corpus) -> dict[str, str]:
    """Other ways to name the page of a picture: its file with no page, with or without its suffix."""
    also: dict[str, str] = {}
    for names in corpus.names.values():
        for name in names:
            if not name.lower().endswith(".pdf"):
                also[name] = also[str(Path(name).with_suffix(""))] = f"{name}#0"
    return also


def read_queries(table: Table) -> list[Query]:
    """The queries of a table. Raises OctavoError for one without an id or a text, and for an id that comes twice."""
    queries: dict[str, Query] = {}
    where = table.files[0]
    for number, row in enumerate(table.rows(), 1):
        name = next((row[key] for key in ("query-id", "id", "qid") if row.get(key) is not None), None)
        text = next((row[key] for key in ("query", "text", "question") if isinstance(row.get(key), str)), None)
        if name is None or text is None or not text.strip():
            raise OctavoError(f"{where}, query {number}: id and text are expected, got {str(row)[:80]}")
        if str(name) in queries:
            raise OctavoError(f"{where}: the query id {name} comes twice")
        language = next((row[key] for key in ("lang", "language") if isinstance(row.get(key), str)), "")
        queries[str(name)] = Query(str(name), text, language)
    return list(queries.values())


def grade(row: Row, table: Table) -> int:
    """The grade of a judgement. Raises OctavoError."""
    try:
        return int(float(row["score"]))
    except (TypeError, ValueError):
        raise OctavoError(f"{table.files[0]}: {row['score']!r} is no grade, for query {row['query-id']}") from None


def _check(folder: Path, corpus: Corpus, queries: Sequence[Query], qrels: Mapping[str, Mapping[str, int]]) -> None:
    named = {page for grades in qrels.values() for page in grades}
    lost = sorted(page for page in named if corpus.place(page) is None)
    if lost:
        raise OctavoError(
            f"{folder / 'qrels.tsv'}: {len(lost)} of {len(named)} pages are not there, {lost[0]!r} for one; a page is "
            "<file>#<page, from 0>"
        )
    if not {query.id for query in queries} & qrels.keys():
        raise OctavoError(f"{folder}: no query of queries.jsonl is in qrels.tsv")
