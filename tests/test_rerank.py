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
        asked = [_undecided(query, ids, snapshot, 3).sum() for query in queries]
    fewer = codec in ("int8", "int4") and native.available() is not None
    assert max(asked) < 120 if fewer else set(asked) == {361}
    index.close()
