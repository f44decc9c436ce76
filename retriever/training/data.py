"""What is trained on: pairs of a query and the document that answers it, with or without negatives; graded pairs.

    a folder of one's own, or a copy of a data set of the hub     as octavo eval reads them: pages, queries, qrels
    a data set with columns query and image, or query and positive (and negative, or negatives)      pairs, triplets
    a file of the latter                                                              .jsonl, .parquet, .arrow, .tsv
    a file of sentence1, sentence2, score                                                              graded pairs

Pages are named here, and drawn when they are needed (batches). Not here: mining.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from index.errors import OctavoError
from retriever.evaluation import datasets
from retriever.evaluation.datasets import Corpus, QuestionSet
from retriever.evaluation.hub import corpus_of
from retriever.evaluation.pairs import sentences
from retriever.evaluation.tables import SUFFIXES, Row, Table, tables


class PageOf(NamedTuple):
    """A page of a file, from 1."""

    path: Path
    number: int


Document = str | PageOf


class Pair(NamedTuple):
    """A query and a document that answers it; answers: all that do; negatives: that do not, hardest first."""

    query: str
    document: Document
    answers: frozenset[Document]
    negatives: tuple[Document, ...] = ()


class Graded(NamedTuple):
    """Two texts and how alike people said they are."""

    one: str
    two: str
    grade: float


@dataclass
class Material:
    """What a source gives: pairs and their corpus, or graded pairs."""

    name: str
    pairs: Sequence[Pair] = ()
    corpus: Corpus = Corpus()
    graded: Sequence[Graded] = ()

    def document(self, content: str, number: int) -> Document:
        """The document that a hit in an index of the corpus is."""
        text = self.corpus.texts.get(content)
        return text if text is not None else PageOf(self.corpus.files[content], number)


def read(source: str, split: str, cache: Path) -> list[Material]:
    """The pairs of a file, of a folder, or of a data set of the hub. Raises OctavoError, FileNotFoundError."""
    path = Path(source).expanduser()
    if path.is_file():
        scored = sentences(path)
        if scored:
            rows = zip(scored.one, scored.two, scored.scores, strict=True)
            return [Material(path.stem, graded=[Graded(*row) for row in rows])]
        if path.suffix not in SUFFIXES:
            raise OctavoError(f"{path}: a table is expected ({', '.join(SUFFIXES)}), or a folder")
        return [_of_rows(path.stem, Table("", "", (path,)).rows(), path, cache)]
    table = _paired(path, split) if path.is_dir() else None
    if table:
        return [_of_rows(path.resolve().name, table.rows(), path, cache)]
    found = [_of_questions(questions) for questions in datasets.load(source, split, cache)]
    if not any(material.pairs for material in found):
        raise OctavoError(
            f"{source}: there are no pairs; queries.jsonl and qrels.tsv beside pdf/ or pages/ are expected, or a table "
            "of query and image, or of query and positive"
        )
    return found


def _paired(folder: Path, split: str) -> Table | None:
    """The table of a folder that has pairs in its rows."""
    some = [table for found in tables(folder).values() for table in found]
    fitting = [table for table in some if table.split == split] or (some if len(some) == 1 else [])
    for table in fitting:
        if (
            table.files[0].suffix != ".tsv"
            and "query" in (columns := table.columns)
            and columns & {"image", "positive"}
        ):
            return table
    return None


def _of_questions(questions: QuestionSet) -> Material:
    """A pair for each page that is relevant to a query."""
    corpus = questions.corpus
    material = Material(questions.name, corpus=corpus)
    pairs = []
    for query in questions.queries:
        relevant = [page for page, grade in questions.qrels.get(query.id, {}).items() if grade > 0]
        places = dict.fromkeys(place for page in relevant if (place := corpus.place(page)))
        answers = [material.document(*place) for place in places]
        pairs += [Pair(query.text, one, frozenset(answers)) for one in answers]
    material.pairs = pairs
    return material


def _of_rows(name: str, rows: Iterable[Row], where: Path, cache: Path) -> Material:
    """Rows of query, image or positive, and negative or negatives."""
    asked: list[tuple[str, str, list[str]]] = []

    def documents() -> Iterator[tuple[str, Any, str]]:
        for number, row in enumerate(rows, 1):
            query, image, text = row.get("query"), row.get("image"), row.get("positive")
            if not isinstance(query, str) or not query.strip():
                continue  # pages without a question are published among the others
            if image is None and not (isinstance(text, str) and text.strip()):
                raise OctavoError(f"{where}, row {number}: an image, or a positive text, is expected beside the query")
            given: Any = row.get("negatives") or row.get("negative") or []
            wrong = [given] if isinstance(given, str) else list(given)
            if not all(isinstance(one, str) for one in wrong) or (wrong and image is not None):
                raise OctavoError(f"{where}, row {number}: negatives are texts, beside a positive text")
            asked.append((query, str(number), wrong))
            yield str(number), image, "" if image is not None else str(text)

    corpus = corpus_of(documents(), cache)
    material = Material(name, corpus=corpus)
    by_query: dict[str, set[Document]] = defaultdict(set)
    found: dict[str, Document] = {}
    for content, names in corpus.names.items():
        found |= dict.fromkeys(names, material.document(content, 1))
    for query, number, _ in asked:
        by_query[query].add(found[number])
    material.pairs = [Pair(q, found[n], frozenset(by_query[q]), tuple(wrong)) for q, n, wrong in asked]
    if not material.pairs:
        raise OctavoError(f"{where}: there is no query in it")
    return material


def split_off(items: Sequence[Any], share: float, seed: int) -> tuple[list[Any], list[Any]]:
    """Items to train on, and a share of them by query (or first sentence) held out: a text is on one side only."""
    texts = sorted({item[0] for item in items})
    held = set(random.Random(seed).sample(texts, round(share * len(texts))))
    return [item for item in items if item[0] not in held], [item for item in items if item[0] in held]


def batch_at(n: int, size: int, number: int, seed: int) -> list[int]:
    """The places of batch `number` (from 0) of n items, drawn anew each time round: a function of its arguments."""
    size = min(size, n)
    turn, place = divmod(number, n // size)
    order = list(range(n))
    random.Random(f"{seed} {turn}").shuffle(order)
    return order[place * size : (place + 1) * size]


def digest(items: Iterable[Any]) -> str:
    """The same for the same items in the same order."""
    found = hashlib.blake2b(digest_size=16)
    for item in items:
        plain = [sorted(map(str, part)) if isinstance(part, frozenset) else part for part in item]
        found.update(json.dumps(plain, default=str).encode())
    return found.hexdigest()
