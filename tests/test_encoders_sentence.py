"""Models of sentence-transformers: loading, refusing, values, an index of pages by their words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import edit_json, edit_tensors
from words import document

from index.errors import OctavoError
from retriever import Retriever, load_encoder

sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6")
QUERIES = ["What about the energy?", "growth"]
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "energy",
    "revenue",
    "growth",
    "page",
    "about",
    "the",
    "what",
    "?",
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ColBERT, as sentence-transformers saves one."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("colbert")
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    special = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder / "hf")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=64, **sizes)).save_pretrained(folder / "hf")
    sentence_transformers.MultiVectorEncoder(str(folder / "hf"), device="cpu").save_pretrained(str(folder / "model"))
    return folder / "model"


def test_vectors_are_those_of_sentence_transformers(saved: Path) -> None:
    model, theirs = load_encoder(saved), sentence_transformers.MultiVectorEncoder(str(saved), device="cpu")
    assert model.fingerprint["family"] == "sentence-transformers" and model.dim == 128
    for ours, wanted in zip(model.encode_queries(QUERIES), theirs.encode_query(QUERIES), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=0, atol=2e-6)
    for ours, wanted in zip(
        model.encode_document(["energy page"]), theirs.encode_document(["energy page"]), strict=True
    ):
        np.testing.assert_allclose(ours, wanted, rtol=0, atol=2e-6)
    assert model.query_tokens(["growth page"]) == [["[CLS]", "growth", "page", "[SEP]"]]
    scores = model.similarity(model.encode_query(QUERIES), model.encode_document(["energy page", "growth"]))
    wanted = theirs.similarity(theirs.encode_query(QUERIES), theirs.encode_document(["energy page", "growth"]))
    np.testing.assert_allclose(scores, wanted, rtol=0, atol=1e-5)


def test_pages_are_indexed_by_their_words(saved: Path, tmp_path: Path) -> None:
    file = document(tmp_path / "report.pdf", ["energy about the page", "", "revenue growth"])
    with Retriever.open(tmp_path / "index", load_encoder(saved), codec="fp16", candidates="exact") as retriever:
        assert retriever.add(file).pages == 3
        hits = retriever.search("revenue growth", mode="visual")
    assert [hit.page for hit in hits][0] == 3 and len(hits) == 2, "a page without words has no vectors"


def test_what_is_not_whole_or_not_safe_is_refused(saved: Path, tmp_path: Path) -> None:
    def refused(change, message: str) -> None:
        shutil.rmtree(tmp_path / "model", ignore_errors=True)
        shutil.copytree(saved, tmp_path / "model")
        change(tmp_path / "model")
        with pytest.raises(OctavoError, match=message):
            load_encoder(tmp_path / "model")

    def module(**changes: str):
        def change(folder: Path) -> None:
            modules = json.loads((folder / "modules.json").read_text("utf-8"))
            modules[1].update(changes)
            (folder / "modules.json").write_text(json.dumps(modules), "utf-8")

        return change

    def pickled(folder: Path) -> None:
        (folder / "1_Dense" / "model.safetensors").rename(folder / "1_Dense" / "pytorch_model.bin")

    norm = "encoder.layer.1.output.LayerNorm.bias"
    for drop in (lambda t: t.pop(norm), lambda t: t.__setitem__(norm + "x", t.pop(norm))):
        refused(lambda folder, drop=drop: edit_tensors(folder / "model.safetensors", drop), norm)
    refused(lambda f: edit_tensors(f / "model.safetensors", lambda t: t.__setitem__(norm, torch.zeros(7))), norm)
    refused(lambda f: edit_tensors(f / "1_Dense" / "model.safetensors", lambda t: t.clear()), "does not load")
    refused(module(type="custom.Dense"), "custom.Dense is not sentence-transformers' own")
    refused(module(path="../../elsewhere"), "lies outside the folder")
    refused(pickled, r"pickled weights \(pytorch_model.bin\)")
    refused(
        lambda f: edit_json(f / "1_Dense" / "config.json", lambda c: c.update(activation_function="os.system")), "code"
    )
    trusting = {"model_args": {"trust_remote_code": True}}
    refused(lambda f: edit_json(f / "sentence_bert_config.json", lambda c: c.update(trusting)), "asks for code")
    refused(lambda f: (f / "modules.json").write_text("{"), "is no list of modules")
