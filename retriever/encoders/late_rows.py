"""The families of late interaction that share one code: a table, a row for each layout in which they are published.

A row says what config.json calls the model, which backbone of transformers it has, how pages and queries are written,
and how the names of its tensors read as ours. `-hf` layouts have a config with a `vlm_config` and are transformers' own
`...ForRetrieval`; the others are those of colpali-engine, whole or as a LoRA adapter beside a base model.
"""

from __future__ import annotations

from typing import Any, NamedTuple

QWEN_PAGE = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image.<|im_end|><|endoftext|>"
TILED_PAGE = "User:<image>Describe the image.<end_of_utterance>\nAssistant:"
LINEAR = r"(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
Renames = tuple[tuple[str, str], ...]

# (regular expression, replacement), the first that fits is applied, then those after it
_QWEN: Renames = (
    (r"^vlm\.model\.", "vlm."),
    (r"^(model\.)?visual\.", "vlm.visual."),
    (r"^model\.language_model\.", "vlm.language_model."),
    (r"^(vlm|model|language_model)\.(layers|embed_tokens|norm)\.", r"vlm.language_model.\2."),
    (r"^custom_text_proj\.", "embedding_proj_layer."),
    (r"^(vlm\.)?lm_head\.", "lm_head."),
)
_PALIGEMMA: Renames = (
    (r"^model\.", "vlm."),
    (r"^vlm\.model\.", "vlm."),
    (r"^vlm\.language_model\.model\.", "vlm.language_model."),
    (r"^vlm\.vision_tower\.vision_model\.", "vlm.vision_tower."),
    (r"^custom_text_proj\.", "embedding_proj_layer."),
    (r"^(vlm\.|vlm\.language_model\.)?lm_head\.", "lm_head."),
)
_TILED: Renames = (
    (r"^model\.", "vlm."),
    (r"^vlm\.vision_model\.vision_model\.", "vlm.vision_model."),
    (r"^(custom_text_proj|linear)\.", "embedding_proj_layer."),
    (r"^lm_head\.", "lm_head."),
)


class Row(NamedTuple):
    """name: of the family; architecture: in config.json; backbone, config: classes of transformers; reader: how pages
    are read, `qwen`, `whole`, `tiles` or `grid`; page: the text around the picture; query: around a text; renames:
    (expression, replacement) from the names of files to ours; adapted: what a LoRA adapter sits on; single: is the mean
    of the last states a single vector? bias: has the projection one? dim: of token vectors, where config.json
    does not say it."""

    name: str
    architecture: str
    backbone: str
    config: str
    reader: str
    image: str
    page: str
    query: str
    renames: Renames
    adapted: str
    single: bool = False
    bias: bool = True
    dim: int = 128


ROWS = (
    Row(
        "colpali-hf",
        "ColPaliForRetrieval",
        "PaliGemmaModel",
        "PaliGemmaConfig",
        "whole",
        "<image>",
        "<image><bos>Describe the image.\n",
        "<bos>Question: {}" + "<pad>" * 10 + "\n",
        _PALIGEMMA,
        "",
    ),
    Row(
        "colpali",
        "ColPali",
        "PaliGemmaModel",
        "PaliGemmaConfig",
        "whole",
        "<image>",
        "<image><bos><bos>Describe the image.\n",  # twice, as colpali-engine has it
        "<bos>{}" + "<pad>" * 10,
        _PALIGEMMA,
        rf"vlm\.language_model\.layers\.\d+\.{LINEAR}|embedding_proj_layer",
    ),
    Row(
        "colqwen2-hf",
        "ColQwen2ForRetrieval",
        "Qwen2VLModel",
        "Qwen2VLConfig",
        "qwen",
        "<|image_pad|>",
        QWEN_PAGE,
        "Query: {}" + "<|endoftext|>" * 10,  # transformers 5 adds a line feed that the model was not published with
        _QWEN,
        "",
    ),
    Row(
        "colqwen2",
        "ColQwen2",
        "Qwen2VLModel",
        "Qwen2VLConfig",
        "qwen",
        "<|image_pad|>",
        QWEN_PAGE,
        "{}" + "<|endoftext|>" * 10,
        _QWEN,
        rf"vlm\.language_model\.layers\.\d+\.{LINEAR}|embedding_proj_layer",
    ),
    Row(
        "colqwen2.5",
        "ColQwen2_5",
        "Qwen2_5_VLModel",
        "Qwen2_5_VLConfig",
        "qwen",
        "<|image_pad|>",
        QWEN_PAGE,
        "{}" + "<|endoftext|>" * 10,
        _QWEN,
        rf"vlm\.language_model\.layers\.\d+\.{LINEAR}|embedding_proj_layer",
    ),
    Row(
        "colqwen3",
        "ColQwen3",
        "Qwen3VLModel",
        "Qwen3VLConfig",
        "qwen",
        "<|image_pad|>",
        QWEN_PAGE,
        "{}" + "<|endoftext|>" * 10,
        _QWEN,
        rf"vlm\.language_model\.layers\.\d+\.{LINEAR}|embedding_proj_layer",
        dim=320,
    ),
    Row(
        "colqwen3.5",
        "ColQwen3_5",
        "Qwen3_5Model",
        "Qwen3_5Config",
        "qwen",
        "<|image_pad|>",
        QWEN_PAGE,
        "{}" + "<|endoftext|>" * 10,
        _QWEN,
        "",  # published whole
    ),
    Row(
        "colmodernvbert-hf",
        "ColModernVBertForRetrieval",
        "ModernVBertModel",
        "ModernVBertConfig",
        "tiles",
        "<image>",
        "<|begin_of_text|>" + TILED_PAGE,
        "{}" + "<end_of_utterance>" * 10,
        _TILED,
        "",
    ),
    Row(
        "colsmol",
        "ColIdefics3",
        "Idefics3Model",
        "Idefics3Config",
        "tiles",
        "<image>",
        "<|im_start|>" + TILED_PAGE,
        "{}" + "<end_of_utterance>" * 10,
        _TILED,
        rf"vlm\.text_model\.layers\.\d+\.{LINEAR}|embedding_proj_layer",
    ),
    Row(
        "neomme",
        "NeoMMEForRetrieval",
        "NeoMMEModel",
        "NeoMMEConfig",
        "grid",
        "",  # the checkpoint names it, and has a template for queries
        "",
        "",
        ((r"^model\.", "vlm."), (r"^multi_vector_head\.proj\.", "embedding_proj_layer.")),
        "",
        single=True,
        bias=False,
    ),
)


def row_of(config: dict[str, Any]) -> Row | None:
    """The row of a model by its config.json, None where it has none."""
    named = config.get("architectures")
    return next((row for row in ROWS if isinstance(named, list) and row.architecture in named), None)
