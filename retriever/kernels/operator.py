"""MaxSim as the torch operator octavo::maxsim: CPU, CUDA and any other device, under autograd and torch.compile.

    octavo::maxsim(Tensor query, Tensor query_offsets, Tensor values, Tensor offsets, Tensor? scales=None,
                   str codec="", bool argmax=False) -> (Tensor scores, Tensor winners)

query (M, d) float, query_offsets (b + 1,), values (T, w) float or codes, offsets (n + 1,), scales (T,) float16; offsets
are int64. codec: `int4` or `binary` for bytes, and the query is then in that codec's space. scores: (b, n) float32
(float64 for a float64 query), -inf for a page with no tokens. winners: (n, M) int32, with argmax the place in its page
of the token that won for each query token, the first of equals, -1 where there is none; else (0, 0).

A score is differentiated through the tokens that won, with respect to query and float values, once. Not here: kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from index import native
from index.codec import PACKED, rotated
from index.ragged import Codes, Ragged
from retriever.kernels import portable
from retriever.kernels.arrays import maxsim_arrays, maxsim_inside, views

_NOTHING = (0, 0)  # the shape of an output that was not asked for


def _forward(query: Tensor, values: Tensor) -> Callable[..., tuple[Tensor, Tensor]]:
    """The implementation, chosen by device and type."""
    if torch.float64 not in (query.dtype, values.dtype):
        if query.is_cuda and cuda_missing() is None:
            from retriever.kernels import cuda

            return cuda.forward
        if query.device.type == "cpu" and native.available():
            return _native_forward
    return portable.forward


def _backward(query: Tensor, values: Tensor) -> Callable[..., tuple[Tensor, Tensor]]:
    if query.is_cuda and cuda_missing() is None and torch.float64 not in (query.dtype, values.dtype):
        from retriever.kernels import cuda

        return cuda.backward
    return portable.backward


def _native_forward(
    query: Tensor,
    query_offsets: Tensor,
    values: Tensor,
    offsets: Tensor,
    scales: Tensor | None,
    codec: str,
    argmax: bool,
) -> tuple[Tensor, Tensor]:
    rows = values.float() if values.dtype == torch.bfloat16 else values
    pages = Codes(rows.numpy(), offsets.numpy(), codec, None if scales is None else scales.numpy())
    queries = Ragged(query.float().numpy(), query_offsets.numpy())
    scores, winners = maxsim_inside(queries, views(pages), "cpu", None, "fp32", argmax)
    found = torch.empty(_NOTHING, dtype=torch.int32) if winners is None else torch.from_numpy(winners)
    return torch.from_numpy(scores), found


@cache
def cuda_missing() -> str | None:
    """What the Triton kernel lacks here, None where it can run."""
    if not torch.cuda.is_available():
        return "a GPU and a build of torch for it"
    return None if find_spec("triton") else "triton (pip install triton)"


@torch.library.custom_op("octavo::maxsim", mutates_args=())
def maxsim_operator(
    query: Tensor,
    query_offsets: Tensor,
    values: Tensor,
    offsets: Tensor,
    scales: Tensor | None = None,
    codec: str = "",
    argmax: bool = False,
) -> tuple[Tensor, Tensor]:
    """The operator itself; see the module's docstring."""
    with torch.cuda.device_of(query):
        return _forward(query, values)(query, query_offsets, values, offsets, scales, codec, argmax)


@maxsim_operator.register_fake
def _(
    query: Tensor,
    query_offsets: Tensor,
    values: Tensor,
    offsets: Tensor,
    scales: Tensor | None = None,
    codec: str = "",
    argmax: bool = False,
) -> tuple[Tensor, Tensor]:
    n = offsets.shape[0] - 1
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    winners = query.new_empty((n, query.shape[0]) if argmax else _NOTHING, dtype=torch.int32)
    return query.new_empty((query_offsets.shape[0] - 1, n), dtype=dtype), winners


@torch.library.custom_op("octavo::maxsim_backward", mutates_args=())
def backward_operator(
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
    """grad (b, n) -> the gradients of query (M, d) and, if of_values, of values (T, d), else (0, 0)."""
    with torch.cuda.device_of(query):
        return _backward(query, values)(grad, query, query_offsets, values, offsets, scales, codec, winners, of_values)


@backward_operator.register_fake
def _(
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
    return torch.empty_like(query), values.new_empty(values.shape if of_values else _NOTHING)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, query_offsets, values, offsets, scales, ctx.codec, ctx.argmax = inputs
    ctx.save_for_backward(query, query_offsets, values, offsets, scales, output[1])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None, _winners: Tensor | None) -> tuple[Any, ...]:
    if grad is None:
        return (None,) * 7
    query, query_offsets, values, offsets, scales, winners = ctx.saved_tensors
    if not ctx.argmax:
        winners = maxsim_operator(query, query_offsets, values, offsets, scales, ctx.codec, True)[1]
    of_values = bool(ctx.needs_input_grad[2])
    grad_query, grad_values = backward_operator(
        grad, query, query_offsets, values, offsets, scales, ctx.codec, winners, of_values
    )
    return grad_query, None, grad_values if of_values else None, None, None, None, None


maxsim_operator.register_autograd(_differentiate, setup_context=_save)


def maxsim_tensors(queries: Ragged, pages: Ragged | Codes, impl: str, argmax: bool) -> tuple[Any, Any]:
    """`retriever.kernels.maxsim` of b queries for tensors, or for arrays on the GPU: scores and winners of the kind and
    on the device of the queries. impl: `auto` is the operator where the queries lie; `reference` has no gradient."""
    query = tensor_of(queries.values)
    if impl == "cpu" and query.device.type != "cpu":
        raise ValueError(
            f"impl 'cpu' takes tensors on the CPU, the query lies on {query.device}: move it, or use 'auto'"
        )
    if impl == "cuda" and (missing := cuda_missing()):
        raise ValueError(f"impl 'cuda' needs {missing}; impl 'auto' takes what there is")
    if impl == "reference":
        found, won = maxsim_arrays(_arrays(queries), _arrays(pages), "reference", None, "fp32", argmax)
        return torch.from_numpy(found).to(query.device), None if won is None else torch.from_numpy(won).to(query.device)
    scores, winners = _operate(query, queries.offsets, pages, "cuda" if impl == "cuda" else query.device, argmax)
    if isinstance(queries.values, np.ndarray):
        return scores.numpy(force=True), winners.numpy(force=True)
    return scores.to(query.device), winners.to(query.device)


def _operate(
    query: Tensor, query_offsets: np.ndarray, pages: Ragged | Codes, device: Any, argmax: bool
) -> tuple[Tensor, Tensor]:
    codec = "" if isinstance(pages, Ragged) else pages.codec
    query, values = query.to(device), tensor_of(pages.values).to(device)
    inside = rotated_tensor(query, codec)
    scales = None if isinstance(pages, Ragged) or pages.scales is None else tensor_of(pages.scales).to(device)
    offsets = tensor_of(query_offsets).to(device), tensor_of(pages.offsets).to(device)
    differentiated = torch.is_grad_enabled() and (query.requires_grad or values.requires_grad)
    scores, winners = maxsim_operator(
        inside, offsets[0], values, offsets[1], scales, codec if codec in PACKED else "", argmax or differentiated
    )
    if not isinstance(pages, Ragged) and pages.centre is not None and len(query_offsets) > 1:
        centre, parts = tensor_of(pages.centre).to(device), query.split(np.diff(query_offsets).tolist())
        scores = scores + torch.stack([(part.float() @ centre).sum() for part in parts])[:, None]
    return scores, winners


def tensor_of(array: Any) -> Tensor:
    """A tensor as it is, an array as one that shares its memory where that may be written."""
    if isinstance(array, Tensor):
        return array
    array = np.ascontiguousarray(array)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _arrays(rows: Any) -> Any:
    """A Ragged or Codes of tensors as one of arrays."""
    parts = {"values": rows.values}
    if isinstance(rows, Codes):
        parts |= {"scales": rows.scales, "centre": rows.centre}
    floats = (torch.bfloat16, torch.float64)
    arrays = {
        name: (part.float() if part.dtype in floats else part).numpy(force=True)
        for name, part in parts.items()
        if isinstance(part, Tensor)
    }
    return replace(rows, **arrays)


def rotated_tensor(tokens: Tensor, codec: str) -> Tensor:
    """`index.codec.rotated` of a tensor (m, d), differentiable."""
    matrix = _rotation(codec, tokens.shape[1])
    return tokens if matrix is None else tokens.float() @ matrix.to(tokens.device)


@cache
def _rotation(codec: str, dim: int) -> Tensor | None:
    if codec not in PACKED:
        return None
    identity = np.eye(dim, dtype=np.float32)
    matrix = rotated(identity, codec)
    return None if matrix is identity else torch.from_numpy(matrix)
