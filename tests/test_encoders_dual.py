"""CLIP and SigLIP against transformers' own: loading, vectors, texts that are cut, an index of single vectors."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import edit_json, edit_tensors
from dual_checkpoints import FAMILIES, TEXTS, reference, saved, write
from late_checkpoints import pages
from PIL import Image

from index.errors import OctavoError, QueryError
from retriever import Retriever, load_encoder
from retriever.encoders.checkpoint import load_strictly, stored_tensors
from retriever.encoders.dual import DualEncoder
from retriever.encoders.single import SingleVectors


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("dual")
    return {family: write(family, place / family) for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
def test_vectors_equal_those_of_transformers(family: str, folders) -> None:
    model = load_encoder(folders[family])
    pictures = [*pages(), pages()[0].rotate(180)]
    of_pictures, of_texts = reference(family, folders[family], pictures, TEXTS)
    assert model.dim == model.single_dim == of_pictures.shape[1] == of_texts.shape[1]
    found = model.embed_pictures(pictures)
    np.testing.assert_allclose(np.stack([one.single for one in found]), of_pictures, rtol=0, atol=2e-5)
    np.testing.assert_allclose(model.encode_queries_single(TEXTS), of_texts, rtol=0, atol=2e-5)
    apart = np.linalg.norm(of_texts[:, None] - of_texts[None], axis=-1)[~np.eye(len(TEXTS), dtype=bool)]
    assert apart.min() > 0.02 and np.linalg.norm(of_pictures[0] - of_pictures[3]) > 0.02
    for one, multi in zip(found, of_pictures, strict=True):
        assert one.multi.shape == (1, model.dim) and not one.boxes.any(), "one vector, which lies nowhere"
        np.testing.assert_allclose(one.multi[0], multi, rtol=0, atol=2e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_batch_changes_nothing(family: str, folders) -> None:
    model = DualEncoder(folders[family], batch_size=2)
    told: list[tuple[int, int]] = []
    many = [*pages(), *(page.rotate(180) for page in pages()), *pages()]
    together = model.embed_pictures(many, progress=lambda done, n: told.append((done, n)))
    assert told == [(8, 9), (9, 9)]
    for one, found in zip(many, together, strict=True):
        np.testing.assert_allclose(found.single, model.embed_pictures([one])[0].single, rtol=0, atol=2e-6)
    for text, found in zip(TEXTS, model.encode_queries(TEXTS), strict=True):
        np.testing.assert_allclose(found, model.encode_queries([text])[0], rtol=0, atol=2e-6)


def test_texts_are_written_as_the_models_were_trained(folders) -> None:
    """What is beyond their length is cut, small and capital letters are the same; punctuation only where it stayed."""
    for family in FAMILIES:
        model = DualEncoder(folders[family])
        long, cut, small = "x y " * 100, "x y " * 100 + "energy", "X Y " * 100
        ids = model._ids(long)
        assert len(ids) == (77 if family == "clip" else 64) and ids == model._ids(cut) == model._ids(small)
        assert (model._ids("what, now") == model._ids("what now")) == (family == "siglip")


def test_words_of_sentence_transformers(folders) -> None:
    model = load_encoder(folders["siglip2"])
    queries, documents = model.encode_query(TEXTS[:2]), model.encode_document(pages())
    wanted = np.concatenate(queries) @ np.concatenate(documents).T
    np.testing.assert_allclose(model.similarity(queries, documents), wanted, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="takes pictures as documents"):
        model.encode_document("a passage")


@pytest.mark.parametrize("family", FAMILIES)
def test_any_one_tensor_is_missed(family: str, folders) -> None:
    network, stored = DualEncoder(folders[family]).network, stored_tensors(folders[family])
    counted = {tensor.key: tensor.shape for tensor in stored if tensor.key.endswith("position_ids")}
    assert len(counted) == (2 if family == "clip" else 0) and len(stored) == len(network.state_dict()) + len(counted)
    load = partial(load_strictly, network, source=folders[family], published=str, device=torch.device("cpu"))
    for left_out in stored:
        rest = [tensor for tensor in stored if tensor is not left_out]
        for message, given in {
            "1 missing: ": rest,
            "1 unexpected: ": [*rest, left_out._replace(key="x." + left_out.key)],
            "1 misshapen: ": [*rest, left_out._replace(shape=(7, *left_out.shape))],
        }.items():
            with pytest.raises(OctavoError, match=message):
                load(stored=given, dtype=torch.float32, unused=counted)


def test_an_index_of_it_has_single_vectors(folders, tmp_path: Path) -> None:
    files = []
    for place, page in enumerate(pages()):
        files.append(tmp_path / f"page{place}.png")
        page.save(files[-1])
    model = load_encoder(folders["siglip"])
    with Retriever.open(tmp_path / "index", str(folders["siglip"]), codec="fp16") as retriever:
        assert retriever.add(files).pages == 3 and isinstance(retriever.encoder, SingleVectors)
        with retriever.index.snapshot() as snapshot:
            assert snapshot.state.tokens == 3 and snapshot.first_stage.kind == "pooled"
    with Retriever.open(tmp_path / "index", model) as retriever:
        hits = retriever.search("ENERGY", mode="visual")
        query = model.encode_queries_single(["energy"])[0]
        for hit in hits:
            page = model.embed_pictures([np.asarray(Image.open(hit.path).convert("RGB"))])[0].single.numpy()
            assert hit.score == pytest.approx(float(query @ page), abs=0.03)
        first = retriever.search(image=files[1], mode="visual")[0]
        assert first.path == str(files[1]) and first.score == pytest.approx(1, abs=5e-3) and first.boxes() == []
        assert np.array_equal(np.asarray(first.heatmap()), np.asarray(first.image())), "there is no heat map"
    with pytest.raises(QueryError, match="32 components; got dim 16"):
        Retriever.open(tmp_path / "other", model, vectors="single", dim=16)


@pytest.mark.parametrize("family", FAMILIES)
def test_folders_that_transformers_5_wrote(family: str, folders, tmp_path: Path) -> None:
    folder = write(family, tmp_path / "model")
    model, processor = saved(family, folder)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "preprocessor_config.json").unlink()
    assert (folder / "processor_config.json").exists()
    ours, before = load_encoder(folder), DualEncoder(folders[family])
    np.testing.assert_array_equal(ours.encode_queries_single(TEXTS), before.encode_queries_single(TEXTS))
    np.testing.assert_array_equal(ours.embed_pictures(pages())[1].single, before.embed_pictures(pages())[1].single)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    def refused(family: str, file: str, change, message: str) -> None:
        folder = write(family, tmp_path / str(len(list(tmp_path.iterdir()))))
        (edit_tensors if file.endswith("safetensors") else edit_json)(folder / file, change)
        with pytest.raises(OctavoError, match=message):
            load_encoder(folder)

    pictures, tokens, weights = "preprocessor_config.json", "tokenizer_config.json", "model.safetensors"
    refused("clip", pictures, lambda c: c.update(size=10**6), "the model sees 32 pixels square")
    refused("siglip", pictures, lambda c: c.update(size={"height": [32]}), r"size \[\{'height': \[32\]\}\]")
    refused("clip", pictures, lambda c: c.pop("crop_size"), "is not usable|are expected")
    refused("clip", pictures, lambda c: c.update(do_center_crop=False), r"\['do_center_crop'\] off")
    refused("siglip", pictures, lambda c: c.update(image_mean="x"), r"preprocessor_config\.json is not usable")
    refused("siglip2-naflex", pictures, lambda c: c.update(max_num_patches=10**9), "max_num_patches 1000000000")
    refused("siglip2-naflex", pictures, lambda c: c.update(patch_size=4), r"\(1, 20, 192\) with all on are expected")
    refused("siglip", tokens, lambda c: c.pop("pad_token"), "names no pad_token")
    refused("siglip", tokens, lambda c: c.update(eos_token="</t>"), r"has no token '</t>'")
    refused("siglip", "config.json", lambda c: c["text_config"].update(vocab_size=40), "1 misshapen: text_model")
    refused("siglip2", weights, lambda t: t.update(steps=torch.arange(3)), "steps is of a type that weights are not")
    refused("siglip2", weights, lambda t: t.update({"a.position_ids": torch.arange(3)}), "1 unexpected: a.position_ids")
    refused("siglip", "config.json", lambda c: c["text_config"].update(projection_size=8), "misshapen: text_model.head")
    model = DualEncoder(write("clip", tmp_path / "clip"))
    with pytest.raises(ValueError, match="one side may be at most 200 times the other"):
        model.embed_pictures([np.zeros((1, 300, 3), np.uint8)])
