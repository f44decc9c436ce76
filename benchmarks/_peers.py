"""Engines beside Octavo, each run in an environment and a process of its own, and how all engines are run.

`install` makes an engine's environment, `run` starts a process of it for building and one for searching, with limits of
CPU and wall time; the process is this file (or, for Octavo, search.py), prints a line of JSON and needs nothing but
numpy and its engine. An engine that cannot be installed, ends with an error, crashes or takes too long gives a reason
instead of figures. Not here: the truth, and what the figures say (search.py).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from _machine import peak_memory

THREADS = ("OMP", "OPENBLAS", "MKL", "RAYON", "LANCE_CPU", "TOKIO_WORKER")
PINS: dict[str, list[str]] = {  # none: it runs in the environment of this benchmark
    "pooled FAISS + torch": [],
    "qdrant-edge": ["qdrant-edge-py==0.9.0", "numpy==2.4.6"],
    "LanceDB": ["lancedb==0.40.0", "numpy==2.4.6"],
    "fast-plaid": ["torch==2.13.0", "joblib", "filelock", "usearch", "numpy==2.4.6"],
}
ALONE = {"fast-plaid": ["fast-plaid==1.7.0.2110", "fastkmeans==0.5.0"]}  # without what they ask for: a torch with CUDA
CPU_LIMIT, WALL_LIMIT = 600, 2400  # seconds for building, and for searching
VARIANT_LIMIT = 10  # seconds of CPU time after which a way of searching gets no more queries
ROUNDS = 3  # in which all queries are asked; a query's time is its least, as the machine is shared
WARM = 3  # queries before the first that is timed


class Corpus:
    """n pages and the queries for them, out of a folder that search.py wrote.

    tokens: (T, d) float16, mapped; offsets: (n + 1,); queries: arrays (m, d) float32."""

    def __init__(self, folder: Path) -> None:
        self.tokens = np.load(folder / "tokens.npy", mmap_mode="r")
        self.offsets = np.load(folder / "offsets.npy")
        asked = np.load(folder / "queries.npz")
        self.queries = np.split(asked["values"], asked["offsets"][1:-1])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def page(self, number: int) -> np.ndarray:
        """(t, d) float32."""
        return np.asarray(self.tokens[self.offsets[number] : self.offsets[number + 1]], np.float32)

    def means(self) -> np.ndarray:
        """(n, d) float32, the mean token of each page, of norm 1."""
        return np.stack([unit(self.page(number).mean(axis=0)) for number in range(len(self))])


class Engine(Protocol):
    """What is measured. A search takes a query (m, d) and gives the ten best pages, best first."""

    def build(self, corpus: Corpus, store: Path) -> None: ...

    def searches(self, corpus: Corpus, store: Path) -> dict[str, Callable[[np.ndarray], list[int]]]:
        """Ways of searching, by name."""
        ...


class Pooled:
    """One mean vector a page in FAISS, the best few scored by torch over all tokens in memory: what people write."""

    def build(self, corpus: Corpus, store: Path) -> None:
        import faiss

        index = faiss.IndexFlatIP(corpus.tokens.shape[1])
        index.add(corpus.means())
        faiss.write_index(index, str(store / "means.faiss"))
        np.save(store / "tokens.npy", corpus.tokens)

    def searches(self, corpus: Corpus, store: Path) -> dict[str, Callable[[np.ndarray], list[int]]]:
        import faiss
        import torch

        torch.set_num_threads(1)
        faiss.omp_set_num_threads(1)
        index = faiss.read_index(str(store / "means.faiss"))
        tokens = torch.from_numpy(np.load(store / "tokens.npy").astype(np.float32))
        pages = [tokens[a:b] for a, b in zip(corpus.offsets[:-1], corpus.offsets[1:], strict=True)]

        def einsum(query: torch.Tensor, chosen: np.ndarray) -> torch.Tensor:
            """As colpali-engine scores: padded, 128 pages at a time."""
            scores = []
            for start in range(0, len(chosen), 128):
                group = [pages[page] for page in chosen[start : start + 128]]
                padded = torch.nn.utils.rnn.pad_sequence(group, batch_first=True)
                scores.append(torch.einsum("nd,csd->cns", query, padded).amax(dim=2).sum(dim=1))
            return torch.cat(scores)

        def flat(query: torch.Tensor, chosen: np.ndarray) -> torch.Tensor:
            """A matrix product a page, nothing padded, nothing copied."""
            return torch.stack([torch.mm(pages[page], query.T).amax(dim=0).sum() for page in chosen])

        def search(score: Any, n: int) -> Callable[[np.ndarray], list[int]]:
            def best(query: np.ndarray) -> list[int]:
                _, chosen = index.search(unit(query.mean(axis=0))[None], min(n, len(pages)))
                scores = score(torch.from_numpy(query), chosen[0])
                return chosen[0][scores.topk(10).indices.numpy()].tolist()

            return best

        ways = {f"{n}, torch mm": search(flat, n) for n in (100, 200, 300, 500, 1000, 2000)}
        return ways | {"500, torch einsum": search(einsum, 500), "all, torch mm": search(flat, len(pages))}


class Qdrant:
    """qdrant-edge: Qdrant's storage and search in the process, half precision, MaxSim of all or of the best by mean."""

    def build(self, corpus: Corpus, store: Path) -> None:
        import qdrant_edge as q

        half, dim = q.VectorStorageDatatype.Float16, corpus.tokens.shape[1]
        many = q.MultiVectorConfig(q.MultiVectorComparator.MaxSim)
        vectors = {
            "tokens": q.EdgeVectorParams(dim, q.Distance.Dot, multivector_config=many, datatype=half),
            "mean": q.EdgeVectorParams(dim, q.Distance.Dot, datatype=half),
        }
        shard = q.EdgeShard.create(str(store), q.EdgeConfig(vectors=vectors, max_search_threads=1))
        for start in range(0, len(corpus), 100):
            numbers = range(start, min(start + 100, len(corpus)))
            pages = {number: corpus.page(number) for number in numbers}
            points = [
                q.Point(number, {"tokens": page.tolist(), "mean": unit(page.mean(axis=0)).tolist()})
                for number, page in pages.items()
            ]
            shard.update(q.UpdateOperation.upsert_points(points))
        shard.flush()
        shard.close()

    def searches(self, corpus: Corpus, store: Path) -> dict[str, Callable[[np.ndarray], list[int]]]:
        import qdrant_edge as q

        shard = q.EdgeShard.load(str(store))

        def ask(query: np.ndarray, **how: Any) -> list[int]:
            wanted = q.Query.Nearest(query.tolist(), using="tokens")
            return [point.id for point in shard.query(q.QueryRequest(limit=10, query=wanted, **how))]

        def after(n: int) -> Callable[[np.ndarray], list[int]]:
            def best(query: np.ndarray) -> list[int]:
                mean = q.Query.Nearest(unit(query.mean(axis=0)).tolist(), using="mean")
                exact = q.SearchParams(exact=True)
                return ask(query, prefetches=[q.Prefetch(limit=n, query=mean, params=exact)])

            return best

        ways = {f"{n} by mean": after(n) for n in (200, 300, 500, 1000)}
        return ways | {"all": lambda query: ask(query, params=q.SearchParams(exact=True))}


class Lance:
    """LanceDB: IVF_FLAT over the tokens as a multivector column, the index that could be built here."""

    def build(self, corpus: Corpus, store: Path) -> None:
        import lancedb
        import pyarrow as pa

        dim = corpus.tokens.shape[1]
        row = pa.list_(pa.float16(), dim)
        schema = pa.schema([pa.field("id", pa.int64()), pa.field("tokens", pa.list_(row))])
        table = lancedb.connect(store).create_table("pages", schema=schema)
        for start in range(0, len(corpus), 500):
            stop = min(start + 500, len(corpus))
            offsets = corpus.offsets[start : stop + 1]
            values = pa.array(np.asarray(corpus.tokens[offsets[0] : offsets[-1]]).reshape(-1))
            tokens = pa.FixedSizeListArray.from_arrays(values, dim)
            lists = pa.ListArray.from_arrays(pa.array((offsets - offsets[0]).astype(np.int32)), tokens)
            table.add(pa.table({"id": pa.array(range(start, stop)), "tokens": lists}, schema=schema))
        table.create_index(metric="cosine", vector_column_name="tokens", index_type="IVF_FLAT", num_partitions=64)

    def searches(self, corpus: Corpus, store: Path) -> dict[str, Callable[[np.ndarray], list[int]]]:
        import lancedb

        table = lancedb.connect(store).open_table("pages")

        def search(probes: int, refine: int) -> Callable[[np.ndarray], list[int]]:
            def best(query: np.ndarray) -> list[int]:
                asked = table.search(query, vector_column_name="tokens").select(["id", "_distance"]).limit(10)
                found = asked.nprobes(probes).refine_factor(refine) if probes else asked.bypass_vector_index()
                return [row["id"] for row in found.to_list()]

            return best

        return {
            "probes 4": search(4, 1),
            "probes 16, refine 10": search(16, 10),
            "all": search(0, 0),
        }


class Plaid:
    """fast-plaid: PLAID in Rust over libtorch, 4 bits, as its README runs it."""

    def build(self, corpus: Corpus, store: Path) -> None:
        import torch
        from fast_plaid import search

        torch.set_num_threads(1)
        pages = [torch.from_numpy(corpus.page(number)) for number in range(len(corpus))]
        search.FastPlaid(index=str(store), device="cpu").create(documents_embeddings=pages)

    def searches(self, corpus: Corpus, store: Path) -> dict[str, Callable[[np.ndarray], list[int]]]:
        import torch
        from fast_plaid import search

        torch.set_num_threads(1)
        index = search.FastPlaid(index=str(store), device="cpu")

        def best(query: np.ndarray) -> list[int]:
            (found,) = index.search(queries_embeddings=torch.from_numpy(query)[None], top_k=10)
            return [page for page, _ in found]

        return {"its defaults": best}


ENGINES: dict[str, Callable[[], Engine]] = {
    "pooled FAISS + torch": Pooled,
    "qdrant-edge": Qdrant,
    "LanceDB": Lance,
    "fast-plaid": Plaid,
}


def unit(vector: np.ndarray) -> np.ndarray:
    """Of norm 1."""
    return vector / np.linalg.norm(vector)


def install(name: str, folder: Path) -> str:
    """The Python of an engine, in an environment below `folder` that is made once. Raises RuntimeError."""
    pins, alone = PINS.get(name, []), ALONE.get(name, [])
    if not pins:
        return sys.executable
    home = folder / name
    python, mark = home / "bin" / "python", home / "installed"
    if not mark.exists() or mark.read_text() != "\n".join(pins + alone):
        shutil.rmtree(home, ignore_errors=True)
        steps = [[sys.executable, "-m", "venv", home], [python, "-m", "pip", "install", "-q", *pins]]
        steps += [[python, "-m", "pip", "install", "-q", "--no-deps", *alone]] if alone else []
        for step in steps:
            done = subprocess.run(step, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"not installed: {done.stderr.strip().splitlines()[-1][:200]}")
        mark.write_text("\n".join(pins + alone))
    return str(python)


def run(name: str, python: str, script: Path, phase: str, corpus: Path, store: Path) -> dict[str, Any]:
    """What a process of an engine printed, or {"failed": why}."""
    alone = {f"{name}_NUM_THREADS": "1" for name in THREADS} | {"LANCE_CPU_THREADS": "1", "TOKIO_WORKER_THREADS": "1"}
    command = [python, str(script), "--work", name, phase, str(corpus), str(store)]
    with tempfile.TemporaryFile("w+") as told, tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=told, env=os.environ | alone)
        begun, spent = time.perf_counter(), 0.0
        while process.poll() is None:
            time.sleep(0.2)
            spent = max(spent, _cpu(process.pid))  # a limit of the kernel's (RLIMIT_CPU) makes its clock tick in 4 ms
            if spent > CPU_LIMIT or time.perf_counter() - begun > WALL_LIMIT:
                process.kill()
                process.wait()
                return {"failed": f"{phase}: not done after {spent:.0f} s of CPU time"}
        said.seek(0)
        told.seek(0)
        lines = (told.read().strip().splitlines() or ["?"]) if process.returncode else said.read().splitlines()
    if process.returncode < 0:
        return {"failed": f"{phase}: crashed ({signal.Signals(-process.returncode).name})"}
    if process.returncode:
        return {"failed": f"{phase}: {lines[-1][:200]}"}
    figures: dict[str, Any] = json.loads(lines[-1])
    return figures


def _cpu(process: int) -> float:
    """Seconds of CPU time that a process has used, 0 where it is gone."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def work(engine: Engine, phase: str, folder: Path, store: Path) -> dict[str, Any]:
    """Build, or search in every way, and measure it: the part of the process that `run` starts."""
    corpus = Corpus(folder)
    if phase == "build":
        begun = time.process_time(), time.perf_counter()
        engine.build(corpus, store)
        spent = time.process_time() - begun[0], time.perf_counter() - begun[1]
        return {"cpu_s": spent[0], "wall_s": spent[1], "peak_mb": peak_memory()}
    ways = {}
    for way, search in engine.searches(corpus, store).items():
        for query in corpus.queries[-WARM:]:
            search(query)
        times, found, spent = [], [], 0.0  # times: CPU and wall milliseconds of each query in each round
        for number, query in enumerate(corpus.queries * ROUNDS):
            begun = time.process_time(), time.perf_counter()
            best = search(query)
            times.append([(time.process_time() - begun[0]) * 1e3, (time.perf_counter() - begun[1]) * 1e3])
            found += [[int(page) for page in best]] if number < len(corpus.queries) else []
            spent += times[-1][0]
            if spent > VARIANT_LIMIT * 1e3:
                break
        rounds = [times[start :: len(corpus.queries)] for start in range(len(found))]
        cpu, wall = np.array([np.min(one, axis=0) for one in rounds]).T.tolist()
        ways[way] = {"cpu_ms": cpu, "wall_ms": wall, "found": found, "peak_mb": peak_memory()}
    return {"ways": ways, "hot_bytes": getattr(engine, "hot_bytes", {})}


if __name__ == "__main__":
    _, name, phase, *folders = sys.argv[1:]
    figures = work(ENGINES[name](), phase, *map(Path, folders))
    sys.stdout.write("\n" + json.dumps(figures) + "\n")
    sys.stdout.flush()
    os._exit(0)  # engines' own threads have nothing more to say
