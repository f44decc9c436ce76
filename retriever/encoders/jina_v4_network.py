"""The network of Jina Embeddings v4: transformers' own Qwen2.5-VL, a projector, and LoRA adapters on both.

The published folder has the keys of transformers 4 (`model.layers.*`, `visual.*`); they are matched with those of
transformers 5 under their published names. Rows are padded on the right and attention is causal, so no token sees
padding, no mask is needed, and a row's vectors are the same whatever shares its batch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from index.errors import OctavoError
from retriever.encoders.adapters import STORED, Adapters, inject, read_lora
from retriever.encoders.checkpoint import check_depth, load_strictly, on_meta, stored_tensors
from retriever.encoders.jina_v4_inputs import Row
from retriever.encoders.vision import Preprocessing, patches, rgb

ADAPTERS = "adapters"
TASKS = ("retrieval", "text-matching", "code")
TARGETS = (
    r"model\.language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)|multi_vector_projector"
)
_NAME = re.compile(r"[\w-]+")


class Network(nn.Module):
    """Rows -> last hidden states; `multi_vector_projector` makes token vectors of them. task_names: its adapters."""

    task_names: list[str]

    def __init__(self, config: Any, dim: int) -> None:
        """config: a Qwen2_5_VLConfig; dim: of the token vectors."""
        from transformers import Qwen2_5_VLModel

        super().__init__()
        self.model = Qwen2_5_VLModel._from_config(config, attn_implementation="sdpa")
        self.multi_vector_projector = nn.Linear(config.text_config.hidden_size, dim)

    @property
    def device(self) -> torch.device:
        return self.multi_vector_projector.weight.device

    def hidden(self, rows: Sequence[Row], steps: Preprocessing) -> torch.Tensor:
        """The states after the last norm, (b, longest, hidden); those after a row's own end mean nothing."""
        longest = max(len(row.ids) for row in rows)
        ids, visual = np.zeros((len(rows), longest), np.int64), np.zeros((len(rows), longest), bool)
        positions = torch.zeros((3, len(rows), longest), dtype=torch.int64)
        for place, row in enumerate(rows):
            ids[place, : len(row.ids)], visual[place, : len(row.ids)] = row.ids, row.visual
            positions[:, place, : len(row.ids)] = self.positions(row)
        states = self.model.get_input_embeddings()(torch.from_numpy(ids).to(self.device))
        if visual.any():
            seen = self._seen(rows, steps).to(states.dtype)
            states = states.masked_scatter(torch.from_numpy(visual).to(self.device)[..., None], seen)
        out = self.model.language_model(
            inputs_embeds=states, position_ids=positions.to(self.device), attention_mask=None, use_cache=False
        )
        hidden: torch.Tensor = out.last_hidden_state
        return hidden

    def positions(self, row: Row) -> torch.Tensor:
        """(3, t): time, row and column of each token, as Qwen2.5-VL counts them (M-RoPE)."""
        grids = torch.tensor([(1, *grid) for grid in row.grids], dtype=torch.int64)
        ids, kinds = torch.from_numpy(row.ids)[None], torch.from_numpy(row.visual.astype(np.int32))[None]
        found: torch.Tensor = self.model.get_rope_index(ids, mm_token_type_ids=kinds, image_grid_thw=grids)[0][:, 0]
        return found

    def _seen(self, rows: Sequence[Row], steps: Preprocessing) -> torch.Tensor:
        """(v, hidden): what the vision tower makes of all pictures of all rows, in order."""
        pictures = [pair for row in rows for pair in zip(row.pictures, row.grids, strict=True)]
        pixels = [torch.from_numpy(patches(rgb(picture), grid, steps)) for picture, grid in pictures]
        dtype = self.multi_vector_projector.weight.dtype
        taken = torch.cat([part.to(self.device, dtype) for part in pixels])
        grids = torch.tensor([(1, *grid) for _, grid in pictures], dtype=torch.int64, device=self.device)
        return torch.cat(tuple(self.model.get_image_features(taken, grids, return_dict=True).pooler_output))


def published(name: str) -> str:
    """The published name of a tensor of the network, or of a file in either layout."""
    name = name.replace(".base_layer.", ".")
    for ours, theirs in (("model.language_model.", "model."), ("model.visual.", "visual.")):
        if name.startswith(ours) and ".lora_" not in name:
            return theirs + name[len(ours) :]
    return name


def load(
    folder: Path, config: dict[str, Any], device: torch.device, dtype: torch.dtype
) -> tuple[Network, Adapters, list[Path]]:
    """The network of a folder, its adapters, and the weight files that were read. Raises OctavoError (`checkpoint`)."""
    stored = stored_tensors(folder)
    adapters = stored_tensors(folder / ADAPTERS, "adapter_model")
    tasks = _tasks(folder, config)
    qwen = _qwen(folder, config, len(stored))
    network = on_meta(lambda: Network(qwen, config.get("multi_vector_projector_dim", 128)), folder)
    inject(network, tasks, TARGETS, read_lora(folder / ADAPTERS))
    text = qwen.text_config
    heads = {"lm_head.weight": (text.vocab_size, text.hidden_size)}  # of the language model, of no use here
    if qwen.tie_word_embeddings and not any(tensor.key in heads for tensor in stored):
        heads = {}
    tensors = [*stored, *adapters]
    load_strictly(network, tensors, folder, _compared, device, dtype, heads)
    network.task_names = tasks
    return network.eval(), Adapters(network), sorted({tensor.file for tensor in tensors})


def _compared(name: str) -> str:
    """Tensors of adapters are compared under the names they have in the network, all others under published ones."""
    return published(name.removeprefix(STORED))


def _tasks(folder: Path, config: dict[str, Any]) -> list[str]:
    tasks = config.get("task_names") or list(TASKS)
    if not isinstance(tasks, list) or not all(isinstance(task, str) and _NAME.fullmatch(task) for task in tasks):
        raise OctavoError(f"{folder / 'config.json'}: task_names is {tasks!r}; a list of plain names is expected")
    return list(dict.fromkeys(tasks))


def _qwen(folder: Path, config: dict[str, Any], tensors: int) -> Any:
    """The Qwen2_5_VLConfig in config.json, checked for what would take forever to build."""
    from transformers import Qwen2_5_VLConfig

    check_depth(folder, config, tensors)
    try:
        return Qwen2_5_VLConfig.from_dict({key: value for key, value in config.items() if key != "auto_map"})
    except Exception as error:  # of whatever kind transformers' own validation raises
        raise OctavoError(f"{folder / 'config.json'} describes no Qwen2.5-VL model: {str(error)[:300]}") from None
