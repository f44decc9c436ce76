"""Native kernels: every instruction set of this machine and the numpy twins against fp64, odd shapes and addresses."""

import ctypes
import mmap
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from index import native
from index.native import twin
from index.ragged import Ragged, offsets_of
from retriever import doctor

PAGE = mmap.PAGESIZE
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
SOURCES = Path(native.__file__).parent
SETS = [name for name in native.instruction_sets() if name]


class Store:
    """Pages of random codes at odd addresses."""

    def __init__(self, rng, codec, dim, lengths):
        self.codec, self.dim, self.lengths = codec, dim, np.array(lengths, np.int64)
        width = twin.row_bytes(codec, dim)
        self.memory, self.addresses, self.scales = (
            [],
            np.zeros(len(lengths), np.uint64),
            np.zeros(len(lengths), np.uint64),
        )
        self.decoded, all_rows, all_scales = [], [], []
        for i, t in enumerate(lengths):
            if codec in ("fp32", "fp16"):
                rows = rng.standard_normal((t, dim)).astype("<f4" if codec == "fp32" else "<f2").view(np.uint8)
            elif codec == "int8":
                rows = rng.integers(-127, 128, (t, dim), dtype=np.int8).view(np.uint8)
            elif codec == "int4":
                rows = (rng.integers(1, 16, (t, width)) | rng.integers(1, 16, (t, width)) << 4).astype(np.uint8)
            else:
                rows = rng.integers(0, 256, (t, width), dtype=np.uint8)
            scale = (rng.random(t) * 0.1).astype("<f2")
            self.addresses[i] = self.keep(rows.tobytes(), 1 + i % 3)
            self.scales[i] = self.keep(scale.tobytes(), 1 + i % 2)
            all_rows.append(rows.reshape(t, width))
            all_scales.append(scale)
            self.decoded.append(twin.decoded(rows.reshape(t, width), codec, dim, scale).astype(np.float64))
        self.rows, self.row_scales = np.concatenate(all_rows), np.concatenate(all_scales)

    def keep(self, content, shift):
        """Address of a copy between two pages that cannot be read: at the end, at the start, or odd."""
        size = -(-(len(content) + 8) // PAGE) * PAGE
        memory = mmap.mmap(-1, size + 2 * PAGE)
        start = np.frombuffer(memory, np.uint8).ctypes.data + PAGE
        at = start + {1: size - len(content), 2: 0, 3: 1}[shift]
        ctypes.memmove(at, content, len(content))
        if LIBC is not None:
            assert LIBC.mprotect(ctypes.c_void_p(start - PAGE), PAGE, 0) == 0
            assert LIBC.mprotect(ctypes.c_void_p(start + size), PAGE, 0) == 0
        self.memory.append(memory)
        return at

    def score(self, function, queries, **options):
        scales = None if self.codec in ("fp32", "fp16") else self.scales
        return function(queries, self.addresses, self.lengths, self.codec, self.dim, scales, **options)


def ragged_queries(rng, dim, lengths):
    return Ragged(rng.standard_normal((sum(lengths), dim)).astype(np.float32), offsets_of(lengths))


SHAPES = [
    (128, [32], [0, 1, 2, 3, 5, 13, 14, 15, 27, 28, 29, 57, 256]),
    (128, [20, 4], [0, 1, 5, 8, 9, 27, 64]),
    (128, [5], [1, 0, 28, 29, 57]),
    (128, [16, 1, 0, 7], [1, 0, 0, 100, 31]),
    (7, [3], [1, 9, 0, 40]),
    (20, [40], [6, 17, 33]),
    (64, [48, 5], [11, 1, 30]),
    (96, [1], [3, 64]),
    (320, [20, 20, 20], [19, 45]),
    (648, [33], [8, 21]),
    (2048, [70], [5, 37]),
]
WHOLE = {"int4": 2, "binary": 8}  # what the dimension must be a multiple of
PAIRS = [(codec, query) for query, codecs in native.PRECISIONS.items() for codec in codecs]


def check(rng, codec, query, dim, query_lengths, lengths):
    """Scores and winners of the default instruction set against fp64."""
    store, queries = Store(rng, codec, dim, lengths), ragged_queries(rng, dim, query_lengths)
    rounded = Ragged(twin.rounded(queries.values, query), queries.offsets) if query == "binary" else queries
    exact = [rounded.values.astype(np.float64) @ page.T for page in store.decoded]
    # what a similarity may be off by: half a step a component of an 8-bit query (63 steps without VNNI) or table
    norms = [np.abs(page).sum(axis=1).max(initial=0) * np.abs(queries.values).max(axis=1) for page in store.decoded]
    allowed = 0.5 / 63 if query == "int8" or (codec, query) == ("binary", "fp32") else 1e-6
    scores, winners = store.score(native.maxsim, queries, query=query, argmax=True)
    assert scores.shape == (len(queries), len(lengths)) and scores.dtype == np.float32
    for i, similarity in enumerate(exact):
        if not lengths[i]:
            assert (scores[:, i] == -np.inf).all() and (winners[i] == -1).all()
            continue
        best, slack = similarity.max(axis=1), allowed * norms[i]
        for q, (a, b) in enumerate(zip(queries.offsets, queries.offsets[1:], strict=False)):
            assert abs(scores[q, i] - best[a:b].sum()) <= slack[a:b].sum() + 1e-7
        chosen = np.take_along_axis(similarity, winners[i][:, None].astype(np.int64), axis=1)[:, 0]
        assert (best - chosen <= 2 * slack + 1e-7).all()
    assert (store.score(native.maxsim, queries, query=query) == scores).all()
    assert (store.score(native.maxsim, queries, query=query, threads=3) == scores).all()


@pytest.mark.parametrize("isa", [*SETS, "numpy"])
@pytest.mark.parametrize("codec, query", PAIRS)
@pytest.mark.parametrize("dim, query_lengths, lengths", SHAPES)
def test_scores_and_winners(isa, codec, query, dim, query_lengths, lengths, monkeypatch):
    if dim % WHOLE.get(codec, 1) == 0:
        monkeypatch.setenv("OCTAVO_KERNELS", isa)
        check(np.random.default_rng(dim), codec, query, dim, query_lengths, lengths)


@pytest.mark.parametrize("isa", SETS)
def test_odd_shapes(isa, monkeypatch):
    monkeypatch.setenv("OCTAVO_KERNELS", isa)
    rng = np.random.default_rng(3)
    for codec, query in PAIRS:
        for _ in range(8):
            dim = WHOLE.get(codec, 1) * int(rng.integers(1, 40))
            queries, pages = rng.integers(0, 40, rng.integers(1, 4)), rng.integers(0, 70, rng.integers(1, 9))
            check(rng, codec, query, dim, queries.tolist(), pages.tolist())


@pytest.mark.parametrize("isa", [*SETS, "numpy"])
def test_scan_is_the_sum_of_the_largest(isa, monkeypatch):
    monkeypatch.setenv("OCTAVO_KERNELS", isa)
    rng = np.random.default_rng(0)
    table = rng.integers(0, 256, (300, 32), dtype=np.uint8)
    lengths = [0, 1, 7, 8, 9, 31, 200, 0]
    codes, offsets = rng.integers(0, 300, sum(lengths), dtype=np.uint16), offsets_of(lengths)
    expected = [
        int(table[codes[a:b]].max(axis=0).sum()) if b > a else 0 for a, b in zip(offsets, offsets[1:], strict=False)
    ]
    assert native.scan(table, codes, offsets).tolist() == expected
    assert native.scan(table, codes, offsets, threads=2).tolist() == expected
    rows = np.array([5, 0, 5, 6])
    assert native.scan(table, codes, offsets, rows).tolist() == [expected[row] for row in rows]


@pytest.mark.parametrize("isa", [*SETS, "numpy"])
@pytest.mark.parametrize("dim, tokens, centroids", [(128, 24, 300), (128, 33, 17), (7, 1, 1), (20, 64, 40), (96, 8, 5)])
def test_tables_are_similarities_in_steps_from_the_mean_to_the_best(isa, dim, tokens, centroids, monkeypatch):
    monkeypatch.setenv("OCTAVO_KERNELS", isa)
    rng = np.random.default_rng(dim)
    query = rng.standard_normal((tokens, dim)).astype(np.float32)
    rows = rng.integers(-127, 128, (centroids, dim), dtype=np.int8)
    scales = (rng.random(centroids) * 0.1).astype("<f2")
    similarity = (rows * scales.astype(np.float64)[:, None]) @ query.T.astype(np.float64)
    high = similarity.max(axis=0)
    step = max((high - similarity.mean(axis=0)).max(), 1e-9) / 255
    found = native.tables(query, rows, scales)
    assert found.shape == (-(-tokens // 32), centroids, 32) and found.dtype == np.uint8
    joined = np.concatenate(list(found), axis=1)
    expected = np.clip((similarity - high) / step + 255, 0, 255)
    # six deviations of a difference where each component of the query is one of 63 steps either way, or more
    norm = np.linalg.norm(rows * scales.astype(np.float64)[:, None], axis=1).max()
    rounding = 6 * np.sqrt(2 / 12) * np.abs(query).max(axis=1) / 63 * norm / step
    assert (np.abs(joined[:, :tokens] - expected) <= 0.51 + (0 if isa == "numpy" else 1) * rounding).all()
    assert (joined[:, tokens:] == 0).all() and (joined[:, :tokens].max(axis=0) == 255).all()


@pytest.mark.parametrize("isa", [*SETS, "numpy"])
@pytest.mark.parametrize("dim", [1, 7, 128, 200, 2048])
@pytest.mark.parametrize("n, shortlist, best", [(0, 9, 9), (1, 5, 3), (90, 40, 7), (90, 40, 60), (90, 90, 90)])
def test_the_best_pages_of_a_scan_are_those_of_sums_and_means_together(isa, dim, n, shortlist, best, monkeypatch):
    monkeypatch.setenv("OCTAVO_KERNELS", isa)
    rng = np.random.default_rng(dim)
    vector, halves = rng.standard_normal(dim).astype(np.float32), rng.standard_normal((120, dim)).astype("<f2")
    sums = rng.integers(0, 30, n).astype(np.uint32)  # many of them alike
    for rows in (None, rng.permutation(120)[:n]):
        among = halves[:n] if rows is None else halves[rows]
        some = np.sort(np.argsort(-sums.astype(int), kind="stable")[:shortlist])
        products = among[some].astype(np.float64) @ vector.astype(np.float64)
        expected = twin.standardise(sums[some]) + 1.5 * twin.standardise(products)
        for threads in (1, 2):
            means = among if rows is None else halves
            places, scores = native.select(sums, vector, means, rows, shortlist, best, 1.5, threads)
            assert len(places) == len(scores) == min(n, shortlist, best)
            np.testing.assert_allclose(scores, np.sort(expected)[::-1][:best], atol=1e-4)
            np.testing.assert_allclose(scores, expected[np.searchsorted(some, places)], atol=1e-4)
            assert len(set(places.tolist())) == len(places) and np.isin(places, some).all()


@pytest.mark.parametrize("isa", [*SETS, "numpy"])
def test_equal_pages_of_a_scan_come_in_their_order(isa, monkeypatch):
    monkeypatch.setenv("OCTAVO_KERNELS", isa)
    sums, halves = np.array([3, 9, 3, 9, 3], np.uint32), np.ones((5, 8), "<f2")
    places, scores = native.select(sums, np.ones(8, np.float32), halves, None, 4, 3, 1.0)
    assert places.tolist() == [1, 3, 0] and scores[0] == scores[1] > scores[2]
    places, scores = native.select(sums[:1], np.ones(8, np.float32), halves[:1], None, 4, 3, 1.0)
    assert places.tolist() == [0] and scores.tolist() == [0]


@pytest.mark.parametrize("isa", [*SETS, "numpy"])
def test_pages_that_promise_little_are_not_scored(isa, monkeypatch):
    monkeypatch.setenv("OCTAVO_KERNELS", isa)
    rng = np.random.default_rng(1)
    store, queries = Store(rng, "int8", 32, [6] * 150 + [0] * 10), ragged_queries(rng, 32, [5])
    scores = store.score(native.maxsim, queries)[0]
    order = np.argsort(-scores, kind="stable")
    order = np.concatenate([order[:20], [155], order[20:-10]])  # one without tokens among the first
    store.addresses, store.lengths, store.scales = (a[order] for a in (store.addresses, store.lengths, store.scales))
    scores = scores[order]
    promise = np.where(np.isfinite(scores), scores, scores[19]) * 3 + rng.normal(0, 0.01, len(scores))
    found = store.score(native.maxsim, queries, promise=-np.sort(-promise), k=3)
    assert found.shape == (1, twin.RUN) and (found[0] == scores[: twin.RUN]).all()
    few = store.score(native.maxsim, queries, promise=-np.sort(-promise), k=twin.RUN)  # one more than have tokens
    assert few.shape == (1, 2 * twin.RUN)
    for nothing in (np.zeros(len(scores)), np.linspace(1, 0, len(scores)) * 1e-9 - np.arange(len(scores)) % 2):
        order = np.random.default_rng(2).permutation(len(scores))
        shuffled = [a[order] for a in (store.addresses, store.lengths, store.scales)]
        whole = native.maxsim(queries, *shuffled[:2], "int8", 32, shuffled[2], promise=nothing, k=3)
        assert whole.shape == (1, len(scores)) and (whole[0] == scores[order]).all()


def test_what_does_not_agree_is_refused():
    queries = Ragged(np.ones((2, 16), np.float32), np.array([0, 2]))
    page = np.ones((3, 16), np.float32)
    at, three = np.array([page.ctypes.data], np.uint64), np.array([3])
    assert native.maxsim(queries, at, three, "fp32", 16) == 32
    for arguments, wrong in [
        ((queries, at, three, "fp32", 8), "query tokens"),
        ((queries, at, three, "fp64", 16), "codec must be"),
        ((queries, at, three, "int8", 16), "scales"),
        ((queries, at, three, "fp32", 16, None, "int8"), "query must be"),
        ((queries, at, np.array([3, 3]), "fp32", 16), "one size"),
        ((queries, at, np.array([-3]), "fp32", 16), "negative"),
        ((queries, np.zeros(1, np.uint64), three, "fp32", 16), "address 0"),
    ]:
        with pytest.raises(ValueError, match=wrong):
            native.maxsim(*arguments)
    table, codes, offsets = np.zeros((4, 32), np.uint8), np.array([0, 4], np.uint16), np.array([0, 2])
    with pytest.raises(ValueError, match="outside of the table"):
        native.scan(table, codes, offsets)
    with pytest.raises(ValueError, match="rows must lie"):
        native.scan(table, codes, offsets, np.array([1]))
    sums, halves = np.ones(3, np.uint32), page.astype("<f2")
    with pytest.raises(ValueError, match="rows must lie"):
        native.select(sums[:1], page[0], halves, np.array([3]), 1, 1, 1.0)
    for wrong in [(sums, page[0], halves[:, :8]), (sums, page[0], halves[:2]), (sums[:2], page[0], halves)]:
        with pytest.raises(ValueError, match="do not agree"):
            native.select(*wrong, None, 1, 1, 1.0)
    for promise, k in [(np.ones(2), 1), (np.ones(1), 0)]:
        with pytest.raises(ValueError, match="promise needs one query"):
            native.maxsim(queries, at, three, "fp32", 16, promise=promise, k=k)
    with pytest.raises(ValueError, match="do not agree"):
        native.tables(page, page[:, :8].astype(np.int8), np.zeros(3, "<f2"))
    for offsets in ([0, 3], [2, 1], [-1, 1]):
        with pytest.raises(ValueError, match="offsets"):
            native.scan(np.zeros((5, 32), np.uint8), codes, np.array(offsets))


def test_doctor_says_what_runs_and_what_is_lost(monkeypatch):
    (found,) = doctor._kernels()
    assert (found.state, found.found.split()[2]) == ("ok", native.available()) if SETS else found.state == "warning"
    monkeypatch.setenv("OCTAVO_KERNELS", "numpy")
    (found,) = doctor._kernels()
    assert found.state == "warning" and "numpy" in found.found
    monkeypatch.delenv("OCTAVO_KERNELS")
    monkeypatch.setattr(native, "_SETS", [])
    monkeypatch.setattr(native, "_library", None)
    (found,) = doctor._kernels()
    assert found.state == "warning" and "compiler" in found.advice
    monkeypatch.setenv("OCTAVO_KERNELS", "abacus")
    assert native.available() is None  # nothing to choose from


@pytest.mark.skipif(not SETS, reason="nothing was compiled")
def test_an_instruction_set_that_is_not_here_is_refused(monkeypatch):
    queries, page = Ragged(np.ones((1, 4), np.float32), np.array([0, 1])), np.ones((1, 4), np.float32)
    at = np.array([page.ctypes.data], np.uint64)
    with pytest.raises(ValueError, match="no kernels for 'abacus'"):
        native.maxsim(queries, at, np.array([1]), "fp32", 4, isa="abacus")
    monkeypatch.setenv("OCTAVO_KERNELS", "abacus")
    with pytest.raises(ValueError, match="OCTAVO_KERNELS=abacus"):
        native.available()


NEON_DRIVER = r"""
#include <cstdint>
#include <cstdio>
#include <vector>
extern "C" int32_t octavo_maxsim(int32_t, int32_t, int32_t, int32_t, const float *, const int64_t *, int64_t, int64_t,
    const uint64_t *, const int64_t *, const uint64_t *, int64_t, float *, int32_t *, const float *, int64_t, int64_t,
    double, int64_t *);
extern "C" const char *octavo_set(int32_t);
int main() {
    int64_t head[7];  // codec, precision, dim, tokens, pages, rows, bytes of a row
    while (fread(head, 8, 7, stdin) == 7) {
        const int64_t offsets[2] = {0, head[3]};
        std::vector<float> query(head[3] * head[2]), scores(head[4]);
        std::vector<int64_t> lengths(head[4]);
        std::vector<uint8_t> rows(head[5] * head[6] + 1), scales(head[5] * 2 + 1);
        std::vector<uint64_t> at, scale_at;
        std::vector<int32_t> winners(head[4] * head[3]);
        if (fread(query.data(), 4, query.size(), stdin) != query.size()) return 1;
        if (fread(lengths.data(), 8, lengths.size(), stdin) != lengths.size()) return 1;
        if (fread(rows.data() + 1, 1, rows.size() - 1, stdin) != rows.size() - 1) return 1;
        if (fread(scales.data() + 1, 1, scales.size() - 1, stdin) != scales.size() - 1) return 1;
        int64_t row = 0;
        for (int64_t t : lengths) {
            at.push_back((uint64_t)(rows.data() + 1 + row * head[6]));
            scale_at.push_back((uint64_t)(scales.data() + 1 + row * 2));
            row += t;
        }
        int32_t set = 0;
        int64_t scored = 0;
        while (octavo_set(set + 1)) set++;
        if (octavo_maxsim(set, head[0], head[1], 2, query.data(), offsets, 1, head[2], at.data(), lengths.data(),
                          head[0] > 1 ? scale_at.data() : nullptr, head[4], scores.data(), winners.data(), nullptr, 1,
                          1, 0, &scored)) return 2;
        fwrite(scores.data(), 4, scores.size(), stdout);
        fwrite(winners.data(), 4, winners.size(), stdout);
    }
}
"""


@pytest.mark.slow
def test_neon_is_compiled_and_run_where_there_is_a_cross_compiler(tmp_path):
    compiler, emulator = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
    if not compiler:
        pytest.skip("no aarch64-linux-gnu-g++ (apt install g++-aarch64-linux-gnu, and qemu-user to run what it makes)")
    (tmp_path / "driver.cpp").write_text(NEON_DRIVER)
    sources = [SOURCES / f"{name}.cpp" for name in ("library", "neon", "portable")]
    command = [
        compiler,
        "-std=c++17",
        "-O1",
        "-w",
        "-pthread",
        tmp_path / "driver.cpp",
        *sources,
        "-o",
        tmp_path / "run",
    ]
    subprocess.run(command, check=True, timeout=300)
    if not emulator:
        pytest.skip("compiled, but there is no qemu-aarch64 to run it (apt install qemu-user)")
    rng = np.random.default_rng(0)
    cases, content = [], b""
    for codec, query in PAIRS:
        for dim, tokens, lengths in [(128, 9, [0, 1, 5, 40]), (24, 4, [13, 2])]:
            store, queries = Store(rng, codec, dim, lengths), ragged_queries(rng, dim, [tokens])
            width, total = twin.row_bytes(codec, dim), sum(lengths)
            head = [
                native.CODECS.index(codec),
                list(native.PRECISIONS).index(query),
                dim,
                tokens,
                len(lengths),
                total,
                width,
            ]
            content += np.array(head, np.int64).tobytes() + queries.values.tobytes() + store.lengths.tobytes()
            content += store.rows.tobytes() + store.row_scales.tobytes()
            cases.append((store, queries, query))
    command = [emulator, "-L", "/usr/aarch64-linux-gnu", tmp_path / "run"]
    out = subprocess.run(command, input=content, stdout=subprocess.PIPE, check=True, timeout=300).stdout
    for store, queries, query in cases:
        n, m = len(store.lengths), len(queries.values)
        got, winners = np.frombuffer(out, np.float32, n), np.frombuffer(out, np.int32, n * m, 4 * n).reshape(n, m)
        out = out[4 * n * (1 + m) :]
        scores, expected = store.score(twin.maxsim, queries, query=query, argmax=True)
        assert got == pytest.approx(scores[0], rel=1e-5), (store.codec, query)
        assert (winners == expected).mean() > 0.97, (store.codec, query)
    assert not out
