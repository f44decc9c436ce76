"""What a search costs as the corpus grows to 1,000,000 pages of 256 tokens: codes of all, tokens of the best.

    python benchmarks/scale.py [--pages 10000 100000 1000000] [--folder ~/.cache/octavo-bench/scale] [--threads 2]

Pages are synthetic (_synthetic.py) and the first stage keeps the codes of all of them. Exact tokens are made for the
pages that are reranked, and kept as int8; making them is not timed, scoring them is. The truth is MaxSim over the
float32 tokens of every page, each seen once as it is coded. A size is the beginning of the next; coding is
saved every few pages and goes on where it was killed. Each size is searched in a process of its own; a query's wall
time is the best of five, as the machine is shared, its CPU time (of both threads together) the median.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
from _machine import environment, peak_memory  # noqa: E402
from _synthetic import DIM, TOKENS, Synthetic  # noqa: E402

from index import cache, native  # noqa: E402
from index.candidates import Queries, depth  # noqa: E402
from index.codec import encode  # noqa: E402
from index.pooling import pool_mean  # noqa: E402
from index.ragged import Codes, Ragged, offsets_of  # noqa: E402
from index.scan import Scan  # noqa: E402
from retriever.kernels import maxsim  # noqa: E402

SIZES = (10_000, 100_000, 1_000_000)
WITHIN = SIZES[0]  # pages that queries have as their targets, so that they are the same at every size
QUERIES, REPEATS, K = 20, 5, 10
DEPTHS = (100, 150, 300, 1000)  # counts of candidates, beside the one of a search where nobody says
CHUNK = 10_000  # pages coded between two savings
NAME = b"scale of octavo."


class Source:
    """Synthetic pages for `Scan.update`, which asks for their tokens alone, and their exact scores as they pass by.

    best, of: (q, 10) the largest scores so far and whose they are; seen: pages so far; made, scored: CPU seconds."""

    def __init__(self, synthetic: Synthetic, queries: list[np.ndarray]) -> None:
        self.synthetic, self.queries = synthetic, Ragged.of(queries)
        self.best, self.of = np.full((QUERIES, K), -np.inf, np.float32), np.full((QUERIES, K), -1)
        self.seen, self.made, self.scored = 0, 0.0, 0.0

    def vectors(self, ids: np.ndarray) -> Ragged:
        """Tokens of pages; the next ones in their order are scored."""
        begun = time.process_time()
        tokens = self.synthetic.pages(ids)
        made = Ragged(tokens.reshape(-1, DIM), offsets_of(np.full(len(ids), TOKENS)))
        self.made += time.process_time() - begun
        if ids[0] == self.seen and ids[-1] == self.seen + len(ids) - 1:
            self._score(np.asarray(ids), made)
        return made

    def _score(self, ids: np.ndarray, pages: Ragged) -> None:
        begun = time.process_time()
        scores = np.concatenate([self.best, maxsim(self.queries, pages, threads=1)], axis=1)
        if not self.seen:
            checked = [(pages[0] @ query.T).max(axis=0).sum() for query in self.queries]
            np.testing.assert_allclose(scores[:, K], checked, rtol=1e-5)
        of = np.concatenate([self.of, np.broadcast_to(ids, (QUERIES, len(ids)))], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :K]
        self.best, self.of = np.take_along_axis(scores, order, 1), np.take_along_axis(of, order, 1)
        self.seen += len(ids)
        self.scored += time.process_time() - begun


def corpus() -> tuple[Synthetic, list[np.ndarray]]:
    """The pages, and the queries."""
    synthetic = Synthetic("concepts")
    return synthetic, [synthetic.query(number, WITHIN).tokens for number in range(QUERIES)]


def build(folder: Path, sizes: list[int]) -> None:
    """Code pages up to the largest size, or those that are missing."""
    source = Source(*corpus())
    folder.mkdir(parents=True, exist_ok=True)
    scan, truths, steps = Scan(DIM), {}, []
    if (kept := cache.load(folder, "codes", NAME)) is not None:
        record, arrays = kept
        scan, steps = Scan.restored(DIM, *kept), record["steps"]
        source.best, source.of, source.seen = arrays["best"], arrays["of"], len(scan.ids)
        truths = {name: array for name, array in arrays.items() if name.startswith("truth")}
    while len(scan.ids) < max(sizes):
        end = min(len(scan.ids) + CHUNK, *(size for size in sizes if size > len(scan.ids)))
        before, source.made, source.scored = time.process_time(), 0.0, 0.0
        scan.update(np.arange(end), source)
        spent = time.process_time() - before - source.made - source.scored
        assert source.seen == end == len(scan.ids)
        steps.append({"pages": end, "cpu_s": spent, "generation_s": source.made, "truth_s": source.scored})
        if end in sizes:
            truths[f"truth {end}"] = source.of
        record, arrays = scan.state()
        record |= {"steps": steps, "build_peak_mb": peak_memory()}
        cache.save(folder, "codes", NAME, record, arrays | truths | {"best": source.best, "of": source.of})
        sys.stderr.write(f"{end} pages, {spent:.1f} s of CPU time for the last {CHUNK}\n")


def part(folder: Path, pages: int) -> tuple[Scan, np.ndarray, dict[str, Any]]:
    """The first stage of the first pages, the truth about them, and how they were built."""
    record, arrays = cache.load(folder, "codes", NAME) or ({}, {})
    offsets = arrays["offsets"][: pages + 1]
    cut = {name: arrays[name][:pages] for name in ("ids", "means")}
    cut |= {"offsets": offsets, "codes": arrays["codes"][: offsets[-1]]}
    return Scan.restored(DIM, record, arrays | cut), arrays[f"truth {pages}"], record


class Stages:
    """Seconds of CPU and wall time by stage of a search."""

    names = ("table", "scan", "selection", "rerank")

    def __init__(self) -> None:
        self.spent = dict.fromkeys(self.names, np.zeros(2))

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time counted as that stage."""

        def run(*arguments: Any, **keywords: Any) -> Any:
            begun = np.array([time.process_time(), time.perf_counter()])
            result = function(*arguments, **keywords)
            self.spent[name] = self.spent[name] + np.array([time.process_time(), time.perf_counter()]) - begun
            return result

        return run


def search(scan: Scan, synthetic: Synthetic, query: np.ndarray, n: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The best ten pages, and the milliseconds (CPU, wall) of each stage."""
    stages, asked = Stages(), Queries(Ragged.of([query]), pool_mean(query)[None])
    plain = native.tables, native.scan
    native.tables = stages.timed("table", plain[0])
    native.scan = stages.timed("scan", plain[1])
    try:
        ((_, ids),) = stages.timed("selection", scan.search)(asked, n)
    finally:
        native.tables, native.scan = plain
    values, scales = encode(synthetic.pages(ids).reshape(-1, DIM), "int8")
    stored = Codes(values, offsets_of(np.full(len(ids), TOKENS)), "int8", scales)
    scores = stages.timed("rerank", maxsim)(query, stored)
    stages.spent["selection"] -= stages.spent["table"] + stages.spent["scan"]
    return ids[np.lexsort((ids, -scores))[:K]], {name: 1e3 * spent for name, spent in stages.spent.items()}


def measure(folder: Path, pages: int, threads: int) -> dict[str, Any]:
    """Every count of candidates at one size."""
    native.default_threads = lambda: threads
    synthetic, queries = corpus()
    scan, truth, record = part(folder, pages)
    begun, build_s = 0, 0.0
    for step in record["steps"]:
        if step["pages"] <= pages:
            begun, build_s = step["pages"], build_s + step["cpu_s"]
    assert begun == pages
    rows = []
    for n in sorted({*DEPTHS, depth(pages)}):
        found, cpu, wall = [], [], []
        for query in queries:
            runs = [search(scan, synthetic, query, n) for _ in range(REPEATS)]
            found.append(runs[0][0])
            times = np.array([list(spent.values()) for _, spent in runs])  # (repeats, stages, CPU and wall)
            cpu.append(np.median(times[:, :, 0], axis=0))
            wall.append(times[times[:, :, 1].sum(axis=1).argmin(), :, 1])
        totals = np.sum(cpu, axis=1), np.sum(wall, axis=1)
        rows.append(
            {
                "candidates": n,
                "default": n == depth(pages),
                "recall@10": float(np.mean([np.isin(t, f).mean() for t, f in zip(truth, found, strict=True)])),
                "cpu_ms": {"p50": float(np.median(totals[0])), "p95": float(np.percentile(totals[0], 95))},
                "wall_ms": {"p50": float(np.median(totals[1])), "p95": float(np.percentile(totals[1], 95))},
                "cpu_ms_by_stage": dict(zip(Stages.names, np.median(cpu, axis=0).tolist(), strict=True)),
            }
        )
    return {
        "pages": pages,
        "tokens": pages * TOKENS,
        "centroids": len(scan.centroids),
        "codes_a_page": len(scan.codes) / pages,
        "hot_bytes_a_token": sum(array.nbytes for array in scan.state()[1].values()) / (pages * TOKENS),
        "build_cpu_s_a_1000_pages": build_s / pages * 1000,
        "build_peak_mb": record["build_peak_mb"],
        "search_peak_mb": peak_memory(),
        "search": rows,
    }


def show(result: dict[str, Any]) -> None:
    """A line for each size and count of candidates."""
    sys.stdout.write(
        "| pages | candidates | recall@10 | wall p50, p95 ms | CPU p50 ms | of that table, scan, selection, rerank "
        "| hot bytes a token | peak MB | build CPU s / 1,000 pages |\n|---|---|---|---|---|---|---|---|---|\n"
    )
    for size in result["sizes"]:
        for row in size["search"]:
            stages = ", ".join(f"{value:.1f}" for value in row["cpu_ms_by_stage"].values())
            default = " (the default)" if row["default"] else ""
            sys.stdout.write(
                f"| {size['pages']:,} | {row['candidates']}{default} | {row['recall@10']:.3f} "
                f"| {row['wall_ms']['p50']:.1f}, {row['wall_ms']['p95']:.1f} | {row['cpu_ms']['p50']:.1f} | {stages} "
                f"| {size['hot_bytes_a_token']:.2f} | {size['search_peak_mb']:.0f} "
                f"| {size['build_cpu_s_a_1000_pages']:.2f} |\n"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pages", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--folder", type=Path, default=Path("~/.cache/octavo-bench/scale").expanduser())
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        sys.stdout.write(json.dumps(measure(options.folder, options.measure, options.threads)))
        return
    build(options.folder, sorted(options.pages))
    sizes = []
    for pages in sorted(options.pages):
        again = [sys.executable, __file__, "--folder", str(options.folder), "--threads", str(options.threads)]
        done = subprocess.run([*again, "--measure", str(pages)], stdout=subprocess.PIPE, check=True)
        sizes.append(json.loads(done.stdout))
    result = {"threads": options.threads, "queries": QUERIES, "sizes": sizes} | environment("numpy", "faiss-cpu")
    show(result)
    (Path(__file__).parent / "results" / "scale.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
