"""Training only: what one step of training the head sees."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Batch(NamedTuple):
    """states (t, 384) of the questions' tokens and `of` (t,), whose they are; asks (q,); pages (n, 384) and `lens`."""

    states: torch.Tensor
    of: torch.Tensor
    asks: torch.Tensor
    pages: torch.Tensor
    lens: list[int]
