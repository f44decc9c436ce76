"""A model's folder, read as if a stranger had made it: bounded JSON, safetensors only, every tensor accounted for.

No code is run and no pickle opened. Which tensors there must be, and of which shapes, is what the model says that
config.json describes; one that is missing, unexpected or misshapen is an error that names it, before any is loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from index.errors import OctavoError

MAX_JSON = 64 * 2**20  # bytes; the largest tokenizers have some 20 MiB
FLOATS = ("F64", "F32", "F16", "BF16")
COUNTED = ".position_ids"  # 0, 1, 2 ..., whole numbers that older files hold and no network reads
Network = TypeVar("Network", bound=nn.Module)
_TOLD = 50  # tensors that an error names, of each kind


class Stored(NamedTuple):
    """A tensor of a file, not read yet: `key` is its name there."""

    file: Path
    key: str
    shape: tuple[int, ...]


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """The object in a JSON file of the folder. Raises OctavoError naming the file."""
    path = folder / name
    try:
        size = path.stat().st_size
        if size > MAX_JSON:
            raise OctavoError(f"{path}: {size:,} bytes; a file of settings has at most {MAX_JSON:,}")
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise OctavoError(f"{path} is missing; a model's folder has one (download the model again)") from None
    except OSError as error:
        raise OctavoError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise OctavoError(f"{path} is not JSON: {str(error)[:200]}") from None
    if not isinstance(found, dict):
        raise OctavoError(f"{path}: a JSON object is expected, not {type(found).__name__}")
    return found


def stored_tensors(folder: Path, stem: str = "model") -> list[Stored]:
    """The tensors of `{stem}.safetensors`, or of the shards that `{stem}.safetensors.index.json` names.

    Raises OctavoError where there are none, where only pickles are, where a file is damaged, where the index and the
    shards disagree, and for values that are no floating-point numbers.
    """
    index = folder / f"{stem}.safetensors.index.json"
    if not index.exists():
        return _tensors_of(_whole(folder, stem))
    shards = read_json(folder, index.name).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise OctavoError(f"{index}: there is no weight_map in it")
    files = sorted({str(file) for file in shards.values()})
    for file in files:
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise OctavoError(f"{index} names {file!r}, which is no safetensors file beside it")
    found = [tensor for file in files for tensor in _tensors_of(folder / file)]
    named, there = set(shards.items()), {(tensor.key, tensor.file.name) for tensor in found}
    if named != there:
        lost, extra = sorted(key for key, _ in named - there), sorted(key for key, _ in there - named)
        raise OctavoError(f"{index} and the files beside it disagree: {_told(missing=lost, unexpected=extra)}")
    return found


def _whole(folder: Path, stem: str) -> Path:
    path = folder / f"{stem}.safetensors"
    if path.exists():
        return path
    pickles = sorted(file.name for file in folder.glob("*") if file.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"))
    if pickles:
        raise OctavoError(
            f"{folder} holds pickled weights ({', '.join(pickles[:3])}), which can run code when they are opened; only "
            "safetensors are read. Convert them where you trust them"
        )
    raise OctavoError(f"{path} is missing, and so is an index of shards; is this the folder of a model?")


def _tensors_of(path: Path) -> list[Stored]:
    try:
        with safe_open(path, framework="pt") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
            found = [Stored(path, key, tuple(part.get_shape())) for key, part in slices.items()]
            whole = [key for key, part in slices.items() if part.get_dtype() not in FLOATS]
            wrong = [key for key in whole if not key.endswith(COUNTED)]
    except (SafetensorError, OSError) as error:
        raise OctavoError(f"{path} is damaged or no safetensors file: {error}") from None
    if wrong:
        raise OctavoError(f"{path}: {wrong[0]} is of a type that weights are not ({', '.join(FLOATS)} are)")
    return found


def check_depth(folder: Path, config: Mapping[str, Any], tensors: int) -> None:
    """Raise OctavoError where a config has no layers, or more than there are tensors: endless work."""
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        for name in ("num_hidden_layers", "depth"):
            layers = part.get(name, 1)
            if type(layers) is not int or not 1 <= layers <= tensors:
                raise OctavoError(
                    f"{folder / 'config.json'}: {name} is {layers!r}, but the files hold {tensors} tensors"
                )


def on_meta(build: Callable[[], Network], folder: Path) -> Network:
    """A model that is made without memory for its weights. Raises OctavoError where the config describes none."""
    try:
        with torch.device("meta"):
            return build()
    except Exception as error:  # whatever a value that makes no sense leads to
        raise OctavoError(
            f"{folder / 'config.json'} describes no model that can be built: {str(error)[:300]}"
        ) from None


def load_strictly(
    model: nn.Module,
    stored: Iterable[Stored],
    source: Path,
    published: Callable[[str], str],
    device: torch.device,
    dtype: torch.dtype,
    unused: Mapping[str, tuple[int, ...]] | None = None,
) -> None:
    """Load a model made by `on_meta`; afterwards its parameters are on `device` in `dtype`, copies of what is stored.

    published: a name of the model or of a file -> the name under which the two are compared and an error tells it;
    unused: tensors that belong to the layout but not to the model. Raises OctavoError naming every tensor that is
    missing, unexpected or misshapen, and those there twice.
    """
    names = {published(name): name for name in model.state_dict()}
    shapes = {key: tuple(tensor.shape) for key, tensor in zip(names, model.state_dict().values(), strict=True)}
    shapes |= unused or {}
    found: dict[str, Stored] = {}
    for tensor in stored:
        key = published(tensor.key)
        if key in found:
            raise OctavoError(f"{source}: {key} is there twice, in {found[key].file.name} and {tensor.file.name}")
        found[key] = tensor
    check_tensors(shapes, {key: tensor.shape for key, tensor in found.items()}, source)
    state = {}
    for file in sorted({tensor.file for tensor in found.values()}):
        with safe_open(file, framework="pt") as opened:
            for key, tensor in found.items():
                if tensor.file == file and key in names:
                    state[names[key]] = opened.get_tensor(tensor.key).to(device, dtype, copy=True)
    model.load_state_dict(state, strict=True, assign=True)
    for module in model.modules():
        _fill_buffers(module, device)


def _fill_buffers(module: nn.Module, device: torch.device) -> None:
    """Make the tables that a module computes for itself and never stores: rotary embeddings, positions, a scale."""
    if not any(buffer.is_meta for buffer in module.buffers(recurse=False)):
        return
    if hasattr(module, "scalar_embed_scale"):
        module.embed_scale = torch.tensor(module.scalar_embed_scale, device=device)
        return
    if list(module._buffers) == ["position_ids"]:
        module._buffers["position_ids"] = torch.arange(module.get_buffer("position_ids").shape[-1], device=device)[None]
        return
    fresh: nn.Module = type(module)(module.config)
    module._buffers.update(fresh.to(device)._buffers)


def check_tensors(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], source: Path) -> None:
    """Raise OctavoError unless the two have the same names with the same shapes."""
    missing, unexpected = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    misshapen = [
        f"{name} {list(found[name])} instead of {list(expected[name])}"
        for name in sorted(expected.keys() & found.keys())
        if tuple(found[name]) != tuple(expected[name])
    ]
    if missing or unexpected or misshapen:
        told = _told(missing=missing, unexpected=unexpected, misshapen=misshapen)
        raise OctavoError(f"{source}: these are not the weights that its config describes: {told}")


def _told(**kinds: list[str]) -> str:
    parts = []
    for kind, names in kinds.items():
        if names:
            more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
            parts.append(f"{len(names)} {kind}: {', '.join(names[:_TOLD])}{more}")
    return "; ".join(parts)


def digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of files of the folder, by their names in it, those that are there."""
    files = [name for name in sorted(set(names)) if (folder / name).is_file()]
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(files, pool.map(lambda name: _digest(folder / name), files), strict=True))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
