"""quick.onnx: the recogniser with the products of its trunk in 8 bits, which are half of its time, and take a third of
it where processors multiply bytes, three fifths where they do not.

    python -m retriever.training.reader.octets --base BASE --debs FOLDER --out OUT [--lines 300]

The reader takes from it lines that are plain and sure. All its large weights but those of the products are in
recogniser.onnx: a second head that is trained anew needs no other quick.onnx as long as its shapes stay.

Convolutions of 1 x 1 between LEAST channels and LARGE, or more, become products over a line's positions: inputs by the
line's range, weights by those of an output. Two neighbouring weights are at most PAIR together, as processors with AVX2
alone add pairs of products in 16 bits, where more would be cut off. Channels are evened out first (Xiao et al. 2023,
SmoothQuant); then weights are rounded one input channel after the other, what is lost made up by those that follow
(Frantar et al. 2022, GPTQ), by second moments of lines that `lines` renders.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from retriever.encoders.box.states import session
from retriever.training.reader import classes, lines

PAIR = 128
ALPHA = 0.75
LEAST, LARGE = 96, 192  # channels of a product
DAMPING = 0.01
SMALL = 512  # bytes of weights that are not worth a reference


class Product(NamedTuple):
    """A convolution of 1 x 1 and the Add of its bias: weights (n, k), bias (n,)."""

    conv: Any
    add: Any
    weights: np.ndarray
    bias: np.ndarray


class Inputs(NamedTuple):
    """What a product is given: the largest size of each channel (k,), second moments (k, k)."""

    largest: np.ndarray
    moments: np.ndarray


def products(graph: Any) -> list[Product]:
    """The convolutions that are large enough."""
    values = {value.name: value for value in graph.initializer}
    halves = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Cast"}
    takers = {name: node for node in graph.node for name in node.input}

    def stored(name: str) -> np.ndarray:
        return np.asarray(numpy_helper.to_array(values[halves.get(name, name)]), np.float32)

    found = []
    for node in graph.node:
        if node.op_type == "Conv" and node.name:
            weights, add = stored(node.input[1]), takers[node.output[0]]
            sides = sorted(weights.shape[:2])
            if add.op_type == "Add" and weights.shape[2:] == (1, 1) and sides[0] >= LEAST and sides[1] >= LARGE:
                found.append(Product(node, add, weights[:, :, 0, 0], stored(add.input[1]).ravel()))
    return found


def inputs(model: bytes, given: Iterable[np.ndarray]) -> dict[str, Inputs]:
    """What the products of `model` are given for lines (1, 3, 48, w), by the name of the convolution."""
    parsed = onnx.load_from_string(model)
    names = {product.conv.name: product.conv.input[0] for product in products(parsed.graph)}
    for name in dict.fromkeys(names.values()):
        parsed.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    running, wanted = session(parsed.SerializeToString(), 1), [*dict.fromkeys(names.values())]
    found: dict[str, Inputs] = {}
    for line in given:
        for name, maps in zip(wanted, running.run(wanted, {"x": line}), strict=True):
            flat = maps[0].reshape(maps.shape[1], -1)
            largest, moments = np.abs(flat).max(1), np.float64(flat @ flat.T) / flat.shape[1]
            if before := found.get(name):
                largest, moments = np.maximum(before.largest, largest), before.moments + moments
            found[name] = Inputs(largest, moments)
    return {conv: found[name] for conv, name in names.items()}


def rounded(weights: np.ndarray, moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (n, k) as whole numbers, two neighbours of at most PAIR together, and the steps (n,) between them.

    moments: (k, k), of the inputs. k is even.
    """
    left, pairs = weights.astype(np.float64), np.abs(weights).reshape(len(weights), -1, 2).sum(2)
    steps = np.maximum(pairs.max(1) / PAIR, np.abs(weights).max(1) / 127)
    count = len(moments)
    damped = moments + np.eye(count) * np.trace(moments) / count * DAMPING
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    whole = np.zeros(left.shape, int)
    for k in range(count):
        most = np.minimum(127, PAIR - np.abs(whole[:, k - 1]) if k % 2 else PAIR)
        whole[:, k] = np.clip(np.rint(left[:, k] / steps), -most, most)
        lost = (left[:, k] - whole[:, k] * steps) / upper[k, k]
        left[:, k + 1 :] -= np.outer(lost, upper[k, k + 1 :])
    return whole.astype(np.int8), steps.astype(np.float32)


def octets(model: bytes, given: Iterable[np.ndarray]) -> bytes:
    """The recogniser `model` with its products in 8 bits, by lines (1, 3, 48, w), and all other large weights left to
    be given (`initialisers.borrowed`)."""
    parsed = onnx.load_from_string(model)
    graph = parsed.graph
    found = {product.conv.name: product for product in products(graph)}
    told = inputs(model, given)
    same = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity"}

    def origin(name: str) -> str:
        while name in same:
            name = same[name]
        return name

    adds = {product.add.name: product for product in found.values()}
    lasts: dict[str, str] = {}  # of what stands channels first in the file, what stands channels last
    values: list[Any] = [numpy_helper.from_array(np.array(0, np.int8), "octets.zero")]
    nodes: list[Any] = []
    gone = {name for product in found.values() for name in (product.conv.input[1], product.add.input[1])}
    for node in graph.node:
        if (node.name in found and node.op_type == "Conv") or (node.op_type == "Cast" and node.output[0] in gone):
            gone.update(node.input[:1] if node.op_type == "Cast" else ())
        elif node.op_type == "Add" and node.name in adds:
            product = adds[node.name]
            more, stored, last = _product(product, told[product.conv.name], lasts.get(origin(product.conv.input[0])))
            lasts[origin(product.conv.input[0])], lasts[node.output[0]] = last, f"{product.conv.name}.out"
            nodes += more
            values += stored
        elif node.op_type == "Add" and all(origin(name) in lasts for name in node.input):
            sums = [lasts[origin(name)] for name in node.input]
            nodes.append(helper.make_node("Add", sums, [f"{node.name}.last"]))
            nodes.append(helper.make_node("Transpose", [f"{node.name}.last"], [node.output[0]], perm=[0, 3, 1, 2]))
        else:
            nodes.append(node)
    kept = [node.SerializeToString() for node in nodes]
    for value in graph.initializer:
        if value.name not in gone:
            if len(value.raw_data) >= SMALL:
                value.ClearField("raw_data")
                value.data_location = TensorProto.EXTERNAL
                value.external_data.add(key="location", value="recogniser.onnx")
            values.append(value)
    stored = [value.SerializeToString() for value in values]
    graph.ClearField("node")
    graph.ClearField("initializer")
    for data in kept:
        graph.node.add().ParseFromString(data)
    for data in stored:
        graph.initializer.add().ParseFromString(data)
    return bytes(parsed.SerializeToString(deterministic=True))


def _product(product: Product, told: Inputs, last: str | None) -> tuple[list[Any], list[Any], str]:
    """The nodes of a product and its initialisers; last: its input with channels last, made where there is none yet."""
    name, make = product.conv.name, helper.make_node
    columns = np.maximum(np.abs(product.weights).max(0), 1e-5)
    factors = (columns ** (1 - ALPHA) / np.maximum(told.largest, 1e-3) ** ALPHA).astype(np.float32)
    factors /= np.exp(np.log(factors).mean())
    whole, steps = rounded(product.weights / factors, told.moments * np.outer(factors, factors))
    nodes = []
    if last is None:
        last = f"{name}.last"
        nodes.append(make("Transpose", [product.conv.input[0]], [last], perm=[0, 2, 3, 1]))
    nodes += [
        make("Mul", [last, f"{name}.smooth"], [f"{name}.even"]),
        make("DynamicQuantizeLinear", [f"{name}.even"], [f"{name}.x", f"{name}.xs", f"{name}.xz"]),
        make("MatMulInteger", [f"{name}.x", f"{name}.w", f"{name}.xz", "octets.zero"], [f"{name}.sum"]),
        make("Cast", [f"{name}.sum"], [f"{name}.float"], to=TensorProto.FLOAT),
        make("Mul", [f"{name}.xs", f"{name}.ws"], [f"{name}.step"]),
        make("Mul", [f"{name}.float", f"{name}.step"], [f"{name}.scaled"]),
        make("Add", [f"{name}.scaled", f"{name}.b"], [f"{name}.out"]),
        make("Transpose", [f"{name}.out"], [product.add.output[0]], perm=[0, 3, 1, 2]),
    ]
    stored = {"smooth": factors, "w": np.ascontiguousarray(whole.T), "ws": steps, "b": product.bias}
    return nodes, [numpy_helper.from_array(value, f"{name}.{part}") for part, value in stored.items()], last


def examples(debs: Path, known: list[str], count: int) -> Iterable[np.ndarray]:
    """`count` rendered lines (1, 3, 48, w), clean and worn, of the languages and scripts that are trained on."""
    every, chance = {*known, *classes.added(known), " "}, random.Random(1)
    shares = {**lines.LANGUAGES, **lines.OLD}
    read = {language: lines.texts_of(debs, language) for language in shares}
    kept = {language: [text for text in told if not lines.held_out(text)] for language, told in read.items()}
    texts = lines.Texts(kept, every, shares)
    fonts = lines.Fonts()
    while count:
        language, text = texts.draw(chance)
        image = lines.render(text, fonts.of(language), chance) if text else None
        if image is not None:
            count -= 1
            size = max(48, round(image.shape[1] * 48 / image.shape[0])), 48
            line = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC), np.float32)
            yield np.ascontiguousarray(line.transpose(2, 0, 1)[None] / 127.5 - 1)


def main() -> None:
    """Writes quick.onnx into --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    base = "folder of recogniser.onnx and characters.json, as train.py writes them"
    parser.add_argument("--base", type=Path, required=True, help=base)
    parser.add_argument("--debs", type=Path, required=True, help="folder of libreoffice-help-*.deb and -l10n-*")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--lines", type=int, default=300)
    given = parser.parse_args()
    known = classes.former(json.loads((given.base / "characters.json").read_text("utf-8")))
    model = (given.base / "recogniser.onnx").read_bytes()
    (given.out / "quick.onnx").write_bytes(octets(model, examples(given.debs, known, given.lines)))


if __name__ == "__main__":
    main()
