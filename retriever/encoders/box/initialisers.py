"""The weights inside an ONNX file, read without the `onnx` package: a file of the encoder in the box may leave some to
another, which are given to its session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

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
