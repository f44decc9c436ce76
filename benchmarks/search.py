"""Search end to end beside other engines: CPU time, recall of the exact top ten, bytes, memory, time to build.

    python benchmarks/search.py concepts                 # 10,000 synthetic pages of 256 tokens, 100 queries
    python benchmarks/search.py manifold --pages 10000
    python benchmarks/search.py real                     # 5,466 pages of five question sets, 20 questions of each
    python benchmarks/search.py real --sets ohr_bench

`real` takes page tokens of the encoder in the box out of the half-precision indexes that evaluation.py keeps, and makes
those that are not there. The truth is MaxSim in float32 over all tokens, by numpy. Every engine gets the same
half-precision tokens, runs alone (_peers.py) and with one thread; what is compared is the CPU time of its process, as
the machine is shared. Octavo is searched by `retriever.ranking.rank`, as `Retriever.search` does. A failure is a row
that says so.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
from _machine import environment  # noqa: E402
from _pareto import draw  # noqa: E402
from _peers import ALONE, ENGINES, PINS, Corpus, install, run, work  # noqa: E402

RESULTS = Path(__file__).parent / "results"
QUERIES, K = 100, 10
SETS = ["ohr_bench", "debian_headings", "xquad_pages", "jaquad_pages", "piaf_pages"]
OCTAVO = {"Octavo, codes": (0, 50, 100, 150, 300, 600, 1200), "Octavo, pooled": (0, 150, 500, 1000)}  # 0: what suits
TOKENS = ("states.onnx", "passages.onnx", "pieces.safetensors", "projection.safetensors")  # what makes token vectors
GOOD = 0.95  # recall that a peer must have to be compared with


class Octavo:
    """An index made through its writer, and searched as the engine does. Pages are in documents of a hundred."""

    def __init__(self, stage: str) -> None:
        self.stage, self.ways, self.hot_bytes = stage.split(", ")[1], OCTAVO[stage], 0.0

    def build(self, corpus: Corpus, store: Path) -> None:
        from index import Index, Origin, PageRecord

        index = Index.create(store, dim=corpus.tokens.shape[1], fingerprint={"name": "benchmark"}, stage=self.stage)
        with index.writing() as writer:
            for start in range(0, len(corpus), 100):
                numbers = range(start, min(start + 100, len(corpus)))
                origin = Origin(f"/pages/{start}", "pdf", 1, 1)
                document, _ = writer.begin(f"{start:032x}", origin, page_count=len(numbers))
                pages = [corpus.page(number) for number in numbers]
                records = [
                    PageRecord(number - start + 1, page, np.zeros((len(page), 4), np.float32))
                    for number, page in zip(numbers, pages, strict=True)
                ]
                ids = writer.add_pages(document, records)
                assert ids == [number + 1 for number in numbers]
                writer.finish(document, origin, "ok")
        index.close()

    def searches(self, corpus: Corpus, store: Path) -> dict[str, Callable[[np.ndarray], list[int]]]:
        from index import Index
        from index.pooling import pool_mean
        from retriever.ranking import rank

        index = Index(store)

        def search(n: int) -> Callable[[np.ndarray], list[int]]:
            def best(query: np.ndarray) -> list[int]:
                with index.snapshot() as snapshot:
                    hits = rank(snapshot, ["a query"], query, pool_mean(query), K, "visual", None, n)
                return [hit.page - 1 for hit in hits]

            return best

        with index.snapshot() as snapshot:
            _, arrays = snapshot.first_stage.state()  # type: ignore[attr-defined]
            self.hot_bytes = sum(array.nbytes for array in arrays.values()) / snapshot.state.tokens
        return {str(n or "as many as promise enough"): search(n) for n in self.ways}


def synthetic(kind: Any, pages: int) -> tuple[Iterable[np.ndarray], list[np.ndarray], list[int]]:
    """Pages, queries and their targets."""
    from _synthetic import Synthetic

    made = Synthetic(kind)
    asked = [made.query(number, pages) for number in range(QUERIES)]
    return (made.pages([n])[0] for n in range(pages)), [q.tokens for q in asked], [q.target for q in asked]


def real(sets: list[str]) -> tuple[Iterable[np.ndarray], list[np.ndarray], list[int]]:
    """The pages of question sets, all together, and questions of each; no targets."""
    from evaluation import SETS as PARTS
    from evaluation import WORK, cut

    from retriever import load_encoder
    from retriever.evaluation.datasets import load
    from retriever.evaluation.indexes import opened

    encoder: Any = load_encoder()
    pages: list[np.ndarray] = []
    queries: list[np.ndarray] = []
    for name in sets:
        asked: list[str] = []
        for part in [part for part, of in PARTS.items() if part == name or (of.name == name and of.prefix)]:
            (found,) = load(str(cut(PARTS[part], WORK / "sets" / part)))
            retriever, _ = opened(found.corpus, encoder, WORK / "cache", codec="fp16")
            with retriever, retriever.index.snapshot() as snapshot:
                pages += [page.astype(np.float16) for page in snapshot.vectors(snapshot.state.ids) if len(page)]
            asked += [query.text for query in found.queries if found.qrels.get(query.id)]
        queries += encoder.encode_queries(random.Random(0).sample(sorted(asked), QUERIES // len(sets)))
    return pages, queries, []


def digests() -> dict[str, str]:
    """What the encoder in the box is made of."""
    from retriever.encoders.box.weights import FOLDER, Weights

    return Weights(FOLDER).digests


def prepare(folder: Path, pages: Iterable[np.ndarray], queries: list[np.ndarray], targets: list[int]) -> None:
    """Write a corpus and the exact top ten of each query into a folder, unless it is there."""
    if (folder / "truth.npy").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    halves = [page.astype(np.float16) for page in pages]
    offsets = np.concatenate([[0], np.cumsum([len(page) for page in halves])])
    np.save(folder / "tokens.npy", np.concatenate(halves))
    np.save(folder / "offsets.npy", offsets)
    starts = np.concatenate([[0], np.cumsum([len(query) for query in queries])])
    values = np.concatenate(queries).astype(np.float32)
    np.savez(folder / "queries.npz", values=values, offsets=starts)
    scores = np.empty((len(queries), len(halves)), np.float32)
    for number, page in enumerate(halves):
        best = (page.astype(np.float32) @ values.T).max(axis=0)
        scores[:, number] = np.add.reduceat(best, starts[:-1])
    truth = np.argsort(-scores, axis=1, kind="stable")[:, :K]
    assert not targets or truth[:, 0].tolist() == targets, "a query's target is not its best page"
    np.save(folder / "truth.npy", truth)


def measure(name: str, folder: Path, peers: Path) -> list[dict[str, Any]]:
    """The rows of one engine: one for each way of searching, or one that says what went wrong."""
    corpus, store = Corpus(folder), folder / "stores" / name.replace(" ", "_")
    script = Path(__file__).with_name("_peers.py") if name in ENGINES else Path(__file__)
    shutil.rmtree(store, ignore_errors=True)
    store.mkdir(parents=True)
    try:
        python = install(name, peers)
    except RuntimeError as error:
        return [{"engine": name, "failed": str(error)}]
    built = run(name, python, script, "build", folder, store)
    found = built if "failed" in built else run(name, python, script, "search", folder, store)
    size = sum(path.stat().st_blocks * 512 for path in store.rglob("*") if path.is_file())
    shutil.rmtree(store)
    if "failed" in found:
        return [{"engine": name, "failed": found["failed"]}]
    truth, rows = np.load(folder / "truth.npy"), []
    for way, figures in found["ways"].items():
        answers = figures["found"]
        right = [np.isin(best, got).mean() for best, got in zip(truth, answers, strict=False)]
        row = {"engine": name, "way": way, "queries": len(answers), "recall@10": float(np.mean(right))}
        row["first"] = float(np.mean([got[:1] == [best[0]] for best, got in zip(truth, answers, strict=False)]))
        for clock in ("cpu_ms", "wall_ms"):
            p50, p95 = np.percentile(figures[clock], [50, 95]).tolist()
            row[clock] = {"p50": p50, "p95": p95}
        row |= {"build_cpu_s_a_1000_pages": built["cpu_s"] / len(corpus) * 1000, "bytes_a_page": size / len(corpus)}
        row |= {"build_peak_mb": built["peak_mb"], "search_peak_mb": figures["peak_mb"]}
        rows.append(row | ({"hot_bytes_a_token": found["hot_bytes"]} if found["hot_bytes"] else {}))
    return rows


def compare(rows: list[dict[str, Any]]) -> None:
    """Write into each row its CPU time as a share of the best peer's of those with good recall."""
    good = [row for row in rows if row["engine"] not in OCTAVO and row.get("recall@10", 0) >= GOOD]
    best = min(good, key=lambda row: row["cpu_ms"]["p50"], default=None)
    for row in rows:
        if best is not None and "failed" not in row:
            row["of_best_peer"] = row["cpu_ms"]["p50"] / best["cpu_ms"]["p50"]
            row["is_best_peer"] = row is best


def show(rows: list[dict[str, Any]]) -> None:
    """A table, fastest first, failures last."""
    sys.stdout.write(
        "| engine | pages scored | recall@10 | first | CPU p50, p95 ms | of the best peer | wall p50 ms "
        "| build CPU s / 1,000 pages | bytes a page | peak MB build, search | hot bytes a token |\n"
        + "|---" * 11
        + "|\n"
    )
    for row in sorted(rows, key=lambda row: row["cpu_ms"]["p50"] if "cpu_ms" in row else np.inf):
        if "failed" in row:
            sys.stdout.write(f"| {row['engine']} | {row['failed']} |\n")
            continue
        ratio = f"{row['of_best_peer']:.3f}" + (" (it)" if row["is_best_peer"] else "") if "of_best_peer" in row else ""
        hot = f"{row['hot_bytes_a_token']:.2f}" if "hot_bytes_a_token" in row else ""
        few = "" if row["queries"] == QUERIES else f" ({row['queries']} queries)"
        sys.stdout.write(
            f"| {row['engine']} | {row['way']}{few} | {row['recall@10']:.3f} | {row['first']:.2f} "
            f"| {row['cpu_ms']['p50']:.1f}, {row['cpu_ms']['p95']:.1f} | {ratio} | {row['wall_ms']['p50']:.1f} "
            f"| {row['build_cpu_s_a_1000_pages']:.2f} | {row['bytes_a_page']:,.0f} "
            f"| {row['build_peak_mb']:.0f}, {row['search_peak_mb']:.0f} | {hot} |\n"
        )


def main() -> None:
    if sys.argv[1:2] == ["--work"]:
        name, phase, *folders = sys.argv[2:]
        sys.stdout.write("\n" + json.dumps(work(Octavo(name), phase, *map(Path, folders))) + "\n")
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", choices=["concepts", "manifold", "real"])
    parser.add_argument("--pages", type=int, default=10_000)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--engines", nargs="+", default=[*OCTAVO, *ENGINES], choices=[*OCTAVO, *ENGINES])
    parser.add_argument("--folder", type=Path, default=Path("~/.cache/octavo-bench").expanduser())
    options = parser.parse_args()
    name, folder = f"{options.corpus}_{options.pages}", options.folder / "search"
    if options.corpus == "real":
        name = "real_pages" if options.sets == SETS else "_".join(options.sets)
        made_by = "".join(digest for file, digest in sorted(digests().items()) if file in TOKENS)
        folder /= hashlib.sha256(made_by.encode()).hexdigest()[:12]  # another encoder, other tokens
    folder /= name
    if not (folder / "truth.npy").exists():
        prepare(folder, *real(options.sets) if options.corpus == "real" else synthetic(options.corpus, options.pages))
    out = RESULTS / f"search_{name}.json"
    rows = [row for row in json.loads(out.read_text())["rows"]] if out.exists() else []
    for engine in options.engines:
        rows = [row for row in rows if row["engine"] != engine] + measure(engine, folder, options.folder / "peers")
        sys.stderr.write(f"{engine}: done\n")
    compare(rows)
    show(rows)
    corpus = Corpus(folder)
    result = {"corpus": name, "pages": len(corpus), "tokens": len(corpus.tokens), "rows": rows}
    result |= {"weights": digests()} if options.corpus == "real" else {}
    result |= {"peers": PINS, "peers_without_requirements": ALONE} | environment("numpy", "faiss-cpu", "torch")
    out.write_text(json.dumps(result, indent=1) + "\n")
    draw([json.loads(path.read_text()) for path in sorted(RESULTS.glob("search_*.json"))], RESULTS / "search.svg")


if __name__ == "__main__":
    main()
