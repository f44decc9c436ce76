"""Jina v4's folder: every tensor accounted for, and nothing that a hostile one can do but be refused with its name."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import ADAPTER, JINA, SHARDS, base_weights, copied, edit_json, edit_tensors
from safetensors.torch import load_file, save_file

from index.errors import OctavoError
from retriever.encoders.checkpoint import check_tensors, load_strictly, read_json, stored_tensors
from retriever.encoders.jina_v4 import JinaV4
from retriever.encoders.jina_v4_network import _compared

LORA = "model.language_model.layers.1.mlp.up_proj.lora_B.code.weight"
SINGLE = [
    (SHARDS[0], "model.layers.2.self_attn.k_proj.bias", "model.layers.2.self_attn.k_proj.bias"),
    (SHARDS[0], "model.embed_tokens.weight", "model.embed_tokens.weight"),
    (SHARDS[0], "multi_vector_projector.bias", "multi_vector_projector.bias"),
    (SHARDS[0], "lm_head.weight", "lm_head.weight"),
    (SHARDS[1], "visual.blocks.1.norm2.weight", "visual.blocks.1.norm2.weight"),
    (ADAPTER, f"base_model.model.{LORA}", LORA),
]


@pytest.mark.parametrize(("file", "key", "told"), SINGLE)
def test_a_tensor_dropped_renamed_or_reshaped_is_named(tmp_path: Path, file: str, key: str, told: str) -> None:
    folder = copied(tmp_path)
    original = load_file(folder / file)
    changes: list[tuple[str, Callable[[dict[str, torch.Tensor]], Any]]] = [
        (f"1 missing: {told}", lambda t: t.pop(key)),
        (f"1 missing: {told}; 1 unexpected: {told}x", lambda t: t.__setitem__(key + "x", t.pop(key))),
        (f"1 misshapen: {told} ", lambda t: t.__setitem__(key, t[key].flatten()[:-1].clone())),
        (f"1 unexpected: {told}.extra", lambda t: t.__setitem__(key + ".extra", t[key].clone())),
    ]
    for message, change in changes:
        edit_tensors(folder / file, change)
        with pytest.raises(OctavoError) as raised:
            JinaV4(folder)
        assert message in str(raised.value) and str(folder) in str(raised.value)
        edit_tensors(folder / file, lambda t: (t.clear(), t.update(original)))
    JinaV4(folder)


def test_any_one_tensor_is_missed() -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in base_weights().items()}
    expected |= {_compared(name): tuple(tensor.shape) for name, tensor in load_file(JINA / ADAPTER).items()}
    network = JinaV4(JINA).network
    stored = [*stored_tensors(JINA), *stored_tensors(JINA / "adapters", "adapter_model")]
    assert len(stored) == len(expected) == 83 + 132
    cpu, head = torch.device("cpu"), {"lm_head.weight": expected["lm_head.weight"]}
    for left_out in stored:
        rest = [tensor for tensor in stored if tensor is not left_out]
        with pytest.raises(OctavoError, match=f"1 missing: {_compared(left_out.key)}$"):
            load_strictly(network, rest, JINA, _compared, cpu, torch.float32, head)
        wide = [*rest, left_out._replace(shape=(*left_out.shape, 1))]
        with pytest.raises(OctavoError, match=f"1 misshapen: {_compared(left_out.key)} "):
            load_strictly(network, wide, JINA, _compared, cpu, torch.float32, head)
    with pytest.raises(OctavoError, match="is there twice"):
        twice = [*stored, stored[3]._replace(key=stored[3].key.replace("model.", "model.language_model."))]
        load_strictly(network, twice, JINA, _compared, cpu, torch.float32, head)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(OctavoError, match=r"2 missing: a, b; 1 unexpected: d; 1 misshapen: c \[2\] instead of \[1\]$"):
        check_tensors({"a": (1,), "b": (1,), "c": (1,)}, {"c": (2,), "d": (1,)}, Path("m"))


def write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def config(name: str = "config.json", **changes: Any) -> Callable[[Path], object]:
    return lambda folder: edit_json(folder / name, lambda c: c.update(changes))


def text_config(**changes: Any) -> Callable[[Path], object]:
    return lambda folder: edit_json(folder / "config.json", lambda c: c["text_config"].update(changes))


def weight_map(key: str, file: str) -> Callable[[Path], object]:
    name = "model.safetensors.index.json"
    return lambda folder: edit_json(folder / name, lambda c: c["weight_map"].__setitem__(key, file))


def only_pickles(folder: Path) -> None:
    for file in [*SHARDS, "model.safetensors.index.json"]:
        (folder / file).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(OpensAFile(str(folder / "opened"))))


class OpensAFile:
    """Unpickled, it makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def whole_numbers(folder: Path) -> None:
    tensors = load_file(folder / SHARDS[0])
    tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.int64)
    save_file(tensors, folder / SHARDS[0])


BAD = {
    "no config": (lambda f: (f / "config.json").unlink(), "config.json is missing"),
    "config no JSON": (write("config.json", b"{"), "config.json is not JSON"),
    "config deep": (write("config.json", b"[" * 100_000), "config.json is not JSON"),
    "config a list": (write("config.json", b"[]"), "config.json: a JSON object is expected"),
    "a million layers": (text_config(num_hidden_layers=10**9), "config.json: num_hidden_layers is 1000000000"),
    "no layers": (text_config(num_hidden_layers=0), "config.json: num_hidden_layers is 0"),
    "huge table": (text_config(vocab_size=10**12), "model.embed_tokens.weight [448, 64] instead of"),
    "heads that do not fit": (text_config(num_attention_heads=5), "config.json describes no model"),
    "words for numbers": (text_config(hidden_size="many"), "config.json describes no Qwen2.5-VL model"),
    "no token vectors": (config(multi_vector_projector_dim="x"), "config.json describes no model"),
    "a task with dots": (config(task_names=["a.b"]), "config.json: task_names"),
    "another image token": (config(image_token_id=7), "is not the token 7"),
    "a task more": (config(task_names=["retrieval", "text-matching", "code", "new"]), "lora_A.new.weight"),
    "pickles": (only_pickles, "holds pickled weights (pytorch_model.bin)"),
    "no weights": (
        lambda f: [(f / s).unlink() for s in (*SHARDS, "model.safetensors.index.json")],
        "is missing, and so",
    ),
    "a shard elsewhere": (weight_map("lm_head.weight", "../other.safetensors"), "names '../other.safetensors'"),
    "a shard that is no shard": (weight_map("lm_head.weight", "pytorch_model.bin"), "names 'pytorch_model.bin'"),
    "the index is wrong": (weight_map("lm_head.weight", SHARDS[1]), "disagree"),
    "a shard is gone": (lambda f: (f / SHARDS[1]).unlink(), SHARDS[1]),
    "a shard is cut short": (lambda f: os.truncate(f / SHARDS[1], 200_000), SHARDS[1]),
    "a shard is noise": (write(SHARDS[1], b"\xff" * 1000), SHARDS[1]),
    "whole numbers": (whole_numbers, "model.norm.weight is of a type"),
    "no adapters": (lambda f: (f / ADAPTER).unlink(), "adapter_model.safetensors is missing"),
    "DoRA": (config("adapters/adapter_config.json", use_dora=True), "adapter_config.json: use_dora"),
    "no rank": (config("adapters/adapter_config.json", r=0), "adapter_config.json: r is [0]"),
    "another rank": (config("adapters/adapter_config.json", r=4), "lora_A.code.weight [8, 96] instead of [4, 96]"),
    "patterns": (config("adapters/adapter_config.json", rank_pattern={"(a+)+$": 4}), "rank_pattern"),
    "not a number": (config("adapters/adapter_config.json", lora_alpha=float("nan")), "finite numbers"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json is missing"),
    "tokenizer noise": (write("tokenizer.json", b"{}"), "tokenizer.json is not a tokenizer"),
    "tokens over the table": (
        write("tokenizer_config.json", b'{"added_tokens_decoder": {"448": {"content": "<n>"}}}'),
        "448",
    ),
    "no preprocessor": (lambda f: (f / "preprocessor_config.json").unlink(), "preprocessor_config.json is missing"),
    "steps left out": (config("preprocessor_config.json", do_normalize=False), "do_normalize is false"),
    "bounds crossed": (config("preprocessor_config.json", max_pixels=1), "max_pixels 1"),
    "enlarged beyond all": (
        config("preprocessor_config.json", min_pixels=10**12, max_pixels=10**13),
        "min_pixels 1000",
    ),
    "other patches": (config("preprocessor_config.json", patch_size=16), "cuts patches"),
    "no deviation": (config("preprocessor_config.json", image_std=[0, 1, 1]), "image_std"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_folder_that_cannot_be_right_is_refused(tmp_path: Path, case: str) -> None:
    change, message = BAD[case]
    folder = copied(tmp_path)
    change(folder)
    with pytest.raises(OctavoError) as raised:
        JinaV4(folder)
    assert message in str(raised.value) and str(folder) in str(raised.value)
    assert not (folder / "opened").exists()


def test_code_in_the_folder_is_never_run(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    for name in ("configuration_jina_embeddings_v4.py", "modeling_jina_embeddings_v4.py"):
        (folder / name).write_text(f"import os; os.mkdir({str(folder / 'opened')!r})")
    assert "auto_map" in read_json(folder, "config.json")
    JinaV4(folder).encode_text("a")
    assert not (folder / "opened").exists()
