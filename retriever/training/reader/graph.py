"""The ONNX file of the recogniser with its second head: what it gives are classes, not probabilities of all of them.

A line (1, 3, 48, w) -> for each of its s time steps the class that is likeliest and how likely it is. The new classes
are in groups of scripts; each has a say only in a line where its characters beat all old classes clearly, and at a
share of the steps that the old head reads, so that a line of the old scripts is read by the old head alone. Kana, kanji
and Hangul, three quarters of the new classes, are not even looked at where the old head is sure of what it reads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from retriever.training.reader import classes
from retriever.training.reader.features import MAPS, NARROW
from retriever.training.reader.neck import CONTEXT, WIDTH, Neck, last_layer

SURE = 0.95
SHUT = -1e4


class Group(NamedTuple):
    """New classes of one kind. clearly: by how much they have to beat the best old class; share: of the steps read."""

    name: str
    characters: str
    clearly: float
    share: float


LATIN = Group("latin", classes.LATIN + classes.POINTLESS, 1.0, 0.012)
VIETNAMESE = Group("marked", classes.MARKED, 1.0, 0.1)
CYRILLIC_GREEK = Group("cyrillic", classes.CYRILLIC + classes.GREEK, 4.0, 0.15)
EASTERN = Group("eastern", "", 4.0, 0.03)


class _Writer:
    """Nodes and initialisers behind those of the trunk."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.nodes: list[Any] = []

    def node(self, kind: str, given: list[str], out: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, given, [out], **attributes))
        return out

    def value(self, name: str, array: np.ndarray) -> str:
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def half(self, name: str, values: torch.Tensor | None) -> str:
        """A weight in half precision, cast when the session is made."""
        assert values is not None
        self.value(f"{name}.h", values.detach().numpy().astype(np.float16))
        return self.node("Cast", [f"{name}.h"], name, to=TensorProto.FLOAT)

    def number(self, name: str, value: float) -> str:
        return self.value(name, np.array(value, np.float32))

    def steps(self, name: str, told: str) -> str:
        """How many of the steps are `told` (1, s, 1) bool: (1, 1, 1)."""
        self.node("Cast", [told], f"{name}.0", to=TensorProto.FLOAT)
        return self.node("ReduceSum", [f"{name}.0", "one"], name, keepdims=1)


def grown(model: bytes, neck: Neck, characters: list[str]) -> bytes:
    """The recogniser `model` with `neck`, whose classes are `characters`, in their order, after those it had."""
    parsed = onnx.load_from_string(model)
    to = _Writer(parsed.graph)
    trunk = list(parsed.graph.node)
    while NARROW not in trunk[-1].output:  # down to what the old classes are linear in
        trunk.pop()
    count = len(last_layer(model)[1])
    to.value("one", np.array([1], np.int64))
    to.value("first", np.array([0], np.int64))
    _old(to)
    flat = _features(to, neck)
    place = {c: k + 2 for k, c in enumerate(characters[: -len(classes.MARKED)])}
    groups = {group.name: [place[c] for c in group.characters if c in place] for group in (LATIN, CYRILLIC_GREEK)}
    groups["marked"] = [*range(len(characters) + 2 - len(classes.MARKED), len(characters) + 2)]
    eastern = sorted({*range(2, len(characters) + 2)}.difference(*groups.values()))
    rows, bias = neck.weight(), neck.bias + neck.biased
    picked = [0, 1, *(k for group in groups.values() for k in group)]
    to.node("Gemm", [flat, to.half("letters.rows", rows[picked].T), to.half("letters.bias", bias[picked])], "letters")
    sizes = to.value("letters.sizes", np.array([1, 1, *map(len, groups.values())], np.int64))
    to.nodes.append(helper.make_node("Split", ["letters", sizes], ["new.blank", "new.space", *groups], axis=1))
    tops = {name: _top(to, name, [count + k - 2 for k in group]) for name, group in groups.items()}
    tops["eastern"] = _unless_sure(to, flat, rows[eastern], bias[eastern], [count + k - 2 for k in eastern])
    gates = {group.name: _gate(to, group, tops[group.name][0]) for group in (LATIN, CYRILLIC_GREEK, EASTERN)}
    gates["marked"] = _gate(to, VIETNAMESE, tops["latin"][0])
    to.node("Max", [gates["marked"], gates["cyrillic"], gates["eastern"]], "any")
    scores, kinds = ["old.best"], ["old.class"]
    for name, (top, number) in tops.items():
        scores.append(to.node("Add", [top, gates[name]], f"{name}.gated"))
        kinds.append(number)
    for name, new_class in (("new.blank", 0), ("new.space", count - 1)):
        scores.append(to.node("Add", [name, "any"], f"{name}.gated"))
        class_of = to.value(f"{name}.number", np.array(new_class, np.int64))
        kinds.append(to.node("Add", ["old.none", class_of], f"{name}.class"))
    _answer(to, scores, kinds)
    del parsed.graph.node[:], parsed.graph.output[:]
    parsed.graph.node.extend([*trunk, *to.nodes])
    parsed.graph.output.append(helper.make_tensor_value_info("class", TensorProto.INT64, ["steps"]))
    parsed.graph.output.append(helper.make_tensor_value_info("sure", TensorProto.FLOAT, ["steps"]))
    return bytes(parsed.SerializeToString(deterministic=True))


def _old(to: _Writer) -> None:
    """The best old class of each step, its logit, the sum of exponentials below it: all (s, 1).

    Classes and sums are looked for only where the best is not blank; elsewhere they are 0 and 1.
    """
    flat = to.node("Squeeze", [NARROW, "first"], "old.flat")
    logits = to.node("Gemm", [flat, "linear_1.w_0", "linear_1.b_0"], "old.logits")
    best = to.node("ReduceMax", [logits], "old.best", axes=[1], keepdims=1)
    blank = to.node("Slice", [logits, "first", "one", "one"], "old.blank")
    read = to.node("Greater", [best, blank], "old.read")
    to.node("Cast", [read], "old.read.1", to=TensorProto.FLOAT)
    to.node("ReduceSum", ["old.read.1", "first"], "old.many", keepdims=1)
    places = to.node("Transpose", [to.node("NonZero", [read], "old.places.0")], "old.places.1", perm=[1, 0])
    places = to.node("Slice", [places, "first", "one", "one"], "old.places")
    taken = to.node("GatherND", [logits, places], "old.taken")
    kind = to.node("ArgMax", [taken], "old.class.0", axis=1, keepdims=1)
    below = to.node("Sub", [taken, to.node("GatherND", [best, places], "old.best.0")], "old.below")
    total = to.node("ReduceSum", [to.node("Exp", [below], "old.spread"), "one"], "old.total.0", keepdims=1)
    to.node("Cast", ["old.read"], "old.none.0", to=TensorProto.INT64)
    none = to.node("Mul", ["old.none.0", "first"], "old.none")
    to.node("Exp", [to.node("Cast", [none], "old.none.1", to=TensorProto.FLOAT)], "old.ones")
    to.node("ScatterND", [none, places, kind], "old.class")
    to.node("ScatterND", ["old.ones", places, total], "old.total")
    sure = to.node("ReduceSum", [to.node("Reciprocal", [total], "old.sure.0"), "first"], "old.sure.1", keepdims=1)
    to.node("Div", [sure, "old.many"], "old.sure")


def _features(to: _Writer, neck: Neck) -> str:
    """What the new classes are linear in, (1, s, WIDTH)."""
    join = [MAPS, to.half("join", neck.join.weight.reshape(WIDTH, 160, 3, 2)), to.half("join.b", neck.join.bias)]
    joined = to.node("Conv", join, "new.1", kernel_shape=[3, 2], strides=[3, 2])
    joined = to.node("HardSwish", [joined], "new.2")
    around = [to.half("context", neck.context.weight[:, :, None]), to.half("context.b", neck.context.bias)]
    side = CONTEXT // 2
    seen = to.node("Conv", [joined, *around], "new.3", kernel_shape=[1, CONTEXT], pads=[0, side, 0, side], group=WIDTH)
    seen = to.node("HardSwish", [to.node("Add", [joined, seen], "new.4")], "new.5")
    mixed = [seen, to.half("mix", neck.mix.weight[:, :, None, None]), to.half("mix.b", neck.mix.bias)]
    mixture = to.node("Conv", mixed, "new.6", kernel_shape=[1, 1])
    seen = to.node("HardSwish", [to.node("Add", [joined, mixture], "new.7")], "new.8")
    flat = to.node("Squeeze", [seen, to.value("flat", np.array([0, 2], np.int64))], "new.9")
    return to.node("Transpose", [flat], "new.10", perm=[1, 0])


def _top(to: _Writer, part: str, numbers: list[int]) -> tuple[str, str]:
    """The best of a group's logits `part` at each step and its class."""
    which = to.node("ArgMax", [part], f"{part}.which", axis=1, keepdims=1)
    top = to.node("GatherElements", [part, which], f"{part}.top", axis=1)
    return top, to.node("Gather", [to.value(f"{part}.numbers", np.array(numbers, np.int64)), which], f"{part}.class")


def _unless_sure(to: _Writer, flat: str, rows: torch.Tensor, bias: torch.Tensor, numbers: list[int]) -> tuple[str, str]:
    """The best of the eastern classes and their numbers; SHUT where the old head's mean probability is above SURE."""
    to.node("Greater", ["old.sure", to.number("eastern.sure", SURE)], "eastern.needless")
    to.node("Squeeze", [to.node("Not", ["eastern.needless"], "eastern.needed.0")], "eastern.needed")
    look, none = _Writer(to.graph), _Writer(to.graph)
    weights = [to.half("eastern.rows", rows.T), to.half("eastern.bias", bias)]
    look.node("Gemm", [flat, *weights], "eastern")
    found = _top(look, "eastern", numbers)
    none.node("Mul", ["old.ones", to.number("eastern.shut", SHUT)], "eastern.none")
    none.node("Identity", ["old.none"], "eastern.none.class")

    def branch(name: str, writer: _Writer, outputs: tuple[str, str]) -> Any:
        kinds = zip(outputs, (TensorProto.FLOAT, TensorProto.INT64), strict=True)
        told = [helper.make_tensor_value_info(output, kind, None) for output, kind in kinds]
        return helper.make_graph(writer.nodes, name, [], told)

    branches = {
        "then_branch": branch("look", look, found),
        "else_branch": branch("none", none, ("eastern.none", "eastern.none.class")),
    }
    outputs = ("eastern.best", "eastern.best.class")
    to.nodes.append(helper.make_node("If", ["eastern.needed"], list(outputs), **branches))
    return outputs


def _gate(to: _Writer, group: Group, top: str) -> str:
    """0 where a group has a say in the line, SHUT where it has none, (1, 1)."""
    name = f"gate.{group.name}"
    clear = to.node("Add", ["old.best", to.number(f"{name}.clearly", group.clearly)], f"{name}.clear")
    wins = to.node("Cast", [to.node("Greater", [top, clear], f"{name}.more")], f"{name}.more.1", to=TensorProto.FLOAT)
    wins = to.node("ReduceSum", [wins, "first"], f"{name}.wins", keepdims=1)
    least = to.node("Mul", ["old.many", to.number(f"{name}.share", group.share)], f"{name}.least")
    less = to.node("Cast", [to.node("Less", [wins, least], f"{name}.less")], f"{name}.shut", to=TensorProto.FLOAT)
    return to.node("Mul", [less, to.number(f"{name}.none", SHUT)], name)


def _answer(to: _Writer, scores: list[str], kinds: list[str]) -> None:
    """The outputs: class (s,) int64 and sure (s,) float32."""
    every = to.node("Concat", scores, "every", axis=1)
    which = to.node("ArgMax", [every], "which", axis=1, keepdims=1)
    chosen = to.node("GatherElements", [to.node("Concat", kinds, "kinds", axis=1), which], "chosen", axis=1)
    to.node("Squeeze", [chosen, "one"], "class")
    top = to.node("GatherElements", [every, which], "top", axis=1)
    spread = to.node("Exp", [to.node("Sub", [every, top], "every.below")], "every.spread")
    sizes = to.value("every.sizes", np.array([1, len(scores) - 1], np.int64))
    to.nodes.append(helper.make_node("Split", [spread, sizes], ["spread.old.0", "spread.new.0"], axis=1))
    old = to.node("Mul", ["spread.old.0", "old.total"], "spread.old")
    new = to.node("ReduceSum", ["spread.new.0", "one"], "spread.new", keepdims=1)
    sure = to.node("Reciprocal", [to.node("Add", [old, new], "spread")], "sure.0")
    to.node("Squeeze", [sure, "one"], "sure")
