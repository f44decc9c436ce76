"""Tiny random CLIP and SigLIP checkpoints in their published layouts: `write(family, folder)`, the same every time.

`reference` gives what transformers' own model, processors and tokenizers make of pictures and texts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from late_checkpoints import _values
from PIL import Image
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

FAMILIES = {"clip": "CLIPModel", "siglip": "SiglipModel", "siglip2": "SiglipModel", "siglip2-naflex": "Siglip2Model"}
TEXTS = [
    "What was the revenue growth?",
    "ENERGY",
    "",
    "Wie hoch war der Umsatz, im Jahr 2022? " * 9,
    "é ≠ e; so:  what",
]
LETTERS = sorted(set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789?,.;:'≠é▁"))
HALF = [0.5, 0.5, 0.5]


def write(family: str, folder: Path) -> Path:
    """The files of a family's tiny checkpoint in a folder."""
    import transformers

    folder.mkdir(parents=True)
    kind = FAMILIES[family]
    _json(folder / "preprocessor_config.json", _preprocessor(family))
    vocabulary = {"clip": _clip, "siglip": _siglip}.get(family, _gemma)(folder)
    config = _config(family, kind, vocabulary)
    _json(folder / "config.json", config)
    built = getattr(transformers, kind)(getattr(transformers, kind.replace("Model", "Config")).from_dict(config))
    tensors = {name: _values(name, tuple(tensor.shape)) for name, tensor in built.state_dict().items()}
    if family == "clip":  # as OpenAI's hold them
        for tower, length in (("text", 77), ("vision", 17)):
            tensors[f"{tower}_model.embeddings.position_ids"] = torch.arange(length)[None]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def saved(family: str, folder: Path) -> tuple[Any, Any]:
    """The family's model and processor, of transformers alone."""
    import transformers

    kind = FAMILIES[family]
    stem = kind.removesuffix("Model")
    images = getattr(transformers, f"{stem}ImageProcessorPil").from_pretrained(folder)
    named = {"clip": "CLIPTokenizer", "siglip": "PreTrainedTokenizerFast"}.get(family, "Siglip2Tokenizer")
    tokenizer = getattr(transformers, named).from_pretrained(folder)
    processor = getattr(transformers, f"{stem}Processor")(image_processor=images, tokenizer=tokenizer)
    return getattr(transformers, kind).from_pretrained(folder).eval(), processor


@torch.no_grad()
def reference(family: str, folder: Path, pictures: list[Image.Image], texts: list[str]) -> tuple[Any, Any]:
    """(n, D) of pictures and of texts, of norm 1, by transformers alone."""
    model, processor = saved(family, folder)
    length, padding = (77, True) if family == "clip" else (64, "max_length")
    ids = processor(text=texts, padding=padding, truncation=True, max_length=length, return_tensors="pt")
    assert ("attention_mask" in ids) == (family == "clip")
    # Siglip2Processor has its own 256 patches of 16 pixels, whatever the file says
    pixels = processor.image_processor([picture.convert("RGB") for picture in pictures], return_tensors="pt")
    found = model.get_image_features(**pixels), model.get_text_features(**ids)
    return tuple(torch.nn.functional.normalize(one.pooler_output, dim=-1).numpy() for one in found)


def _json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content), "utf-8")


def _preprocessor(family: str) -> dict[str, Any]:
    if family == "clip":
        clip = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
        clip |= {"crop_size": 32, "size": 32, "resample": 3, "do_center_crop": True, "do_normalize": True}
        return clip | {"do_resize": True, "feature_extractor_type": "CLIPFeatureExtractor"}
    shared = {"image_mean": HALF, "image_std": HALF, "do_resize": True, "rescale_factor": 1 / 255, "resample": 2}
    if family == "siglip2-naflex":
        return shared | {"image_processor_type": "Siglip2ImageProcessor", "max_num_patches": 20, "patch_size": 8}
    shared |= {"resample": 3} if family == "siglip" else {}
    return shared | {"image_processor_type": "SiglipImageProcessor", "size": {"height": 32, "width": 32}}


def _config(family: str, kind: str, vocabulary: int) -> dict[str, Any]:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    stem = {"CLIPModel": "clip", "SiglipModel": "siglip", "Siglip2Model": "siglip2"}[kind]
    text = sizes | {"model_type": f"{stem}_text_model", "vocab_size": vocabulary, "bos_token_id": 0, "eos_token_id": 1}
    vision = sizes | {"model_type": f"{stem}_vision_model", "patch_size": 8, "image_size": 32}
    config: dict[str, Any] = {"architectures": [kind], "model_type": stem, "initializer_factor": 1.0}
    if family == "clip":
        text |= {"eos_token_id": 2, "hidden_size": 24}  # the eos that OpenAI's configs name
        config |= {"projection_dim": 16, "logit_scale_init_value": 2.6592}
    elif family == "siglip2-naflex":
        del vision["image_size"]
        vision |= {"num_patches": 16}
    else:
        text |= {"hidden_size": 24, "projection_size": 32}
    return config | {"text_config": text, "vision_config": vision}


def _saved(tokenizer: Tokenizer, folder: Path, **config: Any) -> int:
    tokenizer.save(str(folder / "tokenizer.json"))
    _json(folder / "tokenizer_config.json", config)
    return tokenizer.get_vocab_size()


def _clip(folder: Path) -> int:
    from transformers import CLIPTokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "en", "en</w>", "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: id for id, token in enumerate(words)}
    tokenizer = CLIPTokenizer(vocabulary, [("e", "n"), ("e", "n</w>")]).backend_tokenizer
    end = {
        "__type": "AddedToken",
        "content": "<|endoftext|>",
        "lstrip": False,
        "normalized": True,
        "rstrip": False,
        "single_word": False,
    }
    start = end | {"content": "<|startoftext|>"}
    return _saved(
        tokenizer, folder, tokenizer_class="CLIPTokenizer", bos_token=start, eos_token=end, pad_token="<|endoftext|>"
    )


def _siglip(folder: Path) -> int:
    pieces = ["<pad>", "</s>", "<unk>", *LETTERS, "▁what", "▁wie"]
    tokenizer = Tokenizer(models.Unigram([(piece, -float(i)) for i, piece in enumerate(pieces)], unk_id=2))
    punctuation = normalizers.Replace(Regex(r"[!-/:-@\[-`{-~]"), "")
    spaces = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), punctuation, *spaces])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens([AddedToken("</s>", normalized=False, special=True)])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>", "model_max_length": 64}
    return _saved(
        tokenizer,
        folder,
        tokenizer_class="SiglipTokenizer",
        model_input_names=["input_ids"],
        do_lower_case=True,
        **names,
    )


def _gemma(folder: Path) -> int:
    from transformers import GemmaTokenizer

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    words = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *LETTERS, "en"]
    tokenizer = GemmaTokenizer({token: id for id, token in enumerate(words)}, [("e", "n")]).backend_tokenizer
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    names = {f"{token.strip('<>')}_token": token for token in special[:4]}
    names |= {"padding_side": "right", "model_input_names": ["input_ids"], "do_lower_case": True}
    return _saved(tokenizer, folder, tokenizer_class="GemmaTokenizer", add_bos_token=False, add_eos_token=True, **names)
