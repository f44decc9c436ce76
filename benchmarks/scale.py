"""What a search costs as the corpus grows to 1,000,000 pages of 256 tokens: codes of all, tokens of the best.

    python benchmarks/scale.py [--pages 10000 100000 1000000] [--folder ~/.cache/octavo-bench/scale] [--threads 2]

Pages are synthetic (_synthetic.py) and the first stage keeps the codes of all of them. Exact tokens are made for the
pages that are reranked, and kept as int8; making them is not timed, scoring them is. The truth is MaxSim over the
float32 tokens of every page, seen once while it is coded. A size is the beginning of the next larger one; coding is
saved every few pages and goes on where it was killed. Each size is searched in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
from _peers import environment, peak_memory  # noqa: E402
from _synthetic import DIM, TOKENS, Synthetic  # noqa: E402

from index import cache, centroids, native  # noqa: E402
from index.candidates import Queries  # noqa: E402
from index.codec import encode  # noqa: E402
from index.ragged import Codes, Ragged, offsets_of  # noqa: E402
from index.scan import Scan, _first  # noqa: E402
from retriever.kernels import maxsim  # noqa: E402

SIZES = (10_000, 100_000, 1_000_000)
WITHIN = SIZES[0]  # pages that queries have as their targets, so that they are the same at every size
QUERIES, REPEATS, K = 20, 5, 10
CANDIDATES = (100, 150, 300, 1000)
CHUNK = 10_000  # pages coded between two savings
NAME = b"scale of octavo."


class Source:
    """Synthetic pages for `Scan.update`, and their exact scores for the queries as they pass by.

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

    def pooled(self, ids: np.ndarray) -> np.ndarray:
        raise NotImplementedError("codes do not ask for pooled vectors")

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
    cut = {"ids": arrays["ids"][:pages], "offsets": offsets, "codes": arrays["codes"][: offsets[-1]]}
    return Scan.restored(DIM, record, arrays | cut), arrays[f"truth {pages}"], record


def rerank(synthetic: Synthetic, query: np.ndarray, ids: np.ndarray, threads: int) -> tuple[np.ndarray, float, float]:
    """The best ten of the candidates by MaxSim over int8, with CPU and wall seconds of scoring."""
    values, scales = encode(synthetic.pages(ids).reshape(-1, DIM), "int8")
    stored = Codes(values, offsets_of(np.full(len(ids), TOKENS)), "int8", scales)
    begun = time.process_time(), time.perf_counter()
    scores = maxsim(query, stored, threads=threads)
    order = np.lexsort((ids, -scores))[:K]
    return ids[order], time.process_time() - begun[0], time.perf_counter() - begun[1]


def first(scan: Scan, query: np.ndarray, n: int, threads: int) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Candidates as `Scan.search` gives them, and the (CPU, wall) seconds of table, scan and selection."""
    clocks = [(time.process_time(), time.perf_counter())]
    (table,), _, _ = centroids.tables(query, scan.centroids)
    clocks.append((time.process_time(), time.perf_counter()))
    total = native.scan(table, scan.codes, scan.offsets, threads=threads)
    clocks.append((time.process_time(), time.perf_counter()))
    ids = scan.ids[_first(total, n)]
    clocks.append((time.process_time(), time.perf_counter()))
    return ids, [(b[0] - a[0], b[1] - a[1]) for a, b in zip(clocks, clocks[1:], strict=False)]


def measure(folder: Path, pages: int, threads: int) -> dict[str, Any]:
    """Every count of candidates at one size."""
    synthetic, queries = corpus()
    scan, truth, record = part(folder, pages)
    begun, build_s = 0, 0.0
    for step in record["steps"]:
        if step["pages"] <= pages:
            begun, build_s = step["pages"], build_s + step["cpu_s"]
    assert begun == pages
    rows = []
    for n in CANDIDATES:
        found, cpu, wall = [], [], []
        for query in queries:
            ids, _ = first(scan, query, n, threads)
            ((_, same),) = scan.search(Queries(Ragged.of([query]), np.zeros((1, DIM), np.float32)), n)
            np.testing.assert_array_equal(ids, same)
            runs = []
            for _ in range(REPEATS):
                ids, stages = first(scan, query, n, threads)
                best, *scoring = rerank(synthetic, query, ids, threads)
                runs.append([*stages, tuple(scoring)])
            found.append(best)
            times = 1e3 * np.array(runs)  # (repeats, stages, cpu and wall)
            cpu.append(np.median(times[:, :, 0], axis=0))
            wall.append(times[times[:, :, 1].sum(axis=1).argmin(), :, 1])
        totals = np.sum(cpu, axis=1), np.sum(wall, axis=1)
        rows.append(
            {
                "candidates": n,
                "recall@10": float(np.mean([np.isin(t, f).mean() for t, f in zip(truth, found, strict=True)])),
                "cpu_ms": {"p50": float(np.median(totals[0])), "p95": float(np.percentile(totals[0], 95))},
                "wall_ms": {"p50": float(np.median(totals[1])), "p95": float(np.percentile(totals[1], 95))},
                "wall_ms_by_stage": dict(
                    zip(("table", "scan", "selection", "rerank"), np.median(wall, axis=0).tolist(), strict=True)
                ),
            }
        )
    return {
        "pages": pages,
        "tokens": pages * TOKENS,
        "centroids": len(scan.centroids),
        "codes_a_page": len(scan.codes) / pages,
        "hot_bytes_a_token": (scan.codes.nbytes + scan.offsets.nbytes + scan.ids.nbytes) / (pages * TOKENS),
        "build_cpu_s_a_1000_pages": build_s / pages * 1000,
        "build_peak_mb": record["build_peak_mb"],
        "search_peak_mb": peak_memory(),
        "search": rows,
    }


def show(result: dict[str, Any]) -> None:
    """A line for each size and count of candidates."""
    sys.stdout.write(
        "| pages | candidates | recall@10 | wall p50, p95 ms | CPU p50 ms | table, scan, selection, rerank ms "
        "| hot bytes a token | peak MB | build CPU s / 1,000 pages |\n|---|---|---|---|---|---|---|---|---|\n"
    )
    for size in result["sizes"]:
        for row in size["search"]:
            stages = ", ".join(f"{value:.1f}" for value in row["wall_ms_by_stage"].values())
            sys.stdout.write(
                f"| {size['pages']:,} | {row['candidates']} | {row['recall@10']:.3f} | {row['wall_ms']['p50']:.1f}, "
                f"{row['wall_ms']['p95']:.1f} | {row['cpu_ms']['p50']:.1f} | {stages} "
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
