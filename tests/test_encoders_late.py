"""The late-interaction families against their own code (late_golden.py): loading, vectors, index, search, heat map."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import edit_json, edit_tensors
from late_checkpoints import FAMILIES, QUERIES, pages, write
from PIL import Image

from index.errors import OctavoError, QueryError
from retriever import Retriever, load_encoder
from retriever.encoders.checkpoint import load_strictly, stored_tensors
from retriever.encoders.late import LateEncoder
from retriever.encoders.late_grid import _fitted
from retriever.encoders.late_network import _ours
from retriever.encoders.late_rows import ROWS

GOLDEN = Path(__file__).parent / "data" / "late_golden.npz"

# This page is made smaller, there by torchvision, here by Pillow: some pixels differ by one of 256 levels.
SHRUNK = ("neomme", "pages", 1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path | None]]:
    place = tmp_path_factory.mktemp("late")
    return {family: write(family, place / family) for family in FAMILIES}


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as found:
        return dict(found)


def opened(folders, family: str) -> LateEncoder:
    model, base = folders[family]
    return LateEncoder(model, base=base)


def test_every_row_has_a_checkpoint() -> None:
    assert sorted(row.name for row in ROWS) == sorted(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_vectors_equal_those_of_the_familys_own_code(family: str, folders, golden) -> None:
    model = opened(folders, family)
    assert model.dim == (64 if family == "colqwen3.5" else model.row.dim), "that of config.json, where it has one"
    for kind, found in (("pages", model.embed_pictures(pages())), ("queries", model.embed_queries(QUERIES))):
        for place, one in enumerate(found):
            assert one.ids.tolist() == golden[f"{family}.{kind}.{place}.ids"].tolist()
            limit = 1e-3 if (family, kind, place) == SHRUNK else 2e-5
            wanted = golden[f"{family}.{kind}.{place}"]
            np.testing.assert_allclose(one.multi.numpy()[:, ::4], wanted, rtol=0, atol=limit)
            if model.single_dim is not None:
                np.testing.assert_allclose(one.single, golden[f"{family}.{kind}.{place}.single"], rtol=0, atol=limit)
            np.testing.assert_allclose(one.multi.norm(dim=1), 1, rtol=0, atol=1e-5)
    names = model.query_tokens(QUERIES)
    assert [len(tokens) for tokens in names] == [len(vectors) for vectors in model.encode_queries(QUERIES)]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_batch_changes_nothing(family: str, folders) -> None:
    model = opened(folders, family)
    many = [*pages(), *(page.rotate(180) for page in pages()), pages()[0]]
    told: list[tuple[int, int]] = []
    together = model.embed_pictures(many, progress=lambda done, n: told.append((done, n)))
    assert told == [(7, 7)]
    for one, found in zip(many, together, strict=True):
        alone = model.embed_pictures([one])[0]
        assert alone.ids.tolist() == found.ids.tolist() and np.array_equal(alone.boxes, found.boxes)
        np.testing.assert_allclose(found.multi, alone.multi, rtol=0, atol=2e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_visual_tokens_lie_where_the_picture_has_them(family: str, folders) -> None:
    """Of a page that is changed in its lower right corner, only the pixels of cells there change."""
    model = opened(folders, family)
    page = model.embed_pictures([pages()[0]])[0]
    visual = page.boxes[:, 2] > 0
    assert visual.sum() == (page.ids == model._image).sum() - (model.row.reader == "grid") > 3
    areas = (page.boxes[visual, 2] - page.boxes[visual, 0]) * (page.boxes[visual, 3] - page.boxes[visual, 1])
    assert areas.sum() == pytest.approx(2 if model.row.reader == "tiles" else 1, abs=1e-5), "tiles, then the whole page"

    pixels = np.asarray(pages()[0]).copy()
    pixels[int(0.85 * len(pixels)) :, int(0.85 * pixels.shape[1]) :] = 255 - pixels[-1, -1]
    before, after = (model._reader.read(Image.fromarray(p)) for p in (np.asarray(pages()[0]), pixels))
    change = (before.pixels["pixel_values"] - after.pixels["pixel_values"]).abs()
    assert change.sum() > 0
    if model.row.reader == "tiles":
        cells = change[:-1].sum(dim=1).reshape(len(change) - 1, 2, 16, 2, 16).sum(dim=(2, 4)).flatten()
        changed = page.boxes[visual][: len(cells)][(cells > 0).numpy()]
    elif model.row.reader == "grid":
        changed = page.boxes[visual][(change.sum(dim=1) > 0).numpy()]
    elif model.row.reader == "qwen":
        changed = page.boxes[visual][(change.reshape(int(visual.sum()), -1).sum(dim=1) > 0).numpy()]
    else:
        changed = page.boxes[visual][(change.sum(dim=0).reshape(4, 14, 4, 14).sum(dim=(1, 3)).flatten() > 0).numpy()]
    assert len(changed) and (changed[:, 2:] > 0.7).all(), "only cells near the corner"


@pytest.mark.parametrize("family", FAMILIES)
def test_any_one_tensor_is_missed(family: str, folders) -> None:
    model, base = folders[family]
    network = opened(folders, family).network
    stored = stored_tensors(base or model) + (stored_tensors(model, "adapter_model") if base else [])
    row = next(row for row in ROWS if row.name == family)
    load = partial(load_strictly, network, source=model, published=partial(_ours, row), device=torch.device("cpu"))
    assert len({_ours(row, tensor.key) for tensor in stored}) == len(stored) == len(network.state_dict())
    for left_out in stored:
        rest = [tensor for tensor in stored if tensor is not left_out]
        with pytest.raises(OctavoError, match="1 missing: "):
            load(stored=rest, dtype=torch.float32)
        with pytest.raises(OctavoError, match="1 unexpected: "):
            load(stored=[*rest, left_out._replace(key="x." + left_out.key)], dtype=torch.float32)
        with pytest.raises(OctavoError, match="1 misshapen: "):
            load(stored=[*rest, left_out._replace(shape=(7, *left_out.shape))], dtype=torch.float32)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_index_is_filled_searched_and_explained(family: str, folders, tmp_path: Path) -> None:
    model = load_encoder(folders[family][0])
    assert model.fingerprint["family"] == family
    files = []
    for place, page in enumerate(pages()):
        files.append(tmp_path / f"page{place}.png")
        page.save(files[-1])
    with Retriever.open(tmp_path / "index", model, codec="fp16", candidates="exact") as retriever:
        assert retriever.add(files).pages == 3
        hits = retriever.search(QUERIES[0], mode="visual")
        vectors = model.encode_queries([QUERIES[0]])[0]
        for hit in hits:
            page = model.embed_pictures([np.asarray(hit.image(dpi=72))])[0].multi.numpy()
            assert hit.lanes["visual"] == pytest.approx(float((vectors @ page.T).max(axis=1).sum()), abs=0.03)
        assert np.abs(np.asarray(hits[0].heatmap(), int) - np.asarray(hits[0].image(), int)).max() > 10


def test_sizes_of_neomme_keep_to_their_bounds() -> None:
    assert _fitted((150, 64), 128, None, None) == (128, 55) and _fitted((80, 120), 128, None, None) == (80, 120)
    assert _fitted((10, 10), None, 400, 900) == (20, 20) and _fitted((100, 50), None, 400, 900) == (42, 21)
    rng = np.random.default_rng(0)
    for width, height in np.exp(rng.uniform(0, 8, (500, 2))).astype(int).tolist():
        fitted = _fitted((width, height), 512, 64 * 64, 256 * 256)
        assert max(fitted) <= 512 and fitted[0] * fitted[1] <= 256 * 256
        grown = min(width, height) * 512 / max(width, height) >= 8.5
        assert fitted[0] * fitted[1] >= 64 * 64 or (width * height < 64 * 64 and not grown) or max(fitted) > 490


def test_neomme_needs_its_words(tmp_path: Path) -> None:
    model, _ = write("neomme", tmp_path)
    (model / "chat_template.jinja").write_text("{{ ''.__class__.__mro__ }}", "utf-8")
    with pytest.raises(OctavoError, match="is not usable: .*unsafe"):
        load_encoder(model)
    (model / "chat_template.jinja").unlink()
    with pytest.raises(OctavoError, match="has no chat template"):
        load_encoder(model)
    edit_json(model / "preprocessor_config.json", lambda c: c.update(max_side="wide"))
    (model / "chat_template.jinja").write_text("{{ query_token }}", "utf-8")
    with pytest.raises(OctavoError, match=r"preprocessor_config\.json: max_side and size"):
        load_encoder(model)
    edit_json(model / "tokenizer_config.json", lambda c: c["extra_special_tokens"].pop("row_token"))
    with pytest.raises(OctavoError, match=r"tokenizer_config\.json names no row_token"):
        load_encoder(model)


def test_models_of_several_widths_are_others(tmp_path: Path) -> None:
    """They are published under the name of ColQwen3.5, whose own code knows nothing of them."""
    model, _ = write("colqwen3.5", tmp_path)
    edit_json(model / "config.json", lambda c: c.update(head_dims=[64, 128], mrl_prefix=True))
    with pytest.raises(OctavoError, match=r"head_dims; a model of several widths is no ColQwen3_5"):
        load_encoder(model)


def test_adapters_say_what_is_wrong(folders, tmp_path: Path) -> None:
    model, base = write("colqwen2.5", tmp_path)
    assert base is not None
    edit_tensors(
        model / "adapter_model.safetensors", lambda t: t.pop("base_model.model.custom_text_proj.lora_A.weight")
    )
    with pytest.raises(OctavoError, match=r"1 missing: embedding_proj_layer\.lora_A\.default\.weight"):
        load_encoder(model)
    edit_json(model / "adapter_config.json", lambda c: c.update(base_model_name_or_path="../nowhere"))
    with pytest.raises(QueryError, match=r"no encoder is called '../nowhere'"):
        load_encoder(model)
    edit_json(model / "adapter_config.json", lambda c: c.update(base_model_name_or_path=None))
    with pytest.raises(OctavoError, match="base_model_name_or_path is None"):
        load_encoder(model)
    with pytest.raises(QueryError, match="of the family colpali-hf, which has no tasks"):
        load_encoder(folders["colpali-hf"][0], task="code")
    with pytest.raises(ValueError, match="<image>, which stands for a picture"):
        LateEncoder(folders["colpali-hf"][0]).encode_queries(["see <image>"])
