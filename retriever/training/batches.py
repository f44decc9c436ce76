"""A batch: rows for the model, and the loss of their vectors.

Pairs become queries and the different documents of the batch, each once; what answers a query is never its negative.
Pages are drawn by the jailed renderer, as an index draws them, when their batch comes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ingest.render import PageFailure, Renderer, RenderError
from ingest.sources import Unreadable, find, open_source
from retriever.encoders.jina_v4 import JinaV4, Vectors
from retriever.encoders.jina_v4_inputs import Row
from retriever.training import losses
from retriever.training.data import Document, Graded, PageOf, Pair

LONGEST = 8192
"""Tokens of a text; what is longer is cut off in training."""


class Batch(NamedTuple):
    """rows: of queries or first texts, then of documents or second texts; loss: of their vectors, in that order."""

    rows: list[Row]
    loss: Callable[[list[Vectors]], Tensor]


class Pictures:
    """Pages as pictures. failed: those that cannot be drawn, and why; pairs that need them are left out."""

    def __init__(self, model: JinaV4, renderer: Renderer) -> None:
        self._size, self._renderer = model.render, renderer
        self.failed: dict[PageOf, str] = {}

    def of(self, document: Document) -> Any:
        """A text as it is, a page as (H, W, 3) uint8; None for one that cannot be drawn."""
        if isinstance(document, str) or document in self.failed:
            return document if isinstance(document, str) else None
        drawn = self._drawn(document)
        if isinstance(drawn, str):
            self.failed[document] = drawn
            return None
        return drawn

    def _drawn(self, page: PageOf) -> np.ndarray | str:
        (source,) = find([page.path], max_bytes=self._renderer.limits.max_bytes)
        if isinstance(source, Unreadable):
            return source.reason
        descriptor = open_source(source.path)
        try:
            with self._renderer.open(descriptor, source.kind) as document:
                if page.number > document.pages:
                    return f"the document has {document.pages} pages"
                size = self._size
                found = self._renderer.render(document, page.number, dpi=size.dpi, max_pixels=size.max_pixels)
        except RenderError as error:
            return error.reason
        finally:
            os.close(descriptor)
        return f"{found.state}: {found.reason}" if isinstance(found, PageFailure) else found.image


def batch_of(model: JinaV4, items: Sequence[Any], task: str, pictures: Pictures, negatives: int) -> Batch | None:
    """The batch of pairs, with at most so many negatives each, or of graded pairs; None where none can be used."""
    if isinstance(items[0], Graded):
        return _of_graded(model, items, task)
    return _of_pairs(model, items, task, pictures, negatives)


def _of_graded(model: JinaV4, items: Sequence[Graded], task: str) -> Batch:
    texts = [item.one for item in items] + [item.two for item in items]
    rows = model.rows(texts, [task] * len(texts), "query", max_length=LONGEST)
    grades = torch.tensor([item.grade for item in items])
    n, dims = len(items), model.matryoshka_dims
    return Batch(rows, lambda found: losses.graded(found[:n], found[n:], grades, dims))


def _of_pairs(model: JinaV4, pairs: Sequence[Pair], task: str, pictures: Pictures, negatives: int) -> Batch | None:
    wanted = dict.fromkeys(pair.document for pair in pairs)
    wanted |= dict.fromkeys(other for pair in pairs for other in pair.negatives[:negatives])
    drawn = {document: pictures.of(document) for document in wanted}
    documents = [document for document in wanted if drawn[document] is not None]
    pairs = [pair for pair in pairs if drawn[pair.document] is not None]
    if not pairs:
        return None
    queries = model.rows([pair.query for pair in pairs], [task] * len(pairs), "query", max_length=LONGEST)
    inputs = [drawn[document] for document in documents]
    found = model.rows(inputs, [task] * len(inputs), "passage", max_length=LONGEST)
    place = {document: number for number, document in enumerate(documents)}
    right = torch.tensor([place[pair.document] for pair in pairs])
    left_out = torch.tensor([[one in pair.answers and one != pair.document for one in documents] for pair in pairs])
    loss = partial(_contrast, n=len(pairs), right=right, left_out=left_out, dims=model.matryoshka_dims)
    return Batch([*queries, *found], loss)


def _contrast(found: list[Vectors], n: int, right: Tensor, left_out: Tensor, dims: Sequence[int]) -> Tensor:
    return losses.contrast(found[:n], found[n:], right, left_out, dims)
