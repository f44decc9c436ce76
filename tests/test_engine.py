"""Search by the Python API: lanes, filters, ties, edges, hits and their pictures, encoders that do not fit."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ImageChops
from words import DIM, WordEncoder, document, vectors

from index.errors import EncoderMismatch, NotAnIndex, OctavoError, QueryError, UnknownDocument
from index.native.twin import standardise
from ingest.page import PageTokens
from retriever import Retriever, load_encoder
from retriever.hybrid import BEST, CONTENTS, FALL, SURE, TEXT_WEIGHT, fuse

TEXTS = {
    "harbour": ["ships in the harbour", "cranes lift cargo", "ships and cranes at night", ""],
    "forest": ["trees of the forest", "the forest at night", "owls hunt in the forest at night"],
    "city": ["trams in the city at night", "ships on the river in the city"],
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of three documents, one with metadata of each kind."""
    folder = tmp_path_factory.mktemp("corpus")
    with Retriever.open(folder / "index", WordEncoder()) as retriever:
        for year, (name, pages) in enumerate(TEXTS.items(), 2020):
            file = document(folder / f"{name}.pdf", pages, title=f"The {name}")
            retriever.add(file, metadata={"year": year, "tags": [name, "all"], "draft": name == "city"})
    return folder


@pytest.fixture
def retriever(corpus: Path) -> Iterator[Retriever]:
    """The index, open."""
    with Retriever.open(corpus / "index", WordEncoder()) as opened:
        yield opened


def places(hits: list[Any]) -> list[tuple[str, int]]:
    return [(Path(hit.path).stem, hit.page) for hit in hits]


def exact(query: str) -> list[tuple[float, str, int]]:
    """MaxSim of every page by definition, best first."""
    asked = vectors(query.split())
    scored = [
        (float((asked @ vectors(text.split()).T).max(axis=1).sum()), name, number)
        for name, pages in TEXTS.items()
        for number, text in enumerate(pages, 1)
        if text
    ]
    return sorted(scored, key=lambda entry: -entry[0])


def test_visual_search_is_exact(retriever: Retriever) -> None:
    hits = retriever.search("ships at night", k=100, mode="visual")
    expected = exact("ships at night")
    assert len(hits) == len(expected) == 8, "k > n gives n; the blank page has no tokens and is not found"
    assert places(hits)[0] == ("harbour", 3)
    for hit, (score, name, page) in zip(hits, expected, strict=True):
        assert hit.score == pytest.approx(score, abs=0.02) == hit.lanes["visual"]
        assert (Path(hit.path).stem, hit.page) == (name, page) or score == pytest.approx(hit.score, abs=0.02)
    assert hits[0].score_norm == pytest.approx(1.0, abs=0.01), "every query token is on the page"
    assert [hit.rank for hit in hits] == list(range(1, 9))
    assert dict(hits[0].tokens) == pytest.approx({"ships": 1.0, "at": 1.0, "night": 1.0}, abs=0.01)


def test_text_search_ranks_by_bm25_with_titles(retriever: Retriever) -> None:
    assert set(places(retriever.search("owls", mode="text"))) == {("forest", 3)}
    hits = retriever.search("harbour", mode="text")
    assert set(places(hits)) == {("harbour", 1), ("harbour", 2), ("harbour", 3)}, "title and name count, not of a blank"
    assert places(hits)[0] == ("harbour", 1)
    assert all(hit.score == hit.lanes["text"] > 0 for hit in hits)
    assert retriever.search("zeppelin", mode="text") == []


def test_hybrid_is_the_sum_of_standardised_lanes(retriever: Retriever) -> None:
    hits = retriever.search("ships at night", k=100)
    visual = np.array([hit.lanes.get("visual", -np.inf) for hit in hits])
    text = np.array([hit.lanes["text"] for hit in hits])
    with retriever.index.snapshot() as snapshot:
        ceiling = snapshot.ceiling("ships at night")
    assert text.max() < ceiling
    np.testing.assert_allclose(
        [hit.score for hit in hits], fuse(visual, text, ceiling, np.zeros(len(hits), bool)), rtol=1e-6
    )
    assert places(hits)[0] == ("harbour", 3)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_half_of_the_parts_of_a_run_count_as_asked(retriever: Retriever) -> None:
    with retriever.index.snapshot() as snapshot:
        word, run = snapshot.ceiling("zeppelin"), snapshot.ceiling("東京都")
    assert run == word  # two pairs that no page has, at half of a word that none has


def test_a_page_without_tokens_is_found_by_its_text_or_not_at_all(tmp_path: Path) -> None:
    class Mute(WordEncoder):
        def encode_pages(self, pages: Any) -> list[PageTokens]:
            return [
                PageTokens(np.zeros((0, DIM)), np.zeros((0, 4))) if "mute" in page.words.texts else tokens
                for page, tokens in zip(pages, super().encode_pages(pages), strict=True)
            ]

    with Retriever.open(tmp_path / "index", Mute()) as retriever:
        retriever.add(document(tmp_path / "a.pdf", ["mute ships", "ships at sea", ""]))
        assert places(retriever.search("ships", mode="visual")) == [("a", 2)]
        hits = retriever.search("ships")
        assert sorted(places(hits)) == [("a", 1), ("a", 2)]
        hit = next(hit for hit in hits if hit.page == 1)
        assert "visual" not in hit.lanes and math.isfinite(hit.score) and hit.score_norm == 1.0
        assert hit.snippet == "mute ships" and hit.boxes() == [] and hit.heatmap().size == hit.image().size


@pytest.mark.parametrize("mode", ["hybrid", "visual", "text"])
@pytest.mark.parametrize(
    "where, names",
    [
        ({"year": {"$gte": 2021}}, {"forest", "city"}),
        ({"tags": "forest"}, {"forest"}),
        ({"draft": True}, {"city"}),
        ({"$or": [{"year": 2020}, {"title": "The city"}]}, {"harbour", "city"}),
        ({"name": {"$in": ["forest.pdf"]}, "page": {"$gt": 1}}, {"forest"}),
        ({"year": {"$exists": False}}, set()),
    ],
)
def test_filters_hold_before_the_best_are_taken(
    retriever: Retriever, mode: str, where: dict[str, Any], names: set[str]
) -> None:
    everything = retriever.search("in the forest at night ships city", k=100, mode=mode)
    hits = retriever.search("in the forest at night ships city", k=2, mode=mode, where=where)
    allowed = [hit for hit in everything if Path(hit.path).stem in names]
    if "page" in where:
        allowed = [hit for hit in allowed if hit.page > 1]
    assert len(hits) == min(2, len(allowed)), "k results whenever k match"
    assert {Path(hit.path).stem for hit in hits} <= names
    if mode != "hybrid":  # a fused score depends on the pages that it is standardised over
        assert places(hits) == places(allowed[:2])


def test_a_batch_is_its_queries(retriever: Retriever) -> None:
    queries = ["ships", "the forest at night", "trams"]
    batch = retriever.search(queries, k=3)
    assert [places(hits) for hits in batch] == [places(retriever.search(query, k=3)) for query in queries]


def test_the_pooled_stage_gives_the_same_best_pages(corpus: Path, tmp_path: Path) -> None:
    for single_dim in (None, 48):
        encoder = WordEncoder(single_dim)
        with Retriever.open(tmp_path / f"pooled{single_dim}", encoder, candidates="pooled") as retriever:
            retriever.add([corpus / f"{name}.pdf" for name in TEXTS])
            assert retriever.status()["candidates"] == "pooled"
            assert retriever.status()["candidates_rule"] == "chosen for this index"
            hits = retriever.search("ships at night", k=3, mode="visual")
            assert places(hits)[0] == ("harbour", 3)
            assert hits[0].score == pytest.approx(exact("ships at night")[0][0], abs=0.02)
            assert len(retriever.search("ships at night", k=3, mode="visual", candidates=1)) == 3, "never fewer than k"
            assert len(retriever.search("ships", k=100, mode="visual", candidates="all")) == 8
            retriever.delete("harbour.pdf")
            assert all(name != "harbour" for name, _ in places(retriever.search("ships at night", k=100)))


def test_ties_are_broken_by_document_and_page(tmp_path: Path) -> None:
    files = [document(tmp_path / f"{n}.pdf", ["same words here"] * 3, title=str(n)) for n in range(4)]
    with Retriever.open(tmp_path / "index", WordEncoder()) as retriever:
        retriever.add(files)
        for mode in ("visual", "hybrid"):
            hits = retriever.search("same words", k=12, mode=mode)
            assert [(hit.document, hit.page) for hit in hits] == sorted((hit.document, hit.page) for hit in hits)
            assert places(retriever.search("same words", k=5, mode=mode)) == places(hits)[:5]


@pytest.mark.parametrize(
    "query, options, message",
    [
        ("", {}, "query is empty"),
        ("  \n", {}, "query is empty"),
        ("x" * 5000, {}, "5000 characters, 4096 are the most"),
        ("ships", {"k": 0}, "k is a number from 1"),
        ("ships", {"mode": "colour"}, "mode is one of hybrid, visual, text"),
        ("ships", {"candidates": -1}, "candidates is a number"),
        ("ships", {"where": {"year": {"$near": 3}}}, r"\$near"),
    ],
)
def test_what_cannot_be_searched_is_said(retriever: Retriever, query: str, options: Any, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        retriever.search(query, **options)


def test_a_hit_says_and_shows_what_it_is(retriever: Retriever) -> None:
    (hit,) = retriever.search("cranes at night", k=1)
    assert (hit.title, hit.page, hit.kind, hit.pages) == ("The harbour", 3, "pdf", 4)
    assert hit.metadata == {"year": 2020, "tags": ["harbour", "all"], "draft": False}
    assert hit.url.startswith("file:///") and hit.url.endswith("/harbour.pdf#page=3")
    assert hit.snippet == "ships and cranes at night"
    assert [hit.snippet[start:end] for start, end in hit.marks] == ["cranes", "at", "night"]
    assert json.loads(json.dumps(hit.dict(), allow_nan=False))["id"] == f"{hit.document}#p3"
    assert hit["page"] == 3
    page = hit.image(dpi=72)
    assert page.size == (300, 400) and max(hit.thumbnail(90).size) == 90
    changed = np.asarray(ImageChops.difference(page, hit.heatmap(dpi=72))).max(axis=2)
    one = np.asarray(ImageChops.difference(page, hit.heatmap("cranes", dpi=72))).max(axis=2)
    assert changed.any() and one.any() and (one > 20).sum() < (changed > 20).sum()
    (box, weight), *_ = hit.boxes()
    assert weight == 1.0 and 0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] < 0.2, "the words stand at the top"
    rows, columns = np.nonzero(one > 20)
    assert rows.max() / 400 < 0.2 and columns.max() / 300 < 0.7
    with pytest.raises(ValueError, match="no token of the query"):
        hit.heatmap("zebra")
    assert "<img" in hit._repr_html_() and "The harbour" in hit._repr_html_()


def test_a_hit_says_when_its_file_has_changed_or_gone(tmp_path: Path) -> None:
    file = document(tmp_path / "a.pdf", ["ships"])
    with Retriever.open(tmp_path / "index", WordEncoder()) as retriever:
        retriever.add(file)
        (hit,) = retriever.search("ships")
        document(file, ["other"])
        with pytest.raises(OctavoError, match="has changed since it was indexed; run octavo update"):
            hit.image()
        file.unlink()
        with pytest.raises(OctavoError, match=r"a\.pdf: the file cannot be opened"):
            hit.image()
        assert hit.snippet == "ships" and hit.boxes(), "what was stored is there all the same"


def test_documents_are_found_by_id_path_or_name(retriever: Retriever, corpus: Path) -> None:
    entry = next(entry for entry in retriever.documents() if entry["title"] == "The forest")
    for name in (entry["document"], entry["document"][:8], str(corpus / "forest.pdf"), "forest.pdf"):
        assert [page["text"] for page in retriever.pages(name)] == TEXTS["forest"]
    with pytest.raises(UnknownDocument, match="no document is called 'nothing'; octavo list"):
        retriever.pages("nothing")
    with pytest.raises(UnknownDocument, match="3 pages; page 9"):
        retriever.page("forest.pdf", 9)
    assert retriever.page("forest.pdf", 2).title == "The forest"


def test_another_encoder_is_refused(corpus: Path) -> None:
    with pytest.raises(EncoderMismatch, match="version: index 1, encoder 2"):
        Retriever.open(corpus / "index", WordEncoder(version=2))
    with pytest.raises(EncoderMismatch, match="name: index 'words', encoder 'octavo-box-1'"):
        Retriever.open(corpus / "index", "octavo-box-1")
    with pytest.raises(ValueError, match="no encoder is called 'clip'"):
        load_encoder("clip")
    with Retriever.open(corpus / "index", WordEncoder(), codec="fp16") as retriever:
        assert retriever.status()["codec"] == "int8", "an index knows its own settings"


def test_a_folder_without_an_index(tmp_path: Path) -> None:
    with pytest.raises(NotAnIndex, match="there is no index here"):
        Retriever.open(tmp_path, create=False)
    with (
        Retriever.open(tmp_path / "new", WordEncoder()) as retriever,
        pytest.raises(NotAnIndex, match="add some files"),
    ):
        retriever.search("ships")
    assert not (tmp_path / "new").exists()


def test_many_threads_search_one_retriever(retriever: Retriever) -> None:
    expected = places(retriever.search("ships at night", k=5))
    found: list[list[tuple[str, int]]] = []

    def search() -> None:
        for _ in range(10):
            found.append(places(retriever.search("ships at night", k=5)))

    threads = [threading.Thread(target=search) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 80


def test_fusion_by_hand() -> None:
    np.testing.assert_allclose(standardise(np.array([1.0, 3.0])), [-1, 1])
    np.testing.assert_array_equal(standardise(np.array([2.0, 2.0])), [0, 0])
    visual, text, none = np.array([2.0, 1.0, -np.inf]), np.array([0.0, 0.0, 4.0]), np.zeros(3, bool)
    low, high = standardise(np.array([2.0, 1.0, 1.0])), standardise(text)
    for ceiling, share in ((4.0, 1.0), (4.0 / SURE, 1.0), (8.0 / SURE, 0.5), (400.0 / SURE, 0.01)):
        weight = TEXT_WEIGHT * share**FALL
        np.testing.assert_allclose(fuse(visual, text, ceiling, none), (1 - weight) * low + weight * high)
        lower = fuse(visual, text, ceiling, np.array([False, True, False])) - fuse(visual, text, ceiling, none)
        np.testing.assert_allclose(lower, [0, -CONTENTS, 0], atol=1e-12)
    assert fuse(np.zeros(0), np.zeros(0), 0.0, np.zeros(0, bool)).shape == (0,)
    nothing_seen = fuse(np.full(3, -np.inf), text, 4000.0, none)
    np.testing.assert_allclose(nothing_seen, high, err_msg="pages without tokens are ranked by their text alone")


def test_fused_scores_are_the_same_however_many_worse_pages_there_are() -> None:
    rng, places = np.random.default_rng(0), np.arange(100)
    visual, text = rng.uniform(5, 9, 100), np.where(places % 3, 0.0, rng.uniform(2, 9, 100))
    few = fuse(visual, text, 20.0, np.zeros(100, bool))
    best = np.union1d(np.argsort(-visual)[: BEST[0]], np.argsort(-text)[: BEST[1]])
    assert len(best) < 90
    weight = TEXT_WEIGHT * (text.max() / 20 / SURE) ** FALL
    lanes = [(lane - lane[best].mean()) / lane[best].std() for lane in (visual, text)]
    np.testing.assert_allclose(few, (1 - weight) * lanes[0] + weight * lanes[1])
    worse = np.concatenate([visual, rng.uniform(0, 4, 900)]), np.concatenate([text, rng.uniform(0, 1, 900)])
    many = fuse(*worse, 20.0, np.zeros(1000, bool))
    np.testing.assert_allclose(many[:100], few)


def test_an_export_is_searched_elsewhere(corpus: Path, tmp_path: Path) -> None:
    with Retriever.open(corpus / "index", WordEncoder()) as retriever:
        retriever.export(tmp_path / "corpus.octavo")
        expected = [(hit.id, hit.score) for hit in retriever.search("ships at night")]
    with Retriever.import_(tmp_path / "corpus.octavo", tmp_path / "elsewhere", WordEncoder()) as retriever:
        assert [(hit.id, hit.score) for hit in retriever.search("ships at night")] == expected
