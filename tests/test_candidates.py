"""The first stages: against numpy, no -1 that leaks, ties, filters, drift, the cache file, which is chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import DIM, add, asked, content_of, dump, filled, page_of, vectors_of, visual_search

from index import Index, cache, candidates, centroids, pooled, rows, store
from index.candidates import EXACT_TOKENS, Exact, Queries, choose, depth
from index.codec import decode, encode
from index.native.twin import standardise
from index.pooled import Pooled
from index.pooling import pool_mean, pool_rows
from index.ragged import Codes, Ragged, offsets_of
from index.rows import ROWS, Rows
from index.scan import MEAN_WEIGHT, Scan

NAME = bytes(range(16))
KINDS = ("pooled", "codes", "rows")
REAL = Path(__file__).parent / "data" / "tokens.npz"


def pooled_of(n: int, first: int = 1) -> tuple[Pooled, np.ndarray, np.ndarray]:
    """n pages of random vectors in half precision, and what they are."""
    vectors = vectors_of("pooled", n, n).astype(np.float16).astype(np.float32)
    ids = np.arange(first, first + 3 * n, 3, dtype=np.int64)
    stage = Pooled(DIM)
    stage.add(vectors, ids)
    return stage, vectors, ids


def single(vectors: np.ndarray) -> Queries:
    """Queries (b, D) of one token each."""
    return Queries(Ragged.of(list(vectors[:, None])), vectors)


class Store:
    """Pages by id, as a stage asks for them; `asked` are the ids that it did ask for."""

    def __init__(self, pages: dict[int, np.ndarray]) -> None:
        self.pages, self.asked = pages, []

    @property
    def ids(self) -> np.ndarray:
        return np.array(sorted(self.pages), np.int64)

    def pooled(self, ids: np.ndarray) -> np.ndarray:
        self.asked += ids.tolist()
        return np.stack([pool_mean(self.pages[page]) for page in ids.tolist()])

    def vectors(self, ids: np.ndarray) -> Ragged:
        self.asked += ids.tolist()
        return Ragged.of([self.pages[page] for page in ids.tolist()], DIM)


def best(scores: np.ndarray, ids: np.ndarray, n: int) -> list[int]:
    return [int(ids[i]) for i in np.lexsort((ids, -scores))[:n]]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(0, 40), st.integers(1, 60), st.sets(st.integers(0, 130)) | st.none())
def test_the_pooled_stage_is_a_numpy_scan(pages: int, n: int, allow: set[int] | None) -> None:
    stage, vectors, ids = pooled_of(pages)
    queries = vectors_of("query", 1, 3)
    allowed = None if allow is None else np.array(sorted(allow), np.int64)
    found = stage.search(single(queries), n, allowed)
    assert len(found) == 3
    keep = np.ones(pages, bool) if allowed is None else np.isin(ids, allowed)
    for query, (scores, got) in zip(queries, found, strict=True):
        exact = vectors[keep] @ query
        assert got.tolist() == best(exact, ids[keep], n)
        assert (got >= 0).all() and len(got) == min(n, int(keep.sum()))
        np.testing.assert_allclose(scores, np.sort(exact)[::-1][: len(got)], atol=1e-3)


def test_no_filler_of_faiss_leaks(tmp_path: Path) -> None:
    stage, _, _ = pooled_of(3)
    for queries in (np.full((1, DIM), np.nan, np.float32), np.zeros((1, DIM), np.float32)):
        ((scores, ids),) = stage.search(single(queries), 10)
        assert (ids >= 0).all() and np.isfinite(scores).all()
    ((scores, ids),) = stage.search(single(vectors_of("q", 1, 1)), 10, np.array([10**9], np.int64))
    assert (len(scores), len(ids)) == (0, 0)
    ((_, ids),) = stage.search(single(vectors_of("q", 1, 1)), 10, np.zeros(0, np.int64))
    assert len(ids) == 0
    assert Pooled(DIM).search(single(vectors_of("q", 1, 2)), 5)[1][1].shape == (0,)


def test_equal_scores_come_in_the_order_of_their_ids() -> None:
    stage = Pooled(DIM)
    ids = np.array([9, 3, 7, 1, 5], np.int64)
    stage.add(np.repeat(vectors_of("same", 1, 1), 5, axis=0), ids)
    ((scores, found),) = stage.search(single(vectors_of("same", 1, 1)), 5)
    assert found.tolist() == [1, 3, 5, 7, 9]
    assert len(set(scores.tolist())) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_update_holds_just_the_ids_and_asks_for_the_missing_only(kind: str) -> None:
    source = Store({page: vectors_of("page", page, 20) for page in range(1, 31)})
    stage = candidates.empty(kind, DIM, DIM)
    assert stage.update(source.ids, source)
    twin, source.asked = stage.copy(), []
    for page in range(1, 11):
        del source.pages[page]
    source.pages[40] = vectors_of("page", 40, 20)
    source.pages[0] = vectors_of("page", 0, 0)
    assert stage.update(source.ids, source)
    assert source.asked == [0, 40]
    assert not stage.update(source.ids, source)
    for held, expected in ((stage, source.ids.tolist()), (twin, list(range(1, 31)))):  # a copy is untouched
        assert sorted(held.search(asked(vectors_of("q", 1, 3)), 99)[0][1].tolist()) == expected
    fresh = candidates.empty(kind, DIM, DIM)
    fresh.update(source.ids, source)
    stage.remove(np.array([40, 99]))
    assert 40 not in stage.search(asked(vectors_of("q", 1, 3)), 99)[0][1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_cache_comes_back_bit_for_bit(tmp_path: Path, kind: str) -> None:
    source = Store({page: vectors_of("page", page, 9) for page in range(1, 9)})
    stage = candidates.empty(kind, DIM, DIM)
    for pages in (source, Store({})):
        stage.update(pages.ids, pages)
        cache.save(tmp_path, kind, NAME, *stage.state())
        again = candidates.restored(kind, tmp_path, NAME, DIM, DIM)
        assert again is not None
        assert again.state()[0] == stage.state()[0]
        for name, array in stage.state()[1].items():
            np.testing.assert_array_equal(again.state()[1][name], array)
        assert [path.name for path in (tmp_path / "cache").iterdir()] == [f"{kind}.cache"]
        assert candidates.restored(kind, tmp_path, bytes(16), DIM, DIM) is None  # of another index
        assert candidates.restored(kind, tmp_path, NAME, DIM + 1, DIM + 1) is None
        assert candidates.restored(kind, tmp_path / "nothing", NAME, DIM, DIM) is None


LIES = {
    "codes": [
        ("codes", lambda codes: codes + np.uint16(16)),
        ("offsets", lambda offsets: offsets + 1),
        ("ids", lambda ids: ids[::-1]),
        ("centroids", lambda centroids: centroids[:, 1:]),
    ],
    "rows": [
        ("rows", lambda rows: rows[:, 1:]),
        ("rows", lambda rows: rows.astype(np.float16)),
        ("scales", lambda scales: np.full_like(scales, np.inf)),
        ("offsets", lambda offsets: offsets[:-1]),
        ("ids", lambda ids: ids[::-1]),
    ],
}


@pytest.mark.parametrize("kind", LIES)
def test_a_cache_that_was_made_up_is_not_believed(tmp_path: Path, kind: str) -> None:
    source = Store({page: vectors_of("page", page, 9) for page in range(1, 9)})
    stage = candidates.empty(kind, DIM, DIM)
    stage.update(source.ids, source)
    record, arrays = stage.state()
    for name, lie in LIES[kind]:
        cache.save(tmp_path, kind, NAME, record, arrays | {name: lie(arrays[name])})
        assert candidates.restored(kind, tmp_path, NAME, DIM, DIM) is None, name
        cache.save(tmp_path, kind, NAME, record, {k: v for k, v in arrays.items() if k != name})
        assert candidates.restored(kind, tmp_path, NAME, DIM, DIM) is None, name
    assert bool(record) == (kind == "codes")  # rows have nothing beside their arrays
    if record:
        cache.save(tmp_path, kind, NAME, {}, arrays)
        assert candidates.restored(kind, tmp_path, NAME, DIM, DIM) is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_of_a_cache_costs_nothing_but_time(tmp_path: Path, kind: str) -> None:
    index = filled(tmp_path, "abc", 2, stage=kind)
    with index.snapshot() as snapshot:
        expected = visual_search(snapshot, vectors_of("b", 1, 3))
    index.close()
    path = tmp_path / "cache" / f"{kind}.cache"
    whole = path.read_bytes()
    for place in (0, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert candidates.restored(kind, tmp_path, index.layout.index, DIM, DIM) is None
        again = Index(tmp_path)
        with again.snapshot() as snapshot:
            assert visual_search(snapshot, vectors_of("b", 1, 3)) == expected
        again.close()


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    st.lists(st.integers(0, 90), min_size=1, max_size=12), st.integers(1, 15), st.sets(st.integers(0, 40)) | st.none()
)
def test_rows_are_maxsim_with_means_of_like_tokens(lengths: list[int], n: int, allow: set[int] | None) -> None:
    source = Store({3 * i: vectors_of("rows", i + 1, t) for i, t in enumerate(lengths)})
    stage = Rows(DIM)
    stage.update(source.ids, source)
    queries = Ragged.of([vectors_of("query", 1, 5), vectors_of("query", 2, 1)])
    allowed = None if allow is None else np.array(sorted(allow), np.int64)
    expected = []
    for tokens in source.pages.values():
        kept = pool_rows(tokens, ROWS)
        assert len(kept) <= min(ROWS, len(tokens)) and (len(kept) > 0) == (len(tokens) > 0)
        values, scales = encode(kept, "int8")
        kept = decode(Codes(values, offsets_of([len(values)]), "int8", scales))
        expected.append([float((q @ kept.T).max(axis=1).sum()) if len(kept) else -np.inf for q in queries])
    scores_of = dict(zip(source.pages, expected, strict=True))
    among = [page for page in source.pages if allow is None or page in allow]
    for i, (scores, ids) in enumerate(stage.search(Queries(queries, np.zeros((2, DIM), np.float32)), n, allowed)):
        assert len(ids) == min(n, len(among)) and set(ids.tolist()) <= set(among)
        np.testing.assert_allclose(scores, [scores_of[page][i] for page in ids.tolist()], atol=0.03)
        np.testing.assert_allclose(scores, sorted((scores_of[page][i] for page in among), reverse=True)[:n], atol=0.03)


def test_rows_of_real_pages_hold_the_best_and_runs_of_tokens_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """23 pages of 100 tokens of octavo-box-1, of which six rows are kept: the five best within the first ten."""
    with np.load(REAL) as real:
        pages = Ragged(real["pages"].astype(np.float32), offsets_of(real["lengths"]))
        queries = Ragged(real["queries"].astype(np.float32), offsets_of(real["query_lengths"]))
    monkeypatch.setattr(rows, "ROWS", 6)
    source, stage = Store(dict(enumerate(pages))), Rows(128)
    stage.update(source.ids, source)
    assert len(stage.rows) <= 6 * 23 and stage.rows.nbytes <= pages.values.shape[0] * 128 / 16
    exact = [np.array([(q @ page.T).max(axis=1).sum() for page in pages]) for q in queries]
    found = stage.search(Queries(queries, np.zeros((len(queries), 128), np.float32)), 10)
    within = [np.isin(np.argsort(-s)[:5], ids).mean() for s, (_, ids) in zip(exact, found, strict=True)]
    runs = [np.stack([part.mean(axis=0) for part in np.array_split(page, 6)]) for page in pages]
    plain = [np.argsort([-(q @ run.T).max(axis=1).sum() for run in runs])[:10] for q in queries]
    lost = [np.isin(np.argsort(-s)[:5], ids).mean() for s, ids in zip(exact, plain, strict=True)]
    assert np.mean(within) > 0.9 and np.mean(within) > np.mean(lost)


def test_many_pooled_vectors_are_quantised_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooled, "_SAMPLE", 1000)
    rng = np.random.default_rng(5)
    pages = rng.standard_normal((3000, 64)).astype(np.float16).astype(np.float32)
    stage, ids = Pooled(64), np.arange(0, 9000, 3)
    stage.add(pages[:2500], ids[:2500])
    queries = single(pages[7:20] + rng.standard_normal((13, 64)).astype(np.float32))
    whole = stage.search(queries, 10)
    monkeypatch.setattr(pooled, "FAST", 2000)
    found = stage.search(queries, 10)
    assert np.mean([np.isin(a[1], b[1]).mean() for a, b in zip(whole, found, strict=True)]) > 0.95
    assert all(a[1][0] == b[1][0] and a[0][0] == pytest.approx(b[0][0]) for a, b in zip(whole, found, strict=True))
    twin = stage.copy()
    stage.add(pages[2500:], ids[2500:])
    stage.remove(ids[7:20])
    for held, some in ((stage, np.delete(ids, range(7, 20))), (twin, ids[:2500])):
        for (scores, got), query in zip(held.search(queries, 10), queries.singles, strict=True):
            np.testing.assert_allclose(scores, pages[got // 3] @ query, atol=1e-3)
            assert np.isin(got, some).all() and len(got) == 10
    late = stage.search(single(pages[2999:]), 1)[0][1]
    assert late.tolist() == [8997]
    stage.remove(ids[20:1000])  # so many that it is made anew
    assert stage.search(single(pages[1500:1501]), 1)[0][1].tolist() == [4500]
    assert sorted(stage.search(queries, 5, ids[1200:1203])[0][1].tolist()) == ids[1200:1203].tolist()


def in_topics(rng: np.random.Generator, topics: np.ndarray, pages: range) -> dict[int, np.ndarray]:
    """Pages of 40 tokens, each near one of the topics (k, DIM) that its page has four of."""
    made = {}
    for page in pages:
        tokens = topics[rng.choice(rng.choice(len(topics), 4), 40)] + 0.15 * rng.standard_normal((40, DIM))
        made[page] = (tokens / np.linalg.norm(tokens, axis=1, keepdims=True)).astype(np.float32)
    return made


def codes_score(query: np.ndarray, stage: Scan, row: int) -> float:
    """MaxSim of a query with a page's centroids."""
    kept = stage.codes[stage.offsets[row] : stage.offsets[row + 1]]
    return float((query @ stage.centroids[kept].T).max(axis=1).sum())


def test_the_scan_of_codes_finds_what_exact_scores_find() -> None:
    rng = np.random.default_rng(3)
    topics = rng.standard_normal((200, DIM))
    topics /= np.linalg.norm(topics, axis=1, keepdims=True)
    source = Store(in_topics(rng, topics, range(400)))
    stage = Scan(DIM)
    stage.update(source.ids, source)
    assert len(stage.centroids) == centroids.count(400 * 40) == 512
    np.testing.assert_allclose(np.linalg.norm(stage.centroids, axis=1), 1, atol=1e-5)
    even, within = np.arange(0, 400, 2), []
    for seed in range(20):
        page = 2 * seed
        query = source.pages[page][rng.choice(40, 40 if seed else 5)] * rng.uniform(0.5, 2, (40 if seed else 5, 1))
        exact = {n: float((query @ v.T).max(axis=1).sum()) for n, v in source.pages.items() if n % 2 == 0}
        top = sorted(exact, key=lambda n: -exact[n])[:10]
        (scores, found), *_ = stage.search(Queries(Ragged.of([query.astype(np.float32)]), np.zeros((1, DIM))), 30, even)
        assert set(found.tolist()) <= set(even.tolist()) and found[0] == page
        assert (np.diff(scores) <= 0).all()
        within.append(np.isin(top, found).mean())
        codes, _ = centroids.assign(source.pages[page], stage.centroids)
        kept = stage.codes[stage.offsets[page] : stage.offsets[page + 1]]
        assert kept.tolist() == sorted(set(codes.tolist()))
        approximate = np.array([codes_score(query, stage, row) for row in even])
        means = np.stack([pool_mean(source.pages[n]) for n in even.tolist()]) @ query.sum(axis=0)
        fused = standardise(approximate) + MEAN_WEIGHT * standardise(means)
        assert scores == pytest.approx(np.sort(fused)[::-1][:30], rel=0.02, abs=0.05)
    assert np.mean(within) > 0.8


def test_centroids_are_trained_anew_when_other_tokens_come() -> None:
    rng = np.random.default_rng(4)
    topics = np.eye(DIM, dtype=np.float32)
    source = Store(in_topics(rng, topics[: DIM // 2], range(200)))
    stage = Scan(DIM)
    stage.update(source.ids, source)
    before = stage.centroids
    source.pages |= in_topics(rng, topics[: DIM // 2], range(200, 220))
    stage.update(source.ids, source)
    assert stage.centroids is before  # more of the same
    source.pages |= in_topics(rng, topics[DIM // 2 :], range(220, 300))
    stage.update(source.ids, source)
    assert stage.centroids is not before
    codes, products = centroids.assign(source.pages[299], stage.centroids)
    assert 1 - products.mean() < 1.5 * stage.distance
    assert stage.tokens == 300 * 40


def test_exact_is_every_page_or_those_allowed() -> None:
    stage = Exact(np.array([2, 4, 6], np.int64))
    queries = single(np.zeros((2, DIM), np.float32))
    assert [ids.tolist() for _, ids in stage.search(queries, 1)] == [[2, 4, 6]] * 2
    assert stage.search(queries, 1, np.array([1, 4, 6, 9]))[0][1].tolist() == [4, 6]


def test_small_corpora_are_exact() -> None:
    assert choose(EXACT_TOKENS - 1, "auto") == "exact"
    assert choose(EXACT_TOKENS, "auto") == "codes"
    assert choose(10**9, "exact") == "exact"
    assert choose(1, "pooled") == "pooled"
    assert candidates.rule("auto") == "exact below 1,000,000 tokens, codes from there on"
    assert candidates.rule("codes") == "chosen for this index"


def test_more_pages_have_more_candidates() -> None:
    assert [depth(pages) for pages in (0, 10, 100_000, 200_000, 10**6, 10**8)] == [150, 150, 150, 238, 696, 15000]


def test_a_corpus_that_grows_goes_over_to_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "EXACT_TOKENS", 40)
    index = filled(tmp_path, "abc", 2)
    with index.snapshot() as snapshot:
        assert (snapshot.stage, snapshot.first_stage.kind) == ("exact", "exact")
    with index.writing() as writer:
        add(writer, "d", 4)
    with index.snapshot() as snapshot:
        assert (snapshot.stage, snapshot.first_stage.kind) == ("codes", "codes")
        assert visual_search(snapshot, vectors_of("d", 3, 2))[0][:2] == (content_of("d"), 3)
    assert (tmp_path / "cache" / "codes.cache").exists()
    index.close()


@pytest.mark.parametrize("kind", KINDS)
def test_an_old_cache_is_brought_up_to_date(tmp_path: Path, kind: str) -> None:
    index = filled(tmp_path, "abc", 2, stage=kind)
    old = (tmp_path / "cache" / f"{kind}.cache").read_bytes()
    with index.writing() as writer:
        writer.delete([row["id"] for row in [writer.document(content_of("a"))] if row])
        add(writer, "d", 2)
    with index.snapshot() as snapshot:
        expected = visual_search(snapshot, vectors_of("d", 1, 3))
    index.close()
    (tmp_path / "cache" / f"{kind}.cache").write_bytes(old)
    index = Index(tmp_path)
    with index.snapshot() as snapshot:
        assert visual_search(snapshot, vectors_of("d", 1, 3)) == expected
        assert set(snapshot.first_stage.search(single(vectors_of("q", 1, 1)), 99)[0][1].tolist()) == set(
            snapshot.state.ids.tolist()
        )
    index.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_page_is_not_kept_in_the_cache_as_nothing(tmp_path: Path, kind: str) -> None:
    index = filled(tmp_path, "ab", 2, stage=kind)
    whole = dump(index)
    index.close()
    (tmp_path / "cache" / f"{kind}.cache").unlink()
    _, path = next(store.shard_files(tmp_path))
    clean = path.read_bytes()
    path.write_bytes(clean[:140] + bytes([clean[140] ^ 1]) + clean[141:])
    index = Index(tmp_path)
    with index.writing() as writer:
        add(writer, "c", 1)
    index.close()
    path.write_bytes(clean + path.read_bytes()[len(clean) :])  # restored from a backup
    index = Index(tmp_path)
    with index.snapshot() as snapshot:
        hits = visual_search(snapshot, vectors_of("a", 1, 5))
        assert hits[0][:2] == (content_of("a"), 1)
        assert len(hits) == 5
    assert [page for page in dump(index) if page["content"] != content_of("c")] == whole
    index.close()


@pytest.mark.parametrize("kind", KINDS)
def test_duplicates_tie_in_the_order_of_document_and_page(tmp_path: Path, kind: str) -> None:
    index = filled(tmp_path, "", stage=kind)
    same = page_of("same", 1)
    records = [type(same)(n, same.vectors, same.token_boxes, same.text, same.word_boxes) for n in (1, 2, 3)]
    with index.writing() as writer:
        for name in ("zz", "a", "m"):
            add(writer, name, records)
    with index.snapshot() as snapshot:
        ids = snapshot.first_stage.search(asked(same.vectors), 100)[0][1]
        rows = snapshot.pages(ids.tolist())
        order = ids[np.argsort(snapshot.rank(ids))]
        found = [(rows[page]["content"], rows[page]["number"]) for page in order.tolist()]
    assert found == sorted((content_of(name), n) for name in ("zz", "a", "m") for n in (1, 2, 3))
    index.close()


@pytest.mark.parametrize("tokens", [0, 1, 7])
def test_the_pooled_vector_is_the_normalised_mean(tokens: int) -> None:
    vectors = vectors_of("pool", 1, tokens) * 3
    pooled = pool_mean(vectors)
    if not tokens:
        assert pooled.tolist() == [0.0] * DIM
    else:
        mean = vectors.astype(np.float64).mean(axis=0)
        np.testing.assert_allclose(pooled, mean / np.linalg.norm(mean), atol=1e-6)
    assert pool_mean(np.array([[1, 0], [-1, 0]], np.float32)).tolist() == [0.0, 0.0]
