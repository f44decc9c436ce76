"""Gradients of a loss that looks at a whole batch, with few rows in memory at a time.

The rows are embedded in pieces without gradients, the loss gives the gradient of each vector, and each piece is
embedded again to pass it on (Gao et al. 2021, GradCache): equal to one backward pass over the batch, dropout included,
since a piece draws the same numbers both times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from retriever.encoders.jina_v4 import Vectors

Embed = Callable[[list[int], int], list[Vectors]]
"""Embeds the rows at some places, as piece number so-and-so; twice the same for the same arguments."""


def accumulate(embed: Embed, sizes: Sequence[int], at_once: int, loss_of: Callable[[list[Vectors]], Tensor]) -> float:
    """Add the gradients of loss_of(vectors of all rows) to the parameters behind `embed`; returns the loss.

    sizes: how long each row is, in tokens; like lengths share a piece of `at_once` rows.
    """
    order = sorted(range(len(sizes)), key=lambda place: -sizes[place])
    pieces = [order[start : start + at_once] for start in range(0, len(order), at_once)]
    if len(pieces) == 1:
        loss = loss_of(_ordered(pieces, [embed(order, 0)]))
        loss.backward()
        return float(loss.detach())
    with torch.no_grad():
        embedded = [embed(piece, number) for number, piece in enumerate(pieces)]
    leaves = [[Vectors(*(part.detach().requires_grad_() for part in _parts(one))) for one in some] for some in embedded]
    loss = loss_of(_ordered(pieces, leaves))
    loss.backward()
    for number, piece in enumerate(pieces):
        again = [part for one in embed(piece, number) for part in _parts(one)]
        wanted = [part.grad for one in leaves[number] for part in _parts(one)]
        told = [(part, grad) for part, grad in zip(again, wanted, strict=True) if grad is not None]
        torch.autograd.backward([part for part, _ in told], [grad for _, grad in told])
    return float(loss.detach())


def _parts(one: Vectors) -> list[Tensor]:
    return [part for part in one if part is not None]


def _ordered(pieces: Sequence[Sequence[int]], embedded: Sequence[Sequence[Vectors]]) -> list[Vectors]:
    """The vectors of the pieces, by place."""
    places = [place for piece in pieces for place in piece]
    vectors = [one for some in embedded for one in some]
    return [vectors[i] for i in sorted(range(len(places)), key=places.__getitem__)]
