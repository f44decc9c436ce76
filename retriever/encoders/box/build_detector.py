"""Build time only: the detector with the same sums in another order, which takes less time.

Its last convolution is over four maps, of which three are blown up two, four and eight times before: here it is one
over each map at its own size that blows up by itself (a transposed convolution whose weights are sums of the others).
The two transposed convolutions of 2 x 2 behind it are two of 1 x 1 and a step that puts each channel at its place. A
map plus itself times a gate is the map times the gate and one. Needs the `onnx` package.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class _Graph:
    """The nodes of a parsed graph, new ones, and new weights."""

    def __init__(self, graph: Any) -> None:
        from onnx import numpy_helper

        self._values = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
        self._makers = {name: node for node in graph.node for name in node.output}
        self.nodes: list[Any] = []
        self.weights: dict[str, np.ndarray] = {}

    def maker(self, name: str) -> Any:
        """The node that makes a value, but for those that change nothing; None of an input."""
        while (node := self._makers.get(name)) is not None and node.op_type == "Identity":
            name = node.input[0]
        return node

    def stored(self, name: str) -> np.ndarray:
        """A weight, also where it is stored in half precision."""
        while name not in self._values:
            name = self._makers[name].input[0]
        return np.asarray(self._values[name], np.float32)

    def add(self, kind: str, given: list[str], out: str, **attributes: object) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, given, [out], **attributes))
        return out

    def weight(self, name: str, values: np.ndarray) -> str:
        self.weights[name] = np.ascontiguousarray(values, np.float32)
        return name


def merged(model: bytes) -> bytes:
    """The detector `model`, as `build_e5.halved` gives it, so changed."""
    import onnx
    from onnx import numpy_helper

    parsed = onnx.load_from_string(model)
    graph, to = parsed.graph, _Graph(parsed.graph)
    kinds = [node.op_type for node in graph.node]
    last = max(i for i, kind in enumerate(kinds) if kind == "Conv")
    one = to.weight("gate.one", np.ones((1, 1, 1, 1)))
    for node in graph.node[:last]:
        gated = _gated(to, node) if node.op_type == "Add" else None
        if gated:
            more = to.add("Add", [gated[1], one], f"{node.output[0]}.gate")
            to.add("Mul", [gated[0], more], node.output[0])
        else:
            to.nodes.append(node)
    adds = [to.stored(node.input[1]).ravel() for node in graph.node[last:] if node.op_type == "Add"]
    ups = [to.stored(node.input[1]) for node in graph.node[last:] if node.op_type == "ConvTranspose"]
    joined = _joined(to, graph.node[last], adds[0])
    wide = to.weight("first.weights", ups[0].transpose(2, 3, 1, 0).reshape(64, 16, 1, 1))
    up = to.add("Conv", [joined, wide, to.weight("first.bias", np.tile(adds[1], 4))], "first", kernel_shape=[1, 1])
    rows = np.zeros((4, 4, 2, 2, 16), np.float32)  # row and column within 4 x 4; row, column, channel within 2 x 2
    for down in range(2):
        for right in range(2):
            rows[2 * down : 2 * down + 2, 2 * right : 2 * right + 2, down, right] = ups[1][:, 0].transpose(1, 2, 0)
    small = to.weight("second.weights", rows.reshape(16, 64, 1, 1))
    given = [to.add("Relu", [up], "first.read"), small, to.weight("second.bias", np.tile(adds[2], 16))]
    likely = to.add("Sigmoid", [to.add("Conv", given, "second", kernel_shape=[1, 1])], "likely")
    to.add("DepthToSpace", [likely], graph.output[0].name, blocksize=4)
    kept, asked = [], {graph.output[0].name}
    for node in reversed(to.nodes):
        if not asked.isdisjoint(node.output):
            kept.append(node.SerializeToString())
            asked.update(node.input)
    graph.ClearField("node")
    for data in reversed(kept):
        graph.node.add().ParseFromString(data)
    values = [value for value in graph.initializer if value.name in asked]
    values += [numpy_helper.from_array(value, name) for name, value in to.weights.items()]
    del graph.initializer[:]
    graph.initializer.extend(values)
    return bytes(parsed.SerializeToString(deterministic=True))


def _gated(to: _Graph, add: Any) -> tuple[str, str] | None:
    """Of the sum of a map and of the map times a gate, the map and the gate."""
    product = to.maker(add.input[1])
    if product is None or product.op_type != "Mul" or to.maker(product.input[0]) is not to.maker(add.input[0]):
        return None
    return add.input[0], product.input[1]


def _joined(to: _Graph, conv: Any, bias: np.ndarray) -> str:
    """The convolution `conv` of maps side by side, its `bias` and a rectifier, over each map at its size."""
    weights, sums, start = to.stored(conv.input[1]), "", 0
    maps = to.maker(conv.input[0]).input
    count = weights.shape[1] // len(maps)
    for number, name in enumerate(maps):
        blown = to.maker(name)
        part, start = weights[:, start : start + count], start + count
        shape: dict[str, Any] = {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
        kind, given = "Conv", [name]
        if blown.op_type == "Resize":
            times = int(to.stored(blown.input[2])[3])
            kind, given, part = "ConvTranspose", [blown.input[0]], spread(part, times)
            shape |= {"kernel_shape": [times + 2] * 2, "strides": [times] * 2}
        out = to.add(kind, [*given, to.weight(f"map.{number}.weights", part)], f"map.{number}", **shape)
        sums = to.add("Add", [sums, out], f"map.{number}.sum") if sums else out
    last = to.add("Add", [sums, to.weight("map.bias", bias.reshape(1, -1, 1, 1))], "map.biased")
    return to.add("Relu", [last], "map.read")


def spread(weights: np.ndarray, times: int) -> np.ndarray:
    """Weights (n, k, 3, 3) of a convolution of a map blown up so many times, as those (k, n, t, t) of a transposed one
    of the map itself, t = times + 2."""
    found = np.zeros((weights.shape[1], weights.shape[0], times + 2, times + 2), np.float32)
    for down in range(3):
        for right in range(3):
            tap = weights[:, :, 2 - down, 2 - right].T[:, :, None, None]
            found[:, :, down : down + times, right : right + times] += tap
    return found
