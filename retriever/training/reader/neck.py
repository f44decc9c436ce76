"""The second head of the recogniser: its shape and its loss.

From the maps of the trunk (3 heights x 2 columns a time step, before they are averaged) its neck makes 192 features,
linear in which are the new classes; to those of kana, kanji and Hangul `Neck.strokes` adds, which is not looked at in
lines of other letters. The old head stays as it was; only blank and space take the larger of what the two
heads say. A Hangul syllable's row is the sum of rows of its jamo and one of its own, so that rare ones are
learned from common ones.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from retriever.training.reader.classes import MARKED, groups, jamo

WIDTH = 192
CONTEXT = 9
HIDDEN = 128
STROKES = 256
BIASED = -1.0  # added to the logits of kana, kanji and Hangul in the file, for the sake of Chinese


class Neck(nn.Module):
    """Maps (b, s, 960) -> features whose products with `weight()` are the logits of blank, space and `characters`."""

    def __init__(self, characters: list[str]) -> None:
        super().__init__()
        self.join = nn.Linear(960, WIDTH)
        self.context = nn.Conv1d(WIDTH, WIDTH, CONTEXT, padding=CONTEXT // 2, groups=WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.near = nn.Conv1d(WIDTH, HIDDEN, 3, padding=1)
        self.deep = nn.Linear(HIDDEN, WIDTH)
        self.strokes = nn.Linear(960, STROKES)
        self.across = nn.Conv1d(STROKES, WIDTH, 3, padding=1)
        self.whole = nn.Linear(WIDTH, WIDTH)
        for layer in (self.deep, self.whole):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.rows = nn.Parameter(torch.randn(len(characters) + 2, WIDTH) * 0.03)
        self.bias = nn.Parameter(torch.full((len(characters) + 2,), -4.0))
        self.jamo = nn.ParameterList([nn.Parameter(torch.randn(k, WIDTH) * 0.03) for k in (20, 22, 29)])
        places = [(0, 0, 0), (0, 0, 0), *map(jamo, characters)]
        self.biased = torch.tensor([0.0, 0.0, *[BIASED * (c > "\u3040") for c in characters]])
        self.places: torch.Tensor
        self.hangul: torch.Tensor
        self.east = torch.zeros(len(characters) + 2, dtype=torch.bool)
        self.east[[i + 2 for i in groups(characters)["eastern"]]] = True
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
        seen = F.hardswish(joined + self.mix(seen))
        return seen + self.deep(F.hardswish(self.near(seen.transpose(1, 2))).transpose(1, 2))

    def eastern(self, maps: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """What the classes of kana, kanji and Hangul are linear in, (b, s, WIDTH), of maps and their `features`."""
        seen = F.hardswish(self.strokes(maps))
        seen = F.hardswish(self.across(seen.transpose(1, 2)).transpose(1, 2))
        return features + self.whole(seen)


def normaliser(old: tuple[torch.Tensor, ...], narrow: torch.Tensor) -> torch.Tensor:
    """The logarithm of the sum of exponentials of the old classes but blank and space, (s,), of steps (s, 80)."""
    weights, biases = old
    return (narrow @ weights[:, 1:-1] + biases[1:-1]).logsumexp(-1)


def loss(
    neck: Neck,
    old: tuple[torch.Tensor, ...],
    wide: torch.Tensor,
    narrow: torch.Tensor,
    before: torch.Tensor,
    labels: list[list[int]],
    marked: torch.Tensor,
) -> torch.Tensor:
    """CTC loss a line. old: weights (80, c) and biases (c,) of the old classes, the first blank, the last space; before
    (b, s): their `normaliser`;
    labels: for each line its classes, old ones 1 to c - 1, new ones c and on. Steps that pad are zeros in `wide`.
    marked (b,) bool: the lines in which MARKED letters are new classes; elsewhere those classes are left alone.

    The normaliser is over all classes; only those that the labels hold are gathered.
    """
    features, rows = neck.features(wide), neck.weight()
    eastern = neck.eastern(wide, features)
    weights, biases = old
    count = len(biases)
    held = sorted({label for line in labels for label in line} - {count - 1})
    former, latter = [k for k in held if k < count], [k - count + 2 for k in held if k >= count]
    taken = [0, count - 1, *former]
    told = narrow @ weights[:, taken] + biases[taken]
    picked = torch.tensor([0, 1, *latter])
    new, own = (F.linear(x, rows[picked], neck.bias[picked]) for x in (features, eastern))
    new = torch.where(neck.east[picked], own, new)
    ends = torch.logaddexp(told[..., :2], new[..., :2])
    first = len(rows) - len(MARKED)
    other = ~neck.east
    other[:2] = other[first:] = False
    parts = [F.linear(x, rows[k], neck.bias[k]).logsumexp(-1) for x, k in ((features, other), (eastern, neck.east))]
    added = torch.logaddexp(*parts)
    again = F.linear(features, rows[first:], neck.bias[first:]).logsumexp(-1)
    again = torch.where(marked[:, None], again, -1e4)
    every = torch.cat([ends, torch.stack([before, added, again], -1)], -1).logsumexp(-1, keepdim=True)
    scores = torch.cat([ends, told[..., 2:], new[..., 2:]], -1) - every
    place = {count - 1: 1, **{label: i + 2 for i, label in enumerate(held)}}
    steps = (wide != 0).any(-1).sum(1)
    targets = torch.tensor([place[label] for line in labels for label in line])
    lengths = torch.tensor([*map(len, labels)])
    lost = F.ctc_loss(scores.transpose(0, 1), targets, steps, lengths, reduction="none", zero_infinity=True)
    return lost.sum() / lengths.sum()


def weights_of(model: bytes) -> dict[str, torch.Tensor]:
    """The initialisers of the ONNX file `model` in single precision, those in half by their names without ".h"."""
    import onnx
    from onnx import numpy_helper

    found = onnx.load_from_string(model).graph.initializer
    return {v.name.removesuffix(".h"): torch.from_numpy(numpy_helper.to_array(v).copy()).float() for v in found}


def last_layer(model: bytes) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (80, c) and biases (c,) of the old classes of the recogniser `model`."""
    found = weights_of(model)
    return found["linear_1.w_0"], found["linear_1.b_0"]


def restored(model: bytes, characters: list[str]) -> Neck:
    """The second head that the recogniser `model` was `grown` with, whose classes are `characters`, to train it on.

    A file holds sums of rows; jamo take what least squares give them, and a syllable's own row what is left.
    """
    found, neck = weights_of(model), Neck(characters)
    state = neck.state_dict()
    for name in ("join", "context", "mix", "near", "deep", "strokes", "across", "whole"):
        if name in found:  # the last five came later, and start as nothing
            state[f"{name}.weight"] = found[name].reshape(state[f"{name}.weight"].shape)
            state[f"{name}.bias"] = found[f"{name}.b"]
    kinds = {kind: [i + 2 for i in group] for kind, group in groups(characters).items()}
    eastern = kinds.pop("eastern")
    letters = [0, 1, *(i for group in kinds.values() for i in group)]
    rows, bias = torch.zeros_like(state["rows"]), torch.zeros_like(state["bias"])
    for part, picked in (("letters", letters), ("eastern", eastern)):
        rows[picked], bias[picked] = found[f"{part}.rows"].T, found[f"{part}.bias"]
    syllables = torch.nonzero(neck.hangul[:, 0])[:, 0]
    which = torch.cat([F.one_hot(neck.places[k][syllables], len(neck.jamo[k])) for k in range(3)], 1).float()
    jamo = torch.linalg.lstsq(which, rows[syllables], driver="gelsd").solution
    for k, part in enumerate(jamo.split([len(part) for part in neck.jamo])):
        state[f"jamo.{k}"] = part
    rows[syllables] -= which @ jamo
    neck.load_state_dict({**state, "rows": rows, "bias": bias - neck.biased})
    return neck
