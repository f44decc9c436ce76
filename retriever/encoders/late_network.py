"""The networks of the late-interaction families: a backbone of transformers and a projection, loaded strictly."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import normalize

from index.errors import OctavoError
from retriever.encoders.adapters import CONFIG, inject, read_lora
from retriever.encoders.checkpoint import check_depth, load_strictly, on_meta, stored_tensors
from retriever.encoders.late_rows import Row

ADAPTER = "adapter_model"
_ONLY = "default"


class Network(nn.Module):
    """Inputs of a backbone -> its last states and token vectors of norm 1."""

    def __init__(self, backbone: str, config: Any, dim: int, bias: bool = True) -> None:
        import transformers

        super().__init__()
        self.vlm = getattr(transformers, backbone)._from_config(config, attn_implementation="sdpa")
        self.embedding_proj_layer = nn.Linear(config.get_text_config().hidden_size, dim, bias=bias)

    def forward(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(b, t, hidden) and (b, t, d), float32."""
        states = self.vlm(**inputs).last_hidden_state
        return states.float(), normalize(self.embedding_proj_layer(states).float(), dim=-1)


def load(
    folder: Path, base: Path, config: dict[str, Any], row: Row, device: torch.device, dtype: torch.dtype
) -> tuple[Network, list[Path]]:
    """The network of a folder and the files that were read. base: where the weights are that an adapter in `folder`
    adapts, else `folder` itself. Raises OctavoError (`checkpoint`)."""
    stored = stored_tensors(base)
    check_depth(base, config, len(stored))
    backbone = config_of(base, config.get("vlm_config", config), row.config)
    if config.get("head_dims"):
        raise OctavoError(
            f"{base / 'config.json'}: head_dims; a model of several widths is no {row.architecture} as here"
        )
    dim = config.get("embedding_dim", config.get("dim", row.dim))
    network = on_meta(lambda: Network(row.backbone, backbone, dim, row.bias), base)
    if base != folder:
        lora = read_lora(folder)
        inject(network, [_ONLY], row.adapted, lora)
        stored += stored_tensors(folder, ADAPTER)
    elif (folder / CONFIG).exists():
        raise OctavoError(f"{folder} has config.json and {CONFIG}; it is either a model or an adapter")
    text = backbone.get_text_config()
    head = {"lm_head.weight": (text.vocab_size, text.hidden_size)}  # of the language model, of no use here
    there = any(_ours(row, tensor.key) in head for tensor in stored)
    load_strictly(network, stored, base, partial(_ours, row), device, dtype, head if there else {})
    return network.eval(), sorted({tensor.file for tensor in stored})


def _ours(row: Row, name: str) -> str:
    """The name in our network of a tensor of a file; names of the network stay as they are."""
    name = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
    name = re.sub(r"\.lora_([AB])\.weight$", rf".lora_\1.{_ONLY}.weight", name)  # files leave out the only adapter's
    for expression, replacement in row.renames:
        name = re.sub(expression, replacement, name)
    return name


def config_of(folder: Path, config: dict[str, Any], kind: str) -> Any:
    """The config of a network, by transformers' own class. Raises OctavoError."""
    import transformers
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()  # of SigLIP's it says that token ids, by default CLIP's, are too high
    try:
        return getattr(transformers, kind).from_dict({k: v for k, v in config.items() if k != "auto_map"})
    except Exception as error:  # of whatever kind transformers' own validation raises
        raise OctavoError(f"{folder / 'config.json'} describes no {kind}: {str(error)[:300]}") from None
    finally:
        logging.set_verbosity(before)
