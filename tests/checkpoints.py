"""Checkpoints for tests: the tiny Jina v4 of tests/data, copied and changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

DATA = Path(__file__).parent / "data"
JINA = DATA / "jina_v4" / "jina_v4_tiny"
SHARDS = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
ADAPTER = "adapters/adapter_model.safetensors"


def copied(folder: Path) -> Path:
    """A copy of the tiny checkpoint that may be changed."""
    shutil.copytree(JINA, folder / "model")
    return folder / "model"


def base_weights() -> dict[str, torch.Tensor]:
    """All tensors of the shards, under their published names."""
    return {name: tensor for shard in SHARDS for name, tensor in load_file(JINA / shard).items()}


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the object in a JSON file."""
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")


def edit_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the tensors of a safetensors file, and the index beside it as a careful stranger would."""
    tensors = load_file(path)
    before = set(tensors)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})
    index = path.with_name("model.safetensors.index.json")
    if path.name in SHARDS:
        names = set(tensors)

        def mend(content: dict[str, Any]) -> None:
            for name in before - names:
                del content["weight_map"][name]
            content["weight_map"].update(dict.fromkeys(names - before, path.name))

        edit_json(index, mend)
