"""Several LoRA adapters in one model, all resident: peft's own layers, switched for a call or for each row of a batch.

The base weights are there once, whatever the number of adapters; nothing is merged, loaded or copied when the task
changes. Whoever runs the model holds a lock, since which adapter is active is a state of the layers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from index.errors import OctavoError
from retriever.encoders.checkpoint import read_json

CONFIG = "adapter_config.json"
STORED = "base_model.model."  # before the names of a network's tensors in peft's files
_PLAIN = re.compile(r"[\w.-]+")  # rank_pattern and alpha_pattern are regular expressions to peft: only names are taken


def read_lora(folder: Path) -> dict[str, Any]:
    """What adapter_config.json says of the adapters: r, lora_alpha, lora_dropout, use_rslora, rank and alpha patterns.

    Raises OctavoError for what is not plain LoRA, and for values that cannot be.
    """
    config, path = read_json(folder, CONFIG), folder / CONFIG
    kind = config.get("peft_type", "LORA")
    for setting in ("use_dora", "lora_bias", "modules_to_save", "layer_replication", "fan_in_fan_out"):
        if config.get(setting):
            raise OctavoError(f"{path}: {setting} is set; only plain LoRA is supported")
    if kind != "LORA" or config.get("bias", "none") != "none":
        raise OctavoError(f"{path}: peft_type {kind!r}, bias {config.get('bias')!r}; plain LoRA is expected")
    patterns = {name: config.get(name) or {} for name in ("rank_pattern", "alpha_pattern")}
    rank, alpha, dropout = config.get("r"), config.get("lora_alpha", config.get("r")), config.get("lora_dropout", 0.0)
    if any(not isinstance(pattern, dict) or not all(map(_PLAIN.fullmatch, pattern)) for pattern in patterns.values()):
        raise OctavoError(f"{path}: rank_pattern and alpha_pattern are expected to name modules, without wildcards")
    ranks = [rank, *patterns["rank_pattern"].values()]
    numbers = [alpha, dropout, *patterns["alpha_pattern"].values()]
    if not all(type(value) is int and 1 <= value <= 65536 for value in ranks):
        raise OctavoError(f"{path}: r is {ranks}; whole numbers from 1 are expected")
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in numbers):
        raise OctavoError(f"{path}: lora_alpha or lora_dropout is {numbers}; finite numbers are expected")
    return {
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": dropout if 0 <= dropout < 1 else 0.0,  # nothing is dropped when encoding
        "use_rslora": bool(config.get("use_rslora")),
        **patterns,
    }


def inject(model: nn.Module, tasks: Sequence[str], targets: str, settings: dict[str, Any]) -> None:
    """Turn the Linear layers whose names match `targets` into peft's LoRA layers, with an adapter for each task."""
    from peft import LoraConfig, LoraModel

    configs = {task: LoraConfig(target_modules=targets, inference_mode=True, **settings) for task in tasks}
    tuner = LoraModel(model, configs, tasks[0], low_cpu_mem_usage=True)
    for task in tasks[1:]:
        tuner.inject_adapter(model, task, low_cpu_mem_usage=True)


class Adapters:
    """The LoRA layers of a model."""

    def __init__(self, model: nn.Module) -> None:
        from peft.tuners.lora import LoraLayer

        self._layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
        self._active = ""

    @contextmanager
    def switched(self, tasks: Sequence[str]) -> Iterator[None]:
        """Inside, row i of what the layers are given goes through the adapter of tasks[i]. Not for several threads."""
        if len(set(tasks)) == 1:
            self._activate(tasks[0])
            yield
            return
        hook = partial(_with_names, list(tasks))
        handles = [layer.register_forward_pre_hook(hook, with_kwargs=True) for layer in self._layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def trainable(self, model: nn.Module, task: str) -> dict[str, nn.Parameter]:
        """Switch to a task and make its weights, in float32, what gradients are of -> them by the names peft stores."""
        self._active = ""  # switching once more makes all of them constant
        self._activate(task)
        model.requires_grad_(False)
        found = {}
        for name, parameter in model.named_parameters():
            if re.search(rf"\.lora_[AB]\.{re.escape(task)}\.", name):
                parameter.data = parameter.data.float()
                parameter.requires_grad_(True)
                found[f"{STORED}{name}"] = parameter
        return found

    def _activate(self, task: str) -> None:
        if task != self._active:
            for layer in self._layers:
                layer.set_adapter([task], inference_mode=True)
            self._active = task


def _with_names(names: list[str], module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return args, {**kwargs, "adapter_names": names}
