"""The ONNX file of the recogniser with its second head: what it gives are classes, not probabilities of all of them.

A line (1, 3, 48, w) -> for each of its s time steps the class that is likeliest and how likely it is, and the likeliest
few of each kind with their logits, so that one may be preferred that makes a word (`likely`). The new classes
are in groups of scripts; each has a say only in a line where its characters beat all old classes clearly, and at a
share of the steps that the old head reads, so that a line of the old scripts is read by the old head alone. Kana, kanji
and Hangul, three quarters of the new classes, and the layers of their own are not even looked at where the old head is
sure of what it reads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from retriever.encoders.box.scripts import japanese
from retriever.training.reader import classes
from retriever.training.reader.features import MAPS, NARROW, cut
from retriever.training.reader.neck import CONTEXT, STROKES, WIDTH, Neck, last_layer
from retriever.training.reader.scout import Scout, near

SURE = 0.95
SHUT = -1e4
FEW = 4  # classes of a kind that are told
KANA = 0.1
FOREIGN = (-6.0, -2.0, 0.0)  # in a Japanese line, on logits of what JIS X 0208 lacks, its second level, all others


class Group(NamedTuple):
    """New classes of one kind. clearly: by how much they have to beat the best old class; share: of the steps read."""

    name: str
    clearly: float
    share: float


LATIN = Group("latin", 1.0, 0.012)
VIETNAMESE = Group("marked", 1.0, 0.1)
CYRILLIC_GREEK = Group("cyrillic", 4.0, 0.15)
EASTERN = Group("eastern", 4.0, 0.03)


class _Few(NamedTuple):
    """Names of the likeliest FEW logits of a step, the best first, and of their classes: each (u, FEW)."""

    logits: str
    kinds: str


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

    def linear(self, name: str, layer: torch.nn.Linear) -> list[str]:
        """Weights and biases of a layer, as Gemm takes them."""
        return [self.half(name, layer.weight.T), self.half(f"{name}.b", layer.bias)]

    def few(self, name: str, logits: str, numbers: str) -> _Few:
        """The likeliest FEW by `logits` (u, c) of the classes `numbers` (c,)."""
        self.nodes.append(helper.make_node("TopK", [logits, "few"], [f"{name}.few", f"{name}.which"], axis=1))
        return _Few(f"{name}.few", self.node("Gather", [numbers, f"{name}.which"], f"{name}.few.class"))

    def first(self, few: _Few) -> tuple[str, str]:
        """The likeliest of a few: its logit and its class, (u, 1)."""
        top, kind = (self.node("Gather", [name, "first"], f"{name}.first", axis=1) for name in few)
        return top, kind

    def choice(self, which: str, yes: _Branch, no: _Branch, out: tuple[str, ...]) -> list[str]:
        """What one of two branches gives: logits, their classes, and at times a sum."""
        kinds = (TensorProto.FLOAT, TensorProto.INT64, TensorProto.FLOAT)
        graphs = {}
        for branch, (writer, names) in (("then_branch", yes), ("else_branch", no)):
            told = [helper.make_tensor_value_info(name, kind, None) for name, kind in zip(names, kinds, strict=False)]
            graphs[branch] = helper.make_graph(writer.nodes, f"{which}.{branch}", [], told)
        self.nodes.append(helper.make_node("If", [which], [*out], **graphs))
        return [*out]


_Branch = tuple[_Writer, tuple[str, ...]]


def grown(model: bytes, neck: Neck, scout: Scout, known: list[str], characters: list[str]) -> bytes:
    """The recogniser `model` of the classes `known` with `neck`, whose classes are `characters`, in their order."""
    parsed = onnx.load_from_string(model)
    to = _Writer(parsed.graph)
    weights, biases = last_layer(model)
    cut(parsed.graph)  # down to what the old classes are linear in
    trunk = list(parsed.graph.node)
    count = len(biases)
    to.value("one", np.array([1], np.int64))
    to.value("first", np.array([0], np.int64))
    to.value("few", np.array([FEW], np.int64))
    _old(to, known, scout)
    flat = _features(to, neck)
    groups = {kind: [i + 2 for i in group] for kind, group in classes.groups(characters).items()}
    eastern = groups.pop("eastern")
    rows, bias = neck.weight(), neck.bias + neck.biased
    picked = [0, 1, *(k for group in groups.values() for k in group)]
    to.node("Gemm", [flat, to.half("letters.rows", rows[picked].T), to.half("letters.bias", bias[picked])], "letters")
    sizes = to.value("letters.sizes", np.array([1, 1, *map(len, groups.values())], np.int64))
    to.nodes.append(helper.make_node("Split", ["letters", sizes], ["new.blank", "new.space", *groups], axis=1))
    fews = {name: _of_group(to, name, [count + k - 2 for k in group]) for name, group in groups.items()}
    fews["eastern"] = _unless_sure(to, neck, flat, rows[eastern], bias[eastern], [count + k - 2 for k in eastern])
    tops = {name: to.first(few) for name, few in fews.items()}
    gates = {group.name: _gate(to, group, tops[group.name][0]) for group in (LATIN, CYRILLIC_GREEK, EASTERN)}
    gates["marked"] = _gate(to, VIETNAMESE, tops["latin"][0])
    to.node("Max", [gates["marked"], gates["cyrillic"], gates["eastern"]], "any")
    former = _japanese(to, known, sum(c in classes.KANA for c in characters), tops["eastern"])
    scores, kinds = [former.top], [former.kind]
    for name, (top, number) in tops.items():
        scores.append(to.node("Add", [top, gates[name]], f"{name}.gated"))
        kinds.append(number)
    for name, new_class in (("new.blank", 0), ("new.space", count - 1)):
        scores.append(to.node("Add", [name, "any"], f"{name}.gated"))
        class_of = to.value(f"{name}.number", np.array(new_class, np.int64))
        kinds.append(to.node("Add", ["old.none", class_of], f"{name}.class"))
    _answer(to, scores, kinds, former.total)
    _others(to, {name: (few, gates[name]) for name, few in fews.items()})
    del parsed.graph.node[:], parsed.graph.output[:]
    parsed.graph.node.extend([*trunk, *to.nodes])
    parsed.graph.output.append(helper.make_tensor_value_info("class", TensorProto.INT64, ["steps"]))
    parsed.graph.output.append(helper.make_tensor_value_info("sure", TensorProto.FLOAT, ["steps"]))
    parsed.graph.output.append(helper.make_tensor_value_info("others", TensorProto.INT64, ["steps", "many"]))
    parsed.graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["steps", "many"]))
    return bytes(parsed.SerializeToString(deterministic=True))


def _old(to: _Writer, known: list[str], scout: Scout) -> None:
    """The best old class of each step, its logit, the sum of exponentials below it (1 where it is blank): all (s, 1).

    The near classes are looked at at all steps, the others where the scout does not rule them out.
    """
    close, count = near(known), len(known) + 2
    far = sorted({*range(count)}.difference(close))
    flat = to.node("Squeeze", [NARROW, "first"], "old.flat")
    one = _best(to, "old.near", _logits(to, "old.near", flat, close), "old.near.numbers")
    hidden = to.node("Gemm", [flat, *to.linear("scout.one", scout.one)], "scout.hidden")
    told = to.node("Gemm", [to.node("Relu", [hidden], "scout.seen"), *to.linear("scout.two", scout.two)], "scout.told")
    doubtful = to.node("Greater", [told, to.number("scout.least", scout.least)], "scout.doubtful")
    places = to.node("NonZero", [to.node("Squeeze", [doubtful, "one"], "scout.flat")], "old.places.0")
    places = to.node("Transpose", [places], "old.places.1", perm=[1, 0])
    # step 0 is always one, as TopK of no steps divides by zero in onnxruntime 1.23
    origin = to.value("old.origin", np.array([[0]], np.int64))
    places = to.node("Concat", [origin, places], "old.places", axis=0)
    logits = _logits(to, "old.far", to.node("GatherND", [flat, places], "old.taken"), far)
    to.node("Mul", [one.kind, "first"], "old.none")
    to.node("Exp", [to.node("Cast", ["old.none"], "old.none.1", to=TensorProto.FLOAT)], "old.ones")
    to.node("Mul", ["old.ones", to.number("old.shut", SHUT)], "old.never")
    best = _either(to, "old", one, _best(to, "old.far", logits, "old.far.numbers"))
    read = to.node("Greater", [best.kind, "first"], "old.read")
    weight = to.node("Cast", [read], "old.read.1", to=TensorProto.FLOAT)
    many = to.node("ReduceSum", [weight, "first"], "old.many", keepdims=1)
    sure = to.node("Div", [weight, best.total], "old.sure.0")
    to.node("Div", [to.node("ReduceSum", [sure, "first"], "old.sure.1", keepdims=1), many], "old.sure")


def _japanese(to: _Writer, known: list[str], kana: int, eastern: tuple[str, str]) -> _Best:
    """The best old classes: where kana, the first `kana` new classes, win at KANA of the steps read, of those at a
    discount that Japanese does without."""
    top, kind = eastern
    last = to.value("kana.last", np.array(len(known) + 2 + kana, np.int64))
    more, kana_ = to.node("Greater", [top, "old.best"], "kana.more"), to.node("Less", [kind, last], "kana.is")
    wins = to.node("Cast", [to.node("And", [more, kana_], "kana")], "kana.1", to=TensorProto.FLOAT)
    steps = to.node("ReduceSum", [wins, "first"], "kana.wins", keepdims=1)
    share = to.node("Mul", ["old.many", to.number("kana.share", KANA)], "kana.least")
    to.node("Squeeze", [to.node("Greater", [steps, share], "kana.enough")], "kana.japanese")
    look, keep = _Writer(to.graph), _Writer(to.graph)
    discount = np.array([FOREIGN[japanese(c)] for c in known], np.float32)
    far = sorted({*range(len(known) + 2)}.difference(near(known)))
    to.value("kana.discount.h", discount[np.array(far) - 1].astype(np.float16))
    to.node("Cast", ["kana.discount.h"], "kana.discount", to=TensorProto.FLOAT)
    less = look.node("Add", ["old.far.logits", "kana.discount"], "kana.logits")
    one = _Best("old.near.few.first", "old.near.few.class.first", "old.near.total")
    found = _either(look, "japanese", one, _best(look, "japanese.far", less, "old.far.numbers"))
    kept = _Best(*(keep.node("Identity", [name], f"{name}.kept") for name in ("old.best", "old.class", "old.total")))
    return _Best(*to.choice("kana.japanese", (look, found), (keep, kept), ("read.best", "read.class", "read.total")))


class _Best(NamedTuple):
    """Names of a step's best logit, its class, the sum of exponentials below it: each (u, 1)."""

    top: str
    kind: str
    total: str


def _logits(to: _Writer, name: str, flat: str, numbers: list[int]) -> str:
    """The logits of the old classes `numbers` at the steps `flat` (u, 80)."""
    picked = to.value(f"{name}.numbers", np.array(numbers, np.int64))
    rows = to.node("Gather", ["linear_1.w_0", picked], f"{name}.rows", axis=1)
    return to.node("Gemm", [flat, rows, to.node("Gather", ["linear_1.b_0", picked], f"{name}.bias")], f"{name}.logits")


def _best(to: _Writer, name: str, logits: str, numbers: str) -> _Best:
    """The best of `logits` (u, c) of the classes `numbers` (c,)."""
    top, kind = to.first(to.few(name, logits, numbers))
    spread = to.node("Exp", [to.node("Sub", [logits, top], f"{name}.below")], f"{name}.spread")
    return _Best(top, kind, to.node("ReduceSum", [spread, "one"], f"{name}.total", keepdims=1))


def _either(to: _Writer, name: str, one: _Best, other: _Best) -> _Best:
    """The better of `one`, of all steps, and the `other`, of the steps old.places."""
    top = to.node("ScatterND", ["old.never", "old.places", other.top], f"{name}.other.top")
    kind = to.node("ScatterND", ["old.none", "old.places", other.kind], f"{name}.other.kind")
    total = to.node("ScatterND", ["old.ones", "old.places", other.total], f"{name}.other.total")
    best = to.node("Max", [one.top, top], f"{name}.best")
    to.node("Where", [to.node("Greater", [top, one.top], f"{name}.farther"), kind, one.kind], f"{name}.class")
    parts = []
    for part, logit, below in (("near", one.top, one.total), ("other", top, total)):
        share = to.node("Exp", [to.node("Sub", [logit, best], f"{name}.{part}.lower")], f"{name}.{part}.share")
        parts.append(to.node("Mul", [share, below], f"{name}.{part}.sum"))
    letter = to.node("Greater", [f"{name}.class", "first"], f"{name}.letter")
    to.node("Where", [letter, to.node("Add", parts, f"{name}.sum"), "old.ones"], f"{name}.total")
    return _Best(best, f"{name}.class", f"{name}.total")


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
    beside = [seen, to.half("near", neck.near.weight[:, :, None]), to.half("near.b", neck.near.bias)]
    hidden = to.node("HardSwish", [to.node("Conv", beside, "new.9", kernel_shape=[1, 3], pads=[0, 1, 0, 1])], "new.10")
    deeper = [hidden, to.half("deep", neck.deep.weight[:, :, None, None]), to.half("deep.b", neck.deep.bias)]
    seen = to.node("Add", [seen, to.node("Conv", deeper, "new.11", kernel_shape=[1, 1])], "new.12")
    flat = to.node("Squeeze", [seen, to.value("flat", np.array([0, 2], np.int64))], "new.13")
    return to.node("Transpose", [flat], "new.14", perm=[1, 0])


def _of_group(to: _Writer, part: str, numbers: list[int]) -> _Few:
    """The likeliest of a group's logits `part` at each step and their classes."""
    return to.few(part, part, to.value(f"{part}.numbers", np.array(numbers, np.int64)))


def _unless_sure(
    to: _Writer, neck: Neck, flat: str, rows: torch.Tensor, bias: torch.Tensor, numbers: list[int]
) -> _Few:
    """The likeliest eastern classes; where the old head's mean probability is above SURE one, blank, at SHUT."""
    to.node("Greater", ["old.sure", to.number("eastern.sure", SURE)], "eastern.needless")
    to.node("Squeeze", [to.node("Not", ["eastern.needless"], "eastern.needed.0")], "eastern.needed")
    look, none = _Writer(to.graph), _Writer(to.graph)
    strokes = neck.strokes.weight.reshape(STROKES, 160, 3, 2)  # weights are here, so that they are cast only once
    strokes_ = [to.half("strokes", strokes), to.half("strokes.b", neck.strokes.bias)]
    across = [to.half("across", neck.across.weight[:, :, None]), to.half("across.b", neck.across.bias)]
    whole = [to.half("whole", neck.whole.weight[:, :, None, None]), to.half("whole.b", neck.whole.bias)]
    weights = [to.half("eastern.rows", rows.T), to.half("eastern.bias", bias)]
    seen = look.node("Conv", [MAPS, *strokes_], "east.1", kernel_shape=[3, 2], strides=[3, 2])
    seen = look.node("HardSwish", [seen], "east.2")
    seen = look.node("Conv", [seen, *across], "east.3", kernel_shape=[1, 3], pads=[0, 1, 0, 1])
    seen = look.node("HardSwish", [seen], "east.4")
    seen = look.node("Conv", [seen, *whole], "east.5", kernel_shape=[1, 1])
    seen = look.node("Transpose", [look.node("Squeeze", [seen, "flat"], "east.6")], "east.7", perm=[1, 0])
    look.node("Gemm", [look.node("Add", [flat, seen], "east.8"), *weights], "eastern")
    found = tuple(_of_group(look, "eastern", numbers))
    shut = tuple(none.node("Identity", [name], f"{name}.kept.0") for name in ("old.never", "old.none"))
    return _Few(*to.choice("eastern.needed", (look, found), (none, shut), ("eastern.found", "eastern.found.class")))


def _gate(to: _Writer, group: Group, top: str) -> str:
    """0 where a group has a say in the line, SHUT where it has none, (1, 1)."""
    name = f"gate.{group.name}"
    clear = to.node("Add", ["old.best", to.number(f"{name}.clearly", group.clearly)], f"{name}.clear")
    wins = to.node("Cast", [to.node("Greater", [top, clear], f"{name}.more")], f"{name}.more.1", to=TensorProto.FLOAT)
    wins = to.node("ReduceSum", [wins, "first"], f"{name}.wins", keepdims=1)
    least = to.node("Mul", ["old.many", to.number(f"{name}.share", group.share)], f"{name}.least")
    less = to.node("Cast", [to.node("Less", [wins, least], f"{name}.less")], f"{name}.shut", to=TensorProto.FLOAT)
    return to.node("Mul", [less, to.number(f"{name}.none", SHUT)], name)


def _answer(to: _Writer, scores: list[str], kinds: list[str], total: str) -> None:
    """The outputs: class (s,) int64 and sure (s,) float32. total: the sum of exponentials below the first score."""
    every = to.node("Concat", scores, "every", axis=1)
    which = to.node("ArgMax", [every], "which", axis=1, keepdims=1)
    chosen = to.node("GatherElements", [to.node("Concat", kinds, "kinds", axis=1), which], "chosen", axis=1)
    to.node("Squeeze", [chosen, "one"], "class")
    top = to.node("GatherElements", [every, which], "top", axis=1)
    spread = to.node("Exp", [to.node("Sub", [every, top], "every.below")], "every.spread")
    sizes = to.value("every.sizes", np.array([1, len(scores) - 1], np.int64))
    to.nodes.append(helper.make_node("Split", [spread, sizes], ["spread.old.0", "spread.new.0"], axis=1))
    old = to.node("Mul", ["spread.old.0", total], "spread.old")
    new = to.node("ReduceSum", ["spread.new.0", "one"], "spread.new", keepdims=1)
    sure = to.node("Reciprocal", [to.node("Add", [old, new], "spread")], "sure.0")
    to.node("Squeeze", [sure, "one"], "sure")


def _others(to: _Writer, groups: dict[str, tuple[_Few, str]]) -> None:
    """The outputs: others (s, m) int64, a few classes of each kind, and logits (s, m), SHUT where they have no say.

    Of the old classes that the scout ruled out none are told. groups: the few of each and its gate.
    """
    logits, kinds = ["old.near.few"], ["old.near.few.class"]
    shape = to.node("Shape", ["old.near.few"], "few.shape")
    for value, nothing, told in (("old.far.few", "old.never", logits), ("old.far.few.class", "old.none", kinds)):
        none = to.node("Expand", [nothing, shape], f"{value}.none")
        told.append(to.node("ScatterND", [none, "old.places", value], f"{value}.all"))
    for name, (few, gate) in groups.items():
        logits.append(to.node("Add", [few.logits, gate], f"{name}.few.gated"))
        kinds.append(few.kinds)
    to.node("Concat", logits, "logits", axis=1)
    to.node("Concat", kinds, "others", axis=1)
