"""Training only: the layers of the text model in torch, out of the weights of states.onnx and back into them.

The layers are BERT's (Devlin et al. 2019): each sum is normalised after it is made, Gelu is by the error function. A
weight is trained as the file holds it, a 4-bit code times the step of its block of 32: codes are rounded in the forward
pass and get their gradient as if they were not (Bengio et al. 2013, the straight-through estimator), so what is trained
is what is stored, and before training both are the same to the bit. Codes start dithered: of those that are moved by a
tenth one in ten is rounded to its neighbour. From whole numbers none is until it has been moved by half, so that the
loss does not see where they go until it is too late.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from retriever.encoders.box.build_e5 import BLOCK, EPSILON, HEADS
from retriever.encoders.box.passages import unpacked
from retriever.encoders.box.states import WIDTH

PRODUCTS, NORMS = ("qkv", "attended", "inner", "outer"), ("aln", "oln")
Shape = tuple[int, int]  # windows of a text, pieces of each


class Product(torch.nn.Module):
    """codes: (n, k), between whole numbers while they are trained; gains (n, k / 32): logarithms of what the steps of
    the file are multiplied by; bias: (n,)."""

    def __init__(self, stored: Mapping[str, np.ndarray], name: str) -> None:
        super().__init__()
        scales = stored[f"{name}.s.h"].astype(np.float32)
        self.codes = torch.nn.Parameter(torch.from_numpy(unpacked(stored[f"{name}.q"], np.ones_like(scales))))
        self.gains = torch.nn.Parameter(torch.zeros(scales.shape))
        self.bias = torch.nn.Parameter(torch.from_numpy(stored[f"{name}.b"].copy()))
        self.scales: torch.Tensor
        self.register_buffer("scales", torch.from_numpy(scales), persistent=False)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        codes, steps = self.rounded()
        weights = (codes.unflatten(1, (-1, BLOCK)) * steps[..., None]).flatten(1)
        return F.linear(given, weights, self.bias)

    def rounded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes (n, k), whole and from -8 to 7, and steps (n, k / 32) of 16 bits, both float32."""
        codes, steps = self.codes, self.scales * self.gains.exp()
        whole = codes.round().clamp(-8, 7)
        return codes + (whole - codes).detach(), steps + (steps.half().float() - steps).detach()

    def dither(self, random: torch.Generator) -> None:
        """Moves each code by less than half, which no rounding sees."""
        self.codes.data.add_((torch.rand(self.codes.shape, generator=random) - 0.5) * 0.99)

    def store(self, stored: Mapping[str, np.ndarray], name: str) -> None:
        """Writes what is rounded over the arrays of `stored`."""
        codes, steps = (values.detach().cpu().numpy() for values in self.rounded())
        whole = (np.rint(codes).astype(np.int8) + 8).astype(np.uint8)
        stored[f"{name}.q"][:] = (whole[:, ::2] | whole[:, 1::2] << 4).reshape(stored[f"{name}.q"].shape)
        stored[f"{name}.s.h"][:] = steps
        stored[f"{name}.b"][:] = self.bias.detach().cpu().numpy()


class Layer(torch.nn.Module):
    """A layer of the text model, from 0, over texts that lie in a row: states (n, 384) and the shape of each text."""

    def __init__(self, stored: Mapping[str, np.ndarray], number: int) -> None:
        super().__init__()
        self.at = f"l{number}"
        for part in PRODUCTS:
            self.add_module(part, Product(stored, f"{self.at}.{part}"))
        for part in NORMS:
            norm = torch.nn.LayerNorm(WIDTH, eps=EPSILON)
            norm.weight.data = torch.from_numpy(stored[f"{self.at}.{part}.w"].copy())
            norm.bias.data = torch.from_numpy(stored[f"{self.at}.{part}.b"].copy())
            self.add_module(part, norm)

    def forward(self, states: torch.Tensor, shapes: Sequence[Shape]) -> torch.Tensor:
        qkv, attended, inner, outer, first, second = self.children()
        parts = qkv(states).split([count * length for count, length in shapes])
        heads = torch.cat([_heads(part, shape) for part, shape in zip(parts, shapes, strict=True)])
        states = first(states + attended(heads))
        found: torch.Tensor = second(states + outer(F.gelu(inner(states))))
        return found

    def store(self, stored: Mapping[str, np.ndarray]) -> None:
        """Writes the layer, its products rounded, over the arrays of `stored`."""
        for part, module in self.named_children():
            if isinstance(module, Product):
                module.store(stored, f"{self.at}.{part}")
            elif isinstance(module, torch.nn.LayerNorm):
                stored[f"{self.at}.{part}.w"][:] = module.weight.detach().cpu().numpy()
                stored[f"{self.at}.{part}.b"][:] = module.bias.detach().cpu().numpy()


def embedded(stored: Mapping[str, np.ndarray], rows: np.ndarray) -> torch.Tensor:
    """What the first layer is given, (w, t, 384), for the rows of the pieces (w, t, 384) of windows."""
    placed = torch.from_numpy(rows + stored["positions.h"][: rows.shape[1]].astype(np.float32))
    weight, bias = (torch.from_numpy(stored[f"norm.{end}"].copy()) for end in "wb")
    return F.layer_norm(placed, (WIDTH,), weight, bias, EPSILON)


def _heads(qkv: torch.Tensor, shape: Shape) -> torch.Tensor:
    """What the heads give (w * t, 384) for queries, keys and values in a row (w * t, 1152): each window by itself."""
    query, key, value = qkv.view(*shape, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(-1, WIDTH)
