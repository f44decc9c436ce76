"""Trains the recogniser's second head and writes recogniser.onnx and characters.json with it.

    python -m retriever.training.reader.train --base BASE --shards SHARDS --state STATE.pt --out FOLDER [--steps 1500]

Starts from the second head that BASE has, else from nothing; again from STATE where it was stopped. Adam, cosine from
--rate after 50 steps of warming up, batches of 32 lines of like length, seed 0. The first shard is not trained on; its
loss is told.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from pathlib import Path

import numpy as np
import torch

from retriever.training.reader import classes, graph, neck, scout
from retriever.training.reader.lines import LANGUAGES, OLD

RATE, WARM, BATCH = 4e-3, 50, 32
SCOUTED = 12  # shards that the scout learns from
_LEARNED = ("jamo", "rows", "bias")
_EASTERN = ("strokes", "across", "whole", *_LEARNED)  # of kana, kanji and Hangul: their layers, their classes
ROWS = 0.15  # of the rate, for classes that are learned already


class Line:
    """A line's features, the normaliser of its old classes, the classes of its text, whether those of MARKED are among
    them."""

    def __init__(
        self, wide: np.ndarray, narrow: np.ndarray, before: np.ndarray, label: list[int], marked: bool
    ) -> None:
        self.wide, self.narrow, self.before, self.label, self.marked = wide, narrow, before, label, marked


def labels(known: list[str], new: list[str], language: str) -> dict[str, int]:
    """Character -> class: Greek letters are new classes in Greek lines only, MARKED in Vietnamese, POINTLESS in all."""
    count = len(known) + 2
    old = {**{c: i + 1 for i, c in enumerate(known)}, " ": count - 1}
    latter = {c: count + i for i, c in enumerate(new)}
    again = {"el": classes.GREEK, "vi": classes.MARKED}.get(language, "") + classes.POINTLESS
    return {**latter, **old, **{c: latter[c] for c in again}}


def load(path: Path, known: list[str], new: list[str], old: tuple[torch.Tensor, ...]) -> list[Line]:
    """The lines of a shard. old: weights and biases of the old classes."""
    data = np.load(path)
    ends = np.cumsum(data["steps"])
    wide, narrow = data["wide"], data["narrow"]
    parts = (torch.from_numpy(part).float() for part in np.array_split(narrow, 8))
    before = np.concatenate([neck.normaliser(old, part) for part in parts])
    to_class = {language: labels(known, new, language) for language in {**LANGUAGES, **OLD}}
    found = []
    for end, steps, (language, text) in zip(ends, data["steps"], json.loads(str(data["told"])), strict=True):
        label = [to_class[language][c] for c in text]
        at = slice(end - steps, end)
        found.append(Line(wide[at], narrow[at], before[at], label, language == "vi"))
    return found


def batch(lines: list[Line]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[list[int]], torch.Tensor]:
    """Features and normalisers padded with zeros, the labels, and which lines are `marked`."""
    longest = max(len(line.narrow) for line in lines)
    wide = np.zeros((len(lines), longest, 960), np.float32)
    narrow = np.zeros((len(lines), longest, 80), np.float32)
    before = np.zeros((len(lines), longest), np.float32)
    for i, line in enumerate(lines):
        steps = len(line.narrow)
        wide[i, :steps], narrow[i, :steps], before[i, :steps] = line.wide, line.narrow, line.before
    marked = torch.tensor([line.marked for line in lines])
    a, b, c = (torch.from_numpy(array) for array in (wide, narrow, before))
    return a, b, c, [line.label for line in lines], marked


def batches(lines: list[Line], chance: random.Random) -> list[list[Line]]:
    """All lines once, in batches of like length, in a random order."""
    ordered = sorted(lines, key=lambda line: len(line.narrow) + chance.uniform(0, 12))
    parts = [ordered[i : i + BATCH] for i in range(0, len(ordered), BATCH)]
    chance.shuffle(parts)
    return parts


def main() -> None:
    """Trains, telling the loss each 50 steps, and writes the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    base = "folder of recogniser.onnx and characters.json, as build.py or this writes them"
    parser.add_argument("--base", type=Path, required=True, help=base)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--eastern", action="store_true", help="kana, kanji and Hangul alone, the rest stays")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(given.threads)
    listed = json.loads((given.base / "characters.json").read_text("utf-8"))
    known = classes.former(listed)
    new = classes.added(known)
    model = (given.base / "recogniser.onnx").read_bytes()
    old, net = neck.last_layer(model), neck.Neck(new) if known == listed else neck.restored(model, new)
    if given.eastern:
        for name, values in net.named_parameters():
            values.requires_grad = name.startswith(_EASTERN)
    trained = {name: values for name, values in net.named_parameters() if values.requires_grad}
    shares = {name: ROWS if given.eastern and name.startswith(_LEARNED) else 1.0 for name in trained}
    optimiser = torch.optim.Adam([{"params": [trained[name]], "share": share} for name, share in shares.items()], RATE)
    step = 0
    if given.state.exists():
        state = torch.load(given.state, weights_only=True)
        net.load_state_dict(state["net"])
        optimiser.load_state_dict(state["optimiser"])
        step = state["step"]
    lines: dict[Path, list[Line]] = {}
    told, start = [], time.process_time()
    while step < given.steps:
        for path in sorted(given.shards.glob("???.npz")):
            if path not in lines:
                lines[path] = load(path, known, new, old)
        tested = min(lines)
        every = [line for path, found in lines.items() if path != tested for line in found]
        for part in batches(every, random.Random(step)):
            rate = given.rate * min(1, (step + 1) / WARM) * (1 + math.cos(math.pi * step / given.steps)) / 2
            for group in optimiser.param_groups:
                group["lr"] = rate * group["share"]
            lost = neck.loss(net, old, *batch(part))
            optimiser.zero_grad()
            lost.backward()
            for values in (net.rows, net.bias) if given.eastern else ():
                values.grad[~net.east] = 0.0  # type: ignore[index]
            torch.nn.utils.clip_grad_norm_(trained.values(), 5.0)
            optimiser.step()
            told.append(lost.item())
            step += 1
            if step % 50 == 0:
                print(step, round(float(np.mean(told[-50:])), 4), round(time.process_time() - start), flush=True)  # noqa: T201
            if step % 50 == 0 or step == given.steps:
                torch.save({"net": net.state_dict(), "optimiser": optimiser.state_dict(), "step": step}, given.state)
            if step == given.steps:
                break
        with torch.no_grad():
            parts = batches(lines[tested], random.Random(0))
            lost_there = float(np.mean([neck.loss(net, old, *batch(part)).item() for part in parts]))
        print("held out", step, round(lost_there, 4), len(every), flush=True)  # noqa: T201
    given.out.mkdir(parents=True, exist_ok=True)
    if given.eastern:
        kept = scout.restored(neck.weights_of(model))
    else:
        kept = scout.fit(
            old, known, np.concatenate([a.narrow for path in sorted(lines)[:SCOUTED] for a in lines[path]])
        )
    (given.out / "recogniser.onnx").write_bytes(graph.grown(model, net, kept, known, new))
    (given.out / "characters.json").write_text(json.dumps([*known, " ", *new], ensure_ascii=False), "utf-8")


if __name__ == "__main__":
    main()
