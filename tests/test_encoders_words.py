"""Code that was written for sentence-transformers' MultiVectorEncoder runs on our encoders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import DATA, JINA
from late_checkpoints import write
from PIL import Image
from words import WordEncoder, vectors

from retriever.encoders.jina_v4 import JinaV4
from retriever.encoders.late import LateEncoder
from retriever.encoders.multivector import MultiVector

PAGE = DATA / "jina_v4" / "images" / "page0.png"


def test_queries_documents_and_their_similarity() -> None:
    model = JinaV4(JINA)
    queries = model.encode_query(["energy", "revenue growth in 2023"], batch_size=32, show_progress_bar=False)
    documents = model.encode_document([PAGE, "a passage about energy", Image.open(PAGE)])
    for query, wanted in zip(
        queries, model.encode_text(["energy", "revenue growth in 2023"], return_multivector=True), strict=True
    ):
        assert torch.equal(query, wanted)
    passage = model.encode_text("a passage about energy", prompt_name="passage", return_multivector=True)
    np.testing.assert_allclose(documents[1], passage, rtol=0, atol=2e-6)
    np.testing.assert_allclose(documents[0], model.encode_image(PAGE, return_multivector=True), rtol=0, atol=2e-6)
    np.testing.assert_allclose(documents[0], documents[2], rtol=0, atol=2e-6)
    scores = model.similarity(queries, documents)
    wanted = [[float((q @ d.T).max(dim=1).values.sum()) for d in documents] for q in queries]
    np.testing.assert_allclose(scores, wanted, rtol=0, atol=1e-5)
    alone = model.similarity(model.encode_query("energy", convert_to_numpy=True), documents[:1])
    assert alone.shape == (1, 1) and float(alone) == pytest.approx(wanted[0][0], abs=1e-5)
    assert isinstance(model.encode_document("a", convert_to_numpy=True), np.ndarray)
    padded = [torch.nn.utils.rnn.pad_sequence(side, batch_first=True) for side in (queries, documents)]
    np.testing.assert_allclose(model.similarity(*padded), wanted, rtol=0, atol=1e-5)
    halves = model.similarity([query.bfloat16() for query in queries], [one.bfloat16() for one in documents])
    np.testing.assert_allclose(halves, wanted, rtol=0, atol=0.1)
    pairs = model.similarity_pairwise(queries, documents[:2])
    np.testing.assert_allclose(pairs, [wanted[0][0], wanted[1][1]], rtol=0, atol=1e-5)


def test_any_encoder_has_them() -> None:
    class Words(WordEncoder, MultiVector):
        pass

    model, texts = Words(), ["ships in the harbour", "owls"]
    (query,), documents = model.encode_query(["harbour ships"], device="cpu", pool=None), model.encode_document(texts)
    for found, text in zip(documents, texts, strict=True):
        np.testing.assert_allclose(found, vectors(text.split()), rtol=0, atol=1e-6)
    scores = model.similarity(query, documents)[0].tolist()
    assert scores[0] == pytest.approx(2, abs=1e-5) and scores[1] < 1
    doubled = Words()
    doubled.encode_queries = lambda texts: [2 * vectors(text.split()) for text in texts]  # type: ignore[method-assign]
    unit = doubled.encode_query("owls", convert_to_numpy=True, normalize_embeddings=True)
    np.testing.assert_allclose(unit, vectors(["owls"]), rtol=0, atol=1e-6)
    assert model.encode_document(Image.open(PAGE)).shape[0] == 0, "a picture has no words"
    with pytest.raises(ValueError, match="token_pooling: not done here"):
        model.encode_query("owls", token_pooling=3)


def test_what_the_families_do_not_take_is_refused(tmp_path: Path) -> None:
    model = LateEncoder(write("colqwen2-hf", tmp_path)[0])
    assert model.encode_document([PAGE])[0].shape[1] == model.encode_query("energy").shape[1] == 128
    with pytest.raises(ValueError, match="takes pictures as documents, texts only as queries"):
        model.encode_document(["a passage"])
    with pytest.raises(ValueError, match="own prompts are used"):
        model.encode_query("energy", prompt="Find: ")
    with pytest.raises(ValueError, match="only token_embeddings"):
        model.encode_query("energy", output_value="sentence_embedding")
