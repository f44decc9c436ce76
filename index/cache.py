"""Files of derived arrays: `cache/<kind>.cache`, whole or not there, and thrown away wherever it does not fit.

A digest of the rest, a line of JSON that names the index and the arrays, and their bytes. Nothing that came with an
index is handed to another library's reader. What reads an array still checks what is in it. Not here: what it means.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from index.blocks import ALIGN
from index.failpoint import failpoint
from index.store import sync_folder

_KINDS = ("<f2", "<f4", "<i8", "<u4", "<u2", "|i1")
_BODY = 33  # where what is digested begins: behind 32 hexadecimal digits and a line feed


def path_of(folder: Path, kind: str) -> Path:
    """The cache file of a first stage in an index folder."""
    return folder / "cache" / f"{kind}.cache"


def save(folder: Path, kind: str, index: bytes, record: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays and a record, replacing what was there. index: the 16 bytes that name it. Raises OSError."""
    path = path_of(folder, kind)
    path.parent.mkdir(exist_ok=True)
    shapes = [[name, array.dtype.newbyteorder("<").str, array.shape] for name, array in arrays.items()]
    head = json.dumps({"index": index.hex(), "arrays": shapes} | record).encode()
    parts: list[Any] = [head + b" " * (-(_BODY + len(head) + 1) % ALIGN) + b"\n"]  # arrays lie aligned in what is read
    parts += [
        np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)
        for array in arrays.values()
    ]
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(_digest(parts) + b"\n")
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
    failpoint("cache written")
    temporary.replace(path)
    for other in path.parent.glob("*.cache"):
        if other != path:  # of a stage that this index had before
            other.unlink()
    sync_folder(path.parent)


def clear(folder: Path) -> None:
    """Remove what an index folder holds of caches, half a one of a killed process too."""
    for path in (folder / "cache").glob("*"):
        path.unlink()


def load(folder: Path, kind: str, index: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """Record and arrays, if the file is whole and belongs to this index; None where it has to be made again."""
    try:
        data = _read(path_of(folder, kind))
        begin = data.index(b"\n", _BODY)
        record = json.loads(data[_BODY:begin])
        if record["index"] != index.hex():
            return None
        arrays, at = {}, begin + 1
        for name, dtype, shape in record["arrays"]:
            if dtype not in _KINDS or not all(isinstance(size, int) and size >= 0 for size in shape):
                return None
            arrays[name] = np.frombuffer(data, dtype, math.prod(shape), at).reshape(shape)
            at += arrays[name].nbytes
        return (record, arrays) if at == len(data) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def whole(path: Path) -> bool:
    """Whether every byte of a cache file is what was written."""
    try:
        return bool(_read(path))
    except ValueError:
        return False


def _read(path: Path) -> bytes:
    """The whole file. Raises ValueError where it does not begin with the digest of the rest."""
    data = path.read_bytes()
    if data[:_BODY] != _digest([memoryview(data)[_BODY:]]) + b"\n":
        raise ValueError(f"{path}: the digest is wrong")
    return data


def _digest(parts: list[Any]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest().encode()
