"""The shipped weights: files beside this one, named and digested in weights.json.

A file is read once, its sha256 compared with the manifest, and its tensors are views of the bytes that were checked;
nothing is copied and nothing is unpickled. Files that are not asked for (the OCR nets of a run without scans) are not
opened. This module knows no model.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from index.errors import OctavoError

FOLDER = Path(__file__).parent
MANIFEST = "weights.json"
_DTYPES = {"F32": "<f4", "F16": "<f2", "U8": "u1", "U32": "<u4", "I64": "<i8"}


class WeightsError(OctavoError):
    """A weight file is missing, or its bytes are not those the manifest names."""


class Weights:
    """The weight files of one folder. digests: {file name: sha256}, from the manifest, without opening the files."""

    def __init__(self, folder: Path = FOLDER) -> None:
        """Reads only weights.json. Raises WeightsError where it is missing or is no manifest."""
        self.folder = Path(folder)
        try:
            manifest = json.loads((self.folder / MANIFEST).read_text("utf-8"))
            self.digests: dict[str, str] = {name: entry["sha256"] for name, entry in manifest["files"].items()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WeightsError(
                f"no manifest of the encoder's weights at {self.folder / MANIFEST} ({error}); reinstall octavo, or "
                "build them with: python -m retriever.encoders.box.build"
            ) from error

    def read(self, name: str) -> bytes:
        """The bytes of the file `name`, checked. Raises WeightsError for a missing file or another digest."""
        try:
            data = (self.folder / name).read_bytes()
        except OSError as error:
            raise WeightsError(f"{self.folder / name} is missing ({error}); reinstall octavo") from error
        found = hashlib.sha256(data).hexdigest()
        if found != self.digests.get(name):
            raise WeightsError(
                f"{self.folder / name}: found sha256 {found[:16]}..., expected "
                f"{self.digests.get(name, 'none')[:16]}... ({MANIFEST}); the file is damaged or of another "
                "version: reinstall octavo, or build it again with "
                "python -m retriever.encoders.box.build"
            )
        return data

    def tensors(self, name: str) -> dict[str, np.ndarray]:
        """The tensors of the safetensors file `name` as read-only views. Raises WeightsError as `read` does."""
        return unpack(self.read(name))


def unpack(data: bytes) -> dict[str, np.ndarray]:
    """Tensors of safetensors bytes, read-only views of `data` (format: u64 header length, JSON, buffer)."""
    (length,) = struct.unpack_from("<Q", data)
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        dtype = np.dtype(_DTYPES[entry["dtype"]])
        values = np.frombuffer(data, dtype, (end - start) // dtype.itemsize, 8 + length + start)
        tensors[name] = values.reshape(entry["shape"])
    return tensors
