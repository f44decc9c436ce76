"""The text model for pages: the weights of states.onnx in 8 bits, so that a page takes half of the time.

Queries are read in 4-bit weights and full activations. For pages both are cut to 8 bits: the weights of each column by
their largest, to 7 bits, as older processors add pairs of products in 16; the activations of a run by their range. The
inputs of the two products of a feed-forward layer have columns that are much larger than the others, which are made
smaller by a factor that makes their weights larger (Xiao et al. 2023, SmoothQuant); the factors are in passages.onnx,
which is the graph alone. Its weights are made of those of states.onnx as it is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

LEVELS = 63
"""Of a weight, either way of zero."""
_DTYPES = {1: "<f4", 2: "u1", 3: "i1", 7: "<i8", 10: "<f2"}  # TensorProto.DataType


def initialisers(model: bytes) -> dict[str, np.ndarray]:
    """The initialisers that an ONNX file holds, as views of it."""
    return {name: values for name, values in _tensors(model) if values is not None}


def borrowed(model: bytes, other: bytes) -> dict[str, np.ndarray]:
    """The weights that the ONNX file `model` asks for and does not hold, which the `other` does."""
    stored = initialisers(other)
    return {name: stored[name] for name, values in _tensors(model) if values is None and name in stored}


def _tensors(model: bytes) -> Iterator[tuple[str, np.ndarray | None]]:
    """Initialisers, None where they lie in another file (protobuf; onnx.proto: ModelProto.graph 7,
    GraphProto.initializer 5, TensorProto.dims 1, data_type 2, name 8, raw_data 9)."""
    view = memoryview(model)
    for graph in (value for number, value in _fields(view) if number == 7):
        for tensor in (value for number, value in _fields(graph) if number == 5):
            dims, kind, name, data = [], 0, "", memoryview(b"")
            for number, value in _fields(tensor):
                if number == 1:
                    dims.append(value)
                elif number == 2:
                    kind = value
                elif number == 8:
                    name = bytes(value).decode()
                elif number == 9:
                    data = value
            yield name, np.frombuffer(data, _DTYPES[kind]).reshape(dims) if len(data) else None


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """(number, value) of the fields of a protobuf message that are numbers or have a length."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        if tag & 7 == 0:
            value, at = _varint(message, at)
            yield tag >> 3, value
        elif tag & 7 == 2:
            length, at = _varint(message, at)
            yield tag >> 3, message[at : at + length]
            at += length
        else:
            at += 8 if tag & 7 == 1 else 4


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
        if byte < 128:
            return value, at


def given(states: bytes, passages: bytes) -> dict[str, np.ndarray]:
    """The weights that the graph `passages` asks for, out of both files: `.w` (k, n) int8 and `.ws` (n,), the step of a
    column, of each product, everything else as it is in states.onnx."""
    stored, smooth = initialisers(states), initialisers(passages)
    found = {name: values for name, values in stored.items() if not name.endswith((".q", ".s.h"))}
    for name in [name.removesuffix(".q") for name in stored if name.endswith(".q")]:
        weights = unpacked(stored[f"{name}.q"], stored[f"{name}.s.h"])
        if f"{name}.smooth" in smooth:
            weights /= smooth[f"{name}.smooth"]
        steps = np.abs(weights).max(axis=1) / LEVELS
        np.rint(np.divide(weights, steps[:, None], out=weights), out=weights)
        found[f"{name}.w"], found[f"{name}.ws"] = np.ascontiguousarray(weights.T.astype(np.int8)), steps
    return found


def unpacked(codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Weights (n, k) float32 of 4-bit codes (n, k / 32, 16), even ones in the low halves, and scales (n, k / 32)."""
    values = np.empty((*codes.shape, 2), np.float32)
    values[..., 0], values[..., 1] = codes & 15, codes >> 4
    values -= 8
    values *= scales.astype(np.float32)[..., None, None]
    return values.reshape(len(codes), -1)
