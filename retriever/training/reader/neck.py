"""The second head of the recogniser: its shape and its loss.

From the maps of the trunk (3 heights x 2 columns a time step, before they are averaged) its neck makes 192 features,
linear in which are the new classes. The old head stays as it was; only blank and space take the larger of what the two
heads say. A Hangul syllable's row is the sum of rows of its jamo and one of its own, so that rare ones are
learned from common ones.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from retriever.training.reader.classes import MARKED, jamo

WIDTH = 192
CONTEXT = 9
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
    neck: Neck,
    old: tuple[torch.Tensor, ...],
    wide: torch.Tensor,
    narrow: torch.Tensor,
    labels: list[list[int]],
    marked: torch.Tensor,
) -> torch.Tensor:
    """CTC loss a line. old: weights (80, c) and biases (c,) of the old classes, the first blank, the last space;
    labels: for each line its classes, old ones 1 to c - 1, new ones c and on. Steps that pad are zeros in `wide`.
    marked (b,) bool: the lines in which MARKED letters are new classes; elsewhere those classes are left alone.

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
    first = len(rows) - len(MARKED)
    added = F.linear(features, rows[2:first], neck.bias[2:first]).logsumexp(-1)
    again = F.linear(features, rows[first:], neck.bias[first:]).logsumexp(-1)
    again = torch.where(marked[:, None], again, -1e4)
    every = torch.cat([ends, torch.stack([normaliser, added, again], -1)], -1).logsumexp(-1, keepdim=True)
    scores = torch.cat([ends, before[..., former], new[..., 2:]], -1) - every
    place = {count - 1: 1, **{label: i + 2 for i, label in enumerate(held)}}
    steps = (wide != 0).any(-1).sum(1)
    targets = torch.tensor([place[label] for line in labels for label in line])
    lengths = torch.tensor([*map(len, labels)])
    lost = F.ctc_loss(scores.transpose(0, 1), targets, steps, lengths, reduction="none", zero_infinity=True)
    return lost.sum() / lengths.sum()


def last_layer(model: bytes) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (80, c) and biases (c,) of the old classes of the recogniser `model`."""
    import onnx
    from onnx import numpy_helper

    found = {value.name.removesuffix(".h"): value for value in onnx.load_from_string(model).graph.initializer}
    arrays = [numpy_helper.to_array(found[f"linear_1.{part}_0"]).astype(np.float32) for part in "wb"]
    return torch.from_numpy(arrays[0].copy()), torch.from_numpy(arrays[1].copy())
