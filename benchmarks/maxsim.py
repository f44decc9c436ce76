"""The native kernels beside torch, maxsim-cpu, numkong and faiss binary: rates, ratios, and the limits.

    python benchmarks/maxsim.py [--pages 1000] [--rounds 5] [--workloads 32x256 16xragged ...] [--peers PYTHON]

A workload is query tokens x page tokens (ragged: 200 to 1,200). Vectors are synthetic, clustered, of unit length, 128
components. PYTHON is an interpreter that has numpy and the peers; each peer runs there in a process of its own with a
time-out, and one that is absent, crashes or is late is a row that says so. Every kernel's scores are first compared
with fp64 MaxSim of the decoded tokens. Times are CPU time, kernels take turns, medians are kept; a rate counts 2 x m x
d flops a token whatever is really computed, so that all columns compare. Rows of two threads count the CPU time of
both, so they too are rates of one core. The limits (_machine.py) are measured in the same run. Writes
results/maxsim.json.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from _machine import environment, limits, sgemm

ROOT = Path(__file__).resolve().parents[1]
DIM = 128
CHECKED = 24  # pages
WORKLOADS = [f"{m}x{t}" for m in (32, 16) for t in ("256", "768", "1024", "ragged")]
PEERS = ("maxsim-cpu", "numkong f32", "numkong f16", "faiss binary")
# relative error of a score against fp64 MaxSim of the decoded tokens that lets a kernel's time be printed
ALLOWED = {"fp32": 1e-5, "fp16": 1e-5, "int8": 1e-5, "int8 x int8": 5e-3, "int4": 1e-5, "int4 x int8": 5e-3}
ALLOWED |= {"binary": 5e-3, "binary x binary": 1e-5}
TWICE = ("fp32", "fp16", "int8", "int8 x int8", "binary")  # kernels that are run with two threads too


def bound(kernel: str, isa: str, m: int, limit: dict[str, float]) -> float | None:
    """The rate that no such program passes, Gflop/s-equivalents: that of its operations, or of reading the tokens."""
    width = {"fp32": 512, "fp16": 256, "int8": 130, "int4": 66, "binary": 18}[kernel.split()[0]]
    if kernel in ("fp32", "fp16") or (isa == "avx2" and kernel in ("int8", "int4")):
        arithmetic = limit.get(f"fma_{isa}")
    elif kernel.endswith("binary"):
        arithmetic = None
    elif kernel == "binary":  # a look-up stands for four components
        arithmetic = limit.get(f"lookups_{isa}", 0) * 8
    else:  # a float query is three digits of 8 bits
        arithmetic = limit.get(f"bytes_{isa}", 0) / (1 if kernel.endswith("x int8") else 3)
    return min(arithmetic, limit["memory"] / width * 2 * m * DIM) if arithmetic else None


def make(workload: str, pages: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Query (m, d), page tokens (T, d), offsets (n + 1,), all of unit length."""
    m, _, t = workload.partition("x")
    rng = np.random.default_rng(7)
    lengths = rng.integers(200, 1201, pages) if t == "ragged" else np.full(pages, int(t))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    centres = rng.standard_normal((4096, DIM), np.float32)
    tokens = centres[rng.integers(0, 4096, offsets[-1])]
    for first in range(0, len(tokens), 65536):
        some = tokens[first : first + 65536]
        some += 0.7 * rng.standard_normal(some.shape, np.float32)
        some /= np.linalg.norm(some, axis=1, keepdims=True)
    query = tokens[rng.integers(0, len(tokens), int(m))] + 0.05 * rng.standard_normal((int(m), DIM), np.float32)
    return query / np.linalg.norm(query, axis=1, keepdims=True), tokens, offsets


def exact(query: np.ndarray, tokens: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """fp64 MaxSim of the first pages."""
    similar = query.astype(np.float64) @ tokens[: offsets[CHECKED]].astype(np.float64).T
    return np.maximum.reduceat(similar, offsets[:CHECKED], axis=1).sum(axis=0)


def worst(scores: np.ndarray, expected: np.ndarray) -> float:
    return float(np.max(np.abs(scores[:CHECKED] - expected) / np.abs(expected)))


def cpu(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


# ---- peers: each in a process of its own, with nothing of ours ------------------------------------------------------


def peer(name: str, workload: str, pages: int, rounds: int) -> dict[str, float]:
    query, tokens, offsets = make(workload, pages)
    spans = list(zip(offsets[:-1], offsets[1:], strict=True))
    if name == "maxsim-cpu":
        import maxsim_cpu

        rows = [np.ascontiguousarray(tokens[a:b]) for a, b in spans]
        run = lambda: np.asarray(maxsim_cpu.maxsim_scores_variable(query, rows))  # noqa: E731
        expected = exact(query, tokens, offsets)
    elif name.startswith("numkong"):
        import numkong

        kind = {"f32": np.float32, "f16": np.float16}[name.split()[1]]
        packed = numkong.maxsim_pack(query.astype(kind))
        rows = [numkong.maxsim_pack(tokens[a:b].astype(kind)) for a, b in spans]
        # it gives the sum of the angular distances
        run = lambda: len(query) - np.array([numkong.maxsim_packed(packed, page) for page in rows])  # noqa: E731
        expected = exact(query, tokens, offsets)
    else:
        import faiss

        faiss.omp_set_num_threads(1)
        signs = np.packbits(tokens >= 0, axis=1)
        asked = np.packbits(query >= 0, axis=1)
        indexes = []
        for a, b in spans:
            indexes.append(faiss.IndexBinaryFlat(DIM))
            indexes[-1].add(np.ascontiguousarray(signs[a:b]))
        run = lambda: np.array([(DIM - 2 * i.search(asked, 1)[0]).sum() for i in indexes])  # noqa: E731
        expected = exact(np.where(query >= 0, 1, -1), np.where(tokens[: offsets[CHECKED]] >= 0, 1, -1), offsets)
    error = worst(run(), expected)
    seconds = float(np.median([cpu(run) for _ in range(rounds)]))
    return {"rate": 2 * len(query) * len(tokens) * DIM / seconds / 1e9, "error": error}


def ask_peers(python: str | None, workload: str, pages: int, rounds: int) -> dict[str, dict]:
    found: dict[str, dict] = {}
    for name in PEERS:
        if python is None:
            found[name] = {"absent": "no --peers given"}
            continue
        command = [python, __file__, "--peer", name, "--workloads", workload, "--pages", str(pages)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                [*command, "--rounds", str(rounds)], capture_output=True, text=True, timeout=300, env=environment
            )
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            found[name] = json.loads(done.stdout) if done.returncode == 0 else {"absent": last[-80:]}
        except subprocess.TimeoutExpired:
            found[name] = {"absent": "not done in 300 s"}
    return found


# ---- ours and torch -------------------------------------------------------------------------------------------------


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy on a 64-byte line, as rows lie in a shard."""
    memory = np.empty(array.nbytes + 64, np.uint8)
    first = -memory.ctypes.data % 64
    copy = memory[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[:] = array
    return copy


def ours(query: np.ndarray, tokens: np.ndarray, offsets: np.ndarray, folder: Path) -> dict[str, Callable]:
    """name -> function of its scores, after its answers were checked."""
    from index import native
    from index.codec import encode, rotated
    from index.native import twin
    from index.ragged import Ragged

    lengths = np.diff(offsets)
    best = native.available()
    runs: dict[str, Callable] = {}
    for codec in native.CODECS:
        values, scales = (tokens, None) if codec == "fp32" else encode(tokens, codec)
        values, asked = aligned(values), rotated(query, codec)
        rows, first = values.view(np.uint8).reshape(len(values), -1), slice(0, offsets[CHECKED])
        decoded = twin.decoded(rows[first], codec, DIM, None if scales is None else scales[first])
        scale_at = None if scales is None else (scales.ctypes.data + 2 * offsets[:-1]).astype(np.uint64)
        places = {"": rows}
        if codec == "fp16":
            values.tofile(folder / "fp16")
            places[", mapped"] = np.memmap(folder / "fp16", np.uint8, "r").reshape(rows.shape)
        for kernel in (k for k in ALLOWED if k.split()[0] == codec):
            precision = kernel.split(" x ")[1] if " x " in kernel else "fp32"
            queries = Ragged(asked, np.array([0, len(asked)]))
            ways = [(place, best, 1) for place in places]
            ways += [("", "avx2", 1)] if best == "avx512" else []
            ways += [(", two threads", best, 2)] if kernel in TWICE else []
            for place, isa, threads in ways:
                memory = places.get(place, rows)
                at = (memory.ctypes.data + offsets[:-1] * rows.shape[1]).astype(np.uint64)
                how = (lengths, codec, DIM, scale_at, precision, threads, False, isa)
                run = partial(native.maxsim, queries, at, *how)
                expected = exact(twin.rounded(asked, "binary") if precision == "binary" else asked, decoded, offsets)
                run.error, run.keep = worst(run()[0], expected), (memory, scales)
                assert run.error <= ALLOWED[kernel], f"{kernel}, {isa}: error {run.error:.1e}"
                runs[f"{kernel}{place} ({isa})"] = run
    return runs


def torch_runs(query: np.ndarray, tokens: np.ndarray, offsets: np.ndarray) -> dict[str, Callable]:
    import torch

    torch.set_num_threads(1)
    lengths = np.diff(offsets)
    padded = torch.zeros(len(lengths), int(lengths.max()), DIM)
    for i, (a, b) in enumerate(zip(offsets[:-1], offsets[1:], strict=True)):
        padded[i, : b - a] = torch.from_numpy(tokens[a:b])
        padded[i, b - a :] = padded[i, 0]  # no effect on a maximum
    one, flat = torch.from_numpy(query)[None], torch.from_numpy(query).T.contiguous()

    def einsum() -> np.ndarray:
        parts = [
            torch.einsum("bnd,csd->bcns", one, padded[i : i + 128]).max(dim=3)[0].sum(dim=2)[0]
            for i in range(0, len(padded), 128)
        ]
        return torch.cat(parts).numpy()

    def bmm() -> np.ndarray:
        parts = [torch.matmul(padded[i : i + 16], flat).amax(dim=1).sum(dim=1) for i in range(0, len(padded), 16)]
        return torch.cat(parts).numpy()

    expected = exact(query, tokens, offsets)
    for run in (einsum, bmm):
        assert worst(run(), expected) < 1e-5
        run.error = worst(run(), expected)
    return {"torch einsum": einsum, "torch bmm": bmm}


def measure(workload: str, pages: int, rounds: int, limit: dict[str, float]) -> dict[str, dict]:
    """name -> rate, error, bound; of the sgemm yardstick its rate."""
    query, tokens, offsets = make(workload, pages)
    work = 2 * len(query) * len(tokens) * DIM
    with tempfile.TemporaryDirectory() as folder:
        runs = ours(query, tokens, offsets, Path(folder)) | torch_runs(query, tokens, offsets)
        runs["sgemm"], flops = sgemm()
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                times[name].append(cpu(run))
    found: dict[str, dict] = {}
    for name, seconds in times.items():
        rate = (flops if name == "sgemm" else work) / float(np.median(seconds)) / 1e9
        found[name] = {"rate": rate, "error": getattr(runs[name], "error", 0.0)}
        kernel, _, isa = name.partition(" (")
        most = bound(kernel.split(",")[0], isa[:-1], len(query), limit) if isa else None
        found[name] |= {"bound": most} if most else {}
    return found


def gmean(ratios: list[float]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def bars(
    results: dict[str, dict[str, dict]], isa: str, limit: dict[str, float]
) -> list[tuple[str, float, float, float]]:
    """(what, must reach, geometric mean, least) over the workloads."""

    def ratio(a: str, b: str, of: Callable[[str], bool] = lambda w: True) -> list[float]:
        return [r[a]["rate"] / r[b]["rate"] for w, r in results.items() if of(w)]

    k = lambda name: f"{name} ({isa})"  # noqa: E731
    memory = [limit.get("memory", math.inf) / 512 * 2 * int(w.split("x")[0]) * DIM for w in results]
    fast = [min(r["sgemm"]["rate"], m) for r, m in zip(results.values(), memory, strict=True)]
    held = [r[k("fp32")]["rate"] / f for r, f in zip(results.values(), fast, strict=True)]
    rows = [
        ("fp32 / sgemm 1536", 0.90, ratio(k("fp32"), "sgemm")),
        ("fp32 / the least of sgemm and reading memory", 0.90, held),
        ("fp32 / torch einsum, padded before", 2.7, ratio(k("fp32"), "torch einsum")),
        ("fp16 / fp32", 0.92, ratio(k("fp16"), k("fp32"))),
        ("int8 x int8 / fp32", 1.8, ratio(k("int8 x int8"), k("fp32"))),
        ("int8 x float / fp32", 0.95, ratio(k("int8"), k("fp32"))),
        ("binary x float / fp32", 4.0, ratio(k("binary"), k("fp32"))),
        ("mapped / in memory, fp16", 0.9, ratio(f"fp16, mapped ({isa})", k("fp16"))),
    ]
    for name in TWICE:
        rows.append((f"a core of two / one alone, {name}", 0.9, ratio(k(f"{name}, two threads"), k(name))))
    for name in ("fp32", "fp16", "int8 x int8"):
        pairs = [
            results[f"{m}xragged"][k(name)]["rate"] / results[f"{m}x768"][k(name)]["rate"]
            for m in (32, 16)
            if f"{m}xragged" in results and f"{m}x768" in results
        ]
        rows += [(f"ragged / uniform 768, {name}", 0.9, pairs)] if pairs else []
    return [(what, least, gmean(r), min(r)) for what, least, r in rows]


def show(results: dict[str, dict[str, dict]], limit: dict[str, float], isa: str | None) -> None:
    say = sys.stdout.write
    say("limits: " + ", ".join(f"{name} {rate:g}" for name, rate in limit.items()) + "\n\n")
    names = list(dict.fromkeys(name for rows in results.values() for name in rows))
    say("| Gflop/s-equivalents | " + " | ".join(results) + " | x best exact peer | of its bound | worst error |\n")
    say("|" + "---|" * (len(results) + 4) + "\n")
    exact_peers = ("torch einsum", "torch bmm", "maxsim-cpu")
    for name in names:
        rows = [rows[name] for rows in results.values()]
        cells = [f"{row['rate']:.0f}" if "rate" in row else "-" for row in rows]
        good = [(r, row) for r, row in zip(results.values(), rows, strict=True) if "rate" in row]
        if not good:
            say(f"| {name} | " + " | ".join(cells) + f" | {rows[0]['absent']} | | |\n")
            continue
        best = [row["rate"] / max(r[p]["rate"] for p in exact_peers if "rate" in r[p]) for r, row in good]
        shares = [row["rate"] / row["bound"] for _, row in good if "bound" in row]
        share = f"{gmean(shares):.2f}" if shares else ""
        error = max(row["error"] for _, row in good)
        say(f"| {name} | " + " | ".join(cells) + f" | {gmean(best):.2f} | {share} | {error:.0e} |\n")
    if isa:
        say(f"\n| bar ({isa}) | must reach | geometric mean | least |\n|---|---|---|---|\n")
        for what, least, mean, low in bars(results, isa, limit):
            say(f"| {what} | {least:.2f} | {mean:.2f} | {low:.2f} |\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pages", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workloads", nargs="+", default=WORKLOADS)
    parser.add_argument("--peers", metavar="PYTHON")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results") / "maxsim.json")
    args = parser.parse_args()
    if args.peer:
        json.dump(peer(args.peer, args.workloads[0], args.pages, args.rounds), sys.stdout)
        return
    sys.path.insert(0, str(ROOT))
    from index import native

    isa = native.available()
    assert isa, "nothing was compiled: python setup.py build_ext --inplace"
    limit, results = limits(), {}
    for workload in args.workloads:
        results[workload] = measure(workload, args.pages, args.rounds, limit)
        results[workload] |= ask_peers(args.peers, workload, args.pages, args.rounds)
        sys.stderr.write(f"{workload}: done\n")
    show(results, limit, isa)
    saved = environment("numpy", "torch") | {
        "command": "python benchmarks/maxsim.py --peers PYTHON",
        "pages": args.pages,
        "rounds": args.rounds,
        "limits": limit,
        "bars": {what: {"must": a, "mean": b, "least": c} for what, a, b, c in bars(results, isa, limit)},
        "results": results,
    }
    args.out.write_text(json.dumps(saved, indent=1) + "\n")


if __name__ == "__main__":
    main()
