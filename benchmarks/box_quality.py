"""What pruning the encoder in the box costs: nDCG@5 of MaxSim alone, shipped weights against unpruned, and its speed.

    python benchmarks/box_quality.py [--pages 200] [--queries 200] [--full FOLDER] [--sets ohr_bench piaf_pages ...]

Question sets lie under shared/data (see its README); a set that is not there is named and skipped. FOLDER holds weights
built with `--keep 999999` and the shipped projection; without it only the shipped ones are measured. Pages are given as
their text layers, so this measures the text model, not the reader. Sets of several languages are searched a language at
a time; `xquad_pages>en` asks every language's questions of the English pages.
"""

from __future__ import annotations

import argparse
import json
import pickle
import platform
import random
import sys
import time
from pathlib import Path

import numpy as np
from _sets import DATA, ndcg, questions

from ingest.page import Page, Words
from retriever.encoders.box import BoxEncoder
from retriever.encoders.box.weights import FOLDER

SETS = ("ohr_bench", "xquad_pages", "xquad_pages>en", "jaquad_pages", "piaf_pages", "debian_headings")
CACHE = Path("/tmp/octavo-box-quality")
BLANK = np.full((16, 16, 3), 255, np.uint8)


def layers(folder: Path) -> dict[str, Page]:
    """Page id -> page with its text layer and a blank picture, cached."""
    cached = CACHE / f"{folder.name}.pickle"
    if not cached.exists():
        import pymupdf

        pages = {}
        for path in sorted((folder / "pdf").glob("*.pdf")):
            for number, page in enumerate(pymupdf.open(path)):
                size = np.array([page.rect.width, page.rect.height] * 2, np.float32)
                found = page.get_text("words")
                boxes = np.array([w[:4] for w in found], np.float32).reshape(-1, 4) / size
                pages[f"{path.name}#{number}"] = ([w[4] for w in found], boxes, float(size[0]), float(size[1]))
        CACHE.mkdir(parents=True, exist_ok=True)
        cached.write_bytes(pickle.dumps(pages))
    stored = pickle.loads(cached.read_bytes())  # noqa: S301 - written above by this script
    return {i: Page(1, BLANK, Words(t, b), w, h) for i, (t, b, w, h) in stored.items()}


def question_set(name: str) -> list[tuple[str, dict[str, Page], dict[str, tuple[str, frozenset[str]]]]]:
    """Pools of a set: (language, pages, query id -> (text, relevant page ids))."""
    folder = DATA / name.split(">")[0]
    pages = layers(folder)
    asked = questions(folder.name)
    if name == "xquad_pages>en":
        english = {i: p for i, p in pages.items() if i.startswith("xquad_en")}
        texts = {q.id: (q.text, frozenset(f"xquad_en.pdf#{i.split('#')[1]}" for i in q.pages)) for q in asked}
        return [("all>en", english, {i: v for i, v in texts.items() if not i.startswith("xquad-en")})]
    if name != "xquad_pages":
        return [("all", pages, {q.id: (q.text, q.pages) for q in asked})]
    return [
        (
            language,
            {i: p for i, p in pages.items() if i.startswith(f"xquad_{language}.")},
            {q.id: (q.text, q.pages) for q in asked if q.lang == language},
        )
        for language in sorted({q.lang for q in asked})
    ]


def measure(
    encoder: BoxEncoder, pages: dict[str, Page], queries: dict[str, tuple[str, frozenset[str]]]
) -> tuple[list[float], int, float, float]:
    """nDCG@5 a query, tokens of the pages, CPU-seconds for pages and for queries."""
    names = list(pages)
    start = time.process_time()
    vectors = [encoder.encode_pages([pages[name]])[0].vectors for name in names]
    middle = time.process_time()
    asked = encoder.encode_queries([text for text, _ in queries.values()])
    end = time.process_time()
    flat = np.concatenate(vectors)
    first = np.cumsum([0] + [len(v) for v in vectors])
    filled = [i for i, v in enumerate(vectors) if len(v)]
    scores = []
    for query, (_, relevant) in zip(asked, queries.values(), strict=True):
        best = np.maximum.reduceat(query @ flat.T, first[filled], axis=1).sum(0)
        ranking = [names[filled[i]] for i in np.argsort(-best, kind="stable")[:5]]
        scores.append(ndcg(ranking, relevant))
    return scores, len(flat), middle - start, end - middle


def sampled(
    pages: dict[str, Page], queries: dict[str, tuple[str, frozenset[str]]], n_pages: int, n_queries: int
) -> tuple[dict[str, Page], dict[str, tuple[str, frozenset[str]]]]:
    """At most n_pages pages, and at most n_queries questions whose relevant pages are among them (seed 0)."""
    names = sorted(random.Random(0).sample(sorted(pages), min(n_pages, len(pages))))
    inside = set(names)
    fits = sorted(i for i, (_, relevant) in queries.items() if relevant and relevant <= inside)
    chosen = random.Random(0).sample(fits, min(n_queries, len(fits)))
    return {name: pages[name] for name in names}, {i: queries[i] for i in chosen}


def run(encoder: BoxEncoder, name: str, n_pages: int, n_queries: int) -> dict[str, object]:
    """The row of one set: nDCG@5 (x 100) over all its questions and a language, speed."""
    pools = question_set(name)
    scores: dict[str, list[float]] = {}
    tokens, page_seconds, query_seconds, count = 0, 0.0, 0.0, 0
    for language, pages, queries in pools:
        some = sampled(pages, queries, max(60, n_pages // len(pools)), max(100, n_queries // len(pools)))
        scores[language], t, p, q = measure(encoder, *some)
        tokens, page_seconds, query_seconds, count = (
            tokens + t,
            page_seconds + p,
            query_seconds + q,
            count + len(some[0]),
        )
    every = [score for part in scores.values() for score in part]
    return {
        "ndcg@5": round(100 * float(np.mean(every)), 2),
        "by_language": {language: round(100 * float(np.mean(part)), 1) for language, part in scores.items()},
        "pages": count,
        "queries": len(every),
        "tokens_a_page": round(tokens / count, 1),
        "tokens_a_cpu_second": round(tokens / page_seconds),
        "ms_a_query": round(1000 * query_seconds / len(every), 1),
    }


def main() -> None:
    """Measures, prints a table, saves results/box_quality.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=200)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--full", type=Path)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--weights", type=Path, default=FOLDER)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "box_quality.json")
    given = parser.parse_args()
    encoders = {"shipped": BoxEncoder(threads=1, weights=given.weights)}
    if given.full is not None:
        encoders["unpruned"] = BoxEncoder(threads=1, weights=given.full)
    table: dict[str, dict[str, object]] = {}
    for name in given.sets:
        if not (DATA / name.split(">")[0]).is_dir():
            sys.stdout.write(f"{name}: skipped, {DATA / name} is not there\n")
            continue
        table[name] = {kind: run(encoder, name, given.pages, given.queries) for kind, encoder in encoders.items()}
        for kind, row in table[name].items():
            sys.stdout.write(f"{name} {kind} {json.dumps(row)}\n")
        sys.stdout.flush()
        given.out.parent.mkdir(parents=True, exist_ok=True)
        machine = {"machine": platform.processor() or platform.machine(), "python": platform.python_version()}
        saved = {**machine, "seed": 0, "sets": table}
        given.out.write_text(json.dumps(saved, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
