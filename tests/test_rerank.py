"""The second stage: the k best are those of scoring every candidate, with the same scores, and few are scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pages import add, page_of, vectors_of

from index import Index, native
from index.ragged import Ragged
from index.records import PageRecord
from retriever.rerank import _undecided, rerank, score, top

WIDE = 64
NEAR = vectors_of("all that pages share", 1, 1, WIDE)


def near(name: str, number: int, tokens: int) -> np.ndarray:
    """Unit vectors of a mean of norm .9 or so, as page tokens are, whose scores lie close together."""
    vectors = 2 * NEAR + vectors_of(name, number, tokens, WIDE)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def index_of(folder: Path, codec: str) -> Index:
    """Six documents of 60 pages of tokens of norm 3, one of them there twice, and a page that has no tokens."""
    index = Index.create(folder, dim=WIDE, fingerprint={"name": "seed"}, codec=codec)
    with index.writing() as writer:
        for name in ("a", "b", "c", "d", "e", "e again", "empty"):
            records = []
            for number in range(1, 61 if name != "empty" else 2):
                page = page_of(name, number, 9 if name != "empty" else 0, dim=WIDE)
                vectors = 3 * near(name[0], number, len(page.vectors))
                records.append(PageRecord(number, vectors, page.token_boxes, page.text, page.word_boxes))
            add(writer, name, records, batch=60)
    return index


@pytest.mark.parametrize("codec", ["fp16", "int8", "int4", "binary"])
def test_the_best_are_those_of_scoring_every_page(tmp_path: Path, codec: str) -> None:
    index = index_of(tmp_path / "index", codec)
    queries = Ragged.of([near("query", n, 7) for n in range(8)] + [near("e", 17, 9), 3 * near("a", 5, 9)])
    with index.snapshot() as snapshot:
        ids = snapshot.state.ids
        for k in (1, 3, 30, 1000):
            found = rerank(queries, ids, snapshot, k)
            for query, (scores, best) in zip(queries, found, strict=True):
                exact = top(score(Ragged.of([query]), ids, snapshot)[0], ids, snapshot, k)
                assert best.tolist() == exact[1].tolist() and (scores == exact[0]).all()
                assert len(best) == min(k, 360)
        twins = [snapshot.pages([page])[page]["number"] for page in rerank(queries, ids, snapshot, 2)[8][1].tolist()]
        assert twins == [17, 17]
        asked = [len(_undecided(query, snapshot.views(ids), snapshot, 3, None)) for query in queries]
    fewer = codec in ("int8", "int4") and native.available() is not None
    assert max(asked) < 120 if fewer else set(asked) == {361}
    index.close()


@pytest.mark.parametrize("codec", ["fp16", "int8", "int4", "binary"])
def test_candidates_that_promise_little_are_not_looked_at(tmp_path: Path, codec: str) -> None:
    index = index_of(tmp_path / "index", codec)
    query = near("query", 1, 7)
    queries, rng = Ragged.of([query]), np.random.default_rng(0)
    with index.snapshot() as snapshot:
        ids = snapshot.state.ids
        exact = score(queries, ids, snapshot)[0]
        promise = np.where(np.isfinite(exact), exact, exact[np.isfinite(exact)].min())
        promise = promise + rng.normal(0, 0.3 * promise.std(), len(promise))  # a first stage that errs
        order = np.argsort(-promise, kind="stable")
        ids, promise = ids[order], promise[order]
        looked = _undecided(query, snapshot.views(ids), snapshot, 3, promise)
        assert looked.max() < 100
        whole = rerank(queries, ids, snapshot, 3)[0]
        for told in (promise, np.full(len(ids), 7.0)):
            scores, best = rerank(queries, ids, snapshot, 3, told)[0]
            assert best.tolist() == whole[1].tolist() and (scores == whole[0]).all()
        far = np.concatenate([ids[100:], ids[:100]])  # a stage that is wrong, and sure of it
        assert rerank(queries, far, snapshot, 3, promise)[0][1].tolist() != whole[1].tolist()
        assert rerank(queries, far, snapshot, 3)[0][1].tolist() == whole[1].tolist()
    index.close()
