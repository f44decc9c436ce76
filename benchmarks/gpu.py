"""MaxSim on a GPU: how near to what the card can do, beside late-interaction-kernels and torch einsum.

    python benchmarks/gpu.py    # needs a CUDA GPU and triton; pip install late-interaction-kernels==0.4.5 for the peer

Every answer is checked against MaxSim in double precision before its time is shown. Times are medians with a cold L2
cache. The limit is what this card did in the same run: bytes at the rate of a copy of 1 GiB, operations at the rate of
an 8192 x 8192 half-precision matrix product, whichever takes longer. Saves results/gpu.json, with the card named.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from index import Codes, Ragged
from index.codec import PACKED, decode, encode
from index.ragged import offsets_of
from retriever.kernels import maxsim, portable
from retriever.kernels.operator import maxsim_operator, rotated_tensor

DIM = 128
PEER = "late_interaction_kernels"
WORKLOADS = [  # queries, tokens each, pages, tokens of each
    (1, 16, 10_000, 256),
    (1, 32, 10_000, 256),
    (1, 32, 4_000, 768),
    (1, 32, 4_000, 1024),
    (1, 32, 4_000, "200-1200"),
    (32, 32, 4_000, 768),
    (32, 20, 4_000, "200-1200"),
]
TRAINING = [(32, 32, 64, 768), (64, 32, 256, 1024)]
LOOSE = 2e-3  # largest relative error of a score that counts as right for a peer; ours: TIGHT
TIGHT = {"fp16": 1e-5, "bf16": 1e-5, "int8": 1e-5, "int4": 1e-5, "binary": 1e-5, "fp16 query": 1e-5}


def sample(b: int, m: int, n: int, t: Any, device: str) -> tuple[Ragged, Ragged]:
    """b queries and n pages of unit vectors, as float32 tensors on the device."""
    rng, generator = np.random.default_rng(0), torch.Generator(device).manual_seed(0)
    lengths = [m] * b, rng.integers(200, 1201, n) if isinstance(t, str) else [t] * n

    def rows(count: Any) -> Ragged:
        vectors = torch.randn(int(np.sum(count)), DIM, device=device, generator=generator)
        return Ragged(torch.nn.functional.normalize(vectors, dim=1), offsets_of(count))

    return rows(lengths[0]), rows(lengths[1])


def ours(queries: Ragged, pages: Ragged) -> Iterator[tuple[str, Callable[[], Tensor], Any, int]]:
    """Name, call, the float32 vectors that it scores, bytes of its page tokens. All of it lies on the GPU."""
    device = pages.values.device
    query_offsets, offsets = (torch.tensor(part, device=device) for part in (queries.offsets, pages.offsets))

    def call(query: Tensor, values: Tensor, scales: Any = None, codec: str = "") -> Callable[[], Tensor]:
        return lambda: maxsim_operator(query, query_offsets, values, offsets, scales, codec)[0]

    half = pages.values.half()
    yield "fp16", call(queries.values, half), half.float(), half.nbytes
    yield "fp16 query", call(queries.values.half(), half), half.float(), half.nbytes
    brain = pages.values.bfloat16()
    yield "bf16", call(queries.values, brain), brain.float(), brain.nbytes
    for codec in ("int8", "int4", "binary"):
        stored, scales = encode(pages.values.cpu().numpy(), codec)
        meant = torch.tensor(decode(Codes(stored, pages.offsets, codec, scales)), device=device)
        values, steps = torch.tensor(stored, device=device), torch.tensor(scales, device=device)
        query = rotated_tensor(queries.values, codec)
        packed = codec if codec in PACKED else ""
        yield codec, call(query, values, steps, packed), meant, values.nbytes + steps.nbytes


def peers(queries: Ragged, pages: Ragged) -> Iterator[tuple[str, Callable[[], Tensor] | str, Any, int]]:
    """The same of others, or instead of a call why there is none."""
    query, values = queries.values.half(), pages.values.half()
    offsets = [torch.tensor(part, dtype=torch.int32, device=query.device) for part in (queries.offsets, pages.offsets)]
    longest = int(queries.lengths.max()), int(pages.lengths.max())
    if find_spec(PEER):
        from late_interaction_kernels import maxsim_varlen

        call: Any = lambda: maxsim_varlen(query, values, offsets[0], offsets[1], *longest)  # noqa: E731
    else:
        call = "not installed"
    yield "late-interaction-kernels, varlen fp16", call, values.float(), values.nbytes
    padded = torch.zeros(len(pages), longest[1], DIM, dtype=torch.float16, device=query.device)
    padded[torch.arange(longest[1]) < torch.tensor(pages.lengths)[:, None]] = values
    split = query.view(len(queries), longest[0], DIM)

    def einsum() -> Tensor:
        parts = [
            torch.einsum("bmd,ntd->bnmt", split, part).amax(dim=3).float().sum(dim=2) for part in padded.split(500)
        ]
        return torch.cat(parts, dim=1)

    yield "torch einsum, padded before, fp16", einsum, values.float(), values.nbytes


def error(scores: Tensor, queries: Ragged, vectors: Tensor, pages: Ragged) -> float:
    """The largest relative error of a score against MaxSim in double precision of what was scored."""
    given = [torch.tensor(part, device=vectors.device) for part in (queries.offsets, pages.offsets)]
    exact = portable.forward(queries.values.double(), given[0], vectors, given[1], None, "", False)[0]
    return float(((scores.double() - exact) / exact).abs().max())


def limits() -> tuple[float, float]:
    """Bytes a second of a copy, operations a second of a half-precision product."""
    from triton.testing import do_bench

    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target, square = torch.empty_like(source), torch.randn(8192, 8192, device="cuda").half()
    copied = do_bench(lambda: target.copy_(source), return_mode="median")
    multiplied = do_bench(lambda: square @ square, return_mode="median")
    return 2 * source.nbytes / copied * 1e3, 2 * 8192**3 / multiplied * 1e3


def forward_rows(rates: tuple[float, float]) -> Iterator[dict[str, Any]]:
    from triton.testing import do_bench

    for b, m, n, t in WORKLOADS:
        queries, pages = sample(b, m, n, t, "cuda")
        operations = 2 * b * m * len(pages.values) * DIM
        for own, entries in ((True, ours(queries, pages)), (False, peers(queries, pages))):
            for name, call, vectors, size in entries:
                row: dict[str, Any] = {"work": f"{b} x {m} over {n} x {t}", "what": f"octavo {name}" if own else name}
                if isinstance(call, str):
                    yield row | {"note": call}
                    continue
                asked = (
                    Ragged(queries.values.half().float(), queries.offsets) if not own or "query" in name else queries
                )
                try:
                    wrong = error(call(), asked, vectors, pages)
                except Exception as failure:  # a peer that breaks is a row that says so
                    yield row | {"note": f"failed: {type(failure).__name__}: {failure}"[:200]}
                    continue
                if not wrong <= (TIGHT[name] if own else LOOSE):
                    yield row | {"note": f"wrong by {wrong:.1e}", "error": wrong}
                    continue
                ms = do_bench(call, return_mode="median")
                least = max(size / rates[0], operations / rates[1]) * 1e3
                yield row | {"ms": ms, "error": wrong, "share of the limit": least / ms}


def training_rows() -> Iterator[dict[str, Any]]:
    """Forward and backward, bf16 queries and pages, every query against every page. Products that einsum rounds to bf16
    tie where ours do not, so other tokens win."""
    from triton.testing import do_bench

    for b, m, n, t in TRAINING:
        queries, pages = sample(b, m, n, t, "cuda")
        q, v = queries.values.bfloat16().requires_grad_(), pages.values.bfloat16().requires_grad_()
        padded = v.detach().view(n, t, DIM).requires_grad_()

        def octavo(q: Tensor = q, v: Tensor = v, queries: Any = queries, pages: Any = pages) -> list[Tensor]:
            scores = maxsim(Ragged(q, queries.offsets), Ragged(v, pages.offsets))
            return list(torch.autograd.grad(scores.sum(), [q, v]))

        def einsum(q: Tensor = q, padded: Tensor = padded, b: int = b, m: int = m) -> list[Tensor]:
            similarity = torch.einsum("bmd,ntd->bnmt", q.view(b, m, DIM), padded)
            return list(torch.autograd.grad(similarity.amax(dim=3).float().sum(), [q, padded]))

        exact = gradients(q.detach().double(), v.detach().double(), queries, pages)
        for name, call, bound in (("octavo, gradients", octavo, 1e-2), ("torch einsum, gradients", einsum, 0.2)):
            found = call()
            wrong = max(
                float((part.double().view_as(true) - true).norm() / true.norm())
                for part, true in zip(found, exact, strict=True)
            )
            row = {"work": f"{b} x {m} over {n} x {t}", "what": name, "error": wrong}
            yield row | ({"ms": do_bench(call, return_mode="median")} if wrong <= bound else {})


def gradients(query: Tensor, values: Tensor, queries: Ragged, pages: Ragged) -> tuple[Tensor, Tensor]:
    """Of the sum of all scores, in double precision."""
    given = [torch.tensor(part, device=query.device) for part in (queries.offsets, pages.offsets)]
    scores, winners = portable.forward(query, given[0], values, given[1], None, "", True)
    return portable.backward(torch.ones_like(scores), query, given[0], values, given[1], None, "", winners, True)


def shown(row: dict[str, Any]) -> str:
    figures = f"{row['ms']:9.3f} ms" if "ms" in row else f"{row.get('note', 'wrong'):>12}"
    share = f"{row['share of the limit']:6.0%}" if "share of the limit" in row else " " * 6
    return f"{row['work']:28}{row['what']:40}{figures}{share}\n"


def main() -> None:
    if not torch.cuda.is_available() or find_spec("triton") is None:
        raise SystemExit("benchmarks/gpu.py: no CUDA GPU with triton here, so nothing was measured and nothing written")
    rates = limits()
    rows = []
    for source in (forward_rows(rates), training_rows()):
        for row in source:
            rows.append(row)
            sys.stdout.write(shown(row))
    versions = {}
    for package in ("torch", "triton", "late-interaction-kernels"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    result = {
        "device": torch.cuda.get_device_name(),
        "host": platform.processor() or platform.machine(),
        "versions": versions | {"cuda": torch.version.cuda},
        "limits": {"copy, GB/s": rates[0] / 1e9, "half-precision product, TFLOP/s": rates[1] / 1e12},
        "rows": rows,
    }
    out = Path(__file__).parent / "results" / "gpu.json"
    out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
