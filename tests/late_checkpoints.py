"""Tiny random checkpoints of the late-interaction families, written in the layouts in which those are published.

`write(family, folder)` gives (model folder, base folder or None); the same bytes every time. `late_golden.py` has the
vectors that the families' own code makes of them.
"""

from __future__ import annotations

import json
import re
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

JINA = Path(__file__).parent / "data" / "jina_v4" / "jina_v4_tiny"
QUERIES = ["What was the revenue growth?", "energy", "Wie hoch war der Umsatz im Jahr 2022?"]
SPECIAL = {
    "paligemma": ["<pad>", "<eos>", "<bos>", "<image>"],
    "tiled": ["<|endoftext|>", "<|im_start|>", "<|begin_of_text|>", "<end_of_utterance>", "<image>", "<global-img>"]
    + ["<fake_token_around_image>"]
    + [f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)],
    "grid": ["<pad>", "<query>", "<doc>", "<img>", "<row>", "<mask>"],
}
TEMPLATE = (
    "{%- if task == 'query' %}{{ query_token }}{% else %}{{ document_token }}{% endif %}"
    "{%- for part in messages[0]['content'] %}{% if part['type'] == 'image' %}{{ image_token }}"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% if task == 'query' %}{{ mask_token * 3 }}{% endif %}"
)
FAMILIES = (
    "colpali-hf",
    "colpali",
    "colqwen2-hf",
    "colqwen2",
    "colqwen2.5",
    "colqwen3",
    "colqwen3.5",
    "colmodernvbert-hf",
    "colsmol",
    "neomme",
)


def pages() -> list[Image.Image]:
    """Three pictures of other shapes than a tile, one of them in grey."""
    rng = np.random.default_rng(5)
    small = [Image.fromarray(rng.integers(0, 256, (7, 5, 3), np.uint8)) for _ in range(3)]
    sizes = [(80, 120), (150, 64), (33, 31)]
    found = [image.resize(size, Image.Resampling.BICUBIC) for image, size in zip(small, sizes, strict=True)]
    return [found[0], found[1], found[2].convert("L")]


def write(family: str, folder: Path) -> tuple[Path, Path | None]:
    """The files of a family's tiny checkpoint below a folder."""
    from retriever.encoders.late_rows import ROWS

    row = next(row for row in ROWS if row.name == family)
    model, config = folder / "model", _config(row.architecture)
    model.mkdir(parents=True)
    if family == "colqwen3.5":  # as transformers 5 writes it
        (model / "processor_config.json").write_text(json.dumps({"image_processor": _preprocessor(row)}), "utf-8")
    else:
        (model / "preprocessor_config.json").write_text(json.dumps(_preprocessor(row)), "utf-8")
    if row.reader == "tiles":
        (model / "processor_config.json").write_text(json.dumps({"image_seq_len": 4}), "utf-8")
    _tokenizer(row.reader, model)
    names = _names(row, config)
    if not row.adapted:
        _save(model, config, names)
        return model, None
    base = folder / "base"
    base.mkdir()
    _save(base, config, names)
    _save_adapter(model, base, row, names)
    return model, base


def _names(row: Any, config: dict[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name in the published layout -> (ours, shape)."""
    import transformers

    from retriever.encoders.late_network import Network

    inner = getattr(transformers, row.config).from_dict(config.get("vlm_config", config))
    with torch.device("meta"):
        network = Network(row.backbone, inner, config.get("dim", row.dim), row.bias)
    return {_published(row.name, n): (n, tuple(t.shape)) for n, t in network.state_dict().items()}


def _published(family: str, name: str) -> str:
    """The name of a tensor as the family's files have it."""
    plain = name.removeprefix("vlm.")
    if family == "neomme":
        return name.replace("vlm.", "model.", 1).replace("embedding_proj_layer", "multi_vector_head.proj")
    if name.startswith("embedding_proj_layer."):
        last = name.split(".")[-1]
        native = "embedding_proj_layer" if family.endswith("-hf") else "custom_text_proj"
        return f"{'linear' if family == 'colsmol' else native}.{last}"
    if family.startswith("colqwen3"):
        return plain
    if family.startswith("colpali"):
        plain = plain.replace("language_model.", "language_model.model.", 1)
        plain = plain.replace("vision_tower.", "vision_tower.vision_model.", 1)
        return ("vlm." if family == "colpali-hf" else "model.") + plain
    if family == "colqwen2-hf":
        return "vlm.model." + plain
    if family in ("colqwen2", "colqwen2.5"):
        return plain.replace("language_model.", "model.", 1)
    return ("vlm." if family == "colmodernvbert-hf" else "model.") + plain


def _values(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    drawn = rng.standard_normal(shape) * (0.15 if len(shape) > 1 else 0.1)
    grown = re.search(r"(norm|ln_q|layer_norm\d|layernorm)\.weight", name) and "language_model.model" not in name
    return torch.tensor(drawn + 1 if grown else drawn, dtype=torch.float32)


def _save(folder: Path, config: dict[str, Any], names: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    save_file({n: _values(n, shape) for n, (_, shape) in names.items()}, folder / "model.safetensors", {"format": "pt"})


def _save_adapter(folder: Path, base: Path, row: Any, names: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    adapted = {n.removesuffix(".weight"): s for n, (ours, s) in names.items() if _adapts(row, ours)}
    tensors = {}
    for module, (out, wide) in adapted.items():
        for part, shape in (("A", (4, wide)), ("B", (out, 4))):
            name = f"base_model.model.{module}.lora_{part}.weight"
            tensors[name] = _values(name, shape)
    config = {"base_model_name_or_path": str(base), "peft_type": "LORA", "r": 4, "lora_alpha": 8, "lora_dropout": 0.1}
    config |= {"bias": "none", "task_type": "FEATURE_EXTRACTION", "inference_mode": True}
    config["target_modules"] = "(.*(model).*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj).*$|.*(%s).*$)" % (
        "linear$" if row.name == "colsmol" else "custom_text_proj"
    )
    config["exclude_modules"] = ".*(visual|vision_tower|vision_model).*"
    (folder / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})


def _adapts(row: Any, ours: str) -> bool:
    return ours.endswith(".weight") and re.fullmatch(row.adapted, ours.removesuffix(".weight")) is not None


def _tokenizer(reader: str, folder: Path) -> None:
    if reader == "qwen":
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            shutil.copy(JINA / name, folder)
        return
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    special = SPECIAL[{"whole": "paligemma", "tiles": "tiled"}.get(reader, reader)]
    vocabulary = {token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    if reader == "whole":
        config |= {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>"}
    elif reader == "grid":
        config |= {"pad_token": "<pad>", "mask_token": "<mask>"}
        config["extra_special_tokens"] = {
            "image_token": "<img>",
            "document_token": "<doc>",
            "query_token": "<query>",
            "row_token": "<row>",
        }
        (folder / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
    else:
        config |= {"pad_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")


def _preprocessor(row: Any) -> dict[str, Any]:
    reader, half = row.reader, [0.5, 0.5, 0.5]
    if reader == "qwen":
        shared = {"image_processor_type": "Qwen2VLImageProcessor", "min_pixels": 3136, "max_pixels": 15680}
        third = {"patch_size": 16, "image_mean": half, "image_std": half}
        return shared | (third if row.name.startswith("colqwen3") else {"patch_size": 14})
    if reader == "whole":
        size = {"height": 56, "width": 56}
        shared = {"image_processor_type": "SiglipImageProcessor", "image_seq_length": 16, "size": size, "resample": 3}
        return shared | {"image_mean": half, "image_std": half}
    if reader == "grid":
        kind = {"image_processor_type": "NeoMMEImageProcessor", "patch_size": 16, "max_side": 128}
        return kind | {"image_mean": half, "image_std": half}
    tiles = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}, "resample": 1}
    return {"image_processor_type": "Idefics3ImageProcessor", **tiles, "image_mean": half, "image_std": half}


def _config(architecture: str) -> dict[str, Any]:
    text = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    siglip = text | {"model_type": "siglip_vision_model", "image_size": 56, "patch_size": 14}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    named = {"architectures": [architecture]}
    if "Qwen" in architecture:
        wide = text | ids | {"vocab_size": 448, "num_key_value_heads": 1, "rope_theta": 1e6}
        wide |= {"rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}, "max_position_embeddings": 4096}
        kind = {"ColQwen2_5": "qwen2_5_vl", "ColQwen3": "qwen3_vl", "ColQwen3_5": "qwen3_5"}.get(
            architecture, "qwen2_vl"
        )
        vision: dict[str, Any] = {
            "depth": 2,
            "num_heads": 2,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "hidden_size": 32,
        }
        if kind == "qwen2_5_vl":
            vision |= {"intermediate_size": 48, "out_hidden_size": 32, "fullatt_block_indexes": [1]}
            vision |= {"window_size": 56, "model_type": kind}
        elif kind in ("qwen3_vl", "qwen3_5"):
            vision |= {"intermediate_size": 48, "out_hidden_size": 32, "patch_size": 16, "model_type": kind}
            vision |= {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
            rope: dict[str, Any] = {"rope_type": "default", "mrope_section": [2, 3, 3], "mrope_interleaved": True}
            wide |= {"head_dim": 16, "rope_scaling": rope}
            if kind == "qwen3_5":
                named |= {"dim": 64}
                heads = {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
                wide |= heads | {"linear_key_head_dim": 8, "linear_value_head_dim": 8}
                wide |= {"layer_types": ["linear_attention", "full_attention"]}
                rope |= {"mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5}
        else:
            vision |= {"embed_dim": 32, "mlp_ratio": 2, "model_type": kind}
        tokens = {
            "image_token_id": 406,
            "video_token_id": 407,
            "vision_start_token_id": 403,
            "vision_end_token_id": 404,
        }
        inner = tokens | {
            "model_type": kind,
            "text_config": wide | {"model_type": f"{kind}_text"},
            "vision_config": vision,
        }
        inner |= {"tie_word_embeddings": True}
        return _outer(architecture, inner, named)
    if "NeoMME" in architecture:
        wide = text | {"model_type": "neomme", "vocab_size": 262, "embedding_rank": 16, "num_key_value_heads": 1}
        wide |= {"head_dim": 16, "sliding_window": 8, "patch_size": 16, "embedding_dim": 128, "num_hidden_layers": 3}
        return wide | {"pad_token_id": 256, "document_token_id": 258, "image_token_id": 259} | named
    if "ColPali" in architecture:
        wide = text | ids | {"model_type": "gemma", "vocab_size": 260, "num_key_value_heads": 1, "head_dim": 16}
        inner = {"model_type": "paligemma", "text_config": wide, "vision_config": siglip | {"projection_dim": 32}}
        inner |= {"projection_dim": 32, "hidden_size": 32, "image_token_index": 259, "tie_word_embeddings": True}
        return _outer(architecture, inner, named)
    vision = siglip | {"image_size": 32, "patch_size": 8}
    vocabulary = 256 + len(SPECIAL["tiled"])
    shared = {"image_token_id": 260, "tie_word_embeddings": False, **ids}
    if architecture == "ColIdefics3":
        wide = text | ids | {"model_type": "llama", "vocab_size": vocabulary, "num_key_value_heads": 1}
        inner = shared | {"model_type": "idefics3", "scale_factor": 2, "text_config": wide}
        return _outer(architecture, inner | {"vision_config": vision | {"model_type": "idefics3_vision"}}, named)
    wide = text | {"model_type": "modernbert", "vocab_size": vocabulary, "local_attention": 16}
    wide |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    inner = shared | {
        "model_type": "modernvbert",
        "pixel_shuffle_factor": 2,
        "text_config": wide,
        "vision_config": vision,
    }
    return _outer(architecture, inner, named)


def _outer(architecture: str, inner: dict[str, Any], named: dict[str, Any]) -> dict[str, Any]:
    kinds = {"ColPaliForRetrieval": "colpali", "ColQwen2ForRetrieval": "colqwen2"}
    if not architecture.endswith("ForRetrieval"):
        return inner | named
    return {"model_type": kinds.get(architecture, "colmodernvbert"), "embedding_dim": 128, "vlm_config": inner, **named}
