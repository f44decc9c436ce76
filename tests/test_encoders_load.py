"""`load_encoder`: families by their config, the hub's cache, self-check, licences; and `octavo models`."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import ADAPTER, DATA, JINA, SHARDS, copied, edit_json, edit_tensors

from index.errors import EncoderMismatch, OctavoError, QueryError
from ingest.page import Page, PageTokens
from retriever import Retriever, load_encoder
from retriever.encoders.families import family_of
from retriever.encoders.hub import licence_of
from retriever.encoders.selfcheck import self_check
from retriever.models import MODELS, best, fits, licence, pinned

PAGE = DATA / "jina_v4" / "images" / "page0.png"
OCTAVO = Path(sys.executable).with_name("octavo")


def test_the_family_is_read_from_the_config(tmp_path: Path) -> None:
    shutil.copytree(JINA, tmp_path / "colpali-v1.2")
    model = load_encoder(tmp_path / "colpali-v1.2", task="code", dtype="bfloat16", device="cpu")
    assert model.fingerprint["family"] == "jina-embeddings-v4" and model.fingerprint["task"] == "code"
    assert model.fingerprint["name"] == str(tmp_path / "colpali-v1.2")
    assert next(model.network.parameters()).dtype == torch.bfloat16
    edit_json(tmp_path / "colpali-v1.2" / "config.json", lambda c: c.update(architectures=["BertModel"]))
    with pytest.raises(OctavoError, match=r"architecture \['BertModel'\].*Supported are JinaEmbeddingsV4Model"):
        family_of(tmp_path / "colpali-v1.2")


def test_rivals_that_need_code_of_others_are_refused_with_the_reason(tmp_path: Path) -> None:
    towers, timm = r"built by code in a second repository.*; use google/siglip2", r"the layout of open_clip.*timm"
    for name, reason in (("jinaai/jina-clip-v2", towers), ("visheratin/nllb-clip-large-siglip", timm)):
        with pytest.raises(OctavoError, match=rf"^{name} cannot be loaded: .*{reason}"):
            load_encoder(name)
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": {"embed_dim": 1152}}', "utf-8")
    with pytest.raises(OctavoError, match=rf"^{tmp_path} cannot be loaded: .*{timm}"):
        load_encoder(tmp_path)
    config = {"architectures": ["JinaCLIPModel"], "auto_map": {"AutoModel": "jinaai/jina-clip-implementation--m.M"}}
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(OctavoError, match=rf"^{tmp_path} cannot be loaded: .*{towers}"):
        load_encoder(tmp_path)
    edit_json(tmp_path / "config.json", lambda c: c.update(architectures=["CLIPModel", 3]))
    assert family_of(tmp_path).name == "clip", "many folders hold both layouts"


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        QueryError, match="no encoder is called 'clip', nor is there such a folder; known: octavo-box-1"
    ):
        load_encoder("clip")
    with pytest.raises(OctavoError, match=r"config\.json is missing"):
        load_encoder(tmp_path)
    with pytest.raises(ValueError, match="dtype nn: one of float32, bfloat16, float16, float64 is expected"):
        load_encoder(JINA, dtype="nn")


def test_licences_are_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = copied(tmp_path)
    with caplog.at_level(logging.WARNING):
        load_encoder(folder)
        load_encoder(folder)
    told = [record.getMessage() for record in caplog.records if "licence" in record.getMessage()]
    assert told == [f"{folder}: licence CC-BY-NC-4.0 (its base model: Qwen Research): not for commercial use"]
    (folder / "README.md").write_text(
        "---\ntags: [a]\nlicense: other\nlicense_name: qwen-research\n---\nlicense: no", "utf-8"
    )
    assert licence_of(folder) == "qwen-research" and licence_of(tmp_path) == ""
    assert licence("jinaai/jina-embeddings-v4", "") == MODELS[1].licence and licence("x/y", "unheard of") == ""


def broken(change, tmp_path: Path):
    folder = copied(tmp_path)
    edit_tensors(folder / SHARDS[0], change)
    return folder


def test_a_model_that_does_not_work_is_not_handed_out(tmp_path: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.norm.weight"][3] = float("nan")

    with pytest.raises(OctavoError, match="are not finite"):
        load_encoder(broken(spoil, tmp_path))
    other = tmp_path / "zero"
    other.mkdir()

    def empty(tensors: dict[str, torch.Tensor]) -> None:
        tensors["multi_vector_projector.weight"].zero_()

    folder = broken(empty, other)
    edit_tensors(folder / ADAPTER, lambda t: [t[n].zero_() for n in t if "multi_vector_projector" in n])
    with pytest.raises(OctavoError, match="vectors of queries are all alike"):
        load_encoder(folder)


def test_vectors_that_depend_on_the_batch_are_noticed() -> None:
    class Careless:
        single_dim = None

        def encode_queries(self, texts: list[str]) -> list[np.ndarray]:
            return [np.eye(4, dtype=np.float32)[[min(len(text), 3)]] for text in texts]

        def encode_pages(self, pages: list[Page]) -> list[PageTokens]:
            vectors = np.eye(4, dtype=np.float32)[[len(pages)]]
            return [PageTokens(vectors, np.zeros((1, 4), np.float32)) for _ in pages]

    with pytest.raises(OctavoError, match="x: the vectors of pages depend on what else is in the batch"):
        self_check(Careless(), 4, "x")


HUB = """
import json
from index.errors import OctavoError
from retriever import load_encoder
model = load_encoder("jinaai/jina-embeddings-v4")
print(json.dumps([model.fingerprint["name"], sorted(model.fingerprint["weights"]), str(model.folder)]))
try:
    load_encoder("jinaai/jina-embeddings-v4", revision="0" * 40)
except OctavoError as error:
    print(error)
"""


def test_models_come_from_the_hubs_cache_at_the_pinned_revision(tmp_path: Path) -> None:
    revision = pinned("jinaai/jina-embeddings-v4")
    assert revision is not None and len(revision) == 40
    snapshots = tmp_path / "hub" / "models--jinaai--jina-embeddings-v4" / "snapshots"
    shutil.copytree(JINA, snapshots / revision)
    (snapshots / revision / "modeling_jina_embeddings_v4.py").write_text("raise SystemExit('run')")
    env = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", HUB], capture_output=True, text=True, timeout=600, env=env
    )
    assert done.returncode == 0, done.stderr
    told, refused = done.stdout.splitlines()
    name, files, folder = json.loads(told)
    assert name == "jinaai/jina-embeddings-v4" and folder == str(snapshots / revision)
    assert files == sorted(["config.json", "tokenizer.json", *SHARDS, ADAPTER])
    assert "jinaai/jina-embeddings-v4: licence CC-BY-NC-4.0" in done.stderr
    assert f"at revision {'0' * 40} is neither on this machine nor could it be fetched" in refused


def test_an_index_knows_its_model_wherever_it_lies(tmp_path: Path) -> None:
    shutil.copytree(JINA, tmp_path / "one")
    shutil.copytree(JINA, tmp_path / "two")
    with Retriever.open(tmp_path / "index", load_encoder(tmp_path / "one")) as retriever:
        retriever.add(PAGE)
    with Retriever.open(tmp_path / "index") as retriever:  # the folder that the index names
        hit = retriever.search("energy", mode="visual")[0]
    shutil.rmtree(tmp_path / "one")
    for encoder in (str(tmp_path / "two"), load_encoder(tmp_path / "two")):
        with Retriever.open(tmp_path / "index", encoder) as retriever:
            assert retriever.search("energy", mode="visual")[0].score == pytest.approx(hit.score, abs=1e-5)
    edit_tensors(tmp_path / "two" / SHARDS[0], lambda t: t["model.norm.weight"].mul_(2))
    with pytest.raises(EncoderMismatch, match=f"weights.{SHARDS[0]}"):
        Retriever.open(tmp_path / "index", load_encoder(tmp_path / "two"))
    with pytest.raises(EncoderMismatch, match="octavo-box-1"):
        Retriever.open(tmp_path / "index", "octavo-box-1")


def test_the_command_line_takes_a_model(tmp_path: Path) -> None:
    shutil.copytree(JINA, tmp_path / "jina")

    def octavo(*words: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run([OCTAVO, *words], capture_output=True, text=True, timeout=600, cwd=tmp_path, env=env)

    added = octavo("add", str(PAGE), "--index", "./pages", "--encoder", "./jina", "--json")
    assert added.returncode == 0 and json.loads(added.stdout)["pages"] == 1, added.stderr
    assert "licence CC-BY-NC-4.0" in added.stderr
    found = octavo("search", "energy", "--mode", "visual", "--index", "./pages", "--json")
    assert found.returncode == 0, found.stderr
    (hit,) = json.loads(found.stdout)["hits"]
    assert hit["path"] == str(PAGE) and [token for token, _ in hit["tokens"]][:2] == ["Query", ":"]


def test_the_table_says_what_fits() -> None:
    jina = next(model for model in MODELS if model.name == "jinaai/jina-embeddings-v4")
    assert fits(jina, 16, 0) == "" and fits(jina, 24, 0) == "CPU" and fits(jina, 16, 12) == "GPU"
    assert best(24, 0).name == "octavo-box-1"
    assert best(64, 80).scores[2] == max(model.scores[2] or 0 for model in MODELS)
    for model in MODELS:
        assert model.revision is None or len(model.revision) == 40, model.name
        assert model.licence and max(model.dim, model.single) > 0 and (model.gigabytes > 0 or model.refused)
        assert not (model.refused and fits(model, 1000, 1000)), model.name


def test_octavo_models_lists_them() -> None:
    shown = subprocess.run([OCTAVO, "models"], capture_output=True, text=True, timeout=300, check=True).stdout
    for model in MODELS:
        assert model.name in shown and model.licence in shown and model.refused in shown
    assert "Fits this machine best" in shown
    plain = subprocess.run([OCTAVO, "models", "--json"], capture_output=True, text=True, timeout=300, check=True).stdout
    found = json.loads(plain)
    assert [model["name"] for model in found["models"]] == [model.name for model in MODELS]
    assert found["fits_best"] in {model.name for model in MODELS}
