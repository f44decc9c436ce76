"""An index filled by Jina v4: added to, searched, explained, reopened; queries and pages through the same protocol."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from checkpoints import DATA, JINA
from PIL import Image

from index.errors import EncoderMismatch
from ingest.page import Encoder, Page, Words
from retriever import Retriever
from retriever.encoders.jina_v4 import JinaV4

PAGES = [DATA / "jina_v4" / "images" / f"page{i}.png" for i in range(3)]


@pytest.fixture(scope="module")
def model() -> JinaV4:
    return JinaV4(JINA)


@pytest.fixture(scope="module")
def index(model: JinaV4, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jina") / "index"
    with Retriever.open(folder, model, codec="fp16", candidates="exact") as retriever:
        assert retriever.add(PAGES).pages == 3
    return folder


def test_pages_and_queries_are_what_encode_gives(model: JinaV4) -> None:
    assert isinstance(model, Encoder) and (model.dim, model.single_dim) == (128, 64)
    image = np.asarray(Image.open(PAGES[0]))
    found = model.encode_pages([Page(1, image, Words(), 224.0, 308.0)] * 2)
    wanted = model.encode([image])[0]
    for page in found:
        np.testing.assert_allclose(page.vectors, wanted.multi, rtol=0, atol=2e-6)
        np.testing.assert_allclose(page.single, wanted.single, rtol=0, atol=2e-6)
        assert page.words is None and np.array_equal(page.boxes, wanted.boxes)
    text = model.encode(["what?"], prompt_name="query")[0]
    np.testing.assert_allclose(model.encode_queries(["what?"])[0], text.multi, rtol=0, atol=2e-6)
    np.testing.assert_allclose(model.encode_queries_single(["what?"])[0], text.single, rtol=0, atol=2e-6)


def test_search_scores_are_maxsim_of_the_vectors(model: JinaV4, index: Path) -> None:
    query = "energy consumption per capita"
    vectors = model.encode_queries([query])[0]
    wanted = {}
    with Retriever.open(index, model) as retriever:
        hits = retriever.search(query, mode="visual")
        for hit in hits:
            page = model.encode([np.asarray(hit.image(dpi=72))])[0].multi.numpy()
            wanted[hit.id] = float((vectors @ page.T).max(axis=1).sum())
    assert len(hits) == 3
    for hit in hits:
        assert hit.lanes["visual"] == pytest.approx(wanted[hit.id], abs=0.02)
    assert [hit.lanes["visual"] for hit in hits] == sorted((hit.lanes["visual"] for hit in hits), reverse=True)


def test_the_heat_map_lies_where_the_strongest_token_is(model: JinaV4, index: Path) -> None:
    with Retriever.open(index, model) as retriever:
        hit = retriever.search("energy", k=1, mode="visual")[0]
        assert [name for name, _ in hit.tokens] == model.query_tokens(["energy"])[0]
        weights, boxes = hit.evidence.weights(), hit.evidence.token_boxes
        strong = int(np.argmax(np.where(boxes[:, 2] > 0, weights, 0)))
        picture, heated = np.asarray(hit.image(), np.int32), np.asarray(hit.heatmap(), np.int32)
    changed = np.abs(picture - heated).sum(axis=2)
    height, width = changed.shape
    x0, y0, x1, y1 = boxes[strong]
    inside = changed[int(y0 * height) : int(y1 * height), int(x0 * width) : int(x1 * width)]
    assert inside.mean() > 2 * changed.mean() > 0


def test_another_task_or_model_is_refused(model: JinaV4, index: Path) -> None:
    with pytest.raises(EncoderMismatch, match="task: index 'retrieval', encoder 'code'"):
        Retriever.open(index, JinaV4(JINA, task="code"))
    with pytest.raises(EncoderMismatch, match="max_pixels"):
        Retriever.open(index, JinaV4(JINA, max_pixels=15680))
