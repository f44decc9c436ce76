"""Are the terms of the text lane right, in any script? nDCG@5 of BM25 alone, over PDF text layers.

    python benchmarks/text_lane.py [set ...]

`octavo`: what index.text does (words with their marks, pairs and triples of letters, stems at half weight). `no stems`:
the same without. `trigram`: FTS5's trigram tokenizer over the text as it is. `words`: unicode61 over the text as it is.
"""

from __future__ import annotations

import json
import random
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pymupdf
from _sets import Question, ndcg, pdfs, questions

from index import text
from index.catalog import sqlite3

SETS = ("jaquad_pages", "xquad_pages", "piaf_pages", "ohr_bench")


def pages(name: str) -> dict[str, str]:
    """Page id -> words of its text layer."""
    found = {}
    for path in pdfs(name):
        with pymupdf.open(path) as document:
            for number, page in enumerate(document):
                found[f"{path.name}#{number}"] = " ".join(word[4] for word in page.get_text("words"))
    return found


def trigrams(query: str) -> str:
    """Any trigram of the query's words."""
    words = re.findall(r"\w+", query.casefold())
    parts = [word[i : i + 3] for word in words for i in range(max(1, len(word) - 2))]
    return " OR ".join(f'"{part}"' for part in dict.fromkeys(parts) if len(part) == 3)


def plain(query: str) -> str:
    """Any word of the query."""
    return " OR ".join(f'"{word}"' for word in dict.fromkeys(re.findall(r"\w+", query.casefold())))


def our_words(body: str) -> tuple[str, ...]:
    """The columns of index.text."""
    return " ".join(text.terms(body)), " ".join(text.stems(body))


def ours(query: str) -> str:
    """The expression of index.text, for a table without titles and names."""
    return text.match_any(query).replace("{title name body}", "body")


Way = tuple[str, str, Callable[[str], tuple[str, ...]], Callable[[str], str], str]
WAYS: dict[str, Way] = {
    "octavo": ("body, stems", text.TOKENIZER, our_words, ours, "1, 0.5"),
    "no stems": ("body, stems", text.TOKENIZER, our_words, ours, "1, 0"),
    "trigram": ("body", "trigram", lambda body: (body,), trigrams, "1"),
    "words": ("body", "unicode61 remove_diacritics 2", lambda body: (body,), plain, "1"),
}


def measure(way: str, corpus: dict[str, str], asked: list[Question]) -> tuple[float, float]:
    """nDCG@5 and ms a query."""
    columns, tokenizer, prepare, match, weights = WAYS[way]
    db = sqlite3.connect(":memory:")
    quoted = tokenizer.replace("'", "''")
    db.execute(f"CREATE VIRTUAL TABLE lane USING fts5({columns}, tokenize='{quoted}')")
    ids = list(corpus)
    marks = ", ".join("?" * len(prepare("")))
    rows = [(i, *prepare(corpus[name])) for i, name in enumerate(ids)]
    db.executemany(f"INSERT INTO lane(rowid, {columns}) VALUES (?, {marks})", rows)
    started, total = time.perf_counter(), 0.0
    for question in asked:
        expression = match(question.text)
        sql = f"SELECT rowid FROM lane WHERE lane MATCH ? ORDER BY bm25(lane, {weights}), rowid LIMIT 5"
        found = db.execute(sql, [expression]).fetchall() if expression else []
        total += ndcg([ids[row] for (row,) in found], question.pages)
    db.close()
    return total / len(asked), (time.perf_counter() - started) / len(asked) * 1e3


def main(names: list[str]) -> None:
    results = []
    for name in names or SETS:
        try:
            asked, corpus = questions(name), pages(name)
        except FileNotFoundError:
            sys.stdout.write(f"{name}: not here, skipped\n")
            continue
        for lang in sorted({question.lang for question in asked}):
            some = [question for question in asked if question.lang == lang]
            some = random.Random(0).sample(some, min(300, len(some)))
            own = {i: words for i, words in corpus.items() if name != "xquad_pages" or i.startswith(f"xquad_{lang}.")}
            figures = {way: measure(way, own, some) for way in WAYS}
            row = {"set": name, "lang": lang, "pages": len(own), "queries": len(some)}
            results.append(row | {way: round(score, 4) for way, (score, _) in figures.items()})
            told = "  ".join(f"{way} {score:.3f} ({ms:.1f} ms)" for way, (score, ms) in figures.items())
            sys.stdout.write(f"{name:14} {lang:3} {len(own):5} pages {len(some):4} queries  {told}\n")
            sys.stdout.flush()
    out = Path(__file__).parent / "results" / "text_lane.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps({"sqlite": sqlite3.sqlite_version, "ndcg@5": results}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
