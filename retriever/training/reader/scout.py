"""A small net that tells at which time steps an old class of the recogniser that is not Latin could win.

Nineteen of twenty old classes are Chinese characters and signs: their products are a tenth of the reader's work, and no
use at the steps of a line of Latin letters. From the 80 values that the old classes are linear in, the net foretells by
how much the best of those classes is above the best of the others, on the high side; where that is under `least` they
are not looked at. That is no bound: steps at which it errs are counted in benchmarks/LOG.md.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

HIDDEN = 48
LEAST = -6.0
_STEPS, _BATCH, _RATE = 3000, 2048, 3e-3
_HIGH = 0.97  # the quantile that is learned


def near(known: list[str]) -> list[int]:
    """The old classes looked at at each step: blank, space, and those of Latin letters, digits, their punctuation."""
    latin = [i + 1 for i, c in enumerate(known) if ord(c) < 0x250 or 0x2000 <= ord(c) < 0x2070 or c in "€™№•"]
    return [0, *latin, len(known) + 1]


class Scout(nn.Module):
    """Values (s, 80) -> by how much a far class could be above the best near one, in logits, (s,)."""

    def __init__(self, least: float = LEAST) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(80, HIDDEN), nn.Linear(HIDDEN, 1)
        self.least = least

    def forward(self, narrow: torch.Tensor) -> torch.Tensor:
        told: torch.Tensor = self.two(torch.relu(self.one(narrow)))
        return told[:, 0]


def restored(found: dict[str, torch.Tensor]) -> Scout:
    """The scout of a recogniser whose weights were `found`."""
    scout = Scout(float(found["scout.least"]))
    with torch.no_grad():
        for name, layer in (("scout.one", scout.one), ("scout.two", scout.two)):
            layer.weight.copy_(found[name].T)
            layer.bias.copy_(found[f"{name}.b"])
    return scout


def ahead(old: tuple[torch.Tensor, ...], known: list[str], narrow: torch.Tensor) -> torch.Tensor:
    """By how much the best far class is above the best near one, (s,), at steps (s, 80)."""
    weights, biases = old
    close = near(known)
    far = sorted({*range(len(biases))}.difference(close))
    parts = [part @ weights + biases for part in narrow.split(4096)]
    return torch.cat([logits[:, far].amax(1) - logits[:, close].amax(1) for logits in parts])


def fit(old: tuple[torch.Tensor, ...], known: list[str], narrow: np.ndarray) -> Scout:
    """A scout of the recogniser whose old classes are `known`, with weights and biases `old`, from steps (n, 80).

    The quantile loss is weighed fourfold at the steps that come near. About 30 CPU-seconds for 300,000 steps.
    """
    torch.manual_seed(0)
    x = torch.from_numpy(narrow).float()
    y = ahead(old, known, x).clamp(-25, 10) / 5
    middle, spread = x.mean(0), x.std(0)
    x = (x - middle) / spread
    scout = Scout()
    optimiser = torch.optim.Adam(scout.parameters(), _RATE)
    for step in range(_STEPS):
        for group in optimiser.param_groups:
            group["lr"] = _RATE * (1 - step / _STEPS) + 1e-5
        drawn = torch.randint(0, len(x), (_BATCH,))
        off = y[drawn] - scout(x[drawn])
        lost = torch.where(off > 0, off * _HIGH, off * (_HIGH - 1)) * (1 + 3 * (y[drawn] > -1))
        optimiser.zero_grad()
        lost.mean().backward()
        optimiser.step()
    with torch.no_grad():  # the scaling of x and y goes into the weights
        scout.one.weight.div_(spread)
        scout.one.bias.sub_(scout.one.weight @ middle)
        scout.two.weight.mul_(5)
        scout.two.bias.mul_(5)
    return scout
