"""MaxSim: every implementation against the definition in double precision, on ragged and odd shapes; its gradients."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.library import opcheck

from index import Codes, Ragged, native
from index.codec import CENTRED, PACKED, decode, encode
from index.ragged import offsets_of
from retriever.kernels import maxsim, operator
from retriever.kernels.arrays import views

SHAPES = [
    ([1], [1], 1),
    ([3], [0, 5, 1, 0], 8),
    ([1, 7, 2], [5, 0, 200, 33, 1], 60),
    ([32], [505] * 20, 128),
    ([2, 0, 1], [0, 3], 16),
    ([4], [9000, 3], 24),
]
IMPLEMENTATIONS = ["reference", "cpu", "operator", "portable"]


@pytest.fixture(params=IMPLEMENTATIONS)
def by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """maxsim by one implementation, arrays in and out: the numpy twin, the native library, the torch operator as it is
    here, the torch operator where there is no native library."""
    if request.param == "cpu" and native.available() is None:
        pytest.skip("the native library was not built: install with a C++ compiler")
    if request.param in ("reference", "cpu"):
        return lambda query, pages, **options: maxsim(query, pages, impl=request.param, **options)
    if request.param == "portable":
        monkeypatch.setattr(native, "available", lambda: None)

    def by_tensors(query: Any, pages: Any, **options: Any) -> Any:
        many = isinstance(query, Ragged)
        tensors = Ragged(torch.tensor(query.values), query.offsets) if many else torch.tensor(query)
        found = maxsim(tensors, pages, **options)
        return tuple(part.numpy() for part in found) if isinstance(found, tuple) else found.numpy()

    return by_tensors


def definition(queries: Ragged, vectors: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The sum over query tokens of the largest inner product, in float64, one page and one query at a time."""
    scores = np.full((len(queries), len(offsets) - 1), -np.inf)
    for i, query in enumerate(queries):
        for j in range(len(offsets) - 1):
            page = vectors[offsets[j] : offsets[j + 1]].astype(np.float64)
            if len(page):
                scores[i, j] = (query.astype(np.float64) @ page.T).max(axis=1).sum()
    return scores


def sample(query_lengths: list[int], page_lengths: list[int], dim: int) -> tuple[Ragged, Ragged]:
    rng = np.random.default_rng(dim)

    def rows(lengths: list[int]) -> Ragged:
        values = rng.standard_normal((sum(lengths), dim)).astype(np.float32)
        return Ragged(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9), offsets_of(lengths))

    return rows(query_lengths), rows(page_lengths)


def coded(pages: Ragged, codec: str | None) -> tuple[Ragged | Codes, np.ndarray]:
    """Pages in a codec, and the vectors that they then stand for."""
    if codec is None:
        return pages, pages.values
    centre = pages.values.mean(axis=0) if codec in CENTRED else None
    values, scales = encode(pages.values, codec, centre)
    codes = Codes(values, pages.offsets, codec, scales, centre)
    return codes, decode(codes)


@pytest.mark.parametrize("codec", [None, "fp16", "int8", "int4", "binary"])
@pytest.mark.parametrize("query_lengths, page_lengths, dim", SHAPES)
def test_scores_are_the_definition(
    by: Any, codec: str | None, query_lengths: list[int], page_lengths: list[int], dim: int
) -> None:
    dim += -dim % PACKED.get(codec or "", 1)
    queries, pages = sample(query_lengths, page_lengths, dim)
    stored, exact = coded(pages, codec)
    expected = definition(queries, exact, pages.offsets)
    scores = by(queries, stored)
    assert scores.dtype == np.float32 and scores.shape == expected.shape
    bound = 5e-3 if codec == "binary" else 1e-5  # the native kernel reads a query in 8 bits beside signs
    np.testing.assert_allclose(scores, expected, rtol=bound, atol=bound)
    alone = np.stack([by(query, stored) for query in queries])
    np.testing.assert_allclose(alone, scores, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("codec", [None, "fp16", "int8", "int4", "binary"])
def test_winners_are_the_first_of_the_largest(by: Any, codec: str | None) -> None:
    """Small whole numbers and few distinct tokens: ties everywhere, and no rounding to hide behind."""
    rng = np.random.default_rng(3)
    rows = rng.integers(-1, 2, (700, 16)).astype(np.float32) if codec != "binary" else rng.choice([-1, 1], (700, 16))
    rows[300:400] = rows[:100]
    pages = Ragged(rows.astype(np.float32), offsets_of([450, 0, 1, 249]))
    queries = Ragged(rng.integers(-2, 3, (11, 16)).astype(np.float32), offsets_of([4, 7]))
    stored: Ragged | Codes = pages
    if codec == "int4":  # made here: the rotation that encode applies leaves no whole numbers, nor does that of queries
        queries = Ragged(np.zeros_like(queries.values), queries.offsets)
        stored = coded(pages, codec)[0]
    elif codec is not None:
        values, scales = encode(pages.values, codec)
        stored = Codes(values, pages.offsets, codec, scales if scales is None else np.ones_like(scales))
        pages = Ragged(decode(stored), pages.offsets)
    scores, winners = by(queries, stored, argmax=True)
    assert winners.dtype == np.int32 and winners.shape == (4, 11)
    for j, page in enumerate(pages):
        similarity = queries.values @ page.T
        expected = similarity.argmax(axis=1) if len(page) else np.full(11, -1)
        if codec == "binary" and len(page):
            reached = np.take_along_axis(similarity, winners[j][:, None], axis=1)[:, 0]
            assert (similarity.max(axis=1) - reached <= 0.02 * np.abs(queries.values).sum(axis=1)).all()
        else:
            assert winners[j].tolist() == expected.tolist()
    np.testing.assert_array_equal(scores, by(queries, stored))


def test_a_page_scores_the_same_whatever_shares_its_batch(by: Any) -> None:
    """Zero padding would make this page's best similarity 0 instead of -0.7."""
    query = np.array([[1.0, 0.0], [0.6, 0.8]], np.float32)
    page = np.array([[-0.7, -0.1]], np.float32)
    beside = Ragged.of([page, np.ones((50, 2), np.float32)])
    alone = by(query, Ragged.of([page]))
    assert by(query, beside)[0] == alone[0] == pytest.approx(-0.7 - 0.5)


def test_no_pages_and_no_queries(by: Any) -> None:
    queries, pages = sample([4], [3, 2], 16)
    assert by(queries.values, Ragged.of([], 16)).shape == (0,)
    assert by(Ragged.of([], 16), pages).shape == by(Ragged.of([], 16), coded(pages, "binary")[0]).shape == (0, 2)
    scores, winners = by(np.zeros((0, 16), np.float32), Ragged.of([pages[0], pages[0][:0]]), argmax=True)
    assert scores.tolist() == [0, -np.inf] and winners.shape == (2, 0)


@pytest.mark.parametrize("codec", ["fp16", "int8", "int4", "binary"])
def test_views_score_as_the_codes_they_view(by: Any, codec: str) -> None:
    queries, pages = sample([5], [40, 0, 7], 32)
    codes = coded(pages, codec)[0]
    assert isinstance(codes, Codes)
    np.testing.assert_allclose(by(queries.values, views(codes)), by(queries.values, codes), rtol=1e-6)


@pytest.mark.parametrize("impl", ["reference", "cpu"])
@pytest.mark.parametrize("precision, codec, bound", [("int8", "int8", 5e-3), ("binary", "binary", 1e-5)])
def test_a_rounded_query_costs_little(impl: str, precision: str, codec: str, bound: float) -> None:
    """int8: against the query as it was; binary: against its signs times its mean magnitude."""
    if impl == "cpu" and native.available() is None:
        pytest.skip("the native library was not built: install with a C++ compiler")
    queries, pages = sample([17], [300, 40, 200], 64)
    stored, exact = coded(pages, codec)
    tokens = queries.values
    if precision == "binary":
        assert isinstance(stored, Codes) and stored.centre is not None
        shift = (tokens @ stored.centre).sum()
        tokens = np.where(tokens >= 0, 1, -1) * np.abs(tokens).mean(axis=1, keepdims=True)
        expected = definition(Ragged(tokens, queries.offsets), exact - stored.centre, pages.offsets)[0] + shift
    else:
        expected = definition(queries, exact, pages.offsets)[0]
    scores = maxsim(queries.values, stored, impl=impl, precision=precision)
    np.testing.assert_allclose(scores, expected, rtol=bound)


def test_tensors_in_tensor_out() -> None:
    queries, pages = sample([4], [7, 0, 3], 16)
    tensor = Ragged(torch.from_numpy(pages.values), pages.offsets)
    expected = maxsim(queries.values, pages)
    for impl in ("auto", "reference"):
        scores, winners = maxsim(torch.from_numpy(queries.values), tensor, impl=impl, argmax=True)
        assert isinstance(scores, torch.Tensor) and winners.dtype == torch.int32
        np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-6)
    for half in (torch.float16, torch.bfloat16):
        rounded = Ragged(tensor.values.to(half), pages.offsets)
        near = maxsim(torch.from_numpy(queries.values), rounded)
        exact = definition(queries, rounded.values.float().numpy(), pages.offsets)[0]
        np.testing.assert_allclose(near.numpy(), exact, rtol=2e-6)


def test_what_does_not_fit_is_refused() -> None:
    queries, pages = sample([4], [7], 16)
    with pytest.raises(ValueError, match=r"\(4, 15\) and \(7, 16\)"):
        maxsim(queries.values[:, :15], pages)
    with pytest.raises(ValueError, match=r"\(4, 2\) and \(7, 16\)"):
        maxsim(queries.values[:, :2], coded(pages, "binary")[0])
    with pytest.raises(ValueError, match="impl is one of auto, reference, cpu, cuda; got 'fastest'"):
        maxsim(queries.values, pages, impl="fastest")
    with pytest.raises(ValueError, match="precision is one of"):
        maxsim(queries.values, pages, precision="fp8")
    with pytest.raises(ValueError, match="precision 'int8' is for arrays"):
        maxsim(torch.from_numpy(queries.values), pages, precision="int8")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_what_is_not_here_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, pages = sample([4], [7], 16)
    with pytest.raises(ValueError, match="impl 'cuda' needs a GPU"):
        maxsim(queries.values, pages, impl="cuda")
    monkeypatch.setattr(native, "available", lambda: None)
    with pytest.raises(ValueError, match=r"impl 'cpu' needs the native library.*C\+\+ compiler"):
        maxsim(queries.values, pages, impl="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_no_gpu_no_figure() -> None:
    script = Path(__file__).parent.parent / "benchmarks/gpu.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=script.parent.parent)
    assert done.returncode == 1 and done.stdout == "" and "nothing was measured" in done.stderr


# -- the operator ------------------------------------------------------------------------------------------------------


def tensors(queries: Ragged, pages: Ragged | Codes) -> tuple[torch.Tensor, ...]:
    return tuple(torch.tensor(array) for array in (queries.values, queries.offsets, pages.values, pages.offsets))


@pytest.mark.parametrize("argmax", [False, True])
@pytest.mark.parametrize("codec", [None, "int8", "int4"])
def test_the_operator_is_registered_soundly(codec: str | None, argmax: bool) -> None:
    for query_lengths, page_lengths, dim in [([3], [0, 5, 1, 0], 8), ([1, 7, 2], [5, 0, 20, 1], 60)]:
        queries, pages = sample(query_lengths, page_lengths, dim)
        stored = coded(pages, codec)[0]
        query, query_offsets, values, offsets = tensors(queries, stored)
        query.requires_grad_()
        values.requires_grad_(values.is_floating_point())
        scales = torch.tensor(stored.scales) if isinstance(stored, Codes) else None
        opcheck(operator.maxsim_operator, (query, query_offsets, values, offsets, scales, codec or "", argmax))


def test_gradients_are_those_of_the_numbers() -> None:
    queries, pages = sample([3, 0, 4], [5, 0, 30, 1], 7)
    query, query_offsets, values, offsets = tensors(queries, pages)
    filled = torch.tensor([0, 2, 3])

    def scores(query: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return operator.maxsim_operator(query, query_offsets, values, offsets)[0][:, filled]

    assert torch.autograd.gradcheck(scores, (query.double().requires_grad_(), values.double().requires_grad_()))


@pytest.mark.parametrize("argmax", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_gradients_are_those_of_the_dense_formula(dtype: torch.dtype, argmax: bool) -> None:
    queries, pages = sample([3, 9], [50, 0, 8], 32)
    query, query_offsets, values, offsets = tensors(queries, pages)
    values = values.to(dtype)
    grads = []
    for ours in (True, False):
        q, v = query.clone().requires_grad_(), values.clone().requires_grad_()
        if ours:
            scores = operator.maxsim_operator(q, query_offsets, v, offsets, None, "", argmax)[0]
        else:
            similarity = q @ v.float().T
            best = [
                similarity[:, i:j].amax(dim=1) if i < j else similarity.new_zeros(12)
                for i, j in [(0, 50), (0, 0), (50, 58)]
            ]
            scores = torch.stack([torch.stack([part[:3].sum(), part[3:].sum()]) for part in best], dim=1)
        (torch.sigmoid(scores) * torch.arange(6).view(2, 3)).sum().backward()
        assert q.grad is not None and v.grad is not None and v.grad.dtype == dtype
        grads.append((q.grad, v.grad.float()))
    for ours_, dense in zip(*grads, strict=True):
        torch.testing.assert_close(ours_, dense, rtol=1e-5 if dtype == torch.float32 else 1e-2, atol=1e-6)
        assert dense.abs().max() > 0.1


def test_gradient_of_a_query_over_codes() -> None:
    queries, pages = sample([5], [30, 4], 16)
    for codec in ("int8", "int4", "binary"):
        stored, exact = coded(pages, codec)
        query = torch.tensor(queries.values, requires_grad=True)
        scores, winners = maxsim(query, stored, argmax=True)
        (scores * torch.tensor([1.0, 2.0])).sum().backward()
        won = torch.tensor(exact)[winners.long() + torch.tensor([[0], [30]])]
        torch.testing.assert_close(query.grad, won[0] + 2 * won[1], rtol=1e-5, atol=1e-6)


def test_a_training_step() -> None:
    """Queries learn to find their page among others, one of them empty, through maxsim as a user calls it."""
    torch.manual_seed(0)
    pages = Ragged(torch.nn.functional.normalize(torch.randn(40, 8), dim=1), offsets_of([10, 0, 12, 18]))
    tokens = torch.randn(9, 8, requires_grad=True)
    optimizer, target = torch.optim.Adam([tokens], lr=0.1), torch.tensor([0, 2, 3])
    losses = []
    for _ in range(60):
        scores = maxsim(Ragged(tokens, offsets_of([3, 3, 3])), pages)
        loss = torch.nn.functional.cross_entropy(scores, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert scores.argmax(dim=1).tolist() == target.tolist()
    assert np.isfinite(losses).all() and losses[-1] < 0.1 < losses[0]


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_the_operator_runs_compiled(backend: str) -> None:
    queries, pages = sample([4, 3], [7, 2, 3], 16)
    query, query_offsets, values, offsets = tensors(queries, pages)

    def loss(query: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return (operator.maxsim_operator(query, query_offsets, values, offsets)[0] ** 2).sum()

    found = []
    for function in (loss, torch.compile(loss, backend=backend, fullgraph=True)):
        q, v = query.clone().requires_grad_(), values.clone().requires_grad_()
        result = function(q, v)
        result.backward()
        found.append((result.detach(), q.grad, v.grad))
    for plain, compiled in zip(*found, strict=True):
        torch.testing.assert_close(compiled, plain)


def test_scoring_arrays_imports_no_torch() -> None:
    code = (
        "import sys, numpy as np; from index import Ragged; from retriever.kernels import maxsim;"
        "print(maxsim(np.eye(2, dtype='f4'), Ragged.of([np.eye(2, dtype='f4')]))); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[2.]"
