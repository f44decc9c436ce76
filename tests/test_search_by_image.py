"""Search by a picture, by a page of the index, and by words beside one of them; through Python and the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import late_checkpoints
import numpy as np
import pytest
from checkpoints import DATA, JINA
from PIL import Image
from words import DIM, WordEncoder, document, vectors

from index.errors import QueryError, UnknownDocument
from retriever import Retriever, load_encoder
from retriever.cli import main
from retriever.query import PICTURE_ROWS, Picture, Query, both, of_picture

SCANS = [DATA / "jina_v4" / "images" / f"page{i}.png" for i in range(3)]
PAGES = {
    "sea": ["ships in the harbour at noon", "ships in the harbour at dusk with cranes", "whales"],
    "wood": ["owls hunt in the forest", "trees of the forest at dusk"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pictures")
    with Retriever.open(made / "index", WordEncoder()) as retriever:
        retriever.add([document(made / f"{name}.pdf", pages) for name, pages in PAGES.items()])
    return made


@pytest.fixture
def retriever(folder: Path) -> Iterator[Retriever]:
    with Retriever.open(folder / "index", WordEncoder()) as opened:
        yield opened


def places(hits: list) -> list[tuple[str, int]]:
    return [(Path(hit.path).stem, hit.page) for hit in hits]


@pytest.mark.parametrize("mode", ["hybrid", "visual", "text"])
def test_more_like_a_page_finds_its_like_and_not_itself(retriever: Retriever, mode: str) -> None:
    hits = retriever.search(like="sea.pdf#1", mode=mode, k=10)
    assert places(hits)[0] == ("sea", 2) and ("sea", 1) not in places(hits)
    first = retriever.search("ships harbour noon", k=1)[0]
    assert (first.path.endswith("sea.pdf"), first.page) == (True, 1)
    assert places(retriever.search(like=first, mode=mode, k=10)) == places(hits), "a hit is as good as its name"


def test_a_stored_page_scores_as_its_tokens_do(retriever: Retriever) -> None:
    asked = vectors(PAGES["wood"][1].split())
    by_hand = {
        (name, number): float((asked @ vectors(text.split()).T).max(axis=1).sum())
        for name, texts in PAGES.items()
        for number, text in enumerate(texts, 1)
    }
    hits = retriever.search(like="wood.pdf#2", mode="visual", k=10)
    assert len(hits) == 4
    for hit, place in zip(hits, places(hits), strict=True):
        assert hit.score == pytest.approx(by_hand[place], abs=0.05)
    assert 0 < hits[0].score_norm < 1 and hits[0].tokens == [] and hits[0].snippet


def test_a_file_is_drawn_encoded_and_found(retriever: Retriever, tmp_path: Path) -> None:
    file = document(tmp_path / "asked.pdf", ["owls in the forest", "not looked at: whales"])
    assert places(retriever.search(image=file, k=1)) == [("wood", 1)]
    assert places(retriever.search("dusk", image=file, k=1)) == [("wood", 2)], "words and picture both count"
    asked = ["ships at dusk", "dusk"]
    many = retriever.search(asked, image=str(file), k=9)
    assert [[hit.score for hit in hits] for hits in many] == [
        [hit.score for hit in retriever.search(text, image=file, k=9)] for text in asked
    ]


def test_the_encoder_in_the_box_reads_a_picture(tmp_path: Path) -> None:
    texts = ["The ferry leaves the harbour at nine every morning.", "Owls hunt mice in the forest after dark."]
    with Retriever.open(tmp_path / "index") as retriever:
        retriever.add([document(tmp_path / f"{i}.pdf", [text]) for i, text in enumerate(texts)])
        hit = retriever.search("owls", k=1)[0]
        picture = hit.image()
        picture.save(tmp_path / "asked.png")
        for image in (picture, np.asarray(picture), tmp_path / "asked.png"):
            found = retriever.search(image=image)
            assert found[0].id == hit.id and found[0].lanes["text"] > 0 and found[0].score_norm > 0.9
        white = Image.new("RGB", (300, 300), "white")
        with pytest.raises(QueryError, match="finds nothing on the picture"):
            retriever.search(image=white)


@pytest.mark.parametrize("family", ["jina-embeddings-v4", "colqwen2", "neomme"])
def test_encoders_that_look_take_a_picture_as_they_take_a_page(family: str, tmp_path: Path) -> None:
    name = JINA if family == "jina-embeddings-v4" else late_checkpoints.write(family, tmp_path / "model")[0]
    with Retriever.open(tmp_path / "index", load_encoder(name), codec="fp16") as retriever:
        retriever.add(SCANS)
        for file in SCANS:
            (first, *others) = retriever.search(image=file, mode="visual")
            assert Path(first.path) == file and first.score_norm > 0.9 and len(others) == 2
            again = retriever.search(like=first, mode="visual")
            assert {hit.id for hit in again} == {hit.id for hit in others}
        hits = retriever.search("energy per capita", image=SCANS[0])
        assert len(hits) == 3 and [name for name, _ in hits[0].tokens]


def test_what_cannot_be_asked_is_refused_in_words(retriever: Retriever, tmp_path: Path) -> None:
    cut, other = tmp_path / "cut.png", tmp_path / "x.gif"
    Image.new("RGB", (500, 500), "red").save(cut)
    cut.write_bytes(cut.read_bytes()[:200])
    other.write_bytes(b"GIF89a")
    wrong = {cut: "cannot be decoded|cannot be read", other: "are supported", tmp_path: "folder", 7: "PIL image"}
    for image, told in wrong.items():
        with pytest.raises(QueryError, match=told):
            retriever.search(image=image)
    with pytest.raises(FileNotFoundError, match="nothing.png"):
        retriever.search(image=tmp_path / "nothing.png")
    for arguments in ({}, {"image": cut, "like": "sea.pdf"}):
        with pytest.raises(QueryError, match="ask with"):
            retriever.search(**arguments)
    for name in ("sea.pdf#9", "nobody.pdf#1", "nobody.pdf"):
        with pytest.raises(UnknownDocument):
            retriever.search(like=name)


@pytest.mark.parametrize("mode", ["hybrid", "visual", "text"])
def test_half_a_surrogate_pair_does_no_harm(retriever: Retriever, mode: str) -> None:
    assert places(retriever.search("owls \udcff forest", k=1, mode=mode)) == [("wood", 1)]


def test_pooled_rows_weigh_what_they_stand_for_and_prompts_nothing(retriever: Retriever) -> None:
    rows = np.concatenate([np.repeat(vectors(["same"]), 50, axis=0), vectors([f"w{i}" for i in range(PICTURE_ROWS)])])
    boxes = np.tile(np.array([0, 0, 1, 1], np.float32), (len(rows), 1))
    boxes[-1] = 0  # of a prompt
    with retriever.index.snapshot() as snapshot:
        asked = of_picture(snapshot, Picture(rows, boxes, rows[0], "owls whales nowhere"))
    assert asked.vectors.shape == (PICTURE_ROWS, DIM) and asked.said == ("owls whales",)
    norms = np.linalg.norm(asked.vectors, axis=1)
    heaviest = asked.vectors[norms.argmax()] / norms.max()
    assert heaviest @ vectors(["same"])[0] == pytest.approx(1, abs=1e-5)
    assert norms.max() / np.sort(norms)[0] == pytest.approx(50, rel=1e-4)
    assert norms.sum() == pytest.approx(PICTURE_ROWS, rel=1e-4)


def test_text_and_picture_weigh_the_same() -> None:
    text = Query("a b", vectors(["a", "b"]), vectors(["a"])[0], ("a b",))
    picture = Query("", 3 * vectors(["c", "d", "e"]), vectors(["c"])[0], ("c",), 7)
    joined = both(text, picture)
    norms = np.linalg.norm(joined.vectors, axis=1)
    assert norms == pytest.approx([1, 1, 2 / 3, 2 / 3, 2 / 3], rel=1e-5)
    assert (joined.text, joined.said, joined.page) == ("a b", ("a b", "c"), 7)
    expected = vectors(["a"])[0] + vectors(["c"])[0]
    assert joined.single == pytest.approx(expected / np.linalg.norm(expected), abs=1e-6)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [document(tmp_path / f"{name}.pdf", pages) for name, pages in PAGES.items()]
    index = ["--index", str(tmp_path / "index")]
    assert main(["add", *map(str, files), *index]) == 0
    capsys.readouterr()
    assert main(["search", "--like", "sea.pdf#1", "-k", "1", "--json", *index]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["like"], said["query"], said["hits"][0]["page"]) == ("sea.pdf#1", None, 2)
    assert main(["search", "whales", "--image", str(files[1]), "--mode", "text", "--json", *index]) == 0
    assert {Path(hit["path"]).name for hit in json.loads(capsys.readouterr().out)["hits"]} >= {"sea.pdf", "wood.pdf"}
    assert main(["search", *index]) == 2 and "--image" in capsys.readouterr().err
