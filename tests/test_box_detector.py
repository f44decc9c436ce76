"""The detector's sums in another order are the same sums."""

import numpy as np
import pytest

from retriever.encoders.box.states import session

onnx = pytest.importorskip("onnx")


def _graph() -> bytes:
    """A detector's end: two maps, one times itself and a gate, the other blown up twice; 3 x 3; up by 2 x 2 twice."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(1)
    shapes = {
        **{"conv": (16, 32, 3, 3), "conv.bias": (1, 16, 1, 1), "one": (16, 16, 2, 2), "one.bias": (1, 16, 1, 1)},
        **{"two": (16, 1, 2, 2), "two.bias": (1, 1, 1, 1), "fine": (16, 3, 1, 1), "coarse": (16, 3, 2, 2)},
    }
    values = [
        numpy_helper.from_array((random.standard_normal(shape) / 3).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    values.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"))
    values.append(numpy_helper.from_array(np.array([], np.float32), "roi"))
    resize = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    two = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        helper.make_node("Conv", ["x", "fine"], ["map"], kernel_shape=[1, 1]),
        helper.make_node("GlobalAveragePool", ["map"], ["mean"]),
        helper.make_node("HardSigmoid", ["mean"], ["gate"]),
        helper.make_node("Mul", ["map", "gate"], ["gated"]),
        helper.make_node("Add", ["map", "gated"], ["more"]),
        helper.make_node("Conv", ["x", "coarse"], ["half"], **two),
        helper.make_node("Resize", ["half", "roi", "scales"], ["blown"], **resize),
        helper.make_node("Concat", ["blown", "more"], ["both"], axis=1),
        helper.make_node("Conv", ["both", "conv"], ["end"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["end", "conv.bias"], ["end.biased"]),
        helper.make_node("Relu", ["end.biased"], ["end.read"]),
        helper.make_node("ConvTranspose", ["end.read", "one"], ["up"], **two),
        helper.make_node("Add", ["up", "one.bias"], ["up.biased"]),
        helper.make_node("Relu", ["up.biased"], ["up.read"]),
        helper.make_node("ConvTranspose", ["up.read", "two"], ["last"], **two),
        helper.make_node("Add", ["last", "two.bias"], ["last.biased"]),
        helper.make_node("Sigmoid", ["last.biased"], ["found"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "found")]
    body = helper.make_graph(nodes, "detector", ends[:1], ends[1:], values)
    opsets = [helper.make_opsetid("", 16)]
    return bytes(helper.make_model(body, opset_imports=opsets, ir_version=8).SerializeToString())


def test_the_detector_finds_the_same() -> None:
    from retriever.encoders.box.build_detector import merged

    model = merged(_graph())
    kinds = {node.op_type for node in onnx.load_from_string(model).graph.node}
    assert kinds.isdisjoint({"Resize", "Concat"}) and "DepthToSpace" in kinds
    x = np.random.default_rng(2).standard_normal((1, 3, 8, 12)).astype(np.float32)
    (before,), (after,) = (session(data, 1).run(None, {"x": x}) for data in (_graph(), model))
    assert before.shape == after.shape == (1, 1, 32, 48) and before.std() > 0.1
    np.testing.assert_allclose(after, before, atol=1e-5)
