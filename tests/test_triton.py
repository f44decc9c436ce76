"""The Triton kernels: equal to the numpy twin and to plain torch, on a GPU, or without one in Triton's interpreter.

Triton decides when it is imported whether it interprets, so `test_in_the_interpreter` runs this file again in a process
of its own. Compiling needs no GPU either: `test_kernels_compile_for_hopper` does it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from index import Codes, Ragged
from index.codec import PACKED, encode
from index.ragged import offsets_of
from retriever.kernels import maxsim, portable
from retriever.kernels.arrays import maxsim_inside, views

if find_spec("triton") is None:
    pytest.skip("no Triton here: pip install triton==3.7.1 (Linux)", allow_module_level=True)

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
on_device = [
    pytest.mark.skipif(not INTERPRETED and not torch.cuda.is_available(), reason="needs a GPU, or TRITON_INTERPRET=1"),
    *([] if INTERPRETED else [pytest.mark.gpu]),
]

SHAPES = [
    ([1], [1], 1),
    ([3], [0, 5, 1, 0], 8),
    ([1, 7, 0, 2], [5, 0, 200, 33, 129], 60),
    ([32, 100], [205, 130], 128),
    ([2, 1], [0, 0], 16),
    ([5], [70, 64], 320),
    ([3, 0], [], 16),
]
CODECS = ["fp32", "bf16", "fp16", "int8", "int4", "binary"]


@pytest.mark.skipif(INTERPRETED, reason="is what this is")
def test_in_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    passed = re.search(r"(\d+) passed", done.stdout)
    assert done.returncode == 0 and passed and int(passed[1]) > 60, done.stdout[-4000:] + done.stderr[-2000:]


def sample(
    query_lengths: list[int], page_lengths: list[int], dim: int, codec: str, whole: bool = False
) -> dict[str, Any]:
    """Arguments of the operator, on the device, but for argmax. whole: small whole numbers, scales 1."""
    rng = np.random.default_rng(dim)
    dim += -dim % PACKED.get(codec, 1)
    shapes = (sum(query_lengths), dim), (sum(page_lengths), dim)
    query, rows = (rng.integers(-2, 3, shape) if whole else rng.standard_normal(shape) for shape in shapes)
    values, scales = torch.tensor(rows, dtype=torch.float32), None
    if codec in ("int8", "int4", "binary"):
        codes, scales = encode(rows.astype(np.float32), codec)
        values = torch.tensor(codes)
        scales = torch.tensor(np.ones_like(scales) if whole else scales, device=DEVICE)
    elif codec != "fp32":
        values = values.to(torch.float16 if codec == "fp16" else torch.bfloat16)
    return {
        "query": torch.tensor(query, dtype=torch.float32, device=DEVICE),
        "query_offsets": torch.tensor(offsets_of(query_lengths), device=DEVICE),
        "values": values.to(DEVICE),
        "offsets": torch.tensor(offsets_of(page_lengths), device=DEVICE),
        "scales": scales,
        "codec": codec if codec in PACKED else "",
    }


def by_twin(query: Any, query_offsets: Any, values: Any, offsets: Any, scales: Any, codec: str) -> Any:
    values = values.float() if values.dtype == torch.bfloat16 else values
    pages = Codes(values.cpu().numpy(), offsets.cpu().numpy(), codec, None if scales is None else scales.cpu().numpy())
    queries = Ragged(query.float().cpu().numpy(), query_offsets.cpu().numpy())
    return maxsim_inside(queries, views(pages), "reference", 1, "fp32", True)


class TestOnDevice:
    pytestmark = on_device

    @pytest.mark.parametrize("codec", CODECS)
    @pytest.mark.parametrize("query_lengths, page_lengths, dim", SHAPES)
    def test_scores_are_those_of_the_twin(
        self, codec: str, query_lengths: list[int], page_lengths: list[int], dim: int
    ) -> None:
        from retriever.kernels import cuda

        given = sample(query_lengths, page_lengths, dim, codec)
        scores, winners = cuda.forward(**given, argmax=False)
        assert scores.dtype == torch.float32 and winners.shape == (0, 0)
        np.testing.assert_allclose(scores.cpu(), by_twin(**given)[0], rtol=3e-6, atol=3e-5)

    def test_a_page_of_8000_tokens(self) -> None:
        from retriever.kernels import cuda

        given = sample([4], [8000, 3], 40, "fp16")
        np.testing.assert_allclose(cuda.forward(**given, argmax=False)[0].cpu(), by_twin(**given)[0], rtol=3e-6)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    @pytest.mark.parametrize("codec", CODECS)
    def test_queries_of_any_type(self, dtype: torch.dtype, codec: str) -> None:
        from retriever.kernels import cuda

        given = sample([20, 13], [100, 0, 31], 64, codec)
        given["query"] = (given["query"] * 1e-6 if dtype != torch.float16 else given["query"]).to(dtype)
        scores = cuda.forward(**given, argmax=False)[0]
        np.testing.assert_allclose(scores.cpu(), by_twin(**given)[0], rtol=5e-6)

    @pytest.mark.parametrize("codec", CODECS)
    def test_winners_are_the_first_of_the_largest(self, codec: str) -> None:
        from retriever.kernels import cuda

        given = sample([4, 15], [450, 0, 1, 129], 16, codec, whole=True)
        scores, winners = cuda.forward(**given, argmax=True)
        expected = by_twin(**given)
        np.testing.assert_array_equal(scores.cpu(), expected[0])
        np.testing.assert_array_equal(winners.cpu(), expected[1])

    @pytest.mark.parametrize("codec", CODECS)
    @pytest.mark.parametrize("query_lengths, page_lengths, dim", SHAPES)
    def test_gradients_are_those_of_plain_torch(
        self, codec: str, query_lengths: list[int], page_lengths: list[int], dim: int
    ) -> None:
        from retriever.kernels import cuda

        of_values = codec in ("fp32", "bf16", "fp16")  # codes have no gradient
        given = sample(query_lengths, page_lengths, dim, codec)
        winners = cuda.forward(**given, argmax=True)[1]
        grad = torch.randn(len(query_lengths), len(page_lengths), device=DEVICE)
        grad[:, torch.tensor(page_lengths) == 0] = torch.nan  # of -inf: must not spread
        found = cuda.backward(grad, **given, winners=winners, of_values=of_values)
        expected = portable.backward(grad, **given, winners=winners, of_values=of_values)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.dtype == theirs.dtype
            torch.testing.assert_close(ours, theirs, rtol=1e-5 if ours.dtype == torch.float32 else 1e-2, atol=1e-4)

    @pytest.mark.skipif(INTERPRETED, reason="the operator chooses Triton on a GPU")
    def test_the_operator_runs_it(self) -> None:
        given = sample([20, 13], [100, 0, 31], 64, "fp16")
        query, values = given["query"].requires_grad_(), given["values"].requires_grad_()
        pages = Ragged(values, given["offsets"].cpu().numpy())
        scores, winners = maxsim(Ragged(query, offsets_of([20, 13])), pages, impl="cuda", argmax=True)
        scores[:, [0, 2]].sum().backward()
        twin = by_twin(**{name: part.detach() if name in ("query", "values") else part for name, part in given.items()})
        np.testing.assert_allclose(scores.detach().cpu(), twin[0], rtol=5e-6)
        rows = winners.long() + given["offsets"][:-1, None]
        torch.testing.assert_close(query.grad, values.detach().float()[rows[[0, 2]]].sum(dim=0))
        again = [torch.autograd.grad(maxsim(query, pages)[[0, 2]].sum(), values)[0] for _ in range(3)]
        assert torch.equal(again[0], again[1]) and torch.equal(again[1], again[2])


@pytest.mark.skipif(INTERPRETED, reason="compiles")
@pytest.mark.parametrize("stored, asked, packed", [("fp16", "fp16", 1), ("fp32", "fp32", 1), ("u8", "fp16", 2)])
def test_kernels_compile_for_hopper(
    stored: str, asked: str, packed: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """For an H100, without one: to machine code with tensor-core products, nothing spilled to memory."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from retriever.kernels import cuda

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = cuda._best_kernel.fn
    types = {"high": asked, "low": asked, "factor": "fp32", "values": stored, "scales": "fp16", "offsets": "i64"}
    types = {name: f"*{kind}" for name, kind in (types | {"best": "fp32", "winners": "i32"}).items()} | {"M": "i32"}
    fixed: dict[str, Any] = {"D": 128, "WIDTH": 128 // packed, "PARTS": packed, "ARGMAX": True, "BLOCK": 32}
    fixed |= {"PRECISION": cuda.PRECISION, "CHUNK": cuda._chunk(128 // packed), "TILE": 64}
    if asked == stored == "fp32":
        fixed |= {"low": None, "factor": None, "scales": None}
    source = ASTSource(
        fn=kernel,
        signature={name: "constexpr" if name in fixed else types[name] for name in kernel.arg_names},
        constexprs={(kernel.arg_names.index(name),): value for name, value in fixed.items()},
        attrs={(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in types if name != "M"},
    )
    compiled = compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 8, "num_stages": 2})
    assert "wgmma.mma_async" in compiled.asm["ptx"] and "cp.async" in compiled.asm["ptx"]
    assert len(compiled.asm["cubin"]) > 1000
    assert compiled.metadata.shared <= 227 * 1024
