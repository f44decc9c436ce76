"""Features of rendered lines from the frozen trunk of the recogniser, in shards on disk.

    python -m retriever.training.reader.features --base BASE --debs FOLDER --out SHARDS [--shards 36] [--first 0]
        [--shares ko=90]

What the trunk gives before its average pooling is kept, 160 channels x 3 heights x 2 columns a time step, and the 80
values that the old classes are linear in. A shard holds 500 lines and depends on its number only; those there stay.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

from retriever.training.reader import classes, lines

LINES = 500
MAPS, NARROW = "p2o.pd_op.add.39.0", "p2o.pd_op.add.40.0"
_WIDEST = 1100


def cut(graph: Any) -> None:
    """Takes from the recogniser's ONNX graph all behind NARROW: outputs, nodes, and what only they have need of."""
    del graph.output[:]
    while NARROW not in graph.node[-1].output:
        graph.node.pop()
    needed = {name for node in graph.node for name in node.input}
    kept = [value for value in graph.initializer if value.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def trunk(model: bytes) -> onnxruntime.InferenceSession:
    """A session of the recogniser `model` that gives MAPS (1, 160, 3, 2s) and NARROW (1, s, 80)."""
    import onnx

    parsed = onnx.load_from_string(model)
    cut(parsed.graph)
    for name in (MAPS, NARROW):
        parsed.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(parsed.SerializeToString(), options)


def of(session: onnxruntime.InferenceSession, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features (s, 960) and (s, 80) fp16 of one line, scaled as the reader does."""
    width = max(48, round(image.shape[1] * 48 / image.shape[0]))
    line = np.asarray(Image.fromarray(image).resize((width, 48), Image.Resampling.BICUBIC), np.float32)
    maps, narrow = session.run([MAPS, NARROW], {"x": np.ascontiguousarray(line.transpose(2, 0, 1)[None] / 127.5 - 1)})
    steps = narrow.shape[1]
    wide = maps[0, :, :, : 2 * steps].reshape(160, 3, steps, 2).transpose(2, 0, 1, 3).reshape(steps, 960)
    return wide.astype(np.float16), narrow[0].astype(np.float16)


def too_wide(image: np.ndarray) -> bool:
    """Whether a line is left out, as it takes too many time steps."""
    return image.shape[1] * 48 > _WIDEST * image.shape[0]


def keep(folder: Path, numbers: range, make: Callable[[int], dict[str, Any]]) -> None:
    """Makes the shards of those `numbers` that are not in `folder`, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        path = folder / f"{number:03}.npz"
        if not path.exists():
            np.savez(path.with_suffix(".part.npz"), **make(number))
            path.with_suffix(".part.npz").rename(path)
            print(path, flush=True)  # noqa: T201


def shard(
    number: int, texts: lines.Texts, fonts: lines.Fonts, session: onnxruntime.InferenceSession
) -> dict[str, object]:
    """The arrays of shard `number`: features of all lines on end, their steps, their languages and texts."""
    chance = random.Random(number)
    wide: list[np.ndarray] = []
    narrow: list[np.ndarray] = []
    told: list[list[str]] = []
    while len(told) < LINES:
        language, text = texts.draw(chance)
        image = lines.render(text, fonts.of(language), chance) if text else None
        if image is None or too_wide(image):
            continue
        a, b = of(session, image)
        wide.append(a)
        narrow.append(b)
        told.append([language, text])
    steps = np.array([*map(len, narrow)])
    return {"wide": np.concatenate(wide), "narrow": np.concatenate(narrow), "steps": steps, "told": json.dumps(told)}


def main() -> None:
    """Writes the shards that are not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    base = "folder of recogniser.onnx and characters.json, as build.py or train.py write them"
    parser.add_argument("--base", type=Path, required=True, help=base)
    parser.add_argument("--debs", type=Path, required=True, help="folder of libreoffice-help-*.deb and -l10n-*")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shards", type=int, default=36)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--shares", default="", help="of languages, other than those of lines.py: ko=90,ja=40")
    given = parser.parse_args()
    known = classes.former(json.loads((given.base / "characters.json").read_text("utf-8")))
    every = {*known, *classes.added(known), " "}
    by_language = {}
    for language in {**lines.LANGUAGES, **lines.OLD}:
        found = lines.texts_of(given.debs, language)
        by_language[language] = [text for text in found if not lines.held_out(text)]
    shares = {**lines.LANGUAGES, **lines.OLD}
    shares.update({language: int(share) for language, share in re.findall(r"([a-z-]+)=(\d+)", given.shares)})
    texts, fonts = lines.Texts(by_language, every, shares), lines.Fonts()
    session = trunk((given.base / "recogniser.onnx").read_bytes())
    keep(
        given.out,
        range(given.first, given.first + given.shards),
        lambda number: shard(number, texts, fonts, session),
    )


if __name__ == "__main__":
    main()
