"""Whether an apostrophe is straight or round, which the recogniser's own classes hardly ever tell.

    python -m retriever.training.reader.marks --base BASE --debs FOLDER --work SHARDS --out OUT [--shards 20]

At the steps of rendered lines that are read as an apostrophe of either kind, logistic regression on the 80 values which
the old classes are linear in tells which one the line has. What it says of every step is one more output, `round`, of
recogniser.onnx and quick.onnx, which are else as they were: the reader takes from it the kind, and nothing else.
Fonts go by the CRC-32 of their file's name: one of FOLDS is held out. Shards that are there stay.
"""

from __future__ import annotations

import argparse
import json
import random
import zlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from retriever.training.reader import classes, features, lines
from retriever.training.reader.neck import last_layer

SHARES = {"fr": 3, "it": 2, "de": 2, "pl": 1}  # of languages
LINES = 1000
FOLDS = 8
DECAY = 1e-4
CLEARLY = 1.0  # nats by which round has to be likelier, as blur rounds straight ones
_ADDED = ("{}'s", "{}s'", "l'{}", "d'{}", "n'{}", "{}'t", "{}'re", "'{}'")


def drawn(texts: lines.Texts, fonts: lines.Fonts, chance: random.Random) -> tuple[np.ndarray, bool, int] | None:
    """A line as it is drawn, whether its apostrophes are round, and the fold of its font."""
    words = texts.draw(chance)[1].replace("’", "'").split()
    for _ in range(chance.randint(1, 3) if words else 0):
        at = chance.randrange(len(words))
        words[at] = chance.choice(_ADDED).format(words[at])
    curly, font = chance.random() < 0.5, chance.choice(fonts.of("fr"))
    image = lines.render(" ".join(words).replace("'", "’" if curly else "'"), [font], chance) if words else None
    if image is None or features.too_wide(image):
        return None
    return image, curly, zlib.crc32(Path(font[0]).name.encode()) % FOLDS


def shard(
    number: int,
    texts: lines.Texts,
    fonts: lines.Fonts,
    session: onnxruntime.InferenceSession,
    model: bytes,
    pair: list[int],
) -> dict[str, np.ndarray]:
    """The steps of LINES lines that are read as one of the classes `pair`: narrow (n, 80) fp16, round (n,) bool, fold
    (n,)."""
    weights, biases = (values.numpy() for values in last_layer(model))
    chance = random.Random(number)
    found: list[tuple[np.ndarray, ...]] = []
    while len(found) < LINES:
        if line := drawn(texts, fonts, chance):
            _, narrow = features.of(session, line[0])
            seen = narrow[np.isin((narrow.astype(np.float32) @ weights + biases).argmax(1), pair)]
            found.append((seen, np.full(len(seen), line[1]), np.full(len(seen), line[2])))
    parts = (np.concatenate(values) for values in zip(*found, strict=True))
    return dict(zip(("narrow", "round", "fold"), parts, strict=True))


def fit(narrow: np.ndarray, curly: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights (80,) and a bias of the least cross entropy on steps (n, 80), n of which are round or not."""
    x, wanted = torch.tensor(narrow.astype(np.float32)), torch.tensor(curly.astype(np.float32))
    mean, spread = x.mean(0), x.std(0) + 1e-3
    x = (x - mean) / spread
    weights, bias = torch.zeros(x.shape[1], requires_grad=True), torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        lost = torch.nn.functional.binary_cross_entropy_with_logits(x @ weights + bias, wanted)
        lost = lost + DECAY * weights.square().sum()
        lost.backward()
        return lost

    optimiser.step(loss)
    with torch.no_grad():
        scaled = weights / spread
        return scaled.numpy(), float(bias - scaled @ mean)


def told(model: bytes, weights: np.ndarray, bias: float) -> bytes:
    """The ONNX file `model` with the output `round` (s,), which is that of the steps' values (s, 80)."""
    parsed = onnx.load_from_string(model)
    graph = parsed.graph
    stored = {"round.w": weights[:, None], "round.b": np.array([bias])}
    kept = [value for value in graph.initializer if value.name not in stored]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    for name, values in stored.items():
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    if "round" not in [value.name for value in graph.output]:
        graph.node.append(helper.make_node("Gemm", ["old.flat", *stored], ["round.each"]))
        graph.node.append(helper.make_node("Squeeze", ["round.each", "one"], ["round"]))
        graph.output.append(helper.make_tensor_value_info("round", TensorProto.FLOAT, ["steps"]))
    return bytes(parsed.SerializeToString(deterministic=True))


def main() -> None:
    """Makes the shards that are not there, and writes both files into --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="folder of the two files and characters.json")
    parser.add_argument("--debs", type=Path, required=True, help="folder of libreoffice-help-*.deb")
    parser.add_argument("--work", type=Path, required=True, help="folder of shards")
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    model = (given.base / "recogniser.onnx").read_bytes()
    known = classes.former(json.loads((given.base / "characters.json").read_text("utf-8")))
    pair = [known.index(mark) + 1 for mark in "'’"]
    every = {one: [text for text in lines.texts_of(given.debs, one) if not lines.held_out(text)] for one in SHARES}
    texts, fonts, session = lines.Texts(every, {*known, " "}, SHARES), lines.Fonts(), features.trunk(model)
    features.keep(
        given.work,
        range(given.first, given.first + given.shards),
        lambda number: shard(number, texts, fonts, session, model, pair),
    )
    parts = [np.load(path) for path in sorted(given.work.glob("???.npz"))]
    narrow, curly, fold = (np.concatenate([part[name] for part in parts]) for name in ("narrow", "round", "fold"))
    weights, bias = fit(narrow[fold != 0], curly[fold != 0])
    right = (narrow[fold == 0].astype(np.float32) @ weights + bias > 0) == curly[fold == 0]
    kinds = ("straight", right[~curly[fold == 0]]), ("round", right[curly[fold == 0]])
    print(len(curly), *(f"{name} {one.mean():.3f} of {len(one)}" for name, one in kinds))  # noqa: T201
    given.out.mkdir(parents=True, exist_ok=True)
    for name in ("recogniser.onnx", "quick.onnx"):
        (given.out / name).write_bytes(told((given.base / name).read_bytes(), weights, bias - CLEARLY))


if __name__ == "__main__":
    main()
