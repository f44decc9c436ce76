"""Token pooling: which tokens are merged, what stands for them, and that a heat map still finds every one of them."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from pages import DIM, content_of, dump, filled, page_of

from index import PageRecord, catalog, upkeep
from index.pooling import WARD_TOKENS, pool_mean, pool_rows, pool_tokens
from retriever import documents
from retriever.explain import heat, token_weights


def bundles(groups: int, each: int, dim: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Tokens that lie close to `groups` far directions, mixed, and the group of each."""
    rng = np.random.default_rng(seed)
    centres = np.linalg.qr(rng.standard_normal((dim, dim)))[0][:groups]
    group = rng.permutation(np.repeat(np.arange(groups), each))
    return (centres[group] + 0.02 * rng.standard_normal((len(group), dim))).astype(np.float32), group


def test_tokens_that_are_alike_share_a_vector_and_others_do_not() -> None:
    vectors, group = bundles(6, 5)
    pooled, clusters = pool_tokens(vectors, 6)
    assert pooled.shape == (6, 32)
    assert all(len(set(clusters[group == g].tolist())) == 1 for g in range(6))
    for cluster in range(6):
        members = vectors[clusters == cluster]
        mean = members.mean(axis=0)
        expected = mean / np.linalg.norm(mean) * np.linalg.norm(members, axis=1).mean()
        np.testing.assert_allclose(pooled[cluster], expected, atol=1e-6)
    firsts = [int(np.flatnonzero(clusters == cluster)[0]) for cluster in range(6)]
    assert firsts == sorted(firsts)


def test_rows_are_the_means_of_tokens_that_are_alike() -> None:
    vectors, group = bundles(6, 40, seed=1)
    rows = pool_rows(vectors, 12)
    assert 6 <= len(rows) <= 12
    means = np.stack([vectors[group == g].mean(axis=0) for g in range(6)])
    np.testing.assert_allclose((means @ rows.T).max(axis=1), 1.0, atol=0.02)  # every bundle has a row
    np.testing.assert_allclose((rows @ means.T).max(axis=1), 1.0, atol=0.02)  # and no row is between two
    assert pool_rows(vectors[:12], 12).tolist() == vectors[:12].tolist()
    assert np.isfinite(pool_rows(np.zeros((50, 4), np.float32), 3)).all() and pool_rows(vectors[:0], 3).shape == (0, 32)


def test_merging_is_wards() -> None:
    """Of four points on a line, at each step the two clusters whose merging adds least to the squares within."""
    vectors = np.array([[0.0], [1.0], [2.5], [10.0]], np.float32)
    assert pool_tokens(vectors, 3)[1].tolist() == [0, 0, 1, 2]
    assert pool_tokens(vectors, 2)[1].tolist() == [0, 0, 0, 1]
    assert pool_tokens(vectors, 1)[1].tolist() == [0, 0, 0, 0]
    pooled, clusters = pool_tokens(vectors, 4)
    assert clusters.tolist() == [0, 1, 2, 3] and pooled is vectors


def test_odd_pages() -> None:
    empty, clusters = pool_tokens(np.zeros((0, 4), np.float32), 0)
    assert empty.shape == (0, 4) and clusters.tolist() == []
    same, clusters = pool_tokens(np.ones((9, 4), np.float32), 3)
    assert 1 <= len(same) <= 3 and np.isfinite(same).all() and clusters.max() == len(same) - 1
    opposite, _ = pool_tokens(np.array([[1.0, 0], [-1.0, 0]], np.float32), 1)
    assert opposite.tolist() == [[0, 0]]


@pytest.mark.parametrize("tokens", [WARD_TOKENS + 1, 2 * WARD_TOKENS, 5000])
def test_long_pages_are_pooled_in_parts(tokens: int) -> None:
    vectors = np.random.default_rng(1).standard_normal((tokens, 8)).astype(np.float32)
    pooled, clusters = pool_tokens(vectors, tokens // 2)
    assert len(clusters) == tokens and clusters.max() == len(pooled) - 1 and len(pooled) == tokens // 2
    half = clusters[: tokens // (-(-tokens // WARD_TOKENS))]
    assert not set(half.tolist()) & set(clusters[-100:].tolist())


def test_a_page_of_a_thousand_tokens_takes_less_than_a_tenth_of_its_encoding() -> None:
    vectors = np.random.default_rng(2).standard_normal((1000, 128)).astype(np.float32)
    pool_tokens(vectors[:10], 5)
    times = []
    for _ in range(3):
        begun = time.process_time()
        pool_tokens(vectors, 500)
        times.append(time.process_time() - begun)
    assert min(times) < 0.3  # 0.04 s; a page takes 0.7 s to encode


@pytest.mark.parametrize("codec", ["int8", "binary"])
def test_a_pooled_page_keeps_its_boxes_and_its_first_stage(tmp_path: Path, codec: str) -> None:
    vectors, group = bundles(4, 3, DIM)
    boxes = np.linspace(0, 1, 48, dtype=np.float32).reshape(12, 4)
    pages = [PageRecord(1, vectors, boxes, text="a b"), page_of("x", 2, tokens=1), page_of("x", 3, tokens=0)]
    index = filled(tmp_path, "x", pages, pool=3, codec=codec)  # type: ignore[arg-type]
    first, second, third = dump(index)
    assert upkeep.check(index) == []
    assert [page["clusters"] is None for page in (first, second, third)] == [False, True, True]
    assert len(np.frombuffer(first["vectors"], np.float32).reshape(-1, DIM)) == 4
    np.testing.assert_allclose(np.frombuffer(first["pooled"], np.float32), pool_mean(vectors), atol=1e-3)
    with index.snapshot() as snapshot:
        ids = {row["number"]: page for page, row in snapshot.pages(snapshot.state.ids.tolist()).items()}
        spread, where = documents.tokens(snapshot, ids[1], snapshot.text(ids[1])[2])
        assert [part.shape for part in documents.tokens(snapshot, ids[3], snapshot.text(ids[3])[2])] == [
            (0, DIM),
            (0, 4),
        ]
    np.testing.assert_allclose(where, boxes, atol=1e-4)
    weights = token_weights(vectors[:1], spread)
    assert ((weights == 1.0) == (group == group[0])).all()
    assert heat(where, weights, (40, 60)).max() == 1.0
    index.close()


def test_the_heat_map_of_a_page_whose_clusters_are_damaged_is_empty_and_said_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = filled(tmp_path, "x", pool=2)
    index.close()
    for statement, reason in (
        ("UPDATE page_clusters SET clusters = X'0000'", "a row of page_clusters is not what was written"),
        ("DELETE FROM page_clusters", "which vectors stand for the tokens of a page is missing"),
    ):
        connection = catalog.sqlite3.connect(tmp_path / catalog.FILE)
        connection.execute(statement)
        connection.commit()
        connection.close()
        index.forget()
        assert [(d.document, d.page, d.reason) for d in upkeep.check(index)] == [
            (content_of("x"), 1, reason),
            (content_of("x"), 2, reason),
        ]
        with index.snapshot() as snapshot:
            page = int(snapshot.state.ids[0])
            vectors, boxes = documents.tokens(snapshot, page, snapshot.text(page)[2])
        assert vectors.shape == (3, DIM) and not boxes.any()
    assert "where the tokens of page id 1 lie is left out" in caplog.text
    index.close()
