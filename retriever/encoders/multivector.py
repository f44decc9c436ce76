"""Sentence-transformers' words over an `Encoder` (ingest/page.py): code written for its MultiVectorEncoder runs on it.

Vectors are those that an index is filled and asked with. Where that class would do what a family has no choice in (its
prompts, its device), the argument is taken or refused, never half obeyed. torch is imported when tensors are made.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from index.ragged import Ragged
from ingest.page import Page, PageTokens, Words

if TYPE_CHECKING:
    import torch


class MultiVector(ABC):
    """What an `Encoder` inherits to have those words."""

    similarity_fn_name = "maxsim"

    @abstractmethod
    def encode_pages(self, pages: Sequence[Page]) -> list[PageTokens]:
        """As of `Encoder`."""

    @abstractmethod
    def encode_queries(self, texts: Sequence[str]) -> list[np.ndarray]:
        """As of `Encoder`."""

    def encode_query(
        self,
        inputs: str | Sequence[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        output_value: str = "token_embeddings",
        convert_to_numpy: bool = False,
        device: Any = None,
        normalize_embeddings: bool = False,
        **others: Any,
    ) -> Any:
        """As `MultiVectorEncoder.encode_query`: a text -> (m, d) float32, a list of them -> a list; tensors on the CPU.

        The family's own prompt is always used, on the device where it was loaded, in batches of its own; batch_size,
        device and show_progress_bar are taken for the sake of callers written for the other. Raises ValueError for a
        prompt of one's own, and for what only the other does (pool, token_pooling ...).
        """
        _check(prompt_name, prompt, output_value, others)
        many = [inputs] if isinstance(inputs, str) else list(inputs)
        return _given(self._asked(many), convert_to_numpy, normalize_embeddings, isinstance(inputs, str))

    def encode_document(
        self,
        inputs: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        output_value: str = "token_embeddings",
        convert_to_numpy: bool = False,
        device: Any = None,
        normalize_embeddings: bool = False,
        **others: Any,
    ) -> Any:
        """As `MultiVectorEncoder.encode_document`: a text, or a picture (Path, PIL image, (H, W, 3) uint8), -> (t, d).

        A list of them, mixed as they may be, -> a list. The rest is as for `encode_query`.
        """
        _check(prompt_name, prompt, output_value, others)
        alone = not isinstance(inputs, list | tuple)
        found = self._searched([inputs] if alone else list(inputs))
        return _given(found, convert_to_numpy, normalize_embeddings, alone)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """MaxSim of queries and documents -> (queries, documents) float32.

        Either side is a list of (t, d), one (t, d), or (n, t, d) padded with zeros; arrays or tensors.
        """
        import torch

        from retriever.kernels import maxsim

        scores: Any = maxsim(Ragged.of(_rows(embeddings1)), Ragged.of(_rows(embeddings2)))
        return torch.from_numpy(np.asarray(scores, np.float32))

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """MaxSim of each query and the document in its place -> (n,) float32; the sides as for `similarity`."""
        import torch

        from retriever.kernels import maxsim

        pairs = zip(_rows(embeddings1), _rows(embeddings2), strict=True)
        return torch.tensor([float(maxsim(one, Ragged.of([two]))[0]) for one, two in pairs])

    def _asked(self, texts: list[str]) -> list[np.ndarray]:
        return self.encode_queries(texts)

    def _searched(self, inputs: list[Any]) -> list[np.ndarray]:
        return [tokens.vectors for tokens in self.encode_pages([_page(one) for one in inputs])]


def _page(one: Any) -> Page:
    if isinstance(one, str):
        words, white = one.split(), np.full((16, 16, 3), 255, np.uint8)
        return Page(1, white, Words(words, np.zeros((len(words), 4), np.float32)), 72.0, 72.0, one)
    from retriever.encoders.vision import rgb

    pixels = np.array(rgb(one))
    return Page(1, pixels, Words(), float(pixels.shape[1]), float(pixels.shape[0]))


def _check(prompt_name: str | None, prompt: str | None, output_value: str, others: dict[str, Any]) -> None:
    if prompt is not None or prompt_name not in (None, "query", "document", "passage"):
        raise ValueError("a family's own prompts are used; leave prompt and prompt_name out")
    if output_value != "token_embeddings":
        raise ValueError(f"output_value {output_value!r}: only token_embeddings are given")
    given = [name for name, value in others.items() if value is not None]
    if given:
        raise ValueError(f"{', '.join(given)}: not done here; leave it out")


def _given(vectors: list[np.ndarray], as_numpy: bool, normalised: bool, alone: bool) -> Any:
    found: list[Any] = vectors
    if normalised:
        found = [one / np.maximum(np.linalg.norm(one, axis=1, keepdims=True), 1e-12) for one in found]
    if not as_numpy:
        import torch

        found = [torch.tensor(one) for one in found]
    return found[0] if alone else found


def _rows(side: Any) -> list[np.ndarray]:
    """float32 arrays (t, d) of a side of `similarity`."""
    dims = getattr(side, "ndim", None)
    rows = [_array(one) for one in ([side] if dims == 2 else side)]
    return [row[row.any(axis=1)] for row in rows] if dims == 3 else rows


def _array(vectors: Any) -> np.ndarray:
    on_cpu = vectors.detach().float().cpu() if hasattr(vectors, "detach") else vectors
    return np.asarray(on_cpu, np.float32)
