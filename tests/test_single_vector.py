"""Indexes of one vector a page: what is stored, how it scores, Matryoshka dimensions, reopening, the command line."""

from __future__ import annotations

import json
from pathlib import Path

import late_checkpoints
import numpy as np
import pytest
from checkpoints import DATA, JINA
from words import WordEncoder, document

from index.errors import EncoderMismatch, QueryError
from ingest.page import Encoder
from retriever import Retriever, load_encoder
from retriever.cli import main
from retriever.encoders.jina_v4 import JinaV4
from retriever.encoders.single import SingleVectors

SCANS = [DATA / "jina_v4" / "images" / f"page{i}.png" for i in range(3)]
PAGES = ["ships in the harbour", "owls in the forest", "", "ships at night"]


def singles_of(retriever: Retriever) -> np.ndarray:
    with retriever.index.snapshot() as snapshot:
        assert snapshot.stage == snapshot.first_stage.kind == "pooled"
        return snapshot.pooled(snapshot.state.ids)


@pytest.mark.parametrize("dim", [None, 32, 16])
def test_jina_v4_in_a_matryoshka_dimension(tmp_path: Path, dim: int | None) -> None:
    model = JinaV4(JINA)
    assert model.single_dim == 64 and {16, 32} <= set(model.matryoshka_dims)
    with Retriever.open(tmp_path / "index", model, vectors="single", dim=dim, codec="fp16") as retriever:
        retriever.add(SCANS)
        with retriever.index.snapshot() as snapshot:
            assert snapshot.state.tokens == 3 and snapshot.layout.dim == snapshot.layout.single_dim == (dim or 64)
    with Retriever.open(tmp_path / "index") as retriever:
        hits = retriever.search("energy", mode="visual")
        stored = singles_of(retriever)
    query = model.encode_text(["energy"], truncate_dim=dim, return_numpy=True)[0]
    pages = model.encode_image([str(file) for file in SCANS], truncate_dim=dim, return_numpy=True)
    assert np.abs(stored - np.stack(pages)).max() < 1e-3
    wanted = {str(file): float(page @ query) for file, page in zip(SCANS, pages, strict=True)}
    assert {hit.path: hit.score for hit in hits} == pytest.approx(wanted, abs=2e-3)
    with Retriever.open(tmp_path / "index", model) as retriever:
        assert isinstance(retriever.encoder, SingleVectors) and retriever.encoder.encoder is model
        first = retriever.search(image=SCANS[1], mode="visual")[0]
        assert first.path == str(SCANS[1]) and first.score == pytest.approx(1, abs=5e-3)
        assert len(retriever.search("energy", like=first, mode="visual")) == 2


def test_a_dimension_it_was_not_trained_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="16, 32, 64 components; got dim 63"):
        Retriever.open(tmp_path / "index", JinaV4(JINA), vectors="single", dim=63)
    with pytest.raises(QueryError, match="dim goes with single"):
        Retriever.open(tmp_path / "index", WordEncoder(), dim=16)
    with pytest.raises(QueryError, match="got dim 8"):
        SingleVectors(WordEncoder(single_dim=24), 8)


@pytest.mark.parametrize("own", [24, None])
def test_the_encoders_own_vector_or_the_mean(tmp_path: Path, own: int | None) -> None:
    encoder = WordEncoder(single_dim=own)
    seen = SingleVectors(encoder)
    assert isinstance(seen, Encoder) and seen.dim == seen.single_dim == (own or encoder.dim)
    with Retriever.open(tmp_path / "index", encoder, vectors="single") as retriever:
        retriever.add(document(tmp_path / "a.pdf", PAGES))
        hits = retriever.search("ships at night", k=9, mode="visual")
        assert [hit.page for hit in hits][:2] == [4, 1] and len(hits) == 3, "the blank page has no vector"
        query = seen.encode_queries_single(["ships at night"])[0]
        for hit in hits:
            page = seen.encode_queries_single([PAGES[hit.page - 1]])[0]
            assert hit.score == pytest.approx(float(query @ page), abs=0.01)
        assert hits[0].tokens[0][0] == "ships at night" and hits[0].snippet and hits[0].boxes() == []
        assert retriever.search("owls forest")[0].page == 2 and retriever.check() == []
    with pytest.raises(EncoderMismatch):
        Retriever.open(tmp_path / "index", WordEncoder(single_dim=own, version=2))


def test_an_index_of_tokens_stays_one(tmp_path: Path) -> None:
    with Retriever.open(tmp_path / "index", WordEncoder()) as retriever:
        retriever.add(document(tmp_path / "a.pdf", PAGES))
    with Retriever.open(tmp_path / "index", WordEncoder(), vectors="single") as retriever:
        assert retriever.encoder.name == "words" and not isinstance(retriever.encoder, SingleVectors)
        assert retriever.search("ships", k=1)[0].page in (1, 4)


def test_a_rival_with_a_vector_of_its_own(tmp_path: Path) -> None:
    model = load_encoder(late_checkpoints.write("neomme", tmp_path / "model")[0])
    with Retriever.open(tmp_path / "index", model, vectors="single") as retriever:
        retriever.add(SCANS)
        stored = singles_of(retriever)
        first = retriever.search(image=SCANS[2], mode="visual")[0]
    assert stored.shape == (3, model.single_dim) and first.path == str(SCANS[2])


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, index = document(tmp_path / "a.pdf", PAGES), ["--index", str(tmp_path / "index")]
    assert main(["add", str(file), "--dim", "32", *index]) == 2
    assert "--single" in capsys.readouterr().err
    assert main(["add", str(file), "--single", "--dim", "32", *index]) == 3
    assert "128 components; got dim 32" in capsys.readouterr().err
    assert main(["add", str(file), "--single", *index]) == 0
    capsys.readouterr()
    assert main(["search", "ships", "--mode", "visual", "--json", *index]) == 0
    assert json.loads(capsys.readouterr().out)["hits"][0]["page"] in (1, 4)
    assert main(["status", "--json", *index]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["vectors"], said["dim"], said["tokens"], said["candidates"]) == ("single", 128, 3, "pooled")
    picture = str(tmp_path / "page.png")
    assert main(["show", str(file), "1", "--query", "ships", "-o", picture, *index]) == 0
    assert "no vector of the page has a place on it" in capsys.readouterr().err
    assert main(["recode", "--codec", "fp16", *index]) == 0 and main(["check", *index]) == 0
