"""The recogniser's trunk in 8 bits: how weights are rounded, what a graph so changed gives, and the file that ships."""

from typing import Any

import numpy as np
import pytest

from retriever.encoders.box.initialisers import borrowed, initialisers
from retriever.encoders.box.states import session
from retriever.encoders.box.weights import FOLDER


def test_weights_are_rounded_by_what_they_are_multiplied_with() -> None:
    pytest.importorskip("onnx")
    from retriever.training.reader import octets

    random = np.random.default_rng(1)
    weights = random.standard_normal((12, 32)).astype(np.float32)
    x = random.standard_normal((500, 4)) @ random.standard_normal((4, 32)) + random.standard_normal((500, 32)) / 10
    whole, steps = octets.rounded(weights, x.T @ x)
    assert np.abs(whole.astype(int)).reshape(12, 16, 2).sum(2).max() == 128
    plain = np.rint(weights / steps[:, None]) * steps[:, None]
    lost = [((x @ (given - weights).T) ** 2).mean() for given in (whole * steps[:, None], plain)]
    assert lost[0] < 0.5 * lost[1]


def _graph() -> bytes:
    """x -> a block as the recogniser has them, 96 - 192 - 96 channels, another product, and a large weight."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(2)
    nodes, values, given = [], [], "x"
    for name, n, k in (("one", 192, 96), ("two", 96, 192), ("three", 192, 96)):
        values.append(
            numpy_helper.from_array((random.standard_normal((n, k, 1, 1)) / 9).astype(np.float16), f"{name}.h")
        )
        values.append(numpy_helper.from_array(random.standard_normal((1, n, 1, 1)).astype(np.float32), f"{name}.bias"))
        nodes.append(helper.make_node("Cast", [f"{name}.h"], [f"{name}.weights"], to=TensorProto.FLOAT))
        nodes.append(
            helper.make_node("Conv", [given, f"{name}.weights"], [f"{name}.sum"], name=name, kernel_shape=[1, 1])
        )
        nodes.append(helper.make_node("Add", [f"{name}.sum", f"{name}.bias"], [name], name=f"{name}.add"))
        if name == "two":
            nodes.append(helper.make_node("Add", ["x", "two"], ["two.both"], name="both"))
        nodes.append(helper.make_node("Relu", ["two.both" if name == "two" else name], [given := f"{name}.end"]))
    values.append(numpy_helper.from_array(random.standard_normal((1, 192, 1, 1)).astype(np.float32), "large"))
    nodes.append(helper.make_node("Mul", ["three.end", "large"], ["end"]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "end")]
    body = helper.make_graph(nodes, "block", ends[:1], ends[1:], values)
    opsets = [helper.make_opsetid("", 16)]
    return bytes(helper.make_model(body, opset_imports=opsets, ir_version=8).SerializeToString())


def test_a_graph_in_8_bits_gives_the_same_but_for_their_noise() -> None:
    onnx = pytest.importorskip("onnx")
    from retriever.training.reader import octets

    random = np.random.default_rng(3)
    lines = [random.standard_normal((1, 96, 3, width)).astype(np.float32) for width in (40, 55, 7)]
    model = octets.octets(_graph(), lines[:2])
    kinds = [node.op_type for node in onnx.load_from_string(model).graph.node]
    assert [kinds.count(kind) for kind in ("MatMulInteger", "Conv", "Cast", "Transpose")] == [3, 0, 3, 7]
    assert set(initialisers(model)).isdisjoint({"one.h", "two.h", "one.bias", "two.bias", "large"})
    given = borrowed(model, _graph())
    assert list(given) == ["large"]
    (before,), (after,) = (
        session(data, 1, more).run(None, {"x": lines[2]}) for data, more in ((_graph(), None), (model, given))
    )
    assert 0 < np.linalg.norm(after - before) < 0.02 * np.linalg.norm(before)


def test_the_net_that_ships_multiplies_bytes_that_no_processor_cuts_off() -> None:
    model = (FOLDER / "quick.onnx").read_bytes()
    found: dict[str, Any] = {name: value for name, value in initialisers(model).items() if value.dtype == np.int8}
    products = [value for value in found.values() if value.ndim == 2]
    assert len(products) == 12
    for value in products:
        assert np.abs(value.astype(int)).reshape(-1, 2, value.shape[1]).sum(1).max() <= 128
