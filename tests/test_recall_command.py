"""`octavo recall`: what it says of stages and codecs is what a scan by hand says, on an index made for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from words import WordEncoder, document, vectors

from index.codec import decode, encode
from index.errors import QueryError
from index.pooling import pool_mean
from index.ragged import Codes, offsets_of
from retriever import Retriever
from retriever.recall import made_of, measure

RNG = np.random.default_rng(7)
LEXICON = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in ("nt", "rm", "st", "lk")]
PAGES = [" ".join(RNG.choice(LEXICON, 12)) for _ in range(40)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of 40 pages of 12 words each."""
    folder = tmp_path_factory.mktemp("recall")
    with Retriever.open(folder / "index", WordEncoder()) as retriever:
        retriever.add(document(folder / "words.pdf", PAGES))
    return folder / "index"


def maxsim(query: str, pages: list[np.ndarray]) -> list[int]:
    asked = vectors(query.split())
    scores = [float((asked @ page.T).max(axis=1).sum()) for page in pages]
    return sorted(range(len(pages)), key=lambda i: (-round(scores[i], 5), i))[:10]


def test_recall_is_that_of_a_scan_by_hand(folder: Path) -> None:
    questions = [" ".join(RNG.choice(LEXICON, 3, replace=False)) for _ in range(12)]
    with Retriever.open(folder, WordEncoder()) as retriever:
        told: list[tuple[int, int]] = []
        found = measure(retriever, questions, lambda *progress: told.append(progress))
        with retriever.index.snapshot() as snapshot:
            stored = list(snapshot.vectors(snapshot.state.ids))
    stages = {stage["name"]: stage for stage in found["stages"]}
    exact = [maxsim(question, stored) for question in questions]
    means = np.stack([pool_mean(page) for page in stored])
    for n in (10, 20, 30):
        shares = []
        for question, best in zip(questions, exact, strict=True):
            similarity = means @ pool_mean(vectors(question.split()))
            shares.append(np.isin(best, np.argsort(-similarity, kind="stable")[:n]).mean())
        assert stages[f"pooled, {n} pages"]["recall"] == pytest.approx(np.mean(shares), abs=0.05)
        assert stages[f"rows, {n} pages"]["recall"] == 1.0  # twelve tokens are their own rows
    assert not any("by default" in name for name in stages)  # the stage of so small an index is exact
    assert stages["exact"] | {"ms": 0} == {"name": "exact", "recall": 1.0, "ms": 0, "bytes": 34}
    assert stages["codes, 10 pages"]["recall"] <= stages["codes, 30 pages"]["recall"]
    assert stages["codes, 30 pages"]["recall"] > 0.9 and "codes, 50 pages" not in stages
    codecs = {codec["name"]: codec for codec in found["codecs"]}
    assert {name: codec["bytes"] for name, codec in codecs.items()} == {"int8": 34, "int4": 18, "binary": 6}
    whole = np.concatenate(stored)
    centre = whole.mean(axis=0)
    for codec in ("int4", "binary"):
        values, scales = encode(whole, codec, centre)
        offsets = offsets_of([len(page) for page in stored])
        coarse = decode(Codes(values, offsets, codec, scales, centre))
        pages = [coarse[offsets[i] : offsets[i + 1]] for i in range(len(stored))]
        shares = [
            np.isin(best, maxsim(question, pages)).mean() for question, best in zip(questions, exact, strict=True)
        ]
        assert codecs[codec]["recall"] == pytest.approx(np.mean(shares), abs=0.02)
    assert codecs["int8"]["recall"] == 1.0 > codecs["binary"]["recall"]
    reached = found["reached"]["0.95"]
    enough = [stage for stage in found["stages"] if stage["recall"] >= 0.95]
    assert reached == min(enough, key=lambda stage: stage["ms"])
    assert (found["pages"], found["tokens"], found["questions"], found["made"]) == (40, 480, 12, False)
    assert told == [(done, 6) for done in range(6)]


def test_questions_are_made_of_what_pages_say(folder: Path, tmp_path: Path) -> None:
    with Retriever.open(folder, WordEncoder()) as retriever:
        with retriever.index.snapshot() as snapshot:
            made = made_of(snapshot)
            assert made == made_of(snapshot) and len(made) == 40
        assert all(any(question in page for page in PAGES) for question in made)
        found = measure(retriever, None)
        assert found["made"] and {stage["recall"] for stage in found["stages"]} != {1.0}
    with Retriever.open(tmp_path / "short", WordEncoder()) as retriever:
        retriever.add(document(tmp_path / "short.pdf", ["just three words"]))
        with pytest.raises(QueryError, match="no page has 8 words to make questions of; give some: --queries"):
            measure(retriever, None)


def test_the_stage_that_the_index_has_is_measured_as_searches_use_it(tmp_path: Path) -> None:
    with Retriever.open(tmp_path / "index", WordEncoder(), candidates="codes") as retriever:
        retriever.add(document(tmp_path / "words.pdf", PAGES))
        stages = {stage["name"]: stage for stage in measure(retriever, None)["stages"]}
        with retriever.index.snapshot() as snapshot:
            questions = made_of(snapshot)
        exact = [[h.page for h in retriever.search(q, 10, mode="visual", candidates="all")] for q in questions]
        found = [[h.page for h in retriever.search(q, 10, mode="visual")] for q in questions]
    share = np.mean([np.isin(best, got).mean() for best, got in zip(exact, found, strict=True)])
    assert stages["codes, by default"]["recall"] == pytest.approx(share, abs=1e-6)
    assert "rows, by default" not in stages and "pooled, by default" not in stages
