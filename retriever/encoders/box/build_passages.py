"""Build time only: passages.onnx, the graph of states.onnx with products of 8 bits, and its smoothing factors.

A factor is the largest input of a column to the power of ALPHA over the largest weight to the power of what is left to
one (Xiao et al. 2023, eq. 4), of the passages that the axes are fitted on, every STEPth. Needs the `onnx` package.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from retriever.encoders.box.initialisers import initialisers
from retriever.encoders.box.passages import unpacked
from retriever.encoders.box.states import session

ALPHA = {"inner": 0.5, "outer": 0.65}  # of the other two products nothing stands out (benchmarks/LOG.md)
STEP = 40


def graph(states: bytes, rows: Iterable[np.ndarray]) -> bytes:
    """The graph as ONNX bytes, its weights left for `passages.given`. rows: (t, 384) of passages, with prompt."""
    import onnx
    from onnx import helper, numpy_helper

    largest, stored = _largest(states, rows), initialisers(states)
    model = onnx.load_from_string(states)
    body, nodes, wanted = model.graph, [], dict[str, tuple[int, tuple[int, ...]]]()
    for value in body.initializer:
        if not value.name.endswith((".q", ".s.h")):
            wanted[value.name] = value.data_type, tuple(value.dims)
    del body.initializer[:]
    body.initializer.append(numpy_helper.from_array(np.array(0, np.int8), "zero"))
    for node in body.node:
        if node.op_type == "MatMulNBits":
            name, given = node.output[0], node.input[0]
            weights = unpacked(stored[f"{name}.q"], stored[f"{name}.s.h"])
            wanted[f"{name}.w"] = onnx.TensorProto.INT8, weights.shape[::-1]
            wanted[f"{name}.ws"] = onnx.TensorProto.FLOAT, weights.shape[:1]
            alpha = ALPHA.get(name.partition(".")[2])
            if alpha:
                factors = np.maximum(np.abs(weights).max(0), 1e-5) ** (1 - alpha) / largest[name] ** alpha
                factors /= np.exp(np.log(factors).mean())
                body.initializer.append(numpy_helper.from_array(factors.astype(np.float32), f"{name}.smooth"))
                nodes.append(helper.make_node("Mul", [given, f"{name}.smooth"], [f"{name}.smoothed"]))
                given = f"{name}.smoothed"
            nodes += _product(name, given, node.input[5])
        elif node.op_type == "SkipLayerNormalization":
            nodes += _normed(node)
        elif not node.output[0].endswith(".s"):  # scales of 4-bit blocks
            nodes.append(node)
    for name, (kind, shape) in wanted.items():
        value = body.initializer.add(name=name, data_type=kind, dims=shape)
        value.data_location = onnx.TensorProto.EXTERNAL
        value.external_data.add(key="location", value="states.onnx")
    kept = list(nodes)
    del body.node[:]
    body.node.extend(kept)
    return bytes(model.SerializeToString(deterministic=True))


def _product(name: str, given: str, bias: str) -> list[Any]:
    from onnx import TensorProto, helper

    make = helper.make_node
    return [
        make("DynamicQuantizeLinear", [given], [f"{name}.x", f"{name}.xs", f"{name}.xz"]),
        make("MatMulInteger", [f"{name}.x", f"{name}.w", f"{name}.xz", "zero"], [f"{name}.sum"]),
        make("Cast", [f"{name}.sum"], [f"{name}.float"], to=TensorProto.FLOAT),
        make("Mul", [f"{name}.xs", f"{name}.ws"], [f"{name}.step"]),
        make("Mul", [f"{name}.float", f"{name}.step"], [f"{name}.scaled"]),
        make("Add", [f"{name}.scaled", bias], [name]),
    ]


def _normed(node: Any) -> list[Any]:
    """A sum and its normalisation, which onnxruntime 1.32 does in a quarter of the time of the two together; as a Sum,
    as it puts an Add and a normalisation together."""
    from onnx import helper

    (out,), (epsilon,) = node.output, [given.f for given in node.attribute if given.name == "epsilon"]
    return [
        helper.make_node("Sum", node.input[:2], [f"{out}.sum"]),
        helper.make_node("LayerNormalization", [f"{out}.sum", *node.input[2:]], [out], axis=-1, epsilon=epsilon),
    ]


def _largest(states: bytes, rows: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """The largest size (k,) of each input of the products that are smoothed."""
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load_from_string(states)
    inputs = {n.output[0]: n.input[0] for n in model.graph.node if n.output[0].partition(".")[2] in ALPHA}
    for name in set(inputs.values()):
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    running = session(model.SerializeToString(), 1)
    names, found = [output.name for output in running.get_outputs()], dict[str, np.ndarray]()
    for some in rows:
        for name, values in zip(names, running.run(None, {"rows": some[None]}), strict=True):
            here = np.abs(values).reshape(-1, values.shape[-1]).max(0)
            found[name] = np.maximum(found.get(name, 1e-5), here)
    return {name: found[given] for name, given in inputs.items()}
