"""The first stage: FAISS against numpy, -1 that never leaks, ties, filters, the cache file, and when it is exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import DIM, add, content_of, dump, filled, page_of, vectors_of, visual_search

from index import Index, candidates, store
from index.candidates import EXACT_TOKENS, Exact, Pooled, choose
from index.pooling import pool_mean

NAME = bytes(range(16))


def pooled_of(n: int, first: int = 1) -> tuple[Pooled, np.ndarray, np.ndarray]:
    """n pages of random vectors in half precision, and what they are."""
    vectors = vectors_of("pooled", n, n).astype(np.float16).astype(np.float32)
    ids = np.arange(first, first + 3 * n, 3, dtype=np.int64)
    stage = Pooled(DIM)
    stage.add(vectors, ids)
    return stage, vectors, ids


def best(scores: np.ndarray, ids: np.ndarray, n: int) -> list[int]:
    return [int(ids[i]) for i in np.lexsort((ids, -scores))[:n]]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(0, 40), st.integers(1, 60), st.sets(st.integers(0, 130)) | st.none())
def test_the_pooled_stage_is_a_numpy_scan(pages: int, n: int, allow: set[int] | None) -> None:
    stage, vectors, ids = pooled_of(pages)
    queries = vectors_of("query", 1, 3)
    allowed = None if allow is None else np.array(sorted(allow), np.int64)
    found = stage.search(queries, n, allowed)
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
        ((scores, ids),) = stage.search(queries, 10)
        assert (ids >= 0).all() and np.isfinite(scores).all()
    ((scores, ids),) = stage.search(vectors_of("q", 1, 1), 10, np.array([10**9], np.int64))
    assert (len(scores), len(ids)) == (0, 0)
    ((_, ids),) = stage.search(vectors_of("q", 1, 1), 10, np.zeros(0, np.int64))
    assert len(ids) == 0
    assert Pooled(DIM).search(vectors_of("q", 1, 2), 5)[1][1].shape == (0,)


def test_equal_scores_come_in_the_order_of_their_ids() -> None:
    stage = Pooled(DIM)
    ids = np.array([9, 3, 7, 1, 5], np.int64)
    stage.add(np.repeat(vectors_of("same", 1, 1), 5, axis=0), ids)
    ((scores, found),) = stage.search(vectors_of("same", 1, 1), 5)
    assert found.tolist() == [1, 3, 5, 7, 9]
    assert len(set(scores.tolist())) == 1


def test_update_holds_just_the_ids_and_asks_for_the_missing_only() -> None:
    stage, vectors, ids = pooled_of(10)
    asked: list[int] = []

    def vectors_for(missing: np.ndarray) -> np.ndarray:
        asked.extend(missing.tolist())
        return vectors_of("new", 1, len(missing))

    wanted = np.array([*ids[2:8].tolist(), 100, 101], np.int64)
    twin = stage.copy()
    assert stage.update(wanted, vectors_for)
    assert asked == [100, 101]
    assert sorted(stage.ids.tolist()) == sorted(wanted.tolist())
    assert not stage.update(wanted, vectors_for)
    held = dict(zip(stage.ids.tolist(), stage.vectors(), strict=True))
    for page, vector in zip(ids[2:8].tolist(), vectors[2:8], strict=True):
        np.testing.assert_array_equal(held[page], vector)
    assert twin.ids.tolist() == ids.tolist()  # a copy is untouched


def test_a_saved_cache_comes_back_bit_for_bit(tmp_path: Path) -> None:
    stage, vectors, ids = pooled_of(7)
    candidates.save(stage, tmp_path / "cache", NAME, 5)
    again = candidates.load(tmp_path / "cache", NAME, DIM)
    assert again is not None
    np.testing.assert_array_equal(again.vectors(), vectors)
    assert again.ids.tolist() == ids.tolist()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [candidates.FILE]
    assert candidates.load(tmp_path / "cache", bytes(16), DIM) is None  # of another index
    assert candidates.load(tmp_path / "cache", NAME, DIM + 1) is None
    assert candidates.load(tmp_path / "nothing", NAME, DIM) is None
    candidates.save(Pooled(DIM), tmp_path / "cache", NAME, 6)
    empty = candidates.load(tmp_path / "cache", NAME, DIM)
    assert empty is not None and len(empty.ids) == 0


def test_exact_is_every_page_or_those_allowed() -> None:
    stage = Exact(np.array([2, 4, 6], np.int64))
    queries = np.zeros((2, DIM), np.float32)
    assert [ids.tolist() for _, ids in stage.search(queries, 1)] == [[2, 4, 6]] * 2
    assert stage.search(queries, 1, np.array([1, 4, 6, 9]))[0][1].tolist() == [4, 6]


def test_small_corpora_are_exact() -> None:
    assert choose(EXACT_TOKENS - 1, "auto") == "exact"
    assert choose(EXACT_TOKENS, "auto") == "pooled"
    assert choose(10**9, "exact") == "exact"
    assert choose(1, "pooled") == "pooled"


def test_a_corpus_that_grows_goes_over_to_the_pooled_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "EXACT_TOKENS", 40)
    index = filled(tmp_path, "abc", 2)
    with index.snapshot() as snapshot:
        assert (snapshot.stage, snapshot.first_stage.kind) == ("exact", "exact")
    with index.writing() as writer:
        add(writer, "d", 4)
    with index.snapshot() as snapshot:
        assert (snapshot.stage, snapshot.first_stage.kind) == ("pooled", "pooled")
        assert visual_search(snapshot, vectors_of("d", 3, 2))[0][:2] == (content_of("d"), 3)
    assert (tmp_path / "cache" / candidates.FILE).exists()
    index.close()


def test_an_old_cache_is_brought_up_to_date(tmp_path: Path) -> None:
    index = filled(tmp_path, "abc", 2, stage="pooled")
    old = (tmp_path / "cache" / candidates.FILE).read_bytes()
    with index.writing() as writer:
        writer.delete([row["id"] for row in [writer.document(content_of("a"))] if row])
        add(writer, "d", 2)
    with index.snapshot() as snapshot:
        expected = visual_search(snapshot, vectors_of("d", 1, 3))
    index.close()
    (tmp_path / "cache" / candidates.FILE).write_bytes(old)
    index = Index(tmp_path)
    with index.snapshot() as snapshot:
        assert visual_search(snapshot, vectors_of("d", 1, 3)) == expected
        assert set(snapshot.first_stage.search(vectors_of("q", 1, 1), 99)[0][1].tolist()) == set(
            snapshot.state.ids.tolist()
        )
    index.close()


def test_a_damaged_page_is_not_kept_in_the_cache_as_zeros(tmp_path: Path) -> None:
    index = filled(tmp_path, "ab", 2, stage="pooled")
    whole = dump(index)
    index.close()
    (tmp_path / "cache" / candidates.FILE).unlink()
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


def test_duplicates_tie_in_the_order_of_document_and_page(tmp_path: Path) -> None:
    index = filled(tmp_path, "", stage="pooled")
    same = page_of("same", 1)
    records = [type(same)(n, same.vectors, same.token_boxes, same.text, same.word_boxes) for n in (1, 2, 3)]
    with index.writing() as writer:
        for name in ("zz", "a", "m"):
            add(writer, name, records)
    with index.snapshot() as snapshot:
        ids = snapshot.first_stage.search(pool_mean(same.vectors)[None], 100)[0][1]
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
