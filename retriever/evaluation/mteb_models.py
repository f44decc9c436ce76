"""Octavo as mteb sees it: the whole engine as a search model, and every encoder as an encoder beside it.

    SearchModel     `index` and `search`: pages as files through renderer, codec, first stage and rerank, as in use
    EncoderModel    `encode` and `similarity`: one vector a text or picture, or one a token, for tasks without a search

Encoders with several adapters (jina-embeddings-v4) get the one that fits the kind of task. mteb is only imported for
its description of a model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from index.errors import QueryError
from index.pooling import pool_mean
from index.ragged import Ragged
from ingest.page import Encoder, Page, Words
from retriever.engine import Retriever
from retriever.evaluation.datasets import cache_folder
from retriever.evaluation.hub import corpus_of, rows_of
from retriever.evaluation.indexes import Told, encode_texts, opened
from retriever.evaluation.run import best
from retriever.evaluation.tables import needed
from retriever.evaluation.trec import falling
from retriever.ranking import CANDIDATES, LONGEST_QUERY

CODE = ("COIR", "CodeSearch", "Code", "AppsRetrieval", "StackOverflowQA", "CosQA", "SyntheticText2SQL", "CodeTrans")
SEARCHES = ("Retrieval", "Reranking", "DocumentUnderstanding", "InstructionRetrieval", "InstructionReranking")


class SearchModel:
    """mteb's SearchProtocol. Pages are cached by corpus, encoder and codec, so that subsets which share them share one
    index. At most `depth` pages a query are returned: what the engine looks at in use, not mteb's thousand."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        cache: Path | None = None,
        codec: str = "int8",
        pool: int = 1,
        candidates: str = "auto",
        mode: str = "hybrid",
        depth: int = CANDIDATES,
        told: Told | None = None,
    ) -> None:
        self.encoder, self.mode, self.depth = encoder, mode, depth
        self.cache = cache or cache_folder()
        self.shortened = 0
        self._settings: dict[str, Any] = {"codec": codec, "pool": pool, "candidates": candidates, "told": told}
        self._retriever: Retriever | None = None

    @property
    def mteb_model_meta(self) -> Any:
        """What mteb files results under."""
        parts = [f"{name}={value}" for name, value in self._settings.items() if name != "told"]
        return meta(self.encoder, " ".join([self.mode, *parts]), "MaxSim")

    def index(self, corpus: Any, *, task_metadata: Any = None, **_: Any) -> None:
        """Take in a corpus: a `datasets.Dataset` of id and image, or of id, text and title."""
        self.close()
        use_adapter(self.encoder, task_metadata)
        self.corpus = corpus_of(rows_of(corpus), self.cache)
        self._retriever, _ = opened(self.corpus, self.encoder, self.cache, **self._settings)

    def search(
        self, queries: Any, *, top_k: int, top_ranked: Any = None, task_metadata: Any = None, **_: Any
    ) -> dict[str, dict[str, float]]:
        """query id -> page id -> score; of `top_ranked` pages only, where mteb gives some to rerank."""
        assert self._retriever is not None, "index comes before search"
        found = {}
        for row in queries:
            only = None if top_ranked is None else set(top_ranked.get(row["id"], ()))
            ranking = self._search(query_text(row), min(top_k, self.depth), only)
            scores = falling([score for _, score in ranking])
            found[row["id"]] = {page: score for (page, _), score in zip(ranking, scores, strict=True)}
        return found

    def _search(self, text: str, k: int, only: set[str] | None) -> list[tuple[str, float]]:
        where, limit = None, None
        if only is not None:
            places = [place for page in only if (place := self.corpus.place(page))]
            where, limit, k = {"document": {"$in": [content for content, _ in places]}}, "all", max(len(places), 1)
        return [(page, score) for page, score in self._found(text, k, where, limit) if only is None or page in only]

    def _found(self, text: str, k: int, where: Any, limit: Any) -> list[tuple[str, float]]:
        """A query that is too long for the encoder loses its end, half by half."""
        assert self._retriever is not None
        text = text[:LONGEST_QUERY]
        while text.strip():
            try:
                return best(self._retriever, self.corpus, text, k, self.mode, where, limit)
            except QueryError:
                self.shortened += 1
                text = text[: len(text) // 2]
        return []

    def close(self) -> None:
        """Close the index of the last corpus."""
        if self._retriever is not None:
            self._retriever.close()
        self._retriever = None


class EncoderModel:
    """mteb's EncoderProtocol. head: `single`, one vector (the mean of the tokens where the encoder has none of its
    own), or `multi`, one a token, compared by MaxSim."""

    def __init__(self, encoder: Any, head: str = "single", **_: Any) -> None:
        if head not in ("single", "multi"):
            raise ValueError(f"head is single or multi; got {head!r}")
        self.encoder, self.head = encoder, head

    @property
    def mteb_model_meta(self) -> Any:
        """What mteb files results under."""
        return meta(self.encoder, self.head, "cosine" if self.head == "single" else "MaxSim")

    def encode(self, inputs: Iterable[Any], *, task_metadata: Any = None, prompt_type: Any = None, **_: Any) -> Any:
        """Batches of `text` or `image` -> (n, D) float32 of norm 1, or with head multi a list of n (t, d)."""
        use_adapter(self.encoder, task_metadata)
        role = "document" if getattr(prompt_type, "value", prompt_type) in ("document", "passage") else "query"
        found = [vectors for batch in inputs for vectors in self.embed(batch, role)]
        if self.head == "multi":
            return found
        return np.stack(found) if found else np.zeros((0, self.encoder.single_dim or self.encoder.dim), np.float32)

    def embed(self, batch: Any, role: str) -> Iterator[np.ndarray]:
        """The vectors of a batch: texts as queries or as what is searched, pictures as pages."""
        images = batch.get("image") if isinstance(batch, dict) else None
        if images is not None:
            pages = [page_of(image) for image in images]
            for page in self.encoder.encode_pages(pages):
                yield self._headed(page.vectors, page.single)
            return
        texts = [text if text.strip() else "-" for text in map(as_text, batch["text"])]
        if role == "document":
            for page in encode_texts(self.encoder, texts):
                yield self._headed(page.vectors, page.single)
            return
        for text in texts:
            multi, single = self._query(text)
            yield self._headed(multi, single)

    def _query(self, text: str) -> tuple[np.ndarray, np.ndarray | None]:
        while True:
            try:
                multi = self.encoder.encode_queries([text])[0]
                single = self.encoder.encode_queries_single([text])[0] if self.encoder.single_dim else None
                return multi, single
            except ValueError:  # too long, or nothing but signs
                text = text[: len(text) // 2] if len(text) > 60 else "empty"

    def _headed(self, multi: np.ndarray, single: np.ndarray | None) -> np.ndarray:
        if self.head == "multi":
            return multi
        return np.asarray(single if single is not None else pool_mean(multi), np.float32)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """(n, m) of n and m inputs: cosine, or MaxSim of each first one's tokens."""
        import torch

        if self.head == "single":
            return torch.from_numpy(unit(embeddings1) @ unit(embeddings2).T)
        from retriever.kernels import maxsim

        queries, pages = (
            Ragged.of([np.asarray(e) for e in embeddings1]),
            Ragged.of([np.asarray(e) for e in embeddings2]),
        )
        return torch.from_numpy(np.asarray(maxsim(queries, pages), np.float32))

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """(n,) of n pairs."""
        import torch

        if self.head == "single":
            return torch.from_numpy((unit(embeddings1) * unit(embeddings2)).sum(axis=1))
        pairs = zip(embeddings1, embeddings2, strict=True)
        return torch.tensor([float((np.asarray(a) @ np.asarray(b).T).max(axis=1).sum()) for a, b in pairs])


def unit(vectors: Any) -> np.ndarray:
    """(n, D) -> the same with norm 1; zeros stay."""
    rows = np.atleast_2d(np.asarray(vectors, np.float32))
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 1e-12)


def page_of(image: Any) -> Page:
    """A PIL picture as a page without words."""
    pixels = np.ascontiguousarray(np.asarray(image.convert("RGB"), np.uint8))
    return Page(1, pixels, Words(), float(pixels.shape[1]), float(pixels.shape[0]))


def query_text(row: Any) -> str:
    """The text of a query with its instruction. Raises QueryError for one that is a picture."""
    if row.get("text") is None:
        raise QueryError(f"query {row.get('id')} has no text; pictures as queries are not searched for")
    instruction = row.get("instruction")
    return f"{as_text(row['text'])} {instruction}" if instruction else as_text(row["text"])


def as_text(value: Any) -> str:
    """A text, or the turns of a conversation one after the other."""
    if isinstance(value, str):
        return value
    return " ".join(turn["content"] if isinstance(turn, dict) else str(turn) for turn in value)


def use_adapter(encoder: Any, task_metadata: Any) -> None:
    """Switch an encoder that has adapters to the one for a task: retrieval, code or text-matching."""
    known: Sequence[str] = getattr(encoder, "task_names", ())
    if not known or task_metadata is None:
        return
    code = "Programming" in (getattr(task_metadata, "domains", None) or ()) or task_metadata.name.startswith(CODE)
    searching = any(kind in str(task_metadata.type) for kind in SEARCHES)
    wanted = "code" if code and searching else "retrieval" if searching else "text-matching"
    if wanted in known:
        encoder.task = wanted


def meta(encoder: Encoder, how: str, similarity: str) -> Any:
    """mteb's description of a model. Raises OctavoError where mteb is not installed."""
    models = needed("mteb.models.model_meta", "mteb")
    digest = hashlib.blake2b(
        json.dumps([encoder.fingerprint, how], sort_keys=True, default=str).encode(), digest_size=6
    )
    name = Path(encoder.name).name
    fields = {"name": f"octavo/{name}", "revision": digest.hexdigest(), "modalities": ["text", "image"]}
    return models.ModelMeta.create_empty(overwrites=fields | {"similarity_fn_name": similarity})
