"""What every encoder of pictures shares: an embedding, and the `Encoder` protocol on top of two methods.

A family says how pictures and queries are embedded; pages, queries and cached queries of an index follow from that, and
so do sentence-transformers' words (`encode_query`, `encode_document`, `similarity`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from ingest.page import Page, PageTokens

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class Span(NamedTuple):
    """A part of an input and the tokens start..end-1 that are its own; kind: `text` or `image`."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True)
class Embedding:
    """What an input became. single: (D,) float32 of norm 1; multi: (t, d) float32, each of norm 1; either may be None;
    boxes: (t, 4) cells of visual tokens on their picture, zeros for the others; spans: the tokens of each part; ids:
    (t,) token ids. Tensors are on the CPU."""

    single: torch.Tensor | None
    multi: torch.Tensor | None
    boxes: np.ndarray
    spans: list[Span]
    ids: np.ndarray


class PictureEncoder:
    """The `Encoder` protocol (ingest/page.py) from `embed_pictures` and `embed_queries`."""

    _recent: tuple[Any, list[Embedding]] = (None, [])

    def embed_pictures(self, pictures: Sequence[Any]) -> list[Embedding]:
        """Each picture as a page."""
        raise NotImplementedError

    def embed_queries(self, texts: Sequence[str]) -> list[Embedding]:
        """Each text as a query."""
        raise NotImplementedError

    def query_key(self) -> Any:
        """What, changed, changes the embedding of a query."""
        return None

    def encode_pages(self, pages: Sequence[Page]) -> list[PageTokens]:
        """A page -> its picture's token vectors (t, d), their cells (zeros for tokens of the prompt), and (D,).

        A passage of a text file is embedded as text by families that do that, else by its picture."""
        reads = type(self).embed_passages is not PictureEncoder.embed_passages
        texts = [place for place, page in enumerate(pages) if reads and page.passage]
        rest = [place for place in range(len(pages)) if place not in set(texts)]
        embedded = self.embed_passages([pages[i].passage for i in texts]) if texts else []
        embedded += self.embed_pictures([pages[i].image for i in rest]) if rest else []
        found = [one for _, one in sorted(zip(texts + rest, embedded, strict=True), key=lambda pair: pair[0])]
        return [PageTokens(plain(e.multi), e.boxes, None, None if e.single is None else plain(e.single)) for e in found]

    def encode_queries(self, texts: Sequence[str]) -> list[np.ndarray]:
        """A text -> (m, d), tokens of the prompt among them."""
        return [plain(found.multi) for found in self._queries(texts)]

    def encode_queries_single(self, texts: Sequence[str]) -> np.ndarray:
        """(n, D). Right after `encode_queries` of the same texts it runs no model."""
        return np.stack([plain(found.single) for found in self._queries(texts)])

    # -- sentence-transformers' words ---------------------------------------------------------------------------------

    def embed_passages(self, texts: Sequence[str]) -> list[Embedding]:
        """Each text as a document."""
        raise ValueError(f"{type(self).__name__} takes pictures as documents, texts only as queries")

    def encode_query(
        self,
        inputs: str | Sequence[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        output_value: str = "token_embeddings",
        convert_to_numpy: bool = False,
        normalize_embeddings: bool = False,
    ) -> Any:
        """As `MultiVectorEncoder.encode_query`: a text -> (m, d) float32, a list of them -> a list; tensors on the CPU.

        The family's own prompt is always used and vectors are of norm 1 already; batch_size and show_progress_bar are
        taken for the sake of callers written for the other. Raises ValueError for a prompt of one's own.
        """
        self._as_there(prompt_name, prompt, output_value)
        many = [inputs] if isinstance(inputs, str) else list(inputs)
        return _as_there([one.multi for one in self.embed_queries(many)], convert_to_numpy, isinstance(inputs, str))

    def encode_document(
        self,
        inputs: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        output_value: str = "token_embeddings",
        convert_to_numpy: bool = False,
        normalize_embeddings: bool = False,
    ) -> Any:
        """As `MultiVectorEncoder.encode_document`: a text, or a picture (Path, PIL image, (H, W, 3) uint8), -> (t, d).

        A list of them, mixed as they may be, -> a list. The rest is as for `encode_query`.
        """
        self._as_there(prompt_name, prompt, output_value)
        alone = not isinstance(inputs, list | tuple)
        many: list[Any] = [inputs] if alone else list(inputs)
        found: list[torch.Tensor | None] = [None] * len(many)
        for texts, embed in ((True, self.embed_passages), (False, self.embed_pictures)):
            places = [place for place, one in enumerate(many) if isinstance(one, str) == texts]
            for place, one in zip(places, embed([many[i] for i in places]) if places else [], strict=True):
                found[place] = one.multi
        return _as_there(found, convert_to_numpy, alone)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """MaxSim of queries and documents, lists of (m, d) and (t, d) -> (queries, documents) float32."""
        from index import Ragged
        from retriever.kernels import maxsim

        queries, documents = (
            Ragged.of([np.asarray(one, np.float32) for one in ([side] if getattr(side, "ndim", 3) == 2 else side)])
            for side in (embeddings1, embeddings2)
        )
        return torch.from_numpy(np.asarray(maxsim(queries, documents)))

    @staticmethod
    def _as_there(prompt_name: str | None, prompt: str | None, output_value: str) -> None:
        if prompt is not None or prompt_name not in (None, "query", "document", "passage"):
            raise ValueError("a family's own prompts are used; leave prompt and prompt_name out")
        if output_value != "token_embeddings":
            raise ValueError(f"output_value {output_value!r}: only token_embeddings are given")

    def _queries(self, texts: Sequence[str]) -> list[Embedding]:
        key = (tuple(texts), self.query_key())
        asked, found = self._recent
        if asked != key:
            found = self.embed_queries(list(texts))
            self._recent = (key, found)
        return found


def chosen(device: str | torch.device | None, dtype: torch.dtype | str | None) -> tuple[torch.device, torch.dtype]:
    """Where and in what a model is kept: by default CUDA where there is one; bfloat16 on a GPU, float32 elsewhere.

    Raises ValueError for a dtype that weights cannot have.
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if dtype is None:
        return place, torch.float32 if place.type == "cpu" else torch.bfloat16
    names = {str(kind).removeprefix("torch."): kind for kind in DTYPES}
    found = names.get(str(dtype).removeprefix("torch."))
    if found is None:
        raise ValueError(f"dtype {dtype}: one of {', '.join(names)} is expected")
    return place, found


def _as_there(vectors: Sequence[torch.Tensor | None], as_numpy: bool, alone: bool) -> Any:
    given = [plain(one) for one in vectors] if as_numpy else list(vectors)
    return given[0] if alone else given


def plain(vectors: torch.Tensor | None) -> np.ndarray:
    """A tensor on the CPU as a float32 array."""
    assert vectors is not None
    return np.asarray(vectors.numpy(), np.float32)
