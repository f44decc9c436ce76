"""The engine on real pages: is the right page found, how fast, in how many bytes, and does the first stage lose any?

    python benchmarks/engine.py ohr_bench [--queries 300] [--folder ~/.cache/octavo-bench] [--golden FILE]

Indexes the set once with the encoder in the box (kept; a killed run goes on) and then measures, in one process with one
thread: nDCG@5 of each mode; the share of the exact top 10 that the pooled stage has among its first 30, 100 and 200;
time of a search (median, 95th percentile), of opening the index, of `octavo search` from a cold shell; bytes a page.
--golden writes what tests/test_recall.py checks: pooled vectors of pages and queries, and the exact top 10.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
from _sets import Question, ndcg, pdfs, questions  # noqa: E402

from index import Ragged  # noqa: E402
from index.candidates import Queries  # noqa: E402
from index.pooled import Pooled  # noqa: E402
from index.pooling import pool_mean  # noqa: E402
from ingest.report import Progress  # noqa: E402
from retriever import Retriever  # noqa: E402
from retriever.encoders.box import BoxEncoder  # noqa: E402
from retriever.rerank import score, top  # noqa: E402


def fill(retriever: Retriever, name: str) -> dict[str, Any]:
    """Index the set, or what is missing of it."""
    told = [0.0]

    def tell(progress: Progress) -> None:
        if progress.seconds > told[0] + 30:
            told[0] = progress.seconds
            sys.stderr.write(f"{progress.pages_done} of {progress.pages_total} pages, {progress.seconds:.0f} s\n")

    report = retriever.add(pdfs(name), progress=tell)
    if not report.pages:
        return {}
    return {"pages": report.pages, "seconds": report.seconds, "pages_a_second": report.pages / report.seconds}


def page_id(hit: Any) -> str:
    """As the question sets name pages."""
    return f"{Path(hit.path).name}#{hit.page - 1}"


def quality(retriever: Retriever, asked: list[Question]) -> dict[str, float]:
    """nDCG@5 of each mode."""
    return {
        mode: float(np.mean([ndcg([page_id(h) for h in retriever.search(q.text, 5, mode)], q.pages) for q in asked]))
        for mode in ("hybrid", "visual", "text")
    }


def recall(retriever: Retriever, asked: list[Question], golden: Path | None) -> dict[str, float]:
    """Share of the exact top 10 within the first n of the pooled stage."""
    queries = [retriever.encoder.encode_queries([question.text])[0] for question in asked]
    singles = np.stack([pool_mean(query) for query in queries])
    with retriever.index.snapshot() as snapshot:
        ids = snapshot.state.ids
        best = [top(score(Ragged.of([query]), ids, snapshot)[0], ids, snapshot, 10)[1] for query in queries]
        vectors = snapshot.pooled(ids)
    stage = Pooled(vectors.shape[1])
    stage.add(vectors, ids)
    found = stage.search(Queries(Ragged.of(queries), singles), 200)
    if golden is not None:
        halves = {"pages": vectors.astype("<f2"), "ids": ids, "queries": singles.astype("<f2"), "best": np.stack(best)}
        np.savez_compressed(golden, **halves)
    share = {n: [np.isin(b, f[1][:n]).mean() for b, f in zip(best, found, strict=True)] for n in (30, 100, 200)}
    return {f"of {len(ids)} pages, in {n}": float(np.mean(values)) for n, values in share.items()}


def latency(retriever: Retriever, asked: list[Question]) -> dict[str, dict[str, float]]:
    """ms of a warm search for ten hits with their snippets: CPU time, and wall time, which other work disturbs."""
    figures = {}
    for mode in ("hybrid", "visual", "text"):
        cpu, wall = [], []
        for question in asked[:100]:
            begun = time.process_time(), time.perf_counter()
            hits = retriever.search(question.text, 10, mode)
            assert not hits or hits[0].snippet is not None
            cpu.append((time.process_time() - begun[0]) * 1e3)
            wall.append((time.perf_counter() - begun[1]) * 1e3)
        for clock, times in (("cpu", cpu), ("wall", wall)):
            figures[f"{mode} {clock}"] = {"p50": float(np.median(times)), "p95": float(np.percentile(times, 95))}
    return figures


def opening(folder: Path, question: str) -> dict[str, float]:
    """Seconds to open the index and take a snapshot, and of `octavo search` as a new process; medians of five."""
    opened, cold = [], []
    for _ in range(5):
        begun = time.perf_counter()
        with Retriever.open(folder) as retriever, retriever.index.snapshot() as snapshot:
            assert snapshot.first_stage.kind
        opened.append(time.perf_counter() - begun)
        command = [str(Path(sys.executable).with_name("octavo")), "search", "--index", str(folder), "--json", question]
        begun = time.perf_counter()
        hits = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["hits"]
        assert hits
        cold.append(time.perf_counter() - begun)
    return {"open": float(np.median(opened)), "octavo search, cold": float(np.median(cold))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("set")
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--folder", type=Path, default=Path("~/.cache/octavo-bench").expanduser())
    parser.add_argument("--golden", type=Path)
    options = parser.parse_args()
    asked = questions(options.set)
    asked = random.Random(0).sample(asked, min(options.queries, len(asked)))
    folder = options.folder / options.set
    with Retriever.open(folder, BoxEncoder()) as retriever:
        filled = fill(retriever, options.set)
    with Retriever.open(folder, BoxEncoder(threads=1)) as retriever:
        status = retriever.status()
        result = {
            "set": options.set,
            "queries": len(asked),
            "pages": status["pages"],
            "tokens_a_page": status["tokens"] / status["pages"],
            "bytes_a_page": status["bytes"] / status["pages"],
            "bytes_by_part": status["bytes_by_part"],
            "candidates": status["candidates"],
            "ingest": filled,
            "ndcg@5": quality(retriever, asked),
            "recall of the exact top 10, pooled": recall(retriever, asked, options.golden),
            "search ms, one thread": latency(retriever, asked),
        }
    result |= {"seconds": opening(folder, asked[0].text), "machine": platform.processor() or platform.machine()}
    text = json.dumps(result, indent=1)
    sys.stdout.write(text + "\n")
    out = Path(__file__).parent / "results" / f"engine_{options.set}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(text + "\n")


if __name__ == "__main__":
    main()
