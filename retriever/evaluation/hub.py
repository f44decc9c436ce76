"""Data sets in the forms that are published: BEIR's corpus, queries and qrels, and ViDoRe's question-answer form.

    corpus {corpus-id, image} or {id, title, text}, queries {query-id, query[, language]}, qrels {query-id, corpus-id,
    score}: ViDoRe v1 (mteb's), v2, v3, v3.1, JinaVDR, BEIR; a set a language where configs are `<language>-corpus`,
    `<language>/corpus` and so on, which share an index where the pages are the same
    one table {query, image, image_filename, ...}: ViDoRe v1 as first published; a page is its image_filename, a query
    comes once and is answered by every page that it comes with

Pictures are written into a folder as they are (PNG, JPEG, ...), named by their content: what is measured is the engine
from the file on. Not here: downloading more than the files that a set is read from.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from index.errors import OctavoError
from ingest.sources import sniff
from retriever.evaluation.datasets import Corpus, Query, QuestionSet, grade, read_queries
from retriever.evaluation.tables import Table, needed, tables

_CONFIG = re.compile(r"(?:(.+?)[-_/])?(corpus|queries|qrels)")
_PARTS = ("corpus", "queries", "qrels")
_SUFFIX = {"png": ".png", "jpeg": ".jpg", "tiff": ".tif", "webp": ".webp"}


def download(repository: str, revision: str | None = None) -> Path:
    """The tables of a data set of the hub, or the copy that is there already. Raises OctavoError."""
    hub = needed("huggingface_hub", "eval")
    patterns = ["README.md", "*.parquet", "*.jsonl", "*.tsv", "*.arrow"]
    try:
        return Path(hub.snapshot_download(repository, repo_type="dataset", revision=revision, allow_patterns=patterns))
    except Exception as error:
        raise OctavoError(
            f"{repository}: the data set is not on this machine and the hub did not give it "
            f"({type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}); "
            "copy it here and name its folder instead"
        ) from error


def read(folder: Path, name: str, split: str, cache: Path) -> list[QuestionSet]:
    """The question sets of a folder of tables; [] where it is none."""
    languages: dict[str, dict[str, Table]] = defaultdict(dict)
    for config, some in tables(folder).items():
        named = _CONFIG.fullmatch(config)
        if not named and some[0].files[0].suffix not in (".parquet", ".arrow"):
            continue
        columns = some[0].columns
        if {"query", "image", "image-filename"} <= columns:
            return [_question_answer(_of_split(some, split, folder), name, cache)]
        if {"query-id", "corpus-id", "score"} <= columns:
            languages[_language(named)]["qrels"] = _of_split(some, split, folder)
        elif named:
            languages[_language(named)][named[2]] = _of_split(some, split, folder)
    shared = languages.pop("", {})
    sets = {language: shared | parts for language, parts in languages.items()} or {"": shared}
    return [_beir(parts, name, lang, cache) for lang, parts in sets.items() if parts.keys() >= set(_PARTS)]


def _language(config: re.Match[str] | None) -> str:
    return "" if config is None or config[1] in (None, "default") else config[1]


def _of_split(some: list[Table], split: str, folder: Path) -> Table:
    """The table of a split, or the only one there is."""
    fitting = [table for table in some if table.split == split] or (some if len(some) == 1 else [])
    if not fitting:
        there = ", ".join(table.split for table in some)
        raise OctavoError(f"{folder}: {some[0].config or 'the data set'} has no split {split!r}; it has {there}")
    return fitting[0]


def _beir(parts: dict[str, Table], name: str, language: str, cache: Path) -> QuestionSet:
    queries = [q._replace(lang=q.lang or language) for q in read_queries(parts["queries"])]
    asked = {query.id for query in queries}
    qrels: dict[str, dict[str, int]] = defaultdict(dict)
    for row in parts["qrels"].rows(("query-id", "corpus-id", "score")):
        if str(row["query-id"]) in asked:
            qrels[str(row["query-id"])][str(row["corpus-id"])] = grade(row, parts["qrels"])
    return QuestionSet(name, corpus_of(_documents(parts["corpus"]), cache), queries, qrels)


def rows_of(dataset: Any) -> Iterator[tuple[str, Any, str]]:
    """(id, image as stored, text) of each row of a `datasets.Dataset` in mteb's form."""
    if "image" in dataset.column_names:
        dataset = dataset.cast_column("image", needed("datasets", "mteb").Image(decode=False))
    for row in dataset:
        yield str(row["id"]), row.get("image"), "\n".join(filter(None, (row.get("title"), row.get("text"))))


def _documents(table: Table) -> Iterator[tuple[str, Any, str]]:
    """(id, image, text) of each row of a corpus."""
    for number, row in enumerate(table.rows(), 1):
        name = next((row[key] for key in ("corpus-id", "id", "docid") if row.get(key) is not None), None)
        if name is None:
            raise OctavoError(f"{table.files[0]}, row {number}: corpus-id or id is expected, got {sorted(row)}")
        yield str(name), row.get("image"), "\n".join(filter(None, (row.get("title"), row.get("text"))))


def _question_answer(table: Table, name: str, cache: Path) -> QuestionSet:
    queries: dict[str, Query] = {}
    qrels: dict[str, dict[str, int]] = defaultdict(dict)

    def pages() -> Iterator[tuple[str, Any, str]]:
        seen = set()
        for number, row in enumerate(table.rows(("query", "image", "image-filename", "language"))):
            page, text = str(row["image-filename"]), row["query"]
            if text and text.strip():
                query = queries.setdefault(text, Query(f"q{number}", text, row["language"] or ""))
                qrels[query.id][page] = 1
            if page not in seen:
                seen.add(page)
                yield page, row["image"], ""

    corpus = corpus_of(pages(), cache)
    return QuestionSet(name, corpus, list(queries.values()), qrels)


def corpus_of(documents: Iterable[tuple[str, Any, str]], cache: Path) -> Corpus:
    """Pictures go into the cache as files, texts stay; what has a picture is searched by it."""
    files: dict[str, Path] = {}
    texts: dict[str, str] = {}
    names: dict[str, list[str]] = defaultdict(list)
    folder = cache / "pages"
    folder.mkdir(parents=True, exist_ok=True)
    for name, image, text in documents:
        if image is not None:
            data, suffix = picture(image, name)
            content = hashlib.blake2b(data, digest_size=16).hexdigest()
            files[content] = folder / content[:2] / f"{content}{suffix}"
            if not files[content].exists():
                files[content].parent.mkdir(exist_ok=True)
                partial = files[content].with_suffix(".part")
                partial.write_bytes(data)
                partial.replace(files[content])
        else:
            content = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()
            texts[content] = text
        names[content].append(name)
    if files and texts:
        raise OctavoError(f"{len(texts)} pages of the corpus have no picture, {names[next(iter(texts))][0]} for one")
    return Corpus(files=files, texts=texts, names=names)


def picture(image: Any, name: str) -> tuple[bytes, str]:
    """The bytes of a picture file and its suffix, from the hub's {bytes, path}, from bytes, or from a PIL image.

    Raises OctavoError for what is none."""
    import io

    from PIL import Image

    data = image.get("bytes") if isinstance(image, dict) else image
    if data is None and isinstance(image, dict) and image.get("path") and Path(image["path"]).is_file():
        data = Path(image["path"]).read_bytes()
    if isinstance(data, bytes) and (suffix := _SUFFIX.get(sniff(data[:1024]) or "")):
        return data, suffix
    try:
        drawn = Image.open(io.BytesIO(data)) if isinstance(data, bytes) else data
        if not isinstance(drawn, Image.Image):
            raise ValueError(f"it is {type(image).__name__}")
        buffer = io.BytesIO()
        drawn.convert("RGB").save(buffer, "PNG", compress_level=1)
    except (OSError, ValueError) as error:
        raise OctavoError(f"page {name}: the picture cannot be read: {error}") from error
    return buffer.getvalue(), ".png"
