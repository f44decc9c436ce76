"""What a run leaves: its state, from which it goes on exactly, and the trained model.

The state is one safetensors file: weights, both moments of AdamW, the step and the settings; the order of the data and
what dropout drops are functions of seed and step, so there is nothing else. The model is the folder it was made from,
weights linked where the disk allows, with the trained adapter in peft's layout; those of other tasks stay as they were.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from index.errors import OctavoError
from retriever.encoders.hub import FETCHED
from retriever.encoders.jina_v4_network import ADAPTERS

STATE = "state.safetensors"
_FILE = "adapter_model.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq")
Weights = Mapping[str, torch.nn.Parameter]


def save(folder: Path, weights: Weights, optimizer: torch.optim.Optimizer, step: int, settings: dict[str, Any]) -> None:
    """Replace the state of a run, at once or not at all."""
    tensors = {f"weight/{name}": weight.data for name, weight in weights.items()}
    for name, weight in weights.items():
        tensors |= {f"{moment}/{name}": optimizer.state[weight][moment] for moment in _MOMENTS}
    partial = folder / f"{STATE}.part"
    save_file(tensors, partial, {"step": str(step), "settings": json.dumps(settings)})
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(folder / STATE)


def restore(folder: Path, weights: Weights, optimizer: torch.optim.Optimizer, settings: dict[str, Any]) -> int:
    """Go back to the state in a folder -> its step, 0 where there is none.

    Raises OctavoError for the state of a run with other settings, and for a damaged one.
    """
    path = folder / STATE
    if not path.exists():
        return 0
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata()
            _check(folder, json.loads(about["settings"]), json.loads(json.dumps(settings)))
            for name, weight in weights.items():
                weight.data.copy_(file.get_tensor(f"weight/{name}"))
                moments = {kind: file.get_tensor(f"{kind}/{name}").to(weight.device) for kind in _MOMENTS}
                optimizer.state[weight] = {"step": torch.tensor(float(about["step"])), **moments}
            return int(about["step"])
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise OctavoError(f"{path} is damaged ({error}); delete it to begin again") from None


def _check(folder: Path, there: dict[str, Any], now: dict[str, Any]) -> None:
    differing = [f"{name} {there.get(name)}, now {now[name]}" for name in now if there.get(name) != now[name]]
    if differing:
        raise OctavoError(
            f"{folder} holds a run with other settings ({'; '.join(differing)}); give those to go on with it, or name "
            "another folder"
        )


def save_model(base: Path, folder: Path, weights: Weights, task: str, tasks: Sequence[str]) -> Path:
    """Write the folder of a model, at once: `base` with the weights of a task, given to all `tasks`, which are others'
    too where they begin from it. Returns it."""
    partial = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / ADAPTERS).mkdir(parents=True)
    for pattern in FETCHED:
        for file in base.glob(pattern):
            _same(file, partial / file.name)
    shutil.copyfile(base / ADAPTERS / "adapter_config.json", partial / ADAPTERS / "adapter_config.json")
    with safe_open(base / ADAPTERS / _FILE, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, weight in weights.items():
        for other in tasks:
            tensors[name.replace(f".{task}.", f".{other}.")] = weight.detach().cpu().clone()
    save_file(tensors, partial / ADAPTERS / _FILE, {"format": "pt"})
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def _same(file: Path, to: Path) -> None:
    """Weights under another name of the same file where the disk allows; a copy of what people edit."""
    try:
        if file.suffix != ".safetensors":
            raise OSError
        os.link(file.resolve(), to)
    except OSError:
        shutil.copyfile(file, to)
