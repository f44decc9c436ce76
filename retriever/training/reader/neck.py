"""The second head of the recogniser: its shape, its loss, and the ONNX file that has it.

From the maps of the trunk (3 heights x 2 columns a time step, before they are averaged) its neck makes 192 features,
linear in which are the new classes. The old head stays as it was, to the bit; only blank and space take the larger of
what the two heads say. A Hangul syllable's row is the sum of rows of its jamo and one of its own, so that rare ones are
learned from common ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from retriever.training.reader.classes import jamo
from retriever.training.reader.features import MAPS

WIDTH = 192
CONTEXT = 9
CLEARLY, SHARE = 4.0, 0.03
BIASED = -1.0  # added to the logits of kana, kanji and Hangul in the file, for the sake of Chinese


class Neck(nn.Module):
    """Maps (b, s, 960) -> features whose products with `weight()` are the logits of blank, space and `characters`."""

    def __init__(self, characters: list[str]) -> None:
        super().__init__()
        self.join = nn.Linear(960, WIDTH)
        self.context = nn.Conv1d(WIDTH, WIDTH, CONTEXT, padding=CONTEXT // 2, groups=WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.rows = nn.Parameter(torch.randn(len(characters) + 2, WIDTH) * 0.03)
        self.bias = nn.Parameter(torch.full((len(characters) + 2,), -4.0))
        self.jamo = nn.ParameterList([nn.Parameter(torch.randn(k, WIDTH) * 0.03) for k in (20, 22, 29)])
        places = [(0, 0, 0), (0, 0, 0), *map(jamo, characters)]
        self.biased = torch.tensor([0.0, 0.0, *[BIASED * (c > "\u3040") for c in characters]])
        self.places: torch.Tensor
        self.hangul: torch.Tensor
        self.register_buffer("places", torch.tensor(places).T.contiguous())
        self.register_buffer("hangul", (self.places[0] > 0).float()[:, None])

    def weight(self) -> torch.Tensor:
        """The rows (2 + n, WIDTH) of the classes."""
        parts = [part[place] for part, place in zip(self.jamo, self.places, strict=True)]
        return self.rows + self.hangul * torch.stack(parts).sum(0)

    def features(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (b, s, 960) -> what the classes are linear in, (b, s, WIDTH)."""
        joined = F.hardswish(self.join(maps))
        seen = F.hardswish(joined + self.context(joined.transpose(1, 2)).transpose(1, 2))
        return F.hardswish(joined + self.mix(seen))


def loss(
    neck: Neck, old: tuple[torch.Tensor, ...], wide: torch.Tensor, narrow: torch.Tensor, labels: list[list[int]]
) -> torch.Tensor:
    """CTC loss a line. old: weights (80, c) and biases (c,) of the old classes, the first blank, the last space;
    labels: for each line its classes, old ones 1 to c - 1, new ones c and on. Steps that pad are zeros in `wide`.

    The normaliser is over all classes; only those that the labels hold are gathered.
    """
    features, rows = neck.features(wide), neck.weight()
    weights, biases = old
    with torch.no_grad():
        before = narrow @ weights + biases
        normaliser = before[..., 1:-1].logsumexp(-1)
    count = len(biases)
    held = sorted({label for line in labels for label in line} - {count - 1})
    former, latter = [k for k in held if k < count], [k - count + 2 for k in held if k >= count]
    new = F.linear(features, rows[[0, 1, *latter]], neck.bias[[0, 1, *latter]])
    ends = torch.logaddexp(before[..., [0, -1]], new[..., :2])
    added = F.linear(features, rows[2:], neck.bias[2:]).logsumexp(-1)
    every = torch.cat([ends, normaliser[..., None], added[..., None]], -1).logsumexp(-1, keepdim=True)
    scores = torch.cat([ends, before[..., former], new[..., 2:]], -1) - every
    place = {count - 1: 1, **{label: i + 2 for i, label in enumerate(held)}}
    steps = (wide != 0).any(-1).sum(1)
    targets = torch.tensor([place[label] for line in labels for label in line])
    lengths = torch.tensor([*map(len, labels)])
    lost = F.ctc_loss(scores.transpose(0, 1), targets, steps, lengths, reduction="none", zero_infinity=True)
    return lost.sum() / lengths.sum()


def grown(model: bytes, neck: Neck) -> bytes:
    """The recogniser `model` with the second head, its weights in half precision."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    parsed = onnx.load_from_string(model)
    graph = parsed.graph
    softmax = graph.node[-1]
    before = graph.node[-2].input[0]
    nodes: list[onnx.NodeProto] = []

    def kept(name: str, values: torch.Tensor | None) -> str:
        assert values is not None
        array = values.detach().numpy()
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float16), f"new.{name}.h"))
        nodes.append(helper.make_node("Cast", [f"new.{name}.h"], [f"new.{name}"], to=TensorProto.FLOAT))
        return f"new.{name}"

    def node(kind: str, given: list[str], out: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, given, [out], **attributes))
        return out

    def whole(name: str, *values: int) -> str:
        graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    join = neck.join.weight.reshape(WIDTH, 160, 3, 2)
    taken = [MAPS, kept("join", join), kept("join.b", neck.join.bias)]
    joined = node("Conv", taken, "new.1", kernel_shape=[3, 2], strides=[3, 2])
    joined = node("HardSwish", [joined], "new.2")
    around = [kept("context", neck.context.weight[:, :, None]), kept("context.b", neck.context.bias)]
    side = CONTEXT // 2
    seen = node("Conv", [joined, *around], "new.3", kernel_shape=[1, CONTEXT], pads=[0, side, 0, side], group=WIDTH)
    seen = node("HardSwish", [node("Add", [joined, seen], "new.4")], "new.5")
    mixed = [seen, kept("mix", neck.mix.weight[:, :, None, None]), kept("mix.b", neck.mix.bias)]
    mixture = node("Conv", mixed, "new.6", kernel_shape=[1, 1])
    seen = node("HardSwish", [node("Add", [joined, mixture], "new.7")], "new.8")
    flat = node("Squeeze", [seen, whole("new.axis", 2)], "new.9")
    flat = node("Transpose", [flat], "new.10", perm=[0, 2, 1])
    rows = kept("rows", neck.weight().T)
    logits = node("Add", [node("MatMul", [flat, rows], "new.11"), kept("bias", neck.bias + neck.biased)], "new.12")
    count, added = _classes(graph), len(neck.bias)
    old, new = ["new.blank.0", "new.old", "new.space.0"], ["new.blank.1", "new.space.1", "new.characters"]
    nodes.append(helper.make_node("Split", [before, whole("new.split.0", 1, count - 2, 1)], old, axis=2))
    nodes.append(helper.make_node("Split", [logits, whole("new.split.1", 1, 1, added - 2)], new, axis=2))
    gate = _gate(nodes, graph, before, old[0], new[2])
    new = [node("Add", [name, gate], f"{name}.gated") for name in new]
    blank, space = node("Max", [old[0], new[0]], "new.blank"), node("Max", [old[2], new[1]], "new.space")
    softmax.input[0] = node("Concat", [blank, old[1], new[2], space], "new.all", axis=2)
    kept_nodes = [*graph.node[:-2], *nodes, softmax]
    del graph.node[:]
    graph.node.extend(kept_nodes)
    graph.output[0].type.tensor_type.shape.dim[2].dim_value = count + added - 2
    return bytes(parsed.SerializeToString(deterministic=True))


def _gate(nodes: list[Any], graph: Any, before: str, blank: str, characters: str) -> str:
    """Adds nodes that give a line (b, 1, 1) 0 where the new head has a say in it, -10,000 where it has none.

    It has where a new character beats all old classes by CLEARLY at a SHARE or more of the steps that the old head
    does not call blank: a line of the old scripts is read by the old head alone.
    """
    from onnx import TensorProto, helper, numpy_helper

    def node(kind: str, given: list[str], out: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, given, [f"gate.{out}"], **attributes))
        return f"gate.{out}"

    def number(name: str, value: float) -> str:
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), f"gate.{name}"))
        return f"gate.{name}"

    def count(name: str, larger: str, smaller: str) -> str:
        told = node("Cast", [node("Greater", [larger, smaller], f"{name}.0")], f"{name}.1", to=TensorProto.FLOAT)
        graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), f"gate.{name}.axis"))
        return node("ReduceSum", [told, f"gate.{name}.axis"], name, keepdims=1)

    best = node("ReduceMax", [before], "best", axes=[2], keepdims=1)
    clear = node("Add", [best, number("clearly", CLEARLY)], "clear")
    wins = count("wins", node("ReduceMax", [characters], "new", axes=[2], keepdims=1), clear)
    least = node("Mul", [count("read", best, blank), number("share", SHARE)], "least")
    less = node("Cast", [node("Less", [wins, least], "less")], "shut", to=TensorProto.FLOAT)
    return node("Mul", [less, number("none", -1e4)], "gate")


def _classes(graph: object) -> int:
    return next(int(value.dims[0]) for value in graph.initializer if value.name.startswith("linear_1.b_0"))  # type: ignore[attr-defined]


def last_layer(model: bytes) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (80, c) and biases (c,) of the old classes of the recogniser `model`."""
    import onnx
    from onnx import numpy_helper

    found = {value.name.removesuffix(".h"): value for value in onnx.load_from_string(model).graph.initializer}
    arrays = [numpy_helper.to_array(found[f"linear_1.{part}_0"]).astype(np.float32) for part in "wb"]
    return torch.from_numpy(arrays[0].copy()), torch.from_numpy(arrays[1].copy())
