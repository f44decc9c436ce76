"""MaxSim on a GPU, in Triton: scores, which page token won for each query token, and the gradients.

One program takes a page and a block of query tokens and walks over the page's tokens a tile at a time, the running
maximum and its place in registers; nothing is padded and no similarity matrix reaches memory. Query tokens of a batch
lie side by side, so many short queries fill a block as one long one does. Sums are float32. A float32 query over 16-bit
tokens or codes is two 16-bit halves, each a tensor-core product that is exact, so nothing of it is lost.

Gradients are deterministic: no atomics. This runs where its tensors lie: on CPU tensors in Triton's interpreter
(TRITON_INTERPRET=1). Not here: choosing it (operator), the definition (reference).
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

PARTS = {"int4": 2, "binary": 8}  # components that share a byte; 1 for all other codecs
PRECISION = "ieee" if torch.version.hip else "tf32x3"  # of products of two float32: three tensor-core products
INTERPRETED = triton.knobs.runtime.interpret

CONFIGS = [  # (page tokens a tile, warps, stages of the pipeline that reads them)
    triton.Config({"TILE": tile}, num_warps=warps, num_stages=stages)
    for tile, warps, stages in [(128, 4, 3), (64, 4, 3), (128, 8, 2), (64, 8, 2)]
]


@triton.jit
def _component(stored, part, PARTS: tl.constexpr):
    """Stored elements -> the components number `part` in them, without the token's scale."""
    if PARTS == 1:
        return stored
    elif PARTS == 2:
        return ((stored.to(tl.int32) >> (4 * part)) & 15) - 8
    else:
        return ((stored.to(tl.int32) >> part) & 1) * 2 - 1


@triton.autotune(CONFIGS[:1] if INTERPRETED else CONFIGS, key=["D", "PARTS", "BLOCK", "ARGMAX"], cache_results=True)
@triton.jit
def _best_kernel(
    high,  # (M, d): the query tokens, or the larger half of them
    low,  # (M, d): the other half, or None
    factor,  # (M,) float32: what they were divided by, or None
    values,  # (T, WIDTH)
    scales,  # (T,) float16, or None
    offsets,  # (n + 1,) int64
    best,  # (n, M) float32 out: the largest inner product of each query token in each page
    winners,  # (n, M) int32 out: where in the page it is
    M,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    PARTS: tl.constexpr,
    ARGMAX: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    TILE: tl.constexpr,
):
    blocks = tl.cdiv(M, BLOCK)
    page = tl.program_id(0) // blocks
    query = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    asked = query < M
    first = tl.load(offsets + page)
    length = (tl.load(offsets + page + 1) - first).to(tl.int32)
    tile = tl.arange(0, TILE)
    highest = tl.full((TILE, BLOCK), float("-inf"), tl.float32)
    place = tl.full((TILE, BLOCK), -1, tl.int32)
    for start in range(0, length, TILE):
        token = start + tile
        live = token < length
        row = first + token
        similarity = tl.zeros((TILE, BLOCK), tl.float32)
        for chunk in range(0, WIDTH, CHUNK):
            column = chunk + tl.arange(0, CHUNK)
            inside = column < WIDTH
            stored = tl.load(values + row[:, None] * WIDTH + column, mask=live[:, None] & inside, other=0)
            for part in tl.static_range(PARTS):
                component = part * WIDTH + column if PARTS == 2 else column * PARTS + part
                at = query * D + component[:, None]
                there = inside[:, None] & asked
                page_side = _component(stored, part, PARTS).to(high.dtype.element_ty)
                side = tl.load(high + at, mask=there, other=0)
                similarity = tl.dot(page_side, side, similarity, input_precision=PRECISION)
                if low is not None:
                    side = tl.load(low + at, mask=there, other=0)
                    similarity = tl.dot(page_side, side, similarity, input_precision=PRECISION)
        if scales is not None:
            similarity *= tl.load(scales + row, mask=live, other=0).to(tl.float32)[:, None]
        better = live[:, None] & (similarity > highest)
        highest = tl.where(better, similarity, highest)
        if ARGMAX:
            place = tl.where(better, token[:, None], place)
    peak = tl.max(highest, axis=0)
    out = page.to(tl.int64) * M + query
    if ARGMAX:
        lowest = tl.min(tl.where(highest == peak, place, 2147483647), axis=0)
        tl.store(winners + out, lowest, mask=asked)
    if factor is not None:
        peak *= tl.load(factor + query, mask=asked, other=1)
    tl.store(best + out, peak, mask=asked)


@triton.jit
def _sum_kernel(best, query_offsets, offsets, scores, M, n, BLOCK: tl.constexpr):
    """One score: the sum of a query's rows of `best` in one page, -inf for a page with no tokens."""
    query, page = tl.program_id(0) // n, tl.program_id(0) % n
    begin, end = tl.load(query_offsets + query), tl.load(query_offsets + query + 1)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(begin, end, BLOCK):
        token = start + tl.arange(0, BLOCK)
        total += tl.load(best + page.to(tl.int64) * M + token, mask=token < end, other=0)
    empty = tl.load(offsets + page) == tl.load(offsets + page + 1)
    tl.store(scores + tl.program_id(0), tl.where(empty, float("-inf"), tl.sum(total)))


@triton.jit
def _query_gradient_kernel(
    grad,  # (b, n) float32
    query_of,  # (M,) int32: the query of each query token
    values,
    scales,
    offsets,
    winners,
    out,  # (M, d)
    M,
    n,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    PARTS: tl.constexpr,
    PAGES: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """The gradient of one query token: the rows that won for it, weighted by the gradient of the page's score."""
    token = tl.program_id(0)
    component = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    column = component % WIDTH if PARTS == 2 else component // PARTS
    part = component // WIDTH if PARTS == 2 else component % PARTS
    total = tl.zeros((CHUNK,), tl.float32)
    for start in range(0, n, PAGES):
        page = start + tl.arange(0, PAGES)
        known = page < n
        winner = tl.load(winners + page.to(tl.int64) * M + token, mask=known, other=-1)
        won = winner >= 0
        row = tl.load(offsets + page, mask=known, other=0) + winner
        weight = tl.load(grad + tl.load(query_of + token).to(tl.int64) * n + page, mask=won, other=0)
        if scales is not None:
            weight *= tl.load(scales + row, mask=won, other=0).to(tl.float32)
        stored = tl.load(values + row[:, None] * WIDTH + column, mask=won[:, None] & (component < D), other=0)
        total += tl.sum(_component(stored, part, PARTS).to(tl.float32) * weight[:, None], axis=0)
    tl.store(out + token.to(tl.int64) * D + component, total, mask=component < D)


@triton.jit
def _value_gradient_kernel(
    grad,
    query_of,
    page_of,  # (T,) int32: the page of each page token
    query,  # (M, d)
    offsets,
    winners,
    out,  # (T, d)
    M,
    n,
    T,
    D: tl.constexpr,
    PRECISION: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """The gradients of a tile of page tokens: for each the query tokens that it won, as the product of a matrix with
    one entry a query token and page, made in registers, and the queries."""
    row = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    component = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    page = tl.load(page_of + row, mask=row < T, other=0).to(tl.int64)
    own = (row - tl.load(offsets + page)).to(tl.int32)
    total = tl.zeros((TILE, CHUNK), tl.float32)
    for start in range(0, M, BLOCK):
        token = start + tl.arange(0, BLOCK)
        asked = token < M
        there = (row < T)[:, None] & asked
        won = tl.load(winners + page[:, None] * M + token, mask=there, other=-1) == own[:, None]
        asker = tl.load(query_of + token, mask=asked, other=0).to(tl.int64)
        weight = tl.load(grad + asker * n + page[:, None], mask=there & won, other=0)
        at = token[:, None] * D + component
        side = tl.load(query + at, mask=asked[:, None] & (component < D), other=0).to(tl.float32)
        total = tl.dot(weight, side, total, input_precision=PRECISION)
    at = row[:, None] * D + component
    tl.store(out + at, total.to(out.dtype.element_ty), mask=(row < T)[:, None] & (component < D))


def forward(
    query: Tensor,
    query_offsets: Tensor,
    values: Tensor,
    offsets: Tensor,
    scales: Tensor | None,
    codec: str,
    argmax: bool,
) -> tuple[Tensor, Tensor]:
    """octavo::maxsim for tensors of up to 32 bits; see retriever.kernels.operator for shapes."""
    (m, d), n, b = query.shape, len(offsets) - 1, len(query_offsets) - 1
    high, low, factor = _halves(query.contiguous(), values)
    values, parts = values.contiguous(), PARTS.get(codec, 1)
    best = query.new_empty((n, m), dtype=torch.float32)
    winners = query.new_empty((n, m) if argmax else (0, 0), dtype=torch.int32)
    block, width = _power(m, 16, 64 if high.dtype == torch.float32 else 128), values.shape[1]
    scores = query.new_empty((b, n), dtype=torch.float32)
    if n and m:
        shape: dict[str, Any] = {"D": d, "WIDTH": width, "PARTS": parts, "BLOCK": block, "CHUNK": _chunk(width)}
        _best_kernel[(n * triton.cdiv(m, block),)](
            high, low, factor, values, scales, offsets, best, winners, m, ARGMAX=argmax, PRECISION=PRECISION, **shape
        )
    if b and n:
        _sum_kernel[(b * n,)](best, query_offsets, offsets, scores, m, n, BLOCK=32)
    return scores, winners


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
    (m, d), n, total = query.shape, len(offsets) - 1, len(values)
    grad, query, values = grad.float().contiguous(), query.contiguous(), values.contiguous()
    query_of = _group_of(query_offsets, m)
    grad_query = torch.empty_like(query)
    shape: dict[str, Any] = {"D": d, "CHUNK": _power(d, 16, 64)}
    grid = triton.cdiv(d, shape["CHUNK"])
    if m:
        packed: dict[str, Any] = {"WIDTH": values.shape[1], "PARTS": PARTS.get(codec, 1), "PAGES": 32}
        _query_gradient_kernel[(m, grid)](
            grad, query_of, values, scales, offsets, winners, grad_query, m, n, **packed, **shape
        )
    if not of_values:
        return grad_query, values.new_empty((0, 0))
    grad_values = torch.empty_like(values)
    if total:
        _value_gradient_kernel[(triton.cdiv(total, 64), grid)](
            grad, query_of, _group_of(offsets, total), query, offsets, winners, grad_values,
            m, n, total, PRECISION=PRECISION, TILE=64, BLOCK=32, **shape,
        )  # fmt: skip
    return grad_query, grad_values


def _halves(query: Tensor, values: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The query in the type that is multiplied in: (tokens, None, None), or (high, low, factor) with
    query = (high + low) * factor where one 16-bit number would not hold it."""
    if query.dtype == values.dtype == torch.bfloat16 and not INTERPRETED:  # which would multiply their bits
        return query, None, None
    if values.dtype in (torch.float32, torch.bfloat16):
        return query.float(), None, None
    if query.dtype == torch.float16:
        return query, None, None
    factor = query.float().abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    unit = query.float() / factor[:, None]
    high = unit.half()
    return high, (unit - high.float()).half(), factor


def _group_of(offsets: Tensor, rows: int) -> Tensor:
    """The group, (rows,) int32, that each row belongs to."""
    groups = torch.arange(len(offsets) - 1, dtype=torch.int32, device=offsets.device)
    return groups.repeat_interleave(offsets.diff(), output_size=rows)


def _power(size: int, least: int, most: int) -> int:
    return int(min(max(triton.next_power_of_2(size), least), most))


def _chunk(width: int) -> int:
    """How many stored elements of a token are multiplied at a time."""
    return _power(width, 16, 128) if width <= 128 or width % 128 == 0 else 64
