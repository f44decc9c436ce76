"""MaxSim in plain torch: any device, any float type, a page at a time.

What octavo::maxsim does where there is no better kernel: CPU tensors without the native library, devices such as MPS,
double precision. Sums are float32, float64 for a float64 query. Not here: speed.
"""

from __future__ import annotations

import torch
from torch import Tensor


def forward(
    query: Tensor,
    query_offsets: Tensor,
    values: Tensor,
    offsets: Tensor,
    scales: Tensor | None,
    codec: str,
    argmax: bool,
) -> tuple[Tensor, Tensor]:
    """octavo::maxsim; see retriever.kernels.operator for shapes."""
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    tokens, bounds = query.to(dtype), offsets.tolist()
    best = tokens.new_full((len(bounds) - 1, len(tokens)), -torch.inf)
    winners = torch.full((len(best), len(tokens)), -1, dtype=torch.int32, device=query.device)
    for page in range(len(best)):
        rows = slice(bounds[page], bounds[page + 1])
        if bounds[page] < bounds[page + 1]:
            vectors = decoded(values[rows], None if scales is None else scales[rows], codec, dtype)
            best[page], winner = (vectors @ tokens.T).max(dim=0)  # max: of equals the first
            winners[page] = winner.to(torch.int32)
    parts = best.split(query_offsets.diff().tolist(), dim=1)
    scores = torch.stack([part.sum(dim=1) for part in parts]) if parts else best.new_empty((0, len(best)))
    scores[:, offsets.diff() == 0] = -torch.inf
    return scores, winners if argmax else winners.new_empty((0, 0))


def backward(
    grad: Tensor,
    query: Tensor,
    query_offsets: Tensor,
    values: Tensor,
    offsets: Tensor,
    scales: Tensor | None,
    codec: str,
    winners: Tensor,
    of_values: bool,
) -> tuple[Tensor, Tensor]:
    """octavo::maxsim_backward, likewise."""
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    tokens, bounds = query.to(dtype), offsets.tolist()
    query_of = torch.arange(len(grad), device=grad.device).repeat_interleave(query_offsets.diff())
    grad_query = torch.zeros_like(tokens)
    grad_values = torch.zeros(values.shape if of_values else (0, 0), dtype=dtype, device=query.device)
    for page in range(len(bounds) - 1):
        if bounds[page] < bounds[page + 1]:
            rows = bounds[page] + winners[page].long()
            weight = grad[query_of, page].to(dtype)[:, None]
            grad_query += weight * decoded(values[rows], None if scales is None else scales[rows], codec, dtype)
            if of_values:
                grad_values.index_add_(0, rows, weight * tokens)
    return grad_query.to(query.dtype), grad_values.to(values.dtype)


def decoded(values: Tensor, scales: Tensor | None, codec: str, dtype: torch.dtype) -> Tensor:
    """Stored rows (t, w) -> (t, d) in the space of their codec."""
    if codec == "int4":
        vectors = torch.cat([values & 15, values >> 4], dim=1).to(dtype) - 8
    elif codec == "binary":
        bits = values[:, :, None] >> torch.arange(8, dtype=torch.uint8, device=values.device)
        vectors = (bits & 1).flatten(1).to(dtype) * 2 - 1
    else:
        vectors = values.to(dtype)
    return vectors if scales is None else vectors * scales.to(dtype)[:, None]
