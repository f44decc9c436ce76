"""MaxSim: every implementation against the definition in double precision, on ragged and odd shapes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.library import opcheck

from index import Codes, Ragged
from index.codec import encode
from index.ragged import offsets_of
from retriever.kernels import maxsim

SHAPES = [
    ([1], [1], 1),
    ([3], [0, 5, 1, 0], 8),
    ([1, 7, 2], [5, 0, 200, 33, 1], 60),
    ([32], [505] * 20, 128),
    ([2], [0, 0], 16),
    ([4], [9000, 3], 24),
]


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


@pytest.mark.parametrize("impl", ["reference", "torch"])
@pytest.mark.parametrize("codec", [None, "fp16", "int8"])
@pytest.mark.parametrize("query_lengths, page_lengths, dim", SHAPES)
def test_scores_are_the_definition(
    impl: str, codec: str | None, query_lengths: list[int], page_lengths: list[int], dim: int
) -> None:
    queries, pages = sample(query_lengths, page_lengths, dim)
    stored: Ragged | Codes = pages
    exact = pages.values
    if codec is not None:
        values, scales = encode(pages.values, codec)
        stored = Codes(values, pages.offsets, codec, scales)
        exact = values.astype(np.float64) * (1 if scales is None else scales.astype(np.float64)[:, None])
    expected = definition(queries, exact, pages.offsets)
    scores = maxsim(queries, stored, impl=impl)
    assert scores.dtype == np.float32 and scores.shape == expected.shape
    np.testing.assert_allclose(scores, expected, rtol=2e-6, atol=2e-6)
    alone = np.stack([maxsim(query, stored, impl=impl) for query in queries])
    np.testing.assert_allclose(alone, scores, rtol=1e-6, atol=1e-6)


def test_a_page_scores_the_same_whatever_shares_its_batch() -> None:
    """Zero padding would make this page's best similarity 0 instead of -0.7."""
    query = np.array([[1.0, 0.0], [0.6, 0.8]], np.float32)
    page = np.array([[-0.7, -0.1]], np.float32)
    beside = Ragged.of([page, np.ones((50, 2), np.float32)])
    for impl in ("reference", "torch"):
        alone = maxsim(query, Ragged.of([page]), impl=impl)
        assert maxsim(query, beside, impl=impl)[0] == alone[0] == pytest.approx(-0.7 - 0.5)


def test_tensors_in_tensor_out() -> None:
    queries, pages = sample([4], [7, 0, 3], 16)
    tensor = Ragged(torch.from_numpy(pages.values), pages.offsets)
    scores = maxsim(torch.from_numpy(queries.values), tensor)
    assert isinstance(scores, torch.Tensor)
    np.testing.assert_allclose(scores.numpy(), maxsim(queries.values, pages), rtol=1e-6)


def test_shapes_that_do_not_fit_are_refused() -> None:
    queries, pages = sample([4], [7], 16)
    with pytest.raises(ValueError, match=r"\(4, 15\) and \(7, 16\)"):
        maxsim(queries.values[:, :15], pages)
    with pytest.raises(ValueError, match="impl is one of"):
        maxsim(queries.values, pages, impl="fastest")


def test_the_operator_is_registered_soundly() -> None:
    from retriever.kernels import operator

    assert torch.ops.octavo.maxsim is not None
    for query_lengths, page_lengths, dim in SHAPES[:4]:
        queries, pages = sample(query_lengths, page_lengths, dim)
        values, scales = encode(pages.values, "int8")
        offsets = torch.from_numpy(queries.offsets), torch.from_numpy(pages.offsets)
        query = torch.from_numpy(queries.values)
        for stored, scale in (
            (torch.from_numpy(pages.values), None),
            (torch.from_numpy(values), torch.from_numpy(scales)),
        ):
            opcheck(operator.maxsim_operator, (query, offsets[0], stored, offsets[1], scale))


@pytest.mark.filterwarnings("ignore")
def test_the_operator_runs_compiled() -> None:
    from retriever.kernels import operator

    queries, pages = sample([4], [7, 2, 3], 16)
    tensors = [torch.from_numpy(array) for array in (queries.values, queries.offsets, pages.values, pages.offsets)]
    compiled = torch.compile(lambda *arguments: operator.maxsim_operator(*arguments, None) * 2, backend="aot_eager")
    np.testing.assert_allclose(compiled(*tensors).numpy()[0], 2 * maxsim(queries.values, pages), rtol=1e-6)


def test_scoring_arrays_imports_no_torch() -> None:
    code = (
        "import sys, numpy as np; from index import Ragged; from retriever.kernels import maxsim;"
        "print(maxsim(np.eye(2, dtype='f4'), Ragged.of([np.eye(2, dtype='f4')]))); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[2.]"
